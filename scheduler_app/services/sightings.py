"""How long something has been there, as this process has seen it. No other machine's clock matters."""

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, Self, TypeVar

T = TypeVar("T", bound=Hashable)

GAP = 3.0  # the most seconds that count between two looks: in a longer gap this process itself may have been frozen


class Sightings(Generic[T]):
    """Things that are seen again and again, look after look.

    A minute in which this process or the database was frozen counts as GAP seconds only. So others get time to act.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._looked_at = float("-inf")
        self._seconds: dict[T, float] = {}  # for which each has been there

    def look(self, things: Iterable[T]) -> Self:
        """Records what is there now. Do not call it for a look that the database did not answer."""
        seen = list(things)  # the answer may take its time: the moment is taken after it
        moment = self._monotonic()
        passed = min(moment - self._looked_at, GAP)
        self._looked_at = moment
        before = self._seconds
        self._seconds = {thing: before[thing] + passed if thing in before else 0.0 for thing in seen}
        return self

    def lasting(self, seconds: float) -> list[T]:
        """The things that have been there at every look for at least `seconds`."""
        return [thing for thing, lasted in self._seconds.items() if lasted >= seconds]
