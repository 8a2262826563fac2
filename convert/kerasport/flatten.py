"""Which features come from a flattened image, and in which order the target flattens them.

Keras keeps channels last, so `Flatten` puts out `(space channel)`; PyTorch and ONNX keep channels
first, and their flatten puts out `(channel space)`. Whatever is trained on the flattened features,
the kernel of a Dense layer or the statistics of a normalization, has to be put in the other order.

Two things are followed through the graph for every tensor. One is where the target keeps its last
axis, for that is the order in which the target will flatten it:

- An input of four or more dimensions is an image, unless a layer of the model keeps channels first
  in Keras already: then no layer moves them.
- What convolutions and pooling put out is an image, in one dimension too, since their modules in
  the target take and give channels first. A layer of its own with `channels_first` puts out what
  the target does.
- What recurrent layers, Dense, Embedding and attention put out for a sequence is in Keras's order:
  their modules keep features last. So is an input of three dimensions.
- Under TimeDistributed each step is an image, and steps come before channels.
- Reshape and Permute are done in Keras's order, on channels that were put last, except that a
  Reshape to a vector flattens, and that moving channels first by Permute is what the target has.
- Everything else leaves its input where it is.

The other is what the last axis is made of, as soon as a Flatten has made it of an image:
elementwise layers keep it, Concatenate lays several end to end, Dense uses it up. Where a layer of
a user's own stands in between, nothing is guessed: nothing is reordered behind it, and a note says
so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from kerasport.architecture import Graph, Node, parse
from kerasport.layout import Layout
from kerasport.model import Layer, Note, Snapshot
from kerasport.options import Options, options
from kerasport.shapes import (
    ELEMENTWISE,
    IDENTITIES,
    MERGES,
    Call,
    Shape,
    inputs_of,
    outputs,
    step,
    steps,
    taken,
    walk,
)
from kerasport.variants import plain

__all__ = ["Flattened", "Order", "flattened"]


@dataclass(frozen=True, slots=True)
class Order:
    """How one axis is made up: in Keras, and in a target that keeps channels first.

    Attributes:
        source: the sentence in Keras, for example `(space channel)`.
        target: the sentence in the target, `(channel space)`.
        sizes: the size of every axis in them.
    """

    source: str
    target: str
    sizes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Flattened:
    """What is known of flattened images in a model.

    Attributes:
        orders: by layer path, the axes of its weights that are made of flattened images.
        images: by path of a layer that puts out a vector, the shape of the image, channels last,
            that the model makes of it.
        notes: where the order of the features could not be followed.
    """

    orders: Mapping[str, Mapping[str, Order]]
    images: Mapping[str, tuple[int | None, ...]]
    notes: tuple[Note, ...]


def flattened(snapshot: Snapshot) -> Flattened:
    """Which axes of which layers are made of flattened images.

    >>> from kerasport.model import Source
    >>> flattened(Snapshot(Source("model.h5", "h5"), ())).orders
    {}
    """
    graph = parse(snapshot.architecture) if snapshot.architecture is not None else None
    followed = _Followed.of(graph)
    given = tuple(followed.entering(shape) for shape in inputs_of(snapshot.architecture))
    calls = {} if graph is None else walk(graph, given, followed)
    orders: dict[str, Mapping[str, Order]] = {}
    notes: list[Note] = []
    for layer in snapshot.layers:
        # One of the layers that a layer is made of, such as stacked cells, is not in the graph.
        whole = layer.path if layer.path in calls else layer.path.rpartition("/")[0]
        taken_ = {call.inputs[0] for call in calls.get(whole, ()) if call.inputs}
        try:
            axes = _axes(layer, taken_, part=whole != layer.path)
        except _CannotFollowError as error:
            notes.append(Note("kept", layer.path, str(error)))
        else:
            if axes:
                orders[layer.path] = axes
    notes.extend(_unseen(snapshot, calls.keys()))
    return Flattened(orders, followed.images, tuple(notes))


def _unseen(snapshot: Snapshot, seen: Container[str]) -> Iterator[Note]:
    """A note at the first Dense behind a convolution, where no architecture says what feeds it."""
    convolved = False
    for layer in snapshot.layers:
        kind = plain(layer.kind or "")
        convolved |= "Conv" in kind
        if convolved and kind == "Dense" and layer.path not in seen:
            yield Note(
                "kept",
                layer.path,
                "nothing in the file says what feeds this layer: if that is a Flatten, its rows "
                "stay in (space channel) order; give the architecture with --config",
            )
            return


# --------------------------------------------------------------------------------------- features


@dataclass(frozen=True, slots=True)
class Rest:
    """Features that have one order everywhere."""

    size: int


@dataclass(frozen=True, slots=True)
class Image:
    """Features that are a flattened image: `(space channel)` here, `(channel space)` there."""

    space: int
    channels: Features


@dataclass(frozen=True, slots=True)
class Steps:
    """Features of several steps, one after the other."""

    count: int
    features: Features


@dataclass(frozen=True, slots=True)
class Row:
    """Features that lie end to end."""

    parts: tuple[Features, ...]


Features = Rest | Image | Steps | Row


def _size(features: Features) -> int:
    match features:
        case Rest(size):
            return size
        case Image(count, inner) | Steps(count, inner):
            return count * _size(inner)
        case Row(parts):
            return sum(map(_size, parts))


def _image(space: int, channels: Features) -> Features:
    if space == 1:
        return channels
    return Rest(space) if _size(channels) == 1 else Image(space, channels)


def _steps(count: int, features: Features) -> Features:
    if count == 1:
        return features
    return Rest(count * features.size) if isinstance(features, Rest) else Steps(count, features)


def _row(parts: Sequence[Features]) -> Features:
    """Features end to end; those that have one order everywhere are one part."""
    joined: list[Features] = []
    for part in parts:
        for one in part.parts if isinstance(part, Row) else (part,):
            if joined and isinstance(one, Rest) and isinstance(last := joined[-1], Rest):
                joined[-1] = Rest(last.size + one.size)
            else:
                joined.append(one)
    return joined[0] if len(joined) == 1 else Row(tuple(joined))


def _order(features: Features) -> Order:
    """The two sentences. Axes are numbered where one word stands for several.

    >>> order = _order(Row((Image(6, Rest(5)), Rest(7))))
    >>> order.source, order.target
    ('(space channel + rest)', '(channel space + rest)')
    """
    times = Counter(_words(features))
    used: Counter[str] = Counter()
    sizes: dict[str, int] = {}

    def named(word: str, size: int) -> str:
        used[word] += 1
        name = f"{word}_{used[word]}" if times[word] > 1 else word
        sizes[name] = size
        return name

    def written(features: Features, word: str = "rest") -> tuple[str, str]:
        match features:
            case Rest(size):
                name = named(word, size)
                return name, name
            case Image(space, channels):
                first = named("space", space)
                source, target = written(channels, "channel")
                return f"({first} {source})", f"({target} {first})"
            case Steps(count, inner):
                first = named("step", count)
                source, target = written(inner)
                return f"({first} {source})", f"({first} {target})"
            case Row(parts):
                pairs = [written(part) for part in parts]
                source = " + ".join(one for one, _ in pairs)
                target = " + ".join(one for _, one in pairs)
                return f"({source})", f"({target})"

    source, target = written(features)
    # As a layout prints it, so that it can be found in one.
    return Order(str(Layout.parse(source)), str(Layout.parse(target)), sizes)


def _words(features: Features, word: str = "rest") -> Iterator[str]:
    match features:
        case Rest():
            yield word
        case Image(_, channels):
            yield "space"
            yield from _words(channels, "channel")
        case Steps(_, inner):
            yield "step"
            yield from _words(inner)
        case Row(parts):
            for part in parts:
                yield from _words(part)


# ------------------------------------------------------------------------------ what a layer takes


class _CannotFollowError(Exception):
    """The reason why a layer's weights stay in Keras's order."""


TAKE_IN: Final = frozenset(
    {"Dense", "SimpleRNN", "GRU", "GRUResetBefore", "LSTM", "Conv1D", "SeparableConv1D"}
)
TAKE_CHANNELS: Final = frozenset(
    {
        *("BatchNormalization", "LayerNormalization"),
        *("PReLU1D", "ParametricSoftplus1D", "SReLU1D"),
    }
)


def _axes(layer: Layer, taken: set[_Value], *, part: bool) -> Mapping[str, Order]:
    """The axes of a layer's weights that are made of what it takes."""
    if layer.kind is None or not any(value.features or value.lost for value in taken):
        return {}
    kind = plain(layer.kind.removeprefix("Bidirectional").removesuffix("Cell"))
    rank = max(0 if value.shape is None else len(value.shape) for value in taken)
    if lost := min((value.lost for value in taken if value.lost), default=""):
        mixes = kind in TAKE_IN or kind == "EinsumDense"
        if (mixes and rank <= 3) or rank == 2:
            raise _CannotFollowError(
                f"its features could not be followed through {lost}: if they are a flattened "
                "image, they stay in (space channel) order"
            )
        return {}
    if len({value.features for value in taken}) > 1:
        raise _CannotFollowError(
            "it is called with features in unlike orders, which stay as Keras has them"
        )
    (features,) = {value.features for value in taken}
    assert features is not None
    axis = _axis(layer, kind, rank)
    if axis == "":
        return {}
    if part or axis is None or layer.sizes.get(axis) != _size(features):
        raise _CannotFollowError(
            f"its features are a flattened image, and there is no order of a {layer.kind} for "
            "them; they stay in (space channel) order"
        )
    return {axis: _order(features)}


