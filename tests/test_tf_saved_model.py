"""SavedModels become layers with classes and configurations, whoever wrote them and when."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import kerasport
from kerasport.errors import KerasportError, MalformedError, UnknownFormatError, UsageError
from kerasport.identify import identify
from kerasport.model import Snapshot
from kerasport.readers import tf_checkpoint, tf_frozen, tf_saved_model
from kerasport.transpose import plan
from tf_tables import numbers

FIXTURES = Path(__file__).parent.parent / "fixtures"
CORPUS = os.environ.get("KERASPORT_CORPUS")
MODELS = ("cnn", "sequence", "attention")


@pytest.fixture(scope="module")
def corpus() -> Path:
    if not CORPUS:
        pytest.skip("KERASPORT_CORPUS is not set")
    folder = Path(CORPUS)
    assert any(folder.rglob("saved_model.pb")), "the corpus is empty"
    return folder


def assert_complete(snapshot: Snapshot, folder: Path) -> None:
    """What TensorFlow's checkpoint reader finds is in a layer or listed, once, with its bytes."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    places = [*snapshot.tensors, *(o.tensor for o in snapshot.omitted)]
    assert sorted(t.stored for t in places) == sorted(reader.get_variable_to_shape_map())
    for tensor in snapshot.tensors:
        np.testing.assert_array_equal(tensor.numpy(), reader.get_tensor(tensor.stored))


def kinds(snapshot: Snapshot) -> dict[str, str | None]:
    return {layer.path: layer.kind for layer in identify(snapshot).layers}


def reasons(snapshot: Snapshot) -> set[str]:
    return {o.reason for o in snapshot.omitted}


def by_name(path: Path) -> dict[str, Any]:
    """The arrays of an HDF5 file of Keras 2 by the names of layer and weight, by h5py alone."""
    found = {}
    with h5py.File(path) as file:
        top = file.get("model_weights", file)
        for layer in top:
            for name in top[layer].attrs.get("weight_names", ()):
                text = name.decode() if isinstance(name, bytes) else name
                found[f"{layer}: {text.removesuffix(':0')}"] = np.asarray(top[layer][name])
    return found


KINDS: dict[str, dict[str, str]] = {
    "cnn": {
        "stem": "Conv2D",
        "stem_norm": "BatchNormalization",
        "mix": "DepthwiseConv2D",
        "head_conv": "Conv2D",
        "hidden": "Dense",
        "logits": "Dense",
    },
    "sequence": {
        "project": "Dense",
        "norm": "LayerNormalization",
        "reader": "BidirectionalLSTM",
        "summary": "GRU",
        "logits": "Dense",
    },
    "attention": {
        "embed": "Dense",
        "attend": "MultiHeadAttention",
        "attend_norm": "LayerNormalization",
        "mlp/widen": "Dense",
        "mlp/narrow": "Dense",
        "logits": "Dense",
    },
}


# ---- tf_keras


@pytest.mark.parametrize("model", MODELS)
def test_a_saved_model_of_tf_keras_has_classes_and_the_values_of_its_hdf5_twin(model: str) -> None:
    folder = FIXTURES / f"{model}.tf_keras.savedmodel"
    assert tf_saved_model.matches(folder)
    assert tf_saved_model.matches(folder / "saved_model.pb")
    assert not tf_checkpoint.matches(folder)
    snapshot = tf_saved_model.read(folder)
    assert_complete(snapshot, folder)
    assert list(kinds(snapshot).items()) == list(KINDS[model].items())
    assert all(layer.class_name and layer.config["name"] for layer in snapshot.layers)
    assert snapshot.source.keras_version == "2.21.0"
    expected = by_name(FIXTURES / f"{model}.tf_keras.h5")
    found = sorted((t.numpy().shape, t.numpy().tobytes()) for t in snapshot.tensors)
    assert found == sorted((a.shape, a.tobytes()) for a in expected.values())
    for layer in snapshot.layers:
        for key, tensor in layer.weights.items():
            head, *inner = layer.path.split("/")
            fits = [
                a
                for name, a in expected.items()
                if name.startswith(f"{head}: ")
                and name.replace(": ", ": /").endswith("/".join(["", *inner, key.split("/")[-1]]))
                and a.tobytes() == tensor.numpy().tobytes()
            ]
            assert len(fits) == 1, (layer.path, key)


