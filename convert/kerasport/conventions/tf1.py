"""How the recurrent cells of TensorFlow 1 kept their weights: fused over input and state.

A cell of `tf.nn.rnn_cell` multiplies its input and its state, end to end, by one matrix, so one
tensor holds the kernel and the recurrent kernel: `(in + hidden)`. Gates lie in the order of the
code, `i j f o` for an LSTM (j is what Keras calls c) and reset before update for a GRU.

What is not in the file: most LSTM cells add a number to the forget gate when they run, 1 unless it
was set to another. See `kinds.FORGET_BIAS`.

Sources: `python/ops/rnn_cell_impl.py` of TensorFlow 1.15 and tf_keras 2.21 (`legacy_cells.py`), and
the documentation of the operations LSTMBlockCell and BlockLSTM (`icfo`).
"""

from __future__ import annotations

from collections.abc import Mapping

from kerasport.conventions import Absent, Case, Row, Slot

STEP = ("hidden = unit",)
BOTH = "kernel recurrent_kernel"


def _fused(gates: str) -> tuple[Slot, ...]:
    unit = f"({gates} unit)" if gates else "unit"
    return (
        Slot("kernel", f"(in + hidden) {unit}", BOTH),
        Slot("bias", unit, at="input", when="use_bias"),
    )


GATES = (
    Slot("gates/kernel", "(in + hidden) ([r z] unit)", BOTH),
    Slot("gates/bias", "([r z] unit)", "bias", "input"),
)
# What each gate sees of the cell's state, unit by unit.
PEEPHOLES = tuple(Slot(f"w_{gate}_diag", "unit", "peephole", gate) for gate in "fio")
PROJECTION = (Slot("projection/kernel", "unit hidden", "projection"),)
OPAQUE = Absent(
    "cuDNN's own buffer of weights, whose order depends on numbers of layers and units that the "
    "file does not hold; save the model with CudnnLSTMSaveable, which TensorFlow's layers use"
)

TABLE: Mapping[str, Row] = {
    "SimpleRNN": (Case(_fused(""), where=STEP),),
    "LSTM": (Case(_fused("[i c f o]"), where=STEP),),
    # Reset before the recurrent product.
    "GRUResetBefore": (
        Case(
            (
                *GATES,
                Slot("candidate/kernel", "(in + hidden) unit", BOTH, "h"),
                Slot("candidate/bias", "unit", "bias", "input h"),
            ),
            where=STEP,
        ),
    ),
    # And after it, as cuDNN does.
    "GRU": (
        Case(
            (
                *GATES,
                Slot("candidate/input_projection/kernel", "in unit", "kernel", "h"),
                Slot("candidate/input_projection/bias", "unit", "bias", "input h"),
                Slot("candidate/hidden_projection/kernel", "hidden unit", "recurrent_kernel", "h"),
                Slot("candidate/hidden_projection/bias", "unit", "bias", "recurrent h"),
            ),
            where=STEP,
        ),
    ),
    # What the next step takes in is not what the cell puts out, but a product of it.
    "LSTMProjected": (*_fused("[i c f o]"), *PROJECTION),
    "LSTMPeephole": (Case((*_fused("[i c f o]"), *PEEPHOLES), where=STEP),),
    "LSTMPeepholeProjected": (*_fused("[i c f o]"), *PEEPHOLES, *PROJECTION),
    "LayerNormLSTM": Absent(
        "an LSTM that normalizes each of its gates, which neither Keras nor PyTorch nor ONNX has "
        "as a layer; --to keras passes its tensors on as stored"
    ),
    "CudnnOpaque": OPAQUE,
}
