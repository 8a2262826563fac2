"""KerasHub's models are read whole, from memory and from files that name none of their layers.

The models are KerasHub's own, built with random weights. What a stored tensor belongs to is asked
of the live model: the object that holds a variable of these very bytes, its class and its
configuration, which is what the table must have found without them (`benchmarks.hub`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers as L

import kerasport
from benchmarks.hub import built, compared, mistaken
from kerasport import codegen, hub
from kerasport.errors import UnsupportedError
from kerasport.hub import weights
from kerasport.kinds import CLASSES, facets, snake_case

# KerasHub's and TensorFlow's own: about masks, and about layers that are saved unbuilt.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have a `build:UserWarning"),
]
# A sample of every way that layers are kept; `python -m benchmarks.hub` runs all families.
SAMPLE = (
    *("Bert", "DepthAnything", "Gemma4", "GptOss", "Llama3", "Qwen3_5Moe", "RWKV7", "ViTDet"),
    "Whisper",
)


@pytest.fixture(scope="module")
def families() -> ModuleType:
    return import_module("hub_families")


# ------------------------------------------------------------------------------------- families


def test_every_backbone_of_keras_hub_is_built_or_says_why_not(families: Any) -> None:
    """A family that a later KerasHub adds is missed here first."""
    offered = {name for name in dir(families.MODELS) if name.endswith("Backbone")}
    assert len(offered) > 70
    built_ones = {f"{name}Backbone" for name in families.FAMILIES}
    assert offered == built_ones | families.NOT_BUILT.keys()
    assert not built_ones & families.NOT_BUILT.keys()
    assert set(SAMPLE) <= families.FAMILIES.keys()


@pytest.mark.parametrize("family", SAMPLE)
def test_a_family_is_the_same_from_memory_and_from_its_files(family: str, tmp_path: Path) -> None:
    model = built(family)
    found = compared(model, tmp_path)
    assert found.problems == ()
    assert found.placed == found.stored > 10
    assert found.inferred == found.layers


def test_a_layer_taken_for_another_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: a table that says Dense of an embedding, which fits as well."""
    model = built("Bert")
    stems = {**hub._stems(), "embedding": "Dense", "layer_normalization": "GroupNormalization"}
    monkeypatch.setattr(hub, "_stems", lambda: stems)
    assert mistaken(model, kerasport.read(model)) == [
        "segment_embedding/kernel: Dense is Embedding",
        "embeddings_layer_norm/gamma: GroupNormalization is LayerNormalization",
        "embeddings_layer_norm/beta: GroupNormalization is LayerNormalization",
    ]


def test_a_byte_that_differs_in_the_preset_is_noticed(tmp_path: Path) -> None:
    """The twin: the preset is saved with another bias than the archive."""
    model = built("Bert")
    save = model.save_to_preset

    def other(path: str) -> None:
        model.get_layer("pooled_dense").bias.assign_add(np.ones(12))
        save(path)

    object.__setattr__(model, "save_to_preset", other)
    assert compared(model, tmp_path).problems[-1] == "pooled_dense.bias: other bytes"


# ---------------------------------------------------------------------------------------- tables


@pytest.fixture(scope="module")
def source(families: Any) -> str:
    """The text of KerasHub's layers and models."""
    root = Path(families.keras_hub.__file__).parent / "src"
    paths = (path for part in ("layers", "models") for path in sorted((root / part).rglob("*.py")))
    return "\n".join(path.read_text() for path in paths)


def test_the_table_names_classes_and_attributes_that_keras_hub_has(source: str) -> None:
    classes = set(re.findall(r"^class (\w+)", source, re.MULTILINE))
    words = set(re.findall(r"\w+", source))
    strange = {
        f"{name}.{attribute}"
        for name, held in hub.attributes().items()
        for attribute in (name.rpartition("/")[2], *held)
        if attribute not in classes and not {attribute, f"_{attribute}"} & words
    }
    stems = {snake_case(name) for name in classes | CLASSES.keys()}
    unnumbered = {one: re.sub(r"_\d+$", "", one.rpartition(".")[2]) for one in strange}
    assert {one for one, word in unnumbered.items() if word not in stems} == set()


