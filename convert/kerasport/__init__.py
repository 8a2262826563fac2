"""Gets the weights out of Keras and TensorFlow models and into everything else, bit for bit.

The public names are loaded when they are first asked for, so that importing kerasport costs a
script nothing that it does not use, and the command line answers `--help` without NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kerasport.version import VERSION as __version__

if TYPE_CHECKING:
    from kerasport.api import convert, match, plan, read, verify, verify_run, write, write_module
    from kerasport.errors import KerasportError
    from kerasport.layout import Layout, relayout
    from kerasport.model import Layer, Note, Report, Snapshot, StateDict, Tensor
    from kerasport.transpose import Move, Plan

__all__ = [
    "KerasportError",
    "Layer",
    "Layout",
    "Move",
    "Note",
    "Plan",
    "Report",
    "Snapshot",
    "StateDict",
    "Tensor",
    "__version__",
    "convert",
    "match",
    "plan",
    "read",
    "relayout",
    "verify",
    "verify_run",
    "write",
    "write_module",
]

_HOMES = {
    "api": ("convert", "match", "plan", "read", "verify", "verify_run", "write", "write_module"),
    "errors": ("KerasportError",),
    "layout": ("Layout", "relayout"),
    "model": ("Layer", "Note", "Report", "Snapshot", "StateDict", "Tensor"),
    "transpose": ("Move", "Plan"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            found = getattr(import_module(f"kerasport.{module}"), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module 'kerasport' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
