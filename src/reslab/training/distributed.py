"""One run on several devices or hosts: communication between the processes that torchrun starts.

Source: Li et al. 2020, "PyTorch Distributed", arXiv:2006.15704, and PyTorch's DistributedDataParallel, which takes the
mean of the gradients while they are computed.
Differs from it: parts of a batch may be unequal, and the gradient is still that of the mean over the whole batch.
Every process takes its part of each batch; only the first one reads and writes the run folder.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # before a group exists, which its defaults would keep alive
from torch import Tensor, nn
from torch.distributed import GradBucket  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from reslab.data.batches import seeded
from reslab.data.images import ImageSet, to_statistics
from reslab.data.parts import Slice, cut_evenly, part_of
from reslab.errors import Failure, UserError
from reslab.recipe.recipe import Standardize

Result = TypeVar("Result")
LOST = "another process of this run has ended or cannot be reached"
SIGNS = ("gloo", "nccl", "connection closed by peer", "connection reset by peer", "broken pipe")
PATIENCE = timedelta(days=2)  # of those who wait while others download, validate or save
START = "start several processes with torchrun, or unset WORLD_SIZE to train with one"
SAID = "reslab/said"  # the process that increments this to 1 reports for all why the run ends


class Share(NamedTuple):
    """A process's images of a batch, and which part of the batch they are."""

    images: Tensor
    labels: Tensor
    part: Slice

    def chunks(self, size: int | None) -> list[tuple[Tensor, Tensor]]:
        """Split it into even chunks of `size` images (None: one chunk), as `cut_evenly` does."""
        sizes = cut_evenly(self.part, size=size)
        return list(zip(torch.split(self.images, sizes), torch.split(self.labels, sizes), strict=True))


@dataclass
class Team:
    """The processes of one run, as seen by one of them; a single process needs no communication."""

    device: torch.device
    rank: int = 0
    size: int = 1
    waiting: dist.ProcessGroup | None = None  # a group for waits that may be long

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def weigh(self, images: Tensor, labels: Tensor, *, of: int) -> Share:
        """Weight this process's part, images (M, C, H, W) and labels (M,), of a batch of `of` images."""
        return Share(images, labels, part_of(of, rank=self.rank, num_ranks=self.size))

    def measure(self, images: ImageSet) -> Standardize:
        """Measure mean and standard deviation of all images, each process on a part; all processes must call it."""
        if self.size == 1:
            return images.statistics()
        counts = images.subset(torch.arange(len(images.labels)).tensor_split(self.size)[self.rank]).count_values()
        dist.all_reduce(counts)
        return to_statistics(counts)

    def total(self, loss: Tensor, hits: Tensor, *, weight: float) -> tuple[Tensor, Tensor]:
        """Sum the weighted losses and the hits of all parts to those of the batch."""
        if self.size == 1:
            return loss, hits
        both = torch.stack([loss.double() / self.size, hits.double() * (weight > 0)])
        dist.all_reduce(both)
        return both[0].float(), both[1].long()

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return for each flag whether it is set in any process; all processes must call it."""
        if self.size == 1:
            return flags
        found = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return tuple(map(bool, found.tolist()))

    def from_first(self, make: Callable[[], Result]) -> Result:
        """Call `make` in the first process and return its result in all."""
        if self.size == 1:
            return make()
        made = [make() if self.is_first else None]
        dist.broadcast_object_list(made, device=torch.device("cpu"), group=self.waiting)
        return made[0]  # type: ignore[return-value]

    def in_turn(self, read: Callable[[], Result]) -> Result:
        """Let the first process of each host read before the others, so that they find what it has downloaded."""
        is_early = os.environ.get("LOCAL_RANK", "0") == "0"
        result = read() if is_early else None
        if self.size > 1:
            dist.barrier(self.waiting)
        return read() if result is None else result

    def wrap(self, model: nn.Module) -> nn.Module:
        """Average gradients over the processes in backward; all start with the first one's weights."""
        if self.size == 1:
            return model
        here = [self.device] if self.device.type == "cuda" else None
        wrapped = DistributedDataParallel(model, device_ids=here)
        # Batch norm's statistics are those of each process's part; those of the first process are saved.
        wrapped.broadcast_buffers = False
        if self.size > 2 and (here is None or torch.are_deterministic_algorithms_enabled()):
            wrapped.register_comm_hook(None, _add_in_order)
        return wrapped

    def reseed(self, seed: int, update: int) -> None:
        """Make dropout differ between processes; the first one's generator is saved in checkpoints."""
        if self.rank:
            torch.manual_seed(seeded(seed, "rank", self.rank, update).initial_seed())


