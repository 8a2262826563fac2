"""Files of Keras 1, and of Keras 2 on Theano: their numbers do in PyTorch what they did there.

Neither framework can be installed any more. What they computed is known three ways: from outputs
that were recorded beside real files; from tf_keras, which still has the code that takes weights of
Keras 1 over; and for Theano from the definition of a convolution, written out in loops. Files are
made with h5py as Keras 1.2 wrote them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import kerasport
import oracles
from kerasport.api import select
from kerasport.conventions import Case, Slot, convention, rows
from kerasport.layout import Layout
from kerasport.model import Layer, Snapshot, Source, Tensor
from kerasport.torch import load_module
from kerasport.transpose import plan

Array = npt.NDArray[Any]
CORPUS = Path(os.environ.get("KERASPORT_CORPUS", "/nowhere"))
TOLERANCE = 1e-5  # float32 sums, relative to the largest output
RNG = np.random.default_rng(11)

corpus = pytest.mark.skipif("KERASPORT_CORPUS" not in os.environ, reason="KERASPORT_CORPUS unset")


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


# --------------------------------------------------------------------------- files, as Keras 1 did


Stored = tuple[str, Mapping[str, Any], Mapping[str, Array]]


def write(
    path: Path,
    layers: Sequence[Stored],
    *,
    backend: str = "tensorflow",
    version: str = "1.2.2",
    whole: bool = True,
    names: str = "{layer}_{weight}",
) -> Path:
    """A model of layers in a row, as class, configuration, and weights by their own names.

    Keras 1 said nothing of its backend, but TensorFlow put `:0` behind each name; Keras 2 says it.
    """
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole else file
        if whole:
            config = [
                {"class_name": name, "config": {"name": f"layer_{n}", "trainable": True, **own}}
                for n, (name, own, _) in enumerate(layers, 1)
            ]
            file.attrs["keras_version"] = version.encode()
            file.attrs["model_config"] = json.dumps(
                {"class_name": "Sequential", "config": config}
            ).encode()
            if version.startswith("2"):
                file.attrs["backend"] = backend.encode()
        root.attrs["layer_names"] = [f"layer_{n}".encode() for n in range(1, len(layers) + 1)]
        for n, (_, _, weights) in enumerate(layers, 1):
            group = root.create_group(f"layer_{n}")
            end = ":0" if backend == "tensorflow" else ""
            stored = {
                names.format(layer=f"layer_{n}", weight=key) + end: w for key, w in weights.items()
            }
            group.attrs["weight_names"] = [name.encode() for name in stored]
            for name, value in stored.items():
                group.create_dataset(name, data=value)
    return path


def tensors(path: Path, to: str, **options: Any) -> dict[str, Array]:
    """The weights of a file in another convention, by their names below the first layer."""
    steps = kerasport.plan(kerasport.read(path, **options), to=to)
    steps.refuse_losses()
    mark = "/" if to == "keras" else "."
    return {name.partition(mark)[2]: t.numpy() for name, t in steps.apply().items()}


# ------------------------------------------------------------------- outputs recorded by strangers


def hard_sigmoid(x: torch.Tensor) -> torch.Tensor:
    return torch.clamp(0.2 * x + 0.5, 0, 1)


def recurrent(x: torch.Tensor, state: Mapping[str, torch.Tensor], layer: str) -> torch.Tensor:
    """All outputs of an LSTM or a SimpleRNN, from weights in PyTorch's layout.

    `torch.nn.LSTM` has no hard sigmoid, which was the default until Keras 2.3.
    """
    w, u, b, d = (
        state[f"{layer}.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    units = u.shape[1]
    h = c = torch.zeros(len(x), units)
    steps = []
    for step in x.unbind(1):
        z = step @ w.mT + b + h @ u.mT + d
        if len(w) == units:
            h = torch.tanh(z)
        else:
            i, f, g, o = z.chunk(4, 1)
            c = hard_sigmoid(f) * c + hard_sigmoid(i) * torch.tanh(g)
            h = hard_sigmoid(o) * torch.tanh(c)
        steps.append(h)
    return torch.stack(steps, 1)


def state_of(path: Path, tmp_path: Path, *, archived: bool) -> dict[str, torch.Tensor]:
    """A file's weights for PyTorch, taken from it or from an archive that was made of it."""
    source = path
    if archived:
        source = tmp_path / "archive.safetensors"
        kerasport.convert(path, source, to="keras")
        kerasport.verify(source, against=path)
    target = tmp_path / "weights.safetensors"
    kerasport.convert(source, target, to="torch")
    kerasport.verify(target, against=source)
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = load_file(target)
    return found


RECORDED = [
    ("simple_lstm_tf_keras_1", "model", "lstm_1"),
    ("simple_lstm_tf_keras_1", "weights", "lstm_1"),
    ("simple_rnn_tf_keras_2", "model", "simple_rnn_1"),
    ("simple_flatten_rnn_tf_keras_2", "model", "simple_rnn_1"),
]


@corpus
@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize(("name", "part", "layer"), RECORDED)
def test_weights_of_a_real_file_give_the_outputs_recorded_beside_it(
    name: str, part: str, layer: str, archived: bool, tmp_path: Path
) -> None:
    state = state_of(CORPUS / f"dl4j/{name}_{part}.h5", tmp_path, archived=archived)
    with h5py.File(CORPUS / f"dl4j/{name}_inputs_and_outputs.h5") as file:
        (x,) = (torch.tensor(values[()]) for values in file["inputs"].values())
        hidden = file[f"activations/{layer}"][()]
        expected = file["predictions/dense_1"][()]
    y = recurrent(x, state, layer)
    y = y if hidden.ndim == 3 else y[:, -1]
    np.testing.assert_allclose(y, hidden, rtol=0, atol=TOLERANCE)
    out = y.flatten(1) @ state["dense_1.weight"].mT + state["dense_1.bias"]
    assert oracles.deviation(out.numpy(), expected) < TOLERANCE


