"""A state dict as a snapshot: what its manifest remembers of the model it came from.

An archive in Keras layout carries the model's configuration along, so it can be converted again as
the model's own file can: the same tensors come out. A state dict in another layout can be looked
at, layer by layer; the way on from it starts at its own source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kerasport.architecture import parse
from kerasport.conventions import Absent, Case, Row, convention, rows
from kerasport.custom import LayerTable
from kerasport.errors import LayoutError, MalformedError, UsageError
from kerasport.kinds import phrases
from kerasport.layout import Layout
from kerasport.model import VERBATIM, Layer, Named, Snapshot, Source, StateDict, Tensor

__all__ = ["restored"]

JSON = Any
KERAS = convention("keras")


def restored(
    state: StateDict, source: Source, *, architecture: Mapping[str, JSON] | None = None
) -> Snapshot:
    """The layers of a state dict, in model order.

    Args:
        state: as a reader gave it, with its manifest if it has one.
        source: where it was read from.
        architecture: a configuration to use instead of the one in the manifest.

    Raises:
        MalformedError: the manifest contradicts itself.
    """
    before = state.manifest.get("source") or {}
    source = replace(
        source, keras_version=before.get("keras_version"), backend=before.get("backend")
    )
    if architecture is None:
        architecture = state.manifest.get("architecture")
    configurations = _configurations(architecture, source)
    known: Mapping[str, JSON] = state.manifest.get("layers", {})
    custom = _custom(state.manifest.get("custom", {}), source)
    grouped, twins = _grouped(state), _twins(state)
    paths = [path for path in dict.fromkeys((*known, *grouped)) if path in grouped or path in twins]
    layers = [
        _layer(
            path,
            grouped.get(path, []),
            state,
            known.get(path, {}),
            configurations.get(path, {}),
            twins=twins.get(path, []),
            table={**KERAS, **custom.rows("keras")},
        )
        for path in paths
    ]
    return Snapshot(
        source,
        tuple(layers),
        (),
        architecture,
        state.convention,
        custom.own,
        tables=state.manifest.get("tables", {}),
    )


def _custom(described: JSON, source: Source) -> LayerTable:
    """The descriptions of kinds that no table of ours has, which an archive carries along."""
    try:
        return LayerTable.of(described, where=f"{source.file}: manifest")
    except UsageError as error:
        raise MalformedError(str(error)) from None


def _twins(state: StateDict) -> dict[str, list[Tensor]]:
    """The tensors that an archive holds under another name, by their layer."""
    found: dict[str, list[Tensor]] = {}
    entries = state.manifest["tensors"] if state.convention == "keras" else {}
    for name, entry in entries.items():
        for twin in (twin for origin in entry["sources"] for twin in origin.get("tied", ())):
            tensor = replace(
                state[name], name=twin["name"], role=twin["role"], stored=twin["name"], same_as=name
            )
            found.setdefault(twin["layer"], []).append(tensor)
    return found


def _grouped(state: StateDict) -> dict[str, list[str]]:
    """The names of each layer's tensors; by the manifest, or by what stands before the last dot."""
    entries: Mapping[str, JSON] = state.manifest.get("tensors", {})
    grouped: dict[str, list[str]] = {}
    for name in state:
        path = entries.get(name, {}).get("layer")
        if path is None:
            path = name.rpartition("." if "." in name else "/")[0]
        grouped.setdefault(path, []).append(name)
    return grouped


