import json

import pytest

from reslab.errors import UserError
from reslab.recipe.networks import MODELS, FastConv, PreActResNet
from reslab.recipe.published import CIFAR10_NETWORKS
from reslab.recipe.recipe import Crop, Flip, Freeze, Linear, RandomResizedCrop, Shift, Standardize, Steps, derive
from reslab.recipe.shipped import RECIPES, find_recipe
from reslab.recipe.shipped.zoo import PUBLISHED

# Test errors in percent, by depth: He et al. 2015, table 6; Shah et al. 2016, table 1.
HE_ERRORS = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43}
SHAH_ERRORS = {20: 8.32, 32: 7.30, 44: 6.93, 56: 6.31, 110: 5.62}
PLAIN_DEPTHS = (20, 32, 44, 56)
PUBLISHED_ERRORS = {f"resnet-{depth}": error for depth, error in HE_ERRORS.items()} | {
    f"elu-resnet-{depth}": error for depth, error in SHAH_ERRORS.items()
}
PAPERS = [*PUBLISHED_ERRORS, *(f"plain-{depth}" for depth in PLAIN_DEPTHS)]
LAB = ["lab-resnet32", "lab-resnet32-short", "digits-quick"]
FAST = ["fast-conv", "fast94", "extension-base", "fast-cifar100"]
FAST_RESNETS = {"fast-resnet20": 20, "fast-resnet32": 32, "fast-resnet56": 56}
# Test accuracy in percent, batch, epochs, rates, the epochs (from 0) at which they begin, and the decay: twice the
# penalty that the table's scripts put on the sum of squares.
ZOO = {
    "zoo-lenet": (76.23, 128, 200, (0.01, 0.005, 0.001), (100, 150), 2e-4),
    "zoo-nin": (91.63, 128, 200, (0.05, 0.01, 0.002, 0.0004), (61, 121, 161), 2e-4),
    "zoo-vgg19": (93.53, 128, 200, (0.1, 0.01, 0.001), (80, 160), 2e-4),
    "zoo-preact-resnet20": (91.82, 128, 200, (0.1, 0.01, 0.001), (81, 122), 2e-4),
    "zoo-preact-resnet32": (92.68, 128, 200, (0.1, 0.01, 0.001), (81, 122), 2e-4),
    "zoo-preact-resnet110": (93.93, 128, 200, (0.1, 0.01, 0.001), (81, 122), 2e-4),
    "zoo-wrn16-8": (95.13, 128, 200, (0.1, 0.02, 0.004, 0.0008), (60, 120, 160), 1e-3),
    "zoo-wrn28-10": (95.78, 128, 200, (0.1, 0.02, 0.004, 0.0008), (60, 120, 160), 1e-3),
    "zoo-densenet-bc-100-12": (94.91, 64, 250, (0.1, 0.01, 0.001), (150, 225), 2e-4),
    "zoo-densenet-bc-100-24": (95.30, 64, 250, (0.1, 0.01, 0.001), (150, 225), 2e-4),
    "zoo-densenet-bc-160-24": (95.90, 64, 250, (0.1, 0.01, 0.001), (150, 225), 2e-4),
    "zoo-resnext29-4x64d": (95.19, 120, 250, (0.1, 0.01, 0.001), (150, 225), 1e-3),
    "zoo-se-resnext29-4x64d": (95.60, 120, 250, (0.1, 0.01, 0.001), (150, 225), 1e-3),
}
FOLDER = ["folder-resnet18"]

CIFAR10_TRAINING_IMAGES = 50_000


def test_the_recipes_are_these_under_their_own_names():
    assert sorted(RECIPES) == sorted(LAB + PAPERS + FAST + [*FAST_RESNETS] + [*ZOO] + FOLDER)
    assert all(recipe.name == name for name, recipe in RECIPES.items())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_its_source_and_the_source_of_its_figure(name):
    recipe = RECIPES[name]
    assert recipe.source
    if recipe.published is not None:
        assert 0.7 < recipe.published.low <= recipe.published.high < 1
        assert recipe.published.source


# ---- the lab's


