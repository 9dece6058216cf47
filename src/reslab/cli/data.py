"""The commands that look at data."""

from typing import Annotated

import typer

from reslab.cli.options import DataDir, Json
from reslab.errors import UserError

app = typer.Typer(
    help="Look at data: what an expression resolves to, and whether the files are whole.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(epilog="Example: reslab data show digits:0-6 --image-size 8")
def show(
    expression: Annotated[str, typer.Argument(help="For example cifar10, cifar10+cifar100:reptiles, folder:PATH.")],
    image_size: Annotated[int, typer.Option(min=1, help="The side that images are resized to.")] = 32,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Print an expression's classes, counts, statistics and fingerprints."""
    from reslab.cli.show import print_json, print_table, to_plain
    from reslab.data import describe

    found = describe(expression, data_dir=data_dir, image_size=image_size)
    if json:
        print_json(to_plain(found))
        return
    channels, rows, columns = found.image_shape
    splits = list(found.counts)
    counts = [
        [name, *(f"{found.counts[split][label]:,}" for split in splits)] for label, name in enumerate(found.classes)
    ]
    totals = ["all", *(f"{sum(found.counts[split]):,}" for split in splits)]
    print_table(f"{expression}: images of {channels}x{rows}x{columns}", ["class", *splits], [*counts, totals])
    typer.echo(f"mean       {', '.join(f'{value:.3f}' for value in found.mean)} (training split, pixels from 0 to 255)")
    typer.echo(f"deviation  {', '.join(f'{value:.3f}' for value in found.deviation)}")
    for split, fingerprint in found.fingerprints.items():
        typer.echo(f"{split:<10} {fingerprint}")


@app.command(epilog="Example: reslab data verify --json")
def verify(data_dir: DataDir = None, json: Json = False) -> None:
    """Check the official CIFAR files that are there against their checksums."""
    from reslab.cli.show import print_json, print_table
    from reslab.data import find_data_dir
    from reslab.data import verify as verify_files

    checks = verify_files(data_dir)
    if json:
        print_json([check._asdict() for check in checks])
    else:
        rows = [[check.file, check.status, check.detail] for check in checks]
        print_table(f"Official files in {find_data_dir(data_dir)}", ["file", "status", "detail"], rows)
    if damaged := [check.file for check in checks if check.status == "damaged"]:
        raise UserError(f"damaged: {', '.join(damaged)}; remove them, and they are fetched again when they are needed")
