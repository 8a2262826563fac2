"""Gets the weights out of Keras and TensorFlow models and into everything else, bit for bit."""

from kerasport.api import convert, plan, read, verify, write
from kerasport.errors import KerasportError
from kerasport.layout import Layout, relayout
from kerasport.model import Layer, Note, Report, Snapshot, StateDict, Tensor
from kerasport.transpose import Move, Plan
from kerasport.version import VERSION as __version__

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
    "plan",
    "read",
    "relayout",
    "verify",
    "write",
]
