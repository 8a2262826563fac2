"""Copies move every element to its place, whatever the strides, the dtype and the cut.

The judge is a loop over all indices. Tiles are made tiny here, so that boxes of a few hundred
elements are cut into many of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasport import tiles
from kerasport.layout import Layout, Part, derive, relayout
from kerasport.tiles import Copy, clipped, fill

Flat = np.ndarray[Any, Any]
Axes = list[tuple[int, int, int]]
DTYPES = [
    np.dtype(dtype)
    for dtype in (
        "bool",
        "i1",
        "u2",
        "f2",
        "f4",
        "i8",
        "f8",
        "c8",
        "c16",
        ml_dtypes.bfloat16,
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.float8_e5m2,
    )
]


# Tiles of a few elements; and no box is too small or too near to be cut.
TINY = {"RUN": 3, "WIDE": 4, "TILE": 20, "SMALL": 0, "SHORT": 2, "NEAR": -1}
REAL = {name: getattr(tiles, name) for name in TINY}


@pytest.fixture(autouse=True, scope="module")
def tiny_tiles() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in TINY.items():
            patch.setattr(tiles, name, value)
        yield


def by_loop(target: Flat, axes: Axes, read: int, write: int, source: Flat) -> Flat:
    """The target after the copy, index by index."""
    result = target.copy()
    for index in np.ndindex(*(extent for extent, _, _ in axes)):
        here = sum(i * stride for i, (_, stride, _) in zip(index, axes, strict=True))
        there = sum(i * stride for i, (_, _, stride) in zip(index, axes, strict=True))
        result[write + there] = source[read + here]
    return result


@st.composite
def _side(draw: st.DrawFn, extents: list[int]) -> tuple[list[int], int, int]:
    """Strides at which no two elements meet, the offset, and the size of the array around."""
    strides = [0] * len(extents)
    step = draw(st.integers(1, 2))
    for axis in draw(st.permutations(range(len(extents)))):
        strides[axis] = -step if draw(st.booleans()) else step
        step *= extents[axis]
        step += draw(st.integers(0, 2))
    reach = [(n - 1) * stride for n, stride in zip(extents, strides, strict=True)]
    offset = draw(st.integers(0, 3)) - sum(r for r in reach if r < 0)
    size = offset + sum(r for r in reach if r > 0) + 1 + draw(st.integers(0, 3))
    return strides, offset, size


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Axes, int, int, int, int]:
    """Axes, source offset, target offset, source size, target size."""
    extents = draw(st.lists(st.integers(1, 7), max_size=4))
    read, source_offset, source_size = draw(_side(extents))
    write, target_offset, target_size = draw(_side(extents))
    axes = list(zip(extents, read, write, strict=True))
    return axes, source_offset, target_offset, source_size, target_size


def noise(size: int, dtype: np.dtype[Any], seed: int) -> Flat:
    """Random bits of any dtype, NaN and its payload among them."""
    rng = np.random.default_rng(seed)
    if dtype == np.bool_:
        return rng.integers(0, 2, size).astype(dtype)
    return np.frombuffer(rng.bytes(size * dtype.itemsize), dtype).copy()


def bits(array: Flat) -> Flat:
    return array.view(np.dtype((np.void, array.itemsize)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=30)
@given(box=boxes())
def test_a_copy_moves_each_element_to_its_place(
    dtype: np.dtype[Any], box: tuple[Axes, int, int, int, int]
) -> None:
    axes, read, write, source_size, target_size = box
    source, target = noise(source_size, dtype, 1), noise(target_size, dtype, 2)
    expected = by_loop(bits(target), axes, read, write, bits(source))
    fill(target, [Copy.of(0, axes, read, write)], [source])
    np.testing.assert_array_equal(bits(target), expected)


@pytest.mark.parametrize("fault", ["source_offset", "source_strides", "shape"])
def test_a_wrong_copy_is_seen(fault: str) -> None:
    """The twin: one number off in a copy, and the loop disagrees."""
    axes: Axes = [(3, 1, 5), (5, 3, 1)]
    source = noise(17, np.dtype("f4"), 1)
    target = np.zeros(15, "f4")
    right = Copy.of(0, axes)
    wrong = {
        "source_offset": replace(right, source_offset=1),
        "source_strides": replace(right, source_strides=(3, 1)),
        "shape": replace(right, shape=(3, 4)),
    }[fault]
    expected = by_loop(bits(target), axes, 0, 0, bits(source))
    fill(target, [right], [source])
    np.testing.assert_array_equal(bits(target), expected)
    target[:] = 0
    fill(target, [wrong], [source])
    assert not np.array_equal(bits(target), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("run", [1, 2, 3, 8, 128])
@pytest.mark.parametrize("wide", [1, 3, 64])
@pytest.mark.parametrize("size", [1, 50, 5000])
def test_a_box_larger_than_a_tile_is_put_together(
    dtype: np.dtype[Any], run: int, wide: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tile width meets extents that it divides and ones that it does not."""
    for name, value in {"RUN": run, "WIDE": wide, "TILE": size}.items():
        monkeypatch.setattr(tiles, name, value)
    source = noise(7 * 11 * 13, dtype, 1)
    target = np.empty_like(source)
    axes: Axes = [(7, 143, 1), (11, 13, 7 * 13), (13, 1, 7)]
    fill(target, [Copy.of(0, axes)], [source])
    expected = bits(source).reshape(7, 11, 13).transpose(1, 2, 0).reshape(-1)
    np.testing.assert_array_equal(bits(target), expected)


