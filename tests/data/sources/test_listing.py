"""Folders and tables as people have them: what is read of each, what is not, and what is refused in one sentence."""

import datetime
import io
import json
import os
import re
import shutil
import sys
import tarfile
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from reslab.data.answers import find_pictures
from reslab.data.frames import to_expression
from reslab.data.framing import Form
from reslab.data.load import list_files, load, load_validation
from reslab.data.notes import already_said
from reslab.data.recipe_data import read_split
from reslab.data.sources import samples, table
from reslab.data.sources.listing import Listing
from reslab.errors import UserError
from reslab.recipe.recipe import Recipe

Build = Callable[[Path], object]


def draw(path: Path, *, exif: Image.Exif | None = None) -> None:
    """Save a picture that no other has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw.number += 1  # type: ignore[attr-defined]
    red, green = divmod(draw.number, 256)  # type: ignore[attr-defined]
    Image.new("RGB", (4, 4), (red, green, 0)).save(path, "PNG", **({} if exif is None else {"exif": exif}))


@pytest.fixture(autouse=True)
def _counted_anew() -> None:
    """Draw the same pictures whatever tests ran before: their content decides about splits."""
    draw.number = 0  # type: ignore[attr-defined]


def fill(*folders: str, num: int = 3, ending: str = "png", also: Sequence[str] = ()) -> Build:
    """Put `num` pictures into each folder; `also` are other files, or folders where they end in "/"."""

    def build(root: Path) -> None:
        for folder in folders:
            for number in range(num):
                draw(root / folder / f"{number}.{ending}")
        for name in also:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).mkdir() if name.endswith("/") else (root / name).write_bytes(b"x")

    return build


def write_table(name: str, *lines: str, folder: str, files: Sequence[str]) -> Build:
    def build(root: Path) -> None:
        for file in files:
            draw(root / folder / file)
        (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8-sig")

    return build


def link(root: Path) -> None:
    fill("cat", "dog")(root)
    os.symlink("/nowhere/x.png", root / "cat/broken.png")
    os.symlink("..", root / "cat/loop")
    os.symlink(".", root / "self")


def link_folders(root: Path) -> None:
    fill("cat", "dog")(root)
    (root / "linked").mkdir()
    for name in ("cat", "dog"):
        os.symlink(root / name, root / "linked" / name)


def without_endings(root: Path) -> None:
    fill("cat", "dog")(root)
    for file in sorted(root.rglob("*.png")):
        file.rename(file.with_suffix(""))
    (root / "cat/LICENSE").write_text("P5 is how some texts begin")


def name_synsets(root: Path) -> None:
    fill("train/n02", "train/n01", "val/n02", "val/n01")(root)
    (root / "LOC_synset_mapping.txt").write_text("n01 tench, Tinca tinca\nn02 goldfish\n")


LEFT = ["System Volume Information/", "lost+found/", "a/ehthumbs.db"]  # by systems
KAGGLE = write_table(
    "trainLabels.csv", "id,label", "1,cat", "2,dog", "3,cat", folder="train", files=["1.png", "2.png", "3.png"]
)
SPLIT_TABLE = write_table(
    "t.tsv",
    "path\tkind\tset",
    "a.png\tx\ttrain",
    "b.png\ty\ttrain",
    "c.png\tx\tval",
    "d.png\ty\tval",
    folder="",
    files=["a.png", "b.png", "c.png", "d.png"],
)
SETS = write_table("t.csv", "file,label,set", "1.png,a,castle", "2.png,b,castle", folder="", files=["1.png", "2.png"])

# builder, expression behind the folder's path, classes, files per split
READ: dict[str, tuple[Build, str, tuple[str, ...], dict[str | None, int]]] = {
    "any case": (fill("TRAIN/a", "TRAIN/b", "Test/a", "Test/b"), "folder:{}", ("a", "b"), {"train": 6, "test": 6}),
    "other words": (
        fill("seg_train/a", "seg_train/b", "testing/a", "testing/b"),
        "folder:{}",
        ("a", "b"),
        {"train": 6, "test": 6},
    ),
    "val is the test": (fill("train/a", "train/b", "dev/a", "dev/b"), "folder:{}", ("a", "b"), {"train": 6, "test": 6}),
    "three splits": (
        fill("train/a", "train/b", "valid/a", "test/a", "test/b"),
        "folder:{}",
        ("a", "b"),
        {"train": 6, "validation": 3, "test": 6},
    ),
    "an unlabelled test": (fill("train/a", "train/b", "test"), "folder:{}", ("a", "b"), {None: 6}),
    "sub-folders": (fill("cat/indoor", "cat/out", "cat", "dog"), "folder:{}", ("cat", "dog"), {None: 12}),
    "links": (link, "folder:{}", ("cat", "dog"), {None: 6}),
    "no endings": (without_endings, "folder:{}", ("cat", "dog"), {None: 6}),
    "two endings": (fill("a", "b", ending="png.jpg"), "folder:{}", ("a", "b"), {None: 6}),
    "an ending behind": (
        fill("a", ending="jpg.crdownload", also=["a/x.raw"]),
        "folder:{}?label=^([0-9])",
        ("0", "1", "2"),
        {None: 3},
    ),
    "links to folders": (link_folders, "folder:{}/linked", ("cat", "dog"), {None: 6}),
    "other endings of a format": (fill("a", "b", ending="JFIF"), "folder:{}", ("a", "b"), {None: 6}),
    "two each": (fill("a", "b", num=2), "folder:{}", ("a", "b"), {None: 4}),
    "odd names": (
        fill("a\nb", "x,y=1", "قطة", "é" * 120),
        "folder:{}",
        ("a\nb", "x,y=1", "é" * 120, "قطة"),
        {None: 12},
    ),
    "numbers": (fill(*map(str, range(11)), num=2), "folder:{}", tuple(map(str, range(11))), {None: 22}),
    "chosen": (fill("a", "b", "c"), "folder:{}:c,a", ("c", "a"), {None: 6}),
    "left out": (fill("a", "b", "c", also=["d/"]), "folder:{}:-b,-d", ("a", "c"), {None: 6}),
    "classes called as splits": (fill("train", "bus"), "folder:{}:train,bus", ("train", "bus"), {None: 6}),
    "level 2": (fill("x/a", "x/b", "y/c", "y/d"), "folder:{}?level=2", ("a", "b", "c", "d"), {None: 12}),
    "level 1": (fill("x/a", "x/b", "y/c", "y/d"), "folder:{}?level=1", ("x", "y"), {None: 12}),
    "level 2 of one folder": (fill("x/a", "x/b"), "folder:{}?level=2", ("a", "b"), {None: 6}),
    "level 1 of one folder": (fill("x/a", "x/b"), "folder:{}?level=1", ("x",), {None: 6}),
    "level 2 of two": (fill("x/y/a", "x/y/b", "x/z"), "folder:{}?level=2", ("y", "z"), {None: 9}),
    "level 2 of splits": (
        fill("train/x/a", "train/x/b", "test/x/a", "test/x/b"),
        "folder:{}?level=2",
        ("a", "b"),
        {"train": 6, "test": 6},
    ),
    "sub-folders in one split": (
        fill("train/a/1", "train/a/2", "train/b/1", "train/b/2", "test/a", "test/b"),
        "folder:{}",
        ("a", "b"),
        {"train": 12, "test": 6},
    ),
    "labels in names": (
        lambda root: [draw(root / f"{name}.{n}.png") for name in ("cat", "dog") for n in range(2)],
        "folder:{}?label=^([a-z]+)",
        ("cat", "dog"),
        {None: 4},
    ),
    "a class empty in one split": (
        fill("train/a", "train/b", "test/a", "test/b", "val/b", also=["val/a/"]),
        "folder:{}",
        ("a", "b"),
        {"train": 6, "test": 6, "validation": 3},
    ),
    "a class empty at one place": (
        fill("x/a", "x/b", "y/a", also=["y/b/"]),
        "folder:{}?level=2",
        ("a", "b"),
        {None: 9},
    ),
    "a test without labels in names": (
        lambda root: [draw(root / name) for name in ("train/cat.0.jpg", "train/dog.0.jpg", "test1/0.jpg")],
        "folder:{}?label=^([a-z]+)",
        ("cat", "dog"),
        {None: 2},
    ),
    "a test without labels in names beside val": (
        lambda root: [draw(root / name) for name in ("train/cat.0.jpg", "test1/0.jpg", "val/cat.1.jpg")],
        "folder:{}?label=^([a-z]+)",
        ("cat",),
        {"train": 1, "test": 1},
    ),
    "a test of unknown class": (
        fill("train/a", "train/b", "test/unknown"),
        "folder:{}:-unknown",
        ("a", "b"),
        {None: 6},
    ),
    "years": (fill("cat/2020", "dog/2021"), "folder:{}", ("cat", "dog"), {None: 6}),
    "the same twice": (fill("a", "b", "all/a", "all/b"), "folder:{}:-all", ("a", "b"), {None: 6}),
    "the same twice, taken": (fill("a", "b", "all/a", "all/b"), "folder:{}:a,b", ("a", "b"), {None: 6}),
    "twice within itself": (fill("a/a", "b/b"), "folder:{}", ("a", "b"), {None: 6}),
    "good and valid": (fill("valid", "invalid"), "folder:{}:valid,invalid", ("valid", "invalid"), {None: 6}),
    "composed and decomposed": (
        fill("train/caf\u00e9", "train/b", "test/cafe\u0301", "test/b"),
        "folder:{}:cafe\u0301,b",
        ("caf\u00e9", "b"),
        {"train": 6, "test": 6},
    ),
    "no groups": (fill("a", "b"), "folder:{}?group=none", ("a", "b"), {None: 6}),
    "ImageNet's names": (name_synsets, "folder:{}", ("tench", "goldfish"), {"train": 6, "test": 6}),
    "system files": (
        fill("a", "b", "@eaDir/a", "$RECYCLE.BIN", also=["__MACOSX/._a", "a/Thumbs.db", ".DS_Store", *LEFT]),
        "folder:{}",
        ("a", "b"),
        {None: 6},
    ),
    "Kaggle's table": (KAGGLE, "csv:{}/trainLabels.csv", ("cat", "dog"), {None: 3}),
    "a table with splits": (SPLIT_TABLE, "csv:{}/t.tsv?label=kind", ("x", "y"), {"train": 2, "test": 2}),
    "a table without its splits": (SPLIT_TABLE, "csv:{}/t.tsv?label=kind&split=none", ("x", "y"), {None: 4}),
    "a table with a set": (SETS, "csv:{}/t.csv?split=none", ("a", "b"), {None: 2}),
    "an unlabelled test in a table": (
        write_table(
            "t.csv",
            "file,label,split",
            *("1.png,a,train", "2.png,b,train", "3.png,,test"),
            folder="",
            files=["1.png", "2.png", "3.png"],
        ),
        "csv:{}/t.csv",
        ("a", "b"),
        {None: 2},
    ),
    "a table of several folders": (
        write_table(
            "t.csv",
            "id,label",
            *("1,a", "2,b", "3,a", "4,b"),
            folder="",
            files=["part_1/1.png", "part_1/2.png", "part_2/3.png", "part_2/in/4.png"],
        ),
        "csv:{}/t.csv",
        ("a", "b"),
        {None: 4},
    ),
    "a table of parts of paths": (
        write_table(
            "t.csv",
            "file,label",
            *("x/1.png,a", "y/1.png,b", "x\\2.png,a"),
            folder="",
            files=["p/x/1.png", "q/y/1.png", "r/x/2.png"],
        ),
        "csv:{}/t.csv",
        ("a", "b"),
        {None: 3},
    ),
    "a table of other letters": (
        write_table(
            "t.csv", "file,label", "caf\u00e9.png,\u00e9", "2.png,e\u0301", folder="", files=["cafe\u0301.png", "2.png"]
        ),
        "csv:{}/t.csv",
        ("\u00e9",),
        {None: 2},
    ),
    "a table of other letters in one of two folders": (
        write_table(
            "t.csv",
            "file,label",
            *("\u00e9.png,a", "2.png,b"),
            folder="",
            files=["caf\u00e9/e\u0301.png", "caf\u00e9/2.png", "z/e\u0301.png"],
        ),
        "csv:{}/t.csv",
        ("a", "b"),
        {None: 2},
    ),
    "a table's class": (KAGGLE, "csv:{}/trainLabels.csv:dog", ("dog",), {None: 1}),
}


def list_one(expression: str) -> Listing:
    ((_, listing),) = list_files(expression)
    return listing


@pytest.mark.parametrize("case", READ)
def test_what_people_have_is_read(tmp_path: Path, case: str) -> None:
    build, expression, classes, counts = READ[case]
    build(tmp_path)
    listing = list_one(expression.format(tmp_path))
    assert listing.classes == classes
    assert Counter(listing.splits or [None] * len(listing.files)) == counts
    assert set(listing.labels) == set(range(len(classes)))
    assert all((listing.root / name).samefile(file) for name, file in zip(listing.names, listing.files, strict=True))


NOT_USED: dict[str, tuple[Build, str, list[str]]] = {
    "endings": (
        fill("a", "b", also=["a/x.svg", "b/y.svg", "a/plain", "labels.csv"]),
        "folder:{}",
        [
            "2 not used, .svg files: a/x.svg, b/y.svg (save",
            "1 not used, files without an ending: a/plain",
            "1 not used, .csv files: labels.csv (if",
        ],
    ),
    "links": (
        link,
        "folder:{}",
        ["1 not used, broken links: cat/broken.png", "2 not used, links to a folder above: self, cat/loop"],
    ),
    "read by content": (
        fill("a", "b", ending="jpg?w=200", also=["a/x.jpg.part"]),
        "folder:{}",
        [
            "6 files without the ending of a picture read by content: a/0.jpg?w=200, ",
            "1 not used, .part files: a/x.jpg.part",
        ],
    ),
    "beside": (
        fill("train/a", "train/b", "test/a", "test/b", "more", num=2),
        "folder:{}",
        ["2 not used, pictures beside test/ and train/: more/0.png, more/1.png"],
    ),
    "an unlabelled test": (
        fill("train/a", "train/b", "test"),
        "folder:{}",
        ["3 not used, pictures without a class: test/0.png"],
    ),
    "val is the test": (fill("train/a", "train/b", "val/a", "val/b"), "folder:{}", ["val/ is the test split"]),
    "composed and decomposed": (
        fill("caf\u00e9", "cafe\u0301", "b"),
        "folder:{}",
        ["2 folders of", "called 'caf\u00e9' are one class"],
    ),
    "one of several": (
        write_table(
            "t.csv",
            "file,label",
            *("1.png,a", "2.png,b", "3.png,b"),
            folder="",
            files=["x/1.png", "x/2.png", "y/3.png", "z/3.png"],
        ),
        "csv:{}/t.csv",
        ["1 not used, rows whose name several pictures have: 3.png (add the folder and"],
    ),
    "one of two endings": (
        write_table(
            "t.csv",
            "file,label",
            *("1,a", "2,b", "3,b", "3.jpg,a"),
            folder="",
            files=["1.jpg", "2.png", "3.jpg", "3.png"],
        ),
        "csv:{}/t.csv",
        ["1 not used, rows whose name several pictures have: 3 (add the folder and the ending"],
    ),
    "a picture that another folder has by its name": (
        write_table(
            "t.csv",
            "file,label",
            *("1.png,a", "2.png,b", "3.png,b"),
            folder="",
            files=["train/1.png", "train/2.png", "test/1.png", "test/3.png"],
        ),
        "csv:{}/t.csv",
        ["1 not used, rows whose picture is not there: 3.png"],
    ),
    "two columns of one name that nothing needs": (
        write_table(
            "t.csv",
            "file,label,note,note",
            "1.png,a,x,y",
            "2.png,b,x,y",
            "3.png,b,x,y",
            folder="",
            files=["1.png", "2.png"],
        ),
        "csv:{}/t.csv",
        ["1 not used, rows whose picture is not there: 3.png"],
    ),
    "a test without labels": (
        lambda root: [draw(root / name) for name in ("train/cat.0.jpg", "val/cat.1.jpg", "test1/0.jpg")],
        "folder:{}?label=^([a-z]+)",
        [
            "val/ is the test split, since there are no labelled test pictures",
            "1 not used, names in which ^([a-z]+) finds no label: test1/0.jpg",
        ],
    ),
    "a table": (
        write_table(
            "t.csv",
            "file,label",
            "1.png,a",
            "2.png,b",
            "gone.png,b",
            "3.png,",
            folder="",
            files=["1.png", "2.png", "3.png", "4.png"],
        ),
        "csv:{}/t.csv",
        [
            "1 not used, rows whose picture is not there: gone.png",
            "1 not used, rows without a label: 3.png",
            "1 not used, pictures that the table does not name: 4.png",
        ],
    ),
}


@pytest.mark.parametrize("case", NOT_USED)
def test_what_is_not_used_is_said(tmp_path: Path, case: str) -> None:
    build, expression, expected = NOT_USED[case]
    build(tmp_path)
    said = "\n".join(list_one(expression.format(tmp_path)).summary())
    for words in expected:
        assert words in said


REFUSED: dict[str, tuple[Build, str, str]] = {
    "pictures in splits": (fill("train", "test", "bus"), "folder:{}", r"directly in test/ and train/.*:test,train,bus"),
    "only val": (fill("val/a", "val/b"), "folder:{}", r"holds val/ but no train/: reslab reads PATH/CLASS/\*"),
    "two of one split": (fill("train/a", "Training/a"), "folder:{}", "both name the train split"),
    "splits in classes": (fill("a/train", "a/test", "b/train", "b/test"), "folder:{}", "splits inside of its classes"),
    "a wrapper": (fill("data/a", "data/b", also=["masks/"]), "folder:{}", "did you mean folder:.*/data"),
    "a wrapper of splits": (fill("x/y/train/a", "x/y/train/b"), "folder:{}", r"did you mean folder:.*/x/y\?"),
    "two levels": (
        fill("x/a", "x/b", "y/c", "y/d"),
        "folder:{}",
        r"x and y \(add \?level=1\) or a, b, c and d \(add \?level=2",
    ),
    "two levels in splits": (
        fill("train/x/a", "train/x/b", "test/x/a", "test/x/b"),
        "folder:{}",
        r"the folders of .*/test hold .* classes x \(add \?level=1\) or a and b \(add \?level=2",
    ),
    "a wrapper of splits at a level": (
        fill("x/train/a", "x/train/b"),
        "folder:{}?level=2",
        r"did you mean folder:[^ ]*/x\?",
    ),
    "one level instead of two": (
        fill("a", "b"),
        "folder:{}?level=2",
        "hold no folders of pictures, .*: omit it to take",
    ),
    "one level in splits": (
        fill("train/a", "train/b", "test/a", "test/b"),
        "folder:{}?level=2",
        "the folders of .*/test hold no folders of pictures",
    ),
    "a table beside": (fill("images", also=["labels.csv"]), "folder:{}", "write csv:.*/labels.csv"),
    "a table of splits": (fill("train", also=["train/metadata.csv"]), "folder:{}", "write csv:.*/train/metadata.csv"),
    "Kaggle's tables": (
        fill("train", "test", also=["train.csv", "sample_submission.csv", "test.csv"]),
        "folder:{}",
        "there is a table beside the pictures of [^ ]*: write csv:[^ ]*/train.csv$",
    ),
    "two tables": (
        fill("train", also=["a.csv", "submission.csv", "train/b.tsv"]),
        "folder:{}",
        "there are tables beside .*: write csv:[^ ]*/a.csv or csv:[^ ]*/train/b.tsv$",
    ),
    "only a submission": (fill("train", also=["submission.csv"]), "folder:{}", "write csv:[^ ]*/submission.csv$"),
    "classes in names": (fill("train", "test"), "folder:{}", r"add for example \?label=\^\(\[a-z\]\+\)$"),
    "classes at both levels": (
        fill("fruit/apple", "fruit/pear", "veg/carrot"),
        "folder:{}",
        r"fruit and veg \(add \?level=1\) or apple, carrot and pear \(add \?level=2",
    ),
    "a test of unknown class": (
        fill("train/a", "train/b", "test/unknown"),
        "folder:{}",
        r"'unknown' \(not in train/\): .* leave out :-unknown ",
    ),
    "only test names with labels": (
        lambda root: [draw(root / name) for name in ("train/0.jpg", "test/cat.0.jpg")],
        "folder:{}?label=^([a-z]+)",
        "has labelled pictures only in test/: add some to train/",
    ),
    "an odd empty class": (fill("a", "b", also=["c,d/"]), "folder:{}", "or rename 'c,d' to leave it out"),
    "boxes": (fill("images/train", also=["labels/train/0.txt"]), "folder:{}", "detection set .*YOLO"),
    "empty classes": (fill("a", "b", also=["c/", "d/"]), "folder:{}", "no picture of c and d: .*:-c,-d"),
    "HEIC alone": (fill(also=["a/1.bin", "b/2.bin"]), "folder:{}", "no picture of a and b.*2 not used, .bin files"),
    "one each": (fill("a", "b", num=1), "folder:{}", "class 'a' has 1 image and class 'b' has 1 image: .*; add some$"),
    "no such class": (fill("cats", "b"), "folder:{}:cat", "has no class 'cat': did you mean 'cats'"),
    "no such file name": (fill("a"), "folder:{}?label=^z", "matches no file name"),
    "no expression": (fill("a"), "folder:{}?label=(", r"label=\( is not a valid regular expression"),
    "no group": (fill("a", "b"), "folder:{}?group=z", "matches no file name"),
    "one group": (
        fill("a", "b"),
        "folder:{}?group=parent",
        r"class 'a' has 3 images .copies, or one group.*, or ignore groups with \?group=none$",
    ),
    "copies": (
        lambda root: [fill("a", "b")(root), *((root / f"a/{n}.png").write_bytes(b"P5 1 1 255 a") for n in range(3))],
        "folder:{}",
        r"class 'a' has 3 images .copies, or one group.*, or leave out :-a [^?]*\?\)$",
    ),
    "no times": (fill("a", "b"), "folder:{}?group=time:5", "no picture of .* says when it was taken"),
    "a foreign option": (fill("a", "b"), "folder:{}?file=x", "folder: has label and group and level"),
    "a bare path": (fill("a", "b"), "{}", "did you mean folder:"),
    "a slip in its name": (
        fill("pictures/a"),
        "folder:{}/pictres",
        "pictres is not a folder: did you mean folder:.*/pictures",
    ),
    "nothing there": (fill("a"), "folder:{}/absent", "/absent is not a folder"),
    "no column": (KAGGLE, "csv:{}/trainLabels.csv?label=kind", "has no column 'kind': its columns are id and label"),
    "no pictures": (
        write_table("t.csv", "file,label", "x.png,a", folder="", files=[]),
        "csv:{}/t.csv",
        "names no picture",
    ),
    "pictures elsewhere": (
        write_table("s/t.csv", "file,label", "../0.png,a", folder="s", files=["1.png"]),
        "csv:{}/s/t.csv",
        "names no picture",
    ),
    "two labels": (
        write_table("t.csv", "file,label", "1.png,a", "1.png,b", folder="", files=["1.png"]),
        "csv:{}/t.csv",
        "the labels 'a' and 'b'",
    ),
    "no split": (
        SETS,
        "csv:{}/t.csv",
        r"the split 'castle' in row 2: write train, .*, or ignore the column 'set' with \?split=none",
    ),
    "a class in one split of a table": (
        write_table(
            "t.csv",
            "file,label,split",
            "1.png,a,train",
            "2.png,b,train",
            "3.png,a,test",
            folder="",
            files=["1.png", "2.png", "3.png"],
        ),
        "csv:{}/t.csv",
        r"only one has 'b' \(not in its test split\): .*, or leave out :-b \(after the path, before any \?\)$",
    ),
    "a table without a header": (
        write_table("t.csv", "1.png,a", "2.png,b", folder="", files=["1.png", "2.png"]),
        "csv:{}/t.csv?file=1.png&label=a",
        "names the picture '1.png' in its first row: add a row above",
    ),
    "a table that may lack a header": (
        write_table("t.csv", "1,a", "2,b", folder="", files=["1.png", "2.png"]),
        "csv:{}/t.csv",
        "or, if these are no columns, add a row of names above",
    ),
    "two columns of one name": (
        write_table("t.csv", "file,label,label", "1.png,a,b", folder="", files=["1.png"]),
        "csv:{}/t.csv",
        "has several columns called 'label': rename all but one",
    ),
    "two columns that may be meant": (
        write_table("t.csv", "file,label,Label", "1.png,a,b", folder="", files=["1.png"]),
        "csv:{}/t.csv",
        "the columns label and Label could both be the label: rename or remove all but one",
    ),
    "a table without labels": (
        write_table("t.csv", "file,label", "1.png,", folder="", files=["1.png"]),
        "csv:{}/t.csv",
        "names no picture with a label .* 1 not used, rows without a label: 1.png",
    ),
    "one group of a column": (
        write_table(
            "t.csv",
            "file,label,group",
            "1.png,a,x",
            "2.png,a,x",
            "3.png,b,y",
            folder="",
            files=["1.png", "2.png", "3.png"],
        ),
        "csv:{}/t.csv",
        r"class 'a' has 2 images \(copies, or one group\) .* or ignore groups with \?group=none$",
    ),
    "a ragged table": (
        write_table("t.csv", "file,label", "1.png", folder="", files=["1.png"]),
        "csv:{}/t.csv",
        "1 cells in row 2",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, case: str) -> None:
    build, expression, message = REFUSED[case]
    build(tmp_path)
    with pytest.raises(UserError, match=message):
        load(expression.format(tmp_path), "test", image_size=4)


ADVISED: dict[str, tuple[Build, str, tuple[str, ...], str]] = {
    "an empty class": (fill("a", "b", "junk", also=["owl/"]), ":-junk", ("a", "b"), "?group=([0-9])"),
    "an empty class of those taken": (fill("a", "b", "c", also=["owl/"]), ":b,owl,a", ("b", "a"), ""),
    "classes of one split": (
        fill("train/a", "train/b", "train/c", "train/junk", "test/a", "test/b"),
        ":-junk",
        ("a", "b"),
        "?group=([0-9])",
    ),
    "an unlabelled test": (fill("train/a", "train/b", "train/junk", "test/x"), ":-junk", ("a", "b"), ""),
    "a class twice": (fill("a", "b", "junk", "all/a", "all/b"), ":-junk", ("a", "b"), ""),
    "a class of one picture": (
        lambda root: [fill("a", "b", "junk")(root), draw(root / "owl/1.png")],
        ":-junk",
        ("a", "b"),
        "",
    ),
    "called as splits": (fill("valid", "invalid"), "", ("valid", "invalid"), "?group=([0-9])"),
    "called as a split": (fill("test", "control"), "", ("test", "control"), ""),
    "dev and test": (fill("dev", "test"), "", ("dev", "test"), ""),
}


@pytest.mark.parametrize("case", ADVISED)
def test_the_advised_choice_of_classes_is_read(tmp_path: Path, case: str) -> None:
    build, choice, classes, options = ADVISED[case]
    build(tmp_path)
    with pytest.raises(UserError) as error:
        load(f"folder:{tmp_path}{choice}{options}", "train", image_size=4)
    advised = re.search(r"(?:leave out|with) (:\S+) \(after the path, before any \?\)", str(error.value))
    assert advised is not None
    expression = f"folder:{tmp_path}{advised[1]}{options}"
    assert load(expression, "train", image_size=4).classes == classes
    assert (list_one(expression).groups is None) == (not options)


@pytest.mark.parametrize("level", [1, 2])
def test_the_advised_level_is_read_with_options(tmp_path: Path, level: int) -> None:
    fill("x/a", "x/b", "y/c", "junk/d", "junk/e")(tmp_path)
    expression = f"folder:{tmp_path}:-junk?group=([0-9])"
    with pytest.raises(UserError, match=rf"add \?level={level}\)"):
        list_one(expression)
    listing = list_one(f"{expression}?level={level}" if level == 1 else f"folder:{tmp_path}?group=([0-9])?level=2")
    assert listing.classes == (("x", "y") if level == 1 else ("a", "b", "c", "d", "e"))
    assert listing.groups is not None


def test_an_absolute_name_needs_no_folder(tmp_path: Path) -> None:
    fill("part_1", "part_2")(tmp_path)
    rows = [f"{number},a" for number in range(3)]
    rows += [f"{tmp_path}/part_2/{number}.png,b" for number in range(3)]
    (tmp_path / "t.csv").write_text("\n".join(["file,label", *rows]))
    assert sorted(list_one(f"csv:{tmp_path}/t.csv").names) == [
        f"part_{part}/{n}.png" for part in (1, 2) for n in range(3)
    ]


def test_pictures_inside_of_parquet_are_read(tmp_path: Path) -> None:
    """As Hugging Face's data sets are downloaded."""

    def row(name: str | None, label: str) -> dict[str, Any]:
        draw(tmp_path / "one.png")
        return {"image": {"bytes": (tmp_path / "one.png").read_bytes(), "path": name}, "label": label}

    rows = [row("cat.png", "cat"), row("../../x.png", "dog"), row(None, "cat"), row("../..", "dog")]
    frames = {"train-00000-of-00001.parquet": rows, "test-00000-of-00001.parquet": rows[:2]}
    frames["test-00000-of-00001.parquet"].append({"image": None, "label": "cat"})
    for name, content in frames.items():
        pandas.DataFrame(content).to_parquet(tmp_path / name)
    one = list_one(f"csv:{tmp_path}/train-00000-of-00001.parquet")
    assert (one.classes, one.splits) == (("cat", "dog"), None)
    assert one.names == ("0000000-cat.png", "0000002.png", "0000001-x.png", "0000003.png")
    assert [file.read_bytes() for file in one.files] == [rows[place]["image"]["bytes"] for place in (0, 2, 1, 3)]
    both = list_one(f"csv:{tmp_path}")
    assert Counter(both.splits) == {"train": 4, "test": 2}
    assert "1 not used, rows whose picture is not there" in "\n".join(both.summary())
    for name in frames:
        (tmp_path / name).rename(tmp_path / f"pets_{name}")
    assert list_one(f"csv:{tmp_path}").splits == both.splits


