"""Reading, planning, writing, converting and verifying, each in one call.

Composition only: every step is somewhere else, and each can be called by itself.

    snapshot = kerasport.read("model.keras")
    state = kerasport.plan(snapshot, to="torch").apply()
    kerasport.write(state, "model.safetensors")
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from importlib.util import find_spec
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kerasport import formats, matching, ties, transpose, verification
from kerasport.architecture import json_config
from kerasport.averages import averaged
from kerasport.backward import agreeing, backward
from kerasport.conventions import NAMES
from kerasport.custom import LayerTable, installed, loaded
from kerasport.dequantize import dequantized
from kerasport.errors import (
    KerasportError,
    MalformedError,
    MissingExtraError,
    UnknownFormatError,
    UnsupportedError,
    UsageError,
    VerificationError,
)
from kerasport.identify import completed, identify
from kerasport.lora import merged
from kerasport.manifest import hashed
from kerasport.matching import Wanted
from kerasport.model import (
    EXCLUDED,
    VERBATIM,
    Layer,
    Named,
    Note,
    Omission,
    Report,
    Snapshot,
    Source,
    StateDict,
    Tensor,
    dtype_name,
    dtype_named,
)
from kerasport.naming import Naming, named, renamed
from kerasport.naming import loaded as loaded_names
from kerasport.restore import restored
from kerasport.running.comparison import TOLERANCE, RunReport
from kerasport.transpose import Plan
from kerasport.units import groups
from kerasport.unnamed import in_order
from kerasport.writers import safetensors

if TYPE_CHECKING:
    from kerasport.codegen.module import Module
    from kerasport.running.vectors import Vectors

__all__ = [
    "convert",
    "match",
    "plan",
    "read",
    "select",
    "tie",
    "verify",
    "verify_run",
    "write",
    "write_module",
]

plan = transpose.plan
# The formats of which a copy can be given other weights.
# How near the outputs of a module must be to the model's, relative to the largest of them.
CLOSE = 1e-4
FILLED = ("keras", "keras-legacy", "keras-weights")

# What the folder of a module holds.
MODULE_SOURCE: Final = "model.py"
MODULE_WEIGHTS: Final = "model.safetensors"
MODULE_VECTORS: Final = "vectors.npz"
MODULE_DTYPES: Final = ("f64", "f32", "f16", "bf16")
MADE_BY: Final = "made by kerasport from"


def read(
    path_or_model: str | PathLike[str] | object,
    *,
    format: str | None = None,
    kinds: Mapping[str, str] | None = None,
    config: str | PathLike[str] | None = None,
    optimizer: bool = False,
    ema: bool = False,
    assume_dtype: str | None = None,
    layers: str | PathLike[str] | Mapping[str, Any] | LayerTable | None = None,
    dequantize: bool = False,
    merge_lora: bool = False,
) -> Snapshot:
    """Read the weights of a model: a file of any known format, or a live Keras model.

    Args:
        path_or_model: a path, or a model of Keras 3 or tf_keras.
        format: the name of the format, where the content is not to decide.
        kinds: layer-path patterns → kind, for layers whose class the file does not say.
        config: a file that has the architecture: a `model.to_json()`, or another model file.
        optimizer: keep the optimizer's state as tensors too.
        ema: weights with the values of their moving averages, where the file holds those.
        assume_dtype: the dtype of two-byte values of which the file does not say what they are.
        layers: descriptions of classes that are not Keras's, as a TOML file or a mapping of the
            same form; see `kerasport.custom`. They come before those of installed packages.
        dequantize: quantized weights as the floats that Keras computes with.
        merge_lora: low-rank factors merged into the weights beside them, as Keras does it.

    Returns:
        The layers with their weights by role. The bytes stay in the file until they are asked for.

    Raises:
        UsageError: no such file, or options that do not fit it.
        UnknownFormatError: the content is of no known format.
        MalformedError: the file is broken or hostile.

    >>> snapshot = read("fixtures/cnn.keras")
    >>> snapshot["stem"].weights["kernel"].spec
    'f32[3,2,1,6]'
    """
    given = None if config is None else _architecture(_path(config))
    table = installed() if layers is None else installed() | loaded(layers)
    if not isinstance(path_or_model, str | PathLike):
        if format or config or assume_dtype:
            raise UsageError(
                "a live model is read as it is: leave out format, config, assume_dtype"
            )
        from kerasport.readers.live import read_model

        # Keras merges into quantized weights by quantizing anew, which floats can do without.
        stored = read_model(path_or_model, merge_lora=merge_lora and not dequantize)
    else:
        path = _weights(_path(path_or_model))
        row = formats.named(format) if format else formats.detected(path)
        stored = _stored(row, path, architecture=given, assume_dtype=assume_dtype)
        stored = replace(stored, source=replace(stored.source, path=path.absolute()))
    found = identify(in_order(stored), kinds, table)
    if given is not None:
        _refuse_misfit(found)
    found = averaged(found) if ema else found
    found = _with_optimizer(found) if optimizer else found
    found = dequantized(found) if dequantize else found
    return merged(found) if merge_lora else found


def select(
    snapshot: Snapshot, *, include: Iterable[str] = (), exclude: Iterable[str] = ()
) -> Snapshot:
    """The snapshot without the tensors that patterns leave out; they are listed as omitted.

    Args:
        snapshot: what `read` gave.
        include: patterns of tensor names or layer paths, such as `encoder/*`; all where empty.
        exclude: patterns of what to leave out of those.

    Raises:
        UsageError: a pattern fits nothing, or nothing is left.
    """
    include, exclude = tuple(include), tuple(exclude)
    if not include and not exclude:
        return snapshot
    names = [(layer.path, tensor.name) for layer in snapshot.layers for tensor in _tensors(layer)]
    for pattern in (*include, *exclude):
        if not any(_fits(path, name, (pattern,)) for path, name in names):
            raise UsageError(f"no layer or tensor fits {pattern!r}. See: kerasport inspect")
    layers: list[Layer] = []
    omitted: list[Omission] = []
    for layer in snapshot.layers:
        kept: dict[str, Tensor] = {}
        for role, tensor in layer.weights.items():
            wanted = not include or _fits(layer.path, tensor.name, include)
            if wanted and not _fits(layer.path, tensor.name, exclude):
                kept[role] = tensor
            else:
                omitted.append(Omission(tensor, EXCLUDED))
        if kept:
            layers.append(replace(layer, weights=Named("role", kept)))
    if not layers:
        raise UsageError(f"nothing is left of {snapshot.source.file} by --include and --exclude")
    return replace(snapshot, layers=tuple(layers), omitted=(*snapshot.omitted, *omitted))


def tie(snapshot: Snapshot) -> Snapshot:
    """The snapshot in which tensors of equal content are one variable, which a file cannot say.

    Nothing proves it: two layers of one seed are equal too before they are trained. What a live
    model, a configuration or an archive knows of tied variables is known without this.

    Args:
        snapshot: what `read` gave.
    """
    return ties.tied(snapshot)


def write(
    state: StateDict,
    path: str | PathLike[str],
    *,
    format: str | None = None,
    max_shard_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, ...]:
    """Write a state dict: all of it, or nothing and the old file stays.

    What was written is read again and compared before it takes its name.

    Args:
        state: what `Plan.apply` gave.
        path: the target; a symbolic link is replaced, and what it leads to stays as it is.
        format: the name of the format; by the suffix where None.
        max_shard_size: the size in bytes from which on the target is cut into shards.
        progress: is told how many bytes are done, and of how many.

    Returns:
        The files written, the one to open first.

    Raises:
        UnknownFormatError: the suffix says no format that can be written.
        UnsupportedError: the format cannot hold a tensor's dtype.
        UsageError: the target cannot be written to.
        VerificationError: what was read again is not what was written.
    """
    target = _path(path)
    row = formats.for_target(target, format)
    _refuse_place(target)
    if progress is not None:
        state = _watched(state, progress)
    try:
        files: tuple[Path, ...] = formats.writer(row)(state, target, max_shard_size=max_shard_size)
    except OSError as error:
        if error.filename is None or Path(error.filename).parent != target.parent:
            raise
        raise UsageError(
            f"{target}: expected a place that can be written, found: {error.strerror}"
        ) from None
    return files


def convert(
    source: str | PathLike[str] | Snapshot | object,
    target: str | PathLike[str],
    *,
    to: str,
    strict: bool = True,
    unknown: str = "error",
    tied: str = "once",
    format: str | None = None,
    flatten: str = "reorder",
    dtype: str | None = None,
    max_shard_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    like: str | PathLike[str] | Snapshot | None = None,
    sum_biases: bool = False,
    names: str | PathLike[str] | Mapping[str, Any] | Naming | None = None,
    into: str | PathLike[str] | None = None,
) -> Report:
    """Read, plan and write in one call.

    With `like` it is the way back: the target is a copy of that Keras file with the weights of a
    state dict, such as one that was trained on in PyTorch.

    Args:
        source: a path, a live model, or a snapshot, which may have been selected from.
        target: the file to write.
        to: the convention of its names and layouts: `keras`, `torch` or `onnx`.
        strict: refuse what the target cannot hold; otherwise such layers are passed on as stored.
        unknown: `error` or `keep`: layers of no known kind are passed on as stored, as asked for.
        tied: `once` or `both`, see `plan`.
        format: the target's format; by its suffix where None.
        flatten: `reorder` or `keep`, see `plan`.
        dtype: cast floating-point tensors to this dtype.
        max_shard_size: the size in bytes from which on the target is cut into shards.
        progress: is told how many bytes are done, and of how many.
        like: the Keras file to fill: a path, or what `read` and `select` gave of one.
        sum_biases: with `like`, add up the two biases that PyTorch adds, where Keras has one.
        names: what a PyTorch model calls and how it lays out its tensors: what `match` gave, or the
            file of it.
        into: with `names`, the state dict's file whose tensors that are no weights are passed on.

    Returns:
        The report: where every source tensor went.

    Raises:
        UnsupportedError: with every problem and the report, where `strict`; nothing has been
            written then.
        UsageError: the target would overwrite the source, or cannot be written to.
    """
    path = _path(target)
    if like is not None:
        if to != "keras" or format or dtype or max_shard_size:
            raise UsageError(
                "like: fills a Keras file as it is: expected to='keras', and no format, dtype or "
                "max_shard_size"
            )
        if not isinstance(source, str | PathLike):
            raise UsageError("like: expected the file of a state dict as the source")
        return _filled(
            _path(source),
            path,
            like=like if isinstance(like, Snapshot) else read(like),
            strict=strict,
            unknown=unknown,
            flatten=flatten,
            sum_biases=sum_biases,
            names=None if names is None else loaded_names(names),
        )
    formats.for_target(path, format)
    snapshot = source if isinstance(source, Snapshot) else read(source)
    _refuse_place(path)
    _refuse_own_source(path, snapshot.source.path)
    if names is None:
        steps = plan(snapshot, to=to, flatten=flatten, strict=strict, unknown=unknown, tied=tied)
    else:
        if to != "torch":
            raise UsageError(f"names: expected to='torch', whose names they are, found {to!r}")
        own = None if into is None else _state(_path(into))
        steps, snapshot = _renamed(snapshot, loaded_names(names), flatten=flatten, own=own)
    if snapshot.source.format != "live":  # where it is known which variables are one
        steps = replace(steps, notes=(*steps.notes, *ties.equal_notes(snapshot)))
    try:
        steps.refuse_losses()
    except UnsupportedError as error:
        error.report = steps.report(steps.apply(dtype=dtype), path.name)
        raise
    state = steps.apply(dtype=dtype)
    with _source_hash(snapshot.source) as source_hash:
        state = replace(state, source_hash=source_hash)
        write(state, path, format=format, max_shard_size=max_shard_size, progress=progress)
    return steps.report(state, path.name)


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
    place = _path(folder)
    weights = place / MODULE_WEIGHTS
    _refuse_folder(place)
    snapshot = source if isinstance(source, Snapshot) else read(source, layers=layers)
    _refuse_own_source(weights, snapshot.source.path)
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
    with _source_hash(snapshot.source) as source_hash:
        state = replace(state, source_hash=source_hash)
        shown = state if progress is None else _watched(state, progress)
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
        return vectors.by_others(made, snapshot, _path(wanted))
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


def _filled(
    source: Path,
    target: Path,
    *,
    like: Snapshot,
    strict: bool,
    unknown: str,
    flatten: str,
    sum_biases: bool,
    names: Naming | None,
) -> Report:
    """A copy of a Keras file that holds a state dict's values."""
    from kerasport.writers import keras_file

    file = like.source.path
    if file is None or like.source.format not in FILLED:
        raise UnsupportedError(
            f"{like.source.file}: expected a .keras, .weights.h5 or .h5 file to fill, found "
            f"{like.source.format}. Save the model with Keras as one of those"
        )
    if {note.kind for note in like.notes} & {"dequantized", "merged"}:
        raise UsageError(
            f"{like.source.file}: its weights can be filled as they are stored only: leave out "
            "--dequantize and --merge-lora"
        )
    _refuse_place(target)
    _refuse_own_source(target, source)
    _refuse_own_source(target, file)
    state = _state(source)
    to = state.convention if state.convention in NAMES and names is None else "torch"
    # A manifest says how images were flattened; whoever has none must say it.
    ways = [flatten, *({"reorder", "keep"} - {flatten})] if state.manifest else [flatten]
    if names is not None:
        kept = {n for n in state if any(fnmatchcase(n, pattern) for pattern in names.kept)}
        state = replace(state, tensors={n: t for n, t in state.tensors.items() if n not in kept})
        plans = [_renamed(like, names, flatten=way)[0] for way in ways]
        like = _renamed(like, names, flatten=flatten)[1]
    else:
        plans = [
            plan(like, to=to, flatten=way, strict=strict, unknown=unknown, module=module)
            for way in ways
            for module in ((False, True) if to == "torch" else (False,))
        ]
    found = backward(
        agreeing(plans, state),
        state,
        like,
        file=source.name,
        strict=strict,
        sum_biases=sum_biases,
    )
    try:
        keras_file.write(found.tensors, target, like=file)
    except OSError as error:
        if error.filename is None or Path(error.filename).parent != target.parent:
            raise
        raise UsageError(
            f"{target}: expected a place that can be written, found: {error.strerror}"
        ) from None
    return Report(
        "convert",
        source.name,
        target.name,
        "keras",
        found.placed,
        len(found.tensors),
        sum(tensor.size for tensor in found.tensors.values()),
        sum(tensor.nbytes for tensor in found.tensors.values()),
        found.notes,
    )


