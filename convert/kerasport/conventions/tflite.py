"""What the operators of TensorFlow Lite call their weights, and how they lay them out.

Source: `tensorflow/lite/kernels/internal/reference` and the comments of `schema.fbs`: kernels are
`out kh kw in`, the outputs of a depthwise one lie in its last dimension, as in its bias.
"""

from __future__ import annotations

from collections.abc import Mapping

from kerasport.conventions import Row, Slot

BIAS = Slot("bias", "out", when="use_bias")

TABLE: Mapping[str, Row] = {
    "Dense": (Slot("weights", "out in", "kernel"), BIAS),
    "Conv2D": (Slot("filter", "out kh kw in", "kernel"), BIAS),
    "Conv2DTranspose": (Slot("filter", "out kh kw in", "kernel"), BIAS),
    "PReLU3D": (Slot("alpha", "height width channel"),),
    "DepthwiseConv2D": (
        Slot("filter", "1 kh kw (in mult)", "kernel"),
        Slot("bias", "(in mult)", when="use_bias"),
    ),
}
