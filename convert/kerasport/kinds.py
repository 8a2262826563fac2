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

from kerasport.variants import UNKNOWN, plain, variants

__all__ = [
    "AXES",
    "BY_NAME",
    "CLASSES",
    "CONFIGURED",
    "FORGET_BIAS",
    "HOLDERS",
    "ORDERINGS",
    "SPECIAL",
    "USUAL_AXES",
    "Facet",
    "asked",
    "facets",
    "own_config",
    "phrases",
    "snake_case",
]

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
        open: the braces whose words go on with as many dimensions of extent one as are stored.
        ahead: those whose words begin with them.
        apart: the layers that it is made of, where each is stored as one of its own, quantized.
        name: the name of a part; empty where the facet is the whole layer, or what is left of it.
        convention: the only convention that files have it in; empty where there are several.
        names: what older files call the scope of a part or direction, as patterns.
        repeats: keys under which Keras 3 stores a weight again that is stored elsewhere.
    """

    kinds: tuple[str, ...]
    config: Config = field(default_factory=dict)
    child: str = ""
    axes: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    open: str = ""
    ahead: str = ""
    apart: tuple[Facet, ...] = ()
    name: str = ""
    convention: str = ""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    repeats: Mapping[str, str] = field(default_factory=dict)


def facets(class_name: str, config: Config) -> tuple[Facet, ...]:
    """What a Keras class with this configuration is; nothing where the class is not known.

    >>> [facet.kinds for facet in facets("GRU", {"reset_after": True})]
    [('GRU',)]
    >>> [facet.kinds for facet in facets("TimeDistributed", {"layer": {"class_name": "Dense"}})]
    [('Dense',)]
    """
    known = CLASSES.get(class_name)
    if isinstance(known, str):
        return (Facet(variants(known, config), config),)
    return known(config) if known else ()


def own_config(class_name: str | None, config: Config) -> Config:
    """The configuration of the layer that owns the weights, wrappers taken off.

    >>> own_config("TimeDistributed", {"layer": {"class_name": "Dense", "config": {"units": 3}}})
    {'units': 3}
    """
    found = facets(class_name or "", config)
    return found[0].config if found else config


def _inner(config: Config, key: str) -> tuple[Facet, ...]:
    inner = config.get(key)
    if not isinstance(inner, Mapping):
        return ()
    name, own = inner.get("class_name"), inner.get("config", {})
    if not isinstance(name, str) or not isinstance(own, Mapping):
        return ()
    return facets(name, own)


def _below(found: tuple[Facet, ...], path: str) -> tuple[Facet, ...]:
    return tuple(
        replace(
            facet,
            child=f"{path}/{facet.child}".rstrip("/"),
            repeats={f"{path}/{twin}": f"{path}/{key}" for twin, key in facet.repeats.items()},
        )
        for facet in found
    )


def _part(
    found: tuple[Facet, ...], path: str, *, name: str, names: tuple[str, ...]
) -> tuple[Facet, ...]:
    """Facets as one part of a layer that has several."""
    return tuple(
        replace(
            facet,
            name=f"{name}/{facet.name}".rstrip("/"),
            names={**facet.names, name: names},
        )
        for facet in _below(found, path)
    )


def _named(config: Config, key: str) -> tuple[str, ...]:
    """The name that an inner layer has in the configuration."""
    inner = config.get(key)
    own = inner.get("config") if isinstance(inner, Mapping) else None
    name = own.get("name") if isinstance(own, Mapping) else None
    return (name,) if isinstance(name, str) else ()


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


def _wrapped_cell(config: Config) -> tuple[Facet, ...]:
    """A cell with dropout or a shortcut around it."""
    return _below(_inner(config, "cell"), "cell")


def _stacked(config: Config) -> tuple[Facet, ...]:
    cells = config.get("cells")
    found: list[Facet] = []
    places: Counter[str] = Counter()
    for cell in cells if isinstance(cells, list | tuple) else ():
        inner = _inner({"cell": cell}, "cell")
        if not inner:
            return ()
        word = snake_case(cell["class_name"])
        number = f"_{places[word]}" if places[word] else ""
        places[word] += 1
        (name,) = _named({"cell": cell}, "cell") or (f"{word}{number}",)
        found += _part(inner, f"cells/{word}{number}", name=name, names=(name,))
    return tuple(found)


def _bidirectional(config: Config) -> tuple[Facet, ...]:
    """Two layers alike are one bidirectional kind; two unlike ones stay two layers."""
    forward = _inner(config, "layer")
    backward = _inner(config, "backward_layer") or forward
    if not forward or not backward:
        return ()
    names = {
        "forward": ("forward*", *_named(config, "layer")),
        "backward": ("backward*", *_named(config, "backward_layer")),
    }
    kinds = [facet.kinds for facet in (*forward, *backward)]
    alike = len(kinds) == 2 and kinds[0] == kinds[1] and _steps(forward[0]) == _steps(backward[0])
    if alike and {*kinds[0]} <= RECURRENT:
        both = tuple(f"Bidirectional{kind}" for kind in kinds[0])
        return (replace(forward[0], kinds=both, child="", names=names),)
    if not all(facet.child.startswith("cell") for facet in (*forward, *backward)):
        return ()  # no layer that goes from step to step
    return tuple(
        facet
        for name, found in (("forward", forward), ("backward", backward))
        for facet in _part(found, f"{name}_layer", name=f"{name}_layer", names=names[name])
    )


def _steps(facet: Facet) -> tuple[Any, ...]:
    """What one step of a recurrent layer computes, in which both directions have to agree."""
    options = ("units", "use_bias", "activation", "recurrent_activation")
    return tuple(facet.config.get(option) for option in options)


def snake_case(name: str) -> str:
    """A class's name as Keras writes it in paths.

    >>> snake_case("PReLU"), snake_case("Conv2DTranspose"), snake_case("LSTMCell")
    ('p_re_lu', 'conv2d_transpose', 'lstm_cell')
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _normalized(axis: Any) -> str:
    """The axes that a layer normalizes along, in words."""
    rank = len(axis) if isinstance(axis, list | tuple) else 1
    return "channel" if rank == 1 else " ".join(f"normalized_{n}" for n in range(rank))


