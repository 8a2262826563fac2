"""Moving averages take the place of the weights, each of its own, as the frameworks do it."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

import kerasport
from kerasport.cli import main
from kerasport.errors import UsageError, VerificationError

Array = npt.NDArray[Any]
FIXTURES = Path(__file__).parent.parent / "fixtures"
RNG = np.random.default_rng(11)


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


# ---- TensorFlow's ExponentialMovingAverage


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Array]]:
    """A checkpoint, and the variables as TensorFlow restores them from their averages."""
    import tensorflow as tf

    v1 = tf.compat.v1
    prefix = str(tmp_path_factory.mktemp("ema") / "net.ckpt")

    def variables() -> list[Any]:
        shapes = {"net/fc/kernel": (3, 5), "net/fc/bias": (5,), "net/out/kernel": (5, 2)}
        return [v1.get_variable(name, initializer=normal(*shape)) for name, shape in shapes.items()]

    with tf.Graph().as_default(), v1.Session() as session:
        *averaged, alone = variables()
        ema = tf.train.ExponentialMovingAverage(0.5)
        keep = ema.apply(averaged)
        session.run(v1.global_variables_initializer())
        for variable in (*averaged, alone):
            variable.load(normal(*variable.shape), session)
        session.run(keep)
        v1.train.Saver().save(session, prefix, write_meta_graph=False)
    with tf.Graph().as_default(), v1.Session() as session:
        made = variables()
        names = tf.train.ExponentialMovingAverage(0.5).variables_to_restore(made[:2])
        v1.train.Saver({**names, "net/out/kernel": made[2]}).restore(session, prefix)
        return Path(prefix), {v.op.name: session.run(v) for v in made}


def test_weights_are_what_tensorflow_restores_from_their_averages(
    restored: tuple[Path, dict[str, Array]],
) -> None:
    prefix, expected = restored
    snapshot = kerasport.read(prefix, ema=True)
    assert {tensor.name for tensor in snapshot.tensors} == expected.keys()
    for tensor in snapshot.tensors:
        np.testing.assert_array_equal(tensor.numpy(), expected[tensor.name])
    assert {str(note) for note in snapshot.notes} == {
        "net/fc/kernel: is its moving average",
        "net/fc/bias: is its moving average",
        "net/out/kernel: has no moving average: is as it was",
    }
    assert {o.tensor.stored: o.reason for o in snapshot.omitted} == {
        "net/fc/kernel": "replaced by its moving average",
        "net/fc/bias": "replaced by its moving average",
    }
    # The twin: the values are others without it.
    plain = kerasport.read(prefix)
    assert not np.array_equal(plain["net/fc"].weights["kernel"].numpy(), expected["net/fc/kernel"])


def test_a_target_of_averages_says_so_and_is_verified(
    restored: tuple[Path, dict[str, Array]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix, expected = restored
    target = tmp_path / "net.safetensors"
    with pytest.raises(SystemExit):
        main(["convert", str(prefix), str(target), "--to", "torch", "--ema"])
    said = capsys.readouterr().out
    assert "averaged: net/fc/kernel and 1 more: is its moving average" in said
    assert "averaged: net/out/kernel: has no moving average: is as it was" in said
    kerasport.verify(target, against=prefix)
    state = kerasport.read(target)
    np.testing.assert_array_equal(state["net/fc"].weights["bias"].numpy(), expected["net/fc/bias"])
    # The twin: what claims to be averaged and is not.
    lying = replace(kerasport.read(prefix), notes=kerasport.read(prefix, ema=True).notes)
    with pytest.raises(VerificationError):
        kerasport.verify(target, against=lying)


def test_a_file_without_averages_is_a_wrong_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "cnn.safetensors"
    with pytest.raises(SystemExit) as caught:
        main(["convert", str(FIXTURES / "cnn.keras"), str(target), "--to", "torch", "--ema"])
    assert caught.value.code == 2
    assert "cnn.keras: holds no moving averages of its weights" in capsys.readouterr().err
    assert not target.exists()


def test_averages_of_a_name_of_their_own_are_taken_by_that_name(tmp_path: Path) -> None:
    """Nothing but the name tells them from an optimizer's slots."""
    import tensorflow as tf

    v1 = tf.compat.v1
    prefix = str(tmp_path / "c")
    with tf.Graph().as_default(), v1.Session() as session:
        made = [
            v1.get_variable(name, initializer=normal(*shape), use_resource=False)
            for name, shape in (("dense/kernel", (5, 7)), ("dense/bias", (7,)))
        ]
        averages = tf.train.ExponentialMovingAverage(0.9, name="MyEMA")
        apply = averages.apply(made)
        session.run(v1.variables_initializer(made))
        session.run(v1.global_variables_initializer())
        session.run([variable.assign_add(variable) for variable in made])
        session.run(apply)
        expected = session.run([averages.average(variable) for variable in made])
        v1.train.Saver().save(session, prefix)
    (layer,) = kerasport.read(prefix, ema="MyEMA").layers
    assert layer.kind == "Dense"
    for role, array in zip(("kernel", "bias"), expected, strict=True):
        np.testing.assert_array_equal(layer.weights[role].numpy(), array)
    with pytest.raises(UsageError, match="no weight has a tensor 'Other' of its shape"):
        kerasport.read(prefix, ema="Other")


