"""Which module is which layer: found where it is certain, refused where it is not, never wrong."""

from __future__ import annotations

import copy
import json
import random
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import keras
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from safetensors.torch import save_file
from torch import nn

import kerasport
from fitting import assert_outputs, drawn, fitted, model, wanted
from kerasport import cli
from kerasport.errors import UnsupportedError, UsageError, VerificationError
from kerasport.identify import identify
from kerasport.matching import Wanted, match
from kerasport.matching.bipartite import best
from kerasport.model import Layer, Snapshot, Source, Tensor
from kerasport.naming import Naming, loaded
from kerasport.units import groups
from other_names import MODELS, snapshot

Array = npt.NDArray[Any]
ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "fixtures"
CNN, SEQUENCE, ATTENTION = (FIXTURES / f"{n}.keras" for n in ("cnn", "sequence", "attention"))
L = keras.layers

# --------------------------------------------------------------------- modules of somebody's own


class Stem(nn.Module):  # type: ignore[misc]
    """The network of cnn.keras by somebody who numbers things."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, (3, 2), padding="same"), nn.BatchNorm2d(6, eps=1e-3)
        )
        self.classifier = nn.ModuleList([nn.Linear(66, 20), nn.Linear(20, 10)])
        self.depth = nn.Conv2d(6, 18, (4, 2), groups=6)
        self.wide = nn.Conv2d(18, 11, (3, 2))


class Reader(nn.Module):  # type: ignore[misc]
    """The network of sequence.keras by somebody who thinks of text."""

    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Linear(8, 11)
        self.ln = nn.LayerNorm(11, eps=1e-3)
        self.birnn = nn.LSTM(11, 7, batch_first=True, bidirectional=True)
        self.pool = nn.GRU(14, 13, batch_first=True)
        self.out = nn.Linear(13, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        x = self.ln(self.inp(rows))
        x, _ = self.birnn(x)
        x, _ = self.pool(x)
        return self.out(x[:, -1])


class Turned(nn.Module):  # type: ignore[misc]
    """A linear layer that keeps `in out`, as some do."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + self.bias


