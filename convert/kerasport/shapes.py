"""The shape of every tensor in a graph of layers, from the configuration alone.

Two questions cannot be answered without it. How many zeros `same` padding adds on each side depends
on the size of what comes in, and which rows of a Dense kernel belong to which pixel depends on the
image that was flattened. Keras answers them by building the model; here a table does, a rule a
class, so that a file can be converted where no Keras is installed and Keras would refuse it.

Batch sizes and whatever else is open are None. A class that is in no table has an unknown shape,
and inference goes on behind it where Keras 3 wrote down what a layer was built for. A configuration
that contradicts itself has unknown shapes too: nothing that a file says makes this raise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from kerasport.architecture import Graph, Node, Ref
from kerasport.options import Options, options

__all__ = ["Call", "Followed", "Shape", "inputs_of", "outputs", "shapes", "taken", "walk"]

JSON = Any
Shape = tuple[int | None, ...] | None
T = TypeVar("T")

MAX_CALLS: Final = 500_000
"""How many calls are followed; models called twice inside models called twice may have 2⁶⁴."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """What went into one call of a layer and what came out: shapes, or whatever is followed."""

    inputs: tuple[T, ...]
    outputs: tuple[T, ...]


def shapes(graph: Graph, given: Sequence[Shape] = ()) -> dict[str, tuple[Call[Shape], ...]]:
    """The shapes that go into each call of each layer, and those that come out.

    >>> from kerasport.architecture import parse
    >>> image = {"name": "image", "batch_shape": [None, 7, 5, 3]}
    >>> conv = {"name": "conv", "filters": 2, "kernel_size": [3, 3]}
    >>> layers = [
    ...     {"class_name": "InputLayer", "config": image},
    ...     {"class_name": "Conv2D", "config": conv},
    ... ]
    >>> shapes(parse({"class_name": "Sequential", "config": layers}))["conv"]
    (Call(inputs=((None, 7, 5, 3),), outputs=((None, 5, 3, 2),)),)

    Args:
        graph: the model.
        given: the shapes of the model's inputs, where its own configuration leaves them open.

    Returns:
        By path, for every layer that is no model: its calls in order. A layer of a model that is
        called twice has two calls.
    """
    return walk(graph, given, _Shapes())


def outputs(
    class_name: str,
    config: Mapping[str, JSON],
    *,
    inputs: Sequence[Shape],
    operation: bool = False,
) -> tuple[Shape, ...]:
    """The shapes that one layer gives for the shapes that it takes; `(None,)` where unknown.

    >>> outputs("Flatten", {}, inputs=[(None, 3, 5, 7)])
    ((None, 105),)
    """
    o = options(class_name, config)
    rule = (OPERATIONS if operation else RULES).get(o.class_name)
    if rule is None:
        return (None,)
    try:
        found = rule(o, tuple(None if x is None else tuple(x) for x in inputs))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return (None,)  # the configuration is not what Keras writes
    return tuple(found) if isinstance(found, list) else (found,)


# ---------------------------------------------------------------------------------------- walking


class Followed(Protocol[T]):
    """What `walk` follows through a graph: a value for each tensor."""

    unknown: T
    """The value of a tensor that nothing is known of."""

    def layer(self, node: Node, inputs: tuple[T, ...], *, path: str, call: int) -> Call[T]:
        """What a call of a layer takes, which its configuration may know better, and gives.

        A model's input layer is called with what the model is called with.
        """

    def enter(self, value: T) -> T:
        """The value of one step, inside a model that TimeDistributed calls for each."""

    def leave(self, value: T) -> T:
        """The value of all steps, from that of one."""


def walk(graph: Graph, given: Sequence[T], followed: Followed[T]) -> dict[str, tuple[Call[T], ...]]:
    """Follow values through a graph and every model in it, in the order of the data.

    Args:
        graph: the model.
        given: the values of its inputs; there may be fewer than it has.
        followed: what a layer does to a value.

    Returns:
        By path, for every layer that is no model: its calls in order. A layer that is at several
        paths has all of them at each.
    """
    found: dict[str, list[tuple[tuple[int, ...], Call[T]]]] = {}
    first: dict[str, str] = {}
    left = MAX_CALLS

    def model(graph: Graph, given: Sequence[T], prefix: str, above: tuple[int, ...]) -> list[T]:
        nonlocal left
        fed = {ref.layer: value for ref, value in zip(graph.inputs, given, strict=False)}
        made: dict[tuple[str, int], Sequence[T]] = {}

        def value(ref: Ref) -> T:
            values = made.get((ref.layer, ref.call), ())
            return values[ref.tensor] if ref.tensor < len(values) else followed.unknown

        for node, number in _in_order(graph) if left > 0 else ():
            left -= 1
            refs = node.inputs[number] if number < len(node.inputs) else ()
            inputs = tuple(map(value, refs))
            if node.name in fed and not refs:
                inputs = (fed[node.name],)
            elif not refs and not graph.inputs and node is graph.nodes[0]:
                inputs = tuple(given)  # a Sequential without an input layer
            path, place = prefix + node.name, (*above, number)
            around = first.get(prefix[:-1], prefix[:-1])
            first[path] = node.same_as or (f"{around}/{node.name}" if around else node.name)
            if node.graph is None:
                call = followed.layer(node, inputs, path=path, call=number)
                made[node.name, number] = call.outputs
                found.setdefault(first[path], []).append((place, call))
                continue
            for _ in range(node.wrapped):
                inputs = tuple(map(followed.enter, inputs))
            results = model(node.graph, inputs, f"{path}/", place)
            for _ in range(node.wrapped):
                results = list(map(followed.leave, results))
            made[node.name, number] = results
        return list(map(value, graph.outputs))

    model(graph, given, "", ())
    calls = {
        path: tuple(call for _, call in sorted(made, key=lambda entry: entry[0]))
        for path, made in found.items()
    }
    return {path: calls[origin] for path, origin in first.items() if origin in calls}


def _in_order(graph: Graph) -> Iterator[tuple[Node, int]]:
    """All calls of all layers, each after those whose outputs it takes."""
    calls = [(node, number) for node in graph.nodes for number in range(max(1, len(node.inputs)))]
    waits: dict[tuple[str, int], int] = {}
    feeds: dict[tuple[str, int], list[tuple[Node, int]]] = {}
    for node, number in calls:
        refs = node.inputs[number] if number < len(node.inputs) else ()
        waits[node.name, number] = len(refs)
        for ref in refs:
            feeds.setdefault((ref.layer, ref.call), []).append((node, number))
    ready = [(node, number) for node, number in calls if not waits[node.name, number]]
    for node, number in ready:  # grows while it is read
        for fed, its in feeds.get((node.name, number), ()):
            waits[fed.name, its] -= 1
            if not waits[fed.name, its]:
                ready.append((fed, its))
    return iter(ready)


class _Shapes:
    """Shapes, as `walk` follows them."""

    unknown: Shape = None

    def layer(self, node: Node, inputs: tuple[Shape, ...], *, path: str, call: int) -> Call[Shape]:
        given = taken(node, inputs, call)
        made = outputs(node.class_name, node.config, inputs=given, operation=node.operation)
        return Call(given, made)

    def enter(self, value: Shape) -> Shape:
        return step(value)

    def leave(self, value: Shape) -> Shape:
        return steps(value)


def step(shape: Shape) -> Shape:
    """The shape of one step of a sequence."""
    return shape and (shape[0], *shape[2:])


def steps(shape: Shape) -> Shape:
    """The shape of a sequence, however long, from that of one step."""
    return shape and (shape[0], None, *shape[1:])


def inputs_of(config: Mapping[str, JSON] | None) -> tuple[Shape, ...]:
    """What a model takes, where its configuration says it beside the layers: a Sequential's may."""
    inner = (config or {}).get("config")
    written = inner.get("build_input_shape") if isinstance(inner, Mapping) else None
    shape = _as_shape(written)
    return () if shape is None else (shape,)


