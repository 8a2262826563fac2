"""The way back: a copy of a Keras file that holds the values of a state dict.

What PyTorch does not have, the configuration, the optimizer, vocabularies, stays as it was, since
it is the file that is copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path
from typing import Any

from kerasport.api.matches import renamed_plan
from kerasport.api.places import refuse_own_source, refuse_place
from kerasport.api.reading import state_of
from kerasport.backward import agreeing, backward
from kerasport.conventions import NAMES
from kerasport.errors import UnsupportedError, UsageError
from kerasport.model import Report, Snapshot
from kerasport.naming import Naming, loaded
from kerasport.transpose import plan
from kerasport.writers import keras_file

__all__ = ["FILLED", "filled"]

# The formats of which a copy can be given other weights.
FILLED = ("keras", "keras-legacy", "keras-weights")


def filled(
    source: Path,
    target: Path,
    *,
    like: Snapshot,
    strict: bool,
    unknown: str,
    flatten: str,
    sum_biases: bool,
    names: str | PathLike[str] | Mapping[str, Any] | Naming | None,
) -> Report:
    """A copy of a Keras file that holds a state dict's values.

    Args:
        source: the state dict's file.
        target: the Keras file to write.
        like: the model whose file is copied.
        strict: see `convert`, as for those below.
        unknown: what to do with layers of no known kind.
        flatten: how the state dict's maker flattened images, where no manifest says it.
        sum_biases: add up the two biases of PyTorch's recurrent layers.
        names: what the state dict calls the layers.

    Raises:
        UnsupportedError: the file is of a kind that cannot be filled, or tensors do not fit.
        UsageError: the target cannot be written to, or options do not go together.
    """
    file = like.source.path
    if file is None or like.source.format not in FILLED:
        raise UnsupportedError(
            f"{like.source.file}: expected a .keras, .weights.h5 or .h5 file to fill, found "
            f"{like.source.format}. Save the model with Keras as one of those"
        )
    if {note.kind for note in like.notes} & {"dequantized", "merged"}:
        raise UsageError(
            f"{like.source.file}: its weights can be filled as they are stored only: leave out "
            "--dequantize and --merge-lora"
        )
    refuse_place(target)
    refuse_own_source(target, source)
    refuse_own_source(target, file)
    state = state_of(source)
    to = state.convention if state.convention in NAMES and names is None else "torch"
    # A manifest says how images were flattened; whoever has none must say it.
    ways = [flatten, *({"reorder", "keep"} - {flatten})] if state.manifest else [flatten]
    names = None if names is None else loaded(names)
    if names is not None:
        plans = [renamed_plan(like, names, flatten=way)[0] for way in ways]
        weights = {move.name for steps in plans for move in steps.moves}
        kept = {n for n in state if any(fnmatchcase(n, pattern) for pattern in names.kept)}
        kept -= weights
        state = replace(state, tensors={n: t for n, t in state.tensors.items() if n not in kept})
        like = renamed_plan(like, names, flatten=flatten)[1]
    else:
        plans = [
            plan(like, to=to, flatten=way, strict=strict, unknown=unknown, module=module)
            for way in ways
            for module in ((False, True) if to == "torch" else (False,))
        ]
    found = backward(
        agreeing(plans, state),
        state,
        like,
        file=source.name,
        strict=strict,
        sum_biases=sum_biases,
    )
    try:
        keras_file.write(found.tensors, target, like=file)
    except OSError as error:
        if error.filename is None or Path(error.filename).parent != target.parent:
            raise
        raise UsageError(
            f"{target}: expected a place that can be written, found: {error.strerror}"
        ) from None
    return Report(
        "convert",
        source.name,
        target.name,
        "keras",
        found.placed,
        len(found.tensors),
        sum(tensor.size for tensor in found.tensors.values()),
        sum(tensor.nbytes for tensor in found.tensors.values()),
        found.notes,
    )
