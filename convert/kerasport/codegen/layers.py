"""What each Keras layer is in PyTorch: how it is built, and how it is called.

One table: a class of Keras, in today's words, and a rule that gives the expression of its output. A
rule says in which order of dimensions it wants its input, and which order its output has; the rest
is done by `values`. Standard modules of `torch.nn` stand wherever they compute the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from kerasport.architecture import Node
from kerasport.codegen import activations, operations
from kerasport.codegen.body import Case
from kerasport.codegen.text import call, literal, prose, tuple_of
from kerasport.codegen.values import Value, image_order
from kerasport.errors import UnsupportedError
from kerasport.flatten import Rest
from kerasport.options import Options, options
from kerasport.shapes import Shape, step

__all__ = ["TABLE", "rule_of"]

JSON = Any
Result = Value | tuple[Value, ...]
Rule = Callable[[Case], Result]


def rule_of(node: Node) -> Rule:
    """The rule of a layer; a stub's where the class is in no table."""
    if node.module is not None and ".ops." in node.module:
        return operations.keras_operation
    if node.class_name in operations.TENSORFLOW:
        return operations.TENSORFLOW[node.class_name]
    return TABLE.get(options(node.class_name, node.config).class_name, stub)


def stub(c: Case) -> Value:
    """A module that stands for code that the file does not hold, or a user's own instead."""
    inputs = ", ".join(c.plain(value).text for value in c.inputs)
    own = c.file.snippets.get(c.path) or c.file.snippets.get(c.o.class_name)
    if own is not None:
        return Value(f"{c.module(c.body.snippet(own, c.o.given))}({inputs})")
    what = f"the layer {prose(c.path)} of class {prose(c.o.class_name)}"
    made = c.body.stub(c.o.class_name.rpartition(">")[2] or "Layer", what, c.tensors)
    c.file.notes.append(f"{what} is a stub: its code is not in the file")
    return Value(f"{c.module(f'{made}()')}({inputs})")


# ------------------------------------------------------------------------------------ small things


def same(c: Case) -> Value:
    """What does nothing at inference, or nothing at all."""
    return c.x


def random(c: Case) -> Value:
    """Augmentation, which only training does."""
    c.file.notes.append(f"{prose(c.path)} ({c.o.class_name}) changes images in training; not here")
    return c.x


def elementwise(c: Case, text: str) -> Value:
    """What is done to each number by itself."""
    return replace(c.x, text=text)


def last_dim(value: Value) -> int:
    """The dimension of the features."""
    return value.axis(-1)


def activation(c: Case) -> Value:
    x = c.x if not c.x.features else c.body.natural(c.x)
    return replace(x, text=c.activated(x.text, dim=last_dim(x)))


def softmax(c: Case) -> Value:
    axis = c.o("axis", -1)
    x = c.body.natural(c.x)
    if isinstance(axis, list) and len(axis) == 1:
        axis = axis[0]
    if not isinstance(axis, int):
        raise UnsupportedError(f"{c.path}: a softmax over several axes")
    text = x.text
    if x.mask:
        x = c.once(x)
        rank = c.rank(x)
        mask = f"{x.mask}.unsqueeze(-1)" if rank == 3 else x.mask
        text = f"{x.text}.masked_fill(~{mask}, -1e9)"
    return replace(x, text=f"torch.softmax({text}, dim={x.axis(axis)})")


def named_activation(c: Case) -> Value:
    """LeakyReLU, ELU and their like, as modules."""
    written = {"class_name": c.o.class_name, "config": c.o.given}
    x = c.x
    return elementwise(c, activations.activated(x.text, written, keras=c.file.keras))


def prelu(c: Case) -> Value:
    shape = c.tensors.get("weight")
    if shape is not None and len(shape) == 1:
        x = c.fed(c.x, "channel")
        rank = c.rank(x)
        x = x.at(image_order(rank)) if rank > 2 else x
        return replace(x, text=f"{c.module(call('nn.PReLU', str(shape[0])))}({x.text})")
    x = c.body.natural(c.x)
    rank = c.rank(x)
    if shape is None:
        raise UnsupportedError(f"{c.path}: the slopes of this PReLU are not in the file")
    x = x.at(image_order(rank)) if rank > 3 else x.straight()
    return replace(x, text=f"{c.module(call('PReLUPerPosition', *map(str, shape)))}({x.text})")


def dropout(c: Case) -> Value:
    rate = literal(float(c.o("rate", 0.5)))
    return elementwise(c, f"{c.module(call('nn.Dropout', rate))}({c.x.text})")


def spatial_dropout(c: Case) -> Value:
    rank = c.o.rank
    order = front(c, rank)
    x = c.body.natural(c.x).at(order)
    module = call(f"nn.Dropout{rank}d", literal(float(c.o("rate", 0.5))))
    return replace(x, text=f"{c.module(module)}({x.text})")


def noise(c: Case) -> Value:
    option = "stddev" if c.o.class_name == "GaussianNoise" else "rate"
    module = call(c.o.class_name, literal(float(c.o(option, 0.0))))
    return elementwise(c, f"{c.module(module)}({c.x.text})")


def alpha_dropout(c: Case) -> Value:
    module = call("nn.AlphaDropout", literal(float(c.o("rate", 0.5))))
    return elementwise(c, f"{c.module(module)}({c.x.text})")


def masking(c: Case) -> Value:
    x = c.once(c.x.straight())
    value = c.o("mask_value", 0.0)
    test = f"{x.text} != {literal(float(value))}" if value != "NaN" else f"~{x.text}.isnan()"
    mask = c.body.temporary(f"({test}).any(-1)", "mask")
    zero = f"{x.text} * {mask}.unsqueeze(-1)"
    if value == "NaN":
        zero = f"{x.text}.masked_fill(~{mask}.unsqueeze(-1), 0.0)"
    return replace(x, text=zero, mask=mask)


# ------------------------------------------------------------------------------------------ linear


def dense(c: Case) -> Value:
    x = c.fed(c.x).straight()
    units = int(c.o("units"))
    width = c.tensors["weight"][1] if "weight" in c.tensors else c.channels()
    module = c.module(call("nn.Linear", str(width), str(units), bias=bias(c)))
    return Value(c.activated(f"{module}({x.text})"), mask=x.mask)


def bias(c: Case) -> str | None:
    """`False` where the layer has no bias."""
    return None if c.o("use_bias", True) else "False"


def einsum_dense(c: Case) -> Value:
    x = c.fed(c.x, _einsum_axis(c)).straight()
    source, kernel, made = einsum_axes(c, x)
    shape = c.tensors.get("weight")
    if shape is None:
        raise UnsupportedError(f"{c.path}: the kernel of this EinsumDense is not in the file")
    summed = [axis for axis in source if axis in kernel and axis not in made]
    new = [axis for axis in made if axis in kernel and axis not in source]
    kept = [axis for axis in source if axis not in summed]
    layer = c.layer
    if layer is not None and layer.kind == "EinsumDenseBatched":
        wide = c.tensors.get("bias")
        module = call(
            "EinsumDense",
            literal(f"{source},{kernel}->{made}"),
            literal(shape),
            bias=None if wide is None else literal(wide),
        )
        return Value(c.activated(f"{c.module(module)}({x.text})"), mask=x.mask)
    has_bias = None if "bias" in c.tensors else "False"
    module = c.module(call("nn.Linear", str(shape[1]), str(shape[0]), bias=has_bias))
    moved = x.at([source.index(axis) for axis in (*kept, *summed)]).text
    if len(summed) > 1:
        moved += f".flatten({len(kept)})"
    text = f"{module}({moved})"
    if len(new) > 1 and layer is not None:
        sizes = [layer.sizes[f"out_{axis}"] for axis in new]
        text = f"torch.unflatten({text}, -1, {literal(tuple(sizes))})"
    order = [(*kept, *new).index(axis) for axis in made]
    back = tuple(order.index(n) for n in range(len(order)))
    y = Value("y", order=back)
    straight = replace(y, text=text, order=back).straight() if back != tuple(range(len(back))) else y
    return Value(c.activated(straight.text if straight is not y else text), mask=x.mask)


