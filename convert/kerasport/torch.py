"""A Keras file as a running PyTorch module, in one line.

    import kerasport.torch

    model = kerasport.torch.load_module("model.keras")

What is run is the module that `kerasport.codegen` writes, never code from the file. Whoever wants
to keep the module writes it down with `kerasport convert --to torch --module` and owns it.
"""

from __future__ import annotations

import importlib.util
import itertools
import linecache
import sys
from collections.abc import Callable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from kerasport.errors import MissingExtraError, UsageError
from kerasport.model import Snapshot, StateDict, dtype_name

if TYPE_CHECKING:
    import torch

__all__ = ["arrays", "described", "load_module", "runner"]

_numbers = itertools.count(1)


def load_module(
    source: str | PathLike[str] | Snapshot | object,
    *,
    layers: Any = None,
    snippets: Mapping[str, str] | None = None,
) -> torch.nn.Module:
    """The model in a file as a PyTorch module with its weights, ready for inference.

    >>> model = load_module("fixtures/cnn.keras")
    >>> type(model).__name__, model.training
    ('Cnn', False)

    Args:
        source: a path, a live Keras model or a snapshot; or a folder that `kerasport.write_module`
            wrote, whose `model.py` is run as it lies there.
        layers: descriptions of a user's own layers, as for `kerasport.read`.
        snippets: by class or path of a layer, the source of the `nn.Module` that stands for it.

    Raises:
        MissingExtraError: PyTorch is not installed.
        UnsupportedError: the file has no architecture, or a layer that no module can stand for.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch", "torch", "running a PyTorch module")
    from kerasport import api
    from kerasport.api.places import MODULE_SOURCE
    from kerasport.codegen.module import module

    if isinstance(source, str | PathLike):
        written = Path(fspath(source)).expanduser() / MODULE_SOURCE
        if written.is_file():
            from kerasport.running.python import Python

            opened: torch.nn.Module = Python.opened(written).module
            return opened
    snapshot = source if isinstance(source, Snapshot) else api.read(source, layers=layers)
    own = {**api.snippets(snapshot, layers), **(snippets or {})}
    made = module(snapshot, snippets=own)
    made.plan.refuse_losses()
    name = f"<kerasport module {next(_numbers)}>"
    # So that a traceback through the module shows its lines.
    linecache.cache[name] = (len(made.source), None, made.source.splitlines(True), name)
    namespace: dict[str, Any] = {"__name__": "kerasport_module", "__file__": name}
    exec(compile(made.source, name, "exec"), namespace)
    model: torch.nn.Module = namespace[made.name]()
    if made.double:
        model.double()
    model.load_state_dict(_tensors(made.plan.apply()))
    return model.eval()


def _made(name: str) -> Any:
    """What `package.module:factory` makes."""
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch", "torch", "running the factory of a PyTorch module")
    place, _, attribute = name.partition(":")
    # As `python -m` does: the modules of the folder that one is in.
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        made: Any = importlib.import_module(place)
        for word in attribute.split("."):
            made = getattr(made, word)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{name}: expected package.module:factory, found: {error}") from error
    # A module is callable too, and has its state already; a class has not.
    try:
        module = made() if isinstance(made, type) or not hasattr(made, "state_dict") else made
    except Exception as error:  # somebody else's code, which may raise anything
        raise UsageError(
            f"{name}: expected a factory that needs no arguments and makes an nn.Module, and it "
            f"raised {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, "state_dict"):
        raise UsageError(f"{name}: expected a factory of an nn.Module, found {type(module)}")
    return module


def described(name: str) -> list[tuple[str, tuple[int, ...], bool, str]]:
    """The state dict of what `package.module:factory` makes: names, shapes, whether floats.

    The factory is the caller's own code, and is run because the caller names it.

    Args:
        name: a function without arguments, or a class, that gives an `nn.Module`.

    Returns:
        For each tensor those, and the name of the one before it that it is one variable with.

    Raises:
        UsageError: there is no such factory, or it gives no module.
    """
    firsts: dict[object, str] = {}
    found = []
    for key, value in _made(name).state_dict().items():
        place = (value.untyped_storage().data_ptr(), value.storage_offset(), *value.stride())
        first = firsts.setdefault((place, value.shape), key) if value.numel() else key
        same = "" if first == key else first
        found.append((key, tuple(value.shape), value.is_floating_point(), same))
    return found


def arrays(path: Path) -> dict[str, Any]:
    """The arrays of an `.npz` file, by name; nothing in it is run.

    Raises:
        UsageError: there is no such file, or it holds something else.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, TypeError, AttributeError, EOFError, BadZipFile) as error:
        raise UsageError(f"{path}: expected an .npz file of arrays, found: {error}") from None


def runner(name: str, recorded: Mapping[str, Any]) -> Callable[[StateDict], float]:
    """What runs the module of a factory with a state dict, and tells how far off it is.

    Args:
        name: the factory.
        recorded: `outputs`, as the model gave them, and the inputs for that, as the module takes
            them, in its order.

    Returns:
        A function of a state dict that gives the largest difference, relative to the largest
        output.

    Raises:
        UsageError: there is no such factory, or there are no inputs.
    """
    inputs = [values for key, values in recorded.items() if key != "outputs"]
    if not inputs:
        raise UsageError("--inputs: expected arrays of inputs beside 'outputs', found none")
    module = _made(name)
    import torch

    expected = torch.from_numpy(recorded["outputs"])
    scale = float(expected.abs().max()) or 1.0

    def deviation(state: StateDict) -> float:
        module.load_state_dict(_tensors(state), strict=False)
        with torch.no_grad():
            given = module.eval()(*map(torch.from_numpy, inputs))
        found = [y for y in _flat(given) if getattr(y, "shape", None) == expected.shape]
        if not found:
            raise UsageError(f"{name}: expected an output of shape {tuple(expected.shape)}")
        return float((found[0] - expected).abs().max()) / scale

    return deviation


def _flat(outputs: Any) -> list[Any]:
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    if isinstance(outputs, list | tuple):
        return [y for part in outputs for y in _flat(part)]
    return [outputs]


def _tensors(state: StateDict) -> dict[str, torch.Tensor]:
    """The values of a state dict as PyTorch's tensors."""
    import torch

    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        array = tensor.numpy().copy()
        if dtype_name(tensor.dtype) == "bf16":
            tensors[name] = torch.from_numpy(array.view("int16")).view(torch.bfloat16)
        else:
            tensors[name] = torch.from_numpy(array)
    return tensors
