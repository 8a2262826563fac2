"""Random functional graphs: the generated module gives what Keras gives.

Fifty are drawn in a usual run; `KERASPORT_GRAPHS=500` draws more.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from generated import compared, randomized
from graphs import IMAGE, ONE, Program, Step, model, programs

COUNT = int(os.environ.get("KERASPORT_GRAPHS", "50"))


@settings(
    max_examples=COUNT,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(programs())
def test_the_module_of_a_random_graph_gives_what_keras_gives(program: Program) -> None:
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    made = model(program)
    randomized(made)
    rng = np.random.default_rng(7)
    inputs = [rng.normal(size=(2, *IMAGE[kind])).astype(np.float32) for kind in program.inputs]
    with tempfile.TemporaryDirectory() as folder:
        assert compared(made, inputs, Path(folder)) < 1e-5


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, steps in ONE.items() for name in steps]
)
def test_each_step_of_a_graph_is_a_model_of_its_own(kind: str, name: str, tmp_path: Path) -> None:
    """So that a random graph fails for how its steps are put together."""
    made = model(Program((kind,), (Step(name, (0,), 3),), (1,)))
    randomized(made)
    inputs = np.random.default_rng(7).normal(size=(2, *IMAGE[kind])).astype(np.float32)
    assert compared(made, [inputs], tmp_path) < 1e-5
