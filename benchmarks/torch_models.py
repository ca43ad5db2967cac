"""The networks of this package in PyTorch, for comparison of speed.

The layers are those of chainer_crossbn.models at full width, without dropout. Batch
normalization follows each convolution.
"""

import torch
from torch import nn

VGG_STAGES = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))
ALEXNET = (  # inputs, outputs, ksize, stride, pad, groups, pooled
    (3, 96, 11, 4, 2, 1, True),
    (96, 256, 5, 1, 2, 2, True),
    (256, 384, 3, 1, 1, 1, False),
    (384, 384, 3, 1, 1, 2, False),
    (384, 256, 3, 1, 1, 2, True),
)
SMALL_BLOCKS = {"resnet20": 3, "resnet56": 9, "resnet110": 18}
BLOCKS = {
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
INCEPTIONS = (  # each row a stage, behind max pooling but for the first
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


def conv(n_in, n_out, ksize, relu=True, **options):
    options = {"padding": 0, "bias": False, **options}
    layers = [nn.Conv2d(n_in, n_out, ksize, **options), nn.BatchNorm2d(n_out)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


def fully_connected(n_in, units, n_class):
    relu = nn.ReLU(inplace=True)
    hidden = nn.Linear(n_in, units), relu, nn.Linear(units, units), relu
    return [nn.Flatten(), *hidden, nn.Linear(units, n_class)]


def averaged(n_in, n_class):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, n_class)]


def vgg16(n_class, width, fc_units):
    layers, channels = [], 3
    for stage in VGG_STAGES:
        for multiple in stage:
            layers.append(conv(channels, multiple * width, 3, padding=1))
            channels = multiple * width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, *fully_connected(channels, fc_units, n_class))


def alexnet(n_class):
    layers = []
    for n_in, n_out, ksize, stride, pad, groups, pooled in ALEXNET:
        options = {"stride": stride, "padding": pad, "groups": groups}
        layers.append(conv(n_in, n_out, ksize, **options))
        if pooled:
            layers.append(nn.MaxPool2d(3, 2))
    return nn.Sequential(*layers, *fully_connected(256 * 6 * 6, 4096, n_class))


class Residual(nn.Module):
    def __init__(self, body, shortcut):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


class Widen(nn.Module):
    """Option A: every second position, and zeros for the new channels."""

    def forward(self, x):
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, x.shape[1]))


def small_resnet(name, n_class, width=16):
    layers, channels = [conv(3, width, 3, padding=1)], width
    for multiple in (1, 2, 4):
        for i in range(SMALL_BLOCKS[name]):
            out, narrow = multiple * width, i == 0 and multiple > 1
            body = nn.Sequential(
                conv(channels, out, 3, stride=2 if narrow else 1, padding=1),
                conv(out, out, 3, padding=1, relu=False),
            )
            layers.append(Residual(body, Widen() if narrow else nn.Identity()))
            channels = out
    return nn.Sequential(*layers, *averaged(channels, n_class))


def resnet(name, n_class, width=64):
    layers = [conv(3, width, 7, stride=2, padding=3), nn.MaxPool2d(3, 2, 1)]
    n_in = width
    for stage, n_blocks in enumerate(BLOCKS[name]):
        channels = width * 2**stage
        out = 4 * channels
        for i in range(n_blocks):
            stride = 2 if i == 0 and stage > 0 else 1
            body = nn.Sequential(
                conv(n_in, channels, 1, stride=stride),
                conv(channels, channels, 3, padding=1),
                conv(channels, out, 1, relu=False),
            )
            projection = conv(n_in, out, 1, stride=stride, relu=False)
            layers.append(Residual(body, nn.Identity() if i else projection))
            n_in = out
    return nn.Sequential(*layers, *averaged(n_in, n_class))


class Inception(nn.Module):
    def __init__(self, n_in, out1, reduce3, out3, reduce5, out5, projection):
        super().__init__()
        self.branches = nn.ModuleList(
            [
                conv(n_in, out1, 1),
                nn.Sequential(
                    conv(n_in, reduce3, 1), conv(reduce3, out3, 3, padding=1)
                ),
                nn.Sequential(
                    conv(n_in, reduce5, 1), conv(reduce5, out5, 5, padding=2)
                ),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(n_in, projection, 1)),
            ]
        )

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


def googlenet(n_class):
    def pool():
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    layers = [conv(3, 64, 7, stride=2, padding=3), pool()]
    layers += [conv(64, 64, 1), conv(64, 192, 3, padding=1), pool()]
    n_in = 192
    for stage, modules in enumerate(INCEPTIONS):
        if stage:
            layers.append(pool())
        for sizes in modules:
            layers.append(Inception(n_in, *sizes))
            n_in = sizes[0] + sizes[2] + sizes[4] + sizes[5]
    return nn.Sequential(*layers, *averaged(n_in, n_class))


def create(name, n_class, width, fc_units):
    """Create a network; width and units are of VGG16 alone."""
    if name == "vgg16":
        return vgg16(n_class, width, fc_units)
    if name in SMALL_BLOCKS:
        return small_resnet(name, n_class)
    if name in BLOCKS:
        return resnet(name, n_class)
    return {"alexnet": alexnet, "googlenet": googlenet}[name](n_class)
