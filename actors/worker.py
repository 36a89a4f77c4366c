"""Composition root of `dramatiq actors.worker`: the tasks of the priority queues, run in Dramatiq's threads."""

import logging

import dramatiq

from scheduler_app import logs, tracing
from scheduler_app.application import create_app
from scheduler_app.broker import WorkerBroker
from scheduler_app.config import Settings
from scheduler_app.worker import attempt_log
from scheduler_app.worker.exchange import Exchange
from scheduler_app.worker.execution import Executor
from scheduler_app.worker.ledger import Ledger
from scheduler_app.worker.patience import Patience
from scheduler_app.worker.pulse import Pulse
from scheduler_app.worker.status_writer import StatusWriter
from scheduler_app.worker.traced import TracedExecutor
from scheduler_app.worker.work_queue import Scheduling

settings = Settings.load()
app = create_app(settings, worker=True)
broker: WorkerBroker = app.extensions["backbeat.broker"]
ends = broker.ends
worker_id = broker.broker_id  # in the table of workers as in Redis
logs.configure(settings.log_level, settings.log_format, process="worker", worker=worker_id)
logging.getLogger().addHandler(attempt_log.Handler())
tracing.configure(settings, process="worker", instance=worker_id)


class Life(dramatiq.Middleware):
    """Registers the worker before it takes a task, and removes its row after its last task has ended."""

    def before_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        queues = sorted(worker.consumer_whitelist or broker.get_declared_queues())
        self.pulse = Pulse(app, worker_id, ledger, threads=worker.worker_threads, queues=queues)
        self.pulse.start()
        ends.start()

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        patience.stopping.set()

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        self.pulse.stop()
        tracing.flush()


ledger, patience = Ledger(), Patience()
with app.app_context():
    writer = StatusWriter(worker_id)
executor = Executor(app, ledger, patience)
if spans := tracing.wanted_spans():
    executor = TracedExecutor(app, ledger, patience, spans=spans, worker_id=worker_id)
exchange = Exchange(app, ledger, writer, patience, executor.reject)
broker.add_middleware(Life())  # the first to begin is the last to end: the queue has then recorded all
broker.add_middleware(Scheduling(exchange, executor.perform))
dramatiq.set_broker(broker)
