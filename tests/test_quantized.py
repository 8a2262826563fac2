"""Quantized layers: every number is kept, and the floats asked for are those of Keras.

What Keras computes with is read off its own layers: the derivative of a linear layer by its input
is the kernel that it used, to the last bit, since all other terms of each sum are zero. An
embedding's rows are what it puts out. So the expected values follow Keras's compute path and not
its description.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras.src.quantizers.awq import AWQ
from keras.src.quantizers.gptq import GPTQ

import kerasport
import oracles
from kerasport import dequantize
from kerasport.cli import main
from kerasport.conventions import convention
from kerasport.dequantize import dequantized
from kerasport.errors import MalformedError, UnsupportedError
from kerasport.identify import identify
from kerasport.model import Layer, Snapshot, Source, Tensor
from kerasport.transpose import plan
from kerasport.variants import LORA, plain, scheme

L = keras.layers
Array = npt.NDArray[Any]
FIXTURES = Path(__file__).parent.parent / "fixtures"


# ------------------------------------------------------------------------- layers, by their scheme

Q = keras.quantizers


def _config(how: str) -> Any:
    """A scheme as `int8`, `int4/<group>`, `gptq/<bits>/<group>`, …, as Keras configures it."""
    mode, *numbers = how.split("/")
    match mode:
        case "int8":
            return Q.Int8QuantizationConfig()
        case "int4":
            return Q.Int4QuantizationConfig(block_size=int(numbers[0]))
        case "float8":
            return Q.Float8QuantizationConfig()
        case "gptq":
            bits, group, *order = numbers
            return Q.GPTQConfig(
                dataset=None,
                tokenizer=None,
                weight_bits=int(bits),
                group_size=int(group),
                activation_order=bool(order),
                symmetric=False,
            )
        case _:
            bits, group = numbers
            return Q.AWQConfig(
                dataset=None, tokenizer=None, group_size=int(group), num_grid_points=3
            )


def quantized(layer: keras.Layer, how: str) -> keras.Layer:
    """The layer, quantized by Keras itself, with calibration where the scheme needs one."""
    rng = np.random.default_rng(7)
    config = _config(how)
    layer.quantize(config.mode, config=config)
    if config.mode == "float8":
        layer.inputs_scale.assign(1 / 64)  # by which a one stays a one
        for name in ("kernel_scale", "outputs_grad_scale"):
            getattr(layer, name).assign(rng.uniform(0.01, 0.1))
        for name in ("inputs_amax_history", "kernel_amax_history", "outputs_grad_amax_history"):
            variable = getattr(layer, name)
            variable.assign(rng.uniform(1, 2, variable.shape))
    if config.mode in ("gptq", "awq"):
        calibration: Any = (GPTQ if config.mode == "gptq" else AWQ)(layer, config)
        inputs = rng.normal(size=(64, calibration.rows)).astype(np.float32)
        inputs *= np.linspace(0.1, 3, calibration.rows, dtype=np.float32)
        if config.mode == "gptq":
            calibration.update_hessian_with_batch(inputs)
            calibration.quantize_and_correct_layer()
        else:
            calibration.update_activation_magnitudes(inputs)
            calibration.quantize_layer()
    return layer


@dataclass(frozen=True, slots=True)
class Trial:
    """One layer, quantized in one way.

    Attributes:
        make: builds the layer.
        shape: of its input, batch included.
        how: the scheme, for `_config`.
        label: what the test's name shows.
    """

    make: Callable[[], keras.Layer]
    shape: tuple[int, ...]
    how: str
    label: str

    def __str__(self) -> str:
        return f"{self.label}-{self.how}"


@cache
def built(trial: Trial) -> keras.Layer:
    """The trial's layer with random weights, quantized."""
    rng = np.random.default_rng(20260211)
    layer = trial.make()
    layer.build(trial.shape)
    layer.set_weights([rng.normal(size=w.shape).astype(w.dtype) for w in layer.weights])
    return quantized(layer, trial.how)


@cache
def seen(trial: Trial) -> Snapshot:
    """The trial's layer as kerasport reads it."""
    return kerasport.read(built(trial))


