"""Arrays to PNG bytes, drawn at twice the size at which a page shows them.

Sizes are pixels of the page. The colours are Okabe and Ito's and one single-hue map, which can be told apart without
red and green, and in grey. Neither matplotlib's global state nor a user's settings have any effect.
Axes: C channels, H rows, W columns, K classes.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle, product
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, ScalarFormatter
from numpy.typing import NDArray
from PIL import Image

from reslab.data.pictures import to_rgb
from reslab.language import decimal, say, short

NUMBERS_UP_TO = 25  # classes; above, the cells of a matrix are too small for numbers
SIDE_BY_SIDE_UP_TO = 10  # classes; above, a matrix takes the width of the page
LARGEST = 96  # pixels of a thumbnail; smaller images stay as they are and the page enlarges them

_HALF, _FULL = 450, 900
_PIXELS_PER_INCH = 100
_LEGEND_LINE = 17  # pixels
_A_LINE, _HALF_A_LINE = 60, 28  # letters of a name in a legend of one column, of two
_BLUE, _INK, _FAINT = "#0072B2", "#222222", "#8a8a8a"
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F", "#B2182B", "#7B4FA3")
_DASHES = ("-", "--", "-.", ":")
_FIRST = ((_BLUE, "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#CC79A7", ":"), ("#56B4E9", "-"), ("#E69F00", "--"))
LOOKS = tuple(dict.fromkeys((*_FIRST, *((color, dashes) for dashes, color in product(_DASHES, _COLORS)))))
_MARKS = ("o", "s", "D", "P", "^", "*", "X", "v", "p", "h")
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.edgecolor": _FAINT,
    "axes.linewidth": 0.6,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _INK,
    "text.parse_math": False,  # a class may be called $x$
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}


@contextmanager
def _style() -> Iterator[None]:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def _new(width: float, height: float) -> Figure:
    return Figure((width / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH), layout="constrained")


def _png(figure: Figure) -> bytes:
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if isinstance(axis.get_major_formatter(), ScalarFormatter):
            axis.set_major_formatter(FuncFormatter(lambda value, _: short(value, 5).replace("-", "\u2212")))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=2 * _PIXELS_PER_INCH)
    # A palette takes a third of the bytes, and these drawings have few colours.
    few = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small = io.BytesIO()
    few.save(small, format="PNG", optimize=True)
    return small.getvalue()


# ---- legends


def _put_legend_below(figure: Figure, axes: Axes) -> None:
    """Put the legend below the axes, where it can hide no curve, and make the figure taller by as much."""
    handles, names = axes.get_legend_handles_labels()
    names = [name if len(name) <= _A_LINE else f"…{name[1 - _A_LINE :]}" for name in names]  # paths differ at the end
    across = 2 if max(map(len, names)) <= _HALF_A_LINE else 1
    width, height = figure.get_size_inches()
    lines = -(-len(names) // across)
    figure.set_size_inches(width, height + lines * _LEGEND_LINE / _PIXELS_PER_INCH)
    figure.legend(handles, names, loc="outside lower center", ncols=across)


def _in_legend(name: str) -> str:
    """Keep a name in the legend: matplotlib leaves out those that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


# ---- learning curves


def learning_curve(
    curves: Mapping[str, NDArray[np.float64]],
    *,
    label: str,
    marks: Sequence[tuple[int, float]] = (),
    rates: NDArray[np.float64] | None = None,
) -> bytes:
    """Draw named curves, one value per epoch, over the epochs counted from 1.

    `marks` are (epochs done, new learning rate), drawn as vertical lines; `rates`, one per epoch, as a strip below.
    """
    with _style():
        figure = _new(_HALF, 290 if rates is None else 340)
        main, *below = (figure.subplots(),) if rates is None else _two_rows(figure, 6)
        for (name, values), (color, dashes) in zip(curves.items(), cycle(LOOKS), strict=False):
            marker = "o" if len(values) <= 15 else None
            epochs = np.arange(1, len(values) + 1)
            main.plot(epochs, values, dashes, color=color, label=_in_legend(name), marker=marker, ms=3, lw=1.4)
        most = max(map(len, curves.values()))
        main.set(ylabel=label, xlim=(0, max(1.02 * most, most + 0.3)))
        main.grid(axis="y")
        _put_legend_below(figure, main)
        _mark_rates(main, marks)
        if rates is not None:
            _draw_rates(below[0], rates)
        last = figure.axes[-1]
        last.set_xlabel(say("epoch"))
        last.xaxis.set_major_locator(MaxNLocator(integer=True))
        return _png(figure)


def _two_rows(figure: Figure, ratio: int) -> tuple[Axes, Axes]:
    above, below = figure.subplots(2, sharex=True, height_ratios=[ratio, 1])
    return above, below


