"""The table that Arrow and Parquet files hold: one row a tensor, for tools that never saw us.

The table is published as `schemas/tensors.v1.md`. Three decisions make it what it is.

*Numbers that SQL can use, and every bit.* DuckDB and Polars know no bfloat16, and a column has one
type. So `values` has 32-bit floats and `values64` 64-bit floats: each tensor is in the narrower one
that holds its numbers, and for f32 and f64 that is the tensor bit for bit. For every other dtype
`data` has the exact bytes too, little endian, and the numbers are there to compute with: exact for
all but 64-bit integers beyond 2**53. Always storing both would double every file.

*Parts.* A tensor of more than `PART` elements takes several rows, told apart by `start`. A Parquet
page cannot hold 2 GiB, and readers decode a row as a whole: without parts, memory would grow with
the largest tensor. Sums over a tensor or a layer do not see them.

*Plain bytes.* No compression and no dictionary: weights do not compress, and the bytes must not
depend on a codec's version. Hashes are in every row and in the manifest at the front, so tensors
are hashed in a first pass; the second is checked against it when the file is read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from kerasport import manifest
from kerasport.errors import MissingExtraError
from kerasport.model import StateDict, Tensor, dtype_name
from kerasport.writers import staging

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DOUBLE", "PART", "SINGLE", "arrow", "batches", "check", "schema"]

Array = npt.NDArray[Any]
PART: int = 1 << 21
# Rows of small tensors are written together, up to so many.
_ROWS: Final = 1 << 14

SINGLE: Final = frozenset(
    {"f32", "f16", "bf16", "f8_e4m3fn", "f8_e5m2", "bool", "i4", "u4", "i8", "u8", "i16", "u16"}
)
DOUBLE: Final = frozenset({"f64", "i32", "u32", "i64", "u64"})
_EXACT: Final = frozenset({"f32", "f64"})


def arrow() -> Any:
    """The module pyarrow.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError("pyarrow", "arrow", "writing Arrow or Parquet") from error
    return pyarrow


def schema(metadata: Mapping[str, str] | None = None) -> pa.Schema:
    """The columns, in order, with key-value metadata."""
    pa = arrow()
    columns = [
        pa.field("name", pa.string(), nullable=False),
        pa.field("layer", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("role", pa.string()),
        pa.field("axes", pa.list_(pa.string())),
        pa.field("layout", pa.string()),
        pa.field("shape", pa.list_(pa.int64()), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("trainable", pa.bool_()),
        pa.field("hash", pa.string(), nullable=False),
        pa.field("sources", pa.list_(pa.string()), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("values", pa.list_(pa.float32())),
        pa.field("values64", pa.list_(pa.float64())),
        pa.field("data", pa.binary()),
    ]
    return pa.schema(columns, metadata=metadata)


class _Rows:
    """Rows that wait to be written together."""

    def __init__(self) -> None:
        self.facts: list[dict[str, Any]] = []
        self.slabs: list[Array] = []
        self.elements = 0

    def full(self, more: int) -> bool:
        return bool(self.facts) and (self.elements + more > PART or len(self.facts) >= _ROWS)

    def add(self, facts: dict[str, Any], slab: Array) -> None:
        self.facts.append(facts)
        self.slabs.append(slab)
        self.elements += slab.size

    def batch(self, layout: pa.Schema) -> pa.RecordBatch:
        pa = arrow()
        columns = []
        for field in layout:
            if field.name in ("values", "values64"):
                held = SINGLE if field.name == "values" else DOUBLE
                columns.append(self._numbers(field.type, held))
            elif field.name == "data":
                columns.append(self._bytes())
            else:
                columns.append(pa.array([row[field.name] for row in self.facts], field.type))
        return pa.record_batch(columns, schema=layout)

    def _numbers(self, kind: Any, held: frozenset[str]) -> Any:
        """A list column with the slabs of these dtypes, null in the other rows."""
        pa = arrow()
        dtype = np.dtype(kind.value_type.to_pandas_dtype())
        mine = [row["dtype"] in held for row in self.facts]
        sizes = [slab.size if own else 0 for slab, own in zip(self.slabs, mine, strict=True)]
        offsets = np.zeros(len(sizes) + 1, np.int32)
        np.cumsum(sizes, out=offsets[1:])
        with np.errstate(all="ignore"):  # signalling NaNs warn; `data` has their bits
            parts = [
                slab.astype(dtype, copy=False)
                for slab, own in zip(self.slabs, mine, strict=True)
                if own
            ]
        flat = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])
        missing = None if all(mine) else pa.array([not own for own in mine])
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), type=kind, mask=missing)

    def _bytes(self) -> Any:
        pa = arrow()
        raw = [
            None if row["dtype"] in _EXACT else slab.view(np.uint8).tobytes()
            for row, slab in zip(self.facts, self.slabs, strict=True)
        ]
        return pa.array(raw, pa.binary())


