"""Weights of every floating-point dtype: kept as they are, or cast with one rounding.

The expected casts are computed with exact fractions: the nearest value that the dtype has, and of
two that are as near, the one whose last bit is zero. PyTorch and ml_dtypes agree where they round
once.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kerasport
from kerasport import tiles
from kerasport.cli import main
from kerasport.errors import UnsupportedError
from kerasport.model import Layer, Snapshot, Source, Tensor, dtype_name, dtype_named
from kerasport.transpose import plan

L = keras.layers
Array = npt.NDArray[Any]
POLICIES = {
    "bfloat16": "bf16",
    "float16": "f16",
    "float64": "f64",
    "mixed_bfloat16": "f32",
    "mixed_float16": "f32",
}


@cache
def model(policy: str) -> keras.Model:
    """Layers of one policy, one of which Keras keeps in float32 whatever the policy."""
    keras.utils.set_random_seed(11)
    inputs = keras.Input((11, 7, 3))
    x = L.Conv2D(5, (3, 2), dtype=policy, name="conv")(inputs)
    x = L.BatchNormalization(dtype=policy, name="norm")(x)
    x = L.GlobalAveragePooling2D(dtype=policy, name="pool")(x)
    x = L.Dense(13, dtype=policy, name="head")(x)
    made = keras.Model(inputs, x)
    rng = np.random.default_rng(2)
    for variable in made.weights:
        variable.assign(np.abs(rng.normal(size=variable.shape)))
    return made


def bits(array: Array) -> Array:
    return np.ascontiguousarray(array).reshape(-1).view(f"V{array.dtype.itemsize}")


# --------------------------------------------------------------------------------- kept as they are


@pytest.mark.parametrize("policy", POLICIES)
def test_variables_have_the_dtype_of_their_policy(policy: str, tmp_path: Path) -> None:
    model(policy).save(tmp_path / "m.keras")
    filed, live = kerasport.read(tmp_path / "m.keras"), kerasport.read(model(policy))
    assert {dtype_name(tensor.dtype) for tensor in filed.tensors} == {POLICIES[policy]}
    for one, other in zip(filed.tensors, live.tensors, strict=True):
        assert one.spec == other.spec
        np.testing.assert_array_equal(bits(one.numpy()), bits(other.numpy()))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".onnx", ".parquet", ".arrow"])
@pytest.mark.parametrize("policy", POLICIES)
def test_they_go_to_every_target_and_back(policy: str, suffix: str, tmp_path: Path) -> None:
    source = kerasport.read(model(policy))
    for to in ("torch", "onnx", "keras"):
        target = tmp_path / f"{to}{suffix}"
        report = kerasport.convert(source, target, to=to)
        assert not [note for note in report.notes if note.kind == "cast"]
        kerasport.verify(target, against=source)
    back = kerasport.read(tmp_path / f"keras{suffix}")
    for one, other in zip(back.tensors, source.tensors, strict=True):
        assert one.spec == other.spec
        np.testing.assert_array_equal(bits(one.numpy()), bits(other.numpy()))


def test_torch_loads_bfloat16_as_its_own(tmp_path: Path) -> None:
    kerasport.convert(model("bfloat16"), tmp_path / "m.pt", to="torch")
    state = torch.load(tmp_path / "m.pt", weights_only=True)
    kernel = np.asarray(model("bfloat16").get_layer("head").kernel)
    assert state["head.weight"].dtype == torch.bfloat16
    found = state["head.weight"].view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(found, kernel.T)


@pytest.mark.parametrize(
    ("policy", "hint"),
    [("mixed_bfloat16", "bf16"), ("mixed_float16", "f16"), ("bfloat16", None), ("float64", None)],
)
def test_a_mixed_policy_is_a_hint(policy: str, hint: str | None) -> None:
    """The weights do not show that the layer rounds what it computes."""
    found = plan(kerasport.read(model(policy)), to="torch").layers["head"]["hints"]
    expected = None if hint is None else {"value": hint, "changes_results": True}
    assert found.get("compute_dtype") == expected


@pytest.mark.parametrize("name", ["f8_e4m3fn", "f8_e5m2"])
def test_live_variables_of_float8_are_read(name: str, tmp_path: Path) -> None:
    """Keras itself cannot save them; a live model has them all the same."""
    dtype = dtype_named(name)
    values = np.linspace(-2, 2, 15, dtype=np.float32).reshape(3, 5).astype(dtype)

    class Own(keras.layers.Layer):  # type: ignore[misc]  # Keras is not type-checked
        def build(self, shape: Any) -> None:
            self.scale = self.add_weight(
                shape=(3, 5),
                dtype=dtype.name,
                initializer=lambda shape, dtype: keras.ops.convert_to_tensor(values),
                name="scale",
            )

        def call(self, x: Any) -> Any:
            return x

    inputs = keras.Input((7,))
    source = kerasport.read(keras.Model(inputs, Own(name="own")(inputs)))
    kerasport.convert(source, tmp_path / "t.safetensors", to="torch", unknown="keep")
    back = kerasport.read(tmp_path / "t.safetensors")
    (tensor,) = back.tensors
    assert tensor.spec == f"{name}[3,5]"
    np.testing.assert_array_equal(bits(tensor.numpy()), bits(values))


# ------------------------------------------------------------- two bytes of which nothing says what


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_unmarked_values_are_asked_for_and_then_taken_at_their_word(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Legacy HDF5 keeps bfloat16 as two opaque bytes."""
    source, target = tmp_path / "m.h5", tmp_path / "t.safetensors"
    model("bfloat16").save(source)
    code, out, err = run(capsys, "convert", source, target, "--to", "torch")
    assert (code, out) == (5, "")
    assert "values of 2 bytes each" in err
    assert "--assume-dtype bf16" in err
    assert not target.exists()
    options = ("--assume-dtype", "bf16")
    code, _, err = run(capsys, "convert", source, target, "--to", "torch", *options)
    assert (code, err) == (0, "")
    code, _, err = run(capsys, "verify", target, "--against", source, *options)
    assert (code, err) == (0, "")
    kernel = np.asarray(model("bfloat16").get_layer("head").kernel)
    found = kerasport.read(target)["head"].weights["weight"].numpy()
    np.testing.assert_array_equal(found, kernel.T)


