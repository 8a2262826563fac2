"""Work is counted, not timed: what a conversion moves, hashes, writes and calls.

A timing proves nothing on a busy machine. What makes a conversion slow is work that is done twice,
or that grows faster than the model; both can be counted. `python -m benchmarks` takes the times.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kerasport
from benchmarks import models
from kerasport import api, manifest, tiles
from kerasport.model import StateDict, Tensor
from kerasport.readers import hdf5
from kerasport.writers import safetensors, staging

SUFFIXES = [".safetensors", ".pt", ".onnx", ".parquet", ".arrow"]
STREAMED = [".safetensors", ".pt", ".onnx"]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How much of what is done: elements moved, bytes hashed, written and read again."""
    done: Counter[str] = Counter()
    hasher, put_at, fill = manifest.hasher, staging.put_at, tiles.fill
    read_again = staging.Flow._read_again

    class Counting:
        def __init__(self) -> None:
            self.hash = hasher()

        def update(self, data: Any) -> None:
            done["hashed"] += memoryview(data).nbytes
            self.hash.update(data)

        def hexdigest(self) -> str:
            return self.hash.hexdigest()

    def counting_put_at(file: Any, content: Any, offset: int) -> None:
        done["written"] += content.size
        put_at(file, content, offset)

    def counting_read_again(self: staging.Flow, buffer: Any) -> None:
        done["read again"] += buffer.size
        read_again(self, buffer)

    def counting_fill(target: Any, copies: Iterable[tiles.Copy], sources: Any) -> None:
        copies = list(copies)
        done["moved"] += sum(copy.elements for copy in copies)
        done["copies"] += len(copies)
        fill(target, copies, sources)

    monkeypatch.setattr(manifest, "hasher", Counting)
    monkeypatch.setattr(staging, "put_at", counting_put_at)
    monkeypatch.setattr(staging.Flow, "_read_again", counting_read_again)
    monkeypatch.setattr(tiles, "fill", counting_fill)
    return done


@pytest.fixture(params=[1_000_000, 3_000_000])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return models.write(models.convolutions(request.param), tmp_path / "model.keras")


def turned(source: Path) -> tuple[int, int]:
    """The elements of matrices and kernels, which a conversion to PyTorch turns; and of all."""
    shapes = [tensor.shape for tensor in kerasport.read(source).tensors]
    sizes = [int(np.prod(shape)) for shape in shapes]
    return sum(n for n, shape in zip(sizes, shapes, strict=True) if len(shape) > 1), sum(sizes)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_each_byte_is_moved_and_hashed_as_often_as_it_must(
    suffix: str, model: Path, tmp_path: Path, work: Counter[str]
) -> None:
    """Once for itself and once for its file; tables hash what they read again too."""
    moved, elements = turned(model)
    kerasport.convert(model, tmp_path / f"m{suffix}", to="torch")
    assert work["moved"] == moved
    times = 1 if suffix in STREAMED else 2
    assert work["hashed"] == model.stat().st_size + times * 4 * elements


@pytest.mark.parametrize("suffix", STREAMED)
def test_each_byte_is_written_once_and_read_again_once(
    suffix: str, model: Path, tmp_path: Path, work: Counter[str]
) -> None:
    _, elements = turned(model)
    kerasport.convert(model, tmp_path / f"m{suffix}", to="torch")
    assert work["read again"] == work["written"]
    assert 4 * elements <= work["written"] <= 4 * elements + 20_000


def test_what_stays_as_it_is_is_not_moved(model: Path, tmp_path: Path, work: Counter[str]) -> None:
    kerasport.convert(model, tmp_path / "m.safetensors", to="keras")
    assert work["moved"] == 0
    assert work["written"] >= 4 * turned(model)[1]


