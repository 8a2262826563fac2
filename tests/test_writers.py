"""The laws that every writer and the reader of its format keep together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasport import manifest
from kerasport.errors import (
    KerasportError,
    MalformedError,
    UnsupportedError,
    UsageError,
    VerificationError,
)
from kerasport.model import StateDict, Tensor
from kerasport.readers import onnx as onnx_reader
from kerasport.readers import safetensors as safetensors_reader
from kerasport.writers import onnx, pytorch, safetensors, staging, table
from states import (
    FORMATS,
    assert_same,
    bits,
    every_dtype,
    made_by_slabs,
    random_bits,
    reader,
    small_model,
    target,
    writer,
)

every_format = pytest.mark.parametrize("name", FORMATS)
HERE = Path(__file__).parent


@every_format
def test_what_is_read_back_is_what_was_written(name: str, tmp_path: Path) -> None:
    """Every dtype, in every awkward shape, with NaN payloads, in model order."""
    state = every_dtype(without=FORMATS[name][1])
    writer(name)(state, target(name, tmp_path))
    assert_same(reader(name)(target(name, tmp_path)), state)


@pytest.mark.parametrize("left", range(9))
@pytest.mark.parametrize("right", [0, 1, 4, 7])
def test_bytes_are_compared_wherever_they_lie(left: int, right: int) -> None:
    """Source and target may begin at any two places; one byte that differs is seen."""
    values = np.random.default_rng(0).integers(256, size=1000, dtype=np.uint8)
    one, other = np.empty(1009, np.uint8), np.empty(1009, np.uint8)
    one[left : left + 1000] = other[right : right + 1000] = values
    assert staging._equal(one[left : left + 1000], other[right : right + 1000])
    assert not staging._equal(one[left : left + 1000], other[right : right + 999])
    for place in (0, 500, 999):
        other[right : right + 1000] = values
        other[right + place] ^= 1
        assert not staging._equal(one[left : left + 1000], other[right : right + 1000])


@pytest.mark.parametrize("name", ["arrow", "parquet"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_table_is_written_without_what_pyarrow_computes_with(
    name: str, masked: bool, tmp_path: Path
) -> None:
    """To load that takes as long as to write 200 MB; the twin is a list made with a mask."""
    script = (
        "import sys, numpy as np, pyarrow as pa\n"
        "from pathlib import Path\n"
        "from kerasport.model import StateDict, Tensor\n"
        f"from kerasport.writers import {name}\n"
        "tensors = {d: Tensor.of(d, np.ones(3, d)) for d in ('f2', 'f4', 'f8', 'i8')}\n"
        f"{name}.write(StateDict('torch', tensors), Path(sys.argv[1]))\n"
        f"if {masked}:\n"
        "    pa.ListArray.from_arrays(pa.array([0, 0]), pa.array([1.0]), mask=pa.array([True]))\n"
        "print('pyarrow.compute' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(target(name, tmp_path))],
        env={**os.environ, "PYTHONPATH": str(Path(staging.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(masked)]


def test_batches_of_a_table_are_what_arrow_calls_valid() -> None:
    """Their lists are made out of buffers, which nothing checks then."""
    layout = table.schema()
    made = list(table.batches(every_dtype(), table.Written(), layout=layout))
    assert made
    for batch in made:
        batch.validate(full=True)
    values = made[0].column("values")
    assert values.null_count == sum(v is None for v in values.to_pylist()) > 0


@every_format
def test_a_changed_value_is_seen_by_the_comparison(name: str, tmp_path: Path) -> None:
    """The twin of the round trip: it fails when one bit differs."""
    values = np.arange(6, dtype=np.float32)
    writer(name)(StateDict("torch", {"w": Tensor.of("w", values)}), target(name, tmp_path))
    other = values.copy()
    other.view(np.uint32)[3] ^= 1
    with pytest.raises(AssertionError):
        assert_same(
            reader(name)(target(name, tmp_path)), StateDict("torch", {"w": Tensor.of("w", other)})
        )


@every_format
def test_the_manifest_comes_back(name: str, tmp_path: Path) -> None:
    state = small_model()
    writer(name)(state, target(name, tmp_path))
    found = reader(name)(target(name, tmp_path))
    assert found.convention == "torch"
    hashes = {key: manifest_hash(tensor) for key, tensor in state.items()}
    expected = dict(state.manifest)
    expected["tensors"] = {
        key: {**entry, "hash": hashes[key]} for key, entry in state.manifest["tensors"].items()
    }
    assert found.manifest == expected
    for key in ("layers", "tensors"):
        assert list(found.manifest[key]) == list(state.manifest[key])
    weight = found["stem/conv.weight"]
    assert (str(weight.layout), weight.role, weight.trainable) == ("out in kh kw", "kernel", True)


def manifest_hash(tensor: Tensor) -> str:
    from blake3 import blake3

    return blake3(tensor.numpy().tobytes()).hexdigest()


@every_format
def test_the_same_tensors_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    """Also in other processes, whose hashes of strings differ."""
    script = (
        "import sys; from pathlib import Path; from states import *\n"
        "state = every_dtype(without=FORMATS[sys.argv[1]][1])\n"
        "writer(sys.argv[1])(state, target(sys.argv[1], Path(sys.argv[2])))"
    )
    contents = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        source = str(Path(manifest.__file__).parent.parent)
        subprocess.run(
            [sys.executable, "-c", script, name, str(folder)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": f"{source}:{HERE}"},
            check=True,
        )
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    writer(name)(every_dtype(without=FORMATS[name][1]), target(name, tmp_path))
    assert contents[0] == contents[1]
    assert contents[0] == {
        path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()
    }


@every_format
def test_a_tensor_made_slab_by_slab_is_never_whole(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "SLAB", 52)
    monkeypatch.setattr(table, "PART", 11)
    values = random_bits("f32", (7, 11, 13))
    small = random_bits("f16", (3,), 1)
    state = StateDict("torch", {"w": made_by_slabs("w", values), "b": Tensor.of("b", small)})
    writer(name)(state, target(name, tmp_path))
    found = reader(name)(target(name, tmp_path))
    np.testing.assert_array_equal(bits(found["w"].numpy()), bits(values))
    np.testing.assert_array_equal(bits(found["b"].numpy()), bits(small))
    streamed = [slab.copy() for slab in found["w"].slabs(44)]
    np.testing.assert_array_equal(bits(np.concatenate(streamed)), bits(values))
    with pytest.raises(AssertionError, match="loaded whole"):
        made_by_slabs("w", values).numpy()


@pytest.mark.parametrize("name", ["onnx", "pytorch", "safetensors"])
@pytest.mark.parametrize("slab", [8, 52, 64, 1 << 20])
def test_what_stays_as_it_is_is_written_past_the_buffers(
    name: str, slab: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From wherever the source has it, at odd addresses too, between tensors that are made."""
    monkeypatch.setattr(staging, "SLAB", slab)
    monkeypatch.setattr(staging, "_LENT", 200)
    rooms: list[int] = []
    give = staging.Flow._room

    def counted(self: staging.Flow, size: int) -> Any:
        rooms.append(size)
        return give(self, size)

    monkeypatch.setattr(staging.Flow, "_room", counted)
    lent = random_bits("f32", (7, 11, 13))
    odd = np.concatenate([np.zeros(1, np.uint8), bits(lent)])[1:].view(np.float32)
    state = StateDict(
        "torch",
        {
            "made": made_by_slabs("made", random_bits("f32", (5, 11), 1)),
            "odd": Tensor.of("odd", odd.reshape(13, 7, 11)),
            "half": Tensor.of("half", random_bits("f16", (3, 101), 2)),
            "small": Tensor.of("small", random_bits("f16", (3,), 3)),
            "again": Tensor.of("again", lent),
            "big": Tensor.of("big", random_bits("f32", (211,), 4).astype(">f4")),
        },
    )
    writer(name)(state, target(name, tmp_path))
    expected = {key: tensor.flat() for key, tensor in state.items() if key != "made"}
    expected["made"] = random_bits("f32", (55,), 1)
    expected["big"] = expected["big"].astype("<f4")
    found = reader(name)(target(name, tmp_path))
    for key, values in expected.items():
        np.testing.assert_array_equal(bits(found[key].numpy()), bits(values), key)
        digest = manifest.hasher()
        digest.update(bits(values))
        assert found.manifest["tensors"][key]["hash"] == digest.hexdigest()
    if name == "safetensors":
        assert sum(rooms) == sum(state[key].nbytes for key in ("made", "small", "big"))


