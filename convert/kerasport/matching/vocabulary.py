"""What names say: words that mean one thing, words that mean nothing, numbers, and their order."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache

__all__ = ["ORDINALS", "STAGES", "by_name", "numbered", "stage_of", "tokens_of", "words_of"]

# Words that mean one thing, and those that mean nothing.
MEANINGS = {
    word: meaning
    for meaning, words in {
        "norm": "layernorm norm ln bn batchnorm groupnorm rmsnorm normalization",
        "attention": "attention attn mha selfattn selfattention attend",
        "query": "query q wq",
        "key": "key k wk",
        "value": "value v wv",
        "output": "output out o wo",
        "feedforward": "feedforward ff ffn mlp",
        "dense": "dense linear fc lin",
        "embedding": "embedding embeddings embed emb",
        "token": "token tokens tok word words",
        "position": "position positions positional pos",
        "segment": "segment seg tokentype type",
        "encoder": "encoder enc",
        "decoder": "decoder dec",
        "conv": "conv convolution convs",
        "pool": "pooled pooler pool",
        "head": "head heads classifier logits predictions",
        "final": "final f last",
        "depthwise": "depthwise dw",
        "pointwise": "pointwise pw",
        "recurrent": "lstm gru rnn recurrent",
        "residual": "residual res",
        "cls": "cls class",
        "patch": "patch patching patches",
    }.items()
    for word in words.split()
}
EMPTY = frozenset(
    """
    layer layers block blocks module modules model the proj projection c h of
    """.split()  # noqa: SIM905 as words it can be read
)
PHRASES = (
    ("token_type", "segment"),
    ("layer_norm", "norm"),
    ("batch_norm", "norm"),
    ("feed_forward", "feedforward"),
    ("wte", "token_embedding"),
    ("wpe", "position_embedding"),
)
# What comes first in a block of a transformer, and what words say of two that are alike.
STAGES = {"attention": 0, "cross": 1, "feedforward": 2}
ORDINALS = {"before": 0, "pre": 0, "first": 0, "after": 1, "post": 1, "second": 1}
_TOKEN = re.compile(r"[a-z]+|[0-9]{1,18}")


@cache
def tokens_of(name: str) -> tuple[str | int, ...]:
    """The words and numbers of a name, in order."""
    lowered = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    for phrase, meaning in PHRASES:
        lowered = lowered.replace(phrase, meaning)
    return tuple(int(t) if t.isdigit() else t for t in _TOKEN.findall(lowered))


@cache
def words_of(name: str) -> frozenset[str]:
    """What a name says, without numbers and words that say nothing; of many as of one.

    >>> words_of("skips.3") == words_of("skip_3")
    True
    """
    words = (
        MEANINGS.get(t) or MEANINGS.get(t.removesuffix("s")) or t.removesuffix("s")
        for t in tokens_of(name)
        if isinstance(t, str) and t not in EMPTY
    )
    return frozenset(words)


def stage_of(name: str, table: Mapping[str, int]) -> int | None:
    """Where a name stands by a table of words; the last one that is in it counts."""
    words = [MEANINGS.get(t, t) for t in tokens_of(name) if isinstance(t, str)]
    found = [table[word] for word in words if word in table]
    return found[-1] if found else None


def by_name(one: str, other: str) -> int:
    """The order of two names that differ in a number, or in a word that tells it."""
    left, right = tokens_of(one), tokens_of(other)
    for a, b in zip(left, right, strict=False):
        if a == b:
            continue
        if isinstance(a, int) and isinstance(b, int):
            return -1 if a < b else 1
        break
    for table in (STAGES, ORDINALS):
        mine, yours = stage_of(one, table), stage_of(other, table)
        if mine is not None and yours is not None and mine != yours:
            return -1 if mine < yours else 1
    return 0


def apart(one: str, other: str) -> int:
    """How far apart two names are that differ in one number and in nothing else; 0 for others.

    >>> apart("skip_3/conv", "skip_5/conv"), apart("skip_3", "gate_5"), apart("a_1_1", "a_2_2")
    (-2, 0, 0)
    """
    left, right = tokens_of(one), tokens_of(other)
    unlike = [(a, b) for a, b in zip(left, right, strict=False) if a != b]
    if len(left) != len(right) or len(unlike) != 1:
        return 0
    ((a, b),) = unlike
    return a - b if isinstance(a, int) and isinstance(b, int) else 0


def numbered(paths: Sequence[str]) -> dict[str, str]:
    """Paths in which Keras's first of several is numbered as the others are.

    >>> numbered(["block/dense", "block_1/dense"])
    {'block/dense': 'block_0/dense', 'block_1/dense': 'block_1/dense'}
    """
    siblings: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        words = path.split("/")
        for n, word in enumerate(words):
            siblings["/".join(words[:n])].add(word)
    made: dict[str, str] = {}
    for path in paths:
        words = path.split("/")
        made[path] = "/".join(
            f"{word}_0" if f"{word}_1" in siblings["/".join(words[:n])] else word
            for n, word in enumerate(words)
        )
    return made
