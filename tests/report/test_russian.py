"""The report in Russian: no sentence is left in English, numbers have commas, and what is shown is the same."""

import ast
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

import reslab
from reslab import language
from reslab.language import read_language, say, speaking
from reslab.records import Candidate
from reslab.report import write_report
from reslab.report.card import FILES
from reslab.report.facts import machine_facts
from reslab.report.inputs import read_inputs
from reslab.report.words import MORE, source_words
from reslab.words import counted, figure_alone, listing, percent, points

SOURCE = Path(reslab.__file__).parent
ENGLISH = re.compile(r"\b(the|of|is|are|and|with|images?|classes|training|accuracy|measured|shown|epochs?)\b", re.I)
NAMES = {"FastConv", "made by the tests"}
PLACES = re.compile(r"\{\w+\}")


class Strict(dict):
    """A table that refuses what it lacks."""

    def get(self, key, default=None):
        return key if key in NAMES else self[key]


def literals():
    """Collect every sentence that is written in a call of `say`, in Python and in the page's template."""
    for path in (
        SOURCE / "words.py",
        SOURCE / "records.py",
        SOURCE / "measure" / "shortfall.py",
        *(SOURCE / "report").glob("*.py"),
        *(SOURCE / "recipe").glob("*.py"),
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name("say"), args=[ast.Constant(sentence), *_]):
                    yield sentence
    yield from FILES.values()
    template = resources.files("reslab.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    yield from (found.replace("\\u00a0", "\u00a0") for found in re.findall(r'say\("([^"]*)"', template))


def test_every_sentence_has_its_translation_with_the_same_places():
    russian = read_language("ru")
    assert set(literals()) - russian.sentences.keys() == set()
    script = resources.files("reslab.report").joinpath("page.js").read_text(encoding="utf-8")
    assert set(re.findall(r"\bsay\('([^']*)'", script)) == russian.script.keys()
    for english, said in (*russian.sentences.items(), *russian.script.items()):
        assert set(PLACES.findall(english)) == set(PLACES.findall(said)), english


@pytest.mark.usefixtures("rich", "lean", "taught", "undrawn")
@pytest.mark.parametrize("which", ["rich", "lean", "taught"])
def test_no_english_is_left_on_the_page(which, request, monkeypatch, read_page):
    run, russian = request.getfixturevalue(which), read_language("ru")
    strict = replace(russian, sentences=Strict(russian.sentences))
    monkeypatch.setattr("reslab.report.read_language", lambda name: strict)
    path = write_report(run, language="ru")
    assert path.name == "report.ru.html"
    page = read_page(path)
    style = page.text[""][page.text[""].index(":root {") : page.text[""].rindex("}") + 1]
    shown = [text for section, text in page.text.items() if section != "run"] + [
        run.path.joinpath("report.ru.md").read_text()
    ]
    texts = [text.replace(style, "").replace(str(run.path), "") for text in shown]  # a path is in any language
    alts = [image["alt"] for images in page.images.values() for image in images]
    plain = (
        re.sub(r"[\w-]+/[\w-]+\.png|--set \w+|made by the tests|reslab train .*", "", text) for text in (*texts, *alts)
    )
    assert [text[max(0, found.start() - 30) : found.end()] for text in plain for found in ENGLISH.finditer(text)] == []
    assert {"lang": "ru"} in [attributes for tag, attributes in page.tags if tag == "html"]
    accuracy = run.evaluation.splits["test"].accuracy.value
    assert f"{100 * accuracy:.2f} %".replace(".", ",") in page.text[""]
    card = (run.path / "model-card.ru.md").read_text()
    assert "Показатели с доверительными интервалами" in card
    assert ENGLISH.findall(card.rpartition("---\n")[2].replace("made by the tests", "")) == []


def test_numbers_and_nouns_are_written_as_russian_writes_them(rich):
    with speaking(read_language("ru")):
        assert percent(0.9279) == "92,79\u00a0%"
        assert points(-0.0126) == "−1,26"
        assert [counted(number, "epoch") for number in (1, 2, 5, 11, 21, 112, 1204)] == [
            "1 эпоха", "2 эпохи", "5 эпох", "11 эпох", "21 эпоха", "112 эпох", "1\u00a0204 эпохи",
        ]  # fmt: skip
        assert listing(["a", "b"]) == "a и b"
        assert figure_alone(rich.evaluation.splits["test"].log_loss, unit="plain") == "0,432"
    assert percent(0.5) == "50.00\u00a0%"
    assert say("what no table has: {x}", x=1) == "what no table has: 1"
    with pytest.raises(reslab.UserError, match="no language 'de': choose from en, ru"):
        language.find_language("de")


def test_counts_agree_with_their_nouns(rich):
    inputs = read_inputs(rich)
    slow = [epoch.model_copy(update={"images_per_second": 121.0}) for epoch in inputs.log]
    with speaking(read_language("ru")):
        assert (
            "121 обучающее изображение в секунду (медиана по эпохам)"
            in dict(machine_facts(inputs._replace(log=slow))).values()
        )
        assert say("not known") == "неизвестно"  # of a commit as of a time
        assert say("rate") in say("learning rate")


def test_what_a_fit_chose_from_is_named_in_russian():
    candidate = Candidate(network="efficientnet_lite0", image_size=128, resize="pad")
    with speaking(read_language("ru")):
        assert candidate.words == "efficientnet_lite0, сторона 128 пикс., с полями"
    assert candidate.words == "efficientnet_lite0 at 128 pixels, padded"
    failed = candidate.model_copy(update={"left_out": "a trained network beside it: the disk is full: 0 bytes left"})
    assert failed.why_left_out == "a trained network beside it: the disk is full: 0 bytes left"
    with speaking(read_language("ru")):
        assert failed.why_left_out == "обученная сеть рядом с ней: the disk is full: 0 bytes left"
    slow = candidate.model_copy(update={"left_out": "its logistic regression", "would_take": 30.0})
    assert slow.why_left_out == "its logistic regression would take about 30.0\u00a0s, more than was left"
    with speaking(read_language("ru")):
        assert slow.why_left_out == "логистическая регрессия: нужно около 30,0\u00a0с, больше, чем оставалось"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("imported", "импорт"),
        ("reslab fit, without pretrained networks", "reslab fit, без предобученных сетей"),
        (MORE.format(base="digits"), "reslab extend, дообучение сети digits"),
        ("He et al. 2015", "He et al. 2015"),
    ],
)
def test_where_a_recipe_comes_from_is_named_in_russian(source, said):
    assert source_words(source) == source
    with speaking(read_language("ru")):
        assert source_words(source) == said