def _axis(layer: Layer, kind: str, rank: int) -> str | None:
    """The axis that takes the last axis of the input: "" if none does, None if it is not known."""
    if kind in TAKE_IN:
        return None if layer.config.get("data_format") == "channels_first" else "in"
    if kind in TAKE_CHANNELS:
        axes = layer.config.get("axis", -1)
        places = list(axes) if isinstance(axes, list | tuple) else [axes]
        last = next((n for n, place in enumerate(places) if place in (-1, rank - 1)), None)
        return "" if last is None else layer.words.get("normalized", "channel").split()[last]
    if kind in ("Embedding", "TiedEmbedding"):
        return ""
    if kind == "EinsumDense":
        inputs = layer.words.get("inputs", "").split()
        equation = str(layer.config.get("equation", "")).replace(" ", "").replace("...", "")
        return inputs[0] if inputs == [f"in_{equation.partition(',')[0][-1:]}"] else None
    return None


# ----------------------------------------------------------------------------------------- values


@dataclass(frozen=True, slots=True)
class _Value:
    """What is known of one tensor.

    Attributes:
        shape: its shape in Keras.
        channel: where the target keeps the last axis; 0 where Keras does.
        features: what the last axis is made of, where that has another order in the target.
        lost: the layer behind which neither is known.
        vector: the path of the layer whose output it is, through elementwise layers, if a vector.
    """

    shape: Shape = None
    channel: int = 0
    features: Features | None = None
    lost: str = ""
    vector: str = ""

    @property
    def moved(self) -> bool:
        """Whether the target has it in another order than Keras."""
        return bool(self.channel or self.features or self.lost)

    @property
    def last(self) -> Features | None:
        """What the last axis is made of; None where its size is unknown."""
        if self.features is not None:
            return self.features
        size = self.shape[-1] if self.shape else None
        return None if size is None else Rest(size)

    def made_of(self, features: Features | None) -> _Value:
        """The same with other features."""
        return replace(self, features=None if isinstance(features, Rest) else features)


