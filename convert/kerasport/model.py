"""What a model's weights are, whatever file they came from and wherever they go.

A `Tensor` is cheap to look at and lazy to read: name, dtype and shape are there, the bytes are
fetched when asked for. A `Snapshot` holds the layers of one source at one moment, a `StateDict`
the flat tensors of one convention. Nothing here knows a file format, and nothing can be changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from kerasport.errors import MalformedError, UnknownNameError
from kerasport.layout import Layout

__all__ = [
    "Layer",
    "Named",
    "Note",
    "Omission",
    "Report",
    "Snapshot",
    "Source",
    "StateDict",
    "Tensor",
    "dtype_name",
    "dtype_named",
]

Array = npt.NDArray[Any]
JSON = Any
SLAB: Final = 8 << 20
# The kind of tensors that are passed on as they are, under every convention.
VERBATIM: Final = "verbatim"
# Why a tensor is left out that somebody asked to leave out.
EXCLUDED: Final = "excluded on request"
# Why one is left out whose values add nothing.
ZERO: Final = "is zero everywhere, and the target has no such bias"

_SHORT: Final[Mapping[str, str]] = {
    "bool": "bool",
    **{
        f"{sign}int{bits}": f"{sign or 'i'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
    },
    "int4": "i4",
    "uint4": "u4",
    **{f"float{bits}": f"f{bits}" for bits in (16, 32, 64)},
    "complex64": "c64",
    "complex128": "c128",
    "bfloat16": "bf16",
    "float8_e4m3fn": "f8_e4m3fn",
    "float8_e5m2": "f8_e5m2",
}
_LONG: Final[Mapping[str, str]] = {short: name for name, short in _SHORT.items()}
DTYPES: Final = tuple(sorted(_LONG))


@cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """The short name of a dtype: `f32`, `bf16`, `i64`, `bool`.

    >>> dtype_name(np.dtype("float32"))
    'f32'
    """
    try:
        return _SHORT[dtype.name]
    except KeyError:
        raise MalformedError(
            f"dtype {dtype}: expected one of {', '.join(DTYPES)}; no tensor format holds it"
        ) from None


def dtype_named(name: str) -> np.dtype[Any]:
    """The dtype of a short name; the inverse of `dtype_name`.

    Types beyond NumPy's own (bfloat16, float8, int4) are ml_dtypes', loaded when first asked for.

    >>> dtype_named("f16")
    dtype('float16')
    """
    try:
        long = _LONG[name]
    except KeyError:
        raise MalformedError(f"dtype {name!r}: expected one of {', '.join(DTYPES)}") from None
    if long in ("bfloat16", "int4", "uint4") or long.startswith("float8"):
        import ml_dtypes

        beyond: np.dtype[Any] = np.dtype(getattr(ml_dtypes, long))
        return beyond
    return np.dtype(long)


class Named(dict[str, "Tensor"]):
    """Tensors by name, whose `KeyError` names the nearest ones.

    >>> Named("role", {"kernel": Tensor.of("kernel", np.ones(3, np.float32))})["kernal"]
    Traceback (most recent call last):
        ...
    kerasport.errors.UnknownNameError: no role 'kernal'; the nearest: 'kernel'
    """

    def __init__(self, what: str, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors)
        self._what = what

    def __missing__(self, name: str) -> Tensor:
        raise UnknownNameError.of(self._what, name, list(self))


@dataclass(frozen=True, eq=False, slots=True)
class Tensor:
    """One array of a model: what it is, and where its bytes are.

    Attributes:
        name: its full name in the source or target, for example `conv1/kernel` or `conv1.weight`.
        dtype: as stored; bfloat16 and float8 are ml_dtypes'.
        shape: extents, one a dimension.
        load: gives the values; called anew by every reading, and by nothing else.
        layout: what each dimension is, where that is known.
        at: the block labels at which it is pinned, for one of several tensors of one weight.
        role: what it is to its layer, for example `kernel`.
        trainable: None where the source does not say.
        axes: a phrase an axis, for people.
        stored: where the source keeps it, where that differs from `name`.
        fill: writes elements `start` to `stop` into a buffer, for tensors that are put together
            slab by slab; None where `load` is cheap because the bytes are mapped.
        watch: is told the size in bytes of each slab that has been used.
        same_as: where the source keeps the tensor that is this very one under its first name; empty
            where this is the first.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    load: Callable[[], Array]
    layout: Layout | None = None
    at: frozenset[str] = frozenset()
    role: str = ""
    trainable: bool | None = None
    axes: Mapping[str, str] = field(default_factory=dict)
    stored: str = ""
    fill: Callable[[int, int, Array], None] | None = None
    watch: Callable[[int], None] | None = None
    same_as: str = ""

    @classmethod
    def of(cls, name: str, array: Array, **fields: Any) -> Tensor:
        """A tensor of an array in memory, which must not be changed afterwards.

        >>> Tensor.of("scale", np.ones(3, np.float32)).spec
        'f32[3]'
        """
        return cls(name, array.dtype, array.shape, lambda: array, **fields)

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes its elements take."""
        return self.size * self.dtype.itemsize

    @property
    def spec(self) -> str:
        """Dtype and shape as they are written everywhere: `f32[2,7,3,5]`."""
        return f"{dtype_name(self.dtype)}[{','.join(map(str, self.shape))}]"

    def numpy(self) -> Array:
        """The values, read-only; a view of the mapped file where the file allows it."""
        array = self.load().reshape(self.shape).view()
        array.flags.writeable = False
        return array

    def flat(self) -> Array:
        """The values in C order as one contiguous axis, for reading; a view where that is free."""
        return np.ascontiguousarray(self.load()).reshape(-1)

    def slabs(self, limit: int = SLAB) -> Iterator[Array]:
        """The values in C order, as arrays of one dimension and at most `limit` bytes.

        The arrays are for reading, and each is valid until the next one is asked for.

        >>> [len(s) for s in Tensor.of("t", np.zeros((3, 5), np.float32)).slabs(32)]
        [8, 7]
        """
        for slab in self._slabs(max(1, limit // self.dtype.itemsize)):
            yield slab
            if self.watch is not None:
                self.watch(slab.nbytes)

    def _slabs(self, step: int) -> Iterator[Array]:
        if self.fill is None:
            flat = self.flat()
            for start in range(0, self.size, step):
                yield flat[start : start + step]
            return
        buffer = np.empty(min(step, self.size), self.dtype)
        for start in range(0, self.size, step):
            stop = min(start + step, self.size)
            self.fill(start, stop, buffer[: stop - start])
            yield buffer[: stop - start]

    def __repr__(self) -> str:
        """The tensor in one line, and a line for each axis that has a meaning."""
        if self.layout is None:
            return self.spec
        lines = [f"{self.spec}  {self.layout}".rstrip()]
        try:
            sizes = self.layout.bind(self.shape)
        except ValueError:
            sizes = {}
        width = max(map(len, sizes), default=0)
        for axis, size in sizes.items():
            phrase = self.axes.get(axis)
            lines.append(f"  {axis + ':':{width + 1}} {size} {phrase}".rstrip() if phrase else "")
        return "\n".join(line for line in lines if line)


@dataclass(frozen=True, eq=False, slots=True)
class Layer:
    """One layer that holds weights, as its source describes it.

    Attributes:
        path: the names of the layer and of the models around it, joined by `/`.
        class_name: the Keras class, or None where the source names none.
        kind: the row of the tables that it was recognised as, or None.
        config: the layer's Keras configuration; empty where the source has none.
        weights: its tensors by role, in the order of its class.
        inferred: True where the kind follows from roles and shapes alone.
        sizes: the size of every axis of its weights.
        words: layout words for the braces in the tables, where the configuration names the axes.
        convention: the convention of its roles and layouts: today's Keras, or an older one.
        note: why it was not recognised, where it was not.
        named_after: the class that the place in which its weights are stored is called after, where
            the format does so: the scopes of TensorFlow 1, the containers of Keras 3.
    """

    path: str
    class_name: str | None
    config: Mapping[str, JSON]
    weights: Mapping[str, Tensor]
    kind: str | None = None
    inferred: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    convention: str = "keras"
    note: str = ""
    named_after: str = ""

    @property
    def parameters(self) -> int:
        """How many numbers the layer holds."""
        return sum(tensor.size for tensor in self.weights.values())

    @property
    def nbytes(self) -> int:
        """How many bytes the layer's tensors take."""
        return sum(tensor.nbytes for tensor in self.weights.values())

    def __repr__(self) -> str:
        what = self.kind or self.class_name or "unknown kind"
        roles = (
            f"  {role}  {tensor.spec!s}  {tensor.layout or ''}".rstrip()
            for role, tensor in self.weights.items()
        )
        return "\n".join([f"{self.path}  {what}{' (inferred)' if self.inferred else ''}", *roles])