def match(
    source: str | PathLike[str] | Snapshot | object,
    target: str | PathLike[str] | Iterable[Wanted],
    *,
    hints: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    keep: Iterable[str] = (),
    inputs: str | PathLike[str] | Mapping[str, Any] | None = None,
) -> Naming:
    """Which module of a PyTorch model is which layer of a Keras model.

    Args:
        source: a path, a live model or a snapshot, which may have been selected from.
        target: a state dict's file; `package.module:factory`, which is imported and called; or the
            tensors that are wanted, in the order of their making.
        hints: patterns of layers and of the target's names that belong together.
        keep: patterns of tensors that the model does not have, such as another task's head: they
            stay the target's own.
        inputs: an `.npz` file, or arrays by name: what a factory's module takes, in its order and
            layout, and under `outputs` what the model gave for it. The match is then proven by
            running the module, and what is ambiguous is settled by it.

    Returns:
        The names, for `convert(…, names=…)`; `str` gives the file of them.

    Raises:
        UnsupportedError: there is no way for all weights, or more than one.
        UsageError: there is no such target, or a hint fits nothing.
    """
    snapshot = source if isinstance(source, Snapshot) else read(source)
    wanted, ordered, name = _wanted(target)
    for pattern in (keep := tuple(keep)):
        if not any(fnmatchcase(tensor.name, pattern) for tensor in wanted):
            raise UsageError(f"--keep {pattern}: no tensor of {name} has such a name")
    wanted = [
        replace(tensor, number=False)
        if any(fnmatchcase(tensor.name, pattern) for pattern in keep)
        else tensor
        for tensor in wanted
    ]
    pairs = tuple(hints.items() if isinstance(hints, Mapping) else hints)
    judge = None if inputs is None else _judge(snapshot, name, inputs)
    found = matching.match(
        snapshot, groups(snapshot), wanted, ordered=ordered, hints=pairs, name=name, judge=judge
    )
    names = named(found, snapshot, title=f"{snapshot.source.file} as {name}")
    return names if judge is None else replace(names, notes=("proven by running it",))


