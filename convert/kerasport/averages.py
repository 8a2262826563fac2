"""Weights replaced by their moving averages, which many models are meant to be used with.

Training may keep a smoothed copy of each variable and save it beside: TensorFlow's
ExponentialMovingAverage does, and so do Keras's optimizers with `use_ema`. A checkpoint says whose
copy each one is, and the reader has noted it. Files of Keras 3 hold the optimizer's variables as a
numbered list without names; in what order they come is known, and whether averages are among them
the model's configuration says. Every copy must have the shape of its variable, or none is taken.
Averages that TensorFlow was given another name for look like an optimizer's slots, and are taken
where that name is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from kerasport.errors import UsageError
from kerasport.model import Layer, Named, Note, Omission, Snapshot, Tensor

__all__ = ["averaged"]

# What stands before the averages in the optimizer's list: the iteration, and the learning rate,
# which tf_keras keeps elsewhere.
_BEFORE: Final = (2, 1)
_STATE: Final = "optimizer state"
# In older files the variables have names: `SGD/average/dense/kernel` in tf_keras, `dense/kernel/
# average` in what averaged before it, `sgd/dense_kernel_average` in Keras 3.
_NAMED: Final = re.compile(
    r"(?:[^/]+/)?average/(?P<behind>.+)|(?P<before>.+)/average|[^/]+/(?P<flat>[^/]+)_average"
)


def averaged(snapshot: Snapshot, name: str = "") -> Snapshot:
    """The snapshot whose weights have the values of their moving averages.

    Args:
        snapshot: identified layers.
        name: the name that the averages were given, `ExponentialMovingAverage(name=...)`, where it
            is not TensorFlow's own.

    Returns:
        The same layers. The values that they had are listed as omitted, and notes say which weights
        have no average.

    Raises:
        UsageError: there are no moving averages, or it is not certain whose they are.
    """
    if name:
        snapshot = _of_name(snapshot, name)
    found = {o.average_of: o for o in snapshot.omitted if o.average_of} or _of_keras(snapshot)
    known = {tensor.stored for tensor in snapshot.tensors}
    if not known & found.keys():
        raise UsageError(
            f"{snapshot.source.file}: holds no moving averages of its weights: leave out --ema. "
            "See: kerasport inspect"
        )
    notes: list[Note] = []
    replaced: list[Omission] = []

    def taken(tensor: Tensor) -> Tensor:
        average = found.get(tensor.stored)
        if average is None:
            notes.append(Note("averaged", tensor.name, "has no moving average: is as it was"))
            return tensor
        notes.append(Note("averaged", tensor.name, "is its moving average"))
        trained = replace(
            tensor, name=f"{tensor.name} as trained"
        )  # two of one name hide one another
        replaced.append(Omission(trained, "replaced by its moving average"))
        new = average.tensor
        return replace(
            tensor,
            dtype=new.dtype,
            load=new.load,
            fill=new.fill,
            stored=new.stored,
        )

    layers = tuple(
        replace(
            layer,
            weights=Named("role", {role: taken(t) for role, t in layer.weights.items()}),
        )
        for layer in snapshot.layers
    )
    used = {id(found[tensor.tensor.stored]) for tensor in replaced}
    left = tuple(o for o in snapshot.omitted if id(o) not in used)
    return replace(
        snapshot,
        layers=layers,
        omitted=(*left, *replaced),
        notes=(*snapshot.notes, *notes),
    )


def _of_name(snapshot: Snapshot, name: str) -> Snapshot:
    """The snapshot in which tensors called after a weight and this name are its average.

    They stand among the weights, since nothing but the name tells them from those.
    """
    known = {tensor.stored: tensor for tensor in snapshot.tensors}

    def omission(layer: Layer, tensor: Tensor) -> Omission | None:
        above, _, last = tensor.stored.rpartition("/")
        base = known.get(above)
        if last != name or base is None or base.shape != tensor.shape:
            return None
        return Omission(tensor, f"moving average of {above}", average_of=above)

    found = snapshot.without(omission)
    averages = found.omitted[len(snapshot.omitted) :]
    if not averages:
        raise UsageError(
            f"{snapshot.source.file}: no weight has a tensor {name!r} of its shape below its name. "
            "See: kerasport inspect"
        )
    taken = {one.average_of for one in averages}
    others = (o for o in snapshot.omitted if o.average_of not in taken)
    return replace(found, omitted=(*others, *averages))


def _of_keras(snapshot: Snapshot) -> dict[str, Omission]:
    """The averages among an optimizer's variables, by what is stored of the weights."""
    state = [o for o in snapshot.omitted if o.reason == _STATE]
    trained = [tensor for tensor in snapshot.tensors if tensor.trainable is not False]
    found = _by_name(snapshot, state, trained)
    if found or not all(re.search(r"/vars/\d+$", o.tensor.stored) for o in state):
        return found
    kept = _keeps_averages(snapshot.architecture)
    if state and kept is None:
        raise UsageError(
            f"{snapshot.source.file}: does not say whether its optimizer kept moving averages. "
            "Give the model's own configuration with --config, or read the whole model"
        )
    return _by_place(snapshot, state, trained) if kept else {}


