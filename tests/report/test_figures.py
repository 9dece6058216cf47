import io
import warnings

import matplotlib
import numpy as np
import pytest
from PIL import Image

from reslab.language import read_language, speaking
from reslab.report import figures


@pytest.fixture
def drawn(monkeypatch):
    """Keep the figures instead of turning them into PNG."""
    kept = []
    monkeypatch.setattr(figures, "_png", lambda figure: kept.append(figure) or b"")
    return kept


def size_of(png):
    with Image.open(io.BytesIO(png)) as picture:
        picture.load()
        return picture.size


# ---- confusion matrices


def written(axes):
    return {(int(x), int(y)): text.get_text() for text in axes.texts for x, y in [text.get_position()]}


def test_matrix_has_true_classes_in_rows(drawn):
    figures.matrix(np.array([[8, 2, 0], [0, 5, 1], [3, 0, 0]]), classes=["a", "b", "c"], by_row=False)
    (axes,) = drawn[0].axes
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true class", "predicted class")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    # (column, row); cells of 0 stay empty
    assert written(axes) == {(0, 0): "8", (1, 0): "2", (1, 1): "5", (2, 1): "1", (0, 2): "3"}


def test_matrix_by_row_is_in_percent_of_each_true_class(drawn):
    figures.matrix(np.array([[3, 1, 0], [0, 0, 0], [1, 1, 1]]), classes=["a", "b", "c"], by_row=True)
    assert written(drawn[0].axes[0]) == {
        (0, 0): "75.0", (1, 0): "25.0", (0, 2): "33.3", (1, 2): "33.3", (2, 2): "33.3",
    }  # fmt: skip


def test_matrix_of_an_extension_marks_where_the_new_classes_begin(drawn):
    for num_old in (0, 2):
        figures.matrix(np.eye(3, dtype=np.int64), classes=["a", "b", "c"], by_row=False, num_old=num_old)
    none, both = ([line.get_xydata().tolist() for line in figure.axes[0].lines] for figure in drawn)
    assert none == []
    assert both == [[[0, 1.5], [1, 1.5]], [[1.5, 0], [1.5, 1]]]


def test_matrix_of_many_classes_has_a_scale_instead_of_numbers(drawn):
    for num in (25, 26):
        figures.matrix(np.eye(num, dtype=np.int64), classes=[str(i) for i in range(num)], by_row=False)
    few, many = drawn
    assert (len(few.axes), len(few.axes[0].texts)) == (1, 25)
    assert (len(many.axes), len(many.axes[0].texts)) == (2, 0)


@pytest.mark.parametrize(("num", "width"), [(2, 900), (10, 900), (12, 1268), (40, 1800)])
def test_matrix_is_a_png_of_twice_the_size_shown(num, width):
    counts = np.random.default_rng(0).integers(5000, size=(num, num))
    assert size_of(figures.matrix(counts, classes=[f"class {i}" for i in range(num)], by_row=False))[0] == width


def test_numbers_fit_their_cells(drawn):
    for num in (10, 25):
        figures.matrix(np.full((num, num), 12345), classes=[f"a class {i}" for i in range(num)], by_row=False)
        figure, axes = drawn[-1], drawn[-1].axes[0]
        figure.draw_without_rendering()
        cell = axes.get_window_extent().width / num
        assert max(text.get_window_extent().width for text in axes.texts) < cell
        upright = [label.get_window_extent().height for label in axes.get_yticklabels()]
        assert max(upright) < cell


