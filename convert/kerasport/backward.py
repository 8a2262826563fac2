"""A plan read backwards: what each tensor of a Keras file is, out of a state dict.

A plan says which target tensor is made of which source tensors, as copies, and a copy can be read
the other way. So the way back needs no table of its own: plan the way there from the file that is
to be filled, and take every move back with the tensors that have come.

What PyTorch has and Keras has not was made up on the way there, and must still be what it was:
zeros in a second bias, ones in a scale that the layer leaves out. Training changes them. PyTorch
adds the two biases of a recurrent layer, so the sum of both is the one that Keras keeps; but a sum
is rounded, and two numbers became one. So it is refused until it is asked for by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasport import tiles
from kerasport.conventions.torch import ADDED
from kerasport.errors import UnsupportedError
from kerasport.layout import Part, derive
from kerasport.model import EXCLUDED, Layer, Note, Omission, Snapshot, StateDict, Tensor, dtype_name
from kerasport.names import module_names
from kerasport.transpose import Move, Plan

__all__ = ["Filling", "agreeing", "backward"]

Array = npt.NDArray[Any]
_SHOWN = 20
# What PyTorch puts in front of every name when it wraps a model.
_WRAPPERS = ("module.", "_orig_mod.", "model.")


@dataclass(frozen=True, eq=False, slots=True)
class Filling:
    """What a Keras file is to hold, and what is to be said about it.

    Attributes:
        tensors: by the place where the file stores it.
        notes: what was done beyond moving values, and what stays as it is.
        placed: how many tensors of the state dict are in it.
    """

    tensors: Mapping[str, Tensor]
    notes: tuple[Note, ...]
    placed: int


@dataclass(slots=True)
class _Way:
    """How one stored tensor is put together, and what is added to it then."""

    source: Tensor
    dtype: np.dtype[Any]
    parts: list[tuple[Tensor, list[tiles.Copy]]] = field(default_factory=list)
    added: list[tuple[Tensor, list[tiles.Copy]]] = field(default_factory=list)

    def tensor(self) -> Tensor:
        """The tensor, made slab by slab."""
        source = self.source
        return Tensor(
            source.name,
            source.dtype,
            source.shape,
            self._load,
            stored=source.stored,
            fill=self._put,
        )

    def _load(self) -> Array:
        out = np.empty(self.source.size, self.source.dtype)
        self._put(0, out.size, out)
        return out

    def _put(self, start: int, stop: int, out: Array) -> None:
        held = out if self.dtype == self.source.dtype else np.empty(out.shape, self.dtype)
        _gather(held, self.parts, start, stop)
        if held is not out:
            out[...] = tiles.cast(held, out.dtype)
        for part in self.added:
            more = np.zeros(out.shape, self.dtype)
            _gather(more, [part], start, stop)
            more = tiles.cast(more, out.dtype)
            # Adding nothing must change nothing: -0.0 + 0.0 is another zero.
            np.add(out, more, out=out, where=more != 0)


def _gather(
    out: Array, parts: Sequence[tuple[Tensor, list[tiles.Copy]]], start: int, stop: int
) -> None:
    for tensor, copies in parts:
        tiles.fill(out, tiles.clipped(copies, start, stop), [tensor.flat()])


def agreeing(plans: Sequence[Plan], state: StateDict) -> Plan:
    """Of several ways to convert a model, the one that such a state dict comes of.

    Its names must be those of the state dict, as far as any plan's are, and its layouts those that
    the state dict's manifest has, if there is one.

    Args:
        plans: ways to convert the model, the most usual first.
        state: what was once converted by one of them.

    Raises:
        UnsupportedError: it was converted in no such way.
    """
    entries: Mapping[str, Any] = state.manifest.get("tensors", {})
    faults: list[str] = []
    for plan in sorted(plans, key=lambda plan: len({m.name for m in plan.moves} ^ state.keys())):
        others = [
            f"{move.name}: the file has '{entries[move.name]['layout']}', expected '{move.layout}'"
            for move in plan.moves
            if move.name in entries
            and move.layout is not None
            and entries[move.name]["layout"] not in (None, str(move.layout))
        ]
        if not others:
            return plan
        faults = faults or others
    raise UnsupportedError(
        "the state dict was converted from another model, or with other options:", faults
    )


def backward(
    plan: Plan,
    state: StateDict,
    snapshot: Snapshot,
    *,
    file: str,
    strict: bool = True,
    sum_biases: bool = False,
) -> Filling:
    """What the model's file is to hold for its weights to be those of a state dict.

    Args:
        plan: how the model becomes such a state dict.
        state: the tensors that have come.
        snapshot: the model as its file holds it; what was left out of it on request stays as it is,
            and may come all the same.
        file: what the state dict is called in errors.
        strict: refuse values that the file's dtype would round.
        sum_biases: add up the two biases that PyTorch adds, where Keras has one.

    Raises:
        UnsupportedError: a tensor is missing, unexpected or of another shape, or the model has no
            place for what a tensor holds; with every problem.
    """
    problems = list(plan.problems)
    notes: list[Note] = []
    ways: dict[str, _Way] = {}
    places: dict[str, list[str]] = {}
    used: set[str] = set()
    known = _known(plan)
    for move in plan.moves:
        if move.name in plan.aliases:  # compared with the first name's, which has arrived for both
            used.update({move.name} & state.keys())
            continue
        found, said = _arrived(move, state, known.get(move.name, ()))
        problems.extend(said)
        if found is None:
            continue
        used.add(found.name)
        if not move.sources:
            problems.extend(
                _made_up(move, found, plan, ways, notes=notes, sum_biases=sum_biases, strict=strict)
            )
            continue
        problems.extend(_unlike_parts(move, found, strict=strict, notes=notes))
        copies, missing = move.copies()
        if missing:
            problems.extend(_unfilled(move, found, copies))
        for number, source in enumerate(move.sources):
            way = ways.setdefault(source.name, _Way(source, found.dtype))
            if way.dtype != found.dtype:
                problems.append(f"{found.name}: is {found.spec}, and its other parts are not")
                continue
            way.parts.append((found, [c.inverted() for c in copies if c.source == number]))
            twins = (twin.sources[number] for twin in move.tied)
            places[source.name] = [_place(source), *map(_place, twins)]
    problems.extend(_unexpected(state, known, _left_out(snapshot)))
    if problems:
        listed = sorted(set(problems))
        shown = listed[:_SHOWN]
        if len(listed) > _SHOWN:
            shown.append(f"… and {len(listed) - _SHOWN} more")
        raise _refusal(f"{file} does not fit {plan.source.file}:", shown, _advice(state, known))
    filled: dict[str, Tensor] = {}
    for name, way in ways.items():
        tensor = way.tensor()
        for place in places[name]:
            if place in filled and not _same(filled[place], tensor):
                problems.append(
                    f"{way.source.name}: the model has it under two names, as one variable, and "
                    f"{file} holds other values under each"
                )
            filled.setdefault(place, tensor)
    second = _second_copies(snapshot, ways, problems)
    filled |= {place: ways[name].tensor() for place, name in second.items() if place not in filled}
    if problems:
        raise UnsupportedError(f"{file} does not fit {plan.source.file}:", problems)
    notes.extend(_stays(snapshot, second, plan))
    return Filling(filled, tuple(notes), len(used))


def _refusal(message: str, problems: Sequence[str], advice: str) -> UnsupportedError:
    """All problems in one error, of which a long list is cut and stays in its order."""
    error = UnsupportedError("\n  ".join([message, *problems]), advice=advice)
    error.problems = tuple(problems)
    return error


def _known(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Every name of the plan's tensors → the further names under which a tensor may come."""
    known: dict[str, tuple[str, ...]] = {move.name: () for move in plan.moves}
    for alias, name in plan.aliases.items():
        if name in known:
            known[name] = (*known[name], alias)
    return known