def test_a_hash_is_that_of_the_target_whatever_becomes_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that is overwritten meanwhile: the manifest describes what was written."""
    monkeypatch.setattr(staging, "_LENT", 1)
    values = np.arange(101, dtype=np.float32)
    hashing = staging.Flow._hash

    def late(self: staging.Flow, buffer: Any) -> None:
        values[:] = -1
        hashing(self, buffer)

    monkeypatch.setattr(staging.Flow, "_hash", late)
    writer("safetensors")(
        StateDict("torch", {"w": Tensor.of("w", values)}), target("safetensors", tmp_path)
    )
    found = reader("safetensors")(target("safetensors", tmp_path))
    digest = manifest.hasher()
    digest.update(bits(np.arange(101, dtype=np.float32)))
    assert found.manifest["tensors"]["w"]["hash"] == digest.hexdigest()
    np.testing.assert_array_equal(found["w"].numpy(), np.arange(101))


def test_a_source_that_changes_while_it_is_written_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: changed before the target was compared with it, nothing is published."""
    monkeypatch.setattr(staging, "_LENT", 1)
    values = np.arange(101, dtype=np.float32)
    put_at = staging.put_at

    def early(file: Any, content: Any, offset: int) -> None:
        put_at(file, content, offset)
        if content.size == values.nbytes:
            values[:] = -1

    monkeypatch.setattr(staging, "put_at", early)
    with pytest.raises(VerificationError, match="or the source changed"):
        writer("safetensors")(
            StateDict("torch", {"w": Tensor.of("w", values)}), target("safetensors", tmp_path)
        )
    assert list(tmp_path.iterdir()) == []