@corpus
def test_gates_in_another_order_give_other_outputs(tmp_path: Path) -> None:
    """The twin: the recorded outputs would tell if forget and cell gates were exchanged."""
    state = state_of(CORPUS / "dl4j/simple_lstm_tf_keras_1_model.h5", tmp_path, archived=False)
    swapped = {
        key: torch.cat([value.chunk(4)[n] for n in (0, 2, 1, 3)])
        if key.startswith("lstm")
        else value
        for key, value in state.items()
    }
    with h5py.File(CORPUS / "dl4j/simple_lstm_tf_keras_1_inputs_and_outputs.h5") as file:
        x = torch.tensor(file["inputs/lstm_input_1"][()])
        hidden = file["activations/lstm_1"][()]
    assert oracles.deviation(recurrent(x, swapped, "lstm_1")[:, -1].numpy(), hidden) > 0.01


@corpus
def test_weights_alone_hold_what_the_whole_model_does() -> None:
    """One has classes, in the other they follow from the arrays of the gates."""
    whole, alone = (
        kerasport.plan(
            kerasport.read(CORPUS / f"dl4j/simple_lstm_tf_keras_1_{part}.h5"), to="torch"
        )
        for part in ("model", "weights")
    )
    assert {note.kind for note in alone.notes} - {note.kind for note in whole.notes} == {"inferred"}
    expected = whole.apply()
    found = alone.apply()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name].numpy(), tensor.numpy())


# ------------------------------------------------- what tf_keras does with weights of Keras 1


Shape = tuple[int | None, ...]
Config = dict[str, Any]


def modern(name: str, **config: Any) -> Config:
    """The configuration of a layer of tf_keras."""
    return {"class_name": name, "config": config}


def taken_over(config: Config, shape: Shape, weights: Sequence[Array]) -> list[Array]:
    """Weights of Keras 1 as tf_keras takes them over; it has the code of Keras 2 for it."""
    import tf_keras
    from tf_keras.src.saving.legacy.hdf5_format import preprocess_weights_for_loading

    layer = tf_keras.layers.deserialize(config)
    layer.build(shape)
    found: list[Array] = preprocess_weights_for_loading(
        layer, [w.copy() for w in weights], original_keras_version="1", original_backend=None
    )
    return found


GATED = {"LSTM": "icfo", "GRU": "zrh"}


def gates(kind: str, i: int, unit: int, prefix: str = "") -> dict[str, Array]:
    """The arrays of a recurrent layer in the order in which Keras 1 stored them."""
    return {
        f"{prefix}{name}_{gate}": normal(*shape)
        for gate in GATED[kind]
        for name, shape in (("W", (i, unit)), ("U", (unit, unit)), ("b", (unit,)))
    }


IMAGES = {
    2: {
        "Convolution2D": "Conv2D",
        "AtrousConvolution2D": "Conv2D",
        "Deconvolution2D": "Conv2DTranspose",
    },
    3: {"Convolution3D": "Conv3D"},
}


def _images(bias: bool) -> Iterator[tuple[str, Stored, Config, Shape]]:
    """Layers with kernels, in either ordering."""
    b = {"b": normal(5)} if bias else {}
    for ordering, size in product(("tf", "th"), ((2, 7), (3, 3), (2, 7, 11))):
        first = ordering == "th"
        shape = (5, 3, *size) if first else (*size, 3, 5)
        extents = ("nb_row", "nb_col") if len(size) == 2 else WORDS[3]
        old = {
            **dict(zip(extents, size, strict=True)),
            "nb_filter": 5,
            "bias": bias,
            "dim_ordering": ordering,
        }
        new = {
            "filters": 5,
            "kernel_size": size,
            "use_bias": bias,
            "data_format": "channels_first" if first else "channels_last",
        }
        space = (13,) * len(size)
        for name, now in (
            (
                ("Convolution2D", "Conv2D"),
                ("AtrousConvolution2D", "Conv2D"),
                ("Deconvolution2D", "Conv2DTranspose"),
            )
            if len(size) == 2
            else (("Convolution3D", "Conv3D"),)
        ):
            yield (
                f"{name}, {ordering}, {size}{'' if bias else ', no bias'}",
                (name, old, {"W": normal(*shape), **b}),
                modern(now, **new),
                (None, 3, *space) if first else (None, *space, 3),
            )


def _others(bias: bool) -> Iterator[tuple[str, Stored, Config, Shape]]:
    """Layers of which only the names changed, and Convolution1D."""
    b = {"b": normal(5)} if bias else {}
    said = "" if bias else ", no bias"
    yield (
        f"Dense{said}",
        ("Dense", {"bias": bias, "output_dim": 5}, {"W": normal(3, 5), **b}),
        modern("Dense", units=5, use_bias=bias),
        (None, 3),
    )
    for name, shape in (("", (2, 1, 3, 5)), (" before 1.1", (5, 3, 2, 1))):
        old = {"nb_filter": 5, "filter_length": 2, "bias": bias}
        yield (
            f"Convolution1D{name}{said}",
            ("Convolution1D", old, {"W": normal(*shape), **b}),
            modern("Conv1D", filters=5, kernel_size=2, use_bias=bias),
            (None, 11, 3),
        )


