"""What each Keras layer is in PyTorch: how it is built, and how it is called.

One table: a class of Keras, in today's words, and a rule that gives the expression of its output. A
rule says in which order of dimensions it wants its input, and which order its output has; the rest
is done by `values`. Standard modules of `torch.nn` stand wherever they compute the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from kerasport.architecture import Node, class_of
from kerasport.codegen import activations, operations
from kerasport.codegen.attention import attention, grouped_query, multi_head
from kerasport.codegen.body import Case, File
from kerasport.codegen.images import (
    adaptive_pool,
    center_crop,
    conv,
    conv_transpose,
    cropping,
    depthwise,
    global_pool,
    locally_connected,
    pool,
    resizing,
    separable,
    spatial_dropout,
    up_sampling,
    zero_padding,
)
from kerasport.codegen.linear import dense, einsum_dense, embedding, highway, maxout, reversible
from kerasport.codegen.merges import (
    averaged,
    chained,
    concatenate,
    custom_scale,
    dot,
    merge,
    nested_calls,
    old_merge,
)
from kerasport.codegen.normalizations import (
    batch_normalization,
    group_normalization,
    layer_normalization,
    layer_scale,
    normalization,
    rescaling,
    rms_normalization,
    unit_normalization,
)
from kerasport.codegen.rearranging import flatten, permute, repeat_vector, reshape
from kerasport.codegen.recurrent import bidirectional, conv_lstm, recurrent
from kerasport.codegen.text import call, literal, prose
from kerasport.codegen.values import Value, image_order
from kerasport.errors import UnsupportedError
from kerasport.options import options
from kerasport.shapes import Shape, step

__all__ = ["TABLE", "rule_of"]

JSON = Any
Result = Value | tuple[Value, ...]
Rule = Callable[[Case], Result]


def rule_of(node: Node, file: File, path: str) -> Rule:
    """The rule of a layer; a stub's where the class is in no table, or a user has one for it."""
    if snippet(file, path, options(node.class_name, node.config).class_name):
        return stub
    if node.operation or node.class_name in operations.TENSORFLOW:
        name = operations.operation_of(node.class_name, node.config)
        return operations.performed if name in operations.OPERATIONS else stub
    return TABLE.get(options(node.class_name, node.config).class_name, stub)


def snippet(file: File, path: str, class_name: str) -> str:
    """A user's own module for a layer, for its path or for its class; empty where there is none."""
    names = (path, class_name, class_name.rpartition(">")[2])
    return next((file.snippets[name] for name in names if name in file.snippets), "")


def stub(c: Case) -> Result:
    """A module that stands for code that the file does not hold, or a user's own instead."""
    inputs = ", ".join(c.plain(value).text for value in c.inputs)
    own = snippet(c.file, c.path, c.o.class_name)
    if own:
        return stubbed(c, f"{c.module(c.body.snippet(own, c.o.given))}({inputs})")
    what = f"the layer {prose(c.path)} of class {prose(c.o.class_name)}"
    made = c.body.stub(
        c.o.class_name.rpartition(">")[2] or "Layer", what, c.tensors, outputs=c.wanted
    )
    own_code = ">" in c.o.class_name or c.o.class_name == "Lambda"
    why = "its code is not in the file" if own_code else "PyTorch has no such layer"
    c.file.notes.append(f"{what} is a stub: {why}; give one with --layers, or fill it in")
    return stubbed(c, f"{c.module(f'{made}()')}({inputs})")


def stubbed(c: Case, text: str) -> Result:
    """What a module of a user's own gives, however many tensors that are."""
    if c.wanted == 1:
        return Value(text)
    names = c.body.unpacked(text, c.body.many(c.wanted, "out"))
    return tuple(Value(name) for name in names)


def same(c: Case) -> Value:
    """What does nothing at inference, or nothing at all."""
    return c.x


def random(c: Case) -> Value:
    """Augmentation, which only training does."""
    c.file.notes.append(f"{prose(c.path)} ({c.o.class_name}) changes images in training; not here")
    return c.x


def elementwise(c: Case, text: str) -> Value:
    """What is done to each number by itself."""
    return replace(c.x, text=text)


