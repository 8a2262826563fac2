"""Keras layers with random weights, and their weights in another convention: what oracles share.

An oracle test runs a layer in Keras, exports its weights, and runs the same layer elsewhere. This
module has the Keras side: `GRID` lists the layers over their options, `exported` gives their
weights in a convention, `returned` the way back. The other side, a torch module or an ONNX model,
is built in the tests from the layer's options and the shape of its input, never from the shapes of
the exported weights: those are what is being tested.

Sizes are distinct primes, so that a swapped axis is an error of shape; and square besides, since
there only the values can tell.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import import_module
from itertools import product
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tf_keras

from kerasport.conventions import Row, convention, rows
from kerasport.identify import identify
from kerasport.model import Layer, Snapshot, Source, Tensor
from kerasport.tiles import fill
from kerasport.transpose import Plan, moved, plan

Array = npt.NDArray[Any]
TOLERANCE = 1e-5  # float32 sums of some hundred terms, relative to the largest output


# ------------------------------------------------------------------------ from Keras to kerasport


def stored(layer: Any) -> Layer:
    """The layer as a file of numbered variables holds it: its own Keras says under which keys."""
    weights = {
        key: Tensor.of(f"{layer.name}/{key}", np.asarray(value), trainable=trainable)
        for key, value, trainable in _variables(layer, "", set())
    }
    package = keras if isinstance(layer, keras.Layer) else tf_keras
    config = package.saving.serialize_keras_object(layer)["config"]
    return Layer(layer.name, type(layer).__name__, config, weights)


def _variables(layer: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Array, bool | None]]:
    package = "keras" if isinstance(layer, keras.Layer) else "tf_keras"
    saving = import_module(f"{package}.src.saving.saving_lib")
    if id(layer) in seen:
        return
    seen.add(id(layer))
    own: dict[str, Any] = {}
    layer.save_own_variables(own)
    for number, variable in own.items():
        value = variable.numpy() if hasattr(variable, "numpy") else variable
        yield f"{path}{number}", np.asarray(value), getattr(variable, "trainable", None)
    walk = getattr(saving, "_walk_saveable", None) or saving._walk_trackable
    for attribute, child in walk(layer):
        inside: Iterable[tuple[str, Any]] = [(attribute, child)]
        if isinstance(child, list | tuple):
            inside = [(f"{attribute}/{name}", cell) for name, cell in _numbered(child)]
        for name, part in inside:
            if isinstance(part, keras.Layer | tf_keras.layers.Layer):
                yield from _variables(part, f"{path}{name}/", seen)


def _numbered(layers: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Layers in a list as Keras calls them: by class, and counted."""
    stems: dict[str, int] = {}
    for layer in layers:
        stem = keras.src.utils.naming.to_snake_case(type(layer).__name__)
        yield f"{stem}_{stems[stem]}" if stem in stems else stem, layer
        stems[stem] = stems.get(stem, 0) + 1


@cache
def snapshot(layer: Any) -> Snapshot:
    """The layer alone as a snapshot, with kind, roles and layouts."""
    return identify(Snapshot(Source("memory", "live"), (stored(layer),)))


def exported(layer: Any, to: str) -> dict[str, Array]:
    """The weights in another convention, by their name below the layer."""
    steps = plan(snapshot(layer), to=to)
    steps.refuse_losses()
    tensors = steps.apply()
    below = len(layer.name) + 1
    names = [*tensors, *tensors.aliases]
    return {name[below:].replace("/", "."): tensors[name].numpy() for name in names}


def returned(steps: Plan, targets: Mapping[str, Array] | None = None) -> dict[str, Array]:
    """The source's tensors, put together from the plan's targets by the inverted copies.

    Args:
        steps: the plan of the way there.
        targets: the targets' values, where they are not the plan's own.
    """
    back: dict[str, Array] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for move in steps.moves:
        target = (move.tensor().numpy() if targets is None else targets[move.name]).reshape(-1)
        for source in move.sources:
            shapes[source.name] = source.shape
            # No weight here has this value: an element that nothing writes is seen.
            back.setdefault(source.name, np.full(source.size, 115, source.dtype))
        for copy in move.copies()[0]:
            fill(back[move.sources[copy.source].name], [copy.inverted()], [target])
    return {name: array.reshape(shapes[name]) for name, array in back.items()}


def onward(steps: Plan, found: Snapshot, to: str) -> dict[str, Array] | None:
    """From a plan's targets to a third convention, by the tables of the two alone.

    Returns:
        The tensors by name, or None where the plan made one axis of several: what it wrote does not
        say any more which they were.
    """
    made: dict[str, Array] = {}
    for layer in found.layers:
        own = [move for move in steps.moves if move.layer == layer.path and move.sources]
        row = rows(convention(steps.convention)[str(layer.kind)])
        case = next(case for case in row if case.holds(layer.sizes))
        if case.same:
            return None
        assert isinstance(case.slots, tuple)
        names = sorted((slot.name for slot in case.slots), key=len, reverse=True)
        weights = {
            next(name for name in names if move.name.endswith(f".{name}")): replace(
                move.tensor(), layout=move.layout, at=move.at
            )
            for move in own
        }
        other = replace(layer, weights=weights, convention=steps.convention)
        moves, _ = moved(other, convention(to), layer.path)
        made |= {move.name: move.tensor().numpy() for move in moves}
    return made


def deviation(found: Array, expected: Array) -> float:
    """The largest error, relative to the largest expected value."""
    assert found.shape == expected.shape, f"{found.shape} is not {expected.shape}"
    scale = max(1.0, float(np.abs(expected).max()))
    return float(np.abs(found.astype(np.float64) - expected).max()) / scale


