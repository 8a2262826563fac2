"""Keras's forward pass equals PyTorch's with the exported weights, layer by layer.

Equal shapes prove nothing where a kernel is square, and a table that agrees with itself proves
nothing at all: the only judge of a convention is the framework that it describes. Each module here
is built from the Keras layer's options and loads the exported tensors under the layer's name with
`strict=True`, so that names and shapes are judged as well.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import oracles
from kerasport.conventions import Absent, convention, rows
from kerasport.errors import UnsupportedError
from kerasport.readers.live import read_model
from kerasport.variants import plain
from oracles import GRID, TOLERANCE, Array, Built, Trial, deviation
from torch_references import REFERENCES, channels_first, channels_last, every, padded

# What torch.nn has no module for; the table must say so, and why.
ABSENT = {
    "BidirectionalGRUResetBefore": "before it",
    "EinsumDenseBatched": "torch.einsum",
    "GRUResetBefore": "before it",
    "GRUResetBeforeCell": "before it",
    "LocallyConnectedFull": "multiply the kernel by the mask",
    "LocallyConnectedSparse": "build a torch.sparse tensor",
    "PReLUPerPosition": "shared_axes",
}
TRIALS = [trial for trial in GRID if trial.family not in ABSENT]
Forward = Callable[..., Tensor]


def dense(layer: Any, shape: Sequence[int]) -> tuple[nn.Module, Forward]:
    own = getattr(layer, "layer", layer)
    module = nn.Linear(shape[-1], own.units, bias=own.use_bias)
    return module, lambda x: module(x)


def conv(layer: Any, shape: Sequence[int]) -> tuple[nn.Module, Forward]:
    rank = len(shape) - 2
    module = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1](
        shape[-1],
        layer.filters,
        layer.kernel_size,
        stride=layer.strides,
        dilation=layer.dilation_rate,
        groups=layer.groups,
        bias=layer.use_bias,
    )

    def forward(x: Tensor) -> Tensor:
        x = padded(channels_first(x), layer, layer.kernel_size, layer.strides)
        return channels_last(module(x))

    return module, forward


def transposed(layer: Any, shape: Sequence[int]) -> tuple[nn.Module, Forward]:
    kernel, strides = layer.kernel_size, layer.strides
    size = layer.compute_output_shape(tuple(shape))[1:-1]
    full = [(n - 1) * s + k for n, s, k in zip(shape[1:-1], strides, kernel, strict=True)]
    rank = len(kernel)
    module = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[rank - 1](
        shape[-1],
        layer.filters,
        kernel,
        stride=strides,
        output_padding=[max(n - m, 0) for n, m in zip(size, full, strict=True)],
        bias=layer.use_bias,
    )

    def forward(x: Tensor) -> Tensor:
        y = module(channels_first(x))
        for axis, (n, m) in enumerate(zip(size, full, strict=True), start=2):
            crop = max(m - n, 0) // 2 if layer.padding == "same" else 0
            y = y.narrow(axis, crop, n)
        return channels_last(y)

    return module, forward


def _depthwise(layer: Any, shape: Sequence[int], *, bias: bool) -> nn.Module:
    rank = len(shape) - 2
    module: nn.Module = (nn.Conv1d, nn.Conv2d)[rank - 1](
        shape[-1],
        shape[-1] * layer.depth_multiplier,
        every(layer.kernel_size, rank),
        stride=every(layer.strides, rank),
        dilation=every(layer.dilation_rate, rank),
        groups=shape[-1],
        bias=bias,
    )
    return module


def depthwise(layer: Any, shape: Sequence[int]) -> tuple[nn.Module, Forward]:
    rank = len(shape) - 2
    module = _depthwise(layer, shape, bias=layer.use_bias)
    kernel, strides = every(layer.kernel_size, rank), every(layer.strides, rank)
    return module, lambda x: channels_last(
        module(padded(channels_first(x), layer, kernel, strides))
    )


def separable(layer: Any, shape: Sequence[int]) -> tuple[nn.Module, Forward]:
    rank = len(shape) - 2
    wide = shape[-1] * layer.depth_multiplier
    point = (nn.Conv1d, nn.Conv2d)[rank - 1](wide, layer.filters, 1, bias=layer.use_bias)
    module = nn.ModuleDict({"depthwise": _depthwise(layer, shape, bias=False), "pointwise": point})
    kernel, strides = every(layer.kernel_size, rank), every(layer.strides, rank)

    def forward(x: Tensor) -> Tensor:
        x = padded(channels_first(x), layer, kernel, strides)
        return channels_last(module["pointwise"](module["depthwise"](x)))

    return module, forward


def batch_normalization(layer: Any, shape: Sequence[int]) -> tuple[nn.Module, Forward]:
    rank = len(shape) - 2
    module = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d)[rank](
        shape[layer.axis], eps=layer.epsilon, affine=layer.scale or layer.center
    ).eval()
    return module, lambda x: module(x.movedim(layer.axis, 1)).movedim(1, layer.axis)


def layer_normalization(layer: Any, shape: Sequence[int]) -> tuple[nn.Module, Forward]:
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    module = nn.LayerNorm(
        [shape[axis] for axis in axes],
        eps=layer.epsilon,
        elementwise_affine=layer.scale or layer.center,
        bias=layer.center,
    )
    return module, lambda x: module(x)


def group_normalization(layer: Any, shape: Sequence[int]) -> tuple[nn.Module, Forward]:
    groups = shape[-1] if layer.groups == -1 else layer.groups
    affine = layer.scale or layer.center
    module = nn.GroupNorm(groups, shape[-1], eps=layer.epsilon, affine=affine)
    return module, lambda x: channels_last(module(channels_first(x)))


def embedding(layer: Any, shape: Sequence[int]) -> tuple[nn.Module, Forward]:
    module = nn.Embedding(layer.input_dim, layer.output_dim)
    return module, lambda x: module(x)


def prelu(layer: Any, shape: Sequence[int]) -> tuple[nn.Module, Forward]:
    module = nn.PReLU(shape[-1])
    return module, lambda x: channels_last(module(channels_first(x)))


def _options(layer: Any) -> Any:
    """The layer or cell that has the units and the bias."""
    inner = getattr(layer, "forward_layer", layer)
    return inner.cell if type(inner).__name__ == "RNN" else inner


def recurrent(layer: Any, shape: Sequence[int]) -> tuple[nn.Module, Forward]:
    own = _options(layer)
    name = type(own).__name__.removesuffix("Cell").removeprefix("CuDNN")
    extra = {"nonlinearity": own.activation.__name__} if name == "SimpleRNN" else {}
    both = hasattr(layer, "merge_mode")
    module = {"SimpleRNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}[name](
        shape[-1],
        own.units,
        bias=getattr(own, "use_bias", True),
        batch_first=True,
        bidirectional=both,
        **extra,
    )

    def forward(x: Tensor) -> Tensor:
        y: Tensor = module(x.flip(1) if getattr(layer, "go_backwards", False) else x)[0]
        if both and layer.merge_mode != "concat":
            a, b = y.chunk(2, dim=-1)
            return {"sum": a + b, "ave": (a + b) / 2, "mul": a * b}[layer.merge_mode]
        return y

    return module, forward


def distributed(layer: Any, shape: Sequence[int]) -> tuple[nn.Module, Forward]:
    module, forward = conv(layer.layer, [shape[0], *shape[2:]])
    return module, lambda x: torch.stack([forward(step) for step in x.unbind(1)], dim=1)


def attention(layer: Any, shape: Sequence[int]) -> tuple[nn.Module, Forward]:
    module = nn.MultiheadAttention(
        shape[-1], layer.num_heads, bias=layer.use_bias, batch_first=True
    )
    return module, lambda q, v, k: module(q, k, v, need_weights=False)[0]


def einsum(layer: Any, shape: Sequence[int]) -> tuple[nn.Module, Forward]:
    """A Linear between what the equation sums over and what it makes, other axes in front."""
    letters = layer.equation.partition(",")[0].replace("...", "")
    equation = layer.equation.replace("...", "PQR"[: len(shape) - len(letters)])
    source, kernel, output = equation.replace("->", ",").split(",")
    summed = [axis for axis in source if axis in kernel]
    made = [axis for axis in output if axis in kernel]
    kept = [axis for axis in source if axis not in kernel]
    size = {axis: shape[n] for n, axis in enumerate(source)}
    size |= dict(zip(kernel, layer.kernel.shape, strict=True))
    module = nn.Linear(
        math.prod(size[axis] for axis in summed),
        math.prod(size[axis] for axis in made),
        bias=bool(layer.bias_axes),
    )

    def forward(x: Tensor) -> Tensor:
        x = x.permute([source.index(axis) for axis in kept + summed]).flatten(len(kept))
        y = module(x).unflatten(-1, [size[axis] for axis in made])
        order = kept + made
        return y.permute([order.index(axis) for axis in output])

    return module, forward


CUDNN = ("CuDNNGRU", "CuDNNLSTM")
MODULES: Mapping[str, Callable[..., tuple[nn.Module, Forward]]] = {
    "Dense": dense,
    **{f"Conv{n}D": conv for n in (1, 2, 3)},
    **{f"Conv{n}DTranspose": transposed for n in (1, 2, 3)},
    **{f"DepthwiseConv{n}D": depthwise for n in (1, 2)},
    **{f"SeparableConv{n}D": separable for n in (1, 2)},
    "BatchNormalization": batch_normalization,
    "LayerNormalization": layer_normalization,
    "GroupNormalization": group_normalization,
    "Embedding": embedding,
    "PReLU": prelu,
    **{f"{b}{kind}": recurrent for b in ("", "Bidirectional") for kind in oracles.AROUND},
    "TimeDistributedConv": distributed,
    **{f"{b}{kind}": recurrent for b in ("", "Bidirectional") for kind in CUDNN},
    "MultiHeadAttention": attention,
    "EinsumDense": einsum,
    **REFERENCES,
}


def torch_output(trial: Trial, built: Built) -> Array:
    """What PyTorch puts out with the exported weights, loaded under the layer's name."""
    shapes = [x.shape for x in built.inputs]
    takes_all = trial.family != "MultiHeadAttention"
    module, forward = MODULES[trial.family](built.layer, *(shapes if takes_all else shapes[:1]))
    exported = oracles.exported(built.layer, "torch")
    holder = nn.Module()
    holder.add_module(built.layer.name, module)
    holder.load_state_dict(
        {f"{built.layer.name}.{name}": torch.tensor(x) for name, x in exported.items()},
        strict=True,
    )
    with torch.no_grad():
        y: Array = forward(*map(torch.tensor, built.inputs)).numpy()
    return y


