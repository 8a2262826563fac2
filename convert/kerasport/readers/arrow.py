"""Arrow IPC files with the table of tensors, mapped in place.

What the table holds is said in `tables`. Offsets inside of a batch are checked before they are
followed, since Arrow itself trusts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kerasport.errors import MalformedError
from kerasport.model import StateDict
from kerasport.readers import tables

__all__ = ["matches", "read"]

_MAGIC = b"ARROW1"


def matches(path: Path) -> bool:
    """True if the content begins as an Arrow IPC file does."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def read(path: Path) -> StateDict:
    """Read the tensors of an Arrow IPC file.

    Raises:
        MalformedError: the file is broken, or holds another table.
        MissingExtraError: pyarrow is not installed.
    """
    pa = tables.arrow()
    import pyarrow.ipc

    try:
        reader = pyarrow.ipc.open_file(pa.memory_map(str(path)))
        names, metadata = reader.schema.names, reader.schema.metadata or {}
    except tables.faults() as error:
        raise MalformedError(
            f"{path}: expected an Arrow IPC file, found a fault: {error}. Is the file complete?"
        ) from error

    def decode(index: int, names: Sequence[str]) -> Mapping[str, Any]:
        batch = reader.get_batch(index).select(list(names))
        batch.validate(full=True)
        return {name: batch.column(name) for name in names}

    batches = tables.Batches(path, reader.num_record_batches, decode)
    return tables.state(batches, names=names, metadata=metadata)