def misread(to: str, kind: str, sentences: Mapping[str, str]) -> Row:
    """The row of a kind, with other sentences for some of its slots: what a slip would look like.

    Args:
        to: the convention.
        kind: the row; of several cases, the first is taken.
        sentences: slot name → wrong sentence.
    """
    case = next(rows(convention(to)[kind]))
    assert isinstance(case.slots, tuple)
    names = {slot.name for slot in case.slots}
    assert sentences.keys() <= names, f"{sorted(sentences)} not all in {sorted(names)}"
    slots = tuple(
        slot._replace(layout=sentences.get(slot.name, slot.layout)) for slot in case.slots
    )
    return (replace(case, slots=slots, where=()),)


# ------------------------------------------------------------------------------- layers, by option


@dataclass(frozen=True, slots=True)
class Trial:
    """One layer with one choice of its options.

    Attributes:
        family: whose reference on the other side runs it.
        label: its options, as the test's name shows them.
        make: builds the layer; called anew by every test.
        shapes: the shapes of its inputs, batch included.
        low: integer inputs below this number instead of normal ones.
        call: runs the layer on its inputs; None: as it is.
        variables: makes the layer's variables; None: for the shapes of its inputs.
    """

    family: str
    label: str
    make: Callable[[], Any]
    shapes: tuple[tuple[int, ...], ...]
    low: int = 0
    call: Callable[..., Any] | None = None
    variables: Callable[..., None] | None = None

    def __str__(self) -> str:
        return f"{self.family}-{self.label}"

    def build(self) -> Built:
        """The layer with random weights, random inputs, and what Keras puts out for them."""
        return _built(self)


@dataclass(frozen=True, eq=False, slots=True)
class Built:
    """A layer with weights, its inputs, and what Keras puts out for them."""

    layer: Any
    inputs: tuple[Array, ...]
    output: Array


@cache  # torch and ONNX are compared with the same run of Keras
def _built(trial: Trial) -> Built:
    return built_anew(trial)


def built_anew(trial: Trial) -> Built:
    """The layer with random weights, which nothing keeps."""
    rng = np.random.default_rng(20260211)
    inputs = tuple(
        rng.integers(0, trial.low, shape)
        if trial.low
        else rng.normal(size=shape).astype(np.float32)
        for shape in trial.shapes
    )
    layer = trial.make()
    if trial.variables is not None:
        trial.variables(layer, *trial.shapes)
    else:
        layer.build(*trial.shapes)  # much faster than a first call
    layer.set_weights([_random(weight, rng) for weight in layer.weights])
    output = layer(*inputs) if trial.call is None else trial.call(layer, *inputs)
    return Built(layer, inputs, np.asarray(output))


def _random(variable: Any, rng: np.random.Generator) -> Array:
    if None in variable.shape:  # grows with what it has seen
        return np.asarray(variable)
    shape = tuple(variable.shape)
    if "int" in str(variable.dtype):
        return rng.integers(1, 99, shape)
    values: Array = rng.normal(size=shape).astype(np.float32)
    name = variable.path if hasattr(variable, "path") else variable.name
    if any(word in name for word in ("variance", "stddev", "kernel_scale")):
        values = np.abs(values) + np.float32(0.5)
    return values


def label(*words: object, **named: object) -> str:
    """A test's name that shows the options."""
    said = [str(word) for word in words]
    for key, value in named.items():
        if value is True or value is False:
            said.append(key if value else f"no_{key}")
        else:
            said.append(f"{key}={value}")
    return ",".join(said).replace(" ", "")


L = keras.layers
Options = Mapping[str, Any]
SPACE = (11, 7, 5)
BOTH = (True, False)


def _dense() -> Iterator[Trial]:
    for (n, units), bias, lead in product([(3, 5), (5, 5), (7, 2)], BOTH, [(2,), (2, 7)]):
        yield Trial(
            "Dense",
            label(n, units, bias=bias, rank=len(lead) + 1),
            partial(L.Dense, units, use_bias=bias),
            ((*lead, n),),
        )


def _kernels(rank: int) -> list[tuple[str, tuple[int, ...], int, int]]:
    """Kernel size, channels in and channels out, of distinct primes and of one number."""
    return [("prime", (2, 3, 5)[:rank], 7, 11), ("square", (3,) * rank, 3, 3)]


def _convolutions() -> Iterator[Trial]:
    for rank in (1, 2, 3):
        steps: list[Options] = [
            {"strides": 1},
            {"strides": (2, 3, 1)[:rank]},
            {"strides": 3},
        ]
        if rank < 3:  # TensorFlow has no dilated Conv3D on a CPU
            steps += [{"dilation_rate": 2}, {"dilation_rate": (3, 1)[:rank]}]
        for (name, size, i, o), step, padding, groups, bias in product(
            _kernels(rank), steps, ("valid", "same"), (1, 2), BOTH
        ):
            # A group sees `i` channels, so that the kernel's axes keep their sizes.
            yield Trial(
                f"Conv{rank}D",
                label(name, **step, padding=padding, groups=groups, bias=bias),
                partial(
                    getattr(L, f"Conv{rank}D"),
                    o * groups,
                    size,
                    groups=groups,
                    use_bias=bias,
                    padding=padding,
                    **step,
                ),
                ((2, *SPACE[:rank], i * groups),),
            )
    for stride, dilation in ((1, 1), (2, 1), (1, 3)):
        yield Trial(
            "Conv1D",
            label("causal", strides=stride, dilation=dilation),
            partial(L.Conv1D, 5, 3, strides=stride, dilation_rate=dilation, padding="causal"),
            ((2, 13, 7),),
        )


