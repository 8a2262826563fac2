"""The way back: a state dict that was trained on in PyTorch, in the Keras file it came from."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import numpy.typing as npt
import pytest
import tf_keras
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import kerasport
import kerasport.torch
import oracles
from kerasport import cli
from kerasport.api import select, tie
from kerasport.backward import backward
from kerasport.conventions import convention
from kerasport.errors import UnsupportedError, UsageError, VerificationError
from kerasport.model import Snapshot, StateDict, Tensor
from kerasport.transpose import plan
from oracles import GRID
from states import bits
from test_round_trips import TURNED, layers
from test_tied import LIKE, shared_layers, tied_variables

Array = npt.NDArray[Any]
FIXTURES = Path(__file__).parent.parent / "fixtures"
CNN = FIXTURES / "cnn.keras"
SEQUENCE = FIXTURES / "sequence.keras"
MODELS = ("cnn", "sequence", "attention")
FILES = sorted(
    path
    for path in FIXTURES.iterdir()
    if path.name.endswith((".keras", ".h5")) and path.name != "cnn.misnamed.keras"
)
assert len(FILES) > 20


def read(path: Path) -> Snapshot:
    """A fixture, with its architecture where it has none itself."""
    stem, _, rest = path.name.partition(".")
    if not rest.endswith(("weights.h5", "weights_only.h5")):
        return kerasport.read(path)
    return kerasport.read(path, config=FIXTURES / f"{stem}.keras")


def convert(source: Path, target: Path, like: Path | Snapshot, **options: Any) -> Any:
    return kerasport.convert(source, target, to="keras", like=like, **options)


def state_file(folder: Path, tensors: Mapping[str, Array], name: str = "x.safetensors") -> Path:
    """A state dict as other people's programs write it: without a manifest, in their own order."""
    save_file({n: a.copy(order="C") for n, a in tensors.items()}, folder / name)
    return folder / name


def values(path: Path, folder: Path) -> dict[str, Array]:
    """The tensors of a model in PyTorch's layouts."""
    kerasport.convert(path, folder / "values.safetensors", to="torch")
    found: dict[str, Array] = load_file(folder / "values.safetensors")
    return found


