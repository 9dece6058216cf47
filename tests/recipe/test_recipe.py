import json
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from reslab.errors import UserError
from reslab.recipe.networks import FastConv, Model, Plain, PreActResNet, ResNet
from reslab.recipe.recipe import (
    Crop,
    CutMix,
    EarlyStopping,
    Extension,
    Flip,
    Freeze,
    Muon,
    Resize,
    Sampling,
    Sgd,
    Standardize,
    derive,
    parse_recipe,
    read_recipe,
)
from reslab.recipe.schema import upgrade
from reslab.recipe.settings import with_settings
from reslab.recipe.shipped import RECIPES

LAB = RECIPES["lab-resnet32"]
ROOT = Path(__file__).parents[2]
KINDS = [part.model_fields["kind"].default for part in get_args(get_args(Model)[0])]


def plain(recipe=LAB, **changes):
    """JSON of a recipe, as a file holds it."""
    return recipe.model_dump(mode="json") | changes


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


def test_what_derive_cannot_make_is_told_in_a_sentence():
    with pytest.raises(UserError, match=r"^recipe none: epochs should be greater than 0, not 0$"):
        derive(LAB, name="none", epochs=0)
    with pytest.raises(UserError, match=r"^recipe other: the weights of efficientnet_lite1 do not fit"):
        derive(LAB, name="other", pretrained="efficientnet_lite1")


def test_derive_changes_what_it_is_told_to_and_validates_again():
    other = derive(LAB, name="other", epochs=3, model=ResNet(depth=20))
    assert (other.name, other.epochs, other.model) == ("other", 3, ResNet(depth=20))
    assert derive(other, name=LAB.name, epochs=LAB.epochs, model=LAB.model, published=LAB.published) == LAB
    assert (other.published, derive(LAB, name="mine", source="me").published) == (None, LAB.published)
    with pytest.raises(ValueError, match="greater than 0"):
        derive(LAB, name="other", epochs=0)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("field", ["peak_lr", "weight_decay"])
def test_numbers_that_are_not_finite_are_refused(field, number):
    with pytest.raises(ValueError, match="finite"):
        Sgd(**{"peak_lr": 0.1, field: number})


