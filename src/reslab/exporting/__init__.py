"""Export a finished run's network to files that run elsewhere; each is read back and checked on real images."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reslab.data.batches import seeded
from reslab.data.images import ImageSet
from reslab.data.notes import already_said
from reslab.data.pictures import check_taken
from reslab.data.progress import waiting
from reslab.data.recipe_data import read_split_of
from reslab.errors import Failure, UserError
from reslab.evaluation.onnx import BATCH, race
from reslab.exporting.deployed import naming_foreign, run_reference, trace
from reslab.exporting.formats import Predict, open_pt2, to_onnx, to_pt2
from reslab.exporting.page import round_weights, to_page
from reslab.exporting.quantize import describe_anew, quantize
from reslab.measure.class_sets import fit_class_sets
from reslab.network.network import Network
from reslab.network.onnx_file import Description, OnnxFile, Outputs
from reslab.records import SplitName
from reslab.report.card import is_card, write_card
from reslab.runs import Run, make_folder, write_bytes
from reslab.runs.files import read_bytes
from reslab.training.seen import leave_out_seen

__all__ = ["Export", "export"]

LARGEST_DIFFERENCE = 1e-4  # in a logit or a probability
LARGEST_DIFFERENCE_IN_A_PAGE = 1e-3  # in a probability
LARGEST_STEP_IN_A_PAGE = 0.05  # in familiarity
ENDINGS = (".onnx", ".pt2", ".html")
OPSET, OPSETS = 20, range(18, 24)
NUM_CHECKED, NUM_CALIBRATED, NUM_MEASURED = 256, 512, 2000  # images


@dataclass(frozen=True)
class Written:
    """A file, and the largest difference of a logit or a probability from PyTorch's; None for int8."""

    file: str
    num_bytes: int
    largest_difference: float | None = None


@dataclass(frozen=True)
class Cost:
    """int8 compared with float32 in ONNX Runtime, on `num_images`: accuracies as fractions, and images per second."""

    split: SplitName
    num_images: int
    accuracy: float
    accuracy_float: float
    images_per_second: float
    images_per_second_float: float


@dataclass(frozen=True)
class Export:
    """The files that were written, and what they were checked on."""

    files: tuple[Written, ...]
    images: str  # "256 training images" or "256 generated images"
    int8: Cost | None = None


def export(
    run: Run,
    *,
    to: Path | str,
    int8: bool = False,
    fixed_size: bool = False,
    opset: int = OPSET,
    data_dir: Path | None = None,
    allow_remote: bool = False,
) -> Export:
    """Write a finished run's network to files that run elsewhere.

    An exported graph takes the pixels of pictures of any size, and resizes and standardizes them as reslab does. Each
    file is read back and compared with PyTorch on training images, or on generated ones if those are not available. The
    test split is not read.

    Parameters
    ----------
    run : Run
        The finished run.
    to : Path or str
        A file that ends in `.onnx` or `.pt2`; one that ends in `.html`, a web page that classifies pictures in the
        browser and needs no server; or a folder, which gets `model.onnx`, `model.safetensors` and a model card.
    int8 : bool, default False
        Whether to write a second ONNX file, `…-int8.onnx`, that computes in 8-bit integers, calibrated on training
        images.
    fixed_size : bool, default False
        Whether to accept only pictures of the network's own size, for runtimes without dynamic shapes.
    opset : int, default 20
        ONNX opset version, 18 to 23.
    data_dir : Path, optional
        Folder of downloaded data, instead of `$RESLAB_DATA` or the cache directory.
    allow_remote : bool, default False
        Whether machines named in the run's recipe may be contacted.

    Returns
    -------
    Export
        The files, how much each differs from PyTorch, and how int8 changes accuracy and speed.

    Raises
    ------
    UserError
        If the run is not finished, or `to` is not a place for an export.
    Failure
        If a file differs from PyTorch by more than 1e-4 in a logit or a probability, times the largest logit if that is
        above 1; the file is then removed.

    Examples
    --------
    >>> import reslab
    >>> done = reslab.export(reslab.Run.open("runs/digits"), to="seven.pt2")
    >>> done.files[0].file, done.files[0].largest_difference < 1e-4, done.images
    ('seven.pt2', True, '171 training images')
    """
    if opset not in OPSETS:
        raise UserError(f"opset {opset} is not one that can be written: choose {OPSETS[0]} to {OPSETS[-1]}")
    target = Path(to)
    is_folder = _check_target(target, run=run, int8=int8, fixed_size=fixed_size, opset=opset)
    with waiting(f"{to}: reading the run and images to check with"), already_said():
        network = Network.load(run.path, device="cpu")
        for_int8 = _read_int8_images(run, data_dir, allow_remote) if int8 else None
        pixels, kind = _find_images(run, network, data_dir, allow_remote)
    sets = network.metadata.class_sets
    known = Description(
        network.classes,
        network.channels,
        network.image_size,
        network.resize,
        class_sets=sets.model_dump_json() if sets else None,
        white=network.white,
    )
    images = f"{len(pixels)} {kind} images"
    if target.suffix == ".html":
        check_taken(image_size=network.image_size, channels=network.channels)
    make_folder(target if is_folder else target.parent)
    with waiting(f"{to}: converting"), naming_foreign(network.metadata.model):
        program = trace(network, any_size=not fixed_size)
        is_pt2 = target.suffix == ".pt2" and not is_folder
        content = to_pt2(program, known=known) if is_pt2 else to_onnx(program, known=known, opset=opset)
    with waiting(f"{to}: checking on {images}"):
        if target.suffix == ".html" and not is_folder:
            return Export((_write_page(target, content, known, network, pixels),), images)
        path = target / "model.onnx" if is_folder else target
        written = [_write(path, content, network, pixels)]
    cost = None
    if for_int8 is not None:
        with waiting(f"{to}: quantizing and measuring int8"):
            promises = known.class_sets is not None and run.recipe.extension is None  # which may weight its images
            beside, cost = _write_int8(path, known._replace(class_sets=None), *for_int8, promises=promises)
        written.append(beside)
    if is_folder:
        written.append(_copy_weights(run, target))
        card = write_card(
            run, weights=network.metadata, files=[file.name for file in (Path(made.file) for made in written)]
        )
        write_bytes(target / "README.md", card.encode())
    return Export(tuple(written), images, cost)


