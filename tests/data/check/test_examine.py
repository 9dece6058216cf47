"""Each finding, planted in a small folder, and nothing where there is nothing."""

import codecs
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from reslab.cli import app
from reslab.data import progress
from reslab.data.check.examine import check, look, look_at
from reslab.data.check.findings import Report
from reslab.data.check.sheet import COLUMNS, GAP, NAMES, SIDE, write_sheet
from reslab.data.check.words import describe
from reslab.data.images import ImageSet
from reslab.data.load import load
from reslab.errors import UserError
from reslab.fitting.sentences import _defects


@pytest.fixture
def sound(tmp_path: Path, draw: Any) -> str:
    """A folder in which nothing is wrong: two classes of twelve pictures, with their own test split."""
    for number in range(24):
        split = "train" if number % 3 else "test"
        draw(f"{split}/{'cat' if number % 2 else 'dog'}/{number}.png", number)
    return f"folder:{tmp_path}"


def examine(expression: str) -> tuple[Report, str]:
    report = check(expression)
    return report, "\n".join(describe(report))


def test_nothing_wrong(sound: str) -> None:
    report, said = examine(sound)
    assert said == ""
    assert not report.is_broken
    assert report.used == {"train": 16, "test": 8}
    assert report.classes == {"cat": {"train": 8, "test": 4}, "dog": {"train": 8, "test": 4}}
    assert report.duplicates is not None
    assert report.duplicates.searched == "near"
    assert list(report.rows()) == []
    assert look(sound) is not None


@pytest.mark.parametrize(
    ("copy", "number", "scale", "kind", "where", "tests"),
    [
        ("train/cat/again.png", 1, 1.0, "exact", {"within_class"}, 0),
        ("train/cat/again.png", 1, 0.8, "near", {"within_class"}, 0),
        ("train/dog/again.png", 1, 0.8, "near", {"across_classes"}, 0),
        ("test/cat/again.png", 1, 0.8, "near", {"across_splits"}, 1),
        ("test/dog/again.png", 1, 1.0, "exact", {"across_splits", "across_classes"}, 1),
    ],
)
def test_copies(
    sound: str, draw: Any, copy: str, number: int, scale: float, kind: str, where: set[str], tests: int
) -> None:
    draw(copy, number, scale=scale)
    report, said = examine(sound)
    found = report.duplicates
    assert found is not None
    counts = {name: getattr(found, name) for name in ("within_class", "across_classes", "across_splits")}
    assert {name for name, copies in counts.items() if copies.count} == where
    for name in where:
        (pair,) = counts[name].pairs
        assert {pair.first.path, pair.second.path} == {"train/cat/1.png", copy}
        assert pair.kind == kind
    assert len(found.across_splits.test_indices) == tests
    names = load(sound, "test").names
    assert names is not None
    assert [names[place] for place in found.across_splits.test_indices] == [copy] * tests
    assert copy in said
    assert ("test image" in said) == bool(tests)
    assert not report.is_broken


def test_copies_of_validation_pictures_are_none_of_test_and_training(sound: str, draw: Any) -> None:
    for number in range(100, 108):
        draw(f"val/{'cat' if number % 2 else 'dog'}/{number}.png", number)
    draw("test/cat/of-validation.png", 101)
    draw("val/cat/of-training.png", 1)
    draw("test/dog/of-training.png", 2)
    report, said = examine(sound)
    assert report.duplicates is not None
    names = load(sound, "test").names or ()
    assert [names[place] for place in report.duplicates.across_splits.test_indices] == ["test/dog/of-training.png"]
    assert "1 test image (10.00\u00a0%) with a copy among the training images: train/dog/2.png and test/dog/of" in said
    others = said.partition("2 pairs of copies across splits:")[2]
    assert "train/cat/1.png and val/cat/of-training.png (exact)" in others
    assert "val/cat/101.png and test/cat/of-validation.png (exact)" in others
    assert sum(row.finding.startswith("copy ") for row in report.rows()) == 3
    assert report.shortened(1).duplicates.with_validation.count == 2
    assert len(report.shortened(1).duplicates.with_validation.pairs) == 1


def test_broken_pictures_are_all_named_in_one_pass(sound: str, tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "test/dog/0.png"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:200])
    (tmp_path / "train/dog/empty.png").touch()
    report, said = examine(sound)
    assert report.is_broken
    assert {each.path for each in report.broken.pictures} == {
        "train/cat/1.png",
        "test/dog/0.png",
        "train/dog/empty.png",
    }
    assert said.startswith("3 broken pictures:\n  ")
    assert str(tmp_path) not in said


def test_a_broken_picture_is_found_beside_a_sound_one_of_its_name(tmp_path: Path, draw: Any) -> None:
    for number in range(48):
        draw(f"{'one' if number < 24 else 'two'}/{'cat' if number % 2 else 'dog'}/{number % 24}.png", number)
    (tmp_path / "one/cat/1.png").write_bytes(b"broken")
    report, said = examine(f"folder:{tmp_path}/one+folder:{tmp_path}/two")
    assert [each.path for each in report.broken.pictures] == ["cat/1.png"]
    assert "1 broken picture: cat/1.png" in said


