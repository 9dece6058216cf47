import pytest
import torch
import torch.nn.functional as F

from reslab.data.mixing import mix
from reslab.recipe.recipe import CutMix, Mixup

NUM, CLASSES = 40, 7


def make_batch():
    """Each image is the number of its label everywhere."""
    labels = torch.arange(NUM) % CLASSES
    return labels[:, None, None, None].float().expand(NUM, 2, 10, 14).contiguous(), labels


@pytest.mark.parametrize("part", [Mixup(alpha=1.0), CutMix()])
@pytest.mark.parametrize("seed", range(4))
def test_labels_are_mixed_by_the_share_of_the_pixels(part, seed):
    images, labels = make_batch()
    whole = F.one_hot(labels, CLASSES).float()
    mixed, shares = mix(images, whole, parts=(part,), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(shares.sum(1), torch.ones(NUM))
    assert ((shares > 0).sum(1) <= 2).all()
    torch.testing.assert_close((shares * torch.arange(CLASSES)).sum(1), mixed.mean((1, 2, 3)))
    if isinstance(part, CutMix):
        assert torch.equal(mixed, mixed.round())  # pasted, not blended
    assert torch.equal(images, make_batch()[0])


def test_one_of_several_is_drawn_for_a_batch():
    images, labels = make_batch()
    drawn = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        mixed, _ = mix(images, F.one_hot(labels, CLASSES), parts=(Mixup(), CutMix()), generator=generator)
        drawn.append(torch.equal(mixed, mixed.round()))
    assert 3 < sum(drawn) < 17
