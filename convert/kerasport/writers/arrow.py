"""Arrow IPC: the table of tensors as a file that readers map instead of parsing.

What the table holds and why is said in `table`. The manifest is in the schema's metadata, under
`kerasport`. Arrow writes the schema before the values, when no hash is known, and once more behind
them: both times without hashes, which are put in their places at the end.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerasport import manifest
from kerasport.model import StateDict
from kerasport.writers import staging, table
from kerasport.writers.staging import Staging

__all__ = ["write"]


def write(state: StateDict, path: Path, *, max_shard_size: int | None = None) -> tuple[Path, ...]:
    """Write tensors as an Arrow IPC file.

    Args:
        state: the tensors.
        path: the file to write.
        max_shard_size: must be None; an Arrow file is one file.

    Returns:
        The file written.

    Raises:
        MissingExtraError: pyarrow is not installed.
        UsageError: the target cannot be written, or a shard size is given.
        VerificationError: what was written does not read back.
    """
    staging.refuse_shards(max_shard_size, target="Arrow")
    table.arrow()
    import pyarrow.ipc

    with Staging(path) as staged:
        blank = manifest.text(state, None)
        schema = table.schema({"kerasport": blank})
        written = table.Written()
        with (
            table.sink(staged.open(path), state.nbytes) as sink,
            pyarrow.ipc.new_file(sink, schema) as writer,
        ):
            for batch in table.batches(state, written, layout=schema):
                writer.write_batch(batch)
        staged.reopen(path)
        part = staged.part(path)
        _complete(part, blank.encode(), manifest.text(state, written.hashes).encode())
        table.check(lambda numbers: _read(part, numbers), state, written=written, where=path)
        return staged.publish()


def _complete(path: Path, blank: bytes, text: bytes) -> None:
    """Put the hashes into the manifest, which stands before the values and behind them."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        for start in {content.find(blank), content.rfind(blank)}:
            content[start : start + len(blank)] = text


def _read(path: Path, numbers: range) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.ipc

    with pa.memory_map(str(path)) as source:
        reader = pyarrow.ipc.open_file(source)
        for number in numbers:
            yield reader.get_batch(number)
