"""Archives that strangers made: each trap is refused, and the same archive without it is read."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasport.errors import MalformedError, UnknownFormatError, UnsupportedError, UsageError
from kerasport.readers import keras_archive

KERNEL = np.arange(15, dtype=np.float32).reshape(3, 5)
CONFIG = {
    "module": "keras",
    "class_name": "Sequential",
    "config": {
        "name": "m",
        "layers": [
            {"module": "keras.layers", "class_name": "Dense", "config": {"name": "d", "units": 5}}
        ],
    },
}


def weights() -> bytes:
    import h5py

    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        file["layers/dense/vars/0"] = KERNEL
    return data.getvalue()


def archive(path: Path, *, method: int = zipfile.ZIP_STORED, **members: bytes | None) -> Path:
    """A sound archive; other members replace its own, None leaves one out."""
    named: dict[str, bytes | None] = {
        "metadata.json": json.dumps({"keras_version": "3.15.1"}).encode(),
        "config.json": json.dumps(CONFIG).encode(),
        "model.weights.h5": weights(),
        **{name.replace("__", "."): data for name, data in members.items()},
    }
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in named.items():
            if data is not None:
                file.writestr(name, data)
    return path


def refused(path: Path, reason: str, kind: type[Exception] = MalformedError) -> None:
    with pytest.raises(kind, match=reason):
        keras_archive.read(path)


def check_sound(path: Path) -> None:
    snapshot = keras_archive.read(path)
    np.testing.assert_array_equal(snapshot["d"].weights["0"].numpy(), KERNEL)
    assert snapshot.source.keras_version == "3.15.1"


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = archive(tmp_path / "m.keras")
    check_sound(path)
    return path


def test_a_compressed_archive_is_read(tmp_path: Path) -> None:
    check_sound(archive(tmp_path / "m.keras", method=zipfile.ZIP_DEFLATED))


def test_an_archive_written_as_a_stream_is_read(tmp_path: Path) -> None:
    """Sizes then follow each member, and its header has zeros in their place."""

    class Stream(io.RawIOBase):
        def __init__(self, file: Any) -> None:
            self.file = file

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            return int(self.file.write(data))

    with (tmp_path / "m.keras").open("wb") as file, zipfile.ZipFile(Stream(file), "w") as target:
        target.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        target.writestr("config.json", json.dumps(CONFIG))
        target.writestr("model.weights.h5", weights())
    check_sound(tmp_path / "m.keras")


def test_an_archive_with_large_headers_is_read(tmp_path: Path) -> None:
    """Keras 3 forces the large form of headers for some members."""
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as target:
        target.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        target.writestr("config.json", json.dumps(CONFIG))
        with target.open("model.weights.h5", "w", force_zip64=True) as member:
            member.write(weights())
    check_sound(tmp_path / "m.keras")


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/evil", "\\evil", "a\\..\\evil", "C:evil", "C:\\evil"]
)
def test_a_member_that_leaves_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(archive(path), "a") as file:
        info = zipfile.ZipInfo("x")
        info.filename = name
        file.writestr(info, b"")
    refused(path, "a path that leaves the archive")
    with zipfile.ZipFile(archive(path), "a") as file:
        file.writestr("assets/layers/lookup/vocabulary..txt", b"")
    check_sound(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(sound: Path) -> None:
    """Readers that take the first one and readers that take the last see two models."""
    with zipfile.ZipFile(sound, "a") as file:
        file.writestr("config.json", b"{}")
    refused(sound, "'config.json' is there twice")


def patched(path: Path, change: Callable[[bytearray, int, int], None], name: str) -> None:
    """Change an archive's bytes, given where a member's header and directory entry are."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        local = file.getinfo(name).header_offset
        central = file.start_dir
        while data[central + 46 : central + 46 + len(name)] != name.encode():
            sizes = struct.unpack_from("<3H", data, central + 28)
            central += 46 + sum(sizes)
    change(data, local, central)
    path.write_bytes(data)


def encrypt(data: bytearray, local: int, central: int) -> None:
    data[local + 6] |= 1
    data[central + 8] |= 1


def other_name(data: bytearray, local: int, central: int) -> None:
    data[local + 30] ^= 0x20


def other_method(data: bytearray, local: int, central: int) -> None:
    data[local + 8] = 8


def other_size(data: bytearray, local: int, central: int) -> None:
    struct.pack_into("<I", data, local + 22, 5)


def stored_size(data: bytearray, local: int, central: int) -> None:
    for place in (local + 22, central + 24):
        struct.pack_into("<I", data, place, struct.unpack_from("<I", data, place)[0] + 9)


def beyond_the_end(data: bytearray, local: int, central: int) -> None:
    for place in (local + 18, local + 22, central + 20, central + 24):
        struct.pack_into("<I", data, place, 1 << 24)


def no_header(data: bytearray, local: int, central: int) -> None:
    struct.pack_into("<I", data, central + 42, local + 1)