def _layer_normalization(config: Config) -> tuple[Facet, ...]:
    axes = {"normalized": _normalized(config.get("axis", -1))}
    if config.get("rms_scaling"):  # always has gamma then, and never beta
        config = {**config, "scale": True, "center": False}
    return (Facet(("LayerNormalization",), config, axes=axes),)


def _rms_normalization(config: Config) -> tuple[Facet, ...]:
    axes = {"normalized": _normalized(config.get("axis", -1))}
    return (Facet(("RMSNormalization",), config, axes=axes),)


def _normalization(config: Config) -> tuple[Facet, ...]:
    axis = config.get("axis", -1)  # null: one mean and variance for all
    axes = {"normalized": "" if axis is None else _normalized(axis)}
    return (Facet(("Normalization",), config, axes=axes),)


def _batch_normalization(config: Config) -> tuple[Facet, ...]:
    """Over several axes at once, tf.keras has a dimension for each of the input's."""
    axis = config.get("axis", -1)
    axes = axis if isinstance(axis, list | tuple) else [axis]
    words, kind = "channel", "BatchNormalization"
    if len(axes) > 1 or config.get("virtual_batch_size"):
        kind = "BatchNormalizationAxes"
        if not all(isinstance(n, int) and 0 < n < MAX_RANK for n in axes):
            return ()
        words = " ".join(
            (f"axis_{n}" if len(axes) > 1 else "channel") if n in axes else "1"
            for n in range(max(axes) + 1)
        )
    kind = "BatchNormalizationRenorm" if config.get("renorm") else kind
    return (Facet((kind,), config, axes={"normalized": words}, open="normalized"),)


