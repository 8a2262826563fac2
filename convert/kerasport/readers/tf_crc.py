"""CRC-32C of any number of bytes, in NumPy and at the speed of memory.

TensorFlow guards every block and every tensor with a CRC-32C, the standard library has only the
other CRC-32, and a byte at a time in Python makes 10 MB/s. But a checksum is a remainder, so
whatever is a multiple of the polynomial may be added to a message without changing it. One such
multiple has four terms only, x^(32·5685) + x^(32·1362) + x^(32·426) + 1: adding multiples of it
folds the front of a message onto its rest in three XORs of whole words, until little is left; the
rest is halved by tables. That makes 2 GB/s and more on one core.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["crc32c", "masked"]

Words = npt.NDArray[np.uint32]

POLYNOMIAL: Final = 0x82F63B78
"""Castagnoli's polynomial; the lowest bit stands for the highest power."""

SHIFTS: Final = (5685 - 1362, 5685 - 426, 5685)
"""How many words further on each word is added when it is folded away."""

_CHUNK: Final = 1 << 17
_FEW: Final = 2048
"""Up to how many bytes Python's own loop is faster than NumPy's first call."""

_DELTA: Final = 0xA282EAD8
_ALL: Final = 0xFFFFFFFF


def masked(crc: int) -> int:
    """A checksum as TensorFlow stores it, so that one of data with checksums in it is no fixpoint.

    >>> hex(masked(0xE3069283))
    '0xc78ab0e5'
    """
    return (((crc >> 15) | (crc << 17)) + _DELTA) & _ALL


def crc32c(data: bytes | memoryview | npt.NDArray[Any]) -> int:
    """The checksum of all bytes of a buffer.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'

    Args:
        data: the bytes, contiguous.
    """
    octets = np.frombuffer(data, np.uint8)
    count = len(octets) >> 2 if len(octets) > _FEW else 0
    register = _ALL
    if count:
        words = octets[: count << 2].view("<u4")
        register = _bytewise(0, _folded(words).to_bytes(4, "little"))
    return _bytewise(register, octets[count << 2 :].tobytes()) ^ _ALL


def _folded(words: Words) -> int:
    """One word that leaves the same remainder as all of them behind a register of ones."""
    longest = SHIFTS[-1]
    if len(words) <= 2 * longest:
        rest = words.copy()
        rest[0] ^= np.uint32(_ALL)
        return _halved(rest)
    scratch = np.empty(longest + min(_CHUNK, len(words) - longest), np.uint32)
    scratch[:longest] = words[:longest]
    scratch[0] ^= np.uint32(_ALL)
    for start in range(longest, len(words), _CHUNK):
        more = words[start : start + _CHUNK]
        scratch[longest : longest + len(more)] = more
        for at in range(0, len(more), SHIFTS[0]):
            front = scratch[at : min(at + SHIFTS[0], len(more))]
            for shift in SHIFTS:
                onto = scratch[at + shift : at + shift + len(front)]
                np.bitwise_xor(onto, front, out=onto)
        scratch[:longest] = scratch[len(more) : len(more) + longest].copy()
    return _halved(scratch[:longest])


def _halved(words: Words) -> int:
    """One word with the remainder of a few thousand, the first half added to the second."""
    level = (len(words) - 1).bit_length()
    rest = np.zeros(1 << level, np.uint32)
    rest[len(rest) - len(words) :] = words
    for power in reversed(range(level)):
        half = 1 << power
        front, rest = rest[:half], rest[half:]
        rest = rest ^ _moved(front, power)
    return int(rest[0])


def _moved(words: Words, power: int) -> Words:
    """What words become when they move `2 ** power` words towards the front."""
    one, two, three, four = _tables(power)
    octets = np.ascontiguousarray(words, "<u4").view(np.uint8)
    moved: Words = one[octets[::4]] ^ two[octets[1::4]] ^ three[octets[2::4]] ^ four[octets[3::4]]
    return moved


@cache
def _tables(power: int) -> Words:
    """What each byte of a word becomes, by its place, when the word moves as far."""
    basis = _basis(power).reshape(4, 8, 1)
    tables = np.zeros((4, 256), np.uint32)
    for bit in range(8):
        tables[:, 1 << bit : 2 << bit] = tables[:, : 1 << bit] ^ basis[:, bit]
    return tables


@cache
def _basis(power: int) -> Words:
    """What each bit of a word becomes: by going half the way twice."""
    if power == 0:
        zeros = bytes(4)
        return np.array([_bytewise(1 << bit, zeros) for bit in range(32)], np.uint32)
    return _moved(_basis(power - 1), power - 1)


@cache
def _steps() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        register = byte
        for _ in range(8):
            register = (register >> 1) ^ (POLYNOMIAL if register & 1 else 0)
        found.append(register)
    return tuple(found)


def _bytewise(register: int, data: bytes) -> int:
    steps = _steps()
    for byte in data:
        register = (register >> 8) ^ steps[(register ^ byte) & 0xFF]
    return register
