"""`fit` from a folder of pictures to a run like any other."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from reslab import fitting as room
from reslab.cli import main
from reslab.data.check.examine import look
from reslab.data.check.findings import CopyPairs, Series
from reslab.data.images import ImageSet
from reslab.data.load import load
from reslab.data.pictures import read_pictures
from reslab.data.sizes import are_squares, find_image_size
from reslab.errors import Stopped, UserError
from reslab.evaluation.classify import classify
from reslab.fitting import Fitted, choice, fit
from reslab.fitting.sentences import _advice, _defects, summarize
from reslab.network.network import Network
from reslab.pretrained import Pretrained
from reslab.records import Candidate, Candidates, ClassFigures, Estimate
from reslab.runs import Run, lock
from reslab.training import train


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Sixty pictures of three classes, grey ones saved as PNG."""
    digits = load_digits()
    for name in ("0", "1", "7"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number, image in enumerate(digits.images[digits.target == int(name)][:20]):
            pixels = np.kron((image * 15.9).astype(np.uint8), np.ones((3, 3), dtype=np.uint8))
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize(
    ("wrong", "is_weakest", "advice"),
    [
        (0, False, "try it on new pictures with reslab predict run FILE, then reslab export"),
        (1, True, "add pictures; 1 mistake among 30 test images cannot tell which class is the weakest."),
        (3, False, "add pictures; 3 mistakes among 30 test images cannot tell which class is the weakest."),
        (3, True, "add pictures of “1”, its weakest class, which has 12 training images."),
    ],
)
def test_a_few_mistakes_do_not_make_a_class_the_weakest(wrong: int, is_weakest: bool, advice: str) -> None:
    candidates = Candidates.model_construct(minutes=1, seconds=30, candidates=())
    said = _advice("1", 12, candidates, wrong=wrong, total=30, least=0.92, path="run", is_weakest=is_weakest)
    assert said.startswith(f"Next: {advice}")
    said = _advice("1", 60, candidates, wrong=9, total=30, least=0.92, path="run", is_weakest=is_weakest)
    assert said.endswith("the errors in the report" + (", first those of “1”." if is_weakest else "."))


def test_a_handful_of_test_images_without_a_mistake_is_said_to_show_little() -> None:
    candidates = Candidates.model_construct(minutes=1, seconds=30, candidates=())
    advice = _advice("1", 12, candidates, wrong=0, total=7, least=0.5904, path="run", is_weakest=False)
    assert advice.endswith("add test pictures: 7 without a mistake only show that the accuracy is above 59\xa0%.")


def test_a_class_without_test_images_is_not_the_weakest() -> None:
    matrix = np.array([[27, 0, 3], [0, 0, 0], [12, 0, 18]])
    half = Estimate(value=0.5, low=0.4, high=0.6)
    recalls = (Estimate(value=value, low=value - 0.05, high=value + 0.05) for value in (0.9, 0.0, 0.6))
    per_class = tuple(
        ClassFigures(precision=half, recall=recall, f1=half, support=support)
        for recall, support in zip(recalls, matrix.sum(1).tolist(), strict=True)
    )
    test = SimpleNamespace(accuracy=half, per_class=per_class, confusion_matrix=matrix, num_images=60, answered=None)
    run: Any = SimpleNamespace(
        evaluation=SimpleNamespace(splits={"test": test}, classes=("a", "b", "c")),
        candidates=Candidates.model_construct(candidates=()),
        environment=SimpleNamespace(data=()),
        path="run",
    )
    assert summarize(run).advice.startswith("Next: add pictures of “c”, its weakest class")


def test_series_come_before_other_advice() -> None:
    series = Series(count=40, total=48, expression="folder:p?group=time:5")
    found: Any = SimpleNamespace(duplicates=None, not_used=(), series=(series,))
    assert _defects(found) == ["40 pictures taken within 10 seconds of another"]


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("it", "efficientnet_lite0 at 128 pixels was left out"),
        ("its logistic regression", "the logistic regression of efficientnet_lite0 at 128 pixels was left out"),
    ],
)
def test_a_network_whose_head_alone_was_left_out_is_not_said_to_be(what: str, named: str) -> None:
    slow = Candidate(network="efficientnet_lite0", image_size=128, left_out=what, would_take=30)
    candidates = Candidates(minutes=1, seconds=30, candidates=(slow,))
    advice = _advice("1", 60, candidates, wrong=9, total=90, least=0.8, path="run", is_weakest=True)
    assert advice == f"Next: allow more time (--minutes), since {named}."


