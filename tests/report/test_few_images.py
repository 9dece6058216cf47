"""How little a handful of test images decides is said where their figures are read."""

from types import SimpleNamespace
from typing import Any

import pytest

from reslab.cli.show import print_evaluation
from reslab.report import summarize, write_report
from reslab.report.few_images import few_images


@pytest.mark.parametrize(
    ("num", "points"),
    [(1, "1 test image, each one counts 100.0"), (12, "12 test images, each one counts 8.3"), (99, "1.0"), (100, None)],
)
def test_each_image_of_a_few_counts_more_than_a_point(num: int, points: str | None) -> None:
    figures: Any = SimpleNamespace(num_images=num)
    said = few_images(figures)
    assert (said is None) if points is None else (f"{points} points" in said)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("num", "is_said"), [(12, True), (240, False)])
def test_it_is_said_on_the_page_in_markdown_on_the_card_and_the_terminal(num, is_said, make_run, read_page, capsys):
    run = make_run("small", num_images=num)
    page = read_page(write_report(run))
    print_evaluation(run.evaluation)
    texts = [page.text[""], summarize(run), capsys.readouterr().out]
    texts += [(run.path / name).read_text(encoding="utf-8") for name in ("report.md", "model-card.md")]
    assert [f"With {num} test images, each one counts" in text for text in texts] == [is_said] * len(texts)