Values = Sequence[_Value]


@dataclass(slots=True)
class _Followed:
    """Orders, as `walk` follows them.

    Attributes:
        channels_first: whether the model keeps channels first in Keras.
        images: the images that are made of vectors, as they are found.
    """

    channels_first: bool
    images: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    unknown: _Value = _Value(lost="a layer with several outputs")

    @classmethod
    def of(cls, graph: Graph | None) -> _Followed:
        nodes = [] if graph is None else [leaf.node for leaf in graph.leaves()]
        return cls(any(options(n.class_name, n.config).channels_first for n in nodes))

    def entering(self, shape: Shape) -> _Value:
        """A model's input."""
        image = shape is not None and len(shape) >= 4 and not self.channels_first
        return _Value(shape, 1 if image else 0)

    def enter(self, value: _Value) -> _Value:
        shape = step(value.shape)
        inside = max(value.channel - 1, 0)
        if value.channel == 1 and shape is not None and len(shape) >= 4:
            inside = 1  # of an image in three dimensions, each plane is one in two
        return replace(value, shape=shape, channel=inside, vector="")

    def leave(self, value: _Value) -> _Value:
        channel = value.channel + 1 if value.channel else 0
        return replace(value, shape=steps(value.shape), channel=channel, vector="")

    def layer(
        self, node: Node, inputs: tuple[_Value, ...], *, path: str, call: int
    ) -> Call[_Value]:
        shapes = taken(node, tuple(value.shape for value in inputs), call)
        values = tuple(replace(v, shape=shape) for v, shape in zip(inputs, shapes, strict=False))
        values = values or tuple(map(self.entering, shapes))
        made = outputs(node.class_name, node.config, inputs=shapes, operation=node.operation)
        o = options(node.class_name, node.config)
        if node.operation:
            name = node.class_name
            o = Options("Add" if name in ELEMENTWISE else f"operation {name}", {})
        first = self.made(o, values, made[0], path=path)
        return Call(values, (first, *map(_Value, made[1:])))

    def made(self, o: Options, values: Values, shape: Shape, *, path: str) -> _Value:
        """What one layer makes of what it takes."""
        if o.class_name in WRAPPERS:
            return self.wrapped(o, values, shape, path=path)
        if not values:
            return self.entering(shape) if o.class_name == "InputLayer" else _Value(shape)
        rule = RULES.get(o.class_name, _unknown)
        made = rule(o, values, shape)
        if made is None:
            return _Value(shape, lost=f"{path} ({o.class_name})")
        made = replace(made, shape=shape)
        rank = 0 if shape is None else len(shape)
        if o.class_name == "Reshape" and shape is not None and rank >= 4:
            if values[0].vector:
                self.images[values[0].vector] = shape[1:]
            return replace(made, channel=0 if self.channels_first else 1, vector="")
        if o.class_name in VECTORS:
            return replace(made, vector=path if rank == 2 else "")
        return made

    def wrapped(self, o: Options, values: Values, shape: Shape, *, path: str) -> _Value:
        """What a wrapper makes: what the layer in it does, to each step under TimeDistributed."""
        inner = o("layer")
        config = inner.get("config") if isinstance(inner, Mapping) else None
        if not isinstance(config, Mapping):
            return _Value(shape, lost=f"{path} ({o.class_name})")
        own = options(str(inner.get("class_name")), config)
        if o.class_name != "TimeDistributed":
            return self.made(own, values, shape, path=path)
        made = self.made(own, [self.enter(value) for value in values], step(shape), path=path)
        return replace(self.leave(made), shape=shape)


