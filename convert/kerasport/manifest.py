"""The manifest: one JSON document that says where every tensor of a target came from.

It travels with the target, so that a file explains itself years later and `verify` can lead each
value back to its source. Its contract is `schemas/manifest.v1.schema.json`.

The text is canonical: the same tensors give the same bytes. Keys are sorted, except that `layers`
and `tensors` keep model order: several containers keep no order of their own, and readers take it
from here. A model's configuration stays as it came. Every hash has the same length, so the text's
length is known before a value is read.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import Any, Final, Protocol

from kerasport.errors import MalformedError, UnsupportedError
from kerasport.model import DTYPES, NOTE_KINDS, StateDict, Tensor, dtype_name
from kerasport.version import VERSION

__all__ = [
    "HASH_ALGORITHM",
    "NO_HASH",
    "PRODUCER",
    "SCHEMA_VERSION",
    "Hasher",
    "entry",
    "hashed",
    "hasher",
    "loads",
    "parse",
    "text",
]

JSON = Any
SCHEMA_VERSION: Final = "1.0"
HASH_ALGORITHM: Final = "blake3"
NO_HASH: Final = "0" * 64
PRODUCER: Final = {"name": "kerasport", "version": VERSION}
_SHOWN: Final = 10

_SORTED: Final = json.JSONEncoder(separators=(",", ":"), sort_keys=True, allow_nan=False)
_ORDERED: Final = frozenset({"layers", "tensors"})
# The model's own words, in their own order: in a call's arguments the order has a meaning, and in
# the description of a layer it is that of the stored weights.
_KEPT: Final = frozenset({"architecture", "custom"})
_VERBATIM: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


class Hasher(Protocol):
    """What the writers need of a hash."""

    def update(self, data: Any, /) -> object:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """The hash of all bytes so far, in hexadecimal."""


def hasher() -> Hasher:
    """A new BLAKE3 hash.

    >>> hasher().hexdigest()[:16]
    'af1349b9f5f9a1a6'
    """
    from blake3 import blake3

    return blake3()


@contextmanager
def hashed(content: Callable[[], Iterable[Any]]) -> Iterator[Callable[[], str]]:
    """The hash of a file, taken in a thread of its own while the file is converted.

    >>> with hashed(lambda: []) as result:
    ...     result()[:16]
    'af1349b9f5f9a1a6'

    Args:
        content: yields the bytes.

    Yields:
        What waits for the hash and gives it.
    """
    digest = hasher()
    errors: list[BaseException] = []
    left = False

    def run() -> None:
        try:
            for block in content():
                if left:
                    return
                digest.update(block)
        except BaseException as error:  # raised again where the hash is asked for
            errors.append(error)

    def result() -> str:
        thread.join()
        if errors:
            raise errors[0]
        return digest.hexdigest()

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield result
    finally:
        left = True
        thread.join()


def text(state: StateDict, hashes: Mapping[str, str] | None) -> str:
    r"""The manifest of these tensors, with the hash of each, as canonical JSON.

    What the state's own manifest lacks is filled in from its tensors, so that tensors put together
    by hand have a valid manifest too. Entries for other tensors are left out: a shard describes
    what it holds.

    >>> import numpy as np
    >>> state = StateDict("torch", {"b": Tensor.of("b", np.zeros(2, np.float32))})
    >>> parse(text(state, {"b": NO_HASH}))["tensors"]["b"]["dtype"]
    'f32'

    Args:
        state: the tensors.
        hashes: the content hash of each tensor, by name; None where only the length matters.

    Raises:
        UnsupportedError: the manifest holds a number that JSON cannot.
    """
    given = state.manifest
    known = given.get("tensors", {})
    tensors = {
        name: {
            **(known.get(name) or entry(tensor)),
            "hash": NO_HASH if hashes is None else hashes[name],
        }
        for name, tensor in state.items()
    }
    layers = given.get("layers", {})
    if tensors.keys() != known.keys():
        own = {described["layer"] for described in tensors.values()}
        layers = {path: layer for path, layer in layers.items() if path in own}
    source = given.get("source")
    if source is not None and state.source_hash is not None:
        source = {**source, "hash": NO_HASH if hashes is None else state.source_hash()}
    document = {
        "schema_version": SCHEMA_VERSION,
        "producer": PRODUCER,
        "notes": [],
        "omitted": [],
        **given,
        "source": source,
        "hash_algorithm": HASH_ALGORITHM,
        "convention": state.convention,
        "layers": layers,
        "tensors": tensors,
    }
    try:
        members = (
            f"{_SORTED.encode(key)}:{_member(key, document[key])}" for key in sorted(document)
        )
        return "{" + ",".join(members) + "}"
    except (ValueError, RecursionError) as error:
        raise UnsupportedError(
            f"the manifest cannot be written: {error}. Expected finite numbers everywhere; "
            "check the hints of the layers"
        ) from error


def entry(tensor: Tensor) -> dict[str, JSON]:
    """What a manifest says of a tensor of which nothing else is known."""
    return {
        "dtype": dtype_name(tensor.dtype),
        "shape": list(tensor.shape),
        "layout": None if tensor.layout is None else str(tensor.layout),
        "at": sorted(tensor.at),
        "layer": None,
        "role": tensor.role,
        "kind": None,
        "trainable": tensor.trainable,
        "fill": None,
        "sizes": {},
        "sources": [],
    }


def _member(key: str, value: JSON) -> str:
    if key in _KEPT:
        return _VERBATIM.encode(value)
    if key not in _ORDERED:
        return _SORTED.encode(value)
    members = (f"{_SORTED.encode(key)}:{_SORTED.encode(item)}" for key, item in value.items())
    return "{" + ",".join(members) + "}"


def parse(document: str, *, where: str = "manifest") -> dict[str, JSON]:
    """The manifest as JSON data, after a check of its version and of every type in it.

    Fields that this version does not know are kept: a later minor version may have more.

    >>> parse('{"schema_version":"2.0"}')
    Traceback (most recent call last):
    ...
    kerasport.errors.MalformedError: manifest: expected schema version 1.x, found '2.0'. A newer \
