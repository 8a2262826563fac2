"""Inputs and outputs that are stored with a module, to prove it where there is no Keras.

Made by Keras, by ONNX Runtime or TFLite from a port that others have made, or brought along. They
are stored as the module takes and gives them, channels first: whoever has the folder needs nothing
else to try it. The bytes are the same for the same numbers.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kerasport.codegen.module import Module
from kerasport.errors import MissingExtraError, UnsupportedError, UsageError
from kerasport.model import Snapshot
from kerasport.running import oracle, samples
from kerasport.running.beside import asked, drawings, expected, settled
from kerasport.running.comparison import RunReport, in_modules_order, row
from kerasport.running.python import Python
from kerasport.running.samples import Input

__all__ = ["FILE", "Vectors", "by_keras", "by_others", "is_ours", "loaded", "ran"]

Array = npt.NDArray[Any]
FILE: Final = "vectors.npz"
MADE: Final = "made"
"""The member that says who made the others, and that they are in the module's order."""
_DATE: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, eq=False, slots=True)
class Vectors:
    """What a module is to give for what.

    Attributes:
        inputs: what it takes, by the name of the argument, in its order of axes.
        outputs: what it should give, in its order of axes.
        by: who computed them.
    """

    inputs: Mapping[str, Array]
    outputs: tuple[Array, ...]
    by: str

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {list(x.shape)}" for name, x in self.inputs.items())
        return f"what the module should give for {shapes}, by {self.by}"

    def packed(self) -> bytes:
        """The content of a `.npz` file, the same bytes for the same numbers."""
        made = json.dumps({"by": self.by}, sort_keys=True).encode()
        arrays = {MADE: np.frombuffer(made, np.uint8)}
        arrays |= {f"inputs.{name}": array for name, array in self.inputs.items()}
        arrays |= {f"outputs.{n}": array for n, array in enumerate(self.outputs)}
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                member = io.BytesIO()
                np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0))
                entry = zipfile.ZipInfo(f"{name}.npy", _DATE)
                entry.create_system = 3  # on every machine
                archive.writestr(entry, member.getvalue())
        return content.getvalue()


# ------------------------------------------------------------------------------------- reading


def loaded(path: Path) -> Vectors:
    """The vectors in a module's folder.

    Raises:
        UsageError: the file cannot be read, or kerasport has not written it.
    """
    held = samples.stored(path)
    if MADE not in held:
        raise UsageError(
            f"{path}: expected what kerasport convert --vectors writes, found other arrays. "
            "Convert with --vectors FILE.npz to take them"
        )
    return _ours(held)


def is_ours(path: Path) -> bool:
    """Whether kerasport has written these vectors."""
    try:
        return MADE in samples.stored(path)
    except UsageError:
        return False


def _ours(held: Mapping[str, Array]) -> Vectors:
    try:
        by = str(json.loads(held[MADE].tobytes())["by"])
    except (ValueError, KeyError, TypeError):
        by = "an unknown hand"
    inputs = {n.removeprefix("inputs."): x for n, x in held.items() if n.startswith("inputs.")}
    outputs = {n.removeprefix("outputs."): x for n, x in held.items() if n.startswith("outputs.")}
    return Vectors(inputs, tuple(outputs.values()), by)


# -------------------------------------------------------------------------------------- making


def by_keras(about: Module, snapshot: Snapshot, *, live: Any = None, seed: int = 0) -> Vectors:
    """What Keras gives for random inputs, computed in float64 where that can be.

    Inputs are numbers that float32 has: a module may take them in either, and where float32 leaves
    the tolerance, float64 tells whether that is rounding.

    Args:
        about: the module.
        snapshot: the model that it is made from.
        live: the model itself, where it is one.
        seed: of the inputs.
    """
    model = oracle.opened(snapshot, live)
    try:
        model.cast("f64")
    except UnsupportedError:  # a class that cannot be built again
        model.cast("f32")
    takes, arrays, records = asked(model, snapshot, inputs=None, seed=seed, single=not about.double)
    if not about.double:
        arrays = [x.astype("f4") if x.dtype == np.float64 else x for x in arrays]
    passed = {one.name: array for one, array in zip(takes, arrays, strict=True)}
    outputs = expected(about, records, passed)
    return _turned(about, _by_argument(about, passed), outputs, by=model.by)


