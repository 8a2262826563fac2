"""Random functional graphs: branches, merges, shared and nested layers, several inputs and outputs.

A graph is drawn as a program: a list of steps, each of which takes tensors that are there and adds
new ones. What a step can do depends on what its tensors are, an image, a sequence or a vector, so
that every program is a model. The program is plain data, and a failing one is shown as such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import keras
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

L = keras.layers
ops = keras.ops

# Kind of tensor → what can be done to one, and the kind of what that gives.
IMAGE: Final = {"image": (6, 5, 3), "sequence": (5, 4), "vector": (7,)}
Layer = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a program.

    Attributes:
        name: what it does, a key of the tables below.
        takes: the places of the tensors that it takes.
        size: a number that it may use.
        again: the step whose layer it calls again, or None.
    """

    name: str
    takes: tuple[int, ...]
    size: int
    again: int | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """A model to be: kinds of inputs, steps, and the places of the outputs."""

    inputs: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]


def _block(x: Any, n: int, kind: str) -> Any:
    """A model of its own, with a shortcut."""
    i = keras.Input(x.shape[1:])
    width = x.shape[-1]
    if kind == "image":
        y = L.BatchNormalization()(L.Conv2D(width, 3, padding="same", activation="relu")(i))
    elif kind == "sequence":
        y = L.LSTM(width, return_sequences=True)(L.Conv1D(n, 2, padding="causal")(i))
    else:
        y = L.Dense(width, activation="tanh")(L.Dense(n)(i))
    return keras.Model(i, L.Add()([i, y]))


def _two_headed(x: Any, n: int) -> Any:
    i = keras.Input(x.shape[1:])
    y = L.Dense(n, activation="relu")(i)
    return keras.Model(i, [L.Dense(n)(y), L.Dense(3)(y)])


