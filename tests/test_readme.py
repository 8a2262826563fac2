"""The README shows what the code does today."""

import doctest

import pytest

import readme


def test_the_readme_shows_todays_output() -> None:
    """If it differs on purpose: `python tests/readme.py --accept`, and read the diff."""
    text = readme.README.read_text()
    assert readme.produced(text) == text


def test_a_stale_transcript_is_found() -> None:
    stale = "```console\n$ kerasport --version\nkerasport 0.0.0\n```\n"
    assert readme.produced(stale) != stale


def test_the_python_examples_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(readme.ROOT)
    examples = readme.examples(readme.README.read_text())
    assert examples, "the README has examples"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for example in examples:
        runner.run(example, clear_globs=False)
    assert runner.failures == 0
