"""Feature fusion: the module gives the features that its head was solved on, and kept classes keep every bit."""

from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from reslab import models
from reslab.data.load import load
from reslab.data.recipe_data import read_split
from reslab.errors import UserError
from reslab.extension import extend, extender, fusion
from reslab.fitting import choice, fit
from reslab.measure.calibration import fit_temperature_smoothed
from reslab.models.fusion import SplitLinear
from reslab.network.familiarity import FEWEST
from reslab.network.finishing import Finished, finish_on
from reslab.network.network import Network
from reslab.pretrained import standardize_for, start_from
from reslab.pretrained.fusion import compute_fused, fuse
from reslab.recipe.networks import EfficientNetLite, FastConv, Fusion
from reslab.recipe.recipe import Freeze, Recipe, Standardize, derive
from reslab.records import Weights
from reslab.runs import Run, read_weights
from reslab.training import train

PIXELS = Standardize(mean=(120.0, 110.0, 90.0), std=(60.0, 70.0, 80.0))


def make_base(channels: int) -> Network:
    torch.manual_seed(0)
    options = FastConv(widths=(8, 16, 16))
    standardize = Standardize(mean=PIXELS.mean[:channels], std=PIXELS.std[:channels])
    known = Weights(model=options, classes=("a", "b"), channels=channels, image_size=12, standardize=standardize)
    return Network(models.build(options, num_classes=2, channels=channels).eval(), known)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_network_computes_the_features_that_its_head_was_solved_on(channels: int) -> None:
    base = make_base(channels)
    options = Fusion(base=FastConv(widths=(8, 16, 16)), pretrained=EfficientNetLite(resize=40))
    fused = Network(fuse(base, options, num_classes=3), base.metadata.model_copy(update={"model": options}))
    images = load("digits", "train", image_size=12)
    images = images.subset(torch.arange(6))
    object.__setattr__(images, "images", images.images.expand(-1, channels, -1, -1).contiguous())
    solved_on, served = compute_fused(fused, images), fused.features(images.images)
    torch.testing.assert_close(served, solved_on, rtol=1e-3, atol=1e-4)
    assert solved_on[:, 16:].std() > 0.1
    torch.testing.assert_close(served[:, :16], base.features(images.images), rtol=0, atol=0)


def test_a_pretrained_network_that_was_trained_further_gives_its_own_features() -> None:
    base = make_base(3)
    options = Fusion(base=FastConv(widths=(8, 16, 16)), pretrained=EfficientNetLite(resize=40))
    fused = Network(fuse(base, options, num_classes=3), base.metadata.model_copy(update={"model": options}))
    with torch.no_grad():
        fused.module.pretrained.last[0].weight.mul_(1.5)
    images = load("digits", "train", image_size=12).subset(torch.arange(6))
    object.__setattr__(images, "images", images.images.expand(-1, 3, -1, -1).contiguous())
    torch.testing.assert_close(compute_fused(fused, images), fused.features(images.images), rtol=1e-3, atol=1e-4)


def test_a_base_that_is_the_pretrained_network_computes_its_features_once(monkeypatch: pytest.MonkeyPatch) -> None:
    options = EfficientNetLite(resize=40)
    module = start_from("efficientnet_lite0", options, num_classes=2, channels=3)
    known = make_base(3).metadata.model_copy(update={"model": options, "standardize": standardize_for(3)})
    base, model = Network(module.eval(), known), Fusion(base=options, pretrained=options)
    images = load("digits", "train", image_size=12).subset(torch.arange(6))
    object.__setattr__(images, "images", images.images.expand(-1, 3, -1, -1).contiguous())
    fused = Network(fuse(base, model, num_classes=3), known.model_copy(update={"model": model}))
    passes = [0]
    features = type(module).features
    monkeypatch.setattr(type(module), "features", lambda *of: (passes.append(1), features(*of))[1])
    once, both = fused.features(images.images), base.features(images.images)
    assert sum(passes) == 2  # of the fused network and of the base
    torch.testing.assert_close(once, torch.cat([both, both], 1), rtol=1e-3, atol=1e-4)
    solved_on = compute_fused(fused, images)
    torch.testing.assert_close(solved_on, once, rtol=1e-3, atol=1e-4)
    fused.module.train().eval()  # weights may have changed since
    passes.clear()
    torch.testing.assert_close(fused.features(images.images), once, rtol=0, atol=0)
    assert sum(passes) == 2
    with torch.no_grad():
        fused.module.base.last[0].weight.mul_(1.5)
    fused.module.settle()
    assert not fused.module.is_twin
    restored = models.restore(
        model, {name: each.numpy() for name, each in fused.module.state_dict().items()}, num_classes=3, channels=3
    )
    assert not restored.is_twin


