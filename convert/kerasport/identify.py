"""From stored tensors to named weights: which kind a layer is, and which role each tensor plays.

Readers deliver what a file holds under the file's own keys: attribute paths with numbers (`cell/0`)
or names of some year (`lstm_1/kernel`). Here the Keras table turns keys into roles. Where
the class is known, its row and options say what must be there, and a tensor that does not fit
leaves the layer unrecognised with the reason. Where no class is known, a kind is taken only if it
is the one that fits all tensors, and is marked as inferred. Nothing is decided by a layer's name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from itertools import combinations, takewhile
from typing import TYPE_CHECKING, Any

from kerasport.arrange import arranged, inside, owners_in
from kerasport.conventions import Absent, Case, Slot, convention, rows
from kerasport.custom import LayerTable, Own
from kerasport.errors import LayoutError, UsageError
from kerasport.kinds import (
    BY_NAME,
    CLASSES,
    CONFIGURED,
    HOLDERS,
    ORDERINGS,
    SPECIAL,
    USUAL_AXES,
    Facet,
    asked,
    facets,
    phrases,
)
from kerasport.layout import Layout
from kerasport.model import Layer, Named, Omission, Snapshot, Tensor, dtype_name

if TYPE_CHECKING:
    from kerasport.hub import Spec

__all__ = ["completed", "identify", "possible", "stored_keys"]

KERAS = convention("keras")
# The conventions of files, today's before those of older ones.
SOURCES = ("keras", "keras1")
_CELL_OF_A_STACK = re.compile(r"(?:cell/cells|stacked_rnn_cells)/([^/]+)/[^/]+$")


def identify(
    snapshot: Snapshot,
    kinds: Mapping[str, str] | None = None,
    layers: LayerTable | None = None,
) -> Snapshot:
    """The snapshot with kinds, roles and layouts.

    Args:
        snapshot: as a reader delivers it.
        kinds: layer-path patterns → kind or Keras class, for files that name no classes.
        layers: descriptions of classes that are not Keras's.

    Raises:
        UsageError: a pattern names no layer, or a kind that does not exist.
    """
    wanted = dict(kinds or {})
    table = LayerTable(snapshot.custom) | (layers or LayerTable())
    snapshot = arranged(snapshot, table)
    placed: Mapping[str, Sequence[Spec]] = {}
    if _may_be_of_hub(snapshot):
        from kerasport import hub

        snapshot, placed, of_hub = hub.placed(snapshot)
        table = of_hub | table
    for pattern, kind in wanted.items():
        if kind not in KERAS and asked(kind) is None and table.find(kind) is None:
            from difflib import get_close_matches

            known = sorted({*KERAS, *CLASSES, *table})
            near = get_close_matches(kind, known, n=3, cutoff=0.5) or ["Dense", "Conv2D", "LSTM"]
            raise UsageError(
                f"--kind {pattern}={kind}: expected the class or kind of a layer, such as "
                f"{', '.join(near)}; Bidirectional(LSTM) says what a wrapper holds"
            )
        if not any(fnmatchcase(layer.path, pattern) for layer in snapshot.layers):
            raise UsageError(
                f"--kind {pattern}={kind}: no layer has such a path. See: kerasport inspect"
            )
    found_layers: list[Layer] = []
    repeated: list[Omission] = []
    order = _data_format(snapshot)
    for layer in snapshot.layers:
        kinds_given = (k for pattern, k in wanted.items() if fnmatchcase(layer.path, pattern))
        layer, twins = _once(layer)
        repeated.extend(twins)
        surrounded = replace(layer, config={**order, **layer.config}) if layer.config else layer
        given = next(kinds_given, None)
        if given is None and layer.path in placed:
            found_layers.append(_placed(layer, placed[layer.path], table, snapshot.source.backend))
            continue
        name, config, child = inside(given or layer.class_name, layer.config)
        own = table.find(name) if layer.kind is None else None
        if own is not None and not own.like:
            found_layers.append(_described(layer, own, config, child))
            continue
        like = own.like if own is not None else given
        if given is not None and like == given and layer.kind is None:
            told, stored_again = _asked(surrounded, given, snapshot.source.backend)
            found_layers.extend(told)
            repeated.extend(stored_again)
            continue
        unknown = f"the class {name} is in no table" if child and like is None else ""
        found_layers.extend(
            replace(found, note=unknown)
            if unknown and found.kind is None
            else replace(found, config=layer.config)
            if found.class_name == layer.class_name
            else found
            for found in _identified(surrounded, like, snapshot.source.backend)
        )
    found_all = replace(
        snapshot, layers=tuple(found_layers), omitted=(*snapshot.omitted, *repeated)
    )
    return replace(found_all, custom={**snapshot.custom, **_used(table, found_all)})


def completed(snapshot: Snapshot, kinds: Mapping[str, str | None]) -> Snapshot:
    """The snapshot whose layers of unknown kind are of these, where they fit.

    Args:
        snapshot: what `identify` gave.
        kinds: the kind of each layer, by path; those that no table has are passed over.
    """
    layers: list[Layer] = []
    for layer in snapshot.layers:
        kind = kinds.get(layer.path) if layer.kind is None else None
        known = _identified(layer, kind, snapshot.source.backend) if kind in KERAS else ()
        made = tuple(known)
        layers.extend(made if made and all(part.kind for part in made) else (layer,))
    return replace(snapshot, layers=tuple(layers))


def _may_be_of_hub(snapshot: Snapshot) -> bool:
    """Whether KerasHub's tables may have something to say, which take their time to load."""
    return snapshot.architecture is not None and any(
        layer.class_name is None or ">" in layer.class_name for layer in snapshot.layers
    )


