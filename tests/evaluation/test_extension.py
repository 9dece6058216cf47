"""What is said of an extended run: by hand, against plain loops, kept, and refused where files do not fit."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import beta

from reslab.cli.show import print_evaluation
from reslab.data.load import load
from reslab.errors import UserError
from reslab.evaluation import evaluate, predict
from reslab.evaluation.score import score
from reslab.models import build
from reslab.recipe.networks import PreActResNet
from reslab.recipe.recipe import Extension, Linear, Recipe, Sgd, Standardize
from reslab.records import ClassFigures, Estimate, Weights
from reslab.report import write_report
from reslab.runs import Predictions, Run, pack_weights, read_weights
from reslab.words import figure, listing
from reslab.words import printable as plain

CLASSES = ("ant", "bee", "cat", "dog", "eel")


def jeffreys(hits, total):
    low, high = beta(hits + 0.5, total - hits + 0.5).ppf([0.025, 0.975])
    # After one hit or one miss, the end of Clopper and Pearson.
    least, most = 1 - 0.975 ** (1 / total), 0.975 ** (1 / total)
    return pytest.approx((least if hits == 1 else low, most if total - hits == 1 else high), abs=1e-6)


def ends(estimate):
    return estimate.low, estimate.high


def make_run(path, prior, *, num_old=2, classes=CLASSES):
    run = Run.create(path)
    recipe = Recipe(
        name="small",
        source="this test",
        data="digits",
        model=PreActResNet(depth=8),
        optimizer=Sgd(peak_lr=0.1),
        schedule=Linear(),
        epochs=1,
        batch_size=10,
        extension=Extension(method="finetune", base="f00", num_old=num_old),
    )
    run.write_recipe(recipe)
    standardize = Standardize(mean=(0.0,), std=(1.0,))
    weights = Weights(model=recipe.model, classes=classes, channels=1, image_size=8, standardize=standardize)
    run.write_weights(pack_weights({"head.weight": np.zeros((1, 1), np.float32)}, weights))
    run.write_prior(prior)
    return run


def write_answers(run, labels, *, before, after, num_old=2):
    """Write what base and extended network say as classes; `before` holds the old classes' images alone."""
    labels = np.array(labels)
    run.write_predictions("test", Predictions(np.eye(5, dtype=np.float32)[after], labels))
    old = labels[labels < num_old]
    run.write_base_predictions(Predictions(np.eye(num_old, dtype=np.float32)[before], old))


#            old ones, not in the order of their classes, among new ones
LABELS = [0, 2, 1, 3, 0, 2, 2, 1, 0, 3, 2, 4, 2, 2]
AFTER = [0, 2, 1, 3, 2, 0, 3, 1, 0, 3, 1, 4, 0, 4]
BEFORE = [0, 0, 0, 1, 1]  # of the images 0, 2, 4, 7 and 8


def test_figures_computed_by_hand(tmp_path, prior):
    run = make_run(tmp_path / "run", prior)
    write_answers(run, LABELS, before=BEFORE, after=AFTER)
    evaluation = score(run, splits=["test"])
    found = evaluation.extension
    assert (found.method, found.num_old, found.prior) == ("finetune", 2, prior)
    # The base errs on a bee and the last ant, the extended network on the second ant.
    assert (found.old_before.value, found.old_after.value) == (3 / 5, 4 / 5)
    assert (ends(found.old_before), ends(found.old_after)) == (jeffreys(3, 5), jeffreys(4, 5))
    assert found.old_change.value == pytest.approx(1 / 5)
    assert [(each.before.value, each.after.value) for each in found.old_classes] == [(2 / 3, 2 / 3), (1 / 2, 1)]
    assert ends(found.old_classes[1].before) == jeffreys(1, 2)
    cat, dog, eel = found.new_classes
    # Of six cats two are taken for ants, and one each for a bee, a dog and an eel.
    assert (cat.taken_for_old.value, ends(cat.taken_for_old)) == (3 / 6, jeffreys(3, 6))
    assert [(each.mistaken_for, each.share.value) for each in cat.errors] == [
        ("ant", 2 / 6),
        ("bee", 1 / 6),
        ("dog", 1 / 6),
    ]
    assert ends(cat.errors[0].share) == jeffreys(2, 6)
    assert [each.figures for each in found.new_classes] == list(evaluation.splits["test"].per_class[2:])
    assert (cat.figures.precision.value, cat.figures.recall.value) == (1 / 2, 1 / 6)
    assert (dog.errors, eel.errors) == ((), ())
    assert ends(eel.taken_for_old) == (0, pytest.approx(0.975))
    # Cats: 2 · 1 / (6 + 2); dogs: 2 · 2 / (2 + 3); eels: 2 · 1 / (1 + 2).
    assert found.new_macro_f1.value == pytest.approx((1 / 4 + 4 / 5 + 2 / 3) / 3)
    assert run.evaluation == evaluation


