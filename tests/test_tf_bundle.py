"""Checkpoints are read as TensorFlow reads them: the same names, the same bytes, or an error."""

import contextlib
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tf_tables
from kerasport.errors import MalformedError, UnsupportedError, UsageError
from kerasport.readers import mapped, tf_bundle, tf_crc
from kerasport.readers.tf_crc import crc32c, masked
from kerasport.readers.tf_proto import Field, decode
from tf_tables import numbers, rewrite, save, table, varint

DTYPES = (
    *("float32", "float64", "float16", "bfloat16", "float8_e5m2", "float8_e4m3fn"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"),
    *("complex64", "complex128"),
)


def bundle_of(prefix: Path) -> tf_bundle.Bundle:
    return tf_bundle.bundle(prefix.with_name(f"{prefix.name}.index"))


def assert_as_tensorflow_reads(prefix: Path) -> tf_bundle.Bundle:
    """Every name and every value equals what TensorFlow's own reader gives."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(prefix))
    bundle = bundle_of(prefix)
    shapes = reader.get_variable_to_shape_map()
    assert set(bundle.entries) == set(shapes)
    for name, entry in bundle.entries.items():
        if entry.kind in ("resource", "variant"):
            continue
        expected = np.asarray(reader.get_tensor(name))
        found = entry.load()
        assert entry.shape == tuple(shapes[name]) == found.shape, name
        if entry.kind == "string":
            assert found.tolist() == expected.tolist(), name
        else:
            assert found.dtype == entry.dtype == expected.dtype, name
            np.testing.assert_array_equal(found, expected, err_msg=name)
    return bundle


# ---- the checksum


@pytest.mark.parametrize(
    ("data", "expected"),
    [  # RFC 3720, B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"", 0),
    ],
)
def test_the_checksum_is_that_of_the_standard(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


@pytest.mark.parametrize("size", [2047, 2049, 4 * 5685 - 1, 8 * 5685 + 3, 600_007, 1_100_002])
def test_folding_gives_the_checksum_that_single_bytes_give(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    assert crc32c(data) == tf_crc._bytewise(0xFFFFFFFF, data) ^ 0xFFFFFFFF


def test_the_four_terms_are_a_multiple_of_the_polynomial() -> None:
    """Folding rests on this alone: the four powers of x leave no remainder together."""

    def power(words: int) -> int:
        register = 1 << 31  # x to the power of 0
        for _ in range(32 * words):
            register = (register >> 1) ^ (tf_crc.POLYNOMIAL if register & 1 else 0)
        return register

    last = tf_crc.SHIFTS[-1]
    terms = [last, *(last - shift for shift in tf_crc.SHIFTS)]
    remainder = 0
    for term in terms:
        remainder ^= power(term)
    assert remainder == 0
    assert power(terms[0]) ^ power(terms[1] + 1) ^ power(terms[2]) ^ power(terms[3]) != 0


def test_the_other_checksum_is_another_one() -> None:
    assert crc32c(b"123456789") != zlib.crc32(b"123456789")


# ---- values


def test_all_dtypes_are_read_as_tensorflow_reads_them(tmp_path: Path) -> None:
    tensors = {f"a/{dtype}": numbers((2, 3, 5), dtype) for dtype in DTYPES}
    bundle = assert_as_tensorflow_reads(save(tmp_path / "c", tensors))
    assert len(bundle.entries) == len(DTYPES)


def test_scalars_empty_and_unaligned_tensors_are_read(tmp_path: Path) -> None:
    """Files have no gaps, so after a single bool every float stands at an odd offset."""
    tensors = {
        "a_flag": np.bool_(True),
        "b_table": numbers((7, 11)),
        "c_none": numbers((0, 5)),
        "d_step": np.int64(13),
        "e_last": numbers((3,), "bfloat16"),
    }
    bundle = assert_as_tensorflow_reads(save(tmp_path / "c", tensors))
    assert bundle.entries["c_none"].load().shape == (0, 5)


def test_a_checkpoint_of_nothing_but_empty_tensors_is_read(tmp_path: Path) -> None:
    prefix = save(tmp_path / "c", {"none": numbers((0, 3))})
    assert (tmp_path / "c.data-00000-of-00001").stat().st_size == 0
    assert_as_tensorflow_reads(prefix)


def test_texts_are_read(tmp_path: Path) -> None:
    words = np.array([[b"", b"a", b"\xff\x00b"], [b"c" * 300, b"d", "é".encode()]], object)
    bundle = assert_as_tensorflow_reads(save(tmp_path / "c", {"words": words, "x": np.float32(1)}))
    entry = bundle.entries["words"]
    assert not entry.is_number
    assert entry.why_not == "text, not numbers"
    assert bundle.text("words_that_are_not_there") is None


def test_many_names_take_several_blocks(tmp_path: Path) -> None:
    """Prefixes are shared and started anew, and blocks follow one another."""
    tensors = {f"layer_{n:05d}/{'x' * (n % 97)}/kernel": np.float32(n) for n in range(8000)}
    prefix = save(tmp_path / "c", tensors)
    assert Path(f"{prefix}.index").stat().st_size > 1 << 18
    assert len(assert_as_tensorflow_reads(prefix).entries) == 8000


def test_several_data_files_are_one_checkpoint(tmp_path: Path) -> None:
    import tensorflow as tf

    parts = [
        save(tmp_path / f"part{n}" / "c", {f"v{n}": numbers((5, 7), seed=n), f"w{n}": np.int32(n)})
        for n in range(3)
    ]
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(part) for part in parts],
        destination_prefix=str(tmp_path / "all"),
        delete_old_dirs=False,
    )
    bundle = assert_as_tensorflow_reads(tmp_path / "all")
    assert len(bundle.regions) == 1 + 3
    files = [tmp_path / "all.index", *sorted(tmp_path.glob("all.data-*"))]
    whole = b"".join(path.read_bytes() for path in files)
    assert b"".join(map(bytes, bundle.content())) == whole
    assert bundle.nbytes == len(whole)


@pytest.mark.parametrize(
    ("shape", "cuts"),
    [
        ((7, 5), ["0,3:0,5", "3,4:0,5"]),
        ((7, 5), ["0,7:0,2", "0,7:2,2", "0,7:4,1"]),
        ((3, 200, 5), ["0,3:0,64:0,5", "0,3:64,64:0,5", "0,3:128,72:0,5"]),
        ((40_000,), ["0,10000", "10000,20000", "30000,10000"]),
        ((7, 5), ["0,3:0,2", "0,3:2,3", "3,4:0,2", "3,4:2,3"]),
    ],
)
def test_partitioned_tensors_are_put_together(
    tmp_path: Path, shape: tuple[int, ...], cuts: list[str]
) -> None:
    whole = numbers(shape)
    tensors: dict[str, Any] = {"other": np.float32(2)}
    slices = {}
    for number, cut in enumerate(cuts):
        box = tuple(
            slice(int(start), int(start) + int(size))
            for start, size in (axis.split(",") for axis in cut.split(":"))
        )
        tensors[f"table#{number}"] = whole[box]
        slices[f"table#{number}"] = f"{' '.join(map(str, shape))} {cut}"
    bundle = assert_as_tensorflow_reads(save(tmp_path / "c", tensors, slices))
    np.testing.assert_array_equal(bundle.entries["table"].load(), whole)
    assert len(bundle.entries["table"].crc) == len(cuts)


# ---- laziness


def test_opening_reads_no_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of a gigabyte that is not there: whoever reads it, finds a wrong checksum."""
    prefix = save(tmp_path / "c", {"big": np.float32(0), "small": numbers((3,))})
    data = tmp_path / "c.data-00000-of-00001"
    with data.open("r+b") as file:
        file.truncate(1 << 28)

    def grow(entry: Any) -> None:
        entry.shape.dim.add(size=1 << 26)
        entry.offset, entry.size = 0, 1 << 28

    rewrite(tmp_path / "c.index", "big", grow)
    read: list[int] = []
    array = mapped.Region.array

    def counted(region: mapped.Region, offset: int, **kind: Any) -> Any:
        read.append(kind["count"])
        return array(region, offset, **kind)

    monkeypatch.setattr(mapped.Region, "array", counted)
    bundle = bundle_of(prefix)
    assert [e.shape for e in bundle.entries.values()] == [(1 << 26,), (3,)]
    assert read == []
    bundle.entries["small"].load()
    assert read != []
    with pytest.raises(MalformedError, match="checksum"):
        bundle.entries["big"].load()


def test_values_are_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = bundle_of(save(tmp_path / "c", {"v": numbers((5,))})).entries["v"]
    checks: list[Any] = []

    def counted(data: Any) -> int:
        checks.append(data)
        return crc32c(data)

    monkeypatch.setattr(tf_bundle, "crc32c", counted)
    entry.load(), entry.load()
    assert len(checks) == 1


def test_values_are_views_of_the_file(tmp_path: Path) -> None:
    entry = bundle_of(save(tmp_path / "c", {"v": numbers((3, 5))})).entries["v"]
    values = entry.load()
    assert not values.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        values[0, 0] = 1


# ---- hostile and broken files


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    tensors = {"a": numbers((3, 5)), "words": np.array([b"one", b"three"], object)}
    whole = numbers((7, 2))
    tensors |= {"t#0": whole[:3], "t#1": whole[3:]}
    return save(tmp_path / "c", tensors, {"t#0": "7 2 0,3:0,2", "t#1": "7 2 3,4:0,2"})


def read_all(prefix: Path) -> None:
    for entry in bundle_of(prefix).entries.values():
        entry.load()


def test_the_checkpoint_to_be_broken_is_whole(prefix: Path) -> None:
    """The twin of all tests below: untouched, and through the hand-written table, it is read."""
    read_all(prefix)
    rewrite(Path(f"{prefix}.index"), "a", lambda entry: None)
    assert_as_tensorflow_reads(prefix)


def _absurd(entry: Any) -> None:
    for _ in range(3):
        entry.shape.dim.add(size=1 << 40)


ENTRY_FAULTS: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "offset": ("a", lambda e: setattr(e, "offset", 1 << 40), "outside of the data file"),
    "negative offset": ("a", lambda e: setattr(e, "offset", -8), "outside of the data file"),
    "size": ("a", lambda e: setattr(e, "size", 1 << 50), "outside of the data file"),
    "size and shape": ("a", lambda e: setattr(e, "size", 56), "which takes 60"),
    "shape": ("a", _absurd, "a shape of absurd size"),
    "negative shape": ("a", lambda e: e.shape.dim.add(size=-3), "expected a known shape"),
    "unknown shape": (
        "a",
        lambda e: setattr(e.shape, "unknown_rank", True),
        "expected a known shape",
    ),
    "shard": ("a", lambda e: setattr(e, "shard_id", 7), "is in data file 7, and there are 1"),
    "dtype": ("a", lambda e: setattr(e, "dtype", 99), "expected a dtype of TensorFlow"),
    "values": ("a", lambda e: setattr(e, "crc32c", 1), "the checksum of the values"),
    "texts": ("words", lambda e: setattr(e, "crc32c", 1), "the checksum of the texts"),
    "text lengths": ("words", lambda e: setattr(e, "offset", 0), "the lengths of the texts"),
    "more texts": ("words", lambda e: e.shape.dim.add(size=100), "cannot be 200 texts"),
    "missing slice": (
        "t",
        lambda e: setattr(e.slices[1].extent[0], "start", 2),
        "does not make up|do not make up|does not hold it",
    ),
    "slice outside": (
        "t",
        lambda e: setattr(e.slices[1].extent[0], "length", 1 << 40),
        "a slice from 3 to",
    ),
    "gap": ("t", lambda e: e.slices.pop(), "do not make up"),
    "slice of other rank": ("t", lambda e: e.slices[0].extent.pop(), "a slice with 1 axes"),
}


