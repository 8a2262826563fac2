"""ONNX initializers: a model without nodes, whose graph holds the tensors by name.

The container is protobuf: fields of (number, length, bytes), end to end. The onnx library would
hold every tensor twice while it serialises, where the promise is that memory does not grow with the
model; and a field is one line to write. So the values go from the slab to the file, between the few
bytes of the messages around them. The tests have `onnx.checker` read every result.

Past `INLINE_LIMIT` bytes the values go to `NAME.onnx.data` beside the model, since a protobuf
message must stay below 2 GiB. The values of a tensor start there at a multiple of 64 bytes, those
of 64 KiB and more at a multiple of a page, so that runtimes can map them.

The manifest is the entry `kerasport` of `metadata_props`. IR version 10 and opset 21 are named in
every file: they have all dtypes that are written here, and runtimes of 2024 and later read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from kerasport import manifest
from kerasport.errors import UnsupportedError, VerificationError
from kerasport.model import StateDict, Tensor, dtype_name
from kerasport.writers import staging
from kerasport.writers.staging import Staging

__all__ = ["DTYPES", "INLINE_LIMIT", "IR_VERSION", "OPSET", "write"]

IR_VERSION: Final = 10
OPSET: Final = 21
INLINE_LIMIT: Final = 3 << 29
MESSAGE_LIMIT: Final = (1 << 31) - 1

# The numbers of TensorProto.DataType.
DTYPES: Final[Mapping[str, int]] = {
    "f32": 1,
    "u8": 2,
    "i8": 3,
    "u16": 4,
    "i16": 5,
    "i32": 6,
    "i64": 7,
    "bool": 9,
    "f16": 10,
    "f64": 11,
    "u32": 12,
    "u64": 13,
    "c64": 14,
    "c128": 15,
    "bf16": 16,
    "f8_e4m3fn": 17,
    "f8_e5m2": 19,
}
_PAGE: Final = 4096
_ALIGNMENT: Final = 64
_LARGE: Final = 64 << 10


def write(
    state: StateDict,
    path: Path,
    *,
    max_shard_size: int | None = None,
    inline_limit: int = INLINE_LIMIT,
) -> tuple[Path, ...]:
    """Write tensors as the initializers of an ONNX model.

    >>> import tempfile, numpy as np
    >>> state = StateDict("onnx", {"b": Tensor.of("b", np.zeros(2, np.float32))})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [file.name for file in write(state, Path(folder, "model.onnx"), inline_limit=7)]
    ['model.onnx', 'model.onnx.data']

    Args:
        state: the tensors.
        path: the model to write.
        max_shard_size: must be None; ONNX puts all external data into one file.
        inline_limit: above how many bytes of values they go to a file of their own.

    Returns:
        The files written, the model first.

    Raises:
        UnsupportedError: a dtype that ONNX lacks, or an empty name.
        UsageError: the target cannot be written, or a shard size is given.
        VerificationError: what was written does not read back.
    """
    staging.refuse_shards(max_shard_size, target="ONNX")
    staging.supported(state, DTYPES, target="ONNX")
    if "" in state.tensors:
        raise UnsupportedError("ONNX cannot hold a tensor without a name; rename it")
    with Staging(path) as staged:
        if state.nbytes > inline_limit:
            _write_external(state, staged, target=path)
        else:
            _write_inline(state, staged, target=path)
        return staged.publish()[::-1]


def _write_inline(state: StateDict, staged: Staging, *, target: Path) -> None:
    heads = [_tensor(tensor) + _head(9, tensor.nbytes) for tensor in state.values()]
    sizes = [len(head) + tensor.nbytes for head, tensor in zip(heads, state.values(), strict=True)]
    name = _bytes(2, b"kerasport")
    inner = len(name) + sum(len(_head(5, size)) + size for size in sizes)
    start = _model_start() + _head(7, inner) + name
    with staged.flow(target, state.values()) as flow:
        flow.put(start)
        for tensor, head, size in zip(state.values(), heads, sizes, strict=True):
            flow.put(_head(5, size) + head)
            flow.values(tensor)
    end = _model_end(state, flow.hashes)
    _refuse_long(flow.offset + len(end), target=target)
    flow.patch(flow.offset, end)
    file = staged.reopen(target)
    found = file.read(len(start))
    file.seek(flow.offset)
    if (found, file.read()) != (start, end):
        raise VerificationError(f"{target}: does not read back; nothing was changed")


def _write_external(state: StateDict, staged: Staging, *, target: Path) -> None:
    data = target.with_name(f"{target.name}.data")
    spans = list(_external_spans(state))
    with staged.flow(data, state.values()) as flow:
        for tensor, offset in spans:
            flow.put(bytes(offset - flow.offset))
            flow.values(tensor)

    graph = bytearray(_bytes(2, b"kerasport"))
    for tensor, offset in spans:
        place = {"location": data.name, "offset": offset, "length": tensor.nbytes}
        external = b"".join(_bytes(13, _pair(key, str(value))) for key, value in place.items())
        graph += _bytes(5, _tensor(tensor) + external + _int(14, 1))
    message = _model_start() + _bytes(7, bytes(graph)) + _model_end(state, flow.hashes)
    _refuse_long(len(message), target=target)
    staged.open(target).write(message)
    if staged.reopen(target).read() != message:
        raise VerificationError(f"{target}: does not read back; nothing was changed")


def _external_spans(state: StateDict) -> Iterator[tuple[Tensor, int]]:
    offset = 0
    for tensor in state.values():
        offset += staging.pad(offset, _PAGE if tensor.nbytes >= _LARGE else _ALIGNMENT)
        yield tensor, offset
        offset += tensor.nbytes


def _refuse_long(size: int, *, target: Path) -> None:
    if size > MESSAGE_LIMIT:
        raise UnsupportedError(
            f"{target}: expected a model of less than 2 GiB, found {size:,} bytes. "
            "Too many tensors for ONNX; write safetensors or Parquet"
        )


def _model_start() -> bytes:
    name, version = manifest.PRODUCER["name"], manifest.PRODUCER["version"]
    return _int(1, IR_VERSION) + _bytes(2, name.encode()) + _bytes(3, version.encode())


def _model_end(state: StateDict, hashes: Mapping[str, str]) -> bytes:
    opset = _bytes(8, _bytes(1, b"") + _int(2, OPSET))
    return opset + _bytes(14, _pair("kerasport", manifest.text(state, hashes)))


def _tensor(tensor: Tensor) -> bytes:
    """A TensorProto without its values."""
    dims = b"".join(_int(1, extent) for extent in tensor.shape)
    return dims + _int(2, DTYPES[dtype_name(tensor.dtype)]) + _bytes(8, tensor.name.encode())


def _pair(key: str, value: str) -> bytes:
    return _bytes(1, key.encode()) + _bytes(2, value.encode())


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _head(field: int, length: int) -> bytes:
    """What comes before the `length` bytes of a field."""
    return _varint(field << 3 | 2) + _varint(length)


def _bytes(field: int, content: bytes) -> bytes:
    return _head(field, len(content)) + content


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)
