"""What is typed into the search: `operation:x status:error label:order:17 group:x by:key`, a number, or words."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from marshmallow import ValidationError

from scheduler_app.config import PRIORITIES
from scheduler_app.models import Status
from scheduler_app.schemas.fields import MAX_ID, Time
from scheduler_app.schemas.labels import MAX_LABELS, label_texts
from scheduler_app.schemas.tasks import TaskFilter
from scheduler_app.spelling import meant

LONGEST = 500  # characters
MOST_WORDS = 5
LABEL = label_texts()["inner"]
CONDITIONS = TaskFilter().load_fields
TOKEN = re.compile(r'(?:([a-z-]+):)?("([^"]*)"|\S+)')


@dataclass
class Search:
    """One that was read."""

    text: str
    conditions: dict[str, Any] = field(default_factory=dict)  # as `tasks.filtered` takes them
    words: list[str] = field(default_factory=list)
    tokens: list[tuple[str, str]] = field(default_factory=list)  # each name and its value, as typed
    wrong: list[str] = field(default_factory=list)  # what could not be read

    @property
    def task_id(self) -> int | None:
        """The task that a number alone stands for."""
        alone = len(self.words) == 1 and not self.tokens and re.fullmatch(r"\d{1,18}", self.words[0])
        return int(self.words[0]) if alone else None

    def with_status(self, status: str | None) -> str:
        """The same search for another status; None for all."""
        others = [token for token in self.tokens if token[0] != "status"]
        return " ".join([*_typed(others + ([("status", status)] if status else [])), *self.words])


def read(text: str) -> Search:
    search = Search(text[:LONGEST].strip())
    for name, whole, quoted in TOKEN.findall(search.text):
        value = quoted or whole
        if not name:
            search.words.append(value)
        elif name not in NAMES:
            close = meant(name, NAMES)
            hint = f"did you mean {close}:?" if close else f"known are {', '.join(f'{one}:' for one in NAMES)}."
            search.wrong.append(f"There is no {name}: here; {hint}")
        else:
            _add(search, name, value)
    del search.words[MOST_WORDS:]
    return search


def _add(search: Search, name: str, value: str) -> None:
    column, parse = NAMES[name]
    try:
        found = parse(value)
        # Labels add up. All else counts as it was typed last.
        more = column == "label"
        search.conditions[column] = _all_labels(search.conditions.get(column, []), found) if more else found
        search.tokens.append((name, value))
    except (ValueError, ValidationError) as error:
        reason = error.messages[0] if isinstance(error, ValidationError) else str(error)
        search.wrong.append(f"{name}:{value} cannot be: {reason}")


def _text(value: str) -> str:
    if not 1 <= len(value) <= 64:
        raise ValueError("1 to 64 characters.")
    return value


def _statuses(value: str) -> list[str]:
    found = [part.upper() for part in value.split(",")]
    if not set(found) <= set(Status):
        raise ValueError(f"{', '.join(Status).lower()}.")
    return found


def _priorities(value: str) -> list[int]:
    form = re.fullmatch(r"(\d)(?:-(\d))?", value)
    if not form:
        raise ValueError("a priority such as 5, or several such as 0-3.")
    found = list(range(int(form[1]), int(form[2] or form[1]) + 1))
    if not found or found[-1] not in PRIORITIES:
        raise ValueError("0 to 9, the smaller one first.")
    return found


def _id(value: str) -> int:
    if not re.fullmatch(r"\d{1,18}", value) or not 1 <= int(value) <= MAX_ID:
        raise ValueError("a number.")
    return int(value)


def _label(value: str) -> list[str]:
    return [str(LABEL.deserialize(value))]


def _all_labels(before: list[str], found: list[str]) -> list[str]:
    if len(before) == MAX_LABELS:
        raise ValueError(f"at most {MAX_LABELS} labels.")
    return before + found


def _error_type(value: str) -> str:
    if not 1 <= len(value) <= 200:
        raise ValueError("1 to 200 characters.")
    return value


def _cause(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{16}", value):
        raise ValueError("16 hexadecimal digits.")
    return value


NAMES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "operation": ("operation", _text),
    "status": ("status", _statuses),
    "priority": ("priority", _priorities),
    "schedule": ("task_schedule_id", _id),
    "by": ("created_by", _text),
    "label": ("label", _label),
    "group": ("group", CONDITIONS["group"].deserialize),
    "unique": ("unique_key", CONDITIONS["unique_key"].deserialize),
    "error": ("error_type", _error_type),
    "cause": ("cause", _cause),
    "after": ("created_after", Time().deserialize),
    "before": ("created_before", Time().deserialize),
    "ended-after": ("finished_after", Time().deserialize),
    "ended-before": ("finished_before", Time().deserialize),
}


def in_words(search: Search) -> list[tuple[str, str]]:
    """Each condition as a person says it."""
    said = {"operation": "of operation", "status": "in", "priority": "at priority", "schedule": "of schedule"}
    said |= {"by": "posted by", "cause": "failed by the cause", "after": "created after", "before": "created before"}
    said |= {
        "group": "of the group",
        "unique": "with the key",
        "label": "with the label",
        "error": "whose latest failure is of type",
    }
    said |= {"ended-after": "ended after", "ended-before": "ended before"}
    shown = [(said[name], value.upper() if name == "status" else value) for name, value in search.tokens]
    return shown + [("with the word", word) for word in search.words]


def _typed(tokens: Iterable[tuple[str, str]]) -> list[str]:
    return [f'{name}:"{value}"' if re.search(r"\s", value) else f"{name}:{value}" for name, value in tokens]
