"""Arrow IPC: the table of tensors as a file that readers map instead of parsing.

What the table holds and why is said in `table`. The manifest is in the schema's metadata, under
`kerasport`.
"""

from __future__ import annotations

from pathlib import Path

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
    pa = table.arrow()
    import pyarrow.ipc

    with Staging(path) as staged:
        hashes, schema = table.prepared(state)
        out = table.sink(staged.open(path))
        with pyarrow.ipc.new_file(out, schema) as writer:
            for batch in table.batches(state, hashes, layout=schema):
                writer.write_batch(batch)
        with pa.memory_map(staged.reopen(path).name) as source:
            reader = pyarrow.ipc.open_file(source)
            found = (reader.get_batch(number) for number in range(reader.num_record_batches))
            table.check(found, state, hashes=hashes, where=path)
        return staged.publish()
