"""HDF5 files that strangers made: each trap is refused, and the same file without it is read."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasport.errors import (
    KerasportError,
    MalformedError,
    UnknownFormatError,
    UnsupportedError,
    UsageError,
)
from kerasport.model import Snapshot
from kerasport.readers import hdf5, keras_legacy, keras_weights, mapped

KERNEL = np.arange(15, dtype=np.float32).reshape(3, 5)
BIAS = np.arange(5, dtype=np.float32)
Plant = Callable[[Any], None]


def write(path: Path, plant: Plant | None = None) -> Path:
    """A small sound file of weights, and whatever is planted into it."""
    import h5py

    with h5py.File(path, "w") as file:
        group = file.create_group("layers/dense/vars")
        group["0"], group["1"] = KERNEL, BIAS
        if plant is not None:
            plant(file)
    return path


def check_sound(snapshot: Snapshot) -> None:
    np.testing.assert_array_equal(snapshot["dense"].weights["0"].numpy(), KERNEL)
    np.testing.assert_array_equal(snapshot["dense"].weights["1"].numpy(), BIAS)


def values(file: Any) -> Any:
    return file["layers/dense/vars"]


def soft_link(file: Any) -> None:
    import h5py

    values(file)["2"] = h5py.SoftLink("/layers/dense/vars/0")


def external_link(file: Any) -> None:
    import h5py

    values(file)["2"] = h5py.ExternalLink("/etc/passwd", "/x")


def external_group(file: Any) -> None:
    import h5py

    file["layers/dense_1"] = h5py.ExternalLink("other.h5", "/layers/dense")


def external_values(file: Any) -> None:
    values(file).create_dataset("2", (3,), "u1", external=[("/etc/hostname", 0, 3)])


def virtual_values(file: Any) -> None:
    import h5py

    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
    values(file).create_virtual_dataset("2", layout)


def circle(file: Any) -> None:
    file["layers/dense/again"] = file["layers"]


def circle_at_the_root(file: Any) -> None:
    file["layers/dense/root"] = file["/"]


def group_of_two_names(file: Any) -> None:
    file["layers/dense_1"] = file["layers/dense"]


def bomb(file: Any) -> None:
    values(file).create_dataset("2", (1 << 17, 1 << 17), "f4", chunks=(1 << 10, 1 << 10))


def compressed_bomb(file: Any) -> None:
    values(file).create_dataset(
        "2", (1 << 40,), "f4", chunks=(1 << 12,), compression="gzip", fillvalue=7
    )[:5] = 1


def huge_chunk(file: Any) -> None:
    values(file).create_dataset("2", (3,), "f4", maxshape=(None,), chunks=(1 << 28,))


def never_written(file: Any) -> None:
    values(file).create_dataset("2", (1 << 40,), "f4")


def overflowing_shape(file: Any) -> None:
    values(file).create_dataset("2", (1 << 31, 1 << 31, 1 << 31), "f8", chunks=(1, 1, 1))


def no_shape(file: Any) -> None:
    import h5py

    values(file)["2"] = h5py.Empty("f4")


def texts(file: Any) -> None:
    values(file)["2"] = ["a", "b"]


def fixed_texts(file: Any) -> None:
    values(file)["2"] = np.array([b"abc"])


def compound(file: Any) -> None:
    values(file)["2"] = np.zeros(3, [("a", "f4"), ("b", "i4")])


def references(file: Any) -> None:
    import h5py

    values(file).create_dataset("2", (1,), h5py.ref_dtype)[0] = file.ref


def ragged(file: Any) -> None:
    import h5py

    values(file).create_dataset("2", (2,), h5py.vlen_dtype("f4"))[0] = [1, 2]


def deep(file: Any) -> None:
    group = file["layers/dense"]
    for _ in range(hdf5.MAX_DEPTH + 1):
        group = group.create_group("g")


def name_that_is_no_text(file: Any) -> None:
    from h5py import h5g

    h5g.create(file.id, b"\xff\xfe")


def large_text(file: Any) -> None:
    file.attrs.create("model_config", np.zeros((), "S60000"))
    file.attrs.create("layer_names", np.zeros((2, 2), "S5"))


MALFORMED: dict[Plant, str] = {
    soft_link: r"/layers/dense/vars/2: a soft link",
    external_link: r"/layers/dense/vars/2: a link to another file",
    external_group: r"/layers/dense_1: a link to another file",
    external_values: r"/layers/dense/vars/2: a dataset whose values lie in another file",
    virtual_values: r"/layers/dense/vars/2: a virtual dataset",
    circle: r"/layers/dense/again: the same group as layers",
    circle_at_the_root: r"/layers/dense/root: the same group as /",
    group_of_two_names: r"/layers/dense_1: the same group as layers/dense",
    bomb: r"/layers/dense/vars/2: announces 68719476736 bytes and stores 0",
    compressed_bomb: r"/layers/dense/vars/2: announces 4398046511104 bytes and stores",
    huge_chunk: r"/layers/dense/vars/2: announces 1073741824 bytes and stores 0",
    never_written: r"/layers/dense/vars/2: announces 4398046511104 bytes and stores none",
    overflowing_shape: r"/layers/dense/vars/2: announces f64\[.*\], more than any file holds",
    no_shape: r"/layers/dense/vars/2: a dataset without a shape",
    texts: r"/layers/dense/vars/2: expected numbers, found values of type object",
    fixed_texts: r"/layers/dense/vars/2: expected numbers",
    compound: r"/layers/dense/vars/2: expected numbers",
    references: r"/layers/dense/vars/2: expected numbers",
    ragged: r"/layers/dense/vars/2: expected numbers",
    deep: r"nested deeper than 256 groups",
    name_that_is_no_text: r"a name that is not UTF-8",
    large_text: r"@layer_names: expected a text or a list of texts, found 2 axes",
}


@pytest.mark.parametrize("plant", MALFORMED, ids=lambda plant: plant.__name__)
def test_a_planted_trap_is_refused(tmp_path: Path, plant: Plant) -> None:
    """With the place, in an error of the right class, and without reading a value."""
    check_sound(keras_weights.read(write(tmp_path / "sound.h5")))
    path = write(tmp_path / "planted.h5", plant)
    with pytest.raises(MalformedError, match=MALFORMED[plant]) as error:
        keras_weights.read(path)
    assert str(error.value).startswith("planted.h5: ")
    assert error.value.exit_code == 4


def small_chunks(file: Any) -> None:
    values(file).create_dataset("2", data=np.zeros(1 << 20, "f4"), chunks=(1 << 10,), compression=9)


def deep_enough(file: Any) -> None:
    file.create_group("layers/dense/" + "/".join("g" * (hdf5.MAX_DEPTH - 10)))


def dataset_of_two_names(file: Any) -> None:
    values(file)["2"] = values(file)["1"]


def nothing_in_it(file: Any) -> None:
    values(file)["2"] = np.zeros((0, 5), "f4")


def other_attributes(file: Any) -> None:
    file.attrs["anything"] = np.zeros((3, 5))
    file.attrs["model_config"] = "x" * 60000


@pytest.mark.parametrize(
    "plant",
    [small_chunks, deep_enough, dataset_of_two_names, nothing_in_it, other_attributes],
    ids=lambda plant: plant.__name__,
)
def test_what_only_looks_like_a_trap_is_read(tmp_path: Path, plant: Plant) -> None:
    """Zeros compress a thousandfold, and that is no bomb."""
    check_sound(keras_weights.read(write(tmp_path / "file.h5", plant)))


def test_a_dataset_of_two_names_is_listed_once_and_as_shared(tmp_path: Path) -> None:
    snapshot = keras_weights.read(write(tmp_path / "file.h5", dataset_of_two_names))
    assert list(snapshot["dense"].weights) == ["0", "1"]
    ((omission,),) = (snapshot.omitted,)
    assert omission.reason == "shared with layers/dense/vars/1"
    np.testing.assert_array_equal(omission.tensor.numpy(), BIAS)


def test_overlapping_datasets_are_refused(tmp_path: Path) -> None:
    """A thousand datasets over the same bytes would write a thousand times what is stored."""
    import h5py

    count, size = 9, 1 << 17
    value = np.arange(size // 4, dtype="f4")
    for name, written in (("sound.h5", count), ("planted.h5", 1)):
        with h5py.File(tmp_path / name, "w") as file:
            group = file.create_group("layers/dense/vars")
            for n in range(count):
                dataset = group.create_dataset(str(n), value.shape, "f4")
                if n < written:
                    dataset[:] = value
            offset = group["0"].id.get_offset()
    assert len(keras_weights.read(tmp_path / "sound.h5")["dense"].weights) == count
    # The layout message of a dataset that has no room yet: version, class, address, size.
    nowhere = b"\x03\x01" + b"\xff" * 8 + size.to_bytes(8, "little")
    there = b"\x03\x01" + offset.to_bytes(8, "little") + size.to_bytes(8, "little")
    path = tmp_path / "planted.h5"
    data = path.read_bytes()
    assert data.count(nowhere) == count - 1
    path.write_bytes(data.replace(nowhere, there))
    with pytest.raises(MalformedError, match="the datasets overlap"):
        keras_weights.read(path)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 95, 96, 500, 2000, 0.5, 0.9, -1])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, keep: float) -> None:
    path = write(tmp_path / "file.h5")
    data = path.read_bytes()
    size = int(keep * len(data)) if isinstance(keep, float) else keep
    path.write_bytes(data[:size])
    for reader in (keras_weights, keras_legacy):
        with pytest.raises((MalformedError, UnknownFormatError)) as error:
            reader.read(path)
        if size > 8 or size < 0:
            assert "Was it cut off on the way?" in str(error.value)


def test_a_value_that_lies_beyond_the_end_is_refused(tmp_path: Path) -> None:
    """By the HDF5 library or, where an older one trusts the file, by us."""
    import h5py

    path = write(tmp_path / "file.h5")
    with h5py.File(path) as file:
        offset = file["layers/dense/vars/0"].id.get_offset()
    data = path.read_bytes()
    needle = offset.to_bytes(8, "little")
    assert data.count(needle) == 1
    path.write_bytes(data.replace(needle, (len(data) - 8).to_bytes(8, "little")))
    with pytest.raises(MalformedError, match=r"invalid dataset size|60 bytes, and stores 8"):
        keras_weights.read(path)


def test_a_collection_of_texts_that_never_ends_is_refused(tmp_path: Path) -> None:
    """The HDF5 library itself would go round in it for ever."""

    def plant(file: Any) -> None:
        file.attrs["keras_version"] = "2.15.0"  # of any length, so it lies in a collection
        other_attributes(file)

    path = write(tmp_path / "file.h5", plant)
    data = bytearray(path.read_bytes())
    start = data.index(b"GCOL")
    for blank in range(start + 16, start + 4096, 96):
        broken = data.copy()
        broken[blank : blank + 16] = bytes(16)
        path.write_bytes(broken)
        with contextlib.suppress(KerasportError):
            keras_weights.read(path)
    broken = data.copy()
    broken[start + 16 : start + 32] = bytes(16)
    path.write_bytes(broken)
    with pytest.raises(MalformedError, match="bad global heap collection"):
        keras_weights.read(path)


def test_random_damage_is_an_error_or_nothing(tmp_path: Path) -> None:
    """Never a crash, never an error that is not ours; the HDF5 library itself is in between."""
    rng = np.random.default_rng(5)
    sound = write(tmp_path / "file.h5", other_attributes).read_bytes()
    refused = 0
    for _ in range(300):
        data = bytearray(sound)
        for place in rng.integers(0, len(data), size=rng.integers(1, 9)):
            data[place] = rng.integers(256)
        (tmp_path / "bad.h5").write_bytes(data)
        try:
            for tensor in keras_weights.read(tmp_path / "bad.h5").tensors:
                tensor.numpy()
        except KerasportError:
            refused += 1
    assert 0 < refused < 300


def test_a_refusal_takes_no_memory(tmp_path: Path) -> None:
    """A bomb of a terabyte is refused by a process that may take three hundred megabytes."""
    path = write(tmp_path / "bomb.h5", compressed_bomb)
    code = (
        "import sys; from pathlib import Path; from kerasport.readers import keras_weights as k\n"
        "try: k.read(Path(sys.argv[1]))\n"
        "except Exception as e: print(type(e).__name__)"
    )
    convert = str(Path(__file__).parent.parent / "convert")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))

    run = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "PYTHONPATH": convert, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )
    assert run.stdout.strip() == "MalformedError", run.stderr[-2000:]


# ---- containers of values ------------------------------------------------------------------------


def read_one(path: Path, **options: Any) -> Any:
    return keras_weights.read(path, **options)["dense"].weights["2"]


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (2, 3)},
        {"chunks": (2, 3), "compression": "gzip"},
        {"chunks": (2, 3), "compression": "lzf", "shuffle": True},
        {"chunks": (2, 3), "fletcher32": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", ">f8", "<i8", ">i4", "u1", "?", "<c8"])
def test_chunked_and_compressed_values_are_read(
    tmp_path: Path, dtype: str, options: dict[str, Any]
) -> None:
    value = (
        np.arange(35).reshape(5, 7) % 2 if dtype == "?" else np.arange(35).reshape(5, 7)
    ).astype(dtype)

    def plant(file: Any) -> None:
        values(file).create_dataset("2", data=value, **options)

    tensor = read_one(write(tmp_path / "file.h5", plant))
    assert tensor.dtype.isnative
    assert tensor.dtype == value.dtype.newbyteorder("=")
    np.testing.assert_array_equal(tensor.numpy(), value)


@pytest.mark.parametrize("dtype", [">f4", ">f2", ">f8", ">i8", "?", "u1", "<c16"[:2] + "8"])
def test_big_endian_and_other_numbers_are_read(tmp_path: Path, dtype: str) -> None:
    value = (np.arange(35) % 2).astype(dtype).reshape(5, 7)
    tensor = read_one(
        write(tmp_path / "file.h5", lambda f: values(f).create_dataset("2", data=value))
    )
    assert tensor.dtype.isnative
    np.testing.assert_array_equal(tensor.numpy(), value)


def test_values_in_the_header_are_read(tmp_path: Path) -> None:
    from h5py import h5d, h5p, h5s, h5t

    def plant(file: Any) -> None:
        made = h5p.create(h5p.DATASET_CREATE)
        made.set_layout(h5d.COMPACT)
        space = h5s.create_simple((5,))
        dataset = h5d.create(values(file).id, b"2", h5t.IEEE_F32LE, space, made)
        dataset.write(h5s.ALL, h5s.ALL, BIAS)

    np.testing.assert_array_equal(read_one(write(tmp_path / "f.h5", plant)).numpy(), BIAS)


def test_large_compressed_values_take_no_memory_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a size they go to a temporary file, which the system can write back and drop."""
    monkeypatch.setattr(mapped, "SPILL", 100)
    value = np.random.default_rng(1).normal(size=(11, 13)).astype("f4")

    def plant(file: Any) -> None:
        values(file).create_dataset("2", data=value, compression="gzip")

    array = read_one(write(tmp_path / "file.h5", plant)).numpy()
    np.testing.assert_array_equal(array, value)
    bases = []
    while array is not None:
        bases.append(type(array).__name__)
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    assert "mmap" in bases


