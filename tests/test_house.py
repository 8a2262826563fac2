"""The house keeps its order: who may import whom, and what an import costs."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "convert" / "kerasport"
STANDARD = sys.stdlib_module_names
# Of ours, each module may import these; readers, writers and conventions are named by folder.
MAY_IMPORT = {
    "__init__": {"api", "errors", "layout", "model", "transpose", "version"},
    "__main__": {"cli"},
    "errors": set(),
    "version": set(),
    "tiles": {"errors"},
    "layout": {"errors", "tiles"},
    "kinds": {"errors", "variants"},
    "variants": set(),
    "model": {"errors", "layout"},
    "architecture": {"errors", "kinds", "model"},
    "names": {"conventions", "errors"},
    "conventions": {"conventions", "errors", "layout", "variants"},
    "options": {"architecture", "errors", "kinds", "model"},
    "shapes": {"architecture", "errors", "kinds", "model", "options"},
    "flatten": {
        *("architecture", "errors", "kinds", "layout", "model", "options", "shapes", "variants"),
    },
    "hints": {"architecture", "flatten", "kinds", "model", "options", "shapes", "variants"},
    "plugins": set(),
    "custom": {"conventions", "errors", "kinds", "layout", "model", "plugins"},
    "arrange": {"architecture", "custom", "kinds", "model"},
    "templates": {"arrange", "custom", "model"},
    "ties": {"architecture", "model"},
    "dequantize": {
        *("architecture", "conventions", "errors", "kinds", "layout", "model", "shapes"),
        "variants",
    },
    "averages": {"errors", "model"},
    "lora": {"conventions", "errors", "kinds", "model", "variants"},
    "testing": {"api", "custom", "errors", "model"},
    "hub": {"architecture", "custom", "kinds", "model", "variants"},
    "identify": {
        *("arrange", "conventions", "custom", "errors", "hub", "kinds", "layout", "model"),
    },
    "unnamed": {"architecture", "errors", "identify", "model"},
    "transpose": {
        *("architecture", "conventions", "custom", "errors", "flatten", "hints", "kinds"),
        *("layout", "model", "names", "templates", "ties", "tiles", "version"),
    },
    "codegen": {
        *("architecture", "conventions", "errors", "flatten", "hints", "kinds", "model", "names"),
        *("options", "shapes", "transpose", "variants"),
    },
    "torch": {"api", "codegen", "errors", "model", "running"},
    # What is run is what `codegen` wrote, and compared in Keras's order of axes and features.
    "running": {"architecture", "codegen", "errors", "flatten", "layout", "model"},
    # The way back is the plan's moves, inverted, and what PyTorch adds up.
    "backward": {
        *("conventions", "errors", "layout", "model", "names", "tiles", "transpose"),
    },
    # A model as modules of PyTorch, how they go into a target, and what that is called.
    "units": {
        *("conventions", "custom", "errors", "flatten", "identify", "layout", "model"),
        "transpose",
    },
    "matching": {"architecture", "errors", "layout", "model", "transpose", "units"},
    "naming": {
        *("errors", "flatten", "identify", "layout", "matching", "model", "transpose", "units"),
    },
    "manifest": {"errors", "model", "version"},
    "readers": {"architecture", "errors", "kinds", "layout", "manifest", "model", "readers"},
    "writers": {"errors", "manifest", "model", "writers"},
    "restore": {"architecture", "conventions", "custom", "errors", "kinds", "layout", "model"},
    "verification": {"errors", "layout", "manifest", "model", "ties", "tiles"},
    "formats": {"errors", "model", "plugins"},
    "api": {
        *("architecture", "averages", "backward", "codegen", "conventions", "custom", "dequantize"),
        *("errors", "formats", "identify", "layout", "lora", "manifest", "matching", "model"),
        "naming",
        # A module's folder is one safetensors file with its source beside it.
        *("readers", "restore", "running", "ties", "torch", "transpose", "units", "unnamed"),
        *("verification", "writers"),
    },
    "cli": {"api", "errors", "formats", "version"},
}
# At the top of a module, these may import NumPy; everything else is imported inside functions.
NUMPY = {
    *("backward", "dequantize", "layout", "lora", "matching", "model", "testing", "tiles"),
    *("torch", "transpose", "verification", "readers", "running", "writers"),
}
ONLY_IN = {
    # Where a Keras file says its architecture is asked before Keras opens it.
    "h5py": {"readers", "running", "writers"},
    # Whoever has computed what a module should give: Keras opened by name, ports run.
    "tensorflow": {"running"},
    "onnxruntime": {"running"},
    "ml_dtypes": {"dequantize", "model", "readers"},
    "blake3": {"manifest"},
    "onnx": {"readers", "writers"},
    "pyarrow": {"readers", "writers"},
    "safetensors": {"readers", "writers"},
    "tensorstore": {"readers"},
    "torch": {"readers", "running", "testing", "torch", "writers"},
}
FRAMEWORKS = {"keras", "tensorflow", "tf_keras", "torch", "jax"}


def room(path: Path, root: Path = SOURCE) -> str:
    relative = path.relative_to(root)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, and whether at its top."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [module]
            if module == "kerasport":
                names = [f"kerasport.{alias.name}" for alias in node.names]
        for name in names:
            yield name, id(node) in top


def violations(path: Path, root: Path = SOURCE) -> list[str]:
    mine = room(path, root)
    found = []
    for name, at_top in imports(path):
        first, *rest = name.split(".")
        if first == "kerasport":
            if rest and rest[0] not in MAY_IMPORT[mine] | {mine}:
                found.append(f"{path.name}: {mine} may not import kerasport.{rest[0]}")
        elif first == "numpy":
            if mine not in NUMPY:
                found.append(f"{path.name}: {mine} may not import numpy")
        elif first not in STANDARD:
            if at_top:
                found.append(f"{path.name}: imports {first} at its top")
            if mine not in ONLY_IN.get(first, set()):
                found.append(f"{path.name}: {mine} may not import {first}")
            if first in FRAMEWORKS and mine == "readers":
                found.append(f"{path.name}: a reader may not import {first}")
    return found


MODULES = sorted(SOURCE.rglob("*.py"))


def test_there_are_modules_to_check() -> None:
    assert len(MODULES) > 20


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_imports_only_what_it_may(path: Path) -> None:
    assert violations(path) == []


@pytest.mark.parametrize(
    ("name", "planted", "complaint"),
    [
        ("readers/x.py", "def f():\n    import torch\n", "a reader may not import torch"),
        ("readers/x.py", "from kerasport.conventions import rows\n", "may not import"),
        ("layout.py", "import kerasport.model\n", "layout may not import kerasport.model"),
        ("layout.py", "from kerasport import transpose\n", "may not import kerasport.transpose"),
        ("model.py", "import h5py\n", "imports h5py at its top"),
        ("kinds.py", "import numpy as np\n", "kinds may not import numpy"),
    ],
)
def test_a_forbidden_import_is_found(
    tmp_path: Path, name: str, planted: str, complaint: str
) -> None:
    """Without this, the test above could pass because it sees nothing."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(planted)
    assert any(complaint in found for found in violations(tmp_path / name, tmp_path))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_axes_are_permuted_in_one_place_only(path: Path) -> None:
    assert permutations(path.read_text()) == [] or path.name in ("layout.py", "tiles.py")


