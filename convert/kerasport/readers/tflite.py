"""Constants of TensorFlow Lite models: what its operators take for weights.

A model was compiled for small machines: layers were joined, BatchNormalization is in the kernels of
convolutions, and names are what is left of the names of operations. What a constant is follows from
the operator that takes it, as in a frozen graph. Integers with a scale are kept as they are, with
their scales and zero points beside them: no other format computes with them as this one does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from kerasport.architecture import Node
from kerasport.errors import MalformedError, UnknownFormatError, UsageError
from kerasport.model import Layer, Snapshot, Source, Tensor
from kerasport.readers.documents import begins
from kerasport.readers.flatbuffer import Table, root
from kerasport.readers.mapped import mapped
from kerasport.readers.naming import Stored

__all__ = ["matches", "read"]

Array = npt.NDArray[Any]

MARK: Final = b"TFL3"

# By the numbers of `TensorType` in the schema; texts and resources are no numbers, and of four
# bits two lie in a byte.
DTYPES: Final[Mapping[int, str]] = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    8: "complex64",
    9: "int8",
    10: "float64",
    11: "complex128",
    12: "uint64",
    15: "uint32",
    16: "uint16",
    18: "bfloat16",
}


class _Takes(NamedTuple):
    """An operator with weights: its name, and the place and role of each."""

    name: str
    roles: Mapping[int, str]


# By the numbers of `BuiltinOperator`.
OPERATORS: Final[Mapping[int, _Takes]] = {
    3: _Takes("CONV_2D", {1: "filter", 2: "bias"}),
    4: _Takes("DEPTHWISE_CONV_2D", {1: "filter", 2: "bias"}),
    9: _Takes("FULLY_CONNECTED", {1: "weights", 2: "bias"}),
    54: _Takes("PRELU", {1: "alpha"}),
    67: _Takes("TRANSPOSE_CONV", {1: "filter", 3: "bias"}),
}
_DEQUANTIZE: Final = 6
_MULTIPLIER: Final = 3
_MAX_RANK: Final = 64
_QUANTIZED: Final = (
    "quantized by TensorFlow Lite: integers with scales and zero points, which no layer of another "
    "framework holds so; --to keras passes them on as stored"
)
_OPERATION: Final = re.compile(
    r"(/(ReadVariableOp|resource|Conv2D|MatMul|depthwise|BiasAdd|conv2d_transpose|transpose|Kernel"
    r"|Alpha)\d*)+$"
)


def matches(path: Path) -> bool:
    """Whether a file is a model of TensorFlow Lite.

    Args:
        path: the file.
    """
    return begins(path, 8)[4:] == MARK


def read(
    path: Path,
    *,
    architecture: Mapping[str, Any] | None = None,
    assume_dtype: np.dtype[Any] | None = None,
) -> Snapshot:
    """The constants of a model as layers.

    Args:
        path: the file.
        architecture: not used, since layers were joined and have no names of their own.
        assume_dtype: not needed, since a model says what its values are.

    Raises:
        UsageError: there is no such file, or an architecture was given.
        UnknownFormatError: it is no such model.
        MalformedError: it is broken or hostile.
    """
    region = mapped(path)
    if not matches(path):
        raise UnknownFormatError(f"{path}: expected a model of TensorFlow Lite")
    if architecture is not None:
        raise UsageError(f"{path}: its layers were joined, and no architecture fits it")
    data = memoryview(region.map)[region.start : region.start + region.size]
    model = root(data, path.name)
    codes = [
        max(code.number(0, 1, signed=True), code.number(3, 4, signed=True))
        for code in model.tables(1)
    ]
    buffers = [_bytes(buffer, data) for buffer in model.tables(4)]
    stored = Stored()
    for graph in model.tables(2):
        _read_graph(graph, codes, buffers, stored)
    stored = stored.finished()
    return Snapshot(
        Source(
            path.name, "tflite", backend="tensorflow", nbytes=region.size, content=region.content
        ),
        tuple(stored.layers),
        tuple(stored.omitted),
    )


def _bytes(buffer: Table, data: memoryview) -> memoryview:
    """The values of a tensor: inside of the table, or behind all tables where they are many."""
    start, size = buffer.span(0)
    if buffer.number(1, 8) > 1:
        start, size = buffer.number(1, 8), buffer.number(2, 8)
        if start + size > len(data):
            raise MalformedError(
                f"{buffer.buffer.where}: {size} bytes at {start}, outside of the file"
            )
    return data[start : start + size]


class _Constant(NamedTuple):
    """A tensor with values, and its scales and zero points where it has some."""

    name: str
    tensor: Tensor
    scales: tuple[Tensor, ...]


def _read_graph(graph: Table, codes: list[int], buffers: list[memoryview], stored: Stored) -> None:
    """The constants of one graph: those of operators with weights, then the others."""
    constants: dict[int, _Constant] = {}
    for number, tensor in enumerate(graph.tables(0)):
        found = _constant(tensor, buffers, stored)
        if found is not None:
            constants[number] = found
    same: dict[int, int] = {}
    owners: dict[int, list[tuple[int, str]]] = {}
    operators = list(_operators(graph, codes))
    for place, (code, inputs, outputs, _) in enumerate(operators):
        if code == _DEQUANTIZE and inputs and outputs:  # of half the precision, when it runs
            same[outputs[0]] = inputs[0]
        for at, role in OPERATORS[code].roles.items() if code in OPERATORS else ():
            if at < len(inputs):
                number = same.get(inputs[at], inputs[at])
                owners.setdefault(number, []).append((place, role))
    # An operator has the constants that no other one takes for something else.
    owned: dict[int, dict[str, int]] = {}
    for number, uses in owners.items():
        kinds = {(operators[place][0], role) for place, role in uses}
        if number in constants and len(kinds) == 1:
            owned.setdefault(uses[0][0], {})[uses[0][1]] = number
    used: set[int] = set()
    for place, (code, _, _, options) in enumerate(operators):
        roles = owned.get(place, {})
        main = next(iter(OPERATORS[code].roles.values())) if code in OPERATORS else ""
        if main not in roles:
            continue
        used |= set(roles.values())
        _add(code, {role: constants[number] for role, number in roles.items()}, options, stored)
    for number, constant in constants.items():
        if number in used:
            continue
        real = constant.tensor.dtype.kind == "f" or constant.tensor.dtype.name == "bfloat16"
        if (real and constant.tensor.shape) or constant.scales:
            weights = {"constant": constant.tensor, **_scales("constant", constant)}
            stored.add(constant.name or f"constant_{number}", weights)
        else:
            stored.omit([constant.tensor], "a constant of the graph")


def _operators(
    graph: Table, codes: list[int]
) -> Iterator[tuple[int, list[int], list[int], Table | None]]:
    """Each operator: what it does, which tensors it takes and gives, and its options."""
    for operator in graph.tables(3):
        number = operator.number(0, 4)
        if number >= len(codes):
            raise MalformedError(
                f"{graph.buffer.where}: an operator of code {number}, and there are {len(codes)}"
            )
        yield codes[number], operator.numbers(1), operator.numbers(2), operator.table(4)


def _constant(tensor: Table, buffers: list[memoryview], stored: Stored) -> _Constant | None:
    """A tensor that has values; what cannot be read of them is listed."""
    where = tensor.buffer.where
    name = tensor.text(3)
    number = tensor.number(2, 4)
    if number >= len(buffers):
        raise MalformedError(f"{where}: {name}: buffer {number}, and there are {len(buffers)}")
    data = buffers[number]
    if not len(data):
        return None
    kind = tensor.number(1, 1)
    shape = tuple(tensor.numbers(0, most=_MAX_RANK))
    label = name or "a tensor without a name"
    if any(extent < 0 for extent in shape):
        raise MalformedError(f"{where}: {label}: a shape of negative extent, {list(shape)}")
    if kind not in DTYPES or tensor.table(6) is not None:
        what = "a sparse tensor" if kind in DTYPES else f"numbers of type {kind}, or texts"
        raw = _tensor(label, np.dtype(np.uint8), (len(data),), data)
        stored.omit([raw], f"{what}, kept as bytes")
        return None
    dtype = np.dtype(DTYPES[kind]) if kind != 18 else _bfloat16()
    if math.prod(shape) * dtype.itemsize != len(data):
        raise MalformedError(
            f"{where}: {label}: {len(data)} bytes cannot be {dtype.name}{list(shape)}"
        )
    return _Constant(name, _tensor(label, dtype, shape, data), tuple(_quantization(tensor, label)))


def _bfloat16() -> np.dtype[Any]:
    import ml_dtypes

    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


def _quantization(tensor: Table, name: str) -> Iterator[Tensor]:
    table = tensor.table(4)
    data = tensor.buffer.data
    for number, what, dtype in ((2, "scale", "<f4"), (3, "zero_point", "<i8")):
        size = np.dtype(dtype).itemsize
        start, count = table.span(number, size) if table is not None else (0, 0)
        if count:
            view = data[start : start + size * count]
            yield _tensor(f"{name}/{what}", np.dtype(dtype), (count,), view)


def _tensor(name: str, dtype: np.dtype[Any], shape: tuple[int, ...], data: memoryview) -> Tensor:
    def load() -> Array:
        return np.frombuffer(data, dtype).reshape(shape)

    return Tensor(name, dtype, shape, load, stored=name)


def _scales(role: str, constant: _Constant) -> dict[str, Tensor]:
    return {f"{role}_{t.name.rpartition('/')[2]}": t for t in constant.scales}


def _add(code: int, roles: Mapping[str, _Constant], options: Table | None, stored: Stored) -> None:
    """One operator with weights as a layer."""
    name = OPERATORS[code].name
    order = [role for role in OPERATORS[code].roles.values() if role in roles]
    main = roles[order[0]]
    path = _OPERATION.sub("", main.name.partition(";")[0]) or name.lower()
    weights = {role: roles[role].tensor for role in order}
    if any(roles[role].scales for role in order):
        for role in order:
            weights |= _scales(role, roles[role])
        own = {key: replace(t, name=f"{path}/{key}") for key, t in weights.items()}
        stored.layers.append(Layer(path, None, {}, own, note=_QUANTIZED))
        return
    config: dict[str, Any] = {"use_bias": "bias" in roles}
    if name == "DEPTHWISE_CONV_2D" and options is not None:
        config["depth_multiplier"] = options.number(_MULTIPLIER, 4, signed=True)
    stored.add(path, weights, node=Node(path, name, name, config))
