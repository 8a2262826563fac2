"""The table of targets, measured: what kerasport takes against `cp` and against other scripts.

    cd tests && python -m benchmarks                    # the table; about ten minutes
    cd tests && python -m benchmarks --readme           # and into the README with it
    cd tests && python -m benchmarks --only memory start
    cd tests && python -m benchmarks --only conversion shapes --sizes 5 100 --json results.json

Prints a line for each target with what was measured, the ratio that counts, and whether it is
reached. Nothing is asserted: a busy machine proves nothing, and what must hold on any machine is
counted in `test_speed.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import contestants, models
from benchmarks.contestants import ours, script
from benchmarks.measuring import Runs, surroundings, together

MB = 1_000_000
README = Path(__file__).parents[2] / "README.md"
MEASURED = re.compile(r"(<!-- measured: speed -->\n)(.*?)(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Verdict:
    """One target of the table.

    Attributes:
        what: what is measured.
        target: the ratio or bound that it should reach, in words.
        value: what it reached.
        bound: what it should reach.
        at_most: whether smaller is better.
        detail: the measurements behind it.
    """

    what: str
    target: str
    value: float
    bound: float
    at_most: bool
    detail: str

    @property
    def reached(self) -> bool:
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    @property
    def word(self) -> str:
        if self.bound in (0, float("inf")):
            return "—"
        return "yes" if self.reached else "**no**"


@dataclass(frozen=True)
class Bench:
    """What every measurement needs: where to work, and how often."""

    folder: Path
    runs: int
    sizes: tuple[int, ...]
    measurements: list[dict[str, Any]]

    def race(self, label: str, commands: Mapping[str, Any], **options: Any) -> dict[str, Runs]:
        """Run contestants in turn, and keep what they did."""
        results = together(
            commands, targets=[self.target], runs=options.pop("runs", self.runs), **options
        )
        for name, runs in results.items():
            self.measurements.append(
                {
                    "race": label,
                    "contestant": name,
                    "seconds": round(runs.median, 4),
                    "cpu seconds": round(runs.cpu_median, 4),
                    "runs": [round(seconds, 4) for seconds in runs.seconds],
                    "anonymous MB": round(runs.anonymous / MB),
                    "mapped MB": round(runs.mapped / MB),
                    "failed": runs.failed,
                }
            )
            print(
                f"  {label}: {name}: {runs.median:.3f} s ({runs.cpu_median:.3f} s of cpu)"
                f"{f', failed: {runs.failed}' if runs.failed else ''}",
                file=sys.stderr,
                flush=True,
            )
        return results

    @property
    def target(self) -> Path:
        return self.folder / "target"

    def out(self, suffix: str) -> Path:
        return self.target.with_name(f"target{suffix}")

    def source(self, model: models.Model, name: str) -> Path:
        return models.write(model, self.folder / name)


def conversion(bench: Bench) -> Iterator[Verdict]:
    """Against the scripts that people write, from each container."""
    for size in (size for size in bench.sizes if size <= 1000):
        for suffix in (".keras", ".h5"):
            source = bench.source(models.convolutions(size * MB), f"model{size}{suffix}")
            out = bench.out(".safetensors")
            label = f"{size} MB {suffix} to safetensors"
            found = bench.race(
                label,
                {
                    "cp": ["cp", str(source), str(bench.out(".copy"))],
                    "kerasport": ours(source, out),
                    "kerasport, keras layout": ours(source, out, "keras"),
                    "clever script": script(contestants.CLEVER, source, out),
                    "usual script": script(contestants.USUAL, source, out),
                },
                memory=["kerasport", "clever script", "usual script"],
                slow=["usual script"],
            )
            mine = found["kerasport"]
            for name, bound in (("usual script", 20), ("clever script", 3)):
                ratio = found[name].median / mine.median
                held = f"{found[name].anonymous / MB:.0f} MB of memory"
                yield Verdict(
                    f"{label}, torch layout",
                    f"{bound} × faster than the {name}" if size >= 500 else "no target",
                    ratio,
                    bound if size >= 500 else 0,
                    False,
                    f"{mine.median:.2f} s and {mine.anonymous / MB:.0f} MB of memory, {name} "
                    f"{found[name].median:.2f} s and {held}, cp {found['cp'].median:.2f} s",
                )
            source.unlink()


def copying(bench: Bench) -> Iterator[Verdict]:
    """Against `cp`, where Python's start no longer counts."""
    for size in (size for size in bench.sizes if size >= 2000):
        source = bench.source(models.convolutions(size * MB), f"model{size}.keras")
        out = bench.out(".safetensors")
        commands: dict[str, Any] = {"cp": ["cp", str(source), str(bench.out(".copy"))]}
        for to in ("torch", "keras"):
            commands[to] = ours(source, out, to)
            less = (contestants.BARE, source, out, to)
            commands[f"{to}, without hashes"] = script(*less, "read")
            commands[f"{to}, without hashes, not read again"] = script(*less, "unread")
        found = bench.race(f"{size} MB", commands)
        cp = found["cp"].median
        for to, bound in (("torch", 1.5), ("keras", 1.15)):
            bare_name = f"{to}, without hashes"
            bare, unread = found[bare_name], found[f"{bare_name}, not read again"]
            for name in (to, bare_name):
                yield Verdict(
                    f"{size} MB .keras to safetensors, {name}",
                    f"within {bound} × of cp",
                    found[name].median / cp,
                    bound,
                    True,
                    f"{found[name].median:.2f} s, cp {cp:.2f} s"
                    + (
                        f"; of those to read again {found[name].median - unread.median:.2f} s"
                        if name == bare_name
                        else f"; of those for hashes {found[to].median - bare.median:.2f} s"
                    ),
                )
        if size == min(size for size in bench.sizes if size >= 2000):
            cold = bench.race(
                f"{size} MB, cold cache",
                {name: commands[name] for name in ("cp", "torch", "keras")},
                runs=min(2, bench.runs),
                cold=source,
            )
            yield Verdict(
                f"{size} MB, cold cache, torch layout",
                "no target; × of cp",
                cold["torch"].median / cold["cp"].median,
                float("inf"),
                True,
                f"{cold['torch'].median:.2f} s, cp {cold['cp'].median:.2f} s",
            )
        source.unlink()