def _judge(
    snapshot: Snapshot, factory: str, inputs: str | PathLike[str] | Mapping[str, Any]
) -> Callable[[matching.Found], bool]:
    """What tells whether a module with the weights in it puts out what the model did."""
    from kerasport.torch import arrays, runner

    if ":" not in factory:
        raise UsageError(f"--inputs: expected package.module:factory to run, found {factory}")
    recorded = inputs if isinstance(inputs, Mapping) else arrays(_path(inputs))
    deviation = runner(factory, recorded)

    def judge(found: matching.Found) -> bool:
        steps, _ = _renamed(snapshot, named(found, snapshot), flatten="reorder")
        return deviation(steps.apply()) <= CLOSE

    return judge


def settled(
    snapshot: Snapshot, names: str | PathLike[str] | Mapping[str, Any] | Naming
) -> Snapshot:
    """The snapshot with the kinds that names give to layers whose file does not say them.

    Args:
        snapshot: what `read` gave.
        names: what `match` gave, or the file of it.
    """
    fitting = {
        pattern: kind
        for pattern, kind in loaded_names(names).kinds.items()
        if any(fnmatchcase(path, pattern) for path in snapshot)
    }
    return identify(snapshot, fitting) if fitting else snapshot


def write_names(naming: Naming, path: str | PathLike[str]) -> None:
    """Write names to a file, whole or not at all.

    Args:
        naming: what `match` gave.
        path: the TOML file.
    """
    from kerasport.writers.staging import Staging

    target = _path(path)
    _refuse_place(target)
    with Staging(target) as staging:
        staging.open(target).write(str(naming).encode())
        staging.publish()


