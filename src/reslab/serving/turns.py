"""What waits, by who asked: whoever asks for much waits for their own, and the others take turns with them."""

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Busy(Exception):  # noqa: N818 - it names a state
    """So much waits already that whoever asks now would wait too long."""


class Turns(Generic[T]):
    """A queue for each owner; they give one item each, round robin."""

    def __init__(self) -> None:
        self._queues: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, owner: Hashable, items: Iterable[T]) -> None:
        """Let items wait behind those that their owner has here already."""
        items = tuple(items)
        if items:
            self._queues.setdefault(owner, deque()).extend(items)
            self._size += len(items)

    def peek(self) -> T:
        """Give the next item, and leave it here. Raises: StopIteration where nothing waits."""
        return next(iter(self._queues.values()))[0]

    def take(self) -> T:
        """Remove the next item; the next one is another owner's. Raises: KeyError where nothing waits."""
        owner, queue = self._queues.popitem(last=False)
        item = queue.popleft()
        if queue:
            self._queues[owner] = queue
        self._size -= 1
        return item

    def drop(self, owner: Hashable) -> list[T]:
        """Remove and give all items of an owner."""
        dropped = self._queues.pop(owner, deque())
        self._size -= len(dropped)
        return list(dropped)
