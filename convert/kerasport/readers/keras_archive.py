"""The `.keras` archive: a zip file with the configuration and, as one member, the weights.

Keras stores members as they are, so the HDF5 file inside is mapped where it lies. An archive that
somebody packed again with compression is unpacked to a temporary file first. Nothing is ever
extracted under a name from the archive.

The zip format says everything twice, in a directory at the end and in a header before each member,
and programs that believe one can be shown something else than programs that believe the other. So
both must agree.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from kerasport.architecture import config_of, parse
from kerasport.errors import (
    KerasportError,
    MalformedError,
    UnknownFormatError,
    UnsupportedError,
)
from kerasport.model import Snapshot, Source
from kerasport.readers import hdf5
from kerasport.readers.mapped import Region, mapped, unpacked
from kerasport.readers.naming import numbered

__all__ = ["matches", "read"]

CONFIG: Final = "config.json"
METADATA: Final = "metadata.json"
WEIGHTS: Final = "model.weights.h5"

FLOOR: Final = 1 << 20
EXPANSION: Final = 1100
"""A member larger than the floor may be this many times what is stored; deflate reaches 1032."""

MAX_MEMBERS: Final = 100_000
MAX_SMALL: Final = 256 << 20
"""How large a member may be that is read into memory."""

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_ENCRYPTED: Final = 0x1
_SIZES_FOLLOW: Final = 0x8


def matches(path: Path) -> bool:
    """Whether a file is a zip archive that holds a configuration of Keras.

    An archive that was cut off counts too if it begins as Keras begins one, so that the reader can
    say what is wrong with it.

    Args:
        path: the file.
    """
    try:
        region = mapped(path)
    except KerasportError:
        return False
    if region.read(0, 4) != b"PK\x03\x04":
        return False
    try:
        with zipfile.ZipFile(_buffered(region)) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return region.read(30, 13).rstrip(b"{") in (METADATA.encode(), CONFIG.encode())
    return CONFIG in names and (
        METADATA in names or any(n.startswith("model.weights") for n in names)
    )


def read(
    path: Path,
    *,
    architecture: Mapping[str, Any] | None = None,
    assume_dtype: np.dtype[Any] | None = None,
) -> Snapshot:
    """The layers of a `.keras` archive.

    Args:
        path: the file.
        architecture: a configuration to use instead of the archive's own.
        assume_dtype: what values are that the file knows only as so many bytes.

    Raises:
        UsageError: there is no such file, or the given architecture does not fit it.
        UnknownFormatError: it is no archive of Keras.
        MalformedError: it is broken or hostile.
        UnsupportedError: it holds numbers of a kind that cannot be told.
    """
    region = mapped(path)
    given = architecture is not None
    archive = _Archive(region, path.name)
    if CONFIG not in archive.members:
        raise UnknownFormatError(f"{path}: expected an archive of Keras, found no {CONFIG} in it")
    own = config_of(archive.small(CONFIG), f"{path.name}/{CONFIG}")
    architecture = own if architecture is None else architecture
    metadata = archive.metadata()
    if WEIGHTS not in archive.members:
        others = [name for name in archive.members if name.startswith("model.weights")]
        if others:
            raise UnsupportedError(f"{path}: its weights are in {others[0]}, which is not read yet")
        raise MalformedError(f"{path}: expected the weights in {WEIGHTS}, found no such member")
    weights = archive.region(WEIGHTS)
    where = f"{path.name}/{WEIGHTS}"
    root = hdf5.tree(weights, where=where, assume_dtype=assume_dtype)
    graph = parse(architecture)
    name = graph.name if graph else path.name.split(".")[0]
    stored = numbered(root, graph, name=name, given=given)
    return Snapshot(
        Source(
            path.name,
            "keras",
            keras_version=metadata.get("keras_version"),
            nbytes=region.size,
            content=region.content,
        ),
        tuple(stored.layers),
        tuple(stored.omitted),
        architecture,
    )


class _Archive:
    """The members of a zip archive, checked against one another before any of them is used."""

    def __init__(self, region: Region, where: str) -> None:
        self.archive_bytes = region
        self.where = where
        self.members: dict[str, zipfile.ZipInfo] = {}
        try:
            self.archive = zipfile.ZipFile(_buffered(region))
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise MalformedError(
                f"{where}: expected a sound zip archive, found: {error}. Was it cut off on the way?"
            ) from None
        infos = self.archive.infolist()
        if len(infos) > MAX_MEMBERS:
            raise MalformedError(f"{where}: {len(infos)} members, more than {MAX_MEMBERS}")
        end = self.archive.start_dir
        last = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            start = self.check(info)
            if info.header_offset < last:
                raise self.bad(info, "overlaps the member before it")
            last = start + info.compress_size
            if last > end:
                raise self.bad(info, "reaches beyond the end of the members")
            if info.filename in self.members:
                raise self.bad(info, "is there twice")
            self.members[info.filename] = info

    def bad(self, info: zipfile.ZipInfo, reason: str) -> MalformedError:
        return MalformedError(f"{self.where}: the member {info.filename[:200]!r} {reason}")

    def check(self, info: zipfile.ZipInfo) -> int:
        """Refuse a member that is unsafe or contradicts its own header; where its bytes begin."""
        name = info.filename
        parts = name.replace("\\", "/").split("/")
        if (
            ".." in parts
            or name.startswith(("/", "\\"))
            or ":" in parts[0]
            or "\0" in info.orig_filename
        ):
            raise self.bad(info, "has a path that leaves the archive")
        if info.flag_bits & _ENCRYPTED:
            raise self.bad(info, "is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnsupportedError(
                f"{self.where}: the member {name!r} is compressed by method {info.compress_type}; "
                "expected it stored or deflated"
            )
        if info.file_size > max(FLOOR, EXPANSION * info.compress_size):
            raise self.bad(
                info, f"announces {info.file_size} bytes and stores {info.compress_size}"
            )
        raw = self.archive_bytes.read(info.header_offset, _LOCAL.size)
        if len(raw) < _LOCAL.size or raw[:4] != b"PK\x03\x04":
            raise self.bad(info, "has no header where the directory says")
        _, _, flags, method, _, _, crc, packed, size, names, extras = _LOCAL.unpack(raw)
        start = info.header_offset + _LOCAL.size
        local = self.archive_bytes.read(start, names)
        encoding = "utf-8" if info.flag_bits & 0x800 else "cp437"
        if local != info.orig_filename.encode(encoding, "replace"):
            raise self.bad(info, "has another name in its header than in the directory")
        if method != info.compress_type or (flags ^ info.flag_bits) & _ENCRYPTED:
            raise self.bad(info, "is packed otherwise than the directory says")
        large = 0xFFFFFFFF  # the real number is in an extra field
        later = flags & _SIZES_FOLLOW
        for said, known in ((crc, info.CRC), (packed, info.compress_size), (size, info.file_size)):
            if said != known and not (later and said == 0) and not (said == large and said != crc):
                raise self.bad(info, "has other sizes in its header than in the directory")
        if method == zipfile.ZIP_STORED and info.file_size != info.compress_size:
            raise self.bad(
                info, f"announces {info.file_size} bytes and stores {info.compress_size}"
            )
        return start + int(names) + int(extras)

    def start(self, info: zipfile.ZipInfo) -> int:
        *_, names, extras = _LOCAL.unpack(self.archive_bytes.read(info.header_offset, _LOCAL.size))
        return info.header_offset + _LOCAL.size + int(names) + int(extras)

    def small(self, name: str) -> bytes:
        """A member's bytes, in memory."""
        info = self.members[name]
        if info.file_size > MAX_SMALL:
            raise self.bad(info, f"is larger than {MAX_SMALL >> 20} MiB")
        return b"".join(self.pieces(info))

    def pieces(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        try:
            with self.archive.open(info) as file:
                while piece := file.read(1 << 20):
                    yield piece
        except (zipfile.BadZipFile, OSError, EOFError, zlib.error, RuntimeError) as error:
            raise self.bad(info, f"cannot be read: {error}") from None

    def region(self, name: str) -> Region:
        """A member's bytes, mapped: in place if they are stored as they are."""
        info = self.members[name]
        if info.compress_type == zipfile.ZIP_STORED:
            return self.archive_bytes.part(self.start(info), info.file_size)
        return unpacked(self.pieces(info), size=info.file_size, where=f"{self.where}/{name}")

    def metadata(self) -> dict[str, str]:
        """What the archive says of its making; nothing depends on it."""
        if METADATA not in self.members:
            return {}
        try:
            found = json.loads(self.small(METADATA))
        except (ValueError, RecursionError):
            raise MalformedError(f"{self.where}/{METADATA}: expected JSON") from None
        if not isinstance(found, dict):
            raise MalformedError(f"{self.where}/{METADATA}: expected an object in JSON")
        return {key: value for key, value in found.items() if isinstance(value, str)}


def _buffered(region: Region) -> Any:
    import io

    return io.BufferedReader(region.file())
