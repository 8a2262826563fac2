"""Weights that Keras 3 cut into several HDF5 files, with an index that says what is where.

`model.weights.json` maps each group of variables to the files that hold them, and the groups have
the names that they would have in one file. So the files become one tree, and the index is held to
its word: what it lists must be there, in the file that it names, beside the index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from kerasport.architecture import parse
from kerasport.errors import MalformedError, UnknownFormatError, UsageError
from kerasport.model import Snapshot, Source
from kerasport.readers import hdf5
from kerasport.readers.documents import begins, document, file_bytes, plain_name
from kerasport.readers.mapped import Region, mapped
from kerasport.readers.naming import numbered
from kerasport.readers.stored import Group

__all__ = ["index", "matches", "read", "tree"]

MAP: Final = "weight_map"
MAX_PARTS: Final = 100_000


def matches(path: Path) -> bool:
    """Whether a file is the index of weights in parts.

    Args:
        path: the file.
    """
    head = begins(path)
    return head[:1] == b"{" and b'"weight_map"' in head and b".weights.h5" in head


def index(text: bytes, where: str) -> Mapping[str, tuple[str, ...]]:
    """The files of each group of variables, in order.

    Args:
        text: the index.
        where: what it is called in errors.

    Raises:
        MalformedError: it is no such index, or names files elsewhere.
    """
    found = document(text, where).get(MAP)
    if not isinstance(found, dict) or not found:
        raise MalformedError(f"{where}: expected a {MAP} of groups and the files that hold them")
    files = {}
    for group, names in found.items():
        listed = names if isinstance(names, list) else [names]
        files[group.strip("/")] = tuple(plain_name(name, where) for name in listed)
    if len({name for names in files.values() for name in names}) > MAX_PARTS:
        raise MalformedError(f"{where}: names more than {MAX_PARTS} files")
    return files


def tree(
    files: Mapping[str, tuple[str, ...]],
    region: Callable[[str], Region],
    *,
    where: str,
    assume_dtype: np.dtype[Any] | None = None,
) -> Group:
    """All parts as one tree.

    Args:
        files: what `index` gave.
        region: the mapped bytes of a part.
        where: what the index is called in errors.
        assume_dtype: what values are that HDF5 knows only as so many bytes.

    Raises:
        MalformedError: a part is missing, or does not hold what the index says, or holds more.
        UnsupportedError: it holds numbers of a kind that cannot be told.
    """
    root = Group("")
    for name in sorted({name for names in files.values() for name in names}):
        try:
            data = region(name)
        except (UsageError, KeyError):
            raise MalformedError(
                f"{where}: lists the file {name!r}, which is not there. Are all parts downloaded?"
            ) from None
        part = hdf5.tree(data, where=name, assume_dtype=assume_dtype)
        listed = {group for group, names in files.items() if name in names}
        held = {group.path for group in _groups(part) if group.tensors}
        if held != listed:
            wrong = min(held ^ listed)
            word = "lists" if wrong in listed else "does not list"
            raise MalformedError(f"{where}: {word} /{wrong} in {name}, which the file contradicts")
        _merge(root, part, where)
    return root


def _groups(root: Group) -> Iterator[Group]:
    stack = [root]
    while stack:
        group = stack.pop()
        yield group
        stack.extend(group.groups.values())


def _merge(root: Group, part: Group, where: str) -> None:
    """Put one tree into another; the same tensor in both would hide one of them."""
    stack = [(root, part)]
    while stack:
        into, group = stack.pop()
        into.texts = {**group.texts, **into.texts}
        into.twins |= group.twins
        for name, tensor in group.tensors.items():
            if name in into.tensors:
                raise MalformedError(f"{where}: two files hold /{into.path}/{name}")
            into.tensors[name] = tensor
        for name, child in group.groups.items():
            stack.append((into.groups.setdefault(name, Group(child.path)), child))


def read(
    path: Path,
    *,
    architecture: Mapping[str, Any] | None = None,
    assume_dtype: np.dtype[Any] | None = None,
) -> Snapshot:
    """The layers of weights in parts.

    Args:
        path: the index.
        architecture: the model's configuration, where it is known from elsewhere.
        assume_dtype: what values are that HDF5 knows only as so many bytes.

    Raises:
        UsageError: there is no such file, or the architecture does not fit it.
        UnknownFormatError: it is no index of weights.
        MalformedError: it is broken or hostile, or a part is missing.
        UnsupportedError: it holds numbers of a kind that cannot be told.
    """
    if not matches(path):
        file_bytes(path)
        raise UnknownFormatError(f"{path}: expected the index of weights in parts")
    files = index(file_bytes(path), path.name)
    regions: dict[str, Region] = {path.name: mapped(path)}

    def region(name: str) -> Region:
        return regions.setdefault(name, mapped(path.with_name(name)))

    root = tree(files, region, where=path.name, assume_dtype=assume_dtype)
    graph = parse(architecture) if architecture is not None else None
    name = graph.name if graph else path.name.split(".")[0]
    stored = numbered(root, graph, name=name, given=architecture is not None)

    def content() -> Iterator[memoryview]:
        for key in sorted(regions):
            yield from regions[key].content()

    return Snapshot(
        Source(
            path.name,
            "keras-sharded",
            nbytes=sum(part.size for part in regions.values()),
            content=content,
        ),
        tuple(stored.layers),
        tuple(stored.omitted),
        architecture,
    )
