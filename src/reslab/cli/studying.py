"""The `reslab study` commands, which reproduce published tables."""

from pathlib import Path
from typing import Annotated

import typer

from reslab.cli.options import AllowRemote, DataDir, Device, Json, StudyThreads, use_threads
from reslab.cli.screens import Grouped
from reslab.errors import UserError, in_shell

app = typer.Typer(
    cls=Grouped,
    help="Reproduce a published table over several seeds, with a verdict per row.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A shipped study, or a JSON file.")]


@app.command("list", epilog="Example: reslab study list digits")
def list_studies(
    name: Annotated[str | None, typer.Argument(help="Print this study as JSON.")] = None, json: Json = False
) -> None:
    """List the shipped studies, or print one as JSON to edit and run by its file name."""
    from reslab.cli.show import print_json, print_table
    from reslab.study import STUDIES, find_study

    if name is not None:
        print_json(find_study(name).model_dump(mode="json"))
        return
    if json:
        print_json({name: study.model_dump(mode="json") for name, study in STUDIES.items()})
        return
    rows = [[each.name, str(len(each.rows)), str(each.seeds), each.title] for each in STUDIES.values()]
    print_table("Studies; reslab study list NAME prints one", ["name", "rows", "seeds", "title"], rows)


@app.command(epilog="Example: reslab study run digits --epochs-scale 0.1 --out runs/study")
def run(
    name: Name,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs per row; by default as in the study.")] = None,
    rows: Annotated[str | None, typer.Option(metavar="A,B", help="Only these rows, comma-separated.")] = None,
    epochs_scale: Annotated[float, typer.Option(help="Train for this fraction of the epochs; gives no verdict.")] = 1.0,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Start no run that would end later, e.g. 90m, 2h; 0s: cost only.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Run this many at once on this machine.")] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on this Ray cluster; auto: this machine's.")
    ] = None,
    gpus_per_run: Annotated[float, typer.Option(min=0, help="GPUs per run, e.g. 0.25.")] = 0.0,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Where workers store run folders, e.g. s3://bucket/study.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The study's folder; runs/NAME by default.")] = None,
    data_dir: DataDir = None,
    allow_remote: AllowRemote = False,
    device: Device = "auto",
    threads: StudyThreads = None,
    json: Json = False,
) -> None:
    """Print what a study's missing runs cost, then run them. The same command resumes after an interruption."""
    from reslab.cli.show import echo, print_json
    from reslab.study import find_study
    from reslab.study.cluster import read_cluster
    from reslab.study.execute import read_budget, run_study
    from reslab.study.plan import Machine
    from reslab.study.processes import read_workers

    if workers is not None and ray is not None:
        raise UserError("--workers run on this machine, --ray on a cluster: omit one of them")
    study = find_study(name)
    folder = out or Path("runs") / study.name
    cluster = read_cluster(ray, threads=threads, gpus_per_run=gpus_per_run, storage=storage)
    here = read_workers(workers, threads=threads)
    there = here or cluster
    use_threads(there.threads if there else threads)  # the cost is measured with as many
    done = run_study(
        study,
        out=folder,
        seeds=seeds,
        rows=_read_rows(rows),
        scale=epochs_scale,
        budget=None if budget is None else read_budget(budget),
        machine=Machine(device, data_dir, allow_remote, silent=False, threads=threads),
        workers=here,
        cluster=cluster,
        say=lambda line: echo(line, err=True),
    )
    if json:
        runs = {"runs": done.done, "left": done.left, "elsewhere": done.elsewhere}
        print_json({name: [str(job.out) for job in jobs] for name, jobs in runs.items()})
        return
    why = "until their bases are finished"
    if budget:
        why = f"out by --budget {budget}" + (f", or {why}" if done.elsewhere else "")
    left = f", {len(done.left)} left {why}" if done.left else ""
    left += f", {len(done.elsewhere)} left to another process" if done.elsewhere else ""
    is_measured = done.done or any(folder.glob("*/evaluation.json"))
    then = f"; next: reslab study report {in_shell(name)} --runs {in_shell(folder)}" if is_measured else ""
    echo(f"Runs done: {len(done.done)}{left}{then}")


def _read_rows(text: str | None) -> list[str]:
    rows = [] if text is None else text.split(",")
    if "" in rows:
        raise UserError(f"--rows {text}: separate the rows by single commas, as in resnet-20,resnet-32")
    return rows


@app.command(epilog="Example: reslab study report digits --runs runs/study")
def report(
    name: Name,
    runs: Annotated[Path | None, typer.Option(metavar="DIR", help="The study's folder; runs/NAME by default.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The output folder; the study's by default.")] = None,
    json: Json = False,
) -> None:
    """Compare a study's runs with the published results: a page with verdicts, Markdown, CSV and plots."""
    from reslab.cli.show import echo, print_json, print_table
    from reslab.study import find_study
    from reslab.study.report import write_study_report
    from reslab.words import listing

    study = find_study(name)
    folder = runs or Path("runs") / study.name
    written = write_study_report(study, runs=folder, out=out)
    files = {name: getattr(written, name) for name in ("page", "markdown", "csv", "contrasts_csv")}
    if json:
        paths = {name: None if path is None else str(path) for name, path in files.items()}
        print_json(paths | {"rows": written.figures, "contrasts": written.differences})
        return
    for title, table in ((study.title, written.verdicts), ("Rows against each other", written.contrasts)):
        if table.rows:
            rows = [[f"{cell.text} {cell.aside}".strip() for cell in row] for row in table.rows]
            print_table(title, table.header, rows)
    others = [str(path) for path in (written.markdown, written.csv, written.contrasts_csv) if path is not None]
    echo(f"Report: {written.page} (open it in a browser); also {listing(others)}")
