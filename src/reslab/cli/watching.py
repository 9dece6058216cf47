"""The command that compares new pictures with held-out ones."""

from pathlib import Path
from typing import Annotated

import typer

from reslab.cli.options import Device, Json, RunPath
from reslab.errors import in_shell


def watch(
    run: RunPath,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER", help="Folders of new pictures, picture files, or patterns such as '*.jpg'."),
    ],
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Check whether new pictures resemble the test images of a run. Exits with 1 if something has changed."""
    from reslab.cli.show import echo, print_json, print_table, to_plain
    from reslab.evaluation.watching import watch as compare
    from reslab.runs import Run
    from reslab.words import counted

    found = compare(Run.open(run), files=files, device=device)
    if json:
        print_json({"changed": found.changed, **to_plain(found)})
    else:
        print_table(
            f"{counted(found.num_compared, 'picture')}, against {counted(found.num_reference, 'test image')}",
            ["", "test images", "pictures", "p value", "changed"],
            [
                [
                    each.name,
                    "" if each.before is None else f"{each.before:.2f}",
                    "" if each.now is None else f"{each.now:.2f}",
                    f"{each.p_value:.3f}",
                    "yes" if each.changed else "no",
                ]
                for each in found.aspects
            ],
        )
        if found.num_compared + len(found.unread) < found.num_pictures:
            echo(f"A random sample of {counted(found.num_pictures, 'picture')}.")
        for each in found.aspects:
            if each.changed:
                echo(each.sentence)
        echo(found.summary)
        if found.changed:
            echo(
                f"Next: label some of them and measure the accuracy: reslab evaluate {in_shell(run)} --data folder:PATH"
            )
    num_tried = found.num_compared + len(found.unread)
    for unread in found.unread[:10]:
        echo(f"reslab: {unread.sentence}", err=True)
    if found.unread:
        echo(f"reslab: {len(found.unread):,} of {counted(num_tried, 'file')} could not be read", err=True)
    if found.changed:
        raise typer.Exit(1)