def last_dim(value: Value) -> int:
    """The dimension of the features."""
    return value.axis(-1)


def activation(c: Case) -> Value:
    """An activation as a layer."""
    x = c.x if not c.x.features else c.body.natural(c.x)
    return replace(x, text=c.activated(x.text, dim=last_dim(x)))


def softmax(c: Case) -> Value:
    """A softmax, which skips what a mask hides."""
    axis = c.o("axis", -1)
    x = c.body.natural(c.x)
    given = c.named.get("mask")
    if not (isinstance(given, Value) or x.mask):
        return replace(x, text=activations.softmax(x, axis))
    # Keras lines the mask up with the last axes, and gives zero where it hides.
    x = c.once(x.straight())
    mask = c.plain(given).text if isinstance(given, Value) else x.mask
    mask = c.body.temporary(f"~({mask} > 0.5)", "hidden")
    text = activations.softmax(replace(x, text=f"{x.text}.masked_fill({mask}, -1e9)"), axis)
    return replace(x, text=f"{text}.masked_fill({mask}, 0.0)")


def named_activation(c: Case) -> Value:
    """LeakyReLU, ELU and their like, as modules."""
    written = {"class_name": c.o.class_name, "config": c.o.given}
    x = c.x
    return elementwise(c, activations.activated(x.text, written, keras=c.file.keras))


def prelu(c: Case) -> Value:
    """A leaky ReLU whose slopes are trained."""
    shape = c.tensors.get("weight")
    if shape is not None and len(shape) == 1:
        x = c.fed(c.x, "channel")
        rank = c.rank(x)
        x = x.at(image_order(rank)) if rank > 2 else x
        return replace(x, text=f"{c.module(call('nn.PReLU', str(shape[0])))}({x.text})")
    return per_position(c, "PReLUPerPosition")


def per_position(c: Case, part: str = "") -> Value:
    """An activation with weights for each position and channel."""
    shape = next(iter(c.tensors.values()), None)
    if shape is None:
        raise UnsupportedError(f"{c.path}: this {c.o.class_name} has no weights in the file")
    x = c.fed(c.x, "channel") if len(shape) == 1 else c.body.natural(c.x)
    rank = c.rank(x)
    x = x.at(image_order(rank)) if rank > 3 else x.straight()
    name = part or c.o.class_name
    return replace(x, text=f"{c.module(call(name, *map(str, shape)))}({x.text})")


def dropout(c: Case) -> Value:
    """Dropout."""
    rate = literal(float(c.o("rate", 0.5)))
    if c.file.keras < 3 and c.named.get("training") is True:
        return elementwise(c, f"F.dropout({c.x.text}, {rate})")
    return elementwise(c, f"{c.module(call('nn.Dropout', rate))}({c.x.text})")


def noise(c: Case) -> Value:
    """Noise in training."""
    option = "stddev" if c.o.class_name == "GaussianNoise" else "rate"
    module = call(c.o.class_name, literal(float(c.o(option, 0.0))))
    return elementwise(c, f"{c.module(module)}({c.x.text})")


def alpha_dropout(c: Case) -> Value:
    """Dropout that keeps mean and variance."""
    module = call("nn.AlphaDropout", literal(float(c.o("rate", 0.5))))
    return elementwise(c, f"{c.module(module)}({c.x.text})")


def masking(c: Case) -> Value:
    """Steps that are all one value are to be skipped."""
    x = c.once(c.x.straight())
    value = c.o("mask_value", 0.0)
    test = f"{x.text} != {literal(float(value))}" if value != "NaN" else f"~{x.text}.isnan()"
    mask = c.body.temporary(f"({test}).any(-1)", "mask")
    zero = f"{x.text} * {mask}.unsqueeze(-1)"
    if value == "NaN":
        zero = f"{x.text}.masked_fill(~{mask}.unsqueeze(-1), 0.0)"
    return replace(x, text=zero, mask=mask)