def _recurrent() -> Iterator[tuple[str, Stored, Config, Shape]]:
    for i, unit in ((3, 5), (5, 5)):
        for kind in GATED:
            more = {"reset_after": False} if kind == "GRU" else {}
            yield (
                f"{kind}, {i} to {unit}",
                (kind, {"output_dim": unit}, gates(kind, i, unit)),
                modern(kind, units=unit, **more),
                (None, 4, i),
            )
    w = {"W": normal(3, 5), "U": normal(5, 5), "b": normal(5)}
    yield "SimpleRNN", ("SimpleRNN", {}, w), modern("SimpleRNN", units=5), (None, 4, 3)


def _wrapped() -> Iterator[tuple[str, Stored, Config, Shape]]:
    inner = {"name": "inner", "nb_row": 2, "nb_col": 7, "nb_filter": 5, "dim_ordering": "th"}
    new = {"filters": 5, "kernel_size": (2, 7), "data_format": "channels_first"}
    yield (
        "TimeDistributed Convolution2D, th",
        (
            "TimeDistributed",
            {"layer": {"class_name": "Convolution2D", "config": inner}},
            {"inner_W": normal(5, 3, 2, 7), "inner_b": normal(5)},
        ),
        modern("TimeDistributed", layer=modern("Conv2D", **new)),
        (None, 4, 3, 11, 13),
    )
    yield (
        "Bidirectional LSTM",
        (
            "Bidirectional",
            {"layer": {"class_name": "LSTM", "config": {"name": "inner", "output_dim": 5}}},
            {**gates("LSTM", 3, 5, "forward_inner_"), **gates("LSTM", 3, 5, "backward_inner_")},
        ),
        modern("Bidirectional", layer=modern("LSTM", units=5)),
        (None, 4, 3),
    )


WORDS = {
    1: ("filter_length",),
    2: ("nb_row", "nb_col"),
    3: tuple(f"kernel_dim{n}" for n in (1, 2, 3)),
}
OLD = {
    label: (stored, now, shape)
    for found in (
        *map(_images, (True, False)),
        *map(_others, (True, False)),
        _recurrent(),
        _wrapped(),
    )
    for label, stored, now, shape in found
}


# tf_keras has forgotten that Theano turned kernels, so for those there are other trials below.
TRIALS = [(label, "tensorflow") for label in OLD]
TRIALS += [(label, "theano") for label in OLD if "onv" not in label]


@pytest.mark.parametrize(("label", "backend"), TRIALS)
def test_old_weights_become_those_that_tf_keras_makes_of_them(
    label: str, backend: str, tmp_path: Path
) -> None:
    """Bit for bit."""
    stored, now, shape = OLD[label]
    wrapped = any(key.startswith(("inner", "forward")) for key in stored[2])
    path = write(
        tmp_path / "old.h5",
        [stored],
        backend=backend,
        names="{weight}" if wrapped else "{layer}_{weight}",
    )
    expected = taken_over(now, shape, [*stored[2].values()])
    found = list(tensors(path, "keras").values())
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_each_old_class_is_on_trial() -> None:
    tried = {stored[0] for stored, _, _ in OLD.values()}
    assert tried >= {
        *("Dense", "Convolution1D", "Convolution2D", "Convolution3D", "AtrousConvolution2D"),
        *("Deconvolution2D", "GRU", "LSTM", "SimpleRNN", "TimeDistributed", "Bidirectional"),
    }


def test_a_kernel_in_the_other_ordering_would_be_noticed(tmp_path: Path) -> None:
    """The twin: a square kernel of as many channels fits either way, and only values can tell."""
    w = normal(3, 3, 3, 3)
    config = {"nb_row": 3, "nb_col": 3, "nb_filter": 3}
    found = {
        ordering: tensors(
            write(
                tmp_path / f"{ordering}.h5",
                [("Convolution2D", {**config, "dim_ordering": ordering}, {"W": w, "b": normal(3)})],
            ),
            "keras",
        )["kernel"]
        for ordering in ("tf", "th")
    }
    assert not np.array_equal(found["tf"], found["th"])


@pytest.mark.parametrize("kind", GATED)
def test_gates_that_are_stored_as_one_are_cut_in_the_right_places(
    kind: str, tmp_path: Path
) -> None:
    """Layers made with `consume_less="gpu"` join their gates, already in today's order."""
    count = len(GATED[kind])
    w = {"W": normal(3, count * 5), "U": normal(5, count * 5), "b": normal(count * 5)}
    path = write(tmp_path / "gpu.h5", [(kind, {"consume_less": "gpu", "output_dim": 5}, w)])
    found = tensors(path, "keras")
    names = ("kernel", "recurrent_kernel", "bias")
    for old, new in zip(w, names, strict=True):
        np.testing.assert_array_equal(found[new], w[old])


# ----------------------------------------------- Theano: a convolution that deserves its name


def convolved(x: Array, w: Array) -> Array:
    """A true convolution by its definition, `x` of batch, channel and space, `w` of out, in, space.

    y[n, o, p] is the sum over channels c and offsets k of x[n, c, p + K - 1 - k] w[o, c, k].
    """
    sizes = w.shape[2:]
    space = tuple(n - k + 1 for n, k in zip(x.shape[2:], sizes, strict=True))
    y: Array = np.zeros((len(x), len(w), *space))
    for k in np.ndindex(*sizes):
        window = [
            slice(size - 1 - place, size - 1 - place + extent)
            for size, place, extent in zip(sizes, k, space, strict=True)
        ]
        seen = x[(slice(None), slice(None), *window)]
        y += np.einsum("nc...,oc->no...", seen, w[(slice(None), slice(None), *k)])
    return y


