"""Parquet: the table of tensors for query engines.

What the table holds and why is said in `table`. The manifest is in the file's key-value metadata,
under `kerasport`; Arrow's copy of the schema is left out, since it would repeat the manifest and
every type here is one that Parquet has itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerasport import manifest
from kerasport.model import StateDict
from kerasport.writers import staging, table
from kerasport.writers.staging import Staging

__all__ = ["write"]


def write(state: StateDict, path: Path, *, max_shard_size: int | None = None) -> tuple[Path, ...]:
    """Write tensors as a Parquet file.

    Args:
        state: the tensors.
        path: the file to write.
        max_shard_size: must be None; a Parquet file is one file.

    Returns:
        The file written.

    Raises:
        MissingExtraError: pyarrow is not installed.
        UsageError: the target cannot be written, or a shard size is given.
        VerificationError: what was written does not read back.
    """
    staging.refuse_shards(max_shard_size, target="Parquet")
    pa = table.arrow()
    import pyarrow.parquet as pq

    with Staging(path) as staged:
        schema = table.schema()
        written = table.Written()
        plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        with (
            table.sink(staged.open(path), state.nbytes) as sink,
            pq.ParquetWriter(sink, schema, store_schema=False, **plain) as writer,
        ):
            for batch in table.batches(state, written, layout=schema):
                writer.write_table(pa.Table.from_batches([batch]), row_group_size=batch.num_rows)
            text = manifest.text(state, written.hashes)
            writer.add_key_value_metadata({"kerasport": text})
        pa.default_memory_pool().release_unused()
        staged.reopen(path)
        part = staged.part(path)
        table.check(lambda groups: _read(part, groups), state, written=written, where=path)
        return staged.publish()


def _read(path: Path, groups: range) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as reader:
        for number in groups:
            yield from reader.read_row_group(number, use_threads=False).to_batches()
