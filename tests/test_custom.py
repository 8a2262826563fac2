"""Layers of a user's own: described without Python, checked when read, and proven by outputs."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from keras import layers as L

import kerasport
from kerasport import custom, testing
from kerasport.cli import main
from kerasport.conventions import Slot
from kerasport.custom import LayerTable
from kerasport.errors import MalformedError, UnsupportedError, UsageError
from kerasport.identify import identify
from kerasport.model import Layer, Snapshot, Source, Tensor
from own_layers import (
    BLOCK,
    GATED,
    GATED_TOML,
    LEAK,
    PAIR,
    Block,
    GatedUnit,
    Leak,
    Pair,
    TorchBlock,
    TorchGatedUnit,
)

JSON = Any
ROOT = Path(__file__).parent.parent
SCHEMA: JSON = json.loads((ROOT / "schemas" / "layers.v1.schema.json").read_text())
X = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    layers = [keras.Input((3,)), GatedUnit(5, name="gated"), Block(7, name="block")]
    made = keras.Sequential([*layers, L.Dense(2, name="head")], name="mine")
    testing.randomize(made)
    return made


@pytest.fixture(scope="module")
def saved(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    model.save(folder / "m.keras")
    model.save(folder / "m.h5")
    (folder / "layers.toml").write_text(GATED_TOML)
    return folder


def built(layer: keras.layers.Layer, *shape: int | None) -> Any:
    layer.build((None, *shape))
    testing.randomize(layer)
    return layer


def kinds(snapshot: Snapshot) -> dict[str, str | None]:
    return {layer.path: layer.kind for layer in snapshot.layers}


# ------------------------------------------------------------------- three ways to describe a layer


@pytest.mark.parametrize("use_bias", [True, False])
def test_a_layer_described_in_toml_puts_out_the_same_in_torch(saved: Path, use_bias: bool) -> None:
    for units in (5, 3):  # 3: a square kernel, where no shape can tell
        layer = built(GatedUnit(units, use_bias=use_bias), 3)
        module = TorchGatedUnit(3, units, bias=use_bias)
        testing.compare(layer, module, inputs=[X], layers=saved / "layers.toml")


def test_a_layer_described_in_python_has_the_same_table() -> None:
    assert LayerTable.of(GATED).rows("torch") == LayerTable.of(tomllib.loads(GATED_TOML)).rows(
        "torch"
    )
    testing.compare(built(GatedUnit(5), 3), TorchGatedUnit(3, 5), inputs=[X], layers=GATED)


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package, as Python sees one: metadata with an entry point, and a module."""
    (tmp_path / "gated_layers.py").write_text(f"LAYERS = {GATED!r}\n")
    info = tmp_path / "gated_layers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gated-layers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{custom.GROUP}]\ngated = gated_layers:LAYERS\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    custom.installed.cache_clear()
    yield tmp_path
    custom.installed.cache_clear()
    sys.modules.pop("gated_layers", None)


def test_a_layer_described_by_a_package_needs_no_option(plug_in: Path, saved: Path) -> None:
    assert any(point.name == "gated" for point in metadata.entry_points(group=custom.GROUP))
    testing.compare(built(GatedUnit(5), 3), TorchGatedUnit(3, 5), inputs=[X])
    assert kinds(kerasport.read(saved / "m.keras"))["gated"] == "demo>GatedUnit"


def test_without_the_package_the_class_is_not_known(saved: Path) -> None:
    assert kinds(kerasport.read(saved / "m.keras"))["gated"] is None


def test_what_is_given_comes_before_what_is_installed(plug_in: Path, saved: Path) -> None:
    mine = copy.deepcopy(GATED)
    mine["demo>GatedUnit"]["torch"]["value.weight"]["layout"] = "in out"
    steps = kerasport.plan(kerasport.read(built(GatedUnit(5), 3), layers=mine), to="torch")
    assert str(steps.moves[0].layout) == "in out"


