"""What operations say about the tensors that they take.

A graph knows no layers. But a tensor that `Conv2D` takes in its second place is a kernel whose axes
are `kh kw in out`, whatever it is called, and one that `DepthwiseConv2dNative` takes there is not,
though it may have the same shape. So the table below says for each operation and place which weight
of which layer of Keras stands there; operations that pass a tensor on unchanged are looked through,
and so are calls of functions. Where two operations contradict each other, nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, NamedTuple

from kerasport.errors import MalformedError
from kerasport.model import Layer, Tensor
from kerasport.readers.tf_messages import ATTRIBUTE, FUNCTION_LIBRARY, GRAPH, NODE, VALUE
from kerasport.readers.tf_proto import Buffer, Message, decode

__all__ = [
    "PLACES",
    "Graph",
    "Meaning",
    "Op",
    "Use",
    "classified",
    "constants",
    "functions_of",
    "graph_of",
    "meaning",
    "variables",
]


class Meaning(NamedTuple):
    """What a tensor is to the operation that takes it.

    Attributes:
        role: the weight of a layer of Keras that it is.
        class_name: the class of that layer; empty where several have such a weight.
    """

    role: str
    class_name: str = ""


def _kernel(**by_rank: str) -> Mapping[int, Meaning]:
    return {int(rank.removeprefix("rank")): Meaning("kernel", n) for rank, n in by_rank.items()}


_NORM: Final = ("gamma", "beta", "moving_mean", "moving_variance")
_ANY: Final = 0

# (operation, place) → what stands there, by the rank of the tensor. A convolution over one axis is
# one over two of which the first has length one.
PLACES: Final[Mapping[tuple[str, int], Mapping[int, Meaning]]] = {
    ("Conv2D", 1): _kernel(rank3="Conv1D", rank4="Conv2D"),
    ("Conv3D", 1): _kernel(rank5="Conv3D"),
    ("DepthwiseConv2dNative", 1): _kernel(rank3="DepthwiseConv1D", rank4="DepthwiseConv2D"),
    ("Conv2DBackpropInput", 1): _kernel(rank3="Conv1DTranspose", rank4="Conv2DTranspose"),
    ("Conv3DBackpropInputV2", 1): _kernel(rank5="Conv3DTranspose"),
    ("MatMul", 1): _kernel(rank2="Dense"),
    ("BiasAdd", 1): {1: Meaning("bias")},
    **{
        (f"FusedBatchNorm{version}", place): {1: Meaning(role, "BatchNormalization")}
        for version in ("", "V2", "V3")
        for place, role in enumerate(_NORM, 1)
    },
    **{
        (op, 0): {2: Meaning("embeddings", "Embedding")}
        for op in ("Gather", "GatherV2", "ResourceGather")
    },
}
# What takes a bias too, in either place, if the other one comes from an operation with a kernel.
_SUMS: Final = ("Add", "AddV2")
_ADDED: Final = (*_SUMS, "BiasAdd")
# Keras 3 gives a bias axes of length one, and takes them away again, before it is added.
_RESHAPED: Final = ("Reshape", "Squeeze")
# Operations through which a tensor passes as it is, up to an axis of length one.
_THROUGH: Final = frozenset(
    (
        *("Identity", "ReadVariableOp", "StopGradient", "PreventGradient", "CheckNumerics"),
        *("Snapshot", "Enter", "RefEnter", "Cast", "ExpandDims"),
        *("FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel"),
    )
)
# Through these the result of a convolution passes to its bias.
_AFTER: Final = _THROUGH | {"Squeeze", "BatchToSpaceND", "Reshape"}
# Where the functions are that an operation calls, and how many inputs come before the arguments.
_CALLS: Final[Mapping[str, tuple[str, int]]] = {
    "PartitionedCall": ("f", 0),
    "StatefulPartitionedCall": ("f", 0),
    "While": ("body", 0),
    "StatelessWhile": ("body", 0),
    "If": ("then_branch", 1),
    "StatelessIf": ("then_branch", 1),
}
# What computes gradients takes kernels too, and turned around.
_GRADIENTS: Final = re.compile(r"(.*/)?gradients(_\d+)?/")
_VARIABLES: Final = ("VariableV2", "Variable", "VarHandleOp", "AutoReloadVariable")
_MAX_CALLS: Final = 64
_MAX_CHAIN: Final = 1000


class Op(NamedTuple):
    """One operation of a graph.

    Attributes:
        name: its name, with its scopes.
        op: what it does.
        inputs: the names of the operations whose results it takes.
        attributes: its settings, not decoded yet.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Sequence[Buffer]

    def attribute(self, key: str) -> Message | None:
        """A setting, or None where it has none of that name.

        Args:
            key: its name.
        """
        for data in self.attributes:
            found = decode(data, ATTRIBUTE, where=self.name)
            if found["key"] == key:
                return decode(found["value"] or b"", VALUE, where=self.name)
        return None

    def flag(self, key: str) -> bool:
        """A setting that is yes or no.

        Args:
            key: its name.
        """
        found = self.attribute(key)
        return bool(found and found["bool"])

    @classmethod
    def of(cls, message: Message) -> Op:
        """The operation in a decoded message.

        Args:
            message: a decoded `NodeDef`.
        """
        inputs = tuple(i.partition(":")[0] for i in message["inputs"] if not i.startswith("^"))
        return cls(message["name"] or "", message["op"] or "", inputs, message["attributes"])


