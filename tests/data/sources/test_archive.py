import errno
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from reslab.data.sources.archive import Archive, unpack
from reslab.errors import Failure, UserError
from reslab.runs.files import writing

CONTENTS = {"one": b"1" * 1000, "two": b"2" * 2000}
Unpack = Callable[[bytes, Path], None]


@pytest.fixture
def archive(build: SimpleNamespace) -> Archive:
    made: Archive = build.archive("set.tar.gz", "set", CONTENTS)
    return made


@pytest.fixture
def unpack_packed(archive: Archive, build: SimpleNamespace) -> Unpack:
    """Unpack bytes as if they were the official archive, so that only the members are in question."""

    def run(packed: bytes, data_dir: Path) -> None:
        data_dir.mkdir(exist_ok=True)
        (data_dir / archive.name).write_bytes(packed)
        unpack(build.expect(archive, packed), data_dir)

    return run


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}


def test_the_members_land_in_the_folder(tmp_path: Path, archive: Archive, build: SimpleNamespace) -> None:
    (tmp_path / archive.name).write_bytes(build.pack({f"set/{name}": data for name, data in CONTENTS.items()}))
    unpack(archive, tmp_path)
    assert {name: (tmp_path / "set" / name).read_bytes() for name in CONTENTS} == CONTENTS
    assert files_in(tmp_path) == {"set.tar.gz", "set/one", "set/two"}


def test_only_what_is_missing_is_written(tmp_path: Path, build: SimpleNamespace, unpack_packed: Unpack) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "one").write_bytes(b"was here")
    unpack_packed(build.pack({f"set/{name}": data for name, data in CONTENTS.items()}), tmp_path)
    assert (tmp_path / "set" / "one").read_bytes() == b"was here"
    assert (tmp_path / "set" / "two").read_bytes() == CONTENTS["two"]


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_no_path_leaves_the_folder_and_no_stranger_enters_it(
    tmp_path: Path, build: SimpleNamespace, unpack_packed: Unpack
) -> None:
    outside = tmp_path / "outside"
    strangers: dict[str, bytes | tarfile.TarInfo] = {
        "set/readme.html": b"not asked for",
        "../evil": b"up",
        "../one": b"up",
        "set/deeper/two": b"down",
        "set/../../evil": b"up",
        str(outside): b"absolute",
        "set/link": link("set/link", str(outside)),
        "set/link/evil": b"through a link",
        "set/device": link("set/device", "", tarfile.CHRTYPE),
    }
    unpack_packed(build.pack(strangers | {f"set/{name}": data for name, data in CONTENTS.items()}), tmp_path / "data")
    assert files_in(tmp_path) == {"data/set.tar.gz", "data/set/one", "data/set/two"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_member_that_is_not_a_plain_file_is_refused(
    tmp_path: Path, kind: bytes, build: SimpleNamespace, unpack_packed: Unpack
) -> None:
    packed = build.pack({"set/two": CONTENTS["two"], "set/one": link("set/one", "two", kind)})
    with pytest.raises(UserError, match="set/one in the archive is not the official file"):
        unpack_packed(packed, tmp_path)
    assert files_in(tmp_path) == {"set.tar.gz", "set/two"}


@pytest.mark.parametrize("wrong", [b"", b"1" * 999, b"1" * 1001, b"x" * 1000, bytes(50_000_000)])
def test_a_member_of_another_size_or_content_is_refused(
    tmp_path: Path, wrong: bytes, build: SimpleNamespace, unpack_packed: Unpack
) -> None:
    with pytest.raises(UserError, match="set/one in the archive is not the official file"):
        unpack_packed(build.pack({"set/one": wrong}), tmp_path)
    assert files_in(tmp_path) == {"set.tar.gz"}


def test_a_missing_member_is_named(tmp_path: Path, build: SimpleNamespace, unpack_packed: Unpack) -> None:
    with pytest.raises(UserError, match="does not hold set/two"):
        unpack_packed(build.pack({"set/one": CONTENTS["one"]}), tmp_path)


@pytest.mark.parametrize("end", [0, 10, 60, -4])
def test_a_truncated_archive_is_one_sentence(
    tmp_path: Path, end: int, build: SimpleNamespace, unpack_packed: Unpack
) -> None:
    packed = build.pack({"set/one": CONTENTS["one"], "set/three": bytes(range(256)) * 100})
    with pytest.raises(UserError, match=r"set.tar.gz (cannot be unpacked|does not hold)"):
        unpack_packed(packed[:end], tmp_path)


def test_an_archive_that_is_not_an_archive_is_one_sentence(tmp_path: Path, unpack_packed: Unpack) -> None:
    with pytest.raises(UserError, match=r"set.tar.gz cannot be unpacked"):
        unpack_packed(b"<html>no such page</html>" * 100, tmp_path)


def test_an_archive_with_another_checksum_is_not_even_opened(
    tmp_path: Path, archive: Archive, build: SimpleNamespace
) -> None:
    packed = bytearray(build.pack({f"set/{name}": data for name, data in CONTENTS.items()}))
    packed[-9] ^= 1
    (tmp_path / archive.name).write_bytes(packed)
    with pytest.raises(UserError, match=r"set.tar.gz is damaged \(SHA-256 .*delete it"):
        unpack(archive, tmp_path)
    assert files_in(tmp_path) == {"set.tar.gz"}


def test_a_full_disk_is_a_failure_that_says_so() -> None:
    def fill() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(Failure, match="data/one cannot be written: the disk is full"):
        writing(Path("data/one"), fill)


def test_a_disk_that_fills_up_leaves_no_piece_behind(
    tmp_path: Path, build: SimpleNamespace, unpack_packed: Unpack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(Failure, match=r"set/one cannot be written: the disk is full"):
        unpack_packed(build.pack({f"set/{name}": data for name, data in CONTENTS.items()}), tmp_path)
    assert files_in(tmp_path) == {"set.tar.gz"}


def test_a_folder_that_cannot_be_made_is_a_failure(
    tmp_path: Path, build: SimpleNamespace, unpack_packed: Unpack
) -> None:
    (tmp_path / "set").write_bytes(b"a file in the way")
    with pytest.raises(Failure, match="set cannot be written"):
        unpack_packed(build.pack({f"set/{name}": data for name, data in CONTENTS.items()}), tmp_path)
