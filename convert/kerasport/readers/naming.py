"""From stored groups to layers: which tensors belong to which layer, and what the layer is called.

Keras has two ways to store weights, and both leave a puzzle.

*Numbered*: Keras 3 names groups after classes and attributes (`layers/conv2d_1/vars/0`). With the
configuration, counting classes in model order as Keras does leads from each layer to its group.
Without it, the layer's own name often stands beside its variables; failing that, attributes and
class names are the names.

*Named*: older files name every weight (`dense/dense/kernel:0`), but pour all weights of a nested
model into one group. There the names say whose they are, and the configuration who there is.

A layer that Keras knows keeps together all that lies below it, whatever its parts (the cells of a
recurrent layer, the projections of an attention). A user's own layer falls into its parts, since
each of them can be recognised and the whole cannot.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from kerasport.architecture import Graph, Leaf, Node, both, snake_case
from kerasport.errors import MalformedError, UsageError
from kerasport.kinds import CLASSES
from kerasport.model import Layer, Omission, Tensor
from kerasport.readers.stored import Group, natural

__all__ = ["Stored", "named", "numbered"]

VARIABLES: Final = "vars"
CONTAINERS: Final = ("layers", "_layer_checkpoint_dependencies")
"""Where a model keeps its layers; the second one in files of tf.keras 2.12 and 2.13."""

_OPTIMIZER: Final = re.compile(r"_?optimizer(_weights)?$|\w+_optimizer$")
_METRIC: Final = re.compile(r"_?(compiled?_)?(metrics|loss)(_container)?$|_?loss_tracker$")
_TRACKER: Final = re.compile(r"\w+_(tracker|metrics?)$")
_KERAS_1_WEIGHT: Final = (
    r"([WUb](_[a-z])?|gamma|beta|running_mean|running_std|alphas|\w+wise_kernel)(_\d+)?$"
)
_SEED: Final = re.compile(r"_?(seed|random)_generators?(_state)?(_\d+)?$|StateVar(_\d+)?$")

_CLASS_OF: Final = {snake_case(name): name for name in CLASSES}
"""Keras 3 calls what is in a container after its classes, and numbers it (its `saving_lib`)."""


@dataclass(slots=True)
class Stored:
    """The layers of one source, what it holds beside them, and where the source keeps each node."""

    layers: list[Layer] = field(default_factory=list)
    omitted: list[Omission] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)

    def add(
        self,
        path: str,
        weights: Mapping[str, Tensor],
        *,
        node: Node | None = None,
        trainable: bool | None = None,
        named_after: str = "",
    ) -> None:
        """One more layer, unless it holds nothing."""
        if not weights:
            return
        own = {
            key: replace(
                tensor,
                name=f"{path}/{key}",
                trainable=trainable if tensor.trainable is None else tensor.trainable,
            )
            for key, tensor in weights.items()
        }
        name = node.class_name if node else None
        config = node.config if node else {}
        self.layers.append(Layer(path, name, config, own, named_after=named_after))

    def omit(self, tensors: Iterable[Tensor], reason: str, *, average_of: str = "") -> None:
        """Tensors that are no weights of the model, and why."""
        ordered = sorted(tensors, key=lambda tensor: _natural_path(tensor.stored))
        self.omitted.extend(Omission(tensor, reason, average_of) for tensor in ordered)

    def finished(self) -> Stored:
        """The same, with every path there once: two layers of one path would hide one another."""
        taken = Counter(layer.path for layer in self.layers)
        used: set[str] = set()
        layers = []
        for layer in self.layers:
            path, number = layer.path, 1
            while path in used or (number > 1 and path in taken):
                path, number = f"{layer.path}_{number}", number + 1
            used.add(path)
            layers.append(layer if path == layer.path else _moved(layer, path))
        return Stored(layers, self.omitted, self.places)


def _moved(layer: Layer, path: str) -> Layer:
    weights = {key: replace(t, name=f"{path}/{key}") for key, t in layer.weights.items()}
    return replace(layer, path=path, weights=weights)


def _natural_path(path: str) -> tuple[Any, ...]:
    return tuple(natural(word) for word in path.split("/"))


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


# ---- numbered: Keras 3 -------------------------------------------------------------------------


def numbered(root: Group, graph: Graph | None, *, name: str, given: bool = False) -> Stored:
    """The layers of a store of Keras 3, whose groups are named after classes and attributes.

    Args:
        root: what is stored.
        graph: the model's architecture, or None where it is not known.
        name: what to call the model, for variables that belong to no layer of it.
        given: whether the architecture comes from elsewhere, and so may not fit.

    Raises:
        UsageError: a given architecture does not fit.
        MalformedError: two tensors have the same place.
    """
    stored = Stored()
    _set_aside(root, stored)
    if graph is None:
        _scatter(root, root.groups.get(VARIABLES, Group("")).text("name") or name, stored, top=True)
    else:
        place = _Place.top(graph)
        _match(root, graph, stored, place=place, trainable=graph.trainable, name=name)
        if given:
            _check_given([layer for layer in stored.layers if layer.class_name is None], graph)
    return stored.finished()


def _check_given(strange: Sequence[Layer], graph: Graph) -> None:
    if strange:
        shown = ", ".join(sorted(layer.path for layer in strange)[:5])
        raise UsageError(
            f"the architecture of {graph.name!r} does not fit: it has no layer for {shown}"
            + (f" and {len(strange) - 5} more" if len(strange) > 5 else "")
        )


def _set_aside(root: Group, stored: Stored) -> None:
    """Take out of the tree what is no weight: optimizer, metrics, seeds, second names."""
    stack: list[tuple[Group, bool]] = [(root, False)]
    while stack:
        group, container = stack.pop()
        for twin, (tensor, first) in group.twins.items():
            stored.omit([replace(tensor, name=_join(group.path, twin))], f"shared with {first}")
        group.twins = {}
        for name in list(group.groups):
            child = group.groups[name]
            reason = _reason(name, child, container=container)
            if reason is None:
                stack.append((child, name in CONTAINERS))
            else:
                stored.omit(child.all(), reason)
                del group.groups[name]
    stored.omitted.sort(key=lambda o: _natural_path(o.tensor.stored))


def _reason(name: str, group: Group, *, container: bool) -> str | None:
    """Why a group's tensors are no weights, or None.

    A model keeps its optimizer and metrics as attributes, never among its layers; those are named
    after classes, and a class may be called anything.
    """
    if container:
        return None
    if _OPTIMIZER.match(name):
        return "optimizer state"
    if _SEED.match(name):
        return "seed state"
    if _METRIC.match(name):
        return "metric state"
    if _TRACKER.match(name) and all(not tensor.shape for tensor in group.all()):
        return "metric state"
    return None


def _match(
    group: Group, graph: Graph, stored: Stored, *, place: _Place, trainable: bool | None, name: str
) -> None:
    """Give each node of a model the group that Keras stored it in; then what is left over."""
    path = place.path
    rest = dict(group.groups)
    variables = rest.pop(VARIABLES, None)
    # A model in a model is visited where it stands, so layers come in model order.
    found: dict[str, Group] = {}
    for container in CONTAINERS:
        if container in rest:
            inside = rest.pop(container)
            found = _numbering(inside, graph, place)
            taken = {id(group) for group in found.values()}
            left = {n: g for n, g in inside.groups.items() if id(g) not in taken}
            if left:
                rest[container] = replace(inside, groups=left)
            break
    if variables is not None:
        stored.add(path or variables.text("name") or name, _flat(variables), trainable=trainable)
    for node in graph.nodes:
        own = found.get(node.name)
        if own is None:
            continue
        where, flag = _join(path, node.name), both(trainable, node.trainable)
        stored.places[own.path] = where
        if node.graph is not None:
            _match_inside(own, node, stored, place=place.inside(node.name), trainable=flag)
        elif node.custom:
            _scatter(own, where, stored, node=node, trainable=flag)
        else:
            stored.add(where, _flat(own), node=node, trainable=flag)
    if rest or group.tensors:
        remainder = Group(group.path, rest, dict(group.tensors))
        _scatter(remainder, path or name, stored, top=not path, trainable=trainable)


def _match_inside(
    group: Group, node: Node, stored: Stored, *, place: _Place, trainable: bool | None
) -> None:
    """A model, or a wrapper around one; what wrappers hold themselves stays theirs."""
    assert node.graph is not None
    for _ in range(node.wrapped):
        outer = {key: g for key, g in group.groups.items() if key != "layer"}
        stored.add(place.path, _flat(replace(group, groups=outer)), node=node, trainable=trainable)
        group = group.groups.get("layer", Group(group.path))
    trainable = both(trainable, node.graph.trainable)
    _match(group, node.graph, stored, place=place, trainable=trainable, name=node.name)


def _numbering(container: Group, graph: Graph, place: _Place) -> dict[str, Group]:
    """Which group each node is stored in.

    Keras calls the first Dense among a model's layers `dense`, the second `dense_1`, and so on. An
    object that was stored before is not stored again; Keras 3 counts it all the same, tf_keras does
    not. Which of them wrote the file shows in which count finds more groups. Names that stand
    beside the variables go before any count.
    """
    labels = _labels(container)
    hidden = _hidden_repeats(container, graph, place)
    nodes = [node for node in graph.nodes if node.name not in hidden]
    counts = [_counted(nodes, container, again=again) for again in (True, False)]
    numbers = max(counts, key=len)  # the first one, Keras 3, where both find as many
    names = {node.name for node in nodes}
    found: dict[str, Group] = {}
    for node in nodes:
        if node.same_as is not None:
            continue
        group = labels.get(node.name)
        if group is None:
            group = numbers.get(node.name)
            label = _label(group) if group is not None else None
            if group is None or (label is not None and label in names):
                continue
        found[node.name] = group
    return found


def _counted(nodes: Iterable[Node], container: Group, *, again: bool) -> dict[str, Group]:
    counts: Counter[str] = Counter()
    found: dict[str, Group] = {}
    for node in nodes:
        if node.operation or (node.same_as is not None and not again):
            continue
        stem = snake_case(node.type_name)
        group = container.groups.get(_numbered_name(stem, counts[stem]))
        counts[stem] += 1
        if group is not None and node.same_as is None:
            found[node.name] = group
    return found


def _numbered_name(stem: str, number: int) -> str:
    return f"{stem}_{number}" if number else stem


def _hidden_repeats(container: Group, graph: Graph, place: _Place) -> set[str]:
    """Layers that must have been stored before, although the configuration does not say so.

    tf_keras forgets to mark a layer that inner models share once it has saved the model as HDF5. It
    stores a group for every layer, though, so when a class has too few, and just as many layers of
    it look like an earlier one in name and options, those are the ones.
    """
    by_stem: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.same_as is None and not node.operation:
            by_stem.setdefault(snake_case(node.type_name), []).append(node)
    hidden: set[str] = set()
    for stem, nodes in by_stem.items():
        number = 0
        while _numbered_name(stem, number) in container.groups:
            number += 1
        alike = {node.name for node in nodes if place.seen(node)}
        if number and len(nodes) - number == len(alike):
            hidden |= alike
    return hidden


class _Place(NamedTuple):
    """Where in the whole architecture one model is, and where each layer is for the first time."""

    path: str
    first: Mapping[tuple[Any, ...], str]

    @classmethod
    def top(cls, graph: Graph) -> _Place:
        first: dict[tuple[Any, ...], str] = {}
        stack = [("", iter(graph.nodes))]
        while stack:
            prefix, nodes = stack[-1]
            node = next(nodes, None)
            if node is None:
                stack.pop()
                continue
            first.setdefault(_look(node), prefix + node.name)
            if node.graph is not None:
                stack.append((f"{prefix}{node.name}/", iter(node.graph.nodes)))
        return cls("", first)

    def seen(self, node: Node) -> bool:
        """Whether a layer like this one stands earlier."""
        return self.first.get(_look(node)) != _join(self.path, node.name)

    def inside(self, name: str) -> _Place:
        return _Place(_join(self.path, name), self.first)


def _look(node: Node) -> tuple[Any, ...]:
    """A layer's class, name and plain options, which all dialects of Keras write alike."""
    plain = sorted(
        (key, str(value))
        for key, value in node.config.items()
        if isinstance(value, str | int | float | bool) and key != "dtype"
    )
    return node.type_name, node.name, *plain


