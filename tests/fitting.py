"""Weights of a Keras model in a module of somebody's own, by the names that a match finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file
from torch import nn

import kerasport
from kerasport.matching import Wanted
from kerasport.naming import Naming

Array = npt.NDArray[Any]


def wanted(module: nn.Module) -> list[Wanted]:
    """Its tensors, in the order of their making."""
    return [
        Wanted(name, tuple(value.shape), value.is_floating_point())
        for name, value in module.state_dict().items()
    ]


def fitted(source: Path | keras.Model, module: nn.Module, folder: Path, **options: Any) -> Naming:
    """The names of a module, and the module with the weights that they give it."""
    names = kerasport.match(source, wanted(module), **options)
    kerasport.convert(source, folder / "x.safetensors", to="torch", names=names)
    kerasport.verify(folder / "x.safetensors", against=source)
    given = {n: torch.from_numpy(a) for n, a in load_file(folder / "x.safetensors").items()}
    kept = {name: value for name, value in module.state_dict().items() if name in names.kept}
    module.load_state_dict({**given, **kept}, strict=True)
    return names


def drawn(model: keras.Model) -> keras.Model:
    """The model with values of its own in every weight, variances above zero."""
    rng = np.random.default_rng(3)
    for variable in model.weights:
        values = rng.normal(size=variable.shape).astype(np.float32)
        variable.assign(abs(values) + 0.5 if "var" in variable.name else values)
    return model


def model(*layers: Any, shape: tuple[int, ...] = (6,)) -> keras.Model:
    """A chain of layers with values of its own."""
    return drawn(keras.Sequential([keras.Input(shape), *layers]))


def assert_outputs(
    source: keras.Model, module: nn.Module, folder: Path, x: Array, **options: Any
) -> Naming:
    """The names of a module, which with them puts out what the model does."""
    names = fitted(source, module, folder, **options)
    given = x if x.ndim < 4 else np.moveaxis(x, -1, 1).copy()
    found = module.eval()(torch.from_numpy(given)).detach().numpy()
    expected = source(x).numpy()
    scale = max(1.0, float(abs(expected).max()))
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-5)
    return names