class Use(NamedTuple):
    """That an operation takes a tensor, and in which place."""

    op: Op
    place: int


@dataclass(frozen=True, eq=False)
class Graph:
    """The operations of a graph or of a function, and the functions that they may call.

    Attributes:
        ops: by name, in the order of the file.
        functions: the functions of the library by name; each is decoded when it is asked for.
        arguments: what a function calls its arguments.
    """

    ops: Mapping[str, Op]
    functions: Mapping[str, Callable[[], Graph]]
    arguments: tuple[str, ...] = ()

    def origin(self, name: str, through: frozenset[str] = _THROUGH) -> str:
        """Where a tensor comes from, past the operations through which it only passes.

        Args:
            name: the operation or argument that it is asked of.
            through: the operations that are looked through.
        """
        for _ in range(_MAX_CHAIN):
            op = self.ops.get(name)
            if op is None or op.op not in through or not op.inputs:
                return name
            name = op.inputs[0]
        raise MalformedError(f"{name}: operations that pass their input on, in a circle")

    @cached_property
    def uses(self) -> Mapping[str, Sequence[Use]]:
        """Every tensor's uses, by where it comes from."""
        found: dict[str, list[Use]] = {}
        for op in self.ops.values():
            if _GRADIENTS.match(op.name):
                continue
            for place, name in enumerate(op.inputs):
                if op.op not in _THROUGH or place:
                    found.setdefault(self.origin(name), []).append(Use(op, place))
        return found

    def taken(self, name: str, rank: int) -> Iterator[Use]:
        """The uses of a tensor; of a bias that is reshaped before it is added, the addition.

        Args:
            name: the operation or argument that it comes from.
            rank: how many axes it has.
        """
        for use in self.uses.get(name, ()):
            yield from self.added(use) or (use,) if rank == 1 else (use,)

    def added(self, use: Use) -> list[Use]:
        """Where what an operation does to the axes of a bias is added, as Keras 3 has it."""
        found: list[Use] = []
        following, seen = [use], {use.op.name}
        while following:
            at = following.pop()
            if at.op.op not in _RESHAPED or at.place:
                continue
            for after in self.uses.get(at.op.name, ()):
                if after.op.op in _ADDED:
                    found.append(after)
                elif after.op.name not in seen:
                    seen.add(after.op.name)
                    following.append(after)
        return found

    def before(self, use: Use) -> Op | None:
        """The operation with a kernel whose result a sum or a bias is added to."""
        for place, name in enumerate(use.op.inputs[:2]):
            if place != use.place:
                op = self.ops.get(self.origin(name, _AFTER))
                if op is not None and (op.op, 1) in PLACES and op.op != "BiasAdd":
                    return op
        return None

    def meanings(self, wanted: Iterable[tuple[str, int]]) -> dict[str, Meaning]:
        """What tensors are, going by all their uses.

        Args:
            wanted: the tensors, as names of operations or arguments, with their ranks.
        """
        found: dict[str, Meaning] = {}
        told: Told = {}
        for name, rank in wanted:
            said = self.said(name, rank, told=told, depth=0)
            classes = {what.class_name for what in said}
            if len({what.role for what in said}) == 1:
                role = next(iter(said)).role
                found[name] = Meaning(role, classes.pop() if len(classes) == 1 else "")
        return found

    def said(self, name: str, rank: int, *, told: Told, depth: int) -> frozenset[Meaning]:
        """All that is said of a tensor, also in the functions that it is handed to.

        Args:
            name: the operation or argument that it comes from.
            rank: how many axes it has.
            told: what functions say of their arguments; filled in, so that each is asked once.
            depth: how many calls it has come through.
        """
        found: set[Meaning] = set()
        for use in self.taken(name, rank):
            if use.op.op not in _CALLS:
                what = meaning(use, rank, self)
                found |= {what} if what is not None else set()
                continue
            key, skipped = _CALLS[use.op.op]
            setting = use.op.attribute(key)
            called = (setting or {}).get("function") or {}
            asked = (called.get("name") or "", use.place - skipped, rank)
            if asked not in told and depth < _MAX_CALLS and use.place >= skipped:
                told[asked] = frozenset()  # what a function that calls itself says meanwhile
                body = self.functions.get(asked[0], lambda: _NOTHING)()
                if asked[1] < len(body.arguments):
                    argument = body.arguments[asked[1]]
                    told[asked] = body.said(argument, rank, told=told, depth=depth + 1)
            found |= told.get(asked, frozenset())
        return frozenset(found)


