"""The shipped studies, held against what was published."""

import json
import re
from itertools import pairwise

import pytest
import torch

from reslab import models
from reslab.errors import UserError
from reslab.models.costs import count_multiply_adds
from reslab.recipe.networks import EluResNet
from reslab.recipe.published import CIFAR10_NETWORKS
from reslab.recipe.recipe import Recipe
from reslab.recipe.shipped import RECIPES, find_recipe
from reslab.study import STUDIES, Study, find_study
from reslab.study.plan import Lesson, make_jobs
from reslab.study.spec import Training


def errors(study: str, *labels: str) -> list[float]:
    rows = {row.label: row for row in STUDIES[study].rows}
    return [round(100 * rows[label].published["error"].low, 2) for label in labels]


def test_elu_table() -> None:
    depths = (20, 32, 44, 56, 110)
    assert errors("elu-table", *(f"resnet-{depth}" for depth in depths)) == [8.38, 7.51, 7.17, 6.97, 6.42]
    assert errors("elu-table", *(f"elu-resnet-{depth}" for depth in depths)) == [8.32, 7.30, 6.93, 6.31, 5.62]


def test_degradation() -> None:
    published = {row.label: row.published for row in STUDIES["degradation"].rows}
    assert not any(published[f"plain-{depth}"] for depth in (20, 32, 44, 56))  # the paper has curves alone
    assert errors("degradation", *(f"resnet-{depth}" for depth in (20, 32, 44, 56))) == [8.75, 7.51, 7.17, 6.97]


def test_elu_variants_has_every_block(tmp_path) -> None:
    labels = ("relu-20", "elu-20", "relu-110", "elu-110")
    assert errors("elu-variants", *labels) == [8.38, 8.32, 6.42, 5.62]
    jobs = make_jobs(STUDIES["elu-variants"], out=tmp_path, seeds=1)
    blocks = [job.task.model.block for job in jobs if isinstance(job.task.model, EluResNet)]
    assert sorted(blocks) == sorted(["conv-elu-conv-bn", "elu-after-addition", "bn-before-elu", "conv-bn-elu"] * 2)


def test_the_zoo_has_the_thirteen_networks() -> None:
    rows = STUDIES["zoo-table"].rows
    assert [row.published["accuracy"].low for row in rows] == [known.test_accuracy for known in CIFAR10_NETWORKS]


def test_the_lab_has_both_parts(tmp_path) -> None:
    jobs = make_jobs(STUDIES["lab"], out=tmp_path, seeds=1, labels=("frozen",))
    assert [job.out.name for job in jobs] == ["lab-resnet32-0", "frozen-0"]
    assert jobs[1].task == Lesson(tmp_path / "lab-resnet32-0", "cifar100:reptiles", "frozen")
    published = STUDIES["lab"].rows[1].published
    assert (published["macro_f1"].low, published["accuracy"].low) == (0.69, 0.872)


def test_a_published_figure_has_a_source_to_look_up() -> None:
    """Or says that it cannot be looked up."""
    for figure in (figure for study in STUDIES.values() for row in study.rows for figure in row.published.values()):
        assert re.search(r"arXiv:\d{4}\.\d{5}, table \d|BIGBALLON/cifar-10-cnn|\(not public\)", figure.source)


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_every_study_is_planned_and_survives_json(study: Study, tmp_path) -> None:
    assert Study.model_validate_json(study.model_dump_json()) == study
    assert study.seeds >= 3
    recipes = {row.job.recipe for row in study.rows if isinstance(row.job, Training)}
    assert recipes <= RECIPES.keys(), f"not shipped: {sorted(recipes - RECIPES.keys())}"
    assert len(make_jobs(study, out=tmp_path, seeds=2)) == 2 * len(study.rows)


def test_the_row_of_a_wrong_recipe_or_setting_is_named(tmp_path) -> None:
    digits = STUDIES["digits"].model_dump()
    for job, complaint in (
        ({"recipe": "digit-quick"}, r"^row relu: unknown recipe 'digit-quick': did you mean 'digits-quick'\?"),
        ({"recipe": "digits-quick", "settings": ["epoch=3"]}, "^row relu: --set epoch: unknown field 'epoch'"),
    ):
        row = {"label": "relu", "job": {"kind": "training", **job}}
        study = Study.model_validate(digits | {"rows": [row], "contrasts": [], "gradients": []})
        with pytest.raises(UserError, match=complaint):
            make_jobs(study, out=tmp_path, seeds=1)


def test_a_wrong_name_is_told_the_right_one(tmp_path) -> None:
    with pytest.raises(UserError, match=r"unknown study 'elu-tabel': did you mean 'elu-table'\?"):
        find_study("elu-tabel")
    with pytest.raises(UserError, match=r"study digits has no row 'rely': did you mean 'relu'\?"):
        make_jobs(find_study("digits"), out=tmp_path, seeds=1, labels=("rely",))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[", "is not a study in JSON"),
        ('{"name": "x"}', "title is missing"),
        ('{"name": "x", "contrast": []}', r"contrast is not a known field: did you mean 'contrasts'\?"),
        (
            '{"name": "x", "title": "x", "rows": [{"labels": "x"}]}',
            r"rows\.0\.labels is not a known field: did you mean 'label'\?",
        ),
        ('{"name": "x", "model": {"kind": "resnet"}}', r"is a recipe, not a study: train it by reslab train \S+mine"),
        (
            '{"name": "x", "title": "x", "rows": [{"label": "A B", "job": {"kind": "training", "recipe": "r"}}]}',
            "rows.0.label: 'A B' names folders: write it in small letters, digits, dots and hyphens",
        ),
        (
            '{"name": "x", "title": "x", "rows": [{"label": "a", "published": {"acc": {}}, "job": {"kind": "training", '
            '"recipe": "r"}}]}',
            r"rows\.0\.published\.acc should be 'error', 'accuracy' or 'macro_f1', not 'acc'",
        ),
        ('{"name": "x", "title": "x", "rows": [], "seeds": 0}', "rows"),
    ],
)
def test_a_broken_file_gets_a_sentence(tmp_path, text: str, complaint: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint) as raised:
        find_study(str(path))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=r"absent\.json cannot be read as a study"):
        find_study(str(tmp_path / "absent.json"))


