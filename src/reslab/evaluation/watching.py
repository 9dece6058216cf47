"""Check whether new pictures resemble those that a network was evaluated on.

Source: Rabanser et al. 2019, "Failing Loudly: An Empirical Study of Methods for Detecting Dataset Shift",
arXiv:1810.11953.
Differs from it: energy distances with permutations, on features of the network itself, and on plain properties of the
pictures, so that a person can tell what has changed.
Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from reslab.data.answers import Unread, find_pictures, read_sound
from reslab.data.pictures import LUMA
from reslab.errors import UserError, in_shell
from reslab.evaluation.gallery import choose_sample, shrink
from reslab.machine import kernels
from reslab.measure.metrics import Floats, Integers, softmax
from reslab.measure.two_sample import energy_tests, holm
from reslab.network.network import Network
from reslab.runs import Features, GalleryImages, Run, read_exhibit
from reslab.words import counted, listing, percent

__all__ = ["Aspect", "Watched", "watch"]

FEWEST, MOST = 10, 1000  # pictures
ENOUGH = 200  # pictures needed to detect a small change
ALARM_AT = 0.01  # the significance level: the share of unchanged folders with a false alarm
SHOWN_CLASSES = 3
ALIKE = 0.1  # standard deviations between two averages that are called nearly the same


@dataclass(frozen=True)
class Seen:
    """What is compared of images: features (N, D), logits (N, K), and brightness, contrast and detail, each (N,)."""

    features: Floats
    logits: Floats
    pictures: dict[str, Floats]

    def subset(self, places: Integers) -> "Seen":
        """Choose images by their indices."""
        chosen = {name: values[places] for name, values in self.pictures.items()}
        return Seen(self.features[places], self.logits[places], chosen)


@dataclass(frozen=True)
class Aspect:
    """One aspect that is compared: its means over held-out images and new pictures, if it has any, and the conclusion.

    `p_value` is how often pictures like the held-out ones would differ as much in any aspect, by Holm's correction.
    """

    name: str
    before: float | None
    now: float | None
    p_value: float
    changed: bool
    sentence: str


@dataclass(frozen=True)
class Watched:
    """How new pictures differ from held-out ones."""

    num_pictures: int
    num_compared: int
    num_reference: int
    aspects: tuple[Aspect, ...]
    unread: tuple[Unread, ...]

    @property
    def changed(self) -> bool:
        """Whether anything has changed."""
        return any(each.changed for each in self.aspects)

    @property
    def summary(self) -> str:
        """A sentence on how certain that is."""
        least = min(each.p_value for each in self.aspects)
        if self.changed:
            return (
                f"Pictures like the test images would differ as much in at most {percent(least, decimals=1)} of cases."
            )
        few = [
            counted(num, what)
            for num, what in ((self.num_compared, "picture"), (self.num_reference, "test image"))
            if num < ENOUGH
        ]
        return f"Nothing has changed (p = {least:.2f}){f', but {listing(few)} show large changes only' if few else ''}."


def watch(run: Run, *, files: Sequence[Path], device: str = "auto") -> Watched:
    """Compare new pictures with the held-out ones of a run.

    The reference is the sample of test images that `evaluate` keeps in the run folder; no data is read again.

    Parameters
    ----------
    run : Run
        A run whose test split is evaluated.
    files : sequence of Path
        Pictures, or folders of them. Of more than 1,000 a random sample is compared.
    device : str, default "auto"
        `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU if there is one.

    Returns
    -------
    Watched
        Six aspects, each with a p value after Holm's correction; `changed` is True if any of those is at most 1 %.

    Raises
    ------
    UserError
        If the run is not evaluated, or there are fewer than 10 pictures.

    Examples
    --------
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> import reslab
    >>> Path("dark").mkdir()
    >>> for place, image in enumerate(reslab.load("digits:1,4,7", "test", image_size=8).images[:40, 0].numpy()):
    ...     Image.fromarray(image // 3).save(f"dark/{place}.png")
    >>> found = reslab.watch(reslab.Run.open("runs/digits"), files=[Path("dark")])
    >>> found.changed, next(each.sentence for each in found.aspects if each.name == "brightness")[:17]
    (True, 'They are darker: ')
    """
    network = Network.load(run.path, device=device)
    kernels.enable(network.device)
    reference = read_reference(run, network)
    paths = find_pictures(files)
    if len(paths) < FEWEST:
        raise _too_few(len(paths))
    chosen = [paths[place] for place in choose_sample(len(paths), most=MOST)]
    _, images, unread = read_sound(
        chosen,
        image_size=network.image_size,
        channels=network.channels,
        resize=network.resize,
        white=network.white,
        what="watch",
    )
    if len(images) < FEWEST:
        raise _too_few(len(images))
    aspects = compare(reference, look_at(network, images), classes=network.classes)
    return Watched(len(paths), len(images), len(reference.logits), aspects, tuple(unread))


def _too_few(num: int) -> UserError:
    too_few = f"{counted(num, 'picture')} {'is' if num == 1 else 'are'} too few"
    return UserError(f"{too_few} to tell whether they differ: give {FEWEST} or more")


def read_reference(run: Run, network: Network) -> Seen:
    """Read the test images that evaluation has kept. Raises: UserError if there are none or too few."""
    kept, gallery = read_exhibit(run.path, "test", Features), read_exhibit(run.path, "test", GalleryImages)
    if kept is None or gallery is None:
        raise UserError(
            f"{run.path} keeps no test images to compare with: "
            + (
                "it is a trial, whose test split stays closed"
                if run.recipe.trial
                else f"run reslab evaluate {in_shell(run.path)} first"
            )
        )
    logits = run.read_predictions("test").logits
    places = np.searchsorted(gallery.indices, kept.indices)
    is_whole = kept.indices.max(initial=-1) < min(len(logits), 1 + gallery.indices.max(initial=-1))
    if kept.features.shape[1] != network.module.head.in_features or not is_whole:
        raise UserError(f"{run.path} was evaluated with other weights: run reslab evaluate {in_shell(run.path)} again")
    if len(kept.indices) < FEWEST:
        raise UserError(f"{run.path} has {len(kept.indices)} test images, too few to compare with: {FEWEST} are needed")
    of_these = logits[kept.indices].astype(np.float64)
    return Seen(kept.features.astype(np.float64), of_these, measure_pictures(gallery.images[places]))


def look_at(network: Network, images: NDArray[np.uint8]) -> Seen:
    """Compute what is compared of stored images (N, C, H, W)."""
    pixels = torch.from_numpy(images)
    features = network.features(pixels)
    with torch.inference_mode():
        logits = network.module.head(features.to(network.device)).float().cpu()
    return Seen(features.double().numpy(), logits.double().numpy(), measure_pictures(shrink(pixels).numpy()))


def compare(before: Seen, now: Seen, *, classes: Sequence[str]) -> tuple[Aspect, ...]:
    """Test six aspects of the images, and say what has changed."""
    first, second = _describe(before), _describe(now)
    samples = {name: np.concatenate([first[name], second[name]]) for name in first}
    # Scaled by both samples together: a sample that alone sets the scale would differ by that alone.
    scale = samples["features"].std(axis=0)
    samples["features"] = samples["features"] / np.maximum(scale, scale.mean() / 10 + 1e-12)
    p_values = holm(energy_tests(list(samples.values()), num_reference=len(before.logits)))
    return tuple(
        _judge(name, first[name], second[name], p_value=p_value, classes=classes)
        for name, p_value in zip(samples, p_values, strict=True)
    )


def _describe(seen: Seen) -> dict[str, Floats]:
    """Return everything that is compared, each (N, D)."""
    probabilities = softmax(seen.logits)
    guesses = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    return {
        "features": seen.features,
        "confidence": probabilities.max(axis=1, keepdims=True),
        "class mix": guesses,
        **{name: values[:, None] for name, values in seen.pictures.items()},
    }


def measure_pictures(images: NDArray[np.uint8]) -> dict[str, Floats]:
    """Compute the brightness, contrast and fine detail of images (N, C, H, W) uint8, each (N,).

    Brightness is the mean of the grey values, from 0 to 1, contrast their standard deviation. Fine detail is the
    standard deviation of their Laplacian relative to their own: blur lowers it, noise raises it.
    """
    weights = LUMA if images.shape[1] == len(LUMA) else np.full(images.shape[1], 1 / images.shape[1])
    grey = np.tensordot(images.astype(np.float64) / 255, weights, axes=(1, 0))
    edges = _laplacian(grey)
    variance = grey.var(axis=(1, 2))
    tiny = 1 / 255**2
    detail = np.sqrt((edges.var(axis=(1, 2)) + tiny) / (variance + tiny))
    return {"brightness": grey.mean(axis=(1, 2)), "contrast": np.sqrt(variance), "fine detail": detail}


def _laplacian(grey: Floats) -> Floats:
    """Subtract each pixel's four neighbours from four times the pixel, (N, H, W); edge pixels repeat outwards."""
    wide = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    return 4 * grey - wide[:, :-2, 1:-1] - wide[:, 2:, 1:-1] - wide[:, 1:-1, :-2] - wide[:, 1:-1, 2:]


# ---- in words


def _judge(name: str, before: Floats, now: Floats, *, p_value: float, classes: Sequence[str]) -> Aspect:
    changed = p_value <= ALARM_AT
    then, here = (float(before.mean()), float(now.mean())) if before.shape[1] == 1 else (None, None)
    return Aspect(name, then, here, p_value, changed, _say(name, before, now, classes=classes) if changed else "")


def _say(name: str, before: Floats, now: Floats, *, classes: Sequence[str]) -> str:
    """Describe how images (N, D) differ in an aspect."""
    then, here = before.mean(), now.mean()
    rises = bool(here > then)
    match name:
        case "features":
            return "The network sees something else in them: its features differ."
        case "class mix":
            return f"Their classes differ: {_say_classes(before.mean(axis=0), now.mean(axis=0), classes)}."
        case _ if abs(here - then) < ALIKE * max(before.std(), now.std()):
            what = "The network's confidence" if name == "confidence" else f"Their {name}"
            return f"{what} is spread differently around nearly the same average."
        case "confidence":
            how = "surer" if rises else "less sure"
            return f"The network is {how} of them: {_whole(here)} on average instead of {_whole(then)}."
        case "brightness":
            how = "brighter" if rises else "darker"
            return f"They are {how}: {_whole(here)} of white on average instead of {_whole(then)}."
        case "contrast":
            how = "more" if rises else "less"
            return (
                f"They have {how} contrast: a standard deviation of {_whole(here)} of white instead of {_whole(then)}."
            )
        case _:
            how = "noisier or sharper" if rises else "blurrier"
            return f"They are {how}: {here / then:.2f} times as much fine detail."


def _say_classes(before: Floats, now: Floats, classes: Sequence[str]) -> str:
    """Name the classes whose shares (K,) differ most."""
    order = np.argsort(-np.abs(now - before), kind="stable")[:SHOWN_CLASSES]
    return ", ".join(f"{_whole(now[place])} {classes[place]} instead of {_whole(before[place])}" for place in order)


def _whole(share: float) -> str:
    return percent(share, decimals=0)