class Fused(nn.Module):  # type: ignore[misc]
    """The network of attention.keras with one matrix for query, key and value, and turned ones."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Linear(8, 12)
        self.qkv = Turned(12, 45)
        self.proj = nn.Linear(15, 12)
        self.norm = nn.Module()
        self.norm.gamma = nn.Parameter(torch.zeros(1, 1, 12))
        self.norm.beta = nn.Parameter(torch.zeros(1, 1, 12))
        self.up, self.down = Turned(12, 17), Turned(17, 12)
        self.register_buffer("ids", torch.arange(8).expand(1, -1))
        self.fc = nn.Linear(12, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        x = self.emb(rows).relu()
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 3, 5).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = nn.functional.layer_norm(x + self.proj(seen), (12,), eps=1e-3)
        x = x * self.norm.gamma + self.norm.beta
        x = x + self.down(self.up(x).relu())
        return self.fc(x.mean(1))


@pytest.mark.parametrize(("path", "make"), [(SEQUENCE, Reader), (ATTENTION, Fused)])
def test_a_module_of_other_names_puts_out_what_keras_does(
    path: Path, make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    module = make()
    fitted(path, module, tmp_path)
    recorded = np.load(path.with_name(f"{path.name.split('.')[0]}.io.npz"))
    found = module.eval()(torch.from_numpy(recorded["inputs"])).detach().numpy()
    np.testing.assert_allclose(found, recorded["outputs"], atol=1e-5)


def test_a_convolutional_network_goes_into_numbered_modules(tmp_path: Path) -> None:
    """By shapes alone; what lies behind a Flatten is reordered, as without names."""
    module = Stem()
    names = fitted(CNN, module, tmp_path)
    assert {e.target: e.sources[0] for e in names.entries} == {
        "features.0": "stem",
        "features.1": "stem_norm",
        "classifier.0": "hidden",
        "classifier.1": "logits",
        "depth": "mix",
        "wide": "head_conv",
    }
    kerasport.convert(CNN, tmp_path / "own.safetensors", to="torch")
    own, renamed = load_file(tmp_path / "own.safetensors"), load_file(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(renamed["classifier.0.weight"], own["hidden.weight"])
    report = kerasport.convert(CNN, tmp_path / "x.safetensors", to="torch", names=names)
    assert [str(n) for n in report.notes if n.kind == "reordered"] == [
        "classifier.0.weight: in goes from (space channel) to (channel space), as the target "
        "flattens an image; --flatten keep leaves it"
    ]


def test_what_a_target_has_beside_weights_is_told(tmp_path: Path) -> None:
    module = Fused()
    names = kerasport.match(ATTENTION, wanted(module))
    assert names.kept == ("ids",)
    assert str(names).endswith(
        '[keep]  # no weights: they stay the target\'s own\nnames = ["ids"]\n'
    )
    report = kerasport.convert(ATTENTION, tmp_path / "x.pt", to="torch", names=names)
    said = "ids: is no weight and is not written: it stays the target's own"
    assert said in map(str, report.notes)
    torch.save(module.state_dict(), tmp_path / "own.pt")
    target = tmp_path / "x.safetensors"
    report = kerasport.convert(ATTENTION, target, to="torch", names=names, into=tmp_path / "own.pt")
    assert (report.placed, report.tensors) == (18, 15)
    assert "ids: is no weight: passed on as the target has it" in map(str, report.notes)
    found = load_file(target)
    assert found.keys() == module.state_dict().keys()
    np.testing.assert_array_equal(found["ids"], module.ids.numpy())
    kerasport.verify(target, against=ATTENTION)
    kerasport.convert(target, tmp_path / "y.keras", to="keras", like=ATTENTION, names=names)
    assert (tmp_path / "y.keras").read_bytes() == ATTENTION.read_bytes()


def test_a_head_that_the_model_has_not_is_kept_on_request(tmp_path: Path) -> None:
    module = nn.ModuleDict({"body": Reader(), "head": nn.Linear(10, 3)})
    with pytest.raises(
        UnsupportedError, match=r"head\.weight \[3,10\], head\.bias \[3\]: no layer"
    ):
        kerasport.match(SEQUENCE, wanted(module))
    names = kerasport.match(SEQUENCE, wanted(module), keep=["head.*"])
    assert names.kept == ("head.weight", "head.bias")
    torch.save(module.state_dict(), tmp_path / "own.pt")
    kerasport.convert(
        SEQUENCE, tmp_path / "x.safetensors", to="torch", names=names, into=tmp_path / "own.pt"
    )
    state = {n: torch.from_numpy(a) for n, a in load_file(tmp_path / "x.safetensors").items()}
    module.load_state_dict(state, strict=True)
    with pytest.raises(UsageError, match="no tensor of the target has such a name"):
        kerasport.match(SEQUENCE, wanted(module), keep=["tail.*"])


@pytest.mark.parametrize(("path", "make"), [(CNN, Stem), (SEQUENCE, Reader), (ATTENTION, Fused)])
def test_the_way_back_takes_the_same_names(
    path: Path, make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    module = make()
    names = fitted(path, module, tmp_path)
    bare = {n: v.contiguous() for n, v in module.state_dict().items() if n not in names.kept}
    save_file(bare, tmp_path / "bare.safetensors")
    for state in ("x", "bare"):
        target = tmp_path / "y.keras"
        kerasport.convert(
            tmp_path / f"{state}.safetensors", target, to="keras", like=path, names=names
        )
        assert target.read_bytes() == path.read_bytes()


# ---------------------------------------------------------------------------------- transformers


EXPECTED = {
    "bert": {
        "embeddings.word_embeddings": "token_embedding",
        "embeddings.position_embeddings": "position_embedding",
        "embeddings.token_type_embeddings": "segment_embedding",
        "embeddings.LayerNorm": "embeddings_layer_norm",
        **{
            f"encoder.layer.{{n}}.{to}": f"transformer_layer_{{n}}/{of}"
            for to, of in {
                "attention.self.query": "_self_attention_layer/query",
                "attention.self.key": "_self_attention_layer/key",
                "attention.self.value": "_self_attention_layer/value",
                "attention.output.dense": "_self_attention_layer/attention_output",
                "attention.output.LayerNorm": "_self_attention_layer_norm",
                "intermediate.dense": "_feedforward_intermediate_dense",
                "output.dense": "_feedforward_output_dense",
                "output.LayerNorm": "_feedforward_layer_norm",
            }.items()
        },
        "pooler.dense": "pooled_dense",
    },
    "gpt2": {
        "wte": "token_embedding",
        "wpe": "position_embedding",
        "h.{n}.ln_1": "transformer_layer_{n}/_self_attention_layer_norm",
        "h.{n}.attn.c_attn": {
            "from": [
                f"transformer_layer_{{n}}/_self_attention_layer/{part}"
                for part in ("query", "key", "value")
            ],
            "join": "q k v",
            "weight": "query_in ([q k v] head key)",
        },
        "h.{n}.attn.c_proj": {
            "from": "transformer_layer_{n}/_self_attention_layer/attention_output",
            "weight": "(head value) out",
        },
        "h.{n}.ln_2": "transformer_layer_{n}/_feedforward_layer_norm",
        "h.{n}.mlp.c_fc": {
            "from": "transformer_layer_{n}/_feedforward_intermediate_dense",
            "weight": "in out",
        },
        "h.{n}.mlp.c_proj": {
            "from": "transformer_layer_{n}/_feedforward_output_dense",
            "weight": "in out",
        },
        "ln_f": "layer_norm",
    },
    "vit": {
        "embeddings.cls_token": "vit_patching_and_embedding/0",
        "embeddings.position_embeddings": {
            "from": "vit_patching_and_embedding/position_embedding",
            "tensor": "weight",
            "layout": "1 token embed",
        },
        "embeddings.patch_embeddings.projection": "vit_patching_and_embedding/patch_embedding",
        **{
            f"layers.{{n}}.{to}": f"vit_encoder/encoder_layers/vi_t_encoder_block_{{n}}/{of}"
            for to, of in {
                "attention.q_proj": "mha/query",
                "attention.k_proj": "mha/key",
                "attention.v_proj": "mha/value",
                "attention.o_proj": "mha/attention_output",
                "layernorm_before": "layer_norm_1",
                "layernorm_after": "layer_norm_2",
            }.items()
        },
        "layers.{n}.mlp.fc{m}": "vit_encoder/encoder_layers/vi_t_encoder_block_{n}/mlp/dense_{m}",
        "layernorm": "vit_encoder/layer_norm",
    },
}


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_a_transformer_goes_into_another_librarys_names(name: str, ordered: bool) -> None:
    """In the order of a module and in that of a file, which sorts its names."""
    hub, face = MODELS[name]
    source, target = snapshot(hub(3)), face(3)
    if not ordered:
        target = sorted(target, key=lambda w: (len(w.shape), w.name))
    found = match(source, groups(source), target, ordered=ordered)
    assert {w.name for w in target} == {n for p in found.pairs for n, _ in p.tensors.values()}
    from kerasport.naming import named

    assert named(found, source).to_json()["names"] == EXPECTED[name]


@pytest.mark.parametrize("name", MODELS)
def test_the_names_of_a_small_model_serve_a_deeper_one(name: str, tmp_path: Path) -> None:
    hub, face = MODELS[name]
    small, deep = snapshot(hub(2)), snapshot(hub(5))
    (tmp_path / "names.toml").write_text(str(kerasport.match(small, face(2))))
    kerasport.convert(deep, tmp_path / "x.safetensors", to="torch", names=tmp_path / "names.toml")
    found = load_file(tmp_path / "x.safetensors")
    assert {n: a.shape for n, a in found.items()} == {w.name: w.shape for w in face(5)}
    kerasport.verify(tmp_path / "x.safetensors", against=deep, names=tmp_path / "names.toml")


def test_a_fused_matrix_holds_what_it_is_said_to_hold(tmp_path: Path) -> None:
    """By hand, from the arrays: columns of query, then key, then value, head by head."""
    hub, face = MODELS["gpt2"]
    source = snapshot(hub(2))
    kerasport.convert(
        source, tmp_path / "x.safetensors", to="torch", names=kerasport.match(source, face(2))
    )
    found = load_file(tmp_path / "x.safetensors")
    weights = source["transformer_layer_1/_self_attention_layer"].weights
    kernels = [weights[f"{part}/kernel"].numpy() for part in ("query", "key", "value")]
    biases = [weights[f"{part}/bias"].numpy() for part in ("query", "key", "value")]
    np.testing.assert_array_equal(
        found["h.1.attn.c_attn.weight"], np.concatenate([k.reshape(8, 8) for k in kernels], 1)
    )
    np.testing.assert_array_equal(
        found["h.1.attn.c_attn.bias"], np.concatenate([b.reshape(8) for b in biases])
    )
    np.testing.assert_array_equal(
        found["h.1.attn.c_proj.weight"], weights["attention_output/kernel"].numpy().reshape(8, 8)
    )


# ------------------------------------------------------------------------------- other structures


def test_a_chain_of_equal_layers_goes_by_its_order(tmp_path: Path) -> None:
    source = model(*(L.Dense(6, "relu", name=f"d{n}") for n in "cab"))
    module = nn.Sequential(*(m for _ in "123" for m in (nn.Linear(6, 6), nn.ReLU())))
    x = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    names = assert_outputs(source, module, tmp_path, x)
    assert [(e.target, e.sources) for e in names.entries] == [
        ("0", ("dc",)),
        ("2", ("da",)),
        ("4", ("db",)),
    ]
    assert names.notes == (
        "by their order alone: dc, da, db",
        "square, and taken as torch.nn lays a matrix out: 0.weight, 2.weight, 4.weight",
    )


def test_stacked_recurrent_layers_go_into_one_module(tmp_path: Path) -> None:
    source = model(
        L.LSTM(5, return_sequences=True, name="lower"), L.LSTM(5, name="upper"), shape=(4, 3)
    )

    class Stacked(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 5, num_layers=2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rnn(x)[0][:, -1]

    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    assert_outputs(source, Stacked(), tmp_path, x)


def test_an_attention_goes_into_the_module_of_torch(tmp_path: Path) -> None:
    x = keras.Input((4, 6))
    seen = L.MultiHeadAttention(2, 3, name="see")(x, x)
    source = keras.Model(x, seen)
    rng = np.random.default_rng(1)
    for variable in source.weights:
        variable.assign(rng.normal(size=variable.shape))

    class Seer(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.mha = nn.MultiheadAttention(6, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.mha(x, x, x)[0]

    names = assert_outputs(source, Seer(), tmp_path, rng.normal(size=(2, 4, 6)).astype("f4"))
    assert names.to_json()["names"] == {"mha": "see", "mha.out_proj": "see/out_proj"}


def test_three_layers_are_joined_and_one_is_split(tmp_path: Path) -> None:
    """Layers of somebody's own attention, in a matrix of three; and the other way."""
    apart = model_of_attention(["query", "key", "value"])
    whole = model_of_attention(["qkv"])
    three = nn.ModuleDict({n: nn.Linear(6, 4) for n in ("q", "k", "v")})
    one = nn.ModuleDict({"in_proj": nn.Linear(6, 12)})
    fitted(apart, one, tmp_path)
    kernels = [apart.get_layer(n).kernel.numpy().T for n in ("query", "key", "value")]
    np.testing.assert_array_equal(
        one.state_dict()["in_proj.weight"].numpy(), np.concatenate(kernels)
    )
    fitted(whole, three, tmp_path)
    kernel, bias = (variable.numpy() for variable in whole.get_layer("qkv").weights)
    for n, name in enumerate("qkv"):
        state = three.state_dict()
        np.testing.assert_array_equal(
            state[f"{name}.weight"].numpy(), kernel[:, 4 * n : 4 * n + 4].T
        )
        np.testing.assert_array_equal(state[f"{name}.bias"].numpy(), bias[4 * n : 4 * n + 4])