def _transposed() -> Iterator[Trial]:
    for rank in (1, 2, 3):
        layer = getattr(L, f"Conv{rank}DTranspose")
        space = (3, 4, 2)[:rank]
        for (name, size, i, o), stride, padding, bias in product(
            _kernels(rank), (1, 2, (2, 3, 1)[:rank], 5), ("valid", "same"), BOTH
        ):
            yield Trial(
                f"Conv{rank}DTranspose",
                label(name, strides=stride, padding=padding, bias=bias),
                partial(layer, o, size, strides=stride, padding=padding, use_bias=bias),
                ((2, *space, i),),
            )
        for padding in ("valid", "same"):
            yield Trial(
                f"Conv{rank}DTranspose",
                label("output_padding", padding=padding),
                partial(layer, 5, 3, strides=2, padding=padding, output_padding=1),
                ((2, *space, 7),),
            )


def _depthwise() -> Iterator[Trial]:
    steps: list[Options] = [{"strides": 1}, {"strides": 2}, {"dilation_rate": 2}]
    for rank, mult, step, padding, bias in product(
        (1, 2), (1, 2, 3), steps, ("valid", "same"), BOTH
    ):
        for name, size, i, o in (("prime", (2, 5)[:rank], 7, 11), ("square", (3,) * rank, 3, 3)):
            said = label(name, mult=mult, **step, padding=padding, bias=bias)
            more = {"depth_multiplier": mult, "padding": padding, "use_bias": bias, **step}
            shapes = ((2, *(11, 9)[:rank], i),)
            depthwise = partial(getattr(L, f"DepthwiseConv{rank}D"), size, **more)
            yield Trial(f"DepthwiseConv{rank}D", said, depthwise, shapes)
            separable = partial(getattr(L, f"SeparableConv{rank}D"), o, size, **more)
            yield Trial(f"SeparableConv{rank}D", said, separable, shapes)


def _normalizations() -> Iterator[Trial]:
    spaces: list[tuple[int, ...]] = [(), (7,), (3, 5)]
    for scale, center, epsilon, space in product(BOTH, BOTH, (1e-3, 0.1), spaces):
        yield Trial(
            "BatchNormalization",
            label(scale=scale, center=center, epsilon=epsilon, rank=len(space) + 2),
            partial(L.BatchNormalization, scale=scale, center=center, epsilon=epsilon),
            ((11, *space, 13),),
        )
    for scale, center in product(BOTH, BOTH):
        yield Trial(
            "BatchNormalization",
            label("axis=1", scale=scale, center=center),
            partial(L.BatchNormalization, axis=1, scale=scale, center=center),
            ((3, 5, 7, 2),),
        )
    axes: list[int | list[int]] = [-1, [-1], [2], [-2, -1], [1, 2, 3]]
    for axis, scale, center, epsilon in product(axes, BOTH, BOTH, (1e-3, 0.1)):
        yield Trial(
            "LayerNormalization",
            label(axis=axis, scale=scale, center=center, epsilon=epsilon),
            partial(L.LayerNormalization, axis=axis, scale=scale, center=center, epsilon=epsilon),
            ((2, 3, 5, 7),) if axis != [2] else ((2, 3, 5),),
        )
    for groups, scale, center, space in product((1, 2, 3, -1), BOTH, BOTH, spaces[1:]):
        yield Trial(
            "GroupNormalization",
            label(groups=groups, scale=scale, center=center, rank=len(space) + 2),
            partial(L.GroupNormalization, groups=groups, scale=scale, center=center),
            ((2, *space, 6),),
        )


def _lookups() -> Iterator[Trial]:
    for n, width in ((11, 5), (5, 5), (2, 7)):
        for shape in ((3,), (3, 7)):
            yield Trial(
                "Embedding",
                label(n, width, rank=len(shape)),
                partial(L.Embedding, n, width),
                (shape,),
                low=n,
            )


def _slopes() -> Iterator[Trial]:
    for rank, channels in product((1, 2, 3, 4), (7, 3)):
        shared = tuple(range(1, rank))
        for axes in dict.fromkeys((shared, (), shared[:1])):
            yield Trial(
                "PReLU" if axes == shared else "PReLUPerPosition",
                label(shared_axes=axes, rank=rank + 1, channels=channels),
                partial(L.PReLU, shared_axes=axes or None),
                ((2, *(3, 5, 2)[: rank - 1], channels),),
            )


CELLS: Mapping[str, Callable[..., keras.Layer]] = {
    "SimpleRNN": L.SimpleRNN,
    "SimpleRNN-relu": partial(L.SimpleRNN, activation="relu"),
    "GRU": L.GRU,
    "GRUResetBefore": partial(L.GRU, reset_after=False),
    "LSTM": L.LSTM,
}
# For a layer around a cell of one's own choice.
AROUND: Mapping[str, Callable[..., keras.Layer]] = {
    "SimpleRNN": L.SimpleRNNCell,
    "GRU": L.GRUCell,
    "GRUResetBefore": partial(L.GRUCell, reset_after=False),
    "LSTM": L.LSTMCell,
}


def _around(cell: Callable[..., keras.Layer], bias: bool) -> keras.Layer:
    return L.RNN(cell(5, use_bias=bias), return_sequences=True)


