"""The vocabulary: which kind of layer a Keras class is, and what its axes are in words.

A kind is a row of the convention tables: one arrangement of weights. Most classes are one kind, a
few are several (a GRU keeps other biases with `reset_after`), and wrappers are the kind of what
they wrap. Everything here is data about Keras; nothing knows a file or a target.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["AXES", "CLASSES", "Facet", "facets", "phrases", "snake_case"]

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Facet:
    """What a class with this configuration is, or one of the parts that it is made of.

    Attributes:
        kinds: the kinds that it can be, told apart by the rank of the stored weights.
        config: the configuration of the layer that owns the weights, wrappers taken off.
        child: the attribute path from the layer to that owner, where Keras 3 stores the weights.
        axes: layout words for the braces in the tables, where the configuration names the axes.
        sizes: axis sizes that the configuration gives and no shape does.
        name: the name of a part; empty where the facet is the whole layer.
    """

    kinds: tuple[str, ...]
    config: Config = field(default_factory=dict)
    child: str = ""
    axes: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    name: str = ""


def facets(class_name: str, config: Config) -> tuple[Facet, ...]:
    """What a Keras class with this configuration is; nothing where the class is not known.

    >>> [facet.kinds for facet in facets("GRU", {"reset_after": True})]
    [('GRU',)]
    >>> [facet.kinds for facet in facets("TimeDistributed", {"layer": {"class_name": "Dense"}})]
    [('Dense',)]
    """
    known = CLASSES.get(class_name)
    if isinstance(known, str):
        return (Facet((known,), config),)
    return known(config) if known else ()


def _inner(config: Config, key: str) -> tuple[Facet, ...]:
    inner = config.get(key)
    if not isinstance(inner, Mapping):
        return ()
    name, own = inner.get("class_name"), inner.get("config", {})
    if not isinstance(name, str) or not isinstance(own, Mapping):
        return ()
    return facets(name, own)


def _below(found: tuple[Facet, ...], path: str) -> tuple[Facet, ...]:
    return tuple(replace(facet, child=f"{path}/{facet.child}".rstrip("/")) for facet in found)


def _wrapper(config: Config) -> tuple[Facet, ...]:
    return _below(_inner(config, "layer"), "layer")


def _recurrent(kind: str) -> Callable[[Config], tuple[Facet, ...]]:
    return lambda config: (Facet((kind,), config, child="cell"),)


def _gru_kind(config: Config) -> str:
    return "GRU" if config.get("reset_after") else "GRUResetBefore"


def _gru(config: Config) -> tuple[Facet, ...]:
    return (Facet((_gru_kind(config),), config, child="cell"),)


def _gru_cell(config: Config) -> tuple[Facet, ...]:
    return (Facet((f"{_gru_kind(config)}Cell",), config),)


def _rnn(config: Config) -> tuple[Facet, ...]:
    """A loop around a cell is the layer of that cell; around several, it is several layers."""
    return tuple(
        replace(facet, kinds=tuple(kind.removesuffix("Cell") for kind in facet.kinds))
        for facet in _below(_inner(config, "cell"), "cell")
    )


def _stacked(config: Config) -> tuple[Facet, ...]:
    cells = config.get("cells")
    found: list[Facet] = []
    places: Counter[str] = Counter()
    for cell in cells if isinstance(cells, list | tuple) else ():
        inner = _inner({"cell": cell}, "cell")
        if len(inner) != 1:
            return ()
        word = snake_case(cell["class_name"])
        number = f"_{places[word]}" if places[word] else ""
        places[word] += 1
        name = str(inner[0].config.get("name", f"{word}{number}"))
        found.append(replace(inner[0], child=f"cells/{word}{number}", name=name))
    return tuple(found)


def _bidirectional(config: Config) -> tuple[Facet, ...]:
    """Two layers of one class are one bidirectional kind; two unlike ones stay two layers."""
    forward = _inner(config, "layer")
    backward = _inner(config, "backward_layer") or forward
    if len(forward) != 1 or len(backward) != 1:
        return ()
    if not {*forward[0].kinds, *backward[0].kinds} <= RECURRENT:
        return ()
    if forward[0].kinds == backward[0].kinds:
        kinds = tuple(f"Bidirectional{kind}" for kind in forward[0].kinds)
        return (replace(forward[0], kinds=kinds, child=""),)
    return tuple(
        replace(facet, child=f"{name}_layer/{facet.child}".rstrip("/"), name=name)
        for name, (facet,) in (("forward", forward), ("backward", backward))
    )


def snake_case(name: str) -> str:
    """A class's name as Keras writes it in paths.

    >>> snake_case("PReLU"), snake_case("Conv2DTranspose"), snake_case("LSTMCell")
    ('p_re_lu', 'conv2d_transpose', 'lstm_cell')
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _layer_normalization(config: Config) -> tuple[Facet, ...]:
    axis = config.get("axis", -1)
    rank = len(axis) if isinstance(axis, list | tuple) else 1
    words = "channel" if rank == 1 else " ".join(f"normalized_{n}" for n in range(rank))
    return (Facet(("LayerNormalization",), config, axes={"normalized": words}),)