def model_of_attention(names: list[str]) -> keras.Model:
    x = keras.Input((6,))
    size = 12 // len(names)
    source = keras.Model(x, [L.Dense(size, name=name)(x) for name in names])
    rng = np.random.default_rng(8)
    for variable in source.weights:
        variable.assign(rng.normal(size=variable.shape))
    return source


@pytest.mark.parametrize("way", ["in out", "out in"])
def test_a_square_matrix_lies_as_those_beside_it(way: str, tmp_path: Path) -> None:
    source = model(L.Dense(7, name="up"), L.Dense(7, name="same"), L.Dense(6, name="down"))
    kind = Turned if way == "in out" else nn.Linear
    module = nn.Sequential(kind(6, 7), kind(7, 7), kind(7, 6))
    x = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    assert assert_outputs(source, module, tmp_path, x).notes == ()


def test_a_square_matrix_among_both_kinds_is_refused() -> None:
    source = model(L.Dense(7, name="up"), L.Dense(7, name="same"), L.Dense(6, name="down"))
    module = nn.Sequential(Turned(6, 7), nn.Linear(7, 7), nn.Linear(7, 6))
    with pytest.raises(UnsupportedError, match=r"1: its matrix is square, and of those around it"):
        kerasport.match(source, wanted(module))


# ------------------------------------------------------------------------ what cannot be settled