@pytest.mark.parametrize(
    ("module", "fault"),
    [
        ("LAYERS = 5", "expected a mapping or the path of a file, found 5"),
        ("OTHER = {}", "expected descriptions of layers, found: module 'gated_layers' has no"),
        ("LAYERS = {'A': {}}", "A: says neither what it stores"),
        ("import not_there", "No module named 'not_there'"),
    ],
)
def test_a_package_that_cannot_be_used_is_named(plug_in: Path, module: str, fault: str) -> None:
    (plug_in / "gated_layers.py").write_text(module)
    with pytest.raises(UsageError, match="entry point gated = gated_layers:LAYERS") as caught:
        kerasport.read(built(GatedUnit(5), 3))
    assert fault in str(caught.value)


# ------------------------------------------------------------------------- what a description means


def test_a_slip_in_a_sentence_is_seen_in_the_outputs() -> None:
    """The twin of the proofs above: both kernels have one shape, so only outputs can tell."""
    wrong = copy.deepcopy(GATED)
    torch_row = wrong["demo>GatedUnit"]["torch"]
    torch_row["value.weight"]["weight"], torch_row["gate.weight"]["weight"] = "gate", "kernel"
    with pytest.raises(testing.Mismatch, match="GatedUnit: torch puts out something else in 10"):
        testing.compare(built(GatedUnit(5), 3), TorchGatedUnit(3, 5), inputs=[X], layers=wrong)


def test_a_square_kernel_that_is_not_transposed_is_seen_in_the_outputs() -> None:
    wrong = copy.deepcopy(GATED)
    wrong["demo>GatedUnit"]["torch"]["gate.weight"]["layout"] = "in out"
    with pytest.raises(testing.Mismatch):
        testing.compare(built(GatedUnit(3), 3), TorchGatedUnit(3, 3), inputs=[X], layers=wrong)


@pytest.mark.parametrize("file", ["m.keras", "m.h5"])
def test_files_and_the_live_model_hold_identical_bytes(
    file: str, saved: Path, model: keras.Model
) -> None:
    """A legacy file names parts after layers, and a list's parts are not told from others."""
    if file == "m.h5":
        table: JSON = GATED
        live, stored = (
            kerasport.api.select(kerasport.read(it, layers=table), include=["gated", "head"])
            for it in (model, saved / file)
        )
    else:
        live, stored = (kerasport.read(it, layers=BLOCK) for it in (model, saved / file))
    one, other = (kerasport.plan(it, to="torch").apply() for it in (live, stored))
    assert list(one) == list(other)
    for name, tensor in one.items():
        np.testing.assert_array_equal(tensor.numpy(), other[name].numpy())


def test_a_class_made_of_layers_is_described_by_its_parts(saved: Path) -> None:
    snapshot = kerasport.read(saved / "m.keras", layers=BLOCK)
    assert kinds(snapshot) == {
        "gated": "demo>GatedUnit",
        "block": "Block",
        "block/first": "Dense",
        "block/many/gated_unit": "demo>GatedUnit",
        "block/many/gated_unit_1": "demo>GatedUnit",
        "block/norm": "LayerNormalization",
        "head": "Dense",
    }
    assert not any(layer.inferred for layer in snapshot.layers)
    testing.compare(built(Block(7), 3), TorchBlock(3, 7), inputs=[X], layers=BLOCK)


def test_weights_of_parts_may_be_the_class_s_own_and_become_one_tensor() -> None:
    layer = built(Pair(5), 3)

    def apart(state: Any, x: Any) -> Any:
        both = x @ state["both.weight"].T
        return both[:, :5] - both[:, 5:]

    testing.compare(layer, apart, inputs=[X], layers=PAIR)
    swapped = copy.deepcopy(PAIR)
    swapped["Pair"]["torch"]["both.weight"]["layout"] = "([r l] out) in"
    with pytest.raises(testing.Mismatch):
        testing.compare(layer, apart, inputs=[X], layers=swapped)


def test_a_cell_of_one_s_own_stands_in_a_loop_of_keras() -> None:
    layer = built(L.RNN(Leak(5), name="loop"), 4, 3)
    x = np.random.default_rng(2).normal(size=(2, 4, 3)).astype(np.float32)

    def loop(state: Any, x: Any) -> Any:
        h = x.new_zeros(len(x), 5)
        for step in range(x.shape[1]):
            h = (x[:, step] @ state["kernel"].T + h * state["decay"]).tanh()
        return h

    testing.compare(layer, loop, inputs=[x], layers=LEAK)
    (found,) = kerasport.read(layer).layers
    assert (found.kind, found.note) == (None, "the class demo>Leak is in no table")