@pytest.fixture(scope="module")
def many():
    """Labels of 400 images, and answers that err together: whether an image is hard decides both."""
    generator = np.random.default_rng(3)
    labels, hard = generator.integers(5, size=400), generator.random(400) < 0.3
    after = np.where(hard, generator.integers(5, size=400), labels)
    before = np.where(hard & (generator.random(400) < 0.9), 1 - labels, labels)[labels < 2]
    return labels, before, after


def resampled(num, figure, *, resamples=3000):
    """Draw images with replacement, one by one, and give the middle 95 % of a figure of their numbers."""
    generator = np.random.default_rng(5)
    return np.quantile([figure(generator.integers(num, size=num)) for _ in range(resamples)], [0.025, 0.975])


def test_intervals_are_those_of_images_drawn_one_by_one(tmp_path, prior, many):
    labels, before, after = many
    run = make_run(tmp_path / "run", prior)
    write_answers(run, labels, before=before, after=after)
    found = score(run, splits=["test"]).extension
    old = labels < 2
    right_before, right_after = (before == labels[old]).astype(int), (after[old] == labels[old]).astype(int)

    def change(chosen):
        return right_after[chosen].mean() - right_before[chosen].mean()

    def new_f1(chosen):
        true, said = labels[chosen], after[chosen]
        parts = [2 * ((true == k) & (said == k)).sum() / ((true == k).sum() + (said == k).sum()) for k in (2, 3, 4)]
        return np.mean(parts)

    assert found.old_change.value == pytest.approx(change(np.arange(old.sum())))
    assert found.new_macro_f1.value == pytest.approx(new_f1(np.arange(400)))
    assert ends(found.old_change) == pytest.approx(resampled(old.sum(), change), abs=0.008)
    assert ends(found.new_macro_f1) == pytest.approx(resampled(400, new_f1), abs=0.008)
    apart = sum(high - low for low, high in (ends(found.old_before), ends(found.old_after)))
    assert found.old_change.high - found.old_change.low < 0.6 * apart


def test_another_split_leaves_what_was_found(tmp_path, prior, many):
    labels, before, after = many
    run = make_run(tmp_path / "run", prior)
    write_answers(run, labels, before=before, after=after)
    found = score(run, splits=["test"]).extension
    run.write_predictions("train", run.read_predictions("test"))
    (run.path / "predictions-test-base.npz").unlink()
    later = score(run, splits=["train"])
    assert (later.extension, set(later.splits)) == (found, {"train", "test"})
    run.write_evaluation(later.model_copy(update={"bootstrap_resamples": 40}))
    assert score(run, splits=["train"]).extension is None


def test_a_run_that_was_not_extended_has_nothing_to_say(finished):
    assert finished.evaluation.extension is None
    assert not (finished.path / "predictions-test-base.npz").exists()


# ---- from the networks


def naive_logits(weights_path, images, num_classes):
    by = read_weights(weights_path)[1].standardize
    model = build(PreActResNet(depth=8, width=8), num_classes=num_classes, channels=1)
    model.load_state_dict(load_file(weights_path))
    model.eval()
    with torch.no_grad():
        rows = [model((image[None].double() - by.mean[0]).div(by.std[0]).float())[0] for image in images]
    return torch.stack(rows).numpy()


def test_the_base_is_asked_about_its_own_classes_as_it_was(extended, finished):
    predict(extended, splits=["test"])
    test = load("digits:1,4,7", "test", image_size=8)  # the old classes alone
    logits, labels = extended.read_base_predictions()
    np.testing.assert_array_equal(np.sort(labels), np.sort(test.labels.numpy()))
    every = load(extended.recipe.data, "test", image_size=8)
    old = every.labels < 3
    np.testing.assert_array_equal(labels, every.labels[old])
    np.testing.assert_allclose(logits, naive_logits(finished.weights_path, every.images[old], 3), rtol=1e-4, atol=1e-4)
    assert len(labels) == 108


