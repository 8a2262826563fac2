"""Layers of a user's own, described by the same sentences as Keras's own, and without Python.

The classes that kerasport cannot know are the daily case, and they need no code: which weights a
class stores, and what another convention calls them, are sentences. A description is a table in a
TOML file, the same table as a mapping in Python, or what an installed package offers under the
entry point group `kerasport.layers`. It becomes rows of the conventions, and from there on nothing
tells a user's layer from one of Keras's.

    ["my_package>GatedUnit".keras]   # the weights in stored order: name = sentence
    kernel = "in out"
    gate = "in out"
    bias = { layout = "out", when = "use_bias" }

    ["my_package>GatedUnit".torch]   # the name in the target: which weight, and its sentence
    "value.weight" = { weight = "kernel", layout = "out in" }
    "value.bias" = { weight = "bias", layout = "out" }
    "gate.weight" = { weight = "gate", layout = "out in" }

    ["my_package>GatedUnit".onnx]    # or the reason why the target cannot hold it
    absent = "no operator of ONNX gates its input"

A class that is made of layers is described by its parts, the attributes that it keeps them in:

    [Block.parts]
    norm = "LayerNormalization"
    "units/*" = "my_package>GatedUnit"

What a class computes is no sentence but code, which a model file does not hold. For `--module` its
author gives it in PyTorch, for a class or for one layer by its path, with `torch`, `nn`, `F` and
`Tensor` at hand. Tensors come as Keras has them, channels last, and `__init__` is given those
options of the layer that it has parameters for:

    ["my_package>GatedUnit".module]
    source = '''
    class GatedUnit(nn.Module):
        ...
    '''

What can be wrong with a description is told when it is read, with the file, the class and the name
of the weight: a sentence that is none, an axis that no weight has, a weight that would be lost.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, Final, NamedTuple

from kerasport.conventions import NAMES, Absent, Case, Row, Slot, convention, rows
from kerasport.errors import KerasportError, LayoutError, UsageError
from kerasport.kinds import CLASSES, Facet
from kerasport.layout import Layout, Part, derive
from kerasport.model import dtype_named
from kerasport.plugins import entry_points

__all__ = ["GROUP", "LayerTable", "Own", "PartOf", "installed", "key", "loaded", "text"]

JSON = Any
GROUP: Final = "kerasport.layers"
LARGEST: Final = 1 << 24
_PRIMES: Final = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)


class PartOf(NamedTuple):
    """One part of a class: the layer that an attribute of it holds.

    Attributes:
        pattern: the attribute's path below the layer, `norm` or `units/*`.
        class_name: its class, Keras's or another described one.
        config: what of its configuration is known.
    """

    pattern: str
    class_name: str
    config: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class Own:
    """One described class.

    Attributes:
        kind: its name in the description, which is its kind.
        rows: its row in each convention; empty for a class that holds nothing but its parts.
        like: the Keras class that it stores its weights as, or empty.
        parts: the layers that it is made of.
        sizes: axis → key of the configuration that holds its size, or the size.
        hints: what a module needs to know beside the weights.
        module: the source of the PyTorch module that computes what it does, or empty.
        given: the description as it was given, for archives.
    """

    kind: str
    rows: Mapping[str, Row] = field(default_factory=dict)
    like: str = ""
    parts: tuple[PartOf, ...] = ()
    sizes: Mapping[str, str | int] = field(default_factory=dict)
    hints: Mapping[str, Mapping[str, JSON]] = field(default_factory=dict)
    module: str = ""
    given: Mapping[str, JSON] = field(default_factory=dict)

    def facet(self, config: Mapping[str, JSON]) -> Facet:
        """What a layer with this configuration is."""
        sizes: dict[str, int] = {}
        for axis, key in self.sizes.items():
            size = config.get(key) if isinstance(key, str) else key
            if type(size) is int and size >= 0:
                sizes[axis] = size
        return Facet((self.kind,), config, sizes=sizes)

    def advice(self, config: Mapping[str, JSON]) -> dict[str, dict[str, JSON]]:
        """The hints of a layer with this configuration, as `kerasport.hints` gives Keras's own."""
        found: dict[str, dict[str, JSON]] = {}
        for name, hint in self.hints.items():
            if "config" in hint and hint["config"] not in config:
                continue
            value = config[hint["config"]] if "config" in hint else hint["value"]
            found[name] = {"value": value, "changes_results": hint.get("changes_results", True)}
        return found

    @property
    def children(self) -> tuple[str, ...]:
        """The attributes below the layer that its own weights are stored in."""
        slots = (slot for row in self.rows.values() for slot in _slots(row))
        return tuple(dict.fromkeys(slot.child for slot in slots if slot.child))


