"""Run folders: their only reader and writer.

Every file is written beside its place, flushed to the disk and renamed, so that a reader sees the old file or the new
one. JSON, safetensors and plain npz only: nothing read here can run code. NumPy arrays in and out; no torch.
"""

import errno
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import ValidationError

from reslab.complaints import first_complaint, show
from reslab.errors import Failure, UserError
from reslab.recipe import Part, Recipe, read_recipe
from reslab.records import SCHEMA_VERSION, Environment, Epoch, Evaluation, PriorChoice, SplitName, Weights

Arrays = Mapping[str, NDArray[Any]]
RecordT = TypeVar("RecordT", bound=Part)


class Predictions(NamedTuple):
    """What a network said of one split: logits (N, K) float32, labels (N,) int64."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]


class Examples(NamedTuple):
    """Misclassified images of a split, the most certain first: indices (M,) into it, images (M, C, H, W) uint8."""

    indices: NDArray[np.int64]
    images: NDArray[np.uint8]


class Checkpoint(NamedTuple):
    """A complete state: its tensors by name and a JSON object."""

    tensors: dict[str, NDArray[Any]]
    state: dict[str, Any]


class Run:
    """One run folder. `Run(path)` touches nothing; `create` and `open` check what is there."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.name = self.path.resolve().name

    @classmethod
    def create(cls, path: Path | str) -> "Run":
        """Make an empty run folder. Raises: UserError where something is there already; Failure where it cannot be."""
        run = cls(path)

        def make() -> None:
            if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
                raise UserError(f"{path} exists and is not empty: choose another folder, or go on with it by --resume")
            run.path.mkdir(parents=True, exist_ok=True)

        _writing(run.path, make)
        return run

    @classmethod
    def open(cls, path: Path | str) -> "Run":
        """Open a run folder that `train` has begun. Raises: UserError where it is none."""
        run = cls(path)
        if not os.path.isfile(run.path / "recipe.json"):  # unlike Path.is_file, for any name at all
            raise UserError(f"{path} is not a run folder: it holds no recipe.json (reslab train makes one)")
        return run

    # ---- what was asked for, and where it ran

    @property
    def recipe(self) -> Recipe:
        return read_recipe(self.path / "recipe.json")

    def write_recipe(self, recipe: Recipe) -> None:
        write_json(self.path / "recipe.json", recipe.model_dump(mode="json"))

    @property
    def environment(self) -> Environment:
        return _read_record(self.path / "environment.json", Environment)

    def write_environment(self, environment: Environment) -> None:
        write_json(self.path / "environment.json", environment.model_dump(mode="json"))

    # ---- the log: one object a line, append-only

    @property
    def log(self) -> list[Epoch]:
        """The epochs logged so far. A last line cut short by a crash is left out."""
        path = self.path / "log.jsonl"
        lines = _read_bytes(path).split(b"\n")[:-1] if path.exists() else []
        return [_parse_record(line, Epoch, f"{path}:{number}") for number, line in enumerate(lines, 1)]

    def append_log(self, epoch: Epoch) -> None:
        path = self.path / "log.jsonl"

        def append() -> None:
            with path.open("ab") as file:
                file.write(epoch.model_dump_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

        _writing(path, append)

    def cut_log(self, num_epochs: int) -> None:
        """Keep the first `num_epochs` lines: what a checkpoint does not know of is trained again."""
        path = self.path / "log.jsonl"
        lines = _read_bytes(path).split(b"\n")[:-1] if path.exists() else []
        write_bytes(path, b"".join(line + b"\n" for line in lines[:num_epochs]))

    # ---- the state for an exact resume

    @property
    def has_checkpoint(self) -> bool:
        return any(path.exists() for path in self._checkpoint_paths())

    def _checkpoint_paths(self) -> tuple[Path, Path]:
        return self.path / "checkpoint" / "newest.safetensors", self.path / "checkpoint" / "previous.safetensors"

    def write_checkpoint(self, tensors: Arrays, state: Mapping[str, Any]) -> None:
        """Replace the newest checkpoint; the one before it stays as `previous`."""
        newest, previous = self._checkpoint_paths()
        content = json.dumps({"schema_version": SCHEMA_VERSION, **state}, sort_keys=True)
        metadata = {"state": content, "sha256": _digest(tensors, content)}
        data = _to_safetensors(tensors, metadata)
        _writing(newest, lambda: newest.parent.mkdir(exist_ok=True))
        if newest.exists():
            _writing(previous, lambda: os.replace(newest, previous))
        write_bytes(newest, data)

    def read_checkpoint(self) -> Checkpoint:
        """Read the newest checkpoint whose checksum holds. Raises: UserError where none does."""
        problems = []
        for path in self._checkpoint_paths():
            if not path.exists():
                continue
            try:
                return _read_checkpoint(path)
            except UserError as error:
                problems.append(str(error))
        raise UserError("; ".join(problems) or f"{self.path} holds no checkpoint to go on from: train it anew")

    # ---- what an extension brings along and leaves

    @property
    def base_path(self) -> Path:
        """The weights of the network that was extended."""
        return self.path / "base.safetensors"

    @property
    def base_digest(self) -> str:
        """The SHA-256 of the file."""
        return hashlib.sha256(_read_bytes(self.base_path)).hexdigest()

    @property
    def base_recipe(self) -> Recipe:
        """The recipe by which the first base was trained, however often it was extended since."""
        path = self.path / "base.json"
        return read_recipe(path) if path.exists() else self.recipe

    def write_base(self, weights: bytes) -> None:
        write_bytes(self.base_path, weights)

    def write_base_recipe(self, recipe: Recipe) -> None:
        write_json(self.path / "base.json", recipe.model_dump(mode="json"))

    @property
    def prior(self) -> PriorChoice:
        return _read_record(self.path / "prior.json", PriorChoice)

    def write_prior(self, prior: PriorChoice) -> None:
        write_json(self.path / "prior.json", prior.model_dump(mode="json"))

    # ---- what training leaves

    @property
    def is_finished(self) -> bool:
        return (self.path / "model.safetensors").exists()

    @property
    def weights_path(self) -> Path:
        return self.path / "model.safetensors"

    def write_weights(self, tensors: Arrays, weights: Weights) -> None:
        write_bytes(self.weights_path, _to_safetensors(tensors, {"reslab": weights.model_dump_json()}))

    # ---- what evaluation leaves

    def write_predictions(self, split: SplitName, predictions: Predictions, *, augmented: bool = False) -> None:
        _write_npz(self._predictions_path(split, augmented), predictions._asdict())

    def read_predictions(self, split: SplitName, *, augmented: bool = False) -> Predictions:
        return Predictions(**_read_npz(self._predictions_path(split, augmented), ("logits", "labels")))

    def _predictions_path(self, split: SplitName, augmented: bool) -> Path:
        return self.path / f"predictions-{split}{'-tta' if augmented else ''}.npz"

    def write_base_predictions(self, predictions: Predictions) -> None:
        """Keep what the base said of the old classes' test images, in the order of the split."""
        _write_npz(self._base_predictions_path, predictions._asdict())

    def read_base_predictions(self) -> Predictions:
        return Predictions(**_read_npz(self._base_predictions_path, ("logits", "labels")))

    @property
    def _base_predictions_path(self) -> Path:
        return self.path / "predictions-test-base.npz"

    def write_examples(self, split: SplitName, examples: Examples) -> None:
        _write_npz(self.path / f"examples-{split}.npz", examples._asdict())

    def read_examples(self, split: SplitName) -> Examples:
        return Examples(**_read_npz(self.path / f"examples-{split}.npz", ("indices", "images")))

    @property
    def is_evaluated(self) -> bool:
        return (self.path / "evaluation.json").exists()

    @property
    def evaluation(self) -> Evaluation:
        """The figures. Raises: UserError where the run has not been evaluated."""
        if not self.is_evaluated:
            raise UserError(f"{self.path} has not been evaluated: run reslab evaluate {self.path}")
        return _read_record(self.path / "evaluation.json", Evaluation)

    def write_evaluation(self, evaluation: Evaluation) -> None:
        write_json(self.path / "evaluation.json", evaluation.model_dump(mode="json"))


def read_weights(path: Path) -> tuple[dict[str, NDArray[Any]], Weights]:
    """Read `model.safetensors`, or the one inside a run folder: tensors by name, and what they are.

    Raises: UserError where the file is missing, damaged or not one of reslab's.
    """
    if path.is_dir():
        run = Run.open(path)
        if not run.is_finished:
            raise UserError(f"{path} holds no finished network: go on with reslab train --resume {path}")
        path = run.weights_path
    tensors, metadata = _read_safetensors(path)
    if "reslab" not in metadata:
        raise UserError(f"{path} does not say which network it holds: it was not written by reslab")
    return tensors, _parse_record(metadata["reslab"].encode(), Weights, str(path))


# ---- atomic writing


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one. Raises: Failure where the disk refuses."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")

    def write() -> None:
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        _flush_folder(path.parent)

    _writing(path, write)


