"""From a snapshot to a file, and the way back into a file of Keras's own.

Everything that can be refused is refused before the target is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasport import formats, ties
from kerasport.api.places import as_path, refuse_own_source, refuse_place
from kerasport.api.reading import read, state_of
from kerasport.errors import UnsupportedError, UsageError
from kerasport.manifest import hashed
from kerasport.model import Report, Snapshot, Source, StateDict
from kerasport.transpose import plan

if TYPE_CHECKING:
    from kerasport.naming import Naming

__all__ = ["convert", "source_hash_of", "watched", "write"]


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
        from kerasport.api.filling import filled

        return filled(
            as_path(source),
            path,
            like=like if isinstance(like, Snapshot) else read(like),
            strict=strict,
            unknown=unknown,
            flatten=flatten,
            sum_biases=sum_biases,
            names=names,
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
        from kerasport.api.matches import renamed_plan

        own = None if into is None else state_of(as_path(into))
        steps, snapshot = renamed_plan(snapshot, names, flatten=flatten, own=own)
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
