"""LSTM cells whose gates see the state: of TensorFlow 1, and `tf.keras.experimental` until 2.15.

ONNX's LSTM has an input for such weights; what it puts out is compared with TensorFlow's own
operation and cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tf_keras
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

import kerasport
import oracles
from kerasport.identify import identify
from kerasport.model import Layer, Snapshot, Source, Tensor

Array = npt.NDArray[Any]
WORDS = ("input", "forget", "output")
BATCH, STEPS, TOLERANCE = 2, 4, 1e-5
SIZES = [(3, 5), (5, 5)]
rng = np.random.default_rng(7)


def normal(*shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def by_onnx(snapshot: Snapshot, x: Array, forget_bias: float = 0.0) -> Array:
    """The outputs of ONNX Runtime's LSTM with the exported weights and what the hints say."""
    plan = kerasport.plan(snapshot, to="onnx")
    assert plan.problems == ()
    weights = {name.rpartition(".")[2]: t.numpy().copy() for name, t in plan.apply().items()}
    (path,) = plan.layers
    hints = plan.layers[path]["hints"]
    made = hints.get("operators", {"value": [{"attributes": {}}]})["value"][0]["attributes"]
    units = weights["R"].shape[2]
    weights["B"][:, 2 * units : 3 * units] += forget_bias  # input gates i o f c
    given = ["x", "W", "R", "B", "", "", "", "P"]
    attributes = {"hidden_size": units, **made}
    node = helper.make_node("LSTM", given, ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "cell",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (STEPS, BATCH, x.shape[2]))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (STEPS, 1, BATCH, units))],
        [numpy_helper.from_array(np.ascontiguousarray(w), name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.ascontiguousarray(np.moveaxis(x, 1, 0))})
    return np.moveaxis(y[:, 0], 0, 1)


def by_torch(snapshot: Snapshot, x: Array, forget_bias: float = 0.0) -> Array:
    """The outputs of a module of one's own, as the hint describes it."""
    plan = kerasport.plan(snapshot, to="torch")
    (path,) = plan.layers
    hint = plan.layers[path]["hints"]["peepholes"]
    assert hint == {"value": True, "changes_results": True}
    state = plan.apply().items()
    w = {name.rpartition(".")[2]: torch.tensor(t.numpy()) for name, t in state}
    h = c = torch.zeros(len(x), len(w["weight_ci_l0"]))
    outputs = []
    for step in torch.tensor(x).unbind(1):
        gates = torch.nn.functional.linear(step, w["weight_ih_l0"], w["bias_ih_l0"])
        gates = gates + torch.nn.functional.linear(h, w["weight_hh_l0"], w["bias_hh_l0"])
        i, f, g, o = gates.chunk(4, 1)
        i = torch.sigmoid(i + w["weight_ci_l0"] * c)
        f = torch.sigmoid(f + forget_bias + w["weight_cf_l0"] * c)
        c = f * c + i * torch.tanh(g)
        h = torch.sigmoid(o + w["weight_co_l0"] * c) * torch.tanh(c)
        outputs.append(h)
    return np.asarray(torch.stack(outputs, 1))


def cell_of_tensorflow_1(class_name: str, weights: Mapping[str, Array]) -> Snapshot:
    tensors = {key: Tensor.of(f"rnn/{key}", value) for key, value in weights.items()}
    layer = Layer("rnn/cell", class_name, {}, tensors)
    return identify(Snapshot(Source("m.ckpt", "tf-checkpoint"), (layer,)))


@pytest.mark.parametrize("class_name", ["TF1LSTMCell", "LSTMBlockCell", "LSTMBlockFusedCell"])
@pytest.mark.parametrize(("inputs", "units"), SIZES)
def test_a_cell_of_tensorflow_1_puts_out_what_its_operation_does(
    class_name: str, inputs: int, units: int
) -> None:
    import tensorflow as tf

    x = normal(BATCH, STEPS, inputs)
    weights = {"kernel": normal(inputs + units, 4 * units), "bias": normal(4 * units)}
    weights |= {f"w_{gate}_diag": normal(units) for gate in "fio"}
    c = h = np.zeros((BATCH, units), np.float32)
    outputs = []
    for step in np.moveaxis(x, 1, 0):
        made = tf.raw_ops.LSTMBlockCell(
            x=step,
            cs_prev=c,
            h_prev=h,
            w=weights["kernel"],
            wci=weights["w_i_diag"],
            wcf=weights["w_f_diag"],
            wco=weights["w_o_diag"],
            b=weights["bias"],
            forget_bias=1.0,
            cell_clip=-1.0,
            use_peephole=True,
        )
        c, h = made.cs, made.h
        outputs.append(h.numpy())
    expected = np.stack(outputs, 1)
    found = cell_of_tensorflow_1(class_name, weights)
    assert found["rnn/cell"].kind == "LSTMPeephole"
    for run in (by_onnx, by_torch):
        assert oracles.deviation(run(found, x, 1.0), expected) < TOLERANCE
    # The twin: gates that see each other's weights put out something else.
    turned = {**weights, "w_f_diag": weights["w_i_diag"], "w_i_diag": weights["w_f_diag"]}
    for run in (by_onnx, by_torch):
        wrong = run(cell_of_tensorflow_1(class_name, turned), x, 1.0)
        assert oracles.deviation(wrong, expected) > 1e-3