def correlated(x: Array, w: Array) -> Array:
    """What TensorFlow and PyTorch call a convolution."""
    return convolved(x, np.flip(w, tuple(range(2, w.ndim))))


def undone(x: Array, w: Array, step: Callable[[Array, Array], Array]) -> Array:
    """The gradient of a step with respect to its input: what a transposed convolution computes."""
    space = tuple(n + k - 1 for n, k in zip(x.shape[2:], w.shape[2:], strict=True))
    y = np.zeros((len(x), w.shape[1], *space))
    for place in np.ndindex(*y.shape[1:]):
        one = np.zeros((1, *y.shape[1:]))
        one[(0, *place)] = 1
        y[(slice(None), *place)] = (x * step(one, w)).reshape(len(x), -1).sum(1)
    return y


STEPS = {"tensorflow": correlated, "theano": convolved}
MODULES = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


def ordered(w: Array, ordering: str) -> Array:
    """A kernel of out, in, space as a file has it."""
    return w if ordering == "th" else np.moveaxis(w, (0, 1), (-1, -2))


@pytest.mark.parametrize("backend", STEPS)
@pytest.mark.parametrize("ordering", ["tf", "th"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_kernel_of_keras_1_convolves_as_its_backend_did(
    rank: int, ordering: str, backend: str, tmp_path: Path
) -> None:
    size = (2, 3, 2)[:rank]
    w, b, x = normal(5, 3, *size), normal(5), normal(2, 3, *(7, 5, 4)[:rank])
    expected = STEPS[backend](x, w) + b.reshape(-1, *(1,) * rank)
    # Convolution1D works on images that are one pixel wide.
    kept = ordered(w[..., None] if rank == 1 else w, ordering)
    config = {**dict(zip(WORDS[rank], size, strict=True)), "nb_filter": 5}
    if rank > 1:
        config["dim_ordering"] = ordering  # type: ignore[assignment]
    path = write(
        tmp_path / "old.h5",
        [(f"Convolution{rank}D", config, {"W": kept, "b": b})],
        backend=backend,
    )
    found = tensors(path, "torch")
    y = MODULES[rank](*(torch.tensor(v) for v in (x, found["weight"], found["bias"])))
    assert oracles.deviation(y.numpy(), expected) < TOLERANCE


@pytest.mark.parametrize("backend", STEPS)
@pytest.mark.parametrize("ordering", ["tf", "th"])
def test_a_deconvolution_of_keras_1_undoes_what_its_backend_did(
    ordering: str, backend: str, tmp_path: Path
) -> None:
    """`W` is the kernel of the convolution undone: what it takes, the deconvolution puts out.

    Keras 1 gave the kernel the axes `out in` of its own, and exchanged them before it used it.
    """
    w, b, x = normal(5, 3, 2, 4), normal(5), normal(2, 3, 4, 3)
    expected = undone(x, np.swapaxes(w, 0, 1), STEPS[backend]) + b.reshape(-1, 1, 1)
    config = {"nb_row": 2, "nb_col": 4, "nb_filter": 5, "dim_ordering": ordering}
    path = write(
        tmp_path / "old.h5",
        [("Deconvolution2D", config, {"W": ordered(w, ordering), "b": b})],
        backend=backend,
    )
    found = tensors(path, "torch")
    y = functional.conv_transpose2d(*(torch.tensor(v) for v in (x, found["weight"], found["bias"])))
    assert oracles.deviation(y.numpy(), expected) < TOLERANCE


@pytest.mark.parametrize("backend", STEPS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_kernel_of_keras_2_convolves_as_its_backend_did(
    rank: int, backend: str, tmp_path: Path
) -> None:
    """Keras 2 stores one order of axes for all; only the file's backend tells what it computed."""
    size = (2, 3, 2)[:rank]
    w, b, x = normal(5, 3, *size), normal(5), normal(2, 3, *(7, 5, 4)[:rank])
    path = write(
        tmp_path / "old.h5",
        [
            (
                f"Conv{rank}D",
                {"filters": 5, "kernel_size": size, "use_bias": True},
                {"kernel": ordered(w, "tf"), "bias": b},
            )
        ],
        backend=backend,
        version="2.1.3",
        names="{layer}/{weight}",
    )
    found = tensors(path, "torch")
    y = MODULES[rank](*(torch.tensor(v) for v in (x, found["weight"], found["bias"])))
    expected = STEPS[backend](x, w) + b.reshape(-1, *(1,) * rank)
    assert oracles.deviation(y.numpy(), expected) < TOLERANCE


@corpus
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("backend", STEPS)
def test_the_same_numbers_in_real_files_are_two_convolutions(backend: str, number: int) -> None:
    """Files of both backends and of Keras 1 and 2 hold one kernel, and nothing but whose it is."""
    path = CORPUS / f"dl4j/w_conv2d_{backend}_{number}.h5"
    (layer,) = kerasport.read(path)
    w, b = (values[()] for values in _datasets(path))
    x = normal(2, 5, 5, 5)
    expected = STEPS[backend](x, np.moveaxis(w, (-1, -2), (0, 1))) + b.reshape(-1, 1, 1)
    found = tensors(path, "torch")
    y = functional.conv2d(*(torch.tensor(v) for v in (x, found["weight"], found["bias"])))
    assert oracles.deviation(y.numpy(), expected) < TOLERANCE
    assert layer.startswith("conv")


def _datasets(path: Path) -> list[Array]:
    """The arrays of a file by rank, the kernel first, found by h5py alone."""
    found: list[Array] = []
    with h5py.File(path) as file:
        file["model_weights"].visititems(
            lambda name, item: found.append(item[()]) if isinstance(item, h5py.Dataset) else None
        )
    return sorted(found, key=lambda array: -array.ndim)


def test_the_two_convolutions_are_not_the_same() -> None:
    """The twin of all of the above: taken for the other backend's, a kernel gives other numbers."""
    x, w = normal(2, 3, 7, 5), normal(5, 3, 2, 3)
    assert oracles.deviation(convolved(x, w), correlated(x, w)) > 0.1
    y = functional.conv2d(torch.tensor(x), torch.tensor(w)).numpy()
    assert oracles.deviation(y, correlated(x, w)) < TOLERANCE


def test_depthwise_kernels_of_theano_are_not_turned(tmp_path: Path) -> None:
    """Keras 2 turned those itself before it gave them to Theano."""
    w = {
        "depthwise_kernel": normal(2, 3, 5, 2),
        "pointwise_kernel": normal(1, 1, 10, 7),
        "bias": normal(7),
    }
    config = {"filters": 7, "kernel_size": [2, 3], "depth_multiplier": 2, "use_bias": True}
    for backend in STEPS:
        path = write(
            tmp_path / f"{backend}.h5",
            [("SeparableConv2D", config, w)],
            backend=backend,
            version="2.1.3",
            names="{layer}/{weight}",
        )
        np.testing.assert_array_equal(
            tensors(path, "keras")["depthwise_kernel"], w["depthwise_kernel"]
        )


def test_a_theano_model_with_channels_first_is_one_of_pytorch_too(tmp_path: Path) -> None:
    """Its Flatten gives channels before pixels, as PyTorch's does: no row of Dense moves."""
    w, b, x = normal(5, 3, 2, 4), normal(5), normal(2, 3, 7, 5)
    kernel, bias = normal(5 * 6 * 2, 11), normal(11)
    layers: list[Stored] = [
        (
            "Convolution2D",
            {
                "nb_row": 2,
                "nb_col": 4,
                "nb_filter": 5,
                "dim_ordering": "th",
                "border_mode": "valid",
                "batch_input_shape": [None, 3, 7, 5],
            },
            {"W": w, "b": b},
        ),
        ("Flatten", {}, {}),
        ("Dense", {"output_dim": 11}, {"W": kernel, "b": bias}),
    ]
    path = write(tmp_path / "old.h5", layers, backend="theano")
    features = (convolved(x, w) + b.reshape(-1, 1, 1)).reshape(2, -1)
    expected = features @ kernel + bias
    steps = kerasport.plan(kerasport.read(path), to="torch")
    state = {name: torch.tensor(t.numpy()) for name, t in steps.apply().items()}
    y = functional.conv2d(torch.tensor(x), state["layer_1.weight"], state["layer_1.bias"])
    y = functional.linear(y.flatten(1), state["layer_3.weight"], state["layer_3.bias"])
    assert oracles.deviation(y.numpy(), expected) < TOLERANCE


def test_a_model_with_channels_last_has_its_rows_put_in_order(tmp_path: Path) -> None:
    """The twin: with TensorFlow's ordering the same Dense takes pixels before channels."""
    w, b, x = normal(2, 4, 3, 5), normal(5), normal(2, 7, 5, 3)
    kernel, bias = normal(6 * 2 * 5, 11), normal(11)
    layers: list[Stored] = [
        (
            "Convolution2D",
            {
                "nb_row": 2,
                "nb_col": 4,
                "nb_filter": 5,
                "dim_ordering": "tf",
                "border_mode": "valid",
                "batch_input_shape": [None, 7, 5, 3],
            },
            {"W": w, "b": b},
        ),
        ("Flatten", {}, {}),
        ("Dense", {"output_dim": 11}, {"W": kernel, "b": bias}),
    ]
    path = write(tmp_path / "old.h5", layers)
    seen = np.moveaxis(x, -1, 1)
    features = correlated(seen, np.moveaxis(w, (-1, -2), (0, 1))) + b.reshape(-1, 1, 1)
    expected = np.moveaxis(features, 1, -1).reshape(2, -1) @ kernel + bias
    steps = kerasport.plan(kerasport.read(path), to="torch")
    assert "reordered" in {note.kind for note in steps.notes}
    state = {name: torch.tensor(t.numpy()) for name, t in steps.apply().items()}
    y = functional.conv2d(torch.tensor(seen), state["layer_1.weight"], state["layer_1.bias"])
    y = functional.linear(y.flatten(1), state["layer_3.weight"], state["layer_3.bias"])
    assert oracles.deviation(y.numpy(), expected) < TOLERANCE


# --------------------------------------------------------------- what is said, and what is refused


CONVOLUTION: Stored = (
    "Convolution2D",
    {"nb_row": 2, "nb_col": 7, "nb_filter": 5, "dim_ordering": "tf"},
    {"W": normal(2, 7, 3, 5), "b": normal(5)},
)


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        (
            "tensorflow",
            "the names of its weights are TensorFlow's, which takes kernels as they are",
        ),
        (
            "theano",
            "the names of its weights are Theano's, which turns kernels by 180 degrees: it is "
            "turned back",
        ),
    ],
)
def test_a_note_says_whose_kernel_it_was_taken_to_be(
    backend: str, message: str, tmp_path: Path
) -> None:
    snapshot = kerasport.read(write(tmp_path / "old.h5", [CONVOLUTION], backend=backend))
    assert snapshot.source.backend == backend
    for to in ("keras", "torch", "onnx"):
        (note,) = (n for n in kerasport.plan(snapshot, to=to).notes if n.kind == "inferred")
        assert (note.subject, note.message, note.loss) == ("layer_1", message, False)


def test_a_note_says_that_the_file_names_theano(tmp_path: Path) -> None:
    layer: Stored = (
        "Conv2D",
        {"filters": 5, "kernel_size": [2, 7]},
        {"kernel": normal(2, 7, 3, 5), "bias": normal(5)},
    )
    path = write(
        tmp_path / "m.h5", [layer], backend="theano", version="2.1.3", names="{layer}/{weight}"
    )
    (note,) = kerasport.plan(kerasport.read(path), to="torch").notes
    assert str(note) == (
        "layer_1: the file says that its backend was Theano, which turns kernels by 180 degrees: "
        "it is turned back"
    )


def test_a_backend_that_nothing_shows_is_assumed_and_said_to_be() -> None:
    """Other containers may hold weights of Keras 1, without the names that TensorFlow gave."""
    from kerasport.identify import identify

    weights = {key: Tensor.of(f"it/{key}", value) for key, value in CONVOLUTION[2].items()}
    layer = Layer("it", *CONVOLUTION[:2], weights)
    steps = plan(identify(Snapshot(Source("some.npz", "npz"), (layer,))), to="torch")
    (note,) = steps.notes
    assert note.message == (
        "nothing in the file says which backend it was trained on: its kernel is taken as "
        "TensorFlow's, and Theano's would be turned by 180 degrees"
    )


def test_names_without_a_number_are_theanos_only_in_files_of_keras_1(tmp_path: Path) -> None:
    """Keras 3 puts no number behind names either."""
    layer: Stored = ("Dense", {"units": 5}, {"kernel": normal(3, 5), "bias": normal(5)})
    path = write(tmp_path / "m.h5", [layer], backend="none", names="{layer}/{weight}", whole=False)
    assert kerasport.read(path).source.backend is None


def test_where_no_ordering_is_said_the_shape_decides_if_it_can(tmp_path: Path) -> None:
    config = {"nb_row": 2, "nb_col": 7, "nb_filter": 5}
    for shape, layout in (((2, 7, 3, 5), "kh kw in out"), ((5, 3, 2, 7), "out in kh kw")):
        weights = {"W": normal(*shape), "b": normal(5)}
        path = write(tmp_path / "m.h5", [("Convolution2D", config, weights)])
        assert str(kerasport.read(path)["layer_1"].weights["W"].layout) == layout


def test_where_no_ordering_is_said_and_both_fit_nothing_is_guessed(tmp_path: Path) -> None:
    config = {"nb_row": 3, "nb_col": 3, "nb_filter": 3}
    weights = {"W": normal(3, 3, 3, 3), "b": normal(3)}
    layer = kerasport.read(write(tmp_path / "m.h5", [("Convolution2D", config, weights)]))[
        "layer_1"
    ]
    assert layer.kind is None
    assert layer.note == (
        "the stored tensors fit Conv2D with W, b laid out as 'kh kw in out' or 'out in kh kw'; "
        "give the architecture with --config"
    )


def test_weights_alone_are_of_a_kind_if_somebody_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "w.h5", [CONVOLUTION], whole=False, backend="theano")
    assert kerasport.read(path)["layer_1"].kind is None
    found = kerasport.read(path, kinds={"layer_1": "Convolution2D"})["layer_1"]
    assert (found.kind, str(found.weights["W"].layout)) == ("Conv2D", "-kh -kw in out")