def _arrived(
    move: Move, state: StateDict, aliases: Sequence[str]
) -> tuple[Tensor | None, list[str]]:
    """The tensor that a move would have made, and what is wrong with it."""
    names = [name for name in (move.name, *aliases) if name in state]
    if not names:
        # What was made up on the way there is not missed on the way back.
        missing = [f"{move.name}: is missing, expected {move.spec}"] if move.sources else []
        return None, missing
    found, *others = (state[name] for name in names)
    problems = [
        f"{name}: is one variable with {found.name} in the model, and differs from it"
        for name, other in zip(names[1:], others, strict=True)
        if other is not found and not _same(found, other)
    ]
    if found.shape != move.shape:
        return None, [*problems, f"{found.name}: expected {move.spec}, found {found.spec}"]
    return found, problems


def _unlike_parts(move: Move, found: Tensor, *, strict: bool, notes: list[Note]) -> Iterator[str]:
    """What a difference in dtype means: values that stay, or values that are rounded."""
    if found.dtype == move.dtype:
        return
    change = f"cast from {dtype_name(found.dtype)} to {dtype_name(move.dtype)}, the model's own"
    if np.can_cast(found.dtype, move.dtype, "safe"):
        notes.append(Note("cast", found.name, f"{change}: every value stays"))
    elif not (_is_float(found.dtype) and _is_float(move.dtype)):
        yield f"{found.name}: expected {move.spec}, found {found.spec}"
    elif strict:
        yield (
            f"{found.name}: expected {move.spec}, found {found.spec}, which would be rounded; "
            "--no-strict rounds it"
        )
    else:
        notes.append(Note("cast", found.name, change, loss=True))