REVERSED = {"low": 0.2, "high": 0.1, "source": "a table"}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"gradients": ("frozn",)}, r"there is no row frozn: did you mean 'frozen'\?"),
        ({"contrasts": [{"first": "frozen", "second": "frozen"}]}, "compares frozen with itself: name two rows"),
        (
            {
                "contrasts": [
                    {"first": "frozen", "second": "lab-resnet32"},
                    {"first": "lab-resnet32", "second": "frozen"},
                ]
            },
            "two contrasts compare lab-resnet32 and frozen: keep one of them",
        ),
        ({"order": (("frozen", 0), ("lab-resnet32", 0), ("frozen", 0))}, "order names seed 0 of frozen twice"),
        ({"gradients": ("lab-resnet32", "lab-resnet32")}, "gradients names lab-resnet32 twice"),
        ({"gradients": ("frozen",)}, "gradients names frozen, which teaches new classes"),
        (
            {"rows": [{**STUDIES["digits"].rows[0].model_dump(), "published": {"error": REVERSED}}]},
            "low is 0.2 and high is 0.1: write the smaller end first",
        ),
        ({"rows": STUDIES["lab"].rows[1:]}, "lab-resnet32, which is not a row before it: put its base first"),
        ({"order": (("rely", 0),)}, "there is no row rely"),
        ({"rows": STUDIES["lab"].rows[:1] * 2}, "two rows are called lab-resnet32"),
    ],
)
def test_rows_that_do_not_fit_are_refused(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Study.model_validate(STUDIES["lab"].model_dump() | changes)


# ---- the ledger


def test_the_ledger_has_every_published_row_once() -> None:
    """28 networks from scratch, and what the lab report says of one that was taught more classes."""
    ledger = STUDIES["ledger"]
    others = [study for name, study in STUDIES.items() if name != "ledger"]
    jobs = [row.job for row in ledger.rows]
    wanted = [row for study in others for row in study.rows if row.published or study.name == "degradation"]
    assert {row.job.model_dump_json() for row in wanted} == {job.model_dump_json() for job in jobs}
    assert [isinstance(job, Training) for job in jobs].count(True) == 28
    assert len(jobs) == 29
    assert all(row.published or row.label.startswith("plain-") for row in ledger.rows)  # He et al. plot those


def test_the_ledger_trains_the_shipped_recipes_whole(tmp_path) -> None:
    for job in make_jobs(STUDIES["ledger"], out=tmp_path, seeds=1):
        if not isinstance(job.task, Lesson):
            assert job.task == RECIPES[job.task.name]
    assert RECIPES["resnet-20"].updates == RECIPES["elu-resnet-20"].updates == 64_000
    assert RECIPES["lab-resnet32"].epochs == 125


def test_the_ledger_says_which_run_is_next(tmp_path) -> None:
    ledger = STUDIES["ledger"]
    names = [job.out.name for job in make_jobs(ledger, out=tmp_path, seeds=ledger.seeds)]
    assert len(names) == len(set(names)) == len(ledger.order) == 3 * 29
    assert names[:4] == ["lab-resnet32-0", "frozen-0", "resnet-20-0", "elu-resnet-20-0"]
    assert names[8:11] == ["plain-20-0", "lenet-0", "preact-resnet20-0"]
    assert names.index("preact-resnet32-2") < names.index("lab-resnet32-1") < names.index("plain-44-0")
    # More seeds than it asks for come last.
    assert make_jobs(ledger, out=tmp_path, seeds=4)[len(names)].seed == 3


def test_the_rest_of_the_ledger_goes_by_cost(tmp_path) -> None:
    ledger = STUDIES["ledger"]
    rest = dict.fromkeys(label for label, _ in ledger.order[ledger.order.index(("lab-resnet32", 2)) + 2 :])
    recipes = [RECIPES[row.job.recipe] for label in rest for row in ledger.rows if row.label == label]
    costs = [count_all(recipe) for recipe in recipes]
    assert all(later > 0.99 * earlier for earlier, later in pairwise(costs))


def count_all(recipe: Recipe) -> int:
    """Count a run's multiply-adds, forward; CIFAR-10 has 50,000 images."""
    with torch.device("meta"):
        network = models.build(recipe.model, num_classes=10, channels=3)
    side = recipe.image_size
    images = recipe.updates * recipe.batch_size if recipe.updates else recipe.epochs * 50_000
    return images * count_multiply_adds(network, image=torch.zeros(3, side, side))


def test_a_recipe_beside_a_study_is_found_from_anywhere(tmp_path, monkeypatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/own.json").write_text(find_recipe("digits-quick").model_dump_json())
    rows = [
        {"label": name, "job": {"kind": "training", "recipe": recipe}}
        for name, recipe in (("a", "own.json"), ("b", "digits-quick"))
    ]
    (tmp_path / "there/mine.json").write_text(json.dumps({"name": "mine", "title": "Mine", "rows": rows}))
    monkeypatch.chdir(tmp_path)
    first, second = make_jobs(find_study("there/mine.json"), out=tmp_path / "out", seeds=1)
    assert [each.label for each in (first, second)] == ["a", "b"]