def test_an_extended_run_is_measured_like_any_other(extended, finished, prior):
    evaluation = evaluate(extended, splits=["test"], views=2)
    assert evaluation.classes == ("1", "4", "7", "2", "3")
    found = evaluation.extension
    # The base was evaluated on these very images, by itself.
    own = finished.evaluation.splits["test"]
    assert found.old_before == own.accuracy
    assert [each.before for each in found.old_classes] == [each.recall for each in own.per_class]
    assert [each.after for each in found.old_classes] == [
        each.recall for each in evaluation.splits["test"].per_class[:3]
    ]
    assert found.prior == prior
    assert 0.5 < found.new_macro_f1.value < 1
    assert all(isinstance(each.figures, ClassFigures) for each in found.new_classes)
    plain = extended.read_base_predictions()
    evaluate(extended, splits=["test"])
    np.testing.assert_array_equal(extended.read_base_predictions().logits, plain.logits)


def test_the_terminal_shows_both_sides(extended, capsys):
    print_evaluation(evaluate(extended, splits=["test"]))
    printed = capsys.readouterr().out
    found = extended.evaluation.extension
    assert f"Old classes, changed by {figure(found.old_change, unit='points')}" in printed
    assert f"New classes, macro F1 {plain(figure(found.new_macro_f1))}, by" in printed
    assert "by frozen with tau 0.5" in printed
    lines = {line.strip().partition("  ")[0]: line for line in printed.splitlines()}
    assert f"{100 * found.old_after.value:.2f} % (" in lines["all old classes"]
    new = found.new_classes[1]
    assert f"{100 * new.figures.recall.value:.2f} % (" in lines["3"]
    assert f"{100 * new.taken_for_old.value:.2f} % (" in lines["3"]
    taken = listing([f"{error.mistaken_for} ({100 * error.share.value:.1f} %)" for error in new.errors])
    assert f"3 is taken for {taken}." in plain(printed).replace("\n", " ")


def test_the_training_split_does_not_ask_the_base(extended):
    evaluation = evaluate(extended, splits=["train"])
    assert evaluation.extension is None
    assert not (extended.path / "predictions-test-base.npz").exists()


def test_an_extended_run_is_reported(extended):
    evaluate(extended)
    page = write_report(extended).read_text(encoding="utf-8")
    assert "taught 2 new classes" in page
    assert (extended.path / "figures" / "prior.png").exists()


# ---- refusals


def test_another_base_is_refused(extended, finished):
    tensors, weights = read_weights(finished.path)
    finished.write_weights(pack_weights(tensors | {"head.bias": tensors["head.bias"] + 1}, weights))
    extended.write_base(finished.weights_path.read_bytes())
    with pytest.raises(UserError, match=r"base\.safetensors is not the network that .*extended was made from"):
        evaluate(extended, splits=["test"])
    extended.base_path.unlink()
    with pytest.raises(UserError, match=r"base\.safetensors cannot be read: No such file"):
        evaluate(extended, splits=["test"])
    assert not extended.is_evaluated


def test_files_that_do_not_belong_together_are_refused(tmp_path, prior):
    run = make_run(tmp_path / "run", prior)
    write_answers(run, LABELS, before=BEFORE, after=AFTER)
    answers = run.read_base_predictions()
    run.write_base_predictions(answers._replace(labels=1 - answers.labels))
    with pytest.raises(UserError, match="of the run and of its base are of different images; run reslab evaluate"):
        score(run, splits=["test"])
    run.write_base_predictions(answers._replace(logits=np.zeros((5, 3), np.float32)))
    with pytest.raises(UserError, match="the base's test predictions cannot be scored: their logits are of 3 classes"):
        score(run, splits=["test"])
    (run.path / "predictions-test-base.npz").unlink()
    with pytest.raises(UserError, match=r"predictions-test-base\.npz is missing: run reslab evaluate"):
        score(run, splits=["test"])
    run.write_base_predictions(answers)
    (run.path / "prior.json").unlink()
    with pytest.raises(UserError, match=r"prior\.json cannot be read"):
        score(run, splits=["test"])
    assert not run.is_evaluated


def test_a_recipe_without_new_classes_is_refused(tmp_path, prior):
    run = make_run(tmp_path / "run", prior, num_old=5)
    write_answers(run, LABELS, before=AFTER, after=AFTER, num_old=5)
    with pytest.raises(UserError, match="counts 5 old classes, but its network knows 5 in all"):
        score(run, splits=["test"])


def test_a_wholly_unknown_class_has_shares_of_nothing(tmp_path, prior):
    run = make_run(tmp_path / "run", prior)
    write_answers(run, LABELS[:11], before=BEFORE, after=AFTER[:11])  # no eel
    eel = score(run, splits=["test"]).extension.new_classes[2]
    assert eel.taken_for_old == Estimate(value=0, low=0, high=1)
    assert eel.errors == ()