def _used(table: LayerTable, snapshot: Snapshot) -> Mapping[str, Own]:
    """The descriptions of the classes and kinds that are there, and of nothing else."""
    names = [layer.kind for layer in snapshot.layers]
    names += [owner.class_name for owner in owners_in(snapshot)] if table else []
    return {own.kind: own for own in map(table.find, names) if own is not None}


def _data_format(snapshot: Snapshot) -> Mapping[str, str]:
    """The order of axes that all layers of the model keep, for those that do not say theirs."""
    configs = [layer.config for layer in snapshot.layers]
    said = [config.get("data_format") for config in configs]
    said += [ORDERINGS.get(str(config.get("dim_ordering"))) for config in configs]
    found = {order for order in said if isinstance(order, str)}
    return {"data_format": "channels_first"} if found == {"channels_first"} else {}


def _once(layer: Layer) -> tuple[Layer, list[Omission]]:
    """The layer without weights that Keras stores with it and with the layer inside it too."""
    if layer.class_name is None or layer.kind is not None:
        return layer, []
    weights = dict(layer.weights)
    omitted: list[Omission] = []
    for facet in facets(layer.class_name, layer.config):
        for twin, key in facet.repeats.items():
            if twin in weights and key in weights and _same(weights[twin], weights[key]):
                reason = f"shared with {weights[key].name}"
                omitted.append(Omission(weights.pop(twin), reason))
    if not omitted:
        return layer, []
    places: Counter[str] = Counter()
    numbered: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        above, mark, last = key.rpartition("/")
        numbered[f"{above}{mark}{places[above]}" if last.isdigit() else key] = tensor
        places[above] += 1
    return replace(layer, weights=numbered), omitted


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same bytes."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return all(a.tobytes() == b.tobytes() for a, b in zip(one.slabs(), other.slabs(), strict=True))


def _identified(layer: Layer, wanted: str | None, backend: str | None) -> Iterator[Layer]:
    """The layer, or the layers that it is made of, each as a kind or with the reason why not."""
    if layer.kind is not None:
        yield layer
        return
    class_name = wanted or layer.class_name
    if class_name is None:
        whole = _inferred(layer, backend)
        yield from (whole,) if whole.kind else _stacked(layer, backend) or (whole,)
        return
    found = facets(class_name, layer.config)
    if wanted is not None:
        prefix = _common_prefix(layer.weights)
        bare = Facet((wanted,), layer.config, axes=USUAL_AXES)
        found = tuple(replace(f, child=prefix) for f in found or (bare,)) if prefix else found
        found = found or (bare,)
    if not found:
        note = f"the class {class_name} is in no table"
        if class_name in CLASSES:
            note = f"the configuration of this {class_name} does not say which kind it is"
        yield replace(layer, note=note)
        return
    parts = _parted(layer, found)
    if parts is None:
        yield replace(layer, note=f"a tensor belongs to no part of this {class_name}")
        return
    for part, facet in parts:
        whole = _known(part, facet, backend)
        apart = () if whole.kind or not facet.apart else _apart(part, facet, backend)
        yield from apart or (whole,)


