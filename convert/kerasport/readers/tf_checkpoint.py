"""TensorFlow checkpoints: of objects, as TensorFlow 2 writes them, or of names, as version 1 did.

A checkpoint is several files, and people point at any of them: the folder, where the file
`checkpoint` says which one is the latest; the prefix that all its files share; or one of the files.
TensorFlow 1 wrote the graph beside it, as `.meta`: where it is there, its operations say what the
variables are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np

from kerasport.architecture import parse
from kerasport.errors import KerasportError, UsageError
from kerasport.model import Snapshot, Source
from kerasport.readers.documents import begins
from kerasport.readers.mapped import mapped
from kerasport.readers.tf1_names import layers_by_name, meanings_by_graph
from kerasport.readers.tf_bundle import bundle
from kerasport.readers.tf_bundle_v1 import bundle_v1, files_v1, name_v1
from kerasport.readers.tf_graph import classified
from kerasport.readers.tf_messages import META_GRAPH
from kerasport.readers.tf_objects import GRAPH_KEY, layers, object_graph
from kerasport.readers.tf_proto import decode
from kerasport.readers.tf_table import is_table

__all__ = ["located", "matches", "read"]

STATE: Final = "checkpoint"
_STATE: Final = re.compile(rb'^\s*model_checkpoint_path:\s*"((?:[^"\\\n]|\\.)*)"', re.MULTILINE)
_SHARD: Final = re.compile(r"(.*)\.data-\d{5}-of-\d{5}$")
_MAX_STATE: Final = 1 << 20


def matches(path: Path) -> bool:
    """Whether a path leads to a checkpoint: a folder, a prefix, or one of the files.

    Args:
        path: the path.
    """
    try:
        return located(path) is not None
    except KerasportError:
        return False


def located(path: Path) -> Path | None:
    """Where the checkpoint is that a path leads to; None where it leads to none.

    Args:
        path: a folder, a prefix, or one of the files. A prefix may end with its folder: then the
            files have no names but `.index` and `.data-00000-of-00001`.

    Returns:
        Its index, or what its files begin with where it is of format V1, which has no index.

    Raises:
        UsageError: the folder holds several checkpoints and does not say which is the latest.
    """
    if path.is_dir():
        return _in_folder(path)
    if path.name == STATE and path.is_file() and _latest(path) is not None:
        return _in_folder(path.parent)
    if files_v1(path):
        return path
    shard = _SHARD.match(path.name)
    index = path.with_name(f"{shard[1]}.index") if shard else _index(path)
    return index if _is_index(index) else None


def _index(path: Path) -> Path:
    """The index that a prefix has, or that a path names."""
    return path if path.name.endswith(".index") else path.with_name(f"{path.name}.index")


def _at(prefix: Path) -> Path | None:
    """The index of a prefix, or itself where it is of format V1."""
    index = prefix.with_name(f"{prefix.name}.index")
    if index.is_file():
        return index
    return prefix if files_v1(prefix) else None


def _is_index(path: Path) -> bool:
    try:
        return path.is_file() and is_table(mapped(path))
    except KerasportError:
        return False


def _in_folder(folder: Path) -> Path | None:
    latest = _latest(folder / STATE)
    if latest is not None and (place := _at(latest)) is not None:
        return place
    found = sorted(p for p in folder.glob("*.index") if _is_index(p))
    if len(found) > 1:
        names = ", ".join(p.name.removesuffix(".index") for p in found[:5])
        raise UsageError(
            f"{folder}: holds {len(found)} checkpoints and does not say which is the latest; name "
            f"one of them: {names}"
        )
    return found[0] if found else None


def _latest(state: Path) -> Path | None:
    """The prefix that a state file names, looked for beside it: people move folders."""
    found = _STATE.search(begins(state, _MAX_STATE))
    if found is None:
        return None
    text = found[1].replace(b"\\\\", b"/").decode("utf-8", "replace")
    if "\0" in text:
        return None
    below = PurePosixPath(text)
    if not below.is_absolute() and ".." not in below.parts:
        prefix = state.parent / below
        if _at(prefix) is not None:
            return prefix
    return state.parent / below.name if below.name else None


def read(
    path: Path,
    *,
    architecture: Mapping[str, Any] | None = None,
    assume_dtype: np.dtype[Any] | None = None,
) -> Snapshot:
    """The layers of a checkpoint.

    Args:
        path: a folder, of which the latest one is taken, a prefix, or one of the files.
        architecture: the model's configuration, where it is known from elsewhere.
        assume_dtype: not needed, since a checkpoint says what its values are.

    Raises:
        UsageError: there is no such checkpoint, or the architecture does not fit it.
        MalformedError: it is broken or hostile.
        UnsupportedError: it is compressed, or of a big-endian machine.
    """
    place = located(path)
    if place is None:
        place = _index(path)
        if not place.is_file():
            raise UsageError(f"{path}: expected a checkpoint, found no index of one there")
    files = files_v1(place)
    found = bundle_v1(files) if files else bundle(place)
    own = name_v1(files[0]) if files else place.name.removesuffix(".index")
    name = _name(own) or place.absolute().parent.name
    graph = parse(architecture) if architecture is not None else None
    given = architecture is not None
    data = found.text(GRAPH_KEY)
    if data is None:
        stored = layers_by_name(found, name=name, graph=graph, given=given)
        beside = place.with_name(f"{own}.meta")
        if not given and beside.is_file() and beside.stat().st_size:
            meta = decode(memoryview(mapped(beside).map), META_GRAPH, where=beside.name)
            meanings = meanings_by_graph(found, meta["graph"], where=beside.name)
            stored.layers = classified(stored.layers, meanings)
    else:
        objects = object_graph(data, where=f"{path.name}: graph of objects")
        stored = layers(found, objects, name=name, graph=graph, given=given)
    return Snapshot(
        Source(path.name, "tf-checkpoint", nbytes=found.nbytes, content=found.content),
        tuple(stored.layers),
        tuple(stored.omitted),
        architecture,
    )


def _name(prefix: str) -> str:
    """What a checkpoint's model is called: the prefix without `.ckpt` and the step."""
    return re.sub(r"(\.ckpt)?(-\d+)?$", "", prefix) or prefix
