"""The lab's recipes: the pre-activation ResNet-32 of a Keras script, its ten-epoch version, and one for digits.

Source: the public repository BIGBALLON/cifar-10-cnn, 4_Residual_Network; network He et al. 2016, arXiv:1603.05027.
Differs from it: 125 epochs instead of 200, the script's default and the basis of its README's result; the rate last
falls after 122. The script's penalty is 1e-4 times the sum of squares of the kernels, whose gradient is that of a
decay of 2e-4.
"""

from reslab.recipe.networks import PreActResNet
from reslab.recipe.recipe import Flip, Linear, Published, Recipe, Resize, Sgd, Shift, Standardize, Steps, derive

CIFAR10_PIXELS = Standardize(mean=(125.307, 122.95, 113.865), std=(62.9932, 62.0887, 66.7048))

RESNET32 = Recipe(
    name="lab-resnet32",
    source="BIGBALLON/cifar-10-cnn, 4_Residual_Network",
    published=Published(low=0.9268, high=0.9268, source="BIGBALLON/cifar-10-cnn, README, after 200 epochs"),
    data="cifar10",
    standardize=CIFAR10_PIXELS,
    augment=(Flip(), Shift(fraction=0.125)),
    model=PreActResNet(depth=32, keras_padding=True),
    optimizer=Sgd(peak_lr=0.1, momentum=0.9, nesterov=True, weight_decay=2e-4),
    schedule=Steps(at=(81, 122), factor=0.1),
    epochs=125,
    batch_size=128,
)

# The same network in a twelfth of the epochs: the rate rises and falls once, and images are small at first.
RESNET32_SHORT = derive(
    RESNET32,
    name="lab-resnet32-short",
    source="this project",
    published=None,
    augment=(Flip(), Shift(fraction=0.0625)),
    progressive_resizing=(
        Resize(epoch=0, image_size=16),
        Resize(epoch=3, image_size=24),
        Resize(epoch=7, image_size=32),
    ),
    optimizer=Sgd(peak_lr=0.2, momentum=0.9, nesterov=True, weight_decay=5e-4),
    schedule=Linear(warmup=0.2),
    epochs=10,
)

DIGITS_QUICK = Recipe(
    name="digits-quick",
    source="this project",
    data="digits",
    image_size=8,
    validation=140,
    augment=(Shift(fraction=0.125),),
    model=PreActResNet(depth=8),
    optimizer=Sgd(peak_lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
    schedule=Linear(warmup=0.2),
    epochs=15,
    batch_size=64,
)

RECIPES = (RESNET32, RESNET32_SHORT, DIGITS_QUICK)
