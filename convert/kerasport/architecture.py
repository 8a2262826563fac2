"""A Keras configuration as a graph of layers: names, classes, inputs, nesting.

Three generations of Keras wrote three dialects of one thing, and every later stage wants the same
answers: which layers are there, in what order, who feeds whom, what is a model inside a model. So
the dialects end here. Nothing in a configuration is ever run: a Lambda's marshalled code, an
initializer's name, a registered class are data, and stay in `Node.config` as they came.

A configuration comes from strangers. It is walked with an explicit depth limit, names must be
unique within their model, references must lead somewhere and must not lead back.

A class is Keras's own only if the configuration says that it comes from a module of Keras, or says
nothing about modules, as older files do. A user's class carries the name it was registered under,
`package>Name`; one that was never registered gets `Custom>Name`, which is the name that Keras's own
decorator would have given it. So a user's class called Dense is never taken for Keras's.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeGuard

from kerasport.errors import MalformedError, UsageError

__all__ = [
    "FLAGLESS",
    "Graph",
    "Leaf",
    "Node",
    "Ref",
    "both",
    "class_of",
    "config_of",
    "json_config",
    "parse",
    "snake_case",
]

JSON = Any

MAX_DEPTH: Final = 64
"""How many models may lie inside one another, and how deep one call's arguments may nest."""

MAX_NODES: Final = 200_000
"""How many layers a configuration may list in all."""

MAX_JSON: Final = 256 << 20
"""How many bytes of configuration are read."""

FLAGLESS: Final = frozenset(
    {
        "Discretization",
        "HashedCrossing",
        "InputLayer",
        "Pipeline",
        "SpatialDropout1D",
        "SpatialDropout2D",
        "SpatialDropout3D",
    }
)
"""The layers of Keras 3 whose configurations do not say whether they train."""

_CHAINS: Final = frozenset({"Pipeline", "Sequential"})
"""Classes whose layers feed one another in turn; how others use a list of layers is not known."""

_KERAS_MODULES: Final = re.compile(r"(tensorflow\.python\.|tensorflow\.|tf\.)?(tf_)?keras(\.|$)")


class Ref(NamedTuple):
    """One output tensor of one call of a layer."""

    layer: str
    call: int
    tensor: int


@dataclass(frozen=True)
class Node:
    """One layer of a model.

    Attributes:
        name: its name, unique within its model.
        class_name: its class; a user's own class has a `>` in it.
        type_name: the bare name of its Python class, which Keras 3 numbers stored groups by.
        config: its configuration.
        module: the Python module of its class, or None where the configuration does not say.
        registered_name: the name its class was registered under, or None.
        inputs: the tensors that each call of it takes, one tuple a call.
        calls: the arguments of each call, as the configuration writes them; empty in a Sequential.
        build: what Keras needs to build it again, mostly its input shape, or None.
        graph: the model that it is, or that it wraps, or None.
        wrapped: how many wrappers are around that model: 0 where the node is the model itself, 1
            for TimeDistributed(model).
        same_as: the path of the layer that this very same object appeared as before, or None.
    """

    name: str
    class_name: str
    type_name: str
    config: Mapping[str, JSON]
    module: str | None = None
    registered_name: str | None = None
    inputs: tuple[tuple[Ref, ...], ...] = ()
    calls: tuple[JSON, ...] = ()
    build: Mapping[str, JSON] | None = None
    graph: Graph | None = None
    wrapped: int = 0
    same_as: str | None = None

    @property
    def custom(self) -> bool:
        """Whether its class is a user's own."""
        return ">" in self.class_name

    @property
    def operation(self) -> bool:
        """Whether it is an operation of `keras.ops`, of which some have the names of layers.

        The module says so; Keras 3 leaves it out of legacy HDF5 files. There an operation is told
        by its call, which is written as those of Keras 3 are, and by what it is not: a layer writes
        whether it trains (`keras.Layer.get_config`), no operation does (`keras.Operation`). The few
        layers that leave it out are known by their names (`FLAGLESS`).
        """
        if self.module is not None:
            return ".ops." in f"{self.module}."
        called = any(isinstance(call, Mapping) and "args" in call for call in self.calls)
        return called and "trainable" not in self.config and self.class_name not in FLAGLESS

    @property
    def trainable(self) -> bool | None:
        """The flag of its configuration, or None where there is none."""
        return _flag(self.config.get("trainable"))


