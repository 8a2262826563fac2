"""Every layer and its options: the generated module gives what Keras gives.

Each trial is a model of one layer, or of a few where what surrounds a layer is what it is about.
The judge is Keras: the module is made from the model as any user's would be, loads its weights with
`strict=True` and is compared on random inputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import keras
import pytest
import tf_keras

import kerasport
from generated import Trial, compared
from kerasport.codegen.calls import MASKS
from kerasport.codegen.module import module
from kerasport.errors import UnsupportedError

L = keras.layers
TOLERANCE = 1e-5
BOTH = (True, False)


Options = dict[str, Any]


def named(layer: Any, *args: Any, **options: Any) -> tuple[str, Callable[[Any], Any]]:
    """A trial's name, and how its layer is made."""
    words = [*map(str, args), *(f"{key}={value}" for key, value in options.items())]
    return f"{layer.__name__}({','.join(words)})", lambda *x: layer(*args, **options)(*x)


def of(shape: Any, layer: Any, *args: Any, **options: Any) -> Trial:
    name, make = named(layer, *args, **options)
    return Trial(f"{name}{list(shape)}", make, (tuple(shape),))


SPACE = (11, 7, 5)


def convolutions() -> Iterator[Trial]:
    for rank in (1, 2, 3):
        conv = getattr(L, f"Conv{rank}D")
        size = (4, 3, 2)[:rank]
        shape = (*SPACE[:rank], 4)
        for padding, strides in product(("valid", "same"), (1, 2, (2, 3, 1)[:rank])):
            for kernel in (size, 3):
                yield of(shape, conv, 5, kernel, padding=padding, strides=strides)
        yield of(shape, conv, 6, 3, groups=2, use_bias=False, activation="relu")
        yield of(shape, conv, 6, 3, activation="softmax")
        yield of(shape, conv, 6, 1, strides=2, padding="same")
        transposed = getattr(L, f"Conv{rank}DTranspose")
        for padding, strides, kernel in product(("valid", "same"), (1, 2, 3), (2, 3, 4)):
            yield of(
                (*(3, 4, 2)[:rank], 4), transposed, 5, kernel, padding=padding, strides=strides
            )
        yield of((*(3, 4, 2)[:rank], 4), transposed, 5, 3, strides=2, output_padding=1)
        yield of(
            (*(3, 4, 2)[:rank], 4), transposed, 5, 3, strides=2, output_padding=1, padding="same"
        )
    for rank in (1, 2):
        shape = (*SPACE[:rank], 4)
        conv = getattr(L, f"Conv{rank}D")
        for padding in ("valid", "same"):
            yield of(shape, conv, 5, 3, dilation_rate=2, padding=padding)
            yield of(shape, conv, 5, 2, dilation_rate=3, padding=padding)
        for name, first in (("Depthwise", ()), ("Separable", (5,))):
            own = getattr(L, f"{name}Conv{rank}D")
            for padding, strides in product(("valid", "same"), (1, 2)):
                yield of(
                    shape, own, *first, 3, padding=padding, strides=strides, depth_multiplier=2
                )
            yield of(shape, own, *first, 2, dilation_rate=2, padding="same", use_bias=False)
            yield of(shape, own, *first, 2, activation="tanh")
    for strides, dilation in ((1, 1), (2, 1), (1, 3)):
        yield of((13, 4), L.Conv1D, 5, 3, strides=strides, dilation_rate=dilation, padding="causal")


def pooling() -> Iterator[Trial]:
    for rank, kind in product((1, 2, 3), ("Max", "Average")):
        pool = getattr(L, f"{kind}Pooling{rank}D")
        shape = (*SPACE[:rank], 4)
        for padding, strides, size in product(("valid", "same"), (None, 1, 3), (2, 3)):
            yield of(shape, pool, size, strides=strides, padding=padding)
        yield of(shape, pool, (3, 2, 1)[:rank], padding="same")
        whole = getattr(L, f"Global{kind}Pooling{rank}D")
        for keepdims in BOTH:
            yield of(shape, whole, keepdims=keepdims)
        yield of(shape, getattr(L, f"Adaptive{kind}Pooling{rank}D"), (3, 2, 2)[:rank])


def resampling() -> Iterator[Trial]:
    for rank in (1, 2, 3):
        shape = (*SPACE[:rank], 4)
        yield of(shape, getattr(L, f"ZeroPadding{rank}D"), 2)
        yield of(shape, getattr(L, f"Cropping{rank}D"), 1)
        yield of(shape, getattr(L, f"UpSampling{rank}D"), 2)
    yield of((7, 4), L.ZeroPadding1D, (1, 2))
    yield of((7, 5, 4), L.ZeroPadding2D, ((0, 1), (2, 3)))
    yield of((7, 5, 4), L.Cropping2D, ((0, 1), (2, 0)))
    yield of((7, 4), L.Cropping1D, (0, 2))
    yield of((7, 5, 4), L.UpSampling2D, (3, 2))
    yield of((7, 5, 4), L.UpSampling2D, (3, 2), interpolation="bilinear")
    for mode, size in product(("nearest", "bilinear"), ((14, 3), (5, 9))):
        yield of((7, 5, 4), L.Resizing, *size, interpolation=mode)
    yield of((7, 5, 4), L.CenterCrop, 4, 3)
    yield of((7, 5, 4), L.Rescaling, 1 / 255, offset=-1.0)
    yield of((7, 5, 3), L.Rescaling, [0.1, 0.2, 0.3], offset=[1.0, 2.0, 3.0])
    yield of((7,), L.Rescaling, 2.0)