def test_configurations_have_no_marks_of_tuples() -> None:
    snapshot = tf_saved_model.read(FIXTURES / "cnn.tf_keras.savedmodel")
    assert snapshot["stem"].config["kernel_size"] == [3, 2]
    assert snapshot.architecture is not None
    assert "__tuple__" not in str(snapshot.architecture)


def test_what_does_not_train_is_known() -> None:
    weights = tf_saved_model.read(FIXTURES / "cnn.tf_keras.savedmodel")["stem_norm"].weights
    assert {key: tensor.trainable for key, tensor in weights.items()} == {
        "gamma": True,
        "beta": True,
        "moving_mean": False,
        "moving_variance": False,
    }


def test_the_content_is_that_of_all_files() -> None:
    folder = FIXTURES / "cnn.tf_keras.savedmodel"
    source = tf_saved_model.read(folder).source
    names = ("saved_model.pb", "variables/variables.index")
    files = [*(folder / name for name in names), *sorted(folder.glob("variables/*.data-*"))]
    assert source.content is not None
    whole = b"".join(path.read_bytes() for path in files)
    assert b"".join(map(bytes, source.content())) == whole
    assert source.nbytes == len(whole)


# ---- Keras 3: model.export


@pytest.mark.parametrize("model", MODELS)
def test_an_export_of_keras_3_has_the_values_of_its_hdf5_twin_once(model: str) -> None:
    folder = FIXTURES / f"{model}.exported"
    assert tf_saved_model.matches(folder)
    snapshot = tf_saved_model.read(folder)
    assert_complete(snapshot, folder)
    expected = by_name(FIXTURES / f"{model}.legacy.h5")
    found = [(t.shape, t.numpy().tobytes()) for t in snapshot.tensors]
    assert sorted(found) == sorted((a.shape, a.tobytes()) for a in expected.values())
    copies = [o for o in snapshot.omitted if o.reason.startswith("the same values as")]
    assert len(copies) == len(found)
    order = [layer for layer in KINDS[model] if "/" not in layer]
    assert [path for path in snapshot if path in order] == order


def test_functions_tell_a_depthwise_kernel_from_another_one() -> None:
    """Without classes, `mix/kernel f32[4,2,6,3]` alone would be no kernel of any known layer."""
    found = identify(tf_saved_model.read(FIXTURES / "cnn.exported"))
    assert {path: found[path].class_name for path in ("stem", "mix", "hidden")} == {
        "stem": "Conv2D",
        "mix": "DepthwiseConv2D",
        "hidden": "Dense",
    }
    assert found["mix"].kind == "DepthwiseConv2D"


def test_cells_are_not_taken_for_dense_layers_by_their_products() -> None:
    found = identify(tf_saved_model.read(FIXTURES / "sequence.exported"))
    assert {path: found[path].kind for path in ("reader", "summary")} == {
        "reader": "BidirectionalLSTM",
        "summary": "GRU",
    }


def test_the_architecture_of_an_export_can_come_from_elsewhere() -> None:
    import json

    with h5py.File(FIXTURES / "attention.legacy.h5") as file:
        architecture = json.loads(file.attrs["model_config"])
    architecture["config"]["layers"] = [
        layer for layer in architecture["config"]["layers"] if layer["config"]["name"] != "mlp"
    ]
    with pytest.raises(KerasportError):
        tf_saved_model.read(FIXTURES / "attention.exported", architecture=architecture)
    with h5py.File(FIXTURES / "cnn.legacy.h5") as file:
        architecture = json.loads(file.attrs["model_config"])
    snapshot = tf_saved_model.read(FIXTURES / "cnn.exported", architecture=architecture)
    assert kinds(snapshot) == KINDS["cnn"]
    assert all(layer.class_name for layer in snapshot.layers)


