"""The whole recipe `fast94` in plain PyTorch: 94 % on CIFAR-10 in minutes on a CPU, to be read in one sitting.

    python docs/fast94-in-one-file.py cifar-10-python.tar.gz

Source: KellerJordan/cifar10-airbench, `airbench94_muon`; Jordan 2024, arXiv:2404.00498.
Differs from it: images grow from 16 to 32 pixels; batches come in chunks of 250 images with batch norm statistics of
their own; ten epochs, in float32; running statistics are measured anew at the end; six views have equal weights.
`reslab train fast94` computes the same, and a test compares the weights of the two bit by bit. The package also checks,
records and resumes, and may use bfloat16, compiled code or Winograd convolutions, each of which rounds differently.
Axes: N images, C channels, H rows, W columns, K classes.
"""

import hashlib
import pickle
import sys
import tarfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ARCHIVE = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"  # SHA-256 of cifar-10-python.tar.gz
MEAN, STD = (125.307, 122.95, 113.865), (62.9932, 62.0887, 66.7048)  # of CIFAR-10's stored pixels, by channel
SIDES = (16, 20, 24, 24, 28, 28, 32, 32, 32, 32)  # pixels a side, epoch by epoch
BATCH, CHUNK = 2000, 250  # images per update, and per forward pass at most
CROP, FREEZE_STEM = 2, 3  # pixels that an image is moved by at most; the epoch, from 0, that freezes the stem


class Group(nn.Module):
    """Conv, maximum of 2x2, norm, GELU, conv, norm, GELU. (N, C, H, W) -> (N, C', H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs, eps=1e-12)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs, eps=1e-12)
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            nn.init.dirac_(conv.weight[: conv.in_channels].detach())  # the first filters hand the inputs on as they are
            norm.weight.requires_grad_(False)  # its bias is learned, its scale is not

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Network(nn.Module):
    """Whitened patches, three groups, the maximum of each channel, a linear head. (N, 3, H, W) -> logits (N, K)."""

    def __init__(self, widths: tuple[int, ...] = (64, 256, 256), num_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 2)  # 12 principal directions of 2x2 patches, and their negatives
        self.groups = nn.Sequential(*(Group(*pair) for pair in zip((24, *widths), widths, strict=False)))
        self.head = nn.Linear(widths[-1], num_classes)
        self.stem.weight.requires_grad_(False)
        self.head.bias.requires_grad_(False).zero_()
        with torch.no_grad():
            self.stem.bias.zero_()
            self.head.weight /= self.head.weight.std()

    def forward(self, images: Tensor) -> Tensor:
        x = self.groups(F.gelu(self.stem(images)))
        return self.head(x.amax(dim=(2, 3)).div(self.head.in_features))

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Make the stem's outputs uncorrelated and of variance 1 on patches like those of `images`."""
        patches = images.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1)
        variances, directions = torch.linalg.eigh((patches.T @ patches / len(patches)).double())
        kernels = (directions / (variances + 5e-4).sqrt()).T.reshape(-1, 3, 2, 2)
        self.stem.weight.copy_(torch.cat([kernels, -kernels]))