def _apart(layer: Layer, found: Facet, backend: str | None) -> tuple[Layer, ...]:
    """The layers inside one, if each is stored as one of its own, as Keras quantizes them."""
    parts = _parted(layer, found.apart) or []
    made = [
        _known(replace(part, class_name="EinsumDense", config=facet.config), facet, backend)
        for part, facet in parts
    ]
    return tuple(made) if made and all(part.kind for part in made) else ()


def _asked(
    layer: Layer, wanted: str, backend: str | None
) -> tuple[list[Layer], Sequence[Omission]]:
    """The layer as the class or kind that a user named, whose options nobody knows.

    A kind is what it is. A class is the one of its kinds that fits what is stored.
    """
    name, configs = asked(wanted) or (wanted, ({},))
    tried: list[tuple[list[Layer], Sequence[Omission]]] = []
    for config in configs:
        configured = replace(layer, class_name=name, config={**config, **layer.config})
        once, twins = _once(configured)
        found = _identified(replace(once, class_name=layer.class_name), name, backend)
        tried.append(([replace(part, config=layer.config) for part in found], twins))
    fits: dict[tuple[str | None, ...], tuple[list[Layer], Sequence[Omission]]] = {}
    for way in tried:
        kinds = tuple(part.kind for part in way[0])
        if None not in kinds:
            fits.setdefault(kinds, way)
    if (wanted,) in fits:
        return fits[wanted,]
    if len(fits) == 1:
        return next(iter(fits.values()))
    if fits:
        names = sorted({str(kind) for kinds in fits for kind in kinds})
        choice = f"the stored tensors fit several kinds of {wanted}: {', '.join(names)}; say which"
        return [replace(layer, note=f"{choice} with --kind '{layer.path}={names[0]}'")], ()
    if not any(facets(name, config) for config in configs) and name in HOLDERS:
        held = f"say what it holds, such as --kind '{layer.path}={name}(Dense)'"
        return [replace(layer, note=f"{name} stores its layer's weights: {held}")], ()
    return tried[0]


def _placed(layer: Layer, specs: Sequence[Spec], table: LayerTable, backend: str | None) -> Layer:
    """A layer of which KerasHub's table says what it is, if what is stored fits one way of it."""
    from kerasport.hub import PACKAGE

    tried: list[Layer] = []
    for spec, config in ((one, known) for one in specs for known in one.configs):
        configured = replace(layer, config=config)
        own = table.find(f"{PACKAGE}>{spec.name}")
        if own is not None:
            tried.append(_described(configured, own, config, ""))
        elif spec.name in CLASSES:
            tried += _identified(configured, spec.name, backend)
    names = ", ".join(dict.fromkeys(spec.name for spec in specs))
    fits = list({way.kind: way for way in tried if way.kind is not None}.values())
    if len(fits) == 1:
        note = f"the file names no class; KerasHub keeps {names} here"
        return replace(fits[0], config=layer.config, class_name=None, inferred=True, note=note)
    reasons = [f"{len(fits)} of them fit"] if fits else [way.note for way in tried]
    said = "; ".join(reasons) or "which no table describes"
    return replace(layer, note=f"KerasHub keeps {names} here: {said}")


