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
from itertools import combinations, takewhile
from typing import Any

from kerasport.conventions import Slot, convention, rows
from kerasport.errors import LayoutError, UsageError
from kerasport.kinds import CLASSES, Facet, facets, phrases
from kerasport.layout import Layout
from kerasport.model import Layer, Named, Snapshot, Tensor

__all__ = ["identify"]

KERAS = convention("keras")
# The conventions of files, today's before those of older ones.
SOURCES = ("keras",)
# What the tables' braces mean where no configuration says: the common case, and only if it fits.
USUAL_AXES: Mapping[str, str] = {"normalized": "channel"}


def identify(snapshot: Snapshot, kinds: Mapping[str, str] | None = None) -> Snapshot:
    """The snapshot with kinds, roles and layouts.

    Args:
        snapshot: as a reader delivers it.
        kinds: layer-path patterns → kind or Keras class, for files that name no classes.

    Raises:
        UsageError: a pattern names no layer, or a kind that does not exist.
    """
    wanted = dict(kinds or {})
    for pattern, kind in wanted.items():
        if kind not in KERAS and kind not in CLASSES:
            raise UsageError(
                f"--kind {pattern}={kind}: expected one of {', '.join(sorted({*KERAS, *CLASSES}))}"
            )
        if not any(fnmatchcase(layer.path, pattern) for layer in snapshot.layers):
            raise UsageError(
                f"--kind {pattern}={kind}: no layer has such a path. See: kerasport inspect"
            )
    layers: list[Layer] = []
    for layer in snapshot.layers:
        kinds_given = (k for pattern, k in wanted.items() if fnmatchcase(layer.path, pattern))
        layers.extend(_identified(layer, next(kinds_given, None), snapshot.source.backend))
    return replace(snapshot, layers=tuple(layers))


def _identified(layer: Layer, wanted: str | None, backend: str | None) -> Iterator[Layer]:
    """The layer, or the layers that it is made of, each as a kind or with the reason why not."""
    if layer.kind is not None:
        yield layer
        return
    class_name = wanted or layer.class_name
    if class_name is None:
        yield _inferred(layer, backend)
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
    for part, facet in _parted(layer, found):
        yield _known(part, facet, backend)


def _parted(layer: Layer, found: Sequence[Facet]) -> Iterator[tuple[Layer, Facet]]:
    """A layer that is several, such as stacked cells, cut into them by where they are stored."""
    if len(found) == 1:
        yield layer, found[0]
        return
    left = dict(layer.weights)
    for facet in found:
        own = {k: left.pop(k) for k in tuple(left) if _belongs(k, facet)}
        yield replace(layer, path=f"{layer.path}/{facet.name}", weights=Named("role", own)), facet
    if left:
        yield replace(layer, weights=Named("role", left), note="belongs to no part of it"), found[0]


def _belongs(key: str, facet: Facet) -> bool:
    return key.startswith(f"{facet.child}/") or facet.name in key.split("/")[:-1]


def _known(layer: Layer, found: Facet, backend: str | None) -> Layer:
    """A layer whose class is known: its row must fit, or the layer says why it does not."""
    reasons: list[str] = []
    for name in SOURCES:
        for kind in found.kinds:
            for case in _cases(name, kind, found.config, backend):
                present = tuple(slot for slot in case if _present(slot, found.config))
                match = _matched(layer, name, kind, present, found)
                if isinstance(match, Layer):
                    return match
                reasons.append(f"{kind}: {match}")
    # Options may be missing from old or partial configurations: then what is stored decides.
    ways = [
        way
        for name in SOURCES
        for kind in found.kinds
        for way in _ways(layer, name, kind, found, backend)
    ]
    if ways:
        return _the_one_way(layer, ways)
    stored = ", ".join(f"{key} {tensor.spec}" for key, tensor in layer.weights.items())
    return replace(layer, note=f"the stored tensors ({stored}) do not fit; {reasons[0]}")