def normalizations() -> Iterator[Trial]:
    for shape in ((5,), (7, 5), (7, 3, 5), (7, 3, 2, 5)):
        for scale, center in product(BOTH, BOTH):
            yield of(shape, L.BatchNormalization, scale=scale, center=center, epsilon=0.01)
            yield of(shape, L.LayerNormalization, scale=scale, center=center)
        if len(shape) > 1:
            yield of(shape, L.BatchNormalization, axis=1)
            yield of(shape, L.LayerNormalization, axis=1)
            yield of(shape, L.LayerNormalization, axis=[-2, -1])
            yield of((*shape[:-1], 6), L.GroupNormalization, 3)
            yield of((*shape[:-1], 6), L.GroupNormalization, -1, center=False)
        yield of(shape, L.UnitNormalization)
    yield of((7, 3, 5), L.LayerNormalization, axis=[1, 2, 3])
    yield of((7, 3, 5), L.UnitNormalization, axis=[1, 3])
    yield of((7, 3, 5), L.UnitNormalization, axis=1)


def activations() -> Iterator[Trial]:
    for name in (
        *("relu", "relu6", "sigmoid", "tanh", "softmax", "log_softmax", "elu", "selu", "celu"),
        *("gelu", "silu", "softplus", "softsign", "exponential", "hard_sigmoid", "hard_silu"),
        *("hard_tanh", "hard_shrink", "soft_shrink", "tanh_shrink", "mish", "leaky_relu"),
        *("log_sigmoid", "squareplus", "sparse_plus", "sparse_sigmoid", "linear"),
    ):
        yield of((7, 5), L.Activation, name)
        yield of((7, 3, 5), L.Conv2D, 4, 2, activation=name)
        yield of((5,), L.Dense, 6, activation=name)
    for shape in ((5,), (7, 3, 5)):
        yield of(shape, L.ReLU)
        yield of(shape, L.ReLU, max_value=6.0)
        yield of(shape, L.ReLU, max_value=1.5)
        yield of(shape, L.ReLU, negative_slope=0.1)
        yield of(shape, L.ReLU, negative_slope=0.1, max_value=1.0)
        yield of(shape, L.ReLU, threshold=0.5)
        yield of(shape, L.ReLU, threshold=0.5, negative_slope=0.2, max_value=1.0)
        yield of(shape, L.LeakyReLU)
        yield of(shape, L.LeakyReLU, negative_slope=0.1)
        yield of(shape, L.ELU, alpha=0.5)
        yield of(shape, L.Softmax)
        yield of(shape, L.Softmax, axis=1)
        yield of(shape, L.PReLU)
    yield of((7, 5), L.PReLU)
    yield of((7, 5), L.PReLU, shared_axes=[1])
    yield of((7, 3, 5), L.PReLU, shared_axes=[1, 2])
    yield of((7, 3, 5), L.PReLU, shared_axes=[1])
    yield of((7, 5), L.Dense, 3, activation=L.LeakyReLU(negative_slope=0.07))


def dense() -> Iterator[Trial]:
    shape: tuple[int, ...]
    for shape in ((5,), (7, 5), (7, 3, 5)):
        for bias in BOTH:
            yield of(shape, L.Dense, 6, use_bias=bias)
    equations: tuple[tuple[str, Any, str | None, tuple[int, ...]], ...] = (
        ("ab,bc->ac", (6,), "c", (5,)),
        ("abc,cd->abd", (None, 6), "d", (7, 5)),
        ("abc,cde->abde", (None, 3, 4), "de", (7, 5)),
        ("abc,cde->abed", (None, 4, 3), "de", (7, 5)),
        ("abcd,cde->abe", (None, 6), "e", (7, 3, 5)),
        ("...x,xy->...y", (6,), "y", (7, 5)),
        ("abc,cd->adb", (6, 7), None, (7, 5)),
        ("abc,bcd->abd", (7, 6), "d", (7, 5)),
        ("abc,bcd->abd", (7, 6), "bd", (7, 5)),
    )
    for equation, made, axes, given in equations:
        yield of(given, L.EinsumDense, equation, made, bias_axes=axes)
    widths: tuple[tuple[int, ...], ...] = ((3,), (3, 4))
    for width in widths:
        name, make = named(L.Embedding, 11, 5)
        yield Trial(f"{name}{list(width)}", make, (width,), low=11)


