"""Proof that a target holds its source: read it again, undo every move, compare bit for bit.

Nothing that wrote the target is trusted: the sentences come from the manifest, the way back is
derived from them anew, and every element of every source tensor must come out of it unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kerasport import tiles
from kerasport.errors import LayoutError, UsageError, VerificationError
from kerasport.layout import Layout, Part, derive
from kerasport.model import SLAB, Note, Report, Snapshot, StateDict, Tensor

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
    problems: list[str] = []
    sources = {tensor.name: tensor for tensor in snapshot.tensors}
    sources |= {o.tensor.name: o.tensor for o in snapshot.omitted}
    ways: dict[str, list[_Way]] = {}
    for name in sorted(entries.keys() | state.keys()):
        if name not in state or name not in entries:
            where = "file" if name not in state else "manifest"
            problems.append(f"{name}: is not in the {where}")
            continue
        try:
            for source, way in _ways(state[name], entries[name]):
                ways.setdefault(source, []).append(way)
            problems.extend(_unfilled(state[name], entries[name]))
        except LayoutError as error:
            problems.append(f"{name}: {error}")
    omitted = {entry["name"] for entry in state.manifest.get("omitted", ())}
    for name, tensor in sources.items():
        if name in ways:
            problems.extend(_differences(tensor, ways[name]))
        elif name not in omitted:
            problems.append(f"{name}: is in the source and nowhere in the target")
    problems.extend(f"{name}: is not in the source" for name in ways.keys() - sources.keys())
    if problems:
        lines = "\n  ".join(sorted(set(problems)))
        raise VerificationError(f"{target} does not hold {snapshot.source.file}:\n  {lines}")
    notes = tuple(Note(**note) for note in state.manifest.get("notes", ()))
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
    )


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
        yield source["name"], _Way(tensor, back)


def _copies(entry: Mapping[str, Any]) -> tuple[list[tiles.Copy], list[str]]:
    sizes: Mapping[str, int] = entry["sizes"]
    if entry["layout"] is None:
        return [tiles.Copy.of(0, [(int(np.prod(entry["shape"], dtype=np.int64)), 1, 1)])], []
    layout = Layout.parse(entry["layout"])
    if list(layout.shape(sizes)) != list(entry["shape"]):
        raise LayoutError(f"its layout '{layout}' and its shape disagree in the manifest")
    parts = [Part(Layout.parse(s["layout"]), frozenset(s["at"])) for s in entry["sources"]]
    return derive(parts, Part(layout, frozenset(entry["at"])), sizes)


def _unfilled(tensor: Tensor, entry: Mapping[str, Any]) -> Iterator[str]:
    """What the target made up must be what it says that it made up."""
    copies, missing = _copies(entry)
    if not missing and entry["sources"]:
        return
    fill = np.full(1, entry["fill"]).astype(tensor.dtype)
    made_up = np.ones(tensor.size, bool)
    for copy in copies:
        one = np.zeros(1, bool)
        stretched = tiles.Copy(
            0, copy.shape, 0, (0,) * len(copy.shape), copy.target_offset, copy.target_strides
        )
        tiles.fill(made_up, [stretched], [one])
    if (tiles.bits(tensor.flat())[made_up] != tiles.bits(fill)).any():
        yield f"{tensor.name}: expected {entry['fill']} where the source has nothing"


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
    flats = [way.tensor.flat() for way in ways]
    start = 0
    for slab in source.slabs(SLAB):
        stop = start + slab.size
        rebuilt = np.empty(slab.size, dtype)
        for way, flat in zip(ways, flats, strict=True):
            tiles.fill(rebuilt, tiles.clipped(way.copies, start, stop), [flat])
        expected = slab if slab.dtype == dtype else slab.astype(dtype)
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