@pytest.mark.parametrize("name", ["filename", "file_name", "path", "id"])
def test_pictures_inside_of_parquet_come_before_their_names(tmp_path: Path, name: str) -> None:
    for number in range(4):
        draw(tmp_path / f"{number}.png")
    contents = [(tmp_path / f"{number}.png").read_bytes() for number in range(4)]
    frame = pandas.DataFrame({name: [f"{number}.png" for number in range(4)], "label": ["cat", "dog"] * 2})
    frame["image"] = contents
    frame["mask"] = [{"bytes": content, "path": None} for content in contents[::-1]]
    frame.to_parquet(tmp_path / "t.parquet")
    order = [0, 2, 1, 3]
    listing = list_one(f"csv:{tmp_path}/t.parquet")
    assert [file.read_bytes() for file in listing.files] == [contents[place] for place in order]
    masks = list_one(f"csv:{tmp_path}/t.parquet?file=mask")
    assert [file.read_bytes() for file in masks.files] == [contents[3 - place] for place in order]
    beside = list_one(f"csv:{tmp_path}/t.parquet?file={name}")
    assert beside.files == tuple(tmp_path / f"{place}.png" for place in order)


def test_pictures_inside_of_parquet_are_those_of_a_usual_name(tmp_path: Path) -> None:
    for number in range(4):
        draw(tmp_path / f"{number}.png")
    contents = [(tmp_path / f"{number}.png").read_bytes() for number in range(4)]
    frame = pandas.DataFrame({"hash": [b"1234"] * 4, "mask": [{"bytes": content} for content in contents[::-1]]})
    frame = frame.assign(image=[{"bytes": content} for content in contents], label=["cat"] * 2 + ["dog"] * 2)
    frame.to_parquet(tmp_path / "t.parquet")
    listing = list_one(f"csv:{tmp_path}/t.parquet")
    assert [file.read_bytes() for file in listing.files] == contents
    said = "pictures are those of the column 'image', not of hash and mask, which ?file= can name"
    assert said in listing.summary()
    assert said not in list_one(f"csv:{tmp_path}/t.parquet?file=mask").summary()