def _label(group: Group) -> str | None:
    """The layer's own name, which Keras since 3.9 writes beside its variables."""
    variables = group.groups.get(VARIABLES)
    return variables.text("name") if variables is not None else None


def _labels(container: Group) -> dict[str, Group]:
    """The groups of a container by the name of their layer, where no other has it too."""
    counts = Counter(_label(group) for group in container.groups.values())
    labelled = ((_label(group), group) for group in container.groups.values())
    return {label: group for label, group in labelled if label and counts[label] == 1}


def _flat(group: Group) -> dict[str, Tensor]:
    """All tensors of one layer by attribute path and number, `vars` left out."""
    found: dict[str, Tensor] = {}

    def visit(part: Group, prefix: str, *, inside: bool) -> None:
        for name in sorted(part.tensors, key=natural):
            if prefix + name in found:
                raise MalformedError(f"/{part.path}/{name}: a second tensor in the same place")
            found[prefix + name] = part.tensors[name]
        ordered = sorted(part.groups, key=lambda n: (n != VARIABLES or inside, natural(n)))
        for name in ordered:
            is_variables = name == VARIABLES and not inside
            visit(
                part.groups[name],
                prefix if is_variables else f"{prefix}{name}/",
                inside=is_variables,
            )

    visit(group, "", inside=group.path.rpartition("/")[2] == VARIABLES)
    return found