# ------------------------------------------------------------------------------------------ rules

# A rule gives None where a layer makes of its input what cannot be followed.
Rule = Callable[[Options, Values, Shape], "_Value | None"]


def _unknown(o: Options, values: Values, shape: Shape) -> _Value | None:
    return None if any(value.moved for value in values) else _Value()


def _kept(o: Options, values: Values, shape: Shape) -> _Value:
    return values[0]


def _convolved(o: Options, values: Values, shape: Shape) -> _Value:
    rank = o.rank + 2 if shape is None else len(shape)
    return _Value(channel=0 if o.channels_first or rank < 3 else max(1, rank - o.rank - 1))


def _pooled(o: Options, values: Values, shape: Shape) -> _Value | None:
    """Pooling works on each channel by itself."""
    made = _convolved(o, values, shape)
    if o.rank > 1:
        return made  # an image's channels are no flattened image
    if values[0].features and o.channels_first:
        return None
    return replace(made, features=values[0].features, lost=values[0].lost)


def _fresh(o: Options, values: Values, shape: Shape) -> _Value | None:
    """New features on the last axis; a sequence has them last, an image stays one."""
    if values[0].features and o.class_name in LOOKUPS:
        return None  # their order goes to another axis
    if shape is None or len(shape) < 4:
        return _Value()
    return _Value(channel=values[0].channel, lost=values[0].lost)


def _flatten(o: Options, values: Values, shape: Shape) -> _Value | None:
    value = values[0]
    if value.lost or (value.shape is not None and len(value.shape) <= 2):
        return value
    if value.shape is None or (o.channels_first and value.moved):
        return None if value.moved else _Value()
    sizes = value.shape[1:]
    last = value.last
    if last is None or None in sizes:
        return None if value.moved or o.channels_first else _Value()
    known = [size for size in sizes if size is not None]
    if o.channels_first:  # Keras puts channels last before it flattens
        return _Value().made_of(_image(math.prod(known[1:]), Rest(known[0])))
    if value.channel:
        images = value.channel - 1
        last = _image(math.prod(known[images:-1]), last)
        known = [*known[:images], 1]
    return _Value().made_of(_steps(math.prod(known[:-1]), last))


def _reshape(o: Options, values: Values, shape: Shape) -> _Value | None:
    value = values[0]
    if shape is not None and len(shape) == 2:
        return _flatten(Options("Reshape", {}), values, shape)
    if value.lost or not value.features:
        return _Value(lost=value.lost)
    whole = value.shape is not None and len(value.shape) == 2
    if whole and shape is not None and value.shape is not None and shape[-1:] == value.shape[-1:]:
        return _Value(features=value.features)
    return None