# Each gives the layer for a tensor and a number; the second word is the kind of the result.
ONE: Final[Mapping[str, Mapping[str, tuple[str, Callable[[Any, int], Layer]]]]] = {
    "image": {
        "conv": ("image", lambda x, n: L.Conv2D(n, 3, padding="same")),
        "conv-2": ("image", lambda x, n: L.Conv2D(n, 2, strides=2, padding="same")),
        "conv-grouped": (
            "image",
            lambda x, n: L.Conv2D(2 * x.shape[-1], 3, padding="same", groups=x.shape[-1]),
        ),
        "conv-relu": ("image", lambda x, n: L.Conv2D(n, (1, 2), padding="same", activation="relu")),
        "depthwise": ("image", lambda x, n: L.DepthwiseConv2D(3, padding="same")),
        "separable": ("image", lambda x, n: L.SeparableConv2D(n, 3, padding="same")),
        "pool": ("image", lambda x, n: L.MaxPooling2D(2, padding="same")),
        "average": ("image", lambda x, n: L.AveragePooling2D(3, strides=1, padding="same")),
        "norm": ("image", lambda x, n: L.BatchNormalization()),
        "layernorm": ("image", lambda x, n: L.LayerNormalization()),
        "groupnorm": ("image", lambda x, n: L.GroupNormalization(1)),
        "relu": ("image", lambda x, n: L.ReLU(6.0)),
        "prelu": ("image", lambda x, n: L.PReLU(shared_axes=[1, 2])),
        "dense": ("image", lambda x, n: L.Dense(n)),
        "pad": ("image", lambda x, n: L.ZeroPadding2D(((0, 1), (1, 0)))),
        "up": ("image", lambda x, n: L.UpSampling2D(2)),
        "up-conv": ("image", lambda x, n: L.Conv2DTranspose(n, 3, strides=2, padding="same")),
        "permute": ("image", lambda x, n: L.Permute((2, 1, 3))),
        "rescale": ("image", lambda x, n: L.Rescaling(0.5, offset=0.1)),
        "flatten": ("vector", lambda x, n: L.Flatten()),
        "mean": ("vector", lambda x, n: L.GlobalAveragePooling2D()),
        "max": ("vector", lambda x, n: L.GlobalMaxPooling2D()),
        "rows": ("sequence", lambda x, n: L.Reshape((x.shape[1], x.shape[2] * x.shape[3]))),
        "columns": ("sequence", lambda x, n: L.TimeDistributed(L.Flatten())),
        "row-by-row": ("image", lambda x, n: L.TimeDistributed(L.Conv1D(n, 2, padding="same"))),
        "block": ("image", lambda x, n: _block(x, n, "image")),
    },
    "sequence": {
        "conv": ("sequence", lambda x, n: L.Conv1D(n, 3, padding="same")),
        "causal": ("sequence", lambda x, n: L.Conv1D(n, 2, padding="causal", activation="relu")),
        "lstm": ("sequence", lambda x, n: L.LSTM(n, return_sequences=True)),
        "gru": ("vector", lambda x, n: L.GRU(n)),
        "gru-old": ("sequence", lambda x, n: L.GRU(n, return_sequences=True, reset_after=False)),
        "rnn": ("vector", lambda x, n: L.SimpleRNN(n, go_backwards=True)),
        "both": ("sequence", lambda x, n: L.Bidirectional(L.LSTM(n, return_sequences=True))),
        "both-last": ("vector", lambda x, n: L.Bidirectional(L.GRU(n), merge_mode="sum")),
        "dense": ("sequence", lambda x, n: L.TimeDistributed(L.Dense(n))),
        "norm": ("sequence", lambda x, n: L.BatchNormalization()),
        "layernorm": ("sequence", lambda x, n: L.LayerNormalization()),
        "pool": ("sequence", lambda x, n: L.MaxPooling1D(2, padding="same")),
        "turn": ("sequence", lambda x, n: L.Permute((2, 1))),
        "softmax": ("sequence", lambda x, n: L.Softmax()),
        "pad": ("sequence", lambda x, n: L.ZeroPadding1D(1)),
        "flatten": ("vector", lambda x, n: L.Flatten()),
        "mean": ("vector", lambda x, n: L.GlobalAveragePooling1D()),
        "dropout": ("sequence", lambda x, n: L.SpatialDropout1D(0.3)),
        "block": ("sequence", lambda x, n: _block(x, n, "sequence")),
        "image": ("image", lambda x, n: L.Reshape((*x.shape[1:], 1))),
    },
    "vector": {
        "dense": ("vector", lambda x, n: L.Dense(n, activation="relu")),
        "gelu": ("vector", lambda x, n: L.Dense(n, activation="gelu")),
        "norm": ("vector", lambda x, n: L.BatchNormalization()),
        "layernorm": ("vector", lambda x, n: L.LayerNormalization()),
        "dropout": ("vector", lambda x, n: L.Dropout(0.4)),
        "elu": ("vector", lambda x, n: L.ELU()),
        "softmax": ("vector", lambda x, n: L.Softmax()),
        "repeat": ("sequence", lambda x, n: L.RepeatVector(3)),
        "square": (
            "image",
            lambda x, n: keras.Sequential([L.Dense(4 * n), L.Reshape((2, 2, n))]),
        ),
        "block": ("vector", lambda x, n: _block(x, n, "vector")),
    },
}
# Those whose layer can be called on any tensor with as many features.
SHARED: Final = frozenset({"conv", "conv-relu", "dense", "gelu", "lstm", "gru", "separable"})
SCALES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "times-two": lambda x: x * 2,
    "one-minus": lambda x: 1 - x,
    "ops-tanh": lambda x: ops.tanh(x),
    "less-mean": lambda x: x - ops.mean(x, axis=-1, keepdims=True),
}


def _same(a: Any, b: Any) -> bool:
    return bool(a.shape == b.shape)


