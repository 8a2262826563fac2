"""The generated file itself: what it says, that it is clean, that it can be trained and exported.

That it computes what Keras computes is for `test_codegen_layers`, `test_codegen_graphs` and
`test_codegen_models`.
"""

from __future__ import annotations

import ast
import copy
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch

import kerasport
import kerasport.torch
from generated import built, compared, deviation, imported, ran, randomized
from kerasport.codegen import source
from kerasport.codegen.module import module
from kerasport.codegen.parts import PARTS
from kerasport.codegen.text import literal, prose
from kerasport.errors import MalformedError, UnsupportedError, UsageError
from kerasport.model import Snapshot, Source
from test_codegen_layers import GRID

L = keras.layers
FIXTURES = Path(__file__).parent.parent / "fixtures"
MODELS = ("cnn", "sequence", "attention")


def snapshot(name: str) -> Snapshot:
    return kerasport.read(FIXTURES / f"{name}.keras")


def forward(text: str) -> str:
    """The forward pass of the last model in a file."""
    return text.rpartition("    def forward(")[2].partition("\n\n\n")[0]


# ------------------------------------------------------------------------------------- what it says


def test_the_file_reads_as_a_person_would_write_it() -> None:
    """The first thing that a user looks at."""
    assert forward(source(snapshot("cnn"))) == (
        "self, image: Tensor) -> Tensor:\n"
        "        x: Tensor = torch.relu(self.stem(image))\n"
        "        x = self.stem_norm(x)\n"
        "        x = torch.relu(self.mix(x))\n"
        "        x = self.shrink(x)\n"
        "        x = torch.relu(self.head_conv(x))\n"
        "        x = x.flatten(1)\n"
        "        x = torch.relu(self.hidden(x))\n"
        "        x = self.thin(x)\n"
        "        x = self.logits(x)\n"
        "        return x"
    )


def test_long_names_make_no_long_lines(tmp_path: Path) -> None:
    name = "weighted_convolutional_network_of_word_embeddings"
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name=name)
    model.save(tmp_path / f"{name}.keras")
    source = module(kerasport.read(tmp_path / f"{name}.keras")).source
    assert max(map(len, source.splitlines())) <= 100


def test_a_shortcut_keeps_its_input() -> None:
    assert forward(source(snapshot("attention"))) == (
        "self, rows: Tensor) -> Tensor:\n"
        "        x: Tensor = torch.relu(self.embed(rows))\n"
        "        y: Tensor = self.attend(x, x, x)[0]\n"
        "        x = x + y\n"
        "        x = self.attend_norm(x)\n"
        "        y = self.mlp(x)\n"
        "        x = x + y\n"
        "        x = x.mean(1)\n"
        "        x = self.logits(x)\n"
        "        return x"
    )


@pytest.mark.parametrize("name", MODELS)
def test_torch_is_all_that_the_file_needs(name: str) -> None:
    tree = ast.parse(source(snapshot(name)))
    found = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    others = {word.partition(".")[0] for word in found} - sys.stdlib_module_names
    assert others == {"torch"}


@pytest.mark.parametrize("name", MODELS)
def test_a_part_is_there_only_where_it_is_used(name: str) -> None:
    text = source(snapshot(name))
    for part in PARTS:
        count = len(re.findall(rf"\b{part}\b", text))
        assert count != 1, f"{part} is there, and nothing uses it"


def test_the_same_model_gives_the_same_file() -> None:
    assert source(snapshot("cnn")) == source(snapshot("cnn"))


def test_the_formats_of_one_model_give_one_module() -> None:
    """The file name alone differs."""
    texts = {
        source(kerasport.read(FIXTURES / name)).partition('"""\n')[2]
        for name in ("cnn.keras", "cnn.legacy.h5", "cnn.misnamed.keras")
    }
    assert len(texts) == 1


def test_a_shared_layer_is_one_module() -> None:
    i = keras.Input((5,))
    twice = L.Dense(5, name="twice")
    text = source(kerasport.read(keras.Model(i, twice(twice(i)))))
    assert text.count("nn.Linear(") == 1
    assert text.count("self.twice(") == 2


def test_a_model_called_twice_is_one_class() -> None:
    i, j = keras.Input((5,)), keras.Input((5,))
    inner = keras.Model(i, L.Dense(5)(i), name="inner")
    text = source(kerasport.read(keras.Model(j, inner(inner(j)))))
    assert text.count("class Inner(nn.Module)") == 1
    assert text.count("self.inner(") == 2


