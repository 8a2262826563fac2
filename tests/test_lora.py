"""Low-rank factors: kept apart where the source has them apart, merged on request as Keras does.

The expected sums are Keras's own: `layer.kernel` of a layer with factors is what it computes with
and what it saves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import torch

import kerasport
import oracles
from kerasport import lora
from kerasport.cli import main
from kerasport.conventions import convention
from kerasport.conventions.lora import names
from kerasport.errors import UnsupportedError
from kerasport.lora import merged
from kerasport.model import Snapshot
from kerasport.transpose import plan
from kerasport.variants import LORA, plain, scheme

L = keras.layers
Array = npt.NDArray[Any]
FIXTURES = Path(__file__).parent.parent / "fixtures"
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Trial:
    """One layer with factors.

    Attributes:
        label: what the test's name shows.
        make: builds the layer.
        shape: of its input, batch included.
        how: how it is quantized; empty where it is not.
    """

    label: str
    make: Callable[[], keras.Layer]
    shape: tuple[int, ...]
    how: str = ""

    def __str__(self) -> str:
        return f"{self.label}-{self.how}" if self.how else self.label


@cache
def built(trial: Trial) -> keras.Layer:
    """The layer with random weights and factors."""
    rng = np.random.default_rng(20260211)
    layer = trial.make()
    layer.build(trial.shape)
    layer.set_weights([rng.normal(size=w.shape).astype(np.float32) for w in layer.weights])
    if trial.how == "int8":
        layer.quantize("int8", config=keras.quantizers.Int8QuantizationConfig())
    elif trial.how:
        block = int(trial.how.partition("/")[2])
        config = keras.quantizers.Int4QuantizationConfig(block_size=block)
        layer.quantize("int4", config=config)
    layer.enable_lora(3, lora_alpha=7.0)
    for variable in layer.weights:
        if variable.name.startswith("lora_"):
            variable.assign(rng.normal(size=variable.shape))
    return layer


@cache
def seen(trial: Trial) -> Snapshot:
    return kerasport.read(built(trial))


FLOATS: tuple[tuple[str, Callable[[], keras.Layer], tuple[int, ...]], ...] = (
    ("Dense", partial(L.Dense, 5), (2, 7)),
    ("Dense-square,no_bias", partial(L.Dense, 5, use_bias=False), (2, 5)),
    ("Conv1D", partial(L.Conv1D, 5, 3), (2, 11, 7)),
    ("Conv2D", partial(L.Conv2D, 5, (2, 3)), (2, 11, 7, 13)),
    ("Conv2D-groups", partial(L.Conv2D, 10, (2, 3), groups=2), (2, 11, 7, 4)),
    ("Conv3D", partial(L.Conv3D, 5, (2, 3, 2)), (1, 5, 4, 3, 7)),
    (
        "EinsumDense",
        partial(L.EinsumDense, "abc,cde->abde", (None, 3, 5), bias_axes="de"),
        (2, 3, 7),
    ),
    ("EinsumDense-batched", partial(L.EinsumDense, "abc,bcd->abd", (3, 5)), (2, 3, 7)),
    ("Embedding", partial(L.Embedding, 11, 5), (3,)),
    ("TiedEmbedding", partial(L.ReversibleEmbedding, 11, 5), (3,)),
    ("ReversibleEmbedding", partial(L.ReversibleEmbedding, 11, 5, tie_weights=False), (3,)),
)


def _all() -> Iterator[Trial]:
    for label, make, shape in FLOATS:
        yield Trial(label, make, shape)
        if "Conv" not in label:
            for how in ("int8", "int4/-1", "int4/3"):
                yield Trial(label, make, shape, how)


TRIALS = tuple(_all())
PLAIN = [trial for trial in TRIALS if not trial.how]


def weight_of(layer: keras.Layer) -> str:
    return "embeddings" if isinstance(layer, L.Embedding) else "kernel"


# ------------------------------------------------------------------------------------------ apart


@pytest.mark.parametrize("trial", TRIALS, ids=str)
def test_a_live_layer_keeps_its_factors_apart(trial: Trial) -> None:
    """Keras would merge them if it saved the layer; what was trained would be gone."""
    layer, (found,) = built(trial), seen(trial).layers
    assert str(found.kind).endswith(LORA)
    for name in names(str(found.kind)):
        np.testing.assert_array_equal(found.weights[name].numpy(), np.asarray(getattr(layer, name)))
    stored = np.asarray(getattr(layer, f"_{weight_of(layer)}"))
    np.testing.assert_array_equal(found.weights[weight_of(layer)].numpy(), stored)
    assert len(found.weights) == len(layer.weights)


@pytest.mark.parametrize("trial", TRIALS, ids=str)
def test_factors_come_back_from_every_target(trial: Trial) -> None:
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
            np.testing.assert_array_equal(back[tensor.name], tensor.numpy())


def test_reading_leaves_the_model_as_it_was() -> None:
    """A model in training must not notice that it was read."""
    trial = TRIALS[0]
    layer = built(trial)
    before = [np.asarray(variable) for variable in layer.weights]
    kerasport.read(layer)
    kerasport.read(layer, merge_lora=True)
    assert layer.lora_enabled
    for variable, values in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(np.asarray(variable), values)


def linear(state: dict[str, torch.Tensor], hint: Any, x: torch.Tensor) -> torch.Tensor:
    """A linear layer with an adapter beside it, as libraries of adapters write it."""
    y = torch.nn.functional.linear(x, state["weight"], state.get("bias"))
    low = torch.nn.functional.linear(x, state["lora_A.weight"])
    high = torch.nn.functional.linear(low, state["lora_B.weight"])
    return y + hint["alpha"] / hint["rank"] * high


def convolved(state: dict[str, torch.Tensor], hint: Any, x: torch.Tensor) -> torch.Tensor:
    """A convolution down to the rank, and one of extent one up again."""
    conv = {3: torch.nn.functional.conv1d, 4: torch.nn.functional.conv2d}.get(
        x.ndim, torch.nn.functional.conv3d
    )
    x = x.movedim(-1, 1)
    high = state["lora_B.weight"]
    high = high.reshape(*high.shape, *(1,) * (x.ndim - 2))
    y = conv(x, state["weight"], state["bias"])
    y = y + hint["alpha"] / hint["rank"] * conv(conv(x, state["lora_A.weight"]), high)
    return y.movedim(1, -1)


def looked_up(state: dict[str, torch.Tensor], hint: Any, x: torch.Tensor) -> torch.Tensor:
    y = torch.nn.functional.embedding(x, state["weight"])
    low = torch.nn.functional.embedding(x, state["lora_A.weight"])
    high = torch.nn.functional.linear(low, state["lora_B.weight"])
    return y + hint["alpha"] / hint["rank"] * high


MODULES = {
    "Dense": linear,
    "Dense-square,no_bias": linear,
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), convolved),
    "Embedding": looked_up,
}


def torch_output(trial: Trial, x: Array) -> Array:
    """What a torch layer with an adapter puts out, with the weights exported."""
    steps = plan(seen(trial), to="torch")
    name = built(trial).name
    hint = steps.layers[name]["hints"]["lora"]
    assert hint["changes_results"] is True
    state = {
        key.removeprefix(f"{name}."): torch.from_numpy(tensor.numpy().copy())
        for key, tensor in steps.apply().items()
    }
    out: Array = MODULES[trial.label](state, hint["value"], torch.from_numpy(x)).numpy()
    return out


@pytest.mark.parametrize("trial", [t for t in PLAIN if t.label in MODULES], ids=str)
def test_an_adapter_in_torch_puts_out_what_keras_does(trial: Trial) -> None:
    rng = np.random.default_rng(1)
    x: Any = rng.normal(size=trial.shape).astype(np.float32)
    x = rng.integers(0, 11, trial.shape) if trial.label == "Embedding" else x
    expected = np.asarray(built(trial)(x))
    assert oracles.deviation(torch_output(trial, x), expected) < TOLERANCE


def test_without_the_factors_the_output_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: an adapter that is left out is seen."""
    (trial,) = (t for t in PLAIN if t.label == "Dense")
    x = np.ones(trial.shape, np.float32)
    monkeypatch.setitem(
        MODULES, "Dense", lambda state, hint, x: linear(state, {**hint, "alpha": 0}, x)
    )
    assert oracles.deviation(torch_output(trial, x), np.asarray(built(trial)(x))) > 1e-2


