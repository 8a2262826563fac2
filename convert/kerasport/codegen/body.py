"""One model as one class: its layers as attributes, its graph as a forward pass that reads well.

Calls are put in the order in which a person would write them: what a layer takes just before the
layer itself, so that a branch stays together. A variable is used again as soon as nothing needs
what was in it, which is why most of a forward pass says `x = self.layer(x)`.
"""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from kerasport.architecture import Graph, Node, Ref
from kerasport.codegen.activations import activated, activation_name, known
from kerasport.codegen.arguments import arguments
from kerasport.codegen.text import LONGEST, call, class_name, lines, literal, prose
from kerasport.codegen.values import Value, image_order, unflattened
from kerasport.errors import UnsupportedError, UsageError
from kerasport.flatten import Order
from kerasport.flatten import _Followed as Followed
from kerasport.flatten import _order as order_of
from kerasport.model import Layer
from kerasport.names import identifier
from kerasport.options import Options, options
from kerasport.shapes import Call, Shape

__all__ = ["Body", "Case", "File", "OrderError", "Tap", "tensors_in"]

JSON = Any
Variable = re.compile(r"[A-Za-z_]\w*")
POOL: Final = (*"xyzwvu", *(f"x{n}" for n in range(1, 200)))
DEFAULT_INPUT: Final = re.compile(r"(.*_)?input(_layer)?(_\d+)?|inputs|keras_tensor(_\d+)?")
TAKEN: Final = frozenset(
    {
        *("self", "torch", "nn", "F", "Tensor", "json", "math", "Path", "load", "weights"),
        *("Sequence", "Callable", "DTYPES", *dir(builtins)),
    }
)


class OrderError(Exception):
    """Features are not in the order that a layer's weights were put in; see `module.source`."""


@dataclass(frozen=True, slots=True)
class Tap:
    """Where in a forward pass a variable holds what a layer gives, so that it can be compared.

    Attributes:
        owner: the class whose `forward` it is.
        statements: how many statements of it are done by then.
        variable: the variable.
        layer: the layer's name in its model.
        call: the number of the call of it.
        tensor: the number of the output.
        class_name: the layer's class in Keras.
        order: which of Keras's axes each dimension is; empty where all are where Keras has them.
        features: the two sentences of the last axis, where the module has that in another order.
        inner: the class of the model that the layer is, or empty.
        steps: whether that model is called for all steps of a sequence at once.
    """

    owner: str
    statements: int
    variable: str
    layer: str
    call: int
    tensor: int
    class_name: str
    order: tuple[int, ...] = ()
    features: Order | None = None
    inner: str = ""
    steps: bool = False


@dataclass(eq=False, slots=True)
class File:
    """What all classes of one file share.

    Attributes:
        layers: the layers with weights, by path.
        tensors: the state dict's tensors of each layer: their names below it, and their shapes.
        names: what the last word of each path is called in the module.
        orders: the axes that were put in PyTorch's order, by path; None where nothing is.
        followed: what `flatten` knows of each layer.
        keras: the major version of the Keras that wrote the file.
        snippets: a user's own expressions, by class or path.
        classes: the classes written so far.
        taken: the names of classes and functions.
        notes: what the module does not do.
        models: the classes by the path of the model.
        taps: where the layers' outputs are.
    """

    layers: Mapping[str, Layer]
    tensors: Mapping[str, Mapping[str, tuple[int, ...]]]
    names: Mapping[str, str]
    orders: Mapping[str, Mapping[str, Order]] | None
    followed: Followed
    keras: int
    snippets: Mapping[str, str] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    models: dict[str, Body] = field(default_factory=dict)
    taps: list[Tap] = field(default_factory=list)

    def holds(self, path: str) -> bool:
        """Whether the state dict has tensors of this layer, or of layers of this model."""
        return any(f"{held}/".startswith(f"{path}/") for held in self.tensors)

    def named(self, name: str) -> str:
        """A name for a class that no other has."""
        name = class_name(name)
        wanted = name = f"{name}Model" if name in TAKEN else name
        number = 2
        while name in self.taken:
            name = f"{wanted}{number}"
            number += 1
        self.taken.add(name)
        return name


