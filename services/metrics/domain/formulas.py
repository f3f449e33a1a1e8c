"""Formulas over metrics, read from text: `deals_won / (deals_won + deals_lost)`.

A formula has numbers, `+ - * / ( )`, metrics by id, `count(metric)` for the records behind one, and
`target(metric)` for the subject's goal of the same period. An id with other characters than
letters, digits and `_ . : @` stands in double quotes: `"stages_entered@Closed Won"`. A quote in it
is doubled.

It is evaluated exactly. What a record adds nothing to is nothing; but a formula without any record,
with a goal that isn't set, or with a division by zero has no value.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Literal

MAX_DEPTH = 20
MAX_OPERATIONS = 100  # its numbers stay small enough to be exact quickly
MAX_DIGITS = 20

Kind = Literal["sum", "count", "target"]
Sign = Literal["+", "-", "*", "/"]
Ratio = tuple[int, int]  # numerator and denominator above zero, not reduced: fast to add up
Read = Callable[[Kind, str], Ratio | None]

_TOKEN = re.compile(
    r"""\s*(?: (?P<number>\d+(?:\.\d+)?(?![\w.:@]))
             | (?P<name>\w[\w.:@]*)
             | "(?P<quoted>(?:[^"]|"")+)"
             | (?P<sign>[-+*/()]) )""",
    re.VERBOSE | re.ASCII,
)
_FUNCTIONS: dict[str, Kind] = {"count": "count", "target": "target"}
_END = ""
_QUOTE = '"'


class FormulaError(ValueError):
    """The text isn't a formula; the message says where, and what would be right."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A number as written."""

    value: Ratio

    def evaluate(self, _: Read) -> Ratio | None:
        """The number."""
        return self.value


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read of a metric: its sum, the count of its records, or its goal."""

    kind: Kind
    metric: str

    def evaluate(self, read: Read) -> Ratio | None:
        """The number read; None when the goal isn't set."""
        return read(self.kind, self.metric)


@dataclass(frozen=True, slots=True)
class Operation:
    """Two formulas and what is done with them."""

    sign: Sign
    left: "Node"
    right: "Node"

    def evaluate(self, read: Read) -> Ratio | None:
        """The result; None when a side has none, or for a division by zero."""
        one, other = self.left.evaluate(read), self.right.evaluate(read)
        if one is None or other is None:
            return None
        (a, b), (c, d) = one, other
        if self.sign == "*":
            return a * c, b * d
        if self.sign == "/":
            if not c:
                return None
            return (a * d, b * c) if c > 0 else (-a * d, b * -c)
        if self.sign == "-":
            c = -c
        return (a + c, b) if b == d else (a * d + c * b, b * d)


Node = Constant | Reading | Operation


