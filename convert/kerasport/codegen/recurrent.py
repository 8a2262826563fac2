"""Recurrent layers: the fused ones of PyTorch where they compute the same, else step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from kerasport.architecture import class_of
from kerasport.codegen import activations
from kerasport.codegen.body import Case
from kerasport.codegen.images import Window, conv_width, front
from kerasport.codegen.linear import bias
from kerasport.codegen.text import call, prose, tuple_of
from kerasport.codegen.values import Value
from kerasport.errors import UnsupportedError
from kerasport.options import Options, options

JSON = Any
Result = Value | tuple[Value, ...]

NATIVE: Final = {"LSTM": "nn.LSTM", "GRU": "nn.GRU", "SimpleRNN": "nn.RNN"}


STEPWISE: Final = {"LSTM": "StepwiseLSTM", "GRU": "StepwiseGRU", "SimpleRNN": "StepwiseRNN"}


class Recurrent:
    """What a recurrent layer is: its cell, its options, and the module that computes it."""

    def __init__(self, c: Case, o: Options, *, both: bool) -> None:
        cell = o("cell")
        if isinstance(cell, Mapping):
            inner = options(str(cell.get("class_name", "")).removesuffix("Cell"), cell["config"])
            o = Options(inner.class_name, {**inner.given, **o.given, "cell": None})
        if o.class_name not in NATIVE:
            raise UnsupportedError(f"{c.path}: a cell of class {prose(o.class_name)}")
        self.c, self.o, self.both = c, o, both
        self.kind = o.class_name
        keras = c.file.keras
        reset_after = o("reset_after", False) or (o.class_name == "GRU" and _is_cudnn(c))
        self.before = self.kind == "GRU" and not reset_after
        self.activation = o.given.get("activation", "tanh")
        self.gate = o.given.get("recurrent_activation", default_gate(c))
        self.sequences = bool(o("return_sequences"))
        self.states = bool(o("return_state"))
        self.backwards = bool(o("go_backwards"))
        mask = c.named.get("mask")
        self.mask = mask.text if isinstance(mask, Value) else c.x.mask
        self.keras = keras
        if o("stateful"):
            c.file.notes.append(f"{prose(c.path)} keeps its state between batches; not here")

    @property
    def native(self) -> bool:
        """Whether `torch.nn` computes the same."""
        own, _ = activations.activation_name(self.activation)
        gate, _ = activations.activation_name(self.gate)
        if self.before or self.mask:
            return False
        if self.kind == "SimpleRNN":
            return own in ("tanh", "relu")
        return own == "tanh" and gate == "sigmoid"

    def module(self) -> str:
        """How the module is made."""
        c, o = self.c, self.o
        ins = c.tensors["weight_ih_l0"][1] if "weight_ih_l0" in c.tensors else c.channels()
        own, _ = activations.activation_name(self.activation)
        named: dict[str, str | None] = {
            "bias": None if o("use_bias", True) else "False",
            "bidirectional": "True" if self.both else None,
        }
        if self.native:
            relu = self.kind == "SimpleRNN" and own == "relu"
            return call(
                NATIVE[self.kind],
                str(ins),
                str(int(o("units"))),
                nonlinearity='"relu"' if relu else None,
                batch_first="True",
                **named,
            )
        gate, _ = activations.activation_name(self.gate)
        for written in (self.activation, self.gate):
            if not activations.known(written):
                raise UnsupportedError(f"{c.path}: an activation of a user's own in its steps")
        zero = bool(o("zero_output_for_mask")) or self.both
        function = activations.as_function
        return call(
            "GRUResetBefore" if self.before else STEPWISE[self.kind],
            str(ins),
            str(int(o("units"))),
            activation=None if own == "tanh" else function(self.activation, keras=self.keras),
            gate=None
            if gate == "sigmoid" or self.kind == "SimpleRNN"
            else function(self.gate, keras=self.keras),
            zero_masked="True" if zero and self.sequences and self.mask else None,
            **named,
        )


def _is_cudnn(c: Case) -> bool:
    layer = c.layer
    return layer is not None and layer.kind is not None and layer.kind.endswith("GRU")


def default_gate(c: Case) -> str:
    """The activation of the gates where a file says none."""
    return "sigmoid"


def initial_states(c: Case, both: bool, count: int) -> list[Value]:
    """The states that a call is given, as Keras lists them."""
    given = c.named.get("initial_state")
    states = given if isinstance(given, list) else [] if given is None else [given]
    if not states:
        states = [value for arg in c.args for value in (arg if isinstance(arg, list) else [arg])]
        states = states[1:]
    return [state for state in states if isinstance(state, Value)][: count * (1 + both)]


def recurrent(c: Case) -> Result:
    """A recurrent layer."""
    cell = c.o("cell")
    if isinstance(cell, Mapping) and cell.get("class_name") == "StackedRNNCells":
        return stacked(c, cell)
    return ran(c, Recurrent(c, c.o, both=False))


def ran(c: Case, r: Recurrent, module: str = "") -> Result:
    """A recurrent layer in one direction, which may be an attribute of another module."""
    x = c.fed(c.x).straight()
    text = f"{x.text}.flip(1)" if r.backwards else x.text
    mask = f"{r.mask}.flip(1)" if r.backwards and r.mask else r.mask
    count = 2 if r.kind == "LSTM" else 1
    states = [c.plain(state).text for state in initial_states(c, False, count)]
    args = [text]
    if states:
        shown = [f"{state}.unsqueeze(0)" for state in states]
        wrapped = r.native and r.kind != "LSTM"
        args.append(shown[0] if wrapped else tuple_of(*shown))
    if mask:
        args.append(f"mask={mask}")
    called = f"{module or c.module(r.module())}({', '.join(args)})"
    kept_mask = mask if r.sequences and not r.backwards else ""
    last = "[0]" if r.kind == "LSTM" or not r.native else ""
    if not r.states:
        if r.sequences:
            return Value(f"{called}[0]", mask=kept_mask)
        return Value(f"{called}[1]{last}[0]")
    names = [c.body.unused(name) for name in ("sequence", "state")]
    c.body.unpacked(called, names, (r.sequences, True))
    if r.kind == "LSTM" or not r.native:
        finals = [Value(f"{names[1]}[{n}][0]") for n in range(count)]
    else:
        finals = [Value(f"{names[1]}[0]")]
    first = Value(names[0], mask=kept_mask) if r.sequences else finals[0]
    return (first, *finals)


DIRECTIONS: Final = ("forward_layer", "backward_layer")


def directions(c: Case) -> Result:
    """Two layers that are not alike, one for each direction."""
    written = [c.o("layer"), c.o("backward_layer") or c.o("layer")]
    parts: list[tuple[Case, Recurrent]] = []
    for name, inner in zip(DIRECTIONS, written, strict=True):
        o = options(class_of(inner)[0], inner.get("config") or {})
        o = Options(o.class_name, {**o.given, "zero_output_for_mask": True})
        own = replace(c, path=f"{c.body.home(c.path)}/{name}", o=o)
        parts.append((own, Recurrent(own, o, both=False)))
    if [r.backwards for _, r in parts] != [False, True]:
        raise UnsupportedError(f"{c.path}: expected a layer forwards and one backwards")
    module = c.module(
        call("Directions", **dict(zip(DIRECTIONS, (r.module() for _, r in parts), strict=True)))
    )
    counts = [2 if r.kind == "LSTM" else 1 for _, r in parts]
    given = iter(initial_states(c, False, sum(counts)))
    firsts: list[str] = []
    finals: list[Value] = []
    x = c.once(c.x)
    for name, (own, r), count in zip(DIRECTIONS, parts, counts, strict=True):
        states = [state for _, state in zip(range(count), given, strict=False)]
        called = {**c.named, "initial_state": states}
        made = ran(replace(own, inputs=(x,), args=[x], named=called), r, f"{module}.{name}")
        first, *last = made if isinstance(made, tuple) else (made,)
        turned = f"{first.text}.flip(1)" if r.backwards and r.sequences else first.text
        firsts.append(c.body.temporary(turned))
        finals += last
    ahead, back = firsts
    merged = merged_directions(c, ahead, back, parts[0][1].mask if parts[0][1].sequences else "")
    return (*merged, *finals) if len(merged) + len(finals) > 1 else merged[0]


def merged_directions(c: Case, ahead: str, back: str, mask: str) -> list[Value]:
    """What both directions give, as Keras puts it together."""
    match c.o.given.get("merge_mode", "concat"):
        case "concat":
            return [Value(f"torch.cat(({ahead}, {back}), dim=-1)", mask=mask)]
        case "sum":
            return [Value(f"{ahead} + {back}", mask=mask)]
        case "ave":
            return [Value(f"({ahead} + {back}) / 2", mask=mask)]
        case "mul":
            return [Value(f"{ahead} * {back}", mask=mask)]
        case None:
            return [Value(ahead, mask=mask), Value(back, mask=mask)]
        case mode:
            raise UnsupportedError(f"{c.path}: merging by {prose(str(mode))}")


def stacked(c: Case, written: Mapping[str, JSON]) -> Result:
    """Several cells in one loop, which are as many layers one after the other."""
    cells = (written.get("config") or {}).get("cells") or []
    if initial_states(c, False, 2 * len(cells)):
        raise UnsupportedError(f"{c.path}: cells in one loop that are given their first states")
    paths = [path for path in c.file.layers if path.startswith(f"{c.body.home(c.path)}/")]
    if len(paths) != len(cells):
        raise UnsupportedError(f"{c.path}: the weights of these cells are not in the file")
    named: dict[str, str | None] = {}
    count = 0
    parts: list[Recurrent] = []
    for path, cell in zip(paths, cells, strict=True):
        o = Options("RNN", {**c.o.given, "cell": cell, "return_state": True})
        part = Recurrent(replace(c, path=path), o, both=False)
        count += 2 if part.kind == "LSTM" else 1
        parts.append(part)
        named[c.file.names[path]] = part.module()
    x = c.fed(c.x).straight()
    backwards, r = bool(c.o("go_backwards")), parts[-1]
    text = f"{x.text}.flip(1)" if backwards else x.text
    mask = f", mask={r.mask}{'.flip(1)' if backwards else ''}" if r.mask else ""
    called = f"{c.module(call('StackedRNN', **named))}({text}{mask})"
    if not c.o("return_state"):
        if r.sequences:
            return Value(f"{called}[0]", mask="" if backwards else r.mask)
        return Value(f"{called}[0][:, -1]")
    names = [c.body.unused(name) for name in ("sequence", "state")]
    c.body.unpacked(called, names)
    first = Value(names[0] if r.sequences else f"{names[0]}[:, -1]")
    finals: list[Value] = []
    for part in parts:
        for _ in range(2 if part.kind == "LSTM" else 1):
            n = len(finals)
            deep = "[0]"
            finals.append(Value(f"{names[1]}[{n}]{deep}"))
    return (first, *finals)


def conv_lstm(c: Case) -> Result:
    """An LSTM of images."""
    o = c.o
    ins = c.tensors["input.weight"][1] if "input.weight" in c.tensors else conv_width(c)
    filters = int(o("filters"))
    inner = Window(c).module(ins, 4 * filters, groups=1, bias=bias(c))
    own = replace(
        c, o=Options(o.class_name, {"kernel_size": list(o.each("kernel_size")), "padding": "same"})
    )
    again = Window(own).module(filters, 4 * filters, groups=1, bias="False")
    written, gate_written = (
        o.given.get("activation", "tanh"),
        o.given.get("recurrent_activation", "sigmoid" if c.file.keras >= 3 else "hard_sigmoid"),
    )
    if not (activations.known(written) and activations.known(gate_written)):
        raise UnsupportedError(f"{c.path}: an activation of a user's own in its steps")
    function, keras = activations.as_function, c.file.keras
    name, gate_name = (activations.activation_name(a)[0] for a in (written, gate_written))
    module = call(
        "ConvLSTM",
        inner,
        again,
        activation=None if name == "tanh" else function(written, keras=keras),
        gate=None if gate_name == "sigmoid" else function(gate_written, keras=keras),
    )
    rank = o.rank
    order = (0, 1, *(n + 1 for n in front(c, rank)[1:]))
    x = c.body.natural(c.x).at(order)
    if x.mask:
        raise UnsupportedError(f"{c.path}: steps to skip")
    text = f"{x.text}.flip(1)" if o("go_backwards") else x.text
    states = [state.at(front(c, rank)).text for state in initial_states(c, False, 2)]
    given = f", {tuple_of(*states)}" if states else ""
    called = f"{c.module(module)}({text}{given})"
    sequences = bool(o("return_sequences"))
    if not o("return_state"):
        if sequences:
            return Value(f"{called}[0]", order=order)
        return Value(f"{called}[1][0]", order=front(c, rank))
    names = [c.body.unused(name) for name in ("sequence", "state")]
    c.body.unpacked(called, names, (sequences, True))
    finals = [Value(f"{names[1]}[{n}]", order=front(c, rank)) for n in (0, 1)]
    first = Value(names[0], order=order) if sequences else finals[0]
    return (first, *finals)


def bidirectional(c: Case) -> Result:
    """A recurrent layer in both directions."""
    inner = c.o("layer")
    if not isinstance(inner, Mapping):
        raise UnsupportedError(f"{c.path}: expected a layer inside Bidirectional")
    if all(f"{c.body.home(c.path)}/{name}" in c.file.layers for name in DIRECTIONS):
        return directions(c)
    o = options(str(inner.get("class_name")), inner.get("config") or {})
    r = Recurrent(c, o, both=True)
    if r.backwards:
        raise UnsupportedError(f"{c.path}: a layer that already goes backwards in Bidirectional")
    mode = c.o.given.get("merge_mode", "concat")
    units = int(r.o("units"))
    x = c.fed(c.x).straight()
    count = 2 if r.kind == "LSTM" else 1
    args = [x.text]
    states = [c.plain(state).text for state in initial_states(c, True, count)]
    if states:
        pairs = [
            f"torch.stack(({a}, {b}))" for a, b in zip(states[:count], states[count:], strict=True)
        ]
        args.append(pairs[0] if r.native and r.kind != "LSTM" else tuple_of(*pairs))
    if r.mask:
        args.append(f"mask={r.mask}")
    called = f"{c.module(r.module())}({', '.join(args)})"
    mask = r.mask if r.sequences else ""
    lists = r.kind == "LSTM" or not r.native
    if mode == "concat" and r.sequences and not r.states:
        return Value(f"{called}[0]", mask=mask)
    names = [c.body.unused(name) for name in ("sequence", "state")]
    c.body.unpacked(called, names, (r.sequences, r.states or not r.sequences))
    h = f"{names[1]}[0]" if lists else names[1]
    if r.sequences:
        ahead, back = f"{names[0]}[..., :{units}]", f"{names[0]}[..., {units}:]"
    else:
        ahead, back = f"{h}[0]", f"{h}[1]"
    if mode == "concat" and r.sequences:
        merged = [Value(names[0], mask=mask)]
    else:
        merged = merged_directions(c, ahead, back, mask)
    if r.states:
        if lists:
            merged += [Value(f"{names[1]}[{n}][{s}]") for s in (0, 1) for n in range(count)]
        else:
            merged += [Value(f"{names[1]}[{s}]") for s in (0, 1)]
    return merged[0] if len(merged) == 1 else tuple(merged)
