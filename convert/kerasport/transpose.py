"""From one convention to another: a plan that can be read before a byte is moved.

`plan` looks at names, sentences and sizes alone. Each `Move` says which target tensor is made of
which source tensors; that its copies exist is checked by deriving them. `Plan.apply` turns moves
into lazy tensors: the bytes flow when a writer asks for them, slab by slab, from the mapped source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasport import tiles
from kerasport.conventions import Absent, Row, Slot, convention, rows
from kerasport.conventions.torch_modules import EXTRA
from kerasport.errors import UnsupportedError, UsageError
from kerasport.flatten import Order, flattened
from kerasport.hints import hints
from kerasport.layout import Layout, Part, derive
from kerasport.model import (
    DTYPES,
    VERBATIM,
    Layer,
    Note,
    Omission,
    Report,
    Snapshot,
    Source,
    StateDict,
    Tensor,
    dtype_name,
    dtype_named,
    note_json,
)
from kerasport.names import module_names
from kerasport.version import VERSION

__all__ = ["Move", "Plan", "moved", "plan"]

Array = npt.NDArray[Any]
# What values may be cast to: a cast to whole numbers would leave nothing of most weights.
FLOATS = tuple(name for name in DTYPES if name.startswith(("bf", "f")))


@dataclass(frozen=True, eq=False, slots=True)
class Move:
    """One target tensor, and what it is made of.

    Attributes:
        name: its name in the target.
        dtype: its dtype in the target.
        shape: its shape in the target.
        layout: its sentence; None where the source is passed on as it is.
        at: the block labels at which it is pinned.
        role: the weight that it is to its layer.
        layer: the path of that layer.
        kind: the kind of that layer.
        sources: the source tensors that it is made of, none where it is synthesised.
        sizes: the size of every axis.
        fill: the value of what no source holds.
        trainable: None where the source does not say.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    layout: Layout | None
    at: frozenset[str]
    role: str
    layer: str
    kind: str | None
    sources: tuple[Tensor, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    fill: float | None = None
    trainable: bool | None = None

    @property
    def spec(self) -> str:
        """Dtype and shape: `f32[2,7,3,5]`."""
        return self.tensor().spec

    def copies(self) -> tuple[list[tiles.Copy], list[str]]:
        """What goes where, and the pieces that no source holds."""
        if self.layout is None:
            (source,) = self.sources
            return [tiles.Copy.of(0, [(source.size, 1, 1)])], []
        parts = [Part(s.layout, s.at) for s in self.sources if s.layout is not None]
        return derive(parts, Part(self.layout, self.at), self.sizes)

    def tensor(self) -> Tensor:
        """The target tensor, whose bytes are put together when they are asked for."""
        return Tensor(
            self.name,
            self.dtype,
            self.shape,
            self._load,
            self.layout,
            self.at,
            self.role,
            self.trainable,
            fill=None if self._as_stored else self._fill,
        )

    @property
    def _as_stored(self) -> bool:
        """True where the target's bytes are one source's bytes, in order."""
        if len(self.sources) != 1 or self.sources[0].dtype != self.dtype:
            return False
        copies, missing = self.copies()
        if missing or len(copies) != 1 or not copies[0].contiguous:
            return False
        return copies[0].elements == self.sources[0].size

    def _load(self) -> Array:
        if self._as_stored:
            return self.sources[0].load()
        out = np.empty(self.tensor().size, self.dtype)
        self._fill(0, out.size, out)
        return out

    def _fill(self, start: int, stop: int, out: Array) -> None:
        copies, missing = self.copies()
        if missing or not self.sources:
            out[...] = np.asarray(self.fill or 0).astype(self.dtype)
        if not self.sources:
            return
        flats = [source.flat() for source in self.sources]
        if flats[0].dtype == self.dtype:
            tiles.fill(out, tiles.clipped(copies, start, stop), flats)
            return
        held = np.full(out.shape, self.fill or 0, flats[0].dtype)
        tiles.fill(held, tiles.clipped(copies, start, stop), flats)
        with np.errstate(all="ignore"):
            out[...] = held.astype(self.dtype)
        overflown = np.isfinite(held) & ~np.isfinite(out)
        if overflown.any():
            value = held[np.flatnonzero(overflown)[0]]
            raise UnsupportedError(
                f"{self.name}: {value} is too large for {dtype_name(self.dtype)}; cast to a dtype "
                "of greater range, such as bf16, or leave out --dtype"
            )


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """Every move of a conversion, what it will note, and what stands in its way. A value.

    Attributes:
        convention: the target's convention.
        source: where the snapshot came from.
        moves: the target's tensors, in model order.
        layers: for each layer its class, kind and module hints.
        notes: what the conversion does beyond moving values.
        omitted: source tensors that are left out.
        problems: what the target cannot hold; a strict conversion refuses to start.
        architecture: the model's configuration, which a target in Keras layout carries along, so
            that it can be converted again as the model's own file can.
    """

    convention: str
    source: Source
    moves: tuple[Move, ...]
    layers: Mapping[str, Mapping[str, Any]]
    notes: tuple[Note, ...]
    omitted: tuple[Omission, ...]
    problems: tuple[str, ...] = ()
    architecture: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        """One line a tensor: what it becomes, and what it is made of."""
        lines: list[tuple[str, ...]] = []
        for move in self.moves:
            target = (move.name, move.spec, str(move.layout or ""))
            origins = [(s.name, s.spec, str(s.layout or "")) for s in move.sources]
            if not origins or move.copies()[1]:
                origins.append((f"{move.fill:g}" if move.fill is not None else "0", "", ""))
            lines.append((*target, "←", *origins[0]))
            lines.extend(("", "", "", "+", *origin) for origin in origins[1:])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    def refuse_losses(self) -> None:
        """Raise what stands in the way of an exact conversion.

        Raises:
            UnsupportedError: with every problem once, sorted.
        """
        if self.problems:
            raise UnsupportedError(
                f"{self.source.file} cannot be written as {self.convention} without loss:",
                self.problems,
            )

    def apply(self, *, dtype: str | None = None) -> StateDict:
        """The target's tensors; nothing is read until their bytes are asked for.

        Args:
            dtype: cast floating-point tensors to this dtype (`f16`, `bf16`, …).

        Raises:
            UsageError: it is no floating-point dtype.
        """
        if dtype and dtype not in FLOATS:
            raise UsageError(f"dtype {dtype!r}: expected one of {', '.join(FLOATS)}")
        cast = dtype_named(dtype) if dtype else None
        moves = [_cast(move, cast) for move in self.moves]
        notes = [*self.notes, *_cast_notes(self.moves, moves)]
        return StateDict(
            self.convention,
            {move.name: move.tensor() for move in moves},
            self._manifest(moves, notes),
        )

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON data; its contract is `schemas/plan.v1.schema.json`."""
        manifest = self._manifest(self.moves, self.notes)
        keep = ("schema_version", "convention", "layers", "notes", "omitted")
        return {
            **{key: manifest[key] for key in keep},
            "source": {key: manifest["source"][key] for key in ("file", "format")},
            "moves": [{"name": name, **entry} for name, entry in manifest["tensors"].items()],
            "problems": list(self.problems),
        }

    def _manifest(self, moves: Sequence[Move], notes: Iterable[Note]) -> dict[str, Any]:
        return {
            "schema_version": "1.0",
            "producer": {"name": "kerasport", "version": VERSION},
            "hash_algorithm": "blake3",
            "convention": self.convention,
            "source": {
                "file": self.source.file,
                "format": self.source.format,
                "keras_version": self.source.keras_version,
                "backend": self.source.backend,
                "bytes": self.source.nbytes,
                "hash": None,
            },
            "layers": dict(self.layers),
            "tensors": {move.name: _entry(move) for move in moves},
            "notes": [note_json(note) for note in notes],
            "omitted": [{"name": o.tensor.name, "reason": o.reason} for o in self.omitted],
            **({} if self.architecture is None else {"architecture": self.architecture}),
        }

    def report(self, state: StateDict, target: str) -> Report:
        """The ledger of the conversion into `target`."""
        placed = {source.name for move in self.moves for source in move.sources}
        notes = tuple(Note(**note) for note in state.manifest["notes"])
        return Report(
            "convert",
            self.source.file,
            target,
            self.convention,
            len(placed),
            len(state),
            sum(tensor.size for tensor in state.values()),
            state.nbytes,
            notes,
            tuple((o.tensor.name, o.reason) for o in self.omitted),
        )


def _entry(move: Move) -> dict[str, Any]:
    return {
        "dtype": dtype_name(move.dtype),
        "shape": list(move.shape),
        "layout": None if move.layout is None else str(move.layout),
        "at": sorted(move.at),
        "layer": move.layer,
        "role": move.role,
        "kind": move.kind,
        "trainable": move.trainable,
        "fill": move.fill,
        "sizes": dict(move.sizes),
        "sources": [
            {
                "name": source.name,
                "stored": source.stored,
                "role": source.role,
                "layout": None if source.layout is None else str(source.layout),
                "at": sorted(source.at),
                "dtype": dtype_name(source.dtype),
                "shape": list(source.shape),
            }
            for source in move.sources
        ],
    }


# --------------------------------------------------------------------------------------- planning


def plan(
    snapshot: Snapshot,
    *,
    to: str,
    flatten: str = "reorder",
    strict: bool = True,
    module: bool = False,
) -> Plan:
    """How the snapshot becomes a state dict of another convention. Pure: reads no tensor.

    Args:
        snapshot: what `kerasport.read` gave.
        to: `keras`, `torch` or `onnx`.
        flatten: `reorder` puts the rows of a Dense kernel behind a Flatten in the order in which
            the target flattens, channels first; `keep` leaves them.
        strict: what the target cannot hold is a problem; otherwise such a layer is passed on as
            stored, and a note says so.
        module: a generated `model.py` will hold the weights, which has modules that `torch.nn`
            has not.

    Returns:
        The plan; its `problems` say what the target cannot hold.

    Raises:
        UsageError: there is no such convention.
        UnsupportedError: the snapshot is a state dict of another convention than Keras's.
    """
    table = {**convention(to), **(EXTRA if module else {})}
    if snapshot.convention not in ("keras", "unknown"):
        raise UnsupportedError(
            f"{snapshot.source.file} is in {snapshot.convention} layout, and conversions start "
            "from Keras layout: convert the model that it was made from, or an archive of it that "
            "was written with --to keras"
        )
    names = _module_names(snapshot) if to == "torch" else {path: path for path in snapshot}
    moves: list[Move] = []
    notes: list[Note] = []
    problems: list[str] = []
    orders: Mapping[str, Mapping[str, Order]] = {}
    if flatten == "reorder" and to != "keras":
        seen = flattened(snapshot)
        orders = seen.orders
        notes.extend(seen.notes)
    for layer in snapshot.layers:
        name = names[layer.path]
        if to == "torch" and name != layer.path.replace("/", "."):
            message = f"is named {name}, since PyTorch cannot hold its own name"
            notes.append(Note("renamed", layer.path, message))
        if to == "keras" or layer.kind == VERBATIM:
            moves.extend(_verbatim(layer, None if to == "keras" else name))
            if layer.kind == VERBATIM:
                notes.append(Note("kept", layer.path, "passed on as stored, as asked for"))
            continue
        try:
            made, said = moved(layer, table, name, orders.get(layer.path))
        except UnsupportedError as error:
            if strict:
                problems.append(f"{layer.path}: {error}")
                continue
            made = list(_verbatim(layer, name))
            said = [Note("kept", layer.path, f"passed on as stored: {error}", loss=True)]
        moves.extend(made)
        notes.extend(said)
    notes.extend(_inference_notes(snapshot))
    problems.extend(_collisions(moves))
    advice = hints(snapshot, to=to)
    return Plan(
        to,
        snapshot.source,
        tuple(moves),
        {
            layer.path: {
                "class": layer.class_name,
                "kind": layer.kind,
                "inferred": layer.inferred,
                "hints": advice[layer.path],
                "words": dict(layer.words),
            }
            for layer in snapshot.layers
        },
        tuple(notes),
        snapshot.omitted,
        tuple(sorted(set(problems))),
        snapshot.architecture if to == "keras" else None,
    )


def moved(
    layer: Layer,
    table: Mapping[str, Row],
    module: str = "",
    order: Mapping[str, Order] | None = None,
) -> tuple[list[Move], list[Note]]:
    """The moves of one layer; everything it holds must find its place.

    Args:
        layer: an identified layer.
        table: the target's convention.
        module: what the target calls the layer.
        order: its axes that are made of flattened images.

    Raises:
        UnsupportedError: the target cannot hold the layer, or would lose a part of it.
    """
    if layer.kind is None:
        stored = ", ".join(f"{role} {tensor.spec}" for role, tensor in layer.weights.items())
        raise UnsupportedError(f"{layer.note or 'unknown kind'} (stored: {stored})")
    case = next(case for case in rows(table[layer.kind]) if case.holds(layer.sizes))
    if isinstance(case.slots, Absent):
        raise UnsupportedError(f"{layer.kind}: {case.slots.reason}")
    same = case.same
    order = order or {}
    sizes = {same.get(axis, axis): size for axis, size in layer.sizes.items()}
    for axis in order.values():
        sizes |= axis.sizes
    before = {**same, **{axis: order[axis].source for axis in order}}
    after = {axis: order[axis].target for axis in order}
    held = _by_weight(layer, before)
    moves: list[Move] = []
    notes: list[Note] = []
    placed = dict.fromkeys((t.name for tensors in held.values() for t in tensors), 0)
    for slot in case.slots:
        needs = (slot.of,) if slot.needs is None else slot.needs
        if needs and not any(weight in held for weight in needs):
            continue
        tensors = held.get(slot.of, [])
        layout = Layout.parse(slot.layout.format_map(layer.words)).rename(after)
        at = slot.pins
        parts = [Part(t.layout, t.at) for t in tensors if t.layout is not None]
        copies, missing = derive(parts, Part(layout, at), sizes)
        if missing and slot.fill is None:
            raise UnsupportedError(f"{slot.name}: the source has no {', '.join(missing)}")
        used = sorted({copy.source for copy in copies})
        sources = tuple(tensors[number] for number in used)
        for copy in copies:
            placed[tensors[copy.source].name] += copy.elements
        move = Move(
            f"{module}.{slot.name}" if module else slot.name,
            _dtype(slot, sources, layer),
            layout.shape(sizes),
            layout,
            at,
            slot.of,
            layer.path,
            layer.kind,
            sources,
            {axis: sizes[axis] for axis in _axes(layout, sources)},
            slot.fill if missing else None,
            sources[0].trainable if sources else slot.trainable,
        )
        moves.append(move)
        notes.extend(_move_notes(move, missing, order))
    lost = sorted(t.name for ts in held.values() for t in ts if placed[t.name] != t.size)
    if lost:
        raise UnsupportedError(f"{', '.join(lost)} would be lost; no tensor of the target holds it")
    return moves, notes


def _by_weight(layer: Layer, renamed: Mapping[str, str]) -> dict[str, list[Tensor]]:
    """The layer's tensors by the weight that they are parts of."""
    cases = [case.slots for case in rows(convention(layer.convention)[layer.kind or ""])]
    weights = {s.name: s.of for slots in cases if isinstance(slots, tuple) for s in slots}
    held: dict[str, list[Tensor]] = {}
    for role, tensor in layer.weights.items():
        assert tensor.layout is not None, "identified layers have layouts"
        tensor = replace(tensor, layout=tensor.layout.rename(renamed))
        held.setdefault(weights[role], []).append(tensor)
    return held


def _axes(layout: Layout, sources: Iterable[Tensor]) -> list[str]:
    layouts = [layout, *(source.layout for source in sources if source.layout is not None)]
    return list(dict.fromkeys(axis for x in layouts for axis in x.axes))


def _dtype(slot: Slot, sources: Sequence[Tensor], layer: Layer) -> np.dtype[Any]:
    if slot.dtype:
        return dtype_named(slot.dtype)
    found = {tensor.dtype for tensor in sources}
    if len(found) > 1:
        names = ", ".join(sorted(map(dtype_name, found)))
        raise UnsupportedError(f"{slot.name}: expected parts of one dtype, found {names}")
    return found.pop() if found else next(iter(layer.weights.values())).dtype


def _move_notes(move: Move, missing: Sequence[str], order: Mapping[str, Order]) -> Iterator[Note]:
    if missing:
        where = f" at {', '.join(missing)}" if move.sources else ""
        message = f"filled with {move.fill:g}{where}, which the source does not store"
        yield Note("synthesised", move.name, message)
    if len(move.sources) > 1:
        names = ", ".join(source.name for source in move.sources)
        yield Note("joined", move.name, f"is made of {names}")
    for axis, change in order.items():
        if any(change.source in str(source.layout) for source in move.sources):
            yield Note(
                "reordered",
                move.name,
                f"{axis} goes from {change.source} to {change.target}, as the target flattens an "
                "image; --flatten keep leaves it",
            )


def _verbatim(layer: Layer, module: str | None) -> Iterator[Move]:
    for role, tensor in layer.weights.items():
        yield Move(
            tensor.name if module is None else f"{module}.{role.replace('/', '.')}",
            tensor.dtype,
            tensor.shape,
            tensor.layout,
            tensor.at,
            role,
            layer.path,
            layer.kind,
            (tensor,),
            layer.sizes,
            trainable=tensor.trainable,
        )


def _inference_notes(snapshot: Snapshot) -> Iterator[Note]:
    for layer in snapshot.layers:
        if layer.inferred:
            message = f"the file names no class; its weights fit {layer.kind} alone"
            yield Note("inferred", layer.path, message)


def _collisions(moves: Sequence[Move]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for move in moves:
        if move.name in seen:
            yield f"{move.name}: both {seen[move.name]} and {move.layer} have this name"
        seen[move.name] = move.layer


def _cast(move: Move, dtype: np.dtype[Any] | None) -> Move:
    if dtype is None or move.dtype == dtype or not _is_float(move.dtype):
        return move
    return replace(move, dtype=dtype)


def _cast_notes(before: Sequence[Move], after: Sequence[Move]) -> Iterator[Note]:
    for old, new in zip(before, after, strict=True):
        if old.dtype != new.dtype:
            change = f"{dtype_name(old.dtype)} to {dtype_name(new.dtype)}"
            yield Note("cast", new.name, f"cast from {change}, as asked for")


def _is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or dtype_name(dtype).startswith(("bf", "f8"))


def _module_names(snapshot: Snapshot) -> dict[str, str]:
    """Layer paths as paths of PyTorch submodules."""
    names = module_names(snapshot)
    steps = {path: path.split("/") for path in snapshot}
    return {
        path: ".".join(names["/".join(words[: n + 1])] for n in range(len(words)))
        for path, words in steps.items()
    }