def _is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or dtype_name(dtype).startswith(("bf", "f8"))


def _made_up(
    move: Move,
    found: Tensor,
    plan: Plan,
    ways: Mapping[str, _Way],
    *,
    notes: list[Note],
    sum_biases: bool,
    strict: bool,
) -> Iterator[str]:
    """A tensor that the model has not, which must still be what it was made up as."""
    if move.dtype.kind in "iu":
        notes.append(
            Note("dropped", found.name, "is a counter of PyTorch's, which Keras does not keep")
        )
        return
    fill = np.asarray(move.fill or 0).astype(found.dtype)
    others = sum(int((slab != fill).sum()) for slab in found.slabs())
    if not others:
        return
    what = f"{found.name}: {others} of {found.size} values are no longer {move.fill or 0:g}"
    added = _addend(move, plan)
    if added is None:
        yield f"{what}, and {move.layer} has no such weight: the model has no place for them"
        return
    if not sum_biases:
        yield (
            f"{what}. PyTorch adds {found.name} and {added.name}, {move.layer} has one bias; "
            "--sum-biases stores their sum, rounded once"
        )
        return
    parts = [Part(s.layout, s.at) for s in added.sources if s.layout is not None]
    assert move.layout is not None
    copies, _ = derive(parts, Part(move.layout, added.at), added.sizes)
    for number, source in enumerate(added.sources):
        way = ways.get(source.name)
        if way is not None:
            way.added.append((found, [c.inverted() for c in copies if c.source == number]))
            yield from _unlike_parts(
                replace(move, dtype=source.dtype), found, strict=strict, notes=notes
            )
    notes.append(
        Note("joined", added.name, f"is added to {found.name}, as PyTorch does: rounded once")
    )


def _addend(move: Move, plan: Plan) -> Move | None:
    """The move whose values PyTorch adds this one's to; None where it adds none."""
    for label, partner in ADDED.items():
        if label in move.at:
            at = move.at - {label} | {partner}
            for other in plan.moves:
                if (other.layer, other.role, other.at) == (move.layer, move.role, at):
                    return other
    return None