def _both(layer: Callable[..., keras.Layer], units: int, bias: bool, merge: str) -> keras.Layer:
    inner = layer(units, use_bias=bias, return_sequences=True)
    return L.Bidirectional(inner, merge_mode=merge)


def _at_each_step(layer: Callable[..., keras.Layer], *sizes: Any, **more: Any) -> keras.Layer:
    return L.TimeDistributed(layer(*sizes, **more))


def _recurrent() -> Iterator[Trial]:
    for kind, (i, units), bias, back in product(CELLS, ((3, 5), (5, 5), (7, 2)), BOTH, BOTH):
        yield Trial(
            kind.partition("-")[0],
            label(kind, i, units, bias=bias, go_backwards=back),
            partial(CELLS[kind], units, use_bias=bias, go_backwards=back, return_sequences=True),
            ((2, 4, i),),
        )
    for kind, bias in product(AROUND, BOTH):
        yield Trial(
            kind, label("RNN", bias=bias), partial(_around, AROUND[kind], bias), ((2, 4, 3),)
        )
    for kind, (i, units), bias, merge in product(
        CELLS, ((3, 5), (5, 5)), BOTH, ("concat", "sum", "ave", "mul")
    ):
        if merge == "concat" or i != units:
            yield Trial(
                f"Bidirectional{kind.partition('-')[0]}",
                label(kind, i, units, bias=bias, merge=merge),
                partial(_both, CELLS[kind], units, bias, merge),
                ((2, 4, i),),
            )


def _distributed() -> Iterator[Trial]:
    for bias, (i, o) in product(BOTH, ((3, 5), (5, 5))):
        yield Trial(
            "Dense",
            label("TimeDistributed", i, o, bias=bias),
            partial(_at_each_step, L.Dense, o, use_bias=bias),
            ((2, 7, i),),
        )
        yield Trial(
            "TimeDistributedConv",
            label(1, i, o, bias=bias),
            partial(_at_each_step, L.Conv1D, o, 3, use_bias=bias),
            ((2, 3, 7, i),),
        )
        yield Trial(
            "TimeDistributedConv",
            label(2, i, o, bias=bias),
            partial(_at_each_step, L.Conv2D, o, (2, 3), strides=2, use_bias=bias),
            ((2, 3, 7, 5, i),),
        )


def _attention() -> Iterator[Trial]:
    # 13 positions: Keras 3.15 on TensorFlow adds a bias of heads × 1 along the positions where they
    # are as many as the heads, and puts out wrong numbers.
    # Heads and width of a head: they add up to the width of the input.
    for (heads, key), bias in product(((3, 5), (2, 2), (1, 7), (5, 1)), BOTH):
        width = heads * key
        yield Trial(
            "MultiHeadAttention",
            label(heads, key, bias=bias),
            partial(L.MultiHeadAttention, heads, key, use_bias=bias),
            ((2, 4, width), (2, 13, width), (2, 13, width)),
        )
    # Heads, widths of a key and a value, widths of query, key and value as they come, and of the
    # output.
    parts: list[tuple[int, int, int | None, int, int, int, int | None]] = [
        (3, 5, None, 7, 7, 7, None),  # heads do not add up
        (3, 5, 2, 15, 15, 15, None),  # other values
        (3, 5, None, 15, 15, 15, 11),  # other output
        (3, 5, None, 15, 11, 15, None),  # other keys
        (3, 5, None, 15, 15, 11, None),  # other values as they come
        (2, 3, 7, 11, 13, 17, 19),
        (3, 3, 3, 3, 3, 3, 3),
    ]
    for (heads, key, value, q, k, v, out), bias in product(parts, BOTH):
        yield Trial(
            "MultiHeadAttentionLinears",
            label(heads, key, value, q, k, v, out, bias=bias),
            partial(
                L.MultiHeadAttention, heads, key, value_dim=value, output_shape=out, use_bias=bias
            ),
            ((2, 4, q), (2, 13, v), (2, 13, k)),
        )


def _einsum() -> Iterator[Trial]:
    linear: list[tuple[str, tuple[int | None, ...], str | None, tuple[int, ...]]] = [
        ("ab,bc->ac", (5,), "c", (2, 3)),
        ("ab,cb->ac", (5,), "c", (2, 3)),
        ("ab,cb->ac", (3,), "c", (2, 3)),
        ("abc,cd->abd", (None, 5), None, (2, 3, 7)),
        ("abc,cde->abde", (None, 5, 11), "de", (2, 3, 7)),
        ("abc,cde->abed", (None, 11, 5), "de", (2, 3, 7)),
        ("abc,dce->abde", (None, 7, 7), "de", (2, 3, 7)),
        ("abcd,cde->abe", (None, 11), "e", (2, 3, 5, 7)),
        ("abcd,dce->abe", (None, 11), "e", (2, 3, 5, 7)),
        ("abcd,ecd->abe", (None, 5), "e", (2, 3, 5, 5)),
        ("abc,cd->adb", (5, None), "d", (2, 3, 7)),
        ("...x,xy->...y", (5,), "y", (2, 3, 7)),
        ("abcd,bde->ace", (None, 11), "e", (2, 3, 5, 7)),
    ]
    batched: list[tuple[str, tuple[int | None, ...], str | None, tuple[int, ...]]] = [
        ("abc,bcd->abd", (3, 5), "d", (2, 3, 7)),
        ("abc,bcd->abd", (3, 5), "bd", (2, 3, 7)),
        ("abc,bcd->abd", (3, 3), "bd", (2, 3, 3)),
        ("abc,cde->abde", (None, 5, 11), "e", (2, 3, 7)),
        ("abc,cde->abde", (None, 5, 11), "d", (2, 3, 7)),
        ("abc,cd->abd", (3, 5), "bd", (2, 3, 7)),
    ]
    for family, equations in (("EinsumDense", linear), ("EinsumDenseBatched", batched)):
        for equation, shape, bias, source in equations:
            yield Trial(
                family,
                label(equation, bias=bias, shape=shape),
                partial(L.EinsumDense, equation, shape, bias_axes=bias),
                (source,),
            )