def _permute(o: Options, values: Values, shape: Shape) -> _Value | None:
    value = values[0]
    dims = o("dims")
    if not isinstance(dims, list | tuple) or (value.features and dims[-1] != len(dims)):
        return None if value.moved else _Value()
    return value if dims[-1] == len(dims) else _Value(lost=value.lost)


def _repeated(o: Options, values: Values, shape: Shape) -> _Value:
    return replace(values[0], vector="")


def _common(values: Values) -> _Value:
    """Where the target keeps the last axis of what is made of several."""
    lost = next((value.lost for value in values if value.lost), "")
    channels = {value.channel for value in values if value.shape is None or len(value.shape) > 2}
    rank = max((len(value.shape) for value in values if value.shape is not None), default=0)
    # Where a sequence meets what a convolution made of one, features are last again.
    channel = min(channels, default=0) if rank == 3 else max(channels, default=0)
    return _Value(channel=channel, lost=lost)


def _merged(o: Options, values: Values, shape: Shape) -> _Value | None:
    """Element by element: what is added must have one order."""
    common = _common(values)
    wide = [v for v in values if v.shape is None or v.shape[-1:] not in ((), (1,))]
    features = {value.features for value in wide}
    if len(features) > 1:
        return None
    vectors = {value.vector for value in values}
    vector = vectors.pop() if len(values) == 1 else ""
    return replace(common, features=features.pop() if features else None, vector=vector)


def _concatenated(o: Options, values: Values, shape: Shape) -> _Value | None:
    common = _common(values)
    features = {value.features for value in values}
    if features == {None}:
        return common
    axis = o("axis", -1)
    rank = 0 if shape is None else len(shape)
    if axis not in (-1, rank - 1):
        return replace(common, features=features.pop()) if len(features) == 1 else None
    parts = [value.last for value in values]
    if None in parts:
        return None
    return common.made_of(_row([part for part in parts if part is not None]))


def _merge(o: Options, values: Values, shape: Shape) -> _Value | None:
    match o("mode", "sum"):
        case "concat":
            return _concatenated(o, values, shape)
        case "dot" | "cos":
            return _dotted(o, values, shape)
        case _:
            return _merged(o, values, shape)


def _dotted(o: Options, values: Values, shape: Shape) -> _Value | None:
    features = {value.features for value in values}
    rank_two = all(value.shape is not None and len(value.shape) == 2 for value in values)
    if features == {None} or (rank_two and len(features) == 1):
        return _Value(lost=_common(values).lost)
    return None


def _attended(o: Options, values: Values, shape: Shape) -> _Value | None:
    return None if any(value.features for value in values) else _fresh(o, values, shape)


RANKS: Final = (1, 2, 3)
FRESH: Final = (
    *("Dense", "MaxoutDense", "Highway", "EinsumDense", "Embedding", "ReversibleEmbedding"),
    *("SimpleRNN", "GRU", "LSTM", "RNN", "Bidirectional", "MultiHeadAttention"),
    *("GroupedQueryAttention", "CategoryEncoding"),
)
LOOKUPS: Final = frozenset({"Embedding", "ReversibleEmbedding", "CategoryEncoding"})
WRAPPERS: Final = frozenset({"TimeDistributed", "SpectralNormalization", "Wrapper"})
VECTORS: Final = frozenset({"Dense", "MaxoutDense", "Highway"})
CONVOLVED: Final = (
    *(f"{name}{n}D" for n in RANKS for name in ("Conv", "SeparableConv", "DepthwiseConv")),
    *(f"{name}{n}D" for n in RANKS for name in ("LocallyConnected", "ConvLSTM")),
    *(f"Conv{n}DTranspose" for n in RANKS),
)
POOLED: Final = tuple(
    f"{scope}{name}Pooling{n}D"
    for n in RANKS
    for name in ("Max", "Average")
    for scope in ("", "Global", "Adaptive")
)
KEPT: Final = (
    *IDENTITIES,
    *(f"{name}{n}D" for n in RANKS for name in ("ZeroPadding", "Cropping", "UpSampling")),
    *("Resizing", "CenterCrop", "RandomCrop", "StringLookup", "IntegerLookup"),
)

RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(KEPT, _kept),
    **dict.fromkeys(FRESH, _fresh),
    **dict.fromkeys(CONVOLVED, _convolved),
    **dict.fromkeys(POOLED, _pooled),
    **dict.fromkeys(MERGES, _merged),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "RepeatVector": _repeated,
    "Concatenate": _concatenated,
    "Merge": _merge,
    "Dot": _dotted,
    "Attention": _attended,
    "AdditiveAttention": _attended,
}
