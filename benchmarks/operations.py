"""Operations that the benchmarks post."""

import time

from marshmallow import Schema, fields

from benchmarks import starts
from scheduler_app.operations import operation


class Number(Schema):
    number = fields.Integer(required=True)


class Seconds(Schema):
    seconds = fields.Float(required=True)


@operation("bench.sleep", params=Seconds)
def sleep(seconds: float) -> None:
    "Takes so many seconds, and does nothing."
    time.sleep(seconds)


@operation("bench.tell", params=Number)
def tell(number: int) -> None:
    "Says that it has started."
    starts.tell(number)


@operation("bench.hold", params=Number)
def hold(number: int) -> None:
    "Says that it has started, and runs until it is released."
    starts.tell(number)
    starts.wait_for_release()
