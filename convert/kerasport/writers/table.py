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
depend on a codec's version.

The hash of a tensor is in each of its rows, so it is taken before the first of them is written: of
values that are held in memory, or of slabs that are made twice where the tensor is too large. A
thread of its own does that, one batch ahead of pyarrow, which encodes and writes. When the file is
read again, two threads take half of it each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import numpy as np
import numpy.typing as npt

from kerasport import manifest
from kerasport.errors import MissingExtraError
from kerasport.model import StateDict, Tensor, dtype_name
from kerasport.writers import staging

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DOUBLE", "PART", "SINGLE", "Written", "arrow", "batches", "check", "schema", "sink"]

Array = npt.NDArray[Any]
_T = TypeVar("_T")
PART: int = 1 << 20
# A tensor of up to so many bytes is made once, hashed, and cut into parts.
_HELD: int = 38 << 20
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

    def batch(self, layout: pa.Schema, begins: list[bool]) -> pa.RecordBatch:
        pa = arrow()
        begins.append(self.facts[0]["start"] == 0)
        columns = []
        for column in layout:
            if column.name in ("values", "values64"):
                held = SINGLE if column.name == "values" else DOUBLE
                columns.append(self._numbers(column.type, held))
            elif column.name == "data":
                columns.append(self._bytes())
            else:
                columns.append(pa.array([row[column.name] for row in self.facts], column.type))
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
        # Out of buffers: what builds lists with a mask first loads all of pyarrow's functions.
        valid = None if all(mine) else pa.py_buffer(np.packbits(mine, bitorder="little"))
        numbers = pa.Array.from_buffers(kind.value_type, flat.size, [None, pa.py_buffer(flat)])
        lists = [valid, pa.py_buffer(offsets)]
        return pa.Array.from_buffers(kind, len(mine), lists, children=[numbers])

    def _bytes(self) -> Any:
        pa = arrow()
        raw = [
            None if row["dtype"] in _EXACT else slab.view(np.uint8).tobytes()
            for row, slab in zip(self.facts, self.slabs, strict=True)
        ]
        return pa.array(raw, pa.binary())


@dataclass(slots=True)
class Written:
    """What is known of a table when its batches are written.

    Attributes:
        hashes: the content hash of each tensor, by name.
        begins: for each batch, whether its first row begins a tensor.
    """

    hashes: dict[str, str] = field(default_factory=dict)
    begins: list[bool] = field(default_factory=list)


