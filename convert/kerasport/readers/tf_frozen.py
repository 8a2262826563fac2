"""Frozen graphs: operations, and constants where the variables were.

Nothing in such a file is called a layer, and the constants that are weights stand among others that
say along which axis to sum. What a constant is follows from the operation that takes it: a layer is
an operation with a kernel, its bias what is added to its result, and its path the scope that it
stands in. Constants of numbers that no such operation takes are kept under their own names, without
a class; whole numbers, texts and single numbers are listed as what they are to the graph.

A graph of TensorFlow 1 still tells which constants were variables: they have kept their names, and
operations that read variables take them. Their scopes are the paths then, as they are in a
checkpoint, and a recurrent cell is known by its words, where its operations are those of Dense
layers in a loop.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from kerasport.architecture import Node, parse
from kerasport.errors import KerasportError, MalformedError, UnknownFormatError
from kerasport.model import Snapshot, Source, Tensor
from kerasport.readers.mapped import Region, mapped
from kerasport.readers.naming import Stored, named
from kerasport.readers.tf1_names import cell_of, cells_by_name, todays_names
from kerasport.readers.tf_graph import Graph, Meaning, Op, Use, constants, graph_of, meaning
from kerasport.readers.tf_messages import DTYPES, NODE, numpy_dtype, shape_of
from kerasport.readers.tf_proto import decode, varint
from kerasport.readers.tf_tensor import values_of

__all__ = ["matches", "read"]

_OP: Final = re.compile(r"[A-Za-z0-9_.>]+$")
_READ: Final = re.compile(r"(.*/)?(read|ReadVariableOp)(_\d+)?$")
_FIELDS: Final = (1, 2, 3, 4)
_VARIABLES: Final = ("VariableV2", "Variable", "VarHandleOp")


def matches(path: Path) -> bool:
    """Whether a file is a graph: it begins with a node that has a name and an operation.

    Args:
        path: the file.
    """
    try:
        region = mapped(path)
        head = region.read(0, 16)
        if not head or head[0] not in (0x0A, 0x22):  # its first node, or the versions
            return False
        return _is_graph(region)
    except KerasportError:
        return False


def _is_graph(region: Region) -> bool:
    """Whether the fields of a file are those of a graph, up to the first node."""
    at = 0
    where = "graph"
    while at < region.size:
        head = region.read(at, 20)
        tag, place = varint(head, 0, len(head), where=where)
        if tag >> 3 not in _FIELDS or tag & 7 not in (0, 2):
            return False
        size, place = varint(head, place, len(head), where=where)
        if tag & 7 == 2 and at + place + size > region.size:
            return False
        if tag == 0x0A:
            part = region.part(at + place, size)
            data = memoryview(region.map)[part.start : part.start + part.size]
            node = decode(data, NODE, where=where)  # it may hold all the weights there are
            return bool(node["name"]) and bool(_OP.match(node["op"] or ""))
        at += place + (size if tag & 7 == 2 else 0)
    return False


def read(
    path: Path,
    *,
    architecture: Mapping[str, Any] | None = None,
    assume_dtype: np.dtype[Any] | None = None,
) -> Snapshot:
    """The constants of a graph as layers.

    Args:
        path: the file.
        architecture: the model's configuration, where it is known from elsewhere.
        assume_dtype: not needed, since a graph says what its values are.

    Raises:
        UsageError: there is no such file, or the architecture does not fit.
        UnknownFormatError: it is a graph without weights, or no graph.
        MalformedError: it is broken or hostile.
    """
    region = mapped(path)
    if not matches(path):
        raise UnknownFormatError(f"{path}: expected a graph of TensorFlow, found something else")
    graph = graph_of(memoryview(region.map), where=path.name)
    stored = Stored()
    found = list(_found(graph, "", stored))
    for name, function in graph.functions.items():
        found += _found(function(), f"{name}/", stored)
    if not found:
        variables = sum(op.op in _VARIABLES for op in graph.ops.values())
        hint = f"; its {variables} variables are in a checkpoint" if variables else ""
        raise UnknownFormatError(f"{path}: a graph without weights among its constants{hint}")
    cells = cells_by_name({weight.variable: weight.tensor.shape for weight in found})
    layers = _layers(found, cells)
    if architecture is not None:
        groups = [
            (layer, [(f"{layer}/{key}", weight.tensor) for key, weight in weights.items()])
            for layer, weights in layers.items()
        ]
        stored.layers = named(groups, parse(architecture), given=True).layers
    else:
        for layer, weights in layers.items():
            classes = {weight.class_name for weight in weights.values()}
            name = classes.pop() if len(classes) == 1 else ""
            node = cells.get(layer) or (Node(layer, name, name, {}) if name else None)
            stored.add(layer, {key: w.tensor for key, w in weights.items()}, node=node)
    stored = stored.finished()
    return Snapshot(
        Source(path.name, "tf-frozen-graph", nbytes=region.size, content=region.content),
        tuple(stored.layers),
        tuple(stored.omitted),
        architecture,
    )


class _Found(NamedTuple):
    """A constant that is a weight: of which operation, in which role, of which class of layer.

    Attributes:
        tensor: its numbers.
        owner: the operation with the kernel, or empty where none takes it.
        role: the weight that it is to its owner, or its own name.
        class_name: the class of its layer, or empty.
        variable: the name of the variable that it was, or empty.
    """

    tensor: Tensor
    owner: str
    role: str
    class_name: str
    variable: str


def _found(graph: Graph, prefix: str, stored: Stored) -> Iterator[_Found]:
    """The constants that are weights; the others are listed."""
    variables = _variables(graph)
    for op, value in constants(graph):
        name = prefix + op.name
        dtype, shape = numpy_dtype(value["dtype"], where=name), shape_of(value["shape"], where=name)
        taken = list(graph.taken(op.name, len(shape)))
        takers = ", ".join(dict.fromkeys(use.op.op for use in taken)) or "nothing"
        if dtype is None:
            kind = DTYPES[value["dtype"]]
            empty = Tensor(name, np.dtype(object), shape, lambda: np.empty(0, object), stored=name)
            stored.omit([empty], f"a constant of {kind}, taken by {takers}")
            continue
        load = values_of(value, dtype=dtype, shape=shape, where=name)
        tensor = Tensor(name, dtype, shape, load, stored=name)
        said = _said(graph, taken, len(shape))
        variable = name if op.name in variables else ""
        if said is not None and _is_real(dtype):
            use, what = said
            owner = graph.before(use) if what.role == "bias" else None
            owned = owner or use.op
            class_name = what.class_name
            if owner is not None:
                class_name = _class_of(graph, owner)
            yield _Found(tensor, prefix + owned.name, what.role, class_name, variable)
        elif shape and _is_real(dtype):
            yield _Found(tensor, "", name, "", variable)
        else:
            stored.omit([tensor], f"a constant of the graph, taken by {takers}")


def _variables(graph: Graph) -> set[str]:
    """The constants that stand where TensorFlow 1 had variables, each with operations to read it.

    A function of TensorFlow 2 has such operations too, but there the constant is named after them.
    """
    return {
        name
        for op in graph.ops.values()
        if op.op in ("Identity", "ReadVariableOp") and _READ.match(op.name)
        for name in op.inputs
        if not name.startswith(op.name)
    }


def _said(graph: Graph, taken: Sequence[Use], rank: int) -> tuple[Use, Meaning] | None:
    """What the uses of a constant agree on, with the first of them."""
    said = [(use, what) for use in taken if (what := meaning(use, rank, graph)) is not None]
    if not said or len({what for _, what in said}) > 1:
        return None
    return said[0]


def _class_of(graph: Graph, op: Op) -> str:
    """The class of the layer that an operation with a kernel is."""
    kernel = graph.ops.get(graph.origin(op.inputs[1])) if len(op.inputs) > 1 else None
    value = kernel.attribute("value") if kernel is not None and kernel.op == "Const" else None
    if value is None or value["tensor"] is None:
        return ""
    rank = len(shape_of(value["tensor"]["shape"], where=op.name))
    what = meaning(Use(op, 1), rank, graph)
    return what.class_name if what is not None else ""


def _is_real(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "fc" or dtype.name.startswith(("bfloat", "float"))


def _layers(found: list[_Found], cells: Mapping[str, Node]) -> dict[str, dict[str, _Found]]:
    """Weights by layer: by the cell that they are of, by the operation that takes them, by name."""
    of_cells: dict[str, dict[str, _Found]] = {}
    others: list[_Found] = []
    for weight in found:
        cell = cell_of(weight.variable, cells)
        if cell is None:
            others.append(weight)
        else:
            of_cells.setdefault(cell, {})[weight.variable.removeprefix(f"{cell}/")] = weight
    layers = {scope: todays_names(weights) for scope, weights in of_cells.items()}
    rest = _by_variable(_by_operation(others))
    if not all(rest):
        raise MalformedError("a constant without a name")
    return {**layers, **rest}


def _by_operation(found: list[_Found]) -> dict[str, dict[str, _Found]]:
    """By the scope of the operation, or by its name where a scope has several."""
    owners = dict.fromkeys(weight.owner for weight in found if weight.owner)
    scopes = Counter(owner.rpartition("/")[0] for owner in owners)
    layers: dict[str, dict[str, _Found]] = {}
    for weight in found:
        if weight.owner:
            scope = weight.owner.rpartition("/")[0]
            path = scope if scope and scopes[scope] == 1 else weight.owner
            key = weight.role
        else:
            scope, _, key = weight.role.rpartition("/")
            path = scope if scope and scopes[scope] == 0 else weight.role
        weights = layers.setdefault(path, {})
        number, free = 1, key
        while free in weights:
            number, free = number + 1, f"{key}_{number}"
        weights[free] = weight
    return layers


def _by_variable(layers: dict[str, dict[str, _Found]]) -> dict[str, dict[str, _Found]]:
    """The same layers, called by the scope of what were their variables, if it is theirs alone."""
    scopes = {path: _scope(weights.values()) for path, weights in layers.items()}
    taken = Counter(scopes.values())
    taken.update(path for path, scope in scopes.items() if scope != path)
    return {
        scopes[path] if scopes[path] and taken[scopes[path]] == 1 else path: weights
        for path, weights in layers.items()
    }


def _scope(weights: Iterable[_Found]) -> str:
    """The scope of those weights of a layer that were variables; empty where they have several."""
    scopes = {w.variable.rpartition("/")[0] for w in weights if w.variable}
    return scopes.pop() if len(scopes) == 1 else ""