@dataclass(frozen=True, eq=False, slots=True)
class Case:
    """One call of one layer, for the rule that writes it.

    Attributes:
        body: the class that is being written.
        name: the layer's attribute.
        path: the layer's path.
        o: its options.
        inputs: the tensors that it takes, in order.
        args: its arguments by position, in which tensors are Values.
        named: its arguments by name.
        made: the shapes that it gives.
        known: what `flatten` knows of what it gives.
        wrapped: how many TimeDistributed are around it.
        around: a module around its own, with `{}` for it.
        wanted: how many outputs others take.
    """

    body: Body
    name: str
    path: str
    o: Options
    inputs: tuple[Value, ...]
    args: Sequence[Any]
    named: Mapping[str, Any]
    made: tuple[Shape, ...]
    known: tuple[Any, ...] = ()
    wrapped: int = 0
    around: str = "{}"
    wanted: int = 1

    @property
    def x(self) -> Value:
        """The first tensor."""
        if not self.inputs:
            raise UnsupportedError(f"{self.path}: expected a {self.o.class_name} to take a tensor")
        return self.inputs[0]

    @property
    def file(self) -> File:
        """The file that is being written."""
        return self.body.file

    @property
    def layer(self) -> Layer | None:
        """The layer's weights, if it has any."""
        return self.file.layers.get(self.body.home(self.path))

    @property
    def tensors(self) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of the layer's tensors in the state dict."""
        return self.file.tensors.get(self.body.home(self.path), {})

    @property
    def shape(self) -> Shape:
        """The shape that it gives, if it gives one tensor."""
        return self.made[0] if self.made else None

    def rank(self, value: Value | None = None) -> int:
        """How many dimensions a tensor has.

        Raises:
            UnsupportedError: that is not known.
        """
        rank = (value or self.x).rank
        if rank is None:
            raise UnsupportedError(
                f"{self.path}: the shape that this {self.o.class_name} takes is not known"
            )
        return rank

    def channels(self, axis: int = -1) -> int:
        """The extent of one axis of the first tensor.

        Raises:
            UnsupportedError: it is not known.
        """
        size = self.x.shape[axis] if self.x.shape else None
        if size is None:
            raise UnsupportedError(
                f"{self.path}: how many channels this {self.o.class_name} takes is not known"
            )
        return size

    def module(self, text: str) -> str:
        """The layer as an attribute, made by this expression; what to call."""
        return self.body.attribute(self.path, self.name, self.around.format(text))

    def activated(self, text: str, *, dim: int = -1, option: str = "activation") -> str:
        """An expression with the layer's activation around it."""
        written = self.o(option)
        if not known(written):
            return self.unknown_activation(text, written)
        if activation_name(written)[0] == "linear":
            return text
        return activated(text, written, dim=dim, keras=self.file.keras)

    def unknown_activation(self, text: str, written: JSON) -> str:
        """A module that stands for an activation of a user's own."""
        name, _ = activation_name(written)
        stub = self.body.stub(name, f"the activation {prose(name)} of {prose(self.path)}")
        return f"{self.body.extra(f'{self.name}_activation', f'{stub}()')}({text})"

    def plain(self, value: Value) -> Value:
        """The value in Keras's order, its features too."""
        return self.body.natural(value).straight()

    def fed(self, value: Value, axis: str = "in") -> Value:
        """The value with its features in the order in which the layer's weights have them."""
        wanted = (self.file.orders or {}).get(self.body.home(self.path), {}).get(axis)
        if wanted is None:
            return self.body.natural(value)
        if value.features is None or order_of(value.features) != wanted:
            raise OrderError(self.path)
        return value

    def once(self, value: Value) -> Value:
        """The value in a variable, for expressions that need it more than once."""
        if Variable.fullmatch(value.text):
            return value
        return replace(value, text=self.body.temporary(value.text))


@dataclass(frozen=True, slots=True)
class Given:
    """What one call of a layer is given: its tensors, and its arguments in which they stand."""

    inputs: tuple[Value, ...]
    args: list[Any]
    named: Mapping[str, Any]