def taken(node: Node, inputs: tuple[Shape, ...], call: int) -> tuple[Shape, ...]:
    """The shapes that a call takes, the unknown ones as the configuration has them.

    Keras 3 writes a shape with each tensor of a call, and of every layer what it was built for; a
    legacy first layer says what the model takes.
    """
    written_here = node.calls[call] if call < len(node.calls) else None
    inputs = _filled(inputs, [_as_shape(shape) for shape in _recorded(written_here)])
    if call or (inputs and None not in inputs):
        return inputs
    build = node.build or {}
    written: list[JSON] = [node.config.get("batch_shape") or node.config.get("batch_input_shape")]
    if written == [None]:
        if isinstance(by_name := build.get("shapes_dict"), Mapping):
            written = list(by_name.values())
        elif isinstance(given := build.get("input_shape"), list) and given:
            written = given if all(isinstance(x, list) for x in given) else [given]
    known = [_as_shape(shape) for shape in written]
    if not inputs:
        return tuple(known) if None not in known else ()
    return _filled(inputs, known)


def _filled(inputs: tuple[Shape, ...], known: Sequence[Shape]) -> tuple[Shape, ...]:
    """The unknown ones by others, where there is one for each."""
    if len(known) != len(inputs):
        return inputs
    return tuple(a if a is not None else b for a, b in zip(inputs, known, strict=True))