# ---- made here


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SavedModels of modules, of TensorFlow 1, and of models of a user's own."""
    import tensorflow as tf
    import tf_keras

    folder = tmp_path_factory.mktemp("saved")

    class Part(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.w = tf.Variable(numbers((3, 2, 5, 5)))
            self.b = tf.Variable(numbers((5,)))

        def run(self, inputs: Any) -> Any:
            return tf.nn.bias_add(tf.nn.conv2d(inputs, self.w, 1, "SAME"), self.b)

    class Whole(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.part = Part()
            self.up = tf.Variable(numbers((3, 2, 5, 5), seed=1))
            self.unused = tf.Variable(numbers((7,)))

        @tf.function(input_signature=[tf.TensorSpec((2, 7, 11, 5), tf.float32)])  # type: ignore[untyped-decorator]
        def run(self, inputs: Any) -> Any:
            outputs = tf.function(self.part.run)(inputs)
            return tf.nn.conv2d_transpose(outputs, self.up, (2, 7, 11, 5), 1)

    tf.saved_model.save(Whole(), str(folder / "module"))

    class Model(tf_keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.first = tf_keras.layers.Dense(5, name="renamed")
            self.blocks = [tf_keras.layers.Dense(2, name="one"), tf_keras.layers.Dense(3)]
            inner = tf_keras.Sequential([tf_keras.layers.Dense(7, name="inner")])
            self.steps = tf_keras.layers.TimeDistributed(inner, name="steps")
            self.scale = tf.Variable(numbers((3,)), name="scale")

        def call(self, inputs: Any) -> Any:
            outputs = self.steps(self.first(inputs))
            for block in self.blocks:
                outputs = block(outputs)
            return outputs * self.scale

    own = Model()
    own.compile("adam", "mse", metrics=["mae"])
    own.fit(numbers((4, 2, 11)), numbers((4, 2, 3)), verbose=0)
    own.save(str(folder / "own"), save_format="tf")

    cells = tf_keras.layers.RNN([tf_keras.layers.LSTMCell(3), tf_keras.layers.LSTMCell(2)])
    inputs = tf_keras.Input((5, 7))
    shared = tf_keras.layers.Dense(7, name="shared", trainable=False)
    stateful = tf_keras.layers.GRU(3, stateful=True, batch_size=2, name="stateful")
    outputs = cells(shared(shared(inputs)))
    tf_keras.Model(inputs, outputs).save(str(folder / "shared"), save_format="tf")
    fixed = tf_keras.Input(batch_shape=(2, 5, 7))
    tf_keras.Model(fixed, stateful(fixed)).save(str(folder / "stateful"), save_format="tf")

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        image = v1.placeholder(tf.float32, (2, 7, 11, 5))
        kernel = v1.get_variable("net/conv/weights", initializer=numbers((3, 2, 5, 5)))
        up = v1.get_variable("net/up/weights", initializer=numbers((3, 2, 5, 5)), use_resource=True)
        mean = v1.get_variable("net/norm/moving_mean", initializer=numbers((5,)))
        deviation = v1.get_variable("net/norm/moving_variance", initializer=abs(numbers((5,))) + 1)
        scale = v1.get_variable("net/norm/gamma", initializer=numbers((5,)))
        shift = v1.get_variable("net/norm/beta", initializer=numbers((5,)))
        turned = tf.nn.conv2d_transpose(tf.nn.conv2d(image, kernel, 1, "SAME"), up, image.shape, 1)
        result, _, _ = v1.nn.fused_batch_norm(
            turned, scale, shift, mean, deviation, is_training=False
        )
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder / "one"), {"x": image}, {"y": result})
    return folder


def test_a_module_is_understood_by_its_functions(made: Path) -> None:
    snapshot = tf_saved_model.read(made / "module")
    assert_complete(snapshot, made / "module")
    found = identify(snapshot)
    assert found["part"].kind == "Conv2D"
    assert {role: t.stored for role, t in found["part"].weights.items()} == {
        "kernel": "part/w/.ATTRIBUTES/VARIABLE_VALUE",
        "bias": "part/b/.ATTRIBUTES/VARIABLE_VALUE",
    }
    assert found["module"].kind is None, "one variable of its layer is in no operation"


def test_a_model_of_a_users_own_has_the_layers_that_it_says(made: Path) -> None:
    snapshot = tf_saved_model.read(made / "own")
    assert_complete(snapshot, made / "own")
    classes = {layer.path: layer.class_name for layer in snapshot.layers}
    third = next(path for path in classes if path.startswith("dense"))
    assert classes == {
        "own": "Model",
        "renamed": "Dense",
        "one": "Dense",
        third: "Dense",
        "steps/inner": "Dense",
    }
    assert {"optimizer state", "metric state"} < reasons(snapshot)


def test_contents_of_lookup_tables_are_listed_and_are_no_weights(tmp_path: Path) -> None:
    """A table is two tensors, and the graph of objects has the beginning of their keys."""
    import tf_keras

    words = tf_keras.layers.TextVectorization(max_tokens=50, output_sequence_length=4)
    words.adapt(["a b c", "d e"])
    model = tf_keras.Sequential([words, tf_keras.layers.Embedding(50, 3, name="embed")])
    model(np.array([["a b"]]))
    model.save(tmp_path / "m", save_format="tf")
    snapshot = tf_saved_model.read(tmp_path / "m")
    assert [layer.path for layer in snapshot.layers] == ["embed"]
    tables = [o.tensor.name for o in snapshot.omitted if o.reason == "contents of a lookup table"]
    assert [name.rpartition("-")[2] for name in tables] == ["keys", "values"]


def test_shared_layers_are_there_once_and_stacked_cells_are_one_layer(made: Path) -> None:
    snapshot = tf_saved_model.read(made / "shared")
    assert_complete(snapshot, made / "shared")
    assert [layer.class_name for layer in snapshot.layers] == ["Dense", "RNN"]
    assert [t.trainable for t in snapshot["shared"].weights.values()] == [False, False]
    (cells,) = (layer for layer in snapshot.layers if layer.class_name == "RNN")
    assert len(cells.weights) == 6


def test_the_state_of_a_recurrent_layer_is_no_weight(made: Path) -> None:
    snapshot = tf_saved_model.read(made / "stateful")
    assert_complete(snapshot, made / "stateful")
    assert kinds(snapshot) == {"stateful": "GRU"}
    assert "state of a recurrent layer, no weight" in reasons(snapshot)


def test_a_saved_model_of_tensorflow_1_is_understood_by_its_operations(made: Path) -> None:
    snapshot = tf_saved_model.read(made / "one")
    assert_complete(snapshot, made / "one")
    assert kinds(snapshot) == {
        "net/conv": "Conv2D",
        "net/norm": "BatchNormalization",
        "net/up": "Conv2DTranspose",
    }


# ---- broken and hostile files


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return shutil.copytree(FIXTURES / "cnn.tf_keras.savedmodel", tmp_path / "model")


def test_the_copy_to_be_broken_is_whole(copy: Path) -> None:
    assert len(tf_saved_model.read(copy)) == 6


def test_a_truncated_model_is_refused_at_any_length(copy: Path) -> None:
    path = copy / "saved_model.pb"
    whole = path.read_bytes()
    for size in (*range(3, 200, 7), *range(200, len(whole), len(whole) // 40)):
        path.write_bytes(whole[:size])
        with pytest.raises(MalformedError):
            tf_saved_model.read(copy)


def test_missing_files_are_usage_errors(copy: Path) -> None:
    (copy / "variables" / "variables.index").unlink()
    with pytest.raises(UsageError, match=r"expected variables/variables\.index"):
        tf_saved_model.read(copy)
    (copy / "saved_model.pb").unlink()
    with pytest.raises(UsageError, match=r"expected a folder with a saved_model\.pb"):
        tf_saved_model.read(copy)
    assert not tf_saved_model.matches(copy)
    (copy / "saved_model.pbtxt").write_text("saved_model_schema_version: 1")
    assert tf_saved_model.matches(copy)
    with pytest.raises(UnknownFormatError, match="a SavedModel as text"):
        tf_saved_model.read(copy)


def changed_metadata(folder: Path, change: Callable[[Any], None]) -> None:
    from tf_keras.protobuf import saved_metadata_pb2

    path = folder / "keras_metadata.pb"
    message = saved_metadata_pb2.SavedMetadata()
    message.ParseFromString(path.read_bytes())
    change(message)
    path.write_bytes(message.SerializeToString())


NEST = '{"class_name": "Dense", "name": "x", "config": ' + '{"a": ' * 400 + "1" + "}" * 401
LOOP = (
    '{"class_name": "Functional", "name": "m", "config": {"name": "m", "layers": ['
    '{"class_name": "Dense", "name": "a", "config": {"name": "a"}, "inbound_nodes": '
    '[[["b", 0, 0, {}]]]}, {"class_name": "Dense", "name": "b", "config": {"name": "b"}, '
    '"inbound_nodes": [[["a", 0, 0, {}]]]}], "input_layers": [], "output_layers": []}}'
)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{", "expected a configuration in JSON"),
        ("[]", "with a class_name"),
        (NEST, "nests too deep"),
        (LOOP, "the layers feed themselves"),
    ],
)
def test_metadata_that_is_none_is_refused(copy: Path, metadata: str, message: str) -> None:
    changed_metadata(copy, lambda m: setattr(m.nodes[0], "metadata", metadata))
    with pytest.raises(MalformedError, match=message):
        tf_saved_model.read(copy)


def test_metadata_of_other_objects_is_not_looked_at(copy: Path) -> None:
    def change(message: Any) -> None:
        for node in message.nodes:
            node.node_id += 10_000

    changed_metadata(copy, change)
    snapshot = tf_saved_model.read(copy)
    assert sorted(snapshot) == sorted(KINDS["cnn"])
    assert snapshot["stem"].class_name == "Conv2D", "by the operation that takes its kernel"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.ClearField("meta_graphs"), "expected a SavedModel of schema 1"),
        (lambda m: setattr(m, "saved_model_schema_version", 2), "expected a SavedModel of schema"),
        (
            lambda m: setattr(
                m.meta_graphs[0].object_graph_def.nodes[0].children[0], "node_id", 1 << 30
            ),
            "refers to object 1073741824",
        ),
    ],
)
def test_a_model_that_lies_is_refused(
    copy: Path, change: Callable[[Any], None], message: str
) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    path = copy / "saved_model.pb"
    model = saved_model_pb2.SavedModel()
    model.ParseFromString(path.read_bytes())
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(MalformedError, match=message):
        tf_saved_model.read(copy)


