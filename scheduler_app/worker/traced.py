"""Runs attempts with a span for each, where somebody collects them."""

from typing import TYPE_CHECKING, Any

from scheduler_app.worker.execution import Executor
from scheduler_app.worker.ledger import Claimed
from scheduler_app.worker.running import RunningTask

if TYPE_CHECKING:
    from scheduler_app.tracing.spans import Spans


class TracedExecutor(Executor):
    def __init__(self, *args: Any, spans: "Spans", worker_id: str) -> None:
        super().__init__(*args)
        self.spans = spans
        self.worker_id = worker_id

    def perform(self, claimed: Claimed) -> None:
        message, attempt = claimed.message, claimed.attempt
        about = attempt.task_id, attempt.operation, attempt.number
        with self.spans.processing(message.queue, *about, worker=self.worker_id, posted=attempt.trace) as trace:
            super().perform(claimed._replace(attempt=attempt._replace(trace=trace)))

    def _record_failure(self, task: RunningTask, error: BaseException) -> None:
        self.spans.fail(error)
        super()._record_failure(task, error)
