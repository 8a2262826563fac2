"""A layout is a sentence about axes; a transposition is derived from two of them.

Everybody who moves weights by hand writes permutations, `(3, 2, 0, 1)`, and a permutation says
neither what it assumes nor how to undo it. A sentence does both: `kh kw in out` names what each
dimension of a Keras kernel is, `out in kh kw` what PyTorch expects, and the way between them, in
either direction, follows from the names.

    kh kw in out        one name per dimension
    (in mult)           axes merged into one dimension, the first one slowest
    1                   a dimension of extent one
    [i f c o]           an axis made of named blocks, in this order
    (in + hidden)       axes of unlike size, end to end in one dimension
    -kh                 an axis stored in reverse
    in unit as row col  dimensions of one name, whose elements lie in the order of others

The last one is for buffers that were cut into rows which they do not have: cuDNN keeps a matrix
`unit in` and Keras stored it in an array of shape `in unit`. The words before `as` give the shape,
the ones behind it the order of elements.

Each layout is expanded to *pieces*: the boxes of an array that differ in a block label or in a term
of a sum. A piece has the same key in every layout, so a target is put together from whichever
tensors hold its pieces. Splitting, joining, reordering gates and permuting are thus one operation,
and its result is a list of `Copy`: boxes with an offset and strides on both sides, nothing else.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kerasport.errors import LayoutError

if TYPE_CHECKING:
    from kerasport.tiles import Copy

__all__ = ["Layout", "Part", "derive", "relayout"]

_WORD = re.compile(r"\s*(?:([A-Za-z_][A-Za-z0-9_]*)|(1)(?![0-9A-Za-z_])|([()\[\]+-]))")


@dataclass(frozen=True, slots=True)
class Axis:
    """One named axis; `backward` where it is stored in reverse order."""

    name: str
    backward: bool = False

    def __str__(self) -> str:
        return f"-{self.name}" if self.backward else self.name


@dataclass(frozen=True, slots=True)
class Blocks:
    """An axis made of named blocks of extent one, in this order."""

    labels: tuple[str, ...]

    def __str__(self) -> str:
        return f"[{' '.join(self.labels)}]"


@dataclass(frozen=True, slots=True)
class Merge:
    """Terms merged into one dimension, the first one slowest. Without terms: extent one."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return f"({' '.join(map(str, self.terms))})" if self.terms else "1"


@dataclass(frozen=True, slots=True)
class Sum:
    """Terms that lie end to end in one dimension."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return f"({' + '.join(_unwrapped(term) for term in self.terms)})"


Term = Axis | Blocks | Merge | Sum
ONE = Merge(())


def _unwrapped(term: Term) -> str:
    """A term of a sum as it is written inside the sum's own brackets."""
    return str(term)[1:-1] if isinstance(term, Merge) and len(term.terms) > 1 else str(term)


