"""Pictures taken in series are found by their capture times, and the command that keeps these together works."""

import datetime
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reslab.data.check.examine import check, look_at
from reslab.data.check.findings import Series
from reslab.data.check.series import find_in_series, find_series
from reslab.data.check.words import describe
from reslab.data.expression import LocatedTerm, parse, with_grouping
from reslab.data.load import list_files, load
from reslab.fitting.choice import check_counts

Take = Callable[..., None]
NOON = datetime.datetime(2026, 5, 1, 12)


@pytest.fixture
def take(tmp_path: Path) -> Take:
    """Give a function that draws a picture taken so many seconds after noon, or one that does not say when."""

    def write(name: str, seconds: float | None, *, tag: int = 0x0132) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if seconds is not None:
            text = (NOON + datetime.timedelta(seconds=seconds)).strftime("%Y:%m:%d %H:%M:%S")
            exif.update({tag: text} if tag == 0x0132 else {0x8769: {tag: text}})
        pixels = np.random.default_rng(len(list(tmp_path.rglob("*.png")))).integers(60, 200, (24, 24, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(path, exif=exif)

    return write


def take_series(take: Take, *, num: int = 10, apart: float = 3600, folder: str = "") -> None:
    """Take series of four pictures of each of two classes, three seconds apart in a series."""
    for series in range(num):
        for place in range(4):
            for number, name in enumerate(("cat", "dog")):
                begin = (2 * series + number) * apart
                take(f"{folder}{name}/{series}-{place}.png", begin + 3 * place)


def find(expression: str) -> tuple[Series, ...]:
    return check(expression).series


@pytest.mark.parametrize(("apart", "minutes"), [(3600, 5), (150, 1)])
def test_the_command_keeps_each_series_in_one_split(take: Take, tmp_path: Path, apart: float, minutes: int) -> None:
    take_series(take, apart=apart)
    report = check(f"folder:{tmp_path}")
    grouped = f"folder:{tmp_path}?group=time:{minutes}"
    assert report.series == (Series(count=80, total=80, expression=grouped),)
    assert describe(report)[-1].startswith("80 of 80 pictures were taken within 10 seconds of another, so both splits ")
    assert describe(report)[-1].endswith(f" as in reslab fit '{grouped}'")
    assert find(grouped) == ()
    ((_, listing),) = list_files(grouped)
    assert len(set(listing.groups or ())) == 20
    check_counts(load(grouped, "train"))


def test_the_times_are_read_once(take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_series(take)
    expression = f"folder:{tmp_path}"
    assert find(expression)
    monkeypatch.setattr("reslab.data.sources.groups._taken", None)
    report = look_at((load(expression, "train"),))  # as `fit` does
    assert report is not None
    assert sum("taken within" in line for line in describe(report)) == 1


def without_times(take: Take) -> None:
    for number in range(40):
        take(f"{'ab'[number % 2]}/{number}.png", None)


def far_apart(take: Take) -> None:
    for number in range(40):
        take(f"{'ab'[number % 2]}/{number}.png", 60 * number)


def at_one_time(take: Take) -> None:
    for number in range(16):
        take(f"{'ab'[number % 2]}/{number}.png", 0)


def at_a_time_for_each_class(take: Take) -> None:
    for number in range(16):
        take(f"{'ab'[number % 2]}/{number}.png", 5000 * (number % 2))


def by_an_unset_clock(take: Take) -> None:
    for number in range(60):
        take(f"{'ab'[number % 2]}/{number}.png", 0 if number < 50 else 600 * number)


def take_at_an_unset_clock(take: Take, *, num: int, folder: str = "") -> None:
    for number in range(num):
        take(f"{folder}{('cat', 'dog')[number % 2]}/unset-{number}.png", -(10**7))


def test_pictures_of_an_unset_clock_are_no_series(take: Take, tmp_path: Path) -> None:
    take_series(take)
    take_at_an_unset_clock(take, num=60)
    grouped = f"folder:{tmp_path}?group=time:5"
    assert find(f"folder:{tmp_path}") == (Series(count=80, total=140, expression=grouped),)
    ((_, listing),) = list_files(grouped)
    assert len(set(listing.groups or ())) == 20 + 60


def test_an_unset_clock_of_own_splits_divides_no_series(take: Take, tmp_path: Path) -> None:
    take_series(take, folder="train/")
    for split in ("train", "test"):
        take_at_an_unset_clock(take, num=20, folder=f"{split}/")
    assert find(f"folder:{tmp_path}") == ()


def few_together(take: Take) -> None:
    for number in range(60):
        take(f"{'ab'[number % 2]}/{number}.png", 600 * number)
    take("a/again.png", 1)


@pytest.mark.parametrize(
    "build", [without_times, far_apart, at_one_time, at_a_time_for_each_class, by_an_unset_clock, few_together]
)
def test_no_false_alarm(take: Take, tmp_path: Path, build: Callable[[Take], None]) -> None:
    build(take)
    assert find(f"folder:{tmp_path}") == ()


def test_few_times_cost_no_look_at_all_pictures(take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_times(take)
    opened = []
    monkeypatch.setattr("reslab.data.sources.groups._taken", lambda path, **_: opened.append(path))
    assert find(f"folder:{tmp_path}") == ()
    assert len(opened) < 40


def test_a_class_of_one_series_cannot_be_grouped(take: Take, tmp_path: Path) -> None:
    take_series(take)
    for number in range(12):
        take(f"owl/{number}.png", 10**6 + 3 * number)
    report = check(f"folder:{tmp_path}")
    assert report.series == (Series(count=92, total=92, expression=None, too_few=("owl",)),)
    (line,) = (line for line in describe(report) if "taken within" in line)
    assert "too few series of “owl” to keep each in one split: add pictures taken at other times" in line
    assert "time:" not in line


def test_series_that_own_splits_divide_are_counted(take: Take, tmp_path: Path) -> None:
    take_series(take, folder="train/")
    take_series(take, apart=7600, num=3, folder="test/")  # the first series of cats only lies in both
    report = check(f"folder:{tmp_path}")
    grouped = f"folder:{tmp_path}?group=time:5"
    assert report.series == (Series(count=104, total=104, expression=grouped, num_divided=1),)
    assert describe(report)[-1].endswith(f"reslab data check '{grouped}' names the groups to move")
    assert check(grouped).notes[0].startswith("1 group in several of the source's own splits")


def test_own_splits_that_divide_only_what_was_taken_minutes_apart_divide_no_series(take: Take, tmp_path: Path) -> None:
    take_series(take, folder="train/")
    for number in range(4):
        take(f"test/{('cat', 'dog')[number % 2]}/{number}.png", 3600 * number + 200)
    assert find(f"folder:{tmp_path}") == ()
    take("test/cat/4.png", 3600 * 4 + 12)
    (series,) = find(f"folder:{tmp_path}")
    assert (series.count, series.num_divided) == (81, 1)


def test_own_splits_that_divide_no_series_need_no_word(take: Take, tmp_path: Path) -> None:
    take_series(take, folder="train/")
    for number in range(8):
        take(f"test/{('cat', 'dog')[number % 2]}/{number}.png", -(10**5) - 1000 * number)
    assert find(f"folder:{tmp_path}") == ()


def take_two_sources(take: Take) -> None:
    take_series(take, folder="pets/")
    for number in range(80):
        series, place = divmod(number, 4)
        take(f"birds/{('owl', 'jay')[series % 2]}/{number}.png", 150 * series + 3 * place)


def test_one_command_groups_all_sources_that_need_it(take: Take, tmp_path: Path) -> None:
    take_two_sources(take)
    expression = f"folder:{tmp_path}/pets@9+digits:1+folder:{tmp_path}/birds"
    grouped = f"folder:{tmp_path}/pets?group=time:5@9+digits:1+folder:{tmp_path}/birds?group=time:1"
    assert find_series(expression, list_files(expression)) == [Series(count=80, total=80, expression=grouped)] * 2
    assert find_series(grouped, list_files(grouped)) == [None, None]


def test_a_source_that_is_not_trained_on_needs_no_groups(take: Take, tmp_path: Path) -> None:
    take_two_sources(take)
    (series,) = find(f"folder:{tmp_path}/pets@0+folder:{tmp_path}/birds")
    assert series.expression == f"folder:{tmp_path}/pets@0+folder:{tmp_path}/birds?group=time:1"


def test_series_of_a_source_hide_no_near_copies_of_another(take: Take, tmp_path: Path) -> None:
    take_series(take, folder="pets/")
    for number in range(80):
        take(f"birds/{('owl', 'jay')[number // 2 % 2]}/{number}.png", None)
    for number in range(0, 80, 2):
        name = ("owl", "jay")[number // 2 % 2]
        with Image.open(tmp_path / f"birds/{name}/{number}.png") as picture:
            picture.point(lambda level: level * 0.9).save(tmp_path / f"birds/{name}/{number + 1}.png")
    report = check(f"folder:{tmp_path}/pets+folder:{tmp_path}/birds")
    assert len(report.series) == 1
    (proposal,) = report.proposals
    assert "near copies landed on both sides" in proposal
    assert "together with ?group=REGEX on" in proposal  # birds have no times


def test_a_choice_against_groups_counts(take: Take, tmp_path: Path) -> None:
    take_series(take)
    assert find(f"folder:{tmp_path}?group=none") == ()


@pytest.mark.parametrize(
    ("expression", "grouped"),
    [
        ("folder:a", "folder:a?group=time:5"),
        ("folder:a:cat,dog", "folder:a:cat,dog?group=time:5"),
        ("folder:a?level=2@20", "folder:a?level=2&group=time:5@20"),
        ("csv:t.csv?group=none&label=x", "csv:t.csv?label=x&group=time:5"),
        ("digits:1+folder:a+b@5", "digits:1+folder:a+b?group=time:5@5"),
    ],
)
def test_an_expression_is_grouped(expression: str, grouped: str) -> None:
    term = parse(expression)[-1]
    assert isinstance(term, LocatedTerm)
    assert with_grouping(expression, term, "time:5") == grouped


@pytest.mark.parametrize(("tag", "expected"), [(0x9003, ["test/cat/0.png", "test/dog/0.png"]), (0x0132, [])])
def test_test_images_taken_within_seconds_of_a_training_image(
    take: Take, tmp_path: Path, tag: int, expected: list[str]
) -> None:
    """A program that saves one picture after another writes 0x0132, a camera 0x9003."""
    times = {"train": (0, 100, 200, 300, None), "test": (10, 89, 211, 320, None)}
    for split, seconds in times.items():
        for place, second in enumerate(seconds):
            take(f"{split}/cat/{place}.png", second, tag=tag)
            take(f"{split}/dog/{place}.png", None if second is None else second + 10_000, tag=tag)
    expression = f"folder:{tmp_path}"
    train, test = (load(expression, split) for split in ("train", "test"))
    names = [test.names[place] for place in find_in_series(train, test, data_dir=None)]
    assert names == expected  # 10 seconds are near, 11 are not


def test_grouped_series_leave_no_test_image_near_a_training_image(take: Take, tmp_path: Path) -> None:
    take_series(partial(take, tag=0x9003))
    found = {}
    for options in ("", "?group=time:5"):
        train, test = (load(f"folder:{tmp_path}{options}", split) for split in ("train", "test"))
        found[options] = len(find_in_series(train, test, data_dir=None)) / len(test.labels)
    assert found[""] > 0.9
    assert found["?group=time:5"] == 0
