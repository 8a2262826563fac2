"""A state dict as a snapshot: what its manifest remembers of the model it came from.

An archive in Keras layout holds all that a model file says of its weights, so that it can be
converted again in ten years. Of a state dict in another convention, or of one that somebody else
wrote, the layers are known by their names alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kerasport.kinds import phrases
from kerasport.layout import Layout
from kerasport.model import Layer, Named, Snapshot, Source, StateDict, Tensor

__all__ = ["restored"]


def restored(state: StateDict, source: Source) -> Snapshot:
    """The layers of a state dict.

    Args:
        state: as a reader gave it, with its manifest if it has one.
        source: where it was read from.
    """
    entries: Mapping[str, Any] = state.manifest.get("tensors", {})
    known: Mapping[str, Any] = state.manifest.get("layers", {})
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        entry = entries.get(name)
        if entry is None or state.convention != "keras":
            path, _, role = name.rpartition(".")
            grouped.setdefault(path, {})[role] = replace(tensor, role=role, stored=name)
            continue
        kind = entry["kind"]
        grouped.setdefault(entry["layer"], {})[entry["role"]] = replace(
            tensor,
            layout=None if entry["layout"] is None else Layout.parse(entry["layout"]),
            at=frozenset(entry["at"]),
            role=entry["role"],
            trainable=entry["trainable"],
            axes=phrases(kind) if kind else {},
            stored=name,
        )
    layers = []
    for path, weights in grouped.items():
        about = known.get(path, {}) if state.convention == "keras" else {}
        sizes: dict[str, int] = {}
        for tensor in weights.values():
            if tensor.layout is not None:
                sizes |= tensor.layout.bind(tensor.shape, sizes)
        layers.append(
            Layer(
                path,
                about.get("class"),
                {},
                Named("role", weights),
                kind=about.get("kind"),
                inferred=about.get("inferred", False),
                sizes=sizes,
                words=about.get("words", {}),
                note="" if about.get("kind") else "a state dict names no kinds of layers",
            )
        )
    return Snapshot(source, tuple(layers))