def two_branches() -> keras.Model:
    x = keras.Input((6,))
    left, right = L.Dense(5, name="left")(x), L.Dense(5, name="right")(x)
    return keras.Model(x, L.Dense(3, name="end")(L.add([left, right])))


class Unlike(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.end = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 3)


def test_two_branches_of_unlike_names_are_ambiguous() -> None:
    """Their order says nothing: neither feeds the other."""
    with pytest.raises(UnsupportedError) as raised:
        kerasport.match(two_branches(), wanted(Unlike()))
    assert str(raised.value) == (
        "Functional goes into the target in more than one way:\n"
        "  left   weight [5,6], bias [5]  a or b\n"
        "  right  weight [5,6], bias [5]  a or b\n"
        "Neither names nor order tell them apart: say it with --hint 'left=a', or run it with "
        "--inputs"
    )
    assert raised.value.exit_code == 5


@pytest.mark.parametrize(("hint", "left"), [({"left": "a"}, "a"), ({"right": "a"}, "b")])
def test_a_hint_settles_it(hint: Mapping[str, str], left: str) -> None:
    names = kerasport.match(two_branches(), wanted(Unlike()), hints=hint)
    assert {e.sources[0]: e.target for e in names.entries}["left"] == left


def test_names_settle_what_order_would_not() -> None:
    """And go before it: the module lists the right one first."""

    class Named(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.right_fc, self.left_fc = nn.Linear(6, 5), nn.Linear(6, 5)
            self.end = nn.Linear(5, 3)

    names = kerasport.match(two_branches(), wanted(Named()))
    assert {e.sources[0]: e.target for e in names.entries} == {
        "left": "left_fc",
        "right": "right_fc",
        "end": "end",
    }


def test_a_file_that_sorts_its_names_has_no_order(tmp_path: Path) -> None:
    source = model(L.Dense(6, name="one"), L.Dense(6, name="other"))
    module = nn.ModuleDict({"zeta": nn.Linear(6, 6), "alpha": nn.Linear(6, 6)})
    names = kerasport.match(source, wanted(module))
    assert {e.sources[0]: e.target for e in names.entries} == {"one": "zeta", "other": "alpha"}
    torch.save(module.state_dict(), tmp_path / "x.pt")
    assert kerasport.match(source, tmp_path / "x.pt").entries == names.entries
    save_file(module.state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(UnsupportedError, match="in more than one way"):
        kerasport.match(source, tmp_path / "x.safetensors")


BRANCHES = """
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.end = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 3)
    def forward(self, x):
        return {"y": self.end(self.b(x).tanh() + self.a(x))}
"""


def test_running_settles_what_nothing_else_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outputs that the model gave; where no way gives them, there is no match."""
    monkeypatch.chdir(tmp_path)
    name = f"branches_{random.randrange(10**9)}"
    (tmp_path / f"{name}.py").write_text(BRANCHES)
    x = keras.Input((6,))
    left = L.Dense(5, "tanh", name="left")(x)
    source = keras.Model(x, L.Dense(3, name="end")(L.add([left, L.Dense(5, name="right")(x)])))
    rng = np.random.default_rng(2)
    for variable in source.weights:
        variable.assign(rng.normal(size=variable.shape))
    given = rng.normal(size=(4, 6)).astype(np.float32)
    recorded = {"x": given, "outputs": source(given).numpy()}
    with pytest.raises(UnsupportedError, match="in more than one way"):
        kerasport.match(source, f"{name}:Net")
    names = kerasport.match(source, f"{name}:Net", inputs=recorded)
    assert names.to_json()["names"] == {"a": "right", "b": "left", "end": "end"}
    assert names.notes == ("proven by running it",)
    with pytest.raises(UnsupportedError, match="in 2 ways, and 0 of them put out what the model"):
        kerasport.match(source, f"{name}:Net", inputs={**recorded, "outputs": given[:, :3]})
    with pytest.raises(UsageError, match="expected an output of shape"):
        kerasport.match(source, f"{name}:Net", inputs={**recorded, "outputs": given})
    by_keras = kerasport.match(source, f"{name}:Net", inputs={"x": given})
    assert by_keras.to_json() == names.to_json()
    with pytest.raises(UsageError, match="expected arrays of inputs beside 'outputs', found none"):
        kerasport.match(source, f"{name}:Net", inputs={"outputs": given})
    with pytest.raises(UsageError, match=r"expected f.*32\[.,6\], as Keras takes it"):
        kerasport.match(source, f"{name}:Net", inputs={"x": given[:, :5]})
    np.savez(tmp_path / "x.npz", x=given)
    np.savez(tmp_path / "io.npz", **recorded)
    source.save(tmp_path / "m.keras")
    words = ("match", "m.keras", "--into", f"{name}:Net", "--inputs")
    for file in ("io.npz", "x.npz"):
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, file])
        assert ended.value.code == 0
        assert '"a" = "right"' in capsys.readouterr().out
    for wrong in ("nothing.npz", "m.keras"):
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, wrong])
        assert ended.value.code == 2
        assert "expected" in capsys.readouterr().err
    torch.save({}, tmp_path / "x.pt")
    with pytest.raises(UsageError, match=r"expected package\.module:factory to run"):
        kerasport.match(source, tmp_path / "x.pt", inputs=recorded)


IMAGES = """
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Conv2d(3, 3, 3, padding=1) for _ in "ab")
    def forward(self, x):
        return self.a(x).tanh() + self.b(x)
"""


def test_keras_is_run_on_images_as_it_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the module on the same with their channels first."""
    monkeypatch.chdir(tmp_path)
    name = f"images_{random.randrange(10**9)}"
    (tmp_path / f"{name}.py").write_text(IMAGES)
    x = keras.Input((5, 4, 3))
    one, other = (L.Conv2D(3, 3, padding="same", name=n)(x) for n in ("one", "other"))
    source = drawn(keras.Model(x, L.add([one, L.Activation("tanh")(other)])))
    given = np.random.default_rng(1).normal(size=(2, 5, 4, 3)).astype(np.float32)
    names = kerasport.match(source, f"{name}:Net", inputs={"image": given})
    assert names.to_json()["names"] == {"a": "other", "b": "one"}


def test_what_does_not_fit_is_told_on_both_sides() -> None:
    module = nn.Sequential(nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 2))
    with pytest.raises(UnsupportedError) as raised:
        kerasport.match(two_branches(), wanted(module))
    assert str(raised.value) == (
        "Functional does not go into the target:\n"
        "  3.weight [2,4], 3.bias [2]: no layer of the model fits it\n"
        "  end (weight [3,5], bias [3]): nearly fits, but 2 has weight [4,5], bias [4]\n\n"
        "A part is matched with --include, --exclude and --keep"
    )


