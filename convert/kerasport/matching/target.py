"""The tensors of a target, by the module that holds them.

A state dict is flat. Tensors belong together where their names are those that modules call theirs:
a `weight` and a `bias`, what a normalization runs along with, the gates of a recurrent layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["LEAVES", "Module", "Wanted", "modules_of"]

# What a tensor is to its module, by what people call it.
LEAVES = {
    word: role
    for role, words in {
        "weight": "weight kernel gamma scale w g embeddings embedding in_proj_weight",
        "bias": "bias beta b offset shift in_proj_bias",
        "running_mean": "running_mean moving_mean mean",
        "running_var": "running_var moving_variance moving_var variance var",
        "num_batches_tracked": "num_batches_tracked",
    }.items()
    for word in words.split()
}
RECURRENT = re.compile(r"((?:weight|bias)_(?:ih|hh))(?:_l(\d+))?(_reverse)?$")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A tensor that the target has.

    Attributes:
        name: its name.
        shape: its shape.
        number: whether it is of a dtype that weights have.
        blank: whether it is known to hold nothing but zeros.
        same: the name of the tensor before it that it is one variable with.
    """

    name: str
    shape: tuple[int, ...]
    number: bool = True
    blank: bool = False
    same: str = ""

    @property
    def spec(self) -> str:
        """Its shape as people write it."""
        return f"[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True, eq=False, slots=True)
class Module:
    """Tensors of the target that belong together; `leaves` by what they are to it."""

    name: str
    leaves: Mapping[str, Wanted]
    place: int


def modules_of(target: Sequence[Wanted]) -> list[Module]:
    """The tensors by module: those whose names are what modules call theirs, others alone."""
    grouped: dict[str, dict[str, Wanted]] = {}
    for wanted in target:
        above, _, own = wanted.name.rpartition(".")
        recurrent = RECURRENT.match(own)
        if recurrent:
            number = recurrent[2] or "0"
            key = above if number == "0" else f"{above}#{number}"
            leaf = recurrent[1] + ("_l0" if recurrent[2] else "") + (recurrent[3] or "")
        elif own.lower() in LEAVES:
            key, leaf = above, LEAVES[own.lower()]
        else:
            key, leaf = wanted.name, ""
        if leaf in grouped.get(key, {}):
            key, leaf = wanted.name, ""
        grouped.setdefault(key, {})[leaf] = wanted
    return [Module(key, leaves, n) for n, (key, leaves) in enumerate(grouped.items())]
