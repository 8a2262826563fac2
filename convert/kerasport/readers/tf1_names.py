"""From names to layers: TensorFlow 1 kept nothing but names, and scopes in them.

`conv2d/kernel` is the kernel of whatever stood in the scope `conv2d`. Scopes are taken for layers,
the last word for the key of a weight; which kind a layer is, is for the table to find out, by all
the weights that stand together. Beside the weights there are optimizers' slots and moving averages,
each named after the variable that it belongs to: that variable must be there, of the same shape, or
the name is an accident.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, TypeVar

from kerasport.architecture import Graph, Node, snake_case
from kerasport.model import Layer, Tensor
from kerasport.readers.naming import Stored, named
from kerasport.readers.stored import natural
from kerasport.readers.tf_bundle import Bundle, Entry
from kerasport.readers.tf_graph import Meaning, graph_of, variables
from kerasport.readers.tf_proto import Buffer

__all__ = [
    "CELLS",
    "SLOTS",
    "average_of",
    "cell_of",
    "cells_by_name",
    "layers_by_name",
    "meanings_by_graph",
    "todays_names",
]

# The last words of slots, by optimizer; TensorFlow numbers the second one of an optimizer.
SLOTS: Final[Mapping[str, tuple[str, ...]]] = {
    "Adam": ("Adam", "Adam_1"),
    "Momentum": ("Momentum",),
    "RMSProp": ("RMSProp", "RMSProp_1", "RMSProp_2"),
    "Adagrad": ("Adagrad", "AdagradDA", "AdagradDA_1", "gradient_accumulator"),
    "Adadelta": ("Adadelta", "Adadelta_1"),
    "Ftrl": ("Ftrl", "Ftrl_1"),
    "Adafactor": ("vr", "vc"),
    "LARS": ("LARS", "LARSOptimizer", "LARSOptimizer_1", "LARS_1"),
    "AdamWeightDecay": ("adam_m", "adam_v", "AdamW", "AdamW_1"),
    "LAMB": ("lamb_m", "lamb_v"),
    "AdaMax": ("AdaMax", "AdaMax_1"),
    "NadamOptimizer": ("Nadam", "Nadam_1"),
    "Keras": ("m", "v", "vhat", "momentum", "rms", "accumulator", "accum_grad", "accum_var"),
}
AVERAGE: Final = "ExponentialMovingAverage"
# What a moving average that starts at zero keeps beside it.
_DEBIASING: Final = ("biased", "local_step")

# The scopes that the cells of `tf.nn.rnn_cell` and `tf.contrib` make, after their classes, the
# words of their weights, and how many units wide their dimensions are. A fused cell has the words
# of a Dense layer: were its scope not heeded, it would be taken for one.
CELLS: Final[Mapping[str, tuple[str, Mapping[str, tuple[int, ...]]]]] = {
    "basic_rnn_cell": ("BasicRNNCell", {"kernel": (0, 1), "bias": (1,)}),
    "rnn_cell": ("BasicRNNCell", {"kernel": (0, 1), "bias": (1,)}),
    "basic_lstm_cell": ("BasicLSTMCell", {"kernel": (0, 4), "bias": (4,)}),
    "lstm_cell": ("TF1LSTMCell", {"kernel": (0, 4), "bias": (4,)}),
    "lstm_block_cell": ("LSTMBlockCell", {"kernel": (0, 4), "bias": (4,)}),
    "lstm_fused_cell": ("LSTMBlockFusedCell", {"kernel": (0, 4), "bias": (4,)}),
    "layer_norm_basic_lstm_cell": ("LayerNormBasicLSTMCell", {"kernel": (0, 4), "bias": (4,)}),
    "cudnn_compatible_lstm_cell": ("CudnnCompatibleLSTMCell", {"kernel": (0, 4), "bias": (4,)}),
    "gru_cell": (
        "TF1GRUCell",
        {
            "gates/kernel": (0, 2),
            "gates/bias": (2,),
            "candidate/kernel": (0, 1),
            "candidate/bias": (1,),
        },
    ),
    "cudnn_compatible_gru_cell": (
        "CudnnCompatibleGRUCell",
        {
            "gates/kernel": (0, 2),
            "gates/bias": (2,),
            "candidate/input_projection/kernel": (0, 1),
            "candidate/input_projection/bias": (1,),
            "candidate/hidden_projection/kernel": (1, 1),
            "candidate/hidden_projection/bias": (1,),
        },
    ),
    "cudnn_lstm": ("CudnnLSTM", {"opaque_kernel": (0,)}),
    "cudnn_gru": ("CudnnGRU", {"opaque_kernel": (0,)}),
}

_SLOT: Final = {word for words in SLOTS.values() for word in words}
# tf.contrib.layers and TF-Slim never called them otherwise.
_OLD_NAMES: Final = {
    "weights": "kernel",
    "biases": "bias",
    "depthwise_weights": "depthwise_kernel",
    "pointwise_weights": "pointwise_kernel",
}
# The names that `tf.layers` and, with a capital, TF-Slim give where none is given.
_DEFAULTS: Final = {
    **{
        snake_case(name): name
        for name in (
            *("Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "Conv3DTranspose", "Dense"),
            *("DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D", "BatchNormalization"),
            *("LayerNormalization", "Embedding"),
        )
    },
    "Conv": "Conv2D",
    "Conv2d_transpose": "Conv2DTranspose",
}
Held = TypeVar("Held")
_FACTORED: Final = ("vr", "vc")
_COUNTER: Final = re.compile(r"(.*/)?(global_step|(beta[12]|accumulated_decay)_power(_\d+)?)$")
# Scopes that are the parts of one layer, by the last words of the scopes that lie side by side.
_CELL_PARTS: Final = ({"gates", "candidate"},)
_PROJECTIONS: Final = {"query", "key", "value"}


def layers_by_name(
    bundle: Bundle, *, name: str, graph: Graph | None = None, given: bool = False
) -> Stored:
    """The layers of a checkpoint that has nothing but names; every tensor has its place.

    Args:
        bundle: the tensors.
        name: what to call the model, for variables outside of any scope.
        graph: the model's architecture, or None where it is not known.
        given: whether the architecture comes from elsewhere, and so may not fit.

    Raises:
        UsageError: a given architecture does not fit.
    """
    stored = Stored()
    weights: dict[str, Entry] = {}
    for key, entry in bundle.entries.items():
        average = average_of(key, entry, bundle.entries)
        reason = f"moving average of {average}" if average else _reason(key, entry, bundle.entries)
        if reason is None:
            weights[key] = entry
        else:
            stored.omit([entry.tensor(key)], reason, average_of=average)
    ordered = sorted(weights, key=lambda key: tuple(natural(word) for word in key.split("/")))
    if graph is not None:
        groups: dict[str, list[tuple[str, Tensor]]] = {}
        for key in ordered:
            groups.setdefault(key.split("/")[0], []).append((key, weights[key].tensor(key)))
        found = named(list(groups.items()), graph, given=given)
        return Stored(found.layers, [*found.omitted, *stored.omitted])
    cells = cells_by_name({key: weights[key].shape for key in ordered})
    scopes: dict[str, dict[str, Tensor]] = {}
    heads = _heads(ordered, cells)
    for key in ordered:
        scope = heads[key]
        own = key[len(scope) + 1 :] if scope else key
        scopes.setdefault(scope or name, {})[own] = weights[key].tensor(key)
    for scope, found_here in scopes.items():
        stored.add(scope, todays_names(found_here), node=cells.get(scope))
    stored.layers = [_after(layer) for layer in stored.layers]
    return stored.finished()


def meanings_by_graph(bundle: Bundle, data: Buffer | None, *, where: str) -> dict[str, Meaning]:
    """What the operations of a graph say of its variables, by their names in the checkpoint.

    Args:
        bundle: the tensors.
        data: the graph, or None.
        where: what is being read, for errors.

    Raises:
        MalformedError: it is no graph.
    """
    if data is None:
        return {}
    graph = graph_of(data, where=where)
    held = {op: name for name, op in variables(graph).items() if name in bundle.entries}
    said = graph.meanings((op, len(bundle.entries[name].shape)) for op, name in held.items())
    return {held[op]: what for op, what in said.items()}


def cells_by_name(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Node]:
    """The scopes that are named after a recurrent cell, and hold the weights of one.

    Args:
        shapes: of variables, by their names.

    >>> cells = cells_by_name({"rnn/gru_cell/gates/kernel": (8, 10)})
    >>> cells  # its candidate is not there
    {}
    """
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for name in shapes:
        words = name.split("/")
        for size in range(len(words) - 1, 0, -1):
            word = re.sub(r"_\d+$", "", words[size - 1])
            if word in CELLS or (size == len(words) - 1 and word.endswith("_cell")):
                own = found.setdefault("/".join(words[:size]), {})
                own["/".join(words[size:])] = shapes[name]
                break
    cells = {}
    for scope, held in found.items():
        own_name = scope.rpartition("/")[2]
        word = re.sub(r"_\d+$", "", own_name)
        class_name, expected = CELLS.get(word, ("", {}))
        held = todays_names(held)
        if "recurrent_kernel" in held:  # Keras's cells are called so too, and fuse nothing
            continue
        if not expected:  # a cell that is not known is no layer of another kind for that
            class_name = "".join(part.capitalize() for part in word.split("_"))
        if _fits(held, expected):
            cells[scope] = Node(own_name, class_name, class_name, {})
    return cells


def cell_of(name: str, cells: Mapping[str, Node]) -> str | None:
    """The cell that a variable is a weight of, or None.

    Args:
        name: the variable's name.
        cells: what `cells_by_name` found.
    """
    return next((cell for cell in cells if name.startswith(f"{cell}/")), None)


def _after(layer: Layer) -> Layer:
    """A layer in a scope of the name that a function of TensorFlow gives to it by itself."""
    word = re.sub(r"_\d+$", "", layer.path.rpartition("/")[2])
    return replace(layer, named_after=_DEFAULTS.get(word, ""))


def todays_names(held: Mapping[str, Held]) -> dict[str, Held]:
    """The weights of a layer under the names that they have had since TensorFlow 1.2.

    Args:
        held: the weights by the last words of their names.
    """
    names = {}
    for key in held:
        above, slash, last = key.rpartition("/")
        names[key] = f"{above}{slash}{_OLD_NAMES.get(last, last)}"
    if len(set(names.values())) < len(names):
        return dict(held)
    return {names[key]: value for key, value in held.items()}


def _fits(held: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the weights of a cell are all there, each as many units wide as it must be."""
    units: set[int] = set()
    for key, widths in expected.items():
        shape = held.get(key)
        if shape is None:
            if key.endswith("bias"):
                continue
            return False
        if len(shape) != len(widths):
            return False
        for extent, width in zip(shape, widths, strict=True):
            if width:
                units.add(extent // width if extent % width == 0 else 0)
    return len(units) < 2 and 0 not in units


def _reason(name: str, entry: Entry, entries: Mapping[str, Entry]) -> str | None:
    """Why a tensor is no weight, or None."""
    if not entry.is_number:
        return entry.why_not
    if _COUNTER.match(name) and not entry.shape:
        return "training counter"
    above, _, last = name.rpartition("/")
    if last in _DEBIASING and above in entries and entry.shape in ((), entries[above].shape):
        return "training counter" if last == "local_step" else "state of a moving average"
    if last in _SLOT and _base(above, entry, entries, exact=last not in _FACTORED):
        return "optimizer state"
    return None


def average_of(name: str, entry: Entry, entries: Mapping[str, Entry]) -> str:
    """The variable whose moving average a tensor is, by its name; empty where it is none.

    Args:
        name: the name of the tensor.
        entry: the tensor.
        entries: all tensors by their names.
    """
    above, _, last = name.rpartition("/")
    return (last == AVERAGE and _base(above, entry, entries)) or ""


def _base(
    name: str, entry: Entry, entries: Mapping[str, Entry], *, exact: bool = True
) -> str | None:
    """The variable that a slot belongs to; its scopes may have those of the optimizer before it."""
    words = name.split("/")
    for start in range(len(words)):
        base = entries.get("/".join(words[start:]))
        if base is not None and (not exact or base.shape == entry.shape):
            return base.name
    return None


def _heads(names: Iterable[str], cells: Mapping[str, Node]) -> dict[str, str]:
    """The scope that is taken for a layer, by variable.

    It is the scope that a variable stands in, or the one around it where several scopes side by
    side are the parts of one layer: a GRU's gates and candidate, the directions of a bidirectional
    layer, an attention's projections.
    """
    heads = {name: name.rpartition("/")[0] for name in names}
    inside: dict[str, set[str]] = {}
    for scope in dict.fromkeys(heads.values()):
        above, _, own = scope.rpartition("/")
        inside.setdefault(above, set()).add(own)
    plain = set(heads.values())
    for name, scope in heads.items():
        above, _, own = scope.rpartition("/")
        cell = cell_of(name, cells)
        if cell is not None:
            heads[name] = cell
            continue
        parts = inside[above]
        if above and above not in plain and own and _is_one(parts):
            heads[name] = above
    return heads


def _is_one(parts: set[str]) -> bool:
    return (
        any(parts == known for known in _CELL_PARTS)
        or _PROJECTIONS <= parts <= _PROJECTIONS | {"attention_output"}
        or (len(parts) == 2 and {p.partition("_")[0] for p in parts} == {"forward", "backward"})
    )