def test_a_permutation_is_found() -> None:
    assert permutations("x = y.transpose(1, 0)") == ["transpose"]
    assert permutations("x = np.moveaxis(y, 0, 1)") == ["moveaxis"]
    assert permutations("x = y.T @ z") == ["T"]


def permutations(text: str) -> list[str]:
    banned = {"transpose", "moveaxis", "swapaxes", "rollaxis", "T", "permute"}
    tree = ast.parse(text)
    return [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in banned
        and not (isinstance(node.value, ast.Name) and node.value.id == "kerasport")
    ]


def loaded(statement: str) -> set[str]:
    """The packages that a statement loads in a fresh interpreter."""
    return {name.partition(".")[0] for name in modules(statement)} - STANDARD


def modules(statement: str) -> set[str]:
    """The modules that a statement loads in a fresh interpreter."""
    script = (
        "import sys; before = set(sys.modules)\n"
        f"{statement}\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE.parent)},
    )
    return set(run.stderr.split())


def test_importing_kerasport_loads_numpy_and_nothing_else() -> None:
    assert loaded("import kerasport") == {"kerasport"}
    assert loaded("from kerasport import *") == {"kerasport", "numpy"}


def test_a_heavy_import_is_found() -> None:
    assert "h5py" in loaded("import kerasport, h5py")


def test_help_does_not_even_load_numpy() -> None:
    statement = (
        "import kerasport.cli\ntry: kerasport.cli.main(['--version'])\nexcept SystemExit: pass"
    )
    assert not {"h5py", "numpy"} & loaded(statement)


LISTING = """
import kerasport.cli
try: kerasport.cli.main(['inspect', 'fixtures/cnn.keras', *{words}])
except SystemExit: pass
"""


def test_listing_a_file_loads_what_it_takes_and_nothing_else() -> None:
    """What options ask for, what converts and what runs would take as long as the listing."""
    found = modules(LISTING.format(words=[]))
    assert "kerasport.readers.keras_archive" in found
    for name in (
        *("averages", "codegen", "dequantize", "hints", "hub", "lora", "restore", "running"),
        *("shapes", "ties", "tiles", "transpose", "writers", "readers.tf_bundle"),
    ):
        assert f"kerasport.{name}" not in found
    assert not {"importlib.metadata", "difflib", "tempfile"} & found


def test_what_an_option_of_listing_needs_is_found() -> None:
    """The twin."""
    assert "kerasport.dequantize" in modules(LISTING.format(words=["--dequantize"]))


def test_every_public_name_is_there_and_no_other() -> None:
    import kerasport

    assert set(kerasport.__all__) <= set(dir(kerasport))
    assert all(getattr(kerasport, name) is not None for name in kerasport.__all__)
    with pytest.raises(AttributeError, match="module 'kerasport' has no attribute 'transposed'"):
        _ = kerasport.transposed
