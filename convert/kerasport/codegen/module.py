"""One `model.py`: the parts that it needs, a class for each model, and how its weights are loaded.

Where features of a flattened image reach something that Keras orders in another way than PyTorch
and no weights can be put right, the whole model keeps Keras's order: the module then flattens as
Keras does, and the state dict holds the rows as they were.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from kerasport.architecture import Graph, Ref, parse
from kerasport.codegen.body import TAKEN, Body, File, OrderError, Tap
from kerasport.codegen.parts import PARTS, used
from kerasport.codegen.text import WIDTH, prose
from kerasport.codegen.values import Value
from kerasport.errors import KerasportError, MalformedError, UnsupportedError
from kerasport.flatten import _Followed as Followed
from kerasport.flatten import flattened
from kerasport.model import Note, Snapshot
from kerasport.names import module_names
from kerasport.shapes import Shape, inputs_of
from kerasport.transpose import Plan, plan
from kerasport.variants import plain

__all__ = ["MADE_BY", "Module", "module", "source"]

MADE_BY: Final = "made by kerasport from"


@dataclass(frozen=True, eq=False, slots=True)
class Module:
    """A generated module, and the plan of the state dict that loads into it.

    Attributes:
        source: the text of `model.py`.
        name: the name of the class that is the model.
        plan: how the state dict is made.
        notes: what the module leaves out, and stubs that are to be filled in.
        inputs: for each input, which of Keras's axes each of its dimensions is; empty where all
            are where Keras has them.
        outputs: the same for each output.
        double: whether the model computes in float64.
        arguments: the names of the inputs in the module.
        given: the names of the inputs in Keras; empty where the file does not name them.
        shapes: the shapes of the inputs in Keras, batch included; None where unknown.
        results: which tensors the outputs are: the name of the layer, the number of the call, and
            of the tensor.
        taps: where the layers' outputs are.
    """

    source: str
    name: str
    plan: Plan
    notes: tuple[str, ...]
    inputs: tuple[tuple[int, ...], ...] = ()
    outputs: tuple[tuple[int, ...], ...] = ()
    double: bool = False
    arguments: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    shapes: tuple[Shape, ...] = ()
    results: tuple[Ref, ...] = ()
    taps: tuple[Tap, ...] = ()


def source(
    snapshot: Snapshot, *, flatten: str = "reorder", snippets: Mapping[str, str] | None = None
) -> str:
    """The text of a `model.py` that computes what the model does.

    >>> import kerasport
    >>> text = source(kerasport.read("fixtures/cnn.keras"))
    >>> [line.strip() for line in text.splitlines() if "self.stem" in line]  # doctest: +ELLIPSIS
    ['self.stem = SameConv2d(1, 6, (3, 2))', ..., 'x: Tensor = torch.relu(self.stem(image))', ...]

    Args:
        snapshot: what `kerasport.read` gave.
        flatten: as for `plan`.
        snippets: by class or path of a layer, the source of the `nn.Module` that stands for it.

    Raises:
        UnsupportedError: the file has no architecture, or a layer that no module can stand for.
    """
    return module(snapshot, flatten=flatten, snippets=snippets).source


def module(
    snapshot: Snapshot,
    *,
    flatten: str = "reorder",
    unknown: str = "error",
    dtype: str | None = None,
    snippets: Mapping[str, str] | None = None,
) -> Module:
    """The source of a module, and the plan of the state dict that fits it.

    Args:
        snapshot: what `kerasport.read` gave.
        flatten: as for `plan`; `reorder` is given up where it could not be followed to the end.
        unknown: as for `plan`: with `keep`, a stub holds the tensors of its layer.
        dtype: what the tensors will be cast to.
        snippets: by class or path of a layer, the source of the `nn.Module` that stands for it.

    Raises:
        UnsupportedError: the file has no architecture, or a layer that no module can stand for.
    """
    graph = None if snapshot.architecture is None else parse(snapshot.architecture)
    if graph is None and snapshot.architecture is not None:
        name = snapshot.architecture.get("class_name")
        raise UnsupportedError(
            f"{snapshot.source.file}: expected an architecture that lists its layers; that of a "
            f"{name} has its options alone, and its code is not in it. Convert its weights without "
            "a module"
        )
    if graph is None:
        raise UnsupportedError(
            f"{snapshot.source.file}: expected a model with its architecture, found weights alone; "
            "give the architecture with --config"
        )
    packed = [x.path for x in snapshot.layers if x.kind is not None and plain(x.kind) != x.kind]
    if packed:
        raise UnsupportedError(
            f"{snapshot.source.file}: a module holds plain weights, and these layers are quantized "
            "or have low-rank factors; read the file with --dequantize or --merge-lora:",
            packed,
        )
    for choice in dict.fromkeys((flatten, "keep")):
        steps = plan(snapshot, to="torch", flatten=choice, unknown=unknown, module=True)
        try:
            made = _module(
                snapshot, graph, steps, snippets or {}, reorder=choice == "reorder", dtype=dtype
            )
            notes = (Note("module", "model.py", note) for note in made.notes)
            return replace(made, plan=replace(steps, notes=(*steps.notes, *notes)))
        except OrderError:
            continue
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, KerasportError):
                raise
            raise MalformedError(
                f"{snapshot.source.file}: expected a configuration that Keras could build a model "
                f"from, found one that contradicts itself ({error})"
            ) from error
    raise AssertionError("in Keras's own order, nothing is out of order")


def _module(
    snapshot: Snapshot,
    graph: Graph,
    steps: Plan,
    snippets: Mapping[str, str],
    *,
    reorder: bool,
    dtype: str | None,
) -> Module:
    names = module_names(snapshot, _paths(graph, ""))
    tensors: dict[str, dict[str, tuple[int, ...]]] = {}
    for move in steps.moves:
        words = move.layer.split("/")
        here = ".".join(names["/".join(words[: n + 1])] for n in range(len(words)))
        tensors.setdefault(move.layer, {})[move.name.removeprefix(f"{here}.")] = move.shape
    followed = Followed.of(graph)
    floats = {str(t.dtype) for t in snapshot.tensors if t.dtype.kind == "f"}
    file = File(
        {layer.path: layer for layer in snapshot.layers},
        tensors,
        names,
        flattened(snapshot).orders if reorder else None,
        followed,
        _keras(snapshot),
        snippets=snippets,
        taken={*TAKEN, *PARTS},
    )
    body = Body(file, graph, prefix="", name=file.named(graph.name))
    body.write(list(_given(graph, snapshot, followed)), top=True)
    double = floats == {"float64"} if dtype is None else dtype == "f64"
    return Module(
        "\n".join(_text(file, body, snapshot, double=double)) + "\n",
        body.name,
        steps,
        tuple(dict.fromkeys(file.notes)),
        tuple(value.order for value in body.given),
        tuple(value.order for value in body.outputs),
        double,
        tuple(body.arguments),
        tuple(ref.layer for ref in graph.inputs),
        tuple(value.shape for value in body.given),
        graph.outputs,
        tuple(file.taps),
    )


def _paths(graph: Graph, prefix: str) -> Iterator[str]:
    for node in graph.nodes:
        yield prefix + node.name
        if node.graph is not None:
            yield from _paths(node.graph, f"{prefix}{node.name}/")


def _keras(snapshot: Snapshot) -> int:
    """The major version of the Keras that wrote the file."""
    written = re.match(r"(\d+)\.", snapshot.source.keras_version or "")
    if written:
        return int(written.group(1))
    return 3 if snapshot.source.format == "keras" else 2


def _given(graph: Graph, snapshot: Snapshot, followed: Any) -> Iterator[Value]:
    """The model's inputs: images with channels first, everything else as in Keras."""
    written = inputs_of(snapshot.architecture)
    layers = {node.name: node for node in graph.nodes}
    shapes: list[Shape] = []
    for ref in graph.inputs:
        config = layers[ref.layer].config
        shape = config.get("batch_shape") or config.get("batch_input_shape")
        shapes.append(tuple(shape) if isinstance(shape, list | tuple) else None)
    if not graph.inputs:
        first = graph.nodes[0] if graph.nodes else None
        shape = None
        if first is not None:
            shape = first.config.get("batch_input_shape") or (first.build or {}).get("input_shape")
            if shape is None and first.graph is not None:
                inner = list(_given(first.graph, snapshot, followed))
                shape = inner[0].shape if inner else None
        shapes = [tuple(shape) if isinstance(shape, list | tuple) else None]
    for place, shape in enumerate(shapes):
        if shape is None and place < len(written):
            shape = written[place]
        known = followed.entering(shape)
        image = bool(known.channel)
        rank = len(shape) if shape is not None else 0
        order = (0, rank - 1, *range(1, rank - 1)) if image else ()
        yield Value("x", shape=shape, order=order, known=known)