@every_format
def test_big_endian_values_are_written_little_endian(name: str, tmp_path: Path) -> None:
    values = np.arange(6, dtype=">f4")
    writer(name)(StateDict("keras", {"w": Tensor.of("w", values)}), target(name, tmp_path))
    found = reader(name)(target(name, tmp_path))["w"].numpy()
    assert found.tobytes() == bytes.fromhex("000000000000803f0000004000004040000080400000a040")


@every_format
def test_a_tensor_that_is_not_what_it_declares_is_refused(name: str, tmp_path: Path) -> None:
    short = Tensor("w", np.dtype(np.float32), (7,), lambda: np.zeros(7, np.float64))
    with pytest.raises(KerasportError, match=r"w: declared f32\[7\], gives float64"):
        writer(name)(StateDict("torch", {"w": short}), target(name, tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["onnx", "pytorch", "safetensors"])
def test_dtypes_that_the_target_lacks_are_all_named(name: str, tmp_path: Path) -> None:
    made = {f"t{dtype}": Tensor.of(f"t{dtype}", random_bits(dtype, (2,))) for dtype in ("i4", "u4")}
    with pytest.raises(UnsupportedError, match="cannot hold these dtypes") as raised:
        writer(name)(StateDict("torch", made), target(name, tmp_path))
    assert raised.value.problems == ("ti4: i4[2]", "tu4: u4[2]")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"safetensors"}))
def test_a_format_of_one_file_refuses_a_shard_size(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected no maximum shard size, found 100"):
        writer(name)(small_model(), target(name, tmp_path), max_shard_size=100)


@every_format
def test_no_tensors_at_all_can_be_written(name: str, tmp_path: Path) -> None:
    writer(name)(StateDict("torch", {}), target(name, tmp_path))
    assert list(reader(name)(target(name, tmp_path))) == []


@every_format
def test_a_file_is_recognised_by_its_content(name: str, tmp_path: Path) -> None:
    path = tmp_path / "anything"
    writer(name)(small_model(), path)
    assert [other for other in FORMATS if matches(other, path)] == [name]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"PK\3\4",
        b"\x89HDF\r\n\x1a\n" + bytes(99),
        b"\x08",
        b"\xff" * 99,
        bytes(99),
        b"\x08\x0a\x3a\x05",
    ],
)
def test_nothing_else_is_recognised(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    assert [name for name in FORMATS if matches(name, tmp_path / "x")] == []
    assert [name for name in FORMATS if matches(name, tmp_path / "missing")] == []
    assert [name for name in FORMATS if matches(name, tmp_path)] == []


def matches(name: str, path: Path) -> bool:
    import importlib

    found: bool = importlib.import_module(f"kerasport.readers.{name}").matches(path)
    return found


@every_format
def test_what_was_written_without_a_manifest_is_of_no_known_convention(
    name: str, tmp_path: Path
) -> None:
    """The same files with the manifest cut out, as other programs write them."""
    path = target(name, tmp_path)
    strip_manifest(name, path)
    found = reader(name)(path)
    assert (found.convention, dict(found.manifest)) == ("unknown", {})
    np.testing.assert_array_equal(found["w"].numpy(), np.array([1, 2, 3], np.float32))


def strip_manifest(name: str, path: Path) -> None:
    values = np.array([1, 2, 3], np.float32)
    if name == "safetensors":
        from safetensors.numpy import save_file

        save_file({"w": values}, path)
    elif name == "pytorch":
        import torch

        torch.save({"w": torch.from_numpy(values)}, path)
    elif name == "onnx":
        import onnx as library
        from onnx import helper, numpy_helper

        graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(values, "w")])
        library.save(helper.make_model(graph), path)
    else:
        import pyarrow as pa
        import pyarrow.ipc
        import pyarrow.parquet

        row = {"name": "w", "shape": [3], "dtype": "f32", "start": 0, "values": values}
        schema = table.schema()
        columns = [pa.array([row.get(field.name)], field.type) for field in schema]
        made = pa.table(columns, names=schema.names)
        if name == "parquet":
            pyarrow.parquet.write_table(made, path)
        else:
            with pyarrow.ipc.new_file(str(path), made.schema) as out:
                out.write_table(made)


