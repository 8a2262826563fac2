"""Models of Keras 3 and of tf_keras, and what Keras itself says of their weights.

The oracle walks `model.layers` and asks each layer for its variables; it shares nothing with the
readers. Values are random, so that an array's bytes tell it from every other one.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Keras = Any


def library(name: str) -> Keras:
    """Keras 3 or tf_keras; their own warnings at import are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def sequential(k: Keras) -> Any:
    layers = [
        k.layers.Dense(5, name="first"),
        k.layers.Dense(7, use_bias=False),
        k.layers.Dense(3),
    ]
    return k.Sequential([k.Input((11,)), *layers], name="chain")


def functional(k: Keras) -> Any:
    image = k.Input((7, 5, 2), name="image")
    x = k.layers.Conv2D(3, (3, 2), padding="same", name="conv")(image)
    x = k.layers.BatchNormalization(name="norm")(x)
    y = k.layers.DepthwiseConv2D((2, 3), depth_multiplier=2, padding="same")(x)
    y = k.layers.SeparableConv2D(3, (3, 2), padding="same")(y)
    x = k.layers.Concatenate()([x, y])
    x = k.layers.LayerNormalization()(k.layers.Flatten()(x))
    return k.Model(image, [k.layers.Dense(2, name="a")(x), k.layers.Dense(3, name="b")(x)])


def numbering(k: Keras) -> Any:
    """Twelve layers of one class, whose automatic names sort wrongly as text."""
    x = image = k.Input((5, 3, 2))
    for width in range(2, 14):
        x = k.layers.Conv2D(width, (1, 3), padding="same", name=f"step{width - 2}")(x)
    return k.Model(image, x, name="numbering")


def nested(k: Keras) -> Any:
    """Three deep, with a Sequential that was built by being called."""
    i = k.Input((5,))
    inner = k.Model(i, k.layers.Dense(3, name="deep")(i), name="inner")
    j = k.Input((5,))
    x = inner(k.layers.Dense(5, name="before")(j))
    x = k.layers.BatchNormalization(name="norm")(k.layers.Dense(7, name="after")(x))
    middle = k.Model(j, x, name="middle")
    layers = [k.layers.Dense(5, name="one"), k.layers.Dropout(0.5), k.layers.Dense(2, name="two")]
    lazy = k.Sequential(layers, name="lazy")
    o = k.Input((5,))
    x = k.layers.Dense(13)(k.layers.Dense(11)(lazy(middle(o))))
    return k.Model(o, x, name="outer")


def shared(k: Keras) -> Any:
    """One layer in two inner models and in the outer one."""
    twice = k.layers.Dense(5, name="twice")
    i = k.Input((5,))
    one = k.Model(i, twice(k.layers.Dense(5, name="p")(i)), name="one")
    j = k.Input((5,))
    two = k.Model(j, k.layers.Dense(5, name="q")(twice(j)), name="two")
    o = k.Input((5,))
    x = k.layers.Dense(2, name="last")(twice(two(one(o))))
    return k.Model(o, x, name="sharing")


def composite(k: Keras) -> Any:
    """Layers made of layers, and a wrapper around a model."""
    frames = k.Input((3, 7, 5, 2))
    body = [k.Input((7, 5, 2)), k.layers.Conv2D(3, 3, name="conv"), k.layers.Flatten()]
    x = k.layers.TimeDistributed(k.Sequential(body, name="body"), name="frames")(frames)
    lstm = k.layers.LSTM(5, return_sequences=True)
    x = k.layers.Bidirectional(lstm, name="both")(x)
    x = k.layers.TimeDistributed(k.layers.Dense(3, name="row"), name="rows")(x)
    x = k.layers.MultiHeadAttention(2, 3, dropout=0.1, name="attend")(x, x)
    cells = k.layers.StackedRNNCells([k.layers.LSTMCell(3), k.layers.GRUCell(2)])
    x = k.layers.RNN(cells, return_sequences=True, name="stack")(x)
    return k.Model(frames, k.layers.GRU(7, name="gru")(x), name="composite")


def random(k: Keras) -> Any:
    """Layers that draw numbers, trained, so that there is an optimizer's and a seed's state."""
    layers = [
        k.layers.RandomFlip(),
        k.layers.Conv2D(2, 3, name="conv"),
        k.layers.GaussianNoise(0.1),
        k.layers.Dropout(0.2),
        k.layers.Flatten(),
        k.layers.Dense(3, name="out"),
    ]
    model = k.Sequential([k.Input((7, 5, 3)), *layers], name="random")
    model.compile("adam", "mse", metrics=["mae"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(np.zeros((8, 7, 5, 3)), np.zeros((8, 3)), verbose=0)
    return model


def frozen(k: Keras) -> Any:
    """Layers that do not train, by their own flag and by their model's."""
    i = k.Input((5,))
    inner = k.Model(i, k.layers.Dense(3, name="inside")(i), name="inner")
    inner.trainable = False
    o = k.Input((5,))
    x = inner(k.layers.Dense(5, name="fixed", trainable=False)(o))
    return k.Model(o, k.layers.Dense(2, name="free")(x), name="frozen")


MODELS: dict[str, Callable[[Keras], Any]] = {
    build.__name__: build
    for build in (*(sequential, functional, numbering, nested, shared, composite, random, frozen),)
}


def built(k: Keras, name: str) -> Any:
    """A model whose every weight is another random number."""
    k.backend.clear_session()  # automatic names count from the beginning
    k.utils.set_random_seed(1)
    model = MODELS[name](k)
    rng = np.random.default_rng(len(name))
    model.set_weights([rng.normal(size=w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def is_model(layer: Any) -> bool:
    return hasattr(layer, "layers") and hasattr(layer, "get_config")


def oracle(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every layer that holds variables and is no model, in model order, with its path."""
    for layer in model.layers:
        inner = getattr(layer, "layer", None)
        if is_model(layer):
            yield from oracle(layer, f"{prefix}{layer.name}/")
        elif is_model(inner):
            yield from oracle(inner, f"{prefix}{layer.name}/")
        elif layer.weights:
            yield prefix + layer.name, layer


def values(variables: Any) -> list[tuple[tuple[int, ...], bytes]]:
    """Shapes and bytes, sorted: with random values, equal lists hold the very same arrays."""
    arrays = [np.asarray(v.numpy() if hasattr(v, "numpy") else v) for v in variables]
    return sorted((array.shape, array.tobytes()) for array in arrays)
