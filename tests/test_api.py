"""The library's own calls: what each takes, gives and refuses."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kerasport
from kerasport.api import select
from kerasport.errors import (
    MalformedError,
    UnknownFormatError,
    UnknownNameError,
    UnsupportedError,
    UsageError,
)
from kerasport.model import StateDict, Tensor
from states import FORMATS, bits

FIXTURES = Path(__file__).parent.parent / "fixtures"
CNN = FIXTURES / "cnn.keras"
MODELS = ("cnn", "sequence", "attention")
every_format = pytest.mark.parametrize("suffix", [suffix for suffix, _ in FORMATS.values()])


def tensors(path: Path) -> StateDict:
    """What a file of ours holds, its manifest apart."""
    name = next(name for name, (suffix, _) in FORMATS.items() if path.name.endswith(suffix))
    state: StateDict = importlib.import_module(f"kerasport.readers.{name}").read(path)
    return state


def assert_equal(found: StateDict, expected: StateDict) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].spec == tensor.spec
        assert str(found[name].layout) == str(tensor.layout)
        np.testing.assert_array_equal(bits(found[name].numpy()), bits(tensor.numpy()), name)


# ------------------------------------------------------------------------------------- coefficients


def test_a_snapshot_is_a_mapping_in_model_order() -> None:
    snapshot = kerasport.read(FIXTURES / "attention.keras")
    assert list(snapshot) == ["embed", "attend", "attend_norm", "mlp/widen", "mlp/narrow", "logits"]
    assert repr(snapshot["logits"].weights["kernel"]) == (
        "f32[12,10]  in out\n  in:  12 input features\n  out: 10 units"
    )
    with pytest.raises(UnknownNameError, match="no layer 'logit'; the nearest: 'logits'"):
        snapshot["logit"]
    with pytest.raises(UnknownNameError, match="no role 'kernal'; the nearest: 'kernel'"):
        snapshot["logits"].weights["kernal"]


def test_coefficients_are_the_numbers_that_keras_gives() -> None:
    """The three smallest cases of the README, against `get_weights` of live layers."""
    import keras

    layers = keras.layers
    cases: list[tuple[Any, Any, str, str]] = [
        (keras.Input((5,)), layers.Dense(10, name="x"), "kernel", "f32[5,10]  in out"),
        (
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, name="x"),
            "kernel",
            "f32[3,3,1,32]  kh kw in out",
        ),
        (
            keras.Input((7,)),
            layers.Embedding(1000, 128, name="x"),
            "embeddings",
            "f32[1000,128]  token embed",
        ),
    ]
    for entrance, layer, role, line in cases:
        snapshot = kerasport.read(keras.Sequential([entrance, layer]))
        tensor = snapshot["x"].weights[role]
        assert repr(tensor).splitlines()[0] == line
        np.testing.assert_array_equal(tensor.numpy(), layer.get_weights()[0])
        with pytest.raises(ValueError, match="read-only"):
            tensor.numpy()[0] = 0


# -------------------------------------------------------------------------------------- live models


@pytest.mark.parametrize("library", ["keras", "tf_keras"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("to", ["keras", "torch", "onnx"])
def test_a_live_model_gives_the_tensors_of_its_saved_file(
    to: str, model: str, library: str, tmp_path: Path
) -> None:
    path = FIXTURES / (f"{model}.keras" if library == "keras" else f"{model}.tf_keras.keras")
    live = loaded(library, path)
    kerasport.convert(live, tmp_path / "live.safetensors", to=to)
    kerasport.convert(path, tmp_path / "file.safetensors", to=to)
    assert_equal(tensors(tmp_path / "live.safetensors"), tensors(tmp_path / "file.safetensors"))
    kerasport.verify(tmp_path / "file.safetensors", against=live)
    kerasport.verify(tmp_path / "live.safetensors", against=path)


LOADED: dict[tuple[str, Path], Any] = {}


def loaded(library: str, path: Path) -> Any:
    if (library, path) not in LOADED:
        module: Any = importlib.import_module(library)
        LOADED[library, path] = module.models.load_model(path, compile=False)
    return LOADED[library, path]


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(UsageError, match=r"expected a path, or a live model .* found int"):
        kerasport.read(5)
    with pytest.raises(UsageError, match="a live model is read as it is"):
        kerasport.read(object(), assume_dtype="bf16")


# ----------------------------------------------------------------------------------------- archives


@every_format
@pytest.mark.parametrize("model", MODELS)
def test_an_archive_converts_as_the_model_itself(model: str, suffix: str, tmp_path: Path) -> None:
    """In ten years the archive is all there is: the same tensors and hints must come out."""
    source, archive = FIXTURES / f"{model}.keras", tmp_path / f"archive{suffix}"
    kerasport.convert(source, archive, to="keras")
    for to in ("torch", "onnx", "keras"):
        kerasport.convert(source, tmp_path / "direct.safetensors", to=to)
        report = kerasport.convert(archive, tmp_path / "again.safetensors", to=to)
        direct, again = (tensors(tmp_path / f"{n}.safetensors") for n in ("direct", "again"))
        assert_equal(again, direct)
        assert again.manifest["layers"] == direct.manifest["layers"]
        assert again.manifest["notes"] == direct.manifest["notes"]
        assert report.omitted == ()
        kerasport.verify(tmp_path / "again.safetensors", against=source)
        kerasport.verify(tmp_path / "direct.safetensors", against=archive)


def test_an_archive_of_weights_alone_remembers_what_was_said_of_them(tmp_path: Path) -> None:
    kinds = {"norm": "LayerNormalization"}
    weights = kerasport.read(FIXTURES / "sequence.weights.h5", kinds=kinds)
    kerasport.convert(weights, tmp_path / "archive.parquet", to="keras")
    kerasport.convert(weights, tmp_path / "direct.pt", to="torch")
    kerasport.convert(tmp_path / "archive.parquet", tmp_path / "again.pt", to="torch")
    assert_equal(tensors(tmp_path / "again.pt"), tensors(tmp_path / "direct.pt"))


def test_an_archive_without_kinds_takes_them_later(tmp_path: Path) -> None:
    weights = FIXTURES / "sequence.weights.h5"
    kinds = {"norm": "LayerNormalization"}
    kerasport.convert(weights, tmp_path / "archive.safetensors", to="keras")
    later = kerasport.read(tmp_path / "archive.safetensors", kinds=kinds)
    kerasport.convert(later, tmp_path / "again.pt", to="torch")
    kerasport.convert(kerasport.read(weights, kinds=kinds), tmp_path / "direct.pt", to="torch")
    assert_equal(tensors(tmp_path / "again.pt"), tensors(tmp_path / "direct.pt"))


def test_axes_that_a_configuration_names_are_remembered(tmp_path: Path) -> None:
    """An EinsumDense says itself what its axes are."""
    import keras

    entrance = keras.Input((5, 3))
    layer = keras.layers.EinsumDense("abc,cde->abde", (None, 2, 7), bias_axes="de", name="mix")
    model = keras.Model(entrance, layer(entrance))
    kerasport.convert(model, tmp_path / "archive.parquet", to="keras")
    kerasport.convert(model, tmp_path / "direct.pt", to="torch")
    kerasport.convert(tmp_path / "archive.parquet", tmp_path / "again.pt", to="torch")
    assert_equal(tensors(tmp_path / "again.pt"), tensors(tmp_path / "direct.pt"))


def edited(path: Path, **members: Any) -> Path:
    """An archive whose manifest was changed by hand."""
    manifest = Path(f"{path}.json")
    data = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**data, **members}))
    return path


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"kind": "Doll"}, "hidden: the manifest names a kind 'Doll', unknown here"),
        (
            {"kind": "Conv2D"},
            "hidden: the manifest says Conv2D, which does not fit: .*kh kw in out",
        ),
        (
            {"kind": "Embedding"},
            "hidden: the manifest says Embedding, which does not fit: 'kernel'",
        ),
        ({"words": {"in": 5}}, "expected words of the layer's axes, found {'in': 5}"),
        ({"words": 5}, "expected words of the layer's axes, found 5"),
    ],
)
def test_an_archive_that_lies_about_a_layer_is_refused(
    layer: dict[str, Any], message: str, tmp_path: Path
) -> None:
    archive = tmp_path / "archive.pt"
    kerasport.convert(CNN, archive, to="keras")
    layers = json.loads(Path(f"{archive}.json").read_text())["layers"]
    layers["hidden"] |= layer
    with pytest.raises(MalformedError, match=message):
        kerasport.read(edited(archive, layers=layers))


@pytest.mark.parametrize("architecture", [5, [], {"class_name": "Sequential", "config": {}}, "x"])
def test_an_archive_with_another_configuration_is_no_bug(architecture: Any, tmp_path: Path) -> None:
    archive = tmp_path / "archive.pt"
    kerasport.convert(CNN, archive, to="keras")
    edited(archive, architecture=architecture)
    if isinstance(architecture, dict):
        assert kerasport.read(archive)["hidden"].config == {}
    else:
        with pytest.raises(MalformedError, match="expected a model's configuration"):
            kerasport.read(archive)


def test_a_state_dict_of_somebody_else_is_listed_and_kept(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    made = {
        "encoder.fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "encoder.fc.bias": np.zeros(2, np.float32),
        "scale": np.ones(1, np.float16),
    }
    save_file(made, tmp_path / "theirs.safetensors")
    snapshot = kerasport.read(tmp_path / "theirs.safetensors")
    listed = {path: list(layer.weights) for path, layer in snapshot.items()}
    assert listed == {"encoder.fc": ["bias", "weight"], "": ["scale"]}
    assert snapshot.convention == "unknown"
    with pytest.raises(UnsupportedError, match=r"nothing in the file says what kind|no kind in"):
        kerasport.convert(snapshot, tmp_path / "ours.pt", to="torch")
    kerasport.convert(snapshot, tmp_path / "ours.parquet", to="keras")
    kept = tensors(tmp_path / "ours.parquet")
    assert kept.keys() == made.keys()
    for name, array in made.items():
        np.testing.assert_array_equal(kept[name].numpy(), array)


# ------------------------------------------------------------------------------------------ targets


@every_format
def test_a_source_is_never_overwritten(suffix: str, tmp_path: Path) -> None:
    """By its own name, by a link in either direction, or by another name of the same file."""
    source = tmp_path / f"model{suffix}"
    kerasport.convert(CNN, source, to="keras")
    before = source.read_bytes()
    (tmp_path / f"soft{suffix}").symlink_to(source)
    (tmp_path / f"hard{suffix}").hardlink_to(source)
    (tmp_path / "folder").mkdir()
    names = [f"{n}{suffix}" for n in ("model", "soft", "hard", "folder/../model")]
    for given in (source, tmp_path / f"soft{suffix}"):
        for name in names:
            with pytest.raises(UsageError, match="is the source, or a part of it"):
                kerasport.convert(given, tmp_path / name, to="torch")
    assert source.read_bytes() == before


def test_shards_of_the_source_are_never_removed(tmp_path: Path) -> None:
    kerasport.convert(CNN, tmp_path / "m.safetensors", to="keras", max_shard_size=5000)
    before = sorted(tmp_path.iterdir())
    assert len(before) == 5  # four shards and their index
    for part in before:
        with pytest.raises(UsageError, match="is the source, or a part of it"):
            kerasport.convert(part, tmp_path / "m.safetensors", to="torch")
    assert sorted(tmp_path.iterdir()) == before
    kerasport.convert(tmp_path / "m.safetensors.index.json", tmp_path / "n.safetensors", to="torch")
    kerasport.verify(tmp_path / "n.safetensors", against=CNN)


@every_format
def test_a_link_is_replaced_and_what_it_leads_to_stays(suffix: str, tmp_path: Path) -> None:
    """The file behind a link may be shared, as in the cache of a model hub."""
    (tmp_path / "shared").mkdir()
    shared = tmp_path / "shared" / "blob"
    shared.write_bytes(b"precious")
    for name, place in (("x", shared), ("dangling", "nowhere"), ("loop", f"loop{suffix}")):
        link = tmp_path / f"{name}{suffix}"
        link.symlink_to(place)
        kerasport.convert(CNN, link, to="torch")
        assert not link.is_symlink()
        kerasport.verify(link, against=CNN)
    assert shared.read_bytes() == b"precious"


def test_the_home_folder_is_found_without_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    kerasport.convert(CNN, "~/model.pt", to="torch")
    assert (tmp_path / "model.pt").is_file()
    assert len(kerasport.read("~/model.pt")) == 6


def test_a_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    kerasport.convert(CNN, tmp_path / "MODEL.PARQUET", to="torch")
    kerasport.verify(tmp_path / "MODEL.PARQUET", against=CNN)


def test_a_name_with_a_nul_is_no_file() -> None:
    with pytest.raises(UsageError, match="found a NUL in it"):
        kerasport.read("a\0b")


def test_reading_by_another_format_than_the_content_is_an_error_of_that_format() -> None:
    with pytest.raises(MalformedError):
        kerasport.read(CNN, format="parquet")
    with pytest.raises(UnknownFormatError, match="unknown format 'foo'"):
        kerasport.read(CNN, format="foo")


def test_progress_ends_at_the_whole(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    for suffix in (suffix for suffix, _ in FORMATS.values()):
        told.clear()
        kerasport.convert(
            CNN, tmp_path / f"x{suffix}", to="torch", progress=lambda *step: told.append(step)
        )
        done = [step for step, _ in told]
        assert done == sorted(done)
        assert told[-1] == (11916, 11916)


def test_a_model_without_weights_is_an_empty_file_of_each_format(tmp_path: Path) -> None:
    import keras

    keras.Sequential([keras.Input((3,)), keras.layers.Flatten()]).save(tmp_path / "empty.keras")
    for suffix, _ in FORMATS.values():
        for to in ("keras", "torch", "onnx"):
            report = kerasport.convert(tmp_path / "empty.keras", tmp_path / f"x{suffix}", to=to)
            assert (report.placed, report.tensors) == (0, 0)
            kerasport.verify(tmp_path / f"x{suffix}", against=tmp_path / "empty.keras")


def test_names_that_collide_in_the_target_are_a_problem(tmp_path: Path) -> None:
    """Two tensors of one name would be one tensor."""
    layers = [
        kerasport.Layer(path, None, {}, {"w": Tensor.of("same", np.ones(2, np.float32))})
        for path in "ab"
    ]
    source = kerasport.read(CNN).source
    snapshot = kerasport.Snapshot(source, tuple(layers))
    with pytest.raises(UnsupportedError, match="same: both a and b have this name"):
        kerasport.convert(snapshot, tmp_path / "x.pt", to="keras")


# ---------------------------------------------------------------------------------------- selection


def test_selecting_leaves_the_rest_as_omissions() -> None:
    snapshot = kerasport.read(CNN)
    part = select(snapshot, include=["h*"], exclude=["*/bias"])
    assert {path: list(layer.weights) for path, layer in part.items()} == {
        "head_conv": ["kernel"],
        "hidden": ["kernel"],
    }
    assert len(part.omitted) == len(snapshot.omitted) + 12
    assert select(snapshot) is snapshot


@pytest.mark.parametrize("pattern", ["hid", "HIDDEN", "hidden/kernel/0", ""])
def test_a_pattern_that_fits_nothing_is_a_mistake(pattern: str) -> None:
    with pytest.raises(UsageError, match="no layer or tensor fits"):
        select(kerasport.read(CNN), exclude=[pattern])


# ----------------------------------------------------------------------------------------- refusals


def test_what_pytorch_cannot_hold_is_refused_or_passed_on_as_asked(tmp_path: Path) -> None:
    import keras

    rows = keras.Input((5, 3))
    model = keras.Model(rows, keras.layers.GRU(7, reset_after=False, name="gru")(rows))
    target = tmp_path / "x.safetensors"
    with pytest.raises(UnsupportedError, match=r"gru: GRUResetBefore: .*reset_after"):
        kerasport.convert(model, target, to="torch")
    assert not target.exists()
    report = kerasport.convert(model, target, to="torch", strict=False)
    assert [(note.kind, note.loss) for note in report.notes] == [("kept", True)]
    np.testing.assert_array_equal(
        tensors(target)["gru.kernel"].numpy(), model.layers[1].get_weights()[0]
    )
    kerasport.verify(target, against=model)
