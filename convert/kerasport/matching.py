"""Which module of a PyTorch model is which layer of a Keras model, from structure and names.

Two people who build one network agree on its shapes and on little else. So the evidence is taken in
the order of its strength. A unit of the source (`units`) fits a module only if every tensor fits by
the layout rules. Repeated blocks answer repeated blocks, the third one the third one. Names count
for what they tell apart: a word that all candidates have in common says nothing, a `query` among
keys and values says all. Order counts last, and only where it means something: one layer feeds the
other, siblings are numbered, or a module lists what it registered in turn.

The best assignment of all is one assignment among many, and that it is the best is no proof. So for
each pair of units that could change places, something must speak against it. Where nothing does,
the pair is ambiguous, and the match is refused with the table of what is open: a hint settles it.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from itertools import islice, permutations, product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kerasport.architecture import Graph, parse
from kerasport.errors import UnsupportedError, UsageError
from kerasport.model import Snapshot
from kerasport.transpose import Move
from kerasport.units import Group, Reading, Unit

__all__ = ["Found", "Pair", "Wanted", "match"]

Array = npt.NDArray[Any]

# Kinds that are a matrix product, whose matrix some modules keep turned: `in out`.
LINEAR = frozenset(
    {
        *("Dense", "EinsumDense", "MultiHeadAttention", "GatedMultiHeadAttention"),
        *("GroupedQueryAttention", "GatedGroupedQueryAttention"),
    }
)
# What a tensor is to its module, by what people call it.
LEAVES = {
    word: role
    for role, words in {
        "weight": "weight kernel gamma scale w g embeddings embedding in_proj_weight",
        "bias": "bias beta b offset shift in_proj_bias",
        "running_mean": "running_mean moving_mean mean",
        "running_var": "running_var moving_variance moving_var variance var",
        "num_batches_tracked": "num_batches_tracked",
    }.items()
    for word in words.split()
}
RECURRENT = re.compile(r"((?:weight|bias)_(?:ih|hh))(?:_l(\d+))?(_reverse)?$")
_SECOND = {"bias_ih": "bias_hh", "bias_hh": "bias_ih"}
# Words that mean one thing, and those that mean nothing.
MEANINGS = {
    word: meaning
    for meaning, words in {
        "norm": "layernorm norm ln bn batchnorm groupnorm rmsnorm normalization",
        "attention": "attention attn mha selfattn selfattention attend",
        "query": "query q wq",
        "key": "key k wk",
        "value": "value v wv",
        "output": "output out o wo",
        "feedforward": "feedforward ff ffn mlp",
        "dense": "dense linear fc lin",
        "embedding": "embedding embeddings embed emb",
        "token": "token tokens tok word words",
        "position": "position positions positional pos",
        "segment": "segment seg tokentype type",
        "encoder": "encoder enc",
        "decoder": "decoder dec",
        "conv": "conv convolution convs",
        "pool": "pooled pooler pool",
        "head": "head heads classifier logits predictions",
        "final": "final f last",
        "depthwise": "depthwise dw",
        "pointwise": "pointwise pw",
        "recurrent": "lstm gru rnn recurrent",
        "cls": "cls class",
        "patch": "patch patching patches",
    }.items()
    for word in words.split()
}
EMPTY = frozenset(
    """
    layer layers block blocks module modules model the proj projection c h of
    """.split()  # noqa: SIM905 as words it can be read
)
PHRASES = (
    ("token_type", "segment"),
    ("layer_norm", "norm"),
    ("batch_norm", "norm"),
    ("feed_forward", "feedforward"),
    ("wte", "token_embedding"),
    ("wpe", "position_embedding"),
)
# What comes first in a block of a transformer, and what words say of two that are alike.
STAGES = {"attention": 0, "cross": 1, "feedforward": 2}
ORDINALS = {"before": 0, "pre": 0, "first": 0, "after": 1, "post": 1, "second": 1}
_TOKEN = re.compile(r"[a-z]+|[0-9]{1,18}")
_COMBINATIONS = 96
# How many ways are tried by running the target.
_RUNS = 2000
_SHOWN = 12
# How much stronger structure is than names, and names than order.
_BLOCK, _ORDER, _LEAST = 8.0, 0.2, 1e-6
# What it counts that both sides have one name, numbers and all.
_SAME = 8.0

How = Literal["shape", "names", "order", "running"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A tensor that the target has.

    Attributes:
        name: its name.
        shape: its shape.
        number: whether it is of a dtype that weights have.
        blank: whether it is known to hold nothing but zeros.
    """

    name: str
    shape: tuple[int, ...]
    number: bool = True
    blank: bool = False

    @property
    def spec(self) -> str:
        """Its shape as people write it."""
        return f"[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True, eq=False, slots=True)