def test_both_directions_are_known_in_weights_alone(tmp_path: Path) -> None:
    """Without a configuration nothing names the layer inside, but its gates say what it is."""
    stored, *_ = OLD["Bidirectional LSTM"]
    path = write(tmp_path / "w.h5", [stored], whole=False, names="{weight}")
    layer = kerasport.read(path)["layer_1"]
    assert (layer.kind, layer.inferred) == ("BidirectionalLSTM", True)
    whole = write(tmp_path / "m.h5", [stored], names="{weight}")
    for name, value in tensors(whole, "torch").items():
        np.testing.assert_array_equal(tensors(path, "torch")[name], value)


def test_a_batch_normalization_has_its_variance_under_another_name(tmp_path: Path) -> None:
    """The backends returned the variance where the layer spoke of `std`."""
    w = {name: normal(5) for name in ("gamma", "beta", "running_mean", "running_std")}
    path = write(tmp_path / "m.h5", [("BatchNormalization", {"mode": 0, "axis": 1}, w)])
    found = tensors(path, "keras")
    assert list(found) == ["gamma", "beta", "moving_mean", "moving_variance"]
    for ours, theirs in zip(found.values(), w.values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    found = tensors(path, "torch")
    np.testing.assert_array_equal(found["running_var"], w["running_std"])


@pytest.mark.parametrize("mode", [1, 2])
def test_a_normalization_by_its_own_statistics_is_no_batch_normalization(
    mode: int, tmp_path: Path
) -> None:
    w = {name: normal(5) for name in ("gamma", "beta", "running_mean", "running_std")}
    path = write(tmp_path / "m.h5", [("BatchNormalization", {"mode": mode, "axis": 1}, w)])
    snapshot = kerasport.read(path)
    assert snapshot["layer_1"].note == (
        f"mode {mode} of Keras 1 normalizes by the statistics of its input at all times and never "
        "by those that it stores, so it is no BatchNormalization; --to keras passes its tensors on "
        "as stored"
    )
    assert len(plan(snapshot, to="torch").problems) == 1
    assert plan(snapshot, to="keras").problems == ()


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("Highway", {"W": (5, 5), "W_carry": (5, 5), "b": (5,), "b_carry": (5,)}),
        ("MaxoutDense", {"W": (4, 3, 5), "b": (4, 5)}),
        ("ParametricSoftplus", {"alphas": (3, 5), "betas": (3, 5)}),
        ("SReLU", dict.fromkeys(("t_left", "a_left", "t_right", "a_right"), (5, 3, 7))),
    ],
)
def test_a_layer_that_keras_gave_up_is_archived_as_it_was(
    name: str, weights: Mapping[str, tuple[int, ...]], tmp_path: Path
) -> None:
    arrays = {key: normal(*shape) for key, shape in weights.items()}
    path = write(tmp_path / "m.h5", [(name, {}, arrays)])
    kind = kerasport.read(path)["layer_1"].kind
    assert kind is not None
    assert kind.startswith(name)
    archive = tmp_path / "archive.safetensors"
    kerasport.convert(path, archive, to="keras")
    kerasport.verify(archive, against=path)
    for key, value in tensors(path, "keras").items():
        np.testing.assert_array_equal(value, arrays[key])


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("layer", [oracles.ParametricSoftplus, oracles.SReLU])
def test_the_module_of_an_activation_that_keras_gave_up_gives_what_keras_1_gave(
    layer: type[oracles.PerPosition], rank: int, tmp_path: Path
) -> None:
    shape = (3, 5, 7)[:rank]
    own = layer(())
    x = normal(2, *shape)
    own.build(x.shape)
    arrays = {role: normal(*shape) for role in layer.roles}
    own.set_weights([*arrays.values()])
    config = {"batch_input_shape": [None, *shape]}
    path = write(tmp_path / "m.h5", [(layer.__name__, config, arrays)])
    module = load_module(path)
    given = torch.from_numpy(np.moveaxis(x, -1, 1).copy() if rank > 2 else x)
    found = module(given).detach().numpy()
    found = np.moveaxis(found, 1, -1) if rank > 2 else found
    np.testing.assert_allclose(found, np.asarray(own(x)), atol=1e-6)


