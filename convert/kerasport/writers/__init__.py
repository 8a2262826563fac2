"""Writers: one module per container, each turning a `StateDict` into files.

Each has `write(state, path, *, max_shard_size=None)`, which returns the files that it wrote. What
they share is in `staging`: files appear whole or not at all, and only after they were read again.
"""
