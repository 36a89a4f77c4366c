"""How long something has been there, by what this process has seen itself: the clock of no other machine counts."""

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, Self, TypeVar

T = TypeVar("T", bound=Hashable)

GAP = 3.0  # seconds between two looks that count at most; what stood still in a longer gap may have been the watcher


class Sightings(Generic[T]):
    """Things that are seen again and again, look after look.

    A minute in which this process or the database stood still counts as GAP seconds: so others had their chance to act.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._looked_at = float("-inf")
        self._seconds: dict[T, float] = {}  # for which each has been there

    def look(self, things: Iterable[T]) -> Self:
        """Takes in what is there now. A look that the database did not answer is none: it must not come here."""
        seen = list(things)  # the answer may take its time: the moment is taken after it
        moment = self._monotonic()
        passed = min(moment - self._looked_at, GAP)
        self._looked_at = moment
        before = self._seconds
        self._seconds = {thing: before[thing] + passed if thing in before else 0.0 for thing in seen}
        return self

    def lasting(self, seconds: float) -> list[T]:
        """What has been there at every look for so long."""
        return [thing for thing, lasted in self._seconds.items() if lasted >= seconds]
