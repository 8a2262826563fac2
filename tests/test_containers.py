"""Other containers of the same weights: folders, shards, NumPy archives, TensorFlow.js.

The libraries that own a format write the files: Keras 3 for its folders, shards and archives, NumPy
for lists of arrays, tensorflowjs for models in the browser (kept in `tests/files`). What is read
must be what the model holds, bit for bit, under the names that its `.keras` archive gives.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

import kerasport
from kerasport.errors import (
    KerasportError,
    MalformedError,
    UnknownFormatError,
    UnsupportedError,
    UsageError,
)
from kerasport.formats import detected
from kerasport.model import Snapshot
from kerasport.readers import keras_folder, keras_sharded, npz, tfjs
from kerasport.readers.pickled import arrays, described

Array = npt.NDArray[Any]
FILES = Path(__file__).parent / "files"
FIXTURES = Path(__file__).parent.parent / "fixtures"
L = keras.layers


def a_model() -> keras.Model:
    """Layers of several classes, a layer in another dtype, and a model in a model."""
    keras.utils.clear_session()
    inner = keras.Sequential([keras.Input((5, 3)), L.LSTM(7, name="steps")], name="inner")
    x = keras.Input((5, 3))
    y = L.Dense(11, name="head", dtype="bfloat16")(inner(x))
    y = L.BatchNormalization(name="norm")(y)
    model = keras.Model(x, L.Dense(2, name="last", use_bias=False)(y), name="whole")
    rng = np.random.default_rng(5)
    model.set_weights([rng.normal(size=w.shape).astype("float32") for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return a_model()


@pytest.fixture
def archive(model: keras.Model, tmp_path: Path) -> Path:
    model.save(tmp_path / "whole.keras")
    return tmp_path / "whole.keras"


def values(snapshot: Snapshot) -> dict[str, Array]:
    return {tensor.name: tensor.numpy() for tensor in snapshot.tensors}


def check_same(found: Snapshot, expected: Snapshot) -> None:
    """The same layers, of the same kinds, with the same bytes."""
    assert [(y.path, y.kind) for y in found.layers] == [(y.path, y.kind) for y in expected.layers]
    assert None not in {layer.kind for layer in found.layers}
    ours, theirs = values(found), values(expected)
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype, name
        np.testing.assert_array_equal(ours[name], value, name)


def convertible(path: Path, tmp_path: Path, **options: Any) -> None:
    """Every container goes all the way, and the result is verified against it."""
    snapshot = kerasport.read(path, **options)
    for to in ("keras", "torch"):
        target = tmp_path / f"{to}.safetensors"
        kerasport.convert(snapshot, target, to=to)
        kerasport.verify(target, against=snapshot)


# --------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("weights", ["h5", "npz"])
def test_a_folder_holds_what_the_archive_does(
    weights: str, model: keras.Model, archive: Path, tmp_path: Path
) -> None:
    """Asked for NumPy's format, Keras writes it under the name of HDF5."""
    from keras.src.saving.saving_lib import save_model

    folder = tmp_path / "whole"
    save_model(model, folder, weights_format=weights, zipped=False)
    assert detected(folder).name == "keras-folder"
    found = kerasport.read(folder)
    check_same(found, kerasport.read(archive))
    assert found.source.keras_version == keras.__version__
    assert found.architecture is not None
    convertible(folder, tmp_path)


def test_an_archive_of_pickles_is_read_where_keras_cannot(
    model: keras.Model, archive: Path, tmp_path: Path
) -> None:
    from keras.src.saving.saving_lib import save_model

    path = tmp_path / "pickles.keras"
    save_model(model, path, weights_format="npz")
    with pytest.raises(ValueError, match="allow_pickle"):
        keras.saving.load_model(path)
    check_same(kerasport.read(path), kerasport.read(archive))
    convertible(path, tmp_path)


