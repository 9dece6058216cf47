"""What a network remembers of its training images, and what it is taught without them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslab.data.recipe_data import read_split
from reslab.errors import Failure, UserError
from reslab.evaluation import evaluate
from reslab.extension import extend, remember
from reslab.extension.fusion import LabelledFeatures
from reslab.extension.memory import Memory, read_memory
from reslab.network.network import Network
from reslab.recipe.recipe import Recipe, derive
from reslab.runs import Run
from reslab.training import train

NEW = "digits:0,8@60"


@pytest.fixture
def base(small_pretrained_images: None, small_recipe: Recipe, tmp_path: Path) -> Run:
    recipe = derive(small_recipe, name="base", data="digits:1,4,7", validation=45, epochs=3)
    return train(recipe, out=tmp_path / "base")


def learned(features: torch.Tensor, labels: torch.Tensor) -> Memory:
    return Memory(
        torch.tensor([4000, 2000]),
        torch.stack([features[labels == label].mean(0) for label in (0, 1)]),
        torch.tensor([1.0, 2.0]),
        torch.tensor([[1.0, 0.6], [0.6, 1.0]]),
        features[:5],
        labels[:5],
    )


def test_drawn_features_have_the_means_deviations_and_correlations_that_are_remembered() -> None:
    features, labels = torch.tensor([[0.0, 0.0], [5.0, -5.0]]).repeat(5, 1), torch.tensor([0, 1]).repeat(5)
    memory = learned(features, labels)
    drawn, of = memory.draw(seed=0)
    assert of.bincount().tolist() == [4000, 2000]
    for label, mean in ((0, [0.0, 0.0]), (1, [5.0, -5.0])):
        torch.testing.assert_close(drawn[of == label].mean(0), torch.tensor(mean), atol=0.15, rtol=0)
    within = drawn - memory.means[of]
    torch.testing.assert_close(within.std(0), memory.deviations, atol=0.1, rtol=0)
    assert torch.corrcoef(within.T)[0, 1] == pytest.approx(0.6, abs=0.05)
    assert torch.equal(drawn, memory.draw(seed=0).features)
    assert not torch.equal(drawn, memory.draw(seed=1).features)


def test_a_memory_of_both_halves_is_that_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat_interleave(300)
    features = torch.randn(1200, 3, generator=generator) @ torch.tensor([[1, 0.5, 0], [0, 2, 0], [0, 0.3, 1]])
    features += labels[:, None]
    from reslab.extension.memory import _learn

    def part(chosen: torch.Tensor) -> LabelledFeatures:
        return LabelledFeatures(features[chosen], labels[chosen])

    whole = _learn(part(labels >= 0), part(labels >= 0))
    first = _learn(part(labels < 2), part(labels < 2))
    joined = first.joined(part(labels >= 2), kept=part(labels >= 2))
    for one, other in zip(joined, whole, strict=True):
        torch.testing.assert_close(one, other)
    is_first = (labels == 0) | ((labels == 1) & (features[:, 0] < 1))  # the second class is in both halves, unequally
    joined = _learn(part(is_first), part(is_first)).joined(part(~is_first), kept=part(~is_first))
    for one, other in zip(joined[:4], whole[:4], strict=True):
        torch.testing.assert_close(one, other)


def test_new_classes_are_taught_without_the_old_images_and_the_old_ones_are_kept(base: Run, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"fusion needs images of the old classes: .* run reslab remember \S+base while"
    ):
        extend(base.path, data=NEW, out=tmp_path / "no", method="fusion", old_data="none")
    memory = remember(base)
    assert memory.counts.tolist() == np.bincount(memory_labels(base)).tolist()
    read = read_memory(base)
    assert read is not None
    torch.testing.assert_close(read.means, memory.means)
    made = extend(base.path, data=NEW, out=tmp_path / "more", old_data="none")
    extension = made.recipe.extension
    assert extension is not None
    assert (extension.method, extension.old_data, made.recipe.data) == ("fusion", "none", f"digits:1,4,7@0+{NEW}")
    figures = evaluate(made, splits=("test",)).extension
    assert figures is not None
    assert figures.old_after.value > figures.old_before.value - 0.1
    assert figures.new_macro_f1.value > 0.7
    assert made.prior.curve
    again = read_memory(made)  # which has the new classes too
    assert again is not None
    assert again.counts.tolist()[:3] == memory.counts.tolist()
    assert len(again.counts) == 5
    with pytest.raises(UserError, match=r"omit --prior"):
        extend(base.path, data=NEW, out=tmp_path / "no", method="fusion", old_data="none", prior="used")
    with pytest.raises(UserError, match=r"without images, .* extend it by --method fusion --old-data none too"):
        extend(made.path, data="digits:9@60", out=tmp_path / "no")
    third = extend(made.path, data="digits:9@60", out=tmp_path / "third", old_data="none")
    assert Network.load(third.path).classes == ("1", "4", "7", "0", "8", "9")


@pytest.mark.usefixtures("small_pretrained_images")
def test_more_of_an_old_class_comes_with_a_new_one_without_the_old_images(small_recipe: Recipe, tmp_path: Path) -> None:
    old, new = draw(tmp_path / "old", ("cat", "dog")), draw(tmp_path / "new", ("dog", "fox"))
    base = train(derive(small_recipe, name="pets", data=f"folder:{old}", validation=4), out=tmp_path / "base")
    memory = remember(base)
    made = extend(base.path, data=f"folder:{new}", out=tmp_path / "more", old_data="none", merge=True)
    assert Network.load(made.path).classes == ("cat", "dog", "fox")
    again = read_memory(made)
    assert again is not None
    more = memory_labels(made)
    assert again.counts.tolist() == (np.array([*memory.counts.tolist(), 0]) + np.bincount(more, minlength=3)).tolist()
    assert evaluate(made, splits=("test",)).splits["test"].num_images == 16


def test_images_that_calibrate_take_no_part_in_what_is_remembered_of_the_others() -> None:
    from reslab.extension.memory import _set_apart

    seen = LabelledFeatures(torch.arange(705.0)[:, None], torch.tensor([0] * 600 + [1] * 100 + [2] * 4 + [3]))
    rest, kept = _set_apart(seen, ("many", "few", "hardly any", "one"), keys=None)
    assert kept.labels.bincount().tolist() == [100, 20, 1]
    assert rest.labels.bincount().tolist() == [500, 80, 3, 1]
    assert sorted([*rest.features.flatten().tolist(), *kept.features.flatten().tolist()]) == list(range(705))


def test_groups_of_images_are_set_apart_as_a_whole() -> None:
    from reslab.extension.memory import _set_apart

    labels = torch.tensor([0] * 60 + [1] * 60 + [2] * 4)
    keys = np.array([*np.arange(60) // 6 + 1, *np.arange(60) // 30 + 1, 9, 9, 9, 9], dtype=np.uint64)  # of two classes
    rest, kept = _set_apart(LabelledFeatures(torch.arange(124.0)[:, None], labels), ("a", "b", "copies"), keys=keys)
    assert kept.labels.bincount().tolist() == [18, 30, 1]  # half of b, since a fifth would divide its groups
    of_rest, of_kept = (set(keys[part.features.flatten().long()].tolist()) for part in (rest, kept))
    assert of_rest & of_kept == {9}
    many = LabelledFeatures(torch.arange(2000.0)[:, None], torch.zeros(2000, dtype=torch.int64))
    _, kept = _set_apart(many, ("a",), keys=np.arange(2000, dtype=np.uint64) // 1000 + 1)
    assert len(kept.labels) == 100  # of one group or the other: no more are kept


def draw(folder: Path, names: tuple[str, ...]) -> Path:
    random = np.random.default_rng(0)
    for number, name in enumerate(names):
        for split, num in (("train", 12), ("test", 4)):
            (folder / split / name).mkdir(parents=True)
            for place in range(num):
                pixels = random.integers(60 * number, 60 * number + 60, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{place}.png")
    return folder


@pytest.mark.usefixtures("small_pretrained_images")
def test_the_old_pictures_may_be_gone(small_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = draw(tmp_path / "old", ("cat", "dog")), draw(tmp_path / "new", ("elk", "fox"))
    base = train(derive(small_recipe, name="pets", data=f"folder:{old}", validation=4), out=tmp_path / "base")
    remember(base)
    old.rename(tmp_path / "elsewhere")
    made = extend(base.path, data=f"folder:{new}", out=tmp_path / "more", old_data="none", silent=False)
    said = capsys.readouterr().err
    assert "old classes: 2, without images; 20 images are remembered" in said
    assert "fewer than 10 images" not in said
    assert "occurs in the new ones" not in said
    assert made.recipe.data == f"folder:{old}:cat,dog@0+folder:{new}"
    assert Network.load(made.path).classes == ("cat", "dog", "elk", "fox")
    with pytest.raises(UserError, match=r"is gone from .*old: put it back"):
        evaluate(made, splits=("test",))
    (tmp_path / "elsewhere").rename(old)
    assert evaluate(made, splits=("test",)).splits["test"].num_images == 16


def memory_labels(run: Run) -> np.ndarray:
    return read_split(run.recipe, "train").labels.numpy()


def test_a_memory_of_other_weights_or_a_damaged_one_is_refused(base: Run, tmp_path: Path) -> None:
    remember(base)
    content = base.memory_path.read_bytes()
    base.write_weights(Network.load(base.path).to_bytes() + b" ")
    with pytest.raises(UserError, match=r"memory.safetensors belongs to other weights: run reslab remember"):
        read_memory(base)
    base.memory_path.write_bytes(content[:100])
    with pytest.raises(UserError, match=r"memory\.safetensors"):
        read_memory(base)


def test_a_run_whose_memory_cannot_be_written_is_not_finished(
    base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(base)

    def fail(run: Run, content: bytes) -> None:
        raise Failure("the disk is full")

    monkeypatch.setattr(Run, "write_memory", fail)
    with pytest.raises(Failure, match="full"):
        extend(base.path, data=NEW, out=tmp_path / "on", old_data="none")
    assert not Run(tmp_path / "on").is_finished


def test_a_class_without_images_is_not_remembered_and_a_memory_of_it_is_kept(
    base: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = read_split(base.recipe, "train")
    others = training.subset((training.labels > 0).nonzero().flatten())
    found = remember(base)
    content = base.memory_path.read_bytes()
    monkeypatch.setattr("reslab.extension.memory.read_learned", lambda *_, **__: (others, None))
    with pytest.raises(UserError, match="has learned 1 without images: its memory of them is kept"):
        remember(base)
    assert base.memory_path.read_bytes() == content
    false = found._replace(counts=found.counts * torch.tensor([0, 1, 1]))
    base.write_memory(false.to_bytes(base=base.weights_digest))
    with pytest.raises(UserError, match="remembers classes without images: remove it"):
        read_memory(base)
    with pytest.raises(UserError, match="so it cannot remember them: run reslab remember on its base"):
        remember(base)
