"""Recurrent cells of TensorFlow 1: their fused weights do in PyTorch what they did there.

The cells themselves compute the outputs that are expected: tf_keras keeps those of
`tf.nn.rnn_cell`, and TensorFlow the operation behind LSTMBlockCell. The cells that cuDNN is
compatible with exist nowhere any more, so their steps are written out from TensorFlow 1.15.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kerasport
import oracles
from kerasport.conventions import Case, convention, rows
from kerasport.identify import identify
from kerasport.kinds import FORGET_BIAS, TF1_CELLS
from kerasport.layout import Layout
from kerasport.model import Layer, Snapshot, Source, Tensor
from kerasport.transpose import plan

Array = npt.NDArray[Any]
TOLERANCE = 1e-5
RNG = np.random.default_rng(3)
STEPS, BATCH = 4, 2
KINDS = {n: (kinds,) if isinstance(kinds, str) else kinds for n, kinds in TF1_CELLS.items()}
SIZES = [(3, 5), (5, 5), (7, 2)]


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def snapshot(class_name: str, weights: Mapping[str, Array]) -> Snapshot:
    """A cell as the readers of TensorFlow 1 deliver it."""
    layer = Layer(
        "rnn/cell",
        class_name,
        {},
        {key: Tensor.of(f"rnn/cell/{key}", value) for key, value in weights.items()},
    )
    return identify(Snapshot(Source("model.ckpt", "tf-checkpoint"), (layer,)))


def state(found: Snapshot) -> dict[str, torch.Tensor]:
    steps = plan(found, to="torch")
    steps.refuse_losses()
    return {
        name.removeprefix("rnn.cell."): torch.tensor(t.numpy()) for name, t in steps.apply().items()
    }


def run(module: torch.nn.Module, weights: Mapping[str, torch.Tensor], x: Array) -> Array:
    """The outputs at every step, from zero states."""
    module.load_state_dict(dict(weights))
    with torch.no_grad():
        y, _ = module(torch.tensor(x))
    found: Array = y.numpy()
    return found


def with_forget_bias(weights: dict[str, torch.Tensor], value: float) -> dict[str, torch.Tensor]:
    """What the hint asks for: the number that the cell adds is added to the bias."""
    bias = weights["bias_ih_l0"].clone()
    units = len(bias) // 4
    bias[units : 2 * units] += value  # gates i f g o
    return {**weights, "bias_ih_l0": bias}


# ---------------------------------------------------------------------------- the cells themselves


def by_cell(
    name: str, x: Array, units: int, options: Mapping[str, Any] | None = None
) -> tuple[dict[str, Array], Array]:
    """Random weights of a cell of `tf.nn.rnn_cell`, and its outputs."""
    import tensorflow as tf
    from tf_keras.src.layers.rnn import legacy_cells

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        cell = getattr(legacy_cells, name)(units, **(options or {}))
        states = cell.zero_state(BATCH, tf.float32)
        outputs = []
        for step in np.moveaxis(x, 1, 0):
            y, states = cell(tf.constant(step), states)
            outputs.append(y)
        weights = {}
        for variable in cell.variables:
            key = variable.name.removesuffix(":0").split("_cell/")[-1]
            weights[key] = normal(*variable.shape)
            session.run(variable.initializer)
            variable.load(weights[key], session)
        return weights, np.stack(session.run(outputs), 1)


@pytest.mark.filterwarnings("ignore")  # every one of these cells says that it is deprecated
@pytest.mark.parametrize(("inputs", "units"), SIZES)
@pytest.mark.parametrize(
    ("cell", "class_name"), [("BasicLSTMCell", "BasicLSTMCell"), ("LSTMCell", "TF1LSTMCell")]
)
def test_an_lstm_cell_is_one_of_pytorch_once_its_forget_bias_is_added(
    cell: str, class_name: str, inputs: int, units: int
) -> None:
    x = normal(BATCH, STEPS, inputs)
    weights, expected = by_cell(cell, x, units)
    found = snapshot(class_name, weights)
    module = torch.nn.LSTM(inputs, units, batch_first=True)
    hint = plan(found, to="torch").layers["rnn/cell"]["hints"]["forget_bias"]
    assert hint == {"value": 1.0, "changes_results": True}
    y = run(module, with_forget_bias(state(found), hint["value"]), x)
    assert oracles.deviation(y, expected) < TOLERANCE
    # The twin: without it the outputs are others.
    assert oracles.deviation(run(module, state(found), x), expected) > 1e-3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("projected", [2, 5])
@pytest.mark.parametrize(("inputs", "units"), SIZES)
def test_a_cell_with_a_projection_is_one_of_pytorch(
    inputs: int, units: int, projected: int
) -> None:
    x = normal(BATCH, STEPS, inputs)
    weights, expected = by_cell("LSTMCell", x, units, {"num_proj": projected})
    found = snapshot("TF1LSTMCell", weights)
    if projected < units:  # which is all that PyTorch allows
        module = torch.nn.LSTM(inputs, units, batch_first=True, proj_size=projected)
        y = run(module, with_forget_bias(state(found), 1.0), x)
        assert oracles.deviation(y, expected) < TOLERANCE
    assert found.layers[0].kind == "LSTMProjected"
    (problem,) = plan(found, to="onnx").problems
    assert "projection" in problem


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("inputs", "units"), SIZES)
def test_a_cell_with_peepholes_is_one_of_onnx(inputs: int, units: int) -> None:
    x = normal(BATCH, STEPS, inputs)
    weights, expected = by_cell("LSTMCell", x, units, {"use_peepholes": True})
    found = snapshot("TF1LSTMCell", weights)
    assert oracles.deviation(by_onnx(found, x, units), expected) < TOLERANCE
    # The twin: gates that see another gate's state put out something else.
    swapped = {**weights, "w_i_diag": weights["w_o_diag"], "w_o_diag": weights["w_i_diag"]}
    wrong = by_onnx(snapshot("TF1LSTMCell", swapped), x, units)
    assert oracles.deviation(wrong, expected) > 1e-3


def by_onnx(found: Snapshot, x: Array, units: int) -> Array:
    """The outputs of the operator LSTM with the weights of a cell, its forget bias added."""
    import onnxruntime
    from onnx import TensorProto, helper

    tensors = {
        name.rpartition(".")[2]: t.numpy() for name, t in plan(found, to="onnx").apply().items()
    }
    inputs = {"X": np.moveaxis(x, 1, 0), **{name: t.copy() for name, t in tensors.items()}}
    inputs["B"][0, 2 * units : 3 * units] += 1.0  # gates i o f c
    node = helper.make_node("LSTM", ["X", "W", "R", "B", "", "", "", "P"], ["Y"], hidden_size=units)
    infos = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in inputs.items()
    ]
    out = helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "lstm", infos, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found_y: Array = np.moveaxis(session.run(None, inputs)[0][:, 0], 0, 1)
    return found_y


@pytest.mark.filterwarnings("ignore")
def test_a_cell_with_both_is_passed_on_in_the_layout_of_keras() -> None:
    x = normal(BATCH, STEPS, 3)
    weights, _ = by_cell("LSTMCell", x, 5, {"use_peepholes": True, "num_proj": 2})
    found = snapshot("TF1LSTMCell", weights)
    assert found.layers[0].kind == "LSTMPeepholeProjected"
    tensors = {n.rpartition("/")[2]: t.numpy() for n, t in plan(found, to="keras").apply().items()}
    fused, made = weights["kernel"], tensors["recurrent_kernel"]
    i, j, f, o = np.split(fused[3:], 4, axis=1)
    np.testing.assert_array_equal(made, np.concatenate([i, f, j, o], axis=1))
    np.testing.assert_array_equal(tensors["projection_kernel"], weights["projection/kernel"])
    for gate in ("input", "forget", "output"):
        np.testing.assert_array_equal(
            tensors[f"{gate}_gate_peephole_weights"], weights[f"w_{gate[0]}_diag"]
        )


@pytest.mark.parametrize(("inputs", "units"), SIZES)
def test_a_block_cell_with_peepholes_has_those_of_its_operation(inputs: int, units: int) -> None:
    import tensorflow as tf

    x = normal(BATCH, STEPS, inputs)
    weights = {"kernel": normal(inputs + units, 4 * units), "bias": normal(4 * units)}
    weights |= {f"w_{gate}_diag": normal(units) for gate in "ifo"}
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
    y = by_onnx(snapshot("LSTMBlockCell", weights), x, units)
    assert oracles.deviation(y, np.stack(outputs, 1)) < TOLERANCE


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("inputs", "units"), SIZES)
def test_a_basic_cell_is_one_of_pytorch(inputs: int, units: int) -> None:
    x = normal(BATCH, STEPS, inputs)
    weights, expected = by_cell("BasicRNNCell", x, units)
    module = torch.nn.RNN(inputs, units, batch_first=True)
    y = run(module, state(snapshot("BasicRNNCell", weights)), x)
    assert oracles.deviation(y, expected) < TOLERANCE


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("inputs", "units"), SIZES)
def test_a_gru_cell_is_one_of_keras_that_resets_before(inputs: int, units: int) -> None:
    """PyTorch has none; Keras's own layer takes the weights and puts out the same."""
    import keras

    x = normal(BATCH, STEPS, inputs)
    weights, expected = by_cell("GRUCell", x, units)
    found = snapshot("TF1GRUCell", weights)
    (problem,) = plan(found, to="torch").problems
    assert "reset" in problem
    tensors = plan(found, to="keras").apply()
    layer = keras.layers.GRU(units, reset_after=False, return_sequences=True)
    layer.build(x.shape)
    layer.set_weights([t.numpy() for t in tensors.values()])
    assert [name.rpartition("/")[2] for name in tensors] == ["kernel", "recurrent_kernel", "bias"]
    assert oracles.deviation(np.asarray(layer(x)), expected) < TOLERANCE


