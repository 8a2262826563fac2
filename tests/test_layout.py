"""Layouts obey their laws, and every element lands where its names say.

The judge of placement is a list: what stands at each place of an array, written down by going
through a sentence word by word. It knows no strides and no pieces, and so shares nothing with the
code that it judges.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasport.errors import LayoutError
from kerasport.layout import Layout, Part, derive, relayout
from kerasport.tiles import fill

Key = frozenset[str]


# ---------------------------------------------------------------- a second reading of the grammar


@dataclass(frozen=True)
class Word:
    """A term as the test sees it: `axis`, `blocks`, `merge` or `sum`."""

    what: str
    names: tuple[str, ...] = ()
    parts: tuple[Word, ...] = ()
    backward: bool = False

    def __str__(self) -> str:
        if self.what == "axis":
            return f"-{self.names[0]}" if self.backward else self.names[0]
        if self.what == "blocks":
            return f"[{' '.join(self.names)}]"
        if self.what == "merge":
            return f"({' '.join(map(str, self.parts))})" if self.parts else "1"
        return f"({' + '.join(map(str, self.parts))})"

    def places(self, sizes: dict[str, int]) -> list[Key]:
        """What stands at each place of this dimension, first to last."""
        if self.what == "axis":
            (name,) = self.names
            keys = [frozenset({f"{name}={n}"}) for n in range(sizes[name])]
            return keys[::-1] if self.backward else keys
        if self.what == "blocks":
            return [frozenset({name}) for name in self.names]
        if self.what == "merge":
            return _together(part.places(sizes) for part in self.parts)
        return [key for part in self.parts for key in part.places(sizes)]


def _together(dims: Iterable[Sequence[Key]]) -> list[Key]:
    return [frozenset().union(*keys) for keys in itertools.product(*dims)]


def sentence(words: Sequence[Word]) -> str:
    return " ".join(map(str, words))


def placed(
    array: np.ndarray[Any, Any],
    before: Sequence[Word],
    after: Sequence[Word],
    sizes: dict[str, int],
) -> np.ndarray[Any, Any]:
    """The array in the other layout, element by element."""
    values = dict(zip(_together(w.places(sizes) for w in before), array.flat, strict=True))
    shape = [len(word.places(sizes)) for word in after]
    flat = [values[key] for key in _together(w.places(sizes) for w in after)]
    return np.array(flat, array.dtype).reshape(shape)


# What a weight consists of; every layout of it has the same atoms, in some order.
ATOMS = (
    "a",
    "b",
    "c",
    ("p", "q"),
    ("x", "y", "z"),
    (("d",), ("e",)),
    (("f", "g"), ("h",), ("uv",)),
)
SIZES = {name: st.integers(1, 4) for name in "abcdefgh"}
BLOCKS = {"uv": ("u", "v")}


def _axis(draw: st.DrawFn, name: str) -> Word:
    if name in BLOCKS:
        return Word("blocks", tuple(draw(st.permutations(BLOCKS[name]))))
    return Word("axis", (name,), backward=draw(st.booleans()))


def _atom(draw: st.DrawFn, atom: Any) -> Word:
    if isinstance(atom, str):
        return _axis(draw, atom)
    if isinstance(atom[0], str):
        return Word("blocks", tuple(draw(st.permutations(atom))))
    addends = []
    for names in draw(st.permutations(atom)):
        words = tuple(_axis(draw, name) for name in draw(st.permutations(names)))
        addends.append(words[0] if len(words) == 1 else Word("merge", parts=words))
    return Word("sum", parts=tuple(addends))


@st.composite
def layouts(draw: st.DrawFn, atoms: Sequence[Any]) -> tuple[Word, ...]:
    """Any layout of these atoms: merged, nested, reversed, with `1` between them."""
    words = [_atom(draw, atom) for atom in draw(st.permutations(atoms))]
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(words)))
        stop = draw(st.integers(start, len(words)))
        if stop - start == 1 and words[start].what in ("blocks", "axis"):
            continue  # (a) is written a
        words[start:stop] = [Word("merge", parts=tuple(words[start:stop]))]
    return tuple(words)


@st.composite
def weights(draw: st.DrawFn, count: int) -> tuple[dict[str, int], list[tuple[Word, ...]]]:
    """Sizes of all axes, and several layouts of one weight."""
    atoms = draw(st.lists(st.sampled_from(ATOMS), unique=True, max_size=4))
    sizes = {name: draw(size) for name, size in SIZES.items()}
    return sizes, [draw(layouts(atoms)) for _ in range(count)]


def filled(words: Sequence[Word], sizes: dict[str, int]) -> np.ndarray[Any, Any]:
    """An array of this layout, in which no two elements are alike."""
    shape = [len(word.places(sizes)) for word in words]
    return np.arange(int(np.prod(shape)), dtype=np.int32).reshape(shape)


# --------------------------------------------------------------------------------------------- laws


@given(weights(2))
def test_every_element_lands_where_its_names_say(
    drawn: tuple[dict[str, int], list[tuple[Word, ...]]],
) -> None:
    sizes, (before, after) = drawn
    array = filled(before, sizes)
    known = {name: sizes[name] for name in Layout.parse(sentence(before)).axes}
    found = relayout(array, sentence(before), sentence(after), **known)
    np.testing.assert_array_equal(found, placed(array, before, after, sizes))


@given(weights(2))
def test_there_and_back_is_the_identity(
    drawn: tuple[dict[str, int], list[tuple[Word, ...]]],
) -> None:
    sizes, (before, after) = drawn
    array = filled(before, sizes).view(np.float32)  # some bits are denormals or NaN
    known = {name: sizes[name] for name in Layout.parse(sentence(before)).axes}
    there = relayout(array, sentence(before), sentence(after), **known)
    back = relayout(there, sentence(after), sentence(before), **known)
    np.testing.assert_array_equal(back.view(np.int32), array.view(np.int32))


@given(weights(3))
def test_a_detour_leads_to_the_same_place(
    drawn: tuple[dict[str, int], list[tuple[Word, ...]]],
) -> None:
    sizes, (first, middle, last) = drawn
    array = filled(first, sizes)
    known = {name: sizes[name] for name in Layout.parse(sentence(first)).axes}
    straight = relayout(array, sentence(first), sentence(last), **known)
    detour = relayout(array, sentence(first), sentence(middle), **known)
    detour = relayout(detour, sentence(middle), sentence(last), **known)
    np.testing.assert_array_equal(detour, straight)


@pytest.mark.parametrize(
    ("source", "right", "wrong"),
    [
        ("a b", "b a", "a b"),
        ("a b", "(b a)", "(a b)"),
        ("a [p q r]", "[p q r] a", "[q p r] a"),
        ("a b", "-b a", "b a"),
        ("(a + b)", "(a + b)", "(b + a)"),
        ("(a [p q r] b)", "(b [p q r] a)", "(a [p q r] b)"),
        ("a b 1", "b a 1", "a b 1"),
    ],
)
def test_a_wrong_sentence_puts_elements_elsewhere(source: str, right: str, wrong: str) -> None:
    """The twin of the laws: with square sizes every one of these slips keeps the shape."""
    sizes = {"a": 3, "b": 3}
    array = np.arange(np.prod(Layout.parse(source).shape(sizes)))
    array = array.reshape(Layout.parse(source).shape(sizes))
    expected = relayout(array, source, right, **sizes)
    slip = relayout(array, source, wrong, **sizes)
    assert slip.shape == expected.shape
    assert not np.array_equal(slip, expected)


def test_the_judge_of_placement_agrees_with_arrays_written_by_hand() -> None:
    """The twin of the judge: literals for each word of the grammar."""
    a, b = Word("axis", ("a",)), Word("axis", ("b",))
    sizes = {"a": 2, "b": 3}
    array = np.array([[0, 1, 2], [3, 4, 5]])
    back = Word("axis", ("b",), backward=True)
    assert placed(array, (a, b), (b, a), sizes).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert placed(array, (a, b), (a, back), sizes).tolist() == [[2, 1, 0], [5, 4, 3]]
    merge = Word("merge", parts=(b, a))
    assert placed(array, (a, b), (merge,), sizes).tolist() == [0, 3, 1, 4, 2, 5]
    gates = [Word("blocks", names) for names in (("i", "o"), ("o", "i"))]
    assert placed(array, (gates[0], b), (gates[1], b), sizes).tolist() == [[3, 4, 5], [0, 1, 2]]
    sums = [Word("sum", parts=parts) for parts in ((a, b), (b, a))]
    assert placed(np.arange(5), sums[:1], sums[1:], sizes).tolist() == [2, 3, 4, 0, 1]


@given(weights(1))
def test_a_printed_layout_is_read_as_the_same(
    drawn: tuple[dict[str, int], list[tuple[Word, ...]]],
) -> None:
    _, (words,) = drawn
    layout = Layout.parse(sentence(words))
    assert Layout.parse(str(layout)) == layout
    assert str(Layout.parse(str(layout))) == str(layout)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "kh kw in out",
        "(in mult) 1 kh kw",
        "in ([i f c o] unit)",
        "(in + hidden) ([i c f o] unit)",
        "(a b + [p q] c + d)",
        "-kh -kw in out",
        "(-a [p q] (b + -c))",
    ],
)
def test_a_sentence_in_its_shortest_form_is_printed_as_written(text: str) -> None:
    assert str(Layout.parse(text)) == text


def test_spaces_and_needless_brackets_do_not_matter() -> None:
    assert str(Layout.parse("  ( a  (b c))(d)[ p q ]")) == "(a b c) d [p q]"
    assert Layout.parse("(1 a)") == Layout.parse("a")


@given(weights(1), st.data())
def test_binding_a_shape_gives_the_sizes_that_made_it(
    drawn: tuple[dict[str, int], list[tuple[Word, ...]]], data: st.DataObject
) -> None:
    """One axis a dimension follows from the shape, the others must be given."""
    sizes, (words,) = drawn
    layout = Layout.parse(sentence(words))
    own = {name: sizes[name] for name in layout.axes}
    follows = set()
    for dim in layout.dims:
        if names := Layout((dim,)).axes:
            follows.add(data.draw(st.sampled_from(names)))
    given_sizes = {name: size for name, size in own.items() if name not in follows}
    assert layout.bind(layout.shape(own), given_sizes) == own


def test_another_shape_gives_other_sizes() -> None:
    """The twin of the law above."""
    layout = Layout.parse("(a 1 b) [p q]")
    assert layout.bind((6, 2), {"a": 2}) == {"a": 2, "b": 3}
    assert layout.bind((6, 2), {"a": 3}) == {"a": 3, "b": 2}


def test_a_size_found_in_one_dimension_serves_the_others() -> None:
    assert Layout.parse("(in mult) 1 in_2").bind((6, 1, 5), {"in": 3})["mult"] == 2
    assert Layout.parse("(a + b) (c d)").bind((7, 6), {"b": 2, "c": 3}) == {
        "b": 2,
        "c": 3,
        "a": 5,
        "d": 2,
    }


# ------------------------------------------------------------------------------------------ derive


@given(st.permutations(["q", "k", "v"]), st.permutations(["q", "k", "v"]))
def test_what_is_split_can_be_joined(before: list[str], after: list[str]) -> None:
    """Query, key and value are three tensors in Keras and one in PyTorch."""
    sizes = {"head": 2, "key": 3, "embed": 5}
    whole = np.arange(90).reshape(18, 5)
    fused = Layout.parse(f"([{' '.join(before)}] head key) embed")
    single = Layout.parse("embed head key")
    parts = []
    for label in after:
        copies, missing = derive([Part(fused)], Part(single, frozenset({label})), sizes)
        assert not missing
        part = np.empty(30, whole.dtype)
        fill(part, copies, [whole.reshape(-1)])
        block = whole.reshape(3, 2, 3, 5)[before.index(label)]
        np.testing.assert_array_equal(part.reshape(5, 2, 3), np.moveaxis(block, -1, 0))
        parts.append(part)
    sources = [Part(single, frozenset({label})) for label in after]
    copies, missing = derive(sources, Part(fused), sizes)
    assert not missing
    joined = np.empty(90, whole.dtype)
    fill(joined, copies, parts)
    np.testing.assert_array_equal(joined.reshape(18, 5), whole)


def test_what_no_source_holds_is_named() -> None:
    parts = [Part(Layout.parse("unit"), frozenset({"input"}))]
    copies, missing = derive(parts, Part(Layout.parse("[input recurrent] unit")), {"unit": 3})
    assert len(copies) == 1
    assert missing == ["recurrent unit"]


def test_two_sources_of_one_piece_are_refused() -> None:
    parts = [Part(Layout.parse("a b")), Part(Layout.parse("b a"))]
    with pytest.raises(LayoutError, match=r"'b a' holds what another source holds already"):
        derive(parts, Part(Layout.parse("a b")), {"a": 2, "b": 3})


def test_a_piece_without_a_size_is_refused() -> None:
    with pytest.raises(LayoutError, match=r"axis b: expected a size \(bound so far: a=2\)"):
        derive([Part(Layout.parse("a b"))], Part(Layout.parse("b a")), {"a": 2})


def test_an_empty_axis_moves_nothing() -> None:
    assert relayout(np.empty((0, 3)), "a b", "b a").shape == (3, 0)
    assert relayout(np.empty((0, 3)), "a b", "-b (1 a)").shape == (3, 0)


def test_the_result_is_new_and_the_argument_as_it_was() -> None:
    array = np.arange(6.0).reshape(2, 3)
    for target in ("a b", "b a"):
        result = relayout(array, "a b", target)
        assert not np.shares_memory(result, array)
        assert result.flags.c_contiguous
    np.testing.assert_array_equal(array, np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("strided", ["transposed", "sliced", "reversed"])
def test_the_argument_need_not_be_contiguous(strided: str) -> None:
    """A transposed view is where other writers go wrong without a word."""
    array = {
        "transposed": np.arange(6).reshape(3, 2).T,
        "sliced": np.arange(12).reshape(2, 6)[:, ::2],
        "reversed": np.arange(6).reshape(2, 3)[::-1],
    }[strided]
    np.testing.assert_array_equal(relayout(array, "a b", "b a"), array.T)


# ------------------------------------------------------------------------------------------ rename


def test_an_axis_is_replaced_by_a_sentence() -> None:
    layout = Layout.parse("([i f] in) -out")
    assert str(layout.rename({"in": "(space channel)"})) == "([i f] space channel) -out"
    assert layout.rename({"other": "x"}) is layout
    assert str(Layout.parse("(in + hidden)").rename({"in": "(a b)"})) == "(a b + hidden)"


# ------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("text", "shape", "known", "message"),
    [
        (
            "kh kw in out",
            (3, 3, 8),
            {},
            "layout 'kh kw in out' does not fit shape [3,3,8]: expected 4 axes, found 3 "
            "(bound so far: nothing)",
        ),
        (
            "a (in mult)",
            (2, 7),
            {"mult": 3},
            "layout 'a (in mult)' does not fit shape [2,7]: 7 is no possible extent of (in mult) "
            "(bound so far: mult=3 a=2)",
        ),
        (
            "(a + b)",
            (2,),
            {"a": 3},
            "layout '(a + b)' does not fit shape [2]: 2 is no possible extent of (a + b) "
            "(bound so far: a=3)",
        ),
        (
            "out in",
            (2, 7),
            {"in": 5},
            "layout 'out in' does not fit shape [2,7]: expected in = 5, found 7 "
            "(bound so far: in=5 out=2)",
        ),
        (
            "a [i f c o]",
            (2, 3),
            {},
            "layout 'a [i f c o]' does not fit shape [2,3]: expected [i f c o] = 4, found 3 "
            "(bound so far: a=2)",
        ),
        (
            "a 1",
            (2, 3),
            {},
            "layout 'a 1' does not fit shape [2,3]: expected 1 = 1, found 3 (bound so far: a=2)",
        ),
        (
            "c (b a)",
            (2, 6),
            {},
            "layout 'c (b a)' does not fit shape [2,6]: the sizes of a, b are not given "
            "(bound so far: c=2)",
        ),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(
    text: str, shape: tuple[int, ...], known: dict[str, int], message: str
) -> None:
    with pytest.raises(LayoutError) as caught:
        Layout.parse(text).bind(shape, known)
    assert str(caught.value) == message


def test_a_shape_needs_the_size_of_every_axis() -> None:
    with pytest.raises(LayoutError) as caught:
        Layout.parse("(b a) c").shape({"b": 2})
    assert str(caught.value) == (
        "layout '(b a) c': expected a size for every axis, found none for a, c (bound so far: b=2)"
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a, b", "unexpected ','"),
        ("a 2", "unexpected '2'"),
        ("a 1b", "unexpected '1'"),
        ("a )", "unexpected ')'"),
        ("a ]", "unexpected ']'"),
        ("a + b", "unexpected '+'"),
        ("(a b", "'(' is not closed"),
        ("(a + )", "a term is missing in ( )"),
        ("()", "a term is missing in ( )"),
        ("[]", "a block axis is one or more names in [ ]"),
        ("[i f", "a block axis is one or more names in [ ]"),
        ("[i (f)]", "a block axis is one or more names in [ ]"),
        ("- (a)", "'-' stands before an axis name"),
        ("a -", "'-' stands before an axis name"),
        ("-1", "'-' stands before an axis name"),
        ("a b a", "a stands more than once"),
        ("[i f] (unit i)", "i stands more than once"),
    ],
)
def test_what_is_not_in_the_grammar_is_refused(text: str, why: str) -> None:
    with pytest.raises(LayoutError) as caught:
        Layout.parse(text)
    assert str(caught.value) == f"layout '{text}' is not a sentence of the grammar: {why}"


@pytest.mark.parametrize(
    ("source", "target"), [("a b", "a c"), ("a [p q]", "a [p r]"), ("a b", "a"), ("a", "a b")]
)
def test_other_axes_on_the_other_side_are_refused(source: str, target: str) -> None:
    array = np.zeros(Layout.parse(source).shape({"a": 2, "b": 3}))
    with pytest.raises(LayoutError) as caught:
        relayout(array, source, target)
    assert str(caught.value) == (
        f"expected the same axes on both sides, found '{source}' and '{target}'"
    )


def test_the_same_axes_in_other_pieces_are_refused() -> None:
    """`a` and `b` end to end are not `a` by `b`."""
    with pytest.raises(LayoutError) as caught:
        relayout(np.zeros(4), "(a + b)", "(a b)", a=2)
    assert str(caught.value) == "'(a + b)' lacks what '(a b)' needs: a b"


def test_an_error_of_a_layout_ends_the_program_with_5() -> None:
    assert LayoutError.exit_code == 5
