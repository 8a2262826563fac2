"""The proof: a target is read again, undone, and compared with its source.

The source goes through what the conversion did to it first, which the manifest's notes say.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from os import PathLike
from typing import Any

from kerasport import formats, verification
from kerasport.api.matches import settled
from kerasport.api.places import as_path, weights_in
from kerasport.api.reading import read
from kerasport.averages import averaged
from kerasport.dequantize import dequantized
from kerasport.errors import MalformedError, UsageError, VerificationError
from kerasport.identify import completed
from kerasport.lora import merged
from kerasport.model import Report, Snapshot
from kerasport.naming import Naming

__all__ = ["as_converted", "verify"]


def verify(
    target: str | PathLike[str],
    *,
    against: str | PathLike[str] | Snapshot | object,
    names: str | PathLike[str] | Mapping[str, Any] | Naming | None = None,
) -> Report:
    """Read a target again, undo its transposition, and compare with its source bit for bit.

    Args:
        target: a file that kerasport wrote, of any format, or the folder of a module.
        against: the source: a path, a live model or a snapshot.
        names: those that it was converted with, where they say kinds that the source does not.

    Raises:
        VerificationError: with every tensor that differs, and where.
        UsageError: the target has no manifest.
    """
    path = as_path(target)
    weights = weights_in(path)
    name = path.name if weights is path else f"{path.resolve().name}/"
    path = weights
    row = formats.detected(path)
    if not row.writer:
        raise UsageError(f"{path}: expected a file that kerasport wrote, found {row.holds}")
    snapshot = against if isinstance(against, Snapshot) else read(against)
    try:
        state = formats.reader(row)(path)
        done = {note["kind"] for note in state.manifest.get("notes", ())}
        if "merged" in done and snapshot is not against and snapshot.source.format == "live":
            snapshot = read(against, dequantize="dequantized" in done, merge_lora=True)
        # What --kind said in the conversion need not be said again: it has to fit here as well, and
        # which values must be equal does not depend on it.
        said = state.manifest.get("layers", {})
        snapshot = completed(snapshot, {path: layer.get("kind") for path, layer in said.items()})
        if names is not None:
            snapshot = settled(snapshot, names)
        return verification.verify(state, as_converted(snapshot, done), name)
    except MalformedError as error:
        # What kerasport wrote was whole: a file that is broken now does not hold its source.
        raise VerificationError(f"{path} does not hold {snapshot.source.file}: {error}") from error


def as_converted(snapshot: Snapshot, done: Collection[str]) -> Snapshot:
    """The source with what the conversion did to it first, unless that is done already."""
    already = {note.kind for note in snapshot.notes}
    if "averaged" in done and "averaged" not in already:
        snapshot = averaged(snapshot)
    if "dequantized" in done and "dequantized" not in already:
        snapshot = dequantized(snapshot)
    if "merged" in done and "merged" not in already:
        snapshot = merged(snapshot)
    return snapshot
