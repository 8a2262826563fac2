"""The folder of a module: its source and its weights, written together and run beside the model.

Both come from one plan, so that a name in the one is a name in the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kerasport import formats
from kerasport.api.places import (
    MODULE_SOURCE,
    MODULE_VECTORS,
    MODULE_WEIGHTS,
    as_path,
    refuse_folder,
    refuse_own_source,
)
from kerasport.api.reading import read
from kerasport.api.verifying import as_converted
from kerasport.api.writing import source_hash_of, watched
from kerasport.custom import LayerTable, installed, loaded
from kerasport.errors import (
    KerasportError,
    MissingExtraError,
    UnsupportedError,
    UsageError,
    VerificationError,
)
from kerasport.model import Note, Report, Snapshot, StateDict
from kerasport.running.comparison import TOLERANCE, RunReport
from kerasport.writers import safetensors

if TYPE_CHECKING:
    from kerasport.codegen.module import Module
    from kerasport.running.vectors import Vectors

__all__ = ["MODULE_DTYPES", "snippets", "verify_run", "write_module"]

MODULE_DTYPES: Final = ("f64", "f32", "f16", "bf16")


def write_module(
    source: str | PathLike[str] | Snapshot | object,
    folder: str | PathLike[str],
    *,
    layers: str | PathLike[str] | Mapping[str, Any] | LayerTable | None = None,
    flatten: str = "reorder",
    unknown: str = "error",
    dtype: str | None = None,
    vectors: bool | str | PathLike[str] = False,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Write a PyTorch module that computes what the model does, and its weights beside it.

    The folder then holds `model.py`, whose `load()` gives the module with its weights, and
    `model.safetensors` with the manifest, and `vectors.npz` where that is asked for. They appear
    together, or nothing changes; other files in the folder stay, except vectors of an earlier
    module.

    Args:
        source: a path, a live model, or a snapshot.
        folder: the folder to write to, which is made where it is not there.
        layers: descriptions of classes that are not Keras's, as for `read`, with the PyTorch
            modules that compute what they do.
        flatten: `reorder` or `keep`, see `plan`.
        unknown: `error` or `keep`: layers of no known kind become stubs that hold their weights.
        dtype: cast floating-point tensors to this dtype; the module computes in f32, or in f64.
        vectors: store inputs and outputs to prove the module with where there is no Keras: made by
            Keras where True, or by a port of the model (`.onnx`, `.tflite`), or those in a file
            `.npz`: arrays `inputs` and `outputs`, or `inputs.NAME` and `outputs.NUMBER`, in Keras's
            order of axes.
        progress: is told how many bytes are done, and of how many.

    Returns:
        The report: where every source tensor went, and what the module leaves open.

    Raises:
        UnsupportedError: the file has no architecture, or a layer that no module can stand for.
        UsageError: the folder cannot be written to, or holds a `model.py` of somebody else's.
    """
    from kerasport.codegen.module import module

    if dtype is not None and dtype not in MODULE_DTYPES:
        raise UsageError(
            f"dtype {dtype!r}: expected one of {', '.join(MODULE_DTYPES)} for a module"
        )
    place = as_path(folder)
    weights = place / MODULE_WEIGHTS
    refuse_folder(place)
    snapshot = source if isinstance(source, Snapshot) else read(source, layers=layers)
    refuse_own_source(weights, snapshot.source.path)
    made = module(
        snapshot, flatten=flatten, unknown=unknown, dtype=dtype, snippets=snippets(snapshot, layers)
    )
    name = f"{place.resolve().name}/"
    try:
        made.plan.refuse_losses()
    except UnsupportedError as error:
        error.report = made.plan.report(made.plan.apply(dtype=dtype), name)
        raise
    beside = {MODULE_SOURCE: made.source.encode()}
    stale: list[str] = []
    steps = made.plan
    if vectors:
        live = None if isinstance(source, str | PathLike | Snapshot) else source
        stored = _vectors(vectors, made, snapshot, live)
        beside = {MODULE_VECTORS: stored.packed(), **beside}
        steps = replace(steps, notes=(*steps.notes, Note("module", MODULE_VECTORS, str(stored))))
    elif _has_vectors(place):
        stale.append(MODULE_VECTORS)
    state = steps.apply(dtype=dtype)
    with source_hash_of(snapshot.source) as source_hash:
        state = replace(state, source_hash=source_hash)
        shown = state if progress is None else watched(state, progress)
        try:
            safetensors.write(shown, weights, beside=beside, stale=stale)
        except OSError as error:
            if error.filename is None or Path(error.filename).parent not in (place, place.parent):
                raise
            raise UsageError(
                f"{place}: expected a place that can be written, found: {error.strerror}"
            ) from None
    return steps.report(state, name)


def _vectors(
    wanted: bool | str | PathLike[str], made: Module, snapshot: Snapshot, live: Any
) -> Vectors:
    """Inputs and outputs to store with a module."""
    from kerasport.running import vectors

    if isinstance(wanted, str | PathLike):
        return vectors.by_others(made, snapshot, as_path(wanted))
    return vectors.by_keras(made, snapshot, live=live)


def _has_vectors(folder: Path) -> bool:
    """Whether a folder has vectors of ours, which belong to the module that was there."""
    path = folder / MODULE_VECTORS
    if not path.is_file():
        return False
    from kerasport.running.vectors import is_ours

    return is_ours(path)


