"""What to write down of a class that is not known: its description, to be filled in.

Only its author knows what the dimensions of a weight are. But which weights there are, under which
names, in what order and of what shape, is in the file; so whoever converts such a model for the
first time gets the description with that already in it, and a question mark for each word that is
missing. It is TOML as it stands, and refused with the places where a word is still missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from kerasport.arrange import below, owners_in
from kerasport.custom import LayerTable, key, text
from kerasport.model import Layer, Snapshot, Tensor

__all__ = ["OPEN", "advice_for", "template", "templates"]

OPEN: Final = "?"
"""Stands for each word that is to be filled in."""


def advice_for(snapshot: Snapshot) -> str:
    """How to go on with a snapshot that has layers no table knows; empty where it has none.

    Args:
        snapshot: identified layers.
    """
    described = templates(snapshot)
    if not described:
        unknown = [layer for layer in snapshot.layers if layer.kind is None]
        asked = sum("--kind" in layer.note for layer in unknown)
        many = " --kind takes patterns: --kind 'conv2d_*=Conv2D'." if asked > 1 else ""
        keep = "Layers that are not known can be kept as stored: --unknown keep."
        return f"{keep}{many}" if unknown else ""
    return (
        "What kerasport does not know can be described in a file: put a word in the place of each "
        "question mark, rename as you like, and pass it with --layers FILE. Or keep such layers "
        "as they are stored: --unknown keep.\n\n" + "\n\n".join(described.values())
    )


def templates(snapshot: Snapshot) -> dict[str, str]:
    """For each class that no table knows, the description to fill in.

    Args:
        snapshot: identified layers.
    """
    found: dict[str, tuple[Layer | None, dict[str, Layer]]] = {}
    described = LayerTable(snapshot.custom)
    for owner in owners_in(snapshot):
        if described.find(owner.class_name) is not None or owner.class_name in found:
            continue
        mine = [
            _within(layer, owner.child)
            for layer in snapshot.layers
            if layer.path == owner.path and layer.kind is None
        ]
        parts = {
            below(layer.path, owner.path): layer
            for layer in snapshot.layers
            if layer.kind is None and layer.class_name is None and below(layer.path, owner.path)
        }
        if mine or parts:
            found[owner.class_name] = (mine[0] if mine else None, parts)
    return {name: template(name, layer, parts) for name, (layer, parts) in found.items()}


def _within(layer: Layer, child: str) -> Layer:
    """The layer as the one inside it sees its weights."""
    weights = {place.removeprefix(f"{child}/"): t for place, t in layer.weights.items()}
    return replace(layer, weights=weights)


def template(class_name: str, layer: Layer | None, parts: Mapping[str, Layer]) -> str:
    """The description of a class that is not known, with a question mark for what is to be said.

    Args:
        class_name: the class.
        layer: a layer of it with weights of its own, or None.
        parts: the layers in it whose class is not known either, by the attribute that holds them.
    """
    head = key(class_name)
    lines: list[str] = []
    if layer is not None:
        names = {place: _name(place) for place in layer.weights}
        width = max(len(key(name)) for name in names.values())
        lines += [f"[{head}.keras]  # in stored order; a name for each dimension"]
        for place, tensor in layer.weights.items():
            said = text(_open(tensor))
            if child := _child(place):
                said = f"{{ layout = {said}, child = {text(child)} }}"
            lines.append(f"{key(names[place]):{width}} = {said}  # {tensor.spec}")
        lines += ["", f"[{head}.torch]  # the names in the target; which weight, and how"]
        for place, tensor in layer.weights.items():
            said = f"{{ weight = {text(names[place])}, layout = {text(_open(tensor))} }}"
            lines.append(f"{key(names[place]):{width}} = {said}")
    if parts:
        lines += ["", f"[{head}.parts]  # the class of each layer in it"]
        for name, part in parts.items():
            stored = ", ".join(tensor.spec for tensor in part.weights.values())
            lines.append(f"{key(name)} = {text(OPEN)}  # {stored}")
    return "\n".join(lines).lstrip("\n")


def _open(tensor: Tensor) -> str:
    return " ".join(OPEN for _ in tensor.shape)


def _name(place: str) -> str:
    """A name for a weight: its own, or one with its number where it has none."""
    *above, own = place.split("/")
    return "_".join((*above, "weight", own)) if own.isdigit() else place


def _child(place: str) -> str:
    """The attribute below the layer that a numbered weight is stored in."""
    above, _, own = place.rpartition("/")
    return above if own.isdigit() else ""