def test_a_preset_keeps_a_backbone_and_a_task(
    model: keras.Model, archive: Path, tmp_path: Path
) -> None:
    """KerasHub names no layers in a backbone's configuration: classes are inferred or asked for."""
    folder = tmp_path / "preset"
    folder.mkdir()
    model.save_weights(folder / "model.weights.h5")
    task = keras.Sequential([keras.Input((3,)), L.Dense(13, name="logits")])
    task.save_weights(folder / "task.weights.h5")
    config = {"module": "keras_hub.src.models.x", "class_name": "XBackbone", "config": {"n": 2}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metadata.json").write_text(json.dumps({"keras_version": "3.9.0"}))
    found = kerasport.read(folder)
    assert found.source.keras_version == "3.9.0"
    expected = {t.stored: t.numpy() for t in kerasport.read(archive).tensors}
    assert {t.stored: t for t in found.tensors}.keys() >= expected.keys()
    task_layer = found.layers[-1]
    np.testing.assert_array_equal(
        next(iter(task_layer.weights.values())).numpy(), np.asarray(task.layers[0].kernel)
    )
    check_same(kerasport.read(folder / "model.weights.h5", config=archive), kerasport.read(archive))


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            lambda folder: (folder / "config.json").write_text("{"),
            MalformedError,
            "config.json: expected a configuration in JSON",
        ),
        (
            lambda folder: (folder / "metadata.json").write_text("[1]"),
            MalformedError,
            "metadata.json: expected an object in JSON",
        ),
        (
            lambda folder: os.truncate(folder / "model.weights.h5", 1000),
            MalformedError,
            "model.weights.h5: expected a sound HDF5 file",
        ),
        (
            lambda folder: (folder / "model.weights.h5").unlink(),
            UnknownFormatError,
            "found a folder",
        ),
        (
            lambda folder: (folder / "config.json").unlink(),
            UnknownFormatError,
            "found a folder",
        ),
    ],
)
def test_a_broken_folder_is_refused(
    spoil: Callable[[Path], Any],
    error: type[KerasportError],
    message: str,
    model: keras.Model,
    tmp_path: Path,
) -> None:
    from keras.src.saving.saving_lib import save_model

    folder = tmp_path / "whole"
    save_model(model, folder, zipped=False)
    kerasport.read(folder)
    spoil(folder)
    with pytest.raises(error, match=message):
        kerasport.read(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a folder"):
        keras_folder.read(tmp_path / "none")
    with pytest.raises(UnknownFormatError, match=r"expected a folder with config\.json"):
        keras_folder.read(tmp_path)


@keras.saving.register_keras_serializable("containers")
class Nested(keras.Model):  # type: ignore[misc]  # keras has no types
    """Layers in a list in a list, which Keras stores since 3.15."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = [[L.Dense(3, name="first")], [L.Dense(5, name="second"), L.Dense(7)]]

    def call(self, x: Any) -> Any:
        for block in self.blocks:
            for layer in block:
                x = layer(x)
        return x


def test_layers_in_nested_lists_are_found(tmp_path: Path) -> None:
    model = Nested()
    model(np.zeros((2, 11), np.float32))
    model.save_weights(tmp_path / "m.weights.h5")
    with h5py.File(tmp_path / "m.weights.h5") as file:
        assert "blocks/container_1/dense_1" in file
    found = kerasport.read(tmp_path / "m.weights.h5")
    assert [(layer.path, layer.kind) for layer in found.layers] == [
        ("blocks/container/dense", "Dense"),
        ("blocks/container_1/dense", "Dense"),
        ("blocks/container_1/dense_1", "Dense"),
    ]
    for layer, weight in zip(found.layers, model.weights[::2], strict=True):
        np.testing.assert_array_equal(layer.weights["kernel"].numpy(), np.asarray(weight))


# ---------------------------------------------------------------------------------------- shards


def sharded(model: keras.Model, folder: Path, size: int) -> Path:
    path = folder / "model.weights.json"
    model.save_weights(path, max_shard_size=size / 1024**3)
    return path


@pytest.mark.parametrize(("size", "least"), [(1300, 2), (900, 3), (10**6, 1)])
def test_weights_in_parts_are_those_of_the_whole(
    size: int, least: int, model: keras.Model, archive: Path, tmp_path: Path
) -> None:
    path = sharded(model, tmp_path, size)
    assert len(list(tmp_path.glob("model_*.weights.h5"))) >= least
    assert detected(path).name == "keras-sharded"
    check_same(kerasport.read(path, config=archive), kerasport.read(archive))
    convertible(path, tmp_path, config=archive)


def test_a_preset_may_have_its_weights_in_parts(
    model: keras.Model, archive: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "preset"
    folder.mkdir()
    sharded(model, folder, 900)
    with zipfile.ZipFile(archive) as file:
        file.extract("config.json", folder)
    check_same(kerasport.read(folder), kerasport.read(archive))


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


def first(index: Mapping[str, Any]) -> str:
    return next(str(key) for key in index["weight_map"] if "vars" in key)


def swapped(index: dict[str, Any]) -> None:
    """Say that a group is in a file that holds another one."""
    index["weight_map"]["/layers/dense_1/vars"] = "model_00000.weights.h5"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda index: index["weight_map"].update({first(index): "../model_00000.weights.h5"}),
            r"expected the name of a file beside it, found '../model_00000.weights.h5'",
        ),
        (
            lambda index: index["weight_map"].update({first(index): "/etc/passwd"}),
            "expected the name of a file beside it",
        ),
        (
            lambda index: index["weight_map"].update({first(index): 5}),
            "expected the name of a file beside it",
        ),
        (
            lambda index: index["weight_map"].update({"/x/vars": "other_00007.weights.h5"}),
            "lists the file 'other_00007.weights.h5', which is not there",
        ),
        (
            lambda index: index["weight_map"].update({"/x/vars": "model_00000.weights.h5"}),
            "lists /x/vars in model_00000.weights.h5, which the file contradicts",
        ),
        (swapped, "which the file contradicts"),
        (lambda index: index.update(weight_map=[]), "expected a weight_map"),
        (lambda index: index["weight_map"].clear(), "expected a weight_map"),
    ],
)
def test_an_index_that_is_wrong_is_refused(
    change: Callable[[dict[str, Any]], None], message: str, model: keras.Model, tmp_path: Path
) -> None:
    path = sharded(model, tmp_path, 900)
    kerasport.read(path)
    rewritten(path, change)
    with pytest.raises(MalformedError, match=message):
        keras_sharded.tree(
            keras_sharded.index(path.read_bytes(), path.name),
            lambda name: _mapped(path.with_name(name)),
            where=path.name,
        )


def _mapped(path: Path) -> Any:
    from kerasport.readers.mapped import mapped

    return mapped(path)


def test_a_part_that_is_missing_or_cut_off_is_refused(model: keras.Model, tmp_path: Path) -> None:
    path = sharded(model, tmp_path, 900)
    part = tmp_path / "model_00001.weights.h5"
    os.truncate(part, 500)
    with pytest.raises(MalformedError, match=r"model_00001\.weights\.h5: expected a sound HDF5"):
        kerasport.read(path)
    part.unlink()
    with pytest.raises(MalformedError, match="Are all parts downloaded"):
        kerasport.read(path)


def test_two_parts_with_the_same_variable_are_refused(model: keras.Model, tmp_path: Path) -> None:
    path = sharded(model, tmp_path, 10**6)
    shutil.copy(tmp_path / "model_00000.weights.h5", tmp_path / "model_00001.weights.h5")
    names = ["model_00000.weights.h5", "model_00001.weights.h5"]
    rewritten(path, lambda i: i["weight_map"].update(dict.fromkeys(i["weight_map"], names)))
    with pytest.raises(MalformedError, match="two files hold"):
        kerasport.read(path)


def test_an_index_that_says_a_thing_twice_is_refused(model: keras.Model, tmp_path: Path) -> None:
    path = sharded(model, tmp_path, 900)
    path.write_text(path.read_text().replace('"weight_map"', '"weight_map": {}, "weight_map"'))
    with pytest.raises(MalformedError, match="a key that is there twice"):
        kerasport.read(path)


# -------------------------------------------------------------------------------- lists of arrays


@pytest.fixture
def listed(model: keras.Model, tmp_path: Path) -> Path:
    path = tmp_path / "weights.npz"
    np.savez(path, *(np.asarray(w, np.float32) for w in model.get_weights()))
    return path


def test_a_list_of_arrays_is_given_to_the_layers_in_order(
    listed: Path, archive: Path, tmp_path: Path
) -> None:
    found = kerasport.read(listed, config=archive)
    expected = kerasport.read(archive)
    assert [layer.path for layer in found.layers] == [layer.path for layer in expected.layers]
    ours = values(found)
    for name, value in values(expected).items():
        np.testing.assert_array_equal(ours[name], np.float32(value), name)
    convertible(listed, tmp_path, config=archive)


def test_a_list_that_was_compressed_is_the_same(
    listed: Path, archive: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "packed.npz"
    np.savez_compressed(packed, *np.load(listed).values())
    ours, theirs = (values(kerasport.read(p, config=archive)) for p in (packed, listed))
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value)


def test_a_list_says_what_it_needs(listed: Path) -> None:
    found = kerasport.read(listed)
    (layer,) = found.layers
    assert list(layer.weights) == [f"arr_{n}" for n in range(10)]
    assert "give the architecture with --config" in layer.note
    (problem,) = kerasport.plan(found, to="torch").problems
    assert "list of arrays without names" in problem


def test_a_list_of_another_model_is_refused(listed: Path, archive: Path, tmp_path: Path) -> None:
    arrays_ = list(np.load(listed).values())
    for wrong, message in (
        (arrays_[:-1], "the architecture has 10 weights and the file 9 arrays"),
        ([*arrays_, arrays_[0]], "has 10 weights and the file 11 arrays"),
        (
            [arrays_[1], arrays_[0], *arrays_[2:]],
            "arr_0, arr_1, arr_2 would be the weights of inner/steps",
        ),
        ([*arrays_[:4], arrays_[4][:1], *arrays_[5:]], "and do not fit it: the stored tensors"),
    ):
        path = tmp_path / "wrong.npz"
        np.savez(path, *wrong)
        with pytest.raises(UsageError, match=message):
            kerasport.read(path, config=archive)


def test_a_list_for_a_users_own_layer_is_refused(listed: Path, tmp_path: Path) -> None:
    """Nobody but its author knows how many arrays it has."""
    config = {
        "class_name": "Sequential",
        "config": {
            "layers": [
                {
                    "class_name": "Own",
                    "module": "elsewhere",
                    "registered_name": "elsewhere>Own",
                    "config": {"name": "own"},
                }
            ]
        },
    }
    (tmp_path / "m.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="nothing says how many arrays belong to own"):
        kerasport.read(listed, config=tmp_path / "m.json")


def test_every_kind_of_layer_takes_as_many_arrays_as_it_has(tmp_path: Path) -> None:
    """Counted too few or too many at one layer, all that follow would get others' weights."""
    keras.utils.clear_session()
    x = keras.Input((6, 8, 3))
    y = L.SeparableConv2D(5, 2)(x)
    y = L.DepthwiseConv2D(2, use_bias=False)(y)
    y = L.BatchNormalization(scale=False)(y)
    y = L.PReLU(shared_axes=[1, 2])(y)
    y = L.Dropout(0.5)(y)
    y = L.Reshape((-1, 5))(y)
    y = L.MultiHeadAttention(2, 3)(y, y)
    y = L.Bidirectional(L.GRU(3, return_sequences=True))(y)
    y = L.TimeDistributed(L.Dense(7))(y)
    y = L.LayerNormalization(center=False)(y)
    model = keras.Model(x, L.SimpleRNN(3, use_bias=False)(y))
    model.save(tmp_path / "m.keras")
    np.savez(tmp_path / "w.npz", *model.get_weights())
    check_same(
        kerasport.read(tmp_path / "w.npz", config=tmp_path / "m.keras"),
        kerasport.read(tmp_path / "m.keras"),
    )


def test_named_arrays_are_known_by_their_names(model: keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "named.npz"
    kernel, bias = np.ones((3, 5), np.float32), np.ones(5, np.float32)
    stored: dict[str, Any] = {"dense/kernel:0": kernel, "dense/bias:0": bias}
    np.savez(path, **stored)
    found = kerasport.read(path)
    assert [(layer.path, layer.kind) for layer in found.layers] == [("dense", "Dense")]
    np.testing.assert_array_equal(found["dense"].weights["kernel"].numpy(), kernel)


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(15, dtype=np.float32).reshape(3, 5)),
        np.arange(15, dtype=">f4").reshape(3, 5),
        np.arange(15, dtype=np.float64).reshape(3, 5),
        np.float16(2.5),
        np.zeros((0, 3), np.int8),
    ],
)
def test_an_array_is_what_numpy_says_it_is(array: Array, tmp_path: Path) -> None:
    """Columns first, big-endian, scalars and nothing at all."""
    np.savez(tmp_path / "a.npz", array)
    (tensor,) = kerasport.read(tmp_path / "a.npz").tensors
    assert tensor.shape == array.shape
    assert tensor.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(tensor.numpy(), array)
    np.testing.assert_array_equal(tensor.flat(), array.reshape(-1))


