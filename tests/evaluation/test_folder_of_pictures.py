"""The whole way on a person's own pictures: a folder of PNG files, trained on, evaluated, reported, predicted."""

from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from reslab.errors import UserError
from reslab.evaluation import evaluate
from reslab.evaluation.classify import classify
from reslab.extension import extend
from reslab.recipe.settings import with_settings
from reslab.recipe.shipped import find_recipe
from reslab.report import write_report
from reslab.runs import read_weights
from reslab.training import train

CLASSES = ("nought", "one", "two")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty pictures of each of three digits, in colour: white on blue."""
    digits = load_digits(n_class=3)
    for label, name in enumerate(CLASSES):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for place, image in enumerate(digits.images[digits.target == label][:30]):
            grey = Image.fromarray((image * 15).astype("uint8")).resize((16, 16))
            picture = Image.merge("RGB", [grey, grey, Image.new("L", grey.size, 255)])
            picture.save(tmp_path / "pictures" / name / f"{place}.png")
    return tmp_path / "pictures"


def test_a_folder_of_pictures_goes_all_the_way(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["data=folder:pictures", "standardize=null", "image_size=8", "validation=6", "epochs=8", "batch_size=8"]
    run = train(with_settings(find_recipe("digits-quick"), settings), out=tmp_path / "run")
    _, weights = read_weights(run.path)
    assert (weights.classes, weights.channels, weights.image_size) == (CLASSES, 3, 8)
    assert weights.standardize.mean[2] == 255  # the blue, which never changes
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    figures = evaluate(run).splits
    assert {data.expression for data in run.environment.data} == {"folder:pictures"}
    assert run.environment.data_from == ".."
    assert figures["train"].num_images + figures["test"].num_images == 84
    names = run.read_names("test")
    assert names is not None
    assert len(names) == figures["test"].num_images
    assert all((folder / name).is_file() for name in names)
    assert figures["test"].accuracy.value > 0.9
    page = write_report(run).read_text(encoding="utf-8")
    assert all(name in page for name in CLASSES)
    copies = figures["test"].without_copies
    assert copies is not None
    assert len((run.path / "copies.csv").read_text(encoding="utf-8-sig").splitlines()) == 1 + copies.num_copies
    assert (run.path / "mistakes.csv").read_text(encoding="utf-8-sig").startswith("file,label,prediction,probability")
    answers = classify([folder / name / "0.png" for name in CLASSES], weights=run.path)
    assert [answer.classes[0] for answer in answers] == list(CLASSES)
    more = extend(run.path, data="digits:5@5", out=tmp_path / "more", method="nearest-mean")
    assert more.recipe.data == "folder:../pictures+digits:5@5"
    monkeypatch.chdir(tmp_path)
    assert evaluate(more, splits=("test",)).classes == (*CLASSES, "5")
    folder.rename(tmp_path / "gone")
    put_back = f"gone from {folder}: put it back, or pass by --data-dir the folder that contains ../pictures; predict"
    with pytest.raises(UserError, match=put_back):
        evaluate(more)
