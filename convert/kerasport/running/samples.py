"""Inputs to run a model on: random ones that make sense for it, or a user's own.

Numbers are standard normal, as trained layers like them, except where the model says more: what an
Embedding or an encoding takes are the numbers of its entries, with zeros at the end of a sequence
where padding would be; what a Rescaling divides by 255 are pixels. Sizes that a model leaves open
are tried from small to large, height and width unlike one another, since a square hides a swap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasport.architecture import Graph, Node, Ref
from kerasport.errors import UsageError

__all__ = ["Hint", "Input", "drawn", "hints", "matched", "sizes", "stored"]

Array = npt.NDArray[Any]
BATCH: Final = 2
STEPS: Final = (16, 64, 250, 1000, 4000, 16000, 64000)
IMAGES: Final = ((64, 96), (64, 64), (128, 160), (224, 224), (299, 331))
CHANNELS: Final = 3
_LARGEST: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a model.

    Attributes:
        name: the name of its layer.
        shape: its shape, batch included; None where it is open.
        dtype: what it holds: `float32`, `int32`, `bool`, …
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Hint:
    """What the layers behind an input say of it.

    Attributes:
        entries: its numbers are below this; 0 where nothing says so.
        largest: its numbers go up to this; 0 where nothing says so.
    """

    entries: int = 0
    largest: float = 0.0


def sizes(inputs: Sequence[Input]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Steps, and height and width, to try for what the model leaves open."""
    if not any(size is None for one in inputs for size in one.shape[1:]):
        yield STEPS[0], IMAGES[0]
        return
    sequences = any(None in one.shape[1:] and len(one.shape) < 4 for one in inputs)
    tries = max(len(STEPS) if sequences else 0, len(IMAGES))
    for n in range(tries):
        yield STEPS[min(n, len(STEPS) - 1)], IMAGES[min(n, len(IMAGES) - 1)]


