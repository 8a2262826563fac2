"""What layers compute that `torch.nn` has no module for, in plain tensor operations.

Each function takes the Keras layer and the shapes of its inputs, and gives a module that holds the
exported tensors under their names, and what is computed with them. Where the tensors are those of
standard modules, it is standard modules that load them; what remains is the few lines between them.
Nothing here looks at the exported tensors: sizes come from the layer's options alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["REFERENCES", "channels_first", "channels_last", "every", "padded"]

Shape = Sequence[int]
Forward = Callable[..., Tensor]
Reference = tuple[nn.Module, Forward]
CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def channels_first(x: Tensor) -> Tensor:
    return x.movedim(-1, 1)


def channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1)


def every(value: Any, rank: int) -> tuple[int, ...]:
    """An option that Keras may give once for all axes."""
    return (value,) * rank if isinstance(value, int) else tuple(value)


def padded(x: Tensor, layer: Any, kernel: Shape, strides: Shape) -> Tensor:
    """Zeros around the image as Keras's padding wants them: more at the end than at the start."""
    dilation = every(getattr(layer, "dilation_rate", 1), len(kernel))
    sides: list[int] = []
    for n, k, s, d in zip(x.shape[2:], kernel, strides, dilation, strict=True):
        reach = (k - 1) * d + 1
        if layer.padding == "same":
            total = max((math.ceil(n / s) - 1) * s + reach - n, 0)
            sides = [total // 2, total - total // 2, *sides]
        else:
            sides = [reach - 1 if layer.padding == "causal" else 0, 0, *sides]
    return F.pad(x, sides)


def holder(**shapes: Shape) -> Any:
    """A module with these parameters."""
    module = nn.Module()
    for name, shape in shapes.items():
        module.register_parameter(name, nn.Parameter(torch.zeros(tuple(shape))))
    return module


def buffers(module: nn.Module, **tensors: Tensor) -> Any:
    """The module with these buffers."""
    for name, tensor in tensors.items():
        module.register_buffer(name, tensor)
    return module


# -------------------------------------------------------------------------------------- attention


def attention(layer: Any, *shapes: Shape) -> Reference:
    """Scores are products times a scale, or the sum of a tanh."""
    names = ["scale"] * layer.use_scale + ["concat_score_weight"] * (layer.score_mode == "concat")
    module = holder(**dict.fromkeys(names, ()))

    def forward(query: Tensor, value: Tensor, key: Tensor) -> Tensor:
        scale = module.scale if layer.use_scale else 1.0
        if layer.score_mode == "dot":
            scores = scale * torch.einsum("btc,bsc->bts", query, key)
        else:
            sums = torch.tanh(scale * (query[:, :, None] + key[:, None]))
            scores = module.concat_score_weight * sums.sum(-1)
        return torch.einsum("bts,bsc->btc", scores.softmax(-1), value)

    return module, forward


def additive_attention(layer: Any, *shapes: Shape) -> Reference:
    module = holder(scale=shapes[0][-1:])

    def forward(query: Tensor, value: Tensor, key: Tensor) -> Tensor:
        sums = torch.tanh(query[:, :, None] + key[:, None])
        scores = torch.einsum("c,btsc->bts", module.scale, sums)
        return torch.einsum("bts,bsc->btc", scores.softmax(-1), value)

    return module, forward


def _projections(bias: bool, **sizes: tuple[int, int]) -> nn.ModuleDict:
    return nn.ModuleDict({name: nn.Linear(*size, bias=bias) for name, size in sizes.items()})


def _by_head(x: Tensor, heads: int) -> Tensor:
    """Heads in front of positions, features last."""
    return x.unflatten(-1, (heads, -1)).movedim(-2, 1)


def grouped_attention(layer: Any, *shapes: Shape) -> Reference:
    (*_, query), (*_, value), (*_, key) = shapes
    heads, groups, width = layer.num_query_heads, layer.num_key_value_heads, layer.head_dim
    sizes = {
        "query": (query, heads * width),
        "key": (key, groups * width),
        "value": (value, groups * width),
        "attention_output": (heads * width, query),
    }
    if layer.use_gate:
        sizes["gate"] = (query, heads * width)
    module = _projections(layer.use_bias, **sizes)

    def forward(q: Tensor, v: Tensor, k: Tensor) -> Tensor:
        queries = _by_head(module["query"](q), heads)
        # A head of keys serves as many heads of queries, one after the other.
        keys, values = (
            _by_head(module[name](x), groups).repeat_interleave(heads // groups, dim=1)
            for name, x in (("key", k), ("value", v))
        )
        y = F.scaled_dot_product_attention(queries, keys, values).movedim(1, 2).flatten(2)
        if layer.use_gate:
            y = y * torch.sigmoid(module["gate"](q))
        z: Tensor = module["attention_output"](y)
        return z

    return module, forward


def linears(layer: Any, *shapes: Shape) -> Reference:
    """Attention as four `nn.Linear`, or five with a gate."""
    (*_, query), (*_, value), (*_, key) = shapes
    heads, width, values = layer._num_heads, layer._key_dim, layer._value_dim
    output = tuple(layer._output_shape or (query,))
    sizes = {
        "query": (query, heads * width),
        "key": (key, heads * width),
        "value": (value, heads * values),
        "attention_output": (heads * values, math.prod(output)),
    }
    if layer._use_gate:
        sizes["gate"] = (query, heads * values)
    module = _projections(layer._use_bias, **sizes)

    def forward(q: Tensor, v: Tensor, k: Tensor) -> Tensor:
        by_head = [
            _by_head(module[name](x), heads) for name, x in (("query", q), ("key", k), ("value", v))
        ]
        y = F.scaled_dot_product_attention(*by_head).movedim(1, -2).flatten(-2)
        if layer._use_gate:
            y = y * torch.sigmoid(module["gate"](q))
        return module["attention_output"](y).unflatten(-1, output)

    return module, forward


def attention_axes(layer: Any, *shapes: Shape) -> Reference:
    """Positions along several axes: those attended along are one, the others are batches."""
    _, rows, columns, width = shapes[0]
    plain = width == layer.num_heads * layer.key_dim
    if plain:
        module: nn.Module = nn.MultiheadAttention(
            width, layer.num_heads, bias=layer.use_bias, batch_first=True
        )
    else:
        module, run = linears(layer, *shapes)
    both = tuple(layer.attention_axes or (1, 2)) == (1, 2)

    def forward(q: Tensor, v: Tensor, k: Tensor) -> Tensor:
        q, v, k = (x.flatten(1, 2) if both else x.flatten(0, 1) for x in (q, v, k))
        y: Tensor = module(q, k, v, need_weights=False)[0] if plain else run(q, v, k)
        return y.unflatten(1, (rows, columns)) if both else y.unflatten(0, (-1, rows))

    return module, forward


# ---------------------------------------------------------------------------------- normalization


def _axes(layer: Any, shape: Shape) -> list[int]:
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    return [axis % len(shape) for axis in axes]


def rms_normalization(layer: Any, shape: Shape) -> Reference:
    module = nn.RMSNorm([shape[axis] for axis in _axes(layer, shape)], eps=layer.epsilon)
    return module, lambda x: module(x)


def scaled_normalization(layer: Any, shape: Shape) -> Reference:
    """`rms_scaling` divides by the deviation without taking the mean off."""
    axes = _axes(layer, shape)
    module = holder(weight=[shape[axis] for axis in axes])

    def forward(x: Tensor) -> Tensor:
        variance = x.var(axes, correction=0, keepdim=True)
        y: Tensor = x * torch.rsqrt(variance + layer.epsilon) * module.weight
        return y

    return module, forward


def normalization(layer: Any, shape: Shape) -> Reference:
    size = [shape[axis] for axis in sorted(axis % len(shape) for axis in layer.axis)]
    wide = [n if i in {a % len(shape) for a in layer.axis} else 1 for i, n in enumerate(shape)]
    module = buffers(
        nn.Module(),
        mean=torch.zeros(size),
        variance=torch.zeros(size),
        count=torch.zeros((), dtype=torch.int64),
    )

    def forward(x: Tensor) -> Tensor:
        mean, root = module.mean.reshape(wide), module.variance.sqrt().clamp(1e-7).reshape(wide)
        y: Tensor = x * root + mean if layer.invert else (x - mean) / root
        return y

    return module, forward


def spectral(layer: Any, shape: Shape) -> Reference:
    """Outside of training, the layer inside as it is."""
    inner = layer.layer
    match type(inner).__name__:
        case "Dense":
            module: nn.Module = nn.Linear(shape[-1], inner.units)
            last = inner.units
        case "Conv2D":
            module = nn.Conv2d(shape[-1], inner.filters, inner.kernel_size)
            last = inner.filters
        case _:
            module = nn.Embedding(inner.input_dim, inner.output_dim)
            last = inner.output_dim
    image = len(shape) == 4
    outer = buffers(nn.ModuleDict({"layer": module}), vector_u=torch.zeros(1, last))
    return outer, lambda x: channels_last(module(channels_first(x))) if image else module(x)


def batch_axes(layer: Any, shape: Shape) -> Reference:
    """One `nn.BatchNorm1d` of all normalized axes as one; with renorm, beside three buffers."""
    virtual = getattr(layer, "virtual_batch_size", None)  # with a dimension of its own
    axes = [axis - 1 if virtual else axis for axis in layer.axis]
    sizes = [shape[axis] for axis in axes]
    count = math.prod(sizes)
    norm = nn.BatchNorm1d(count, eps=layer.epsilon, affine=layer.scale or layer.center).eval()
    others = [n for n in range(len(shape)) if n not in axes]
    order = [*others, *axes]

    def forward(x: Tensor) -> Tensor:
        y = x.permute(order)
        y = norm(y.reshape(-1, count)).reshape(y.shape)
        return y.permute([order.index(n) for n in range(len(shape))])

    if not layer.renorm:
        return norm, forward
    names = ("moving_stddev", "renorm_mean", "renorm_stddev")
    tensors = {name: torch.zeros(count) for name in names}
    return buffers(nn.ModuleDict({"norm": norm}), **tensors), forward


# -------------------------------------------------------------------------------- other products


def spectrogram(layer: Any, shape: Shape) -> Reference:
    parts = [part for part, other in (("real", "imag"), ("imag", "real")) if layer.mode != other]
    step = layer._frame_step
    kernel = (layer.frame_length,)
    module = nn.ModuleDict(
        {part: nn.Conv1d(1, layer._fft_length // 2 + 1, kernel, step, bias=False) for part in parts}
    )

    def forward(x: Tensor) -> Tensor:
        x = padded(channels_first(x), layer, kernel, (step,))
        found = [channels_last(module[part](x)) for part in parts]
        if layer.mode == "magnitude":
            return torch.hypot(*found).clamp(math.sqrt(1e-7))
        return torch.cat(found, -1)

    return module, forward


def there_and_back(layer: Any, shape: Shape) -> Reference:
    n, width = layer.input_dim, layer.output_dim
    table, back = nn.Embedding(n, width), nn.Linear(width, n, bias=False)
    if layer.tie_weights:
        back.weight = table.weight
    module = nn.ModuleDict({"embedding": table, "reverse": back})
    return module, lambda x: module["reverse"](module["embedding"](x))


def conv_lstm(layer: Any, shape: Shape) -> Reference:
    rank = len(shape) - 3
    kernel, strides = every(layer.kernel_size, rank), every(layer.strides, rank)
    units = layer.filters
    module = nn.ModuleDict(
        {
            "input": CONV[rank - 1](shape[-1], 4 * units, kernel, strides, bias=layer.use_bias),
            "recurrent": CONV[rank - 1](units, 4 * units, kernel, bias=False),
        }
    )
    gate = {"sigmoid": torch.sigmoid, "hard_sigmoid": F.hardsigmoid}[
        layer.recurrent_activation.__name__
    ]

    def around(x: Tensor) -> Tensor:
        sides = [(k - 1) // 2 + n * ((k - 1) % 2) for k in reversed(kernel) for n in (0, 1)]
        return F.pad(x, sides)

    def forward(x: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        h = c = torch.zeros(())
        for step in x.unbind(1):
            y = module["input"](padded(channels_first(step), layer, kernel, strides))
            if outputs:
                y = y + module["recurrent"](around(h))
            i, f, new, o = y.chunk(4, dim=1)
            c = gate(f) * c + gate(i) * torch.tanh(new)
            h = gate(o) * torch.tanh(c)
            outputs.append(channels_last(h))
        return torch.stack(outputs, 1)

    return module, forward


def locally_connected(layer: Any, shape: Shape) -> Reference:
    """`nn.Unfold`, and a convolution with a group for each position."""
    rank = len(shape) - 2
    first = layer.data_format == "channels_first"
    channels = shape[1] if first else shape[-1]
    space = shape[2:] if first else shape[1:-1]
    kernel, strides = every(layer.kernel_size, rank), every(layer.strides, rank)
    out = [(n - k) // s + 1 for n, k, s in zip(space, kernel, strides, strict=True)]
    positions = math.prod(out)
    window = channels * math.prod(kernel)
    unfold = nn.Unfold((*kernel, 1)[:2], stride=(*strides, 1)[:2])
    module = nn.Conv1d(
        positions * window, positions * layer.filters, 1, groups=positions, bias=layer.use_bias
    )

    def forward(x: Tensor) -> Tensor:
        x = x if first else channels_first(x)
        windows = unfold(x.unsqueeze(-1) if rank == 1 else x).movedim(1, 2)
        y = module(windows.flatten(1).unsqueeze(-1)).reshape(-1, *out, layer.filters)
        return channels_first(y) if first else y

    return module, forward


def random_features(layer: Any, shape: Shape) -> Reference:
    module: Any = holder(kernel_scale=(1,))
    module.linear = nn.Linear(shape[-1], layer.output_dim)
    return module, lambda x: torch.cos(module.linear(x / module.kernel_scale))


def quantiles(layer: Any, shape: Shape) -> Reference:
    module = buffers(nn.Module(), summary=torch.zeros(layer.summary.numpy().shape))
    return module, lambda x: module.summary


def scaled_channels(layer: Any, shape: Shape) -> Reference:
    module = holder(gamma=shape[-1:])
    return module, lambda x: x * module.gamma


def highway(layer: Any, shape: Shape) -> Reference:
    n, bias = shape[-1], layer.use_bias
    module = nn.ModuleDict(
        {"linear": nn.Linear(n, n, bias=bias), "carry": nn.Linear(n, n, bias=bias)}
    )

    def forward(x: Tensor) -> Tensor:
        gate = torch.sigmoid(module["carry"](x))
        return torch.lerp(x, torch.tanh(module["linear"](x)), gate)

    return module, forward


def maxout(layer: Any, shape: Shape) -> Reference:
    module = nn.Linear(shape[-1], layer.pieces * layer.units, bias=layer.use_bias)
    return module, lambda x: module(x).unflatten(-1, (layer.pieces, -1)).amax(1)


class PerPosition(nn.Module):  # type: ignore[misc]
    """The weights of an activation that has some for each position, channels first."""

    def __init__(self, like: Any, *names: str) -> None:
        super().__init__()
        *outer, channel = like.shape
        for name in names:
            setattr(self, name, nn.Parameter(torch.zeros(channel, *outer)))


def parametric_softplus(layer: Any, shape: Shape) -> Reference:
    module = PerPosition(layer.alphas, "alpha", "beta")
    return module, lambda x: channels_last(
        module.alpha * nn.functional.softplus(module.beta * channels_first(x))
    )


def s_shaped(layer: Any, shape: Shape) -> Reference:
    """As in arXiv:1512.07030, equation 1, with the upper threshold counted from the lower one."""
    module = PerPosition(layer.t_left, "t_left", "a_left", "t_right", "a_right")

    def forward(x: Tensor) -> Tensor:
        x, left = channels_first(x), module.t_left
        right = left + module.t_right.abs()
        y = torch.where(x <= left, left + module.a_left * (x - left), x)
        return channels_last(torch.where(x >= right, right + module.a_right * (x - right), y))

    return module, forward


def shared_slope(layer: Any, shape: Shape) -> Reference:
    module = nn.PReLU(1 if len(shape) - 1 in layer.shared_axes else shape[-1])
    return module, lambda x: channels_last(module(channels_first(x)))


# ------------------------------------------------------------------------------------- recurrence


def cell(layer: Any, *shapes: Shape) -> Reference:
    kinds = {"SimpleRNNCell": nn.RNNCell, "GRUCell": nn.GRUCell, "LSTMCell": nn.LSTMCell}
    name = type(layer).__name__
    module = kinds[name](shapes[0][-1], layer.units, bias=layer.use_bias)

    def forward(x: Tensor, *states: Tensor) -> Tensor:
        if name == "LSTMCell":
            h: Tensor = module(x, states)[0]
            return h
        return module(x, states[0])

    return module, forward


def _layers(rnn: Any, inputs: int) -> nn.ModuleDict:
    """A layer for each cell of a stack, under the cell's name."""
    found: dict[str, nn.Module] = {}
    for part in rnn.cell.cells:
        kind = {"GRUCell": nn.GRU, "LSTMCell": nn.LSTM}[type(part).__name__]
        found[part.name] = kind(inputs, part.units, bias=part.use_bias, batch_first=True)
        inputs = part.units
    return nn.ModuleDict(found)


def _run(layers: nn.Module, x: Tensor) -> Tensor:
    inside = layers.values() if isinstance(layers, nn.ModuleDict) else [layers]
    for module in inside:
        x = module(x)[0]
    return x


def _both_ways(module: nn.ModuleDict) -> Forward:
    return lambda x: torch.cat(
        [_run(module["forward_layer"], x), _run(module["backward_layer"], x.flip(1)).flip(1)], -1
    )


def stacked(layer: Any, shape: Shape) -> Reference:
    if hasattr(layer, "forward_layer"):
        both = {"forward_layer": layer.forward_layer, "backward_layer": layer.backward_layer}
        module = nn.ModuleDict({name: _layers(rnn, shape[-1]) for name, rnn in both.items()})
        return module, _both_ways(module)
    module = _layers(layer, shape[-1])
    return module, lambda x: _run(module, x)


def unlike(layer: Any, shape: Shape) -> Reference:
    there, back = layer.forward_layer, layer.backward_layer
    module = nn.ModuleDict(
        {
            "forward_layer": nn.LSTM(shape[-1], there.units, bias=there.use_bias, batch_first=True),
            "backward_layer": nn.GRU(shape[-1], back.units, bias=back.use_bias, batch_first=True),
        }
    )
    return module, _both_ways(module)


def steps_of_steps(layer: Any, shape: Shape) -> Reference:
    own = layer.layer.forward_layer
    module = nn.LSTM(shape[-1], own.units, bias=own.use_bias, batch_first=True, bidirectional=True)
    return module, lambda x: torch.stack([module(step)[0] for step in x.unbind(1)], 1)


def steps_normalized(layer: Any, shape: Shape) -> Reference:
    module = nn.BatchNorm1d(shape[-1], eps=layer.layer.epsilon).eval()
    return module, lambda x: module(x.flatten(0, 1)).unflatten(0, x.shape[:2])


REFERENCES: Mapping[str, Callable[..., Reference]] = {
    "Attention": attention,
    "AdditiveAttention": additive_attention,
    "GroupedQueryAttention": grouped_attention,
    "GatedGroupedQueryAttention": grouped_attention,
    "MultiHeadAttentionLinears": linears,
    "GatedMultiHeadAttention": linears,
    "MultiHeadAttentionAxes": attention_axes,
    "RMSNormalization": rms_normalization,
    "LayerNormalizationScaled": scaled_normalization,
    "Normalization": normalization,
    "SpectralNormalization": spectral,
    "BatchNormalizationAxes": batch_axes,
    "BatchNormalizationRenorm": batch_axes,
    "STFTSpectrogram": spectrogram,
    **dict.fromkeys(("TiedEmbedding", "ReversibleEmbedding"), there_and_back),
    **{f"ConvLSTM{n}D": conv_lstm for n in (1, 2, 3)},
    **{f"LocallyConnected{n}D": locally_connected for n in (1, 2)},
    "RandomFourierFeatures": random_features,
    "Discretization": quantiles,
    "Highway": highway,
    "LayerScale": scaled_channels,
    "MaxoutDense": maxout,
    "PReLUShared": shared_slope,
    "ParametricSoftplus": parametric_softplus,
    "SReLU": s_shaped,
    **{f"{kind}Cell": cell for kind in ("SimpleRNN", "GRU", "LSTM")},
    "StackedCells": stacked,
    "UnlikeDirections": unlike,
    "TimeDistributedLSTM": steps_of_steps,
    "TimeDistributedNormalization": steps_normalized,
}
