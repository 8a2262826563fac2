"""Proof that a target holds its source: read it again, undo every move, compare bit for bit.

Nothing that wrote the target is trusted: the sentences come from the manifest, the way back is
derived from them anew, and every element of every source tensor must come out of it unchanged. What
the source does not have must be what the manifest says, and every tensor must have the hash that
the manifest gives it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasport import tiles
from kerasport.errors import LayoutError, UsageError, VerificationError
from kerasport.layout import Layout, Part, derive
from kerasport.manifest import hasher
from kerasport.model import SLAB, ZERO, Note, Report, Snapshot, StateDict, Tensor
from kerasport.ties import second_places

__all__ = ["verify"]


def verify(state: StateDict, snapshot: Snapshot, target: str) -> Report:
    """Compare a target with its source.

    Args:
        state: the target, read again, with its manifest.
        snapshot: the source, identified.
        target: the target's name, for the report.

    Raises:
        VerificationError: with every difference, sorted.
        UsageError: the target has no manifest.
    """
    entries: Mapping[str, Any] | None = state.manifest.get("tensors")
    if entries is None:
        raise UsageError(f"{target}: expected a manifest of kerasport's, found none")
    aliases: Mapping[str, str] = state.manifest.get("aliases", {})
    problems: list[str] = [
        f"{alias}: is to be {name}, which the file does not hold"
        for alias, name in aliases.items()
        if name not in entries
    ]
    problems.extend(_other_tables(state.manifest.get("tables", {}), snapshot.tables))
    weights = {tensor.name: tensor for tensor in snapshot.tensors}
    sources = weights | {o.tensor.name: o.tensor for o in snapshot.omitted}
    ways: dict[str, list[_Way]] = {}
    for name in sorted(entries.keys() | state.keys()):
        if name not in state or name not in entries:
            where = "file" if name not in state else "manifest"
            problems.append(f"{name}: is not in the {where}")
            continue
        first = aliases.get(name, "")
        try:
            if first in state and _origins(entries[name]) == _origins(entries.get(first, {})):
                # One variable under both names: the first one leads back to the source.
                problems.extend(_unlike(state[name], state[first]))
                problems.extend(_misnamed(state[name], entries[name]))
                continue
            for source, way in _ways(state[name], entries[name]):
                ways.setdefault(source, []).append(way)
            problems.extend(_misshapen(sources, entries[name]))
            problems.extend(_unfilled(state[name], entries[name]))
            problems.extend(_misnamed(state[name], entries[name]))
        except LayoutError as error:
            problems.append(f"{name}: {error}")
    again = second_places(snapshot)
    omitted = {entry["name"]: entry["reason"] for entry in state.manifest.get("omitted", ())}
    misshapen = {problem.partition(":")[0] for problem in problems}
    for name, tensor in sources.items():
        if name in ways and name not in misshapen:
            problems.extend(_differences(tensor, ways[name]))
        elif name in weights and name not in ways and name not in omitted:
            problems.append(f"{name}: is in the source and nowhere in the target")
        elif omitted.get(name) == ZERO and tensor.numpy().any():
            problems.append(f"{name}: is not zero, and was left out of the target as if it were")
    for name in ways.keys() - sources.keys():
        first = _first_name(name, again)
        if first in sources:
            problems.extend(_differences(sources[first], ways[name]))
        else:
            problems.append(f"{name}: is not in the source")
    if problems:
        lines = "\n  ".join(sorted(set(problems)))
        told = state.manifest.get("layers", {})
        untold = [layer.path for layer in snapshot.layers if layer.kind is None]
        hint = (
            "\nThe conversion was told what some of these layers are: give --layers, --kind or "
            "--config here too."
            if any(told.get(path, {}).get("kind") for path in untold)
            else ""
        )
        raise VerificationError(f"{target} does not hold {snapshot.source.file}:\n  {lines}{hint}")
    keys = ("kind", "subject", "message", "loss")
    notes = tuple(Note(*(note[key] for key in keys)) for note in state.manifest.get("notes", ()))
    return Report(
        "verify",
        snapshot.source.file,
        target,
        state.convention,
        len(ways),
        len(state),
        sum(tensor.size for tensor in state.values()),
        state.nbytes,
        notes,
        tuple((o["name"], o["reason"]) for o in state.manifest.get("omitted", ())),
        aliases,
    )


def _other_tables(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    """Vocabularies and the like that are not the source's."""
    for path in sorted(found.keys() | expected.keys()):
        if path not in found or path not in expected:
            where = "target" if path not in found else "source"
            yield f"{path}: its table is not in the {where}"
        elif found[path] != expected[path]:
            yield f"{path}: its table differs from the source's"


def _first_name(name: str, again: Mapping[str, str]) -> str:
    """What a tensor is called where its layer stands for the first time."""
    for second, first in again.items():
        if name.startswith(f"{second}/"):
            return first + name.removeprefix(second)
    return ""


class _Way:
    """How the elements of one target tensor come back to one source tensor."""

    __slots__ = ("copies", "tensor")

    def __init__(self, tensor: Tensor, copies: Sequence[tiles.Copy]) -> None:
        self.tensor = tensor
        self.copies = copies


def _ways(tensor: Tensor, entry: Mapping[str, Any]) -> Iterator[tuple[str, _Way]]:
    sources = entry["sources"]
    copies, _ = _copies(entry)
    for number, source in enumerate(sources):
        back = [copy.inverted() for copy in copies if copy.source == number]
        # A variable that the source holds under several names must be this under each.
        for name in (source["name"], *(twin["name"] for twin in source.get("tied", ()))):
            yield name, _Way(tensor, back)


