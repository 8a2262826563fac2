"""KerasHub: which layers its models are made of, where their files name none.

A backbone's configuration says what it is (`BertBackbone`, so many layers) and lists no layers, and
a `.weights.h5` names groups by attributes. But both sides of that are fixed: Keras names a group in
a container after the class that it holds, and KerasHub's classes keep the same parts under the same
attributes in every model. So the way from the root of a file to a tensor, read against the table of
KerasHub's classes, says what the tensor belongs to. It is applied below a class that the
configuration says is KerasHub's, and nowhere else: a user's class may be called anything.

What the table says must fit what is stored, like everything else, and is marked as inferred.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from kerasport.architecture import class_of, parse
from kerasport.custom import LayerTable
from kerasport.hub import parts, weights
from kerasport.kinds import CLASSES, snake_case
from kerasport.model import Layer, Snapshot, Tensor
from kerasport.variants import UNKNOWN

__all__ = ["PACKAGE", "Spec", "attributes", "described", "placed"]

PACKAGE: Final = "keras_hub"
# Under its older name, KerasHub had the same classes.
PACKAGES: Final = (PACKAGE, "keras_nlp")
CONTAINER: Final = "layers"
LIST: Final = "*"
# A layer may be quantized or have low-rank factors, and no configuration says so: files show it.
ANY_POLICY: Final[Mapping[str, Any]] = {"dtype": UNKNOWN, "lora_rank": 1}

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Spec:
    """What a stored group may be: a class of Keras or of KerasHub, and what it was given."""

    name: str
    argument: str = ""

    @classmethod
    def of(cls, text: str, inherited: str = "") -> Spec:
        """The words of the table: a class, and what it was given in parentheses.

        >>> Spec.of("EinsumDense(...)", "btd,df->btf")
        Spec(name='EinsumDense', argument='btd,df->btf')
        """
        name, _, given = text.removesuffix(")").partition("(")
        return cls(name, inherited if given == "..." else given)

    @property
    def configs(self) -> tuple[Config, ...]:
        """What is known of its configuration; of several, one must fit.

        >>> [config["bias_axes"] for config in Spec("EinsumDense", "bqm,muh->bquh").configs]
        ['uh']
        >>> Spec("LayerNormalization", "center=false").configs
        ({'center': False},)
        """
        match self.name:
            case "EinsumDense":
                inputs, output = self.argument.partition(",")[0], self.argument.partition("->")[2]
                made = "".join(axis for axis in output if axis not in inputs)
                return ({"equation": self.argument, "bias_axes": made, **ANY_POLICY},)
            case "ReversibleEmbedding":
                return tuple({"tie_weights": tied, **ANY_POLICY} for tied in (True, False))
            case "Dense" | "Embedding":
                return (ANY_POLICY,)
        option, _, value = self.argument.partition("=")
        return ({option: value == "true"} if option and self.name in CLASSES else {},)


@dataclass(frozen=True, slots=True)
class _Owner:
    """A class of KerasHub that the configuration names."""

    path: str
    name: str
    config: Config


# ------------------------------------------------------------------------------------------ tables


@cache
def attributes() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Class → attribute, without leading underscores → what it may hold.

    >>> attributes()["GemmaDecoderBlock"]["ffw_linear"]
    ('EinsumDense(btf,fd->btd)',)
    """
    table: dict[str, dict[str, tuple[str, ...]]] = {}
    for names, lines in _blocks(parts.TABLE):
        held: dict[str, tuple[str, ...]] = {}
        for line in lines:
            spec, *keys = line.split()
            held |= {key: (*held.get(key, ()), spec) for key in keys}
        table |= dict.fromkeys(names, held)
    return table


@cache
def described() -> LayerTable:
    """KerasHub's layers that have weights of their own, in the words of a user's description.

    >>> described().find("keras_hub>PositionEmbedding").rows["torch"][0].name
    'weight'
    """
    made: dict[str, Any] = {}
    for names, lines in _blocks(weights.TABLE):
        stored: dict[str, Any] = {}
        target: dict[str, Any] = {}
        for line in lines:
            name, _, sentence = (part.strip() for part in line.partition(":"))
            marks, name, *renamed = re.findall(r"^[?~]*|[^?~\s]+", name)
            slot: dict[str, Any] = {"layout": sentence}
            if "?" in marks:
                slot["when"] = f"use_{name}"
            if "~" in marks:
                slot["trainable"] = False
            stored[name] = slot
            target[(renamed or [name])[-1]] = {"weight": name, "layout": sentence}
        for name in names:
            hints = {"hints": weights.HINTS[name]} if name in weights.HINTS else {}
            one = {"keras": stored, "torch": target, "onnx": target, **hints}
            made |= {f"{package}>{name}": one for package in PACKAGES}
    return LayerTable.of(made, where=PACKAGE)


