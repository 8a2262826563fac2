"""Models of TensorFlow Lite: the interpreter's own tensors, and the weights they were made of."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kerasport
from kerasport.errors import KerasportError, MalformedError, UsageError
from kerasport.model import Snapshot
from kerasport.readers import tflite
from kerasport.transpose import plan

CORPUS = os.environ.get("KERASPORT_CORPUS")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Any]]]:
    """One model compiled in three ways, and its weights by layer."""
    import tensorflow as tf
    import tf_keras

    folder = tmp_path_factory.mktemp("tflite")
    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.Input((9, 11, 5), batch_size=1),
            layers.Conv2D(7, (2, 3), activation="relu", name="conv"),
            layers.DepthwiseConv2D((3, 2), depth_multiplier=3, name="deep"),
            layers.PReLU(shared_axes=[1, 2], name="leak"),
            layers.Conv2DTranspose(5, (2, 3), strides=2, name="up"),
            layers.Flatten(),
            layers.Dense(64, name="wide"),
            layers.Dense(3, use_bias=False, name="narrow"),
        ]
    )
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(size=w.shape).astype(np.float32) for w in model.get_weights()])
    for name in ("float", "half", "integer"):
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if name != "float":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if name == "half":
            converter.target_spec.supported_types = [tf.float16]
        (folder / f"{name}.tflite").write_bytes(converter.convert())
    return folder, {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def assert_complete(snapshot: Snapshot, path: Path) -> None:
    """What the interpreter says of each constant is what we say of it."""
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(str(path), experimental_preserve_all_tensors=True)
    details = {d["name"]: d for d in interpreter.get_tensor_details()}
    tensors = [*snapshot.tensors, *(o.tensor for o in snapshot.omitted)]
    compared = 0
    for tensor in tensors:
        if tensor.stored not in details:  # a scale or a zero point
            name, _, what = tensor.stored.rpartition("/")
            quantized = details[name]["quantization_parameters"]
            np.testing.assert_array_equal(tensor.numpy(), quantized[f"{what}s"])
            continue
        found = interpreter.get_tensor(details[tensor.stored]["index"])
        assert tensor.dtype == found.dtype
        np.testing.assert_array_equal(tensor.numpy(), found)
        compared += 1
    assert compared > 6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["float", "half", "integer"])
def test_constants_are_those_of_the_interpreter(
    made: tuple[Path, dict[str, list[Any]]], name: str
) -> None:
    path = made[0] / f"{name}.tflite"
    snapshot = kerasport.read(path)
    assert snapshot.source.format == "tflite"
    assert_complete(snapshot, path)


@pytest.mark.parametrize("name", ["float", "half"])
def test_weights_are_those_of_the_model_that_was_compiled(
    made: tuple[Path, dict[str, list[Any]]], name: str
) -> None:
    snapshot = kerasport.read(made[0] / f"{name}.tflite")
    kinds = {layer.kind: layer for layer in snapshot.layers if layer.kind != "Dense"}
    assert kinds.keys() == {"Conv2D", "DepthwiseConv2D", "Conv2DTranspose", "PReLU3D"}
    assert [layer.kind for layer in snapshot.layers].count("Dense") == 2
    state = plan(snapshot, to="keras").apply()
    found = {tensor.numpy().shape: tensor.numpy() for tensor in state.values()}
    dtype = np.float32 if name == "float" else np.float16
    for weights in made[1].values():
        kernel = weights[0].astype(dtype)
        np.testing.assert_array_equal(found[kernel.shape], kernel)
    for layer, (kernel, bias) in {k: v for k, v in made[1].items() if len(v) == 2}.items():
        if name == "float" and layer != "deep":
            assert any(np.array_equal(t.numpy(), bias) for t in state.values()), layer
        assert kernel.ndim > 1
    torch = plan(snapshot, to="torch")
    torch.refuse_losses()


def test_quantized_weights_keep_their_scales_and_are_no_layer_of_others(
    made: tuple[Path, dict[str, list[Any]]],
) -> None:
    snapshot = kerasport.read(made[0] / "integer.tflite")
    quantized = [layer for layer in snapshot.layers if "quantized" in layer.note]
    assert quantized
    for layer in quantized:
        assert layer.kind is None
        main = next(iter(layer.weights))
        values = layer.weights[main].numpy()
        scale = layer.weights[f"{main}_scale"].numpy()
        assert values.dtype == np.int8
        assert scale.dtype == np.float32
    problems = "\n".join(plan(snapshot, to="torch").problems)
    assert problems.count("quantized by TensorFlow Lite") == len(quantized)
    assert plan(snapshot, to="keras").problems == ()


def test_an_architecture_is_refused(made: tuple[Path, dict[str, list[Any]]]) -> None:
    with pytest.raises(UsageError, match="its layers were joined"):
        tflite.read(made[0] / "float.tflite", architecture={})


def test_a_model_cut_off_is_refused_at_any_length(
    made: tuple[Path, dict[str, list[Any]]], tmp_path: Path
) -> None:
    data = (made[0] / "float.tflite").read_bytes()
    path = tmp_path / "cut.tflite"
    sound = {
        t.stored: t.numpy().tobytes() for t in kerasport.read(made[0] / "float.tflite").tensors
    }
    refused = 0
    for size in (*range(8, 200, 12), *range(200, len(data), len(data) // 50)):
        path.write_bytes(data[:size])
        try:
            found = {t.stored: t.numpy().tobytes() for t in tflite.read(path).tensors}
        except MalformedError:
            refused += 1
        else:  # nothing but padding, or a text for people, was lost
            assert found == sound
    assert refused > 30


def test_a_number_that_lies_anywhere_is_an_error_or_nothing(
    made: tuple[Path, dict[str, list[Any]]], tmp_path: Path
) -> None:
    data = (made[0] / "float.tflite").read_bytes()
    path = tmp_path / "lies.tflite"
    rng = random.Random(4)
    refused = 0
    for _ in range(400):
        at = rng.randrange(8, len(data) - 4) // 4 * 4
        lie = rng.choice((0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, rng.randrange(len(data))))
        path.write_bytes(data[:at] + struct.pack("<I", lie) + data[at + 4 :])
        try:
            snapshot = kerasport.read(path)
            assert all(tensor.numpy().shape == tensor.shape for tensor in snapshot.tensors)
        except KerasportError:
            refused += 1
    assert 0 < refused < 400


def test_tables_that_refer_to_the_same_bytes_again_and_again_are_refused(tmp_path: Path) -> None:
    """A megabyte of offsets to one name of a megabyte would be a terabyte of names."""
    from kerasport.readers.flatbuffer import Buffer

    buffer = Buffer(memoryview(bytes(1 << 20)), "it")
    for _ in range(16):  # as many as the floor allows
        buffer.spend(1 << 20)
    buffer.spend(8 << 20)
    with pytest.raises(MalformedError, match="the same bytes too often"):
        buffer.spend(1)


@pytest.mark.skipif(not CORPUS, reason="KERASPORT_CORPUS is not set")
@pytest.mark.filterwarnings("ignore")
def test_the_dense_layer_of_a_real_model_is_that_of_its_source() -> None:
    """BatchNormalization was folded into the convolutions; the last layer has none behind it."""
    folder = Path(str(CORPUS)) / "mlperf_tiny"
    path = folder / "port_tflite" / "pretrainedResnet.tflite"
    snapshot = kerasport.read(path)
    assert_complete(snapshot, path)
    assert [layer.kind for layer in snapshot.layers] == ["Conv2D"] * 9 + ["Dense"]
    ours = plan(snapshot, to="keras").apply()
    theirs = kerasport.read(folder / "pretrainedResnet.h5")["dense"]
    for role, tensor in theirs.weights.items():
        np.testing.assert_array_equal(ours[f"model/dense/{role}"].numpy(), tensor.numpy())
