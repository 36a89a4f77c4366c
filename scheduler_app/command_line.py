"""`flask --app wsgi keys …` and `flask --app wsgi schedules …`, for whoever can reach the database."""

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from typing import Any

import click
from flask.cli import AppGroup
from marshmallow import ValidationError

from scheduler_app import database
from scheduler_app.access_models import Scope
from scheduler_app.errors import BackbeatError
from scheduler_app.schemas.keys import KeyRequest
from scheduler_app.schemas.schedule_files import ScheduleFile
from scheduler_app.services import callers, keys, schedule_files

UNITS = {"m": "minutes", "h": "hours", "d": "days"}

keys_cli = AppGroup("keys", help="Create, list, rotate and revoke API keys.")
schedules_cli = AppGroup("schedules", help="Keep schedules in a file.")
SIGNS = {"make": "+", "change": "~", "resume": "~", "pause": "-", "delete": "-"}


class Duration(click.ParamType):  # type: ignore[type-arg]
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        form = re.fullmatch(r"(\d{1,5})([mhd])", value)
        if form is None:
            self.fail(f"{value!r}: a whole number of minutes, hours or days, as 30m, 24h or 90d", param, ctx)
        return timedelta(**{UNITS[form[2]]: int(form[1])})


def plainly(command: Callable[..., None]) -> Callable[..., None]:
    """An error of ours is one line, and what the command does is in the audit log as done here."""

    @wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        callers.current.set(callers.LOCAL)
        try:
            command(*args, **kwargs)
        except ValidationError as error:
            raise click.ClickException(f"{error.messages}") from None
        except BackbeatError as error:
            raise click.ClickException(f"{error.message} {error.errors or ''}".strip()) from None

    return wrapper


@keys_cli.command("create")
@click.argument("name")
@click.option("--scope", required=True, type=click.Choice([scope.value for scope in Scope]))
@click.option("--expires", type=Duration(), help="After which it is refused: 30m, 24h, 90d. Never, when not given.")
@click.option("--operations", help="The only operations that it reaches, as http_request,shop.*")
@click.option("--rate", help="Requests that it may make, as 100/s, 600/m or 5000/h.")
@plainly
def create(name: str, scope: str, expires: timedelta | None, operations: str | None, rate: str | None) -> None:
    """Make a key and print it, which is possible only now."""
    now = database.clock()
    given = {"name": name, "scope": scope, "rate": rate, "operations": operations and operations.split(",")}
    fields = KeyRequest().load(given) | {"expires_at": now + expires if expires else None}
    click.echo(keys.create(**fields, now=now)[1])


@keys_cli.command("list")
@plainly
def show() -> None:
    """List the keys, without their secrets."""
    now = database.clock()
    for key in keys.find():
        parts = (key.name, f"bb_{key.key_id}_…", key.scope, ",".join(key.operations or ["all operations"]))
        click.echo("  ".join((*parts, key.rate or "any rate", _state(key, now))))


@keys_cli.command("rotate")
@click.argument("name")
@click.option("--overlap", type=Duration(), default="24h", help="For so long the secret before works too.")
@plainly
def rotate(name: str, overlap: timedelta) -> None:
    """Make a new secret for a key and print it."""
    click.echo(keys.rotate(name, now=database.clock(), overlap=overlap)[1])


@keys_cli.command("revoke")
@click.argument("name")
@plainly
def revoke(name: str) -> None:
    """Refuse a key from now on, in every process within a second."""
    keys.revoke(name, now=database.clock())
    click.echo(f"{name} is revoked")


@schedules_cli.command("apply")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--delete", is_flag=True, help="Delete what the file names no longer, instead of pausing it.")
@plainly
def apply(file: Any, dry_run: bool, delete: bool) -> None:
    """Make the schedules of the file's owner as FILE says, which is JSON; - is the standard input.

    What an earlier file of the same owner named and this one does not is paused. All others are left alone.
    """
    try:
        read = json.load(file)
    except ValueError as error:
        raise click.ClickException(f"{file.name} is not JSON: {error}") from None
    wanted = ScheduleFile().load(read)
    owner, now = wanted["owner"], database.clock()
    steps = schedule_files.plan(owner, wanted["schedules"], delete=delete, now=now)
    for step in steps:
        click.echo(f"{SIGNS[step.action]} {step.action} {step.name}")
        for name, value in sorted(step.fields.items()):
            before = f"{_told(step.before[name])} → " if step.before else ""
            click.echo(f"    {name}: {before}{_told(value)}")
        if not dry_run:
            schedule_files.do(owner, step, now=now)
    touched = len({step.name for step in steps})
    click.echo(f"{touched} {'would change' if dry_run else 'changed'}, {len(wanted['schedules'])} in the file")


@schedules_cli.command("export")
@click.option("--owner", default="default", show_default=True, help="Whose schedules; those of nobody are added.")
@plainly
def export(owner: str) -> None:
    """Print the schedules as a file for `apply`."""
    file, unnamed = schedule_files.export(owner)
    click.echo(json.dumps(file, indent=2, ensure_ascii=False))
    if unnamed:
        click.echo(f"{unnamed} left out, which have no name: a file knows them by it", err=True)


def _told(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _state(key: Any, now: datetime) -> str:
    if key.revoked_at:
        return f"revoked {key.revoked_at:%Y-%m-%d}"
    if key.expires_at and key.expires_at <= now:
        return f"expired {key.expires_at:%Y-%m-%d}"
    used = f"last used {key.last_used_at:%Y-%m-%d %H:%M} UTC" if key.last_used_at else "never used"
    return f"{used}, expires {key.expires_at:%Y-%m-%d}" if key.expires_at else used