@pytest.mark.parametrize("class_name", ["LSTMBlockCell", "LSTMBlockFusedCell"])
@pytest.mark.parametrize(("inputs", "units"), SIZES)
def test_a_fused_cell_has_the_gates_of_the_operation_behind_it(
    class_name: str, inputs: int, units: int
) -> None:
    import tensorflow as tf

    x = normal(BATCH, STEPS, inputs)
    weights = {"kernel": normal(inputs + units, 4 * units), "bias": normal(4 * units)}
    c = h = np.zeros((BATCH, units), np.float32)
    zeros = np.zeros(units, np.float32)
    outputs = []
    for step in np.moveaxis(x, 1, 0):
        made = tf.raw_ops.LSTMBlockCell(
            x=step,
            cs_prev=c,
            h_prev=h,
            w=weights["kernel"],
            wci=zeros,
            wcf=zeros,
            wco=zeros,
            b=weights["bias"],
            forget_bias=1.0,
            cell_clip=-1.0,
            use_peephole=False,
        )
        c, h = made.cs, made.h
        outputs.append(h.numpy())
    module = torch.nn.LSTM(inputs, units, batch_first=True)
    y = run(module, with_forget_bias(state(snapshot(class_name, weights)), 1.0), x)
    assert oracles.deviation(y, np.stack(outputs, 1)) < TOLERANCE


