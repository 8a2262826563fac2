"""Weights behind a flattened image arrive in the order in which the target flattens it.

Each oracle is a Keras model with random weights, and the same model written by hand in PyTorch as
its users write it: channels first, `torch.flatten`, the exported tensors loaded with
`strict=True`. Its twin keeps the rows as Keras has them and must be far off, or the test would
prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from kerasport.api import convert, read, verify
from kerasport.flatten import Flattened, flattened
from kerasport.identify import identify
from kerasport.model import Layer, Note, Snapshot, Source, Tensor
from kerasport.transpose import plan

L = keras.layers
Array = npt.NDArray[Any]
Hand = Callable[..., torch.Tensor]


def seeded(model: keras.Model) -> keras.Model:
    """Weights that are all of them unlike; variances stay positive."""
    rng = np.random.default_rng(7)
    for weight in model.weights:
        value = rng.normal(0, 0.4, weight.shape).astype("float32")
        weight.assign(np.abs(value) + 0.5 if "variance" in weight.path else value)
    return model


def channels_first(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(-1, 1)


def torch_modules(model: keras.Model, *, keep: bool = False) -> nn.ModuleDict:
    """A module for each layer with weights, from its Keras options, with the exported tensors."""
    steps = plan(read(model), to="torch", flatten="keep" if keep else "reorder")
    steps.refuse_losses()
    state = {name: torch.tensor(t.numpy()) for name, t in steps.apply().items()}
    holder = nn.ModuleDict()
    for layer in leaves(model):
        if (module := module_of(layer)) is not None:
            holder[layer.name] = module
    # Layers of nested models are named by their path; here they hang side by side.
    flat = {".".join(name.split(".")[-2:]): tensor for name, tensor in state.items()}
    assert len(flat) == len(state)
    holder.load_state_dict(flat, strict=True)
    return holder.eval()


def leaves(model: keras.Model) -> list[keras.Layer]:
    found: list[keras.Layer] = []
    for layer in model.layers:
        if isinstance(layer, L.TimeDistributed) and isinstance(layer.layer, keras.Model):
            found += leaves(layer.layer)
        else:
            found += leaves(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def module_of(layer: keras.Layer) -> nn.Module | None:
    own = layer.layer if isinstance(layer, L.TimeDistributed) else layer
    match own:
        case L.Dense():
            return nn.Linear(own.kernel.shape[0], own.units)
        case L.Conv1D() | L.Conv2D() | L.Conv3D():
            make = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[own.rank - 1]
            return make(own.kernel.shape[-2], own.filters, own.kernel_size)
        case L.BatchNormalization():
            return nn.BatchNorm1d(own.gamma.shape[0], eps=own.epsilon)
        case L.LayerNormalization():
            return nn.LayerNorm(own.gamma.shape[0], eps=own.epsilon)
        case L.PReLU():
            return nn.PReLU(own.alpha.shape[0])
        case L.Embedding():
            return nn.Embedding(own.input_dim, own.output_dim)
        case L.LSTM():
            return nn.LSTM(own.cell.kernel.shape[0], own.units, batch_first=True)
    return None


# ------------------------------------------------------------------------------------ the oracles


def dense_behind_an_image() -> tuple[keras.Model, Hand]:
    x = keras.Input((5, 7, 3))
    y = L.Conv2D(11, (2, 3), name="conv")(x)
    y = L.Dense(13, name="dense")(L.Flatten()(y))

    def hand(m: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
        return m["dense"](m["conv"](channels_first(x)).flatten(1))

    return keras.Model(x, y), hand


def dense_behind_an_input() -> tuple[keras.Model, Hand]:
    model = keras.Sequential([keras.Input((5, 7, 3)), L.Flatten(), L.Dense(13, name="dense")])
    return model, lambda m, x: m["dense"](channels_first(x).flatten(1))


def dense_behind_a_reshape_to_a_vector() -> tuple[keras.Model, Hand]:
    x = keras.Input((5, 7, 3))
    y = L.Conv2D(11, (2, 3), name="conv")(x)
    y = L.Dense(13, name="dense")(L.Reshape((-1,))(y))
    return keras.Model(x, y), lambda m, x: m["dense"](m["conv"](channels_first(x)).flatten(1))


def layers_in_between() -> tuple[keras.Model, Hand]:
    x = keras.Input((5, 7, 3))
    y = L.MaxPooling2D((2, 1))(L.Conv2D(11, (2, 3), activation="relu", name="conv")(x))
    y = L.BatchNormalization(name="norm")(L.Flatten()(y))
    y = L.PReLU(name="slope")(L.Dropout(0.5)(L.Activation("tanh")(y)))
    y = L.LayerNormalization(name="layer_norm")(y)
    y = L.Dense(13, name="dense")(y)

    def hand(m: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(m["conv"](channels_first(x)))
        y = torch.max_pool2d(y, (2, 1)).flatten(1)
        y = m["slope"](torch.tanh(m["norm"](y)))
        return m["dense"](m["layer_norm"](y))

    return keras.Model(x, y), hand


def branches_end_to_end() -> tuple[keras.Model, Hand]:
    image, other, plain = keras.Input((5, 7, 3)), keras.Input((4, 3, 2)), keras.Input((17,))
    a = L.Flatten()(L.Conv2D(11, (2, 3), name="conv_a")(image))
    b = L.Dropout(0.1)(L.Flatten()(L.Conv2D(5, (2, 2), name="conv_b")(other)))
    c = L.Dense(13, name="dense_c")(plain)
    y = L.BatchNormalization(name="norm")(L.Concatenate()([a, c, b]))
    y = L.Dense(7, name="dense")(L.Concatenate(axis=1)([y, plain]))

    def hand(
        m: nn.ModuleDict, image: torch.Tensor, other: torch.Tensor, plain: torch.Tensor
    ) -> torch.Tensor:
        a = m["conv_a"](channels_first(image)).flatten(1)
        b = m["conv_b"](channels_first(other)).flatten(1)
        y = m["norm"](torch.cat([a, m["dense_c"](plain), b], 1))
        return m["dense"](torch.cat([y, plain], 1))

    return keras.Model([image, other, plain], y), hand


def sum_of_two_flattened_images() -> tuple[keras.Model, Hand]:
    x = keras.Input((5, 7, 3))
    a = L.Flatten()(L.Conv2D(11, (2, 3), name="conv_a")(x))
    b = L.Flatten()(L.Conv2D(11, (2, 3), name="conv_b")(x))
    y = L.Dense(7, name="dense")(L.Add()([a, keras.ops.tanh(b)]))

    def hand(m: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
        x = channels_first(x)
        return m["dense"](m["conv_a"](x).flatten(1) + torch.tanh(m["conv_b"](x).flatten(1)))

    return keras.Model(x, y), hand


def nested_models() -> tuple[keras.Model, Hand]:
    """The image is flattened in one model and used in another, which is called twice."""
    inner = keras.Input((5, 7, 3))
    trunk = keras.Model(inner, L.Flatten()(L.Conv2D(11, (2, 3), name="conv")(inner)), name="trunk")
    head = keras.Sequential([L.BatchNormalization(name="norm"), L.Dense(13, name="dense")])
    outer = keras.Sequential([trunk, L.Dropout(0.5)])
    a, b = keras.Input((5, 7, 3)), keras.Input((5, 7, 3))
    y = L.Concatenate()([head(outer(a)), head(outer(b))])

    def hand(m: nn.ModuleDict, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        parts = [m["norm"](m["conv"](channels_first(x)).flatten(1)) for x in (a, b)]
        return torch.cat([m["dense"](part) for part in parts], 1)

    return keras.Model([a, b], y), hand


def image_in_one_dimension() -> tuple[keras.Model, Hand]:
    model = keras.Sequential(
        [
            keras.Input((13, 3)),
            L.Conv1D(5, 3, name="conv"),
            L.AveragePooling1D(2),
            L.Flatten(),
            L.Dense(7, name="dense"),
        ]
    )

    def hand(m: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
        y = torch.avg_pool1d(m["conv"](channels_first(x)), 2)
        return m["dense"](y.flatten(1))

    return model, hand


def image_in_three_dimensions() -> tuple[keras.Model, Hand]:
    model = keras.Sequential(
        [
            keras.Input((3, 4, 5, 2)),
            L.Conv3D(7, (2, 2, 3), name="conv"),
            L.Flatten(),
            L.Dense(11, name="dense"),
        ]
    )
    return model, lambda m, x: m["dense"](m["conv"](channels_first(x)).flatten(1))


def images_in_steps() -> tuple[keras.Model, Hand]:
    """Each step is an image; its features go into an LSTM, and all of them into a Dense."""
    x = keras.Input((3, 5, 7, 2))
    y = L.TimeDistributed(L.Conv2D(11, (2, 3)), name="conv")(x)
    steps = L.TimeDistributed(L.Flatten())(y)
    read_ = L.LSTM(13, name="lstm")(steps)
    whole = L.Dense(5, name="dense")(L.Flatten()(y))
    each = L.TimeDistributed(L.Dense(3), name="each")(steps)
    again = L.Dense(2, name="again")(L.Flatten()(steps))
    y = L.Concatenate()([read_, whole, L.Flatten()(each), again])

    def hand(m: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
        y = torch.stack([m["conv"](channels_first(step)) for step in x.unbind(1)], 1)
        steps = y.flatten(2)
        last = m["lstm"](steps)[0][:, -1]
        parts = (last, m["dense"](y.flatten(1)), m["each"](steps).flatten(1))
        return torch.cat([*parts, m["again"](steps.flatten(1))], 1)

    return keras.Model(x, y), hand


def a_model_in_steps() -> tuple[keras.Model, Hand]:
    inner = keras.Sequential(
        [
            keras.Input((5, 7, 2)),
            L.Conv2D(11, (2, 3), name="conv"),
            L.Flatten(),
            L.Dense(13, name="dense"),
        ]
    )
    x = keras.Input((3, 5, 7, 2))
    y = L.LSTM(5, name="lstm")(L.TimeDistributed(inner)(x))

    def hand(m: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
        steps = [m["conv"](channels_first(step)).flatten(1) for step in x.unbind(1)]
        return m["lstm"](m["dense"](torch.stack(steps, 1)))[0][:, -1]

    return keras.Model(x, y), hand


def flatten_that_puts_channels_last() -> tuple[keras.Model, Hand]:
    """`Flatten(data_format="channels_first")` takes channels first and puts out (space channel)."""
    model = keras.Sequential(
        [
            keras.Input((3, 5, 7)),
            L.Flatten(data_format="channels_first"),
            L.Dense(13, name="dense"),
        ]
    )
    return model, lambda m, x: m["dense"](x.flatten(1))


REORDERED = [
    dense_behind_an_image,
    dense_behind_an_input,
    dense_behind_a_reshape_to_a_vector,
    layers_in_between,
    branches_end_to_end,
    sum_of_two_flattened_images,
    nested_models,
    image_in_one_dimension,
    image_in_three_dimensions,
    images_in_steps,
    a_model_in_steps,
    flatten_that_puts_channels_last,
]


def words_then_flatten() -> tuple[keras.Model, Hand]:
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            L.Embedding(11, 3, name="words"),
            L.Flatten(),
            L.Dense(7, name="dense"),
        ]
    )
    return model, lambda m, x: m["dense"](m["words"](x.long()).flatten(1))


def sequence_then_flatten() -> tuple[keras.Model, Hand]:
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            L.LSTM(7, return_sequences=True, name="lstm"),
            L.Flatten(),
            L.Dense(11, name="dense"),
        ]
    )
    return model, lambda m, x: m["dense"](m["lstm"](x)[0].flatten(1))


def convolution_then_sequence_then_flatten() -> tuple[keras.Model, Hand]:
    model = keras.Sequential(
        [
            keras.Input((13, 3)),
            L.Conv1D(5, 3, name="conv"),
            L.LSTM(7, return_sequences=True, name="lstm"),
            L.Flatten(),
            L.Dense(11, name="dense"),
        ]
    )

    def hand(m: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
        y = m["lstm"](m["conv"](channels_first(x)).movedim(1, -1))[0]
        return m["dense"](y.flatten(1))

    return model, hand


def table_then_flatten() -> tuple[keras.Model, Hand]:
    model = keras.Sequential([keras.Input((5, 3)), L.Flatten(), L.Dense(7, name="dense")])
    return model, lambda m, x: m["dense"](x.flatten(1))


def image_of_one_channel() -> tuple[keras.Model, Hand]:
    model = keras.Sequential([keras.Input((5, 3, 1)), L.Flatten(), L.Dense(7, name="dense")])
    return model, lambda m, x: m["dense"](channels_first(x).flatten(1))


def image_of_one_pixel() -> tuple[keras.Model, Hand]:
    model = keras.Sequential(
        [
            keras.Input((2, 3, 5)),
            L.Conv2D(7, (2, 3), name="conv"),
            L.Flatten(),
            L.Dense(11, name="dense"),
        ]
    )
    return model, lambda m, x: m["dense"](m["conv"](channels_first(x)).flatten(1))


def image_pooled_away() -> tuple[keras.Model, Hand]:
    model = keras.Sequential(
        [
            keras.Input((5, 7, 3)),
            L.Conv2D(7, (2, 3), name="conv"),
            L.GlobalAveragePooling2D(),
            L.Flatten(),
            L.Dense(11, name="dense"),
        ]
    )
    return model, lambda m, x: m["dense"](m["conv"](channels_first(x)).mean((2, 3)))


def channels_put_first_by_permute() -> tuple[keras.Model, Hand]:
    model = keras.Sequential(
        [
            keras.Input((5, 7, 3)),
            L.Conv2D(11, (2, 3), name="conv"),
            L.Permute((3, 1, 2)),
            L.Flatten(),
            L.Dense(13, name="dense"),
        ]
    )
    return model, lambda m, x: m["dense"](m["conv"](channels_first(x)).flatten(1))


def image_as_a_sequence() -> tuple[keras.Model, Hand]:
    """Rows as steps: reshaped in Keras's order, on channels that were put last."""
    model = keras.Sequential(
        [
            keras.Input((5, 7, 3)),
            L.Conv2D(11, (2, 3), name="conv"),
            L.Reshape((4, 55)),
            L.LSTM(13, name="lstm"),
        ]
    )

    def hand(m: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
        y = m["conv"](channels_first(x)).movedim(1, -1).flatten(2)
        return m["lstm"](y)[0][:, -1]

    return model, hand


KEPT = [
    words_then_flatten,
    sequence_then_flatten,
    convolution_then_sequence_then_flatten,
    table_then_flatten,
    image_of_one_channel,
    image_of_one_pixel,
    image_pooled_away,
    channels_put_first_by_permute,
    image_as_a_sequence,
]


def error(model: keras.Model, hand: Hand, *, keep: bool = False) -> float:
    rng = np.random.default_rng(11)
    inputs = [
        rng.integers(0, 11, (2, *x.shape[1:])).astype("int32")
        if "int" in x.dtype
        else rng.normal(size=(2, *x.shape[1:])).astype("float32")
        for x in model.inputs
    ]
    expected = np.asarray(model(inputs if len(inputs) > 1 else inputs[0], training=False))
    with torch.no_grad():
        found = hand(torch_modules(model, keep=keep), *map(torch.tensor, inputs)).numpy()
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("case", REORDERED, ids=lambda case: case.__name__)
def test_weights_behind_a_flattened_image_fit_torch_flatten(
    case: Callable[[], tuple[keras.Model, Hand]],
) -> None:
    """A Dense whose rows stay in Keras's order is off by more than its outputs are large."""
    model, hand = case()
    seeded(model)
    assert error(model, hand) < 1e-5
    assert error(model, hand, keep=True) > 1e-2, "the twin: rows as Keras has them"


@pytest.mark.parametrize("case", KEPT, ids=lambda case: case.__name__)
def test_weights_that_are_in_order_are_left_alone(
    case: Callable[[], tuple[keras.Model, Hand]],
) -> None:
    """To reorder what needs no reordering would be the same error."""
    model, hand = case()
    seeded(model)
    assert flattened(read(model)) == Flattened({}, {}, ())
    assert error(model, hand) < 1e-5


# ------------------------------------------------------------------------ what Keras can only say


def configured(layers: Sequence[tuple[str, dict[str, Any]]], *weighted: Layer) -> Snapshot:
    """A Sequential as a configuration, and some of its layers with weights."""
    entries = [
        {"class_name": name, "config": {"name": f"{name.lower()}_{n}", **config}}
        for n, (name, config) in enumerate(layers)
    ]
    architecture = {"class_name": "Sequential", "config": {"name": "m", "layers": entries}}
    return identify(Snapshot(Source("m.h5", "h5"), weighted, architecture=architecture))


def dense(path: str, rows: int) -> Layer:
    kernel = Tensor.of(f"{path}/kernel", np.zeros((rows, 2), np.float32))
    return Layer(path, "Dense", {"use_bias": False}, {"kernel": kernel})


FIRST = {"data_format": "channels_first"}
INPUT = ("InputLayer", {"batch_shape": [None, 3, 7, 5]})
CONV = ("Conv2D", {"filters": 2, "kernel_size": [2, 3], **FIRST})


def test_a_model_that_keeps_channels_first_needs_no_reordering() -> None:
    """Keras flattens (channel space) there, as the target does."""
    last = {"data_format": "channels_last"}
    found = configured([INPUT, CONV, ("Flatten", last), ("Dense", {})], dense("dense_3", 36))
    assert flattened(found) == Flattened({}, {}, ())


def test_a_flatten_that_puts_channels_last_is_reordered_behind_channels_first() -> None:
    found = configured([INPUT, CONV, ("Flatten", FIRST), ("Dense", {})], dense("dense_3", 36))
    (order,) = flattened(found).orders["dense_3"].values()
    assert (order.source, order.target) == ("(space channel)", "(channel space)")
    assert order.sizes == {"space": 18, "channel": 2}


def test_options_of_keras_1_are_understood() -> None:
    layers: list[tuple[str, dict[str, Any]]] = [
        (
            "Convolution2D",
            {
                "batch_input_shape": [None, 7, 5, 3],
                "nb_filter": 2,
                "nb_row": 2,
                "nb_col": 3,
                "border_mode": "valid",
                "subsample": [2, 1],
                "dim_ordering": "tf",
            },
        ),
        ("Flatten", {}),
        ("Dense", {"output_dim": 2}),
    ]
    found = flattened(configured(layers, dense("dense_2", 18)))
    assert found.orders["dense_2"]["in"].sizes == {"space": 9, "channel": 2}


def test_a_row_of_several_images_has_one_name_for_each_axis() -> None:
    model, _ = branches_end_to_end()
    order = flattened(read(model)).orders["dense"]["in"]
    assert order.source == "(space_1 channel_1 + rest_1 + space_2 channel_2 + rest_2)"
    assert order.target == "(channel_1 space_1 + rest_1 + channel_2 space_2 + rest_2)"
    assert order.sizes == {
        "space_1": 20,
        "channel_1": 11,
        "rest_1": 13,
        "space_2": 6,
        "channel_2": 5,
        "rest_2": 17,
    }


def test_the_plan_says_what_was_reordered() -> None:
    model, _ = branches_end_to_end()
    notes = [note for note in plan(read(model), to="torch").notes if note.kind == "reordered"]
    assert [note.subject for note in notes] == [
        *("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"),
        "dense.weight",
    ]
    assert not any(note.loss for note in notes)


@pytest.mark.parametrize("to", ["torch", "onnx"])
def test_reordered_weights_come_back_bit_for_bit(tmp_path: Path, to: str) -> None:
    """`verify` inverts what the manifest says; a sum of images is the hardest sentence."""
    model, _ = branches_end_to_end()
    seeded(model)
    target = tmp_path / "out.safetensors"
    convert(model, target, to=to)
    report = verify(target, against=model)
    assert report.placed == len(model.weights)


# ------------------------------------------------------------------------- what cannot be followed


@keras.saving.register_keras_serializable("tests")
class Doubled(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """A layer of a user's own."""

    def call(self, x: Any) -> Any:
        return 2 * x


def with_a_layer_of_ones_own(*, behind: int) -> keras.Model:
    own = [
        L.Conv2D(11, (2, 3), name="conv"),
        L.Flatten(),
        L.Dense(13, name="dense"),
        L.Dense(5, name="last"),
    ]
    return keras.Sequential(
        [keras.Input((5, 7, 3)), *own[:behind], Doubled(name="own"), *own[behind:]]
    )


@pytest.mark.parametrize("behind", [1, 2])
def test_nothing_is_guessed_behind_a_layer_of_a_users_own(behind: int) -> None:
    found = flattened(read(with_a_layer_of_ones_own(behind=behind)))
    assert not found.orders
    (note,) = found.notes
    assert (note.kind, note.subject, note.loss) == ("kept", "dense", False)
    assert note.message == (
        "its features could not be followed through own (tests>Doubled): if they are a flattened "
        "image, they stay in (space channel) order"
    )


@pytest.mark.parametrize("behind", [0, 3])
def test_a_layer_of_a_users_own_elsewhere_does_not_matter(behind: int) -> None:
    """The twin: where no flattened image goes through it, the rest is followed as always."""
    found = flattened(read(with_a_layer_of_ones_own(behind=behind)))
    assert found.orders.keys() == {"dense"}
    assert not found.notes


def test_a_sum_of_unlike_orders_is_not_followed() -> None:
    x = keras.Input((5, 7, 3))
    y = L.Add(name="sum")([L.Flatten()(x), L.Dense(105)(L.Flatten()(x))])
    found = flattened(read(keras.Model(x, L.Dense(2, name="last")(y))))
    assert [note.subject for note in found.notes] == ["last"]
    assert "through sum (Add)" in found.notes[0].message


def test_a_layer_that_is_called_with_unlike_orders_is_left_alone() -> None:
    shared = L.Dense(2, name="shared")
    x, y = keras.Input((5, 3, 7)), keras.Input((105,))
    both = L.Concatenate()([shared(L.Flatten()(x)), shared(y)])
    found = flattened(read(keras.Model([x, y], both)))
    assert not found.orders
    assert found.notes == (
        Note(
            "kept",
            "shared",
            "it is called with features in unlike orders, which stay as Keras has them",
        ),
    )


def shared_with_a_model_inside(*, unlike: bool) -> keras.Model:
    """One Dense in two models; Keras stores its weights once."""
    shared = L.Dense(2, name="shared")
    x, vector = keras.Input((5, 3, 7)), keras.Input((105,))
    inside = keras.Input((105,))
    inner = keras.Model(inside, shared(inside), name="inner")
    y = inner(vector if unlike else L.Flatten()(L.Activation("tanh")(x)))
    return keras.Model([x, vector], L.Concatenate()([shared(L.Flatten()(x)), y, vector]))


def test_a_layer_that_is_in_two_models_is_called_in_both() -> None:
    """Where only the first of its places counts, the second is silently wrong."""
    found = flattened(read(shared_with_a_model_inside(unlike=False)))
    assert {path.rpartition("/")[2] for path in found.orders} == {"shared"}
    assert not found.notes
    found = flattened(read(shared_with_a_model_inside(unlike=True)))
    assert not found.orders
    assert ["unlike orders" in note.message for note in found.notes] == [True]


def test_weights_for_which_there_is_no_order_are_left_alone() -> None:
    """The groups of a normalization lie side by side in one order only."""
    x = keras.Input((5, 3, 8))
    y = L.GroupNormalization(4, name="groups")(L.Flatten()(x))
    found = flattened(read(keras.Model(x, y)))
    assert not found.orders
    assert "no order of a GroupNormalization" in found.notes[0].message


def test_the_parts_of_a_layer_are_left_alone() -> None:
    """Of stacked cells only the first takes the features, and which that is no table says."""
    x = keras.Input((4, 5, 3, 7))
    cells = [L.GRUCell(105), L.LSTMCell(5)]
    y = L.RNN(cells, name="stack")(L.TimeDistributed(L.Flatten())(x))
    found = flattened(read(keras.Model(x, y)))
    assert not found.orders
    assert {note.subject.partition("/")[0] for note in found.notes} == {"stack"}


def convolution(path: str) -> Layer:
    kernel = Tensor.of(f"{path}/kernel", np.zeros((2, 3, 5, 7), np.float32))
    return Layer(path, "Conv2D", {"use_bias": False}, {"kernel": kernel})


def test_a_file_without_an_architecture_says_what_it_cannot_know() -> None:
    layers = (dense("before", 3), convolution("conv"), dense("first", 5), dense("second", 2))
    bare = identify(Snapshot(Source("m.weights.h5", "keras-weights"), layers))
    found = flattened(bare)
    assert not found.orders
    assert [(note.kind, note.subject) for note in found.notes] == [("kept", "first")]
    assert "give the architecture with --config" in found.notes[0].message


def test_a_file_without_convolutions_has_nothing_to_say() -> None:
    bare = Snapshot(Source("m.weights.h5", "keras-weights"), (dense("first", 5),))
    assert flattened(identify(bare)) == Flattened({}, {}, ())


# ----------------------------------------------------------------------------- images from vectors


def test_a_vector_that_becomes_an_image_is_reported_and_left_alone() -> None:
    """A decoder's Reshape is done in Keras's order; what follows is an image again."""
    model = keras.Sequential(
        [
            keras.Input((3,)),
            L.Dense(5 * 7 * 2, name="seed"),
            L.BatchNormalization(),
            L.ReLU(),
            L.Reshape((5, 7, 2)),
            L.Conv2D(11, (2, 3), name="conv"),
            L.Flatten(),
            L.Dense(13, name="dense"),
        ]
    )
    found = flattened(read(model))
    assert found.images == {"seed": (5, 7, 2)}
    assert found.orders.keys() == {"dense"}
    assert not found.notes
