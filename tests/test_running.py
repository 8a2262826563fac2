"""A module run beside Keras: the table, and that it names the layer at fault.

Every comparison has its twin: a wrong weight or a wrong epsilon is planted in one layer, and that
layer is the first to be named.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator

import kerasport
from generated import randomized
from graphs import IMAGE, Program, model, programs
from kerasport import cli
from kerasport.errors import (
    MissingExtraError,
    UnsupportedError,
    UsageError,
    VerificationError,
)
from kerasport.running import samples
from kerasport.running.comparison import RunReport, in_kerases_order, row
from kerasport.running.samples import Hint, Input
from test_cli import Run
from test_codegen_models import CORPUS, in_corpus, library

L = keras.layers
ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "fixtures"
CNN = FIXTURES / "cnn.keras"
GRAPHS = int(os.environ.get("KERASPORT_GRAPHS", "4"))
Command = Callable[..., Run]


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Run:
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        code = ended.value.code
        assert isinstance(code, int)
        return Run(code, *capsys.readouterr())

    return run


def ran(against: Any, folder: Path, **options: Any) -> RunReport:
    """The module of a model beside it."""
    given = {"layers": options["layers"]} if "layers" in options else {}
    kerasport.write_module(against, folder / "out", **given)
    return kerasport.verify_run(folder / "out", against=against, **options)


def refused(against: Any, folder: Path, **options: Any) -> RunReport:
    """The report of a module that does not compute what it should."""
    with pytest.raises(VerificationError) as caught:
        kerasport.verify_run(folder, against=against, **options)
    report = caught.value.report
    assert isinstance(report, RunReport)
    assert report.first is not None
    assert report.first.path in str(caught.value)
    return report


def spoil(path: Path, name: str) -> None:
    """Make the numbers of one tensor of a safetensors file larger by a tenth."""
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    first, last = (start + n for n in json.loads(data[8:start])[name]["data_offsets"])
    values = np.frombuffer(data[first:last], np.float32) * np.float32(1.1) + np.float32(0.01)
    data[first:last] = values.tobytes()
    path.write_bytes(data)


# ------------------------------------------------------------------------------------- whole models


@pytest.mark.parametrize(
    ("file", "by", "layers"),
    [
        ("cnn.keras", "keras 3", 9),
        ("cnn.misnamed.keras", "keras 3", 9),
        ("sequence.legacy.h5", "keras 3", 5),
        ("attention.keras", "keras 3", 10),
        ("sequence.tf_keras.h5", "tf_keras 2", 5),
        ("attention.tf_keras.keras", "tf_keras 2", 10),
    ],
)
def test_every_layer_of_a_fixture_is_compared(
    file: str, by: str, layers: int, tmp_path: Path
) -> None:
    report = ran(FIXTURES / file, tmp_path)
    assert report.first is None
    assert report.by.startswith(by)
    assert len(report.layers) == layers
    assert len(report.outputs) == 1
    assert max(row.absolute for row in report.layers) > 0


def test_an_architecture_may_come_from_elsewhere(tmp_path: Path) -> None:
    snapshot = kerasport.read(
        FIXTURES / "attention.weights.h5", config=FIXTURES / "attention.keras"
    )
    report = ran(snapshot, tmp_path)
    assert (report.first, len(report.layers)) == (None, 10)


def nested() -> Any:
    """Two towers that are one model, layers that are called in another order than they are listed.

    And models inside models whose layers have the same names.
    """
    a, b = keras.Input((6, 5, 3), name="left"), keras.Input((6, 5, 3), name="right")
    i = keras.Input((6, 5, 3))
    x = L.BatchNormalization(name="norm")(L.Conv2D(4, 3, padding="same", name="conv")(i))
    tower = keras.Model(i, L.Flatten(name="flat")(x), name="tower")
    j = keras.Input((120,))
    head = keras.Sequential([j, L.Dense(7, "relu", name="norm"), L.Dense(5, name="conv")], name="h")
    k = keras.Input((120,))
    outer = keras.Model(k, L.Activation("tanh", name="flat")(head(k)), name="outer")
    shared = L.Dense(5, name="shared")
    deep = shared(outer(tower(b)))
    early = shared(outer(tower(a)))
    late = shared(L.ReLU(name="relu")(early))
    return keras.Model([a, b], [L.Subtract(name="minus")([deep, late]), early])


def test_each_call_of_a_shared_layer_is_compared_with_its_own(tmp_path: Path) -> None:
    made = nested()
    randomized(made)
    report = ran(made, tmp_path)
    assert report.first is None
    paths = [row.path for row in report.layers]
    for path in (
        *("tower/conv", "tower/conv call 2", "tower/norm", "tower", "tower call 2"),
        *("outer/h/norm call 2", "outer/h/conv", "shared", "shared call 2", "shared call 3"),
        *("minus", "relu"),
    ):
        assert path in paths
    assert len(paths) == len(set(paths)) == 2 * (3 + 1 + 2 + 1 + 1 + 1) + 3 + 2
    assert [row.path for row in report.outputs] == ["output 1", "output 2"]


@settings(
    max_examples=GRAPHS,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(programs())
def test_every_layer_of_a_random_graph_is_compared(program: Program) -> None:
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    made = model(program)
    randomized(made)
    with tempfile.TemporaryDirectory() as folder:
        report = ran(made, Path(folder))
    assert report.first is None
    heard = {row.path.partition("/")[0].partition(" ")[0] for row in report.layers}
    assert {op.name for op in made.operations if type(op).__name__ != "InputLayer"} <= heard
    assert all(
        len(inputs) == len(IMAGE[kind]) + 1
        for inputs, kind in zip(report.inputs.values(), program.inputs, strict=True)
    )


def test_the_model_is_as_it_was_afterwards(tmp_path: Path) -> None:
    made = nested()
    before = [dict(layer.__dict__) for layer in made._flatten_layers()]
    ran(made, tmp_path)
    after = [dict(layer.__dict__) for layer in made._flatten_layers()]
    assert [sorted(layer) for layer in after] == [sorted(layer) for layer in before]
    assert all("call" not in layer for layer in after)


def test_in_float64_rounding_goes(tmp_path: Path) -> None:
    single = ran(FIXTURES / "sequence.keras", tmp_path)
    double = kerasport.verify_run(
        tmp_path / "out", against=FIXTURES / "sequence.keras", dtype="f64"
    )
    worst = [max(row.absolute for row in report.layers) for report in (single, double)]
    assert worst[0] > 1e-8
    assert worst[1] < 1e-12
    assert (single.dtype, double.dtype) == ("f32", "f64")
    assert keras.config.floatx() == "float32"


def test_what_a_policy_says_is_no_deviation(tmp_path: Path) -> None:
    """A model that computes in half precision is asked in the module's."""
    i = keras.Input((5,))
    with_half = L.Dense(4, dtype="mixed_float16")(i)
    made = keras.Model(i, L.Dense(3, dtype="mixed_bfloat16")(with_half))
    randomized(made)
    report = ran(made, tmp_path)
    assert report.first is None
    assert "computed in float32; the model says float16, mixed_bfloat16, mixed" in report.notes[0]


