"""A run to its predictions: against a plain loop over the images, and what must be refused."""

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from reslab.data import progress
from reslab.data.images import ImageSet
from reslab.data.load import load
from reslab.data.recipe_data import read_split, read_split_of
from reslab.errors import UserError
from reslab.evaluation import evaluate, predict
from reslab.extension import extend
from reslab.models import build
from reslab.network.network import Network
from reslab.recipe.recipe import Recipe, derive
from reslab.records import SplitName
from reslab.report import write_report
from reslab.runs import Run, pack_weights, read_weights
from reslab.training import train


def naive_logits(run: Run, images: ImageSet) -> NDArray[np.float32]:
    """One image at a time, through the network that the recipe describes, with the pixels standardised by hand."""
    model = build(run.recipe.model, num_classes=3, channels=1)
    model.load_state_dict(load_file(run.weights_path))
    model.eval()
    by = read_weights(run.path)[1].standardize
    with torch.no_grad():
        rows = [model((image[None].double() - by.mean[0]).div(by.std[0]).float())[0] for image in images.images]
    return torch.stack(rows).numpy()


@pytest.mark.parametrize(("split", "num"), [("train", 111), ("validation", 9), ("test", 108)])
def test_predictions_are_what_a_plain_loop_gives(finished: Run, split: Any, num: int) -> None:
    predict(finished, splits=[split])
    images = read_split(finished.recipe, split)
    logits, labels = finished.read_predictions(split)
    assert logits.shape == (num, 3)
    np.testing.assert_array_equal(labels, images.labels.numpy())
    np.testing.assert_allclose(logits, naive_logits(finished, images), rtol=1e-4, atol=1e-4)
    assert (logits.argmax(axis=1) == labels).mean() > 0.5


def test_the_training_split_is_the_one_trained_on(finished: Run) -> None:
    """Together with the validation images, and without any of them, it is all that the expression has for training."""
    splits: tuple[SplitName, ...] = ("train", "validation")
    predict(finished, splits=splits)
    recorded = {data.split: data for data in finished.environment.data}
    read = {split: read_split(finished.recipe, split) for split in splits}
    for split in splits:
        assert recorded[split].fingerprint == read[split].fingerprint
        assert recorded[split].num_images == len(finished.read_predictions(split).labels)
    images = [image.numpy().tobytes() for split in splits for image in read[split].images]
    assert sorted(images) == sorted(
        image.numpy().tobytes() for image in load("digits:1,4,7@40", "train", image_size=8).images
    )


def test_the_misclassified_images_are_kept(finished: Run) -> None:
    logits, labels = finished.read_predictions("test")
    indices, images = finished.read_examples("test")
    assert len(indices)
    assert sorted(indices) == np.flatnonzero(logits.argmax(axis=1) != labels).tolist()
    np.testing.assert_array_equal(images, read_split(finished.recipe, "test").images.numpy()[indices])


