"""A format that somebody else adds: a package of its own, installed beside kerasport.

The package below is everything that such a format needs. It is installed by pip from its source
where the build backend is at hand, and found through the entry point group `kerasport.formats`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from kerasport import plugins

ROOT = Path(__file__).parent.parent
CNN = ROOT / "fixtures" / "cnn.keras"

PACKAGE = {
    "pyproject.toml": """
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"

        [project]
        name = "kerasport-npz"
        version = "1.2.3"
        dependencies = ["kerasport", "numpy"]

        [project.entry-points."kerasport.formats"]
        npz = "kerasport_npz:FORMAT"
    """,
    "kerasport_npz/__init__.py": '''
        """NumPy archives for kerasport."""

        from kerasport.formats import Format

        FORMAT = Format(
            "npz",
            "NumPy archive, one member a tensor",
            (".npz",),
            b"PK\\x03\\x04",
            "kerasport_npz.reader",
            "kerasport_npz.writer",
        )
    ''',
    "kerasport_npz/reader.py": '''
        """Reads NumPy archives that kerasport wrote."""

        import zipfile

        import numpy as np

        from kerasport import manifest
        from kerasport.model import StateDict, Tensor
        from kerasport.readers import targets


        def matches(path):
            return zipfile.is_zipfile(path) and "kerasport.npy" in zipfile.ZipFile(path).namelist()


        def read(path):
            with np.load(path) as archive:
                document = manifest.parse(str(archive["kerasport"]), where=str(path))
                tensors = [Tensor.of(name, archive[name]) for name in document["tensors"]]
            return targets.state(path, tensors, document=document)
    ''',
    "kerasport_npz/writer.py": '''
        """Writes NumPy archives."""

        import numpy as np

        from kerasport import manifest
        from kerasport.writers import staging


        def write(state, path, *, max_shard_size=None):
            staging.refuse_shards(max_shard_size, target="npz")
            members = {name: tensor.numpy() for name, tensor in state.items()}
            hashes = {}
            for name, array in members.items():
                hasher = manifest.hasher()
                hasher.update(array.tobytes())
                hashes[name] = hasher.hexdigest()
            with staging.Staging(path) as staged:
                np.savez(staged.open(path), kerasport=manifest.text(state, hashes), **members)
                with np.load(staged.reopen(path)) as archive:
                    for name in state:
                        np.testing.assert_array_equal(archive[name], members[name])
                return staged.publish()
    ''',
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed."""
    source = tmp_path_factory.mktemp("source")
    for name, text in PACKAGE.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(textwrap.dedent(text).lstrip())
    target = tmp_path_factory.mktemp("site")
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(target)]
    run = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    if run.returncode:  # without pip or hatchling: what an installer would leave
        shutil.copytree(source / "kerasport_npz", target / "kerasport_npz")
        about = target / "kerasport_npz-1.2.3.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: kerasport-npz\nVersion: 1\n")
        point = "[kerasport.formats]\nnpz = kerasport_npz:FORMAT\n"
        (about / "entry_points.txt").write_text(point)
    return target


