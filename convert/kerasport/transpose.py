"""From one convention to another: a plan that can be read before a byte is moved.

`plan` looks at names, sentences and sizes alone. Each `Move` says which target tensor is made of
which source tensors; that its copies exist is checked by deriving them. `Plan.apply` turns moves
into lazy tensors: the bytes flow when a writer asks for them, slab by slab, from the mapped source.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasport import tiles
from kerasport.conventions import NAMES, Absent, Row, Slot, convention, rows
from kerasport.conventions.torch_modules import EXTRA
from kerasport.custom import LayerTable
from kerasport.errors import UnsupportedError, UsageError
from kerasport.flatten import Order, flattened
from kerasport.hints import hints
from kerasport.kinds import FORGET_BIAS
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
from kerasport.templates import advice_for
from kerasport.ties import second_places
from kerasport.version import VERSION

__all__ = ["Move", "Plan", "move_notes", "moved", "plan", "tied_moves"]

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
        tied: the moves of the same variable under further names, which would make this very tensor.
        kept: whether it is no weight of the model but the target's own, passed on as it is.
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
    tied: tuple[Move, ...] = ()
    kept: bool = False

    @property
    def spec(self) -> str:
        """Dtype and shape: `f32[2,7,3,5]`."""
        return f"{dtype_name(self.dtype)}[{','.join(map(str, self.shape))}]"

    def copies(self) -> tuple[list[tiles.Copy], list[str]]:
        """What goes where, and the pieces that no source holds."""
        if self.layout is None:
            (source,) = self.sources
            return [tiles.Copy.of(0, [(source.size, 1, 1)])], []
        parts = [Part(s.layout, s.at) for s in self.sources if s.layout is not None]
        return derive(parts, Part(self.layout, self.at), self.sizes)

    def tensor(self) -> Tensor:
        """The target tensor, whose bytes are put together when they are asked for."""
        making = _Making(self)
        return Tensor(
            self.name,
            self.dtype,
            self.shape,
            making.load,
            self.layout,
            self.at,
            self.role,
            self.trainable,
            fill=None if making.as_stored else making.fill,
        )


class _Making:
    """How one target tensor is made, derived once, however many slabs it is made in."""

    __slots__ = ("_copies", "_flats", "_missing", "_move", "_size", "as_stored")

    def __init__(self, move: Move) -> None:
        self._move = move
        self._copies, self._missing = move.copies()
        self._size = math.prod(move.shape)
        self._flats: list[Array] | None = None
        # True where the target's bytes are one source's bytes, in order.
        self.as_stored = (
            len(move.sources) == 1
            and move.sources[0].dtype == move.dtype
            and not self._missing
            and len(self._copies) == 1
            and self._copies[0].contiguous
            and self._copies[0].elements == move.sources[0].size
        )

    def load(self) -> Array:
        """All values."""
        if self.as_stored:
            return self._move.sources[0].load()
        out = np.empty(self._size, self._move.dtype)
        self.fill(0, out.size, out)
        return out

    def fill(self, start: int, stop: int, out: Array) -> None:
        """Elements `start` to `stop`."""
        move = self._move
        if self._missing or not move.sources:
            out[...] = np.asarray(move.fill or 0).astype(move.dtype)
        if not move.sources:
            return
        # Packed sources are unpacked by the first slab and let go by the last one.
        flats = self._flats or [source.flat() for source in move.sources]
        self._flats = flats if stop < self._size else None
        if flats[0].dtype == move.dtype:
            tiles.fill(out, tiles.clipped(self._copies, start, stop), flats)
            return
        held = np.full(out.shape, move.fill or 0, flats[0].dtype)
        tiles.fill(held, tiles.clipped(self._copies, start, stop), flats)
        out[...] = tiles.cast(held, move.dtype)
        overflown = (np.isfinite(held) & ~np.isfinite(out)) | (np.isinf(held) & np.isnan(out))
        if overflown.any():
            value = held[np.flatnonzero(overflown)[0]]
            raise UnsupportedError(
                f"{move.name}: {value} is too large for {dtype_name(move.dtype)}; cast to a dtype "
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
        aliases: further names of the target's tensors → the name that a tensor is written under.
        custom: descriptions of kinds that no table of ours has.
        tables: vocabularies and the like, which travel in the manifest.
        advice: how to describe the classes that no table knows.
    """

    convention: str
    source: Source
    moves: tuple[Move, ...]
    layers: Mapping[str, Mapping[str, Any]]
    notes: tuple[Note, ...]
    omitted: tuple[Omission, ...]
    problems: tuple[str, ...] = ()
    architecture: Mapping[str, Any] | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    custom: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    advice: str = ""

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
                advice=self.advice,
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
            "aliases": dict(self.aliases),
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
            **({"aliases": dict(self.aliases)} if self.aliases else {}),
            **({"custom": LayerTable(self.custom).to_json()} if self.custom else {}),
            **({"tables": dict(self.tables)} if self.tables else {}),
        }

    def report(self, state: StateDict, target: str) -> Report:
        """The ledger of the conversion into `target`."""
        written = (move for first in self.moves for move in (first, *first.tied))
        placed = {source.name for move in written if not move.kept for source in move.sources}
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
            self.aliases,
            self.problems,
        )