def _wanted(target: str | PathLike[str] | Iterable[Wanted]) -> tuple[list[Wanted], bool, str]:
    """The target's tensors, whether in the order of their making, and what it is called."""
    if not isinstance(target, str | PathLike):
        return list(target), True, "the target"
    path = _path(target)
    if not path.exists() and re.fullmatch(r"[\w.]+:[\w.]+", str(target)):
        from kerasport.torch import described

        listed = described(str(target))
        return [Wanted(*tensor) for tensor in listed], True, str(target)
    row = formats.detected(path)
    if row.name not in ("pytorch", "safetensors"):
        raise UsageError(
            f"{path}: expected a safetensors or .pt file, or package.module:factory, found "
            f"{row.holds}"
        )
    state = formats.reader(row)(path)
    # safetensors sorts by size and name; a pickled state dict stands as it was made.
    return [_described(tensor) for tensor in state.values()], row.name == "pytorch", path.name


def _described(tensor: Tensor) -> Wanted:
    is_float = tensor.dtype.kind == "f" or dtype_name(tensor.dtype).startswith(("bf", "f8"))
    # Where PyTorch has two biases and a model needs one, its makers filled one with zeros.
    second = "bias_ih" in tensor.name or "bias_hh" in tensor.name
    return Wanted(tensor.name, tensor.shape, is_float, second and not tensor.numpy().any())


