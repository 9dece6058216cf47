"""Small recipes that train in a second."""

import pytest

from reslab.recipe import Linear, PreActResNet, Recipe, Sgd, Shift


@pytest.fixture
def recipe() -> Recipe:
    """Three classes of digits, at most 40 training images each: 6 updates of 20 an epoch, the last one smaller."""
    return Recipe(
        name="test",
        source="the tests",
        data="digits:1,4,7@40",
        image_size=8,
        validation=9,
        augment=(Shift(fraction=0.1),),
        model=PreActResNet(depth=8, width=8),
        optimizer=Sgd(peak_lr=0.1, weight_decay=1e-3),
        schedule=Linear(warmup=0.2),
        epochs=3,
        batch_size=20,
    )