class _Module:
    """Tensors of the target that belong together; `leaves` by what they are to it."""

    name: str
    leaves: Mapping[str, Wanted]
    place: int


@dataclass(frozen=True, slots=True)
class _Spelling:
    """How one tensor of a unit lies in one of the target: the sentence, and whether turned."""

    target: str
    sentence: str
    turned: bool
    respelled: bool


@dataclass(frozen=True, eq=False, slots=True)
class Pair:
    """A unit of the source in a module of the target.

    Attributes:
        unit: the unit.
        module: the module's name; the tensor's where it is no module's.
        tensors: by the unit's own name for it, the target tensor's name and its sentence.
        how: what settled it.
        assumed: which of its tensors are square matrices of which nothing says how they lie.
    """

    unit: Unit
    module: str
    tensors: Mapping[str, tuple[str, str]]
    how: How
    assumed: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False, slots=True)
class Found:
    """What a match found.

    Attributes:
        pairs: in the target's order.
        kinds: the kinds of layers that the target settled, by path.
        kept: tensors of the target that are no weights.
    """

    pairs: tuple[Pair, ...]
    kinds: Mapping[str, str]
    kept: tuple[str, ...]


@dataclass(slots=True)
class _Sides:
    """What is known of both sides beside their tensors."""

    modules: Sequence[_Module]
    ordered: bool
    hints: Sequence[tuple[str, str]]
    rank: Mapping[str, int]
    ancestors: Mapping[str, frozenset[str]] | None
    fits: dict[tuple[int, int], dict[str, list[_Spelling]] | None] = field(default_factory=dict)
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

    def fit(self, unit: Unit, module: _Module) -> dict[str, list[_Spelling]] | None:
        """How the tensors of a unit lie in a module, found out once; None where they do not."""
        key = (id(unit), id(module))
        if key not in self.fits:
            self.fits[key] = _fit(unit, module) if _allowed(unit, module, self.hints) else None
        return self.fits[key]


def match(
    snapshot: Snapshot,
    found: Sequence[Group],
    target: Sequence[Wanted],
    *,
    ordered: bool,
    hints: Iterable[tuple[str, str]] = (),
    name: str = "the target",
    judge: Callable[[Found], bool] | None = None,
) -> Found:
    """The one way in which the weights of a model go into the tensors of a target.

    Args:
        snapshot: the model.
        found: its layers in all their readings, as `units.groups` gives them.
        target: the tensors that it is to become.
        ordered: whether they stand in the order of their making.
        hints: pairs of patterns, of units and of target names, that belong together.
        name: what the target is called in errors.
        judge: runs the target with the weights in it: does it put out what the model did?

    Raises:
        UnsupportedError: there is no way, or more than one; with what is open and why.
        UsageError: a hint fits nothing.
    """
    hints = tuple(hints)
    modules = _modules(target)
    sides = _Sides(
        modules,
        ordered,
        hints,
        {path: n for n, path in enumerate(snapshot)},
        _ancestors(snapshot),
    )
    _check_hints(found, modules, hints)
    unreadable = sorted(f"{g.layers[0]}: {g.why}" for g in found if not g.readings)
    if unreadable:
        raise UnsupportedError(f"{snapshot.source.file} cannot be matched:", unreadable)
    units = _chosen(found, sides)
    problems = _impossible(units, sides, found)
    if problems:
        raise UnsupportedError(
            f"{snapshot.source.file} does not go into {name}:",
            problems,
            advice="A part is matched with --include, --exclude and --keep",
        )
    title = f"{snapshot.source.file} goes into {name}"
    place = {module.name: module.place for module in modules}

    def made(pairs: Sequence[Pair]) -> Found:
        used = {tensor for pair in pairs for tensor, _ in pair.tensors.values()}
        kinds = {
            pair.unit.layer: pair.unit.kind
            for pair in pairs
            if pair.unit.kind and snapshot[pair.unit.layer].kind is None
        }
        return Found(
            tuple(sorted(pairs, key=lambda pair: place[pair.module])),
            kinds,
            tuple(wanted.name for wanted in target if wanted.name not in used),
        )

    ways = _ways(units, sides, name=title, several=judge is not None)
    if judge is None:
        return made(next(ways))
    tried = [made(pairs) for pairs in islice(ways, _RUNS + 1)]
    if len(tried) > _RUNS:
        raise UnsupportedError(f"{title} in more than {_RUNS} ways, too many to run: give hints")
    right = [way for way in tried if judge(way)]
    if len(right) != 1:
        raise UnsupportedError(
            f"{title} in {len(tried)} {'way' if len(tried) == 1 else 'ways'}, and {len(right)} of "
            "them put out what the model did. Are the inputs as the module takes them?"
        )
    return right[0]


