"""What the doctor says of a machine that is described to it, and that it finds what is wrong."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from reslab import doctor
from reslab.data.sources.catalog import OFFICIAL
from reslab.doctor import Finding, examine, measure_gflops
from reslab.machine import kernels


@pytest.fixture(autouse=True)
def _sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of one core, as quick and quiet as it should be."""
    monkeypatch.setattr(doctor, "measure_gflops", {"float32": 123.4, "bfloat16": 1234.5}.__getitem__)
    monkeypatch.setattr("reslab.machine.precision.read_features", lambda: {"avx2"})
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(doctor, "count_cores", torch.get_num_threads)
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    for name in ("OMP_WAIT_POLICY", "OMP_PROC_BIND", "LD_PRELOAD", "RESLAB_KERNELS", *doctor.LIMITS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")


def find(name: str, data_dir: Path | None = None) -> Finding:
    (found,) = [finding for finding in examine(data_dir) if finding.name == name]
    return found


def test_everything_is_looked_at_once_in_words(tmp_path: Path) -> None:
    names = [finding.name for finding in examine(tmp_path)]
    assert len(names) == len(set(names))
    expected = "versions processor cores threads waiting speed allocator memory device precision compiler disk"
    assert {*expected.split(), "cifar10", "cifar100"} < set(names)
    assert all(finding.value for finding in examine(tmp_path))
    assert torch.__version__ in find("versions").value
    assert find("speed").value.startswith("123 GFLOP/s in float32, matrix products")


def test_a_sound_machine_needs_no_advice() -> None:
    for name in ("versions", "processor", "cores", "threads", "waiting", "speed", "compiler"):
        assert find(name).advice is None


@pytest.mark.parametrize(
    ("setting", "finding"),
    [
        ("OMP_WAIT_POLICY=ACTIVE", "waiting"),
        ("OMP_PROC_BIND=close", "waiting"),
        ("ATEN_CPU_CAPABILITY=default", "processor"),
        ("ONEDNN_MAX_CPU_ISA=AVX2", "processor"),
        ("CC=there-is-no-such-compiler", "compiler"),
        ('CC=gcc "', "compiler"),
    ],
)
def test_a_setting_that_costs_speed_is_named(setting: str, finding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, value = setting.split("=")
    monkeypatch.setenv(name, value)
    assert name in str(find(finding).advice)


def test_matrix_units_are_named_with_the_precision_that_is_picked_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("precision").value.startswith("float32 is what --precision auto takes: this processor has no units")
    for module in ("reslab.machine.precision", "reslab.doctor"):
        monkeypatch.setattr(f"{module}.read_features", lambda: {"amx_bf16", "avx2"})
    assert "it has avx2, amx_bf16;" in find("processor").value
    assert find("precision").value == "bfloat16 is what --precision auto takes: this processor has units for it"
    assert find("speed").value.startswith("1234 GFLOP/s in bfloat16, 123 GFLOP/s in float32, matrix products")
    monkeypatch.setattr("reslab.machine.precision.read_features", set)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.cuda.device", nullcontext)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)
    assert find("precision").value == "bfloat16 is what --precision auto takes: the GPU has units for it"
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: including_emulation)
    assert find("precision").value.endswith("the GPU has no units for bfloat16 (Ampere or newer)")


def test_a_machine_that_is_busy_or_full_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (5.0, 0.0, 0.0))
    assert "other programs" in str(find("cores").advice)
    monkeypatch.setattr(doctor, "count_cores", lambda: torch.get_num_threads() + 3)
    assert f"--threads {torch.get_num_threads() + 3}" in str(find("threads").advice)
    monkeypatch.setattr(doctor, "MIN_DISK", 1e30)
    assert str(Path.cwd()) in str(find("disk").advice)
    monkeypatch.setattr(doctor, "MIN_MEMORY", 1e30)
    assert "micro_batch_size" in str(find("memory").advice)


def test_kernels_that_are_off_or_missing_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = SimpleNamespace(_name=str(tmp_path / "winograd.so"))
    monkeypatch.setattr(kernels, "_on", None)
    monkeypatch.setattr(kernels, "_load", lambda: library)
    assert find("Winograd kernels") == Finding("Winograd kernels", f"on, in {library._name}")
    monkeypatch.setattr(kernels, "_load", lambda: None)
    assert find("Winograd kernels").value.startswith("off: wide convolutions")
    monkeypatch.setenv("RESLAB_KERNELS", "off")
    assert find("Winograd kernels").advice == "unset RESLAB_KERNELS"


def test_data_that_is_there_is_found_and_nothing_is_fetched(official: Path) -> None:
    assert find("cifar10", official).value == f"in {official / 'cifar-10-batches-py'}"
    (official / "cifar-10-batches-py/test_batch").unlink()
    absent = find("cifar10", official)
    assert OFFICIAL["cifar10"].archive.name in str(absent.advice)
    (official / OFFICIAL["cifar10"].archive.name).touch()
    assert "unpacked when" in find("cifar10", official).value
    before = sorted(official.rglob("*"))
    examine(official)
    assert sorted(official.rglob("*")) == before


def test_the_measured_rate_is_one_of_a_processor() -> None:
    assert 0.1 < measure_gflops("float32", seconds=0.05) < 1e5