@pytest.mark.parametrize(
    "setting",
    [
        {"model": {"kind": "fast_conv", "widths": [8, 8, 8 * 10**20]}},
        {"model": {"kind": "wide_resnet", "depth": 16, "widening": 10**9}},
        {"optimizer": {"kind": "muon", "head_lr": 1e-300}},
        {"standardize": {"mean": [0.0], "std": [1e-320]}},
        {"temperature": 1e-300},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_numbers_that_no_computation_survives_are_refused(setting):
    with pytest.raises(UserError, match=r"should be (less|greater) than or equal to"):
        parse_recipe(RECIPES["digits-quick"].model_dump(mode="json") | setting, where="a.json")


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
    with pytest.raises(ValueError, match="3 means but 1 standard deviations"):
        Standardize(mean=(1, 2, 3), std=(1,))
    with pytest.raises(ValueError, match="Nesterov's method needs a momentum above 0"):
        Sgd(peak_lr=0.1, momentum=0)
    assert Sgd(peak_lr=0.1, momentum=0, nesterov=False).momentum == 0


@pytest.mark.parametrize("epochs", [(3, 0), (0, 2, 2)])
def test_sizes_that_do_not_begin_in_order_are_refused(epochs):
    growth = tuple(Resize(epoch=epoch, image_size=16) for epoch in epochs)
    listed = ", ".join(map(str, epochs))
    with pytest.raises(
        ValueError, match=f"progressive_resizing begins its sizes in the epochs {listed}: list them in order, each"
    ):
        derive(LAB, name="unsorted", progressive_resizing=growth)


@pytest.mark.parametrize(("pixels", "fits"), [(11, True), (12, False), (40, False)])
def test_a_mirrored_edge_has_to_fit_into_the_smallest_images(pixels, fits):
    changes = {
        "progressive_resizing": (Resize(epoch=0, image_size=12),),
        "augment": (Flip(), Crop(pixels=pixels, fill="reflect")),
    }
    if fits:
        assert derive(LAB, name="fits", **changes).augment == changes["augment"]
    else:
        with pytest.raises(ValueError, match=f"images of 12 pixels cannot be mirrored {pixels} pixels wide"):
            derive(LAB, name="too wide", **changes)
    zeros = (Crop(pixels=pixels, fill="zeros"),)
    assert derive(LAB, name="zeros", **changes | {"augment": zeros}).augment == zeros


EVERYTHING = derive(
    RECIPES["fast-conv"],
    name="everything",
    resize="pad",
    channels=3,
    white=4095,
    model=FastConv(widths=(8, 16, 24)),
    optimizer=Muon(peak_lr=0.1, momentum=0.5, iterations=5, head_lr=2, bias_lr=3, other_momentum=0.7, decay=0.1),
    augment=(Flip(alternate=True), Crop(pixels=2, fill="reflect")),
    progressive_resizing=(Resize(epoch=0, image_size=9),),
    freeze=(Freeze(parameters="stem", epoch=1), Freeze(parameters="groups.0", epoch=2)),
    freeze_norms=True,
    sampling=Sampling(images_per_epoch=100, balance=0.25),
    extension=Extension(
        method="finetune-distill",
        base="0" * 64,
        num_old=10,
        num_old_sources=1,
        old_data=20,
        merge=True,
        backbone_lr=0.1,
        distill=1.5,
        temperature=3,
        redrawn=True,
    ),
    logit_adjustment=0.75,
    label_smoothing=0.1,
    mixing=(CutMix(alpha=0.5),),
    class_weights="balanced",
    early_stopping=EarlyStopping(patience=3),
    micro_batch_size=50,
    validation=200,
    trial=True,
    temperature=0.5,
    merge=True,
    skip_damaged=True,
)


def test_json_gives_back_every_field_that_is_not_at_its_default(tmp_path):
    for part in (EVERYTHING, EVERYTHING.optimizer, EVERYTHING.sampling, EVERYTHING.extension, EVERYTHING.augment[0]):
        at_default = [name for name, info in type(part).model_fields.items() if getattr(part, name) == info.default]
        absent = {"kind", "schema_version", "published", "image_size", "base_test", "coming", "keep_old"}
        if part is EVERYTHING:
            absent |= {"stream", "updates", "warm_until", "pretrained", "imported", "start"}
        assert set(at_default) <= absent
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(plain(EVERYTHING)), encoding="utf-8")
    assert read_recipe(path) == EVERYTHING
    assert hash(read_recipe(path)) == hash(EVERYTHING)


@pytest.mark.parametrize("old_data", ["all", "none", 1, 500])
def test_old_data_is_a_word_or_a_number(old_data):
    extension = plain(EVERYTHING)["extension"] | {"old_data": old_data}
    assert parse_recipe(plain(EVERYTHING, extension=extension), where="file").extension.old_data == old_data


@pytest.mark.parametrize("old_data", ["some", 0, -1, 1.5, True, None])
def test_old_data_is_no_other_word_and_no_other_number(old_data):
    extension = plain(EVERYTHING)["extension"] | {"old_data": old_data}
    with pytest.raises(UserError, match=r"^file: extension(\.|: )old_data"):
        parse_recipe(plain(EVERYTHING, extension=extension), where="file")


@pytest.mark.parametrize(("size", "grown"), [(8, 32), (32, 8), (1, 1)])
def test_images_that_are_too_small_for_the_fast_network_are_refused(size, grown):
    changes = {"model": FastConv(), "image_size": size, "progressive_resizing": (Resize(epoch=0, image_size=grown),)}
    with pytest.raises(ValueError, match=f"fast_conv needs images of 9 pixels or more, not {min(size, grown)}"):
        derive(LAB, name="small", **changes)
    assert derive(LAB, name="small", **changes | {"model": LAB.model}).image_size == size


def test_the_smallest_images_of_the_fast_network_are_taken():
    small = derive(
        LAB, name="small", model=FastConv(), image_size=9, progressive_resizing=(Resize(epoch=0, image_size=9),)
    )
    assert small.image_size == FastConv.SMALLEST_IMAGE == 9


# ---- files


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.json cannot be read as a recipe: No such file"):
        read_recipe(tmp_path / "absent.json")


def test_a_study_is_no_recipe_and_its_command_is_named(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"name": "mine", "title": "Mine", "rows": []}')
    with pytest.raises(UserError, match=r"mine\.json is a study, not a recipe: run it by reslab study run \S+mine"):
        read_recipe(path)


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
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
        ({"epoch": 3}, "file: epoch is not a known field: did you mean 'epochs'?"),
        (plain(learning_rate=0.1), "file: learning_rate is not a known field"),
        (plain(optimizer={"peak_lr": 0.1}), "file: optimizer.kind is missing"),
        (plain(optimizer={"kind": "sgd", "peak_lr": 0.1, "lr": 1}), "file: optimizer.lr is not a known field"),
        (plain(model={"depth": 20}), "file: model.kind is missing"),
        (
            plain(model={"kind": "resnet", "depth": 20, "deep": 1}),
            "file: model.deep is not a known field: did you mean 'depth'?",
        ),
        (
            plain(model={"kind": "vgg", "depth": 20}),
            f"file: model.kind should be one of {', '.join(map(repr, KINDS))}, not 'vgg'",
        ),
        (plain(model={"kind": "resnet", "depth": 21}), "file: model: depth 21 is not 6n+2; the nearest are 20 and 26"),
        (plain(augment=[{"kind": "crop", "pixels": 0}]), "file: augment.0.pixels should be greater than 0, not 0"),
        (
            plain(optimizer={"kind": "sgd", "peak_lr": float("nan")}),
            "file: optimizer.peak_lr should be a finite number, not nan",
        ),
        (plain(optimizer={"kind": "muon", "decay": 1}), "file: optimizer.decay should be less than 1, not 1"),
        (
            plain(optimizer={"kind": "muon", "nesterov": True}),
            "file: optimizer.nesterov is not a known field",
        ),
        (plain(sampling={}), "file: sampling.images_per_epoch is missing"),
        (
            plain(sampling={"images_per_epoch": 9, "balance": 2}),
            "file: sampling.balance should be less than or equal to 1, not 2",
        ),
        (plain(freeze=[{"parameters": "stem"}]), "file: freeze.0.epoch is missing"),
        (
            plain(augment=[{"kind": "flip", "alternate": "often"}]),
            "file: augment.0.alternate should be true or false, not 'often'",
        ),
        (plain(name="\ud800"), r"file: name holds text that is not valid Unicode: '\ud800'"),
        (plain(schema_version=0), "file: schema_version should be 2, not 0"),
        (plain(schema_version="1"), "file: schema_version should be 2, not '1'"),
    ],
)
def test_what_does_not_fit_is_named_in_the_words_of_the_file(content, sentence):
    with pytest.raises(UserError) as error:
        parse_recipe(content, where="file")
    assert str(error.value) == sentence


