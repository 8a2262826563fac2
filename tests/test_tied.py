"""One variable under two names is one tensor: written once, restored twice, proven as two."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import safetensors.torch as st
import torch
from keras import layers as L
from safetensors.numpy import load_file

import kerasport
from kerasport import ties
from kerasport.api import select, tie
from kerasport.cli import main
from kerasport.errors import UnsupportedError, VerificationError
from kerasport.model import Layer, Omission, Snapshot, Source, Tensor
from kerasport.testing import randomize
from own_layers import TiedDense

JSON = Any
LIKE: Mapping[str, Any] = {"TiedDense": {"like": "Dense"}}
Build = Callable[[], keras.Model]


def tied_variables() -> keras.Model:
    """Two layers whose kernels are one variable; each has a bias of its own."""
    first = L.Dense(5, name="first")
    inputs = keras.Input((5,))
    hidden = first(inputs)
    model = keras.Model(inputs, TiedDense(5, other=first, name="second")(hidden), name="tied")
    randomize(model)
    assert len(model.weights) == 3
    return model


def shared_layers() -> keras.Model:
    """Two models that use one layer."""
    shared = L.Dense(5, name="shared")

    def inner(name: str) -> keras.Model:
        inputs = keras.Input((5,))
        return keras.Model(inputs, L.Dense(5, name=f"{name}_own")(shared(inputs)), name=name)

    inputs = keras.Input((5,))
    model = keras.Model(inputs, inner("right")(inner("left")(inputs)), name="sharing")
    randomize(model)
    assert len(model.weights) == 6
    return model


@pytest.fixture(scope="module")
def tied() -> keras.Model:
    return tied_variables()


@pytest.fixture(scope="module")
def sharing() -> keras.Model:
    return shared_layers()


@pytest.fixture(scope="module")
def saved(
    tied: keras.Model, sharing: keras.Model, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("tied")
    for model in (tied, sharing):
        model.save(folder / f"{model.name}.keras")
        model.save(folder / f"{model.name}.h5")
    return folder


def manifest(path: Path) -> JSON:
    return json.loads(path.with_name(f"{path.name}.json").read_text())


# ------------------------------------------------------------------------------- live models


def test_a_variable_of_two_names_in_a_live_model_is_written_once(
    tied: keras.Model, tmp_path: Path
) -> None:
    target = tmp_path / "x.safetensors"
    report = kerasport.convert(kerasport.read(tied, layers=LIKE), target, to="torch")
    assert report.aliases == {"second.weight": "first.weight"}
    assert (report.placed, report.tensors) == (4, 3)
    assert sorted(load_file(target)) == ["first.bias", "first.weight", "second.bias"]
    assert [note.kind for note in report.notes] == ["tied"]


def test_verify_proves_it_under_both_names(tied: keras.Model, tmp_path: Path) -> None:
    target = tmp_path / "x.safetensors"
    snapshot = kerasport.read(tied, layers=LIKE)
    kerasport.convert(snapshot, target, to="torch")
    report = kerasport.verify(target, against=snapshot)
    assert report.placed == 4
    assert report.aliases == {"second.weight": "first.weight"}


def test_verify_sees_that_the_two_have_parted(tied: keras.Model, tmp_path: Path) -> None:
    """The twin: the second name holds something else now, and the target does not."""
    target = tmp_path / "x.safetensors"
    snapshot = kerasport.read(tied, layers=LIKE)
    kerasport.convert(snapshot, target, to="torch")
    layers = list(snapshot.layers)
    (place,) = (n for n, layer in enumerate(layers) if layer.path == "second")
    kernel = layers[place].weights["kernel"]
    changed = kernel.numpy().copy()
    changed[2, 3] += 1
    other = Tensor.of(kernel.name, changed, layout=kernel.layout)
    layers[place] = Layer("second", "Dense", {}, {**layers[place].weights, "kernel": other})
    parted = Snapshot(snapshot.source, tuple(layers), architecture=snapshot.architecture)
    with pytest.raises(VerificationError, match=r"second/kernel: differs, first at \(2, 3\)"):
        kerasport.verify(target, against=parted)


def test_a_state_dict_knows_a_tensor_by_both_names(tied: keras.Model, tmp_path: Path) -> None:
    state = kerasport.plan(kerasport.read(tied, layers=LIKE), to="torch").apply()
    assert state["second.weight"] is state["first.weight"]
    assert "second.weight" in state
    assert "third.weight" not in state
    assert len(state) == 3


@pytest.mark.parametrize("build", ["tied", "sharing"])
def test_a_pytorch_file_restores_one_storage_under_both_names(
    build: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A module with tied parameters lists them twice and loads them with `strict=True`."""
    model = request.getfixturevalue(build)
    kerasport.convert(kerasport.read(model, layers=LIKE), tmp_path / "x.pt", to="torch")
    state = torch.load(tmp_path / "x.pt", weights_only=True)
    aliases = manifest(tmp_path / "x.pt")["aliases"]
    assert aliases
    for alias, name in aliases.items():
        assert state[alias].data_ptr() == state[name].data_ptr()
    if build == "tied":
        module = torch.nn.Module()
        module.first, module.second = torch.nn.Linear(5, 5), torch.nn.Linear(5, 5)
        module.second.weight = module.first.weight
        module.load_state_dict(state, strict=True)
        found = module.second.weight.detach().numpy().T
        np.testing.assert_array_equal(found, model.get_layer("first").get_weights()[0])
    kerasport.verify(tmp_path / "x.pt", against=kerasport.read(model, layers=LIKE))


