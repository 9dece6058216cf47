"""A trained network beside the frozen one: judged on images that neither was computed from, one head for both."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslab import fitting as room
from reslab.data.images import ImageSet
from reslab.data.load import load
from reslab.data.recipe_data import read_split
from reslab.errors import UserError
from reslab.evaluation import evaluate
from reslab.exporting import export
from reslab.fitting import beside, choice
from reslab.fitting.choice import Budget
from reslab.measure.class_sets import fit_class_sets
from reslab.measure.metrics import softmax
from reslab.network.network import Network
from reslab.network.onnx_file import OnnxFile
from reslab.pretrained.fusion import compute_fused
from reslab.pretrained.heads import Head
from reslab.recipe.recipe import derive

DATA = "digits:1,4,7@20"


@pytest.fixture
def many(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take sixty images for many, thaw for an epoch at a size that is quick, and let both networks count."""
    monkeypatch.setattr(beside, "FEWEST_IMAGES", 50)
    monkeypatch.setattr(beside, "THAWED_SIZE", 16)
    monkeypatch.setattr(beside, "plan", lambda images, *, minutes: derive(beside.thaw(images), name="thawed", epochs=1))
    monkeypatch.setattr(beside, "SHARES", (0.0, 0.5, 1.0))
    monkeypatch.setattr(beside, "best_of", lambda candidates: 1)


def find() -> room.Fitted:
    images = load(DATA, "train", image_size=8)
    backbones = list(choice.backbones(stored_size=8))
    return room.find(choice.Readers(lambda resize: images), backbones, budget=Budget.of(5), seed=0, silent=True)


@pytest.mark.usefixtures("many")
def test_both_networks_answer_by_one_head() -> None:
    fitted = find()
    frozen, both, trained = fitted.candidates[-3:]
    assert [each.chosen for each in fitted.candidates] == [False, False, True, False]
    assert both.words.startswith(
        "efficientnet_lite0 thawed (50\u00a0% of the logits) beside efficientnet_lite0 at 24 pixels"
    )
    assert trained.words == "efficientnet_lite0 thawed"
    assert frozen.words.startswith("efficientnet_lite0 at 24 pixels")
    run = room._write(fitted, out="run", budget=Budget.of(5), seed=0)
    accuracy = evaluate(run, splits=["validation"]).splits["validation"].accuracy.value
    assert both.accuracy is not None
    assert accuracy == both.accuracy.value  # what answers is what was judged
    export(run, to="model.onnx")
    images = read_split(run.recipe, "train").images[:20]
    probabilities = OnnxFile(Path("model.onnx")).predict(images.numpy()).probabilities
    np.testing.assert_allclose(probabilities, Network.load(run.path).logits(images).softmax(1), atol=1e-3)


@pytest.mark.usefixtures("many")
def test_no_head_has_learned_from_the_held_out_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "HELD_OUT", 0.5)
    found: list[beside.TrainedShare] = []
    share_out = beside.share_out
    monkeypatch.setattr(beside, "share_out", lambda *given: found.append(share_out(*given)) or found[0])
    whole: list[Head] = []
    build = beside.build_network
    monkeypatch.setattr(beside, "build_network", lambda *given: whole.append(given[0].head) or build(*given))
    fitted = find()
    labels, head = fitted.splits[1].labels.numpy(), fitted.network.module.head.weight.detach().numpy()
    own, num_features = found[0], found[0].frozen.weight.shape[1]
    expected = (1 - own.share) * own.frozen.weight / own.temperature
    np.testing.assert_allclose(head[:, -num_features:], expected, rtol=1e-4, atol=1e-6)
    assert not np.allclose(own.frozen.weight, whole[0].weight, rtol=0.01)  # solved on all images
    logits = fitted.network.module.head(compute_fused(fitted.network, fitted.splits[1])).detach().numpy()
    assert fitted.network.metadata.class_sets == fit_class_sets(softmax(logits), labels)
    familiarity = fitted.network.familiarity
    assert familiarity is not None
    energy = np.log(np.exp(logits - logits.mean(axis=1, keepdims=True)).sum(axis=1))
    np.testing.assert_allclose(familiarity.scores[:, 0], energy, rtol=1e-4)


@pytest.mark.usefixtures("many")
def test_what_cannot_be_trained_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(images: object, *, minutes: float) -> None:
        raise UserError("no time")

    monkeypatch.setattr(beside, "plan", refuse)
    fitted = find()
    assert fitted.candidates[-1].left_out == "a trained network beside it: no time"
    assert len(fitted.splits) == 1


@pytest.mark.parametrize(
    ("side", "num", "affordable", "expected"),
    [
        (32, 30_000, 20, "from-scratch"),
        (32, 30_000, 5000, "thawed"),
        (32, 3000, 20, "thawed"),  # too few images
        (64, 30_000, 20, "thawed"),  # too large ones
    ],
)
def test_a_network_is_trained_from_scratch_where_images_are_small_and_many_and_time_is_short(
    side: int, num: int, affordable: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "within", lambda recipe, **_: derive(recipe, name=recipe.name, updates=affordable))
    images = ImageSet(
        torch.zeros(1).byte().expand(num, 3, side, side), torch.zeros(num).long(), ("a", "b"), "x", "train"
    )
    assert beside.plan(images, minutes=1).name == expected


def test_the_share_is_that_of_the_logits() -> None:
    generator = np.random.default_rng(0)
    first, second = (Head(generator.normal(size=(3, size)), generator.normal(size=3)) for size in (4, 5))
    one, other = generator.normal(size=(6, 4)), generator.normal(size=(6, 5))
    joined = beside.join_heads(first, second, share=0.3, temperature=2.0)
    expected = (0.3 * first.logits(one) + 0.7 * second.logits(other)) / 2
    np.testing.assert_allclose(joined.logits(np.concatenate([one, other], axis=1)), expected)


@pytest.mark.usefixtures("many")
def test_groups_are_held_out_as_whole_and_found_again_when_the_run_is_evaluated(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(60):
            file = f"g{generator.integers(14)}_{number}.png"
            pixels = generator.integers(256, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / file)
    run = room.fit(f"folder:{tmp_path / 'pictures'}?group=(g[0-9]+)_", out="run", minutes=1)
    training, held_out = (read_split(run.recipe, split) for split in ("train", "validation"))
    assert training.keys is not None
    assert held_out.keys is not None
    assert not np.isin(held_out.keys, training.keys).any()
    assert run.is_evaluated


@pytest.mark.usefixtures("many")
def test_validation_pictures_of_some_classes_are_named_and_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (name, num) in enumerate(
        (("train/a", 30), ("train/b", 30), ("test/a", 4), ("test/b", 4), ("val/b", 4))
    ):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for place in range(num):
            pixels = np.full((8, 8, 3), 50 * number + place, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{place}.png")
    run = room.fit(f"folder:{tmp_path / 'pictures'}", out="run", minutes=1, silent=False)
    said = capsys.readouterr().err
    assert "pictures has no validation pictures of a: add some" in said
    assert "pictures: 4 validation pictures not used" in said
    assert run.is_evaluated
    assert not run.recipe.validation
