"""Every unit with its module: the one way that is certain, or every way that is left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product

from kerasport.errors import UnsupportedError
from kerasport.matching.assignment import How, Rivals, assigned_of, classes, gathered
from kerasport.matching.evidence import Evidence
from kerasport.matching.refusals import table
from kerasport.matching.sides import Sides
from kerasport.matching.target import Module
from kerasport.matching.turned import turned_ones
from kerasport.units import Unit

__all__ = ["Found", "Pair", "ways"]


@dataclass(frozen=True, eq=False, slots=True)
class Pair:
    """A unit of the source in a module of the target.

    Attributes:
        unit: the unit.
        module: the module's name; the tensor's where it is no module's.
        tensors: by the unit's own name for it, the target tensor's name and its sentence.
        how: what settled it.
        assumed: which of its tensors are square matrices of which nothing says how they lie.
        zeros: biases that the target has and the layer has not.
    """

    unit: Unit
    module: str
    tensors: Mapping[str, tuple[str, str]]
    how: How
    assumed: frozenset[str] = frozenset()
    zeros: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Found:
    """What a match found.

    Attributes:
        pairs: in the target's order.
        kinds: the kinds of layers that the target settled, by path.
        kept: tensors of the target that are no weights.
    """

    pairs: tuple[Pair, ...]
    kinds: Mapping[str, str]
    kept: tuple[str, ...]


def ways(units: Sequence[Unit], sides: Sides, *, name: str, several: bool) -> Iterator[list[Pair]]:
    """Every unit with its module: the way that is certain, or all that are left where asked for."""
    assigned, rivals = _settled(units, sides)
    if not rivals:
        yield from _forms(assigned, sides, name, several=several)
        return
    if not several:
        raise UnsupportedError(f"{name} in more than one way:\n{table(rivals)}")
    open_units = [
        [(unit, module) for unit, module in zip(group.values(), modules.values(), strict=True)]
        for group, modules in _open(rivals, assigned)
    ]
    for changed in product(*(_permuted(group, sides) for group in open_units)):
        module_of = {id(unit): module for group in changed for unit, module in group}
        way: list[tuple[Unit, Module, How]] = [
            (unit, module_of.get(id(unit), module), "running" if id(unit) in module_of else how)
            for unit, module, how in assigned
        ]
        yield from _forms(way, sides, name, several=True)


def _forms(
    assigned: Sequence[tuple[Unit, Module, How]], sides: Sides, name: str, *, several: bool
) -> Iterator[list[Pair]]:
    """One way with what is joined in the usual order; and, where asked for, head by head."""
    yield _pairs(assigned, sides, name)
    if several and any(
        spelling.by_head
        for unit, module, _ in assigned
        for spellings in sides.spellings(unit, module).values()
        for spelling in spellings
    ):
        yield _pairs(assigned, sides, name, by_head=True)


def _settled(
    units: Sequence[Unit], sides: Sides
) -> tuple[list[tuple[Unit, Module, How]], list[Rivals]]:
    """Every unit with its module, and what is open; in rounds, as one tells of the next."""
    evidence = Evidence(units, sides)
    found = list(classes(units, sides))
    settled: dict[str, frozenset[str]] = {}
    while True:
        assigned: list[tuple[Unit, Module, How]] = []
        rivals: list[Rivals] = []
        for members, modules in found:
            matched, open_pairs = assigned_of(members, modules, evidence, settled)
            assigned.extend(matched)
            rivals.extend(open_pairs)
        open_ones = {id(unit) for one, _, other, _ in rivals for unit in (one, other)}
        known: dict[str, frozenset[str]] = {}
        for unit, module, _ in assigned:
            if id(unit) not in open_ones:
                known[unit.layer] = known.get(unit.layer, frozenset()) | {module.name}
        if not rivals or len(known) <= len(settled):
            return assigned, rivals
        settled = known


def _permuted(
    group: Sequence[tuple[Unit, Module]], sides: Sides
) -> Iterator[list[tuple[Unit, Module]]]:
    """Every way in which units can have the modules of all of them."""
    for modules in permutations(module for _, module in group):
        pairs = [(unit, module) for (unit, _), module in zip(group, modules, strict=True)]
        if all(sides.fit(unit, module) is not None for unit, module in pairs):
            yield pairs


def _open(
    rivals: Sequence[Rivals],
    assigned: Sequence[tuple[Unit, Module, How]],
) -> list[tuple[dict[str, Unit], dict[str, Module]]]:
    """Groups of units that could change places, with the module that each has now."""
    has = {id(unit): module for unit, module, _ in assigned}
    return [
        (units, {has[id(unit)].name: has[id(unit)] for unit in units.values()})
        for units, _ in gathered(rivals)
    ]


def _pairs(
    assigned: Sequence[tuple[Unit, Module, How]], sides: Sides, name: str, *, by_head: bool = False
) -> list[Pair]:
    pairs: list[Pair] = []
    turned, open_ones = turned_ones([(unit, module) for unit, module, _ in assigned], sides, name)
    for unit, module, how in assigned:
        tensors: dict[str, tuple[str, str]] = {}
        for leaf, spellings in sides.spellings(unit, module).items():
            wish = turned.get((unit.path, leaf))
            fitting = [s for s in spellings if wish is None or s.turned == wish]
            spelling = next((s for s in fitting if s.by_head == by_head), fitting[0])
            tensors[leaf] = (spelling.target, spelling.sentence)
        assumed = frozenset(leaf for leaf in tensors if (unit.path, leaf) in open_ones)
        fit = sides.fit(unit, module)
        zeros = () if fit is None else fit.zeros
        pairs.append(Pair(unit, module.name, tensors, how, assumed, zeros))
    return pairs
