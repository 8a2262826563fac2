"""Break every kind of file in every way, and see that each refusal is one clear error.

    cd tests && python -m benchmarks.fuzz                       # a minute
    cd tests && python -m benchmarks.fuzz --seconds 1200        # a night's worth
    cd tests && python -m benchmarks.fuzz --case cnn.keras:4711         # one of them again

Each case is a sound file, a number and what follows from both: bytes flipped, cut, moved, doubled,
lengths made absurd. Where a checksum would only hide what lies behind it (members of an archive,
the index of a checkpoint), the damage is done inside and sealed again. A case fails if reading,
planning or writing ends in anything but success or an error of ours that is not a bug, takes longer
than ten seconds, or takes more memory than ten times the file. Prints every failure with the line
that repeats it, and exits with their number.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent.parent
SECONDS = 10
MEMORY = 600 << 20
"""How much a case may take on top of what importing everything takes."""
LARGEST = 400_000
MESSAGE = 4000
ABSURD = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, -1)
ABSURD_8 = (*ABSURD, 1 << 31, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 62, -(1 << 63), 1 << 53)
BATCH = 40


class Seed(NamedTuple):
    """A sound file or folder, and the file in it that is to be broken."""

    name: str
    path: Path
    part: str = ""


# ---- sound files


def seeds(folder: Path) -> list[Seed]:
    """Fixtures, what kerasport writes of one, and the small files of the corpus."""
    found = [*_all(ROOT / "fixtures"), *_all(ROOT / "tests" / "files")]
    corpus = os.environ.get("KERASPORT_CORPUS")
    if corpus:
        found += _all(Path(corpus))
    found += _all(written(folder))
    return sorted(found, key=lambda seed: seed.name)


def _all(folder: Path) -> Iterator[Seed]:
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix in (".py", ".md", ".toml") or "LICENSE" in path.name:
            continue
        if not 0 < path.stat().st_size <= LARGEST:
            continue
        whole = _whole(path, folder)
        part = str(path.relative_to(whole)) if whole != path else ""
        yield Seed(str(path.relative_to(folder)), whole, part)


def _whole(path: Path, root: Path) -> Path:
    """The folder that a file is a part of, where the folder is the model."""
    for above in path.relative_to(root).parents:
        if above.suffix == ".orbax":
            return root / above
    for above in (path.parent, path.parent.parent):
        names = {p.name for p in above.iterdir()}
        marks = {"saved_model.pb", "model.json", "config.json", "checkpoint"}
        if above != root and (names & marks or any(name.endswith(".index") for name in names)):
            return above
    return path


def written(folder: Path) -> Path:
    """One file of every format that kerasport writes, and of others that NumPy and h5py make."""
    import numpy as np

    import kerasport

    source = ROOT / "fixtures" / "sequence.keras"
    folder.mkdir(exist_ok=True)
    for suffix in (".safetensors", ".pt", ".onnx", ".parquet", ".arrow"):
        kerasport.convert(source, folder / f"written{suffix}", to="torch")
    sharded = folder / "sharded"
    sharded.mkdir(exist_ok=True)
    kerasport.convert(source, sharded / "m.safetensors", to="torch", max_shard_size=4000)
    snapshot = kerasport.read(source)
    arrays: Any = {tensor.name: tensor.numpy() for tensor in snapshot.tensors}
    np.savez(folder / "named.npz", **arrays)
    np.savez_compressed(folder / "packed.npz", **arrays)
    np.savez(folder / "listed.npz", *arrays.values())
    with zipfile.ZipFile(source) as archive:
        archive.extractall(folder / "unpacked")
    return folder


# ---- damage


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to four faults in them."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(FAULTS)(data, rng)
    return data


def flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if out:
            out[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(out)


def overwrite(data: bytes, rng: random.Random) -> bytes:
    at, size = _place(data, rng), rng.choice((1, 2, 4, 8, 64))
    return data[:at] + rng.choice((b"\0", b"\xff", rng.randbytes(1))) * size + data[at + size :]


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: _place(data, rng)]


def remove(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + rng.choice((1, 2, 4, 8, 100)) :]


def splice(data: bytes, rng: random.Random) -> bytes:
    at, start = _place(data, rng), _place(data, rng)
    piece = data[start : start + rng.choice((1, 4, 8, 64, 1000))]
    return data[:at] + piece + data[at + rng.choice((0, len(piece))) :]


def length(data: bytes, rng: random.Random) -> bytes:
    """A number of four or eight bytes that is absurd, or wrong by one."""
    code = rng.choice(("<I", ">I", "<Q", "<H"))
    size = struct.calcsize(code)
    at = _place(data, rng)
    at -= at % rng.choice((1, size))
    if len(data) < at + size:
        return data
    (value,) = struct.unpack_from(code, data, at)
    new = rng.choice((*ABSURD_8, value + 1, value - 1, value * 2, value << 8)) % (1 << 8 * size)
    return data[:at] + struct.pack(code, new) + data[at + size :]


def long_varint(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    new = rng.choice(
        (b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\xff" * 11, b"\x80\x80\x00")
    )
    return data[:at] + new + data[at + rng.choice((0, 1, len(new))) :]


def word(data: bytes, rng: random.Random) -> bytes:
    """A number in a text that is absurd, or a text that is another sort of value."""
    import re

    found = list(re.finditer(rb"-?\d+|\"[^\"\\]{0,40}\"|true|false|null", data[:200_000]))
    if not found:
        return data
    it = rng.choice(found)
    new = rng.choice(
        (
            *(b"-1", b"0", b"1e999", b"99999999999999999999", b"null", b"[]", b"{}", b'""'),
            *(b"true", b'"\\ud800"', b"[" * 5000, b'{"a":' * 3000, b"9" * 6000, b'"../x"'),
            *(b'"\\u0000"', b"NaN"),
        )
    )
    return data[: it.start()] + new + data[it.end() :]


FAULTS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(flip, flip, overwrite, cut, remove, splice, length, length, long_varint, word),
)


def _place(data: bytes, rng: random.Random) -> int:
    """Anywhere, but more often where the structure is: at the beginning and at the end."""
    size = max(1, len(data))
    near = min(size, rng.choice((64, 512, 4096)))
    return rng.choice((rng.randrange(size), rng.randrange(near), size - 1 - rng.randrange(near)))


def sealed(data: bytes, rng: random.Random) -> bytes:
    """Damage behind a checksum, which is made right again."""
    if data[:4] == b"PK\x03\x04" and rng.random() < 0.7:
        return _archive(data, rng)
    if data[-8:] == struct.pack("<Q", 0xDB4775248B80FB57) and rng.random() < 0.7:
        return _table(data, rng)
    return damaged(data, rng)


def _archive(data: bytes, rng: random.Random) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(i, archive.read(i)) for i in archive.infolist()]
    except (zipfile.BadZipFile, NotImplementedError):
        return damaged(data, rng)
    target = rng.randrange(len(members))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as new:
        for number, (info, content) in enumerate(members):
            name = info.filename
            if number == target:
                match rng.randrange(8):
                    case 0:
                        continue
                    case 1:
                        name = rng.choice(
                            ("../x", "/x", "a\\b", f"{name}/{name}", "\u202e", name * 50)
                        )
                    case _:
                        content = damaged(content, rng)
            new.writestr(name, content)
    return out.getvalue()


def _table(data: bytes, rng: random.Random) -> bytes:
    import tf_tables

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.index")
        path.write_bytes(data)
        pairs = tf_tables.pairs(path)
    number = rng.randrange(len(pairs))
    key, value = pairs[number]
    match rng.randrange(6):
        case 0:
            del pairs[number]
        case 1:
            key = damaged(key, rng)
        case _:
            value = damaged(value, rng)
    pairs[number : number + 1] = [(key, value)]
    return tf_tables.table(sorted(dict(pairs).items()))


# ---- one case


class Late(BaseException):
    """Time is up."""


def attempt(path: Path, target: Path) -> str:
    """What came of a file: `read`, `converted`, or the name of the error, if it is a good one."""
    import kerasport
    from kerasport.errors import KerasportError

    done = "nothing"
    try:
        snapshot = kerasport.read(path)
        json.dumps(snapshot.to_json())
        repr(snapshot)
        for tensor in snapshot.tensors:
            if tensor.nbytes < 64 << 20:
                tensor.numpy().tobytes()
        done = "read"
        kerasport.convert(snapshot, target, to="torch", strict=False, unknown="keep")
        done = "converted"
    except KerasportError as error:
        if error.exit_code == KerasportError.exit_code:
            raise
        if len(str(error)) > MESSAGE:
            raise AssertionError(
                f"a message of {len(str(error))} letters: {str(error)[:300]}"
            ) from error
        return (
            type(error).__name__
            if done == "nothing"
            else f"{type(error).__name__} after it was {done}"
        )
    return done


def copy(seed: Seed, number: int, folder: Path) -> Path:
    """The damaged file, or the folder with it."""
    rng = random.Random(f"{seed.name}:{number}")
    path = folder / seed.path.name
    if seed.part:
        shutil.copytree(seed.path, path)
    else:
        shutil.copy(seed.path, path)
    broken = path / seed.part if seed.part else path
    broken.write_bytes(sealed(broken.read_bytes(), rng))
    return path


def run(seed: Seed, number: int, folder: Path) -> tuple[str, str]:
    """What came of one case, and a traceback if it was not what it should be."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        path = copy(seed, number, Path(name))
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            return attempt(path, Path(name, "out.safetensors")), ""
        except Late:
            return "HANG", traceback.format_exc(limit=-8)
        except MemoryError:
            return "MEMORY", traceback.format_exc(limit=-8)
        except Exception:
            return "BUG", traceback.format_exc(limit=-12)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def batch(cases: list[tuple[Seed, int]], folder: Path) -> Iterator[tuple[Seed, int, str, str]]:
    """The cases in a process of their own, since a library may take the process with it."""
    start = 0
    while start < len(cases):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            code = 1
            try:
                os.close(reading)
                _work(cases[start:], folder, os.fdopen(writing, "w"))
                code = 0
            finally:
                os._exit(code)  # whatever happens, it must not go on as its parent
        os.close(writing)
        with os.fdopen(reading) as lines:
            while True:
                # A library that does not come back lets no signal through.
                late = threading.Timer(3 * SECONDS, os.kill, (child, signal.SIGKILL))
                late.start()
                line = lines.readline()
                late.cancel()
                if not line:
                    break
                yield (*cases[start], *json.loads(line))
                start += 1
        _, status = os.waitpid(child, 0)
        if start < len(cases):
            what = "HANG" if status == signal.SIGKILL else "CRASH"
            yield (*cases[start], what, f"the process ended with status {status}")
            start += 1