@pytest.mark.parametrize("fault", ENTRY_FAULTS)
def test_an_entry_that_lies_is_refused(prefix: Path, fault: str) -> None:
    name, change, message = ENTRY_FAULTS[fault]
    rewrite(Path(f"{prefix}.index"), name, change)
    with pytest.raises(MalformedError, match=message):
        read_all(prefix)


HEADER_FAULTS: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "no data files": (lambda h: setattr(h, "num_shards", 0), MalformedError, "announces 0"),
    "too many": (lambda h: setattr(h, "num_shards", 1 << 30), MalformedError, "announces"),
    "newer": (
        lambda h: setattr(h.version, "min_consumer", 5),
        UnsupportedError,
        "found one for version 5",
    ),
    "big-endian": (lambda h: setattr(h, "endianness", 1), UnsupportedError, "big-endian"),
    "missing data": (lambda h: setattr(h, "num_shards", 2), UsageError, "expected the data file"),
}


@pytest.mark.parametrize("fault", HEADER_FAULTS)
def test_a_header_that_cannot_be_followed_is_refused(prefix: Path, fault: str) -> None:
    change, error, message = HEADER_FAULTS[fault]
    rewrite(Path(f"{prefix}.index"), "", change)
    with pytest.raises(error, match=message):
        read_all(prefix)


