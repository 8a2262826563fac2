"""Reading, planning, writing, converting and verifying, each in one call.

Composition only: every step is somewhere else, and each can be called by itself. Each call is
loaded when it is first asked for: whoever lists a file's weights does not wait for what finds names
or runs modules.

    snapshot = kerasport.read("model.keras")
    state = kerasport.plan(snapshot, to="torch").apply()
    kerasport.write(state, "model.safetensors")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasport.api.matches import match, renamed_plan, settled, write_names
    from kerasport.api.modules import snippets, verify_run, write_module
    from kerasport.api.reading import read, select, tie
    from kerasport.api.verifying import verify
    from kerasport.api.writing import convert, write
    from kerasport.transpose import plan

__all__ = [
    "convert",
    "match",
    "plan",
    "read",
    "renamed_plan",
    "select",
    "settled",
    "snippets",
    "tie",
    "verify",
    "verify_run",
    "write",
    "write_module",
    "write_names",
]

_HOMES = {
    "api.matches": ("match", "renamed_plan", "settled", "write_names"),
    "api.modules": ("snippets", "verify_run", "write_module"),
    "api.reading": ("read", "select", "tie"),
    "api.verifying": ("verify",),
    "api.writing": ("convert", "write"),
    "transpose": ("plan",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            found = getattr(import_module(f"kerasport.{module}"), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module 'kerasport.api' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
