"""Every backbone family of KerasHub, converted to PyTorch from memory and from its saved files.

    cd tests && python -m benchmarks.hub                           # all; five minutes
    cd tests && python -m benchmarks.hub Bert "T5 tied" SAMImageSegmenter

Families come first, then some with other options, then tasks. Prints a line for each: how many
layers and tensors it has, how many layers were recognised by the table of KerasHub's classes, how
many tensors were placed, and whether a live model, its `.keras` archive and its preset gave the
same bytes under the same names. What every layer was taken for is compared with the object that
holds its variables in the live model, found by their bytes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kerasport
from kerasport.hub.weights import LIKE
from kerasport.kinds import facets
from kerasport.model import Layer, Snapshot, StateDict

__all__ = ["Outcome", "built", "compared", "mistaken"]


@dataclass(frozen=True)
class Outcome:
    """What became of one model.

    Attributes:
        layers: how many layers hold weights.
        inferred: how many of them no file names the class of.
        placed: how many of the model's tensors the state dict holds.
        stored: how many tensors the model has.
        parameters: how many numbers.
        problems: what could not be converted, and where the ways differ.
    """

    layers: int
    inferred: int
    placed: int
    stored: int
    parameters: int
    problems: tuple[str, ...]


def built(family: str) -> Any:
    """The family's backbone, each number in it drawn at random."""
    from hub_families import EVERYTHING

    model = EVERYTHING[family]()
    rng = np.random.default_rng(7)
    for weight in model.weights:
        weight.assign(rng.integers(1, 99, tuple(weight.shape)))
    return model


def compared(model: Any, folder: Path) -> Outcome:
    """Convert from memory, from the archive and from the preset, and compare every byte."""
    archive, preset = folder / "model.keras", folder / "preset"
    model.save(archive)
    model.save_to_preset(str(preset))
    snapshots = [kerasport.read(source) for source in (model, archive, preset)]
    plans = [kerasport.plan(snapshot, to="torch") for snapshot in snapshots]
    problems = [problem for plan in plans for problem in plan.problems]
    live, placed = snapshots[0], _placed(plans[0])
    problems += [
        f"{tensor.name}: is nowhere" for tensor in live.tensors if tensor.name not in placed
    ]
    if not problems:
        first, *others = (plan.apply() for plan in plans)
        problems += _lost(model, first)
        problems += mistaken(model, snapshots[-1])
        for other in others:
            # A preset keeps a task's backbone by itself, under the names that it has alone.
            renamed = hasattr(model, "backbone") and other is others[-1]
            problems += _unlike(first, other) if renamed else _differences(first, other)
    return Outcome(
        len(live),
        sum(layer.inferred for layer in live.layers),
        len(placed),
        sum(1 for _ in live.tensors),
        model.count_params(),
        tuple(dict.fromkeys(problems)),
    )


def _holders(model: Any) -> Iterator[tuple[bytes, Any]]:
    """The bytes of every variable, and the layer that holds it."""
    for layer in model._flatten_layers():
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
            yield np.asarray(variable).tobytes(), layer


def mistaken(model: Any, snapshot: Snapshot) -> list[str]:
    """Layers that are taken for something else than the object that holds their variables."""
    known: dict[bytes, list[Any]] = {}
    for content, holder in _holders(model):
        known.setdefault(content, []).append(holder)
    wrong = []
    for layer in snapshot.layers:
        for role, tensor in layer.weights.items():
            held = known[tensor.numpy().tobytes()]
            if not any(_as_held(layer, role, holder) for holder in held):
                names = ", ".join(type(holder).__name__ for holder in held)
                wrong.append(f"{layer.path}/{role}: {layer.kind} is {names}")
    return wrong


def _as_held(layer: Layer, role: str, holder: Any) -> bool:
    """Whether a layer was found to be what its holder is."""
    name = type(holder).__name__
    if layer.kind == "MultiHeadAttention":  # of which each projection is a layer
        return name == "EinsumDense" and role.partition("/")[0] in holder.name
    if name in LIKE:
        return layer.kind in (LIKE[name], f"keras_hub>{LIKE[name]}")
    if not type(holder).__module__.startswith("keras.src."):
        return layer.kind in (name, f"keras_hub>{name}", "keras_hub>ShiftedRMSNormalization")
    (facet,) = facets(name, holder.get_config())
    told = ("inputs", "outputs", "kernel", *(["bias"] if "bias" in layer.weights else []))
    words = {word: facet.axes[word] for word in told if word in facet.axes}
    return layer.kind in facet.kinds and words.items() <= layer.words.items()


def _placed(plan: Any) -> set[str]:
    moves = (move for first in plan.moves for move in (first, *first.tied))
    return {source.name for move in moves for source in move.sources}


def _lost(model: Any, state: StateDict) -> Iterator[str]:
    """The numbers of the model, in whatever order: what KerasHub has must all be there, once."""
    notes = state.manifest["notes"]
    made = {note["subject"] for note in notes if note["kind"] == "synthesised"}
    found = [t.numpy().astype(np.float64).ravel() for n, t in state.items() if n not in made]
    variables = {id(v): v for v in model.variables if "seed" not in v.path}.values()
    expected = [np.asarray(v).astype(np.float64).ravel() for v in variables]
    if not np.array_equal(np.sort(np.concatenate(found)), np.sort(np.concatenate(expected))):
        yield "the state dict does not hold the numbers of the model"


def _differences(one: Any, other: Any) -> Iterator[str]:
    if one.keys() != other.keys():
        yield f"other names: {sorted(one.keys() ^ other.keys())[:5]}"
        return
    for name, tensor in one.items():
        if tensor.numpy().tobytes() != other[name].numpy().tobytes():
            yield f"{name}: other bytes"


def _unlike(one: Any, other: Any) -> Iterator[str]:
    contents = [
        sorted(tensor.numpy().tobytes() for tensor in state.values()) for state in (one, other)
    ]
    if contents[0] != contents[1]:
        yield "other bytes in the preset"


def main(wanted: Sequence[str]) -> int:
    """Print the table; returns how many families failed."""
    from hub_families import EVERYTHING

    failed = 0
    print(f"{'family':27} {'layers':>6} {'inferred':>8} {'stored':>6} {'placed':>6} {'s':>5}")
    for family in wanted or EVERYTHING:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            found = compared(built(family), Path(folder))
        took = time.perf_counter() - start
        failed += bool(found.problems)
        print(
            f"{family:27} {found.layers:6} {found.inferred:8} {found.stored:6} {found.placed:6} "
            f"{took:5.1f} {'; '.join(found.problems[:3]) or 'same bytes'}",
            flush=True,
        )
        keras.backend.clear_session()
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
