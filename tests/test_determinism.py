"""The same input gives the same bytes, and a conversion that dies leaves the old file.

Each test has a twin with a planted fault, which shows that the fault would be seen.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kerasport
from kerasport.writers.staging import Staging
from states import FORMATS

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "fixtures"
SUFFIXES = [suffix for suffix, _ in FORMATS.values()]
every_format = pytest.mark.parametrize("suffix", SUFFIXES)

CONVERT = f"""
import kerasport
for model in ("cnn", "sequence"):
    for to in ("keras", "torch", "onnx"):
        for suffix in {SUFFIXES}:
            kerasport.convert(f"{{source}}/{{model}}.keras", f"{{model}}.{{to}}{{suffix}}", to=to)
    kerasport.convert(
        f"{{source}}/{{model}}.keras", f"{{model}}.safetensors", to="torch", max_shard_size=3000
    )
"""
LATER = """
import time
now = time.time
time.time = lambda: now() + 100_000_000
"""


def made(folder: Path, *, seed: int, before: str = "") -> dict[str, bytes]:
    """What a fresh process writes, in its own folder, from files in another one."""
    source = folder / ("in" * seed)
    work = folder / f"out {seed}"
    work.mkdir(parents=True)
    source.mkdir()
    for model in ("cnn", "sequence"):
        shutil.copy(FIXTURES / f"{model}.keras", source)
    here = f"source = {str(source)!r}"
    subprocess.run(
        [sys.executable, "-c", "\n".join([here, before, CONVERT])],
        cwd=work,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "convert"),
            "PYTHONHASHSEED": str(seed),
            "TZ": ("UTC", "Asia/Tokyo", "America/New_York")[seed],
            "HOME": str(source),
            "USER": f"user{seed}",
        },
        check=True,
    )
    return {path.name: path.read_bytes() for path in work.iterdir()}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return made(tmp_path_factory.mktemp("one"), seed=1)


def test_another_process_folder_hour_and_hash_seed_give_the_same_bytes(
    usual: dict[str, bytes], tmp_path: Path
) -> None:
    other = made(tmp_path, seed=2, before=LATER)
    assert len(usual) >= 2 * (3 * 6 + 4)
    assert sorted(usual) == sorted(other)
    assert [name for name in usual if usual[name] != other[name]] == []


PLANTS = {
    "a time in the manifest": """
import time
from kerasport import manifest
text = manifest.text
manifest.text = lambda state, hashes: text(state, hashes)[:-1] + f',"when":{time.time_ns()}}}'
""",
    "a folder in the manifest": """
import os
from kerasport import manifest
text = manifest.text
manifest.text = lambda state, hashes: text(state, hashes)[:-1] + f',"where":"{os.getcwd()}"}}'
""",
    "the order of a set": """
from dataclasses import replace
from kerasport import transpose
apply = transpose.Plan.apply
def shuffled(self, *, dtype=None):
    state = apply(self, dtype=dtype)
    return replace(state, tensors={name: state[name] for name in set(state)})
transpose.Plan.apply = shuffled
""",
}


@pytest.mark.parametrize("plant", PLANTS)
def test_what_differs_from_run_to_run_is_seen(
    plant: str, usual: dict[str, bytes], tmp_path: Path
) -> None:
    one = made(tmp_path / "one", seed=1, before=PLANTS[plant])
    other = made(tmp_path / "other", seed=2, before=PLANTS[plant])
    differing = {name for name in one if one[name] != other.get(name)}
    written = {Path(name).suffix for name in differing}
    assert written >= {*SUFFIXES} - ({".pt"} if "manifest" in plant else set())
    assert one != usual


# ---------------------------------------------------------------------------------------- atomicity

CNN = FIXTURES / "cnn.keras"
HALTED = """
import sys, time
import kerasport
{plant}
steps = {steps}
def halt(done, total):
    global steps
    steps -= 1
    if not steps:
        print("writing", flush=True)
        time.sleep(60)
kerasport.convert({source!r}, {target!r}, to="torch", progress=halt)
"""
IN_PLACE = """
from kerasport import formats
def in_place(state, path, *, max_shard_size=None):
    with path.open("wb") as file:
        for tensor in state.values():
            file.write(tensor.numpy().tobytes())
            file.flush()
            for _ in tensor.slabs():
                pass
formats.writer = lambda row: in_place
"""


def steps_of(suffix: str, folder: Path) -> int:
    """How often a conversion reports progress; the last time, it is writing."""
    told: list[int] = []
    target = folder / f"counted{suffix}"
    kerasport.convert(CNN, target, to="torch", progress=lambda done, total: told.append(done))
    for path in folder.glob("counted*"):
        path.unlink()
    return len(told)


def killed(target: Path, *, steps: int, plant: str = "") -> None:
    """Kill a conversion in the middle of its writing, as a power cut would."""
    script = HALTED.format(source=str(CNN), target=str(target), steps=steps, plant=plant)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "convert")}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.kill()


def visible(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


@every_format
def test_a_conversion_that_is_killed_leaves_the_old_file(suffix: str, tmp_path: Path) -> None:
    target = tmp_path / f"model{suffix}"
    kerasport.convert(FIXTURES / "sequence.keras", target, to="torch")
    before = visible(tmp_path)
    killed(target, steps=steps_of(suffix, tmp_path))
    assert visible(tmp_path) == before
    assert len(list(tmp_path.iterdir())) > len(before), "it was killed while it wrote"
    kerasport.verify(target, against=FIXTURES / "sequence.keras")
    kerasport.convert(CNN, target, to="torch")
    kerasport.verify(target, against=CNN)


def test_a_writer_that_works_in_place_is_seen(tmp_path: Path) -> None:
    target = tmp_path / "model.pt"
    target.write_bytes(b"old")
    killed(target, steps=3, plant=IN_PLACE)
    assert visible(tmp_path) != {"model.pt": b"old"}


class PlantedError(Exception):
    """What no code of ours raises or catches."""


def failed(folder: Path, suffix: str) -> dict[str, bytes]:
    """Everything in a folder after a conversion into it that fails while it writes."""
    steps = steps_of(suffix, folder)

    def fail(done: int, total: int) -> None:
        nonlocal steps
        steps -= 1
        if not steps:
            raise PlantedError

    target = folder / f"model{suffix}"
    target.write_bytes(b"old")
    with pytest.raises(PlantedError):
        kerasport.convert(CNN, target, to="torch", progress=fail)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@every_format
def test_a_conversion_that_fails_leaves_nothing_else(suffix: str, tmp_path: Path) -> None:
    assert failed(tmp_path, suffix) == {f"model{suffix}": b"old"}


@every_format
def test_a_file_that_is_left_behind_is_seen(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Staging, "__exit__", lambda self, *_: self._close())
    assert len(failed(tmp_path, suffix)) == 2
