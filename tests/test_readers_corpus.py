"""Real files, of others and our own: each stored dataset is listed exactly once, and is read."""

from __future__ import annotations

import io
import os
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasport.errors import UnknownFormatError
from kerasport.model import Snapshot
from kerasport.readers import keras_archive, keras_legacy, keras_weights

READERS = (keras_archive, keras_legacy, keras_weights)
FIXTURES = Path(__file__).parent.parent / "fixtures"
CORPUS = Path(os.environ.get("KERASPORT_CORPUS", "/nowhere"))
SUFFIXES = ("*.h5", "*.hdf5", "*.keras")
NO_MODEL = "_inputs_and_outputs.h5"


def files(folder: Path) -> list[Path]:
    return sorted(path for suffix in SUFFIXES for path in folder.rglob(suffix))


def models(folder: Path) -> list[Path]:
    return [path for path in files(folder) if not path.name.endswith(NO_MODEL)]


def read(path: Path) -> Snapshot:
    (reader,) = [reader for reader in READERS if reader.matches(path)]
    snapshot: Snapshot = reader.read(path)
    return snapshot


def walked(path: Path) -> dict[str, Any]:
    """Every dataset of a file by its path, found without our readers."""
    import h5py

    source: Any = path
    if zipfile.is_zipfile(path):
        source = io.BytesIO(zipfile.ZipFile(path).read("model.weights.h5"))
    found: dict[str, Any] = {}
    with h5py.File(source) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]} if hasattr(item, "shape") else {})
        )
    return found


def listed(snapshot: Snapshot) -> dict[str, Any]:
    """Every tensor of a snapshot by its stored path; each must be there once."""
    tensors = [*snapshot.tensors, *(omission.tensor for omission in snapshot.omitted)]
    assert [p for p, n in Counter(t.stored for t in tensors).items() if n > 1] == []
    return {tensor.stored: tensor.numpy() for tensor in tensors}


def check(path: Path) -> None:
    snapshot = read(path)
    found, expected = listed(snapshot), walked(path)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    assert all(layer.weights for layer in snapshot.layers)
    assert len(set(snapshot)) == len(snapshot.layers)
    for layer in snapshot.layers:
        for key, tensor in layer.weights.items():
            assert tensor.name == f"{layer.path}/{key}"


def name_of(path: Path) -> str:
    return path.name


corpus = pytest.mark.skipif("KERASPORT_CORPUS" not in os.environ, reason="KERASPORT_CORPUS unset")


@pytest.mark.parametrize("path", models(FIXTURES), ids=name_of)
def test_each_dataset_of_a_fixture_is_listed_once(path: Path) -> None:
    check(path)


def test_there_are_fixtures() -> None:
    assert len(models(FIXTURES)) >= 20


@corpus
@pytest.mark.parametrize("path", models(CORPUS), ids=name_of)
def test_each_dataset_of_a_real_file_is_listed_once(path: Path) -> None:
    check(path)


@corpus
def test_the_corpus_is_there() -> None:
    assert len(models(CORPUS)) >= 55
    assert len(files(CORPUS)) - len(models(CORPUS)) == 4


@corpus
@pytest.mark.parametrize("path", files(CORPUS), ids=name_of)
def test_files_of_inputs_and_outputs_are_no_models(path: Path) -> None:
    if path.name.endswith(NO_MODEL):
        assert not any(reader.matches(path) for reader in READERS)
        for reader in (keras_legacy, keras_weights):
            with pytest.raises(UnknownFormatError, match="HDF5 without any"):
                reader.read(path)
    else:
        assert sum(reader.matches(path) for reader in READERS) == 1


def test_a_dataset_that_is_listed_twice_or_not_at_all_is_noticed() -> None:
    """The check of the checks."""
    path = FIXTURES / "cnn.keras"
    snapshot = read(path)
    twice = Snapshot(snapshot.source, (*snapshot.layers, snapshot.layers[0]), snapshot.omitted)
    with pytest.raises(AssertionError):
        listed(twice)
    less = Snapshot(snapshot.source, snapshot.layers[1:], snapshot.omitted)
    assert listed(less).keys() != walked(path).keys()


# What the files of each generation of Keras call things: the literal contract with later stages.
KEYS = {
    "dl4j/simple_lstm_tf_keras_1_weights.h5": {
        "lstm_1": [f"{a}_{gate}" for gate in "icfo" for a in "WUb"],
        "dense_1": ["W", "b"],
    },
    "dl4j/tfscope_model.h5": {"dense_1": ["W", "b"], "dense_2": ["W", "b"]},
    "dl4j/12net.h5": {
        **{f"conv{n}": ["kernel", "bias"] for n in (1, 2, 3, "4-1", "4-2")},
        **{f"PReLU{n}": ["alpha"] for n in (1, 2, 3)},
    },
    "dl4j/w_bidirectional_lstm_tensorflow_2.h5": {
        "bidirectional_1": [
            f"{way}_lstm_1/{role}"
            for way in ("forward", "backward")
            for role in ("kernel", "recurrent_kernel", "bias")
        ]
    },
    "textgenrnn/textgenrnn_weights.hdf5": {
        "embedding": ["embeddings"],
        "rnn_1": ["kernel", "recurrent_kernel", "bias"],
        "rnn_2": ["kernel", "recurrent_kernel", "bias"],
        "attention": ["attention_W"],
        "output": ["kernel", "bias"],
    },
    "ner_lstm_iob2/model.keras": {
        "embedding_4": ["0"],
        "lstm_8": ["cell/0", "cell/1", "cell/2"],
        "lstm_9": ["cell/0", "cell/1", "cell/2"],
        "dense_4": ["0", "1"],
    },
}


@corpus
@pytest.mark.parametrize("name", KEYS)
def test_keys_of_real_files(name: str) -> None:
    snapshot = read(CORPUS / name)
    found = {path: list(layer.weights) for path, layer in snapshot.items()}
    assert {path: sorted(keys) for path, keys in found.items()} == {
        path: sorted(keys) for path, keys in KEYS[name].items()
    }


@corpus
def test_layers_of_real_files_come_in_model_order() -> None:
    """The order of the file's own list, and never HDF5's alphabetical one."""
    convolutions = [p for p in read(CORPUS / "deepcut/cnn_without_ne_ab.h5") if "conv1d" in p]
    assert convolutions == [f"conv1d_{n}" for n in range(1, 13)]
    fixture = read(FIXTURES / "cnn.keras")
    assert list(fixture) == ["stem", "stem_norm", "mix", "head_conv", "hidden", "logits"]