def test_a_class_may_be_like_one_of_keras(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable(package="demo")
    class LoudDense(L.Dense):  # type: ignore[misc]
        pass

    layer = built(LoudDense(5, name="loud"), 3)
    (found,) = kerasport.read(layer, layers={"LoudDense": {"like": "Dense"}}).layers
    assert (found.class_name, found.kind) == ("demo>LoudDense", "Dense")
    assert kerasport.read(layer).layers[0].kind is None


def test_a_kind_of_one_s_own_settles_a_file_without_classes(
    model: keras.Model, tmp_path: Path
) -> None:
    model.save_weights(tmp_path / "m.weights.h5")
    read = kerasport.read(
        tmp_path / "m.weights.h5", layers=GATED, kinds={"gated": "demo>GatedUnit"}
    )
    assert kinds(read)["gated"] == "demo>GatedUnit"
    with pytest.raises(UsageError, match="--kind gated=demo>GatedUnit: expected the class or kind"):
        kerasport.read(tmp_path / "m.weights.h5", kinds={"gated": "demo>GatedUnit"})


def test_hints_come_from_the_description_and_the_configuration(saved: Path) -> None:
    steps = kerasport.plan(kerasport.read(saved / "m.keras", layers=BLOCK), to="torch")
    assert steps.layers["gated"]["hints"] == {
        "activation": {"value": "sigmoid", "changes_results": True},
        "width": {"value": 5, "changes_results": False},
    }


def test_a_size_that_the_configuration_contradicts_is_refused() -> None:
    layer = built(GatedUnit(5), 3)
    layer.units = 7
    (found,) = kerasport.read(layer, layers=GATED).layers
    assert found.kind is None
    assert "do not fit the description demo>GatedUnit: kernel: layout 'in out'" in found.note


def test_what_is_left_unsaid_of_a_target_says_so(saved: Path) -> None:
    table = copy.deepcopy(BLOCK)
    with pytest.raises(UnsupportedError) as caught:
        kerasport.plan(kerasport.read(saved / "m.keras", layers=table), to="onnx").refuse_losses()
    assert caught.value.problems[0] == (
        "block/many/gated_unit: demo>GatedUnit: no operator of ONNX gates its input"
    )
    assert (
        "block: Block: its description says nothing of onnx; add a table [Block.onnx] to it"
        in caught.value.problems
    )


def test_cases_hold_under_conditions() -> None:
    table = {
        "Pair": {
            "keras": PAIR["Pair"]["keras"],
            "torch": [
                {
                    "where": "out = in",
                    "same": {"out": "in"},
                    "absent": "a square one is something else",
                },
                {"slots": PAIR["Pair"]["torch"]},
            ],
        }
    }
    assert list(testing.exported(built(Pair(5), 3), layers=table)) == ["both.weight"]
    with pytest.raises(UnsupportedError, match="a square one is something else"):
        testing.exported(built(Pair(3), 3), layers=table)


def test_a_class_of_keras_own_is_never_taken_for_a_user_s() -> None:
    """And a user's class called Dense is described under its registered name."""
    assert LayerTable.of({"demo>Dense": {"like": "Dense"}}).find("Dense") is None
    with pytest.raises(UsageError, match=r"Dense: is a layer of Keras; .*'package>Dense'"):
        LayerTable.of({"Dense": {"like": "Dense"}})


# ------------------------------------------------------------------- an archive carries the table


@pytest.mark.parametrize("suffix", [".safetensors", ".parquet", ".pt", ".onnx", ".arrow"])
def test_an_archive_carries_the_descriptions_that_it_needs(saved: Path, suffix: str) -> None:
    """In ten years the file of descriptions may be gone; the archive converts as the model did."""
    archive, source = saved / f"archive{suffix}", saved / "m.keras"
    read = kerasport.read(source, layers=BLOCK)
    kerasport.convert(read, archive, to="keras")
    again = kerasport.plan(kerasport.read(archive), to="torch").apply()
    direct = kerasport.plan(read, to="torch").apply()
    assert set(again) == set(direct)
    for name, tensor in direct.items():
        np.testing.assert_array_equal(tensor.numpy(), again[name].numpy())
    kerasport.verify(archive, against=read)
    assert kerasport.read(archive).custom.keys() == {"demo>GatedUnit", "Block"}


def test_an_archive_without_need_carries_none(tmp_path: Path) -> None:
    kerasport.convert(
        kerasport.read(ROOT / "fixtures" / "cnn.keras", layers=BLOCK),
        tmp_path / "x.pt",
        to="keras",
    )
    assert "custom" not in json.loads((tmp_path / "x.pt.json").read_text())


@pytest.mark.parametrize(
    "described",
    [
        {"demo>GatedUnit": 5},
        {"demo>GatedUnit": {"keras": {"kernel": "in ((("}}},
        {"demo>GatedUnit": {"keras": {"kernel": {"layout": "in", "aliases": 5}}}},
        {"demo>GatedUnit": {"keras": [[[{}]]]}},
        {"demo>GatedUnit": {"keras": {"kernel": "channel"}}},
    ],
)
def test_an_archive_that_lies_about_a_description_is_refused(
    saved: Path, described: JSON, tmp_path: Path
) -> None:
    kerasport.convert(
        kerasport.read(saved / "m.keras", layers=BLOCK), tmp_path / "x.pt", to="keras"
    )
    beside = tmp_path / "x.pt.json"
    document = json.loads(beside.read_text())
    beside.write_text(json.dumps({**document, "custom": described}))
    with pytest.raises(MalformedError):
        kerasport.read(tmp_path / "x.pt")


# ------------------------------------------------------------------------------ what can be wrong


def edited(path: str, value: JSON) -> JSON:
    """The description of the gated unit with one thing changed."""
    table = copy.deepcopy(GATED)
    place: JSON = table["demo>GatedUnit"]
    *above, last = path.split("/")
    for word in above:
        place = place[word]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return table


FAULTS: list[tuple[str, JSON, str]] = [
    (
        "keras/kernel",
        "in (out",
        "keras: kernel: layout 'in (out' is not a sentence of the grammar: '(' is not closed",
    ),
    ("keras/kernel", 5, "keras: kernel: expected a table, found 5"),
    ("keras/kernel", {"at": "x"}, "keras: kernel: expected a sentence, found None"),
    ("keras/bias/fill", 0, "keras: bias: 'fill' is none of layout, weight, at, when, child"),
    ("keras/bias/when", 1, "keras: bias: when: 1 is of the wrong type"),
    ("keras", None, "torch: needs a table 'keras' of what the class stores"),
    ("torch/gate.weight", None, "torch: gate would be lost, no tensor holds it"),
    (
        "torch/gate.weight/weight",
        "gat",
        "torch: gate.weight: holds 'gat', and the weights are bias, gate, kernel",
    ),
    (
        "torch/gate.weight/layout",
        "aus in",
        "torch: gate.weight: aus is no axis of a stored weight: in, out",
    ),
    (
        "torch/gate.weight/layout",
        "out ([a b] in)",
        "torch: gate.weight: the stored weights have no ",
    ),
    ("torch/gate.weight/dtype", "f33", "torch: gate.weight: dtype 'f33': expected one of"),
    ("torch/gate.weight/fill", True, "torch: gate.weight: fill: True is of the wrong type"),
    ("torch/gate.weight/needs", 3, "torch: gate.weight: needs: None is of the wrong type"),
    ("torch/gate.weight/when", "x", "torch: gate.weight: 'when' is none of layout, weight, at"),
    ("pytorch", {}, "'pytorch' is none of keras, onnx, torch, like, parts, sizes, hints"),
    ("sizes/width", "units", "sizes: width is no axis of a stored weight"),
    ("sizes/out", 0, "sizes: out: expected a key or a size, found 0"),
    ("like", "Dense", "is like a class of Keras, and so stores what that one does"),
    ("like", "Dens", "like: expected a class of Keras, found 'Dens'"),
    ("parts", {"a": "Dens"}, "parts: a: 'Dens' is neither a layer of Keras nor described here"),
    ("parts", {"a": 5}, "parts: a: expected a table, found 5"),
    ("parts", {"a": {"config": {}}}, "parts: a: expected a class, found {'config': {}}"),
    ("hints/width", {}, "hints: width: expected a value, or a key of the configuration"),
    ("hints/width", {"config": 3}, "hints: width: expected a value, or a key"),
    ("hints/width", float("nan"), "holds what JSON cannot"),
    ("keras", [{"slots": {"kernel": "in"}, "where": "in"}], "keras: where: expected an equation"),
    (
        "torch",
        [{"slots": GATED["demo>GatedUnit"]["torch"], "where": "out = four"}],
        "torch: where: four is no axis of a stored weight",
    ),
]


@pytest.mark.parametrize(("path", "value", "fault"), FAULTS, ids=[f"{p}={v}" for p, v, _ in FAULTS])
def test_a_fault_is_told_with_the_class_and_the_weight(path: str, value: JSON, fault: str) -> None:
    with pytest.raises(UsageError) as caught:
        LayerTable.of(edited(path, value), where="mine.toml")
    message = str(caught.value)
    assert message.startswith("mine.toml: a description cannot be used:\n  demo>GatedUnit: ")
    assert f"demo>GatedUnit: {fault}" in message


def test_all_faults_are_told_at_once() -> None:
    table = edited("keras/kernel", "in (out") | {"B": {"keras": {"w": "("}}, "A": {}}
    with pytest.raises(UsageError) as caught:
        LayerTable.of(table)
    lines = str(caught.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["A", "B", "demo>GatedUnit"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'["demo>GatedUnit"\n', r"layers\.toml: expected a file in TOML: .*line 1"),
        (b"\xff\xfe", r"layers\.toml: expected a file in TOML"),
        (b"GatedUnit = 5\n", r"layers\.toml: a description cannot be used:\n  GatedUnit: expected"),
    ],
)
def test_a_file_that_is_no_description_names_the_place(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "layers.toml").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        kerasport.read(ROOT / "fixtures" / "cnn.keras", layers=tmp_path / "layers.toml")
    with pytest.raises(UsageError, match=r"nowhere\.toml: expected a readable file, found: No"):
        kerasport.read(ROOT / "fixtures" / "cnn.keras", layers=tmp_path / "nowhere.toml")


