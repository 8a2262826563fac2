"""Whole processes, measured in turn.

Contestants run one after the other, round by round, so that a machine that slows down slows all of
them down; what is compared are medians. Each starts without its target, since a file that is
overwritten costs more than a new one. Time and memory are taken in runs of their own: whoever
watches memory takes time away. Everybody's modules are compiled beforehand, as they are where they
were installed.
"""

from __future__ import annotations

import atexit
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

Command = Sequence[str]


@dataclass
class Runs:
    """What one contestant did.

    Attributes:
        seconds: of each run, Python's start included.
        cpu: the processors' seconds of each run.
        anonymous: the most memory that was the process's own.
        mapped: the most memory that belonged to files.
        failed: what it said when it failed.
    """

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    anonymous: int = 0
    mapped: int = 0
    failed: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else float("nan")

    @property
    def cpu_median(self) -> float:
        return statistics.median(self.cpu) if self.cpu else float("nan")


def together(
    commands: Mapping[str, Command],
    *,
    targets: Sequence[Path] = (),
    runs: int = 5,
    cold: Path | None = None,
    memory: Collection[str] = (),
    slow: Collection[str] = (),
) -> dict[str, Runs]:
    """Run the contestants in turn.

    Args:
        commands: by name.
        targets: files that are removed before every run.
        runs: how many rounds count; one more warms up, unless the cache is to be cold.
        cold: a file that is put out of the cache before every run.
        memory: whose memory to watch, in one more run.
        slow: who runs in the first two rounds that count, and not in the others.
    """
    results = {name: Runs() for name in commands}
    for number in range(runs + (cold is None)):
        for name, command in commands.items():
            if results[name].failed or (name in slow and number > 2):
                continue
            _clear(targets)
            if cold is not None:
                _forget(cold)
            seconds, cpu, failed = _run(command)
            results[name].failed = failed
            if not failed and (number or cold is not None):
                results[name].seconds.append(seconds)
                results[name].cpu.append(cpu)
    for name in memory:
        _clear(targets)
        results[name].anonymous, results[name].mapped = _watched(commands[name])
    _clear(targets)
    return results


def _clear(targets: Sequence[Path]) -> None:
    for target in targets:
        for path in target.parent.glob(f"{target.name}*"):
            path.unlink()


def _forget(path: Path) -> None:
    """Put a file out of the cache."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@cache
def _compiled() -> str:
    """Where modules are kept compiled, until the end.

    A test environment often forbids Python to keep them; nobody's installation does.
    """
    folder = tempfile.mkdtemp(prefix="kerasport-compiled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def surroundings() -> dict[str, str]:
    """The environment of every contestant."""
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONPYCACHEPREFIX": _compiled(),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def _start(command: Command) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=surroundings()
    )


def _run(command: Command) -> tuple[float, float, str]:
    start = time.perf_counter()
    with _start(command) as process:
        assert process.stderr is not None
        said = process.stderr.read().decode(errors="replace").strip().splitlines()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    failed = (said[-1] if said else "failed") if process.returncode else ""
    return seconds, usage.ru_utime + usage.ru_stime, failed


def _watched(command: Command) -> tuple[int, int]:
    """The largest anonymous and mapped memory of a process, looked at every few milliseconds."""
    anonymous = mapped = 0
    with _start(command) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            with suppress(OSError):
                for line in status.read_text().splitlines():
                    if line.startswith("RssAnon"):
                        anonymous = max(anonymous, int(line.split()[1]) << 10)
                    if line.startswith("RssFile"):
                        mapped = max(mapped, int(line.split()[1]) << 10)
            time.sleep(0.002)
    return anonymous, mapped