def _described(layer: Layer, own: Own, config: Mapping[str, Any], child: str) -> Layer:
    """A layer of a described class: its description must fit, or the layer says why it does not."""
    facet = replace(own.facet(config), child=child or _prefix(layer, own))
    reasons: list[str] = []
    # Where the configuration does not say an option, what is stored decides.
    for as_said in (True, False):
        ways: list[Layer] = []
        for case in rows(own.rows.get("keras", ())):
            if isinstance(case.slots, Absent) or any(
                str(config.get(option, value)) != value for option, value in case.options.items()
            ):
                continue
            said = tuple(slot for slot in case.slots if _present(slot, config))
            for slots in [said] if as_said else _subsets(case.slots, len(layer.weights)):
                match = _matched(layer, "keras", own.kind, slots, facet, case=case)
                if isinstance(match, Layer):
                    ways.append(match)
                else:
                    reasons.append(match)
        if ways:
            return _the_one_way(layer, ways)
    stored = ", ".join(f"{key} {tensor.spec}" for key, tensor in layer.weights.items())
    reason = reasons[0] if reasons else "it describes no weights of its own"
    return replace(
        layer, note=f"the stored tensors ({stored}) do not fit the description {own.kind}: {reason}"
    )


def _prefix(layer: Layer, own: Own) -> str:
    """The attributes around a layer that the file does not name the class of: `layer`, `cell`."""
    prefix = _common_prefix(layer.weights)
    return "" if layer.class_name or own.children else prefix


def _parted(layer: Layer, found: Sequence[Facet]) -> list[tuple[Layer, Facet]] | None:
    """A layer that is several, such as stacked cells, cut into them by where they are stored."""
    if len(found) == 1:
        return [(layer, found[0])]
    parts: dict[int, dict[str, Tensor]] = {}
    for key, tensor in layer.weights.items():
        fits = [n for n, facet in enumerate(found) if _belongs(key, facet)]
        if not fits:
            return None
        nearest = max(fits, key=lambda n: (len(found[n].child), len(found[n].name)))
        parts.setdefault(nearest, {})[key] = tensor
    return [
        (replace(layer, path=f"{layer.path}/{facet.name}".rstrip("/"), weights=own), facet)
        for number, facet in enumerate(found)
        if (own := parts.get(number))
    ]


def _belongs(key: str, facet: Facet) -> bool:
    """Whether a tensor is the part's: stored below its attribute path, or in its scopes."""
    *around, last = key.split("/")
    if last.isdigit():
        return not facet.child or key.startswith(f"{facet.child}/")
    return all(
        any(fnmatchcase(word, pattern) for word in around for pattern in _scope(name, facet))
        for name in facet.name.split("/")
        if name
    )


def _scope(name: str, facet: Facet) -> tuple[str, ...]:
    """What older files may call a part or a direction."""
    return facet.names.get(name, (f"{name}*",))


def _known(layer: Layer, found: Facet, backend: str | None) -> Layer:
    """A layer whose class is known: its row must fit, or the layer says why it does not."""
    reasons: list[tuple[bool, str]] = []
    for kind in found.kinds:
        for name in _sources(kind, backend, found):
            fits: list[Layer] = []
            for case in _cases(name, kind, found.config, backend):
                if isinstance(case, Absent):
                    return replace(layer, note=case.reason)
                present = tuple(slot for slot in case if _present(slot, found.config))
                match = _matched(layer, name, kind, present, found)
                if isinstance(match, Layer):
                    fits.append(match)
                else:
                    other = _keys(layer.weights, present, found, classless=False) is None
                    reasons.append((other, f"{kind}: {match}"))
            if fits:
                return _the_one_way(layer, fits)
    # Options may be missing from old or partial configurations: then what is stored decides.
    ways = [
        way
        for kind in found.kinds
        for name in _sources(kind, backend, found)
        for way in _ways(layer, name, kind, found, backend)
    ]
    if ways:
        return _the_one_way(layer, ways)
    stored = ", ".join(f"{key} {tensor.spec}" for key, tensor in layer.weights.items())
    # The convention whose names the tensors have knows best what is wrong with them.
    _, reason = min(reasons, key=lambda reason: reason[0])
    return replace(layer, note=f"the stored tensors ({stored}) do not fit; {reason}")


