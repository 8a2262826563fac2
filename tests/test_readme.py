"""The README, and the tables of layers, show what the code does today."""

from __future__ import annotations

from pathlib import Path

import pytest

import readme
import support_matrix
from benchmarks import __main__ as benchmarks


@pytest.mark.parametrize("document", readme.DOCUMENTS, ids=lambda path: path.name)
def test_a_document_shows_todays_output(document: Path) -> None:
    """If it differs on purpose: `python tests/readme.py --accept`, and read the diff."""
    text = document.read_text()
    assert readme.produced(text) == text


@pytest.mark.parametrize(
    "stale",
    [
        "```console\n$ kerasport --version\nkerasport 0.0.0\n```\n",
        "```console\n$ kerasport inspect none.h5\n$ echo $?\n0\n```\n",
        "```python\n>>> 1 + 1\n3\n```\n",
        "```python\n>>> 1 / 0\n```\n",
        "```console\n$ head -n 1 fixtures/README.md\nnothing\n```\n",
        "```python\n>>> print('1.0e-07 apart')\n2.0e-07 away\n```\n",
        "<!-- generated: formats -->\n<!-- end -->\n",
    ],
    ids=["console", "exit-code", "python", "error", "head", "words", "table"],
)
def test_what_is_stale_is_found(stale: str) -> None:
    assert readme.produced(stale) != stale


def test_blocks_are_one_session() -> None:
    text = "```python\n>>> x = 1\n```\n```python\n>>> x + 1\n2\n```\n"
    assert readme.produced(text) == text


def test_rounding_is_not_stale() -> None:
    """Another processor sums in another order, and another Keras has another version."""
    for said, now in (("2.0e-07 apart", "1.0e-07 apart"), ("keras 3.9.0", "keras 3.15.1")):
        text = f"```python\n>>> print({now!r})\n{said}\n```\n"
        assert readme.produced(text) == text


def test_commands_of_others_are_not_run() -> None:
    text = "```console\n$ rm -rf everything\n```\n```python\nimport nothing\n```\n"
    assert readme.produced(text) == text


@pytest.mark.parametrize(
    ("kind", "to", "says"),
    [
        ("Conv2D", "torch", "exact"),
        ("LSTM", "torch", "split: `bias`"),  # bias_ih and bias_hh, as torch.nn.LSTM documents them
        ("LSTM", "onnx", "exact"),
        ("GRUResetBefore", "torch", "— [1]"),
        ("GRUResetBefore", "onnx", "exact"),
        ("LSTMPeephole", "onnx", "joined: `peephole`"),  # P, as the operator LSTM documents it
    ],
)
def test_the_matrix_says_what_a_target_makes_of_a_layer(kind: str, to: str, says: str) -> None:
    reasons = support_matrix.Reasons()
    assert support_matrix.verdict(kind, to, reasons) == says
    assert all("write it with" in reason for reason in reasons.numbers)


def test_the_matrix_has_every_kind_once() -> None:
    body, reasons = support_matrix.lines()
    named = [kind for kinds, *_ in body for kind in kinds.split(", ")]
    assert sorted(named) == sorted(support_matrix.kinds())
    assert len(set(reasons)) == len(reasons)


def test_the_readme_has_the_two_commands() -> None:
    """The second is what `.ci/run` runs."""
    text = readme.README.read_text()
    first, second = (
        block for kind, block in readme.BLOCK.findall(text) if kind == "console" and "pip" in block
    )
    assert first.startswith("pip install . && kerasport convert fixtures/")
    assert f"<!-- the test command -->\n```console\n{second}```" in text
    assert len(second.splitlines()) == 1


def measured_lines(text: str) -> list[list[str]]:
    """The cells of the table of measurements, without its head."""
    block = benchmarks.MEASURED.search(text)
    assert block is not None
    machine, empty, head, rule, *rows = block[2].splitlines()
    assert "cores" in machine
    assert (empty, head) == ("", "| what | target | measured | reached | how |")
    assert set(rule) <= set("| -")
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def assert_whole(rows: list[list[str]]) -> None:
    """Every row has a target, a number, and a verdict that follows from them."""
    assert {len(row) for row in rows} == {5}
    for what, target, value, verdict, _ in rows:
        assert "" not in (what, target)
        assert float(value) >= 0, what
        assert verdict in ("yes", "**no**", "—"), what
    said = " ".join(what for what, *_ in rows)
    for part in ("safetensors", "memory", "permuting", "tensors", "inspect", "parquet", "arrow"):
        assert part in said


def test_the_readme_shows_what_the_benchmarks_measured() -> None:
    """Numbers are of one machine at one time: here only that they are all there."""
    assert_whole(measured_lines(readme.README.read_text()))


def test_measurements_are_written_between_their_marks() -> None:
    """And a row that is missing, or that says nothing, is seen."""
    verdicts = [
        benchmarks.Verdict(what, "at most 1.5 × cp", value, 1.5, True, "2.00 s, cp 1.00 s")
        for what, value in (
            ("2 GB .keras to safetensors", 2.0),
            ("anonymous memory", 1.0),
            ("permuting", 1.0),
            ("100,000 tensors", 1.0),
            ("inspect", 1.0),
            ("parquet and arrow", 1.0),
        )
    ]
    before = readme.README.read_text()
    after = benchmarks.written(before, benchmarks.shown(verdicts, loads=(0.1, 2.0)))
    rows = measured_lines(after)
    assert_whole(rows)
    assert [row[3] for row in rows[:2]] == ["**no**", "yes"]
    assert benchmarks.MEASURED.sub("", after) == benchmarks.MEASURED.sub("", before)
    with pytest.raises(AssertionError):
        assert_whole(rows[:-1])
    with pytest.raises(ValueError, match="could not convert"):
        assert_whole([[*rows[0][:2], "fast", *rows[0][3:]], *rows[1:]])