def test_parquet_names_what_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"t\.parquet cannot be read as Parquet"):
        list_one(f"csv:{tmp_path}/t.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pyarrow is not installed: pip install 'reslab\[parquet\]'"):
        list_one(f"csv:{tmp_path}/t.parquet")


def test_pictures_inside_of_parquet_are_never_all_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = np.random.default_rng(0).bytes
    images = [b"\x89PNG" + row(100_000) for _ in range(200)]
    columns = {"image": images, "mask": [{"bytes": image} for image in images], "label": ["cat", "dog"] * 100}
    pandas.DataFrame(columns).to_parquet(tmp_path / "t.parquet")
    tracemalloc.start()
    first = list_one(f"csv:{tmp_path}/t.parquet")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < sum(map(len, images)) / 2
    assert [file.read_bytes() for file in first.files] == images[::2] + images[1::2]
    monkeypatch.setattr("reslab.data.sources.parquet._stream", None)  # the second time only the other columns are read
    assert list_one(f"csv:{tmp_path}/t.parquet").names == first.names


@pytest.mark.parametrize(("label", "classes"), [(1, ("cat", "dog")), (-1, ("cat",)), (2, None)])
def test_the_names_of_classes_in_parquet_may_be_of_other_columns(
    tmp_path: Path, label: int, classes: tuple[str, ...] | None
) -> None:
    table = pyarrow.table({"file": ["1.png", "2.png"], "label": [0, label]})
    feature = {"_type": "ClassLabel", "names": ["cat", "dog"]}
    features = {"info": {"features": {"gone": feature, "label": feature}}}
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "t.parquet")
    fill("", num=3)(tmp_path)
    if classes is not None:
        assert list_one(f"csv:{tmp_path}/t.parquet").classes == classes
        return
    with pytest.raises(UserError, match="the number 2 in the column 'label', for which it names only 2 classes: cor"):
        list_one(f"csv:{tmp_path}/t.parquet")


