"""Names of somebody else's: which tensor of a PyTorch module is which weight.

They are found once, put down in a file, and that file makes any later plan.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from os import PathLike
from typing import Any

from kerasport import formats, matching
from kerasport.api.places import as_path, refuse_place
from kerasport.api.reading import read
from kerasport.errors import UsageError
from kerasport.identify import identify
from kerasport.matching import Wanted
from kerasport.model import Snapshot, StateDict, Tensor, dtype_name
from kerasport.naming import Naming, named, renamed
from kerasport.naming import loaded as loaded_names
from kerasport.transpose import Plan, plan
from kerasport.units import groups

__all__ = ["CLOSE", "match", "renamed_plan", "settled", "write_names"]

# How near the outputs of a module must be to the model's, relative to the largest of them.
CLOSE = 1e-4


def match(
    source: str | PathLike[str] | Snapshot | object,
    target: str | PathLike[str] | Iterable[Wanted],
    *,
    hints: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    keep: Iterable[str] = (),
    inputs: str | PathLike[str] | Mapping[str, Any] | None = None,
) -> Naming:
    """Which module of a PyTorch model is which layer of a Keras model.

    Args:
        source: a path, a live model or a snapshot, which may have been selected from.
        target: a state dict's file; `package.module:factory`, which is imported and called; or the
            tensors that are wanted, in the order of their making.
        hints: patterns of layers and of the target's names that belong together.
        keep: patterns of tensors that the model does not have, such as another task's head: they
            stay the target's own.
        inputs: an `.npz` file, or arrays by name: what a factory's module takes, in its order and
            layout, and under `outputs` what the model gave for it. Without `outputs` they are what
            the model takes, as Keras lays it out, and Keras is run on them. The match is then
            proven by running the module, and what is ambiguous is settled by it.

    Returns:
        The names, for `convert(…, names=…)`; `str` gives the file of them.

    Raises:
        UnsupportedError: there is no way for all weights, or more than one.
        UsageError: there is no such target, or a hint fits nothing.
    """
    snapshot = source if isinstance(source, Snapshot) else read(source)
    wanted, ordered, name = _wanted(target)
    for pattern in (keep := tuple(keep)):
        if not any(fnmatchcase(tensor.name, pattern) for tensor in wanted):
            raise UsageError(f"--keep {pattern}: no tensor of {name} has such a name")
    wanted = [
        replace(tensor, number=False)
        if any(fnmatchcase(tensor.name, pattern) for pattern in keep)
        else tensor
        for tensor in wanted
    ]
    pairs = tuple(hints.items() if isinstance(hints, Mapping) else hints)
    live = None if isinstance(source, str | PathLike | Snapshot) else source
    judge = None if inputs is None else _judge(snapshot, name, inputs, live)
    found = matching.match(
        snapshot, groups(snapshot), wanted, ordered=ordered, hints=pairs, name=name, judge=judge
    )
    names = named(found, snapshot, title=f"{snapshot.source.file} as {name}")
    return names if judge is None else replace(names, notes=("proven by running it",))


def _judge(
    snapshot: Snapshot,
    factory: str,
    inputs: str | PathLike[str] | Mapping[str, Any],
    live: object | None,
) -> Callable[[matching.Found], bool]:
    """What tells whether a module with the weights in it puts out what the model did."""
    from kerasport.torch import arrays, runner

    if ":" not in factory:
        raise UsageError(f"--inputs: expected package.module:factory to run, found {factory}")
    recorded = inputs if isinstance(inputs, Mapping) else arrays(as_path(inputs))
    if "outputs" not in recorded:
        recorded = _by_keras(snapshot, recorded, live)
    deviation = runner(factory, recorded)

    def judge(found: matching.Found) -> bool:
        steps, _ = renamed_plan(snapshot, named(found, snapshot), flatten="reorder")
        return deviation(steps.apply()) <= CLOSE

    return judge


def _by_keras(snapshot: Snapshot, given: Mapping[str, Any], live: object | None) -> dict[str, Any]:
    """What the model takes and gives, as a module of PyTorch has it: channels first."""
    from kerasport.running import oracle, samples

    model = oracle.opened(snapshot, live)
    arrays = samples.matched(given, takes := model.inputs, where="--inputs")
    outputs = model.outputs(arrays)
    inputs = {one.name: _channels_first(x) for one, x in zip(takes, arrays, strict=True)}
    return {**inputs, "outputs": _channels_first(outputs[0])}


def _channels_first(array: Any) -> Any:
    """An image or a volume with its channels where PyTorch has them; anything else as it is."""
    from kerasport.running.comparison import in_modules_order

    rank = array.ndim
    return in_modules_order(array, (0, rank - 1, *range(1, rank - 1)) if rank in (4, 5) else ())


def settled(
    snapshot: Snapshot, names: str | PathLike[str] | Mapping[str, Any] | Naming
) -> Snapshot:
    """The snapshot with the kinds that names give to layers whose file does not say them.

    Args:
        snapshot: what `read` gave.
        names: what `match` gave, or the file of it.
    """
    fitting = {
        pattern: kind
        for pattern, kind in loaded_names(names).kinds.items()
        if any(fnmatchcase(path, pattern) for path in snapshot)
    }
    return identify(snapshot, fitting) if fitting else snapshot


def write_names(naming: Naming, path: str | PathLike[str]) -> None:
    """Write names to a file, whole or not at all.

    Args:
        naming: what `match` gave.
        path: the TOML file.
    """
    from kerasport.writers.staging import Staging

    target = as_path(path)
    refuse_place(target)
    with Staging(target) as staging:
        staging.open(target).write(str(naming).encode())
        staging.publish()


def _wanted(target: str | PathLike[str] | Iterable[Wanted]) -> tuple[list[Wanted], bool, str]:
    """The target's tensors, whether in the order of their making, and what it is called."""
    if not isinstance(target, str | PathLike):
        return list(target), True, "the target"
    path = as_path(target)
    if not path.exists() and re.fullmatch(r"[\w.]+:[\w.]+", str(target)):
        from kerasport.torch import described

        listed = described(str(target))
        wanted = [Wanted(key, shape, number, same=same) for key, shape, number, same in listed]
        return wanted, True, str(target)
    row = formats.detected(path)
    if row.name not in ("pytorch", "safetensors"):
        raise UsageError(
            f"{path}: expected a safetensors or .pt file, or package.module:factory, found "
            f"{row.holds}"
        )
    state = formats.reader(row)(path)
    # safetensors sorts by size and name; a pickled state dict stands as it was made.
    ordered = row.name == "pytorch"
    firsts: dict[object, str] = {}
    found: list[Wanted] = []
    for tensor in state.values():
        # One storage under two names is one variable; equal values are not.
        first = firsts.setdefault(_memory(tensor), tensor.name) if ordered else tensor.name
        found.append(_described(tensor, "" if first == tensor.name else first))
    return found, ordered, path.name


