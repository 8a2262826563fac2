"""What a layer does beside its weights, for whoever builds the module that will hold them.

The weights alone are half of a layer. PyTorch's epsilon is not Keras's, its momentum is one minus
Keras's, its padding is the same on both sides where Keras's `same` is not, its recurrent layers
have one activation only. Each such option is a hint: a name from `HINTS`, a value that is JSON, and
whether ignoring it changes what the module puts out. It does where the value is not what the
target's module does by itself; what matters in training alone (momentum, dropout) does not.

Hints are a function of the configuration: a table says which kind of layer has which, another how
each is found. An option that a configuration leaves out has Keras's default, as in Keras. A layer
without a configuration has the hints that follow from its kind, and no others: nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from kerasport.architecture import Graph, Node, parse
from kerasport.flatten import Flattened, flattened
from kerasport.kinds import FORGET_BIAS, facets
from kerasport.model import Layer, Snapshot
from kerasport.options import Options, options
from kerasport.shapes import IDENTITIES, MERGES, Call, Shape, inputs_of, shapes, step, walk
from kerasport.variants import LORA, MIXED, UNKNOWN, formulas, plain, policies, scheme

__all__ = ["HINTS", "KINDS", "changing", "hints"]

JSON = Any

HINTS: Final[Mapping[str, str]] = {
    "activation": "what follows, as Keras defines it: a name, or a name with its parameters",
    "affine": "whether there is a scale or an offset",
    "attention_axes": "axes that are attended along as one; null for all but batch and features",
    "axis": "the axis or axes that are normalized, counted in Keras's order",
    "batch_first": "batches come before steps",
    "bias_axes": "the axes of the equation that the bias has",
    "bidirectional": "two layers, the second reads the steps backwards and its output is put back",
    "compute_dtype": "what the layer computes in, where its weights are kept in another dtype",
    "cropping": "what is cut off the full transposed convolution: [before, after] a dimension",
    "dilation": "distance of the kernel's elements, a number a dimension",
    "dropout": "rate, in training",
    "epsilon": "is added to the variance",
    "equation": "of the einsum of input and kernel, as Keras lays them out",
    "forget_bias": "is added to the forget gate when it runs, on top of the stored bias",
    "frames": "of the signal: samples in a frame, samples from one to the next, and what is made "
    "of the real and the imaginary part",
    "go_backwards": "steps are read last to first, and put out in the order in which they are read",
    "groups": "groups of channels",
    "hard_sigmoid_slope": "hard_sigmoid is clip(slope x + 0.5, 0, 1); Keras 3 has another slope",
    "invert": "the mean and the deviation are put on, not taken off",
    "key_dim": "numbers per head of query and key",
    "lora": "the weight is used with its low-rank factors added, as the formula says",
    "mask_zero": "index 0 marks steps that later layers skip",
    "masking": "the input has steps to be skipped, behind a Masking or a mask_zero",
    "merge_mode": "how the two directions become one; null for both, one after the other",
    "momentum": "of the running statistics, as the target counts it",
    "num_batches_tracked": "is not known to Keras, and unused with a momentum",
    "num_heads": "heads",
    "num_key_value_heads": "heads of key and value, each of which serves several of the query in a "
    "row",
    "operators": "ONNX operators with their attributes; `name` stands before their tensors' names",
    "output_padding": "what is added behind the full transposed convolution, a number a dimension",
    "padding": "zeros around the input, [before, after] a dimension; `same` where that depends on "
    "a size that is not known",
    "peepholes": "the gates i and f add the state of the step before, each by its weights, and the "
    "gate o the new one",
    "quantization": "what the weight's numbers mean, in tensors' roles; `packing` is how they lie "
    "in a byte, `inputs` what the layer's input is rounded to, `missing` what Keras did not save",
    "recurrent_activation": "the activation of the gates",
    "recurrent_dropout": "rate, in training",
    "reset_after": "the reset gate is applied after the recurrent product",
    "reshape": "the output becomes an image of this shape, channels last: reshape it in this "
    "order, then put channels first",
    "return_sequences": "all steps are put out; else the last state, of each direction its own",
    "return_state": "the last state is put out too",
    "rms_scaling": "the mean is not subtracted",
    "scale": "factor of the products of queries and keys",
    "score_mode": "what becomes of query and key: `dot` their products, `concat` the sum of tanh "
    "of their sum",
    "shared_axes": "axes along which there is one slope, counted in Keras's order",
    "sliding_window": "how far a position may look; null for as far as there is",
    "soft_cap": "what a tanh keeps the logits below; null for nothing",
    "stateful": "the last state is the next batch's first",
    "strides": "a number a dimension",
    "time_distributed": "how many axes of steps the layer is applied along, one by one",
    "value_dim": "numbers per head of value",
}


def hints(
    snapshot: Snapshot, *, to: str, seen: Flattened | None = None
) -> dict[str, dict[str, dict[str, JSON]]]:
    """The module hints of every layer: by path and name, a value and whether it changes results.

    >>> from kerasport.model import Source
    >>> norm = Layer("norm", "BatchNormalization", {"epsilon": 0.1}, {}, kind="BatchNormalization")
    >>> said = hints(Snapshot(Source("m.h5", "h5"), (norm,)), to="torch")["norm"]
    >>> said["epsilon"], said["momentum"]["value"]
    ({'value': 0.1, 'changes_results': True}, 0.01)

    Args:
        snapshot: identified layers.
        to: the convention whose modules will hold the weights.
        seen: what `flattened` said of them, where it was asked already.
    """
    graph = None if snapshot.architecture is None else parse(snapshot.architecture)
    calls = {} if graph is None else shapes(graph, inputs_of(snapshot.architecture))
    masks = _masks(graph)
    images = {} if graph is None else (seen or flattened(snapshot)).images
    first = graph is not None and any(
        options(leaf.node.class_name, leaf.node.config).channels_first for leaf in graph.leaves()
    )
    version = _version(snapshot.source.keras_version)
    return {
        layer.path: _hints(
            _Case.of(
                layer,
                tuple(call.inputs[0] for call in calls.get(layer.path, ()) if call.inputs),
                _Model(to, version, first, layer.path in masks, images.get(layer.path)),
            )
        )
        for layer in snapshot.layers
    }


def changing(name: str) -> bool:
    """Whether a hint can change results when it is ignored; what matters in training cannot.

    >>> changing("epsilon"), changing("dropout")
    (True, False)

    Args:
        name: of `HINTS`.
    """
    return TABLE[name].changes is not _never


def _version(written: str | None) -> tuple[int, ...] | None:
    words = (written or "").partition("-")[0].split(".")[:2]
    numbers = all(word.isdecimal() and len(word) < 10 for word in words)
    return tuple(map(int, words)) if words and numbers else None


# ----------------------------------------------------------------------------------------- masks


def _masks(graph: Graph | None) -> set[str]:
    """The paths of the layers that take steps to be skipped."""
    if graph is None:
        return set()
    calls = walk(graph, (), _Masks())
    return {path for path, made in calls.items() if any(any(call.inputs) for call in made)}


MASKED: Final = frozenset(
    {
        *(*IDENTITIES, *MERGES, "Concatenate", "Merge", "Dense", "TimeDistributed"),
        *("MultiHeadAttention", "GroupedQueryAttention", "Attention", "AdditiveAttention"),
    }
)
RECURRENT: Final = frozenset({"SimpleRNN", "GRU", "LSTM", "RNN"})


class _Masks:
    """Whether a tensor has steps to be skipped, as `walk` follows it."""

    unknown = False

    def layer(self, node: Node, inputs: tuple[bool, ...], *, path: str, call: int) -> Call[bool]:
        o = options(node.class_name, node.config)
        name, own = o.class_name, o
        if name == "Bidirectional" and isinstance(inner := o("layer"), Mapping):
            own = options(str(inner.get("class_name")), inner.get("config") or {})
            name = own.class_name
        makes = name == "Masking" or (name == "Embedding" and bool(o("mask_zero")))
        keeps = name in MASKED or (name in RECURRENT and bool(own("return_sequences")))
        return Call(inputs, (makes or (keeps and any(inputs)),))

    def enter(self, value: bool) -> bool:
        return value

    def leave(self, value: bool) -> bool:
        return value


# ------------------------------------------------------------------------------------------ cases


@dataclass(frozen=True, slots=True)
class _Model:
    """What the layer's surroundings say.

    Attributes:
        to: the target's convention.
        version: of the Keras that wrote the file.
        channels_first: whether the model keeps channels first in Keras.
        masked: whether the layer takes steps to be skipped.
        image: the shape of the image that is made of the layer's output.
    """

    to: str
    version: tuple[int, ...] | None
    channels_first: bool
    masked: bool
    image: tuple[int | None, ...] | None


@dataclass(frozen=True, slots=True)
class _Case:
    """One layer whose hints are wanted.

    Attributes:
        kind: its kind, that of one direction for Bidirectional and of the layer for a cell.
        o: its options, those of its cell or of what it wraps included.
        inputs: the shape that each call takes, of one step inside TimeDistributed.
        layer: the layer itself.
        model: what is around it.
        wrapped: how many TimeDistributed are around it.
        merge: `merge_mode` and its value, for Bidirectional.
    """

    kind: str
    o: Options
    inputs: tuple[Shape, ...]
    layer: Layer
    model: _Model
    wrapped: int
    merge: tuple[str | None] | None

    @classmethod
    def of(cls, layer: Layer, inputs: tuple[Shape, ...], model: _Model) -> _Case:
        """Take the wrappers off."""
        kind = plain((layer.kind or "").removeprefix("Bidirectional").removesuffix("Cell"))
        kind = kind.removeprefix("CuDNN")  # which does what the layer without it does
        name, config = layer.class_name or kind, layer.config
        wrapped = 0
        merge: tuple[str | None] | None = None
        if (layer.kind or "").startswith("Bidirectional"):
            merge = (config.get("merge_mode", "concat"),)
        while isinstance(inner := config.get("layer"), Mapping):
            wrapped += name == "TimeDistributed"
            name, config = str(inner.get("class_name")), inner.get("config") or {}
        if isinstance(cell := config.get("cell"), Mapping):
            config = {**(cell.get("config") or {}), **config}
        for facet in facets(layer.class_name or "", layer.config):
            if facet.name and layer.path.endswith(f"/{facet.name}"):  # one of stacked cells
                config = {**config, **facet.config}
        for _ in range(wrapped):
            inputs = tuple(map(step, inputs))
        own = options(name, config)
        return cls(kind, Options(kind, own.given), inputs, layer, model, wrapped, merge)

    @property
    def rank(self) -> int | None:
        """How many dimensions the input has."""
        return next((len(shape) for shape in self.inputs if shape is not None), None)


ABSENT: Final = object()


def _never(case: _Case, value: JSON) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class _Hint:
    """How a hint is found, and when it changes results.

    Attributes:
        value: its value; ABSENT where there is none.
        changes: whether ignoring it changes results.
        always: whether it follows from the kind, without a configuration.
    """

    value: Callable[[_Case], JSON]
    changes: Callable[[_Case, JSON], bool] = _never
    always: bool = False


def _hints(case: _Case) -> dict[str, dict[str, JSON]]:
    found: dict[str, dict[str, JSON]] = {}
    row = plain((case.layer.kind or "").removeprefix("Bidirectional"))
    for name in (*KINDS.get(row, ()), *EVERY):
        hint = TABLE[name]
        if not (hint.always or case.layer.config):
            continue
        try:
            value = hint.value(case)
            if value is not ABSENT:
                changes = bool(hint.changes(case, value))
                found[name] = {"value": value, "changes_results": changes}
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            continue  # the configuration is not what Keras writes
    return found


# ------------------------------------------------------------------------------------------ table


def _option(name: str, default: JSON) -> Callable[[_Case], JSON]:
    def value(case: _Case) -> JSON:
        found = case.o(name, default)
        if not (found is None or isinstance(found, bool | int | str)):
            found = float(found)
        if isinstance(found, float) and not math.isfinite(found):
            raise ValueError(f"{name}: expected a finite number")
        return found

    return value


def _flag(name: str) -> Callable[[_Case], JSON]:
    return lambda case: bool(case.o(name, False))


def _unlike(usual: JSON) -> Callable[[_Case, JSON], bool]:
    return lambda case, value: bool(value != usual)


def _each(name: str) -> Callable[[_Case], JSON]:
    return lambda case: list(case.o.each(name, 1))


def _any_unlike(usual: int) -> Callable[[_Case, JSON], bool]:
    return lambda case, value: any(n != usual for n in value)


def _sides(case: _Case, value: JSON) -> bool:
    return value == "same" or any(a or b for a, b in value)


def _always(case: _Case, value: JSON) -> bool:
    return True


def _only(to: str, value: JSON) -> Callable[[_Case], JSON]:
    return lambda case: value if case.model.to == to else ABSENT


def _named(activation: JSON) -> JSON:
    """An activation by its name, with the parameters of a layer that serves as one."""
    if activation is None:
        return "linear"
    if isinstance(activation, str):
        return activation
    name = str(activation.get("registered_name") or activation["class_name"])
    config = activation.get("config")
    if name == "function" or isinstance(config, str):
        return str(config)
    parameters = {
        key: value
        for key, value in (config or {}).items()
        if isinstance(value, bool | int)
        or (isinstance(value, float) and math.isfinite(value))
        or (isinstance(value, str) and key not in ("name", "dtype"))
    }
    parameters.pop("trainable", None)
    return {"name": name, **parameters} if parameters else name


def _usual_activation(case: _Case) -> str:
    return "tanh" if case.kind in GATED else "linear"


def _activation(case: _Case) -> JSON:
    # A missing activation is the default, a null one is none.
    return _named(case.o.given.get("activation", _usual_activation(case)))


def _recurrent_activation(case: _Case) -> JSON:
    version = case.model.version
    old = version is not None and version < (2, 3)
    cudnn = (case.layer.class_name or "").startswith("CuDNN")
    usual = "hard_sigmoid" if old and not cudnn else "sigmoid"
    return _named(case.o.given.get("recurrent_activation", usual))


def _forget_bias(case: _Case) -> JSON:
    return FORGET_BIAS.get(str(case.layer.class_name), ABSENT)


def _hard_sigmoid_slope(case: _Case) -> JSON:
    used = [_activation(case)]
    if case.kind in GATED and case.kind != "SimpleRNN":
        used.append(_recurrent_activation(case))
    if "hard_sigmoid" not in used:
        return ABSENT
    if case.model.version is None:
        return None
    return 1 / 6 if case.model.version >= (3,) else 0.2


def _groups(case: _Case) -> JSON:
    if case.kind.startswith(("Depthwise", "Separable")):
        return case.layer.sizes["in"]
    if case.kind == "GroupNormalization":
        groups = int(case.o("groups", 32))
        return case.layer.sizes["channel"] if groups == -1 else groups
    return int(case.o("groups", 1))


def _padding(case: _Case) -> JSON:
    """Zeros before and after each dimension, which for `same` depend on the size of the input."""
    o = case.o
    mode = o("padding", "valid")
    windows = list(
        zip(o.each("kernel_size"), o.each("strides", 1), o.each("dilation_rate", 1), strict=True)
    )
    reach = [(kernel - 1) * dilation for kernel, _, dilation in windows]
    match mode:
        case "valid":
            return [[0, 0] for _ in reach]
        case "causal":
            return [[n, 0] for n in reach]
        case "full":  # Theano's
            return [[n, n] for n in reach]
        case "same":
            strides = [stride for _, stride, _ in windows]
            if set(strides) == {1}:
                return [[n // 2, n - n // 2] for n in reach]
            known = [None if shape is None else o.spatial(shape) for shape in case.inputs]
            found = {_same(sizes, reach, strides) for sizes in known} if known else {None}
            (one, *others) = found
            return "same" if others or one is None else [list(pair) for pair in one]
    raise ValueError(f"padding {mode!r}")


def _same(
    sizes: tuple[int | None, ...] | None, reach: list[int], strides: list[int]
) -> tuple[tuple[int, int], ...] | None:
    if sizes is None:
        return None
    sides: list[tuple[int, int]] = []
    for size, wide, stride in zip(sizes, reach, strides, strict=True):
        if stride == 1:
            total = wide
        elif size is None:
            return None
        else:
            total = max((math.ceil(size / stride) - 1) * stride + wide + 1 - size, 0)
        sides.append((total // 2, total - total // 2))
    return tuple(sides)


def _cut(case: _Case) -> list[int]:
    """How much longer the full transposed convolution is than what Keras puts out."""
    o = case.o
    extra = o("output_padding")
    extras = [None] * o.rank if extra is None else list(o.each("output_padding"))
    cut: list[int] = []
    for kernel, stride, dilation, more in zip(
        o.each("kernel_size"), o.each("strides", 1), o.each("dilation_rate", 1), extras, strict=True
    ):
        extent = (kernel - 1) * dilation + 1
        if o("padding", "valid") == "same":
            cut.append(extent - (stride if more is None else extent % 2 + more))
        else:
            cut.append(-max(stride - extent, 0) if more is None else -more)
    return cut


def _cropping(case: _Case) -> JSON:
    return [[max(n, 0) // 2, max(n, 0) - max(n, 0) // 2] for n in _cut(case)]


def _output_padding(case: _Case) -> JSON:
    return [max(-n, 0) for n in _cut(case)]


def _momentum(case: _Case) -> JSON:
    written = _option("momentum", 0.99)(case)
    # In decimals, so that 0.99 becomes 0.01 and not 0.010000000000000009.
    return float(1 - Decimal(repr(written))) if case.model.to == "torch" else written


def _unlike_epsilon(case: _Case, value: JSON) -> bool:
    return bool(value != (1e-3 if case.model.to == "keras" else 1e-5))


def _axis(case: _Case) -> JSON:
    axis = case.o("axis", -1)
    return [int(n) for n in axis] if isinstance(axis, list | tuple) else int(axis)


def _unlike_axis(case: _Case, value: JSON) -> bool:
    """Whether another axis is normalized than the one that the target's module normalizes."""
    axes = value if isinstance(value, list) else [value]
    last = axes in ([-1], [(case.rank or 0) - 1])
    if case.kind == "LayerNormalization" and case.model.to != "keras":
        # The last axis of an image is not the last one of a target that keeps channels first.
        return not (last and (case.rank or 4) <= 3)
    return not (last or (case.model.channels_first and axes == [1]))