# ---- layers that torch.nn has no module for, and those of other years ---------------------------


def _listed(layer: Any, *inputs: Any) -> Any:
    """Inputs in a list, as the merging attention layers take them."""
    return layer(list(inputs))


def _listed_variables(layer: Any, *shapes: Any) -> None:
    layer.build(list(shapes))


def _scored() -> Iterator[Trial]:
    shapes = ((2, 5, 7), (2, 3, 7), (2, 3, 7))
    for scaled, mode in product(BOTH, ("dot", "concat")):
        if scaled or mode == "concat":
            yield Trial(
                "Attention",
                label(mode, scaled=scaled),
                partial(L.Attention, use_scale=scaled, score_mode=mode),
                shapes,
                call=_listed,
                variables=_listed_variables,
            )
    yield Trial(
        "AdditiveAttention",
        "scaled",
        L.AdditiveAttention,
        shapes,
        call=_listed,
        variables=_listed_variables,
    )


def _grouped() -> Iterator[Trial]:
    # Width of a head, heads of queries and of keys, features of query, key and value.
    parts = [(5, 6, 3, 7, 11, 13), (5, 3, 1, 7, 7, 7), (3, 3, 3, 9, 9, 9), (2, 2, 1, 2, 2, 2)]
    for (width, heads, groups, q, k, v), bias, gate in product(parts, BOTH, BOTH):
        yield Trial(
            "GatedGroupedQueryAttention" if gate else "GroupedQueryAttention",
            label(width, heads, groups, q, k, v, bias=bias),
            partial(L.GroupQueryAttention, width, heads, groups, use_bias=bias, use_gate=gate),
            ((2, 4, q), (2, 13, v), (2, 13, k)),
        )


def _more_attention() -> Iterator[Trial]:
    """Several output axes, several axes to attend along, a gate."""
    for bias in BOTH:
        yield Trial(
            "MultiHeadAttentionLinears",
            label("output", 5, 11, bias=bias),
            partial(L.MultiHeadAttention, 2, 3, output_shape=(5, 11), use_bias=bias),
            ((2, 4, 7), (2, 13, 7), (2, 13, 7)),
        )
        for (heads, key, value, q), out in product([(2, 3, 5, 7), (3, 3, 3, 3)], (None, (2, 5))):
            yield Trial(
                "GatedMultiHeadAttention",
                label(heads, key, value, q, out, bias=bias),
                partial(
                    L.MultiHeadAttention,
                    heads,
                    key,
                    value_dim=value,
                    output_shape=out,
                    use_bias=bias,
                    use_gate=True,
                ),
                ((2, 4, q), (2, 13, q), (2, 13, q)),
            )
        for axes in (None, (1, 2), (2,)):
            for heads, key, width in ((2, 3, 6), (2, 3, 7)):
                yield Trial(
                    "MultiHeadAttentionAxes",
                    label(heads, key, width, axes=axes, bias=bias),
                    partial(L.MultiHeadAttention, heads, key, attention_axes=axes, use_bias=bias),
                    ((2, 3, 4, width), (2, 3, 4, width), (2, 3, 4, width)),
                )


def _other_normalizations() -> Iterator[Trial]:
    axes: list[int | list[int]] = [-1, [-1], [2], [-2, -1], [1, 2, 3]]
    for axis, epsilon in product(axes, (1e-6, 0.1)):
        shapes = ((2, 3, 5, 7),) if axis != [2] else ((2, 3, 5),)
        yield Trial(
            "RMSNormalization",
            label(axis=axis, epsilon=epsilon),
            partial(L.RMSNormalization, axis=axis, epsilon=epsilon),
            shapes,
        )
        yield Trial(
            "LayerNormalizationScaled",
            label(axis=axis, epsilon=epsilon),
            partial(_rms_scaled, axis=axis, epsilon=epsilon),
            shapes,
            call=_quietly,
        )
    for where, invert in product((-1, 1, [1, 2], [-1, -2], None), BOTH):
        yield Trial(
            "Normalization",
            label(axis=where, invert=invert),
            partial(L.Normalization, axis=where, invert=invert),
            ((2, 3, 5),),
            call=_adapted,
        )
    for kind, shape in (("Dense", (2, 3)), ("Conv2D", (2, 7, 5, 3)), ("Embedding", (2, 3))):
        make = {
            "Dense": partial(L.Dense, 5),
            "Conv2D": partial(L.Conv2D, 5, (2, 3)),
            "Embedding": partial(L.Embedding, 7, 5),
        }[kind]
        yield Trial(
            "SpectralNormalization",
            kind,
            partial(_spectral, make),
            (shape,),
            low=7 if kind == "Embedding" else 0,
            call=_inside if kind == "Embedding" else None,
        )
    for scale, center, where in product(BOTH, BOTH, ([1, 3], [1, 2], [2, 3], [1, 2, 3])):
        yield Trial(
            "BatchNormalizationAxes",
            label(axis=where, scale=scale, center=center),
            partial(T.BatchNormalization, axis=where, scale=scale, center=center),
            ((2, 3, 5, 7),),
            call=_as_it_is,
        )
    yield Trial(
        "BatchNormalizationAxes",
        "virtual",
        partial(T.BatchNormalization, virtual_batch_size=2),
        ((2, 3, 5, 7),),
        call=_as_it_is,
    )
    for scale, center, one_or_two in product(BOTH, BOTH, (-1, 1, [1, 3])):
        options = {"axis": one_or_two, "scale": scale, "center": center}
        yield Trial(
            "BatchNormalizationRenorm",
            label(**options),
            partial(T.BatchNormalization, renorm=True, **options),
            ((2, 3, 5, 7),),
            call=_as_it_is,
        )