class Body:
    """Writes one class."""

    def __init__(self, file: File, graph: Graph, *, prefix: str, name: str) -> None:
        self.file = file
        self.graph = graph
        self.prefix = prefix
        self.name = name
        self.init: dict[str, list[str]] = {node.name: [] for node in graph.nodes}
        self.forward: list[str] = []
        self.taps: list[Tap] = []
        self.attributes: dict[str, str] = {}
        self.own: set[str] = set()
        self.borrowed: dict[str, str] = {}
        self.homes: dict[str, str] = {}
        self.declared: set[str] = set()
        self.vague: set[str] = set()
        self.masks: list[str] = []
        self.values: dict[tuple[str, int], tuple[Value, ...]] = {}
        self.uses: Counter[Ref] = Counter()
        self.outputs_of: dict[tuple[str, int], int] = {}
        self.holders: dict[str, set[Ref]] = {}
        self.dying: list[str] = []
        self.busy: set[str] = set()
        self.node = graph.nodes[0] if graph.nodes else None
        self.given: tuple[Value, ...] = ()
        self.outputs: tuple[Value, ...] = ()
        self.arguments: list[str] = []
        self.layers = {node.name: node for node in graph.nodes}

    # ------------------------------------------------------------------------------- the class

    def write(self, given: Sequence[Value], *, top: bool = False) -> None:
        """Write the class for a model that takes these values.

        Args:
            given: its inputs, as its first caller has them.
            top: whether it is the whole model, which takes and gives images with channels first.
        """
        self.given = tuple(self.entered(given))
        self.count_uses()
        for name, number in self.scheduled():
            self.call(self.layers[name], number)
        results = [self.value(ref) for ref in self.graph.outputs]
        if not self.graph.nodes:
            results = list(self.given)
        if top:
            results = [self.canonical(value) for value in results]
        shown = [value.text for value in results]
        masks = [] if top else [value.mask for value in results if value.mask]
        carried = [mask for mask in dict.fromkeys(masks) if mask not in self.arguments]
        self.masks = carried
        shown += carried
        if len(shown) == 1 and shown[0] in self.vague:  # for type checkers
            shown = [self.assigned(shown[0])]
        for line in lines(f"return {shown[0] if len(shown) == 1 else ', '.join(shown)}", 8):
            self.forward.append(line)
        self.outputs = tuple(results)
        self.forward = list(self.tapped(_without_unused(self.forward)))
        self.file.classes.append("\n".join(self.text(len(shown))))

    def tapped(self, forward: Sequence[str]) -> Iterator[str]:
        """The lines of a forward pass without the marks, each of which is a tap at its place."""
        statements = 0
        for line in forward:
            if line.startswith(_MARK):
                tap = self.taps[int(line.removeprefix(_MARK))]
                self.file.taps.append(replace(tap, statements=statements))
                continue
            statements += _STATEMENT.match(line) is not None
            yield line

    def entered(self, given: Sequence[Value]) -> Iterator[Value]:
        """The inputs as arguments of `forward`, those that have masks with another one behind."""
        names = [ref.layer for ref in self.graph.inputs] or ["x"] * len(given)
        for name, value in zip(names, given, strict=False):
            wanted = identifier(name.lower()[:LONGEST])
            if len(given) == 1 and DEFAULT_INPUT.fullmatch(wanted):
                wanted = "x"
            text = self.unused(wanted if wanted not in TAKEN else f"{wanted}_")
            self.arguments.append(text)
            self.declared.add(text)
            mask = ""
            if value.mask:
                mask = self.unused(f"{text}_mask")
                self.arguments.append(mask)
                self.declared.add(mask)
            yield replace(value, text=text, mask=mask)

    def text(self, results: int) -> Iterator[str]:
        """The lines of the class."""
        yield f"class {self.name}(nn.Module):"
        what = f"{self.graph.class_name} model {prose(self.graph.name)}"
        yield f'    """The {prose(what, 80)}."""'
        yield ""
        made = [line for node in self.graph.nodes for line in self.init[node.name]]
        if made or self.borrowed:
            borrowed = [f"{name}: nn.Module" for name in self.borrowed]
            yield from lines(f"def __init__({', '.join(['self', *borrowed])}) -> None:", 4)
            yield "        super().__init__()"
            for name in self.borrowed:
                yield f"        self.{name} = ({name},)  # not registered twice"
            yield from made
            yield ""
        takes = ", ".join(["self", *(f"{name}: Tensor" for name in self.arguments)])
        yield from lines(f"def forward({takes}) -> {gives(results)}:", 4)
        yield from self.forward

    # ------------------------------------------------------------------------------- scheduling

    def count_uses(self) -> None:
        """Count who needs each tensor."""
        for name, number in self.scheduled():
            node = self.layers[name]
            self.uses.update(node.inputs[number] if number < len(node.inputs) else ())
        self.uses.update(self.graph.outputs)
        for layer, number, tensor in self.uses:
            last = self.outputs_of.get((layer, number), 0)
            self.outputs_of[layer, number] = max(last, tensor)

    def scheduled(self) -> Iterator[tuple[str, int]]:
        """Every call that an output needs, each just behind what it takes."""
        done: set[tuple[str, int]] = set()
        for output in self.graph.outputs:
            stack = [((output.layer, output.call), False)]
            while stack:
                (name, number), ready = stack.pop()
                if (name, number) in done:
                    continue
                if ready:
                    done.add((name, number))
                    yield name, number
                    continue
                stack.append(((name, number), True))
                inputs = self.layers[name].inputs
                refs = inputs[number] if number < len(inputs) else ()
                stack += [((ref.layer, ref.call), False) for ref in reversed(refs)]

    def value(self, ref: Ref) -> Value:
        """What a tensor of the graph is in the forward pass."""
        values = self.values.get((ref.layer, ref.call), ())
        if ref.tensor >= len(values):
            raise UnsupportedError(
                f"{self.prefix}{ref.layer}: output {ref.tensor} is used, and the layer is known to "
                f"have {len(values)}"
            )
        return values[ref.tensor]

    # ----------------------------------------------------------------------------------- calls

    def call(self, node: Node, number: int) -> None:
        """Write one call of one layer."""
        refs = node.inputs[number] if number < len(node.inputs) else ()
        self.node = node
        path = self.prefix + node.name
        if node.same_as:
            self.homes[path] = node.same_as
        fed = {ref.layer: value for ref, value in zip(self.graph.inputs, self.given, strict=False)}
        inputs = tuple(map(self.value, refs))
        if not refs and node.name in fed:
            inputs = (fed[node.name],)
        elif not refs and not self.graph.inputs and node is self.graph.nodes[0]:
            inputs = self.given
        self.busy = {value.text for value in inputs} | {value.mask for value in inputs}
        self.dying = self.spent(refs, inputs)
        called = self.arguments_of(node, number, inputs)
        if node.graph is not None:
            made = self.nested(node, called, path=path)
        else:
            made = self.single(node, called, number=number, path=path)
        self.keep(node, number, made)

    def arguments_of(self, node: Node, number: int, inputs: tuple[Value, ...]) -> Given:
        """What a call is given, its tensors with the shapes that the configuration says."""
        refs = node.inputs[number] if number < len(node.inputs) else ()
        if not refs:
            return Given(inputs, list(inputs), {})
        written = arguments(node, number, names=self.layers.keys())
        shaped = [
            v if v.shape is not None else replace(v, shape=written.shapes.get(ref))
            for ref, v in zip(refs, inputs, strict=True)
        ]
        places = iter(shaped)
        args = [_filled(arg, places) for arg in written.args]
        named = {key: _filled(arg, places) for key, arg in written.named.items()}
        return Given(tuple(shaped), args, named)

    def spent(self, refs: Sequence[Ref], inputs: Sequence[Value]) -> list[str]:
        """Take note that these tensors are used; the variables that nothing needs any more."""
        for ref in refs:
            self.uses[ref] -= 1
        dying = []
        for value in inputs:
            held = self.holders.get(value.text, set())
            held -= {ref for ref in held if self.uses[ref] <= 0}
            if not held and value.text in POOL:
                dying.append(value.text)
        return dying

    def keep(self, node: Node, number: int, made: Sequence[Value]) -> None:
        """Put what a layer gives into variables."""
        kept: list[Value] = []
        for place, value in enumerate(made):
            ref = Ref(node.name, number, place)
            text = value.text
            if self.uses[ref] > 0:
                if not Variable.fullmatch(text):
                    text = self.assigned(text)
                self.holders.setdefault(text, set()).add(ref)
                self.tap(node, ref, replace(value, text=text))
            kept.append(replace(value, text=text))
        self.values[node.name, number] = tuple(kept)

    def tap(self, node: Node, ref: Ref, value: Value) -> None:
        """Mark the place at which a variable holds what a layer gives."""
        model = None if node.graph is None else self.file.models[self.home(self.prefix + node.name)]
        self.forward.append(f"{_MARK}{len(self.taps)}")
        self.taps.append(
            Tap(
                self.name,
                0,
                value.text,
                *ref,
                node.class_name,
                value.order,
                None if value.features is None else order_of(value.features),
                "" if model is None else model.name,
                node.wrapped > 0,
            )
        )

    def single(self, node: Node, given: Given, *, number: int, path: str) -> tuple[Value, ...]:
        """A layer that is no model."""
        from kerasport.codegen.calls import MASKS, told
        from kerasport.codegen.layers import rule_of, stub
        from kerasport.codegen.operations import performed

        inputs = given.inputs
        call_ = self.file.followed.layer(
            node, tuple(value.known for value in inputs), path=path, call=number
        )
        inputs = tuple(_with_shape(v, k) for v, k in _zipped(inputs, call_))
        case = Case(
            self,
            self.file.names.get(path, identifier(node.name)),
            path,
            options(node.class_name, node.config),
            inputs,
            given.args,
            given.named,
            tuple(k.shape for k in call_.outputs),
            call_.outputs,
            wanted=self.outputs_of.get((node.name, number), 0) + 1,
        )
        rule = rule_of(node, self.file, path)
        made = rule(case if rule in (stub, performed) else told(case))
        values = made if isinstance(made, tuple) else (made,)
        if case.o.class_name not in MASKS:
            values = tuple(replace(value, mask="") for value in values)
        return tuple(
            replace(
                value,
                shape=value.shape if value.shape is not None else _at(case.made, place),
                known=_at(call_.outputs, place) or self.file.followed.unknown,
            )
            for place, value in enumerate(values)
        )

    def nested(self, node: Node, called: Given, *, path: str) -> tuple[Value, ...]:
        """A model inside the model, which may be called for each step of a sequence."""
        from kerasport.codegen.calls import any_trains

        assert node.graph is not None
        always = self.file.keras < 3 and called.named.get("training") is True
        if always and any_trains(node.graph):
            raise UnsupportedError(
                f"{path}: this model is called with training=True, always; a module does that in "
                "training alone"
            )
        steps: list[str] = []
        given = tuple(tensors_in(called.args))
        masks = list(tensors_in([called.named.get("mask")]))
        if len(masks) == len(given):
            pairs = zip(given, masks, strict=True)
            given = tuple(replace(value, mask=mask.text) for value, mask in pairs)
        followed = self.file.followed
        for _ in range(node.wrapped):
            given = tuple(map(self.steps_second, given))
            steps.insert(0, given[0].text)
            given = tuple(map(self.by_step, given))
        home = self.home(path)
        body = self.file.models.get(home)
        if body is None:
            named = self.file.named(node.graph.name)
            body = Body(self.file, node.graph, prefix=f"{path}/", name=named)
            body.write([replace(value, mask="" if steps else value.mask) for value in given])
            self.file.models[home] = body
        borrowed = [self.reach(borrowed) for borrowed in body.borrowed.values()]
        callee = self.attribute(
            path, self.file.names.get(path, identifier(node.name)), call(body.name, *borrowed)
        )
        texts: list[str] = []
        for value, wanted in zip(given, body.given, strict=True):
            value = value if value.features == wanted.features else self.natural(value)
            if value.features != wanted.features:
                raise OrderError(path)
            rank = value.rank or 0
            texts.append(value.at(wanted.order or range(rank)).text if rank else value.text)
            if wanted.mask:
                if not value.mask:
                    raise UnsupportedError(f"{path}: one of its calls has steps to skip, one none")
                texts.append(value.mask)
        text = f"{callee}({', '.join(texts)})"
        carried = {inner.mask: outer.mask for inner, outer in zip(body.given, given, strict=True)}
        count = len(body.outputs) + len(body.masks)
        shown = [text]
        if count > 1:
            shown = self.unpacked(text, self.many(count, "out"))
        carried |= dict(zip(body.masks, shown[len(body.outputs) :], strict=True))
        results = []
        for variable, value in zip(shown, body.outputs, strict=False):
            made = replace(value, text=variable, mask=carried.get(value.mask, ""))
            for step in steps:
                made = replace(self.all_steps(made, step), known=followed.leave(made.known))
            results.append(made)
        return tuple(results)

    def steps_second(self, value: Value) -> Value:
        """A sequence with its steps behind the batch."""
        rank = value.rank
        if rank is None:
            raise UnsupportedError(f"{self.prefix}: a sequence whose shape is not known")
        if value.order and value.order[:2] != (0, 1):
            value = value.at((0, 1, *(axis for axis in value.order if axis > 1)))
            value = replace(value, text=self.temporary(value.text))
        return value

    def by_step(self, value: Value) -> Value:
        """The value with its steps in the batch."""
        rank = value.rank or 0
        order = value.order or tuple(range(rank))
        inner = (0, *(axis - 1 for axis in order[2:]))
        shape = value.shape and (None, *value.shape[2:])
        return replace(
            value,
            text=f"{value.text}.flatten(0, 1)",
            order=() if inner == tuple(range(rank - 1)) else inner,
            shape=shape,
            known=None if value.known is None else self.file.followed.enter(value.known),
            mask="",
        )

    def all_steps(self, value: Value, source: str, shape: Shape = None) -> Value:
        """The value of all steps again, whose number is that of a sequence."""
        rank = value.rank
        order: tuple[int, ...] = ()
        if value.order and rank is not None:
            order = (0, 1, *(axis + 1 for axis in value.order[1:]))
        made = value.shape and (value.shape[0], None, *value.shape[1:])
        return replace(
            value,
            text=f"torch.unflatten({value.text}, 0, {source}.shape[:2])",
            order=order,
            shape=shape or made,
        )

    # ------------------------------------------------------------------------------- attributes

    def home(self, path: str) -> str:
        """Where the layer at a path has its weights: an object at two paths has one."""
        return self.homes.get(path, path)

    def attribute(self, path: str, name: str, text: str) -> str:
        """The attribute of a layer, which is made when it is first asked for."""
        if path in self.attributes:
            return self.attributes[path]
        home = self.home(path)
        if home != path and self.file.holds(home) and not self.file.holds(path):
            self.attributes[path] = self.reach(home)
            return self.attributes[path]
        self.attributes[path] = f"self.{name}"
        self.own.add(name)
        self.made(f"self.{name} = {text}")
        return f"self.{name}"

    def extra(self, name: str, text: str) -> str:
        """An attribute that no layer has asked for under its own name."""
        wanted = name
        number = 2
        while name in self.own or name in self.file.names.values():
            name = f"{wanted}_{number}"
            number += 1
        self.own.add(name)
        self.made(f"self.{name} = {text}")
        return f"self.{name}"

    def reach(self, path: str) -> str:
        """An expression for a module that is registered under another path."""
        if path.startswith(self.prefix) and path != self.prefix:
            words = path.split("/")
            skip = self.prefix.count("/")
            steps = ["/".join(words[: n + 1]) for n in range(skip, len(words))]
            return ".".join(["self", *(self.file.names[step] for step in steps)])
        for name, borrowed in self.borrowed.items():
            if borrowed == path:
                return f"self.{name}[0]"
        name = self.file.names[path]
        wanted, number = name, 2
        while name in self.borrowed or name in self.own:
            name = f"{wanted}_{number}"
            number += 1
        self.own.add(name)
        self.borrowed[name] = path
        return f"self.{name}[0]"

    def made(self, text: str) -> None:
        """A line of `__init__`."""
        assert self.node is not None
        self.init[self.node.name].extend(lines(text, 8))

    def stub(
        self,
        name: str,
        what: str,
        tensors: Mapping[str, tuple[int, ...]] | None = None,
        *,
        outputs: int = 1,
    ) -> str:
        """A class that stands for code that the file does not hold; its name."""
        made = self.file.named(name.rpartition(">")[2])
        said = textwrap.wrap(f"fill in {what}".replace("…", "..."), 86, drop_whitespace=False)
        text = [f"raise NotImplementedError({literal(said[0])})"]
        if len(said) > 1:  # a string longer than a line, as a formatter leaves it
            text = ["raise NotImplementedError(", *(f"    {literal(part)}" for part in said), ")"]
        body = [
            f"class {made}(nn.Module):",
            f'    """Stands for {prose(what, 76)}."""',
            "",
            *held(tensors or {}),
            f"    def forward(self, *inputs: Tensor) -> {gives(outputs)}:",
            *(lines(text[0], 8) if len(text) == 1 else (f"        {line}" for line in text)),
        ]
        self.file.classes.append("\n".join(body))
        return made

    def snippet(self, text: str, config: Mapping[str, JSON]) -> str:
        """A user's own module as it is, and how it is made.

        It is given those options of the layer that its `__init__` has parameters for.
        """
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            raise UsageError(f"a snippet is no Python: {error}") from None
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        if not classes:
            raise UsageError("a snippet defines no class: expected a subclass of nn.Module")
        own = classes[-1]
        if text not in self.file.classes:
            if own.name in self.file.taken:
                raise UsageError(f"a snippet defines {own.name}, which the module has already")
            self.file.taken.update(node.name for node in classes)
            self.file.classes.append(text.strip("\n"))
        made = next((f for f in own.body if isinstance(f, ast.FunctionDef)), None)
        wanted = (
            [arg.arg for arg in (*made.args.args, *made.args.kwonlyargs)]
            if made is not None and made.name == "__init__"
            else []
        )
        return call(own.name, **{name: literal(config[name]) for name in wanted if name in config})

    # -------------------------------------------------------------------------------- variables

    def say(self, text: str) -> None:
        """A line of `forward`."""
        self.forward.extend(lines(text, 8))

    def assigned(self, text: str) -> str:
        """Put an expression into a variable that nothing needs any more."""
        free = [name for name in POOL if not self.holders.get(name) and not self.is_argument(name)]
        target = next((name for name in self.dying if name in free), None)
        if target is None:
            target = next(name for name in free if name not in self.busy)
        self.bind(target, text)
        self.dying = [name for name in self.dying if name != target]
        self.busy.add(target)
        return target

    def is_argument(self, name: str) -> bool:
        """Whether a variable is an argument that keeps its name."""
        return name in self.arguments and not (name == "x" and len(self.arguments) == 1)

    def temporary(self, text: str, name: str = "") -> str:
        """Put an expression into a variable that this call alone uses, or that has this name."""
        target = self.unused(name) if name else next(iter(self.fresh(1)))
        self.bind(target, text)
        self.busy.add(target)
        return target

    def fresh(self, count: int) -> list[str]:
        """Variables that hold nothing."""
        names = (
            name
            for name in POOL
            if not self.holders.get(name) and name not in self.busy and name not in self.arguments
        )
        return [next(names) for _ in range(count)]

    def unpacked(self, text: str, names: Sequence[str], used: Sequence[bool] = ()) -> list[str]:
        """Put the parts of a tuple into variables; those that nothing uses into none."""
        shown = [name if not used or used[place] else "_" for place, name in enumerate(names)]
        self.say(f"{', '.join(shown)} = {text}")
        self.declared.update(names)
        self.vague.update(names)
        self.busy.update(names)
        return list(names)

    def bind(self, target: str, text: str) -> None:
        """Give a variable a value, and a type where it has none yet."""
        if target not in self.declared and target not in self.arguments:
            self.declared.add(target)
            self.say(f"{target}: Tensor = {text}")
        else:
            self.say(f"{target} = {text}")

    def many(self, count: int, wanted: str) -> list[str]:
        """Several names that no variable has had."""
        names: list[str] = []
        for _ in range(count):
            names.append(self.unused(wanted))
            self.declared.add(names[-1])
        return names

    def unused(self, wanted: str) -> str:
        """A name that no variable has had."""
        name, number = wanted, 2
        while name in self.declared or name in self.arguments or name in TAKEN:
            name = f"{wanted}_{number}"
            number += 1
        self.declared.discard(name)
        return name

    # ------------------------------------------------------------------------------- conversions

    def natural(self, value: Value) -> Value:
        """The value with its features in Keras's order."""
        if value.features is None:
            return value
        text = unflattened(value.straight().text, value.features)
        if text is None:
            raise OrderError(value.text)
        return replace(value, text=text, features=None, order=())

    def canonical(self, value: Value) -> Value:
        """The value as a user of PyTorch takes it: images with channels first."""
        value = self.natural(value)
        rank = value.rank
        if rank is None:
            return value
        image = rank >= 4 and not value.matrix and not self.file.followed.channels_first
        return value.at(image_order(rank)) if image else value.straight()


