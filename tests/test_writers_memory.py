"""Memory does not grow with the model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kerasport.writers import staging
from states import FORMATS, target

MODEL = 300 << 20

# Four tensors that are made slab by slab, as a planned conversion gives them to a writer.
# Anonymous memory is sampled while it works.
SCRIPT = """
import importlib, sys, threading, time
from pathlib import Path
import numpy as np
from kerasport.model import StateDict, Tensor

name, path, total = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
def fill(start, stop, buffer):
    buffer[:] = 1
rows = total // 4 // 4 // 1024
tensors = {k: Tensor(k, np.dtype('f4'), (rows, 1024), lambda: 1 / 0, fill=fill) for k in 'abcd'}
if sys.argv[4] == 'whole':
    tensors['w'] = Tensor.of('w', np.ones(total // 4, np.float32))
write = importlib.import_module(f'kerasport.writers.{name}').write
if name in ('arrow', 'parquet'):
    import pyarrow.parquet
def anonymous():
    for line in open('/proc/self/status'):
        if line.startswith('RssAnon'):
            return int(line.split()[1]) << 10
before = peak = anonymous()
done = False
def watch():
    global peak
    while not done:
        peak = max(peak, anonymous())
        time.sleep(0.001)
watcher = threading.Thread(target=watch)
if sys.argv[4] == 'whole':
    before = 0
watcher.start()
write(StateDict('torch', tensors), path)
done = True
watcher.join()
print(peak - before)
"""

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the kernel counts anonymous memory"
)


def peak(name: str, folder: Path, kind: str = "slabs") -> int:
    source = str(Path(staging.__file__).parent.parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, str(target(name, folder)), str(MODEL), kind],
        env={"PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=True,
    )
    target(name, folder).unlink()
    return int(done.stdout)


@pytest.mark.parametrize("name", FORMATS)
def test_a_model_of_300_megabytes_is_written_in_a_fraction_of_them(
    name: str, tmp_path: Path
) -> None:
    bound = MODEL // 2 if name in ("arrow", "parquet") else MODEL // 12
    assert peak(name, tmp_path) < bound


def test_a_model_in_memory_is_counted(tmp_path: Path) -> None:
    """The twin: the counter sees a tensor that is whole."""
    assert peak("safetensors", tmp_path, "whole") > MODEL