def batches(state: StateDict, written: Written, *, layout: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of the table, in batches of at most `PART` elements, made one batch ahead."""
    return _ahead(_batches(state, written, layout))


def _ahead(items: Iterator[_T]) -> Iterator[_T]:
    """The same items, each made in another thread while the one before it is used.

    No more than one: the item after the next is begun when the next one is taken.
    """
    ready: SimpleQueue[tuple[_T | None, BaseException | None]] = SimpleQueue()
    taken = Semaphore(0)
    left = False

    def run() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                ready.put((item, None))
                del item
                taken.acquire()
                if left:
                    return
        except BaseException as found:  # raised again where the items are used
            error = found
        ready.put((None, error))

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        while (found := ready.get())[0] is not None:
            taken.release()
            yield found[0]
        if found[1] is not None:
            raise found[1]
    finally:
        left = True
        taken.release()
        thread.join()


def _batches(state: StateDict, written: Written, layout: pa.Schema) -> Iterator[pa.RecordBatch]:
    known = state.manifest.get("tensors", {})
    rows = _Rows()
    for tensor in state.values():
        entry = known.get(tensor.name) or manifest.entry(tensor)
        facts: dict[str, Any] = {}
        for start, slab in _parts(tensor, written.hashes):
            facts = facts or _facts(tensor, entry, written.hashes[tensor.name])
            if rows.full(slab.size):
                yield rows.batch(layout, written.begins)
                rows = _Rows()
            rows.add({**facts, "start": start}, slab)
            if slab.size > PART // 16:
                yield rows.batch(layout, written.begins)
                rows = _Rows()
    if rows.facts:
        yield rows.batch(layout, written.begins)


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


def _parts(tensor: Tensor, hashes: dict[str, str]) -> Iterator[tuple[int, Array]]:
    """The elements of a tensor, `PART` at a time; one empty part where there are none."""
    whole: Array | None = None
    if tensor.fill is None:
        whole = staging.declared(tensor)
    elif tensor.nbytes <= _HELD:
        whole = staging.room(tensor.nbytes).view(tensor.dtype)
        tensor.fill(0, tensor.size, whole)
    if whole is None:
        hashes.update(staging.digests([replace(tensor, watch=None)]))
    else:
        if staging.foreign(tensor.dtype):
            whole = whole.astype(tensor.dtype.newbyteorder("<"))
        hasher = manifest.hasher()
        hasher.update(whole.view(np.uint8))
        hashes[tensor.name] = hasher.hexdigest()
    # One is used while the other one is filled.
    size = 0 if whole is not None else PART * tensor.dtype.itemsize
    rooms = [staging.room(size).view(tensor.dtype) for _ in range(2)]
    for start in range(0, tensor.size, PART) if tensor.size else (0,):
        stop = min(start + PART, tensor.size)
        if whole is not None:
            slab = whole[start:stop]
        else:
            assert tensor.fill is not None
            slab = rooms[start // PART % 2][: stop - start]
            tensor.fill(start, stop, slab)
            if staging.foreign(tensor.dtype):
                slab = slab.astype(tensor.dtype.newbyteorder("<"))
        yield start, slab
        if tensor.watch is not None:
            tensor.watch(slab.nbytes)


def check(
    read: Callable[[range], Iterator[pa.RecordBatch]],
    state: StateDict,
    *,
    written: Written,
    where: Path,
) -> None:
    """Hash the tensors of a table that is read again, by two threads that share the batches.

    Args:
        read: opens the file anew and gives these of its batches.
        state: the tensors.
        written: what was written.
        where: what the file is called in errors.

    Raises:
        VerificationError: a tensor is missing, or is not what was written.
    """
    count = len(written.begins)
    middle = next((n for n in range(count // 2, count) if written.begins[n]), count)
    found: dict[str, str] = {}
    errors: list[BaseException] = []

    def half(numbers: range) -> None:
        try:
            found.update(_hashed(read(numbers)))
        except BaseException as error:  # raised again below
            errors.append(error)

    other = Thread(target=half, args=(range(middle, count),), daemon=True)
    if middle < count:
        other.start()
    half(range(middle))
    if middle < count:
        other.join()
    if errors:
        raise errors[0]
    for name, hash_ in written.hashes.items():
        staging.compare(name, hash_, found.get(name, manifest.NO_HASH), where=where)


def _hashed(batches: Iterator[pa.RecordBatch]) -> dict[str, str]:
    """The content hash of every tensor that these batches hold."""
    hashers: dict[str, manifest.Hasher] = {}
    for batch in batches:
        columns = {key: batch.column(key) for key in ("values", "values64", "data")}
        dtypes = batch.column("dtype").to_pylist()
        for row, name in enumerate(batch.column("name").to_pylist()):
            hasher = hashers.get(name)
            if hasher is None:
                hasher = hashers[name] = manifest.hasher()
            if dtypes[row] in _EXACT:
                key = "values" if dtypes[row] == "f32" else "values64"
                hasher.update(columns[key][row].values.to_numpy().view(np.uint8))
            elif (buffer := columns["data"][row].as_buffer()) is not None:
                hasher.update(buffer)
    return {name: hasher.hexdigest() for name, hasher in hashers.items()}


class _Steps:
    """A file that is written as the other writers write theirs, see `staging.put_at`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offset = 0
        self.closed = False

    def write(self, content: Any) -> int:
        found = np.frombuffer(content, np.uint8)
        staging.put_at(self._file, found, self._offset)
        self._offset += found.size
        return int(found.size)

    def tell(self) -> int:
        return self._offset

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.closed = True


@contextmanager
def sink(file: BinaryIO, size: int) -> Iterator[Any]:
    """A new file as pyarrow writes to it, with room for so many bytes and as large as it gets."""
    staging.reserve(file, size)
    steps = _Steps(file)
    yield arrow().PythonFile(steps, mode="w")
    file.truncate(steps.tell())
