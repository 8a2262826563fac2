"""A model's weights as the modules of PyTorch that they could be: units, in every form they have.

Whoever wrote a module by hand cut it up in some way: an attention as four linear modules, or as one
for query, key and value and one for the output; the three again as layers of their own in Keras and
as one in PyTorch. A unit is what one `nn.Module` holds, by the names and sentences of the table of
PyTorch. A layer is one unit or several, and a *reading* is one way to see it. What a file does not
say of a layer, its kind, gives more readings, and the module that is to hold it settles which.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kerasport.conventions import Absent, convention, rows
from kerasport.custom import LayerTable
from kerasport.errors import LayoutError, UnsupportedError
from kerasport.flatten import Order, flattened
from kerasport.identify import possible
from kerasport.layout import Layout
from kerasport.model import Layer, Snapshot, Tensor
from kerasport.transpose import Move, moved

__all__ = ["Group", "Unit", "groups", "joined", "parts_of", "split", "units"]

# How the last word of a name says which of the three projections of an attention it is.
PARTS = {"q": "q", "query": "q", "wq": "q", "k": "k", "key": "k", "wk": "k"}
PARTS |= {"v": "v", "value": "v", "wv": "v"}
ORDER = ("q", "k", "v")
FUSED = re.compile(r"(^|_)(qkv|c_attn|in_proj|query_key_value)(_|$)")


@dataclass(frozen=True, eq=False, slots=True)
class Unit:
    """What one module of PyTorch holds.

    Attributes:
        path: the layer's path, and the part of the layer that it is.
        kind: the layer's kind; empty where the file does not say and nothing needs to be known.
        moves: its tensors by the names that PyTorch's module has.
        after: what axes are called where an image was flattened into them.
        paths: the units that it is joined of.
        labels: which of them each is.
        sizes: the sizes of the layer's axes, those that were flattened into too.
        own: the sentences by those axes, where an image was flattened into one.
    """

    path: str
    kind: str
    moves: Mapping[str, Move]
    after: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    own: Mapping[str, Layout | None] = field(default_factory=dict)

    def plain(self, leaf: str) -> Layout:
        """A tensor's sentence by the layer's own axes, whatever an image was flattened into."""
        layout = self.own.get(leaf, self.moves[leaf].layout)
        assert layout is not None
        return layout

    @property
    def layer(self) -> str:
        """The path of its layer, the first one's of several."""
        return next(iter(self.moves.values())).layer


