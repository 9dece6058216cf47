"""With which numbers training multiplies: what is chosen, and what it does to a network."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from reslab.errors import UserError
from reslab.machine import precision
from reslab.machine.precision import multiplying, pick_precision, read_features

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"amx_tile", "amx_bf16"}, "bfloat16"),
        ({"avx512f", "avx512_bf16"}, "bfloat16"),
        ({"avx512f", "amx_tile"}, "float32"),
    ],
)
def test_a_processor_takes_bfloat16_where_it_has_units_for_it(
    features: set[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "read_features", lambda: features)
    assert pick_precision(device=CPU) == expected


@pytest.mark.parametrize(("has_units", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_takes_bfloat16_unless_it_emulates_it(
    has_units: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or has_units
    )
    assert pick_precision(device=GPU) == expected


@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
@pytest.mark.parametrize("device", [CPU, GPU])
def test_what_a_person_says_is_done(wanted: str, device: torch.device) -> None:
    assert pick_precision(wanted, device=device) == wanted


def test_a_wrong_word_names_the_right_ones() -> None:
    with pytest.raises(UserError, match="--precision half: choose auto, float32 or bfloat16"):
        pick_precision("half", device=CPU)


def test_products_are_rounded_as_wanted_and_weights_are_not() -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(8, 8, 3), torch.randn(2, 8, 6, 6)
    exact = layer(x)
    for wanted, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with multiplying(pick_precision(wanted, device=CPU), device=CPU):
            result = layer(x)
        assert result.dtype == dtype
        torch.testing.assert_close(result.float(), exact, rtol=0, atol=0 if wanted == "float32" else 0.02)
        result.float().sum().backward()
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32


def test_the_processors_features_are_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: "model name\t: X\nflags\t\t: fpu amx_bf16\nbugs\t\t: y\n")
    assert read_features() == {"fpu", "amx_bf16"}

    def fail(self: Path) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", fail)
    assert read_features() == set()