def test_values_of_two_bytes_need_a_name(tmp_path: Path) -> None:
    """NumPy saves bfloat16 as so many bytes."""
    array = np.arange(5).astype(ml_dtypes.bfloat16)
    np.savez(tmp_path / "a.npz", array)
    with pytest.raises(UnsupportedError, match="--assume-dtype bf16"):
        kerasport.read(tmp_path / "a.npz")
    (tensor,) = kerasport.read(tmp_path / "a.npz", assume_dtype="bf16").tensors
    np.testing.assert_array_equal(tensor.numpy(), array)


def npy(
    descr: object = "<f4", order: object = False, shape: object = (3,), data: bytes = b"\0" * 12
) -> bytes:
    header = repr({"descr": descr, "fortran_order": order, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def zipped(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(shape=(4,)), "announces 16 bytes and stores 12"),
        (npy(shape=(1 << 40, 1 << 40)), "announces 4835703278458516698824704 bytes"),
        (npy(shape=(-3,)), "a shape of impossible extents"),
        (npy(shape=[3]), "another dictionary"),
        (npy(shape=(True,)), "a shape of impossible extents"),
        (npy(descr=[("a", "<f4")]), "another dictionary"),
        (npy(descr="<U3"), "values of type"),
        (npy(descr="<M8[s]"), "values of type"),
        (npy(descr="nonsense"), "expected the header"),
        (npy(order=0), "another dictionary"),
        (npy()[:20], "announces a header of"),
        (b"\x93NUMPY\x09\x00" + npy()[8:], "expected an array of NumPy"),
        (b"", "expected an array of NumPy"),
        (npy().replace(b"'shape'", b"f('x') "), "expected the header of an array"),
    ],
)
def test_a_hostile_array_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", {"arr_0.npy": data})
    with pytest.raises(MalformedError, match=message):
        kerasport.read(path)


