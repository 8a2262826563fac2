"""Orbax checkpoints of Keras hold what the archive of the same model holds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kerasport
from kerasport.errors import KerasportError, MalformedError, UnknownFormatError, UsageError

ROOT = Path(__file__).parent.parent
FILES = ROOT / "tests" / "files"
FIXTURES = ROOT / "fixtures"


def test_what_is_missing_is_named_with_the_line_that_installs_it() -> None:
    code = (
        "import sys; sys.modules['tensorstore'] = None\n"
        "from kerasport.cli import main; main(['inspect', sys.argv[1]])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(FILES / "cnn.orbax")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "convert")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 7
    assert "pip install 'kerasport[orbax]'" in run.stderr


def test_a_checkpoint_of_another_library_is_told(tmp_path: Path) -> None:
    """Its arrays may be laid out otherwise, and nothing says what they are."""
    folder = tmp_path / "0" / "pytree"
    folder.mkdir(parents=True)
    key = [{"key": word, "key_type": 2} for word in ("params", "Dense_0", "kernel")]
    tree = {"tree_metadata": {"('params', 'Dense_0', 'kernel')": {"key_metadata": key}}}
    (folder / "_METADATA").write_text(json.dumps(tree))
    with pytest.raises(UnknownFormatError, match="found one of another library: it holds"):
        kerasport.read(tmp_path)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    pytest.importorskip("tensorstore")
    return shutil.copytree(FILES / "cnn.orbax", tmp_path / "cnn.orbax")


@pytest.mark.parametrize("name", ["cnn", "sequence"])
@pytest.mark.parametrize("step", [".", "1"])
def test_weights_are_those_of_the_archive(name: str, step: str) -> None:
    pytest.importorskip("tensorstore")
    found = kerasport.read(FILES / f"{name}.orbax" / step)
    expected = kerasport.read(FIXTURES / f"{name}.keras")
    assert found.source.format == "keras-orbax"
    assert {p: layer.kind for p, layer in found.items()} == {
        p: layer.kind for p, layer in expected.items()
    }
    assert list(found) == list(expected)
    theirs = {tensor.name: tensor for tensor in expected.tensors}
    assert {tensor.name for tensor in found.tensors} == theirs.keys()
    for tensor in found.tensors:
        np.testing.assert_array_equal(tensor.numpy(), theirs[tensor.name].numpy())
        assert tensor.trainable == theirs[tensor.name].trainable
    assert {o.reason for o in found.omitted} == {"seed state", "metric state", "optimizer state"}


def test_it_converts_and_is_verified(tmp_path: Path) -> None:
    pytest.importorskip("tensorstore")
    kerasport.convert(FILES / "sequence.orbax", tmp_path / "m.safetensors", to="torch")
    kerasport.verify(tmp_path / "m.safetensors", against=FILES / "sequence.orbax")
    # The twin: another model's archive is not what it holds.
    with pytest.raises(KerasportError):
        kerasport.verify(tmp_path / "m.safetensors", against=FILES / "cnn.orbax")


def test_the_latest_step_is_the_one_of_the_largest_number(copy: Path) -> None:
    shutil.copytree(copy / "1", copy / "10")
    shutil.move(copy / "1", copy / "9")
    config = copy / "10" / "model_config" / "_strings.json"
    config.write_text(config.read_text().replace("head_conv", "last_conv"))
    with pytest.raises(KerasportError):  # which is asked for, and does not know this name
        kerasport.read(copy)["last_conv"].weights["kernel"].numpy()
    assert "head_conv" in kerasport.read(copy / "9")


def test_files_that_were_cut_off_are_refused(copy: Path) -> None:
    sound = {tensor.name: tensor.numpy().copy() for tensor in kerasport.read(copy).tensors}
    refused = 0
    for path in sorted(p for p in copy.rglob("*") if p.is_file() and p.stat().st_size):
        data = path.read_bytes()
        for keep in (0, 1, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:keep])
            try:
                found = {tensor.name: tensor.numpy() for tensor in kerasport.read(copy).tensors}
            except MalformedError:
                refused += 1
            else:  # a file that nothing was read from
                for name, array in found.items():
                    np.testing.assert_array_equal(array, sound[name])
        path.write_bytes(data)
    assert refused > 10


def _metadata(change: Callable[[Any], None]) -> Callable[[Path], None]:
    def damage(copy: Path) -> None:
        path = copy / "1" / "pytree" / "_METADATA"
        tree = json.loads(path.read_text())
        change(tree)
        path.write_text(json.dumps(tree))

    return damage


def _rename(tree: Any) -> None:
    next(iter(tree["tree_metadata"].values()))["key_metadata"][-1]["key"] = "gone"


def _pathless(tree: Any) -> None:
    next(iter(tree["tree_metadata"].values()))["key_metadata"] = 7


def _numbered(tree: Any) -> None:
    next(iter(tree["tree_metadata"].values()))["key_metadata"][-1]["key"] = 7


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_metadata(lambda tree: tree.clear()), "expected a tree of arrays, found none"),
        (_metadata(_rename), "and there is no such array"),
        (_metadata(_pathless), "expected its path"),
        (_metadata(_numbered), "expected a path of names"),
        (lambda copy: (copy / "1/link").symlink_to("/etc"), "found a link or a device"),
        (lambda copy: os.mkfifo(copy / "1/pipe"), "found a link or a device"),
    ],
)
def test_a_checkpoint_that_lies_is_refused(
    copy: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(copy)
    with pytest.raises(MalformedError, match=message):
        kerasport.read(copy)


def _zarr(folder: Path, **changes: Any) -> None:
    """A checkpoint without a database, with one array in Zarr."""
    array = folder / "0" / "pytree" / "trainable_variables.d.kernel"
    array.mkdir(parents=True)
    key = [{"key": word, "key_type": 2} for word in ("trainable_variables", "d", "kernel")]
    tree = {"tree_metadata": {"x": {"key_metadata": key}}, "use_ocdbt": False, "use_zarr3": False}
    (folder / "0" / "pytree" / "_METADATA").write_text(json.dumps(tree))
    said = {
        "zarr_format": 2,
        "shape": [2, 3],
        "chunks": [2, 3],
        "dtype": "<f4",
        "order": "C",
        "fill_value": None,
        "filters": None,
        "compressor": None,
    }
    (array / ".zarray").write_text(json.dumps(said | changes))
    (array / "0.0").write_bytes(np.arange(6, dtype="<f4").tobytes())


def test_arrays_without_a_database_are_read(tmp_path: Path) -> None:
    pytest.importorskip("tensorstore")
    _zarr(tmp_path)
    (tensor,) = kerasport.read(tmp_path).tensors
    np.testing.assert_array_equal(tensor.numpy(), np.arange(6, dtype=np.float32).reshape(2, 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [1 << 40, 3]}, "bytes can hold"),
        ({"shape": [-1, 3]}, "expected a shape"),
        ({"shape": "2"}, "expected a shape"),
        ({"shape": [1] * 100}, "expected a shape"),
        ({"dtype": "<U4"}, "expected numbers of a known dtype"),
        ({"dtype": [["a", "<f4"]]}, "expected numbers of a known dtype"),
        ({"chunks": [7]}, "expected sound arrays"),
    ],
)
def test_an_array_that_lies_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    pytest.importorskip("tensorstore")
    _zarr(tmp_path, **changes)
    with pytest.raises(KerasportError, match=message) as caught:
        [tensor.numpy() for tensor in kerasport.read(tmp_path).tensors]
    assert caught.value.exit_code in (4, 5)


def test_a_folder_of_numbers_is_none(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    with pytest.raises((UnknownFormatError, UsageError)):
        kerasport.read(tmp_path)
