"""Models that strangers trained, from Keras 1.1 to 3.2: what is promised is promised of these.

The files are not in the repository. `KERASPORT_CORPUS` names their folder; without it these tests
are skipped. `python tests/test_corpus.py` prints the table of files, tensors and outcomes.
"""

from __future__ import annotations

import glob
import io
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import kerasport
from kerasport.api import select
from kerasport.errors import UnknownFormatError, UnsupportedError

CORPUS = Path(os.environ.get("KERASPORT_CORPUS", "/nowhere"))
NO_MODEL = "_inputs_and_outputs.h5"
SUFFIXES = {".h5", ".hdf5", ".keras"}
FILES = sorted(path for path in CORPUS.rglob("*") if path.suffix in SUFFIXES)
MODELS = [path for path in FILES if not path.name.endswith(NO_MODEL)]

pytestmark = pytest.mark.skipif(
    "KERASPORT_CORPUS" not in os.environ,
    reason="the environment variable KERASPORT_CORPUS names no folder of real models",
)


def name_of(path: Path) -> str:
    return str(path.relative_to(CORPUS))


def stored_weights(path: Path) -> dict[str, Any]:
    """The datasets of a file by their paths, optimizer state apart, found by h5py alone."""
    source: Any = path
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            source = io.BytesIO(archive.read("model.weights.h5"))
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer"):
            found[name] = item[()]

    with h5py.File(source) as file:
        file.visititems(visit)
    return found


def test_the_corpus_is_not_empty() -> None:
    assert len(MODELS) >= 50


@pytest.mark.parametrize("path", MODELS, ids=name_of)
def test_inspect_lists_each_stored_weight_once(path: Path) -> None:
    listed = kerasport.read(path).to_json()
    weights = [weight for layer in listed["layers"] for weight in layer["weights"]]
    expected = stored_weights(path)
    assert sorted(weight["stored"] for weight in weights) == sorted(expected)
    assert listed["totals"] == {
        "weights": len(expected),
        "parameters": sum(array.size for array in expected.values()),
        "bytes": sum(array.nbytes for array in expected.values()),
    }
    for weight in weights:
        array = expected[weight["stored"]]
        assert (tuple(weight["shape"]), weight["bytes"]) == (array.shape, array.nbytes)


@pytest.mark.parametrize("path", MODELS, ids=name_of)
def test_an_archive_holds_every_value(path: Path, tmp_path: Path) -> None:
    """Read by the clients' own libraries, and compared with what h5py reads of the source."""
    import pyarrow.parquet
    from safetensors.numpy import load_file

    snapshot = kerasport.read(path)
    expected = stored_weights(path)
    # Layers of Keras 1 and of Theano are put in today's layout, which only `verify` undoes.
    today = [layer for layer in snapshot.layers if layer.convention == "keras"]
    origin = {t.name: expected[t.stored] for layer in today for t in layer.weights.values()}
    for suffix in ("safetensors", "parquet"):
        target = tmp_path / f"model.{suffix}"
        report = kerasport.convert(snapshot, target, to="keras")
        assert report.placed == len(expected)
        assert report.tensors == len(expected) or len(today) < len(snapshot)
        assert kerasport.verify(target, against=path).placed == len(expected)
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == origin.keys() or len(today) < len(snapshot)
    for name, array in origin.items():
        np.testing.assert_array_equal(found[name], array)
    table = pyarrow.parquet.read_table(tmp_path / "model.parquet", columns=["name", "values"])
    for name, values in zip(*(table[key].to_pylist() for key in ("name", "values")), strict=True):
        np.testing.assert_array_equal(np.float32(values), found[name].reshape(-1))


@pytest.mark.parametrize("path", MODELS, ids=name_of)
def test_torch_gets_the_model_or_hears_what_it_lacks(path: Path, tmp_path: Path) -> None:
    """The layers in the way are those that fail alone, and without them nothing is in the way."""
    snapshot = kerasport.read(path)
    target = tmp_path / "model.safetensors"
    problems = kerasport.plan(snapshot, to="torch").problems
    if problems:
        with pytest.raises(UnsupportedError) as raised:
            kerasport.convert(snapshot, target, to="torch")
        assert raised.value.problems == problems
        assert not target.exists()
        named = {layer for layer in snapshot for p in problems if p.startswith(f"{layer}: ")}
        assert len(named) == len(problems)
        for layer in named:
            alone = select(snapshot, include=[glob.escape(layer)])
            assert len(kerasport.plan(alone, to="torch").problems) == 1
        if named == set(snapshot):
            return
        snapshot = select(snapshot, exclude=map(glob.escape, named))
    kerasport.convert(snapshot, target, to="torch")
    kerasport.verify(target, against=path)