def test_the_sound_array_beside_the_hostile_ones_is_read(tmp_path: Path) -> None:
    (tensor,) = kerasport.read(zipped(tmp_path / "a.npz", {"arr_0.npy": npy()})).tensors
    assert tensor.spec == "f32[3]"


def test_an_archive_cut_off_is_broken_and_one_of_more_than_arrays_is_none(
    listed: Path, tmp_path: Path
) -> None:
    assert npz.matches(listed)
    path = zipped(tmp_path / "a.npz", {"arr_0.npy": npy(), "run.sh": b"#!"})
    with pytest.raises(UnknownFormatError):
        kerasport.read(path)
    os.truncate(listed, listed.stat().st_size - 30)
    with pytest.raises(MalformedError, match="Was it cut off on the way"):
        kerasport.read(listed)


def test_a_member_whose_path_leaves_the_archive_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", {"../arr_0.npy": npy()})
    with pytest.raises(MalformedError, match="has a path that leaves the archive"):
        kerasport.read(path)


# ----------------------------------------------------------------------- pickles, never carried out


class Evil:
    """What would run a command where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/kerasport_was_here",)


def pickled_store(tmp_path: Path, variables: object) -> Path:
    """A store of Keras 3 in NumPy's format, around any object."""
    data = io.BytesIO()
    box = np.empty((), object)
    box[()] = variables
    np.lib.format.write_array(data, box, allow_pickle=True)
    return zipped(tmp_path / "s.npz", {"layers/dense.npy": data.getvalue()})


