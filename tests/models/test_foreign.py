"""Networks from outside: one's own classes, only where they are allowed, and timm's, through a stand-in for it."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from reslab.errors import UserError
from reslab.evaluation import evaluate
from reslab.extension import extend
from reslab.models import build
from reslab.network.network import Network
from reslab.recipe.networks import Module, Timm
from reslab.recipe.recipe import Recipe, Sgd, derive, parse_recipe
from reslab.training import train

ROOT = Path(__file__).parents[2]
CLASSES = 7


@pytest.fixture
def mynets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module that the documentation shows, in the folder that a command is started in, and some that are wrong."""
    page = (ROOT / "docs/add-a-model.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    wrong = """
class Headless(nn.Module):
    def __init__(self, *, num_classes, channels): super().__init__()

def harm(**options):
    raise SystemExit("harmed")

class Unpooled(nn.Module):
    def __init__(self, *, num_classes, channels):
        super().__init__()
        self.head = nn.Linear(channels, num_classes)

    def features(self, images): return images

class Picky(Small):
    def __init__(self, *, num_classes, channels, exception):
        raise {"value": ValueError("odd"), "run": RuntimeError("one\\ntwo"), "key": KeyError("width")}[exception]

class Unbiased(Small):
    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.head = nn.Linear(self.head.in_features, self.head.out_features, bias=False)

class Narrow(Small):
    def __init__(self, *, num_classes, channels): super().__init__(num_classes=3, channels=channels)
"""
    (tmp_path / "mynets.py").write_text(shown + wrong)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("RESLAB_CODE", "others,mynets")
    yield
    sys.modules.pop("mynets", None)


def describe(name: str, **options: Any) -> Module:
    return Module(name=name, options=options)


@pytest.mark.usefixtures("mynets")
def test_a_class_of_ones_own_is_a_classifier() -> None:
    model = build(describe("mynets:Small", width=8), num_classes=CLASSES, channels=1)
    images = torch.randn(4, 1, 9, 9)
    assert model.features(images).shape == (4, 8)
    torch.testing.assert_close(model(images), model.head(model.features(images)))
    assert model(images).shape == (4, CLASSES)
    assert [name for name in model.state_dict() if "head" in name] == ["head.weight", "head.bias"]


@pytest.mark.usefixtures("mynets")
def test_it_is_trained_evaluated_and_taught_like_any_other(small_recipe: Recipe) -> None:
    recipe = derive(small_recipe, name="own", model=Module(name="mynets:Small", options={"width": 8}))
    run = train(recipe, out="runs/own")
    assert evaluate(run).splits["test"].num_images
    taught = extend(run.path, data="digits:8@20", out="runs/more")
    assert Network.load(taught.path).module.head.out_features == 4


@pytest.mark.usefixtures("mynets")
@pytest.mark.parametrize("method", ["finetune", "joint", "fusion"])
def test_one_whose_head_has_no_bias_is_trained_but_not_taught(small_recipe: Recipe, method: str) -> None:
    run = train(derive(small_recipe, name="own", model=Module(name="mynets:Unbiased"), epochs=1), out="runs/own")
    with pytest.raises(UserError, match=r"the head of runs/own has no bias, .*: give the network a head with a bias"):
        extend(run.path, data="digits:8@20", out="runs/more", method=method)
    assert not Path("runs/more").exists()


@pytest.mark.usefixtures("mynets")
def test_nothing_is_imported_that_was_not_allowed(small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(derive(small_recipe, name="own", model=Module(name="mynets:Small")), out="runs/own")
    sys.modules.pop("mynets")
    monkeypatch.setenv("RESLAB_CODE", "mynet,mynets2")
    for attempt in (
        lambda: Network.load(run.path),
        lambda: Network.load(run.weights_path),
        lambda: evaluate(run),
    ):
        with pytest.raises(UserError, match=r"mynets:Small is code outside of reslab.*set RESLAB_CODE=mynets"):
            attempt()
    assert "mynets" not in sys.modules


@pytest.mark.usefixtures("mynets")
@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("mynets:Large", {}, "mynets:Large cannot be made: AttributeError: module 'mynets' has no attribute 'Large'"),
        ("mynets:Small", {"depth": 3}, "mynets:Small cannot be made: .*unexpected keyword argument 'depth'"),
        (
            "mynets:Headless",
            {},
            r"mynets:Headless must be a torch.nn.Module with features\(images\) and a linear head",
        ),
        ("mynets:Narrow", {}, "the head of the network mynets:Narrow has 3 outputs for 7 classes"),
        ("mynets:Picky", {"exception": "value"}, "mynets:Picky cannot be made: ValueError: odd$"),
        ("mynets:Picky", {"exception": "run"}, "mynets:Picky cannot be made: RuntimeError: one two$"),
        ("mynets:Picky", {"exception": "key"}, "mynets:Picky cannot be made: KeyError: 'width'$"),
        ("mynets:harm", {}, "the network mynets:harm is not a network class: name a torch.nn.Module"),
        ("others.inner:Net", {}, "others.inner:Net cannot be made: ModuleNotFoundError: No module named 'others'"),
    ],
)
def test_what_is_wrong_with_it_is_said(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        build(describe(name, **options), num_classes=CLASSES)


@pytest.mark.usefixtures("mynets")
def test_a_module_that_python_cannot_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "mynets.py").write_text("class Net(")
    with pytest.raises(UserError, match=r"mynets:Net cannot be made: SyntaxError: .*mynets\.py, line 1"):
        build(describe("mynets:Net"), num_classes=CLASSES)


@pytest.mark.usefixtures("mynets")
def test_features_that_do_not_fit_the_head_are_told() -> None:
    model = build(describe("mynets:Unpooled"), num_classes=CLASSES)
    with pytest.raises(UserError, match=r"have the shape \(2, 3, 8, 8\), the head takes \(N, 3\): pool them"):
        model(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("name", ["os.path", "a b:C", "mynets:Small()", ":C", "a..b:C", "../x:C"])
def test_a_name_is_a_package_and_a_class(name: str, small_recipe: Recipe) -> None:
    with pytest.raises(UserError, match="file: model"):
        parse_recipe(small_recipe.model_dump() | {"model": {"kind": "module", "name": name}}, where="file")


class Body(nn.Module):
    """What timm makes without classes: pooled features."""

    num_features = 6
    pretrained_cfg: ClassVar = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "hf_hub_id": "timm/resnet18.a1_in1k"}

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, self.num_features, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).mean((2, 3))


class WideHead(Body):
    """What timm makes of MobileNetV3: its last layer widens what was pooled."""

    head_hidden_size = 9

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.conv_head = nn.Linear(self.num_features, self.head_hidden_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv_head(super().forward(images))


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = []
    fake = ModuleType("timm")

    def create_model(name: str, *, in_chans: int = 3, **options: Any) -> nn.Module:
        asked.append({"name": name, **options})
        if name not in ("resnet18", "resnet34", "mobilenetv3_large_100"):
            raise RuntimeError(f"Unknown model ({name})")
        if options.get("act_layer") == "none":
            raise KeyError("none")
        if options["pretrained"] and name == "resnet34":
            raise FileNotFoundError("no connection")
        torch.manual_seed(7 if options["pretrained"] else 8)
        if options.get("features_only"):
            return nn.Conv2d(in_chans, 6, 3)
        return WideHead(in_chans) if name.startswith("mobilenet") else Body(in_chans)

    fake.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", fake)
    return asked


def test_a_network_of_timm_gets_a_head(timm: list[dict[str, Any]]) -> None:
    model = build(Timm(name="resnet18", options={"drop_rate": 0.1}), num_classes=CLASSES, channels=1)
    assert timm == [{"name": "resnet18", "pretrained": False, "num_classes": 0, "drop_rate": 0.1}]
    assert model.features(torch.zeros(2, 1, 8, 8)).shape == (2, 6)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, CLASSES)
    assert sorted(model.state_dict()) == ["body.conv.bias", "body.conv.weight", "head.bias", "head.weight"]
    with pytest.raises(UserError, match=r"timm cannot make the network resnet19: Unknown model \(resnet19\)"):
        build(Timm(name="resnet19"), num_classes=CLASSES)


@pytest.mark.usefixtures("timm")
def test_a_network_of_timm_with_a_wider_head_gets_one_that_fits() -> None:
    model = build(Timm(name="mobilenetv3_large_100"), num_classes=CLASSES)
    assert model.head.in_features == 9
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, CLASSES)


@pytest.mark.usefixtures("timm")
def test_a_run_starts_from_weights_that_timm_has(
    small_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = derive(small_recipe, name="ours", epochs=1, optimizer=Sgd(peak_lr=1e-30, momentum=0, nesterov=False))
    run = train(recipe, out=tmp_path / "run", start="timm:resnet18", silent=False)
    taken = Network.load(run.path).module.state_dict()["body.conv.weight"]
    torch.manual_seed(7)
    assert torch.equal(taken, Body(3).conv.weight)
    assert run.recipe.model == Timm(name="resnet18")
    assert run.recipe.standardize.mean == (127.5,) * 3
    assert "start from timm:resnet18: 2 of 2 tensors below the head taken" in " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet34", r"neither in its cache nor available from its hub: timm/resnet18\.a1_in1k is missing"),
        ("resnet19", "timm cannot make the network resnet19"),
        ("hf-hub:some/one", r"--from timm:hf-hub:some/one: model.*name"),
    ],
)
def test_weights_that_timm_does_not_have_are_named(
    small_recipe: Recipe, tmp_path: Path, name: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        train(small_recipe, out=tmp_path / "run", start=f"timm:{name}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["checkpoint_path", "pretrained", "pretrained_cfg_overlay", "cache_dir"])
def test_timm_reads_no_file(timm: list[dict[str, Any]], option: str) -> None:
    """Some of its options name pickles, or what its hub is asked for; a weights file may hold any option."""
    with pytest.raises(UserError, match=f"omit the option '{option}'"):
        build(Timm(name="resnet18", options={option: "evil.pth"}), num_classes=CLASSES)
    assert timm == []


@pytest.mark.parametrize("option", ["in_chans", "model_name", "name", "num_classes"])
def test_options_of_timm_that_are_passed_anyway_are_refused(timm: list[dict[str, Any]], option: str) -> None:
    with pytest.raises(UserError, match=f"the option '{option}' of the network resnet18 is set by reslab: omit it"):
        build(Timm(name="resnet18", options={option: 1}), num_classes=CLASSES)
    assert timm == []


@pytest.mark.usefixtures("timm")
def test_a_network_of_timm_without_pooled_features_is_refused() -> None:
    with pytest.raises(UserError, match="resnet18 computes no pooled features: omit the option 'features_only'"):
        build(Timm(name="resnet18", options={"features_only": True}), num_classes=CLASSES)


@pytest.mark.usefixtures("timm")
def test_an_option_that_timm_does_not_know_is_told() -> None:
    with pytest.raises(UserError, match="timm cannot make the network resnet18: 'none'"):
        build(Timm(name="resnet18", options={"act_layer": "none"}), num_classes=CLASSES)


@pytest.mark.parametrize("name", ["hf-hub:some/one", "local-dir:folder", "hf_hub:some/one", "../resnet18"])
def test_timm_s_hub_is_no_name(name: str, small_recipe: Recipe) -> None:
    with pytest.raises(UserError, match="file: model"):
        parse_recipe(small_recipe.model_dump() | {"model": {"kind": "timm", "name": name}}, where="file")


@pytest.mark.usefixtures("mynets")
def test_the_working_directory_does_not_stay_on_the_path() -> None:
    before = list(sys.path)
    build(describe("mynets:Small", width=8), num_classes=CLASSES)
    assert sys.path == before


def test_without_timm_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"resnet18 is timm's, which cannot be imported.*: pip install timm"):
        build(Timm(name="resnet18"), num_classes=CLASSES)


def test_the_report_names_them() -> None:
    assert Module(name="mynets:Small", options={"width": 8}).words == "mynets:Small (width 8)"
    assert Timm(name="resnet18").words == "timm's resnet18"
    assert (Module(name="mynets:Small").label, Timm(name="resnet18").label) == ("Small", "resnet18")