class Muon:
    """Orthogonalized momentum for the filters, whose norm stays sqrt(outputs); Nesterov's SGD for biases and head."""

    def __init__(self, network: Network) -> None:
        trained = [p for p in (*network.stem.parameters(), *network.groups.parameters()) if p.requires_grad]
        settings = (  # parameters, peak rate, momentum, weight decay
            ([p for p in trained if p.ndim > 1], 0.24, 0.6, 0.0),
            ([p for p in trained if p.ndim == 1], 106, 0.85, 0.004 / 106),
            ([network.head.weight], 1340, 0.85, 0.004 / 1340),
        )
        self.rows = [(p, torch.zeros_like(p), *row) for parameters, *row in settings for p in parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Take one step at a share of the peak rates, and forget the gradients."""
        for p, velocity, peak, momentum, decay in self.rows:
            if p.grad is None:  # frozen
                continue
            gradient = p.grad.add(p, alpha=decay)
            velocity.mul_(momentum).add_(gradient)
            step = gradient.add(velocity, alpha=momentum)
            if p.ndim == 4:
                p.mul_(len(p) ** 0.5 / p.norm())
                step = orthogonalize(step.flatten(1)).view(p.shape)
            p.sub_(step.mul_(peak * rate))
            p.grad = None


def orthogonalize(matrix: Tensor) -> Tensor:
    """Bring all singular values near 1 by three Newton-Schulz iterations; the directions stay."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(3):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def seeded(*place: int | str) -> torch.Generator:
    """Make a generator for one place of the run, so that no draw depends on those before it."""
    digest = hashlib.sha256("/".join(map(str, place)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


def standardize(pixels: Tensor) -> Tensor:
    """Turn stored pixels (N, 3, H, W) uint8 into float32 of mean 0 and standard deviation 1."""
    mean, std = torch.tensor([MEAN, STD])[:, :, None, None]
    return pixels.to(torch.float32).sub_(mean).div_(std)


def augment(images: Tensor, *, side: int, mirrored: Tensor, generator: torch.Generator) -> Tensor:
    """Resize to `side` pixels, mirror the `mirrored` (N,), and move by up to two pixels, reflecting the border."""
    if side != images.shape[3]:
        images = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    windows = F.pad(images, (CROP,) * 4, mode="reflect").unfold(2, side, 1).unfold(3, side, 1)
    top, left = torch.randint(0, 2 * CROP + 1, (2, len(images)), generator=generator)
    return windows[torch.arange(len(images)), :, top, left]


def train(pixels: Tensor, labels: Tensor, seed: int = 0, sides: tuple[int, ...] = SIDES, batch: int = BATCH) -> Network:
    """Train on stored images (N, 3, 32, 32) uint8 with labels (N,), one epoch for each of `sides`."""
    torch.manual_seed(seed)
    network, num_images = Network(), len(labels)
    network.whiten(standardize(pixels[torch.randperm(num_images, generator=seeded(seed, "prepare"))[:5000]]))
    network.to(memory_format=torch.channels_last)
    optimizer, per_epoch = Muon(network), -(-num_images // batch)
    mirrored = torch.rand(num_images, generator=seeded(seed, "mirrored")) < 0.5  # and in every other epoch the others
    for epoch, side in enumerate(sides):
        network.stem.bias.requires_grad_(epoch < FREEZE_STEM)
        for place, chosen in enumerate(torch.randperm(num_images, generator=seeded(seed, "order", epoch)).split(batch)):
            flips, generator = mirrored[chosen] ^ (epoch % 2 == 1), seeded(seed, "augment", epoch, place)
            images = augment(standardize(pixels[chosen]), side=side, mirrored=flips, generator=generator)
            num_chunks = -(-len(images) // CHUNK)
            chunks = zip(images.tensor_split(num_chunks), labels[chosen].tensor_split(num_chunks), strict=True)
            for some, answers in chunks:
                logits = network(some.to(memory_format=torch.channels_last))
                loss = F.cross_entropy(logits, answers, label_smoothing=0.2)
                (loss * (len(some) / len(images))).backward()  # so that the gradient is that of the batch's mean
            optimizer.step(1 - (epoch * per_epoch + place) / (len(sides) * per_epoch))
        print(f"epoch {epoch + 1}: {side} pixels, loss of the last chunk {loss:.3f}")
    renew_statistics(network, pixels[torch.randperm(num_images, generator=seeded(seed, "stored"))[:2048]])
    return network.eval()


@torch.no_grad()
def renew_statistics(network: Network, pixels: Tensor) -> None:
    """Set batch norm's running statistics to their mean over batches of whole images, for the weights as they are."""
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
    for images in pixels.split(128):
        network(standardize(images).to(memory_format=torch.channels_last))


@torch.inference_mode()
def predict(network: Network, pixels: Tensor, *, views: bool) -> Tensor:
    """Give logits (N, K); with `views` the mean of six: an image and it moved both ways by a pixel, each mirrored."""
    logits = []
    for images in map(standardize, pixels.split(500)):
        padded, side = F.pad(images, (1,) * 4, mode="replicate"), images.shape[3]
        windows = [padded[:, :, at : at + side, at : at + side] for at in ((1, 0, 2) if views else (1,))]
        windows += [window.flip(3) for window in windows] if views else []
        logits.append(torch.stack([network(window) for window in windows]).mean(0))
    return torch.cat(logits)


def read_cifar10(path: str) -> tuple[Tensor, Tensor]:
    """Read all images (60000, 3, 32, 32) uint8 and labels (60000,); the last 10,000 are the test split."""
    if hashlib.sha256(Path(path).read_bytes()).hexdigest() != ARCHIVE:
        raise SystemExit(f"{path} is not the official cifar-10-python.tar.gz")  # unpickling another could run code
    names = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
    with tarfile.open(path) as tar:
        batches = [pickle.load(tar.extractfile(f"cifar-10-batches-py/{name}"), encoding="bytes") for name in names]
    images = torch.cat([torch.from_numpy(batch[b"data"]) for batch in batches]).view(-1, 3, 32, 32)
    return images, torch.tensor([label for batch in batches for label in batch[b"labels"]])


if __name__ == "__main__":
    images, labels = read_cifar10(sys.argv[1])
    network = train(images[:50000], labels[:50000])
    print(f"trained in {time.process_time() / 60:.1f} minutes of processor time")
    for views, words in ((False, "without test-time augmentation"), (True, "with six views")):
        hits = predict(network, images[50000:], views=views).argmax(1) == labels[50000:]
        print(f"test accuracy {words}: {hits.double().mean():.2%}")
