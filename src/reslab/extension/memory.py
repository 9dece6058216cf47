"""A summary of training images that is sufficient for learning new classes without them.

The features of each class are modelled as normally distributed around the class mean, with a shared covariance.
Features sampled from these distributions stand for the old images when a head is solved. The errors of this model are
calibrated on the real features of a few images, of held-out ones if there are any.

Source: Zhang et al. 2023, "SLCA: Slow Learner with Classifier Alignment for Continual Learning on a Pre-trained Model",
arXiv:2303.05118.
Differs from it: classes share a covariance, as in linear discriminant analysis, so that few images per class suffice;
some real features are kept.
Axes: N images, D features, K classes, M images whose features are kept.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.data.batches import seeded
from reslab.data.folds import Keys
from reslab.data.images import ImageSet
from reslab.data.recipe_data import check_remote
from reslab.data.split import choose_by_key, limit
from reslab.errors import UserError, in_shell
from reslab.extension import fusion
from reslab.extension.fusion import LabelledFeatures
from reslab.extension.learned import read_learned
from reslab.machine.device import pick_device
from reslab.network.network import Network
from reslab.pretrained.fusion import compute_fused, fuse
from reslab.runs import Damaged, Run
from reslab.runs.files import read_safetensors, to_safetensors
from reslab.runs.folder import MEMORY_BASE
from reslab.words import named

KEPT = 100  # images per class whose real features are kept
PER_KEPT = 5  # training images for each one set apart for this if none were held out
MOST_DRAWN = 50_000  # sampled features in total
SMALLEST = 1e-6  # standard deviation used for constant features


class Memory(NamedTuple):
    """Class counts (K,), class mean features (K, D), and the variation of features within classes.

    `deviations` (D,) and `correlations` (D, D) are within classes; `features` (M, D) and `labels` (M,) are those of
    some real images.
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
        """Sample features (N, D), as many per class as it had images, or the same share for all classes."""
        share = min(1.0, MOST_DRAWN / int(self.counts.sum()))
        counts = (self.counts * share).round().long().clamp(min=1)
        labels = torch.repeat_interleave(torch.arange(len(counts)), counts)
        variances, axes = torch.linalg.eigh(self.correlations.double())
        factor = (axes * variances.clamp(min=0).sqrt()).float()  # with fewer images than features, many are 0
        noise = torch.randn(len(labels), len(variances), generator=seeded(seed, "memory"))
        return LabelledFeatures(self.means[labels] + (noise @ factor.T) * self.deviations, labels)

    def joined(self, new: LabelledFeatures, *, kept: LabelledFeatures) -> "Memory":
        """Add images of new classes or more of old ones, given features of those in training and of those to keep."""
        own = _learn(new, kept)
        num_new = len(own.counts) - len(self.counts)
        before, means = F.pad(self.counts, (0, num_new)), F.pad(self.means, (0, 0, 0, num_new))
        counts, moved = before + own.counts, own.means - means
        shares = torch.stack([self.counts.sum(), own.counts.sum()]).float()
        covariance = sum(
            share * part.correlations * torch.outer(part.deviations, part.deviations)
            for share, part in zip(shares / shares.sum(), (self, own), strict=True)
        )
        assert isinstance(covariance, Tensor)
        # The images of a class that both have vary also between the two means.
        covariance += moved.T @ (moved * (before * own.counts / counts)[:, None]) / counts.sum()
        deviations = covariance.diagonal().sqrt().clamp(min=SMALLEST)
        return Memory(
            counts=counts,
            means=means + moved * (own.counts / counts)[:, None],
            deviations=deviations,
            correlations=covariance / torch.outer(deviations, deviations),
            features=torch.cat([self.features, own.features]),
            labels=torch.cat([self.labels, own.labels]),
        )

    def to_bytes(self, *, base: str) -> bytes:
        """Serialize to safetensors for the weights with the SHA-256 `base`; half precision suffices for most of it."""
        halves = {"correlations", "features"}
        tensors = {
            name: value.numpy().astype(np.float16) if name in halves else value.numpy()
            for name, value in self._asdict().items()
        }
        return to_safetensors(tensors, {MEMORY_BASE: base})


def remember(
    run: Run | Path | str, *, device: str = "auto", data_dir: Path | None = None, allow_remote: bool = False
) -> Memory:
    """Store a summary of a finished run's training images, so that it can be extended without them.

    Writes `memory.safetensors` into its folder: the mean feature of each class, the shared covariance of the classes,
    and the features of 100 images per class. These are held-out images if the run has any, else at most a fifth of the
    training images, which are then left out of means and covariance. Features are those of the network and of the
    pretrained network that `fusion` uses. Pictures cannot be seen in them, but they reveal something about each kept
    image. `extend` can then be called with `old_data="none"` and the method `fusion`.

    Parameters
    ----------
    run : Run, Path or str
        The finished run.
    device : str, default "auto"
        `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU if there is one.
    data_dir : Path, optional
        Folder of downloaded data, instead of `$RESLAB_DATA` or the cache directory.
    allow_remote : bool, default False
        Whether to allow contacting other machines named in the run's recipe.

    Returns
    -------
    Memory
        The summary that was written.

    Raises
    ------
    UserError
        If the run or its images are missing or have changed, a class has no images, or `reslab[pretrained]` is not
        installed.

    Examples
    --------
    >>> import reslab
    >>> reslab.remember("runs/digits").counts.shape
    torch.Size([3])
    """
    run = run if isinstance(run, Run) else Run.open(run)
    check_remote(run.recipe.data, of=f"the recipe {run.recipe.name}", allow_remote=allow_remote)
    training, held_out = read_learned(run, data_dir=data_dir)
    _check_all_have_images(run, training)
    base = Network.load(run.path, device=str(pick_device(device)))
    options = fusion.describe(base.metadata, keep_old=False)
    module = fuse(base, options, num_classes=len(base.classes))
    network = Network(module, base.metadata.model_copy(update={"model": options}))
    seen = see(network, training)
    if held_out is None:
        found = _learn(*_set_apart(seen, training.classes, keys=training.keys))._replace(counts=seen.labels.bincount())
    else:
        found = _learn(seen, see(network, held_out).few(training.classes, num=KEPT))
    run.write_memory(found.to_bytes(base=run.weights_digest))
    return found