def _renamed(
    snapshot: Snapshot, naming: Naming, *, flatten: str, own: StateDict | None = None
) -> tuple[Plan, Snapshot]:
    """The plan under a target's names, and the model with the kinds that they give."""
    snapshot = settled(snapshot, naming)
    steps = plan(snapshot, to="torch", flatten=flatten, strict=False, unknown="keep")
    return renamed(steps, snapshot, naming, flatten=flatten, own=own), snapshot


def _state(source: Path) -> StateDict:
    """The tensors of a file: a state dict as it is, the weights of a model by Keras's names."""
    row = formats.detected(source)
    if row.writer:
        state: StateDict = formats.reader(row)(source)
        return state
    return plan(read(source), to="keras").apply()


def verify(
    target: str | PathLike[str],
    *,
    against: str | PathLike[str] | Snapshot | object,
    names: str | PathLike[str] | Mapping[str, Any] | Naming | None = None,
) -> Report:
    """Read a target again, undo its transposition, and compare with its source bit for bit.

    Args:
        target: a file that kerasport wrote, of any format, or the folder of a module.
        against: the source: a path, a live model or a snapshot.
        names: those that it was converted with, where they say kinds that the source does not.

    Raises:
        VerificationError: with every tensor that differs, and where.
        UsageError: the target has no manifest.
    """
    path = _path(target)
    weights = _weights(path)
    name = path.name if weights is path else f"{path.resolve().name}/"
    path = weights
    row = formats.detected(path)
    if not row.writer:
        raise UsageError(f"{path}: expected a file that kerasport wrote, found {row.holds}")
    snapshot = against if isinstance(against, Snapshot) else read(against)
    try:
        state = formats.reader(row)(path)
        done = {note["kind"] for note in state.manifest.get("notes", ())}
        if "merged" in done and snapshot is not against and snapshot.source.format == "live":
            snapshot = read(against, dequantize="dequantized" in done, merge_lora=True)
        # What --kind said in the conversion need not be said again: it has to fit here as well, and
        # which values must be equal does not depend on it.
        said = state.manifest.get("layers", {})
        snapshot = completed(snapshot, {path: layer.get("kind") for path, layer in said.items()})
        if names is not None:
            snapshot = settled(snapshot, names)
        return verification.verify(state, _as_converted(snapshot, done), name)
    except MalformedError as error:
        # What kerasport wrote was whole: a file that is broken now does not hold its source.
        raise VerificationError(f"{path} does not hold {snapshot.source.file}: {error}") from error


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
    place = _path(folder)
    _refuse_running(place, dtype=dtype, tolerance=tolerance, inputs=inputs)
    if against is None:
        from kerasport.running import vectors

        if inputs is not None:
            raise UsageError(
                "inputs of your own are for the model too: say where it is, as --against SRC"
            )
        return _within(vectors.ran(place, dtype=dtype, tolerance=tolerance))
    from kerasport.codegen.module import module
    from kerasport.running.beside import compared, settled

    snapshot = against if isinstance(against, Snapshot) else read(against, layers=layers)
    done = {note["kind"] for note in _manifest(place).get("notes", ())}
    snapshot = _as_converted(snapshot, done)
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
            inputs=_path(inputs) if isinstance(inputs, str | PathLike) else inputs,
            dtype=dtype,
            tolerance=tolerance,
            seed=seed,
            done=done,
        )

    report = beside(dtype)
    if dtype is None and report.dtype == "f32" and report.first is not None:
        with suppress(UnsupportedError):  # not every model can be built for another dtype
            report = settled(report, beside("f64"))
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
    if isinstance(inputs, str | PathLike) and not _path(inputs).is_file():
        raise UsageError(f"{_path(inputs)}: expected a readable .npz file, found none")
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


