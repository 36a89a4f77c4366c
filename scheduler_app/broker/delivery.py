"""The message that a worker gets. It says which attempt of which task to run."""

from typing import NamedTuple


class Delivery(NamedTuple):
    """One attempt of a task, on its way to a worker."""

    task_id: int
    claims: int  # how often it was claimed before: each attempt has a message of its own
    operation: str
    priority: int
    group: str | None = None

    @property
    def message_id(self) -> str:
        return message_id(self.task_id, self.claims)

    def encode(self, timestamp: int) -> str:
        """The Dramatiq message; `timestamp` is in milliseconds.

        A tenth of the time of Message.encode. Nothing in it needs an escape: names are of a-z, 0-9, '_' and '.', and
        a group has no quotation mark, backslash or control character. The scripts find the group in the text.
        """
        id_ = self.message_id
        group = f'"group":"{self.group}",' if self.group else ""
        return (
            f'{{"queue_name":"{queue_name(self.priority)}","actor_name":"{self.operation}",'
            f'"args":[{self.task_id},{self.claims}],"kwargs":{{}},"options":{{{group}"redis_message_id":"{id_}"}},'
            f'"message_id":"{id_}","message_timestamp":{timestamp}}}'
        )


class Message(NamedTuple):
    """A message as a worker process gets it. Its id says all that is needed."""

    queue: str
    message_id: str
    task_id: int
    claims: int  # as in Delivery
    epoch: int = 0  # of the slots that it has in the limits of its operation; 0 if that has none

    @property
    def claim(self) -> tuple[int, int]:
        """Task and claims of the attempt that its claim makes."""
        return self.task_id, self.claims + 1


def parse(queue: str, message_id: str, epoch: int = 0) -> Message:
    """Raises ValueError when the id is not one of ours."""
    task_id, _, claims = message_id.partition(".")
    return Message(queue, message_id, int(task_id), int(claims), epoch)


def queue_name(priority: int) -> str:
    return f"tasks.p{priority}"


def message_id(task_id: int, claims: int) -> str:
    return f"{task_id}.{claims}"