class Leaf(NamedTuple):
    """A layer that is no model, with its path and whether it and all models around it train."""

    path: str
    node: Node
    trainable: bool | None


@dataclass(frozen=True)
class Graph:
    """One model: its layers in model order, and how they are wired.

    Attributes:
        name: the model's name.
        class_name: `Sequential`, `Functional`, `Model`, or a user's class.
        nodes: its layers. A Sequential's first layer takes the model's input and has no `inputs`
            where the configuration has no InputLayer. Nor has any layer of a class of a user's own
            that merely lists its layers.
        inputs: the tensors that go in.
        outputs: the tensors that come out.
        trainable: the flag of its configuration, or None where there is none.
    """

    name: str
    class_name: str
    nodes: tuple[Node, ...]
    inputs: tuple[Ref, ...] = ()
    outputs: tuple[Ref, ...] = ()
    trainable: bool | None = None

    def leaves(self) -> Iterator[Leaf]:
        """Each layer that is no model, in model order.

        >>> dense = {"class_name": "Dense", "config": {"name": "d"}}
        >>> [leaf.path for leaf in parse({"class_name": "Sequential", "config": [dense]}).leaves()]
        ['d']
        """
        stack: list[tuple[str, bool | None, Iterator[Node]]] = [
            ("", self.trainable, iter(self.nodes))
        ]
        while stack:
            prefix, flag, nodes = stack[-1]
            node = next(nodes, None)
            if node is None:
                stack.pop()
                continue
            path, trainable = prefix + node.name, both(flag, node.trainable)
            if node.graph is None:
                yield Leaf(path, node, trainable)
            else:
                trainable = both(trainable, node.graph.trainable)
                stack.append((f"{path}/", trainable, iter(node.graph.nodes)))


def both(outer: bool | None, inner: bool | None) -> bool | None:
    """Whether two flags allow training; None where neither says so and neither forbids it.

    >>> both(True, False), both(True, None), both(None, None)
    (False, True, None)
    """
    if outer is False or inner is False:
        return False
    return inner if outer is None else outer


def snake_case(name: str) -> str:
    """A class name as Keras turns it into the stem of a layer's name.

    >>> snake_case("Conv2DTranspose"), snake_case("LSTM"), snake_case("BatchNormalization")
    ('conv2d_transpose', 'lstm', 'batch_normalization')
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def parse(config: Mapping[str, JSON]) -> Graph | None:
    """The graph of a whole model's configuration.

    >>> dense = {"class_name": "Dense", "config": {"name": "first", "units": 3}}
    >>> graph = parse({"class_name": "Sequential", "config": {"name": "m", "layers": [dense]}})
    >>> [(node.name, node.class_name) for node in graph.nodes]
    [('first', 'Dense')]

    Args:
        config: what `config.json` or the attribute `model_config` holds.

    Returns:
        The graph, or None for a model of a class of its own whose configuration lists no layers.

    Raises:
        MalformedError: it contradicts itself, runs in a circle, or is too deep or too large.
    """
    return _Parser().graph(config, path="", depth=0)


def json_config(path: Path) -> Mapping[str, JSON]:
    """The configuration in a JSON file, as `model.to_json()` gives it.

    Args:
        path: the file.

    Raises:
        UsageError: there is no such file.
        MalformedError: it holds no configuration of a model.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_JSON + 1)
    except OSError as error:
        raise UsageError(f"{path}: expected a readable file, found: {error.strerror}") from None
    return config_of(text, path.name)


