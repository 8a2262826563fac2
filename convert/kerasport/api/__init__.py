"""Reading, planning, writing, converting and verifying, each in one call.

Composition only: every step is somewhere else, and each can be called by itself.

    snapshot = kerasport.read("model.keras")
    state = kerasport.plan(snapshot, to="torch").apply()
    kerasport.write(state, "model.safetensors")
"""

from __future__ import annotations

from kerasport.api.matches import match, settled, write_names
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