def test_a_wrong_word_gives_other_values(tmp_path: Path) -> None:
    """The twin, and why it is asked: the same bytes are other numbers as float16."""
    model("bfloat16").save(tmp_path / "m.h5")
    found = kerasport.read(tmp_path / "m.h5", assume_dtype="f16")["head"].weights["kernel"]
    kernel = np.asarray(model("bfloat16").get_layer("head").kernel)
    assert found.spec == "f16[5,13]"
    assert not np.array_equal(found.numpy().astype(np.float32), kernel.astype(np.float32))


def test_a_word_of_another_size_is_no_answer(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model("bfloat16").save(tmp_path / "m.h5")
    code, _, err = run(capsys, "inspect", tmp_path / "m.h5", "--assume-dtype", "f32")
    assert code == 5
    assert "values of 2 bytes each" in err


# --------------------------------------------------------------------------------- cast, on request


NARROW = ("f32", "f16", "bf16", "f8_e4m3fn", "f8_e5m2")


def nearest(value: float, dtype: np.dtype[Any]) -> Fraction | None:
    """The nearest value of a dtype, by fractions; None beyond its largest."""
    info = ml_dtypes.finfo(dtype)
    exact = Fraction(value)
    largest = Fraction(float(info.max))
    if exact == 0:
        return Fraction(0)
    # The exponent of a normal number of this size; that of subnormal ones goes no lower.
    exponent = abs(exact).numerator.bit_length() - abs(exact).denominator.bit_length()
    if Fraction(2) ** exponent > abs(exact):
        exponent -= 1
    step = Fraction(2) ** (max(exponent, info.minexp) - info.nmant)
    rounded = Fraction(round(exact / step)) * step  # to the even in the middle
    return None if abs(rounded) > largest else rounded


def cast(values: Array, name: str) -> Array:
    """Values cast by a whole conversion."""
    tensor = Tensor.of("it/kernel", values, role="kernel")
    layer = Layer("it", None, {}, {"kernel": tensor}, kind="verbatim")
    state = plan(Snapshot(Source("any", "memory"), (layer,)), to="keras").apply(dtype=name)
    return next(iter(state.values())).numpy()


@pytest.mark.parametrize("name", NARROW)
@settings(max_examples=300)
@given(value=st.floats(-400, 400, allow_nan=False))
def test_a_cast_rounds_once_to_the_nearest(name: str, value: float) -> None:
    found = cast(np.array([value]), name)
    expected = nearest(value, dtype_named(name))
    assert Fraction(float(found[0])) == expected


# Just above the middle of two values of the narrow dtype, by less than float32 has room for.
MIDDLES = {"bf16": 2**-8, "f16": 2**-11, "f8_e4m3fn": 2**-4, "f8_e5m2": 2**-3}


@pytest.mark.parametrize("name", MIDDLES)
def test_a_value_is_not_rounded_twice(name: str) -> None:
    """By way of float32 it would first fall into the middle, and then to the even below it."""
    for sign in (1, -1):
        value = sign * (1 + MIDDLES[name] + 2**-40)
        (found,) = cast(np.array([value]), name)
        assert Fraction(float(found)) == nearest(value, dtype_named(name))
        assert abs(float(found)) == 1 + 2 * MIDDLES[name]
        (even,) = cast(np.array([sign * (1 + MIDDLES[name])]), name)
        assert abs(float(even)) == 1.0


def test_rounding_twice_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: by way of float32, the value falls the wrong way."""
    twice: Callable[[Array, np.dtype[Any]], Array] = lambda values, dtype: values.astype(  # noqa: E731
        np.float32
    ).astype(dtype)
    monkeypatch.setattr(tiles, "cast", twice)
    (found,) = cast(np.array([1 + 2**-8 + 2**-40]), "bf16")
    assert float(found) == 1.0


@pytest.mark.parametrize("name", ["f16", "bf16", "f8_e4m3fn", "f8_e5m2"])
def test_casts_from_float32_are_those_of_torch_and_ml_dtypes(name: str) -> None:
    """Every power of two with its neighbours, subnormal ones, and many others."""
    dtype = dtype_named(name)
    largest = float(ml_dtypes.finfo(dtype).max)
    powers = np.float32(2) ** np.arange(-149, 16).astype(np.float32)
    near = [powers, np.nextafter(powers, np.float32(9)), np.nextafter(powers, np.float32(0))]
    rng = np.random.default_rng(3)
    values = np.concatenate([*near, rng.normal(size=9999).astype(np.float32), [0.0, -0.0]])
    values = values[np.abs(values) <= largest].astype(np.float32)
    values = np.concatenate([values, -values, [np.float32(np.nan)]])
    found = cast(values, name)
    np.testing.assert_array_equal(bits(found), bits(values.astype(dtype)))
    theirs = torch.from_numpy(values).to(
        getattr(torch, {"f16": "float16", "bf16": "bfloat16"}.get(name, f"float8_{name[3:]}"))
    )
    as_bits = theirs.view(torch.int16 if dtype.itemsize == 2 else torch.uint8).numpy()
    np.testing.assert_array_equal(bits(found)[:-1], bits(as_bits)[:-1])
    assert np.isnan(found[-1].astype(np.float32))


@pytest.mark.parametrize(
    ("name", "value"),
    [("f16", 65520.0), ("f8_e4m3fn", 465.0), ("f8_e5m2", 61440.0), ("f32", 1e39), ("bf16", 1e39)],
)
def test_what_is_too_large_is_refused(name: str, value: float) -> None:
    with pytest.raises(UnsupportedError, match=f"is too large for {name}"):
        cast(np.array([1.0, value]), name)
    below = {"f16": 65519.0, "f8_e4m3fn": 463.0, "f8_e5m2": 61439.0, "f32": 1e38, "bf16": 1e38}
    assert np.isfinite(cast(np.array([below[name]]), name).astype(np.float64)).all()


def test_an_infinity_that_the_dtype_has_not_is_refused() -> None:
    """`f8_e4m3fn` would make it a NaN."""
    with pytest.raises(UnsupportedError, match="inf is too large for f8_e4m3fn"):
        cast(np.array([np.inf], np.float32), "f8_e4m3fn")
    assert np.isinf(cast(np.array([np.inf], np.float32), "f8_e5m2").astype(np.float32)).all()


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("policy", ["float64", "bfloat16"])
def test_a_cast_target_is_verified_after_the_same_cast(
    policy: str, name: str, tmp_path: Path
) -> None:
    source = kerasport.read(model(policy))
    report = kerasport.convert(source, tmp_path / "t.safetensors", to="torch", dtype=name)
    assert any(note.kind == "cast" for note in report.notes) or name == POLICIES[policy]
    kerasport.verify(tmp_path / "t.safetensors", against=source)
    found = kerasport.read(tmp_path / "t.safetensors")["head"].weights["weight"].numpy()
    kernel = np.asarray(model(policy).get_layer("head").kernel)
    expected = [nearest(float(v), dtype_named(name)) for v in kernel.T.reshape(-1)]
    assert [Fraction(float(v)) for v in found.reshape(-1)] == expected


def test_whole_numbers_are_not_cast() -> None:
    """A quantized weight is no float, and would lose nothing but its meaning."""
    layer = L.Dense(5, name="d")
    layer.build((1, 7))
    layer.quantize("int8", config=keras.quantizers.Int8QuantizationConfig())
    state = plan(kerasport.read(layer), to="torch").apply(dtype="bf16")
    assert {name: t.spec for name, t in state.items()} == {
        "d.weight": "i8[5,7]",
        "d.bias": "bf16[5]",
        "d.weight_scale": "bf16[5]",
    }
