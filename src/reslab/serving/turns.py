"""A fair queue: owners take turns, so that one with many items does not hold up the others."""

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Busy(Exception):  # noqa: N818 - it names a state
    """The queue is so long that another request would wait too long."""


class Turns(Generic[T]):
    """A queue for each owner, served round robin."""

    def __init__(self) -> None:
        self._queues: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, owner: Hashable, items: Iterable[T]) -> None:
        """Append items to the queue of their owner."""
        items = tuple(items)
        if items:
            self._queues.setdefault(owner, deque()).extend(items)
            self._size += len(items)

    def peek(self) -> T:
        """Return the next item without removing it. Raises: StopIteration if nothing waits."""
        return next(iter(self._queues.values()))[0]

    def take(self) -> T:
        """Remove and return the next item; the next turn is another owner's. Raises: KeyError if nothing waits."""
        owner, queue = self._queues.popitem(last=False)
        item = queue.popleft()
        if queue:
            self._queues[owner] = queue
        self._size -= 1
        return item

    def drop(self, owner: Hashable) -> list[T]:
        """Remove and return all items of an owner."""
        dropped = self._queues.pop(owner, deque())
        self._size -= len(dropped)
        return list(dropped)
