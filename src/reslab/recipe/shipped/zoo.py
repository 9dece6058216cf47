"""The networks of a published table, trained as described there, and one recipe for image folders at 224 pixels.

Source: the results table and the scripts of the public repository BIGBALLON/cifar-10-cnn (`reslab.recipe.published`);
networks as in their papers, named in `reslab.models`.
A script's penalty of c times the sum of the kernels' squares has the gradient of a weight decay of 2c, which is used
here.
Differs from it: the papers' networks if the scripts deviate (`keras_script` of ResNeXt, `last_transition` of DenseNet
and `project_every_block` of Wide ResNet select the scripts' variants); VGG-19 starts from random weights instead of
ImageNet's, and uses standardised pixels. The table does not say whether its results are of the best or the last epoch.
The recipe for folders is the usual one for ResNets, with a length for some thousand images: Goyal et al. 2017,
arXiv:1706.02677, for the rate, Szegedy et al. 2014, arXiv:1409.4842, for the crop. A folder's pictures are squeezed to
224x224 before they are cropped.
"""

from reslab.recipe.networks import DenseNet, ImageNetResNet, LeNet, Model, NiN, PreActResNet, ResNeXt, Vgg19, WideResNet
from reslab.recipe.published import CIFAR10_NETWORKS, CIFAR10_SOURCE, PublishedNetwork
from reslab.recipe.recipe import (
    Augment,
    Cosine,
    Crop,
    Flip,
    Published,
    RandomResizedCrop,
    Recipe,
    Sgd,
    Shift,
    Standardize,
    Steps,
)
from reslab.recipe.shipped.lab import CIFAR10_PIXELS

IMAGENET_PIXELS = Standardize(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))


_SHORT = Steps(at=(81, 122), factor=0.1)
_LONG = Steps(at=(150, 225), factor=0.1)
_WIDE = Steps(at=(60, 120, 160), factor=0.2)
_KNOWN = {row.network: row for row in CIFAR10_NETWORKS}
_AUGMENT: tuple[Augment, ...] = (Flip(), Shift(fraction=0.125))


def _recipe(
    name: str,
    network: str,
    model: Model,
    schedule: Steps,
    *,
    peak_lr: float = 0.1,
    penalty: float = 1e-4,
) -> Recipe:
    """Make the recipe of a row of the table; `penalty` is the one of the script."""
    known = _KNOWN[network]
    published = Published(low=known.test_accuracy, high=known.test_accuracy, source=f"{CIFAR10_SOURCE}, README")
    return Recipe(
        name=f"zoo-{name}",
        source=f"BIGBALLON/cifar-10-cnn, {network}",
        published=published,
        data="cifar10",
        standardize=CIFAR10_PIXELS,
        # The script of the wide networks fills shifted images by reflection; their paper crops in this way.
        augment=(Flip(), Crop(pixels=4, fill="reflect")) if isinstance(model, WideResNet) else _AUGMENT,
        model=model,
        optimizer=Sgd(peak_lr=peak_lr, momentum=0.9, nesterov=True, weight_decay=2 * penalty),
        schedule=schedule,
        epochs=known.epochs,
        batch_size=known.batch_size,
    )


FOLDER = Recipe(
    name="folder-resnet18",
    source="this project",
    data="folder:images",
    image_size=224,
    standardize=IMAGENET_PIXELS,
    augment=(RandomResizedCrop(), Flip()),
    model=ImageNetResNet(depth=18),
    optimizer=Sgd(peak_lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4),
    schedule=Cosine(warmup=0.05),
    epochs=90,
    batch_size=128,
)

RECIPES = (
    _recipe("lenet", "LeNet", LeNet(), Steps(at=(100, 150), factor=(0.5, 0.2)), peak_lr=0.01),
    _recipe("nin", "Network in Network", NiN(), Steps(at=(61, 121, 161), factor=0.2), peak_lr=0.05),
    _recipe("vgg19", "VGG-19", Vgg19(), Steps(at=(80, 160), factor=0.1)),
    *(
        _recipe(f"preact-resnet{d}", f"Pre-activation ResNet-{d}", PreActResNet(depth=d, keras_padding=True), _SHORT)
        for d in (20, 32, 110)
    ),
    *(
        _recipe(f"wrn{d}-{k}", f"Wide ResNet {d}-{k}", WideResNet(depth=d, widening=k), _WIDE, penalty=5e-4)
        for d, k in ((16, 8), (28, 10))
    ),
    *(
        _recipe(f"densenet-bc-{d}-{k}", f"DenseNet-BC {d}x{k}", DenseNet(depth=d, growth=k), _LONG)
        for d, k in ((100, 12), (100, 24), (160, 24))
    ),
    *(
        _recipe(name, network, ResNeXt(depth=29, cardinality=4, width=64, reduction=reduction), _LONG, penalty=5e-4)
        for name, network, reduction in (
            ("resnext29-4x64d", "ResNeXt-29 4x64d", None),
            ("se-resnext29-4x64d", "SE-ResNeXt-29 4x64d", 16),
        )
    ),
    FOLDER,
)

# The row of the table to which a recipe is compared, with its parameters and its training time.
PUBLISHED: dict[str, PublishedNetwork] = {
    recipe.name: _KNOWN[recipe.source.partition(", ")[2]] for recipe in RECIPES if recipe.published is not None
}