def _mark_rates(axes: Axes, marks: Sequence[tuple[int, float]]) -> None:
    written = -np.inf
    for place, rate in marks:
        if place:
            axes.axvline(place, color=_FAINT, lw=0.8, ls=(0, (4, 3)), zorder=1)
        # A label too close to the previous one would overlap it.
        if (place - written) / axes.get_xlim()[1] > 0.1:
            axes.text(place, 1.01, short(rate, 3), transform=axes.get_xaxis_transform(), ha="center", size=7)
            written = place


def _draw_rates(axes: Axes, rates: NDArray[np.float64]) -> None:
    epochs = np.arange(1, len(rates) + 1)
    axes.fill_between(epochs, rates, color=_FAINT, alpha=0.3, lw=0)
    axes.plot(epochs, rates, color=_FAINT, lw=1)
    axes.set_ylim(0, 1.05 * rates.max() or 1)
    axes.set_ylabel(say("rate"))


# ---- the strength of the prior's removal


def prior_curves(
    taus: NDArray[np.float64],
    *,
    curves: Mapping[str, NDArray[np.float64]],
    band: tuple[NDArray[np.float64], NDArray[np.float64]],
    chosen: float,
) -> bytes:
    """Draw named curves (T,) over tau (T,), the first one bold and with its band, and a line at the chosen tau."""
    with _style():
        figure = _new(_HALF, 320)
        axes = figure.subplots()
        axes.axvline(chosen, color=_FAINT, lw=0.8, ls=(0, (4, 3)), zorder=1)
        axes.text(chosen, 1.01, short(chosen), transform=axes.get_xaxis_transform(), ha="center", size=7)
        axes.fill_between(taus, *band, color=_BLUE, alpha=0.12, lw=0)
        for place, ((name, values), (color, dashes)) in enumerate(zip(curves.items(), cycle(LOOKS), strict=False)):
            axes.plot(taus, values, dashes, color=color, label=name, marker="o", ms=3, lw=1.2 if place else 2)
        axes.set(
            xlabel=say("tau: 0 keeps the data's prior, 1 removes it"),
            ylabel=say("validation images (%)"),
            xlim=(-0.03, 1.03),
        )
        axes.grid(axis="y")
        _put_legend_below(figure, axes)
        return _png(figure)


# ---- confusion matrices


def matrix(counts: NDArray[np.int64], *, classes: Sequence[str], by_row: bool, num_old: int = 0) -> bytes:
    """Draw a confusion matrix (K, K): counts of images, or percent of each true class if `by_row`.

    Lines divide the first `num_old` classes from the others.
    """
    num = len(classes)
    sums = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    values = 100 * counts / sums if by_row else counts.astype(np.float64)
    side = _HALF if num <= SIDE_BY_SIDE_UP_TO else min(130 + 42 * num, _FULL)
    with_numbers = num <= NUMBERS_UP_TO
    with _style():
        figure = _new(side, side if with_numbers else 0.88 * side)
        axes = figure.subplots()
        # The square root makes rare confusions visible next to the diagonal.
        norm = PowerNorm(0.5, vmin=0, vmax=100 if by_row else max(values.max(), 1))
        image = axes.imshow(values, cmap="Blues", norm=norm)
        cell = 0.75 * side / num  # about, in pixels
        _name_classes(axes, classes, cell)
        if num_old:
            axes.axhline(num_old - 0.5, color=_INK, linewidth=0.8)
            axes.axvline(num_old - 0.5, color=_INK, linewidth=0.8)
        if with_numbers:
            _write_numbers(axes, values, cell, dark=_is_dark(image.cmap(norm(values))), by_row=by_row)
        else:
            bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, ticks=MaxNLocator(6, integer=True))
            bar.outline.set_visible(False)
        return _png(figure)


def _name_classes(axes: Axes, classes: Sequence[str], cell: float) -> None:
    step = max(1, round(7 / cell))  # every n-th if the names would overlap
    places = range(0, len(classes), step)
    names = [short_name(classes[place], number=place + 1) for place in places]
    size = min(8.0, 0.62 * cell * step)
    too_wide = max(map(len, names)) * size * 0.85 > cell
    axes.set_xticks(places, names, size=size, rotation=90 if len(classes) > 12 else 45 if too_wide else 0)
    if too_wide and len(classes) <= 12:
        for text in axes.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(places, names, size=size)
    axes.set_xlabel(say("predicted class"))
    axes.set_ylabel(say("true class"))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def short_name(name: str, *, number: int) -> str:
    """Shorten a class name for an axis; a name that the font cannot write becomes the class's number."""
    name = " ".join(name.split())
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    if not name or not all(font.get_char_index(ord(letter)) for letter in name):
        return say("no. {number}", number=number)
    return name if len(name) <= 16 else name[:15] + "…"


def _write_numbers(
    axes: Axes, values: NDArray[np.float64], cell: float, *, dark: NDArray[np.bool_], by_row: bool
) -> None:
    widest = max(len(_number(value, by_row=by_row)) for value in values.flat)
    size = min(8.0, 0.97 * cell / max(widest, 2))
    for (row, column), value in np.ndenumerate(values):
        if value:
            color = "white" if dark[row, column] else _INK
            axes.text(column, row, _number(value, by_row=by_row), ha="center", va="center", size=size, color=color)