def _scatter(
    group: Group,
    path: str,
    stored: Stored,
    *,
    node: Node | None = None,
    trainable: bool | None = None,
    named_after: str = "",
    top: bool = False,
) -> None:
    """A group of which no class is known, or a user's own: each part that holds variables."""
    parts = {name: part for name, part in group.groups.items() if name != VARIABLES}
    holding = {name for name, part in parts.items() if any(part.all())}
    if not holding or _is_one(holding, parts):
        flat = _flat(group)
        stored.add(path, flat, node=node, trainable=trainable, named_after=named_after)
        return
    own = replace(group, groups={n: g for n, g in group.groups.items() if n == VARIABLES})
    stored.add(path, _flat(own), node=node, trainable=trainable)
    prefix = "" if top else path
    for name in parts if group.ordered else sorted(parts, key=natural):
        part = parts[name]
        if name in CONTAINERS:
            labels = {id(g): label for label, g in _labels(part).items()}
            for inner in part.groups if part.ordered else sorted(part.groups, key=natural):
                child = part.groups[inner]
                where = _join(prefix, labels.get(id(child), inner))
                after = _CLASS_OF.get(_unnumbered(inner), "")
                _scatter(child, where, stored, trainable=trainable, named_after=after)
            loose = replace(part, groups={})
            stored.add(_join(prefix, name), _flat(loose), trainable=trainable)
        elif name == "layer" and any(c in part.groups for c in CONTAINERS):
            _scatter(part, path, stored, trainable=trainable)
        else:
            _scatter(part, _join(prefix, name), stored, trainable=trainable)


