"""Proof of a description: the layer in Keras and its module elsewhere put out the same.

A table of sentences is right when the weights that it exports make another module compute what the
Keras layer computes; nothing less shows it, since a square matrix has the right shape transposed or
not. These are the checks that kerasport's own tables have passed, for everybody's tables:

    layer = GatedUnit(5)
    layer.build((None, 3))
    testing.randomize(layer)
    testing.compare(layer, TorchGatedUnit(3, 5), inputs=[x], layers="layers.toml")

The conversion happens in memory: what `kerasport.read` gives of the layer is planned and applied as
for any file, without leaving anything out, and loaded with `strict=True`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasport.api import plan, read
from kerasport.custom import LayerTable
from kerasport.errors import UsageError
from kerasport.model import Snapshot, StateDict

__all__ = ["TOLERANCE", "Agreement", "Mismatch", "compare", "exported", "randomize"]

Array = npt.NDArray[Any]
Layers = str | PathLike[str] | Mapping[str, Any] | LayerTable | None
TOLERANCE: Final = 1e-5
"""What two orders of summing some hundred float32 may differ by, relative to the largest output."""


class Mismatch(AssertionError):
    """The two put out something else, or the weights do not fit the module."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was found where both put out the same.

    Attributes:
        error: the largest difference, relative to the largest output.
        outputs: how many arrays were compared.
        weights: the names of the exported weights.
    """

    error: float
    outputs: int
    weights: tuple[str, ...]


def compare(
    layer: object,
    other: Any,
    *,
    inputs: Sequence[Any],
    layers: Layers = None,
    to: str = "torch",
    tolerance: float = TOLERANCE,
) -> Agreement:
    """Run a Keras layer or model and what is to replace it, and compare what they put out.

    Args:
        layer: a layer or model of Keras that has been built, with weights that are not all alike;
            see `randomize`.
        other: a `torch.nn.Module`, which gets the exported weights by `load_state_dict`; or a
            function of the weights, as a mapping by name, and the inputs. It gets tensors of
            PyTorch where `to` is `torch`, and arrays of NumPy otherwise.
        inputs: the inputs of one call, as arrays.
        layers: the descriptions to prove, see `kerasport.custom`.
        to: the convention of the exported weights.
        tolerance: the largest error allowed, relative to the largest output.

    Returns:
        How well they agree.

    Raises:
        Mismatch: they do not, or the weights do not fit the module; the message says where.
        UnsupportedError: the layer cannot be exported without loss.
        UsageError: a weight has one value throughout, so that a wrong sentence would not be seen.
    """
    snapshot = read(layer, layers=layers)
    _refuse_constants(snapshot)
    state = _state(snapshot, layer, to=to)
    expected = list(_arrays(layer(*inputs)))  # type: ignore[operator]
    found = list(_arrays(_run(other, state, inputs, to=to, name=type(layer).__name__)))
    name = type(layer).__name__
    if len(found) != len(expected):
        raise Mismatch(
            f"{name}: expected {len(expected)} outputs as in Keras, found {len(found)} in {to}"
        )
    errors = [
        _error(f"{name}: output {number}" if len(found) > 1 else name, a, b, tolerance, to)
        for number, (a, b) in enumerate(zip(expected, found, strict=True))
    ]
    return Agreement(max(errors, default=0.0), len(found), tuple(state))


def exported(layer: object, *, layers: Layers = None, to: str = "torch") -> dict[str, Array]:
    """The weights of a live layer or model in another convention, by name.

    The names of a single layer's weights are relative to it; those of a model are as in a file.

    Args:
        layer: a layer or model of Keras that has been built.
        layers: descriptions of classes that are not Keras's.
        to: the convention.

    Raises:
        UnsupportedError: it cannot be exported without loss.
    """
    return _state(read(layer, layers=layers), layer, to=to)


def randomize(layer: Any, *, seed: int = 0) -> None:
    """Give every floating-point weight random values, so that no two layouts of it look alike.

    A new layer's biases are zeros, its scales ones: a wrong sentence for them would go unnoticed.

    Args:
        layer: a layer or model of Keras that has been built; its weights are changed.
        seed: of the random values.
    """
    rng = np.random.default_rng(seed)
    values = []
    for variable, value in zip(layer.weights, layer.get_weights(), strict=True):
        array = np.asarray(value)
        if array.dtype.kind == "f" or "float" in array.dtype.name:
            array = rng.normal(scale=0.5, size=array.shape).astype(array.dtype)
            if "variance" in getattr(variable, "path", variable.name):
                array = np.abs(array) + array.dtype.type(0.5)
        values.append(array)
    layer.set_weights(values)


def _state(snapshot: Snapshot, layer: object, *, to: str) -> dict[str, Array]:
    steps = plan(snapshot, to=to)
    steps.refuse_losses()
    state: StateDict = steps.apply()
    names = {name: name for name in (*state, *state.aliases)}
    if [found.path for found in snapshot.layers] and not _is_model(layer):
        names = {name: name.partition("/" if to == "keras" else ".")[2] for name in names}
    return {own: np.array(state[name].numpy()) for name, own in names.items()}


def _is_model(layer: object) -> bool:
    return any(kind.__name__ == "Model" for kind in type(layer).__mro__)


def _refuse_constants(snapshot: Snapshot) -> None:
    alike = []
    for tensor in snapshot.tensors:
        flat = tensor.flat()
        if flat.size > 1 and tensor.trainable is not False and (flat == flat[0]).all():
            alike.append(f"{tensor.name} is {flat[0]} throughout")
    if alike:
        raise UsageError(
            f"{snapshot.source.file}: {'; '.join(alike)}: a wrong sentence would not be seen. Give "
            "it other values: kerasport.testing.randomize(layer)"
        )


def _run(
    other: Any,
    state: Mapping[str, Array],
    inputs: Sequence[Any],
    *,
    to: str,
    name: str,
) -> Any:
    if to != "torch":
        return other(state, *map(np.asarray, inputs))
    import torch

    tensors = {key: _tensor(value) for key, value in state.items()}
    given = [_tensor(np.array(value)) for value in inputs]
    with torch.no_grad():
        if not hasattr(other, "load_state_dict"):
            return other(tensors, *given)
        wanted = other.state_dict()
        faults = [f"{key}: the module has no such weight" for key in tensors.keys() - wanted.keys()]
        faults += [f"{key}: is not exported" for key in wanted.keys() - tensors.keys()]
        faults += [
            f"{key}: the module has {list(wanted[key].shape)}, exported is {list(value.shape)}"
            for key, value in tensors.items()
            if key in wanted and wanted[key].shape != value.shape
        ]
        if faults:
            lines = "\n  ".join(sorted(faults))
            raise Mismatch(f"{name}: the weights do not fit {type(other).__name__}:\n  {lines}")
        other.load_state_dict(tensors, strict=True)
        return other.eval()(*given)


def _tensor(array: Array) -> Any:
    """An array as a tensor of PyTorch, which NumPy's bfloat16 and float8 come to by their bits."""
    import torch

    name = {"float8_e4m3fn": "float8_e4m3fn", "float8_e5m2": "float8_e5m2"}.get(array.dtype.name)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    if name is not None:
        return torch.from_numpy(array.view(np.uint8)).view(getattr(torch, name))
    return torch.from_numpy(array)


