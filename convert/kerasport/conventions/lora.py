"""Low-rank factors beside a weight: `weight + (alpha / rank) * (a @ b)` is what the layer uses.

Keras merges them when it saves, so files in its own formats of today have none; live models and
older formats do. They are passed on apart, since they are what was trained: each row here is a
kind's own row with two tensors more. `--merge-lora` asks for the sum instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kerasport.conventions import Absent, Row, Slot, rows
from kerasport.variants import FACTORED, LORA, QUANTIZED, WITHOUT

__all__ = ["names", "with_factors"]

SPATIAL = {1: "k", 2: "kh kw", 3: "kd kh kw"}
# Each plain kind's factors in Keras: the sentences of the first and the second.
FACTORS: Mapping[str, tuple[str, str]] = {
    "Dense": ("in rank", "rank out"),
    "EinsumDense": ("{factor_a}", "{factor_b}"),
    "EinsumDenseBatched": ("{factor_a}", "{factor_b}"),
    "Embedding": ("token rank", "rank embed"),
    "TiedEmbedding": ("token rank", "rank embed"),
    "ReversibleEmbedding": ("token rank", "rank embed"),
    **{f"Conv{n}D": (f"{k} in rank", "rank out") for n, k in SPATIAL.items()},
}
# Outputs first, as PyTorch has them: what a module of the same class would hold. The first factor
# of an embedding is one itself.
OUT_FIRST: Mapping[str, str] = {
    "in rank": "rank in",
    "rank out": "out rank",
    **{f"{k} in rank": f"rank in {k}" for k in SPATIAL.values()},
    "rank embed": "embed rank",
}


def names(kind: str) -> tuple[str, str]:
    """What Keras calls the factors of a kind.

    >>> names("DenseInt8Lora")
    ('lora_kernel_a', 'lora_kernel_b')
    """
    weight = "embeddings" if "Embedding" in kind else "kernel"
    return f"lora_{weight}_a", f"lora_{weight}_b"


def with_factors(table: Mapping[str, Row], *, to: str) -> dict[str, Row]:
    """The rows of the kinds that have factors, from those of the kinds that have none.

    Args:
        table: the rows of a convention.
        to: the convention.
    """
    made: dict[str, Row] = {}
    for base in FACTORED:
        roles, layouts = names(base), FACTORS[base]
        for word in ("", *(w for w in QUANTIZED.get(base, ()) if w not in WITHOUT)):
            row = table[f"{base}{word}"]
            if to == "keras":
                factors = [Slot(n, x, dtype="f32") for n, x in zip(roles, layouts, strict=True)]
            else:
                turned = layouts if to == "onnx" else [OUT_FIRST.get(x, x) for x in layouts]
                ends = ("lora_A.weight", "lora_B.weight") if to == "torch" else ("lora_a", "lora_b")
                factors = [Slot(*x) for x in zip(ends, turned, roles, strict=True)]
            made[f"{base}{word}{LORA}"] = _with(row, factors)
    return made


def _with(row: Row, factors: list[Slot]) -> Row:
    return tuple(
        case if isinstance(case.slots, Absent) else replace(case, slots=(*case.slots, *factors))
        for case in rows(row)
    )