def test_a_user_block_before_the_file_moves_nothing(tmp_path: Path) -> None:
    """Offsets in HDF5 may count from behind a block of a user's own."""
    import h5py

    with h5py.File(tmp_path / "file.h5", "w", userblock_size=512) as file:
        file["layers/dense/vars/0"] = KERNEL
    region = mapped.mapped(tmp_path / "file.h5")
    (tensor,) = hdf5.tree(region, where="file.h5").all()
    np.testing.assert_array_equal(tensor.numpy(), KERNEL)


def test_the_newest_layout_of_hdf5_is_read(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "file.h5", "w", libver="latest", track_order=True) as file:
        for n in (2, 10, 1):
            group = file.create_group(f"layers/z_{n}/vars", track_order=True)
            group["0"] = KERNEL
    snapshot = keras_weights.read(tmp_path / "file.h5")
    assert list(snapshot) == ["z_2", "z_10", "z_1"]  # the order of making, where it is kept


def test_values_of_unknown_meaning_are_asked_about(tmp_path: Path) -> None:
    import ml_dtypes

    half = BIAS.astype(ml_dtypes.bfloat16)
    eighth = BIAS.astype(ml_dtypes.float8_e4m3fn)

    def plant(value: Any, **attributes: str) -> Plant:
        def into(file: Any) -> None:
            dataset = values(file).create_dataset("2", data=value.view(f"V{value.dtype.itemsize}"))
            dataset.attrs.update(attributes)

        return into

    marked = write(tmp_path / "marked.h5", plant(half, dtype="bfloat16"))
    np.testing.assert_array_equal(read_one(marked).numpy(), half)
    for value, hint in ((half, "bf16"), (eighth, "f8_e4m3fn")):
        path = write(tmp_path / "file.h5", plant(value))
        with pytest.raises(UnsupportedError, match=f"--assume-dtype {hint}") as error:
            keras_weights.read(path)
        assert error.value.exit_code == 5
        assert read_one(path, assume_dtype=value.dtype).dtype == value.dtype
        np.testing.assert_array_equal(read_one(path, assume_dtype=value.dtype).numpy(), value)
    with pytest.raises(UnsupportedError):  # the size does not fit what was assumed
        keras_weights.read(write(tmp_path / "f.h5", plant(half)), assume_dtype=eighth.dtype)


