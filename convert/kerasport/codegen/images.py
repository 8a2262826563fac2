"""Layers that work on images: convolutions, pooling, padding, cropping, resampling.

PyTorch's modules want channels first; each rule says so, and its output stays that way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kerasport.codegen.body import Case
from kerasport.codegen.linear import bias
from kerasport.codegen.text import call, literal, prose, tuple_of
from kerasport.codegen.values import Value, image_order
from kerasport.errors import UnsupportedError

JSON = Any
Result = Value | tuple[Value, ...]


def spatial_dropout(c: Case) -> Value:
    """Dropout of whole channels."""
    rank = c.o.rank
    order = front(c, rank)
    x = c.body.natural(c.x).at(order)
    module = call(f"nn.Dropout{rank}d", literal(float(c.o("rate", 0.5))))
    return replace(x, text=f"{c.module(module)}({x.text})")


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
    """A convolution."""
    window = Window(c)
    groups = int(c.o("groups", 1))
    ins = conv_width(c) * groups
    module = c.module(window.module(ins, int(c.o("filters")), groups=groups, bias=bias(c)))
    return convolved(c, window, module)


def convolved(c: Case, window: Window, module: str) -> Value:
    """An image through a convolution, and its activation."""
    order = front(c, window.rank)
    x = c.fed(c.x)
    if c.x.rank not in (None, window.rank + 2):
        raise UnsupportedError(f"{c.path}: images with {c.x.rank} axes")
    x = x.at(order)
    text = c.activated(f"{module}({window.padded(x.text)})", dim=order.index(axis_of(c)))
    return Value(text, order=order)


def axis_of(c: Case) -> int:
    """Keras's axis of the features: the last one, whatever the data format."""
    return c.o.rank + 1


def depthwise(c: Case) -> Value:
    """A convolution of each channel by itself."""
    window = Window(c)
    ins = depthwise_width(c, "weight")
    outs = ins * int(c.o("depth_multiplier", 1))
    module = c.module(window.module(ins, outs, groups=ins, bias=bias(c)))
    return convolved(c, window, module)


def depthwise_width(c: Case, name: str) -> int:
    """How many channels a depthwise convolution takes."""
    if name in c.tensors:
        return c.tensors[name][0] // int(c.o("depth_multiplier", 1))
    return c.channels(1 if c.o.channels_first else -1)


def separable(c: Case) -> Value:
    """A depthwise convolution and one that mixes channels."""
    window = Window(c)
    ins = depthwise_width(c, "depthwise.weight")
    wide = ins * int(c.o("depth_multiplier", 1))
    first = window.module(ins, wide, groups=ins, bias="False")
    point = call(f"nn.Conv{c.o.rank}d", str(wide), str(int(c.o("filters"))), "1", bias=bias(c))
    return convolved(c, window, c.module(call("SeparableConv", first, point)))


def conv_transpose(c: Case) -> Value:
    """A transposed convolution, cut as Keras cuts it."""
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


def pool(c: Case) -> Value:
    """Pooling by windows."""
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
    """Pooling over the whole image, wherever its axes are."""
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
        weights = c.body.temporary(
            f"{x.mask}.unsqueeze({last_dim_of(x)}).to({x.text}.dtype)", "counts"
        )
        total = f"({x.text} * {weights}).sum({shown}{keep})"
        return Value(f"{total} / {weights}.sum({shown}{keep})", order=order, features=features)
    name = "mean" if "Average" in c.o.class_name else "amax"
    return Value(f"{x.text}.{name}({shown}{keep})", order=order, features=features)


def last_dim_of(x: Value) -> int:
    """The dimension of the features of a sequence."""
    return x.axis(2) if x.order else -1


def adaptive_pool(c: Case) -> Value:
    """Pooling to a given size."""
    kind = "Max" if "Max" in c.o.class_name else "Avg"
    size = one_or_all(c.o.each("output_size"))
    order = front(c, c.o.rank)
    x = c.body.natural(c.x).at(order)
    module = call(f"nn.Adaptive{kind}Pool{c.o.rank}d", size)
    return Value(f"{c.module(module)}({x.text})", order=order)


def spread(c: Case, x: Value, sides: Sequence[tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """By dimension of the tensor, what belongs to Keras's spatial axes."""
    return {x.axis(axis): pair for axis, pair in zip(spatial_axes(c), sides, strict=True)}


def zero_padding(c: Case) -> Value:
    """Zeros around the image."""
    x = kept(c)
    sides = spread(c, x, c.o.sides("padding", 1))
    first = min(sides)
    pads: list[int] = []
    for dim in range(c.o.rank + 1, first - 1, -1):
        pads += sides.get(dim, (0, 0))
    return replace(x, text=f"F.pad({x.text}, {literal(tuple(pads))})", shape=None, mask="")


def kept(c: Case) -> Value:
    """The input in the order in which it is, with its axes known."""
    x = c.body.natural(c.x)
    return x if x.rank is not None else replace(x, order=tuple(range(c.o.rank + 2)))


def cropping(c: Case) -> Value:
    """The image without its edges."""
    x = kept(c)
    sides = spread(c, x, c.o.sides("cropping", 1))
    slices: list[str] = []
    for dim in range(max(sides) + 1):
        before, after = sides.get(dim, (0, 0))
        slices.append(f"{before or ''}:{-after if after else ''}")
    return replace(x, text=f"{x.text}[{', '.join(slices)}]", shape=None, mask="")


def up_sampling(c: Case) -> Value:
    """The image made larger by whole numbers."""
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
    """The image in another size."""
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
    """The middle of the image."""
    height, width = int(c.o("height")), int(c.o("width"))
    order = tuple(range(4)) if c.o.channels_first else image_order(4)
    x = c.body.natural(c.x)
    shape = x.shape
    rows, columns = (shape[2:4] if c.o.channels_first else shape[1:3]) if shape else (None, None)
    if rows is None or columns is None or rows < height or columns < width:
        raise UnsupportedError(f"{c.path}: cropping an image of unknown or smaller size")
    top, left = int((rows - height) / 2), int((columns - width) / 2)
    x = x.at(order)
    cut = f"[:, :, {top}:{top + height}, {left}:{left + width}]"
    return Value(f"{x.text}{cut}", order=order)


def locally_connected(c: Case) -> Value:
    """A convolution with weights of its own at each position."""
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