def test_where_float64_cannot_be_asked_the_report_says_so(tmp_path: Path) -> None:
    """TensorFlow pools volumes in single precision only."""
    i = keras.Input((4, 4, 4, 2))
    made = keras.Model(i, L.MaxPooling3D(2)(L.Conv3D(3, 2, padding="same")(i)))
    randomized(made)
    kerasport.write_module(made, tmp_path)
    report = refused(made, tmp_path, tolerance=0.0)
    assert report.dtype == "f32"
    assert report.notes[-1].startswith("f64 would tell a bug from rounding: ")
    assert "float64" in report.notes[-1] or "double" in report.notes[-1]


def test_rounding_is_no_fault(tmp_path: Path) -> None:
    """Forty layers, each of which adds to what the others have lost."""
    i = x = keras.Input((8,))
    for n in range(40):
        x = L.LayerNormalization(name=f"n{n}")(L.Dense(8, name=f"d{n}")(x))
    made = keras.Model(i, x)
    randomized(made)
    kerasport.write_module(made, tmp_path, vectors=True)
    tight: dict[str, Any] = {"tolerance": 1e-7}
    strict = refused(made, tmp_path, dtype="f32", **tight)
    report = kerasport.verify_run(tmp_path, against=made, **tight)
    assert (report.first, report.dtype) == (None, "f64")
    assert strict.first is not None
    assert f"in f32 {strict.first.path} leaves the tolerance by rounding" in report.notes[-1]
    # The stored vectors settle it too, without Keras.
    stored = kerasport.verify_run(tmp_path, **tight)
    assert (stored.first, stored.dtype) == (None, "f64")
    spoil(tmp_path / "model.safetensors", "d39.bias")
    assert refused(made, tmp_path, **tight).first.path == "d39"  # type: ignore[union-attr]
    with pytest.raises(VerificationError, match="is output, by"):
        kerasport.verify_run(tmp_path, **tight)


