"""Every method on the digits: what it leaves, what it keeps, that it repeats and resumes; and what is refused."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reslab import models
from reslab.data.load import load
from reslab.data.packing import pack
from reslab.data.recipe_data import read_split
from reslab.errors import Failure, UserError
from reslab.evaluation import evaluate
from reslab.extension import METHODS, extend, extender, resume_extension
from reslab.extension.memory import remember
from reslab.extension.methods import MOST_DRAWN, check_method, complete, default_method, derive_recipe
from reslab.extension.planning import with_own_settings
from reslab.network.network import Network
from reslab.recipe.networks import EfficientNetLite, FastConv, Fusion
from reslab.recipe.recipe import (
    EarlyStopping,
    Extension,
    Freeze,
    LinearHead,
    Method,
    Mixup,
    Recipe,
    Standardize,
    Steps,
    derive,
)
from reslab.recipe.shipped import RECIPES
from reslab.records import Weights
from reslab.runs import Run, read_weights
from reslab.training import resume, train
from reslab.training.freezing import check_freezing
from reslab.training.loop import Trainer

NEW = "digits:0,8@20"
FLAT = Standardize(mean=(0.0,), std=(1.0,))
BLENDED: dict[str, Any] = {  # of a run of fit that trained a network beside the pretrained one
    "image_size": 32,
    "model": Fusion(base=FastConv(widths=(8, 16, 16)), pretrained=EfficientNetLite()),
    "pretrained": "efficientnet_lite0",
    "optimizer": LinearHead(penalty=1.0),
    "freeze": (Freeze(parameters="stem", epoch=1),),
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_leaves_a_run_like_any_other(method: str, base: Run, tmp_path: Path) -> None:
    made = extend(base.path, data=NEW, out=tmp_path / "more", method=method, seed=3)
    assert made.is_finished
    assert made.recipe.data == f"digits:1,4,7@40+{NEW}"
    assert made.recipe.extension is not None
    assert made.recipe.extension.base == hashlib.sha256(base.weights_path.read_bytes()).hexdigest()
    assert made.base_path.read_bytes() == base.weights_path.read_bytes()
    assert read_weights(made.path)[1].classes == ("1", "4", "7", "0", "8")
    assert [data.split for data in made.environment.data] == ["train", "validation"]
    assert len(made.prior.curve) == 11
    assert len(made.log) == made.recipe.epochs
    figures = evaluate(made, splits=("test",)).splits["test"]
    assert figures.num_images == len(load("digits:1,4,7,0,8", "test", image_size=8).labels)
    assert figures.accuracy.value > 0.5  # five classes
    assert resume_extension(made.path).weights_path.read_bytes() == made.weights_path.read_bytes()


def test_a_head_whose_loss_is_not_finite_fails_with_what_to_lower(base: Run, tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"the loss is not finite in epoch 1: lower optimizer\.peak_lr \(now 1e\+38\)"):
        extend(base.path, data=NEW, out=tmp_path / "more", method="frozen", settings=("optimizer.peak_lr=1e38",))


@pytest.mark.parametrize("method", [name for name, about in METHODS.items() if about.on_features])
def test_a_frozen_backbone_does_not_move_nor_do_its_running_statistics(method: str, base: Run, tmp_path: Path) -> None:
    made = extend(base.path, data=NEW, out=tmp_path / "more", method=method)
    before, after = read_weights(base.path)[0], read_weights(made.path)[0]
    place = "base." if method == "fusion" else ""
    for name in before:
        if not name.startswith("head."):
            np.testing.assert_array_equal(before[name], after[place + name], err_msg=name)


def test_what_is_set_is_how_the_method_trains(base: Run, tmp_path: Path) -> None:
    settings = ["epochs=2", "optimizer.peak_lr=0.01"]
    made = extend(base.path, data=NEW, out=tmp_path / "more", method="frozen", settings=settings)
    assert len(made.log) == made.recipe.epochs == 2
    assert made.recipe.optimizer.peak_lr == 0.01


def test_fewer_epochs_still_end_at_full_size() -> None:
    recipe = with_own_settings(RECIPES["lab-resnet32-short"], ("epochs=2",))
    assert (recipe.epochs, recipe.image_size_at(1)) == (2, 32)


@pytest.mark.parametrize(
    ("method", "setting", "said"),
    [
        ("frozen", "updates=5", "--set updates: frozen takes only epochs"),
        ("frozen", 'sampling={"images_per_epoch": 9, "balance": 1}', "--set sampling: frozen takes only"),
        ("frozen", "optimizer.momentum=0.5", "frozen uses only optimizer.peak_lr"),
        ("frozen-balanced", 'augment=[{"kind": "crop", "pixels": 1}]', "can only mirror"),
        ("nearest-mean", "epochs=5", "--set epochs: nearest-mean takes only augment"),
    ],
)
def test_a_setting_that_a_method_ignores_is_refused(
    small_recipe: Recipe, method: Method, setting: str, said: str
) -> None:
    recipe = derive(small_recipe, name="head", extension=Extension(method=method, base="", num_old=2), augment=())
    assert with_own_settings(recipe, ("label_smoothing=0.1",) if method == "frozen" else ()).augment == ()
    with pytest.raises(UserError, match=said):
        with_own_settings(recipe, (setting,))


def test_a_head_leaves_mixing_and_class_weights_behind(small_recipe: Recipe) -> None:
    base = derive(small_recipe, name="mixed", mixing=(Mixup(),), class_weights="balanced")
    weights = Weights(model=base.model, classes=("a", "b"), channels=1, image_size=8, standardize=FLAT)
    recipe = derive_recipe(
        base, trained=1, weights=weights, extension=Extension(method="frozen", base="", num_old=2), data="x"
    )
    assert (recipe.mixing, recipe.class_weights) == ((), None)
    tuned = derive(base, name="tuned", extension=Extension(method="finetune", base="", num_old=2))
    assert complete(tuned, num_images=100, validation=10, trial=False).class_weights is None


@pytest.mark.parametrize(("num_images", "epochs"), [(50_000, 13), (1000, 90), (10**6, 2)])
def test_a_base_that_was_trained_for_long_does_not_prolong_its_extension(
    num_images: int, epochs: int, small_recipe: Recipe
) -> None:
    extension = Extension(method="finetune-distill", base="", num_old=2)
    draft = derive(small_recipe, name="long", epochs=90, extension=extension)
    fitted = complete(draft, num_images=num_images, validation=num_images // 10, trial=False)
    assert fitted.epochs == epochs
    assert fitted.sampling is not None
    assert fitted.sampling.images_per_epoch * (epochs - 1) < max(MOST_DRAWN, num_images)


def test_minutes_shorten_a_training_that_would_take_longer(base: Run, tmp_path: Path) -> None:
    settings = ["epochs=1000"]
    made = extend(base.path, data=NEW, out=tmp_path / "more", settings=settings, minutes=0.03)
    assert made.recipe.updates is not None
    assert len(made.log) == made.recipe.epochs < 1000
    with pytest.raises(UserError, match="has no training that could be shortened: omit --minutes"):
        extend(base.path, data=NEW, out=tmp_path / "no", method="frozen", minutes=1)


@pytest.mark.parametrize("name", ["model.safetensors", "recipe.json", "environment.json"])
def test_a_damaged_base_is_told_in_a_sentence_and_leaves_no_folder(name: str, base: Run, tmp_path: Path) -> None:
    shutil.copytree(base.path, tmp_path / "base")
    damaged = tmp_path / "base" / name
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"base/{name} "):
        extend(tmp_path / "base", data=NEW, out=tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_a_tuned_backbone_moves_less_than_its_head(base: Run, tmp_path: Path) -> None:
    made = extend(base.path, data=NEW, out=tmp_path / "more", method="finetune")
    before, after = read_weights(base.path)[0], read_weights(made.path)[0]
    assert any((before[name] != after[name]).any() for name in before if not name.startswith("head."))
    moved = np.abs(after["head.weight"][:3] - before["head.weight"]).max()
    assert 0 < moved < np.abs(before["head.weight"]).max()  # the old rows are where they were, by and large


@pytest.mark.parametrize(("data", "old_data", "has_old"), [("0", 20, True), ("0", "none", False), ("0,8", 20, False)])
def test_a_single_new_class_starts_from_its_difference_to_the_old_images(
    data: str, old_data: str | int, has_old: bool, base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(head: Any, *, old_features: torch.Tensor | None, **options: object) -> None:
        raise Failure(str(old_features is not None))

    monkeypatch.setattr("reslab.extension.heads.imprint", stop)
    with pytest.raises(Failure, match=str(has_old)):
        extend(base.path, data=f"digits:{data}@20", out=tmp_path / "more", old_data=old_data)


def test_the_chosen_prior_is_in_the_head(base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = extend(base.path, data=NEW, out=tmp_path / "with", method="frozen")
    monkeypatch.setattr(extender, "choose_prior", lambda *_, **__: made.prior.model_copy(update={"tau": 0.0}))
    plain = extend(base.path, data=NEW, out=tmp_path / "without", method="frozen")
    monkeypatch.setattr(extender, "choose_prior", lambda *_, **__: made.prior.model_copy(update={"tau": 1.0}))
    balanced = extend(base.path, data=NEW, out=tmp_path / "balanced", method="frozen")
    counts = np.array(load(made.recipe.data, "train", image_size=8).counts())
    held_out = np.array([4, 4, 4, 2, 2])  # a tenth and a bit, as the base did: 9 of 120
    moved = read_weights(balanced.path)[0]["head.bias"] - read_weights(plain.path)[0]["head.bias"]
    share = np.log(counts / counts.sum())
    assert np.abs((moved - moved[0]) - (share[0] - share)).max() < np.log(held_out.max())
    assert moved[3] > moved[0]


def test_a_run_repeats_to_the_same_bytes_and_another_seed_does_not(base: Run, tmp_path: Path) -> None:
    bytes_of = [
        extend(base.path, data=NEW, out=tmp_path / name, method="finetune-distill", seed=seed).weights_path.read_bytes()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert bytes_of[0] == bytes_of[1] != bytes_of[2]


@pytest.mark.parametrize("method", ["finetune-distill", "finetune-fusion", "weight-align", "joint", "frozen"])
def test_an_interrupted_extension_is_finished_to_the_same_bytes(
    method: str, base: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = extend(base.path, data=NEW, out=tmp_path / "whole", method=method).weights_path.read_bytes()

    def stop(*_: object) -> None:
        raise Failure("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_close_epoch", stop)
        patch.setattr(Run, "write_prior", stop)
        with pytest.raises(Failure, match="stopped"):
            extend(base.path, data=NEW, out=tmp_path / "cut", method=method)
    assert not Run.open(tmp_path / "cut").is_finished
    assert resume_extension(tmp_path / "cut").weights_path.read_bytes() == whole


def test_an_extended_run_can_be_extended_again(small_recipe: Recipe, tmp_path: Path) -> None:
    base = train(small_recipe, out=tmp_path / "base", seed=4)  # of so short runs, some learn little
    once = extend(base.path, data="digits:0@20", out=tmp_path / "once", method="nearest-mean")
    twice = extend(once.path, data="digits:8@20", out=tmp_path / "twice", method="finetune-distill")
    assert twice.recipe.data == "digits:1,4,7@40+digits:0@20+digits:8@20"
    assert twice.recipe.extension is not None
    assert twice.recipe.extension.num_old == 4
    assert read_weights(twice.path)[1].classes == ("1", "4", "7", "0", "8")
    assert evaluate(twice, splits=("test",)).splits["test"].accuracy.value > 0.5


def test_the_base_and_the_extension_hold_out_the_same_old_images(base: Run, tmp_path: Path) -> None:
    made = extend(base.path, data="digits:0@40", out=tmp_path / "more", method="nearest-mean")
    held = read_split(base.recipe, "validation")
    trained = read_split(made.recipe, "train")
    again = {image.tobytes() for image in trained.images.numpy()}
    assert not any(image.tobytes() in again for image in held.images.numpy())


@pytest.mark.parametrize("method", ["finetune-distill", "weight-align"])
def test_without_old_images_the_old_classes_are_not_forgotten_at_once(method: str, base: Run, tmp_path: Path) -> None:
    made = extend(base.path, data=NEW, out=tmp_path / "more", method=method, old_data="none")
    assert made.recipe.data == f"digits:1,4,7@0+{NEW}"
    assert made.prior.tau == 1
    assert made.prior.curve == ()
    recall = [figures.recall.value for figures in evaluate(made, splits=("test",)).splits["test"].per_class]
    assert np.mean(recall[:3]) > 0.2


def test_a_few_old_images_are_enough_to_ask_for(base: Run, tmp_path: Path) -> None:
    made = extend(base.path, data=NEW, out=tmp_path / "more", method="weight-align", old_data=5)
    assert made.recipe.data == f"digits:1,4,7@5+{NEW}"
    assert sum(data.num_images for data in made.environment.data) == 3 * 5 + 2 * 20


def test_equal_names_are_one_class_only_where_that_is_said(base: Run, tmp_path: Path) -> None:
    for name in ("4", "dot"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    archive = tmp_path / "more.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8), dtype=np.uint8)
    np.savez(archive, images=pixels, labels=np.arange(24) % 2, classes=np.array(["4", "dot"]))
    with pytest.raises(UserError, match=r"'4'.*twice.*merge"):
        extend(base.path, data=f"npz:{archive}", out=tmp_path / "no", method="nearest-mean")
    made = extend(base.path, data=f"npz:{archive}", out=tmp_path / "yes", method="nearest-mean", merge=True)
    assert read_weights(made.path)[1].classes == ("1", "4", "7", "dot")


def test_more_pictures_of_an_old_class_do_not_change_what_is_held_out_of_it(base: Run, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "more.npz", images=pixels, labels=np.arange(24) % 2, classes=np.array(["4", "dot"]))
    data = f"npz:{tmp_path / 'more.npz'}"
    made = extend(base.path, data=data, out=tmp_path / "more", method="nearest-mean", merge=True)
    learned = {image.tobytes() for image in read_split(base.recipe, "train").images.numpy()}
    held = read_split(made.recipe, "validation")
    assert held.counts() == [3, 4, 3, 1]
    assert not any(image.tobytes() in learned for image in held.images.numpy())


@pytest.fixture
def pets(small_recipe: Recipe, tmp_path: Path) -> Run:
    """A base of two classes whose pictures can be changed, train/ and test/ apart, and evaluated."""
    for split, num in (("train", 12), ("test", 4)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for number in range(num):
                draw(
                    tmp_path / "pets" / split / name / f"{number}.png",
                    shade=100 * label + 20 * (split == "test") + number,
                )
    recipe = derive(small_recipe, name="pets", data=f"folder:{tmp_path / 'pets'}", validation=4, standardize=None)
    run = train(recipe, out=tmp_path / "base")
    evaluate(run, splits=("test",))
    return run


def draw(path: Path, *, shade: int) -> None:
    Image.fromarray(np.full((8, 8, 3), shade, dtype=np.uint8)).save(path)


def new_class(path: Path) -> str:
    for split in ("train", "test"):
        (path / split / "fox").mkdir(parents=True)
        for number in range(5):
            draw(path / split / "fox" / f"{number}.png", shade=230 + number)
    return f"folder:{path}"


def test_a_base_whose_training_pictures_have_changed_is_refused(pets: Run, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"pets/train/dog/{number}.png").rename(tmp_path / f"pets/test/dog/moved{number}.png")
    with pytest.raises(
        UserError,
        match=r"split of folder:\S+pets has changed: its fingerprint was \w{12}… and is .*; \S+base has learned from 3 "
        r"of the 11 pictures that are test images now: train it again",
    ):
        extend(pets.path, data=new_class(tmp_path / "new"), out=tmp_path / "more", method="nearest-mean")
    assert not (tmp_path / "more").exists()


def test_damaged_pictures_of_new_classes_are_left_out_on_request(pets: Run, tmp_path: Path) -> None:
    data = new_class(tmp_path / "new")
    (tmp_path / "new/train/fox/3.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"fox/3.png cannot be read .*--skip-damaged"):
        extend(pets.path, data=data, out=tmp_path / "no", method="nearest-mean")
    made = extend(pets.path, data=data, out=tmp_path / "yes", method="nearest-mean", skip_damaged=True)
    assert {each.num_damaged for each in made.environment.data} == {1}


def test_an_extension_is_not_measured_on_other_test_pictures_than_its_base(pets: Run, tmp_path: Path) -> None:
    data = new_class(tmp_path / "new")
    same = extend(pets.path, data=data, out=tmp_path / "same", method="nearest-mean")
    assert evaluate(same, splits=("test",)).extension is not None
    draw(tmp_path / "pets" / "test" / "cat" / "3.png", shade=255)
    made = extend(pets.path, data=data, out=tmp_path / "more", method="nearest-mean")
    with pytest.raises(UserError, match=r"old classes are not those that the base .* fingerprint was \w{12}… and is"):
        evaluate(made, splits=("test",))


def test_old_classes_stay_as_frequent_as_in_the_base_though_few_of_their_images_are_used(
    base: Run, tmp_path: Path
) -> None:
    counts = load(base.recipe.data, "train", image_size=8).counts()
    made = extend(base.path, data=NEW, out=tmp_path / "base-prior", method="frozen", old_data=20)
    assert made.recipe.extension is not None
    assert made.recipe.extension.coming == (*counts, 20, 20)
    used = extend(base.path, data=NEW, out=tmp_path / "used", method="frozen", old_data=20, prior="used")
    assert used.recipe.extension is not None
    assert used.recipe.extension.coming is None
    assert used.prior.is_flat  # as many images of each class
    told = extend(base.path, data=NEW, out=tmp_path / "told", method="frozen", prior="3")
    assert told.recipe.extension is not None
    assert told.recipe.extension.coming == (3, 3, 3, 1, 1)


@pytest.mark.parametrize(
    ("data", "changes", "sentence"),
    [
        ("digits:4,5", {}, "base has learned 4 already, from the same images: leave that out of digits:4,5"),
        ("digits:99", {}, "'99' is not a class of digits"),
        ("digits:0@1", {}, "class '0' has 1 training image"),
        ("digits:0@5+digits:8,9@0", {}, "has no training images of 8 and 9: raise its limit of 0"),
        ("digits:0", {"prior": "test"}, "--prior test: choose from base, used, or write a whole number"),
        ("digits:0", {"prior": "0"}, "--prior 0: choose from base"),
        (
            "digits:0",
            {"prior": "10", "old_data": "none"},
            "finetune-distill has none with --old-data none: omit --prior",
        ),
        ("digits:0", {"method": "freeze"}, "unknown method 'freeze': did you mean 'frozen'?"),
        ("digits:0", {"method": "magic"}, "unknown method 'magic': choose from frozen, "),
        ("digits:0", {"keep_old": "exact"}, "finetune-distill changes the old classes' logits: choose --method fusion"),
        (
            "digits:0",
            {"settings": ["validation=3"]},
            "--set validation: an extension takes it from its base and its data",
        ),
        ("digits:0", {"method": "fusion", "settings": ["epochs=3"]}, "fusion solves its head and trains nothing"),
        ("digits:0", {"method": "fusion", "keep_old": "all"}, "--keep-old all: write exact"),
        ("digits:0", {"method": "frozen", "old_data": "none"}, "or take finetune-distill or weight-align"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_folder(
    data: str, changes: dict[str, Any], sentence: str, base: Run, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        extend(base.path, data=data, out=tmp_path / "more", **changes)
    assert not (tmp_path / "more").exists()


def test_the_pictures_of_the_base_are_not_new(base: Run, tmp_path: Path) -> None:
    shutil.copytree(base.path, tmp_path / "base")
    again = Run.open(tmp_path / "base")
    again.write_recipe(again.recipe.model_copy(update={"data": f"folder:{tmp_path}/pets"}))
    with pytest.raises(
        UserError, match=r"base has learned .* already, from the same images: leave that out of folder:"
    ):
        extend(again.path, data=f"folder:{tmp_path}/pets/@5", out=tmp_path / "more")


def test_pictures_of_other_channels_become_what_the_base_takes(base: Run, tmp_path: Path, official: Path) -> None:
    data = "cifar100:reptiles"
    made = extend(base.path, data=data, out=tmp_path / "more", method="nearest-mean", data_dir=official)
    assert Network.load(made.path).channels == 1


def test_an_unfinished_base_is_refused(base: Run, tmp_path: Path) -> None:
    shutil.copytree(base.path, tmp_path / "base")
    (tmp_path / "base/model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no finished network"):
        extend(tmp_path / "base", data=NEW, out=tmp_path / "more")


def test_train_does_not_go_on_with_an_extension_nor_extend_with_a_training(base: Run, tmp_path: Path) -> None:
    made = extend(base.path, data=NEW, out=tmp_path / "more", method="nearest-mean")
    with pytest.raises(UserError, match="reslab extend --resume"):
        resume(made.path)
    with pytest.raises(UserError, match="reslab train --resume"):
        resume_extension(base.path)
    with pytest.raises(UserError, match=r"extends another network by nearest-mean, .*: use reslab extend BASE --with"):
        train(made.recipe, out=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_base_that_stopped_early_is_extended_and_joint_stops_early_too(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = EarlyStopping(patience=1)
    base = train(derive(small_recipe, name="early", early_stopping=stopping), out=tmp_path / "base")
    made = extend(base.path, data=NEW, out=tmp_path / "more", method="nearest-mean")
    assert made.recipe.early_stopping is None

    def worsen(trainer: Trainer) -> dict[str, float]:
        return {"validation_loss": 1.0, "validation_accuracy": 1 / (1 + trainer.state.epochs)}

    monkeypatch.setattr(Trainer, "_validate", worsen)
    joint = extend(base.path, data=NEW, out=tmp_path / "joint", method="joint")
    assert joint.recipe.early_stopping == stopping
    assert len(joint.log) == 2
    kept, checkpoint = read_weights(joint.path)[0], joint.read_checkpoint().tensors
    name = next(name for name in kept if name.endswith("weight") and not name.startswith("head."))
    np.testing.assert_array_equal(kept[name], checkpoint[f"best.{name}"])
    assert (kept[name] != checkpoint[f"model.{name}"]).any()


def test_a_base_that_was_streamed_from_shards_is_extended_in_memory(small_recipe: Recipe, tmp_path: Path) -> None:
    pack("digits:1,4,7@40", str(tmp_path / "packed"), image_size=8, images_per_shard=16)
    recipe = derive(small_recipe, name="streamed", data=f"shards:{tmp_path / 'packed'}", stream=48)
    base = train(recipe, out=tmp_path / "base")
    evaluate(base, splits=("test",))
    made = extend(base.path, data=NEW, out=tmp_path / "more", method="nearest-mean")
    assert made.recipe.stream is None
    assert evaluate(made, splits=("test",)).extension is not None


def test_joint_trains_from_scratch_also_where_the_base_started_from_other_weights(
    base: Run, small_recipe: Recipe, tmp_path: Path
) -> None:
    started = train(derive(small_recipe, name="started", epochs=1), out=tmp_path / "started", start=base.path)
    assert started.recipe.start is not None
    made = extend(started.path, data=NEW, out=tmp_path / "more", method="joint")
    assert made.is_finished
    assert made.recipe.start is None


def test_the_rate_of_joint_falls_however_many_images_there_are() -> None:
    base = RECIPES["resnet-20"]
    assert base.standardize is not None
    weights = Weights(model=base.model, classes=("a", "b"), channels=3, image_size=32, standardize=base.standardize)
    extension = Extension(method="joint", base="", num_old=2, old_data=20)
    joint = derive_recipe(base, trained=base.epochs, weights=weights, extension=extension, data="x")
    assert (joint.epochs, joint.updates) == (164, None)
    assert joint.schedule == Steps(at=(82, 123), factor=0.1)  # in epochs, instead of 32,000 and 48,000 updates


def test_joint_refuses_a_blend_with_a_pretrained_network(base: Run, small_recipe: Recipe, tmp_path: Path) -> None:
    shutil.copytree(base.path, tmp_path / "base")
    Run(tmp_path / "base").write_recipe(derive(small_recipe, name="fit", **BLENDED))
    with pytest.raises(UserError, match=r"base blends a trained network with a pretrained one, .*: choose another"):
        extend(tmp_path / "base", data=NEW, out=tmp_path / "more", method="joint")


@pytest.mark.parametrize("origin", ["fusion", "fit"])
@pytest.mark.parametrize(
    ("method", "frozen"),
    [
        ("finetune", "base.stem"),
        ("finetune-distill", "base.stem"),
        ("weight-align", "base.stem"),
        ("finetune-fusion", "stem"),
    ],
)
def test_layers_that_the_base_froze_stay_frozen_in_a_fused_network(
    method: Any, frozen: str, origin: str, base: Run, small_recipe: Recipe
) -> None:
    blended = derive(small_recipe, name="fit", **BLENDED)
    assert isinstance(blended.model, Fusion)
    alone = {"model": blended.model.base, "pretrained": None, "optimizer": small_recipe.optimizer}
    recipe = derive(blended, name="base", **alone) if origin == "fusion" else blended
    tuned = blended.model if method != "finetune-fusion" else blended.model.base
    weights = read_weights(base.path)[1].model_copy(update={"model": tuned, "image_size": 32})
    extension = Extension(method=method, base="", num_old=3)
    planned = derive_recipe(recipe, trained=recipe.epochs, weights=weights, extension=extension, data=NEW)
    assert planned.freeze == (Freeze(parameters=frozen, epoch=0),)
    assert planned.freeze_norms == (origin == "fit")  # the statistics of few pictures would replace those of ImageNet
    check_freezing(models.build(tuned, num_classes=5, channels=1), planned.freeze, epochs=planned.epochs)


def test_layers_that_the_base_never_froze_are_trained(base: Run, small_recipe: Recipe, tmp_path: Path) -> None:
    """Its training ended, by early stopping for example, before their turn came."""
    late = (Freeze(parameters="stem", epoch=2), Freeze(parameters="", epoch=3))
    shutil.copytree(base.path, tmp_path / "base")
    Run(tmp_path / "base").write_recipe(derive(small_recipe, name="late", epochs=9, freeze=late))
    made = extend(tmp_path / "base", data=NEW, out=tmp_path / "more", method="finetune", settings=("epochs=1",))
    assert len(base.log) == 3
    assert made.recipe.freeze == (Freeze(parameters="stem", epoch=0),)


@pytest.mark.parametrize("size", [0, 1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_a_base_of_any_pretrained_network_can_be_extended(method: Method, size: Any, small_recipe: Recipe) -> None:
    """Fused with another one, or extended after that."""
    name, network = f"efficientnet_lite{size}", EfficientNetLite(size=size)
    base = derive(small_recipe, name="fit", image_size=32, model=network, pretrained=name)
    fused = Fusion(base=network, pretrained=EfficientNetLite(size=0))
    for model in (network, fused):
        weights = Weights(model=model, classes=("a", "b"), channels=1, image_size=32, standardize=FLAT)
        extension = Extension(method=method, base="", num_old=2)
        planned = derive_recipe(base, trained=3, weights=weights, extension=extension, data=NEW)
        first = planned.model.pretrained if isinstance(planned.model, Fusion) else planned.model
        assert planned.pretrained == (name if first.size == size else None)


def test_a_pretrained_network_is_not_trained_unless_asked_for(small_recipe: Recipe) -> None:
    fused = Fusion(base=FastConv(), pretrained=EfficientNetLite())
    assert default_method(small_recipe) == "finetune-distill"
    assert default_method(derive(small_recipe, name="fit", optimizer=LinearHead(penalty="chosen"))) == "fusion"
    assert default_method(derive(small_recipe, name="joined", model=fused, image_size=32)) == "fusion"


def test_every_method_without_need_of_old_images_says_so() -> None:
    for method, about in METHODS.items():
        if about.needs_old:
            with pytest.raises(UserError, match="needs images of the old classes"):
                check_method(method, old_data="none", base=Path("base"), remembers=False)
            if method == "fusion":
                assert check_method(method, old_data="none", base=Path("base"), remembers=True) == method
        else:
            assert check_method(method, old_data="none", base=Path("base"), remembers=False) == method


def test_the_fast_network_can_be_extended(small_recipe: object, tmp_path: Path) -> None:
    from reslab.recipe.networks import FastConv
    from reslab.recipe.recipe import Muon, Recipe, derive

    assert isinstance(small_recipe, Recipe)
    recipe = derive(
        small_recipe, name="fast", image_size=16, model=FastConv(widths=(16, 16, 16)), optimizer=Muon(), epochs=8
    )
    fast = train(recipe, out=tmp_path / "fast")
    made = extend(fast.path, data=NEW, out=tmp_path / "more")
    assert isinstance(
        models.restore(made.recipe.model, read_weights(made.path)[0], num_classes=5, channels=1).head,
        torch.nn.Linear,
    )
    assert evaluate(made, splits=("test",)).splits["test"].accuracy.value > 0.5


@pytest.mark.parametrize(("held_out", "old_data"), [(0, "all"), (43, "all"), (43, 60)])
@pytest.mark.parametrize("method", ["frozen", "finetune", "fusion"])
def test_images_that_the_base_has_seen_calibrate_nothing(
    held_out: int, old_data: Any, method: Any, small_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = derive(small_recipe, name="base", data="digits:1,4,7", validation=held_out, epochs=1)
    base = train(recipe, out=tmp_path / "base")
    made = extend(base.path, data=NEW, out=tmp_path / "more", method=method, old_data=old_data, silent=False)
    known = Network.load(made.path)
    is_seen = "not calibrated: the base has learned from the held-out images too" in capsys.readouterr().err
    assert is_seen == (held_out == 0 or old_data != "all")  # digits have no keys: a number draws anew
    assert (known.metadata.class_sets is None) == is_seen
    assert (known.familiarity is None) == is_seen
    if is_seen:
        assert known.metadata.calibration is None
        with pytest.raises(
            UserError, match=r"^the base, from which .*more started, has learned from the held-out images"
        ):
            evaluate(made, splits=("validation",))


def test_early_stopping_by_images_that_the_base_has_seen_is_refused(small_recipe: Recipe, tmp_path: Path) -> None:
    base = train(derive(small_recipe, name="base", validation=0, epochs=1), out=tmp_path / "base")
    settings = ['early_stopping={"patience": 1}']
    with pytest.raises(UserError, match=r"the base has learned .*, by which early stopping judges: train again, from"):
        extend(base.path, data=NEW, out=tmp_path / "more", method="finetune", settings=settings)


def test_a_memory_of_a_base_that_held_nothing_out_calibrates_nothing(
    small_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = train(derive(small_recipe, name="base", validation=0, epochs=1), out=tmp_path / "base")
    remember(base)
    made = extend(base.path, data=NEW, out=tmp_path / "more", method="fusion", old_data="none", silent=False)
    assert "not calibrated: the base has learned from the held-out images too" in capsys.readouterr().err
    assert Network.load(made.path).familiarity is None