# ------------------------------------------------------------------------------------ the target


def _modules(target: Sequence[Wanted]) -> list[_Module]:
    """The tensors by module: those whose names are what modules call theirs, others alone."""
    grouped: dict[str, dict[str, Wanted]] = {}
    for wanted in target:
        above, _, own = wanted.name.rpartition(".")
        recurrent = RECURRENT.match(own)
        if recurrent:
            number = recurrent[2] or "0"
            key = above if number == "0" else f"{above}#{number}"
            leaf = recurrent[1] + ("_l0" if recurrent[2] else "") + (recurrent[3] or "")
        elif own.lower() in LEAVES:
            key, leaf = above, LEAVES[own.lower()]
        else:
            key, leaf = wanted.name, ""
        if leaf in grouped.get(key, {}):
            key, leaf = wanted.name, ""
        grouped.setdefault(key, {})[leaf] = wanted
    return [_Module(key, leaves, n) for n, (key, leaves) in enumerate(grouped.items())]


# ------------------------------------------------------------------------------------------ fits


def _fit(unit: Unit, module: _Module) -> dict[str, list[_Spelling]] | None:
    """How each tensor of the unit lies in the module; None where one does not."""
    # Most do not, and the number of values tells.
    real, most = (
        sum(math.prod(m.shape) for m in unit.moves.values() if m.sources or made_up)
        for made_up in (False, True)
    )
    if not real <= sum(math.prod(w.shape) for w in module.leaves.values() if w.number) <= most:
        return None
    placed: dict[str, list[_Spelling]] = {}
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


def _leaf(unit: Unit, leaf: str, module: _Module) -> Wanted | None:
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


def _other_way_round(module: _Module, role: str) -> bool:
    """Whether a module keeps a single bias in the second of the two that PyTorch adds."""
    tail = role.removeprefix("bias_ih").removeprefix("bias_hh")
    first, second = module.leaves.get(f"bias_ih{tail}"), module.leaves.get(f"bias_hh{tail}")
    return first is not None and second is not None and first.blank and not second.blank


def _spellings(unit: Unit, leaf: str, move: Move, wanted: Wanted) -> list[_Spelling]:
    plain = unit.plain(leaf)
    dims = [str(dim) for dim in plain.dims]
    # An axis that an image was flattened into may be called as one of the image's own.
    sizes = unit.sizes if leaf in unit.own else {**unit.sizes, **move.sizes}
    extents = list(plain.shape(sizes))
    found: list[_Spelling] = []
    turns = [False]
    if unit.kind in LINEAR and len(dims) == 2 and not plain.order:
        turns.append(True)
    for turned in turns:
        step = -1 if turned else 1
        words = _aligned(dims[::step], extents[::step], wanted.shape)
        if words is not None and not (plain.order and words != " ".join(dims)):
            sentence = str(plain) if plain.order else words
            found.append(_Spelling(wanted.name, sentence, turned, sentence != str(plain)))
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


# -------------------------------------------------------------------------------------- readings


