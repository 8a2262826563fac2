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

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from kerasport.errors import UnsupportedError
from kerasport.matching.ancestors import ancestors_of
from kerasport.matching.readings import chosen
from kerasport.matching.refusals import impossible
from kerasport.matching.sides import Sides, check_hints
from kerasport.matching.target import Wanted, modules_of
from kerasport.matching.ways import Found, Pair, ways
from kerasport.model import Snapshot
from kerasport.units import Group

__all__ = ["Found", "Pair", "Wanted", "match"]

# How many ways are tried by running the target.
_RUNS = 2000


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
    modules = modules_of([wanted for wanted in target if not wanted.same])
    sides = Sides(
        modules,
        ordered,
        hints,
        {path: n for n, path in enumerate(snapshot)},
        ancestors_of(snapshot),
    )
    check_hints(found, modules, hints)
    unreadable = sorted(f"{g.layers[0]}: {g.why}" for g in found if not g.readings)
    if unreadable:
        raise UnsupportedError(f"{snapshot.source.file} cannot be matched:", unreadable)
    units = chosen(found, sides)
    problems = impossible(units, sides)
    if problems:
        # A bias of zeros adds nothing: where that is all that is amiss, it need not be on both.
        sides = replace(sides, zeros=True, fits={}, choices={})
        units = chosen(found, sides)
        problems = problems if impossible(units, sides) else []
    if problems:
        raise UnsupportedError(
            f"{snapshot.source.file} does not go into {name}:",
            problems,
            advice="A part is matched with --include, --exclude and --keep",
        )
    title = f"{snapshot.source.file} goes into {name}"
    place = {module.name: module.place for module in modules}

    def made(pairs: Sequence[Pair]) -> Found:
        pairs = [*pairs, *(twin for pair in pairs for twin in _twins(pair, target))]
        used = {tensor for pair in pairs for tensor, _ in pair.tensors.values()}
        used |= {tensor for pair in pairs for tensor in pair.zeros}
        kinds = {
            pair.unit.layer: pair.unit.kind
            for pair in pairs
            if pair.unit.kind and snapshot[pair.unit.layer].kind is None
        }
        return Found(
            tuple(sorted(pairs, key=lambda pair: place.get(pair.module, len(place)))),
            kinds,
            tuple(wanted.name for wanted in target if wanted.name not in used),
        )

    found_ways = ways(units, sides, name=title, several=judge is not None)
    if judge is None:
        return made(next(found_ways))
    tried = [made(pairs) for pairs in islice(found_ways, _RUNS + 1)]
    if len(tried) > _RUNS:
        raise UnsupportedError(f"{title} in more than {_RUNS} ways, too many to run: give hints")
    right = [way for way in tried if judge(way)]
    if len(right) != 1:
        raise UnsupportedError(
            f"{title} in {len(tried)} {'way' if len(tried) == 1 else 'ways'}, and {len(right)} of "
            "them put out what the model did. Are the inputs as the module takes them?"
        )
    return right[0]


def _twins(pair: Pair, target: Sequence[Wanted]) -> Iterator[Pair]:
    """The pair under the further names that the target has for its tensors."""
    for wanted in target:
        for leaf, (name, sentence) in pair.tensors.items():
            if wanted.same == name:
                tensors = {leaf: (wanted.name, sentence)}
                yield replace(pair, module=wanted.name, tensors=tensors, zeros=())