# --------------------------------------------------------------------------------------- the schema


def complaints(table: JSON) -> list[str]:
    return [error.validator for error in Draft202012Validator(SCHEMA).iter_errors(table)]


def test_the_schema_takes_what_the_code_takes() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    for table in (GATED, BLOCK, LEAK, PAIR, {"A": {"like": "Dense"}}):
        assert complaints(table) == []
        LayerTable.of(table)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("keras/kernel", 5),
        ("keras/bias/fill", 0),
        ("keras/bias/when", 1),
        ("keras", None),
        ("torch/gate.weight/fill", True),
        ("torch/gate.weight/needs", 3),
        ("torch/gate.weight/when", "x"),
        ("pytorch", {}),
        ("sizes/out", 0),
        ("parts", {"a": 5}),
        ("parts", {"a": {"config": {}}}),
        ("hints/width", {}),
        ("hints/width", {"config": 3}),
    ],
)
def test_the_schema_refuses_what_the_code_refuses(path: str, value: JSON) -> None:
    assert complaints(edited(path, value)) != []
    with pytest.raises(UsageError):
        LayerTable.of(edited(path, value))


def test_the_words_of_the_schema_are_those_of_the_code() -> None:
    parts = SCHEMA["$defs"]
    stored, made = (
        parts[name]["additionalProperties"]["anyOf"][1]["properties"] for name in ("stored", "made")
    )
    assert (tuple(stored), tuple(made)) == (custom.STORED, custom.TARGET)
    assert set(parts["class"]["properties"]) == {"keras", "torch", "onnx", *custom.BESIDE}
    assert {*stored, *made} <= set(Slot._fields)


