"""SavedModels: a checkpoint of the variables, and beside it what the variables belong to.

`saved_model.pb` holds a graph of objects like the checkpoint's, with a line of description for each
of them. For layers of Keras that is their class and configuration, up to TensorFlow 2.4 in the
graph itself, from 2.5 on in `keras_metadata.pb`. The same objects have the same names in both
graphs, so they are found by walking both at once. Functions and signatures, by far the largest part
of the file, are looked at only where the objects do not say enough: then the operations that take
the variables do. That is so for Keras 3's exports, for plain modules, and for all that TensorFlow 1
saved, which had no objects.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from kerasport.architecture import Node, config_of, parse
from kerasport.errors import MalformedError, UnknownFormatError, UsageError
from kerasport.model import Snapshot, Source
from kerasport.readers.documents import begins
from kerasport.readers.mapped import Region, mapped
from kerasport.readers.tf1_names import layers_by_name, meanings_by_graph
from kerasport.readers.tf_bundle import Bundle, bundle
from kerasport.readers.tf_graph import Meaning, classified, functions_of
from kerasport.readers.tf_messages import KERAS_METADATA, SAVED_MODEL, SAVED_OBJECT_GRAPH
from kerasport.readers.tf_objects import (
    GRAPH_KEY,
    Described,
    Object,
    layers,
    object_graph,
    references,
)
from kerasport.readers.tf_proto import Message, decode

__all__ = ["matches", "read"]

MODEL: Final = "saved_model.pb"
TEXT: Final = "saved_model.pbtxt"
METADATA: Final = "keras_metadata.pb"
VARIABLES: Final = "variables/variables.index"

_KERAS: Final = "_tf_keras_"
_MAX_DEPTH: Final = 200
_SEQUENCES: Final = ("__tuple__", "TensorShape")


def matches(path: Path) -> bool:
    """Whether a path leads to a SavedModel: its folder, or the file in it.

    Args:
        path: the path.
    """
    folder = _folder(path)
    return folder is not None and (_begins(folder / MODEL) or (folder / TEXT).is_file())


def _folder(path: Path) -> Path | None:
    if path.is_dir():
        return path
    return path.parent if path.name in (MODEL, TEXT, METADATA) else None


def _begins(path: Path) -> bool:
    """Whether a file begins as a SavedModel does: with the version of its schema, 1."""
    return begins(path, 3) == b"\x08\x01\x12"


def read(
    path: Path,
    *,
    architecture: Mapping[str, Any] | None = None,
    assume_dtype: np.dtype[Any] | None = None,
) -> Snapshot:
    """The layers of a SavedModel.

    Args:
        path: its folder, or the `saved_model.pb` in it.
        architecture: the model's configuration, where it is known from elsewhere.
        assume_dtype: not needed, since a checkpoint says what its values are.

    Raises:
        UsageError: there is no such folder, a file is missing, or the architecture does not fit.
        UnknownFormatError: it is a SavedModel in text.
        MalformedError: it is broken or hostile.
    """
    folder = _folder(path)
    if folder is None or not (folder / MODEL).is_file():
        if folder is not None and (folder / TEXT).is_file():
            raise UnknownFormatError(f"{path}: a SavedModel as text; save it as {MODEL}")
        raise UsageError(f"{path}: expected a folder with a {MODEL}, found none")
    model = mapped(folder / MODEL)
    meta_graph = _meta_graph(model)
    if not (folder / VARIABLES).is_file():
        raise UsageError(
            f"{path}: expected {VARIABLES} in it, found none: a SavedModel without variables has "
            "no weights"
        )
    found = bundle(folder / VARIABLES)
    name = folder.resolve().name
    given = architecture is not None
    root: Mapping[str, Any] = {}
    data = found.text(GRAPH_KEY)
    meanings: Callable[[], Mapping[str, Meaning]]
    if data is not None:
        objects = object_graph(data, where=f"{path.name}: graph of objects")
        saved = _saved(meta_graph)
        pairs = list(_together([o.children for o in objects], saved.children))
        described, root = _described(pairs, saved, folder)
        meanings = partial(_by_functions, pairs, saved, objects, found, meta_graph["graph"])
        if architecture is None and "config" in root:
            architecture = {key: root[key] for key in ("class_name", "config")}
        stored = layers(
            found,
            objects,
            name=name,
            described=described,
            graph=parse(architecture) if architecture is not None else None,
            given=given,
        )
    else:
        graph = parse(architecture) if architecture is not None else None
        stored = layers_by_name(found, name=name, graph=graph, given=given)
        meanings = partial(meanings_by_graph, found, meta_graph["graph"], where=MODEL)
    if any(layer.class_name is None for layer in stored.layers):
        stored.layers = classified(stored.layers, meanings())
    return Snapshot(
        Source(
            path.name,
            "tf-saved-model",
            keras_version=_text(root.get("keras_version")),
            backend=_text(root.get("backend")) or "tensorflow",
            nbytes=model.size + found.nbytes,
            content=lambda: _content(model, found),
        ),
        tuple(stored.layers),
        tuple(stored.omitted),
        architecture,
    )


def _content(model: Region, variables: Bundle) -> Iterator[memoryview]:
    yield from model.content()
    yield from variables.content()


def _meta_graph(model: Region) -> Message:
    """The graph for serving, or the only one there is."""
    view = memoryview(model.map)
    found = decode(view, SAVED_MODEL, where=MODEL)
    graphs = found["meta_graphs"]
    if found["schema_version"] != 1 or not graphs:
        raise MalformedError(f"{MODEL}: expected a SavedModel of schema 1 with a graph, found none")
    serving = [graph for graph in graphs if "serve" in ((graph["info"] or {}).get("tags") or ())]
    chosen: Message = (serving or graphs)[0]
    return chosen


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


# ---- what the objects are ------------------------------------------------------------------------


class _Saved(NamedTuple):
    """The objects of `saved_model.pb`: what each is, and what it refers to; and its functions."""

    nodes: Sequence[Message]
    children: Sequence[tuple[tuple[str, int], ...]]
    functions: Sequence[Message]


def _saved(meta_graph: Message) -> _Saved:
    data = meta_graph["objects"]
    found = decode(b"" if data is None else data, SAVED_OBJECT_GRAPH, where=MODEL)
    nodes = found["nodes"]
    children = [references(node, len(nodes), where=MODEL) for node in nodes]
    return _Saved(nodes, children, found["functions"])


def _described(
    pairs: Sequence[tuple[int, int]], saved: _Saved, folder: Path
) -> tuple[dict[int, Described], Mapping[str, Any]]:
    """What is said of each object of the checkpoint, and Keras's metadata of the root."""
    metadata = _metadata(saved.nodes, folder)
    described: dict[int, Described] = {}
    root: Mapping[str, Any] = {}
    for number, other in pairs:
        variable, user = saved.nodes[other]["variable"], saved.nodes[other]["user_object"]
        if variable is not None:
            described[number] = Described(trainable=bool(variable["trainable"]))
            continue
        identifier, words = metadata.get(other, ((user or {}).get("identifier") or "", {}))
        if number == 0:
            root = words
        flag = words.get("trainable")
        described[number] = Described(
            identifier, _node(identifier, words), flag if isinstance(flag, bool) else None
        )
    return described, root