def unknown_method(data: bytearray, local: int, central: int) -> None:
    data[local + 8] = data[central + 10] = 97


PATCHES: dict[Callable[[bytearray, int, int], None], tuple[str, type[Exception]]] = {
    encrypt: ("is encrypted", MalformedError),
    other_name: ("another name in its header", MalformedError),
    other_method: ("packed otherwise than the directory says", MalformedError),
    other_size: ("other sizes in its header", MalformedError),
    stored_size: (r"announces \d+ bytes and stores \d+", MalformedError),
    beyond_the_end: ("reaches beyond the end", MalformedError),
    no_header: ("no header where the directory says", MalformedError),
    unknown_method: ("compressed by method 97", UnsupportedError),
}


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.__name__)
def test_headers_that_contradict_are_refused(sound: Path, patch: Any) -> None:
    patched(sound, patch, "model.weights.h5")
    refused(sound, *PATCHES[patch])


def test_members_that_overlap_are_refused(sound: Path) -> None:
    """Two names over the same bytes: what one program checks, another one uses."""

    def overlap(data: bytearray, local: int, central: int) -> None:
        # The weights' entry in the directory comes to mean the configuration's bytes as well.
        with zipfile.ZipFile(io.BytesIO(bytes(data))) as file:
            config = file.getinfo("config.json")
        size = local - config.header_offset - 30 - len("config.json") + 30
        start = config.header_offset
        for place in (start + 18, start + 22):
            struct.pack_into("<I", data, place, size)
        entry = central - 46 - len("config.json")
        for place in (entry + 20, entry + 24):
            struct.pack_into("<I", data, place, size)

    patched(sound, overlap, "model.weights.h5")
    refused(sound, "overlaps the member before it")


def test_a_member_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.keras", method=zipfile.ZIP_DEFLATED)
    check_sound(path)

    def lie(data: bytearray, local: int, central: int) -> None:
        for place in (local + 22, central + 24):
            struct.pack_into("<I", data, place, (1 << 32) - 2)

    patched(path, lie, "model.weights.h5")
    refused(path, r"announces 4294967294 bytes and stores \d+")


def test_weights_that_unpack_to_nothing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("config.json", "metadata.json"):
            archive.writestr(name, "{}")
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(MalformedError):
        keras_archive.read(path)


@pytest.mark.parametrize("by", [-5, 5])
def test_a_member_that_unpacks_to_another_size_is_refused(tmp_path: Path, by: int) -> None:
    path = archive(tmp_path / "m.keras", method=zipfile.ZIP_DEFLATED)

    def lie(data: bytearray, local: int, central: int) -> None:
        for place in (local + 22, central + 24):
            struct.pack_into("<I", data, place, struct.unpack_from("<I", data, place)[0] + by)

    patched(path, lie, "model.weights.h5")
    refused(path, r"announces|cannot be read")


def test_a_configuration_whose_bytes_were_changed_is_refused(sound: Path) -> None:
    """The archive's own checksum says so."""
    data = sound.read_bytes()
    sound.write_bytes(data.replace(b'"units": 5', b'"units": 7', 1))
    refused(sound, "'config.json' cannot be read: Bad CRC-32")


@pytest.mark.parametrize("keep", [4, 30, 100, 0.5, 0.9, -1])
def test_an_archive_that_was_cut_off_is_refused(sound: Path, keep: float) -> None:
    data = sound.read_bytes()
    sound.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    refused(sound, "Was it cut off on the way?")
    assert keras_archive.matches(sound) == (keep not in (4, 30))  # no name of a member is left


def test_an_archive_without_its_parts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    refused(archive(path, config__json=None), "no config.json in it", UnknownFormatError)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps(CONFIG))
    refused(path, "expected the weights in one of model.weights.h5, .*, found none")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("model.weights.npz", b"")
    refused(path, "model.weights.npz: expected a sound HDF5 file")
    refused(archive(path, metadata__json=b"["), "metadata.json: expected JSON")
    refused(archive(path, metadata__json=b"[]"), "expected an object")
    refused(archive(path, config__json=b"{"), "m.keras/config.json: expected a configuration")
    check_sound(archive(path, metadata__json=b'{"keras_version": "3.15.1", "x": 1}'))


def test_the_hdf5_inside_is_guarded_too(tmp_path: Path) -> None:
    import h5py

    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        file["layers/dense/vars/0"] = KERNEL
        file["layers/dense/vars/1"] = h5py.ExternalLink("/etc/passwd", "x")
    path = archive(tmp_path / "m.keras")
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("config.json", json.dumps(CONFIG))
        target.writestr("model.weights.h5", data.getvalue())
    refused(path, r"m.keras/model.weights.h5: /layers/dense/vars/1: a link to another file")


def test_other_archives_are_no_models(tmp_path: Path) -> None:
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", b"hello")
    assert not keras_archive.matches(path)
    refused(path, "no config.json", UnknownFormatError)
    assert keras_archive.matches(archive(path))
    refused(tmp_path / "missing.keras", "No such file", UsageError)