def test_a_truncated_index_is_refused_at_every_length(prefix: Path) -> None:
    index = Path(f"{prefix}.index")
    whole = index.read_bytes()
    for size in range(1, len(whole), 7):
        index.write_bytes(whole[:size])
        with pytest.raises(MalformedError, match="truncated"):
            bundle_of(prefix)


def test_a_flipped_bit_anywhere_in_the_index_is_an_error_and_never_another_value(
    prefix: Path,
) -> None:
    index = Path(f"{prefix}.index")
    whole = index.read_bytes()
    expected = {n: e.load().tolist() for n, e in bundle_of(prefix).entries.items()}
    refused = 0
    for at in range(len(whole)):
        index.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            found = {n: e.load().tolist() for n, e in bundle_of(prefix).entries.items()}
        except (MalformedError, UnsupportedError):
            refused += 1
        else:
            assert found == expected, at  # padding of the footer
    assert refused > len(whole) * 0.8


def test_a_truncated_data_file_is_refused(prefix: Path) -> None:
    data = Path(f"{prefix}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(MalformedError, match="outside of the data file"):
        bundle_of(prefix)


def test_a_changed_value_is_refused(prefix: Path) -> None:
    data = Path(f"{prefix}.data-00000-of-00001")
    whole = bytearray(data.read_bytes())
    whole[0] ^= 1
    data.write_bytes(whole)
    with pytest.raises(MalformedError, match="the checksum of the values"):
        read_all(prefix)


HEADER = (b"", b"\x08\x01")

TABLE_FAULTS: dict[str, tuple[bytes, type[Exception], str]] = {
    "snappy": (table([HEADER], kind=1), UnsupportedError, "compressed .snappy."),
    "other compression": (table([HEADER], kind=7), UnsupportedError, "method 7"),
    "block outside": (table([HEADER], handle=(1 << 40, 9)), MalformedError, "outside of the file"),
    "huge block": (table([HEADER], handle=(0, 1 << 62)), MalformedError, "outside of the file"),
    "order": (
        table([(b"b", b""), (b"a", b"")]),
        MalformedError,
        "the keys are not in order",
    ),
    "shared": (
        table([(b"a", b""), (b"abc", b"")], shared=[0, 2]),
        MalformedError,
        "an entry that overruns it",
    ),
    "no header": (table([(b"a", b"")]), MalformedError, "expected the header"),
    "no message": (table([(b"", b"\x0a\xff")]), MalformedError, "in the middle of a number"),
}


@pytest.mark.parametrize("fault", TABLE_FAULTS)
def test_a_broken_table_is_refused(tmp_path: Path, fault: str) -> None:
    data, error, message = TABLE_FAULTS[fault]
    (tmp_path / "c.index").write_bytes(data)
    with pytest.raises(error, match=message):
        bundle_of(tmp_path / "c")


def test_the_hand_written_table_is_whole_where_nothing_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "c.index").write_bytes(table([HEADER]))
    assert bundle_of(tmp_path / "c").entries == {}


