"""Findings of a data check, as values for JSON and CSV. Paths are relative to the source."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

from pydantic import NonNegativeInt, PositiveInt

from reslab.recipe.value import Part
from reslab.records import SplitName
from reslab.runs.files import to_csv, write_bytes

FEW_IMAGES: Final = 10  # of a class
IMBALANCE: Final = 10.0  # the largest class to the smallest
SHOWN: Final = 10  # of each finding
SECONDS: Final = 10  # between pictures of a series
_COPIES: Final = ("within_class", "across_classes", "across_splits", "with_validation")  # fields of Duplicates

Kind = Literal["exact", "near"]


class NotUsed(Part):
    """Files unused for the same reason, and what would make them usable; nothing is wrong with `expected` ones."""

    reason: str
    advice: str
    expected: bool = False
    count: PositiveInt
    paths: tuple[str, ...]


class Broken(Part):
    """A picture that cannot be read, and why."""

    path: str
    reason: str


class Reduced(Part):
    """Pictures from which reading drops or rescales something, such as further pages, and what that is."""

    loss: str
    count: PositiveInt
    paths: tuple[str, ...]


class FoundImage(Part):
    """An image of a finding: its file, or its split and number if it has no file."""

    path: str
    split: SplitName
    class_name: str


class Copy(Part):
    """Two images that show the same picture."""

    first: FoundImage
    second: FoundImage
    kind: Kind


class CopyPairs(Part):
    """Pairs of images that show the same picture; `count` may exceed the number listed."""

    count: NonNegativeInt = 0
    pairs: tuple[Copy, ...] = ()


class CopiesAcross(CopyPairs):
    """Pairs of a training and a test image, and the indices of the test images among them."""

    test_indices: tuple[NonNegativeInt, ...] = ()


class Duplicates(Part):
    """Pairs within a class of a split, between two classes (label conflicts), and across splits, of any class.

    Pairs across splits are those of training and test images; the others, `with_validation`, have a validation image.
    `searched` says whether near copies were searched, or only exact ones.
    """

    searched: Kind
    within_class: CopyPairs = CopyPairs()
    across_classes: CopyPairs = CopyPairs()
    across_splits: CopiesAcross = CopiesAcross()
    with_validation: CopyPairs = CopyPairs()


class Extreme(Part):
    """A nearly blank picture: of one color, nearly black or nearly white."""

    image: FoundImage
    kind: Literal["constant", "nearly black", "nearly white"]


class ExtremeImages(Part):
    """Nearly blank pictures; `count` may exceed the number listed."""

    count: NonNegativeInt = 0
    images: tuple[Extreme, ...] = ()


class BrokenPictures(Part):
    """Pictures that cannot be read; `count` may exceed the number listed."""

    count: NonNegativeInt = 0
    pictures: tuple[Broken, ...] = ()


class Shapes(Part):
    """Widths and heights of the picture files, and what squeezing them to a square loses.

    For a 3:2 picture, a square of the same height keeps two thirds of the columns, so a third is lost.
    """

    smallest: tuple[PositiveInt, PositiveInt]
    largest: tuple[PositiveInt, PositiveInt]
    num_squeezed: NonNegativeInt  # pictures of 4:3 or longer
    mean_loss: float
    largest_loss: float


class Series(Part):
    """Pictures of a source taken within seconds of another, and how to keep each series in one split.

    `expression` groups them by time; it is None if then a class of `too_few` had too few series to be divided.
    `num_divided` series lie in several of the source's own splits.
    """

    count: PositiveInt
    total: PositiveInt
    expression: str | None
    too_few: tuple[str, ...] = ()
    num_divided: NonNegativeInt = 0


class FindingRow(NamedTuple):
    """A line of the CSV file."""

    finding: str
    path: str
    split: str
    class_name: str
    detail: str
    other_path: str = ""
    other_split: str = ""
    other_class: str = ""


class Report(Part):
    """All findings for a data expression; `refused` says why it cannot be loaded at all."""

    expression: str
    used: dict[SplitName, NonNegativeInt]
    classes: dict[str, dict[SplitName, NonNegativeInt]]
    notes: tuple[str, ...]
    not_used: tuple[NotUsed, ...]
    broken: BrokenPictures
    duplicates: Duplicates | None
    extreme: ExtremeImages
    small_classes: dict[str, NonNegativeInt]
    imbalance: float | None
    look_alike_names: tuple[tuple[str, ...], ...]
    shapes: Shapes | None
    converted: tuple[Reduced, ...] = ()
    series: tuple[Series, ...] = ()
    proposals: tuple[str, ...]
    refused: str | None = None

    @property
    def is_broken(self) -> bool:
        """Whether something has to be fixed before training."""
        return bool(self.broken.count or self.refused)

    def shortened(self, most: int = SHOWN) -> "Report":
        """Return a copy with at most `most` paths per finding; counts and test indices stay complete."""
        update: dict[str, Part | tuple[Part, ...] | None] = {
            name: tuple(each.model_copy(update={"paths": each.paths[:most]}) for each in getattr(self, name))
            for name in ("not_used", "converted")
        }
        update |= {
            "broken": self.broken.model_copy(update={"pictures": self.broken.pictures[:most]}),
            "extreme": self.extreme.model_copy(update={"images": self.extreme.images[:most]}),
        }
        if self.duplicates is not None:
            parts = {name: getattr(self.duplicates, name) for name in _COPIES}
            update["duplicates"] = self.duplicates.model_copy(
                update={name: part.model_copy(update={"pairs": part.pairs[:most]}) for name, part in parts.items()}
            )
        return self.model_copy(update=update)

    def rows(self) -> Iterator[FindingRow]:
        """Yield a row for each path of each finding."""
        for group in self.not_used:
            yield from (FindingRow("not used", path, "", "", group.reason) for path in group.paths)
        for broken in self.broken.pictures:
            yield FindingRow("broken", broken.path, "", "", broken.reason)
        if self.duplicates is not None:
            for name in _COPIES:
                for pair in getattr(self.duplicates, name).pairs:
                    yield FindingRow(
                        f"copy {name.replace('_', ' ')}", *_columns(pair.first), pair.kind, *_columns(pair.second)
                    )
        for converted in self.converted:
            yield from (FindingRow("converted", path, "", "", converted.loss) for path in converted.paths)
        for extreme in self.extreme.images:
            yield FindingRow("extreme", *_columns(extreme.image), extreme.kind)
        for name, num in self.small_classes.items():
            yield FindingRow("small class", "", "", name, str(num))


def write_table(report: Report, path: Path) -> None:
    """Write a CSV file with a row for each path of each finding. Raises: Failure if it cannot be written."""
    write_bytes(path, to_csv(FindingRow._fields, report.rows()))


def _columns(image: FoundImage) -> tuple[str, str, str]:
    return image.path, image.split, image.class_name