def config_of(text: bytes | str, where: str) -> Mapping[str, JSON]:
    """The configuration that a text in JSON holds, if it is safe to work with.

    NaN and Infinity are no JSON, but Python writes them and some layers have them (a mask value):
    they are kept as the words, so that no number downstream is one by surprise.

    >>> config_of('{"class_name": "Dense", "config": {"rate": NaN}}', "model.json")["config"]
    {'rate': 'NaN'}

    Args:
        text: the text, in UTF-8 where it is bytes.
        where: what it is called in errors.

    Raises:
        MalformedError: it is no JSON object, too large, too deep, or says a thing twice.
    """
    if len(text) > MAX_JSON:
        raise MalformedError(f"{where}: expected a configuration of at most {MAX_JSON >> 20} MiB")
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=str)
    except RecursionError:
        raise MalformedError(f"{where}: the configuration nests too deep") from None
    except ValueError as error:  # also UnicodeDecodeError, JSONDecodeError and huge integers
        raise MalformedError(f"{where}: expected a configuration in JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("class_name"), str):
        raise MalformedError(f"{where}: expected the configuration of a model, with a class_name")
    return found


def _once(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"repeated: {', '.join(sorted(_repeated(key for key, _ in pairs))[:5])}")
    return found


class _Parser:
    """Parses one configuration; remembers which layers it has seen."""

    def __init__(self) -> None:
        self.count = 0
        self.nameless = 0
        self.objects: dict[JSON, str] = {}
        self.plain: dict[tuple[str, str], str] = {}

    def graph(self, entry: JSON, *, path: str, depth: int) -> Graph | None:
        where = f"model {path.rstrip('/')}".rstrip()
        if not isinstance(entry, Mapping) or not isinstance(entry.get("class_name"), str):
            return None
        inner = entry.get("config")
        layers = inner.get("layers") if isinstance(inner, Mapping) else inner
        if not _is_layers(layers):
            return None
        if depth > MAX_DEPTH:
            raise MalformedError(f"{where[:200]}: more than {MAX_DEPTH} models inside one another")
        config: Mapping[str, JSON] = inner if isinstance(inner, Mapping) else {}
        class_name, bare = class_of(entry)
        name = _text(config.get("name")) or snake_case(bare)
        nodes = tuple(self.node(layer, path=path, depth=depth) for layer in layers)
        repeated = sorted(_repeated(node.name for node in nodes))
        if repeated:
            shown = ", ".join(map(repr, repeated[:5]))
            raise MalformedError(f"{where}: the configuration names more than one layer {shown}")
        trainable = _flag(config.get("trainable"))
        graph = Graph(name, class_name, nodes, trainable=trainable)
        wiring = [layer.get("inbound_nodes") for layer in layers]
        if "output_layers" in config or any(wiring):
            return _wired(graph, wiring, config, where)
        return _chained(graph) if bare in _CHAINS else graph

    def node(self, entry: Mapping[str, JSON], *, path: str, depth: int) -> Node:
        self.count += 1
        if self.count > MAX_NODES:
            raise MalformedError(f"the configuration lists more than {MAX_NODES} layers")
        class_name, bare = class_of(entry)
        config = entry.get("config")
        settings: Mapping[str, JSON] = config if isinstance(config, Mapping) else {}
        name = _text(entry.get("name")) or _text(settings.get("name"))
        if name is None and isinstance(config, list):  # a Sequential of Keras 1 inside a model
            self.nameless += 1
            name = f"{snake_case(bare)}_{self.nameless}"
        if name is None:
            raise MalformedError(f"model {path}: a layer of class {bare} has no name")
        same_as = self.same_as(entry, path=path + name, class_name=class_name, name=name)
        graph, wrapped = self.inside(entry, path=f"{path}{name}/", depth=depth)
        build = entry.get("build_config")
        return Node(
            name=name,
            class_name=class_name,
            type_name=bare,
            config=settings,
            module=_text(entry.get("module")),
            registered_name=_text(entry.get("registered_name")),
            build=build if isinstance(build, Mapping) else None,
            graph=graph,
            wrapped=wrapped,
            same_as=same_as,
        )

    def same_as(
        self, entry: Mapping[str, JSON], *, path: str, class_name: str, name: str
    ) -> str | None:
        """Where the very same object appeared before.

        Keras numbers objects that appear more than once. tf.keras up to 2.12 writes the number
        each time; later ones, which are known by their `module` words, leave it out the first time.
        """
        number = entry.get("shared_object_id")
        if not isinstance(number, int):
            self.plain.setdefault((class_name, name), path)
            return None
        before = self.objects.get(number)
        if before is None and _names_modules(entry):
            before = self.plain.get((class_name, name))
        self.objects.setdefault(number, before or path)
        return before

    def inside(
        self, entry: Mapping[str, JSON], *, path: str, depth: int
    ) -> tuple[Graph | None, int]:
        """The model that an entry is or wraps, and through how many wrappers."""
        for wrapped in range(MAX_DEPTH):
            graph = self.graph(entry, path=path, depth=depth + 1)
            if graph is not None:
                return graph, wrapped
            config = entry.get("config")
            inner = config.get("layer") if isinstance(config, Mapping) else None
            if not isinstance(inner, Mapping):
                return None, 0
            entry = inner
        raise MalformedError(f"model {path[:200]}: more than {MAX_DEPTH} wrappers in one another")


def _names_modules(entry: Mapping[str, JSON]) -> bool:
    config = entry.get("config")
    values = config.values() if isinstance(config, Mapping) else ()
    return "module" in entry or any(isinstance(v, Mapping) and "module" in v for v in values)


def class_of(entry: Mapping[str, JSON]) -> tuple[str, str]:
    """The class that the tables know an entry by, and the bare name of its Python class.

    >>> class_of({"class_name": "Gated", "registered_name": "my_package>Gated"})
    ('my_package>Gated', 'Gated')
    """
    bare: str = entry["class_name"]
    registered = _text(entry.get("registered_name"))
    module = entry.get("module", "keras")
    if registered is not None and ">" in registered:
        return registered, bare
    if ">" in bare:  # files of Keras 2 put the registered name here
        return bare, bare.rsplit(">", 1)[-1]
    if isinstance(module, str) and _KERAS_MODULES.match(module):
        return bare, bare
    return f"Custom>{registered or bare}", bare


def _is_layers(layers: JSON) -> TypeGuard[list[Mapping[str, JSON]]]:
    return isinstance(layers, list) and all(
        isinstance(layer, Mapping) and isinstance(layer.get("class_name"), str) for layer in layers
    )


def _text(value: JSON) -> str | None:
    return value if isinstance(value, str) else None


def _flag(value: JSON) -> bool | None:
    return value if isinstance(value, bool) else None


def _repeated(names: Iterable[str]) -> set[str]:
    return {name for name, count in Counter(names).items() if count > 1}


def _chained(graph: Graph) -> Graph:
    """A Sequential: each layer takes what the one before it gives."""
    nodes: list[Node] = []
    for node in graph.nodes:
        before = (Ref(nodes[-1].name, 0, 0),) if nodes else ()
        nodes.append(replace(node, inputs=(before,)))
    first = graph.nodes[:1]
    given = first and first[0].type_name == "InputLayer"
    return replace(
        graph,
        nodes=tuple(nodes),
        inputs=(Ref(first[0].name, 0, 0),) if given else (),
        outputs=(Ref(nodes[-1].name, 0, 0),) if nodes else (),
    )


def _wired(graph: Graph, wiring: list[JSON], config: Mapping[str, JSON], where: str) -> Graph:
    """A Functional model: who feeds whom is written with each layer."""
    names = {node.name for node in graph.nodes}
    calls = [_calls(entry, names, where) for entry in wiring]
    inputs = tuple(_refs(config.get("input_layers"), names, where))
    outputs = tuple(_refs(config.get("output_layers"), names, where))
    counts = {node.name: max(1, len(made)) for node, made in zip(graph.nodes, calls, strict=True)}
    highest = dict.fromkeys(counts, 0)
    for ref in (*inputs, *outputs, *(ref for made in calls for call in made for ref in call)):
        if ref.layer not in names:
            raise MalformedError(f"{where}: a layer takes its input from {ref.layer!r}, unknown")
        highest[ref.layer] = max(highest[ref.layer], ref.call)
    # Keras 2 counts a nested model's making of itself as its call 0, and does not write it down.
    shift = {
        node.name: 1
        for node in graph.nodes
        if node.graph is not None and highest[node.name] == counts[node.name]
    }

    def settled(refs: Iterable[Ref]) -> tuple[Ref, ...]:
        moved = [Ref(r.layer, max(0, r.call - shift.get(r.layer, 0)), r.tensor) for r in refs]
        for ref in moved:
            if ref.call >= counts[ref.layer]:
                raise MalformedError(
                    f"{where}: {ref.layer!r} is called {counts[ref.layer]} times, "
                    f"and the output of call {ref.call} is used"
                )
        return tuple(moved)

    nodes = tuple(
        replace(node, inputs=tuple(settled(call) for call in made), calls=tuple(written or ()))
        for node, made, written in zip(graph.nodes, calls, wiring, strict=True)
    )
    _check_acyclic(nodes, where)
    return replace(graph, nodes=nodes, inputs=settled(inputs), outputs=settled(outputs))


def _check_acyclic(nodes: Sequence[Node], where: str) -> None:
    """Sort the calls topologically; what is left over runs in a circle."""
    waits: dict[tuple[str, int], int] = {}
    feeds: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for node in nodes:
        for number, call in enumerate(node.inputs):
            waits[node.name, number] = len(call)
            for ref in call:
                feeds.setdefault((ref.layer, ref.call), []).append((node.name, number))
    called = {name for name, _ in waits}
    ready = [call for call, count in waits.items() if not count]
    ready += [call for call in feeds if call[0] not in called]
    done = 0
    while ready:
        settled = ready.pop()
        done += settled in waits
        for fed in feeds.get(settled, ()):
            waits[fed] -= 1
            if not waits[fed]:
                ready.append(fed)
    if done < len(waits):
        stuck = sorted({name for (name, _), count in waits.items() if count})
        raise MalformedError(f"{where}: the layers feed themselves: {', '.join(stuck[:5])}")


def _calls(entry: JSON, names: set[str], where: str) -> tuple[tuple[Ref, ...], ...]:
    """The tensors that each call of one layer takes."""
    if entry is None:
        return ()
    if not isinstance(entry, list):
        raise MalformedError(f"{where}: inbound_nodes is no list")
    return tuple(tuple(_refs(call, names, where)) for call in entry)


def _refs(value: JSON, names: set[str], where: str) -> Iterator[Ref]:
    """All tensors in a call's arguments, in the order in which they stand there."""
    stack: list[tuple[JSON, int]] = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise MalformedError(f"{where}: the arguments of a call nest too deep")
        inside: Iterable[JSON] = ()
        if isinstance(item, Mapping):
            if item.get("class_name") == "__keras_tensor__":
                yield _history(item, where)
            else:
                inside = item.values()
        elif isinstance(item, list):
            if _is_ref(item, names):
                yield Ref(item[0], item[1], item[2])
                inside = item[3:4]
            elif item[:1] != ["_CONSTANT_VALUE"]:
                inside = item
            else:
                inside = item[3:4]
        stack.extend((part, depth + 1) for part in reversed(list(inside)))


def _is_ref(item: list[JSON], names: set[str]) -> bool:
    """Whether a list is `[layer, call, tensor]`, perhaps with keyword arguments behind.

    A list of that form whose first word names no layer is a wrong reference where it has keyword
    arguments; without them it may be any list of a user's.
    """
    return (
        len(item) in (3, 4)
        and isinstance(item[0], str)
        and item[0] != "_CONSTANT_VALUE"
        and all(isinstance(number, int) and 0 <= number < 1 << 31 for number in item[1:3])
        and (item[0] in names or (len(item) == 4 and isinstance(item[3], Mapping)))
    )


def _history(item: Mapping[str, JSON], where: str) -> Ref:
    config = item.get("config")
    history = config.get("keras_history") if isinstance(config, Mapping) else None
    if not (
        isinstance(history, list)
        and len(history) == 3
        and isinstance(history[0], str)
        and all(isinstance(number, int) and 0 <= number < 1 << 31 for number in history[1:])
    ):
        raise MalformedError(f"{where}: a tensor has no keras_history of layer, call and tensor")
    return Ref(history[0], history[1], history[2])