def _is_one(names: set[str], parts: Mapping[str, Group]) -> bool:
    """Whether parts of these names are the parts of one layer of Keras: a structure of its own."""
    public = {name.lstrip("_") for name in names}
    if "layer" in names and any(container in parts["layer"].groups for container in CONTAINERS):
        return False
    projections = {"query_dense", "key_dense", "value_dense"}
    return bool(public) and (
        public <= {"cell"}
        or public <= {"layer"}
        or public <= {"forward_layer", "backward_layer"}
        or projections <= public <= projections | {"output_dense"}
    )


# ---- named: Keras 1 and 2, tf.keras, and what Keras 3 calls legacy ------------------------------


class _Weight(NamedTuple):
    """One weight of an older file: the words of its name, and its tensor."""

    words: tuple[str, ...]
    tensor: Tensor


def named(
    groups: Sequence[tuple[str, Sequence[tuple[str, Tensor]]]],
    graph: Graph | None,
    *,
    given: bool = False,
    ordered: bool = False,
) -> Stored:
    """The layers of an older file, whose weights have names.

    An architecture from elsewhere may call its layers otherwise. Then those of one class are taken
    in the order of their numbers, and the others in the order of the file, if it has one.

    Args:
        groups: each group's name with its weights by name, in the file's order.
        graph: the model's architecture, or None where it is not known.
        given: whether the architecture comes from elsewhere, and so may not fit.
        ordered: whether the file's order is that of the model.

    Raises:
        UsageError: a given architecture does not fit.
    """
    stored = Stored()
    weights: dict[str, list[_Weight]] = {}
    for name, found in groups:
        weights[name] = []
        for weight, tensor in found:
            words = _words(weight)
            if _SEED.match(words[-1]) or any(_SEED.match(word) for word in words[:-1]):
                stored.omit([tensor], "seed state")
            else:
                weights[name].append(_Weight(words, tensor))
    renamed = _renamed(list(weights), graph, ordered=ordered) if given and graph else {}
    for node in graph.nodes if graph else ():
        name = renamed.get(node.name, node.name)
        own = [_called(weight, name, node.name) for weight in weights.pop(name, [])]
        flag = both(graph.trainable, node.trainable) if graph else None
        if node.graph is None:
            _spread_leaf(own, Leaf(node.name, node, flag), stored)
            continue
        inner = [
            Leaf(f"{node.name}/{leaf.path}", leaf.node, both(flag, leaf.trainable))
            for leaf in node.graph.leaves()
        ]
        _split(own, inner, stored, path=node.name)
    strange = len(stored.layers)
    for name, own in weights.items():
        _spread(name, _apart(_keyed(own, name)), stored)
    if given and graph:
        _check_given(stored.layers[strange:], graph)
    return stored.finished()


