"""Which matrices lie turned; of a square one, as those around it do."""

from __future__ import annotations

from collections.abc import Sequence

from kerasport.errors import UnsupportedError
from kerasport.matching.fits import LINEAR
from kerasport.matching.sides import Sides
from kerasport.matching.target import Module
from kerasport.units import Unit

__all__ = ["turned_ones"]


def turned_ones(
    assigned: Sequence[tuple[Unit, Module]], sides: Sides, name: str
) -> tuple[dict[tuple[str, str], bool], set[tuple[str, str]]]:
    """For each matrix whether it is turned; of a square one, as those around it are.

    PyTorch's own modules keep `out in`, and that is what is taken where nothing says otherwise.
    Where the shapes around a square matrix say that its makers keep `in out`, it is turned too.

    Returns:
        Whether each is turned, and those of which nothing said so.
    """
    known: list[tuple[str, bool]] = []
    square: list[tuple[str, str, str]] = []
    found: dict[tuple[str, str], bool] = {}
    for unit, module in assigned:
        for leaf, spellings in sides.spellings(unit, module).items():
            ways = {spelling.turned for spelling in spellings}
            if unit.kind in LINEAR and len(unit.moves[leaf].shape) == 2:
                if len(ways) == 1:
                    found[unit.path, leaf] = way = ways.pop()
                    known.append((module.name, way))
                else:
                    square.append((unit.path, leaf, module.name))
    problems: list[str] = []
    assumed: set[tuple[str, str]] = set()
    for path, leaf, module_name in square:
        above = module_name
        near = set[bool]()
        while not near and above:
            above = above.rpartition(".")[0]
            near = {way for other, way in known if other.startswith(f"{above}." if above else "")}
        if len(near) > 1:
            problems.append(
                f"{module_name}: its matrix is square, and of those around it some are 'in out', "
                "others 'out in'"
            )
        if not near:
            assumed.add((path, leaf))
        found[path, leaf] = near == {True}
    if problems:
        raise UnsupportedError(f"{name} in more than one way:", problems)
    return found, assumed