def test_everything_that_the_table_holds_is_known() -> None:
    """Each class that it leads to is Keras's, has weights of its own, or leads on."""
    parts = hub.attributes()
    specs = {spec for held in parts.values() for texts in held.values() for spec in texts}
    names = {hub.Spec.of(spec).name for spec in specs - {hub.LIST}}
    unknown = {
        name
        for name in names
        if name not in CLASSES
        and name not in parts
        and hub.described().find(f"keras_hub>{name}") is None
    }
    # What has its layers in a container of that name, and nothing else.
    contained = {name for name in unknown if not name.endswith(("Backbone", "Sequential"))}
    assert contained == {"SAM3DetrEncoder", "SAM3MaskEmbedder"}


EQUATIONS = sorted(
    {
        hub.Spec.of(spec).argument
        for held in hub.attributes().values()
        for texts in held.values()
        for spec in texts
        if spec.startswith("EinsumDense(") and "..." not in spec
    }
)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_a_projection_of_the_table_is_a_linear_of_torch(equation: str) -> None:
    """Found without a configuration, it puts out what Keras does."""
    inputs, output = equation.partition(",")[0], equation.partition("->")[2]
    sizes = dict(zip(sorted({*equation} - {*",->"}), (2, 3, 5, 7, 4, 6), strict=False))
    made = [axis for axis in output if axis not in inputs]
    shape = tuple(None if axis in inputs[:2] else sizes[axis] for axis in output[1:])
    layer = L.EinsumDense(equation, shape, bias_axes="".join(made), bias_initializer="uniform")
    x = np.random.default_rng(7).standard_normal([sizes[axis] for axis in inputs])
    expected = np.asarray(layer(x.astype("f4")))
    (config,) = hub.Spec("EinsumDense", equation).configs
    (told,), (said,) = facets("EinsumDense", config), facets("EinsumDense", layer.get_config())
    assert told.axes == said.axes
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    state = kerasport.plan(kerasport.read(model), to="torch").apply()
    weight, bias = (torch.tensor(state[f"{layer.name}.{n}"].numpy()) for n in ("weight", "bias"))
    folded = torch.tensor(x.astype("f4").reshape(*x.shape[:2], -1))
    found = torch.nn.functional.linear(folded, weight, bias).numpy()
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-5)


NORMS: Mapping[str, tuple[str, ...]] = {
    "edrec.edrec_layers": ("EdRecRMSNormalization",),
    "gemma.rms_normalization": ("RMSNormalization",),
    "gemma3.gemma3_layers": ("RMSNormalization",),
    "gemma3n.rms_normalization": ("Gemma3nRMSNorm",),
    "gemma4.gemma4_layers": ("Gemma4FrozenNorm", "RMSNormalization"),
    "gpt_oss.gpt_oss_layer_norm": ("GptOssLayerNormalization",),
    "llama.llama_layernorm": ("LlamaLayerNorm",),
    "mistral.mistral_layer_norm": ("MistralLayerNormalization",),
    "mixtral.mixtral_layer_norm": ("MixtralLayerNormalization",),
    "mobilenetv5.mobilenetv5_layers": ("RmsNorm2d",),
    "phi3.phi3_layernorm": ("Phi3LayerNorm",),
    "qwen.qwen_layernorm": ("QwenLayerNorm",),
    "qwen3.qwen3_layernorm": ("Qwen3LayerNorm",),
    "qwen3_5.qwen3_5_layers": ("Qwen3_5LayerNorm",),
    "qwen3_moe.qwen3_moe_layernorm": ("Qwen3MoeLayerNorm",),
    "qwen_moe.qwen_moe_layernorm": ("QwenMoeLayerNorm",),
    "roformer_v2.roformer_v2_attention": ("RoformerNorm",),
    "t5.t5_layer_norm": ("T5LayerNorm",),
}
# By the table of models, what stands in them under this name is shifted.
SHIFTED = ("gemma.rms_normalization.RMSNormalization", "gemma3.gemma3_layers.RMSNormalization")


