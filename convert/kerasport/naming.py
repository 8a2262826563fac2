"""The names of a PyTorch model for the layers of a Keras model: a short file that people can read.

    [names]
    "encoder.layer.{n}.attention.self.query" = "transformer_layer_{n}/attention/query"
    "encoder.layer.{n}.output.dense" = { from = "transformer_layer_{n}/out", weight = "in out" }

On the left stands the module that is to hold a layer, or a part of one; on the right the layer. A
number that goes on is written once, as `{n}`, and `{n+1}` where the two sides count from different
ends: so the file has a line for each kind of place and not for each place, and serves a model of
the same make that is deeper. What is not said, the names of tensors and their layouts, is as in
`torch.nn`; where a model has its own ways, their sentences stand behind the layer.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final

from kerasport.errors import LayoutError, UsageError
from kerasport.flatten import flattened
from kerasport.layout import Layout
from kerasport.matching import Found, Pair
from kerasport.matching.vocabulary import numbered
from kerasport.model import ZERO, Note, Omission, Snapshot, StateDict, Tensor
from kerasport.transpose import Move, Plan, move_notes, tied_moves
from kerasport.units import Unit, joined, units

__all__ = ["Entry", "Naming", "loaded", "named", "renamed"]

JSON = Any
VERSION: Final = 1
_HOLE: Final = re.compile(r"\{([a-z])([+-][0-9]{1,9})?\}")
_NUMBER: Final = re.compile("[0-9]{1,18}")
_LETTERS: Final = "nmkij"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the names: a place in the target, and what is there.

    Attributes:
        target: the module's name, or the tensor's where `tensor` is given.
        sources: the unit that it holds, or several that lie end to end in it.
        labels: which block each of several is.
        tensor: the one tensor of the unit that is meant; empty for all of them.
        layouts: sentences that are not torch.nn's, by the tensor of the unit.
        zeros: biases that the target has and the layer has not.
        without: biases of zeros that the layer has and the target has not.
    """

    target: str
    sources: tuple[str, ...]
    labels: tuple[str, ...] = ()
    tensor: str = ""
    layouts: tuple[tuple[str, str], ...] = ()
    zeros: str = ""
    without: str = ""

    def to_json(self) -> JSON:
        """The right side of the line, as data."""
        own = (self.tensor, self.layouts, self.zeros, self.without)
        if len(self.sources) == 1 and not any(own):
            return self.sources[0]
        told = dict(self.layouts)
        return {
            "from": self.sources[0] if len(self.sources) == 1 else list(self.sources),
            **({"join": " ".join(self.labels)} if self.labels else {}),
            **({"tensor": self.tensor} if self.tensor else {}),
            **({"layout": told.pop(self.tensor)} if self.tensor in told else {}),
            **({"zeros": self.zeros} if self.zeros else {}),
            **({"without": self.without} if self.without else {}),
            **told,
        }

    def value(self) -> str:
        """The right side of the line, as TOML."""
        value = self.to_json()
        if isinstance(value, str):
            return _quoted(value)
        return f"{{ {', '.join(f'{_key(key)} = {_quoted(item)}' for key, item in value.items())} }}"


