"""The folder of a module: what is written there, when, and what is refused.

That the module computes what Keras computes is for `test_codegen_models` and `test_running`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch

import kerasport
import kerasport.torch
from generated import deviation, imported, randomized
from kerasport import cli
from kerasport.errors import UsageError, VerificationError
from own_layers import GATED_TOML, GatedUnit
from test_cli import Run

L = keras.layers
ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "fixtures"
CNN = str(FIXTURES / "cnn.keras")
MODULE = ("--to", "torch", "--module")
Command = Callable[..., Run]


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Run:
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        code = ended.value.code
        assert isinstance(code, int)
        return Run(code, *capsys.readouterr())

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# ------------------------------------------------------------------------------- what is written


def test_a_folder_holds_the_module_and_its_weights(command: Command, tmp_path: Path) -> None:
    run = command("convert", CNN, "out/", *MODULE)
    assert (run.code, run.err) == (0, "")
    assert run.out.startswith("cnn.keras → out/  (torch layout)\n  holds 14 source tensors")
    assert sorted(contents(tmp_path)) == ["out/model.py", "out/model.safetensors"]


def test_the_same_file_gives_the_same_folder(command: Command, tmp_path: Path) -> None:
    for name in ("a", "b"):
        command("convert", CNN, name, *MODULE)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(contents(tmp_path / "a")) == 2


def test_load_needs_torch_alone(command: Command, tmp_path: Path) -> None:
    """In the interpreter of someone who has neither kerasport nor Keras."""
    command("convert", CNN, "out", *MODULE)
    script = (
        "import sys\nsys.path.insert(0, 'out')\nimport torch\nfrom model import load\n"
        "x = torch.zeros(2, 1, 8, 8)\nprint(tuple(load()(x).shape), *sorted({'kerasport', 'keras',"
        " 'tensorflow', 'safetensors'} & set(sys.modules)))"
    )
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env
    )
    assert run.stdout == "(2, 10)\n"


def test_a_folder_is_written_over_file_by_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    command("convert", str(FIXTURES / "sequence.keras"), "out", *MODULE)
    assert command("convert", CNN, "out", *MODULE).code == 0
    command("convert", CNN, "fresh", *MODULE)
    fresh = contents(tmp_path / "fresh")
    assert contents(tmp_path / "out") == {**fresh, "notes.txt": b"mine"}


def test_weights_of_ours_without_a_module_may_be_written_over(command: Command) -> None:
    Path("out").mkdir()
    assert command("convert", CNN, "out/model.safetensors", "--to", "torch").code == 0
    assert command("convert", CNN, "out", *MODULE).code == 0


def test_the_folder_is_proven_bit_for_bit(command: Command, tmp_path: Path) -> None:
    command("convert", CNN, "out", *MODULE)
    run = command("verify", "out/", "--against", CNN)
    assert run.code == 0
    assert run.out.startswith("cnn.keras = out/  (torch layout)\n  proven bit for bit: 14 source")
    path = tmp_path / "out" / "model.safetensors"
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 1
    path.write_bytes(whole)
    run = command("verify", "out/", "--against", CNN)
    assert run.code == VerificationError.exit_code
    assert "out/ does not hold cnn.keras:\n  logits" in run.err


def test_the_folder_is_inspected_as_its_weights_are(command: Command) -> None:
    command("convert", CNN, "out", *MODULE)
    assert command("inspect", "out").out == command("inspect", "out/model.safetensors").out != ""


def test_a_cast_is_done_and_proven(command: Command, tmp_path: Path) -> None:
    assert command("convert", CNN, "out", *MODULE, "--dtype", "bf16").code == 0
    assert command("verify", "out", "--against", CNN).code == 0
    model = imported((tmp_path / "out/model.py").read_text(), tmp_path).load(
        tmp_path / "out/model.safetensors"
    )
    weight = kerasport.read(CNN)["hidden"].weights["bias"].numpy().copy()
    wanted = torch.from_numpy(weight).bfloat16().float()
    assert torch.equal(model.hidden.bias, wanted)


def test_a_notebook_takes_the_folder_too(tmp_path: Path) -> None:
    kerasport.write_module(CNN, tmp_path / "out")
    x = torch.rand(2, 1, 8, 8)
    made = kerasport.torch.load_module(tmp_path / "out")
    assert torch.equal(made(x), kerasport.torch.load_module(CNN)(x))
    assert not made.training
    path = tmp_path / "out" / "model.py"
    path.write_text(path.read_text().replace("return x\n", "return -x\n", 1))
    assert torch.equal(kerasport.torch.load_module(tmp_path / "out")(x), -made(x))


def test_names_that_python_lacks_become_attributes(tmp_path: Path) -> None:
    """Keywords, spaces, names that a module has already, and the same names in two models."""
    i = keras.Input((4,), name="class")
    inner = keras.Sequential([keras.Input((4,)), L.Dense(4, name="dense")], name="for")
    other = keras.Sequential([keras.Input((4,)), L.Dense(4, name="dense")], name="3 d")
    x = L.Dense(4, name="forward")(other(inner(i)))
    y = keras.Input((4,), name="b c")
    model = keras.Model([i, y], L.Add(name="import")([L.Dense(4, name="dense")(x), y]))
    randomized(model)
    kerasport.write_module(model, tmp_path / "out")
    made = imported((tmp_path / "out/model.py").read_text(), tmp_path)
    arrays = [np.random.default_rng(n).normal(size=(3, 4)).astype("f4") for n in (0, 1)]
    found = made.load(tmp_path / "out/model.safetensors")(*map(torch.from_numpy, arrays))
    assert deviation(found.detach().numpy(), np.asarray(model(arrays))) < 1e-5


# ---------------------------------------------------------------------------- code of a user's own


TRIPLE = '''
[triple.module]
source = """
class Triple(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 3
"""
'''
GATED_MODULE = """
["demo>GatedUnit".module]
source = '''
class GatedUnit(nn.Module):
    def __init__(self, units: int, use_bias: bool = True) -> None:
        super().__init__()
        self.value = nn.Linear(3, units, bias=use_bias)
        self.gate = nn.Linear(3, units, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.value(x) * torch.sigmoid(self.gate(x))
'''
"""


def with_lambda() -> Any:
    i = keras.Input((4,))
    model = keras.Model(i, L.Dense(2)(L.Lambda(lambda x: x * 3, name="triple")(i)))
    randomized(model)
    return model


def test_a_lambda_is_a_stub_that_says_what_it_stands_for(command: Command, tmp_path: Path) -> None:
    with_lambda().save("m.keras")
    run = command("convert", "m.keras", "out", *MODULE)
    assert run.code == 0
    assert (
        "module: model.py: the layer triple of class Lambda is a stub: its code is not in the file"
        in run.out
    )
    made = imported((tmp_path / "out/model.py").read_text(), tmp_path)
    with pytest.raises(NotImplementedError, match="the layer triple of class Lambda"):
        made.load(tmp_path / "out/model.safetensors")(torch.zeros(1, 4))


def test_a_module_of_ones_own_stands_for_a_lambda(command: Command, tmp_path: Path) -> None:
    model = with_lambda()
    model.save("m.keras")
    Path("layers.toml").write_text(TRIPLE)
    run = command("convert", "m.keras", "out", *MODULE, "--layers", "layers.toml")
    assert run.code == 0
    assert "stub" not in run.out
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    made = imported((tmp_path / "out/model.py").read_text(), tmp_path)
    found = made.load(tmp_path / "out/model.safetensors")(torch.from_numpy(x))
    assert deviation(found.detach().numpy(), np.asarray(model(x))) < 1e-5
    again = kerasport.torch.load_module("m.keras", layers="layers.toml")
    assert torch.equal(again(torch.from_numpy(x)), found)
    assert command("verify", "out", "--against", "m.keras", "--layers", "layers.toml").code == 0


def test_a_described_class_with_its_module_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def shape(self: Any, given: Any) -> Any:  # TimeDistributed asks for it
        return (*given[:-1], self.units)

    monkeypatch.setattr(GatedUnit, "compute_output_shape", shape)
    i = keras.Input((3,))
    model = keras.Model(i, L.TimeDistributed(GatedUnit(5, name="g"))(L.RepeatVector(2)(i)))
    single = keras.Model(i, GatedUnit(5, name="g")(i))
    layers = tomllib.loads(GATED_TOML + GATED_MODULE)
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    for one in (single, model):
        randomized(one)
        made = kerasport.torch.load_module(one, layers=layers)
        found = made(torch.from_numpy(x)).detach().numpy()
        assert deviation(found, np.asarray(one(x))) < 1e-5


def test_the_description_in_the_readme_makes_a_module() -> None:
    text = (ROOT / "README.md").read_text()
    blocks = [part.partition("```")[0] for part in text.split("```toml\n")[1:]]
    layers = tomllib.loads("\n".join(block for block in blocks if "[GatedUnit." in block))
    assert set(layers["GatedUnit"]) == {"keras", "torch", "hints", "module"}
    i = keras.Input((3,))
    model = keras.Model(i, GatedUnit(5)(i))
    randomized(model)
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    made = kerasport.torch.load_module(model, layers=layers)
    assert deviation(made(torch.from_numpy(x)).detach().numpy(), np.asarray(model(x))) < 1e-5


def test_a_layer_of_keras_can_be_replaced() -> None:
    """Whoever has a faster one, or one for a layer that PyTorch lacks."""
    own = "class Mine(nn.Module):\n    def forward(self, x: Tensor) -> Tensor:\n        return -x\n"
    i = keras.Input((3,))
    model = keras.Model(i, L.ReLU(name="r")(i))
    made = kerasport.torch.load_module(model, layers={"ReLU": {"module": {"source": own}}})
    assert made(torch.ones(1, 3)).tolist() == [[-1.0, -1.0, -1.0]]


@pytest.mark.parametrize(
    ("described", "complaint"),
    [
        ({"module": {"source": "class ("}}, "x: module: its source is no Python"),
        ({"module": {"source": "x = 1"}}, "x: module: its source defines no class"),
        ({"module": {"source": 3}}, "x: module: expected the source of a module"),
        ({"module": {}}, "x: module: expected the source of a module"),
        ({"module": {"source": "class A: ...", "b": 1}}, "x: module: 'b' is none of source"),
        ({"module": "class A: ..."}, "x: module: expected a table"),
    ],
)
def test_a_module_that_cannot_be_used_is_told_when_it_is_read(
    described: Any, complaint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        kerasport.read(CNN, layers={"x": described})
    assert complaint in str(caught.value)


def test_a_module_says_nothing_of_weights(command: Command) -> None:
    """Its class is described by nothing else: the weights have no place."""
    i = keras.Input((3,))
    keras.Model(i, GatedUnit(5, name="g")(i)).save("m.keras")
    Path("layers.toml").write_text(GATED_MODULE)
    run = command("convert", "m.keras", "out", *MODULE, "--layers", "layers.toml")
    assert run.code == 5
    assert '["demo>GatedUnit".keras]' in run.err
    assert not Path("out").exists()


# ------------------------------------------------------------------------------- what is refused


WEIGHTS = str(FIXTURES / "cnn.weights.h5")
REFUSALS: list[tuple[Sequence[str], int, str]] = [
    ((CNN, "out", "--to", "onnx", "--module"), 2, "a module is PyTorch's, and --to says onnx"),
    ((CNN, "out", "--to", "keras", "--module"), 2, "a module is PyTorch's, and --to says keras"),
    ((CNN, "out", *MODULE, "--max-shard-size", "1MB"), 2, "leave out --max-shard-size"),
    ((CNN, "out", *MODULE, "--include", "stem"), 2, "leave out --include"),
    ((CNN, "out", *MODULE, "--exclude", "stem"), 2, "leave out --exclude"),
    ((CNN, "out", *MODULE, "--format", "pytorch"), 2, "leave out --format"),
    ((CNN, "out", *MODULE, "--optimizer"), 2, "leave out --optimizer"),
    ((CNN, "out", *MODULE, "--no-strict"), 2, "leave out --no-strict"),
    ((CNN, "out", *MODULE, "--tied", "both"), 2, "leave out --tied"),
    ((CNN, "out", *MODULE, "--dtype", "f8"), 2, "dtype 'f8': expected one of f64, f32"),
    ((WEIGHTS, "out", *MODULE), 5, "give the architecture with --config"),
    ((str(FIXTURES / "tokens.int8.keras"), "out", *MODULE), 5, "--dequantize"),
    ((CNN, "file", *MODULE), 2, "file: expected the name of a folder, found a file"),
    ((CNN, "mine", *MODULE), 2, "mine/model.py: expected a file that kerasport wrote, found anot"),
    ((CNN, "hub", *MODULE), 2, "hub/model.safetensors: expected a file that kerasport wrote"),
    ((CNN, "odd", *MODULE), 2, "odd/model.py: expected a file, found a folder"),
    ((CNN, "none/out", *MODULE), 2, "expected a folder none, found none"),
    ((CNN, "x" * 300, *MODULE), 2, "File name too long"),
    ((CNN, "/proc/out", *MODULE), 2, "/proc/out: expected a place that can be written, found: "),
    (("none.keras", "out", *MODULE), 2, "none.keras: expected a readable file"),
]


@pytest.mark.parametrize(
    ("words", "code", "message"), REFUSALS, ids=[" ".join(w)[-60:] for w, *_ in REFUSALS]
)
def test_a_refusal_is_one_message_and_leaves_no_folder(
    words: Sequence[str], code: int, message: str, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for name, file in (("mine", "model.py"), ("hub", "model.safetensors")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("mine")
    (tmp_path / "odd" / "model.py").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    run = command("convert", *words)
    assert run.code == code
    assert message in run.err
    assert run.out == ""
    assert "Traceback" not in run.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_source_is_never_overwritten(command: Command, tmp_path: Path) -> None:
    Path("out").mkdir()
    command("convert", CNN, "out/model.safetensors", "--to", "keras")
    before = contents(tmp_path)
    run = command("convert", "out/model.safetensors", "out", *MODULE)
    assert run.code == 2
    assert "is the source, or a part of it" in run.err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("old", [True, False], ids=["over", "anew"])
def test_a_write_that_fails_changes_nothing(
    old: bool, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails at each rename in turn, the last moment at which it can."""
    if old:
        command("convert", str(FIXTURES / "sequence.keras"), "out", *MODULE)
    before = contents(tmp_path)
    rename, calls = Path.replace, 0
    for fails_at in (1, 2):
        calls = 0

        def replace(self: Path, target: Path, fails_at: int = fails_at) -> Path:
            nonlocal calls
            calls += self.suffix == ".part"
            if calls == fails_at and self.suffix == ".part":
                raise OSError(28, "No space left on device", str(self))
            return rename(self, target)

        monkeypatch.setattr(Path, "replace", replace)
        run = command("convert", CNN, "out", *MODULE)
        monkeypatch.setattr(Path, "replace", rename)
        assert calls == fails_at
        assert (run.code, run.out) == (2, "")
        assert "No space left on device" in run.err
        assert contents(tmp_path) == before
        assert (tmp_path / "out").exists() == old
