"""Networks with units to be masked, of every make a submodel must cope with."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from avalanche.models import IncrementalClassifier
from relevance_nets import conv_net
from torch import nn
from torch.nn.functional import relu
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vgg import VGG, make_layers

from avalanche_ext.models import BatchRenorm2d, CifarResNet, FeatureClassifier
from avalanche_ext.models.linear_head import linear_head_name
from avalanche_ext.models.unit_layers import mask_sites

N_CLASSES, SHAPE = 6, (3, 8, 8)


def block(n_in, n_out, norm=nn.BatchNorm2d, groups=1, inplace=True):
    conv = nn.Conv2d(n_in, n_out, 3, padding=1, groups=groups, bias=False)
    return nn.Sequential(conv, norm(n_out), nn.ReLU(inplace))


def mlp():
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(192, 12),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Linear(12, 8),
        nn.ReLU(inplace=True),
        nn.Linear(8, N_CLASSES),
    )


def cnn(norm=nn.BatchNorm2d):
    head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, N_CLASSES))
    return nn.Sequential(block(3, 4, norm), nn.MaxPool2d(2), block(4, 5, norm), *head)


def depthwise():
    layers = (block(3, 4), block(4, 8, groups=4), block(8, 5))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(320, N_CLASSES))


def vgg():
    with torch.device("meta"):  # its own classifier is large
        net = VGG(nn.Identity())
    net.features = make_layers([4, "M", 8, 8, "M"])
    net.classifier = nn.Sequential(
        nn.Linear(8 * 49, 10),
        nn.ReLU(inplace=True),
        nn.Dropout(inplace=True),
        nn.Linear(10, N_CLASSES),
    )
    return net


class NarrowResNet(ResNet):
    """torchvision's, with a sixteenth of the channels behind the stem."""

    def __init__(self):
        super().__init__(BasicBlock, [1, 1, 1, 1])
        self.fc = nn.Linear(32, N_CLASSES)

    def _make_layer(self, block, planes, *args, **options):
        return super()._make_layer(block, planes // 16, *args, **options)


def cifar_resnet():
    return FeatureClassifier(CifarResNet(2, width=4), nn.Linear(16, N_CLASSES))


def incremental():
    head = IncrementalClassifier(16, N_CLASSES)
    head.active_units[:] = 1
    return FeatureClassifier(CifarResNet(1, width=4), head)


class Odd(nn.Module):
    """Functional, with branches, sums in place, registered from the end."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(9, N_CLASSES)
        self.mixed = nn.Linear(8, 9)
        self.bn2 = nn.BatchNorm2d(4)
        self.bn1 = nn.BatchNorm2d(4)
        self.overwrite = nn.ReLU(inplace=True)
        self.right = nn.Conv2d(4, 4, 1)
        self.left = nn.Conv2d(4, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x, scale=None):
        x = self.bn1(self.conv1(x))
        y = self.conv2(self.overwrite(x))  # x is overwritten, too
        y = self.bn2(y)
        y += x
        y = torch.cat([relu(self.left(y)), self.right(y)], 1)
        y = relu(self.mixed(y.flatten(2).transpose(1, 2)))  # a sequence
        return self.head(y.mean(1))


class PreActivated(nn.Module):
    """The first convolution feeds a norm layer and a sum."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, N_CLASSES)

    def forward(self, x):
        x = self.stem(x)
        y = self.conv1(self.bn1(x).relu_())
        return self.head((x + self.conv2(self.bn2(y).relu_())).mean((2, 3)))


class Chained(nn.Module):
    """Chains that share their activation, and write into what they get."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        act = nn.ReLU(inplace=True)
        convs = [nn.Conv2d(4, 4, 3, padding=1) for _ in range(4)]
        drop = nn.Dropout(inplace=True)
        self.first = nn.Sequential(act, convs[0], act, drop, convs[1])
        self.second = nn.Sequential(nn.Dropout(), act, convs[2], nn.Identity(), act)
        self.third = nn.Sequential(convs[3], act, nn.MaxPool2d(2))
        self.head = nn.Linear(4, N_CLASSES)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.first(x)
        x = x - self.second(x)
        return self.head(self.third(x).mean((2, 3)))


HOSTS = {
    "mlp": mlp,
    "cnn": cnn,
    "renorm": lambda: cnn(BatchRenorm2d),
    "depthwise": depthwise,
    "vgg": vgg,
    "resnet": NarrowResNet,
    "cifar_resnet": cifar_resnet,
    "incremental": incremental,
    "odd": Odd,
    "chained": Chained,
    "pre_activated": PreActivated,
}


def host(name, dtype=torch.float32):
    """A network in training mode with norm layers that do something, and images."""
    torch.manual_seed(3)
    net = HOSTS[name]().to(dtype)
    for module in net.modules():
        if hasattr(module, "running_mean"):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    x = torch.randn(16, *SHAPE, dtype=dtype)
    net.train()
    with torch.no_grad():
        for _ in range(3):
            net(x)
    return net, x


def place(net, x, **options):
    """Names of head and sites, as arguments."""
    return {
        "head": linear_head_name(net, "head" if hasattr(net, "head") else None),
        "sites": mask_sites(net, x[:2], **options),
    }


def random_keep(net, head, n_classes, rng, share=0.6):
    """Some units of every layer, at least one."""
    keep = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            n = n_classes if name == head else len(module.weight)
            keep[name] = torch.rand(n, generator=rng) < share
            keep[name][0] = True
    return keep


def plainly(net, x, keep, classes, head, sites):
    """Logits of the classes with units set to 0 by hooks: the slow restatement."""

    def zero(off, axis):
        return lambda module, args, out: out.index_fill(axis, off, 0)

    modes = {m: m.training for m in net.modules()}
    with ExitStack() as stack, torch.no_grad():
        for name, mask in keep.items():
            off = (~mask).nonzero().flatten()
            if name == head:
                off = torch.tensor(classes)[off]
            site = net.get_submodule(sites[name])
            axis = -1 if isinstance(site, nn.Linear) else 1
            stack.enter_context(site.register_forward_hook(zero(off, axis)))
        out = net.eval()(x)
    for module, mode in modes.items():
        module.training = mode
    return out[:, list(classes)]


def authors_network(golden, prefix="model."):
    """Network, masks and classes of a golden file."""
    state = {k[len(prefix) :]: v for k, v in golden.items() if k.startswith(prefix)}
    net = conv_net(state)
    offsets, sizes = golden["offsets"].tolist(), golden["classes"].tolist()
    classes = [tuple(range(o, o + n)) for o, n in zip(offsets, sizes)]
    names = ("conv1", "conv2", "fc1", "fc")
    keeps = [
        {n: golden[f"keep.{k}.{n}"].bool() for n in names}
        for k in range(len(classes))
        if f"keep.{k}.fc" in golden
    ]
    return net, keeps, classes, {"head": "fc", "sites": {n: n for n in names}}
