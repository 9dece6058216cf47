"""WebDataset shards that other programs wrote."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reslab.data.load import load
from reslab.data.sources.foreign_shards import find_foreign
from reslab.errors import UserError


def picture(value: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    ("ending", "write", "classes"),
    [
        ("cls", lambda label: str(label).encode(), ("0", "1")),
        ("cls", lambda label: f"{label + 1}\n".encode(), ("1", "2")),
        ("txt", lambda label: ("cat", "dog")[label].encode(), ("cat", "dog")),
        ("json", lambda label: json.dumps({"label": label, "width": 8}).encode(), ("0", "1")),
        ("json", lambda label: json.dumps({"class": ("cat", "dog")[label]}).encode(), ("cat", "dog")),
    ],
)
def test_pictures_get_the_labels_beside_them(tmp_path: Path, ending: str, write: Any, classes: tuple[str, ...]) -> None:
    for split, start in (("train", 0), ("test", 100)):
        members = [
            item
            for number in range(6)
            for item in (
                (f"dir/{number:03}.{ending}", write(number % 2)),
                (f"dir/{number:03}.png", picture(start + number)),
            )
        ]
        write_tar(tmp_path / f"{split}-000000.tar", members)
    for split, start in (("train", 0), ("test", 100)):
        images = load(f"shards:{tmp_path}", split, image_size=8)  # type: ignore[arg-type]
        assert images.classes == classes
        assert images.labels.tolist() == [0, 1, 0, 1, 0, 1]
        assert images.images[:, 0, 0, 0].tolist() == list(range(start, start + 6))


def test_a_tar_is_not_searched_for_every_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [(f"{place}.png", picture(place)) for place in range(40)]
    write_tar(tmp_path / "train.tar", [*items, *((f"{place}.cls", b"%d" % (place % 2)) for place in range(40))])
    monkeypatch.setattr("reslab.data.sources.foreign_shards.BLOCK", 4)
    seen: list[tarfile.TarFile] = []
    find = tarfile.TarFile.next
    monkeypatch.setattr(tarfile.TarFile, "next", lambda tar: (seen.append(tar), find(tar))[1])
    images = load(f"shards:{tmp_path}", "train", image_size=8)
    assert (images.images[:, 0, 0, 0] % 2).tolist() == images.labels.tolist()
    assert len(seen) <= 3 * 81  # to list them for the white, and for the images


def test_grey_pictures_of_16_bits_have_one_white(tmp_path: Path) -> None:
    """From 500 to 3,000 in training, where each has the same value throughout; 40,000 in the test split."""
    for split, values in (("train", range(500, 3001, 500)), ("test", range(40_000, 40_006))):
        members: list[tuple[str, bytes]] = []
        for number, value in enumerate(values):
            buffer = io.BytesIO()
            Image.fromarray(np.full((8, 8), value, np.uint16)).save(buffer, "PNG")
            members += [(f"{number}.png", buffer.getvalue()), (f"{number}.cls", b"%d" % (number % 2))]
        write_tar(tmp_path / f"{split}-000000.tar", members)
    train, test = (load(f"shards:{tmp_path}", split, image_size=8) for split in ("train", "test"))
    assert (train.white, test.white) == (4095, 4095)
    assert train.images[:, 0, 0, 0].tolist() == [round(value * 255 / 4095) for value in range(500, 3001, 500)]
    assert (test.images[:] == 255).all()


def test_other_kinds_of_pictures_in_several_tars_are_cut_by_content(tmp_path: Path) -> None:
    for number, kind in enumerate(("jpg", "webp")):
        form = {"jpg": "JPEG", "webp": "WEBP"}[kind]
        items = [(f"{place}.{kind}", picture(40 * (place // 2), form)) for place in range(10)]
        write_tar(
            tmp_path / f"{number:05}.tar", [*items, *((f"{place}.cls", b"%d" % (place % 2)) for place in range(10))]
        )
    (tmp_path / "._00000.tar").write_bytes(b"macOS leaves such files on other disks")
    train, test = (load(f"shards:{tmp_path}", split, image_size=8) for split in ("train", "test"))  # type: ignore[arg-type]
    assert train.counts()[0] + test.counts()[0] == 10
    assert train.counts() == [train.counts()[0]] * 2  # each picture is there twice, once in each class
    assert train.keys is not None
    assert test.keys is not None
    assert not set(train.keys) & set(test.keys)


@pytest.mark.parametrize(
    ("name", "is_test"),
    [
        ("test-0.tar", True),
        ("testing.tar", True),
        ("imagenet-val-000.tar", True),
        ("cifar10-test.tar", True),
        ("CIFAR10_Test_0.tar", True),
        ("set0validation1.tar", True),
        ("latest-000.tar", False),
        ("valley-0.tar", False),
        ("devices-0.tar", False),
        ("train-test-split.tar", False),  # the beginning decides
    ],
)
def test_the_word_of_a_split_may_be_anywhere_in_a_name(tmp_path: Path, name: str, is_test: bool) -> None:
    for file, start in (("imagenet-train-000.tar", 0), (name, 100)):
        members = [(f"{place}.png", picture(start + place)) for place in range(10)]
        write_tar(tmp_path / file, [*members, *((f"{place}.cls", b"%d" % (place % 2)) for place in range(10))])
    train, test = (load(f"shards:{tmp_path}", split, image_size=8) for split in ("train", "test"))
    assert (set(test.images[:, 0, 0, 0].tolist()) == set(range(100, 110))) == is_test
    assert len(train.labels) + len(test.labels) == 20


def test_an_address_may_be_longer_than_a_path() -> None:
    assert find_foreign(f"https://example.org/shards?signature={'a' * 300}") == ()


def test_a_name_of_two_splits_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "my-train-test.tar", GOOD)
    with pytest.raises(UserError, match=r"my-train-test\.tar names the splits train and test: rename it"):
        load(f"shards:{tmp_path}", "train", image_size=8)


GOOD = [("0.png", picture(0)), ("0.cls", b"0"), ("1.png", picture(0)), ("1.cls", b"1")]


@pytest.mark.parametrize(
    ("name", "members", "message"),
    [
        ("train.tar", [("a.png", picture(0))], "train.tar: a.png has no label: it needs a .cls or .txt"),
        ("train.tar", [("a.png", picture(0)), ("a.json", b"{}")], "a.png has no label: .* or a .json with a number"),
        ("train.tar", [("a.png", picture(0)), ("a.cls", b"\n")], "a.png has no label"),
        ("train.tar", [("a.png", picture(0)), ("a.cls", b"\xe9")], "a.cls cannot be read as a label: 'utf-8'"),
        (
            "train.tar",
            [("a.bmp", picture(0, "BMP"))],
            r"holds no pictures: .*; 1 not used, .bmp files: train.tar/a.bmp",
        ),
        ("train.tar", [("a.png", picture(0)), ("a.cls", b"-1")], "has the label -1: labels are 0 or more"),
        ("train.tar", [("a.cls", b"1")], "holds no pictures"),
        ("train.tar", [*GOOD, ("2.png", b"broken"), ("2.cls", b"1")], "train.tar/2.png cannot be read as a picture"),
        ("test.tar", GOOD, "holds no shards for training"),
        ("train.tar", [*GOOD, ("0.png", picture(9))], r"train.tar holds 0.png twice: pack it again"),
        ("train.tar", [*GOOD, ("0.cls", b"1")], r"train.tar holds 0.cls twice: pack it again"),
        ("train.tar", [("0.jpg", picture(9, "JPEG")), *GOOD], r"holds 0.jpg and 0.png, but an image has one picture"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, name: str, members: Any, message: str) -> None:
    write_tar(tmp_path / name, members)
    write_tar(tmp_path / "test-1.tar", GOOD)
    with pytest.raises(UserError, match=message):
        load(f"shards:{tmp_path}", "train", image_size=8)


def test_what_a_tar_holds_besides_is_said(tmp_path: Path, capsys: Any) -> None:
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for name, content in [
            *(
                (f"{n}.{kind}", b"%d" % (n % 2) if kind == "cls" else picture(n))
                for n in range(8)
                for kind in ("cls", "png")
            ),
            *((f"{n}.bmp", picture(n, "BMP")) for n in range(8, 10)),
            *((f"{n}.cls", b"1") for n in range(8, 11)),
            ("._0.cls", b"\xb0"),
            ("__MACOSX/0.png", b"\xb0"),
            ("README", b"x"),
        ]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("10.png")
        link.type, link.linkname = tarfile.SYMTYPE, "0.png"
        tar.addfile(link)
    images = load(f"shards:{tmp_path}", "train", image_size=8)
    assert len(images.labels) + len(load(f"shards:{tmp_path}", "test", image_size=8).labels) == 8
    said = [
        line.partition(": ")[2].removeprefix(f"shards:{tmp_path}: ") for line in capsys.readouterr().err.splitlines()
    ]
    assert said == [
        "3 not used, labels without a picture: train.tar/8.cls, train.tar/9.cls, train.tar/10.cls",
        "2 not used, .bmp files: train.tar/8.bmp, train.tar/9.bmp (save them as JPEG or PNG)",
        "1 not used, files without an ending: train.tar/README",
        "1 not used, links and special files: train.tar/10.png (pack the files themselves)",
    ]


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    ("beside", "taken"),
    [
        ({"json": b'{"width": 8}', "cls": b"cat"}, "cat"),
        ({"json": b'{"label": 3}', "cls": b"cat"}, "cat"),
        ({"txt": b"a photo of a cat", "cls": b"cat"}, "cat"),
        ({"txt": b"a photo of a cat", "json": b'{"label": "cat"}'}, "cat"),
        ({"json": b'{"width": 8}', "txt": b"cat"}, "cat"),
    ],
)
def test_the_label_is_the_same_in_any_order(
    tmp_path: Path, beside: dict[str, bytes], taken: str, is_first: bool, capsys: Any
) -> None:
    some = list(beside.items())[:: 1 if is_first else -1]
    members = [(f"{number}.{kind}", content) for number in range(2) for kind, content in some]
    members += [(f"{number}.png", picture(number)) for number in range(2)]
    write_tar(
        tmp_path / "train.tar",
        [*members, ("2.png", picture(2)), ("2.cls", b"dog"), ("3.png", picture(3)), ("3.cls", b"dog")],
    )
    assert load(f"shards:{tmp_path}", "train", image_size=8).classes == (taken, "dog")
    assert "2 not used, files beside another label: train.tar/0." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ("1 01 10", ("01", "1", "10")),
        ("2 10 1", ("1", "2", "10")),
        ("caf\u00e9 cafe\u0301 2", ("2", "caf\u00e9")),
    ],
)
def test_labels_are_one_class_only_if_they_look_the_same(tmp_path: Path, labels: str, classes: tuple[str, ...]) -> None:
    names = labels.split()
    members = [(f"{number}.png", picture(number)) for number in range(30)]
    members += [(f"{number}.cls", names[number % 3].encode()) for number in range(30)]
    write_tar(tmp_path / "train.tar", members)
    assert load(f"shards:{tmp_path}", "train", image_size=8).classes == classes


def test_a_tar_that_was_cut_off_is_one_sentence(tmp_path: Path) -> None:
    write_tar(tmp_path / "train.tar", GOOD)
    (tmp_path / "train.tar").write_bytes((tmp_path / "train.tar").read_bytes()[:700])
    with pytest.raises(UserError, match=r"train\.tar is not a valid tar archive"):
        load(f"shards:{tmp_path}", "train", image_size=8)
