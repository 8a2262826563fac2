"""The best assignment of units that could change places, and which of them still could.

That it is the best of all is no proof: for each pair something must speak against changing places.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kerasport.matching.bipartite import best
from kerasport.matching.evidence import LEAST, ORDER, Evidence
from kerasport.matching.sides import Sides
from kerasport.matching.target import Module
from kerasport.matching.vocabulary import ORDINALS, STAGES, stage_of, tokens_of, words_of
from kerasport.units import Unit

__all__ = ["How", "Rivals", "assigned_of", "classes", "gathered"]

# What it counts that both sides have one name, numbers and all.
_SAME = 8.0
How = Literal["shape", "names", "order", "running"]
Array = npt.NDArray[np.float64]
# Two units and their modules, which could change places.
Rivals = tuple[Unit, Module, Unit, Module]


def classes(units: Sequence[Unit], sides: Sides) -> Iterator[tuple[list[Unit], list[Module]]]:
    """Units and modules that could change places among one another, and with no others."""
    alike: dict[frozenset[int], list[Unit]] = {}
    for unit in units:
        fits = frozenset(sides.options(unit))
        members: list[Unit] = []
        for other in [key for key in alike if key & fits]:
            fits |= other
            members += alike.pop(other)
        alike[fits] = [*members, unit]
    for fits, members in alike.items():
        yield members, [sides.modules[n] for n in sorted(fits)]


def assigned_of(
    units: Sequence[Unit],
    modules: Sequence[Module],
    evidence: Evidence,
    settled: Mapping[str, frozenset[str]],
) -> tuple[list[tuple[Unit, Module, How]], list[Rivals]]:
    """The best assignment of one class, and the pairs in it that could as well be the other way.

    Args:
        units: the units of the class.
        modules: the modules that they fit.
        evidence: what speaks for and against.
        settled: the modules of the layers that are settled.
    """
    units = sorted(units, key=lambda unit: _order_key(unit.path, unit, evidence))
    modules = sorted(modules, key=lambda m: _target_key(m, evidence))
    certain, beside = _scores(units, modules, evidence, settled)
    ranks = _ranks(units, modules, evidence)
    columns = best(certain - ORDER * ranks)

    @cache
    def order(a: int, b: int, one: int, other: int) -> int:
        """Above 0 where both sides have the two in one order, below where in the other."""
        source = evidence.source_order(units[a], units[b])
        if not source:
            return evidence.numbered_alike(units[a], units[b], modules[one], modules[other])
        return source * evidence.target_order(modules[one], modules[other])

    def speaks(a: int, b: int) -> tuple[float, How]:
        """What speaks for two being as they are, and against their changing places."""
        one, other = columns[a], columns[b]
        swapped = certain[a, other] + certain[b, one]
        if not np.isfinite(swapped):
            return 1.0, "names"
        gain = certain[a, one] + certain[b, other] - swapped
        if abs(gain) > LEAST:
            return gain, "names"
        gain = order(a, b, one, other)
        near = beside[a, one] + beside[b, other] - beside[a, other] - beside[b, one]
        if abs(gain) < 2 and gain * near < 0:
            return 0.0, "order"  # made in one order, and beside others in the other
        return float(gain or near), "order"

    pairs = [(a, b) for a in range(len(units)) for b in range(a + 1, len(units))]
    for _ in range(len(units)):
        # What names leave open is put in order, as by exchanging neighbours.
        wrong = False
        for a, b in pairs:
            gain, by = speaks(a, b)
            if gain < -LEAST and by == "order":
                columns[a], columns[b] = columns[b], columns[a]
                wrong = True
        if not wrong:
            break
    how: list[How] = ["shape" if len(units) == 1 else "names" for _ in units]
    rivals: list[Rivals] = []
    for a, b in pairs:
        gain, by = speaks(a, b)
        if gain <= LEAST:
            rivals.append((units[a], modules[columns[a]], units[b], modules[columns[b]]))
        elif by == "order":
            how[a] = how[b] = "order"
    matched = [
        (unit, modules[column], kind)
        for unit, column, kind in zip(units, columns, how, strict=True)
    ]
    return matched, rivals


def _scores(
    units: Sequence[Unit],
    modules: Sequence[Module],
    evidence: Evidence,
    settled: Mapping[str, frozenset[str]],
) -> tuple[Array, Array]:
    """What names and blocks say of each unit in each module, and how many neighbours they share."""
    weights = evidence.weights(
        [evidence.paths[unit.path] for unit in units], [module.name for module in modules]
    )
    certain = np.full((len(units), len(modules)), -np.inf)
    beside = np.zeros(certain.shape)
    for row, unit in enumerate(units):
        for column, module in enumerate(modules):
            if evidence.sides.fit(unit, module) is not None:
                words = words_of(evidence.paths[unit.path]) & words_of(module.name)
                names = sum(weights.get(word, 0.0) for word in words)
                same = _SAME * (tokens_of(unit.path) == tokens_of(module.name))
                certain[row, column] = names + same + evidence.structure(unit, module)
                beside[row, column] = evidence.beside(unit, module, settled)
    return certain, beside


def _order_key(path: str, unit: Unit, evidence: Evidence) -> tuple[Any, ...]:
    block = evidence.blocks.get(path)
    name = evidence.paths[path]
    stage = stage_of(name, STAGES)
    graph = evidence.sides.ancestors is not None
    place = evidence.sides.rank.get(unit.layer, 0)
    number = tuple(t for t in tokens_of(name) if isinstance(t, int))
    return (
        block[1] if block else -1,
        -1 if stage is None or graph else stage,
        place if graph else 0,
        stage_of(name, ORDINALS) or 0,
        number,
        place,
    )


def _target_key(module: Module, evidence: Evidence) -> tuple[Any, ...]:
    block = evidence.target_blocks.get(module.name)
    natural = tuple((0, t, "") if isinstance(t, int) else (1, 0, t) for t in tokens_of(module.name))
    ordinal = stage_of(module.name, ORDINALS) or 0
    own = (module.place,) if evidence.sides.ordered else (ordinal, natural)
    return (block[1] if block else -1, *own)


def _ranks(units: Sequence[Unit], modules: Sequence[Module], evidence: Evidence) -> Array:
    """How far apart each unit and module stand in the order of their blocks, from 0 to 1."""
    left = _within([evidence.blocks.get(unit.path) for unit in units])
    right = _within([evidence.target_blocks.get(module.name) for module in modules])
    longest = max(1, *left, *right)
    apart: Array = np.abs(np.subtract.outer(left, right)) / longest
    return apart


def _within(blocks: Sequence[tuple[tuple[str, ...], int, int] | None]) -> list[float]:
    counts: Counter[object] = Counter()
    found: list[float] = []
    for block in blocks:
        key = block[:2] if block else None
        found.append(float(counts[key]))
        counts[key] += 1
    return found


def gathered(
    rivals: Sequence[Rivals],
) -> list[tuple[dict[str, Unit], dict[str, Module]]]:
    """Units that could change places, directly or by way of others, with their modules."""
    grouped: list[tuple[dict[str, Unit], dict[str, Module]]] = []
    for one, first, other, second in rivals:
        units = {one.path: one, other.path: other}
        modules = {first.name: first, second.name: second}
        for group in [g for g in grouped if g[0].keys() & units.keys()]:
            units, modules = {**group[0], **units}, {**group[1], **modules}
            grouped.remove(group)
        grouped.append((units, modules))
    return grouped
