"""What the readers find is what Keras has: every weight, under its layer's path, bit for bit."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kerasport
import readers_zoo as zoo
from kerasport.errors import UnsupportedError, UsageError
from kerasport.model import Snapshot, dtype_named
from kerasport.readers import keras_archive, keras_legacy, keras_weights
from kerasport.readers.live import read_model

LIBRARIES = ("keras", "tf_keras")
SUFFIXES = {"keras": keras_archive, "weights.h5": keras_weights, "h5": keras_legacy}


class Saved:
    """One model and the files that its own library saved of it."""

    def __init__(self, library: str, name: str, folder: Path) -> None:
        self.model = zoo.built(zoo.library(library), name)
        self.folder = folder
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.model.save(folder / "m.keras")
            self.model.save_weights(folder / "m.weights.h5")
            self.model.save(folder / "m.h5")

    def read(self, suffix: str, **options: Any) -> Snapshot:
        snapshot: Snapshot = SUFFIXES[suffix].read(self.folder / f"m.{suffix}", **options)
        return snapshot


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[tuple[str, str], Saved] = {}

    def get(library: str, name: str) -> Saved:
        if (library, name) not in made:
            folder = tmp_path_factory.mktemp(f"{library}_{name}")
            made[library, name] = Saved(library, name, folder)
        return made[library, name]

    return get


def found(snapshot: Snapshot) -> list[tuple[str, list[tuple[tuple[int, ...], bytes]]]]:
    return [
        (layer.path, zoo.values([t.numpy() for t in layer.weights.values()]))
        for layer in snapshot.layers
    ]


def expected(model: Any) -> list[tuple[str, list[tuple[tuple[int, ...], bytes]]]]:
    return [(path, zoo.values(layer.weights)) for path, layer in zoo.oracle(model)]


def once(layers: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Without the later appearances of the same arrays."""
    seen: list[Any] = []
    return [x for x in layers if x[1] not in seen and not seen.append(x[1])]  # type: ignore[func-returns-value]


def signature(snapshot: Snapshot) -> list[tuple[Any, ...]]:
    return [
        (layer.path, layer.class_name, key, t.name, t.stored, t.spec, t.numpy().tobytes())
        for layer in snapshot.layers
        for key, t in layer.weights.items()
    ]


