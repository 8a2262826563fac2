"""Tables that layers look things up in: vocabularies, bin boundaries, salts of hashes.

They are no tensors, and a model is worth nothing without them. Keras keeps a vocabulary that was
given in the configuration, and one that was learned as a text file beside the weights, a token a
line. Here each becomes one value of plain data that travels in the manifest of every target.

A table says which class it is of, what it is (its role), its values in order, and the options that
say how they are used. What cannot be told from an archive (a vocabulary in a file somewhere else)
is said in `note`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from kerasport.architecture import Graph, Leaf
from kerasport.errors import MalformedError
from kerasport.readers.stored import Group

__all__ = ["ASSETS", "LONGEST", "ROLES", "Asset", "grouped", "tables"]

JSON = Any
# What a learned vocabulary is: the text of a file, or the tokens of a live layer.
Asset = bytes | Sequence[JSON]

ASSETS: Final = "assets/"
"""Where an archive keeps them."""
VOCABULARY: Final = "vocabulary.txt"
LONGEST: Final = 32 << 20
"""How many bytes of text all tables may have; more does not travel in a manifest."""
ROLES: Final = ("asset", "boundaries", "hash", "vocabulary")

_TOKENS: Final = (
    *("output_mode", "num_oov_indices", "oov_token", "mask_token", "invert", "max_tokens"),
    *("pad_to_max_tokens", "encoding", "oov_method", "salt", "vocabulary_dtype", "standardize"),
    *("split", "ngrams", "output_sequence_length", "ragged", "sparse"),
)
_BINS: Final = ("output_mode", "num_bins", "epsilon", "sparse")
_HASH: Final = ("num_bins", "salt", "mask_value", "output_mode", "sparse")
# Class → the role of its table and the options that belong to it.
CLASSES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "StringLookup": ("vocabulary", _TOKENS),
    "IntegerLookup": ("vocabulary", _TOKENS),
    "TextVectorization": ("vocabulary", _TOKENS),
    "Discretization": ("boundaries", _BINS),
    "Hashing": ("hash", _HASH),
    "HashedCrossing": ("hash", _HASH),
}


def grouped(root: Group, assets: Iterable[str]) -> None:
    """Have a group for each layer that keeps assets: Keras counts those without weights too.

    Args:
        root: the store of the weights.
        assets: the paths of files below `assets/`.
    """
    for path in assets:
        group = root
        for word in path.split("/")[:-1]:
            group = group.groups.setdefault(word, Group(f"{group.path}/{word}".lstrip("/")))


def tables(
    graph: Graph | None,
    assets: Iterable[str],
    read: Callable[[str], Asset],
    *,
    places: Mapping[str, str],
    where: str,
) -> dict[str, dict[str, JSON]]:
    """The tables of a model, by the path of their layer.

    Args:
        graph: the model's architecture, or None where it is not known.
        assets: the paths of learned vocabularies and other files below `assets/`.
        read: gives one of them.
        places: where in the store each layer is → the layer's path.
        where: what the archive is called in errors.

    Raises:
        MalformedError: a vocabulary is no text, or holds what are no numbers.
    """
    left = dict.fromkeys(assets)
    texts = _Texts(read, where)
    stored = {path: place for place, path in places.items()}
    found: dict[str, dict[str, JSON]] = {}
    for leaf in graph.leaves() if graph is not None else ():
        if leaf.node.class_name not in CLASSES or leaf.node.same_as is not None:
            continue
        place = stored.get(leaf.path, "")
        # The layer inside a TextVectorization saves the same once more.
        files = [f"{place}/{VOCABULARY}", f"{place}/_lookup_layer/{VOCABULARY}"]
        here = [file for file in files if file in left]
        for file in here:
            del left[file]
        found[leaf.path] = _table(leaf, here[0] if here else "", texts)
    for path in sorted(left):
        found[path] = _other(path, texts)
    return found


class _Texts:
    """The files of the assets, of which only so much goes on."""

    def __init__(self, read: Callable[[str], Asset], where: str) -> None:
        self._read = read
        self._room = LONGEST
        self._where = where

    def tokens(self, path: str) -> tuple[Asset | None, str | None]:
        """A file's text or a live layer's tokens; or None, and why."""
        asset = self._read(path)
        if not isinstance(asset, bytes):
            return list(asset), None
        if len(asset) > self._room:
            return None, f"has {len(asset):,} bytes, too many for a manifest; it is left there"
        self._room -= len(asset)
        return asset, None

    def text(self, data: bytes, path: str) -> str:
        """Bytes as text.

        Raises:
            MalformedError: they are none.
        """
        try:
            return data.decode("utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise MalformedError(
                f"{self._where}/{ASSETS}{path}: expected text in UTF-8, found another byte at "
                f"{error.start}"
            ) from None

    def bad(self, path: str, expected: str) -> MalformedError:
        return MalformedError(f"{self._where}/{ASSETS}{path}: expected {expected}")


def _table(leaf: Leaf, file: str, texts: _Texts) -> dict[str, JSON]:
    name, config = leaf.node.class_name, leaf.node.config
    role, options = CLASSES[name]
    table: dict[str, JSON] = {
        "class": name,
        "role": role,
        "values": [],
        "options": {key: config[key] for key in options if key in config},
        "source": "config",
        "note": None,
    }
    if role == "boundaries":
        given = config.get("bin_boundaries")
        table["values"] = list(given) if isinstance(given, list | tuple) else []
        table["note"] = None if table["values"] else "has learned no boundaries"
    elif role == "vocabulary":
        table |= _vocabulary(name, config, file, texts)
    return table


def _vocabulary(name: str, config: Mapping[str, JSON], file: str, texts: _Texts) -> dict[str, JSON]:
    """All tokens in the order of their indices, those for masks and the unknown too."""
    given = config.get("vocabulary")
    if isinstance(given, list | tuple):
        return {"values": _completed(name, config, list(given)), "source": "config"}
    if isinstance(given, str):
        elsewhere = "is in another file, which is not part of this one"
        return {"values": None, "source": "config", "note": elsewhere}
    if not file:
        return {"values": None, "source": "config", "note": "its vocabulary is not in the file"}
    source = f"{ASSETS}{file}"
    learned, note = texts.tokens(file)
    if not isinstance(learned, bytes):
        return {"values": learned, "source": source, "note": note}
    tokens: list[JSON] = list(texts.text(learned, file).split("\n"))
    size = config.get("vocabulary_size")
    # Keras takes what ends in empty lines for shorter.
    while tokens and tokens[-1] == "" and len(tokens) != size:
        tokens.pop()
    if isinstance(size, int) and size != len(tokens):
        note = f"has {len(tokens)} lines for {size} tokens: some token has a line break in it"
    if name == "IntegerLookup":
        try:
            tokens = [int(token) for token in tokens]
        except ValueError:
            raise texts.bad(file, "whole numbers, one a line") from None
    return {"values": tokens, "source": source, "note": note}


def _completed(name: str, config: Mapping[str, JSON], given: list[JSON]) -> list[JSON]:
    """A given vocabulary with the tokens that Keras puts before it, unless it has them already."""
    text = name == "TextVectorization"
    integers = config.get("output_mode", "int") == "int"
    mask = ("" if integers else None) if text else config.get("mask_token")
    unknown = "[UNK]" if text else config.get("oov_token")
    count = 1 if text else config.get("num_oov_indices", 1)
    special = [mask] if mask is not None and integers else []
    special += [unknown] * (count if isinstance(count, int) and 0 <= count <= 1 << 20 else 0)
    return given if given[: len(special)] == special else [*special, *given]


def _other(path: str, texts: _Texts) -> dict[str, JSON]:
    """What some other layer keeps: as it is where it is text, for it may be anything."""
    asset, note = texts.tokens(path)
    values: list[JSON] | None = None
    if isinstance(asset, bytes):
        try:
            values = [texts.text(asset, path)]
        except MalformedError:
            note = f"has {len(asset):,} bytes, which are no text; it is left there"
    elif asset is not None:
        values = [*asset]
    return {
        "class": None,
        "role": "asset",
        "values": values,
        "options": {},
        "source": f"{ASSETS}{path}",
        "note": note,
    }
