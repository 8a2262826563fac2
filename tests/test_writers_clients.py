"""Real programs read what the writers wrote, without any of our code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasport.model import StateDict, Tensor, dtype_name
from kerasport.writers import onnx, safetensors, table
from states import FORMATS, Array, bits, every_dtype, random_bits, small_model, target, writer

TORCH = {
    "bool": "bool",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    "bf16": "bfloat16",
    "f8_e4m3fn": "float8_e4m3fn",
    "f8_e5m2": "float8_e5m2",
    "c64": "complex64",
    "c128": "complex128",
}


def assert_torch_tensors(loaded: Any, state: StateDict) -> None:
    import torch

    assert set(loaded) == set(state)
    for name, tensor in state.items():
        found = loaded[name]
        assert found.dtype == getattr(torch, TORCH[dtype_name(tensor.dtype)])
        assert tuple(found.shape) == tensor.shape
        raw = found.reshape(-1).view(torch.uint8).numpy()
        np.testing.assert_array_equal(raw, bits(tensor.numpy()), name)


@pytest.mark.parametrize("mapped", [False, True])
def test_torch_loads_an_archive_as_weights_only(tmp_path: Path, mapped: bool) -> None:
    import torch

    state = every_dtype(without=FORMATS["pytorch"][1])
    path = target("pytorch", tmp_path)
    writer("pytorch")(state, path)
    loaded = torch.load(path, weights_only=True, mmap=mapped)
    assert list(loaded) == list(state)
    assert_torch_tensors(loaded, state)


def test_torch_loads_names_and_sizes_of_every_width(tmp_path: Path) -> None:
    """The pickle has other opcodes for small, middle and long numbers and names."""
    import torch

    names = ["a", "ü" * 300, "layer 1/weight", ""]
    sizes = [3, 251, 257, 70_001]
    made = {
        name: Tensor.of(name, random_bits("u8", (size,), size))
        for name, size in zip(names, sizes, strict=True)
    }
    writer("pytorch")(StateDict("torch", made), target("pytorch", tmp_path))
    loaded = torch.load(target("pytorch", tmp_path), weights_only=True)
    assert_torch_tensors(loaded, StateDict("torch", made))
    loaded["a"].add_(1)  # a tensor of its own, which training may change


def test_a_module_takes_the_state_dict(tmp_path: Path) -> None:
    import torch

    module = torch.nn.Linear(7, 3)
    made = {
        "weight": Tensor.of("weight", np.arange(21, dtype=np.float32).reshape(3, 7)),
        "bias": Tensor.of("bias", np.arange(3, dtype=np.float32)),
    }
    writer("pytorch")(StateDict("torch", made), target("pytorch", tmp_path))
    module.load_state_dict(torch.load(target("pytorch", tmp_path), weights_only=True), strict=True)
    assert module(torch.ones(1, 7)).tolist() == [[21.0, 71.0, 121.0]]


def test_the_manifest_beside_an_archive_is_json(tmp_path: Path) -> None:
    writer("pytorch")(small_model(), target("pytorch", tmp_path))
    document = json.loads((tmp_path / "model.pt.json").read_text())
    assert document["tensors"]["stem/conv.weight"]["layout"] == "out in kh kw"


def test_safetensors_loads_every_tensor_into_torch(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    state = every_dtype(without=FORMATS["safetensors"][1])
    writer("safetensors")(state, target("safetensors", tmp_path))
    assert_torch_tensors(load_file(target("safetensors", tmp_path)), state)


def test_safetensors_loads_every_tensor_into_numpy(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    numpy_lacks = {"bf16", "f8_e4m3fn", "f8_e5m2"}
    state = every_dtype(without=FORMATS["safetensors"][1] | numpy_lacks)
    writer("safetensors")(state, target("safetensors", tmp_path))
    loaded = load_file(target("safetensors", tmp_path))
    assert set(loaded) == set(state)
    for name, tensor in state.items():
        assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape)
        np.testing.assert_array_equal(bits(loaded[name]), bits(tensor.numpy()), name)


def test_safetensors_shows_the_metadata(tmp_path: Path) -> None:
    from safetensors import safe_open

    writer("safetensors")(small_model(), target("safetensors", tmp_path))
    with safe_open(target("safetensors", tmp_path), "numpy") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    assert json.loads(metadata["kerasport"])["convention"] == "torch"


def test_each_shard_loads_by_itself(tmp_path: Path) -> None:
    """As the loaders of the Hugging Face hub do it: by the index's weight map."""
    from safetensors import safe_open

    state = small_model()
    index, *_ = safetensors.write(state, tmp_path / "model.safetensors", max_shard_size=30)
    places = json.loads(index.read_text())["weight_map"]
    assert set(places) == set(state)
    for name, shard in places.items():
        with safe_open(tmp_path / shard, "numpy") as file:
            np.testing.assert_array_equal(file.get_tensor(name), state[name].numpy())


