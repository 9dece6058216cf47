import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from reslab.cli.show import print_elsewhere
from reslab.data import progress
from reslab.data.framing import Form
from reslab.data.load import load, load_uncut
from reslab.errors import UserError
from reslab.evaluation.elsewhere import evaluate_elsewhere
from reslab.measure.estimates import difference
from reslab.network.network import Network
from reslab.recipe.recipe import derive
from reslab.records import Estimate
from reslab.runs import Run
from reslab.training import train


def write_pictures(folder, *, classes=("1", "4"), ending="png"):
    """Write ten test digits of each class as pictures of a class folder."""
    digits = load("digits:1,4,7", "test", image_size=8)
    for name in classes:
        (folder / name).mkdir(parents=True)
        chosen = (digits.labels == digits.classes.index(name)).nonzero().flatten()[:10]
        for place in chosen.tolist():
            Image.fromarray(digits.images[place, 0].numpy()).save(folder / name / f"{place:03}.{ending}")
    return folder


@pytest.fixture
def run(finished):
    return finished


def test_other_pictures_of_some_classes_are_measured_beside_the_run_s_figures(run, tmp_path):
    before = (run.path / "evaluation.json").read_bytes()
    found, path = evaluate_elsewhere(run, data=f"folder:{write_pictures(tmp_path / 'some')}")
    assert (found.absent, found.is_whole, found.num_paired) == (("7",), True, 0)
    assert found.figures.num_images == 20
    own = run.read_predictions("test")
    same = own.labels < 2
    assert found.own.value == pytest.approx((own.logits.argmax(1) == own.labels)[same].mean())
    assert found.change.value == pytest.approx(found.figures.accuracy.value - found.own.value)
    assert found.figures.macro_recall == found.figures.balanced_accuracy  # of the two classes that are there
    assert found.figures.macro_f1.value > 0.9 * found.figures.accuracy.value
    assert path.parent == run.path
    assert (run.path / "evaluation.json").read_bytes() == before


def test_a_class_may_have_one_picture_or_copies_of_one(run, tmp_path):
    folder = write_pictures(tmp_path / "few")
    for path in sorted((folder / "4").iterdir())[1:]:
        path.unlink()
    for path in sorted((folder / "1").iterdir())[1:]:
        shutil.copy(min((folder / "1").iterdir()), path)
    found, _ = evaluate_elsewhere(run, data=f"folder:{folder}")
    assert found.is_whole
    assert (found.figures.num_images, found.data.num_images) == (11, 11)
    grouped, _ = evaluate_elsewhere(run, data=f"folder:{folder}?group=parent")
    assert grouped.figures == found.figures
    (run.path / "evaluation.json").unlink()  # so that it has to look for the run's own pictures
    run.write_digests("train", np.arange(1, 112, dtype=np.uint64))
    assert evaluate_elsewhere(run, data=f"folder:{folder}")[0].figures == found.figures


def test_damaged_pictures_are_left_out_on_demand(run, tmp_path, capsys):
    folder = write_pictures(tmp_path / "some")
    (folder / "4" / "damaged.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="evaluate --data leave it out with --skip-damaged"):
        evaluate_elsewhere(run, data=f"folder:{folder}")
    found, _ = evaluate_elsewhere(run, data=f"folder:{folder}", skip_damaged=True)
    assert (found.figures.num_images, found.data.num_damaged) == (20, 1)
    print_elsewhere(found)
    assert "1 unreadable picture left out" in capsys.readouterr().out
    (run.path / "evaluation.json").unlink()  # so that it has to look for the run's own pictures
    run.write_digests("train", np.arange(1, 112, dtype=np.uint64))
    again, _ = evaluate_elsewhere(run, data=f"folder:{folder}", skip_damaged=True)
    assert (again.figures, again.data.num_damaged) == (found.figures, 1)


def test_progress_is_shown(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "PATIENCE", 0)
    evaluate_elsewhere(run, data="digits:1,4")
    assert "evaluating on digits:1,4: 0 of 72 images" in capsys.readouterr().err


def test_all_deep_pictures_of_a_folder_have_one_white(tmp_path):
    for value, name in ((1000, "1"), (2000, "4")):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((8, 8), value, np.uint16)).save(tmp_path / name / "x.png")
    images = load_uncut(f"folder:{tmp_path}", form=Form(8))
    assert images.white == 4095
    assert images.images[:, 0, 0, 0].tolist() == [round(255 * value / 4095) for value in (1000, 2000)]


def test_pictures_of_one_name_are_paired_whatever_their_ending(run, tmp_path):
    folder = write_pictures(tmp_path / "all", classes=("1", "4", "7"), ending="bmp")
    own = run.read_predictions("test")
    names = [f"{run.evaluation.classes[label]}/{place:03}.png" for place, label in enumerate(own.labels)]
    run.write_predictions("test", own, names=names)
    found, _ = evaluate_elsewhere(run, data=f"folder:{folder}")
    assert found.num_paired == 30
    assert (found.change.value, found.own.value) == (0, found.figures.accuracy.value)  # the very same images
    run.write_predictions("test", own, names=["" if name[0] == "1" else name for name in names])  # as of a union
    shutil.rmtree(folder / "1")
    assert evaluate_elsewhere(run, data=f"folder:{folder}")[0].num_paired == 20


