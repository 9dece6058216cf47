"""Weights are read from a file or a finished run, and from nothing else."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from reslab.errors import UserError
from reslab.network.state_dict import read_state_dict


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_a_file_gives_its_tensors_by_name(name: str, tmp_path: Path) -> None:
    tensors = {"head.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.tensor([1.0, -1.0])}
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    found = read_state_dict(path).tensors
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], tensors[key]) for key in tensors)


def test_a_folder_with_weights_that_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    save_file({"head.bias": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="is not a run folder"):
        read_state_dict(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64])
def test_tensors_that_repeat_one_number_in_a_small_file_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    endless = torch.zeros(1, dtype=dtype).expand(2**20, 2**11)
    torch.save({"head.weight": endless}, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").stat().st_size < 10_000
    with pytest.raises(UserError, match=r"tensors in .*a\.pth take [\d,]+ bytes, but at most 4,294,967,296 are"):
        read_state_dict(tmp_path / "a.pth")


@pytest.mark.filterwarnings("ignore")
def test_tensors_that_no_network_has_are_left_out(tmp_path: Path) -> None:
    odd = {
        "meta": torch.empty(3, device="meta"),
        "quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
        "complex": torch.ones(3, dtype=torch.complex64).conj(),
        "float8": torch.zeros(4, dtype=torch.uint8).view(torch.float8_e4m3fn),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "sparse": torch.eye(3).to_sparse(),
    }
    torch.save(odd | {"head.bias": torch.ones(2), "norm.num_batches_tracked": torch.tensor(3)}, tmp_path / "a.pth")
    assert read_state_dict(tmp_path / "a.pth").tensors.keys() == {"head.bias", "norm.num_batches_tracked"}


def test_bfloat16_is_read_as_float32(tmp_path: Path) -> None:
    save_file({"head.bias": torch.tensor([1.5, -1.0], dtype=torch.bfloat16)}, tmp_path / "a.safetensors")
    assert read_state_dict(tmp_path / "a.safetensors").tensors["head.bias"].tolist() == [1.5, -1.0]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_wrappers_of_a_network_are_no_part_of_its_names(prefix: str, tmp_path: Path) -> None:
    torch.save({f"{prefix}head.bias": torch.zeros(2)}, tmp_path / "a.pth")
    assert read_state_dict(tmp_path / "a.pth").tensors.keys() == {"head.bias"}