def _spectral_normalization(config: Config) -> tuple[Facet, ...]:
    """The layer inside, and the vector; Keras 3 stores the kernel with both."""
    inner = _inner(config, "layer")
    own = Facet(("SpectralNormalization",), config, repeats={"0": "layer/0"})
    found = _part(inner, "layer", name="layer", names=_named(config, "layer"))
    return (*found, own) if found else ()


def _is_channels_first(config: Config) -> bool:
    return "channels_first" in (
        config.get("data_format"),
        ORDERINGS.get(str(config.get("dim_ordering"))),
    )


def _per_position(name: str) -> Callable[[Config], tuple[Facet, ...]]:
    """A weight a position, in the order of the image; `data_format` is that of the model."""

    def found(config: Config) -> tuple[Facet, ...]:
        first = _is_channels_first(config)
        axes = {
            usual: f"channel {usual.removesuffix(' channel')}" if first else usual
            for usual in ("length channel", "height width channel", "depth height width channel")
        }
        return (Facet(tuple(f"{name}{n}D" for n in (1, 2, 3, 4)), config, axes=axes),)

    return found


def _locally_connected(rank: int) -> Callable[[Config], tuple[Facet, ...]]:
    """Windows, one kernel each; or a value for every input and output, most of them masked."""
    window = {1: "k", 2: "kh kw"}[rank]
    outer = {1: "position", 2: "row column"}[rank]
    inner = {1: "from", 2: "from_row from_column"}[rank]
    kind = f"LocallyConnected{rank}D"

    def found(config: Config) -> tuple[Facet, ...]:
        first = _is_channels_first(config)
        # Keras reshapes the bias to channels first, where its shape asks for a transposition.
        bias = f"{outer} out as (out {outer})" if first else f"{outer} out"
        match config.get("implementation", 1):
            case 1:
                old = _extents(config)
                size = config.get("kernel_size")
                if size is None:
                    size = [old[axis] for axis in window.split() if axis in old]
                size = [size] * rank if isinstance(size, int) else size
                if not (isinstance(size, list | tuple) and len(size) == rank):
                    return ()
                axes = {"window": f"(in {window})" if first else f"({window} in)", "bias": bias}
                sizes = dict(zip(window.split(), size, strict=True))
                return (Facet((kind,), config, axes=axes, sizes=sizes),)
            case 2:
                kernel = f"in {inner} out {outer}" if first else f"{inner} in {outer} out"
                return (Facet((f"{kind}Full",), config, axes={"kernel": kernel, "bias": bias}),)
            case _:
                return (Facet((f"{kind}Sparse",), config, axes={"bias": bias}),)

    return found


def _attention(config: Config) -> tuple[Facet, ...]:
    """One output axis, or several; with a gate, there is one more projection."""
    output = config.get("output_shape")
    rank = len(output) if isinstance(output, list | tuple) else 1
    words = "out" if rank == 1 else " ".join(f"out_{n}" for n in range(rank))
    kind = "GatedMultiHeadAttention" if config.get("use_gate") else "MultiHeadAttention"
    parts = _projections(config, rank)
    return (Facet((kind,), config, axes={"output": words}, apart=parts),)


def _projections(config: Config, rank: int) -> tuple[Facet, ...]:
    """The dense layers inside an attention, each by itself: Keras quantizes them one by one."""
    heads, size = config.get("num_heads"), config.get("key_dim")
    value = config.get("value_dim") or size
    new = "cdef"[:rank]
    made: list[Facet] = []
    for name, equation, extents in (
        ("query", "...a,abc->...bc", [heads, size]),
        ("key", "...a,abc->...bc", [heads, size]),
        ("value", "...a,abc->...bc", [heads, value]),
        ("attention_output", f"...ab,ab{new}->...{new}", config.get("output_shape")),
    ):
        last = name == "attention_output"
        own = {
            "equation": equation,
            "output_shape": extents,
            "bias_axes": (new if last else "bc") if config.get("use_bias", True) else None,
            "dtype": UNKNOWN,  # the configuration does not say to what
        }
        (facet,) = _einsum_dense(own)
        taken = {"in_a": heads, "in_b": value} if last else {}
        sizes = {axis: n for axis, n in taken.items() if isinstance(n, int)}
        child = f"{name.removeprefix('attention_')}_dense"
        made.append(replace(facet, sizes={**facet.sizes, **sizes}, child=child, name=name))
    return tuple(made)


