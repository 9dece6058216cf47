from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from reslab.data.batches import Batches, sample, seeded, standardize
from reslab.data.images import ImageSet
from reslab.recipe.recipe import Flip, Freeze, Mixup, Resize, Sampling, Shift, Standardize, derive
from reslab.recipe.shipped import RECIPES
from reslab.training.distributed import Team

NUM, SIDE, BATCH = 50, 8, 16
BY = Standardize(mean=(10.5, 100, 200.25), std=(1.5, 60, 0.25))
PLAIN = derive(
    RECIPES["lab-resnet32"],
    name="plain",
    image_size=SIDE,
    augment=(),
    progressive_resizing=(),
    standardize=BY,
    batch_size=BATCH,
)
AUGMENTED = derive(PLAIN, name="augmented", augment=(Flip(), Shift(fraction=0.125)))
GROWING = derive(
    AUGMENTED,
    name="growing",
    progressive_resizing=(Resize(epoch=0, image_size=6), Resize(epoch=2, image_size=4), Resize(epoch=4, image_size=8)),
)

SAMPLED = derive(AUGMENTED, name="sampled", sampling=Sampling(images_per_epoch=70, balance=0.5))
ALTERNATING = derive(PLAIN, name="alternating", augment=(Flip(alternate=True),))


@pytest.fixture(scope="module")
def images():
    """Random images; label and first pixel of each are its number."""
    pixels = torch.randint(0, 256, (NUM, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    pixels[:, 0, 0, 0] = torch.arange(NUM)
    return ImageSet(pixels, torch.arange(NUM), tuple(map(str, range(NUM))), "made", "train")


def make(images, recipe=PLAIN, seed=0):
    return Batches(images, recipe=recipe, by=BY, seed=seed, device=torch.device("cpu"))


def order(images, *, seed=0, epoch=0):
    return torch.cat([labels for _, labels in make(images, seed=seed).epoch(epoch)]).tolist()


def assert_same(batches, expected):
    batches, expected = list(batches), list(expected)
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch[0], other[0])
        assert torch.equal(batch[1], other[1])


# ---- an epoch


def test_an_epoch_shows_every_image_once_in_batches_of_which_the_last_may_be_smaller(images):
    batches = make(images)
    sizes = [len(labels) for _, labels in batches.epoch(0)]
    assert sizes == [16, 16, 16, 2]
    assert len(batches) == 4
    assert sorted(order(images)) == list(range(NUM))


@pytest.mark.parametrize(("batch_size", "count"), [(1, 50), (25, 2), (49, 1), (48, 2), (50, 1), (128, 1)])
def test_the_number_of_batches_is_right_for_every_size(images, batch_size, count):
    recipe = derive(PLAIN, name="sized", batch_size=batch_size)
    batches = make(images, recipe)
    assert len(batches) == count == len(list(batches.epoch(0))) == recipe.count_batches(NUM)


def test_the_order_differs_between_epochs_and_seeds_and_not_otherwise(images):
    orders = [order(images, seed=seed, epoch=epoch) for seed in range(3) for epoch in range(3)]
    assert all(one != other for place, one in enumerate(orders) for other in orders[:place])
    assert order(images, seed=1, epoch=2) == order(images, seed=1, epoch=2)
    assert list(range(NUM)) not in orders


def test_images_keep_their_labels_and_are_standardised(images):
    for batch, labels in make(images).epoch(0):
        stored = images.images[labels].numpy().astype(np.float64)
        expected = (stored - np.reshape(BY.mean, (3, 1, 1))) / np.reshape(BY.std, (3, 1, 1))
        np.testing.assert_allclose(batch.numpy(), expected, rtol=1e-5, atol=1e-5)
        assert (batch.dtype, labels.dtype) == (torch.float32, torch.int64)


def test_stored_images_are_never_changed(images):
    before = images.images.clone()
    for recipe in (PLAIN, AUGMENTED, GROWING, SAMPLED, ALTERNATING):
        list(make(images, recipe).epoch(0))
    assert torch.equal(images.images, before)


# ---- going on inside an epoch


@pytest.mark.parametrize("recipe", [PLAIN, AUGMENTED, GROWING, SAMPLED, ALTERNATING], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("start", range(6))
def test_a_start_inside_an_epoch_gives_exactly_the_tail_of_the_whole(images, recipe, start):
    assert_same(make(images, recipe).epoch(3, start=start), list(make(images, recipe).epoch(3))[start:])


def test_batches_do_not_depend_on_what_was_drawn_before(images):
    batches = make(images, AUGMENTED)
    expected = list(batches.epoch(1))
    torch.manual_seed(7)
    list(batches.epoch(0))
    next(batches.epoch(2))
    assert_same(batches.epoch(1), expected)


def test_augmentation_differs_between_epochs_seeds_and_batches(images):
    alike = replace(images, images=images.images[:1].expand(NUM, -1, -1, -1))
    places = [
        batch
        for seed in range(2)
        for epoch in range(2)
        for batch, _ in list(make(alike, AUGMENTED, seed=seed).epoch(epoch))[:3]
    ]
    assert all(not torch.equal(one, other) for place, one in enumerate(places) for other in places[:place])


# ---- growing images


@pytest.mark.parametrize(("epoch", "size"), [(0, 6), (1, 6), (2, 4), (3, 4), (4, 8), (99, 8)])
def test_images_change_their_size_at_their_epochs(images, epoch, size):
    assert GROWING.image_size_at(epoch) == size
    for batch, _ in make(images, GROWING).epoch(epoch):
        assert batch.shape[1:] == (3, size, size)


def test_without_growth_images_have_the_recipes_size_and_before_the_first_growth_too():
    late = derive(PLAIN, name="late", progressive_resizing=(Resize(epoch=2, image_size=4),))
    assert [PLAIN.image_size_at(epoch) for epoch in (0, 5)] == [SIDE, SIDE]
    assert [late.image_size_at(epoch) for epoch in (0, 1, 2, 3)] == [SIDE, SIDE, 4, 4]


def test_half_the_size_is_the_antialiased_mean_of_standardised_pixels(images):
    """By half, an antialiased bilinear filter weighs four pixels a side 1, 3, 3, 1; at the edge it is cut off."""
    weights = np.zeros((4, SIDE))
    for place in range(4):
        for tap, weight in zip(range(2 * place - 1, 2 * place + 3), (1, 3, 3, 1), strict=True):
            if 0 <= tap < SIDE:
                weights[place, tap] = weight
    weights /= weights.sum(axis=1, keepdims=True)
    recipe = derive(PLAIN, name="half", progressive_resizing=(Resize(epoch=0, image_size=4),))
    for batch, labels in make(images, recipe).epoch(0):
        whole = standardize(images.images[labels], by=BY).double().numpy()
        np.testing.assert_allclose(batch.numpy(), weights @ whole @ weights.T, rtol=1e-4, atol=1e-4)


# ---- flipping every other epoch


def which_are_mirrored(images, recipe, *, epoch, seed=0):
    """Tell for each image, by its number, whether it comes mirrored in an epoch."""
    found = torch.zeros(NUM, dtype=torch.bool)
    for batch, labels in make(images, recipe, seed).epoch(epoch):
        whole = standardize(images.images[labels], by=BY)
        for image, plain, label in zip(batch, whole, labels, strict=True):
            found[label] = not torch.equal(image, plain)
            assert torch.equal(image, plain.flip(2) if found[label] else plain)
    return found


def test_an_image_is_mirrored_in_exactly_every_other_epoch_whatever_the_order(images):
    first = which_are_mirrored(images, ALTERNATING, epoch=0)
    for epoch in range(1, 5):
        assert torch.equal(which_are_mirrored(images, ALTERNATING, epoch=epoch), first ^ (epoch % 2 == 1))
    small = derive(ALTERNATING, name="small batches", batch_size=3)
    assert torch.equal(which_are_mirrored(images, small, epoch=2), first)
    assert not torch.equal(which_are_mirrored(images, ALTERNATING, epoch=0, seed=1), first)


def test_half_of_the_images_are_mirrored_at_first():
    num = 20_000
    many = ImageSet(torch.zeros(num, 3, 1, 1, dtype=torch.uint8), torch.zeros(num).long(), ("a",), "made", "train")
    share = make(many, ALTERNATING).mirrored.double().mean()
    assert abs(float(share) - 0.5) < 4 * 0.5 / num**0.5


# ---- unequal classes

COUNTS = (60, 0, 12, 3, 0)  # classes without images in the middle and at the end
LABELS = torch.repeat_interleave(torch.arange(5), torch.tensor(COUNTS))[torch.randperm(75, generator=seeded(8))]


def draw(num, balance, *, seed=0):
    sampling = Sampling(images_per_epoch=num, balance=balance)
    return sample(LABELS, sampling=sampling, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num", [1, 2, 50, 75, 1000])
@pytest.mark.parametrize(
    ("balance", "weights"), [(0, (60, 0, 12, 3, 0)), (0.5, (60**0.5, 0, 12**0.5, 3**0.5, 0)), (1, (1, 0, 1, 1, 0))]
)
def test_a_class_is_drawn_in_proportion_to_its_weight(num, balance, weights):
    drawn = np.bincount(LABELS[draw(num, balance)].numpy(), minlength=5)
    expected = num * np.array(weights) / sum(weights)
    assert drawn.sum() == num
    assert abs(drawn - expected).max() <= 1
    assert drawn[1] == drawn[4] == 0


@pytest.mark.parametrize("num", [1, 50, 75, 1000])
@pytest.mark.parametrize("balance", [0, 0.5, 1])
def test_within_a_class_every_image_is_drawn_as_often_give_or_take_one(num, balance):
    times = torch.bincount(draw(num, balance), minlength=75)
    for label, count in enumerate(COUNTS):
        within = times[label == LABELS]
        assert len(within) == count
        assert count == 0 or within.max() - within.min() <= 1


def test_as_many_as_there_are_without_balance_is_each_once():
    assert sorted(draw(75, 0).tolist()) == list(range(75))


def test_the_generator_decides_who_is_drawn_and_the_classes_are_mixed():
    assert torch.equal(draw(40, 0.5), draw(40, 0.5))
    assert not torch.equal(draw(40, 0.5), draw(40, 0.5, seed=1))
    assert set(draw(40, 0.5).tolist()) != set(draw(40, 0.5, seed=1).tolist())
    labels = LABELS[draw(1000, 1)]
    assert all(len(labels[start : start + 20].unique()) == 3 for start in range(0, 1000, 20))


def test_an_epoch_of_drawn_images_has_its_own_number_of_batches(images):
    batches = make(images, SAMPLED)
    shown = list(batches.epoch(0))
    assert len(batches) == len(shown) == 5
    assert [len(labels) for _, labels in shown] == [16, 16, 16, 16, 6]
    orders = [torch.cat([labels for _, labels in batches.epoch(epoch)]).tolist() for epoch in range(3)]
    assert all(one != other for place, one in enumerate(orders) for other in orders[:place])


# ---- standardisation and seeds


@pytest.mark.parametrize("channels", [1, 3])
def test_standardize_is_numpys_arithmetic_and_leaves_the_pixels_alone(channels):
    pixels = torch.randint(0, 256, (4, channels, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    before = pixels.clone()
    by = Standardize(mean=tuple(100.0 + 7 * c for c in range(channels)), std=tuple(3.0 + c for c in range(channels)))
    result = standardize(pixels, by=by)
    stored = pixels.numpy().astype(np.float64)
    expected = np.stack([(stored[:, c] - by.mean[c]) / by.std[c] for c in range(channels)], axis=1)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6, atol=1e-6)
    assert result.dtype == torch.float32
    assert torch.equal(pixels, before)


def test_standardising_by_its_own_statistics_gives_mean_0_and_deviation_1(images):
    result = standardize(images.images, by=images.statistics()).double()
    torch.testing.assert_close(result.mean(dim=(0, 2, 3)), torch.zeros(3).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(result.std(dim=(0, 2, 3), correction=0), torch.ones(3).double(), rtol=0, atol=1e-5)


def test_a_generator_depends_on_the_seed_and_every_part_of_its_place():
    places = [
        (0,),
        (1,),
        (0, "a"),
        (0, "a", 1, 2),
        (0, "a", 12),
        (0, "a", 2, 1),
        (0, "b", 1, 2),
        (1, "a", 1, 2),
        (0, 1, 2),
    ]
    seeds = [seeded(*place).initial_seed() for place in places]
    assert len(set(seeds)) == len(seeds)
    assert seeded(0, "a", 1).initial_seed() == seeded(0, "a", 1).initial_seed()
    one, other = torch.rand(3, generator=seeded(0, "a", 1)), torch.rand(3, generator=seeded(0, "a", 1))
    assert torch.equal(one, other)


def test_neighbouring_seeds_share_nothing():
    """The first numbers of 200 neighbours, were they alike, would not spread evenly."""
    first = torch.stack(
        [torch.rand(1, generator=seeded(seed, "order", epoch)) for seed in range(20) for epoch in range(10)]
    )
    assert abs(float(first.mean()) - 0.5) < 4 / (12 * 200) ** 0.5
    assert all(one != other for one, other in pairwise(first.flatten().tolist()))


@pytest.mark.parametrize(("recipe", "batch_size", "expected"), [(PLAIN, 10, 1), (GROWING, 10, 3), (GROWING, 8, 6)])
def test_shapes_of_batches_are_counted(images, recipe, batch_size, expected):
    """Each size of images, and again where the last batch of an epoch has another number of them."""
    batches = make(images, derive(recipe, name="sized", batch_size=batch_size, epochs=5))
    shapes = {batch.shape for epoch in range(5) for batch, _ in batches.epoch(epoch)}
    assert batches.count_shapes() == len(shapes) == expected


@pytest.mark.parametrize(
    ("rank", "num_ranks", "expected"), [(0, 1, {4, 2}), (0, 3, {6, 2}), (1, 3, {5, 2}), (2, 3, {5, 2})]
)
def test_shapes_are_those_of_a_processes_chunks_for_every_set_of_frozen_parameters(images, rank, num_ranks, expected):
    """Batches of 16 and 2 images in chunks of 5 or fewer: four of 4; 6, a third of 16, stay whole, as the others do."""
    frozen = tuple(Freeze(parameters=name, epoch=epoch) for name, epoch in (("stem", 1), ("blocks", 1), ("head", 3)))
    recipe = derive(PLAIN, name="frozen", micro_batch_size=5, freeze=frozen, epochs=5)
    device = torch.device("cpu")
    batches = Batches(images, recipe=recipe, by=BY, seed=0, device=device, rank=rank, num_ranks=num_ranks)
    team = Team(device, rank, num_ranks)
    shares = [team.weigh(*batch, of=of) for batch, of in zip(batches.epoch(0), batches.sizes, strict=True)]
    assert {len(labels) for share in shares for _, labels in share.chunks(5)} == expected
    assert batches.count_shapes() == 3 * len(expected)


# ---- weighted images


def test_labels_of_weighted_images_are_shares_of_their_weights(images):
    weights = torch.arange(NUM) / 10
    weighted = replace(images, weights=weights)
    for (pixels, labels), (same, shares) in zip(make(images).epoch(0), make(weighted).epoch(0), strict=True):
        assert torch.equal(pixels, same)
        assert torch.equal(shares, torch.eye(NUM)[labels] * weights[labels][:, None])
    recipe = derive(PLAIN, name="mixed", mixing=(Mixup(alpha=1.0),))
    total = sum(shares.sum() for _, shares in make(weighted, recipe).epoch(0))
    assert float(total) == pytest.approx(float(weights.sum()))


def test_weights_are_chosen_with_their_images_and_are_part_of_the_fingerprint(images):
    weighted = replace(images, weights=torch.arange(NUM) / 10)
    assert weighted.subset([7, 3]).weights.tolist() == pytest.approx([0.7, 0.3])
    assert weighted.fingerprint != images.fingerprint == replace(weighted, weights=None).fingerprint
