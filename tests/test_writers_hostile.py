"""Files of our own formats from strangers are refused with one clear error, and nothing is done."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerasport.errors import KerasportError, MalformedError, UnsupportedError, UsageError
from kerasport.model import StateDict, Tensor
from kerasport.readers import onnx, parquet, pytorch, safetensors
from kerasport.writers import onnx as onnx_writer
from kerasport.writers import safetensors as safetensors_writer
from states import FORMATS, assert_same, bits, reader, small_model, target, writer

JSON = Any
every_format = pytest.mark.parametrize("name", FORMATS)


@every_format
def test_a_file_cut_anywhere_is_refused(name: str, tmp_path: Path) -> None:
    path = target(name, tmp_path)
    writer(name)(small_model(), path)
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 97)):
        path.write_bytes(whole[:length])
        with pytest.raises((MalformedError, UnsupportedError)):
            reader(name)(path)
    path.write_bytes(whole)
    assert len(reader(name)(path)) == 3


@every_format
def test_a_missing_file_is_a_clear_error(name: str, tmp_path: Path) -> None:
    with pytest.raises((UsageError, MalformedError), match="No such file"):
        reader(name)(tmp_path / "missing")


@every_format
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_whatever_bytes_change_there_is_a_value_or_a_clear_error(
    name: str, tmp_path: Path, data: st.DataObject
) -> None:
    """No other exception, no crash, and no more memory than the file has."""
    path = target(name, tmp_path)
    if not path.exists():
        writer(name)(small_model(), path)
        path.with_name("whole").write_bytes(path.read_bytes())
    content = bytearray(path.with_name("whole").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        for tensor in reader(name)(path).values():
            assert tensor.numpy().nbytes <= len(content)
    except KerasportError:
        pass


class TestSafetensors:
    """Headers that lie."""

    def refused(self, folder: Path, header: JSON, data: bytes, message: str) -> None:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path = folder / "x.safetensors"
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)
        with pytest.raises(KerasportError, match=message) as raised:
            safetensors.read(path)
        assert raised.value.exit_code in (4, 5)

    def test_a_good_header_is_accepted(self, tmp_path: Path) -> None:
        """The twin: what all the others differ from in one thing."""
        header = b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'
        path = tmp_path / "x"
        path.write_bytes(struct.pack("<Q", len(header)) + header + b"\1\2")
        assert safetensors.read(path)["a"].numpy().tolist() == [1, 2]

    def test_a_huge_length_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "x"
        path.write_bytes(b"\xff" * 7 + b"\x7f" + b"{}")
        with pytest.raises(MalformedError, match="claims 9,223,372,036,854,775,807"):
            safetensors.read(path)
        path.write_bytes(struct.pack("<Q", 1000) + b"{}")
        with pytest.raises(MalformedError, match="expected a header of 1,000 bytes, found 2"):
            safetensors.read(path)

    @pytest.mark.parametrize(
        ("entry", "data", "message"),
        [
            ({"data_offsets": [0, 3]}, 3, r"expected 2 bytes for U8 of shape \[2\], found"),
            ({"data_offsets": [1, 3]}, 3, "found a hole: 1"),
            ({"data_offsets": [2, 0]}, 2, "expected two ascending data_offsets"),
            ({"data_offsets": [-2, 0]}, 2, "expected two ascending data_offsets"),
            ({"data_offsets": [0]}, 2, "expected two ascending data_offsets"),
            ({"data_offsets": [0, 2.0]}, 2, "expected two ascending data_offsets"),
            ({"data_offsets": [0, 1 << 70]}, 2, "expected two ascending data_offsets"),
            ({}, 1, "expected 2 bytes of values, found 1. Is the file complete"),
            ({}, 3, "expected 2 bytes of values, found 3"),
            ({"shape": [3]}, 2, r"expected 3 bytes for U8 of shape \[3\]"),
            ({"shape": [1 << 40, 1 << 40]}, 2, "expected 1,208,925,819,614,629,174,706,176 bytes"),
            ({"shape": [-2]}, 2, r"expected a shape, found \[-2\]"),
            ({"shape": [True, 2]}, 2, "expected a shape"),
            ({"shape": "2"}, 2, "expected a shape"),
            ({"shape": [1] * 65}, 2, "expected a shape"),
            ({"dtype": "F16"}, 2, "expected 4 bytes for F16"),
            ({"dtype": "F4"}, 2, "expected a dtype among BOOL, .*, found F4"),
            ({"dtype": ["U8"]}, 2, "expected a dtype among"),
            ({"extra": 1}, 2, "expected dtype, shape and data_offsets"),
        ],
    )
    def test_an_entry_that_does_not_fit_is_refused(
        self, entry: JSON, data: int, message: str, tmp_path: Path
    ) -> None:
        good = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}
        self.refused(tmp_path, {"a": {**good, **entry}}, bytes(data), message)

    def test_two_tensors_of_the_same_bytes_are_refused(self, tmp_path: Path) -> None:
        entry = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}
        self.refused(tmp_path, {"a": entry, "b": entry}, bytes(2), "b: .* found an overlap: 0")

    @pytest.mark.parametrize(
        ("header", "message"),
        [
            (b'{"a":1}', "a: expected dtype, shape and data_offsets"),
            (b'{"a":{},"a":{}}', "duplicate key 'a'"),
            (b'{"a":' * 50_000, "nested too deeply"),
            (b"[]", "expected a header that begins with '{', found b'\\['"),
            (b"{", "expected JSON"),
            (b'{"\xff":1}', "expected JSON, found a fault: 'utf-8' codec"),
            (b'{"__metadata__":{"a":1}}', "expected __metadata__ to map strings to strings"),
            (b'{"__metadata__":[]}', "expected __metadata__ to map strings to strings"),
            (b'{"__metadata__":{"kerasport":"{}"}}', "manifest: expected schema version 1.x"),
        ],
    )
    def test_a_header_that_is_none_is_refused(
        self, header: bytes, message: str, tmp_path: Path
    ) -> None:
        self.refused(tmp_path, header, b"", message)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"a": "../outside.safetensors"}, "must not lead out of its folder"),
            ({"a": "/etc/passwd"}, "must not lead out of its folder"),
            ({"a": ".."}, "must not lead out of its folder"),
            ({"a": "C:x"}, "must not lead out of its folder"),
            ({"a": "missing.safetensors"}, "expected the shard missing.safetensors, found no such"),
            ({"a": 1}, "expected an index with a weight_map"),
            ({"z": "m-00001-of-00002.safetensors"}, "expected z in m-00001.*, found it in no sha"),
            ({"b": "m-00001-of-00002.safetensors"}, "expected b in m-00001.*, found it in no sha"),
        ],
    )
    def test_an_index_that_lies_is_refused(
        self, change: JSON, message: str, tmp_path: Path
    ) -> None:
        made = {name: Tensor.of(name, np.ones(2, np.float32)) for name in "ab"}
        path = tmp_path / "m.safetensors"
        index, *_ = safetensors_writer.write(StateDict("torch", made), path, max_shard_size=8)
        document = json.loads(index.read_text())
        document["weight_map"].update(change)
        index.write_text(json.dumps(document))
        with pytest.raises(MalformedError, match=message):
            safetensors.read(index)

    def test_a_tensor_in_another_shard_than_the_index_says_is_refused(self, tmp_path: Path) -> None:
        made = {name: Tensor.of(name, np.ones(2, np.float32)) for name in "abc"}
        path = tmp_path / "m.safetensors"
        index, *_ = safetensors_writer.write(StateDict("torch", made), path, max_shard_size=16)
        document = json.loads(index.read_text())
        document["weight_map"]["b"] = document["weight_map"]["c"]
        index.write_text(json.dumps(document))
        with pytest.raises(MalformedError, match=r"expected b in m-00002.*, found it in m-00001"):
            safetensors.read(index)

    def test_shards_of_two_conventions_are_refused(self, tmp_path: Path) -> None:
        places = {}
        for name, convention in (("a", "torch"), ("b", "keras")):
            made = StateDict(convention, {name: Tensor.of(name, np.ones(2, np.float32))})
            safetensors_writer.write(made, tmp_path / name)
            places[name] = name
        (tmp_path / "i.json").write_text(json.dumps({"weight_map": places}))
        with pytest.raises(MalformedError, match="shards of one convention, found keras, torch"):
            safetensors.read(tmp_path / "i.json")


def archive(path: Path, pickled: bytes, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        for name, content in members.items():
            file.writestr(f"archive/data/{name.strip('_')}", content)
    return path


class Sent:
    """An object whose pickle calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class TestPytorch:
    """Pickles that are more than a state dict."""

    @pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
    def test_nothing_is_executed(self, protocol: int, tmp_path: Path) -> None:
        mark = tmp_path / "executed"
        pickled = pickle.dumps({"w": Sent(Path.touch, mark)}, protocol)
        with pytest.raises(MalformedError, match="no state dict needs"):
            pytorch.read(archive(tmp_path / "m.pt", pickled))
        assert not mark.exists()
        pickle.loads(pickled)
        assert mark.exists()

    @pytest.mark.parametrize(
        "function", [eval, getattr, __import__, open, print, OrderedDict.fromkeys]
    )
    def test_no_other_name_is_known(self, function: Any, tmp_path: Path) -> None:
        pickled = pickle.dumps(Sent(function, "1"), 2)
        with pytest.raises(MalformedError, match=r"the name .* which no state dict needs"):
            pytorch.read(archive(tmp_path / "m.pt", pickled))

    def test_an_archive_of_torch_is_read(self, tmp_path: Path) -> None:
        """The twin: strided views, shared storages, parameters, half a storage; as saved."""
        import torch

        base = torch.arange(30, dtype=torch.float32)
        module = torch.nn.Linear(3, 2)
        state: dict[str, Any] = {
            "base": base,
            "part": base[7:11],
            "turned": base.reshape(5, 6).t(),
            "empty": torch.zeros(0, 3),
            "scalar": torch.tensor(3),
            "half": torch.arange(3).to(torch.bfloat16),
            "small": torch.arange(3).to(torch.float8_e5m2),
            "wide": torch.arange(3).to(torch.uint16),
            "parameter": module.weight,
        }
        torch.save(OrderedDict(state), tmp_path / "m.pt")
        found = pytorch.read(tmp_path / "m.pt")
        assert list(found) == list(state)
        for name, tensor in state.items():
            expected = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            np.testing.assert_array_equal(bits(found[name].numpy()), expected, name)
            assert found[name].shape == tuple(tensor.shape)
        torch.save(module.state_dict(), tmp_path / "module.pt")
        assert list(pytorch.read(tmp_path / "module.pt")) == ["weight", "bias"]

    def tensor(self, **changes: Any) -> bytes:
        """The pickle of one tensor of three floats in storage 0, with some numbers changed."""
        import torch

        values = {"offset": 0, "shape": (3,), "strides": (1,), "count": 3, "key": "0", **changes}

        class Pickler(pickle.Pickler):
            def persistent_id(self, item: Any) -> Any:
                if item is not storage:
                    return None
                return ("storage", torch.FloatStorage, values["key"], "cpu", values["count"])

        storage = object()
        rebuild = torch._utils._rebuild_tensor_v2
        shape, strides = values["shape"], values["strides"]
        call = Sent(rebuild, storage, values["offset"], shape, strides, False, OrderedDict())
        import io

        out = io.BytesIO()
        Pickler(out, 2).dump({"w": call})
        return out.getvalue()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"shape": (4,)}, "reaches element 3 outside of its storage"),
            ({"offset": 1}, "reaches element 3 outside"),
            ({"strides": (2,)}, "reaches element 4 outside"),
            ({"offset": -1}, "offset, shape or strides are no numbers"),
            ({"strides": (-1,)}, "offset, shape or strides are no numbers"),
            ({"shape": (1 << 40,), "strides": (0,)}, "more elements than its storage"),
            ({"shape": (3, 1)}, "offset, shape or strides are no numbers"),
            ({"shape": ("3",)}, "offset, shape or strides are no numbers"),
            ({"count": 4}, "data/0 of 12 bytes where 4 elements are declared"),
            ({"key": "1"}, "expected the member data/1, found none"),
            ({"key": "../0"}, "a storage without a key"),
        ],
    )
    def test_a_tensor_outside_of_its_storage_is_refused(
        self, changes: Any, message: str, tmp_path: Path
    ) -> None:
        values = np.array([1, 2, 3], np.float32)
        good = archive(tmp_path / "good.pt", self.tensor(), _0=values.tobytes())
        np.testing.assert_array_equal(pytorch.read(good)["w"].numpy(), values)
        path = archive(tmp_path / "m.pt", self.tensor(**changes), _0=values.tobytes())
        with pytest.raises(MalformedError, match=message):
            pytorch.read(path)

    @pytest.mark.parametrize("name", ["state_dict", "model", "net"])
    def test_the_state_dict_of_a_checkpoint_is_found(self, name: str, tmp_path: Path) -> None:
        """Beside it stand an epoch, a learning rate, an optimizer's state."""
        import torch

        module = torch.nn.Linear(3, 2)
        optimizer = torch.optim.Adam(module.parameters())
        module(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        state = module.state_dict()
        others = {"epoch": 3, "rate": 0.1, "done": [1, 2], "optimizer": optimizer.state_dict()}
        torch.save({**others, name: state}, tmp_path / "m.pt")
        found = pytorch.read(tmp_path / "m.pt")
        assert list(found) == ["weight", "bias"]
        for key, value in state.items():
            np.testing.assert_array_equal(found[key].numpy(), value.numpy())
        torch.save({**others, name: state, "ema": state}, tmp_path / "m.pt")
        with pytest.raises(MalformedError, match=f"found several: ema, {name}. Save the one that"):
            pytorch.read(tmp_path / "m.pt")
        torch.save({name: state, "loose": torch.ones(2)}, tmp_path / "m.pt")
        with pytest.raises(MalformedError, match=f"found dict under '{name}'"):
            pytorch.read(tmp_path / "m.pt")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ([1, 2], "expected a state dict, found list"),
            ({"a": {1, 2}}, "which no state dict needs"),
            ({"a": {"b": 1}}, "expected a flat state dict of tensors, found dict under 'a'"),
            ({"epoch": 3}, "expected a flat state dict of tensors, found int under 'epoch'"),
            ((), "expected a state dict, found tuple"),
            (7, "expected a state dict, found int"),
        ],
    )
    def test_what_is_no_state_dict_is_refused(
        self, content: Any, message: str, tmp_path: Path
    ) -> None:
        with pytest.raises(MalformedError, match=message):
            pytorch.read(archive(tmp_path / "m.pt", pickle.dumps(content, 2)))

    @pytest.mark.parametrize(
        "pickled",
        [
            b"",
            b".",
            b"\x80\x02.",
            b"\x80\x02}",
            b"\x80\x02t.",
            b"\x80\x02h\x05.",
            b"\x80\x02R.",
            b"\x80\x02)\x86.",
            b"\x80\x02(u.",
            b"\x80\x02}q\x00h\x00}s.",
            b"\x80\x02(Q.",
            b"\x80\x02}(K\x01u.",
            b"\x80\x02(\x85.",
            b"\x80\x02}}b}.",
        ],
    )
    def test_a_pickle_that_falls_apart_is_refused(self, pickled: bytes, tmp_path: Path) -> None:
        with pytest.raises(MalformedError, match=r"found a fault|expected a"):
            pytorch.read(archive(tmp_path / "m.pt", pickled))

    def test_a_huge_memo_number_costs_nothing(self, tmp_path: Path) -> None:
        """In C, this makes Python's own unpickler ask for 32 GB."""
        pickled = b"\x80\x02}r" + struct.pack("<I", 0xFFFFFFFE) + b"."
        assert len(pytorch.read(archive(tmp_path / "m.pt", pickled))) == 0

    def test_compressed_members_are_refused(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "m.pt", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("archive/data.pkl", b"\x80\x02}." + bytes(9999))
        with pytest.raises(MalformedError, match="expected a stored member, found a compressed"):
            pytorch.read(tmp_path / "m.pt")

    def test_values_of_a_big_endian_machine_are_refused(self, tmp_path: Path) -> None:
        path = archive(tmp_path / "m.pt", b"\x80\x02}.")
        with zipfile.ZipFile(path, "a") as file:
            file.writestr("archive/byteorder", "big")
        with pytest.raises(UnsupportedError, match="found big-endian ones"):
            pytorch.read(path)

    def test_a_manifest_of_another_model_is_refused(self, tmp_path: Path) -> None:
        writer("pytorch")(small_model(), tmp_path / "m.pt")
        beside = tmp_path / "m.pt.json"
        beside.write_text(beside.read_text().replace("stem/conv.bias", "other"))
        with pytest.raises(MalformedError) as raised:
            pytorch.read(tmp_path / "m.pt")
        assert str(raised.value).splitlines()[1:] == [
            "  other: is missing in the file",
            "  stem/conv.bias: has no entry in the manifest",
        ]


class TestOnnx:
    """Models that point elsewhere, or declare what they have not."""

    def model(self, folder: Path, edit: Callable[[Any], None]) -> Path:
        import onnx as library

        made = {"w": Tensor.of("w", np.arange(3, dtype=np.float32))}
        path, *_ = onnx_writer.write(StateDict("onnx", made), folder / "m.onnx", inline_limit=0)
        model = library.load(str(path), load_external_data=False)
        del model.metadata_props[:]
        edit(model.graph.initializer[0])
        path.write_bytes(model.SerializeToString())
        return path

    @pytest.mark.parametrize(
        "location",
        ["../m.onnx.data", "/etc/passwd", "", "a/../../m", "link", "C:\\x", "sub\\..\\x", "."],
    )
    def test_external_data_stays_in_the_folder(self, location: str, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        (tmp_path / "m.onnx.data").write_bytes(bytes(99))
        (folder / "link").symlink_to(tmp_path / "m.onnx.data")

        def edit(tensor: Any) -> None:
            tensor.external_data[0].value = location

        with pytest.raises(MalformedError, match="w: expected"):
            onnx.read(self.model(folder, edit))

    def test_external_data_in_a_folder_below_is_read(self, tmp_path: Path) -> None:
        def edit(tensor: Any) -> None:
            tensor.external_data[0].value = "below/data"

        path = self.model(tmp_path, edit)
        (tmp_path / "below").mkdir()
        (tmp_path / "m.onnx.data").rename(tmp_path / "below" / "data")
        assert onnx.read(path)["w"].numpy().tolist() == [0, 1, 2]

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("offset", "1", "expected 12 bytes at 1 of m.onnx.data, found 12 in all"),
            ("offset", "-1", "expected a number as offset, found '-1'"),
            ("offset", "١", "expected a number as offset"),
            ("offset", "9" * 30, "expected a number as offset"),
            ("length", "8", "expected 12 bytes for its shape"),
            ("length", "999999999999", "expected 999,999,999,999 bytes at 0"),
            ("location", "gone", "expected its values in gone, found no such file"),
        ],
    )
    def test_external_data_that_is_not_there_is_refused(
        self, key: str, value: str, message: str, tmp_path: Path
    ) -> None:
        def edit(tensor: Any) -> None:
            for entry in tensor.external_data:
                if entry.key == key:
                    entry.value = value

        with pytest.raises(MalformedError, match=message):
            onnx.read(self.model(tmp_path, edit))

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (lambda t: t.dims.extend([1 << 40]), "expected 13,194,139,533,312 bytes for its shape"),
            (lambda t: t.dims.extend([-1]), "expected a shape, found"),
            (lambda t: setattr(t, "data_type", 8), "expected a known data type, found number 8"),
            (lambda t: t.float_data.extend([1.0]), "expected its values as raw_data"),
        ],
    )
    def test_a_tensor_that_does_not_fit_is_refused(
        self, edit: Callable[[Any], None], message: str, tmp_path: Path
    ) -> None:
        with pytest.raises(KerasportError, match=message):
            onnx.read(self.model(tmp_path, edit))

    def test_two_initializers_of_one_name_are_refused(self, tmp_path: Path) -> None:
        import onnx as library

        path = self.model(tmp_path, lambda tensor: None)
        model = library.load(str(path))
        model.graph.initializer.append(model.graph.initializer[0])
        path.write_bytes(model.SerializeToString())
        with pytest.raises(MalformedError, match="expected each initializer once, found w twice"):
            onnx.read(path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "no graph"),
            (b"\x08\x0a", "no graph"),
            (b"\x3a\xff\xff\xff\xff\x0f", "bytes declared at byte 6, 0 are left"),
            (b"\xff" * 11, "a number without an end"),
            (b"\x3a\x01\x0b", "wire type 3"),
            (b"\x00\x00", "a field numbered 0"),
            (b"\x38\x01", "a number where a message belongs"),
        ],
    )
    def test_broken_protobuf_is_refused(self, content: bytes, message: str, tmp_path: Path) -> None:
        (tmp_path / "m.onnx").write_bytes(content)
        with pytest.raises(MalformedError, match=message):
            onnx.read(tmp_path / "m.onnx")


