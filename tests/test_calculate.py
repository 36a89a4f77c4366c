import json
import math
import time
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marshmallow import ValidationError

from actors import calculate
from actors.calculate import MAX_DEPTH, MAX_DIGITS, MAX_LENGTH, CalculateParams
from scheduler_app.operations import PermanentError


def value_of(expression: str) -> int | float:
    return calculate.calculate(**CalculateParams().load({"expression": expression}))


def refusal(expression: object) -> str:
    with pytest.raises(ValidationError) as refused:
        CalculateParams().load({"expression": expression})
    (message,) = refused.value.messages_dict["expression"]
    return str(message)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("4+7", 11),
        ("4+9", 13),
        ("0.1+0.2", 0.3),
        ("1/3", 1 / 3),
        ("1/3*3", 1),
        ("2-3-4", -5),
        ("2+3*4", 14),
        ("(2+3)*4", 20),
        ("24/4/2", 3),
        ("-2", -2),
        ("+2", 2),
        ("2--3", 5),
        ("2*-3", -6),
        ("---1", -1),
        ("-(2+3)*--4", -20),
        (".5+5.", 5.5),
        ("0.5+0.5", 1),
        ("1.10*3", 3.3),
        ("-0", 0),
        ("00012", 12),
        (" \t4\r\n + 7 ", 11),
        ("((((1))))", 1),
        ("9007199254740993+0", 9007199254740993),
        ("123456789012345678.9+0.1", 123456789012345679),
        ("9" * MAX_DIGITS, 10**MAX_DIGITS - 1),
    ],
)
def test_the_value_of_an_expression(expression: str, value: float) -> None:
    result = value_of(expression)
    assert result == value
    assert type(result) is type(value)
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "Expected a number or '(', found the end, at position 1."),
        ("  ", "Expected a number or '(', found the end, at position 3."),
        ("4+", "Expected a number or '(', found the end, at position 3."),
        ("4 7", "Expected an operator, found '7', at position 3."),
        ("(1", "Expected an operator or ')', found the end, at position 3."),
        ("1)", "Expected an operator, found ')', at position 2."),
        ("()", "Expected a number or '(', found ')', at position 2."),
        ("2(3)", "Expected an operator, found '(', at position 2."),
        (".", "Expected a number or '(', found '.', at position 1."),
        ("1..2", "Expected an operator, found '.', at position 3."),
        ("1,5", "Expected an operator, found ',', at position 2."),
        ("1e5", "Expected an operator, found 'e', at position 2."),
        ("1_000", "Expected an operator, found '_', at position 2."),
        ("0x10", "Expected an operator, found 'x', at position 2."),
        ("2**3", "Expected a number or '(', found '*', at position 3."),
        ("4//2", "Expected a number or '(', found '/', at position 3."),
        ("1 $", "Expected an operator, found '$', at position 3."),
        ("nan", "Expected a number or '(', found 'n', at position 1."),
        ("\u0663+1", "Expected a number or '(', found '\\u0663', at position 1."),
        ("2\u00b2", "Expected an operator, found '\\xb2', at position 2."),
        ("4\u00a0+7", "Expected an operator, found '\\xa0', at position 2."),
        ("4\ud800", "Expected an operator, found '\\ud800', at position 2."),
        ("4\0", "Expected an operator, found '\\x00', at position 2."),
        ("1+" + "9" * 101, "A number of more than 100 digits, at position 3."),
        ("0." + "0" * 100, "A number of more than 100 digits, at position 1."),
        ("(" * 101 + "1" + ")" * 101, "Parentheses more than 100 deep, at position 101."),
    ],
)
def test_a_wrong_expression_is_refused_with_the_reason_and_its_position(expression: str, message: str) -> None:
    assert refusal(expression) == message


@pytest.mark.parametrize("expression", ["1" * 100_000, "(" * 10_000, "-" * 100_000, " " * 100_000, "1+" * 50_000])
def test_a_long_expression_is_refused_without_reading_it(expression: str) -> None:
    before = time.process_time()
    assert refusal(expression) == f"Longer than {MAX_LENGTH} characters."
    assert time.process_time() - before < 1


@pytest.mark.parametrize("params", [{}, {"expression": None}, {"expression": 47}, {"expression": "1", "more": 1}])
def test_params_that_are_no_expression_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CalculateParams().load(params)


def test_the_deepest_and_the_longest_expression_are_computed() -> None:
    assert value_of("(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH) == 1
    assert value_of("-" * (MAX_LENGTH - 1) + "1") == -1
    assert value_of("1+" * 499 + "1") == 500


@pytest.mark.parametrize("expression", ["9/0", "0/0", "1/(2-2)", "1/0.0", "1/(1/3-1/3)"])
def test_a_division_by_zero_is_accepted_and_fails_for_good(expression: str) -> None:
    CalculateParams().load({"expression": expression})
    with pytest.raises(PermanentError, match="Division by zero"):
        value_of(expression)


def test_a_result_out_of_bounds_fails_for_good() -> None:
    with pytest.raises(PermanentError, match="more than 100 digits"):
        value_of("9" * 100 + "+1")
    with pytest.raises(PermanentError, match="more than 100 digits"):
        value_of("*".join(["9" * 99] * 10))
    with pytest.raises(PermanentError, match="nearer to it than 1E-100"):
        value_of(f"1/1{'0' * 99}/11")


def test_what_is_out_of_bounds_on_the_way_does_no_harm() -> None:
    huge = "*".join(["9" * 99] * 4)
    assert value_of(f"({huge})/({huge})") == 1


def test_the_most_laborious_expression_takes_no_noticeable_time() -> None:
    sum_of_fractions = "+".join(f"1/{number}" for number in range(1_001, 1_140))
    before = time.process_time()
    value_of(sum_of_fractions)
    assert time.process_time() - before < 1


numbers = st.decimals(0, 10**12, allow_nan=False, places=6).map(lambda number: f"{number:f}")
expressions = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", " * ", "/"]), inner).map("".join),
        inner.map("({})".format),
        inner.map("-{}".format),
    ),
    max_leaves=12,
)


@settings(max_examples=150)
@given(expressions)
def test_the_value_is_that_of_pythons_own_fractions(expression: str) -> None:
    fractions = "".join(f"Fraction('{part}')" if part[0].isdigit() else part for part in split_numbers(expression))
    try:
        expected = eval(fractions, {"Fraction": Fraction})  # noqa: S307 (only what the strategy makes)
    except ZeroDivisionError:
        with pytest.raises(PermanentError):
            value_of(expression)
        return
    result = value_of(expression)
    assert result == (expected.numerator if expected.denominator == 1 else float(expected))


def split_numbers(expression: str) -> list[str]:
    parts: list[str] = []
    for character in expression:
        numeric = character.isdigit() or character == "."
        if parts and numeric and parts[-1][0].isdigit():
            parts[-1] += character
        else:
            parts.append(character)
    return parts


@settings(max_examples=300)
@given(st.text(alphabet="0123456789.+-*/() e\u0663", max_size=30))
def test_any_text_is_refused_or_has_a_finite_value(text: str) -> None:
    try:
        CalculateParams().load({"expression": text})
    except ValidationError:
        return
    with suppress(PermanentError):  # a division by zero, mostly
        assert math.isfinite(value_of(text))
