"""What other packages add, found without a look into every one of them.

Python's own search for entry points brings a parser of mails with it and takes longer than listing
a model's weights. So the name of the group is looked for first, where packages are installed: all
of them are read once, for all groups. Only if one mentions it, or packages may lie where this
cannot look, Python searches.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from functools import cache
from importlib.machinery import PathFinder
from io import FileIO
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
    if not elsewhere:
        found = [_mentioned(folder or ".") for folder in sys.path]
        if not any(text is None or group.encode() in text for text in found):
            return []
    from importlib import metadata

    return sorted(metadata.entry_points(group=group), key=lambda point: (point.name, point.value))


@cache
def _mentioned(folder: str) -> bytes | None:
    """The lists of entry points of all packages in a folder; None where this cannot look."""
    if folder.endswith(".egg") or Path(folder).is_file():
        return None  # packages in an archive, or in another order
    texts = []
    # Python lists folders that are not there, and most packages have no such list.
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower().endswith(_ABOUT):
                with suppress(OSError), FileIO(f"{entry.path}/entry_points.txt") as file:
                    texts.append(file.readall())
    return b"\n".join(texts)