@pytest.mark.parametrize("path", [p for p in FILES if p.name.endswith(NO_MODEL)], ids=name_of)
def test_recorded_inputs_are_no_model(path: Path) -> None:
    with pytest.raises(UnknownFormatError, match="HDF5 that holds no Keras weights"):
        kerasport.read(path)


def test_dtln_gives_the_numbers_of_its_port(tmp_path: Path) -> None:
    """Somebody else ported this network to PyTorch by hand: 20 of 20 stored tensors agree.

    The port has the LSTM's one bias in `bias_hh` and zeros in `bias_ih`; PyTorch adds the two.
    """
    from safetensors.numpy import load_file

    kinds = {"conv1d*": "Conv1D", "layer_normalization*": "LayerNormalization"}
    snapshot = kerasport.read(CORPUS / "dtln/model.h5", kinds=kinds)
    kerasport.convert(snapshot, tmp_path / "dtln.safetensors", to="torch")
    ours = load_file(tmp_path / "dtln.safetensors")
    port = load_file(CORPUS / "dtln/port_pytorch/model.safetensors")
    theirs = {
        "conv1d": "encoder_conv1",
        "conv1d_1": "decoder_conv1",
        "dense": "sep1.dense",
        "dense_1": "sep2.dense",
        "lstm": "sep1.rnn1",
        "lstm_1": "sep1.rnn2",
        "lstm_2": "sep2.rnn1",
        "lstm_3": "sep2.rnn2",
        "layer_normalization": "encoder_norm1",
    }
    words = {
        "bias_ih_l0": "bias_hh_l0",
        "bias_hh_l0": "bias_ih_l0",
        "layer_normalization.weight": "gamma",
        "layer_normalization.bias": "beta",
    }
    equal = 0
    for name, array in ours.items():
        layer, _, role = name.partition(".")
        other = port.pop(f"{theirs[layer]}.{words.get(name, words.get(role, role))}")
        np.testing.assert_array_equal(array, np.squeeze(other) if "norm" in name else other, name)
        equal += bool(array.any())
    assert (equal, port) == (20, {})


def test_dtln_goes_into_its_port_by_itself(tmp_path: Path) -> None:
    """The file names no classes, and the port has modules, names and a bias of its own ways."""
    from safetensors.numpy import load_file

    source, port = CORPUS / "dtln/model.h5", CORPUS / "dtln/port_pytorch/model.safetensors"
    names = kerasport.match(source, port)
    kerasport.convert(source, tmp_path / "x.safetensors", to="torch", names=names)
    kerasport.verify(tmp_path / "x.safetensors", against=source, names=names)
    ours, theirs = load_file(tmp_path / "x.safetensors"), load_file(port)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 24
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, name)
    assert names.kinds == {"layer_normalization": "LayerNormalization", "conv1d": "Conv1D"} | {
        "conv1d_1": "Conv1D"
    }


def outcome(path: Path, folder: Path) -> tuple[str, str]:
    """How many tensors a file holds, and what becomes of it."""
    try:
        snapshot = kerasport.read(path)
    except kerasport.KerasportError as error:
        return "", f"{type(error).__name__}: {str(error).removeprefix(f'{path}: ')}"
    for suffix in ("safetensors", "parquet"):
        kerasport.convert(snapshot, folder / f"model.{suffix}", to="keras")
        kerasport.verify(folder / f"model.{suffix}", against=path)
    count = str(sum(1 for _ in snapshot.tensors))
    try:
        kerasport.convert(snapshot, folder / "torch.safetensors", to="torch")
    except UnsupportedError as error:
        return count, f"archive exact; torch lacks {'; '.join(error.problems)}"
    kerasport.verify(folder / "torch.safetensors", against=path)
    return count, "archive exact; torch exact"


if __name__ == "__main__":
    print("| file | tensors | outcome |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        for file in FILES:
            print(f"| {name_of(file)} | {' | '.join(outcome(file, Path(name)))} |")
    sys.exit(not FILES)