def _sources(kind: str, backend: str | None, found: Facet | None = None) -> tuple[str, ...]:
    """The conventions of files that a kind may be in; a backend of its own replaces today's."""
    if found is not None and found.convention:
        return (found.convention,)
    if backend == "theano" and kind in convention("theano"):
        return ("theano", *(name for name in SOURCES if name != "keras"))
    return SOURCES


def possible(layer: Layer, backend: str | None) -> list[Layer]:
    """A layer of unknown class as each kind that fits everything stored, where it fits one way.

    Args:
        layer: whose kind is not known.
        backend: the backend that its file was written on, as far as it says.
    """
    return [ways[0] for ways in _all_ways(layer, backend) if len(ways) == 1]


def _all_ways(layer: Layer, backend: str | None) -> list[list[Layer]]:
    """For each kind that fits everything stored, every way in which it does."""
    stored = tuple((key, t.dtype, t.shape) for key, t in layer.weights.items())
    found_ways = [_ways_of(layer, kind, backend) for kind in _fitting(stored, backend)]
    fitting = {ways[0].kind for ways in found_ways}
    return [ways for ways in found_ways if SPECIAL.get(str(ways[0].kind), "") not in fitting]


def _inferred(layer: Layer, backend: str | None) -> Layer:
    """A layer of unknown class: the one kind that fits everything stored, if there is just one."""
    found_ways = _all_ways(layer, backend)
    if len(found_ways) > 1 and layer.named_after:
        # Several fit, and the place in which it is stored is called after the class of one.
        named = _asked(replace(layer, named_after=""), layer.named_after, backend)[0]
        kinds = {part.kind for part in named}
        found_ways = [ways for ways in found_ways if ways[0].kind in kinds] or found_ways
    else:
        layer = replace(layer, named_after="")
    if len(found_ways) == 1:
        only = _the_one_way(layer, found_ways[0])
        return replace(only, inferred=only.kind is not None, named_after=layer.named_after)
    fits = [ways[0] for ways in found_ways]
    if not fits:
        return replace(layer, note=layer.note or "no kind in the tables fits the stored tensors")
    # The group's name is no proof, but it tells which answer to offer first.
    fits.sort(key=_likeness, reverse=True)
    names = ", ".join(str(fit.kind) for fit in fits)
    return replace(
        layer,
        note=f"the file names no class and {len(fits)} kinds fit: {names}; say which with "
        f"--kind '{layer.path}={fits[0].kind}', or give the architecture with --config",
    )


def _stacked(layer: Layer, backend: str | None) -> list[Layer]:
    """A layer of unknown class as the cells that it stacks, if each of them is known; else none.

    Keras 3 stores them in `cell/cells`, and everything that names attributes in the
    `stacked_rnn_cells` that Keras makes of a list of cells.
    """
    cells: dict[str, dict[str, Tensor]] = {}
    for key, tensor in layer.weights.items():
        place = _CELL_OF_A_STACK.match(key)
        if place is None:
            return []
        cells.setdefault(place[1], {})[key] = tensor
    made = [
        _inferred(replace(layer, path=f"{layer.path}/{name}", weights=weights), backend)
        for name, weights in cells.items()
    ]
    if any(f"{cell.kind}Cell" not in KERAS for cell in made):
        return []
    return [replace(cell, kind=f"{cell.kind}Cell") for cell in made]


def _ways(
    layer: Layer,
    name: str,
    kind: str,
    found: Facet,
    backend: str | None,
    *,
    classless: bool = False,
) -> list[Layer]:
    """The layer as this kind, for each choice of optional weights that fits what is stored."""
    return [
        match
        for case in _cases(name, kind, found.config, backend)
        if not isinstance(case, Absent)
        for slots in _subsets(case, len(layer.weights))
        if isinstance(
            match := _matched(layer, name, kind, slots, found, classless=classless), Layer
        )
    ]


def _ways_of(layer: Layer, kind: str, backend: str | None) -> list[Layer]:
    """The layer of unknown class as this kind, in every way that fits."""
    return [
        way
        for name in _sources(kind, backend)
        for prefix in dict.fromkeys(("", _common_prefix(layer.weights)))
        for way in _ways(
            layer,
            *(name, kind, Facet((kind,), child=prefix, axes=USUAL_AXES), backend),
            classless=True,
        )
    ]