def _work(cases: list[tuple[Seed, int]], folder: Path, out: Any) -> None:
    def late(*_: object) -> None:
        raise Late

    signal.signal(signal.SIGALRM, late)
    with Path("/proc/self/status").open() as status:
        data = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (data + MEMORY, data + MEMORY))
    for seed, number in cases:
        print(json.dumps(run(seed, number, folder)), file=out, flush=True)


# ---- all of them


def fuzz(
    found: list[Seed], *, seconds: float, first: int, folder: Path, most: int = 1 << 40
) -> tuple[Counter[str], list[str]]:
    """Cases, as many as there is time for: what came of them, and the failures in words."""
    _imported()
    outcomes: Counter[str] = Counter()
    failures: dict[str, str] = {}
    end = time.monotonic() + seconds
    number = first
    while time.monotonic() < end and number < first + most:
        rng = random.Random(number)
        cases = [(rng.choice(found), number + place) for place in range(BATCH)]
        for seed, own, outcome, told in batch(cases, folder):
            outcomes[outcome] += 1
            if told:
                last = told.strip().splitlines()
                where = next((x for x in reversed(last) if x.strip().startswith("File")), "")
                failures.setdefault(
                    f"{outcome} {where.strip()}", f"--case {seed.name}:{own}\n{told}"
                )
        number += BATCH
    return outcomes, [f"{what}\n{told}" for what, told in failures.items()]