def _quietly(layer: Any, x: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is a better layer
        return layer(x)


def _rms_scaled(**options: Any) -> keras.Layer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is a better layer
        return L.LayerNormalization(rms_scaling=True, **options)


def _spectral(make: Callable[[], keras.Layer]) -> keras.Layer:
    return L.SpectralNormalization(make())


def _inside(layer: Any, x: Any) -> Any:
    """What the layer inside puts out; the wrapper casts it to the dtype of the tokens."""
    return layer.layer(x)


def _adapted(layer: Any, x: Any) -> Any:
    layer.finalize_state()
    return layer(x)


def _as_it_is(layer: Any, *inputs: Any) -> Any:
    """A layer of tf_keras, not in training."""
    return layer(*inputs, training=False)


def _scaled_channels() -> Iterator[Trial]:
    layer = import_module("keras.src.applications.convnext").LayerScale
    yield Trial("LayerScale", "image", partial(layer, 0.1, 7), ((2, 3, 5, 7),))


def _signals() -> Iterator[Trial]:
    for mode, padding in product(("magnitude", "stft", "real", "imag"), ("valid", "same")):
        yield Trial(
            "STFTSpectrogram",
            label(mode, padding=padding),
            partial(L.STFTSpectrogram, mode, 7, 3, fft_length=16, padding=padding),
            ((2, 29, 1),),
        )


def _reversible() -> Iterator[Trial]:
    for n, width, tied in ((11, 5, False), (5, 5, False), (11, 5, True), (5, 5, True)):
        yield Trial(
            "TiedEmbedding" if tied else "ReversibleEmbedding",
            label("Reversible", n, width, tied=tied),
            partial(L.ReversibleEmbedding, n, width, tie_weights=tied),
            ((2, 3),),
            low=n,
            call=_there_and_back,
        )


def _there_and_back(layer: Any, x: Any) -> Any:
    return layer(layer(x), reverse=True)


def _convolutional() -> Iterator[Trial]:
    steps: list[Options] = [{}, {"padding": "same"}, {"strides": 2}]
    for rank in (1, 2, 3):
        for (name, size, i, o), step, bias in product(
            [("prime", (2, 3, 1)[:rank], 3, 5), ("square", (3,) * rank, 3, 3)], steps, BOTH
        ):
            yield Trial(
                f"ConvLSTM{rank}D",
                label(name, **step, bias=bias),
                partial(
                    getattr(L, f"ConvLSTM{rank}D"),
                    o,
                    size,
                    use_bias=bias,
                    return_sequences=True,
                    **step,
                ),
                ((2, 3, *(7, 5, 3)[:rank], i),),
            )
    for data in ("channels_last",):
        yield Trial(
            "ConvLSTM2D",
            label("hard", data),
            partial(
                L.ConvLSTM2D,
                5,
                (2, 3),
                data_format=data,
                recurrent_activation="hard_sigmoid",
                return_sequences=True,
            ),
            ((2, 3, 7, 5, 3),),
        )


def _locally_connected() -> Iterator[Trial]:
    for rank in (1, 2):
        layer = getattr(T, f"LocallyConnected{rank}D")
        for (name, size, i, o), strides, bias, first in product(
            [("prime", (2, 3)[:rank], 5, 7), ("square", (3,) * rank, 3, 3)], (1, 2), BOTH, BOTH
        ):
            space = (7, 5)[:rank]
            order = "channels_first" if first else "channels_last"
            yield Trial(
                f"LocallyConnected{rank}D",
                label(name, order, strides=strides, bias=bias),
                partial(layer, o, size, strides=strides, use_bias=bias, data_format=order),
                ((2, i, *space) if first else (2, *space, i),),
            )
        for way, first in product((2, 3), BOTH):
            order = "channels_first" if first else "channels_last"
            yield Trial(
                f"LocallyConnected{('Full', 'Sparse')[way - 2]}",
                label(rank, order),
                partial(layer, 7, 3, implementation=way, data_format=order, padding="same"),
                ((2, 5, *(7, 3)[:rank]) if first else (2, *(7, 3)[:rank], 5),),
            )


def _random_features() -> Iterator[Trial]:
    yield Trial(
        "RandomFourierFeatures",
        "gaussian",
        partial(T.experimental.RandomFourierFeatures, 5),
        ((2, 3),),
    )


def _quantiles() -> Iterator[Trial]:
    yield Trial(
        "Discretization",
        "bins",
        partial(_with_summary, 5),
        ((2, 3),),
        call=_bins,
        variables=_as_they_are,
    )


def _with_summary(bins: int) -> Any:
    layer = T.Discretization(num_bins=bins)
    layer.adapt(np.random.default_rng(7).normal(size=(50, 3)).astype(np.float32))
    return layer


def _as_they_are(layer: Any, *shapes: Any) -> None:
    """The layer has its variables from what it has seen."""


def _bins(layer: Any, x: Any) -> Any:
    return layer.summary


def _of_cudnn() -> Iterator[Trial]:
    """Layers that only a GPU can run: what they put out is what Keras makes of their weights."""
    for name, (i, units) in product(("CuDNNLSTM", "CuDNNGRU"), ((3, 5), (5, 5), (7, 2))):
        module = import_module(f"tf_keras.src.layers.rnn.{name.lower().replace('cudnn', 'cudnn_')}")
        layer = getattr(module, name)
        yield Trial(
            name,
            label(i, units),
            partial(layer, units, return_sequences=True),
            ((2, 4, i),),
            call=_portable,
        )
        yield Trial(
            f"Bidirectional{name}",
            label(i, units),
            partial(_in_two_directions, layer, units),
            ((2, 4, i),),
            call=_portable,
        )


def _in_two_directions(layer: Callable[..., Any], units: int) -> Any:
    return T.Bidirectional(layer(units, return_sequences=True))


def _portable(layer: Any, x: Any) -> Any:
    """The output of the layer that Keras loads the weights into where there is no GPU."""
    from tf_keras.src.saving.legacy.hdf5_format import preprocess_weights_for_loading

    own = getattr(layer, "forward_layer", layer)
    plain = {"CuDNNLSTM": T.LSTM, "CuDNNGRU": T.GRU}[type(own).__name__]
    other = plain(own.units, return_sequences=True)
    other = other if own is layer else T.Bidirectional(other)
    other.build(x.shape)
    other.set_weights(preprocess_weights_for_loading(other, layer.get_weights()))
    return other(x)


def _cells() -> Iterator[Trial]:
    for kind, bias, (i, units) in product(AROUND, BOTH, ((3, 5), (5, 5))):
        states = 2 if kind == "LSTM" else 1
        yield Trial(
            f"{kind}Cell",
            label(i, units, bias=bias),
            partial(AROUND[kind], units, use_bias=bias),
            ((2, i), *((2, units),) * states),
            call=_one_step,
            variables=_for_the_input,
        )
    for bias in BOTH:
        yield Trial(
            "StackedCells",
            label("three", bias=bias),
            partial(_stack, bias),
            ((2, 4, 3),),
        )
        yield Trial(
            "StackedCells",
            label("both", bias=bias),
            partial(_stack_in_two_directions, bias),
            ((2, 4, 3),),
        )
        yield Trial(
            "UnlikeDirections",
            label(bias=bias),
            partial(_unlike, bias),
            ((2, 4, 3),),
        )


def _one_step(cell: Any, x: Any, *states: Any) -> Any:
    return cell(x, list(states))[0]


def _for_the_input(layer: Any, *shapes: Any) -> None:
    layer.build(shapes[0])


def _stack(bias: bool) -> Any:
    cells = [L.LSTMCell(5, use_bias=bias), L.GRUCell(7, use_bias=bias), L.LSTMCell(5)]
    return L.RNN(L.StackedRNNCells(cells), return_sequences=True)


def _stack_in_two_directions(bias: bool) -> Any:
    return L.Bidirectional(_stack(bias))


def _unlike(bias: bool) -> Any:
    back = L.GRU(7, use_bias=bias, return_sequences=True, go_backwards=True)
    return L.Bidirectional(L.LSTM(5, use_bias=bias, return_sequences=True), backward_layer=back)


def _further_wrapped() -> Iterator[Trial]:
    """Wrappers around what has options of its own."""
    for bias in BOTH:
        yield Trial(
            "TimeDistributedLSTM",
            label("Bidirectional", bias=bias),
            partial(_steps_of_steps, bias),
            ((2, 3, 4, 7),),
        )
    yield Trial(
        "TimeDistributedNormalization",
        "BatchNormalization",
        partial(_at_each_step, L.BatchNormalization),
        ((2, 3, 7),),
    )


def _steps_of_steps(bias: bool) -> keras.Layer:
    inner = L.Bidirectional(L.LSTM(5, use_bias=bias, return_sequences=True))
    return L.TimeDistributed(inner)


def _further_slopes() -> Iterator[Trial]:
    """Slopes shared along some of the axes."""
    for rank in (2, 3, 4):
        every = range(1, rank + 1)
        for axes in ([n for n in every if n != 1], [rank], [*every], [1, rank]):
            shared = set(range(1, rank)) <= set(axes)
            yield Trial(
                "PReLUShared" if shared else "PReLUPerPosition",
                label("some", shared_axes=axes, rank=rank + 1),
                partial(L.PReLU, shared_axes=axes),
                ((2, *(3, 5, 2)[: rank - 1], 7),),
            )


def _further_einsum() -> Iterator[Trial]:
    linear: list[tuple[str, Any, str | None, tuple[int, ...]]] = [
        ("ab...,bc->ac...", (5, None, None), None, (2, 3, 7, 4)),
        ("ab...,bc->ac...", (5, None, None), "c", (2, 3, 7, 4)),
        ("...xy,xyz->...z", (5,), "z", (2, 4, 3, 7)),
        ("...x,xyz->...yz", (5, 11), "yz", (2, 4, 3)),
        ("...x,zxy->...yz", (5, 11), "zy", (2, 4, 3)),
    ]
    batched: list[tuple[str, Any, str | None, tuple[int, ...]]] = [
        ("ab...,bcd->acd...", (5, 11, None), "c", (2, 3, 7)),
        ("...x,xyz->...yz", (5, 11), "y", (2, 4, 3)),
        ("...x,xyz->...yz", (5, 11), "z", (2, 4, 3)),
    ]
    for family, equations in (("EinsumDense", linear), ("EinsumDenseBatched", batched)):
        for equation, shape, bias, source in equations:
            yield Trial(
                family,
                label(equation, bias=bias, shape=shape, rank=len(source)),
                partial(L.EinsumDense, equation, shape, bias_axes=bias),
                (source,),
            )


class Highway(keras.layers.Layer):  # type: ignore[misc]
    """What Keras 1.2.2 computes in its layer of this name."""

    def __init__(self, use_bias: bool) -> None:
        super().__init__()
        self.use_bias = use_bias

    def build(self, shape: tuple[int, ...]) -> None:
        units = shape[-1]
        self.W = self.add_weight(shape=(units, units), name="W")
        self.W_carry = self.add_weight(shape=(units, units), name="W_carry")
        if self.use_bias:
            self.b = self.add_weight(shape=(units,), name="b")
            self.b_carry = self.add_weight(shape=(units,), name="b_carry")

    def call(self, x: Any) -> Any:
        y, act = keras.ops.dot(x, self.W_carry), keras.ops.dot(x, self.W)
        if self.use_bias:
            y, act = y + self.b_carry, act + self.b
        transform = keras.ops.sigmoid(y)
        return keras.ops.tanh(act) * transform + (1 - transform) * x

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "activation": "tanh", "bias": self.use_bias}


