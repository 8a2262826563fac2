"""The oracle that is offered to everybody: passes what agrees, says where the rest differs."""

from __future__ import annotations

import copy
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest
import torch
from keras import layers as L

from kerasport import testing
from kerasport.errors import UnsupportedError, UsageError
from own_layers import GATED, GatedUnit, TiedDense, TorchGatedUnit

X = np.random.default_rng(5).normal(size=(2, 3)).astype(np.float32)


def built(layer: Any, *shape: int) -> Any:
    layer.build((None, *shape))
    testing.randomize(layer)
    return layer


def test_what_agrees_is_told_with_its_error() -> None:
    found = testing.compare(built(L.Dense(5), 3), torch.nn.Linear(3, 5), inputs=[X])
    assert found.weights == ("weight", "bias")
    assert found.outputs == 1
    assert 0 <= found.error <= testing.TOLERANCE


def test_what_differs_is_told_with_the_first_place_and_the_largest_error() -> None:
    layer = built(L.Dense(5, use_bias=False), 3)

    def off(state: Any, x: Any) -> Any:
        y = x @ state["weight"].T
        y[0, 3] += 0.5
        y[1, 2] -= 2
        return y

    with pytest.raises(testing.Mismatch) as caught:
        testing.compare(layer, off, inputs=[X])
    expected = np.asarray(layer(X))
    scale = max(1.0, float(np.abs(expected).max()))
    assert str(caught.value) == (
        "Dense: torch puts out something else in 2 of 10 numbers, the first at (0, 3): Keras "
        f"{expected[0, 3]:.6g}, torch {expected[0, 3] + 0.5:.6g}; the largest error is "
        f"{2 / scale:.3g} at (1, 2), allowed is 1e-05"
    )
    assert testing.compare(layer, off, inputs=[X], tolerance=10).error == pytest.approx(2 / scale)


def test_what_is_no_number_does_not_agree() -> None:
    layer = built(L.Dense(5), 3)
    with pytest.raises(testing.Mismatch, match=r"in 10 of 10 numbers, the first at \(0, 0\)"):
        testing.compare(layer, lambda state, x: x[:, :1].repeat(1, 5) * torch.nan, inputs=[X])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda s, x: x, r"expected shape \[2, 5\] as in Keras, found \[2, 3\] in torch"),
        (lambda s, x: (x, x), "expected 1 outputs as in Keras, found 2 in torch"),
        (lambda s, x: [], "expected 1 outputs as in Keras, found 0 in torch"),
    ],
)
def test_other_shapes_and_other_numbers_of_outputs_are_told(wrong: Any, message: str) -> None:
    with pytest.raises(testing.Mismatch, match=message):
        testing.compare(built(L.Dense(5), 3), wrong, inputs=[X])


def test_weights_that_do_not_fit_the_module_are_listed() -> None:
    class Other(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(3, 5))
            self.scale = torch.nn.Parameter(torch.zeros(3))

    with pytest.raises(testing.Mismatch) as caught:
        testing.compare(built(L.Dense(5), 3), Other(), inputs=[X])
    assert str(caught.value) == (
        "Dense: the weights do not fit Other:\n"
        "  bias: the module has no such weight\n"
        "  scale: is not exported\n"
        "  weight: the module has [3, 5], exported is [5, 3]"
    )


def test_weights_that_are_alike_prove_nothing_and_are_refused() -> None:
    """A new layer's bias is zeros: any sentence for it would pass."""
    layer = GatedUnit(5, name="gated")
    layer.build((None, 3))
    with pytest.raises(UsageError, match=r"gated/bias is 0\.0 throughout: .*randomize\(layer\)"):
        testing.compare(layer, TorchGatedUnit(3, 5), inputs=[X], layers=GATED)
    testing.randomize(layer)
    testing.compare(layer, TorchGatedUnit(3, 5), inputs=[X], layers=GATED)


def test_random_values_come_from_a_seed_and_variances_are_positive() -> None:
    one, other = (L.BatchNormalization() for _ in range(2))
    for layer in (one, other):
        layer.build((None, 64))
    testing.randomize(one, seed=1)
    testing.randomize(other, seed=1)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
        assert len(np.unique(a)) > 60
    testing.randomize(other, seed=2)
    assert (one.get_weights()[0] != other.get_weights()[0]).all()
    assert (other.moving_variance.numpy() > 0).all()


def test_a_wrong_sentence_of_one_weight_is_found() -> None:
    for name, sentence in (("value.weight", "in out"), ("gate.weight", "in out")):
        wrong = copy.deepcopy(GATED)
        wrong["demo>GatedUnit"]["torch"][name]["layout"] = sentence
        with pytest.raises(testing.Mismatch):
            testing.compare(built(GatedUnit(3), 3), TorchGatedUnit(3, 3), inputs=[X], layers=wrong)


def test_a_layer_that_is_not_described_is_refused_and_so_is_a_part_that_would_be_lost() -> None:
    with pytest.raises(UnsupportedError, match="the class demo>GatedUnit is in no table"):
        testing.compare(built(GatedUnit(5), 3), TorchGatedUnit(3, 5), inputs=[X])


def test_a_whole_model_is_compared_under_its_own_names() -> None:
    inputs = keras.Input((3,))
    first = L.Dense(3, name="first", activation="relu")
    hidden = first(inputs)
    outputs = [TiedDense(3, other=first, name="second")(hidden), L.Dense(2, name="third")(hidden)]
    model = keras.Model(inputs, outputs)
    testing.randomize(model)

    class Module(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
            self.second.weight = self.first.weight
            self.third = torch.nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            h = self.first(x).relu()
            return self.second(h), self.third(h)

    found = testing.compare(model, Module(), inputs=[X], layers={"TiedDense": {"like": "Dense"}})
    assert found.outputs == 2
    assert "second.weight" in found.weights


def test_another_convention_gives_arrays_to_a_function() -> None:
    def gemm(state: Any, x: Any) -> Any:
        assert isinstance(state["B"], np.ndarray)
        return x @ state["B"].T + state["C"]

    testing.compare(built(L.Dense(5), 3), gemm, inputs=[X], to="onnx")
    testing.compare(
        built(L.Dense(5), 3), lambda s, x: x @ s["kernel"] + s["bias"], inputs=[X], to="keras"
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_weights_of_other_precision_come_bit_for_bit(dtype: str) -> None:
    layer = built(L.Dense(5, dtype=dtype), 3)
    state = testing.exported(layer)
    assert state["weight"].dtype == (ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    tolerance = {"bfloat16": 1e-2, "float16": 1e-3, "float64": 1e-12}[dtype]
    module = torch.nn.Linear(3, 5, dtype=getattr(torch, dtype))
    x = X.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    testing.compare(layer, module, inputs=[x], tolerance=tolerance)


def test_what_is_exported_is_a_copy() -> None:
    layer = built(L.Dense(5), 3)
    before = layer.get_weights()[0]
    testing.exported(layer, to="keras")["kernel"][:] = 0
    np.testing.assert_array_equal(layer.get_weights()[0], before)
