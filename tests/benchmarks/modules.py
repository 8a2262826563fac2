"""Every model of keras.applications against the module that is generated for it.

    python tests/benchmarks/modules.py                      # all; an hour on two cores
    python tests/benchmarks/modules.py --only MobileNetV2   # some

Weights are random, scales and offsets of normalizations are too, and their statistics are those of
random images, so that nothing is lost on the way through a hundred layers. Each model is built for
images of any size where it allows that, and compared on two sizes. The deviation is the largest
difference, relative to the largest output.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "convert"), str(ROOT / "tests")]

import keras  # noqa: E402 the variables above are read when TensorFlow is imported
import numpy as np  # noqa: E402

import kerasport  # noqa: E402
from generated import Array, built, deviation, finalize, ran  # noqa: E402

# A model that deviates by more in float32 is asked again in float64, where rounding is no excuse.
TOLERANCES = {"float32": 1e-4, "float64": 1e-10}
SIZES = (96, 75)
# These take images of any size and fail on them, since they pad for the size they are built for.
ONE_SIZE = ("NASNetLarge", "NASNetMobile")


def names() -> list[str]:
    """The functions that build models."""
    found = vars(keras.applications).items()
    return sorted(name for name, made in found if name[0].isupper() and callable(made))


def made(name: str, sizes: Sequence[int] = SIZES) -> tuple[Any, tuple[int, ...]]:
    """A model, for images of any size where it allows that, and the sizes to try."""
    build = getattr(keras.applications, name)
    options = {"include_top": False, "weights": None, "pooling": "avg"}
    keras.utils.set_random_seed(1)
    size = max(sizes)
    if name in ONE_SIZE:
        return build(input_shape=(size, size, 3), **options), (size,)
    try:
        return build(input_shape=(None, None, 3), **options), tuple(sizes)
    except ValueError:  # it wants to know the size
        return build(input_shape=(size, size, 3), **options), (size,)


def settled(model: Any, images: Array) -> None:
    """Give normalizations random scales, and the statistics of these images."""
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers():
        kind = type(layer).__name__
        if kind == "Normalization" and len(layer.get_weights()) == 3:
            # Keras takes the root in float32, and factors through it: these are exact in both.
            layer.set_weights(
                [np.array([0.5, 1.0, -0.25]), np.array([0.25, 4.0, 1.0]), np.array(1)]
            )
        if kind == "Rescaling":
            layer.scale = [0.5, 0.25, 1.0] if isinstance(layer.scale, list) else 1 / 256
        for weight in layer._trainable_variables:
            if weight.name in ("gamma", "beta", "bias"):
                spread = rng.normal(size=weight.shape) * 0.1
                weight.assign(spread + (weight.name == "gamma"))
        if hasattr(layer, "rate"):
            layer.rate = 0.0  # statistics as inference sees them
        if kind == "BatchNormalization":
            layer.momentum = 0.0
    finalize(model)
    model(images, training=True)


def compared(
    name: str, folder: Path, sizes: Sequence[int] = SIZES, *, dtype: str = "float32"
) -> Iterator[tuple[int, float]]:
    """The deviation on each size of image.

    Args:
        name: the model's function in `keras.applications`.
        folder: where its module is written.
        sizes: heights and widths of images to try.
        dtype: what both compute in.
    """
    keras.config.set_floatx(dtype)
    try:
        model, sizes = made(name, sizes)
        rng = np.random.default_rng(1)
        # Some begin with a division by 255: of anything smaller, the edges alone would be seen.
        scaled = any(type(layer).__name__ == "Rescaling" for layer in model.layers)
        batches = [
            (rng.normal(size=(16, n, n, 3)) * (255.0 if scaled else 1.0)).astype(dtype)
            for n in sizes
        ]
        settled(model, batches[0])
        module, about = built(kerasport.read(model), folder)
        for size, images in zip(sizes, batches, strict=True):
            wanted = np.asarray(model(images[:2]))
            found = ran(module, about, [images[:2]])[0]
            yield size, deviation(found, wanted, scale=float(np.abs(wanted).max()))
    finally:
        keras.config.set_floatx("float32")


def main() -> int:
    """Print the table; one if a model deviates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="names of models")
    arguments = parser.parse_args()
    wrong = 0
    print(f"{'model':24} {'dtype':>8} {'size':>5} {'deviation':>10} {'seconds':>8}")
    for name in arguments.only or names():
        for dtype, tolerance in TOLERANCES.items():
            worst = row(name, dtype)
            if worst < tolerance:
                break
        else:
            wrong += 1
    return int(wrong > 0)


def row(name: str, dtype: str) -> float:
    """Print a model's lines of the table; its largest deviation."""
    started = time.perf_counter()
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        try:
            for size, found in compared(name, Path(folder), dtype=dtype):
                worst = max(worst, found)
                seconds = time.perf_counter() - started
                print(f"{name:24} {dtype:>8} {size:5} {found:10.1e} {seconds:8.1f}", flush=True)
        except kerasport.KerasportError as error:
            print(f"{name:24} {str(error)[:200]}", flush=True)
            worst = float("inf")
    keras.backend.clear_session()
    gc.collect()
    return worst


if __name__ == "__main__":
    raise SystemExit(main())
