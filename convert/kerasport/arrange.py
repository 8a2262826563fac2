"""Which stored tensors belong to a layer of a described class.

Readers keep the parts of a user's class apart, since a part can be recognised and the whole cannot.
Where the class is described, its description says what each part is, and which tensors of its parts
are weights of its own. This happens before anything is identified, and touches no value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from kerasport.architecture import class_of, parse
from kerasport.custom import LayerTable, Own, PartOf
from kerasport.kinds import CLASSES
from kerasport.model import Layer, Snapshot

__all__ = ["Owner", "arranged", "below", "inside", "owners_in"]

# What holds one layer or cell, and stores that one's weights and nothing else.
_AROUND: Mapping[str, str] = {"TimeDistributed": "layer", "RNN": "cell"}

Config = Mapping[str, Any]


class Owner(NamedTuple):
    """A layer of a user's class: where it is, its configuration, and what of it holds the class."""

    path: str
    class_name: str
    config: Config
    child: str = ""


def arranged(snapshot: Snapshot, table: LayerTable) -> Snapshot:
    """The snapshot whose layers of described classes have the tensors that are theirs.

    Args:
        snapshot: as a reader delivers it.
        table: the described classes.
    """
    if not table:
        return snapshot
    layers = list(snapshot.layers)
    owners = list(owners_in(snapshot))
    while owners:
        owner = owners.pop(0)
        own = table.find(owner.class_name)
        if own is None:
            continue
        if own.like:  # whatever lies in it is a part of that class, whose parts stay together
            layers = _gathered(layers, owner, owner.path)
        for child in own.children:
            layers = _gathered(layers, owner, _join(owner.path, child))
        for path, part in _parts(layers, owner, own):
            inner = Owner(path, part.class_name, _config(owner, part, path))
            within = table.find(part.class_name)
            if within is None or not within.parts:
                layers = _gathered(layers, inner, path)
            layers = [_named(layer, inner) for layer in layers]
            owners.append(inner)
    return replace(snapshot, layers=tuple(layers))


def owners_in(snapshot: Snapshot) -> Iterator[Owner]:
    """Every layer of a user's class that the architecture or the snapshot names."""
    seen: set[str] = set()
    architecture = snapshot.architecture
    graph = None if architecture is None else parse(architecture)
    if graph is not None:
        for leaf in graph.leaves():
            if leaf.node.class_name not in CLASSES:
                seen.add(leaf.path)
                yield Owner(leaf.path, leaf.node.class_name, leaf.node.config)
    elif architecture is not None:
        config = architecture.get("config")
        name, _ = class_of(architecture)
        yield Owner("", name, config if isinstance(config, Mapping) else {})
    for layer in snapshot.layers:
        held, inner, child = inside(layer.class_name, layer.config)
        if held and held not in CLASSES and layer.path not in seen:
            yield Owner(layer.path, held, inner, child)


def inside(class_name: str | None, config: Config) -> tuple[str | None, Config, str]:
    """The class whose weights a layer stores, its configuration, and the attribute it is kept in.

    >>> cell = {"class_name": "Cell", "registered_name": "demo>Cell", "config": {"units": 3}}
    >>> inside("RNN", {"cell": cell})
    ('demo>Cell', {'units': 3}, 'cell')
    """
    path: list[str] = []
    name, own = class_name, config
    while name is not None and name in _AROUND:
        entry = own.get(_AROUND[name])
        if not isinstance(entry, Mapping) or not isinstance(entry.get("class_name"), str):
            break
        path.append(_AROUND[name])
        name, _ = class_of(entry)
        within = entry.get("config")
        own = within if isinstance(within, Mapping) else {}
    return (class_name, config, "") if name in CLASSES else (name, own, "/".join(path))


def _parts(layers: list[Layer], owner: Owner, own: Own) -> list[tuple[str, PartOf]]:
    """The described parts that are there: the path of each, in model order."""
    found: dict[str, PartOf] = {}
    for layer in layers:
        inside = below(layer.path, owner.path)
        if layer.class_name is not None or not inside:
            continue
        words = inside.split("/")
        for size in range(1, len(words) + 1):
            path = "/".join(words[:size])
            fits = (part for part in own.parts if fnmatchcase(path, part.pattern))
            if part := next(fits, None):
                found.setdefault(_join(owner.path, path), part)
                break
    return list(found.items())


def _gathered(layers: list[Layer], owner: Owner, path: str) -> list[Layer]:
    """The layers where all that lies at and below a path is one with the owner."""
    ours = [
        n
        for n, layer in enumerate(layers)
        if layer.path == owner.path or layer.path == path or below(layer.path, path)
    ]
    if not any(layers[n].path != owner.path for n in ours):
        return layers
    weights = {
        _join(below(layers[n].path, owner.path), key): replace(tensor)
        for n in ours
        for key, tensor in layers[n].weights.items()
    }
    renamed = {key: replace(t, name=_join(owner.path, key)) for key, t in weights.items()}
    whole = replace(
        layers[ours[0]],
        path=owner.path,
        class_name=owner.class_name,
        config=owner.config,
        weights=renamed,
    )
    rest = [layer for n, layer in enumerate(layers) if n not in ours]
    return [*rest[: ours[0]], whole, *rest[ours[0] :]]


def _named(layer: Layer, owner: Owner) -> Layer:
    if layer.path != owner.path or layer.class_name is not None:
        return layer
    return replace(layer, class_name=owner.class_name, config=owner.config)


def _config(owner: Owner, part: PartOf, path: str) -> Config:
    """What is known of a part's configuration: as described, or as its owner's has it."""
    key = below(path, owner.path)
    written = owner.config.get(key)
    if isinstance(written, Mapping) and isinstance(written.get("class_name"), str):
        name, bare = class_of(written)
        config = written.get("config")
        if part.class_name in (name, bare) and isinstance(config, Mapping):
            return {**config, **part.config}
    return part.config


def below(path: str, above: str) -> str:
    """A path as seen from above; empty where it is not below."""
    if not above:
        return path
    return path.removeprefix(f"{above}/") if path.startswith(f"{above}/") else ""


def _join(path: str, name: str) -> str:
    return f"{path}/{name}".strip("/")
