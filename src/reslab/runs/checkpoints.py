"""The newest checkpoint of a run and the previous one, each with a checksum over all of its content."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reslab.errors import Failure, UserError
from reslab.records import SCHEMA_VERSION
from reslab.runs.files import Arrays, Damaged, make_folder, parse_json, read_safetensors, to_safetensors, write_bytes


class Checkpoint(NamedTuple):
    """A complete state: its tensors by name and a JSON object."""

    tensors: dict[str, NDArray[Any]]
    state: dict[str, Any]


def checkpoint_paths(folder: Path) -> tuple[Path, Path]:
    """Return the paths of the newest checkpoint and the previous one."""
    return folder / "newest.safetensors", folder / "previous.safetensors"


def write_checkpoint(folder: Path, tensors: Arrays, state: Mapping[str, Any]) -> None:
    """Write a checkpoint, verify it by reading it back, and make it the newest; a valid old one becomes the previous.

    Raises: Failure if it cannot be written, or differs when read back.
    """
    newest, previous = checkpoint_paths(folder)
    metadata = sign(tensors, json.dumps({"schema_version": SCHEMA_VERSION, **state}, sort_keys=True))

    def make_room(written: Path) -> None:
        if not _is_sound(written):
            raise Failure(f"{newest} cannot be written: what is read back is not what was written")
        if _is_sound(newest):
            os.replace(newest, previous)

    make_folder(folder)
    write_bytes(newest, to_safetensors(tensors, metadata), check=make_room)


def sign(tensors: Arrays, state: str) -> dict[str, str]:
    """Make a checkpoint's metadata: its state, a JSON object, and the checksum over state and tensors."""
    return {"state": state, "sha256": _digest(tensors, state)}


def read_checkpoints(folder: Path) -> list[Checkpoint]:
    """Read the checkpoints with a valid checksum, the newest first.

    Raises: UserError if all existing ones are damaged, or one has a newer schema.
    """
    found, problems = [], []
    for path in checkpoint_paths(folder):
        if path.exists():
            try:
                found.append(_read(path))
            except Damaged as error:
                problems.append(str(error))
    if problems and not found:
        raise UserError("; ".join(problems))
    return found


def _is_sound(path: Path) -> bool:
    try:
        _read(path)
    except Damaged:
        return False
    except UserError:
        pass  # it has a newer schema
    return True


def _read(path: Path) -> Checkpoint:
    tensors, metadata = read_safetensors(path)
    content = metadata.get("state", "")
    if metadata.get("sha256") != _digest(tensors, content):
        raise Damaged(f"{path} is corrupt: its checksum does not match")
    return Checkpoint(tensors, parse_json(content.encode(), str(path)))


def _digest(tensors: Arrays, state: str) -> str:
    """SHA-256 over the state and every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        value = np.asarray(tensors[name], order="C")
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
        digest.update(value.reshape(-1).data)
    return digest.hexdigest()