def _arrays(output: Any) -> Iterator[Array]:
    """Every array of what a call gave, in order: one, or several in lists, tuples and dicts."""
    if isinstance(output, Mapping):
        for key in sorted(output):
            yield from _arrays(output[key])
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _arrays(part)
    elif output is not None:
        value = output.detach().cpu() if hasattr(output, "detach") else output
        if "bfloat16" in str(value.dtype):
            value = value.float() if hasattr(value, "float") else np.asarray(value)
        yield np.asarray(value, np.float64)


def _error(name: str, expected: Array, found: Array, tolerance: float, to: str) -> float:
    """The largest difference, relative to the largest output; raised where it is too large."""
    if expected.shape != found.shape:
        raise Mismatch(
            f"{name}: expected shape {list(expected.shape)} as in Keras, found "
            f"{list(found.shape)} in {to}"
        )
    if not expected.size:
        return 0.0
    scale = max(1.0, float(np.abs(expected).max()))
    with np.errstate(invalid="ignore"):
        errors = np.abs(found - expected) / scale
    errors[np.isnan(errors)] = np.inf  # what is no number agrees with nothing
    wrong = errors > tolerance
    if not wrong.any():
        return float(errors.max())
    first, worst = (
        tuple(map(int, np.unravel_index(where, expected.shape)))
        for where in (int(np.flatnonzero(wrong)[0]), int(errors.argmax()))
    )
    raise Mismatch(
        f"{name}: {to} puts out something else in {int(wrong.sum())} of {wrong.size} numbers, the "
        f"first at {first}: Keras {expected[first]:.6g}, {to} {found[first]:.6g}; the largest "
        f"error is {errors[worst]:.3g} at {worst}, allowed is {tolerance:g}"
    )
