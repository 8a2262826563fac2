"""Quantized weights as the floats that Keras computes with.

Keras stores a quantized kernel as whole numbers with scales, and turns them into floats whenever
the layer is called. Here the same is done once, in the same order of the same operations, so that
in float32 the floats are Keras's to the last bit. That is a fold, which the target cannot undo, so
it is done only where it is asked for, and noted.

What a scheme computes is said in words by `variants.formulas`; how its tensors lie to one another
follows from their layouts. A scale with an axis of groups is spread over the inputs by the group of
each, then along the axes that it lacks. Values are computed in the dtype of the scales, in which
Keras keeps its variables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from threading import Lock
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasport.architecture import Leaf, parse
from kerasport.conventions import convention, rows
from kerasport.errors import MalformedError, UnsupportedError
from kerasport.kinds import facets, own_config, phrases
from kerasport.layout import Layout, relayout
from kerasport.model import (
    Layer,
    Named,
    Note,
    Omission,
    Snapshot,
    Tensor,
    dtype_name,
    dtype_named,
)
from kerasport.shapes import Shape, inputs_of, shapes
from kerasport.variants import LORA, formulas, plain, scheme

__all__ = ["dequantized"]

Array = npt.NDArray[Any]

FLOAT8: Final = "f8_e4m3fn"


def dequantized(snapshot: Snapshot) -> Snapshot:
    """The snapshot with floats for all weights that are quantized.

    Args:
        snapshot: identified layers.

    Returns:
        The same layers, those that were quantized as the plain kind that they are a variant of.
        What the floats were made of is listed as omitted. They are computed when asked for.

    Raises:
        UnsupportedError: a kernel was packed into a matrix, and nothing says what its axes are.
    """
    if not any(scheme(layer.kind or "") for layer in snapshot.layers):
        return snapshot
    graph = None if snapshot.architecture is None else parse(snapshot.architecture)
    calls = {} if graph is None else shapes(graph, inputs_of(snapshot.architecture))
    kept = _Kept()
    layers: list[Layer] = []
    notes: list[Note] = []
    omitted: list[Omission] = []
    problems: list[str] = []
    for layer in snapshot.layers:
        if not scheme(layer.kind or ""):
            layers.append(layer)
            continue
        taken = next((call.inputs[0] for call in calls.get(layer.path, ()) if call.inputs), None)
        try:
            made, said = _floats(layer, taken, kept)
        except UnsupportedError as error:
            problems.append(f"{layer.path}: {error}")
            continue
        layers.append(made)
        notes.extend(said)
        omitted.extend(_folded(layer, made))
    layers = list(_rejoined(layers, {} if graph is None else {x.path: x for x in graph.leaves()}))
    if problems:
        message = f"{snapshot.source.file} cannot be dequantized:"
        raise UnsupportedError(message, sorted(problems))
    return replace(
        snapshot,
        layers=tuple(layers),
        omitted=(*snapshot.omitted, *omitted),
        notes=(*snapshot.notes, *notes),
    )


def _floats(layer: Layer, taken: Shape, kept: _Kept) -> tuple[Layer, list[Note]]:
    """One layer as its plain kind, and what was done to it."""
    quantized = str(layer.kind)
    how, kind = scheme(quantized), plain(quantized)
    factored = f"{kind}{LORA}" if quantized.endswith(LORA) else kind
    sizes = {**layer.sizes, **_sizes(layer, taken)}
    (case,) = rows(convention("keras")[factored])
    assert isinstance(case.slots, tuple), "Keras holds its own layers"
    weights: dict[str, Tensor] = {}
    notes: list[Note] = []
    for slot in case.slots:
        layout = Layout.parse(slot.layout.format_map(layer.words))
        whole = _Weight.of(layer, slot.name, how)
        if whole is not None:
            name = f"{layer.path}/{slot.name}"
            weights[slot.name] = Tensor(
                name,
                whole.dtype,
                layout.shape(sizes),
                kept.loading(name, whole.floats),
                layout,
                slot.pins,
                slot.name,
                axes=phrases(kind),
                stored=whole.stored.stored,
                same_as=whole.stored.same_as,
            )
            formula = formulas(how, slot.name)
            message = f"computed from {whole.stored.spec} in {dtype_name(whole.dtype)}: {formula}"
            notes.append(Note("dequantized", name, message))
        elif slot.name in layer.weights:
            tensor = layer.weights[slot.name]
            if how == "Float8" and slot.name == "bias" and tensor.dtype == np.float32:
                tensor = _rounded(tensor, "bf16")
                notes.append(
                    Note("dequantized", tensor.name, "rounded to bf16, as Keras adds it in float8")
                )
            weights[slot.name] = tensor
    axes = {axis for tensor in weights.values() if tensor.layout for axis in tensor.layout.axes}
    sizes = {axis: size for axis, size in sizes.items() if axis in axes}
    made = replace(layer, kind=factored, weights=Named("role", weights), sizes=sizes)
    return made, notes


PROJECTIONS: Final = ("query", "key", "value", "attention_output")


def _rejoined(layers: Sequence[Layer], leaves: Mapping[str, Leaf]) -> Iterator[Layer]:
    """The layers with an attention whose parts were quantized one by one as one layer again."""
    left = list(layers)
    while left:
        path = left[0].path.rpartition("/")[0]
        parts = left[: len(PROJECTIONS)]
        leaf = leaves.get(path)
        if (
            leaf is not None
            and leaf.node.class_name == "MultiHeadAttention"
            and [part.path for part in parts] == [f"{path}/{name}" for name in PROJECTIONS]
            and all(part.kind == "EinsumDense" for part in parts)
        ):
            yield _joined(parts, path, leaf)
            del left[: len(PROJECTIONS)]
        else:
            yield left.pop(0)


def _joined(parts: Sequence[Layer], path: str, leaf: Leaf) -> Layer:
    """Four dense layers as the attention that they are the projections of."""
    (facet,) = facets(leaf.node.class_name, leaf.node.config)
    (kind,) = facet.kinds
    (case,) = rows(convention("keras")[kind])
    assert isinstance(case.slots, tuple), "Keras holds its own layers"
    own = {
        f"{part.path.rpartition('/')[2]}/{role}": tensor
        for part in parts
        for role, tensor in part.weights.items()
    }
    weights: dict[str, Tensor] = {}
    sizes: dict[str, int] = {}
    for slot in case.slots:
        if slot.name in own:
            layout = Layout.parse(slot.layout.format_map(facet.axes))
            sizes |= layout.bind(own[slot.name].shape, sizes)
            weights[slot.name] = replace(
                own[slot.name],
                layout=layout,
                at=slot.pins,
                role=slot.name,
                axes=phrases(kind),
            )
    return Layer(
        path,
        leaf.node.class_name,
        leaf.node.config,
        Named("role", weights),
        kind=kind,
        sizes=sizes,
        words=facet.axes,
    )


def _folded(layer: Layer, made: Layer) -> Iterator[Omission]:
    """What is not among the floats: it is in them, or was for training alone."""
    first = next(iter(n for n in ("kernel", "embeddings") if n in made.weights))
    for role, tensor in layer.weights.items():
        if role in made.weights:
            continue
        state = "amax_history" in role or role in ("inputs_scale", "outputs_grad_scale")
        into = "reverse_embeddings" if role.startswith("reverse_") else first
        reason = "state of float8 training" if state else f"folded into {layer.path}/{into}"
        yield Omission(tensor, reason)


def _sizes(layer: Layer, taken: Shape) -> dict[str, int]:
    """The sizes of the axes of a kernel that is kept as a matrix of others."""
    if "row" not in layer.sizes:
        return {}
    size = layer.sizes["row"] * layer.sizes["column"]
    axes = Layout.parse(layer.words["kernel"]).axes
    known = {axis: layer.sizes[axis] for axis in axes if axis in layer.sizes}
    if len(known) < len(axes) - 1:
        known = {**_extents(layer, taken), **known}
    open_axes = [axis for axis in axes if axis not in known]
    held = prod(known[axis] for axis in axes if axis in known)
    if len(open_axes) == 1 and held and size % held == 0:
        known[open_axes[0]] = size // held
    elif open_axes:
        raise UnsupportedError(
            f"the sizes of {', '.join(open_axes)} are in no tensor of it; give the architecture "
            "with --config"
        )
    if prod(known[axis] for axis in axes) != size:
        raise MalformedError(
            f"{layer.path}: expected a kernel of {size} numbers, found {known} in its configuration"
        )
    return {axis: known[axis] for axis in axes}


def _extents(layer: Layer, taken: Shape) -> dict[str, int]:
    """The sizes of the input's axes, from its shape."""
    config = own_config(layer.class_name, layer.config)
    letters = str(config.get("equation", "")).replace(" ", "").partition(",")[0]
    shape: list[int | None] = [] if taken is None else list(taken)
    # An ellipsis behind stands for the last axes; one in front, or a wrapper, for the first.
    shape = shape if letters.endswith("...") else shape[::-1]
    letters = letters.replace(".", "")
    letters = letters if shape == list(taken or ()) else letters[::-1]
    axes = {word.rpartition("_")[2]: word for word in layer.words["kernel"].split()}
    return {
        axes[letter]: extent
        for letter, extent in zip(letters, shape, strict=False)
        if letter in axes and extent is not None
    }


