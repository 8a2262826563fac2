"""What every test needs before the frameworks are imported.

TensorFlow reads these variables once, at import: without them it looks for a GPU and talks on
stderr. A value that is set outside wins.
"""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

# Warnings are errors. These come from the frameworks that the tests compare with, not from us.
FOREIGN_WARNINGS = (
    # keras.ops.convert_to_numpy calls np.array on a TensorFlow variable, NumPy 2 minds.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the frameworks' own warnings pass, each by its message."""
    for item in items:
        for text in FOREIGN_WARNINGS:
            item.add_marker(pytest.mark.filterwarnings(text))