def spectral(c: Case) -> Result:
    """What it wraps; its normalization has been done to the kernel."""
    inner = c.o("layer")
    own = options(class_of(inner)[0], inner.get("config") or {})
    rule = TABLE.get(own.class_name)
    if rule is None or "vector_u" not in c.tensors:
        raise UnsupportedError(f"{c.path}: {prose(own.class_name)} in SpectralNormalization")
    c.file.notes.append(f"{prose(c.path)} normalizes its kernel in training; not here")
    features = c.tensors["vector_u"][1]
    made = rule(replace(c, o=own, path=f"{c.path}/layer", around=f"SpectralNorm({{}}, {features})"))
    if own.class_name == "Embedding" and isinstance(made, Value):
        # Keras gives what a wrapper takes: whole numbers.
        x = c.once(c.plain(c.x))
        return replace(made, text=f"{made.text}.to({x.text}.dtype)")
    return made


def time_distributed(c: Case) -> Value:
    """What the layer inside does, to each step."""
    inner = c.o("layer")
    if not isinstance(inner, Mapping):
        raise UnsupportedError(f"{c.path}: expected a layer inside TimeDistributed")
    own = options(class_of(inner)[0], inner.get("config") or {})
    rule = TABLE.get(own.class_name, stub)
    if snippet(c.file, c.path, own.class_name):
        rule = stub
    followed = c.file.followed
    known = tuple(followed.enter(k) if k is not None else None for k in c.known)
    shape: Shape = step(c.shape)
    if own.class_name in STEPLESS and rule is not stub:
        made = rule(replace(c, o=own))
        assert isinstance(made, Value)
        return replace(made, mask=c.x.mask)
    x = c.once(c.body.steps_second(c.x))
    given = c.body.by_step(x)
    made = rule(
        replace(c, o=own, inputs=(given,), args=[given], made=(shape,), known=known, wrapped=1)
    )
    if isinstance(made, tuple):
        raise UnsupportedError(f"{c.path}: a layer with several outputs inside TimeDistributed")
    made = replace(made, shape=made.shape if made.shape is not None else shape)
    return replace(c.body.all_steps(made, x.text, shape=c.shape), mask=c.x.mask)


# What does the same to a sequence as to each of its steps.
STEPLESS: Final = frozenset({"Dense", "Activation", "Dropout", "LeakyReLU", "ELU", "ReLU"})


def wrapper(c: Case) -> Result:
    """What a wrapper that does nothing at inference wraps."""
    inner = c.o("layer")
    own = options(class_of(inner)[0], inner.get("config") or {})
    return TABLE.get(own.class_name, stub)(replace(c, o=own))


def category_encoding(c: Case) -> Value:
    tokens = int(c.o("num_tokens"))
    mode = str(c.o("output_mode", "multi_hot"))
    weights = c.named.get("count_weights")
    x = c.plain(c.x)
    if mode == "count" and isinstance(weights, Value):
        each = c.plain(weights).text
        return Value(f"(F.one_hot({x.text}.long(), {tokens}) * {each}.unsqueeze(-1)).sum(-2)")
    return encoded(c, x, tokens, mode)


def encoded(c: Case, x: Value, tokens: int, mode: str) -> Value:
    """Whole numbers as vectors of ones and zeros, or of counts."""
    one_hot = f"F.one_hot({x.text}.long(), {tokens})"
    if mode == "one_hot":
        last = x.shape[-1] if x.shape else None
        return Value(f"{one_hot}.squeeze(-2).float()" if last == 1 else f"{one_hot}.float()")
    if mode == "multi_hot":
        return Value(f"{one_hot}.amax(-2).float()")
    if mode == "count":
        return Value(f"{one_hot}.sum(-2).float()")
    raise UnsupportedError(f"{c.path}: encoding by {prose(mode)}")


def discretization(c: Case) -> Value:
    """The number of the bin that each value is in."""
    bounds = c.o("bin_boundaries")
    if not isinstance(bounds, list):
        raise UnsupportedError(f"{c.path}: bins that are not in the configuration")
    x = c.once(c.body.natural(c.x))
    edges = f"{x.text}.new_tensor({literal([float(n) for n in bounds])})"
    made = replace(x, text=f"torch.bucketize({x.text}, {edges}, right=True)")
    mode = str(c.o("output_mode", "int"))
    if mode == "int":
        return made
    return encoded(c, c.once(made.straight()), len(bounds) + 1, mode)