def test_pictures_of_next_to_nothing(sound: str, tmp_path: Path) -> None:
    for name, level in (("red", (200, 0, 0)), ("black", (3, 3, 3))):
        image = np.broadcast_to(np.array(level, np.uint8), (40, 40, 3)).copy()
        if name == "black":
            image[::20, ::20] = 255
        Image.fromarray(image).save(tmp_path / f"train/cat/{name}.png")
    white = np.full((40, 40, 3), 255, np.uint8)
    white[20, 20] = 0
    Image.fromarray(white).save(tmp_path / "test/cat/white.png")
    report, said = examine(sound)
    kinds = {found.image.path: found.kind for found in report.extreme.images}
    assert kinds == {
        "train/cat/red.png": "constant",
        "train/cat/black.png": "nearly black",
        "test/cat/white.png": "nearly white",
    }
    assert "3 pictures nearly blank" in said


def test_classes(sound: str, draw: Any) -> None:
    for number in range(130):
        draw(f"train/dog/more-{number}.png", 100 + number)
    for split in ("train", "test"):
        draw(f"{split}/Dog /a.png", 300 + len(split))
    report, said = examine(sound)
    assert report.small_classes == {"Dog ": 2}
    assert report.imbalance == 142 / 2
    assert report.look_alike_names == (("Dog ", "dog"),)
    assert "imbalance 71:1, 142 images of “dog” to 2 of “Dog ”" in said
    assert "2 classes with names that look alike: 'Dog ' and 'dog'" in said


def test_what_squeezing_loses(sound: str, draw: Any) -> None:
    draw("train/cat/wide.png", 77, size=(160, 40))
    shapes = check(sound).shapes
    assert shapes is not None
    assert (shapes.num_squeezed, shapes.largest_loss) == (1, 0.75)
    assert (shapes.smallest, shapes.largest) == ((40, 40), (160, 40))
    assert shapes.mean_loss == pytest.approx(0.75 / 25)


def test_what_reading_leaves_out(sound: str, tmp_path: Path) -> None:
    pages = [
        Image.fromarray(np.random.default_rng(page).integers(256, size=(40, 40), dtype=np.uint8)) for page in (1, 2)
    ]
    pages[0].save(tmp_path / "train/cat/scan.tif", save_all=True, append_images=pages[1:])
    report, said = examine(sound)
    assert "1 picture converted, only the first of several pages or frames: train/cat/scan.tif" in said
    assert [row.path for row in report.rows() if row.finding == "converted"] == ["train/cat/scan.tif"]


def test_near_copies_on_both_sides_of_the_cut_ask_for_groups(tmp_path: Path, draw: Any) -> None:
    for number in range(40):
        draw(f"{'ab'[number % 2]}/{number}.png", number)
        draw(f"{'ab'[number % 2]}/{number}-darker.png", number, scale=0.8)
    (proposal,) = check(f"folder:{tmp_path}").proposals
    assert "together with ?group=REGEX on" in proposal  # by parent each class would be one group, and none has a time
    assert check(f"folder:{tmp_path}?group=/([0-9]+)").proposals == ()
    (tmp_path / "a/second").mkdir()
    (tmp_path / "a/0.png").rename(tmp_path / "a/second/0.png")
    (proposal,) = check(f"folder:{tmp_path}").proposals
    assert "with ?group=parent or ?group=REGEX" in proposal
    exif = Image.Exif()
    for number, file in enumerate(sorted((tmp_path / "b").iterdir())):
        exif[0x0132] = f"2026:05:01 12:{number}:00"
        with Image.open(file) as picture:
            picture.save(file, exif=exif)
    for file in (tmp_path / "a").glob("*.png"):
        file.rename(tmp_path / "a/second" / file.name)
    (proposal,) = check(f"folder:{tmp_path}").proposals
    assert "with ?group=time:5 (minutes) or ?group=REGEX" in proposal


