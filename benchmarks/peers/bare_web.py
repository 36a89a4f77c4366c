"""The smallest Flask program that accepts a batch: it reads the JSON, inserts it in one statement, returns the ids."""

import json
import os
import threading
from datetime import UTC, datetime
from typing import Any

import psycopg
from flask import Flask, request

from scheduler_app import server

app = Flask(__name__)
local = threading.local()

COLUMNS = "operation, params, priority, status, attempts, max_retries, claims, run_at, created_at"
ROW = "('calculate', %s, %s, 'PENDING', 0, 5, 0, %s, %s)"


@app.get("/livez")
def livez() -> str:
    return "ok"


@app.post("/tasks/")
def insert() -> tuple[list[int], int]:
    now = datetime.now(UTC)
    values: list[Any] = []
    batch = request.get_json()
    for task in batch:
        values += (json.dumps({"expression": task["operation"]}), task["priority"], now, now)
    statement = f"INSERT INTO task ({COLUMNS}) VALUES {', '.join([ROW] * len(batch))} RETURNING task_id"  # noqa: S608
    return [row[0] for row in database().execute(statement, values)], 202


def database() -> "psycopg.Connection[Any]":
    """The connection of this thread."""
    if not hasattr(local, "connection"):
        local.connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
    connection: psycopg.Connection[Any] = local.connection
    return connection


if __name__ == "__main__":
    listening = server.listen("127.0.0.1", int(os.environ["PORT"]))
    print("web process ready", flush=True)
    os.fork()  # two processes, as ours has
    server.serve(app, listening, max_body=1 << 22)
