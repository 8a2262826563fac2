"""safetensors, mapped in place: one file, or shards by their index.

A header is a stranger's text that points into the file. Nothing in it is believed before it is
checked: its own length, JSON without duplicate keys, and that the tensors' bytes lie one after the
other, without holes or overlaps, from the header's end to the file's end.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from kerasport import manifest
from kerasport.errors import MalformedError, UnsupportedError
from kerasport.model import StateDict, Tensor, dtype_named
from kerasport.readers import targets
from kerasport.readers.targets import Bytes

__all__ = ["matches", "read"]

HEADER_LIMIT: Final = 100_000_000
_RESERVED: Final = "__metadata__"
_INDEX_LIMIT: Final = 1 << 28

DTYPES: Final[Mapping[str, str]] = {
    "BOOL": "bool",
    "U8": "u8",
    "U16": "u16",
    "U32": "u32",
    "U64": "u64",
    "I8": "i8",
    "I16": "i16",
    "I32": "i32",
    "I64": "i64",
    "F16": "f16",
    "F32": "f32",
    "F64": "f64",
    "BF16": "bf16",
    "F8_E4M3": "f8_e4m3fn",
    "F8_E5M2": "f8_e5m2",
    "C64": "c64",
}


def matches(path: Path) -> bool:
    """True if the content looks like safetensors, or like an index of its shards."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
            size = file.seek(0, 2)
    except OSError:
        return False
    if head[:1] == b"{":
        return b'"weight_map"' in head
    if len(head) < 10:
        return False
    (length,) = struct.unpack_from("<Q", head)
    if length > size - 8:  # cut off within its header, which begins as all headers do
        return length <= HEADER_LIMIT and head[8:10] == b'{"'
    return length >= 2 and head[8:9] == b"{"


def read(path: Path) -> StateDict:
    """Read the tensors of a safetensors file, or of all shards that an index names.

    Args:
        path: the file, or `NAME.safetensors.index.json`.

    Returns:
        The tensors, mapped in place, in model order.

    Raises:
        MalformedError: the file breaks the format's rules.
        UnsupportedError: a dtype that kerasport does not know.
        UsageError: the file cannot be read.
    """
    data = targets.mapped(path)
    if data[:1].tobytes() == b"{":
        return _read_index(path, data)
    header, start = _header(path, data)
    return targets.state(
        path, _tensors(path, header, data, start), document=_document(path, header)
    )


def _read_index(path: Path, data: Bytes) -> StateDict:
    if data.size > _INDEX_LIMIT:
        raise MalformedError(
            f"{path}: expected an index of at most {_INDEX_LIMIT:,} bytes, found {data.size:,}"
        )
    index = manifest.loads(data.tobytes(), where=str(path))
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise MalformedError(
            f"{path}: expected an index with a weight_map of names to files, found none. "
            "Is this the index of a sharded model?"
        )
    tensors: dict[str, Tensor] = {}
    parts: list[StateDict] = []
    for file in dict.fromkeys(places.values()):
        if file in ("", ".", "..") or any(mark in file for mark in "/\\:\0"):
            raise MalformedError(
                f"{path}: expected files in the index's own folder, found {file!r}. "
                "An index must not lead out of its folder"
            )
        if not path.with_name(file).is_file():
            raise MalformedError(
                f"{path}: expected the shard {file}, found no such file. Fetch all shards"
            )
        parts.append(read(path.with_name(file)))
        for name, tensor in parts[-1].items():
            if places.get(name) != file:
                raise MalformedError(
                    f"{path}: expected {name} in {places.get(name)}, found it in {file}. "
                    "Index and shards are not of one model"
                )
            tensors[name] = tensor
    missing = sorted(places.keys() - tensors.keys())
    if missing:
        raise MalformedError(
            f"{path}: expected {missing[0]} in {places[missing[0]]}, found it in no shard. "
            "Index and shards are not of one model"
        )
    return targets.state(path, tensors.values(), document=_joined(path, parts))


