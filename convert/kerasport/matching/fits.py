"""Whether a unit fits a module, and how: a sentence for each tensor, by the layout rules alone.

Shapes may differ in dimensions of extent one, and a matrix may be turned where some keep it so.
Nothing else is allowed to differ.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kerasport.matching.target import LEAVES, Module, Wanted
from kerasport.transpose import Move
from kerasport.units import Unit

__all__ = ["LINEAR", "Fit", "Spelling", "amiss", "fitted"]

# Kinds that are a matrix product, whose matrix some modules keep turned: `in out`.
LINEAR = frozenset(
    {
        *("Dense", "EinsumDense", "MultiHeadAttention", "GatedMultiHeadAttention"),
        *("GroupedQueryAttention", "GatedGroupedQueryAttention"),
    }
)
# Kinds whose result a bias is added to, one value for each of the weight's first dimension.
AFFINE = frozenset(
    {
        *("Conv1D", "Conv2D", "Conv3D", "Dense", "DepthwiseConv1D", "DepthwiseConv2D"),
        *("SeparableConv1D", "SeparableConv2D", "EinsumDense"),
    }
)
_SECOND = {"bias_ih": "bias_hh", "bias_hh": "bias_ih"}


@dataclass(frozen=True, slots=True)
class Spelling:
    """How one tensor of a unit lies in one of the target.

    Attributes:
        target: the tensor's name.
        sentence: how it lies there.
        turned: whether its matrix is turned.
        respelled: whether the sentence is another than torch.nn's.
        by_head: whether query, key and value alternate, head by head.
    """

    target: str
    sentence: str
    turned: bool
    respelled: bool
    by_head: bool = False


@dataclass(frozen=True, slots=True)
class Fit:
    """How a unit lies in a module.

    Attributes:
        spellings: for each of the unit's tensors the ways in which it can lie.
        zeros: biases of the module that the layer does not have.
    """

    spellings: Mapping[str, Sequence[Spelling]]
    zeros: tuple[str, ...] = ()


def fitted(unit: Unit, module: Module, *, zeros: bool = False) -> Fit | None:
    """How each tensor of the unit lies in the module; None where one does not.

    Args:
        unit: the unit.
        module: the module.
        zeros: whether one side may have a bias that the other has not: one of zeros adds nothing.
    """
    # Most do not, and the number of values tells.
    real, most = (
        sum(math.prod(m.shape) for m in unit.moves.values() if m.sources or made_up)
        for made_up in (False, True)
    )
    held = sum(math.prod(w.shape) for w in module.leaves.values() if w.number)
    if not zeros and not real <= held <= most:
        return None
    placed, lacking, unlike, more = _compared(unit, module)
    if unlike or ((lacking or more) and not zeros):
        return None
    if not all(_is_bias(leaf) and _is_zero(unit.moves[leaf]) for leaf in lacking):
        return None
    own = unit.moves.get("weight")
    if more and (own is None or own.layout is None or own.kind not in AFFINE):
        return None
    if not all(w.name == f"{module.name}.bias" and w.shape == own.shape[:1] for w in more if own):
        return None
    return Fit(placed, tuple(w.name for w in more))


def amiss(unit: Unit, module: Module) -> str:
    """What keeps a unit out of a module that it nearly fits; empty where it is more than a little.

    Args:
        unit: a unit that does not fit.
        module: the module.
    """
    placed, lacking, unlike, more = _compared(unit, module)
    if not placed and not unlike:
        return ""
    if not unlike and len(lacking) + len(more) == 1:
        if lacking:
            told = ", and the model's is not zero" if _is_bias(lacking[0]) else ""
            return f"{module.name} has no {lacking[0]}{told}"
        return f"the model has no {more[0].name.removeprefix(f'{module.name}.')}"
    if unlike and not lacking and not more:
        there = ", ".join(f"{leaf} {module_leaf.spec}" for leaf, module_leaf in unlike.items())
        return f"{module.name} has {there}"
    return ""


def _compared(
    unit: Unit, module: Module
) -> tuple[dict[str, list[Spelling]], list[str], dict[str, Wanted], list[Wanted]]:
    """Tensors that lie in the module, that it lacks, that are unlike, and that it has more."""
    placed: dict[str, list[Spelling]] = {}
    lacking: list[str] = []
    unlike: dict[str, Wanted] = {}
    taken: set[str] = set()
    for leaf, move in unit.moves.items():
        wanted = _leaf(unit, leaf, module)
        if wanted is None:
            # What was made up is not missed.
            lacking += [leaf] if move.sources else []
            continue
        taken.add(wanted.name)
        spellings = _spellings(unit, leaf, move, wanted)
        if spellings:
            placed[leaf] = spellings
        else:
            unlike[leaf] = wanted
    more = [w for w in module.leaves.values() if w.number and w.name not in taken]
    return placed, lacking, unlike, more


def _is_bias(leaf: str) -> bool:
    return leaf == "bias"


def _is_zero(move: Move) -> bool:
    return all(not source.numpy().any() for source in move.sources)


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
    if unit.labels:
        found += [
            replace(spelling, sentence=sentence, respelled=True, by_head=True)
            for spelling in found
            if (sentence := _by_head(spelling.sentence)) != spelling.sentence
        ]
    return found


def _by_head(sentence: str) -> str:
    """Query, key and value that alternate head by head, as GPT-NeoX and BLOOM have them.

    >>> _by_head("([q k v] head key) query_in")
    '(head [q k v] key) query_in'
    """
    return re.sub(r"\((\[[^]]+\]) (\w+) (\w+)\)", r"(\2 \1 \3)", sentence)


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