def _memory(tensor: Tensor) -> object:
    """Where the values of a mapped tensor are; a place of its own where there are none."""
    if not tensor.size:
        return tensor.name
    view = tensor.load()
    return (view.__array_interface__["data"][0], view.strides, view.shape, view.dtype)


def _described(tensor: Tensor, same: str) -> Wanted:
    is_float = tensor.dtype.kind == "f" or dtype_name(tensor.dtype).startswith(("bf", "f8"))
    # Where PyTorch has two biases and a model needs one, its makers filled one with zeros.
    second = "bias_ih" in tensor.name or "bias_hh" in tensor.name
    return Wanted(tensor.name, tensor.shape, is_float, second and not tensor.numpy().any(), same)


def renamed_plan(
    snapshot: Snapshot,
    names: str | PathLike[str] | Mapping[str, Any] | Naming,
    *,
    flatten: str = "reorder",
    own: StateDict | None = None,
) -> tuple[Plan, Snapshot]:
    """The plan under a target's names, and the model with the kinds that they give.

    Args:
        snapshot: what `read` gave.
        names: what `match` gave, or the file of it.
        flatten: `reorder` or `keep`, see `plan`.
        own: the target's own tensors, for those that are no weights.

    Raises:
        UsageError: a line of the names fits nothing, or two say the same.
    """
    naming = loaded_names(names)
    snapshot = settled(snapshot, naming)
    steps = plan(snapshot, to="torch", flatten=flatten, strict=False, unknown="keep")
    return renamed(steps, snapshot, naming, flatten=flatten, own=own), snapshot
