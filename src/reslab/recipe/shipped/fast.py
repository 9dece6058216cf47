"""Recipes for CPUs: high accuracy in minutes, and known networks in a fifth of their epochs.

Source: KellerJordan/cifar10-airbench, `airbench94_muon`, for network, optimizer and augmentation; the residual networks
are the lab's, trained with that optimizer.
Differs from it: smaller images in the first epochs, micro-batches of 250 with separate batch norm statistics, float32
if the processor has no hardware support for bfloat16.
"""

from reslab.recipe.networks import FastConv, PreActResNet
from reslab.recipe.recipe import Crop, Flip, Freeze, Linear, Muon, Recipe, Resize, Standardize, derive
from reslab.recipe.shipped.lab import CIFAR10_PIXELS, RESNET32

SIZES = (16, 20, 20, 24, 24, 28, 32, 32)  # pixels a side, epoch by epoch

FAST_CONV = Recipe(
    name="fast-conv",
    source="KellerJordan/cifar10-airbench",
    data="cifar10",
    standardize=CIFAR10_PIXELS,
    augment=(Flip(alternate=True), Crop(pixels=2, fill="reflect")),
    progressive_resizing=tuple(Resize(epoch=epoch, image_size=size) for epoch, size in enumerate(SIZES)),
    model=FastConv(),
    optimizer=Muon(head_lr=1340, bias_lr=106),  # for features divided by 256
    schedule=Linear(),
    label_smoothing=0.2,
    temperature=0.48,  # results/fast94-held-out
    freeze=(Freeze(parameters="stem", epoch=3),),
    epochs=8,
    batch_size=2000,
    micro_batch_size=250,
)

# Two epochs more, on larger images.
LARGER_SIZES = (16, 20, 24, 24, 28, 28, 32, 32, 32, 32)

FAST94 = derive(
    FAST_CONV,
    name="fast94",
    progressive_resizing=tuple(Resize(epoch=epoch, image_size=size) for epoch, size in enumerate(LARGER_SIZES)),
    epochs=10,
)

# The base of an extension holds out images for later choices, and is trained for longer, since it is kept.
LONG_SIZES = (16, 16, 20, 20, 24, 24, 24, 28, 28, 28, 28, 32, 32, 32, 32, 32)
EXTENSION_BASE = derive(
    FAST94,
    name="extension-base",
    validation=5000,
    progressive_resizing=tuple(Resize(epoch=epoch, image_size=size) for epoch, size in enumerate(LONG_SIZES)),
    epochs=16,
)

CIFAR100_PIXELS = Standardize(mean=(129.304, 124.07, 112.434), std=(68.1702, 65.3918, 70.4184))

# A hundred classes need more features, and a larger crop, since there are few images of each; the head's rate grows
# with the divisor of the features.
FAST_CIFAR100 = derive(
    FAST_CONV,
    name="fast-cifar100",
    data="cifar100",
    standardize=CIFAR100_PIXELS,
    augment=(Flip(alternate=True), Crop(pixels=4, fill="reflect")),
    progressive_resizing=EXTENSION_BASE.progressive_resizing,
    model=FastConv(widths=(96, 384, 512)),
    optimizer=Muon(head_lr=2680, bias_lr=106),
    temperature=None,
    epochs=16,
)


def _fast_resnet(depth: int) -> Recipe:
    """Return a recipe for the lab's network with 40 epochs instead of the 200 of its public table."""
    return derive(
        RESNET32,
        name=f"fast-resnet{depth}",
        source="this project",
        published=None,
        augment=(Flip(alternate=True), Crop(pixels=4, fill="reflect")),
        progressive_resizing=(
            Resize(epoch=0, image_size=16),
            Resize(epoch=6, image_size=24),
            Resize(epoch=20, image_size=32),
        ),
        model=PreActResNet(depth=depth, keras_padding=True),
        optimizer=Muon(peak_lr=0.1, head_lr=0.2, bias_lr=0.2, decay=1e-4),
        schedule=Linear(),
        epochs=40,
        batch_size=500,
    )


RECIPES = (FAST_CONV, FAST94, EXTENSION_BASE, FAST_CIFAR100, *map(_fast_resnet, (20, 32, 56)))
