import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from reslab.errors import UserError
from reslab.recipe import (
    Crop,
    Flip,
    Growth,
    Linear,
    Plain,
    PreActResNet,
    Recipe,
    ResNet,
    Sgd,
    Standardize,
    Steps,
    derive,
    parse_recipe,
    read_recipe,
)
from reslab.recipes import RECIPES
from reslab.settings import with_settings

LAB = RECIPES["lab-resnet32"]
JARGON = ("pydantic", "tuple", "dictionary", "discriminator", "tag", "Input", "None", "True", "Extra", "preact_resnet.")


def plain(recipe=LAB, **changes):
    """JSON of a recipe, as a file holds it."""
    return recipe.model_dump(mode="json") | changes


def complaint(*assignments, recipe=LAB):
    with pytest.raises(UserError) as error:
        with_settings(recipe, assignments)
    return str(error.value)


# ---- the value


@pytest.mark.parametrize("name", RECIPES)
def test_json_gives_back_the_same_value(name, tmp_path):
    recipe = RECIPES[name]
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe.model_dump(mode="json")), encoding="utf-8")
    assert read_recipe(path) == recipe
    assert hash(read_recipe(path)) == hash(recipe)
    assert with_settings(recipe, []) == recipe


@pytest.mark.parametrize(
    ("part", "field"), [(LAB, "epochs"), (LAB.model, "depth"), (LAB.optimizer, "peak_lr"), (LAB.augment[0], "kind")]
)
def test_nothing_in_a_recipe_can_be_changed(part, field):
    with pytest.raises(ValidationError):
        setattr(part, field, getattr(part, field))


def test_derive_changes_what_it_is_told_to_and_validates_again():
    other = derive(LAB, name="other", epochs=3, model=ResNet(depth=20))
    assert (other.name, other.epochs, other.model) == ("other", 3, ResNet(depth=20))
    assert derive(other, name=LAB.name, epochs=LAB.epochs, model=LAB.model) == LAB
    with pytest.raises(ValueError, match="greater than 0"):
        derive(LAB, name="other", epochs=0)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("field", ["peak_lr", "weight_decay"])
def test_numbers_that_are_not_finite_are_refused(field, number):
    with pytest.raises(ValueError, match="finite"):
        Sgd(**{"peak_lr": 0.1, field: number})


@pytest.mark.parametrize(
    ("depth", "nearest"), [(9, "8 and 14"), (13, "8 and 14"), (33, "32 and 38"), (37, "32 and 38")]
)
def test_a_wrong_depth_names_the_nearest_right_ones(depth, nearest):
    with pytest.raises(ValueError, match=f"depth {depth} is not 6n\\+2; the nearest are {nearest}"):
        PreActResNet(depth=depth)


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56, 110, 1202])
def test_depths_of_6n_plus_2_are_taken(depth):
    assert Plain(depth=depth).depth == depth


@pytest.mark.parametrize("depth", [-4, 0, 2, 7])
def test_depths_below_8_are_refused(depth):
    with pytest.raises(ValueError, match="depth"):
        Plain(depth=depth)


def test_parts_that_contradict_themselves_are_refused():
    with pytest.raises(ValueError, match="3 means but 1 deviations"):
        Standardize(mean=(1, 2, 3), deviation=(1,))
    with pytest.raises(ValueError, match="Nesterov's method needs a momentum above 0"):
        Sgd(peak_lr=0.1, momentum=0)
    assert Sgd(peak_lr=0.1, momentum=0, nesterov=False).momentum == 0


@pytest.mark.parametrize(("pixels", "fits"), [(11, True), (12, False), (40, False)])
def test_a_mirrored_edge_has_to_fit_into_the_smallest_images(pixels, fits):
    changes = {"growth": (Growth(epoch=0, image_size=12),), "augment": (Flip(), Crop(pixels=pixels, fill="reflect"))}
    if fits:
        assert derive(LAB, name="fits", **changes).augment == changes["augment"]
    else:
        with pytest.raises(ValueError, match=f"images of 12 pixels cannot be mirrored {pixels} pixels wide"):
            derive(LAB, name="too wide", **changes)
    zeros = (Crop(pixels=pixels, fill="zeros"),)
    assert derive(LAB, name="zeros", **changes | {"augment": zeros}).augment == zeros