def _recorded(argument: JSON) -> Iterator[JSON]:
    """The shapes of the tensors in a call's arguments, in their order."""
    if isinstance(argument, list):
        for part in argument:
            yield from _recorded(part)
    elif isinstance(argument, Mapping):
        if argument.get("class_name") == "__keras_tensor__":
            config = argument.get("config")
            yield config.get("shape") if isinstance(config, Mapping) else None
        else:
            for part in argument.values():
                yield from _recorded(part)


def _as_shape(written: JSON) -> Shape:
    """A shape as a configuration writes it."""
    if isinstance(written, list | tuple) and all(_is_size(n) for n in written):
        return tuple(written)
    return None


def _is_size(n: JSON) -> bool:
    return n is None or (isinstance(n, int) and not isinstance(n, bool) and n >= 0)


# ------------------------------------------------------------------------------------------ rules

Sizes = tuple[int | None, ...]
Rule = Callable[[Options, tuple[Shape, ...]], "Shape | list[Shape]"]


def _known(inputs: Sequence[Shape], number: int = 0) -> Sizes:
    """One input's shape, where a rule cannot do without."""
    shape = inputs[number]
    if shape is None:
        raise ValueError("the shape is unknown")
    return shape


def _same(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    return _known(inputs)


def _product(sizes: Sequence[int | None]) -> int | None:
    return None if None in sizes else math.prod(n for n in sizes if n is not None)


def _window(size: int | None, kernel: int, stride: int, padding: str) -> int | None:
    """How many places a window of this extent has."""
    if size is None:
        return None
    match padding:
        case "valid":
            places = (size - kernel) // stride + 1
        case "same" | "causal":
            places = -(-size // stride)
        case "full":  # Theano's
            places = (size + kernel - 2) // stride + 1
        case _:
            raise ValueError(f"padding {padding!r}")
    if places <= 0:
        raise ValueError("the window is larger than the image")
    return places


def _resized(
    o: Options, x: Sizes, sizes: Sequence[int | None], channels: int | None = None
) -> Shape:
    """The shape with other spatial sizes, and with other channels where given."""
    if len(x) < o.rank + 2 or len(sizes) != o.rank:
        raise ValueError("the shape has too few dimensions")
    if o.channels_first:
        batch = x[: -o.rank - 1]
        return (*batch, x[-o.rank - 1] if channels is None else channels, *sizes)
    return (*x[: -o.rank - 1], *sizes, x[-1] if channels is None else channels)


def _channels(o: Options, x: Sizes) -> int | None:
    return x[-o.rank - 1] if o.channels_first else x[-1]


def _convolved(o: Options, x: Sizes) -> tuple[int | None, ...]:
    return tuple(
        _window(size, (kernel - 1) * dilation + 1, stride, o("padding", "valid"))
        for size, kernel, stride, dilation in zip(
            o.spatial(x),
            o.each("kernel_size"),
            o.each("strides", 1),
            o.each("dilation_rate", 1),
            strict=True,
        )
    )


def _conv(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    x = _known(inputs)
    return _resized(o, x, _convolved(o, x), int(o("filters")))


def _depthwise(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    x = _known(inputs)
    channels = _channels(o, x)
    made = None if channels is None else channels * int(o("depth_multiplier", 1))
    return _resized(o, x, _convolved(o, x), made)


def transposed(
    size: int | None, *, kernel: int, stride: int, dilation: int, padding: str, extra: int | None
) -> int | None:
    """The extent that a transposed convolution gives.

    >>> transposed(5, kernel=3, stride=2, dilation=1, padding="same", extra=None)
    10
    """
    if size is None:
        return None
    extent = (kernel - 1) * dilation + 1
    if padding == "valid":
        return (size - 1) * stride + extent + (max(stride - extent, 0) if extra is None else extra)
    return size * stride if extra is None else (size - 1) * stride + extent % 2 + extra


def _conv_transpose(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    x = _known(inputs)
    extra = o("output_padding")
    extras = (None,) * o.rank if extra is None else o.each("output_padding")
    sizes = [
        transposed(
            size,
            kernel=kernel,
            stride=stride,
            dilation=dilation,
            padding=o("padding", "valid"),
            extra=more,
        )
        for size, kernel, stride, dilation, more in zip(
            o.spatial(x),
            o.each("kernel_size"),
            o.each("strides", 1),
            o.each("dilation_rate", 1),
            extras,
            strict=True,
        )
    ]
    return _resized(o, x, sizes, int(o("filters")))


def _pool(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    x = _known(inputs)
    pool = o.each("pool_size", 2)
    strides = o.each("strides", pool)
    padding = o("padding", "valid")
    windows = zip(o.spatial(x), pool, strides, strict=True)
    return _resized(o, x, [_window(n, size, step, padding) for n, size, step in windows])


def _global_pool(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    x = _known(inputs)
    if o("keepdims"):
        return _resized(o, x, (1,) * o.rank)
    if len(x) != o.rank + 2:
        raise ValueError("the shape has another number of dimensions")
    return (x[0], _channels(o, x))


def _adaptive_pool(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    return _resized(o, _known(inputs), o.each("output_size"))


def _grown(o: Options, inputs: tuple[Shape, ...], name: str, sign: int) -> Shape:
    x = _known(inputs)
    sides = zip(o.spatial(x), o.sides(name, 1), strict=True)
    return _resized(o, x, [None if n is None else n + sign * (a + b) for n, (a, b) in sides])


def _zero_padding(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    return _grown(o, inputs, "padding", 1)


def _cropping(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    return _grown(o, inputs, "cropping", -1)


def _up_sampling(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    x = _known(inputs)
    sizes = zip(o.spatial(x), o.each("size", 2), strict=True)
    return _resized(o, x, [None if n is None else n * by for n, by in sizes])


def _image_of_size(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    x = _known(inputs)
    sizes = (int(o("height")), int(o("width")))
    if len(x) < 3:
        raise ValueError("an image has at least three dimensions")
    return (*x[:-2], *sizes) if o.channels_first else (*x[:-3], *sizes, x[-1])


def _flatten(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    x = _known(inputs)
    return (x[0], _product(x[1:]))


def _reshape(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    x = _known(inputs)
    wanted = [int(n) for n in o("target_shape")]
    if wanted.count(-1) > 1 or min(wanted, default=0) < -1:
        raise ValueError("at most one extent can follow from the others")
    total = _product(x[1:])
    rest = math.prod(n for n in wanted if n != -1)
    if total is not None and (total % rest if -1 in wanted else total != rest):
        raise ValueError("the total size is another one")
    follows = None if total is None else total // rest
    return (x[0], *(follows if n == -1 else n for n in wanted))


def _permute(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    x = _known(inputs)
    dims = [int(n) for n in o("dims")]
    if sorted(dims) != list(range(1, len(x))):
        raise ValueError("no permutation")
    return (x[0], *(x[n] for n in dims))


def _repeat_vector(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    batch, features = _known(inputs)
    return (batch, int(o("n")), features)


def _dense(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    return (*_known(inputs)[:-1], int(o("units")))


def _embedding(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    return (*_known(inputs), int(o("output_dim")))


def _einsum(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    x = _known(inputs)
    terms, made = str(o("equation")).replace(" ", "").split("->")
    taken = terms.split(",")[0]
    shape = o("output_shape")
    wanted = list(shape) if isinstance(shape, list | tuple) else [shape]
    if "..." in taken:
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(x) - len(taken) + 3]
        taken, made = taken.replace("...", letters), made.replace("...", letters)
    sizes = dict(zip(taken, x, strict=True))
    own = dict(zip(reversed(made), reversed(wanted), strict=False))
    return tuple(sizes[letter] if letter in sizes else own[letter] for letter in made)


def _states(o: Options) -> list[int]:
    """The sizes of a recurrent layer's states; it gives the first one of its last cell."""
    cell = o("cell")
    if not isinstance(cell, Mapping):
        return [int(o("units"))] * (2 if o.class_name == "LSTM" else 1)
    inner = options(str(cell["class_name"]).removesuffix("Cell"), cell["config"])
    if inner.class_name == "StackedRNNCells":
        return [n for one in inner("cells") for n in _states(options("RNN", {"cell": one}))]
    if inner.class_name not in ("SimpleRNN", "GRU", "LSTM"):
        raise ValueError("a cell of a user's own")
    return _states(inner)


def _recurrent(o: Options, inputs: tuple[Shape, ...]) -> list[Shape]:
    x = _known(inputs)
    states = _states(o)
    # Both states of an LSTM have one size, so the last one's is that of the output.
    given: Shape = (x[0], x[1], states[-1]) if o("return_sequences") else (x[0], states[-1])
    return [given, *((x[0], n) for n in states if o("return_state"))]


def _conv_lstm(o: Options, inputs: tuple[Shape, ...]) -> list[Shape]:
    x = _known(inputs)
    one = _known([_conv(o, (step(x),))])
    given = (x[0], x[1], *one[1:]) if o("return_sequences") else one
    return [given, *[one] * (2 if o("return_state") else 0)]


def _wrapped(o: Options) -> tuple[str, Mapping[str, JSON]]:
    layer = o("layer")
    return str(layer["class_name"]), layer["config"]


def _time_distributed(o: Options, inputs: tuple[Shape, ...]) -> list[Shape]:
    x = _known(inputs)
    class_name, config = _wrapped(o)
    made = outputs(class_name, config, inputs=[step(x)])
    return [y and (y[0], x[1], *y[1:]) for y in made]


def _wrapper(o: Options, inputs: tuple[Shape, ...]) -> list[Shape]:
    class_name, config = _wrapped(o)
    return list(outputs(class_name, config, inputs=inputs))


def _bidirectional(o: Options, inputs: tuple[Shape, ...]) -> list[Shape]:
    class_name, config = _wrapped(o)
    given, *states = outputs(class_name, config, inputs=inputs[:1])
    # A missing merge mode is the default, a null one is None.
    match o.given.get("merge_mode", "concat"):
        case None:
            return [given, given, *states, *states]
        case "concat":
            x = _known([given])
            return [(*x[:-1], None if x[-1] is None else 2 * x[-1]), *states, *states]
        case _:
            return [given, *states, *states]


def _broadcast(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    """As NumPy does it: missing dimensions are put in front."""
    made = _known(inputs)
    for number in range(1, len(inputs)):
        x = _known(inputs, number)
        rank = max(len(made), len(x))
        pairs = zip((1,) * (rank - len(made)) + made, (1,) * (rank - len(x)) + x, strict=True)
        made = tuple(_wider(a, b) for a, b in pairs)
    return made


def _merged(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    """As merge layers do it: missing dimensions are put behind the batch."""
    known = [_known(inputs, number) for number in range(len(inputs))]
    rank = max(map(len, known))
    spread = [(x[0], *(1,) * (rank - len(x)), *x[1:]) for x in known]
    made = _broadcast(o, tuple(spread))
    return made and tuple(
        None if n != 1 and any(x[axis] is None for x in spread) else n
        for axis, n in enumerate(made)
    )


def _wider(a: int | None, b: int | None) -> int | None:
    if a == 1:
        return b
    if b == 1 or a == b:
        return a
    if None not in (a, b):
        raise ValueError("the shapes do not go together")
    return b if a is None else a


def _concatenate(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    parts = [_known(inputs, n) for n in range(len(inputs))]
    if len({len(x) for x in parts}) != 1:
        raise ValueError("the shapes have unlike numbers of dimensions")
    axis = range(len(parts[0]))[int(o("axis", -1))]
    sizes = [x[axis] for x in parts]
    made = [next((n for n in column if n is not None), None) for column in zip(*parts, strict=True)]
    made[axis] = None if None in sizes else sum(n for n in sizes if n is not None)
    return tuple(made)


def _dot(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    a, b = list(_known(inputs)), list(_known(inputs, 1))
    axes = o("axes", -1)
    first, second = (axes, axes) if isinstance(axes, int) else axes
    del a[first]
    del b[second]
    made = (*a, *b[1:])
    return made if len(made) > 1 else (*made, 1)


def _merge(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    """The layer Merge of Keras 1, which names what it does."""
    match o("mode", "sum"):
        case "concat":
            return _concatenate(o, inputs)
        case "dot":
            return _dot(o, inputs)
        case "sum" | "mul" | "ave" | "max" | "min":
            return _merged(o, inputs)
        case _:
            return None


def _attention(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    return (*_known(inputs)[:-1], _known(inputs, 1)[-1])


def _multi_head(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    query = _known(inputs)
    made = o("output_shape")
    if made is None:
        return query
    return (*query[:-1], *(made if isinstance(made, list | tuple) else (made,)))


def _category(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    x = _known(inputs)
    one_hot = o("output_mode", "multi_hot") == "one_hot"
    kept = x if one_hot and (x[-1] != 1 or len(x) == 1) else x[:-1]
    return (*kept, int(o("num_tokens")))


def _index(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    return _known(inputs) if o("output_mode", "int") == "int" else None


def _spectrogram(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    x = _known(inputs)
    step = int(o("sequence_stride", 256))
    frames = None if x[-1] is None else (x[-1] + step + 1) // step
    return (*x[:-1], int(o("num_mel_bins", 128)), frames)


def _transformed(o: Options, inputs: tuple[Shape, ...]) -> Shape:
    x = _known(inputs)
    length = int(o("frame_length", 256))
    bins = int(o("fft_length", length)) // 2 + 1
    channels = x[1] if o.channels_first else x[-1]
    frames = _window(
        x[2] if o.channels_first else x[1],
        length,
        int(o("frame_step", length // 2)),
        o("padding", "valid"),
    )
    bins *= 2 if o("mode", "log") == "stft" else 1
    if o("expand_dims"):
        apart = (channels, frames, bins) if o.channels_first else (frames, bins, channels)
        return (x[0], *apart)
    merged = None if channels is None else channels * bins
    return (x[0], merged, frames) if o.channels_first else (x[0], frames, merged)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


IDENTITIES: Final = _words(
    """
    InputLayer Identity Activation Softmax ReLU LeakyReLU ELU PReLU ThresholdedReLU SReLU
    ParametricSoftplus
    BatchNormalization LayerNormalization GroupNormalization RMSNormalization UnitNormalization
    Normalization Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianDropout
    GaussianNoise AlphaDropout ActivityRegularization Masking Rescaling Highway LayerScale
    GroupedQueryAttention Discretization Hashing AutoContrast RandomBrightness
    RandomColorDegeneration RandomColorJitter RandomContrast RandomElasticTransform RandomErasing
    RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective
    RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear
    RandomTranslation RandomZoom Equalization Solarization MixUp CutMix AugMix RandAugment
    ContrastLimitedAdaptiveHistogramEqualization
    """
)
MERGES: Final = ("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract")
RANKS: Final = (1, 2, 3)

RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(IDENTITIES, _same),
    **{f"{name}{n}D": _conv for n in RANKS for name in ("Conv", "SeparableConv")},
    **{f"LocallyConnected{n}D": _conv for n in (1, 2)},
    **{f"DepthwiseConv{n}D": _depthwise for n in (1, 2)},
    **{f"Conv{n}DTranspose": _conv_transpose for n in RANKS},
    **{f"{name}Pooling{n}D": _pool for n in RANKS for name in ("Max", "Average")},
    **{f"Global{name}Pooling{n}D": _global_pool for n in RANKS for name in ("Max", "Average")},
    **{f"Adaptive{name}Pooling{n}D": _adaptive_pool for n in RANKS for name in ("Max", "Average")},
    **{f"ZeroPadding{n}D": _zero_padding for n in RANKS},
    **{f"Cropping{n}D": _cropping for n in RANKS},
    **{f"UpSampling{n}D": _up_sampling for n in RANKS},
    **dict.fromkeys(("Resizing", "CenterCrop", "RandomCrop"), _image_of_size),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "RepeatVector": _repeat_vector,
    "Dense": _dense,
    "MaxoutDense": _dense,
    "EinsumDense": _einsum,
    "Embedding": _embedding,
    "ReversibleEmbedding": _embedding,
    **dict.fromkeys(("SimpleRNN", "GRU", "LSTM", "RNN"), _recurrent),
    **{f"ConvLSTM{n}D": _conv_lstm for n in RANKS},
    "Bidirectional": _bidirectional,
    "TimeDistributed": _time_distributed,
    "SpectralNormalization": _wrapper,
    "Wrapper": _wrapper,
    **dict.fromkeys(MERGES, _merged),
    "Concatenate": _concatenate,
    "Dot": _dot,
    "Merge": _merge,
    **dict.fromkeys(("Attention", "AdditiveAttention"), _attention),
    "MultiHeadAttention": _multi_head,
    "CategoryEncoding": _category,
    **dict.fromkeys(("StringLookup", "IntegerLookup"), _index),
    "MelSpectrogram": _spectrogram,
    "STFTSpectrogram": _transformed,
}

# Operations of keras.ops in a functional graph that work element by element.
ELEMENTWISE: Final = _words(
    """
    Abs Absolute Add Celu Clip Cos Divide Elu Erf Exp Expm1 Gelu HardShrink HardSigmoid HardSwish
    HardTanh LeakyRelu Log Log1p LogSigmoid Maximum Minimum Multiply Negative Power Reciprocal
    Relu Relu6 Round Rsqrt Selu Sigmoid Sign Silu Sin SoftShrink Softplus Softsign Sqrt Square
    SquarePlus Subtract Tanh TanhShrink Threshold TrueDivide
    """
)
OPERATIONS: Final[Mapping[str, Rule]] = dict.fromkeys(ELEMENTWISE, _broadcast)
