"""Every model of keras.applications, converted to PyTorch from memory and from its saved file.

    cd tests && python -m benchmarks.applications                   # all; about half an hour
    cd tests && python -m benchmarks.applications MobileNetV2 VGG16

Prints a line for each model: its size, how many tensors were placed, and whether the two ways gave
the same bytes under the same names. Models have random weights and the smallest input that they
accept, since neither changes what a layer is.
"""

from __future__ import annotations

import inspect
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

__all__ = ["SIZES", "Outcome", "built", "compared", "names"]

SIZES = (32, 48, 64, 71, 75, 96, 128, 224, 331)


@dataclass(frozen=True)
class Outcome:
    """What became of one model.

    Attributes:
        layers: how many layers hold weights.
        placed: how many of the model's tensors the state dict holds.
        stored: how many tensors the model has.
        parameters: how many numbers.
        problems: what could not be converted, and where memory and file differ.
    """

    layers: int
    placed: int
    stored: int
    parameters: int
    problems: tuple[str, ...]


def names() -> list[str]:
    """The models that the installed Keras offers."""
    functions = inspect.getmembers(keras.applications, inspect.isfunction)
    return [
        name for name, function in functions if "weights" in inspect.signature(function).parameters
    ]


def built(name: str) -> Any:
    """The model with random weights and the smallest input that it accepts."""
    make = getattr(keras.applications, name)
    for size in SIZES:
        try:
            model = make(weights=None, input_shape=(size, size, 3), classes=7)
        except ValueError:
            continue
        rng = np.random.default_rng(7)
        model.set_weights(
            [rng.standard_normal(w.shape, np.float32).astype(w.dtype) for w in model.weights]
        )
        return model
    raise ValueError(f"{name} accepts no input of {SIZES}")


def compared(model: Any, folder: Path) -> Outcome:
    """Convert from memory and from the file, and compare every byte."""
    path = folder / "model.keras"
    model.save(path)
    live = kerasport.read(model)
    ways = [kerasport.plan(snapshot, to="torch") for snapshot in (live, kerasport.read(path))]
    problems = [problem for way in ways for problem in way.problems]
    placed = {source.name for move in ways[0].moves for source in move.sources}
    stored = [tensor.name for tensor in live.tensors]
    problems += [f"{name}: is nowhere" for name in stored if name not in placed]
    if not problems:
        problems += _differences(*(way.apply() for way in ways))
    return Outcome(
        len(live), len(placed), len(stored), model.count_params(), tuple(dict.fromkeys(problems))
    )


def _differences(one: Any, other: Any) -> Iterator[str]:
    if one.keys() != other.keys():
        yield f"other names: {sorted(one.keys() ^ other.keys())[:5]}"
        return
    for name, tensor in one.items():
        if tensor.numpy().tobytes() != other[name].numpy().tobytes():
            yield f"{name}: other bytes"


def main(wanted: Sequence[str]) -> int:
    """Print the table; returns how many models failed."""
    failed = 0
    print(f"{'model':20} {'layers':>6} {'placed':>6} {'stored':>6} {'parameters':>12} {'s':>6}")
    for name in wanted or names():
        start = time.perf_counter()
        model = built(name)
        with tempfile.TemporaryDirectory() as folder:
            found = compared(model, Path(folder))
        took = time.perf_counter() - start
        failed += bool(found.problems)
        print(
            f"{name:20} {found.layers:6} {found.placed:6} {found.stored:6} "
            f"{found.parameters:12,} {took:6.1f} {'; '.join(found.problems[:3]) or 'same bytes'}",
            flush=True,
        )
        del model
        keras.backend.clear_session()
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