@lru_cache(maxsize=1024)
def _fitting(
    stored: tuple[tuple[str, Any, tuple[int, ...]], ...], backend: str | None
) -> tuple[str, ...]:
    """The kinds that fit what is stored; a model has many layers alike, and each is asked once."""
    weights = {key: Tensor(key, dtype, shape, _nothing) for key, dtype, shape in stored}
    layer = Layer("", None, {}, weights)
    numbers = _numbers_alone(weights)
    words = {_unnumbered(key) for key in weights}
    found = []
    for kind in dict.fromkeys(kind for name in SOURCES for kind in convention(name)):
        if kind.endswith("Cell"):  # by itself it stores what its layer does
            continue
        if not any(
            len(weights) in _counts(name, kind) and (numbers or words <= _names(name, kind))
            for name in _sources(kind, backend)
        ):
            continue  # most kinds, without looking any closer
        if kind in CONFIGURED or (kind in BY_NAME and numbers):
            continue
        if kind == "SimpleRNN" and numbers and not _in_a_cell(weights):
            continue  # any two square matrices
        if _ways_of(layer, kind, backend):
            found.append(kind)
    return tuple(found)


def _nothing() -> Any:
    raise AssertionError("only dtype and shape are looked at")


@cache
def _counts(name: str, kind: str) -> frozenset[int]:
    """How many tensors a kind may be stored as, with and without its optional ones."""
    found: set[int] = set()
    for case in rows(convention(name).get(kind, ())):
        if not isinstance(case.slots, Absent):
            needed = sum(not slot.when for slot in case.slots)
            found |= set(range(needed, len(case.slots) + 1))
    return frozenset(found)


@cache
def _names(name: str, kind: str) -> frozenset[str]:
    """What files that name no classes may call the weights of a kind."""
    cases = (case.slots for case in rows(convention(name).get(kind, ())))
    slots = (slot for found in cases if not isinstance(found, Absent) for slot in found)
    return frozenset(
        word for slot in slots for word in slot.aliases or (slot.name.rpartition("/")[2],)
    )


def _unnumbered(key: str) -> str:
    """The last word of a key; the number that TensorFlow gives a name seen before says nothing."""
    return re.sub(r"_\d+$", "", key.rpartition("/")[2])


def _the_one_way(layer: Layer, ways: Sequence[Layer]) -> Layer:
    """The layer, if there is one way to read it: numbered tensors do not say which is gamma."""
    if len(ways) == 1:
        return ways[0]
    readings = dict.fromkeys(", ".join(way.weights) for way in ways)
    choices = " as ".join(readings)
    if len(readings) == 1:
        layouts = dict.fromkeys(str(next(iter(way.weights.values())).layout) for way in ways)
        choices = f"{choices} laid out as {' or '.join(map(repr, layouts))}"
    return replace(
        layer,
        note=f"the stored tensors fit {ways[0].kind} with {choices}; give the architecture with "
        "--config",
    )


def _common_prefix(keys: Iterable[str]) -> str:
    """The attribute path that all numbered keys share: `layer`, `layer/cell`."""
    paths = [key.split("/")[:-1] for key in keys if key.rpartition("/")[2].isdigit()]
    shared = takewhile(lambda words: len(set(words)) == 1, zip(*paths, strict=False))
    return "/".join(words[0] for words in shared)


def _likeness(layer: Layer) -> tuple[int, bool]:
    """How much of the kind's name is in the stored path, and whether that is all of it."""
    kind = str(layer.kind).lower()
    path = f"{layer.path}/{next(iter(layer.weights.values())).stored}".lower().replace("_", "")
    found = max((n for n in range(3, len(kind) + 1) if kind[:n] in path), default=0)
    return found, found == len(kind)