def _by_functions(
    pairs: Sequence[tuple[int, int]],
    saved: _Saved,
    objects: Sequence[Object],
    found: Bundle,
    data: memoryview | None,
) -> dict[str, Meaning]:
    """What the functions say of the variables that they have bound, by the variables' keys."""
    if data is None:
        return {}
    keys: dict[int, str] = {}
    for number, other in pairs:
        for _, _, key in objects[number].values:
            if key in found.entries:
                keys.setdefault(other, key)
    functions = functions_of(data, where=MODEL)
    told: dict[str, Meaning] = {}
    for message in saved.functions:
        function = functions.get(message["name"] or "")
        bound = (message["value"] or {}).get("bound") or []
        if function is None or not bound:
            continue
        body = function()
        names = dict(zip(body.arguments[-len(bound) :], bound, strict=False))
        wanted = {
            name: len(found.entries[keys[other]].shape)
            for name, other in names.items()
            if other in keys
        }
        for name, said in body.meanings(wanted.items()).items():
            if told.setdefault(keys[names[name]], said) != said:
                told[keys[names[name]]] = Meaning("")
    return {key: said for key, said in told.items() if said.role}


def _together(
    left: Sequence[Sequence[tuple[str, int]]], right: Sequence[Sequence[tuple[str, int]]]
) -> Iterator[tuple[int, int]]:
    """The objects of two graphs that the same references lead to, from the roots on."""
    if not left or not right:
        return
    seen = {0}
    queue = deque([(0, 0)])
    while queue:
        a, b = queue.popleft()
        yield a, b
        other = dict(right[b])
        for name, child in left[a]:
            if child not in seen and name in other:
                seen.add(child)
                queue.append((child, other[name]))


def _metadata(nodes: Sequence[Message], folder: Path) -> dict[int, tuple[str, Mapping[str, Any]]]:
    """Each object's identifier and what Keras says of it: from its own file, or the graph's."""
    found: dict[int, tuple[str, Mapping[str, Any]]] = {}
    for number, node in enumerate(nodes):
        user = node["user_object"]
        if user is not None and user["metadata"]:
            identifier = user["identifier"] or ""
            found[number] = (identifier, _words(identifier, user["metadata"], MODEL))
    path = folder / METADATA
    if path.is_file() and path.stat().st_size:
        data = memoryview(mapped(path).map)
        for node in decode(data, KERAS_METADATA, where=METADATA)["nodes"]:
            identifier = node["identifier"] or ""
            words = _words(identifier, node["metadata"] or b"", METADATA)
            found[node["node_id"] or 0] = (identifier, words)
    return found


def _words(identifier: str, metadata: bytes | memoryview, where: str) -> Mapping[str, Any]:
    """What Keras says of one object."""
    if not identifier.startswith(_KERAS) or not metadata:
        return {}
    plain: Mapping[str, Any] = _plain(config_of(bytes(metadata), where), where)
    return plain


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """JSON without the marks that Keras puts around tuples and shapes."""
    if depth > _MAX_DEPTH:
        raise MalformedError(f"{where}: a configuration nests too deep")
    if isinstance(value, dict):
        items = value.get("items")
        if value.get("class_name") in _SEQUENCES and isinstance(items, list):
            return [_plain(item, where, depth + 1) for item in items]
        return {key: _plain(item, where, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, where, depth + 1) for item in value]
    return value


def _node(identifier: str, words: Mapping[str, Any]) -> Node | None:
    """The layer that an object is said to be."""
    name, class_name, config = (words.get(key) for key in ("name", "class_name", "config"))
    if "metric" in identifier or not isinstance(name, str) or not isinstance(class_name, str):
        return None
    # The parser of architectures knows of wrappers, nested models and classes of a user's own.
    entry = {"class_name": class_name, "config": config if isinstance(config, Mapping) else {}}
    graph = parse({"class_name": "Sequential", "config": [{**entry, "name": name}]})
    return graph.nodes[0] if graph is not None else None