@dataclass(frozen=True, slots=True)
class Layout:
    """What each dimension of an array is, in order.

    >>> Layout.parse("in ([i f c o] unit)")
    Layout('in ([i f c o] unit)')
    >>> Layout.parse("kh kw in out").bind((2, 7, 3, 5))
    {'kh': 2, 'kw': 7, 'in': 3, 'out': 5}
    """

    dims: tuple[Term, ...]
    order: tuple[Term, ...] = ()

    @classmethod
    def parse(cls, sentence: str) -> Layout:
        """Read a sentence. The empty sentence is the layout of a scalar.

        Raises:
            LayoutError: the sentence is not in the grammar, or names an axis twice.
        """
        return _parse(sentence)

    def __str__(self) -> str:
        words = " ".join(map(str, self.dims))
        return f"{words} as {' '.join(map(str, self.order))}" if self.order else words

    def __repr__(self) -> str:
        return f"Layout({str(self)!r})"

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of all axes, blocks left out, in order of appearance.

        >>> Layout.parse("1 ([i o f c] unit) in").axes
        ('unit', 'in')
        """
        names = (t.name for t in _leaves((*self.dims, *self.order)) if isinstance(t, Axis))
        return tuple(dict.fromkeys(names))

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of all blocks, in order of appearance."""
        blocks = (t for t in _leaves(self.order or self.dims) if isinstance(t, Blocks))
        return tuple(label for t in blocks for label in t.labels)

    def rename(self, terms: Mapping[str, str]) -> Layout:
        """Replace axes by sub-sentences: how a flattened image enters a Dense kernel.

        >>> Layout.parse("out in").rename({"in": "(channel space)"})
        Layout('out (channel space)')
        """
        if not terms.keys() & set(self.axes):
            return self
        parsed = {name: Layout.parse(sentence).dims for name, sentence in terms.items()}
        dims, order = (
            tuple(_replaced(term, parsed) for term in terms) for terms in (self.dims, self.order)
        )
        return Layout.parse(str(Layout(dims, order)))

    def bind(self, shape: Sequence[int], sizes: Mapping[str, int] | None = None) -> dict[str, int]:
        """The size of every axis, from a shape and what is known already.

        Args:
            shape: the array's shape, one entry a dimension of this layout.
            sizes: sizes known from elsewhere; they must agree with the shape.

        Raises:
            LayoutError: another number of dimensions, a size that does not divide or disagrees, or
                a merge that leaves two unknowns.

        >>> Layout.parse("(in mult) 1 kh kw").bind((6, 1, 3, 5), {"mult": 2})["in"]
        3
        """
        bound = dict(sizes or {})
        if len(shape) != len(self.dims):
            raise self._misfit(shape, bound, f"expected {len(self.dims)} axes, found {len(shape)}")
        open_dims = list(zip(self.dims, shape, strict=True))
        if len(self.order) == len(shape):
            open_dims += zip(self.order, shape, strict=True)
        while open_dims:
            left = [(dim, n) for dim, n in open_dims if not self._solve(dim, n, bound, shape)]
            if len(left) == len(open_dims):
                unknown = sorted({a for dim, _ in left for a in _unknown(dim, bound)})
                raise self._misfit(shape, bound, f"the sizes of {', '.join(unknown)} are not given")
            open_dims = left
        if self.order and _extent(Merge(self.order), bound) != math.prod(shape):
            raise self._misfit(shape, bound, "it has another number of elements behind 'as'")
        return {name: bound[name] for name in (*(sizes or ()), *self.axes)}

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The array's shape for these axis sizes.

        >>> Layout.parse("([i f c o] unit) in").shape({"unit": 5, "in": 3})
        (20, 3)
        """
        missing = sorted(set(self.axes) - sizes.keys())
        if missing:
            raise LayoutError(
                f"layout '{self}': expected a size for every axis, found none for "
                f"{', '.join(missing)} (bound so far: {_bound(sizes)})"
            )
        return tuple(_extent(dim, sizes) for dim in self.dims)

    def _solve(self, dim: Term, extent: int, bound: dict[str, int], shape: Sequence[int]) -> bool:
        """Bind what this dimension determines; False where it leaves two unknowns."""
        unknown = _unknown(dim, bound)
        if not unknown:
            if (expected := _extent(dim, bound)) != extent:
                raise self._misfit(shape, bound, f"expected {dim} = {expected}, found {extent}")
            return True
        if len(unknown) > 1:
            return False
        (name,) = unknown
        # The extent is an affine function of the one unknown size: two samples determine it.
        base = _extent(dim, {**bound, name: 0})
        slope = _extent(dim, {**bound, name: 1}) - base
        size, remainder = divmod(extent - base, slope) if slope else (0, 1)
        if remainder or size < 0:
            raise self._misfit(shape, bound, f"{extent} is no possible extent of {dim}")
        bound[name] = size
        return True

    def _misfit(self, shape: Sequence[int], bound: Mapping[str, int], why: str) -> LayoutError:
        return LayoutError(
            f"layout '{self}' does not fit shape [{','.join(map(str, shape))}]: {why} "
            f"(bound so far: {_bound(bound)})"
        )


def _bound(sizes: Mapping[str, int]) -> str:
    return " ".join(f"{name}={size}" for name, size in sizes.items()) or "nothing"


def _leaves(terms: Iterable[Term]) -> Iterator[Axis | Blocks]:
    for term in terms:
        if isinstance(term, Merge | Sum):
            yield from _leaves(term.terms)
        else:
            yield term


def _names(leaf: Axis | Blocks) -> tuple[str, ...]:
    return (leaf.name,) if isinstance(leaf, Axis) else leaf.labels


def _unknown(term: Term, bound: Mapping[str, int]) -> list[str]:
    return [t.name for t in _leaves((term,)) if isinstance(t, Axis) and t.name not in bound]


def _extent(term: Term, sizes: Mapping[str, int]) -> int:
    match term:
        case Axis(name):
            return sizes[name]
        case Blocks(labels):
            return len(labels)
        case Merge(terms):
            return math.prod(_extent(t, sizes) for t in terms)
        case Sum(terms):
            return sum(_extent(t, sizes) for t in terms)


def _replaced(term: Term, by: Mapping[str, tuple[Term, ...]]) -> Term:
    match term:
        case Axis(name) if name in by:
            return by[name][0] if len(by[name]) == 1 else Merge(by[name])
        case Merge(terms):
            return Merge(tuple(_replaced(t, by) for t in terms))
        case Sum(terms):
            return Sum(tuple(_replaced(t, by) for t in terms))
        case _:
            return term


# ---------------------------------------------------------------------------------------- parsing


@lru_cache(maxsize=4096)
def _parse(sentence: str) -> Layout:
    words: list[str] = []
    position = 0
    text = sentence.rstrip()
    while position < len(text):
        found = _WORD.match(text, position)
        if found is None:
            raise _grammar(sentence, f"unexpected {text[position:].lstrip()[:1]!r}")
        words.append(found.group(found.lastindex or 0))
        position = found.end()
    words.reverse()
    sides: list[list[Term]] = [[]]
    while words:
        if words[-1] == "as":
            words.pop()
            sides.append([])
        else:
            sides[-1].append(_term(words, sentence))
    if len(sides) > 2 or (len(sides) == 2 and not all(sides)):
        raise _grammar(sentence, "'as' stands once, between dimensions and the order of elements")
    for terms in sides:
        counted = Counter(name for leaf in _leaves(terms) for name in _names(leaf))
        if repeated := sorted(name for name, count in counted.items() if count > 1):
            raise _grammar(sentence, f"{', '.join(repeated)} stands more than once")
    return Layout(*map(tuple, sides))


def _term(words: list[str], sentence: str) -> Term:
    match words.pop():
        case "(":
            return _bracket(words, sentence)
        case "[":
            labels: list[str] = []
            while words and words[-1] != "]":
                labels.append(words.pop())
            if not words or not labels or not all(x.isidentifier() for x in labels):
                raise _grammar(sentence, "a block axis is one or more names in [ ]")
            words.pop()
            return Blocks(tuple(labels))
        case "-":
            if not words or not words[-1].isidentifier():
                raise _grammar(sentence, "'-' stands before an axis name")
            return Axis(words.pop(), backward=True)
        case "1":
            return ONE
        case word if word.isidentifier():
            return Axis(word)
        case word:
            raise _grammar(sentence, f"unexpected {word!r}")


def _bracket(words: list[str], sentence: str) -> Term:
    """What stands in ( ): terms side by side are merged, terms around '+' lie end to end."""
    addends: list[list[Term]] = [[]]
    while words and words[-1] != ")":
        if words[-1] == "+":
            words.pop()
            addends.append([])
        else:
            addends[-1].append(_term(words, sentence))
    if not words:
        raise _grammar(sentence, "'(' is not closed")
    words.pop()
    if not all(addends):
        raise _grammar(sentence, "a term is missing in ( )")
    merged = [terms[0] if len(terms) == 1 else _merge(terms) for terms in addends]
    return merged[0] if len(merged) == 1 else Sum(tuple(merged))


def _merge(terms: Iterable[Term]) -> Term:
    """Merges are flat: `(a (b c))` is `(a b c)`, and a `1` inside one says nothing."""
    flat: list[Term] = []
    for term in terms:
        flat.extend(term.terms if isinstance(term, Merge) else (term,))
    return flat[0] if len(flat) == 1 else Merge(tuple(flat))


def _grammar(sentence: str, why: str) -> LayoutError:
    return LayoutError(f"layout '{sentence}' is not a sentence of the grammar: {why}")


# ------------------------------------------------------------------------------------- derivation


class _Box(NamedTuple):
    """One piece of an array: where it starts and how far apart its axes' elements lie."""

    offset: int
    strides: Mapping[str, int]
    labels: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[frozenset[str], frozenset[str]]:
        return self.labels, frozenset(self.strides)