kerasport wrote it; update this one

    Args:
        document: the text.
        where: what to call it in errors, for example the file that it is in.

    Raises:
        MalformedError: it is no JSON, of another major version, or breaks the schema.
    """
    data = loads(document, where=where)
    if not isinstance(data, dict):
        raise MalformedError(
            f"{where}: expected a JSON object with a schema_version, found {_named(data)}. "
            "Is this file a manifest of kerasport?"
        )
    version = data.get("schema_version")
    major, dot, minor = version.partition(".") if isinstance(version, str) else ("", "", "")
    if not (dot and re.fullmatch("[0-9]{1,9}", major) and re.fullmatch("[0-9]{1,9}", minor)):
        raise MalformedError(
            f"{where}: expected schema version 1.x, found {_short(version)}. "
            "Is this file a manifest of kerasport?"
        )
    if major != SCHEMA_VERSION.partition(".")[0]:
        raise MalformedError(
            f"{where}: expected schema version 1.x, found {version!r}. "
            "A newer kerasport wrote it; update this one"
        )
    problems = sorted(set(_problems(data)))
    if problems:
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise MalformedError(
            f"{where}: breaks schemas/manifest.v1.schema.json; convert the source anew:\n  "
            + "\n  ".join(problems[:_SHOWN])
            + more
        )
    return data


def loads(document: str | bytes, *, where: str) -> JSON:
    """JSON data of a text that a stranger wrote: strict, without duplicate keys.

    Raises:
        MalformedError: the text is no JSON, or is nested too deeply.
    """
    try:
        return json.loads(document, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise MalformedError(f"{where}: expected JSON, found it nested too deeply") from None
    except ValueError as error:  # also of text that is no UTF-8, and of endless numbers
        raise MalformedError(
            f"{where}: expected JSON, found a fault: {str(error)[:200]}. "
            "The file is damaged; convert the source anew"
        ) from None


def _unique(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"duplicate key {_short(counts.most_common(1)[0][0])}")
    return found


def _refuse_constant(name: str) -> JSON:
    raise ValueError(f"{name} is no JSON")


_TEXT: Final = (str,)
_TEXT_OR_NULL: Final = (str, type(None))
_FIELDS: Final[Mapping[str, tuple[type, ...]]] = {
    "producer": (dict,),
    "hash_algorithm": _TEXT,
    "convention": _TEXT,
    "source": (dict, type(None)),
    "layers": (dict,),
    "tensors": (dict,),
    "notes": (list,),
    "omitted": (list,),
}
_SOURCE: Final = {
    "file": _TEXT,
    "format": _TEXT,
    "keras_version": _TEXT_OR_NULL,
    "backend": _TEXT_OR_NULL,
    "bytes": (int,),
    "hash": _TEXT_OR_NULL,
}
_LAYER: Final = {
    "class": _TEXT_OR_NULL,
    "kind": _TEXT_OR_NULL,
    "inferred": (bool,),
    "hints": (dict,),
}
_TENSOR: Final = {
    "dtype": _TEXT,
    "shape": (list,),
    "layout": _TEXT_OR_NULL,
    "at": (list,),
    "layer": _TEXT_OR_NULL,
    "role": _TEXT,
    "kind": _TEXT_OR_NULL,
    "trainable": (bool, type(None)),
    "fill": (int, float, type(None)),
    "sizes": (dict,),
    "sources": (list,),
    "hash": _TEXT,
}
_ORIGIN: Final = {
    "name": _TEXT,
    "stored": _TEXT,
    "role": _TEXT,
    "layout": _TEXT_OR_NULL,
    "at": (list,),
    "dtype": _TEXT,
    "shape": (list,),
}
_TABLE: Final = {
    "class": _TEXT_OR_NULL,
    "role": _TEXT,
    "values": (list, type(None)),
    "options": (dict,),
    "source": _TEXT,
    "note": _TEXT_OR_NULL,
}
_TWIN: Final = {"name": _TEXT, "stored": _TEXT, "layer": _TEXT, "role": _TEXT}
_NOTE: Final = {"kind": _TEXT, "subject": _TEXT, "message": _TEXT, "loss": (bool,)}
_OMISSION: Final = {"name": _TEXT, "reason": _TEXT}
_HEX: Final = re.compile("[0-9a-f]{64}")


def _problems(data: Mapping[str, JSON]) -> Iterable[str]:
    """Every fault of a manifest, as `where: expected, found`."""
    top = list(_typed("", data, _FIELDS))
    yield from top
    if top:
        return
    if data["hash_algorithm"] != HASH_ALGORITHM:
        yield f"hash_algorithm: expected {HASH_ALGORITHM!r}, found {_short(data['hash_algorithm'])}"
    yield from _typed("producer", data["producer"], {"name": _TEXT, "version": _TEXT})
    if data["source"] is not None:
        yield from _typed("source", data["source"], _SOURCE)
    for path, layer in data["layers"].items():
        yield from _typed(f"layers/{path}", layer, _LAYER)
    for name, tensor in data["tensors"].items():
        yield from _tensor_problems(f"tensors/{name}", tensor)
    for index, note in enumerate(data["notes"]):
        faults = list(_typed(f"notes/{index}", note, _NOTE))
        yield from faults
        if not faults and note["kind"] not in NOTE_KINDS:
            kinds = ", ".join(NOTE_KINDS)
            yield f"notes/{index}/kind: expected one of {kinds}, found {_short(note['kind'])}"
    for key in ("aliases", "custom", "tables"):
        if not isinstance(data.get(key, {}), dict):
            yield f"{key}: expected an object, found {_named(data[key])}"
    aliases = data.get("aliases")
    for alias, name in aliases.items() if isinstance(aliases, dict) else ():
        if not isinstance(name, str):
            yield f"aliases/{alias}: expected a string, found {_named(name)}"
    tables = data.get("tables")
    for path, table in tables.items() if isinstance(tables, dict) else ():
        yield from _typed(f"tables/{path}", table, _TABLE)
    for index, omission in enumerate(data["omitted"]):
        yield from _typed(f"omitted/{index}", omission, _OMISSION)


def _tensor_problems(where: str, tensor: JSON) -> Iterable[str]:
    faults = list(_typed(where, tensor, _TENSOR))
    if faults:
        yield from faults
        return
    yield from _array_problems(where, tensor)
    if not _HEX.fullmatch(tensor["hash"]):
        yield f"{where}/hash: expected 64 hexadecimal digits, found {_short(tensor['hash'])}"
    if type(tensor.get("kept", False)) is not bool:
        yield f"{where}/kept: expected true or false, found {_short(tensor['kept'])}"
    if not all(map(_is_extent, tensor["sizes"].values())):
        yield f"{where}/sizes: expected a size for each axis, found {_short(tensor['sizes'])}"
    for index, origin in enumerate(tensor["sources"]):
        faults = list(_typed(f"{where}/sources/{index}", origin, _ORIGIN))
        yield from faults or _array_problems(f"{where}/sources/{index}", origin)
        twins = origin.get("tied", []) if isinstance(origin, dict) else []
        if not isinstance(twins, list):
            yield f"{where}/sources/{index}/tied: expected an array, found {_named(twins)}"
            continue
        for place, twin in enumerate(twins):
            yield from _typed(f"{where}/sources/{index}/tied/{place}", twin, _TWIN)


def _array_problems(where: str, array: Mapping[str, JSON]) -> Iterable[str]:
    if array["dtype"] not in DTYPES:
        yield f"{where}/dtype: expected one of {', '.join(DTYPES)}, found {_short(array['dtype'])}"
    if not all(map(_is_extent, array["shape"])):
        yield f"{where}/shape: expected extents, found {_short(array['shape'])}"
    if not all(isinstance(label, str) for label in array["at"]):
        yield f"{where}/at: expected block labels, found {_short(array['at'])}"


def _is_extent(value: JSON) -> bool:
    return type(value) is int and value >= 0


def _typed(where: str, data: JSON, types: Mapping[str, tuple[type, ...]]) -> Iterable[str]:
    if not isinstance(data, dict):
        yield f"{where}: expected an object, found {_named(data)}"
        return
    for key, expected in types.items():
        path = f"{where}/{key}".lstrip("/")
        if key not in data:
            yield f"{path}: is missing"
        elif type(data[key]) not in expected:
            kinds = " or ".join(_NAMES[kind] for kind in expected)
            yield f"{path}: expected {kinds}, found {_named(data[key])}"


_NAMES: Final[Mapping[type, str]] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    type(None): "null",
}


def _named(value: JSON) -> str:
    return _NAMES[type(value)]


def _short(value: JSON) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:59]}…"
