"""Where things are: paths as people write them, and targets that would destroy something.

A source is refused as its own target before anything is read, and a folder is written to only where
it is new or holds what kerasport put there.
"""

from __future__ import annotations

import re
from os import PathLike, fspath
from pathlib import Path
from typing import Final

from kerasport.errors import UsageError

__all__ = [
    "MODULE_SOURCE",
    "MODULE_VECTORS",
    "MODULE_WEIGHTS",
    "as_path",
    "refuse_folder",
    "refuse_own_source",
    "refuse_place",
    "weights_in",
]

# What the folder of a module holds.
MODULE_SOURCE: Final = "model.py"
MODULE_WEIGHTS: Final = "model.safetensors"
MODULE_VECTORS: Final = "vectors.npz"


def as_path(path: str | PathLike[str]) -> Path:
    """A path as people write it: `~` is the home folder, also where no shell has seen it."""
    try:
        return Path(fspath(path)).expanduser()
    except RuntimeError:  # there is no such user, but there may be such a file
        return Path(fspath(path))


def weights_in(path: Path) -> Path:
    """The file that has the weights: the folder of a module stands for the one in it."""
    held = path / MODULE_WEIGHTS
    try:
        return held if (path / MODULE_SOURCE).is_file() and held.is_file() else path
    except OSError:  # a name too long, a folder that cannot be looked into: for others to tell
        return path


def refuse_place(target: Path) -> None:
    """Refuse a target that is no file, or that has no folder to be in."""
    try:
        if target.exists() and not target.is_file():
            what = "a folder" if target.is_dir() else "a device"
            raise UsageError(f"{target}: expected the name of a file, found {what}. Name a file")
        if not target.parent.is_dir():
            raise UsageError(f"{target}: expected a folder {target.parent}, found none")
    except OSError as error:  # a name too long, a folder that cannot be looked into
        raise UsageError(f"{target}: expected a place to write to, found: {error}") from None


def refuse_folder(target: Path) -> None:
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


def refuse_own_source(target: Path, source: Path | None) -> None:
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