def _einsum_axis(c: Case) -> str:
    orders = (c.file.orders or {}).get(c.body.home(c.path), {})
    return next(iter(orders), "in")


def einsum_axes(c: Case, x: Value) -> tuple[str, str, str]:
    """The letters of the equation's three parts, those that `...` stands for among them."""
    equation = str(c.o("equation", "")).replace(" ", "")
    terms, _, made = equation.partition("->")
    source, _, kernel = terms.partition(",")
    if not all(part.replace("...", "").isalpha() for part in (source, kernel, made)):
        raise UnsupportedError(f"{c.path}: the equation of this EinsumDense is none")
    if "..." in source:
        free = [letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if letter not in equation]
        letters = "".join(free[: c.rank(x) - len(source) + 3])
        source, made = source.replace("...", letters), made.replace("...", letters)
    return source, kernel, made


def embedding(c: Case) -> Value:
    tokens, width = c.tensors.get("weight") or (int(c.o("input_dim")), int(c.o("output_dim")))
    x = c.plain(c.x)
    mask = ""
    if c.o("mask_zero"):
        x = c.once(x)
        mask = c.body.temporary(f"{x.text} != 0", "mask")
    module = c.module(call("nn.Embedding", str(tokens), str(width)))
    return Value(f"{module}({x.text}.long())", mask=mask)


# ------------------------------------------------------------------------------------ convolutions


def front(c: Case, rank: int) -> tuple[int, ...]:
    """The order of an image of this rank for `torch.nn`: batch, channels, the rest."""
    if c.o.channels_first:
        return tuple(range(rank + 2))
    return image_order(rank + 2)


def one_or_all(values: Sequence[int]) -> str:
    """A number for each dimension, written once where they are alike."""
    return str(values[0]) if len(set(values)) == 1 else tuple_of(*map(str, values))


def unlike(values: Sequence[int], usual: int) -> str | None:
    """As `one_or_all`, or None where all are as usual."""
    return None if set(values) == {usual} else one_or_all(values)


def conv_width(c: Case, name: str = "weight", place: int = 1) -> int:
    """How many channels a convolution takes, by group."""
    if name in c.tensors:
        return c.tensors[name][place]
    axis = 1 if c.o.channels_first else -1
    return c.channels(axis) // int(c.o("groups", 1))


