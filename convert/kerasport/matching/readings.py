"""The units of all layers, each layer in the reading in which most of them find a module."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice, product

from kerasport.matching.bipartite import augment
from kerasport.matching.sides import Sides
from kerasport.units import Group, Reading, Unit

__all__ = ["chosen"]

_COMBINATIONS = 96


def chosen(found: Sequence[Group], sides: Sides) -> list[Unit]:
    """The units of all layers, each in the reading in which most of them find a module."""
    alike: dict[object, list[Group]] = defaultdict(list)
    for group in found:
        alike[tuple(_look(reading) for reading in group.readings)].append(group)
    choices: list[list[int]] = []
    for groups in alike.values():
        group = groups[0]
        open_ones = [
            n
            for n, reading in enumerate(group.readings)
            if all(sides.options(unit) for unit in reading)
        ]
        choices.append(open_ones or [0])
    best: tuple[int, int] | None = None
    units: list[Unit] = []
    for picks in islice(_by_sum(choices), _COMBINATIONS):
        tried = [
            unit
            for groups, pick in zip(alike.values(), picks, strict=True)
            for group in groups
            for unit in group.readings[pick]
        ]
        cost = _cost(tried, sides)
        if best is None or cost < best:
            best, units = cost, tried
        if cost == (0, 0):
            break
    return units


def _by_sum(choices: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """All combinations, the most usual readings first."""
    count = math.prod(map(len, choices))
    if count > 50_000:  # too many to sort: vary the first ones only
        return [tuple(options[0] for options in choices)]
    return sorted(product(*choices), key=lambda picks: (sum(picks), picks))


def _look(reading: Reading) -> object:
    return tuple(
        (unit.kind, tuple((leaf, move.shape) for leaf, move in unit.moves.items()))
        for unit in reading
    )


def _cost(units: Sequence[Unit], sides: Sides) -> tuple[int, int]:
    """How many units and modules are left over at best, and how many are spelled unusually."""
    mates: dict[int, int] = {}
    options = [sides.options(unit) for unit in units]
    for unit in range(len(units)):
        augment(unit, options, mates)
    real = [n for n, m in enumerate(sides.modules) if any(w.number for w in m.leaves.values())]
    left = len(units) - len(mates) + len(set(real) - mates.keys())
    respelled = sum(
        min(s.respelled + s.turned for s in spellings)
        for module, unit in mates.items()
        for spellings in sides.spellings(units[unit], sides.modules[module]).values()
    )
    return left, respelled