INTS = ("int8", "int4/-1", "int4/3")
LINEAR = (
    *(*INTS, "float8", "gptq/8/-1", "gptq/2/3", "gptq/4/-1", "gptq/4/3", "gptq/4/3/order"),
    *("awq/4/-1", "awq/4/3"),
)
MATRICES = (*INTS, "float8", "gptq/8/3", "gptq/4/-1", "awq/4/3")
# Equation, output shape, axes of the bias, shape of the input with one batch and one step.
EQUATIONS: tuple[tuple[str, tuple[int | None, ...], str | None, tuple[int, ...]], ...] = (
    ("ab,bc->ac", (5,), "c", (1, 7)),
    ("abc,cde->abde", (None, 3, 5), "de", (1, 1, 11)),
    ("abcd,cde->abe", (None, 13), "e", (1, 1, 3, 5)),
    ("...x,xy->...y", (5,), "y", (1, 1, 1, 7)),
    ("abc,cd->abd", (None, 7), None, (1, 1, 7)),
    # The axes that are summed over do not come first, or some are not summed over at all.
    ("ab,cb->ac", (5,), "c", (1, 7)),
    ("abc,dce->abde", (None, 7, 5), "de", (1, 1, 3)),
    ("abc,bcd->abd", (3, 5), "bd", (1, 3, 7)),
    ("abc,cd->adb", (5, None), "d", (1, 1, 7)),
)


def _all() -> Iterator[Trial]:
    few = ("int8", "int4/3", "gptq/4/3", "awq/4/3")
    sizes = [(7, 5, True, LINEAR), (5, 5, False, few), (11, 2, True, few)]
    for n, units, bias, how in ((*size[:3], how) for size in sizes for how in size[3]):
        yield Trial(
            partial(L.Dense, units, use_bias=bias), (1, n), how, f"Dense-{n},{units},{bias}"
        )
    for (equation, shape, axes, source), how in product(EQUATIONS, MATRICES):
        if "..." in equation and how != "float8":
            continue  # Keras 3.15 does not know how to quantize these
        yield Trial(
            partial(L.EinsumDense, equation, shape, bias_axes=axes),
            source,
            how,
            f"EinsumDense-{equation}",
        )
    for (n, width), how in product([(11, 5), (4, 4)], INTS):
        yield Trial(partial(L.Embedding, n, width), (n,), how, f"Embedding-{n},{width}")
        for tied in (True, False):
            yield Trial(
                partial(L.ReversibleEmbedding, n, width, tie_weights=tied),
                (n,),
                how,
                f"ReversibleEmbedding-{n},{width},{'tied' if tied else 'untied'}",
            )


TRIALS = tuple(_all())


# --------------------------------------------------------------------- what Keras itself computes


def used(layer: keras.Layer, shape: tuple[int, ...]) -> dict[str, Array]:
    """The floats that the layer computes with, by role."""
    if isinstance(layer, L.Embedding):
        found = {"embeddings": np.asarray(layer(np.arange(layer.input_dim)))}
        if isinstance(layer, L.ReversibleEmbedding) and not layer.tie_weights:
            found["reverse_embeddings"] = _reverse(layer)
        return found
    bias = {} if layer.bias is None else {"bias": np.asarray(layer(np.zeros(shape)))}
    derivative = (_steps if layer.quantization_mode == "float8" else _derivative)(layer, shape)
    if isinstance(layer, L.Dense):
        return {"kernel": derivative[0, :, 0].T, **{role: b[0] for role, b in bias.items()}}
    return {"kernel": _einsum_kernel(layer.equation, derivative)}


def _derivative(layer: keras.Layer, shape: tuple[int, ...]) -> Array:
    """Each output by each input: the dimensions of the output, then those of the input."""
    (_, *out) = layer(np.zeros(shape)).shape
    size = int(np.prod(out))
    # One example for each output, so that one call gives all derivatives.
    x = tf.Variable(np.zeros((size, *shape[1:])), dtype=layer.compute_dtype)
    with tf.GradientTape() as tape:
        y = layer(x)
    one = tf.reshape(tf.eye(size, dtype=y.dtype), (size, *out))
    derivative = np.asarray(tape.gradient(y, x, output_gradients=one))
    return derivative.reshape(1, *out, 1, *shape[1:])


def _steps(layer: keras.Layer, shape: tuple[int, ...]) -> Array:
    """The same of a layer in float8, whose derivative is not the kernel that it used.

    Its inputs are ones, which float8 has, and nothing is added to its outputs meanwhile.
    """
    size = int(np.prod(shape[1:]))
    held = None if layer.bias is None else np.asarray(layer.bias)
    try:
        if held is not None:
            layer.bias.assign(np.zeros_like(held))
        y = np.asarray(layer(np.eye(size, dtype=np.float32).reshape(size, *shape[1:])))
    finally:
        if held is not None:
            layer.bias.assign(held)
    return np.moveaxis(y, 0, -1).reshape(1, *y.shape[1:], 1, *shape[1:])


