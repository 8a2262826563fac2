"""From a file or a live model to a snapshot, and what of it is wanted.

Readers deliver what is stored; what it is, is decided here, in one order: classes and kinds, then
moving averages, quantized weights, low-rank factors. What does one of these is loaded where it is
asked for: listing a file takes about as long as loading what listing takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path
from typing import Any

from kerasport import formats
from kerasport.api.places import as_path, weights_in
from kerasport.architecture import json_config
from kerasport.custom import LayerTable, installed, loaded
from kerasport.errors import MalformedError, UnknownFormatError, UsageError
from kerasport.identify import identify
from kerasport.model import (
    EXCLUDED,
    VERBATIM,
    Layer,
    Omission,
    Snapshot,
    Source,
    StateDict,
    Tensor,
    dtype_named,
)
from kerasport.unnamed import in_order

__all__ = ["read", "select", "state_of", "tie"]


def read(
    path_or_model: str | PathLike[str] | object,
    *,
    format: str | None = None,
    kinds: Mapping[str, str] | None = None,
    config: str | PathLike[str] | None = None,
    optimizer: bool = False,
    ema: bool | str = False,
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
        ema: weights with the values of their moving averages, where the file holds those; the name
            of the averages, where they were given one of their own.
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
    given = None if config is None else _architecture(as_path(config))
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
        path = weights_in(as_path(path_or_model))
        row = formats.named(format) if format else formats.detected(path)
        stored = _stored(row, path, architecture=given, assume_dtype=assume_dtype)
        stored = replace(stored, source=replace(stored.source, path=path.absolute()))
    found = identify(in_order(stored), kinds, table)
    if given is not None:
        _refuse_misfit(found)
    if ema:
        from kerasport.averages import averaged

        found = averaged(found, ema if isinstance(ema, str) else "")
    if optimizer:
        found = _with_optimizer(found)
    if dequantize:
        from kerasport.dequantize import dequantized

        found = dequantized(found)
    if merge_lora:
        from kerasport.lora import merged

        found = merged(found)
    return found


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

    def omission(layer: Layer, tensor: Tensor) -> Omission | None:
        wanted = not include or _fits(layer.path, tensor.name, include)
        if wanted and not _fits(layer.path, tensor.name, exclude):
            return None
        return Omission(tensor, EXCLUDED)

    found = snapshot.without(omission)
    if not found.layers:
        raise UsageError(f"nothing is left of {snapshot.source.file} by --include and --exclude")
    return found


def tie(snapshot: Snapshot) -> Snapshot:
    """The snapshot in which tensors of equal content are one variable, which a file cannot say.

    Nothing proves it: two layers of one seed are equal too before they are trained. What a live
    model, a configuration or an archive knows of tied variables is known without this.

    Args:
        snapshot: what `read` gave.
    """
    from kerasport.ties import tied

    return tied(snapshot)


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
    from kerasport.restore import restored

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


def _with_optimizer(snapshot: Snapshot) -> Snapshot:
    """The optimizer's state as one more layer, whose tensors are passed on as stored."""
    state = [o.tensor for o in snapshot.omitted if o.reason == "optimizer state"]
    if not state:
        return snapshot
    weights = {tensor.name.removeprefix("optimizer/"): tensor for tensor in state}
    layer = Layer("optimizer", None, {}, weights, kind=VERBATIM)
    omitted = tuple(o for o in snapshot.omitted if o.reason != "optimizer state")
    return replace(snapshot, layers=(*snapshot.layers, layer), omitted=omitted)


def state_of(source: Path) -> StateDict:
    """The tensors of a file: a state dict as it is, the weights of a model by Keras's names."""
    row = formats.detected(source)
    if row.writer:
        state: StateDict = formats.reader(row)(source)
        return state
    from kerasport.transpose import plan

    return plan(read(source), to="keras").apply()