def test_weights_alone_make_no_module() -> None:
    with pytest.raises(UnsupportedError, match="with its architecture, found weights alone"):
        source(kerasport.read(FIXTURES / "cnn.weights.h5"))


# --------------------------------------------------------------------------------- that it is clean


@pytest.fixture(scope="module")
def generated_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file for each of many layers, and for the fixtures."""
    folder = tmp_path_factory.mktemp("generated")
    for name in MODELS:
        (folder / f"{name}.py").write_text(source(snapshot(name)))
    for length in (1, 20, 30, 40, 50, 60):
        entry = {"class_name": f"own>{'Class' * 9}", "config": {"name": "n" * length}}
        stubs = {"class_name": "Sequential", "config": {"name": "m", "layers": [entry]}}
        (folder / f"stub_{length}.py").write_text(source(_read(stubs)))
    for number, trial in enumerate(GRID[::5]):
        (folder / f"trial_{number}.py").write_text(source(kerasport.read(trial.model())))
    assert len(list(folder.iterdir())) > 100
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "format", "--isolated", "--line-length=100", "--diff", "."),
        ("ruff", "check", "--isolated", "--line-length=100", "--select=E,F,W,I,B,UP,SIM,RUF", "."),
        ("mypy", "--strict", "--config-file=", "."),
    ],
    ids=["ruff-format", "ruff-check", "mypy-strict"],
)
def test_linters_find_nothing_to_say(command: tuple[str, ...], generated_files: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=generated_files,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-2000:]


def test_linters_would_find_something(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def f(x):\n    y = x\n    return undefined\n")
    for command in (("ruff", "check", "--isolated", "."), ("mypy", "--strict", ".")):
        run = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, check=False
        )
        assert run.returncode == 1


# ------------------------------------------------------------------------------ that it is a module


# torch.export says this of any nn.LSTM and nn.GRU.
@pytest.mark.filterwarnings("ignore:The tensor attributes? self.*_flat_weights:UserWarning")
@pytest.mark.parametrize("name", MODELS)
def test_it_can_be_exported(name: str, tmp_path: Path) -> None:
    made, about = built(snapshot(name), tmp_path)
    io = np.load(FIXTURES / f"{name}.io.npz")
    exported = torch.export.export(made, (torch.from_numpy(_turned(io["inputs"], about.inputs)),))
    found = ran(exported.module(), about, [io["inputs"]])
    assert deviation(found[0], io["outputs"]) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_it_can_be_compiled(name: str, tmp_path: Path) -> None:
    made, about = built(snapshot(name), tmp_path)
    io = np.load(FIXTURES / f"{name}.io.npz")
    compiled = torch.compile(made, backend="eager")
    assert deviation(ran(compiled, about, [io["inputs"]])[0], io["outputs"]) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_it_moves_to_another_dtype(name: str, tmp_path: Path) -> None:
    made, about = built(snapshot(name), tmp_path)
    io = np.load(FIXTURES / f"{name}.io.npz")
    x = torch.from_numpy(_turned(io["inputs"], about.inputs))
    with torch.no_grad():
        half = made.to(torch.bfloat16)(x.bfloat16())
        double = made.double()(x.double())
    assert half.dtype == torch.bfloat16
    assert double.dtype == torch.float64
    assert deviation(half.float().numpy(), io["outputs"]) < 0.1


@pytest.mark.parametrize("name", MODELS)
def test_it_can_be_trained(name: str, tmp_path: Path) -> None:
    made, about = built(snapshot(name), tmp_path)
    io = np.load(FIXTURES / f"{name}.io.npz")
    x = torch.from_numpy(_turned(io["inputs"], about.inputs))
    target = torch.from_numpy(io["outputs"]).argmax(-1)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.01)
    made.train()
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(made(x), (target + 1) % 10)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None for p in made.parameters())
    assert losses[-1] < losses[0]


def test_training_moves_statistics_as_keras_does(tmp_path: Path) -> None:
    """Momentum is one minus Keras's."""
    i = keras.Input((3,))
    model = keras.Model(i, L.BatchNormalization(momentum=0.9)(i))
    randomized(model)
    made, _ = built(kerasport.read(model), tmp_path)
    x = np.random.default_rng(0).normal(size=(50_000, 3)).astype(np.float32)
    model(x, training=True)
    made.train()
    made(torch.from_numpy(x))
    (norm,) = (m for m in made.modules() if isinstance(m, torch.nn.BatchNorm1d))
    _, _, mean, variance = (np.asarray(w) for w in model.weights)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    np.testing.assert_allclose(norm.running_mean.numpy(), mean, rtol=1e-4)
    np.testing.assert_allclose(norm.running_var.numpy(), variance, rtol=1e-4)


