"""The README shows what the code does today."""

from __future__ import annotations

import pytest

import readme


def test_the_readme_shows_todays_output() -> None:
    """If it differs on purpose: `python tests/readme.py --accept`, and read the diff."""
    text = readme.README.read_text()
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


def test_the_readme_has_the_two_commands() -> None:
    """The second is what `.ci/run` runs."""
    text = readme.README.read_text()
    first, second = (
        block for kind, block in readme.BLOCK.findall(text) if kind == "console" and "pip" in block
    )
    assert first.startswith("pip install . && kerasport convert fixtures/")
    assert f"<!-- the test command -->\n```console\n{second}```" in text
    assert len(second.splitlines()) == 1