# ---------------------------------------------------------------------------------- what is unknown


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, err


def printed(message: str) -> str:
    """The TOML in an error."""
    return message[message.index('["demo>') :]


@pytest.mark.parametrize("file", ["m.keras", "m.h5"])
def test_an_unknown_class_prints_the_description_to_fill_in(
    file: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Filled in as it stands, with nothing but words for the question marks, it converts."""
    layer = GatedUnit(5, name="gated")
    made = keras.Sequential([keras.Input((3,)), layer, L.Dense(2, name="head")])
    testing.randomize(made)
    made.save(tmp_path / file)
    source, layers = tmp_path / file, tmp_path / "layers.toml"
    convert = ("convert", source, tmp_path / "x.pt", "--to", "torch")
    code, out, err = run(capsys, *convert)
    assert (code, out) == (5, "")
    numbered = file == "m.keras"
    names = ["weight_0", "weight_1", "weight_2"] if numbered else ["kernel", "gate", "bias"]
    stored = "0 f32[3,5], 1 f32[3,5], 2 f32[5]" if numbered else "kernel f32[3,5], gate f32[3,5]"
    assert f"gated: the class demo>GatedUnit is in no table (stored: {stored}" in err
    assert list(tomllib.loads(printed(err))["demo>GatedUnit"]["keras"]) == names
    # As it is printed it is refused, with the places where a word is missing.
    layers.write_text(printed(err))
    code, _, refused = run(capsys, "inspect", source, "--layers", layers)
    assert code == 2
    assert f"demo>GatedUnit: keras: {names[0]}: layout '? ?' is not a sentence" in refused

    in_keras, in_torch = printed(err).split("\n\n")
    layers.write_text(
        in_keras.replace("? ?", "in out").replace('"?"', '"out"')
        + "\n"
        + in_torch.replace("? ?", "out in").replace('"?"', '"out"')
    )
    assert run(capsys, *convert, "--layers", layers)[::2] == (0, "")
    state = torch.load(tmp_path / "x.pt", weights_only=True)
    for name, variable in zip(names, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(state[f"gated.{name}"].numpy().T, variable)


@pytest.mark.parametrize("file", ["m.keras", "m.h5"])
def test_the_layers_in_an_unknown_class_that_are_unknown_too_are_listed_as_its_parts(
    file: str, saved: Path
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        kerasport.plan(kerasport.read(saved / file), to="torch").refuse_losses()
    parts = tomllib.loads(printed(str(caught.value)))["demo>Block"]["parts"]
    # A legacy file has the name that Keras gave the layer, with a number if it was not the first.
    norm = "norm" if file == "m.keras" else "layer_normalization"
    assert [what for part, what in parts.items() if part.startswith(norm)] == ["?"]


def test_every_reading_verb_takes_descriptions(
    saved: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "layers.toml").write_text(
        GATED_TOML
        + '[Block]\nkeras = { scale = "c" }\ntorch = { scale = "c" }\n'
        + 'parts = { norm = "LayerNormalization", "many/*" = "demo>GatedUnit" }\n'
    )
    layers = ("--layers", tmp_path / "layers.toml")
    source, target = saved / "m.keras", tmp_path / "x.safetensors"
    assert run(capsys, "inspect", source, *layers)[0] == 0
    assert run(capsys, "plan", source, "--to", "torch", *layers)[0] == 0
    assert run(capsys, "convert", source, target, "--to", "torch", *layers)[0] == 0
    assert run(capsys, "verify", target, "--against", source, *layers)[0] == 0
    code, _, errors = run(capsys, "verify", target, "--against", source)
    assert code == 6
    assert "give --layers, --kind or --config here too" in errors


def test_what_is_unknown_is_kept_if_asked_for_and_no_loss(
    saved: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    target = tmp_path / "x.safetensors"
    words = ("convert", saved / "m.keras", target, "--to", "torch", "--unknown", "keep")
    code, out, _ = run(capsys, *words, "--json")
    assert code == 0
    kept = [note for note in json.loads(out)["notes"] if note["kind"] == "kept"]
    assert {note["subject"] for note in kept} >= {"gated", "block"}
    assert not any(note["loss"] for note in kept)
    state = kerasport.plan(kerasport.read(saved / "m.keras"), to="torch", unknown="keep").apply()
    gated = kerasport.read(saved / "m.keras")["gated"]
    for role, tensor in gated.weights.items():
        np.testing.assert_array_equal(state[f"gated.{role}"].numpy(), tensor.numpy())
    assert run(capsys, "verify", target, "--against", saved / "m.keras")[0] == 0


def test_tensors_of_no_layer_that_is_known_say_how_to_keep_them() -> None:
    """There is no class to describe then; a model of layers that are known says nothing of it."""
    odd = Layer("scale", None, {}, {"constant": Tensor.of("scale/constant", np.ones((2, 3, 4, 5)))})
    source = Source("model.tflite", "tflite")
    steps = kerasport.plan(identify(Snapshot(source, (odd,))), to="torch")
    assert steps.advice.endswith("--unknown keep.")
    kernel = {"kernel": Tensor.of("a/kernel", np.ones((3, 3, 5, 5)))}
    layers = tuple(Layer(path, None, {}, kernel) for path in ("conv2d", "conv2d_1"))
    advice = kerasport.plan(identify(Snapshot(source, layers)), to="torch").advice
    assert advice.endswith("--unknown keep. --kind takes patterns: --kind 'conv2d_*=Conv2D'.")
    with pytest.raises(UnsupportedError, match="--unknown keep"):
        steps.refuse_losses()
    refused = keras.Sequential([keras.Input((4, 3)), L.GRU(5, reset_after=False)])
    steps = kerasport.plan(kerasport.read(refused), to="torch")
    assert steps.problems
    assert steps.advice == ""


def test_keeping_the_unknown_does_not_keep_what_the_target_cannot_hold() -> None:
    """`--no-strict` keeps that too, and calls it a loss."""
    layers = [keras.Input((4, 3)), L.GRU(5, reset_after=False, name="gru", return_sequences=True)]
    snapshot = kerasport.read(keras.Sequential([*layers, GatedUnit(5, name="gated")]))
    steps = kerasport.plan(snapshot, to="torch", unknown="keep")
    assert [problem.partition(":")[0] for problem in steps.problems] == ["gru"]
    loose = kerasport.plan(snapshot, to="torch", strict=False)
    assert loose.problems == ()
    assert {note.subject: note.loss for note in loose.notes if note.kind == "kept"} == {
        "gru": True,
        "gated": True,
    }
    with pytest.raises(UsageError, match="unknown 'guess': expected one of error, keep"):
        kerasport.plan(snapshot, to="torch", unknown="guess")


# --------------------------------------------------------------------------------------- the ledger


def test_the_report_is_complete_when_the_conversion_is_refused(
    saved: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ("convert", saved / "m.keras", tmp_path / "x.pt", "--to", "torch", "--json")
    code, out, err = run(capsys, *words)
    assert code == 5
    report = json.loads(out)
    schema = json.loads((ROOT / "schemas" / "report.v1.schema.json").read_text())
    assert list(Draft202012Validator(schema).iter_errors(report)) == []
    problems = report["problems"]
    assert problems == sorted(set(problems))
    assert all(problem in err for problem in problems)
    refused = {problem.partition(":")[0] for problem in problems}
    snapshot = kerasport.read(saved / "m.keras")
    held = [layer for layer in snapshot.layers if layer.path not in refused]
    assert report["placed"] == sum(len(layer.weights) for layer in held)
    assert not (tmp_path / "x.pt").exists()
    assert json.loads(run(capsys, *words, "--unknown", "keep")[1])["problems"] == []


def test_the_command_line_says_it_in_a_process_of_its_own(saved: Path) -> None:
    command = [sys.executable, "-m", "kerasport", "plan", str(saved / "m.keras"), "--to", "torch"]
    environment = {"PYTHONPATH": str(ROOT / "convert"), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 5
    assert tomllib.loads(printed(done.stderr)).keys() == {"demo>GatedUnit", "demo>Block"}


def test_the_description_in_the_readme_is_one_that_works() -> None:
    readme = (ROOT / "README.md").read_text()
    blocks = [part.partition("```")[0] for part in readme.split("```toml\n")[1:]]
    table = tomllib.loads("\n".join(block for block in blocks if "[GatedUnit." in block))
    assert table.keys() == {"GatedUnit", "Block"}
    assert complaints(table) == []
    testing.compare(built(GatedUnit(5), 3), TorchGatedUnit(3, 5), inputs=[X], layers=table)