def _check_target(target: Path, *, run: Run, int8: bool, fixed_size: bool, opset: int) -> bool:
    """Tell whether the target is a folder. Raises: UserError if it is not a place for an export."""
    if target.suffix in ENDINGS and not target.is_dir():
        if int8 and target.suffix != ".onnx":
            raise UserError(f"{target} cannot be in int8: write model.onnx or a folder")
        if fixed_size and target.suffix == ".html":
            raise UserError(f"{target} takes pictures of any size: omit --fixed-size, or write model.onnx")
        if opset != OPSET and target.suffix == ".pt2":
            raise UserError(f"{target} has no ONNX operators: omit --opset, or write model.onnx")
        return False
    if Run.is_at(target) and not target.samefile(run.path):
        raise UserError(f"{target} is another run, whose weights it would replace: choose another folder")
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file: write model.onnx, model.pt2, page.html or a folder")
    if not target.exists() and re.fullmatch(r"\.[A-Za-z]\w*", target.suffix):  # a folder may be named v1.2
        raise UserError(
            f"{target}: no {target.suffix} file can be written: choose a name that ends in "
            f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}, or a folder without an ending"
        )
    readme = target / "README.md"
    if readme.exists() and not is_card(read_bytes(readme)):
        raise UserError(f"{readme} is not a model card of reslab, and would be replaced by one: choose another folder")
    return True


# ---- images to check with; never those of the test split


def _find_images(
    run: Run, network: Network, data_dir: Path | None, allow_remote: bool
) -> tuple[NDArray[np.uint8], str]:
    """Return the first training images, or generated ones if those cannot be read, and which of the two."""
    try:
        train = read_split_of(run, "train", data_dir=data_dir, allow_remote=allow_remote)
    except (UserError, Failure):
        shape = (NUM_CHECKED, network.channels, network.image_size, network.image_size)
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), "generated"
    return train.images[:NUM_CHECKED].numpy(), "training"


