"""PyTorch modules written by hand from the layer names: strict loading, and the outputs of Keras.

The expected outputs are what `model.predict` gave when the fixtures were trained. Float32 sums in
another order differ by less than 1e-5 here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import kerasport

FIXTURES = Path(__file__).parent.parent / "fixtures"
TOLERANCE = 1e-5


class Cnn(nn.Module):  # type: ignore[misc]  # torch is not type-checked
    def __init__(self) -> None:
        super().__init__()
        # Keras pads an even kernel below and to the right: (left, right, top, bottom).
        self.around = nn.ZeroPad2d((0, 1, 1, 1))
        self.stem = nn.Conv2d(1, 6, (3, 2))
        self.stem_norm = nn.BatchNorm2d(6, eps=1e-3)
        self.mix = nn.Conv2d(6, 18, (4, 2), groups=6)
        self.head_conv = nn.Conv2d(18, 11, (3, 2))
        self.hidden = nn.Linear(66, 20)
        self.logits = nn.Linear(20, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image.permute(0, 3, 1, 2)
        x = self.stem_norm(self.stem(self.around(x)).relu())
        x = nn.functional.max_pool2d(self.mix(x).relu(), 2)
        x = self.head_conv(self.around(x)).relu()
        x = self.hidden(x.flatten(1)).relu()
        logits: torch.Tensor = self.logits(x)
        return logits


class Sequence(nn.Module):  # type: ignore[misc]  # torch is not type-checked
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 11)
        self.norm = nn.LayerNorm(11, eps=1e-3)
        self.reader = nn.LSTM(11, 7, batch_first=True, bidirectional=True)
        self.summary = nn.GRU(14, 13, batch_first=True)
        self.logits = nn.Linear(13, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.project(rows))
        x, _ = self.reader(x)
        _, last = self.summary(x)
        logits: torch.Tensor = self.logits(last[0])
        return logits


class Attend(nn.Module):  # type: ignore[misc]  # torch is not type-checked
    """Keras's MultiHeadAttention, whose heads need not add up to the width of the input."""

    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, heads * size)
        self.key = nn.Linear(width, heads * size)
        self.value = nn.Linear(width, heads * size)
        self.attention_output = nn.Linear(heads * size, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        seen = nn.functional.scaled_dot_product_attention(query, key, value)
        out: torch.Tensor = self.attention_output(seen.transpose(1, 2).flatten(2))
        return out


class Attention(nn.Module):  # type: ignore[misc]  # torch is not type-checked
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 12)
        self.attend = Attend(12, heads=3, size=5)
        self.attend_norm = nn.LayerNorm(12, eps=1e-3)
        self.mlp = nn.ModuleDict({"widen": nn.Linear(12, 17), "narrow": nn.Linear(17, 12)})
        self.logits = nn.Linear(12, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        x = self.embed(rows).relu()
        x = self.attend_norm(x + self.attend(x))
        x = x + self.mlp["narrow"](self.mlp["widen"](x).relu())
        logits: torch.Tensor = self.logits(x.mean(1))
        return logits


MODULES: Mapping[str, Callable[[], Any]] = {
    "cnn": Cnn,
    "sequence": Sequence,
    "attention": Attention,
}
FILES = sorted(
    path.name
    for path in FIXTURES.iterdir()
    if path.suffix in (".h5", ".keras") and path.name.partition(".")[0] in MODULES
)


def converted(name: str, target: Path) -> dict[str, torch.Tensor]:
    """The state dict of a fixture, loaded by PyTorch's own means."""
    whole = "tf_keras.keras" if "tf_keras" in name else "keras"
    config = FIXTURES / f"{name.partition('.')[0]}.{whole}" if "weights" in name else None
    kerasport.convert(kerasport.read(FIXTURES / name, config=config), target, to="torch")
    state: dict[str, torch.Tensor]
    if target.suffix == ".pt":
        state = torch.load(target, weights_only=True)
    else:
        from safetensors.torch import load_file

        state = load_file(target)
    return state


def deviation(name: str, state: dict[str, torch.Tensor]) -> float:
    """How far a module with these weights is from the outputs recorded with the fixture."""
    model = name.partition(".")[0]
    module = MODULES[model]().eval()
    module.load_state_dict(state, strict=True)
    library = ".tf_keras" if "tf_keras" in name else ""
    with np.load(FIXTURES / f"{model}{library}.io.npz") as recorded, torch.no_grad():
        outputs: Any = module(torch.from_numpy(recorded["inputs"])).numpy()
        return float(np.abs(outputs - recorded["outputs"]).max())


def test_every_kind_of_file_is_there() -> None:
    assert len(FILES) == 22


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("name", FILES)
def test_a_module_with_the_layer_names_gives_the_outputs_of_keras(
    name: str, suffix: str, tmp_path: Path
) -> None:
    assert deviation(name, converted(name, tmp_path / f"model.{suffix}")) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("cnn.keras", "hidden.weight"),
        ("cnn.keras", "stem_norm.running_var"),
        ("sequence.keras", "reader.weight_hh_l0_reverse"),
        ("sequence.keras", "summary.bias_hh_l0"),
        ("attention.keras", "attend.key.weight"),
        ("attention.keras", "mlp.narrow.bias"),
    ],
)
def test_one_wrong_tensor_shows_in_the_outputs(name: str, tensor: str, tmp_path: Path) -> None:
    """Otherwise the test above would prove nothing of this tensor."""
    state = converted(name, tmp_path / "model.safetensors")
    state[tensor] = state[tensor].flip(0)
    assert deviation(name, state) > 100 * TOLERANCE


def test_rows_in_the_order_of_keras_show_in_the_outputs(tmp_path: Path) -> None:
    """PyTorch flattens (channel, height, width): `--flatten keep` is for those who do not."""
    source, target = FIXTURES / "cnn.keras", tmp_path / "model.pt"
    kerasport.convert(source, target, to="torch", flatten="keep")
    assert deviation("cnn.keras", torch.load(target, weights_only=True)) > 0.1
