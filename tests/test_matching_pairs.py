"""Architectures that everyone knows, by the names of two libraries: matched right, or refused.

The Keras side has the names of `keras.applications`, the other side those of torchvision; both are
small. Each match is proven by the outputs of both.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from torch import nn

import kerasport
from fitting import assert_outputs, drawn, wanted
from kerasport.errors import UnsupportedError
from kerasport.matching import Found, Wanted, match
from kerasport.naming import named
from kerasport.units import groups

L = keras.layers
EPSILON = 1e-3


def image(*shape: int) -> Any:
    return np.random.default_rng(7).normal(size=(2, *shape)).astype(np.float32)


def conv_bn(x: Any, channels: int, size: int, conv: str, norm: str, **options: Any) -> Any:
    x = L.Conv2D(channels, size, padding="same", name=conv, **options)(x)
    return L.BatchNormalization(epsilon=EPSILON, name=norm)(x)


def batch_norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=EPSILON)


# ------------------------------------------------------------------------------------- a ResNet


def keras_resnet(*, use_bias: bool = True) -> keras.Model:
    """Two stages of two blocks, the first stage as wide inside as out of the stem."""

    def block(x: Any, width: int, name: str, *, shortcut: bool) -> Any:
        own = {"use_bias": use_bias}
        start = x
        if shortcut:
            start = conv_bn(x, 2 * width, 1, f"{name}_0_conv", f"{name}_0_bn", **own)
        for n, (channels, size) in enumerate([(width, 1), (width, 3), (2 * width, 1)], 1):
            x = conv_bn(x, channels, size, f"{name}_{n}_conv", f"{name}_{n}_bn", **own)
            x = L.ReLU()(x) if n < 3 else x
        return L.ReLU()(L.add([start, x]))

    inputs = x = keras.Input((6, 6, 3))
    x = L.ReLU()(conv_bn(x, 4, 3, "conv1_conv", "conv1_bn", use_bias=use_bias))
    for stage, width in ((2, 4), (3, 8)):
        for n in (1, 2):
            x = block(x, width, f"conv{stage}_block{n}", shortcut=n == 1)
    x = L.Dense(5, name="predictions")(L.GlobalAveragePooling2D()(x))
    return drawn(keras.Model(inputs, x))


class Bottleneck(nn.Module):  # type: ignore[misc]
    def __init__(self, inputs: int, width: int, *, shortcut: bool, bias: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=bias), batch_norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=bias)
        self.bn2 = batch_norm(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 2 * width, 1, bias=bias), batch_norm(2 * width)
        self.downsample = nn.Identity()
        if shortcut:
            conv = nn.Conv2d(inputs, 2 * width, 1, bias=bias)
            self.downsample = nn.Sequential(conv, batch_norm(2 * width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + self.downsample(x)).relu()


class ResNet(nn.Module):  # type: ignore[misc]
    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=bias), batch_norm(4)
        self.layer1 = nn.Sequential(
            Bottleneck(4, 4, shortcut=True, bias=bias), Bottleneck(8, 4, shortcut=False, bias=bias)
        )
        self.layer2 = nn.Sequential(
            Bottleneck(8, 8, shortcut=True, bias=bias), Bottleneck(16, 8, shortcut=False, bias=bias)
        )
        self.fc = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer2(self.layer1(self.bn1(self.conv1(x)).relu()))
        return self.fc(x.mean((2, 3)))


RESNET = {
    "conv1": "conv1_conv",
    "bn1": "conv1_bn",
    **{f"layer{{n-1}}.{{m-1}}.conv{k}": f"conv{{n}}_block{{m}}_{k}_conv" for k in (1, 2, 3)},
    **{f"layer{{n-1}}.{{m-1}}.bn{k}": f"conv{{n}}_block{{m}}_{k}_bn" for k in (1, 2, 3)},
    "layer{n-1}.0.downsample.0": "conv{n}_block1_0_conv",
    "layer{n-1}.0.downsample.1": "conv{n}_block1_0_bn",
    "fc": "predictions",
}


def test_two_branches_are_told_apart_by_what_feeds_them(tmp_path: Path) -> None:
    """The shortcut has the shape of the third convolution, and neither comes before the other."""
    names = assert_outputs(keras_resnet(), ResNet(), tmp_path, image(6, 6, 3))
    assert names.to_json()["names"] == RESNET


def test_neighbours_settle_what_a_file_in_no_order_leaves_open() -> None:
    target = sorted(wanted(ResNet()), key=lambda tensor: (len(tensor.shape), tensor.name))
    source = kerasport.read(keras_resnet())
    found = match(source, groups(source), target, ordered=False)
    assert {e.target: e.sources[0] for e in named(found, source).entries} == RESNET


# ----------------------------------------------------------------------------------- a MobileNet


def keras_mobilenet() -> keras.Model:
    """A stem, a block without expansion, and three with."""
    inputs = x = keras.Input((6, 6, 3))
    x = L.ReLU()(conv_bn(x, 4, 3, "Conv1", "bn_Conv1", use_bias=False))

    def depthwise(x: Any, name: str) -> Any:
        x = L.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
        return L.ReLU()(L.BatchNormalization(epsilon=EPSILON, name=f"{name}_depthwise_BN")(x))

    def project(x: Any, channels: int, name: str) -> Any:
        own = (f"{name}_project", f"{name}_project_BN")
        return conv_bn(x, channels, 1, *own, use_bias=False)

    x = project(depthwise(x, "expanded_conv"), 2, "expanded_conv")
    for n, channels in ((1, 3), (2, 3), (3, 4)):
        name = f"block_{n}"
        y = conv_bn(x, 2 * x.shape[-1], 1, f"{name}_expand", f"{name}_expand_BN", use_bias=False)
        y = project(depthwise(L.ReLU()(y), name), channels, name)
        x = L.add([x, y]) if x.shape[-1] == channels else y
    x = L.ReLU()(conv_bn(x, 7, 1, "Conv_1", "Conv_1_bn", use_bias=False))
    x = L.Dense(5, name="predictions")(L.GlobalAveragePooling2D()(x))
    return drawn(keras.Model(inputs, x))


def conv_norm(inputs: int, outputs: int, size: int, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False)
    return [conv, batch_norm(outputs)]


class Inverted(nn.Module):  # type: ignore[misc]
    def __init__(self, inputs: int, outputs: int, *, expand: bool) -> None:
        super().__init__()
        wide = 2 * inputs if expand else inputs
        layers = [nn.Sequential(*conv_norm(inputs, wide, 1), nn.ReLU())] if expand else []
        layers.append(nn.Sequential(*conv_norm(wide, wide, 3, groups=wide), nn.ReLU()))
        self.conv = nn.Sequential(*layers, *conv_norm(wide, outputs, 1))
        self.same = expand and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.same else self.conv(x)


class MobileNet(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Sequential(*conv_norm(3, 4, 3), nn.ReLU()),
            Inverted(4, 2, expand=False),
            Inverted(2, 3, expand=True),
            Inverted(3, 3, expand=True),
            Inverted(3, 4, expand=True),
            nn.Sequential(*conv_norm(4, 7, 1), nn.ReLU()),
        )
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(7, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def test_a_word_that_most_have_in_common_does_not_go_before_order(tmp_path: Path) -> None:
    """`bn_Conv1` is the first of its width, whatever else is called `conv`."""
    names = assert_outputs(keras_mobilenet(), MobileNet(), tmp_path, image(6, 6, 3))
    assert names.to_json()["names"] == {
        "features.0.0": "Conv1",
        "features.0.1": "bn_Conv1",
        "features.1.conv.0.0": "expanded_conv_depthwise",
        "features.1.conv.0.1": "expanded_conv_depthwise_BN",
        "features.1.conv.1": "expanded_conv_project",
        "features.1.conv.2": "expanded_conv_project_BN",
        "features.{n+1}.conv.0.0": "block_{n}_expand",
        "features.{n+1}.conv.0.1": "block_{n}_expand_BN",
        "features.{n+1}.conv.1.0": "block_{n}_depthwise",
        "features.{n+1}.conv.1.1": "block_{n}_depthwise_BN",
        "features.{n+1}.conv.2": "block_{n}_project",
        "features.{n+1}.conv.3": "block_{n}_project_BN",
        "features.5.0": "Conv_1",
        "features.5.1": "Conv_1_bn",
        "classifier.1": "predictions",
    }


# ------------------------------------------------------------------------------------------ a VGG


@pytest.mark.parametrize("flat", [False, True])
def test_layers_of_numbered_blocks_go_into_one_numbered_list(flat: bool, tmp_path: Path) -> None:
    """Blocks that the other side has not say nothing; what lies behind a Flatten is reordered."""
    layers: list[Any] = []
    torch_layers: list[nn.Module] = []
    inputs = 3
    for block, channels in enumerate((4, 5, 5, 5), 1):
        for n in (1, 2, 3):
            name = f"block{block}_conv{n}"
            layers.append(L.Conv2D(channels, 3, padding="same", activation="relu", name=name))
            torch_layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU()]
            inputs = channels
        layers.append(L.MaxPooling2D(name=f"block{block}_pool"))
        torch_layers.append(nn.MaxPool2d(2))
    layers += [L.Flatten() if flat else L.GlobalAveragePooling2D(), L.Dense(9, "relu", name="fc1")]
    layers += [L.Dense(9, "relu", name="fc2"), L.Dense(6, name="predictions")]

    class Vgg(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(*torch_layers)
            first = nn.Linear(20 if flat else 5, 9)
            rest = (nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 6))
            self.classifier = nn.Sequential(first, *rest)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.features(x)
            return self.classifier(x.flatten(1) if flat else x.mean((2, 3)))

    source = drawn(keras.Sequential([keras.Input((32, 32, 3)), *layers]))
    assert_outputs(source, Vgg(), tmp_path, image(32, 32, 3))


# -------------------------------------------------------------------------------------- a WaveNet


def keras_wavenet(depth: int) -> keras.Model:
    """Two gates that neither names nor order tell apart, and skips that stand side by side."""
    inputs = x = keras.Input((8, 4))
    skips = []
    for n in range(depth):
        gate = L.Conv1D(4, 2, padding="causal", activation="sigmoid", name=f"sigmoid_{n}")(x)
        x_ = L.Conv1D(4, 2, padding="causal", activation="tanh", name=f"tanh_{n}")(x)
        x_ = L.multiply([x_, gate])
        skips.append(L.Conv1D(4, 1, name=f"skip_{n}")(x_))
        if n + 1 < depth:
            x = L.add([x, L.Conv1D(4, 1, name=f"res_{n}")(x_)])
    return drawn(keras.Model(inputs, L.add(skips)))


class WaveNet(nn.Module):  # type: ignore[misc]
    """A list for each kind of layer; the last of `residuals` is never called."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.filters = nn.ModuleList(nn.Conv1d(4, 4, 2) for _ in range(depth))
        self.gates = nn.ModuleList(nn.Conv1d(4, 4, 2) for _ in range(depth))
        self.residuals = nn.ModuleList(nn.Conv1d(4, 4, 1) for _ in range(depth))
        self.skips = nn.ModuleList(nn.Conv1d(4, 4, 1) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, skips = x.transpose(1, 2), torch.zeros(())
        for layers in zip(self.filters, self.gates, self.residuals, self.skips, strict=True):
            filtered, gate, residual, skip = layers
            padded = nn.functional.pad(x, (1, 0))
            y = filtered(padded).tanh() * gate(padded).sigmoid()
            skips, x = skips + skip(y), x + residual(y)
        return skips.transpose(1, 2)


def test_one_hint_settles_what_is_open_in_every_block(tmp_path: Path) -> None:
    source, module = keras_wavenet(3), WaveNet(3)
    options: dict[str, Any] = {"keep": ["residuals.2.*"]}
    with pytest.raises(UnsupportedError, match=r"say it with --hint 'tanh_\*=filters\.\*'"):
        kerasport.match(source, wanted(module), **options)
    options["hints"] = {"tanh_*": "filters.*"}
    x = np.random.default_rng(1).normal(size=(2, 8, 4)).astype(np.float32)
    names = assert_outputs(source, module, tmp_path, x, **options)
    assert names.to_json()["names"] == {
        "filters.{n}": "tanh_{n}",
        "gates.{n}": "sigmoid_{n}",
        "residuals.{n}": "res_{n}",
        "skips.{n}": "skip_{n}",
    }


def test_what_is_kept_is_no_pattern_of_weights(tmp_path: Path) -> None:
    """`residuals.*.bias` would be every block's, and the way back would miss them."""
    source, module = keras_wavenet(3), WaveNet(3)
    names = kerasport.match(
        source, wanted(module), keep=["residuals.2.*"], hints={"tanh_*": "filters.*"}
    )
    assert names.kept == ("residuals.2.weight", "residuals.2.bias")
    torch.save(module.state_dict(), tmp_path / "own.pt")
    source.save(tmp_path / "m.keras")
    like = tmp_path / "m.keras"
    kerasport.convert(
        like, tmp_path / "x.safetensors", to="torch", names=names, into=tmp_path / "own.pt"
    )
    wide = replace(names, kept=("residuals.*",))
    for own in (names, wide):
        kerasport.convert(
            tmp_path / "x.safetensors", tmp_path / "y.keras", to="keras", like=like, names=own
        )
        assert (tmp_path / "y.keras").read_bytes() == like.read_bytes()


class Branches(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        for n in (1, 2):
            setattr(self, f"branch{n}", nn.ModuleDict({"conv": nn.Conv2d(3, 3, 3, padding=1)}))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.branch1["conv"](x).tanh() + self.branch2["conv"](x)


def test_numbers_that_keras_gives_by_itself_tell_no_branch() -> None:
    """They are of the order in which the layers were made, and a branch has a number of its own."""
    x = keras.Input((5, 4, 3))
    one, two = (L.Conv2D(3, 3, padding="same", name=f"conv2d_{n}")(x) for n in (1, 2))
    source = drawn(keras.Model(x, L.add([one, L.Activation("tanh")(two)])))
    with pytest.raises(UnsupportedError, match="in more than one way"):
        kerasport.match(source, wanted(Branches()))


@pytest.mark.parametrize("make", [(keras_resnet, ResNet), (keras_mobilenet, MobileNet)])
def test_a_module_made_in_any_order_is_never_matched_wrong(make: Any) -> None:
    """Whoever makes `bn2` before `bn1` says two things: what is beside them settles it, or none."""
    made, module = make[0](), make[1]()
    source = kerasport.read(made)
    found = groups(source)
    straight = wanted(module)
    truth = names_of(match(source, found, straight, ordered=True))
    rng = random.Random(2)
    right = 0
    for _ in range(16):
        tops: dict[str, list[Wanted]] = {}
        for tensor in straight:
            tops.setdefault(tensor.name.rpartition(".")[0], []).append(tensor)
        keys = list(tops)
        for _ in range(rng.choice([1, 2, 5, 50])):
            n = rng.randrange(len(keys) - 1)
            keys[n], keys[n + 1] = keys[n + 1], keys[n]
        target = [tensor for key in keys for tensor in tops[key]]
        with contextlib.suppress(UnsupportedError):
            assert names_of(match(source, found, target, ordered=True)) == truth
            right += 1
    assert right


def names_of(found: Found) -> dict[str, str]:
    return {pair.module: pair.unit.path for pair in found.pairs}