def rearrangements() -> Iterator[Trial]:
    for shape in ((5,), (7, 5), (7, 3, 5), (2, 3, 5, 4)):
        yield of(shape, L.Flatten)
    yield of((24,), L.Reshape, (2, 3, 4))
    yield of((6, 4), L.Reshape, (2, -1))
    yield of((2, 3, 4), L.Reshape, (24,))
    yield of((2, 3, 4), L.Reshape, (4, 6))
    yield of((2, 3, 4), L.Reshape, (-1, 4))
    yield of((7, 5), L.Permute, (2, 1))
    for dims in ((1, 3, 2), (2, 1, 3), (3, 1, 2), (2, 3, 1)):
        yield of((7, 5, 3), L.Permute, dims)
    yield of((5,), L.RepeatVector, 4)
    for name, layer in (
        ("Dropout", L.Dropout(0.5)),
        ("SpatialDropout1D", L.SpatialDropout1D(0.5)),
        ("GaussianNoise", L.GaussianNoise(0.5)),
        ("GaussianDropout", L.GaussianDropout(0.5)),
        ("AlphaDropout", L.AlphaDropout(0.5)),
        ("Identity", L.Identity()),
        ("ActivityRegularization", L.ActivityRegularization(0.1)),
    ):
        yield Trial(name, layer, ((7, 5),))
    yield of((7, 5, 3), L.SpatialDropout2D, 0.5)
    yield Trial(
        "Conv1D,Permute,Dense",
        lambda x: L.Dense(3)(L.Permute((2, 1))(L.Conv1D(4, 2)(x))),
        ((7, 5),),
    )


def merges() -> Iterator[Trial]:
    same = ((7, 5), (7, 5), (7, 5))
    for layer in (L.Add, L.Multiply, L.Average, L.Maximum, L.Minimum):
        yield Trial(layer.__name__, lambda *x, layer=layer: layer()(list(x)), same)
        yield Trial(
            f"{layer.__name__}-images",
            lambda *x, layer=layer: layer()([L.Conv2D(5, 1)(x[0]), x[1]]),
            ((7, 3, 5), (7, 3, 5)),
        )
        yield Trial(
            f"{layer.__name__}-broadcast",
            lambda *x, layer=layer: layer()([L.Conv2D(5, 1)(x[0]), x[1], x[2]]),
            ((7, 3, 5), (1, 1, 5), (5,)),
        )
    yield Trial("Subtract", lambda a, b: L.Subtract()([a, b]), same[:2])
    for axis in (1, 2, -1):
        yield Trial(f"Concatenate{axis}", lambda *x, axis=axis: L.Concatenate(axis)(list(x)), same)
    for axis in (1, 2, 3, -1):
        yield Trial(
            f"Concatenate{axis}-images",
            lambda a, b, axis=axis: L.Concatenate(axis)([L.Conv2D(5, 1)(a), b]),
            ((7, 3, 5), (7, 3, 5)),
        )
    for normalize in BOTH:
        for axes in (1, -1, (1, 2), (2, 1)):
            shapes = ((5, 5), (5, 5))
            yield Trial(
                f"Dot{axes}{normalize}",
                lambda a, b, o=(axes, normalize): L.Dot(o[0], normalize=o[1])([a, b]),
                shapes,
            )
        yield Trial(
            f"Dot1{normalize}-vectors",
            lambda a, b, n=normalize: L.Dot(1, normalize=n)([a, b]),
            ((5,), (5,)),
        )
    yield Trial("Dot-mixed", lambda a, b: L.Dot((1, 2))([a, b]), ((5,), (7, 5)))


