"""A shop's own operation: BACKBEAT_OPERATIONS=actors,examples.shop_operations adds it to those that ship."""

import os
from decimal import Decimal
from pathlib import Path

from marshmallow import Schema, fields

from scheduler_app.operations import PermanentError, current_task, operation

FOLDER = Path(os.environ.get("SHOP_INVOICES", ".data/invoices"))


class InvoicesParams(Schema):
    totals = fields.Dict(fields.Integer(), fields.Decimal(), required=True, metadata={"description": "By order."})


@operation("shop.invoices", params=InvoicesParams, max_retries=3, time_limit=3600)
def write_invoices(totals: dict[int, Decimal]) -> dict[str, int]:
    "Writes an invoice for each order."
    if not totals:
        raise PermanentError("There are no orders.")  # trying again would not help
    FOLDER.mkdir(parents=True, exist_ok=True)
    for written, (order, total) in enumerate(totals.items(), 1):
        current_task.check_cancelled()
        # It may run more than once: the same order is the same file, and it is never seen half written.
        draft = FOLDER / f"{order}.{current_task.task_id}.draft"
        draft.write_text(f"Order {order}: {total}\n")
        draft.replace(FOLDER / f"{order}.txt")
        current_task.progress(100 * written / len(totals), f"{written} of {len(totals)}")
    return {"written": len(totals)}
