"""Options that nobody chose: layers drawn at random, in Keras, PyTorch and ONNX.

The grid has what its author thought of. Here Hypothesis draws sizes and options, and shrinks what
fails to the smallest layer that does. Sizes are distinct primes, so that no two axes can pass for
one another, and then again all the same, where only values tell.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import oracles
from oracles import TOLERANCE, Trial, deviation, label
from test_oracles_onnx import onnx_outputs
from test_oracles_torch import torch_output

L = keras.layers
PRIMES = (2, 3, 5, 7, 11, 13)
BOTH = st.booleans()
Sizes = list[int]
Drawn = Callable[[st.DrawFn, Sizes], Trial]
COUNTED: Counter[str] = Counter()


def _trial(family: str, shapes: Any, make: Any, options: Mapping[str, Any], low: int = 0) -> Trial:
    return Trial(family, label(**options), partial(make, **options), shapes, low=low)


def dense(draw: st.DrawFn, n: Sizes) -> Trial:
    options = {"units": n[0], "use_bias": draw(BOTH)}
    lead = n[2 : 2 + draw(st.integers(1, 3))]
    return _trial("Dense", ((*lead, n[1]),), L.Dense, options)


def convolution(draw: st.DrawFn, n: Sizes) -> Trial:
    rank = draw(st.integers(1, 3))
    groups = draw(st.sampled_from((1, 2, 3)))
    kernel = n[2 : 2 + rank] if rank < 3 else [min(k, 3) for k in n[2:5]]
    options = {
        "filters": n[0] * groups,
        "kernel_size": kernel,
        "groups": groups,
        "use_bias": draw(BOTH),
        "padding": draw(st.sampled_from(("valid", "same", "causal")[: 3 if rank == 1 else 2])),
        **_steps(draw, rank, dilation=rank < 3),
    }
    reach = _reach(options, rank)
    space = [k + draw(st.integers(0, 4)) for k in reach]
    return _trial(
        f"Conv{rank}D", ((2, *space, n[1] * groups),), getattr(L, f"Conv{rank}D"), options
    )


def _steps(draw: st.DrawFn, rank: int, *, dilation: bool) -> dict[str, Any]:
    """Strides or a dilation; Keras has not both."""
    each = st.lists(st.integers(1, 3), min_size=rank, max_size=rank)
    if dilation and draw(BOTH):
        return {"dilation_rate": draw(each)}
    return {"strides": draw(each)}


def _reach(options: Mapping[str, Any], rank: int) -> list[int]:
    dilation = options.get("dilation_rate", [1] * rank)
    return [(k - 1) * d + 1 for k, d in zip(options["kernel_size"], dilation, strict=True)]


def transposed(draw: st.DrawFn, n: Sizes) -> Trial:
    rank = draw(st.integers(1, 3))
    options = {
        "filters": n[0],
        "kernel_size": [min(k, 5) for k in n[2 : 2 + rank]],
        "use_bias": draw(BOTH),
        "padding": draw(st.sampled_from(("valid", "same"))),
        "strides": draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank)),
    }
    space = [draw(st.integers(2, 4)) for _ in range(rank)]
    layer = getattr(L, f"Conv{rank}DTranspose")
    return _trial(f"Conv{rank}DTranspose", ((2, *space, n[1]),), layer, options)


def depthwise(draw: st.DrawFn, n: Sizes) -> Trial:
    rank = draw(st.integers(1, 2))
    step = draw(st.integers(1, 3))
    options: dict[str, Any] = {
        "kernel_size": n[2 : 2 + rank],
        "depth_multiplier": draw(st.integers(1, 4)),
        "use_bias": draw(BOTH),
        "padding": draw(st.sampled_from(("valid", "same"))),
        # TensorFlow has one number for all axes.
        **({"dilation_rate": step} if draw(BOTH) else {"strides": step}),
    }
    dilation = options.get("dilation_rate", 1)
    space = [(k - 1) * dilation + 1 + draw(st.integers(0, 4)) for k in options["kernel_size"]]
    name = draw(st.sampled_from(("DepthwiseConv", "SeparableConv")))
    if name == "SeparableConv":
        options["filters"] = n[0]
    layer = getattr(L, f"{name}{rank}D")
    return _trial(f"{name}{rank}D", ((2, *space, n[1]),), layer, options)


def normalization(draw: st.DrawFn, n: Sizes) -> Trial:
    name = draw(st.sampled_from(("Batch", "Layer", "Group")))
    options: dict[str, Any] = {"scale": draw(BOTH), "center": draw(BOTH)}
    options["epsilon"] = draw(st.sampled_from((1e-3, 1e-5, 0.1)))
    rank = draw(st.integers(2, 4))
    shape = n[:rank]
    if name == "Batch":
        options["axis"] = draw(st.sampled_from([-1, *range(1, rank)]))
    if name == "Layer":
        first = draw(st.integers(1, rank - 1))
        options["axis"] = list(range(first - rank, 0))
        shape = [min(size, 5) for size in shape]
    if name == "Group":
        options["groups"] = draw(st.sampled_from((1, 2, 3, 6, -1)))
        shape = [*n[: max(rank, 3) - 1], 6]
    layer = getattr(L, f"{name}Normalization")
    return _trial(f"{name}Normalization", (tuple(shape),), layer, options)


def recurrent(draw: st.DrawFn, n: Sizes) -> Trial:
    name = draw(st.sampled_from(("SimpleRNN", "GRU", "LSTM")))
    options = {"units": n[0], "use_bias": draw(BOTH), "return_sequences": True}
    layer = getattr(L, name)
    shapes = ((2, draw(st.integers(1, 4)), n[1]),)
    if draw(BOTH):
        merge = draw(st.sampled_from(("concat", "sum", "ave", "mul")))
        make = partial(_in_both_directions, layer, merge=merge)
        return _trial(f"Bidirectional{name}", shapes, make, options)
    return _trial(name, shapes, layer, options | {"go_backwards": draw(BOTH)})


def _in_both_directions(layer: Any, *, merge: str, **options: Any) -> Any:
    return L.Bidirectional(layer(**options), merge_mode=merge)


def convolutional(draw: st.DrawFn, n: Sizes) -> Trial:
    rank = draw(st.integers(1, 2))
    options = {
        "filters": min(n[0], 5),
        "kernel_size": [min(k, 3) for k in n[2 : 2 + rank]],
        "use_bias": draw(BOTH),
        "padding": draw(st.sampled_from(("valid", "same"))),
        "return_sequences": True,
    }
    layer = getattr(L, f"ConvLSTM{rank}D")
    shapes = ((2, 2, *(5, 4)[:rank], min(n[1], 5)),)
    return _trial(f"ConvLSTM{rank}D", shapes, layer, options)


def attention(draw: st.DrawFn, n: Sizes) -> Trial:
    heads, key, value, q, k, out = n
    bias = draw(BOTH)
    if draw(BOTH):  # heads that add up, and so nn.MultiheadAttention
        width = heads * key
        options: dict[str, Any] = {"num_heads": heads, "key_dim": key, "use_bias": bias}
        shapes = ((2, 4, width), (2, 17, width), (2, 17, width))
        return _trial("MultiHeadAttention", shapes, L.MultiHeadAttention, options)
    gate = draw(BOTH)
    options = {
        "num_heads": heads,
        "key_dim": key,
        "value_dim": value,
        "use_bias": bias,
        "use_gate": gate,
        "output_shape": draw(st.sampled_from((out, (out, 2)))),
    }
    family = "GatedMultiHeadAttention" if gate else "MultiHeadAttentionLinears"
    shapes = ((2, 4, q), (2, 17, k), (2, 17, k))
    return _trial(family, shapes, L.MultiHeadAttention, options)


def grouped(draw: st.DrawFn, n: Sizes) -> Trial:
    gate = draw(BOTH)
    groups = min(n[0], 3)
    options = {
        "head_dim": n[1],
        "num_query_heads": groups * draw(st.integers(1, 3)),
        "num_key_value_heads": groups,
        "use_bias": draw(BOTH),
        "use_gate": gate,
    }
    family = "GatedGroupedQueryAttention" if gate else "GroupedQueryAttention"
    shapes = ((2, 4, n[2]), (2, 17, n[3]), (2, 17, n[4]))
    return _trial(family, shapes, L.GroupQueryAttention, options)


def embedding(draw: st.DrawFn, n: Sizes) -> Trial:
    options = {"input_dim": n[0], "output_dim": n[1]}
    shape = tuple(n[2 : 2 + draw(st.integers(1, 2))])
    return _trial("Embedding", (shape,), L.Embedding, options, low=n[0])


def einsum(draw: st.DrawFn, n: Sizes) -> Trial:
    """Some axes kept, some summed over, some made, all in any order."""
    kept, summed, made = (draw(st.integers(1, 2)) for _ in range(3))
    size = dict(zip("abcdef", n, strict=True))
    a, b, c = "ab"[:kept], "cd"[:summed], "ef"[:made]
    kernel = "".join(draw(st.permutations(b + c)))
    source = "a" + "".join(draw(st.permutations((a + b)[1:])))
    output = "a" + "".join(draw(st.permutations((a + c)[1:])))
    bias = "".join(draw(st.permutations(c))) if draw(BOTH) else None
    if bias and output[-1] not in c and len(set(n)) == 1:
        # Keras 3.15 on TensorFlow adds a bias of shape [n, 1] along the other axis if it has n too.
        bias = None
    options = {
        "equation": f"{source},{kernel}->{output}",
        "output_shape": tuple(size[axis] for axis in output[1:]),
        "bias_axes": bias,
    }
    return _trial("EinsumDense", (tuple(size[x] for x in source),), L.EinsumDense, options)


FAMILIES: Mapping[str, Drawn] = {
    "dense": dense,
    "convolution": convolution,
    "transposed": transposed,
    "depthwise": depthwise,
    "normalization": normalization,
    "recurrent": recurrent,
    "convolutional": convolutional,
    "attention": attention,
    "grouped": grouped,
    "embedding": embedding,
    "einsum": einsum,
}


@st.composite
def trials(draw: st.DrawFn, family: str, square: bool) -> Trial:
    size = draw(st.sampled_from((2, 3, 4)))
    sizes = [size] * len(PRIMES) if square else list(draw(st.permutations(PRIMES)))
    return FAMILIES[family](draw, sizes)


@pytest.mark.parametrize("square", [False, True], ids=["primes", "square"])
@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_is_drawn_puts_out_the_same(
    family: str, square: bool, record_property: Callable[[str, object], None]
) -> None:
    """A row that holds for the options of the grid alone would be found out here."""
    count = 0

    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(trial=trials(family, square))
    def run(trial: Trial) -> None:
        nonlocal count
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            built = oracles.built_anew(trial)
        assert deviation(torch_output(trial, built), built.output) < TOLERANCE
        for evaluator, y in onnx_outputs(trial, built).items():
            assert deviation(y, built.output) < TOLERANCE, evaluator
        count += 1

    run()
    record_property("layers drawn", count)
    assert count > 10 or family == "embedding"