def test_a_layer_too_many_is_told() -> None:
    module = nn.ModuleDict({"a": nn.Linear(6, 5), "end": nn.Linear(5, 3)})
    with pytest.raises(UnsupportedError, match="no module is left for it, others need a"):
        kerasport.match(two_branches(), wanted(module))


def test_a_bias_that_the_target_has_not_must_be_zero(tmp_path: Path) -> None:
    """Left out where it adds nothing; with other values it is refused, then and later."""
    module = nn.Sequential(nn.Linear(6, 5, bias=False))
    source = model(L.Dense(5, name="d"))
    message = r"d \(weight \[5,6\], bias \[5\]\): nearly fits, but 0 has no bias, and the model's"
    with pytest.raises(UnsupportedError, match=message):
        kerasport.match(source, wanted(module))
    kernel, bias = source.get_layer("d").get_weights()
    source.get_layer("d").set_weights([kernel, 0 * bias])
    x = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    names = assert_outputs(source, module, tmp_path, x)
    assert names.to_json()["names"] == {"0": {"from": "d", "without": "bias"}}
    source.save(tmp_path / "d.keras")
    kerasport.convert(
        tmp_path / "x.safetensors", tmp_path / "y.keras", to="keras",
        like=tmp_path / "d.keras", names=names,
    )  # fmt: skip
    assert (tmp_path / "y.keras").read_bytes() == (tmp_path / "d.keras").read_bytes()
    source.get_layer("d").set_weights([kernel, bias])
    with pytest.raises(VerificationError, match="d/bias: is not zero, and was left out"):
        kerasport.verify(tmp_path / "x.safetensors", against=source)
    with pytest.raises(UsageError, match="d/bias: is not zero, and 0 leaves it out"):
        kerasport.convert(source, tmp_path / "x.safetensors", to="torch", names=names)