def _unlike_linear(case: _Case, value: JSON) -> bool:
    """Whether an equation is more than what a linear layer does to its last axis."""
    source, _, rest = value.replace("...", "").replace(" ", "").partition(",")
    kernel, _, made = rest.partition("->")
    return not (len(kernel) == 2 and source[-1:] == kernel[0] and made == source[:-1] + kernel[1])


def _dims(name: str) -> Callable[[_Case], JSON]:
    def value(case: _Case) -> JSON:
        found = case.o(name)
        return None if found is None else [int(n) for n in found]

    return value


def _scale(case: _Case) -> JSON:
    return 1 / math.sqrt(int(case.o("key_dim")))


def _not_scaled(case: _Case, value: JSON) -> bool:
    """Whether the target's own attention does not fit, and what replaces it must scale."""
    sizes = case.layer.sizes
    widths = {sizes.get(f"{name}_in") for name in ("query", "key", "value")}
    whole = {*widths, sizes.get("out")} == {sizes.get("head", 0) * sizes.get("key", 0)}
    return not (case.model.to == "torch" and whole and sizes.get("key") == sizes.get("value"))


def _attention_axes(case: _Case) -> JSON:
    axes = case.o("attention_axes")
    return [axes] if isinstance(axes, int) else _dims("attention_axes")(case)