def _origins(entry: Mapping[str, Any]) -> list[str]:
    return [source["name"] for source in entry.get("sources", ())]


def _unlike(tensor: Tensor, first: Tensor) -> Iterator[str]:
    if tensor.spec != first.spec or any(
        (tiles.bits(a) != tiles.bits(b)).any()
        for a, b in zip(tensor.slabs(SLAB), first.slabs(SLAB), strict=True)
    ):
        yield f"{tensor.name}: is one variable with {first.name}, and differs from it"


def _copies(entry: Mapping[str, Any]) -> tuple[list[tiles.Copy], list[str]]:
    """What of each source is where in the target, and what of the target no source holds."""
    sizes: Mapping[str, int] = entry["sizes"]
    sources: Sequence[Mapping[str, Any]] = entry["sources"]
    if entry["layout"] is None or not sources:
        if len(sources) > 1:
            raise LayoutError("the manifest gives several sources and no layout")
        size = math.prod(entry["shape"])
        return [tiles.Copy.of(0, [(size, 1, 1)])] if sources else [], []
    layout = Layout.parse(entry["layout"])
    if any(source["layout"] is None for source in sources) and (str(layout) or len(sources) > 1):
        raise LayoutError("the manifest gives a source without a layout")
    parts = [Part(Layout.parse(s["layout"] or ""), frozenset(s["at"])) for s in sources]
    for part, source in (*zip(parts, sources, strict=True), (Part(layout), entry)):
        if list(part.layout.shape(sizes)) != list(source["shape"]):
            raise LayoutError(f"the manifest's '{part.layout}' does not fit {source['shape']}")
    return derive(parts, Part(layout, frozenset(entry["at"])), sizes)


def _misshapen(sources: Mapping[str, Tensor], entry: Mapping[str, Any]) -> Iterator[str]:
    for origin in entry["sources"]:
        found = sources.get(origin["name"])
        if found is not None and list(found.shape) != origin["shape"]:
            shape = ",".join(map(str, origin["shape"]))
            yield f"{found.name}: is {found.spec}, and the manifest was made of one of [{shape}]"


def _unfilled(tensor: Tensor, entry: Mapping[str, Any]) -> Iterator[str]:
    """What the target made up must be what it says that it made up."""
    copies, missing = _copies(entry)
    if entry.get("kept") or (entry["sources"] and not missing):
        return
    if entry["fill"] is None:
        yield f"{tensor.name}: comes from no source, and the manifest does not say what fills it"
        return
    made_up = ~_covered(copies, tensor.size)
    with np.errstate(all="ignore"):
        fill = np.asarray([entry["fill"]]).astype(tensor.dtype)
    if (tiles.bits(tensor.flat())[made_up] != tiles.bits(fill)).any():
        yield f"{tensor.name}: expected {entry['fill']} where the source has nothing"


def _covered(copies: Sequence[tiles.Copy], size: int) -> npt.NDArray[np.bool_]:
    """Which of `size` elements the copies write."""
    covered = np.zeros(size, bool)
    one = np.ones(1, bool)
    for copy in copies:
        still = replace(copy, source=0, source_offset=0, source_strides=(0,) * len(copy.shape))
        tiles.fill(covered, [still], [one])
    return covered


def _misnamed(tensor: Tensor, entry: Mapping[str, Any]) -> Iterator[str]:
    """The content must have the hash under which the manifest knows it."""
    digest = hasher()
    for slab in tensor.slabs(SLAB):
        swap = slab.dtype.byteorder == ">" or (
            sys.byteorder == "big" and slab.dtype.byteorder == "="
        )
        digest.update((slab.byteswap() if swap else slab).view(np.uint8))
    if digest.hexdigest() != entry["hash"]:
        yield f"{tensor.name}: its content has another hash than the manifest says"


def _differences(source: Tensor, ways: Sequence[_Way]) -> Iterator[str]:
    """Rebuild the source slab by slab, and compare."""
    dtypes = {way.tensor.dtype for way in ways}
    if len(dtypes) > 1:
        yield f"{source.name}: its parts are of several dtypes"
        return
    (dtype,) = dtypes
    if sum(copy.elements for way in ways for copy in way.copies) != source.size:
        yield f"{source.name}: the target does not hold each of its elements once"
        return
    if len(ways) > 1 and not _covered([c for way in ways for c in way.copies], source.size).all():
        yield f"{source.name}: the target holds some of its elements twice, others not at all"
        return
    flats = [way.tensor.flat() for way in ways]
    start = 0
    for slab in source.slabs(SLAB):
        stop = start + slab.size
        rebuilt = np.empty(slab.size, dtype)
        for way, flat in zip(ways, flats, strict=True):
            tiles.fill(rebuilt, tiles.clipped(way.copies, start, stop), [flat])
        expected = slab if slab.dtype == dtype else tiles.cast(slab, dtype)
        different = np.flatnonzero(tiles.bits(rebuilt) != tiles.bits(expected))
        if different.size:
            where = start + int(different[0])
            index = tuple(map(int, np.unravel_index(where, source.shape)))
            yield (
                f"{source.name}: differs, first at {index}: expected "
                f"{expected[where - start]}, found {rebuilt[where - start]}"
            )
            return
        start = stop
