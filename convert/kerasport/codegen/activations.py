"""What Keras calls its activations, in PyTorch.

One table: Keras's name, and the expression with `{x}` for what it is applied to and `{dim}` for the
dimension of the features. Several names have changed their meaning between Keras 2 and Keras 3: the
slope of `hard_sigmoid` is a fifth before and a sixth since.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from kerasport.codegen.text import literal, prose
from kerasport.codegen.values import Value
from kerasport.errors import UnsupportedError

__all__ = ["activated", "activation_name", "as_function", "known"]

JSON = Any

ACTIVATIONS: Final[Mapping[str, str]] = {
    "linear": "{x}",
    "relu": "torch.relu({x})",
    "relu6": "F.relu6({x})",
    "sigmoid": "torch.sigmoid({x})",
    "tanh": "torch.tanh({x})",
    "softmax": "torch.softmax({x}, dim={dim})",
    "log_softmax": "torch.log_softmax({x}, dim={dim})",
    "elu": "F.elu({x})",
    "selu": "F.selu({x})",
    "celu": "F.celu({x})",
    "gelu": "F.gelu({x})",
    "silu": "F.silu({x})",
    "swish": "F.silu({x})",
    "softplus": "F.softplus({x})",
    "softsign": "F.softsign({x})",
    "exponential": "torch.exp({x})",
    "hard_sigmoid": "F.hardsigmoid({x})",
    "hard_silu": "F.hardswish({x})",
    "hard_swish": "F.hardswish({x})",
    "hard_tanh": "F.hardtanh({x})",
    "hard_shrink": "F.hardshrink({x})",
    "soft_shrink": "F.softshrink({x})",
    "tanh_shrink": "F.tanhshrink({x})",
    "mish": "F.mish({x})",
    "leaky_relu": "F.leaky_relu({x}, 0.2)",
    "log_sigmoid": "F.logsigmoid({x})",
    "glu": "F.glu({x}, dim={dim})",
    "sparsemax": "sparsemax({x}, {dim})",
    "squareplus": "squareplus({x})",
    "sparse_plus": "sparse_plus({x})",
    "sparse_sigmoid": "sparse_sigmoid({x})",
    "threshold": "F.threshold({x}, 0.0, 0.0)",
}
BEFORE_KERAS_3: Final[Mapping[str, str]] = {"hard_sigmoid": "hard_sigmoid({x})"}
# Classes that configurations have in the place of a name, and their parameter with its default.
CLASSES: Final[Mapping[str, tuple[str, str, float]]] = {
    "LeakyReLU": ("F.leaky_relu({x}, {p})", "negative_slope alpha", 0.3),
    "ELU": ("F.elu({x}, {p})", "alpha", 1.0),
    "ThresholdedReLU": ("F.threshold({x}, {p}, 0.0)", "theta", 1.0),
}


def activation_name(written: JSON) -> tuple[str, Mapping[str, JSON]]:
    """The name of an activation as a configuration writes it, and the parameters it has.

    >>> activation_name({"class_name": "function", "config": "relu"}), activation_name(None)
    (('relu', {}), ('linear', {}))
    """
    if written is None:
        return "linear", {}
    if isinstance(written, str):
        name = written.removeprefix("tf.nn.").removeprefix("keras.activations.")
        return name, {}
    if not isinstance(written, Mapping):
        return "unknown", {}
    config = written.get("config")
    if isinstance(config, str):
        return config, {}
    name = str(written.get("registered_name") or written.get("class_name"))
    return name.removeprefix("Custom>"), config if isinstance(config, Mapping) else {}


def known(written: JSON) -> bool:
    """Whether the activation is in the tables."""
    name, _ = activation_name(written)
    return name in ACTIVATIONS or name in CLASSES or name in ("ReLU", "Softmax")


def activated(text: str, written: JSON, *, dim: int = -1, keras: int = 3) -> str:
    """An expression with an activation around it.

    >>> activated("self.dense(x)", "relu")
    'torch.relu(self.dense(x))'

    Args:
        text: what it is applied to.
        written: the activation, as the configuration writes it.
        dim: the dimension of the features.
        keras: the major version of the Keras that wrote the file.
    """
    name, config = activation_name(written)
    if name in CLASSES:
        form, options, default = CLASSES[name]
        found = (config.get(option) for option in options.split())
        parameter = next((p for p in found if p is not None), default)
        return form.format(x=text, p=literal(_number(parameter)))
    if name == "ReLU":
        return relu(text, config)
    if name == "Softmax":
        return f"torch.softmax({text}, dim={dim})"
    form = BEFORE_KERAS_3.get(name, ACTIVATIONS[name]) if keras < 3 else ACTIVATIONS[name]
    return form.format(x=text, dim=dim)


def softmax(x: Value, axis: JSON) -> str:
    """A softmax over one of Keras's axes, or over several at once.

    Raises:
        UnsupportedError: the axes are no numbers.
    """
    axes = axis if isinstance(axis, list | tuple) else [axis]
    if not axes or not all(isinstance(n, int) for n in axes):
        raise UnsupportedError(
            f"{x.text}: expected the axes of a softmax, found {prose(str(axis))}"
        )
    dims = sorted(x.axis(n) for n in axes)
    if len(dims) == 1:
        return f"torch.softmax({x.text}, dim={dims[0]})"
    return f"softmax_over({x.text}, {literal(tuple(dims))})"


def relu(text: str, config: Mapping[str, JSON]) -> str:
    """The layer ReLU with whatever parameters it has."""
    top = config.get("max_value")
    slope = _number(config.get("negative_slope") or 0.0)
    threshold = _number(config.get("threshold") or 0.0)
    if threshold == 0 and slope == 0:
        if top is None:
            return f"torch.relu({text})"
        return f"F.relu6({text})" if top == 6 else f"{text}.clamp(0.0, {literal(_number(top))})"
    if threshold == 0:
        sloped = f"F.leaky_relu({text}, {literal(slope)})"
        return sloped if top is None else f"{sloped}.clamp(max={literal(_number(top))})"
    options = [literal(slope), literal(threshold)]
    if top is not None:
        options.append(literal(_number(top)))
    return f"sloped_relu({', '.join([text, *options])})"


def as_function(written: JSON, *, keras: int = 3) -> str:
    """An activation as something that can be called.

    >>> as_function("tanh"), as_function("hard_sigmoid", keras=2), as_function("leaky_relu")
    ('torch.tanh', 'hard_sigmoid', 'lambda x: F.leaky_relu(x, 0.2)')
    """
    text = activated("x", written, keras=keras)
    found = re.fullmatch(r"([\w.]+)\(x\)", text)
    return found.group(1) if found else f"lambda x: {text}"


def _number(value: JSON) -> float:
    """A parameter, which may be written as an array of one number."""
    if isinstance(value, Mapping):
        inner = value.get("config")
        value = inner.get("value", value) if isinstance(inner, Mapping) else value
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return float(value)