def _renamed(names: Sequence[str], graph: Graph, *, ordered: bool) -> dict[str, str]:
    """The groups of layers that are called otherwise in the file, by their own names."""
    known = {node.name for node in graph.nodes}
    strange = sorted((name for name in names if name not in known), key=natural)
    found: dict[str, str] = {}
    missing = [
        node
        for node in graph.nodes
        if node.name not in names
        and node.same_as is None
        and (node.graph is not None or node.class_name in CLASSES)
    ]
    for word in dict.fromkeys(snake_case(node.class_name) for node in missing):
        nodes = [node.name for node in missing if snake_case(node.class_name) == word]
        groups = [name for name in strange if _unnumbered(name) == word]
        if len(nodes) == len(groups):
            found |= zip(nodes, groups, strict=True)
    rest = [name for name in names if name in strange and name not in found.values()]
    nodes = [node.name for node in missing if node.name not in found]
    if ordered and len(rest) == len(nodes):
        found |= zip(nodes, rest, strict=True)
    return found


def _called(weight: _Weight, old: str, new: str) -> _Weight:
    """A weight of a layer that is called otherwise now."""
    words, own = weight.words, tuple(old.split("/"))
    if old == new or words[: len(own)] != own:
        return weight
    return weight._replace(words=(*new.split("/"), *words[len(own) :]))


