from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from reslab.data.load import load
from reslab.errors import UserError
from reslab.network.familiarity import FEWEST, Familiarity, fit_familiarity, fit_frozen, read_familiarity
from reslab.network.finishing import finish, finish_on, weigh
from reslab.network.network import Network
from reslab.records import FAMILIARITY, Calibration

TINY = Path(__file__).parents[1] / "fixtures/tiny"


@pytest.fixture
def network():
    return Network.load(TINY, device="cpu")


@pytest.fixture
def digits():
    return load("digits:1,4,7", "train", image_size=8)


@pytest.fixture
def held_out(digits):
    """Images of which every third has the next class's label."""
    labels = digits.labels.clone()
    labels[::3] = (labels[::3] + 1) % len(digits.classes)
    return replace(digits, labels=labels, split="validation")


def test_the_head_is_divided_so_that_whatever_reads_the_weights_is_calibrated(network, digits, held_out, tmp_path):
    before = network.logits(held_out.images)
    found = finish(network, images=digits, held_out=held_out)
    temperature = found.network.metadata.calibration.temperature
    assert temperature > 1.5
    assert found.note == f"calibrated on {len(held_out.labels):,} held-out images: temperature {temperature:.2f}"
    found.network.save(tmp_path / "model.safetensors")
    again = Network.load(tmp_path / "model.safetensors")
    torch.testing.assert_close(again.logits(held_out.images), before / temperature, rtol=1e-5, atol=1e-5)
    assert again.metadata.calibration == Calibration(temperature=temperature, num_images=len(held_out.labels))


def test_rows_fitted_beside_calibrated_ones_are_calibrated_where_mistakes_show_it(network, digits, held_out):
    before = network.logits(held_out.images)
    known, held, perfect = (
        (network.features(each.images), labels)
        for each, labels in ((digits, digits.labels), (held_out, held_out.labels), (held_out, before.argmax(1)))
    )
    found = finish_on(network, known, held, calibrated=True)
    assert found.network.metadata.calibration == Calibration(temperature=1.0, num_images=len(held_out.labels))
    torch.testing.assert_close(found.network.logits(held_out.images), before)
    found = finish_on(network, known, perfect, calibrated=True)
    assert (found.network.metadata.calibration, found.note) == (None, "calibrated by the new classes' rows alone")


@pytest.mark.parametrize("on_features", [False, True])
def test_expected_frequencies_weight_whatever_is_promised(digits, held_out, on_features):
    """Class sets and familiarity; frequencies as among the held-out images change nothing."""

    def finish_with(coming):
        network = Network.load(TINY, device="cpu")
        if not on_features:
            return finish(network, images=digits, held_out=held_out, coming=coming).network
        known, held = ((network.features(each.images), each.labels) for each in (digits, held_out))
        return finish_on(network, known, held, coming=coming).network

    plain, same, skewed = (
        finish_with(coming) for coming in (None, held_out.labels.bincount() / 3.0, torch.tensor([0.8, 0.1, 0.1]))
    )
    assert same.metadata == plain.metadata
    assert skewed.metadata.class_sets != plain.metadata.class_sets
    assert torch.equal(same.familiarity.weights, torch.ones(len(held_out.labels)))
    tensors = skewed.familiarity.to_tensors()
    again = read_familiarity(tensors, num_features=tensors[FAMILIARITY + "axes"].shape[0], image=(1, 8), path=Path("w"))
    assert torch.equal(again.weights, skewed.familiarity.weights)  # to the last bit
    first = skewed.familiarity.weights[held_out.labels == 0]
    assert float(first.min()) == pytest.approx(2.4, rel=0.1)  # 0.8 of a third