# ---- tables


def test_a_corrected_label_is_read(tmp_path: Path) -> None:
    lines = ["file,label,split", *(f"{name}.png,{'cat' if name < 'd' else 'dog'},train" for name in "abcdef")]
    lines += ["x.png,cat,test", "y.png,dog,test"]
    write_table("t.csv", *lines, folder="", files=[f"{name}.png" for name in "abcdefxy"])(tmp_path)
    expression = f"csv:{tmp_path}/t.csv"
    assert load(expression, "train", image_size=4).counts() == [3, 3]
    (tmp_path / "t.csv").write_text("\n".join(lines).replace("c.png,cat", "c.png,dog"))
    images = load(expression, "train", image_size=4)
    assert images.names == tuple(f"{name}.png" for name in "abcdef")  # in the same order as before
    assert images.counts() == [2, 4]


@pytest.mark.parametrize("also", [[], ["train/25.png"], ["more/0.png"]])
def test_a_row_of_a_split_has_its_picture_in_a_folder_of_it(tmp_path: Path, also: list[str]) -> None:
    """Both folders have the names 0.png to 19.png, and test/ alone has 20.png."""
    rows = [f"{number}.png,{'ab'[number % 2]},train" for number in range(12)]
    rows += [f"{number}.png,{'ab'[number % 2]},test" for number in range(12, 21)]
    files = [f"{split}/{number}.png" for split in ("train", "test") for number in range(20)]
    write_table("t.csv", "file,label,split", *rows, folder="", files=[*files, "test/20.png", *also])(tmp_path)
    listing = list_one(f"csv:{tmp_path}/t.csv")
    assert listing.splits is not None
    assert [name.split("/")[0] for name in listing.names] == list(listing.splits)
    assert len(listing.names) == 21


