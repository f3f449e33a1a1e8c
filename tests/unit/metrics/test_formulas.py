"""Formulas: what they mean, exactly, and what is said of those that mean nothing."""

import string
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metrics.domain import formulas
from services.metrics.domain.formulas import FormulaError, Kind, Ratio, Reading, formula

NUMBERS = {("sum", "a"): 6, ("sum", "b"): 4, ("count", "a"): 3, ("target", "a"): 10}


def read(kind: Kind, metric: str) -> Ratio | None:
    value = NUMBERS.get((kind, metric))
    return None if value is None else (value, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a", 6),
        ("a + b * 2", 14),
        ("(a + b) * 2", 20),
        ("a - b - 1", 1),
        ("a / b / 3", Fraction(1, 2)),
        ("-a + b", -2),
        ("a * -b", -24),
        ("b / -a", Fraction(-2, 3)),
        ("a / count(a)", 2),
        ("a / target(a)", Fraction(3, 5)),
        ("0.1 * a", Fraction(3, 5)),
        ('"a" / "b"', Fraction(3, 2)),
        ("a / (b - 4)", None),
        ("a / target(b)", None),
        ("target(b) * 0", None),
        (" a\n+ b ", 10),
    ],
)
def test_formulas_are_exact(text: str, value: Fraction | int | None) -> None:
    assert formula(text).evaluate(read) == value


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "expected a number"),
        ("a +", "character 4: expected a number, a metric or \\(, not the end"),
        ("a b", "character 3: expected \\+, -, \\*, / or the end, not b"),
        ("(a", "expected \\)"),
        ("a)", "or the end"),
        ("a ? b", "character 3: '\\?'"),
        ("a ** b", "character 4"),
        ("--a", "character 2"),
        ("sum(a)", "there is no sum\\(\\)"),
        ("count(2)", "expected a metric in count\\(\\)"),
        ("count(a", "expected \\)"),
        ('"a', "is no part"),
        ("1" * 21, "digits"),
        ("(" * 30 + "a" + ")" * 30, "nested"),
        ("+".join("a" * 200), "operations"),
    ],
)
def test_what_is_no_formula_is_explained(text: str, what: str) -> None:
    with pytest.raises(FormulaError, match=what):
        formula(text)


def test_what_a_formula_reads() -> None:
    found = formula('(a + "x@Closed Won") / (count(b) + a) - target(c)')
    assert found.parts == ("a", "b", "x@Closed Won")
    assert found.targets == ("c",)
    assert Reading("count", "b") in found.readings


def test_the_records_behind_a_quotient_are_those_it_divides_by() -> None:
    assert formula("a / (b + c)").behind == ("b", "c")
    assert formula("a / target(a)").behind == ("a",)
    assert formula("a - b").behind == ("a", "b")


@given(st.text(min_size=1).filter(lambda stage: "\r" not in stage))
def test_metrics_can_be_renamed_to_anything(stage: str) -> None:
    text = formulas.renamed("count(a) / (a + target(b)) * 2", lambda name: f"{name}@{stage}")
    assert formula(text).parts == (f"a@{stage}",)
    assert formula(text).targets == (f"b@{stage}",)


@given(st.text(alphabet=string.printable, max_size=60) | st.text(max_size=60))
def test_any_text_is_a_formula_or_is_explained(text: str) -> None:
    try:
        found = formula(text)
    except FormulaError:
        return
    found.evaluate(lambda kind, metric: (len(kind) - len(metric), 1))


_LEAVES = st.one_of(
    st.integers(0, 99).map(str), st.sampled_from(["a", "b", "count(a)", "target(a)"])
)
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(
        lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
    ),
    max_leaves=12,
)


@given(_TREES)
def test_formulas_mean_what_arithmetic_means(text: str) -> None:
    wanted: Fraction | None
    try:
        wanted = _arithmetic(text)
    except ZeroDivisionError:
        wanted = None
    assert formula(text).evaluate(read) == wanted


def _arithmetic(text: str) -> Fraction:
    """Fully parenthesised text by two stacks."""
    values: list[Fraction] = []
    signs: list[str] = []
    known = {"a": Fraction(6), "b": Fraction(4)}
    spaced = text.replace("count(a)", "3").replace("target(a)", "10")
    for token in spaced.replace("(", " ( ").replace(")", " ) ").split():
        if token == ")":
            other, one = values.pop(), values.pop()
            sign = signs.pop()
            results = {"+": one + other, "-": one - other, "*": one * other}
            values.append(one / other if sign == "/" else results[sign])
        elif token in "+-*/":
            signs.append(token)
        elif token != "(":
            values.append(known[token] if token in known else Fraction(token))
    return values.pop()