def _einsum_dense(config: Config) -> tuple[Facet, ...]:
    """Axes by what the equation does with them: summed over, new, or in input and output."""
    equation = str(config.get("equation", ""))
    try:
        inputs, rest = equation.replace(" ", "").replace("...", "").split(",")
        kernel, output = rest.split("->")
    except ValueError:
        return ()

    def word(letter: str) -> str:
        part = "out" if letter not in inputs else "batch" if letter in output else "in"
        return f"{part}_{letter}"

    words = {letter: word(letter) for letter in dict.fromkeys(inputs + kernel + output)}
    bias_axes = str(config.get("bias_axes") or "")
    first = min((output.find(letter) for letter in bias_axes), default=len(output))
    made = [letter for letter in output if letter in kernel and letter not in inputs]
    linear = all(words[letter].startswith(("in_", "out_")) for letter in kernel)
    linear = linear and (not bias_axes or set(bias_axes) == set(made))
    axes = {
        "kernel": " ".join(words[letter] for letter in kernel),
        "bias": " ".join(words[x] if x in bias_axes else "1" for x in output[first:]),
        "inputs": " ".join(words[x] for x in inputs if x in kernel and x not in output),
        "outputs": " ".join(words[letter] for letter in made),
    }
    return (Facet(("EinsumDense" if linear else "EinsumDenseBatched",), config, axes=axes),)


RECURRENT = frozenset({"SimpleRNN", "GRU", "GRUResetBefore", "LSTM"})

# Keras class → its kind, or how its configuration decides. Names of Keras 1 stand beside today's.
CLASSES: Mapping[str, str | Callable[[Config], tuple[Facet, ...]]] = {
    "Dense": "Dense",
    "TimeDistributedDense": "Dense",
    **{f"Conv{n}D": f"Conv{n}D" for n in (1, 2, 3)},
    **{f"Convolution{n}D": f"Conv{n}D" for n in (1, 2, 3)},
    **{f"AtrousConvolution{n}D": f"Conv{n}D" for n in (1, 2)},
    **{f"Conv{n}DTranspose": f"Conv{n}DTranspose" for n in (1, 2, 3)},
    **{f"Convolution{n}DTranspose": f"Conv{n}DTranspose" for n in (1, 2, 3)},
    "Deconvolution2D": "Conv2DTranspose",
    "DepthwiseConv1D": "DepthwiseConv1D",
    "DepthwiseConv2D": "DepthwiseConv2D",
    **{f"SeparableConv{n}D": f"SeparableConv{n}D" for n in (1, 2)},
    **{f"SeparableConvolution{n}D": f"SeparableConv{n}D" for n in (1, 2)},
    **dict.fromkeys(
        ("BatchNormalization", "BatchNormalizationV1", "SyncBatchNormalization"),
        "BatchNormalization",
    ),
    "LayerNormalization": _layer_normalization,
    "GroupNormalization": "GroupNormalization",
    "Embedding": "Embedding",
    "PReLU": lambda config: (Facet(tuple(f"PReLU{n}D" for n in (1, 2, 3, 4)), config),),
    "SimpleRNN": _recurrent("SimpleRNN"),
    "SimpleRNNCell": "SimpleRNNCell",
    "GRU": _gru,
    "GRUCell": _gru_cell,
    "LSTM": _recurrent("LSTM"),
    "LSTMCell": "LSTMCell",
    "StackedRNNCells": _stacked,
    "RNN": _rnn,
    "Bidirectional": _bidirectional,
    "TimeDistributed": _wrapper,
    "MultiHeadAttention": "MultiHeadAttention",
    "EinsumDense": _einsum_dense,
}

# What an axis is, in words; a kind's own words come before those that serve all.
AXES: Mapping[str, Mapping[str, str]] = {
    "": {
        "k": "kernel positions",
        "kd": "kernel planes",
        "kh": "kernel rows",
        "kw": "kernel columns",
        "in": "input features",
        "out": "units",
        "mult": "filters per input channel",
        "channel": "channels",
        "token": "vocabulary entries",
        "embed": "numbers per entry",
        "unit": "units",
        "hidden": "units of the step before",
        "head": "heads",
        "key": "numbers per query and key",
        "value": "numbers per value",
        "query_in": "features of the query",
        "key_in": "features of the key",
        "value_in": "features of the value",
        "length": "positions",
        "depth": "planes",
        "height": "rows",
        "width": "columns",
    },
    "Conv": {"in": "input channels", "out": "filters"},
    "DepthwiseConv": {"in": "input channels"},
    "SeparableConv": {"in": "input channels", "out": "filters"},
    "MultiHeadAttention": {"out": "output features"},
}


def phrases(kind: str) -> Mapping[str, str]:
    """A phrase for each axis of a kind.

    >>> phrases("Conv2D")["out"]
    'filters'
    """
    words = dict(AXES[""])
    for family in _families(kind):
        words.update(AXES.get(family, {}))
    return words


def _families(kind: str) -> Iterator[str]:
    kind = kind.removeprefix("Bidirectional").removesuffix("Cell")
    yield kind.removesuffix("Transpose").rstrip("123D")
    yield kind