def snippets(
    snapshot: Snapshot,
    layers: str | PathLike[str] | Mapping[str, Any] | LayerTable | None = None,
) -> dict[str, str]:
    """The PyTorch modules that descriptions give, by class or by path of a layer.

    Args:
        snapshot: the model, which may carry descriptions of its own.
        layers: descriptions, as for `read`; they come before those of installed packages.
    """
    table = installed() if layers is None else installed() | loaded(layers)
    return (LayerTable(snapshot.custom) | table).modules()


def verify_run(
    folder: str | PathLike[str],
    *,
    against: str | PathLike[str] | Snapshot | object | None = None,
    layers: str | PathLike[str] | Mapping[str, Any] | LayerTable | None = None,
    inputs: str | PathLike[str] | Mapping[str, Any] | None = None,
    dtype: str | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> RunReport:
    """Run a module beside the Keras model that it was made from, and compare every layer.

    Without the model, the module is run on the inputs and outputs that were stored with it, which
    takes no Keras.

    This runs `model.py`: do it with a file that you trust.

    Args:
        folder: what `write_module` wrote.
        against: the model: a path, a live model or a snapshot. Keras opens the file, and never one
            that holds code. None to take the stored vectors.
        layers: descriptions of classes that are not Keras's, as for `write_module`.
        inputs: arrays by the name of the input, in Keras's order of axes, or a `.npz` file of them;
            random ones where None.
        dtype: `f32` or `f64`, what both compute in. Where None, that is `f32`, and `f64` if a layer
            leaves the tolerance: a bug stays then, and rounding goes.
        tolerance: the largest deviation allowed, absolute or relative to the scale of the layer.
        seed: of the random inputs.

    Returns:
        The table of all layers; of the outputs alone, where there is no model.

    Raises:
        MissingExtraError: PyTorch or Keras is not installed.
        UnsupportedError: Keras does not open the model, or the module has stubs.
        UsageError: the inputs do not fit the model.
        VerificationError: with the report, where a layer leaves the tolerance.
    """
    place = as_path(folder)
    _refuse_running(place, dtype=dtype, tolerance=tolerance, inputs=inputs)
    if against is None:
        from kerasport.running import vectors

        if inputs is not None:
            raise UsageError(
                "inputs of your own are for the model too: say where it is, as --against SRC"
            )
        return _within(vectors.ran(place, dtype=dtype, tolerance=tolerance))
    from kerasport.codegen.module import module
    from kerasport.running.beside import compared, settled, unsettled

    snapshot = against if isinstance(against, Snapshot) else read(against, layers=layers)
    done = {note["kind"] for note in _manifest(place).get("notes", ())}
    snapshot = as_converted(snapshot, done)
    own = snippets(snapshot, layers)
    made = [
        module(snapshot, flatten=flatten, unknown="keep", snippets=own)
        for flatten in ("reorder", "keep")
    ]
    live = None if isinstance(against, str | PathLike | Snapshot) else against

    def beside(dtype: str | None) -> RunReport:
        return compared(
            place,
            made,
            snapshot,
            live=live,
            inputs=as_path(inputs) if isinstance(inputs, str | PathLike) else inputs,
            dtype=dtype,
            tolerance=tolerance,
            seed=seed,
            done=done,
        )

    report = beside(dtype)
    if dtype is None and report.dtype == "f32" and report.first is not None:
        try:
            report = settled(report, beside("f64"))
        except UnsupportedError as error:  # not every layer of Keras has another dtype
            report = unsettled(report, str(error))
    return _within(report)


def _refuse_running(folder: Path, *, dtype: str | None, tolerance: float, inputs: Any) -> None:
    """Refuse what cannot be run, before anything is opened."""
    if not (folder / MODULE_SOURCE).is_file():
        raise UsageError(
            f"{folder}: expected a folder with {MODULE_SOURCE}, as kerasport convert --module "
            "writes it, found none"
        )
    if dtype not in (None, "f32", "f64"):
        raise UsageError(f"dtype {dtype!r}: expected f32 or f64, in which both can be run")
    if not tolerance >= 0:
        raise UsageError(f"expected a tolerance of at least 0, found {tolerance}")
    if isinstance(inputs, str | PathLike) and not as_path(inputs).is_file():
        raise UsageError(f"{as_path(inputs)}: expected a readable .npz file, found none")
    if find_spec("torch") is None:
        raise MissingExtraError("torch", "torch", "running a PyTorch module")


def _manifest(folder: Path) -> Mapping[str, Any]:
    """The manifest of a module's weights; nothing where it has lost it."""
    try:
        path = folder / MODULE_WEIGHTS
        found: StateDict = formats.reader(formats.named("safetensors"))(path)
    except KerasportError:
        return {}
    return found.manifest


def _within(report: RunReport) -> RunReport:
    """The report, if all layers are within the tolerance."""
    first = report.first
    if first is None:
        return report
    what = f"{first.path} ({first.class_name})" if first.class_name else first.path
    error = VerificationError(
        f"{report.target} does not compute what {report.source} does: the first to leave the "
        f"tolerance of {report.tolerance:g} is {what}"
        + (f": {first.note}" if first.note else f", by {first.absolute:.1e}")
        + (", in f64 too: no rounding" if report.dtype == "f64" else "")
    )
    error.report = report
    raise error
