"""Kernels that Keras 2 trained on Theano: today's names and axes, turned by 180 degrees.

Keras 2 stores kernels in one order of axes whatever the backend. But Theano computed true
convolutions, which turn the kernel before they slide it, where TensorFlow slides it as it is; so
the same array does two things, and the file's attribute `backend` says which. Depthwise and
separable convolutions are not here: for them Keras turned the kernel itself before it gave it to
Theano. Sources: `backend/theano_backend.py` and `preprocess_weights_for_loading` of Keras 2.
"""

from __future__ import annotations

from collections.abc import Mapping

from kerasport.conventions import Case, Row, Slot

TURNED = {1: "-k", 2: "-kh -kw", 3: "-kd -kh -kw"}
BIAS = Slot("bias", "out", when="use_bias")

TABLE: Mapping[str, Row] = {
    **{f"Conv{n}D": (Slot("kernel", f"{k} in out"), BIAS) for n, k in TURNED.items()},
    **{f"Conv{n}DTranspose": (Slot("kernel", f"{k} out in"), BIAS) for n, k in TURNED.items()},
    "ConvLSTM2D": (
        Case(
            (
                Slot("kernel", f"{TURNED[2]} in ([i f c o] unit)"),
                Slot("recurrent_kernel", f"{TURNED[2]} hidden ([i f c o] unit)"),
                Slot("bias", "([i f c o] unit)", when="use_bias"),
            ),
            where=("hidden = unit",),
        ),
    ),
}