@pytest.mark.parametrize(
    ("file", "options", "said"),
    [
        ("cnn.keras", {"dtype": "bf16"}, "the weights were cast when the module was written"),
        ("tokens.int8.keras", {}, "Keras rounds what goes through quantized layers"),
    ],
)
def test_what_must_deviate_is_said(
    file: str, options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    read = kerasport.read(FIXTURES / file, dequantize="int8" in file)
    kerasport.write_module(read, tmp_path, **options)
    report = refused(FIXTURES / file, tmp_path)
    assert any(said in note for note in report.notes)


def test_what_keras_forgets_is_said(tmp_path: Path) -> None:
    """Keras 3.15 opens low-rank factors in HDF5 without their alpha, and is no measure then."""
    path = FIXTURES / "tokens.lora.h5"
    kerasport.write_module(kerasport.read(path, merge_lora=True), tmp_path)
    report = refused(path, tmp_path)
    assert any("forgotten of the file: lora_alpha 3.0 of value" in note for note in report.notes)
    with np.load(FIXTURES / "tokens.io.npz") as held:
        np.savez(tmp_path / "io.npz", inputs=held["inputs"], outputs=held["lora"])
    merged = kerasport.read(path, merge_lora=True)
    kerasport.write_module(merged, tmp_path, vectors=tmp_path / "io.npz")
    assert kerasport.verify_run(tmp_path).first is None


def test_the_same_seed_gives_the_same_table(tmp_path: Path) -> None:
    first = ran(CNN, tmp_path)
    again = kerasport.verify_run(tmp_path / "out", against=CNN)
    other = kerasport.verify_run(tmp_path / "out", against=CNN, seed=1)
    assert first == again
    assert first.layers[0] != other.layers[0]


# -------------------------------------------------------------------------------- planted faults


PARAMETERS = (
    "stem.bias",
    "stem_norm.running_mean",
    "mix.weight",
    "head_conv.bias",
    "logits.weight",
)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_wrong_weight_is_found_in_its_layer(name: str, tmp_path: Path) -> None:
    kerasport.write_module(CNN, tmp_path)
    spoil(tmp_path / "model.safetensors", name)
    report = refused(CNN, tmp_path)
    assert report.first is not None
    assert report.first.path == name.partition(".")[0]
    assert not report.outputs[0].within


def test_a_wrong_weight_is_found_in_a_model_inside_a_model(tmp_path: Path) -> None:
    made = nested()
    randomized(made)
    kerasport.write_module(made, tmp_path)
    spoil(tmp_path / "model.safetensors", "outer.h.conv.bias")
    assert refused(made, tmp_path).first.path == "outer/h/conv"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("file", "right", "wrong", "layer"),
    [
        ("cnn.keras", "eps=0.001", "eps=0.1", "stem_norm"),
        ("cnn.keras", "torch.relu(self.mix(x))", "self.mix(x)", "mix"),
        ("attention.keras", "eps=0.001", "eps=0.1", "attend_norm"),
        ("attention.keras", "x = x + y", "x = x - y", "attend_sum"),
        ("attention.keras", "torch.relu(self.widen", "torch.tanh(self.widen", "mlp/widen"),
        ("sequence.keras", "self.reader(x)[0]", "self.reader(x)[0].flip(1)", "reader"),
        ("cnn.keras", "x.flatten(1)", "x.flatten(1).flip(1)", "unroll"),
        ("cnn.keras", "x.flatten(1)", "x.flatten(1)[:, :60]", "unroll"),
    ],
)
def test_a_wrong_line_is_found_in_its_layer(
    file: str, right: str, wrong: str, layer: str, tmp_path: Path
) -> None:
    kerasport.write_module(FIXTURES / file, tmp_path)
    path = tmp_path / "model.py"
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 1))
    if "60" in wrong:  # the next layer cannot even be computed
        with pytest.raises(VerificationError, match="expected a module that runs, found Runtime"):
            kerasport.verify_run(tmp_path, against=FIXTURES / file)
        return
    assert refused(FIXTURES / file, tmp_path).first.path == layer  # type: ignore[union-attr]