def _by_name(
    snapshot: Snapshot, state: Sequence[Omission], trained: Sequence[Tensor]
) -> dict[str, Omission]:
    found: dict[str, Omission] = {}
    stored = [re.sub(r":\d+$", "", tensor.stored) for tensor in trained]
    for one in state:
        name = re.sub(r":\d+$", "", one.tensor.stored).removeprefix("optimizer_weights/")
        said = _NAMED.fullmatch(name)
        if said is None:
            continue
        for base, mark in _bases(said):
            own = [
                tensor
                for tensor, path in zip(trained, stored, strict=True)
                if f"{mark}{path.replace('/', mark)}".endswith(f"{mark}{base}")
                and tensor.shape == one.tensor.shape
            ]
            if len(own) > 1 or (own and own[0].stored in found):
                raise UsageError(
                    f"{snapshot.source.file}: {one.tensor.stored} may be the moving average of "
                    "more than one weight"
                )
            if own:
                found[own[0].stored] = one
                break
    return found


def _bases(said: re.Match[str]) -> Iterator[tuple[str, str]]:
    """What the variable of an average may be called, and what is between the words."""
    if said["flat"] is not None:
        yield said["flat"], "_"
    elif said["behind"] is not None:
        yield said["behind"], "/"
    else:  # the optimizer's own scopes may come first
        words = said["before"].split("/")
        yield from (("/".join(words[start:]), "/") for start in range(len(words) - 1))


def _keeps_averages(architecture: Mapping[str, Any] | None) -> bool | None:
    """Whether the optimizer of a model keeps averages; None where nothing says it."""
    config: Any = (architecture or {}).get("compile_config")
    optimizer = config.get("optimizer") if isinstance(config, Mapping) else None
    for _ in range(2):  # the optimizer, or the one inside of one that scales losses
        own = optimizer.get("config") if isinstance(optimizer, Mapping) else None
        if not isinstance(own, Mapping):
            return None
        if "inner_optimizer" not in own:
            return bool(own.get("use_ema"))
        optimizer = own["inner_optimizer"]
    return None


def _by_place(
    snapshot: Snapshot, state: Sequence[Omission], trained: Sequence[Tensor]
) -> dict[str, Omission]:
    """The averages in a list of an optimizer's variables, in the order of the model's."""
    lists: dict[str, list[Omission]] = {}
    for one in state:
        lists.setdefault(one.tensor.stored.rpartition("/")[0], []).append(one)
    shapes = [tensor.shape for tensor in trained]
    fits = [
        held[start : start + len(shapes)]
        for held in lists.values()
        for start in _BEFORE
        if all(not o.tensor.shape for o in held[:start])
        and [o.tensor.shape for o in held[start : start + len(shapes)]] == shapes
    ]
    if len(fits) != 1 or not shapes:
        raise UsageError(
            f"{snapshot.source.file}: its optimizer kept moving averages, and they do not fit the "
            f"{len(shapes)} weights that are trained, one by one. Save the model with "
            "optimizer.finalize_variable_values(model.trainable_variables)"
        )
    return {tensor.stored: one for tensor, one in zip(trained, fits[0], strict=True)}
