"""Checkpoints for tests: written by TensorFlow, or by hand where TensorFlow would never write so.

The hand-written table follows LevelDB's `table_format.md` and shares no code with the reader but
the checksum, which is tested against TensorFlow's by itself.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasport.readers.tf_crc import crc32c, masked

MAGIC = 0xDB4775248B80FB57


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def block(pairs: Sequence[tuple[bytes, bytes]], *, shared: Sequence[int] | None = None) -> bytes:
    """One block without its trailer; `shared` says how much of each key is left out."""
    out = bytearray()
    for number, (key, value) in enumerate(pairs):
        common = shared[number] if shared else 0
        out += varint(common) + varint(len(key) - common) + varint(len(value))
        out += key[common:] + value
    return bytes(out + struct.pack("<II", 0, 1))


def sealed(data: bytes, kind: int = 0) -> bytes:
    body = data + bytes([kind])
    return body + struct.pack("<I", masked(crc32c(body)))


def table(
    pairs: Sequence[tuple[bytes, bytes]],
    *,
    kind: int = 0,
    handle: tuple[int, int] | None = None,
    shared: Sequence[int] | None = None,
) -> bytes:
    """A whole table of one block, with whatever is to be wrong about it."""
    data = block(pairs, shared=shared)
    out = bytearray(sealed(data, kind))
    meta_at = len(out)
    meta = block([])
    out += sealed(meta)
    index_at = len(out)
    offset, size = handle or (0, len(data))
    index = block([(pairs[-1][0] if pairs else b"", varint(offset) + varint(size))])
    out += sealed(index)
    footer = varint(meta_at) + varint(len(meta)) + varint(index_at) + varint(len(index))
    return bytes(out) + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def pairs(index: Path) -> list[tuple[bytes, bytes]]:
    """The entries of an index that TensorFlow wrote."""
    from kerasport.readers.mapped import mapped
    from kerasport.readers.tf_table import entries

    return [(key, bytes(value)) for key, value in entries(mapped(index), where=index.name)]


def rewrite(index: Path, name: str, change: Callable[[Any], None]) -> None:
    """Change one entry of an index, through TensorFlow's own message, and seal it again."""
    from tensorflow.core.protobuf import tensor_bundle_pb2

    found = dict(pairs(index))
    message: Any = (
        tensor_bundle_pb2.BundleEntryProto() if name else tensor_bundle_pb2.BundleHeaderProto()
    )
    message.ParseFromString(found[name.encode()])
    change(message)
    found[name.encode()] = message.SerializeToString()
    index.write_bytes(table(sorted(found.items())))


def save(prefix: Path, tensors: Mapping[str, Any], slices: Mapping[str, str] | None = None) -> Path:
    """A checkpoint of these tensors; a name may end in `#1`, `#2`, … for slices of one tensor."""
    import tensorflow as tf

    prefix.parent.mkdir(parents=True, exist_ok=True)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=[name.partition("#")[0] for name in tensors],
        shape_and_slices=[(slices or {}).get(name, "") for name in tensors],
        tensors=[tf.constant(value) for value in tensors.values()],
    )
    return prefix


def numbers(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> Any:
    """Random numbers of a shape, whole ones where the dtype has no others."""
    rng = np.random.default_rng([seed, *shape])
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if "int" in dtype:
        return rng.integers(0, 100, shape).astype(dtype)
    values = rng.standard_normal(shape)
    if dtype.startswith("complex"):
        return (values + 1j * rng.standard_normal(shape)).astype(dtype)
    if dtype in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        import ml_dtypes

        return values.astype(getattr(ml_dtypes, dtype))
    return values.astype(dtype)