def merged(name: str, a: Any, b: Any, kind: str) -> tuple[Any, str]:
    """Two tensors made one; those of unlike shapes are pooled and laid end to end."""
    if name == "attend" and kind == "sequence":
        return L.MultiHeadAttention(2, 3)(a, b), "sequence"
    if _same(a, b) and name in ("add", "multiply", "maximum", "average", "subtract"):
        layer = {
            "add": L.Add,
            "multiply": L.Multiply,
            "maximum": L.Maximum,
            "average": L.Average,
            "subtract": L.Subtract,
        }[name]
        return layer()([a, b]), kind
    if _same(a, b) and name == "plus":
        return a + b, kind
    if kind == "vector" or a.shape[1:-1] == b.shape[1:-1]:
        return L.Concatenate()([a, b]), kind
    pool = L.GlobalAveragePooling2D if kind == "image" else L.GlobalMaxPooling1D
    return L.Concatenate()([pool()(a), pool()(b)]), "vector"


MERGES: Final = ("add", "multiply", "maximum", "average", "subtract", "plus", "concat", "attend")


@st.composite
def programs(draw: DrawFn, most: int = 9) -> Program:
    """Programs of up to `most` steps."""
    inputs: tuple[str, ...] = tuple(
        draw(st.lists(st.sampled_from(sorted(IMAGE)), min_size=1, max_size=3))
    )
    kinds = list(inputs)
    steps: list[Step] = []
    for _ in range(draw(st.integers(1, most))):
        steps.append(_step(draw, kinds, steps, len(inputs)))
        kinds.append(_kind(steps[-1], kinds))
    used = {place for step in steps for place in step.takes}
    outputs = [n for n in range(len(kinds)) if n not in used]
    extra: list[int] = draw(st.lists(st.integers(len(inputs), len(kinds) - 1), max_size=1))
    return Program(inputs, tuple(steps), tuple(dict.fromkeys([*outputs, *extra])))


def _step(draw: DrawFn, kinds: list[str], steps: list[Step], inputs: int) -> Step:
    size = draw(st.sampled_from((2, 3, 4)))
    # Recent tensors are taken more often, so that graphs become deep.
    place = draw(st.one_of(st.just(len(kinds) - 1), st.integers(0, len(kinds) - 1)))
    others = [n for n, kind in enumerate(kinds) if kind == kinds[place] and n != place]
    if draw(st.booleans()) and others:
        return Step(draw(st.sampled_from(MERGES)), (place, draw(st.sampled_from(others))), size)
    if draw(st.integers(0, 9)) == 0:
        return Step(draw(st.sampled_from(sorted(SCALES))), (place,), size)
    before = [
        n
        for n, step in enumerate(steps)
        if step.name in SHARED
        and step.again is None
        and len(step.takes) == 1
        and kinds[step.takes[0]] == kinds[place]
    ]
    if draw(st.booleans()) and before:
        again = draw(st.sampled_from(before))
        return Step(steps[again].name, (place,), size, again)
    name: SearchStrategy[str] = st.sampled_from(sorted(ONE[kinds[place]]))
    return Step(draw(name), (place,), size)


def _kind(step: Step, kinds: list[str]) -> str:
    kind = kinds[step.takes[0]]
    if len(step.takes) == 2 or step.name in SCALES:
        return kind  # `model` may find that two tensors only go together as vectors
    return ONE[kind][step.name][0]


def model(program: Program) -> Any:
    """The model that a program is.

    What does not go together, since a step before turned out otherwise than drawn, is left out.
    """
    values: list[tuple[Any, str]] = [(keras.Input(IMAGE[kind]), kind) for kind in program.inputs]
    inputs = [value for value, _ in values]
    layers: dict[int, Any] = {}
    for number, step in enumerate(program.steps):
        x, kind = values[step.takes[0]]
        if len(step.takes) == 2:
            y, other = values[step.takes[1]]
            values.append(merged(step.name, x, y, kind) if other == kind else (x, kind))
            continue
        if step.name in SCALES:
            values.append((SCALES[step.name](x), kind))
            continue
        found = ONE[kind].get(step.name)
        size = 1
        for n in x.shape[1:]:
            size *= n or 1
        if found is None or size > 20_000:
            values.append((x, kind))
            continue
        made, make = found
        layer = layers.get(step.again) if step.again is not None else None
        if layer is None or layer.input.shape[1:] != x.shape[1:]:
            layer = make(x, step.size)
        layers[number] = layer
        values.append((layer(x), made))
    outputs = [values[n][0] for n in program.outputs]
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs)