def _grouped_attention(config: Config) -> tuple[Facet, ...]:
    gated = "Gated" if config.get("use_gate") else ""
    return (Facet((f"{gated}GroupedQueryAttention",), config),)


def _scaled_attention(config: Config) -> tuple[Facet, ...]:
    options = {"concat": config.get("score_mode") == "concat"}
    return (Facet(("Attention",), {**config, **options}),)


def _spectrogram(config: Config) -> tuple[Facet, ...]:
    mode = config.get("mode", "log")
    options = {"real": mode != "imag", "imag": mode != "real"}
    return (Facet(("STFTSpectrogram",), {**config, **options}),)


def _reversible_embedding(config: Config) -> tuple[Facet, ...]:
    tied = config.get("tie_weights", True)
    return _embedding(config, "TiedEmbedding" if tied else "ReversibleEmbedding")


def _embedding(config: Config, kind: str = "Embedding") -> tuple[Facet, ...]:
    """Packed, it does not show how wide an entry is."""
    width = config.get("output_dim")
    kinds = variants(kind, config)
    sizes = {"embed": width} if kinds != (kind,) and isinstance(width, int) else {}
    return (Facet(kinds, config, sizes=sizes),)


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
        # A scale has the dimensions of the output, factors those of the kernel around their rank.
        "scale": " ".join(words[x] if x in kernel else "1" for x in output),
        "factor_a": " ".join([*(words[letter] for letter in kernel[:-1]), "rank"]),
        "factor_b": " ".join(["rank", *(words[letter] for letter in kernel[-1:])]),
    }
    kinds = variants("EinsumDense" if linear else "EinsumDenseBatched", config)
    sizes: dict[str, int] = {}
    behind = equation.endswith("...")
    if any(plain(kind) != kind for kind in kinds):  # then no tensor may have the kernel's axes
        given = config.get("output_shape")
        extents = list(given) if isinstance(given, list | tuple) else [given]
        # The batch is not among them, nor what an ellipsis in front stands for.
        last = output[1:] if behind else output[-len(extents) :] if extents else ""
        known = zip(last, extents, strict=False)
        sizes = {words[x]: n for x, n in known if isinstance(n, int) and x in kernel}
    # Where the input goes on behind the ellipsis, these have a dimension for each axis of it.
    facet = Facet(kinds, config, axes=axes, sizes=sizes)
    return (replace(facet, open="bias scale") if behind else replace(facet, ahead="scale"),)


# What Keras 1 called the extents of a kernel, whose axes it stored in one of two orders.
ORDERINGS = {"th": "channels_first", "tf": "channels_last"}
EXTENTS = {
    "nb_filter": "out",
    "filter_length": "k",
    "nb_row": "kh",
    "nb_col": "kw",
    "kernel_dim1": "kd",
    "kernel_dim2": "kh",
    "kernel_dim3": "kw",
}


def _extents(config: Config) -> Mapping[str, int]:
    """The extents of a kernel, if it is one of Keras 1."""
    named = [(axis, config.get(option)) for option, axis in EXTENTS.items()]
    return {axis: size for axis, size in named if isinstance(size, int)}


def _convolution(kind: str) -> Callable[[Config], tuple[Facet, ...]]:
    return lambda config: (Facet((kind,), config, sizes=_extents(config)),)


