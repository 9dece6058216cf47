import re

import numpy as np
import pytest
import torch
from PIL import Image

from reslab.errors import UserError
from reslab.evaluation import evaluate
from reslab.network.network import Network
from reslab.recipe.networks import EfficientNetLite, Fusion, PreActResNet
from reslab.recipe.recipe import EarlyStopping, Linear, Sgd, derive
from reslab.training import resume, train
from reslab.training.starting import start_at


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


# ---- held-out images that the weights have learned from


@pytest.fixture
def learned(small_recipe, tmp_path):
    """A run of all training images, none of which are held out."""
    return train(derive(small_recipe, name="learned", validation=0, epochs=1), out=tmp_path / "learned")


def test_nothing_is_validated_on_images_that_the_weights_have_learned_from(small_recipe, learned, tmp_path, capsys):
    recipe = derive(small_recipe, name="on", epochs=1)
    run = train(recipe, out=tmp_path / "run", start=learned.path, silent=False)
    assert run.log[-1].validation_accuracy is None
    said = " ".join(capsys.readouterr().err.split())
    assert "not validated: learned has learned from the held-out images" in said
    with pytest.raises(
        UserError, match=r"from which .* started, has learned from the held-out images: evaluate train and"
    ):
        evaluate(run, splits=["validation"])
    assert evaluate(run).splits["test"].num_images == 108


@pytest.mark.parametrize(
    ("judging", "advice"),
    [
        ({"early_stopping": EarlyStopping(patience=1)}, "early stopping judges: .* --set early_stopping=null"),
        ({"trial": True}, "a trial judges: .* --set trial=false"),
    ],
)
def test_images_that_the_weights_have_learned_from_judge_nothing(small_recipe, learned, tmp_path, judging, advice):
    with pytest.raises(UserError, match=f"learned has learned from the held-out images, by which {advice}"):
        train(derive(small_recipe, name="on", epochs=1, **judging), out=tmp_path / "run", start=learned.path)
    assert not (tmp_path / "run").exists()


def test_images_that_the_weights_have_not_learned_from_judge_alone(small_recipe, tmp_path, capsys):
    """Of eight pictures held out, the weights have learned from four."""
    random = np.random.default_rng(0)
    for name, level in (("cat", 60), ("dog", 190)):
        (tmp_path / "pets" / "train" / name).mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(level - 50, level + 50, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / "train" / name / f"{number}.png")
    recipe = derive(small_recipe, name="pets", data=f"folder:{tmp_path}/pets", validation=4, epochs=1, trial=True)
    base = train(recipe, out=tmp_path / "base")
    capsys.readouterr()
    run = train(derive(recipe, name="on", validation=8), out=tmp_path / "run", start=base.path, silent=False)
    said = " ".join(capsys.readouterr().err.split())
    assert "4 of 8 held-out images left out of validation, since base has learned from them" in said
    figures = evaluate(run).splits["validation"]
    assert figures.num_images == 4
    assert figures.accuracy.value == pytest.approx(run.log[-1].validation_accuracy)


def test_networks_that_are_joined_do_not_start_from_pretrained_weights(small_recipe, tmp_path):
    both = Fusion(base=small_recipe.model, pretrained=EfficientNetLite(size=0, resize=32))
    recipe = derive(small_recipe, name="joined", model=both, pretrained="efficientnet_lite0", image_size=32)
    with pytest.raises(UserError, match=r"^no recipe trains .*efficientnet_lite0 from pretrained weights: set"):
        train(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_network_that_comes_with_reslab_is_a_start(small_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert start_at("demo", small_recipe).found.tensors.keys() >= {"head.weight", "head.bias"}