def recurrent() -> Iterator[Trial]:
    shape = (7, 5)
    for name in ("SimpleRNN", "GRU", "LSTM"):
        layer = getattr(L, name)
        for sequences, backwards, bias in product(BOTH, BOTH, BOTH):
            yield of(
                shape,
                layer,
                6,
                return_sequences=sequences,
                go_backwards=backwards,
                use_bias=bias,
            )
        for sequences in BOTH:
            yield of(shape, layer, 6, return_state=True, return_sequences=sequences)
            yield of(shape, layer, 6, activation="relu", return_sequences=sequences)
            if name != "SimpleRNN":
                yield of(
                    shape,
                    layer,
                    6,
                    recurrent_activation="hard_sigmoid",
                    return_sequences=sequences,
                    return_state=True,
                )
        for mode, sequences in product(("concat", "sum", "mul", "ave", None), BOTH):
            yield Trial(
                f"Bidirectional-{name}-{mode}-{sequences}",
                lambda x, o=(layer, mode, sequences): L.Bidirectional(
                    o[0](6, return_sequences=o[2]), merge_mode=o[1]
                )(x),
                (shape,),
            )
        yield Trial(
            f"Bidirectional-{name}-states",
            lambda x, layer=layer: L.Bidirectional(layer(6, return_state=True))(x),
            (shape,),
        )
        other = {"LSTM": L.GRU, "GRU": L.SimpleRNN, "SimpleRNN": L.LSTM}[name]
        unlike = {
            "units": (layer, {"units": 4}),
            "activation": (layer, {"units": 6, "activation": "relu"}),
            "class": (other, {"units": 6}),
        }
        for (what, way), sequences in product(unlike.items(), BOTH):
            yield Trial(
                f"Bidirectional-{name}-unlike-{what}-{sequences}",
                lambda x, o=(layer, way, sequences): L.Bidirectional(
                    o[0](6, return_sequences=o[2], return_state=o[0] is o[1][0]),
                    backward_layer=o[1][0](
                        **o[1][1],
                        go_backwards=True,
                        return_sequences=o[2],
                        return_state=o[0] is o[1][0],
                    ),
                )(L.Masking()(L.ReLU(threshold=0.9)(x))),
                ((7, 1),),
            )
        count = 2 if name == "LSTM" else 1
        yield Trial(
            f"{name}-initial_state",
            lambda x, *s, layer=layer: layer(6, return_sequences=True)(x, initial_state=list(s)),
            (shape, *((6,),) * count),
        )
        cell = getattr(L, f"{name}Cell")
        yield of(shape, L.RNN, cell(6), return_sequences=True)
        for sequences, backwards in product(BOTH, BOTH):
            yield Trial(
                f"Masking-{name}-{sequences}-{backwards}",
                lambda x, o=(layer, sequences, backwards): o[0](
                    6, return_sequences=o[1], go_backwards=o[2]
                )(L.Masking()(L.ReLU(threshold=0.9)(x))),
                ((7, 1),),
            )
            yield Trial(
                f"Masking-Bidirectional-{name}-{sequences}-{backwards}",
                lambda x, o=(layer, sequences): L.Bidirectional(o[0](6, return_sequences=o[1]))(
                    L.Masking()(L.ReLU(threshold=0.9)(x))
                ),
                ((7, 1),),
            )
    for after in BOTH:
        yield of(shape, L.GRU, 6, reset_after=after, return_sequences=True)
        yield Trial(
            f"Bidirectional-GRU-reset_after={after}",
            lambda x, after=after: L.Bidirectional(L.GRU(6, reset_after=after))(x),
            (shape,),
        )
    yield Trial(
        "mask_zero",
        lambda x: L.LSTM(6)(L.Dense(4)(L.Dropout(0.5)(L.Embedding(5, 3, mask_zero=True)(x)))),
        ((7,),),
        low=3,
    )
    yield Trial(
        "mask-then-pool",
        lambda x: L.GlobalAveragePooling1D()(L.Embedding(5, 3, mask_zero=True)(x)),
        ((7,),),
        low=3,
    )
    yield Trial(
        "mask-then-merge",
        lambda a, b: L.LSTM(6)(
            L.Add()([L.Embedding(5, 3, mask_zero=True)(a), L.Embedding(5, 3, mask_zero=True)(b)])
        ),
        ((7,), (7,)),
        low=3,
    )
    yield Trial(
        "Conv1D-LSTM-Conv1D",
        lambda x: L.Conv1D(3, 2)(L.LSTM(4, return_sequences=True)(L.Conv1D(6, 2)(x))),
        (shape,),
    )


def distributed() -> Iterator[Trial]:
    for layer, shape in (
        (L.Dense(4), (7, 5)),
        (L.Dense(4), (3, 7, 5)),
        (L.Conv2D(4, 2), (3, 7, 5, 2)),
        (L.Conv1D(4, 2), (3, 7, 5)),
        (L.MaxPooling2D(), (3, 7, 5, 2)),
        (L.Flatten(), (3, 7, 5, 2)),
        (L.LSTM(4), (3, 7, 5)),
        (L.GlobalAveragePooling2D(), (3, 7, 5, 2)),
        (L.BatchNormalization(), (3, 7, 5, 2)),
        (L.Activation("softmax"), (3, 7, 5)),
    ):
        yield Trial(
            f"TimeDistributed-{type(layer).__name__}{shape}", L.TimeDistributed(layer), (shape,)
        )
    yield Trial(
        "TimeDistributed-frames",
        lambda x: L.LSTM(4)(
            L.TimeDistributed(L.Dense(3))(
                L.TimeDistributed(L.Flatten())(L.TimeDistributed(L.Conv2D(4, 2))(x))
            )
        ),
        ((3, 7, 5, 2),),
    )


def attention() -> Iterator[Trial]:
    shapes = ((4, 6), (7, 6))
    for heads, key, value, out, bias in (
        (2, 3, None, None, True),
        (2, 3, None, None, False),
        (3, 5, None, None, True),
        (2, 3, 4, 7, True),
    ):
        for causal in BOTH:
            yield Trial(
                f"MHA-{heads},{key},{value},{out},{bias},{causal}",
                lambda a, b, o=(heads, key, value, out, bias, causal): L.MultiHeadAttention(
                    o[0], o[1], value_dim=o[2], output_shape=o[3], use_bias=o[4]
                )(a, b, use_causal_mask=o[5]),
                shapes,
            )
        yield Trial(
            f"MHA-scores-{heads},{key},{value},{out},{bias}",
            lambda a, b, o=(heads, key, value, out, bias): L.MultiHeadAttention(
                o[0], o[1], value_dim=o[2], output_shape=o[3], use_bias=o[4]
            )(a, b, return_attention_scores=True),
            shapes,
        )
        yield Trial(
            f"MHA-masked-{heads},{key},{value},{out},{bias}",
            lambda a, o=(heads, key, value, out, bias): _masked_attention(a, *o),
            ((7,),),
            low=3,
        )
    yield Trial("MHA-key", lambda a, b, c: L.MultiHeadAttention(2, 3)(a, b, c), (*shapes, (7, 6)))
    yield Trial("Attention", lambda a, b: L.Attention()([a, b]), shapes)
    yield Trial("Attention-key", lambda a, b, c: L.Attention()([a, b, c]), (*shapes, (7, 6)))
    yield Trial(
        "Attention-causal", lambda a, b: L.Attention()([a, b], use_causal_mask=True), shapes
    )
    yield Trial(
        "Attention-scores",
        lambda a, b: L.Attention()([a, b], return_attention_scores=True),
        shapes,
    )
    yield Trial(
        "Attention-masked",
        lambda a: L.Attention()([L.Embedding(5, 4, mask_zero=True)(a)] * 2),
        ((7,),),
        low=3,
    )

    yield Trial(
        "MHA-output-axes",
        lambda a, b: L.Dense(5)(L.MultiHeadAttention(2, 3, output_shape=(3, 4))(a, b)),
        shapes,
    )
    blind: list[tuple[str, Any]] = [
        *((f"MHA-{heads}", L.MultiHeadAttention(heads, 3, dropout=0.3)) for heads in (2, 5)),
        ("MHA-no-bias", L.MultiHeadAttention(2, 3, dropout=0.3, use_bias=False)),
        ("GQA", L.GroupQueryAttention(3, 4, 2, dropout=0.3)),
    ]
    for (name, layer), scores in product(blind, BOTH):
        yield Trial(
            f"{name}-sees-nothing-{scores}",
            lambda a, layer=layer, scores=scores: layer(
                a, a, attention_mask=a[..., :4] > 0.8, return_attention_scores=scores
            ),
            ((4, 6),),
        )


