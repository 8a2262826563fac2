"""Generated modules under test: made from a model, run as a user's file would be, and compared."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import torch

import kerasport
from kerasport.codegen.module import Module, module
from kerasport.model import Snapshot

Array = npt.NDArray[Any]
_numbers = itertools.count()


def imported(source: str, folder: Path) -> ModuleType:
    """The source as a module of Python, from a file of its own."""
    name = f"generated_{next(_numbers)}"
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


def built(snapshot: Snapshot, folder: Path, **options: Any) -> tuple[torch.nn.Module, Module]:
    """The module with its weights, loaded by its own `load`, and what it was made of."""
    made = module(snapshot, **options)
    made.plan.refuse_losses()
    python = imported(made.source, folder)
    path = folder / "model.safetensors"
    kerasport.write(made.plan.apply(), path)
    loaded: torch.nn.Module = python.load(path)
    return loaded, made


def flat(outputs: Any) -> list[Any]:
    """All outputs, one after the other."""
    if isinstance(outputs, dict):
        return [x for key in outputs for x in flat(outputs[key])]
    if isinstance(outputs, list | tuple):
        return [x for part in outputs for x in flat(part)]
    return [outputs]


def ran(module: torch.nn.Module, made: Module, inputs: Sequence[Array]) -> list[Array]:
    """What the module gives, in Keras's order."""
    given = [
        torch.from_numpy(np.ascontiguousarray(x.transpose(order) if order else x))
        for x, order in zip(inputs, made.inputs, strict=True)
    ]
    with torch.no_grad():
        arrays = [y.numpy() for y in flat(module(*given))]
    return [
        y.transpose(np.argsort(order)) if order else y
        for y, order in zip(arrays, made.outputs, strict=True)
    ]


def deviation(found: Array, wanted: Array, *, scale: float | None = None) -> float:
    """The largest difference, relative to the scale of what is wanted, or to one if that is less.

    Args:
        found: what the module gives.
        wanted: what Keras gives.
        scale: what the difference is relative to, where it is to be relative to something else.
    """
    assert found.shape == wanted.shape, f"{found.shape} instead of {wanted.shape}"
    if not wanted.size:
        return 0.0
    difference = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
    usual = max(1.0, float(np.abs(wanted).max()))
    return float(difference.max() / (usual if scale is None else scale))


def randomized(model: Any, seed: int = 0) -> None:
    """Random weights, with statistics that a normalization could have."""
    rng = np.random.default_rng(seed)
    values: list[Array] = []
    for variable in model.weights:
        path = getattr(variable, "path", variable.name)
        shape = tuple(variable.shape)
        array = rng.normal(size=shape) * 0.5
        if "variance" in path:
            array = rng.uniform(0.5, 1.5, size=shape)
        if "seed" in path or "int" in str(variable.dtype):
            array = np.asarray(variable.numpy() if hasattr(variable, "numpy") else variable)
        values.append(array.astype(np.asarray(variable).dtype))
    model.set_weights(values)
    finalize(model)


def finalize(model: Any) -> None:
    """Let the layers that compute with copies of their weights make these again."""
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def compared(model: Any, inputs: Sequence[Array], folder: Path) -> float:
    """How far the generated module is from the model, over all outputs."""
    given = list(inputs) if len(inputs) > 1 else inputs[0]
    outputs = flat(model(given, training=False))
    wanted = [np.asarray(y) for y in outputs]
    loaded, made = built(kerasport.read(model), folder)
    found = ran(loaded, made, inputs)
    assert len(found) == len(wanted)
    return max(deviation(a, b) for a, b in zip(found, wanted, strict=True))


@dataclass(frozen=True, slots=True)
class Trial:
    """A model of one layer with one choice of options.

    Attributes:
        name: what a failure is reported under.
        make: the outputs, of the inputs.
        shapes: of the inputs, without the batch.
        low: the inputs are numbers from 0 to below this one; floats where it is 0.
        sizes: what stands for an extent of None.
        keras: the framework that makes it, Keras 3 or tf_keras.
    """

    name: str
    make: Callable[..., Any]
    shapes: tuple[tuple[int | None, ...], ...]
    low: int = 0
    sizes: tuple[int, ...] = ()
    keras: ModuleType = keras

    def __str__(self) -> str:
        return self.name.replace(" ", "")

    def model(self) -> Any:
        kind = "int32" if self.low else "float32"
        inputs = [self.keras.Input(shape, dtype=kind) for shape in self.shapes]
        outputs = self.make(*inputs)
        model = self.keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs)
        randomized(model, len(self.name))
        return model

    def inputs(self) -> list[Array]:
        rng = np.random.default_rng(5)
        made = []
        for shape in self.shapes:
            free = iter(self.sizes)
            full = (3, *(next(free) if n is None else n for n in shape))
            made.append(
                rng.integers(0, self.low, full).astype(np.int32)
                if self.low
                else rng.normal(size=full).astype(np.float32)
            )
        return made
