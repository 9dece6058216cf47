"""Division of a batch among the processes that train one run."""

from typing import NamedTuple

FEWEST_IMAGES = 2  # of a part: batch norm needs more than one value


class Slice(NamedTuple):
    """A process's images of a batch, from `begin` up to but excluding `end`."""

    begin: int
    end: int
    weight: float  # in the mean over the processes: 1 if all parts are equal
    smallest: int  # images of the smallest part

    @property
    def num_new(self) -> int:
        """Count the images that no other process has."""
        return self.end - self.begin if self.weight else 0


def part_of(num_images: int, *, rank: int, num_ranks: int) -> Slice:
    """Return a process's part of a batch.

    Parts differ by one image at most. If there are too few images, some processes repeat the first part with weight 0,
    so that every process takes part in the exchange.
    """
    num_parts = min(num_ranks, max(1, num_images // FEWEST_IMAGES))
    mine = rank if rank < num_parts else 0
    smallest, larger = divmod(num_images, num_parts)
    begin, end = (number * smallest + min(number, larger) for number in (mine, mine + 1))
    weight = num_ranks * (end - begin) / num_images if rank < num_parts else 0.0
    return Slice(begin, end, weight, smallest)


def cut_evenly(part: Slice, *, size: int | None) -> list[int]:
    """Divide a part into chunks of `size` images (None: one chunk), equally many in every process.

    They have fewer images, or one more where the parts of the processes are unequal.

    Even chunks avoid a single image left over, a poor basis for batch norm's statistics; of an odd number of images in
    chunks of two, one chunk therefore has three.
    """
    num_chunks = -(-part.smallest // (size or part.smallest))
    if size == FEWEST_IMAGES:
        num_chunks = max(1, part.smallest // size)
    smallest, larger = divmod(part.end - part.begin, num_chunks)
    return [smallest + (number < larger) for number in range(num_chunks)]
