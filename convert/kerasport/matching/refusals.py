"""What a refusal says: what finds no place on either side, and what is open."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from kerasport.matching.assignment import Rivals, gathered
from kerasport.matching.bipartite import augment
from kerasport.matching.fits import amiss, fitted
from kerasport.matching.sides import Sides
from kerasport.matching.target import Module
from kerasport.units import Unit

__all__ = ["impossible", "table"]

_SHOWN = 12
# How many of one kind are shown.
_ALIKE = 3
# What the tensors are called of which PyTorch computes a weight anew each time.
_RECOMPUTED = re.compile(r"\.parametrizations\.|(^|[._])weight_(g|v|u|orig)$")


def impossible(units: Sequence[Unit], sides: Sides) -> list[str]:
    """What finds no place, on either side, and the nearest that there is."""
    mates: dict[int, int] = {}
    options = [sides.options(unit) for unit in units]
    for number in range(len(units)):
        augment(number, options, mates)
    placed = set(mates.values())
    left = [unit for number, unit in enumerate(units) if number not in placed]
    free = [
        module
        for number, module in enumerate(sides.modules)
        if number not in mates and any(w.number for w in module.leaves.values())
    ]
    recomputed = [module for module in free if _RECOMPUTED.search(module.name)]
    free = [module for module in free if module not in recomputed]
    problems: list[str] = []
    if recomputed:
        problems.append(
            f"{_some([m.name for m in recomputed])}: PyTorch recomputes a weight from these "
            "(weight_norm, spectral_norm); torch.nn.utils.parametrize.remove_parametrizations "
            "makes it one again"
        )
    alike: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for unit, module, why in _near(left, free, sides):
        left.remove(unit)
        free.remove(module)
        kind = why.replace(module.name, "", 1)
        alike[kind].append((unit.path, f"{unit.path} ({shapes_of(unit)}): nearly fits, but {why}"))
    for kind, found in alike.items():
        problems += [line for _, line in found[:_ALIKE]]
        if len(found) > _ALIKE:
            more = _some([path for path, _ in found[_ALIKE:]])
            problems.append(f"… {more}: likewise ({kind.strip()})")
    for unit in left:
        names = [sides.modules[n].name for n in sides.options(unit)]
        why = f"no module is left for it, others need {_some(names)}"
        if not names:
            kept = [m.name for m in sides.modules if fitted(unit, m) is not None]
            why = f"the hints keep it from {_some(kept)}" if kept else ""
        why = why or "no module of the target fits it"
        problems.append(f"{unit.path} ({shapes_of(unit)}): {why}")
    for module in free:
        specs = ", ".join(f"{w.name} {w.spec}" for w in module.leaves.values() if w.number)
        problems.append(f"{specs}: no layer of the model fits it")
    if len(problems) > 2 * _SHOWN:
        problems = [*sorted(problems)[: 2 * _SHOWN], f"… and {len(problems) - 2 * _SHOWN} more"]
    return problems


def _near(
    left: Sequence[Unit], free: Sequence[Module], sides: Sides
) -> list[tuple[Unit, Module, str]]:
    """Units and modules that fit but for one thing, and that thing."""
    whys = [
        {
            number: why
            for number, module in enumerate(free)
            if not sides.options(unit)
            and sides.lets_in(unit, module)
            and (why := amiss(unit, module))
        }
        for unit in left
    ]
    mates: dict[int, int] = {}
    for number in range(len(left)):
        augment(number, [list(why) for why in whys], mates)
    return [
        (left[unit], free[module], whys[unit][module])
        for module, unit in sorted(mates.items(), key=lambda item: item[1])
    ]


def _some(names: Sequence[str]) -> str:
    """The first few of many names."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def shapes_of(unit: Unit) -> str:
    """The tensors of a unit, as people write them."""
    shapes = (
        f"{leaf} " * bool(leaf) + f"[{','.join(map(str, move.shape))}]"
        for leaf, move in unit.moves.items()
        if move.sources
    )
    return ", ".join(shapes)


def _short(unit: Unit) -> str:
    """The first two tensors of a unit: as many as tell it apart on one line."""
    first, *others = shapes_of(unit).split(", ")
    return ", ".join([first, *others[:1], *(["…"] if others[1:] else [])])


def table(rivals: Sequence[Rivals]) -> str:
    """What is open: for each group of units the modules that each could be in."""
    grouped = gathered(rivals)
    lines: list[str] = []
    for units, modules in grouped[:_SHOWN]:
        width = max(map(len, units))
        names = list(modules)
        shown = " or ".join(names[:4]) + (f" or {len(names) - 4} more" if len(names) > 4 else "")
        lines += [f"  {path:{width}}  {_short(unit)}  {shown}" for path, unit in units.items()]
    if len(grouped) > _SHOWN:
        lines.append(f"  … and {len(grouped) - _SHOWN} more")
    firsts = [(next(iter(units)), next(iter(modules))) for units, modules in grouped]
    hint = "=".join(firsts[0])
    pattern = re.sub("[0-9]+", "*", hint)
    if [re.sub("[0-9]+", "*", "=".join(pair)) for pair in firsts].count(pattern) > 1:
        hint = pattern  # of the blocks that are alike, one is as open as the other
    lines.append(
        f"Neither names nor order tell them apart: say it with --hint '{hint}', or run it with "
        "--inputs"
    )
    return "\n".join(lines)
