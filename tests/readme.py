"""The README's blocks: what a reader sees is what the tests have just seen.

Every ```console block whose commands are kerasport's is run in a folder that holds the fixtures,
and must print what stands below the command; ```python blocks with `>>>` are doctests.
Tables between `<!-- generated: NAME -->` and `<!-- end -->` come from the code.
`python tests/readme.py --accept` writes today's output into the README; read the diff.
"""

from __future__ import annotations

import doctest
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
PYTHON = re.compile(r"```python\n(>>>.*?)```", re.DOTALL)
GENERATED = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def produced(text: str) -> str:
    """The README as it would read if everything in it were produced now."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "fixtures", folder / "fixtures")
        text = CONSOLE.sub(lambda m: f"```console\n{_transcript(m[1], folder)}```", text)
    return GENERATED.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}{m[4]}", text)


def _transcript(block: str, folder: Path) -> str:
    """A block with each command followed by what it prints now; installing is left as it is."""
    lines: list[str] = []
    commands = [line for line in block.splitlines() if line.startswith("$ ")]
    if not all(command.startswith(("$ kerasport", "$ echo $?")) for command in commands):
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
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "convert"), "COLUMNS": "100"},
            check=False,
        )
        code = run.returncode
        lines += run.stdout.rstrip().splitlines()
    return "\n".join(lines) + "\n"


def examples(text: str) -> list[doctest.DocTest]:
    """The Python blocks, which share their names as one session does."""
    names: dict[str, object] = {}
    parser = doctest.DocTestParser()
    return [
        parser.get_doctest(match[1], names, f"README block {number}", str(README), 0)
        for number, match in enumerate(PYTHON.finditer(text))
    ]


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


def _layers() -> str:
    from kerasport.conventions import Absent, convention, rows

    def cell(name: str, kind: str) -> str:
        cases = list(rows(convention(name)[kind]))
        if all(isinstance(case.slots, Absent) for case in cases):
            return "—"
        slots = [slot for case in cases if isinstance(case.slots, tuple) for slot in case.slots]
        return "<br>".join(f"`{slot.name}` {slot.layout}".rstrip() for slot in slots)

    body = [
        (kind, cell("keras", kind), cell("torch", kind), cell("onnx", kind))
        for kind in convention("keras")
        if not kind.startswith("Bidirectional")
    ]
    return _table(("kind", "Keras", "PyTorch", "ONNX"), body)


def _exit_codes() -> str:
    from kerasport.cli import EXIT_CODES

    lines = [line.strip().split("  ", 1) for line in EXIT_CODES.splitlines()[1:]]
    return _table(("code", "meaning"), [(code, meaning.strip()) for code, meaning in lines])


TABLES: Mapping[str, Callable[[], str]] = {
    "formats": _formats,
    "layers": _layers,
    "exit_codes": _exit_codes,
}


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "convert"))
    now = README.read_text()
    new = produced(now)
    if sys.argv[1:] == ["--accept"]:
        README.write_text(new)
    sys.exit(0 if new == now else 1)
