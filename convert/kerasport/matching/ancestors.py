"""Which layers each layer depends on, through models in models."""

from __future__ import annotations

from collections.abc import Mapping

from kerasport.architecture import Graph, parse
from kerasport.model import Snapshot

__all__ = ["ancestors_of"]


def ancestors_of(snapshot: Snapshot) -> Mapping[str, frozenset[str]] | None:
    """For each layer, those that it depends on; None where the file does not say."""
    graph = None if snapshot.architecture is None else parse(snapshot.architecture)
    if graph is None:
        return None
    found: dict[str, frozenset[str]] = {}
    _walk(graph, "", frozenset(), found)
    return found


def _walk(
    graph: Graph, prefix: str, before: frozenset[str], found: dict[str, frozenset[str]]
) -> None:
    """Everything that each layer depends on, that of models around it too."""
    wired = any(node.inputs for node in graph.nodes)
    chain = graph.class_name in ("Sequential", "Pipeline")
    if not wired and not chain:
        return
    above: dict[str, set[str]] = {node.name: set() for node in graph.nodes}
    for node in graph.nodes:
        above[node.name].update(ref.layer for call in node.inputs for ref in call)
    done: dict[str, frozenset[str]] = {}

    def all_above(name: str) -> frozenset[str]:
        seen: set[str] = set()
        stack = list(above.get(name, ()))
        while stack:
            current = stack.pop()
            if current not in seen:
                seen.add(current)
                stack.extend(above.get(current, ()))
        return frozenset(seen)

    for node in graph.nodes:
        done[node.name] = all_above(node.name) - {node.name}
        own = before | {prefix + name for name in done[node.name]}
        found[prefix + node.name] = own
        if node.graph is not None:
            _walk(node.graph, f"{prefix}{node.name}/", own, found)
