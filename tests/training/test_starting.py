import re

import pytest
import torch

from reslab.errors import UserError
from reslab.network.network import Network
from reslab.recipe.networks import EfficientNetLite, Fusion, PreActResNet
from reslab.recipe.recipe import Linear, Sgd, derive
from reslab.training import resume, train


@pytest.fixture
def other(small_recipe):
    """Two classes instead of three, and a rate at which nothing moves."""
    still = Sgd(peak_lr=1e-30, momentum=0, nesterov=False)
    return derive(small_recipe, name="other", data="digits:0,8@40", validation=0, optimizer=still, epochs=1)


def kernels(run):
    return {
        name: value for name, value in Network.load(run.path).module.named_parameters() if not name.startswith("head.")
    }


def test_layers_below_the_head_start_from_another_run_and_resume_needs_no_file(finished, other, tmp_path, capsys):
    run = train(other, out=tmp_path / "run", start=finished.path, silent=False)
    for name, value in kernels(finished).items():
        torch.testing.assert_close(kernels(run)[name], value)
    assert "below the head taken; not used: head." in " ".join(capsys.readouterr().err.split())
    (run.path / "model.safetensors").unlink()
    for place in (run.path / "checkpoint").iterdir():
        if place.is_file():
            place.unlink()
    again = resume(run.path)  # from the start
    assert all(torch.equal(kernels(again)[name], value) for name, value in kernels(run).items())


def test_weights_that_fit_nowhere_are_refused(finished, other, tmp_path):
    wider = derive(other, name="wider", model=PreActResNet(depth=8, width=24), schedule=Linear())
    torch.save({"theirs": torch.zeros(3)}, tmp_path / "theirs.pth")
    with pytest.raises(UserError, match=re.escape("--from theirs.pth: none of its 1 tensor fits the network")):
        train(wider, out=tmp_path / "run", start=tmp_path / "theirs.pth")
    assert not (tmp_path / "run").exists()


def test_a_run_that_has_not_finished_gives_no_start(finished, other, tmp_path):
    finished.weights_path.unlink()
    with pytest.raises(UserError, match="holds no finished network: resume with"):
        train(other, out=tmp_path / "run", start=finished.path)


def test_the_recipe_of_a_run_that_started_from_weights_needs_them_again(finished, other, tmp_path):
    run = train(other, out=tmp_path / "run", start=finished.path)
    with pytest.raises(UserError, match="recipe other starts from the weights of small: give them with --from, or add"):
        train(run.recipe, out=tmp_path / "no")
    assert not (tmp_path / "no").exists()
    again = train(run.recipe, out=tmp_path / "again", start=finished.path)
    assert again.weights_path.read_bytes() == run.weights_path.read_bytes()


def test_networks_that_are_joined_do_not_start_from_pretrained_weights(small_recipe, tmp_path):
    both = Fusion(base=small_recipe.model, pretrained=EfficientNetLite(size=0, resize=32))
    recipe = derive(small_recipe, name="joined", model=both, pretrained="efficientnet_lite0", image_size=32)
    with pytest.raises(UserError, match=r"^no recipe trains .*efficientnet_lite0 from pretrained weights: set"):
        train(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