def test_kept_rows_of_a_linear_layer_are_as_those_of_the_smaller_one() -> None:
    torch.manual_seed(0)
    x, small, layer = torch.randn(50, 30), nn.Linear(17, 4), SplitLinear(30, 9, blocks=[(4, 17)])
    with torch.no_grad():
        layer.weight[:4, :17], layer.bias[:4] = small.weight, small.bias
    # A smaller network has its features in a row of their own; some processors round those of a wider one otherwise.
    assert torch.equal(layer(x)[:, :4], small(x[:, :17].contiguous()))
    torch.testing.assert_close(layer(x)[:, 4:], (x @ layer.weight.T + layer.bias)[:, 4:])


def test_kept_classes_keep_every_bit_however_often_they_are_extended(base: Run, tmp_path: Path) -> None:
    images = load("digits", "test", image_size=8).images[:150]
    runs = [base]
    for number, data in enumerate(("digits:0,8@20", "digits:5@20")):
        runs.append(extend(runs[-1].path, data=data, out=tmp_path / str(number), method="fusion", keep_old="exact"))
    answers = [Network.load(run.path).logits(images) for run in runs]
    for before, after in pairwise(answers):
        assert torch.equal(after[:, : before.shape[1]], before)
        assert after[:, before.shape[1] :].isfinite().all()


def test_a_head_trained_further_keeps_no_rows_apart(base: Run, tmp_path: Path) -> None:
    kept = extend(base.path, data="digits:0@20", out=tmp_path / "kept", method="fusion", keep_old="exact")
    made = extend(kept.path, data="digits:8@20", out=tmp_path / "more", method="nearest-mean")
    network = Network.load(made.path)
    assert isinstance(network.metadata.model, Fusion)
    assert (network.metadata.model.kept, type(network.module.head)) == ((), nn.Linear)
    assert made.recipe.model == network.metadata.model
    with pytest.raises(UserError, match="joined with a pretrained network already: choose finetune-distill or fusion"):
        extend(kept.path, data="digits:8@20", out=tmp_path / "third", method="finetune-fusion")


def test_a_fused_network_is_tuned_without_the_layers_that_its_base_froze(small_recipe: Recipe, tmp_path: Path) -> None:
    recipe = derive(small_recipe, name="frozen", freeze=(Freeze(parameters="stem", epoch=1),))
    base = train(recipe, out=tmp_path / "base")
    fused = extend(base.path, data="digits:0@20", out=tmp_path / "fused", method="fusion")
    made = extend(fused.path, data="digits:8@20", out=tmp_path / "more", method="finetune", settings=["epochs=1"])
    before, after = read_weights(fused.path)[0], read_weights(made.path)[0]
    stem = [name for name in before if name.startswith("base.stem") and name.endswith("weight")]
    assert stem
    assert all((before[name] == after[name]).all() for name in stem)
    assert any((before[name] != after[name]).any() for name in before if name.startswith("base.blocks"))


def test_a_tuned_network_is_joined_as_it_is_after_its_tuning(base: Run, tmp_path: Path) -> None:
    tuned, joined = (
        extend(base.path, data="digits:0,8@20", out=tmp_path / method, method=method, seed=1)
        for method in ("finetune-distill", "finetune-fusion")
    )
    before, after = read_weights(tuned.path)[0], read_weights(joined.path)[0]
    layers = [name for name in before if not name.startswith("head.")]
    assert layers
    for name in layers:
        assert (after[f"base.{name}"] == before[name]).all()
    assert len(joined.log) == len(tuned.log)
    assert joined.log[-1].train_loss == tuned.log[-1].train_loss