def _frames(case: _Case) -> JSON:
    length = int(case.o("frame_length", 256))
    step = int(case.o("frame_step", length // 2))
    return {"length": length, "step": step, "mode": str(case.o("mode", "log"))}


def _direction(case: _Case) -> JSON:
    return case.merge is not None


# ------------------------------------------------------------------------------- variants of kinds


def _compute_dtype(case: _Case) -> JSON:
    found = {MIXED.get(policy.source) for policy in policies(case.o.given)}
    return found.pop() or ABSENT if len(found) == 1 else ABSENT


def _weight(case: _Case) -> str:
    return "embeddings" if "Embedding" in case.kind else "kernel"


def _lora(case: _Case) -> JSON:
    if not (case.layer.kind or "").endswith(LORA):
        return ABSENT
    rank = case.layer.sizes["rank"]
    name = f"lora_{_weight(case)}"
    return {
        "rank": rank,
        "alpha": float(case.o("lora_alpha", rank)),
        "formula": f"{_weight(case)} + (alpha / rank) x {name}_a @ {name}_b",
    }


def _quantization(case: _Case) -> JSON:
    how = scheme(case.layer.kind or "")
    if not how:
        return ABSENT
    formula = formulas(how, _weight(case))
    zeros = f"{_weight(case)}_zero"
    lost = zeros in formula and zeros not in case.layer.weights
    packed = how in ("GPTQ4", "AWQ") or how.startswith("Int4")
    return {
        "scheme": how,
        "formula": formula,
        "packing": "two numbers a byte along pair, the low half first" if packed else None,
        "inputs": _inputs(case, how),
        "missing": zeros if lost else None,
    }


def _inputs(case: _Case, how: str) -> JSON:
    """To what the layer rounds what it takes, while it computes."""
    if how == "Float8":
        return "f8_e4m3fn, by inputs_scale"
    if not how.startswith("Int") or case.kind == "Embedding":
        return None
    if case.o.given.get("dtype") == UNKNOWN:
        return "unknown"
    usual = how == "Int8" or case.kind in ("TiedEmbedding", "ReversibleEmbedding")
    given = case.o("quantization_config", {}).get("config", {})
    rounds = given.get("activation_quantizer", usual)
    return "i8, by the largest of each row" if rounds else None


# -------------------------------------------------------------------------------- ONNX operators


def _operators(case: _Case) -> JSON:
    if case.model.to != "onnx" or case.kind not in OPERATORS:
        return ABSENT
    if plain(str(case.layer.kind)) != case.layer.kind:  # no operator takes it as it is
        return ABSENT
    made = []
    for name, op, attributes in OPERATORS[case.kind]:
        if op == "Add" and not case.o("use_bias", True):
            continue
        found = attributes(case) if attributes and case.layer.config else {}
        made.append({"name": name, "op": op, "attributes": found})
    return made


def _pads(sides: JSON) -> dict[str, JSON]:
    if sides == "same":
        return {"auto_pad": "SAME_UPPER"}
    return {"pads": [*(before for before, _ in sides), *(after for _, after in sides)]}


def _conv_attributes(case: _Case) -> dict[str, JSON]:
    return {
        "dilations": list(case.o.each("dilation_rate", 1)),
        "group": _groups(case),
        "strides": list(case.o.each("strides", 1)),
        **_pads(_padding(case)),
    }


def _transposed_attributes(case: _Case) -> dict[str, JSON]:
    return {
        "dilations": list(case.o.each("dilation_rate", 1)),
        "output_padding": _output_padding(case),
        "strides": list(case.o.each("strides", 1)),
        **_pads(_cropping(case)),
    }


def _batch_attributes(case: _Case) -> dict[str, JSON]:
    return {"epsilon": EPSILON(case), "momentum": _momentum(case)}


def _layer_attributes(case: _Case) -> dict[str, JSON]:
    axes = case.o("axis", -1)
    count = len(axes) if isinstance(axes, list | tuple) else 1
    return {"axis": -count, "epsilon": EPSILON(case)}


def _group_attributes(case: _Case) -> dict[str, JSON]:
    return {"num_groups": _groups(case), "epsilon": EPSILON(case)}


ONNX_ACTIVATIONS: Final[Mapping[str, str]] = {
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "hard_sigmoid": "HardSigmoid",
    "relu": "Relu",
    "elu": "Elu",
    "softsign": "Softsign",
    "softplus": "Softplus",
    "linear": "Affine",
}
ALPHA: Final[Mapping[str, float]] = {"Elu": 1.0, "Affine": 1.0}


def _recurrent_attributes(case: _Case) -> dict[str, JSON]:
    """Gates first, as ONNX lists activations; what it has no name for stays a hint alone."""
    own = _activation(case)
    gates = [] if case.kind == "SimpleRNN" else [_recurrent_activation(case)]
    names = [*gates, own, *([own] if case.kind in LSTMS else [])]
    twice = 2 if case.merge else 1
    made: dict[str, JSON] = {
        "direction": "bidirectional" if case.merge else "forward",
        "hidden_size": case.layer.sizes["unit"],
    }
    if case.kind.startswith("GRU"):
        made["linear_before_reset"] = int(case.kind == "GRU")
    if all(isinstance(name, str) and name in ONNX_ACTIVATIONS for name in names):
        activations = [ONNX_ACTIVATIONS[name] for name in names] * twice
        made["activations"] = activations
        # Alpha and beta go to those activations that take one, in order.
        slope = _hard_sigmoid_slope(case)
        alpha = {**ALPHA, **({} if slope in (ABSENT, None) else {"HardSigmoid": slope})}
        if found := [alpha[name] for name in activations if name in alpha]:
            made["activation_alpha"] = found
        beta = {"HardSigmoid": 0.5, "Affine": 0.0}
        if found := [beta[name] for name in activations if name in beta]:
            made["activation_beta"] = found
    return made


RANKS: Final = (1, 2, 3)
LSTMS: Final = ("LSTM", "LSTMPeephole", "LSTMProjected", "LSTMPeepholeProjected")
GATED: Final = frozenset(
    {"SimpleRNN", "GRU", "GRUResetBefore", *LSTMS, *(f"ConvLSTM{n}D" for n in RANKS)}
)
EPSILON: Final = _option("epsilon", 1e-3)
Attributes = Callable[[_Case], dict[str, JSON]]

OPERATORS: Final[Mapping[str, tuple[tuple[str, str, Attributes | None], ...]]] = {
    "Dense": (("", "Gemm", lambda case: {"transB": 1}),),
    **{f"Conv{n}D": (("", "Conv", _conv_attributes),) for n in RANKS},
    **{f"DepthwiseConv{n}D": (("", "Conv", _conv_attributes),) for n in (1, 2)},
    **{
        f"SeparableConv{n}D": (
            ("depthwise", "Conv", _conv_attributes),
            ("pointwise", "Conv", None),
        )
        for n in (1, 2)
    },
    **{f"Conv{n}DTranspose": (("", "ConvTranspose", _transposed_attributes),) for n in RANKS},
    "BatchNormalization": (("", "BatchNormalization", _batch_attributes),),
    "LayerNormalization": (("", "LayerNormalization", _layer_attributes),),
    "GroupNormalization": (("", "GroupNormalization", _group_attributes),),
    "Embedding": (("", "Gather", None),),
    **{f"PReLU{n}D": (("", "PRelu", None),) for n in (1, 2, 3, 4)},
    "EinsumDense": (("", "Einsum", lambda case: {"equation": case.o("equation")}),),
    "EinsumDenseBatched": (("", "Einsum", lambda case: {"equation": case.o("equation")}),),
    "SimpleRNN": (("", "RNN", _recurrent_attributes),),
    "GRU": (("", "GRU", _recurrent_attributes),),
    "GRUResetBefore": (("", "GRU", _recurrent_attributes),),
    **dict.fromkeys(LSTMS, (("", "LSTM", _recurrent_attributes),)),
    "MultiHeadAttention": tuple(
        (name, op, None) for name in ("query", "key", "value", "output") for op in ("MatMul", "Add")
    ),
}

TABLE: Final[Mapping[str, _Hint]] = {
    "activation": _Hint(_activation, lambda case, value: value != _usual_activation(case)),
    "affine": _Hint(lambda case: bool(case.o("scale", True)) or bool(case.o("center", True))),
    "attention_axes": _Hint(_attention_axes, lambda case, v: v not in (None, [1], [-2])),
    "axis": _Hint(_axis, _unlike_axis),
    "batch_first": _Hint(_only("torch", True), _always, always=True),
    "bias_axes": _Hint(_option("bias_axes", None)),
    "bidirectional": _Hint(_direction, _unlike(False), always=True),
    "compute_dtype": _Hint(_compute_dtype, _always),
    "cropping": _Hint(_cropping, _sides),
    "dilation": _Hint(_each("dilation_rate"), _any_unlike(1)),
    "dropout": _Hint(_option("dropout", 0)),
    "epsilon": _Hint(EPSILON, _unlike_epsilon),
    "equation": _Hint(_option("equation", ""), _unlike_linear),
    "go_backwards": _Hint(_flag("go_backwards"), _unlike(False)),
    "frames": _Hint(_frames, _always),
    "groups": _Hint(_groups, _unlike(1)),
    "forget_bias": _Hint(_forget_bias, _always, always=True),
    "hard_sigmoid_slope": _Hint(_hard_sigmoid_slope, _always),
    "invert": _Hint(_flag("invert"), _unlike(False)),
    "key_dim": _Hint(_option("key_dim", None)),
    "lora": _Hint(_lora, _always, always=True),
    "mask_zero": _Hint(_flag("mask_zero"), _unlike(False)),
    "masking": _Hint(lambda case: case.model.masked, _unlike(False)),
    "merge_mode": _Hint(
        lambda case: ABSENT if case.merge is None else case.merge[0], _unlike("concat")
    ),
    "momentum": _Hint(_momentum),
    "peepholes": _Hint(_only("torch", True), _always, always=True),
    "num_batches_tracked": _Hint(_only("torch", 0), always=True),
    "num_heads": _Hint(lambda case: case.o("num_heads", case.o("num_query_heads")), _always),
    "num_key_value_heads": _Hint(_option("num_key_value_heads", None), _always),
    "operators": _Hint(_operators, lambda case, v: any(o["attributes"] for o in v), always=True),
    "output_padding": _Hint(_output_padding, _any_unlike(0)),
    "padding": _Hint(_padding, _sides),
    "quantization": _Hint(_quantization, _always, always=True),
    "recurrent_activation": _Hint(_recurrent_activation, _unlike("sigmoid")),
    "recurrent_dropout": _Hint(_option("recurrent_dropout", 0)),
    "reset_after": _Hint(
        lambda case: case.kind == "GRU",
        lambda case, value: value != (case.model.to == "torch"),
        always=True,
    ),
    "reshape": _Hint(
        lambda case: ABSENT if case.model.image is None else list(case.model.image), _always
    ),
    "return_sequences": _Hint(
        _flag("return_sequences"), lambda case, v: v != (case.model.to != "keras")
    ),
    "return_state": _Hint(_flag("return_state")),
    "rms_scaling": _Hint(_flag("rms_scaling"), _unlike(False)),
    "scale": _Hint(_scale, _not_scaled),
    "score_mode": _Hint(_option("score_mode", "dot"), _unlike("dot")),
    "shared_axes": _Hint(_dims("shared_axes")),
    "sliding_window": _Hint(_option("sliding_window", None), _unlike(None)),
    "soft_cap": _Hint(_option("logit_soft_cap", None), _unlike(None)),
    "stateful": _Hint(_flag("stateful"), _unlike(False)),
    "strides": _Hint(_each("strides"), _any_unlike(1)),
    "time_distributed": _Hint(
        lambda case: case.wrapped or ABSENT, lambda case, v: case.kind != "Dense"
    ),
    "value_dim": _Hint(lambda case: case.o("value_dim", case.o("key_dim"))),
}

CELL: Final = ("activation", "recurrent_activation", "dropout", "recurrent_dropout")
EVERY: Final = (
    "compute_dtype",
    "forget_bias",
    "hard_sigmoid_slope",
    "lora",
    "operators",
    "quantization",
    "time_distributed",
)
CONVOLUTION: Final = ("strides", "padding", "dilation", "groups", "activation")
STEPS: Final = (
    *("activation", "recurrent_activation", "return_sequences", "return_state", "go_backwards"),
    *("stateful", "masking", "bidirectional", "merge_mode", "batch_first"),
    *("dropout", "recurrent_dropout"),
)
HEADS: Final = (
    *("num_heads", "key_dim", "value_dim", "scale", "attention_axes", "sliding_window"),
    *("batch_first", "masking", "dropout"),
)
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "Dense": ("activation", "reshape"),
    **{f"Conv{n}D": CONVOLUTION for n in RANKS},
    **{f"{name}Conv{n}D": CONVOLUTION for n in (1, 2) for name in ("Depthwise", "Separable")},
    **{
        f"Conv{n}DTranspose": ("strides", "cropping", "output_padding", "dilation", "activation")
        for n in RANKS
    },
    "BatchNormalization": ("epsilon", "momentum", "axis", "affine", "num_batches_tracked"),
    "LayerNormalization": ("epsilon", "axis", "affine", "rms_scaling"),
    "GroupNormalization": ("groups", "epsilon", "axis", "affine"),
    "Embedding": ("mask_zero",),
    "Lookup": (),  # all that it does is in its table
    **{
        f"{name}{n}D": ("shared_axes",)
        for name in ("PReLU", "ParametricSoftplus", "SReLU")
        for n in (1, 2, 3, 4)
    },
    "SimpleRNN": tuple(name for name in STEPS if name != "recurrent_activation"),
    "SimpleRNNCell": tuple(name for name in CELL if name != "recurrent_activation"),
    "GRU": (*STEPS, "reset_after"),
    "GRUCell": (*CELL, "reset_after"),
    "GRUResetBeforeCell": (*CELL, "reset_after"),
    "LSTMCell": CELL,
    "LSTMPeepholeCell": (*CELL, "peepholes"),
    "GRUResetBefore": (*STEPS, "reset_after"),
    **dict.fromkeys(("LSTM", "LSTMProjected"), STEPS),
    **dict.fromkeys(("LSTMPeephole", "LSTMPeepholeProjected"), (*STEPS, "peepholes")),
    "CuDNNGRU": (*STEPS, "reset_after"),
    "CuDNNLSTM": STEPS,
    **{f"ConvLSTM{n}D": (*STEPS, "strides", "padding", "dilation") for n in RANKS},
    **{
        f"LocallyConnected{n}D{way}": ("strides", "padding", "activation")
        for n in (1, 2)
        for way in ("", "Full", "Sparse")
    },
    **dict.fromkeys(("Highway", "MaxoutDense"), ("activation",)),
    **dict.fromkeys(
        ("BatchNormalizationAxes", "BatchNormalizationRenorm"),
        ("epsilon", "momentum", "axis", "affine", "num_batches_tracked"),
    ),
    "RMSNormalization": ("epsilon", "axis"),
    "Normalization": ("axis", "invert"),
    "SpectralNormalization": (),
    "LayerScale": (),
    "Discretization": (),
    "STFTSpectrogram": ("frames",),
    "RandomFourierFeatures": (),
    **dict.fromkeys(("TiedEmbedding", "ReversibleEmbedding"), ("mask_zero", "soft_cap")),
    **dict.fromkeys(("MultiHeadAttention", "GatedMultiHeadAttention"), HEADS),
    **dict.fromkeys(
        ("GroupedQueryAttention", "GatedGroupedQueryAttention"),
        (
            *("num_heads", "num_key_value_heads", "batch_first", "sliding_window", "masking"),
            "dropout",
        ),
    ),
    "Attention": ("score_mode", "masking", "dropout"),
    "AdditiveAttention": ("masking", "dropout"),
    **dict.fromkeys(("EinsumDense", "EinsumDenseBatched"), ("equation", "bias_axes", "activation")),
}