@dataclass(frozen=True, eq=False)
class LayerTable(Mapping[str, Own]):
    """Described classes, by the names that their descriptions have.

    >>> table = LayerTable.of({"Scale": {"keras": {"factor": "channel"}}})
    >>> table.find("my_package>Scale").kind
    'Scale'
    """

    own: Mapping[str, Own] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Own:
        return self.own[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.own)

    def __len__(self) -> int:
        return len(self.own)

    def __or__(self, other: LayerTable) -> LayerTable:
        """Both, the other's descriptions before these."""
        return LayerTable({**self.own, **other.own})

    def find(self, class_name: str | None) -> Own | None:
        """The description of a class; a name without a package serves every package.

        Classes of Keras have none: a class of a user's own that is called Dense is `package>Dense`.
        """
        if class_name is None or class_name in CLASSES:
            return None
        own = self.own.get(class_name) or self.own.get(class_name.rpartition(">")[2])
        # Code alone says nothing of weights.
        return own if own is not None and (own.rows or own.like or own.parts) else None

    def rows(self, name: str) -> dict[str, Row]:
        """What the descriptions add to the table of a convention."""
        return {kind: own.rows[name] for kind, own in self.own.items() if name in own.rows}

    def modules(self) -> dict[str, str]:
        """The sources of PyTorch modules, by class or by path of a layer.

        >>> triple = {"module": {"source": "class Triple(nn.Module): ..."}}
        >>> LayerTable.of({"triple": triple}).modules()
        {'triple': 'class Triple(nn.Module): ...'}
        """
        return {name: own.module for name, own in self.own.items() if own.module}

    def to_json(self) -> dict[str, JSON]:
        """The descriptions as they were given."""
        return {kind: dict(own.given) for kind, own in self.own.items()}

    @classmethod
    def of(cls, described: Mapping[str, JSON], *, where: str = "layers") -> LayerTable:
        """The table that a mapping describes, in the words of the TOML file.

        Args:
            described: class → its description.
            where: what to call it in errors.

        Raises:
            UsageError: with everything that is wrong with it, sorted.

        >>> gated = {
        ...     "keras": {"kernel": "in out", "gate": "in out"},
        ...     "torch": {"both.weight": {"weight": "kernel", "layout": "out in"}},
        ... }
        >>> LayerTable.of({"Gated": gated})
        Traceback (most recent call last):
            ...
        kerasport.errors.UsageError: layers: a description cannot be used:
          Gated: torch: gate would be lost, no tensor holds it
        """
        faults: list[str] = []
        own: dict[str, Own] = {}
        for name, given in described.items():
            parsed = _Parser(str(name), faults)
            own[str(name)] = parsed.own(given)
        for name, one in own.items():
            for part in one.parts:
                if part.class_name not in CLASSES and cls(own).find(part.class_name) is None:
                    faults.append(
                        f"{name}: parts: {part.pattern}: {part.class_name!r} is neither a layer of "
                        "Keras nor described here"
                    )
        if faults:
            lines = "\n  ".join(sorted(set(faults)))
            raise UsageError(f"{where}: a description cannot be used:\n  {lines}")
        return cls(own)


def loaded(layers: str | PathLike[str] | Mapping[str, JSON] | LayerTable) -> LayerTable:
    """The descriptions in a TOML file, or those of a mapping of the same form.

    Args:
        layers: a file, a mapping, or what this function gave before.

    Raises:
        UsageError: it cannot be read, is no TOML, or a description in it cannot be used.
    """
    if isinstance(layers, LayerTable):
        return layers
    if isinstance(layers, Mapping):
        return LayerTable.of(layers)
    import tomllib

    path = Path(layers).expanduser()
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise UsageError(f"{path}: expected descriptions of layers, found a file too large")
        return LayerTable.of(tomllib.loads(content.decode()), where=str(path))
    except OSError as error:
        raise UsageError(f"{path}: expected a readable file, found: {error.strerror}") from None
    except (UnicodeDecodeError, RecursionError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: expected a file in TOML: {error}") from None


@cache
def installed() -> LayerTable:
    """The descriptions of installed packages: entry points of the group `kerasport.layers`.

    Such an entry point leads to a mapping, a `LayerTable`, or the path of a TOML file.

    Raises:
        UsageError: one cannot be loaded or used, or two describe a class under one name.
    """
    table = LayerTable()
    for point in entry_points(GROUP):
        where = f"entry point {point.name} = {point.value}"
        try:
            found = point.load()
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"{where}: expected descriptions of layers, found: {error}. Repair or uninstall "
                f"the package {point.dist and point.dist.name}"
            ) from error
        if not isinstance(found, str | PathLike | Mapping):
            raise UsageError(f"{where}: expected a mapping or the path of a file, found {found!r}")
        try:
            more = loaded(found)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
        if twice := sorted(table.own.keys() & more.own.keys()):
            raise UsageError(f"{where}: another package describes {', '.join(twice)} too")
        table |= more
    return table