# ------------------------------------------------------------------------------- configurations


@pytest.mark.parametrize("suffix", [None, ".keras"])
def test_a_layer_that_two_models_share_is_written_once(
    suffix: str | None, sharing: keras.Model, saved: Path, tmp_path: Path
) -> None:
    source = sharing if suffix is None else saved / f"sharing{suffix}"
    target = tmp_path / "x.pt"
    report = kerasport.convert(source, target, to="torch")
    assert report.aliases == {
        "right.shared.weight": "left.shared.weight",
        "right.shared.bias": "left.shared.bias",
    }
    assert (report.placed, report.tensors) == (6, 6)
    kerasport.verify(target, against=source)


def test_from_memory_and_from_the_file_come_identical_bytes(
    sharing: keras.Model, saved: Path, tmp_path: Path
) -> None:
    for name, source in (("live", sharing), ("file", saved / "sharing.keras")):
        kerasport.convert(source, tmp_path / f"{name}.safetensors", to="torch")
    one, other = (load_file(tmp_path / f"{name}.safetensors") for name in ("live", "file"))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


# ------------------------------------------------------------------------------- both names


@pytest.mark.parametrize("to", ["torch", "keras", "onnx"])
@pytest.mark.parametrize("build", ["tied", "sharing"])
def test_both_names_are_written_for_those_who_know_no_aliases(
    build: str, to: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    snapshot = kerasport.read(request.getfixturevalue(build), layers=LIKE)
    target = tmp_path / "x.safetensors"
    report = kerasport.convert(snapshot, target, to=to, tied="both")
    state = load_file(target)
    assert report.aliases
    assert {*report.aliases, *report.aliases.values()} <= state.keys()
    for alias, name in report.aliases.items():
        np.testing.assert_array_equal(state[alias], state[name])
    kerasport.verify(target, against=snapshot)


def test_verify_sees_that_both_names_have_parted(sharing: keras.Model, tmp_path: Path) -> None:
    snapshot = kerasport.read(sharing)
    state = kerasport.plan(snapshot, to="torch", tied="both").apply()
    wrong = {**state.tensors}
    wrong["right.shared.bias"] = Tensor.of("right.shared.bias", np.ones(5, np.float32))
    kerasport.write(kerasport.StateDict(state.convention, wrong, state.manifest), tmp_path / "x.pt")
    with pytest.raises(VerificationError, match=r"right\.shared\.bias: is one variable with left"):
        kerasport.verify(tmp_path / "x.pt", against=snapshot)


def test_an_alias_of_nothing_is_seen(tied: keras.Model, tmp_path: Path) -> None:
    snapshot = kerasport.read(tied, layers=LIKE)
    kerasport.convert(snapshot, tmp_path / "x.pt", to="torch")
    beside = tmp_path / "x.pt.json"
    document = json.loads(beside.read_text())
    document["aliases"]["third.weight"] = "fourth.weight"
    beside.write_text(json.dumps(document))
    message = "third.weight: is to be fourth.weight, which the file does not hold"
    with pytest.raises(VerificationError, match=message):
        kerasport.verify(tmp_path / "x.pt", against=snapshot)


# ------------------------------------------------------------------------------- archives


@pytest.mark.parametrize("suffix", [".safetensors", ".parquet", ".onnx", ".pt", ".arrow"])
@pytest.mark.parametrize("mode", ["once", "both"])
@pytest.mark.parametrize("build", ["tied", "sharing"])
def test_an_archive_restores_a_variable_under_each_of_its_names(
    build: str, mode: str, suffix: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    snapshot = kerasport.read(request.getfixturevalue(build), layers=LIKE)
    archive = tmp_path / f"archive{suffix}"
    kerasport.convert(snapshot, archive, to="keras", tied=mode)
    kerasport.verify(archive, against=snapshot)
    again = kerasport.read(archive)
    if build == "tied":
        assert list(again["second"].weights) == ["kernel", "bias"]
        assert again["second"].weights["kernel"].same_as
    direct = kerasport.plan(snapshot, to="torch").apply()
    restored = kerasport.plan(again, to="torch").apply()
    assert set(restored) == set(direct)
    assert restored.aliases == direct.aliases
    for name, tensor in direct.items():
        np.testing.assert_array_equal(restored[name].numpy(), tensor.numpy())
    kerasport.convert(again, tmp_path / "again.pt", to="torch", tied="both")
    kerasport.verify(tmp_path / "again.pt", against=snapshot)


def test_shards_of_tied_variables_are_put_together_again(tied: keras.Model, tmp_path: Path) -> None:
    snapshot = kerasport.read(tied, layers=LIKE)
    target = tmp_path / "x.safetensors"
    kerasport.convert(snapshot, target, to="torch", max_shard_size=64)
    index = tmp_path / "x.safetensors.index.json"
    assert kerasport.verify(index, against=snapshot).aliases == {"second.weight": "first.weight"}


# ------------------------------------------------------------------------------- content


@pytest.mark.parametrize(
    ("file", "twin", "first"),
    [
        ("tied.keras", "second/kernel", "first/kernel"),
        ("tied.h5", "second/kernel", "first/kernel"),
        ("sharing.h5", "right/shared/kernel", "left/shared/kernel"),
    ],
)
def test_what_a_file_holds_twice_is_reported_and_one_if_asked(
    file: str, twin: str, first: str, saved: Path, tmp_path: Path
) -> None:
    """Equal values are no proof, so the file's word alone merges nothing."""
    snapshot = kerasport.read(saved / file, layers=LIKE)
    report = kerasport.convert(snapshot, tmp_path / "x.safetensors", to="torch")
    assert report.aliases == {}
    (note,) = (note for note in report.notes if note.kind == "equal")
    assert note.subject == twin
    assert f"holds the same values as {first}" in note.message
    assert not note.loss
    one = kerasport.convert(tie(snapshot), tmp_path / "y.safetensors", to="torch")
    assert twin.replace("/", ".").replace("kernel", "weight") in one.aliases
    assert one.tensors < report.tensors
    assert not any(note.kind == "equal" for note in one.notes)
    kerasport.verify(tmp_path / "y.safetensors", against=snapshot)


def test_the_command_line_ties_by_content(saved: Path, tmp_path: Path) -> None:
    words = [str(saved / "sharing.h5"), str(tmp_path / "x.pt"), "--to", "torch"]
    with pytest.raises(SystemExit) as done:
        main(["convert", *words, "--tied", "content"])
    assert done.value.code == 0
    assert "right.shared.weight" in manifest(tmp_path / "x.pt")["aliases"]


def held(**arrays: Any) -> Snapshot:
    layers = [
        Layer(name, None, {}, {"w": Tensor.of(f"{name}/w", array, stored=f"{name}/w")})
        for name, array in arrays.items()
    ]
    return Snapshot(Source("x.keras", "keras"), tuple(layers))


RANDOM = np.random.default_rng(3).normal(size=(5, 7)).astype(np.float32)


def test_equal_tensors_are_those_of_the_same_bytes() -> None:
    # 0.0 and -0.0 are equal numbers and other bytes; NaN is the same bytes and no equal number.
    zeros = RANDOM.copy()
    zeros[4, 6] = 0.0
    minus = zeros.copy()
    minus[4, 6] = -0.0
    nans = np.where(RANDOM > 0, np.float32(np.nan), RANDOM)
    found = ties.equal(held(a=RANDOM, b=RANDOM.copy(), c=zeros, d=minus, e=nans, f=nans.copy()))
    assert {name: first.name for name, first in found.items()} == {"b/w": "a/w", "f/w": "e/w"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.zeros(64, np.float32), np.zeros(64, np.float32)),
        (np.ones((8, 8), np.float16), np.ones((8, 8), np.float16)),
        (RANDOM.reshape(-1)[: ties.SMALLEST - 1], RANDOM.reshape(-1)[: ties.SMALLEST - 1]),
        (RANDOM, RANDOM.T.copy()),
        (RANDOM, RANDOM.view(np.int32)),
    ],
    ids=["zeros", "ones", "few", "another shape", "another dtype"],
)
def test_what_is_alike_by_chance_is_not_reported(one: Any, other: Any) -> None:
    assert ties.equal(held(a=one, b=other)) == {}


