"""The moving average of a network, which takes its place wherever the training hands it over.

Source: Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging"; as an exponential moving
average beside the training, Tarvainen and Valpola 2017, arXiv:1703.01780.
Differs from it: it begins with an epoch of its own, as a copy of the network, so that nothing has to be corrected for
how it began; batch norm's running statistics are averaged like weights.
"""

import copy

from torch.optim.swa_utils import get_ema_multi_avg_fn

from reslab.models import Classifier
from reslab.recipe.recipe import Average


def begin_average(model: Classifier) -> Classifier:
    """Copy a network, in its own layout of memory; the copy is never trained."""
    return copy.deepcopy(model).requires_grad_(False)


def take_in(average: Classifier | None, model: Classifier, *, by: Average | None, epoch: int) -> Classifier | None:
    """Move the average towards a network that has just been updated in `epoch` (from 0), in place, and give it.

    There is none where the recipe wants none or it has not begun. What is counted is the network's.
    """
    if by is None or epoch < by.epoch:
        return None
    if average is None:
        return begin_average(model)
    ours, theirs = average.state_dict(), model.state_dict()
    moving = [name for name, value in ours.items() if value.is_floating_point()]
    move = get_ema_multi_avg_fn(by.decay)  # type: ignore[no-untyped-call]
    move([ours[name] for name in moving], [theirs[name] for name in moving], None)
    for name in ours.keys() - set(moving):
        ours[name].copy_(theirs[name])
    return average