def test_every_kind_with_factors_is_on_trial() -> None:
    tried = {seen(trial).layers[0].kind for trial in TRIALS}
    tables = {kind for kind in convention("keras") if kind.endswith(LORA)}
    assert tried == tables
    assert {scheme(kind) for kind in tables} == {"", "Int8", "Int4", "Int4Grouped"}
    assert {plain(kind) for kind in tables} >= {"Dense", "Conv1D", "Conv2D", "Conv3D", "Embedding"}


# ----------------------------------------------------------------------------------------- merged


@pytest.mark.parametrize("trial", TRIALS, ids=str)
def test_keras_merges_a_live_layer(trial: Trial, tmp_path: Path) -> None:
    """Bit for bit what Keras saves, quantized anew where it does that."""
    layer = built(trial)
    own: dict[str, Any] = {}
    layer.save_own_variables(own)
    found = kerasport.read(layer, merge_lora=True)
    (one,) = found.layers
    assert not str(one.kind).endswith(LORA)
    assert [note.kind for note in found.notes] == ["merged"]
    for tensor, expected in zip(one.weights.values(), own.values(), strict=True):
        np.testing.assert_array_equal(tensor.numpy(), np.asarray(expected))


@pytest.mark.parametrize("trial", PLAIN, ids=str)
def test_factors_kept_apart_in_a_file_are_merged_as_keras_does(
    trial: Trial, tmp_path: Path
) -> None:
    """Up to the last bit, which depends on the order of sums, and no library promises one."""
    layer = built(trial)
    kerasport.convert(layer, tmp_path / "a.safetensors", to="keras")
    (found,) = kerasport.read(tmp_path / "a.safetensors", merge_lora=True).layers
    role = weight_of(layer)
    expected = np.asarray(getattr(layer, role))
    np.testing.assert_allclose(found.weights[role].numpy(), expected, rtol=0, atol=2e-6)
    assert found.kind == seen(trial).layers[0].kind.removesuffix(LORA)  # type: ignore[union-attr]
    assert "rank" not in found.sizes