# The cells of TensorFlow 1, under the names that its readers give them.
TF1_CELLS: Mapping[str, str | tuple[str, ...]] = {
    "BasicRNNCell": "SimpleRNN",
    "BasicLSTMCell": "LSTM",
    "TF1LSTMCell": ("LSTM", "LSTMPeephole", "LSTMProjected", "LSTMPeepholeProjected"),
    "LSTMBlockCell": ("LSTM", "LSTMPeephole"),
    "LSTMBlockFusedCell": ("LSTM", "LSTMPeephole"),
    "LayerNormBasicLSTMCell": "LayerNormLSTM",
    "CudnnCompatibleLSTMCell": "LSTM",
    "TF1GRUCell": "GRUResetBefore",
    "CudnnCompatibleGRUCell": "GRU",
    "CudnnLSTM": "CudnnOpaque",
    "CudnnGRU": "CudnnOpaque",
}
# What an LSTM cell of those adds to its forget gate when it runs, unless it was told otherwise.
FORGET_BIAS: Mapping[str, float] = {
    "BasicLSTMCell": 1.0,
    "TF1LSTMCell": 1.0,
    "LSTMBlockCell": 1.0,
    "LSTMBlockFusedCell": 1.0,
}


def _tf1_cell(kind: str | tuple[str, ...]) -> Callable[[Config], tuple[Facet, ...]]:
    kinds = (kind,) if isinstance(kind, str) else kind  # what is stored beside it says which
    return lambda config: (Facet(kinds, config, convention="tf1"),)


# What the tables' braces mean where no configuration says: the common case, and only if it fits.
USUAL_AXES: Mapping[str, str] = {
    "normalized": "channel",
    "output": "out",
    **{words: words for words in ("length channel", "height width channel")},
    "depth height width channel": "depth height width channel",
}


# The operators of TensorFlow Lite.
OPERATORS = {
    "CONV_2D": "Conv2D",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "FULLY_CONNECTED": "Dense",
    "PRELU": "PReLU3D",
    "TRANSPOSE_CONV": "Conv2DTranspose",
}


def _operator(kind: str) -> Callable[[Config], tuple[Facet, ...]]:
    def found(config: Config) -> tuple[Facet, ...]:
        mult = config.get("depth_multiplier")
        sizes = {"mult": mult} if isinstance(mult, int) else {}
        return (Facet((kind,), config, axes=USUAL_AXES, sizes=sizes, convention="tflite"),)

    return found


MAX_RANK = 9
RECURRENT = frozenset(
    {"SimpleRNN", "GRU", "GRUResetBefore", "LSTM", "LSTMPeephole", "CuDNNGRU", "CuDNNLSTM"}
)