def _blocks(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """Lines that begin at the margin are names; those below them, indented, are theirs."""
    names: list[str] = []
    lines: list[str] = []
    for line in text.strip().splitlines():
        if line.startswith(" "):
            lines.append(line.strip())
            continue
        if lines:
            yield names, lines
            names, lines = [], []
        names += line.split()
    yield names, lines


@cache
def _stems() -> Mapping[str, str]:
    """What Keras calls a group in a container → the class that it holds."""
    own = [name for names, _ in _blocks(weights.TABLE) for name in names]
    names = (*CLASSES, *attributes(), *own, *weights.LIKE)
    return {snake_case(name): name for name in names if "/" not in name}


# ----------------------------------------------------------------------------------------- the way


def placed(snapshot: Snapshot) -> tuple[Snapshot, Mapping[str, tuple[Spec, ...]], LayerTable]:
    """The snapshot with KerasHub's layers cut into parts, and what each part may be by its path.

    Args:
        snapshot: as a reader delivers it.

    Returns:
        Those two, and the descriptions of KerasHub's layers, where the configuration names any.
    """
    owners = tuple(_owners(snapshot))
    if not owners:
        return snapshot, {}, LayerTable()
    layers: list[Layer] = []
    known: dict[str, tuple[Spec, ...]] = {}
    for layer in snapshot.layers:
        owner = next((o for o in owners if f"{layer.path}/".startswith(o.path)), None)
        if owner is None or layer.class_name is not None or layer.kind is not None:
            layers.append(layer)
            continue
        for part, specs in _cut(layer, owner):
            layers.append(part)
            if specs:
                known[part.path] = specs
    return replace(snapshot, layers=tuple(layers)), known, described()


def _owners(snapshot: Snapshot) -> Iterator[_Owner]:
    architecture = snapshot.architecture
    named = all(
        layer.class_name and not _is_hub(layer.class_name, None) for layer in snapshot.layers
    )
    if architecture is None or named:  # nothing of KerasHub's is among them
        return
    graph = parse(architecture)
    if graph is None:
        name, bare = class_of(architecture)
        if _is_hub(name, architecture.get("module")):
            config = architecture.get("config")
            yield _Owner("", bare, config if isinstance(config, Mapping) else {})
        return
    for leaf in graph.leaves():
        if _is_hub(leaf.node.class_name, leaf.node.module):
            yield _Owner(f"{leaf.path}/", leaf.node.type_name, leaf.node.config)


def _is_hub(name: str, module: Any) -> bool:
    return name.partition(">")[0] in PACKAGES or (
        isinstance(module, str) and module.partition(".")[0] in PACKAGES
    )


def _cut(layer: Layer, owner: _Owner) -> Iterator[tuple[Layer, tuple[Spec, ...]]]:
    """A layer as it is stored, or as the layers that its class keeps in attributes."""
    children: dict[str, dict[str, Tensor]] = {}
    for key, tensor in layer.weights.items():
        children.setdefault(key.rpartition("/")[0], {})[key] = tensor
    ways = {child: _way(own, child) for child, own in children.items()}
    whole = next(iter(ways.values()))
    base = None if whole is None else whole[0]
    if base is None or any(way is None or way[0] != base for way in ways.values()):
        yield layer, ()
        return
    specs = _specs(base, owner)
    if not any(spec.name in attributes() for spec in specs):  # no parts, or those of a Keras layer
        yield layer, specs
        return
    for child, own in children.items():
        path = f"{layer.path}/{child}".rstrip("/")
        held = {key.rpartition("/")[2]: tensor for key, tensor in own.items()}
        words = (*base, *child.split("/")) if child else base
        yield replace(layer, path=path, weights=held), _specs(words, owner)


def _way(own: Mapping[str, Tensor], child: str) -> tuple[tuple[str, ...], int] | None:
    """The groups from the root to the layer, if that is how its tensors are stored."""
    ways = set()
    for tensor in own.values():
        *words, mark, _ = ("", "", *tensor.stored.split("/"))
        below = child.split("/") if child else []
        if mark != "vars" or words[len(words) - len(below) :] != below:
            return None
        ways.add(tuple(words[2 : len(words) - len(below)]))
    return (ways.pop(), 0) if len(ways) == 1 else None


def _specs(words: Sequence[str], owner: _Owner) -> tuple[Spec, ...]:
    """What the table says that a group is, each word from the root being one step."""
    states: tuple[Spec, ...] = (Spec(owner.name),)
    around = [owner.name]
    rest = list(words)
    while rest and states:
        word = rest.pop(0)
        found: list[Spec] = []
        if word == CONTAINER:
            if not rest:
                return ()
            found = _in_container(rest.pop(0), around)
        else:
            for state in states:
                for text in attributes().get(state.name, {}).get(word.lstrip("_"), ()):
                    if text != LIST:
                        found.append(Spec.of(text, state.argument))
                    elif rest:
                        found += _in_container(rest.pop(0), [state.name, *around])
        if not found and rest[:1] == [CONTAINER]:  # a model, whose own class says nothing
            found = [Spec("")]
        states = tuple(dict.fromkeys(found))
        around[:0] = [state.name for state in states]
    return _told(states, words, owner)


def _in_container(stem: str, around: Sequence[str]) -> list[Spec]:
    """What Keras named a group after; classes of one name are told apart by what is around."""
    for word in (stem, re.sub(r"_\d+$", "", stem)):
        for name in around:
            if texts := attributes().get(name, {}).get(word):
                return [Spec.of(text) for text in texts if text != LIST]
        if word in _stems():
            name = _stems()[word]
            return [Spec.of(weights.LIKE.get(name, name))]
    return []


def _told(states: tuple[Spec, ...], words: Sequence[str], owner: _Owner) -> tuple[Spec, ...]:
    """One of several, where the configuration tells and no shape could."""
    if {state.name for state in states} != {"Conv2D", "Conv2DTranspose"}:
        return states
    factors = _found(owner.config, "reassemble_factors")
    number = re.search(r"_(\d{1,18})$", words[-2])
    place = int(number[1]) if number else 0
    if not isinstance(factors, list | tuple) or place >= len(factors):
        return states
    name = "Conv2DTranspose" if factors[place] > 1 else "Conv2D"
    return tuple(state for state in states if state.name == name)


def _found(config: Any, key: str, depth: int = 8) -> Any:
    """An entry of a configuration, or of one inside it: a task holds its backbone's."""
    if not isinstance(config, Mapping) or not depth:
        return None
    if key in config:
        return config[key]
    within = (_found(value, key, depth - 1) for value in config.values())
    return next((value for value in within if value is not None), None)