def write_json(path: Path, content: Any) -> None:
    """Write JSON that a person can read, atomically."""
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def _flush_folder(folder: Path) -> None:
    """Make a rename last through a power cut; not every system lets a folder be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _writing(path: Path, action: Callable[[], Any]) -> None:
    try:
        action()
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else (error.strerror or str(error))
        raise Failure(f"{path} cannot be written: {reason}") from None


# ---- reading, with every damage in one sentence


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _parse_json(content: bytes, where: str) -> dict[str, Any]:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is damaged: {error}") from None
    if not isinstance(parsed, dict):
        raise UserError(f"{where} is damaged: it should be an object with fields, not {show(parsed)}")
    version = parsed.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(f"{where} has schema {version}, this reslab reads up to {SCHEMA_VERSION}: upgrade reslab")
    return parsed


def _parse_record(content: bytes, kind: type[RecordT], where: str) -> RecordT:
    parsed = _parse_json(content, where)
    try:
        return kind.model_validate(parsed)
    except ValidationError as error:
        raise UserError(f"{where} is damaged: {first_complaint(error, parsed)}") from None


def _read_record(path: Path, kind: type[RecordT]) -> RecordT:
    return _parse_record(_read_bytes(path), kind, str(path))


def _to_safetensors(tensors: Arrays, metadata: dict[str, str]) -> bytes:
    # Not ascontiguousarray, which turns a number into a list of one.
    return safetensors.numpy.save({name: np.asarray(value, order="C") for name, value in tensors.items()}, metadata)


def _read_safetensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError, TypeError, AttributeError) as error:  # the last two: no such dtype
        raise UserError(f"{path} cannot be read as a safetensors file: {error}") from None


def _read_checkpoint(path: Path) -> Checkpoint:
    tensors, metadata = _read_safetensors(path)
    content = metadata.get("state", "")
    if metadata.get("sha256") != _digest(tensors, content):
        raise UserError(f"{path} is corrupt: its checksum does not hold")
    return Checkpoint(tensors, _parse_json(content.encode(), str(path)))


def _digest(tensors: Arrays, state: str) -> str:
    """SHA-256 over the state and every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        value = np.asarray(tensors[name], order="C")
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
        digest.update(value.reshape(-1).data)
    return digest.hexdigest()


def _write_npz(path: Path, arrays: Arrays) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def _read_npz(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{path} is missing: run reslab evaluate {path.parent}")
    content = _read_bytes(path)
    try:
        # From memory, because NumPy leaves a broken file open.
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except Exception as error:  # a broken archive makes zipfile and NumPy raise nearly anything
        raise UserError(f"{path} is damaged, it should hold {' and '.join(names)}: {error}") from None