@dataclass(frozen=True, slots=True)
class Naming:
    """All names of a target.

    Attributes:
        entries: its lines.
        kinds: the kinds of layers that their file does not say, by patterns of their paths.
        kept: tensors of the target that are no weights, which it keeps.
        title: what stands above them.
        notes: what they rest on where that is less than certain.
    """

    entries: tuple[Entry, ...]
    kinds: Mapping[str, str] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    title: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The file."""
        lines = [f"# {line}" for line in (self.title, *self.notes) if line]
        lines.append(f"version = {VERSION}")
        if self.kinds:
            lines += ["", "[kinds]  # what the model's file does not say, and the target settles"]
            lines += [f"{_quoted(path)} = {_quoted(kind)}" for path, kind in self.kinds.items()]
        lines += ["", "[names]"]
        lines += [f"{_quoted(entry.target)} = {entry.value()}" for entry in self.entries]
        if self.kept:
            lines += ["", "[keep]  # no weights: they stay the target's own"]
            lines.append(f"names = [{', '.join(map(_quoted, self.kept))}]")
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, JSON]:
        """The names as JSON data; its contract is `schemas/names.v1.schema.json`."""
        return {
            "version": VERSION,
            **({"kinds": dict(self.kinds)} if self.kinds else {}),
            "names": {entry.target: entry.to_json() for entry in self.entries},
            **({"keep": {"names": list(self.kept)}} if self.kept else {}),
        }


def _quoted(text: JSON) -> str:
    return json.dumps(text, ensure_ascii=False)


def _key(leaf: str) -> str:
    return leaf if re.fullmatch(r"[A-Za-z0-9_-]+", leaf) else _quoted(leaf)


# ------------------------------------------------------------------------------------- from a match


def named(found: Found, snapshot: Snapshot, *, title: str = "") -> Naming:
    """The names that a match found, as few lines as say them.

    Args:
        found: the match.
        snapshot: the model.
        title: what stands above them.
    """
    entries = [entry for pair in found.pairs for entry in _entries(pair)]
    paths = numbered(list(units(_with_kinds(snapshot, found.kinds))))
    return Naming(
        tuple(_short(entries, paths)),
        dict(_short_kinds(found.kinds, snapshot)),
        tuple(_short_names(found)),
        title,
        tuple(_rests_on(found)),
    )


def _rests_on(found: Found) -> Iterator[str]:
    """What was taken because nothing speaks against it."""
    by_order = [pair.unit.path for pair in found.pairs if pair.how == "order"]
    if by_order:
        shown = ", ".join(by_order[:3]) + (f" and {len(by_order) - 3} more" if by_order[3:] else "")
        yield f"by their order alone: {shown}"
    # Nothing in their shapes says so, and to some they alternate.
    ends = [
        pair.module
        for pair in found.pairs
        if pair.unit.labels or (pair.unit.kind == "Dense" and pair.unit.path != pair.unit.layer)
    ]
    if ends:
        shown = ", ".join(ends[:3]) + (f" and {len(ends) - 3} more" if ends[3:] else "")
        yield f"query, key and value taken end to end, not head by head: {shown}"
    square = [
        name
        for pair in found.pairs
        for leaf, (name, _) in pair.tensors.items()
        if leaf in pair.assumed
    ]
    if square:
        shown = ", ".join(square[:3]) + (f" and {len(square) - 3} more" if square[3:] else "")
        yield f"square, and taken as torch.nn lays a matrix out: {shown}"


def _with_kinds(snapshot: Snapshot, kinds: Mapping[str, str]) -> Snapshot:
    from kerasport.identify import identify

    return identify(snapshot, kinds) if kinds else snapshot


def _entries(pair: Pair) -> Iterator[Entry]:
    """A module as one line where its names are torch's; otherwise a line for each tensor."""
    unit = pair.unit
    sources = unit.paths or (unit.path,)
    plain = {leaf: str(unit.plain(leaf)) for leaf in unit.moves}
    told = {
        leaf: sentence for leaf, (_, sentence) in pair.tensors.items() if sentence != plain[leaf]
    }
    regular = all(
        name == (f"{pair.module}.{leaf}" if leaf else pair.module)
        for leaf, (name, _) in pair.tensors.items()
    )
    left = [leaf for leaf, move in unit.moves.items() if leaf not in pair.tensors]
    without = [leaf for leaf in left if unit.moves[leaf].sources]
    zeros = [name.removeprefix(f"{pair.module}.") for name in pair.zeros]
    if regular and left == without:
        own = (" ".join(zeros), " ".join(without))
        yield Entry(pair.module, sources, unit.labels, "", tuple(told.items()), *own)
        return
    for leaf, (name, _) in pair.tensors.items():
        layouts = ((leaf, told[leaf]),) if leaf in told else ()
        yield Entry(name, sources, unit.labels, leaf, layouts)


def _short(entries: Sequence[Entry], paths: Mapping[str, str]) -> Iterator[Entry]:
    """Lines that differ in numbers alone, as one."""
    alike: dict[object, list[Entry]] = defaultdict(list)
    for entry in entries:
        sources = tuple(_NUMBER.sub("#", paths.get(s, s)) for s in entry.sources)
        key = (
            *(_NUMBER.sub("#", entry.target), sources, entry.labels, entry.tensor, entry.layouts),
            *(entry.zeros, entry.without),
        )  # fmt: skip
        alike[key].append(entry)
    place = {id(entry): n for n, entry in enumerate(entries)}
    lines = [
        (min(place[id(entry)] for entry in own), short)
        for group in alike.values()
        for short, own in _lines(group, paths)
    ]
    yield from (short for _, short in sorted(lines, key=lambda line: line[0]))