def test_a_norm_of_keras_hub_does_what_its_kind_says() -> None:
    """An RMSNorm of torch, or with the hint, one whose weight is one more."""
    tried = set()
    x = np.random.default_rng(7).standard_normal((2, 3, 3, 7)).astype("f4")
    for module, names in NORMS.items():
        for name in names:
            made = getattr(import_module(f"keras_hub.src.models.{module}"), name)
            options = {"dim": 7} if name in ("RmsNorm2d", "Gemma3nRMSNorm") else {}
            layer = made(**options)
            layer.build(x.shape)
            (scale,) = layer.weights
            scale.assign(np.linspace(0.5, 2, 7))
            kind = weights.LIKE.get(name, "RMSNormalization")
            if f"{module}.{name}" in SHIFTED:
                kind = "ShiftedRMSNormalization"
            offset = weights.HINTS.get(kind, {}).get("scale_offset", 0.0)
            weight = torch.tensor(np.asarray(scale) + offset, dtype=torch.float32)
            expected = torch.nn.functional.rms_norm(torch.tensor(x), (7,), weight, 1e-6).numpy()
            np.testing.assert_allclose(np.asarray(layer(x)), expected, atol=2e-5, err_msg=name)
            tried.add(name)
    norms = ("RMSNormalization", "ShiftedRMSNormalization")
    assert {name for name, like in weights.LIKE.items() if like in norms} <= tried


# --------------------------------------------------------------------------- where it is applied


def converted(source: Any) -> dict[str, bytes]:
    state = kerasport.plan(kerasport.read(source), to="torch").apply()
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


def test_weights_by_themselves_need_the_configuration_of_the_preset(tmp_path: Path) -> None:
    model = built("GPT2")
    model.save_to_preset(str(tmp_path))
    path = tmp_path / "model.weights.h5"
    with pytest.raises(UnsupportedError, match="the file names no class and 3 kinds fit"):
        kerasport.plan(kerasport.read(path), to="torch").refuse_losses()
    found = kerasport.read(path, config=tmp_path / "config.json")
    assert all(layer.kind for layer in found.layers)
    state = kerasport.plan(found, to="torch").apply()
    assert {name: t.numpy().tobytes() for name, t in state.items()} == converted(model)


def test_a_backbone_inside_a_users_model_is_read_too(tmp_path: Path) -> None:
    backbone = built("Bert")
    hidden = backbone(backbone.input)["pooled_output"]
    model = keras.Model(backbone.input, L.Dense(5, name="head")(hidden))
    model.save(tmp_path / "model.keras")
    live, stored = converted(model), converted(tmp_path / "model.keras")
    assert live == stored
    inside = {name: content for name, content in live.items() if not name.startswith("head.")}
    prefix = f"{backbone.name}."
    assert {n.removeprefix(prefix): b for n, b in inside.items()} == converted(backbone)


def test_layers_of_keras_hub_in_a_users_model_are_read_too(families: Any, tmp_path: Path) -> None:
    """Their classes are in the configuration, and what they are made of is not."""
    layers = families.keras_hub.layers
    tokens = keras.Input((7,), dtype="int32")
    x = layers.TokenAndPositionEmbedding(23, 7, 12, name="tokens")(tokens)
    x = layers.TransformerEncoder(20, 2, name="encoder")(x)
    x = layers.RotaryEmbedding()(x)
    x = layers.FNetEncoder(18, name="mixer")(x)
    model = keras.Model(tokens, layers.PositionEmbedding(7, name="position")(x))
    model.save(tmp_path / "model.keras")
    live = converted(model)
    assert live == converted(tmp_path / "model.keras")
    assert {
        "tokens.token_embedding.embedding.weight",
        "position.weight",
        "mixer.output_dense.bias",
    } <= {name.replace("._", ".") for name in live}


def test_a_task_is_read_as_its_backbone_is(families: Any, tmp_path: Path) -> None:
    backbone = built("Bert")
    task = families.MODELS.BertTextClassifier(backbone, num_classes=3, preprocessor=None)
    task.save(tmp_path / "task.keras")
    task.save_to_preset(str(tmp_path / "task"))
    live = converted(task)
    assert live == converted(tmp_path / "task.keras")
    assert set(converted(backbone).values()) <= set(live.values())
    assert sorted(converted(tmp_path / "task").values()) == sorted(live.values())


