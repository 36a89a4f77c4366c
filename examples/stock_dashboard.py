"""Stock Dramatiq tools work on Backbeat's Redis: this serves dramatiq-dashboard, on loopback.

    .venv/bin/pip install --no-deps dramatiq_dashboard==0.4.0
    REDIS_URL=redis://localhost:6379/0 .venv/bin/python -m examples.stock_dashboard 8765

It shows what is in Redis: the ten queues, their messages, the workers. Do not delete messages there, cancel tasks: the
task table is the truth, and what it says is due is sent again.
"""

import os
import sys

from dramatiq.brokers.redis import RedisBroker
from dramatiq_dashboard import make_wsgi_middleware
from waitress import serve

from scheduler_app.broker import queue_name
from scheduler_app.config import PRIORITIES

broker = RedisBroker(url=os.environ["REDIS_URL"], middleware=[])
for priority in PRIORITIES:
    broker.declare_queue(queue_name(priority))

if __name__ == "__main__":
    print(f"http://127.0.0.1:{sys.argv[1]}/", flush=True)
    serve(make_wsgi_middleware("", broker)(None), host="127.0.0.1", port=int(sys.argv[1]))