def test_dictionaries_of_arrays_are_read(tmp_path: Path) -> None:
    """As tf_keras wrote them, before Keras put whole variables there."""
    kernel = np.arange(15, dtype=np.float32).reshape(3, 5)
    weights = {"0": kernel, "1": np.ones(5, ml_dtypes.bfloat16)}
    (layer,) = kerasport.read(pickled_store(tmp_path, weights)).layers
    assert layer.path == "dense"
    np.testing.assert_array_equal(layer.weights["kernel"].numpy(), kernel)
    assert layer.weights["bias"].spec == "bf16[5]"


def test_a_pickle_is_taken_apart_and_not_run(tmp_path: Path) -> None:
    witness = Path("/tmp/kerasport_was_here")
    witness.unlink(missing_ok=True)
    path = pickled_store(tmp_path, {"0": Evil()})
    with pytest.raises(UnsupportedError, match="in its backend's own format"):
        kerasport.read(path)
    assert not witness.exists()
    with np.load(path, allow_pickle=True) as found:  # the twin: it would have run
        found["layers/dense"]
    assert witness.exists()
    witness.unlink()


@pytest.mark.parametrize(
    "value",
    [
        {"0": np.ones(3, np.float32), "1": [np.ones(3, np.float32), np.ones(3, np.float32)]},
        {"0": 5},
        {"0": None},
    ],
)
def test_a_variable_without_its_one_array_is_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="in its backend's own format"):
        kerasport.read(pickled_store(tmp_path, value))