def _imported() -> None:
    """What every case imports, once and before the process is forked."""
    import importlib

    from kerasport import api, formats

    for row in formats.FORMATS:
        for module in filter(None, (row.reader, row.writer)):
            importlib.import_module(module)
    assert api
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    for module in ("h5py", "onnx", "pyarrow.parquet", "safetensors", "ml_dtypes", "tf_tables"):
        importlib.import_module(module)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", type=int, default=1 << 40, help="at most as many")
    parser.add_argument("--first", type=int, help="the number of the first case")
    parser.add_argument("--only", default="", help="a part of the names of the sound files")
    parser.add_argument("--case", help="NAME:NUMBER, to run one case alone")
    parser.add_argument("--keep", type=Path, help="with --case: where to put the broken file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = seeds(Path(name, "written"))
        if options.case:
            own, _, number = options.case.rpartition(":")
            (seed,) = (seed for seed in found if seed.name == own)
            if options.keep:
                options.keep.mkdir()
                print(copy(seed, int(number), options.keep))
            print(*run(seed, int(number), Path(name)), sep="\n")
            return 0
        found = [seed for seed in found if options.only in seed.name]
        first = (
            options.first if options.first is not None else random.SystemRandom().randrange(1 << 40)
        )
        print(f"{len(found)} sound files; --first {first}", flush=True)
        outcomes, failures = fuzz(
            found, seconds=options.seconds, first=first, folder=Path(name), most=options.cases
        )
    for failure in failures:
        print(f"\n{failure}")
    print(
        f"\n{outcomes.total():,} cases: "
        + ", ".join(f"{n} {what}" for what, n in outcomes.most_common())
    )
    return len(failures)


if __name__ == "__main__":
    sys.exit(main())