def gives(results: int) -> str:
    """The type of so many tensors."""
    return "Tensor" if results == 1 else f"tuple[{', '.join(['Tensor'] * results)}]"


def held(tensors: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    """The lines that make a stub hold the tensors of the layer that it stands for."""
    if not tensors:
        return
    yield "    def __init__(self) -> None:"
    yield "        super().__init__()"
    made: set[str] = set()
    for name, shape in tensors.items():
        owner, _, last = name.rpartition(".")
        holder = "self"
        for word in owner.split(".") if owner else ():
            inner = f"{holder}.get_submodule({literal(word)})"
            if inner not in made:
                made.add(inner)
                yield from lines(f"{holder}.add_module({literal(word)}, nn.Module())", 8)
            holder = inner
        value = f"nn.Parameter(torch.zeros({literal(shape)}))"
        yield from lines(f"{holder}.register_parameter({literal(last)}, {value})", 8)
    yield ""


_MARK: Final = "#"
_STATEMENT: Final = re.compile(r" {8}[^\s)\]}]")
_MASK: Final = re.compile(r" {8}(mask(?:_\d+)?)(?:: Tensor)? = ")


def _without_unused(forward: Sequence[str]) -> Sequence[str]:
    """The lines of a forward pass without masks that nothing asks for."""
    for number, line in enumerate(forward):
        if found := _MASK.match(line):
            name = re.compile(rf"\b{found.group(1)}\b(?!=)")
            if not any(name.search(later) for later in forward[number + 1 :]):
                return _without_unused([*forward[:number], *forward[number + 1 :]])
    return forward


def _filled(arg: Any, values: Iterator[Value]) -> Any:
    """An argument with its tensors as Values."""
    if isinstance(arg, Ref):
        return next(values)
    if isinstance(arg, list):
        return [_filled(item, values) for item in arg]
    if isinstance(arg, dict):
        return {key: _filled(item, values) for key, item in arg.items()}
    return arg


def tensors_in(arg: Any) -> Iterator[Value]:
    """The tensors in an argument.

    Args:
        arg: a tensor, a list or dictionary of arguments, or anything else.
    """
    if isinstance(arg, Value):
        yield arg
    elif isinstance(arg, list | dict):
        for item in arg.values() if isinstance(arg, dict) else arg:
            yield from tensors_in(item)


def _zipped(values: Sequence[Value], made: Call[Any]) -> Iterator[tuple[Value, Any]]:
    for place, value in enumerate(values):
        yield value, made.inputs[place] if place < len(made.inputs) else value.known


def _with_shape(value: Value, known_: Any) -> Value:
    """The value with the shape that the layer was built for, where its maker knew none."""
    if value.shape is None and known_ is not None and known_.shape is not None:
        return replace(value, shape=known_.shape)
    return value


def _at(values: Sequence[Any], place: int) -> Any:
    return values[place] if place < len(values) else None