def test_functions_that_call_themselves_end() -> None:
    from tensorflow.core.framework import graph_pb2

    from kerasport.readers.tf_graph import graph_of

    graph = graph_pb2.GraphDef()
    function = graph.library.function.add()
    function.signature.name = "f"
    function.signature.input_arg.add(name="x")
    call = function.node_def.add(name="call", op="PartitionedCall", input=["x"])
    call.attr["f"].func.name = "f"
    outer = graph.node.add(name="outer", op="PartitionedCall", input=["w"])
    outer.attr["f"].func.name = "f"
    found = graph_of(graph.SerializeToString(), where="test")
    assert found.meanings([("w", 4)]) == {}


def test_functions_that_call_two_others_each_are_asked_once() -> None:
    """Forty floors of two functions each: asked anew for each way, it would take years."""
    from tensorflow.core.framework import graph_pb2

    from kerasport.readers.tf_graph import graph_of

    graph = graph_pb2.GraphDef()

    def call(where: Any, name: str, of: str, source: str) -> None:
        node = where.add(name=name, op="PartitionedCall", input=[source])
        node.attr["f"].func.name = of

    for floor in range(40):
        for side in "ab":
            function = graph.library.function.add()
            function.signature.name = f"{side}{floor}"
            function.signature.input_arg.add(name="x")
            for other in "ab":
                if floor < 39:
                    call(function.node_def, other, f"{other}{floor + 1}", "x")
                else:
                    function.node_def.add(name=f"c{other}", op="Conv2D", input=["i", "x"])
    call(graph.node, "start", "a0", "w")
    found = graph_of(graph.SerializeToString(), where="test")
    assert found.meanings([("w", 4)]) == {"w": ("kernel", "Conv2D")}


