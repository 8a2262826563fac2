"""An architecture from elsewhere is matched by name, then by order, or it is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kerasport
from kerasport.errors import UsageError
from kerasport.model import Snapshot

NAMES = ("stem", "mix", "up", "norm", "head", "out")


def model(library: Any, names: Sequence[str | None], units: int = 7) -> Any:
    """Layers of several classes, two of them of one, whose kernels are square."""
    library.backend.clear_session()
    layers = library.layers
    first, second, third, fourth, fifth, sixth = names
    return library.Sequential(
        [
            layers.Input((9, 9, 5)),
            layers.Conv2D(5, 3, padding="same", name=first),
            layers.Conv2D(5, 3, padding="same", name=second),
            layers.Conv2DTranspose(5, 3, padding="same", name=third),
            layers.BatchNormalization(name=fourth),
            layers.GlobalAveragePooling2D(),
            layers.Dense(units, name=fifth),
            layers.Dense(7, name=sixth),
        ]
    )


def filled(library: Any, names: Sequence[str | None]) -> Any:
    rng = np.random.default_rng(5)
    made = model(library, names)
    made.set_weights([rng.normal(size=w.shape).astype(np.float32) for w in made.get_weights()])
    return made


def config(made: Any, folder: Path) -> Path:
    path = folder / "architecture.json"
    path.write_text(made.to_json())
    return path


def assert_is(snapshot: Snapshot, made: Any) -> None:
    """Every layer of the architecture has what Keras itself has put there."""
    expected = {layer.name: layer.get_weights() for layer in made.layers if layer.weights}
    found = {p: [t.numpy() for t in layer.weights.values()] for p, layer in snapshot.items()}
    assert list(found) == list(expected)
    for path, arrays in expected.items():
        assert snapshot[path].kind == type(made.get_layer(path)).__name__
        for ours, theirs in zip(found[path], arrays, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=path)


def libraries() -> dict[str, Any]:
    import keras
    import tf_keras

    return {"keras": keras, "tf_keras": tf_keras}


FILES: dict[str, tuple[str, str]] = {
    "weights.h5": ("keras", "m.weights.h5"),
    "legacy": ("tf_keras", "m.h5"),
    "checkpoint": ("tf_keras", "m.ckpt"),
}


def saved(kind: str, names: Sequence[str | None], folder: Path) -> tuple[Any, Path]:
    library, name = FILES[kind]
    made = filled(libraries()[library], names)
    options = {"save_format": "tf"} if name.endswith("ckpt") else {}
    made.save_weights(str(folder / name), **options)
    return made, folder / name


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (NAMES, NAMES),
        (NAMES, (None,) * 6),
        ((None,) * 6, NAMES),
        (NAMES, ("stem", "b", "up", "d", "head", "f")),
        (("conv2d_7", "conv2d_10", "conv2d_transpose_3", *NAMES[3:]), NAMES),
    ],
    ids=["same", "default", "named", "some", "numbered"],
)
def test_layers_of_other_names_are_taken_in_order(
    kind: str, theirs: Sequence[str | None], ours: Sequence[str | None], tmp_path: Path
) -> None:
    """As Keras itself does it when it loads weights into a model."""
    _, path = saved(kind, theirs, tmp_path)
    other = model(libraries()[FILES[kind][0]], ours)
    loaded = other.load_weights(str(path))
    if loaded is not None:
        loaded.expect_partial()
    assert_is(kerasport.read(path, config=config(other, tmp_path)), other)


def _one_less(library: Any) -> Any:
    made = model(library, ("a", "b", "c", "d", "e", "f"))
    return library.Sequential(made.layers[:-1])


def _another_class(library: Any) -> Any:
    made = model(library, ("a", "b", "c", "d", "e", "f"))
    return library.Sequential([*made.layers[:-1], library.layers.BatchNormalization(name="f")])


def _another_order(library: Any) -> Any:
    made = model(library, ("a", "b", "c", "d", "e", "f"))
    return library.Sequential([made.layers[3], *made.layers[:3], *made.layers[4:]])


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        *((kind, change) for kind in FILES for change in (_one_less, _another_class)),
        # In a file of Keras 3 only the order of the layers of one class counts.
        *((kind, _another_order) for kind in ("legacy", "checkpoint")),
    ],
)
def test_an_architecture_that_cannot_be_is_refused(
    kind: str, change: Callable[[Any], Any], tmp_path: Path
) -> None:
    _, path = saved(kind, NAMES, tmp_path)
    other = change(libraries()[FILES[kind][0]])
    with pytest.raises(UsageError, match="does not fit"):
        kerasport.read(path, config=config(other, tmp_path))