def test_a_sum_of_whole_numbers_is_exact() -> None:
    """Where no sum is rounded, ours and Keras's are one to the last bit."""
    layer = L.Dense(5, use_bias=False)
    layer.build((2, 7))
    layer.enable_lora(2, lora_alpha=3.0)
    rng = np.random.default_rng(2)
    for variable in layer.weights:
        variable.assign(rng.integers(-9, 9, variable.shape))
    (found,) = merged(kerasport.read(layer)).layers
    np.testing.assert_array_equal(found.weights["kernel"].numpy(), np.asarray(layer.kernel))


def test_another_factor_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: alpha alone, not over the rank, gives other sums."""
    (trial,) = (t for t in PLAIN if t.label == "Dense")
    real = lora._sum
    monkeypatch.setattr(
        lora, "_sum", lambda *args, factor, dtype: real(*args, factor=factor * 3, dtype=dtype)
    )
    (found,) = merged(seen(trial)).layers
    expected = np.asarray(built(trial).kernel)
    assert np.abs(found.weights["kernel"].numpy() - expected).max() > 1e-2


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float64", "bfloat16"])
def test_the_sum_has_the_dtype_that_keras_casts_it_to(policy: str) -> None:
    """Keras saves the sum as it computes: a kernel of float32 becomes one of bfloat16."""
    layer = L.Dense(5, dtype=policy)
    layer.build((2, 7))
    layer.enable_lora(2)
    rng = np.random.default_rng(2)
    for variable in layer.weights:
        variable.assign(rng.integers(-4, 4, variable.shape))
    (found,) = merged(kerasport.read(layer)).layers
    expected = keras.ops.convert_to_numpy(layer.kernel)
    assert found.weights["kernel"].numpy().dtype == np.asarray(layer.kernel).dtype
    np.testing.assert_array_equal(found.weights["kernel"].numpy().astype(float), expected)


@pytest.mark.parametrize("trial", [t for t in TRIALS if t.how], ids=str)
def test_dequantized_and_merged_is_what_the_layer_computes(trial: Trial) -> None:
    """Through floats nothing is quantized anew, so the sum is that of the layer's own output."""
    layer = built(trial)
    (found,) = kerasport.read(layer, dequantize=True, merge_lora=True).layers
    role = weight_of(layer)
    (floats,) = kerasport.read(layer, dequantize=True).layers
    a, b = (np.asarray(getattr(layer, n), np.float64) for n in names(str(floats.kind)))
    expected = floats.weights[role].numpy() + 7 / 3 * (a @ b)
    np.testing.assert_allclose(found.weights[role].numpy(), expected, rtol=0, atol=5e-6)