def memory(bench: Bench) -> Iterator[Verdict]:
    """Anonymous memory above that of the import, for shapes that are hard on it."""
    size = max(bench.sizes) * MB
    alone = {"import": script("import kerasport.api, h5py, blake3")}
    start = together(alone, runs=1, memory=alone)["import"].anonymous
    makers: Mapping[str, Callable[[int], models.Model]] = {
        "convolutions": models.convolutions,
        "one matrix": models.one_matrix,
        "embedding": models.embedding,
    }
    for name, make in makers.items():
        source = bench.source(make(size), "memory.keras")
        found = together(
            {"ours": ours(source, bench.out(".safetensors"))},
            targets=[bench.target],
            runs=1,
            memory=["ours"],
        )["ours"]
        yield Verdict(
            f"anonymous memory above import, {size // MB} MB, {name}",
            "under 150 MB",
            (found.anonymous - start) / MB,
            150,
            True,
            f"{found.mapped / MB:.0f} MB mapped, which the system takes back as it needs",
        )
        source.unlink()


def kernel(bench: Bench) -> Iterator[Verdict]:
    """Permuting in memory, on one thread.

    Once as people call it, where each makes room for the result, which costs PyTorch more than the
    work; and once into room that is there, which tells what the copies themselves cost.
    """
    import torch

    from kerasport import relayout
    from kerasport.layout import Layout, Part, derive
    from kerasport.tiles import fill

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    cases = [
        ("f32 4096 × 4096", (4096, 4096), "in out", "out in", np.float32, "torch", 0.9),
        ("f32 25088 × 1300", (25088, 1300), "in out", "out in", np.float32, "torch", 0.9),
        ("HWIO to OIHW 3·3·1024·1024", (3, 3, 1024, 1024), "kh kw in out", "out in kh kw",
         np.float32, "torch", 2),
        ("f16 4096 × 4096", (4096, 4096), "in out", "out in", np.float16, "numpy", 5),
    ]  # fmt: skip
    for name, shape, before, after, dtype, judge, bound in cases:
        array = rng.standard_normal(shape, dtype=np.float32).astype(dtype)
        order = tuple(before.split().index(word) for word in after.split())
        tensor = torch.from_numpy(array).permute(order)
        room = torch.zeros(tensor.shape, dtype=tensor.dtype)
        sizes = dict(zip(before.split(), shape, strict=True))
        copies, _ = derive([Part(Layout.parse(before))], Part(Layout.parse(after)), sizes)
        flat = room.numpy().reshape(-1)

        runs: dict[str, Callable[[], object]] = {
            "kerasport": partial(relayout, array, before, after),
            "torch": tensor.contiguous,
            "numpy": partial(np.ascontiguousarray, array.transpose(order)),
            "kerasport, room is there": partial(fill, flat, copies, [array.reshape(-1)]),
            "torch, room is there": partial(room.copy_, tensor),
            "numpy, room is there": partial(np.copyto, room.numpy(), array.transpose(order)),
        }
        times: dict[str, list[float]] = {key: [] for key in runs}
        for _ in range(max(7, bench.runs) + 1):
            for key, run in runs.items():
                started = time.thread_time()
                run()
                times[key].append(time.thread_time() - started)
        speeds = {
            key: array.nbytes / statistics.median(taken[1:]) / 1e9 for key, taken in times.items()
        }
        bench.measurements.append({"race": f"permuting {name}", "GB/s": speeds})
        for where in ("", ", room is there"):
            ran = (f"{who}{where}" for who in ("kerasport", "torch", "numpy"))
            yield Verdict(
                f"permuting in memory, {name}{where}",
                f"at least {bound} × {judge}",
                speeds[f"kerasport{where}"] / speeds[f"{judge}{where}"],
                bound,
                False,
                ", ".join(f"{who.partition(',')[0]} {speeds[who]:.2f}" for who in ran) + " GB/s",
            )


