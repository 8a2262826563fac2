"""Readers: one module per container, each turning a file's bytes into tensors.

Each has `matches(path)`, which looks at the content and never at the name, and `read(path)`. The
sources of models give a `Snapshot`; the targets that kerasport writes give a `StateDict`.
"""