def _lines(group: Sequence[Entry], paths: Mapping[str, str]) -> list[tuple[Entry, Sequence[Entry]]]:
    """As few lines as say a group, each with what it stands for.

    Where one line does not say it, `block{n}_1` and `block{n}_2` may: one number is written out.
    """
    short = _generalised(group, paths)
    if short is not None:
        return [(short, group)]
    numbers = [_NUMBER.findall("\0".join(_named(entry, paths))) for entry in group]
    found: list[tuple[Entry, Sequence[Entry]]] = [(entry, [entry]) for entry in group]
    for position in range(len(numbers[0]) if len(group) > 1 else 0):
        parts: dict[str, list[Entry]] = defaultdict(list)
        for entry, own in zip(group, numbers, strict=True):
            parts[own[position]].append(entry)
        if 1 < len(parts) < len(found):
            tried = [line for part in parts.values() for line in _lines(part, paths)]
            found = min(found, tried, key=len)
    return found


def _generalised(group: Sequence[Entry], paths: Mapping[str, str]) -> Entry | None:
    """One line for all of a group; None where their numbers do not go together."""
    if len(group) < 2:
        return None
    sides = [
        [list(map(int, _NUMBER.findall(text))) for text in (entry.target, *_named(entry, paths))]
        for entry in group
    ]
    first = [*_named(group[0], paths)]
    letters: list[list[int]] = []  # the values of each letter, over the group
    holes: list[list[str]] = []
    for text in range(1, len(first) + 1):
        holes.append([])
        for place in range(len(sides[0][text])):
            values = [side[text][place] for side in sides]
            holes[-1].append(_hole(values, letters, new=text == 1))
    holes.insert(0, [])
    for place in range(len(sides[0][0])):
        holes[0].append(_hole([side[0][place] for side in sides], letters, new=False))
    if any("" in own for own in holes) or not letters:
        return None
    target, *sources = (
        _filled(text, own) for text, own in zip((group[0].target, *first), holes, strict=True)
    )
    short = replace(group[0], target=target, sources=tuple(sources))
    expected = {entry.target: entry.sources for entry in group}
    try:
        found = dict(_expanded(short, paths))
    except UsageError:
        return None
    return short if found == expected else None


