import pytest

from reslab.recipe.recipe import Cosine, Crop, Flip, Linear, LinearHead, Sgd, Shift, Standardize, Steps
from reslab.records import Calibration, DataSet
from reslab.report import words
from reslab.report.facts import machine_facts, recipe_facts
from reslab.report.inputs import read_inputs


def plain(text):
    return text.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (Steps(at=(81, 122)), "0.1, then 0.01 after 81 and 0.001 after 122 epochs"),
        (Steps(at=(32_000,), unit="updates", factor=0.2), "0.1, then 0.02 after 32,000 updates"),
        (Steps(at=()), "0.1 throughout"),
        (Linear(warmup=0.2), "rises linearly to 0.1 over the first 20 % of the run, then falls linearly towards 0"),
        (Cosine(final=0.01), "starts at 0.1 and falls along half a cosine towards 0.001"),
    ],
)
def test_every_schedule_is_told(schedule, text, make_recipe):
    recipe = make_recipe(schedule=schedule.model_dump())
    assert plain(recipe.rate_words(epochs=200, updates=64_000)) == text


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (Steps(at=(3, 8)), "0.1, then 0.01 after 3 epochs; 0.001 after 8 epochs (not reached)"),
        (Steps(at=(8,)), "0.1 throughout; 0.01 after 8 epochs (not reached)"),
        (Steps(at=(90, 100), unit="updates"), "0.1, then 0.01 after 90 updates; 0.001 after 100 updates (not reached)"),
    ],
)
def test_a_step_that_the_run_did_not_come_to_is_told_as_such(schedule, text, make_recipe):
    recipe = make_recipe(schedule=schedule.model_dump())
    assert plain(recipe.rate_words(epochs=8, updates=100)) == text


def test_warm_up_is_told(make_recipe):
    recipe = make_recipe(schedule=Steps(at=(5,)).model_dump(), warm_until={"factor": 0.1, "training_error": 0.8})
    told = plain(recipe.rate_words(epochs=6, updates=228))
    assert told.endswith("; times 0.1 until an epoch ends with a training error under 80 %")


def test_a_computed_head_is_not_told_as_a_training(rich):
    inputs = read_inputs(rich)
    recipe = inputs.recipe.model_copy(
        update={"optimizer": LinearHead(penalty=1), "augment": (Flip(),), "validation": 0}
    )
    calibration = Calibration(temperature=2, num_images=60, out_of_folds=True)
    weights = inputs.weights.model_copy(update={"calibration": calibration})
    told = dict(recipe_facts(inputs._replace(recipe=recipe, weights=weights)))
    assert told["Augmentation"] == "each image and its mirror image"
    assert told["Validation"] == "training images, judged out of folds"
    assert dict(recipe_facts(inputs._replace(recipe=recipe)))["Validation"] == "nothing held out"
    assert "Speed" in dict(machine_facts(inputs))
    assert "Speed" not in dict(machine_facts(inputs._replace(recipe=recipe)))


def test_a_source_with_validation_images_of_its_own_decides_how_many(rich):
    inputs = read_inputs(rich)
    held_out = DataSet(expression="folder:x", split="validation", num_images=12, fingerprint="ab")
    environment = inputs.environment.model_copy(update={"data": (*inputs.environment.data, held_out)})
    assert dict(recipe_facts(inputs._replace(environment=environment)))["Validation"] == "12 images held out"


def test_parts_of_a_recipe():
    augment = (Flip(), Shift(fraction=0.125), Crop(pixels=4, fill="reflect"))
    told = words.augment_words(augment)
    assert [part in told for part in ("left to right", "0.125", "4 pixels (reflected pixels)")] == [True] * 3
    assert words.augment_words(()) == "none"
    sgd = Sgd(peak_lr=0.1, momentum=0.9, nesterov=False, weight_decay=2e-4, decay_on="all")
    assert words.optimizer_words(sgd) == "SGD, momentum 0.9, weight decay 0.0002 on all parameters"
    assert words.optimizer_words(Sgd(peak_lr=1)) == "SGD, Nesterov momentum 0.9, no weight decay"
    told = words.standardize_words(Standardize(mean=(125.307, 122.95), std=(62.9932, 62)))
    assert told.startswith("minus 125.31, 122.95, divided by 62.993, 62 ")


@pytest.mark.parametrize(
    ("epochs", "begins", "text"),
    [
        (7, 0, "trained at 16 pixels a side at first, at 24 after 2 epochs and 32 after 6 epochs"),
        (6, 0, "trained at 16 pixels a side at first, at 24 after 2 epochs; 32 after 6 epochs (not reached)"),
        (2, 0, "trained at 16 pixels a side; 24 after 2 epochs and 32 after 6 epochs (not reached)"),
        (7, 1, "trained at 32 pixels a side at first, at 16 after 1 epoch, 24 after 2 epochs and 32 after 6 epochs"),
    ],
)
def test_growth_is_told_as_far_as_the_run_came(epochs, begins, text, make_recipe):
    sizes = {begins: 16, 2: 24, 6: 32}
    recipe = make_recipe(progressive_resizing=[{"epoch": epoch, "image_size": size} for epoch, size in sizes.items()])
    assert recipe.resizing_words(epochs=epochs) == text
