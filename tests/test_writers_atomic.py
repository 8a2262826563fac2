"""A write that fails leaves everything as it was."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasport.errors import UsageError
from kerasport.model import StateDict, Tensor
from kerasport.writers import onnx, safetensors, staging
from states import FORMATS, Array, small_model, target, writer

every_format = pytest.mark.parametrize("name", FORMATS)
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in FORMATS),
    ("onnx", {"inline_limit": 0}),
    ("safetensors", {"max_shard_size": 40}),
]
every_variant = pytest.mark.parametrize(("name", "options"), VARIANTS)


class PlantedError(Exception):
    """What no code of ours raises or catches."""


def failing(after: int) -> StateDict:
    """Two good tensors, and one whose values break off after a while."""

    def fill(start: int, stop: int, buffer: Array) -> None:
        if stop > after:
            raise PlantedError
        buffer[:] = 1

    def load() -> Array:
        raise PlantedError

    good = {name: Tensor.of(name, np.ones(7, np.float32)) for name in "ab"}
    bad = Tensor("bad", np.dtype(np.float32), (101,), load, fill=fill)
    return StateDict("torch", {**good, "bad": bad})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@every_variant
@pytest.mark.parametrize("old", [True, False], ids=["over", "anew"])
def test_a_tensor_that_fails_midway_changes_nothing(
    name: str,
    options: dict[str, Any],
    old: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(staging, "SLAB", 64)
    if old:
        writer(name)(small_model(), target(name, tmp_path), **options)
    before = contents(tmp_path)
    with pytest.raises(PlantedError):
        writer(name)(failing(after=32), target(name, tmp_path), **options)
    assert contents(tmp_path) == before


@every_variant
def test_the_same_without_the_fault_changes_the_file(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    """The twin: the state that fails above is written when it does not fail."""
    writer(name)(small_model(), target(name, tmp_path), **options)
    before = contents(tmp_path)
    writer(name)(failing(after=1000), target(name, tmp_path), **options)
    assert contents(tmp_path) != before


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What a full disk does to a program, for files of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)


@every_variant
@pytest.mark.parametrize("size", [100, 10_000])
def test_a_full_disk_is_one_clear_error_and_changes_nothing(
    name: str, options: dict[str, Any], size: int, tmp_path: Path
) -> None:
    path = target(name, tmp_path)
    writer(name)(small_model(), path, **options)
    before = contents(tmp_path)
    large = {"w": Tensor.of("w", np.ones(70_000, np.float32))}
    with files_of_at_most(size), pytest.raises(UsageError) as raised:
        writer(name)(StateDict("torch", large), path, **options)
    assert str(raised.value) == (
        f"{path}: expected a place that can be written, found: File too large. "
        "Nothing was changed; free space or choose another place"
    )
    assert contents(tmp_path) == before


@every_format
def test_a_folder_that_is_missing_or_a_target_that_is_one(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a folder to write to, found none"):
        writer(name)(small_model(), tmp_path / "missing" / "model")
    with pytest.raises(UsageError, match="expected the name of a file, found a folder"):
        writer(name)(small_model(), tmp_path)


def several(name: str, path: Path, values: Array) -> None:
    """A target of several files."""
    state = StateDict("torch", {key: Tensor.of(key, values) for key in "abc"})
    if name == "safetensors":
        safetensors.write(state, path, max_shard_size=values.nbytes)
    elif name == "onnx":
        onnx.write(state, path, inline_limit=0)
    else:
        writer(name)(state, path)


@pytest.mark.parametrize("name", ["safetensors", "onnx", "pytorch"])
@pytest.mark.parametrize("old", [True, False], ids=["over", "anew"])
@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
def test_files_that_belong_together_are_all_new_or_all_old(
    name: str, old: bool, links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever rename fails, none of the others stays."""
    path = target(name, tmp_path)
    if old:
        several(name, path, np.zeros(7, np.float32))
    before = contents(tmp_path)
    replace = Path.replace
    if not links:

        def refused(self: Path, target: Path) -> None:
            raise PermissionError

        monkeypatch.setattr(Path, "hardlink_to", refused)
    failures = 0
    while True:
        count = 0

        def failing_replace(self: Path, target: Path, failures: int = failures) -> Path:
            nonlocal count
            count += 1
            if count == failures + 1:
                raise PlantedError
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", failing_replace)
        try:
            several(name, path, np.ones(7, np.float32))
        except PlantedError:
            assert contents(tmp_path) == before
            failures += 1
            continue
        break
    assert failures >= {"safetensors": 4, "onnx": 2, "pytorch": 2}[name]
    assert contents(tmp_path) != before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("name", "last"), [("safetensors", ".index.json"), ("onnx", ".onnx")])
def test_the_file_that_points_to_the_others_is_published_last(
    name: str, last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    replace = Path.replace

    def recorded(self: Path, target: Path) -> Path:
        order.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", recorded)
    several(name, target(name, tmp_path), np.ones(7, np.float32))
    assert len(order) > 1
    assert order[-1].endswith(last)


def test_an_error_that_is_not_of_the_disk_is_passed_on(tmp_path: Path) -> None:
    """A source that cannot be read must not be reported as a target that cannot be written."""

    def load() -> Array:
        raise OSError("from the source")

    tensor = Tensor("w", np.dtype(np.float32), (3,), load)
    with pytest.raises(OSError, match="from the source"):
        safetensors.write(StateDict("torch", {"w": tensor}), tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_forbids_writing_is_a_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="Permission denied"):
        safetensors.write(small_model(), tmp_path / "m.safetensors")


def test_a_process_that_is_interrupted_leaves_the_old_file(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a tensor."""
    path = tmp_path / "m.safetensors"
    safetensors.write(small_model(), path)
    before = contents(tmp_path)
    script = (
        "import os, signal, sys, numpy as np\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        "from pathlib import Path\n"
        "from kerasport.model import StateDict, Tensor\n"
        "from kerasport.writers import safetensors\n"
        "def fill(start, stop, buffer):\n"
        "    if start: os.kill(os.getpid(), signal.SIGINT)\n"
        "t = Tensor('t', np.dtype('f4'), (1 << 24,), lambda: 1 / 0, fill=fill)\n"
        "safetensors.write(StateDict('torch', {'t': t}), Path(sys.argv[1]))\n"
    )
    source = str(Path(staging.__file__).parent.parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        env={"PYTHONPATH": source},
        capture_output=True,
        check=False,
    )
    assert b"KeyboardInterrupt" in done.stderr
    assert contents(tmp_path) == before
