"""Every model file at hand as a PyTorch module: does it run, is it right, is it a good module?

    python tests/benchmarks/files.py                          # the fixtures and the corpus
    python tests/benchmarks/files.py my_model.keras more.h5   # files of yours

Each file that has an architecture is written as a module and run. Where a Keras of today opens the
file, every layer is compared with it, in float64 where float32 leaves the tolerance. The files that
no Keras opens are counted apart: what they computed is known where their outputs are stored beside
them, or where others have ported them, and those rows stand at the end. Then each module is
exported, compiled, cast to bfloat16 and trained for a step, and linters read what was generated.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "convert"), str(ROOT / "tests")]

import h5py  # noqa: E402 the variables above are read when TensorFlow is imported
import numpy as np  # noqa: E402
import torch  # noqa: E402

import kerasport  # noqa: E402
import kerasport.torch  # noqa: E402
from generated import Array, deviation, flat, imported  # noqa: E402
from kerasport.architecture import parse  # noqa: E402
from kerasport.codegen.module import Module, module  # noqa: E402
from kerasport.errors import (  # noqa: E402
    KerasportError,
    UnsupportedError,
    VerificationError,
)
from kerasport.model import Snapshot  # noqa: E402
from kerasport.running import samples  # noqa: E402
from kerasport.running.comparison import in_kerases_order, in_modules_order  # noqa: E402
from kerasport.running.oracle import FORGETS  # noqa: E402

CORPUS = Path(os.environ.get("KERASPORT_CORPUS", "/nonexistent"))
TOLERANCE = 1e-5
CHECKS = ("export", "compile", "bf16", "train")
# What is quantized is a module of its floats, which Keras computes with other rounding.
DEQUANTIZED = ("awq", "float8", "gptq", "int4", "int8")


@dataclass(slots=True)
class Result:
    """What became of one file.

    Attributes:
        name: the file.
        status: `equal`, `runs`, `stubs`, `wrong` or `refused`.
        by: who it was compared with.
        layers: how many layers were compared.
        worst: the largest deviation of them.
        note: why it is refused, or what else is to be said.
        checks: for each check, whether it was passed, or why not.
    """

    name: str
    status: str
    by: str = ""
    layers: int = 0
    worst: float = 0.0
    note: str = ""
    checks: dict[str, str] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether there is nothing to complain of."""
        return self.status != "wrong" and set(self.checks.values()) <= {"ok"}


def files() -> Iterator[Path]:
    """The fixtures and the files of the corpus that hold an architecture."""
    for folder in (ROOT / "fixtures", CORPUS):
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            saved = path.is_dir() and (path / "saved_model.pb").is_file()
            known = path.is_file() and path.suffix in (".keras", ".h5", ".hdf5")
            if saved or (known and "inputs_and_outputs" not in path.name):
                written = kerasport.read(path).architecture
                if written is not None and parse(written) is not None:
                    yield path


def opened(path: Path) -> Snapshot:
    """The model, with plain weights."""
    quantized = any(f".{word}." in path.name for word in DEQUANTIZED)
    return kerasport.read(path, dequantize=quantized, merge_lora=".lora." in path.name)


def tried(path: Path, folder: Path, *, checks: Sequence[str] = CHECKS) -> Result:
    """Write a file as a module, run it and compare it.

    Args:
        path: the file.
        folder: where the module is written.
        checks: what else to do with it.
    """
    try:
        snapshot = opened(path)
        kerasport.write_module(snapshot, folder)
        about = module(snapshot)
    except KerasportError as error:
        return Result(path.name, "refused", note=_first_line(error).removeprefix(f"{path.name} "))
    found = Result(path.name, "runs")
    stubs = [note for note in about.notes if " is a stub" in note]
    if stubs:
        return Result(path.name, "stubs", note=f"{len(stubs)} layers of code that it does not hold")
    try:
        _beside(path, snapshot, folder, found)
    except KerasportError as error:
        return Result(path.name, "wrong", note=_first_line(error))
    for name in checks:
        try:
            CHECK[name](about, folder, inputs(about, snapshot))
            found.checks[name] = "ok"
        except Exception as error:  # whatever PyTorch says is a finding
            found.checks[name] = _first_line(error)[:60]
    return found