# Keras class → its kind, or how its configuration decides. Names of Keras 1 stand beside today's.
CLASSES: Mapping[str, str | Callable[[Config], tuple[Facet, ...]]] = {
    "Dense": "Dense",
    "TimeDistributedDense": "Dense",
    **{f"Conv{n}D": f"Conv{n}D" for n in (1, 2, 3)},
    **{f"Convolution{n}D": _convolution(f"Conv{n}D") for n in (1, 2, 3)},
    **{f"AtrousConvolution{n}D": _convolution(f"Conv{n}D") for n in (1, 2)},
    **{f"Conv{n}DTranspose": f"Conv{n}DTranspose" for n in (1, 2, 3)},
    **{f"Convolution{n}DTranspose": f"Conv{n}DTranspose" for n in (1, 2, 3)},
    "Deconvolution2D": _convolution("Conv2DTranspose"),
    "Highway": "Highway",
    "MaxoutDense": "MaxoutDense",
    "DepthwiseConv1D": "DepthwiseConv1D",
    "DepthwiseConv2D": "DepthwiseConv2D",
    **{f"SeparableConv{n}D": f"SeparableConv{n}D" for n in (1, 2)},
    **{f"SeparableConvolution{n}D": f"SeparableConv{n}D" for n in (1, 2)},
    **{f"LocallyConnected{n}D": _locally_connected(n) for n in (1, 2)},
    **{f"ConvLSTM{n}D": _recurrent(f"ConvLSTM{n}D") for n in (1, 2, 3)},
    **dict.fromkeys(
        (
            *("BatchNormalization", "BatchNormalizationV1", "BatchNormalizationV2"),
            "SyncBatchNormalization",
        ),
        _batch_normalization,
    ),
    "LayerScale": "LayerScale",
    "LayerNormalization": _layer_normalization,
    "RMSNormalization": _rms_normalization,
    "GroupNormalization": "GroupNormalization",
    "Normalization": _normalization,
    "SpectralNormalization": _spectral_normalization,
    "Discretization": "Discretization",
    **dict.fromkeys(("StringLookup", "IntegerLookup"), "Lookup"),
    "TextVectorization": lambda config: (
        # The layer inside saves the same once more.
        Facet(("Lookup",), config, repeats={"_lookup_layer/idf_weights": "idf_weights"}),
    ),
    "STFTSpectrogram": _spectrogram,
    "RandomFourierFeatures": "RandomFourierFeatures",
    "Embedding": _embedding,
    "ReversibleEmbedding": _reversible_embedding,
    **{name: _per_position(name) for name in ("PReLU", "ParametricSoftplus", "SReLU")},
    "SimpleRNN": _recurrent("SimpleRNN"),
    "SimpleRNNCell": "SimpleRNNCell",
    "GRU": _gru,
    "GRUCell": _gru_cell,
    "LSTM": _recurrent("LSTM"),
    "LSTMCell": "LSTMCell",
    "PeepholeLSTMCell": "LSTMPeepholeCell",
    "CuDNNGRU": "CuDNNGRU",
    "CuDNNLSTM": "CuDNNLSTM",
    "StackedRNNCells": _stacked,
    **{name: _tf1_cell(kind) for name, kind in TF1_CELLS.items()},
    **{name: _operator(kind) for name, kind in OPERATORS.items()},
    **dict.fromkeys(("DropoutWrapper", "ResidualWrapper", "DeviceWrapper"), _wrapped_cell),
    "RNN": _rnn,
    "Bidirectional": _bidirectional,
    "TimeDistributed": _wrapper,
    "Wrapper": _wrapper,
    "MultiHeadAttention": _attention,
    "GroupedQueryAttention": _grouped_attention,
    "GroupQueryAttention": _grouped_attention,
    "Attention": _scaled_attention,
    "AdditiveAttention": "AdditiveAttention",
    "EinsumDense": _einsum_dense,
}

# Where a file names no classes, these are not taken for what fits: their axes follow from a
# configuration alone.
CONFIGURED = frozenset(
    {
        *("BatchNormalizationAxes", "TiedEmbedding"),
        *(f"LocallyConnected{n}D{way}" for n in (1, 2) for way in ("", "Full", "Sparse")),
    }
)
# And these only where the variables have names: as numbered arrays they are anything.
BY_NAME = frozenset(
    {
        *("AdditiveAttention", "Attention", "BatchNormalizationRenorm", "Discretization"),
        *("Highway", "Lookup", "MaxoutDense", "RandomFourierFeatures", "ReversibleEmbedding"),
        *("LSTMPeephole", "LSTMPeepholeProjected", "LSTMProjected"),
        *("LayerScale", "SpectralNormalization", "STFTSpectrogram"),
        *(f"{name}{n}D" for name in ("ParametricSoftplus", "SReLU") for n in (1, 2, 3, 4)),
    }
)
# A kind → the one that it is a general case of: where both fit, the weights do the same in either.
SPECIAL = {
    "GroupedQueryAttention": "MultiHeadAttention",
    "GatedGroupedQueryAttention": "GatedMultiHeadAttention",
}

