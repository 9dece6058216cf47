import pickle

import pytest
import torch

from reslab.errors import UserError
from reslab.evaluation import evaluate
from reslab.extension import extend
from reslab.models import build
from reslab.network.network import Network
from reslab.network.state_dict import read_state_dict
from reslab.recipe.networks import MODELS
from reslab.recipe.recipe import derive
from reslab.report import write_report
from reslab.runs import Run, read_weights
from reslab.training import train
from reslab.training.importing import import_weights


@pytest.fixture
def file(finished, tmp_path, monkeypatch):
    """The tensors of a finished run in the wrapping of a foreign file."""
    network = Network.load(finished.path)
    monkeypatch.setitem(MODELS, "small", network.metadata.model)
    path = tmp_path / "weights.th"
    tensors = {f"module.{name}": value for name, value in network.module.state_dict().items()}
    torch.save({"state_dict": tensors, "best_prec1": 91.2}, path)
    return path


def test_an_imported_run_evaluates_and_reports(file, tmp_path):
    run, accuracy = import_weights(
        file, model="small", map="order", data="digits:1,4,7", out=tmp_path / "run", at_least=0.3
    )
    assert run.recipe.source == "imported"
    assert run.recipe.imported.sha256 == read_state_dict(file).sha256
    figures = evaluate(Run.open(run.path))
    assert figures.splits["train"].accuracy.value == pytest.approx(accuracy, abs=0.1)
    text = " ".join(write_report(run).read_text(encoding="utf-8").replace("\u00a0", " ").split())
    assert "trained elsewhere: weights.th" in text
    assert "3 classes, which that training may have seen." in text
    card = (run.path / "model-card.md").read_text(encoding="utf-8")
    assert "for 3 classes, trained elsewhere and imported from `weights.th`." in card.replace("\u00a0", " ")
    assert not [word for word in ("SGD, ", "Trained for", "never saw", "0.0 s") if word in text]


def test_what_trains_an_imported_network_is_reported_as_training(file, tmp_path):
    run, _ = import_weights(file, model="small", map="order", data="digits:1,4,7", out=tmp_path / "run", at_least=0)
    more = extend(run.path, data="digits:0@20", out=tmp_path / "more", method="nearest-mean")
    again = train(derive(run.recipe, name="again", epochs=1, updates=2), out=tmp_path / "again")
    for made in (more, again):
        assert made.recipe.imported is None
        evaluate(made)
        text = write_report(made).read_text(encoding="utf-8")
        assert "trained elsewhere" not in text
        assert "SGD, " in text
        assert ("the weights that it began from may have" in text) == (made is more)


def test_noise_is_refused_and_leaves_nothing(file, tmp_path):
    torch.save({name: torch.zeros_like(value) for name, value in read_state_dict(file).tensors.items()}, file)
    with pytest.raises(UserError, match=r"only .* classified correctly at 8 pixels a side: the tensors fit"):
        import_weights(file, model="small", map="order", data="digits:1,4,7", out=tmp_path / "run", image_size=8)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "size"), [("resnet18", 224), ("resnet20", 32)])
def test_images_have_the_size_that_the_network_was_designed_for(name, size, tmp_path):
    network = build(MODELS[name], num_classes=2, channels=1)
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    run, _ = import_weights(
        tmp_path / "mine.pth", model=name, map="order", data="digits:1,4@2", out=tmp_path / "run", at_least=0
    )
    assert run.recipe.image_size == read_weights(run.path)[1].image_size == size


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (pickle.dumps(print), "cannot be read as plain tensors: save it again"),
        (b"", "cannot be read as plain tensors"),
        ([1, 2], "holds no tensors by name"),
        ({"state_dict": {}}, "holds no tensors by name"),
    ],
)
def test_a_file_that_holds_no_tensors_is_refused(content, sentence, tmp_path):
    path = tmp_path / "odd.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=sentence):
        read_state_dict(path)