def test_a_row_of_a_split_without_a_folder_is_not_guessed(tmp_path: Path) -> None:
    rows = ["1.png,a,train", "2.png,b,train", "3.png,a,val", "4.png,b,val"]
    files = ["train/1.png", "train/2.png", "train/3.png", "train/4.png", "test/3.png"]
    write_table("t.csv", "file,label,split", *rows, folder="", files=files)(tmp_path)
    listing = list_one(f"csv:{tmp_path}/t.csv:b")
    assert listing.names == ("train/2.png", "train/4.png")
    assert "1 not used, rows whose name several pictures have: 3.png" in "\n".join(listing.summary())


def test_a_group_of_a_column_holds_in_a_folder_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    rows = ["1.png,a,x", "2.png,a,y", "3.png,b,x", "4.png,b,y"]
    fill("cafe", num=5)(tmp_path)
    try:
        os.rename(tmp_path / "cafe", os.fsencode(tmp_path) + b"/caf\xe9")
    except OSError:
        pytest.skip("the disk takes only names in UTF-8")
    (tmp_path / "t.csv").write_text("\n".join(["file,label,group", *rows]))
    listing = list_one(f"csv:{tmp_path}/t.csv")
    assert listing.groups == ("x", "y", "x", "y")
    assert listing.names[0] == "caf\\udce9/1.png"


def test_a_pattern_of_groups_finds_letters_however_they_are_composed(tmp_path: Path) -> None:
    for name in "ab":
        for number in range(2):
            draw(tmp_path / name / f"ko\u0308ln{number}_{name}.png")
    listing = list_one(f"folder:{tmp_path}?group=(k\u00f6ln[0-9]+)_")
    assert listing.groups == ("k\u00f6ln0", "k\u00f6ln1", "k\u00f6ln0", "k\u00f6ln1")


def _refuse_names(monkeypatch: pytest.MonkeyPatch, kind: type, method: str, *names: str) -> None:
    """Refuse access to what is called so, even to root."""
    own = getattr(kind, method)

    def refuse(path: Path, *args: Any, **options: Any) -> Any:
        if path.name in names:
            raise PermissionError(13, "Permission denied")
        return own(path, *args, **options)

    monkeypatch.setattr(kind, method, refuse)


def test_what_may_not_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill("set/a", "set/b", also=["locked/inner/x.npy"])(tmp_path)
    (tmp_path / "set/LOC_synset_mapping.txt").write_text("a cat")
    for method in ("iterdir", "glob", "read_text"):
        _refuse_names(monkeypatch, Path, method, "locked", "LOC_synset_mapping.txt")
    for expression, file in (
        (f"npz:{tmp_path}/locked", "locked"),
        (f"shards:{tmp_path}/locked", "locked"),
        (f"folder:{tmp_path}/set", "set/LOC_synset_mapping.txt"),
    ):
        with pytest.raises(UserError, match=f"{tmp_path}/{file} cannot be read: Permission denied"):
            load(expression, "train", image_size=4)


def test_odd_paths_are_one_sentence(tmp_path: Path) -> None:
    for expression in (f"shards:{tmp_path}/{'a' * 5000}", f"csv:{tmp_path}/a\0b.csv"):
        with pytest.raises(UserError, match="cannot be read: "):
            load(expression, "train", image_size=4)
    fill("a", "b")(tmp_path / "set")
    (tmp_path / "set/a" / "/".join("d" * 250)).mkdir(parents=True)
    with pytest.raises(UserError, match="lies more than 200 folders deep: move its pictures up"):
        list_one(f"folder:{tmp_path}/set")


def test_only_a_few_of_many_classes_are_compared_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(*(f"train/{number}ab" for number in range(120)), *(f"test/{number}cd" for number in range(120)), num=1)(
        tmp_path
    )
    compared: list[int] = []
    monkeypatch.setattr(samples, "find_twin", lambda _, others: compared.append(len(others)))
    with pytest.raises(UserError, match="and 231 others: add pictures") as error:
        list_one(f"folder:{tmp_path}")
    assert sum(compared) <= 50 * 50
    assert len(str(error.value).partition(": add pictures")[0]) < 1000


def test_not_every_row_is_looked_for_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(*(f"other/{number}" for number in range(10)), "images", num=1)(tmp_path)
    fill("images", num=900)(tmp_path)
    rows = [f"{number}.png,{'ab'[number % 2]}" for number in range(1000)]
    (tmp_path / "t.csv").write_text("\n".join(["file,label", *rows]))
    calls: list[str] = []
    find = table._Files._at
    monkeypatch.setattr(table._Files, "_at", lambda *args: (calls.append(args[1]), find(*args))[1])
    listing = list_one(f"csv:{tmp_path}/t.csv")
    assert len(listing.files) == 900
    assert {Path(name).parent.name for name in listing.names} == {"images"}
    assert len(calls) <= 1000 + 12 * 200
    calls.clear()
    monkeypatch.setattr(table, "_TRIALS", 12 * 30)
    assert list_one(f"csv:{tmp_path}/t.csv").files == listing.files
    assert len(calls) <= 1000 + 12 * 30


def test_two_folders_of_a_table_are_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{number}.png,{'ab'[number % 2]}" for number in range(60)]
    write_table("t.csv", "file,label", *rows, folder="part_1", files=[f"{number}.png" for number in range(40)])(
        tmp_path
    )
    for number in range(40, 60):
        draw(tmp_path / "part_2" / f"{number}.png")
    compared: list[str] = []
    inside = table._Files._list_inside

    class Names(frozenset[str]):
        def __and__(self, other: Any) -> Any:
            compared.append("and")
            return super().__and__(other)

        def isdisjoint(self, other: Any) -> bool:
            compared.append("isdisjoint")
            return super().isdisjoint(other)

    monkeypatch.setattr(table._Files, "_list_inside", lambda *args: Names(inside(*args)))
    assert len(list_one(f"csv:{tmp_path}/t.csv").files) == 60
    assert len(compared) == 1


def test_links_and_hidden_folders_are_the_same_for_tables_folders_and_predictions(tmp_path: Path) -> None:
    fill("store/a", "store/b", "set/a/.thumbs", "set/.git/b", "set/@eaDir/a", "set/b/lost+found", num=2)(tmp_path)
    for name in "ab":
        (tmp_path / "set" / name).mkdir(exist_ok=True)
        os.symlink(tmp_path / "store" / name, tmp_path / "set" / name / "linked")
        os.symlink("..", tmp_path / "set" / name / "loop")
        os.symlink("itself", tmp_path / "set" / name / "itself")
    names = [f"{name}/linked/{number}.png" for name in "ab" for number in range(2)]
    (tmp_path / "set/t.csv").write_text("\n".join(["file,label", *(f"{name},{name[0]}" for name in names)]))
    assert list(list_one(f"folder:{tmp_path}/set").names) == names
    assert list(list_one(f"csv:{tmp_path}/set/t.csv").names) == names
    assert find_pictures([tmp_path / "set"]) == [tmp_path / "set" / name for name in names]