# Where a user names a class and nothing its options, the options that its kind depends on.
CHOICES: Mapping[str, tuple[Config, ...]] = {
    **dict.fromkeys(("GRU", "GRUCell"), ({"reset_after": True}, {"reset_after": False})),
    **dict.fromkeys(
        ("MultiHeadAttention", "GroupedQueryAttention", "GroupQueryAttention"),
        ({"use_gate": False}, {"use_gate": True}, {"output_shape": (1, 1)}),
    ),
    **{f"LocallyConnected{n}D": ({"implementation": 2}, {"implementation": 3}) for n in (1, 2)},
    **dict.fromkeys(
        ("LayerNormalization", "RMSNormalization"),
        tuple({"axis": list(range(rank))} for rank in (1, 2, 3)),
    ),
    "Normalization": ({"axis": -1}, {"axis": None}),
    **dict.fromkeys(
        ("BatchNormalization", "BatchNormalizationV1", "BatchNormalizationV2"),
        ({"renorm": False}, {"renorm": True}),
    ),
    "ReversibleEmbedding": (
        {"tie_weights": True, "dtype": UNKNOWN},
        {"tie_weights": False, "dtype": UNKNOWN},
    ),
    **dict.fromkeys(("Dense", "Embedding"), ({"dtype": UNKNOWN, "lora_rank": 1},)),
    **{f"Conv{n}D": ({"lora_rank": 1},) for n in (1, 2, 3)},
}
# What holds a layer, under which key of its configuration, and what that usually is.
HOLDERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "Bidirectional": (
        "layer",
        (
            *("LSTM", "GRU", "SimpleRNN", "CuDNNLSTM", "CuDNNGRU"),
            *(f"ConvLSTM{n}D" for n in (1, 2, 3)),
            "RNN(PeepholeLSTMCell)",
        ),
    ),
    "RNN": ("cell", ("LSTMCell", "GRUCell", "SimpleRNNCell", "PeepholeLSTMCell")),
    "SpectralNormalization": ("layer", ()),
    "TimeDistributed": ("layer", ()),
}


def _each(text: str) -> Iterator[tuple[str, Config]]:
    """A class with each configuration to try."""
    found = asked(text)
    if found is not None:
        yield from ((found[0], config) for config in found[1])


def asked(text: str) -> tuple[str, tuple[Config, ...]] | None:
    """What a user may mean by a class: its name, and the configurations to try; None for no class.

    >>> asked("GRU")
    ('GRU', ({'reset_after': True}, {'reset_after': False}))
    >>> asked("TimeDistributed(Bidirectional(LSTM))")[0]
    'TimeDistributed'
    >>> asked("LSTMM"), asked("LSTM(Dense)")
    (None, None)
    """
    *outer, inner = text.rstrip(")").split("(")
    closed = len(text) - len(text.rstrip(")"))
    if inner not in CLASSES or closed != len(outer) or not {*outer} <= HOLDERS.keys():
        return None
    key, usual = HOLDERS.get(inner, ("", ()))
    name, configs = inner, CHOICES.get(inner, ({},))
    if usual:
        held = [(own, config) for one in usual for own, config in _each(one)]
        configs = tuple({key: {"class_name": one, "config": config}} for one, config in held)
    for holder in reversed(outer):
        key, _ = HOLDERS[holder]
        configs = tuple({key: {"class_name": name, "config": config}} for config in configs)
        name = holder
    return name, configs


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
        "group": "heads of key and value",
        "position": "positions of the window",
        "row": "rows of positions",
        "column": "columns of positions",
        "from": "positions of the input",
        "from_row": "rows of the input",
        "from_column": "columns of the input",
        "entry": "values that the mask leaves",
        "feature": "features",
        "bin": "quantiles",
        "piece": "linear pieces",
    },
    "Conv": {"in": "input channels", "out": "filters"},
    "DepthwiseConv": {"in": "input channels"},
    "SeparableConv": {"in": "input channels", "out": "filters"},
    "ConvLSTM": {"in": "input channels", "unit": "filters", "hidden": "filters of the step before"},
    "LocallyConnected": {"in": "input channels", "out": "filters"},
    "STFTSpectrogram": {"k": "samples of a frame", "out": "frequencies"},
    "MultiHeadAttention": {"out": "output features"},
    "GroupedQueryAttention": {"out": "output features"},
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
    kind = kind.removeprefix("Bidirectional").removeprefix("Gated").removesuffix("Cell")
    yield re.sub(r"\dD[A-Za-z]*$", "", kind)
    yield kind
