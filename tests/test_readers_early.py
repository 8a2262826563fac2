"""Files of the first versions of Keras 3: what they hold is what those versions said of it.

The expected values were stored by the Keras that wrote the files; see `tests/files/README.md`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import kerasport
from kerasport.model import Snapshot
from kerasport.torch import load_module

FILES = Path(__file__).parent / "files"
VERSIONS = ("3.0.5", "3.2.1")
WAYS = ("archive", "weights")


def read(version: str, way: str) -> Snapshot:
    archive = FILES / f"sequence.keras-{version}.keras"
    if way == "archive":
        return kerasport.read(archive)
    return kerasport.read(FILES / f"sequence.keras-{version}.weights.h5", config=archive)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_weights_are_those_that_the_keras_of_then_gave(version: str, way: str) -> None:
    with np.load(FILES / f"sequence.keras-{version}.io.npz") as recorded:
        expected = [recorded[f"weights.{n}"] for n in range(16)]
    found = [tensor.numpy() for tensor in read(version, way).tensors]
    assert len(found) == len(expected)
    for array, value in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, value)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_module_gives_what_the_keras_of_then_gave(version: str, way: str) -> None:
    module = load_module(read(version, way))
    with np.load(FILES / f"sequence.keras-{version}.io.npz") as recorded:
        inputs, expected = recorded["inputs"], recorded["outputs"]
    with torch.no_grad():
        found = module(torch.from_numpy(inputs)).numpy()
        # The twin: layers in another order would have been seen.
        turned = module(torch.from_numpy(inputs[:, ::-1].copy())).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert abs(turned - expected).max() > 1e-3


@pytest.mark.parametrize("version", VERSIONS)
def test_the_version_is_known(version: str) -> None:
    assert read(version, "archive").source.keras_version == version
