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

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from kerasport.conventions import Row, convention, rows
from kerasport.identify import identify
from kerasport.model import Layer, Snapshot, Source, Tensor
from kerasport.tiles import fill
from kerasport.transpose import Plan, plan

Array = npt.NDArray[Any]
TOLERANCE = 1e-5  # float32 sums of some hundred terms, relative to the largest output


# ------------------------------------------------------------------------ from Keras to kerasport


def stored(layer: keras.Layer) -> Layer:
    """The layer as a Keras 3 file holds it: Keras's own walk says under which keys."""
    weights = {
        key: Tensor.of(f"{layer.name}/{key}", np.asarray(variable), trainable=variable.trainable)
        for key, variable in _variables(layer, "", set())
    }
    config = keras.saving.serialize_keras_object(layer)["config"]
    return Layer(layer.name, type(layer).__name__, config, weights)


def _variables(layer: keras.Layer, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    from keras.src.saving.saving_lib import _walk_saveable

    if id(layer) in seen:
        return
    seen.add(id(layer))
    own: dict[str, Any] = {}
    layer.save_own_variables(own)
    for number, variable in own.items():
        yield f"{path}{number}", variable
    for attribute, child in _walk_saveable(layer):
        if isinstance(child, keras.Layer):
            yield from _variables(child, f"{path}{attribute}/", seen)


@cache
def snapshot(layer: keras.Layer) -> Snapshot:
    """The layer alone as a snapshot, with kind, roles and layouts."""
    return identify(Snapshot(Source("memory", "live"), (stored(layer),)))


def exported(layer: keras.Layer, to: str) -> dict[str, Array]:
    """The weights in another convention, by their name below the layer."""
    steps = plan(snapshot(layer), to=to)
    steps.refuse_losses()
    tensors = steps.apply()
    return {name.removeprefix(f"{layer.name}."): t.numpy() for name, t in tensors.items()}


def returned(steps: Plan) -> dict[str, Array]:
    """The source's tensors, put together from the plan's targets by the inverted copies."""
    back: dict[str, Array] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for move in steps.moves:
        target = move.tensor().numpy().reshape(-1)
        for copy in move.copies()[0]:
            source = move.sources[copy.source]
            shapes[source.name] = source.shape
            # No weight here has this value: an element that nothing writes is seen.
            array = back.setdefault(source.name, np.full(source.size, 115, source.dtype))
            fill(array, [copy.inverted()], [target])
    return {name: array.reshape(shapes[name]) for name, array in back.items()}


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
        replace(slot, layout=sentences.get(slot.name, slot.layout)) for slot in case.slots
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
    """

    family: str
    label: str
    make: Callable[[], keras.Layer]
    shapes: tuple[tuple[int, ...], ...]
    low: int = 0

    def __str__(self) -> str:
        return f"{self.family}-{self.label}"

    def build(self) -> Built:
        """The layer with random weights, random inputs, and what Keras puts out for them."""
        return _built(self)


@dataclass(frozen=True, eq=False, slots=True)
class Built:
    """A layer with weights, its inputs, and what Keras puts out for them."""

    layer: keras.Layer
    inputs: tuple[Array, ...]
    output: Array


@cache  # torch and ONNX are compared with the same run of Keras
def _built(trial: Trial) -> Built:
    rng = np.random.default_rng(20260211)
    inputs = tuple(
        rng.integers(0, trial.low, shape)
        if trial.low
        else rng.normal(size=shape).astype(np.float32)
        for shape in trial.shapes
    )
    layer = trial.make()
    layer.build(*trial.shapes)  # much faster than a first call
    layer.set_weights([_random(weight, rng) for weight in layer.weights])
    return Built(layer, inputs, np.asarray(layer(*inputs)))


def _random(variable: Any, rng: np.random.Generator) -> Array:
    values: Array = rng.normal(size=variable.shape).astype(np.float32)
    if "variance" in variable.path:
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


GRID = tuple(_all())
