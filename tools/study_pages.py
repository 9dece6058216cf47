"""Write a page for every shipped study, docs/studies/NAME.md, from the study itself.

python tools/study_pages.py
"""

from pathlib import Path

from reslab.recipe.recipe import Published
from reslab.study import STUDIES
from reslab.study.spec import Row, Study, Training

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/studies"
QUESTIONS = {
    "elu-table": "Does a residual network with ELU, as Shah et al. propose it, err less than one with ReLU, at every "
    "depth?",
    "elu-variants": "Is the paper's own answer, ELU without batch norm before it, better than the other orders and "
    "than ReLU, at 20 and at 110 layers?",
    "degradation": "On training images too? The gradients that arrive in each layer are measured beside it.",
    "zoo-table": "Each is trained as one public repository does it: do its accuracies repeat?",
    "lab": "The reptiles are taught twice: with the backbone frozen, as the lab report had it, and with the whole "
    "network tuned.",
    "ledger": "Do the published figures of all these tables repeat, each network trained for as long as it was there? "
    "[The ledger](../ledger.md) shows what is there so far.",
    "digits": "Does ELU help there?",
}


def in_percent(metric: str, figure: Published) -> str:
    low, high = 100 * figure.low, 100 * figure.high
    return (
        f"{metric.replace('_', ' ')} {low:.2f}" if low == high else f"{metric.replace('_', ' ')} {low:.2f}–{high:.2f}"
    )


def write_row(row: Row) -> str:
    job = row.job
    if isinstance(job, Training):
        done = f"`{job.recipe}`" + "".join(f", `{setting}`" for setting in job.settings)
    else:
        done = f"`{job.base}` is taught `{job.data}` by `{job.method}`"
    figures = "; ".join(in_percent(metric, figure) for metric, figure in row.published.items()) or "none"
    sources = "; ".join(sorted({figure.source for figure in row.published.values()})) or "ours alone"
    return f"| `{row.label}` | {done} | {figures} | {sources} |\n"


def write_page(study: Study) -> str:
    """Make a study's page."""
    against = "".join(f"- `{each.first}` against `{each.second}`\n" for each in study.contrasts)
    return (
        f"# {study.name}\n\n{study.title}.\n\n{QUESTIONS[study.name]}\n\n"
        f"    reslab study run {study.name} --budget 0s\n"
        f"    reslab study run {study.name} --seeds {study.seeds}\n"
        f"    reslab study report {study.name}\n\n"
        "The first line says what it costs on this machine. What a verdict means is said in "
        f"[Studies](../studies.md#the-verdict); figures are compared with a tolerance of "
        f"{100 * study.tolerance:g} points.\n\n"
        "| row | what is run | published, % | source |\n|---|---|---|---|\n"
        + "".join(map(write_row, study.rows))
        + (f"\nRows that are set against each other:\n\n{against}" if against else "")
        + write_measured(study)
    )


def write_measured(study: Study) -> str:
    """Give the tables of the report that is kept in the repository, without the rows that have no run yet."""
    report = ROOT / "results" / study.name / "report.md"
    if not report.exists():
        return ""
    headline, *sections = report.read_text(encoding="utf-8").split("\n## ")
    said, scaled, *_, table = headline.split("\n\n")[1:]
    rows = [line for line in table.splitlines() if line.startswith("|") and "no run yet" not in line]
    against = [text.partition("\n\n")[2].split("\n\n")[0] for text in sections if text.startswith("Rows against")]
    return (
        "\n\n".join(
            ["\n## Measured", f"[{said.rstrip('.')}](../../results/{study.name}/report.md). {scaled}", "\n".join(rows)]
            + [text.strip() for text in against]
        )
        + "\n"
    )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, study in STUDIES.items():
        (FOLDER / f"{name}.md").write_text(write_page(study), encoding="utf-8")
