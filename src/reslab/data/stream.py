"""The order of an epoch whose images are streamed from shards: shuffled by shard and buffer.

The shards are shuffled, as many of them as fit into the buffer are read together, and their images are shuffled among
each other. All of that hangs on the generator alone and nothing has been read for it, so that an epoch goes on from any
batch by reading from the border of that batch's first shard.
"""

import torch
from torch import Tensor

from reslab.data.pixels import Pixels, Selected
from reslab.data.shards import Sharded


def stream_order(images: Pixels, *, buffer: int, generator: torch.Generator, share: tuple[int, int] = (0, 1)) -> Tensor:
    """Choose the places of an epoch's images, shuffled.

    `share` is a process's number and how many there are: each has shards of its own, and as many images as the others;
    who has fewer begins again.
    """
    shards = [shard for shard in _places_by_shard(images) if len(shard)]
    rank, num_ranks = share
    mine = [shards[number] for number in torch.randperm(len(shards), generator=generator).tolist()][rank::num_ranks]
    order = torch.cat([_shuffled(group, generator) for group in _groups(mine, buffer)])
    wanted = len(images) // num_ranks
    return order.repeat(-(-wanted // len(order)))[:wanted]


def _places_by_shard(images: Pixels) -> list[Tensor]:
    """Sort the places of `images` by the shard in which they lie."""
    places = torch.arange(len(images))
    if isinstance(images, Selected):
        base, places = images.base, torch.from_numpy(images.places)
    else:
        base = images
    assert isinstance(base, Sharded)
    owners = torch.from_numpy(base.shards_of(places.numpy()))
    counts = torch.bincount(owners, minlength=len(base.counts))
    return list(torch.split(owners.argsort(stable=True), counts.tolist()))


def _groups(shards: list[Tensor], buffer: int) -> list[list[Tensor]]:
    """Put shards together until the next one would no longer fit."""
    groups: list[list[Tensor]] = []
    room = 0
    for shard in shards:
        if len(shard) > room:
            groups.append([])
            room = buffer
        groups[-1].append(shard)
        room -= len(shard)
    return groups


def _shuffled(group: list[Tensor], generator: torch.Generator) -> Tensor:
    places = torch.cat(group)
    return places[torch.randperm(len(places), generator=generator)]
