"""Reading, planning, writing, converting and verifying, each in one call.

Composition only: every step is somewhere else, and each can be called by itself.

    snapshot = kerasport.read("model.keras")
    state = kerasport.plan(snapshot, to="torch").apply()
    kerasport.write(state, "model.safetensors")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from kerasport import formats, transpose, verification
from kerasport.architecture import json_config
from kerasport.errors import UsageError
from kerasport.identify import identify
from kerasport.manifest import hasher
from kerasport.model import (
    VERBATIM,
    Layer,
    Named,
    Omission,
    Report,
    Snapshot,
    Source,
    StateDict,
    Tensor,
    dtype_named,
)
from kerasport.restore import restored

__all__ = ["convert", "plan", "read", "select", "verify", "write"]

plan = transpose.plan


def read(
    path_or_model: str | PathLike[str] | object,
    *,
    format: str | None = None,
    kinds: Mapping[str, str] | None = None,
    config: str | PathLike[str] | None = None,
    optimizer: bool = False,
    assume_dtype: str | None = None,
) -> Snapshot:
    """Read the weights of a model: a file of any known format, or a live Keras model.

    Args:
        path_or_model: a path, or a model of Keras 3 or tf_keras.
        format: the name of the format, where the content is not to decide.
        kinds: layer-path patterns → kind, for layers whose class the file does not say.
        config: a file that has the architecture: a `model.to_json()`, or another model file.
        optimizer: keep the optimizer's state as tensors too.
        assume_dtype: the dtype of two-byte values of which the file does not say what they are.

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
    if not isinstance(path_or_model, str | PathLike):
        from kerasport.readers.live import read_model

        stored = read_model(path_or_model)
    else:
        path = Path(fspath(path_or_model))
        row = formats.named(format) if format else formats.detected(path)
        if row.writer:
            stored = restored(formats.reader(row)(path), Source(path.name, row.name))
        else:
            stored = formats.reader(row)(
                path,
                architecture=None if config is None else _architecture(Path(fspath(config))),
                assume_dtype=None if assume_dtype is None else dtype_named(assume_dtype),
            )
    if optimizer:
        stored = _with_optimizer(stored)
    return identify(stored, kinds)


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
                omitted.append(Omission(tensor, "left out as asked for"))
        if kept:
            layers.append(replace(layer, weights=Named("role", kept)))
    if not layers:
        raise UsageError(f"nothing is left of {snapshot.source.file} by --include and --exclude")
    return replace(snapshot, layers=tuple(layers), omitted=(*snapshot.omitted, *omitted))


def write(
    state: StateDict,
    path: str | PathLike[str],
    *,
    format: str | None = None,
    max_shard_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Path, ...]:
    """Write a state dict: all of it, or nothing and the old file stays.

    What was written is read again and compared before it takes its name.

    Args:
        state: what `Plan.apply` gave.
        path: the target.
        format: the name of the format; by the suffix where None.
        max_shard_size: the size in bytes from which on the target is cut into shards.
        progress: is told the number of bytes of each step.

    Returns:
        The files written, the one to open first.

    Raises:
        UnknownFormatError: the suffix says no format that can be written.
        UnsupportedError: the format cannot hold a tensor's dtype.
        UsageError: the target cannot be written to.
        VerificationError: what was read again is not what was written.
    """
    target = Path(fspath(path))
    row = formats.for_target(target, format)
    if not target.parent.is_dir():
        raise UsageError(f"{target}: expected a folder {target.parent}, found none")
    if progress is not None:
        watched = {name: replace(tensor, watch=progress) for name, tensor in state.items()}
        state = replace(state, tensors=watched)
    files: tuple[Path, ...] = formats.writer(row)(state, target, max_shard_size=max_shard_size)
    return files


def convert(
    source: str | PathLike[str] | Snapshot | object,
    target: str | PathLike[str],
    *,
    to: str,
    strict: bool = True,
    format: str | None = None,
    flatten: str = "reorder",
    dtype: str | None = None,
    max_shard_size: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Read, plan and write in one call.

    Args:
        source: a path, a live model, or a snapshot, which may have been selected from.
        target: the file to write.
        to: the convention of its names and layouts: `keras`, `torch` or `onnx`.
        strict: refuse what the target cannot hold; otherwise such layers are passed on as stored.
        format: the target's format; by its suffix where None.
        flatten: `reorder` or `keep`, see `plan`.
        dtype: cast floating-point tensors to this dtype.
        max_shard_size: the size in bytes from which on the target is cut into shards.
        progress: is told the number of bytes of each step.

    Returns:
        The report: where every source tensor went.

    Raises:
        UnsupportedError: with every problem, where `strict`; nothing has been written then.
    """
    path = Path(fspath(target))
    formats.for_target(path, format)
    snapshot = source if isinstance(source, Snapshot) else read(source)
    steps = plan(snapshot, to=to, flatten=flatten, strict=strict)
    steps.refuse_losses()
    state = _with_source_hash(steps.apply(dtype=dtype), snapshot.source)
    write(state, path, format=format, max_shard_size=max_shard_size, progress=progress)
    return steps.report(state, path.name)


def verify(
    target: str | PathLike[str], *, against: str | PathLike[str] | Snapshot | object
) -> Report:
    """Read a target again, undo its transposition, and compare with its source bit for bit.

    Args:
        target: a file that kerasport wrote, of any format.
        against: the source: a path, a live model or a snapshot.

    Raises:
        VerificationError: with every tensor that differs, and where.
        UsageError: the target has no manifest.
    """
    path = Path(fspath(target))
    row = formats.detected(path)
    state = formats.reader(row)(path)
    if not isinstance(state, StateDict):
        raise UsageError(f"{path}: expected a file that kerasport wrote, found {row.holds}")
    return verification.verify(
        state, against if isinstance(against, Snapshot) else read(against), path.name
    )


def _architecture(path: Path) -> Mapping[str, Any]:
    """The Keras configuration in a file: a `model.to_json()`, or a whole model's own."""
    try:
        with path.open("rb") as file:
            is_json = file.read(1).strip() in (b"{", b"")
    except OSError as error:
        raise UsageError(f"{path}: expected a readable file, found: {error.strerror}") from None
    found = json_config(path) if is_json else read(path).architecture
    if found is None:
        raise UsageError(f"{path}: expected a model with its architecture, found weights alone")
    return found


def _tensors(layer: Layer) -> Iterable[Tensor]:
    return layer.weights.values()


def _fits(path: str, name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(path, p) or fnmatchcase(name, p) for p in patterns)


def _with_source_hash(state: StateDict, source: Source) -> StateDict:
    """The state dict whose manifest names the source by its content too."""
    if source.content is None:
        return state
    digest = hasher()
    for block in source.content():
        digest.update(block)
    about = {**state.manifest["source"], "hash": digest.hexdigest()}
    return replace(state, manifest={**state.manifest, "source": about})


def _with_optimizer(snapshot: Snapshot) -> Snapshot:
    """The optimizer's state as one more layer, whose tensors are passed on as stored."""
    state = [o.tensor for o in snapshot.omitted if o.reason == "optimizer state"]
    if not state:
        return snapshot
    weights = {tensor.name.removeprefix("optimizer/"): tensor for tensor in state}
    layer = Layer("optimizer", None, {}, weights, kind=VERBATIM)
    omitted = tuple(o for o in snapshot.omitted if o.reason != "optimizer state")
    return replace(snapshot, layers=(*snapshot.layers, layer), omitted=omitted)