def _entry(move: Move) -> dict[str, Any]:
    return {
        "dtype": dtype_name(move.dtype),
        "shape": list(move.shape),
        "layout": None if move.layout is None else str(move.layout),
        "at": sorted(move.at),
        "layer": move.layer or None,
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
                **_tied_entry(move, number),
            }
            for number, source in enumerate(() if move.kept else move.sources)
        ],
        **({"kept": True} if move.kept else {}),
    }


def _tied_entry(move: Move, number: int) -> dict[str, Any]:
    """The further names that one source of a move has in the model."""
    if not move.tied:
        return {}
    names = [
        {
            "name": twin.sources[number].name,
            "stored": twin.sources[number].stored,
            "layer": twin.layer,
            "role": twin.sources[number].role or twin.role,
        }
        for twin in move.tied
        if twin.sources[number].name != move.sources[number].name
    ]
    return {"tied": names} if names else {}


# --------------------------------------------------------------------------------------- planning


def plan(
    snapshot: Snapshot,
    *,
    to: str,
    flatten: str = "reorder",
    strict: bool = True,
    unknown: str = "error",
    tied: str = "once",
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
        unknown: `error` where a layer of no known kind is a problem, `keep` where it is asked for
            as it is stored: then it is no loss. What is known and cannot be held stays one.
        tied: `once` writes a variable of several names once, and the others are aliases; `both`
            writes it under each name, for those who know no aliases.
        module: a generated `model.py` will hold the weights, which has modules that `torch.nn`
            has not.

    Returns:
        The plan; its `problems` say what the target cannot hold.

    Raises:
        UsageError: there is no such convention, or no such choice.
        UnsupportedError: the snapshot is a state dict of another convention than Keras's.
    """
    if to not in NAMES:
        raise UsageError(f"unknown convention {to!r}: expected one of {', '.join(NAMES)}")
    for option, value, choices in (
        ("unknown", unknown, ("error", "keep")),
        ("tied", tied, ("once", "both")),
    ):
        if value not in choices:
            raise UsageError(f"{option} {value!r}: expected one of {', '.join(choices)}")
    custom = LayerTable(snapshot.custom)
    table = {**convention(to), **(EXTRA if module else {}), **custom.rows(to)}
    described = custom.rows("keras")
    if snapshot.convention not in ("keras", "unknown"):
        raise UnsupportedError(
            f"{snapshot.source.file} is in {snapshot.convention} layout, and conversions start "
            "from Keras layout: convert the model that it was made from, or an archive of it that "
            "was written with --to keras"
        )
    again = {} if module else _again(snapshot)
    names = (
        _module_names(snapshot, again)
        if to == "torch"
        else {path: path for path in (*snapshot, *again)}
    )
    moves: list[Move] = []
    notes: list[Note] = []
    problems: list[str] = []
    kinds = {layer.path: layer.kind for layer in snapshot.layers}
    orders: Mapping[str, Mapping[str, Order]] = {}
    seen = None
    if flatten == "reorder" and to != "keras":
        seen = flattened(snapshot)
        orders = seen.orders
        notes.extend(seen.notes)
    for layer in snapshot.layers:
        name = names[layer.path]
        if to == "torch" and name != layer.path.replace("/", "."):
            message = f"is named {name}, since PyTorch cannot hold its own name"
            notes.append(Note("renamed", layer.path, message))
        if to == "keras" and layer.kind is not None and layer.convention != "keras":
            made, said, kinds[layer.path] = _modernised(layer)
            moves.extend(made)
            notes.extend(said)
            continue
        if to == "keras" or layer.kind == VERBATIM:
            moves.extend(_verbatim(layer, None if to == "keras" else name))
            if layer.kind == VERBATIM:
                notes.append(Note("kept", layer.path, "passed on as stored, as asked for"))
            continue
        if layer.kind is None and unknown == "keep":
            moves.extend(_verbatim(layer, name))
            why = layer.note or "its kind is not known"
            notes.append(Note("kept", layer.path, f"passed on as stored, as asked for: {why}"))
            continue
        try:
            made, said = moved(layer, table, name, orders.get(layer.path), described=described)
        except UnsupportedError as error:
            if strict:
                problems.append(f"{layer.path}: {error}")
                continue
            made = list(_verbatim(layer, name))
            said = [Note("kept", layer.path, f"passed on as stored: {error}", loss=True)]
        moves.extend(made)
        notes.extend(said)
    notes.extend(snapshot.notes)
    notes.extend(_inference_notes(snapshot))
    notes.extend(_backend_notes(snapshot))
    moves, aliases, said = tied_moves(moves, merge=tied == "once" and not module)
    notes.extend(said)
    for move in list(moves) if again else ():
        for second in (second for second, first in again.items() if first == move.layer):
            name = names[second] + move.name.removeprefix(names[move.layer])
            aliases[name] = move.name
            if tied == "both":
                moves.append(replace(move, name=name, layer=second, tied=()))
    problems.extend(_collisions(moves))
    advice = hints(snapshot, to=to, seen=seen) | {
        layer.path: own.advice(layer.config)
        for layer in snapshot.layers
        if (own := custom.get(layer.kind or "")) is not None
    }
    return Plan(
        to,
        snapshot.source,
        tuple(moves),
        {
            path: {
                "class": layer.class_name,
                "kind": kinds[layer.path],
                "inferred": layer.inferred,
                "hints": advice[layer.path],
                "words": dict(layer.words),
            }
            for path, layer in _places(snapshot, again if tied == "both" else {})
        },
        tuple(notes),
        snapshot.omitted,
        tuple(sorted(set(problems))),
        snapshot.architecture if to == "keras" else None,
        aliases,
        snapshot.custom if to == "keras" else {},
        snapshot.tables,
        advice_for(snapshot) if problems else "",
    )


def _places(snapshot: Snapshot, again: Mapping[str, str]) -> Iterator[tuple[str, Layer]]:
    """Every path that tensors are written under, with its layer."""
    for layer in snapshot.layers:
        yield layer.path, layer
        yield from ((second, layer) for second, first in again.items() if first == layer.path)


def _again(snapshot: Snapshot) -> dict[str, str]:
    """The further paths of layers that stand in several models → the path of each in the first."""
    return {
        second + layer.path.removeprefix(first): layer.path
        for second, first in second_places(snapshot).items()
        for layer in snapshot.layers
        if f"{layer.path}/".startswith(f"{first}/")
        and second + layer.path.removeprefix(first) not in snapshot
    }


def tied_moves(
    moves: Sequence[Move], *, merge: bool
) -> tuple[list[Move], dict[str, str], list[Note]]:
    """The moves of variables that have several names: one move, where they make one tensor.

    Where the target lays a variable out in two ways, under two kinds of layer, it holds both. A
    table may give one variable two names too: those of an embedding and of its way back.
    """
    # Where a first name was left out, the second one is the first.
    first_names = Counter(_place(source) for move in moves for source in move.sources)
    shared = {
        source.same_as
        for move in moves
        for source in move.sources
        if source.same_as and first_names[source.same_as] > 1
    }
    firsts: dict[Any, Move] = {}
    twins: dict[str, list[Move]] = {}
    aliases: dict[str, str] = {}
    notes: list[Note] = []
    for move in moves:
        places = tuple(map(_place, move.sources))
        if not any(first_names[place] > 1 for place in places):
            continue
        # Two layers with a tensor of one name have two variables, unless the source says otherwise.
        home = move.layer if shared.isdisjoint(places) else ""
        copies, missing = move.copies()
        how_made = (move.dtype, move.shape, move.fill, bool(missing), tuple(copies))
        first = firsts.setdefault((home, places, how_made), move)
        if first.name != move.name:
            twins.setdefault(first.name, []).append(move)
            aliases[move.name] = first.name
            how = "written once, under that name" if merge else "written under both names"
            notes.append(Note("tied", move.name, f"is one variable with {first.name}: {how}"))
        elif any(source.same_as in shared for source in move.sources):
            message = "is of a variable that the target has in another layout too: both are written"
            notes.append(Note("tied", move.name, message))
    if not merge:
        return list(moves), aliases, notes
    kept = [move for move in moves if move.name not in aliases]
    return [replace(m, tied=tuple(twins.get(m.name, ()))) for m in kept], aliases, notes


def _place(source: Tensor) -> str:
    """Where a tensor is stored under its first name."""
    return source.same_as or source.stored or source.name


def moved(
    layer: Layer,
    table: Mapping[str, Row],
    module: str = "",
    order: Mapping[str, Order] | None = None,
    *,
    described: Mapping[str, Row] | None = None,
) -> tuple[list[Move], list[Note]]:
    """The moves of one layer; everything it holds must find its place.

    Args:
        layer: an identified layer.
        table: the target's convention.
        module: what the target calls the layer.
        order: its axes that are made of flattened images.
        described: the rows of kinds that no table of Keras's layers has.

    Raises:
        UnsupportedError: the target cannot hold the layer, or would lose a part of it.
    """
    if layer.kind is None:
        stored = ", ".join(f"{role} {tensor.spec}" for role, tensor in layer.weights.items())
        note = layer.note or "unknown kind"
        if f"({stored})" not in note:  # which may have listed them already
            note = f"{note} (stored: {stored})"
        raise UnsupportedError(note)
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
    row = (described or {}).get(layer.kind) or convention(layer.convention)[layer.kind]
    held = _by_weight(layer, row, before)
    moves: list[Move] = []
    notes: list[Note] = []
    placed = dict.fromkeys((t.name for tensors in held.values() for t in tensors), 0)
    counted: set[tuple[str, str, frozenset[str]]] = set()
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
        content = (slot.of, str(layout), at)  # under a second name, it is the same
        for copy in copies if content not in counted else ():
            placed[tensors[copy.source].name] += copy.elements
        counted.add(content)
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
        notes.extend(move_notes(move, missing, order))
    lost = sorted(t.name for ts in held.values() for t in ts if placed[t.name] != t.size)
    if lost:
        raise UnsupportedError(f"{', '.join(lost)} would be lost; no tensor of the target holds it")
    return moves, notes


def _by_weight(layer: Layer, row: Row, renamed: Mapping[str, str]) -> dict[str, list[Tensor]]:
    """The layer's tensors by the weight that they are parts of."""
    cases = [case.slots for case in rows(row)]
    weights = {s.name: s.of for slots in cases if isinstance(slots, tuple) for s in slots}
    held: dict[str, list[Tensor]] = {}
    for role, tensor in layer.weights.items():
        assert tensor.layout is not None, "identified layers have layouts"
        tensor = replace(tensor, layout=tensor.layout.rename(renamed))
        for weight in weights[role].split():
            held.setdefault(weight, []).append(tensor)
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


def move_notes(move: Move, missing: Sequence[str], order: Mapping[str, Order]) -> Iterator[Note]:
    """What one move does beyond moving values: pieces made up, sources joined, rows reordered."""
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


def _modernised(layer: Layer) -> tuple[list[Move], list[Note], str | None]:
    """A layer of an older convention in today's: its moves, what they note, and its kind.

    An archive holds every layer: one of which a part was left out stays as it is stored, of no kind
    that today's table could be wrong about.
    """
    try:
        made, said = moved(layer, convention("keras"))
    except UnsupportedError as error:
        kept = [replace(move, kind=None) for move in _verbatim(layer, None)]
        return kept, [Note("kept", layer.path, f"passed on as stored: {error}")], None
    moves = [replace(move, name=f"{layer.path}/{move.name}", role=move.name) for move in made]
    notes = [replace(note, subject=f"{layer.path}/{note.subject}") for note in said]
    return moves, notes, layer.kind


def _forget_bias_notes(snapshot: Snapshot) -> Iterator[Note]:
    """What a cell of TensorFlow 1 does that its weights do not say."""
    for layer in snapshot.layers:
        added = FORGET_BIAS.get(layer.class_name or "")
        if layer.convention == "tf1" and layer.kind is not None and added is not None:
            message = (
                f"a {layer.class_name} adds {added:g} to its forget gate when it runs, unless it "
                "was made with another forget_bias: the bias here is as stored, without it"
            )
            yield Note("inferred", layer.path, message)


def _backend_notes(snapshot: Snapshot) -> Iterator[Note]:
    """Which backend a kernel was taken to be of, where one turns kernels and another does not."""
    yield from _forget_bias_notes(snapshot)
    source = snapshot.source
    old = source.keras_version is None or source.keras_version.startswith("1")
    for layer in snapshot.layers:
        if layer.convention == "keras" or layer.kind is None:
            continue
        cases = rows(convention(layer.convention)[layer.kind])
        if layer.convention != "theano" and not any("backend" in case.options for case in cases):
            continue
        if source.backend is None:
            yield Note(
                "inferred",
                layer.path,
                "nothing in the file says which backend it was trained on: its kernel is taken as "
                "TensorFlow's, and Theano's would be turned by 180 degrees",
            )
            continue
        by = "the names of its weights are" if old else "the file says that its backend was"
        turned = (
            ", which turns kernels by 180 degrees: it is turned back"
            if source.backend == "theano"
            else ", which takes kernels as they are"
        )
        word = {"theano": "Theano", "tensorflow": "TensorFlow"}.get(source.backend, source.backend)
        whose = f"{word}'s" if old else word
        yield Note("inferred" if old else "reordered", layer.path, f"{by} {whose}{turned}")


def _inference_notes(snapshot: Snapshot) -> Iterator[Note]:
    for layer in snapshot.layers:
        if layer.inferred:
            alone = f"the file names no class; its weights fit {layer.kind} alone"
            if layer.named_after:
                alone = (
                    "the file names no class; of the kinds that its weights fit, they are stored "
                    f"under the name of {layer.named_after}"
                )
            message = layer.note or alone
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


def _module_names(snapshot: Snapshot, others: Iterable[str] = ()) -> dict[str, str]:
    """Layer paths as paths of PyTorch submodules."""
    others = tuple(others)
    names = module_names(snapshot, others)
    steps = {path: path.split("/") for path in (*snapshot, *others)}
    return {
        path: ".".join(names["/".join(words[: n + 1])] for n in range(len(words)))
        for path, words in steps.items()
    }