@pytest.mark.filterwarnings(
    "ignore"
)  # the cell says that it is deprecated, its Keras warns of HDF5
@pytest.mark.parametrize("gates", ["hard_sigmoid", "sigmoid"])
def test_a_cell_of_tf_keras_puts_out_what_it_did_there(
    gates: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Keras of TensorFlow 2.0 to 2.5 is still inside of TensorFlow, and nobody's interface."""
    import tensorflow.python.keras as inner
    from tensorflow.python.keras import Input, Model
    from tensorflow.python.keras.layers import recurrent

    monkeypatch.setattr(inner, "__version__", "2.5.0", raising=False)  # goes into the file
    x = normal(BATCH, STEPS, 3)
    inputs = Input((STEPS, 3))
    cell = recurrent.PeepholeLSTMCell(5, recurrent_activation=gates)
    model = Model(inputs, recurrent.RNN(cell, return_sequences=True, name="reader")(inputs))
    model.set_weights([normal(*w.shape) for w in model.get_weights()])
    path = tmp_path / "model.h5"
    model.save(path, save_format="h5")
    found = kerasport.read(path)
    layer = found["reader"]
    assert (layer.kind, layer.class_name) == ("LSTMPeephole", "RNN")
    assert oracles.deviation(by_onnx(found, x), model(x).numpy()) < TOLERANCE
    roles = ("kernel", "recurrent_kernel", "bias", *(f"{g}_gate_peephole_weights" for g in WORDS))
    assert tuple(layer.weights) == roles
    for to in ("torch", "onnx", "keras"):
        kerasport.convert(path, tmp_path / f"{to}.safetensors", to=to)
        kerasport.verify(tmp_path / f"{to}.safetensors", against=path)
    back = kerasport.plan(kerasport.read(tmp_path / "keras.safetensors"), to="keras").apply()
    for role, array in zip(roles, model.get_weights(), strict=True):
        np.testing.assert_array_equal(back[f"reader/{role}"].numpy(), array)


class PeepholeLSTMCell(tf_keras.layers.LSTMCell):  # type: ignore[misc]
    """The variables of the cell, for the wrappers that TensorFlow no longer has inside."""

    def build(self, shape: Any) -> None:
        super().build(shape)
        for word in WORDS:
            self.add_weight(shape=(self.units,), name=f"{word}_gate_peephole_weights")


@pytest.mark.filterwarnings("ignore")
def test_the_same_from_its_weights_alone_and_in_both_directions(tmp_path: Path) -> None:
    inputs = tf_keras.Input((STEPS, 3))
    layer = tf_keras.layers.RNN(PeepholeLSTMCell(5), return_sequences=True)
    model = tf_keras.Model(inputs, tf_keras.layers.Bidirectional(layer, name="both")(inputs))
    model.set_weights([normal(*w.shape) for w in model.get_weights()])
    whole, alone = tmp_path / "model.h5", tmp_path / "weights.h5"
    model.save(whole, save_format="h5")
    model.save_weights(alone, save_format="h5")
    first = kerasport.read(whole)
    assert first["both"].kind == "BidirectionalLSTMPeephole"
    state = kerasport.plan(first, to="torch").apply()
    for asked in ("Bidirectional", "Bidirectional(RNN(PeepholeLSTMCell))"):
        second = kerasport.read(alone, kinds={"both": asked})
        other = kerasport.plan(second, to="torch").apply()
        assert {name: t.numpy().tobytes() for name, t in other.items()} == {
            name: t.numpy().tobytes() for name, t in state.items()
        }
    for weight in model.weights:
        for word in WORDS:
            if f"{word}_gate" in weight.name:
                suffix = "_reverse" if "backward" in weight.name else ""
                found = state[f"both.weight_c{word[0]}_l0{suffix}"].numpy()
                np.testing.assert_array_equal(found, weight.numpy())
