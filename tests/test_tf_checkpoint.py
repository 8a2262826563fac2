"""Checkpoints become layers: by objects, by names, by the graph beside them."""

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import kerasport
import tf_tables
from kerasport.errors import KerasportError, MalformedError, UsageError
from kerasport.identify import identify
from kerasport.model import Snapshot
from kerasport.readers import tf1_names, tf_checkpoint
from kerasport.transpose import plan
from tf_tables import numbers, save

FIXTURES = Path(__file__).parent.parent / "fixtures"
CORPUS = os.environ.get("KERASPORT_CORPUS")
MODELS = ("cnn", "sequence", "attention")


@pytest.fixture(scope="module")
def corpus() -> Path:
    if not CORPUS:
        pytest.skip("KERASPORT_CORPUS is not set")
    folder = Path(CORPUS)
    assert any(folder.rglob("*.index")), "the corpus is empty"
    return folder


def assert_complete(snapshot: Snapshot, prefix: Path) -> None:
    """The ledger: what TensorFlow finds is in a layer or listed, once, with its bytes."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(prefix))
    places = [*snapshot.tensors, *(o.tensor for o in snapshot.omitted)]
    names = [tensor.stored for tensor in places]
    assert sorted(names) == sorted(reader.get_variable_to_shape_map())
    for tensor in snapshot.tensors:
        np.testing.assert_array_equal(tensor.numpy(), reader.get_tensor(tensor.stored))
    paths = [layer.path for layer in snapshot.layers]
    assert len(set(paths)) == len(paths)


def omitted(snapshot: Snapshot) -> dict[str, str]:
    return {o.tensor.stored: o.reason for o in snapshot.omitted}


def kinds(snapshot: Snapshot) -> dict[str, str | None]:
    return {layer.path: layer.kind for layer in identify(snapshot).layers}


def keys(snapshot: Snapshot) -> dict[str, list[str]]:
    return {layer.path: list(layer.weights) for layer in snapshot.layers}


def stored_in_hdf5(path: Path) -> dict[str, list[Any]]:
    """The arrays of an HDF5 file of Keras 2 by layer, in its own order, by h5py alone."""
    with h5py.File(path) as file:
        top = file.get("model_weights", file)
        names = [n.decode() if isinstance(n, bytes) else n for n in top.attrs["layer_names"]]
        return {
            layer: [np.asarray(top[layer][name]) for name in top[layer].attrs["weight_names"]]
            for layer in names
            if len(top[layer].attrs["weight_names"])
        }


# ---- tf_keras: save_weights(save_format="tf")


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_of_tf_keras_holds_what_its_hdf5_twin_holds(model: str) -> None:
    folder = FIXTURES / f"{model}.tf_keras.checkpoint"
    assert tf_checkpoint.matches(folder)
    snapshot = tf_checkpoint.read(folder)
    assert_complete(snapshot, folder / "weights")
    expected = stored_in_hdf5(FIXTURES / f"{model}.tf_keras.weights_only.h5")
    found: dict[str, list[Any]] = {}
    for layer in snapshot.layers:
        # Only the nested model's own name is not in a checkpoint.
        head = layer.path.partition("/")[0].replace("layer_with_weights-3", "mlp")
        found.setdefault(head, []).extend(t.numpy() for t in layer.weights.values())
    assert list(found) == list(expected), "the layers are in model order"
    for name, arrays in expected.items():
        left = {array.tobytes() for array in found[name]}
        assert left == {array.tobytes() for array in arrays}, name


@pytest.mark.parametrize("model", MODELS)
def test_an_architecture_from_elsewhere_names_classes_and_nested_models(model: str) -> None:
    import json

    with h5py.File(FIXTURES / f"{model}.tf_keras.h5") as file:
        architecture = json.loads(file.attrs["model_config"])
    folder = FIXTURES / f"{model}.tf_keras.checkpoint"
    snapshot = tf_checkpoint.read(folder, architecture=architecture)
    assert_complete(snapshot, folder / "weights")
    found = identify(snapshot)
    assert all(layer.class_name and layer.kind for layer in found.layers), found
    assert {p.partition("/")[0] for p in found} == set(
        stored_in_hdf5(FIXTURES / f"{model}.tf_keras.h5")
    )


def test_an_architecture_that_does_not_fit_is_refused() -> None:
    dense = {"class_name": "Dense", "config": {"name": "elsewhere"}}
    other = {"class_name": "Sequential", "config": {"name": "other", "layers": [dense]}}
    with pytest.raises(UsageError, match="the architecture of 'other' does not fit"):
        tf_checkpoint.read(FIXTURES / "cnn.tf_keras.checkpoint", architecture=other)


def test_the_optimizer_of_a_checkpoint_is_listed_and_kept_apart() -> None:
    snapshot = tf_checkpoint.read(FIXTURES / "cnn.tf_keras.checkpoint")
    reasons = omitted(snapshot)
    assert sum(reason == "optimizer state" for reason in reasons.values()) == 26
    assert {key.partition("/")[0] for key in reasons} == {
        "optimizer",
        "_CHECKPOINTABLE_OBJECT_GRAPH",
    }
    assert sum(layer.parameters for layer in snapshot.layers) == 2977


# ---- checkpoints made here


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of objects of all sorts, by TensorFlow, tf_keras and Keras 3."""
    import keras
    import tensorflow as tf
    import tf_keras

    folder = tmp_path_factory.mktemp("checkpoints")

    class Part(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.kernel = tf.Variable(numbers((3, 5)), name="kernel")
            self.items = [tf.Variable(numbers((7,))), tf.Variable(numbers((11,)))]
            self.table = {"scale": tf.Variable(numbers((2, 3), "bfloat16"))}
            self.words = tf.Variable([b"a", b"bc"])
            self.itself = self

    parts = Part()
    step = tf.Variable(np.int64(3))
    tf.train.Checkpoint(step=step, encoder=parts, twin=parts).save(str(folder / "module" / "m"))

    class Model(tf_keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first = tf_keras.layers.Dense(5, name="renamed")
            self.both_ways = tf_keras.layers.Bidirectional(tf_keras.layers.LSTM(3))
            self.blocks = [tf_keras.layers.Dense(2), tf_keras.layers.Dense(7)]
            self.scale = tf.Variable(numbers((7,)), name="scale")

        def call(self, inputs: Any) -> Any:
            outputs = self.both_ways(self.first(inputs))
            for block in self.blocks:
                outputs = block(outputs)
            return outputs * self.scale

    own = Model()
    own.compile("adam", "mse")
    own.fit(numbers((4, 2, 11)), numbers((4, 7)), verbose=0)
    own.save_weights(str(folder / "own" / "w"), save_format="tf")

    slotted = tf_keras.Sequential(
        [tf_keras.layers.Dense(3, input_shape=(5,), name="d")], name="slotted"
    )
    slotted.compile(tf_keras.optimizers.legacy.Adam(), "mse")
    slotted.fit(numbers((4, 5)), numbers((4, 3)), verbose=0)
    slotted.save_weights(str(folder / "slotted" / "w"), save_format="tf")

    inner = keras.Sequential(
        [
            keras.layers.Input((5,)),
            keras.layers.Dense(7, name="up"),
            keras.layers.Dense(11, name="down"),
        ],
        name="inner",
    )
    inputs = keras.Input((5,))
    outputs = keras.layers.BatchNormalization(name="norm")(inner(inputs))
    model = keras.Model(inputs, keras.layers.Dropout(0.5)(outputs))
    model.compile("adam", "mse")
    model.fit(numbers((4, 5)), numbers((4, 11)), verbose=0)
    tf.train.Checkpoint(model=model).save(str(folder / "keras3" / "k"))
    return folder


def test_modules_lists_and_dicts_become_layers_by_their_attributes(made: Path) -> None:
    snapshot = tf_checkpoint.read(made / "module")
    assert_complete(snapshot, made / "module" / "m-1")
    assert keys(snapshot) == {
        "encoder": ["kernel"],
        "encoder/items": ["variable_0", "variable_1"],
        "encoder/table": ["scale"],
    }
    assert omitted(snapshot) == {
        "_CHECKPOINTABLE_OBJECT_GRAPH": "the checkpoint's graph of objects",
        "encoder/words/.ATTRIBUTES/VARIABLE_VALUE": "text, not numbers",
        "save_counter/.ATTRIBUTES/VARIABLE_VALUE": "training counter",
        "step/.ATTRIBUTES/VARIABLE_VALUE": "training counter",
    }


def test_a_model_of_a_users_own_becomes_layers_by_its_attributes(made: Path) -> None:
    snapshot = tf_checkpoint.read(made / "own")
    assert_complete(snapshot, made / "own" / "w")
    assert set(kinds(snapshot).items()) == {
        ("w", None),
        ("first", "Dense"),
        ("both_ways", "BidirectionalLSTM"),
        ("blocks/0", "Dense"),
        ("blocks/1", "Dense"),
    }
    assert keys(snapshot)["w"] == ["scale"]


def test_slots_of_older_optimizers_stand_beside_their_variables_and_are_set_aside(
    made: Path,
) -> None:
    snapshot = tf_checkpoint.read(made / "slotted")
    assert_complete(snapshot, made / "slotted" / "w")
    assert keys(snapshot) == {"d": ["kernel", "bias"]}
    slots = {k: r for k, r in omitted(snapshot).items() if ".OPTIMIZER_SLOT" in k}
    assert len(slots) == 4
    assert set(slots.values()) == {"optimizer state"}


def test_a_checkpoint_of_a_keras_3_model_is_called_as_the_model_is(made: Path) -> None:
    snapshot = tf_checkpoint.read(made / "keras3")
    assert_complete(snapshot, made / "keras3" / "k-1")
    assert list(kinds(snapshot).items()) == [
        ("inner/up", "Dense"),
        ("inner/down", "Dense"),
        ("norm", "BatchNormalization"),
    ]


# ---- names of TensorFlow 1


@pytest.mark.parametrize("place", ["", ".index", ".data-00000-of-00001"])
def test_a_checkpoint_may_have_no_name(place: str, tmp_path: Path) -> None:
    """`Saver.save(session, "folder/")` writes files of no name but `.index` and its like."""
    folder = tmp_path / "model"
    folder.mkdir()
    prefix = save(folder / "c", {"dense/kernel": numbers((3, 5)), "loose": numbers((7,))})
    for file in list(folder.iterdir()):
        if file.name.startswith("c."):
            file.rename(file.with_name(file.name.removeprefix("c")))
        else:
            file.unlink()
    found = kerasport.read(folder / place if place else folder)
    assert prefix.name == "c"
    assert [(layer.path, len(layer.weights)) for layer in found.layers] == [
        ("dense", 1),
        ("model", 1),
    ]


def test_scopes_become_layers_and_optimizers_are_recognised(tmp_path: Path) -> None:
    kernel, bias = numbers((3, 2, 5, 7)), numbers((7,))
    tensors = {
        "net/conv/kernel": kernel,
        "net/conv/bias": bias,
        "net/conv_10/kernel": numbers((2, 3)),
        "net/conv_2/kernel": numbers((2, 3)),
        "net/conv/kernel/Adam": kernel,
        "net/conv/kernel/Adam_1": kernel,
        "OptimizeLoss/net/conv/bias/Momentum": bias,
        "net/conv/kernel/ExponentialMovingAverage": kernel,
        "embed/vr": numbers((3,)),
        "lonely": numbers((3,)),
        "global_step": np.int64(3),
        "train/beta1_power": np.float32(0.5),
        "names": np.array([b"x"], object),
    }
    prefix = save(tmp_path / "net.ckpt-100", tensors)
    snapshot = tf_checkpoint.read(prefix)
    assert_complete(snapshot, prefix)
    assert list(keys(snapshot).items()) == [
        ("embed", ["vr"]),
        ("net", ["lonely"]),
        ("net/conv", ["bias", "kernel"]),
        ("net/conv_2", ["kernel"]),
        ("net/conv_10", ["kernel"]),
    ]
    assert omitted(snapshot) == {
        "OptimizeLoss/net/conv/bias/Momentum": "optimizer state",
        "global_step": "training counter",
        "names": "text, not numbers",
        "net/conv/kernel/Adam": "optimizer state",
        "net/conv/kernel/Adam_1": "optimizer state",
        "net/conv/kernel/ExponentialMovingAverage": "moving average of net/conv/kernel",
        "train/beta1_power": "training counter",
    }


def test_numbers_of_any_length_in_names_are_read_and_sorted(tmp_path: Path) -> None:
    """Python refuses to make a number of more than 4300 digits."""
    digits = "7" * 5000
    names = [f"layer_{digits}/kernel", "layer_10/kernel", "layer_9/kernel", f"layer_1/{digits}"]
    path = tf_tables.save(tmp_path / "c", {name: numbers((2, 3)) for name in names})
    found = [layer.path for layer in kerasport.read(path).layers]
    assert found == ["layer_1", "layer_9", "layer_10", f"layer_{digits}"]


def test_a_slots_name_without_its_variable_is_a_weight(tmp_path: Path) -> None:
    """The twin: what is called Adam, or m, and belongs to nothing, is not dropped."""
    tensors = {
        "people/Adam": numbers((3, 5)),
        "people/Eve": numbers((3, 5)),
        "motion/m": numbers((2,)),
        "net/kernel": numbers((2, 3)),
        "net/kernel/Adam": numbers((3, 2)),
        "pool/ExponentialMovingAverage": numbers((7,)),
    }
    snapshot = tf_checkpoint.read(save(tmp_path / "c", tensors))
    assert omitted(snapshot) == {}
    assert {t.stored for t in snapshot.tensors} == set(tensors)


CELLS: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "rnn/basic_lstm_cell": ("BasicLSTMCell", {"kernel": (5 + 3, 12), "bias": (12,)}),
    "rnn/multi_rnn_cell/cell_1/lstm_cell": (
        "TF1LSTMCell",
        {"kernel": (5 + 3, 12), "bias": (12,), "w_f_diag": (3,)},
    ),
    "bidirectional_rnn/fw/gru_cell": (
        "TF1GRUCell",
        {
            "gates/kernel": (5 + 3, 6),
            "gates/bias": (6,),
            "candidate/kernel": (5 + 3, 3),
            "candidate/bias": (3,),
        },
    ),
    "rnn/basic_rnn_cell_1": ("BasicRNNCell", {"kernel": (5 + 3, 3), "bias": (3,)}),
    "cudnn_lstm": ("CudnnLSTM", {"opaque_kernel": (137,)}),
    "rnn/cudnn_compatible_gru_cell": (
        "CudnnCompatibleGRUCell",
        {
            "gates/kernel": (5 + 3, 6),
            "gates/bias": (6,),
            "candidate/input_projection/kernel": (5, 3),
            "candidate/input_projection/bias": (3,),
            "candidate/hidden_projection/kernel": (3, 3),
            "candidate/hidden_projection/bias": (3,),
        },
    ),
}


@pytest.mark.parametrize("scope", CELLS)
def test_a_fused_cell_is_one_layer_and_never_taken_for_a_dense_one(
    tmp_path: Path, scope: str
) -> None:
    name, shapes = CELLS[scope]
    tensors = {f"{scope}/{key}": numbers(shape) for key, shape in shapes.items()}
    (layer,) = identify(tf_checkpoint.read(save(tmp_path / "c", tensors))).layers
    assert (layer.path, layer.class_name) == (scope, name)
    assert set(layer.weights) == set(shapes)
    assert layer.kind not in ("Dense", "Conv2D")


def test_a_scope_called_like_a_cell_that_holds_none_has_no_class(tmp_path: Path) -> None:
    tensors = {"basic_lstm_cell/kernel": numbers((5, 7)), "basic_lstm_cell/bias": numbers((7,))}
    (layer,) = tf_checkpoint.read(save(tmp_path / "c", tensors)).layers
    assert layer.class_name is None


def test_the_names_of_the_first_years_are_those_of_today(tmp_path: Path) -> None:
    """TensorFlow 1.1 and TF-Slim say `weights`; where both words stand, they are two things."""
    tensors = {
        "rnn/multi_rnn_cell/cell_0/lstm_cell/weights": numbers((5 + 3, 12)),
        "rnn/multi_rnn_cell/cell_0/lstm_cell/biases": numbers((12,)),
        "Logits/weights": numbers((5, 7)),
        "Logits/biases": numbers((7,)),
        "odd/weights": numbers((5, 7)),
        "odd/kernel": numbers((5, 7), seed=1),
    }
    prefix = save(tmp_path / "c", tensors)
    snapshot = tf_checkpoint.read(prefix)
    assert_complete(snapshot, prefix)
    assert kinds(snapshot) == {
        "Logits": "Dense",
        "odd": None,
        "rnn/multi_rnn_cell/cell_0/lstm_cell": "LSTM",
    }


def test_default_names_settle_what_shapes_leave_open(tmp_path: Path) -> None:
    """TensorFlow's own functions name the scopes; a name that does not fit is none."""
    import tensorflow as tf
    from tf_keras.src.legacy_tf_layers import convolutional, normalization

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = tf.zeros((1, 8, 8, 5))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that these functions are old
            for _ in range(2):
                x = convolutional.conv2d(x, 5, 3, padding="same")
                x = convolutional.conv2d_transpose(x, 5, 3, padding="same", use_bias=False)
                x = normalization.batch_normalization(x)
            convolutional.conv2d(x, 5, 3, name="mine")
        session.run(v1.global_variables_initializer())
        prefix = v1.train.Saver().save(session, str(tmp_path / "c"), write_meta_graph=False)
    snapshot = identify(tf_checkpoint.read(Path(prefix)))
    assert_complete(snapshot, Path(prefix))
    assert kinds(snapshot) == {
        "batch_normalization": "BatchNormalization",
        "batch_normalization_1": "BatchNormalization",
        "conv2d": "Conv2D",
        "conv2d_1": "Conv2D",
        "conv2d_transpose": "Conv2DTranspose",
        "conv2d_transpose_1": "Conv2DTranspose",
        "mine": None,
    }
    assert all(layer.inferred == (layer.path != "mine") for layer in snapshot.layers)
    notes = {note.subject: note.message for note in plan(snapshot, to="torch").notes}
    assert "under the name of Conv2DTranspose" in notes["conv2d_transpose_1"]
    assert "fit BatchNormalization alone" in notes["batch_normalization"]
    wrong = save(tmp_path / "w", {"conv2d/kernel": numbers((3, 5)), "conv2d/bias": numbers((5,))})
    assert kinds(tf_checkpoint.read(wrong)) == {"conv2d": "Dense"}


def test_a_cell_that_is_not_known_is_no_dense_layer(tmp_path: Path) -> None:
    tensors = {"rnn/ugrnn_cell/kernel": numbers((8, 6)), "rnn/ugrnn_cell/bias": numbers((6,))}
    (layer,) = identify(tf_checkpoint.read(save(tmp_path / "c", tensors))).layers
    assert (layer.class_name, layer.kind) == ("UgrnnCell", None)
    assert layer.note == "the class UgrnnCell is in no table"


def test_a_cell_of_keras_is_none_of_tensorflow_1(tmp_path: Path) -> None:
    tensors = {
        f"lstm/lstm_cell/{key}": numbers(shape)
        for key, shape in {"kernel": (5, 12), "recurrent_kernel": (3, 12), "bias": (12,)}.items()
    }
    assert kinds(tf_checkpoint.read(save(tmp_path / "c", tensors))) == {"lstm/lstm_cell": "LSTM"}


def test_every_cell_in_the_table_is_told_apart_by_its_scope() -> None:
    assert len({name for name, _ in tf1_names.CELLS.values()}) == len(tf1_names.CELLS) - 1


@pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed:UserWarning")
def test_cells_of_tensorflow_1_have_the_names_in_the_table(tmp_path: Path) -> None:
    """What TensorFlow's own cells call their weights, and in which shapes."""
    import tensorflow as tf
    from tf_keras.src.layers.rnn import legacy_cells as rnn_cell

    v1 = tf.compat.v1
    cells: dict[str, Callable[[], Any]] = {
        "BasicLSTMCell": lambda: rnn_cell.BasicLSTMCell(3),
        "TF1LSTMCell": lambda: rnn_cell.LSTMCell(3, use_peepholes=True),
        "TF1GRUCell": lambda: rnn_cell.GRUCell(3),
        "BasicRNNCell": lambda: rnn_cell.BasicRNNCell(3),
    }
    with tf.Graph().as_default(), v1.Session() as session:
        for scope, cell in cells.items():
            v1.nn.dynamic_rnn(cell(), tf.zeros((2, 7, 5)), dtype=tf.float32, scope=scope)
        session.run(v1.global_variables_initializer())
        prefix = v1.train.Saver().save(session, str(tmp_path / "c"), write_meta_graph=False)
    snapshot = tf_checkpoint.read(Path(prefix))
    assert_complete(snapshot, Path(prefix))
    assert {layer.path.partition("/")[0]: layer.class_name for layer in snapshot.layers} == {
        name: name for name in cells
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of TensorFlow 1 after one step of training, saved in both formats."""
    import tensorflow as tf

    v1 = tf.compat.v1
    folder = tmp_path_factory.mktemp("trained")
    for version in ("v1", "v2"):
        (folder / version).mkdir()
    with tf.Graph().as_default(), v1.Session() as session:
        inputs = tf.constant(numbers((2, 7, 11, 5)))
        kernel = v1.get_variable("conv/weights", initializer=numbers((3, 2, 5, 5)))
        bias = v1.get_variable("conv/biases", initializer=numbers((5,)))
        turned = v1.get_variable("up/weights", initializer=numbers((3, 2, 5, 5), seed=1))
        deep = v1.get_variable("deep/weights", initializer=numbers((2, 3, 5, 1)))
        with v1.variable_scope("split", partitioner=v1.fixed_size_partitioner(3)):
            table = v1.get_variable(
                "embeddings", (7, 5), initializer=v1.random_normal_initializer(seed=1)
            )
        half = v1.get_variable("half", initializer=numbers((7,), "float16"))
        v1.get_variable("whole", initializer=numbers((3,), "int64"))
        v1.get_variable("yes", initializer=numbers((3,), "bool"))
        outputs = tf.nn.bias_add(tf.nn.conv2d(inputs, kernel, 1, "SAME"), bias)
        outputs = tf.nn.conv2d_transpose(outputs, turned, (2, 7, 11, 5), 1)
        outputs = tf.nn.depthwise_conv2d(outputs, deep, (1, 1, 1, 1), "SAME")
        loss = tf.reduce_sum(outputs) + tf.reduce_sum(tf.nn.embedding_lookup(table, [1, 2]))
        loss += tf.cast(tf.reduce_sum(half), tf.float32)
        step = v1.train.get_or_create_global_step()
        session.run(v1.variables_initializer([kernel, bias]))
        average = tf.train.ExponentialMovingAverage(0.9).apply([kernel, bias])
        train = v1.train.AdamOptimizer().minimize(loss, global_step=step)
        session.run(v1.global_variables_initializer())
        session.run([train, average])
        writer = v1.train.SaverDef
        v1.train.Saver(sharded=True).save(session, str(folder / "v2" / "c.ckpt"), global_step=7)
        v1.train.Saver(write_version=writer.V1).save(session, str(folder / "v1" / "c.ckpt-7"))
    return folder


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_both_formats_of_a_trained_graph_are_read(trained: Path, version: str) -> None:
    """TensorFlow's own reader of the older format refuses bool; it wrote the same values twice."""
    prefix = trained / version / "c.ckpt-7"
    for path in (prefix.parent, prefix, prefix.parent / "checkpoint"):
        assert tf_checkpoint.matches(path), path
        assert_complete(tf_checkpoint.read(path), trained / "v2" / "c.ckpt-7")
    snapshot = tf_checkpoint.read(prefix)
    reasons = omitted(snapshot)
    assert reasons["conv/biases/ExponentialMovingAverage"] == "moving average of conv/biases"
    assert reasons["split/embeddings/Adam_1"] == "optimizer state"
    assert reasons["beta1_power"] == reasons["global_step"] == "training counter"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_graph_beside_a_checkpoint_tells_kernels_of_one_shape_apart(
    trained: Path, version: str, tmp_path: Path
) -> None:
    """Its kernels have one shape, and the training step takes all of them turned around too."""
    snapshot = identify(tf_checkpoint.read(trained / version))
    assert snapshot["conv"].kind == "Conv2D"
    assert list(snapshot["conv"].weights) == ["kernel", "bias"]
    assert snapshot["up"].kind == "Conv2DTranspose"
    assert snapshot["deep"].kind == "DepthwiseConv2D"
    copy = shutil.copytree(trained / version, tmp_path / "copy")
    (copy / "c.ckpt-7.meta").unlink()
    without = identify(tf_checkpoint.read(copy))
    assert without["conv"].kind is without["up"].kind is without["deep"].kind is None


# ---- paths


def test_the_state_file_says_which_checkpoint_is_the_latest(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path / f"c-{step}", {"x/kernel": np.float32(step)})
    with pytest.raises(UsageError, match="holds 3 checkpoints and does not say"):
        tf_checkpoint.read(tmp_path)
    assert not tf_checkpoint.matches(tmp_path)
    state = tmp_path / "checkpoint"
    for text in ('"c-2"', '"/somewhere/else/c-2"', '"../../c-2"', '"C:\\\\models\\\\c-2"'):
        state.write_text(f"model_checkpoint_path: {text}\nall_model_checkpoint_paths: {text}\n")
        assert tf_checkpoint.matches(tmp_path), text
        (tensor,) = tf_checkpoint.read(tmp_path).tensors
        assert tensor.numpy() == 2, text
    (tensor,) = tf_checkpoint.read(tmp_path / "c-3").tensors
    assert tensor.numpy() == 3


@pytest.mark.parametrize("name", ["c", "c.index", "c.data-00000-of-00001"])
def test_any_file_of_a_checkpoint_leads_to_it(tmp_path: Path, name: str) -> None:
    save(tmp_path / "c", {"x/kernel": np.float32(3)})
    assert tf_checkpoint.matches(tmp_path / name)
    assert len(tf_checkpoint.read(tmp_path / name)) == 1


def test_a_state_file_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    save(tmp_path / "secret", {"x/kernel": np.float32(3)})
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "checkpoint").write_text('model_checkpoint_path: "../secret"\n')
    assert not tf_checkpoint.matches(inside)
    with pytest.raises(UsageError, match="found no index"):
        tf_checkpoint.read(inside)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n", b"\0" * 100])
def test_other_files_are_no_checkpoints(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.index").write_bytes(content)
    assert not tf_checkpoint.matches(tmp_path / "c.index")
    assert not tf_checkpoint.matches(tmp_path)
    with pytest.raises(KerasportError):
        tf_checkpoint.read(tmp_path / "c.index")


def test_a_state_file_with_a_nul_names_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path / "a", {"x": np.float32(1)})
    (tmp_path / "checkpoint").write_bytes(b'model_checkpoint_path: "a\0b"\n')
    assert tf_checkpoint.located(tmp_path) == tmp_path / "a.index"


def test_a_path_to_nothing_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="found no index"):
        tf_checkpoint.read(tmp_path / "nothing")