# ----------------------------------------------- cells that cuDNN is compatible with, by their code


def test_a_cell_that_cudnn_is_compatible_with_adds_nothing() -> None:
    """It is an LSTMBlockCell whose forget bias is zero."""
    weights = {"kernel": normal(8, 20), "bias": normal(20)}
    compatible, block = (
        snapshot(name, weights) for name in ("CudnnCompatibleLSTMCell", "LSTMBlockCell")
    )
    assert "forget_bias" not in plan(compatible, to="torch").layers["rnn/cell"]["hints"]
    assert "forget_bias" in plan(block, to="torch").layers["rnn/cell"]["hints"]
    assert {note.kind for note in plan(compatible, to="torch").notes} == {"synthesised"}
    for name, tensor in state(block).items():
        assert torch.equal(state(compatible)[name], tensor)


@pytest.mark.parametrize(("inputs", "units"), SIZES)
def test_a_gru_that_cudnn_is_compatible_with_is_the_one_of_pytorch(inputs: int, units: int) -> None:
    """`r, u = gates([x, h]); c = tanh(x W + b + r (h U + d)); h' = (1 - u) c + u h`."""
    w = {
        "gates/kernel": normal(inputs + units, 2 * units),
        "gates/bias": normal(2 * units),
        "candidate/input_projection/kernel": normal(inputs, units),
        "candidate/input_projection/bias": normal(units),
        "candidate/hidden_projection/kernel": normal(units, units),
        "candidate/hidden_projection/bias": normal(units),
    }
    x = normal(BATCH, STEPS, inputs)
    h = np.zeros((BATCH, units), np.float32)
    outputs = []
    for step in np.moveaxis(x, 1, 0):
        gates = np.concatenate([step, h], 1) @ w["gates/kernel"] + w["gates/bias"]
        r, u = np.split(sigmoid(gates), 2, 1)
        c = step @ w["candidate/input_projection/kernel"] + w["candidate/input_projection/bias"]
        back = h @ w["candidate/hidden_projection/kernel"] + w["candidate/hidden_projection/bias"]
        c = np.tanh(c + r * back)
        h = (1 - u) * c + u * h
        outputs.append(h)
    module = torch.nn.GRU(inputs, units, batch_first=True)
    y = run(module, state(snapshot("CudnnCompatibleGRUCell", w)), x)
    assert oracles.deviation(y, np.stack(outputs, 1)) < TOLERANCE


# ----------------------------------------------------------------------- what is said, and refused


def test_a_note_says_what_the_file_does_not_hold() -> None:
    weights = {"kernel": normal(8, 20), "bias": normal(20)}
    for to in ("keras", "torch", "onnx"):
        notes = [
            n for n in plan(snapshot("BasicLSTMCell", weights), to=to).notes if n.kind == "inferred"
        ]
        assert [str(note) for note in notes] == [
            "rnn/cell: a BasicLSTMCell adds 1 to its forget gate when it runs, unless it was made "
            "with another forget_bias: the bias here is as stored, without it"
        ]