@pytest.mark.parametrize("limit", [0, 1 << 20], ids=["external", "inline"])
def test_onnx_accepts_the_model(tmp_path: Path, limit: int) -> None:
    import onnx as library
    from onnx import numpy_helper

    state = every_dtype(without=FORMATS["onnx"][1])
    model, *_ = onnx.write(state, tmp_path / "m.onnx", inline_limit=limit)
    library.checker.check_model(str(model), full_check=True)
    loaded = library.load(str(model))
    assert (loaded.ir_version, loaded.opset_import[0].version) == (10, 21)
    assert [tensor.name for tensor in loaded.graph.initializer] == list(state)
    for tensor in loaded.graph.initializer:
        found = numpy_helper.to_array(tensor)
        expected = state[tensor.name]
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(bits(found), bits(expected.numpy()), tensor.name)
    (entry,) = loaded.metadata_props
    assert entry.key == "kerasport"
    assert list(json.loads(entry.value)["tensors"]) == list(state)


def test_the_message_is_as_the_onnx_library_writes_it(tmp_path: Path) -> None:
    """Nothing lost, nothing added: parsed and written again, it is the same."""
    import onnx as library

    onnx.write(small_model(), tmp_path / "m.onnx")
    loaded = library.load(str(tmp_path / "m.onnx"))
    again = library.ModelProto.FromString(loaded.SerializeToString())
    assert again == loaded
    assert len(loaded.SerializeToString()) == (tmp_path / "m.onnx").stat().st_size


def two_layers() -> StateDict:
    """A layer of norm 5 in f32, and one of norm 13 in f64 and i32, to be told apart by SQL."""
    model = small_model()
    made: dict[str, tuple[str, Array]] = {
        "a.weight": ("a", np.array([[3, 0, 4]], np.float32)),
        "b.weight": ("b", np.array([5, 0], np.float64)),
        "b.count": ("b", np.array([12], np.int32)),
    }
    entry = model.manifest["tensors"]["stem/conv.bias"]
    entries = {
        name: {**entry, "layer": layer, "dtype": dtype_name(values.dtype), "layout": None}
        | {"shape": list(values.shape), "sizes": {}}
        for name, (layer, values) in made.items()
    }
    tensors = {name: Tensor.of(name, values) for name, (_, values) in made.items()}
    return StateDict("torch", tensors, {**model.manifest, "tensors": entries})


def published(language: str) -> str:
    """The example of that language in the published schema, which says that it works."""
    page = Path(__file__).parent.parent / "schemas" / "tensors.v1.md"
    return page.read_text().partition(f"```{language}\n")[2].partition("```")[0]