def test_an_average_without_its_variable_is_a_weight(tmp_path: Path) -> None:
    import tf_tables

    tensors = {"pool/ExponentialMovingAverage": normal(7), "net/kernel": normal(2, 3)}
    with pytest.raises(UsageError, match="holds no moving averages"):
        kerasport.read(tf_tables.save(tmp_path / "c", tensors), ema=True)


def test_what_takes_the_bias_out_of_an_average_is_no_weight(tmp_path: Path) -> None:
    """`zero_debias` keeps two more variables; of other names they are weights."""
    import tf_tables

    tensors = {
        "norm/moving_mean": normal(3),
        "norm/moving_mean/biased": normal(3),
        "norm/moving_mean/local_step": np.float32(7),
        "opinion/biased": normal(3),
    }
    snapshot = kerasport.read(tf_tables.save(tmp_path / "c", tensors))
    assert {tensor.stored for tensor in snapshot.tensors} == {"norm/moving_mean", "opinion/biased"}


def test_averages_of_eager_variables_are_known_by_their_names(tmp_path: Path) -> None:
    import tensorflow as tf

    weight, other = (tf.Variable(normal(3, 2), name=name) for name in ("w", "v"))
    ema = tf.train.ExponentialMovingAverage(0.5)
    ema.apply([weight])
    weight.assign(normal(3, 2))
    ema.apply([weight])
    checkpoint = tf.train.Checkpoint(w=weight, v=other, kept=[ema.average(weight)])
    snapshot = kerasport.read(checkpoint.write(str(tmp_path / "c")), ema=True)
    values = {tensor.name.rpartition("/")[2]: tensor.numpy() for tensor in snapshot.tensors}
    assert values.keys() == {"w", "v"}
    np.testing.assert_array_equal(values["w"], ema.average(weight).numpy())
    np.testing.assert_array_equal(values["v"], other.numpy())


# ---- Keras's optimizers


def averaging(library: Any, optimizer: Any) -> tuple[Any, Any]:
    """A model of layers with many orders of variables, and its optimizer, nothing alike in them."""
    layers = library.layers
    inputs = layers.Input((5, 6))
    x = layers.Dense(6, name="frozen", trainable=False)(inputs)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")(x)
    x = layers.BatchNormalization()(layers.MultiHeadAttention(2, 3)(x, x))
    inner = library.Sequential([layers.Input((5, 6)), layers.Dense(6), layers.Dense(6)])
    model = library.Model(inputs, layers.GRU(4)(inner(x)))
    model.compile(optimizer=optimizer, loss="mse")
    own = getattr(optimizer, "inner_optimizer", optimizer)
    optimizer.build(model.trainable_variables)
    for variable in (*model.variables, *own._model_variables_moving_average):
        variable.assign(normal(*variable.shape))
    return model, own


def put_in(model: Any, optimizer: Any) -> None:
    """What Keras does itself at the end of training."""
    optimizer.finalize_variable_values(model.trainable_variables)


def assert_same(path: Path, expected: Path, *, config: Path | None = None) -> None:
    """With their averages, the weights of one file are those of the other."""
    plain, found = (kerasport.read(path, config=config, ema=ema) for ema in (False, True))
    wanted = {tensor.name: tensor.numpy() for tensor in kerasport.read(expected).tensors}
    assert {tensor.name for tensor in found.tensors} == wanted.keys()
    for tensor in found.tensors:
        np.testing.assert_array_equal(tensor.numpy(), wanted[tensor.name], err_msg=tensor.name)
    kept = {
        new.name
        for new, old in zip(found.tensors, plain.tensors, strict=True)
        if np.array_equal(new.numpy(), old.numpy())
    }
    assert kept == {name for name in wanted if "frozen" in name or "/moving_" in name}
    assert {note.kind for note in found.notes} == {"averaged"}