def _einsum_kernel(equation: str, derivative: Array) -> Array:
    """The kernel in its own order, from the derivative of each output by each input.

    Axes that are in input and output alone have extent one; those that are in all three hold the
    kernel where input and output are at the same place.
    """
    inputs, rest = equation.split(",")
    kernel, outputs = rest.split("->")
    spare = iter("uvwz")
    elided = derivative.ndim - len((inputs + outputs).replace(".", ""))
    lead = "".join(next(spare) for _ in range(elided // 2))
    inputs, outputs = inputs.replace("...", lead), outputs.replace("...", lead)
    product_: Array = np.einsum(f"{outputs}{inputs}->{kernel}", derivative)
    return product_


def _reverse(layer: Any) -> Array:
    """The matrix of the way back, by Keras's own functions; its layer quantizes what it takes."""
    from keras.src.quantizers.quantizers import dequantize_with_sz_map, unpack_int4

    numbers = layer.reverse_embeddings
    if layer.quantization_mode == "int4":
        numbers = unpack_int4(numbers, layer.output_dim, axis=0)
    floats = keras.ops.cast(numbers, "float32")
    scale = layer.reverse_embeddings_scale
    if len(scale.shape) == 1:
        return np.asarray(keras.ops.divide(floats, scale))
    return np.asarray(
        dequantize_with_sz_map(
            floats, scale, layer.reverse_embeddings_zero, layer.g_idx, group_axis=0
        )
    )


@pytest.mark.parametrize("trial", TRIALS, ids=str)
def test_the_floats_are_those_that_keras_computes_with(trial: Trial) -> None:
    """Bit for bit: a rounding more or less would be a model that nobody has trained."""
    (layer,) = dequantized(seen(trial)).layers
    assert scheme(str(layer.kind)) == ""
    expected = used(built(trial), trial.shape)
    assert expected.keys() <= layer.weights.keys()
    for role, values in expected.items():
        found = layer.weights[role].numpy()
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)


FAULTS: Mapping[str, tuple[str, Callable[..., Any]]] = {
    "the high half first": (
        "_unpacked",
        lambda values, axis, width, real=dequantize._unpacked: real(
            ((values & 0x0F) << 4) | ((values >> 4) & 0x0F), axis, width
        ),
    ),
    "the groups of the first inputs": (
        "_members",
        lambda groups, count, real=dequantize._members: np.sort(real(groups, count))[::-1],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_arithmetic_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: with another order of halves or groups, the floats are others."""
    (trial,) = (t for t in TRIALS if str(t) == "Dense-7,5,True-int4/3")
    monkeypatch.setattr(dequantize, *FAULTS[fault])
    (layer,) = dequantized(seen(trial)).layers
    kernel = used(built(trial), trial.shape)["kernel"]
    assert not np.array_equal(layer.weights["kernel"].numpy(), kernel)


# ------------------------------------------------------------------- what is passed on, unchanged


@pytest.mark.parametrize("trial", TRIALS, ids=str)
def test_every_number_of_a_quantized_layer_comes_back(trial: Trial) -> None:
    found = seen(trial)
    for to in ("torch", "onnx"):
        steps = plan(found, to=to)
        if steps.problems:
            assert to == "torch"
            assert "torch.einsum" in steps.problems[0]
            continue
        back = oracles.returned(steps)
        assert back.keys() == {tensor.name for tensor in found.tensors}
        for tensor in found.tensors:
            assert back[tensor.name].dtype == tensor.dtype
            np.testing.assert_array_equal(back[tensor.name], tensor.numpy())


def test_every_variable_of_keras_is_passed_on() -> None:
    """A variable that the tables forgot may be missing in the floats too, if they need it not."""
    for trial in TRIALS:
        variables = sorted(np.asarray(v).tobytes() for v in built(trial).variables)
        assert variables == sorted(t.numpy().tobytes() for t in seen(trial).tensors), str(trial)


def decoded(state: Mapping[str, Tensor], manifest: Mapping[str, Any], name: str) -> Array:
    """The weight `out in`, of a target's tensors and the hint `quantization` alone."""
    hint = manifest["layers"][name]["hints"]["quantization"]["value"]
    by_role = {
        entry["role"]: state[tensor].numpy()
        for tensor, entry in manifest["tensors"].items()
        if entry["layer"] == name
    }
    numbers = by_role.get("quantized_kernel", by_role.get("kernel"))
    assert numbers is not None
    scale = by_role["kernel_scale"]
    if hint["packing"]:
        assert hint["packing"] == "two numbers a byte along pair, the low half first"
        kind = ml_dtypes.int4 if numbers.dtype == np.int8 else ml_dtypes.uint4
        halves = np.stack([numbers & 15, (numbers >> 4) & 15], axis=1)
        numbers = halves.astype(np.uint8).astype(kind).reshape(-1, numbers.shape[1])
        numbers = numbers[: scale.shape[0]].astype(np.int32)
    weight: Array = numbers.astype(np.float32)
    if "g_idx" in hint["formula"]:
        groups = by_role["g_idx"].astype(int)
        weight = (weight - by_role["kernel_zero"][:, groups]) * scale[:, groups]
    else:
        weight = weight / scale[:, np.newaxis]
    return weight / by_role["awq_scales"] if "awq_scales" in hint["formula"] else weight


@pytest.mark.parametrize("how", [how for how in LINEAR if how != "float8"])
def test_the_hint_is_enough_to_compute_the_weight_from_what_torch_gets(how: str) -> None:
    (trial,) = (t for t in TRIALS if str(t) == f"Dense-7,5,True-{how}")
    state = plan(seen(trial), to="torch").apply()
    name = built(trial).name
    kernel = used(built(trial), trial.shape)["kernel"]
    np.testing.assert_array_equal(decoded(state, state.manifest, name), kernel.T)
    assert state.manifest["layers"][name]["hints"]["quantization"]["changes_results"] is True


def test_the_tensors_of_a_quantized_layer_have_names_that_say_what_they_are() -> None:
    def names(label: str, to: str) -> dict[str, str]:
        (trial,) = (t for t in TRIALS if str(t) == label)
        found = plan(seen(trial), to=to).apply()
        return {n.removeprefix(f"{built(trial).name}."): t.spec for n, t in found.items()}

    assert names("Dense-7,5,True-int8", "torch") == {
        "weight": "i8[5,7]",
        "bias": "f32[5]",
        "weight_scale": "f32[5]",
    }
    assert names("Dense-7,5,True-awq/4/3", "torch") == {
        "bias": "f32[5]",
        "weight_packed": "u8[3,7]",
        "weight_scale": "f32[5,3]",
        "weight_zero_point": "u8[5,3]",
        "awq_scales": "f32[7]",
        "weight_g_idx": "f32[7]",
    }
    assert names("ReversibleEmbedding-11,5,untied-int4/3", "torch") == {
        "embedding.weight_packed": "i8[11,3]",
        "embedding.weight_scale": "f32[11,2]",
        "embedding.weight_zero_point": "i8[11,2]",
        "embedding.weight_g_idx": "f32[5]",
        "reverse.weight_packed": "i8[3,11]",
        "reverse.weight_scale": "f32[11,2]",
        "reverse.weight_zero_point": "f32[11,2]",
    }
    assert names("Dense-7,5,True-int8", "onnx") == {
        "B_quantized": "i8[5,7]",
        "C": "f32[5]",
        "B_scale": "f32[5]",
    }


def test_every_quantized_kind_of_the_tables_is_on_trial() -> None:
    tried = {seen(trial).layers[0].kind for trial in TRIALS}
    tables = {kind for kind in convention("keras") if scheme(kind) and not kind.endswith(LORA)}
    assert tried == tables
    assert {plain(kind) for kind in tables} == {
        *("Dense", "EinsumDense", "EinsumDenseBatched"),
        *("Embedding", "TiedEmbedding", "ReversibleEmbedding"),
    }
    assert len(TRIALS) > 90


# ----------------------------------------------------------------------------------- other dtypes


@pytest.mark.parametrize("how", ["int8", "int4/-1", "int4/3"])
def test_variables_of_bfloat16_give_bfloat16(how: str) -> None:
    """Where Keras computes in bfloat16, so do we; one rounding for each of its operations."""
    layer = L.Dense(5, dtype="bfloat16")
    layer.build((1, 7))
    rng = np.random.default_rng(3)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    layer = quantized(layer, how)
    (found,) = kerasport.read(layer, dequantize=True).layers
    kernel = found.weights["kernel"].numpy()
    assert kernel.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(kernel, used(layer, (1, 7))["kernel"])


# -------------------------------------------------------------------------------- attention, whole


@cache
def attention(how: str) -> keras.Model:
    """A model of an attention whose projections Keras has quantized one by one."""
    keras.utils.set_random_seed(5)
    x = keras.Input((7, 9))
    y = L.MultiHeadAttention(3, 5, value_dim=2, name="attend")(x, x)
    model = keras.Model(x, L.Dense(11, name="head")(y))
    config = _config(how)
    for layer in (*model.get_layer("attend")._flatten_layers(), model.get_layer("head")):
        if isinstance(layer, L.EinsumDense | L.Dense):
            layer.quantize(config.mode, config=config)
    return model


PROJECTIONS = ("query", "key", "value", "attention_output")


@pytest.mark.parametrize("how", ["int8", "int4/4", "float8"])
def test_an_attention_quantized_inside_is_its_four_layers(how: str) -> None:
    """Its configuration does not say so, and Keras cannot load such a file; we can read it."""
    found = kerasport.read(attention(how))
    assert list(found) == [*(f"attend/{name}" for name in PROJECTIONS), "head"]
    assert {scheme(str(layer.kind)) for layer in found.layers} == {
        {"int8": "Int8", "int4/4": "Int4Grouped", "float8": "Float8"}[how]
    }
    assert plan(found, to="torch").problems == ()


@pytest.mark.parametrize("how", ["int8", "int4/4"])
def test_dequantized_it_is_an_attention_again(how: str) -> None:
    model = attention(how)
    found = kerasport.read(model, dequantize=True)
    assert [layer.kind for layer in found.layers] == ["MultiHeadAttention", "Dense"]
    attend = model.get_layer("attend")
    for name in PROJECTIONS:
        inner = getattr(attend, f"_{name.removeprefix('attention_')}_dense")
        shape = (1, 1, 9) if name != "attention_output" else (1, 1, 3, 2)
        expected = used(inner, shape)["kernel"]
        np.testing.assert_array_equal(found["attend"].weights[f"{name}/kernel"].numpy(), expected)
    names = set(plan(found, to="torch").apply())
    assert {"attend.query.weight", "attend.attention_output.bias", "head.weight"} <= names


# ------------------------------------------------------------------------------------------- files


MODES = ("int8", "int4", "float8")
FORGETFUL = ("gptq", "awq")


@pytest.mark.parametrize("mode", MODES)
def test_a_file_and_its_model_are_read_alike(mode: str) -> None:
    path = FIXTURES / f"tokens.{mode}.keras"
    filed, live = kerasport.read(path), kerasport.read(keras.models.load_model(path))
    assert [layer.kind for layer in filed.layers] == [layer.kind for layer in live.layers]
    assert any(scheme(str(layer.kind)) for layer in filed.layers)
    for one, other in zip(filed.tensors, live.tensors, strict=True):
        assert (one.name, one.spec, str(one.layout)) == (other.name, other.spec, str(other.layout))
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("mode", MODES)
def test_a_dequantized_fixture_does_what_the_quantized_one_did(mode: str) -> None:
    """The recorded outputs are Keras's, whose int8 and float8 layers round their inputs too.

    The hint `inputs` says so, and doing what it says leaves no more than the order of sums.
    """
    with np.load(FIXTURES / "tokens.io.npz") as io:
        ids, expected = io["inputs"], io[mode]
    source = kerasport.read(FIXTURES / f"tokens.{mode}.keras", dequantize=True)
    w = {tensor.name: tensor.numpy() for tensor in source.tensors}
    stored = kerasport.read(FIXTURES / f"tokens.{mode}.keras")
    hints = plan(stored, to="keras").layers

    def dense(name: str, x: Array) -> Array:
        match hints[name]["hints"]["quantization"]["value"]["inputs"]:
            case "i8, by the largest of each row":
                scale = 127 / (np.abs(x).max(-1, keepdims=True) + np.float32(1e-7))
                x = np.round(x * scale) / scale
            case "f8_e4m3fn, by inputs_scale":
                scale = stored[name].weights["inputs_scale"].numpy()
                x = np.clip(x / scale, -448, 448).astype(ml_dtypes.float8_e4m3fn)
                x = x.astype(np.float32) * scale
        y: Array = x @ w[f"{name}/kernel"] + w[f"{name}/bias"]
        return y

    x = np.maximum(dense("mix", w["value/embeddings"][ids]), 0).reshape(len(ids), -1)
    logits = dense("logits", np.maximum(dense("hidden", x), 0))
    assert np.abs(logits - expected).max() / np.abs(expected).max() < 1e-5


@pytest.mark.parametrize("to", ["torch", "onnx", "keras"])
@pytest.mark.parametrize("mode", [*MODES, *FORGETFUL])
def test_fixtures_are_converted_and_verified(mode: str, to: str, tmp_path: Path) -> None:
    path = FIXTURES / f"tokens.{mode}.keras"
    for floats in (False, True)[: 1 if mode in FORGETFUL else 2]:
        source = kerasport.read(path, dequantize=floats)
        target = tmp_path / f"{floats}.safetensors"
        report = kerasport.convert(source, target, to=to)
        assert not any(note.loss for note in report.notes)
        assert floats == any(note.kind == "dequantized" for note in report.notes)
        assert report.placed == len(list(source.tensors))
        # The manifest says what was done to the source, and verify does it again.
        assert kerasport.verify(target, against=path).placed == report.placed
        if to == "keras":
            back = kerasport.read(target)
            assert [x.kind for x in back.layers] == [x.kind for x in source.layers]
            for one, other in zip(back.tensors, source.tensors, strict=True):
                np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("mode", FORGETFUL)
def test_zero_points_that_keras_did_not_save_are_missed(mode: str) -> None:
    """Their floats are lost, and we say so."""
    found = kerasport.read(FIXTURES / f"tokens.{mode}.keras")
    assert all("kernel_zero" not in layer.weights for layer in found.layers)
    hints = plan(found, to="torch").layers["hidden"]["hints"]
    assert hints["quantization"]["value"]["missing"] == "kernel_zero"
    with pytest.raises(UnsupportedError) as caught:
        dequantized(found)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["hidden", "logits", "mix"]
    assert "zero points are not stored" in lines[1]
    assert "Convert the live model" in lines[1]


def live(how: str, **changes: Any) -> keras.Model:
    """A model of one Dense layer in a scheme that needs calibration."""
    keras.utils.set_random_seed(9)
    model = keras.Sequential([keras.Input((7,)), L.Dense(5, name="d")])
    config = _config(how)
    for key, value in changes.items():
        setattr(config, key, value)
    layer = model.get_layer("d")
    layer.quantize(config.mode, config=config)
    work: Any = (GPTQ if config.mode == "gptq" else AWQ)(layer, config)
    inputs = np.random.default_rng(4).normal(size=(64, 7)).astype(np.float32)
    if config.mode == "gptq":
        work.update_hessian_with_batch(inputs)
        work.quantize_and_correct_layer()
    else:
        work.update_activation_magnitudes(inputs)
        work.quantize_layer()
    return model


@pytest.mark.parametrize("how", ["gptq/4/3", "gptq/8/-1", "awq/4/3"])
def test_an_archive_of_ours_keeps_what_keras_forgets(how: str, tmp_path: Path) -> None:
    model = live(how)
    expected = used(model.get_layer("d"), (1, 7))["kernel"]
    kerasport.convert(model, tmp_path / "a.safetensors", to="keras")
    kerasport.verify(tmp_path / "a.safetensors", against=model)
    (layer,) = kerasport.read(tmp_path / "a.safetensors", dequantize=True).layers
    np.testing.assert_array_equal(layer.weights["kernel"].numpy(), expected)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_zero_points_that_follow_from_the_scheme_are_not_missed(bits: int, tmp_path: Path) -> None:
    """Symmetric, all of them are the middle of the range, and the configuration says so."""
    model = live(f"gptq/{bits}/3", symmetric=True)
    expected = used(model.get_layer("d"), (1, 7))["kernel"]
    model.save(tmp_path / "m.keras")
    (layer,) = kerasport.read(tmp_path / "m.keras", dequantize=True).layers
    np.testing.assert_array_equal(layer.weights["kernel"].numpy(), expected)


def test_rows_behind_a_flattened_image_are_reordered_as_those_of_floats_are() -> None:
    """Whole numbers, and the group of each: a row that moved alone would have another scale."""
    model = keras.models.load_model(FIXTURES / "cnn.keras", compile=False)
    quantized(model.get_layer("hidden"), "int4/7")
    steps = plan(kerasport.read(model), to="torch")
    (move,) = (move for move in steps.moves if move.name == "hidden.weight_packed")
    assert str(move.layout) == "pair (channel space)"
    state = steps.apply()
    floats = plan(kerasport.read(model, dequantize=True), to="torch").apply()
    np.testing.assert_array_equal(
        decoded(state, state.manifest, "hidden"), floats["hidden.weight"].numpy()
    )


@pytest.mark.parametrize("how", ["int8", "int4/3"])
def test_a_wrapped_layer_is_what_it_wraps(how: str) -> None:
    layer = L.TimeDistributed(L.Dense(5))
    layer.build((2, 3, 7))
    quantized(layer.layer, how)
    (found,) = kerasport.read(layer, dequantize=True).layers
    expected = used(layer.layer, (1, 7))["kernel"]
    np.testing.assert_array_equal(found.weights["kernel"].numpy(), expected)


def test_a_target_of_other_floats_is_not_verified(tmp_path: Path) -> None:
    """The twin: floats that are not those of the source."""
    target = tmp_path / "t.safetensors"
    kerasport.convert(
        kerasport.read(FIXTURES / "tokens.int8.keras", dequantize=True), target, to="torch"
    )
    other = kerasport.read(FIXTURES / "tokens.int4.keras", dequantize=True)
    with pytest.raises(kerasport.KerasportError, match="hidden/kernel: differs"):
        kerasport.verify(target, against=other)


def test_a_class_that_no_file_names_is_told_by_whole_numbers(tmp_path: Path) -> None:
    """A `.weights.h5` has no classes; a matrix of i8 and two vectors is one kind alone."""
    model = keras.Sequential([keras.Input((7,)), L.Dense(5, name="d")])
    quantized(model.get_layer("d"), "int8")
    model.save_weights(tmp_path / "m.weights.h5")
    (layer,) = kerasport.read(tmp_path / "m.weights.h5").layers
    assert (layer.kind, layer.inferred) == ("DenseInt8", True)


def test_legacy_files_keep_quantized_layers_by_name(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((7,)), L.Dense(5, name="d")])
    quantized(model.get_layer("d"), "int4/3")
    model.save(tmp_path / "m.h5")
    (layer,) = kerasport.read(tmp_path / "m.h5").layers
    assert layer.kind == "DenseInt4Grouped"
    layer_of_model = model.get_layer("d")
    np.testing.assert_array_equal(
        layer.weights["kernel_zero"].numpy(), np.asarray(layer_of_model.kernel_zero)
    )


# ---------------------------------------------------------------------------------------- refusals


def packed(**changes: Array) -> Snapshot:
    """A Dense layer of int4 in groups, some of its tensors replaced."""
    weights = {
        "0": np.zeros((3, 3), np.int8),
        "1": np.zeros(5, np.float32),
        "2": np.ones((2, 5), np.float32),
        "3": np.zeros((2, 5), np.int8),
        "4": np.array([0, 0, 1], np.float32),
        **changes,
    }
    tensors = {key: Tensor.of(f"d/{key}", np.asarray(value)) for key, value in weights.items()}
    config = {"use_bias": True, "dtype": "int4/2_from_float32"}
    layer = Layer("d", "Dense", config, tensors)
    return identify(Snapshot(Source("m.keras", "keras"), (layer,)))


def test_the_small_layer_is_well() -> None:
    (layer,) = dequantized(packed()).layers
    assert layer.weights["kernel"].spec == "f32[3,5]"
    assert not layer.weights["kernel"].numpy().any()


@pytest.mark.parametrize("groups", [[0, 0, 2], [0, -1, 1], [0, np.nan, 1]])
def test_a_group_that_does_not_exist_is_refused(groups: list[float]) -> None:
    """An index from a file must not reach beyond the scales, nor count from their end."""
    (layer,) = dequantized(packed(**{"4": np.array(groups, np.float32)})).layers
    with pytest.raises(MalformedError, match=r"d/g_idx: expected groups from 0 to 1, found others"):
        layer.weights["kernel"].numpy()


def test_floats_in_the_place_of_whole_numbers_are_not_taken_for_them() -> None:
    (layer,) = packed(**{"0": np.zeros((3, 3), np.float32)}).layers
    assert layer.kind is None
    assert "kernel: expected i8, found f32[3,3]" in layer.note


def test_bytes_too_few_for_the_outputs_are_not_taken() -> None:
    (layer,) = packed(**{"0": np.zeros((3, 2), np.int8)}).layers
    assert layer.kind is None
    assert "pair = out/2" in layer.note


def test_a_kernel_of_unknown_axes_is_asked_for_its_architecture() -> None:
    """Two axes that are summed over, kept as one; the shape of the input is nowhere."""
    config = {
        "equation": "abcd,cde->abe",
        "output_shape": [None, 5],
        "dtype": "int4/-1_from_float32",
    }
    weights = {"0": np.zeros((6, 3), np.int8), "1": np.ones(5, np.float32)}
    tensors = {key: Tensor.of(f"e/{key}", np.asarray(value)) for key, value in weights.items()}
    layer = Layer("e", "EinsumDense", config, tensors)
    found = identify(Snapshot(Source("m.keras", "keras"), (layer,)))
    assert plan(found, to="torch").problems == ()
    with pytest.raises(UnsupportedError) as caught:
        dequantized(found)
    assert "--config" in str(caught.value)
    assert "e: the sizes of in_c, in_d are in no tensor of it" in str(caught.value)


def test_a_kernel_of_another_size_than_its_axes_is_refused() -> None:
    config = {"equation": "abc,cde->abde", "output_shape": [None, 2, 2]}
    weights = {
        "0": np.zeros((6, 3), np.int8),
        "1": np.ones(5, np.float32),
    }
    tensors = {key: Tensor.of(f"e/{key}", np.asarray(value)) for key, value in weights.items()}
    layer = Layer("e", "EinsumDense", {**config, "dtype": "int4/-1_from_float32"}, tensors)
    found = identify(Snapshot(Source("m.keras", "keras"), (layer,)))
    with pytest.raises((MalformedError, UnsupportedError)):
        dequantized(found)


def test_scales_that_are_no_floats_are_refused() -> None:
    found = packed(**{"2": np.ones((2, 5), np.int32)})
    with pytest.raises(MalformedError, match=r"d/kernel_scale: expected floats, found i32\[2,5\]"):
        dequantized(found)


def test_a_scale_of_zero_gives_what_it_gives_in_keras() -> None:
    config = {"dtype": "int8_from_float32", "use_bias": False}
    weights = {"0": np.ones((3, 2), np.int8), "1": np.array([0, 2], np.float32)}
    tensors = {key: Tensor.of(f"d/{key}", np.asarray(value)) for key, value in weights.items()}
    layer = Layer("d", "Dense", config, tensors)
    found = dequantized(identify(Snapshot(Source("m.keras", "keras"), (layer,))))
    np.testing.assert_array_equal(found["d"].weights["kernel"].numpy()[0], [np.inf, 0.5])


def test_an_embedding_of_unknown_width_is_asked_for_its_architecture() -> None:
    """The last byte of a row may hold one number or two, and no tensor says which."""
    weights = {"0": np.zeros((7, 3), np.int8), "1": np.ones(7, np.float32)}
    tensors = {key: Tensor.of(f"e/{key}", np.asarray(value)) for key, value in weights.items()}
    layer = Layer("e", None, {}, tensors)
    snapshot = Snapshot(Source("m.weights.h5", "keras-weights"), (layer,))
    found = identify(snapshot, {"e": "EmbeddingInt4"})
    assert plan(found, to="torch").problems == ()
    with pytest.raises(UnsupportedError, match="how many numbers its bytes hold"):
        dequantized(found)


def test_what_is_not_quantized_stays_as_it_is() -> None:
    found = kerasport.read(FIXTURES / "cnn.keras")
    assert dequantized(found) is found


# ----------------------------------------------------------------------------------- command line


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_the_command_line_dequantizes_and_verifies(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    source, target = FIXTURES / "tokens.int4.keras", tmp_path / "t.safetensors"
    code, out, err = run(capsys, "convert", source, target, "--to", "torch", "--dequantize")
    assert (code, err) == (0, "")
    assert "dequantized: value/embeddings" in out
    code, out, _ = run(capsys, "verify", target, "--against", source, "--json")
    assert code == 0
    assert {note["kind"] for note in json.loads(out)["notes"]} == {"dequantized"}
    code, out, _ = run(capsys, "inspect", source)
    assert "EmbeddingInt4" in out
    assert re.search(r"embeddings +i8\[17,3\] +token pair", out)


def test_a_plan_shows_packing(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "plan", FIXTURES / "tokens.gptq.keras", "--to", "torch", "--json")
    assert code == 0
    hints = json.loads(out)["layers"]["hidden"]["hints"]
    assert hints["quantization"]["value"]["packing"].startswith("two numbers a byte")