def _beside(path: Path, snapshot: Snapshot, folder: Path, found: Result) -> None:
    """Compare with Keras, or run alone where no Keras opens the file."""
    try:
        for dtype in ("f32", "f64"):
            try:
                report = kerasport.verify_run(folder, against=snapshot, dtype=dtype)
                break
            except VerificationError as error:
                if error.report is None:
                    raise
                report = error.report
        found.by, found.layers = report.by.partition(" (")[0], len(report.layers)
        rows = (*report.layers, *report.outputs)
        found.worst = max(min(row.absolute, row.relative) for row in rows)
        found.status = "equal" if report.first is None else "wrong"
        found.note = "in float64" if report.dtype == "f64" else ""
        if report.first is not None:
            # What Keras itself says is no measure then; stored outputs are, below.
            notes = [note for note in report.notes if "rounds what" in note or FORGETS in note]
            found.status = "runs" if notes else "wrong"
            found.note = notes[0] if notes else report.first.path
    except UnsupportedError as error:
        found.note = _first_line(error).removeprefix(f"{path.name}: ")
        about = module(snapshot)
        made = _loaded(folder)
        with torch.no_grad():
            arrays = [y.numpy() for y in flat(made(*inputs(about, snapshot)))]
        if not all(np.isfinite(y).all() for y in arrays):
            found.status, found.note = "wrong", "gives numbers that are not finite"


def inputs(about: Module, snapshot: Snapshot) -> list[torch.Tensor]:
    """Random inputs, as the module takes them."""
    graph = parse(snapshot.architecture or {})
    assert graph is not None
    names = about.given or about.arguments
    known = samples.hints(graph, list(snapshot))
    takes = [
        samples.Input(
            names[place],
            tuple(about.shapes[place] or (None, 8)),
            "int64" if known.get(place, samples.Hint()).entries else "float32",
        )
        for place in range(len(about.inputs))
    ]
    hints = {names[place]: hint for place, hint in known.items()}
    arrays = samples.drawn(takes, hints, seed=0, steps=64, image=(64, 96))
    return [
        torch.from_numpy(in_modules_order(array, order))
        for array, order in zip(arrays, about.inputs, strict=True)
    ]


def _loaded(folder: Path) -> torch.nn.Module:
    with tempfile.TemporaryDirectory() as other:
        python = imported((folder / "model.py").read_text(), Path(other))
        made: torch.nn.Module = python.load(folder / "model.safetensors")
    return made


# -------------------------------------------------------------------------------- a good module


def exported(about: Module, folder: Path, given: Sequence[torch.Tensor]) -> None:
    """`torch.export` gives what the module gives."""
    made = _loaded(folder)
    with torch.no_grad():
        again = torch.export.export(made, tuple(given)).module()
        _same(again(*given), made(*given))


def compiled(about: Module, folder: Path, given: Sequence[torch.Tensor]) -> None:
    """`torch.compile` follows every line of it."""
    made = _loaded(folder)
    torch._dynamo.reset()
    with torch.no_grad():
        _same(torch.compile(made, backend="eager")(*given), made(*given))


def cast(about: Module, folder: Path, given: Sequence[torch.Tensor]) -> None:
    """It computes in bfloat16 after `.to(bfloat16)`."""
    made = _loaded(folder).to(torch.bfloat16)
    half = [x.bfloat16() if x.is_floating_point() else x for x in given]
    with torch.no_grad():
        dtypes = {y.dtype for y in flat(made(*half)) if y.is_floating_point()}
    assert dtypes <= {torch.bfloat16}, f"gives {dtypes}"


def trained(about: Module, folder: Path, given: Sequence[torch.Tensor]) -> None:
    """A step of training changes its weights."""
    made = _loaded(folder).train()
    parameters = [p for p in made.parameters() if p.requires_grad]
    if not parameters:
        return
    before = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    outputs = [y.float() for y in flat(made(*given))]
    weighed = [(y * torch.rand_like(y)).sum() for y in outputs]  # a softmax always sums to one
    loss = sum(weighed, torch.zeros(()))
    loss.backward()
    optimizer.step()
    changed = any(not torch.equal(p, old) for p, old in zip(parameters, before, strict=True))
    assert changed, "no weight has changed"


def _same(found: Any, wanted: Any) -> None:
    for a, b in zip(flat(found), flat(wanted), strict=True):
        assert deviation(a.numpy(), b.numpy()) < TOLERANCE, "gives something else"


CHECK: Mapping[str, Callable[[Module, Path, Sequence[torch.Tensor]], None]] = {
    "export": exported,
    "compile": compiled,
    "bf16": cast,
    "train": trained,
}
LINTERS = (
    ("ruff", "format", "--isolated", "--line-length=100", "--diff", "."),
    ("ruff", "check", "--isolated", "--line-length=100", "--select=E,F,W,I,B,UP,SIM,RUF", "."),
    ("mypy", "--strict", "--config-file=", "."),
)