def test_work_that_is_done_twice_is_counted(
    model: Path, tmp_path: Path, work: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: a writer that first hashes all tensors, and so makes them twice."""
    write = safetensors._write_file

    def twice(state: StateDict, staged: staging.Staging, *, target: Path) -> None:
        staging.digests(state.values())
        write(state, staged, target=target)

    monkeypatch.setattr(safetensors, "_write_file", twice)
    moved, elements = turned(model)
    kerasport.convert(model, tmp_path / "m.safetensors", to="torch")
    assert work["moved"] == 2 * moved
    assert work["hashed"] == model.stat().st_size + 2 * 4 * elements


def test_a_large_tensor_is_made_of_few_copies(tmp_path: Path, work: Counter[str]) -> None:
    """Slabs are cut between rows: a cut through a row takes copies of its own."""
    model = models.write(models.one_matrix(40_000_000), tmp_path / "m.keras")
    kerasport.convert(model, tmp_path / "m.safetensors", to="torch")
    assert work["moved"] == turned(model)[0]
    assert work["copies"] <= 40_000_000 // staging.SLAB + 2


def test_packed_values_are_unpacked_once_for_all_slabs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unpacked anew for each slab, a tensor would cost the square of its size."""
    import h5py

    path = models.write(models.matrices(250_000), tmp_path / "m.h5")
    with h5py.File(path, "r+") as file:
        group = file["model_weights/dense/dense"]
        values = group["kernel:0"][()]
        del group["kernel:0"]
        group.create_dataset("kernel:0", data=values, compression="gzip", compression_opts=1)
    unpacked = 0
    packed = hdf5._packed

    def counting(*given: Any, **named: Any) -> Callable[[], Any]:
        load = packed(*given, **named)

        def counted() -> Any:
            nonlocal unpacked
            unpacked += 1
            return load()

        return counted

    monkeypatch.setattr(hdf5, "_packed", counting)
    monkeypatch.setattr(staging, "SLAB", 1 << 12)
    kerasport.convert(path, tmp_path / "m.safetensors", to="torch")
    assert unpacked == 1
    # The twin: three tensors that are asked for one slab each unpack three times.
    for start in range(0, 300, 100):
        tensor = kerasport.plan(kerasport.read(path), to="torch").apply()["dense.weight"]
        assert tensor.fill is not None
        tensor.fill(start, start + 100, np.empty(100, np.float32))
    assert unpacked == 1 + 3


def calls(run: Callable[[], object]) -> int:
    """How many functions, Python's and C's, a call makes."""
    counted = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    previous = sys.getprofile()
    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(previous)
    return counted


def steps(source: Path, target: Path) -> dict[str, int]:
    """How many calls each step of a conversion takes."""
    found: dict[str, Any] = {}

    def keep(name: str, value: Any) -> None:
        found[name] = value

    return {
        "read": calls(lambda: keep("snapshot", api.read(source))),
        "plan": calls(lambda: keep("plan", api.plan(found["snapshot"], to="torch"))),
        "print": calls(lambda: str(found["plan"])),
        "apply": calls(lambda: keep("state", found["plan"].apply())),
        "write": calls(lambda: api.write(found["state"], target)),
        "report": calls(lambda: found["plan"].report(found["state"], "m")),
        "verify": calls(lambda: api.verify(target, against=found["snapshot"])),
    }


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_each_step_takes_calls_in_proportion_to_the_tensors(suffix: str, tmp_path: Path) -> None:
    counts = []
    for number, tensors in enumerate((20, 100, 1000)):
        source = models.write(models.tiny(tensors), tmp_path / f"{tensors}{suffix}")
        found = steps(source, tmp_path / f"{tensors}.safetensors")
        if number:  # the first one imports
            counts.append(found)
    few, many = counts
    for step in few:
        assert many[step] < 10 * few[step] + 1000, step
    assert sum(many.values()) / 1000 < 3000


def test_calls_that_grow_as_the_square_are_seen() -> None:
    """The twin: a search through all tensors for each of them."""

    def search(count: int) -> Callable[[], object]:
        names = [Tensor.of(str(n), np.ones(1)) for n in range(count)]
        return lambda: [next(t for t in names if t.name.lower() == str(n)) for n in range(count)]

    assert calls(search(1000)) > 10 * calls(search(100)) + 1000


def test_what_loops_without_a_call_does_not_grow_as_the_square(tmp_path: Path) -> None:
    """A comparison with all others is no call, and escapes the count: the one clock here.

    Six times the tensors may take three times as long as they should.
    """

    def seconds(tensors: int) -> float:
        source = models.write(models.tiny(tensors), tmp_path / f"{tensors}.keras")
        start = time.thread_time()
        state = api.plan(api.read(source), to="torch").apply()
        api.write(state, tmp_path / "m.safetensors")
        return time.thread_time() - start

    seconds(20)
    few = min(seconds(400) for _ in range(3))
    assert seconds(2400) < 20 * few
