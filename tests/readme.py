"""The blocks of the README and its like: what a reader sees is what the tests have just seen.

The blocks of one are one session, in a folder that holds the fixtures. Each ```console block whose
commands are kerasport's, or look into what it wrote, is run, each ```python block with `>>>` is
executed, and what they print takes the place of what stood there. What differs in rounding alone,
or in another's version, stays as it stood. Tables between `<!-- generated: NAME -->` and
`<!-- end -->` come from the code. `python tests/readme.py --accept` writes today's output into the
documents; read the diff.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = (README, ROOT / "schemas" / "layouts.md")
BLOCK = re.compile(r"```(console|python)\n(.*?)```", re.DOTALL)
OURS = ("$ kerasport", "$ echo $?", "$ head ")
# How far two libraries are apart depends on the processor, and their versions on the day.
DIFFERS = re.compile(r"\b\d\.\de[+-]\d\d\b|(?<=keras )\d+\.\d+\.\d+")
GENERATED = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def produced(text: str) -> str:
    """A document as it would read if everything in it were produced now."""
    names: dict[str, Any] = {}

    def block(match: re.Match[str]) -> str:
        kind, content = match.groups()
        now = _transcript(content) if kind == "console" else _session(content, names)
        if DIFFERS.sub("#", now) == DIFFERS.sub("#", content):
            now = content
        return f"```{kind}\n{now}```"

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("fixtures").symlink_to(ROOT / "fixtures")
        before = set(sys.modules)
        sys.path.insert(0, folder)
        try:
            text = BLOCK.sub(block, text)
        finally:
            sys.path.remove(folder)
            for name in set(sys.modules) - before:  # what is in the folder goes with it
                if str(getattr(sys.modules[name], "__file__", "")).startswith(folder):
                    del sys.modules[name]
    return GENERATED.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}{m[4]}", text)


def _transcript(block: str) -> str:
    """Commands, each followed by what it prints now; installing is left as it is."""
    lines: list[str] = []
    commands = [line for line in block.splitlines() if line.startswith("$ ")]
    if not commands or not all(command.startswith(OURS) for command in commands):
        return block
    code = 0
    for command in commands:
        lines.append(command)
        if command == "$ echo $?":
            lines.append(str(code))
            continue
        run = subprocess.run(
            command.removeprefix("$ ").replace("kerasport", f"{sys.executable} -m kerasport", 1),
            shell=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "convert"), "COLUMNS": "100"},
            check=False,
        )
        code = run.returncode
        if code == 1:  # a bug is nothing to show, and `--accept` must not take it for output
            raise RuntimeError(f"{command}\n{run.stdout}")
        lines += run.stdout.rstrip().splitlines()
    return "\n".join(lines) + "\n"


def _session(block: str, names: dict[str, Any]) -> str:
    """Statements, each followed by what it prints now; prose about Python is left as it is."""
    if not block.startswith(">>> "):
        return block
    lines: list[str] = []
    for example in doctest.DocTestParser().get_examples(block):
        first, *more = example.source.splitlines()
        lines += [f">>> {first}", *(f"... {line}".rstrip() for line in more)]
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            try:
                exec(compile(example.source, "README.md", "single"), names)
            except Exception as error:
                last = traceback.format_exception_only(error)[-1].rstrip()
                out.write(f"Traceback (most recent call last):\n    ...\n{last}\n")
        lines += out.getvalue().splitlines()
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _formats() -> str:
    from kerasport.formats import FORMATS

    rows = [
        (
            f"`{row.name}`",
            " ".join(f"`{suffix}`" for suffix in row.suffixes),
            row.holds,
            "✓" if row.reader else "",
            "✓" if row.writer else "",
            f"`kerasport[{row.extra}]`" if row.extra else "",
        )
        for row in FORMATS
    ]
    return _table(("format", "files", "what it is", "reads", "writes", "needs"), rows)


def _matrix() -> str:
    import support_matrix

    body, reasons = support_matrix.lines()
    head = ("kind", "PyTorch", "ONNX", "changes results when ignored")
    numbered = "".join(f"{number}. {reason}\n" for number, reason in enumerate(reasons, 1))
    return f"{_table(head, body)}\n{numbered}"


def _layouts() -> str:
    import support_matrix
    from kerasport.conventions import Absent, convention, rows

    def cell(name: str, kind: str) -> str:
        cases = list(rows(convention(name)[kind]))
        if all(isinstance(case.slots, Absent) for case in cases):
            return "—"
        slots = [slot for case in cases if isinstance(case.slots, tuple) for slot in case.slots]
        return "<br>".join(f"`{slot.name}` {slot.layout}".rstrip() for slot in slots)

    body = [
        (kind, cell("keras", kind), cell("torch", kind), cell("onnx", kind))
        for kind in support_matrix.kinds()
    ]
    return _table(("kind", "Keras", "PyTorch", "ONNX"), body)


def _exit_codes() -> str:
    from kerasport.cli import EXIT_CODES

    lines = [line.strip().split("  ", 1) for line in EXIT_CODES.splitlines()[1:]]
    return _table(("code", "meaning"), [(code, meaning.strip()) for code, meaning in lines])


TABLES: Mapping[str, Callable[[], str]] = {
    "formats": _formats,
    "matrix": _matrix,
    "layouts": _layouts,
    "exit_codes": _exit_codes,
}


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "convert"))
    stale = False
    for document in DOCUMENTS:
        now = document.read_text()
        new = produced(now)
        stale = stale or new != now
        if sys.argv[1:] == ["--accept"]:
            document.write_text(new)
    sys.exit(1 if stale else 0)
