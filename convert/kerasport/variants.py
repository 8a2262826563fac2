"""Variants of a kind: the same layer quantized, or with low-rank factors beside its weights.

Keras says in a layer's dtype policy how its weights are quantized, and in `lora_rank` that factors
were added. Either changes which variables there are and leaves the layer what it was. So a variant
is named after its kind with a word behind it (`DenseInt8`, `Conv2DLora`), its rows are made from
those of the kind, and whoever needs the kind gets it back with `plain`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

__all__ = [
    "FACTORED",
    "LORA",
    "MIXED",
    "MODES",
    "QUANTIZED",
    "UNKNOWN",
    "WITHOUT",
    "Policy",
    "formulas",
    "plain",
    "policies",
    "scheme",
    "variants",
]

Config = Mapping[str, Any]

LORA = "Lora"
# How weights are quantized, as the word behind the kind. `Int4Grouped` has a scale for each group
# of inputs where `Int4` has one for all; `GPTQ4` has two numbers in a byte where `GPTQ` has one.
MODES = ("Int8", "Int4", "Int4Grouped", "Float8", "GPTQ", "GPTQ4", "AWQ")
# Which of them each kind of layer has.
QUANTIZED: Mapping[str, tuple[str, ...]] = {
    "Dense": MODES,
    "EinsumDense": MODES,
    "EinsumDenseBatched": MODES,
    "Embedding": ("Int8", "Int4", "Int4Grouped"),
    **dict.fromkeys(("TiedEmbedding", "ReversibleEmbedding"), ("Int8", "Int4", "Int4Grouped")),
}
# What has factors, quantized or not, and the schemes that have none.
FACTORED = (*QUANTIZED, "Conv1D", "Conv2D", "Conv3D")
WITHOUT = ("Float8", "GPTQ", "GPTQ4", "AWQ")
_WORD = re.compile(rf"({'|'.join(sorted(MODES, key=len, reverse=True))})?({LORA})?$")


# The policies of layers that compute in another dtype than they keep their variables in.
MIXED: Mapping[str, str] = {"mixed_float16": "f16", "mixed_bfloat16": "bf16"}
# The policy of a layer of which nothing says how it is quantized: that of any.
UNKNOWN: Config = {
    "class_name": "DTypePolicyMap",
    "config": {
        "policy_map": {
            mode: {"config": {"mode": mode}}
            for mode in ("int8", "int4", "int4/1", "float8", "gptq/8/1", "gptq/4/1", "awq/4/1")
        }
    },
}


class Policy(NamedTuple):
    """A layer's dtype policy.

    Attributes:
        mode: how its weights are quantized, in Keras's word; empty where they are not.
        group: inputs that share a scale; None where all do, or where nothing says so.
        bits: of a quantized weight, where the mode leaves a choice.
        source: the policy of the values around: `float32`, `mixed_bfloat16`.
    """

    mode: str = ""
    group: int | None = None
    bits: int | None = None
    source: str = "float32"

    @property
    def word(self) -> str:
        """The word behind the kind; empty where nothing is quantized."""
        match self.mode:
            case "int8":
                return "Int8"
            case "int4":
                return "Int4" if self.group is None else "Int4Grouped"
            case "float8":
                return "Float8"
            case "gptq":
                return "GPTQ4" if self.bits == 4 else "GPTQ"
            case "awq":
                return "AWQ"
        return ""


def policies(config: Config) -> tuple[Policy, ...]:
    """The policies that a layer of this configuration may have; one, unless it has a map of them.

    >>> policies({"dtype": "int8_from_float32"})[0].word
    'Int8'
    >>> policies({"dtype": {"class_name": "GPTQDTypePolicy", "config": {"mode": "gptq/4/128"}}})
    (Policy(mode='gptq', group=128, bits=4, source='float32'),)
    """
    found = tuple(_policies(config.get("dtype")))
    quantizer = config.get("quantization_config")
    own = quantizer.get("config") if isinstance(quantizer, Mapping) else None
    if isinstance(own, Mapping) and "block_size" in own:  # goes before the policy's, as in Keras
        group = _group(own["block_size"])
        found = tuple(
            Policy(policy.mode, group, policy.bits, policy.source)
            if policy.mode == "int4"
            else policy
            for policy in found
        )
    return found


def _policies(dtype: Any) -> Iterator[Policy]:
    if not isinstance(dtype, Mapping):
        mode, _, source = str(dtype or "float32").rpartition("_from_")
        yield _policy(mode, source)
        return
    own = dtype.get("config")
    own = own if isinstance(own, Mapping) else {}
    inner = own.get("policy_map")
    if dtype.get("class_name") == "DTypePolicyMap" and isinstance(inner, Mapping):
        for policy in (own.get("default_policy"), *inner.values()):
            if not isinstance(policy, Mapping) or policy.get("class_name") != "DTypePolicyMap":
                yield from _policies(policy)
    elif "mode" in own:
        yield _policy(str(own["mode"]), str(own.get("source_name") or "float32"))
    else:
        yield from _policies(own.get("name"))


def _policy(mode: str, source: str) -> Policy:
    """A policy by its name: `int8`, `int4/<group>`, `gptq/<bits>/<group>`, `awq/<bits>/<group>`."""
    name, *numbers = mode.split("/")
    values = [int(n) if re.fullmatch(r"-?\d{1,9}", n) else None for n in numbers]
    group = _group(values[-1]) if values else None
    bits = values[0] if len(values) == 2 else None
    return Policy(name, group, bits, source)


def _group(size: Any) -> int | None:
    return size if isinstance(size, int) and size > 0 else None


def variants(kind: str, config: Config) -> tuple[str, ...]:
    """The kinds that a layer of a plain kind may be, told apart by what is stored.

    Keras merges low-rank factors when it saves, so a layer that has some may be stored without.

    >>> variants("Dense", {"dtype": "float8_from_float32"})
    ('DenseFloat8',)
    >>> variants("Conv2D", {"lora_rank": 4})
    ('Conv2DLora', 'Conv2D')
    """
    words = dict.fromkeys(policy.word for policy in policies(config))
    made: dict[str, None] = {}
    for word in words:
        found = f"{kind}{word}" if word in QUANTIZED.get(kind, ()) else kind
        if config.get("lora_rank") and kind in FACTORED and word not in WITHOUT:
            made[f"{found}{LORA}"] = None
        made[found] = None
    return tuple(made)


def plain(kind: str) -> str:
    """The kind of which this one is a variant, or itself.

    >>> plain("EinsumDenseInt4GroupedLora"), plain("GRU"), plain("Conv2DLora")
    ('EinsumDense', 'GRU', 'Conv2D')
    """
    base = _WORD.sub("", kind)
    return base if base in FACTORED else kind


def scheme(kind: str) -> str:
    """How a kind's weights are quantized; empty where they are not.

    >>> scheme("DenseInt8Lora"), scheme("Dense")
    ('Int8', '')
    """
    if plain(kind) == kind:
        return ""
    found = _WORD.search(kind)
    return (found[1] or "") if found else ""


# What the numbers of a scheme mean, in the words of Keras's own roles.
FORMULAS: Mapping[str, str] = {
    "Int8": "{0} / {0}_scale",
    "Int4": "{0} / {0}_scale",
    "Int4Grouped": "({0} - {0}_zero[g_idx]) x {0}_scale[g_idx]",
    "Float8": "f8_e4m3fn({0} / {0}_scale) x {0}_scale",
    "GPTQ": "(quantized_{0} - {0}_zero[g_idx]) x {0}_scale[g_idx]",
    "GPTQ4": "(quantized_{0} - {0}_zero[g_idx]) x {0}_scale[g_idx]",
    "AWQ": "(quantized_{0} - {0}_zero[g_idx]) x {0}_scale[g_idx] / awq_scales",
}


def formulas(scheme: str, weight: str) -> str:
    """What is computed of a weight's numbers, in words.

    >>> formulas("Int4Grouped", "kernel")
    '(kernel - kernel_zero[g_idx]) x kernel_scale[g_idx]'
    """
    return FORMULAS[scheme].format(weight)