@pytest.mark.parametrize("name", zoo.MODELS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_an_archive_holds_each_layers_weights_in_model_order(
    saved: Any, library: str, name: str
) -> None:
    """A shared layer is stored once, under the path that it has first."""
    case = saved(library, name)
    assert found(case.read("keras")) == once(expected(case.model))


@pytest.mark.parametrize("name", zoo.MODELS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_legacy_file_holds_each_layers_weights_in_model_order(
    saved: Any, library: str, name: str
) -> None:
    """Older files store a shared layer as often as it appears."""
    case = saved(library, name)
    snapshot = case.read("h5")
    layers = found(snapshot)
    if snapshot.omitted and any("shared" in o.reason for o in snapshot.omitted):
        assert layers == once(expected(case.model))
    else:
        assert layers == expected(case.model)


@pytest.mark.parametrize("name", zoo.MODELS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_weights_file_with_its_architecture_reads_as_the_archive_does(
    saved: Any, library: str, name: str
) -> None:
    case = saved(library, name)
    archive = case.read("keras")
    weights = case.read("weights.h5", architecture=archive.architecture)
    assert signature(weights) == signature(archive)


@pytest.mark.parametrize("name", zoo.MODELS)
def test_a_weights_file_alone_knows_layers_by_their_own_names(saved: Any, name: str) -> None:
    """Keras 3.9 and later write each layer's name beside its variables."""
    case = saved("keras", name)
    assert sorted(found(case.read("weights.h5"))) == sorted(once(expected(case.model)))


@pytest.mark.parametrize("name", zoo.MODELS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_live_model_reads_as_its_archive_does(saved: Any, library: str, name: str) -> None:
    """Paths, keys, order and bytes; the optimizer's state too."""
    case = saved(library, name)
    live, archive = read_model(case.model), case.read("keras")
    assert signature(live) == signature(archive)

    def omitted(snapshot: Snapshot) -> list[Any]:
        return [(o.reason, o.tensor.name, o.tensor.spec) for o in snapshot.omitted]

    assert omitted(live) == omitted(archive)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_wrappers_and_parts_stay_with_their_layer(saved: Any, suffix: str) -> None:
    assert set(saved("keras", "composite").read(suffix)) == PATHS


def test_without_any_names_classes_and_numbers_are_the_names(saved: Any) -> None:
    """The weights files of tf_keras have none; parts stay together all the same."""
    assert list(saved("tf_keras", "composite").read("weights.h5")) == [
        *("bidirectional", "gru", "multi_head_attention", "rnn"),
        *("time_distributed/conv2d", "time_distributed_1"),
    ]
    steps = [f"conv2d_{n}" if n else "conv2d" for n in range(12)]
    assert list(saved("tf_keras", "numbering").read("weights.h5")) == steps


PATHS = {"frames/conv", "both", "rows", "attend", "stack", "gru"}
ARCHIVE_KEYS = {
    "frames/conv": ["0", "1"],
    "both": [f"{way}_layer/cell/{n}" for way in ("backward", "forward") for n in range(3)],
    "rows": ["layer/0", "layer/1"],
    "attend": [f"{x}_dense/{n}" for x in ("key", "output", "query", "value") for n in range(2)],
    "stack": [f"cell/cells/{x}_cell/{n}" for x in ("gru", "lstm") for n in range(3)],
    "gru": ["cell/0", "cell/1", "cell/2"],
}
LEGACY_KEYS = {
    "frames/conv": ["kernel", "bias"],
    "both": [
        f"{way}_lstm/lstm_cell/{role}"
        for way in ("forward", "backward")
        for role in ("kernel", "recurrent_kernel", "bias")
    ],
    "rows": ["row/kernel", "row/bias"],
    "attend": [
        f"{x}/{role}"
        for x in ("query", "key", "value", "attention_output")
        for role in ("kernel", "bias")
    ],
    "stack": [
        f"stacked_rnn_cells/{x}_cell/{role}"
        for x in ("lstm", "gru")
        for role in ("kernel", "recurrent_kernel", "bias")
    ],
    "gru": [f"gru_cell/{role}" for role in ("kernel", "recurrent_kernel", "bias")],
}


def test_keys_are_what_is_stored_beyond_the_layers_own_name(saved: Any) -> None:
    case = saved("keras", "composite")
    archive, legacy = case.read("keras"), case.read("h5")
    assert {path: list(archive[path].weights) for path in archive} == ARCHIVE_KEYS
    assert {path: list(legacy[path].weights) for path in legacy} == LEGACY_KEYS


def test_a_key_leads_to_the_variable_of_that_name(saved: Any) -> None:
    case = saved("keras", "composite")
    both, attend = (case.model.get_layer(name) for name in ("both", "attend"))
    archive = case.read("keras")
    for key, variable in {
        "forward_layer/cell/0": both.forward_layer.cell.kernel,
        "forward_layer/cell/1": both.forward_layer.cell.recurrent_kernel,
        "backward_layer/cell/2": both.backward_layer.cell.bias,
    }.items():
        np.testing.assert_array_equal(archive["both"].weights[key].numpy(), variable.numpy())
    for key, variable in {
        "query_dense/0": attend.query_dense.kernel,
        "output_dense/1": attend.output_dense.bias,
    }.items():
        np.testing.assert_array_equal(archive["attend"].weights[key].numpy(), variable.numpy())


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_layer_knows_its_class_and_configuration(saved: Any, library: str, suffix: str) -> None:
    case = saved(library, "composite")
    snapshot = case.read(suffix)
    for path, layer in zoo.oracle(case.model):
        assert snapshot[path].class_name == type(layer).__name__
        assert snapshot[path].config["name"] == layer.name


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_what_a_model_freezes_does_not_train(saved: Any, suffix: str) -> None:
    snapshot = saved("keras", "frozen").read(suffix)
    trains = {
        path: {t.trainable for t in layer.weights.values()} for path, layer in snapshot.items()
    }
    assert trains == {"fixed": {False}, "inner/inside": {False}, "free": {True}}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_state_of_training_is_set_aside_with_its_reason(
    saved: Any, library: str, suffix: str
) -> None:
    case = saved(library, "random")
    snapshot = case.read(suffix)
    assert len(snapshot) == 2
    reasons = {o.reason for o in snapshot.omitted}
    assert "optimizer state" in reasons
    assert reasons <= {"optimizer state", "metric state", "seed state"}
    optimizer = [o.tensor for o in snapshot.omitted if o.reason == "optimizer state"]
    variables = case.model.optimizer.variables
    kept = zoo.values(variables() if callable(variables) else variables)
    stored = zoo.values([t.numpy() for t in optimizer])
    assert all(value in kept for value in stored)


def test_a_shared_layer_that_tf_keras_forgot_to_mark_is_found(tmp_path: Path) -> None:
    """Saving as HDF5 makes tf_keras forget; then `last` would get the weights of `twice`."""
    k = zoo.library("tf_keras")
    model = zoo.built(k, "shared")
    model.save(tmp_path / "m.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "m.h5")
    model.save(tmp_path / "again.keras")
    again = keras_archive.read(tmp_path / "again.keras")
    assert again.architecture != keras_archive.read(tmp_path / "m.keras").architecture
    assert found(again) == once(expected(model))


def test_the_source_is_described(saved: Any) -> None:
    import keras

    case = saved("keras", "sequential")
    archive, legacy = case.read("keras").source, case.read("h5").source
    assert (archive.file, archive.format) == ("m.keras", "keras")
    assert archive.keras_version == legacy.keras_version == keras.__version__
    assert (legacy.format, legacy.backend) == ("keras-legacy", "tensorflow")
    assert read_model(case.model).source.backend == "tensorflow"
    for source in (archive, legacy):
        assert source.content is not None
        content = b"".join(bytes(piece) for piece in source.content())
        assert content == (case.folder / source.file).read_bytes()
        assert source.nbytes == len(content)


def test_stored_paths_lead_to_the_dataset(saved: Any) -> None:
    import h5py

    case = saved("keras", "nested")
    for suffix in ("h5", "weights.h5"):
        with h5py.File(case.folder / f"m.{suffix}") as file:
            for tensor in case.read(suffix).tensors:
                np.testing.assert_array_equal(file[tensor.stored][()], tensor.numpy())


def test_an_architecture_that_does_not_fit_is_refused(saved: Any) -> None:
    other = saved("keras", "functional").read("keras").architecture
    case = saved("keras", "numbering")
    with pytest.raises(UsageError, match=r"does not fit: it has no layer for"):
        case.read("weights.h5", architecture=other)
    with pytest.raises(UsageError, match=r"does not fit: it has no layer for"):
        case.read("h5", architecture=other)
    own = case.read("keras").architecture
    assert len(case.read("weights.h5", architecture=own)) == 12


# ---- dtypes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "mixed_bfloat16", "float64"])
def test_every_float_of_numpy_comes_as_stored(tmp_path: Path, policy: str) -> None:
    k = zoo.library("keras")
    layers = [
        k.Input((5,)),
        k.layers.Dense(3, dtype=policy),
        k.layers.BatchNormalization(dtype=policy),
    ]
    model = k.Sequential(layers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "m.keras")
        model.save(tmp_path / "m.h5")
    for reader, file in ((keras_archive, "m.keras"), (keras_legacy, "m.h5")):
        assert found(reader.read(tmp_path / file)) == expected(model)
    assert signature(read_model(model)) == signature(keras_archive.read(tmp_path / "m.keras"))


def test_bfloat16_is_read_where_marked_and_asked_about_where_not(tmp_path: Path) -> None:
    """Legacy HDF5 keeps two bytes and no word of what they are: guessing would corrupt float16."""
    k = zoo.library("keras")
    model = k.Sequential([k.Input((5,)), k.layers.Dense(3, dtype="bfloat16", name="d")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "m.keras")
        model.save(tmp_path / "m.h5")
    archive = keras_archive.read(tmp_path / "m.keras")
    assert archive["d"].weights["0"].spec == "bf16[5,3]"
    assert signature(read_model(model)) == signature(archive)
    with pytest.raises(UnsupportedError, match=r"--assume-dtype bf16") as error:
        keras_legacy.read(tmp_path / "m.h5")
    assert error.value.exit_code == 5
    legacy = keras_legacy.read(tmp_path / "m.h5", assume_dtype=dtype_named("bf16"))
    for key, role in (("0", "kernel"), ("1", "bias")):
        np.testing.assert_array_equal(
            legacy["d"].weights[role].numpy(), archive["d"].weights[key].numpy()
        )


# ---- names ---------------------------------------------------------------------------------------


def test_names_with_slashes_are_names(tmp_path: Path) -> None:
    """tf_keras allows them, and HDF5 takes them for groups."""
    k = zoo.library("tf_keras")
    i = k.Input((5,))
    x = k.layers.Dense(3, name="block/dense")(i)
    x = k.layers.Dense(7, name="block/dense/out")(x)
    model = k.Model(i, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "m.keras")
        model.save(tmp_path / "m.h5")
        model.save_weights(tmp_path / "w.h5", save_format="h5")
    assert found(keras_archive.read(tmp_path / "m.keras")) == expected(model)
    for file in ("m.h5", "w.h5"):
        legacy = keras_legacy.read(tmp_path / file)
        assert found(legacy) == expected(model)
        assert list(legacy["block/dense"].weights) == ["kernel", "bias"]


def test_files_of_keras_2_13_are_read(tmp_path: Path) -> None:
    """They keep a model's layers under another name, inner models' too."""
    import h5py

    k = zoo.library("tf_keras")
    model = zoo.built(k, "nested")
    model.save_weights(tmp_path / "new.weights.h5")
    model.save(tmp_path / "m.keras")
    with (
        h5py.File(tmp_path / "new.weights.h5") as new,
        h5py.File(tmp_path / "old.weights.h5", "w") as old,
    ):

        def copy(name: str, item: Any) -> None:
            if hasattr(item, "shape"):
                old[name.replace("layers/", "_layer_checkpoint_dependencies/")] = item[()]

        new.visititems(copy)
    architecture = keras_archive.read(tmp_path / "m.keras").architecture
    assert keras_weights.matches(tmp_path / "old.weights.h5")
    old_file = keras_weights.read(tmp_path / "old.weights.h5", architecture=architecture)
    assert found(old_file) == expected(model)
    assert len(keras_weights.read(tmp_path / "old.weights.h5")) == len(old_file)


def test_two_layers_of_one_path_are_both_there(tmp_path: Path) -> None:
    """A layer `a/b` beside a model `a` that has a layer `b`."""
    k = zoo.library("tf_keras")
    i = k.Input((5,))
    inner = k.Model(i, k.layers.Dense(5, name="b")(i), name="a")
    o = k.Input((5,))
    model = k.Model(o, inner(k.layers.Dense(5, name="a/b")(o)))
    model.save(tmp_path / "m.keras")
    snapshot = keras_archive.read(tmp_path / "m.keras")
    assert list(snapshot) == ["a/b", "a/b_1"]
    assert [t.name for t in snapshot["a/b_1"].weights.values()] == ["a/b_1/0", "a/b_1/1"]


def test_long_lists_of_names_are_put_together_again(tmp_path: Path) -> None:
    """HDF5 holds 64 kB an attribute, so Keras cuts layer_names in parts."""
    import h5py

    k = zoo.library("tf_keras")
    layers = [k.layers.Dense(1, name=f"{n:03}_" + "x" * 600) for n in range(120)]
    model = k.Sequential([k.Input((1,)), *layers])
    model.save_weights(tmp_path / "w.h5", save_format="h5")
    with h5py.File(tmp_path / "w.h5") as file:
        assert "layer_names0" in file.attrs
        assert "layer_names" not in file.attrs
    assert found(keras_legacy.read(tmp_path / "w.h5")) == expected(model)


# ---- models of a user's own ----------------------------------------------------------------------


def own_model(k: Any) -> Any:
    class Block(k.layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.zed = k.layers.Dense(3)
            self.att = k.layers.MultiHeadAttention(2, 3)
            self.items = [k.layers.Dense(3), k.layers.Dense(3)]
            self.table = {"u": k.layers.Dense(3)}
            self.ffn = k.Sequential([k.layers.Dense(7, name="up"), k.layers.Dense(3, name="down")])

        def build(self, shape: Any) -> None:
            self.own = self.add_weight(shape=(3,), name="own")
            super().build(shape)

        def call(self, x: Any) -> Any:
            x = self.zed(x) + self.own
            for layer in (*self.items, self.table["u"]):
                x = layer(x)
            return self.ffn(self.att(x, x))

    class Net(k.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="net")
            self.before = k.layers.Dense(3)
            self.blocks = [Block() for _ in range(11)]
            self.apart = k.layers.Bidirectional(k.layers.LSTM(2))
            self.a_tracker = k.metrics.Mean()

        def call(self, x: Any) -> Any:
            x = self.before(x)
            for block in self.blocks:
                x = block(x)
            return self.apart(x)

    model = Net()
    model(np.zeros((2, 4, 5), "float32"))
    return model


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_container_calls_layers_after_their_classes(library: str, tmp_path: Path) -> None:
    """So weights alone say what they are where shapes do not, whatever a layer is called."""
    keras = importlib.import_module(library)
    layers = keras.layers
    inputs = keras.Input((8, 8, 5))
    x = layers.Conv2D(5, 3, name="up")(inputs)
    x = layers.Conv2DTranspose(5, 3, name="down")(x)
    x = layers.LayerNormalization(name="group")(x)
    x = layers.GroupNormalization(5, name="layer")(x)
    x = layers.Dense(5, use_bias=False, name="embedding")(x)
    inner = keras.Sequential([keras.Input((8, 8, 5)), layers.Conv2DTranspose(5, 3)], name="inner")
    model = keras.Model(inputs, inner(x))
    model.save_weights(tmp_path / "m.weights.h5")
    model.save(tmp_path / "m.keras")
    alone = {x.path: x for x in kerasport.read(tmp_path / "m.weights.h5").layers}
    known = {x.path: x.kind for x in kerasport.read(tmp_path / "m.keras").layers}
    assert len(alone) == len(known)
    assert sorted(str(x.kind) for x in alone.values()) == sorted(map(str, known.values()))
    assert all(x.inferred for x in alone.values())


def test_an_attribute_is_not_called_after_a_class(tmp_path: Path) -> None:
    """Whoever wrote the model chose its name, which proves nothing."""
    import keras

    class Odd(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = keras.layers.Dense(5, use_bias=False)

        def call(self, x: Any) -> Any:
            return self.embedding(x)

    model = Odd()
    model(np.zeros((1, 7)))
    model.save_weights(tmp_path / "m.weights.h5")
    (layer,) = kerasport.read(tmp_path / "m.weights.h5").layers
    assert layer.kind is None
    assert "3 kinds fit" in layer.note


def test_a_subclassed_model_is_named_by_its_attributes(tmp_path: Path) -> None:
    k = zoo.library("keras")
    model = own_model(k)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "m.keras")
        model.save_weights(tmp_path / "m.weights.h5")
    archive = keras_archive.read(tmp_path / "m.keras")
    block = ["blocks/block", *(f"blocks/block_{n}" for n in range(1, 11))]
    parts = (
        "",
        "/att",
        "/ffn/up",
        "/ffn/down",
        "/items/dense",
        "/items/dense_1",
        "/table/dense",
        "/zed",
    )
    assert list(archive) == [
        "apart",
        "before",
        *(b + part for b in block for part in sorted_parts(parts)),
    ]
    second = model.blocks[1]
    own = archive["blocks/block_1"].weights["0"].numpy()
    np.testing.assert_array_equal(own, second.own.numpy())
    att = archive["blocks/block_1/att"].weights["query_dense/0"].numpy()
    np.testing.assert_array_equal(att, second.att.query_dense.kernel.numpy())
    up = archive["blocks/block_1/ffn/up"].weights["0"].numpy()
    np.testing.assert_array_equal(up, second.ffn.layers[0].kernel.numpy())
    assert signature(read_model(model)) == signature(archive)
    assert signature(keras_weights.read(tmp_path / "m.weights.h5")) == signature(archive)


def sorted_parts(parts: tuple[str, ...]) -> list[str]:
    """Keras visits attributes by name, but a Sequential's layers by class and number."""
    order = [
        "",
        "/att",
        "/ffn/up",
        "/ffn/down",
        "/items/dense",
        "/items/dense_1",
        "/table/dense",
        "/zed",
    ]
    assert sorted(parts) == sorted(order)
    return order


def test_a_users_class_called_dense_is_not_taken_for_keras_own(tmp_path: Path) -> None:
    k = zoo.library("keras")

    class Dense(k.layers.Layer):  # type: ignore[misc,name-defined]
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(shape=(5, 3), name="kernel")

        def call(self, x: Any) -> Any:
            return x @ self.kernel

    @k.saving.register_keras_serializable("shop", name="Thick")
    class Registered(Dense):
        pass

    layers = [
        k.Input((5,)),
        Dense(name="mine"),
        k.layers.Dense(5, name="theirs"),
        Registered(name="known"),
    ]
    model = k.Sequential(layers)
    model.save(tmp_path / "m.keras")
    snapshot = keras_archive.read(tmp_path / "m.keras")
    assert {path: layer.class_name for path, layer in snapshot.items()} == {
        "mine": "Custom>Dense",
        "theirs": "Dense",
        "known": "shop>Thick",
    }
    assert found(snapshot) == expected(model)


def test_a_live_model_is_read_at_one_moment(saved: Any) -> None:
    case = saved("keras", "sequential")
    live = read_model(case.model)
    before = [t.numpy().copy() for t in live.tensors]
    weights = case.model.get_weights()
    case.model.set_weights([w + 1 for w in weights])
    try:
        for tensor, value in zip(live.tensors, before, strict=True):
            np.testing.assert_array_equal(tensor.numpy(), value)
    finally:
        case.model.set_weights(weights)


def test_what_is_no_model_is_refused() -> None:
    k = zoo.library("keras")
    with pytest.raises(UsageError, match="found dict"):
        read_model({})
    with pytest.raises(UsageError, match="no weights yet"):
        read_model(k.Sequential([k.layers.Dense(3)]))


TORCH = """
import sys, json, keras, numpy as np
from pathlib import Path
import readers_zoo as zoo
from kerasport.readers import keras_archive
from kerasport.readers.live import read_model
assert keras.backend.backend() == "torch" and "tensorflow" not in sys.modules
sig = lambda s: [(l.path, l.class_name, k, t.name, t.stored, t.spec, t.numpy().tobytes())
                 for l in s.layers for k, t in l.weights.items()]
done = []
for name in ("functional", "nested", "shared", "composite"):
    model = zoo.built(keras, name)
    model.save("m.keras")
    live = read_model(model)
    assert live.source.backend == "torch"
    assert sig(live) == sig(keras_archive.read(Path("m.keras"))), name
    done.append(len(sig(live)))
model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, dtype="bfloat16")])
model.save("m.keras")
live = read_model(model)
assert sig(live) == sig(keras_archive.read(Path("m.keras")))
assert live["dense"].weights["0"].spec.startswith("bf16") if "dense" in live else True
before = [t.numpy().copy() for t in live.tensors]
model.layers[0].kernel.assign(model.layers[0].kernel * 0 + 2)
for t, b in zip(live.tensors, before):
    assert (t.numpy() == b).all(), "a snapshot changed with its model"
print(json.dumps(done))
"""


def test_a_live_model_on_the_torch_backend_reads_as_its_archive_does(tmp_path: Path) -> None:
    """And no TensorFlow is loaded for it; PyTorch changes values in place, a snapshot does not."""
    root = Path(__file__).parent
    run = subprocess.run(
        [sys.executable, "-c", TORCH],
        cwd=tmp_path,
        env={
            **os.environ,
            "KERAS_BACKEND": "torch",
            "PYTHONPATH": os.pathsep.join([str(root), str(root.parent / "convert")]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert all(json.loads(run.stdout.splitlines()[-1]))


def test_reading_needs_no_framework(saved: Any) -> None:
    """In a fresh interpreter, none of them is loaded by any reader."""
    folder = saved("keras", "composite").folder
    code = (
        "import sys; from pathlib import Path; "
        "from kerasport.readers import keras_archive as a, keras_legacy as l, keras_weights as w; "
        f"f = Path({str(folder)!r}); "
        "n = [len(a.read(f/'m.keras')), len(l.read(f/'m.h5')), len(w.read(f/'m.weights.h5'))]; "
        "bad = {'keras', 'tensorflow', 'tf_keras', 'torch', 'jax'} & set(sys.modules); "
        "assert n == [6, 6, 6] and not bad, (n, bad)"
    )
    convert = str(Path(__file__).parent.parent / "convert")
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": convert},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


# ---- bytes ---------------------------------------------------------------------------------------


def is_mapped(array: Any) -> bool:
    """Whether an array is a view of a file's map, however many views lie in between."""
    import mmap

    while array is not None:
        if isinstance(array, mmap.mmap):
            return True
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return False


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_values_are_views_of_the_mapped_file(saved: Any, suffix: str) -> None:
    for tensor in saved("keras", "composite").read(suffix).tensors:
        assert is_mapped(tensor.numpy())
        assert not tensor.numpy().flags.writeable
    assert not is_mapped(np.zeros(3))


def test_an_archive_that_was_packed_again_reads_the_same(saved: Any, tmp_path: Path) -> None:
    case = saved("keras", "composite")
    with (
        zipfile.ZipFile(case.folder / "m.keras") as old,
        zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    packed = keras_archive.read(tmp_path / "m.keras")
    assert signature(packed) == signature(case.read("keras"))
    assert all(is_mapped(t.numpy()) for t in packed.tensors)