class Window:
    """The geometry of a convolution, and how its padding is done."""

    def __init__(self, c: Case) -> None:
        o = c.o
        self.rank = o.rank
        self.kernel = o.each("kernel_size")
        self.strides = o.each("strides", 1)
        self.dilation = o.each("dilation_rate", 1)
        self.reach = [(k - 1) * d for k, d in zip(self.kernel, self.dilation, strict=True)]
        self.padding: str | None = None
        self.before: str | None = None
        self.same = False
        match str(o("padding", "valid")):
            case "valid":
                pass
            case "causal":
                self.before = f"({self.reach[0]}, 0)" if self.reach[0] else None
            case "full":
                self.padding = one_or_all(self.reach)
            case "same":
                even = all(r % 2 == 0 for r in self.reach)
                if set(self.strides) == {1} and even:
                    self.padding = unlike([r // 2 for r in self.reach], 0)
                elif any(r or s > 1 for r, s in zip(self.reach, self.strides, strict=True)):
                    self.same = any(self.reach)
            case other:
                raise UnsupportedError(f"{c.path}: padding {prose(other)}")

    def module(self, ins: int, outs: int, *, groups: int, bias: str | None) -> str:
        """The convolution as a module."""
        return call(
            f"{'Same' if self.same else 'nn.'}Conv{self.rank}d",
            str(ins),
            str(outs),
            one_or_all(self.kernel),
            stride=unlike(self.strides, 1),
            padding=self.padding,
            dilation=unlike(self.dilation, 1),
            groups=None if groups == 1 else str(groups),
            bias=bias,
        )

    def padded(self, text: str) -> str:
        """The image with the zeros that no module adds."""
        return f"F.pad({text}, {self.before})" if self.before else text


def conv(c: Case) -> Value:
    window = Window(c)
    groups = int(c.o("groups", 1))
    ins = conv_width(c) * groups
    module = c.module(window.module(ins, int(c.o("filters")), groups=groups, bias=bias(c)))
    return convolved(c, window, module)


def convolved(c: Case, window: Window, module: str) -> Value:
    order = front(c, window.rank)
    x = c.fed(c.x)
    if c.x.rank is not None and c.x.rank != window.rank + 2:
        x, lead = folded(c, x, window.rank)
        y = x.at(order)
        text = c.activated(f"{module}({window.padded(y.text)})", dim=order.index(axis_of(c)))
        return unfolded(replace(y, text=text, features=None, mask="", shape=None), lead)
    x = x.at(order)
    text = c.activated(f"{module}({window.padded(x.text)})", dim=order.index(axis_of(c)))
    return Value(text, order=order)


def axis_of(c: Case) -> int:
    """Keras's axis of the features: the last one, whatever the data format."""
    return c.o.rank + 1


def folded(c: Case, x: Value, rank: int) -> tuple[Value, str]:
    """An image with more axes in front than one, all of them in the batch."""
    raise UnsupportedError(f"{c.path}: images with {c.rank(x)} axes")


def unfolded(x: Value, lead: str) -> Value:
    return x


def depthwise(c: Case) -> Value:
    window = Window(c)
    ins = depthwise_width(c, "weight")
    outs = ins * int(c.o("depth_multiplier", 1))
    module = c.module(window.module(ins, outs, groups=ins, bias=bias(c)))
    return convolved(c, window, module)


def depthwise_width(c: Case, name: str) -> int:
    if name in c.tensors:
        return c.tensors[name][0] // int(c.o("depth_multiplier", 1))
    return c.channels(1 if c.o.channels_first else -1)


def separable(c: Case) -> Value:
    window = Window(c)
    ins = depthwise_width(c, "depthwise.weight")
    wide = ins * int(c.o("depth_multiplier", 1))
    first = window.module(ins, wide, groups=ins, bias="False")
    point = call(f"nn.Conv{c.o.rank}d", str(wide), str(int(c.o("filters"))), "1", bias=bias(c))
    return convolved(c, window, c.module(call("SeparableConv", first, point)))


def conv_transpose(c: Case) -> Value:
    o = c.o
    kernel, strides, dilation = (
        o.each("kernel_size"),
        o.each("strides", 1),
        o.each("dilation_rate", 1),
    )
    extra = o("output_padding")
    extras = [None] * o.rank if extra is None else list(o.each("output_padding"))
    cut: list[int] = []
    for k, s, d, more in zip(kernel, strides, dilation, extras, strict=True):
        extent = (k - 1) * d + 1
        if o("padding", "valid") == "same":
            cut.append(extent - (s if more is None else extent % 2 + more))
        else:
            cut.append(-max(s - extent, 0) if more is None else -more)
    module = call(
        f"nn.ConvTranspose{o.rank}d",
        str(c.tensors["weight"][0] if "weight" in c.tensors else conv_width(c)),
        str(int(o("filters"))),
        one_or_all(kernel),
        stride=unlike(strides, 1),
        padding=unlike([max(n, 0) // 2 for n in cut], 0),
        output_padding=unlike([max(-n, 0) for n in cut], 0),
        dilation=unlike(dilation, 1),
        bias=bias(c),
    )
    order = front(c, o.rank)
    x = c.fed(c.x).at(order)
    text = f"{c.module(module)}({x.text})"
    if any(n > 0 and n % 2 for n in cut):
        ends = [":-1" if n > 0 and n % 2 else ":" for n in cut]
        text += f"[:, :, {', '.join(ends)}]"
    return Value(c.activated(text, dim=order.index(axis_of(c))), order=order)


# ----------------------------------------------------------------------------------------- pooling


def pool(c: Case) -> Value:
    o = c.o
    kernel = o.each("pool_size", 2)
    strides = o.each("strides", kernel)
    kind = "Max" if o.class_name.startswith("Max") else "Avg"
    odd = all(k % 2 for k in kernel)
    stride = None if tuple(strides) == tuple(kernel) else one_or_all(strides)
    if o("padding", "valid") == "same":
        if set(strides) == {1} and odd:
            count = "False" if kind == "Avg" else None
            module = call(
                f"nn.{kind}Pool{o.rank}d",
                one_or_all(kernel),
                stride=stride,
                padding=unlike([k // 2 for k in kernel], 0),
                count_include_pad=count,
            )
        else:
            sizes = (literal(tuple(kernel)), literal(tuple(strides)))
            module = call(f"Same{kind}Pool{o.rank}d", *sizes)
    else:
        module = call(f"nn.{kind}Pool{o.rank}d", one_or_all(kernel), stride=stride)
    order = front(c, o.rank)
    features = c.x.features if c.o.rank == 1 and not c.o.channels_first else None
    x = (c.x if features else c.body.natural(c.x)).at(order)
    return Value(f"{c.module(module)}({x.text})", order=order, features=features)


def spatial_axes(c: Case) -> list[int]:
    """Keras's axes of the image, without channels."""
    start = 2 if c.o.channels_first else 1
    return list(range(start, start + c.o.rank))


def global_pool(c: Case) -> Value:
    x = c.x if not c.x.features or c.o.rank == 1 else c.body.natural(c.x)
    if c.o.channels_first:
        x = c.body.natural(x)
    if not x.order and x.rank is None:
        x = replace(x, order=tuple(range(c.o.rank + 2)))
    dims = sorted(x.axis(axis) for axis in spatial_axes(c))
    shown = str(dims[0]) if len(dims) == 1 else tuple_of(*map(str, dims))
    keep = ", keepdim=True" if c.o("keepdims") else ""
    order = x.order if keep else ()
    features = x.features
    if x.mask and c.o.class_name == "GlobalAveragePooling1D":
        x = c.once(x)
        weights = c.body.temporary(f"{x.mask}.unsqueeze({last_dim_of(x)}).to({x.text}.dtype)", "counts")
        total = f"({x.text} * {weights}).sum({shown}{keep})"
        return Value(f"{total} / {weights}.sum({shown}{keep})", order=order, features=features)
    name = "mean" if "Average" in c.o.class_name else "amax"
    return Value(f"{x.text}.{name}({shown}{keep})", order=order, features=features)


def last_dim_of(x: Value) -> int:
    return x.axis(2) if x.order else -1


def adaptive_pool(c: Case) -> Value:
    kind = "Max" if "Max" in c.o.class_name else "Avg"
    size = one_or_all(c.o.each("output_size"))
    order = front(c, c.o.rank)
    x = c.body.natural(c.x).at(order)
    module = call(f"nn.Adaptive{kind}Pool{c.o.rank}d", size)
    return Value(f"{c.module(module)}({x.text})", order=order)


# ------------------------------------------------------------------------------- padding, cropping


def spread(c: Case, x: Value, sides: Sequence[tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """By dimension of the tensor, what belongs to Keras's spatial axes."""
    return {x.axis(axis): pair for axis, pair in zip(spatial_axes(c), sides, strict=True)}


def zero_padding(c: Case) -> Value:
    x = kept(c)
    sides = spread(c, x, c.o.sides("padding", 1))
    first = min(sides)
    pads: list[int] = []
    for dim in range(c.o.rank + 1, first - 1, -1):
        pads += sides.get(dim, (0, 0))
    mode = str(c.o("data_format", ""))
    del mode
    return replace(x, text=f"F.pad({x.text}, {literal(tuple(pads))})", shape=None, mask="")


def kept(c: Case) -> Value:
    """The input in the order in which it is, with its axes known."""
    x = c.body.natural(c.x)
    return x if x.rank is not None else replace(x, order=tuple(range(c.o.rank + 2)))


def cropping(c: Case) -> Value:
    x = kept(c)
    sides = spread(c, x, c.o.sides("cropping", 1))
    slices: list[str] = []
    for dim in range(max(sides) + 1):
        before, after = sides.get(dim, (0, 0))
        slices.append(f"{before or ''}:{-after if after else ''}")
    return replace(x, text=f"{x.text}[{', '.join(slices)}]", shape=None, mask="")


def up_sampling(c: Case) -> Value:
    sizes = c.o.each("size", 2)
    mode = str(c.o("interpolation", "nearest"))
    if c.o.rank == 1:
        x = c.body.natural(c.x)
        return replace(x, text=f"{x.text}.repeat_interleave({sizes[0]}, {x.axis(1)})", shape=None)
    order = front(c, c.o.rank)
    x = c.body.natural(c.x).at(order)
    if mode not in ("nearest", "bilinear"):
        raise UnsupportedError(
            f"{c.path}: interpolation {prose(mode)}, which PyTorch computes in another way"
        )
    scale = literal(tuple(map(float, sizes))) if len(set(sizes)) > 1 else str(sizes[0])
    shown = None if mode == "nearest" else literal(mode)
    module = call("nn.Upsample", scale_factor=scale, mode=shown)
    return Value(f"{c.module(module)}({x.text})", order=order)


def resizing(c: Case) -> Value:
    mode = str(c.o("interpolation", "bilinear"))
    if any(c.o(name) for name in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias")):
        raise UnsupportedError(f"{c.path}: resizing that keeps the aspect ratio or antialiases")
    names = {"nearest": "nearest-exact", "bilinear": "bilinear"}
    if mode not in names:
        raise UnsupportedError(
            f"{c.path}: interpolation {prose(mode)}, which PyTorch computes in another way"
        )
    order = tuple(range(4)) if c.o.channels_first else image_order(4)
    x = c.body.natural(c.x).at(order)
    size = literal((int(c.o("height")), int(c.o("width"))))
    return Value(f"F.interpolate({x.text}, size={size}, mode={literal(names[mode])})", order=order)


def center_crop(c: Case) -> Value:
    height, width = int(c.o("height")), int(c.o("width"))
    order = tuple(range(4)) if c.o.channels_first else image_order(4)
    x = c.body.natural(c.x)
    shape = x.shape
    rows, columns = (
        (shape[2:4] if c.o.channels_first else shape[1:3]) if shape else (None, None)
    )
    if rows is None or columns is None or rows < height or columns < width:
        raise UnsupportedError(f"{c.path}: cropping an image of unknown or smaller size")
    top, left = int((rows - height) / 2), int((columns - width) / 2)
    x = x.at(order)
    cut = f"[:, :, {top}:{top + height}, {left}:{left + width}]"
    return Value(f"{x.text}{cut}", order=order)


# ----------------------------------------------------------------------------------- normalization


def batch_normalization(c: Case) -> Value:
    axis = c.o("axis", -1)
    axis = axis[0] if isinstance(axis, list) else axis
    x = c.fed(c.x, "channel")
    rank = c.rank(x)
    axis = int(axis) % rank
    order = (0, axis, *(n for n in range(1, rank) if n != axis))
    x = x.at(order) if rank > 2 else x
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
                f"{c.path}: normalizes axes counted from both ends, whose weights Keras lays out in "
                "another order than it applies them"
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


def custom_scale(c: Case) -> Value:
    """What InceptionResNetV2 adds its branches with."""
    values, _ = common(c, tensors_of(c))
    scale = literal(float(c.o("scale", 1.0)))
    return Value(f"{values[0].text} + {values[1].text} * {scale}", order=values[0].order)


def layer_scale(c: Case) -> Value:
    """A factor a channel, as in ConvNeXt."""
    x = c.plain(c.x)
    width = next(iter(c.tensors.values()))[0] if c.tensors else c.channels()
    return replace(x, text=f"{c.module(call('LayerScale', str(width)))}({x.text})")


def rescaling(c: Case) -> Value:
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
    return elementwise(c, text)


# ------------------------------------------------------------------------------------------ merges


def common(c: Case, values: Sequence[Value]) -> tuple[list[Value], int | None]:
    """Several tensors in one order of dimensions; fewer dimensions are filled behind the batch."""
    features = {value.features for value in values if value.size(-1 % (value.rank or 1)) != 1}
    alike = len(features) <= 1 and all(value.features in features for value in values)
    if not alike:
        values = [c.body.natural(value) for value in values]
    ranks = {value.rank for value in values}
    if None in ranks:
        return [value.straight() for value in values], None
    rank = max(n for n in ranks if n is not None)
    orders = [value.order for value in values if value.rank == rank]
    moved = [order for order in orders if order]
    straight = () in orders
    order = moved[0] if moved and not (straight and rank <= 3) else ()
    made: list[Value] = []
    for value in values:
        if value.rank == rank:
            made.append(value.at(order) if order else value.straight())
            continue
        value = value.straight()
        missing = rank - (value.rank or 0)
        # Keras fills in dimensions behind the batch.
        axes = [0, *[None] * missing, *range(1, value.rank or 0)]
        wanted = order or tuple(range(rank))
        placed = [axes[axis] for axis in wanted]
        real = [axis for axis in placed if axis is not None]
        text = value.at(real).text
        index = ", ".join("None" if axis is None else ":" for axis in placed)
        made.append(replace(value, text=f"{text}[{index}]", order=order))
    return made, rank


def tensors_of(c: Case) -> list[Value]:
    return list(c.inputs)


def merged_mask(c: Case) -> str:
    masks = [value.mask for value in c.inputs]
    if not masks or not all(masks):
        return ""
    if len(set(masks)) == 1:
        return masks[0]
    return c.body.temporary(" | ".join(masks), "mask")


def merge(form: Callable[[list[str]], str]) -> Rule:
    def rule(c: Case) -> Value:
        values, _ = common(c, tensors_of(c))
        text = form([value.text for value in values])
        widest = max(values, key=lambda value: len(value.order))
        features = next((value.features for value in values if value.features), None)
        return Value(text, order=widest.order, features=features, mask=merged_mask(c))

    return rule


def chained(operator: str) -> Callable[[list[str]], str]:
    return lambda texts: f" {operator} ".join(texts)


def nested_calls(function: str) -> Callable[[list[str]], str]:
    def form(texts: list[str]) -> str:
        made = texts[0]
        for text in texts[1:]:
            made = f"{function}({made}, {text})"
        return made

    return form


def averaged(texts: list[str]) -> str:
    return f"({' + '.join(texts)}) / {len(texts)}"


def concatenate(c: Case) -> Value:
    axis = int(c.o("axis", -1))
    return concatenated(c, tensors_of(c), axis)


def concatenated(c: Case, values: list[Value], axis: int) -> Value:
    features = [value.features for value in values]
    rank = values[0].rank
    row = None
    if any(features):
        last = axis in (-1, (rank or 0) - 1)
        parts = [v.features or (Rest(n) if (n := v.shape and v.shape[-1]) else None) for v in values]
        if not last or None in parts:
            values = [c.body.natural(value) for value in values]
        else:
            row = row_of([part for part in parts if part is not None])
            values = [replace(value, features=None) for value in values]
    values, rank = common(c, values)
    order = values[0].order
    dim = values[0].axis(axis) if rank is not None else axis
    texts = ", ".join(value.text for value in values)
    masks = [value.mask for value in values]
    mask = ""
    if any(masks) and rank is not None and axis in (-1, rank - 1):
        present = list(dict.fromkeys(mask for mask in masks if mask))
        mask = present[0] if len(present) == 1 else c.body.temporary(" & ".join(present), "mask")
    return Value(f"torch.cat(({texts}), dim={dim})", order=order, features=row, mask=mask)


def row_of(parts: Sequence[Any]) -> Any:
    from kerasport.flatten import _row

    made = _row(parts)
    return None if isinstance(made, Rest) else made


def dot(c: Case) -> Value:
    a, b = (c.plain(value) for value in tensors_of(c)[:2])
    ranks = (c.rank(a), c.rank(b))
    axes = c.o("axes", -1)
    pair = [axes, axes] if isinstance(axes, int) else list(axes)
    first, second = (int(n) % rank for n, rank in zip(pair, ranks, strict=True))
    texts = [a.text, b.text]
    if c.o("normalize"):
        texts = [f"F.normalize({a.text}, dim={first})", f"F.normalize({b.text}, dim={second})"]
    letters = iter("cdefghijklm")
    left = ["b" if n == 0 else "a" if n == first else next(letters) for n in range(ranks[0])]
    right = ["b" if n == 0 else "a" if n == second else next(letters) for n in range(ranks[1])]
    made = ["b", *(x for x in left[1:] if x != "a"), *(x for x in right[1:] if x != "a")]
    equation = f"{''.join(left)},{''.join(right)}->{''.join(made)}"
    text = f"torch.einsum({literal(equation)}, {texts[0]}, {texts[1]})"
    return Value(f"{text}.unsqueeze(-1)" if len(made) == 1 else text)


def old_merge(c: Case) -> Value:
    """The layer Merge of Keras 1."""
    match str(c.o("mode", "sum")):
        case "sum":
            return merge(chained("+"))(c)  # type: ignore[return-value]
        case "mul":
            return merge(chained("*"))(c)  # type: ignore[return-value]
        case "ave":
            return merge(averaged)(c)  # type: ignore[return-value]
        case "max":
            return merge(nested_calls("torch.maximum"))(c)  # type: ignore[return-value]
        case "concat":
            return concatenate(c)
        case "dot":
            return dot(c)
        case other:
            raise UnsupportedError(f"{c.path}: merging by {prose(other)}")


# ------------------------------------------------------------------------------------------ shapes


def flatten(c: Case) -> Value:
    x = c.x
    known = c.known[0]
    if x.rank == 1:
        return Value(f"{x.text}.unsqueeze(-1)")
    if x.rank == 2:
        return replace(x, mask="")
    return vector(c, x, known)


def vector(c: Case, x: Value, known: Any) -> Value:
    """All features of an image in one axis, in PyTorch's order where that is followed."""
    before = x.known
    if c.file.orders is not None and known is not None and known.features and not known.lost:
        rank = c.rank(x)
        if x.features is None or not x.order:
            if c.o.channels_first:
                x = x.straight()
            elif before is not None and before.channel:
                last, place = rank - 1, before.channel
                order = [n for n in range(rank) if n != last]
                order.insert(place, last)
                x = x.at(order)
        return Value(f"{x.text}.flatten(1)", features=known.features)
    x = c.plain(x)
    if c.o.channels_first and c.o.class_name == "Flatten":
        rank = c.rank(x)
        x = replace(x.at((0, *range(2, rank), 1)), order=())
    return Value(f"{x.text}.flatten(1)")


def reshape(c: Case) -> Value:
    wanted = [int(n) for n in c.o("target_shape")]
    x = c.x
    if len(wanted) == 1:
        if x.rank == 2:
            return replace(x, mask="")
        return vector(replace_class(c, "Reshape"), x, c.known[0])
    x = c.plain(x)
    if x.rank == 2:
        return Value(f"torch.unflatten({x.text}, 1, {literal(tuple(wanted))})")
    if -1 not in wanted:
        return Value(f"{x.text}.reshape(-1, {', '.join(map(str, wanted))})")
    return Value(f"torch.unflatten({x.text}.flatten(1), 1, {literal(tuple(wanted))})")


def replace_class(c: Case, name: str) -> Case:
    return replace(c, o=Options(name, {}))


def permute(c: Case) -> Value:
    dims = [0, *(int(n) for n in c.o("dims"))]
    x = c.body.natural(c.x)
    order = x.order or tuple(range(len(dims)))
    if sorted(dims) != sorted(order):
        raise UnsupportedError(f"{c.path}: expected a permutation of the axes")
    made = tuple(dims.index(axis) for axis in order)
    straight = made == tuple(range(len(made)))
    return replace(x, order=() if straight else made, shape=None, mask="")


def repeat_vector(c: Case) -> Value:
    n = int(c.o("n"))
    return replace(c.x, text=f"{c.x.text}.unsqueeze(1).expand(-1, {n}, -1)", shape=None, mask="")


# --------------------------------------------------------------------------------------- recurrent

NATIVE: Final = {"LSTM": "nn.LSTM", "GRU": "nn.GRU", "SimpleRNN": "nn.RNN"}
STEPWISE: Final = {"LSTM": "StepwiseLSTM", "GRU": "StepwiseGRU", "SimpleRNN": "StepwiseRNN"}


class Recurrent:
    """What a recurrent layer is: its cell, its options, and the module that computes it."""

    def __init__(self, c: Case, o: Options, *, both: bool) -> None:
        cell = o("cell")
        if isinstance(cell, Mapping):
            inner = options(str(cell.get("class_name", "")).removesuffix("Cell"), cell["config"])
            o = Options(inner.class_name, {**inner.given, **o.given, "cell": None})
        if o.class_name not in NATIVE:
            raise UnsupportedError(f"{c.path}: a cell of class {prose(o.class_name)}")
        self.c, self.o, self.both = c, o, both
        self.kind = o.class_name
        keras = c.file.keras
        reset_after = o("reset_after", False) or o.class_name == "GRU" and _is_cudnn(c)
        self.before = self.kind == "GRU" and not reset_after
        self.activation = o.given.get("activation", "tanh")
        self.gate = o.given.get("recurrent_activation", default_gate(c))
        self.sequences = bool(o("return_sequences"))
        self.states = bool(o("return_state"))
        self.backwards = bool(o("go_backwards"))
        mask = c.named.get("mask")
        self.mask = mask.text if isinstance(mask, Value) else c.x.mask
        self.keras = keras
        if o("stateful"):
            c.file.notes.append(f"{prose(c.path)} keeps its state between batches; not here")

    @property
    def native(self) -> bool:
        """Whether `torch.nn` computes the same."""
        own, _ = activations.activation_name(self.activation)
        gate, _ = activations.activation_name(self.gate)
        if self.before or self.mask:
            return False
        if self.kind == "SimpleRNN":
            return own in ("tanh", "relu")
        return own == "tanh" and gate == "sigmoid"

    def module(self) -> str:
        c, o = self.c, self.o
        ins = c.tensors["weight_ih_l0"][1] if "weight_ih_l0" in c.tensors else c.channels()
        own, _ = activations.activation_name(self.activation)
        named: dict[str, str | None] = {
            "bias": None if o("use_bias", True) else "False",
            "bidirectional": "True" if self.both else None,
        }
        if self.native:
            relu = self.kind == "SimpleRNN" and own == "relu"
            return call(
                NATIVE[self.kind],
                str(ins),
                str(int(o("units"))),
                nonlinearity='"relu"' if relu else None,
                batch_first="True",
                **named,
            )
        gate, _ = activations.activation_name(self.gate)
        for written in (self.activation, self.gate):
            if not activations.known(written):
                raise UnsupportedError(f"{c.path}: an activation of a user's own in its steps")
        zero = bool(o("zero_output_for_mask")) or self.both
        function = activations.as_function
        return call(
            "GRUResetBefore" if self.before else STEPWISE[self.kind],
            str(ins),
            str(int(o("units"))),
            activation=None if own == "tanh" else function(self.activation, keras=self.keras),
            gate=None
            if gate == "sigmoid" or self.kind == "SimpleRNN"
            else function(self.gate, keras=self.keras),
            zero_masked="True" if zero and self.sequences and self.mask else None,
            **named,
        )


def _is_cudnn(c: Case) -> bool:
    layer = c.layer
    return layer is not None and layer.kind is not None and layer.kind.endswith("GRU")


def default_gate(c: Case) -> str:
    return "sigmoid"


def initial_states(c: Case, both: bool, count: int) -> list[Value]:
    """The states that a call is given, as Keras lists them."""
    given = c.named.get("initial_state")
    states = given if isinstance(given, list) else [] if given is None else [given]
    if not states:
        states = [value for arg in c.args for value in (arg if isinstance(arg, list) else [arg])]
        states = states[1:]
    return [state for state in states if isinstance(state, Value)][: count * (1 + both)]


def recurrent(c: Case) -> Result:
    cell = c.o("cell")
    if isinstance(cell, Mapping) and cell.get("class_name") == "StackedRNNCells":
        return stacked(c, cell)
    return ran(c, Recurrent(c, c.o, both=False))


def ran(c: Case, r: Recurrent) -> Result:
    x = c.fed(c.x).straight()
    text = f"{x.text}.flip(1)" if r.backwards else x.text
    mask = f"{r.mask}.flip(1)" if r.backwards and r.mask else r.mask
    count = 2 if r.kind == "LSTM" else 1
    states = [c.plain(state).text for state in initial_states(c, False, count)]
    args = [text]
    if states:
        shown = [f"{state}.unsqueeze(0)" for state in states]
        wrapped = r.native and r.kind != "LSTM"
        args.append(shown[0] if wrapped else tuple_of(*shown))
    if mask:
        args.append(f"mask={mask}")
    called = f"{c.module(r.module())}({', '.join(args)})"
    kept_mask = mask if r.sequences and not r.backwards else ""
    last = "[0]" if r.kind == "LSTM" or not r.native else ""
    if not r.states:
        if r.sequences:
            return Value(f"{called}[0]", mask=kept_mask)
        return Value(f"{called}[1]{last}[0]")
    names = [c.body.unused(name) for name in ("sequence", "state")]
    c.body.unpacked(called, names, (r.sequences, True))
    if r.kind == "LSTM" or not r.native:
        finals = [Value(f"{names[1]}[{n}][0]") for n in range(count)]
    else:
        finals = [Value(f"{names[1]}[0]")]
    first = Value(names[0], mask=kept_mask) if r.sequences else finals[0]
    return (first, *finals)


def stacked(c: Case, written: Mapping[str, JSON]) -> Result:
    """Several cells in one loop, which are as many layers one after the other."""
    cells = (written.get("config") or {}).get("cells") or []
    paths = [path for path in c.file.layers if path.startswith(f"{c.body.home(c.path)}/")]
    if len(paths) != len(cells):
        raise UnsupportedError(f"{c.path}: the weights of these cells are not in the file")
    named: dict[str, str | None] = {}
    count = 0
    parts: list[Recurrent] = []
    for path, cell in zip(paths, cells, strict=True):
        o = Options("RNN", {**c.o.given, "cell": cell, "return_state": True})
        part = Recurrent(replace(c, path=path), o, both=False)
        count += 2 if part.kind == "LSTM" else 1
        parts.append(part)
        named[c.file.names[path]] = part.module()
    x = c.fed(c.x).straight()
    backwards, r = bool(c.o("go_backwards")), parts[-1]
    text = f"{x.text}.flip(1)" if backwards else x.text
    mask = f", mask={r.mask}{'.flip(1)' if backwards else ''}" if r.mask else ""
    called = f"{c.module(call('StackedRNN', **named))}({text}{mask})"
    if not c.o("return_state"):
        if r.sequences:
            return Value(f"{called}[0]", mask="" if backwards else r.mask)
        return Value(f"{called}[0][:, -1]")
    names = [c.body.unused(name) for name in ("sequence", "state")]
    c.body.unpacked(called, names)
    first = Value(names[0] if r.sequences else f"{names[0]}[:, -1]")
    finals: list[Value] = []
    for part in parts:
        for _ in range(2 if part.kind == "LSTM" else 1):
            n = len(finals)
            deep = "[0]"
            finals.append(Value(f"{names[1]}[{n}]{deep}"))
    return (first, *finals)


def conv_lstm(c: Case) -> Result:
    o = c.o
    ins = c.tensors["input.weight"][1] if "input.weight" in c.tensors else conv_width(c)
    filters = int(o("filters"))
    inner = Window(c).module(ins, 4 * filters, groups=1, bias=bias(c))
    own = replace(
        c, o=Options(o.class_name, {"kernel_size": list(o.each("kernel_size")), "padding": "same"})
    )
    again = Window(own).module(filters, 4 * filters, groups=1, bias="False")
    written, gate_written = (
        o.given.get("activation", "tanh"),
        o.given.get("recurrent_activation", "sigmoid" if c.file.keras >= 3 else "hard_sigmoid"),
    )
    if not (activations.known(written) and activations.known(gate_written)):
        raise UnsupportedError(f"{c.path}: an activation of a user's own in its steps")
    function, keras = activations.as_function, c.file.keras
    name, gate_name = (activations.activation_name(a)[0] for a in (written, gate_written))
    module = call(
        "ConvLSTM",
        inner,
        again,
        activation=None if name == "tanh" else function(written, keras=keras),
        gate=None if gate_name == "sigmoid" else function(gate_written, keras=keras),
    )
    rank = o.rank
    order = (0, 1, *(n + 1 for n in front(c, rank)[1:]))
    x = c.body.natural(c.x).at(order)
    if x.mask:
        raise UnsupportedError(f"{c.path}: steps to skip")
    text = f"{x.text}.flip(1)" if o("go_backwards") else x.text
    states = [state.at(front(c, rank)).text for state in initial_states(c, False, 2)]
    given = f", {tuple_of(*states)}" if states else ""
    called = f"{c.module(module)}({text}{given})"
    sequences = bool(o("return_sequences"))
    if not o("return_state"):
        if sequences:
            return Value(f"{called}[0]", order=order)
        return Value(f"{called}[1][0]", order=front(c, rank))
    names = [c.body.unused(name) for name in ("sequence", "state")]
    c.body.unpacked(called, names, (sequences, True))
    finals = [Value(f"{names[1]}[{n}]", order=front(c, rank)) for n in (0, 1)]
    first = Value(names[0], order=order) if sequences else finals[0]
    return (first, *finals)


def locally_connected(c: Case) -> Value:
    o = c.o
    rank = o.rank
    if int(o("implementation", 1)) != 1:
        raise UnsupportedError(f"{c.path}: its weights are those of a sparse matrix")
    order = front(c, rank)
    made = c.shape
    sizes = None if made is None else o.spatial(made)
    if sizes is None or None in sizes:
        raise UnsupportedError(f"{c.path}: the size of the image it takes is not known")
    kernel = o.each("kernel_size")
    shape = c.tensors.get("weight")
    channels = conv_width(c) if shape is None else shape[1] // math.prod(kernel)
    module = call(
        "LocallyConnected",
        str(channels),
        str(int(o("filters"))),
        literal(tuple(sizes)),
        literal(tuple(kernel)),
        literal(tuple(o.each("strides", 1))),
        bias=bias(c),
    )
    x = c.body.natural(c.x).at(order)
    text = c.activated(f"{c.module(module)}({x.text})", dim=order.index(axis_of(c)))
    return Value(text, order=order)


def highway(c: Case) -> Value:
    x = c.once(c.plain(c.x))
    width = c.tensors["linear.weight"][0] if "linear.weight" in c.tensors else c.channels()
    module = c.module(call("Highway", str(width), bias=bias(c)))
    made = c.activated(f"{module}.linear({x.text})")
    return Value(f"{module}({x.text}, {made})", mask=x.mask)


def maxout(c: Case) -> Value:
    x = c.plain(c.x)
    units, pieces = int(c.o("units")), int(c.o("nb_feature", 4))
    width = c.tensors["weight"][1] if "weight" in c.tensors else c.channels()
    module = c.module(call("nn.Linear", str(width), str(units * pieces), bias=bias(c)))
    return Value(f"torch.unflatten({module}({x.text}), -1, ({pieces}, {units})).amax(-2)")


def spectral(c: Case) -> Result:
    """What it wraps; its normalization has been done to the kernel."""
    inner = c.o("layer")
    own = options(str(inner.get("class_name")), inner.get("config") or {})
    rule = TABLE.get(own.class_name)
    if rule is None or "vector_u" not in c.tensors:
        raise UnsupportedError(f"{c.path}: {prose(own.class_name)} in SpectralNormalization")
    c.file.notes.append(f"{prose(c.path)} normalizes its kernel in training; not here")
    features = c.tensors["vector_u"][1]
    return rule(
        replace(c, o=own, path=f"{c.path}/layer", around=f"SpectralNorm({{}}, {features})")
    )


def reversible(c: Case) -> Value:
    tokens, width = int(c.o("input_dim")), int(c.o("output_dim"))
    tied = bool(c.o("tie_weights", True))
    kind = "nn.Embedding" if tied else "ReversibleEmbedding"
    module = c.module(call(kind, str(tokens), str(width)))
    if not (c.named.get("reverse") or (len(c.args) > 1 and c.args[1] is True)):
        x = c.plain(c.x)
        mask = ""
        if c.o("mask_zero"):
            x = c.once(x)
            mask = c.body.temporary(f"{x.text} != 0", "mask")
        table = module if tied else f"{module}.embedding"
        return Value(f"{table}({x.text}.long())", mask=mask)
    x = c.plain(c.x)
    text = f"F.linear({x.text}, {module}.weight)" if tied else f"{module}.reverse({x.text})"
    cap = c.o("logit_soft_cap")
    if cap is not None:
        cap = literal(float(cap))
        text = f"{cap} * torch.tanh({text} / {cap})"
    shape = x.shape and (*x.shape[:-1], tokens)
    return Value(text, shape=shape)


def bidirectional(c: Case) -> Result:
    inner = c.o("layer")
    if not isinstance(inner, Mapping):
        raise UnsupportedError(f"{c.path}: expected a layer inside Bidirectional")
    o = options(str(inner.get("class_name")), inner.get("config") or {})
    r = Recurrent(c, o, both=True)
    if r.backwards:
        raise UnsupportedError(f"{c.path}: a layer that already goes backwards in Bidirectional")
    mode = c.o.given.get("merge_mode", "concat")
    units = int(r.o("units"))
    x = c.fed(c.x).straight()
    count = 2 if r.kind == "LSTM" else 1
    args = [x.text]
    states = [c.plain(state).text for state in initial_states(c, True, count)]
    if states:
        pairs = [f"torch.stack(({a}, {b}))" for a, b in zip(states[:count], states[count:], strict=True)]
        args.append(pairs[0] if r.native and r.kind != "LSTM" else tuple_of(*pairs))
    if r.mask:
        args.append(f"mask={r.mask}")
    called = f"{c.module(r.module())}({', '.join(args)})"
    mask = r.mask if r.sequences else ""
    lists = r.kind == "LSTM" or not r.native
    if mode == "concat" and r.sequences and not r.states:
        return Value(f"{called}[0]", mask=mask)
    names = [c.body.unused(name) for name in ("sequence", "state")]
    c.body.unpacked(called, names, (r.sequences, r.states or not r.sequences))
    h = f"{names[1]}[0]" if lists else names[1]
    if r.sequences:
        ahead, back = f"{names[0]}[..., :{units}]", f"{names[0]}[..., {units}:]"
    else:
        ahead, back = f"{h}[0]", f"{h}[1]"
    merged: list[Value]
    match mode:
        case "concat":
            whole = names[0] if r.sequences else f"torch.cat(({ahead}, {back}), dim=-1)"
            merged = [Value(whole, mask=mask)]
        case "sum":
            merged = [Value(f"{ahead} + {back}", mask=mask)]
        case "ave":
            merged = [Value(f"({ahead} + {back}) / 2", mask=mask)]
        case "mul":
            merged = [Value(f"{ahead} * {back}", mask=mask)]
        case None:
            merged = [Value(ahead, mask=mask), Value(back, mask=mask)]
        case _:
            raise UnsupportedError(f"{c.path}: merging by {prose(str(mode))}")
    if r.states:
        if lists:
            merged += [Value(f"{names[1]}[{n}][{s}]") for s in (0, 1) for n in range(count)]
        else:
            merged += [Value(f"{names[1]}[{s}]") for s in (0, 1)]
    return merged[0] if len(merged) == 1 else tuple(merged)


def time_distributed(c: Case) -> Value:
    """What the layer inside does, to each step."""
    inner = c.o("layer")
    if not isinstance(inner, Mapping):
        raise UnsupportedError(f"{c.path}: expected a layer inside TimeDistributed")
    own = options(str(inner.get("class_name")), inner.get("config") or {})
    rule = TABLE.get(own.class_name)
    followed = c.file.followed
    if rule is None:
        raise UnsupportedError(f"{c.path}: {prose(own.class_name)} inside TimeDistributed")
    known = tuple(followed.enter(k) if k is not None else None for k in c.known)
    shape: Shape = step(c.shape)
    if own.class_name in STEPLESS:
        made = rule(replace(c, o=own))
        assert isinstance(made, Value)
        return replace(made, mask=c.x.mask)
    x = c.once(c.body.steps_second(c.x))
    given = c.body.by_step(x)
    made = rule(
        replace(c, o=own, inputs=(given,), args=[given], made=(shape,), known=known, wrapped=1)
    )
    if isinstance(made, tuple):
        raise UnsupportedError(f"{c.path}: a layer with several outputs inside TimeDistributed")
    made = replace(made, shape=made.shape if made.shape is not None else shape)
    return replace(c.body.all_steps(made, x.text, shape=c.shape), mask=c.x.mask)


# What does the same to a sequence as to each of its steps.
STEPLESS: Final = frozenset({"Dense", "Activation", "Dropout", "LeakyReLU", "ELU", "ReLU"})


def wrapper(c: Case) -> Result:
    """What a wrapper that does nothing at inference wraps."""
    inner = c.o("layer")
    own = options(str(inner.get("class_name")), inner.get("config") or {})
    return TABLE.get(own.class_name, stub)(replace(c, o=own))


# --------------------------------------------------------------------------------------- attention


def attention_inputs(c: Case) -> tuple[Value, Value, Value]:
    """Query, value and key, however they are given."""
    first = list(c.args)
    query = c.named.get("query", first[0] if first else None)
    if isinstance(query, list):
        found = [value for value in query if isinstance(value, Value)]
        query, value = found[0], found[1]
        key = found[2] if len(found) > 2 else value
        return query, value, key
    value = c.named.get("value", first[1] if len(first) > 1 else None)
    key = c.named.get("key", first[2] if len(first) > 2 else None)
    if not (isinstance(query, Value) and isinstance(value, Value)):
        raise UnsupportedError(f"{c.path}: expected a query and a value")
    return query, value, key if isinstance(key, Value) else value


def mask_arguments(c: Case, query: Value, value: Value, key: Value) -> dict[str, str | None]:
    """What `attention_mask` is to be told."""

    def of(name: str, given: str) -> str | None:
        found = c.named.get(name)
        return found.text if isinstance(found, Value) else given or None

    own = c.named.get("attention_mask")
    return {
        "query_mask": of("query_mask", query.mask),
        "key_mask": of("key_mask", key.mask if key is not value else ""),
        "value_mask": of("value_mask", value.mask),
        "mask": c.plain(own).text if isinstance(own, Value) else None,
        "causal": "True" if c.named.get("use_causal_mask") or c.o("causal") else None,
        "window": None if c.o("sliding_window") is None else literal(int(c.o("sliding_window"))),
    }


def multi_head(c: Case) -> Result:
    query, value, key = (c.fed(v, "") for v in attention_inputs(c))
    query, value, key = (c.plain(v) for v in (query, value, key))
    if c.rank(query) != 3:
        raise UnsupportedError(f"{c.path}: attention over several axes")
    masks = mask_arguments(c, query, value, key)
    scores = bool(c.named.get("return_attention_scores"))
    query, key = c.once(query), c.once(key)
    mask = None
    if any(masks.values()):
        made = call("attention_mask", query.text, key.text, **masks)
        if "in_proj_weight" in c.tensors:
            made = f"{made}.repeat_interleave({int(c.o('num_heads'))}, 0)"
        mask = c.body.temporary(made, "mask")
    heads, width = int(c.o("num_heads")), int(c.o("key_dim"))
    dropout = c.o("dropout", 0)
    rate = literal(float(dropout)) if dropout else None
    out = query.mask
    if "in_proj_weight" in c.tensors:
        module = c.module(
            call(
                "nn.MultiheadAttention",
                str(heads * width),
                str(heads),
                dropout=rate,
                bias=bias(c),
                batch_first="True",
            )
        )
        args = [query.text, key.text, value.text]
        if scores:
            text = call(module, *args, attn_mask=mask, average_attn_weights="False")
            names = c.body.unpacked(text, c.body.many(2, "attended"))
            return Value(names[0], mask=out), Value(names[1], matrix=True)
        return Value(f"{call(module, *args, attn_mask=mask, need_weights='False')}[0]", mask=out)
    parts = attention_parts(c, query, value, key)
    module = c.module(
        call("MultiHeadAttention", str(heads), *parts, bias=bias(c), dropout=rate, gate=gate(c))
    )
    text = call(module, query.text, key.text, value.text, *([mask] if mask else []))
    if scores:
        names = c.body.unpacked(text, c.body.many(2, "attended"))
        return Value(names[0], mask=out), Value(names[1], matrix=True)
    return Value(f"{text}[0]", mask=out)


def gate(c: Case) -> str | None:
    """`True` where the layer has a gate."""
    return "True" if c.o("use_gate") else None


def grouped_query(c: Case) -> Result:
    query, value, key = (c.plain(v) for v in attention_inputs(c))
    masks = mask_arguments(c, query, value, key)
    query, key = c.once(query), c.once(key)
    mask = []
    if any(masks.values()):
        made = call("attention_mask", query.text, key.text, **masks)
        mask = [c.body.temporary(made, "mask")]
    heads, groups = (
        int(c.o("num_query_heads", c.o("num_query_heads", 1))),
        int(c.o("num_key_value_heads", 1)),
    )
    dropout = c.o("dropout", 0)
    given = [v.shape[-1] if v.shape else None for v in (query, key, value)]
    names = [f"{name}.weight" for name in ("query", "key", "value")]
    widths = [
        c.tensors[name][1] if name in c.tensors else size
        for name, size in zip(names, given, strict=True)
    ]
    if None in widths:
        raise UnsupportedError(f"{c.path}: how many features this attention takes is not known")
    module = c.module(
        call(
            "GroupedQueryAttention",
            str(heads),
            str(groups),
            *map(str, widths),
            str(int(c.o("head_dim"))),
            str(widths[0]),
            bias=bias(c),
            dropout=literal(float(dropout)) if dropout else None,
            gate=gate(c),
        )
    )
    text = call(module, query.text, key.text, value.text, *mask)
    if c.named.get("return_attention_scores"):
        names = c.body.unpacked(text, c.body.many(2, "attended"))
        return Value(names[0], mask=query.mask), Value(names[1], matrix=True)
    return Value(f"{text}[0]", mask=query.mask)


def attention_parts(c: Case, query: Value, value: Value, key: Value) -> list[str]:
    """Features of query, key, value as they come and per head, and of the output."""
    width = int(c.o("key_dim"))
    deep = int(c.o("value_dim") or width)
    shape = c.o("output_shape")
    given = [v.shape[-1] if v.shape else None for v in (query, key, value)]
    names = [f"{name}.weight" for name in ("query", "key", "value")]
    widths = [
        c.tensors[name][1] if name in c.tensors else size
        for name, size in zip(names, given, strict=True)
    ]
    if "attention_output.weight" in c.tensors:
        out: int | None = c.tensors["attention_output.weight"][0]
    else:
        out = (shape[-1] if isinstance(shape, list) else shape) or given[0]
    if None in widths or out is None:
        raise UnsupportedError(f"{c.path}: how many features this attention takes is not known")
    return [
        literal((widths[0], width)),
        literal((widths[1], width)),
        literal((widths[2], deep)),
        str(out),
    ]


def attention(c: Case) -> Result:
    """Dot-product attention without projections."""
    values = c.args[0] if c.args and isinstance(c.args[0], list) else list(c.inputs)
    found = [c.plain(value) for value in values if isinstance(value, Value)]
    query, value = c.once(found[0]), c.once(found[1])
    key = c.once(found[2]) if len(found) > 2 else value
    given = c.named.get("mask")
    masks = [m.text if isinstance(m, Value) else None for m in given] if isinstance(
        given, list
    ) else [query.mask or None, value.mask or None]
    causal = c.named.get("use_causal_mask") or c.o("causal")
    scores = attention_scores(c, query, key)
    if masks[1:2] != [None] or causal:
        added = call(
            "attention_mask",
            query.text,
            key.text,
            value_mask=masks[1] if len(masks) > 1 else None,
            causal="True" if causal else None,
        )
        scores = f"{scores} + {c.body.temporary(added, 'mask')}"
    wanted = bool(c.named.get("return_attention_scores"))
    weights = f"torch.softmax({scores}, dim=-1)"
    weights = c.body.temporary(weights)
    text = f"{weights} @ {value.text}"
    if masks[0]:
        text = f"({text}) * {masks[0]}.unsqueeze(-1)"
    made = Value(text, mask=masks[0] or "")
    return (made, Value(weights, matrix=True)) if wanted else made


def attention_scores(c: Case, query: Value, key: Value) -> str:
    """How well queries and keys fit, before the softmax."""
    pair = f"{query.text}, {key.text}"
    if c.o.class_name == "AdditiveAttention":
        if c.o("use_scale", True):
            width = c.tensors["scale"][0] if "scale" in c.tensors else c.channels()
            return f"{c.module(call('AdditiveScore', str(width)))}({pair})"
        return f"torch.tanh({query.text}.unsqueeze(2) + {key.text}.unsqueeze(1)).sum(-1)"
    if c.o("score_mode") == "concat":
        scaled = "True" if c.o("use_scale") else None
        return f"{c.module(call('ConcatScore', scaled=scaled))}({pair})"
    if c.o("use_scale"):
        return f"{c.module('DotScore()')}({pair})"
    return f"{query.text} @ {key.text}.transpose(1, 2)"


# ----------------------------------------------------------------------------------- preprocessing


def category_encoding(c: Case) -> Value:
    tokens = int(c.o("num_tokens"))
    mode = str(c.o("output_mode", "multi_hot"))
    x = c.plain(c.x)
    one_hot = f"F.one_hot({x.text}.long(), {tokens})"
    if mode == "one_hot":
        last = x.shape[-1] if x.shape else None
        return Value(f"{one_hot}.squeeze(-2).float()" if last == 1 else f"{one_hot}.float()")
    if mode == "multi_hot":
        return Value(f"{one_hot}.amax(-2).float()")
    if mode == "count":
        return Value(f"{one_hot}.sum(-2).float()")
    raise UnsupportedError(f"{c.path}: encoding by {prose(mode)}")


RANKS: Final = (1, 2, 3)
TABLE: Final[Mapping[str, Rule]] = {
    "InputLayer": same,
    "Identity": same,
    "ActivityRegularization": same,
    "StochasticDepth": same,
    "Activation": activation,
    "Softmax": softmax,
    **dict.fromkeys(("ReLU", "LeakyReLU", "ELU", "ThresholdedReLU"), named_activation),
    "PReLU": prelu,
    "Dropout": dropout,
    **{f"SpatialDropout{n}D": spatial_dropout for n in RANKS},
    "GaussianNoise": noise,
    "GaussianDropout": noise,
    "AlphaDropout": alpha_dropout,
    "Masking": masking,
    "Dense": dense,
    "EinsumDense": einsum_dense,
    "Embedding": embedding,
    **{f"Conv{n}D": conv for n in RANKS},
    **{f"DepthwiseConv{n}D": depthwise for n in (1, 2)},
    **{f"SeparableConv{n}D": separable for n in (1, 2)},
    **{f"Conv{n}DTranspose": conv_transpose for n in RANKS},
    **{f"{kind}Pooling{n}D": pool for n in RANKS for kind in ("Max", "Average")},
    **{f"Global{kind}Pooling{n}D": global_pool for n in RANKS for kind in ("Max", "Average")},
    **{f"Adaptive{kind}Pooling{n}D": adaptive_pool for n in RANKS for kind in ("Max", "Average")},
    **{f"ZeroPadding{n}D": zero_padding for n in RANKS},
    **{f"Cropping{n}D": cropping for n in RANKS},
    **{f"UpSampling{n}D": up_sampling for n in RANKS},
    "Resizing": resizing,
    "CenterCrop": center_crop,
    "BatchNormalization": batch_normalization,
    "LayerNormalization": layer_normalization,
    "GroupNormalization": group_normalization,
    "RMSNormalization": rms_normalization,
    "UnitNormalization": unit_normalization,
    "Normalization": normalization,
    "Rescaling": rescaling,
    "Add": merge(chained("+")),
    "Subtract": merge(chained("-")),
    "Multiply": merge(chained("*")),
    "Average": merge(averaged),
    "Maximum": merge(nested_calls("torch.maximum")),
    "Minimum": merge(nested_calls("torch.minimum")),
    "Concatenate": concatenate,
    "Dot": dot,
    "Merge": old_merge,
    "CustomScaleLayer": custom_scale,
    "LayerScale": layer_scale,
    "Flatten": flatten,
    "Reshape": reshape,
    "Permute": permute,
    "RepeatVector": repeat_vector,
    **dict.fromkeys(("SimpleRNN", "GRU", "LSTM", "RNN"), recurrent),
    "Bidirectional": bidirectional,
    "TimeDistributed": time_distributed,
    "Wrapper": wrapper,
    "MultiHeadAttention": multi_head,
    "GroupedQueryAttention": grouped_query,
    "GroupQueryAttention": grouped_query,
    **{f"ConvLSTM{n}D": conv_lstm for n in RANKS},
    **{f"LocallyConnected{n}D": locally_connected for n in (1, 2)},
    "Highway": highway,
    "MaxoutDense": maxout,
    "SpectralNormalization": spectral,
    "ReversibleEmbedding": reversible,
    "Attention": attention,
    "AdditiveAttention": attention,
    "CategoryEncoding": category_encoding,
    **dict.fromkeys(
        (
            *("RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast"),
            *("RandomBrightness", "RandomHue", "RandomSaturation", "RandomSharpness"),
            *("RandomShear", "RandomErasing", "RandomColorJitter", "RandomColorDegeneration"),
            *("RandomGrayscale", "RandomGaussianBlur", "RandomInvert", "RandomPerspective"),
            *("RandomElasticTransform", "RandomPosterization", "MixUp", "CutMix", "AugMix"),
            "RandAugment",
        ),
        random,
    ),
}

