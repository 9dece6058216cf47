"""Images that occur in two sets: exact copies by their bytes, near copies by a perceptual hash and their pixels.

Source: the DCT hash of Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions"; what counts
as near, and how often CIFAR has it, of Barz & Denzler 2020, "Do We Train on Test Data? Purging CIFAR of
Near-Duplicates", arXiv:1902.00423.
Differs from them: the signs of the 63 lowest coefficients at the image's own size, without scaling and median, so that
mirroring an image turns known signs; what the hash finds is checked on the pixels, where they searched by a trained
network's features and checked by eye: copies cropped or moved by more than a tenth of the side are not found, and
simple drawings that were enlarged (digits of 8 pixels shown with 32) are called near too often.
Axes: N images, C channels, H rows, W columns, P pairs, B bits.
"""

import hashlib
import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

import torch
from torch import Tensor

from reslab.data.images import ImageSet
from reslab.data.pixels import Pixels, blocks_of

Pairs = tuple[tuple[int, int], ...]

# Chosen by eye on CIFAR-10's training against its test images: beyond these, ships on open water become copies.
MAX_DISTANCE: Final = 10  # of 63 bits
_MIN_CORRELATION: Final = 0.9
_MAX_DIFFERENCE: Final = 20.0  # mean over the pixels, of 255
_FLAT: Final = 2.0  # deviation of the luma in levels: below it the hash is noise
_FREQUENCIES: Final = 8
_BLOCK: Final = 1 << 22  # numbers in memory at a time


@dataclass(frozen=True)
class Overlap:
    """Pairs of places (first set, second set), sorted; each image found is in one or more.

    Not every combination is listed: a hundred blank images in each set are a hundred exact pairs, not ten thousand.
    """

    exact: Pairs
    near: Pairs


def find_overlap(first: ImageSet, second: ImageSet, *, max_distance: int = MAX_DISTANCE) -> Overlap:
    """Find what `first` and `second` share: equal bytes, and nearly equal pictures, also mirrored left to right.

    Near copies differ in at most `max_distance` of 63 bits and agree in their pixels up to brightness and a small
    shift; each image is compared with its nearest in the other set. Flat images can only be exact copies, and images
    of different sizes or channels none. 50,000 x 10,000 images of 32 pixels take seconds on one core.
    """
    if first.images.shape[1:] != second.images.shape[1:] or not len(first.images) or not len(second.images):
        return Overlap(exact=(), near=())
    digests, others = _digests(first.images), _digests(second.images)
    near = {(i, j) for i, j in _near_pairs(first.images, second.images, max_distance) if digests[i] != others[j]}
    return Overlap(exact=_exact_pairs(digests, others), near=tuple(sorted(near)))


def describe_overlap(overlap: Overlap, *, first: str, second: str) -> str:
    """Say in one line how many images of the set called `first` occur in the one called `second`."""
    exact = {place for place, _ in overlap.exact}
    near = {place for place, _ in overlap.near} - exact
    if not exact and not near:
        return f"no image of {first} occurs in {second}"
    shown, how = (exact, "exactly") if exact else (near, "nearly")
    subject = f"1 image of {first} occurs" if len(shown) == 1 else f"{len(shown):,} images of {first} occur"
    more = f", {len(near):,} more nearly" if exact and near else ""
    return f"{subject} {how} in {second}{more}"


# ---- exact copies


def _digests(images: Tensor | Pixels) -> list[bytes]:
    return [hashlib.sha256(image.tobytes()).digest() for block in blocks_of(images) for image in block.numpy()]