@pytest.mark.parametrize("trial", TRIALS, ids=str)
def test_torch_puts_out_what_keras_does(trial: Trial) -> None:
    """A wrong sentence, name or synthesised value would put out other numbers."""
    built = trial.build()
    assert deviation(torch_output(trial, built), built.output) < TOLERANCE


@pytest.mark.parametrize("trial", [t for t in GRID if t.family in ABSENT], ids=str)
def test_what_torch_lacks_is_refused_with_its_reason(trial: Trial) -> None:
    """A layer that torch.nn cannot compute must not be written as if it could."""
    layer = trial.build().layer
    with pytest.raises(UnsupportedError, match=ABSENT[trial.family]) as caught:
        oracles.exported(layer, "torch")
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{layer.name}: ")


# One slip for each family: the trial on which it must show, the row and the wrong sentences.
SLIPS: list[tuple[str, str, dict[str, str]]] = [
    ("Dense-5,5,bias,rank=2", "Dense", {"weight": "in out"}),
    ("Conv1D-square,strides=1,padding=valid,groups=1,bias", "Conv1D", {"weight": "out in -k"}),
    ("Conv1D-square,strides=1,padding=same,groups=1,bias", "Conv1D", {"weight": "in out k"}),
    (
        "Conv2D-square,strides=1,padding=valid,groups=1,bias",
        "Conv2D",
        {"weight": "out in kw kh"},
    ),
    (
        "Conv2D-square,strides=1,padding=valid,groups=2,bias",
        "Conv2D",
        {"weight": "out in kw kh"},
    ),
    (
        "Conv3D-square,strides=1,padding=valid,groups=1,bias",
        "Conv3D",
        {"weight": "out in kh kd kw"},
    ),
    *[
        (
            f"Conv{n}DTranspose-square,strides=2,padding=same,bias",
            f"Conv{n}DTranspose",
            {"weight": f"out in {k}"},
        )
        for n, k in ((1, "k"), (2, "kh kw"), (3, "kd kh kw"))
    ],
    *[
        (
            f"{name}Conv{n}D-square,mult=3,strides=1,padding=valid,bias",
            f"{name}Conv{n}D",
            {slot: f"(mult in) 1 {k}"},
        )
        for n, k in ((1, "k"), (2, "kh kw"))
        for name, slot in (("Depthwise", "weight"), ("Separable", "depthwise.weight"))
    ],
    (
        "DepthwiseConv2D-square,mult=2,strides=1,padding=valid,bias",
        "DepthwiseConv2D",
        {"bias": "(mult in)"},
    ),
    (
        "SeparableConv2D-square,mult=1,strides=1,padding=valid,bias",
        "SeparableConv2D",
        {"pointwise.weight": "(in mult) out 1 1"},
    ),
    (
        "BatchNormalization-scale,center,epsilon=0.001,rank=2",
        "BatchNormalization",
        {"running_mean": "-channel"},
    ),
    (
        "LayerNormalization-axis=-1,scale,center,epsilon=0.001",
        "LayerNormalization",
        {"weight": "-channel"},
    ),
    (
        "GroupNormalization-groups=2,scale,center,rank=3",
        "GroupNormalization",
        {"bias": "-channel"},
    ),
    ("Embedding-5,5,rank=1", "Embedding", {"weight": "embed token"}),
    ("PReLU-shared_axes=(1,),rank=3,channels=7", "PReLU2D", {"weight": "(length -channel)"}),
    (
        "SimpleRNN-SimpleRNN,5,5,bias,no_go_backwards",
        "SimpleRNN",
        {"weight_hh_l0": "hidden unit"},
    ),
    (
        "GRU-GRU,5,5,bias,no_go_backwards",
        "GRU",
        {"weight_ih_l0": "([z r h] unit) in", "weight_hh_l0": "([z r h] unit) hidden"},
    ),
    ("GRU-GRU,5,5,bias,no_go_backwards", "GRU", {"bias_ih_l0": "([z r h] unit)"}),
    (
        "LSTM-LSTM,5,5,bias,no_go_backwards",
        "LSTM",
        {"weight_ih_l0": "([i o f c] unit) in"},
    ),
    ("LSTM-LSTM,5,5,bias,no_go_backwards", "LSTM", {"weight_hh_l0": "([i f c o] hidden) unit"}),
    (
        "BidirectionalLSTM-LSTM,5,5,bias,merge=concat",
        "BidirectionalLSTM",
        {"weight_ih_l0_reverse": "([i f o c] unit) in"},
    ),
    (
        "BidirectionalGRU-GRU,5,5,bias,merge=concat",
        "BidirectionalGRU",
        {"bias_hh_l0_reverse": "([z r h] unit)"},
    ),
    (
        "BidirectionalSimpleRNN-SimpleRNN,5,5,bias,merge=concat",
        "BidirectionalSimpleRNN",
        {"weight_hh_l0_reverse": "hidden unit"},
    ),
    (
        "TimeDistributedConv-1,5,5,bias",
        "Conv1D",
        {"weight": "in out k"},
    ),
    (
        "MultiHeadAttention-2,2,bias",
        "MultiHeadAttention",
        {"in_proj_weight": "([q k v] key head) embed"},
    ),
    (
        "MultiHeadAttention-2,2,bias",
        "MultiHeadAttention",
        {"in_proj_weight": "([k q v] head key) embed", "in_proj_bias": "([k q v] head key)"},
    ),
    (
        "EinsumDense-abc,dce->abde,bias=de,shape=(None,7,7)",
        "EinsumDense",
        {"weight": "(out_e out_d) ({inputs})"},
    ),
    ("AdditiveAttention-scaled", "AdditiveAttention", {"scale": "-channel"}),
    (
        "GroupedQueryAttention-2,2,1,2,2,2,bias",
        "GroupedQueryAttention",
        {"query.weight": "(key head) query_in"},
    ),
    (
        "GatedGroupedQueryAttention-2,2,1,2,2,2,bias",
        "GatedGroupedQueryAttention",
        {"gate.weight": "(key head) query_in"},
    ),
    (
        "GatedMultiHeadAttention-3,3,3,3,None,bias",
        "GatedMultiHeadAttention",
        {"gate.weight": "(value head) query_in"},
    ),
    ("RMSNormalization-axis=-1,epsilon=1e-06", "RMSNormalization", {"weight": "-channel"}),
    ("Normalization-axis=-1,no_invert", "Normalization", {"mean": "-channel"}),
    (
        "BatchNormalizationAxes-axis=[1,3],scale,center",
        "BatchNormalizationAxes",
        {"running_mean": "(axis_3 axis_1)"},
    ),
    (
        "BatchNormalizationRenorm-axis=[1,3],scale,center",
        "BatchNormalizationRenorm",
        {"norm.running_var": "(axis_3 axis_1)"},
    ),
    (
        "STFTSpectrogram-stft,padding=valid",
        "STFTSpectrogram",
        {"imag.weight": "out 1 -k"},
    ),
    (
        "ReversibleEmbedding-Reversible,5,5,no_tied",
        "ReversibleEmbedding",
        {"reverse.weight": "embed token"},
    ),
    (
        "TiedEmbedding-Reversible,5,5,tied",
        "TiedEmbedding",
        dict.fromkeys(("embedding.weight", "reverse.weight"), "embed token"),
    ),
    *[
        (
            f"ConvLSTM{n}D-square,bias",
            f"ConvLSTM{n}D",
            {"recurrent.weight": f"([i f c o] hidden) unit {k}"},
        )
        for n, k in ((1, "k"), (2, "kh kw"), (3, "kd kh kw"))
    ],
    *[
        (
            f"LocallyConnected{n}D-square,channels_last,strides=1,bias",
            f"LocallyConnected{n}D",
            {"weight": f"(position out) ({k} in) 1"},
        )
        for n, k in ((1, "k"), (2, "kh kw"))
    ],
    (
        "LocallyConnected2D-square,channels_first,strides=1,bias",
        "LocallyConnected2D",
        {"bias": "(column row out)"},
    ),
    ("RandomFourierFeatures-gaussian", "RandomFourierFeatures", {"linear.bias": "-out"}),
    ("Discretization-bins", "Discretization", {"summary": "[weight value] bin"}),
    ("LayerScale-image", "LayerScale", {"gamma": "-channel"}),
    (
        "ParametricSoftplus-rank=2,shared_axes=()",
        "ParametricSoftplus1D",
        {"beta": "-channel"},
    ),
    ("SReLU-rank=2,shared_axes=()", "SReLU1D", {"a_left": "-channel"}),
    ("Highway-5,bias", "Highway", {"carry.weight": "in out"}),
    ("MaxoutDense-3,3,3,bias", "MaxoutDense", {"weight": "(out piece) in"}),
    ("CuDNNLSTM-5,5", "CuDNNLSTM", {"weight_ih_l0": "([i f c o] in) unit as ([i f c o] col row)"}),
    ("CuDNNLSTM-5,5", "CuDNNLSTM", {"weight_hh_l0": "([i f c o] hidden) unit"}),
    ("CuDNNGRU-5,5", "CuDNNGRU", {"weight_ih_l0": "([z r h] unit) in as ([z r h] row col)"}),
    (
        "BidirectionalCuDNNLSTM-5,5",
        "BidirectionalCuDNNLSTM",
        {"weight_ih_l0_reverse": "([i f o c] unit) in as ([i f o c] row col)"},
    ),
    (
        "BidirectionalCuDNNGRU-5,5",
        "BidirectionalCuDNNGRU",
        {"bias_hh_l0_reverse": "([z r h] unit)"},
    ),
    ("SimpleRNNCell-5,5,bias", "SimpleRNNCell", {"weight_hh": "hidden unit"}),
    ("GRUCell-5,5,bias", "GRUCell", {"bias_hh": "([z r h] unit)"}),
    ("LSTMCell-5,5,bias", "LSTMCell", {"weight_ih": "([i o f c] unit) in"}),
    ("StackedCells-three,bias", "LSTM", {"weight_hh_l0": "([i f c o] hidden) unit"}),
    ("UnlikeDirections-bias", "GRU", {"weight_hh_l0": "([z r h] unit) hidden"}),
]
# What has no order to be wrong about, or is not used outside of training.
UNSLIPPED = {"Attention", "SpectralNormalization"}


