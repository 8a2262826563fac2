"""Layers of a user's own, in Keras and in PyTorch, and what they look like described.

The gated unit is the daily case: two kernels of one shape, that no shape can tell apart. The block
is made of layers, the cell stands in a loop of Keras's, the tied head shares a variable.
"""

from __future__ import annotations

import textwrap
from typing import Any

import keras
import torch
from keras import layers as L

register = keras.saving.register_keras_serializable(package="demo")


@register
class GatedUnit(keras.layers.Layer):  # type: ignore[misc]
    """(x kernel + bias) · sigmoid(x gate)."""

    def __init__(self, units: int, use_bias: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.units = units
        self.use_bias = use_bias

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.gate = self.add_weight(shape=(shape[-1], self.units), name="gate")
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.units,), name="bias", initializer="zeros")

    def call(self, x: Any) -> Any:
        y = keras.ops.matmul(x, self.kernel)
        y = y + self.bias if self.use_bias else y
        return y * keras.ops.sigmoid(keras.ops.matmul(x, self.gate))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "use_bias": self.use_bias}


class TorchGatedUnit(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, n: int, units: int, bias: bool = True) -> None:
        super().__init__()
        self.value = torch.nn.Linear(n, units, bias=bias)
        self.gate = torch.nn.Linear(n, units, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.value(x) * torch.sigmoid(self.gate(x))


GATED_TOML = textwrap.dedent(
    """
    ["demo>GatedUnit".keras]
    kernel = "in out"
    gate = "in out"
    bias = { layout = "out", when = "use_bias" }

    ["demo>GatedUnit".torch]
    "value.weight" = { weight = "kernel", layout = "out in" }
    "value.bias" = { weight = "bias", layout = "out" }
    "gate.weight" = { weight = "gate", layout = "out in" }

    ["demo>GatedUnit".onnx]
    absent = "no operator of ONNX gates its input"

    ["demo>GatedUnit".sizes]
    out = "units"

    ["demo>GatedUnit".hints]
    activation = "sigmoid"
    width = { config = "units", changes_results = false }
    """
)
GATED: dict[str, Any] = {
    "demo>GatedUnit": {
        "keras": {
            "kernel": "in out",
            "gate": "in out",
            "bias": {"layout": "out", "when": "use_bias"},
        },
        "torch": {
            "value.weight": {"weight": "kernel", "layout": "out in"},
            "value.bias": {"weight": "bias", "layout": "out"},
            "gate.weight": {"weight": "gate", "layout": "out in"},
        },
        "onnx": {"absent": "no operator of ONNX gates its input"},
        "sizes": {"out": "units"},
        "hints": {
            "activation": "sigmoid",
            "width": {"config": "units", "changes_results": False},
        },
    }
}


@register
class Block(keras.layers.Layer):  # type: ignore[misc]
    """Gated units in a list, a normalization, and a scale of its own."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = units
        self.first = L.Dense(units)
        self.many = [GatedUnit(units), GatedUnit(units, use_bias=False)]
        self.norm = L.LayerNormalization()

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(self.units,), name="scale", initializer="ones")
        inner = (*shape[:-1], self.units)
        self.first.build(shape)
        for unit in self.many:
            unit.build(inner)
        self.norm.build(inner)

    def call(self, x: Any) -> Any:
        x = self.first(x)
        for unit in self.many:
            x = unit(x)
        return self.norm(x) * self.scale

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


class TorchBlock(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, n: int, units: int) -> None:
        super().__init__()
        self.first = torch.nn.Linear(n, units)
        self.many = torch.nn.ModuleDict(
            {
                "gated_unit": TorchGatedUnit(units, units),
                "gated_unit_1": TorchGatedUnit(units, units, bias=False),
            }
        )
        self.norm = torch.nn.LayerNorm(units, eps=1e-3)
        self.scale = torch.nn.Parameter(torch.ones(units))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for unit in self.many.values():
            x = unit(x)
        return self.norm(x) * self.scale


BLOCK: dict[str, Any] = {
    **GATED,
    "Block": {
        "keras": {"scale": "channel"},
        "torch": {"scale": "channel"},
        "parts": {
            "first": "Dense",
            "many/gated_unit": "demo>GatedUnit",
            "many/*": {"class": "demo>GatedUnit", "config": {"use_bias": False}},
            "norm": "LayerNormalization",
        },
    },
}


@register
class Leak(keras.layers.Layer):  # type: ignore[misc]
    """A cell whose state leaks: h' = tanh(x kernel + h · decay)."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = self.state_size = self.output_size = units

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.decay = self.add_weight(shape=(self.units,), name="decay", initializer="ones")

    def call(self, x: Any, states: Any, training: bool = False) -> Any:
        h = keras.ops.tanh(keras.ops.matmul(x, self.kernel) + states[0] * self.decay)
        return h, [h]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


LEAK: dict[str, Any] = {
    "Leak": {
        "keras": {"kernel": "in unit", "decay": "unit"},
        "torch": {"kernel": "unit in", "decay": "unit"},
    }
}


@register
class Pair(keras.layers.Layer):  # type: ignore[misc]
    """Two Dense layers as attributes, which the target holds as one matrix."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = units
        self.left = L.Dense(units, use_bias=False)
        self.right = L.Dense(units, use_bias=False)

    def build(self, shape: Any) -> None:
        self.left.build(shape)
        self.right.build(shape)

    def call(self, x: Any) -> Any:
        return self.left(x) - self.right(x)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


PAIR: dict[str, Any] = {
    "Pair": {
        "keras": {
            "left/kernel": {"layout": "in out", "weight": "both", "at": "l", "child": "left"},
            "right/kernel": {"layout": "in out", "weight": "both", "at": "r", "child": "right"},
        },
        "torch": {"both.weight": {"weight": "both", "layout": "([l r] out) in"}},
    }
}


@register
class TiedDense(keras.layers.Dense):  # type: ignore[misc]
    """A Dense layer whose kernel is another's variable."""

    def __init__(self, *sizes: Any, other: Any = None, **options: Any) -> None:
        super().__init__(*sizes, **options)
        # In a function, Keras does not see the other layer as a part of this one.
        self._other = None if other is None else lambda: other

    def build(self, shape: Any) -> None:
        super().build(shape)
        if self._other is not None:
            self._tracker.unlock()
            self._trainable_variables.remove(self._kernel)
            self._kernel: Any = self._other().kernel
            self._tracker.lock()
