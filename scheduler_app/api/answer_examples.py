"""The example answers in the specification. The fields of each example agree with one another."""

from typing import Any

Example = dict[str, Any]

RETRY = {"max_retries": 5, "min_seconds": 1.0, "max_seconds": 600.0, "factor": 2.0}
PENDING: Example = {
    "task_id": 17,
    "operation": "calculate",
    "params": {"expression": "4+7"},
    "priority": 5,
    "status": "PENDING",
    "result": None,
    "error": None,
    "cause": None,
    "progress": None,
    "cancel_requested": False,
    "attempts": 0,
    "max_retries": 5,
    "retry": RETRY,
    "run_at": "2030-07-01T04:30:00Z",
    "expires_at": None,
    "task_schedule": None,
    "scheduled_for": None,
    "created_at": "2030-07-01T04:30:00Z",
    "created_by": "shop",
    "labels": {"order": "17"},
    "group": "customer-17",
    "callback": None,
    "unique": None,
    "trace_id": None,
    "started_at": None,
    "finished_at": None,
}
SUCCESS = PENDING | {
    "status": "SUCCESS",
    "result": 11,
    "attempts": 1,
    "started_at": "2030-07-01T04:30:00.020000Z",
    "finished_at": "2030-07-01T04:30:00.024000Z",
}
MET = PENDING | {"unique": {"key": "report-17", "until": "finished"}}
THERE = {
    "ended": {"summary": "a task that has ended while the request waited", "value": SUCCESS},
    "met": {"summary": "the task that has the key of `unique`", "value": MET},
}
CANCELLED = PENDING | {"status": "CANCELLED", "finished_at": "2030-07-01T04:31:00Z"}
LATER = PENDING | {"priority": 0, "run_at": "2030-07-01T12:00:00Z"}
LISTED = SUCCESS | {"truncated": False, "failure_count": 0}
LISTED_PENDING = PENDING | {"truncated": False, "failure_count": 0}
DETAIL = SUCCESS | {"failures": [], "failure_count": 0, "waiting_for": None, "delivery": None}
TOLD = DETAIL | {
    "callback": {
        "url": "https://shop.example.com/hooks/tasks",
        "on": ["SUCCESS", "ERROR"],
        "sign_with": "SHOP_SIGNING_KEY",
    },
    "delivery": {"task_id": 18, "status": "SUCCESS"},
}
WAITING_DETAIL = PENDING | {
    "failures": [],
    "failure_count": 0,
    "delivery": None,
    "waiting_for": {"reason": "turn", "priority": 5, "ahead": 3, "more_urgent": 0},
}
DETAILS = {
    "success": {"summary": "a task that has succeeded", "value": DETAIL},
    "told": {"summary": "a task whose end was told elsewhere", "value": TOLD},
    "waiting": {"summary": "a task that waits for its turn", "value": WAITING_DETAIL},
}
BATCH = {
    "tasks": [LISTED_PENDING],
    "errors": [{"index": 1, "errors": {"priority": ["Must be a whole number from 0 to 9."]}}],
}

MANY = {
    "done": {
        "summary": "the oldest two of many",
        "value": {"task_ids": [17, 18], "remaining": 120, "next_cursor": 18},
    },
    "dry run": {
        "summary": "a dry run",
        "value": {"task_ids": [], "remaining": 1, "next_cursor": None, "tasks": [LISTED_PENDING]},
    },
}

LOG = {
    "attempts": [1],
    "attempt": 1,
    "lines": [{"number": 1, "text": "2030-07-01T04:30:00.021Z INFO shop: 12 orders", "left_out": 0}],
    "complete": True,
}

STACK = {
    "attempt": 1,
    "frames": [
        {
            "file": "shop/invoices.py",
            "line": 41,
            "function": "render",
            "code": "page = requests.get(url)",
            "library": None,
        }
    ],
    "left_out": 0,
    "taken_at": "2030-07-01T04:30:00Z",
}

CAUSE: Example = {
    "cause": "5d41402abc4b2a76",
    "operation": "http_request",
    "type": "ConnectTimeoutError",
    "message": "Connection to example.com timed out.",
    "count": 12,
    "first_at": "2030-07-01T04:20:00Z",
    "last_at": "2030-07-01T04:30:00Z",
    "task_id": 17,
}