@pytest.mark.parametrize(
    ("name", "kind", "sentences"), SLIPS, ids=[f"{s[1]}-{s[2]}" for s in SLIPS]
)
def test_a_wrong_sentence_puts_out_other_numbers(
    name: str, kind: str, sentences: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of the oracle: a slip in the table that keeps every shape must be seen."""
    (trial,) = (trial for trial in GRID if str(trial) == name)
    built = trial.build()
    assert deviation(torch_output(trial, built), built.output) < TOLERANCE
    wrong = oracles.misread("torch", kind, sentences)
    monkeypatch.setitem(convention("torch"), kind, wrong)
    assert deviation(torch_output(trial, built), built.output) > 1e-2


def test_every_kind_of_the_tables_is_on_trial() -> None:
    """A kind without an oracle would be a claim without proof.

    Those of quantized layers, low-rank factors, lookups and peepholes are in test_quantized.py,
    test_lora.py, test_lookups.py and test_peepholes.py, those of TensorFlow 1 alone in
    test_tf1_cells.py.
    """
    elsewhere = {
        *("Lookup", "LSTMPeephole", "LSTMPeepholeCell", "BidirectionalLSTMPeephole"),
        *("LSTMProjected", "LSTMPeepholeProjected"),
    }
    tried = Counter(x.kind for t in GRID for x in oracles.snapshot(t.build().layer).layers)
    assert set(convention("keras")) == set(convention("torch"))
    assert {*tried} | elsewhere == {kind for kind in convention("keras") if plain(kind) == kind}
    slipped = {kind for _, kind, _ in SLIPS}
    absent = {
        kind
        for kind, row in convention("torch").items()
        if all(isinstance(case.slots, Absent) for case in rows(row))
    }
    families = {kind.rstrip("1234D") for kind in tried if kind and kind not in absent}
    assert families == {kind.rstrip("1234D") for kind in slipped} | UNSLIPPED
    assert len(TRIALS) > 1000


@pytest.mark.parametrize(
    "family", ["Dense", "SeparableConv2D", "BatchNormalization", "LSTM", "BidirectionalGRU"]
)
def test_the_oracles_and_the_reader_see_one_layer(family: str) -> None:
    """The oracles take a layer apart on their own; a live model must read as the same."""
    trial = next(trial for trial in GRID if trial.family == family)
    built = trial.build()
    inputs = keras.Input(trial.shapes[0][1:])
    model = keras.Model(inputs, built.layer(inputs))
    (read,) = read_model(model).layers
    expected = oracles.stored(built.layer)
    assert (read.class_name, read.weights.keys()) == (expected.class_name, expected.weights.keys())
    for key, tensor in expected.weights.items():
        np.testing.assert_array_equal(read.weights[key].numpy(), tensor.numpy())
