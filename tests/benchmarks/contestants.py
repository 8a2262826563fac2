"""Who runs: kerasport, `cp`, and the scripts that people write instead.

Each is a command that takes a source and a target. The scripts are what they are: the usual one
loads the model with Keras and lets safetensors write it; the clever one reads HDF5 with h5py, so
that it needs neither TensorFlow nor the model's code.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.measuring import Command

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
        if array.dtype.kind == "V":
            array = array.view(np.uint16)
        axes = {2: (1, 0), 4: (3, 2, 0, 1)}.get(array.ndim)
        turned = array if axes is None else array.transpose(axes)
        tensors[name] = np.ascontiguousarray(turned)
if zipfile.is_zipfile(sys.argv[1]):
    with zipfile.ZipFile(sys.argv[1]) as archive:
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            file.visititems(keep)
else:
    with h5py.File(sys.argv[1]) as file:
        file.visititems(keep)
save_file(tensors, sys.argv[2])
"""
# The command with a hash that says nothing, and, for the last word, without reading again.
BARE = """
import os, sys
from contextlib import nullcontext
os.environ["OPENBLAS_NUM_THREADS"] = "1"
from kerasport import api, cli, manifest
from kerasport.api import writing
from kerasport.writers import staging
class Blank:
    def update(self, data): pass
    def hexdigest(self): return manifest.NO_HASH
manifest.hasher = Blank
writing.source_hash_of = lambda source: nullcontext()
if sys.argv[4] == "unread":
    staging.Flow._read_again = lambda self, buffer: None
cli.main(["convert", sys.argv[1], sys.argv[2], "--to", sys.argv[3]])
"""
# A model that is saved as TensorFlow saves it; it has to run, so it is made by Keras.
SAVED = """
import sys, keras, tensorflow as tf
layers = [keras.layers.Input((4096,)), *(keras.layers.Dense(4096) for _ in range(16))]
tf.saved_model.save(keras.Sequential(layers), sys.argv[1])
"""
LOAD = """
import keras, sys
keras.saving.load_model(sys.argv[1], compile=False)
"""
TORCH_SAVE = CLEVER.replace("from safetensors.numpy import save_file", "import torch").replace(
    "save_file(tensors, sys.argv[2])",
    "torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, sys.argv[2])",
)
TF2ONNX = """
import keras, sys
model = keras.saving.load_model(sys.argv[1], compile=False)
model.export(sys.argv[2], format="onnx", verbose=False)
"""
# What pyarrow needs for the same columns, with every array in memory before the clock starts;
# kerasport's own clock starts when its plan is made, and it reads, turns, hashes and checks.
COLUMNS = """
import json, sys, time
import numpy as np, pyarrow as pa, pyarrow.ipc, pyarrow.parquet as pq
from kerasport import api
source, target, to, who = sys.argv[1:]
state = api.plan(api.read(source), to=to).apply()
if who == "pyarrow":
    PART = 1 << 21
    columns = pa.schema([("name", pa.string()), ("values", pa.list_(pa.float32()))])
    arrays = [(name, np.array(tensor.numpy()).ravel()) for name, tensor in state.items()]
    rows = [
        (name, array[start : start + PART])
        for name, array in arrays
        for start in range(0, array.size, PART)
    ]
    start = time.perf_counter()
    batches = (
        pa.record_batch(
            [
                pa.array([name]),
                pa.ListArray.from_arrays(pa.array([0, part.size], pa.int32()), pa.array(part)),
            ],
            schema=columns,
        )
        for name, part in rows
    )
    if target.endswith(".parquet"):
        plain = dict(compression="none", use_dictionary=False, write_statistics=False)
        with pq.ParquetWriter(target, columns, **plain) as writer:
            for batch in batches:
                writer.write_batch(batch, row_group_size=1)
    else:
        with pa.OSFile(target, "wb") as file, pa.ipc.new_file(file, columns) as writer:
            for batch in batches:
                writer.write_batch(batch)
else:
    import blake3
    start = time.perf_counter()
    api.write(state, target)
print(json.dumps({"seconds": time.perf_counter() - start, "bytes": state.nbytes}))
"""


def ours(source: Path, target: Path, to: str = "torch") -> Command:
    """The command of kerasport."""
    return [sys.executable, "-m", "kerasport", "convert", str(source), str(target), "--to", to]


def script(text: str, *arguments: object) -> Command:
    """A script as a command."""
    return [sys.executable, "-c", text, *map(str, arguments)]
