"""What every test needs before the frameworks are imported.

TensorFlow reads these variables once, at import: without them it looks for a GPU and talks on
stderr. A value that is set outside wins.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A machine that is busy is no failure.
# Commands of their own, some with packages that no test needs.
collect_ignore_glob = ["benchmarks/*"]

settings.register_profile("unhurried", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("unhurried")

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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many layers were compared with another framework, which is what a claim rests on."""
    passed = [report.nodeid for report in terminalreporter.getreports("passed")]
    for target in ("torch", "onnx"):
        count = sum(f"test_{target}_puts_out_what_keras_does" in name for name in passed)
        if count:
            terminalreporter.write_line(f"{count} layers put out the same in Keras and {target}")
    drawn = [
        count
        for report in terminalreporter.getreports("passed")
        for name, count in report.user_properties
        if name == "layers drawn"
    ]
    if drawn:
        terminalreporter.write_line(f"{sum(drawn)} layers drawn at random do so too, in both")
