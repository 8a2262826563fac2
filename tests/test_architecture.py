"""A configuration of any Keras becomes one graph; one that cannot be true is refused."""

from __future__ import annotations

import copy
import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

import readers_zoo as zoo
from kerasport.architecture import (
    MAX_DEPTH,
    Graph,
    Ref,
    config_of,
    json_config,
    parse,
    snake_case,
)
from kerasport.errors import MalformedError, UsageError

CORPUS = os.environ.get("KERASPORT_CORPUS")


def dense(name: str, **more: Any) -> dict[str, Any]:
    return {"class_name": "Dense", "config": {"name": name, "units": 3}, **more}


def after(*names: str) -> list[Any]:
    """How Keras 2 writes what one call takes."""
    return [[[name, 0, 0, {}] for name in names]]


def functional(*layers: dict[str, Any], outputs: list[Any] | None = None) -> dict[str, Any]:
    last = [layers[-1]["config"]["name"], 0, 0]
    config = {
        "name": "m",
        "layers": [{"inbound_nodes": [], **layer} for layer in layers],
        "input_layers": [["x", 0, 0]],
        "output_layers": outputs or [last],
    }
    return {"class_name": "Functional", "config": config}


def source(name: str = "x") -> dict[str, Any]:
    return {"class_name": "InputLayer", "config": {"name": name}}


def parsed(config: Any) -> Graph:
    graph = parse(config)
    assert graph is not None
    return graph


def from_live(library: str, name: str) -> tuple[Any, Graph]:
    k = zoo.library(library)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = zoo.MODELS[name](k)
        return model, parsed(json.loads(model.to_json()))


# ---- what Keras says -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", zoo.MODELS)
@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_layers_come_with_name_class_and_order_as_keras_has_them(library: str, name: str) -> None:
    model, graph = from_live(library, name)

    def compare(model: Any, graph: Graph) -> None:
        nodes = [node for node in graph.nodes if node.class_name != "InputLayer"]
        layers = [layer for layer in model.layers if type(layer).__name__ != "InputLayer"]
        assert [n.name for n in nodes] == [layer.name for layer in layers]
        for node, layer in zip(nodes, layers, strict=True):
            assert node.type_name == type(layer).__name__
            inner = layer if zoo.is_model(layer) else getattr(layer, "layer", None)
            if zoo.is_model(inner):
                assert node.graph is not None
                assert node.wrapped == (inner is not layer)
                compare(inner, node.graph)
            else:
                assert node.graph is None

    compare(model, graph)


def test_both_libraries_wire_one_model_alike() -> None:
    """Keras 2 counts a nested model's making as its call 0, Keras 3 does not."""
    for name in ("functional", "nested", "shared", "composite"):
        graphs = [from_live(library, name)[1] for library in ("keras", "tf_keras")]
        wirings = []
        for graph in graphs:
            places = {node.name: place for place, node in enumerate(graph.nodes)}
            wirings.append(
                [
                    # Keras 2 leaves out that attention takes its second input by name.
                    sorted({(places[ref.layer], ref.call, ref.tensor) for ref in call})
                    for node in graph.nodes
                    for call in node.inputs
                ]
            )
        assert wirings[0] == wirings[1], name


def test_a_shared_layer_has_a_call_for_each_use() -> None:
    k = zoo.library("keras")
    i = k.Input((5,), name="x")
    layer = k.layers.Dense(5, name="d")
    model = k.Model(i, k.layers.Add(name="sum")([layer(layer(i)), i]))
    graph = parsed(json.loads(model.to_json()))
    by_name = {node.name: node for node in graph.nodes}
    assert by_name["d"].inputs == ((Ref("x", 0, 0),), (Ref("d", 0, 0),))
    assert by_name["sum"].inputs == ((Ref("d", 1, 0), Ref("x", 0, 0)),)
    assert graph.inputs == (Ref("x", 0, 0),)
    assert graph.outputs == (Ref("sum", 0, 0),)


def test_an_operation_of_tensorflow_takes_tensors_by_keyword() -> None:
    k, tf = zoo.library("tf_keras"), zoo.library("tensorflow")
    i = k.Input((5,), name="x")
    a, b = k.layers.Dense(3, name="a")(i), k.layers.Dense(3, name="b")(i)
    model = k.Model(i, tf.math.multiply(tf.add(a, y=b), 2.0))
    graph = parsed(json.loads(model.to_json()))
    added, scaled = graph.nodes[-2:]
    assert added.inputs == ((Ref("a", 0, 0), Ref("b", 0, 0)),)
    assert scaled.inputs == ((Ref(added.name, 0, 0),),)


# ---- dialects by the letter ----------------------------------------------------------------------


def test_a_sequential_of_keras_1_is_a_bare_list() -> None:
    graph = parsed({"class_name": "Sequential", "config": [dense("a"), dense("b")]})
    assert [(n.name, n.inputs) for n in graph.nodes] == [
        ("a", ((),)),
        ("b", ((Ref("a", 0, 0),),)),
    ]
    assert (graph.inputs, graph.outputs) == ((), (Ref("b", 0, 0),))