def tensors(bench: Bench) -> Iterator[Verdict]:
    """100,000 tensors of a few bytes: what each costs, and that it costs no more than before."""
    costs: dict[int, float] = {}
    for count in (10_000, 100_000):
        source = bench.source(models.tiny(count), f"tiny{count}.keras")
        out = bench.out(".safetensors")
        found = bench.race(
            f"{count:,} tensors",
            {
                "kerasport": ours(source, out),
                "clever script": script(contestants.CLEVER, source, out),
            },
            runs=min(3 if count < 50_000 else 1, bench.runs),
            # Nothing that takes a minute needs to be warmed up.
            cold=source if count >= 50_000 else None,
        )
        costs[count] = found["kerasport"].median / count
        yield Verdict(
            f"{count:,} tiny tensors",
            "at most 3 × the clever script",
            found["kerasport"].median / found["clever script"].median,
            3,
            True,
            f"{costs[count] * 1e6:.0f} µs a tensor, clever script "
            f"{found['clever script'].median / count * 1e6:.0f} µs",
        )
        source.unlink()
    yield Verdict(
        "a tensor among 100,000 against one among 10,000",
        "linear: at most 1.2 ×",
        costs[100_000] / costs[10_000],
        1.2,
        True,
        "",
    )


def start(bench: Bench) -> Iterator[Verdict]:
    """Start-up, and looking into a file."""
    source = bench.source(models.convolutions(550 * MB), "look.keras")
    saved = bench.folder / "saved"
    together({"save": script(contestants.SAVED, saved)}, runs=0)
    python = sys.executable
    found = bench.race(
        "start",
        {
            "python": [python, "-c", "pass"],
            "import numpy": [python, "-c", "import numpy"],
            "--help": [python, "-m", "kerasport", "--help"],
            "import kerasport": [python, "-c", "import kerasport"],
            "its names": [python, "-c", "from kerasport import *"],
            "inspect": [python, "-m", "kerasport", "inspect", str(source)],
            "inspect a SavedModel": [python, "-m", "kerasport", "inspect", str(saved)],
        },
        runs=3 * bench.runs,
        memory=["inspect"],
    )
    source.unlink()
    shutil.rmtree(saved)
    numpy = found["import numpy"].median
    for name, bound in (("--help", 2.5), ("import kerasport", 1.5), ("its names", 2.5)):
        yield Verdict(
            f"start: {name}",
            f"at most {bound} × import numpy",
            found[name].median / numpy,
            bound,
            True,
            f"{found[name].median:.3f} s, import numpy {numpy:.3f} s",
        )
    more = found["inspect"].median - found["--help"].median
    mapped = found["inspect"].mapped / MB
    yield Verdict(
        "inspect of 550 MB, above --help",
        "under 0.25 s",
        more,
        0.25,
        True,
        f"{found['inspect'].median:.3f} s, {mapped:.0f} MB mapped, libraries among them",
    )
    yield Verdict(
        "inspect of a SavedModel of 1.1 GB, above Python's start",
        "under 0.2 s",
        found["inspect a SavedModel"].median - found["python"].median,
        0.2,
        True,
        f"{found['inspect a SavedModel'].median:.3f} s, NumPy alone {numpy:.3f} s",
    )