def test_a_forward_that_was_rewritten_is_compared_by_its_outputs(tmp_path: Path) -> None:
    kerasport.write_module(CNN, tmp_path)
    path = tmp_path / "model.py"
    text = path.read_text()
    edited = text.replace(
        "        x = self.thin(x)\n        x = self.logits(x)\n        return x\n",
        "        return self.logits(x)\n",
    )
    assert edited != text
    path.write_text(edited)
    report = kerasport.verify_run(tmp_path, against=CNN)
    assert (report.layers, len(report.outputs)) == ((), 1)
    assert "its outputs alone are compared" in report.notes[0]
    path.write_text(edited.replace("eps=0.001", "eps=0.1"))
    assert refused(CNN, tmp_path).first.path == "output"  # type: ignore[union-attr]


def test_comments_and_names_of_ones_own_change_nothing(tmp_path: Path) -> None:
    kerasport.write_module(CNN, tmp_path)
    path = tmp_path / "model.py"
    path.write_text(
        path.read_text().replace(
            "        x = self.thin(x)", "        # mine\n        x = self.thin(x)"
        )
    )
    assert len(kerasport.verify_run(tmp_path, against=CNN).layers) == 9


def test_numbers_are_compared_by_value_and_scale() -> None:
    wanted = np.array([1000.0, 0.0])
    for shift, within in ((0.009, True), (0.02, False)):
        assert row("x", "", found=wanted + shift, wanted=wanted, tolerance=1e-5).within is within
    tiny = np.array([1e-7])
    assert row("x", "", found=tiny * 3, wanted=tiny, tolerance=1e-5).within
    nan, inf = np.array([np.nan, 1.0]), np.array([np.inf, 1.0])
    assert row("x", "", found=nan, wanted=nan, tolerance=0).within
    assert row("x", "", found=inf, wanted=inf, tolerance=0).within
    assert not row("x", "", found=nan, wanted=np.ones(2), tolerance=1).within
    assert not row("x", "", found=np.ones(2), wanted=nan, tolerance=1).within
    assert not row("x", "", found=-inf, wanted=inf, tolerance=1).within
    other = row("x", "", found=np.ones((2, 1)), wanted=np.ones(2), tolerance=1)
    assert (other.within, other.note) == (False, "the module gives [2,1]")
    assert row("x", "", found=np.zeros((0, 3)), wanted=np.zeros((0, 3)), tolerance=0).within


def test_a_module_that_gives_more_axes_is_left_as_it_is() -> None:
    assert in_kerases_order(np.zeros((2, 3)), order=(0, 3, 1, 2)).shape == (2, 3)


# ------------------------------------------------------------------------------------------- inputs