def _words(name: str) -> tuple[str, ...]:
    return tuple(re.sub(r":\d+$", "", name).replace("\\", "/").strip("/").split("/"))


def _unnumbered(word: str) -> str:
    return re.sub(r"_\d+$", "", word)


def _keyed(weights: Sequence[_Weight], name: str) -> dict[str, Tensor]:
    """A layer's weights by what their names say beyond the layer's own name.

    TensorFlow may put a number behind the layer's name, or the name of a scope before it; Keras 1
    joins layer and weight by an underscore.
    """
    own = tuple(name.split("/"))
    keys = [_key(weight.words, own) for weight in weights]
    if len(set(keys)) < len(keys):
        keys = ["/".join(weight.words) for weight in weights]
    found = dict(zip(keys, (weight.tensor for weight in weights), strict=True))
    if len(found) < len(weights):
        raise MalformedError(f"/{weights[0].tensor.stored}: the layer lists a weight twice")
    return found


def _key(words: tuple[str, ...], own: tuple[str, ...]) -> str:
    size = len(own)
    places = range(len(words) - size)
    exact = [i for i in places if words[i : i + size] == own]
    near = [
        i
        for i in places
        if words[i : i + size - 1] == own[:-1] and _unnumbered(words[i + size - 1]) == own[-1]
    ]
    if exact or near:
        return "/".join(words[(exact or near)[0] + size :])
    if words[-1].startswith(f"{own[-1]}_") and words[-1] != f"{own[-1]}_":
        return words[-1][len(own[-1]) + 1 :]
    return "/".join(words)


def _spread_leaf(weights: Sequence[_Weight], leaf: Leaf, stored: Stored) -> None:
    """A layer of known class: one layer if it is Keras's, its parts if it is a user's own."""
    node = leaf.node
    keyed = _apart(_keyed(weights, node.name), _wrapped(node))
    if node.same_as is not None:
        stored.omit(keyed.values(), f"shared with {node.same_as}")
    elif not node.custom and (node.module is not None or node.class_name in CLASSES):
        stored.add(leaf.path, keyed, node=node, trainable=leaf.trainable)
    else:
        _spread(leaf.path, keyed, stored, node=node, trainable=leaf.trainable)


def _wrapped(node: Node) -> str:
    """The name of the layer that a wrapper wraps, or nothing."""
    inner = node.config.get("layer")
    config = inner.get("config") if isinstance(inner, Mapping) else None
    name = config.get("name") if isinstance(config, Mapping) else None
    return name if isinstance(name, str) else ""


def _apart(keyed: Mapping[str, Tensor], inner: str = "") -> dict[str, Tensor]:
    """Keys in words, where Keras 1 joined a wrapped layer's name and its weight's by underscores.

    Where no configuration names the wrapped layer, its two directions are known by what they are.
    """
    name = rf"(?:forward_|backward_)?{re.escape(inner)}" if inner else r"(?:forward|backward)_\w+?"
    joined = re.compile(rf"^({name})_(?={_KERAS_1_WEIGHT})")
    return {joined.sub(r"\1/", key): tensor for key, tensor in keyed.items()}


def _spread(
    path: str,
    keyed: Mapping[str, Tensor],
    stored: Stored,
    *,
    node: Node | None = None,
    trainable: bool | None = None,
) -> None:
    """A layer of unknown class: whole if its parts are those of one layer, else part by part."""
    parts: dict[str, dict[str, Tensor]] = {}
    own: dict[str, Tensor] = {}
    for key, tensor in keyed.items():
        head, _, tail = key.partition("/")
        if tail:
            parts.setdefault(head, {})[tail] = tensor
        else:
            own[key] = tensor
    if not parts or _is_one_by_name(set(parts), alone=not own):
        stored.add(path, keyed, node=node, trainable=trainable)
        return
    stored.add(path, own, node=node, trainable=trainable)
    for name, part in parts.items():
        _spread(f"{path}/{name}", part, stored, trainable=trainable)


