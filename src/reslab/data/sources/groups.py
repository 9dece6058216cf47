"""Groups of pictures, such as of one patient, film or place: files of one group stay in one split.

A rule is `parent`, the folder of a file; `time:N`, pictures taken within N minutes of each other; or a regular
expression on the file's path inside the source, whose first group names the group. A picture of no group is one with
its exact copies. A time that many pictures share is that of an unset clock or of an export, and counts as unknown.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from reslab.data.pictures import UnavailableError, describe_decoders, opening
from reslab.data.progress import in_threads
from reslab.data.sources.listing import Listing
from reslab.data.sources.rules import compile_rule
from reslab.data.storage import cache
from reslab.data.storage.blocks import stamp_files
from reslab.errors import UserError
from reslab.records import SplitName
from reslab.runs.files import writing
from reslab.words import counted, some

FORMAT = 1  # of the times in the cache: increase it when they change
_EXIF, _TAKEN, _CHANGED = 0x8769, 0x9003, 0x0132
MOST_A_SECOND = 20  # pictures that a camera takes
_SHOWN = 3  # names in a sentence
_DIGEST = re.compile("[0-9a-f]{64}")


def group_by(listing: Listing, rule: str) -> Listing:
    """Group the files by a rule. Raises: UserError if the rule is invalid."""
    if rule == "parent":
        return with_groups(listing, [name.rpartition("/")[0] for name in listing.names])
    if rule.startswith("time:"):
        return with_groups(listing, _by_time(listing, rule.removeprefix("time:")))
    find = compile_rule(rule, option="group")
    found = [find(name) or None for name in listing.names]
    if not any(found):
        raise UserError(f"group={rule} matches no file name, such as {listing.names[0]!r}")
    return with_groups(listing, found)


def with_groups(listing: Listing, groups: Sequence[str | None]) -> Listing:
    """Set the group of each file, and note groups that the source's own splits divide.

    The digest of a file without a group names its group.
    """
    names = [group for group in groups if group is not None]
    if len(names) < len(groups):
        pairs = zip(groups, listing.digests(), strict=True)
        names = [bytes(digest).hex() if group is None else group for group, digest in pairs]
    grouped = replace(listing, groups=tuple(names))
    divided = [] if listing.splits is None else _find_divided(names, listing.splits, files=listing.names)
    if not divided:
        return grouped
    note = (
        f"{counted(len(divided), 'group')} in several of the source's own splits, which makes accuracy too high: "
        f"{some(divided, len(divided), _SHOWN)} (move each into one split; of a table, ?split=none makes new splits)"
    )
    return replace(grouped, notes=(*listing.notes, note))


def _find_divided(groups: Sequence[str], splits: Sequence[SplitName], *, files: Sequence[str]) -> list[str]:
    """Name the groups in several splits, those without a name of their own by their first file."""
    own: dict[str, set[SplitName]] = defaultdict(set)
    first: dict[str, str] = {}
    for group, split, file in zip(groups, splits, files, strict=True):
        own[group].add(split)
        first.setdefault(group, file)
    return [first[group] if _DIGEST.fullmatch(group) else group for group in own if len(own[group]) > 1]


def _by_time(listing: Listing, minutes: str) -> tuple[str, ...]:
    """Group pictures taken within the given minutes of the previous one; a group is named by its lowest digest."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", minutes):
        raise UserError(f"group=time:{minutes}: write the minutes between pictures of one group, as in group=time:5")
    times = read_times(listing.files, origin=str(listing.root))
    if not any(times):
        raise UserError(
            f"no picture of {listing.root} says when it was taken (a second that more than {MOST_A_SECOND} share is "
            "that of an unset clock): group by parent or by a pattern instead"
        )
    digests = [bytes(digest).hex() for digest in listing.digests()]
    groups = list(digests)
    ordered = sorted((time, place) for place, time in enumerate(times) if time)
    chain: list[int] = []
    for number, (time, place) in enumerate(ordered):
        if number and (time - ordered[number - 1][0]).total_seconds() > float(minutes) * 60:
            _name(chain, groups, digests)
            chain = []
        chain.append(place)
    _name(chain, groups, digests)
    return tuple(groups)


def _name(chain: list[int], groups: list[str], digests: list[str]) -> None:
    lowest = min(digests[place] for place in chain)
    for place in chain:
        groups[place] = lowest


def read_times(files: Sequence[Path], *, origin: str, only_cameras: bool = False) -> list[datetime | None]:
    """Read when pictures were taken by their EXIF data, from the cache if no file has changed.

    Times that more than MOST_A_SECOND of the files share are unknown (None). If a camera has written no time, the last
    change of the file counts, unless `only_cameras` do.
    """

    def make(part: Path) -> dict[str, object]:
        times, read = np.full(len(files), np.datetime64("NaT", "s")), partial(_taken, only_cameras=only_cameras)
        for place, time in enumerate(in_threads(read, files, what=f"{origin}: times")):
            if time is not None:
                times[place] = np.datetime64(time, "s")
        writing(part, lambda: np.save(part / "times.npy", times))
        return {"origin": origin, "split": "times", "shape": list(times.shape)}

    name = cache.name_of("times", FORMAT, only_cameras, describe_decoders(), stamp_files(files))
    with cache.opening(name, make) as path:
        found: list[datetime | None] = np.load(path / "times.npy", allow_pickle=False).tolist()
    counts = Counter(found)
    return [time if counts[time] <= MOST_A_SECOND else None for time in found]


def _taken(path: Path, *, only_cameras: bool) -> datetime | None:
    """Read when a picture was taken; None if it does not say or is damaged. Raises: UnavailableError as `opening`."""
    try:
        with opening(path, name=str(path)) as image:
            exif: Image.Exif = image.getexif()
            text = exif.get_ifd(_EXIF).get(_TAKEN) or (None if only_cameras else exif.get(_CHANGED))
            return datetime.strptime(str(text), "%Y:%m:%d %H:%M:%S") if text else None
    except UnavailableError:
        raise
    except UserError:
        return None