def test_token_numbers_are_drawn_from_the_vocabulary(tmp_path: Path) -> None:
    i, j = keras.Input((None,), name="words"), keras.Input((4,), name="rest")
    inner = keras.Sequential([keras.Input((None,)), L.Embedding(11, 3, mask_zero=True)])
    x = L.GlobalAveragePooling1D()(inner(i[:, 1:]))
    made = keras.Model({"words": i, "rest": j}, {"y": L.Concatenate()([x, j])})
    randomized(made)
    report = ran(made, tmp_path)
    assert report.first is None
    assert report.inputs == {"words": (2, 16), "rest": (2, 4)}


def test_hints_are_followed_through_layers_without_weights() -> None:
    from kerasport.architecture import parse

    i, j = keras.Input((6,), name="words"), keras.Input((6,), name="numbers")
    x = L.Embedding(11, 3)(L.Reshape((3, 2))(i))
    y = L.TimeDistributed(L.Embedding(7, 3))(L.Reshape((3, 4))(L.Concatenate()([i, i])))
    z = L.Embedding(5, 3)(L.Dense(2)(j))
    read = kerasport.read(keras.Model([i, j], [x, y, z]))
    graph = parse(read.architecture or {})
    assert graph is not None
    assert samples.hints(graph, list(read)) == {0: Hint(entries=7)}


def test_drawn_numbers_make_sense() -> None:
    inputs = [
        Input("words", (None, 8), "float32"),
        Input("image", (None, None, None, 3), "float32"),
        Input("mask", (5, 8), "bool"),
        Input("pixels", (None, 4), "float32"),
    ]
    known = {"words": Hint(entries=9), "pixels": Hint(largest=255.0)}
    words, image, mask, pixels = samples.drawn(inputs, known, seed=0, steps=16, image=(64, 96))
    assert set(words[1, 6:]) == {0.0}
    assert 1 <= words[0].min() <= words.max() < 9
    assert image.shape == (2, 64, 96, 3)
    assert mask[:, 0].all()
    assert not mask.all()
    assert 0 <= pixels.min() < pixels.max() <= 255
    assert [x.dtype for x in (words, mask)] == [np.float32, np.bool_]


def test_open_sizes_grow_until_the_model_runs(tmp_path: Path) -> None:
    i = keras.Input((None, 2))
    x = L.Conv1D(3, 9, strides=4)(i)
    made = keras.Model(i, L.GlobalMaxPooling1D()(L.Conv1D(3, 9, strides=4)(x)))
    randomized(made)
    assert next(iter(ran(made, tmp_path).inputs.values())) == (2, 64, 2)


def test_a_users_own_inputs_are_taken(tmp_path: Path) -> None:
    kerasport.write_module(CNN, tmp_path)
    io = np.load(FIXTURES / "cnn.io.npz")
    np.savez(tmp_path / "named.npz", image=io["inputs"])
    np.savez(tmp_path / "numbered.npz", io["inputs"])
    np.savez(tmp_path / "other.npz", other=io["inputs"].astype(np.float64))
    reports = [
        kerasport.verify_run(tmp_path, against=CNN, inputs=tmp_path / f"{name}.npz")
        for name in ("named", "numbered", "other")
    ]
    assert reports[0] == reports[1] == reports[2]
    assert (reports[0].seed, reports[0].inputs) == (None, {"image": io["inputs"].shape})
    assert reports[0] == kerasport.verify_run(tmp_path, against=CNN, inputs={"image": io["inputs"]})


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"image": np.zeros((2, 8, 8))}, r"image: expected float32\[\?,8,8,1\], as Keras takes it"),
        ({"image": np.zeros((2, 1, 8, 8))}, r"found float64\[2,1,8,8\]"),
        ({"image": np.array(["a"])}, "expected float32"),
        ({"a": np.zeros(2), "b": np.zeros(2)}, r"expected one array for each input \(image\)"),
        ({}, "found none"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    arrays: Mapping[str, Any], complaint: str, tmp_path: Path
) -> None:
    kerasport.write_module(CNN, tmp_path)
    with pytest.raises(UsageError, match=complaint):
        kerasport.verify_run(tmp_path, against=CNN, inputs=arrays)