NoteKind = Literal[
    "averaged",
    "cast",
    "dequantized",
    "dropped",
    "equal",
    "inferred",
    "kept",
    "merged",
    "module",
    "renamed",
    "reordered",
    "split",
    "joined",
    "synthesised",
    "tied",
]
NOTE_KINDS: Final[tuple[str, ...]] = get_args(NoteKind)


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """Something that a conversion did beyond moving values, or will do.

    `loss` marks what cannot be undone from the target: a strict conversion refuses it.
    """

    kind: NoteKind
    subject: str
    message: str
    loss: bool = False

    def __str__(self) -> str:
        return f"{self.subject}: {self.message}"


@dataclass(frozen=True, eq=False, slots=True)
class Omission:
    """A source tensor that is not part of the model's weights, and why it was left out.

    Attributes:
        tensor: the tensor.
        reason: why it was left out.
        average_of: where the weight is stored whose moving average it is; empty where it is none.
    """

    tensor: Tensor
    reason: str
    average_of: str = ""

    def __str__(self) -> str:
        return f"{self.tensor.name}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a snapshot came from.

    Attributes:
        file: the file's name without its folder, or the class of a live model.
        format: the name of the format, a row of the table of formats.
        keras_version: as the file says, or None.
        backend: as the file says, or None.
        nbytes: the size of the file; 0 for a live model.
        content: yields the file's bytes for hashing; None for a live model.
        path: where the file is on this machine, so that no conversion overwrites its own source;
            it is written nowhere.
    """

    file: str
    format: str
    keras_version: str | None = None
    backend: str | None = None
    nbytes: int = 0
    content: Callable[[], Iterator[bytes | memoryview]] | None = field(default=None, compare=False)
    path: Path | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class Snapshot(Mapping[str, Layer]):
    """All layers of one source at one moment, in model order.

    A mapping from layer path to `Layer`. Layers without weights are not in it; the architecture
    knows them.

    Attributes:
        source: where it came from.
        layers: every layer that holds weights, in model order.
        omitted: stored tensors that are no weights of the model: optimizer slots, seeds, metrics.
        architecture: the model's Keras configuration, or None where the source has none.
        convention: whose names and layouts the tensors have; `unknown` where nothing says so.
        custom: descriptions of kinds that no table of ours has, by kind; see `kerasport.custom`.
        notes: what was done to its tensors since they were read.
        tables: vocabularies and the like, by the path of the layer that looks things up in them;
            see `kerasport.readers.lookups`.
    """

    source: Source
    layers: tuple[Layer, ...]
    omitted: tuple[Omission, ...] = ()
    architecture: Mapping[str, JSON] | None = None
    convention: str = "keras"
    custom: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    tables: Mapping[str, Mapping[str, JSON]] = field(default_factory=dict)

    @property
    def tensors(self) -> Iterator[Tensor]:
        """Every weight of every layer, in model order."""
        return (tensor for layer in self.layers for tensor in layer.weights.values())

    def without(self, omission: Callable[[Layer, Tensor], Omission | None]) -> Snapshot:
        """The same without some weights, and without the layers that hold no others.

        Args:
            omission: says of a layer and a weight of it how it is listed, behind those that are
                listed already; None for one that stays.
        """
        layers: list[Layer] = []
        omitted: list[Omission] = []
        for layer in self.layers:
            kept: dict[str, Tensor] = {}
            for role, tensor in layer.weights.items():
                left_out = omission(layer, tensor)
                if left_out is None:
                    kept[role] = tensor
                else:
                    omitted.append(left_out)
            if kept:
                layers.append(replace(layer, weights=Named("role", kept)))
        return replace(self, layers=tuple(layers), omitted=(*self.omitted, *omitted))

    def __getitem__(self, path: str) -> Layer:
        for layer in self.layers:
            if layer.path == path:
                return layer
        raise UnknownNameError.of("layer", path, list(self))

    def __contains__(self, path: object) -> bool:
        return any(layer.path == path for layer in self.layers)

    def __iter__(self) -> Iterator[str]:
        return (layer.path for layer in self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def to_json(self) -> dict[str, JSON]:
        """What `kerasport inspect --json` prints; its contract is `schemas/inspect.v1.schema.json`.

        A layer's `class` is null where the file names none, and its weights' `axes` are null where
        its kind is not known.
        """
        return {
            "schema_version": "1.0",
            "file": self.source.file,
            "format": self.source.format,
            "keras_version": self.source.keras_version,
            "layers": [
                {
                    "path": layer.path,
                    "class": layer.class_name,
                    "kind": layer.kind,
                    "inferred": layer.inferred,
                    "note": layer.note or None,
                    "weights": [
                        {
                            "role": role,
                            "name": tensor.name,
                            "axes": None
                            if tensor.layout is None
                            else list(map(str, tensor.layout.dims)),
                            "shape": list(tensor.shape),
                            "dtype": dtype_name(tensor.dtype),
                            "bytes": tensor.nbytes,
                            "trainable": tensor.trainable,
                            "stored": tensor.stored,
                        }
                        for role, tensor in layer.weights.items()
                    ],
                }
                for layer in self.layers
            ],
            "tables": {path: dict(table) for path, table in self.tables.items()},
            "omitted": [{"name": o.tensor.name, "reason": o.reason} for o in self.omitted],
            "totals": {
                "weights": sum(len(layer.weights) for layer in self.layers),
                "parameters": sum(layer.parameters for layer in self.layers),
                "bytes": sum(layer.nbytes for layer in self.layers),
            },
        }

    def __repr__(self) -> str:
        total = sum(layer.parameters for layer in self.layers)
        head = f"{self.source.file}  {self.source.format}  {total:,} parameters"
        return "\n".join([head, *map(repr, self.layers)])


@dataclass(frozen=True, eq=False)
class StateDict(Mapping[str, Tensor]):
    """The flat, ordered tensors of one convention, and what is to be known about them.

    Attributes:
        convention: the name of the convention whose names and layouts the tensors have.
        tensors: by name, in model order.
        manifest: the manifest without the content hashes, which a writer fills in.
        source_hash: gives the content hash of the source, which is taken while the tensors are
            written; asked for when they are. None where the manifest has it, or there is none.
    """

    convention: str
    tensors: Mapping[str, Tensor]
    manifest: Mapping[str, JSON] = field(default_factory=lambda: MappingProxyType({}))
    source_hash: Callable[[], str] | None = None

    @property
    def aliases(self) -> Mapping[str, str]:
        """Further names of its tensors → the name that each is listed under."""
        found: Mapping[str, str] = self.manifest.get("aliases", {})
        return found

    def __getitem__(self, name: str) -> Tensor:
        try:
            return self.tensors[name if name in self.tensors else self.aliases.get(name, name)]
        except KeyError:
            raise UnknownNameError.of("tensor", name, list(self)) from None

    def __contains__(self, name: object) -> bool:
        return name in self.tensors or self.aliases.get(str(name)) in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    @property
    def nbytes(self) -> int:
        """How many bytes all tensors take."""
        return sum(tensor.nbytes for tensor in self.values())


@dataclass(frozen=True, slots=True)
class Report:
    """The ledger of one conversion or verification: where every source tensor went.

    Attributes:
        action: `convert` or `verify`.
        source: the source's name.
        target: the target's name.
        convention: the target's convention.
        placed: how many source tensors the target holds.
        tensors: how many tensors the target has.
        parameters: how many numbers they hold.
        nbytes: how many bytes they take.
        notes: what was done beyond moving values.
        omitted: source tensors left out, as (name, reason).
        aliases: further names of tensors that are written once, each with the name it is under.
        problems: what the target cannot hold, where the conversion was refused for it.
    """

    action: Literal["convert", "verify"]
    source: str
    target: str
    convention: str
    placed: int
    tensors: int
    parameters: int
    nbytes: int
    notes: tuple[Note, ...] = ()
    omitted: tuple[tuple[str, str], ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, JSON]:
        """The report as JSON data; its contract is `schemas/report.v1.schema.json`."""
        return {
            "schema_version": "1.0",
            "action": self.action,
            "source": self.source,
            "target": self.target,
            "convention": self.convention,
            "placed": self.placed,
            "tensors": self.tensors,
            "parameters": self.parameters,
            "bytes": self.nbytes,
            "notes": [note_json(note) for note in self.notes],
            "omitted": [{"name": name, "reason": reason} for name, reason in self.omitted],
            "aliases": dict(self.aliases),
            "problems": list(self.problems),
        }


def note_json(note: Note) -> dict[str, JSON]:
    """A note as JSON data."""
    return {
        "kind": note.kind,
        "subject": note.subject,
        "message": note.message,
        "loss": note.loss,
    }