# ---- splits


def test_no_picture_moves_when_others_come_and_go(tmp_path: Path) -> None:
    fill("a", "b", num=60)(tmp_path)
    before = {split: list_one(f"folder:{tmp_path}").of_split(split).names for split in ("train", "test")}  # type: ignore[arg-type]
    fill("c", num=9)(tmp_path)
    for number in range(60, 70):
        draw(tmp_path / "a" / f"{number}.png")
    (tmp_path / "a/0.png").rename(tmp_path / "b/new name.png")
    after = {split: list_one(f"folder:{tmp_path}").of_split(split).names for split in ("train", "test")}  # type: ignore[arg-type]
    for split, names in before.items():
        assert set(names) - {"a/0.png"} <= set(after[split])
    assert ("a/0.png" in before["test"]) == ("b/new name.png" in after["test"])
    assert 8 < len(before["test"]) < 40


def test_copies_and_groups_stay_on_one_side(tmp_path: Path) -> None:
    fill("a", "b", num=30)(tmp_path)
    for name in "ab":
        for number in range(30):
            (tmp_path / name / f"copy{number}.png").write_bytes((tmp_path / name / f"{number}.png").read_bytes())
    test = set(list_one(f"folder:{tmp_path}").of_split("test").names)
    assert {name.replace("copy", "") for name in test if "copy" in name} == {
        name for name in test if "copy" not in name
    }
    grouped = list_one(f"folder:{tmp_path}?group=/(.)")
    tens = [{name.split("/")[1][0] for name in grouped.of_split(split).names} for split in ("train", "test")]  # type: ignore[arg-type]
    assert not tens[0] & tens[1]


def write_ungrouped(root: Path, names: Sequence[str]) -> None:
    """Write pictures of two classes with their table, in which only the two first have a group."""
    lines = [f"{name},{'ab'[place % 2]},{'p1' if place < 2 else ''}" for place, name in enumerate(names)]
    (root / "t.csv").write_text("\n".join(["file,label,group", *lines]))


@pytest.mark.parametrize("expression", ["folder:{}?group=(p1)", "csv:{}/t.csv"])
def test_pictures_of_no_group_are_cut_by_content(tmp_path: Path, expression: str) -> None:
    names = [f"{'ab'[place % 2]}/p1-{place}.png" for place in range(2)]
    names += [f"{'ab'[place % 2]}/{place}.png" for place in range(2, 42)]
    for name in names:
        draw(tmp_path / name)
    copies = [name.replace(".png", "-copy.png") for name in names[2:]]
    for name, copy in zip(names[2:], copies, strict=True):
        (tmp_path / copy).write_bytes((tmp_path / name).read_bytes())
    write_ungrouped(tmp_path, [*names, *copies])
    test = set(list_one(expression.format(tmp_path)).of_split("test").names)
    assert {name.replace("-copy", "") for name in test if "copy" in name} == test & set(names[2:])
    for name in names[2:]:
        (tmp_path / name).rename(tmp_path / name.replace(".png", "-renamed.png"))
    renamed = [name if place < 2 else name.replace(".png", "-renamed.png") for place, name in enumerate(names)]
    write_ungrouped(tmp_path, [*renamed, *copies])
    assert {
        name.replace("-renamed", "") for name in list_one(expression.format(tmp_path)).of_split("test").names
    } == test


def test_groups_in_several_splits_of_the_source_are_said(tmp_path: Path) -> None:
    splits = ("train", "test")
    for name in (*(f"{split}/{label}/p{number}" for split in splits for label in "ab" for number in range(1, 6)),):
        draw(tmp_path / f"{name}-{draw.number}.png")  # type: ignore[attr-defined]
    draw(tmp_path / "train/a/p6.png")
    said = "5 groups in several of the source's own splits, which makes accuracy too high: p1, p2, p3 and 2 more"
    listing = list_one(f"folder:{tmp_path}?group=(p[0-9])")
    assert [note.startswith(said) for note in listing.notes] == [True]
    rows = [f"{name},{Path(name).parts[1]},{Path(name).parts[0]},{Path(name).name[:2]}" for name in listing.names]
    (tmp_path / "t.csv").write_text("\n".join(["file,label,split,group", *rows]))
    used, *notes = list_one(f"csv:{tmp_path}/t.csv").notes
    assert used == (
        "the column 'group' keeps pictures of one group in one split: ?group=none ignores it (of a DataFrame, drop it)"
    )
    assert tuple(notes) == list_one(f"csv:{tmp_path}/t.csv?group=group").notes == listing.notes
    assert not list_one(f"csv:{tmp_path}/t.csv?group=none").notes
    assert not list_one(f"folder:{tmp_path}?group=parent").notes  # a folder is in one split
    assert not list_one(f"folder:{tmp_path}").notes
    assert not list_one(f"folder:{tmp_path}/train?group=(p[0-9])").notes


def test_a_divided_group_without_a_name_is_said_by_a_picture(tmp_path: Path) -> None:
    fill("train/a", "train/b", "test/a", "test/b")(tmp_path)
    exif = Image.Exif()
    exif[0x0132] = "2026:05:01 12:00:00"
    for split in ("train", "test"):
        draw(tmp_path / split / "a" / f"{split}.png", exif=exif)
    (note,) = list_one(f"folder:{tmp_path}?group=time:5").notes
    assert note.startswith("1 group in several of the source's own splits")
    assert ": test/a/test.png (move" in note


def test_pictures_taken_together_are_one_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noon = datetime.datetime(2026, 5, 1, 12)
    for minutes in (0, 3, 6, 30, 31, 90):
        exif = Image.Exif()
        exif[0x0132] = (noon + datetime.timedelta(minutes=minutes)).strftime("%Y:%m:%d %H:%M:%S")
        draw(tmp_path / "a" / f"{minutes:02}.png", exif=exif)
    draw(tmp_path / "b" / "untimed.png")
    groups = list_one(f"folder:{tmp_path}?group=time:5").groups
    assert groups is not None
    assert [groups.index(group) for group in groups] == [0, 0, 0, 3, 3, 5, 6]
    monkeypatch.setattr("reslab.data.sources.groups._taken", None)  # the pictures are not opened again
    assert list_one(f"folder:{tmp_path}?group=time:5").groups == groups
    assert len(set(list_one(f"folder:{tmp_path}?group=time:50").groups or ())) == 3


def test_a_clock_that_was_never_set_tells_no_time(tmp_path: Path) -> None:
    fill("a", "b")(tmp_path)
    exif = Image.Exif()
    exif[0x0132] = "2000:01:01 00:00:00"
    for number in range(21):
        draw(tmp_path / "ab"[number % 2] / f"unset-{number}.png", exif=exif)
    with pytest.raises(UserError, match=r"no picture of .* when it was taken .a second that more than 20 share"):
        list_one(f"folder:{tmp_path}?group=time:5")
    (tmp_path / "a" / "unset-0.png").unlink()
    assert len(list_one(f"folder:{tmp_path}?group=time:5").files) > 20  # as many as a camera may take in a second


def test_validation_holds_whole_groups_and_as_many_as_were_asked_for(tmp_path: Path, small_recipe: Recipe) -> None:
    fill("a", "b", num=40)(tmp_path)
    recipe = small_recipe.model_copy(update={"data": f"folder:{tmp_path}", "validation": 12, "image_size": 4})
    training, validation = (read_split(recipe, split) for split in ("train", "validation"))  # type: ignore[arg-type]
    assert sum(validation.counts()) == 12
    assert training.names is not None
    assert validation.names is not None
    whole = list_one(recipe.data).of_split("train").names
    assert sorted(training.names + validation.names) == sorted(whole)
    grouped = recipe.model_copy(update={"data": f"folder:{tmp_path}?group=/(.)", "validation": 20})
    named = [read_split(grouped, split).names or () for split in ("train", "validation")]  # type: ignore[arg-type]
    groups = [{name.split("/")[1][0] for name in names} for names in named]
    assert groups[1]
    assert not groups[0] & groups[1]