@pytest.mark.parametrize(
    ("shape", "order"),
    [
        ((127, 257), (1, 0)),
        ((129, 128), (1, 0)),
        ((1, 20000), (1, 0)),
        ((3, 19973), (1, 0)),
        ((19973, 3), (1, 0)),
        ((521, 1031), (1, 0)),
        ((3, 3, 67, 131), (3, 2, 0, 1)),
        ((67, 131, 3, 3), (2, 3, 1, 0)),
        ((7, 5, 41, 37), (3, 2, 0, 1)),
        ((131, 67, 11), (2, 1, 0)),
        ((131, 67, 11), (1, 0, 2)),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["u1", "f2", "f4", "f8"])
def test_tiles_of_the_real_size_are_put_together(
    shape: tuple[int, ...], order: tuple[int, ...], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers in use, with extents just above and below a tile's."""
    for name, value in (REAL | {"SMALL": 64}).items():
        monkeypatch.setattr(tiles, name, value)
    source = noise(math.prod(shape), np.dtype(dtype), shape[0])
    turned = bits(source).reshape(shape).transpose(order)
    expected = np.ascontiguousarray(turned)
    axes = [
        (n, there // source.itemsize, here // source.itemsize)
        for n, there, here in zip(turned.shape, turned.strides, expected.strides, strict=True)
    ]
    target = np.empty_like(source)
    fill(target, [Copy.of(0, axes)], [source])
    np.testing.assert_array_equal(bits(target), expected.reshape(-1))


def test_a_tile_that_is_left_out_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: without the last tile, the array is not the whole."""
    source = noise(7 * 11, np.dtype("f4"), 1)
    copy = Copy.of(0, [(7, 11, 1), (11, 1, 7)])
    expected = bits(source).reshape(7, 11).T.reshape(-1)
    target = np.zeros_like(source)
    monkeypatch.setattr(tiles, "product", lambda *steps: list(itertools.product(*steps))[:-1])
    fill(target, [copy], [source])
    assert 0 < np.count_nonzero(bits(target) != expected) <= 20
    monkeypatch.setattr(tiles, "product", itertools.product)
    fill(target, [copy], [source])
    np.testing.assert_array_equal(bits(target), expected)


# -------------------------------------------------------------------------------------------- slabs


@given(st.lists(boxes(), min_size=1, max_size=3), st.data())
def test_a_slab_is_a_part_of_the_whole(
    drawn: list[tuple[Axes, int, int, int, int]], data: st.DataObject
) -> None:
    copies, start = [], 0
    sources = []
    for number, (axes, read, write, source_size, target_size) in enumerate(drawn):
        copies.append(Copy.of(number, axes, read, write + start))
        sources.append(noise(source_size, np.dtype("i4"), number))
        start += target_size
    before = noise(start, np.dtype("i4"), 99)
    whole = before.copy()
    fill(whole, copies, sources)
    low = data.draw(st.integers(0, start))
    high = data.draw(st.integers(low, start))
    slab = before[low:high].copy()
    fill(slab, clipped(copies, low, high), sources)
    np.testing.assert_array_equal(slab, whole[low:high])


@given(boxes(), st.integers(1, 40))
def test_slabs_in_a_row_are_the_whole(box: tuple[Axes, int, int, int, int], step: int) -> None:
    axes, read, write, source_size, target_size = box
    source = noise(source_size, np.dtype("i4"), 1)
    copy = Copy.of(0, axes, read, write)
    whole = np.zeros(target_size, "i4")
    fill(whole, [copy], [source])
    slabs = np.zeros(target_size, "i4")
    moved = 0
    for start in range(0, target_size, step):
        cut = list(clipped([copy], start, min(start + step, target_size)))
        moved += sum(piece.elements for piece in cut)
        fill(slabs[start : start + step], cut, [source])
    np.testing.assert_array_equal(slabs, whole)
    assert moved == math.prod(extent for extent, _, _ in axes)


def test_a_slab_of_other_elements_is_seen() -> None:
    """The twin: a slab cut one element further on holds other numbers."""
    source = noise(77, np.dtype("i4"), 1)
    copies = [Copy.of(0, [(7, 11, 1), (11, 1, 7)])]
    slab, other = np.empty(20, "i4"), np.empty(20, "i4")
    fill(slab, clipped(copies, 13, 33), [source])
    fill(other, clipped(copies, 14, 34), [source])
    assert not np.array_equal(slab, other)
    np.testing.assert_array_equal(slab[1:], other[:-1])


# ------------------------------------------------------------------------------------------- shapes


@given(boxes())
def test_an_inverted_copy_brings_the_elements_back(box: tuple[Axes, int, int, int, int]) -> None:
    axes, read, write, source_size, target_size = box
    source = noise(source_size, np.dtype("i8"), 1)
    target = np.zeros(target_size, "i8")
    copy = Copy.of(0, axes, read, write)
    fill(target, [copy], [source])
    back = source.copy()
    expected = by_loop(np.zeros_like(source), [(n, r, r) for n, r, _ in axes], read, read, source)
    back[:] = 0
    fill(back, [copy.inverted()], [target])
    np.testing.assert_array_equal(back, expected)
    assert copy.inverted().inverted().elements == copy.elements


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ([], ()),
        ([(1, 99, 7)], ()),
        ([(2, 12, 12), (3, 4, 4), (4, 1, 1)], (24,)),
        ([(2, 13, 3), (3, 4, 1)], (2, 3)),
        ([(3, 4, 8), (4, 1, 2)], (12,)),
        ([(3, 5, 4), (4, 1, 1)], (3, 4)),
        ([(3, -1, -1)], (3,)),
        ([(2, -4, -4), (4, -1, -1)], (8,)),
    ],
)
def test_a_copy_has_as_few_axes_as_can_be(axes: Axes, shape: tuple[int, ...]) -> None:
    assert Copy.of(0, axes, 20, 20).shape == shape


@pytest.mark.parametrize(
    ("axes", "contiguous"),
    [
        ([], True),
        ([(5, 1, 1)], True),
        ([(5, -1, -1)], True),
        ([(5, 2, 1)], False),
        ([(5, 1, 2)], False),
        ([(5, 2, 2)], False),
        ([(5, -1, 1)], False),
        ([(2, 3, 1), (3, 1, 2)], False),
    ],
)
def test_a_run_is_one_on_both_sides(axes: Axes, contiguous: bool) -> None:
    """A run that is read in one piece and written with gaps is none: its writing would differ."""
    assert Copy.of(0, axes, 20, 20).contiguous is contiguous


def test_an_empty_box_moves_nothing() -> None:
    target = np.arange(3)
    fill(target, [Copy.of(0, [(0, 1, 1), (5, 9, 9)], 7, 7)], [np.arange(1)])
    assert target.tolist() == [0, 1, 2]
    assert list(clipped([Copy.of(0, [(0, 1, 1), (5, 9, 9)])], 0, 3)) == []


@pytest.mark.parametrize(
    ("axes", "read", "write"),
    [
        ([(3, 2, 1)], 8, 0),  # reads behind the end
        ([(3, -2, 1)], 3, 0),  # reads before the start
        ([(3, 1, 2)], 0, 8),  # writes behind the end
        ([(3, 2, 1), (2, 1, 3)], -1, 0),
        ([(3, 2, 1), (2, 1, 3)], 0, -1),
        ([(4, 1, 1)], 9, 0),  # in one run
        ([(4, 1, 1)], 0, 9),
        ([(4, 1, 1)], 9, 9),
        ([(4, 1, 1)], 11, 0),
        ([(4, 1, 1)], -1, 0),
        ([(4, 1, 1)], 0, -1),
        ([], 12, 0),
        ([], 0, 12),
        ([], -1, 0),
        ([], 0, -1),
    ],
)
def test_a_box_that_leaves_its_array_is_refused(axes: Axes, read: int, write: int) -> None:
    """Strides of a manifest are not to be trusted: past the array lies other memory."""
    target, source = np.zeros(12), np.ones(12)
    with pytest.raises(IndexError, match=r"box -?\d+\.\.-?\d+ lies outside of 12 elements"):
        fill(target, [Copy.of(0, axes, read, write)], [source])
    assert not target.any()


def test_a_box_that_just_fits_its_array_is_copied() -> None:
    """The twin: the check lets the last element pass."""
    target = np.zeros(12)
    fill(target, [Copy.of(0, [(3, 4, 4)], 3, 3), Copy.of(0, [], 0, 0)], [np.ones(12)])
    assert target.nonzero()[0].tolist() == [0, 3, 7, 11]


# --------------------------------------------------------------------------------------- sentences

NAMES = "abcd"
LABELS = ("p", "q", "r")


@st.composite
def sentences(
    draw: st.DrawFn, *, blocks: bool, names: list[str]
) -> tuple[str, list[str], list[str]]:
    """A sentence over these axes, its terms in order of memory, and its labels."""
    order = draw(st.permutations([*names, *(["[]"] if blocks else [])]))
    labels = draw(st.permutations(LABELS))
    backward = draw(st.sets(st.sampled_from(NAMES)))
    terms = [f"-{name}" if name in backward else name for name in order]
    dims: list[list[str]] = [[]]
    for term in terms:
        apart = draw(st.booleans())
        if apart and dims[-1]:
            dims.append([])
        dims[-1].append(term)
    words = [
        " ".join(f"[{' '.join(labels)}]" if term == "[]" else term for term in dim) for dim in dims
    ]
    written = [f"({w})" if len(dim) > 1 else w for w, dim in zip(words, dims, strict=True)]
    for _ in range(draw(st.integers(0, 2))):
        written.insert(draw(st.integers(0, len(written))), "1")
    return " ".join(word for word in written if word), terms, labels


def by_numpy(
    flat: Flat, sizes: dict[str, int], before: tuple[list[str], list[str]], after: Any
) -> Flat:
    """The same values in the other order, by NumPy's own functions."""
    terms, labels = before
    array = flat.reshape([sizes[term.lstrip("-")] for term in terms])
    for axis, term in enumerate(terms):
        if term.startswith("-"):
            array = np.flip(array, axis)
    wanted, wanted_labels = after
    places = [
        next(i for i, t in enumerate(terms) if t.lstrip("-") == w.lstrip("-")) for w in wanted
    ]
    array = array.transpose(places)
    for axis, term in enumerate(wanted):
        if term.startswith("-"):
            array = np.flip(array, axis)
        if term == "[]":
            array = array.take([labels.index(label) for label in wanted_labels], axis)
    return np.ascontiguousarray(array).reshape(-1)


@given(st.data())
def test_any_two_sentences_give_what_numpy_gives(data: st.DataObject) -> None:
    """Permutations, merges, reversals and blocks, whole and in slabs of any size, of any dtype."""
    names = data.draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))
    blocks = data.draw(st.booleans())
    sizes = {name: data.draw(st.integers(1, 7)) for name in names}
    source, terms, labels = data.draw(sentences(blocks=blocks, names=names))
    target, *after = data.draw(sentences(blocks=blocks, names=names))
    known = {**sizes, "[]": len(LABELS)}
    dtype = data.draw(st.sampled_from(DTYPES))
    values = noise(math.prod(sizes.values()) * (len(LABELS) if blocks else 1), dtype, 1)
    expected = by_numpy(bits(values), known, (terms, labels), after)
    copies, missing = derive([Part(Layout.parse(source))], Part(Layout.parse(target)), sizes)
    assert missing == []
    step = data.draw(st.integers(1, values.size))
    slabs = np.empty_like(values)
    moved = 0
    for start in range(0, values.size, step):
        stop = min(start + step, values.size)
        cut = list(clipped(copies, start, stop))
        moved += sum(copy.elements for copy in cut)
        fill(slabs[start:stop], cut, [values])
    np.testing.assert_array_equal(bits(slabs), expected)
    assert moved == values.size
    shape = Layout.parse(source).shape(sizes)
    whole = relayout(values.reshape(shape), source, target, **sizes)
    np.testing.assert_array_equal(bits(whole.reshape(-1)), expected)


def test_a_sentence_of_another_order_gives_other_values() -> None:
    """The twin: the judge tells orders, reversals and labels apart."""
    sizes = {"a": 2, "b": 3, "[]": 3}
    values = np.arange(18)
    before = (["a", "[]", "b"], ["p", "q", "r"])
    seen = {
        tuple(by_numpy(values, sizes, before, after))
        for after in [
            (["a", "[]", "b"], ["p", "q", "r"]),
            (["b", "[]", "a"], ["p", "q", "r"]),
            (["a", "[]", "-b"], ["p", "q", "r"]),
            (["a", "[]", "b"], ["q", "p", "r"]),
        ]
    }
    assert len(seen) == 4