class TestTables:
    """Tables that break the schema."""

    def table(self, path: Path, **changes: Any) -> Path:
        import pyarrow as pa
        import pyarrow.ipc
        import pyarrow.parquet

        from kerasport.writers import table

        row = {"name": "w", "shape": [3], "dtype": "f32", "start": 0, "values": [1.0, 2.0, 3.0]}
        rows = changes.pop("rows", [{}])
        drop = changes.pop("drop", "")
        types = changes.pop("types", {})
        fields = [
            pa.field(field.name, types.get(field.name, field.type))
            for field in table.schema()
            if field.name != drop
        ]
        full = [{**row, **changes, **extra} for extra in rows]
        columns = [pa.array([r.get(field.name) for r in full], field.type) for field in fields]
        made = pa.table(columns, schema=pa.schema(fields))
        if path.suffix == ".parquet":
            pyarrow.parquet.write_table(made, path)
        else:
            with pyarrow.ipc.new_file(str(path), made.schema) as out:
                out.write_table(made)
        return path

    def read(self, path: Path) -> StateDict:
        state = reader("parquet" if path.suffix == ".parquet" else "arrow")(path)
        for tensor in state.values():
            tensor.numpy()
        return state

    @pytest.mark.parametrize("suffix", ["parquet", "arrow"])
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"drop": "dtype"}, "no column dtype"),
            ({"drop": "values"}, "no column values"),
            ({"name": None}, "a row with name None"),
            ({"dtype": "f33"}, "dtype 'f33'"),
            ({"shape": [-3]}, r"shape \[-3\]"),
            ({"shape": [4]}, "w: 3 elements in values where 4 belong"),
            ({"shape": [1 << 50]}, "w: 3 elements in values where 1,125,899,906,842,624 belong"),
            ({"values": None}, "w: no values"),
            ({"values": [1.0, None, 3.0]}, "w: no values"),
            ({"dtype": "f64"}, "w: no values64"),
            ({"dtype": "i32", "data": b"12345678901"}, "w: no data|w: 2 elements"),
            ({"start": 1}, "w: no part that starts at 0"),
            ({"rows": [{}, {}]}, "two rows that are not parts of one tensor"),
            ({"rows": [{}, {"start": 3, "shape": [5]}]}, "two rows that are not parts"),
            ({"rows": [{}, {"start": 9}]}, "a part that starts after its end"),
            ({"shape": [6], "rows": [{}, {"start": 2}]}, "w: 3 elements in values where [24] bel"),
            ({"layout": "in in"}, "w: "),
        ],
    )
    def test_a_table_that_breaks_the_schema_is_refused(
        self, suffix: str, changes: Any, message: str, tmp_path: Path
    ) -> None:
        good = self.read(self.table(tmp_path / f"good.{suffix}"))
        assert good["w"].numpy().tolist() == [1, 2, 3]
        with pytest.raises(MalformedError, match=message):
            self.read(self.table(tmp_path / f"t.{suffix}", **changes))

    @pytest.mark.parametrize("suffix", ["parquet", "arrow"])
    def test_numbers_of_another_width_are_refused(self, suffix: str, tmp_path: Path) -> None:
        import pyarrow as pa

        path = self.table(tmp_path / f"t.{suffix}", types={"values": pa.list_(pa.float64())})
        with pytest.raises(MalformedError, match="w: no values: Cannot cast"):
            self.read(path)

    def test_a_row_group_that_declares_far_more_than_it_stores_is_refused(
        self, tmp_path: Path
    ) -> None:
        """Ninety million zeros in a few kilobytes."""
        import pyarrow as pa
        import pyarrow.parquet

        from kerasport.writers import table

        zeros = pa.ListArray.from_arrays(
            [0, 90_000_000], pa.array(np.zeros(90_000_000, np.float32))
        )
        row = {"name": "w", "shape": [90_000_000], "dtype": "f32", "start": 0}
        columns = {
            field.name: zeros
            if field.name == "values"
            else pa.array([row.get(field.name)], field.type)
            for field in table.schema()
        }
        path = tmp_path / "bomb.parquet"
        pyarrow.parquet.write_table(pa.table(columns), path, compression="zstd")
        assert path.stat().st_size < 100_000
        with pytest.raises(MalformedError, match=r"values\.list\.element: expected about"):
            parquet.read(path)


def test_the_readers_import_no_framework(tmp_path: Path) -> None:
    """Reading a `.pt` or an ONNX model needs neither PyTorch nor onnx."""
    import subprocess
    import sys

    for name in ("pytorch", "onnx", "safetensors"):
        writer(name)(small_model(), target(name, tmp_path))
    script = (
        "import sys; from pathlib import Path; from states import *\n"
        "for name in ('pytorch', 'onnx', 'safetensors'):\n"
        "    path = target(name, Path(sys.argv[1]))\n"
        "    assert_same(reader(name)(path), small_model())\n"
        "    writer(name)(reader(name)(path), path)\n"
        "print(*sorted({'torch', 'onnx', 'safetensors', 'pyarrow', 'keras'} & set(sys.modules)))\n"
    )
    source = str(Path(pytorch.__file__).parent.parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={"PYTHONPATH": f"{source}:{Path(__file__).parent}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ""
    assert_same(pytorch.read(target("pytorch", tmp_path)), small_model())