# ---- the corpus


def test_dtln_equals_its_hdf5_twin(corpus: Path) -> None:
    folder = corpus / "dtln" / "dtln_saved_model"
    snapshot = tf_saved_model.read(folder)
    assert_complete(snapshot, folder)
    found = identify(snapshot)
    assert all(layer.kind for layer in found.layers)
    expected = by_name(corpus / "dtln" / "model.h5")
    assert len(expected) == 20
    for name, array in expected.items():
        # The two files were saved by two runs, which numbered their layers on.
        twins = [
            tensor
            for layer in found.layers
            for role, tensor in layer.weights.items()
            if role == name.rpartition("/")[2] and np.array_equal(tensor.numpy(), array)
        ]
        assert len(twins) == 1, name
    assert sum(len(layer.weights) for layer in found.layers) == 20


def test_basic_pitch_is_read_though_tensorflow_cannot_load_it(corpus: Path) -> None:
    import onnx
    from onnx import numpy_helper

    folder = corpus / "basic_pitch" / "nmp"
    snapshot = tf_saved_model.read(folder)
    assert_complete(snapshot, folder)
    found = identify(snapshot)
    assert all(layer.kind for layer in found.layers)
    assert {"optimizer state", "metric state"} < reasons(snapshot)
    kept, folded = set(), set()
    graph = onnx.load(corpus / "basic_pitch" / "port" / "nmp.onnx").graph
    theirs = [numpy_helper.to_array(i) for i in graph.initializer]
    ours = {name: tensor.numpy() for name, tensor in plan(found, to="onnx").apply().items()}
    for name, array in ours.items():
        if any(i.shape == array.shape and np.array_equal(i, array) for i in theirs):
            kept.add(name)
    plain = ("contours-reduced", "conv2d_2", "conv2d_3", "conv2d_5")
    assert kept == {f"{layer}.{name}" for layer in plain for name in "WB"}
    # The exporter folded a BatchNormalization into each of the other two, and took the first apart.
    for conv, norm in (
        ("conv2d_1", "batch_normalization_2"),
        ("conv2d_4", "batch_normalization_3"),
    ):
        scale, shift, mean, variance = (
            ours[f"{norm}.{name}"] for name in ("scale", "B", "input_mean", "input_var")
        )
        factor = scale / np.sqrt(variance + found[norm].config["epsilon"])
        kernel = ours[f"{conv}.W"] * factor[:, None, None, None]
        bias = (ours[f"{conv}.B"] - mean) * factor + shift
        for array in (kernel, bias):
            assert any(
                i.shape == array.shape and np.allclose(i, array, rtol=1e-4, atol=1e-6)
                for i in theirs
            )
        folded |= {conv, norm}
    assert set(found) == {*plain, *folded, "batch_normalization"}