def test_numbers_of_odd_widths_are_refused(tmp_path: Path) -> None:
    from h5py import h5d, h5s, h5t

    def plant(file: Any) -> None:
        kind = h5t.STD_I32LE.copy()
        kind.set_precision(17)
        h5d.create(values(file).id, b"2", kind, h5s.create_simple((5,))).write(
            h5s.ALL, h5s.ALL, np.arange(5, dtype="i4")
        )

    with pytest.raises(UnsupportedError, match="numbers of 17 bits in 4 bytes"):
        keras_weights.read(write(tmp_path / "file.h5", plant))


# ---- files that are something else ---------------------------------------------------------------


@pytest.mark.parametrize("reader", [keras_weights, keras_legacy])
def test_what_is_not_there_or_no_file_is_a_wrong_call(tmp_path: Path, reader: Any) -> None:
    with pytest.raises(UsageError, match="No such file"):
        reader.read(tmp_path / "missing.h5")
    with pytest.raises(UsageError, match="found a folder"):
        reader.read(tmp_path)
    secret = write(tmp_path / "secret.h5")
    secret.chmod(0)
    if not os.access(secret, os.R_OK):
        with pytest.raises(UsageError, match="Permission denied"):
            reader.read(secret)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="no regular file"):
        reader.read(tmp_path / "pipe")
    (tmp_path / "empty.h5").touch()
    with pytest.raises(UnknownFormatError, match="empty file"):
        reader.read(tmp_path / "empty.h5")


