"""What is known of both sides: the modules, the order, the hints, and which units fit which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from kerasport.errors import UsageError
from kerasport.matching.fits import Fit, Spelling, fitted
from kerasport.matching.target import Module
from kerasport.units import Group, Unit

__all__ = ["Sides", "check_hints"]


@dataclass(slots=True)
class Sides:
    """What is known of both sides beside their tensors.

    Attributes:
        modules: the target's modules.
        ordered: whether they stand in the order of their making.
        hints: patterns of units and of modules that belong together.
        rank: the place of each layer in the model.
        ancestors: what each layer depends on; None where the file does not say.
        zeros: whether one side may have a bias of zeros that the other has not.
    """

    modules: Sequence[Module]
    ordered: bool
    hints: Sequence[tuple[str, str]]
    rank: Mapping[str, int]
    ancestors: Mapping[str, frozenset[str]] | None
    zeros: bool = False
    fits: dict[tuple[int, int], Fit | None] = field(default_factory=dict)
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

    def fit(self, unit: Unit, module: Module) -> Fit | None:
        """How the tensors of a unit lie in a module, found out once; None where they do not."""
        key = (id(unit), id(module))
        if key not in self.fits:
            let_in = self.lets_in(unit, module)
            self.fits[key] = fitted(unit, module, zeros=self.zeros) if let_in else None
        return self.fits[key]

    def spellings(self, unit: Unit, module: Module) -> Mapping[str, Sequence[Spelling]]:
        """The ways in which each tensor of a unit can lie in a module that it fits."""
        fit = self.fit(unit, module)
        return {} if fit is None else fit.spellings

    def lets_in(self, unit: Unit, module: Module) -> bool:
        """Whether the hints let a unit into a module."""
        for left, right in self.hints:
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