def columns(bench: Bench) -> Iterator[Verdict]:
    """Parquet and Arrow against pyarrow, which has the columns in memory already."""
    size = 550 if 550 in bench.sizes else min(bench.sizes)
    source = bench.source(models.convolutions(size * MB), "columns.keras")
    for suffix in (".parquet", ".arrow"):
        for to in ("keras", "torch"):
            speeds: dict[str, list[float]] = {"kerasport": [], "pyarrow": []}
            for _ in range(min(3, bench.runs)):
                for who in speeds:
                    out = bench.out(suffix)
                    command = script(contestants.COLUMNS, source, out, to, who)
                    done = subprocess.run(
                        command, check=True, capture_output=True, env=surroundings()
                    )
                    said = json.loads(done.stdout)
                    speeds[who].append(said["bytes"] / said["seconds"] / 1e9)
                    out.unlink()
            mine, theirs = (statistics.median(speeds[who]) for who in ("kerasport", "pyarrow"))
            bench.measurements.append({"race": f"{suffix} {to}", "GB/s": speeds})
            yield Verdict(
                f"{suffix[1:]}, {to} layout",
                "at least pyarrow's throughput",
                mine / theirs,
                1,
                False,
                f"{mine:.2f} GB/s, pyarrow {theirs:.2f} GB/s",
            )
    source.unlink()


def shapes(bench: Bench) -> Iterator[Verdict]:
    """Other kinds of models and other targets, against what does the same."""
    size = 100 * MB
    made: Mapping[str, models.Model] = {
        "matrices": models.matrices(size),
        "one matrix": models.one_matrix(size),
        "embedding": models.embedding(size),
        "recurrent": models.recurrent(size),
        "f16": models.half(models.convolutions, size, "float16"),
        "bf16": models.half(models.convolutions, size, "bfloat16"),
    }
    for name, model in made.items():
        source = bench.source(model, f"{name.replace(' ', '-')}.keras")
        out = bench.out(".safetensors")
        found = bench.race(
            f"100 MB of {name}",
            {
                "kerasport": ours(source, out),
                "clever script": script(contestants.CLEVER, source, out),
            },
        )
        yield _no_slower(f"100 MB of {name}", found, "clever script")
        source.unlink()
    source = bench.source(models.convolutions(size), "targets.keras")
    for suffix, to, rival, text in (
        (".pt", "torch", "torch.save", contestants.TORCH_SAVE),
        (".onnx", "onnx", "model.export", contestants.TF2ONNX),
    ):
        found = bench.race(
            f"100 MB to {suffix}",
            {
                "kerasport": ours(source, bench.out(suffix), to),
                rival: script(text, source, bench.out(suffix)),
            },
            runs=min(3, bench.runs),
        )
        yield _no_slower(f"100 MB to {suffix}", found, rival)
    source.unlink()