class Part(NamedTuple):
    """A tensor's share of a weight: its layout, and the block labels at which it is pinned.

    The query kernel of an attention layer is `Part(Layout.parse("embed head key"), {"q"})`: one of
    the three blocks of `([q k v] head key) embed`.
    """

    layout: Layout
    at: frozenset[str] = frozenset()


def derive(
    sources: Sequence[Part], target: Part, sizes: Mapping[str, int]
) -> tuple[list[Copy], list[str]]:
    """How to put the target together from the sources, and the pieces that no source holds.

    Args:
        sources: the tensors that hold parts of one weight.
        target: the tensor to make.
        sizes: the size of every axis.

    Raises:
        LayoutError: two sources hold the same piece, or an axis has no size.

    >>> copies, missing = derive(
    ...     [Part(Layout.parse("in out"))], Part(Layout.parse("out in")), {"in": 2, "out": 3}
    ... )
    >>> copies[0].shape, copies[0].source_strides, copies[0].target_strides, missing
    ((3, 2), (1, 3), (2, 1), [])
    """
    copies, missing = _derived(tuple(sources), target, tuple(sizes.items()))
    return list(copies), list(missing)


# A model has thousands of layers and few kinds and sizes of them.
@lru_cache(maxsize=1024)
def _derived(
    sources: tuple[Part, ...], target: Part, known: tuple[tuple[str, int], ...]
) -> tuple[list[Copy], list[str]]:
    sizes = dict(known)
    whole = _blocks_in_one_order((*(s.layout for s in sources), target.layout))
    held: dict[tuple[frozenset[str], frozenset[str]], tuple[int, _Box]] = {}
    for number, source in enumerate(sources):
        for box in _boxes(source, sizes, whole):
            if box.key in held:
                raise LayoutError(f"'{source.layout}' holds what another source holds already")
            held[box.key] = (number, box)
    extents = {**sizes, **{str(blocks): len(blocks.labels) for blocks in whole}}
    from kerasport.tiles import Copy

    copies: list[Copy] = []
    missing: list[str] = []
    for box in _boxes(target, sizes, whole):
        if box.key not in held:
            missing.append(" ".join([*sorted(box.labels), *box.strides]))
            continue
        number, origin = held[box.key]
        axes = [(extents[axis], origin.strides[axis], box.strides[axis]) for axis in box.strides]
        if all(extent for extent, _, _ in axes):
            copies.append(Copy.of(number, axes, origin.offset, box.offset))
    copies.sort(key=lambda copy: copy.target_offset)
    return copies, missing


