"""Which formats there are: one table, read by content and written by suffix.

A file is recognised by what it holds and never by its name, since HDF5 files named `.keras` are
common. A third party adds a format by an entry point of the group `kerasport.formats` whose object
is a `Format`. Its modules hold functions like those in `readers/` and `writers/`:

    matches(path) -> bool                        by the content alone
    read(path) -> StateDict                      of a format that can be written too
    read(path, *, architecture, assume_dtype) -> Snapshot         of a model's own format
    write(state, path, *, max_shard_size) -> tuple[Path, ...]     atomic, deterministic, read again
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple

from kerasport.errors import KerasportError, UnknownFormatError, UsageError
from kerasport.plugins import entry_points

__all__ = ["FORMATS", "Format", "detected", "for_target", "known", "named"]


class Format(NamedTuple):
    """One row of the table of formats.

    Attributes:
        name: what `--format` takes.
        holds: what it is, in words.
        suffixes: the file names that a writer is chosen by.
        magic: what every file of it begins with; empty where there is no such thing.
        inside: what every folder of it has in it; empty where there is no such thing.
        reader: the module that reads it, or empty.
        writer: the module that writes it, or empty.
        extra: the extra that installs what it needs, or empty.
    """

    name: str
    holds: str
    suffixes: tuple[str, ...]
    magic: bytes = b""
    reader: str = ""
    writer: str = ""
    extra: str = ""
    inside: str = ""


HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = b"PK\x03\x04"

FORMATS: tuple[Format, ...] = (
    Format(
        "arrow",
        "Arrow IPC file, one row a tensor",
        (".arrow", ".feather"),
        b"ARROW1",
        "kerasport.readers.arrow",
        "kerasport.writers.arrow",
        "arrow",
    ),
    Format(
        "keras",
        "Keras 3 archive: configuration and weights",
        (".keras",),
        ZIP,
        "kerasport.readers.keras_archive",
    ),
    Format(
        "keras-folder",
        "Keras 3 model or KerasHub preset as a folder",
        (),
        b"",
        "kerasport.readers.keras_folder",
    ),
    Format(
        "keras-legacy",
        "HDF5 of Keras 1 and 2 and tf.keras, whole models or weights",
        (".h5", ".hdf5"),
        HDF5,
        "kerasport.readers.keras_legacy",
    ),
    Format(
        "keras-orbax",
        "Orbax checkpoint of Keras 3, the latest step or one of them",
        (),
        b"",
        "kerasport.readers.keras_orbax",
        "",
        "orbax",
    ),
    Format(
        "keras-sharded",
        "Keras 3 weights in parts, with their index",
        (".weights.json",),
        b"",
        "kerasport.readers.keras_sharded",
    ),
    Format(
        "keras-weights",
        "Keras 3 weights in HDF5",
        (".weights.h5",),
        HDF5,
        "kerasport.readers.keras_weights",
    ),
    Format(
        "numpy",
        "NumPy archive of weights, listed or named, or Keras 3's own",
        (".npz",),
        ZIP,
        "kerasport.readers.npz",
    ),
    Format(
        "onnx",
        "ONNX model whose initializers are the tensors",
        (".onnx",),
        b"",
        "kerasport.readers.onnx",
        "kerasport.writers.onnx",
        "onnx",
    ),
    Format(
        "parquet",
        "Parquet table, one row a tensor",
        (".parquet",),
        b"PAR1",
        "kerasport.readers.parquet",
        "kerasport.writers.parquet",
        "arrow",
    ),
    Format(
        "pytorch",
        "PyTorch state dict, for torch.load(weights_only=True)",
        (".pt", ".pth"),
        ZIP,
        "kerasport.readers.pytorch",
        "kerasport.writers.pytorch",
    ),
    Format(
        "safetensors",
        "safetensors, in one file or in shards",
        (".safetensors",),
        b"",
        "kerasport.readers.safetensors",
        "kerasport.writers.safetensors",
    ),
    Format(
        "tf-checkpoint",
        "TensorFlow checkpoint, of objects or of TensorFlow 1 names",
        (".index", ".ckpt"),
        b"",
        "kerasport.readers.tf_checkpoint",
    ),
    Format(
        "tf-frozen-graph",
        "frozen TensorFlow graph, its constants as weights",
        (".pb",),
        b"",
        "kerasport.readers.tf_frozen",
    ),
    Format(
        "tf-saved-model",
        "TensorFlow SavedModel, of Keras, modules or TensorFlow 1",
        (".savedmodel",),
        b"",
        "kerasport.readers.tf_saved_model",
        inside="saved_model.pb",
    ),
    Format(
        "tfjs",
        "TensorFlow.js model, its weights quantized or not",
        (".json",),
        b"",
        "kerasport.readers.tfjs",
    ),
    Format(
        "tflite",
        "TensorFlow Lite model, its constants as weights",
        (".tflite",),
        b"",
        "kerasport.readers.tflite",
    ),
)


@cache
def known() -> Mapping[str, Format]:
    """Every format by name: our own, then those of installed packages.

    Raises:
        UsageError: a package's entry point cannot be loaded, is no `Format`, or takes a name that
            is taken.
    """
    table = {row.name: row for row in FORMATS}
    for point in entry_points("kerasport.formats"):
        try:
            row = point.load()
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"entry point {point.name} = {point.value}: expected a format, found: {error}. "
                f"Repair or uninstall the package {point.dist and point.dist.name}"
            ) from error
        if not isinstance(row, Format) or row.name in table:
            raise UsageError(
                f"entry point {point.name} = {point.value}: expected a kerasport.formats.Format of "
                f"a new name, found {row!r}"
            )
        table[row.name] = row
    return table


def named(name: str) -> Format:
    """The format of a name.

    Raises:
        UnknownFormatError: there is none.
    """
    try:
        return known()[name]
    except KeyError:
        raise UnknownFormatError(
            f"unknown format {name!r}: expected one of {', '.join(known())}"
        ) from None


def detected(path: Path) -> Format:
    """The format of a file, by its content.

    Raises:
        UsageError: there is no such file, or it cannot be read.
        UnknownFormatError: its content is of no known format.
    """
    if "\0" in str(path):
        raise UsageError(f"{str(path)!r}: expected the name of a file, found a NUL in it")
    try:
        folder = path.is_dir() or _is_beginning(path)
        if path.exists() and not folder and not path.is_file():
            raise UsageError(
                f"{path}: expected a file, found a device or a pipe. Save it as a file"
            )
        head = b"" if folder else _head(path)
    except OSError as error:
        raise UsageError(f"{path}: expected a readable file, found: {error.strerror}") from None
    if not folder and not head:
        raise UnknownFormatError(f"{path}: expected a model, found an empty file")
    for row in _rows_by_look(path, head):
        if _module(row.reader, row).matches(path):
            return row
    raise UnknownFormatError(
        f"{path}: expected the content of a known format, found {_described(path, head)}. "
        "See: kerasport formats"
    )


def for_target(path: Path, name: str | None) -> Format:
    """The format that a target is to be written in: as named, or by the suffix.

    Raises:
        UnknownFormatError: neither says a format that can be written.
    """
    if name is not None:
        row = named(name)
        if not row.writer:
            raise UnknownFormatError(f"format {name} can be read, not written: {_writable()}")
        return row
    for row in known().values():
        if row.writer and path.name.lower().endswith(row.suffixes):
            return row
    suffix = f"the suffix {path.suffix!r}" if path.suffix else "a name without a suffix"
    raise UnknownFormatError(f"{path}: no format is written under {suffix}: {_writable()}")


def reader(row: Format) -> Callable[..., Any]:
    """The function that reads a format."""
    function: Callable[..., Any] = _module(row.reader, row).read
    return function


def writer(row: Format) -> Callable[..., Any]:
    """The function that writes a format."""
    function: Callable[..., Any] = _module(row.writer, row).write
    return function


def _module(name: str, row: Format) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if row in FORMATS or isinstance(error, KerasportError):
            raise
        raise UsageError(f"format {row.name} cannot be used: {error}") from error


def _is_beginning(path: Path) -> bool:
    """Whether the names of files begin so: a checkpoint is named by that, and is no file itself.

    TensorFlow writes `NAME-?????-of-00002` for checkpoints of several files without an index.
    """
    if path.with_name(f"{path.name}.index").is_file():
        return True
    name = path.name.partition("-?????-of-")[0]
    return not path.exists() and any(path.parent.glob(f"{escape(name)}-00000-of-*"))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _rows_by_look(path: Path, head: bytes) -> Iterator[Format]:
    """The rows whose magic the file begins with, or that the folder has something of; then others.

    Every module that looks more closely has to be loaded for it.
    """
    rows = [row for row in known().values() if row.reader]
    if not head:
        yield from (row for row in rows if row.inside and (path / row.inside).is_file())
    yield from (row for row in rows if row.magic and head.startswith(row.magic))
    yield from (row for row in rows if not row.magic)


def _writable() -> str:
    choices = (f"{row.name} ({' '.join(row.suffixes)})" for row in known().values() if row.writer)
    return f"expected one of {', '.join(choices)}; or name it with --format"


def _described(path: Path, head: bytes) -> str:
    if path.is_dir():
        return "a folder"
    if head.startswith(HDF5):
        return "HDF5 that holds no Keras weights"
    if head.startswith(ZIP):
        return "a zip archive that holds no model"
    return f"bytes that begin with {head[:8]!r}"