COMMITTED = sorted(
    path
    for folder in ("results", "tests/fixtures")
    for path in (ROOT / folder).rglob("recipe.json")
    if json.loads(path.read_text(encoding="utf-8"))["schema_version"] == 1
)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_committed_recipes_are_read(path):
    """An older schema: each field holds what the file says, under its name of today."""
    content = json.loads(path.read_text(encoding="utf-8"))
    recipe = read_recipe(path)
    assert recipe.schema_version == 2
    found = plain(recipe)
    assert found["progressive_resizing"] == content.get("growth", [])
    assert found["micro_batch_size"] == content.get("chunk_size")
    if content["standardize"]:
        assert found["standardize"] == {
            "mean": content["standardize"]["mean"],
            "std": content["standardize"]["deviation"],
        }
    same = content.keys() & found.keys() - {"schema_version", "standardize"}
    assert {"name", "model", "optimizer", "schedule", "epochs"} <= same
    for name in same:
        known = type(recipe).model_validate(found | {name: content[name]})  # older files leave defaults out
        assert known == recipe
    assert parse_recipe(found, where="again") == recipe


def test_schema_1_is_renamed_and_nothing_else():
    old = {"growth": [1], "chunk_size": 2, "standardize": {"mean": [1], "deviation": [2]}, "average": None, "epochs": 3}
    new = {"progressive_resizing": [1], "micro_batch_size": 2, "standardize": {"mean": [1], "std": [2]}, "epochs": 3}
    for version in ({}, {"schema_version": 1}):
        assert upgrade(old | version) == upgrade(new | version) == new | {"schema_version": 2}
    assert upgrade({"model": {"growth": 12}})["model"] == {"growth": 12}
    for content in (old | {"schema_version": 2}, old | {"schema_version": True}, [old], None):
        assert upgrade(content) == content


@pytest.mark.parametrize(("name", "term"), [("average", "EMA"), ("selection", "selective backprop")])
def test_removed_fields_are_read_where_they_were_unset(name, term):
    assert parse_recipe(plain(LAB, schema_version=1, **{name: None}), where="file") == LAB
    sentence = f"^file: {name} is {{…}}; {term}: no shipped recipe gained from it, so reslab no longer has it: omit it$"
    with pytest.raises(UserError, match=sentence):
        parse_recipe(plain(LAB, schema_version=1, **{name: {"epoch": 3}}), where="file")


def test_a_newer_schema_is_refused_by_its_number():
    with pytest.raises(UserError, match="file has recipe schema 3, this reslab reads up to 2: upgrade"):
        parse_recipe(plain(schema_version=3, something_new=True), where="file")