def _is_dark(colors: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell on which colours (..., RGBA) white text has more contrast than dark text, by WCAG's relative luminance."""
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    luminance = linear[..., :3] @ np.array([0.2126, 0.7152, 0.0722])
    ink = 0.016  # of _INK
    dark: NDArray[np.bool_] = 1.05 / (luminance + 0.05) > (luminance + 0.05) / (ink + 0.05)
    return dark


def _number(value: float, *, by_row: bool) -> str:
    return decimal(value, 1) if by_row and value < 100 else f"{value:.0f}"


# ---- calibration


def reliability_diagram(
    *,
    certainty: NDArray[np.float64],
    accuracy: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    share: NDArray[np.float64],
) -> bytes:
    """Draw accuracy over mean certainty, one point per bin (B,), in the band of its interval from `low` to `high`.

    Below is the share of images in each bin.
    """
    with _style():
        figure = _new(_HALF, 400)
        axes, below = _two_rows(figure, 4)
        axes.plot([0, 100], [0, 100], color=_FAINT, lw=0.8, ls=(0, (4, 3)))
        axes.fill_between(100 * certainty, 100 * low, 100 * high, color=_BLUE, alpha=0.15, lw=0)
        axes.plot(100 * certainty, 100 * accuracy, "o-", color=_BLUE, ms=4, lw=1.2)
        axes.set(xlim=(0, 100), ylim=(0, 102), ylabel=say("accuracy (%)"))
        axes.grid()
        below.bar(100 * certainty, 100 * share, width=3, color=_BLUE)
        below.set(ylabel=say("images (%)"), xlabel=say("probability of the predicted class (%)"))
        return _png(figure)


# ---- answers that are held back


def selection_curves(
    curves: Mapping[str, tuple[NDArray[np.float64], ...]], *, promised: float, kept: tuple[float, float] | None
) -> bytes:
    """Draw accuracy over the share answered: named curves of shares (P,), accuracies, and the ends of a band.

    A vertical line marks the promised share, and a dot the network's actual share and accuracy.
    """
    with _style():
        figure = _new(_HALF, 340)
        axes = figure.subplots()
        axes.axvline(100 * promised, color=_FAINT, lw=0.8, ls=(0, (4, 3)), zorder=1)
        label = say("{share} % promised", share=short(100 * promised))
        axes.text(100 * promised, 1.01, label, transform=axes.get_xaxis_transform(), ha="center", size=7)
        for (name, values), (color, dashes) in zip(curves.items(), LOOKS, strict=False):
            share, accuracy, low, high = (100 * each for each in values)
            axes.fill_between(share, low, high, color=color, alpha=0.12, lw=0)
            axes.plot(share, accuracy, dashes, color=color, label=name, lw=1.2)
        if kept is not None:
            axes.plot(100 * kept[0], 100 * kept[1], "o", color=_INK, ms=5)
        axes.set(xlabel=say("test images that are answered (%)"), ylabel=say("accuracy of these (%)"), xlim=(0, 101))
        axes.grid()
        _put_legend_below(figure, axes)
        return _png(figure)


# ---- features


def scatter(points: NDArray[np.float64], *, labels: NDArray[np.int64], classes: Sequence[str]) -> bytes:
    """Draw points (M, 2) with a colour and a mark for each class."""
    with _style():
        figure = _new(_FULL, 560)
        axes = figure.subplots()
        for label, name in enumerate(classes):
            here = points[labels == label]
            color, mark = _COLORS[label % len(_COLORS)], _MARKS[(label + label // len(_MARKS)) % len(_MARKS)]
            name = _in_legend(short_name(name, number=label + 1))
            axes.scatter(here[:, 0], here[:, 1], s=14, color=color, marker=mark, lw=0, alpha=0.8, label=name)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if len(classes) <= NUMBERS_UP_TO:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
        return _png(figure)


# ---- images


def thumbnail(image: NDArray[np.uint8]) -> bytes:
    """Encode an image (C, H, W) as PNG, shrunk if a side exceeds `LARGEST`; anything but RGB becomes grey."""
    pixels = image.transpose(1, 2, 0) if len(image) == 3 else image.mean(axis=0).round().astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if max(picture.size) > LARGEST:
        picture.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def image_rows(rows: Sequence[NDArray[np.uint8]], *, names: Sequence[str]) -> bytes:
    """Draw rows of images (N, C, H, W), each named at its left; anything but RGB is grey."""
    across = max(map(len, rows))
    with _style():
        figure = _new(130 + 48 * across, 52 * len(rows))
        for number, (images, name) in enumerate(zip(rows, names, strict=True)):
            for place, pixels in enumerate(to_rgb(images)):
                axes = figure.add_subplot(len(rows), across, number * across + place + 1)
                axes.imshow(pixels, interpolation="nearest")
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                if place == 0:
                    axes.set_ylabel(name, rotation=0, ha="right", va="center")
        return _png(figure)