class MaxoutDense(keras.layers.Layer):  # type: ignore[misc]
    """What Keras 1.2.2 computes in its layer of this name."""

    def __init__(self, units: int, pieces: int, use_bias: bool) -> None:
        super().__init__()
        self.units, self.pieces, self.use_bias = units, pieces, use_bias

    def build(self, shape: tuple[int, ...]) -> None:
        self.W = self.add_weight(shape=(self.pieces, shape[-1], self.units), name="W")
        if self.use_bias:
            self.b = self.add_weight(shape=(self.pieces, self.units), name="b")

    def call(self, x: Any) -> Any:
        y = keras.ops.tensordot(x, self.W, axes=([1], [1]))  # K.dot: over the last axis but one
        return keras.ops.max(y + self.b if self.use_bias else y, axis=1)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "nb_feature": self.pieces, "bias": self.use_bias}


class PerPosition(keras.layers.Layer):  # type: ignore[misc]
    """Weights for each position and channel, or one along some axes."""

    roles: tuple[str, ...] = ()

    def __init__(self, shared_axes: tuple[int, ...]) -> None:
        super().__init__()
        self.shared_axes = shared_axes

    def build(self, shape: tuple[int, ...]) -> None:
        own = tuple(1 if n in self.shared_axes else size for n, size in enumerate(shape))[1:]
        for role in self.roles:
            setattr(self, role, self.add_weight(shape=own, name=role))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "shared_axes": list(self.shared_axes)}