def test_lab_resnet32_is_the_script_of_the_lab_field_by_field():
    assert RECIPES["lab-resnet32"].model_dump(mode="json") == {
        "schema_version": 2,
        "name": "lab-resnet32",
        "source": "BIGBALLON/cifar-10-cnn, 4_Residual_Network",
        "published": {"low": 0.9268, "high": 0.9268, "source": "BIGBALLON/cifar-10-cnn, README, after 200 epochs"},
        "data": "cifar10",
        "image_size": 32,
        "resize": "squeeze",
        "channels": "auto",
        "white": None,
        "validation": 0,
        "trial": False,
        "standardize": {"mean": [125.307, 122.95, 113.865], "std": [62.9932, 62.0887, 66.7048]},
        "augment": [{"kind": "flip", "alternate": False}, {"kind": "shift", "fraction": 0.125}],
        "mixing": [],
        "progressive_resizing": [],
        "model": {
            "kind": "preact_resnet",
            "depth": 32,
            "width": 16,
            "activation": "relu",
            "keras_padding": True,
        },
        "pretrained": None,
        "optimizer": {
            "kind": "sgd",
            "peak_lr": 0.1,
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 2 * 1e-4,  # the penalty is 1e-4 times the sum of squares
            "decay_on": "kernels",
        },
        "schedule": {"kind": "steps", "at": [81, 122], "unit": "epochs", "factor": 0.1},
        "warm_until": None,
        "label_smoothing": 0.0,
        "logit_adjustment": 0.0,
        "class_weights": None,
        "early_stopping": None,
        "freeze": [],
        "freeze_norms": False,
        "epochs": 125,
        "updates": None,
        "batch_size": 128,
        "micro_batch_size": None,
        "sampling": None,
        "stream": None,
        "temperature": None,
        "merge": False,
        "skip_damaged": False,
        "start": None,
        "imported": None,
        "extension": None,
    }


def test_the_short_recipe_trains_the_same_network_for_ten_epochs():
    short, full = RECIPES["lab-resnet32-short"], RECIPES["lab-resnet32"]
    assert short.model == full.model == PreActResNet(depth=32, keras_padding=True)
    assert (short.data, short.standardize, short.batch_size) == (full.data, full.standardize, full.batch_size)
    assert short.epochs == 10
    assert short.published is None
    assert isinstance(short.schedule, Linear)
    assert [growth.image_size for growth in short.progressive_resizing][-1] == short.image_size == 32
    assert all(growth.epoch < short.epochs for growth in short.progressive_resizing)


def test_the_digits_recipe_needs_no_download_and_fits_small_grey_images():
    digits = RECIPES["digits-quick"]
    assert (digits.data, digits.image_size, digits.standardize) == ("digits", 8, None)
    assert digits.augment == (Shift(fraction=0.125),)  # a mirrored digit is none
    assert digits.validation > 0


# ---- the papers'


@pytest.mark.parametrize("name", PAPERS)
def test_a_papers_recipe_is_the_papers_field_by_field(name):
    recipe = RECIPES[name]
    family, _, depth = name.rpartition("-")
    assert recipe.model.kind == family.replace("-", "_")
    assert (recipe.model.depth, recipe.model.width) == (int(depth), 16)
    assert recipe.data == "cifar10"
    assert recipe.validation == 0
    assert recipe.standardize == Standardize(mean=(125.307, 122.95, 113.865), std=(62.9932, 62.0887, 66.7048))
    assert recipe.augment == (Crop(pixels=4, fill="zeros"), Flip())
    assert recipe.progressive_resizing == ()
    assert recipe.optimizer.model_dump() == {
        "kind": "sgd",
        "peak_lr": 0.1,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-4,
        "decay_on": "all",
    }
    assert recipe.schedule == Steps(at=(32_000, 48_000), unit="updates", factor=0.1)
    assert (recipe.updates, recipe.batch_size, recipe.label_smoothing) == (64_000, 128, 0)