def told() -> Iterator[Trial]:
    """Arguments beside the inputs, by name and by position."""
    shape = (7, 5)
    for name, layer in {
        "Softmax": L.Softmax(),
        "Softmax-1": L.Softmax(axis=1),
        "Softmax-axes": L.Softmax(axis=[1, 2]),
    }.items():
        yield Trial(f"{name}-mask", lambda x, o=layer: o(x, mask=x > 0), (shape,))
        yield Trial(f"{name}-second", lambda x, o=layer: o(x, x[:, :, :1] > 0), (shape,))
    yield of((7, 5, 3), L.Softmax, axis=[1, 3])
    for name, layer in {
        "GlobalAveragePooling1D": L.GlobalAveragePooling1D(),
        "LSTM": L.LSTM(3),
        "Bidirectional": L.Bidirectional(L.GRU(3)),
    }.items():
        yield Trial(f"{name}-mask", lambda x, o=layer: o(x, mask=x[..., 0] < 0.5), (shape,))
    yield Trial(
        "GlobalAveragePooling1D-second",
        lambda x: L.GlobalAveragePooling1D()(x, keras.ops.cast(x[..., 0] < 0.5, "float32")),
        (shape,),
    )
    yield Trial(
        "CategoryEncoding-weights",
        lambda x, w: L.CategoryEncoding(5, output_mode="count")(x, count_weights=w / 3),
        ((4,), (4,)),
        low=5,
    )
    yield Trial(
        "BatchNormalization-training", lambda x: _training(L.BatchNormalization(), x), ((5,),)
    )
    yield Trial("Dropout-training", lambda x: _training(L.Dropout(0.5), x), ((5,),))


def _training(layer: Any, x: Any) -> Any:
    """Whoever runs the model says whether it trains, and has the last word."""
    return layer(x, training=True)


def forgotten() -> Iterator[Trial]:
    """Layers behind which no step is skipped, and those behind which some are."""
    for layer in (
        *(L.EinsumDense("abc,cd->abd", (None, 4)), L.UpSampling1D(2), L.RMSNormalization()),
        *(L.Conv1D(4, 2), L.SpectralNormalization(L.Dense(4)), L.SpatialDropout1D(0.5)),
        *(L.UnitNormalization(), L.GroupNormalization(2), L.Reshape((7, 4)), L.MaxPooling1D(2)),
    ):
        yield Trial(
            f"mask-{layer.name}",
            lambda x, layer=layer: _behind_a_mask(layer, x),
            ((7,),),
            low=3,
        )