def _joined(path: Path, parts: list[StateDict]) -> dict[str, Any] | None:
    """One manifest of all shards; None where a shard has none."""
    documents = [part.manifest for part in parts]
    if not documents or not all(documents):
        return None
    conventions = sorted({document["convention"] for document in documents})
    if len(conventions) > 1:
        raise MalformedError(
            f"{path}: expected shards of one convention, found {', '.join(conventions)}. "
            "Index and shards are not of one model"
        )
    joined = dict(documents[0])
    for key in ("layers", "tensors"):
        joined[key] = {name: item for document in documents for name, item in document[key].items()}
    return joined


def _header(path: Path, data: Bytes) -> tuple[dict[str, Any], int]:
    if data.size < 8:
        raise MalformedError(
            f"{path}: expected a safetensors header, found a file of {data.size} bytes. "
            "Is the file complete?"
        )
    (length,) = struct.unpack("<Q", data[:8].tobytes())
    if length > HEADER_LIMIT:
        raise MalformedError(
            f"{path}: expected a header of at most {HEADER_LIMIT:,} bytes, found one that claims "
            f"{length:,}. This is no safetensors file, or a hostile one"
        )
    if length > data.size - 8:
        raise MalformedError(
            f"{path}: expected a header of {length:,} bytes, found {data.size - 8:,}. "
            "Is the file complete?"
        )
    text = data[8 : 8 + length].tobytes()
    if text[:1] != b"{":
        raise MalformedError(
            f"{path}: expected a header that begins with '{{', found {text[:1]!r}. "
            "This is no safetensors file"
        )
    header = manifest.loads(text, where=f"{path}: header")
    assert isinstance(header, dict)  # it begins with a brace
    return header, 8 + length


def _document(path: Path, header: Mapping[str, Any]) -> dict[str, Any] | None:
    metadata = header.get(_RESERVED, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise MalformedError(
            f"{path}: expected __metadata__ to map strings to strings, found something else. "
            "The file is damaged"
        )
    if "kerasport" not in metadata:
        return None
    return manifest.parse(metadata["kerasport"], where=f"{path}: manifest")


def _tensors(path: Path, header: Mapping[str, Any], data: Bytes, start: int) -> Iterator[Tensor]:
    """The tensors in the order of the header, after a check of every offset."""
    spans: list[tuple[int, int, str]] = []
    found: list[Tensor] = []
    for name, entry in header.items():
        if name == _RESERVED:
            continue
        dtype, shape, (first, last) = _entry(path, name, entry)
        needed = math.prod(shape) * dtype.itemsize
        if last - first != needed:
            raise MalformedError(
                f"{path}: {name}: expected {needed:,} bytes for {entry['dtype']} of shape "
                f"{list(shape)}, found data_offsets [{first}, {last}]. The file is damaged"
            )
        spans.append((first, last, name))
        load = targets.view(data, dtype, shape, start=start + first)
        found.append(Tensor(name, dtype, shape, load))
    end = 0
    for first, last, name in sorted(spans):
        if first != end:
            what = "a hole" if first > end else "an overlap"
            raise MalformedError(
                f"{path}: {name}: expected its bytes to begin at {end}, found {what}: {first}. "
                "The file is damaged, or hostile"
            )
        end = last
    if start + end != data.size:
        raise MalformedError(
            f"{path}: expected {end:,} bytes of values, found {data.size - start:,}. "
            "Is the file complete?"
        )
    yield from found


def _entry(path: Path, name: str, entry: Any) -> tuple[Any, tuple[int, ...], tuple[int, int]]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise MalformedError(
            f"{path}: {name}: expected dtype, shape and data_offsets, found something else. "
            "The file is damaged"
        )
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not targets.is_shape(shape):
        raise MalformedError(f"{path}: {name}: expected a shape, found {str(shape)[:60]}")
    if not targets.is_shape(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise MalformedError(
            f"{path}: {name}: expected two ascending data_offsets, found {str(offsets)[:60]}"
        )
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise UnsupportedError(
            f"{path}: {name}: expected a dtype among {', '.join(DTYPES)}, "
            f"found {str(entry['dtype'])[:60]}"
        )
    return dtype_named(DTYPES[entry["dtype"]]), tuple(shape), (offsets[0], offsets[1])
