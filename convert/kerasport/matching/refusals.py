"""What a refusal says: what finds no place on either side, and what is open."""

from __future__ import annotations

from collections.abc import Sequence

from kerasport.matching.assignment import Rivals, gathered
from kerasport.matching.bipartite import augment
from kerasport.matching.sides import Sides
from kerasport.units import Group, Unit

__all__ = ["impossible", "table"]

_SHOWN = 12


def impossible(units: Sequence[Unit], sides: Sides, found: Sequence[Group]) -> list[str]:
    """What finds no place, on either side, and the nearest that there is."""
    problems: list[str] = []
    mates: dict[int, int] = {}
    options = [sides.options(unit) for unit in units]
    for number in range(len(units)):
        augment(number, options, mates)
    placed = set(mates.values())
    for number, unit in enumerate(units):
        if number not in placed:
            shapes = shapes_of(unit)
            if options[number]:
                names = [sides.modules[n].name for n in options[number]]
                taken = f"others need {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
                problems.append(f"{unit.path} ({shapes}): no module is left for it, {taken}")
            else:
                problems.append(f"{unit.path} ({shapes}): no module of the target fits it")
    for number, module in enumerate(sides.modules):
        if number not in mates and any(w.number for w in module.leaves.values()):
            specs = ", ".join(f"{w.name} {w.spec}" for w in module.leaves.values() if w.number)
            problems.append(f"{specs}: no layer of the model fits it")
    if len(problems) > 2 * _SHOWN:
        problems = [*sorted(problems)[: 2 * _SHOWN], f"… and {len(problems) - 2 * _SHOWN} more"]
    return problems


def shapes_of(unit: Unit) -> str:
    shapes = (
        f"{leaf} " * bool(leaf) + f"[{','.join(map(str, move.shape))}]"
        for leaf, move in unit.moves.items()
        if move.sources
    )
    return ", ".join(shapes)


def table(rivals: Sequence[Rivals]) -> str:
    """What is open: for each group of units the modules that each could be in."""
    grouped = gathered(rivals)
    lines: list[str] = []
    for units, modules in grouped[:_SHOWN]:
        width = max(map(len, units))
        names = list(modules)
        shown = " or ".join(names[:4]) + (f" or {len(names) - 4} more" if len(names) > 4 else "")
        lines += [f"  {path:{width}}  {shapes_of(unit)}  {shown}" for path, unit in units.items()]
    if len(grouped) > _SHOWN:
        lines.append(f"  … and {len(grouped) - _SHOWN} more")
    units, modules = grouped[0]
    lines.append(
        f"Neither names nor order tell them apart: say it with --hint '{next(iter(units))}="
        f"{next(iter(modules))}', or run it with --inputs"
    )
    return "\n".join(lines)