@every_format
def test_a_manifest_that_does_not_fit_the_file_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = manifest.text

    def lying(state: StateDict, hashes: dict[str, str]) -> str:
        return text(state, hashes).replace('"shape":[5]', '"shape":[7]')

    monkeypatch.setattr(manifest, "text", lying)
    writer(name)(small_model(), target(name, tmp_path))
    with pytest.raises(
        MalformedError, match=r"norm.running_mean: the manifest says f32\[7\], the file holds f32"
    ):
        reader(name)(target(name, tmp_path))


class TestSafetensors:
    """The container that the format's own specification describes."""

    def test_the_bytes_are_those_of_the_specification(self, tmp_path: Path) -> None:
        path = tmp_path / "m.safetensors"
        values = np.array([1, -2], np.int16)
        safetensors.write(StateDict("keras", {"b": Tensor.of("b", values)}), path)
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        text = header.pop("__metadata__")
        assert header == {"b": {"dtype": "I16", "shape": [2], "data_offsets": [0, 4]}}
        assert list(text) == ["kerasport"]
        assert content[8 + length :] == bytes.fromhex("0100feff")
        assert (8 + length) % 8 == 0

    def test_only_the_torch_convention_says_pt(self, tmp_path: Path) -> None:
        for convention, expected in (("torch", "pt"), ("keras", None), ("onnx", None)):
            path = tmp_path / convention
            safetensors.write(StateDict(convention, {}), path)
            header = json.loads(path.read_bytes()[8:])
            assert header["__metadata__"].get("format") == expected

    def test_values_are_aligned_and_without_holes(self, tmp_path: Path) -> None:
        """Item sizes of 8, 1 and 4 in this order would leave the last unaligned."""
        made = {
            name: Tensor.of(name, random_bits(dtype, (3,)))
            for name, dtype in {"z": "u8", "y": "f64", "x": "f32", "w": "u8"}.items()
        }
        path = tmp_path / "m.safetensors"
        safetensors.write(StateDict("torch", made), path)
        content = path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        offsets = {name: header[name]["data_offsets"] for name in header if name in made}
        assert list(offsets.items()) == [
            ("y", [0, 24]),
            ("x", [24, 36]),
            ("z", [36, 39]),
            ("w", [39, 42]),
        ]
        assert list(safetensors_reader.read(path)) == ["z", "y", "x", "w"]

    def test_a_tensor_with_the_reserved_name_is_refused(self, tmp_path: Path) -> None:
        made = {"__metadata__": Tensor.of("__metadata__", np.zeros(1, np.float32))}
        with pytest.raises(UnsupportedError, match="cannot hold a tensor named __metadata__"):
            safetensors.write(StateDict("torch", made), tmp_path / "m.safetensors")

    def test_a_header_that_the_library_would_refuse_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(safetensors, "HEADER_LIMIT", 500)
        with pytest.raises(UnsupportedError, match="expected a header of at most 500 bytes, found"):
            safetensors.write(small_model(), tmp_path / "m.safetensors")


