"""The run folder and its files."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from reslab.errors import Failure, Stopped, UserError, check_kind, find_similar, in_shell
from reslab.recipe.recipe import Recipe, StartingWeights, read_recipe
from reslab.records import (
    FAMILIARITY,
    SPLITS,
    Candidates,
    Environment,
    Epoch,
    Evaluation,
    PriorChoice,
    Progress,
    SplitName,
    Weights,
)
from reslab.runs import checkpoints, lock
from reslab.runs.checkpoints import Checkpoint
from reslab.runs.compact import compress
from reslab.runs.files import (
    Arrays,
    Damaged,
    make_folder,
    parse_record,
    read_bytes,
    read_npz,
    read_record,
    read_safetensors,
    to_safetensors,
    write_bytes,
    write_json,
    write_npz,
    writing,
)
from reslab.words import is_text, printable

# The run that comes with reslab, and its name. Commands read its weights; writing requires a copy.
DEMO: Final = "demo"
DEMO_FOLDER: Final = Path(__file__).parent / "demo"

# What a folder may contain if a run ended before it was set up; its recipe is written last.
BEFORE_THE_RECIPE = {
    lock.NAME,
    "environment.json",
    "digests.npz",
    "base.safetensors",
    "base.json",
    "base-memory.safetensors",
}

# What a run that saves no checkpoints may have written, with its recipe, before it ends.
AFTER_THE_RECIPE = (
    "recipe.json",
    "log.jsonl",
    "candidates.json",
    "prior.json",
    "model.safetensors",
    "memory.safetensors",
)

REPORTS: Final = ("report", "model-card")
BASE_DIGESTS: Final = ("base", "base_held_out")
MEMORY_BASE: Final = "base"  # in the metadata of a memory: the SHA-256 of the weights that computed its features
START_DIGEST: Final = "sha256"  # of the original file, in the metadata of starting weights


class Predictions(NamedTuple):
    """Predictions for one split: logits (N, K) float32, labels (N,) int64."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]


class Examples(NamedTuple):
    """Misclassified images of a split, the most confident first: indices (M,) into it, images (M, C, H, W) uint8."""

    indices: NDArray[np.int64]
    images: NDArray[np.uint8]


