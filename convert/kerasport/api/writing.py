"""From a snapshot to a file, and the way back into a file of Keras's own.

Everything that can be refused is refused before the target is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path
from typing import Any

from kerasport import formats, ties
from kerasport.api.matches import renamed_plan
from kerasport.api.places import as_path, refuse_own_source, refuse_place
from kerasport.api.reading import read
from kerasport.backward import agreeing, backward
from kerasport.conventions import NAMES
from kerasport.errors import UnsupportedError, UsageError
from kerasport.manifest import hashed
from kerasport.model import Report, Snapshot, Source, StateDict
from kerasport.naming import Naming
from kerasport.naming import loaded as loaded_names
from kerasport.transpose import plan

__all__ = ["FILLED", "convert", "source_hash_of", "watched", "write"]

# The formats of which a copy can be given other weights.
FILLED = ("keras", "keras-legacy", "keras-weights")


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
    target = as_path(path)
    row = formats.for_target(target, format)
    refuse_place(target)
    if progress is not None:
        state = watched(state, progress)
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
    path = as_path(target)
    if like is not None:
        if to != "keras" or format or dtype or max_shard_size:
            raise UsageError(
                "like: fills a Keras file as it is: expected to='keras', and no format, dtype or "
                "max_shard_size"
            )
        if not isinstance(source, str | PathLike):
            raise UsageError("like: expected the file of a state dict as the source")
        return _filled(
            as_path(source),
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
    refuse_place(path)
    refuse_own_source(path, snapshot.source.path)
    if names is None:
        steps = plan(snapshot, to=to, flatten=flatten, strict=strict, unknown=unknown, tied=tied)
    else:
        if to != "torch":
            raise UsageError(f"names: expected to='torch', whose names they are, found {to!r}")
        own = None if into is None else _state(as_path(into))
        steps, snapshot = renamed_plan(snapshot, loaded_names(names), flatten=flatten, own=own)
    if snapshot.source.format != "live":  # where it is known which variables are one
        steps = replace(steps, notes=(*steps.notes, *ties.equal_notes(snapshot)))
    try:
        steps.refuse_losses()
    except UnsupportedError as error:
        error.report = steps.report(steps.apply(dtype=dtype), path.name)
        raise
    state = steps.apply(dtype=dtype)
    with source_hash_of(snapshot.source) as source_hash:
        state = replace(state, source_hash=source_hash)
        write(state, path, format=format, max_shard_size=max_shard_size, progress=progress)
    return steps.report(state, path.name)


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
    refuse_place(target)
    refuse_own_source(target, source)
    refuse_own_source(target, file)
    state = _state(source)
    to = state.convention if state.convention in NAMES and names is None else "torch"
    # A manifest says how images were flattened; whoever has none must say it.
    ways = [flatten, *({"reorder", "keep"} - {flatten})] if state.manifest else [flatten]
    if names is not None:
        kept = {n for n in state if any(fnmatchcase(n, pattern) for pattern in names.kept)}
        state = replace(state, tensors={n: t for n, t in state.tensors.items() if n not in kept})
        plans = [renamed_plan(like, names, flatten=way)[0] for way in ways]
        like = renamed_plan(like, names, flatten=flatten)[1]
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


def _state(source: Path) -> StateDict:
    """The tensors of a file: a state dict as it is, the weights of a model by Keras's names."""
    row = formats.detected(source)
    if row.writer:
        state: StateDict = formats.reader(row)(source)
        return state
    return plan(read(source), to="keras").apply()


def watched(state: StateDict, progress: Callable[[int, int], None]) -> StateDict:
    """The state dict whose tensors tell how far the writing is."""
    done = 0

    def watch(step: int) -> None:
        nonlocal done
        done = min(done + step, state.nbytes)
        progress(done, state.nbytes)

    return replace(state, tensors={n: replace(t, watch=watch) for n, t in state.items()})


def source_hash_of(source: Source) -> AbstractContextManager[Callable[[], str] | None]:
    """What gives the hash of the source's content, while it is taken."""
    return nullcontext() if source.content is None else hashed(source.content)
