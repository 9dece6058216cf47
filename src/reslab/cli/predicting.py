"""The command that classifies pictures."""

from pathlib import Path
from typing import Annotated

import typer

from reslab.cli.options import Device, Json


def predict(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A finished run folder, a model.safetensors or an exported .onnx."),
    ],
    files: Annotated[list[Path], typer.Argument(metavar="FILE …", help="Picture files.")],
    top: Annotated[int, typer.Option(min=1, help="Number of classes to print per picture.")] = 3,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Classify pictures. An .onnx file needs no PyTorch."""
    from reslab.cli.show import print_json, print_table, to_plain

    if run.suffix == ".onnx":
        from reslab.network.onnx_file import classify_by_onnx

        answers = classify_by_onnx(files, onnx=run, top=top)
    else:
        from reslab.evaluation.classify import classify

        answers = classify(files, weights=run, top=top, device=device)
    if json:
        print_json(to_plain(answers))
        return
    rows = [
        [
            answer.file,
            ", ".join(f"{name} {p:.1%}" for name, p in zip(answer.classes, answer.probabilities, strict=True)),
        ]
        for answer in answers
    ]
    print_table("Most probable classes", ["file", "classes"], rows)