def test_without_held_out_images_the_recipe_s_own_temperature_counts(network, digits):
    before = network.logits(digits.images)
    found = finish(network, images=digits, held_out=None, usual=2.0)
    assert found.network.metadata.calibration == Calibration(temperature=2.0)
    torch.testing.assert_close(found.network.logits(digits.images), before / 2, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_calibrated_stays_as_it_is(network, digits):
    before = network.logits(digits.images)
    assert finish(network, images=digits, held_out=None).note == "not calibrated: no images are held out"
    alone = finish(network, images=digits, held_out=digits.subset([0]))
    assert "show every class" in alone.note
    assert alone.network.familiarity is None
    assert alone.note.endswith("no picture will be called unlike the training pictures, which takes 19 held-out images")
    assert network.metadata.calibration is None
    assert torch.equal(network.logits(digits.images), before)


@pytest.mark.parametrize("frozen", [None, "among the known", "apart", "some of both"])
def test_the_share_of_unlike_pictures_among_like_ones_is_what_was_promised(frozen):
    """Features of one distribution: whatever it is, p values are uniform."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (4700,), generator=generator)
    images = torch.randn(4700, 16, generator=generator) + 3 * torch.eye(3, 16)[labels]
    known, held_out, coming = images.split([300, 400, 4000])
    compared = {"among the known": held_out, "apart": known, "some of both": torch.cat([known, held_out[:200]])}
    fit = partial(fit_frozen, compared[frozen]) if frozen else partial(fit_familiarity, known, labels[:300])
    familiarity = fit(held_out, held_out[:, :3])(coming, coming[:, :3])
    for share in (0.05, 0.2):
        assert float((familiarity <= share).float().mean()) == pytest.approx(share, abs=0.03)
    few = fit(held_out[:FEWEST], held_out[:FEWEST, :3])
    strange, unsure = torch.zeros(1, 16), torch.zeros(1, 3)
    assert float(few(strange, unsure)) == pytest.approx(1 / (1 + FEWEST))  # few images suffice to refuse
    assert fit(held_out[: FEWEST - 1], held_out[: FEWEST - 1, :3]) is None


@pytest.mark.parametrize("frozen", [False, True])
def test_a_class_that_will_be_frequent_is_answered_as_often_as_promised(frozen):
    """The logits of class 1 are smaller; a tenth of the held-out pictures is of it, nine tenths of those to come."""
    generator = torch.Generator().manual_seed(0)

    def draw(num, share):
        labels = (torch.rand(num, generator=generator) < share).long()
        logits = 2 * torch.randn(num, 2, generator=generator) * (1 - 0.8 * labels)[:, None]
        return torch.randn(num, 8, generator=generator), labels, logits

    (known, classes, _), (held_out, labels, logits), (coming, _, answers) = (
        draw(800, 0.1),
        draw(4000, 0.1),
        draw(4000, 0.9),
    )
    weights = weigh(labels, coming=torch.tensor([0.1, 0.9]))

    def answered(weights):
        if frozen:
            familiarity = fit_frozen(known, held_out, logits, weights=weights)
        else:
            familiarity = fit_familiarity(known, classes, held_out, logits, weights=weights)
        again = read_familiarity(familiarity.to_tensors(), num_features=8, image=(3, 32), path=Path("w"))
        torch.testing.assert_close(again(coming, answers), familiarity(coming, answers), rtol=0, atol=2e-3)
        return float((familiarity(coming, answers) > 0.05).float().mean())

    assert answered(weights) == pytest.approx(0.95, abs=0.015)
    assert answered(None) < 0.9


def test_too_few_pictures_of_a_class_that_will_be_frequent_leave_nothing_strange():
    features, labels = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
    weights = torch.where(torch.arange(40) == 0, 30.0, 1.0)  # 2.3 of the heaviest
    assert fit_familiarity(features, labels, features, features[:, :2], weights=weights) is None
    assert fit_familiarity(features, labels, features, features[:, :2]) is not None


def test_pictures_of_known_groups_do_not_make_those_of_new_groups_strange():
    """Series of twelve near copies: a new series is as like them as they are like one another."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(600, 1, 64, generator=generator)
    images = (centres + 0.1 * torch.randn(600, 12, 64, generator=generator)).flatten(0, 1)
    known, coming = images[:1800], images[1800:]
    groups = torch.arange(150).repeat_interleave(12)
    alone = fit_frozen(known, known, known[:, :3])
    apart = fit_frozen(known, known, known[:, :3], groups=(groups, groups))
    answered = [float((each(coming, coming[:, :3]) > 0.05).float().mean()) for each in (alone, apart)]
    assert answered == [pytest.approx(0, abs=0.1), pytest.approx(0.95, abs=0.05)]
    one, other = fit_frozen(known, known[:600], known[:600, :3], groups=(groups, groups[:600])), apart
    torch.testing.assert_close(one.scores, other.scores[:600])


def test_a_network_that_has_diverged_knows_nothing():
    images = torch.full((30, 4), torch.nan)
    assert fit_familiarity(images, torch.arange(30) % 2, images, images) is None


def test_the_difference_of_two_mahalanobis_distances_is_that_in_the_directions_that_tell_classes_apart():
    """Both in all directions, by the text book; features of very different scales, and a class of few images."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 60 + [1] * 40 + [2] * 20)
    scales = torch.logspace(-3, 2, 6)
    rows = (torch.randn(120, 6, generator=generator) + 2 * torch.eye(3, 6)[labels]) * scales
    measure = fit_familiarity(rows, labels, rows, rows[:, :3]).measure
    picture = torch.randn(5, 6, generator=generator) * scales
    means = torch.stack([rows[labels == label].mean(0) for label in range(3)])
    within = (rows - means[labels]).T @ (rows - means[labels]) / len(rows)
    within = 0.9 * within + 0.1 * within.diag().diag()
    between = (means[labels] - rows.mean(0)).T @ (means[labels] - rows.mean(0)) / len(rows)

    def distance(centre, covariance):
        away = (picture - centre).double()
        return (away @ torch.linalg.inv(covariance.double()) * away).sum(1)

    to_class = torch.stack([distance(mean, within) for mean in means]).amin(0)
    expected = distance(rows.mean(0), within + between) - to_class
    torch.testing.assert_close(measure(picture, picture[:, :3])[:, 2].double(), expected, rtol=1e-4, atol=1e-4)


def test_a_network_knows_its_pictures_from_strange_ones_and_so_does_its_file(network, digits, tmp_path):
    known = finish(network, images=digits, held_out=load("digits:1,4,7", "test", image_size=8)).network
    known.save(tmp_path / "model.safetensors")
    again = Network.load(tmp_path / "model.safetensors")
    strange = load("digits:0,3,5,8", "test", image_size=8).images
    probabilities, own = again.answer(digits.images)
    torch.testing.assert_close(probabilities, again.logits(digits.images).softmax(1), rtol=1e-4, atol=1e-5)
    _, other = again.answer(strange)
    assert torch.equal(own, known.answer(digits.images)[1])
    assert float((own > 0.05).float().mean()) > 0.9
    assert float((other > 0.05).float().mean()) < float((own > 0.05).float().mean()) - 0.2
    assert network.answer(digits.images)[1] is None  # which was not finished


@pytest.mark.parametrize(
    ("part", "damaged"), [*(("measure", name) for name in ("centre", "axes", "means", "shared")), ("texture", "whiten")]
)
def test_a_file_with_a_familiarity_that_does_not_fit_is_told(network, digits, tmp_path, part, damaged):
    known = finish(network, images=digits, held_out=digits).network
    owner = getattr(known.familiarity, part)
    setattr(owner, damaged, getattr(owner, damaged)[..., :-1].clone())
    known.save(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="its familiarity tensors do not fit"):
        Network.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("changed", "shape"),
    [("scores", (0, 2)), ("scores", (2**24 + 1, 2)), ("known", (9, 64)), ("known", (20, 63))],
)
def test_a_familiarity_of_frozen_features_that_does_not_fit_is_told(changed, shape):
    sound = {"scores": np.zeros((19, 2), np.float32), "known": np.zeros((20, 64), np.float16)}
    read = partial(read_familiarity, num_features=64, image=(3, 8), path=Path("model.safetensors"))
    assert read(named(sound)) is not None
    damaged = np.zeros(shape, np.float32)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged: its familiarity tensors do not fit"):
        read(named(sound | {changed: damaged}))


@pytest.mark.parametrize(("changed", "shape"), [("scores", (0, 3)), ("means", (0, 2))])
def test_a_familiarity_of_no_images_or_no_classes_is_told(changed, shape):
    shapes = {"axes": (64, 2), "means": (3, 2), "centre": (64,), "shared": (2,), "median": (), "scores": (19, 3)}
    read = partial(read_familiarity, num_features=64, image=(3, 8), path=Path("model.safetensors"))
    assert read(named({name: np.zeros(shape) for name, shape in shapes.items()})) is not None
    damaged = {name: np.zeros(shape) for name, shape in (shapes | {changed: shape}).items()}
    with pytest.raises(UserError, match="its familiarity tensors do not fit"):
        read(named(damaged))


def named(tensors):
    return {FAMILIARITY + name: value for name, value in tensors.items()}


def test_a_few_outliers_do_not_decide_how_much_a_score_counts():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 4
    features = 4 * torch.eye(4, 16)[labels] + torch.randn(400, 16, generator=generator)
    sound = fit_familiarity(features[200:], labels[200:], features, features[:, :4])
    features[:4] *= 1e4
    torch.testing.assert_close(
        fit_familiarity(features[200:], labels[200:], features, features[:, :4]).scales, sound.scales, rtol=0.2, atol=0
    )


def test_scores_that_are_mostly_equal_do_not_count_more_than_others():
    scores = torch.tensor([[1.0, 0.0]] * 99 + [[0.0, 0.0]])
    assert Familiarity(torch.nn.Identity(), scores).scales.tolist() == [pytest.approx(0.1), pytest.approx(1e-6)]


def test_large_logits_do_not_make_up_for_features_unlike_any():
    generator = torch.Generator().manual_seed(0)
    known = torch.randn(400, 16, generator=generator) + 4
    logits = torch.randn(400, 3, generator=generator)
    familiarity = fit_frozen(known, known, logits)
    strange = torch.randn(50, 16, generator=generator)
    assert float(familiarity(strange, 1000 * torch.eye(3)[:1].expand(50, -1)).max()) <= 0.05
    assert float((familiarity(known, logits) > 0.05).float().mean()) > 0.9