def _turned(x: Any, orders: tuple[tuple[int, ...], ...]) -> Any:
    return np.ascontiguousarray(x.transpose(orders[0]) if orders[0] else x)


# -------------------------------------------------------------------------------------- its weights


def test_write_puts_the_module_and_its_weights_side_by_side(tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = kerasport.write_module(snapshot("cnn"), out)
    assert (report.target, report.placed) == ("out/", 14)
    assert sorted(file.name for file in out.iterdir()) == ["model.py", "model.safetensors"]
    python = imported((out / "model.py").read_text(), tmp_path)
    model = python.load(out / "model.safetensors")
    io = np.load(FIXTURES / "cnn.io.npz")
    about = module(snapshot("cnn"))
    assert deviation(ran(model, about, [io["inputs"]])[0], io["outputs"]) < 1e-5
    assert not model.training


def test_load_finds_the_weights_beside_it(tmp_path: Path) -> None:
    kerasport.write_module(snapshot("sequence"), tmp_path)
    script = "import model; print(sum(p.numel() for p in model.load().parameters()))"
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    # Keras's own count, and bias_hh of three LSTM and GRU directions, which Keras lacks or has.
    assert int(run.stdout) == 2456 + 2 * 4 * 7


def test_a_refused_model_leaves_nothing_behind(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("own")
    class Odd(keras.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.scale = self.add_weight(shape=(3,), name="scale")

        def call(self, x: Any) -> Any:
            return x * self.scale

    i = keras.Input((3,))
    read = kerasport.read(keras.Model(i, Odd(name="odd")(i)))
    with pytest.raises(UnsupportedError, match="odd"):
        kerasport.write_module(read, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    report = kerasport.write_module(read, tmp_path / "out", unknown="keep")
    assert "odd of class own_Odd is a stub" in next(
        note.message for note in report.notes if note.kind == "module"
    )
    made = imported((tmp_path / "out" / "model.py").read_text(), tmp_path)
    made = made.load(tmp_path / "out" / "model.safetensors")  # strict
    with pytest.raises(NotImplementedError, match="the layer odd of class own_Odd"):
        made(torch.zeros(2, 3))


def test_a_snippet_stands_for_code_that_the_file_does_not_hold(tmp_path: Path) -> None:
    i = keras.Input((4,))
    model = keras.Model(i, L.Dense(2)(L.Lambda(lambda x: x * 3, name="triple")(i)))
    randomized(model)
    own = (
        "class Triple(nn.Module):\n"
        '    """Three times its input."""\n\n'
        "    def forward(self, x: Tensor) -> Tensor:\n"
        "        return x * 3\n"
    )
    read = kerasport.read(model)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    made, about = built(read, tmp_path, snippets={"triple": own})
    assert deviation(ran(made, about, [x])[0], np.asarray(model(x))) < 1e-5
    stub, _ = built(read, tmp_path)
    with pytest.raises(NotImplementedError, match="the layer triple of class Lambda"):
        stub(torch.from_numpy(x))
    assert "triple of class Lambda is a stub" in module(read).source


def test_a_snippet_is_given_the_options_that_it_asks_for(tmp_path: Path) -> None:
    entry = {"class_name": "own>Scaled", "config": {"name": "s", "factor": 5.0, "other": [1]}}
    image = {"class_name": "InputLayer", "config": {"name": "i", "batch_shape": [None, 3]}}
    read = _read({"class_name": "Sequential", "config": {"name": "m", "layers": [image, entry]}})
    own = (
        "class Scaled(nn.Module):\n"
        "    def __init__(self, factor: float, missing: int = 0) -> None:\n"
        "        super().__init__()\n"
        "        self.factor = factor\n\n"
        "    def forward(self, x: Tensor) -> Tensor:\n"
        "        return x * self.factor\n"
    )
    text = source(read, snippets={"own>Scaled": own})
    made = imported(text, tmp_path)
    assert made.M()(torch.ones(1, 3)).tolist() == [[5.0, 5.0, 5.0]]
    with pytest.raises(UsageError, match="no Python"):
        source(read, snippets={"own>Scaled": "class ("})
    with pytest.raises(UsageError, match="defines no class"):
        source(read, snippets={"own>Scaled": "x = 1"})


def test_a_notebook_needs_one_line() -> None:
    model = kerasport.torch.load_module(FIXTURES / "attention.tf_keras.h5")
    io = np.load(FIXTURES / "attention.tf_keras.io.npz")
    with torch.no_grad():
        found = model(torch.from_numpy(io["inputs"])).numpy()
    assert deviation(found, io["outputs"]) < 1e-5


def test_a_module_in_memory_shows_its_lines_in_a_traceback() -> None:
    model = kerasport.torch.load_module(FIXTURES / "cnn.keras")
    with pytest.raises(RuntimeError) as caught:
        model(torch.zeros(1, 1, 1, 1))
    assert any("self." in str(entry.statement) for entry in caught.traceback)


def test_float64_stays_float64() -> None:
    i = keras.Input((3,), dtype="float64")
    model = keras.Model(i, L.Dense(2, dtype="float64")(i))
    randomized(model)
    x = np.random.default_rng(0).normal(size=(2, 3))
    made = kerasport.torch.load_module(model)
    with torch.no_grad():
        found = made(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, np.asarray(model(x)), rtol=1e-14)


def test_quantized_weights_are_refused() -> None:
    i = keras.Input((4,))
    dense = L.Dense(3, name="small")
    model = keras.Model(i, dense(i))
    dense.quantize("int8")
    with pytest.raises(UnsupportedError, match="--dequantize"):
        source(kerasport.read(model))


def test_a_stub_may_give_several_tensors(tmp_path: Path) -> None:
    i = keras.Input((4,))
    a, b = L.Lambda(lambda x: [x, x * 2], name="twice")(i)
    read = kerasport.read(keras.Model(i, L.Add()([a, b])))
    own = (
        "class Twice(nn.Module):\n"
        "    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:\n"
        "        return x, x * 2\n"
    )
    made, _ = built(read, tmp_path, snippets={"twice": own})
    assert made(torch.ones(1, 4)).tolist() == [[3.0] * 4]
    assert "-> tuple[Tensor, Tensor]:" in source(read)


# ----------------------------------------------------------------------------------- hostile models


def _read(architecture: Mapping[str, Any], file: str = "m.keras") -> Snapshot:
    return Snapshot(Source(file, "keras"), (), architecture=architecture)


HOSTILE = (
    '"""\nimport os\nos.abort()\n"""',
    "x = 1\nimport os",
    "\\",
    "'); import os; os.abort(); ('",
    "__class__",
    "class",
    "None",
    "forward",
    "\u2028\u0000\x1b[31m",
    "{name}",
    "a" * 5000,
    "\u202eevil",
    "nn",
    "F",
    "self",
    "load",
)


def _names(tree: ast.AST) -> set[str]:
    """Every name that code looks up, attributes aside."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_cannot_become_code(name: str, tmp_path: Path) -> None:
    """Names of models, layers, inputs, classes and files, and values of options."""
    plain = _architecture("model", "layer", "image", "Custom")
    hostile = _architecture(name, f"l{name}", f"i{name}", f"Custom>{name}")
    text = source(_read(hostile, file=f"{name}.keras"))
    tree, usual = ast.parse(text), ast.parse(source(_read(plain)))
    calls = [type(node).__name__ for node in ast.walk(tree)]
    assert sorted(calls) == sorted(type(node).__name__ for node in ast.walk(usual))
    assert "abort" not in _names(tree)
    imported(text, tmp_path)
    assert max(map(len, text.splitlines())) < 6000


def _architecture(model: str, layer: str, given: str, kind: str) -> dict[str, Any]:
    image = {"class_name": "InputLayer", "config": {"name": given, "batch_shape": [None, 4]}}
    own = {"class_name": kind, "config": {"name": layer, "activation": "relu"}}
    return {"class_name": "Sequential", "config": {"name": model, "layers": [image, own]}}


BAD: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Dense", {"units": "3); import os; (", "use_bias": True}),
    ("Dense", {"units": 10**30}),
    ("Dense", {"units": None}),
    ("Dense", {"units": [3]}),
    ("Activation", {"activation": "__import__('os').abort"}),
    ("LeakyReLU", {"negative_slope": "0.1"}),
    ("LeakyReLU", {"negative_slope": "NaN); x"}),
    ("Dropout", {"rate": "os.abort()"}),
    ("Reshape", {"target_shape": ["os"]}),
    ("Reshape", {"target_shape": 3}),
    ("Rescaling", {"scale": "x", "offset": 1}),
    ("Rescaling", {"scale": [[1.0]], "offset": "y"}),
    ("Permute", {"dims": [1, 1]}),
    ("BatchNormalization", {"epsilon": "abort()"}),
    ("BatchNormalization", {"axis": "x"}),
    ("EinsumDense", {"equation": "os.abort()", "output_shape": [1]}),
    ("RepeatVector", {"n": "x"}),
    ("GaussianNoise", {"stddev": {"a": 1}}),
    ("TimeDistributed", {"layer": {"class_name": "os", "config": 3}}),
    ("Bidirectional", {"layer": "x"}),
    ("LSTM", {"units": 3, "activation": "x'); import os", "cell": 1}),
    ("Softmax", {"axis": "0) or os.abort("}),
    ("UnitNormalization", {"axis": ["x"]}),
    ("Masking", {"mask_value": "1) or os.abort("}),
    ("ReLU", {"max_value": "x", "threshold": {}}),
)


@pytest.mark.parametrize(("kind", "config"), BAD, ids=range(len(BAD)))
def test_an_option_that_is_none_is_refused_or_is_data(kind: str, config: dict[str, Any]) -> None:
    image = {"class_name": "InputLayer", "config": {"name": "i", "batch_shape": [None, 4, 4]}}
    own = {"class_name": kind, "config": {"name": "l", **config}}
    model = {"class_name": "Sequential", "config": {"name": "m", "layers": [image, own]}}
    try:
        text = source(_read(json.loads(json.dumps(model))))
    except (UnsupportedError, MalformedError):
        return
    assert "abort" not in _names(ast.parse(text))
    assert "os" not in _names(ast.parse(text))


def test_an_injection_would_be_found() -> None:
    """Without this, the tests above could pass because they see nothing."""
    assert "abort" in _names(ast.parse("abort()"))
    assert "os" in _names(ast.parse("x = os.abort()"))


@pytest.mark.parametrize(
    "value", [*HOSTILE, 1, -2.5, 1e-30, True, None, [1, [2.0, "x"]], (1,), float("inf")]
)
def test_a_literal_is_the_value(value: Any) -> None:
    found = eval(literal(value), {"__builtins__": {"float": float}})
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("value", [10**40, object(), {1: 2}, b"x"])
def test_what_has_no_literal_is_refused(value: Any) -> None:
    with pytest.raises(UnsupportedError):
        literal(value)


@pytest.mark.parametrize("text", HOSTILE)
def test_prose_ends_no_docstring(text: str) -> None:
    made = prose(text)
    assert not set(made) & set("\"'\\\n\r\0{}")
    assert len(made) <= 60


def test_a_deep_model_is_no_problem() -> None:
    """A chain of thousands of layers, which recursion would not survive."""
    dense = [
        {"class_name": "Activation", "config": {"name": f"a{n}", "activation": "relu"}}
        for n in range(5000)
    ]
    image = {"class_name": "InputLayer", "config": {"name": "i", "batch_shape": [None, 4]}}
    model = {"class_name": "Sequential", "config": {"name": "m", "layers": [image, *dense]}}
    text = source(_read(model))
    assert text.count("torch.relu") == 5000


def test_source_does_not_change_the_snapshot() -> None:
    read = snapshot("cnn")
    before = copy.deepcopy(dict(read.architecture or {}))
    source(read)
    assert read.architecture == before


def test_keep_flattens_as_keras_does(tmp_path: Path) -> None:
    """The rows stay as they are, and the module puts channels last before it flattens."""
    io = np.load(FIXTURES / "cnn.io.npz")
    made, about = built(snapshot("cnn"), tmp_path, flatten="keep")
    assert "x.permute(0, 2, 3, 1).flatten(1)" in about.source
    assert deviation(ran(made, about, [io["inputs"]])[0], io["outputs"]) < 1e-5


def test_a_single_pixel_is_flattened_without_being_turned() -> None:
    i = keras.Input((4, 4, 3))
    x = L.Flatten()(L.MaxPooling2D(4)(i))
    text = forward(source(kerasport.read(keras.Model(i, L.Dense(2)(x)))))
    assert "permute" not in text


def test_compared_would_find_a_wrong_module(tmp_path: Path) -> None:
    """The twin of every comparison: other weights, another module, a deviation."""
    i = keras.Input((3,))
    model = keras.Model(i, L.Dense(3)(i))
    randomized(model)
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    assert compared(model, [x], tmp_path) < 1e-5
    made, about = built(kerasport.read(model), tmp_path)
    randomized(model, 1)
    assert deviation(ran(made, about, [x])[0], np.asarray(model(x))) > 0.1
