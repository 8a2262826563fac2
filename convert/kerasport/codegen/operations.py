"""Operations between layers: `keras.ops` in a functional graph, and TensorFlow's in tf.keras.

Keras 3 records an operation as a class with its options, tf.keras as the name of a function with
its arguments. Both come down to one table here. What is done to each number by itself keeps the
order of its input; the rest is in `arrays`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from kerasport.codegen import activations
from kerasport.codegen.arrays import ARRAYS
from kerasport.codegen.body import Case
from kerasport.codegen.operands import Operation, aligned
from kerasport.codegen.text import call, literal, prose
from kerasport.codegen.values import Value
from kerasport.errors import UnsupportedError

__all__ = ["OPERATIONS", "TENSORFLOW", "operation_of", "performed"]

JSON = Any
Result = Value | tuple[Value, ...]


def operation_of(class_name: str, config: Mapping[str, Any]) -> str:
    """The name in the table of what a node does.

    >>> operation_of("ExpandDims", {})
    'expand_dims'
    >>> operation_of("TFOpLambda", {"function": "math.reduce_mean"})
    'mean'
    """
    if class_name in TENSORFLOW:
        name = str(config.get("function", "")).rpartition(".")[2].strip("_").lower()
        return TF_NAMES.get(name, name)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_name).lower()


def performed(c: Case) -> Result:
    """What an operation gives; its options are those of its configuration, or of its call."""
    name = operation_of(c.o.class_name, c.o.given)
    own = {} if c.o.class_name in TENSORFLOW else c.o.given
    named = {key: value for key, value in {**own, **c.named}.items() if key != "name"}
    return OPERATIONS[name](Operation(c, name, c.args, named))


Form = Callable[[list[str]], str]


def operator(symbol: str) -> Callable[[Operation], Value]:
    """Two operands with a symbol between them."""

    def rule(op: Operation) -> Value:
        texts, like = aligned(op, [op.operand(0, "x", "x1"), op.operand(1, "y", "x2", "bias")])
        return replace(like, text=f"{texts[0]} {symbol} {texts[1]}")

    return rule


def function(form: str) -> Callable[[Operation], Value]:
    """One operand in an expression with `{x}`."""

    def rule(op: Operation) -> Value:
        x = op.c.body.natural(op.x)
        return replace(x, text=form.format(x=x.text), mask="")

    return rule


def two(form: str) -> Callable[[Operation], Value]:
    """Two operands in an expression with `{0}` and `{1}`, numbers as tensors."""

    def rule(op: Operation) -> Value:
        operands = [op.operand(0, "x", "x1"), op.operand(1, "y", "x2", "x")]
        texts, like = aligned(op, operands)
        if not all(isinstance(operand, Value) for operand in operands):
            near = next(v.text for v in operands if isinstance(v, Value))
            texts = [
                text if isinstance(operand, Value) else f"{near}.new_tensor({text})"
                for text, operand in zip(texts, operands, strict=True)
            ]
        return replace(like, text=form.format(*texts))

    return rule


def activation(name: str) -> Callable[[Operation], Value]:
    """One of Keras's activations."""

    def rule(op: Operation) -> Value:
        x = op.c.body.natural(op.x)
        axis = op.option(1, "axis", default=-1) if name in ALONG else -1
        if name == "softmax":
            return replace(x, text=activations.softmax(x, axis), mask="")
        if not isinstance(axis, int):
            raise UnsupportedError(f"{op.c.path}: {op.name} over several axes")
        text = activations.activated(x.text, name, dim=x.axis(axis), keras=3)
        return replace(x, text=text, mask="")

    return rule


ALONG: Final = frozenset({"softmax", "log_softmax", "glu", "sparsemax"})


def bent(form: str, option: str, usual: float) -> Callable[[Operation], Value]:
    """An activation with a parameter, in an expression with `{x}` and `{p}`."""

    def rule(op: Operation) -> Value:
        x = op.c.body.natural(op.x)
        value = float(op.option(1, option, default=usual))
        return replace(x, text=form.format(x=x.text, p=literal(value)), mask="")

    return rule


