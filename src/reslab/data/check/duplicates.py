"""Duplicate images: exact copies by their bytes, near copies by low frequencies and aligned correlation.

A near copy is the same picture mirrored, cropped by up to a fifth of its sides, brighter or darker, compressed or
downscaled. It is found in two steps. First, every image and five crops of it become short vectors of cosine
coefficients of brightness and color; products of these vectors find each image's nearest in the other set. Then these
pairs are aligned: the brightness of one is correlated with every window of the other, emphasizing edges.
Mirroring an image negates its odd horizontal frequencies, so one product of the even and one of the odd coefficients
give the similarity of both orientations: their sum and their difference.

Source: Barz & Denzler 2020, "Do We Train on Test Data? Purging CIFAR of Near-Duplicates", arXiv:1902.00423, for what
counts as near and how often it occurs in CIFAR.
Differs from it: they searched with a trained network's features and judged by eye; here no network is needed.
Thresholds were chosen on planted copies, and by eye on pairs from CIFAR-10's training split and from hand signs.
Axes: N, M images, P pairs, H rows, W columns, D coefficients, F frequencies a side, V windows.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import cycle, islice
from typing import Final

import torch
from torch import Tensor

from reslab.data.images import ImageSet
from reslab.data.pixels import BLOCK, Pixels, blocks_of
from reslab.data.progress import counting
from reslab.data.storage.blocks import resize

Pairs = tuple[tuple[int, int], ...]
Show = Callable[[int], None]

VERSION: Final = 1  # increase it when the search may find other pairs
SIDE: Final = 32  # images are compared at this size
LEAST_NEAR: Final = 0.75  # cosine of two short vectors above which to align
LEAST_ROUGH: Final = 0.6  # correlation at the best of few windows above which to try all windows
LEAST_ALIKE: Final = 0.9  # correlation of near copies at the best window
LEAST_ALIKE_COARSE: Final = 0.96  # the same without high frequencies; 99 % of crops by a fifth exceed it
LEAST_ALIKE_FEW: Final = 0.975  # the same for images with few details, such as enlarged drawings
FEW_DETAILS: Final = 0.2  # share of the energy; photographs of 32 pixels have more, digits of 8 pixels less
SMALLEST_WINDOW: Final = 25  # a crop by a fifth leaves 25.6
# Top, left and side of the windows searched: the image and five crops, which are close enough to all others.
WINDOWS: Final = ((0, 0, 32), (0, 0, 28), (0, 4, 28), (4, 0, 28), (4, 4, 28), (2, 2, 28))
_BRIGHTNESS, _COLOR, _COARSE, _FINE = 5, 2, 8, 12  # frequencies
_FLAT: Final = 2.0  # standard deviation of brightness (0 to 255) below which there is nothing to align
_ROWS, _COLUMNS = 512, 1024  # of a block of products, which stays in the processor's cache
_PAIRS: Final = 128  # aligned at once
_SEARCH: Final = "looking for near duplicates"

# Brightness and two differences of color (ITU-R BT.601).
_YCC: Final = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


@dataclass(frozen=True)
class Overlap:
    """Sorted pairs of indices (first set, second set); each image found is in one or more.

    Not every combination is listed: a hundred blank images in each set are a hundred exact pairs, not ten thousand.
    """

    exact: Pairs
    near: Pairs


def find_overlap(first: ImageSet, second: ImageSet) -> Overlap:
    """Find exact and near copies between two sets.

    Flat images can only be exact copies, and images with different numbers of channels are never copies. 50,000 x
    10,000 images take some seconds on one core; progress is shown on stderr from the fourth second on.
    """
    if first.images.shape[1] != second.images.shape[1] or not len(first.images) or not len(second.images):
        return Overlap(exact=(), near=())
    digests, others = _digests(first.images), _digests(second.images)
    ours, theirs = _Set(first.images), _Set(second.images)
    with counting(_SEARCH, total=len(ours) + len(theirs)) as show:
        pairs = _near(ours, theirs, show)
        pairs |= {(i, j) for j, i in _near(theirs, ours, lambda done: show(len(theirs) + done))}
    near = {(i, j) for i, j in pairs if digests[i] != others[j]}
    return Overlap(exact=_exact_pairs(digests, others), near=tuple(sorted(near)))


def find_repeats(images: ImageSet) -> Overlap:
    """Find copies within one set, as pairs of indices with the lower one first; see `find_overlap`."""
    if not len(images.images):
        return Overlap(exact=(), near=())
    digests, own = _digests(images.images), _Set(images.images)
    with counting(_SEARCH, total=len(own)) as show:
        found = _near(own, own, show)
    near = {(min(pair), max(pair)) for pair in found if digests[pair[0]] != digests[pair[1]]}
    return Overlap(exact=_repeated(digests), near=tuple(sorted(near)))


def find_exact(first: ImageSet, second: ImageSet) -> Overlap:
    """Find images with equal bytes in two sets."""
    return Overlap(exact=_exact_pairs(_digests(first.images), _digests(second.images)), near=())


def find_exact_repeats(images: ImageSet) -> Overlap:
    """Find images with equal bytes within one set; see `find_repeats`."""
    return Overlap(exact=_repeated(_digests(images.images)), near=())


def describe_overlap(overlap: Overlap, *, first: str, second: str) -> str:
    """Describe in one line how many images of the set called `first` occur in the one called `second`."""
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
    """Pair equal digests so that each member of a group occurs, without listing every combination."""
    groups: dict[bytes, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, digests in enumerate((first, second)):
        for place, digest in enumerate(digests):
            groups[digest][side].append(place)
    pairs: list[tuple[int, int]] = []
    for ours, theirs in groups.values():
        if ours and theirs:
            pairs += islice(zip(cycle(ours), cycle(theirs), strict=True), max(len(ours), len(theirs)))
    return tuple(sorted(pairs))


def _repeated(digests: list[bytes]) -> Pairs:
    """Pair each index with the first one of the same digest."""
    seen: dict[bytes, int] = {}
    pairs = ((seen.setdefault(digest, place), place) for place, digest in enumerate(digests))
    return tuple(sorted(pair for pair in pairs if pair[0] != pair[1]))


# ---- the images, and what is computed of them


class _Set:
    """Images (N, C, H, W) of any size, prepared for comparison."""

    def __init__(self, images: Tensor | Pixels) -> None:
        self.images = images
        # Brightness and, of color images, two differences of color.
        self.mixing = _YCC if images.shape[1] == 3 else torch.full((1, images.shape[1]), 1 / images.shape[1])

    def __len__(self) -> int:
        return len(self.images)

    def shrunk(self, places: Tensor | slice) -> Tensor:
        """Return images (N, C, 32 * 32) float."""
        return torch.from_numpy(resize(self.images[places].numpy(), SIDE)).flatten(2).float()

    def brightness(self, places: Tensor) -> Tensor:
        return (self.mixing[:1] @ self.shrunk(places)).reshape(-1, SIDE, SIDE)

    @cached_property
    def vectors(self) -> list[tuple[Tensor, Tensor]]:
        """Describe each window of each image by the even and odd parts of a unit vector, which is 0 if it is flat."""
        blocks, step = [], max(1, min(1024, BLOCK // math.prod(self.images.shape[1:])))
        for start in range(0, len(self), step):
            planes = (self.mixing @ self.shrunk(slice(start, start + step))).reshape(-1, len(self.mixing), SIDE, SIDE)
            is_flat = planes[:, 0].flatten(1).var(dim=1, correction=0) < _FLAT**2
            blocks.append([_describe(planes, window, is_flat) for window in WINDOWS])
        return [
            (torch.cat([even for even, _ in parts]), torch.cat([odd for _, odd in parts]))
            for parts in zip(*blocks, strict=True)
        ]


def _describe(planes: Tensor, window: tuple[int, int, int], is_flat: Tensor) -> tuple[Tensor, Tensor]:
    top, left, side = window
    coefficients = _cosines(top, side, _BRIGHTNESS) @ planes @ _cosines(left, side, _BRIGHTNESS).T
    brightness = coefficients[:, 0] * _emphasis(_BRIGHTNESS, 0.5)
    color = coefficients[:, 1:, :_COLOR, :_COLOR] * _emphasis(_COLOR, 0.5).clamp_min(1)
    even, odd = (
        torch.cat([brightness[..., start::2].flatten(1), color[..., start::2].flatten(1)], dim=1) for start in (0, 1)
    )
    norm = (even.square().sum(dim=1) + odd.square().sum(dim=1)).sqrt().clamp_min(1e-3)
    norm[is_flat] = torch.inf
    return even / norm[:, None], odd / norm[:, None]


@cache
def _cosines(start: int, side: int, num: int) -> Tensor:
    """Tabulate the lowest frequencies of the cosine transform of a window of `side` pixels, (num, 32)."""
    frequencies, pixels = torch.arange(num)[:, None], torch.arange(SIDE)
    inside = (pixels >= start) & (pixels < start + side)
    return torch.cos(math.pi / side * frequencies * (pixels - start + 0.5)) * inside / side


@cache
def _emphasis(num: int, power: float) -> Tensor:
    """Weight each pair of frequencies, (num, num), to make up for weak high ones in photographs; the mean weighs 0."""
    frequencies = torch.arange(num)
    return (frequencies[:, None] ** 2 + frequencies**2).float() ** (power / 2)


# ---- candidates


def _near(windowed: _Set, whole: _Set, show: Show) -> set[tuple[int, int]]:
    """Find pairs of indices where a window of the first image shows the same as the second image."""
    return _aligned(windowed, whole, _nearest(windowed, whole, show))


def _nearest(windowed: _Set, whole: _Set, show: Show) -> Tensor:
    """Pair each image of either set with its nearest in the other, one of which may be cropped: indices (P, 2)."""
    rows, columns = _Best(len(windowed)), _Best(len(whole))
    even, odd = (part.T for part in whole.vectors[0])
    for number, (own_even, own_odd) in enumerate(windowed.vectors):
        for left in range(0, len(whole), _COLUMNS):
            block_even, block_odd = (part[:, left : left + _COLUMNS].contiguous() for part in (even, odd))
            for top in range(0, len(windowed), _ROWS):
                similar = (own_odd[top : top + _ROWS] @ block_odd).abs_()
                similar.addmm_(own_even[top : top + _ROWS], block_even)
                if windowed is whole and -len(similar) < top - left < similar.shape[1]:
                    similar.diagonal(top - left).fill_(-1)  # an image is not its own copy
                rows.update(similar, start=top, other=left)
                columns.update(similar.T, start=left, other=top)
            show(round((number + left / len(whole)) / len(WINDOWS) * len(whole)))
    pairs: Tensor = torch.unique(torch.cat([rows.pairs(), columns.pairs().flip(1)]), dim=0)
    return pairs


class _Best:
    """The nearest image found so far for each of N images."""

    def __init__(self, num: int) -> None:
        self.value, self.place = torch.full((num,), LEAST_NEAR), torch.full((num,), -1)

    def update(self, similar: Tensor, *, start: int, other: int) -> None:
        """Update with the similarities (R, C) of the images from `start` on to those from `other` on."""
        value = similar.amax(dim=1)
        better = (value > self.value[start : start + len(value)]).nonzero()[:, 0]
        if len(better):
            self.value[start + better] = value[better]
            self.place[start + better] = other + similar[better].argmax(dim=1)

    def pairs(self) -> Tensor:
        found = (self.place >= 0).nonzero()[:, 0]
        return torch.stack([found, self.place[found]], dim=1)


# ---- alignment


def _aligned(windowed: _Set, whole: _Set, pairs: Tensor) -> set[tuple[int, int]]:
    """Keep the pairs (P, 2) where a window of the first image shows the same as the second image."""
    for step in (2, 1):
        kept = [chunk[_agree(windowed, whole, chunk, step=step)] for chunk in torch.split(pairs, _PAIRS)]
        pairs = torch.cat(kept) if kept else pairs
    return {(i, j) for i, j in pairs.tolist()}


def _agree(windowed: _Set, whole: _Set, pairs: Tensor, *, step: int) -> Tensor:
    """Return which pairs (P, 2) correlate at some window, as a mask (P,); only roughly if `step` skips windows."""
    windows = _spectra(windowed.brightness(pairs[:, 0]), step)
    target = _spectra(whole.brightness(pairs[:, 1]), SIDE)[:, 0]
    correlation, best = _correlate(windows, target[:, None]).max(dim=1)
    if step > 1:
        return correlation >= LEAST_ROUGH
    details = torch.maximum(_details(windows[:, 0]), _details(target))
    coarse = _correlate(*(_coarse(each) for each in (windows[torch.arange(len(pairs)), best], target)))
    alike = torch.where(details < FEW_DETAILS, LEAST_ALIKE_FEW, LEAST_ALIKE)
    return (correlation >= alike) & (coarse >= LEAST_ALIKE_COARSE)


def _correlate(first: Tensor, second: Tensor) -> Tensor:
    """Multiply spectra (..., F, F) of norm 1, mirroring the second if that is more similar."""
    even, odd = ((first[..., start::2] * second[..., start::2]).sum(dim=(-2, -1)) for start in (0, 1))
    return even + odd.abs()


def _coarse(spectra: Tensor) -> Tensor:
    """Drop the high frequencies of spectra (P, F, F), which a downscaled copy lacks, and normalise to 1 again."""
    return _normed(spectra[:, :_COARSE, :_COARSE])


def _normed(spectra: Tensor) -> Tensor:
    """Scale spectra (..., F, F) to norm 1; those of flat images stay near 0."""
    norm: Tensor = torch.linalg.vector_norm(spectra, dim=(-2, -1), keepdim=True)
    return spectra / norm.clamp_min(1e-3)


def _details(spectra: Tensor) -> Tensor:
    """Return the share of energy (P,) in the high frequencies of spectra (P, F, F) of norm 1."""
    return 1 - spectra[:, :_COARSE, :_COARSE].square().sum(dim=(1, 2))


def _spectra(brightness: Tensor, step: int) -> Tensor:
    """Compute spectra (P, V, F, F) of norm 1 of windows of images (P, 32, 32), every `step` pixels and sizes.

    The first window is the whole image.
    """
    num, found = len(brightness), []
    for side in range(SIDE, SMALLEST_WINDOW - 1, -step):
        starts = range(0, SIDE - side + 1, step)
        cosines = torch.cat([_cosines(start, side, _FINE) for start in starts])
        spectra = (cosines @ brightness @ cosines.T).reshape(num, len(starts), _FINE, len(starts), _FINE)
        found.append(spectra.transpose(2, 3).reshape(num, len(starts) ** 2, _FINE, _FINE))
    return _normed(torch.cat(found, dim=1) * _emphasis(_FINE, 1.0))