def test_more_time_is_not_advised_where_enough_was_left_over() -> None:
    slow = Candidate(network="efficientnet_lite0", image_size=128, left_out="it", would_take=120)
    for seconds, beginning in ((240, "Next: look at the suspicious labels"), (450, "Next: allow more time")):
        candidates = Candidates(minutes=10, seconds=seconds, candidates=(slow,))
        advice = _advice("1", 60, candidates, wrong=9, total=90, least=0.8, path="run", is_weakest=True)
        assert advice.startswith(beginning)


@pytest.mark.usefixtures("small")
def test_sixty_pictures_are_enough(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(f"folder:{pictures}", out="run", minutes=1, silent=False)
    assert sum(split.num_images for split in run.evaluation.splits.values()) == 60
    assert run.evaluation.splits["test"].accuracy.value >= 0.85
    assert run.recipe.pretrained == "efficientnet_lite0"
    candidates = run.candidates
    assert candidates is not None
    assert [each.chosen for each in candidates.candidates].count(True) == 1
    assert [each.image_size for each in candidates.candidates][:2] == [48, 64]
    assert "out of folds" in capsys.readouterr().err
    page = (run.path / "report.html").read_text()
    assert "How it was chosen" in page
    assert "the ImageNet weights of efficientnet_lite0" in page
    with pytest.raises(UserError, match="computes a head without updates: reslab fit makes such runs"):
        train(run.recipe, out="again")
    strength, _, advice = summarize(run)
    assert strength.startswith("It classifies ")
    assert advice.startswith("Next: ")
    found = look(f"folder:{pictures}", image_size=24)
    assert found is not None
    assert found.duplicates is not None
    conflicts = found.duplicates.model_copy(update={"across_classes": CopyPairs(count=2)})
    advice = summarize(run, found.model_copy(update={"duplicates": conflicts})).advice
    assert advice.startswith("First look at the data, 2 pairs of copies with different labels")
    assert f": reslab data check folder:{pictures}. Next: " in advice
    # One network, whoever asks it.
    images = load(f"folder:{pictures}", "test", image_size=24)
    logits = Network.load(run.path).logits(images.images)
    np.testing.assert_array_equal(logits.numpy(), run.read_predictions("test").logits)
    file = next((pictures / "1").iterdir())
    (answer,) = classify([file], weights=run.path, top=1)
    (same,) = Network.load(run.path).logits(torch.from_numpy(read_pictures([file], image_size=24, channels=3)))
    assert answer.familiarity is not None
    noise = torch.randint(256, (20, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert float(Network.load(run.path).answer(noise)[1].mean()) < float(
        Network.load(run.path).answer(images.images)[1].mean()
    )
    assert answer.classes == (run.evaluation.classes[int(same.argmax())],)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_written_network_computes_what_was_fitted(
    channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "SIZES", {"efficientnet_lite0": (40,)})
    images = np.random.default_rng(0).integers(0, 256, (16, 12, 12, channels), dtype=np.uint8)
    np.savez("data.npz", images=images, labels=np.arange(16) % 2)
    expression = f"npz:{tmp_path / 'data.npz'}"
    stored = load(expression, "train", image_size=12)
    found, _ = choice.choose(
        choice.Readers(lambda resize: stored),
        candidates=list(choice.backbones(stored_size=12)),
        budget=choice.Budget.of(9),
        say=print,
    )
    network = room.build_network(room.describe_fit(stored, found), stored, found)
    assert (network.channels, network.image_size) == (channels, 12)
    features = Pretrained("efficientnet_lite0", image_size=40).features(stored.images)
    expected = torch.from_numpy(found.head.logits(features.astype(np.float64))).float()
    torch.testing.assert_close(network.logits(stored.images), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("installed", [True, False])
def test_what_cannot_be_read_is_left_out_where_that_is_asked_for(
    installed: bool, pictures: Path, stand_in: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "0" / "broken.png").write_bytes(b"no picture")
    monkeypatch.setattr(room.scratch, "UPDATES", 6)
    if not installed:
        monkeypatch.setattr(choice, "SIZES", {})
    with pytest.raises(UserError, match="train, fit, extend and evaluate --data leave it out with --skip-damaged"):
        fit(f"folder:{pictures}", out="run", minutes=1)
    run = fit(f"folder:{pictures}", out="run", minutes=1, skip_damaged=True)
    assert run.recipe.skip_damaged
    assert sum(split.num_images for split in run.evaluation.splits.values()) == 60
    assert "1 damaged picture left out" in capsys.readouterr().err


@pytest.mark.usefixtures("stand_in")
def test_long_pictures_are_cropped_where_the_middle_tells_the_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "evaluate", lambda *_, **__: None)
    monkeypatch.setattr(room, "write_report", lambda run: None)
    generator = np.random.default_rng(0)
    for number in range(40):
        pixels = generator.integers(0, 256, (12, 60, 3), dtype=np.uint8)
        pixels[:, 24:36] = pixels[:, 24:36] // 4 + 160 * (number % 2)
        file = tmp_path / "long" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    run = fit(f"folder:{tmp_path / 'long'}", out="run", minutes=1)
    network = Network.load(run.path)
    assert run.recipe.resize == network.resize == "crop"
    candidates = run.candidates
    assert candidates is not None
    assert [each.resize for each in candidates.candidates if not each.left_out][:3] == ["squeeze", "pad", "crop"]


@pytest.mark.parametrize("installed", [True, False])
def test_validation_pictures_that_are_not_used_are_counted(
    installed: bool, pictures: Path, stand_in: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room.scratch, "UPDATES", 6)
    if not installed:
        monkeypatch.setattr(choice, "SIZES", {})
    for name in ("0", "1", "7"):
        for split, numbers in (("train", range(12)), ("test", range(12, 16)), ("val", range(16, 20))):
            (pictures / split / name).mkdir(parents=True)
            for number in numbers:
                (pictures / name / f"{number}.png").rename(pictures / split / name / f"{number}.png")
        (pictures / name).rmdir()
    fit(f"folder:{pictures}", out="run", minutes=1)
    assert f"folder:{pictures}: 12 validation pictures not used, since " in capsys.readouterr().err


def test_without_pretrained_networks_it_trains_from_scratch_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(choice, "SIZES", {})
    monkeypatch.setattr(room.scratch, "UPDATES", 6)
    run = fit("digits:1,4@20", out="run", silent=False)
    assert "pip install 'reslab[pretrained]'" in capsys.readouterr().err
    assert run.recipe.pretrained is None
    assert run.candidates is None
    assert run.log[-1].updates >= 6
    assert "pip install" in summarize(run).advice


@pytest.mark.parametrize(("minutes", "updates"), [(1, 480), (60, 2000), (0.001, 10), (-0.5, 10)])
def test_training_from_scratch_on_many_images_keeps_the_minutes(
    monkeypatch: pytest.MonkeyPatch, minutes: float, updates: int
) -> None:
    labels = torch.arange(400_000) % 2
    images = ImageSet(torch.zeros(1, 1, 1, 1).byte().expand(400_000, 3, 4, 4), labels, ("a", "b"), "x", "train")
    monkeypatch.setattr("reslab.training.budget._time", lambda *arguments, **options: 0.1)
    made: dict[str, Any] = {}
    monkeypatch.setattr(room.scratch, "load", lambda expression, split, *, image_size, **options: images)
    monkeypatch.setattr(room.scratch, "time", SimpleNamespace(monotonic=lambda: 0.0))
    monkeypatch.setattr(room.scratch, "train", lambda recipe, **options: made.update(recipe=recipe, **options))
    options: dict[str, Any] = {"minutes": minutes, "until": 7.0, "out": "", "seed": 0, "data_dir": None}
    room.scratch.train_from_scratch(images, **options, skip_damaged=False, silent=True)
    assert (made["recipe"].count_updates(3125), made["recipe"].epochs, made["safety"].until) == (updates, 1, 7)


def test_training_from_scratch_is_timed_on_images_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs are stored larger for frozen networks, and preparing those takes longer."""
    timed: list[int] = []
    monkeypatch.setattr(room.scratch, "within", lambda recipe, *, images, **_: timed.append(images.images.shape[2]))
    monkeypatch.setattr(room.scratch, "train", lambda recipe, **options: None)
    options: dict[str, Any] = {"minutes": 1.0, "until": 7.0, "out": "", "seed": 0, "data_dir": None}
    images = load("digits:1,4@20", "train", image_size=64)
    room.scratch.train_from_scratch(images, **options, skip_damaged=False, silent=True)
    assert timed == [room.scratch.IMAGE_SIZE]


@pytest.mark.parametrize(
    ("data", "minutes", "taken", "sentence"),
    [
        *(
            ("digits:1,4", minutes, False, f"--minutes {minutes} must be above 0 and finite")
            for minutes in (0, float("inf"), float("nan"))
        ),
        ("digits:1,4", 1, True, "run exists and is not empty: choose another --out, or remove the folder"),
        ("folder:pictres", 1, True, "pictres is not a folder"),
        ("digit:1,4", 1, True, "'digit' is not a data source"),
    ],
)
def test_what_cannot_be_is_said_first(data: str, minutes: float, taken: bool, sentence: str) -> None:
    if taken:
        Path("run").mkdir()
        Path("run", "note").touch()
    with pytest.raises(UserError, match=sentence):
        fit(data, out="run", minutes=minutes)


def test_a_run_is_not_made_among_the_classes(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    with pytest.raises(
        UserError, match=r"runs/fit lies inside .*/pictures, whose folders are classes: give --out a fol"
    ):
        fit("folder:.")
    assert sorted(path.name for path in pictures.iterdir()) == ["0", "1", "7"]


def test_a_folder_is_taken_from_the_start_of_a_fit_and_free_again_after_its_failure() -> None:
    for _ in range(2):
        with pytest.raises(UserError, match="has 1 training image"):
            fit("digits:1,4@1", out="runs/fit")
        assert not Path("runs").exists()
    Path("run").mkdir()
    with (
        lock.locked(Path("run"), name=room.RESERVED),
        pytest.raises(UserError, match="another reslab fit is about to write run: choose another --out"),
    ):
        fit("digits:1,4@1", out="run")
    Path("run", "note").touch()
    with pytest.raises(UserError, match="choose another --out, or remove the folder"):
        room._write(Fitted.__new__(Fitted), out="run", budget=choice.Budget.of(1), seed=0)


@pytest.mark.parametrize("late", ["evaluate", "write_report"])
def test_a_stop_after_the_network_is_saved_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, late: str) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "backbones", lambda **options: [])
    monkeypatch.setattr(room.scratch, "train_from_scratch", lambda *args, out, **options: save(out))
    monkeypatch.setattr(room, "evaluate", lambda *args, **options: None)
    monkeypatch.setattr(room, late, stop)

    def save(out: str) -> Run:
        run = Run.create(out)
        run.write_weights(b"")
        return run

    with pytest.raises(Stopped, match="reslab evaluate run, then reslab report run"):
        fit("digits:1,4@20", out="run")
    monkeypatch.setattr(room.scratch, "train_from_scratch", stop)
    with pytest.raises(KeyboardInterrupt):  # nothing is saved: the same command starts it again
        fit("digits:1,4@20", out="early")


def test_a_damaged_test_picture_is_named_before_the_work(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("0", "1", "7"):
        (pictures / "train" / name).parent.mkdir(exist_ok=True)
        (pictures / name).rename(pictures / "train" / name)
        (pictures / "test" / name).mkdir(parents=True)
        (pictures / "train" / name / "3.png").rename(pictures / "test" / name / "3.png")
    (pictures / "test" / "1" / "broken.png").write_bytes(b"no picture")
    monkeypatch.setattr(room, "find", lambda *args, **options: pytest.fail("the work began"))
    monkeypatch.setattr(room.scratch, "train_from_scratch", lambda *args, **options: pytest.fail("the work began"))
    with pytest.raises(UserError, match=r"test/1/broken\.png cannot be read as a picture .* --skip-damaged"):
        fit(f"folder:{pictures}", out="run", minutes=1)
    assert not Path("run").exists()


def test_a_damaged_test_picture_is_named_with_what_to_do_since_the_network_is_saved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(run: Run, **options: object) -> None:
        raise UserError("7.png is damaged")

    monkeypatch.setattr(room, "backbones", lambda **options: [])
    monkeypatch.setattr(room.scratch, "train_from_scratch", lambda *args, out, **options: Run(out))
    monkeypatch.setattr(room, "evaluate", refuse)
    with pytest.raises(UserError, match=r"7\.png is damaged; the network is saved: .* run reslab evaluate run and"):
        fit("digits:1,4@20", out="run")


def test_pictures_have_a_size(pictures: Path) -> None:
    assert find_image_size(f"folder:{pictures}", largest=192) == 24
    assert find_image_size(f"folder:{pictures}+cifar10", largest=192) == 32
    assert find_image_size(f"folder:{pictures}", largest=16) == 16
    assert are_squares(f"folder:{pictures}+cifar10")


@pytest.mark.usefixtures("small")
def test_the_command_prints_three_sentences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["reslab", "fit", "digits:1,4@10", "--out", "run", "--minutes", "0.01"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert "It classifies" in out
    assert "Next: " in out
    assert Run.open("run").is_evaluated