def relayout(array: npt.NDArray[Any], source: str, target: str, **sizes: int) -> npt.NDArray[Any]:
    """Rearrange one array from one layout to another.

    Args:
        array: any dtype; never changed.
        source: the sentence that describes it.
        target: the sentence wanted; it must hold the same axes and blocks.
        sizes: the sizes that the shape leaves open, for example `mult=2` for `(in mult)`.

    Returns:
        A new contiguous array, bit for bit the same elements.

    Raises:
        LayoutError: the sentences name unlike axes, or do not fit the array.

    >>> relayout(np.arange(6).reshape(2, 3), "in out", "out in").tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    before, after = Layout.parse(source), Layout.parse(target)
    if set(before.axes) != set(after.axes) or set(before.labels) != set(after.labels):
        raise LayoutError(f"expected the same axes on both sides, found '{before}' and '{after}'")
    bound = before.bind(array.shape, sizes)
    copies, missing = derive([Part(before)], Part(after), bound)
    if missing:
        raise LayoutError(f"'{before}' lacks what '{after}' needs: {'; '.join(missing)}")
    from kerasport.tiles import fill

    result = np.empty(after.shape(bound), array.dtype)
    fill(result.reshape(-1), copies, [np.ascontiguousarray(array).reshape(-1)])
    return result


def _blocks_in_one_order(layouts: Sequence[Layout]) -> frozenset[Blocks]:
    """Block axes that stand in every layout, always in one order, need not be taken apart."""
    found = [{t for t in _leaves(x.order or x.dims) if isinstance(t, Blocks)} for x in layouts]
    return frozenset(set.intersection(*found)) if found else frozenset()


def _boxes(part: Part, sizes: Mapping[str, int], whole: frozenset[Blocks]) -> list[_Box]:
    """The pieces of a contiguous array of this layout."""
    return [
        _Box(box.offset, box.strides, box.labels | part.at)
        for box in _expanded(Merge(part.layout.order or part.layout.dims), 1, sizes, whole)
    ]


def _expanded(
    term: Term, stride: int, sizes: Mapping[str, int], whole: frozenset[Blocks]
) -> list[_Box]:
    """The pieces of one term whose neighbouring elements lie `stride` apart."""
    match term:
        case Axis(name, backward):
            if name not in sizes:
                raise LayoutError(f"axis {name}: expected a size (bound so far: {_bound(sizes)})")
            if backward:
                return [_Box((sizes[name] - 1) * stride, {name: -stride})]
            return [_Box(0, {name: stride})]
        case Blocks(labels):
            if term in whole:
                return [_Box(0, {str(term): stride})]
            return [_Box(n * stride, {}, frozenset((x,))) for n, x in enumerate(labels)]
        case Sum(terms):
            boxes: list[_Box] = []
            start = 0
            for addend in terms:
                for box in _expanded(addend, stride, sizes, whole):
                    boxes.append(_Box(start * stride + box.offset, box.strides, box.labels))
                start += _extent(addend, sizes)
            return boxes
        case Merge(terms):
            factors: list[list[_Box]] = []
            for factor in reversed(terms):
                factors.append(_expanded(factor, stride, sizes, whole))
                stride *= _extent(factor, sizes)
            return [_joined(choice) for choice in product(*reversed(factors))]


def _joined(boxes: Iterable[_Box]) -> _Box:
    offset, strides, labels = 0, dict[str, int](), frozenset[str]()
    for box in boxes:
        offset += box.offset
        strides.update(box.strides)
        labels |= box.labels
    return _Box(offset, strides, labels)