def five() -> StateDict:
    sizes = {"a": 40, "b": 40, "c": 300, "d": 20, "e": 4}
    return StateDict(
        "torch",
        {
            name: Tensor.of(name, random_bits("f32", (size // 4,), size))
            for name, size in sizes.items()
        },
    )


class TestShards:
    """Shards as the Hugging Face hub has them."""

    def test_tensors_are_dealt_in_order_and_a_large_one_has_its_own(self, tmp_path: Path) -> None:
        files = safetensors.write(five(), tmp_path / "model.safetensors", max_shard_size=100)
        assert [file.name for file in files] == [
            "model.safetensors.index.json",
            "model-00001-of-00003.safetensors",
            "model-00002-of-00003.safetensors",
            "model-00003-of-00003.safetensors",
        ]
        index = json.loads(files[0].read_bytes())
        assert index["metadata"]["total_size"] == 404
        first, second, third = (file.name for file in files[1:])
        assert index["weight_map"] == {"a": first, "b": first, "c": second, "d": third, "e": third}

    def test_the_index_reads_as_the_whole(self, tmp_path: Path) -> None:
        state = small_model()
        safetensors.write(state, tmp_path / "one.safetensors")
        index, *shards = safetensors.write(state, tmp_path / "m.safetensors", max_shard_size=30)
        assert len(shards) == 3
        whole = safetensors_reader.read(tmp_path / "one.safetensors")
        found = safetensors_reader.read(index)
        assert safetensors_reader.matches(index)
        assert_same(found, whole)
        assert found.manifest == whole.manifest

    def test_a_shard_describes_its_own_tensors(self, tmp_path: Path) -> None:
        _, first, *_ = safetensors.write(small_model(), tmp_path / "m", max_shard_size=30)
        found = safetensors_reader.read(first)
        assert list(found.manifest["tensors"]) == ["stem/conv.weight"]
        assert list(found.manifest["layers"]) == ["stem/conv"]
        assert found.manifest["notes"] == small_model().manifest["notes"]

    def test_what_fits_one_shard_is_one_file(self, tmp_path: Path) -> None:
        files = safetensors.write(five(), tmp_path / "m.safetensors", max_shard_size=404)
        assert [file.name for file in files] == ["m.safetensors"]

    def test_shards_of_an_earlier_write_are_removed(self, tmp_path: Path) -> None:
        path = tmp_path / "m.safetensors"
        safetensors.write(five(), path)
        safetensors.write(five(), path, max_shard_size=100)
        assert not path.exists()
        safetensors.write(five(), path, max_shard_size=340)
        assert sorted(file.name for file in tmp_path.iterdir()) == [
            "m-00001-of-00002.safetensors",
            "m-00002-of-00002.safetensors",
            "m.safetensors.index.json",
        ]
        safetensors.write(five(), path)
        assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]

    def test_shards_that_somebody_else_wrote_stay(self, tmp_path: Path) -> None:
        shard, index = (
            tmp_path / "m-00001-of-00001.safetensors",
            tmp_path / "m.safetensors.index.json",
        )
        shard.write_bytes(b"theirs")
        index.write_text(json.dumps({"metadata": {}, "weight_map": {"a": shard.name}}))
        safetensors.write(five(), tmp_path / "m.safetensors")
        assert shard.read_bytes() == b"theirs"
        assert index.exists()

    def test_an_index_cannot_have_files_elsewhere_removed(self, tmp_path: Path) -> None:
        outside = tmp_path / "m-secret.safetensors"
        outside.write_bytes(b"x")
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "m.safetensors.index.json").write_text(
            json.dumps(
                {"metadata": {"kerasport": "1.0"}, "weight_map": {"a": f"../{outside.name}"}}
            )
        )
        safetensors.write(five(), folder / "m.safetensors")
        assert outside.exists()

    def test_a_limit_of_nothing_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="at least 1 byte, found 0"):
            safetensors.write(five(), tmp_path / "m.safetensors", max_shard_size=0)


class TestOnnx:
    """External data."""

    def test_values_past_the_limit_lie_beside_the_model(self, tmp_path: Path) -> None:
        state = every_dtype(without={"i4", "u4"})
        files = onnx.write(state, tmp_path / "m.onnx", inline_limit=99)
        assert [file.name for file in files] == ["m.onnx", "m.onnx.data"]
        assert_same(onnx_reader.read(files[0]), state)
        inline = onnx.write(state, tmp_path / "i.onnx")
        assert [file.name for file in inline] == ["i.onnx"]
        assert onnx_reader.read(inline[0]).manifest == onnx_reader.read(files[0]).manifest

    def test_large_values_start_at_a_page(self, tmp_path: Path) -> None:
        import onnx as library

        made = {
            name: Tensor.of(name, np.zeros(size, np.uint8))
            for name, size in {"a": 3, "b": 70_000, "c": 5, "d": 7}.items()
        }
        model, _ = onnx.write(StateDict("onnx", made), tmp_path / "m.onnx", inline_limit=0)
        graph = library.load(str(model), load_external_data=False).graph
        offsets = [
            {entry.key: entry.value for entry in tensor.external_data}["offset"]
            for tensor in graph.initializer
        ]
        assert offsets == ["0", "4096", "74112", "74176"]

    def test_a_model_past_two_gigabytes_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(onnx, "MESSAGE_LIMIT", 600)
        for limit in (0, 1 << 20):
            with pytest.raises(UnsupportedError, match="expected a model of less than 2 GiB"):
                onnx.write(small_model(), tmp_path / "m.onnx", inline_limit=limit)
        assert list(tmp_path.iterdir()) == []

    def test_a_tensor_without_a_name_is_refused(self, tmp_path: Path) -> None:
        made = {"": Tensor.of("", np.zeros(1, np.float32))}
        with pytest.raises(UnsupportedError, match="without a name"):
            onnx.write(StateDict("onnx", made), tmp_path / "m.onnx")