def test_quantized_weights_with_factors_in_a_file_need_floats(tmp_path: Path) -> None:
    (trial,) = (t for t in TRIALS if str(t) == "Dense-int8")
    kerasport.convert(built(trial), tmp_path / "a.safetensors", to="keras")
    with pytest.raises(UnsupportedError, match="add --dequantize") as caught:
        kerasport.read(tmp_path / "a.safetensors", merge_lora=True)
    assert built(trial).name in str(caught.value)


# ------------------------------------------------------------------------------------------ files


def test_a_keras_archive_holds_the_sums() -> None:
    """What Keras saved is merged, and is no layer with factors any more."""
    archive, legacy = (kerasport.read(FIXTURES / f"tokens.lora.{end}") for end in ("keras", "h5"))
    assert [x.kind for x in archive.layers] == ["Embedding", "EinsumDense", "Dense", "Dense"]
    assert [x.kind for x in legacy.layers] == [f"{x.kind}{LORA}" for x in archive.layers]
    sums = merged(legacy)
    for one, other in zip(archive.tensors, sums.tensors, strict=True):
        assert (one.name, one.spec) == (other.name, other.spec)
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=5e-7)
    reasons = {omission.reason for omission in sums.omitted}
    assert "merged into hidden/kernel" in reasons


@pytest.mark.parametrize("to", ["torch", "onnx", "keras"])
@pytest.mark.parametrize("merge", [False, True])
def test_the_fixture_is_converted_and_verified(to: str, merge: bool, tmp_path: Path) -> None:
    source = FIXTURES / "tokens.lora.h5"
    report = kerasport.convert(
        kerasport.read(source, merge_lora=merge), tmp_path / "t.safetensors", to=to
    )
    assert not any(note.loss for note in report.notes)
    assert any(note.kind == "merged" for note in report.notes) is merge
    again = kerasport.verify(tmp_path / "t.safetensors", against=source)
    assert again.placed == report.placed == (7 if merge else 15)


def test_a_target_of_a_merged_live_model_is_verified(tmp_path: Path) -> None:
    (trial,) = (t for t in PLAIN if t.label == "Conv2D")
    layer = built(trial)
    kerasport.convert(
        kerasport.read(layer, merge_lora=True), tmp_path / "t.safetensors", to="torch"
    )
    assert kerasport.verify(tmp_path / "t.safetensors", against=layer).placed == 2


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_the_command_line_merges(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source, target = FIXTURES / "tokens.lora.h5", tmp_path / "t.safetensors"
    code, out, err = run(capsys, "convert", source, target, "--to", "torch", "--merge-lora")
    assert (code, err) == (0, "")
    assert "merged: value/embeddings" in out
    code, out, _ = run(capsys, "plan", source, "--to", "torch", "--json")
    hint = json.loads(out)["layers"]["hidden"]["hints"]["lora"]["value"]
    assert hint == {
        "rank": 2,
        "alpha": 3.0,
        "formula": "kernel + (alpha / rank) x lora_kernel_a @ lora_kernel_b",
    }