def test_misclassified_images_take_no_more_room_than_the_report_needs(
    finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the training split are not shown at all, large ones as thumbnails."""
    assert not (finished.path / "examples-train.npz").exists()
    monkeypatch.setattr(sys.modules[predict.__module__], "LARGEST_EXAMPLE", 4)
    predict(finished, splits=["test"])
    indices, images = finished.read_examples("test")
    wide = read_split(finished.recipe, "test").images.numpy()[indices]
    assert images.shape == (len(wide), 1, 4, 4)
    np.testing.assert_allclose(images, wide.reshape(-1, 1, 4, 2, 4, 2).mean(axis=(3, 5)), atol=0.5)


def test_plain_predictions_and_figures_do_not_depend_on_views(finished: Run) -> None:
    def plain() -> list[Any]:
        splits = finished.evaluation.splits.values()
        files = [finished.path / f"{name}.npz" for name in ("predictions-train", "predictions-test", "examples-test")]
        return [
            *(figures.model_dump(exclude={"test_time_augmentation"}) for figures in splits),
            *(path.read_bytes() for path in files),
        ]

    with_two = plain()
    evaluate(finished)
    assert all(figures.test_time_augmentation is None for figures in finished.evaluation.splits.values())
    assert plain() == with_two
    evaluate(finished, views=6)
    augmented = finished.evaluation.splits["test"].test_time_augmentation
    assert augmented is not None
    assert augmented.views == 6
    assert augmented.figures.log_loss != finished.evaluation.splits["test"].log_loss
    assert plain() == with_two


def test_the_record_gains_a_split_when_it_is_first_evaluated(small_recipe: Recipe, tmp_path: Path) -> None:
    run = train(derive(small_recipe, name="small", epochs=1), out=tmp_path / "run")
    before = run.environment
    assert [data.split for data in before.data] == ["train", "validation"]
    for _ in range(2):
        predict(run, splits=["test"])
        assert run.environment.model_copy(update={"data": before.data}) == before
        *earlier, test = run.environment.data
        assert tuple(earlier) == before.data
        assert (test.split, test.num_images) == ("test", 108)
        assert test.fingerprint == load("digits:1,4,7", "test", image_size=8).fingerprint


def test_progress_is_shown_for_every_part_of_the_test_split(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(derive(small_recipe, name="small", validation=30, epochs=1), out=tmp_path / "run")
    assert Network.load(run.path).familiarity is not None
    capsys.readouterr()
    monkeypatch.setattr(progress, "PATIENCE", 0)
    predict(run, splits=["test"])
    shown = capsys.readouterr().err
    for what in ("evaluating on the test images", "features of test images", "heat maps of test images"):
        assert f"reslab: {what}: 0" in shown


def test_only_the_splits_that_were_asked_for_are_read(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def watch(run: Run, split: Any, **options: Any) -> ImageSet:
        asked.append(split)
        return read_split_of(run, split, **options)

    monkeypatch.setattr(sys.modules[predict.__module__], "read_split_of", watch)
    evaluate(finished, splits=["train"])
    assert asked == ["train"]
    assert list(finished.evaluation.splits) == ["train", "test"]


# ---- what is refused


@dataclasses.dataclass
class Archive:
    """A data set in an .npz file whose arrays a test can change."""

    path: Path
    arrays: dict[str, NDArray[Any]]

    def change(self, **arrays: NDArray[Any]) -> None:
        self.arrays |= arrays
        np.savez(self.path, allow_pickle=True, **self.arrays)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    digits = load_digits(n_class=3)
    images = (digits.images * 15).astype(np.uint8)
    made = Archive(tmp_path / "digits.npz", {"images": images[:60], "labels": digits.target[:60]})
    made.change(test_images=images[60:90], test_labels=digits.target[60:90], classes=np.array(["nil", "one", "two"]))
    return made


@pytest.fixture
def run_on(small_recipe: Recipe, tmp_path: Path) -> Callable[[Archive], Run]:
    def make(archive: Archive) -> Run:
        recipe = derive(small_recipe, name="npz", data=f"npz:{archive.path}", validation=0, epochs=1)
        return train(recipe, out=tmp_path / "run")

    return make


def test_a_changed_test_set_is_refused(archive: Archive, run_on: Callable[[Archive], Run]) -> None:
    run = run_on(archive)
    evaluate(run)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    changed = archive.arrays["test_images"].copy()
    changed[7, 3, 3] ^= 1
    archive.change(test_images=changed)
    with pytest.raises(
        UserError, match=r"the test split of npz:.* has changed: .*run was made with other images: train it again"
    ):
        evaluate(run)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_a_changed_training_set_is_refused(archive: Archive, run_on: Callable[[Archive], Run]) -> None:
    run = run_on(archive)
    archive.change(labels=archive.arrays["labels"][::-1].copy())
    with pytest.raises(UserError, match="the train split of npz:"):
        evaluate(run, splits=["train"])
    assert not (run.path / "predictions-train.npz").exists()


def test_other_classes_are_refused(archive: Archive, run_on: Callable[[Archive], Run]) -> None:
    run = run_on(archive)
    archive.change(classes=np.array(["nought", "one", "two"]))
    with pytest.raises(UserError, match="was trained on other classes than npz:"):
        evaluate(run, splits=["test"])


def test_other_channels_are_refused(archive: Archive, run_on: Callable[[Archive], Run]) -> None:
    """Training never looks at the test images, so that it cannot notice."""
    archive.change(test_images=np.stack([archive.arrays["test_images"]] * 3, axis=-1))
    run = run_on(archive)
    with pytest.raises(UserError, match=r"trained on images of 1 channels, but those of the test split .* have 3"):
        evaluate(run)
    assert not run.is_evaluated


def test_weights_that_do_not_fit_are_refused_in_one_sentence(finished: Run) -> None:
    tensors, weights = read_weights(finished.path)
    for wrong in (tensors | {"head.bias": np.zeros(4, np.float32)}, {"head.bias": tensors["head.bias"]}):
        finished.write_weights(pack_weights(wrong, weights))
        with pytest.raises(UserError, match="do not fit the network that they name") as caught:
            Network.load(finished.path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500 + len(str(finished.path))


def test_a_run_that_is_not_finished_is_refused(finished: Run) -> None:
    finished.weights_path.unlink()
    with pytest.raises(UserError, match="holds no finished network: resume with reslab train --resume"):
        evaluate(finished)


@pytest.mark.parametrize(("old_data", "method"), [("none", "finetune-distill"), (5, "frozen"), ("all", "frozen")])
def test_copies_are_sought_among_what_the_base_has_learned_too(
    old_data: Any, method: Any, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = extend(finished.path, data="digits:8", out=tmp_path / "on", method=method, old_data=old_data)
    among: list[int] = []
    module = sys.modules["reslab.evaluation.predict"]
    monkeypatch.setattr(module, "find_copies", lambda train, test: among.append(len(train.labels)))
    evaluate(made, splits=["test"])
    num_old, num_new = (len(load(data, "train", image_size=8).labels) for data in (finished.recipe.data, "digits:8"))
    assert among[0] > 0.8 * (num_old + num_new)


def test_a_test_picture_that_the_starting_weights_have_learned_is_a_copy(small_recipe: Recipe, tmp_path: Path) -> None:
    """The run itself has not seen it."""
    digits = load("digits:1,4", "test", image_size=8)
    for place, label in enumerate(digits.labels.tolist()):
        folder = tmp_path / ("earlier" if place < 24 else "own/train" if place < 48 else "own/test") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.images[place, 0].numpy()).save(folder / f"{place}.png")

    def learn(name: str, data: str, **options: Any) -> Run:
        return train(derive(small_recipe, name=name, data=data, epochs=1), out=tmp_path / "runs" / name, **options)

    earlier = learn("earlier", f"folder:{tmp_path / 'earlier'}")
    for path in tmp_path.glob("earlier/*/*.png"):
        shutil.copy(path, tmp_path / "own/test" / path.parent.name / f"again-{path.name}")
    own = learn("own", f"folder:{tmp_path / 'own'}", start=earlier.path)
    copies = evaluate(own, splits=["test"]).splits["test"].without_copies
    assert copies is not None
    assert copies.num_copies == earlier.environment.data[0].num_images


def test_test_pictures_taken_within_seconds_of_a_training_picture_are_counted(
    small_recipe: Recipe, tmp_path: Path
) -> None:
    digits = load("digits:1,4", "test", image_size=8)
    seconds = {"train": 0, "test": 5}  # the first ten of each split in series, the others an hour apart
    for split, after in seconds.items():
        for place in range(20):
            index = place if split == "train" else 24 + place
            exif = Image.Exif()
            hour, second = (place % 10, after) if place < 10 else (10 + place % 10, 1800 * (split == "test"))
            exif[0x8769] = {0x9003: f"2026:05:01 {hour:02}:{second // 60:02}:{second % 60:02}"}
            folder = tmp_path / "own" / split / str(int(digits.labels[index]))
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits.images[index, 0].numpy()).save(folder / f"{place}.png", exif=exif)
    run = train(
        derive(small_recipe, name="own", data=f"folder:{tmp_path / 'own'}", validation=0, epochs=1),
        out=tmp_path / "run",
    )
    series = evaluate(run, splits=["test"]).splits["test"].without_series
    assert series is not None
    assert series.num_in_series == 10
    assert "10 images left out" in write_report(run).read_text(encoding="utf-8").replace("\u00a0", " ")


def test_a_split_of_another_name_is_refused(finished: Run) -> None:
    for splits in ("test", ["tset"]):
        with pytest.raises(UserError, match=r"give a list of train, validation and test"):
            evaluate(finished, splits=splits)  # type: ignore[arg-type]