def test_what_cannot_be_loaded_is_broken(
    tmp_path: Path, draw: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw("cat/only.png", 1)
    draw("dog/only.png", 2)
    monkeypatch.setattr(progress, "PATIENCE", 0)
    report, said = examine(f"folder:{tmp_path}")
    assert report.is_broken
    assert said.startswith("cannot be loaded: ")
    assert "looking for broken pictures: 1 of 2" in capsys.readouterr().err


def test_one_class_is_none_to_tell_apart(tmp_path: Path, draw: Any) -> None:
    for number in range(12):
        draw(f"cat/{number}.png", number)
    report, said = examine(f"folder:{tmp_path}")
    assert report.is_broken
    assert "has one class, 'cat': a classifier needs at least two" in said


def test_a_quick_look_leaves_out_what_takes_long(sound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [load(sound, "train"), load(sound, "test")]
    monkeypatch.setattr("reslab.data.check.examine.QUICK", 23)
    report = look_at(sets)
    assert report is not None
    assert report.duplicates is not None
    assert report.duplicates.searched == "exact"
    assert "near copies were not searched" in describe(report)[0]
    monkeypatch.undo()
    small = look_at([load(sound, "train", image_size=16)])
    assert small is not None
    assert small.duplicates is not None
    assert small.duplicates.searched == "exact"
    monkeypatch.setattr("reslab.data.check.examine.QUICK_BYTES", 0)
    report = look_at(sets)
    assert report is not None
    assert report.duplicates is None
    assert describe(report)[0].startswith("copies were not searched")
    assert look("digits") is None


def test_the_command(sound: str, draw: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    for number in range(1, 24, 2):  # all that are called cats
        draw(f"train/dog/copy-{number}.png", number, scale=0.8)
    (tmp_path / "train/dog/notes.doc").write_text("x")
    table = tmp_path_factory.mktemp("out") / "found.csv"
    run = CliRunner().invoke
    answer = run(app, ["data", "check", sound, "--csv", str(table)])
    assert answer.exit_code == 0
    assert "Nothing is broken." in answer.output
    short = json.loads(run(app, ["data", "check", sound, "--json"]).output)
    whole = json.loads(run(app, ["data", "check", sound, "--json", "--all"]).output)
    assert len(short["duplicates"]["across_classes"]["pairs"]) == 10
    found = whole["duplicates"]
    assert len(found["across_classes"]["pairs"]) == short["duplicates"]["across_classes"]["count"] == 12
    assert short["duplicates"]["across_splits"]["test_indices"] == [0, 1, 2, 3]
    assert table.read_bytes().startswith(codecs.BOM_UTF8)  # by which a spreadsheet knows the encoding
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["finding"].startswith("copy") for row in rows) == sum(
        len(found[name]["pairs"]) for name in ("within_class", "across_classes", "across_splits")
    )
    assert [row["path"] for row in rows if row["finding"] == "not used"] == ["train/dog/notes.doc"]
    (tmp_path / "train/dog/copy-3.png").write_bytes(b"nothing")
    assert run(app, ["data", "check", sound]).exit_code == 1
    with pytest.raises(UserError):
        check(f"folder:{tmp_path}/nowhere")


def test_a_contact_sheet_has_a_row_per_class(tmp_path: Path) -> None:
    images = torch.zeros(20, 3, 8, 8, dtype=torch.uint8)
    images[:15, 0] = 255
    images[15:, 2] = 255
    classes = ("красный " * 10, "blue\n", "none")
    labels = torch.tensor([0] * 15 + [1] * 5)
    write_sheet(ImageSet(images, labels, classes, "made", "train"), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    step = SIDE + GAP
    assert pixels.shape == (3 * step, NAMES + COLUMNS * step, 3)
    colors = [
        [tuple(pixels[row * step + 9, NAMES + column * step + 9]) for column in range(COLUMNS)] for row in range(3)
    ]
    red, blue, white = (255, 0, 0), (0, 0, 255), (255, 255, 255)
    assert colors == [[red] * 12, [blue] * 5 + [white] * 7, [white] * 12]
    assert (pixels[:step, :NAMES] < 128).any()


def test_a_class_without_pictures_is_reported_and_the_others_are_checked(sound: str, tmp_path: Path, draw: Any) -> None:
    (tmp_path / "train" / "owl").mkdir()
    draw("train/cat/again.png", 1)
    report, said = examine(sound)
    assert "holds no picture of owl" in said
    assert "a copy among" in said or "within a class" in said
    assert report.is_broken
    assert report.expression == sound
    assert set(report.classes) == {"cat", "dog"}


def test_what_nobody_chose_is_counted_in_a_line_and_is_no_defect(tmp_path: Path, draw: Any) -> None:
    for number in range(40):
        draw(f"photos/{'ab'[number % 2]}/{number}.png", number)
    (tmp_path / "photos/README.md").touch()
    rows = [f"{'ab'[number % 2]}/{number}.png,{'ab'[number % 2]}" for number in range(16)]
    (tmp_path / "some.csv").write_text("\n".join(["file,label", *rows, "a/absent.png,a"]))
    report, said = examine(f"csv:{tmp_path}/some.csv?folder=photos")
    assert said.count("not name") == 1
    assert "24 not used, pictures that the table does not name: a/16.png, a/18.png, a/20.png and 21 more\n" in said
    assert [(each.count, each.expected) for each in report.not_used] == [(24, True), (1, False)]
    assert sum(len(each.paths) for each in report.not_used) == 25  # for the CSV file
    assert _defects(report) == ["1 file not used"]
    report, said = examine(f"folder:{tmp_path}/photos:-b")
    assert "20 not used, pictures of the class 'b', which is left out: " in said
    assert "1 not used, .md files: README.md" in said
    assert _defects(report) == []
    assert describe(report, most=None).count("  b/1.png") == 1
