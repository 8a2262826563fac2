"""A module beside what it was made from: run both on the same inputs, and compare every layer."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasport.architecture import parse
from kerasport.codegen.module import Module
from kerasport.errors import KerasportError, UnsupportedError, UsageError, VerificationError
from kerasport.model import Snapshot
from kerasport.running import oracle, samples
from kerasport.running.comparison import Row, RunReport, in_kerases_order, in_modules_order, row
from kerasport.running.oracle import Key, Oracle
from kerasport.running.python import Python, fits, read
from kerasport.running.samples import Input

__all__ = ["asked", "compared", "drawings", "expected", "settled", "unsettled"]

OTHER: Final = "It is not as kerasport writes it for {file}: rewritten, or made from another model"

Array = npt.NDArray[Any]


def compared(
    folder: Path,
    made: Sequence[Module],
    snapshot: Snapshot,
    *,
    live: Any = None,
    inputs: Path | Mapping[str, Any] | None = None,
    dtype: str | None = None,
    tolerance: float,
    seed: int,
    done: Collection[str] = (),
) -> RunReport:
    """Run the module in a folder and the Keras model that it was made from.

    Args:
        folder: where `model.py` is.
        made: what the generator may have written there.
        snapshot: the model.
        live: the model itself, where it is one.
        inputs: a `.npz` file of inputs, or arrays by name; random ones where None.
        dtype: what both are to compute in; as the module does where None.
        tolerance: the largest deviation, absolute or relative to a layer's scale.
        seed: of the random inputs.
        done: the kinds of the notes on the weights, as the manifest has them.

    Raises:
        MissingExtraError: there is no Keras.
        UnsupportedError: Keras does not open the model, or the module has stubs.
        UsageError: the inputs do not fit the model.
        VerificationError: the module does not run.
    """
    path = folder / "model.py"
    text = read(path)
    written = next((one for one in made if one.source == text), None)
    written = written or next((one for one in made if fits(text, one)), None)
    about = written or made[0]
    dtype = dtype or ("f64" if about.double else "f32")
    notes: list[str] = []
    if written is None:
        notes.append(
            f"model.py is not as kerasport writes it for {snapshot.source.file}: its outputs alone "
            "are compared"
        )
    if "cast" in done:
        notes.append("the weights were cast when the module was written: what that lost shows")
    if "dequantized" in done:
        notes.append(
            "Keras rounds what goes through quantized layers, and the module does not: they differ"
        )
    model = oracle.opened(snapshot, live)
    model.cast(dtype)
    # Before Keras has worked for minutes: does the module load at all?
    python = Python.opened(path, about.taps if written else (), double=dtype == "f64")
    takes, arrays, records = asked(model, snapshot, inputs=inputs, seed=seed)
    given = [
        in_modules_order(array, order)
        for array, order in zip(_in_module(about, takes, arrays), about.inputs, strict=True)
    ]
    try:
        results = python.run(given, double=dtype == "f64")
    except VerificationError as error:
        if written is None:
            raise VerificationError(
                f"{error}. {OTHER.format(file=snapshot.source.file)}"
            ) from error
        raise
    if len(results) != len(about.results):
        raise VerificationError(
            f"{path}: gives {len(results)} outputs, and {snapshot.source.file} "
            f"{len(about.results)}. {OTHER.format(file=snapshot.source.file)}"
        )
    layers: list[Row] = []
    for heard in python.heard:
        wanted = records.get(heard.key, ())
        if heard.tap.tensor < len(wanted) and heard.tap.class_name != "InputLayer":
            layers.append(
                row(
                    _path(heard.key, heard.tap.tensor, len(wanted)),
                    heard.tap.class_name,
                    found=in_kerases_order(
                        heard.array, order=heard.tap.order, features=heard.tap.features
                    ),
                    wanted=wanted[heard.tap.tensor],
                    tolerance=tolerance,
                )
            )
    passed = {one.name: array for one, array in zip(takes, arrays, strict=True)}
    outputs = [
        row(
            "output" if len(results) == 1 else f"output {number + 1}",
            about.results[number].layer,
            found=in_kerases_order(result, order=about.outputs[number]),
            wanted=wanted,
            tolerance=tolerance,
        )
        for number, (result, wanted) in enumerate(
            zip(results, expected(about, records, passed), strict=True)
        )
    ]
    silent = len({tap.layer for tap in about.taps if tap.class_name != "InputLayer"})
    if written and silent and not layers:
        notes.append("no layer of the module has the name of one of the model's")
    return RunReport(
        snapshot.source.file,
        f"{folder.resolve().name}/",
        model.by,
        dtype,
        tolerance,
        seed if inputs is None else None,
        {one.name: array.shape for one, array in zip(takes, arrays, strict=True)},
        tuple(layers),
        tuple(outputs),
        (*notes, *model.notes),
    )


def settled(single: RunReport, double: RunReport) -> RunReport:
    """What is to be said where float32 leaves the tolerance: float64 tells a bug from rounding.

    A hundred layers add up what each of them rounds.

    Args:
        single: the report in float32, of which a layer leaves the tolerance.
        double: the same in float64.
    """
    first = single.first
    assert first is not None
    if double.first is not None:
        return double
    far = f"{min(first.absolute, first.relative):.1e}"
    said = f"in f32 {first.path} leaves the tolerance by rounding, {far}; in f64 nothing does"
    return replace(double, notes=(*double.notes, said))


def unsettled(single: RunReport, reason: str) -> RunReport:
    """What is to be said where float32 leaves the tolerance, and float64 cannot be asked.

    Args:
        single: the report in float32, of which a layer leaves the tolerance.
        reason: why there is none in float64.
    """
    why = " ".join(reason.split("\n\n", 1)[0].split())
    return replace(single, notes=(*single.notes, f"f64 would tell a bug from rounding: {why}"))


def asked(
    model: Oracle,
    snapshot: Snapshot,
    *,
    inputs: Path | Mapping[str, Any] | None,
    seed: int,
    single: bool = False,
) -> tuple[list[Input], list[Array], dict[Key, list[Array]]]:
    """What the model takes, what it was given, and what each of its layers gave.

    Args:
        model: the model, opened.
        snapshot: the same, as `kerasport.read` gave it.
        inputs: a `.npz` file of inputs, or arrays by name; random ones where None.
        seed: of the random inputs.
        single: whether random inputs are numbers that float32 has.

    Raises:
        UnsupportedError: Keras cannot run it on such inputs.
        UsageError: the inputs do not fit the model.
    """
    takes = model.inputs
    if inputs is not None:
        where = str(inputs) if isinstance(inputs, Path) else "inputs"
        held = samples.stored(inputs) if isinstance(inputs, Path) else inputs
        arrays = samples.matched(
            {name: np.asarray(array) for name, array in held.items()}, takes, where=where
        )
        return takes, arrays, _ran(model, arrays)
    refused: KerasportError | None = None
    for arrays in drawings(snapshot, takes, seed=seed):
        if single:
            arrays = [x.astype("f4").astype(x.dtype) if x.dtype.kind == "f" else x for x in arrays]
        try:
            return takes, arrays, _ran(model, arrays)
        except UnsupportedError as error:  # mostly too small for its strides
            refused = refused or error
    assert refused is not None
    raise refused


def drawings(snapshot: Snapshot, takes: Sequence[Input], *, seed: int) -> Iterator[list[Array]]:
    """Random inputs that make sense for a model, from small to large where sizes are open.

    Args:
        snapshot: the model.
        takes: what it takes.
        seed: of the random numbers.
    """
    known = _known(snapshot, takes)
    for steps, image in samples.sizes(takes):
        yield samples.drawn(takes, known, seed=seed, steps=steps, image=image)


def _ran(model: Oracle, arrays: Sequence[Array]) -> dict[Key, list[Array]]:
    try:
        return model.run(arrays)
    except KerasportError:
        raise
    except Exception as error:  # Keras and its backends raise whatever they like
        said = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
        shapes = ", ".join(str(list(array.shape)) for array in arrays)
        raise UnsupportedError(
            f"{model.by} cannot run the model on inputs of shape {shapes}: "
            f"{type(error).__name__}: {' '.join(said[:2])[:300]}. Give it inputs that make sense: "
            "--inputs FILE.npz"
        ) from error


def _known(snapshot: Snapshot, takes: Sequence[Input]) -> dict[str, samples.Hint]:
    """What the architecture says of each input."""
    graph = None if snapshot.architecture is None else parse(snapshot.architecture)
    if graph is None:
        return {}
    found = samples.hints(graph, list(snapshot))
    names = [ref.layer for ref in graph.inputs]
    if set(names) != {one.name for one in takes}:
        names = [one.name for one in takes]
    return {names[place]: hint for place, hint in found.items() if place < len(names)}


def _in_module(about: Module, takes: Sequence[Input], arrays: Sequence[Array]) -> list[Array]:
    """The inputs in the order in which the module takes them."""
    by_name = dict(zip((one.name for one in takes), arrays, strict=True))
    if set(about.given) == set(by_name):
        return [by_name[name] for name in about.given]
    if len(about.inputs) != len(arrays):
        raise UsageError(
            f"the module takes {len(about.inputs)} inputs and the model {len(arrays)}: they are "
            "not of one model"
        )
    return list(arrays)


def expected(
    about: Module, records: Mapping[Key, Sequence[Array]], passed: Mapping[str, Array]
) -> list[Array]:
    """What the model gives, in the order of the module's outputs and Keras's order of axes.

    Args:
        about: the module.
        records: what each layer gave.
        passed: the inputs by name, one of which may be an output.

    Raises:
        UnsupportedError: an output is of a layer that was not heard.
    """
    found: list[Array] = []
    for ref in about.results:
        held = records.get(((ref.layer, ref.call),), ())
        wanted = held[ref.tensor] if ref.tensor < len(held) else passed.get(ref.layer)
        if wanted is None:
            raise UnsupportedError(
                f"{ref.layer}: Keras gives this layer another name than the file: the outputs "
                "cannot be told apart"
            )
        found.append(wanted)
    return found


def _path(key: Key, tensor: int, tensors: int) -> str:
    """A call as people write it: `encoder/dense`, `tower/dense call 2`, `lstm output 2`."""
    path = "/".join(name for name, _ in key)
    calls = [number + 1 for _, number in key]
    words = [path]
    if any(number > 1 for number in calls):
        words.append(f"call {'.'.join(map(str, calls[: _last(calls) + 1]))}")
    if tensors > 1:
        words.append(f"output {tensor + 1}")
    return " ".join(words)


def _last(calls: Sequence[int]) -> int:
    return max(place for place, number in enumerate(calls) if number > 1)