def _cases(
    name: str, kind: str, config: Mapping[str, Any], backend: str | None
) -> Iterator[tuple[Slot, ...] | Absent]:
    """The rows of a kind that the layer's options do not speak against."""
    # Only Theano's kernels are unlike all others.
    options = {**config, "backend": "theano" if backend == "theano" else "tensorflow"}
    for case in rows(convention(name).get(kind, ())):
        unsaid = () if isinstance(case.slots, Absent) and case.options else ("None",)
        if all(
            str(options.get(option)) in (*unsaid, value) for option, value in case.options.items()
        ):
            yield case.slots


def stored_keys(class_name: str, config: Mapping[str, Any]) -> list[str]:
    """The keys of a layer's weights in the order of its variables; none where it has no weights.

    >>> stored_keys("Dense", {"use_bias": False}), stored_keys("LSTM", {})
    (['0'], ['cell/0', 'cell/1', 'cell/2'])

    Args:
        class_name: its Keras class.
        config: its configuration.
    """
    keys: list[str] = []
    for facet in facets(class_name, config):
        case = next(_cases("keras", facet.kinds[0], facet.config, None), ())
        slots = () if isinstance(case, Absent) else case
        keys += _numbered((s for s in slots if _present(s, facet.config)), facet.child)
    return keys


def _present(slot: Slot, config: Mapping[str, Any]) -> bool:
    return not slot.when or bool(config.get(slot.when, config.get("bias", True)))


def _subsets(slots: Sequence[Slot], count: int) -> Iterator[tuple[Slot, ...]]:
    """The slots that must be there, with every choice of optional ones that makes `count`."""
    optional = [slot for slot in slots if slot.when]
    extra = count - (len(slots) - len(optional))
    # A layer either has all its biases or none, but may scale without centering.
    options = dict.fromkeys(slot.when for slot in optional)
    for number in range(len(options) + 1):
        for chosen in combinations(options, number):
            if sum(slot.when in chosen for slot in optional) == extra:
                yield tuple(slot for slot in slots if not slot.when or slot.when in chosen)


def _matched(
    layer: Layer,
    name: str,
    kind: str,
    slots: Sequence[Slot],
    found: Facet,
    *,
    classless: bool = False,
    case: Case | None = None,
) -> Layer | str:
    """The layer as this kind with these slots as its roles, or the reason why it is none."""
    keys = _keys(layer.weights, slots, found, classless=classless)
    if name == "keras1" and _numbers_alone(layer.weights):  # which named them all
        keys = None
    if keys is None:
        return f"expected {', '.join(slot.name for slot in slots) or 'no weights'}"
    tensors = {slot.name: layer.weights[key] for slot, key in zip(slots, keys, strict=True)}
    for slot in slots:
        if (misfit := _unlike(slot, tensors[slot.name], classless=classless)) is not None:
            return misfit
    words = dict(found.axes)
    try:
        layouts = {slot.name: _layout(slot, tensors, found, words) for slot in slots}
    except KeyError:
        return "its axes follow from a configuration that is not there"
    cases = tuple(rows(convention(name)[kind])) if case is None else (case,)
    sizes: dict[str, int] = dict(found.sizes)
    waiting = list(layouts)
    misfits: dict[str, LayoutError] = {}
    while waiting:
        left: list[str] = []
        for role in waiting:
            try:
                sizes |= layouts[role].bind(tensors[role].shape, sizes)
            except LayoutError as error:
                misfits.setdefault(role, error)
                left.append(role)
        # What one tensor leaves open another may say, such as a bias without merged axes.
        if len(left) == len(waiting):
            if not _implied(sizes, cases):
                return f"{left[0]}: {misfits[left[0]]}"
            misfits.clear()
        waiting = left
    weights: dict[str, Tensor] = {}
    for slot in slots:
        tensor = tensors[slot.name]
        weights[slot.name] = replace(
            tensor,
            name=f"{layer.path}/{slot.name}",
            layout=layouts[slot.name],
            at=slot.pins,
            role=slot.name,
            axes=phrases(kind),
            trainable=tensor.trainable if slot.trainable else False,
        )
    for way in cases:
        if not way.holds(sizes):
            return f"expected {', '.join(way.where)}, found {sizes}"
    return replace(
        layer,
        kind=kind,
        convention=name,
        weights=Named("role", weights),
        sizes=sizes,
        words=words,
    )