def _check_all_have_images(run: Run, training: ImageSet) -> None:
    missing = [name for name, count in zip(training.classes, training.counts(), strict=True) if not count]
    if not missing:
        return
    try:
        is_remembered = read_memory(run) is not None
    except UserError:
        is_remembered = False
    if is_remembered:
        raise UserError(
            f"{run.path} has learned {named(missing)} without images: its memory of them is kept, so extend it as it is"
        )
    raise UserError(
        f"{run.path} has learned {named(missing)} without images, so it cannot remember them: run reslab remember on "
        "its base, and extend that by --method fusion --old-data none"
    )


def read_memory(run: Run) -> Memory | None:
    """Read a run's memory, if any. Raises: UserError if it is damaged or belongs to other weights."""
    return _read(run.memory_path, base=run.weights_digest, again=run.path) if run.memory_path.exists() else None


def read_base_memory(run: Run) -> Memory | None:
    """Read the memory of an extension's base, if it stands for the base's images. Raises: as `read_memory`."""
    path = run.base_memory_path
    return _read(path, base=run.base_digest, again=run.path) if path.exists() else None


def _read(path: Path, *, base: str, again: Path) -> Memory:
    tensors, metadata = read_safetensors(path)
    if set(tensors) != set(Memory._fields):
        raise Damaged(f"{path} is not a valid memory file: run reslab remember {in_shell(again)} again")
    if metadata.get(MEMORY_BASE) != base:
        raise UserError(f"{path} belongs to other weights: run reslab remember {in_shell(again)} again")
    found = {name: torch.from_numpy(value) for name, value in tensors.items()}
    if not found["counts"].all():
        raise UserError(
            f"{path} remembers classes without images: remove it, run reslab remember on the base of {again}, and "
            "extend that by --method fusion --old-data none"
        )
    return Memory(**{name: value.float() if value.is_floating_point() else value for name, value in found.items()})


def see(network: Network, images: ImageSet) -> LabelledFeatures:
    """Compute the input features of a fused network's head."""
    return LabelledFeatures(compute_fused(network, images), images.labels)


def _set_apart(
    seen: LabelledFeatures, classes: tuple[str, ...], *, keys: Keys | None
) -> tuple[LabelledFeatures, LabelledFeatures]:
    """Divide images into those whose distribution is summarised, and a few per class that are kept for calibration.

    Images of equal `keys` (N,) stay together where a class has several.
    """
    labels = seen.labels.numpy()
    keys = np.zeros(len(labels), dtype=np.uint64) if keys is None else keys
    totals = np.bincount(labels, minlength=len(classes))
    # Without one of each class it would be calibrated away.
    wanted = {label: min(KEPT, max(1, total // PER_KEPT), total - 1) for label, total in enumerate(totals.tolist())}
    of_class = [keys[labels == label] for label in range(len(classes))]
    by_key = {label: wanted[label] for label, own in enumerate(of_class) if own.all() and len(np.unique(own)) > 1}
    try:
        is_kept = choose_by_key(keys, labels, shares=by_key, classes=classes)
    except UserError:  # groups of several classes leave no choice
        by_key, is_kept = {}, np.zeros(len(labels), dtype=bool)
    for label, name in enumerate(classes):
        if label in by_key and is_kept[labels == label].sum() > KEPT:  # all groups are large
            is_kept[labels == label] = False
            del by_key[label]
        if label not in by_key:
            is_other = (labels != label).astype(np.int64)
            is_kept[limit(is_other, classes=(name,), num=wanted[label])] = True
    rest, kept = (seen.at(torch.from_numpy(part)) for part in (~is_kept, is_kept))
    return rest, kept


def _learn(seen: LabelledFeatures, kept: LabelledFeatures) -> Memory:
    features, labels = seen
    num_classes = int(labels.max()) + 1
    counts = torch.bincount(labels, minlength=num_classes)
    means = F.one_hot(labels, num_classes).float().T @ features / counts.clamp(min=1)[:, None]

    within = features - means[labels]
    deviations = within.square().mean(0).sqrt().clamp(min=SMALLEST)
    scaled = within / deviations
    return Memory(counts, means, deviations, scaled.T @ scaled / len(labels), *kept)
