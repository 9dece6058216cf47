"""A folder in a zip or tar archive, unpacked into the cache, where it stays until room is needed.

A folder around all others is skipped, unless it holds the pictures themselves and so is a class. Files beside it
are not used, unless they are pictures or Parquet.

Only regular files below the archive's own folder are allowed: links, devices, absolute paths and paths that lead out
are refused, and so are archives that would unpack to far more than their size on disk.
"""

import os
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any
from zipfile import ZipFile

from reslab.data.notes import say_once
from reslab.data.pictures import is_picture, list_visible
from reslab.data.sources.folder import LoosePictures
from reslab.data.sources.listing import Listing, Unused
from reslab.data.sources.parquet import ENDING as PARQUET
from reslab.data.storage.blocks import stamp_files
from reslab.data.storage.cache import keeping, make_room, name_of
from reslab.errors import UserError, naming_problem
from reslab.runs.files import MAX_BYTES, MAX_RATIO, make_folder, writing
from reslab.words import some

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
FORMAT = 2  # increase it when files get other places
_MOST_FILES = 1_000_000
_MOST_BYTES = 255  # of a name, on most disks
_DRIVE = re.compile("[A-Za-z]:")
_UTF_8 = 0x800  # the flag of a name
_SHOWN = 3  # names in a sentence

_Member = tuple[str, int, Any]  # name, size in bytes, the archive's own entry


def is_packed(path: Path) -> bool:
    """Return whether a file is an archive, by its ending."""
    return path.name.lower().endswith(ENDINGS) and path.is_file()


def list_packed(path: Path, list_source: Callable[[Path], Listing]) -> Listing:
    """Unpack an archive once and list its folder. Errors name the archive, not its place in the cache.

    Raises: UserError if it is not a valid and safe archive, or cannot be listed; Failure if it cannot be written.
    """
    folder = root = _unpack_once(path)
    while (inner := _find_inner(folder)) is not None:
        folder = inner
    try:
        try:
            listing = list_source(folder)
        except LoosePictures as error:
            if folder == root:
                advice = "to take them all as one class, pack a folder of its name that holds them"
                raise LoosePictures(error.problem, advice=advice) from None
            folder = folder.parent
            listing = list_source(folder)
    except UserError as error:
        sentence = str(error).replace(str(folder), str(path))
        error.args = (f"{sentence} (unpack {path} first)" if f"{path}/" in sentence else sentence,)
        raise
    unused = [
        Unused(file.relative_to(root).as_posix(), "beside the folder of pictures", "", expected=True)
        for file in _files_around(folder, root)
    ]
    return replace(listing, root=path, unused=(*listing.unused, *unused))


def _unpack_once(path: Path) -> Path:
    def make(part: Path) -> dict[str, Any]:
        with naming_problem(f"{path} cannot be unpacked"):
            num = _unpack(path, part / path.name)
        return {"origin": f"folder:{path}", "split": "unpacked", "shape": [num]}

    return keeping(name_of("unpacked", FORMAT, stamp_files([path])), make) / path.name


def _find_inner(folder: Path) -> Path | None:
    """Find the only folder in a folder, or the only one with pictures, if those are in folders of it."""
    inside = found = list_visible(folder)
    if len(inside) > 1:
        found = list(islice((each for each in inside if any(map(_is_read, _files_of(each)))), 2))
    if len(found) != 1 or not found[0].is_dir():
        return None
    is_class = len(inside) > 1 and any(each.is_file() and is_picture(each) for each in list_visible(found[0]))
    return None if is_class else found[0]


def _files_around(folder: Path, root: Path) -> Iterator[Path]:
    """Yield the files beside a folder, and beside the folders that it lies in, up to a root."""
    if folder != root:
        yield from _files_around(folder.parent, root)
        yield from (file for each in list_visible(folder.parent) if each != folder for file in _files_of(each))


def _is_read(file: Path) -> bool:
    return file.suffix.lower() == PARQUET or is_picture(file)


def _files_of(path: Path) -> Iterator[Path]:
    """Yield a file itself, or those in a folder and its folders."""
    if not path.is_dir():
        yield path
        return
    for each in list_visible(path):
        yield from _files_of(each)


def _unpack(path: Path, into: Path) -> int:
    """Write all files and return their number."""
    is_zip = path.name.lower().endswith(".zip")
    with ZipFile(path) if is_zip else tarfile.open(path) as archive:
        members = list(_list_zip(archive) if isinstance(archive, ZipFile) else _list_tar(archive, path))
        _check(members, path)
        make_folder(into)
        for name, _, member in members:
            place = into / name
            make_folder(place.parent)
            source = archive.open(member) if isinstance(archive, ZipFile) else archive.extractfile(member)
            assert source is not None
            with source:
                writing(place, lambda source=source, place=place: _copy(source, place))  # type: ignore[misc]
    return len(members)


def _list_zip(archive: ZipFile) -> Iterator[_Member]:
    """List the files; some programs for Windows write backslashes between folders."""
    odd = [info.filename for info in archive.infolist() if not (info.flag_bits & _UTF_8 or info.filename.isascii())]
    if odd:
        say_once(
            f"{archive.filename} does not say how its names are written, so that they may be wrong: "
            f"{some(odd, len(odd), _SHOWN)} (pack it again with a program that writes UTF-8)"
        )
    members = ((info.filename.replace("\\", "/"), info.file_size, info) for info in archive.infolist())
    return (member for member in members if not member[0].endswith("/"))


def _list_tar(archive: tarfile.TarFile, path: Path) -> Iterator[_Member]:
    for number, info in enumerate(archive):
        if number > _MOST_FILES:
            break
        if not info.isreg() and not info.isdir():
            raise UserError(f"{path} holds {info.name!r}, a link or a device: pack the files themselves")
        if info.isreg():
            yield info.name, info.size, info


def _check(members: list[_Member], path: Path) -> None:
    """Refuse an archive that would write outside its folder, or too much."""
    for name, _, _ in members:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts or parts[0] == "/" or ".." in parts or _DRIVE.fullmatch(parts[0]) or "\0" in name:
            raise UserError(f"{path} holds {name!r}, a path outside the archive: pack the folder again")
        if os.name == "nt" and ":" in name:
            raise UserError(f"{path} holds {name!r}, a name that Windows cannot store: rename it, and pack again")
        if (longest := max(len(os.fsencode(part)) for part in parts)) > _MOST_BYTES:
            raise UserError(f"{path} holds a name of {longest} bytes, {name[:40]!r}…: shorten it, and pack again")
    counts = Counter(PurePosixPath(name) for name, _, _ in members)
    folders = {folder for name in counts for folder in name.parents}
    if twice := next((name for name, num in counts.items() if num > 1 or name in folders), None):
        raise UserError(f"{path} holds {str(twice)!r} twice: pack the folder again, with one of them")
    num_bytes = sum(size for _, size, _ in members)
    if len(members) > _MOST_FILES or num_bytes > max(MAX_BYTES, MAX_RATIO * path.stat().st_size):
        raise UserError(
            f"{path} would unpack to {num_bytes:,} bytes in {len(members):,} files, far more than it looks like: "
            "unpack it yourself if you trust it, and read the folder"
        )
    make_room(num_bytes, what=f"the files of {path}")


def _copy(source: IO[bytes], place: Path) -> None:
    with place.open("xb") as file:
        shutil.copyfileobj(source, file)  # both readers end where the header said
