"""A batch divided among the processes that train one run."""

from typing import NamedTuple

FEWEST_IMAGES = 2  # of a part: batch norm has no statistics of a single value


class Slice(NamedTuple):
    """A process's images of a batch, from `begin` to before `end`."""

    begin: int
    end: int
    weight: float  # in the mean over the processes: 1 where all parts are equal
    smallest: int  # images of the smallest part

    @property
    def num_new(self) -> int:
        """Count the images that no other process has."""
        return self.end - self.begin if self.weight else 0


def part_of(num_images: int, *, rank: int, num_ranks: int) -> Slice:
    """Take a process's part of a batch.

    Parts differ by one image at most. Where there are too few images, some processes repeat the first part at the
    weight 0, so that every one takes part in the exchange.
    """
    num_parts = min(num_ranks, max(1, num_images // FEWEST_IMAGES))
    mine = rank if rank < num_parts else 0
    smallest, larger = divmod(num_images, num_parts)
    begin, end = (number * smallest + min(number, larger) for number in (mine, mine + 1))
    weight = num_ranks * (end - begin) / num_images if rank < num_parts else 0.0
    return Slice(begin, end, weight, smallest)