@pytest.mark.parametrize("value", [[1, 2], {"a"}, 5, None, np.ones(3)])
def test_a_store_without_a_dictionary_is_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match="expected the variables of a layer"):
        kerasport.read(pickled_store(tmp_path, value))


def test_an_array_beside_the_variables_of_layers_is_refused(tmp_path: Path) -> None:
    path = pickled_store(tmp_path, {"0": np.ones(3, np.float32)})
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("layers/other.npy", npy())
    with pytest.raises(MalformedError, match="expected the variables of a layer, found an array"):
        kerasport.read(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04",
        b"\x80\x04.",
        b"\x80\x04NN.",
        b"\x80\x04K\x01K\x02s.",
        b"\x80\x04h\x07.",
        b"\x80\x04)t.",
        b"\x80\x04K\x01b.",
        b"\x80\x04]N\x85R.",
        b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x82\x01.",
    ],
)
def test_a_pickle_that_contradicts_itself_is_an_error_and_nothing_else(data: bytes) -> None:
    try:
        assert list(arrays(described(data))) == []
    except ValueError:
        return


def test_whatever_numpy_pickles_is_described() -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    for protocol in (3, 4):  # version 2 has texts for bytes
        data = pickle.dumps({"a": (array, "x", 2.5, True, None)}, protocol=protocol)
        (found,) = arrays(described(data))
        assert (found.dtype, found.shape) == (array.dtype, (2, 3))


# ---------------------------------------------------------------------------------- TensorFlow.js


@pytest.mark.parametrize("name", ["sequence.tfjs", "sequence.tfjs/model.json"])
def test_a_model_for_the_browser_is_the_one_it_was_made_of(name: str, tmp_path: Path) -> None:
    """One weight lies in two shards."""
    found = kerasport.read(FILES / name)
    assert found.source.format == "tfjs"
    expected = kerasport.read(FIXTURES / "sequence.tf_keras.h5")
    ours, theirs = values(found), values(expected)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_array_equal(ours[key], value, key)
    assert {y.path: y.kind for y in found.layers} == {y.path: y.kind for y in expected.layers}
    convertible(FILES / name, tmp_path)


def test_a_model_of_keras_3_for_the_browser_has_the_paths_of_its_groups() -> None:
    check_same(
        kerasport.read(FILES / "sequence.keras3.tfjs"), kerasport.read(FIXTURES / "sequence.keras")
    )


@pytest.mark.parametrize("name", ["sequence.uint8.tfjs", "sequence.mixed.tfjs"])
def test_quantized_weights_are_the_floats_that_tensorflow_js_makes_of_them(
    name: str, tmp_path: Path
) -> None:
    """`value * scale + min`, as its manual says, computed here from the bytes of the shards."""
    folder = FILES / name
    expected: dict[str, Array] = {}
    for group in json.loads((folder / "model.json").read_text())["weightsManifest"]:
        data = b"".join((folder / path).read_bytes() for path in group["paths"])
        offset = 0
        for weight in group["weights"]:
            how = weight.get("quantization", {"dtype": weight["dtype"]})
            kept = np.frombuffer(data, how["dtype"], int(np.prod(weight["shape"])), offset).reshape(
                weight["shape"]
            )
            offset += kept.nbytes
            value = kept * np.float64(how.get("scale", 1)) + how.get("min", 0)
            expected[weight["name"]] = value.astype(weight["dtype"])
    assert {k["dtype"] for k in _quantizations(folder)} >= (
        {"uint8"} if "uint8" in name else {"float16", "uint16"}
    )
    found = kerasport.read(folder)
    ours = {t.stored: t.numpy() for t in found.tensors}
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(ours[key], value, key)
    exact = values(kerasport.read(FIXTURES / "sequence.tf_keras.h5"))
    for key, value in values(found).items():
        assert not np.array_equal(value, exact[key]) or not value.any() or value.size < 20
        np.testing.assert_allclose(value, exact[key], atol=0.02)
    convertible(folder, tmp_path)