def _layer(
    path: str,
    names: list[str],
    state: StateDict,
    about: Mapping[str, JSON],
    config: Mapping[str, JSON],
    *,
    twins: list[Tensor],
    table: Mapping[str, Row],
) -> Layer:
    kind = about.get("kind")
    layer = Layer(
        path,
        about.get("class"),
        config,
        {
            role: replace(state[name], stored=name)
            for name, role in zip(names, _roles(names), strict=True)
        },
        kind=kind,
        inferred=about.get("inferred", False),
        words=_words(about),
        note="" if kind else "nothing in the file says what kind of layer this is",
    )
    if state.convention != "keras":
        return replace(layer, weights=Named("role", layer.weights))
    entries: Mapping[str, JSON] = state.manifest["tensors"]
    weights: dict[str, Tensor] = {}
    for name in names:
        role = entries[name]["role"]
        if role in weights:
            raise MalformedError(f"{name}: layer {path} has another tensor of the role {role}")
        first = state.aliases.get(name, "")
        weights[role] = replace(state[name], role=role, stored=name, same_as=first)
    for twin in twins:
        if twin.role in weights:
            raise MalformedError(f"{twin.name}: layer {path} has another tensor of that role")
        weights[twin.role] = twin if kind else replace(twin, layout=None, at=frozenset())
    layer = replace(layer, weights=weights)
    given = {axis: n for name in names for axis, n in entries[name]["sizes"].items()}
    if kind not in (None, VERBATIM):
        layer = _fitted(layer, given, table.get(str(kind)))
    return replace(layer, weights=Named("role", layer.weights))


def _fitted(layer: Layer, given: Mapping[str, int], row: Row | None) -> Layer:
    """The layer with the layouts of its kind, which the tables know and no manifest can change."""
    if row is None:
        raise MalformedError(
            f"{layer.path}: the manifest names a kind {layer.kind!r}, unknown here"
        )
    faults: list[MalformedError] = []
    for case in rows(row):
        try:
            return _fitted_to(layer, given, case)
        except MalformedError as error:
            faults.append(error)
    raise faults[0]


def _fitted_to(layer: Layer, given: Mapping[str, int], case: Case) -> Layer:
    if isinstance(case.slots, Absent):
        raise MalformedError(f"{layer.path}: the manifest says {layer.kind}: {case.slots.reason}")
    slots = {slot.name: slot for slot in case.slots}
    sizes: dict[str, int] = {}
    weights: dict[str, Tensor] = {}
    try:
        for role, tensor in layer.weights.items():
            layout = Layout.parse(slots[role].layout.format_map(layer.words))
            # Where a merge leaves two sizes unknown, the manifest has them.
            bound = layout.bind(tensor.shape, {**given, **sizes})
            sizes |= {axis: bound[axis] for axis in layout.axes}
            weights[role] = replace(
                tensor, layout=layout, at=slots[role].pins, axes=phrases(str(layer.kind))
            )
        if not case.holds(sizes):
            raise LayoutError(f"expected {', '.join(case.where)}, found {sizes}")
    except (KeyError, LayoutError) as error:
        raise MalformedError(
            f"{layer.path}: the manifest says {layer.kind}, which does not fit: {error}"
        ) from None
    ordered = {role: weights[role] for role in slots if role in weights}
    return replace(layer, weights=ordered, sizes=sizes)


def _roles(names: list[str]) -> list[str]:
    """What is left of the names without the words that all of them begin with.

    >>> _roles(["a.in_proj_weight", "a.out_proj.weight"])
    ['in_proj_weight', 'out_proj.weight']
    >>> _roles(["dense/kernel"])
    ['kernel']
    """
    mark = "." if any("." in name for name in names) else "/"
    split = [name.split(mark) for name in names]
    shared = 0
    while all(len(words) > shared + 1 for words in split) and len({w[shared] for w in split}) == 1:
        shared += 1
    return [mark.join(words[shared:]) for words in split]


def _words(about: Mapping[str, JSON]) -> dict[str, str]:
    words = about.get("words", {})
    if not isinstance(words, dict) or not all(isinstance(word, str) for word in words.values()):
        raise MalformedError(f"manifest: expected words of the layer's axes, found {words!r}")
    return words


def _configurations(
    architecture: Mapping[str, JSON] | None, source: Source
) -> Mapping[str, Mapping[str, JSON]]:
    """The configuration of each layer, by its path."""
    if architecture is None:
        return {}
    if not isinstance(architecture, Mapping):
        raise MalformedError(f"{source.file}: expected a model's configuration in the manifest")
    graph = parse(architecture)
    return {leaf.path: leaf.node.config for leaf in graph.leaves()} if graph else {}
