"""From Keras to a target and back is the identity, bit for bit, for every kind.

Nothing more is stored than the two layouts, so the way back is the same copies read the other way.
`verify` lives on this.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oracles
from kerasport.conventions import convention, rows
from kerasport.layout import Layout
from kerasport.model import Layer, Snapshot, Source, Tensor
from kerasport.tiles import Copy
from kerasport.transpose import Move, plan
from oracles import GRID

FAMILIES = sorted({trial.family for trial in GRID})
DTYPES = [np.dtype(name) for name in ("f2", "f4", "f8", "i1", "u2", "i8")] + [
    np.dtype(ml_dtypes.bfloat16),
    np.dtype(ml_dtypes.float8_e4m3fn),
]


@pytest.mark.parametrize("to", ["torch", "onnx"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_weights_of_every_trial_come_back(family: str, to: str) -> None:
    """A copy that cannot be read backwards would lose weights that no forward pass misses."""
    for trial in GRID:
        if trial.family == family:
            found = oracles.snapshot(trial.build().layer)
            steps = plan(found, to=to)
            if steps.problems:
                assert to == "torch" or family in ("LocallyConnectedFull", "LocallyConnectedSparse")
                continue
            back = oracles.returned(steps)
            assert back.keys() == {tensor.name for tensor in found.tensors}
            for tensor in found.tensors:
                np.testing.assert_array_equal(back[tensor.name], tensor.numpy(), str(trial))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_weights_of_every_trial_come_back_from_two_targets(family: str) -> None:
    """Keras to torch, from there to ONNX by those two tables, and back to Keras."""
    ways = 0
    for trial in GRID:
        if trial.family == family:
            found = oracles.snapshot(trial.build().layer)
            there, further = plan(found, to="torch"), plan(found, to="onnx")
            if there.problems or further.problems:
                continue
            onward = oracles.onward(there, found, "onnx")
            if onward is None:
                continue
            ways += 1
            back = oracles.returned(further, onward)
            for tensor in found.tensors:
                np.testing.assert_array_equal(back[tensor.name], tensor.numpy(), str(trial))
    # Neither holds these; and nn.MultiheadAttention makes one axis of five.
    unheld = {"EinsumDenseBatched", "GRUResetBefore", "GRUResetBeforeCell"}
    unheld |= {"BidirectionalGRUResetBefore", "LocallyConnectedFull", "LocallyConnectedSparse"}
    assert bool(ways) == (family not in unheld | {"MultiHeadAttention", "PReLUPerPosition"})


# A kernel that, turned twice the same way, is not what it was, as a square matrix would be.
TURNED = "Conv2D-square,strides=1,padding=valid,groups=1,no_bias"


def test_a_copy_that_is_not_inverted_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: with the copies taken the same way again, the weights are others."""
    (trial,) = (t for t in GRID if str(t) == TURNED)
    found = oracles.snapshot(trial.build().layer)
    steps = plan(found, to="torch")
    monkeypatch.setattr(Copy, "inverted", lambda self: self)
    (back,) = oracles.returned(steps).values()
    (tensor,) = found.tensors
    assert not np.array_equal(back, tensor.numpy())


WORDS = {
    "normalized": "channel",
    "kernel": "in_a in_b out_c out_d",
    "bias": "out_c out_d",
    "inputs": "in_a in_b",
    "outputs": "out_c out_d",
    "scale": "1 1 out_c out_d",
    "factor_a": "in_a in_b out_c rank",
    "factor_b": "rank out_d",
    "output": "out_0 out_1",
    **{words: words for words in ("length channel", "height width channel")},
    "depth height width channel": "depth height width channel",
}
# Kinds whose braces stand for other axes than those of the same name.
OTHER_WORDS = {
    "LocallyConnected1D": {"window": "(k in)", "bias": "position out as (out position)"},
    "LocallyConnected2D": {"window": "(in kh kw)", "bias": "row column out"},
    "LocallyConnected1DFull": {"kernel": "from in position out", "bias": "position out"},
    "LocallyConnected2DFull": {
        "kernel": "in from_row from_column out row column",
        "bias": "row column out",
    },
    "LocallyConnected1DSparse": {"bias": "position out"},
    "LocallyConnected2DSparse": {"bias": "row column out"},
}


@st.composite
def layers(draw: st.DrawFn, kind: str) -> Snapshot:
    """A layer of this kind with any sizes, optional weights and dtype, as Keras names it."""
    (case,) = rows(convention("keras")[kind])
    assert isinstance(case.slots, tuple)
    left_out = draw(st.sets(st.sampled_from(sorted({s.when for s in case.slots}))))
    slots = [s for s in case.slots if not s.when or s.when not in left_out]
    words = {**WORDS, **OTHER_WORDS.get(kind, {})}
    layouts = {s.name: Layout.parse(s.layout.format_map(words)) for s in slots}
    axes = dict.fromkeys(axis for layout in layouts.values() for axis in layout.axes)
    sizes = {axis: draw(st.integers(1, 5)) for axis in axes}
    same = {"hidden": "unit", "row": "in", "col": "unit"} if "unit" in sizes else {}
    sizes |= {one: sizes[other] for one, other in same.items() if one in sizes}
    dtype = draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    weights = {}
    for slot in slots:
        shape = layouts[slot.name].shape(sizes)
        noise = rng.integers(0, 100, shape).astype(dtype)
        weights[slot.name] = Tensor.of(
            f"it/{slot.name}", noise, layout=layouts[slot.name], at=slot.pins, role=slot.name
        )
    layer = Layer("it", None, {}, weights, kind=kind, sizes=sizes, words=words)
    return Snapshot(Source("any", "memory"), (layer,))


@pytest.mark.parametrize("kind", sorted(convention("keras")))
@settings(max_examples=12)
@given(data=st.data())
def test_any_layer_of_any_kind_comes_back(kind: str, data: st.DataObject) -> None:
    """The grid has float32 and a few sizes; the promise is for all."""
    found = data.draw(layers(kind))
    for to in ("torch", "onnx"):
        steps = plan(found, to=to)
        if steps.problems:
            assert to == "torch" or kind.endswith(("DFull", "DSparse", "Projected"))
            continue
        back = oracles.returned(steps)
        for tensor in found.tensors:
            np.testing.assert_array_equal(
                back[tensor.name].view(f"V{tensor.dtype.itemsize}"),
                tensor.numpy().view(f"V{tensor.dtype.itemsize}"),
            )


def test_a_part_of_a_tensor_is_not_passed_on_as_the_whole() -> None:
    """A part that is stored in one piece is one contiguous copy too, and yet not the tensor."""
    whole = Tensor.of(
        "bias", np.arange(6, dtype=np.float32).reshape(2, 3), layout=Layout.parse("[a b] unit")
    )
    part = Move(
        "half",
        whole.dtype,
        (3,),
        Layout.parse("unit"),
        frozenset("b"),
        "bias",
        "it",
        None,
        (whole,),
        {"unit": 3},
    )
    np.testing.assert_array_equal(part.tensor().numpy(), [3, 4, 5])
    assert [list(slab) for slab in part.tensor().slabs(8)] == [[3, 4], [5]]