def test_a_class_of_a_users_own_is_not_taken_for_one_of_keras_hub(tmp_path: Path) -> None:
    """The same class, of the same structure, that nobody says is KerasHub's."""

    @keras.saving.register_keras_serializable("mine")
    class TransformerEncoder(L.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self._feedforward_layer_norm = L.LayerNormalization()
            self._feedforward_layer_norm.build(shape)

        def call(self, x: Any) -> Any:
            return self._feedforward_layer_norm(x)

    model = keras.Sequential([keras.Input((7,)), TransformerEncoder(name="own")])
    (layer,) = kerasport.read(model).layers
    assert layer.kind is None
    assert layer.note.startswith("the file names no class and 3 kinds fit")


def test_what_does_not_fit_the_table_says_so(tmp_path: Path) -> None:
    """A backbone whose files another KerasHub wrote: nothing is taken for what it is not."""
    inner = keras.Sequential([keras.Input((7,)), L.Dense(5), L.LayerNormalization()])
    folder = tmp_path / "preset"
    folder.mkdir()
    inner.save_weights(folder / "model.weights.h5")
    config: dict[str, Any] = {"class_name": "BertBackbone", "config": {}}
    config |= {"registered_name": "keras_hub>BertBackbone", "module": "keras_hub.src.models.bert"}
    (folder / "config.json").write_text(json.dumps(config))
    found = kerasport.read(folder)
    assert [layer.kind for layer in found.layers] == ["Dense", "LayerNormalization"]
    wrong = keras.Sequential([keras.Input((7, 3)), L.Conv1D(5, 3, name="conv")])
    wrong.save_weights(folder / "model.weights.h5")
    text = (folder / "model.weights.h5").read_bytes()
    assert text.count(b"conv1d\0") == 1
    (folder / "model.weights.h5").write_bytes(text.replace(b"conv1d\0", b"dense\0\0"))
    (layer,) = kerasport.read(folder).layers
    assert (layer.kind, layer.inferred) == (None, False)
    assert layer.note.startswith("KerasHub keeps Dense here: the stored tensors (")


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method:UserWarning")
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_quantized_backbone_is_the_same_from_its_file(
    mode: str, families: Any, tmp_path: Path
) -> None:
    model = families.MODELS.GemmaBackbone(**{**families.GEMMA, "num_layers": 1})
    model.quantize(mode)
    model.save(tmp_path / "model.keras")
    live = kerasport.read(model)
    kinds = {str(layer.kind) for layer in live.layers}
    assert any(kind.lower().startswith(f"einsumdense{mode}") for kind in kinds), kinds
    assert converted(model) == converted(tmp_path / "model.keras")


def test_a_conversion_is_verified_and_restored(tmp_path: Path) -> None:
    """KerasHub's kinds travel in the archive like those of a user's description."""
    model = built("Gemma")
    for to, name in (("torch", "torch.safetensors"), ("keras", "keras.safetensors")):
        report = kerasport.convert(model, tmp_path / name, to=to)
        assert len([note for note in report.notes if note.kind == "inferred"]) == 24
        kerasport.verify(tmp_path / name, against=model)
    assert converted(tmp_path / "keras.safetensors") == converted(model)


def test_the_report_says_what_was_recognised_by_the_table() -> None:
    plan = kerasport.plan(kerasport.read(built("Gemma")), to="torch")
    said = {note.subject: note.message for note in plan.notes if note.kind == "inferred"}
    assert said["decoder_block_0/pre_ffw_norm"] == (
        "the file names no class; KerasHub keeps ShiftedRMSNormalization here"
    )
    layer = plan.layers["decoder_block_0/pre_ffw_norm"]
    assert (layer["inferred"], layer["class"]) == (True, None)
    assert layer["hints"]["scale_offset"] == {"value": 1.0, "changes_results": True}


def test_a_module_of_a_backbone_is_refused_with_the_reason() -> None:
    """What the layers do to one another is in KerasHub's code, and in no configuration."""
    with pytest.raises(UnsupportedError) as caught:
        codegen.source(kerasport.read(built("Bert")))
    assert str(caught.value) == (
        "BertBackbone: expected an architecture that lists its layers; that of a BertBackbone has "
        "its options alone, and its code is not in it. Convert its weights without a module"
    )