def halved(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Other values, of which the first ones can be had again exactly."""
    return {n: a / np.float32(2) if a.dtype == np.float32 else a for n, a in tensors.items()}


# --------------------------------------------------------------------------------- every container


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_gets_other_values_and_then_its_own_again(path: Path, tmp_path: Path) -> None:
    """To the byte: whatever is no weight stays as it was, and a place left out would be seen."""
    like = read(path)
    state = tmp_path / "own.safetensors"
    keep: dict[str, Any] = {"unknown": "keep", "strict": False}
    kerasport.convert(like, state, to="torch", **keep)
    own = load_file(state)
    for name, array in own.items():
        if not np.issubdtype(array.dtype, np.integer):
            own[name] = np.ascontiguousarray(array[..., ::-1]) if array.ndim else array
    for move in plan(like, to="torch", **keep).moves:
        if not move.sources:
            own.pop(move.name, None)
    suffix = ".".join(path.name.split(".")[1:])
    other = tmp_path / f"other.{suffix}"
    convert(state_file(tmp_path, own), other, like, **keep)
    assert other.read_bytes() != path.read_bytes()
    again = tmp_path / f"again.{suffix}"
    changed = kerasport.read(other) if path.name.endswith(".keras") else read_like(other, path)
    convert(state, again, changed, **keep)
    assert again.read_bytes() == path.read_bytes()


def read_like(path: Path, like: Path) -> Snapshot:
    stem, _, rest = like.name.partition(".")
    if rest.endswith(("weights.h5", "weights_only.h5")):
        return kerasport.read(path, config=FIXTURES / f"{stem}.keras")
    return kerasport.read(path)


@pytest.mark.parametrize("name", MODELS)
def test_what_was_trained_on_in_pytorch_gives_the_same_outputs_in_keras(
    name: str, tmp_path: Path
) -> None:
    """Keras is the oracle: it loads the file and puts out what PyTorch does after its step."""
    recorded = np.load(FIXTURES / f"{name}.io.npz")
    model = kerasport.torch.load_module(FIXTURES / f"{name}.keras")
    inputs = torch.from_numpy(recorded["inputs"])
    if inputs.ndim == 4:
        inputs = inputs.permute(0, 3, 1, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        model.train()(inputs).square().mean().backward()
        optimizer.step()
    expected = model.eval()(inputs).detach().numpy()
    assert np.abs(expected - recorded["outputs"]).max() > 1e-3 * np.abs(expected).max()
    torch.save(model.state_dict(), tmp_path / "tuned.pt")
    report = convert(
        tmp_path / "tuned.pt", tmp_path / "x.keras", FIXTURES / f"{name}.keras", sum_biases=True
    )
    assert ("joined" in {note.kind for note in report.notes}) == (name == "sequence")
    convert(
        tmp_path / "tuned.pt",
        tmp_path / "x.weights.h5",
        FIXTURES / f"{name}.keras",
        sum_biases=True,
    )
    whole = keras.saving.load_model(tmp_path / "x.keras")
    weights = keras.saving.load_model(FIXTURES / f"{name}.keras")
    weights.load_weights(tmp_path / "x.weights.h5")
    for loaded in (whole, weights):
        found = loaded(recorded["inputs"]).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["cnn", "attention"])
def test_tf_keras_loads_its_files_too(name: str, tmp_path: Path) -> None:
    """Archives and older HDF5 files of the other library, compared weight by weight."""
    for suffix in ("keras", "h5"):
        like = FIXTURES / f"{name}.tf_keras.{suffix}"
        state = state_file(tmp_path, halved(values(like, tmp_path)))
        convert(state, tmp_path / f"x.{suffix}", like)
        before = tf_keras.models.load_model(like).get_weights()
        after = tf_keras.models.load_model(tmp_path / f"x.{suffix}").get_weights()
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(other, one / np.float32(2))


def test_a_model_with_a_shared_layer_gets_both_of_its_places(tmp_path: Path) -> None:
    """An older HDF5 file has such a layer twice, and Keras reads the second place last."""
    model = shared_layers()
    like = tmp_path / "like.h5"
    model.save(like)
    state = state_file(tmp_path, halved(values(like, tmp_path)))
    convert(state, tmp_path / "x.h5", like)
    with h5py.File(like) as old, h5py.File(tmp_path / "x.h5") as new:
        places = [place for place in names(old) if "shared" in place]
        assert len(places) == 4
        for place in places:
            np.testing.assert_array_equal(new[place][...], old[place][...] / np.float32(2))
    again = keras.saving.load_model(tmp_path / "x.h5", compile=False)
    before = {variable.path: variable.numpy() for variable in model.weights}
    after = {variable.path: variable.numpy() for variable in again.weights}
    assert before.keys() == after.keys()
    for path, array in before.items():
        np.testing.assert_array_equal(after[path], array / np.float32(2), path)


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"dtype": ">f4"}, {"chunks": True}])
def test_datasets_that_somebody_packed_again_are_filled_where_they_are(
    options: dict[str, Any], tmp_path: Path
) -> None:
    like = tmp_path / "like.h5"
    like.write_bytes((FIXTURES / "cnn.legacy.h5").read_bytes())
    with h5py.File(like, "r+") as file:
        place = "model_weights/hidden/hidden/kernel"
        if place not in file:
            place = next(p for p in names(file) if "hidden" in p and "kernel" in p)
        array = file[place][...]
        del file[place]
        file.create_dataset(place, data=array, **options)
    own = values(like, tmp_path)
    convert(state_file(tmp_path, halved(own)), tmp_path / "x.h5", like)
    for name, array in values(tmp_path / "x.h5", tmp_path).items():
        np.testing.assert_array_equal(array, halved(own)[name], name)
    model = keras.saving.load_model(tmp_path / "x.h5", compile=False)
    kernel = model.get_layer("logits").get_weights()[0]
    np.testing.assert_array_equal(kernel, halved(own)["logits.weight"].T)


def names(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visititems(lambda n, item: found.append(n) if isinstance(item, h5py.Dataset) else None)
    return found


def test_an_archive_that_was_packed_again_stays_packed(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(CNN) as archive,
        zipfile.ZipFile(tmp_path / "like.keras", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in archive.namelist():
            packed.writestr(member, archive.read(member))
    own = values(CNN, tmp_path)
    convert(state_file(tmp_path, halved(own)), tmp_path / "x.keras", tmp_path / "like.keras")
    with zipfile.ZipFile(tmp_path / "x.keras") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_DEFLATED}
        assert archive.testzip() is None
    kernel = keras.saving.load_model(tmp_path / "x.keras").get_layer("logits").get_weights()[0]
    np.testing.assert_array_equal(kernel, halved(own)["logits.weight"].T)


# --------------------------------------------------------------------------------- every kind


def came_back(found: Snapshot, to: str) -> None:
    steps = plan(found, to=to)
    if steps.problems:
        return
    filled = backward(steps, steps.apply(), found, file="x").tensors
    assert filled.keys() >= {tensor.stored or tensor.name for tensor in found.tensors}
    for tensor in found.tensors:
        back = filled[tensor.stored or tensor.name]
        assert back.spec == tensor.spec
        np.testing.assert_array_equal(bits(back.numpy()), bits(tensor.numpy()))
        slabs = np.concatenate([s.copy() for s in back.slabs(28)]) if back.size else back.flat()
        np.testing.assert_array_equal(bits(slabs), bits(tensor.numpy()))


@pytest.mark.parametrize("kind", sorted(convention("keras")))
@settings(max_examples=2)
@given(data=st.data())
def test_any_layer_of_any_kind_comes_back(kind: str, data: st.DataObject) -> None:
    found = data.draw(layers(kind))
    for to in ("torch", "onnx", "keras"):
        came_back(found, to)


def test_a_tensor_that_is_not_turned_back_is_noticed() -> None:
    """The twin: the same copies forwards give other weights."""
    (trial,) = (t for t in GRID if str(t) == TURNED)
    found = oracles.snapshot(trial.build().layer)
    steps = plan(found, to="torch")
    state = steps.apply()
    wrong = {n: Tensor.of(n, t.numpy()[..., ::-1].copy()) for n, t in state.items()}
    filled = backward(steps, StateDict("torch", wrong), found, file="x").tensors
    (tensor,) = found.tensors
    (back,) = filled.values()
    assert not np.array_equal(back.numpy(), tensor.numpy())


# ------------------------------------------------------------------------------ what does not fit


def refusal(folder: Path, tensors: Mapping[str, Array], like: Path = CNN, **options: Any) -> str:
    target = folder / f"x{like.suffix}"
    target.write_bytes(b"old")
    with pytest.raises(UnsupportedError) as raised:
        convert(state_file(folder, tensors), target, like, **options)
    assert target.read_bytes() == b"old"
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith(".")) == []
    return str(raised.value)


def test_everything_that_does_not_fit_is_said_at_once(tmp_path: Path) -> None:
    own = values(CNN, tmp_path)
    del own["hidden.weight"]
    own["logits.weight"] = own["logits.weight"].T
    own["extra.weight"] = np.zeros((2, 3), np.float32)
    assert refusal(tmp_path, own) == (
        "x.safetensors does not fit cnn.keras:\n"
        "  extra.weight: is unexpected, f32[2,3] that the model has no place for\n"
        "  hidden.weight: is missing, expected f32[20,66]\n"
        "  logits.weight: expected f32[10,20], found f32[20,10]"
    )


def test_a_wrapped_model_is_recognised_by_its_names(tmp_path: Path) -> None:
    own = {f"module.{name}": array for name, array in values(CNN, tmp_path).items()}
    message = refusal(tmp_path, own)
    assert "\n  … and " in message
    assert message.endswith(
        "Every name begins with 'module.': save the state_dict() of the model inside the one that "
        "wraps it"
    )


def test_a_second_bias_is_added_only_on_request(tmp_path: Path) -> None:
    own = values(SEQUENCE, tmp_path)
    own["reader.bias_hh_l0"] = own["reader.bias_hh_l0"] + np.float32(0.125)
    own["reader.bias_hh_l0"][3] = 0
    message = refusal(tmp_path, own, SEQUENCE)
    assert (
        "reader.bias_hh_l0: 27 of 28 values are no longer 0. PyTorch adds reader.bias_hh_l0 and "
        "reader.bias_ih_l0, reader has one bias; --sum-biases stores their sum, rounded once"
    ) in message
    own["reader.bias_ih_l0"][3] = -0.0
    state = state_file(tmp_path, own)
    report = convert(state, tmp_path / "x.keras", SEQUENCE, sum_biases=True)
    assert [str(n) for n in report.notes if n.kind == "joined"] == [
        "reader.bias_ih_l0: is added to reader.bias_hh_l0, as PyTorch does: rounded once"
    ]
    found = kerasport.read(tmp_path / "x.keras")["reader"].weights["forward/bias"].numpy()
    expected = own["reader.bias_ih_l0"] + own["reader.bias_hh_l0"]
    np.testing.assert_array_equal(found, expected)
    assert np.signbit(found[3])  # nothing was added there
    backward_bias = kerasport.read(tmp_path / "x.keras")["reader"].weights["backward/bias"].numpy()
    np.testing.assert_array_equal(backward_bias, own["reader.bias_ih_l0_reverse"])


def test_a_scale_that_the_layer_leaves_out_has_no_place(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.LayerNormalization(scale=False, name="n")]
    )
    model.save(tmp_path / "like.keras")
    own = values(tmp_path / "like.keras", tmp_path)
    own["n.weight"] = own["n.weight"] * np.float32(1.5)
    like = tmp_path / "like.keras"
    assert (
        "n.weight: 3 of 3 values are no longer 1, and n has no such weight: the model has no "
        "place for them"
    ) in refusal(tmp_path, own, like)
    assert "n.weight: 3 of 3" in refusal(tmp_path, own, like, sum_biases=True)


def test_a_part_that_onnx_made_up_must_still_be_it(tmp_path: Path) -> None:
    steps = plan(kerasport.read(SEQUENCE), to="onnx")
    state = steps.apply()
    name = "reader.B" if "reader.B" in state else "reader/B"
    array = state[name].numpy().copy()
    array[..., -1] += 1
    changed = replace(state, tensors={**state.tensors, name: Tensor.of(name, array)})
    with pytest.raises(UnsupportedError, match="are no longer 0, and reader has no such weights"):
        backward(steps, changed, kerasport.read(SEQUENCE), file="x")


def test_wider_floats_are_taken_and_narrower_ones_on_request(tmp_path: Path) -> None:
    own = values(CNN, tmp_path)
    half = {n: a.astype(np.float16) if a.dtype == np.float32 else a for n, a in own.items()}
    report = convert(state_file(tmp_path, half), tmp_path / "x.keras", CNN)
    assert {str(note) for note in report.notes if note.subject == "hidden.weight"} == {
        "hidden.weight: cast from f16 to f32, the model's own: every value stays"
    }
    np.testing.assert_array_equal(
        values(tmp_path / "x.keras", tmp_path)["hidden.weight"],
        half["hidden.weight"].astype(np.float32),
    )
    double = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in own.items()}
    message = refusal(tmp_path, double)
    assert (
        "hidden.weight: expected f32[20,66], found f64[20,66], which would be rounded; --no-strict "
        "rounds it"
    ) in message
    report = convert(state_file(tmp_path, double), tmp_path / "x.keras", CNN, strict=False)
    assert all(note.loss for note in report.notes if note.kind == "cast")
    whole = {n: a.astype(np.int32) if n == "hidden.bias" else a for n, a in own.items()}
    assert "hidden.bias: expected f32[20], found i32[20]" in refusal(tmp_path, whole)


def test_a_manifest_says_how_images_were_flattened(tmp_path: Path) -> None:
    """Without one it must be said: the shapes are the same either way."""
    for way in ("reorder", "keep"):
        kerasport.convert(CNN, tmp_path / "x.safetensors", to="torch", flatten=way)
        convert(tmp_path / "x.safetensors", tmp_path / "x.keras", CNN)
        assert (tmp_path / "x.keras").read_bytes() == CNN.read_bytes()
    bare = state_file(tmp_path, load_file(tmp_path / "x.safetensors"))
    convert(bare, tmp_path / "x.keras", CNN)
    assert (tmp_path / "x.keras").read_bytes() != CNN.read_bytes()
    convert(bare, tmp_path / "x.keras", CNN, flatten="keep")
    assert (tmp_path / "x.keras").read_bytes() == CNN.read_bytes()


def test_a_state_dict_of_another_model_is_refused_by_its_manifest(tmp_path: Path) -> None:
    other = keras.Sequential([keras.Input((3, 3, 5)), keras.layers.Conv2D(2, 3, name="c")])
    turned = keras.Sequential(
        [keras.Input((3, 3, 2)), keras.layers.Conv2DTranspose(5, 3, name="c", use_bias=False)]
    )
    other.save(tmp_path / "a.keras")
    turned.save(tmp_path / "b.keras")
    kerasport.convert(tmp_path / "a.keras", tmp_path / "a.safetensors", to="torch")
    with pytest.raises(UnsupportedError, match="from another model, or with other options"):
        convert(tmp_path / "a.safetensors", tmp_path / "x.keras", tmp_path / "b.keras")


def test_a_part_of_a_model_is_filled_where_only_that_is_wanted(tmp_path: Path) -> None:
    own = halved(values(CNN, tmp_path))
    head = select(kerasport.read(CNN), include=["logits"])
    only = {n: a for n, a in own.items() if n.startswith("logits")}
    for tensors in (own, only):
        convert(state_file(tmp_path, tensors), tmp_path / "x.keras", head)
        found = values(tmp_path / "x.keras", tmp_path)
        np.testing.assert_array_equal(found["logits.bias"], own["logits.bias"])
        np.testing.assert_array_equal(found["hidden.bias"], own["hidden.bias"] * np.float32(2))
    own["strange"] = own["logits.bias"]
    with pytest.raises(UnsupportedError, match="strange: is unexpected"):
        convert(state_file(tmp_path, own), tmp_path / "x.keras", head)


def test_an_archive_of_ours_fills_a_file_by_the_names_of_keras(tmp_path: Path) -> None:
    kerasport.convert(CNN, tmp_path / "a.parquet", to="keras")
    convert(tmp_path / "a.parquet", tmp_path / "x.keras", CNN)
    assert (tmp_path / "x.keras").read_bytes() == CNN.read_bytes()


def test_weights_go_from_one_kind_of_keras_file_to_another(tmp_path: Path) -> None:
    convert(FIXTURES / "cnn.legacy.h5", tmp_path / "x.keras", CNN)
    assert (tmp_path / "x.keras").read_bytes() == CNN.read_bytes()


def test_one_variable_of_two_names_must_have_one_value(tmp_path: Path) -> None:
    tied_variables().save(tmp_path / "like.keras")
    found = tie(kerasport.read(tmp_path / "like.keras", layers=LIKE))
    kerasport.convert(found, tmp_path / "v.safetensors", to="torch")
    one = load_file(tmp_path / "v.safetensors")
    assert "second.weight" not in one
    state = state_file(tmp_path, halved(one))
    convert(state, tmp_path / "x.keras", found)
    again = kerasport.read(tmp_path / "x.keras", layers=LIKE)
    for name in ("first", "second"):
        kernel = again[name].weights["kernel"].numpy()
        np.testing.assert_array_equal(kernel, found[name].weights["kernel"].numpy() / np.float32(2))
    parted = {**one, "second.weight": one["first.weight"] + np.float32(1)}
    with pytest.raises(
        UnsupportedError, match=r"one variable with first\.weight in the model, and"
    ):
        convert(state_file(tmp_path, parted), tmp_path / "x.keras", found)


# ----------------------------------------------------------------------------------------- the call


@pytest.mark.parametrize(
    ("target", "like", "message"),
    [
        ("x.h5", "cnn.keras", "ends in .keras or .weights.h5"),
        ("x.keras", "cnn.legacy.h5", "ends in .h5 or .hdf5"),
        ("x.weights.h5", "cnn.legacy.h5", "ends in .h5 or .hdf5"),
        ("none/x.keras", "cnn.keras", "expected a folder"),
    ],
)
def test_a_target_of_another_kind_is_refused(
    target: str, like: str, message: str, tmp_path: Path
) -> None:
    kerasport.convert(CNN, tmp_path / "v.safetensors", to="torch")
    with pytest.raises(UsageError, match=message):
        convert(tmp_path / "v.safetensors", tmp_path / target, FIXTURES / like)


def test_a_model_that_is_no_such_file_is_refused(tmp_path: Path) -> None:
    kerasport.convert(CNN, tmp_path / "v.safetensors", to="torch")
    folder = FIXTURES / "cnn.tf_keras.savedmodel"
    with pytest.raises(UnsupportedError, match=r"expected a .keras, .weights.h5 or .h5 file"):
        convert(tmp_path / "v.safetensors", tmp_path / "x.keras", folder)


def test_neither_source_nor_model_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "like.keras").write_bytes(CNN.read_bytes())
    kerasport.convert(CNN, tmp_path / "v.safetensors", to="torch")
    with pytest.raises(UsageError, match="is the source"):
        convert(tmp_path / "v.safetensors", tmp_path / "like.keras", tmp_path / "like.keras")


def test_a_write_that_goes_wrong_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the second look a disk that lies would be believed."""
    from kerasport.writers import keras_file

    real = keras_file._put

    def faulty(file: Any, tensor: Tensor, dataset: Any) -> str:
        digest = real(file, tensor, dataset)
        file.seek(dataset.offset)
        file.write(b"\xff")
        return digest

    monkeypatch.setattr(keras_file, "_put", faulty)
    kerasport.convert(CNN, tmp_path / "v.safetensors", to="torch")
    with pytest.raises(VerificationError, match="does not read back; nothing was changed"):
        convert(tmp_path / "v.safetensors", tmp_path / "x.keras", CNN)
    assert not (tmp_path / "x.keras").exists()


def test_the_command_tells_what_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kerasport.convert(CNN, "v.safetensors", to="torch")

    def run(*words: str) -> tuple[Any, io.StringIO | str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["convert", "v.safetensors", *words])
        return ended.value.code, *capsys.readouterr()

    code, out, err = run("x.keras", "--to", "keras", "--like", str(CNN))
    assert (code, err) == (0, "")
    assert out == (
        "v.safetensors → x.keras  (keras layout)\n"
        "  holds 15 source tensors in 14 tensors, 2,977 parameters, 11.9 kB\n"
        "  dropped: stem_norm.num_batches_tracked: is a counter of PyTorch's, which Keras does "
        "not keep\n"
        "  kept: optimizer/vars/0 and 25 more: stays as it is in cnn.keras: optimizer state\n"
    )
    code, _, err = run("x.keras", "--to", "torch", "--like", str(CNN))
    assert (code, err[:17]) == (2, "kerasport: like: ")
    code, _, err = run("x.pt", "--to", "torch", "--sum-biases")
    assert code == 2
    assert "--sum-biases: expected --like" in err


def test_the_same_two_files_give_the_same_bytes(tmp_path: Path) -> None:
    state = state_file(tmp_path, halved(values(CNN, tmp_path)))
    for name in ("a.keras", "b.keras"):
        convert(state, tmp_path / name, CNN)
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()
