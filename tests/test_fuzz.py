"""Files broken at random end in one clear error each: a sample of `python -m benchmarks.fuzz`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import fuzz

TESTS = Path(__file__).parent
SEED = fuzz.Seed("cnn.keras", TESTS.parent / "fixtures" / "cnn.keras")


def test_a_sample_of_broken_files_is_refused_or_read() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz", "--cases", "240", "--first", "7000"],
        cwd=TESTS,
        env={
            **{key: value for key, value in os.environ.items() if key != "KERASPORT_CORPUS"},
            "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent / "convert")]),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "240 cases" in run.stdout
    assert "MalformedError" in run.stdout
    assert "converted" in run.stdout


def test_a_case_is_the_same_every_time(tmp_path: Path) -> None:
    copies: list[bytes] = []
    for number in (3, 3, 4):
        folder = tmp_path / str(len(copies))
        folder.mkdir()
        copies.append(fuzz.copy(SEED, number, folder).read_bytes())
    assert copies[0] == copies[1] != copies[2]
    assert copies[0] != SEED.path.read_bytes()


@pytest.mark.parametrize("fault", ["BUG", "HANG", "MEMORY", "CRASH"])
def test_what_must_not_happen_is_noticed(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: a reader that fails, waits for ever, takes all memory or the process with it."""

    def attempt(path: Path, target: Path) -> str:
        match fault:
            case "HANG":
                time.sleep(60)
            case "MEMORY":
                return str(len(bytearray(1 << 40)))
            case "CRASH":
                os._exit(3)
        raise KeyError("name")

    monkeypatch.setattr(fuzz, "attempt", attempt)
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    found = list(fuzz.batch([(SEED, 1), (SEED, 2)], tmp_path))
    assert [(number, outcome) for _, number, outcome, _ in found] == [(1, fault), (2, fault)]
    assert all(told for *_, told in found)