@pytest.mark.parametrize("name", ["$x$", "$\\frac$", "日本", "a\nb", "<b>", "", "x" * 300])
def test_any_class_name_can_be_drawn(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.matrix(np.array([[3, 1], [0, 2]]), classes=[name, "other"], by_row=True)


@pytest.mark.parametrize(
    ("name", "short"),
    [("cat", "cat"), ("two\n words", "two words"), ("sixteen letters!", "sixteen letters!"), ("日本", "no. 4"),
     ("seventeen letters", "seventeen lette…"), (" ", "no. 4"), ("naïve café", "naïve café")],
)  # fmt: skip
def test_short_name(name, short):
    assert figures.short_name(name, number=4) == short


# ---- learning curves


def test_curves_stand_at_their_epochs_and_marks_between(drawn):
    curves = {"training": np.array([3.0, 2, 1, 0.5]), "validation": np.array([3.5, np.nan, 2, 1])}
    figures.learning_curve(curves, label="loss", marks=[(0, 0.1), (3, 0.01)])
    (axes,) = drawn[0].axes
    first, second, mark = axes.lines
    np.testing.assert_array_equal(first.get_xydata(), [[1, 3], [2, 2], [3, 1], [4, 0.5]])
    np.testing.assert_array_equal(second.get_xdata(), [1, 2, 3, 4])
    assert list(mark.get_xdata()) == [3, 3]  # and none at the start
    assert [(text.get_position()[0], text.get_text()) for text in axes.texts] == [(0, "0.1"), (3, "0.01")]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["training", "validation"]


def test_labels_of_marks_do_not_run_into_each_other(drawn):
    marks = [(0, 0.1), (81, 0.01), (122, 0.001), (123, 0.0001)]
    figures.learning_curve({"training": np.ones(125)}, label="loss", marks=marks)
    (axes,) = drawn[0].axes
    assert len(axes.lines) == 1 + 3
    assert [text.get_text() for text in axes.texts] == ["0.1", "0.01", "0.001"]


def test_continuous_rates_stand_in_a_strip_below(drawn):
    rates = np.array([0.05, 0.1, 0.0])
    figures.learning_curve({"training": np.ones(3)}, label="loss", rates=rates)
    above, below = drawn[0].axes
    np.testing.assert_array_equal(below.lines[0].get_xydata(), [[1, 0.05], [2, 0.1], [3, 0]])
    assert (above.get_xlabel(), below.get_xlabel(), below.get_ylabel()) == ("", "epoch", "rate")
    assert above.get_xlim() == below.get_xlim()


@pytest.mark.parametrize("rates", [None, np.zeros(1)])
def test_a_single_epoch_is_drawn(rates):
    assert size_of(figures.learning_curve({"training": np.array([0.5])}, label="loss", rates=rates))[0] == 900


def test_many_curves_all_look_different(drawn):
    figures.learning_curve({str(number): np.ones(20) for number in range(30)}, label="loss")
    looks = [(line.get_color(), line.get_linestyle()) for line in drawn[0].axes[0].lines]
    assert len(set(looks)) == 30
    assert looks[:6] == [
        ("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#CC79A7", ":"), ("#56B4E9", "-"), ("#E69F00", "--"),
    ]  # fmt: skip


def test_names_that_begin_with_an_underscore_stay_in_the_legend(drawn):
    figures.learning_curve({"_a": np.ones(3), "b": np.ones(3)}, label="loss")
    figures.scatter(np.zeros((2, 2)), labels=np.array([0, 1]), classes=["_a", "b"])
    for legend in (*drawn[0].legends, *drawn[1].legends):
        assert [text.get_text() for text in legend.get_texts()] == [" _a", "b"]


def test_numbers_on_russian_plots_have_a_comma(drawn):
    curve = np.array([0.0, 1.0])
    with speaking(read_language("ru")):
        figures.learning_curve({"a": np.ones(20)}, label="", marks=[(0, 0.1), (10, 0.001)])
        figures.prior_curves(curve, curves={"a": curve}, band=(curve, curve), chosen=0.25)
    texts = [text.get_text() for figure in drawn for text in figure.axes[0].texts]
    assert texts == ["0,1", "0,001", "0,25"]


def test_no_curve_can_lie_under_the_legend(drawn):
    """It stands below the axes, within the figure, however many names it has and however long they are."""
    taus, band = np.linspace(0, 1, 5), (np.full(5, 0.1), np.full(5, 1.0))
    figures.learning_curve({"training": np.ones(9), "validation": np.zeros(9)}, label="loss", rates=np.ones(9))
    figures.learning_curve({f"{number:0100}, training": np.ones(9) for number in range(20)}, label="accuracy")
    figures.prior_curves(taus, curves={"macro F1": taus, "accuracy": 1 - taus}, band=band, chosen=0.25)
    curves = dict.fromkeys(("least familiar held back", "least probable held back"), (taus, taus, *band))
    figures.selection_curves(curves, promised=0.95, kept=(1, 1))
    for figure in drawn:
        figure.draw_without_rendering()
        (legend,) = (each.get_window_extent() for each in figure.legends)
        assert legend.y1 <= min(axes.get_tightbbox().y0 for axes in figure.axes)
        assert figure.bbox.x0 <= legend.x0 < legend.x1 <= figure.bbox.x1
        assert figure.axes[0].get_window_extent().height > 130


# ---- the rest


def test_reliability_diagram_shows_every_bin(drawn):
    points = {
        "certainty": [0.5, 0.9],
        "accuracy": [0.6, 0.8],
        "low": [0.4, 0.7],
        "high": [0.7, 0.9],
        "share": [0.25, 0.75],
    }
    figures.reliability_diagram(**{name: np.array(values) for name, values in points.items()})
    above, below = drawn[0].axes
    np.testing.assert_array_equal(above.lines[1].get_xydata(), [[50, 60], [90, 80]])
    assert [bar.get_height() for bar in below.patches] == [25, 75]


def test_a_persons_settings_neither_matter_nor_change():
    plain = figures.learning_curve({"training": np.ones(3)}, label="loss")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 10}):
        assert figures.learning_curve({"training": np.ones(3)}, label="loss") == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_thumbnail_keeps_small_images_as_they_are():
    image = np.random.default_rng(0).integers(256, size=(3, 5, 7)).astype(np.uint8)
    with Image.open(io.BytesIO(figures.thumbnail(image))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), image.transpose(1, 2, 0))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_thumbnail_of_other_than_three_channels_is_their_mean(channels):
    image = np.stack([np.full((4, 4), 10 * channel, np.uint8) for channel in range(channels)])
    with Image.open(io.BytesIO(figures.thumbnail(image))) as picture:
        assert picture.mode == "L"
        assert set(picture.tobytes()) == {5 * (channels - 1)}


def test_thumbnail_makes_large_images_smaller_and_keeps_their_shape():
    assert size_of(figures.thumbnail(np.zeros((3, 100, 200), np.uint8))) == (96, 48)