def test_nameless_models_of_keras_1_are_told_apart() -> None:
    """A Merge holds models side by side: it is no chain."""
    branches = [{"class_name": "Sequential", "config": [dense(name)]} for name in "ab"]
    merge = {"class_name": "Merge", "config": {"name": "merge_1", "layers": branches}}
    graph = parsed({"class_name": "Sequential", "config": [merge, dense("c")]})
    assert [leaf.path for leaf in graph.leaves()] == [
        *("merge_1/sequential_1/a", "merge_1/sequential_2/b", "c"),
    ]
    inner = graph.nodes[0].graph
    assert inner is not None
    assert [node.inputs for node in inner.nodes] == [(), ()]


def test_how_a_users_model_wires_its_list_of_layers_is_not_guessed() -> None:
    config = {"name": "m", "layers": [dense("a"), dense("b")]}
    own = parsed({"module": "shop", "class_name": "Twins", "config": config})
    assert [node.inputs for node in own.nodes] == [(), ()]
    chain = parsed({"module": "keras", "class_name": "Sequential", "config": config})
    assert [node.inputs for node in chain.nodes] == [((),), ((Ref("a", 0, 0),),)]


def test_a_sequential_may_name_its_input() -> None:
    config = {"name": "s", "layers": [source(), dense("a")]}
    graph = parsed({"class_name": "Sequential", "config": config})
    assert graph.inputs == (Ref("x", 0, 0),)
    assert graph.nodes[1].inputs == ((Ref("x", 0, 0),),)


def test_a_model_without_layers_has_no_graph() -> None:
    assert parse({"class_name": "Net", "config": {"name": "net"}}) is None
    assert parse({"class_name": "Net", "config": None}) is None


def test_leaves_have_paths_and_know_what_forbids_training() -> None:
    inner = {
        "class_name": "Sequential",
        "config": {"name": "in", "trainable": False, "layers": [dense("a")]},
    }
    outer = {"class_name": "Sequential", "config": {"name": "out", "layers": [inner, dense("b")]}}
    leaves = list(parsed(outer).leaves())
    assert [(leaf.path, leaf.trainable) for leaf in leaves] == [("in/a", False), ("b", None)]


@pytest.mark.parametrize(
    ("entry", "class_name", "type_name"),
    [
        (dense("d"), "Dense", "Dense"),
        (dense("d", module="keras.layers", registered_name=None), "Dense", "Dense"),
        (dense("d", module="keras.src.layers", registered_name="Dense"), "Dense", "Dense"),
        (dense("d", module="tf_keras.layers"), "Dense", "Dense"),
        (dense("d", module=None, registered_name="Dense"), "Custom>Dense", "Dense"),
        (dense("d", module="shop", registered_name="Dense"), "Custom>Dense", "Dense"),
        (dense("d", module="keras_shop", registered_name="Dense"), "Custom>Dense", "Dense"),
        (dense("d", module="shop", registered_name="shop>Thick"), "shop>Thick", "Dense"),
        ({"class_name": "shop>Dense", "config": {"name": "d"}}, "shop>Dense", "Dense"),
    ],
)
def test_a_class_is_keras_own_only_if_it_comes_from_keras(
    entry: dict[str, Any], class_name: str, type_name: str
) -> None:
    (node,) = parsed({"class_name": "Sequential", "config": [entry]}).nodes
    assert (node.class_name, node.type_name) == (class_name, type_name)
    assert node.custom == (">" in class_name)


def test_an_object_that_appears_again_says_where_it_was() -> None:
    """tf.keras 2.5 numbers both appearances, later Keras the second one alone."""
    module = {"module": "keras.layers"}
    for first, second in (
        (dense("d", shared_object_id=7), dense("d", shared_object_id=7)),
        (dense("d", **module), dense("d", shared_object_id=7, **module)),
    ):
        inner = {"class_name": "Sequential", "config": {"name": "in", "layers": [first]}}
        graph = parsed({"class_name": "Sequential", "config": [inner, second]})
        assert [leaf.node.same_as for leaf in graph.leaves()] == [None, "in/d"]


def test_class_names_become_names_as_keras_makes_them() -> None:
    naming = zoo.library("keras").src.utils.naming
    for name in ("Conv2DTranspose", "LSTM", "BatchNormalization", "GRUCell", "MyRNN2D", "PReLU"):
        assert snake_case(name) == naming.to_snake_case(name)


def test_nothing_in_a_configuration_is_run() -> None:
    """A Lambda's code is data, whatever it is."""
    config = {"name": "l", "function": ["4wAAAA==\n", None, None], "function_type": "lambda"}
    layer = {"class_name": "Lambda", "config": config}
    (node,) = parsed({"class_name": "Sequential", "config": [layer]}).nodes
    assert node.config == config


@pytest.mark.skipif(CORPUS is None, reason="KERASPORT_CORPUS unset")
def test_every_configuration_of_the_corpus_has_a_graph() -> None:
    import h5py

    count = 0
    for path in sorted(Path(CORPUS or "").rglob("*.h*5")):
        with h5py.File(path) as file:
            text = file.attrs.get("model_config")
        if text is not None:
            assert parsed(config_of(text, path.name)).nodes
            count += 1
    assert count >= 40