# ---- hostile graphs of objects


def with_graph(tmp_path: Path, change: Callable[[Any], None]) -> Path:
    """A checkpoint whose graph of objects has been changed by TensorFlow's own message."""
    import tensorflow as tf
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    tf.train.Checkpoint(a=tf.Variable(numbers((3,)))).write(str(tmp_path / "made"))
    reader = tf.train.load_checkpoint(str(tmp_path / "made"))
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    change(graph)
    tensors = {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}
    tensors["_CHECKPOINTABLE_OBJECT_GRAPH"] = graph.SerializeToString()
    return save(tmp_path / "changed", tensors)


def _deep(graph: Any) -> None:
    for number in range(1000):
        node = graph.nodes.add()
        node.children.add(node_id=len(graph.nodes), local_name=f"n{number}")
    graph.nodes.add().children.add(node_id=1, local_name="a")
    graph.nodes[0].children[0].node_id = 2


def _cycle(graph: Any) -> None:
    graph.nodes[1].children.add(node_id=0, local_name="back")
    graph.nodes[1].children.add(node_id=1, local_name="self")
    graph.nodes[0].children.add(node_id=0, local_name="keras_api")


def test_objects_that_refer_to_each_other_in_circles_are_entered_once(tmp_path: Path) -> None:
    snapshot = tf_checkpoint.read(with_graph(tmp_path, _cycle))
    assert [t.stored for t in snapshot.tensors] == ["a/.ATTRIBUTES/VARIABLE_VALUE"]