@pytest.mark.parametrize(
    ("class_name", "shapes", "reason"),
    [
        ("BasicLSTMCell", {"kernel": (8, 21), "bias": (21,)}, "21 is no possible extent"),
        ("BasicLSTMCell", {"kernel": (4, 20), "bias": (20,)}, "4 is no possible extent"),
        ("BasicLSTMCell", {"kernel": (8, 20), "bias": (16,)}, "bias"),
        (
            "TF1LSTMCell",
            {"kernel": (8, 20), "bias": (20,), "projection/kernel": (6, 2)},
            "do not fit; LSTMProjected",
        ),
        (
            "TF1LSTMCell",
            {"kernel": (8, 20), "bias": (20,), "w_f_diag": (5,), "w_i_diag": (5,)},
            "expected kernel, bias",
        ),
        (
            "LayerNormBasicLSTMCell",
            {"kernel": (8, 20), "input/gamma": (5,), "input/beta": (5,)},
            "normalizes each of its gates",
        ),
        ("CudnnLSTM", {"opaque_kernel": (500,)}, "cuDNN's own buffer of weights"),
    ],
)
def test_a_cell_that_is_another_is_not_cut_where_it_does_not_fit(
    class_name: str, shapes: Mapping[str, tuple[int, ...]], reason: str
) -> None:
    """With a projection the state is narrower than the cell: its rows would be the input's."""
    found = snapshot(class_name, {key: normal(*shape) for key, shape in shapes.items()})
    (layer,) = found.layers
    assert layer.kind is None
    assert reason in layer.note
    (problem,) = plan(found, to="torch").problems
    assert problem.count("bias f32" if "bias" in shapes else next(iter(shapes))) == 1
    assert plan(found, to="keras").problems == ()


def test_a_dense_layer_is_not_taken_for_a_cell() -> None:
    """Every Dense whose outputs are a multiple of four has the shapes of an LSTM cell."""
    weights = {"kernel": normal(8, 20), "bias": normal(20)}
    tensors = {key: Tensor.of(f"dense/{key}", value) for key, value in weights.items()}
    layer = Layer("dense", None, {}, tensors)
    (found,) = identify(Snapshot(Source("m.ckpt", "tf-checkpoint"), (layer,))).layers
    assert (found.kind, found.convention) == ("Dense", "keras")


def test_each_cell_is_on_trial() -> None:
    assert {kind for kinds in KINDS.values() for kind in kinds} == set(convention("tf1"))
    assert TF1_CELLS.keys() >= FORGET_BIAS.keys()


# --------------------------------------------------------------------------------- there and back


CELLS = [
    (name, kind)
    for name, kinds in KINDS.items()
    for kind in kinds
    if kind not in ("CudnnOpaque", "LayerNormLSTM")
]


@st.composite
def cells(draw: st.DrawFn, class_name: str, kind: str) -> Snapshot:
    case: Case = next(rows(convention("tf1")[kind]))
    assert isinstance(case.slots, tuple)
    units = draw(st.integers(1, 5))
    sizes = {"unit": units, "hidden": units, "in": draw(st.integers(1, 5))}
    return snapshot(
        class_name,
        {slot.name: normal(*Layout.parse(slot.layout).shape(sizes)) for slot in case.slots},
    )


@pytest.mark.parametrize(("class_name", "kind"), CELLS)
@settings(max_examples=12)
@given(data=st.data())
def test_any_cell_comes_back(class_name: str, kind: str, data: st.DataObject) -> None:
    found = data.draw(cells(class_name, kind))
    assert found.layers[0].kind == kind
    for to in ("keras", "torch", "onnx"):
        steps = plan(found, to=to)
        if steps.problems:
            assert to == "torch" or "Projected" in kind
            continue
        back = oracles.returned(steps)
        for tensor in found.tensors:
            np.testing.assert_array_equal(back[tensor.name], tensor.numpy())


@pytest.mark.parametrize(("class_name", "kind"), CELLS)
def test_what_is_written_of_a_cell_is_verified(class_name: str, kind: str, tmp_path: Path) -> None:
    case = next(rows(convention("tf1")[kind]))
    assert isinstance(case.slots, tuple)
    sizes = {"unit": 5, "hidden": 5, "in": 3}
    found = snapshot(
        class_name,
        {slot.name: normal(*Layout.parse(slot.layout).shape(sizes)) for slot in case.slots},
    )
    for to in ("keras", "torch" if kind == "LSTMProjected" else "onnx"):
        if kind == "LSTMPeepholeProjected" and to != "keras":
            continue
        target = tmp_path / f"{to}.safetensors"
        kerasport.convert(found, target, to=to)
        kerasport.verify(target, against=found)