def test_minutes_limit_what_is_trained_before_it_is_joined(
    base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def within(recipe: Recipe, **_: object) -> Recipe:
        assert recipe.model == base.recipe.model  # the pretrained network takes no part in an update
        return derive(recipe, name=recipe.name, updates=3)

    monkeypatch.setattr("reslab.extension.planning.within", within)
    made = extend(base.path, data="digits:0@20", out=tmp_path / "more", method="finetune-fusion", minutes=1)
    assert made.log[-1].updates == 3
    assert isinstance(made.recipe.model, Fusion)


@pytest.fixture
def experts() -> tuple[fusion.SolvedHead, fusion.SolvedHead, fusion.LabelledFeatures]:
    """Two heads of three classes, the last one new, each on three features of its own, and images to judge both by."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (3000,), generator=generator)
    seen = nn.functional.one_hot(labels, 3).repeat(1, 2).float()
    features = 2 * seen + torch.randn(3000, 6, generator=generator)  # so that logits of 2 x are calibrated
    too_sure, calibrated = torch.cat([8 * torch.eye(3), torch.zeros(3, 3)], 1), torch.eye(3, 6).roll(3, 1) * 2
    heads = [fusion.SolvedHead(weight, torch.zeros(3), 0.1) for weight in (too_sure, calibrated)]
    return heads[0], heads[1], fusion.LabelledFeatures(features, labels)


EVEN = torch.full((3,), 1 / 3)  # classes that are equally frequent


def join(
    first: fusion.SolvedHead,
    second: fusion.SolvedHead,
    *,
    held_out: fusion.LabelledFeatures,
    coming: torch.Tensor = EVEN,
) -> fusion.SolvedHead:
    judges = fusion.Judges.of(held_out.labels, coming=coming)
    return fusion.join(show(first, second, held_out), judges, num_old=2).head


def solve(head: nn.Linear, training: fusion.LabelledFeatures, **options: Any) -> list[fusion.SolvedHead]:
    return [each.head for each in candidates(head, training, **options)]


def candidates(
    head: nn.Linear, training: fusion.LabelledFeatures, *, held_out: fusion.LabelledFeatures, **options: Any
) -> list[fusion.Product]:
    """Solve heads of two old classes and a new one."""
    return fusion.candidates(
        head,
        training,
        held_out=held_out,
        coming=EVEN,
        num_old=2,
        num_known=2,
        num_base_features=3,
        **({"keep_old": False} | options),
    )


def show(first: fusion.SolvedHead, second: fusion.SolvedHead, images: fusion.LabelledFeatures) -> fusion.Experts:
    return fusion.Experts(first, second, first.logits(images.features), second.logits(images.features))


def test_held_out_images_say_how_much_each_opinion_counts(
    experts: tuple[fusion.SolvedHead, fusion.SolvedHead, fusion.LabelledFeatures],
) -> None:
    first, second, held_out = experts
    joined = join(first, second, held_out=held_out)
    right = torch.cat([2 * torch.eye(3), 2 * torch.eye(3)], 1)  # independent evidence adds up
    torch.testing.assert_close(joined.weight, right, rtol=0.12, atol=0.01)
    accuracies = [(head.logits(held_out.features).argmax(1) == held_out.labels).float().mean() for head in experts[:2]]
    assert (joined.logits(held_out.features).argmax(1) == held_out.labels).float().mean() > max(accuracies) + 0.02


def test_held_out_images_count_as_pictures_of_their_class_will_be_frequent(
    experts: tuple[fusion.SolvedHead, fusion.SolvedHead, fusion.LabelledFeatures],
) -> None:
    """Where the held-out images are half new ones and one picture of ten will be, the powers are fitted for that."""
    first, second, images = experts
    coming = torch.tensor([0.45, 0.45, 0.1])
    joined = join(first, second, held_out=images, coming=coming)
    alike = join(first, second, held_out=images)
    places = [(images.labels == label).nonzero().flatten() for label in range(3)]
    frequent = torch.cat([place[: int(1000 * share)] for place, share in zip(places, coming.tolist(), strict=True)])
    features, labels = (each[frequent] for each in images)
    fitted, other = (nn.functional.cross_entropy(head.logits(features), labels) for head in (joined, alike))
    assert fitted < other - 0.01
    assert 1500 < fusion.Judges.of(images.labels, coming=coming).effective_num < 3000
    assert fusion.Judges.of(images.labels, coming=EVEN).effective_num == pytest.approx(3000, rel=0.01)


@pytest.mark.parametrize(("num", "most"), [(1, 0.6), (300, 3.0)])
def test_opinions_without_a_mistake_are_not_trusted_without_bound(
    experts: tuple[fusion.SolvedHead, fusion.SolvedHead, fusion.LabelledFeatures], num: int, most: float
) -> None:
    first, second, (features, labels) = experts
    right = first.logits(features).argmax(1) == labels
    held_out = fusion.LabelledFeatures(features[right][:num], labels[right][:num])
    joined = join(first, second, held_out=held_out)
    assert 0.4 < joined.weight[0, 0] / first.weight[0, 0] < most
    assert 0.4 < joined.weight[0, 3] / second.weight[0, 3] < most
    old_rows, new_rows = (
        fusion.SolvedHead(each.weight[part], each.bias[part], 0.1)
        for each, part in ((first, slice(2)), (second, slice(2, 3)))
    )
    judges = fusion.Judges.of(held_out.labels, coming=EVEN)
    scaled = fusion.calibrate_rows(show(old_rows, new_rows, held_out), judges).head
    assert torch.equal(scaled.weight[:2], old_rows.weight)
    assert 0.4 < scaled.weight[2, 5] / second.weight[2, 5] < most + 2


def test_smoothed_labels_keep_opinions_without_a_mistake_from_certainty(
    experts: tuple[fusion.SolvedHead, fusion.SolvedHead, fusion.LabelledFeatures],
) -> None:
    first, second, (features, labels) = experts
    right = (first.logits(features).argmax(1) == labels) & (second.logits(features).argmax(1) == labels)
    few = fusion.LabelledFeatures(features[right][:30], labels[right][:30])
    sure = [each._replace(weight=20 * each.weight) for each in (first, second)]
    losses = {}
    for are_smoothed in (False, True):
        judges = fusion.Judges.of(few.labels, coming=EVEN, are_smoothed=are_smoothed)
        joined = fusion.join(show(sure[0], sure[1], few), judges, num_old=2).head
        losses[are_smoothed] = float(nn.functional.cross_entropy(joined.logits(features), labels))
    assert losses[True] < 0.5 < 1 < losses[False]


def test_judges_smooth_labels_as_temperatures_do(
    experts: tuple[fusion.SolvedHead, fusion.SolvedHead, fusion.LabelledFeatures],
) -> None:
    first, _, (features, labels) = experts
    ten_each = torch.cat([(labels == label).nonzero().flatten()[:10] for label in range(3)])
    logits, labels = 3 * first.logits(features[ten_each]).double(), labels[ten_each]
    judges = fusion.Judges.of(labels, coming=EVEN, are_smoothed=True)
    best = fit_temperature_smoothed(logits.numpy(), labels.numpy())
    colder, at_best, warmer = (float(judges.loss(logits / (factor * best))) for factor in (0.99, 1, 1.01))
    assert at_best < min(colder, warmer)


def test_each_opinion_rests_on_its_own_features(
    experts: tuple[fusion.SolvedHead, fusion.SolvedHead, fusion.LabelledFeatures], monkeypatch: pytest.MonkeyPatch
) -> None:
    heads: list[fusion.SolvedHead] = []

    def look(experts: fusion.Experts, *_: object, **__: object) -> fusion.Product:
        heads.extend(experts[:2])
        return fusion.Product(experts.first, experts.first_logits, 0.0)

    monkeypatch.setattr(fusion, "join", look)
    head = nn.Linear(6, 3)
    solve(head, experts[2], held_out=experts[2])
    first, second = heads[:2]
    assert torch.equal(first.weight[:2], head.weight[:2])
    assert not first.weight[2:, 3:].any()
    assert not second.weight[:, :3].any()
    assert (second.logits(experts[2].features).argmax(1) == experts[2].labels).float().mean() > 0.75


def test_few_images_of_a_class_are_told_apart_by_discriminant_analysis(
    experts: tuple[fusion.SolvedHead, fusion.SolvedHead, fusion.LabelledFeatures],
) -> None:
    held_out = experts[2]
    few = fusion.LabelledFeatures(held_out.features[:150], held_out.labels[:150])
    heads = solve(nn.Linear(6, 3), few, held_out=held_out)
    assert [head.strength for head in heads] == list(fusion.SHRINKAGES)
    assert all((head.logits(held_out.features).argmax(1) == held_out.labels).float().mean() > 0.75 for head in heads)
    # Nothing says how little such an opinion counts where hardly any images are held out.
    heads = solve(nn.Linear(6, 3), few, held_out=fusion.LabelledFeatures(*(x[:5] for x in few)))
    assert [head.strength for head in heads] == list(fusion.PENALTIES)


def test_where_no_image_has_changed_the_features_all_rows_are_solved_anew(
    experts: tuple[fusion.SolvedHead, fusion.SolvedHead, fusion.LabelledFeatures],
) -> None:
    held_out = experts[2]
    few = fusion.LabelledFeatures(held_out.features[:150], held_out.labels[:150])
    useless = nn.Linear(6, 3)  # whose rows would be kept otherwise
    rates = []
    for is_unchanged in (False, True):
        heads = solve(useless, few, held_out=held_out, is_unchanged=is_unchanged)
        rates.append(
            max(float((head.logits(held_out.features).argmax(1) == held_out.labels).float().mean()) for head in heads)
        )
    assert [head.strength for head in heads] == [*fusion.SHRINKAGES, *fusion.PENALTIES]
    assert rates[1] > rates[0] + 0.05
    heads = solve(useless, few, held_out=fusion.LabelledFeatures(*(x[:5] for x in few)), is_unchanged=True)
    assert [head.strength for head in heads] == [*fusion.SHRINKAGES, *fusion.PENALTIES]


def test_a_handful_of_held_out_images_chooses_no_tau(base: Run, tmp_path: Path) -> None:
    made = extend(base.path, data="digits:0,8@20", out=tmp_path / "more", method="fusion")
    assert made.prior.tau == 0
    assert len(made.prior.curve) == 11


def test_folds_of_training_images_say_what_too_few_held_out_ones_cannot(
    experts: tuple[fusion.SolvedHead, fusion.SolvedHead, fusion.LabelledFeatures],
) -> None:
    """The new class has two held-out images, which by chance look like it more than others do."""
    first, _, images = experts
    places = [(images.labels == label).nonzero().flatten() for label in range(3)]
    few = torch.cat([*(place[:400] for place in places[:2]), places[2][:20]])
    sure = first.logits(images.features)[places[2]][:, 2].argsort()
    held = torch.cat([*(place[400:500] for place in places[:2]), places[2][sure[-2:]]])
    others = torch.cat([*(place[500:900] for place in places[:2]), places[2][500:900]])
    training, held_out, strange = (
        fusion.LabelledFeatures(images.features[part], images.labels[part]) for part in (few, held, others)
    )
    folds = [800 + torch.arange(start, 20, 5) for start in range(5)]
    head = nn.Linear(6, 3)
    with torch.no_grad():
        head.weight[:], head.bias[:] = first.weight, 0.0
    losses = []
    for chosen in ((), folds):
        found = candidates(head, training, held_out=held_out, folds=chosen)
        best = min(found, key=lambda each: each.loss)
        losses.append(float(nn.functional.cross_entropy(best.head.logits(strange.features), strange.labels)))
        assert len(found) == len(fusion.SHRINKAGES)
    assert losses[1] < losses[0] - 0.02


def test_each_fold_is_judged_by_experts_that_have_not_seen_it(
    experts: tuple[fusion.SolvedHead, fusion.SolvedHead, fusion.LabelledFeatures], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = fusion.LabelledFeatures(*(each[:300] for each in experts[2]))
    folds = [torch.arange(start, 300, 2) for start in range(2)]
    solved_on: list[int] = []
    regress = fusion.regress

    def watch(images: fusion.LabelledFeatures, **options: Any) -> list[fusion.SolvedHead]:
        solved_on.append(len(images.labels))
        return regress(images, **options)

    monkeypatch.setattr(fusion, "regress", watch)
    seen: list[fusion.Experts] = []
    calibrate_rows = fusion.calibrate_rows

    def look(experts: fusion.Experts, judges: fusion.Judges) -> fusion.Product:
        seen.append(experts)
        assert len(judges.labels) == 310
        return calibrate_rows(experts, judges)

    monkeypatch.setattr(fusion, "calibrate_rows", look)
    held_out = fusion.LabelledFeatures(*(each[300:310] for each in experts[2]))
    heads = solve(nn.Linear(6, 3), training, held_out=held_out, keep_old=True, folds=folds)
    assert solved_on == [300, 150, 150]
    assert len(heads) == len(fusion.PENALTIES)
    again = seen[0].second.logits(training.features[folds[0]])
    assert not torch.allclose(seen[0].second_logits[10:160], again)  # those are of rows solved on the other fold


def test_what_is_taught_to_a_fitted_network_still_knows_what_is_unlike_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "SIZES", {"efficientnet_lite0": (32,)})
    base = fit("digits:1,4,7@30", out=tmp_path / "base", minutes=1)
    made = extend(base.path, data="digits:0,8@15", out=tmp_path / "more", method="fusion")
    network = Network.load(made.path)
    assert sum(each.num_images for each in made.environment.data if each.split == "validation") < FEWEST
    assert network.familiarity is not None
    assert len(network.familiarity.scores) > 100  # of folds, too
    calibration = network.metadata.calibration
    assert calibration is None or calibration.out_of_folds
    noise = torch.randint(256, (50, 1, network.image_size, network.image_size), dtype=torch.uint8)
    own = load("digits:0,1,4,7,8", "test", image_size=network.image_size).images
    strange, familiar = ((network.answer(images)[1] > 0.05).float().mean() for images in (noise, own))
    assert strange < 0.1
    assert familiar > 0.85


def test_held_out_images_are_compared_with_other_groups_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "SIZES", {"efficientnet_lite0": (32,)})
    random = np.random.default_rng(0)
    for number, name in enumerate(("cat", "dog", "elk")):
        (tmp_path / name).mkdir()
        for series, place in product(range(8), range(3)):
            pixels = random.integers(60 * number, 60 * number + 60, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{series}_{place}.png")
    base = fit(f"folder:{tmp_path}:cat,dog?group=([0-9]+)_", out=tmp_path / "base", minutes=1)
    given: list[Any] = []

    def look(*found: Any, **options: Any) -> Finished:
        given.append((found[1], found[2], options["groups"]))
        return finish_on(*found, **options)

    monkeypatch.setattr(extender, "finish_on", look)
    made = extend(base.path, data=f"folder:{tmp_path}:elk?group=([0-9]+)_", out=tmp_path / "more", method="fusion")
    ((known, held_out, (known_groups, groups)),) = given
    keys, own = (read_split(made.recipe, split).keys for split in ("train", "validation"))
    assert keys is not None
    assert own is not None
    same = known_groups[:, None].numpy() == groups.numpy()
    np.testing.assert_array_equal(same[:, : len(own)], keys[:, None] == own)
    judges = held_out.features[len(own) :]
    assert len(judges) > 10
    is_itself = (known.features[:, None] == judges).all(dim=2).numpy()
    assert (is_itself <= same[:, len(own) :]).all()
    assert (same[:, len(own) :].sum(axis=0) <= 9).all()  # three pictures of each class