@pytest.fixture(scope="module")
def keras3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("keras3")
    model, optimizer = averaging(keras, keras.optimizers.Adam(use_ema=True))
    model.save(folder / "m.keras")
    model.save_weights(folder / "m.weights.h5")
    tf.train.Checkpoint(model=model, optimizer=optimizer).write(str(folder / "m.ckpt"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the format is old
        model.save(folder / "m.h5")  # Keras forgets the optimizer's configuration here
    put_in(model, optimizer)
    model.save(folder / "expected.keras")
    return folder


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.weights.h5", "m.ckpt"])
def test_averages_of_keras_3_are_taken_each_for_its_own(keras3: Path, name: str) -> None:
    config = keras3 / "m.keras" if name in ("m.weights.h5", "m.ckpt") else None
    assert_same(keras3 / name, keras3 / "expected.keras", config=config)


def test_an_optimizer_that_scales_losses_keeps_averages_too(tmp_path: Path) -> None:
    inner = keras.optimizers.SGD(momentum=0.5, use_ema=True)
    model, optimizer = averaging(keras, keras.optimizers.LossScaleOptimizer(inner))
    model.save(tmp_path / "m.keras")
    put_in(model, optimizer)
    model.save(tmp_path / "expected.keras")
    assert_same(tmp_path / "m.keras", tmp_path / "expected.keras")


def test_weights_alone_do_not_say_what_the_optimizer_kept(keras3: Path) -> None:
    with pytest.raises(UsageError, match="does not say whether its optimizer kept"):
        kerasport.read(keras3 / "m.weights.h5", ema=True)


def test_an_optimizer_without_averages_has_none(tmp_path: Path) -> None:
    """Its momentum is a list of the same shapes, in the same place."""
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    model.compile(optimizer=keras.optimizers.SGD(momentum=0.5), loss="mse")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "m.keras")
    with pytest.raises(UsageError, match="holds no moving averages"):
        kerasport.read(tmp_path / "m.keras", ema=True)


def test_averages_that_do_not_fit_are_refused(keras3: Path, tmp_path: Path) -> None:
    import h5py

    copy = Path(shutil.copy(keras3 / "m.weights.h5", tmp_path))
    with h5py.File(copy, "r+") as file:
        del file["optimizer/vars/4"]
        file["optimizer/vars/4"] = normal(2, 2)
    with pytest.raises(UsageError, match="do not fit the 23 weights that are trained"):
        kerasport.read(copy, ema=True, config=keras3 / "m.keras")


@pytest.mark.filterwarnings("ignore")
def test_averages_of_tf_keras_are_taken_each_for_its_own(tmp_path: Path) -> None:
    import tf_keras

    model, optimizer = averaging(tf_keras, tf_keras.optimizers.SGD(use_ema=True))
    for name in ("m.keras", "m.h5"):
        model.save(tmp_path / name)
    model.save_weights(tmp_path / "m.ckpt", save_format="tf")
    put_in(model, optimizer)
    model.save(tmp_path / "expected.keras")
    for name in ("m.keras", "m.h5", "m.ckpt"):
        config = None if name != "m.ckpt" else tmp_path / "m.keras"
        assert_same(tmp_path / name, tmp_path / "expected.keras", config=config)


@pytest.mark.filterwarnings("ignore")
def test_averages_of_older_optimizers_are_slots(tmp_path: Path) -> None:
    """So did the optimizer that TensorFlow Addons put around another one."""
    import tf_keras

    class Averaging(tf_keras.optimizers.legacy.SGD):  # type: ignore[misc]  # no types
        def _create_slots(self, var_list: list[Any]) -> None:
            super()._create_slots(var_list)
            for variable in var_list:
                self.add_slot(variable, "average", initializer="random_normal")

    layers = tf_keras.layers
    model = tf_keras.Sequential([layers.Input((3,)), layers.Dense(5), layers.Dense(5)])
    model.compile(optimizer=Averaging(name="MovingAverage"), loss="mse")
    model.fit(normal(2, 3), normal(2, 5), verbose=0)
    model.save(tmp_path / "m.h5")
    model.save_weights(tmp_path / "m.ckpt", save_format="tf")
    found = [kerasport.read(tmp_path / name, ema=True) for name in ("m.h5", "m.ckpt")]
    for variable in model.trainable_variables:
        variable.assign(model.optimizer.get_slot(variable, "average"))
    model.save(tmp_path / "expected.h5")
    wanted = {t.name: t.numpy() for t in kerasport.read(tmp_path / "expected.h5").tensors}
    for snapshot in found:
        assert {t.name.replace("layer_with_weights-", "dense_") for t in snapshot.tensors}
        for tensor in snapshot.tensors:
            np.testing.assert_array_equal(tensor.numpy(), wanted[tensor.name])