def by_others(about: Module, snapshot: Snapshot, path: Path, *, seed: int = 0) -> Vectors:
    """What a port gives for random inputs, or the arrays in a `.npz` file.

    Args:
        about: the module.
        snapshot: the model that it is made from.
        path: a file `.onnx`, `.tflite` or `.npz`.
        seed: of the inputs.

    Raises:
        MissingExtraError: what runs the port is not installed.
        UnsupportedError: the port is quantized, or does not run.
        UsageError: the file is none of these, or does not fit the model.
    """
    suffix = path.suffix.lower()
    if suffix not in (".npz", ".onnx", ".tflite"):
        raise UsageError(
            f"{path}: expected a port of the model (.onnx, .tflite) or stored arrays (.npz)"
        )
    if not path.is_file():
        raise UsageError(f"{path}: expected a readable file, found none")
    if suffix == ".npz":
        held = samples.stored(path)
        if MADE in held:
            made = _ours(held)
            if len(made.inputs) != len(about.inputs) or len(made.outputs) != len(about.outputs):
                raise UsageError(f"{path}: was made for a module of other inputs and outputs")
            return made
        return _brought(about, held, path)
    with _foreign(path):
        port = _Onnx(path) if suffix == ".onnx" else _TFLite(path)
    takes = _matched(about, port.takes, where=path)
    arrays: list[Array] = []
    refused: UnsupportedError | None = None
    for arrays in drawings(snapshot, takes, seed=seed):
        try:
            with _foreign(path):
                results = port.run(arrays)
            break
        except UnsupportedError as error:
            refused = refused or error
    else:
        assert refused is not None
        raise refused
    if len(results) != len(about.outputs):
        raise UsageError(
            f"{path}: gives {len(results)} outputs, and the model {len(about.outputs)}: expected a "
            "port of this model"
        )
    passed = {one.name: array for one, array in zip(takes, arrays, strict=True)}
    outputs = _in_order(about, port.gives, results)
    return _turned(about, _by_argument(about, passed), outputs, by=f"{port.by} from {path.name}")


def _by_argument(about: Module, passed: Mapping[str, Array]) -> list[Array]:
    """The inputs in the order of the module's arguments."""
    if set(about.given) == set(passed):
        return [passed[name] for name in about.given]
    return list(passed.values())


def _turned(
    about: Module, inputs: Sequence[Array], outputs: Sequence[Array], *, by: str
) -> Vectors:
    """Arrays of Keras's order as the module takes and gives them."""
    return Vectors(
        {
            name: in_modules_order(array, order)
            for name, array, order in zip(about.arguments, inputs, about.inputs, strict=True)
        },
        tuple(
            in_modules_order(array, order)
            for array, order in zip(outputs, about.outputs, strict=True)
        ),
        by,
    )


def _brought(about: Module, held: Mapping[str, Array], path: Path) -> Vectors:
    """A user's own arrays, as Keras takes and gives them."""
    given = about.given or about.arguments
    floats = np.float64 if about.double else np.float32
    inputs = _named(held, "inputs", given, path)
    outputs = _named(held, "outputs", [ref.layer for ref in about.results], path)
    return _turned(
        about,
        [x.astype(floats) if x.dtype.kind == "f" else x for x in inputs],
        outputs,
        by=path.name,
    )


def _named(held: Mapping[str, Array], word: str, names: Sequence[str], path: Path) -> list[Array]:
    """The arrays `inputs`, `inputs.0`, `inputs.NAME` of a file, in the order of the names."""
    found: list[Array] = []
    for number, name in enumerate(names):
        keys = [f"{word}.{name}", f"{word}.{number}", *([word] if len(names) == 1 else [])]
        key = next((key for key in keys if key in held), None)
        if key is None:
            raise UsageError(
                f"{path}: expected an array {' or '.join(keys)}, in Keras's order of axes, found "
                f"{', '.join(sorted(held)) or 'none'}"
            )
        found.append(held[key])
    return found


# --------------------------------------------------------------------------------------- ports


