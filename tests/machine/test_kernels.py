"""Kernels are compiled when they are switched on, once for each compiler and processor, and at no other time."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from reslab.data.load import load
from reslab.evaluation import evaluate
from reslab.evaluation.classify import classify
from reslab.machine import kernels
from reslab.recipe.recipe import derive
from reslab.serving.served import Served
from reslab.training import train

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """As in a new process of somebody who has compiled nothing yet."""
    monkeypatch.delenv("RESLAB_KERNELS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kernels, "_on", None)
    kernels._load.cache_clear()
    yield
    kernels._load.cache_clear()


def test_gcc_on_linux_is_enough(monkeypatch):
    monkeypatch.setenv("CC", "gcc")
    assert not kernels.are_on()
    assert kernels.enable(CPU) == (sys.platform == "linux" and shutil.which("gcc") is not None)
    assert kernels.are_on() == (kernels._on is not None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RESLAB_KERNELS", "off"),
        ("CC", "no-such-compiler"),
        ("CC", "false"),  # fails
        ("CC", "true"),  # makes nothing
        ("CC", "'"),  # is no command at all
        ("XDG_CACHE_HOME", "/dev/null"),  # cannot hold a folder
    ],
)
def test_where_they_cannot_be_had_they_stay_off_in_silence(name, value, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv(name, value)
    assert not kernels.enable(CPU)
    assert not kernels.are_on()
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.rglob("*.so")) == []


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert not kernels.enable(CPU)


def test_a_gpu_needs_none(monkeypatch):
    monkeypatch.setattr(kernels, "_build", lambda: pytest.fail("compiled"))
    assert not kernels.enable(torch.device("cuda"))


# Understands as much as `_build` asks for; says so in `calls`.
COMPILER = """#!/bin/sh
echo "$@" >> {calls}
case "$*" in *-dM*) cat {macros}; exit;; esac
while [ "$1" != -o ]; do shift; done
echo made > "$2"
"""


def test_it_is_compiled_once_for_each_compiler_and_processor(monkeypatch, tmp_path):
    calls, macros, compiler = tmp_path / "calls", tmp_path / "macros", tmp_path / "compiler"
    compiler.write_text(COMPILER.format(calls=calls, macros=macros))
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    macros.write_text("#define __AVX2__ 1\n")
    first = kernels._build()
    assert (first, first.read_text()) == (kernels._build(), "made\n")
    assert calls.read_text().count(" -c ") == 1
    macros.write_text("#define __AVX512F__ 1\n")
    second = kernels._build()
    assert calls.read_text().count(" -c ") == 2
    assert sorted(first.parent.iterdir()) == sorted([first, second])  # and nothing half-made


NETWORK = """
import pathlib, sys, torch, reslab
from reslab.models.layers import conv3x3
images = torch.randn(2, 64, 32, 32)
conv3x3(64, 64)(images).sum().backward()
model = reslab.build(reslab.MODELS["preact_resnet20"], num_classes=3)
assert model(torch.randn(2, 3, 32, 32)).shape == (2, 3)
network = reslab.Network.load(pathlib.Path(sys.argv[1]), device="cpu")
network.logits(torch.zeros(2, network.channels, 8, 8, dtype=torch.uint8))
"""
SWITCH = "import torch; from reslab.machine import kernels; kernels.enable(torch.device('cpu'))\n"


def test_a_network_is_imported_built_loaded_and_run_without_a_compiler(finished, monkeypatch, tmp_path):
    calls, compiler = tmp_path / "calls", tmp_path / "bin" / "cc"
    compiler.parent.mkdir()
    compiler.write_text(COMPILER.format(calls=calls, macros=os.devnull))
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("PATH", str(compiler.parent), prepend=os.pathsep)
    subprocess.run([sys.executable, "-c", NETWORK, str(finished.path)], check=True)
    assert not calls.exists()
    subprocess.run([sys.executable, "-c", SWITCH + NETWORK, str(finished.path)], check=True)
    assert calls.exists() == (sys.platform == "linux")  # the recorder does record


def estimate(run):
    from reslab.study.cost import measure

    measure(run.recipe, load(run.recipe.data, "train", image_size=8), device="cpu")


def draw(folder):
    Image.new("L", (8, 8)).save(folder / "black.png")
    return folder / "black.png"


BEGINNERS = {
    "train": lambda run, folder: train(derive(run.recipe, name="one", epochs=1), out=folder / "one", device="cpu"),
    "evaluate": lambda run, folder: evaluate(run, device="cpu"),
    "predict": lambda run, folder: classify([draw(folder)], weights=run.path, device="cpu"),
    "serve": lambda run, folder: Served(run.path, name="small", device="cpu"),
    "study": lambda run, folder: estimate(run),
}


@pytest.mark.parametrize("name", BEGINNERS)
def test_what_begins_to_compute_switches_them_on(name, finished, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(kernels, "enable", asked.append)
    BEGINNERS[name](finished, tmp_path)
    assert set(asked) == {CPU}
