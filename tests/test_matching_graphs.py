"""Random functional graphs under names that say nothing: matched right, or refused.

The target lists the layers' modules in an order of its own in which each comes behind those that
feed it. Ten are drawn in a usual run; `KERASPORT_GRAPHS=500` draws more.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict

import keras
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kerasport
from graphs import Program, model, programs
from kerasport.errors import UnsupportedError
from kerasport.matching import Wanted, match
from kerasport.model import Snapshot
from kerasport.naming import named, renamed
from kerasport.transpose import Move, Plan
from kerasport.units import groups

COUNT = min(500, int(os.environ.get("KERASPORT_GRAPHS", "10")))


def fed_by(made: keras.Model) -> dict[str, set[str]]:
    """For each layer by its name, those that it depends on, as Keras knows it."""
    above: dict[str, set[str]] = defaultdict(set)
    for depth in sorted(made._nodes_by_depth, reverse=True):
        for node in made._nodes_by_depth[depth]:
            for parent in node.parent_nodes:
                name = parent.operation.name
                above[node.operation.name] |= {name, *above[name]}
    return above


def listed(moves: dict[str, list[Move]], above: dict[str, set[str]], seed: int) -> list[str]:
    """The layers in an order of a module's making: any in which none comes before what feeds it."""
    rng = random.Random(seed)
    left, found = list(moves), list[str]()
    while left:
        tops = {path: path.split("/")[0] for path in left}
        ready = [p for p in left if not {tops[o] for o in left} & (above[tops[p]] - {tops[p]})]
        inside = tops[rng.choice(ready)]
        # A model in a model is a module: its layers stay together, in their own order.
        for path in [p for p in ready if tops[p] == inside]:
            left.remove(path)
            found.append(path)
    return found


def hidden(
    steps: Plan, above: dict[str, set[str]], seed: int
) -> tuple[list[Wanted], dict[str, str]]:
    """The tensors of a plan under names that say nothing, and what they are called there."""
    rng = random.Random(seed)
    moves: dict[str, list[Move]] = defaultdict(list)
    for move in steps.moves:
        moves[move.layer].append(move)
    modules: dict[str, str] = {}
    target: list[Wanted] = []
    names: dict[str, str] = {}
    for path in listed(moves, above, seed):
        for move in moves[path]:
            module, _, leaf = move.name.rpartition(".")
            word = "".join(rng.choice("bdfgjlmnprstxz") for _ in range(7))
            names[move.name] = f"{modules.setdefault(module, word)}.{leaf}"
            target.append(Wanted(names[move.name], move.shape, move.dtype.kind == "f"))
    return target, names


def matched(found: Snapshot, steps: Plan, target: list[Wanted]) -> dict[str, list[str]]:
    """What each tensor of the target is made of."""
    names = named(match(found, groups(found), target, ordered=True), found)
    plan = renamed(steps, found, names)
    assert plan.problems == ()
    return {move.name: [source.name for source in move.sources] for move in plan.moves}


@settings(
    max_examples=COUNT,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(programs(), st.integers(0, 99))
def test_a_random_graph_is_matched_right_or_not_at_all(program: Program, seed: int) -> None:
    keras.backend.clear_session()
    made = model(program)
    found = kerasport.read(made)
    steps = kerasport.plan(found, to="torch")
    if steps.problems or not steps.moves:
        return
    target, names = hidden(steps, fed_by(made), seed)
    truth = {names[move.name]: [source.name for source in move.sources] for move in steps.moves}
    try:
        right = matched(found, steps, target) == truth
    except UnsupportedError as error:
        right = "in more than one way" in str(error)
    assert right
    own = [Wanted(move.name, move.shape, move.dtype.kind == "f") for move in steps.moves]
    same = matched(found, steps, own)
    assert same == {move.name: [source.name for source in move.sources] for move in steps.moves}


def test_a_wrong_order_would_be_seen() -> None:
    """The twin: of two equal layers in a chain, listed the other way round, each is the other."""
    x = keras.Input((3,))
    one, two = keras.layers.Dense(3, name="one"), keras.layers.Dense(3, name="two")
    found = kerasport.read(keras.Model(x, two(one(x))))
    steps = kerasport.plan(found, to="torch")
    wrong = {"one": set[str](), "two": set[str]()}
    seeds = [hidden(steps, wrong, seed) for seed in range(9)]
    truths = [
        matched(found, steps, target)
        == {names[move.name]: [source.name for source in move.sources] for move in steps.moves}
        for target, names in seeds
    ]
    assert set(truths) == {True, False}
