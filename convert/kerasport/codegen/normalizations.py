"""Layers that shift and scale: normalizations, and the preprocessing that is one."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from typing import Any

from kerasport.codegen.body import Case
from kerasport.codegen.text import call, literal
from kerasport.codegen.values import Value
from kerasport.errors import UnsupportedError

JSON = Any
Result = Value | tuple[Value, ...]


def batch_normalization(c: Case) -> Value:
    """Batch normalization over any one axis."""
    axis = c.o("axis", -1)
    axis = axis[0] if isinstance(axis, list) else axis
    x = c.fed(c.x, "channel")
    rank = c.rank(x)
    axis = int(axis) % rank
    order = (0, axis, *(n for n in range(1, rank) if n != axis))
    x = x.at(order) if rank > 2 else x
    if c.layer is not None and c.layer.kind not in (None, "BatchNormalization"):
        raise UnsupportedError(f"{c.path}: batches normalized over several axes, or renormalized")
    affine = bool(c.o("scale", True)) or bool(c.o("center", True))
    width = c.tensors["running_mean"][0] if "running_mean" in c.tensors else c.channels(axis)
    if not 2 <= rank <= 5:
        raise UnsupportedError(f"{c.path}: normalizing batches of {rank} dimensions")
    momentum = float(1 - Decimal(repr(float(c.o("momentum", 0.99)))))
    module = call(
        f"nn.BatchNorm{max(rank - 2, 1)}d",
        str(width),
        eps=literal(float(c.o("epsilon", 1e-3))),
        momentum=literal(momentum),
        affine=None if affine else "False",
    )
    return replace(x, text=f"{c.module(module)}({x.text})")


def layer_normalization(c: Case) -> Value:
    """Layer normalization over any axes."""
    axis = c.o("axis", -1)
    listed = axis if isinstance(axis, list | tuple) else [axis]
    last = [int(n) for n in listed] == [-1]
    x = c.fed(c.x, "channel")
    if last and x.rank is None:
        order: tuple[int, ...] = ()
        x = x.straight()
        axes = [-1]
    else:
        rank = c.rank(x)
        axes = [int(n) % rank for n in listed]
        if axes != sorted(axes):
            raise UnsupportedError(
                f"{c.path}: normalizes axes counted from both ends, whose weights Keras lays out "
                "in another order than it applies them"
            )
        order = (*(n for n in range(rank) if n not in axes), *axes)
        x = x.at(order)
    scale, center = bool(c.o("scale", True)), bool(c.o("center", True))
    sizes = c.tensors.get("weight") or tuple(c.channels(axis) for axis in axes)
    shown = str(sizes[0]) if len(sizes) == 1 else literal(tuple(sizes))
    eps = literal(float(c.o("epsilon", 1e-3)))
    if c.o("rms_scaling"):
        module = call("VarianceNorm", *map(str, sizes), eps=eps)
    else:
        module = call(
            "nn.LayerNorm",
            shown,
            eps=eps,
            elementwise_affine=None if scale or center else "False",
            bias="False" if scale and not center else None,
        )
    return replace(x, text=f"{c.module(module)}({x.text})")


def group_normalization(c: Case) -> Value:
    """Group normalization."""
    x = c.fed(c.x, "channel")
    rank = c.rank(x)
    axis = int(c.o("axis", -1)) % rank
    x = x.at((0, axis, *(n for n in range(1, rank) if n != axis)))
    width = c.tensors["weight"][0] if "weight" in c.tensors else c.channels(axis)
    groups = int(c.o("groups", 32))
    affine = bool(c.o("scale", True)) or bool(c.o("center", True))
    module = call(
        "nn.GroupNorm",
        str(width if groups == -1 else groups),
        str(width),
        eps=literal(float(c.o("epsilon", 1e-3))),
        affine=None if affine else "False",
    )
    return replace(x, text=f"{c.module(module)}({x.text})")


def rms_normalization(c: Case) -> Value:
    """Division by the root of the mean square."""
    axis = c.o("axis", -1)
    x = c.fed(c.x, "channel")
    if axis != -1:
        rank = c.rank(x)
        axes = [int(n) % rank for n in (axis if isinstance(axis, list) else [axis])]
        x = x.at((*(n for n in range(rank) if n not in axes), *axes))
    else:
        x = x.straight()
    sizes = c.tensors.get("weight") or (c.channels(),)
    shown = str(sizes[0]) if len(sizes) == 1 else literal(tuple(sizes))
    module = call("nn.RMSNorm", shown, eps=literal(float(c.o("epsilon", 1e-6))))
    return replace(x, text=f"{c.module(module)}({x.text})")


def unit_normalization(c: Case) -> Value:
    """Division by the length."""
    axis = c.o("axis", -1)
    x = c.body.natural(c.x)
    axes = [int(n) for n in (axis if isinstance(axis, list) else [axis])]
    dims = [x.axis(n) for n in axes]
    if len(dims) == 1:
        return replace(x, text=f"F.normalize({x.text}, dim={dims[0]}, eps=1e-06)")
    x = c.once(x)
    norm = f"{x.text}.square().sum({literal(tuple(dims))}, keepdim=True)"
    return replace(x, text=f"{x.text} * torch.rsqrt({norm}.clamp(min=1e-12))")


def normalization(c: Case) -> Value:
    """The preprocessing layer, whose statistics are weights or options."""
    axis = c.o.given.get("axis", -1)
    x = c.plain(c.x)
    shape = c.tensors.get("mean")
    if shape is None:
        means, variances = numbers(c.o("mean")), numbers(c.o("variance"))
        if means is None or variances is None or len(means) != len(variances):
            raise UnsupportedError(f"{c.path}: the statistics of this Normalization")
        return normalized(c, means, [max(math.sqrt(n), 1e-7) for n in variances])
    if axis is None:
        axes: list[int] = []
    else:
        rank = c.rank(x)
        axes = [int(n) % rank for n in (axis if isinstance(axis, list | tuple) else [axis])]
    module = c.module(call("Normalization", *map(str, shape)))
    rest = [n for n in range(c.rank(x)) if n not in axes]
    x = x.at((*rest, *axes))
    return replace(x, text=f"{module}({x.text})")


def numbers(written: JSON) -> list[float] | None:
    """The numbers in an option that has one or a nested list of them."""
    if isinstance(written, list):
        parts = [numbers(item) for item in written]
        return [n for part in parts for n in part or []] if None not in parts else None
    return [float(written)] if isinstance(written, int | float) else None


def normalized(c: Case, means: list[float], deviations: list[float]) -> Value:
    """What a Normalization does whose statistics are options."""
    x = c.body.natural(c.x)
    if len(means) == 1:
        mean, deviation = literal(means[0]), literal(deviations[0])
    else:
        axis = c.o("axis", -1)
        axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
        rank = c.rank(x)
        if not isinstance(axis, int):
            raise UnsupportedError(f"{c.path}: statistics along several axes")
        x = c.once(x)
        rest = ", 1" * (rank - 1 - x.axis(axis % rank))
        mean, deviation = (
            f"{x.text}.new_tensor({literal(values)})" + (f".reshape(-1{rest})" if rest else "")
            for values in (means, deviations)
        )
    if c.o("invert"):
        return replace(x, text=f"{x.text} * {deviation} + {mean}")
    return replace(x, text=f"({x.text} - {mean}) / {deviation}")


def layer_scale(c: Case) -> Value:
    """A factor a channel, as in ConvNeXt."""
    x = c.plain(c.x)
    width = next(iter(c.tensors.values()))[0] if c.tensors else c.channels()
    return replace(x, text=f"{c.module(call('LayerScale', str(width)))}({x.text})")


def rescaling(c: Case) -> Value:
    """A factor and an offset."""
    x = c.x
    scale, offset = c.o("scale", 1.0), c.o("offset", 0.0)
    if isinstance(scale, list) or isinstance(offset, list):
        x = c.plain(x)
        size = max(len(n) if isinstance(n, list) else 1 for n in (scale, offset))
        scales = scale if isinstance(scale, list) else [scale] * size
        offsets = offset if isinstance(offset, list) else [offset] * size
        x = c.once(x)
        factors = f"{x.text}.new_tensor({literal([float(n) for n in scales])})"
        terms = f"{x.text}.new_tensor({literal([float(n) for n in offsets])})"
        return replace(x, text=f"{x.text} * {factors} + {terms}")
    text = x.text if scale == 1 else f"{x.text} * {literal(float(scale))}"
    if offset:
        sign = "-" if offset < 0 else "+"
        text = f"{text} {sign} {literal(abs(float(offset)))}"
    return replace(x, text=text)