class ParametricSoftplus(PerPosition):
    """What Keras 1.2.2 computes in its layer of this name."""

    roles = ("alphas", "betas")

    def call(self, x: Any) -> Any:
        return keras.ops.softplus(self.betas * x) * self.alphas


class SReLU(PerPosition):
    """What Keras 1.2.2 computes in its layer of this name; `K.relu(x, slope, top)` included."""

    roles = ("t_left", "a_left", "t_right", "a_right")

    def call(self, x: Any) -> Any:
        ops = keras.ops
        right = self.t_left + ops.abs(self.t_right)
        inner = x - self.t_left
        clipped = ops.minimum(ops.relu(inner), right - self.t_left)
        low_and_center = self.t_left + clipped - self.a_left * ops.relu(-inner)
        return low_and_center + ops.relu(x - right) * self.a_right


def _of_keras_1() -> Iterator[Trial]:
    made: tuple[type[PerPosition], ...] = (ParametricSoftplus, SReLU)
    for kind, rank in product(made, (1, 2, 3, 4)):
        for axes in dict.fromkeys(((), tuple(range(1, rank)))):
            yield Trial(
                kind.__name__,
                label(rank=rank + 1, shared_axes=axes),
                partial(kind, axes),
                ((2, *(3, 5, 2)[: rank - 1], 7),),
            )
    for bias, units in product(BOTH, (3, 5)):
        yield Trial("Highway", label(units, bias=bias), partial(Highway, bias), ((2, units),))
    for bias, (i, o, pieces) in product(BOTH, ((3, 5, 7), (3, 3, 3))):
        yield Trial(
            "MaxoutDense",
            label(i, o, pieces, bias=bias),
            partial(MaxoutDense, o, pieces, bias),
            ((2, i),),
        )


T = tf_keras.layers


def _all() -> Iterable[Trial]:
    yield from _dense()
    yield from _convolutions()
    yield from _transposed()
    yield from _depthwise()
    yield from _normalizations()
    yield from _lookups()
    yield from _slopes()
    yield from _recurrent()
    yield from _distributed()
    yield from _attention()
    yield from _einsum()
    yield from _scored()
    yield from _grouped()
    yield from _more_attention()
    yield from _other_normalizations()
    yield from _scaled_channels()
    yield from _signals()
    yield from _reversible()
    yield from _convolutional()
    yield from _locally_connected()
    yield from _random_features()
    yield from _quantiles()
    yield from _of_cudnn()
    yield from _cells()
    yield from _further_wrapped()
    yield from _further_slopes()
    yield from _further_einsum()
    yield from _of_keras_1()


GRID = tuple(_all())
