"""The vocabulary: which kind of layer a Keras class is, and what its axes are in words.

A kind is a row of the convention tables: one arrangement of weights. Most classes are one kind, a
few are several (a GRU keeps other biases with `reset_after`), and wrappers are the kind of what
they wrap. Everything here is data about Keras; nothing knows a file or a target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

__all__ = ["AXES", "CLASSES", "Facet", "facet", "phrases"]

Config = Mapping[str, Any]
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Facet:
    """What a class with this configuration is.

    Attributes:
        kinds: the kinds that it can be, told apart by the rank of the stored weights.
        config: the configuration of the layer that owns the weights, wrappers taken off.
        child: the attribute path from the layer to that owner, where Keras 3 stores the weights.
        axes: layout words for the braces in the tables, where the configuration names the axes.
    """

    kinds: tuple[str, ...]
    config: Config = field(default_factory=lambda: NOTHING)
    child: str = ""
    axes: Mapping[str, str] = field(default_factory=lambda: NOTHING)


def facet(class_name: str, config: Config) -> Facet | None:
    """What a Keras class with this configuration is; None where the class is not known.

    >>> facet("GRU", {"reset_after": True}).kinds
    ('GRU',)
    >>> facet("TimeDistributed", {"layer": {"class_name": "Dense", "config": {}}}).kinds
    ('Dense',)
    """
    known = CLASSES.get(class_name)
    if isinstance(known, str):
        return Facet((known,), config)
    return known(config) if known else None


def _inner(config: Config, key: str) -> Facet | None:
    inner = config.get(key)
    if not isinstance(inner, Mapping):
        return None
    name, own = inner.get("class_name"), inner.get("config")
    if not isinstance(name, str) or not isinstance(own, Mapping):
        return None
    return facet(name, own)


def _wrapper(config: Config) -> Facet | None:
    inner = _inner(config, "layer")
    return inner and replace(inner, child=f"layer/{inner.child}".rstrip("/"))


def _bidirectional(config: Config) -> Facet | None:
    inner = _inner(config, "layer")
    if inner is None or not set(inner.kinds) <= RECURRENT:
        return None
    return replace(inner, kinds=tuple(f"Bidirectional{kind}" for kind in inner.kinds), child="")


def _gru(config: Config) -> Facet:
    return Facet(("GRU" if config.get("reset_after") else "GRUResetBefore",), config)


def _rnn(config: Config) -> Facet | None:
    inner = _inner(config, "cell")
    return inner and replace(inner, config={**inner.config, "cell": config.get("cell")})


def _layer_normalization(config: Config) -> Facet:
    axis = config.get("axis", -1)
    rank = len(axis) if isinstance(axis, list | tuple) else 1
    words = "channel" if rank == 1 else " ".join(f"normalized_{n}" for n in range(rank))
    return Facet(("LayerNormalization",), config, axes={"normalized": words})


def _einsum_dense(config: Config) -> Facet | None:
    """Axes by what the equation does with them: summed over, new, or in input and output."""
    equation = str(config.get("equation", ""))
    try:
        inputs, rest = equation.replace(" ", "").replace("...", "").split(",")
        kernel, output = rest.split("->")
    except ValueError:
        return None

    def word(letter: str) -> str:
        part = "out" if letter not in inputs else "batch" if letter in output else "in"
        return f"{part}_{letter}"

    words = {letter: word(letter) for letter in dict.fromkeys(inputs + kernel + output)}
    bias_axes = str(config.get("bias_axes") or "")
    first = min((output.find(letter) for letter in bias_axes), default=len(output))
    made = [letter for letter in output if letter in kernel and letter not in inputs]
    linear = all(words[letter].startswith(("in_", "out_")) for letter in kernel)
    linear = linear and (not bias_axes or set(bias_axes) == set(made))
    return Facet(
        ("EinsumDense" if linear else "EinsumDenseBatched",),
        config,
        axes={
            "kernel": " ".join(words[letter] for letter in kernel),
            "bias": " ".join(words[x] if x in bias_axes else "1" for x in output[first:]),
            "inputs": " ".join(words[x] for x in inputs if x in kernel and x not in output),
            "outputs": " ".join(words[letter] for letter in made),
        },
    )


RECURRENT = frozenset({"SimpleRNN", "GRU", "GRUResetBefore", "LSTM"})

# Keras class → its kind, or how its configuration decides. Names of Keras 1 stand beside today's.
CLASSES: Mapping[str, str | Callable[[Config], Facet | None]] = {
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
    "PReLU": lambda config: Facet(tuple(f"PReLU{n}D" for n in (1, 2, 3, 4)), config),
    "SimpleRNN": "SimpleRNN",
    "SimpleRNNCell": "SimpleRNN",
    "GRU": _gru,
    "GRUCell": _gru,
    "LSTM": "LSTM",
    "LSTMCell": "LSTM",
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
        words.update(AXES.get(family, NOTHING))
    return words


def _families(kind: str) -> Iterator[str]:
    yield kind.removesuffix("Transpose").rstrip("123D")
    yield kind
