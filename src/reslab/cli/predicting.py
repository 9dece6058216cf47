"""The command that classifies pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslab.cli.options import Device, Json, check_csv

if TYPE_CHECKING:
    from reslab.data.answers import Unread
    from reslab.data.pictures import Answer


def predict(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A finished run folder, a model.safetensors, an exported .onnx, or demo."),
    ],
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Picture files, folders of them, or patterns such as '*.jpg'."),
    ],
    top: Annotated[int, typer.Option(min=1, help="Number of classes to print per picture.")] = 3,
    answer: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of pictures like the training images to answer; at 0.95, 5 in 100 get only a guess.",
        ),
    ] = 0.95,
    coverage: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Also print a set of classes that contains the true one in this share of cases."
        ),
    ] = None,
    device: Device = "auto",
    csv: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Write the answers to this file.")] = None,
    json: Json = False,
) -> None:
    """Classify pictures. An .onnx file needs no PyTorch."""
    from reslab.cli.show import echo, print_json, to_plain
    from reslab.data.answers import Unread, find_pictures
    from reslab.errors import UserError
    from reslab.words import counted

    if run.suffix == ".onnx" and device not in ("auto", "cpu"):
        raise UserError(f"an exported file such as {run} is computed on the processor: omit --device")
    check_csv(csv)
    files = find_pictures(files)
    if run.suffix == ".onnx":
        from reslab.network.onnx_file import classify_each_by_onnx

        found = list(classify_each_by_onnx(files, onnx=run, top=top, answer=answer, coverage=coverage))
    else:
        from reslab.evaluation.classify import classify_each

        found = list(classify_each(files, weights=run, top=top, answer=answer, coverage=coverage, device=device))
    answers = [each for each in found if not isinstance(each, Unread)]
    unread = [each for each in found if isinstance(each, Unread)]
    if not answers and unread:
        raise UserError(unread[0].sentence)
    if csv is not None:
        from reslab.runs.files import to_csv, write_bytes

        most = max(len(answer.classes) for answer in answers)
        ranks = [""] + [f"_{rank}" for rank in range(2, most + 1)]
        header = [
            "file",
            *(f"{what}{rank}" for rank in ranks for what in ("prediction", "probability")),
            "familiarity",
            "answered",
            *(["class_set"] if coverage is not None else []),
            "error",
        ]
        write_bytes(csv, to_csv(header, [_csv_row(each, len(header), coverage) for each in found]))
    if json:
        print_json(to_plain(found))
    elif csv is not None:
        num_unlike = sum(not answer.answered for answer in answers)
        unlike = f", {num_unlike:,} of them unlike the training pictures" if num_unlike else ""
        echo(f"{counted(len(answers), 'picture')} classified{unlike}: {csv}")
    else:
        _print_answers(answers, coverage)
    if unread:
        for each in unread[:10]:
            echo(f"reslab: {each.sentence}", err=True)
        echo(f"reslab: {len(unread):,} of {counted(len(found), 'file')} could not be classified", err=True)
        raise typer.Exit(1)


def _csv_row(found: "Answer | Unread", num_columns: int, coverage: float | None) -> list[str]:
    from reslab.data.answers import Unread

    if isinstance(found, Unread):
        return [found.file, *[""] * (num_columns - 2), found.sentence]
    pairs = zip(found.classes, found.probabilities, strict=True)
    familiarity = "" if found.familiarity is None else f"{found.familiarity:.4f}"
    guesses = (cell for name, p in pairs for cell in (name, f"{p:.4f}"))
    class_set = [] if coverage is None else ["; ".join(found.class_set or ())]
    return [found.file, *guesses, familiarity, "yes" if found.answered else "no", *class_set, ""]


def _doubt(answer: "Answer") -> str:
    from reslab.words import percent

    if answer.answered or answer.familiarity is None:
        return ""
    return f"; only a guess: unlike the training pictures (familiarity {percent(answer.familiarity, decimals=1)})"


def _print_answers(answers: "Sequence[Answer]", coverage: float | None) -> None:
    from reslab.cli.show import print_table
    from reslab.words import percent

    rows = [
        [
            answer.file,
            ", ".join(
                f"{name}: {percent(p, decimals=1)}"
                for name, p in zip(answer.classes, answer.probabilities, strict=True)
            )
            + _doubt(answer),
            *([] if coverage is None else [", ".join(answer.class_set or ["–"])]),
        ]
        for answer in answers
    ]
    sets = [] if coverage is None else [f"in {100 * coverage:g} % of cases one of"]
    print_table("Most probable classes", ["file", "classes", *sets], rows)