def _chosen(found: Sequence[Group], sides: _Sides) -> list[Unit]:
    """The units of all layers, each in the reading in which most of them find a module."""
    alike: dict[object, list[Group]] = defaultdict(list)
    for group in found:
        alike[tuple(_look(reading) for reading in group.readings)].append(group)
    choices: list[list[int]] = []
    for groups in alike.values():
        group = groups[0]
        open_ones = [
            n
            for n, reading in enumerate(group.readings)
            if all(sides.options(unit) for unit in reading)
        ]
        choices.append(open_ones or [0])
    best: tuple[int, int] | None = None
    units: list[Unit] = []
    for picks in islice(_by_sum(choices), _COMBINATIONS):
        tried = [
            unit
            for groups, pick in zip(alike.values(), picks, strict=True)
            for group in groups
            for unit in group.readings[pick]
        ]
        cost = _cost(tried, sides)
        if best is None or cost < best:
            best, units = cost, tried
        if cost == (0, 0):
            break
    return units


def _by_sum(choices: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """All combinations, the most usual readings first."""
    count = math.prod(map(len, choices))
    if count > 50_000:  # too many to sort: vary the first ones only
        return [tuple(options[0] for options in choices)]
    return sorted(product(*choices), key=lambda picks: (sum(picks), picks))


def _look(reading: Reading) -> object:
    return tuple(
        (unit.kind, tuple((leaf, move.shape) for leaf, move in unit.moves.items()))
        for unit in reading
    )


def _cost(units: Sequence[Unit], sides: _Sides) -> tuple[int, int]:
    """How many units and modules are left over at best, and how many are spelled unusually."""
    mates: dict[int, int] = {}
    options = [sides.options(unit) for unit in units]
    for unit in range(len(units)):
        _augment(unit, options, mates)
    real = [n for n, m in enumerate(sides.modules) if any(w.number for w in m.leaves.values())]
    left = len(units) - len(mates) + len(set(real) - mates.keys())
    respelled = sum(
        min(s.respelled + s.turned for s in spellings)
        for module, unit in mates.items()
        for spellings in (sides.fit(units[unit], sides.modules[module]) or {}).values()
    )
    return left, respelled


def _augment(unit: int, options: Sequence[Sequence[int]], mates: dict[int, int]) -> bool:
    """One step of a maximum matching, without recursion: a path to a free module, and back."""
    came: dict[int, int] = {}
    queue = [unit]
    for current in queue:
        for module in options[current]:
            if module in came:
                continue
            came[module] = current
            if module not in mates:
                while True:
                    owner = came[module]
                    previous = next((m for m, u in mates.items() if u == owner), None)
                    mates[module] = owner
                    if previous is None or owner == unit:
                        return True
                    module = previous
            queue.append(mates[module])
    return False


def _allowed(unit: Unit, module: _Module, hints: Sequence[tuple[str, str]]) -> bool:
    """Whether the hints let a unit into a module."""
    for left, right in hints:
        own = any(fnmatchcase(path, left) for path in (unit.path, unit.layer, *unit.paths))
        if own != fnmatchcase(module.name.replace("#", ""), right):
            return False
    return True


def _check_hints(
    found: Sequence[Group], modules: Sequence[_Module], hints: Sequence[tuple[str, str]]
) -> None:
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


def _impossible(units: Sequence[Unit], sides: _Sides, found: Sequence[Group]) -> list[str]:
    """What finds no place, on either side, and the nearest that there is."""
    problems: list[str] = []
    mates: dict[int, int] = {}
    options = [sides.options(unit) for unit in units]
    for number in range(len(units)):
        _augment(number, options, mates)
    placed = set(mates.values())
    for number, unit in enumerate(units):
        if number not in placed:
            shapes = _shapes(unit)
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


def _shapes(unit: Unit) -> str:
    shapes = (
        f"{leaf} " * bool(leaf) + f"[{','.join(map(str, move.shape))}]"
        for leaf, move in unit.moves.items()
        if move.sources
    )
    return ", ".join(shapes)


# ------------------------------------------------------------------------------------ evidence


@cache
def _tokens(name: str) -> tuple[str | int, ...]:
    """The words and numbers of a name, in order."""
    lowered = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    for phrase, meaning in PHRASES:
        lowered = lowered.replace(phrase, meaning)
    return tuple(int(t) if t.isdigit() else t for t in _TOKEN.findall(lowered))


@cache
def _words(name: str) -> frozenset[str]:
    """What a name says, without numbers and words that say nothing."""
    words = (MEANINGS.get(t, t) for t in _tokens(name) if isinstance(t, str))
    return frozenset(word for word in words if word not in EMPTY)


def numbered(paths: Sequence[str]) -> dict[str, str]:
    """Paths in which Keras's first of several is numbered as the others are.

    >>> numbered(["block/dense", "block_1/dense"])
    {'block/dense': 'block_0/dense', 'block_1/dense': 'block_1/dense'}
    """
    siblings: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        words = path.split("/")
        for n, word in enumerate(words):
            siblings["/".join(words[:n])].add(word)
    made: dict[str, str] = {}
    for path in paths:
        words = path.split("/")
        made[path] = "/".join(
            f"{word}_0" if f"{word}_1" in siblings["/".join(words[:n])] else word
            for n, word in enumerate(words)
        )
    return made


def _blocks(names: Mapping[str, str]) -> dict[str, tuple[tuple[str, ...], int, int]]:
    """For each name in a repeated block: which family, which of how many.

    A block is what stands before and with a number, where something stands behind it, and there are
    several of one make.
    """
    families: dict[tuple[str, ...], dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    prefixes: dict[str, tuple[tuple[str, ...], int]] = {}
    for key, name in names.items():
        tokens = _tokens(name)
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


def _ancestors(snapshot: Snapshot) -> Mapping[str, frozenset[str]] | None:
    """For each layer, those that it depends on; None where the file does not say."""
    graph = None if snapshot.architecture is None else parse(snapshot.architecture)
    if graph is None:
        return None
    found: dict[str, frozenset[str]] = {}
    _walk(graph, "", frozenset(), found)
    return found


def _walk(
    graph: Graph, prefix: str, before: frozenset[str], found: dict[str, frozenset[str]]
) -> None:
    """Everything that each layer depends on, that of models around it too."""
    wired = any(node.inputs for node in graph.nodes)
    chain = graph.class_name in ("Sequential", "Pipeline")
    if not wired and not chain:
        return
    above: dict[str, set[str]] = {node.name: set() for node in graph.nodes}
    for node in graph.nodes:
        above[node.name].update(ref.layer for call in node.inputs for ref in call)
    done: dict[str, frozenset[str]] = {}

    def all_above(name: str) -> frozenset[str]:
        seen: set[str] = set()
        stack = list(above.get(name, ()))
        while stack:
            current = stack.pop()
            if current not in seen:
                seen.add(current)
                stack.extend(above.get(current, ()))
        return frozenset(seen)

    for node in graph.nodes:
        done[node.name] = all_above(node.name) - {node.name}
        own = before | {prefix + name for name in done[node.name]}
        found[prefix + node.name] = own
        if node.graph is not None:
            _walk(node.graph, f"{prefix}{node.name}/", own, found)


class _Evidence:
    """What speaks for a unit's being in a module, among units that could change places."""

    def __init__(self, units: Sequence[Unit], sides: _Sides, every: Sequence[Unit]) -> None:
        self.sides = sides
        self.paths = numbered([unit.path for unit in every])
        self.blocks = _blocks(self.paths)
        names = {module.name: module.name.replace("#", ".") for module in sides.modules}
        self.target_blocks = _blocks(names)

    def weights(self, sources: Sequence[str], targets: Sequence[str]) -> Mapping[str, float]:
        """How much each word tells apart, on the side on which it tells less."""
        left = Counter(word for path in sources for word in _words(path))
        right = Counter(word for name in targets for word in _words(name))
        return {
            word: min(
                math.log((len(sources) + 1) / left[word]),
                math.log((len(targets) + 1) / right[word]),
            )
            for word in left.keys() & right.keys()
        }

    def structure(self, unit: Unit, module: _Module) -> float:
        """Whether both are in a repeated block, and in the same one."""
        left, right = self.blocks.get(unit.path), self.target_blocks.get(module.name)
        if left is None and right is None:
            return 0.0
        if left is None or right is None:
            return -_BLOCK if self._paired(left or right) else 0.0
        if left[2] != right[2]:
            return 0.0
        return _BLOCK if left[1] == right[1] else -_BLOCK

    def _paired(self, block: tuple[tuple[str, ...], int, int] | None) -> bool:
        """Whether the other side has a family of as many blocks."""
        assert block is not None
        sizes = {b[2] for b in self.blocks.values()} & {b[2] for b in self.target_blocks.values()}
        return block[2] in sizes

    def source_order(self, one: Unit, other: Unit) -> int:
        """-1 where the first comes before the second, 1 behind it, 0 where nothing says so."""
        ancestors = self.sides.ancestors
        if ancestors is not None and one.layer != other.layer:
            top, below = _known(one.layer, ancestors), _known(other.layer, ancestors)
            if top and below and top != below:
                return (top in ancestors[below]) * -1 or int(below in ancestors[top])
        if one.layer == other.layer:
            return 0  # query, key and value stand side by side
        return _by_name(self.paths[one.path], self.paths[other.path])

    def target_order(self, one: _Module, other: _Module) -> int:
        """The same of two modules."""
        if self.sides.ordered:
            return -1 if one.place < other.place else 1
        return _by_name(one.name.replace("#", "."), other.name.replace("#", "."))


def _known(path: str, ancestors: Mapping[str, object]) -> str:
    """The layer of the graph that a path is in: itself, or the one around it."""
    while path and path not in ancestors:
        path = path.rpartition("/")[0]
    return path


def _by_name(one: str, other: str) -> int:
    """The order of two names that differ in a number, or in a word that tells it."""
    left, right = _tokens(one), _tokens(other)
    for a, b in zip(left, right, strict=False):
        if a == b:
            continue
        if isinstance(a, int) and isinstance(b, int):
            return -1 if a < b else 1
        break
    for table in (STAGES, ORDINALS):
        mine, yours = _place(one, table), _place(other, table)
        if mine is not None and yours is not None and mine != yours:
            return -1 if mine < yours else 1
    return 0


def _place(name: str, table: Mapping[str, int]) -> int | None:
    words = [MEANINGS.get(t, t) for t in _tokens(name) if isinstance(t, str)]
    found = [table[word] for word in words if word in table]
    return found[-1] if found else None


# ---------------------------------------------------------------------------------- assignment


def _ways(
    units: Sequence[Unit], sides: _Sides, *, name: str, several: bool
) -> Iterator[list[Pair]]:
    """Every unit with its module: the way that is certain, or all that are left where asked for."""
    rivals: list[tuple[Unit, _Module, Unit, _Module]] = []
    assigned: list[tuple[Unit, _Module, How]] = []
    for members, modules in _classes(units, sides):
        evidence = _Evidence(members, sides, units)
        matched, open_pairs = _assigned(members, modules, evidence)
        assigned.extend(matched)
        rivals.extend(open_pairs)
    if not rivals:
        yield _pairs(assigned, sides, name)
        return
    if not several:
        raise UnsupportedError(f"{name} in more than one way:\n{_table(rivals)}")
    open_units = [
        [(unit, module) for unit, module in zip(group.values(), modules.values(), strict=True)]
        for group, modules in _open(rivals, assigned)
    ]
    for changed in product(*(_permuted(group, sides) for group in open_units)):
        module_of = {id(unit): module for group in changed for unit, module in group}
        yield _pairs(
            [
                (unit, module_of.get(id(unit), module), "running" if id(unit) in module_of else how)
                for unit, module, how in assigned
            ],
            sides,
            name,
        )


def _permuted(
    group: Sequence[tuple[Unit, _Module]], sides: _Sides
) -> Iterator[list[tuple[Unit, _Module]]]:
    """Every way in which units can have the modules of all of them."""
    for modules in permutations(module for _, module in group):
        pairs = [(unit, module) for (unit, _), module in zip(group, modules, strict=True)]
        if all(sides.fit(unit, module) is not None for unit, module in pairs):
            yield pairs


def _open(
    rivals: Sequence[tuple[Unit, _Module, Unit, _Module]],
    assigned: Sequence[tuple[Unit, _Module, How]],
) -> list[tuple[dict[str, Unit], dict[str, _Module]]]:
    """Groups of units that could change places, with the module that each has now."""
    has = {id(unit): module for unit, module, _ in assigned}
    return [
        (units, {has[id(unit)].name: has[id(unit)] for unit in units.values()})
        for units, _ in _gathered(rivals)
    ]


def _pairs(assigned: Sequence[tuple[Unit, _Module, How]], sides: _Sides, name: str) -> list[Pair]:
    pairs: list[Pair] = []
    turned, open_ones = _turned([(unit, module) for unit, module, _ in assigned], sides, name)
    for unit, module, how in assigned:
        tensors: dict[str, tuple[str, str]] = {}
        for leaf, spellings in (sides.fit(unit, module) or {}).items():
            wish = turned.get((unit.path, leaf))
            spelling = next(s for s in spellings if wish is None or s.turned == wish)
            tensors[leaf] = (spelling.target, spelling.sentence)
        assumed = frozenset(leaf for leaf in tensors if (unit.path, leaf) in open_ones)
        pairs.append(Pair(unit, module.name, tensors, how, assumed))
    return pairs


def _classes(units: Sequence[Unit], sides: _Sides) -> Iterator[tuple[list[Unit], list[_Module]]]:
    """Units and modules that could change places among one another, and with no others."""
    alike: dict[frozenset[int], list[Unit]] = {}
    for unit in units:
        fits = frozenset(sides.options(unit))
        members: list[Unit] = []
        for other in [key for key in alike if key & fits]:
            fits |= other
            members += alike.pop(other)
        alike[fits] = [*members, unit]
    for fits, members in alike.items():
        yield members, [sides.modules[n] for n in sorted(fits)]


def _assigned(
    units: Sequence[Unit], modules: Sequence[_Module], evidence: _Evidence
) -> tuple[list[tuple[Unit, _Module, How]], list[tuple[Unit, _Module, Unit, _Module]]]:
    """The best assignment of one class, and the pairs in it that could as well be the other way."""
    sides = evidence.sides
    units = sorted(units, key=lambda unit: _order_key(unit.path, unit, evidence))
    modules = sorted(modules, key=lambda m: _target_key(m, evidence))
    weights = evidence.weights(
        [evidence.paths[unit.path] for unit in units], [module.name for module in modules]
    )
    certain = np.full((len(units), len(modules)), -np.inf)
    for row, unit in enumerate(units):
        for column, module in enumerate(modules):
            if sides.fit(unit, module) is not None:
                words = _words(evidence.paths[unit.path]) & _words(module.name)
                names = sum(weights.get(word, 0.0) for word in words)
                same = _SAME * (_tokens(unit.path) == _tokens(module.name))
                certain[row, column] = names + same + evidence.structure(unit, module)
    ranks = _ranks(units, modules, evidence)
    columns = _best(certain - _ORDER * ranks)
    how: list[How] = ["shape" if len(units) == 1 else "names" for _ in units]
    rivals: list[tuple[Unit, _Module, Unit, _Module]] = []
    for a in range(len(units)):
        for b in range(a + 1, len(units)):
            one, other = columns[a], columns[b]
            swapped = certain[a, other] + certain[b, one]
            if not np.isfinite(swapped):
                continue
            gain = certain[a, one] + certain[b, other] - swapped
            if gain > _LEAST:
                continue
            order = evidence.source_order(units[a], units[b])
            if order and order == evidence.target_order(modules[one], modules[other]):
                how[a] = how[b] = "order"
                continue
            rivals.append((units[a], modules[one], units[b], modules[other]))
    matched = [
        (unit, modules[column], kind)
        for unit, column, kind in zip(units, columns, how, strict=True)
    ]
    return matched, rivals


def _order_key(path: str, unit: Unit, evidence: _Evidence) -> tuple[Any, ...]:
    block = evidence.blocks.get(path)
    name = evidence.paths[path]
    stage = _place(name, STAGES)
    graph = evidence.sides.ancestors is not None
    place = evidence.sides.rank.get(unit.layer, 0)
    number = tuple(t for t in _tokens(name) if isinstance(t, int))
    return (
        block[1] if block else -1,
        -1 if stage is None or graph else stage,
        place if graph else 0,
        _place(name, ORDINALS) or 0,
        number,
        place,
    )


def _target_key(module: _Module, evidence: _Evidence) -> tuple[Any, ...]:
    block = evidence.target_blocks.get(module.name)
    natural = tuple((0, t, "") if isinstance(t, int) else (1, 0, t) for t in _tokens(module.name))
    ordinal = _place(module.name, ORDINALS) or 0
    own = (module.place,) if evidence.sides.ordered else (ordinal, natural)
    return (block[1] if block else -1, *own)


def _ranks(
    units: Sequence[Unit], modules: Sequence[_Module], evidence: _Evidence
) -> npt.NDArray[np.float64]:
    """How far apart each unit and module stand in the order of their blocks, from 0 to 1."""
    left = _within([evidence.blocks.get(unit.path) for unit in units])
    right = _within([evidence.target_blocks.get(module.name) for module in modules])
    longest = max(1, *left, *right)
    apart: npt.NDArray[np.float64] = np.abs(np.subtract.outer(left, right)) / longest
    return apart


def _within(blocks: Sequence[tuple[tuple[str, ...], int, int] | None]) -> list[float]:
    counts: Counter[object] = Counter()
    found: list[float] = []
    for block in blocks:
        key = block[:2] if block else None
        found.append(float(counts[key]))
        counts[key] += 1
    return found


def _best(scores: npt.NDArray[np.float64]) -> list[int]:
    """The column of each row in the assignment of the largest sum (Kuhn and Munkres).

    >>> _best(np.array([[1.0, 2.0], [5.0, 9.0]]))
    [0, 1]
    """
    rows, columns = scores.shape
    finite = scores[np.isfinite(scores)]
    worst = -1e6 - 1e3 * (np.abs(finite).max() if finite.size else 1.0)
    cost = -np.where(np.isfinite(scores), scores, worst)
    cost = np.pad(cost, ((1, 0), (1, 0)))
    row_price, column_price = np.zeros(rows + 1), np.zeros(columns + 1)
    owner = np.zeros(columns + 1, int)
    way = np.zeros(columns + 1, int)
    for row in range(1, rows + 1):
        owner[0], current = row, 0
        least = np.full(columns + 1, np.inf)
        used = np.zeros(columns + 1, bool)
        while owner[current]:
            used[current] = True
            reduced = cost[owner[current]] - row_price[owner[current]] - column_price
            better = ~used & (reduced < least)
            least[better], way[better] = reduced[better], current
            free = np.where(used, np.inf, least)
            free[0] = np.inf
            after = int(np.argmin(free))
            delta = free[after]
            row_price[owner[used]] += delta
            column_price[used] -= delta
            least[~used] -= delta
            current = after
        while current:
            owner[current], current = owner[way[current]], int(way[current])
    found = [0] * rows
    for column in range(1, columns + 1):
        if owner[column]:
            found[owner[column] - 1] = column - 1
    return found


def _gathered(
    rivals: Sequence[tuple[Unit, _Module, Unit, _Module]],
) -> list[tuple[dict[str, Unit], dict[str, _Module]]]:
    """Units that could change places, directly or by way of others, with their modules."""
    grouped: list[tuple[dict[str, Unit], dict[str, _Module]]] = []
    for one, first, other, second in rivals:
        units = {one.path: one, other.path: other}
        modules = {first.name: first, second.name: second}
        for group in [g for g in grouped if g[0].keys() & units.keys()]:
            units, modules = {**group[0], **units}, {**group[1], **modules}
            grouped.remove(group)
        grouped.append((units, modules))
    return grouped


def _table(rivals: Sequence[tuple[Unit, _Module, Unit, _Module]]) -> str:
    """What is open: for each group of units the modules that each could be in."""
    grouped = _gathered(rivals)
    lines: list[str] = []
    for units, modules in grouped[:_SHOWN]:
        width = max(map(len, units))
        names = list(modules)
        shown = " or ".join(names[:4]) + (f" or {len(names) - 4} more" if len(names) > 4 else "")
        lines += [f"  {path:{width}}  {_shapes(unit)}  {shown}" for path, unit in units.items()]
    if len(grouped) > _SHOWN:
        lines.append(f"  … and {len(grouped) - _SHOWN} more")
    units, modules = grouped[0]
    lines.append(
        f"Neither names nor order tell them apart: say it with --hint '{next(iter(units))}="
        f"{next(iter(modules))}', or run it with --inputs"
    )
    return "\n".join(lines)


# --------------------------------------------------------------------------------- turned matrices


def _turned(
    assigned: Sequence[tuple[Unit, _Module]], sides: _Sides, name: str
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
        for leaf, spellings in (sides.fit(unit, module) or {}).items():
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