@pytest.mark.parametrize(("data", "num"), [("digits:1,4,7", 108), ("digits:1,4", 72)])
def test_the_run_s_own_test_images_are_paired_without_names(run, data, num):
    assert run.read_names("test") is None
    found, _ = evaluate_elsewhere(run, data=data)
    assert found.num_paired == found.figures.num_images == num
    assert found.change.value == 0
    assert found.own.value == found.figures.accuracy.value


def test_a_pulled_run_is_measured_beside_its_metrics_alone(run, tmp_path):
    """Without its predictions; pictures of some classes only are not compared with the accuracy on all."""
    pulled = Run.open(shutil.copytree(run.path, tmp_path / "pulled"))
    (pulled.path / "predictions-test.npz").unlink()
    found, _ = evaluate_elsewhere(pulled, data=f"folder:{write_pictures(tmp_path / 'all', classes=('1', '4', '7'))}")
    assert (found.own, found.num_paired) == (run.evaluation.splits["test"].accuracy, 0)
    assert found.change == difference(found.own, after=found.figures.accuracy)
    found, _ = evaluate_elsewhere(pulled, data=f"folder:{write_pictures(tmp_path / 'some')}")
    assert (found.own, found.change) == (None, None)


def test_images_that_share_names_by_chance_are_not_paired(run, tmp_path):
    folder = write_pictures(tmp_path / "all", classes=("1", "4", "7"))
    own = run.read_predictions("test")
    names = [f"{run.evaluation.classes[label]}/{place:03}.png" for place, label in enumerate(own.labels)]
    names = [name if place % 2 else f"other-{place}.png" for place, name in enumerate(names)]
    run.write_predictions("test", own, names=names)
    found, _ = evaluate_elsewhere(run, data=f"folder:{folder}")
    assert found.num_paired == 0


def test_an_unknown_class_is_named(run, tmp_path):
    (tmp_path / "odd").mkdir()
    folder = write_pictures(tmp_path / "odd" / "set")
    shutil.move(folder / "4", folder / "four")
    with pytest.raises(UserError, match="has a class 'four' that the network does not know; it knows 1, 4, 7"):
        evaluate_elsewhere(run, data=f"folder:{folder}")


def test_a_closed_test_split_stays_closed(run, tmp_path, monkeypatch):
    (run.path / "evaluation.json").unlink()
    with pytest.raises(UserError, match=r"would open the test split of .*, which is still closed"):
        evaluate_elsewhere(run, data="digits:1")
    run.write_recipe(derive(run.recipe, name="pets", data="folder:pets"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"would open the test split of .*, which is still closed"):
        evaluate_elsewhere(run, data=f"folder:{tmp_path}/pets")  # the same place, written otherwise
    with pytest.raises(UserError, match=r"would open the test split of .*, which is still closed"):
        evaluate_elsewhere(run, data=f"folder:{tmp_path}/pets/test")


def test_the_interval_of_two_independent_shares_is_newcombe_s():
    """His example (c): 56/70 and 48/80, by the ends of Wilson's intervals."""
    one, other = (
        Estimate(value=0.8, low=0.6922, high=0.8772),
        Estimate(value=0.6, low=0.4906, high=0.7003),
    )
    found = difference(other, after=one)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=3e-3)
    assert np.isfinite(found.low)


def test_a_copy_of_the_run_s_pictures_under_another_name_stays_closed_too(small_recipe, tmp_path):
    folder = write_pictures(tmp_path / "mine")
    run = train(derive(small_recipe, name="x", data=f"folder:{folder}", epochs=1), out=tmp_path / "run")
    shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(UserError, match=r"copy would open the test split of .*, which is still closed"):
        evaluate_elsewhere(run, data=f"folder:{tmp_path / 'copy'}")
    others = write_pictures(tmp_path / "others")
    for path in others.rglob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert evaluate_elsewhere(run, data=f"folder:{others}")[0].own is None


def test_a_copy_of_one_of_several_sources_stays_closed_too(small_recipe, tmp_path):
    own, larger = write_pictures(tmp_path / "mine", classes=("1", "4")), "digits:0,7"
    run = train(
        derive(small_recipe, name="x", data=f"{larger}+folder:{own}", channels=1, epochs=1), out=tmp_path / "run"
    )
    shutil.copytree(own, tmp_path / "copy")
    with pytest.raises(UserError, match=r"copy would open the test split of .*, which is still closed"):
        evaluate_elsewhere(run, data=f"folder:{tmp_path / 'copy'}")


def test_answers_that_are_no_numbers_are_not_scored(run, tmp_path, monkeypatch):
    folder = write_pictures(tmp_path / "some")
    monkeypatch.setattr(Network, "logits", lambda self, images: torch.full((len(images), 3), float("nan")))
    with pytest.raises(UserError, match=r"cannot be scored: the logits of \d+ images are not finite"):
        evaluate_elsewhere(run, data=f"folder:{folder}")


def test_pictures_that_the_network_was_made_from_are_counted(run, tmp_path):
    folder = write_pictures(tmp_path / "some")
    assert evaluate_elsewhere(run, data=f"folder:{folder}")[0].num_learned == 0
    images = load_uncut(f"folder:{folder}", form=Form(8))
    run.write_digests("train", images.digests[:13])
    run.write_digests("test", images.digests[13:])  # which it has not learned from
    assert evaluate_elsewhere(run, data=f"folder:{folder}")[0].num_learned == 13