def _read_int8_images(run: Run, data_dir: Path | None, allow_remote: bool) -> tuple[NDArray[np.uint8], ImageSet]:
    """Return images for calibration, and others to measure on: validation images that the network has not learned from.

    Without any, those are training images, too. Raises: UserError if there is a single one.
    """
    train = read_split_of(run, "train", data_dir=data_dir, allow_remote=allow_remote)
    order = torch.randperm(len(train.labels), generator=seeded(0, "calibrate"))
    num_calibrated, measured = NUM_CALIBRATED, None
    if run.recipe.validation:
        measured = leave_out_seen(read_split_of(run, "validation", data_dir=data_dir, allow_remote=allow_remote), run)
    if measured is None:
        num_calibrated = min(NUM_CALIBRATED, len(order) // 2)
        measured = train.subset(order[num_calibrated:])
    if not num_calibrated:
        raise UserError(f"{run.recipe.data} has one training image: to calibrate and measure int8 takes two")
    # Drawn, since pictures in folders come class by class.
    drawn = torch.randperm(len(measured.labels), generator=seeded(0, "measure"))[:NUM_MEASURED]
    return train.images[order[:num_calibrated]].numpy(), measured.subset(drawn)


# ---- files


def _write(path: Path, content: bytes, network: Network, images: NDArray[np.uint8]) -> Written:
    """Write a graph, read it back and compare. Raises: Failure, and removes the file, if it differs too much."""
    write_bytes(path, content)
    found = OnnxFile(path).predict if path.suffix == ".onnx" else open_pt2(path)
    wanted = run_reference(network, torch.from_numpy(images))
    scale = max(1.0, float(wanted[0].abs().max()))
    logits, probabilities, *familiarity = _compare(found, wanted, images)
    largest = max(logits, probabilities)  # of the numbers that are rounded
    if not largest <= LARGEST_DIFFERENCE * scale:
        path.unlink()
        raise Failure(
            f"{path} differs from PyTorch by {largest:.2g}, more than {LARGEST_DIFFERENCE * scale:.2g} in a logit "
            "or a probability: it was removed"
        )
    if too_much := _familiarity_differs(familiarity, network):
        path.unlink()
        raise Failure(f"{path} {too_much}: it was removed")
    return Written(str(path), len(content), largest)


def _write_page(path: Path, model: bytes, known: Description, network: Network, images: NDArray[np.uint8]) -> Written:
    """Write a web page. Raises: Failure if its network, whose weights are rounded, differs too much."""
    rounded = round_weights(model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        file.write_bytes(rounded)
        wanted = run_reference(network, torch.from_numpy(images))
        _, difference, *familiarity = _compare(OnnxFile(file).predict, wanted, images)
    if not difference <= LARGEST_DIFFERENCE_IN_A_PAGE:
        raise Failure(
            f"a page would differ from PyTorch by {difference:.2g} in a probability, more than "
            f"{LARGEST_DIFFERENCE_IN_A_PAGE:g}: write model.onnx instead"
        )
    if too_much := _familiarity_differs(familiarity, network, by=LARGEST_STEP_IN_A_PAGE):
        raise Failure(f"a page {too_much}: write model.onnx instead")
    content = to_page(rounded, known=known)
    write_bytes(path, content)
    return Written(str(path), len(content), difference)


def _compare(found: Predict, wanted: tuple[Tensor, ...], images: NDArray[np.uint8]) -> list[float]:
    """Return the largest differences from PyTorch: in logits, probabilities and, if there is one, familiarity."""
    # One image alone and the others together, since the number of images must be dynamic.
    return [
        float(np.abs(np.concatenate(both) - right.numpy()).max())
        for *both, right in zip(_known(found(images[:1])), _known(found(images[1:])), wanted, strict=True)
    ]


def _known(outputs: Outputs) -> list[NDArray[np.float32]]:
    """Leave out the outputs that the network does not have."""
    return [each for each in outputs if each is not None]


def _familiarity_differs(differences: list[float], network: Network, *, by: float = 0.0) -> str | None:
    """Say that familiarity differs too much, if it does: it is a share of held-out images, and rounding moves a few."""
    if not differences or network.familiarity is None:
        return None
    allowed = max(by, 3 / len(network.familiarity.scores))
    (found,) = differences
    return None if found <= allowed else f"differs from PyTorch by {found:.2g}, more than {allowed:.2g}, in familiarity"


def _write_int8(
    path: Path, known: Description, calibration: NDArray[np.uint8], measured: ImageSet, *, promises: bool
) -> tuple[Written, Cost]:
    """Quantise a file, write the result next to it, and measure both.

    If it `promises` class sets, they are fitted to its own answers for validation images; without any, there are none.
    """
    beside = path.with_name(f"{path.stem}-int8.onnx")
    content = quantize(path.read_bytes(), images=calibration, known=known)
    write_bytes(beside, content)
    if promises and measured.split == "validation":
        small = OnnxFile(beside)
        starts = range(0, len(measured.labels), BATCH)
        batches = (measured.images[start : start + BATCH].numpy() for start in starts)
        probabilities = np.concatenate([small.predict(batch).probabilities for batch in batches])
        sets = fit_class_sets(probabilities, measured.labels.numpy())
        content = describe_anew(content, known=known._replace(class_sets=sets.model_dump_json() if sets else None))
        write_bytes(beside, content)
    opened = [OnnxFile(each, threads=torch.get_num_threads()) for each in (path, beside)]
    exact, quantized = race([each.predict_logits for each in opened], measured)
    return Written(str(beside), len(content)), Cost(
        split=measured.split,
        num_images=len(measured.labels),
        accuracy=float(quantized.right.mean()),
        accuracy_float=float(exact.right.mean()),
        images_per_second=quantized.images_per_second,
        images_per_second_float=exact.images_per_second,
    )


def _copy_weights(run: Run, target: Path) -> Written:
    content = run.weights_path.read_bytes()
    write_bytes(target / "model.safetensors", content)
    return Written(str(target / "model.safetensors"), len(content))