@dataclass(frozen=True)
class Formula:
    """A formula that makes sense by itself; whether its metrics exist is for the catalogue."""

    root: Node

    def evaluate(self, read: Read) -> Fraction | None:
        """Its exact value with what `read` says of metrics; None when it has none."""
        found = self.root.evaluate(read)
        return None if found is None else Fraction(*found)

    @cached_property
    def readings(self) -> tuple[Reading, ...]:
        """Everything it reads, in its order, each once."""
        return tuple(dict.fromkeys(n for n in nodes(self.root) if isinstance(n, Reading)))

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The metrics whose records it is read from."""
        return _metrics(self.readings, "sum", "count")

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """The metrics whose goals it needs."""
        return _metrics(self.readings, "target")

    @cached_property
    def behind(self) -> tuple[str, ...]:
        """The metrics whose records say how much it rests on: of a quotient what it divides by."""
        if isinstance(self.root, Operation) and self.root.sign == "/":
            under = [n for n in nodes(self.root.right) if isinstance(n, Reading)]
            return _metrics(under, "sum", "count") or self.parts
        return self.parts


def nodes(root: Node) -> Iterator[Node]:
    """The formula and all formulas in it."""
    yield root
    if isinstance(root, Operation):
        yield from nodes(root.left)
        yield from nodes(root.right)


@lru_cache(maxsize=4_096)
def formula(text: str) -> Formula:
    """The formula in `text`; raises `FormulaError`."""
    return Formula(_Parser(text).whole())


def renamed(text: str, rename: Callable[[str], str]) -> str:
    """The formula with other metrics in their place."""
    tokens = _tokens(text)
    found = []
    for token, following in pairwise(tokens):
        metric = token.kind == "quoted" or (token.kind == "name" and following.text != "(")
        found.append(_quoted(rename(token.text)) if metric else token.text)
    return " ".join(found)


def _quoted(metric: str) -> str:
    return f'"{metric.replace(_QUOTE, _QUOTE * 2)}"'


def _metrics(readings: Iterable[Reading], *kinds: Kind) -> tuple[str, ...]:
    return tuple(sorted({r.metric for r in readings if r.kind in kinds}))


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number, name, quoted, sign, or empty at the end
    text: str
    at: int  # the character, from 1


def _tokens(text: str) -> list[_Token]:
    found, place, end = [], 0, len(text.rstrip())
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            wrong = text[place:].lstrip()
            raise FormulaError(
                f"character {len(text) - len(wrong) + 1}: {wrong[0]!r} is no part of a formula; "
                "write numbers, metrics, + - * / and parentheses, and other ids in double quotes"
            )
        kind = match.lastgroup
        word = match[kind].replace(_QUOTE * 2, _QUOTE) if kind == "quoted" else match[kind]
        found.append(_Token(kind, word, match.start(kind) + 1))
        place = match.end()
    return [*found, _Token(_END, "the end", len(text) + 1)]


class _Parser:
    """Recursive descent with bounded depth."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._place = 0
        self._depth = 0
        self._operations = 0

    def whole(self) -> Node:
        found = self._sum()
        if self._next.kind != _END:
            raise self._expected("+, -, *, / or the end")
        return found

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place]

    def _take(self) -> _Token:
        token = self._next
        self._place += 1
        return token

    def _takes(self, *signs: str) -> bool:
        if self._next.kind == "sign" and self._next.text in signs:
            self._place += 1
            return True
        return False

    def _expected(self, what: str) -> FormulaError:
        token = self._next
        return FormulaError(f"character {token.at}: expected {what}, not {token.text}")

    def _sum(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise FormulaError(f"is nested deeper than {MAX_DEPTH}")
        found = self._product()
        while self._takes("+", "-"):
            sign: Sign = "+" if self._tokens[self._place - 1].text == "+" else "-"
            found = self._operation(sign, found, self._product())
        self._depth -= 1
        return found

    def _product(self) -> Node:
        found = self._factor()
        while self._takes("*", "/"):
            sign: Sign = "*" if self._tokens[self._place - 1].text == "*" else "/"
            found = self._operation(sign, found, self._factor())
        return found

    def _operation(self, sign: Sign, left: Node, right: Node) -> Node:
        self._operations += 1
        if self._operations > MAX_OPERATIONS:
            raise FormulaError(f"has more than {MAX_OPERATIONS} operations")
        return Operation(sign, left, right)

    def _factor(self) -> Node:
        if self._takes("-"):
            return self._operation("-", Constant((0, 1)), self._primary())
        return self._primary()

    def _primary(self) -> Node:
        if self._takes("("):
            found = self._sum()
            self._closed()
            return found
        token = self._next
        if token.kind == "number":
            self._take()
            if len(token.text) > MAX_DIGITS:
                raise FormulaError(f"character {token.at}: a number has up to {MAX_DIGITS} digits")
            value = Fraction(token.text)
            return Constant((value.numerator, value.denominator))
        if token.kind not in ("name", "quoted"):
            raise self._expected("a number, a metric or (")
        self._take()
        if token.kind == "quoted" or not self._takes("("):
            return Reading("sum", token.text)
        if token.text not in _FUNCTIONS:
            raise FormulaError(
                f"character {token.at}: there is no {token.text}(); there are count(metric) and "
                "target(metric)"
            )
        if self._next.kind not in ("name", "quoted"):
            raise self._expected(f"a metric in {token.text}()")
        metric = self._take().text
        self._closed()
        return Reading(_FUNCTIONS[token.text], metric)

    def _closed(self) -> None:
        if not self._takes(")"):
            raise self._expected(")")