# ---- frozen graphs


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A graph frozen by TensorFlow 2, and the weights of the model that it was made of."""
    import tensorflow as tf
    import tf_keras
    from tensorflow.python.framework import convert_to_constants

    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.InputLayer((13, 11, 2)),
            layers.Conv2D(5, (3, 2), dilation_rate=2, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.DepthwiseConv2D((2, 3), depth_multiplier=3, name="deep"),
            layers.Conv2DTranspose(7, (2, 3), name="up"),
            layers.Reshape((-1, 7)),
            layers.Conv1D(5, 3, name="line"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(11, name="dense"),
        ],
        name="m",
    )
    for number, variable in enumerate(model.variables):
        variable.assign(abs(numbers(tuple(variable.shape), seed=number)))

    def run(inputs: Any) -> Any:
        return model(inputs)

    spec = tf.TensorSpec((None, 13, 11, 2))
    function = tf.function(run).get_concrete_function(spec)
    graph = convert_to_constants.convert_variables_to_constants_v2(function).graph
    path = tmp_path_factory.mktemp("frozen") / "graph.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path, {v.name.removesuffix(":0"): v.numpy() for v in model.variables}


def test_constants_of_a_frozen_graph_become_layers(frozen: tuple[Path, dict[str, Any]]) -> None:
    path, variables = frozen
    assert tf_frozen.matches(path)
    found = identify(tf_frozen.read(path))
    assert kinds(found) == {
        "m/conv": "Conv2D",
        "m/norm": "BatchNormalization",
        "m/deep": "DepthwiseConv2D",
        "m/up": "Conv2DTranspose",
        "m/line": "Conv1D",
        "m/dense": "Dense",
    }
    names = {"deep/kernel": "deep/depthwise_kernel"}
    weights = {
        f"{layer.path.removeprefix('m/')}/{role}": tensor.numpy()
        for layer in found.layers
        for role, tensor in layer.weights.items()
    }
    assert {names.get(name, name) for name in weights} == set(variables)
    for name, array in weights.items():
        np.testing.assert_array_equal(array, variables[names.get(name, name)], err_msg=name)


@pytest.mark.filterwarnings("ignore")  # the cells say that they are deprecated
@pytest.mark.parametrize("resource", [False, True], ids=["reference", "resource"])
def test_a_frozen_graph_of_tensorflow_1_has_the_layers_of_its_checkpoint(
    resource: bool, tmp_path: Path
) -> None:
    """Its scopes of variables, though the operations stand in others, as those of TF-Slim do."""
    import tensorflow as tf
    from tf_keras.src.layers.rnn import legacy_cells

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session() as session:
        x = v1.placeholder(tf.float32, (2, 9, 9, 3))
        with v1.variable_scope("Net", use_resource=resource), tf.name_scope("Mixed"):
            kernel = v1.get_variable("Conv/weights", (3, 2, 3, 5))
            bias = v1.get_variable("Conv/biases", (5,))
            y = tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME", name="other"), bias)
        y = tf.reduce_mean(y, 1)
        cells = {
            "rnn/gru_cell": legacy_cells.GRUCell(4, name="gru_cell"),
            "rnn/lstm_cell": legacy_cells.LSTMCell(6, name="lstm_cell"),
        }
        with v1.variable_scope("rnn"):
            for cell in cells.values():
                state = cell.zero_state(2, tf.float32)
                steps = []
                for step in tf.unstack(y, axis=1):
                    made, state = cell(step, state)
                    steps.append(made)
                y = tf.stack(steps, 1)
        last = v1.get_variable("dense/kernel", (6, 7))
        last = tf.matmul(tf.reduce_mean(y, 1), last, name="loop/while/product")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"), write_meta_graph=False)
        kept = v1.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), [last.op.name]
        )
    (tmp_path / "frozen.pb").write_bytes(kept.SerializeToString())
    frozen = identify(tf_frozen.read(tmp_path / "frozen.pb"))
    stored = {
        layer.path: {t.name: t.numpy() for t in layer.weights.values()}
        for layer in kerasport.read(tmp_path / "model.ckpt.index").layers
    }
    assert kinds(frozen) == {
        "Net/Conv": "Conv2D",
        "dense": "Dense",
        "rnn/gru_cell": "GRUResetBefore",
        "rnn/lstm_cell": "LSTM",
    }
    assert set(stored) == set(kinds(frozen))
    for layer in frozen.layers:
        weights = {t.name: t.numpy() for t in layer.weights.values()}
        assert set(weights) == set(stored[layer.path])
        for name, array in weights.items():
            np.testing.assert_array_equal(array, stored[layer.path][name], err_msg=name)


def test_a_bias_that_keras_3_reshapes_before_it_is_added_is_one(tmp_path: Path) -> None:
    """It writes `reshape(bias, (1, 1, 1, 5))`, which TensorFlow squeezes for its own addition."""
    import keras
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((13, 11, 2)),
            layers.Conv2D(5, (3, 2), name="conv"),
            layers.DepthwiseConv2D((2, 3), depth_multiplier=3, name="deep"),
            layers.Conv2DTranspose(7, (2, 3), name="up"),
        ],
        name="m",
    )
    for number, variable in enumerate(model.variables):
        variable.assign(numbers(tuple(variable.shape), seed=number))
    spec = tf.TensorSpec((None, 13, 11, 2))
    function = tf.function(lambda inputs: model(inputs)).get_concrete_function(spec)
    graph = convert_to_constants.convert_variables_to_constants_v2(function).graph
    path = tmp_path / "graph.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    found = identify(tf_frozen.read(path))
    assert [layer.kind for layer in found.layers] == [
        "Conv2D",
        "DepthwiseConv2D",
        "Conv2DTranspose",
    ]
    for layer, made in zip(found.layers, model.layers, strict=True):
        assert list(layer.weights) == ["kernel", "bias"]
        for tensor, array in zip(layer.weights.values(), made.get_weights(), strict=True):
            np.testing.assert_array_equal(tensor.numpy(), array)


def test_every_constant_of_a_frozen_graph_is_placed_or_listed(
    frozen: tuple[Path, dict[str, Any]],
) -> None:
    from tensorflow.core.framework import graph_pb2

    path, _ = frozen
    graph = graph_pb2.GraphDef()
    graph.ParseFromString(path.read_bytes())
    constants = sorted(node.name for node in graph.node if node.op == "Const")
    snapshot = tf_frozen.read(path)
    places = [*snapshot.tensors, *(o.tensor for o in snapshot.omitted)]
    assert sorted(t.stored for t in places) == constants


def graph_of(**consts: Any) -> Any:
    """A graph of TensorFlow 1 with these constants, through its own operations."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        for name, value in consts.items():
            tf.constant(value, name=name)
        return graph.as_graph_def()


