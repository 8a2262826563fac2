"""A zip archive that is not believed: its members, checked against one another before any is used.

The zip format says everything twice, in a directory at the end and in a header before each member,
and programs that believe one can be shown something else than programs that believe the other. So
both must agree. Members that are stored as they are, as Keras and NumPy store them, are mapped
where they lie; compressed ones are unpacked to a temporary file without a name. Nothing is ever
extracted under a name from the archive.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, Final

from kerasport.errors import MalformedError, UnsupportedError
from kerasport.readers.mapped import Region, unpacked

__all__ = ["Archive", "names"]

FLOOR: Final = 1 << 20
EXPANSION: Final = 1100
"""A member larger than the floor may be this many times what is stored; deflate reaches 1032."""

MAX_MEMBERS: Final = 100_000
MAX_SMALL: Final = 256 << 20
"""How large a member may be that is read into memory."""

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_ENCRYPTED: Final = 0x1
_SIZES_FOLLOW: Final = 0x8


def names(region: Region) -> list[str] | None:
    """What the members of an archive are called; None where it is no sound archive.

    Args:
        region: the bytes.
    """
    if region.read(0, 4) != b"PK\x03\x04":
        return None
    try:
        with zipfile.ZipFile(_buffered(region)) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return None


class Archive:
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
        """The error that something is wrong with a member.

        Args:
            info: the member.
            reason: what is wrong with it.
        """
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
        """Where a member's bytes begin.

        Args:
            info: the member.
        """
        *_, names, extras = _LOCAL.unpack(self.archive_bytes.read(info.header_offset, _LOCAL.size))
        return info.header_offset + _LOCAL.size + int(names) + int(extras)

    def small(self, name: str) -> bytes:
        """A member's bytes, in memory."""
        info = self.members[name]
        if info.file_size > MAX_SMALL:
            raise self.bad(info, f"is larger than {MAX_SMALL >> 20} MiB")
        return b"".join(self.pieces(info))

    def pieces(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """A member's bytes, piece by piece.

        Args:
            info: the member.

        Raises:
            MalformedError: they cannot be unpacked.
        """
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


def _buffered(region: Region) -> Any:
    return io.BufferedReader(region.file())
