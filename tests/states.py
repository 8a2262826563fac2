"""State dicts made by hand, so that writers are tested without the rest of the house."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasport.layout import Layout
from kerasport.model import DTYPES, StateDict, Tensor, dtype_named

Array = npt.NDArray[Any]

# Each format with the suffix it is written under and the dtypes that its specification lacks.
FORMATS = {
    "arrow": (".arrow", set()),
    "onnx": (".onnx", {"i4", "u4"}),
    "parquet": (".parquet", set()),
    "pytorch": (".pt", {"i4", "u4"}),
    "safetensors": (".safetensors", {"i4", "u4", "c128"}),
}
SHAPES = ((), (0, 3), (2, 3, 5), (1,))


def writer(name: str) -> Callable[..., tuple[Path, ...]]:
    function: Callable[..., tuple[Path, ...]]
    function = importlib.import_module(f"kerasport.writers.{name}").write
    return function


def reader(name: str) -> Callable[[Path], StateDict]:
    function: Callable[[Path], StateDict]
    function = importlib.import_module(f"kerasport.readers.{name}").read
    return function


def target(name: str, folder: Path, stem: str = "model") -> Path:
    return folder / f"{stem}{FORMATS[name][0]}"


def random_bits(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    """Values of every kind, NaNs with a payload and negative zeros among them."""
    kind = dtype_named(dtype)
    raw = np.random.default_rng(seed).integers(
        0, 256, math.prod(shape) * kind.itemsize, dtype=np.uint8
    )
    if dtype == "bool":
        raw &= 1
    if dtype in ("i4", "u4"):
        raw &= 7
    return raw.view(kind).reshape(shape)


def bits(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def every_dtype(without: Iterable[str] = ()) -> StateDict:
    """Every dtype in every shape; names in an order that no sorting gives."""
    tensors = {}
    for seed, dtype in enumerate(sorted(set(DTYPES) - set(without), key=lambda d: d[::-1])):
        for shape in SHAPES:
            name = f"{dtype}.{len(shape)}.{math.prod(shape)}"
            tensors[name] = Tensor.of(name, random_bits(dtype, shape, seed))
    return StateDict("torch", tensors)


def small_model() -> StateDict:
    """A convolution and a normalization in PyTorch's layouts, with a full manifest."""
    rng = np.random.default_rng(7)
    made = {
        "stem/conv.weight": ("out in kh kw", (5, 3, 2, 7), "kernel", True),
        "stem/conv.bias": ("out", (5,), "bias", True),
        "norm.running_mean": ("channel", (5,), "moving_mean", False),
    }
    layers = {"stem/conv": "Conv2D", "norm": "BatchNormalization"}
    tensors, entries = {}, {}
    for name, (sentence, shape, role, trainable) in made.items():
        values = rng.standard_normal(shape).astype(np.float32)
        layer = name.rpartition(".")[0]
        layout = Layout.parse(sentence)
        tensors[name] = Tensor.of(name, values, layout=layout, role=role, trainable=trainable)
        entries[name] = {
            "dtype": "f32",
            "shape": list(shape),
            "layout": sentence,
            "at": [],
            "layer": layer,
            "role": role,
            "kind": layers[layer],
            "trainable": trainable,
            "fill": None,
            "sizes": layout.bind(shape),
            "sources": [
                {
                    "name": f"{layer}/{role}",
                    "stored": f"layers/{layer}/vars/0",
                    "role": role,
                    "layout": sentence,
                    "at": [],
                    "dtype": "f32",
                    "shape": list(shape),
                }
            ],
        }
    document = {
        "schema_version": "1.0",
        "producer": {"name": "kerasport", "version": "0.1.0"},
        "hash_algorithm": "blake3",
        "convention": "torch",
        "source": {
            "file": "é 'quoted' \"name\".keras",
            "format": "keras",
            "keras_version": "3.15.1",
            "backend": "tensorflow",
            "bytes": 12345,
            "hash": "ab" * 32,
        },
        "layers": {
            path: {"class": kind, "kind": kind, "inferred": False, "hints": {"epsilon": 0.001}}
            for path, kind in layers.items()
        },
        "tensors": entries,
        "notes": [
            {
                "kind": "reordered",
                "subject": "stem/conv",
                "message": "transposed",
                "loss": False,
            }
        ],
        "omitted": [{"name": "optimizer/m", "reason": "optimizer state"}],
    }
    return StateDict("torch", tensors, document)


def made_by_slabs(name: str, values: Array) -> Tensor:
    """A tensor that is put together slab by slab, and refuses to be loaded whole."""
    flat = np.ascontiguousarray(values).reshape(-1)

    def fill(start: int, stop: int, buffer: Array) -> None:
        buffer[:] = flat[start:stop]

    def load() -> Array:
        raise AssertionError("loaded whole")

    return Tensor(name, values.dtype, values.shape, load, fill=fill)


def assert_same(found: StateDict, expected: StateDict) -> None:
    """The same tensors in the same order, bit for bit."""
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].spec == tensor.spec
        np.testing.assert_array_equal(bits(found[name].numpy()), bits(tensor.numpy()), name)