# ---- what cannot be true -------------------------------------------------------------------------


def test_layers_that_feed_themselves_are_refused() -> None:
    good = functional(
        source(), dense("a", inbound_nodes=after("x")), dense("b", inbound_nodes=after("a"))
    )
    assert len(parsed(good).nodes) == 3
    bad = copy.deepcopy(good)
    bad["config"]["layers"][1]["inbound_nodes"] = after("b")
    with pytest.raises(MalformedError, match="feed themselves: a, b"):
        parse(bad)


def test_a_name_that_is_there_twice_is_refused() -> None:
    assert parsed({"class_name": "Sequential", "config": [dense("a"), dense("b")]})
    with pytest.raises(MalformedError, match="more than one layer 'a'"):
        parse({"class_name": "Sequential", "config": [dense("a"), dense("a")]})


def test_an_input_from_nowhere_is_refused() -> None:
    assert parsed(functional(source(), dense("a", inbound_nodes=after("x"))))
    with pytest.raises(MalformedError, match="input from 'y', unknown"):
        parse(functional(source(), dense("a", inbound_nodes=after("y"))))


def test_the_output_of_a_call_that_never_happens_is_refused() -> None:
    with pytest.raises(MalformedError, match="is called 1 times, and the output of call 5 is used"):
        parse(functional(source(), dense("a", inbound_nodes=[[["x", 5, 0, {}]]])))


def test_a_tensor_without_history_is_refused() -> None:
    tensor: dict[str, Any] = {
        "class_name": "__keras_tensor__",
        "config": {"keras_history": ["x", 0, 0]},
    }
    call: list[Any] = [{"args": [tensor], "kwargs": {}}]
    assert parsed(functional(source(), dense("a", inbound_nodes=call)))
    for history in (None, ["x", 0], ["x", "0", 0], ["x", -1, 0], [0, 0, 0]):
        broken = copy.deepcopy(call)
        broken[0]["args"][0]["config"]["keras_history"] = history
        with pytest.raises(MalformedError, match="keras_history"):
            parse(functional(source(), dense("a", inbound_nodes=broken)))


def nest(depth: int) -> dict[str, Any]:
    config: dict[str, Any] = {"class_name": "Sequential", "config": [dense("d")]}
    for level in range(depth):
        layers = [config]
        config = {"class_name": "Sequential", "config": {"name": f"m{level}", "layers": layers}}
    return config


def test_models_in_models_have_a_limit() -> None:
    assert len(list(parsed(nest(MAX_DEPTH)).leaves())) == 1
    with pytest.raises(MalformedError, match="inside one another"):
        parse(nest(MAX_DEPTH + 1))


def test_arguments_in_arguments_have_a_limit() -> None:
    def call(depth: int) -> list[Any]:
        argument: Any = ["x", 0, 0, {}]
        for _ in range(depth):
            argument = [argument]
        return [[argument]]

    assert parsed(functional(source(), dense("a", inbound_nodes=call(5))))
    with pytest.raises(MalformedError, match="nest too deep"):
        parse(functional(source(), dense("a", inbound_nodes=call(200))))


def test_wrappers_around_wrappers_have_a_limit() -> None:
    def wrap(depth: int) -> dict[str, Any]:
        entry = dense("d")
        for level in range(depth):
            entry = {
                "class_name": "TimeDistributed",
                "config": {"name": f"t{level}", "layer": entry},
            }
        return {"class_name": "Sequential", "config": [entry]}

    assert parsed(wrap(5)).nodes[0].graph is None
    with pytest.raises(MalformedError, match="wrappers in one another"):
        parse(wrap(MAX_DEPTH + 5))


def test_a_layer_without_a_name_is_refused() -> None:
    with pytest.raises(MalformedError, match="class Dense has no name"):
        parse({"class_name": "Sequential", "config": [{"class_name": "Dense", "config": {}}]})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "in JSON"),
        (b"[]", "with a class_name"),
        (b"{", "in JSON"),
        (b'{"class_name": 1}', "with a class_name"),
        (b'{"class_name": "A", "class_name": "B"}', "repeated: class_name"),
        (b'{"class_name": "A", "x": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", "nests too deep"),
        (b'{"class_name": "A", "x": ' + b"1" * 10**4 + b"}", "in JSON"),
        (b'{"class_name": "\xff"}', "in JSON"),
    ],
)
def test_a_text_that_is_no_configuration_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(MalformedError, match=reason) as error:
        config_of(text, "model.json")
    assert str(error.value).startswith("model.json: ")


def test_numbers_that_json_lacks_are_kept_as_words() -> None:
    """Python writes a Masking layer's NaN like this."""
    text = json.dumps({"class_name": "Masking", "config": {"mask_value": float("nan")}})
    assert config_of(text, "model.json")["config"]["mask_value"] == "NaN"


def test_a_configuration_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps({"class_name": "Sequential", "config": [dense("a")]}))
    assert [leaf.path for leaf in parsed(json_config(path)).leaves()] == ["a"]
    with pytest.raises(UsageError, match="expected a readable file"):
        json_config(tmp_path / "missing.json")