def test_three_equal_tensors_have_one_first() -> None:
    found = ties.equal(held(a=RANDOM, b=RANDOM.copy(), c=RANDOM.copy()))
    assert {name: first.name for name, first in found.items()} == {"b/w": "a/w", "c/w": "a/w"}


def test_two_layers_of_one_seed_stay_two() -> None:
    """Why content alone merges nothing: untrained, they are equal, and they will part."""
    twins = [
        L.Dense(5, kernel_initializer=keras.initializers.GlorotUniform(seed=1), name=name)
        for name in ("online", "target")
    ]
    model = keras.Sequential([keras.Input((5,)), *twins])
    plan = kerasport.plan(kerasport.read(model), to="torch")
    assert plan.aliases == {}
    assert len(plan.moves) == 4


# ------------------------------------------------------------------------------- where it cannot be


def test_where_the_target_lays_it_out_twice_it_holds_both() -> None:
    """A kernel and a table of entries are one variable in Keras; torch transposes one of them."""
    array = Tensor.of("e/embeddings", RANDOM, stored="e")
    twin = Tensor.of("d/0", RANDOM, stored="d", same_as="e")
    layers = (
        Layer("e", "Embedding", {}, {"0": array}),
        Layer("d", "Dense", {"use_bias": False}, {"0": twin}),
    )
    snapshot = kerasport.identify.identify(Snapshot(Source("x", "live"), layers))
    plan = kerasport.plan(snapshot, to="torch")
    assert plan.aliases == {}
    assert [move.shape for move in plan.moves] == [(5, 7), (7, 5)]
    assert [note.subject for note in plan.notes if note.kind == "tied"] == ["d.weight"]
    # As Keras has them, they are one.
    assert kerasport.plan(snapshot, to="keras").aliases == {"d/kernel": "e/embeddings"}


