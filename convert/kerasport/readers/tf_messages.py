"""The messages of TensorFlow that are read here, field by field, and its numbers for dtypes.

Only fields that are used stand in the tables; numbers and names are those of the `.proto` files in
`tensorflow/core/framework` and `tensorflow/core/protobuf`, TensorFlow 2.21.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from kerasport.errors import MalformedError
from kerasport.readers.tf_proto import Field, Message

__all__ = ["DTYPES", "STRING", "numpy_dtype", "shape_of"]

Fields = Mapping[int, Field]

DTYPES: Final[Mapping[int, str]] = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    8: "complex64",
    9: "int64",
    10: "bool",
    11: "qint8",
    12: "quint8",
    13: "qint32",
    14: "bfloat16",
    15: "qint16",
    16: "quint16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    20: "resource",
    21: "variant",
    22: "uint32",
    23: "uint64",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
    26: "float8_e4m3fnuz",
    27: "float8_e4m3b11fnuz",
    28: "float8_e5m2fnuz",
    29: "int4",
    30: "uint4",
}
STRING: Final = 7
# Quantized numbers are integers with a scale elsewhere; four bits are stored as a byte each.
_BEYOND: Final = ("bfloat16", "float8_e5m2", "float8_e4m3fn", "int4", "uint4")
_NO_NUMBERS: Final = ("string", "resource", "variant")

_MAX_RANK: Final = 64

DIMENSION: Final[Fields] = {1: Field("size", "int")}
SHAPE: Final[Fields] = {2: Field("dim", DIMENSION, many=True), 3: Field("unknown_rank", "int")}
VERSIONS: Final[Fields] = {1: Field("producer", "int"), 2: Field("min_consumer", "int")}

# ---- tensor_bundle.proto, tensor_slice.proto, saved_tensor_slice.proto: checkpoints

EXTENT: Final[Fields] = {1: Field("start", "int"), 2: Field("length", "int")}
SLICE: Final[Fields] = {1: Field("extent", EXTENT, many=True)}
BUNDLE_HEADER: Final[Fields] = {
    1: Field("num_shards", "int"),
    2: Field("endianness", "int"),
    3: Field("version", VERSIONS),
}
BUNDLE_ENTRY: Final[Fields] = {
    1: Field("dtype", "int"),
    2: Field("shape", SHAPE),
    3: Field("shard_id", "int"),
    4: Field("offset", "int"),
    5: Field("size", "int"),
    6: Field("crc32c", "fixed32"),
    7: Field("slices", SLICE, many=True),
}

# ---- tensor.proto: tensors in graphs

TENSOR: Final[Fields] = {
    1: Field("dtype", "int"),
    2: Field("shape", SHAPE),
    4: Field("content", "bytes"),
    5: Field("float_val", "bytes", many=True),
    6: Field("double_val", "bytes", many=True),
    7: Field("int_val", "int", many=True),
    8: Field("string_val", "bytes", many=True),
    9: Field("scomplex_val", "bytes", many=True),
    10: Field("int64_val", "int", many=True),
    11: Field("bool_val", "int", many=True),
    12: Field("dcomplex_val", "bytes", many=True),
    13: Field("half_val", "int", many=True),
    16: Field("uint32_val", "int", many=True),
    17: Field("uint64_val", "int", many=True),
    18: Field("float8_val", "bytes", many=True),
}
SAVED_SLICE_META: Final[Fields] = {
    1: Field("name", "text"),
    2: Field("shape", SHAPE),
    3: Field("dtype", "int"),
    4: Field("slices", SLICE, many=True),
}
SAVED_SLICES: Final[Fields] = {
    1: Field("meta", {1: Field("tensors", SAVED_SLICE_META, many=True)}),
    2: Field(
        "data", {1: Field("name", "text"), 2: Field("slice", SLICE), 3: Field("data", TENSOR)}
    ),
}

# ---- trackable_object_graph.proto: which object holds which variable

OBJECT_REFERENCE: Final[Fields] = {1: Field("node_id", "int"), 2: Field("local_name", "text")}
SLOT_REFERENCE: Final[Fields] = {
    1: Field("original_variable_node_id", "int"),
    2: Field("slot_name", "text"),
    3: Field("slot_variable_node_id", "int"),
}
TRACKABLE: Final[Fields] = {
    1: Field("children", "bytes", many=True),  # there are very many; see tf_objects.references
    2: Field(
        "attributes",
        {1: Field("name", "text"), 2: Field("full_name", "text"), 3: Field("key", "text")},
        many=True,
    ),
    3: Field("slots", SLOT_REFERENCE, many=True),
}
OBJECT_GRAPH: Final[Fields] = {1: Field("nodes", TRACKABLE, many=True)}

# ---- saved_model.proto, meta_graph.proto, saved_object_graph.proto, Keras's saved_metadata.proto

USER_OBJECT: Final[Fields] = {1: Field("identifier", "text"), 3: Field("metadata", "bytes")}
SAVED_VARIABLE: Final[Fields] = {3: Field("trainable", "int")}
SAVED_OBJECT: Final[Fields] = {
    1: Field("children", "bytes", many=True),
    4: Field("user_object", USER_OBJECT),
    7: Field("variable", SAVED_VARIABLE),
}
SAVED_OBJECT_GRAPH: Final[Fields] = {
    1: Field("nodes", SAVED_OBJECT, many=True),
    2: Field(
        "functions",
        {1: Field("name", "text"), 2: Field("value", {2: Field("bound", "int", many=True)})},
        many=True,
    ),
}
META_INFO: Final[Fields] = {4: Field("tags", "text", many=True), 5: Field("tf_version", "text")}
META_GRAPH: Final[Fields] = {
    1: Field("info", META_INFO),
    2: Field("graph", "bytes"),
    7: Field("objects", "bytes"),
}
SAVED_MODEL: Final[Fields] = {
    1: Field("schema_version", "int"),
    2: Field("meta_graphs", META_GRAPH, many=True),
}
KERAS_NODE: Final[Fields] = {
    2: Field("node_id", "int"),
    3: Field("path", "text"),
    4: Field("identifier", "text"),
    5: Field("metadata", "bytes"),
}
KERAS_METADATA: Final[Fields] = {1: Field("nodes", KERAS_NODE, many=True)}

# ---- graph.proto, node_def.proto, function.proto, attr_value.proto: operations

ATTRIBUTE: Final[Fields] = {1: Field("key", "text"), 2: Field("value", "bytes")}
NODE: Final[Fields] = {
    1: Field("name", "text"),
    2: Field("op", "text"),
    3: Field("inputs", "text", many=True),
    5: Field("attributes", "bytes", many=True),  # most of them are never looked at
}
GRAPH: Final[Fields] = {1: Field("nodes", NODE, many=True), 2: Field("library", "bytes")}
FUNCTION_LIBRARY: Final[Fields] = {
    1: Field(
        "functions",
        {
            1: Field(
                "signature",
                {
                    1: Field("name", "text"),
                    2: Field("arguments", {1: Field("name", "text")}, many=True),
                },
            ),
            3: Field("nodes", "bytes", many=True),
        },
        many=True,
    )
}
VALUE: Final[Fields] = {
    2: Field("text", "bytes"),
    3: Field("int", "int"),
    5: Field("bool", "int"),
    8: Field("tensor", TENSOR),
    10: Field("function", {1: Field("name", "text")}),
}


def numpy_dtype(number: int | None, *, where: str) -> np.dtype[Any] | None:
    """NumPy's dtype of a number that TensorFlow has for it; None where there is none.

    >>> numpy_dtype(19, where="example")
    dtype('float16')

    Args:
        number: as stored.
        where: what is being read, for errors.

    Raises:
        MalformedError: TensorFlow has no such number.
    """
    name = DTYPES.get(number or 0)
    if name is None:
        raise MalformedError(f"{where}: expected a dtype of TensorFlow, found number {number}")
    if name in _NO_NUMBERS or name.endswith("fnuz"):
        return None
    if name in _BEYOND:
        import ml_dtypes

        beyond: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return beyond
    return np.dtype(name.replace("q", "", 1) if "qint" in name or "quint" in name else name)


def shape_of(shape: Message | None, *, where: str) -> tuple[int, ...]:
    """The extents in a message with a shape.

    Args:
        shape: the decoded message, or None, which is a scalar's.
        where: what is being read, for errors.

    Raises:
        MalformedError: it is not fully known, or cannot be.
    """
    if shape is None:
        return ()
    extents = tuple(dimension["size"] or 0 for dimension in shape["dim"])
    if shape["unknown_rank"] or any(extent < 0 for extent in extents):
        raise MalformedError(f"{where}: expected a known shape, found {list(extents)}")
    if len(extents) > _MAX_RANK or math.prod(extents) >= 1 << 62:
        raise MalformedError(f"{where}: a shape of absurd size, {list(extents[:8])}")
    return extents
