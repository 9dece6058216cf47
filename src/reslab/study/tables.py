"""The shipped studies: published tables as data.

Source: He et al. 2015, arXiv:1512.03385; Shah et al. 2016, arXiv:1604.04112; `reslab.recipe.published`; the lab report
that this project grew out of, which is not public. Figures are test errors or accuracies of one run each, as a rule,
without an interval.
"""

from collections.abc import Iterable
from typing import Final

from reslab.recipe.published import CIFAR10_NETWORKS, CIFAR10_SOURCE
from reslab.recipe.recipe import Published
from reslab.recipe.shipped import RECIPES
from reslab.recipe.shipped.resnet_papers import ELU_ERRORS, PLAIN_DEPTHS, SHAH
from reslab.study.spec import Contrast, Metric, Row, Study, Teaching, Training

LAB_REPORT: Final = "the lab report (not public)"

SHAH_RESNET: Final = {20: 8.38, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.42}  # test error in percent, by depth
VARIANTS: Final = ("elu-after-addition", "bn-before-elu", "conv-bn-elu")  # compared with ELU as Shah et al. propose it

# Recipes by the network's name in `published`.
ZOO: Final = {
    "LeNet": "zoo-lenet",
    "Network in Network": "zoo-nin",
    "VGG-19": "zoo-vgg19",
    "Pre-activation ResNet-20": "zoo-preact-resnet20",
    "Pre-activation ResNet-32": "zoo-preact-resnet32",
    "Pre-activation ResNet-110": "zoo-preact-resnet110",
    "Wide ResNet 16-8": "zoo-wrn16-8",
    "Wide ResNet 28-10": "zoo-wrn28-10",
    "DenseNet-BC 100x12": "zoo-densenet-bc-100-12",
    "DenseNet-BC 100x24": "zoo-densenet-bc-100-24",
    "DenseNet-BC 160x24": "zoo-densenet-bc-160-24",
    "ResNeXt-29 4x64d": "zoo-resnext29-4x64d",
    "SE-ResNeXt-29 4x64d": "zoo-se-resnext29-4x64d",
}


def _in_percent(value: float, source: str) -> Published:
    return Published(low=round(value / 100, 4), high=round(value / 100, 4), source=source)


def _row(label: str, recipe: str, *, error: Published | None = None, settings: tuple[str, ...] = ()) -> Row:
    """Make a row with a published error, by default that of the unchanged recipe."""
    known = RECIPES[recipe].published
    if error is None and known is not None and not settings:
        error = Published(low=round(1 - known.high, 4), high=round(1 - known.low, 4), source=known.source)
    published: dict[Metric, Published] = {} if error is None else {"error": error}
    return Row(label=label, job=Training(recipe=recipe, settings=settings), published=published)


ELU_TABLE = Study(
    name="elu-table",
    title="Residual networks with ReLU and with ELU, by depth",
    rows=(
        *(
            _row(f"resnet-{depth}", f"resnet-{depth}", error=_in_percent(error, SHAH))
            for depth, error in SHAH_RESNET.items()
        ),
        *(
            _row(f"elu-resnet-{depth}", f"elu-resnet-{depth}", error=_in_percent(error, SHAH))
            for depth, error in ELU_ERRORS.items()
        ),
    ),
    contrasts=tuple(Contrast(first=f"elu-resnet-{depth}", second=f"resnet-{depth}") for depth in ELU_ERRORS),
)


def _variants(depth: int) -> tuple[Row, ...]:
    base = f"elu-resnet-{depth}"
    return (
        _row(f"relu-{depth}", f"resnet-{depth}", error=_in_percent(SHAH_RESNET[depth], SHAH)),
        _row(f"elu-{depth}", base, error=_in_percent(ELU_ERRORS[depth], SHAH)),
        *(_row(f"{block}-{depth}", base, settings=(f"model.block={block}",)) for block in VARIANTS),
    )


ELU_VARIANTS = Study(
    name="elu-variants",
    title="Where ELU and batch norm belong in a residual block",
    rows=(*_variants(20), *_variants(110)),
    contrasts=tuple(
        Contrast(first=f"{name}-{depth}", second=f"relu-{depth}") for depth in (20, 110) for name in ("elu", *VARIANTS)
    ),
)

