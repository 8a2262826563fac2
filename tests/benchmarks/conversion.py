"""How long a conversion takes, and how much memory, against `cp` and the usual scripts.

    python tests/benchmarks/conversion.py            # 5 MB, 100 MB, 550 MB and 2 GB
    python tests/benchmarks/conversion.py --sizes 5  # megabytes

Each contestant is a whole process, Python's start included, run in turn with the others, so that
a machine that slows down slows all of them down. Times are medians, ratios are of medians.
Anonymous memory is the largest `RssAnon` of the process; pages of a mapped file are not in it,
since the system takes them back when it needs them. The file's pages are in the cache: each source
is read once before. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

USUAL = """
import keras, numpy as np, sys
from safetensors.numpy import save_file
model = keras.saving.load_model(sys.argv[1], compile=False)
tensors = {}
for layer in model.layers:
    for weight in layer.weights:
        array = np.asarray(weight.value)
        axes = {2: (1, 0), 4: (3, 2, 0, 1)}.get(array.ndim)
        turned = array if axes is None else array.transpose(axes)
        tensors[weight.path] = np.ascontiguousarray(turned)
save_file(tensors, sys.argv[2])
"""
CLEVER = """
import h5py, io, numpy as np, sys, zipfile
from safetensors.numpy import save_file
tensors = {}
def keep(name, item):
    if isinstance(item, h5py.Dataset):
        array = item[()]
        axes = {2: (1, 0), 4: (3, 2, 0, 1)}.get(array.ndim)
        turned = array if axes is None else array.transpose(axes)
        tensors[name] = np.ascontiguousarray(turned)
with zipfile.ZipFile(sys.argv[1]) as archive:
    with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(keep)
save_file(tensors, sys.argv[2])
"""
MAKE = """
import keras, numpy as np, sys
from keras import layers
size, path = int(sys.argv[1]) * 1_000_000, sys.argv[2]
channels = 32
while 2 * 4 * 9 * channels**2 * 4 < size:
    channels *= 2
inputs = keras.Input((8, 8, channels))
x = inputs
made = 0
number = 0
while made + 4 * 9 * channels**2 <= size * 0.6:
    x = layers.Conv2D(channels, 3, padding="same", name=f"conv{number}")(x)
    made += 4 * 9 * channels**2
    number += 1
x = layers.GlobalAveragePooling2D()(x)
rest = (size - made) // 4
width = max(1, rest // (2 * channels))
x = layers.Dense(width, name="wide")(x)
x = layers.Dense(channels, name="narrow")(x)
model = keras.Model(inputs, x)
rng = np.random.default_rng(0)
for layer in model.layers:
    layer.set_weights([rng.standard_normal(w.shape, dtype=np.float32) for w in layer.get_weights()])
model.save(path)
"""


@dataclass(frozen=True)
class Run:
    """One run of one process."""

    seconds: float
    anonymous: int
    failed: str = ""


def contestants(source: Path, folder: Path) -> Mapping[str, list[str]]:
    """The commands, by the name that the table shows."""
    python, target = sys.executable, str(folder / "out.safetensors")
    ours = [python, "-m", "kerasport", "convert", str(source), target]
    return {
        "cp": ["cp", str(source), str(folder / "copy")],
        "kerasport, torch layout": [*ours, "--to", "torch"],
        "kerasport, keras layout": [*ours, "--to", "keras"],
        "clever script (h5py, NumPy, save_file)": [python, "-c", CLEVER, str(source), target],
        "usual script (load_model, save_file)": [python, "-c", USUAL, str(source), target],
    }


def measured(command: list[str]) -> Run:
    """Run a process and watch its anonymous memory."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    start = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=errors, env=environment
        )
        anonymous = 0
        while process.poll() is None:
            anonymous = max(anonymous, _anonymous(process.pid))
            time.sleep(0.002)
        seconds = time.perf_counter() - start
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
    return Run(seconds, anonymous, said[-1] if process.returncode and said else "")


def _anonymous(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next(
        (int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon")),
        0,
    )


def rounds(source: Path, folder: Path, runs: int) -> Iterator[dict[str, object]]:
    """Each contestant's medians; ratios are to `cp` and to the usual script."""
    commands = contestants(source, folder)
    results: dict[str, list[Run]] = {name: [] for name in commands}
    source.read_bytes()
    for number in range(runs + 1):
        for name, command in commands.items():
            run = measured(command)
            if number:  # the first round warms up
                results[name].append(run)
    medians = {name: statistics.median(r.seconds for r in runs) for name, runs in results.items()}
    for name, got in results.items():
        yield {
            "megabytes": round(source.stat().st_size / 1e6),
            "contestant": name,
            "seconds": round(medians[name], 3),
            "times cp": round(medians[name] / medians["cp"], 2),
            "faster than usual": round(
                medians["usual script (load_model, save_file)"] / medians[name], 1
            ),
            "anonymous MB": round(max(run.anonymous for run in got) / 1e6),
            "failed": next((run.failed for run in got if run.failed), ""),
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[5, 100, 550, 2000])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    folder = Path(tempfile.mkdtemp(prefix="kerasport-benchmark-"))
    try:
        for size in options.sizes:
            source = folder / f"model{size}.keras"
            subprocess.run(
                [sys.executable, "-c", MAKE, str(size), str(source)],
                check=True,
                capture_output=True,
            )
            rows += rounds(source, folder, options.runs)
            source.unlink()
    finally:
        shutil.rmtree(folder)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if options.json:
        print(json.dumps({"machine": machine, "rows": rows}, indent=2))
        return
    print(machine)
    table = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
