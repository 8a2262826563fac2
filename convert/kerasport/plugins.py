"""What other packages add, found without a look into every one of them.

Python's own search for entry points brings a parser of mails with it and takes longer than listing
a model's weights. So the name of the group is looked for first, where packages are installed. Only
if one mentions it, or packages may lie where this cannot look, Python searches.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["entry_points"]

_ABOUT = (".dist-info", ".egg-info")


def entry_points(group: str) -> list[EntryPoint]:
    """The entry points of installed packages, sorted.

    >>> entry_points("kerasport.none_of_this_name")
    []

    Args:
        group: the group's name.
    """
    others = (finder for finder in sys.meta_path if finder is not PathFinder)
    elsewhere = any(hasattr(finder, "find_distributions") for finder in others)
    if not elsewhere and not any(_may_mention(Path(folder), group.encode()) for folder in sys.path):
        return []
    from importlib import metadata

    return sorted(metadata.entry_points(group=group), key=lambda point: (point.name, point.value))


def _may_mention(folder: Path, group: bytes) -> bool:
    """Whether a package in a folder has such entry points, or may have them."""
    if folder.suffix == ".egg" or folder.is_file():
        return True  # packages in an archive, or in another order
    try:
        about = [path for path in folder.iterdir() if path.name.lower().endswith(_ABOUT)]
    except OSError:  # Python lists folders that are not there
        return False
    for path in about:
        with suppress(OSError):  # most packages have none
            if group in (path / "entry_points.txt").read_bytes():
                return True
    return False
