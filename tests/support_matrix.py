"""What each convention makes of each kind of layer: exact, split, joined, or not, and why.

Everything follows from the conventions' tables. A weight is *split* where a target keeps the
numbers of one of Keras's tensors in several, *joined* where it keeps those of several in one, and
both leave every number as it is. So does *exact*, where tensors correspond one to one and only
axes change places.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kerasport.conventions import Absent, Slot, convention, rows
from kerasport.hints import KINDS, changing
from kerasport.variants import LORA, plain

TARGETS = ("torch", "onnx")


@dataclass(slots=True)
class Reasons:
    """Why something cannot be, numbered in the order of first mention."""

    numbers: dict[str, int] = field(default_factory=dict)

    def mark(self, reason: str) -> str:
        """The number that stands for a reason."""
        return f"[{self.numbers.setdefault(reason, len(self.numbers) + 1)}]"


def kinds() -> list[str]:
    """The kinds that get a line; bidirectional layers are their layer twice."""
    names = convention("keras")
    return [k for k in names if not k.startswith("Bidirectional") and not k.endswith(LORA)]


def verdict(kind: str, to: str, reasons: Reasons) -> str:
    """What a convention makes of a kind."""
    stored = _slots(kind, "keras")
    found: list[str] = []
    for case in rows(convention(to)[kind]):
        if isinstance(case.slots, Absent):
            text = f"— {reasons.mark(case.slots.reason)}"
        else:
            text = _way(stored, case.slots)
        found.append(f"{text} where {_condition(case.where)}" if case.where else text)
    return ", else ".join(dict.fromkeys(found))


def lines() -> tuple[list[tuple[str, ...]], list[str]]:
    """The rows of the matrix, kinds of like rows in one, and the reasons that it refers to."""
    reasons = Reasons()
    grouped: dict[tuple[str, ...], list[str]] = {}
    for kind in kinds():
        cells = tuple(verdict(kind, to, reasons) for to in TARGETS)
        family = re.sub(r"\d", "", plain(kind)) + ("" if plain(kind) == kind else " quantized")
        names = [name for name in KINDS.get(plain(kind), ()) if changing(name)]
        hints = ", ".join(names if plain(kind) == kind else ["quantization", *names])
        grouped.setdefault((family, *cells, hints), []).append(kind)
    body = [(", ".join(members), *cells, hints) for (_, *cells, hints), members in grouped.items()]
    return body, list(reasons.numbers)


def _slots(kind: str, name: str) -> Sequence[Slot]:
    cases = [case.slots for case in rows(convention(name)[kind])]
    return max((slots for slots in cases if not isinstance(slots, Absent)), key=len)


def _way(stored: Sequence[Slot], made: Sequence[Slot]) -> str:
    """How the tensors of a target come of those of Keras."""
    before, after = _tensors(stored), _tensors(made)
    split = [weight for weight in after if after[weight] > before[weight] > 0]
    joined = [weight for weight in after if before[weight] > after[weight]]
    words = [
        f"{word}: {', '.join(f'`{weight}`' for weight in weights)}"
        for word, weights in (("split", split), ("joined", joined))
        if weights
    ]
    return "; ".join(words) or "exact"


def _tensors(slots: Sequence[Slot]) -> Counter[str]:
    """How many tensors hold numbers of each weight."""
    return Counter(weight for weight, _ in dict.fromkeys(_places(slots)))


def _places(slots: Sequence[Slot]) -> Iterator[tuple[str, str]]:
    """The weights, and which part of each; one part may have two names."""
    for slot in slots:
        for weight in slot.of.split():
            yield weight, slot.at


def _condition(where: Sequence[str]) -> str:
    return " and ".join(f"`{equation}`" for equation in where)