def _exact_pairs(first: list[bytes], second: list[bytes]) -> Pairs:
    """Pair equal digests so that each place of a group occurs, without listing every combination."""
    groups: dict[bytes, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, digests in enumerate((first, second)):
        for place, digest in enumerate(digests):
            groups[digest][side].append(place)
    pairs: list[tuple[int, int]] = []
    for ours, theirs in groups.values():
        if ours and theirs:
            pairs += islice(zip(cycle(ours), cycle(theirs), strict=True), max(len(ours), len(theirs)))
    return tuple(sorted(pairs))


# ---- near copies


def _near_pairs(first: Tensor | Pixels, second: Tensor | Pixels, max_distance: int) -> list[tuple[int, int]]:
    """Find the pairs whose hashes and pixels agree, as they are and with the second image mirrored."""
    (ours, bits), (theirs, other_bits) = _hashes(first), _hashes(second)
    if not len(ours) or not len(theirs):
        return []
    # Mirroring an image negates its odd horizontal frequencies.
    parity = torch.arange(bits.shape[1] + 1) % min(_FREQUENCIES, first.shape[3]) % 2
    found: list[list[int]] = []
    for mirrored, signs in ((False, 1), (True, 1 - 2 * parity[1:])):
        places = _nearest(bits, other_bits * signs, max_distance)
        pairs = torch.stack([ours[places[:, 0]], theirs[places[:, 1]]], dim=1)
        for start in range(0, len(pairs), 1024):
            chunk = pairs[start : start + 1024]
            found += chunk[_agree(first, second, chunk, mirrored)].tolist()
    return [(i, j) for i, j in found]


def _luma(images: Tensor) -> Tensor:
    """Turn images (N, C, H, W) into their brightness (N, H, W), 0 to 255: Rec. 601 for colour, else the mean."""
    channels = images.shape[1]
    weights = torch.tensor([0.299, 0.587, 0.114] if channels == 3 else [1 / channels] * channels)
    return torch.einsum("nchw,c->nhw", images.float(), weights)


def _hashes(images: Tensor | Pixels) -> tuple[Tensor, Tensor]:
    """Hash the images (N, C, H, W) that are not flat: their places (M,) and bits (M, B) as -1 or 1."""
    height, width = images.shape[2:]
    rows, columns = _cosines(height), _cosines(width)
    places, bits = [], []
    for start in range(0, len(images), 1024):
        luma = _luma(images[start : start + 1024])
        kept = luma.flatten(1).std(dim=1, correction=0) >= _FLAT
        # The mean (the first coefficient) is left out, and the margin keeps rounding from choosing a zero's sign.
        coefficients = (rows @ luma[kept] @ columns.T).flatten(1)[:, 1:]
        bits.append(torch.where(coefficients > 0.01, 1.0, -1.0))
        places.append(start + kept.nonzero()[:, 0])
    return torch.cat(places), torch.cat(bits)


def _cosines(size: int) -> Tensor:
    """Tabulate the lowest frequencies of the cosine transform of `size` pixels, (at most 8, size)."""
    frequencies, pixels = torch.arange(min(_FREQUENCIES, size)), torch.arange(size)
    return torch.cos(math.pi / size * frequencies[:, None] * (pixels + 0.5))


def _nearest(first: Tensor, second: Tensor, max_distance: int) -> Tensor:
    """Pair every hash (N, B) of either set with its nearest in the other, if near enough: places (P, 2)."""
    num_bits = first.shape[1]
    least = num_bits - 2 * max_distance  # the product of two hashes is their equal bits minus the others
    best, best_place = torch.full((len(second),), -torch.inf), torch.zeros(len(second), dtype=torch.int64)
    pairs: list[tuple[int, int]] = []
    num_rows = max(1, _BLOCK // len(second))
    for start in range(0, len(first), num_rows):
        products = first[start : start + num_rows] @ second.T
        value, place = products.max(dim=1)
        row = (value >= least).nonzero()[:, 0]
        pairs += zip((start + row).tolist(), place[row].tolist(), strict=True)
        value, place = products.max(dim=0)
        better = value > best
        best[better], best_place[better] = value[better], start + place[better]
    column = (best >= least).nonzero()[:, 0]
    pairs += zip(best_place[column].tolist(), column.tolist(), strict=True)
    return torch.tensor(sorted(set(pairs)), dtype=torch.int64).reshape(-1, 2)


def _agree(first: Tensor | Pixels, second: Tensor | Pixels, pairs: Tensor, mirrored: bool) -> Tensor:
    """Say which pairs (P, 2) show the same pixels at some small shift, apart from their mean brightness: (P,)."""
    ours, theirs = _luma(first[pairs[:, 0]]), _luma(second[pairs[:, 1]])
    theirs = theirs.flip(2) if mirrored else theirs
    height, width = ours.shape[1:]
    side = min(height, width)
    shift = min(3, side // 10)
    # Small images have fewer details in which two different ones could differ.
    least = max(_MIN_CORRELATION, 1 - side / 320)
    centre, centre_norm = _centred(ours[:, shift : height - shift, shift : width - shift])
    agreed = torch.zeros(len(pairs), dtype=torch.bool)
    for top in range(2 * shift + 1):
        for left in range(2 * shift + 1):
            window, norm = _centred(theirs[:, top : top + height - 2 * shift, left : left + width - 2 * shift])
            alike = (centre * window).sum(dim=1) >= least * centre_norm * norm
            agreed |= alike & ((centre - window).abs().mean(dim=1) <= _MAX_DIFFERENCE)
    return agreed


def _centred(luma: Tensor) -> tuple[Tensor, Tensor]:
    """Take the mean from each image (P, H, W): (P, H * W) and its norm (P,), above 0 also where it is flat."""
    flat = luma.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    return flat, flat.norm(dim=1).clamp_min(1e-3)