# ----------------------------------------------------------------------------------------- refusals


def test_a_stub_is_refused_with_what_to_do(tmp_path: Path) -> None:
    i = keras.Input((3,))
    made = keras.Model(i, L.Lambda(lambda x: x * 3, name="triple")(i))
    with pytest.raises(
        UnsupportedError, match="before its stubs are filled in: fill in the layer t"
    ):
        ran(made, tmp_path)
    own = {
        "triple": {"module": {"source": "class T(nn.Module):\n  def forward(s, x): return 3 * x"}}
    }
    report = ran(made, tmp_path, layers=own)
    assert (report.first, [row.path for row in report.layers]) == (None, ["triple"])


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    """Not even by Keras: a Lambda would leave a file behind."""
    trace = tmp_path / "trace"
    i = keras.Input((3,))

    def evil(x: Any) -> Any:
        from pathlib import Path

        Path(str(trace)).touch()
        return x

    keras.Model(i, L.Lambda(evil)(i)).save(tmp_path / "m.keras")
    trace.unlink()
    own = {"Lambda": {"module": {"source": "class T(nn.Module):\n  def forward(s, x): return x"}}}
    with pytest.raises(UnsupportedError, match="has a Lambda, and Keras would run code"):
        ran(tmp_path / "m.keras", tmp_path, layers=own)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("kind", "config", "said"),
    [
        ("TFOpLambda", {"function": "io.write_file"}, "the function io.write_file"),
        ("TFOpLambda", {"function": "py_function"}, "the function py_function"),
        ("ClassMethod", {"function": "x"}, "a ClassMethod"),
        ("TorchModuleWrapper", {"module": "x"}, "a TorchModuleWrapper"),
        ("keras.layers>Lambda", {}, "a Lambda"),
        ("TFOpLambda", {"function": "math.reduce_sum"}, ""),
    ],
)
def test_functions_that_could_do_harm_are_not_run(kind: str, config: Any, said: str) -> None:
    from kerasport.running.oracle import opened

    read = kerasport.read(CNN)
    layers = [{"class_name": kind, "config": {"name": "l", **config}}]
    architecture = {"class_name": "Sequential", "config": {"name": "m", "layers": layers}}
    nested = {"class_name": "Sequential", "config": {"name": "n", "layers": [architecture]}}
    read = replace(read, architecture=nested)
    if said:
        with pytest.raises(UnsupportedError, match=f"has {said}, and Keras would run code"):
            opened(read)
    else:
        opened(read)


def test_kernels_of_theano_are_not_taken_for_others(tmp_path: Path) -> None:
    read = kerasport.read(CNN)
    read = replace(read, source=replace(read.source, backend="theano"))
    kerasport.write_module(CNN, tmp_path)
    with pytest.raises(UnsupportedError, match="was written by Keras on Theano"):
        kerasport.verify_run(tmp_path, against=read)


def test_what_no_keras_opens_says_what_each_said(tmp_path: Path) -> None:
    read = kerasport.read(FIXTURES / "cnn.tf_keras.savedmodel")
    kerasport.write_module(CNN, tmp_path)
    with pytest.raises(UnsupportedError, match="expected a model that Keras opens"):
        kerasport.verify_run(tmp_path, against=read)
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"no model")
    read = kerasport.read(CNN)
    read = replace(read, source=replace(read.source, path=broken))
    with pytest.raises(UnsupportedError, match=r"no Keras here opens it(.|\n)*keras 3"):
        kerasport.verify_run(tmp_path, against=read)