def _unfilled(move: Move, found: Tensor, copies: Sequence[tiles.Copy]) -> Iterator[str]:
    """Parts of a tensor that the model has not must still be what they were made up as."""
    rest = np.ones(found.size, bool)
    nothing = np.zeros(1, bool)
    for copy in copies:
        still = replace(copy, source=0, source_offset=0, source_strides=(0,) * len(copy.shape))
        tiles.fill(rest, [still], [nothing])
    fill = np.asarray(move.fill or 0).astype(found.dtype)
    others = int((found.flat()[rest] != fill).sum())
    if others:
        yield (
            f"{found.name}: {others} of {found.size} values are no longer {move.fill or 0:g}, and "
            f"{move.layer} has no such weights: the model has no place for them"
        )


def _unexpected(
    state: StateDict, known: Mapping[str, Sequence[str]], left_out: Sequence[str]
) -> Iterator[str]:
    names = {*known, *(alias for aliases in known.values() for alias in aliases)}
    for name, tensor in state.items():
        if name not in names and not name.startswith(tuple(left_out)):
            yield f"{name}: is unexpected, {tensor.spec} that the model has no place for"


def _left_out(snapshot: Snapshot) -> list[str]:
    """What the names begin with of tensors whose layers are to stay as they are."""
    paths = {
        omission.tensor.name.rpartition("/")[0]
        for omission in snapshot.omitted
        if omission.reason == EXCLUDED
    }
    names = module_names(snapshot, paths)
    return [
        f"{mark.join(words)}{mark}"
        for path in paths
        for steps in [path.split("/")]
        for mark, words in (
            (".", [names["/".join(steps[: n + 1])] for n in range(len(steps))]),
            ("/", steps),
        )
    ]


def _advice(state: StateDict, known: Mapping[str, Any]) -> str:
    """What a wrapper did to the names, where that is all that is wrong."""
    for prefix in _WRAPPERS:
        if state and all(name.startswith(prefix) for name in state):
            own = {name.removeprefix(prefix) for name in state}
            if own & known.keys():
                return (
                    f"Every name begins with {prefix!r}: save the state_dict() of the model inside "
                    "the one that wraps it"
                )
    return ""


def _place(tensor: Tensor) -> str:
    return tensor.stored or tensor.name


def _same(one: Tensor, other: Tensor) -> bool:
    return one.spec == other.spec and all(
        bool((tiles.bits(a) == tiles.bits(b)).all())
        for a, b in zip(one.slabs(), other.slabs(), strict=True)
    )


def _second_copies(
    snapshot: Snapshot, ways: Mapping[str, _Way], problems: list[str]
) -> dict[str, str]:
    """Places where the file holds a tensor once more → the name of the tensor.

    Keras loads such a place too, after the first one, and would find the old values there.
    """
    firsts = {_place(way.source): name for name, way in ways.items()}
    found: dict[str, str] = {}
    for omission in snapshot.omitted:
        _, shared, first = omission.reason.partition("shared with ")
        place = _place(omission.tensor)
        if not shared or place in firsts:
            continue
        layer: Layer | None = snapshot.get(first)
        among = list(layer.weights.values() if layer is not None else snapshot.tensors)
        alike = [tensor for tensor in among if tensor.spec == omission.tensor.spec]
        own = place.rpartition("/")[2]
        for fits in (
            [t for t in alike if first in (t.name, _place(t))],
            [t for t in alike if layer is not None and _place(t).rpartition("/")[2] == own],
            [t for t in alike if _same(t, omission.tensor)],
        ):
            if len(fits) == 1:
                if fits[0].name in ways:
                    found[place] = fits[0].name
                break
        else:
            problems.append(f"{place}: is {omission.reason}, and it does not show which tensor")
    return found


def _stays(snapshot: Snapshot, second: Mapping[str, str], plan: Plan) -> Iterator[Note]:
    """What the file holds beside the weights, which no state dict has."""
    for omission in snapshot.omitted:
        if not omission.reason.startswith("shared with "):
            yield _kept(omission, plan)
    for path in snapshot.tables:
        message = f"stays as it is in {plan.source.file}: a table, which no state dict holds"
        yield Note("kept", path, message)


def _kept(omission: Omission, plan: Plan) -> Note:
    message = f"stays as it is in {plan.source.file}: {omission.reason}"
    return Note("kept", omission.tensor.name, message)
