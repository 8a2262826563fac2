"""safetensors, written front to back: a header of known size, then the values slab by slab.

The library's own writer wants all tensors in memory, writes metadata in an order that changes from
run to run, and given a transposed array silently writes wrong data. The format is small enough to
write: 8 bytes of length, a JSON header, the values without holes.

Values lie in the order of their item size, the widest first, and in model order within one size: so
every tensor is aligned to its own dtype without padding, which the format forbids. Header keys
follow the same order. The header is padded with spaces to a multiple of 8, so values start aligned.

The manifest is a string in `__metadata__`. Its length is known beforehand, its hashes are not: the
header's place is kept free and filled at the end.

With `max_shard_size` the tensors are dealt in model order to shards named as on the Hugging Face
hub, with `NAME.safetensors.index.json` beside them. Each shard's manifest describes the shard's own
tensors and their layers, and repeats the notes and omissions; reading the index joins them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from kerasport import manifest
from kerasport.errors import UnsupportedError, UsageError, VerificationError
from kerasport.model import StateDict, Tensor, dtype_name
from kerasport.writers import staging
from kerasport.writers.staging import Staging

__all__ = ["DTYPES", "write"]

DTYPES: Final[Mapping[str, str]] = {
    "bool": "BOOL",
    "u8": "U8",
    "u16": "U16",
    "u32": "U32",
    "u64": "U64",
    "i8": "I8",
    "i16": "I16",
    "i32": "I32",
    "i64": "I64",
    "f16": "F16",
    "f32": "F32",
    "f64": "F64",
    "bf16": "BF16",
    "f8_e4m3fn": "F8_E4M3",
    "f8_e5m2": "F8_E5M2",
    "c64": "C64",
}
# The library refuses to read a longer header.
HEADER_LIMIT: Final = 100_000_000
_RESERVED: Final = "__metadata__"
_INDEX_VERSION: Final = "1.0"


def write(
    state: StateDict,
    path: Path,
    *,
    max_shard_size: int | None = None,
    beside: Mapping[str, bytes] | None = None,
    stale: Iterable[str] = (),
) -> tuple[Path, ...]:
    """Write tensors as safetensors.

    >>> import tempfile, numpy as np
    >>> state = StateDict("torch", {"b": Tensor.of("b", np.zeros(2, np.float32))})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [file.name for file in write(state, Path(folder, "model.safetensors"))]
    ['model.safetensors']

    Args:
        state: the tensors.
        path: the file to write; the name that shards and index derive theirs from.
        max_shard_size: how many bytes of values a shard may have; a larger tensor has its own.
        beside: what else is in the folder, by name, which appears with the tensors or not at all;
            so does the folder, where it is not there.
        stale: names of what an earlier write has left in the folder.

    Returns:
        The files written; the index, where there is one, is first, and so is what lies beside.

    Raises:
        UnsupportedError: a dtype, or a header, that safetensors cannot hold.
        UsageError: the target cannot be written.
        VerificationError: what was written does not read back.
    """
    if max_shard_size is not None and max_shard_size < 1:
        raise UsageError(
            f"{path}: expected a maximum shard size of at least 1 byte, found {max_shard_size}"
        )
    staging.supported(state, DTYPES, target="safetensors")
    if _RESERVED in state.tensors:
        raise UnsupportedError(f"safetensors cannot hold a tensor named {_RESERVED}; rename it")
    shards = [state] if max_shard_size is None else list(_shards(state, max_shard_size))
    index = path.with_name(f"{path.name}.index.json")
    with Staging(path, make_folder=beside is not None) as staged:
        earlier = _earlier_shards(index)
        old = [path.with_name(name) for name in stale]
        if len(shards) == 1:
            _write_file(state, staged, target=path)
            for name, content in (beside or {}).items():
                staged.open(path.with_name(name)).write(content)
            weights, *others = staged.publish(stale=[*old, index, *earlier] if earlier else old)
            return (*reversed(others), weights)
        places: dict[str, str] = {}
        for number, shard in enumerate(shards, 1):
            name = f"{_stem(path)}-{number:05}-of-{len(shards):05}.safetensors"
            _write_file(shard, staged, target=path.with_name(name))
            places.update(dict.fromkeys(shard, name))
        document = {
            "metadata": {"kerasport": _INDEX_VERSION, "total_size": state.nbytes},
            "weight_map": places,
        }
        staged.open(index).write(json.dumps(document, indent=2).encode() + b"\n")
        *files, pointer = staged.publish(stale=[path, *earlier])
        return (pointer, *files)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".safetensors")


def _shards(state: StateDict, limit: int) -> Iterator[StateDict]:
    """The tensors in model order, dealt to shards of at most `limit` bytes."""
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in state.items():
        if shard and size + tensor.nbytes > limit:
            yield replace(state, tensors=shard)
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield replace(state, tensors=shard)


def _earlier_shards(index: Path) -> list[Path]:
    """The shards of an earlier write that this one replaces.

    Only those that an index of ours names, in its own folder: nobody else's file is removed.
    """
    try:
        document = json.loads(index.read_bytes())
        if "kerasport" not in document["metadata"]:
            return []
        names = sorted(set(document["weight_map"].values()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    start = f"{_stem(Path(index.name.removesuffix('.index.json')))}-"
    return [
        index.with_name(name)
        for name in names
        if name.startswith(start) and Path(name).name == name and name.endswith(".safetensors")
    ]


def _write_file(state: StateDict, staged: Staging, *, target: Path) -> None:
    spans = list(_spans(state))
    size = len(_header(state, spans, hashes=None))
    if size > HEADER_LIMIT:
        raise UnsupportedError(
            f"{target}: expected a header of at most {HEADER_LIMIT:,} bytes, found {size:,} for "
            f"{len(state):,} tensors. Write shards with --max-shard-size, or Parquet"
        )
    with staged.flow(target, state.values(), start=8 + size) as flow:
        for tensor, _ in spans:
            flow.values(tensor)
    header = struct.pack("<Q", size) + _header(state, spans, hashes=flow.hashes)
    flow.patch(0, header)
    if staged.reopen(target).read(len(header)) != header:
        raise VerificationError(f"{target}: the header does not read back; nothing was changed")


def _spans(state: StateDict) -> Iterator[tuple[Tensor, int]]:
    """The tensors in the order of their values, with the offset of each."""
    offset = 0
    for tensor in sorted(state.values(), key=lambda tensor: -tensor.dtype.itemsize):
        yield tensor, offset
        offset += tensor.nbytes


def _header(
    state: StateDict, spans: Iterable[tuple[Tensor, int]], *, hashes: Mapping[str, str] | None
) -> bytes:
    metadata = {"kerasport": manifest.text(state, hashes)}
    if state.convention == "torch":
        metadata = {"format": "pt", **metadata}
    header: dict[str, Any] = {_RESERVED: metadata}
    for tensor, start in spans:
        header[tensor.name] = {
            "dtype": DTYPES[dtype_name(tensor.dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [start, start + tensor.nbytes],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * staging.pad(len(text), 8)