@dataclass(frozen=True, slots=True)
class _Weight:
    """One quantized weight and what belongs to it.

    Attributes:
        stored: its numbers.
        scale: the tensor of its scales.
        target: the axes of the floats, in order.
        zero: the tensor of its zero points, or None.
        groups: the tensor of the group of each input, or None.
        more: a tensor by which to divide in the end, or None.
        width: how many numbers there are along the axis of pairs; 0 where there is none.
        rounded: whether it is a float that is to be rounded to float8.
    """

    stored: Tensor
    scale: Tensor
    target: str
    zero: Tensor | None = None
    groups: Tensor | None = None
    more: Tensor | None = None
    width: int = 0
    rounded: bool = field(default=False)

    @classmethod
    def of(cls, layer: Layer, role: str, how: str) -> _Weight | None:
        """The quantized weight that has this role in the plain kind; None for any other.

        Raises:
            UnsupportedError: there is no zero point to subtract, or no size of the whole.
            MalformedError: its scales are no floats.
        """
        weights = layer.weights
        if f"{role}_scale" not in weights:
            return None
        stored = weights.get(f"quantized_{role}", weights.get(role))
        assert stored is not None, "a scale has something to scale"
        words = str(stored.layout).split()
        wide = next((axis for axis in ("out", "column", "embed") if axis in layer.sizes), "")
        back = role.startswith("reverse_")
        words = [wide if word == "pair" else word for word in words]
        first = next((axis for axis in ("in", "row") if axis in words), "")
        target = f"{first} {wide}" if first else "embed token" if back else " ".join(words)
        rounded = how == "Float8"
        scale = weights[f"{role}_scale"]
        for tensor in (scale, stored) if rounded else (scale,):
            if not dtype_name(tensor.dtype).startswith(("f", "bf")):
                raise MalformedError(f"{tensor.name}: expected floats, found {tensor.spec}")
        packed = "pair" in str(stored.layout).split()
        if packed and not wide:
            raise UnsupportedError(
                "how many numbers its bytes hold is in no tensor of it; give the architecture with "
                "--config"
            )
        zero = weights.get(f"{role}_zero")
        if zero is None and f"{role}_zero" in formulas(how, role):
            zero = _middle(layer, scale)
        return cls(
            stored,
            scale,
            " ".join(words) if rounded else target,
            zero,
            weights.get("g_idx"),
            weights.get("awq_scales"),
            layer.sizes[wide] if packed else 0,
            rounded,
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the floats are."""
        return self.stored.dtype if self.rounded else self.scale.dtype

    def floats(self) -> Array:
        """The floats, of which the shape may be another that holds as many."""
        with np.errstate(all="ignore"):  # a scale of zero gives what it gives in Keras
            return self._through_float8() if self.rounded else self._scaled()

    def _scaled(self) -> Array:
        words = str(self.stored.layout).split()
        values = self.stored.numpy()
        if self.width:
            axis = words.index("pair")
            values = _unpacked(values, axis, self.width)
            (wide,) = set(self.target.split()) - set(words) or {""}
            words[axis] = wide
        sentence = " ".join(words)
        numbers = values.astype(self.dtype)
        scale = self._spread(self.scale, sentence)
        if self.zero is not None:
            zero = self._spread(self.zero, sentence).astype(self.dtype)
            numbers = np.multiply(np.subtract(numbers, zero), scale)
        else:
            numbers = np.divide(numbers, scale)
        if self.more is not None:
            more = self._spread(self.more, sentence).astype(self.dtype)
            numbers = np.divide(numbers, more)
        assert numbers.dtype == self.dtype, "one dtype throughout"
        return numbers if sentence == self.target else relayout(numbers, sentence, self.target)

    def _spread(self, tensor: Tensor, sentence: str) -> Array:
        """A tensor with the axes of the weight: by group, then with extent one where it has none.

        What has an axis of groups is spread by the group of each input, unless all are in one.
        """
        values, words = tensor.numpy(), str(tensor.layout).split()
        if "group" in words:
            axis = words.index("group")
            assert self.groups is not None, "groups have members"
            values = np.take(values, _members(self.groups, values.shape[axis]), axis=axis)
            words[axis] = str(self.groups.layout)
        wanted = " ".join(word if word in words else "1" for word in sentence.split())
        return relayout(values, " ".join(words), wanted)

    def _through_float8(self) -> Array:
        import ml_dtypes

        kind = dtype_named(FLOAT8)
        scale = self.scale.numpy().astype(self.dtype)
        limit = np.asarray(float(ml_dtypes.finfo(kind).max), self.dtype)
        numbers = np.clip(np.divide(self.stored.numpy(), scale), -limit, limit)
        floats: Array = np.multiply(numbers.astype(kind).astype(self.dtype), scale)
        return floats


def _middle(layer: Layer, scale: Tensor) -> Tensor:
    """The zero points of a layer that Keras saved without, where its scheme has one for all.

    Raises:
        UnsupportedError: they were computed from the weights, and are lost.
    """
    config = own_config(layer.class_name, layer.config)
    quantizer = config.get("quantization_config") or {}
    own = quantizer.get("config") if isinstance(quantizer, Mapping) else None
    bits = own.get("weight_bits") if isinstance(own, Mapping) else None
    if not (isinstance(own, Mapping) and own.get("symmetric") is True and bits in (2, 3, 4, 8)):
        raise UnsupportedError(
            "its zero points are not stored, which Keras 3.15 forgets for GPTQ and AWQ; without "
            "them nobody knows the floats. Convert the live model, before it is saved"
        )
    return Tensor.of("zero", np.full(scale.shape, 2 ** (bits - 1), np.uint8), layout=scale.layout)


def _members(groups: Tensor, count: int) -> npt.NDArray[np.int64]:
    """The group of each input, which Keras keeps as floats."""
    values = groups.numpy()
    if not np.isfinite(values).all() or values.min(initial=0) < 0 or values.max(initial=0) >= count:
        raise MalformedError(f"{groups.name}: expected groups from 0 to {count - 1}, found others")
    return values.astype(np.int64)  # towards zero, as Keras casts them


def _unpacked(values: Array, axis: int, width: int) -> Array:
    """Numbers of four bits, two a byte along an axis: the low half first.

    They have a sign where the bytes do.

    >>> _unpacked(np.array([[0x2F]], np.int8), 1, 2).tolist()
    [[-1, 2]]
    """
    halves = (values & 0x0F, (values >> 4) & 0x0F)
    shape = list(values.shape)
    shape[axis] *= 2
    numbers = np.empty(shape, values.dtype)
    for start, half in enumerate(halves):
        places = [slice(None)] * values.ndim
        places[axis] = slice(start, None, 2)
        numbers[tuple(places)] = (half ^ 8) - 8 if values.dtype == np.int8 else half
    kept = [slice(None)] * values.ndim
    kept[axis] = slice(width)
    return numbers[tuple(kept)]


def _rounded(tensor: Tensor, dtype: str) -> Tensor:
    """A tensor whose values went through a narrower dtype."""

    def load() -> Array:
        return tensor.numpy().astype(dtype_named(dtype)).astype(tensor.dtype)

    return replace(tensor, load=load, fill=None)


class _Kept:
    """The array that was computed last: slabs of one tensor ask for it many times over."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._name = ""
        self._array: Array | None = None

    def loading(self, name: str, make: Callable[[], Array]) -> Callable[[], Array]:
        """How to get at an array that is computed once, and forgotten for the next."""

        def load() -> Array:
            with self._lock:
                if self._name != name or self._array is None:
                    self._array = None  # not two at a time
                    self._array = make()
                    self._name = name
                return self._array

        return load