@pytest.mark.parametrize("name", PAPERS)
def test_the_epochs_are_just_enough_for_the_updates(name):
    recipe = RECIPES[name]
    per_epoch = -(-CIFAR10_TRAINING_IMAGES // recipe.batch_size)
    assert (recipe.epochs - 1) * per_epoch < recipe.updates <= recipe.epochs * per_epoch


@pytest.mark.parametrize(("name", "error"), PUBLISHED_ERRORS.items())
def test_the_published_errors_are_the_papers(name, error):
    published = RECIPES[name].published
    assert published.low == published.high
    assert round(100 * (1 - published.low), 2) == error
    assert ("1604.04112" if name.startswith("elu") else "1512.03385") in published.source


def test_residual_networks_have_the_shortcuts_of_their_papers():
    assert {RECIPES[f"resnet-{depth}"].model.shortcut for depth in HE_ERRORS} == {"A"}
    assert {RECIPES[f"elu-resnet-{depth}"].model.block for depth in SHAH_ERRORS} == {"conv-elu-conv-bn"}


@pytest.mark.parametrize("name", RECIPES)
def test_only_depth_110_is_warmed_up_until_the_training_error_is_under_80_percent(name):
    warm = RECIPES[name].warm_until
    if name in ("resnet-110", "elu-resnet-110"):
        assert (warm.factor * RECIPES[name].optimizer.peak_lr, warm.training_error) == (pytest.approx(0.01), 0.8)
    else:
        assert warm is None


# ---- the zoo


@pytest.mark.parametrize("name", ZOO)
def test_a_recipe_of_the_zoo_is_its_row_of_the_table(name):
    recipe = RECIPES[name]
    accuracy, batch, epochs, rates, places, decay = ZOO[name]
    assert recipe.published.low == recipe.published.high == pytest.approx(accuracy / 100)
    assert (recipe.batch_size, recipe.epochs, recipe.updates, recipe.validation) == (batch, epochs, None, 0)
    assert recipe.optimizer.model_dump() == {
        "kind": "sgd",
        "peak_lr": rates[0],
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": pytest.approx(decay),
        "decay_on": "kernels",
    }
    assert (recipe.schedule.at, recipe.schedule.unit) == (places, "epochs")
    found = [recipe.optimizer.peak_lr * recipe.schedule.share_after(num) for num in range(len(places) + 1)]
    assert found == pytest.approx(rates)
    wide = name.startswith("zoo-wrn")
    assert recipe.augment == (Flip(), Crop(pixels=4, fill="reflect") if wide else Shift(fraction=0.125))


def test_the_zoo_trains_the_shipped_networks_and_those_of_the_lab():
    names = {name: name.removeprefix("zoo-").replace("-", "_") for name in ZOO}
    for name, model in names.items():
        lab = {"keras_padding": True} if "preact" in name else {}
        assert MODELS[model].model_copy(update=lab) == RECIPES[name].model


def test_every_row_of_the_table_has_its_recipe():
    assert list(PUBLISHED) == list(ZOO)
    assert list(PUBLISHED.values()) == list(CIFAR10_NETWORKS)


def test_the_recipe_for_folders_is_that_of_large_images():
    folder = RECIPES["folder-resnet18"]
    assert (folder.model.kind, folder.model.depth, folder.model.stem) == ("imagenet_resnet", 18, "large")
    assert (folder.data, folder.image_size, folder.published) == ("folder:images", 224, None)
    assert folder.augment == (RandomResizedCrop(area=(0.08, 1), ratio=(3 / 4, 4 / 3)), Flip())
    # ImageNet's, which are given for pixels from 0 to 1.
    assert folder.standardize.mean == pytest.approx([255 * mean for mean in (0.485, 0.456, 0.406)])
    assert folder.standardize.std == pytest.approx([255 * part for part in (0.229, 0.224, 0.225)])


# ---- the fast ones


def test_the_fast_recipe_is_that_of_its_source_on_growing_images_for_the_mean_loss():
    """The source's rates and its decay are for the sum over a batch of 2000; here the loss is the mean."""
    fast = RECIPES["fast-conv"]
    assert fast.model == FastConv(widths=(64, 256, 256))
    assert fast.optimizer.model_dump() == {
        "kind": "muon",
        "peak_lr": 0.24,
        "momentum": 0.6,
        "iterations": 3,
        "head_lr": pytest.approx(0.67 * 2000),
        "bias_lr": pytest.approx(0.053 * 2000),
        "other_momentum": 0.85,
        "decay": pytest.approx(2e-6 * 2000),
    }
    assert (fast.schedule, fast.label_smoothing, fast.epochs) == (Linear(warmup=0, final=0), 0.2, 8)
    assert fast.augment == (Flip(alternate=True), Crop(pixels=2, fill="reflect"))
    assert fast.freeze == (Freeze(parameters="stem", epoch=3),)
    assert (fast.batch_size, fast.micro_batch_size) == (2000, 250)
    assert [growth.image_size for growth in fast.progressive_resizing] == [16, 20, 20, 24, 24, 28, 32, 32]


@pytest.mark.parametrize("name", FAST)
def test_a_fast_recipe_grows_epoch_by_epoch_up_to_the_size_that_is_measured(name):
    recipe = RECIPES[name]
    sizes = [growth.image_size for growth in recipe.progressive_resizing]
    assert [growth.epoch for growth in recipe.progressive_resizing] == list(range(recipe.epochs))
    assert sizes == sorted(sizes)
    assert sizes[-1] == recipe.image_size == 32
    assert recipe.published is None


def test_fast94_and_the_base_of_an_extension_are_the_fast_recipe_for_longer():
    base, fast94, fast = (RECIPES[name] for name in ("extension-base", "fast94", "fast-conv"))
    assert (fast94.epochs, base.epochs, fast94.validation, base.validation) == (10, 16, 0, 5000)
    assert derive(fast94, name=fast.name, epochs=8, progressive_resizing=fast.progressive_resizing) == fast
    assert (
        derive(
            base, name=fast94.name, epochs=fast94.epochs, validation=0, progressive_resizing=fast94.progressive_resizing
        )
        == fast94
    )
    pairs = zip(fast.progressive_resizing, fast94.progressive_resizing, strict=False)
    assert all(before.image_size <= after.image_size for before, after in pairs)


def test_the_recipe_for_a_hundred_classes_is_wider_and_crops_more_and_its_head_learns_faster_by_as_much():
    base, hundred = RECIPES["extension-base"], RECIPES["fast-cifar100"]
    assert hundred.model == FastConv(widths=(96, 384, 512))
    assert hundred.augment == (Flip(alternate=True), Crop(pixels=4, fill="reflect"))
    assert hundred.optimizer.head_lr == pytest.approx(base.optimizer.head_lr * 512 / 256)
    changed = ("data", "standardize", "augment", "model", "optimizer", "temperature")
    same = {field: getattr(base, field) for field in changed}
    assert derive(hundred, name=base.name, validation=5000, **same) == base


@pytest.mark.parametrize(("name", "depth"), FAST_RESNETS.items())
def test_a_fast_residual_network_is_the_lab_s_in_a_fifth_of_the_table_s_epochs(name, depth):
    fast, lab = RECIPES[name], RECIPES["lab-resnet32"]
    assert fast.model == lab.model.model_copy(update={"depth": depth})
    assert fast.epochs == PUBLISHED["zoo-preact-resnet32"].epochs / 5
    assert (fast.data, fast.standardize, fast.validation) == (lab.data, lab.standardize, 0)
    assert fast.progressive_resizing[-1].image_size == fast.image_size == 32
    assert fast.progressive_resizing[-1].epoch <= fast.epochs / 2
    assert (fast.optimizer.kind, fast.published) == ("muon", None)


# ---- looking one up


def test_a_shipped_recipe_is_found_by_name():
    assert find_recipe("resnet-56") is RECIPES["resnet-56"]


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("lab-resnet-32", "lab-resnet32"),
        ("resnet56", "resnet-56"),
        ("ELU-resnet-110", "elu-resnet-110"),
        ("digits", "digits-quick"),
        ("plain-110", "plain-"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(wrong, nearest):
    with pytest.raises(UserError, match=f"unknown recipe '{wrong}': did you mean '{nearest}"):
        find_recipe(wrong)


@pytest.mark.parametrize("wrong", ["", "qqq", "../etc"])
def test_a_name_like_no_other_is_told_where_to_look(wrong):
    with pytest.raises(
        UserError, match=r"unknown recipe .*\(reslab recipes lists them; a file's name ends in \.json\)"
    ):
        find_recipe(wrong)


def test_a_file_is_read_by_its_ending(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(RECIPES["plain-20"].model_dump(mode="json") | {"name": "mine"}), encoding="utf-8")
    assert find_recipe(str(path)).name == "mine"
    with pytest.raises(UserError, match=r"absent\.json cannot be read as a recipe"):
        find_recipe(str(tmp_path / "absent.json"))
    with pytest.raises(UserError, match="File name too long"):
        find_recipe("x" * 300 + ".json")