@pytest.mark.parametrize("missing", ["torch", "keras"])
def test_a_missing_framework_is_named(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kerasport.write_module(CNN, tmp_path)
    found = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> Any:
        return None if name == missing else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    monkeypatch.setattr("kerasport.api.modules.find_spec", find)
    with pytest.raises(MissingExtraError, match=rf"needs the package {missing}(.|\n)*pip install"):
        kerasport.verify_run(tmp_path, against=CNN)


def test_another_models_module_is_told_apart(tmp_path: Path) -> None:
    kerasport.write_module(CNN, tmp_path)
    with pytest.raises(VerificationError, match="rewritten, or made from another model"):
        kerasport.verify_run(tmp_path, against=FIXTURES / "sequence.keras")


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("import torch\n", "import torch (\n", "expected a module in Python"),
        ("import torch\n", "import nothing_of_this_name\n", "found ModuleNotFoundError"),
        ("self.logits = nn.Linear(20, 10)", "self.logits = nn.Linear(20, 9)", "found RuntimeError"),
        ("def load(", "def load_it(", "found KeyError"),
    ],
)
def test_a_module_that_does_not_run_is_told(
    right: str, wrong: str, complaint: str, tmp_path: Path
) -> None:
    kerasport.write_module(CNN, tmp_path)
    path = tmp_path / "model.py"
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong))
    with pytest.raises(VerificationError, match=complaint):
        kerasport.verify_run(tmp_path, against=CNN)


def test_a_sequential_without_an_input_layer_runs(tmp_path: Path) -> None:
    k = library("tf_keras")
    made = k.Sequential([k.layers.Conv2D(3, 2, input_shape=(5, 4, 2)), k.layers.Flatten()])
    randomized(made)
    made.save(tmp_path / "m.keras")
    report = ran(tmp_path / "m.keras", tmp_path)
    assert (report.first, len(report.layers)) == (None, 2)


def test_a_model_that_was_never_built_is_refused(tmp_path: Path) -> None:
    kerasport.write_module(CNN, tmp_path)
    read = kerasport.read(CNN)
    from kerasport.running.oracle import opened

    with pytest.raises(UnsupportedError, match="it was never built"):
        _ = opened(read, keras.Sequential([L.Dense(3)])).inputs


# --------------------------------------------------------------------------------- the command line


def test_the_table_is_printed_and_passes(command: Command) -> None:
    command("convert", str(CNN), "out", "--to", "torch", "--module")
    run = command("verify", "out", "--against", str(CNN), "--run")
    assert (run.code, run.err) == (0, "")
    lines = run.out.splitlines()
    assert lines[0].startswith("cnn.keras = out/  run beside keras 3")
    assert lines[1] == "  inputs: image [2,8,8,1] (random, seed 0)"
    assert lines[2].split() == ["layer", "class", "gives", "absolute", "relative"]
    assert lines[3].split()[:3] == ["stem", "Conv2D", "[2,8,8,6]"]
    assert lines[-1] == "all within 1e-05, absolute or relative to the layer's scale"


def test_a_fault_is_marked_and_ends_with_six(command: Command, tmp_path: Path) -> None:
    command("convert", str(CNN), "out", "--to", "torch", "--module")
    spoil(tmp_path / "out/model.safetensors", "hidden.bias")
    words = ("verify", "out", "--against", str(CNN), "--run")
    run = command(*words)
    assert run.code == 6
    assert "the first to leave the tolerance of 1e-05 is hidden (Dense), by " in run.err
    assert "in f64 too: no rounding" in run.err
    marked = [line.split()[0] for line in run.out.splitlines() if "leaves the tolerance" in line]
    assert marked == ["hidden", "thin", "logits", "output"]
    data = command(*words, "--json")
    assert (data.code, data.json["first"]) == (6, "hidden")
    assert command(*words, "--tolerance", "100").code == 0


