"""Layer paths as names of PyTorch submodules: identifiers, no two alike, none that breaks a module.

The state dict and the module that loads it must agree to the letter, so both ask here. Names that
PyTorch can hold stay as they are; the others make way for them. Layers without weights have names
in the module alone: they make way for those with weights, and change nothing in the state dict.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

from kerasport.conventions.torch import RESERVED

__all__ = ["identifier", "module_names"]


def module_names(paths: Iterable[str], others: Iterable[str] = ()) -> dict[str, str]:
    """What the last word of each path, and of each model around it, is called in PyTorch.

    >>> module_names(["block 1/conv", "block 1/conv.2", "to"])
    {'block 1/conv': 'conv', 'block 1': 'block_1', 'block 1/conv.2': 'conv_2', 'to': 'to_'}

    Args:
        paths: the layers with weights.
        others: the layers without.
    """
    names: dict[str, str] = {}
    taken: dict[str, set[str]] = {}
    for group in (paths, others):
        split = [path.split("/") for path in group]
        steps = dict.fromkeys("/".join(path[: n + 1]) for path in split for n in range(len(path)))
        new = [step for step in steps if step not in names]
        for step in sorted(new, key=_changes):
            above, _, own = step.rpartition("/")
            siblings = taken.setdefault(above, set())
            name = wanted = identifier(own)
            number = 2
            while name in siblings:
                name = f"{wanted}_{number}"
                number += 1
            siblings.add(name)
            names[step] = name
    return names


def _changes(step: str) -> bool:
    """Whether PyTorch cannot hold the name as it is."""
    own = step.rpartition("/")[2]
    return identifier(own) != own


def identifier(name: str) -> str:
    """A name as an attribute of a module.

    >>> identifier("conv/1"), identifier("3x3"), identifier("train"), identifier("class")
    ('conv_1', '_3x3', 'train_', 'class_')
    """
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not name or name[0].isdigit():
        name = f"_{name}"
    return f"{name}_" if name in RESERVED or keyword.iskeyword(name) else name