def test_matching_never_raises(tmp_path: Path) -> None:
    from kerasport.readers import keras_archive

    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello")
    (tmp_path / "hdf").write_bytes(hdf5.SIGNATURE)
    (tmp_path / "zip").write_bytes(b"PK\x03\x04")
    write(tmp_path / "planted", soft_link)
    for reader in (keras_weights, keras_legacy, keras_archive):
        for name in ("missing", "empty", "text", "zip", "."):
            assert not reader.matches(tmp_path / name)
    assert keras_legacy.matches(tmp_path / "hdf")  # so that its reader says what is wrong
    assert keras_weights.matches(tmp_path / "planted")


def test_hdf5_without_weights_is_of_no_known_format(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["images"] = KERNEL
    for reader in (keras_weights, keras_legacy):
        assert not reader.matches(tmp_path / "data.h5")
        with pytest.raises(UnknownFormatError, match="HDF5 without any") as error:
            reader.read(tmp_path / "data.h5")
        assert error.value.exit_code == 3


# ---- legacy files --------------------------------------------------------------------------------


def legacy(path: Path, **change: Any) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        group = file.create_group("dense")
        group["dense/kernel:0"], group["dense/bias:0"] = KERNEL, BIAS
        group.attrs["weight_names"] = change.get("weights", [b"dense/kernel:0", b"dense/bias:0"])
        file.attrs["layer_names"] = change.get("layers", [b"dense"])
        if "config" in change:
            file.attrs["model_config"] = change["config"]
    return path


def test_lists_that_name_what_is_not_there_are_refused(tmp_path: Path) -> None:
    sound = keras_legacy.read(legacy(tmp_path / "sound.h5"))
    assert list(sound["dense"].weights) == ["kernel", "bias"]
    for change, reason in (
        ({"layers": [b"dense", b"gone"]}, "lists a layer 'gone'"),
        ({"weights": [b"dense/kernel:0", b"dense/gone:0"]}, "lists a weight 'dense/gone:0'"),
        ({"weights": [b"dense/kernel:0"] * 2}, "listed twice"),
        ({"layers": [b"dense", b"dense"]}, "listed twice"),
        ({"weights": [b"../dense/kernel:0"]}, "lists a weight"),
        ({"weights": [b"/etc/passwd"]}, "lists a weight"),
        ({"layers": [b"\xff"]}, "not UTF-8"),
        ({"config": b"{"}, "configuration in JSON"),
        ({"config": b'{"class_name": "Sequential", "class_name": "Model"}'}, "repeated"),
    ):
        path = legacy(tmp_path / "file.h5", **change)
        with pytest.raises(MalformedError, match=reason):
            keras_legacy.read(path)


def test_what_no_layer_lists_is_set_aside_with_a_reason(tmp_path: Path) -> None:
    import h5py

    path = legacy(tmp_path / "file.h5", weights=[b"dense/kernel:0"])
    with h5py.File(path, "a") as file:
        file["elsewhere/x"] = BIAS
    snapshot = keras_legacy.read(path)
    assert list(snapshot["dense"].weights) == ["kernel"]
    assert [(o.tensor.name, o.reason) for o in snapshot.omitted] == [
        ("dense/dense/bias:0", "no layer lists it"),
        ("elsewhere/x", "no layer lists it"),
    ]
