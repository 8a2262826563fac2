"""KerasHub's BERT, GPT-2 and ViT in the classes of Hugging Face: the same outputs?

    pip install keras-hub transformers
    python tests/benchmarks/hugging_face.py             # two blocks each, some seconds
    python tests/benchmarks/hugging_face.py --depth 12

Both libraries build the same configuration with random weights. The match is found by itself, from
the live model of the one and the state dict of the other, as a module lists it and as a file sorts
it; the weights are converted and loaded strictly, and both put out numbers for the same inputs. The
deviation is the largest difference, relative to the largest output.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "convert")]

import keras_hub  # noqa: E402 the variables above are read when TensorFlow is imported
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import kerasport  # noqa: E402

TOLERANCE = 1e-5
TOKENS, PLACES, WIDTH, HEADS, INNER = 101, 17, 12, 3, 48
RNG = np.random.default_rng(7)
SHARED = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "intermediate_size": INNER}
TEXT = {
    "vocabulary_size": TOKENS,
    "num_heads": HEADS,
    "hidden_dim": WIDTH,
    "intermediate_dim": INNER,
    "max_sequence_length": PLACES,
}


def bert(depth: int) -> tuple[Any, Any]:
    config = transformers.BertConfig(
        vocab_size=TOKENS,
        num_hidden_layers=depth,
        max_position_embeddings=PLACES,
        hidden_act="gelu_pytorch_tanh",
        **SHARED,
    )
    hub = keras_hub.models.BertBackbone(num_layers=depth, **TEXT)
    return hub, transformers.BertModel(config)


def gpt2(depth: int) -> tuple[Any, Any]:
    config = transformers.GPT2Config(
        vocab_size=TOKENS,
        n_positions=PLACES,
        n_embd=WIDTH,
        n_layer=depth,
        n_head=HEADS,
        bos_token_id=1,
        eos_token_id=2,
    )
    hub = keras_hub.models.GPT2Backbone(num_layers=depth, **TEXT)
    return hub, transformers.GPT2Model(config)


def vit(depth: int) -> tuple[Any, Any]:
    config = transformers.ViTConfig(num_hidden_layers=depth, image_size=12, patch_size=4, **SHARED)
    hub = keras_hub.models.ViTBackbone(
        image_shape=(12, 12, 3),
        patch_size=4,
        num_layers=depth,
        num_heads=HEADS,
        hidden_dim=WIDTH,
        mlp_dim=INNER,
    )
    return hub, transformers.ViTModel(config, add_pooling_layer=False)


def outputs(name: str, hub: Any, module: Any) -> tuple[Any, Any]:
    """What both put out for the same inputs."""
    if name == "vit":
        images = RNG.normal(size=(2, 12, 12, 3)).astype(np.float32)
        theirs = module(torch.from_numpy(images).permute(0, 3, 1, 2)).last_hidden_state
        return hub(images).numpy(), theirs.detach().numpy()
    tokens = RNG.integers(0, TOKENS, (3, 11))
    inputs = {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
    if name == "gpt2":
        theirs = module(input_ids=torch.from_numpy(tokens)).last_hidden_state
        return hub(inputs).numpy(), theirs.detach().numpy()
    segments = RNG.integers(0, 2, tokens.shape)
    theirs = module(
        input_ids=torch.from_numpy(tokens), token_type_ids=torch.from_numpy(segments)
    ).pooler_output
    ours = hub({**inputs, "segment_ids": segments})["pooled_output"]
    return ours.numpy(), theirs.detach().numpy()


def compared(name: str, depth: int, folder: Path) -> bool:
    hub, module = {"bert": bert, "gpt2": gpt2, "vit": vit}[name](depth)
    module.eval()
    for variable in hub.weights:
        variable.assign(0.3 * RNG.normal(size=variable.shape))
    target = folder / f"{name}.safetensors"
    save_file({n: t.contiguous() for n, t in module.state_dict().items()}, target)
    torch.save(module.state_dict(), folder / f"{name}.pt")
    started = time.perf_counter()
    names = kerasport.match(hub, folder / f"{name}.pt")
    took = time.perf_counter() - started
    by_file = kerasport.match(hub, target)
    if names.to_json() != by_file.to_json():  # whatever the order of the lines
        print(f"{name}: the file that sorts its names is matched otherwise")
        return False
    kerasport.convert(hub, folder / "x.safetensors", to="torch", names=names)
    kerasport.verify(folder / "x.safetensors", against=hub, names=names)
    module.load_state_dict(load_file(folder / "x.safetensors"), strict=True)
    ours, theirs = outputs(name, hub, module)
    deviation = float(np.abs(ours - theirs).max() / np.abs(ours).max())
    verdict = "ok" if deviation <= TOLERANCE else "FAILS"
    print(
        f"{name:5} {depth} blocks  {len(module.state_dict()):4} tensors  {len(names.entries):2} "
        f"lines  {took:5.2f} s  deviation {deviation:.1e}  {verdict}"
    )
    return deviation <= TOLERANCE


def main() -> None:
    parser = argparse.ArgumentParser(description="KerasHub's models in Hugging Face's classes.")
    parser.add_argument("--depth", type=int, default=2, help="how many blocks")
    parser.add_argument("--only", nargs="*", default=["bert", "gpt2", "vit"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fine = [compared(name, options.depth, Path(folder)) for name in options.only]
    sys.exit(not all(fine))


if __name__ == "__main__":
    main()