@pytest.mark.parametrize("part", [1, 1 << 20], ids=["parts", "whole"])
def test_duckdb_computes_the_norm_of_each_layer(
    tmp_path: Path, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import duckdb

    monkeypatch.setattr(table, "PART", part)
    monkeypatch.chdir(tmp_path)
    writer("parquet")(two_layers(), tmp_path / "model.parquet")
    assert duckdb.sql(published("sql")).fetchall() == [("a", 5.0), ("b", 13.0)]


def test_duckdb_sees_the_columns_of_the_schema(tmp_path: Path) -> None:
    import duckdb

    path = target("parquet", tmp_path)
    writer("parquet")(small_model(), path)
    rows = duckdb.sql(
        f'SELECT name, layer, kind, role, axes, layout, shape, dtype, trainable, "values"[2] '
        f"FROM '{path}' WHERE start = 0"
    ).fetchall()
    weight = small_model()["stem/conv.weight"].numpy()
    assert rows[0] == (
        "stem/conv.weight",
        "stem/conv",
        "Conv2D",
        "kernel",
        ["out", "in", "kh", "kw"],
        "out in kh kw",
        [5, 3, 2, 7],
        "f32",
        True,
        weight[0, 0, 0, 1],
    )
    assert [row[8] for row in rows] == [True, True, False]
    (text,) = duckdb.sql(
        f"SELECT value FROM parquet_kv_metadata('{path}') WHERE key = 'kerasport'"
    ).fetchall()[0]
    assert json.loads(text)["convention"] == "torch"


def test_duckdb_reads_arrow_through_pyarrow(tmp_path: Path) -> None:
    import duckdb
    import pyarrow as pa

    writer("arrow")(two_layers(), target("arrow", tmp_path))
    with pa.memory_map(str(target("arrow", tmp_path))) as source:
        tensors = pa.ipc.open_file(source).read_all()
        assert len(tensors) == 3
        found = duckdb.sql("SELECT name, list_max(\"values\") FROM tensors WHERE layer = 'a'")
        assert found.fetchall() == [("a.weight", 4.0)]


def test_polars_computes_the_norm_of_each_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    writer("parquet")(two_layers(), tmp_path / "model.parquet")
    code = published("python")
    assert code.count("pl.scan_parquet") == 1
    names: dict[str, Any] = {}
    exec(code.replace("pl.scan_parquet", "found = pl.scan_parquet"), names)
    assert ("a", 5.0) in names["found"].rows()


@pytest.mark.parametrize("name", ["arrow", "parquet"])
def test_polars_reads_both(name: str, tmp_path: Path) -> None:
    import polars

    path = target(name, tmp_path)
    writer(name)(small_model(), path)
    frame = (polars.read_ipc if name == "arrow" else polars.read_parquet)(path)
    row = frame.filter(polars.col("name") == "norm.running_mean").row(0, named=True)
    assert (row["shape"], row["role"], row["trainable"]) == ([5], "moving_mean", False)
    expected = small_model()["norm.running_mean"].numpy()
    np.testing.assert_array_equal(np.array(row["values"], np.float32), expected)


@pytest.mark.parametrize("name", ["arrow", "parquet"])
def test_pyarrow_reads_numbers_and_exact_bytes(name: str, tmp_path: Path) -> None:
    """Every dtype by the published table: where its numbers are, and where its bytes."""
    import pyarrow as pa
    import pyarrow.parquet

    state = every_dtype()
    path = target(name, tmp_path)
    writer(name)(state, path)
    if name == "parquet":
        rows = pa.parquet.read_table(path).to_pylist()
    else:
        with pa.memory_map(str(path)) as source:
            rows = pa.ipc.open_file(source).read_all().to_pylist()
    assert [row["name"] for row in rows] == list(state)
    for row in rows:
        tensor = state[row["name"]].numpy()
        exact = row["dtype"] in ("f32", "f64")
        assert (row["data"] is None) == exact
        assert row["data"] is None or row["data"] == tensor.tobytes()
        wide = row["dtype"] in ("f64", "i32", "u32", "i64", "u64")
        narrow = not wide and row["dtype"] not in ("c64", "c128")
        assert (row["values"] is not None, row["values64"] is not None) == (narrow, wide)
        numbers = row["values64"] if wide else row["values"]
        if numbers is not None:
            expected = tensor.astype(np.float64).reshape(-1)
            np.testing.assert_array_equal(np.array(numbers, np.float64), expected)


def test_the_published_columns_are_the_columns() -> None:
    page = (Path(__file__).parent.parent / "schemas" / "tensors.v1.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    published_types = {cells[1].strip(" `"): cells[2].strip() for cells in rows if len(cells) == 6}
    names = {
        "string": "string",
        "list of string": "list<element: string>",
        "list of int64": "list<element: int64>",
        "list of float32": "list<element: float>",
        "list of float64": "list<element: double>",
        "int64": "int64",
        "bool": "bool",
        "binary": "binary",
    }
    schema = table.schema()
    found = {field.name: str(field.type).replace("<item", "<element") for field in schema}
    assert {name: names[kind] for name, kind in published_types.items()} == found
    nullable = {
        cells[1].strip(" `"): cells[3].strip() != "never" for cells in rows if len(cells) == 6
    }
    assert nullable == {field.name: field.nullable for field in schema}
    assert f"{table.PART:,} elements" in page


def test_a_table_that_another_tool_has_rewritten_still_reads(tmp_path: Path) -> None:
    """DuckDB drops the metadata and compresses; Polars has other list types."""
    import duckdb
    import polars

    from kerasport.readers import arrow, parquet

    state = small_model()
    path = target("parquet", tmp_path)
    writer("parquet")(state, path)
    duckdb.sql(f"COPY (SELECT * FROM '{path}') TO '{tmp_path}/duck.parquet'")
    polars.read_parquet(path).write_parquet(tmp_path / "polars.parquet")
    polars.read_parquet(path).write_ipc(
        tmp_path / "polars.arrow", compat_level=polars.CompatLevel.oldest()
    )
    for read, name in (
        (parquet.read, "duck.parquet"),
        (parquet.read, "polars.parquet"),
        (arrow.read, "polars.arrow"),
    ):
        found = read(tmp_path / name)
        assert found.convention == "unknown"
        assert list(found) == list(state)
        for key, tensor in state.items():
            assert (found[key].layout, found[key].role) == (tensor.layout, tensor.role)
            np.testing.assert_array_equal(found[key].numpy(), tensor.numpy())
