"""What speaks for a unit's being in a module: repeated blocks, words that tell apart, and order."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from kerasport.matching.neighbours import feeding, listed
from kerasport.matching.sides import Sides
from kerasport.matching.target import Module
from kerasport.matching.vocabulary import apart, by_name, numbered, tokens_of, words_of
from kerasport.units import Unit

__all__ = ["LEAST", "ORDER", "Evidence"]

# How much stronger structure is than names, and names than order.
_BLOCK, ORDER, LEAST = 8.0, 0.2, 1e-6


class Evidence:
    """What speaks for a unit's being in a module.

    Args:
        units: all units.
        sides: what is known of both sides.
    """

    def __init__(self, units: Sequence[Unit], sides: Sides) -> None:
        self.sides = sides
        self.paths = numbered([unit.path for unit in units])
        self.blocks = _blocks(self.paths)
        names = {module.name: module.name.replace("#", ".") for module in sides.modules}
        self.target_blocks = _blocks(names)
        sizes = {b[2] for b in self.blocks.values()} & {b[2] for b in self.target_blocks.values()}
        # Blocks of which the other side has as many; others say nothing.
        self.blocks = {key: b for key, b in self.blocks.items() if b[2] in sizes}
        self.target_blocks = {key: b for key, b in self.target_blocks.items() if b[2] in sizes}
        self.feeding = feeding(units, sides.ancestors)
        self.listed = listed(sides.modules, ordered=sides.ordered)

    def weights(self, sources: Sequence[str], targets: Sequence[str]) -> Mapping[str, float]:
        """How much each word tells apart, on the side on which it tells less.

        What more than half of either side has is what they are all called, and tells nothing.
        """
        left = Counter(word for path in sources for word in words_of(path))
        right = Counter(word for name in targets for word in words_of(name))
        return {
            word: min(
                math.log((len(sources) + 1) / left[word]),
                math.log((len(targets) + 1) / right[word]),
            )
            for word in left.keys() & right.keys()
            if left[word] <= max(1, len(sources) / 2) and right[word] <= max(1, len(targets) / 2)
        }

    def structure(self, unit: Unit, module: Module) -> float:
        """Whether both are in a repeated block, and in the same one."""
        left, right = self.blocks.get(unit.path), self.target_blocks.get(module.name)
        if left is None and right is None:
            return 0.0
        if left is None or right is None:
            return -_BLOCK
        if left[2] != right[2]:
            return 0.0
        return _BLOCK if left[1] == right[1] else -_BLOCK

    def beside(self, unit: Unit, module: Module, settled: Mapping[str, frozenset[str]]) -> int:
        """On how many sides a unit has a neighbour whose module is the module's neighbour.

        Args:
            unit: the unit.
            module: the module.
            settled: the modules of each layer that is settled.
        """
        return sum(
            any(
                settled.get(layer, frozenset()) & there.get(module.name, frozenset())
                for layer in here.get(unit.layer, ())
            )
            for here, there in zip(self.feeding, self.listed, strict=True)
        )

    def source_order(self, one: Unit, other: Unit) -> int:
        """-1 where the first comes before the second, 1 behind it, 0 where nothing says so."""
        ancestors = self.sides.ancestors
        if ancestors is not None and one.layer != other.layer:
            top, below = _known(one.layer, ancestors), _known(other.layer, ancestors)
            if top and below and top != below:
                return (top in ancestors[below]) * -1 or int(below in ancestors[top])
        if one.layer == other.layer:
            return 0  # query, key and value stand side by side
        return by_name(self.paths[one.path], self.paths[other.path])

    def numbered_alike(self, one: Unit, other: Unit, first: Module, second: Module) -> int:
        """2 where two that stand side by side are numbered as their modules are, of one word.

        As `skip_3` and `skip_5` in `skips.3` and `skips.5`; -2 where it is the other way round.
        Words of the class do not count: Keras numbers layers itself, in the order of their making.
        """
        names = self.paths[one.path], self.paths[other.path]
        if not (words_of(names[0]) & words_of(first.name)) - words_of(one.kind):
            return 0
        here, there = apart(*names), apart(first.name, second.name)
        return 2 * (int(here == there) - int(here == -there)) if here else 0

    def target_order(self, one: Module, other: Module) -> int:
        """The same of two modules: of 2 where their names say it, of 1 where their making does.

        0 too where their names say another order than that of their making.
        """
        told = by_name(one.name.replace("#", "."), other.name.replace("#", "."))
        if not self.sides.ordered:
            return 2 * told
        made = -1 if one.place < other.place else 1
        return made + told if told in (0, made) else 0


def _blocks(names: Mapping[str, str]) -> dict[str, tuple[tuple[str, ...], int, int]]:
    """For each name in a repeated block: which family, which of how many.

    A block is what stands before and with a number, where something stands behind it, and there are
    several of one make.
    """
    families: dict[tuple[str, ...], dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    prefixes: dict[str, tuple[tuple[str, ...], int]] = {}
    for key, name in names.items():
        tokens = tokens_of(name)
        for n, token in enumerate(tokens[:-1]):
            if isinstance(token, int):
                family = tuple(map(str, tokens[:n]))
                families[family][token].add(key)
                prefixes[key] = (family, token)
                break
    found: dict[str, tuple[tuple[str, ...], int, int]] = {}
    for key, (family, number) in prefixes.items():
        members = families[family]
        if len(members) > 1 and sum(map(len, members.values())) > len(members):
            found[key] = (family, sorted(members).index(number), len(members))
    return found


def _known(path: str, ancestors: Mapping[str, object]) -> str:
    """The layer of the graph that a path is in: itself, or the one around it."""
    while path and path not in ancestors:
        path = path.rpartition("/")[0]
    return path
