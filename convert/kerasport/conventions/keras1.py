"""What Keras 1 called its weights and how it laid them out, by backend and dimension ordering.

Keras 1 kept one array for each gate of a recurrent layer: each is pinned at its block, and the
grammar puts them together. It stored kernels as its backend took them. With `dim_ordering: "th"`
that is `out in kh kw`; and Theano computed true convolutions, which turn the kernel by 180 degrees
before they slide it, so that a kernel trained with Theano is the reverse of TensorFlow's whatever
its ordering. The transposed convolutions of Keras 1 have the axes of the convolution that they
undo, of which `in` and `out` are the transposed one's.

Sources: the `build` methods in `keras/layers` of Keras 1.2.2 and 1.0, `backend/theano_backend.py`
for what is turned, and `preprocess_weights_for_loading` of Keras 2, which undoes the same. What was
called `running_std` was the variance all along: the backends returned the variance of the batch
under that name and took its root when they normalized.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kerasport.conventions import POSITIONS, Absent, Case, Row, Slot

SPATIAL = {1: "k", 2: "kh kw", 3: "kd kh kw"}
BIAS = Slot("b", "out", "bias", when="use_bias")
# The gates in the order in which a layer that was made for the GPU joined them.
JOINED = {"LSTM": "[i f c o]", "GRUResetBefore": "[z r h]"}
# And the order in which their arrays were stored one by one.
APART = {"LSTM": "i c f o", "GRUResetBefore": "z r h"}
# What a layer puts out at one step it takes in at the next.
STEP = ("hidden = unit",)


def _turned(spatial: str) -> str:
    return " ".join(f"-{word}" for word in spatial.split())


def _backends(spatial: str, *sentences: str, ordering: str = "") -> Iterator[Case]:
    """A kernel as TensorFlow took it, and the same for Theano, which turned it."""
    for sentence in sentences:
        for backend, words in (("tensorflow", spatial), ("theano", _turned(spatial))):
            slots = (Slot("W", sentence.format(words), "kernel"), BIAS)
            options = {"backend": backend, **({"dim_ordering": ordering} if ordering else {})}
            yield Case(slots, options=options)


def _convolution(rank: int) -> tuple[Case, ...]:
    spatial = SPATIAL[rank]
    if rank == 1:  # over an image that is one pixel wide; before 1.1 in Theano's ordering
        return tuple(_backends(spatial, "{} 1 in out", "out in {} 1"))
    return (
        *_backends(spatial, "{} in out", ordering="tf"),
        *_backends(spatial, "out in {}", ordering="th"),
    )


def _separable() -> tuple[Case, ...]:
    """TensorFlow's alone: Theano had none."""
    return (
        Case(
            (
                Slot("depthwise_kernel", "kh kw in mult"),
                Slot("pointwise_kernel", "1 1 (in mult) out"),
                BIAS,
            ),
            options={"dim_ordering": "tf"},
        ),
        Case(
            (
                Slot("depthwise_kernel", "mult in kh kw"),
                Slot("pointwise_kernel", "out (in mult) 1 1"),
                BIAS,
            ),
            options={"dim_ordering": "th"},
        ),
    )


def _recurrent(unit: str = "unit", suffix: str = "", gate: str = "") -> tuple[Slot, ...]:
    """The three weights of a layer that has one gate, or of one gate of several."""
    return (
        Slot(f"W{suffix}", f"in {unit}", "kernel", gate),
        Slot(f"U{suffix}", f"hidden {unit}", "recurrent_kernel", gate),
        Slot(f"b{suffix}", unit, "bias", f"input {gate}".strip()),
    )


def _gates(kind: str) -> tuple[tuple[Slot, ...], ...]:
    """One array a gate; or, for `consume_less: "gpu"`, one array of all gates."""
    gates = APART[kind].split()
    apart = tuple(slot for g in gates for slot in _recurrent(suffix=f"_{g}", gate=g))
    return apart, _recurrent(f"({JOINED[kind]} unit)")


def _convolutional() -> tuple[Case, ...]:
    """A step of an LSTM whose products are convolutions, one kernel a gate."""
    return tuple(
        Case(
            tuple(
                slot
                for gate in APART["LSTM"].split()
                for slot in (
                    Slot(f"W_{gate}", sentence.format(words, "in"), "kernel", gate),
                    Slot(f"U_{gate}", sentence.format(words, "hidden"), "recurrent_kernel", gate),
                    Slot(f"b_{gate}", "unit", "bias", gate),
                )
            ),
            where=STEP,
            options={"dim_ordering": ordering, "backend": backend},
        )
        for ordering, sentence in (("tf", "{0} {1} unit"), ("th", "unit {1} {0}"))
        for backend, words in (("tensorflow", "kh kw"), ("theano", "-kh -kw"))
    )


def _bidirectional(slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
    return tuple(
        slot._replace(
            name=f"{direction}/{slot.name}",
            weight=slot.of,
            at=f"{slot.at} {direction}".strip(),
        )
        for direction in ("forward", "backward")
        for slot in slots
    )


OWN_STATISTICS = (
    "mode {} of Keras 1 normalizes by the statistics of its input at all times and never by those "
    "that it stores, so it is no BatchNormalization; --to keras passes its tensors on as stored"
)
RECURRENT = {"SimpleRNN": (_recurrent(),), **{kind: _gates(kind) for kind in JOINED}}

TABLE: Mapping[str, Row] = {
    "Dense": (Slot("W", "in out", "kernel"), BIAS),
    **{f"Conv{n}D": _convolution(n) for n in SPATIAL},
    "Conv2DTranspose": _convolution(2),
    "SeparableConv2D": _separable(),
    "LocallyConnected1D": (
        Slot("W", "position {window} out", "kernel"),
        Slot("b", "position out", "bias", when="use_bias"),
    ),
    "LocallyConnected2D": tuple(
        Case(
            (
                Slot("W", "position {window} out", "kernel"),
                Slot("b", bias, "bias", when="use_bias"),
            ),
            options={"dim_ordering": ordering},
        )
        for ordering, bias in (("tf", "row column out"), ("th", "out row column"))
    ),
    "ConvLSTM2D": _convolutional(),
    "BatchNormalization": (
        Case(
            (
                Slot("gamma", "channel"),
                Slot("beta", "channel"),
                Slot("running_mean", "channel", "moving_mean", trainable=False),
                Slot("running_std", "channel", "moving_variance", trainable=False),
            ),
            options={"mode": "0"},
        ),
        *(Case(Absent(OWN_STATISTICS.format(mode)), options={"mode": mode}) for mode in ("1", "2")),
    ),
    "Embedding": (Slot("W", "token embed", "embeddings"),),
    **{f"PReLU{n}D": (Slot("alphas", axes, "alpha"),) for n, axes in POSITIONS.items()},
    **{kind: tuple(Case(slots, where=STEP) for slots in ways) for kind, ways in RECURRENT.items()},
    **{
        f"Bidirectional{kind}": tuple(Case(_bidirectional(slots), where=STEP) for slots in ways)
        for kind, ways in RECURRENT.items()
    },
}
