"""A shorter recipe keeps its shape."""

import pytest

from reslab.errors import UserError
from reslab.recipe.recipe import EarlyStopping, Freeze, Linear, Resize, Steps, derive
from reslab.recipe.shipped import RECIPES
from reslab.study.plan import recipe_of
from reslab.study.spec import Training

FEW = derive(RECIPES["lab-resnet32"], name="few", epochs=10, schedule=Steps(at=(8, 9)))


def test_the_whole_is_the_recipe_itself() -> None:
    assert RECIPES["fast-conv"].shortened(1) is RECIPES["fast-conv"]


def test_epochs_and_steps() -> None:
    short = RECIPES["lab-resnet32"].shortened(0.1)
    assert (short.name, short.published, short.epochs) == ("lab-resnet32-x0.1", None, 13)
    assert short.schedule == Steps(at=(8, 12))  # 81 and 122 of 125, times 13/125: 8.4 and 12.7, inside the run
    untouched = {"name", "published", "epochs", "schedule"}
    assert short.model_dump(exclude=untouched) == RECIPES["lab-resnet32"].model_dump(exclude=untouched)


def test_updates_decide_where_they_are_given() -> None:
    short = RECIPES["resnet-20"].shortened(0.061)
    assert (short.epochs, short.updates) == (11, 3904)  # 9.98 epochs of 391 updates
    assert short.schedule == Steps(at=(1952, 2928), unit="updates")
    assert short.epochs * 391 >= short.updates


@pytest.mark.parametrize(("scale", "epochs"), [(0.3, 3), (0.7, 7), (0.01, 1), (0.31, 4)])
def test_epochs_are_rounded_up_but_not_by_a_rounding_error(scale: float, epochs: int) -> None:
    assert FEW.shortened(scale).epochs == epochs


def test_no_step_falls_out_of_the_run_while_there_is_room() -> None:
    assert FEW.shortened(0.3).schedule == Steps(at=(2, 2))
    assert FEW.shortened(0.1).schedule == Steps(at=(1, 1))  # an epoch has no room: it ends before the first


def test_growth_and_freezing_move_with_the_epochs() -> None:
    recipe = derive(
        RECIPES["fast-conv"],
        name="growing",
        progressive_resizing=(
            Resize(epoch=0, image_size=16),
            Resize(epoch=3, image_size=24),
            Resize(epoch=7, image_size=32),
        ),
        freeze=(Freeze(parameters="stem", epoch=6),),
        epochs=10,
    )
    half = recipe.shortened(0.5)
    assert half.progressive_resizing == (
        Resize(epoch=0, image_size=16),
        Resize(epoch=1, image_size=24),
        Resize(epoch=3, image_size=32),
    )
    assert half.freeze == (Freeze(parameters="stem", epoch=3),)
    # Where several sizes begin together, the last one is meant: the network must not stay at small images.
    assert recipe.shortened(0.1).progressive_resizing == (Resize(epoch=0, image_size=32),)
    assert half.schedule == Linear()


def test_a_run_of_another_length_is_scaled_and_keeps_its_name() -> None:
    longer = RECIPES["resnet-20"].lasting(200)
    assert (longer.name, longer.published, longer.epochs, longer.updates) == ("resnet-20", None, 200, None)
    assert longer.schedule == Steps(at=(100, 150))  # at 1/2 and 3/4 of 64,000 updates
    short = RECIPES["lab-resnet32-short"].lasting(5)
    assert [(each.epoch, each.image_size) for each in short.progressive_resizing] == [(0, 16), (1, 24), (3, 32)]
    assert RECIPES["lab-resnet32"].lasting(125) is RECIPES["lab-resnet32"]


def test_patience_is_scaled_too_and_never_falls_to_nothing() -> None:
    patient = derive(FEW, name="patient", validation=100, early_stopping=EarlyStopping(patience=10))
    assert patient.lasting(100).early_stopping == EarlyStopping(patience=100)
    assert patient.shortened(0.5).early_stopping == EarlyStopping(patience=5)
    ending = derive(patient, name="ending", early_stopping=EarlyStopping(patience=2))
    assert ending.shortened(0.1).early_stopping == EarlyStopping(patience=1)
    assert derive(patient, name="best", early_stopping=EarlyStopping()).lasting(3).early_stopping == EarlyStopping()


def test_no_epoch_is_lost_to_a_rounding_error() -> None:
    """Half of 26 epochs, which floating-point numbers put just below 13."""
    half = derive(FEW, name="half", epochs=90, freeze=(Freeze(parameters="stem", epoch=45),))
    resizing = (Resize(epoch=0, image_size=16), Resize(epoch=45, image_size=32))
    short = derive(half, name="half", progressive_resizing=resizing).lasting(26)
    assert (short.progressive_resizing[1].epoch, short.freeze[0].epoch) == (13, 13)


@pytest.mark.parametrize("scale", [0, -1, 1.5, float("nan")])
def test_other_scales_are_refused(scale: float) -> None:
    with pytest.raises(UserError, match=r"--epochs-scale .*: give a share of the epochs above 0 and at most 1"):
        recipe_of(Training(recipe="lab-resnet32"), label="row", scale=scale)


def test_a_rate_that_falls_out_of_order_is_refused() -> None:
    with pytest.raises(ValueError, match="the rate falls at 9, 8: list the places in order"):
        Steps(at=(9, 8))


def test_the_share_of_pixels_is_the_mean_over_the_epochs() -> None:
    resizes = (Resize(epoch=0, image_size=16), Resize(epoch=6, image_size=32))
    assert derive(FEW, name="small at first", progressive_resizing=resizes).share_of_pixels == (6 / 4 + 4) / 10
    assert FEW.share_of_pixels == 1
