"""Reading of foreign state dicts as plain tensors, without executing code in the file."""

import hashlib
import io
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from reslab.errors import UserError, check_kind
from reslab.runs import read_weights
from reslab.runs.files import LARGEST, Damaged, read_safetensors

WRAPPERS: Final = ("state_dict", "model", "net", "model_state_dict")
PREFIXES: Final = re.compile(r"^(module\.|_orig_mod\.)+")  # of DataParallel and torch.compile
_FRACTIONS: Final = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_WHOLE: Final = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


class StateDict(NamedTuple):
    """Tensors by name, and the file's SHA-256."""

    tensors: dict[str, Tensor]
    sha256: str


def read_state_dict(path: Path) -> StateDict:
    """Read a run folder, a `.safetensors`, or a state dict written by torch.save, without executing code.

    Raises: UserError if it cannot be read, is too large, or is not a mapping of names to tensors.
    """
    if path.is_dir():
        read_weights(path)  # is it a finished run?
        path = path / "model.safetensors"
    check_kind(path)
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} has {path.stat().st_size:,} bytes, but at most {LARGEST:,} are read")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if path.suffix == ".safetensors":
        found: Any = _load_safetensors(path)
    else:
        found = _load(content, path)
    return StateDict(_tensors_in(found, path), hashlib.sha256(content).hexdigest())


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors`, also with types that NumPy lacks, such as bfloat16."""
    try:
        return {name: torch.as_tensor(value) for name, value in read_safetensors(path)[0].items()}
    except Damaged:
        try:
            return load_file(path)
        except Exception:  # the first error names what is wrong
            pass
        raise


def _load(content: bytes, path: Path) -> Any:
    try:
        if zipfile.is_zipfile(io.BytesIO(content)):
            size = sum(entry.file_size for entry in zipfile.ZipFile(io.BytesIO(content)).infolist())
            if size > LARGEST:
                raise UserError(f"{path} unpacks to {size:,} bytes, but at most {LARGEST:,} are read")
        with warnings.catch_warnings(action="ignore"):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception:  # PyTorch's message would advise executing the file
        raise UserError(
            f"{path} cannot be read as plain tensors: save it again with torch.save(model.state_dict(), FILE)"
        ) from None


def _tensors_in(found: Any, path: Path) -> dict[str, Tensor]:
    for name in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    values = found.items() if isinstance(found, Mapping) else ()
    tensors = {PREFIXES.sub("", str(name)): value for name, value in values if _is_plain(value)}
    if not tensors:
        raise UserError(f"{path} holds no tensors by name: save it with torch.save(model.state_dict(), FILE)")
    # Strides of 0 let a small file hold tensors of any size.
    size = sum(value.numel() * (4 if value.is_floating_point() else value.itemsize) for value in tensors.values())
    if size > LARGEST:
        raise UserError(f"the tensors in {path} take {size:,} bytes, but at most {LARGEST:,} are read")
    return {name: value.detach().float() if value.is_floating_point() else value for name, value in tensors.items()}


def _is_plain(value: Any) -> bool:
    """Return whether it is a dense tensor in memory, of a type that networks have."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_nested or value.device.type != "cpu":
        return False
    return value.dtype in _FRACTIONS | _WHOLE
