"""Every way kerasport refuses, as one tree whose branches are the exit codes.

    KerasportError                 1   a bug in kerasport, if it is raised as such
    ├── UsageError                 2   the call makes no sense: a missing file, an unknown option
    │   └── UnknownNameError       2   a layer or tensor that is not there
    ├── UnknownFormatError         3   the file is of no format that kerasport knows
    ├── MalformedError             4   the file claims a format and breaks its rules, or is hostile
    ├── UnsupportedError           5   a layer or weight that the target cannot hold as asked
    │   ├── LayoutError            5   a layout sentence does not fit the array
    │   └── AmbiguousKindError     5   more than one kind of layer fits the stored weights
    ├── VerificationError          6   what was written does not equal what was read
    └── MissingExtraError          7   an optional package is needed and is not installed

Messages follow one pattern: where, what was expected, what was found, what to do next. Several
problems of one kind are collected and raised together, sorted, as lines of one message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar


class KerasportError(Exception):
    """Base of all errors that kerasport raises on purpose.

    >>> KerasportError.exit_code
    1
    """

    exit_code: ClassVar[int] = 1


class UsageError(KerasportError, ValueError):
    """The call itself is wrong: a missing file, an unknown convention, options at odds."""

    exit_code: ClassVar[int] = 2


class UnknownNameError(UsageError, KeyError):
    """A layer, tensor or role that is not there; the message names the nearest ones."""

    def __str__(self) -> str:  # KeyError shows its message in quotes
        return str(self.args[0])

    @classmethod
    def of(cls, what: str, name: str, known: Sequence[str]) -> UnknownNameError:
        """The error for a `name` that is not among the `known` ones.

        >>> print(UnknownNameError.of("layer", "dens", ["conv", "dense"]))
        no layer 'dens'; the nearest: 'dense'
        """
        import difflib

        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or list(known[:5])
        nearest = ", ".join(map(repr, near)) or f"there is no {what} at all"
        return cls(f"no {what} {name!r}; the nearest: {nearest}")


class UnknownFormatError(KerasportError, ValueError):
    """No known format fits the file's content, or the format cannot do what was asked."""

    exit_code: ClassVar[int] = 3


class MalformedError(KerasportError, ValueError):
    """The file breaks the rules of its own format: truncated, inconsistent or hostile."""

    exit_code: ClassVar[int] = 4


class UnsupportedError(KerasportError, ValueError):
    """A layer, weight or option that the target cannot represent without loss.

    `problems` holds each reason once, sorted; `report` the ledger of a conversion that was refused.
    """

    exit_code: ClassVar[int] = 5

    report: Any = None

    def __init__(self, message: str, problems: Iterable[str] = (), *, advice: str = "") -> None:
        self.problems = tuple(sorted(set(problems)))
        text = "\n  ".join([message, *self.problems])
        super().__init__(f"{text}\n\n{advice}" if advice else text)


class LayoutError(UnsupportedError):
    """A layout sentence cannot be parsed, or does not fit an array's shape."""


class AmbiguousKindError(UnsupportedError):
    """The stored weights fit more than one kind of layer, and nothing in the file says which."""


class VerificationError(KerasportError):
    """The target does not hold the source's values bit for bit, or computes something else.

    `report` holds the table of a module that was run.
    """

    exit_code: ClassVar[int] = 6

    report: Any = None


class MissingExtraError(KerasportError, ImportError):
    """An optional package is missing; the message gives the line that installs it."""

    exit_code: ClassVar[int] = 7

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.extra = extra
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed. "
            f"Install it with: pip install 'kerasport[{extra}]'"
        )