def threshold(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    bounds = [float(op.option(1, "threshold")), float(op.option(2, "default_value", "value"))]
    return replace(x, text=f"F.threshold({x.text}, {', '.join(map(literal, bounds))})", mask="")


def rounded(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    digits = int(op.option(1, "decimals", default=0))
    return replace(x, text=f"torch.round({x.text}{f', decimals={digits}' * bool(digits)})", mask="")


def nan_to_num(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    given = {name: op.operand(n, name) for n, name in enumerate(("nan", "posinf", "neginf"), 1)}
    if not all(value is None or isinstance(value, int | float) for value in given.values()):
        raise UnsupportedError(f"{op.c.path}: numbers that are computed instead of NaN")
    shown = {k: None if v is None else literal(float(v)) for k, v in given.items()}
    return replace(x, text=call("torch.nan_to_num", x.text, **shown), mask="")


def full_like(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    value = op.operand(1, "fill_value")
    if not isinstance(value, int | float):
        raise UnsupportedError(f"{op.c.path}: filled with a value that is computed")
    return replace(x, text=f"torch.full_like({x.text}, {literal(value)})", mask="")


def gelu(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    usual = op.c.o.class_name == "Gelu"  # keras.ops.gelu approximates by default
    tanh = op.option(1, "approximate", default=usual)
    text = f'F.gelu({x.text}, approximate="tanh")' if tanh else f"F.gelu({x.text})"
    return replace(x, text=text, mask="")


def leaky_relu(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    slope = op.option(1, "negative_slope", "alpha", default=0.2)
    return replace(x, text=f"F.leaky_relu({x.text}, {literal(float(slope))})", mask="")


def clip(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    low = op.option(1, "x_min", "clip_value_min", "a_min")
    high = op.option(2, "x_max", "clip_value_max", "a_max")
    if isinstance(low, Value) or isinstance(high, Value):
        raise UnsupportedError(f"{op.c.path}: clipping by tensors")
    return replace(x, text=f"{x.text}.clamp({literal(low)}, {literal(high)})", mask="")


def relu(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    return replace(x, text=activations.relu(x.text, op.named), mask="")


def where(op: Operation) -> Value:
    condition = op.operand(0, "condition")
    operands = [condition, op.operand(1, "x", "x1"), op.operand(2, "y", "x2")]
    texts, like = aligned(op, operands)
    return replace(like, text=f"torch.where({', '.join(texts)})")


def cast(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    names = {"float32": "float", "float16": "half", "bfloat16": "bfloat16", "float64": "double"}
    names |= {"int32": "int", "int64": "long", "bool": "bool", "uint8": "byte"}
    wanted = op.option(1, "dtype")
    if isinstance(wanted, Mapping):
        wanted = wanted.get("config", {}).get("name")
    if wanted not in names:
        raise UnsupportedError(f"{op.c.path}: casting to {prose(str(wanted))}")
    return replace(x, text=f"{x.text}.{names[wanted]}()", mask="")


def identity(op: Operation) -> Value:
    return op.x


def norm(op: Operation) -> Value:
    x = op.c.body.natural(op.x)
    axis = op.option(1, "axis", default=-1)
    if not isinstance(axis, int):
        raise UnsupportedError(f"{op.c.path}: normalizing over several axes")
    order, epsilon = 2.0, op.option(2, "epsilon", default=1e-12)
    if op.c.o.class_name == "Normalize":  # of Keras, where epsilon bounds no square
        order, epsilon = float(op.option(2, "order", default=2)), op.option(3, "epsilon")
        epsilon = (1e-7 if epsilon is None else epsilon) ** 2
    power = "" if order == 2 else f"p={literal(order)}, "
    epsilon = literal(math.sqrt(float(epsilon)))
    text = f"F.normalize({x.text}, {power}dim={x.axis(axis)}, eps={epsilon})"
    return replace(x, text=text, mask="")


def add_n(op: Operation) -> Value:
    values = op.operand(0, "inputs")
    texts, like = aligned(op, values if isinstance(values, list) else [values])
    return replace(like, text=" + ".join(texts))


def power(op: Operation) -> Value:
    texts, like = aligned(op, [op.operand(0, "x", "x1"), op.operand(1, "y", "x2", "bias")])
    simple = all(re.fullmatch(r"-?[\w.]+", text) for text in texts)
    return replace(like, text=f"{' ** ' if not simple else '**'}".join(texts))


TF_NAMES: Final[Mapping[str, str]] = {
    "truediv": "divide",
    "div": "divide",
    "realdiv": "divide",
    "mul": "multiply",
    "sub": "subtract",
    "neg": "negative",
    "pow": "power",
    "addv2": "add",
    "reduce_mean": "mean",
    "reduce_sum": "sum",
    "reduce_max": "max",
    "reduce_min": "min",
    "reduce_prod": "prod",
    "reduce_std": "std",
    "reduce_variance": "var",
    "concat": "concatenate",
    "concatv2": "concatenate",
    "batchmatmul": "matmul",
    "batchmatmulv2": "matmul",
    "clip_by_value": "clip",
    "getitem": "get_item",
    "swish": "silu",
    "l2_normalize": "normalize",
    "reverse": "flip",
    "rsqrt": "rsqrt",
    "abs": "absolute",
    "bias_add": "add",
    "where_v2": "where",
    "stop_gradient": "stop_gradient",
    "arg_max": "argmax",
    "arg_min": "argmin",
    "reduce_logsumexp": "logsumexp",
    "reduce_any": "any",
    "reduce_all": "all",
    "gather": "take",
    "gather_v2": "take",
    "gatherv2": "take",
    "topkv2": "top_k",
}

OPERATIONS: Final[Mapping[str, Callable[[Operation], Result]]] = {
    "add": operator("+"),
    "subtract": operator("-"),
    "multiply": operator("*"),
    "divide": operator("/"),
    "true_divide": operator("/"),
    "floor_divide": operator("//"),
    "mod": operator("%"),
    "power": power,
    "greater": operator(">"),
    "greater_equal": operator(">="),
    "less": operator("<"),
    "less_equal": operator("<="),
    "equal": operator("=="),
    "not_equal": operator("!="),
    "logical_and": two("torch.logical_and({0}, {1})"),
    "logical_or": two("torch.logical_or({0}, {1})"),
    "maximum": two("torch.maximum({0}, {1})"),
    "minimum": two("torch.minimum({0}, {1})"),
    "logical_xor": two("torch.logical_xor({0}, {1})"),
    "divide_no_nan": two("torch.where({1} == 0, 0.0, {0} / {1})"),
    "fmod": two("torch.fmod({0}, {1})"),
    "heaviside": two("torch.heaviside({0}, {1})"),
    "squared_difference": two("({0} - {1}).square()"),
    "arctan2": two("torch.atan2({0}, {1})"),
    "atan2": two("torch.atan2({0}, {1})"),
    "fmax": two("torch.fmax({0}, {1})"),
    "fmin": two("torch.fmin({0}, {1})"),
    "hypot": two("torch.hypot({0}, {1})"),
    "logaddexp": two("torch.logaddexp({0}, {1})"),
    **{
        name: function(f"torch.{name}({{x}})")
        for name in (
            *("exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "sign", "sin", "cos"),
            *("erf", "floor", "ceil", "reciprocal", "logical_not", "isnan"),
            *("tan", "arccos", "arcsin", "arctan", "arccosh", "arcsinh", "arctanh", "sinh", "cosh"),
            *("acos", "asin", "atan", "acosh", "asinh", "atanh", "log2", "log10", "exp2", "trunc"),
            *("erfc", "erfinv", "isinf", "isfinite", "deg2rad", "rad2deg", "sinc", "signbit"),
        )
    },
    "absolute": function("torch.abs({x})"),
    "abs": function("torch.abs({x})"),
    "fabs": function("torch.abs({x})"),
    "negative": function("-{x}"),
    "cbrt": function("torch.sign({x}) * torch.abs({x}) ** (1 / 3)"),
    "stop_gradient": identity,
    "identity": identity,
    "zeros_like": function("torch.zeros_like({x})"),
    "ones_like": function("torch.ones_like({x})"),
    **{
        name: activation(name)
        for name in (
            *("sigmoid", "tanh", "softmax", "log_softmax", "selu", "silu"),
            *("softplus", "softsign", "hard_sigmoid", "hard_silu", "hard_tanh", "relu6"),
            *("log_sigmoid", "tanh_shrink", "glu", "mish", "sparse_plus", "sparse_sigmoid"),
            "sparsemax",
        )
    },
    "elu": bent("F.elu({x}, {p})", "alpha", 1.0),
    "celu": bent("F.celu({x}, {p})", "alpha", 1.0),
    "hard_shrink": bent("F.hardshrink({x}, {p})", "threshold", 0.5),
    "soft_shrink": bent("F.softshrink({x}, {p})", "threshold", 0.5),
    "squareplus": bent("squareplus({x}, {p})", "b", 4.0),
    "threshold": threshold,
    "round": rounded,
    "full_like": full_like,
    "copy": identity,
    "nan_to_num": nan_to_num,
    "relu": relu,
    "leaky_relu": leaky_relu,
    "gelu": gelu,
    "clip": clip,
    "where": where,
    "cast": cast,
    "add_n": add_n,
    "normalize": norm,
    **ARRAYS,
}

TENSORFLOW: Final = frozenset({"TFOpLambda", "SlicingOpLambda"})
"""The classes of tf.keras's nodes that call a function."""