Told = dict[tuple[str, int, int], frozenset[Meaning]]
_NOTHING: Final = Graph({}, {})


def meaning(use: Use, rank: int, graph: Graph) -> Meaning | None:
    """What one use says of a tensor of a rank, or None.

    Args:
        use: the use.
        rank: how many axes the tensor has.
        graph: where the operation stands.
    """
    op = use.op
    if op.op in _SUMS and rank == 1 and graph.before(use) is not None:
        return Meaning("bias")
    said = PLACES.get((op.op, use.place), {}).get(rank)
    if (
        op.op == "MatMul"
        and said is not None
        and (op.flag("transpose_b") or op.flag("transpose_a"))
    ):
        # Its axes are `out in`, so it must not be taken for what Keras calls a kernel.
        return Meaning("weight")
    return said


def graph_of(data: Buffer, *, where: str) -> Graph:
    """A graph of operations.

    Args:
        data: the message.
        where: what is being read, for errors.

    Raises:
        MalformedError: it is none.
    """
    nodes = decode(data, {1: GRAPH[1]}, where=where)["nodes"]
    return Graph(_ops(nodes), functions_of(data, where=where))


def functions_of(data: Buffer, *, where: str) -> Mapping[str, Callable[[], Graph]]:
    """The functions of a graph by name; the operations of each are read when it is asked for.

    Args:
        data: the graph's message.
        where: what is being read, for errors.

    Raises:
        MalformedError: it is none.
    """
    functions: dict[str, Callable[[], Graph]] = {}
    library = decode(data, {2: GRAPH[2]}, where=where)["library"]
    if library is not None:
        for message in decode(library, FUNCTION_LIBRARY, where=where)["functions"]:
            signature = message["signature"] or {}
            arguments = tuple(a["name"] or "" for a in signature.get("arguments", ()))
            functions[signature.get("name") or ""] = _lazily(
                message["nodes"], functions, arguments, where
            )
    return functions


def _lazily(
    nodes: Sequence[Buffer],
    functions: Mapping[str, Callable[[], Graph]],
    arguments: tuple[str, ...],
    where: str,
) -> Callable[[], Graph]:
    made: list[Graph] = []

    def body() -> Graph:
        if not made:
            ops = _ops([decode(node, NODE, where=where) for node in nodes])
            made.append(Graph(ops, functions, arguments))
        return made[0]

    return body


def _ops(nodes: Iterable[Message]) -> dict[str, Op]:
    return {op.name: op for op in map(Op.of, nodes)}


def classified(layers: Sequence[Layer], said: Mapping[str, Meaning]) -> list[Layer]:
    """Layers of unknown class, with the class that the operations of their weights agree on.

    Args:
        layers: the layers.
        said: what is known of tensors, by the name under which they are stored.
    """
    return [_classified(layer, said) for layer in layers]


def _classified(layer: Layer, said: Mapping[str, Meaning]) -> Layer:
    if layer.class_name is not None or layer.kind is not None:
        return layer
    roles: dict[str, str] = {}
    classes = set()
    for key, tensor in layer.weights.items():
        what = said.get(tensor.stored)
        if what is None and key != "bias":  # a bias may be added by any operation
            return layer
        roles[key] = what.role if what else key
        if what and what.class_name:
            classes.add(what.class_name)
    if len(classes) != 1 or len(set(roles.values())) < len(roles):
        return layer
    weights: dict[str, Tensor] = {
        roles[key]: replace(tensor, name=f"{layer.path}/{roles[key]}")
        for key, tensor in layer.weights.items()
    }
    return replace(layer, class_name=classes.pop(), weights=weights)


def variables(graph: Graph) -> dict[str, str]:
    """What the operations that hold the variables of a graph are called, by the variables' names.

    Args:
        graph: the graph.
    """
    found = {}
    for op in graph.ops.values():
        if op.op in _VARIABLES:
            shared = op.attribute("shared_name")
            text = str(shared["text"] or b"", "utf-8", "replace") if shared else ""
            found[text or op.name] = op.name
    return found


def constants(graph: Graph) -> Iterator[tuple[Op, Any]]:
    """The constants of a graph, each with its decoded tensor.

    Args:
        graph: the graph.
    """
    for op in graph.ops.values():
        if op.op == "Const":
            value = op.attribute("value")
            if value is None or value["tensor"] is None:
                raise MalformedError(f"{op.name}: a constant without a value")
            yield op, value["tensor"]