def _as_converted(snapshot: Snapshot, done: Collection[str]) -> Snapshot:
    """The source with what the conversion did to it first, unless that is done already."""
    already = {note.kind for note in snapshot.notes}
    if "averaged" in done and "averaged" not in already:
        snapshot = averaged(snapshot)
    if "dequantized" in done and "dequantized" not in already:
        snapshot = dequantized(snapshot)
    if "merged" in done and "merged" not in already:
        snapshot = merged(snapshot)
    return snapshot


def _path(path: str | PathLike[str]) -> Path:
    """A path as people write it: `~` is the home folder, also where no shell has seen it."""
    try:
        return Path(fspath(path)).expanduser()
    except RuntimeError:  # there is no such user, but there may be such a file
        return Path(fspath(path))


def _weights(path: Path) -> Path:
    """The file that has the weights: the folder of a module stands for the one in it."""
    held = path / MODULE_WEIGHTS
    try:
        return held if (path / MODULE_SOURCE).is_file() and held.is_file() else path
    except OSError:  # a name too long, a folder that cannot be looked into: for others to tell
        return path


def _stored(
    row: formats.Format,
    path: Path,
    *,
    architecture: Mapping[str, Any] | None,
    assume_dtype: str | None,
) -> Snapshot:
    """What a reader delivers."""
    if not row.reader:
        raise UnknownFormatError(f"format {row.name} can be written, not read")
    if not row.writer:
        found: Snapshot = formats.reader(row)(
            path, architecture=architecture, assume_dtype=_dtype(assume_dtype)
        )
        return found
    if assume_dtype:
        raise UsageError(f"{path}: {row.holds} says each dtype itself: leave out --assume-dtype")
    state = formats.reader(row)(path)
    source = Source(path.name, row.name, nbytes=path.stat().st_size, content=lambda: _content(path))
    return restored(state, source, architecture=architecture)