def _implied(sizes: dict[str, int], cases: Iterable[Case]) -> bool:
    """Put in sizes of axes that equal others which are known; whether there were any."""
    before = len(sizes)
    for equation in (equation for case in cases for equation in case.where):
        axes = [side.strip() for side in equation.split("=")]
        known = {sizes[axis] for axis in axes if axis in sizes}
        if len(known) == 1:
            sizes |= {axis: min(known) for axis in axes if axis.isidentifier()}
    return len(sizes) > before


def _unlike(slot: Slot, tensor: Tensor, *, classless: bool) -> str | None:
    """Why a tensor's numbers are not of the slot's kind: whole numbers are quantized weights."""
    expected, found = slot.dtype, dtype_name(tensor.dtype)
    if expected and found != expected:
        return f"{slot.name}: expected {expected}, found {tensor.spec}"
    if classless and not expected and found in ("i8", "u8"):
        return f"{slot.name}: expected floats, found {tensor.spec}"
    return None


def _layout(
    slot: Slot, tensors: Mapping[str, Tensor], found: Facet, words: dict[str, str]
) -> Layout:
    """The slot's sentence; an open brace gets as many dimensions as are stored."""
    layout = Layout.parse(slot.layout.format_map(words))
    more = len(tensors[slot.name].shape) - len(layout.dims)
    for brace in (*found.open.split(), *found.ahead.split()):
        if f"{{{brace}}}" in slot.layout and more > 0:
            ones = " 1" * more
            behind = brace in found.open.split()
            words[brace] = words[brace] + ones if behind else f"{ones} {words[brace]}".strip()
    return Layout.parse(slot.layout.format_map(words))


def _in_a_cell(stored: Iterable[str]) -> bool:
    """Whether Keras 3 stored it as the cell of a recurrent layer, or as one of several."""
    return all(key.split("/")[-2:-1] == ["cell"] or _CELL_OF_A_STACK.match(key) for key in stored)


def _numbers_alone(stored: Iterable[str]) -> bool:
    return all(key.rpartition("/")[2].isdigit() for key in stored)


def _keys(
    stored: Mapping[str, Tensor], slots: Sequence[Slot], found: Facet, *, classless: bool
) -> list[str] | None:
    """The stored key of each slot, if keys and slots are one to one."""
    if len(stored) != len(slots):
        return None
    if _numbers_alone(stored):
        # tf_keras keeps in `_query_dense` what Keras 3 keeps in `query_dense`.
        public = {"/".join(word.lstrip("_") for word in key.split("/")): key for key in stored}
        keys = [public.get(key, "") for key in _numbered(slots, found.child)]
    else:
        keys = _named(stored, slots, found, classless=classless)
    return keys if sorted(keys) == sorted(stored) else None


def _numbered(slots: Iterable[Slot], child: str) -> list[str]:
    """Keys as Keras 3 numbers them: the attribute path and the place in the order of variables."""
    keys: list[str] = []
    places: Counter[str] = Counter()
    for slot in slots:
        path = "/".join(part for part in (child, slot.child) if part)
        keys.append(f"{path}/{places[path]}".lstrip("/"))
        places[path] += 1
    return keys


def _named(
    stored: Iterable[str], slots: Iterable[Slot], found: Facet, *, classless: bool
) -> list[str]:
    """Keys by name: the last word is the variable's, the words before it may tell twins apart.

    Files that name variables and no classes are older than Keras 3, and have the names of then.
    """
    words = {key: [*key.split("/")[:-1], _unnumbered(key)] for key in stored}
    keys: list[str] = []
    for slot in slots:
        *above, own = slot.name.split("/")
        fits = [
            key
            for key, (*around, last) in words.items()
            if last in ((slot.aliases or (own,)) if classless else (own, *slot.aliases))
            and all(
                any(
                    fnmatchcase(word, pattern) for word in around for pattern in _scope(name, found)
                )
                for name in above
            )
        ]
        if len(fits) > 1 and slot.name in fits:  # `kernel`, beside `projection/kernel`
            fits = [slot.name]
        keys.append(fits[0] if len(fits) == 1 else "")
    return keys