SCHEDULE: Example = {
    "task_schedule_id": 3,
    "name": "nightly report",
    "operation": "calculate",
    "params": {"expression": "5+10"},
    "priority": 5,
    "max_retries": 5,
    "retry": RETRY,
    "expires_in": None,
    "labels": {},
    "group": None,
    "callback": None,
    "every_x_days": None,
    "every_x_hours": 1,
    "every_x_minutes": None,
    "cron": None,
    "rrule": None,
    "timezone": "UTC",
    "start_at": None,
    "end_at": None,
    "schedule_x_times": 2,
    "times_scheduled": 0,
    "overlap": "allow",
    "jitter": 0,
    "catch_up": "latest",
    "catch_up_window": 86_400,
    "pause_on_failure": False,
    "paused": False,
    "pause_note": None,
    "next_run_at": "2030-07-01T04:30:00Z",
    "last_run_at": None,
    "checked_scheduling_at": None,
    "missed": 0,
    "skipped": 0,
    "owner": None,
    "created_at": "2030-07-01T04:30:00Z",
    "created_by": "shop",
}
PAUSED = SCHEDULE | {"paused": True, "pause_note": "the warehouse is being moved", "next_run_at": None}
FIRED = SCHEDULE | {
    "times_scheduled": 1,
    "next_run_at": "2030-07-01T05:30:00Z",
    "last_run_at": "2030-07-01T04:30:00Z",
    "checked_scheduling_at": "2030-07-01T04:30:00.500000Z",
}
OF_SCHEDULE = {"params": SCHEDULE["params"], "task_schedule": 3, "scheduled_for": "2030-07-01T04:30:00Z"}
LEFT_OUT = [
    {
        "scheduled_for": "2030-07-01T04:30:00Z",
        "last_for": "2030-07-01T06:30:00Z",
        "times": 3,
        "reason": "paused",
        "recorded_at": "2030-07-01T07:00:00Z",
    }
]
SCHEDULE_DETAIL = FIRED | {"tasks": [LISTED | OF_SCHEDULE | {"result": 15}], "left_out": []}
TRIGGERED = PENDING | OF_SCHEDULE | {"scheduled_for": "2030-07-01T04:30:00.000001Z"}
BACKFILLED = LISTED_PENDING | OF_SCHEDULE | {"scheduled_for": "2030-06-30T04:30:00Z"}
GAP = {
    "kind": "gap",
    "named": "2030-03-31T03:30:00",
    "clock_from": "2030-03-31T03:00:00",
    "clock_to": "2030-03-31T04:00:00",
}
UPCOMING = [
    {
        "utc": "2030-03-30T01:30:00Z",
        "local": "2030-03-30T03:30:00+02:00",
        "clock_change": None,
        "run_at": "2030-03-30T01:30:00Z",
    },
    {
        "utc": "2030-03-31T01:00:00Z",
        "local": "2030-03-31T04:00:00+03:00",
        "clock_change": GAP,
        "run_at": "2030-03-31T01:00:00Z",
    },
]

RUNNING = {
    "task_id": 18,
    "operation": "http_request",
    "priority": 5,
    "attempts": 1,
    "started_at": "2030-07-01T04:30:00.020000Z",
    "progress": None,
}
WORKER: Example = {
    "worker_id": "0b7c1a52-6f8e-4d3b-9a39-1f1c1f6a2f10",
    "host": "worker-1",
    "pid": 4711,
    "threads": 8,
    "queues": [f"tasks.p{priority}" for priority in range(10)],
    "started_at": "2030-07-01T04:00:00Z",
    "seen_at": "2030-07-01T04:30:01Z",
    "clock_offset": 0.02,
    "running": [RUNNING],
}

PAUSED_PRIORITY: Example = {
    "priority": 7,
    "paused": True,
    "pause_note": "the partner's API is down",
    "paused_at": "2030-07-01T04:30:00Z",
    "paused_by": "ops",
}
QUEUE: Example = PAUSED_PRIORITY | {
    "queue": "tasks.p7",
    "weight": 4,
    "waiting": 120,
    "oldest_waiting_seconds": 34.5,
    "running": 0,
    "retrying": 2,
    "dead_letters": 1,
}

LIMIT: Example = {
    "name": "http_request:group",
    "operation": "http_request",
    "per": "group",
    "max_running": 4,
    "rate": {"count": 10, "seconds": 1, "burst": 1},
    "used": 7,
    "waiting": 120,
    "groups": [{"group": "api.example.com", "used": 4}, {"group": "example.org", "used": 3}],
    "code": None,
    "changed_at": "2030-07-01T04:30:00Z",
    "changed_by": "ops",
}

ATTENTION: Example = {
    "verdict": {
        "state": "falling_behind",
        "text": "Falling behind at priority 5: 12,400 wait, the oldest 4 min, empty in about 9 min at this rate.",
        "in_per_minute": 640,
        "out_per_minute": 2020,
        "waiting": 12_430,
        "running": 24,
        "priority": 5,
        "oldest_seconds": 240,
        "empty_in_seconds": 540,
    },
    "needs": [
        {
            "kind": "paused_priority",
            "severity": "warning",
            "text": "Priority 7 is paused by ops: “the partner's API is down”. 120 tasks wait there.",
            "target": {"kind": "priority", "id": "7"},
            "since": "2030-07-01T04:30:00Z",
        }
    ],
}

KEY: Example = {
    "name": "shop",
    "key_id": "0a1b2c3d4e5f",
    "scope": "write",
    "operations": ["http_request"],
    "rate": "100/s",
    "created_at": "2030-07-01T04:30:00Z",
    "expires_at": None,
    "last_used_at": None,
    "revoked_at": None,
}
NEW_KEY = KEY | {"key": f"bb_0a1b2c3d4e5f_{'x' * 43}"}
AUDIT_ENTRY: Example = {
    "audit_id": 1,
    "at": "2030-07-01T04:31:00Z",
    "caller": "shop",
    "action": "task.cancel",
    "target": "17",
    "count": 1,
    "details": None,
    "address": "127.0.0.1",
}