def test_the_gates_of_a_convolutional_lstm_are_the_same_in_either_ordering(tmp_path: Path) -> None:
    """tf_keras joins those of Theano's ordering along an axis of pixels, which nothing undoes."""
    config = {"nb_row": 2, "nb_col": 7, "nb_filter": 5}
    w = gates("LSTM", 3, 5)
    w |= {key: normal(2, 7, *value.shape) for key, value in w.items() if key[0] != "b"}
    expected = taken_over(
        modern("ConvLSTM2D", filters=5, kernel_size=(2, 7)), (None, 4, 13, 13, 3), [*w.values()]
    )
    turned = {key: np.moveaxis(v, (-1, -2), (0, 1)) if v.ndim > 1 else v for key, v in w.items()}
    for ordering, weights in (("tf", w), ("th", turned)):
        layer: Stored = ("ConvLSTM2D", {**config, "dim_ordering": ordering}, weights)
        path = write(tmp_path / f"{ordering}.h5", [layer])
        for ours, theirs in zip(tensors(path, "keras").values(), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        path = write(tmp_path / f"{ordering}_theano.h5", [layer], backend="theano")
        for ours, theirs in zip(tensors(path, "keras").values(), expected, strict=True):
            back = np.flip(theirs, (0, 1)) if theirs.ndim > 1 else theirs
            np.testing.assert_array_equal(ours, back)


def test_a_locally_connected_layer_has_a_bias_of_its_ordering(tmp_path: Path) -> None:
    config = {"nb_row": 2, "nb_col": 7, "nb_filter": 5}
    bias = normal(11, 3, 5)
    w = normal(11 * 3, 2 * 7 * 2, 5)
    for ordering, b in (("tf", bias), ("th", np.moveaxis(bias, -1, 0))):
        layer: Stored = (
            "LocallyConnected2D",
            {**config, "dim_ordering": ordering},
            {"W": w, "b": b},
        )
        found = tensors(write(tmp_path / f"{ordering}.h5", [layer]), "keras")
        np.testing.assert_array_equal(found["kernel"], w)
        # Of today's bias with channels first, Keras takes the elements in the order of channels.
        np.testing.assert_array_equal(found["bias"], b.reshape(bias.shape))
    layer = ("LocallyConnected1D", {"filter_length": 2, "nb_filter": 5}, {})
    weights = {"W": normal(11, 2 * 3, 5), "b": normal(11, 5)}
    found = tensors(write(tmp_path / "1d.h5", [(*layer[:2], weights)]), "keras")
    np.testing.assert_array_equal(found["kernel"], weights["W"])


@pytest.mark.parametrize(("ordering", "layout"), [("tf", "height width channel"), ("th", "")])
def test_slopes_are_in_the_order_of_the_images_around_them(
    ordering: str, layout: str, tmp_path: Path
) -> None:
    """The layer itself has no option for it."""
    w = normal(3, 5, 7)
    layers: list[Stored] = [
        ("MaxPooling2D", {"dim_ordering": ordering}, {}),
        ("Convolution2D", {**CONVOLUTION[1], "dim_ordering": ordering}, {"W": normal(5, 2, 2, 7)}),
        ("PReLU", {}, {"alphas": w}),
    ]
    found = kerasport.read(write(tmp_path / "m.h5", layers))["layer_3"]
    assert str(found.weights["alphas"].layout) == (layout or "channel height width")


def test_what_does_not_fit_is_said_in_the_words_of_its_own_time(tmp_path: Path) -> None:
    w = {"W": normal(2, 7, 3, 5), "b": normal(7)}
    path = write(tmp_path / "m.h5", [("Convolution2D", {"dim_ordering": "tf"}, w)])
    assert "Conv2D: b: layout 'out' does not fit shape [7]" in kerasport.read(path)["layer_1"].note


# --------------------------------------------------------------------------------------- archives


def test_an_archive_is_in_the_layout_of_today_and_says_how_it_came_to_it(tmp_path: Path) -> None:
    stored, *_ = OLD["LSTM, 3 to 5"]
    path = write(tmp_path / "old.h5", [stored])
    archive = tmp_path / "archive.safetensors"
    report = kerasport.convert(path, archive, to="keras")
    assert (report.placed, report.tensors) == (12, 3)
    assert kerasport.verify(archive, against=path).placed == 12
    layer = kerasport.read(archive)["layer_1"]
    assert (layer.kind, list(layer.weights)) == ("LSTM", ["kernel", "recurrent_kernel", "bias"])
    w = stored[2]
    joined = np.concatenate([w[f"W_{gate}"] for gate in "ifco"], 1)
    np.testing.assert_array_equal(layer.weights["kernel"].numpy(), joined)


def test_an_archive_of_turned_kernels_is_verified_against_the_file(tmp_path: Path) -> None:
    """And the twin: it does not hold what the same numbers are under TensorFlow's name."""
    theano = write(tmp_path / "theano.h5", [CONVOLUTION], backend="theano")
    archive = tmp_path / "archive.safetensors"
    kerasport.convert(theano, archive, to="keras")
    kerasport.verify(archive, against=theano)
    kernel = kerasport.read(archive)["layer_1"].weights["kernel"]
    np.testing.assert_array_equal(kernel.numpy(), CONVOLUTION[2]["W"][::-1, ::-1])
    once = tensors(theano, "torch")
    again = tensors(archive, "torch")
    for name, value in once.items():
        np.testing.assert_array_equal(again[name], value)


def test_a_part_of_an_old_layer_is_archived_as_it_is(tmp_path: Path) -> None:
    """Without one of its gates there is no kernel of today."""
    stored, *_ = OLD["LSTM, 3 to 5"]
    path = write(tmp_path / "old.h5", [stored])
    part = select(kerasport.read(path), exclude=["layer_1/W_f"])
    archive = tmp_path / "archive.safetensors"
    kerasport.convert(part, archive, to="keras")
    kerasport.verify(archive, against=part)
    layer = kerasport.read(archive)["layer_1"]
    assert layer.kind is None
    np.testing.assert_array_equal(layer.weights["W_i"].numpy(), stored[2]["W_i"])


# ------------------------------------------------------- every row of the tables, there and back


BRACES = {
    **{words: words for words in ("length channel", "height width channel")},
    "depth height width channel": "depth height width channel",
}


def _rows() -> list[tuple[str, str, int]]:
    return [
        (name, kind, number)
        for name in ("keras1", "theano")
        for kind, row in convention(name).items()
        for number, case in enumerate(rows(row))
        if isinstance(case.slots, tuple)
    ]


@st.composite
def layers(draw: st.DrawFn, name: str, kind: str, number: int) -> Snapshot:
    """A layer of a row with any sizes, as a file of that convention holds it."""
    case: Case = list(rows(convention(name)[kind]))[number]
    assert isinstance(case.slots, tuple)
    slots: tuple[Slot, ...] = case.slots
    words = {**BRACES, "window": "(k in)", "bias": "position out"}
    if "2D" in kind:
        words |= {"window": "(kh kw in)", "bias": "row column out"}
    layouts = {s.name: Layout.parse(s.layout.format_map(words)) for s in slots}
    axes = dict.fromkeys(axis for layout in layouts.values() for axis in layout.axes)
    sizes = {axis: draw(st.integers(1, 5)) for axis in axes}
    if "hidden" in sizes:
        sizes["hidden"] = sizes["unit"]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    weights = {
        s.name: Tensor.of(
            f"it/{s.name}",
            rng.normal(size=layouts[s.name].shape(sizes)).astype(np.float32),
            layout=layouts[s.name],
            at=s.pins,
            role=s.name,
        )
        for s in slots
    }
    layer = Layer("it", None, {}, weights, kind=kind, sizes=sizes, words=words, convention=name)
    return Snapshot(Source("any", "memory"), (layer,))


@pytest.mark.parametrize(("name", "kind", "number"), _rows())
@settings(max_examples=12)
@given(data=st.data())
def test_any_old_layer_comes_back(name: str, kind: str, number: int, data: st.DataObject) -> None:
    found = data.draw(layers(name, kind, number))
    for to in ("keras", "torch", "onnx"):
        steps = plan(found, to=to)
        if steps.problems:
            assert to == "torch"
            continue
        back = oracles.returned(steps)
        assert back.keys() == {tensor.name for tensor in found.tensors}
        for tensor in found.tensors:
            np.testing.assert_array_equal(back[tensor.name], tensor.numpy())


def test_nothing_is_written_in_an_old_convention(tmp_path: Path) -> None:
    snapshot = kerasport.read(write(tmp_path / "old.h5", [CONVOLUTION]))
    with pytest.raises(kerasport.KerasportError, match="unknown convention 'keras1'"):
        kerasport.plan(snapshot, to="keras1")