def _add_in_order(_: object, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """Average gradients (P,), adding those of the processes in the order of their ranks.

    PyTorch's all-reduce adds three or more in an order that depends on their place in the bucket. After its first
    update, DistributedDataParallel changes the places, so a resumed run would round differently.
    """
    own = bucket.buffer()
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]

    def add(done: torch.futures.Future[object]) -> Tensor:
        done.value()  # raises an error if a process is lost
        return sum(parts[1:], parts[0]) / len(parts)

    gathered: torch.futures.Future[object] = dist.all_gather(parts, own, async_op=True).get_future()
    return gathered.then(add)


@contextmanager
def joined(device: torch.device) -> Iterator[Team]:
    """Join the other processes started by torchrun, if any, for the block.

    An error ends every process; one of them reports it, the others end silently.
    Raises: UserError if a host has too few GPUs; Failure if another process has ended.
    """
    size = _read_number("WORLD_SIZE", default=1)
    if size == 1:
        yield Team(device)
        return
    rank = _read_number("RANK")
    device = _own(device)
    shared = device.type == "cuda" and _read_number("LOCAL_WORLD_SIZE", default=1) > torch.cuda.device_count()
    try:
        dist.init_process_group("cpu:gloo,cuda:gloo" if shared or device.type == "cpu" else "cpu:gloo,cuda:nccl")
        team = Team(device, rank, size, dist.new_group(timeout=PATIENCE, backend="gloo"))
    except (ValueError, dist.DistError) as error:
        raise Failure(f"the {size} processes of this run do not find each other: {error}; {START}") from None
    try:
        yield team
    except (UserError, Failure, RuntimeError, OSError) as error:
        reason: Exception = error
        if is_lost(error):
            reason = Failure(LOST)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it now, but the error must be reported first
        if not _speaks():
            raise SystemExit(2 if isinstance(reason, UserError) else 1) from None
        raise reason from None
    team.waiting = None  # a group that is referred to keeps its threads, which could abort the process at its end
    dist.destroy_process_group()


def _read_number(name: str, *, default: int | None = None) -> int:
    """Read one of the environment variables that torchrun sets. Raises: UserError if it is not a number."""
    given = os.environ.get(name, "" if default is None else str(default))
    if not given.isdecimal() or (name == "WORLD_SIZE" and int(given) == 0):
        is_given = f"{given!r}, not a number of processes" if given else "not set, but WORLD_SIZE is"
        raise UserError(f"the environment variable {name} is {is_given}: {START}")
    return int(given)


def is_lost(error: BaseException) -> bool:
    """Return whether an error of PyTorch's means that another process is gone."""
    told = type(error) is RuntimeError and any(sign in str(error).lower() for sign in SIGNS)
    return told or isinstance(error, dist.DistError)


def _own(device: torch.device) -> torch.device:
    """Assign each process of a host its own GPU, unless a GPU is named; then all share it."""
    if device.type != "cuda" or device.index is not None:
        return device
    place = _read_number("LOCAL_RANK", default=0)
    if place >= torch.cuda.device_count():
        raise UserError(
            f"torchrun has started process {place + 1} of this host, which has {torch.cuda.device_count()} GPUs: "
            "lower --nproc-per-node, or compute with --device cpu"
        )
    torch.cuda.set_device(place)
    return torch.device("cuda", place)


def _speaks() -> bool:
    """Return whether this process is the first to end with an error."""
    try:
        store = dist.distributed_c10d._get_default_store()
        return int(store.add(SAID, 1)) == 1
    except RuntimeError:  # the store is gone with its host
        return True
