"""Low-rank factors merged into the weight beside which they were trained.

`kernel + (alpha / rank) * (a @ b)`, in this order and in float32, then cast to the dtype in which
the layer computes: that is what Keras stores when it saves a layer with factors. The last bit of a
product of matrices depends on the order of its terms and on where it is rounded, which every
library and processor chooses for itself. So a live model is merged by its own Keras (see
`readers.live`), and what a file kept apart is merged here in a way of our own, the same on every
machine: term by term in the order of the rank, each product exact, each sum rounded once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasport.conventions.lora import names
from kerasport.errors import UnsupportedError
from kerasport.kinds import own_config
from kerasport.model import Layer, Named, Note, Omission, Snapshot, Tensor, dtype_name, dtype_named
from kerasport.variants import LORA, MIXED, plain, policies, scheme

__all__ = ["merged"]

Array = npt.NDArray[Any]
# In what a layer computes, by the name of its policy.
COMPUTED = {
    **MIXED,
    "float16": "f16",
    "bfloat16": "bf16",
    "float32": "f32",
    "float64": "f64",
}


def merged(snapshot: Snapshot) -> Snapshot:
    """The snapshot with low-rank factors merged into the weights that they belong to.

    Args:
        snapshot: identified layers.

    Returns:
        The same layers, without factors. The sums are computed when they are asked for.

    Raises:
        UnsupportedError: a weight that has factors is quantized.
    """
    with_factors = [layer for layer in snapshot.layers if (layer.kind or "").endswith(LORA)]
    problems = [layer.path for layer in with_factors if scheme(str(layer.kind))]
    if problems:
        raise UnsupportedError(
            "factors of quantized weights are merged into floats: add --dequantize, or save the "
            "model with Keras, which merges and quantizes anew",
            sorted(problems),
        )
    layers: list[Layer] = []
    notes: list[Note] = []
    omitted: list[Omission] = []
    for layer in snapshot.layers:
        if layer not in with_factors:
            layers.append(layer)
            continue
        first, second = names(str(layer.kind))
        weight, a, b = (layer.weights[name] for name in (first[5:-2], first, second))
        config = own_config(layer.class_name, layer.config)
        rank = layer.sizes["rank"]
        alpha = float(config.get("lora_alpha") or rank)
        sum_ = _sum(weight, (a, b), factor=alpha / rank, dtype=_computed(config, weight))
        own = {role: t for role, t in layer.weights.items() if role not in (first, second)}
        sizes = {axis: size for axis, size in layer.sizes.items() if axis != "rank"}
        layers.append(
            replace(
                layer,
                kind=plain(str(layer.kind)),
                weights=Named("role", {**own, weight.role: sum_}),
                sizes=sizes,
            )
        )
        message = f"is the sum of {weight.spec} and {alpha:g}/{rank} x {first} @ {second}"
        notes.append(Note("merged", sum_.name, f"{message}, in {dtype_name(sum_.dtype)}"))
        omitted += [Omission(tensor, f"merged into {sum_.name}") for tensor in (a, b)]
    return replace(
        snapshot,
        layers=tuple(layers),
        omitted=(*snapshot.omitted, *omitted),
        notes=(*snapshot.notes, *notes),
    )


def _computed(config: Any, weight: Tensor) -> np.dtype[Any]:
    """The dtype in which the layer computes, which Keras casts the sum to."""
    name = COMPUTED.get(policies(config)[0].source)
    return weight.dtype if name is None or "dtype" not in config else dtype_named(name)


def _sum(
    weight: Tensor, factors: tuple[Tensor, Tensor], *, factor: float, dtype: np.dtype[Any]
) -> Tensor:
    """The weight with its factors, as a tensor that is computed when it is asked for."""

    def load() -> Array:
        a, b = (tensor.numpy() for tensor in factors)
        change = np.asarray(factor, a.dtype) * _product(a, b)
        wide = np.result_type(weight.dtype, change.dtype) if weight.dtype.kind == "f" else a.dtype
        total: Array = np.add(weight.numpy().astype(wide), change).astype(dtype)
        return total

    return replace(weight, dtype=dtype, load=load, fill=None, trainable=None)


def _product(a: Array, b: Array) -> Array:
    """The product of two factors of float32, summed in the order of their rank.

    >>> _product(np.ones((2, 3), np.float32), np.ones((3, 1), np.float32)).tolist()
    [[3.0], [3.0]]
    """
    made = np.zeros((*a.shape[:-1], b.shape[-1]), a.dtype)
    for n in range(b.shape[0]):
        # In float64 the product of two numbers of float32 is exact.
        term = a[..., n, np.newaxis].astype(np.float64) * b[n]
        made = (made + term).astype(a.dtype)
    return made