Reading = tuple[Unit, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Group:
    """Layers that are seen together, in every way in which they can be.

    Attributes:
        layers: their paths.
        readings: each way as the units it gives, the most usual first.
        why: why there is no way, or how to say which it is.
    """

    layers: tuple[str, ...]
    readings: tuple[Reading, ...]
    why: str = ""


def groups(snapshot: Snapshot, *, flatten: str = "reorder", unsettled: bool = True) -> list[Group]:
    """Every layer of a snapshot in every reading, with those joined that can be one module.

    Args:
        snapshot: the model.
        flatten: whether what lies behind a flattened image is `reorder`ed, or `keep`s its order.
        unsettled: whether layers whose kind is not known are read as every kind that fits.
    """
    orders = flattened(snapshot).orders if flatten == "reorder" else {}
    alone: dict[str, Group] = {}
    for layer in snapshot.layers:
        readings: list[Reading] = []
        why = layer.note
        order = orders.get(layer.path, {})
        for kind in _kinds(layer, snapshot) if unsettled or layer.kind else ():
            try:
                readings.extend(_readings(kind, snapshot, order))
            except (UnsupportedError, LayoutError) as error:
                why = why or str(error)
        plain = _plain(layer)
        distinct = _distinct([*readings, *([plain] if plain else [])])
        alone[layer.path] = Group((layer.path,), distinct, why)
    return list(_grouped(alone))


def units(snapshot: Snapshot, *, flatten: str = "reorder") -> dict[str, list[Unit]]:
    """The units of every layer whose kind is known, in all readings, by their paths."""
    found: dict[str, list[Unit]] = {}
    for group in groups(snapshot, flatten=flatten, unsettled=False):
        for reading in group.readings:
            for unit in reading:
                if not unit.paths:
                    found.setdefault(unit.path, []).append(unit)
    return found


def _kinds(layer: Layer, snapshot: Snapshot) -> Iterable[Layer]:
    """The layer as it is known, or as each kind that fits."""
    return [layer] if layer.kind is not None else possible(layer, snapshot.source.backend)


def _readings(layer: Layer, snapshot: Snapshot, order: Mapping[str, Order]) -> Iterator[Reading]:
    custom = LayerTable(snapshot.custom)
    table = {**convention("torch"), **custom.rows("torch")}
    kind = str(layer.kind)
    if kind not in table:
        raise UnsupportedError(f"{kind}: PyTorch has no names for it")
    reason = ""
    after = {axis: order[axis].target for axis in order}
    for case in rows(table[kind]):
        if isinstance(case.slots, Absent):
            reason = case.slots.reason
            continue
        if not case.holds(layer.sizes):
            continue
        reason = ""
        row, described = {**table, kind: (case,)}, custom.rows("keras")
        moves, _ = moved(layer, row, "", order, described=described)
        plain = moved(layer, row, described=described)[0] if order else ()
        whole = _cut(layer, moves, after, {move.name: move.layout for move in plain})
        yield whole
        yield from _once(whole)
        yield from _joins(whole)
        yield from _splits(layer, whole)
    if reason:
        raise UnsupportedError(f"{kind}: {reason}")


def _cut(
    layer: Layer,
    moves: Sequence[Move],
    after: Mapping[str, str],
    plain: Mapping[str, Layout | None],
) -> Reading:
    """The moves of a layer by the module that each belongs to."""
    parts: dict[str, dict[str, Move]] = {}
    for move in moves:
        part, _, leaf = move.name.rpartition(".")
        parts.setdefault(part, {})[leaf] = move
    return tuple(
        Unit(
            "/".join(filter(None, [layer.path, *part.split(".")])),
            str(layer.kind),
            own,
            after,
            sizes=layer.sizes,
            own={leaf: plain[move.name] for leaf, move in own.items() if move.name in plain},
        )
        for part, own in parts.items()
    )


def _once(whole: Reading) -> Iterator[Reading]:
    """The reading without what only repeats a tensor under a second name.

    The module that is to hold it may list a parameter once that it uses twice.
    """
    firsts = {
        tuple((move.role, str(move.layout), move.at) for move in unit.moves.values()): unit
        for unit in reversed(whole)
    }
    if len(firsts) < len(whole):
        yield tuple(unit for unit in whole if unit in firsts.values())


def parts_of(path: str) -> str:
    """Which projection of an attention the last word of a path names, or nothing.

    >>> parts_of("block/query_dense"), parts_of("block/attention_output")
    ('q', '')
    """
    words = re.sub(r"(_|^)(dense|proj|projection|linear)(?=_|$)", "", path.rpartition("/")[2])
    return PARTS.get(words.strip("_").lower(), "")


def _joins(whole: Reading) -> Iterator[Reading]:
    """The reading with query, key and value in one module; with key and value in one."""
    by_part = {parts_of(unit.path): unit for unit in whole}
    for labels in (ORDER, ORDER[1:]):
        if all(label in by_part for label in labels):
            parts = [by_part[label] for label in labels]
            made = joined(parts, labels)
            if made is not None:
                yield (made, *(unit for unit in whole if unit not in parts))


def joined(parts: Sequence[Unit], labels: Sequence[str]) -> Unit | None:
    """Several units end to end as one; None where they are unlike."""
    first = parts[0]
    if any(part.moves.keys() != first.moves.keys() or part.after for part in parts):
        return None
    moves: dict[str, Move] = {}
    for leaf, _move in first.moves.items():
        made = _joined_move([part.moves[leaf] for part in parts], labels)
        if made is None:
            return None
        moves[leaf] = made
    above = first.path.rpartition("/")[0]
    path = "/".join(filter(None, [above, "".join(labels)]))
    return Unit(path, first.kind, moves, {}, tuple(p.path for p in parts), tuple(labels))


def _joined_move(moves: Sequence[Move], labels: Sequence[str]) -> Move | None:
    first = moves[0]
    if first.layout is None or first.layout.order or not first.layout.dims:
        return None
    sources: list[Tensor] = []
    for move, label in zip(moves, labels, strict=True):
        if move.layout is None or len(move.sources) != 1 or move.fill is not None:
            return None
        if move.shape != first.shape or move.dtype != first.dtype:
            return None
        same = dict(zip(move.layout.axes, first.layout.axes, strict=False))
        if str(move.layout.rename(same)) != str(first.layout) or any(
            move.sizes[axis] != first.sizes[other] for axis, other in same.items()
        ):
            return None
        (source,) = move.sources
        assert source.layout is not None
        # Which of the three it is, is said by where it goes, whatever its own layer called it.
        at = (source.at - set(ORDER)) | {label}
        sources.append(replace(source, layout=source.layout.rename(same), at=at))
    dims = [str(dim) for dim in first.layout.dims]
    outer = dims[0][1:-1] if dims[0].startswith("(") else dims[0]
    layout = Layout.parse(" ".join([f"([{' '.join(labels)}] {outer})", *dims[1:]]))
    return replace(
        first,
        layout=layout,
        at=first.at - set(ORDER),
        shape=layout.shape(first.sizes),
        sources=tuple(sources),
    )


def _splits(layer: Layer, whole: Reading) -> Iterator[Reading]:
    """A layer that holds query, key and value in one, as three modules."""
    if len(whole) == 1 and FUSED.search(layer.path.rpartition("/")[2].lower()):
        made = split(whole[0], ORDER)
        if made is not None:
            yield made


def split(unit: Unit, labels: Sequence[str]) -> Reading | None:
    """One unit as several, each a block of its outputs; None where they cannot be cut."""
    parts: list[Unit] = []
    for label in labels:
        moves: dict[str, Move] = {}
        extents = dict(unit.sizes)
        for leaf, move in unit.moves.items():
            if move.layout is None or len(move.sources) != 1 or move.layout.order:
                return None
            (source,) = move.sources
            axis = str(move.layout.dims[0])
            size = move.sizes.get(axis, 0)
            if source.layout is None or not size or size % len(labels):
                return None
            words = {axis: f"([{' '.join(labels)}] {axis})"}
            sizes = {**move.sizes, axis: size // len(labels)}
            extents[axis] = sizes[axis]
            moves[leaf] = replace(
                move,
                sizes=sizes,
                shape=move.layout.shape(sizes),
                at=move.at | {label},
                sources=(replace(source, layout=source.layout.rename(words)),),
            )
        path = f"{unit.path}/{label}"
        parts.append(Unit(path, unit.kind, moves, unit.after, sizes=extents, own=unit.own))
    return tuple(parts)


def _plain(layer: Layer) -> Reading | None:
    """Tensors of no known kind whose elements lie in one order whatever their axes are."""
    if layer.kind is not None or layer.class_name in ("Dense",):
        return None
    if not all(sum(n > 1 for n in t.shape) <= 1 for t in layer.weights.values()):
        return None
    units: list[Unit] = []
    for role, tensor in layer.weights.items():
        layout = Layout.parse(" ".join(f"axis_{n}" for n in range(len(tensor.shape))))
        sizes = layout.bind(tensor.shape)
        source = replace(tensor, layout=layout)
        move = Move(
            role, tensor.dtype, tensor.shape, layout, frozenset(), role, layer.path, None,
            (source,), sizes, trainable=tensor.trainable,
        )  # fmt: skip
        units.append(Unit(f"{layer.path}/{role}", "", {"": move}))
    return tuple(units)


def _distinct(readings: Iterable[Reading]) -> tuple[Reading, ...]:
    """The readings that give unlike tensors: a kind makes no difference where its name is all."""
    found: dict[object, Reading] = {}
    for reading in readings:
        look = tuple(
            (unit.path, leaf, move.shape, move.fill, tuple(map(str, move.copies()[0])))
            for unit in reading
            for leaf, move in unit.moves.items()
        )
        found.setdefault(look, reading)
    return tuple(found.values())


def _grouped(alone: Mapping[str, Group]) -> Iterator[Group]:
    """The groups, those of three sibling layers that are an attention's projections together."""
    parents: dict[str, dict[str, str]] = {}
    for path, group in alone.items():
        part = parts_of(path)
        if part and group.readings and len(group.readings[0]) == 1:
            parents.setdefault(path.rpartition("/")[0], {})[part] = path
    taken: set[str] = set()
    for path, group in alone.items():
        if path in taken:
            continue
        siblings = parents.get(path.rpartition("/")[0], {})
        if len(siblings) < len(ORDER) or path not in siblings.values():
            yield group
            continue
        paths = tuple(siblings[label] for label in ORDER)
        taken.update(paths)
        apart = tuple(alone[p].readings[0][0] for p in paths)
        yield Group(paths, (apart, *_joins(apart)))