RANKS: Final = (1, 2, 3)


TABLE: Final[Mapping[str, Rule]] = {
    "InputLayer": same,
    "Identity": same,
    "ActivityRegularization": same,
    "StochasticDepth": same,
    "Activation": activation,
    "Softmax": softmax,
    **dict.fromkeys(("ReLU", "LeakyReLU", "ELU", "ThresholdedReLU"), named_activation),
    "PReLU": prelu,
    **dict.fromkeys(("ParametricSoftplus", "SReLU"), per_position),
    "Dropout": dropout,
    **{f"SpatialDropout{n}D": spatial_dropout for n in RANKS},
    "GaussianNoise": noise,
    "GaussianDropout": noise,
    "AlphaDropout": alpha_dropout,
    "Masking": masking,
    "Dense": dense,
    "EinsumDense": einsum_dense,
    "Embedding": embedding,
    **{f"Conv{n}D": conv for n in RANKS},
    **{f"DepthwiseConv{n}D": depthwise for n in (1, 2)},
    **{f"SeparableConv{n}D": separable for n in (1, 2)},
    **{f"Conv{n}DTranspose": conv_transpose for n in RANKS},
    **{f"{kind}Pooling{n}D": pool for n in RANKS for kind in ("Max", "Average")},
    **{f"Global{kind}Pooling{n}D": global_pool for n in RANKS for kind in ("Max", "Average")},
    **{f"Adaptive{kind}Pooling{n}D": adaptive_pool for n in RANKS for kind in ("Max", "Average")},
    **{f"ZeroPadding{n}D": zero_padding for n in RANKS},
    **{f"Cropping{n}D": cropping for n in RANKS},
    **{f"UpSampling{n}D": up_sampling for n in RANKS},
    "Resizing": resizing,
    "CenterCrop": center_crop,
    "BatchNormalization": batch_normalization,
    "LayerNormalization": layer_normalization,
    "GroupNormalization": group_normalization,
    "RMSNormalization": rms_normalization,
    "UnitNormalization": unit_normalization,
    "Normalization": normalization,
    "Rescaling": rescaling,
    "Add": merge(chained("+")),
    "Subtract": merge(chained("-")),
    "Multiply": merge(chained("*")),
    "Average": merge(averaged),
    "Maximum": merge(nested_calls("torch.maximum")),
    "Minimum": merge(nested_calls("torch.minimum")),
    "Concatenate": concatenate,
    "Dot": dot,
    "Merge": old_merge,
    "CustomScaleLayer": custom_scale,
    "LayerScale": layer_scale,
    "Flatten": flatten,
    "Reshape": reshape,
    "Permute": permute,
    "RepeatVector": repeat_vector,
    **dict.fromkeys(("SimpleRNN", "GRU", "LSTM", "RNN"), recurrent),
    "Bidirectional": bidirectional,
    "TimeDistributed": time_distributed,
    "Wrapper": wrapper,
    "MultiHeadAttention": multi_head,
    "GroupedQueryAttention": grouped_query,
    "GroupQueryAttention": grouped_query,
    **{f"ConvLSTM{n}D": conv_lstm for n in RANKS},
    **{f"LocallyConnected{n}D": locally_connected for n in (1, 2)},
    "Highway": highway,
    "MaxoutDense": maxout,
    "SpectralNormalization": spectral,
    "ReversibleEmbedding": reversible,
    "Attention": attention,
    "AdditiveAttention": attention,
    "CategoryEncoding": category_encoding,
    "Discretization": discretization,
    **dict.fromkeys(
        (
            *("RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast"),
            *("RandomBrightness", "RandomHue", "RandomSaturation", "RandomSharpness"),
            *("RandomShear", "RandomErasing", "RandomColorJitter", "RandomColorDegeneration"),
            *("RandomGrayscale", "RandomGaussianBlur", "RandomInvert", "RandomPerspective"),
            *("RandomElasticTransform", "RandomPosterization", "MixUp", "CutMix", "AugMix"),
            "RandAugment",
        ),
        random,
    ),
}