# ---- files


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.json cannot be read as a recipe: No such file"):
        read_recipe(tmp_path / "absent.json")


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(UserError, match="cannot be read as a recipe: Is a directory"):
        read_recipe(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"epochs: 3", b"\x80\x04\x95", b"[" * 100_000, b"{}x"])
def test_a_file_that_is_not_json_is_refused(content, tmp_path):
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"r\.json is not a recipe in JSON"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([1], "file: it should be an object with fields, not […]"),
        (None, "file: it should be an object with fields, not null"),
        ({}, "file: name is missing"),
        (plain(learning_rate=0.1), "file: learning_rate is not a known field"),
        (plain(optimizer={"peak_lr": 0.1, "lr": 1}), "file: optimizer.lr is not a known field"),
        (plain(model={"depth": 20}), "file: model.kind is missing"),
        (plain(model={"kind": "resnet", "depth": 20, "deep": 1}), "file: model.deep is not a known field"),
        (
            plain(model={"kind": "vgg", "depth": 20}),
            "file: model.kind should be one of 'preact_resnet', 'resnet', 'plain', 'elu_resnet', not 'vgg'",
        ),
        (plain(model={"kind": "resnet", "depth": 21}), "file: model: depth 21 is not 6n+2; the nearest are 20 and 26"),
        (plain(augment=[{"kind": "crop", "pixels": 0}]), "file: augment.0.pixels should be greater than 0, not 0"),
        (plain(optimizer={"peak_lr": float("nan")}), "file: optimizer.peak_lr should be a finite number, not nan"),
        (plain(name="\ud800"), r"file: name holds text that is not valid Unicode: '\ud800'"),
        (plain(schema_version=0), "file: schema_version should be 1, not 0"),
        (plain(schema_version="1"), "file: schema_version should be 1, not '1'"),
    ],
)
def test_what_does_not_fit_is_named_in_the_words_of_the_file(content, sentence):
    with pytest.raises(UserError) as error:
        parse_recipe(content, where="file")
    assert str(error.value) == sentence


def test_a_newer_schema_is_refused_by_its_number():
    with pytest.raises(UserError, match="file has recipe schema 2, this reslab reads up to 1: upgrade"):
        parse_recipe(plain(schema_version=2, something_new=True), where="file")


# ---- --set


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
        ('growth=[{"epoch": 0, "image_size": 16}]', {"growth": (Growth(epoch=0, image_size=16),)}),
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
            "--set model.kind: unknown kind 'sgd'; choose from preact_resnet, resnet, plain, elu_resnet",
        ),
        ("schedule.kind=[1]", "--set schedule.kind: unknown kind […]; choose from steps, linear, cosine"),
        ("augment.7.pixels=1", "--set augment.7.pixels: unknown field '7'; it has 0, 1"),
        ("augment.²=1", "--set augment.²: unknown field '²'; it has 0, 1"),
        ("augment.-1=1", "--set augment.-1: unknown field '-1'; it has 0, 1"),
        ("growth.0.epoch=1", "--set growth.0.epoch: there is nothing called '0' in it, it holds []"),
        ("standardize.kind=x", "--set standardize.kind: unknown field 'kind'; it has mean, deviation"),
        ("published.low=1", "--set published.low: there is nothing called 'low' in it, it holds null"),
        ("warm_until.factor=1", "--set warm_until.factor: there is nothing called 'factor' in it, it holds null"),
        ("name.kind=x", "--set name.kind: there is nothing called 'kind' in it, it holds 'lab-resnet32'"),
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
        ("schema_version=2", "--set has recipe schema 2, this reslab reads up to 1: upgrade it"),
    ],
)
def test_a_wrong_value_is_told_in_one_sentence(assignment, sentence):
    assert complaint(assignment) == sentence


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
