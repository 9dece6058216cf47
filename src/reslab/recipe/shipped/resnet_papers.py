"""The CIFAR-10 recipes of two papers: plain and residual networks, and residual networks with ELU.

Source: He et al. 2015, arXiv:1512.03385, section 4.2; Shah et al. 2016, arXiv:1604.04112, which trains the same way.
Differs from them: channels are standardised, while the papers subtract the mean image; all 50,000 images are used for
training (the papers hold 5,000 out for choices, and train the reported networks on all). The papers' warm-up of depth
110 lasts until the training error is below 80 %: here this is checked after every epoch.
"""

from reslab.recipe.networks import EluResNet, Plain, ResNet
from reslab.recipe.recipe import Crop, Flip, Published, Recipe, Sgd, Steps, WarmUntil, derive
from reslab.recipe.shipped.lab import CIFAR10_PIXELS

HE = "He et al. 2015, arXiv:1512.03385, table 6"
SHAH = "Shah et al. 2016, arXiv:1604.04112, table 1"

# Test errors in percent, by depth.
RESNET_ERRORS = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43}
ELU_ERRORS = {20: 8.32, 32: 7.30, 44: 6.93, 56: 6.31, 110: 5.62}
PLAIN_DEPTHS = (20, 32, 44, 56)  # the paper shows their errors as curves only


def _published(error: float, source: str) -> Published:
    accuracy = round(1 - error / 100, 4)
    return Published(low=accuracy, high=accuracy, source=source)


def _recipe(name: str, model: ResNet | Plain | EluResNet, source: str, published: Published | None) -> Recipe:
    recipe = Recipe(
        name=name,
        source=source,
        published=published,
        data="cifar10",
        standardize=CIFAR10_PIXELS,
        augment=(Crop(pixels=4, fill="zeros"), Flip()),
        model=model,
        optimizer=Sgd(peak_lr=0.1, momentum=0.9, nesterov=False, weight_decay=1e-4, decay_on="all"),
        schedule=Steps(at=(32_000, 48_000), unit="updates", factor=0.1),
        epochs=164,
        updates=64_000,
        batch_size=128,
    )
    return derive(recipe, name=name, published=published, warm_until=WarmUntil()) if model.depth == 110 else recipe


RECIPES = (
    *(_recipe(f"resnet-{d}", ResNet(depth=d), HE, _published(e, HE)) for d, e in RESNET_ERRORS.items()),
    *(_recipe(f"elu-resnet-{d}", EluResNet(depth=d), SHAH, _published(e, SHAH)) for d, e in ELU_ERRORS.items()),
    *(_recipe(f"plain-{d}", Plain(depth=d), HE, None) for d in PLAIN_DEPTHS),
)