@pytest.mark.parametrize(
    ("layer", "make"),
    [
        (L.Dense(5, use_bias=False, name="d"), lambda: nn.Linear(6, 5)),
        (L.Conv1D(5, 2, use_bias=False, name="d"), lambda: nn.Conv1d(6, 5, 2)),
    ],
)
def test_a_bias_that_the_model_has_not_is_zero(
    layer: Any, make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    """And must still be on the way back: the model has no place for it."""
    shape = (6,) if isinstance(layer, L.Dense) else (4, 6)
    source, module = model(layer, shape=shape), nn.Sequential(make())
    names = fitted(source, module, tmp_path)
    assert names.to_json()["names"] == {"0": {"from": "d", "zeros": "bias"}}
    state = module.state_dict()
    np.testing.assert_array_equal(state["0.bias"].numpy(), np.zeros(5))
    source.save(tmp_path / "d.keras")

    def back() -> None:
        like, target = tmp_path / "d.keras", tmp_path / "y.keras"
        kerasport.convert(tmp_path / "x.safetensors", target, to="keras", like=like, names=names)

    back()
    assert (tmp_path / "y.keras").read_bytes() == (tmp_path / "d.keras").read_bytes()
    save_file({**state, "0.bias": state["0.bias"] + 1}, tmp_path / "x.safetensors")
    with pytest.raises(UnsupportedError, match="the model has no place for them"):
        back()


def test_layers_that_fit_but_for_a_bias_are_told_in_few_lines() -> None:
    source = model(*(L.Dense(n, name=f"d{n}") for n in (5, 7, 2, 3, 4)))
    sizes = (6, 5, 7, 2, 3, 4)
    module = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes)))
    with pytest.raises(UnsupportedError) as raised:
        kerasport.match(source, wanted(module))
    assert raised.value.problems == (
        "d2 (weight [2,7], bias [2]): nearly fits, but 2 has no bias, and the model's is not zero",
        "d5 (weight [5,6], bias [5]): nearly fits, but 0 has no bias, and the model's is not zero",
        "d7 (weight [7,5], bias [7]): nearly fits, but 1 has no bias, and the model's is not zero",
        "… d3, d4: likewise (has no bias, and the model's is not zero)",
    )


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize(
    ("wrap", "first"),
    [
        (nn.utils.parametrizations.weight_norm, "0.parametrizations.weight.original0"),
        (nn.utils.weight_norm, "0.weight_g"),
        (nn.utils.spectral_norm, "0.weight_orig"),
    ],
)
def test_a_weight_that_torch_recomputes_is_refused_with_the_way_out(wrap: Any, first: str) -> None:
    """What it is made of would have to be found for it, and would be rounded."""
    source, module = model(L.Dense(5, name="d")), nn.Sequential(wrap(nn.Linear(6, 5)))
    with pytest.raises(UnsupportedError) as raised:
        kerasport.match(source, wanted(module))
    assert first in str(raised.value)
    assert "torch.nn.utils.parametrize.remove_parametrizations makes it one" in str(raised.value)


