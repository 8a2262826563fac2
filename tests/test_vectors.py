"""Inputs and outputs that are stored with a module, and the proof that they are without Keras."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch

import kerasport
from generated import deviation, imported, randomized
from kerasport import cli
from kerasport.errors import MissingExtraError, UnsupportedError, UsageError, VerificationError
from test_cli import Run
from test_codegen_models import library
from test_running import spoil

L = keras.layers
ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "fixtures"
CNN = FIXTURES / "cnn.keras"
MODULE = ("--to", "torch", "--module")
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


def two_inputs() -> Any:
    """Images and numbers, two outputs; the sum tells the inputs apart."""
    a, b = keras.Input((4, 5, 2), name="picture"), keras.Input((3,), name="numbers")
    x = L.Conv2D(3, 2, name="conv")(a)
    y = L.Dense(3, name="dense")(b)
    total = L.Add(name="total")([L.GlobalAveragePooling2D()(x), y])
    model = keras.Model([a, b], [x, total])
    randomized(model)
    return model


# -------------------------------------------------------------------------------------- by Keras


def test_vectors_are_as_the_module_takes_and_gives_them(tmp_path: Path) -> None:
    model = two_inputs()
    report = kerasport.write_module(model, tmp_path / "out", vectors=True)
    held = np.load(tmp_path / "out" / "vectors.npz")
    shapes = {name: held[name].shape for name in held.files if name != "made"}
    assert shapes == {
        "inputs.picture": (2, 2, 4, 5),
        "inputs.numbers": (2, 3),
        "outputs.0": (2, 3, 3, 4),
        "outputs.1": (2, 3),
    }
    dtypes = [str(held[name].dtype) for name in shapes]
    assert dtypes == ["float32", "float32", "float64", "float64"]
    picture = np.moveaxis(held["inputs.picture"], 1, -1)
    wanted = model([picture, held["inputs.numbers"]])
    for number, axis in ((0, 1), (1, -1)):
        found = np.moveaxis(held[f"outputs.{number}"], axis, -1)
        assert 0 < deviation(found, np.asarray(wanted[number])) < 1e-6  # Keras's own rounding
    made = imported((tmp_path / "out/model.py").read_text(), tmp_path)
    given = [torch.from_numpy(held[name]) for name in ("inputs.picture", "inputs.numbers")]
    found = made.load(tmp_path / "out/model.safetensors")(*given)
    assert deviation(found[1].detach().numpy(), held["outputs.1"]) < 1e-5
    assert any(
        note.subject == "vectors.npz" and "picture [2, 2, 4, 5]" in note.message
        for note in report.notes
    )


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        kerasport.write_module(CNN, tmp_path / name, vectors=FIXTURES / "cnn.io.npz")
    first, second = ((tmp_path / name / "vectors.npz").read_bytes() for name in "ab")
    assert first == second
    # Nothing of this machine or this moment is in it.
    digest = hashlib.sha256(first).hexdigest()
    assert digest == "5346a7aefddf17810b348d402e17d43985a474194cb443fd88300ddbe7890cf9"


def test_a_module_is_proven_where_there_is_no_keras(command: Command, tmp_path: Path) -> None:
    assert command("convert", str(CNN), "out", *MODULE, "--vectors").code == 0
    for name in ("keras", "tf_keras", "tensorflow"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('blocked')")
    path = os.pathsep.join([str(tmp_path), str(ROOT / "convert")])
    words = [sys.executable, "-m", "kerasport", "verify", "out", "--run"]
    run = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("vectors.npz = out/  run beside keras 3")
    spoil(tmp_path / "out/model.safetensors", "mix.bias")
    run = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert run.returncode == VerificationError.exit_code
    assert "the first to leave the tolerance of 1e-05 is output" in run.stderr


def test_a_live_model_is_asked_as_it_is(tmp_path: Path) -> None:
    """Whoever trusts a Lambda has opened it, and gives the model."""
    i = keras.Input((3,))
    model = keras.Model(i, L.Lambda(lambda x: x * 3, name="triple")(i))
    own = "class T(nn.Module):\n  def forward(self, x): return 3 * x"
    layers = {"triple": {"module": {"source": own}}}
    kerasport.write_module(model, tmp_path, vectors=True, layers=layers)
    assert kerasport.verify_run(tmp_path).first is None


def test_vectors_of_an_earlier_module_go_with_it(tmp_path: Path) -> None:
    kerasport.write_module(CNN, tmp_path, vectors=FIXTURES / "cnn.io.npz")
    kerasport.write_module(FIXTURES / "sequence.keras", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.py", "model.safetensors"]
    np.savez(tmp_path / "vectors.npz", mine=np.zeros(3))
    kerasport.write_module(CNN, tmp_path)
    assert (tmp_path / "vectors.npz").exists()
    with pytest.raises(UsageError, match="found other arrays"):
        kerasport.verify_run(tmp_path)


# ------------------------------------------------------------------------------------ brought along


def test_arrays_of_ones_own_are_taken_in_kerases_order(tmp_path: Path) -> None:
    model = two_inputs()
    rng = np.random.default_rng(0)
    picture, numbers = rng.normal(size=(3, 4, 5, 2)), rng.normal(size=(3, 3))
    outputs = [np.asarray(y) for y in model([picture.astype("f4"), numbers.astype("f4")])]
    named: dict[str, Any] = {
        "inputs.numbers": numbers,
        "inputs.picture": picture,
        "outputs.total": outputs[1],
        "outputs.0": outputs[0],
    }
    np.savez(tmp_path / "own.npz", **named)
    kerasport.write_module(model, tmp_path / "out", vectors=tmp_path / "own.npz")
    report = kerasport.verify_run(tmp_path / "out")
    assert (report.first, report.by, len(report.outputs)) == (None, "own.npz", 2)
    # What kerasport has stored may be stored again.
    kerasport.write_module(model, tmp_path / "b", vectors=tmp_path / "out/vectors.npz")
    first, second = ((tmp_path / name / "vectors.npz").read_bytes() for name in ("out", "b"))
    assert first == second
    np.savez(tmp_path / "own.npz", **{**named, "outputs.total": outputs[1] + 1})
    kerasport.write_module(model, tmp_path / "out", vectors=tmp_path / "own.npz")
    with pytest.raises(VerificationError, match="is output 2"):
        kerasport.verify_run(tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            {"outputs": np.zeros((2, 10))},
            r"expected an array inputs.image or inputs.0 or inputs, in",
        ),
        ({"inputs": np.zeros((2, 8, 8, 1))}, "expected an array outputs.logits or"),
        ({}, "found none"),
    ],
)
def test_arrays_that_are_missing_are_named(
    content: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "own.npz", **content)
    with pytest.raises(UsageError, match=complaint):
        kerasport.write_module(CNN, tmp_path / "out", vectors=tmp_path / "own.npz")
    assert not (tmp_path / "out").exists()


# -------------------------------------------------------------------------------------------- ports


def onnx_port(model: Any, path: Path, *, wrong: float = 0.0) -> None:
    """The model of two inputs in ONNX, by hand, its inputs and outputs the other way round."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kernel, bias, weight, offset = (np.asarray(w) + np.float32(wrong) for w in model.get_weights())
    held = {"k": kernel.transpose(3, 2, 0, 1), "b": bias, "w": weight, "o": offset}
    node = helper.make_node
    nodes = [
        node("Transpose", ["picture"], ["x"], perm=[0, 3, 1, 2]),
        node("Conv", ["x", "k", "b"], ["c"]),
        node("Transpose", ["c"], ["conv"], perm=[0, 2, 3, 1]),
        node("GlobalAveragePool", ["c"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["numbers", "w", "o"], ["g"]),
        node("Add", ["f", "g"], ["total"]),
    ]

    def value(name: str, shape: Sequence[Any]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "port",
        [value("numbers", ["n", 3]), value("picture", ["n", 4, 5, 2])],
        [value("total", ["n", 3]), value("conv", ["n", 3, 4, 3])],
        [numpy_helper.from_array(np.ascontiguousarray(x), name) for name, x in held.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def test_a_port_to_onnx_is_asked(tmp_path: Path) -> None:
    model = two_inputs()
    onnx_port(model, tmp_path / "port.onnx")
    kerasport.write_module(model, tmp_path / "out", vectors=tmp_path / "port.onnx")
    report = kerasport.verify_run(tmp_path / "out")
    assert report.first is None
    assert report.by.startswith("onnxruntime ")
    assert report.by.endswith(" from port.onnx")
    assert report.inputs == {"picture": (2, 2, 4, 5), "numbers": (2, 3)}
    onnx_port(model, tmp_path / "port.onnx", wrong=0.01)
    kerasport.write_module(model, tmp_path / "out", vectors=tmp_path / "port.onnx")
    with pytest.raises(VerificationError, match="is output 1"):
        kerasport.verify_run(tmp_path / "out")


@pytest.fixture(scope="module")
def tflite_ports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture in TFLite, by TensorFlow's converter, in floats and quantized."""
    folder = tmp_path_factory.mktemp("tflite")
    tf = library("tensorflow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = keras.models.load_model(CNN)
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        (folder / "port.tflite").write_bytes(converter.convert())
        images = np.load(FIXTURES / "cnn.io.npz")["inputs"]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([x[None]] for x in images)
        converter.inference_input_type = converter.inference_output_type = tf.int8
        (folder / "small.tflite").write_bytes(converter.convert())
    return folder


def test_a_port_to_tflite_is_asked(tflite_ports: Path, tmp_path: Path) -> None:
    kerasport.write_module(CNN, tmp_path, vectors=tflite_ports / "port.tflite")
    report = kerasport.verify_run(tmp_path)
    assert report.first is None
    assert "TFLite" in report.by
    assert report.inputs == {"image": (2, 1, 8, 8)}


def test_a_quantized_port_is_refused(tflite_ports: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="is quantized, and tells nothing of"):
        kerasport.write_module(CNN, tmp_path / "out", vectors=tflite_ports / "small.tflite")
    assert not (tmp_path / "out").exists()


def test_the_port_of_another_model_is_refused(tmp_path: Path) -> None:
    onnx_port(two_inputs(), tmp_path / "port.onnx")
    with pytest.raises(UsageError, match="takes 2 inputs, and the model 1"):
        kerasport.write_module(CNN, tmp_path / "out", vectors=tmp_path / "port.onnx")


@pytest.mark.parametrize(
    ("file", "code", "message"),
    [
        ("none.onnx", 2, "none.onnx: expected a readable file, found none"),
        ("broken.onnx", 5, "broken.onnx: cannot be run: "),
        ("broken.tflite", 5, "broken.tflite: cannot be run: "),
        ("broken.npz", 2, "broken.npz: expected a .npz file of numbers"),
        ("model.pt", 2, "model.pt: expected a port of the model (.onnx, .tflite) or stored arrays"),
    ],
)
def test_a_file_that_is_no_port_is_refused(
    file: str, code: int, message: str, command: Command, tmp_path: Path
) -> None:
    for name in ("broken.onnx", "broken.tflite", "broken.npz"):
        (tmp_path / name).write_text("hello")
    before = sorted(tmp_path.iterdir())
    run = command("convert", str(CNN), "out", *MODULE, "--vectors", file)
    assert (run.code, run.out) == (code, "")
    assert message in run.err
    assert "Traceback" not in run.err
    assert sorted(tmp_path.iterdir()) == before


def test_onnxruntime_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    onnx_port(two_inputs(), tmp_path / "port.onnx")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "onnxruntime" else found(name)
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'kerasport\[run\]'"):
        kerasport.write_module(two_inputs(), tmp_path / "out", vectors=tmp_path / "port.onnx")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("convert", str(CNN), "x.pt", "--to", "torch", "--vectors"),
            "--vectors: are stored with a",
        ),
        (("verify", "out"), "expected --against SRC, the model that it came from; or --run"),
        (("verify", "out", "--run"), "vectors.npz: expected stored inputs and outputs, found none"),
        (("verify", "out", "--run", "--seed", "1"), "--seed: stored inputs are not random"),
        (("verify", "out", "--run", "--inputs", "own.npz"), "inputs of your own are for the model"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(
    words: Sequence[str], message: str, command: Command, tmp_path: Path
) -> None:
    command("convert", str(CNN), "out", *MODULE)
    np.savez(tmp_path / "own.npz", x=np.zeros(3))
    run = command(*words)
    assert (run.code, run.out) == (2, "")
    assert message in run.err
