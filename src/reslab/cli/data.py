"""The `reslab data` commands."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslab.cli.options import AllowRemote, DataDir, Json, check_csv
from reslab.cli.screens import Grouped
from reslab.errors import UserError, in_shell

if TYPE_CHECKING:
    from reslab.data.check.findings import Report
    from reslab.data.sizes import Size

SHOWN = 10  # files

app = typer.Typer(
    cls=Grouped,
    help="Inspect, verify, pack and cache data.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(epilog="Example: reslab data show digits:0-6 --image-size 8")
def show(
    expression: Annotated[str, typer.Argument(help="For example cifar10, cifar10+cifar100:reptiles, folder:PATH.")],
    image_size: Annotated[int, typer.Option(min=1, help="Resize images to this side length.")] = 32,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Also draw a contact sheet: a row of pictures per class.")
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Print the classes, counts, statistics and fingerprints of a data expression, and what a quick check finds.

    Pictures that cannot be read are left out and named.
    """
    from reslab.cli.show import echo, print_json, print_table, to_plain
    from reslab.data.check.examine import look
    from reslab.data.check.words import describe as describe_findings
    from reslab.data.load import describe, load
    from reslab.data.sizes import measure_all

    found = describe(expression, data_dir=data_dir, image_size=image_size, skip_damaged=True)
    if sheet is not None:
        from reslab.data.check.sheet import write_sheet

        images = load(expression, "train", data_dir=data_dir, image_size=image_size, skip_damaged=True)
        write_sheet(images, sheet)
    sizes = measure_all(expression, data_dir=data_dir)
    report = look(expression, data_dir=data_dir, image_size=image_size, skip_damaged=True)
    if json:
        findings = report.shortened().model_dump(mode="json") if report else None
        print_json(to_plain(found) | {"sizes": sizes, "findings": findings})
        return
    splits = list(found.counts)
    counts = [
        [name, *(f"{found.counts[split][label]:,}" for split in splits)] for label, name in enumerate(found.classes)
    ]
    totals = ["all", *(f"{sum(found.counts[split]):,}" for split in splits)]
    print_table(f"{expression}: {_describe_sizes(sizes, found.image_shape)}", ["class", *splits], [*counts, totals])
    echo(f"mean       {', '.join(f'{value:.3f}' for value in found.mean)} (training split, pixels from 0 to 255)")
    echo(f"std        {', '.join(f'{value:.3f}' for value in found.std)}")
    for split, fingerprint in found.fingerprints.items():
        echo(f"{split:<10} {fingerprint}")
    for line in describe_findings(report) if report else ():
        echo(line)
    if sheet is not None:
        echo(f"Contact sheet: {sheet}")


def _describe_sizes(sizes: "tuple[Size, Size] | None", shape: tuple[int, ...]) -> str:
    """Describe the sizes of the pictures themselves, and as what (C, H, W) they are read if that differs."""
    channels, height, width = shape
    if sizes is None or set(sizes) == {(width, height)}:
        return f"images of {channels}x{height}x{width}"
    each = " to ".join(dict.fromkeys(f"{own_width}x{own_height}" for own_width, own_height in sizes))
    return f"pictures of {each} pixels, read as {channels}x{height}x{width} (--image-size)"


@app.command("list", epilog="Example: reslab data list cifar100")
def list_sources(
    source: Annotated[str | None, typer.Argument(help="List the classes of this source alone.")] = None,
    json: Json = False,
) -> None:
    """List the data sources and the classes of the built-in ones, CIFAR-100's by superclass."""
    from reslab.cli.show import echo, print_json, print_table
    from reslab.data.expression import ABOUT, CLASSES
    from reslab.data.sources.catalog import CIFAR100_SUPERCLASSES

    grouped = {name: list(classes) for name, classes in CIFAR100_SUPERCLASSES.items()}
    known = {name: list(classes) for name, classes in CLASSES.items()}
    if source is not None and source not in known:
        raise UserError(f"{source!r} has no list of classes: choose {', '.join(known)}, or try reslab data show SOURCE")
    if json:
        print_json((known if source is None else {source: known[source]}) | {"superclasses": grouped})
        return
    if source is None:
        print_table("Sources; join them with +", ["write", "for"], [[name, words] for name, words in ABOUT.items()])
    for name in ("cifar10", "digits") if source is None else (source,):
        if name != "cifar100":
            echo(f"{name}: {', '.join(known[name])}")
    if source in (None, "cifar100"):
        rows = [[name, ", ".join(classes)] for name, classes in grouped.items()]
        print_table("Classes of cifar100 by superclass; cifar100:reptiles takes five", ["superclass", "classes"], rows)


