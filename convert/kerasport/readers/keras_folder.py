"""A model of Keras 3 as a folder: what the `.keras` archive holds, not zipped.

Keras writes it with `zipped=False` and to model hubs, and KerasHub keeps its presets so: the
configuration of a backbone, its weights in one file or in parts, and the weights of a task.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from kerasport.errors import MalformedError, UnknownFormatError, UsageError
from kerasport.model import Snapshot
from kerasport.readers import keras_model, lookups
from kerasport.readers.documents import file_bytes
from kerasport.readers.mapped import Region, mapped

__all__ = ["matches", "read"]

MAX_ASSETS: Final = 10_000
_OTHERS: Final = ("saved_model.pb", "saved_model.pbtxt", "fingerprint.pb")


def matches(path: Path) -> bool:
    """Whether a path is a folder with a configuration and weights of Keras.

    Args:
        path: the folder.
    """
    try:
        if not path.is_dir():
            return False
        found = {item.name for item in path.iterdir()}
    except OSError:
        return False
    return (
        keras_model.CONFIG in found
        and bool(found & set(keras_model.WEIGHTS))
        and not found & set(_OTHERS)
    )


def read(
    path: Path,
    *,
    architecture: Mapping[str, Any] | None = None,
    assume_dtype: np.dtype[Any] | None = None,
) -> Snapshot:
    """The layers of a model in a folder.

    Args:
        path: the folder.
        architecture: a configuration to use instead of the folder's own.
        assume_dtype: what values are that HDF5 knows only as so many bytes.

    Raises:
        UsageError: there is no such folder, or the given architecture does not fit it.
        UnknownFormatError: it holds no model of Keras.
        MalformedError: it is broken or hostile.
        UnsupportedError: it holds numbers of a kind that cannot be told.
    """
    if not path.is_dir():
        raise UsageError(f"{path}: expected a folder, found none")
    if not matches(path):
        raise UnknownFormatError(
            f"{path}: expected a folder with {keras_model.CONFIG} and weights of Keras"
        )
    used: dict[str, Path] = {}
    regions: dict[str, Region] = {}

    def small(name: str) -> bytes:
        used[name] = path / name
        return file_bytes(path / name)

    def region(name: str) -> Region:
        used[name] = path / name
        return regions.setdefault(name, mapped(path / name))

    def content() -> Iterator[bytes | memoryview]:
        for name in sorted(used):
            yield from mapped(used[name]).content()

    names = tuple(sorted(item.name for item in path.iterdir() if item.is_file()))
    names += tuple(_assets(path))
    found = keras_model.snapshot(
        keras_model.Parts(path.name, "keras-folder", names, small, region),
        architecture=architecture,
        assume_dtype=assume_dtype,
        nbytes=0,
        content=content,
    )
    size = sum(file.stat().st_size for file in used.values())
    return replace(found, source=replace(found.source, nbytes=size))


def _assets(path: Path) -> Iterator[str]:
    """The files below `assets`, of which none is reached through a link."""
    top = path / lookups.ASSETS.rstrip("/")
    if top.is_symlink():
        return
    found: list[str] = []
    for folder, _, files in os.walk(top):
        found += (
            (Path(folder) / file).relative_to(path).as_posix()
            for file in files
            if not (Path(folder) / file).is_symlink()
        )
        if len(found) > MAX_ASSETS:
            raise MalformedError(f"{path}: more than {MAX_ASSETS} files below assets")
    yield from sorted(found)
