"""`reslab predict` on folders, patterns and broken files."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from reslab.runs import Run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.png", "deep/b.JPG", "deep/er/c.png")):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (number * 60, 0, 0)).save(file, "PNG")
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    return tmp_path / "photos"


@pytest.mark.usefixtures("photos")
def test_a_table_of_answers_says_how_many_are_none(reslab) -> None:
    said = reslab("predict", "demo", "photos", "--csv", "out.csv").out
    assert "3 pictures classified, 3 of them unlike the training pictures: out.csv" in said


def test_a_bad_file_of_a_folder_costs_one_row(reslab, finished: Run, photos: Path) -> None:
    (photos / "=1+2.png").write_bytes(b"broken")
    outcome = reslab("predict", finished.path, "photos", "--csv", "out.csv", "--top", 2)
    assert outcome.code == 1
    assert "=1+2.png cannot be read as a picture" in outcome.err
    assert "1 of 4 files could not be classified" in outcome.err
    with open("out.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [
        "photos/=1+2.png",
        "photos/a.png",
        "photos/deep/b.JPG",
        "photos/deep/er/c.png",
    ]
    assert [bool(row["error"]) for row in rows] == [True, False, False, False]
    for row in rows[1:]:
        assert float(row["probability"]) >= float(row["probability_2"]) > 0
        assert row["prediction"] != row["prediction_2"]


def test_a_pattern_gives_what_its_files_give(reslab, finished: Run, photos: Path, monkeypatch) -> None:
    monkeypatch.setattr("reslab.data.answers.BLOCK", 2)
    files = ["photos/a.png", "photos/deep/b.JPG", "photos/deep/er/c.png"]
    by_pattern, by_name = (
        json.loads(reslab("predict", finished.path, *which, "--json").out) for which in (["photos/**/*.*"], files)
    )
    assert by_pattern == by_name
    assert [answer["file"] for answer in by_name] == files
    assert reslab("predict", finished.path, "photos/*.gif").code == 2


def test_a_set_of_classes_is_given_for_the_coverage_that_was_asked_for(reslab, finished: Run, photos: Path) -> None:
    answers = json.loads(reslab("predict", finished.path, "photos", "--coverage", 0.9, "--top", 3, "--json").out)
    for each in answers:  # the run has nine held-out images, so no more than 90 % are promised
        assert each["class_set"] == each["classes"][: len(each["class_set"])]
        assert each["class_set"]
    table = reslab("predict", finished.path, "photos", "--coverage", 0.9).out
    assert "in 90 % of cases one of" in table
    reslab("predict", finished.path, "photos", "--coverage", 0.9, "--csv", "out.csv")
    with open("out.csv", encoding="utf-8-sig", newline="") as file:
        assert [row["class_set"].split("; ") for row in csv.DictReader(file)] == [each["class_set"] for each in answers]
    refused = reslab("predict", finished.path, "photos", "--coverage", 0.95)
    assert refused.code == 2
    assert "9 held-out images can promise: ask for 0.9 or less" in refused.err
