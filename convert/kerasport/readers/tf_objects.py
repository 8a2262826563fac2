"""From a graph of objects to layers: which object is one, and which variables it holds.

TensorFlow 2 saves objects: a model has layers, a layer has variables, an optimizer has slots. The
edges have names, most of them those of Python attributes, and every variable also has the name that
it was made under. A SavedModel says in addition which objects are layers of Keras, of which class,
with which configuration. So layers are found by walking from the root, and nothing is taken from
the keys under which the values are stored: those are one spelling of one path of several.

What Keras adds to help itself (lists of all variables, of losses, of metrics) leads everywhere and
is followed last. The graph runs in circles, and may be hostile: every object is entered once.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from kerasport.architecture import Graph, Node, both
from kerasport.errors import MalformedError, UsageError
from kerasport.kinds import CLASSES
from kerasport.model import Tensor
from kerasport.readers.naming import Stored, named
from kerasport.readers.tf1_names import AVERAGE
from kerasport.readers.tf_bundle import Bundle, Entry
from kerasport.readers.tf_messages import OBJECT_GRAPH, OBJECT_REFERENCE
from kerasport.readers.tf_proto import Buffer, Message, decode

__all__ = ["GRAPH_KEY", "Described", "Object", "layers", "object_graph"]

GRAPH_KEY: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"

_VALUE: Final = "VARIABLE_VALUE"
# What an optimizer calls its moving averages: as slots, and as a list beside that of the variables.
_AVERAGE: Final = "average"
_AVERAGES: Final = "_model_variables_moving_average"
_TRAINED: Final = "_trainable_variables"
# A reference to an object below 2 ** 14 by a name of fewer than 128 bytes, as it is stored.
_PLAIN: Final = re.compile(
    rb"\x08([\x00-\x7f]|[\x80-\xff][\x00-\x7f])\x12([\x00-\x7f])(.*)", re.DOTALL
)
_LAYER: Final = re.compile(r"layer(?:_with_weights)?-(\d{1,18})$")
# Keras 3 keeps a Functional model's layers in one list, and a Sequential's in a model inside of it.
_OPERATIONS: Final = "_operations"
_INNER: Final = "_functional"
_OPTIMIZER: Final = re.compile(r"_?(optimizer|opt)(_\d+)?$|\w+_optimizer$")
_METRIC: Final = re.compile(r"_?(compiled?_)?(metrics|loss)$|_?loss_tracker$")
_SEED: Final = re.compile(r"_?(seed|random)_generators?(_state)?(_\d+)?$|StateVar(_\d+)?$")
_COUNTER: Final = re.compile(r"(save_counter|(global_|train_)?steps?|epochs?|iterations?)$")
_NAMELESS: Final = re.compile(r"Variable(_\d+)?$")
# What only an optimizer has for attributes.
_OF_OPTIMIZERS: Final = {"_iterations", "_index_dict", "_learning_rate", "iter"}
# Lists that Keras keeps of what is elsewhere too, and the root's name for itself.
_LAST: Final = frozenset(
    (
        *("keras_api", "variables", "trainable_variables", "non_trainable_variables"),
        *("_all_variables", "regularization_losses", "losses", "signatures", "serve", "root"),
    )
)
# Objects of these names are the parts of one layer of Keras, whatever its class.
_PARTS: Final = (
    {"cell", "cells"},
    {"layer"},
    {"forward_layer", "backward_layer"},
    {"query_dense", "key_dense", "value_dense", "output_dense"},
)
# What stands behind the key of a lookup table: it is two tensors.
_TABLE: Final = ("-keys", "-values")
_MAX_DEPTH: Final = 200


class Object(NamedTuple):
    """One object of the graph.

    Attributes:
        children: the objects it refers to, each with the name of the reference.
        values: its own values, each as (what it is, the variable's full name, its key).
        slots: the objects that hold an optimizer's state for some variable, each as (the variable,
            what the optimizer calls it, the object).
    """

    children: tuple[tuple[str, int], ...]
    values: tuple[tuple[str, str, str], ...] = ()
    slots: tuple[tuple[int, str, int], ...] = ()


class Described(NamedTuple):
    """What a SavedModel says of one object.

    Attributes:
        identifier: what sort of object it is, for example `_tf_keras_layer`.
        node: the layer of Keras that it is, or None.
        trainable: whether it is a variable that is trained, or a layer that trains.
    """

    identifier: str = ""
    node: Node | None = None
    trainable: bool | None = None


_NOTHING: Final = Described()


def object_graph(data: Buffer, *, where: str) -> tuple[Object, ...]:
    """The objects in a message, the root first.

    Args:
        data: the message.
        where: what is being read, for errors.

    Raises:
        MalformedError: it is none, or refers to objects that are not there.
    """
    nodes = decode(data, OBJECT_GRAPH, where=where)["nodes"]
    if not nodes:
        raise MalformedError(f"{where}: expected a graph of objects, found none")
    return tuple(_object(node, len(nodes), where=where) for node in nodes)


def _object(node: Message, count: int, *, where: str) -> Object:
    return Object(
        references(node, count, where=where),
        tuple((a["name"] or "", a["full_name"] or "", a["key"] or "") for a in node["attributes"])
        if node["attributes"]
        else (),
        tuple(
            (
                _within(slot["original_variable_node_id"], count, where=where),
                slot["slot_name"] or "",
                _within(slot["slot_variable_node_id"], count, where=where),
            )
            for slot in node["slots"]
        )
        if node["slots"]
        else (),
    )


def references(node: Message, count: int, *, where: str) -> tuple[tuple[str, int], ...]:
    """The children of a node in a message, all of which must be there.

    Args:
        node: the decoded node.
        count: how many nodes there are.
        where: what is being read, for errors.

    Raises:
        MalformedError: one is not there.
    """
    children = node["children"]
    return tuple(_reference(c, count, where=where) for c in children) if children else ()


def _reference(data: Buffer, count: int, *, where: str) -> tuple[str, int]:
    """One reference. Almost all have the same form, and they are most of what a graph has."""
    found = _PLAIN.fullmatch(data)
    if found is not None and found[2][0] == len(found[3]):
        low, high = found[1][0] & 0x7F, found[1][1] if len(found[1]) == 2 else 0
        number, name = low | high << 7, str(found[3], "utf-8", "surrogateescape")
    else:
        message = decode(data, OBJECT_REFERENCE, where=where)
        number, name = message["node_id"] or 0, message["local_name"] or ""
    return name, _within(number, count, where=where)


def _within(number: int | None, count: int, *, where: str) -> int:
    number = number or 0
    if not 0 <= number < count:
        raise MalformedError(f"{where}: refers to object {number}, and there are {count}")
    return number


def layers(
    bundle: Bundle,
    objects: Sequence[Object],
    *,
    name: str,
    described: Mapping[int, Described] | None = None,
    graph: Graph | None = None,
    given: bool = False,
) -> Stored:
    """The layers of a checkpoint with a graph of objects; every tensor has its place.

    Args:
        bundle: the tensors.
        objects: the graph.
        name: what to call the model, for variables that belong to no layer of it.
        described: what a SavedModel says of the objects.
        graph: the model's architecture, or None where it is not known.
        given: whether the architecture comes from elsewhere, and so may not fit.

    Raises:
        UsageError: a given architecture does not fit.
        MalformedError: the graph contradicts itself, or is too deep.
    """
    walk = _Walk(bundle, objects, name, described or {}, given)
    walk.start(graph)
    walk.finish(graph)
    return walk.stored.finished()


class _Variable(NamedTuple):
    """A value that was met: by which attributes, and what it is called."""

    path: tuple[str, ...]
    words: tuple[str, ...]
    tensor: Tensor


@dataclass(eq=False)
class _Walk:
    bundle: Bundle
    objects: Sequence[Object]
    name: str
    described: Mapping[int, Described]
    given: bool
    stored: Stored = field(default_factory=Stored)
    placed: set[str] = field(default_factory=set)
    entered: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.variables = {
            number: [
                self.bundle.entries[key]
                for what, _, key in thing.values
                if self.is_weight(what, key)
            ]
            for number, thing in enumerate(self.objects)
            if thing.values
        }
        self.slots = {slot for thing in self.objects for *_, slot in thing.slots}
        self.networks = {n for n in range(len(self.objects)) if self.is_network(n)}
        self.optimizers = set(self.sort_of(_OPTIMIZER, lambda n: self.is_optimizer(n)))
        self.metrics = set(self.sort_of(_METRIC, lambda n: "metric" in self.of(n).identifier))
        aside = self.optimizers | self.metrics
        # Layers of a model are its own, though another layer may refer to one of them too.
        self.claimed = {child for n in self.networks for _, child in self.layers_of(n)}
        self.holding = self.above(n for n, found in self.variables.items() if found) - aside
        self.around = self.above(self.networks)
        self.average_of = self.averages()

    # ---- what an object is

    def is_weight(self, what: str, key: str) -> bool:
        entry = self.bundle.entries.get(key)
        return what == _VALUE and entry is not None and entry.is_number

    def of(self, number: int) -> Described:
        return self.described.get(number, _NOTHING)

    def is_network(self, number: int) -> bool:
        sorts = ("_tf_keras_network", "_tf_keras_sequential")
        return self.of(number).identifier in sorts or any(
            _LAYER.match(name) or name in (_OPERATIONS, _INNER)
            for name, _ in self.objects[number].children
        )

    def is_optimizer(self, number: int) -> bool:
        thing = self.objects[number]
        names = {name for name, _ in thing.children}
        return bool(thing.slots) or len(_OF_OPTIMIZERS & names) > 1

    def sort_of(self, pattern: re.Pattern[str], test: Any) -> Iterator[int]:
        """The objects that a test finds, or that Keras's own objects refer to by such a name."""
        for number, thing in enumerate(self.objects):
            if test(number):
                yield number
            for name, child in thing.children:
                if (
                    pattern.match(name)
                    and child not in self.variables
                    and not self.is_network(child)
                ):
                    yield child

    def structure(self, number: int) -> Iterator[tuple[str, int]]:
        """The references that say what an object is made of."""
        return (pair for pair in self.objects[number].children if pair[0] not in _LAST)

    def layers_of(self, number: int) -> list[tuple[str, int]]:
        """The layers of a model in model order, each under its first name."""
        for _ in range(_MAX_DEPTH):
            inner = dict(self.objects[number].children)
            if _INNER not in inner:
                break
            number = inner[_INNER]
        order: dict[int, int] = {}
        names: dict[int, str] = {}
        references = self.objects[number].children
        if _OPERATIONS in inner:
            listed = self.objects[inner[_OPERATIONS]].children
            references = tuple((f"layer-{place}", child) for place, child in listed)
        for name, child in references:
            if found := _LAYER.match(name):
                names.setdefault(child, name)
                if name.startswith("layer-"):
                    order[child] = int(found[1])
        return [
            (names[child], child) for child in sorted(names, key=lambda c: order.get(c, 1 << 60))
        ]

    def above(self, numbers: Iterable[int]) -> set[int]:
        """These objects and all from which they can be reached."""
        parents: dict[int, list[int]] = {}
        for number in range(len(self.objects)):
            for _, child in self.structure(number):
                parents.setdefault(child, []).append(number)
        found = set(numbers)
        stack = list(found)
        while stack:
            for parent in parents.get(stack.pop(), ()):
                if parent not in found:
                    found.add(parent)
                    stack.append(parent)
        return found

    # ---- the structure

    def start(self, graph: Graph | None) -> None:
        flag = both(self.of(0).trainable, graph.trainable if graph else None)
        holders = [
            child
            for name, child in self.structure(0)
            if child in self.holding
            and (child not in self.variables or any(self.values(child, (name,), keep=False)))
        ]
        lonely = dict.fromkeys(holders)
        if 0 not in self.networks and len(lonely) == 1 and holders[0] in self.networks:
            # A checkpoint of one model: its layers are called as if it had been saved itself.
            self.entered.add(0)
            self.enter(holders[0], "", graph, flag, depth=0)
        else:
            self.enter(0, "", graph, flag, depth=0)

    def enter(
        self, number: int, path: str, graph: Graph | None, flag: bool | None, *, depth: int
    ) -> None:
        """An object that is no single layer: its own variables, then what it is made of."""
        if depth > _MAX_DEPTH:
            raise MalformedError(f"{path[:200]}: more than {_MAX_DEPTH} objects inside one another")
        self.entered.add(number)
        seen: set[int] = set()
        if number in self.networks:
            members = self.layers_of(number)
            for (attribute, child), node in zip(members, self.aligned(members, graph), strict=True):
                seen.add(child)
                self.member(child, path, attribute, node, flag, around=number, depth=depth)
        own = [
            variable
            for attribute, child in self.structure(number)
            for variable in self.values(child, (attribute,))
        ]
        self.add(path or self.name, own, node=self.of(number).node, flag=flag, layer=path)
        for attribute, child in self.structure(number):
            if child not in seen and child in self.holding and child not in self.entered:
                self.member(child, path, attribute, None, flag, around=number, depth=depth)

    def member(
        self,
        number: int,
        path: str,
        attribute: str,
        node: Node | None,
        flag: bool | None,
        *,
        around: int,
        depth: int,
    ) -> None:
        """One of the objects that another one is made of."""
        if number in self.entered or number not in self.holding or number in self.variables:
            return
        described = self.of(number)
        node = node or described.node
        flag = both(flag, both(described.trainable, node.trainable if node else None))
        own = self.gathered(number) if self.is_one(number, node) else None
        name = node.name if node else self.own_name(number, attribute, own)
        if node is not None and "wrapper" in self.of(around).identifier:
            path = path.rpartition("/")[0]  # a list of layers has no name in Keras
        if node is None:  # Keras 3 may put the names of models around a layer before its own
            name = name.removeprefix(f"{path.rpartition('/')[2]}/")
        where = f"{path}/{name}" if path else name
        if own is not None:
            self.add(where, own, node=node, flag=flag, layer=name)
            return
        inner = node.graph if node else None
        if node is not None and node.wrapped:
            # A wrapper around a model: the model's layers are called after the wrapper.
            self.entered.add(number)
            wrapped = [child for name, child in self.structure(number) if name == "layer"]
            for child in wrapped:
                self.enter(child, where, inner, flag, depth=depth + 1)
            return
        self.enter(number, where, inner, flag, depth=depth + 1)

    def is_one(self, number: int, node: Node | None) -> bool:
        """Whether an object with everything below it is one layer."""
        if number in self.around:
            return False
        if node is not None and not node.custom and node.class_name in CLASSES:
            return True
        parts = {
            name.lstrip("_")
            for name, child in self.structure(number)
            if child in self.holding and child not in self.variables
        }
        return any(parts <= known for known in _PARTS)

    def aligned(self, members: Sequence[tuple[str, int]], graph: Graph | None) -> list[Node | None]:
        """Which layer of the architecture each layer of a model is: by name, or by order."""
        found: list[Node | None] = [self.of(child).node for _, child in members]
        if graph is None:
            return found
        names = [self.known_name(child) for _, child in members]
        nodes = [node for node in graph.nodes if node.same_as is None]
        for some in (nodes, [node for node in nodes if node.type_name != "InputLayer"]):
            pairs = list(zip(names, some, strict=False))
            if len(some) == len(members) and all(_is_called(n, node) for n, node in pairs):
                return list(some)
        by_name = {node.name: node for node in graph.nodes}
        for some in (nodes, [node for node in nodes if node.type_name != "InputLayer"]):
            # Names that the architecture does not have say nothing: then the order counts, as it
            # does for Keras, unless it contradicts the names that are there.
            pairs = list(zip(names, some, strict=False))
            if len(some) == len(members) and all(
                _is_called(n, node) or _own(n, graph) not in by_name for n, node in pairs
            ):
                return list(some)
        for place, ((attribute, child), known) in enumerate(zip(members, names, strict=True)):
            own = _own(known, graph)
            if own in by_name:
                found[place] = by_name[own]
            elif self.given and child in self.holding:
                raise UsageError(
                    f"the architecture of {graph.name!r} does not fit: it has no layer for "
                    f"{known or attribute}"
                )
        return found

    def known_name(self, number: int) -> str | None:
        """The name of a layer, where the file says it."""
        node = self.of(number).node
        if node is not None:
            return node.name
        if number not in self.holding or number in self.around:
            return None
        return _name_by(self.gathered(number, keep=False))

    def own_name(self, number: int, attribute: str, own: Sequence[_Variable] | None) -> str:
        """What to call an object of which no description says the name."""
        if not _LAYER.match(attribute):
            return attribute
        if own is not None:
            return _name_by(own) or attribute
        names = [self.known_name(child) for _, child in self.layers_of(number)]
        heads = {name.partition("/")[0] if "/" in name else "" for name in names if name}
        return attribute if len(heads) != 1 else heads.pop() or attribute

    # ---- variables

    def values(
        self, number: int, path: tuple[str, ...], *, keep: bool = True
    ) -> Iterator[_Variable]:
        """The variables that an object is itself, if nothing has them yet."""
        if number in self.slots:
            return
        for what, full_name, key in self.objects[number].values:
            if not self.is_weight(what, key) or key in self.placed:
                continue
            entry = self.bundle.entries[key]
            words = tuple(re.sub(r":\d+$", "", full_name).strip("/").split("/"))
            if self.reason(entry, path, words) is not None:
                continue
            if keep:
                self.placed.add(key)
            trainable = self.of(number).trainable
            yield _Variable(path, words, entry.tensor(key, trainable=trainable))

    def gathered(self, number: int, *, keep: bool = True) -> list[_Variable]:
        """All variables of an object and of what it is made of."""
        found: list[_Variable] = []
        stack: list[tuple[int, tuple[str, ...]]] = [(number, ())]
        seen: set[int] = set()
        while stack:
            at, path = stack.pop()
            found += self.values(at, path, keep=keep)
            if at in seen or at in self.entered:
                continue
            seen.add(at)
            if len(path) > _MAX_DEPTH:
                raise MalformedError(f"more than {_MAX_DEPTH} objects inside one another")
            below = [
                (child, (*path, name))
                for name, child in self.structure(at)
                if child in self.holding and child not in self.claimed
            ]
            stack.extend(reversed(below))
        if keep:
            self.entered |= seen
        return found

    def reason(self, entry: Entry, path: tuple[str, ...], words: tuple[str, ...]) -> str | None:
        """Why a variable is no weight although it stands among them."""
        if entry.name in self.average_of:
            return f"moving average of {self.average_of[entry.name]}"
        if any(_SEED.match(word) for word in (*path, *words)):
            return "seed state"
        if (
            len(path) == 1
            and not entry.shape
            and entry.dtype.kind in "iu"
            and _COUNTER.match(path[0])
        ):
            return "training counter"
        return None

    def add(
        self,
        path: str,
        own: Sequence[_Variable],
        *,
        node: Node | None,
        flag: bool | None,
        layer: str,
    ) -> None:
        """A layer with its variables under the keys that older files have for them."""
        keyed = {
            key: replace(v.tensor, trainable=both(flag, v.tensor.trainable))
            for key, v in zip(_keys(own, layer), own, strict=True)
        }
        self.stored.add(path, keyed, node=node, trainable=flag)

    # ---- what is left over

    def finish(self, graph: Graph | None) -> None:
        """Variables that only Keras's lists have, then everything that is no weight."""
        reasons = self.reasons()
        loose: list[tuple[str, Tensor]] = []
        first: dict[str, list[Entry]] = {}
        for full_name, key, trainable in self.in_lists():
            entry = self.bundle.entries[key]
            if key in self.placed or key in reasons:
                continue
            same = [
                e for e in first.get(full_name, ()) if (e.crc, e.shape) == (entry.crc, entry.shape)
            ]
            if same:
                reasons[key] = f"the same values as {same[0].name}"
                continue
            first.setdefault(full_name, []).append(entry)
            self.placed.add(key)
            loose.append((full_name or key, entry.tensor(key, trainable=trainable)))
        if loose:
            used = not self.stored.layers
            found = named(_grouped(loose), graph if used else None, given=self.given and used)
            self.stored.layers.extend(found.layers)
            self.stored.omitted.extend(found.omitted)
        left: dict[tuple[str, str], list[Tensor]] = {}
        for key, entry in self.bundle.entries.items():
            if key == GRAPH_KEY:
                reason = "the checkpoint's graph of objects"
            elif not entry.is_number:
                reason = reasons.get(key, entry.why_not)
            else:
                reason = reasons.get(key, "no object refers to it")
            if key not in self.placed:
                left.setdefault((reason, self.average_of.get(key, "")), []).append(
                    entry.tensor(key)
                )
        for (reason, average_of), tensors in left.items():
            self.stored.omit(tensors, reason, average_of=average_of)

    def averages(self) -> dict[str, str]:
        """The moving averages of variables, each with the variable that it belongs to, by key."""
        pairs: list[tuple[int, int]] = []
        for thing in self.objects:
            pairs += [(slot, of) for of, name, slot in thing.slots if name == _AVERAGE]
            inside = dict(thing.children)
            if _AVERAGES in inside:
                held = self.objects[inside[_AVERAGES]].children
                trained = dict(self.objects[inside.get(_TRAINED, inside[_AVERAGES])].children)
                pairs += [(child, trained.get(place, child)) for place, child in held]
        found: dict[str, str] = {}
        by_name = self.by_full_name()
        for average, variable in pairs:
            if average == variable:  # tf_keras keeps no list of the variables
                name = f"/{self.full_name(average)}".partition(f"/{_AVERAGE}/")[2]
                variable = by_name.get(name, average)
            self.pair(found, average, variable)
        for name, number in by_name.items():
            above, _, last = name.rpartition("/")
            if last == AVERAGE and above in by_name:
                self.pair(found, number, by_name[above])
        return found

    def pair(self, found: dict[str, str], average: int, variable: int) -> None:
        """Note the average of a variable, if it is of the same shape."""
        one, other = self.variables.get(average), self.variables.get(variable)
        if average != variable and one and other and one[0].shape == other[0].shape:
            found[one[0].name] = other[0].name

    def full_name(self, number: int) -> str:
        values = self.objects[number].values
        return re.sub(r":\d+$", "", values[0][1]) if values else ""

    def by_full_name(self) -> dict[str, int]:
        """Variables by the names that they were made under, of those that only one has."""
        names = {n: self.full_name(n) for n in self.variables if n not in self.slots}
        times = Counter(names.values())
        return {name: number for number, name in names.items() if times[name] == 1}

    def in_lists(self) -> Iterator[tuple[str, str, bool | None]]:
        """The variables in the order in which a walk over all references meets them."""
        for number, _ in self.breadth_first():
            if number in self.slots:
                continue
            for what, full_name, key in self.objects[number].values:
                if self.is_weight(what, key):
                    yield re.sub(r":\d+$", "", full_name), key, self.of(number).trainable

    def reasons(self) -> dict[str, str]:
        """Why each value that is no weight is none, by its key."""
        found: dict[str, str] = {}

        def because(numbers: Iterable[int], reason: str) -> None:
            for number in numbers:
                for _, _, key in self.objects[number].values:
                    if key not in self.placed:
                        found.setdefault(key, reason)

        because(self.slots, "optimizer state")
        because(self.below(self.optimizers), "optimizer state")
        because(self.below(self.metrics), "metric state")
        for number, path in self.breadth_first():
            for what, full_name, key in self.objects[number].values:
                entry = self.bundle.entries.get(key)
                table = [f"{key}{part}" for part in _TABLE]
                if entry is None and all(part in self.bundle.entries for part in table):
                    found |= dict.fromkeys(table, "contents of a lookup table")
                    continue
                if entry is None:
                    raise MalformedError(f"the graph of objects names {key!r}, which is not there")
                words = tuple(full_name.split("/"))
                if "states" in path and "keras_api" in path:
                    because([number], "state of a recurrent layer, no weight")
                elif what != _VALUE and entry.is_number:
                    because([number], f"state of an object of its own sort, {what}")
                elif entry.is_number and (reason := self.reason(entry, path, words)):
                    because([number], reason)
        return found

    def below(self, numbers: Iterable[int]) -> Iterator[int]:
        seen = set(numbers)
        stack = list(seen)
        while stack:
            number = stack.pop()
            yield number
            for _, child in self.objects[number].children:
                if child not in seen and child not in self.networks:
                    seen.add(child)
                    stack.append(child)

    def breadth_first(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Every object that can be reached, by its shortest path."""
        seen = {0}
        queue: deque[tuple[int, tuple[str, ...]]] = deque([(0, ())])
        while queue:
            number, path = queue.popleft()
            yield number, path
            for name, child in self.objects[number].children:
                if child not in seen:
                    seen.add(child)
                    queue.append((child, (*path[:_MAX_DEPTH], name)))


def _own(name: str | None, graph: Graph) -> str:
    """A layer's name without that of the model around it."""
    return (name or "").removeprefix(f"{graph.name}/")


def _is_called(name: str | None, node: Node) -> bool:
    """Whether a name, if there is one, is that of a layer; Keras 3 puts the model's before it."""
    return name is None or f"/{name}".endswith(f"/{node.name}")


def _name_by(own: Sequence[_Variable]) -> str | None:
    """A layer's name by what its variables are called, which begins with it.

    A variable two attributes below its layer has two words of its own, if it has that many.
    """
    for variable in own:
        size = max(1, len(variable.words) - len(variable.path))
        if size < len(variable.words) and variable.words[0]:
            return "/".join(variable.words[:size])
    return None


def _keys(own: Sequence[_Variable], layer: str) -> list[str]:
    """What a layer's variables are called in older files: their names without the layer's.

    The last word is the attribute's: a name may have got a number when it was made. Attributes
    alone are the keys where names are no use, and where they tell forward from backward.
    """
    by_path = [
        "/".join((*(word.lstrip("_") for word in v.path[:-1]), _no_number((v.path or v.words)[-1])))
        for v in own
    ]
    size = len(layer.split("/")) if layer else 0
    keys = []
    for variable in own:
        words = variable.words
        start = max(1, len(words) - len(variable.path))
        if size and words[:size] == tuple(layer.split("/")):
            start = size
        last = variable.path[-1].lstrip("_") if variable.path else words[-1]
        if last.isdigit() and not _NAMELESS.match(words[-1]):
            last = words[-1]
        keys.append("/".join((*words[start:-1], _no_number(last))))
    directed = any("forward_layer" in v.path or "backward_layer" in v.path for v in own)
    return by_path if directed or len(set(keys)) < len(keys) else keys


def _no_number(word: str) -> str:
    """A word that nobody takes for the place of a variable among those of a layer."""
    return f"variable_{word}" if word.isdigit() else word.lstrip("_")


def _grouped(loose: Iterable[tuple[str, Tensor]]) -> list[tuple[str, list[tuple[str, Tensor]]]]:
    """Variables by the first word of their names; those of a name that is taken stand apart."""
    groups: dict[str, dict[str, Tensor]] = {}
    copies: Counter[str] = Counter()
    for name, tensor in loose:
        head, _, tail = name.partition("/")
        copies[name] += 1
        if copies[name] > 1:
            head = f"{head}_copy_{copies[name]}"
        groups.setdefault(head, {})[f"{head}/{tail}" if tail else head] = tensor
    return [(head, list(found.items())) for head, found in groups.items()]
