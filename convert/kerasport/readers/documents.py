"""Small JSON files that stand beside weights: indexes, metadata. Read whole, within limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kerasport.errors import MalformedError, UsageError

__all__ = ["begins", "document", "file_bytes", "plain_name"]

LIMIT: Final = 256 << 20


def begins(path: Path, size: int = 1 << 16) -> bytes:
    """The first bytes of a file; nothing where there is no such file.

    Args:
        path: the file.
        size: how many bytes.
    """
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""


def file_bytes(path: Path) -> bytes:
    """All bytes of a small file.

    Args:
        path: the file.

    Raises:
        UsageError: there is no such file.
        MalformedError: it is no small one.
    """
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path}: expected a file, found a folder, a device or a pipe")
        with path.open("rb") as file:
            found = file.read(LIMIT + 1)
    except OSError as error:
        raise UsageError(f"{path}: expected a readable file, found: {error.strerror}") from None
    if len(found) > LIMIT:
        raise MalformedError(f"{path.name}: expected a file of at most {LIMIT >> 20} MiB")
    return found


def document(text: bytes, where: str) -> Mapping[str, Any]:
    """The object that a text in JSON holds.

    Args:
        text: the text.
        where: what it is called in errors.

    Raises:
        MalformedError: it is no JSON, or no object, or says a thing twice.
    """
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=str)
    except RecursionError:
        raise MalformedError(f"{where}: expected JSON, found one that nests too deep") from None
    except ValueError as error:
        raise MalformedError(f"{where}: expected JSON: {error}") from None
    if not isinstance(found, dict):
        raise MalformedError(f"{where}: expected an object in JSON")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key that is there twice")
    return found


def plain_name(name: Any, where: str) -> str:
    """The name of a file in the same folder; a path that leads anywhere else is refused.

    Args:
        name: what an index says.
        where: what the index is called in errors.

    Raises:
        MalformedError: it is no such name.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\:\0"):
        raise MalformedError(
            f"{where}: expected the name of a file beside it, found {str(name)[:100]!r}"
        )
    return name
