"""Grey pictures of 12 bits at several exposures: whatever reads one later reads it as training did."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslab.data.pictures import decode, read_pictures
from reslab.data.recipe_data import read_split
from reslab.evaluation import elsewhere
from reslab.evaluation.classify import classify
from reslab.exporting import export
from reslab.extension import extend
from reslab.network.network import Network
from reslab.network.onnx_file import Description, OnnxFile, classify_each_by_onnx
from reslab.recipe.settings import with_settings
from reslab.recipe.shipped import find_recipe
from reslab.records import Weights
from reslab.runs import Run
from reslab.serving.decoding import Decoders, Shape
from reslab.study.plan import Job, check_folder
from reslab.training import train

WHITE = 4095
SETTINGS = ("standardize=null", "image_size=8", "validation=4", "epochs=1", "batch_size=8")


def save(folder: Path, *, num: int, brightest: int) -> list[Path]:
    """Write one scene per picture at exposures that differ by up to eight times; the last ones are the brightest."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(brightest)
    files = []
    for number in range(num):
        scene = random.random((8, 8)) * brightest / (8 - number % 8)
        files.append(folder / f"{number}.png")
        Image.fromarray(scene.astype(np.uint16)).save(files[-1])
    return files


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("white")
    for name, brightest in (("train/dim", 1500), ("train/lit", 4000), ("test/dim", 1500), ("test/lit", 9000)):
        save(root / "pictures" / name, num=16, brightest=brightest)
    return root


@pytest.fixture(scope="module")
def run(root: Path) -> Run:
    recipe = with_settings(find_recipe("digits-quick"), [f"data=folder:{root / 'pictures'}", *SETTINGS])
    return train(recipe, out=root / "run")


def test_recipe_and_weights_record_white(run: Run) -> None:
    assert (run.recipe.white, Network.load(run.path).white) == (WHITE, WHITE)
    (job,) = (Job("row", run.environment.seed, run.path, run.recipe.model_copy(update={"white": None})),)
    check_folder(job)  # a study that leaves white to be found takes the run as its own


def test_a_single_picture_is_read_as_in_training(run: Run, root: Path) -> None:
    network, train = Network.load(run.path, device="cpu"), read_split(run.recipe, "train")
    assert train.names is not None
    by_file = {root / "pictures" / name: image for name, image in zip(train.names, train.images[:], strict=True)}
    darkest = min(by_file, key=lambda file: float(by_file[file].float().mean()))
    (pixels,) = read_pictures([darkest], image_size=8, channels=1, white=network.white)
    stored = by_file[darkest]
    assert stored.max() < 32  # an eighth of 1,500 of 4,095
    assert abs(pixels.astype(int) - stored.numpy()[:1]).max() == 0
    (answer,) = classify([darkest], weights=run.path, top=2)
    probabilities, _ = network.answer(stored[None])
    assert answer.probabilities == pytest.approx(sorted(probabilities[0].tolist(), reverse=True), abs=1e-5)


def test_a_brighter_test_picture_is_clipped(run: Run, root: Path) -> None:
    test = read_split(run.recipe, "test")
    assert test.names is not None
    brightest = test.images[test.names.index("test/lit/7.png")]
    values = np.asarray(Image.open(root / "pictures" / "test" / "lit" / "7.png"))
    assert values.max() > 8000
    np.testing.assert_array_equal(brightest[0], np.rint(values.clip(0, WHITE) * (255 / WHITE)))


def test_the_app_reads_a_picture_as_in_training(root: Path) -> None:
    file = root / "pictures" / "train" / "dim" / "0.png"

    async def read() -> np.ndarray:
        decoders = Decoders(num=1)
        try:
            (pixels,) = await decoders.decode([("it.png", file.read_bytes())], shape=Shape(8, 3, white=WHITE))
        finally:
            await decoders.close()
        return pixels

    np.testing.assert_array_equal(asyncio.run(read()), decode(file, image_size=8, white=WHITE))


def test_other_data_has_the_white_of_the_network(run: Run, root: Path) -> None:
    """All of its pictures are dark, so that they alone would have another white."""
    files = [file for name in ("dim", "lit") for file in save(root / "dark" / name, num=10, brightest=900)]
    images, is_whole = elsewhere._read(
        Network.load(run.path), f"folder:{root / 'dark'}", data_dir=None, skip_damaged=False
    )
    assert is_whole
    assert images.images.max() <= round(900 * 255 / WHITE)
    assert images.images.shape[0] == len(files)


def test_new_classes_are_read_with_the_white_of_the_base(run: Run, root: Path) -> None:
    save(root / "more" / "train" / "bright", num=12, brightest=60_000)
    save(root / "more" / "test" / "bright", num=4, brightest=60_000)
    made = extend(run.path, data=f"folder:{root / 'more'}", out=root / "extended", method="nearest-mean")
    assert (made.recipe.white, Network.load(made.path).white) == (WHITE, WHITE)


def test_an_exported_file_knows_white(run: Run, root: Path) -> None:
    export(run, to=root / "it.onnx")
    assert OnnxFile(root / "it.onnx").description.white == WHITE
    file = root / "pictures" / "train" / "dim" / "0.png"
    (found,), (wanted,) = classify_each_by_onnx([file], onnx=root / "it.onnx"), classify([file], weights=run.path)
    assert found.classes == wanted.classes
    assert found.probabilities == pytest.approx(wanted.probabilities, abs=1e-4)


@pytest.mark.parametrize("white", ["0", "-1", "4095.5", "true", '"4095"'])
def test_a_wrong_white_of_an_exported_file_is_refused(white: str) -> None:
    metadata = Description(("a", "b"), 1, 8, "squeeze").to_metadata()
    assert Description.from_metadata(metadata).white is None
    assert Description.from_metadata({name: metadata[name] for name in metadata if name != "white"}).white is None
    with pytest.raises(ValueError, match="white"):
        Description.from_metadata(metadata | {"white": white})


def test_weights_without_white_scale_each_picture_by_its_own_values(run: Run, root: Path) -> None:
    network = Network.load(run.path)
    content = network.metadata.model_dump()
    del content["white"]
    old = Network(network.module, Weights.model_validate(content))
    assert old.white is None
    file = root / "pictures" / "train" / "dim" / "0.png"  # which stays within 255
    (pixels,) = read_pictures([file], image_size=8, channels=1, white=old.white)
    np.testing.assert_array_equal(pixels[0], np.asarray(Image.open(file)))
    assert torch.from_numpy(pixels).max() > 150
