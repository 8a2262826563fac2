"""What the modules of a generated `model.py` call their parameters, where `torch.nn` has none.

A state dict alone is of no use for such a layer, so the table of `torch.nn` has it as absent. A
state dict that is written beside a module of ours can hold it: these rows come before those of
`torch.nn` then. Names and layouts follow the nearest module of `torch.nn`, channels first.
"""

from __future__ import annotations

from collections.abc import Mapping

from kerasport.conventions import Absent, Case, Row, Slot, convention, rows

__all__ = ["EXTRA"]

_GATES = "([r z h] unit)"
_RESET_BEFORE = (
    Slot("weight_ih_l0", f"{_GATES} in", "kernel"),
    Slot("weight_hh_l0", f"{_GATES} hidden", "recurrent_kernel"),
    Slot("bias_ih_l0", _GATES, "bias", "input"),
    Slot("bias_hh_l0", _GATES, "bias", "recurrent", fill=0.0),
)


def _per_position(kind: str, layout: str) -> tuple[Case, ...]:
    """The cases that PReLU has, and instead of the last one a slope a position."""
    *shared, _ = rows(convention("torch")[kind])
    return (*shared, Case((Slot("weight", layout, "alpha"),)))


EXTRA: Mapping[str, Row] = {
    "GRUResetBefore": _RESET_BEFORE,
    "BidirectionalGRUResetBefore": tuple(
        slot._replace(name=slot.name + suffix, at=f"{slot.at} {direction}".strip())
        for direction, suffix in (("forward", ""), ("backward", "_reverse"))
        for slot in _RESET_BEFORE
    ),
    "PReLU2D": _per_position("PReLU2D", "length channel"),
    "PReLU3D": _per_position("PReLU3D", "channel height width"),
    "PReLU4D": _per_position("PReLU4D", "channel depth height width"),
    # Sequences stay `batch steps features` in a module.
    **{
        kind: tuple(
            slot._replace(layout="length channel")
            for case in rows(convention("torch")[kind])
            if not isinstance(case.slots, Absent)
            for slot in case.slots
        )
        for kind in ("ParametricSoftplus2D", "SReLU2D")
    },
    # One parameter, which the way back takes too.
    "TiedEmbedding": convention("torch")["Embedding"],
    # As Keras has them, for torch.einsum.
    "EinsumDenseBatched": (Slot("weight", "{kernel}", "kernel"), Slot("bias", "{bias}")),
}
