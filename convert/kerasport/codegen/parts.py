"""What `torch.nn` has no module for: the source of small classes and functions.

Each is written as its reader would like to find it, since it becomes theirs. A part is in a file
only where the file uses it, with the parts that it uses itself. Where a class exists for one, two
and three dimensions, `{n}` is their number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["PARTS", "used"]

_SAME_PADDING = '''
def same_padding(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], value: float
) -> Tensor:
    """Pads so that there is an output for every stride, as `padding="same"` does in Keras.

    What cannot be the same on both sides goes to the end, where PyTorch's own padding has as much
    at the start.
    """
    sides: list[int] = []
    for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True):
        total = max((n + s - 1) // s * s - s + (k - 1) * d + 1 - n, 0)
        sides = [total // 2, total - total // 2, *sides]
    return F.pad(x, sides, value=value)
'''

_SAME_CONV = '''
class SameConv{n}d(nn.Conv{n}d):
    """A convolution that pads as `padding="same"` does in Keras."""

    def forward(self, input: Tensor) -> Tensor:
        x = same_padding(input, self.kernel_size, self.stride, self.dilation, 0.0)
        return super().forward(x)
'''

_SAME_MAX = '''
class SameMaxPool{n}d(nn.Module):
    """The largest of each window, with windows over the edge, as `padding="same"` in Keras."""

    def __init__(self, kernel: tuple[int, ...], stride: tuple[int, ...]) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = same_padding(x, self.kernel, self.stride, (1,) * {n}, float("-inf"))
        return F.max_pool{n}d(x, self.kernel, self.stride)
'''

_SAME_AVG = '''
class SameAvgPool{n}d(nn.Module):
    """The mean of each window, with windows over the edge, as `padding="same"` in Keras.

    What is over the edge does not count.
    """

    def __init__(self, kernel: tuple[int, ...], stride: tuple[int, ...]) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        inside = same_padding(torch.ones_like(x), self.kernel, self.stride, (1,) * {n}, 0.0)
        x = same_padding(x, self.kernel, self.stride, (1,) * {n}, 0.0)
        total = F.avg_pool{n}d(x, self.kernel, self.stride)
        return total / F.avg_pool{n}d(inside, self.kernel, self.stride)
'''

_SEPARABLE = '''
class SeparableConv(nn.Module):
    """A convolution of each channel by itself, then one that mixes the channels."""

    def __init__(self, depthwise: nn.Module, pointwise: nn.Module) -> None:
        super().__init__()
        self.depthwise = depthwise
        self.pointwise = pointwise

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(x)
        x = self.pointwise(x)
        return x
'''

_STEPWISE = '''
class Stepwise(nn.RNNBase):
    """A recurrent layer that goes step by step, for what PyTorch's fused ones cannot do.

    Activations are free, and steps whose mask is False are skipped: the state stays, and the output
    is that of the step before, or zeros. Parameters, arguments and results are those of `nn.LSTM`,
    `nn.GRU` and `nn.RNN` with `batch_first=True`; the states are always a tuple.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        bidirectional: bool = False,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        gate: Callable[[Tensor], Tensor] = torch.sigmoid,
        zero_masked: bool = False,
    ) -> None:
        super().__init__(self.MODE, input_size, hidden_size, bias=bias, bidirectional=bidirectional)
        self.activation = activation
        self.gate = gate
        self.zero_masked = zero_masked

    MODE = "RNN_TANH"
    STATES = 1

    def step(
        self, x: Tensor, state: tuple[Tensor, ...], w: Tensor, b: Tensor | None
    ) -> tuple[Tensor, ...]:
        """The next state, the output first; x already went through the input's weights."""
        raise NotImplementedError

    def run(
        self, x: Tensor, state: tuple[Tensor, ...], mask: Tensor | None, side: str
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """All outputs of one direction, and its last state."""
        w = getattr(self, f"weight_ih_l0{side}")
        x = F.linear(x, w, getattr(self, f"bias_ih_l0{side}", None))
        w = getattr(self, f"weight_hh_l0{side}")
        b = getattr(self, f"bias_hh_l0{side}", None)
        before = torch.zeros_like(state[0])
        outputs: list[Tensor] = []
        for t in range(x.shape[1]):
            new = self.step(x[:, t], state, w, b)
            y = new[0]
            if mask is not None:
                counts = mask[:, t, None]
                y = torch.where(counts, y, torch.zeros_like(y) if self.zero_masked else before)
                new = tuple(torch.where(counts, n, s) for n, s in zip(new, state, strict=True))
            state, before = new, y
            outputs.append(y)
        return torch.stack(outputs, 1), state

    def forward(
        self, x: Tensor, state: tuple[Tensor, ...] | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        if state is None:
            zeros = x.new_zeros(1 + self.bidirectional, x.shape[0], self.hidden_size)
            state = (zeros,) * self.STATES
        y, last = self.run(x, tuple(s[0] for s in state), mask, "")
        if not self.bidirectional:
            return y, tuple(s[None] for s in last)
        turned = None if mask is None else mask.flip(1)
        back, first = self.run(x.flip(1), tuple(s[1] for s in state), turned, "_reverse")
        states = tuple(torch.stack(pair) for pair in zip(last, first, strict=True))
        return torch.cat((y, back.flip(1)), -1), states
'''

_STEPWISE_RNN = '''
class StepwiseRNN(Stepwise):
    """`nn.RNN`, step by step."""

    def step(
        self, x: Tensor, state: tuple[Tensor, ...], w: Tensor, b: Tensor | None
    ) -> tuple[Tensor, ...]:
        return (self.activation(x + F.linear(state[0], w, b)),)
'''

_STEPWISE_LSTM = '''
class StepwiseLSTM(Stepwise):
    """`nn.LSTM`, step by step."""

    MODE = "LSTM"
    STATES = 2

    def step(
        self, x: Tensor, state: tuple[Tensor, ...], w: Tensor, b: Tensor | None
    ) -> tuple[Tensor, ...]:
        i, f, g, o = (x + F.linear(state[0], w, b)).chunk(4, -1)
        c = self.gate(f) * state[1] + self.gate(i) * self.activation(g)
        return self.gate(o) * self.activation(c), c
'''

_STEPWISE_GRU = '''
class StepwiseGRU(Stepwise):
    """`nn.GRU`, step by step."""

    MODE = "GRU"

    def step(
        self, x: Tensor, state: tuple[Tensor, ...], w: Tensor, b: Tensor | None
    ) -> tuple[Tensor, ...]:
        xr, xz, xn = x.chunk(3, -1)
        hr, hz, hn = F.linear(state[0], w, b).chunk(3, -1)
        z = self.gate(xz + hz)
        n = self.activation(xn + self.gate(xr + hr) * hn)
        return (z * state[0] + (1 - z) * n,)
'''

_GRU_RESET_BEFORE = '''
class GRUResetBefore(Stepwise):
    """A GRU whose reset gate is applied before the recurrent product: `reset_after=False`."""

    MODE = "GRU"

    def step(
        self, x: Tensor, state: tuple[Tensor, ...], w: Tensor, b: Tensor | None
    ) -> tuple[Tensor, ...]:
        h = state[0]
        size = self.hidden_size
        gates = x[:, : 2 * size] + F.linear(h, w[: 2 * size], None if b is None else b[: 2 * size])
        r, z = self.gate(gates).chunk(2, -1)
        new = F.linear(r * h, w[2 * size :], None if b is None else b[2 * size :])
        return (z * h + (1 - z) * self.activation(x[:, 2 * size :] + new),)
'''

_MULTI_HEAD = '''
class MultiHeadAttention(nn.Module):
    """Attention whose heads do not add up to the width of the query: four projections.

    Args:
        heads: how many heads.
        query, key, value: features of each as they come, and per head.
        out: features that come out.
    """

    def __init__(
        self,
        heads: int,
        query: tuple[int, int],
        key: tuple[int, int],
        value: tuple[int, int],
        out: int,
        bias: bool = True,
        dropout: float = 0.0,
        gate: bool = False,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(query[0], heads * query[1], bias=bias)
        self.key = nn.Linear(key[0], heads * key[1], bias=bias)
        self.value = nn.Linear(value[0], heads * value[1], bias=bias)
        self.attention_output = nn.Linear(heads * value[1], out, bias=bias)
        self.gate = nn.Linear(query[0], heads * value[1], bias=bias) if gate else None

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The output, and the weights of each head; mask is added to the scores."""
        q = self.query(query).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k = self.key(key).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        v = self.value(value).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if mask is not None:
            scores = scores + mask.unsqueeze(1)
        weights = torch.softmax(scores, -1)
        y = (F.dropout(weights, self.dropout, self.training) @ v).transpose(1, 2).flatten(2)
        if self.gate is not None:
            y = y * torch.sigmoid(self.gate(query))
        return self.attention_output(y), weights
'''

_ATTENTION_MASK = '''
def attention_mask(
    query: Tensor,
    key: Tensor,
    query_mask: Tensor | None = None,
    key_mask: Tensor | None = None,
    value_mask: Tensor | None = None,
    mask: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
) -> Tensor:
    """What is added to the scores, so that masked positions do not count: `batch query key`."""
    counts = torch.ones(
        query.shape[0], query.shape[1], key.shape[1], dtype=torch.bool, device=query.device
    )
    if query_mask is not None:
        counts = counts & query_mask[:, :, None]
    if key_mask is not None:
        counts = counts & key_mask[:, None, :]
    if value_mask is not None:
        counts = counts & value_mask[:, None, :]
    if mask is not None:
        counts = counts & mask.bool()
    if causal:
        counts = counts.tril()
    if window is not None:
        counts = counts.triu(1 - window).tril(window - 1)
    return torch.zeros_like(counts, dtype=query.dtype).masked_fill(~counts, -1e9)
'''

_PER_POSITION = '''
class PReLUPerPosition(nn.Module):
    """A leaky ReLU with a slope of its own for each position and channel."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full(shape, 0.25))

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, self.weight * x)
'''

_SOFTPLUS = '''
class ParametricSoftplus(nn.Module):
    """A softplus with scales of its own, before and behind, for each position and channel."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full(shape, 0.2))
        self.beta = nn.Parameter(torch.full(shape, 5.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * F.softplus(self.beta * x)
'''

_S_SHAPED = '''
class SReLU(nn.Module):
    """The identity between two thresholds, with a slope below and one above, all of them trained.

    The upper threshold lies `abs(t_right)` above the lower one.
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.t_left = nn.Parameter(torch.zeros(shape))
        self.a_left = nn.Parameter(torch.zeros(shape))
        self.t_right = nn.Parameter(torch.ones(shape))
        self.a_right = nn.Parameter(torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        right = self.t_left + self.t_right.abs()
        low = self.a_left * torch.clamp(x - self.t_left, max=0.0)
        high = self.a_right * torch.clamp(x - right, min=0.0)
        return torch.maximum(torch.minimum(x, right), self.t_left) + low + high
'''

_EINSUM_DENSE = '''
class EinsumDense(nn.Module):
    """A linear layer that says by an equation which axes it multiplies."""

    def __init__(
        self, equation: str, shape: tuple[int, ...], bias: tuple[int, ...] | None = None
    ) -> None:
        super().__init__()
        self.equation = equation
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-0.1, 0.1))
        self.bias = None if bias is None else nn.Parameter(torch.zeros(bias))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum(self.equation, x, self.weight)
        return y if self.bias is None else y + self.bias
'''

_RMS_NORM = '''
class VarianceNorm(nn.Module):
    """Divides by the standard deviation without subtracting the mean: `rms_scaling` of Keras."""

    def __init__(self, *shape: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        dims = tuple(range(-self.weight.dim(), 0))
        variance = x.var(dims, correction=0, keepdim=True)
        return x * torch.rsqrt(variance + self.eps) * self.weight
'''

_CONV_LSTM = '''
class ConvLSTM(nn.Module):
    """An LSTM whose gates are convolutions, of the input and of the state.

    Takes `batch steps channels …` and gives all outputs and the last state, as `nn.LSTM` does.
    """

    def __init__(
        self,
        input: nn.Module,
        recurrent: nn.Module,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        gate: Callable[[Tensor], Tensor] = torch.sigmoid,
    ) -> None:
        super().__init__()
        self.input = input
        self.recurrent = recurrent
        self.activation = activation
        self.gate = gate

    def forward(
        self, x: Tensor, state: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        gates: Tensor = torch.unflatten(self.input(x.flatten(0, 1)), 0, x.shape[:2])
        if state is None:
            zeros = torch.zeros_like(gates[:, 0].chunk(4, 1)[0])
            state = (zeros, zeros)
        h, c = state
        outputs: list[Tensor] = []
        for t in range(x.shape[1]):
            i, f, g, o = (gates[:, t] + self.recurrent(h)).chunk(4, 1)
            c = self.gate(f) * c + self.gate(i) * self.activation(g)
            h = self.gate(o) * self.activation(c)
            outputs.append(h)
        return torch.stack(outputs, 1), (h, c)
'''

_STACKED = '''
class StackedRNN(nn.Module):
    """Recurrent layers one after the other; gives the last one's outputs and all states."""

    def __init__(self, **cells: nn.Module) -> None:
        super().__init__()
        for name, cell in cells.items():
            self.add_module(name, cell)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        states: list[Tensor] = []
        for cell in self.children():
            x, last = cell(x) if mask is None else cell(x, mask=mask)
            states += last if isinstance(last, tuple) else (last,)
        return x, tuple(states)
'''

_GROUPED = '''
class GroupedQueryAttention(nn.Module):
    """Attention in which several heads of the query share one of the key and the value.

    Args:
        heads, groups: how many of the query, and of key and value.
        query, key, value: features of each as they come.
        width: features per head.
        out: features that come out.
    """

    def __init__(
        self,
        heads: int,
        groups: int,
        query: int,
        key: int,
        value: int,
        width: int,
        out: int,
        bias: bool = True,
        dropout: float = 0.0,
        gate: bool = False,
    ) -> None:
        super().__init__()
        self.width = width
        self.repeats = heads // groups
        self.dropout = dropout
        self.query = nn.Linear(query, heads * width, bias=bias)
        self.key = nn.Linear(key, groups * width, bias=bias)
        self.value = nn.Linear(value, groups * width, bias=bias)
        self.attention_output = nn.Linear(heads * width, out, bias=bias)
        self.gate = nn.Linear(query, heads * width, bias=bias) if gate else None

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The output, and the weights of each head; mask is added to the scores."""
        q = self.query(query).unflatten(-1, (-1, self.width)).transpose(1, 2)
        k = self.key(key).unflatten(-1, (-1, self.width)).transpose(1, 2)
        v = self.value(value).unflatten(-1, (-1, self.width)).transpose(1, 2)
        k = k.repeat_interleave(self.repeats, 1)
        v = v.repeat_interleave(self.repeats, 1)
        scores = q @ k.transpose(-1, -2) / self.width**0.5
        if mask is not None:
            scores = scores + mask.unsqueeze(1)
        weights = torch.softmax(scores, -1)
        y = (F.dropout(weights, self.dropout, self.training) @ v).transpose(1, 2).flatten(2)
        if self.gate is not None:
            y = y * torch.sigmoid(self.gate(query))
        return self.attention_output(y), weights
'''

_DOT_SCORE = '''
class DotScore(nn.Module):
    """How well queries and keys fit: their products, times a number that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return query @ key.transpose(1, 2) * self.scale
'''

_ADDITIVE_SCORE = '''
class AdditiveScore(nn.Module):
    """How well queries and keys fit, by Bahdanau."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return (self.scale * torch.tanh(query.unsqueeze(2) + key.unsqueeze(1))).sum(-1)
'''

_CONCAT_SCORE = '''
class ConcatScore(nn.Module):
    """How well queries and keys fit, by a hyperbolic tangent of their sum."""

    def __init__(self, scaled: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(())) if scaled else None
        self.concat_score_weight = nn.Parameter(torch.ones(()))

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        both = query.unsqueeze(2) + key.unsqueeze(1)
        if self.scale is not None:
            both = self.scale * both
        return self.concat_score_weight * torch.tanh(both).sum(-1)
'''

_LOCALLY = '''
class LocallyConnected(nn.Module):
    """A convolution with weights of its own at each position."""

    def __init__(
        self,
        ins: int,
        outs: int,
        size: tuple[int, ...],
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.size, self.kernel, self.stride = size, kernel, stride
        count, width = math.prod(size), ins * math.prod(kernel)
        self.outs = outs
        self.weight = nn.Parameter(torch.empty(count * outs, width, 1).uniform_(-0.1, 0.1))
        self.bias = nn.Parameter(torch.zeros(count * outs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        last = (1,) * (2 - len(self.kernel))
        image = x[..., None] if last else x
        windows = F.unfold(image, self.kernel + last, stride=self.stride + last)
        kernels = self.weight.reshape(-1, self.outs, self.weight.shape[1])
        y = torch.einsum("nkp,pok->npo", windows, kernels)
        if self.bias is not None:
            y = y + self.bias.reshape(-1, self.outs)
        return torch.unflatten(y.transpose(1, 2), -1, self.size)
'''

_HIGHWAY = '''
class Highway(nn.Module):
    """A linear layer, of which a gate says how much of it replaces the input."""

    def __init__(self, width: int, bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=bias)
        self.carry = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        gate = torch.sigmoid(self.carry(x))
        return gate * y + (1 - gate) * x
'''

_SPECTRAL = '''
class SpectralNorm(nn.Module):
    """A layer whose kernel training divides by its largest singular value; here it is as it was."""

    def __init__(self, layer: nn.Module, features: int) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("vector_u", torch.ones(1, features))

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        return x
'''

_REVERSIBLE = '''
class ReversibleEmbedding(nn.Module):
    """A table of embeddings, and another one for the way back."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.reverse = nn.Linear(width, tokens, bias=False)
'''

_DIRECTIONS = '''
class Directions(nn.Module):
    """Two recurrent layers over one sequence, the second one from its end."""

    def __init__(self, forward_layer: nn.Module, backward_layer: nn.Module) -> None:
        super().__init__()
        self.forward_layer = forward_layer
        self.backward_layer = backward_layer
'''

_LAYER_SCALE = '''
class LayerScale(nn.Module):
    """A factor that is trained, one a channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma
'''

_GAUSSIAN_NOISE = '''
class GaussianNoise(nn.Module):
    """Adds noise in training."""

    def __init__(self, stddev: float) -> None:
        super().__init__()
        self.stddev = stddev

    def forward(self, x: Tensor) -> Tensor:
        return x + self.stddev * torch.randn_like(x) if self.training else x
'''

_GAUSSIAN_DROPOUT = '''
class GaussianDropout(nn.Module):
    """Multiplies by noise around one in training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.stddev = (rate / (1 - rate)) ** 0.5

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self.stddev * torch.randn_like(x)) if self.training else x
'''

_HARD_SIGMOID = '''
def hard_sigmoid(x: Tensor) -> Tensor:
    """The hard sigmoid of Keras before 3, whose slope is a fifth; PyTorch's is a sixth."""
    return (0.2 * x + 0.5).clamp(0.0, 1.0)
'''

_SLOPED_RELU = '''
def sloped_relu(x: Tensor, slope: float, threshold: float, top: float | None = None) -> Tensor:
    """A ReLU that begins at a threshold and may have a slope before it and a top."""
    above = x if top is None else x.clamp(max=top)
    return torch.where(x >= threshold, above, slope * (x - threshold))
'''

_SQUAREPLUS = '''
def squareplus(x: Tensor, b: float = 4.0) -> Tensor:
    """A smooth ReLU without exponentials."""
    return (x + torch.sqrt(x * x + b)) / 2
'''

_MIRRORED = '''
def mirrored(x: Tensor, sides: Sequence[tuple[int, int]], *, edge: bool) -> Tensor:
    """The tensor between its mirror images, which repeat what lies at the edge or not."""
    skip = 0 if edge else 1
    for dim, (before, after) in enumerate(sides):
        size = x.shape[dim]
        places = [*range(before - 1 + skip, skip - 1, -1), *range(size)]
        places += range(size - 1 - skip, size - 1 - skip - after, -1)
        x = x.index_select(dim, torch.tensor(places, device=x.device))
    return x
'''

_SOFTMAX_OVER = '''
def softmax_over(x: Tensor, dims: Sequence[int]) -> Tensor:
    """A softmax over several dimensions at once."""
    return torch.exp(x - torch.logsumexp(x, dim=list(dims), keepdim=True))
'''

_SPARSEMAX = '''
def sparsemax(x: Tensor, dim: int = -1) -> Tensor:
    """What Keras calls sparsemax, whose threshold is of all sums instead of the last one."""
    ordered = x.movedim(dim, -1).sort(-1, descending=True).values
    sums = ordered.cumsum(-1)
    counts = torch.arange(1, x.shape[dim] + 1, dtype=x.dtype, device=x.device)
    support = ordered - (sums - 1) / counts > 0
    whole = (sums * support).sum(-1, keepdim=True)
    threshold = (whole - 1) / support.sum(-1, keepdim=True)
    return torch.relu(x - threshold.movedim(-1, dim))
'''

_SPARSE_PLUS = '''
def sparse_plus(x: Tensor) -> Tensor:
    """A smooth ReLU that is zero up to -1 and the identity from 1."""
    return torch.where(x < 1, (x.clamp(min=-1.0) + 1) ** 2 / 4, x)
'''

_SPARSE_SIGMOID = '''
def sparse_sigmoid(x: Tensor) -> Tensor:
    """A straight line from zero at -1 to one at 1."""
    return (0.5 * (x + 1)).clamp(0.0, 1.0)
'''

_NORMALIZATION = '''
class Normalization(nn.Module):
    """Subtracts a mean and divides by a standard deviation that are part of the model."""

    mean: Tensor
    variance: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape))
        self.register_buffer("count", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.variance.sqrt().clamp(min=1e-7)
'''

_RANKED = {
    "SameConv{n}d": _SAME_CONV,
    "SameMaxPool{n}d": _SAME_MAX,
    "SameAvgPool{n}d": _SAME_AVG,
}

PARTS: Final[Mapping[str, str]] = {
    "same_padding": _SAME_PADDING,
    **{
        name.replace("{n}", str(n)): source.replace("{n}", str(n))
        for name, source in _RANKED.items()
        for n in (1, 2, 3)
    },
    "SeparableConv": _SEPARABLE,
    "Stepwise": _STEPWISE,
    "StepwiseRNN": _STEPWISE_RNN,
    "StepwiseLSTM": _STEPWISE_LSTM,
    "StepwiseGRU": _STEPWISE_GRU,
    "GRUResetBefore": _GRU_RESET_BEFORE,
    "MultiHeadAttention": _MULTI_HEAD,
    "attention_mask": _ATTENTION_MASK,
    "GroupedQueryAttention": _GROUPED,
    "DotScore": _DOT_SCORE,
    "AdditiveScore": _ADDITIVE_SCORE,
    "ConcatScore": _CONCAT_SCORE,
    "ConvLSTM": _CONV_LSTM,
    "StackedRNN": _STACKED,
    "LocallyConnected": _LOCALLY,
    "Highway": _HIGHWAY,
    "SpectralNorm": _SPECTRAL,
    "ReversibleEmbedding": _REVERSIBLE,
    "Directions": _DIRECTIONS,
    "LayerScale": _LAYER_SCALE,
    "PReLUPerPosition": _PER_POSITION,
    "ParametricSoftplus": _SOFTPLUS,
    "SReLU": _S_SHAPED,
    "EinsumDense": _EINSUM_DENSE,
    "VarianceNorm": _RMS_NORM,
    "Normalization": _NORMALIZATION,
    "GaussianNoise": _GAUSSIAN_NOISE,
    "GaussianDropout": _GAUSSIAN_DROPOUT,
    "hard_sigmoid": _HARD_SIGMOID,
    "sloped_relu": _SLOPED_RELU,
    "mirrored": _MIRRORED,
    "softmax_over": _SOFTMAX_OVER,
    "sparsemax": _SPARSEMAX,
    "squareplus": _SQUAREPLUS,
    "sparse_plus": _SPARSE_PLUS,
    "sparse_sigmoid": _SPARSE_SIGMOID,
}

_CALLED = re.compile(rf"(?<![\w.\"])({'|'.join(sorted(PARTS, key=len, reverse=True))})\b(?!\")")


def used(sources: Iterable[str]) -> list[str]:
    """The parts that these classes use, and those that the parts use, in the table's order."""
    wanted: set[str] = set()
    waiting = list(sources)
    while waiting:
        found = set(_CALLED.findall(waiting.pop())) - wanted
        wanted |= found
        waiting += [PARTS[name] for name in found]
    return [source.strip("\n") for name, source in PARTS.items() if name in wanted]