LOADING = '''
def load(path: str | Path | None = None) -> {name}:
    """The model with its weights, ready for inference.

    Args:
        path: a safetensors file; `model.safetensors` beside this file where None.
    """
    model = {name}(){cast}
    model.load_state_dict(weights(path or Path(__file__).with_name("model.safetensors")))
    return model.eval()


def weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file."""
    data = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    entries = json.loads(data[8:start])
    entries.pop("__metadata__", None)
    tensors: dict[str, Tensor] = {{}}
    for name, entry in entries.items():
        shape, offset = entry["shape"], start + entry["data_offsets"][0]
        dtype = DTYPES[entry["dtype"]]
        flat = torch.frombuffer(data, dtype=dtype, count=math.prod(shape), offset=offset)
        tensors[name] = flat.reshape(shape)
    return tensors
'''


def _text(file: File, body: Body, snapshot: Snapshot, *, double: bool) -> Iterator[str]:
    classes = file.classes
    held = {str(tensor.dtype) for tensor in snapshot.tensors}
    parts = used(classes)
    whole = "\n".join([*classes, *parts])
    file_name = prose(snapshot.source.file, 30)
    name = prose(body.graph.name, 20)
    yield f'"""The model {name} in PyTorch, {MADE_BY} {file_name}.'
    yield ""
    yield from _about(file, body)
    yield '"""'
    yield ""
    yield "import json"
    yield "import math"
    imported = [name for name in ("Callable", "Sequence") if re.search(rf"\b{name}\[", whole)]
    if imported:
        yield f"from collections.abc import {', '.join(imported)}"
    yield "from pathlib import Path"
    yield ""
    yield "import torch"
    yield "from torch import Tensor, nn"
    if re.search(r"\bF\.[a-z]", whole):
        yield "from torch.nn import functional as F"
    yield ""
    yield "DTYPES = {"
    for name, dtype in DTYPES.items():
        if name in USUAL or dtype in held:
            yield f'    "{name}": torch.{dtype},'
    yield "}"
    for part in [*parts, *classes]:
        yield ""
        yield ""
        yield part
    yield ""
    cast = ".double()" if double else ""
    yield LOADING.format(name=body.name, cast=cast).rstrip("\n")


USUAL = frozenset({"F64", "F32", "F16", "BF16", "I64"})
DTYPES: Mapping[str, str] = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def _about(file: File, body: Body) -> Iterator[str]:
    """What goes in and what comes out, for whoever opens the file."""
    yield "Images are `batch channels height width`, sequences `batch steps features`."
    yield ""
    places = [("takes", body.arguments, body.given), ("gives", None, body.outputs)]
    for verb, names, values in places:
        for place, value in enumerate(values):
            name = names[place] if names is not None else f"output {place + 1}"
            if names is None and len(values) == 1:
                name = "the output"
            yield f"{'Takes' if verb == 'takes' else 'Gives'} {name}: {_shape(value)}"
    notes = list(dict.fromkeys(file.notes))
    if notes:
        yield ""
        for note in notes:
            yield from textwrap.wrap(f"- {note}", WIDTH, subsequent_indent="  ")


def _shape(value: Value) -> str:
    if value.shape is None:
        return "of a shape that the file does not say"
    order = value.order or tuple(range(len(value.shape)))
    sizes = [value.shape[axis] for axis in order]
    words = ["N", *("?" if size is None else str(size) for size in sizes[1:])]
    return " ".join(words)