def _is_one_by_name(parts: set[str], *, alone: bool) -> bool:
    projections = {"query", "key", "value"}
    return (
        (alone and len(parts) == 1)
        or all(re.match(r"(forward|backward)_", part) for part in parts)
        or all(re.match(r"(.*_)?cells?(_\d+)?$", part) for part in parts)
        or projections <= parts <= projections | {"attention_output"}
    )


def _split(
    weights: Sequence[_Weight], leaves: Sequence[Leaf], stored: Stored, *, path: str
) -> None:
    """The weights of a model in a model, poured into one group: to each inner layer its own.

    Names decide: first those that are some inner layer's, then those that are but for a number,
    then those of the same class in the same order, which is how automatic names differ between two
    buildings of one model.
    """
    runs: dict[tuple[str, ...], list[_Weight]] = {}
    owners = _Owners(leaves, path)
    for weight in weights:
        runs.setdefault(owners.run(weight.words), []).append(weight)
    assigned = owners.assign(list(runs))
    for leaf in leaves:
        own = [w for run, found in runs.items() if assigned.get(run) is leaf for w in found]
        if own:
            _spread_leaf(own, leaf, stored)
    for run, found in runs.items():
        if run not in assigned:
            where = "/".join((path, *run))
            _spread(where, {"/".join(w.words[len(run) :]): w.tensor for w in found}, stored)


class _Owners:
    """Which inner layer the words of a weight's name belong to."""

    def __init__(self, leaves: Sequence[Leaf], path: str) -> None:
        self.leaves = leaves
        self.path = path
        self.by_name: dict[tuple[str, ...], list[Leaf]] = {}
        for leaf in leaves:
            self.by_name.setdefault(tuple(leaf.node.name.split("/")), []).append(leaf)
        self.longest = max((len(name) for name in self.by_name), default=1)

    def run(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """The leading words up to the name of a layer: what the weights of one layer share."""
        for near in (False, True):
            for i in range(len(words) - 1):
                for size in range(min(self.longest, len(words) - 1 - i), 0, -1):
                    if self.candidates(words[: i + size], near=near):
                        return words[: i + size]
        return words[:-1]

    def candidates(self, run: tuple[str, ...], *, near: bool) -> list[Leaf]:
        for size in range(min(self.longest, len(run)), 0, -1):
            name = run[-size:]
            if near:
                name = (*name[:-1], _unnumbered(name[-1]))
            if name in self.by_name:
                return self.by_name[name]
        return []

    def assign(self, runs: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], Leaf]:
        """One layer for each run; a run that no layer fits is left out."""
        found: dict[tuple[str, ...], Leaf] = {}
        free = {leaf.path: leaf for leaf in self.leaves}

        def give(run: tuple[str, ...], leaf: Leaf) -> None:
            found[run] = free.pop(leaf.path)

        for near in (False, True):
            for run in (run for run in runs if run not in found):
                fits = [leaf for leaf in self.candidates(run, near=near) if leaf.path in free]
                if fits:
                    give(run, max(fits, key=lambda leaf: self.common(leaf, run)))
        for run in (run for run in runs if run and run not in found):
            stem = _unnumbered(run[-1])
            for leaf in free.values():
                if snake_case(leaf.node.type_name) == stem:
                    give(run, leaf)
                    break
        return found

    def common(self, leaf: Leaf, run: tuple[str, ...]) -> int:
        """How many of the models around a layer the words before its name repeat."""
        return len(set(leaf.path.split("/")[:-1]) & set(run[:-1]))