def linted(sources: Mapping[str, str]) -> dict[str, str]:
    """What each linter says of the generated files; nothing where it has nothing to say."""
    said: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in sources.items():
            Path(folder, f"{name}.py").write_text(text)
        for command in LINTERS:
            run = subprocess.run(
                [sys.executable, "-m", *command],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            said[" ".join(command[:2])] = "" if run.returncode == 0 else run.stdout[-2000:]
    return said


# ------------------------------------------------------- what files computed that no Keras opens


def stored() -> Iterator[tuple[str, float]]:
    """Old models against the outputs that the Keras of then has left beside them."""
    for path in sorted(CORPUS.rglob("*_inputs_and_outputs.h5")):
        model = path.with_name(path.name.replace("_inputs_and_outputs", "_model"))
        with h5py.File(path) as file:
            if not model.exists() or "predictions" not in file:
                continue
            given, wanted = (_arrays(file[key]) for key in ("inputs", "predictions"))
        about = module(kerasport.read(model))
        made = kerasport.torch.load_module(model)
        tensors = [
            torch.from_numpy(in_modules_order(x.astype(np.float32), order))
            for x, order in zip(given, about.inputs, strict=True)
        ]
        with torch.no_grad():
            found = [y.numpy() for y in flat(made(*tensors))]
        turned = [in_kerases_order(y, order=o) for y, o in zip(found, about.outputs, strict=True)]
        yield model.name, max(deviation(a, b) for a, b in zip(turned, wanted, strict=True))


def _arrays(item: Any) -> list[Array]:
    return [item[()]] if isinstance(item, h5py.Dataset) else [item[key][()] for key in sorted(item)]


def recorded() -> Iterator[tuple[str, float]]:
    """Fixtures against the outputs that were recorded when they were trained."""
    fixtures = ROOT / "fixtures"
    for path in sorted(fixtures.glob("*.savedmodel")):
        io = path.with_name(path.name.replace(".savedmodel", ".io.npz"))
        yield path.name, _by_vectors(path, io)
    io = fixtures / "tokens.io.npz"
    with np.load(io) as held, tempfile.TemporaryDirectory() as folder:
        vectors = Path(folder, "vectors.npz")
        np.savez(vectors, inputs=held["inputs"], outputs=held["lora"])
        for path in sorted(fixtures.glob("tokens.lora.*")):
            yield path.name, _by_vectors(path, vectors)


def _by_vectors(path: Path, vectors: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        kerasport.write_module(opened(path), folder, vectors=vectors)
        report = kerasport.verify_run(folder, tolerance=float("inf"))
    return max(min(row.absolute, row.relative) for row in report.outputs)


def ported() -> Iterator[tuple[str, float]]:
    """Models against what others have ported them to."""
    resnet = CORPUS / "mlperf_tiny"
    if resnet.is_dir():
        port = resnet / "port_tflite" / "pretrainedResnet.tflite"
        yield "mlperf_tiny, its tflite", _by_vectors(resnet / "pretrainedResnet.h5", port)
    if (CORPUS / "dtln").is_dir():
        import dtln_port

        yield "dtln, its PyTorch port", dtln_port.deviation_from_port(CORPUS / "dtln")
        yield (
            "dtln, its SavedModel run by TensorFlow",
            dtln_port.deviation_from_graph(CORPUS / "dtln"),
        )


# ------------------------------------------------------------------------------------ the table


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0]


def main() -> int:
    """Print the table; one if a module is wrong."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="model files; fixtures and corpus")
    arguments = parser.parse_args()
    results: list[Result] = []
    sources: dict[str, str] = {}
    print(f"{'file':42} {'':7} {'by':16} {'layers':>6} {'worst':>8}  {'  '.join(CHECKS)}")
    for path in arguments.files or files():
        with tempfile.TemporaryDirectory() as folder:
            found = tried(path, Path(folder))
            source = Path(folder, "model.py")
            if source.is_file():
                sources[f"file_{len(results)}"] = source.read_text()
        results.append(found)
        checks = "  ".join(found.checks.get(name, "").ljust(len(name)) for name in CHECKS)
        print(
            f"{found.name:42} {found.status:7} {found.by:16} {found.layers or '':>6} "
            f"{f'{found.worst:.1e}' if found.layers else '':>8}  {checks}  {found.note[:100]}",
            flush=True,
        )
    wrong = [found for found in results if not found.good]
    counts = Counter(found.status for found in results)
    print(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
    for command, said in linted(sources).items():
        print(f"{command}: {said or f'nothing to say of {len(sources)} files'}")
        wrong += [Result(command, "wrong")] if said else []
    for name, worst in (*recorded(), *stored(), *ported()) if not arguments.files else ():
        print(f"{name:42} {worst:8.1e}")
        wrong += [Result(name, "wrong")] if worst >= TOLERANCE else []
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