def test_an_unreachable_variable_is_listed(tmp_path: Path) -> None:
    prefix = with_graph(tmp_path, lambda graph: graph.nodes[0].children.pop(0))
    assert "no object refers to it" in omitted(tf_checkpoint.read(prefix)).values()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda g: setattr(g.nodes[0].children[0], "node_id", 99),
            "refers to object 99, and there are",
        ),
        (lambda g: setattr(g.nodes[0].children[0], "node_id", -1), "refers to object -1"),
        (
            lambda g: g.nodes[0].slot_variables.add(slot_variable_node_id=50),
            "refers to object 50",
        ),
        (lambda g: g.Clear(), "expected a graph of objects, found none"),
        (
            lambda g: setattr(g.nodes[1].attributes[0], "checkpoint_key", "gone"),
            "names 'gone', which is not there",
        ),
        (_deep, "more than 200 objects inside one another"),
    ],
)
def test_a_graph_of_objects_that_lies_is_refused(
    tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    prefix = with_graph(tmp_path, change)
    with pytest.raises(MalformedError, match=message):
        tf_checkpoint.read(prefix)


def test_a_graph_of_objects_that_is_no_text_is_refused(tmp_path: Path) -> None:
    prefix = save(tmp_path / "c", {"_CHECKPOINTABLE_OBJECT_GRAPH": numbers((3,))})
    with pytest.raises(MalformedError, match="expected one text"):
        tf_checkpoint.read(prefix)


@pytest.mark.parametrize("name", ["-3", ".ckpt-3"])
def test_odd_names_are_no_reason_to_fail(tmp_path: Path, name: str) -> None:
    save(tmp_path / "c", {"x": np.float32(1)})
    for file in sorted(tmp_path.glob("c.*")):
        file.rename(tmp_path / file.name.replace("c.", f"{name}.", 1))
    (tensor,) = tf_checkpoint.read(tmp_path / name).tensors
    assert tensor.numpy() == 1


# ---- the corpus


def test_musicnn_equals_its_keras_port(corpus: Path) -> None:
    folder = corpus / "musicnn" / "MTT_vgg"
    snapshot = tf_checkpoint.read(folder)
    assert_complete(snapshot, folder / "model")
    port = stored_in_hdf5(corpus / "musicnn" / "port_keras" / "MTT_vgg.h5")
    names = {
        **{f"{n}CNN": f"{n}CNN" for n in range(1, 6)},
        **{f"bn_conv{n}": f"batch_normalization_{n}" for n in range(1, 6)},
        "bn_input": "batch_normalization",
        "output": "dense",
    }
    assert set(port) == set(names)
    compared = 0
    for theirs, ours in names.items():
        weights = snapshot[ours].weights
        order = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
        for array, key in zip(port[theirs], (k for k in order if k in weights), strict=True):
            np.testing.assert_array_equal(array, weights[key].numpy(), err_msg=f"{ours}/{key}")
            compared += 1
    assert compared == sum(len(layer.weights) for layer in snapshot.layers) == 36


def test_musicnn_takes_the_architecture_of_its_port(corpus: Path) -> None:
    """Some of its layers have the port's names; the others are of one class, in one order."""
    port = corpus / "musicnn" / "port_keras" / "MTT_vgg.h5"
    found = kerasport.read(corpus / "musicnn" / "MTT_vgg", config=port)
    expected = kerasport.read(port)
    assert list(found) == list(expected)
    for path, layer in expected.items():
        assert found[path].kind == layer.kind is not None
        for role, tensor in layer.weights.items():
            np.testing.assert_array_equal(found[path].weights[role].numpy(), tensor.numpy())
    with pytest.raises(UsageError, match="has no layer for 1CNN, 2CNN"):
        kerasport.read(
            corpus / "musicnn" / "MTT_vgg", config=corpus / "ner_lstm_iob2" / "model.keras"
        )


@pytest.mark.parametrize("name", ["musicnn/MTT_vgg", "phasenet/model_95.ckpt"])
def test_weights_that_nobody_classified_pass_to_an_archive(
    corpus: Path, tmp_path: Path, name: str
) -> None:
    report = kerasport.convert(corpus / name, tmp_path / "it.safetensors", to="keras")
    assert not any(note.loss for note in report.notes)
    assert report.placed == report.tensors > 30


def test_phasenet_is_read_and_its_kernels_are_not_guessed(corpus: Path) -> None:
    prefix = corpus / "phasenet" / "model_95.ckpt"
    snapshot = tf_checkpoint.read(prefix)
    assert_complete(snapshot, prefix)
    found = kinds(snapshot)
    assert found["UpConv_0/up_conv0_1"] is None, "a transposed one, which only the model knows"
    assert set(omitted(snapshot).values()) == {"optimizer state", "training counter"}


def test_the_helper_writes_what_it_says() -> None:
    assert tf_tables.varint(300) == b"\xac\x02"