def _inferred(layer: Layer, backend: str | None) -> Layer:
    """A layer of unknown class: the one kind that fits everything stored, if there is just one."""
    found_ways: list[list[Layer]] = []
    prefixes = dict.fromkeys(("", _common_prefix(layer.weights)))
    for name in SOURCES:
        for kind in convention(name):
            if kind.endswith("Cell"):  # by itself it stores what its layer does
                continue
            ways = [
                way
                for prefix in prefixes
                for way in _ways(
                    layer,
                    *(name, kind, Facet((kind,), child=prefix, axes=USUAL_AXES), backend),
                    classless=True,
                )
            ]
            if ways:
                found_ways.append(ways)
    if len(found_ways) == 1:
        only = _the_one_way(layer, found_ways[0])
        return replace(only, inferred=only.kind is not None)
    fits = [ways[0] for ways in found_ways]
    if not fits:
        return replace(layer, note="no kind in the tables fits the stored tensors")
    # The group's name is no proof, but it tells which answer to offer first.
    fits.sort(key=lambda fit: not _hinted(fit))
    names = ", ".join(str(fit.kind) for fit in fits)
    return replace(
        layer,
        note=f"the file names no class and {len(fits)} kinds fit: {names}; say which with "
        f"--kind '{layer.path}={fits[0].kind}', or give the architecture with --config",
    )


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
        for slots in _subsets(case, len(layer.weights))
        if isinstance(
            match := _matched(layer, name, kind, slots, found, classless=classless), Layer
        )
    ]


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


def _hinted(layer: Layer) -> bool:
    """True where the stored path has the word that Keras makes of the kind's class name."""
    kind = str(layer.kind).lower()
    words = re.split(r"[/.]", f"{layer.path}/{next(iter(layer.weights.values())).stored}")
    return any(re.sub(r"_\d+$", "", word).replace("_", "") == kind for word in words)


def _cases(
    name: str, kind: str, config: Mapping[str, Any], backend: str | None
) -> Iterator[tuple[Slot, ...]]:
    """The rows of a kind that the layer's options do not speak against."""
    options = {**config, "backend": backend}
    for case in rows(convention(name).get(kind, ())):
        if isinstance(case.slots, tuple) and all(
            options.get(option) in (None, value) for option, value in case.options.items()
        ):
            yield case.slots


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
) -> Layer | str:
    """The layer as this kind with these slots as its roles, or the reason why it is none."""
    keys = _keys(layer.weights, slots, found.child, classless=classless)
    if keys is None:
        return f"expected {', '.join(slot.name for slot in slots) or 'no weights'}"
    sizes: dict[str, int] = dict(found.sizes)
    weights: dict[str, Tensor] = {}
    for slot, key in zip(slots, keys, strict=True):
        tensor = layer.weights[key]
        try:
            layout = Layout.parse(slot.layout.format_map(found.axes))
            sizes |= layout.bind(tensor.shape, sizes)
        except KeyError:
            return "its axes follow from a configuration that is not there"
        except LayoutError as error:
            return f"{slot.name}: {error}"
        weights[slot.name] = replace(
            tensor,
            name=f"{layer.path}/{slot.name}",
            layout=layout,
            at=slot.pins,
            role=slot.name,
            axes=phrases(kind),
            trainable=tensor.trainable if slot.trainable else False,
        )
    for case in rows(convention(name)[kind]):
        if not case.holds(sizes):
            return f"expected {', '.join(case.where)}, found {sizes}"
    return replace(
        layer,
        kind=kind,
        convention=name,
        weights=Named("role", weights),
        sizes=sizes,
        words=found.axes,
    )


def _keys(
    stored: Mapping[str, Tensor], slots: Sequence[Slot], child: str, *, classless: bool
) -> list[str] | None:
    """The stored key of each slot, if keys and slots are one to one."""
    if len(stored) != len(slots):
        return None
    if all(key.rpartition("/")[2].isdigit() for key in stored):
        # tf_keras keeps in `_query_dense` what Keras 3 keeps in `query_dense`.
        public = {"/".join(word.lstrip("_") for word in key.split("/")): key for key in stored}
        keys = [public.get(key, "") for key in _numbered(slots, child)]
    else:
        keys = _named(stored, slots, classless=classless)
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


def _named(stored: Iterable[str], slots: Iterable[Slot], *, classless: bool) -> list[str]:
    """Keys by name: the last word is the variable's, the words before it may tell twins apart.

    TensorFlow numbers a name that its graph has seen before (`kernel_1`); the number says nothing.
    Files that name variables and no classes are older than Keras 3, and have the names of then.
    """
    words = {
        key: [*key.split("/")[:-1], re.sub(r"_\d+$", "", key.split("/")[-1])] for key in stored
    }
    keys: list[str] = []
    for slot in slots:
        *above, own = slot.name.split("/")
        fits = [
            key
            for key, (*around, last) in words.items()
            if last in ((slot.aliases or (own,)) if classless else (own, *slot.aliases))
            and all(any(word.startswith(name) for word in around) for name in above)
        ]
        keys.append(fits[0] if len(fits) == 1 else "")
    return keys
