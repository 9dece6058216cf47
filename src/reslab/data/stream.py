"""The order of an epoch whose images are streamed from shards: shuffled by shard and buffer.

Shards are shuffled, then as many as fit into the buffer are read together and their images shuffled. With several
processes, the shards are first divided among them. The order depends only on the generator and needs no reading, so an
epoch can resume at any batch by reading from the first shard of that batch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from reslab.data.parts import part_of
from reslab.data.pixels import Pixels, Selected
from reslab.data.sources.shards import Sharded


class _Piece(NamedTuple):
    """All or some images of one shard: their indices, and how many images have to be read for them."""

    places: Tensor
    num_read: int


def stream_order(
    images: Pixels, *, buffer: int, generator: torch.Generator, batches: Sequence[int], num_ranks: int = 1
) -> Tensor:
    """Choose the shuffled indices of an epoch's images, for `batches` of the given sizes, divided among processes.

    Each process takes its parts of all batches from its own shards; a shard with images of two processes is read by
    both.
    """
    shards = _pieces(images)
    shuffled = [shards[number] for number in torch.randperm(len(shards), generator=generator).tolist()]
    parts = [[part_of(num, rank=rank, num_ranks=num_ranks).num_new for num in batches] for rank in range(num_ranks)]
    orders = []
    for mine, lengths in zip(_deal(shuffled, [sum(lengths) for lengths in parts]), parts, strict=True):
        groups = [_shuffled(group, generator) for group in _groups(mine, buffer)]
        orders.append(torch.split(torch.cat([torch.zeros(0, dtype=torch.int64), *groups]), lengths))
    return torch.cat([part for batch in zip(*orders, strict=True) for part in batch])


def _pieces(images: Pixels) -> list[_Piece]:
    """Group the indices of `images` by shard, leaving out shards without any."""
    places = torch.arange(len(images))
    if isinstance(images, Selected):
        base, places = images.base, torch.from_numpy(images.places)
    else:
        base = images
    assert isinstance(base, Sharded)
    owners = torch.from_numpy(base.shards_of(places.numpy()))
    counts = torch.bincount(owners, minlength=len(base.counts))
    by_shard = torch.split(owners.argsort(stable=True), counts.tolist())
    return [_Piece(*piece) for piece in zip(by_shard, base.counts.tolist(), strict=True) if len(piece[0])]


def _deal(shards: list[_Piece], quotas: list[int]) -> list[list[_Piece]]:
    """Assign shards to each process until its quota of images is reached; a shard at a boundary is split."""
    places = torch.cat([shard.places for shard in shards])
    numbers = torch.repeat_interleave(torch.tensor([len(shard.places) for shard in shards]))
    dealt = []
    for mine, owners in zip(torch.split(places, quotas), torch.split(numbers, quotas), strict=True):
        found, counts = owners.unique_consecutive(return_counts=True)  # type: ignore[no-untyped-call]
        pieces = zip(torch.split(mine, counts.tolist()), found.tolist(), strict=True) if len(mine) else ()
        dealt.append([_Piece(piece, shards[number].num_read) for piece, number in pieces])
    return dealt


def _groups(pieces: list[_Piece], buffer: int) -> list[list[_Piece]]:
    """Group pieces that fit into the buffer together."""
    groups: list[list[_Piece]] = []
    room = 0
    for piece in pieces:
        if piece.num_read > room:
            groups.append([])
            room = buffer
        groups[-1].append(piece)
        room -= piece.num_read
    return groups


def _shuffled(group: list[_Piece], generator: torch.Generator) -> Tensor:
    places = torch.cat([piece.places for piece in group])
    return places[torch.randperm(len(places), generator=generator)]