def test_where_the_first_name_is_left_out_the_second_is_written(
    tied: keras.Model, tmp_path: Path
) -> None:
    snapshot = select(kerasport.read(tied, layers=LIKE), exclude=["first"])
    report = kerasport.convert(snapshot, tmp_path / "x.safetensors", to="torch")
    assert report.aliases == {}
    assert not any(note.kind == "tied" for note in report.notes)
    assert set(load_file(tmp_path / "x.safetensors")) == {"second.weight", "second.bias"}


def test_a_generated_module_gets_what_its_own_parameters_are_called(
    tied: keras.Model,
) -> None:
    plan = kerasport.plan(kerasport.read(tied, layers=LIKE), to="torch", module=True)
    assert "second.weight" in [move.name for move in plan.moves]


def test_a_cast_goes_for_both_names(tied: keras.Model, tmp_path: Path) -> None:
    snapshot = kerasport.read(tied, layers=LIKE)
    kerasport.convert(snapshot, tmp_path / "x.pt", to="torch", dtype="f16")
    state = torch.load(tmp_path / "x.pt", weights_only=True)
    assert state["second.weight"].dtype == torch.float16
    kerasport.verify(tmp_path / "x.pt", against=snapshot)


def test_omitted_tensors_are_no_variables_of_the_model() -> None:
    """What is left out is neither compared nor merged."""
    twin = Omission(Tensor.of("optimizer/m", RANDOM, stored="m"), "optimizer state")
    snapshot = Snapshot(Source("x", "keras"), held(a=RANDOM).layers, (twin,))
    assert ties.equal(snapshot) == {}


def test_a_file_that_was_moved_keeps_its_aliases(tied: keras.Model, tmp_path: Path) -> None:
    snapshot = kerasport.read(tied, layers=LIKE)
    kerasport.convert(snapshot, tmp_path / "x.safetensors", to="torch")
    shutil.move(tmp_path / "x.safetensors", tmp_path / "y.safetensors")
    assert kerasport.verify(tmp_path / "y.safetensors", against=snapshot).aliases


