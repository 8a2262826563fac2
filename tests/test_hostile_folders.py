"""What is no file where a file is expected is an error, and is never waited for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kerasport

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "fixtures"
WAIT = 60
# A model that is a folder, and the files in it.
FOLDERS = {
    "sequence.tf_keras.savedmodel": (
        *("saved_model.pb", "keras_metadata.pb", "variables/variables.index"),
        "variables/variables.data-00000-of-00001",
    ),
    "sequence.tf_keras.checkpoint": ("checkpoint", "weights.index", "weights.data-00000-of-00001"),
    "sequence.tfjs": ("model.json", "group1-shard1of2.bin"),
    "sequence.keras": ("config.json", "metadata.json", "model.weights.h5"),
}
CASES = [(folder, name) for folder, names in FOLDERS.items() for name in names]


def inspected(*paths: Path) -> Iterator[tuple[int, str]]:
    """The exit code and the words of the command, for each path, in one process."""
    code = (
        "import sys, contextlib, io\n"
        "from kerasport.cli import main\n"
        "for path in sys.argv[1:]:\n"
        "    said = io.StringIO()\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):\n"
        "        try: main(['inspect', path])\n"
        "        except SystemExit as end: code = end.code\n"
        "    print(code, repr(said.getvalue()), flush=True)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "convert")},
        capture_output=True,
        text=True,
        check=True,
        timeout=WAIT,
    )
    for line in run.stdout.splitlines():
        number, _, said = line.partition(" ")
        yield int(number), said


def folder(name: str, target: Path) -> Path:
    if name.endswith(".keras"):
        with zipfile.ZipFile(FIXTURES / name) as archive:
            archive.extractall(target)
        return target
    source = FIXTURES / name if (FIXTURES / name).exists() else ROOT / "tests" / "files" / name
    return Path(shutil.copytree(source, target))


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    paths = []
    for number, (name, part) in enumerate(CASES):
        paths.append(folder(name, tmp_path / str(number)))
        (paths[-1] / part).unlink()
        os.mkfifo(paths[-1] / part)
    for (name, part), (code, said) in zip(CASES, inspected(*paths), strict=True):
        # What is beside the weights may be missing, and then classes are.
        may_be_missing = part in ("checkpoint", "metadata.json", "config.json", "keras_metadata.pb")
        assert code in ((0,) if may_be_missing else (2, 3, 4)), (name, part, said)
        assert "Traceback" not in said


def test_the_folders_are_sound_without_the_pipe(tmp_path: Path) -> None:
    """The twin."""
    paths = [folder(name, tmp_path / name) for name in FOLDERS]
    assert [code for code, _ in inspected(*paths)] == [0] * len(FOLDERS)


def test_devices_pipes_and_circles_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "zeros.h5").symlink_to("/dev/zero")
    paths = [tmp_path / "pipe", tmp_path / "circle", tmp_path / "zeros.h5", Path("/dev/zero")]
    for code, said in inspected(*paths):
        assert code == 2
        assert "expected a" in said


SPARSE = {
    "none.h5": (b"", 1 << 40),
    "header.safetensors": ((10).to_bytes(8, "little") + b'{"a":{}}  ', 1 << 40),
    "zip.keras": (b"PK\3\4", 1 << 40),
    "footer.index": (b"", 1 << 40),
    "node.pb": (b"\x0a\xff\xff\xff\xff\x07", 1 << 33),
    "graph.onnx": (b"\x08\x07\x3a\x80\x80\x80\x80\x10", 1 << 33),
    "table.parquet": (b"PAR1", 1 << 40),
    "table.arrow": (b"ARROW1\0\0", 1 << 40),
}


def test_a_file_that_is_mostly_holes_is_refused_at_once(tmp_path: Path) -> None:
    paths = []
    for name, (head, size) in SPARSE.items():
        path = tmp_path / name
        path.write_bytes(head)
        try:
            os.truncate(path, size)
        except OSError:  # this file system has no such large ones
            os.truncate(path, 1 << 31)
        paths.append(path)
    for path, (code, said) in zip(paths, inspected(*paths), strict=True):
        assert code in (3, 4), (path.name, said)
        assert "Traceback" not in said


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".pt", ".parquet", ".arrow", ".npz"])
def test_a_file_that_was_cut_off_is_broken_and_not_unknown(suffix: str, tmp_path: Path) -> None:
    """Nobody has to know of what format it was for that."""
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".npz":
        arrays: Any = {"d/kernel": np.ones((31, 51), np.float32)}
        np.savez(whole, **arrays)
    else:
        kerasport.convert(FIXTURES / "cnn.keras", whole, to="torch")
    data = whole.read_bytes()
    paths = []
    for tenth in range(1, 10):
        paths.append(tmp_path / f"cut{tenth}{suffix}")
        paths[-1].write_bytes(data[: len(data) * tenth // 10])
    for path, (code, said) in zip(paths, inspected(*paths), strict=True):
        assert code == 4, (path.name, said)
    assert [code for code, _ in inspected(whole)] == [0], "the twin: the whole file is read"


def test_a_pipe_that_is_opened_is_waited_for(tmp_path: Path) -> None:
    """The twin: that the commands above came back was not because of the pipes."""
    os.mkfifo(tmp_path / "layers.toml")
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(["cat", str(tmp_path / "layers.toml")], timeout=1, check=False)
