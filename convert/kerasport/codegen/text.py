"""Python source, written so that a formatter finds nothing to do.

Nothing that a model file says goes into source as it is: a name becomes an identifier, text becomes
a literal, a number is checked to be one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, Final

from kerasport.errors import UnsupportedError

__all__ = ["LONGEST", "WIDTH", "call", "class_name", "lines", "literal", "prose", "tuple_of"]

WIDTH: Final = 100
LONGEST: Final = 60
_BIGGEST: Final = 1 << 63


def literal(value: Any) -> str:
    r"""A value of a configuration as a Python literal.

    >>> literal('say "no"\n'), literal((3, 3)), literal(0.5), literal([True, None])
    ('\'say "no"\\n\'', '(3, 3)', '0.5', '[True, None]')

    Raises:
        UnsupportedError: it is nothing that a configuration has literals for.
    """
    match value:
        case None | bool():
            return repr(value)
        case int():
            if abs(value) > _BIGGEST:
                raise UnsupportedError("expected a number that 64 bits hold")
            return repr(value)
        case float():
            return repr(value) if math.isfinite(value) else f'float("{value}")'
        case str():
            return _quoted(value)
        case tuple():
            return tuple_of(*map(literal, value))
        case list():
            return f"[{', '.join(map(literal, value))}]"
        case _:
            raise UnsupportedError(f"expected a number or text, found {type(value).__name__}")


def _quoted(text: str) -> str:
    body = text.encode("unicode_escape").decode("ascii")
    if '"' in body and "'" not in body:
        return f"'{body}'"
    escaped = body.replace('"', '\\"')
    return f'"{escaped}"'


def prose(text: str, limit: int = 60) -> str:
    """A name as it may stand in a docstring or a comment: what could end either is left out.

    >>> prose('a/b"' + '"' * 3 + chr(10) + 'import os')
    'a/b____ import os'
    """
    plain = re.sub(r"[^\w /.,:+-]", "_", re.sub(r"\s+", " ", text), flags=re.ASCII)
    return plain if len(plain) <= limit else f"{plain[: limit - 1].rstrip()}…"


def class_name(name: str) -> str:
    """A model's name as the name of a class.

    >>> class_name("my_model-2"), class_name("3d net"), class_name("ResNet50")
    ('MyModel2', 'Model3dNet', 'ResNet50')
    """
    words = re.findall(r"[A-Za-z0-9]+", name[:LONGEST])
    made = "".join(word[0].upper() + word[1:] for word in words)
    return made if made[:1].isalpha() else f"Model{made}"


def tuple_of(*items: str) -> str:
    """Expressions as a tuple.

    >>> tuple_of("a"), tuple_of("a", "b")
    ('(a,)', '(a, b)')
    """
    return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"


def call(callee: str, /, *args: str, **named: str | None) -> str:
    """A call; arguments that are None are left out.

    >>> call("nn.Linear", "3", "5", bias="False", device=None)
    'nn.Linear(3, 5, bias=False)'
    """
    words = [*args, *(f"{key}={value}" for key, value in named.items() if value is not None)]
    return f"{callee}({', '.join(words)})"


def lines(text: str, indent: int = 0) -> Iterator[str]:
    """One statement on as many lines as it needs.

    >>> list(lines("x = f(a, b)", 4))
    ['    x = f(a, b)']
    """
    space = " " * indent
    brackets = _brackets(text, WIDTH - indent) if len(space + text) > WIDTH else None
    if brackets is None:
        target, equals, value = text.partition(" = ")
        fits = len(space) + max(len(target), len(value)) + 4 <= WIDTH
        if len(space + text) > WIDTH and equals and fits:
            yield from (f"{space}{target} = (", f"{space}    {value}", f"{space})")
        else:
            yield space + text
        return
    start, stop = brackets
    inner, tail = text[start + 1 : stop], text[stop:]
    parts = _split(inner)
    yield space + text[: start + 1]
    if len(space) + 4 + len(inner) <= WIDTH and not inner.endswith(","):
        yield f"{space}    {inner}"
    else:
        for part in parts:
            yield from lines(f"{part},", indent + 4)
    yield space + tail


def _brackets(text: str, width: int) -> tuple[int, int] | None:
    """The last pair of brackets outside of all others before which a line can end.

    Of a definition it is the first, and never one that has nothing in it.
    """
    pairs: list[tuple[int, int]] = []
    opened: list[int] = []
    for at, char in _code(text):
        if char in "([{":
            opened.append(at)
        elif char in ")]}" and opened:
            start = opened.pop()
            if not opened and at > start + 1:
                pairs.append((start, at))
    if not pairs or text.startswith("def "):
        return pairs[0] if pairs else None
    return next((pair for pair in reversed(pairs) if pair[0] < width), pairs[0])


def _split(text: str) -> list[str]:
    """What stands between the commas that are outside of all brackets."""
    parts: list[str] = []
    depth = start = 0
    for at, char in _code(text):
        depth += (char in "([{") - (char in ")]}")
        if char == "," and not depth:
            parts.append(text[start:at].strip())
            start = at + 1
    last = text[start:].strip()
    return [*parts, last] if last else parts


def _code(text: str) -> Iterator[tuple[int, str]]:
    """The characters that are in no string."""
    quote = ""
    skip = False
    for at, char in enumerate(text):
        if skip:
            skip = False
        elif quote:
            skip = char == "\\"
            if char == quote:
                quote = ""
        elif char in "\"'":
            quote = char
        else:
            yield at, char
