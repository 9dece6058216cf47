"""Maps of foreign weights against naive networks that are built as their authors do."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab.errors import UserError
from reslab.models import build
from reslab.models.maps import adapt, translate
from reslab.recipe.networks import MODELS, ResNet

CLASSES, DEPTH = 7, 14


class Theirs(nn.Module):
    """A residual network with the names of akamaster, whose shortcuts have no parameters, or of chenyaofo."""

    def __init__(self, *, family: str) -> None:
        super().__init__()
        self.family = family
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        inputs = 16
        for stage, outputs in enumerate((16, 32, 64), 1):
            blocks = []
            for place in range((DEPTH - 2) // 6):
                stride = 2 if stage > 1 and place == 0 else 1
                block = nn.Module()
                block.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
                block.bn1 = nn.BatchNorm2d(outputs)
                block.conv2, block.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
                if stride == 2 and family == "chenyaofo":
                    block.downsample = nn.Sequential(
                        nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                    )
                blocks.append(block)
                inputs = outputs
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.add_module("linear" if family == "akamaster" else "fc", nn.Linear(64, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for block in [
            block for name, stage in self.named_children() if name.startswith("layer") for block in stage.children()
        ]:
            around = x
            if hasattr(block, "downsample"):
                around = block.downsample(x)
            elif block.conv2.out_channels != x.shape[1]:
                zeros = x.shape[1] // 2  # a quarter of the new channels on each side
                around = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, zeros, zeros))
            hidden = F.relu(block.bn1(block.conv1(x)))
            x = F.relu(block.bn2(block.conv2(hidden)) + around)
        head = self.linear if self.family == "akamaster" else self.fc
        return head(x.mean((2, 3)))


def make(family: str) -> Theirs:
    torch.manual_seed(0)
    theirs = Theirs(family=family)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):  # nothing may be equal in all channels
            for values in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                values.uniform_(0.5, 1.5)
    return theirs.eval()


def logits_of_ours(theirs: Theirs, name: str, images: Tensor) -> Tensor:
    ours = build(adapt(ResNet(depth=DEPTH), name), num_classes=CLASSES)
    state = {key: value for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
    ours.load_state_dict(translate(state, name=name, like=ours.state_dict()))
    return ours.eval()(images)


class Torchvisions(nn.Module):
    """A ResNet-18 or 50 with torchvision's names and shapes; bottlenecks halve the sides in their 3x3 convolution."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.counts = (2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3)
        times = 1 if depth == 18 else 4
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        inputs = 64
        for stage, count in enumerate(self.counts):
            inner, blocks = 64 * 2**stage, []
            for place in range(count):
                stride = 2 if stage and not place else 1
                block = nn.Module()
                sizes = [(3, stride), (3, 1)] if times == 1 else [(1, 1), (3, stride), (1, 1)]
                before = inputs
                for number, (side, step) in enumerate(sizes, 1):
                    after = inner * times if number == len(sizes) else inner
                    conv = nn.Conv2d(before, after, side, step, side // 2, bias=False)
                    block.add_module(f"conv{number}", conv)
                    block.add_module(f"bn{number}", nn.BatchNorm2d(after))
                    before = after
                if stride == 2 or inputs != inner * times:
                    conv = nn.Conv2d(inputs, inner * times, 1, stride, bias=False)
                    block.downsample = nn.Sequential(conv, nn.BatchNorm2d(inner * times))
                blocks.append(block)
                inputs = inner * times
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, 5):
            for block in self.get_submodule(f"layer{stage}").children():
                hidden = x
                last = 3 if hasattr(block, "conv3") else 2
                for number in range(1, last + 1):
                    hidden = block.get_submodule(f"bn{number}")(block.get_submodule(f"conv{number}")(hidden))
                    hidden = F.relu(hidden) if number < last else hidden
                x = F.relu(hidden + (block.downsample(x) if hasattr(block, "downsample") else x))
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("depth", [18, 50])
@torch.no_grad()
def test_torchvisions_networks_are_read_as_they_are(depth):
    torch.manual_seed(0)
    theirs, images = Torchvisions(depth).eval(), torch.randn(2, 3, 64, 64)
    ours = build(adapt(MODELS[f"resnet{depth}"], "torchvision"), num_classes=CLASSES)
    ours.load_state_dict(translate(theirs.state_dict(), name="torchvision", like=ours.state_dict()))
    torch.testing.assert_close(ours.eval()(images), theirs(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", ["akamaster", "chenyaofo"])
@torch.no_grad()
def test_logits_are_those_of_the_foreign_network(family):
    theirs, images = make(family), torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(logits_of_ours(theirs, family, images), theirs(images), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_in_order_akamaster_s_shapes_fit_and_the_logits_do_not():
    theirs, images = make("akamaster"), torch.randn(4, 3, 32, 32)
    assert not torch.allclose(logits_of_ours(theirs, "order", images), theirs(images), rtol=0.1, atol=0.1)


def test_what_does_not_fit_is_named():
    ours, theirs = build(ResNet(depth=20), num_classes=CLASSES), make("akamaster").state_dict()
    with pytest.raises(UserError, match=r"by --map akamaster: missing .*blocks\..*unknown none: name another"):
        translate(theirs, name="akamaster", like=ours.state_dict())
    with pytest.raises(UserError, match=r"the file has .* tensors, the network"):
        translate(theirs, name="order", like=ours.state_dict())
    with pytest.raises(UserError, match="--map akamast: did you mean 'akamaster'"):
        adapt(ResNet(depth=20), "akamast")


def test_what_akamaster_s_map_cannot_permute_is_named():
    ours = build(adapt(ResNet(depth=DEPTH), "akamaster"), num_classes=CLASSES).state_dict()
    sound = make("akamaster").state_dict()
    narrow = sound | {"layer2.0.conv2.weight": torch.zeros(8, 32, 3, 3)}
    endless = sound | {f"layer{'9' * 5000}.0.conv1.weight": torch.zeros(1)}
    for tensors in ({}, make("chenyaofo").state_dict(), sound | {"more.conv1.weight": torch.zeros(1)}, endless):
        with pytest.raises(UserError, match="the tensors do not fit the network by --map akamaster: missing"):
            translate(tensors, name="akamaster", like=ours)
    with pytest.raises(UserError, match=r"blocks\.2\.conv2\.weight has the shape \(8, 32, 3, 3\), the network needs"):
        translate(narrow, name="akamaster", like=ours)
    with pytest.raises(UserError, match="--map akamaster is not for vgg19: name --model resnet20 to resnet110"):
        adapt(MODELS["vgg19"], "akamaster")
