"""Which layer stands next to which, on both sides: what feeds what, and what a module lists so.

A normalization of 256 channels has the shape of twenty others, but it follows one convolution, and
whoever wrote the module put `bn3` beside `conv3`, and `downsample.1` behind `downsample.0`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from kerasport.matching.target import Module
from kerasport.matching.vocabulary import tokens_of
from kerasport.units import Unit

__all__ = ["Beside", "feeding", "listed"]

# For each of a side, those next to it: behind, and before.
Beside = tuple[Mapping[str, frozenset[str]], Mapping[str, frozenset[str]]]


def feeding(units: Sequence[Unit], ancestors: Mapping[str, frozenset[str]] | None) -> Beside:
    """For each layer that has weights, those that it feeds and those that feed it directly.

    Args:
        units: the units of all layers.
        ancestors: what each layer depends on; None where the file does not say.
    """
    layers = dict.fromkeys(unit.layer for unit in units)
    behind: dict[str, set[str]] = defaultdict(set)
    before: dict[str, frozenset[str]] = {}
    for layer in layers if ancestors is not None else ():
        assert ancestors is not None
        above = [path for path in layers if path in ancestors.get(layer, ())]
        far = frozenset[str]().union(*(ancestors[path] for path in above))
        before[layer] = frozenset(path for path in above if path not in far)
        for path in before[layer]:
            behind[path].add(layer)
    return {path: frozenset(found) for path, found in behind.items()}, before


def listed(modules: Sequence[Module], *, ordered: bool) -> Beside:
    """For each module, those that its parent has next to it.

    Those of one number, as `conv3` and `bn3`, and of the next one, as `conv4`; of numbers alone, as
    in a `Sequential`; and where no two have one number, in the order of their making.

    Args:
        modules: the target's modules.
        ordered: whether they stand in the order of their making.
    """
    behind: dict[str, set[str]] = defaultdict(set)
    children: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        children[module.name.rpartition(".")[0]].append(module.name)
    for siblings in children.values():
        own = {name: tokens_of(name.rpartition(".")[2]) for name in siblings}
        alike: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for name, tokens in own.items():
            numbers = tuple(t for t in tokens if isinstance(t, int))
            if numbers and len(numbers) < len(tokens):
                alike[numbers].append(name)
        twins = any(len(group) > 1 for group in alike.values())
        for group in alike.values():
            for name in group:
                behind[name].update(other for other in group if other != name)
        for one_group, other_group in pairwise(alike[n] for n in sorted(alike)):
            for name in one_group if twins else ():
                behind[name].update(other_group)
        chain = [name for name, tokens in own.items() if tokens and isinstance(tokens[0], int)]
        chain.sort(key=lambda name: [str(t).zfill(18) for t in own[name]])
        if ordered and not twins and not chain:
            chain = siblings
        for one, other in pairwise(chain):
            behind[one].add(other)
    before: dict[str, set[str]] = defaultdict(set)
    for name, found in behind.items():
        for other in found:
            before[other].add(name)
    return (
        {name: frozenset(found) for name, found in behind.items()},
        {name: frozenset(found) for name, found in before.items()},
    )
