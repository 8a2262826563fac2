"""A layer's options, whichever Keras wrote them, in the words of today's.

Keras 1 said `nb_filter`, `border_mode` and `dim_ordering`, and called a convolution Convolution2D.
What a layer does has not changed since, so its shape and its module hints are found by one table
that knows today's words, and the old ones end here. An option may be a number for all dimensions or
one for each, a number for both sides or one for each; that ends here too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Options", "options"]

JSON = Any

_RANK = re.compile(r"([123])D(?=Transpose|$)")

# Class names that a later Keras gave up, and those of other implementations of one layer.
MODERN_CLASSES: Final[Mapping[str, str]] = {
    **{f"Convolution{n}D": f"Conv{n}D" for n in (1, 2, 3)},
    **{f"AtrousConvolution{n}D": f"Conv{n}D" for n in (1, 2)},
    **{f"Convolution{n}DTranspose": f"Conv{n}DTranspose" for n in (1, 2, 3)},
    "Deconvolution2D": "Conv2DTranspose",
    "Deconvolution3D": "Conv3DTranspose",
    **{f"SeparableConvolution{n}D": f"SeparableConv{n}D" for n in (1, 2)},
    "TimeDistributedDense": "Dense",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "CuDNNLSTM": "LSTM",
    "CuDNNGRU": "GRU",
    "GroupQueryAttention": "GroupedQueryAttention",
}

# Options of Keras 1 in today's words; `output_dim` is today's word in some classes.
MODERN_OPTIONS: Final[Mapping[str, str]] = {
    "nb_filter": "filters",
    "filter_length": "kernel_size",
    "subsample": "strides",
    "subsample_length": "strides",
    "border_mode": "padding",
    "dim_ordering": "data_format",
    "atrous_rate": "dilation_rate",
    "pool_length": "pool_size",
    "stride": "strides",
    "bias": "use_bias",
    "p": "rate",
    "inner_activation": "recurrent_activation",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
    "concat_axis": "axis",
    "dot_axes": "axes",
    "length": "size",
    "sigma": "stddev",
}
KERNELS: Final = (("nb_row", "nb_col"), ("kernel_dim1", "kernel_dim2", "kernel_dim3"))
OLD_OPTIONS: Final = frozenset(
    {*MODERN_OPTIONS, "output_dim", *(name for names in KERNELS for name in names)}
)
DATA_FORMATS: Final[Mapping[str, str]] = {"th": "channels_first", "tf": "channels_last"}


@dataclass(frozen=True, slots=True)
class Options:
    """A layer's class and options in the words of today's Keras.

    Attributes:
        class_name: the class.
        given: what the configuration says.
    """

    class_name: str
    given: Mapping[str, JSON]

    def __call__(self, name: str, default: JSON = None) -> JSON:
        """One option; its default where it is not given or null."""
        value = self.given.get(name)
        return default if value is None else value

    @property
    def rank(self) -> int:
        """How many spatial dimensions the class works on; 0 where its name does not say."""
        found = _RANK.search(self.class_name)
        return int(found.group(1)) if found else 0

    @property
    def channels_first(self) -> bool:
        """Whether the layer itself keeps channels in front of the image."""
        return bool(self("data_format") == "channels_first")

    def each(self, name: str, default: JSON = None) -> tuple[int, ...]:
        """An option that has a number for each spatial dimension, or one for all.

        >>> options("Conv2D", {"strides": 2}).each("strides")
        (2, 2)
        """
        value = self(name, default)
        values = tuple(value) if isinstance(value, list | tuple) else (value,) * self.rank
        if len(values) != self.rank or not all(isinstance(n, int) for n in values):
            raise ValueError(f"{name}: expected {self.rank} whole numbers")
        return values

    def sides(self, name: str, default: JSON = 0) -> tuple[tuple[int, int], ...]:
        """An option that has a number for each side of each spatial dimension.

        >>> options("ZeroPadding2D", {"padding": [1, [2, 3]]}).sides("padding")
        ((1, 1), (2, 3))
        """
        value = self(name, default)
        if isinstance(value, Mapping):  # Keras 1, in any order
            sides = [("left_pad", "right_pad"), ("top_pad", "bottom_pad")][: self.rank]
            value = [value.get(side, 0) for pair in reversed(sides) for side in pair]
        if isinstance(value, int):
            value = [value] * self.rank
        if len(value) == 2 * self.rank and all(isinstance(n, int) for n in value):
            value = [value[n : n + 2] for n in range(0, len(value), 2)]
        pairs = tuple((n, n) if isinstance(n, int) else (int(n[0]), int(n[1])) for n in value)
        if len(pairs) != self.rank:
            raise ValueError(f"{name}: expected {self.rank} pairs of whole numbers")
        return pairs

    def spatial(self, shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """The spatial part of a shape."""
        end = len(shape) if self.channels_first else -1
        return tuple(shape[:end][-self.rank :])


def options(class_name: str, config: Mapping[str, JSON]) -> Options:
    """A layer's class and options, whichever Keras wrote them, in the words of today's.

    >>> o = options("Convolution2D", {"nb_row": 3, "nb_col": 5, "dim_ordering": "th"})
    >>> o.class_name, o.each("kernel_size"), o.channels_first
    ('Conv2D', (3, 5), True)
    """
    modern = MODERN_CLASSES.get(class_name, class_name)
    if config.keys().isdisjoint(OLD_OPTIONS):
        return Options(modern, config)
    given = {MODERN_OPTIONS.get(name, name): value for name, value in config.items()}
    if modern not in ("UpSampling1D",) and "length" in config:
        given["length"] = given.pop("size")
    for names in KERNELS:
        if all(name in config for name in names):
            given["kernel_size"] = [config[name] for name in names]
    if "output_dim" in config and "units" not in config:
        given["units"] = config["output_dim"]
    if isinstance(form := given.get("data_format"), str):
        given["data_format"] = DATA_FORMATS.get(form, form)
    return Options(modern, given)
