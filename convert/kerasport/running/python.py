"""A `model.py` as it lies in its folder, run and listened to.

What is run is the file itself, edited or not, with its own `load()`. To hear each layer, calls are
put between the statements of `forward`, at the places that the generator knows of: whether the file
still has the generator's statements is checked first, and where a user has rewritten them, the
outputs alone are compared.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasport.codegen.body import Tap
from kerasport.codegen.module import Module
from kerasport.errors import KerasportError, UnsupportedError, UsageError, VerificationError
from kerasport.running.oracle import Key

__all__ = ["Heard", "Python", "fits", "read"]

Array = npt.NDArray[Any]
_LISTENER: Final = "_kerasport_hears"


@dataclass(eq=False, slots=True)
class Heard:
    """What one layer of a module gives in one call.

    Attributes:
        tap: where it was heard.
        array: what it gives, in the module's order.
        owner: the class of the outermost model around it that is known.
        key: the call, from that model on.
    """

    tap: Tap
    array: Array
    owner: str
    key: Key


@dataclass(eq=False, slots=True)
class Python:
    """The module in a folder.

    Attributes:
        path: its `model.py`.
        module: what it gives by `load()`.
        heard: what its layers gave when it ran, in that order, those of inner models first.
    """

    path: Path
    module: Any
    heard: list[Heard] = field(default_factory=list)

    @classmethod
    def opened(cls, path: Path, taps: Sequence[Tap] = (), *, double: bool = False) -> Python:
        """The module with its weights.

        Args:
            path: its `model.py`, which is run.
            taps: where to listen.
            double: whether it is to compute in float64.

        Raises:
            VerificationError: it cannot be run, or its weights do not fit.
        """
        made = cls(path, None)
        text = read(path)
        tree = ast.parse(text)
        _put_in(tree, taps)

        def hears(number: int, value: Any) -> None:
            made._hear(taps[number], value)

        namespace: dict[str, Any] = {
            "__name__": "kerasport_module",
            "__file__": str(path.absolute()),
            _LISTENER: hears,
        }

        def load() -> Any:
            exec(compile(tree, str(path), "exec"), namespace)
            return namespace["load"]()

        module = made._called(load)
        made.module = module.double() if double else module
        return made

    def run(self, inputs: Sequence[Array], *, double: bool = False) -> list[Array]:
        """What the module gives, in its own order.

        Args:
            inputs: what it takes, in its own order.
            double: whether numbers are to be float64.
        """
        import torch

        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in inputs]
        given = [x.double() if double and x.is_floating_point() else x for x in tensors]
        with torch.no_grad():
            result = self._called(lambda: self.module(*given))
        return [_numpy(tensor) for tensor in _flat(result)]

    def _called(self, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except KerasportError:
            raise
        except NotImplementedError as error:
            raise UnsupportedError(
                f"{self.path}: cannot be run before its stubs are filled in: {error}. Write the "
                "layer there, or convert with --layers and a [NAME.module]"
            ) from error
        except Exception as error:  # it is a user's file, and may raise anything
            said = str(error).strip().splitlines() or [""]
            raise VerificationError(
                f"{self.path}: expected a module that runs, found "
                f"{type(error).__name__}: {said[0][:300]}"
            ) from error

    def _hear(self, tap: Tap, value: Any) -> None:
        """Note what a variable holds; what was heard inside a model belongs to this call of it."""
        own = (tap.layer, tap.call)
        if tap.steps:  # a model that saw all steps at once is compared as a whole
            self.heard = [one for one in self.heard if one.owner != tap.inner]
        for one in self.heard:
            if tap.inner and one.owner == tap.inner:
                one.owner, one.key = tap.owner, (own, *one.key)
        self.heard.append(Heard(tap, _numpy(value), tap.owner, (own,)))


def read(path: Path) -> str:
    """The source of a module.

    Raises:
        UsageError: it cannot be read.
        VerificationError: it is no Python.
    """
    try:
        text = path.read_text(encoding="utf-8")
        ast.parse(text)
    except OSError as error:
        raise UsageError(f"{path}: expected a readable file, found: {error.strerror}") from None
    except (SyntaxError, ValueError, RecursionError) as error:
        raise VerificationError(f"{path}: expected a module in Python: {error}") from error
    return text


def fits(text: str, made: Module) -> bool:
    """Whether a file's forward passes have the statements that the generator has written.

    What is in them may have changed, and what `__init__` says: the layers are where they were.

    Args:
        text: the file.
        made: what the generator writes.
    """
    if text == made.source:
        return True
    wanted, found = (_statements(ast.parse(source)) for source in (made.source, text))
    owners = {tap.owner for tap in made.taps}
    return all(found.get(owner) == wanted.get(owner) is not None for owner in owners)


def _forwards(tree: ast.Module) -> Mapping[str, ast.FunctionDef]:
    return {
        node.name: part
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        for part in node.body
        if isinstance(part, ast.FunctionDef) and part.name == "forward"
    }


def _statements(tree: ast.Module) -> dict[str, list[str]]:
    """What each statement of each forward pass gives a value to."""
    return {
        name: [
            " ".join(
                ast.unparse(target)
                for target in (
                    part.targets
                    if isinstance(part, ast.Assign)
                    else [part.target]
                    if isinstance(part, ast.AnnAssign)
                    else []
                )
            )
            or type(part).__name__
            for part in forward.body
        ]
        for name, forward in _forwards(tree).items()
    }


def _put_in(tree: ast.Module, taps: Sequence[Tap]) -> None:
    """Put a call behind each statement after which a variable holds what a layer gives."""
    forwards = _forwards(tree)
    for number in reversed(range(len(taps))):
        tap = taps[number]
        forward = forwards[tap.owner]
        call = ast.parse(f"{_LISTENER}({number}, {tap.variable})").body[0]
        before = forward.body[max(0, tap.statements - 1)]
        for node in ast.walk(call):
            ast.copy_location(node, before)
        forward.body.insert(tap.statements, call)


def _flat(given: Any) -> list[Any]:
    if isinstance(given, Mapping):
        return [x for part in given.values() for x in _flat(part)]
    if isinstance(given, list | tuple):
        return [x for part in given for x in _flat(part)]
    return [given]


def _numpy(tensor: Any) -> Array:
    tensor = tensor.detach().cpu()
    if str(tensor.dtype) in ("torch.bfloat16", "torch.float16"):
        tensor = tensor.float()
    array: Array = tensor.numpy().copy()
    return array