def test_constants_of_all_forms_have_the_values_that_tensorflow_sees(tmp_path: Path) -> None:
    """Raw bytes, lists of numbers, and one number for all, in every dtype with a fraction."""
    from tensorflow.core.framework import graph_pb2
    from tensorflow.python.framework import tensor_util

    graph = graph_pb2.GraphDef()
    expected = {}
    dtypes = ("float32", "float64", "float16", "bfloat16", "complex64", "float8_e5m2")
    for dtype in dtypes:
        for form, shape in (("bytes", (3, 5)), ("list", (1,)), ("one", (7, 11))):
            values = numbers(shape, dtype)
            if form == "one":
                values = np.full(shape, values.ravel()[0])
            proto = tensor_util.make_tensor_proto(values)
            if form == "one":
                single = tensor_util.make_tensor_proto(values.ravel()[:1])
                single.tensor_shape.CopyFrom(proto.tensor_shape)
                proto = single
            node = graph.node.add(name=f"{dtype}/{form}", op="Const")
            node.attr["value"].tensor.CopyFrom(proto)
            node.attr["dtype"].type = proto.dtype
            expected[node.name] = tensor_util.MakeNdarray(proto)
    path = tmp_path / "graph.pb"
    path.write_bytes(graph.SerializeToString())
    found = {tensor.stored: tensor.numpy() for tensor in tf_frozen.read(path).tensors}
    assert set(found) == set(expected)
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_operations_that_contradict_each_other_say_nothing(tmp_path: Path) -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, (2, 7, 11, 5))
        kernel = tf.constant(numbers((3, 2, 5, 5)), name="a/kernel")
        tf.nn.conv2d_transpose(tf.nn.conv2d(image, kernel, 1, "SAME"), kernel, image.shape, 1)
        matrix = tf.constant(numbers((7, 3)), name="b/matrix")
        tf.matmul(tf.ones((2, 3)), matrix, transpose_b=True, name="b/product")
        twice = tf.constant(numbers((5, 3)), name="c/matrix")
        tf.matmul(tf.ones((2, 5)), twice, name="c/product")
        tf.matmul(tf.ones((3, 5)), twice, name="d/product")
    path = tmp_path / "graph.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    found = identify(tf_frozen.read(path))
    assert found["a"].kind is None
    assert list(found["b"].weights) == ["weight"]
    assert found["b"].kind is None, "its axes are the other way around"
    assert found["c"].kind == "Dense"
    assert "d" not in list(found)