NEOX = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.query_key_value, self.dense = nn.Linear(6, 18), nn.Linear(6, 6)
    def forward(self, x):
        parts = self.query_key_value(x).view(*x.shape[:2], 2, 3, 3).permute(3, 0, 2, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(*parts)
        return self.dense(seen.transpose(1, 2).flatten(2))
"""


def test_whether_a_fused_matrix_goes_by_heads_is_told_or_found_by_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shape tells it: GPT-NeoX has query, key and value of a head side by side."""
    monkeypatch.chdir(tmp_path)
    name = f"neox_{random.randrange(10**9)}"
    (tmp_path / f"{name}.py").write_text(NEOX)
    x = keras.Input((4, 6))
    source = drawn(keras.Model(x, L.MultiHeadAttention(2, 3, name="see")(x, x)))
    told = kerasport.match(source, f"{name}:Net").notes
    assert told[0] == ("query, key and value taken end to end, not head by head: query_key_value")
    given = np.random.default_rng(1).normal(size=(2, 4, 6)).astype(np.float32)
    recorded = {"x": given, "outputs": source(given, training=False).numpy()}
    names = kerasport.match(source, f"{name}:Net", inputs=recorded)
    assert names.notes == ("proven by running it",)
    assert names.to_json()["names"]["query_key_value"] == {
        "from": ["see/query", "see/key", "see/value"],
        "join": "q k v",
        "weight": "(head [q k v] key) query_in",
        "bias": "(head [q k v] key)",
    }


class Tied(nn.Module):  # type: ignore[misc]
    """A language model whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.mid = nn.Embedding(11, 4), nn.Linear(4, 4)
        self.lm_head = nn.Linear(4, 11, bias=False)
        self.lm_head.weight = self.wte.weight


def test_a_variable_that_the_target_has_twice_is_written_under_both_names(tmp_path: Path) -> None:
    source = model(L.Embedding(11, 4, name="tokens"), L.Dense(4, name="d"), shape=(3,))
    source.save(tmp_path / "m.keras")
    torch.save(Tied().state_dict(), tmp_path / "own.pt")
    names = kerasport.match(source, tmp_path / "own.pt")
    assert names.to_json()["names"] == {
        "wte": "tokens",
        "mid": "d",
        "lm_head.weight": {"from": "tokens", "tensor": "weight"},
    }
    target = tmp_path / "x.safetensors"
    report = kerasport.convert(tmp_path / "m.keras", target, to="torch", names=names)
    assert report.aliases == {"lm_head.weight": "wte.weight"}
    kerasport.verify(target, against=tmp_path / "m.keras")
    state = {n: torch.from_numpy(a) for n, a in load_file(target).items()}
    module = Tied()
    module.load_state_dict(state, strict=True)
    np.testing.assert_array_equal(
        module.lm_head.weight.detach().numpy(), source.get_layer("tokens").embeddings.numpy()
    )

    def back(path: Path) -> None:
        like = tmp_path / "m.keras"
        kerasport.convert(path, tmp_path / "y.keras", to="keras", like=like, names=names)

    torch.save(module.state_dict(), tmp_path / "tuned.pt")
    back(tmp_path / "tuned.pt")
    assert (tmp_path / "y.keras").read_bytes() == (tmp_path / "m.keras").read_bytes()
    torch.save({**state, "lm_head.weight": state["wte.weight"] + 1}, tmp_path / "apart.pt")
    with pytest.raises(UnsupportedError, match=r"is one variable with wte\.weight"):
        back(tmp_path / "apart.pt")


def test_equal_values_are_no_tie(tmp_path: Path) -> None:
    """Blocks that were copied from one another begin alike, and are two."""
    source = model(L.Dense(6, name="a"), L.Dense(6, name="b"))
    layer = nn.Linear(6, 6)
    module = nn.Sequential(layer, copy.deepcopy(layer))
    torch.save(module.state_dict(), tmp_path / "own.pt")
    names = kerasport.match(source, tmp_path / "own.pt")
    assert [(e.target, e.sources) for e in names.entries] == [("0", ("a",)), ("1", ("b",))]


SHAPES = [(2, 3), (3, 5), (5, 2), (3, 3)]


@st.composite
def scrambled(draw: st.DrawFn) -> tuple[Snapshot, list[Wanted], dict[str, str]]:
    """A model of dense layers, and the same in a file of names that say nothing."""
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=6))
    order = draw(st.permutations(range(len(shapes))))
    letters = "pqrstuvwxyz"
    layers, made, truth = [], [], {}
    for n, place in enumerate(order):
        inputs, outputs = shapes[place]
        path, name = f"layer_{letters[n] * 3}", f"m{letters[-1 - place] * 3}"
        truth[path] = name
        kernel = np.zeros((inputs, outputs), np.float32)
        weights = {
            "0": Tensor.of(f"{path}/0", kernel),
            "1": Tensor.of(f"{path}/1", kernel[0]),
        }
        layers.append(Layer(path, "Dense", {"units": outputs}, weights))
    for place, (inputs, outputs) in enumerate(shapes):
        name = f"m{letters[-1 - place] * 3}"
        made += [Wanted(f"{name}.weight", (outputs, inputs)), Wanted(f"{name}.bias", (outputs,))]
    return identify(Snapshot(Source("x", "memory"), tuple(layers))), made, truth


@settings(max_examples=60)
@given(scrambled())
def test_nothing_is_ever_matched_by_chance(case: tuple[Any, list[Wanted], dict[str, str]]) -> None:
    """Names that say nothing, in no order: shapes settle it, or nothing does."""
    source, target, truth = case
    shapes = [tuple(layer.weights["kernel"].shape) for layer in source.layers]
    unique = len(set(shapes)) == len(shapes)
    if not unique:
        with pytest.raises(UnsupportedError, match="in more than one way"):
            match(source, groups(source), target, ordered=False)
        return
    found = match(source, groups(source), target, ordered=False)
    assert {pair.unit.path: pair.module for pair in found.pairs} == truth


@settings(max_examples=40)
@given(st.integers(1, 7), st.integers(0, 3), st.integers(0, 10**6))
def test_the_best_assignment_is_the_best_of_all(rows: int, more: int, seed: int) -> None:
    from itertools import permutations

    scores = np.random.default_rng(seed).normal(size=(min(rows, 5), min(rows, 5) + more))
    highest = max(
        sum(scores[n, c] for n, c in enumerate(columns))
        for columns in permutations(range(scores.shape[1]), len(scores))
    )
    found = best(scores)
    assert len(set(found)) == len(found)
    assert sum(scores[n, c] for n, c in enumerate(found)) == pytest.approx(highest)


# ------------------------------------------------------------------------------------- the file


SCHEMA = json.loads((ROOT / "schemas" / "names.v1.schema.json").read_text())


def all_names() -> Iterator[Naming]:
    for hub, face in MODELS.values():
        yield kerasport.match(snapshot(hub(2)), face(2))
    yield kerasport.match(ATTENTION, wanted(Fused()))


def test_the_file_is_read_as_it_was_written() -> None:
    for names in all_names():
        read = tomllib.loads(str(names))
        jsonschema.validate(read, SCHEMA)
        assert read == names.to_json()
        assert loaded(read).to_json() == names.to_json()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"version": 2, "names": {}}, "version: expected 1, found 2"),
        ({"version": 1}, "names: expected a table of modules and layers"),
        ({"version": 1, "names": {}, "more": 1}, "more: expected kinds, names or keep"),
        ({"version": 1, "names": {"a": 1}}, "names: a: expected a layer, or a table of texts"),
        ({"version": 1, "names": {"a": {"weight": "in"}}}, "names: a: expected 'from'"),
        ({"version": 1, "names": {"a": {"from": ["x"]}}}, "names: a: expected a layer, or a table"),
        ({"version": 1, "names": {"a": {"from": "x", "layout": "in"}}}, "expected 'tensor' beside"),
        ({"version": 1, "names": {}, "kinds": {"a": 1}}, "kinds: expected a kind for each pattern"),
        ({"version": 1, "names": {}, "keep": {"names": 1}}, "keep: expected a list of names"),
    ],
)
def test_a_file_that_breaks_the_contract_is_refused(document: Any, message: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)
    with pytest.raises(UsageError, match=re.escape(message)):
        loaded(document)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"from": ["x", "y"]}, "expected 'join' with a word for each"),
        ({"from": "x", "weight": "in ("}, r"is not a sentence of the grammar"),
        ({"from": "x", "tensor": "weight", "bias": "out"}, "expected no bias beside 'tensor'"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused(value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        loaded({"version": 1, "names": {"a": value}})


def named_with(folder: Path, entries: Mapping[str, Any]) -> Any:
    source = model(L.Dense(5, name="d_1"), L.Dense(4, name="d_2"))
    names = {"version": 1, "names": entries}
    return kerasport.convert(source, folder / "x.safetensors", to="torch", names=names)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"a": "d_1", "b": "d_3"}, "b: no layer is called d_3"),
        ({"a": "d_{n}"}, "a.weight: is named twice"),
        ({"a{m}": "d_{n}"}, "{m} stands in 'a{m}' and in no layer's name"),
        ({"a": {"from": "d_1", "kernel": "in out"}, "b": "d_2"}, "d_1 has no kernel"),
        ({"a": {"from": "d_1", "weight": "in"}, "b": "d_2"}, "expected the axes of 'out in'"),
        ({"a": {"from": ["d_1", "d_2"], "join": "x y"}}, "cannot be joined: they are unlike"),
    ],
)
def test_names_that_do_not_fit_the_model_are_refused(
    entries: Mapping[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        named_with(tmp_path, entries)
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("name", ["d" + "7" * 5000, "٣", "", "a.b", "{n}", "Ünï 1/2", "d\n1"])
def test_names_of_any_kind_are_taken_as_they_are(name: str, tmp_path: Path) -> None:
    """Layers and tensors are called what strangers call them."""
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    weights = {"0": Tensor.of(f"{name}/0", kernel), "1": Tensor.of(f"{name}/1", kernel[0])}
    source = identify(
        Snapshot(Source("x", "memory"), (Layer(name, "Dense", {"units": 3}, weights),))
    )
    target = [Wanted(f"{name}.weight", (3, 2)), Wanted(f"{name}.bias", (3,))]
    names = loaded(tomllib.loads(str(kerasport.match(source, target))))
    (entry,) = names.entries
    assert (entry.target, entry.sources) == (name, (name,))


def test_names_alone_do_not_say_what_a_layer_is(tmp_path: Path) -> None:
    """Several kinds fit it, and the first of them is as good as any: a guess."""
    hub, _ = MODELS["bert"]
    names = {"version": 1, "names": {"emb": "token_embedding"}}
    with pytest.raises(UsageError, match=r"the kind of token_embedding is not known: give it"):
        kerasport.convert(snapshot(hub(1)), tmp_path / "x.pt", to="torch", names=names)


def test_names_that_leave_a_layer_out_would_lose_it(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="d_2/bias: would be lost: the names give it no"):
        named_with(tmp_path, {"a": "d_1"})


def test_numbers_go_on_at_a_distance(tmp_path: Path) -> None:
    named_with(tmp_path, {"fc.{n-1}": "d_{n}"})
    assert {n.rpartition(".")[0] for n in load_file(tmp_path / "x.safetensors")} == {"fc.0", "fc.1"}


# ---------------------------------------------------------------------------------- the command


FACTORY = """
from torch import nn
print("made")
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp, self.out = nn.Linear(8, 11), nn.Linear(13, 10)
        self.ln, self.gru = nn.LayerNorm(11), nn.GRU(14, 13)
        self.rnn = nn.LSTM(11, 7, bidirectional=True)
def no_module():
    return 3
def broken():
    raise RuntimeError("nothing to load")
"""


def test_the_command_writes_names_and_runs_a_factory_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"factory_{random.randrange(10**9)}"
    (tmp_path / f"{name}.py").write_text(FACTORY)

    def run(*words: str) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        return ended.value.code, *capsys.readouterr()

    code, out, err = run("match", str(SEQUENCE), "--into", f"{name}:Net", "-o", "names.toml")
    assert (code, out, err) == (0, "made\nnames.toml: 5 lines of names\n", "")
    code, out, _ = run("match", str(SEQUENCE), "--into", f"{name}:Net")
    assert (code, out) == (0, (tmp_path / "names.toml").read_text())
    code, out, _ = run("match", str(SEQUENCE), "--into", f"{name}:Net", "--json")
    assert json.loads(out) == tomllib.loads((tmp_path / "names.toml").read_text())
    words = ("--to", "torch", "--names", "names.toml")
    assert run("convert", str(SEQUENCE), "x.safetensors", *words)[0] == 0
    assert run("verify", "x.safetensors", "--against", str(SEQUENCE))[0] == 0
    assert "gru.weight_ih_l0" in load_file("x.safetensors")
    assert run("convert", str(SEQUENCE), "x.onnx", "--to", "onnx", "--names", "names.toml")[0] == 2
    code, out, _ = run("plan", str(SEQUENCE), *words)
    assert code == 0
    planned = {line.split()[0] for line in out.splitlines() if not line.startswith(" ")}
    assert planned == set(load_file("x.safetensors"))
    assert run("plan", str(SEQUENCE), "--to", "onnx", "--names", "names.toml")[0] == 2
    for target, message in (
        (f"{name}:no_module", "expected a factory of an nn.Module"),
        (f"{name}:broken", "and it raised RuntimeError: nothing to load"),
        (f"{name}:nothing", "expected package.module:factory"),
        ("no_such_package:Net", "expected package.module:factory"),
    ):
        code, out, err = run("match", str(SEQUENCE), "--into", target)
        assert (code, out) == (2, "")
        assert message in err
    code, _, err = run("match", str(SEQUENCE), "--into", f"{name}:Net", "--hint", "nothing=*")
    assert (code, err) == (2, "kerasport: --hint nothing=*: no layer fits 'nothing'\n")
    code, _, err = run("match", str(SEQUENCE), "--into", f"{name}:Net", "--hint", "nothing")
    assert code == 2
    assert "expected LAYERS=NAMES" in err