def kerasport(*words: str, site: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT / "convert"), str(site)])
    return subprocess.run(
        [sys.executable, "-m", "kerasport", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_another_package_s_format_is_listed(site: Path, tmp_path: Path) -> None:
    run = kerasport("formats", "--json", site=site, cwd=tmp_path)
    (row,) = [row for row in json.loads(run.stdout) if row["name"] == "npz"]
    assert row == {
        "name": "npz",
        "holds": "NumPy archive, one member a tensor",
        "suffixes": [".npz"],
        "reads": True,
        "writes": True,
        "extra": None,
    }


def test_another_package_s_format_is_written_read_and_proven(site: Path, tmp_path: Path) -> None:
    words = ("convert", str(CNN), "x.npz", "--to", "torch")
    run = kerasport(*words, site=site, cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    with np.load(tmp_path / "x.npz") as archive:
        assert archive["stem.weight"].shape == (6, 1, 3, 2)
    run = kerasport("verify", "x.npz", "--against", str(CNN), site=site, cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    run = kerasport("inspect", "x.npz", site=site, cwd=tmp_path)
    assert run.stdout.splitlines()[-1] == "npz: 6 layers, 15 weights, 2,978 parameters, 11.9 kB"
    # The formats of kerasport's own that begin with the same bytes are still told apart.
    run = kerasport("inspect", str(CNN), site=site, cwd=tmp_path)
    assert run.stdout.splitlines()[-2].startswith("keras: 6 layers")
    run = kerasport("convert", str(CNN), "x.pt", "--to", "torch", site=site, cwd=tmp_path)
    run = kerasport("inspect", "x.pt", site=site, cwd=tmp_path)
    assert run.stdout.splitlines()[-1].startswith("pytorch: 6 layers")


def test_without_the_package_the_suffix_is_unknown(tmp_path: Path) -> None:
    run = kerasport("convert", str(CNN), "x.npz", "--to", "torch", site=tmp_path, cwd=tmp_path)
    assert run.returncode == 3
    assert "no format is written under the suffix '.npz'" in run.stderr


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ("npz = nowhere:FORMAT", "expected a format, found: No module named 'nowhere'"),
        ("npz = json:FORMAT", "expected a format, found: module 'json' has no attribute"),
        ("npz = json:loads", "expected a kerasport.formats.Format of a new name, found <function"),
        ("own = kerasport.formats:FORMATS", "expected a kerasport.formats.Format of a new name"),
        ("onnx = mine:FORMAT", "expected a kerasport.formats.Format of a new name"),
    ],
)
def test_a_package_that_is_broken_is_named(point: str, message: str, tmp_path: Path) -> None:
    about = tmp_path / "broken-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[kerasport.formats]\n{point}\n")
    taken = "from kerasport.formats import Format\nFORMAT = Format('onnx', 'mine', ('.x',))\n"
    (tmp_path / "mine.py").write_text(taken)
    run = kerasport("formats", site=tmp_path, cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert f"entry point {point}: {message}" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_format_whose_module_is_missing_is_named(tmp_path: Path) -> None:
    about = tmp_path / "broken-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[kerasport.formats]\nfoo = mine:FORMAT\n")
    row = "Format('foo', 'foos', ('.foo',), b'FOO', writer='mine.none')"
    (tmp_path / "mine.py").write_text(f"from kerasport.formats import Format\nFORMAT = {row}\n")
    run = kerasport("convert", str(CNN), "x.foo", "--to", "torch", site=tmp_path, cwd=tmp_path)
    assert run.returncode == 2
    assert "kerasport: format foo cannot be used: No module named 'mine.none'" in run.stderr


# ------------------------------------------------------------------------- where packages may lie


@pytest.mark.parametrize("about", ["Foo-1.dist-info", "foo.egg-info", "FOO-1.DIST-INFO"])
def test_what_python_finds_is_found(
    about: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / about).mkdir()
    (tmp_path / about / "METADATA").write_text("Metadata-Version: 2.1\nName: foo\nVersion: 1\n")
    (tmp_path / about / "entry_points.txt").write_text("[kerasport.test]\nb = x:y\na = x:y\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert len(metadata.entry_points(group="kerasport.test")) == 2
    assert [point.name for point in plugins.entry_points("kerasport.test")] == ["a", "b"]


def test_packages_in_an_archive_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "foo.zip", "w") as archive:
        archive.writestr("foo-1.dist-info/METADATA", "Name: foo\nVersion: 1\n")
        archive.writestr("foo-1.dist-info/entry_points.txt", "[kerasport.test]\na = x:y\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "foo.zip"), *sys.path])
    assert [point.name for point in plugins.entry_points("kerasport.test")] == ["a"]


def test_packages_that_another_finder_knows_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        @staticmethod
        def find_distributions(context: object) -> list[metadata.Distribution]:
            return [Package()]

        @staticmethod
        def find_spec(*_: object) -> None:
            return None

    class Package(metadata.Distribution):
        def read_text(self, filename: str) -> str | None:
            texts = {"METADATA": "Name: foo\n", "entry_points.txt": "[kerasport.test]\na = x:y\n"}
            return texts.get(filename)

        def locate_file(self, path: object) -> Path:
            return Path(str(path))

    assert plugins.entry_points("kerasport.test") == []
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert [point.name for point in plugins.entry_points("kerasport.test")] == ["a"]


def test_without_a_package_python_s_search_is_not_even_imported() -> None:
    """It takes as long as listing a small model."""
    code = (
        "import sys\n"
        "from kerasport import plugins\n"
        "print(plugins.entry_points('kerasport.test'), 'importlib.metadata' in sys.modules)"
    )
    environment = {"PYTHONPATH": str(ROOT / "convert"), "PATH": os.environ["PATH"]}
    run = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "[] False\n"