def _content(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block


def _dtype(name: str | None) -> Any:
    try:
        return None if name is None else dtype_named(name)
    except MalformedError as error:
        raise UsageError(f"--assume-dtype: {error}") from None


def _refuse_place(target: Path) -> None:
    """Refuse a target that is no file, or that has no folder to be in."""
    try:
        if target.exists() and not target.is_file():
            what = "a folder" if target.is_dir() else "a device"
            raise UsageError(f"{target}: expected the name of a file, found {what}. Name a file")
        if not target.parent.is_dir():
            raise UsageError(f"{target}: expected a folder {target.parent}, found none")
    except OSError as error:  # a name too long, a folder that cannot be looked into
        raise UsageError(f"{target}: expected a place to write to, found: {error}") from None


def _refuse_folder(target: Path) -> None:
    """Refuse a folder that cannot be made, or in which something else has the names of a module."""
    from kerasport.codegen.module import MADE_BY

    try:
        if target.exists() and not target.is_dir():
            raise UsageError(
                f"{target}: expected the name of a folder, found a file. A module is a folder that "
                f"holds {MODULE_SOURCE} and {MODULE_WEIGHTS}; name another"
            )
        if not target.exists() and not target.parent.is_dir():
            raise UsageError(f"{target}: expected a folder {target.parent}, found none")
        source, weights = target / MODULE_SOURCE, target / MODULE_WEIGHTS
        for path in (source, weights):
            if path.is_dir():
                raise UsageError(f"{path}: expected a file, found a folder. Name another folder")
        for path, ours in ((source, MADE_BY), (weights, '"kerasport":')):
            if path.exists() and ours not in _beginning(path):
                raise UsageError(
                    f"{path}: expected a file that kerasport wrote, found another, which would be "
                    "overwritten. Name another folder, or move the file"
                )
    except OSError as error:  # a name too long, a folder that cannot be looked into
        raise UsageError(f"{target}: expected a place to write to, found: {error}") from None


def _beginning(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(400).decode(errors="replace")


def _refuse_own_source(target: Path, source: Path | None) -> None:
    """Refuse a target that would take the place of its own source, or of a shard of it."""
    if source is None or not source.exists():
        return
    same = target.exists() and target.samefile(source)
    if target.parent.exists() and source.parent.samefile(target.parent):
        shards = rf"{re.escape(target.name.removesuffix('.safetensors'))}-\d+-of-\d+\.safetensors"
        same |= source.name == f"{target.name}.index.json"
        same |= re.fullmatch(shards, source.name) is not None
    if same:
        raise UsageError(f"{target}: is the source, or a part of it; choose another name")


def _watched(state: StateDict, progress: Callable[[int, int], None]) -> StateDict:
    """The state dict whose tensors tell how far the writing is."""
    done = 0

    def watch(step: int) -> None:
        nonlocal done
        done = min(done + step, state.nbytes)
        progress(done, state.nbytes)

    return replace(state, tensors={n: replace(t, watch=watch) for n, t in state.items()})


def _architecture(path: Path) -> Mapping[str, Any]:
    """The Keras configuration in a file: a `model.to_json()`, or a whole model's own."""
    try:
        is_json = False
        if not path.is_dir():
            with path.open("rb") as file:
                is_json = file.read(1).strip() in (b"{", b"")
    except OSError as error:
        raise UsageError(f"{path}: expected a readable file, found: {error.strerror}") from None
    found = json_config(path) if is_json else read(path).architecture
    if found is None:
        raise UsageError(f"{path}: expected a model with its architecture, found weights alone")
    return found


def _refuse_misfit(snapshot: Snapshot) -> None:
    """Refuse an architecture from elsewhere whose layers cannot have the weights they got."""
    misfits = [layer for layer in snapshot.layers if layer.kind is None and layer.class_name]
    lines = [f"{a.path}: {a.note}" for a in misfits if a.note.startswith("the stored tensors")]
    if lines:
        raise UsageError(
            "\n  ".join([f"{snapshot.source.file}: the architecture does not fit:", *sorted(lines)])
        )


def _tensors(layer: Layer) -> Iterable[Tensor]:
    return layer.weights.values()


def _fits(path: str, name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(path, p) or fnmatchcase(name, p) for p in patterns)


def _source_hash(source: Source) -> AbstractContextManager[Callable[[], str] | None]:
    """What gives the hash of the source's content, while it is taken."""
    return nullcontext() if source.content is None else hashed(source.content)


def _with_optimizer(snapshot: Snapshot) -> Snapshot:
    """The optimizer's state as one more layer, whose tensors are passed on as stored."""
    state = [o.tensor for o in snapshot.omitted if o.reason == "optimizer state"]
    if not state:
        return snapshot
    weights = {tensor.name.removeprefix("optimizer/"): tensor for tensor in state}
    layer = Layer("optimizer", None, {}, weights, kind=VERBATIM)
    omitted = tuple(o for o in snapshot.omitted if o.reason != "optimizer state")
    return replace(snapshot, layers=(*snapshot.layers, layer), omitted=omitted)
