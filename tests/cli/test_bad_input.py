"""Every mistake that a person can make ends with one sentence and 2, and changes no file."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reslab.recipe.recipe import Recipe, derive
from reslab.runs import Run

Refuse = Callable[..., str]


# ---- data


def write_pictures(folder: str, *classes: str, num: int = 3) -> None:
    for name in classes:
        Path(folder, name).mkdir(parents=True)
        for number in range(num):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(f"{folder}/{name}/{number}.png")


def write_broken_picture() -> None:
    """Two of three in a class, so that the training split has one of them."""
    write_pictures("broken", "ant", "bee")
    for number in (1, 2):
        Path(f"broken/bee/{number}.png").write_bytes(Path("broken/bee/0.png").read_bytes()[:40])


def write_npz(**changes: Any) -> None:
    sound: dict[str, Any] = {"images": np.arange(6 * 64, dtype=np.uint8).reshape(6, 8, 8), "labels": np.arange(6) % 2}
    np.savez("it.npz", **sound | changes)


def write_no_index() -> None:
    Path("it").mkdir()
    Path("it/reslab.json").write_text("[1]")


EXPRESSIONS = {
    "no such source": ("cifar11", lambda: None, "'cifar11' is not a data source; did you mean 'cifar10'"),
    "no such class": ("cifar10:catt,dog", lambda: None, "did you mean 'cat'"),
    "nothing": ("", lambda: None, "lacks a source"),
    "a class twice": ("digits+digits:3", lambda: None, "the class '3' .* twice"),
    "no such folder": ("folder:absent", lambda: None, "absent is not a folder"),
    "no such home": ("folder:~nobody-of-this-name/x", lambda: None, "nobody-of-this-name/x is not a folder"),
    "no pictures": ("folder:empty", lambda: Path("empty/ant").mkdir(parents=True), "empty holds no picture of ant"),
    "no classes": ("folder:empty", lambda: Path("empty").mkdir(), "empty holds no pictures"),
    "a class of one picture": ("folder:few", lambda: write_pictures("few", "ant", "bee", num=1), "has 1 image"),
    "equal names": (
        "folder:two+folder:two",
        lambda: write_pictures("two", "ant", "bee"),
        "'folder:two' is in .* twice",
    ),
    "no shards": ("shards:empty", lambda: Path("empty").mkdir(), "empty holds no reslab.json"),
    "no index": ("shards:it", write_no_index, "it/reslab.json is not an index of shards"),
    "no such storage": ("shards:nowhere://x", lambda: None, "reslab does not open nowhere: addresses"),
    "no address": ("shards:", lambda: None, "lacks a path: write shards:PATH"),
    "no such file": ("npz:absent.npz", lambda: None, "absent.npz cannot be read"),
    "no archive": ("npz:it.npz", lambda: Path("it.npz").write_text("text"), "it.npz is not a valid .npz"),
    "flat images": ("npz:it.npz", lambda: write_npz(images=np.zeros((6, 63), np.uint8)), r"shape \(6, 63\)"),
    "five channels": ("npz:it.npz", lambda: write_npz(images=np.zeros((6, 8, 8, 5), np.uint8)), "C up to 4"),
    "too few labels": ("npz:it.npz", lambda: write_npz(labels=np.arange(5) % 2), "6 images but there are 5 labels"),
    "labels out of range": ("npz:it.npz", lambda: write_npz(classes=np.array(["ant"])), "the label 1"),
    "no images": (
        "npz:it.npz",
        lambda: write_npz(images=np.zeros((0, 8, 8), np.uint8), labels=np.zeros(0, int)),
        "at least one label",
    ),
    "objects": ("npz:it.npz", lambda: write_npz(images=np.array([{}] * 6)), "a pickle, which can run any code"),
    "names of no text": ("npz:it.npz", lambda: write_npz(classes=np.array(["ant", "\udcff"])), "not valid Unicode"),
}


@pytest.mark.parametrize("case", EXPRESSIONS)
def test_wrong_data(refuse: Refuse, case: str) -> None:
    expression, prepare, expected = EXPRESSIONS[case]
    prepare()
    assert re.search(expected, refuse("data", "show", expression, "--image-size", "8"))
    settings = ("--set", f"data={expression}", "--set", "validation=0")
    assert re.search(expected, refuse("train", "digits-quick", *settings, "--out", "run"))
    assert not Path("run").exists()


def test_a_single_class_can_be_shown_but_not_trained(reslab: Callable[..., Any], refuse: Refuse) -> None:
    write_pictures("single", "ant")
    for expression, name in (("digits:3", "3"), ("folder:single", "ant")):
        assert reslab("data", "show", expression)[0] == 0
        said = refuse("train", "digits-quick", "--set", f"data={expression}", "--set", "validation=0", "--out", "run")
        assert f"has one class, '{name}': a classifier needs at least two" in said
    assert not Path("run").exists()


def test_a_truncated_official_batch(refuse: Refuse, official: Path) -> None:
    batch = official / "cifar-10-batches-py/data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-100])
    said = refuse("train", "lab-resnet32-short", "--data-dir", official, "--out", "run")
    assert re.search(r"data_batch_3 is damaged \([\d,]+ bytes instead of [\d,]+\): delete it", said)
    assert not Path("run").exists()


def test_data_that_is_not_there_and_cannot_be_had(refuse: Refuse, official: Path) -> None:
    said = refuse("train", "lab-resnet32-short", "--data-dir", official / "elsewhere", "--out", "run", code=1)
    assert re.search(r"cifar-10-python.tar.gz \([\d.]+ MB\) is not in .*elsewhere and could not be downloaded", said)
    assert "put it there" in said


# ---- requests


REQUESTS = {
    "neither recipe nor run": ("train", "name a recipe to train .*--resume"),
    "both": ("train digits-quick --resume small", "name a recipe to train .*--resume"),
    "an unknown recipe": ("train digits-quik", "did you mean 'digits-quick'"),
    "an unknown recipe to print": ("recipes lab-resnet-32", "did you mean 'lab-resnet32'"),
    "a recipe file that is absent": ("train absent.json", "absent.json cannot be read as a recipe"),
    "no equals sign": ("train digits-quick --set epochs", "field=value"),
    "a folder for findings": ("data check digits --csv .", "--csv . is a folder: name a file in it"),
    "a folder for a ranking": ("data plan digits --unlabelled . --csv /", "--csv / is a folder"),
    "a folder for answers": ("predict demo . --csv .", "--csv . is a folder"),
    "a folder for findings that is not there": ("data check digits --csv no/where.csv", "no is not a folder: make it"),
    "two lengths of an extension": (
        "extend small --with digits:0 --out more --epochs 3 --set epochs=5",
        "--epochs 3 and --set epochs=5 are two lengths",
    ),
    "two lengths": ("train digits-quick --epochs 3 --set epochs=5", "--epochs 3 and --set epochs=5 are two lengths"),
    "an unknown field": ("train digits-quick --set epoch=5", "did you mean 'epochs'"),
    "a misplaced field": ("train digits-quick --set peak_lr=5", "did you mean 'optimizer.peak_lr'"),
    "a wrong type": ("train digits-quick --set epochs=many", "epochs should be a whole number, not 'many'"),
    "a wrong depth": ("train digits-quick --set model.depth=9", "depth 9 is not 6n.2; the nearest are 8 and 14"),
    "too many held out": ("train digits-quick --set validation=5000", "validation=5000 does not fit"),
    "a folder that is taken": ("train digits-quick --out small", "small exists and is not empty"),
    "a file in its place": ("train digits-quick --out small/recipe.json", "recipe.json exists and is not empty"),
    "settings on the way": (
        "train --resume small --set epochs=5",
        "--resume keeps the settings of the run: omit --set$",
    ),
    "much on the way": (
        "train --seed 0 --deterministic --resume small --out new --from small --json",
        "--resume keeps the settings of the run: omit --out, --from, --seed and --deterministic$",
    ),
    "strict and compiled": ("train digits-quick --deterministic --compile on", "excludes --compile on"),
    "an unknown precision": ("train digits-quick --precision half", "--precision half: choose auto, float32 or"),
    "an unknown answer": ("train digits-quick --on-nonfinite never", "--on-nonfinite never: choose retry or stop"),
    "an unknown interval": ("train digits-quick --checkpoint-every 2hours", "2epochs, 500updates or 10minutes"),
    "a seed too large": (f"train digits-quick --seed {2**64}", f"seed {2**64}: choose a whole number from 0 to"),
    "no run to go on with": ("train --resume absent", "absent is not a run folder"),
    "no run to evaluate": ("evaluate absent", "absent is not a run folder: nothing is there"),
    "no run to report": ("report .", "is not a run folder: it holds no recipe.json"),
    "a device for a file that takes none": (
        "predict model.onnx four.png --device cuda",
        "model.onnx is computed on the processor: omit --device",
    ),
    "no network": ("predict absent four.png", "absent does not exist"),
    "an unknown device": ("evaluate small --device gpu", "unknown device 'gpu': choose auto, cpu, cuda or cuda:N"),
    "an odd device": ("evaluate small --device cpu:3", "unknown device 'cpu:3'"),
    "an absent device": ("evaluate small --device cuda:200", "device 'cuda:200' not found"),
    "three views": ("evaluate small --views 3", "--views 3: choose 2 .* or 6"),
    "no views of other data": ("evaluate small --views 0 --data digits:1", "--data cannot be combined with"),
    "an unknown split": ("evaluate small --splits tset", "--splits tset: choose from train, validation, test"),
    "a split twice": ("evaluate small --splits test,test", "each once"),
    "files on other data": (
        "evaluate small --onnx a.onnx --data digits:1",
        "omit --data, --splits, --views and --device",
    ),
    "files on a split": ("evaluate small --onnx a.onnx --splits train", "omit --data, --splits, --views and --device"),
    "endless minutes": ("train digits-quick --minutes inf", "--minutes inf must be above 0 and finite"),
    "minutes of nothing": (
        "extend small --with digits:0 --out more --minutes nan",
        "--minutes nan must be above 0 and finite",
    ),
    "one run to compare": ("compare small", "at least two runs"),
    "a run with itself": ("compare small small", "is given 2 times"),
    "an absent picture": ("predict small absent.png", "absent.png does not exist"),
    "no picture": ("predict small small/recipe.json", "recipe.json cannot be read as a picture"),
    "a lab in another run": ("lab --out small", "small holds another run than the lab's: choose another folder"),
    "extend without data": ("extend small --out more", "write reslab extend RUN --with EXPR --out DIR"),
    "extend by nothing new": (
        "extend small --with digits:4@9 --out more",
        "small has learned 4 already",
    ),
    "extend by an unknown way": ("extend small --with digits:0 --out more --method magic", "unknown method 'magic'"),
    "extend with some": ("extend small --with digits:0 --out more --old-data some", "--old-data some: write all, none"),
    "extend without old": ("extend small --with digits:0 --out m --old-data none --method joint", "joint needs images"),
    "extend into a run": ("extend small --with digits:0 --out small", "small exists and is not empty"),
    "extend an absent run": ("extend absent --with digits:0 --out more", "absent is not a run folder"),
    "extend on the way": (
        "extend small --resume more --epochs 3 --threads 1",
        "--resume keeps the settings of the run: omit RUN and --epochs$",
    ),
    "resume what is no extension": ("extend --resume small", "small is not an extension: resume with reslab train"),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_wrong_requests(refuse: Refuse, finished: Run, case: str) -> None:
    command, expected = REQUESTS[case]
    said = refuse(*command.split())
    assert re.search(expected, said), said


def test_a_pipe_for_a_recipe_or_a_study(refuse: Refuse) -> None:
    os.mkfifo("pipe.json")
    assert refuse("train", "pipe.json", "--out", "run") == "pipe.json is not a file: move it away"
    assert refuse("study", "run", "pipe.json", "--out", "run") == "pipe.json is not a file: move it away"


@pytest.mark.parametrize("name", ["../../x", "/abs", "a/b", "a\0b"])
def test_a_recipe_file_does_not_choose_where_its_run_is_written(
    refuse: Refuse, small_recipe: Recipe, tmp_path: Path, name: str
) -> None:
    Path("friend.json").write_text(derive(small_recipe, name=name).model_dump_json())
    assert refuse("train", "friend.json") == f"the recipe's name {name!r} is not the name of a folder: add --out DIR"
    assert os.listdir(tmp_path) == ["friend.json"]


def test_more_epochs_start_from_the_weights_of_a_finished_run_only(refuse: Refuse, finished: Run) -> None:
    again = "train again with reslab train small/recipe.json --epochs 9 --out NEW"
    said = refuse("train", "--resume", "small", "--epochs", 9)
    assert said.endswith(f"{again}; add --from small to start from its weights")
    finished.weights_path.unlink()
    assert refuse("train", "--resume", "small", "--epochs", 9).endswith(again)


def test_a_broken_picture_is_named(refuse: Refuse, finished: Run) -> None:
    write_broken_picture()
    assert "broken/bee/1.png cannot be read as a picture" in refuse("predict", "small", "broken/bee/1.png")


def test_pictures_for_a_network_that_takes_neither_grey_nor_colour(
    reslab: Callable[..., Any], refuse: Refuse, small_recipe: Recipe
) -> None:
    write_npz(images=(np.arange(20 * 128) % 251).astype(np.uint8).reshape(20, 8, 8, 2), labels=np.arange(20) % 2)
    Path("two.json").write_text(small_recipe.model_dump_json())
    settings = ("data=npz:it.npz", "validation=0", "epochs=1")
    reslab("train", "two.json", "--out", "two", *(part for each in settings for part in ("--set", each)))
    Image.new("L", (8, 8)).save("a.png")
    assert "images of 2 channels" in refuse("predict", "two", "a.png")


USAGES = {
    "train --no-such-option": "No such option: --no-such-option.*: see reslab train --help",
    "evaluate": "Missing argument 'RUN': see reslab evaluate --help",
    "nonsense": "No such command 'nonsense': see reslab --help",
    "train digits-quick --seed x": "Invalid value for '--seed': .*: see reslab train --help",
    "models --top": "No such option.*: see reslab models --help",
    "study run": "Missing argument .*: see reslab study run --help",
}


@pytest.mark.parametrize("command", USAGES)
def test_what_typer_refuses_is_one_sentence_that_says_where_to_look(refuse: Refuse, command: str) -> None:
    said = refuse(*command.split())
    assert re.fullmatch(USAGES[command], said), said


def test_a_group_without_a_command_shows_its_help(reslab: Callable[..., Any]) -> None:
    for command in ("study", "data"):
        code, out, err = reslab(command)
        assert (code, out) == (2, "")
        assert "Commands:" in err
