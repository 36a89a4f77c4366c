"""`calculate`: the value of an arithmetic expression, such as "4+7"."""

import operator
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from marshmallow import Schema, ValidationError, fields

from scheduler_app.operations import PermanentError, operation

MAX_LENGTH = 1_000  # characters of an expression
MAX_DEPTH = 100  # parentheses within parentheses
MAX_DIGITS = 100  # of a number, and of a result

# re.ASCII, because \d would take digits of every script.
_TOKEN = re.compile(r"[ \t\r\n]*(?:(?P<number>\d+\.?\d*|\.\d+)|(?P<symbol>[-+*/()])|(?P<end>\Z))", re.ASCII)

Number = int | Fraction  # a whole number is an int while it can be: that is quicker
Operator = Callable[[Any, Any], Number]
Postfix = list[str | Operator]  # numbers as written, each operator behind what it combines


def _divide(number: Number, by: Number) -> Number:
    return Fraction(number) / by


SUMS: dict[str, Operator] = {"+": operator.add, "-": operator.sub}
PRODUCTS: dict[str, Operator] = {"*": operator.mul, "/": _divide}


class Expression(fields.String):
    """Loads as postfix, so that whoever computes it need not parse it once more."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            return parse(super()._deserialize(value, attr, data, **kwargs))
        except ValueError as error:
            raise ValidationError(str(error)) from None


class CalculateParams(Schema):
    expression = Expression(
        required=True,
        metadata={
            "description": "Numbers, `+ - * /`, signs, parentheses and spaces. "
            f"Parentheses go {MAX_DEPTH} deep, a number has up to {MAX_DIGITS} digits.",
            "example": "4+7",
            "maxLength": MAX_LENGTH,
        },
    )


@operation("calculate", params=CalculateParams)
def calculate(expression: Postfix) -> int | float:
    """Computes an expression with + - * / and parentheses, exactly.

    It calculates with fractions, so that nothing is rounded on the way: `0.1+0.2` is 0.3 and `1/3*3` is 1.
    A whole result is an integer with all its digits. Any other is rounded once, to the nearest number that
    JSON readers hold (a double, 15 to 17 digits): `1/3` is 0.3333333333333333.
    Raises PermanentError for a division by zero, and for a result beyond 1E100 or nearer to zero than 1E-100.
    """
    try:
        value = _evaluate(expression)
    except ZeroDivisionError:
        raise PermanentError("Division by zero.") from None
    limit = 10**MAX_DIGITS
    if abs(value) >= limit:
        raise PermanentError(f"The result has more than {MAX_DIGITS} digits.")
    if value and abs(value) * limit < 1:
        raise PermanentError(f"The result is not zero, but nearer to it than 1E-{MAX_DIGITS}.")
    return value.numerator if value.denominator == 1 else float(value)


def parse(expression: str) -> Postfix:
    """A ValueError says what is wrong and where."""
    if len(expression) > MAX_LENGTH:
        raise ValueError(f"Longer than {MAX_LENGTH} characters.")
    parser = _Parser(expression)
    parser.sum(depth=0)
    parser.expect("end", "an operator")
    return parser.postfix


class _Parser:
    """Recursive descent, with one method per rule of the grammar. `ahead` is the next token."""

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self.postfix: Postfix = []
        self.end = 0
        self.advance()

    def advance(self) -> None:
        match = _TOKEN.match(self.expression, self.end)
        self.kind = (match and match.lastgroup) or "unknown"
        self.ahead = match[self.kind] if match else ""
        self.start = match.start(self.kind) if match else self._after_spaces()
        self.end = match.end() if match else self.start

    def sum(self, depth: int) -> None:
        self.product(depth)
        while chosen := SUMS.get(self.ahead):
            self.advance()
            self.product(depth)
            self.postfix.append(chosen)

    def product(self, depth: int) -> None:
        self.signed(depth)
        while chosen := PRODUCTS.get(self.ahead):
            self.advance()
            self.signed(depth)
            self.postfix.append(chosen)

    def signed(self, depth: int) -> None:
        negative = False
        while self.ahead in SUMS:
            negative ^= self.ahead == "-"
            self.advance()
        self.operand(depth)
        if negative:
            self.postfix += ["-1", operator.mul]

    def operand(self, depth: int) -> None:
        if self.ahead != "(":
            self.number()
            return
        if depth == MAX_DEPTH:
            raise self.error(f"Parentheses more than {MAX_DEPTH} deep")
        self.advance()
        self.sum(depth + 1)
        self.expect(")", "an operator or ')'")

    def number(self) -> None:
        if len(self.ahead.replace(".", "")) > MAX_DIGITS:
            raise self.error(f"A number of more than {MAX_DIGITS} digits")
        self.postfix.append(self.ahead)
        self.expect("number", "a number or '('")

    def expect(self, wanted: str, description: str) -> None:
        if wanted not in (self.kind, self.ahead):
            found = "the end" if self.kind == "end" else ascii(self.expression[self.start])
            raise self.error(f"Expected {description}, found {found}")
        self.advance()

    def error(self, message: str) -> ValueError:
        return ValueError(f"{message}, at position {self.start + 1}.")

    def _after_spaces(self) -> int:
        rest = self.expression[self.end :]
        return self.end + len(rest) - len(rest.lstrip(" \t\r\n"))


def _evaluate(postfix: Postfix) -> Number:
    """The length of the expression bounds its cost: no fraction gets longer than all of its numbers together."""
    stack: list[Number] = []
    for step in postfix:
        if isinstance(step, str):
            stack.append(int(step) if step.isdigit() else Fraction(step))
        else:
            right = stack.pop()
            stack.append(step(stack.pop(), right))
    return stack.pop()