def test_keys_that_would_fill_memory_are_refused(tmp_path: Path) -> None:
    """Each entry costs the file six bytes and the reader ten million."""
    size = 10_000_000
    long = b"k" * size
    more = [(long + bytes([n]), b"") for n in range(1, 40)]
    data = table([HEADER, (long, b""), *more], shared=[0, 0, *[size] * len(more)])
    (tmp_path / "c.index").write_bytes(data)
    with pytest.raises(MalformedError, match="the keys take more than 256 MiB"):
        bundle_of(tmp_path / "c")


def test_an_index_whose_restarts_are_longer_than_the_block_is_refused(tmp_path: Path) -> None:
    data = struct.pack("<I", 1 << 20)
    out = tf_tables.sealed(data)
    index = tf_tables.block([(b"", varint(0) + varint(len(data)))])
    whole = out + tf_tables.sealed(index)
    footer = varint(0) + varint(0) + varint(len(out)) + varint(len(index))
    (tmp_path / "c.index").write_bytes(
        whole + footer.ljust(40, b"\0") + struct.pack("<Q", tf_tables.MAGIC)
    )
    with pytest.raises(MalformedError, match="announces 1048576 restarts"):
        bundle_of(tmp_path / "c")


# ---- messages

NESTED: dict[int, Field] = {2: Field("count", "int"), 3: Field("name", "text")}
NESTED[1] = Field("inner", NESTED)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x10" + b"\xff" * 10 + b"\x01", "a number of more than 64 bits"),
        (b"\x10\x80", "ends in the middle of a number"),
        (b"\x1a\x7fab", "a field of 127 bytes where 2 are left"),
        (b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "bytes where 0 are left"),
        (b"\x13", "wire type 3"),
        (b"\x02\x00", "a field with the number 0"),
        (b"\x18\x00", "the field 'name' has wire type 0"),
        (b"\x12\x01a", "the field 'count' has wire type 2"),
        (b"\x0a\x02\x0a\x05", "a field of 5 bytes where 0 are left"),
    ],
)
def test_a_broken_message_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        decode(data, NESTED, where="test")


def test_messages_do_not_nest_forever() -> None:
    def nested(times: int) -> bytes:
        data = b""
        for _ in range(times):
            data = b"\x0a" + varint(len(data)) + data
        return data

    decode(nested(100), NESTED, where="test")
    with pytest.raises(MalformedError, match="more than 100 messages"):
        decode(nested(101), NESTED, where="test")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        decode(data, NESTED, where="test")


def test_negative_and_packed_numbers_are_read_as_protobuf_writes_them() -> None:
    from tensorflow.core.framework import tensor_pb2

    from kerasport.readers.tf_messages import TENSOR

    message = tensor_pb2.TensorProto(int_val=[-1, 300, 0], int64_val=[-(1 << 63)])
    found = decode(message.SerializeToString(), TENSOR, where="test")
    assert found["int_val"] == [-1, 300, 0]
    assert found["int64_val"] == [-(1 << 63)]
    assert masked(crc32c(b"")) == 0xA282EAD8