def _behind_a_mask(layer: Any, x: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Keras says where it forgets one
        return L.LSTM(3)(layer(L.Embedding(5, 4, mask_zero=True)(x)))


def uncommon() -> Iterator[Trial]:
    options: Options
    for rank in (1, 2, 3):
        layer = getattr(L, f"ConvLSTM{rank}D")
        shape = (3, *(7, 5, 3)[:rank], 2)
        for padding, sequences, strides in product(("valid", "same"), BOTH, (1, 2)):
            yield of(
                shape, layer, 4, 2, padding=padding, return_sequences=sequences, strides=strides
            )
    shape = (3, 7, 5, 2)
    yield of(shape, L.ConvLSTM2D, 4, 3, return_state=True, go_backwards=True)
    yield of(
        shape,
        L.ConvLSTM2D,
        4,
        3,
        recurrent_activation="hard_sigmoid",
        activation="relu",
        use_bias=False,
    )
    yield Trial("ConvLSTM2D-Conv2D", lambda x: L.Conv2D(3, 2)(L.ConvLSTM2D(4, 2)(x)), (shape,))
    yield Trial(
        "ConvLSTM2D-frames",
        lambda x: L.TimeDistributed(L.Conv2D(3, 2))(L.ConvLSTM2D(4, 2, return_sequences=True)(x)),
        (shape,),
    )
    ways: list[Options] = [
        {},
        {"return_sequences": True},
        {"return_state": True},
        {"go_backwards": True},
    ]
    for options in ways:
        yield Trial(
            f"StackedRNNCells{options}",
            lambda x, o=options: L.RNN(
                L.StackedRNNCells([L.LSTMCell(3), L.GRUCell(4), L.SimpleRNNCell(2)]), **o
            )(x),
            ((7, 5),),
        )
    yield of((7, 5), L.SpectralNormalization, L.Conv1D(3, 2))
    yield of((7, 5, 3), L.SpectralNormalization, L.Conv2D(3, 2, activation="relu"))
    yield of((5,), L.SpectralNormalization, L.Dense(3))
    for shape in ((5,), (7, 5), (7, 3, 5)):
        yield of(shape, L.RMSNormalization)
        yield of(shape, L.Normalization)
    yield of((7, 3, 5), L.Normalization, axis=(1, 3))
    yield of((7, 5), L.Normalization, axis=None)
    yield of((7, 5), L.Normalization, mean=0.5, variance=2.0)
    yield of((7, 5), L.Normalization, mean=0.5, variance=2.0, invert=True)
    pair = ((4, 6), (7, 6))
    for heads, groups, causal, gated in product((4, 2), (2, 1), BOTH, BOTH):
        yield Trial(
            f"GQA-{heads},{groups},{causal},{gated}",
            lambda a, b, o=(heads, groups, causal, gated): L.GroupQueryAttention(
                3, o[0], o[1], use_gate=o[3]
            )(a, b, use_causal_mask=o[2]),
            pair,
        )
    for options in (
        {"use_gate": True},
        {"sliding_window": 2},
        {"sliding_window": 2, "use_gate": True},
    ):
        yield Trial(
            f"MHA-{options}", lambda a, o=options: L.MultiHeadAttention(2, 3, **o)(a, a), ((7, 6),)
        )
    for options in ({}, {"use_scale": False}):
        yield Trial(
            f"AdditiveAttention{options}",
            lambda a, b, o=options: L.AdditiveAttention(**o)([a, b]),
            pair,
        )
    for options in (
        {"use_scale": True},
        {"score_mode": "concat"},
        {"score_mode": "concat", "use_scale": True},
    ):
        yield Trial(f"Attention{options}", lambda a, b, o=options: L.Attention(**o)([a, b]), pair)
    for tied in BOTH:
        yield Trial(
            f"ReversibleEmbedding-{tied}",
            lambda x, tied=tied: (e := L.ReversibleEmbedding(5, 3, tie_weights=tied))(
                L.LayerNormalization()(e(x)), reverse=True
            ),
            ((7,),),
            low=5,
        )


def _masked_attention(a: Any, heads: int, key: int, value: Any, out: Any, bias: bool) -> Any:
    x = L.Embedding(5, 6, mask_zero=True)(a)
    return L.MultiHeadAttention(heads, key, value_dim=value, output_shape=out, use_bias=bias)(x, x)


def flattened() -> Iterator[Trial]:
    """What a Flatten leads to, in every way that can be followed or not."""
    image = (7, 5, 3)

    def conv(x: Any) -> Any:
        return L.Conv2D(4, 2)(x)

    models: dict[str, Callable[..., Any]] = {
        "dense": lambda x: L.Dense(3)(L.Flatten()(conv(x))),
        "output": lambda x: L.Flatten()(conv(x)),
        "softmax": lambda x: L.Softmax()(L.Flatten()(conv(x))),
        "both": lambda x: (y := L.Flatten()(conv(x)), L.Dense(3)(y)),
        "norm": lambda x: L.Dense(3)(L.BatchNormalization()(L.Flatten()(conv(x)))),
        "layernorm": lambda x: L.Dense(3)(L.LayerNormalization()(L.Flatten()(conv(x)))),
        "dropout": lambda x: L.Dense(3)(L.Dropout(0.5)(L.ReLU()(L.Flatten()(conv(x))))),
        "concat": lambda x: L.Dense(3)(
            L.Concatenate()(
                [L.Flatten()(conv(x)), L.Flatten()(conv(x)), L.Dense(2)(L.Flatten()(x))]
            )
        ),
        "concat-output": lambda x: L.Concatenate()([L.Flatten()(conv(x)), L.Flatten()(x)]),
        "add": lambda x: L.Dense(3)(L.Add()([L.Flatten()(conv(x)), L.Flatten()(conv(x))])),
        "add-unlike": lambda x: L.Dense(3)(L.Add()([L.Flatten()(x), L.Dense(105)(L.Flatten()(x))])),
        "gate": lambda x: L.Dense(2)(
            L.Multiply()([y := L.Flatten()(x), L.Dense(105, activation="sigmoid")(y)])
        ),
        "reshape": lambda x: L.Dense(3)(L.Reshape((-1,))(conv(x))),
        "steps": lambda x: L.LSTM(3)(L.Reshape((6, 16))(conv(x))),
        "back": lambda x: L.Conv2D(2, 2)(L.Reshape((6, 4, 4))(L.Flatten()(conv(x)))),
        "repeat": lambda x: L.LSTM(3)(L.RepeatVector(3)(L.Flatten()(conv(x)))),
        "permute": lambda x: L.Dense(3)(L.Flatten()(L.Permute((3, 1, 2))(conv(x)))),
        "permute-2": lambda x: L.Dense(3)(L.Flatten()(L.Permute((2, 1, 3))(conv(x)))),
        "dense-image": lambda x: L.Dense(3)(L.Flatten()(L.Dense(4)(conv(x)))),
        "prelu": lambda x: L.Dense(3)(L.PReLU()(L.Flatten()(conv(x)))),
        "generator": lambda x: L.Conv2DTranspose(2, 3, strides=2, padding="same")(
            L.Reshape((3, 2, 4))(L.Dense(24)(L.Flatten()(x)))
        ),
        "op": lambda x: L.Dense(3)(L.Flatten()(conv(x) * 2.0)),
        "op-vector": lambda x: L.Dense(3)(L.Flatten()(conv(x)) * 2.0),
        "slice": lambda x: L.Dense(3)(L.Flatten()(conv(x))[:, 3:]),
        "nested": lambda x: keras.Sequential([L.Dense(3), L.Dense(2)])(L.Flatten()(conv(x))),
        "unit": lambda x: L.UnitNormalization()(L.Flatten()(conv(x))),
        "dot": lambda x: L.Dot(1)([L.Flatten()(conv(x)), L.Flatten()(conv(x))]),
        "einsum": lambda x: L.EinsumDense("ab,bc->ac", (3,), bias_axes="c")(L.Flatten()(conv(x))),
        "softmax-dense": lambda x: L.Dense(3)(L.Softmax()(L.Flatten()(conv(x)))),
    }
    for name, make in models.items():
        yield Trial(f"Flatten-{name}", make, (image,))
    yield Trial("Flatten-sequence", lambda x: L.Dense(3)(L.Flatten()(L.Conv1D(4, 2)(x))), ((7, 5),))
    yield Trial(
        "Flatten-lstm",
        lambda x: L.Dense(3)(L.Flatten()(L.LSTM(4, return_sequences=True)(x))),
        ((7, 5),),
    )
    yield Trial("Flatten-3D", lambda x: L.Dense(3)(L.Flatten()(L.Conv3D(4, 2)(x))), ((7, 5, 3, 2),))
    yield Trial(
        "Flatten-frames",
        lambda x: L.Dense(3)(
            L.Flatten()(L.TimeDistributed(L.Flatten())(L.TimeDistributed(L.Conv2D(4, 2))(x)))
        ),
        ((3, 7, 5, 2),),
    )
    yield Trial("Flatten-input", lambda x: L.Dense(3)(L.Flatten()(x)), (image,))
    yield Trial(
        "Conv1D-MaxPool-Flatten",
        lambda x: L.Dense(3)(L.Flatten()(L.MaxPooling1D()(L.Conv1D(4, 2)(x)))),
        ((9, 5),),
    )


def models() -> Iterator[Trial]:
    def block(width: int) -> Any:
        i = keras.Input((7, 5, width))
        x = L.Conv2D(width, 3, padding="same")(i)
        return keras.Model(i, L.Add()([x, i]))

    def shared(x: Any) -> Any:
        twice = block(3)
        return twice(twice(x))

    def two_towers(a: Any, b: Any) -> Any:
        tower = keras.Sequential([L.Conv2D(4, 2), L.Flatten(), L.Dense(3)])
        return L.Concatenate()([tower(a), tower(b)])

    def inner_outputs(x: Any) -> Any:
        i = keras.Input((7, 5))
        inner = keras.Model(i, [L.Conv1D(3, 2)(i), L.LSTM(4)(i)])
        a, b = inner(x)
        return L.Dense(2)(L.Flatten()(a)), b

    def inner_inputs(x: Any) -> Any:
        i, j = keras.Input((7, 5)), keras.Input((6, 4))
        inner = keras.Model([i, j], L.Concatenate()([L.LSTM(3)(i), L.LSTM(2)(j)]))
        return inner([x, L.Conv1D(4, 2)(x)])

    def shared_across(x: Any) -> Any:
        dense = L.Dense(5)
        i, j = keras.Input((5,)), keras.Input((5,))
        one = keras.Model(i, dense(L.Dense(5)(i)))
        two = keras.Model(j, L.Dense(5)(dense(j)))
        return dense(two(one(x)))

    def deep(x: Any) -> Any:
        inner = keras.Sequential([L.Dense(4), keras.Sequential([L.Dense(3), L.Dense(5)])])
        return keras.Sequential([inner, L.Dense(2)])(x)

    def frames(x: Any) -> Any:
        i = keras.Input((7, 5, 2))
        body = keras.Model(i, L.Dense(3)(L.Flatten()(L.Conv2D(4, 2)(i))))
        return L.LSTM(3)(L.TimeDistributed(body)(x))

    def masked_inner(x: Any) -> Any:
        i = keras.Input((7, 3))
        inner = keras.Model(i, L.LSTM(4, return_sequences=True)(i))
        return L.LSTM(3)(inner(L.Embedding(5, 3, mask_zero=True)(x)))

    def masked_encoder(x: Any) -> Any:
        i = keras.Input((7,))
        inner = keras.Model(i, L.Embedding(5, 3, mask_zero=True)(i))
        return L.LSTM(3)(inner(x))

    def beside_its_steps(a: Any, b: Any) -> Any:
        inputs = keras.Input((7, 5, 2))
        model = keras.Model(inputs, L.Dense(4)(L.Flatten()(L.Conv2D(3, 2)(inputs))))
        return L.Concatenate()([model(a), L.Flatten()(L.TimeDistributed(model)(b))])

    yield Trial("model-beside-its-steps", beside_its_steps, ((7, 5, 2), (3, 7, 5, 2)))
    yield Trial("shared-model", shared, ((7, 5, 3),))
    yield Trial("two-towers", two_towers, ((7, 5, 3), (7, 5, 3)))
    yield Trial("inner-outputs", inner_outputs, ((7, 5),))
    yield Trial("inner-inputs", inner_inputs, ((7, 5),))
    yield Trial("shared-across-models", shared_across, ((5,),))
    yield Trial("deep", deep, ((5,),))
    yield Trial("frames", frames, ((3, 7, 5, 2),))
    yield Trial("masked-inner", masked_inner, ((7,),), low=3)
    yield Trial("masked-encoder", masked_encoder, ((7,),), low=3)
    yield Trial(
        "open-sizes",
        lambda x: L.GlobalAveragePooling2D()(L.Conv2D(4, 3, strides=2, padding="same")(x)),
        ((None, None, 3),),
        sizes=(9, 6),
    )


def encodings() -> Iterator[Trial]:
    yield of((5,), L.Discretization, [-0.5, 0.0, 1.0])
    for mode in ("one_hot", "multi_hot", "count"):
        width = 1 if mode == "one_hot" else 3
        yield of((width,), L.Discretization, [-0.5, 0.0, 1.0], output_mode=mode)
        name, make = named(L.CategoryEncoding, 5, output_mode=mode)
        yield Trial(name, make, ((1,) if mode == "one_hot" else (3,),), low=5)


GRID = [
    *convolutions(),
    *pooling(),
    *resampling(),
    *normalizations(),
    *activations(),
    *dense(),
    *rearrangements(),
    *merges(),
    *recurrent(),
    *distributed(),
    *attention(),
    *told(),
    *forgotten(),
    *uncommon(),
    *flattened(),
    *models(),
    *encodings(),
]


# Keras says so of models in models, and passes the mask on.
@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
@pytest.mark.parametrize("trial", GRID, ids=str)
def test_the_module_gives_what_keras_gives(trial: Trial, tmp_path: Path) -> None:
    assert compared(trial.model(), trial.inputs(), tmp_path) < TOLERANCE


# ------------------------------------------------------------------------------- what is refused


def test_a_tensor_that_no_rule_asks_for_is_refused() -> None:
    """Passed over, it would change what comes out in silence."""
    x = keras.Input((7, 5, 3))
    y = L.ConvLSTM1D(4, 2)(x, mask=x[:, :, 0, 0] > 0)
    with pytest.raises(UnsupportedError, match="this ConvLSTM1D is called with mask, which the"):
        module(kerasport.read(keras.Model(x, y)))


@pytest.mark.parametrize("name", ["BatchNormalization", "GaussianDropout", "LSTM"])
@pytest.mark.parametrize("inside", BOTH)
def test_a_layer_of_tf_keras_that_always_trains_is_refused(name: str, inside: bool) -> None:
    """There the call that was recorded counts, whoever runs the model."""
    old = tf_keras.layers
    made = {
        "BatchNormalization": old.BatchNormalization(),
        "GaussianDropout": old.GaussianDropout(0.5),
        "LSTM": old.LSTM(3, dropout=0.5),
    }[name]
    x = tf_keras.Input((7, 5))
    layer = tf_keras.Sequential([tf_keras.Input((7, 5)), made]) if inside else made
    model = tf_keras.Model(x, layer(x, training=True))
    with pytest.raises(UnsupportedError, match="is called with training=True, always"):
        module(kerasport.read(model))
    calm = tf_keras.Model(x, layer(x, training=False))
    module(kerasport.read(calm))


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
def test_what_keeps_a_mask_is_what_keras_says() -> None:
    x = L.Embedding(5, 4, mask_zero=True)(keras.Input((7,)))
    layers = [L.Dense(3), L.EinsumDense("abc,cd->abd", (None, 4)), L.UpSampling1D(), L.Rescaling(2)]
    layers += [
        L.Conv1D(3, 2),
        L.RMSNormalization(),
        L.LayerNormalization(),
        L.PReLU(),
        L.Permute((2, 1)),
    ]
    layers += [
        L.UnitNormalization(),
        L.GroupNormalization(2),
        L.Dropout(0.5),
        L.SpatialDropout1D(0.5),
    ]
    layers += [L.MaxPooling1D(), L.Flatten(), L.Normalization(mean=0.0, variance=1.0), L.Softmax()]
    for layer in layers:
        kept = getattr(layer(x), "_keras_mask", None) is not None
        assert kept == (type(layer).__name__ in MASKS), layer