@app.command(epilog="Example: reslab data check digits --csv findings.csv")
def check(
    expression: Annotated[str, typer.Argument(help="For example folder:PATH, npz:FILE, cifar10.")],
    everything: Annotated[bool, typer.Option("--all", help="List all paths of each finding, not the first ten.")] = (
        False
    ),
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write all findings to a CSV file, a row per path.")
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Find what is wrong with data: unused files, broken pictures, duplicates. Exits with 1 if something is broken."""
    from reslab.cli.show import echo, print_json
    from reslab.data.check.examine import check as check_data
    from reslab.data.check.findings import write_table

    check_csv(table)
    report = check_data(expression, data_dir=data_dir)
    if table is not None:
        write_table(report, table)
    if json:
        print_json((report if everything else report.shortened()).model_dump(mode="json"))
    else:
        for line in check_lines(report, expression=expression, everything=everything):
            echo(line)
        if table is not None:
            echo(f"All findings: {table}")
    if report.is_broken:
        raise typer.Exit(1)


def check_lines(report: "Report", *, expression: str, everything: bool = False) -> Iterator[str]:
    """Yield what the command prints of a report."""
    from reslab.data.check.findings import SHOWN
    from reslab.data.check.words import describe

    yield f"{expression}: {', '.join(f'{num:,} {split}' for split, num in report.used.items()) or 'no'} images"
    yield from describe(report, most=None if everything else SHOWN)
    yield _conclude(report)


def _conclude(report: "Report") -> str:
    if report.refused:
        return "Repair what is broken."
    if report.broken.count:
        return "Repair or remove broken pictures, or leave them out with --skip-damaged."
    return "Nothing is broken."


@app.command(epilog="Example: reslab data plan digits:1,4,7@20")
def plan(
    data: Annotated[str, typer.Argument(metavar="DATA|RUN", help="A data expression, or a run folder.")],
    unlabelled: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Unlabelled pictures; rank them by which to label first."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Write that ranking to this file.")] = None,
    data_dir: DataDir = None,
    allow_remote: AllowRemote = False,
    json: Json = False,
) -> None:
    """Estimate how accurate a classifier would be with more pictures, and which ones to label first."""
    from reslab.cli.show import echo, echo_sentences, print_json, print_table, to_plain
    from reslab.fitting.planning import plan as plan_data
    from reslab.runs.files import to_csv, write_bytes
    from reslab.words import counted, interval, percent

    if csv is not None and not unlabelled:
        raise UserError("--csv writes the ranking of unlabelled pictures: add --unlabelled FOLDER")
    check_csv(csv)
    found = plan_data(data, unlabelled=unlabelled or (), data_dir=data_dir, allow_remote=allow_remote)
    if csv is not None:
        write_bytes(csv, to_csv(["rank", "file"], [[str(rank), file] for rank, file in enumerate(found.order, 1)]))
    if json:
        print_json(to_plain(found))
        return
    print_table(
        f"Accuracy by a linear head on {found.network}, with 90 % intervals",
        ["class", "images", "now", "with 2x images", "with 4x images"],
        [
            [
                each.name,
                f"{each.num_images:,}",
                *(f"{percent(a.value, decimals=0)} {interval(a.low, a.high, decimals=0)}" for a in each.accuracy),
            ]
            for each in (*found.classes, found.all)
        ],
    )
    for sentence in found.sentences:
        echo_sentences(sentence)
    if found.order:
        known = f" ({found.num_labelled:,} labelled already)" if found.num_labelled else ""
        echo(f"Label first, of {counted(found.num_unlabelled, 'picture')}{known}:")
        for file in found.order[:SHOWN]:
            echo(f"  {file}")
        first = f"first {len(found.order)}"
        echo(f"The {first}: {csv}" if csv is not None else f"--csv FILE.csv writes the {first}")
    for unread in found.unread[:SHOWN]:
        echo(f"reslab: {unread.sentence}", err=True)


@app.command(epilog="Example: reslab data verify --json")
def verify(data_dir: DataDir = None, json: Json = False) -> None:
    """Verify the checksums of downloaded CIFAR files."""
    from reslab.cli.show import print_json, print_table
    from reslab.data.sources.cifar import find_data_dir
    from reslab.data.sources.cifar import verify as verify_files

    checks = verify_files(data_dir)
    if json:
        print_json([check._asdict() for check in checks])
    else:
        rows = [[check.file, check.status, check.detail] for check in checks]
        print_table(f"Official files in {find_data_dir(data_dir)}", ["file", "status", "detail"], rows)
    if damaged := [check.file for check in checks if check.status == "damaged"]:
        raise UserError(f"damaged: {', '.join(damaged)}; remove them; they are downloaded again when needed")


@app.command(epilog="Example: reslab data pack digits --to packed --image-size 8")
def pack(
    expression: Annotated[str, typer.Argument(help="For example cifar10, folder:PATH.")],
    to: Annotated[
        str, typer.Option("--to", metavar="URL", help="A new folder, or an address such as s3://bucket/packed.")
    ],
    image_size: Annotated[int, typer.Option(min=1, help="Resize images to this side length.")] = 32,
    images_per_shard: Annotated[int, typer.Option(min=1, help="Images per shard.")] = 5000,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Write a data expression as WebDataset shards, for use as shards:URL."""
    from reslab.cli.show import echo, print_json
    from reslab.data.packing import pack as pack_shards
    from reslab.words import counted

    index = pack_shards(expression, to, data_dir=data_dir, image_size=image_size, images_per_shard=images_per_shard)
    if json:
        print_json(index.model_dump(mode="json"))
        return
    for split, packed in index.splits.items():
        num_bytes = sum(shard.num_bytes for shard in packed.shards)
        images, shards = counted(packed.num_images, "image"), counted(len(packed.shards), "shard")
        echo(f"{split:<6} {images} in {shards}, {num_bytes / 1e6:,.1f} MB")
    echo(f"Next: reslab train RECIPE --set {in_shell(f'data=shards:{to}')}")


@app.command(epilog="Example: reslab data cache --clear")
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete all entries; running processes keep theirs.")] = False,
    json: Json = False,
) -> None:
    """List or clear the disk cache: images of folders, npz files and shards, and features of pretrained networks."""
    from reslab.cli.show import echo, print_json, print_table, to_plain
    from reslab.data.storage.cache import clear_cache, find_cache, find_limit, list_cache

    if clear:
        freed = clear_cache()
        if json:
            print_json({"freed": freed})
        else:
            echo(f"Removed {freed / 1e6:,.1f} MB from {find_cache()}")
        return
    entries = list_cache()
    if json:
        print_json([{**to_plain(entry), "path": str(entry.path)} for entry in entries])
        return
    rows = [
        [entry.origin, entry.split, "x".join(map(str, entry.shape)), f"{entry.num_bytes / 1e6:,.1f}"]
        for entry in entries
    ]
    taken = sum(entry.num_bytes for entry in entries)
    print_table(f"Kept in {find_cache()}, last used first", ["source", "what", "shape", "MB"], rows)
    echo(f"{taken / 1e9:.2f} of {find_limit() / 1e9:g} GB; RESLAB_CACHE and RESLAB_CACHE_GB set folder and limit")
