"""What two libraries call the parts of three transformers: keys and shapes, as both list them.

KerasHub 0.32 (`BertBackbone`, `GPT2Backbone`, `ViTBackbone`) and Hugging Face transformers 5.24
(`BertModel`, `GPT2Model`, `ViTModel` without its pooler), of the same configuration. Neither is
needed to test with; `python tests/benchmarks/hugging_face.py` runs both.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kerasport.identify import identify
from kerasport.matching import Wanted
from kerasport.model import Layer, Snapshot, Source, Tensor

Shape = tuple[int, ...]
WIDTH, HEADS, INNER, TOKENS, PLACES = 8, 2, 24, 101, 17
SIZE = WIDTH // HEADS
NORM: Mapping[str, Shape] = {"0": (WIDTH,), "1": (WIDTH,)}
ATTENTION: Mapping[str, Shape] = {
    **{
        f"{name}_dense/{n}": shape
        for name in ("key", "query", "value")
        for n, shape in enumerate([(WIDTH, HEADS, SIZE), (HEADS, SIZE)])
    },
    "output_dense/0": (HEADS, SIZE, WIDTH),
    "output_dense/1": (WIDTH,),
}


def dense(inputs: int, outputs: int) -> Mapping[str, Shape]:
    return {"0": (inputs, outputs), "1": (outputs,)}


def block(path: str) -> dict[str, Mapping[str, Shape]]:
    return {
        f"{path}/_feedforward_intermediate_dense": dense(WIDTH, INNER),
        f"{path}/_feedforward_layer_norm": NORM,
        f"{path}/_feedforward_output_dense": dense(INNER, WIDTH),
        f"{path}/_self_attention_layer": ATTENTION,
        f"{path}/_self_attention_layer_norm": NORM,
    }


def hub_bert(depth: int) -> dict[str, Mapping[str, Shape]]:
    layers: dict[str, Mapping[str, Shape]] = {
        "pooled_dense": dense(WIDTH, WIDTH),
        "segment_embedding": {"0": (2, WIDTH)},
        "embeddings_layer_norm": NORM,
        "position_embedding": {"0": (PLACES, WIDTH)},
        "token_embedding": {"0": (TOKENS, WIDTH)},
    }
    for n in range(depth):
        layers |= block(f"transformer_layer_{n}")
    return layers


def hub_gpt2(depth: int) -> dict[str, Mapping[str, Shape]]:
    layers: dict[str, Mapping[str, Shape]] = {
        "layer_norm": NORM,
        "position_embedding": {"0": (PLACES, WIDTH)},
        "token_embedding": {"0": (TOKENS, WIDTH)},
    }
    for n in range(depth):
        layers |= block(f"transformer_layer_{n}")
    return layers


def hub_vit(depth: int) -> dict[str, Mapping[str, Shape]]:
    layers: dict[str, Mapping[str, Shape]] = {}
    for n in range(depth):
        path = f"vit_encoder/encoder_layers/vi_t_encoder_block{f'_{n}' if n else ''}"
        layers |= {
            f"{path}/layer_norm_1": NORM,
            f"{path}/layer_norm_2": NORM,
            f"{path}/mha": ATTENTION,
            f"{path}/mlp/dense_1": dense(WIDTH, INNER),
            f"{path}/mlp/dense_2": dense(INNER, WIDTH),
        }
    return layers | {
        "vit_encoder/layer_norm": NORM,
        "vit_patching_and_embedding": {"0": (1, 1, WIDTH)},
        "vit_patching_and_embedding/patch_embedding": {"0": (4, 4, 3, WIDTH), "1": (WIDTH,)},
        "vit_patching_and_embedding/position_embedding": {"0": (10, WIDTH)},
    }


def snapshot(layers: Mapping[str, Mapping[str, Shape]]) -> Snapshot:
    """A model as it is read whose classes nobody knows, with values that tell each tensor."""
    rng = np.random.default_rng(5)
    made = tuple(
        Layer(
            path,
            None,
            {},
            {
                key: Tensor.of(f"{path}/{key}", rng.normal(size=shape).astype(np.float32))
                for key, shape in weights.items()
            },
        )
        for path, weights in layers.items()
    )
    return identify(Snapshot(Source("hub", "memory"), made))


def linear(name: str, inputs: int, outputs: int) -> list[Wanted]:
    return [Wanted(f"{name}.weight", (outputs, inputs)), Wanted(f"{name}.bias", (outputs,))]


def turned(name: str, inputs: int, outputs: int) -> list[Wanted]:
    return [Wanted(f"{name}.weight", (inputs, outputs)), Wanted(f"{name}.bias", (outputs,))]


def norm(name: str) -> list[Wanted]:
    return [Wanted(f"{name}.weight", (WIDTH,)), Wanted(f"{name}.bias", (WIDTH,))]


def face_bert(depth: int) -> list[Wanted]:
    made = [
        Wanted("embeddings.word_embeddings.weight", (TOKENS, WIDTH)),
        Wanted("embeddings.position_embeddings.weight", (PLACES, WIDTH)),
        Wanted("embeddings.token_type_embeddings.weight", (2, WIDTH)),
        *norm("embeddings.LayerNorm"),
    ]
    for n in range(depth):
        at = f"encoder.layer.{n}"
        for part in ("query", "key", "value"):
            made += linear(f"{at}.attention.self.{part}", WIDTH, WIDTH)
        made += linear(f"{at}.attention.output.dense", WIDTH, WIDTH)
        made += norm(f"{at}.attention.output.LayerNorm")
        made += linear(f"{at}.intermediate.dense", WIDTH, INNER)
        made += linear(f"{at}.output.dense", INNER, WIDTH)
        made += norm(f"{at}.output.LayerNorm")
    return made + linear("pooler.dense", WIDTH, WIDTH)


def face_gpt2(depth: int) -> list[Wanted]:
    made = [Wanted("wte.weight", (TOKENS, WIDTH)), Wanted("wpe.weight", (PLACES, WIDTH))]
    for n in range(depth):
        made += norm(f"h.{n}.ln_1")
        made += turned(f"h.{n}.attn.c_attn", WIDTH, 3 * WIDTH)
        made += turned(f"h.{n}.attn.c_proj", WIDTH, WIDTH)
        made += norm(f"h.{n}.ln_2")
        made += turned(f"h.{n}.mlp.c_fc", WIDTH, INNER)
        made += turned(f"h.{n}.mlp.c_proj", INNER, WIDTH)
    return made + norm("ln_f")


def face_vit(depth: int) -> list[Wanted]:
    made = [
        Wanted("embeddings.cls_token", (1, 1, WIDTH)),
        Wanted("embeddings.position_embeddings", (1, 10, WIDTH)),
        Wanted("embeddings.patch_embeddings.projection.weight", (WIDTH, 3, 4, 4)),
        Wanted("embeddings.patch_embeddings.projection.bias", (WIDTH,)),
    ]
    for n in range(depth):
        for part in "qkvo":
            made += linear(f"layers.{n}.attention.{part}_proj", WIDTH, WIDTH)
        made += norm(f"layers.{n}.layernorm_before") + norm(f"layers.{n}.layernorm_after")
        made += linear(f"layers.{n}.mlp.fc1", WIDTH, INNER)
        made += linear(f"layers.{n}.mlp.fc2", INNER, WIDTH)
    return made + norm("layernorm")


MODELS = {
    "bert": (hub_bert, face_bert),
    "gpt2": (hub_gpt2, face_gpt2),
    "vit": (hub_vit, face_vit),
}