def test_a_validation_folder_is_the_validation_split(tmp_path: Path, small_recipe: Recipe) -> None:
    fill("train/a", "train/b", "val/a", "val/b", "test/a", "test/b", num=4)(tmp_path)
    recipe = small_recipe.model_copy(update={"data": f"folder:{tmp_path}", "validation": 2, "image_size": 4})
    for split, folder in (("train", "train"), ("validation", "val"), ("test", "test")):
        images = read_split(recipe, split)  # type: ignore[arg-type]
        assert images.names is not None
        assert [Path(name).parts[0] for name in images.names] == [folder] * 8
    fill("more/c")(tmp_path)
    joined = recipe.model_copy(update={"data": f"{recipe.data}+folder:{tmp_path}/more@9", "validation": 3})
    assert load_validation("digits", classes=["0"], form=Form()) is None
    with pytest.raises(UserError):  # a single class of too few pictures is no set to train on, in either reading
        read_split(joined.model_copy(update={"data": f"folder:{tmp_path}/more"}), "train")
    training, validation = (read_split(joined, split).counts() for split in ("train", "validation"))  # type: ignore[arg-type]
    assert training[:2] == validation[:2] == [4, 4]
    assert training[2] >= 1
    assert validation[2] == 1
    fill("more/d", "more/e")(tmp_path)
    few = joined.model_copy(update={"validation": 2})
    assert read_split(few, "validation").counts()[2:] == [1, 1, 1]  # one of each class, though the share is less


# ---- archives


def pack(path: Path, members: dict[str, bytes]) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def pack_all(root: Path, name: str) -> None:
    """Pack all files of a folder into an archive in it."""
    files = [file for file in root.rglob("*") if file.is_file()]
    pack(root / name, {str(file.relative_to(root)): file.read_bytes() for file in files})


@pytest.mark.parametrize("name", ["pets.zip", "pets.tar.gz"])
def test_an_archive_of_a_folder_is_read_as_the_folder(tmp_path: Path, name: str) -> None:
    fill("pets/a", "pets/b", num=4)(tmp_path)
    pack_all(tmp_path, name)
    for split in ("train", "test"):
        packed, unpacked = (load(f"folder:{tmp_path / place}", split, image_size=4) for place in (name, "pets"))  # type: ignore[arg-type]
        assert packed.names == unpacked.names
        assert packed.fingerprint == unpacked.fingerprint


@pytest.mark.parametrize("name", ["signs.zip", "signs.tar.gz"])
def test_files_beside_the_folder_of_an_archive_are_not_used(tmp_path: Path, name: str) -> None:
    fill("signs/a", "signs/b", also=["README.md", "docs/notes.txt", "._signs", "__MACOSX/signs/a/._0.png"])(tmp_path)
    pack_all(tmp_path, name)
    listing = list_one(f"folder:{tmp_path / name}")
    assert listing.names == list_one(f"folder:{tmp_path}/signs").names
    assert listing.summary() == ["2 not used, beside the folder of pictures: README.md, docs/notes.txt"]


@pytest.mark.parametrize(
    ("folders", "also", "names"),
    [
        (["a", "b"], ["README.md"], "a/0.png a/1.png b/0.png b/1.png"),
        (["a"], ["README.md"], "a/0.png a/1.png"),
        (["a/x", "a/y", "b"], [], "a/x/0.png a/x/1.png a/y/0.png a/y/1.png b/0.png b/1.png"),
    ],
)
def test_an_archive_is_entered_only_where_nothing_else_is(
    tmp_path: Path, folders: list[str], also: list[str], names: str
) -> None:
    fill(*folders, num=2, also=also)(tmp_path)
    pack_all(tmp_path, "signs.zip")
    assert " ".join(list_one(f"folder:{tmp_path}/signs.zip?level=1").names) == names


def test_parquet_in_an_archive_is_read_beside_other_files(tmp_path: Path) -> None:
    draw(tmp_path / "1.png")
    frame = pandas.DataFrame({"image": [(tmp_path / "1.png").read_bytes()] * 2, "label": ["a", "b"]})
    members = {"data/t.parquet": frame.to_parquet(), "README.md": b"x"}
    pack(tmp_path / "one.zip", members)
    pack(tmp_path / "two.zip", members | {"t.parquet": frame.to_parquet()})
    for name in ("one", "two"):
        assert list_one(f"csv:{tmp_path}/{name}.zip").classes == ("a", "b")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["set/train/a", "set/test/b"], r"signs.zip must hold the same classes in train/ and test/"),
        (
            ["set/train/Fist", "set/train/sevn", "set/train/9", "set/test/fist", "set/test/seven", "set/test/8"],
            r"rename 'Fist' or 'fist' if they are one class, rename 'sevn' or 'seven' if they are one class, add",
        ),
        (["x/a", "x/b", "y/c", "y/d"], r"the folders of [^ ]*/signs.zip hold folders of pictures"),
        ([], r"^[^ ]*/signs.zip holds no pictures in class folders: .* 1 not used, .txt files: notes.txt$"),
        (["", "set/a", "set/b"], r"did you mean folder:[^ ]*/signs.zip/set\? \(unpack [^ ]*/signs.zip first\)$"),
    ],
)
def test_messages_name_the_archive_and_not_the_cache(tmp_path: Path, folders: list[str], message: str) -> None:
    fill(*folders, also=["notes.txt", "README"])(tmp_path)
    pack_all(tmp_path, "signs.zip")
    with pytest.raises(UserError, match=message) as error:
        list_one(f"folder:{tmp_path}/signs.zip")
    assert os.environ["RESLAB_CACHE"] not in str(error.value)