DEGRADATION = Study(
    name="degradation",
    title="Deeper plain networks get worse, deeper residual networks better",
    rows=(*(_row(f"{kind}-{depth}", f"{kind}-{depth}") for kind in ("plain", "resnet") for depth in PLAIN_DEPTHS),),
    contrasts=(
        *(Contrast(first=f"{kind}-{depth}", second=f"{kind}-20") for kind in ("plain", "resnet") for depth in (44, 56)),
        *(Contrast(first=f"plain-{depth}", second=f"resnet-{depth}") for depth in PLAIN_DEPTHS),
    ),
    gradients=("plain-20", "plain-56", "resnet-20", "resnet-56"),
)

ZOO_TABLE = Study(
    name="zoo-table",
    title="Thirteen known networks on CIFAR-10",
    rows=tuple(
        Row(
            label=ZOO[known.network].removeprefix("zoo-"),
            job=Training(recipe=ZOO[known.network]),
            published={"accuracy": _in_percent(100 * known.test_accuracy, CIFAR10_SOURCE)},
        )
        for known in CIFAR10_NETWORKS
    ),
    metric="accuracy",
)


def _taught(method: str, published: dict[Metric, Published]) -> Row:
    job = Teaching(base="lab-resnet32", data="cifar100:reptiles", method=method)  # type: ignore[arg-type]
    return Row(label=method, job=job, published=published)


LAB = Study(
    name="lab",
    title="Both parts of the lab: ten classes of CIFAR-10, then five reptiles of CIFAR-100",
    rows=(
        Row(
            label="lab-resnet32",
            job=Training(recipe="lab-resnet32"),
            published={"accuracy": RECIPES["lab-resnet32"].published} if RECIPES["lab-resnet32"].published else {},
        ),
        _taught("frozen", {"macro_f1": _in_percent(69.0, LAB_REPORT), "accuracy": _in_percent(87.2, LAB_REPORT)}),
        _taught("finetune-distill", {}),
    ),
    contrasts=(Contrast(first="finetune-distill", second="frozen"),),
    metric="macro_f1",
)

DIGITS = Study(
    name="digits",
    title="ReLU and ELU on the digits of scikit-learn: a study to try in a minute, offline",
    rows=(
        _row("relu", "digits-quick"),
        _row("elu", "digits-quick", settings=("model.activation=elu",)),
    ),
    contrasts=(Contrast(first="elu", second="relu"),),
    gradients=("relu", "elu"),
    seeds=3,
)

LEDGER_SEEDS: Final = 3


def _turns(*labels: str, seeds: Iterable[int] = range(LEDGER_SEEDS)) -> tuple[tuple[str, int], ...]:
    return tuple((label, seed) for seed in seeds for label in labels)


LEDGER_ORDER: Final = (
    *_turns("lab-resnet32", "frozen", seeds=(0,)),
    *_turns("resnet-20", "elu-resnet-20"),
    *_turns("plain-20", "lenet", "preact-resnet20"),
    *_turns("plain-32", "resnet-32", "elu-resnet-32", "preact-resnet32"),
    *_turns("lab-resnet32", "frozen", seeds=(1, 2)),
    # The rest by their multiply-adds.
    *_turns("plain-44", "resnet-44", "elu-resnet-44"),
    *_turns("plain-56", "resnet-56", "elu-resnet-56"),
    *_turns("resnet-110", "elu-resnet-110"),
    *_turns("nin"),
    *_turns("preact-resnet110"),
    *_turns("densenet-bc-100-12"),
    *_turns("vgg19"),
    *_turns("densenet-bc-100-24"),
    *_turns("wrn16-8"),
    *_turns("densenet-bc-160-24"),
    *_turns("resnext29-4x64d", "se-resnext29-4x64d"),
    *_turns("wrn28-10"),
)


def _collect_rows(*studies: Study) -> tuple[Row, ...]:
    """Collect the rows that the ledger's order names, each network once, from the first table that has it."""
    places = {label: place for place, (label, _) in reversed([*enumerate(LEDGER_ORDER)])}
    rows: dict[str, Row] = {}
    for row in (row for study in studies for row in study.rows if row.label in places):
        rows.setdefault(row.job.model_dump_json(), row)
    return tuple(sorted(rows.values(), key=lambda row: places[row.label]))


LEDGER = Study(
    name="ledger",
    title="Every published row of the other studies, at its full length",
    rows=_collect_rows(ELU_TABLE, ELU_VARIANTS, DEGRADATION, ZOO_TABLE, LAB),
    contrasts=(*ELU_TABLE.contrasts, *DEGRADATION.contrasts),
    seeds=LEDGER_SEEDS,
    order=LEDGER_ORDER,
)

STUDIES: Final = {study.name: study for study in (ELU_TABLE, ELU_VARIANTS, DEGRADATION, ZOO_TABLE, LAB, LEDGER, DIGITS)}