def _named(entry: Entry, paths: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(paths.get(source, source) for source in entry.sources)


def _hole(values: Sequence[int], letters: list[list[int]], *, new: bool) -> str:
    """What stands for numbers: they themselves, a letter, or one with a distance; or nothing."""
    if len(set(values)) == 1:
        return str(values[0])
    for letter, known in zip(_LETTERS, letters, strict=False):
        distances = {value - other for value, other in zip(values, known, strict=True)}
        if len(distances) == 1:
            distance = distances.pop()
            return f"{{{letter}{distance:+d}}}" if distance else f"{{{letter}}}"
    if not new or len(letters) == len(_LETTERS):
        return ""
    letters.append(list(values))
    return f"{{{_LETTERS[len(letters) - 1]}}}"


def _filled(text: str, holes: Sequence[str]) -> str:
    left = iter(holes)
    return _NUMBER.sub(lambda _: next(left), text)


def _short_kinds(kinds: Mapping[str, str], snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Kinds by patterns, where a pattern fits no layer of another kind."""
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, kind in kinds.items():
        alike[_NUMBER.sub("*", path), kind].append(path)
    others = [path for path in snapshot if path not in kinds]
    for (pattern, kind), paths in alike.items():
        shape = re.compile(".*".join(map(re.escape, pattern.split("*"))) + r"\Z")
        wrong = [p for p in [*others, *kinds] if shape.match(p) and kinds.get(p, kind) != kind]
        wrong += [p for p in others if shape.match(p) and snapshot[p].kind is None]
        if len(paths) > 1 and not wrong and "*" in pattern:
            yield pattern, kind
        else:
            yield from ((path, kind) for path in paths)


def _short_names(found: Found) -> list[str]:
    """Tensors that are kept by patterns, where a pattern fits no weight."""
    weights = [name for pair in found.pairs for name, _ in pair.tensors.values()]
    names: dict[str, None] = {}
    for name in found.kept:
        pattern = _NUMBER.sub("*", name)
        wrong = any(fnmatchcase(weight, pattern) for weight in weights)
        names[name if wrong else pattern] = None
    return list(names)


# --------------------------------------------------------------------------------------- to a plan


def renamed(
    steps: Plan,
    snapshot: Snapshot,
    naming: Naming,
    *,
    flatten: str = "reorder",
    own: StateDict | None = None,
) -> Plan:
    """The plan under other names and in their layouts.

    Args:
        steps: the plan into PyTorch's layouts under Keras's names.
        snapshot: the model, with the kinds that the names give.
        naming: the names.
        flatten: as the plan was made.
        own: the target's own tensors, for those that are no weights.

    Raises:
        UsageError: a line fits nothing, or two lines say the same; with every problem.
    """
    known = units(snapshot, flatten=flatten)
    paths = numbered(list(known))
    problems: list[str] = []
    moves: dict[str, Move] = {}
    left_out: dict[str, Tensor] = {}
    for entry in naming.entries:
        try:
            expanded = _expanded(entry, paths)
            if not expanded:
                problems.append(f"{entry.target}: {_nowhere(entry, snapshot)}")
            for target, sources in expanded:
                held = [known[source] for source in sources]
                left_out |= _left_out(entry, held, problems)
                for move in _moves(entry, target, held):
                    if move.name in moves:
                        problems.append(f"{move.name}: is named twice")
                    moves[move.name] = move
        except (LayoutError, UsageError) as error:
            problems.append(f"{entry.target}: {error}")
    if problems:
        lines = "\n  ".join(sorted(set(problems)))
        raise UsageError(f"the names do not fit {steps.source.file}:\n  {lines}")
    orders = flattened(snapshot).orders if flatten == "reorder" else {}
    placed: dict[str, int] = defaultdict(int)
    notes: list[Note] = []
    counted: set[tuple[object, ...]] = set()
    for move in moves.values():
        copies, missing = move.copies()
        # A variable of two names is in one place all the same.
        content = (tuple(source.name for source in move.sources), move.at, tuple(copies))
        for copy in copies if content not in counted else ():
            placed[move.sources[copy.source].name] += copy.elements
        counted.add(content)
        notes.extend(move_notes(move, missing, orders.get(move.layer, {})))
    lost = [
        f"{tensor.name}: would be lost: the names give it no place"
        for tensor in snapshot.tensors
        if placed[tensor.name] != tensor.size and tensor.name not in left_out
    ]
    notes += [Note("dropped", name, ZERO) for name in left_out]
    before = {move.name for move in steps.moves} | set(snapshot)
    notes += [
        note
        for note in steps.notes
        if note.subject not in before
        or note.kind not in ("kept", "renamed", "synthesised", "joined")
    ]
    # The target lists each of its names, so each is written.
    _, aliases, said = tied_moves(list(moves.values()), merge=False)
    notes = [*(note for note in notes if note.kind != "tied"), *said]
    notes = [note for note in notes if note.subject in moves or note.kind != "reordered"]
    if own is None:
        message = "is no weight and is not written: it stays the target's own"
        notes += [Note("kept", name, message) for name in naming.kept]
    else:
        kept = [t for t in own.values() if any(fnmatchcase(t.name, p) for p in naming.kept)]
        moves |= {t.name: _kept(t) for t in kept if t.name not in moves}
        notes += [
            Note("kept", t.name, "is no weight: passed on as the target has it") for t in kept
        ]
    return replace(
        steps,
        moves=tuple(moves.values()),
        notes=tuple(dict.fromkeys(notes)),
        problems=tuple(sorted(lost)),
        omitted=(*steps.omitted, *(Omission(t, ZERO) for t in left_out.values())),
        aliases=aliases,
    )


def _left_out(
    entry: Entry, found: Sequence[Sequence[Unit]], problems: list[str]
) -> dict[str, Tensor]:
    """The tensors that a line leaves out, which are zero."""
    tensors: dict[str, Tensor] = {}
    for leaf in entry.without.split():
        for own in found:
            unit = _reading(replace(entry, tensor=leaf, layouts=()), own)
            for source in unit.moves[leaf].sources:
                tensors[source.name] = source
                if source.numpy().any():
                    problems.append(f"{source.name}: is not zero, and {entry.target} leaves it out")
    return tensors


def _nowhere(entry: Entry, snapshot: Snapshot) -> str:
    """Why a line fits nothing: there is no such layer, or nothing says what it is."""
    pattern, _ = _pattern(entry.sources[0])
    paths = numbered(list(snapshot))
    for path, name in paths.items():
        unknown = snapshot[path].kind is None
        if unknown and (pattern.fullmatch(name) or pattern.fullmatch(path)):
            return f"the kind of {path} is not known: give it under [kinds]"
    return f"no layer is called {' or '.join(entry.sources)}"


def _kept(tensor: Tensor) -> Move:
    """A tensor of the target's own, as it is."""
    whole = replace(tensor, layout=None, at=frozenset())
    return Move(
        tensor.name,
        tensor.dtype,
        tensor.shape,
        None,
        frozenset(),
        "",
        "",
        None,
        (whole,),
        trainable=False,
        kept=True,
    )


def _expanded(entry: Entry, paths: Mapping[str, str]) -> list[tuple[str, tuple[str, ...]]]:
    """Every place that a line stands for, with the units that are there."""
    first, *others = entry.sources
    pattern, letters = _pattern(first)
    back = {name: path for path, name in paths.items()}
    found: list[tuple[list[int], str, tuple[str, ...]]] = []
    for path, name in paths.items():
        match = pattern.fullmatch(name) or (pattern.fullmatch(path) if not letters else None)
        if match is None:
            continue
        values = _values(match, letters)
        if values is None:
            continue
        sources = [path]
        for other in others:
            wanted = _formatted(other, values)
            source = wanted if wanted in paths else back.get(wanted)
            if source is None:
                raise UsageError(f"no layer is called {wanted}")
            sources.append(source)
        found.append((list(values.values()), _formatted(entry.target, values), tuple(sources)))
    found.sort(key=lambda item: item[0])
    return [(target, sources) for _, target, sources in found]


def _pattern(source: str) -> tuple[re.Pattern[str], list[tuple[str, int]]]:
    """A pattern of paths as a regular expression, and what its numbers are to the letters."""
    letters: list[tuple[str, int]] = []
    text = ""
    end = 0
    for hole in _HOLE.finditer(source):
        text += re.escape(source[end : hole.start()]) + "([0-9]{1,18})"
        letters.append((hole[1], int(hole[2] or 0)))
        end = hole.end()
    return re.compile(text + re.escape(source[end:])), letters


def _values(match: re.Match[str], letters: Sequence[tuple[str, int]]) -> dict[str, int] | None:
    values: dict[str, int] = {}
    for digits, (letter, distance) in zip(match.groups(), letters, strict=True):
        value = int(digits) - distance
        if values.setdefault(letter, value) != value or str(int(digits)) != digits:
            return None
    return values


def _formatted(text: str, values: Mapping[str, int]) -> str:
    def number(hole: re.Match[str]) -> str:
        if hole[1] not in values:
            raise UsageError(f"{{{hole[1]}}} stands in {text!r} and in no layer's name")
        return str(values[hole[1]] + int(hole[2] or 0))

    return _HOLE.sub(number, text)


def _moves(entry: Entry, target: str, found: Sequence[Sequence[Unit]]) -> Iterator[Move]:
    """The moves of one place."""
    if len(found) > 1:
        unit = joined([_reading(entry, units) for units in found], entry.labels)
        if unit is None:
            raise UsageError("these layers cannot be joined: they are unlike")
    else:
        unit = _reading(entry, found[0])
    told = dict(entry.layouts)
    for leaf in entry.zeros.split():
        yield _zeros(f"{target}.{leaf}", leaf, unit)
    for leaf, move in unit.moves.items():
        if (entry.tensor and leaf != entry.tensor) or leaf in entry.without.split():
            continue
        name = target if entry.tensor or not leaf else f"{target}.{leaf}"
        assert move.layout is not None
        if leaf not in told:
            yield replace(move, name=name)
            continue
        layout = Layout.parse(told[leaf]).rename(unit.after)
        if set(layout.axes) != set(move.layout.axes) or set(layout.labels) != set(
            move.layout.labels
        ):
            raise UsageError(f"expected the axes of '{move.layout}', found '{layout}'")
        yield replace(move, name=name, layout=layout, shape=layout.shape(move.sizes))


def _zeros(name: str, leaf: str, unit: Unit) -> Move:
    """A bias that adds nothing, of a layer that has none."""
    weight = unit.moves.get("weight")
    if weight is None or weight.layout is None or leaf in unit.moves:
        raise UsageError(f"{unit.path} has a {leaf}, or no weight that one could stand beside")
    layout = Layout.parse(str(weight.layout.dims[0]))
    return replace(
        weight, name=name, shape=weight.shape[:1], layout=layout, role=leaf, sources=(), fill=0.0
    )


def _reading(entry: Entry, found: Sequence[Unit]) -> Unit:
    """The unit of this path that has what the line names."""
    wanted = {*([entry.tensor] if entry.tensor else []), *(leaf for leaf, _ in entry.layouts)}
    for unit in found:
        if wanted <= unit.moves.keys():
            return unit
    missing = ", ".join(sorted(wanted - found[0].moves.keys()))
    raise UsageError(f"{found[0].path} has no {missing}: expected {', '.join(found[0].moves)}")


# ----------------------------------------------------------------------------------- from a file


def loaded(source: str | PathLike[str] | Mapping[str, JSON] | Naming) -> Naming:
    """The names in a TOML file, or in a mapping of the same form.

    Its contract is `schemas/names.v1.schema.json`.

    Raises:
        UsageError: there is no such file, it is no TOML, or it breaks the contract; with every
            problem.
    """
    if isinstance(source, Naming):
        return source
    where = "names"
    document: Mapping[str, JSON]
    if isinstance(source, Mapping):
        document = source
    else:
        where = Path(fspath(source)).name
        try:
            document = tomllib.loads(Path(fspath(source)).read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(
                f"{source}: expected a readable file, found: {error.strerror}"
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{source}: expected TOML, found a fault: {error}") from None
    problems: list[str] = []
    if document.get("version") != VERSION:
        problems.append(f"version: expected {VERSION}, found {document.get('version')!r}")
    for key in sorted(document.keys() - {"version", "kinds", "names", "keep"}):
        problems.append(f"{key}: expected kinds, names or keep")
    kinds = document.get("kinds", {})
    if not isinstance(kinds, Mapping) or not all(isinstance(k, str) for k in kinds.values()):
        problems.append("kinds: expected a kind for each pattern")
        kinds = {}
    kept = document.get("keep", {})
    kept = kept.get("names", []) if isinstance(kept, Mapping) else None
    if not isinstance(kept, list) or not all(isinstance(name, str) for name in kept):
        problems.append("keep: expected a list of names")
        kept = []
    names = document.get("names")
    entries: list[Entry] = []
    if not isinstance(names, Mapping):
        problems.append("names: expected a table of modules and layers")
        names = {}
    for target, value in names.items():
        try:
            entries.append(_entry(target, value))
        except UsageError as error:
            problems.append(f"names: {target}: {error}")
    if problems:
        lines = "\n  ".join(sorted(problems))
        raise UsageError(f"{where}: breaks schemas/names.v1.schema.json:\n  {lines}")
    return Naming(tuple(entries), dict(kinds), tuple(kept))


def _entry(target: str, value: JSON) -> Entry:
    if isinstance(value, str):
        return Entry(target, (value,))
    if not isinstance(value, Mapping) or not all(
        isinstance(item, str) or (key == "from" and _is_texts(item)) for key, item in value.items()
    ):
        raise UsageError("expected a layer, or a table of texts")
    if "from" not in value:
        raise UsageError("expected 'from', the layer that it is")
    sources = (value["from"],) if isinstance(value["from"], str) else tuple(value["from"])
    labels = tuple(str(value.get("join", "")).split())
    if len(labels) != (len(sources) if len(sources) > 1 else 0):
        raise UsageError("expected 'join' with a word for each of several layers")
    tensor = value.get("tensor", "")
    said = ("from", "join", "tensor", "layout", "zeros", "without")
    own = {k: v for k, v in value.items() if k not in said}
    if "tensor" in value and own:
        raise UsageError(f"expected no {', '.join(own)} beside 'tensor': its sentence is 'layout'")
    if "layout" in value:
        if "tensor" not in value:
            raise UsageError("expected 'tensor' beside 'layout': the tensor that is meant")
        own = {tensor: value["layout"]}
    for sentence in own.values():
        try:
            Layout.parse(sentence)
        except LayoutError as error:
            raise UsageError(str(error)) from None
    biases = (value.get("zeros", ""), value.get("without", ""))
    return Entry(target, sources, labels, tensor, tuple(own.items()), *biases)


def _is_texts(value: JSON) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(v, str) for v in value)