# ------------------------------------------------------------------------------- the way back


class TiedHead(torch.nn.Module):  # type: ignore[misc]
    """A language model as it is written in PyTorch: one parameter under two names."""

    def __init__(self, *, tied: bool = True) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(11, 7)
        self.body = torch.nn.Linear(7, 7)
        self.lm_head = torch.nn.Linear(7, 11, bias=False)
        if tied:
            self.lm_head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.lm_head(self.body(self.embed(x)))
        return y


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    inputs = keras.Input((5,), dtype="int32")
    tokens = L.ReversibleEmbedding(11, 7, name="tokens")
    logits = tokens(L.Dense(7, name="body")(tokens(inputs)), reverse=True)
    model = keras.Model(inputs, logits)
    randomize(model)
    path = tmp_path_factory.mktemp("language") / "lm.keras"
    model.save(path)
    return path


def answers(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens, and the logits that Keras gives for them."""
    x = np.random.default_rng(5).integers(0, 11, (2, 5))
    return torch.from_numpy(x), torch.from_numpy(np.array(keras.models.load_model(path)(x)))


def test_an_embedding_that_is_called_backwards_has_a_second_name(
    language_model: Path, tmp_path: Path
) -> None:
    """The same names as where the way back has a matrix of its own."""
    report = kerasport.convert(language_model, tmp_path / "x.safetensors", to="torch")
    assert report.aliases == {"tokens.reverse.weight": "tokens.embedding.weight"}
    assert "tokens.reverse.weight" not in load_file(tmp_path / "x.safetensors")
    kerasport.convert(language_model, tmp_path / "x.pt", to="torch")
    state = torch.load(tmp_path / "x.pt", weights_only=True)
    assert state["tokens.reverse.weight"].data_ptr() == state["tokens.embedding.weight"].data_ptr()
    kerasport.convert(language_model, tmp_path / "y.safetensors", to="torch", tied="both")
    assert "tokens.reverse.weight" in load_file(tmp_path / "y.safetensors")
    for name in ("x.safetensors", "x.pt", "y.safetensors"):
        kerasport.verify(tmp_path / name, against=language_model)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_tied_head_is_found_and_loads_strictly(
    suffix: str, language_model: Path, tmp_path: Path
) -> None:
    module = TiedHead()
    torch.save(module.state_dict(), tmp_path / "into.pt")
    found = kerasport.match(language_model, tmp_path / "into.pt")
    target = tmp_path / f"out{suffix}"
    report = kerasport.convert(language_model, target, to="torch", names=found)
    assert report.aliases == {"lm_head.weight": "embed.weight"}
    kerasport.verify(target, against=language_model)
    state = torch.load(target) if suffix == ".pt" else st.load_file(target)
    module.load_state_dict(state, strict=True)
    x, wanted = answers(language_model)
    torch.testing.assert_close(module(x), wanted, rtol=1e-5, atol=1e-5)


def test_a_tied_head_that_its_file_lists_once_is_found_too(
    language_model: Path, tmp_path: Path
) -> None:
    state = TiedHead().state_dict()
    del state["lm_head.weight"]
    torch.save(state, tmp_path / "into.pt")
    found = kerasport.match(language_model, tmp_path / "into.pt")
    target = tmp_path / "out.pt"
    kerasport.convert(language_model, target, to="torch", names=found)
    assert set(torch.load(target)) == set(state)
    kerasport.verify(target, against=language_model)


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_comes_back_unless_its_names_have_parted(
    tied: bool, language_model: Path, tmp_path: Path
) -> None:
    """Trained on as two parameters, they are no weight of the Keras model."""
    torch.save(TiedHead().state_dict(), tmp_path / "into.pt")
    found = kerasport.match(language_model, tmp_path / "into.pt")
    module = TiedHead(tied=tied)
    torch.save(module.state_dict(), tmp_path / "tuned.pt")
    words: Any = {"like": language_model, "names": found, "to": "keras"}
    if not tied:
        message = "lm_head.weight: is one variable with embed.weight in the model, and differs"
        with pytest.raises(UnsupportedError, match=message):
            kerasport.convert(tmp_path / "tuned.pt", tmp_path / "tuned.keras", **words)
        return
    kerasport.convert(tmp_path / "tuned.pt", tmp_path / "tuned.keras", **words)
    x, found_ = answers(tmp_path / "tuned.keras")
    torch.testing.assert_close(module(x).detach(), found_, rtol=1e-5, atol=1e-5)
