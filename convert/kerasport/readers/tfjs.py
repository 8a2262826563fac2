"""TensorFlow.js models: a `model.json` with the weights in shards beside it, quantized or not.

The manifest lists weights in groups; the bytes of a group lie end to end and were then cut into
shards, so a weight may begin in one file and end in another. Quantized weights are whole numbers
with a scale and an offset. TensorFlow.js knows them only as the floats that it computes from these
when it loads them, and so they are those floats here, computed the same way.

Names are Keras's own (`dense/kernel`), or paths of Keras 3 (`layers/dense/vars/0`), whichever file
the model was converted from. A graph model has names alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasport.architecture import Graph, config_of, parse
from kerasport.errors import MalformedError, UnknownFormatError, UnsupportedError, UsageError
from kerasport.model import Snapshot, Source, Tensor
from kerasport.readers.documents import begins, document, file_bytes, plain_name
from kerasport.readers.mapped import Region, buffer, mapped
from kerasport.readers.naming import Stored, named, numbered
from kerasport.readers.stored import Group

__all__ = ["matches", "read"]

Array = npt.NDArray[Any]
MODEL: Final = "model.json"
DTYPES: Final = ("bool", "complex64", "float32", "int32", "uint8")
QUANTIZED: Final[Mapping[str, tuple[str, ...]]] = {
    "float16": ("float32",),
    "uint8": ("float32", "int32"),
    "uint16": ("float32", "int32"),
}


def matches(path: Path) -> bool:
    """Whether a path is a model of TensorFlow.js, or a folder with one.

    Args:
        path: the file or folder.
    """
    head = begins(path / MODEL if path.is_dir() else path)
    return head.lstrip()[:1] == b"{" and (
        b'"modelTopology"' in head or b'"weightsManifest"' in head
    )


def read(
    path: Path,
    *,
    architecture: Mapping[str, Any] | None = None,
    assume_dtype: np.dtype[Any] | None = None,
) -> Snapshot:
    """The layers of a TensorFlow.js model.

    Args:
        path: the file `model.json`, or the folder that it is in.
        architecture: a configuration to use instead of the model's own.
        assume_dtype: not needed, since the manifest says what values are.

    Raises:
        UsageError: there is no such file, or the given architecture does not fit it.
        UnknownFormatError: it is no model of TensorFlow.js.
        MalformedError: it is broken or hostile, or a shard is missing.
        UnsupportedError: it holds texts among its weights.
    """
    index = path / MODEL if path.is_dir() else path
    text = file_bytes(index)
    if not matches(path):
        raise UnknownFormatError(f"{path}: expected a model of TensorFlow.js")
    model = document(text, index.name)
    given = architecture is not None
    topology = model.get("modelTopology")
    topology = topology if isinstance(topology, dict) else {}
    own = topology.get("model_config", topology)
    if architecture is None and isinstance(own, dict) and "class_name" in own:
        architecture = config_of(json.dumps(own), f"{index.name}: modelTopology")
    graph = parse(architecture) if architecture is not None else None
    shards = _Shards(index)
    tensors = list(_weights(model.get("weightsManifest"), shards))
    stored = _layers(tensors, graph, given=given, name=graph.name if graph else path.stem)
    version = topology.get("keras_version")
    regions = shards.all()
    return Snapshot(
        Source(
            path.name,
            "tfjs",
            keras_version=version if isinstance(version, str) else None,
            backend=None,
            nbytes=sum(region.size for region in regions),
            content=lambda: (piece for region in regions for piece in region.content()),
        ),
        tuple(stored.layers),
        tuple(stored.omitted),
        architecture,
    )


def _layers(
    tensors: Sequence[tuple[str, Tensor]], graph: Graph | None, *, given: bool, name: str
) -> Stored:
    if tensors and all("vars" in key.split("/")[:-1] for key, _ in tensors):
        root = Group("", ordered=True)
        for key, tensor in tensors:
            *path, last = key.split("/")
            group = root
            for word in path:
                group = group.groups.setdefault(word, Group(f"{group.path}/{word}".lstrip("/")))
            group.tensors[last] = tensor
        return numbered(root, graph, name=name, given=given)
    names = {node.name for node in graph.nodes} if graph else set()
    groups: dict[str, list[tuple[str, Tensor]]] = {}
    for key, tensor in tensors:
        words = key.split("/")
        layer = next((word for word in words[:-1] if word in names), words[0])
        groups.setdefault(layer, []).append((key, tensor))
    return named(list(groups.items()), graph, given=given, ordered=True)


@dataclass(slots=True)
class _Shards:
    """The files that lie beside a model, mapped when they are first asked for."""

    index: Path
    found: dict[str, Region]

    def __init__(self, index: Path) -> None:
        self.index = index
        self.found = {index.name: mapped(index)}

    def __call__(self, name: str) -> Region:
        if name not in self.found:
            try:
                self.found[name] = mapped(self.index.with_name(name))
            except (UsageError, UnknownFormatError):
                raise MalformedError(
                    f"{self.index.name}: lists the shard {name!r}, which is not there or empty. "
                    "Are all parts downloaded?"
                ) from None
        return self.found[name]

    def all(self) -> list[Region]:
        return [self.found[name] for name in sorted(self.found)]


def _weights(manifest: Any, shards: _Shards) -> Iterator[tuple[str, Tensor]]:
    where = shards.index.name
    if not isinstance(manifest, list):
        raise MalformedError(f"{where}: expected a weightsManifest, a list of groups of weights")
    seen: set[str] = set()
    for group in manifest:
        paths = group.get("paths") if isinstance(group, dict) else None
        weights = group.get("weights") if isinstance(group, dict) else None
        if not isinstance(paths, list) or not isinstance(weights, list):
            raise MalformedError(f"{where}: expected a group with paths and weights")
        parts = [shards(plain_name(name, where)) for name in paths]
        held = sum(part.size for part in parts)
        offset = 0
        for entry in weights:
            weight = _Weight.of(entry, where)
            if weight.name in seen:
                raise MalformedError(f"{where}: lists the weight {weight.name!r} twice")
            seen.add(weight.name)
            if offset + weight.size > held:
                raise MalformedError(
                    f"{where}: {weight.name}: announces {weight.size} bytes at {offset}, and its "
                    f"group stores {held}"
                )
            yield weight.name, weight.tensor(parts, offset)
            offset += weight.size
        if offset != held:
            raise MalformedError(f"{where}: a group of {held} bytes, of which {offset} are listed")


@dataclass(frozen=True, slots=True)
class _Weight:
    """One entry of the manifest."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    kept: np.dtype[Any]
    scale: float
    least: float

    @classmethod
    def of(cls, entry: Any, where: str) -> _Weight:
        entry = entry if isinstance(entry, dict) else {}
        name, shape, dtype = (entry.get(key) for key in ("name", "shape", "dtype"))
        if not isinstance(name, str) or not name.strip("/"):
            raise MalformedError(f"{where}: expected a weight with a name")
        if not isinstance(shape, list) or not all(
            type(n) is int and 0 <= n < 1 << 48 for n in shape
        ):
            raise MalformedError(f"{where}: {name}: expected a shape, found {str(shape)[:100]}")
        if dtype == "string":
            raise UnsupportedError(f"{where}: {name}: holds texts, which no tensor format holds")
        how = entry.get("quantization")
        how = how if isinstance(how, dict) else {}
        kept = how.get("dtype", dtype)
        if dtype not in DTYPES or (kept != dtype and dtype not in QUANTIZED.get(str(kept), ())):
            raise MalformedError(
                f"{where}: {name}: expected one of {', '.join(DTYPES)}, found {str(dtype)[:50]} "
                f"kept as {str(kept)[:50]}"
            )
        affine = bool(how) and str(kept).startswith("uint")
        numbers = [how.get(key) for key in ("scale", "min")] if affine else [1.0, 0.0]
        if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
            raise MalformedError(f"{where}: {name}: expected a scale and a min that are numbers")
        scale, least = (float(n or 0) for n in numbers)
        return cls(name, tuple(shape), np.dtype(dtype), np.dtype(str(kept)), scale, least)

    @property
    def size(self) -> int:
        """How many bytes it takes in its group."""
        return math.prod(self.shape) * self.kept.itemsize

    def tensor(self, parts: Sequence[Region], offset: int) -> Tensor:
        return Tensor(
            self.name, self.dtype, self.shape, self.loading(parts, offset), stored=self.name
        )

    def loading(self, parts: Sequence[Region], offset: int) -> Callable[[], Array]:
        def load() -> Array:
            kept = _gathered(parts, offset, self.size).view(self.kept.newbyteorder("<"))
            if self.kept == self.dtype:
                return kept.reshape(self.shape)
            if self.kept.kind == "f":
                return kept.astype(self.dtype).reshape(self.shape)
            values = kept.astype(np.float64) * self.scale + self.least
            values = np.round(values) if self.dtype.kind == "i" else values
            return values.astype(self.dtype).reshape(self.shape)

        return load


def _gathered(parts: Sequence[Region], offset: int, size: int) -> Array:
    """Bytes of a group: a view if they lie in one shard, put together if not."""
    pieces: list[Array] = []
    start = 0
    for part in parts:
        first, last = max(offset - start, 0), min(offset + size - start, part.size)
        if first < last:
            pieces.append(part.array(first, dtype=np.dtype(np.uint8), count=last - first))
        start += part.size
    if len(pieces) == 1:
        return pieces[0]
    whole = buffer(size)
    place = 0
    for piece in pieces:
        whole[place : place + piece.size] = piece
        place += piece.size
    return whole