def flipped(path: Path, needle: bytes) -> None:
    content = bytearray(path.read_bytes())
    at = content.index(needle)
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in FORMATS), ("onnx", {"inline_limit": 0})],
)
def test_a_byte_that_changes_on_its_way_is_found(
    name: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes the check after writing worth its time."""
    values = random_bits("f32", (101,))
    needle = values.tobytes()
    state = StateDict("torch", {"w": Tensor.of("w", values)})
    put_at = staging.put_at

    def corrupting(file: Any, content: Any, offset: int) -> None:
        """A disk that stores another byte than the one it was given."""
        put_at(file, content, offset)
        at = content.tobytes().find(needle)
        if at >= 0:
            put_at(file, np.array([needle[0] ^ 1], np.uint8), offset + at)

    path = target(name, tmp_path)
    writer(name)(state, path, **options)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(staging, "put_at", corrupting)
    with pytest.raises(VerificationError, match="w: expected the hash"):
        writer(name)(state, path, **options)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "needle", "message"),
    [
        ("safetensors", b'"data_offsets"', "the header does not read back"),
        ("pytorch", b"archive/data/0PK", "directory does not read back"),
        ("onnx", b"kerasport", "does not read back"),
    ],
)
def test_a_header_that_changes_on_its_way_is_found(
    name: str, needle: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reopen = staging.Staging.reopen

    def corrupting(self: staging.Staging, where: Path) -> Any:
        self._files[where].close()
        flipped(self._staged[where], needle)
        return reopen(self, where)

    monkeypatch.setattr(staging.Staging, "reopen", corrupting)
    with pytest.raises(VerificationError, match=message):
        writer(name)(small_model(), target(name, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_sizes_past_four_gigabytes_use_the_fields_of_zip64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threshold is lowered, so that every record has the form of a large one."""
    import torch

    monkeypatch.setattr(pytorch, "_ZIP64", 64)
    state = every_dtype(without={"i4", "u4"})
    path = tmp_path / "m.pt"
    pytorch.write(state, path)
    assert b"PK\6\6" in path.read_bytes()
    assert_same(reader("pytorch")(path), state)
    for mapped in (False, True):
        loaded = torch.load(path, weights_only=True, mmap=mapped)
        assert list(loaded) == list(state)
        for name, tensor in state.items():
            found = loaded[name].reshape(-1).view(torch.uint8).numpy()
            np.testing.assert_array_equal(found, bits(tensor.numpy()))


def test_more_tensors_than_a_plain_zip_archive_counts(tmp_path: Path) -> None:
    import zipfile

    one = np.ones(1, np.float32)
    state = StateDict("torch", {f"t{n}": Tensor.of(f"t{n}", one) for n in range(66_000)})
    path = tmp_path / "m.pt"
    pytorch.write(state, path)
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == 66_003


@every_format
def test_work_grows_in_proportion_to_the_number_of_tensors(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in calls of Python functions, not in time."""

    def calls(count: int) -> int:
        one = np.ones((2, 3), np.float32)
        state = StateDict("torch", {f"t{n}": Tensor.of(f"t{n}", one) for n in range(count)})
        counted = 0

        def count_call(frame: Any, event: str, argument: Any) -> None:
            nonlocal counted
            counted += 1

        previous = sys.getprofile()
        sys.setprofile(count_call)
        try:
            writer(name)(state, target(name, tmp_path))
            for tensor in reader(name)(target(name, tmp_path)).values():
                tensor.numpy()
        finally:
            sys.setprofile(previous)
        return counted

    calls(10)  # imports
    few, many = calls(200), calls(2000)
    assert many < 11 * few