def drawn(
    inputs: Sequence[Input],
    known: Mapping[str, Hint],
    *,
    seed: int,
    steps: int,
    image: tuple[int, int],
) -> list[Array]:
    """Random inputs, the same for the same seed.

    >>> drawn([Input("x", (None, 3), "float32")], {}, seed=0, steps=16, image=(64, 96))[0].shape
    (2, 3)

    Args:
        inputs: what the model takes.
        known: what is known of an input, by name.
        seed: of the random numbers.
        steps: the size of open axes of sequences.
        image: height and width where they are open.
    """
    rng = np.random.default_rng(seed)
    made: list[Array] = []
    for one in inputs:
        shape = _closed(one.shape, steps=steps, image=image)
        hint = known.get(one.name, Hint())
        dtype = np.dtype(one.dtype)
        if hint.entries:
            array: Array = rng.integers(min(1, hint.entries - 1), hint.entries, shape)
            if len(shape) > 1 and shape[0] > 1:
                array[1, shape[1] - shape[1] // 4 :] = 0
        elif dtype.kind in "iub":
            array = rng.integers(0, 2, shape)
            array[..., :1] = 1  # where it is a mask, something is to be seen
        elif hint.largest:
            array = rng.uniform(0.0, hint.largest, shape)
        else:
            array = rng.normal(size=shape)
        made.append(np.ascontiguousarray(array.astype(dtype)))
    return made


def _closed(shape: Sequence[int | None], *, steps: int, image: tuple[int, int]) -> tuple[int, ...]:
    """A shape without open axes."""
    rank = len(shape)
    made: list[int] = []
    for axis, size in enumerate(shape):
        if size is not None:
            made.append(size)
        elif axis == 0:
            made.append(BATCH)
        elif rank >= 4 and axis == rank - 1:
            made.append(CHANNELS)
        elif rank == 4:
            made.append(image[(axis - 1) % 2])
        elif rank > 4:
            made.append(image[(axis - 1) % 2] // 4)
        else:
            made.append(steps)
    return tuple(made)


# Layers that take numbers of entries, and the option that says how many there are.
_ENTRIES: Final[Mapping[str, str]] = {
    "Embedding": "input_dim",
    "ReversibleEmbedding": "input_dim",
    "CategoryEncoding": "num_tokens",
}


def hints(graph: Graph, paths: Sequence[str], *, prefix: str = "") -> dict[int, Hint]:
    """What the layers behind each input say of it, by the place of the input.

    Followed backwards through layers without weights: a slice of token numbers are token numbers.

    Args:
        graph: the model.
        paths: the layers that have weights.
        prefix: the path of the model.
    """
    layers = {node.name: node for node in graph.nodes}
    found: dict[int, Hint] = {}
    for node in graph.nodes:
        wants: dict[int, Hint] = {}
        if node.graph is not None:
            wants = hints(node.graph, paths, prefix=f"{prefix}{node.name}/")
        elif (own := _hint(node)) is not None:
            wants = {0: own}
        if not wants:
            continue
        if not graph.inputs and node is graph.nodes[0]:
            found[0] = _both(found.get(0), wants.get(0, Hint()))
        for refs in node.inputs:
            for place, hint in wants.items():
                if place < len(refs):
                    for given in _origins(graph, layers, refs[place], paths, prefix):
                        found[given] = _both(found.get(given), hint)
    return found


def _hint(node: Node) -> Hint | None:
    inner = node.config.get("layer")
    if node.class_name == "TimeDistributed" and isinstance(inner, Mapping):
        config = inner.get("config")
        name = str(inner.get("class_name"))
        node = replace(node, class_name=name, config=config if isinstance(config, Mapping) else {})
    if node.class_name in _ENTRIES:
        entries = node.config.get(_ENTRIES[node.class_name])
        return Hint(entries=entries) if type(entries) is int and 0 < entries < _LARGEST else None
    scale = node.config.get("scale")
    if node.class_name == "Rescaling" and isinstance(scale, float) and 0 < scale < 0.1:
        return Hint(largest=1 / scale)
    return None


def _both(one: Hint | None, other: Hint) -> Hint:
    if one is None:
        return other
    entries = [n for n in (one.entries, other.entries) if n]
    return Hint(min(entries, default=0), max(one.largest, other.largest))


def _origins(
    graph: Graph, layers: Mapping[str, Node], ref: Ref, paths: Sequence[str], prefix: str
) -> Iterator[int]:
    """The inputs that a tensor is made of by layers without weights."""
    stack, seen = [ref], {ref}
    while stack:
        ref = stack.pop()
        if ref in graph.inputs:
            yield graph.inputs.index(ref)
            continue
        node = layers[ref.layer]
        path = f"{prefix}{node.name}"
        if node.graph is not None or any(f"{held}/".startswith(f"{path}/") for held in paths):
            continue
        refs = node.inputs[ref.call] if ref.call < len(node.inputs) else ()
        for above in refs:
            if above not in seen:
                seen.add(above)
                stack.append(above)


def stored(path: Path) -> dict[str, Array]:
    """The arrays in a `.npz` file.

    Raises:
        UsageError: it cannot be read, or holds something else than numbers.
    """
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            raise UsageError(f"{path}: expected a .npz file of arrays, found a single array")
        with found as file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        said = error.strerror or str(error)
        raise UsageError(f"{path}: expected a readable .npz file, found: {said}") from None
    except UsageError:
        raise
    except Exception as error:  # NumPy and zipfile have many words for a file that is broken
        raise UsageError(f"{path}: expected a .npz file of numbers: {error}") from None


def matched(given: Mapping[str, Array], inputs: Sequence[Input], *, where: str) -> list[Array]:
    """A user's arrays in the order of the model's inputs: by name, or as NumPy numbers them.

    >>> one = Input("image", (None, 2), "float32")
    >>> matched({"arr_0": np.zeros((3, 2))}, [one], where="x.npz")[0].dtype
    dtype('float32')

    Args:
        given: the arrays by name.
        inputs: what the model takes.
        where: what they are called in errors.

    Raises:
        UsageError: an input is missing, one too many, or of a shape that the model does not take.
    """
    names = [one.name for one in inputs]
    numbered = [f"arr_{n}" for n in range(len(inputs))]
    if set(given) == set(numbered):
        given = {name: given[number] for name, number in zip(names, numbered, strict=True)}
    elif len(given) == len(names) == 1:
        given = {names[0]: next(iter(given.values()))}
    if set(given) != set(names):
        raise UsageError(
            f"{where}: expected one array for each input ({', '.join(names)}), found "
            f"{', '.join(sorted(given)) or 'none'}. Name the arrays as the inputs"
        )
    made: list[Array] = []
    for one in inputs:
        array = given[one.name]
        fits = array.ndim == len(one.shape) and all(
            wanted is None or wanted == size
            for wanted, size in zip(one.shape, array.shape, strict=True)
        )
        if not fits or array.dtype.kind not in "fiub":
            shape = ",".join("?" if size is None else str(size) for size in one.shape)
            found = ",".join(map(str, array.shape))
            raise UsageError(
                f"{where}: {one.name}: expected {one.dtype}[{shape}], as Keras takes it, found "
                f"{array.dtype}[{found}]"
            )
        made.append(np.ascontiguousarray(array.astype(one.dtype)))
    return made