def _quantizations(folder: Path) -> list[dict[str, Any]]:
    manifest = json.loads((folder / "model.json").read_text())["weightsManifest"]
    return [w["quantization"] for g in manifest for w in g["weights"] if "quantization" in w]


def spoilt(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    folder = tmp_path / "m"
    shutil.copytree(FILES / "sequence.uint8.tfjs", folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    rewritten(folder / "model.json", change)
    return folder


def weight(index: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = index["weightsManifest"][0]["weights"][0]
    return found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(weightsManifest={}), "expected a weightsManifest, a list"),
        (lambda m: m["weightsManifest"].append(5), "expected a group with paths and weights"),
        (
            lambda m: m["weightsManifest"][0].update(paths=["../x.bin"]),
            "expected the name of a file beside it, found '../x.bin'",
        ),
        (
            lambda m: m["weightsManifest"][0].update(paths=["x.bin"]),
            "lists the shard 'x.bin', which is not there",
        ),
        (lambda m: weight(m).update(shape=[1 << 40, 1 << 40]), "announces .* bytes at 0"),
        (lambda m: weight(m).update(shape=[-1]), "expected a shape"),
        (lambda m: weight(m).update(shape=[2.5]), "expected a shape"),
        (lambda m: weight(m).update(dtype="float128"), "expected one of bool"),
        (lambda m: weight(m).update(dtype=["float32"]), "expected one of bool"),
        (lambda m: weight(m)["quantization"].update(dtype="int4"), "kept as int4"),
        (lambda m: weight(m)["quantization"].update(scale="x"), "a scale and a min"),
        (lambda m: weight(m)["quantization"].pop("min"), "a scale and a min"),
        (lambda m: weight(m).update(name=""), "expected a weight with a name"),
        (
            lambda m: m["weightsManifest"][0]["weights"].pop(),
            "a group of 2456 bytes, of which .* are listed",
        ),
        (
            lambda m: m["weightsManifest"][0]["weights"].append(
                {"name": weight(m)["name"], "shape": [0], "dtype": "float32"}
            ),
            "lists the weight .* twice",
        ),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(
    change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    kerasport.read(spoilt(tmp_path / "sound", lambda m: None))
    with pytest.raises(MalformedError, match=message):
        kerasport.read(spoilt(tmp_path / "broken", change))


def test_texts_among_the_weights_are_refused(tmp_path: Path) -> None:
    path = spoilt(tmp_path, lambda m: weight(m).update(dtype="string"))
    with pytest.raises(UnsupportedError, match="holds texts"):
        kerasport.read(path)


def test_a_shard_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    folder = spoilt(tmp_path, lambda m: None)
    os.truncate(folder / "group1-shard1of1.bin", 2000)
    with pytest.raises(MalformedError, match="its group stores 2000"):
        kerasport.read(folder)


def test_what_is_no_model_for_the_browser_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"a": 1}')
    assert not tfjs.matches(tmp_path)
    with pytest.raises(UnknownFormatError, match=r"expected a model of TensorFlow\.js"):
        tfjs.read(tmp_path)
    with pytest.raises(UsageError, match="expected a readable file"):
        tfjs.read(tmp_path / "none.json")


def test_a_graph_model_has_names_and_no_architecture(tmp_path: Path) -> None:
    """Its topology is a graph of TensorFlow; the weights are told by what they are called."""

    def change(model: dict[str, Any]) -> None:
        model.update(format="graph-model", modelTopology={"node": []})

    found = kerasport.read(spoilt(tmp_path, change))
    assert found.architecture is None
    assert sum(1 for _ in found.tensors) == len(_quantizations(tmp_path / "m"))
