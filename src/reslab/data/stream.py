"""The order of an epoch whose images are streamed from shards: shuffled by shard and buffer.

The shards are shuffled, as many of them as fit into the buffer are read together, and their images are shuffled among
each other. Processes that train one run deal the shards out first, so that each reads its own. All of that depends on
the generator alone and nothing has been read for it, so an epoch resumes at any batch by reading from the border of
that batch's first shard.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from reslab.data.parts import part_of
from reslab.data.pixels import Pixels, Selected
from reslab.data.sources.shards import Sharded


class _Piece(NamedTuple):
    """Images of one shard, all or some: their places, and how many are read to have them."""

    places: Tensor
    num_read: int


def stream_order(
    images: Pixels, *, buffer: int, generator: torch.Generator, batches: Sequence[int], num_ranks: int = 1
) -> Tensor:
    """Choose the places of an epoch's images, shuffled, for `batches` of so many images, divided by the processes.

    A process's parts of all batches come from shards of its own; where two processes' images meet inside of a shard,
    both read it.
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
    """Sort the places of `images` by the shard in which they lie; shards without any are left out."""
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
    """Give each process shards in turn until it has its quota of images; a shard at a border goes to both in pieces."""
    places = torch.cat([shard.places for shard in shards])
    numbers = torch.repeat_interleave(torch.tensor([len(shard.places) for shard in shards]))
    dealt = []
    for mine, owners in zip(torch.split(places, quotas), torch.split(numbers, quotas), strict=True):
        found, counts = owners.unique_consecutive(return_counts=True)  # type: ignore[no-untyped-call]
        pieces = zip(torch.split(mine, counts.tolist()), found.tolist(), strict=True) if len(mine) else ()
        dealt.append([_Piece(piece, shards[number].num_read) for piece, number in pieces])
    return dealt


def _groups(pieces: list[_Piece], buffer: int) -> list[list[_Piece]]:
    """Put pieces together until the next one's shard would no longer fit."""
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
