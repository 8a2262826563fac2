"""What is known of both sides: the modules, the order, the hints, and which units fit which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from kerasport.errors import UsageError
from kerasport.matching.fits import Spelling, fitted
from kerasport.matching.target import Module
from kerasport.units import Group, Unit

__all__ = ["Sides", "check_hints"]


@dataclass(slots=True)
class Sides:
    """What is known of both sides beside their tensors."""

    modules: Sequence[Module]
    ordered: bool
    hints: Sequence[tuple[str, str]]
    rank: Mapping[str, int]
    ancestors: Mapping[str, frozenset[str]] | None
    fits: dict[tuple[int, int], dict[str, list[Spelling]] | None] = field(default_factory=dict)
    choices: dict[int, list[int]] = field(default_factory=dict)

    def options(self, unit: Unit) -> list[int]:
        """The numbers of the modules that a unit fits."""
        if id(unit) not in self.choices:
            self.choices[id(unit)] = [
                number
                for number, module in enumerate(self.modules)
                if self.fit(unit, module) is not None
            ]
        return self.choices[id(unit)]

    def fit(self, unit: Unit, module: Module) -> dict[str, list[Spelling]] | None:
        """How the tensors of a unit lie in a module, found out once; None where they do not."""
        key = (id(unit), id(module))
        if key not in self.fits:
            self.fits[key] = fitted(unit, module) if _allowed(unit, module, self.hints) else None
        return self.fits[key]


def _allowed(unit: Unit, module: Module, hints: Sequence[tuple[str, str]]) -> bool:
    """Whether the hints let a unit into a module."""
    for left, right in hints:
        own = any(fnmatchcase(path, left) for path in (unit.path, unit.layer, *unit.paths))
        if own != fnmatchcase(module.name.replace("#", ""), right):
            return False
    return True


def check_hints(
    found: Sequence[Group], modules: Sequence[Module], hints: Sequence[tuple[str, str]]
) -> None:
    """Refuse hints that fit nothing.

    Raises:
        UsageError: a pattern fits no layer, or no module.
    """
    paths = {
        path
        for group in found
        for reading in group.readings
        for unit in reading
        for path in (unit.path, unit.layer, *unit.paths)
    }
    for left, right in hints:
        if not any(fnmatchcase(path, left) for path in paths):
            raise UsageError(f"--hint {left}={right}: no layer fits {left!r}")
        if not any(fnmatchcase(module.name.replace("#", ""), right) for module in modules):
            raise UsageError(f"--hint {left}={right}: no module of the target fits {right!r}")
