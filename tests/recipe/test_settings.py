"""`--set field=value`: what it changes, and the one sentence where it cannot."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reslab.errors import UserError
from reslab.recipe.networks import FastConv, PreActResNet, ResNet
from reslab.recipe.recipe import (
    Crop,
    CutMix,
    Flip,
    Freeze,
    Linear,
    Muon,
    Recipe,
    Resize,
    Sampling,
    Sgd,
    Steps,
    derive,
    parse_recipe,
)
from reslab.recipe.settings import with_settings
from reslab.recipe.shipped import RECIPES

LAB, FAST = RECIPES["lab-resnet32"], RECIPES["fast-conv"]
JARGON = ("pydantic", "tuple", "dictionary", "discriminator", "tag", "Input", "None", "True", "Extra", "preact_resnet.")


def plain(recipe=LAB):
    """JSON of a recipe, as a file holds it."""
    return recipe.model_dump(mode="json")


def complaint(*assignments, recipe=LAB):
    with pytest.raises(UserError) as error:
        with_settings(recipe, assignments)
    return str(error.value)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("epochs=10", {"epochs": 10}),
        (" epochs = 10 ", {"epochs": 10}),
        ("name=mine", {"name": "mine"}),
        ("data=cifar10+cifar100:reptiles", {"data": "cifar10+cifar100:reptiles"}),
        ("data=folder:a=b", {"data": "folder:a=b"}),
        ('source="5"', {"source": "5"}),
        ("source=", {"source": ""}),
        ("standardize=null", {"standardize": None}),
        ("augment=[]", {"augment": ()}),
        ('augment=[{"kind": "crop", "pixels": 2}]', {"augment": (Crop(pixels=2),)}),
        (
            'progressive_resizing=[{"epoch": 0, "image_size": 16}]',
            {"progressive_resizing": (Resize(epoch=0, image_size=16),)},
        ),
        ("optimizer.peak_lr=0.2", {"optimizer": Sgd(peak_lr=0.2, weight_decay=2e-4)}),
        ("model.keras_padding=false", {"model": PreActResNet(depth=32)}),
        ("schedule.at=[3, 4]", {"schedule": Steps(at=(3, 4))}),
        ("schedule.at.1=90", {"schedule": Steps(at=(81, 90))}),
        ("augment.1=" + '{"kind": "flip"}', {"augment": (Flip(), Flip())}),
        ("standardize.mean.0=0", {"standardize": LAB.standardize.model_copy(update={"mean": (0, 122.95, 113.865)})}),
    ],
)
def test_a_setting_changes_its_field_and_takes_the_published_figure_away(assignment, expected):
    assert with_settings(LAB, [assignment]) == derive(LAB, **{"name": LAB.name, "published": None} | expected)


def test_settings_apply_in_their_order_and_leave_the_recipe_alone():
    before = plain()
    assert with_settings(LAB, ["epochs=1", "epochs=2", "model.depth=20", "model.depth=14"]).model.depth == 14
    assert plain() == before


def test_another_kind_keeps_the_fields_that_both_have():
    wide = with_settings(LAB, ["model.width=32", "model.activation=elu"])
    assert with_settings(wide, ["model.kind=resnet"]).model == ResNet(depth=32, width=32, activation="elu")
    assert with_settings(LAB, ["schedule.kind=linear"]).schedule == Linear()


def test_another_kind_can_be_given_its_own_fields():
    assert with_settings(LAB, ["model.kind=resnet", "model.shortcut=B"]).model == ResNet(depth=32, shortcut="B")
    crop = ["augment.1.kind=crop", "augment.1.pixels=2", "augment.1.fill=reflect"]
    assert with_settings(LAB, crop).augment == (Flip(), Crop(pixels=2, fill="reflect"))


def test_another_mixing_keeps_its_strength():
    mixed = with_settings(LAB, ['mixing=[{"kind": "mixup", "alpha": 0.3}]', "mixing.0.kind=cutmix"])
    assert mixed.mixing == (CutMix(alpha=0.3),)


def test_another_optimizer_keeps_the_momentum_but_no_rate_except_a_given_one():
    assert with_settings(LAB, ["optimizer.kind=muon"]).optimizer == Muon(momentum=0.9)
    assert with_settings(LAB, ["optimizer.kind=adamw"]).optimizer.peak_lr == 1e-3
    assert with_settings(LAB, ["optimizer.kind=sgd"]).optimizer == LAB.optimizer
    assert complaint("optimizer.kind=sgd", recipe=FAST) == "--set: optimizer.peak_lr is missing"
    for both in (["optimizer.kind=sgd", "optimizer.peak_lr=0.3"], ["optimizer.peak_lr=0.3", "optimizer.kind=sgd"]):
        assert with_settings(FAST, both).optimizer == Sgd(peak_lr=0.3, momentum=0.6)
    own = ["optimizer.kind=muon", "optimizer.head_lr=1", "optimizer.iterations=5"]
    assert with_settings(LAB, own).optimizer == Muon(momentum=0.9, head_lr=1, iterations=5)


def test_the_fast_network_can_take_the_place_of_another_and_give_it_up_again():
    fast = with_settings(LAB, ["model.kind=fast_conv", "model.widths=[64, 256, 128]"])
    assert fast.model == FastConv(widths=(64, 256, 128))
    assert complaint("model.kind=resnet", recipe=FAST) == "--set: model.depth is missing"
    assert with_settings(FAST, ["model.kind=resnet", "model.depth=20"]).model == ResNet(depth=20)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("augment.0.alternate=false", {"augment": (Flip(), Crop(pixels=2, fill="reflect"))}),
        ("freeze=[]", {"freeze": ()}),
        ("freeze.0.epoch=0", {"freeze": (Freeze(parameters="stem", epoch=0),)}),
        ("freeze.0.parameters=groups", {"freeze": (Freeze(parameters="groups", epoch=3),)}),
        ("micro_batch_size=null", {"micro_batch_size": None}),
        ("micro_batch_size=100", {"micro_batch_size": 100}),
        ("logit_adjustment=1", {"logit_adjustment": 1.0}),
        ('sampling={"images_per_epoch": 100}', {"sampling": Sampling(images_per_epoch=100)}),
        ("optimizer.iterations=5", {"optimizer": Muon(head_lr=1340, bias_lr=106, iterations=5)}),
        ("optimizer.decay=0", {"optimizer": Muon(head_lr=1340, bias_lr=106, decay=0)}),
        ("model.widths=[8, 16, 24]", {"model": FastConv(widths=(8, 16, 24))}),
    ],
)
def test_the_parts_of_the_fast_recipe_can_be_set(assignment, expected):
    assert with_settings(FAST, [assignment]) == derive(FAST, **{"name": FAST.name} | expected)


def test_a_part_that_was_absent_can_be_set_whole_and_then_in_pieces():
    found = with_settings(LAB, ['sampling={"images_per_epoch": 100, "balance": 0}', "sampling.balance=1"])
    assert found.sampling == Sampling(images_per_epoch=100, balance=1)


def test_a_flip_is_made_to_alternate():
    assert with_settings(LAB, ["augment.0.alternate=true"]).augment[0] == Flip(alternate=True)


def test_another_kind_that_lacks_a_field_says_which():
    assert complaint("augment.0.kind=crop") == "--set: augment.0.pixels is missing"


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("epochs", "--set epochs: write it as field=value, for example --set epochs=10"),
        ("epoch=5", "--set epoch: unknown field 'epoch'; did you mean 'epochs'?"),
        ("optimizer.momentm=0", "--set optimizer.momentm: unknown field 'momentm'; did you mean 'momentum'?"),
        ("optimzer.momentum=0", "--set optimzer.momentum: unknown field 'optimzer'; did you mean 'optimizer'?"),
        ("peak_lr=0.2", "--set peak_lr: unknown field 'peak_lr'; did you mean 'optimizer.peak_lr'?"),
        ("kind=resnet", "--set kind: unknown field 'kind'; did you mean 'model.kind'?"),
        ("model.shortcut=B", "--set model.shortcut: unknown field 'shortcut'; "),
        ("model.xyz=1", "--set model.xyz: unknown field 'xyz'; it has depth, width, kind, activation, keras_padding"),
        ("model.kind=resnt", "--set model.kind: unknown kind 'resnt'; did you mean 'resnet'?"),
        (
            "model.kind=sgd",
            "--set model.kind: unknown kind 'sgd'; choose from preact_resnet, resnet, plain, elu_resnet, fast_conv",
        ),
        ("schedule.kind=[1]", "--set schedule.kind: unknown kind […]; choose from steps, linear, cosine"),
        ("augment.7.pixels=1", "--set augment.7.pixels: unknown field '7'; it has 0, 1"),
        ("augment.²=1", "--set augment.²: unknown field '²'; it has 0, 1"),
        ("augment.-1=1", "--set augment.-1: unknown field '-1'; it has 0, 1"),
        (
            "progressive_resizing.0.epoch=1",
            "--set progressive_resizing.0.epoch: there is no '0' in it, it holds []",
        ),
        ("standardize.kind=x", "--set standardize.kind: unknown field 'kind'; it has mean, std"),
        ("published.low=1", "--set published.low: there is no 'low' in it, it holds null"),
        ("warm_until.factor=1", "--set warm_until.factor: there is no 'factor' in it, it holds null"),
        (
            "sampling.images_per_epoch=100",
            "--set sampling.images_per_epoch: there is no 'images_per_epoch' in it, it holds null",
        ),
        ("freeze.0.epoch=1", "--set freeze.0.epoch: there is no '0' in it, it holds []"),
        ("growth=[]", "--set growth: growth is now called progressive_resizing: write progressive_resizing instead"),
        ("chunk_size=9", "--set chunk_size: chunk_size is now called micro_batch_size: write micro_batch_size instead"),
        ("standardize.deviation.0=9", "--set standardize.deviation.0: deviation is now called std: write std instead"),
        (
            'average={"epoch": 3}',
            "--set average: EMA: no shipped recipe gained from it, so reslab no longer has it: omit",
        ),
        ("balance=1", "--set balance: unknown field 'balance'; it has "),
        ("optimizer.kind=adam", "--set optimizer.kind: unknown kind 'adam'; did you mean 'adamw'?"),
        ("optimizer.kind=mouon", "--set optimizer.kind: unknown kind 'mouon'; did you mean 'muon'?"),
        ("model.kind=fastconv", "--set model.kind: unknown kind 'fastconv'; did you mean 'fast_conv'?"),
        ("augment.0.alternat=true", "--set augment.0.alternat: unknown field 'alternat'; did you mean 'alternate'?"),
        ("name.kind=x", "--set name.kind: there is no 'kind' in it, it holds 'lab-resnet32'"),
    ],
)
def test_a_wrong_name_is_told_the_nearest_right_one(assignment, sentence):
    assert complaint(assignment).startswith(sentence)


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("epochs=many", "--set: epochs should be a whole number, not 'many'"),
        ("epochs=1.5", "--set: epochs should be a whole number, not 1.5"),
        ("epochs=true", "--set: epochs cannot be true"),
        ("epochs=null", "--set: epochs should be a whole number, not null"),
        ("epochs=0", "--set: epochs should be greater than 0, not 0"),
        ("name=5", "--set: name should be text, not 5"),
        (
            'model={"kind":"timm","name":"a b"}',
            "--set: model.name should be text that matches ^[a-z0-9_]+(\\.[a-z0-9_]+)?$, not 'a b'",
        ),
        ("model=3", "--set: model should be an object with fields, not 3"),
        ("model.depth=33", "--set: model: depth 33 is not 6n+2; the nearest are 32 and 38"),
        ("model.depth=abc", "--set: model.depth should be a whole number, not 'abc'"),
        ("model.activation=gelu", "--set: model.activation should be 'relu' or 'elu', not 'gelu'"),
        ("model.keras_padding=maybe", "--set: model.keras_padding should be true or false, not 'maybe'"),
        ("augment=flip", "--set: augment should be a list, not 'flip'"),
        ("augment.0=3", "--set: augment.0 should be an object with fields, not 3"),
        ("optimizer.peak_lr=-1", "--set: optimizer.peak_lr should be greater than 0, not -1"),
        ("optimizer.peak_lr=high", "--set: optimizer.peak_lr should be a number, not 'high'"),
        ("optimizer.peak_lr=NaN", "--set: optimizer.peak_lr should be a finite number, not nan"),
        ("optimizer.peak_lr=1e999", "--set: optimizer.peak_lr should be a finite number, not inf"),
        ("schedule.at=[0]", "--set: schedule.at.0 should be greater than 0, not 0"),
        ("schedule.factor=1", "--set: schedule.factor should be less than 1, not 1"),
        ("name=\udcff", r"--set: name holds text that is not valid Unicode: '\udcff'"),
        ("micro_batch_size=0", "--set: micro_batch_size should be greater than 0, not 0"),
        ("logit_adjustment=1.5", "--set: logit_adjustment should be less than or equal to 1, not 1.5"),
        ("logit_adjustment=true", "--set: logit_adjustment cannot be true"),
        ("sampling=100", "--set: sampling should be an object with fields, not 100"),
        ("sampling={}", "--set: sampling.images_per_epoch is missing"),
        ("freeze=stem", "--set: freeze should be a list, not 'stem'"),
        ("augment.0.alternate=often", "--set: augment.0.alternate should be true or false, not 'often'"),
        ("schema_version=3", "--set has recipe schema 3, this reslab reads up to 2: upgrade it"),
    ],
)
def test_a_wrong_value_is_told_in_one_sentence(assignment, sentence):
    assert complaint(assignment) == sentence


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("image_size=8", "--set: fast_conv needs images of 9 pixels or more, not 8"),
        ("progressive_resizing.0.image_size=4", "--set: fast_conv needs images of 9 pixels or more, not 4"),
        ("model.widths=[8, 16]", "--set: model.widths.2 is missing"),
        ("model.widths.0=12", "--set: model.widths.0 should be a multiple of 8, not 12"),
        ("model.width=32", "--set model.width: unknown field 'width'; did you mean 'widths'?"),
        ("freeze.0.epoch=-1", "--set: freeze.0.epoch should be greater than or equal to 0, not -1"),
        ("optimizer.other_momentum=0", "--set: optimizer.other_momentum should be greater than 0, not 0"),
        ("optimizer.nesterov=true", "--set optimizer.nesterov: unknown field 'nesterov'; "),
    ],
)
def test_a_wrong_value_in_the_fast_recipe_is_told_in_one_sentence(assignment, sentence):
    assert complaint(assignment, recipe=FAST).startswith(sentence)


@pytest.mark.parametrize(
    "assignment", ["model={}", "model=null", "model=[1]", "schedule={}", "epochs={}", "name=[true]"]
)
def test_no_sentence_needs_a_knowledge_of_the_code(assignment):
    assert not [word for word in JARGON if word in complaint(assignment)]


def test_a_long_value_is_cut_short():
    assert len(complaint("epochs=" + "1" * 5000)) < 120
    assert len(complaint("epochs=" + "[" * 200 + "]" * 200)) < 120
    assert len(complaint("epochs=" + "[" * 100_000)) < 120


PATHS = st.lists(
    st.sampled_from([*Recipe.model_fields, "kind", "depth", "pixels", "at", "0", "1", "-1", "x", ""]),
    min_size=1,
    max_size=4,
).map(".".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["resnet", "crop", "linear", "A"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kind", "depth", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
).map(json.dumps)
ASSIGNMENTS = st.builds("{}={}".format, PATHS, JSON | st.text(max_size=8)) | st.text(st.characters(), max_size=20)


@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(st.lists(ASSIGNMENTS, max_size=3))
def test_any_text_gives_a_recipe_or_one_sentence(assignments):
    try:
        recipe = with_settings(LAB, assignments)
    except UserError:
        return
    assert parse_recipe(json.loads(json.dumps(plain(recipe), ensure_ascii=False).encode()), where="again") == recipe