class _Onnx:
    """A model in ONNX, run by ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        if importlib.util.find_spec("onnxruntime") is None:
            raise MissingExtraError("onnxruntime", "run", "running an ONNX model")
        import onnxruntime

        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.by = f"onnxruntime {onnxruntime.__version__}"
        self.takes = [
            Input(
                one.name,
                tuple(size if isinstance(size, int) else None for size in one.shape),
                _ONNX.get(one.type, one.type),
            )
            for one in self.session.get_inputs()
        ]
        self.gives = [one.name for one in self.session.get_outputs()]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        fed = {one.name: array for one, array in zip(self.takes, arrays, strict=True)}
        return [np.asarray(array) for array in self.session.run(None, fed)]


_ONNX: Final[Mapping[str, str]] = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class _TFLite:
    """A model in TFLite, run by whichever interpreter there is."""

    def __init__(self, path: Path) -> None:
        module, self.by = _interpreter()
        self.interpreter = module(str(path))
        details = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        for one in (*details[0], *details[1]):
            if one["quantization"][0]:
                raise UnsupportedError(
                    f"{path}: {one['name']} is quantized, and tells nothing of the module's last "
                    "digits. Take a port in float32"
                )
        self.places = [one["index"] for one in details[0]]
        self.takes = [
            Input(
                one["name"],
                tuple(None if n < 0 else int(n) for n in one["shape_signature"]),
                np.dtype(one["dtype"]).name,
            )
            for one in details[0]
        ]
        self.results = [one["index"] for one in details[1]]
        self.gives = [one["name"] for one in details[1]]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        for place, array in zip(self.places, arrays, strict=True):
            self.interpreter.resize_tensor_input(place, array.shape)
        self.interpreter.allocate_tensors()
        for place, array in zip(self.places, arrays, strict=True):
            self.interpreter.set_tensor(place, array)
        self.interpreter.invoke()
        return [np.array(self.interpreter.get_tensor(place)) for place in self.results]


def _interpreter() -> tuple[Callable[[str], Any], str]:
    for name in ("ai_edge_litert", "tflite_runtime"):
        if importlib.util.find_spec(name) is not None:
            module = importlib.import_module(f"{name}.interpreter")
            version = getattr(importlib.import_module(name), "__version__", "")
            return module.Interpreter, f"{name} {version}".rstrip()
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingExtraError("tensorflow", "run", "running a TFLite model")
    import tensorflow

    return tensorflow.lite.Interpreter, f"TFLite of tensorflow {tensorflow.__version__}"


@contextlib.contextmanager
def _foreign(path: Path) -> Iterator[None]:
    """Tell what a runtime has to say of a file as one error."""
    try:
        with warnings.catch_warnings(), oracle.hushed():
            warnings.simplefilter("ignore")
            yield
    except (MissingExtraError, UnsupportedError, UsageError):
        raise
    except Exception as error:  # runtimes have their own words for a file that is broken
        said = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
        raise UnsupportedError(
            f"{path}: cannot be run: {type(error).__name__}: {' '.join(said[:2])[:300]}"
        ) from error


def _matched(about: Module, takes: Sequence[Input], *, where: Path) -> list[Input]:
    """The port's inputs under the names that Keras has for them.

    Ports name an input as its layer, or with words around that; else its place says which it is.
    """
    names = about.given or about.arguments
    if len(takes) != len(names):
        raise UsageError(
            f"{where}: takes {len(takes)} inputs, and the model {len(names)}: expected a port of "
            "this model"
        )
    order = _alike(names, [one.name for one in takes])
    return [
        Input(names[place], one.shape, one.dtype) for place, one in zip(order, takes, strict=True)
    ]


def _in_order(about: Module, gives: Sequence[str], results: Sequence[Array]) -> list[Array]:
    order = _alike([ref.layer for ref in about.results], gives)
    placed = dict(zip(order, results, strict=True))
    return [placed[number] for number in range(len(results))]


def _alike(names: Sequence[str], others: Sequence[str]) -> list[int]:
    """For each of the port's names, the place of ours that it stands for."""
    found: list[int] = []
    for other in others:
        mine = [n for n, name in enumerate(names) if name == other] or [
            n for n, name in enumerate(names) if name in other
        ]
        found.append(mine[0] if len(mine) == 1 else -1)
    return found if sorted(found) == list(range(len(names))) else list(range(len(names)))


# ------------------------------------------------------------------------------------- running


def ran(folder: Path, *, dtype: str | None, tolerance: float) -> RunReport:
    """Run a module on the vectors in its folder.

    Args:
        folder: where `model.py` is.
        dtype: what it is to compute in; as the vectors say where None.
        tolerance: the largest deviation, absolute or relative to an output's scale.

    Raises:
        UnsupportedError: the module has stubs.
        UsageError: there are no vectors.
        VerificationError: the module does not run.
    """
    path = folder / FILE
    if not path.is_file():
        raise UsageError(
            f"{path}: expected stored inputs and outputs, found none. Compare with the model: "
            "--against SRC, or convert with --vectors"
        )
    made = loaded(path)
    wide = any(array.dtype == np.float64 for array in made.inputs.values())
    report = _ran(folder, made, dtype or ("f64" if wide else "f32"), tolerance)
    exact = any(array.dtype == np.float64 for array in made.outputs)
    if dtype is None and exact and report.dtype == "f32" and report.first is not None:
        return settled(report, _ran(folder, made, "f64", tolerance))
    return report


def _ran(folder: Path, made: Vectors, dtype: str, tolerance: float) -> RunReport:
    double = dtype == "f64"
    python = Python.opened(folder / "model.py", double=double)
    results = python.run(list(made.inputs.values()), double=double)
    rows = [
        row(
            "output" if len(results) == 1 else f"output {number + 1}",
            "",
            found=found,
            wanted=wanted,
            tolerance=tolerance,
        )
        for number, (found, wanted) in enumerate(zip(results, made.outputs, strict=False))
    ]
    if len(results) != len(made.outputs):
        raise UsageError(
            f"{folder / FILE}: holds {len(made.outputs)} outputs, and the module gives "
            f"{len(results)}: they are not of one model"
        )
    return RunReport(
        FILE,
        f"{folder.resolve().name}/",
        made.by,
        dtype,
        tolerance,
        None,
        {name: array.shape for name, array in made.inputs.items()},
        (),
        tuple(rows),
    )