@pytest.mark.parametrize("spoiled", [False, True])
def test_json_is_what_its_schema_says(spoiled: bool, command: Command, tmp_path: Path) -> None:
    command("convert", str(CNN), "out", "--to", "torch", "--module")
    if spoiled:
        path = tmp_path / "out/model.py"
        path.write_text(path.read_text().replace("return x\n", "return x[:, :3] / 0\n", 1))
    data = command("verify", "out", "--against", str(CNN), "--run", "--json", "--seed", "3").json
    rules = json.loads((ROOT / "schemas/run.v1.schema.json").read_text())
    Draft202012Validator.check_schema(rules)
    assert list(Draft202012Validator(rules).iter_errors(data)) == []
    assert set(data) == set(rules["required"])
    assert set(data["layers"][0]) == set(rules["$defs"]["row"]["required"])
    assert data["seed"] == 3
    data["layers"][0]["absolute"] = -1
    del data["by"]
    assert len(list(Draft202012Validator(rules).iter_errors(data))) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--inputs", "x.npz"), "--inputs: makes sense where a module is run: add --run"),
        (("--seed", "1"), "--seed: makes sense where"),
        (("--run", "--inputs", "none.npz"), "none.npz: expected a readable .npz file"),
        (("--run", "--inputs", "text.npz"), "text.npz: expected a .npz file of numbers"),
        (("--run", "--inputs", "objects.npz"), "objects.npz: expected a .npz file of numbers"),
        (("--run", "--inputs", "one.npy"), "one.npy: expected a .npz file of arrays"),
        (("--run", "--dtype", "bf16"), "dtype 'bf16': expected f32 or f64"),
        (("--run", "--tolerance", "-1"), "expected a tolerance of at least 0"),
        (("--run", "--tolerance", "nan"), "expected a tolerance of at least 0"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(
    words: tuple[str, ...], message: str, command: Command, tmp_path: Path
) -> None:
    command("convert", str(CNN), "out", "--to", "torch", "--module")
    Path("text.npz").write_text("hello")
    np.savez("objects.npz", x=np.array([{}], dtype=object))
    np.save("one.npy", np.zeros(3))
    run = command("verify", "out", "--against", str(CNN), *words)
    assert (run.code, run.out) == (2, "")
    assert message in run.err
    assert "Traceback" not in run.err


def test_a_file_is_no_folder_of_a_module(command: Command) -> None:
    run = command("verify", str(CNN), "--against", str(CNN), "--run")
    assert run.code == 2
    assert "expected a folder with model.py" in run.err


def test_frameworks_are_not_loaded_before_they_are_needed() -> None:
    from test_house import loaded

    assert not {"keras", "torch", "tensorflow"} & loaded("import kerasport.running.beside")
    assert not {"keras", "torch", "tensorflow"} & loaded("import kerasport.running.oracle")


def test_warnings_of_others_do_not_come_through(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ran(FIXTURES / "cnn.tf_keras.h5", tmp_path)
    assert torch.is_grad_enabled()


# ----------------------------------------------------------------------------- files at hand, ports


def test_the_table_of_files_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it: tests/benchmarks/files.py."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
    files = importlib.import_module("files")
    names = {path.name for path in files.files()}
    assert {"cnn.keras", "sequence.tf_keras.h5", "attention.tf_keras.savedmodel"} <= names
    found = files.tried(CNN, tmp_path / "cnn", checks=("bf16", "train"))
    assert (found.status, found.layers, found.good) == ("equal", 9, True)
    found = files.tried(FIXTURES / "tables.keras", tmp_path / "tables")
    assert found.status == "stubs"

    def silent(*_: Any) -> None:
        raise AssertionError("planted")

    monkeypatch.setitem(files.CHECK, "train", silent)
    assert not files.tried(CNN, tmp_path / "cnn", checks=("train",)).good


@in_corpus
def test_a_denoiser_agrees_with_its_port() -> None:
    """The port's weights were put into PyTorch by others; the two Lambdas come from `--layers`."""
    import dtln_port

    assert dtln_port.deviation_from_port(CORPUS / "dtln", frames=20) < 1e-5


@in_corpus
def test_the_port_would_be_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file

    import dtln_port

    def spoiled(path: Path) -> Any:
        state = load_file(path)
        state["sep2.rnn1.bias_hh_l0"] += 0.1
        return state

    monkeypatch.setattr(dtln_port, "load_file", spoiled)
    assert dtln_port.deviation_from_port(CORPUS / "dtln", frames=20) > 1e-4