def test_loose_pictures_are_one_class_as_is_advised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As new pictures for `extend` often lie there."""
    fill("new owls", "old/train/cat", "old/test/cat")(tmp_path)
    monkeypatch.chdir(tmp_path)
    for place in ("new owls", tmp_path / "new owls"):
        with pytest.raises(UserError, match="to take them all as the class 'new owls', write ") as error:
            list_one(f"folder:{place}")
        listing = list_one(str(error.value).rpartition("write ")[2])
        assert (listing.classes, len(listing.files)) == (("new owls",), 3)
    monkeypatch.chdir(tmp_path / "new owls")
    with pytest.raises(UserError, match=f"write folder:{tmp_path}:new owls$"):
        list_one("folder:.")


@pytest.mark.parametrize(("folder", "beside"), [("a,b", "c"), ("owl", "train/owl"), ("owl", "owl/../Test")])
def test_loose_pictures_that_cannot_be_chosen_are_put_into_a_folder(tmp_path: Path, folder: str, beside: str) -> None:
    fill(folder, beside)(tmp_path)
    with pytest.raises(UserError, match=f"put them into a folder of its name, as in {tmp_path / folder}/NAME/$"):
        list_one(f"folder:{tmp_path / folder}")


@pytest.mark.parametrize("name", ["new.zip", "new.tgz"])
def test_an_archive_of_a_folder_of_pictures_is_one_class(tmp_path: Path, name: str) -> None:
    fill("around/owl", also=["README.md", "around/notes.txt"])(tmp_path)
    pack_all(tmp_path, name)
    listing = list_one(f"folder:{tmp_path / name}")
    assert (listing.classes, len(listing.files)) == (("owl",), 3)
    assert sorted(each.path for each in listing.unused) == ["README.md", "notes.txt"]
    shutil.rmtree(tmp_path / "around")
    fill("loose")(tmp_path)
    pack_all(tmp_path / "loose", name)
    with pytest.raises(UserError, match=r"one class, pack a folder of its name that holds them$") as error:
        list_one(f"folder:{tmp_path}/loose/{name}")
    assert os.environ["RESLAB_CACHE"] not in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}/loose/{name} holds no pictures in class folders")


def test_leaving_out_all_classes_is_said(tmp_path: Path) -> None:
    fill("a", "b")(tmp_path)
    with pytest.raises(UserError, match="leaves out all classes: take at least two"):
        load(f"folder:{tmp_path}:-a,-b", "train", image_size=4)


@pytest.mark.parametrize("name", ["evil.zip", "evil.tgz"])
@pytest.mark.parametrize("member", ["../out.png", "/tmp/out.png", "a/../../out.png", "..\\out.png", "C:/out.png"])
def test_an_archive_writes_nowhere_else(tmp_path: Path, name: str, member: str) -> None:
    pack(tmp_path / name, {"a/1.png": b"x", member: b"x"})
    with pytest.raises(UserError, match="a path outside the archive"):
        list_one(f"folder:{tmp_path / name}")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/0.png", "a/0.png"], "holds 'a/0.png' twice: pack the folder again"),
        (["a/0.png", "a//0.png"], "holds 'a/0.png' twice"),
        (["a", "a/0.png"], "holds 'a' twice"),
        ([f"a/{'x' * 300}.png"], "holds a name of 304 bytes, 'a/xx"),
    ],
)
def test_members_that_cannot_lie_side_by_side_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        for name in ("b/1.png", *names):
            archive.writestr(name, b"x")
    with pytest.raises(UserError, match=message):
        list_one(f"folder:{tmp_path}/odd.zip")


@pytest.mark.skipif(os.name == "nt", reason="Windows stores no colon in a name")
def test_a_name_may_hold_a_colon(tmp_path: Path) -> None:
    fill("12:30 a", "12:45 b")(tmp_path)
    pack_all(tmp_path, "times.zip")
    assert list_one(f"folder:{tmp_path}/times.zip").classes == ("12:30 a", "12:45 b")


def test_names_of_a_zip_that_may_be_wrong_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill("xxxxx", "b")(tmp_path)
    pack_all(tmp_path, "old.zip")
    packed = (tmp_path / "old.zip").read_bytes().replace(b"xxxxx", "\u043a\u043e\u0448\u043a\u0430".encode("cp866"))
    (tmp_path / "old.zip").write_bytes(packed)
    assert len(list_one(f"folder:{tmp_path}/old.zip").classes) == 2
    assert "old.zip does not say how its names are written, so that they may be wrong: " in capsys.readouterr().err


def test_backslashes_of_a_zip_from_windows_part_folders(tmp_path: Path) -> None:
    fill("cat", "dog")(tmp_path / "pictures")
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.writestr("pictures\\cat\\", b"")  # a folder
        for path in sorted((tmp_path / "pictures").rglob("*.png")):
            info = zipfile.ZipInfo("placeholder")
            info.filename = str(path.relative_to(tmp_path)).replace("/", "\\")
            archive.writestr(info, path.read_bytes())
    listing = list_one(f"folder:{tmp_path}/pictures.zip")
    assert listing.classes == ("cat", "dog")
    assert len(listing.files) == 6


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reslab.data.sources.packed.MAX_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", bytes(1_000_000))
    with pytest.raises(UserError, match="would unpack to 1,000,000 bytes in 1 files, far more than it looks like"):
        list_one(f"folder:{tmp_path}/bomb.zip")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "bomb.zip").read_bytes()[:100])
    with pytest.raises(UserError, match=r"cut.zip cannot be unpacked"):
        list_one(f"folder:{tmp_path}/cut.zip")


# ---- damaged pictures


def test_all_damaged_pictures_are_named_at_once_and_can_be_left_out(tmp_path: Path, capsys: Any) -> None:
    fill("train/a", "train/b", "test/a", "test/b", num=12)(tmp_path)
    for number in range(11):
        (tmp_path / f"train/a/{number}.png").write_bytes(f"broken {number}".encode())
    with pytest.raises(UserError, match=r"11 pictures of folder:.*train/a/0.png .*and 1 more: .*--skip-damaged"):
        load(f"folder:{tmp_path}", "train", image_size=4)
    with already_said():
        load(f"folder:{tmp_path}", "train", image_size=4, skip_damaged=True)
    assert capsys.readouterr().err == ""
    images = load(f"folder:{tmp_path}", "train", image_size=4, skip_damaged=True)
    assert images.counts() == [1, 12]
    assert images.num_damaged == 11
    assert images.names is not None
    assert images.names[0] == "train/a/11.png"
    said = capsys.readouterr().err
    assert "11 damaged pictures left out of the train split: " in said
    assert "a/10.png cannot be read as a picture" in said
    assert "and 8 more" in said
    red, green = np.asarray(Image.open(tmp_path / images.names[0]))[0, 0, :2]
    assert images.images[0, :2, 0, 0].tolist() == [red, green]


def test_a_relative_path_lies_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill("pets/a", "pets/b")(tmp_path)
    monkeypatch.chdir("/")
    assert load("folder:pets", "train", data_dir=tmp_path, image_size=4).names
    with pytest.raises(UserError, match=f"{tmp_path}/cars is not a folder"):
        load("folder:cars", "train", data_dir=tmp_path)
    with pytest.raises(UserError, match="/pets is not a folder"):
        load("folder:pets", "train")


# ---- DataFrames


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pandas.DataFrame:
    """Pictures of two classes in a folder of the current one, and the frame that names them, with a row to skip."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESLAB_CACHE", str(tmp_path / "cache"))
    fill("photos/raw/a", "photos/raw/b", num=10)(tmp_path)
    files = [f"photos/raw/{name}/{number}.png" for name in "ab" for number in range(10)]
    labels = [None, *["a"] * 9, *["b"] * 10]
    return pandas.DataFrame({"image": files, "Class": labels, "split": ["test", "train"] * 10, "note": np.nan})


FRAMES: dict[str, Callable[[pandas.DataFrame], pandas.DataFrame]] = {
    "relative": lambda frame: frame,
    "absolute": lambda frame: frame.assign(image=[str(Path(file).absolute()) for file in frame.image]),
    "paths": lambda frame: frame.assign(image=[Path(file) for file in frame.image]),
    "an index": lambda frame: frame.set_index("image"),
    "categories": lambda frame: frame.astype({"image": "category", "Class": "category"}),
    "pictures": lambda frame: frame.assign(image=[Path(file).read_bytes() for file in frame.image]),
    "pictures and names": lambda frame: frame.assign(
        filename=[Path(file).name for file in frame.image],
        image=[{"bytes": Path(file).read_bytes(), "path": None} for file in frame.image],
    ),
    "an index that is a column": lambda frame: frame.set_index("image", drop=False),
    "pictures but for one": lambda frame: frame.assign(
        image=[np.nan, *({"bytes": Path(file).read_bytes()} for file in frame.image[1:])]
    ),
    "names and other bytes": lambda frame: frame.assign(features=[b"1234"] * len(frame)),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_is_read_as_its_table_is(photos: pandas.DataFrame, kind: str) -> None:
    photos.to_csv("photos.csv")
    expected = load("csv:photos.csv", "train", image_size=4)
    found = load(FRAMES[kind](photos), "train", image_size=4)
    assert expected.counts() == [5, 5]
    assert found.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(found.digests, expected.digests)
    if not kind.startswith("pictures"):
        assert found.names == tuple(name.removeprefix("photos/raw/") for name in expected.names or ())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            pandas.DataFrame({"scan": ["x.png"], "label": ["a"]}),
            r"is the file: its columns are scan and label; .*",
        ),
        (
            pandas.DataFrame({"file": ["x.png"], "finding": ["a"]}),
            r"the label: .*frame.rename\(columns={'file': 'label'}",
        ),
        (pandas.DataFrame({"file": ["x.png"], "label": ["a"]}), "names no picture"),
        (
            pandas.DataFrame({"file": [Image.new("L", (4, 4))], "label": ["a"]}),
            r"column 'file' of the DataFrame has a Image: give paths, or the bytes of picture files",
        ),
        (["x.png"], "data cannot be list: give an expression, such as 'folder:pictures', or a DataFrame of pandas"),
    ],
)
def test_what_is_no_table_of_pictures_is_one_sentence(
    photos: pandas.DataFrame, data: pandas.DataFrame, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load(data, "train")


def test_pictures_in_a_frame_may_have_labels_of_two_types(photos: pandas.DataFrame) -> None:
    frame = photos.assign(image=[Path(file).read_bytes() for file in photos.image], Class=[1, 1, "b", "b"] * 5)
    assert load(frame, "train", image_size=4).classes == ("1", "b")


def test_a_folder_that_no_expression_can_name_is_one_sentence(tmp_path: Path) -> None:
    fill("a&label=y/a", "a&label=y/b")(tmp_path)
    files = sorted(map(str, tmp_path.rglob("*.png")))
    with pytest.raises(UserError, match=r"are in .*a&label=y: rename the folder without '&'"):
        load(pandas.DataFrame({"file": files, "label": ["a", "b"] * (len(files) // 2)}), "train")


def test_a_frame_that_is_kept_is_found_from_elsewhere(
    photos: pandas.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expression = to_expression(photos, beside="runs/fit")
    assert expression == "csv:runs/fit.csv?folder=../photos/raw/"
    assert to_expression(photos, beside="runs/fit") == expression
    with pytest.raises(UserError, match=r"runs/fit\.csv exists, but the DataFrame would be saved there"):
        to_expression(photos[1:], beside="runs/fit")
    monkeypatch.chdir("/")
    assert list_one(f"csv:{tmp_path}/runs/fit.csv?folder=../photos/raw").classes == ("a", "b")