class Run:
    """A run folder. The constructor accesses no files; `create` and `open` check the folder.

    Parameters
    ----------
    path : Path or str
        The folder.

    Attributes
    ----------
    path : Path
        The folder.
    name : str
        Its name for display.
    recipe : Recipe
        What was to be done; `environment` says with what it was done.
    log : list of Epoch
        The epochs so far.
    is_finished, is_evaluated : bool
        Whether the weights exist, and the evaluation.
    evaluation : Evaluation
        The metrics.

    Examples
    --------
    >>> import reslab
    >>> run = reslab.Run.open("runs/digits")
    >>> run.name, run.is_finished, [epoch.epoch for epoch in run.log]
    ('digits', True, [1, 2, 3, 4])
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.name = printable(os.path.basename(os.path.realpath(path)))

    @classmethod
    def create(cls, path: Path | str, *, can_resume: bool = True) -> "Run":
        """Make an empty run folder. Raises: UserError if it exists and is not empty; Failure if it cannot be made.

        With `can_resume`, the message names --resume, which the command that makes the run then has to have.
        """
        cls.check_free(path, can_resume=can_resume)
        run = cls(path)
        make_folder(run.path)
        return run

    @classmethod
    def check_free(cls, path: Path | str, *, can_resume: bool = True) -> None:
        """Raises: as `create` does, without making anything."""
        run = cls(path)
        if not is_text(str(path)):
            raise UserError(f"{path} is not valid UTF-8: choose another name for the folder")

        def check() -> None:
            if run.path.exists() and (not run.path.is_dir() or any(map(_is_in_the_way, run.path.iterdir()))):
                remedy = "folder, or resume it with --resume" if can_resume else "--out, or remove the folder"
                rest = f"; its run is trained, and reslab evaluate {in_shell(path)} completes it"
                to_complete = rest if run.is_finished and not run.is_evaluated else ""
                raise UserError(f"{path} exists and is not empty: choose another {remedy}{to_complete}")

        writing(run.path, check)

    @classmethod
    def open(cls, path: Path | str) -> "Run":
        """Open a run folder made by `train`. Raises: UserError if it is not a run folder."""
        run = cls(path)
        if not cls.is_at(path):
            makes = f"pull {DEMO} --out runs/{DEMO}" if str(path) == DEMO else "train"
            exists = os.path.exists(run.path)
            if not exists and (near := find_similar(run.path)):
                raise UserError(f"{path} does not exist: did you mean {near}?")
            lacks = "it holds no recipe.json" if exists else "nothing is there"
            raise UserError(f"{path} is not a run folder: {lacks} (reslab {makes} makes one)")
        return run

    @staticmethod
    def is_at(path: Path | str) -> bool:
        """Return whether `path`, which may be any text, is a run folder."""
        return os.path.isfile(os.path.join(path, "recipe.json"))  # unlike Path.is_file, works for any name

    def locked(self) -> AbstractContextManager[None]:
        """Hold the write lock within the block. Raises: UserError if another process holds it."""
        return lock.locked(self.path)

    @property
    def is_locked(self) -> bool | None:
        """Whether a process is writing it now; None if that is unknown."""
        return lock.is_locked(self.path)

    def beat(self, so_far: Progress) -> None:
        """Record that the writing process is alive, and its progress."""
        lock.beat(self.path, so_far.model_dump_json().encode())

    @property
    def progress(self) -> Progress | None:
        """Progress of the current epoch; None if there is none, or it is unknown."""
        try:
            return Progress.model_validate_json(lock.last_said(self.path))
        except ValidationError:
            return None

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Hold the write lock of a new run; if the block fails before anything is saved, remove the run.

        After a Failure the run is kept, since it can be resumed.
        Raises: Stopped instead of KeyboardInterrupt if something is saved, since the same command would be refused.
        """
        try:
            with self.locked():
                try:
                    yield
                except Failure:
                    raise
                except BaseException as error:
                    if not self.has_checkpoint:
                        self._discard()
                    elif isinstance(error, KeyboardInterrupt):
                        raise Stopped(f"stopped: resume with {self.resume_command}") from None
                    raise
        finally:
            with suppress(OSError):  # it is usually not empty
                self.path.rmdir()

    def _discard(self) -> None:
        for name in (*AFTER_THE_RECIPE, *BEFORE_THE_RECIPE - {lock.NAME}):
            with suppress(OSError):
                (self.path / name).unlink(missing_ok=True)

    # ---- recipe and environment

    @property
    def recipe(self) -> Recipe:
        return read_recipe(self.path / "recipe.json")

    def write_recipe(self, recipe: Recipe) -> None:
        write_json(self.path / "recipe.json", recipe.model_dump(mode="json"))

    @property
    def environment(self) -> Environment:
        return read_record(self.path / "environment.json", Environment)

    def write_environment(self, environment: Environment) -> None:
        write_json(self.path / "environment.json", environment.model_dump(mode="json"))

    @property
    def data_from(self) -> Path | None:
        """Base of the data's relative paths; None if there are none, or an older version made the run."""
        recorded = self.environment.data_from
        return None if recorded is None else Path(os.path.normpath(self.path.absolute() / recorded))

    @property
    def digests(self) -> dict[str, NDArray[np.uint64]]:
        """For each split, hashes of the stored pictures, 0 if there is none.

        `base` holds those that the base and its bases were trained on, `base_held_out` those that they held out.
        Empty if all images are from official sets, or an older version made the run.
        """
        path = self.path / "digests.npz"
        return read_npz(path, (), optional=(*SPLITS, *BASE_DIGESTS)) if path.exists() else {}

    def read_digests(self, split: SplitName, *, num_images: int) -> NDArray[np.uint64] | None:
        """Read the hashes of a split's stored pictures (N,), however they were read; None unless each has one."""
        digests = self.digests.get(split)
        return digests if digests is not None and len(digests) == num_images and digests.all() else None

    @property
    def learned_digests(self) -> NDArray[np.uint64] | None:
        """Hashes of all pictures that the run and its bases were trained on or held out; None if there are none."""
        return self._join_digests("train", "validation", *BASE_DIGESTS)

    def _join_digests(self, *splits: str) -> NDArray[np.uint64] | None:
        digests = self.digests
        known = [digests[split] for split in splits if split in digests]
        return np.unique(np.concatenate(known)) if known else None

    def write_digests(self, split: SplitName, digests: NDArray[np.uint64] | None) -> None:
        """Add the hashes of a split, if it has any."""
        if digests is not None:
            write_npz(self.path / "digests.npz", self.digests | {split: digests})

    def write_base_digests(self, base: "Run") -> None:
        """Add the hashes of a base, if it has any."""
        trained, held_out = base._join_digests("train", "base"), base._join_digests("validation", "base_held_out")
        are_one = "base" in base.digests and "base_held_out" not in base.digests  # by an older version
        if are_one and trained is not None and held_out is not None and base.base_recipe.validation:
            trained = np.setdiff1d(trained, held_out)
        found = trained, held_out
        known = {name: digests for name, digests in zip(BASE_DIGESTS, found, strict=True) if digests is not None}
        if known:
            write_npz(self.path / "digests.npz", self.digests | known)

    # ---- the log: one object per line, append-only

    @property
    def log(self) -> list[Epoch]:
        """The epochs logged so far, without a last line truncated by a crash."""
        path = self.path / "log.jsonl"
        lines = read_bytes(path).split(b"\n")[:-1] if path.exists() else []
        return [parse_record(line, Epoch, f"{path}:{number}") for number, line in enumerate(lines, 1)]

    def append_log(self, epoch: Epoch) -> None:
        path = self.path / "log.jsonl"

        def append() -> None:
            with path.open("ab") as file:
                file.write(epoch.model_dump_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

        writing(path, append)

    def cut_log(self, num_epochs: int) -> None:
        """Keep the first `num_epochs` lines: epochs after the checkpoint are trained again.

        An evaluation goes with lines that are cut, or if none is kept, since no log would belong to it.
        """
        path = self.path / "log.jsonl"
        lines = read_bytes(path).split(b"\n")[:-1] if path.exists() else []
        if len(lines) > num_epochs or not num_epochs:
            self.remove_evaluation()
        write_bytes(path, b"".join(line + b"\n" for line in lines[:num_epochs]))

    # ---- the state for an exact resume

    @property
    def has_checkpoint(self) -> bool:
        return any(path.exists() for path in checkpoints.checkpoint_paths(self.path / "checkpoint"))

    def write_checkpoint(self, tensors: Arrays, state: Mapping[str, Any]) -> None:
        """Replace the newest checkpoint, which becomes `previous`."""
        checkpoints.write_checkpoint(self.path / "checkpoint", tensors, state)

    def read_checkpoints(self) -> list[Checkpoint]:
        """Read the checkpoints with a valid checksum, newest first. Raises: UserError if all are damaged."""
        return checkpoints.read_checkpoints(self.path / "checkpoint")

    def read_checkpoint(self) -> Checkpoint:
        """Read the newest checkpoint with a valid checksum. Raises: UserError if there is none."""
        found = self.read_checkpoints()
        if not found:
            raise UserError(f"{self.path} has no checkpoint to resume from: train it again")
        return found[0]

    # ---- files of an extension

    @property
    def base_path(self) -> Path:
        """Path of the weights of the base."""
        return self.path / "base.safetensors"

    @property
    def base_digest(self) -> str:
        """The SHA-256 of the file."""
        return hashlib.sha256(read_bytes(self.base_path)).hexdigest()

    @property
    def base_recipe(self) -> Recipe:
        """The recipe of the first base, however often it was extended since."""
        path = self.path / "base.json"
        return read_recipe(path) if path.exists() else self.recipe

    def write_base(self, content: bytes) -> None:
        write_bytes(self.base_path, content)

    def read_start(self, start: StartingWeights) -> Arrays:
        """Read the weights that the training started from. Raises: UserError if the file holds others."""
        tensors, metadata = read_safetensors(self.base_path)
        if metadata.get(START_DIGEST) != start.sha256:
            raise UserError(f"{self.base_path} does not hold the weights of {start.file}: train it again")
        return tensors

    def write_base_recipe(self, recipe: Recipe) -> None:
        write_json(self.path / "base.json", recipe.model_dump(mode="json"))

    @property
    def memory_path(self) -> Path:
        """Path of the network's memory of its training images, if it has one."""
        return self.path / "memory.safetensors"

    def write_memory(self, content: bytes) -> None:
        write_bytes(self.memory_path, content)

    @property
    def base_memory_path(self) -> Path:
        """Path of the base's memory, if that stands for its images."""
        return self.path / "base-memory.safetensors"

    def write_base_memory(self, content: bytes) -> None:
        write_bytes(self.base_memory_path, content)

    @property
    def prior(self) -> PriorChoice:
        return read_record(self.path / "prior.json", PriorChoice)

    def write_prior(self, prior: PriorChoice) -> None:
        write_json(self.path / "prior.json", prior.model_dump(mode="json"))

    # ---- files of a fit

    @property
    def candidates(self) -> Candidates | None:
        """The candidates of `fit`; None for other runs."""
        path = self.path / "candidates.json"
        return read_record(path, Candidates) if path.exists() else None

    def write_candidates(self, candidates: Candidates) -> None:
        write_json(self.path / "candidates.json", candidates.model_dump(mode="json"))

    # ---- files of training

    @property
    def is_finished(self) -> bool:
        return (self.path / "model.safetensors").exists()

    def check_finished(self) -> None:
        """Raises: UserError if there is no network yet, saying whether it is being trained."""
        if self.is_finished:
            return
        if self.is_locked:
            raise UserError(f"{self.path} is being trained by another process: wait until it has finished")
        raise UserError(f"{self.path} holds no finished network: resume with {self.resume_command}")

    @property
    def resume_command(self) -> str:
        """The command that resumes it."""
        return f"reslab {'train' if self.recipe.extension is None else 'extend'} --resume {in_shell(self.path)}"

    @property
    def weights_path(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def weights_digest(self) -> str:
        """The SHA-256 of the file."""
        return hashlib.sha256(read_bytes(self.weights_path)).hexdigest()

    def write_weights(self, content: bytes) -> None:
        write_bytes(self.weights_path, content)

    # ---- files of evaluation

    def write_predictions(
        self,
        split: SplitName,
        predictions: Predictions,
        *,
        names: Sequence[str] | None = None,
        augmented: bool = False,
    ) -> None:
        """Write the predictions for a split, with the `names` (N,) of the picture files if there are any."""
        arrays: dict[str, NDArray[Any]] = dict(predictions._asdict())
        if names is not None:
            arrays["names"] = np.array(names, dtype=np.str_)
        write_npz(self._predictions_path(split, augmented), arrays)

    def read_predictions(self, split: SplitName, *, augmented: bool = False) -> Predictions:
        """Read what the network answered for a split when it was evaluated.

        Parameters
        ----------
        split : {"train", "validation", "test"}
            The split.
        augmented : bool, default False
            Whether to read the predictions with test-time augmentation, which `evaluate` makes with `views`.

        Returns
        -------
        Predictions
            The named tuple of `logits` (N, K) float32 and `labels` (N,) int64, in the order of the split.

        Raises
        ------
        UserError
            If the run holds no such predictions, or they are damaged.

        Examples
        --------
        >>> import reslab
        >>> logits, labels = reslab.Run.open("runs/digits").read_predictions("test")
        >>> logits.shape[1], len(logits) == len(labels)
        (3, True)
        """
        return Predictions(**read_npz(self._predictions_path(split, augmented), ("logits", "labels")))

    def read_names(self, split: SplitName) -> tuple[str, ...] | None:
        """Read the paths of a split's picture files inside their source; None if there are none."""
        path = self._predictions_path(split, augmented=False)
        found = read_npz(path, ("labels",), optional=("names",))
        if "names" not in found:
            return None
        if found["names"].dtype.kind != "U" or found["names"].shape != found["labels"].shape:
            raise Damaged(f"{path} is damaged: it should hold one name for each image")
        return tuple(map(str, found["names"]))

    def has_predictions(self, split: SplitName) -> bool:
        """Return whether the predictions of a split are here; a pulled run has its metrics alone."""
        return self._predictions_path(split, augmented=False).is_file()

    def _predictions_path(self, split: SplitName, augmented: bool) -> Path:
        return self.path / f"predictions-{split}{'-tta' if augmented else ''}.npz"

    def write_base_predictions(self, predictions: Predictions) -> None:
        """Write the base's predictions for the old classes' test images, in the order of the split."""
        write_npz(self._base_predictions_path, predictions._asdict())

    def read_base_predictions(self) -> Predictions:
        return Predictions(**read_npz(self._base_predictions_path, ("logits", "labels")))

    @property
    def _base_predictions_path(self) -> Path:
        return self.path / "predictions-test-base.npz"

    def write_examples(self, split: SplitName, examples: Examples) -> None:
        write_npz(self.path / f"examples-{split}.npz", examples._asdict())

    def read_examples(self, split: SplitName) -> Examples:
        return Examples(**read_npz(self.path / f"examples-{split}.npz", ("indices", "images")))

    @property
    def is_evaluated(self) -> bool:
        return (self.path / "evaluation.json").exists()

    @property
    def evaluation(self) -> Evaluation:
        """The metrics. Raises: UserError if the run has not been evaluated, or the file is damaged."""
        if not self.is_evaluated:
            self.check_finished()
            raise UserError(f"{self.path} has not been evaluated: run reslab evaluate {in_shell(self.path)}")
        try:
            return read_record(self.path / "evaluation.json", Evaluation)
        except Damaged as error:
            raise Damaged(f"{error}; measure it again: run reslab evaluate {in_shell(self.path)}") from None

    def write_evaluation(self, evaluation: Evaluation) -> None:
        write_json(self.path / "evaluation.json", evaluation.model_dump(mode="json"))

    def remove_evaluation(self) -> None:
        """Remove metrics, predictions and reports before different weights are written."""
        reports = (f"{each}{language}" for each in REPORTS for language in ("", ".??"))
        names = [f"{name}.{ending}" for name in reports for ending in ("html", "md", "pdf")]
        for pattern in ("evaluation*.json", "predictions-*.npz", *names):
            for path in self.path.glob(pattern):
                writing(path, partial(path.unlink, missing_ok=True))


def _is_in_the_way(path: Path) -> bool:
    return path.name not in BEFORE_THE_RECIPE and not path.name.endswith(".part")


def pack_weights(tensors: Arrays, weights: Weights, *, compact: bool = False) -> bytes:
    """Serialize to a `model.safetensors`, which with `compact` has 8-bit integers and a quarter of the size.

    Raises: Failure if a weight is not finite.
    """
    layers = {name: value for name, value in tensors.items() if not name.startswith(FAMILIARITY)}
    if wrong := [name for name, value in layers.items() if not np.isfinite(value).all()]:
        raise Failure(f"{wrong[0]} is not finite, so no weights are written: train again at a lower optimizer.peak_lr")
    if compact:
        tensors = {**tensors, **compress(layers)}
    return to_safetensors(tensors, {"reslab": weights.model_dump_json()})


def find_demo(path: Path) -> Path:
    """Return where the network that comes with reslab lies for `demo`, unless there is a file of that name."""
    return DEMO_FOLDER if str(path) == DEMO and not path.exists() else path


def read_weights(path: Path) -> tuple[dict[str, NDArray[Any]], Weights]:
    """Read a `model.safetensors`, or the one inside a run folder: tensors by name, and their metadata.

    `demo` is the network that comes with reslab, unless there is a file of that name.

    Raises: UserError if the file is missing, damaged or not written by reslab.
    """
    path = find_demo(path)
    if path.is_dir():
        run = Run.open(path)
        run.check_finished()
        path = run.weights_path
    _check_weights_file(path)
    tensors, metadata = read_safetensors(path)
    if "reslab" not in metadata:
        raise UserError(f"{path} does not say which network it holds: it was not written by reslab")
    return tensors, parse_record(metadata["reslab"].encode(), Weights, str(path))


def _check_weights_file(path: Path) -> None:
    """Raises: UserError if `path` does not exist, or is neither named nor written as a safetensors file."""
    check_kind(path)
    if not os.path.exists(path):
        near = find_similar(path)
        raise UserError(f"{path} does not exist" + (f": did you mean {near}?" if near else ": give a run folder"))
    if path.suffix != ".safetensors" and not _has_header(path):
        raise UserError(f"{path} holds no network: give a run folder, a model.safetensors or an exported .onnx")


def _has_header(path: Path) -> bool:
    """Return whether JSON follows eight bytes with its length, as in a safetensors file."""
    try:
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError:  # reading it says why
        return True