def test_a_graph_that_still_has_variables_says_where_they_are(made: Path, tmp_path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    model.ParseFromString((made / "one" / "saved_model.pb").read_bytes())
    graph = model.meta_graphs[0].graph_def
    for node in [n for n in graph.node if n.op == "Const"]:
        graph.node.remove(node)
    path = tmp_path / "graph.pb"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(UnknownFormatError, match="its 6 variables are in a checkpoint"):
        tf_frozen.read(path)


def test_other_files_are_no_graphs(made: Path, tmp_path: Path) -> None:
    files = [made / "one" / "saved_model.pb", FIXTURES / "cnn.keras", FIXTURES / "cnn.legacy.h5"]
    (tmp_path / "text.pb").write_bytes(b"\x0a\x05hello\x12\x02hi")
    (tmp_path / "empty.pb").write_bytes(b"")
    for path in (*files, tmp_path / "text.pb", tmp_path / "empty.pb", tmp_path):
        assert not tf_frozen.matches(path), path
        with pytest.raises(KerasportError):
            tf_frozen.read(path)
    assert not tf_saved_model.matches(tmp_path / "text.pb")


def _values(**fields: Any) -> Callable[[Any], None]:
    def change(tensor: Any) -> None:
        tensor.ClearField("tensor_content")
        for name, value in fields.items():
            if name == "size":
                tensor.tensor_shape.dim[0].size = value
            elif isinstance(value, list):
                getattr(tensor, name).extend(value)
            else:
                setattr(tensor, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_values(tensor_content=b"\0" * 13), "13 bytes cannot be float32"),
        (_values(float_val=[0.0] * 16), "16 values for float32"),
        (_values(float_val=[1.0], size=1 << 40), r"announces float32\[1099511627776, 5\]"),
        (_values(size=-1), "expected a known shape"),
        (_values(size=1 << 61), "a shape of absurd size"),
        (_values(dtype=77), "expected a dtype of TensorFlow, found number 77"),
        (_values(dtype=0), "expected a dtype of TensorFlow, found number"),
    ],
)
def test_a_constant_that_lies_is_refused(
    tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    path = tmp_path / "graph.pb"
    graph = graph_of(x=numbers((3, 5)))
    path.write_bytes(graph.SerializeToString())
    assert len(tf_frozen.read(path)) == 1
    change(graph.node[0].attr["value"].tensor)
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(MalformedError, match=message):
        tf_frozen.read(path)


def test_constants_without_values_and_circles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.pb"
    graph = graph_of(x=numbers((3, 5)))
    for name, source in (("a", "b"), ("b", "a")):
        graph.node.add(name=name, op="Identity", input=[source])
    graph.node.add(name="c", op="MatMul", input=["x", "a"])
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(MalformedError, match="in a circle"):
        tf_frozen.read(path)
    graph = graph_of(x=numbers((3, 5)))
    del graph.node[0].attr["value"]
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(MalformedError, match="a constant without a value"):
        tf_frozen.read(path)


def test_a_truncated_graph_is_refused(frozen: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    whole = frozen[0].read_bytes()
    path = tmp_path / "graph.pb"
    for size in range(100, len(whole), len(whole) // 20):
        path.write_bytes(whole[:size])
        with pytest.raises((MalformedError, UnknownFormatError)):
            tf_frozen.read(path)
