"""What a network remembers of its training images: enough to be taught new classes when they are gone.

The features of each class count as normally distributed around its mean, all with one covariance. Features that are
drawn from these distributions stand for the old images where a head is solved. What a normal distribution gets wrong is
calibrated on the features of a few images as they are, of held-out ones where there are any.

Source: Zhang et al. 2023, "SLCA: Slow Learner with Classifier Alignment for Continual Learning on a Pre-trained Model",
arXiv:2303.05118.
Differs from it: classes share a covariance, as in linear discriminant analysis, so that few images of a class suffice;
some features are kept as they are.
Axes: N images, D features, K classes, M images whose features are kept.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.data.batches import seeded
from reslab.data.images import ImageSet
from reslab.data.recipe_data import check_remote
from reslab.data.split import limit
from reslab.errors import UserError
from reslab.extension import fusion
from reslab.extension.fusion import LabelledFeatures
from reslab.extension.learned import read_learned
from reslab.machine.device import pick_device
from reslab.network.network import Network
from reslab.pretrained.fusion import compute_fused, fuse
from reslab.runs import Damaged, Run
from reslab.runs.files import read_safetensors, to_safetensors

KEPT = 100  # images of a class whose features are kept as they are
PER_KEPT = 5  # training images, of which one is set apart for that where none were held out
MOST_DRAWN = 50_000  # features in all
SMALLEST = 1e-6  # deviation, of features that are always the same
BASE = "base"  # the SHA-256 of the weights whose features they are, in the file's metadata


class Memory(NamedTuple):
    """How many training images each class had (K,), their mean features (K, D), and how features vary within a class.

    `deviations` (D,) are those within classes, and `correlations` (D, D); `features` (M, D) and `labels` (M,) are those
    of some images as they are.
    """

    counts: Tensor
    means: Tensor
    deviations: Tensor
    correlations: Tensor
    features: Tensor
    labels: Tensor

    @property
    def kept(self) -> LabelledFeatures:
        return LabelledFeatures(self.features, self.labels)

    def draw(self, *, seed: int) -> LabelledFeatures:
        """Draw features (N, D), as many of each class as it had images, or the same share of all classes."""
        share = min(1.0, MOST_DRAWN / int(self.counts.sum()))
        counts = (self.counts * share).round().long().clamp(min=1)
        labels = torch.repeat_interleave(torch.arange(len(counts)), counts)
        variances, axes = torch.linalg.eigh(self.correlations.double())
        factor = (axes * variances.clamp(min=0).sqrt()).float()  # where images are fewer than features, many are 0
        noise = torch.randn(len(labels), len(variances), generator=seeded(seed, "memory"))
        return LabelledFeatures(self.means[labels] + (noise @ factor.T) * self.deviations, labels)

    def joined(self, new: LabelledFeatures, *, kept: LabelledFeatures) -> "Memory":
        """Add classes: features of their training images, and those to keep; labels follow the old ones."""
        own = _learn(LabelledFeatures(new.features, new.labels - len(self.counts)), kept)
        shares = torch.stack([self.counts.sum(), own.counts.sum()]).float()
        covariance = sum(
            share * part.correlations * torch.outer(part.deviations, part.deviations)
            for share, part in zip(shares / shares.sum(), (self, own), strict=True)
        )
        assert isinstance(covariance, Tensor)
        deviations = covariance.diagonal().sqrt().clamp(min=SMALLEST)
        return Memory(
            counts=torch.cat([self.counts, own.counts]),
            means=torch.cat([self.means, own.means]),
            deviations=deviations,
            correlations=covariance / torch.outer(deviations, deviations),
            features=torch.cat([self.features, own.features]),
            labels=torch.cat([self.labels, own.labels]),
        )

    def to_bytes(self, *, base: str) -> bytes:
        """Write it as a safetensors file for the weights of that SHA-256; half the digits suffice for most of it."""
        halves = {"correlations", "features"}
        tensors = {
            name: value.numpy().astype(np.float16) if name in halves else value.numpy()
            for name, value in self._asdict().items()
        }
        return to_safetensors(tensors, {BASE: base})


def remember(
    run: Run | Path | str, *, device: str = "auto", data_dir: Path | None = None, allow_remote: bool = False
) -> Memory:
    """Let a finished run remember its training images, so that it can be extended without them.

    Writes `memory.safetensors` into its folder: the mean feature of each class, the covariance that the classes share,
    and the features of 100 images of each class: of held-out ones where the run held any out, else of at most a fifth
    of the training images, which the mean and the covariance leave out. Features are those of the
    network and, beside it, of the pretrained network that `fusion` uses. No picture can be seen from them, but they say
    something of each kept image. `extend` then takes `old_data="none"` with the method `fusion`.

    Parameters
    ----------
    run : Run, Path or str
        The finished run.
    device : str, default "auto"
        `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU where there is one.
    data_dir : Path, optional
        Where downloaded data lies, instead of `$RESLAB_DATA` or the cache directory.
    allow_remote : bool, default False
        Whether another machine that the run's recipe names may be contacted.

    Returns
    -------
    Memory
        What was written.

    Raises
    ------
    UserError
        Where the run or its images are missing or have changed, or `reslab[pretrained]` is not installed.

    Examples
    --------
    >>> import reslab
    >>> reslab.remember("runs/digits").counts.shape
    torch.Size([3])
    """
    run = run if isinstance(run, Run) else Run.open(run)
    check_remote(run.recipe.data, of=f"the recipe {run.recipe.name}", allow_remote=allow_remote)
    training, held_out = read_learned(run, data_dir=data_dir)
    base = Network.load(run.path, device=str(pick_device(device)))
    options = fusion.describe(base.metadata, keep_old=False)
    module = fuse(base, options, num_classes=len(base.classes))
    network = Network(module, base.metadata.model_copy(update={"model": options}))
    seen = see(network, training)
    if held_out is None:
        found = _learn(*_set_apart(seen, training.classes))._replace(counts=seen.labels.bincount())
    else:
        found = _learn(seen, see(network, held_out).few(training.classes, num=KEPT))
    run.write_memory(found.to_bytes(base=run.weights_digest))
    return found


def read_memory(run: Run) -> Memory | None:
    """Read what a run remembers, if anything. Raises: UserError where it is damaged or of other weights."""
    return _read(run.memory_path, base=run.weights_digest, again=run.path) if run.memory_path.exists() else None


def read_base_memory(run: Run) -> Memory | None:
    """Read what the base of an extension remembered, where that stands for its images. Raises: as `read_memory`."""
    path = run.base_memory_path
    return _read(path, base=run.base_digest, again=run.path) if path.exists() else None


def _read(path: Path, *, base: str, again: Path) -> Memory:
    tensors, metadata = read_safetensors(path)
    if set(tensors) != set(Memory._fields):
        raise Damaged(f"{path} is no memory of a network: run reslab remember {again} again")
    if metadata.get(BASE) != base:
        raise UserError(f"{path} is of other weights: run reslab remember {again} again")
    found = {name: torch.from_numpy(value) for name, value in tensors.items()}
    return Memory(**{name: value.float() if value.is_floating_point() else value for name, value in found.items()})


def see(network: Network, images: ImageSet) -> LabelledFeatures:
    """Compute the features that a fused network's head is given."""
    return LabelledFeatures(compute_fused(network, images), images.labels)


def _set_apart(seen: LabelledFeatures, classes: tuple[str, ...]) -> tuple[LabelledFeatures, LabelledFeatures]:
    """Divide images into those whose distribution is remembered, and a few of each class that calibrate by it."""
    is_kept = torch.zeros(len(seen.labels), dtype=torch.bool)
    for label, name in enumerate(classes):
        own = seen.labels == label
        total = int(own.sum())
        num = min(KEPT, max(1, total // PER_KEPT), total - 1)  # without one of each class it would be calibrated away
        is_kept[limit((~own).long().numpy(), classes=(name,), num=num)] = True
    rest, kept = (LabelledFeatures(seen.features[part], seen.labels[part]) for part in (~is_kept, is_kept))
    return rest, kept


def _learn(seen: LabelledFeatures, kept: LabelledFeatures) -> Memory:
    features, labels = seen
    num_classes = int(labels.max()) + 1
    counts = torch.bincount(labels, minlength=num_classes)
    means = F.one_hot(labels, num_classes).float().T @ features / counts[:, None]
    within = features - means[labels]
    deviations = within.square().mean(0).sqrt().clamp(min=SMALLEST)
    scaled = within / deviations
    return Memory(counts, means, deviations, scaled.T @ scaled / len(labels), *kept)