# ---------------------------------------------------------------------------------------- parsing


class _Parser:
    """Reads the description of one class; what is wrong with it is collected."""

    def __init__(self, name: str, faults: list[str]) -> None:
        self.name = name
        self.faults = faults

    def fault(self, *words: str) -> None:
        self.faults.append(": ".join((self.name, *words)))

    def own(self, given: JSON) -> Own:
        code_alone = isinstance(given, Mapping) and given.keys() == {"module"}
        if not code_alone and (self.name in CLASSES or self.name in convention("keras")):
            self.fault(
                f"is a layer of Keras; a class of your own is called 'package>{self.name}', as it "
                "is registered"
            )
        if not self.table(given, self.name, ("keras", *NAMES, *BESIDE)):
            return Own(self.name)
        try:
            json.dumps(given, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            self.fault(f"holds what JSON cannot: {error}")
        sizes = dict(self.sizes(given.get("sizes", {})))
        one = Own(
            self.name,
            self.rows(given, sizes),
            self.like(given.get("like", "")),
            tuple(self.parts(given.get("parts", {}))),
            sizes,
            dict(self.hints(given.get("hints", {}))),
            self.module(given.get("module")),
            given,
        )
        if one.like and (one.rows or one.parts):
            self.fault("is like a class of Keras, and so stores what that one does: leave out like")
        if not (one.rows or one.like or one.parts or "module" in given):
            self.fault("says neither what it stores (keras), nor what it is like, nor its parts")
        return one

    def table(self, given: JSON, where: str, known: Iterable[str] | None = None) -> bool:
        """Whether it is a table, with no keys but the known ones."""
        path = () if where == self.name else (where,)
        if not isinstance(given, Mapping):
            self.fault(*path, f"expected a table, found {given!r}")
            return False
        known = dict.fromkeys(given) if known is None else dict.fromkeys(known)
        for word in given:
            if word not in known:
                self.fault(*path, f"{word!r} is none of {', '.join(known)}")
        return all(word in known for word in given)

    # ----------------------------------------------------------------------------------- rows

    def rows(self, given: Mapping[str, JSON], named: Mapping[str, str | int]) -> dict[str, Row]:
        if "keras" not in given:
            for name in NAMES:
                if name in given:
                    self.fault(name, "needs a table 'keras' of what the class stores")
            return {}
        made: dict[str, Row] = {"keras": self.row("keras", given["keras"])}
        axes = {axis for slot in _slots(made["keras"]) for axis in _axes(slot)}
        for case in rows(made["keras"]):
            self.equations("keras", case, axes)
        sizes = {axis: size for axis, size in named.items() if isinstance(size, int)}
        for axis in sorted(set(named) - axes):
            self.fault("sizes", f"{axis} is no axis of a stored weight")
        for name in NAMES:
            if name == "keras":
                continue
            if name not in given:
                made[name] = Absent(
                    f"its description says nothing of {name}; add a table [{key(self.name)}.{name}"
                    "] to it"
                )
                continue
            made[name] = self.row(name, given[name])
            self.check(name, made["keras"], made[name], sizes)
        return made

    def row(self, name: str, given: JSON) -> Row:
        """One convention's: a table of slots, or a list of cases."""
        if isinstance(given, list) and name in NAMES:
            cases = tuple(self.case(name, case) for case in given)
            if cases and cases[-1].where and name != "keras":
                why = "; ".join(", ".join(case.where) for case in cases)
                cases += (Case(Absent(f"expected one of: {why}")),)
            return cases
        return self.slots(name, given)

    def slots(self, name: str, given: JSON) -> tuple[Slot, ...] | Absent:
        if not self.table(given, name):
            return ()
        if name != "keras" and given.keys() == {"absent"} and isinstance(given["absent"], str):
            return Absent(given["absent"])
        return tuple(self.slot(name, str(key), value) for key, value in given.items())

    def case(self, name: str, given: JSON) -> Case:
        words = ("slots", "where", "options") if name == "keras" else ("slots", "absent", *CASE)
        if not self.table(given, name, words):
            return Case(())
        slots = self.slots(
            name, {"absent": given["absent"]} if "absent" in given else given.get("slots", {})
        )
        where = _words(given.get("where", ()))
        for equation in where or ():
            if not _is_equation(equation):
                self.fault(name, f"where: expected an equation of products, found {equation!r}")
        renamed = [given.get("same", {}), given.get("options", {})]
        if where is None or not all(isinstance(part, Mapping) for part in renamed):
            self.fault(name, "expected equations in where, and tables in same and options")
            return Case(slots)
        same, options = ({str(k): str(v) for k, v in part.items()} for part in renamed)
        return Case(slots, where, same, options)

    def slot(self, name: str, key: str, given: JSON) -> Slot:
        """One tensor: its sentence, or a table with more of it."""
        words: dict[str, JSON] = {"layout": given} if isinstance(given, str) else given
        if not self.table(words, f"{name}: {key}", STORED if name == "keras" else TARGET):
            return Slot(key, "")
        layout = words.get("layout")
        try:
            if not isinstance(layout, str):
                raise LayoutError(f"expected a sentence, found {layout!r}")
            Layout.parse(layout)
        except LayoutError as error:
            self.fault(name, key, str(error))
            return Slot(key, "")
        made: dict[str, JSON] = {}
        for word, value in words.items():
            type_ = WORDS[word]
            if word in ("needs", "aliases"):
                value = _words(value)
            if not isinstance(value, type_) or (word == "fill" and isinstance(value, bool)):
                self.fault(name, key, f"{word}: {value!r} is of the wrong type")
                continue
            made[word] = value
        try:
            if "dtype" in made:
                dtype_named(made["dtype"])
        except KerasportError as error:
            self.fault(name, key, str(error))
        made.setdefault("layout", "")
        return Slot(key, **made)

    # --------------------------------------------------------------------------------- checks

    def check(self, name: str, stored: Row, row: Row, sizes: Mapping[str, int]) -> None:
        """Every weight finds its place, and every word in a target's sentence means something."""
        sources = list(_slots(stored))
        weights = {slot.of for slot in sources}
        axes = {axis for slot in sources for axis in _axes(slot)}
        for case in rows(row):
            renamed = set(case.same.values())
            self.equations(name, case, axes)
            if isinstance(case.slots, Absent):
                continue
            for slot in case.slots:
                if slot.of not in weights and slot.needs != ():
                    self.fault(
                        name,
                        slot.name,
                        f"holds {slot.of!r}, and the weights are {', '.join(sorted(weights))}",
                    )
                if strange := sorted(set(_axes(slot)) - axes - renamed):
                    self.fault(
                        name,
                        slot.name,
                        f"{', '.join(strange)} is no axis of a stored weight: "
                        f"{', '.join(sorted(axes))}",
                    )
            for lost in sorted(weights - {slot.of for slot in case.slots}):
                self.fault(name, f"{lost} would be lost, no tensor holds it")
            told = any(fault.startswith(f"{self.name}: ") for fault in self.faults)
            for way in rows(stored) if not (told or case.same or case.where) else ():
                held = () if isinstance(way.slots, Absent) or way.where else way.slots
                slots = [slot for slot in case.slots if any(slot.of == h.of for h in held)]
                self.rehearse(name, held, slots, sizes)

    def equations(self, name: str, case: Case, axes: set[str]) -> None:
        words = {word for equation in case.where for word in equation.replace("=", " ").split()}
        if strange := sorted(word for word in words - axes if not word.isdigit()):
            self.fault(name, f"where: {', '.join(strange)} is no axis of a stored weight")

    def rehearse(
        self, name: str, sources: Sequence[Slot], slots: Sequence[Slot], known: Mapping[str, int]
    ) -> None:
        """Derive the copies for made-up sizes: what has no source is seen before any model is."""
        if any(Layout.parse(slot.layout).order for slot in (*sources, *slots)):
            return  # such sizes are bound to one another
        axes = dict.fromkeys(axis for slot in (*sources, *slots) for axis in _axes(slot))
        sizes = {a: known.get(a, _PRIMES[n % len(_PRIMES)]) for n, a in enumerate(axes)}
        for slot in slots:
            held = [s for s in sources if s.of == slot.of]
            try:
                parts = [Part(Layout.parse(s.layout), s.pins) for s in held]
                _, missing = derive(parts, Part(Layout.parse(slot.layout), slot.pins), sizes)
            except LayoutError as error:
                self.fault(name, slot.name, str(error))
                continue
            if missing and slot.fill is None:
                self.fault(name, slot.name, f"the stored weights have no {', '.join(missing)}")

    # ------------------------------------------------------------------------------- the rest

    def like(self, given: JSON) -> str:
        if given and given not in CLASSES:
            self.fault("like", f"expected a class of Keras, found {given!r}")
            return ""
        return str(given)

    def parts(self, given: JSON) -> Iterator[PartOf]:
        if not self.table(given, "parts"):
            return
        for pattern, what in given.items():
            said = {"class": what} if isinstance(what, str) else what
            if not self.table(said, f"parts: {pattern}", ("class", "config")):
                continue
            name, config = said.get("class"), said.get("config", {})
            if not isinstance(name, str) or not isinstance(config, Mapping):
                self.fault("parts", str(pattern), f"expected a class, found {what!r}")
                continue
            yield PartOf(str(pattern), name, config)

    def module(self, given: JSON) -> str:
        if given is None or not self.table(given, "module", ("source",)):
            return ""
        source = given.get("source")
        if not isinstance(source, str):
            self.fault("module", "expected the source of a module, as source = '...'")
            return ""
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            self.fault("module", f"its source is no Python: {error}")
            return ""
        if not any(isinstance(node, ast.ClassDef) for node in tree.body):
            self.fault("module", "its source defines no class: expected a subclass of nn.Module")
        return source

    def sizes(self, given: JSON) -> Iterator[tuple[str, str | int]]:
        if not self.table(given, "sizes"):
            return
        for axis, size in given.items():
            if isinstance(size, str) or (type(size) is int and size > 0):
                yield str(axis), size
            else:
                self.fault("sizes", str(axis), f"expected a key or a size, found {size!r}")

    def hints(self, given: JSON) -> Iterator[tuple[str, Mapping[str, JSON]]]:
        if not self.table(given, "hints"):
            return
        for name, said in given.items():
            hint = said if isinstance(said, Mapping) else {"value": said}
            if not self.table(hint, f"hints: {name}", ("value", "config", "changes_results")):
                continue
            if ("value" in hint) == ("config" in hint) or not isinstance(
                hint.get("config", ""), str
            ):
                self.fault("hints", str(name), "expected a value, or a key of the configuration")
                continue
            yield str(name), hint


BESIDE: Final = ("like", "parts", "sizes", "hints", "module")
WORDS: Final[Mapping[str, tuple[type, ...]]] = {
    "layout": (str,),
    "weight": (str,),
    "at": (str,),
    "fill": (int, float),
    "needs": (tuple,),
    "dtype": (str,),
    "when": (str,),
    "child": (str,),
    "aliases": (tuple,),
    "trainable": (bool,),
}
CASE: Final = ("where", "same")
STORED: Final = ("layout", "weight", "at", "when", "child", "aliases", "trainable")
TARGET: Final = ("layout", "weight", "at", "fill", "needs", "dtype")
assert {*STORED, *TARGET} == set(WORDS) <= set(Slot._fields)


def _is_equation(text: str) -> bool:
    """Whether it sets products of axes and numbers equal."""
    sides = [side.split() for side in text.split("=")]
    words = [word for side in sides for word in side]
    plain = all(word.isidentifier() or (word.isascii() and word.isdecimal()) for word in words)
    return len(sides) > 1 and all(sides) and plain


def _words(given: JSON) -> tuple[str, ...] | None:
    """One word or a list of words; None where it is neither."""
    words = (given,) if isinstance(given, str) else given
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        return None
    return tuple(words)


def _slots(row: Row) -> Iterator[Slot]:
    for case in rows(row):
        if not isinstance(case.slots, Absent):
            yield from case.slots


def _axes(slot: Slot) -> tuple[str, ...]:
    return Layout.parse(slot.layout).axes


def key(name: str) -> str:
    """A name as a key of TOML.

    >>> key("Gated"), key("my_package>Gated")
    ('Gated', '"my_package>Gated"')
    """
    bare = name.replace("_", "").replace("-", "")
    return name if bare.isascii() and bare.isalnum() else text(name)


def text(value: str) -> str:
    """A string of TOML, which escapes as JSON does and one character more."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