def batches(
    state: StateDict, hashes: Mapping[str, str], *, layout: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """The rows of the table, in batches of at most `PART` elements.

    A batch is valid until the next one is asked for.
    """
    known = state.manifest.get("tensors", {})
    rows = _Rows()
    for tensor in state.values():
        entry = known.get(tensor.name) or manifest.entry(tensor)
        facts = _facts(tensor, entry, hashes[tensor.name])
        for start, slab in _parts(tensor):
            if rows.full(slab.size):
                yield rows.batch(layout)
                rows = _Rows()
            alone = slab.size > PART // 16
            rows.add({**facts, "start": start}, slab if alone else slab.copy())
            if alone:
                yield rows.batch(layout)
                rows = _Rows()
    if rows.facts:
        yield rows.batch(layout)


def _facts(tensor: Tensor, entry: Mapping[str, Any], hash_: str) -> dict[str, Any]:
    layout = tensor.layout
    return {
        "name": tensor.name,
        "layer": entry["layer"],
        "kind": entry["kind"],
        "role": entry["role"] or None,
        "axes": None if layout is None else [str(dim) for dim in layout.dims],
        "layout": entry["layout"],
        "shape": list(tensor.shape),
        "dtype": dtype_name(tensor.dtype),
        "trainable": entry["trainable"],
        "hash": hash_,
        "sources": [source["name"] for source in entry["sources"]],
    }


def _parts(tensor: Tensor) -> Iterator[tuple[int, Array]]:
    """The elements of a tensor, `PART` at a time; one empty part where there are none."""
    start = 0
    dtype = tensor.dtype
    for slab in tensor.slabs(PART * dtype.itemsize):
        yield start, slab.astype(dtype.newbyteorder("<")) if dtype.byteorder == ">" else slab
        start += slab.size
    if not tensor.size:
        yield 0, np.empty(0, dtype)


def check(
    found: Iterator[pa.RecordBatch], state: StateDict, *, hashes: Mapping[str, str], where: Path
) -> None:
    """Hash the tensors of a table that was read again.

    Raises:
        VerificationError: a tensor is missing, or is not what was written.
    """
    hashers = {name: manifest.hasher() for name in state if not state[name].size}
    for batch in found:
        columns = {key: batch.column(key) for key in ("values", "values64", "data")}
        dtypes = batch.column("dtype").to_pylist()
        for row, name in enumerate(batch.column("name").to_pylist()):
            hasher = hashers.setdefault(name, manifest.hasher())
            if dtypes[row] in _EXACT:
                key = "values" if dtypes[row] == "f32" else "values64"
                hasher.update(columns[key][row].values.to_numpy().view(np.uint8))
            elif (buffer := columns["data"][row].as_buffer()) is not None:
                hasher.update(buffer)
    for name, written in hashes.items():
        read = hashers[name].hexdigest() if name in hashers else manifest.NO_HASH
        staging.compare(name, written, read, where=where)


def prepared(state: StateDict) -> tuple[dict[str, str], pa.Schema]:
    """The hashes of all tensors, and the schema with the manifest in its metadata."""
    hashes = {tensor.name: staging.digest(tensor) for tensor in state.values()}
    return hashes, schema({"kerasport": manifest.text(state, hashes)})


def sink(file: BinaryIO) -> Any:
    """An open file as pyarrow writes to it."""
    return arrow().PythonFile(file, mode="w")