def _no_slower(what: str, found: Mapping[str, Runs], rival: str) -> Verdict:
    mine, theirs = found["kerasport"].median, found[rival].median
    detail = f"{mine:.2f} s, {rival} {theirs:.2f} s"
    return Verdict(what, f"no slower than {rival}", theirs / mine, 1, False, detail)


PARTS = {
    part.__name__: part
    for part in (conversion, copying, memory, kernel, tensors, start, columns, shapes)
}
# What the table of targets asks for.
TABLE = [name for name in PARTS if name != "shapes"]


def machine() -> str:
    """What the numbers were taken on."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return (
        f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, "
        f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}"
    )


def table(verdicts: list[Verdict]) -> str:
    """The verdicts as a Markdown table."""
    lines = ["| what | target | measured | reached | how |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {v.what} | {v.target} | {v.value:.2f} | {v.word} | {v.detail} |" for v in verdicts
    ]
    return "\n".join(lines)


def shown(verdicts: list[Verdict], *, loads: tuple[float, float]) -> str:
    """What the README says: the machine and how busy it was, then the table."""
    busy = f"load before and after {loads[0]:.1f}, {loads[1]:.1f}"
    return f"{machine()}; {busy}; warm cache, medians.\n\n{table(verdicts)}\n"


def written(readme: str, measured: str) -> str:
    """The README with other measurements between its marks."""
    new, count = MEASURED.subn(lambda match: f"{match[1]}{measured}{match[3]}", readme)
    assert count == 1, "the README has one place for measurements"
    return new


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[550, 2000], help="in MB")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), default=TABLE)
    parser.add_argument("--json", type=Path, help="write all measurements to this file")
    parser.add_argument("--readme", action="store_true", help="write the table into the README")
    parser.add_argument("--folder", type=Path, help="where the models are made and converted")
    options = parser.parse_args()
    if options.readme and options.only != TABLE:
        parser.error("--readme writes the whole table: leave out --only")
    folder = Path(tempfile.mkdtemp(prefix="kerasport-benchmark-", dir=options.folder))
    free = shutil.disk_usage(folder).free // MB
    sizes = tuple(size for size in options.sizes if 4 * size < free)
    bench = Bench(folder, options.runs, sizes, [])
    verdicts: list[Verdict] = []
    load = os.getloadavg()[0]
    try:
        for name in options.only:
            print(name, file=sys.stderr, flush=True)
            verdicts.extend(PARTS[name](bench))
    finally:
        shutil.rmtree(folder)
        if options.json:
            document = {
                "machine": machine(),
                "load before and after": [load, os.getloadavg()[0]],
                "verdicts": [{**v.__dict__, "reached": v.reached} for v in verdicts],
                "measurements": bench.measurements,
            }
            options.json.write_text(json.dumps(document, indent=2) + "\n")
    print(f"{machine()}; load before and after {load:.1f}, {os.getloadavg()[0]:.1f}\n")
    print(table(verdicts))
    if options.readme:
        loads = (load, os.getloadavg()[0])
        README.write_text(written(README.read_text(), shown(verdicts, loads=loads)))


if __name__ == "__main__":
    main()
