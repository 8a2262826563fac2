"""Whether a unit fits a module, and how: a sentence for each tensor, by the layout rules alone.

Shapes may differ in dimensions of extent one, and a matrix may be turned where some keep it so.
Nothing else is allowed to differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kerasport.matching.target import LEAVES, Module, Wanted
from kerasport.transpose import Move
from kerasport.units import Unit

__all__ = ["LINEAR", "Spelling", "fitted"]

# Kinds that are a matrix product, whose matrix some modules keep turned: `in out`.
LINEAR = frozenset(
    {
        *("Dense", "EinsumDense", "MultiHeadAttention", "GatedMultiHeadAttention"),
        *("GroupedQueryAttention", "GatedGroupedQueryAttention"),
    }
)
_SECOND = {"bias_ih": "bias_hh", "bias_hh": "bias_ih"}


@dataclass(frozen=True, slots=True)
class Spelling:
    """How one tensor of a unit lies in one of the target: the sentence, and whether turned."""

    target: str
    sentence: str
    turned: bool
    respelled: bool


def fitted(unit: Unit, module: Module) -> dict[str, list[Spelling]] | None:
    """How each tensor of the unit lies in the module; None where one does not."""
    # Most do not, and the number of values tells.
    real, most = (
        sum(math.prod(m.shape) for m in unit.moves.values() if m.sources or made_up)
        for made_up in (False, True)
    )
    if not real <= sum(math.prod(w.shape) for w in module.leaves.values() if w.number) <= most:
        return None
    placed: dict[str, list[Spelling]] = {}
    taken: set[str] = set()
    for leaf, move in unit.moves.items():
        wanted = _leaf(unit, leaf, module)
        if wanted is None:
            if move.sources:
                return None
            continue  # what was made up is not missed
        spellings = _spellings(unit, leaf, move, wanted)
        if not spellings:
            return None
        placed[leaf] = spellings
        taken.add(wanted.name)
    if any(w.number and w.name not in taken for w in module.leaves.values()):
        return None
    return placed


def _leaf(unit: Unit, leaf: str, module: Module) -> Wanted | None:
    """The module's tensor for one of the unit's."""
    role = LEAVES.get(leaf, leaf)
    other = _SECOND.get(role.partition("_l0")[0])
    if other is not None and _other_way_round(module, role):
        role = role.replace(role.partition("_l0")[0], other)
    if leaf.startswith("in_proj_"):  # of nn.MultiheadAttention, which has no other names
        found = module.leaves.get(role)
        return found if found is not None and found.name.endswith(leaf) else None
    if role in module.leaves:
        return module.leaves[role]
    if role and f"{role}_l0" in module.leaves:
        return module.leaves[f"{role}_l0"]  # a cell's, of a layer
    if role.replace("_l0", "") in module.leaves:
        return module.leaves[role.replace("_l0", "")]
    # One tensor alone may have any name: a parameter of a module of somebody's own.
    if sum(1 for move in unit.moves.values() if move.sources) == 1 and len(module.leaves) == 1:
        return next(iter(module.leaves.values())) if unit.moves[leaf].sources else None
    return None


def _other_way_round(module: Module, role: str) -> bool:
    """Whether a module keeps a single bias in the second of the two that PyTorch adds."""
    tail = role.removeprefix("bias_ih").removeprefix("bias_hh")
    first, second = module.leaves.get(f"bias_ih{tail}"), module.leaves.get(f"bias_hh{tail}")
    return first is not None and second is not None and first.blank and not second.blank


def _spellings(unit: Unit, leaf: str, move: Move, wanted: Wanted) -> list[Spelling]:
    plain = unit.plain(leaf)
    dims = [str(dim) for dim in plain.dims]
    # An axis that an image was flattened into may be called as one of the image's own.
    sizes = unit.sizes if leaf in unit.own else {**unit.sizes, **move.sizes}
    extents = list(plain.shape(sizes))
    found: list[Spelling] = []
    turns = [False]
    if unit.kind in LINEAR and len(dims) == 2 and not plain.order:
        turns.append(True)
    for turned in turns:
        step = -1 if turned else 1
        words = _aligned(dims[::step], extents[::step], wanted.shape)
        if words is not None and not (plain.order and words != " ".join(dims)):
            sentence = str(plain) if plain.order else words
            found.append(Spelling(wanted.name, sentence, turned, sentence != str(plain)))
    return found


def _aligned(dims: Sequence[str], extents: Sequence[int], shape: Sequence[int]) -> str | None:
    """The dimensions in an array that has ones in other places; None where they do not fit.

    >>> _aligned(["token", "embed"], [5, 3], [1, 5, 3])
    '1 token embed'
    >>> _aligned(["out", "in", "k"], [5, 3, 1], [5, 3])
    'out (in k)'
    """
    words: list[list[str]] = []
    at = 0
    for extent in shape:
        while at < len(dims) and extents[at] == 1 != extent:
            if words:
                words[-1].append(dims[at])
            else:
                dims = (
                    [*dims[: at + 1], f"({dims[at]} {dims[at + 1]})", *dims[at + 2 :]]
                    if (at + 1 < len(dims))
                    else dims
                )
            at += 1
        if at < len(dims) and extents[at] == extent:
            words.append([dims[at]])
            at += 1
        elif extent == 1:
            words.append(["1"])
        else:
            return None
    for rest in range(at, len(dims)):
        if extents[rest] != 1:
            return None
        if words:
            words[-1].append(dims[rest])
        elif dims[rest] != "1":
            return None
    return " ".join(_merged(terms) for terms in words)


def _merged(terms: Sequence[str]) -> str:
    kept = [term for term in terms if term != "1"] or ["1"]
    return kept[0] if len(kept) == 1 else f"({' '.join(kept)})"
