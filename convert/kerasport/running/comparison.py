"""The deviation of one array from another, and the table of all of them.

A difference counts relative to the scale of the layer, its largest number, or absolutely where that
is less: a float32 has seven digits, and what a sum loses goes with its largest summand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasport.errors import LayoutError
from kerasport.flatten import Order
from kerasport.layout import relayout

__all__ = [
    "TOLERANCE",
    "Row",
    "RunReport",
    "in_kerases_order",
    "in_modules_order",
    "row",
]

Array = npt.NDArray[Any]
JSON = Any
TOLERANCE: Final = 1e-5
"""What two orders of summing float32 may differ by, absolutely or relative to the layer's scale."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one layer gives in both, compared.

    Attributes:
        path: the layer's path, with the number of the call where there are several.
        class_name: its class in Keras.
        shape: the shape that is expected, in Keras's order.
        absolute: the largest difference; infinite where shapes differ or a number is missing.
        relative: the same relative to the largest number that is expected.
        within: whether it is within the tolerance.
        note: what else is to be said, such as another shape.
    """

    path: str
    class_name: str
    shape: tuple[int, ...]
    absolute: float
    relative: float
    within: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class RunReport:
    """What came out of running a module beside what it was made from.

    Attributes:
        source: what it is compared with.
        target: the folder of the module.
        by: who computed what is expected, with its version.
        dtype: what both computed in.
        tolerance: the largest deviation allowed, absolute or relative to a layer's scale.
        seed: the seed of the inputs; None where they were given.
        inputs: name → shape of each input, as Keras takes it or, without Keras, the module.
        layers: what the layers give, in the order in which the module computes them.
        outputs: what the model gives.
        notes: what is to be known of the comparison.
    """

    source: str
    target: str
    by: str
    dtype: str
    tolerance: float
    seed: int | None
    inputs: Mapping[str, tuple[int, ...]]
    layers: tuple[Row, ...]
    outputs: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def first(self) -> Row | None:
        """The first layer, or else output, that leaves the tolerance."""
        return next((row for row in (*self.layers, *self.outputs) if not row.within), None)

    def to_json(self) -> dict[str, JSON]:
        """The report as JSON data; its contract is `schemas/run.v1.schema.json`.

        JSON has no infinity: where shapes differ or a number is missing, a deviation is null.
        """
        first = self.first
        return {
            "schema_version": "1.0",
            "action": "run",
            "source": self.source,
            "target": self.target,
            "by": self.by,
            "dtype": self.dtype,
            "tolerance": self.tolerance,
            "seed": self.seed,
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            "layers": [_row_json(row) for row in self.layers],
            "outputs": [_row_json(row) for row in self.outputs],
            "notes": list(self.notes),
            "first": None if first is None else first.path,
        }


def _row_json(row: Row) -> dict[str, JSON]:
    return {
        "path": row.path,
        "class": row.class_name or None,
        "shape": list(row.shape),
        "absolute": row.absolute if math.isfinite(row.absolute) else None,
        "relative": row.relative if math.isfinite(row.relative) else None,
        "within": row.within,
        "note": row.note or None,
    }


def row(path: str, class_name: str, *, found: Array, wanted: Array, tolerance: float) -> Row:
    """Compare what the module gives with what is expected.

    >>> row("x", "Add", found=np.ones(2), wanted=np.array([1.0, 4.0]), tolerance=1e-5)
    Row(path='x', class_name='Add', shape=(2,), absolute=3.0, relative=0.75, within=False, note='')
    """
    if found.shape != wanted.shape:
        shape = ",".join(map(str, found.shape))
        return Row(
            path, class_name, wanted.shape, math.inf, math.inf, False, f"the module gives [{shape}]"
        )
    if not wanted.size:
        return Row(path, class_name, wanted.shape, 0.0, 0.0, True)
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(a - b))
    largest = float(np.max(np.where(np.isnan(difference), math.inf, difference)))
    finite = np.abs(b[np.isfinite(b)])
    scale = float(finite.max()) if finite.size else 0.0
    relative = largest / scale if scale else (0.0 if largest == 0.0 else math.inf)
    within = min(largest, relative) <= tolerance
    note = "" if np.isfinite(b).all() else "not all expected numbers are finite"
    return Row(path, class_name, wanted.shape, largest, relative, within, note)


def in_kerases_order(
    array: Array, *, order: Sequence[int] = (), features: Order | None = None
) -> Array:
    """What a module gives, with its axes and features as Keras has them.

    >>> in_kerases_order(np.zeros((2, 3, 5, 7)), order=(0, 3, 1, 2)).shape
    (2, 5, 7, 3)

    Args:
        array: what the module gives.
        order: which of Keras's axes each dimension is.
        features: the two sentences of the last axis.
    """
    try:
        if order and len(order) == array.ndim:
            here = " ".join(f"axis{axis}" for axis in order)
            array = relayout(array, here, " ".join(f"axis{axis}" for axis in sorted(order)))
        if features is not None:
            outer = " ".join(f"axis{axis}" for axis in range(array.ndim - 1))
            source, target = (f"{outer} {s}" for s in (features.target, features.source))
            array = relayout(array, source, target, **features.sizes)
    except LayoutError:  # of another shape than the model says: the comparison will tell
        return array
    return array


def in_modules_order(array: Array, order: Sequence[int]) -> Array:
    """What Keras takes, with its axes as a module takes them.

    >>> in_modules_order(np.zeros((2, 5, 7, 3)), (0, 3, 1, 2)).shape
    (2, 3, 5, 7)

    Args:
        array: what Keras takes.
        order: which of Keras's axes each dimension is.
    """
    if not order or len(order) != array.ndim:
        return array
    here = " ".join(f"axis{axis}" for axis in range(array.ndim))
    return relayout(array, here, " ".join(f"axis{axis}" for axis in order))
