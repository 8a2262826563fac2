"""What a call tells a layer beside its inputs: a mask, weights, whether it is to train.

Such an argument changes what comes out. So each is one that the layer's rule knows, or the layer is
refused: none is passed over in silence. In Keras 3 the caller of a model has the last word on
whether its layers train, in tf.keras the call that was recorded has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from kerasport.architecture import Graph
from kerasport.codegen.body import Case, tensors_in
from kerasport.codegen.text import prose
from kerasport.codegen.values import Value
from kerasport.errors import UnsupportedError
from kerasport.options import Options, options

__all__ = ["MASKS", "any_trains", "told"]

ONLY_IN_TRAINING: Final = frozenset(
    {
        *("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianNoise"),
        *("GaussianDropout", "AlphaDropout", "BatchNormalization", "SpectralNormalization"),
        *("StochasticDepth", "MixUp", "CutMix", "AugMix", "RandAugment"),
    }
)
# The parameters of a layer's `call` behind its inputs, where it has some.
PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("Softmax", "GlobalAveragePooling1D"), ("mask",)),
    **dict.fromkeys(("BatchNormalization", "TimeDistributed"), ("training", "mask")),
    **dict.fromkeys(("Dropout", *ONLY_IN_TRAINING - {"BatchNormalization"}), ("training",)),
    "CategoryEncoding": ("count_weights",),
}
# The layers behind which it is still known which steps count; all others forget it.
MASKS: Final = frozenset(
    {
        *("InputLayer", "Masking", "Embedding", "ReversibleEmbedding", "Identity"),
        *("Wrapper", "SpectralNormalization"),
        *("Dense", "Highway", "MaxoutDense", "TimeDistributed", "Activation", "Softmax"),
        *("ReLU", "LeakyReLU", "ELU", "ThresholdedReLU", "PReLU", "ParametricSoftplus", "SReLU"),
        *("Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization"),
        *("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "Rescaling"),
        *("BatchNormalization", "LayerNormalization", "GroupNormalization"),
        *("UnitNormalization", "Normalization"),
        *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Merge"),
        *("SimpleRNN", "GRU", "LSTM", "RNN", "Bidirectional", "Attention", "AdditiveAttention"),
        *("MultiHeadAttention", "GroupedQueryAttention", "GroupQueryAttention"),
    }
)
INPUTS: Final = frozenset({"inputs", "x", "sequence", "sequences"})
LOOPS: Final = ("SimpleRNN", "GRU", "LSTM", "RNN", "Bidirectional")
HEADS: Final = ("MultiHeadAttention", "GroupedQueryAttention", "GroupQueryAttention")
# The tensors that a rule asks for by name.
ASKED: Final[Mapping[str, frozenset[str]]] = {
    "Softmax": frozenset({"mask"}),
    "CategoryEncoding": frozenset({"count_weights"}),
    **dict.fromkeys(("Attention", "AdditiveAttention"), frozenset({"mask"})),
    **dict.fromkeys(LOOPS, frozenset({"mask", "initial_state"})),
    **dict.fromkeys(
        HEADS,
        frozenset(
            {"query", "value", "key", "query_mask", "value_mask", "key_mask", "attention_mask"}
        ),
    ),
}
# What a mask tells which steps count, as one does that comes with the input.
MASKED: Final = frozenset({"GlobalAveragePooling1D", "BatchNormalization", "TimeDistributed"})


def told(c: Case) -> Case:
    """The call with its arguments by name, each of which its rule knows.

    Raises:
        UnsupportedError: the layer is given something that would be passed over.
    """
    name = c.o.class_name
    parameters = PARAMETERS.get(name, ())
    named = {**c.named, **dict(zip(parameters, c.args[1:], strict=False))}
    if c.file.keras < 3 and trains(c.o, named):
        raise UnsupportedError(
            f"{c.path}: this {prose(name)} is called with training=True, always; a module does "
            "that in training alone"
        )
    mask = named.get("mask")
    if name in MASKED and isinstance(mask, Value):
        counted = c.body.temporary(f"{mask.text}.bool()", "mask")
        x = replace(c.x, mask=counted)
        c = replace(c, inputs=(x, *c.inputs[1:]), args=[x, *c.args[1:]])
        del named["mask"]
    other = [key for key, arg in named.items() if any(tensors_in(arg)) and key not in INPUTS]
    unknown = [key for key in other if key not in ASKED.get(name, frozenset())]
    if unknown:
        raise UnsupportedError(
            f"{c.path}: this {prose(name)} is called with {prose(', '.join(unknown))}, which the "
            "module would not take into account"
        )
    return replace(c, named=named)


def trains(o: Options, named: Mapping[str, Any]) -> bool:
    """Whether a call says that a layer is to do what others do in training alone."""
    if named.get("training") is not True:
        return False
    random = o.class_name.startswith("Random") and o.class_name != "RandomFourierFeatures"
    rates = any(o(rate) for rate in ("dropout", "recurrent_dropout"))
    return random or rates or o.class_name in ONLY_IN_TRAINING


def any_trains(graph: Graph) -> bool:
    """Whether a model has a layer that does something else in training."""
    return any(
        any_trains(node.graph)
        if node.graph is not None
        else node.class_name == "Dropout"
        or trains(options(node.class_name, node.config), {"training": True})
        for node in graph.nodes
    )
