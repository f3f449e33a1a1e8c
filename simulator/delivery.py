"""What happens to webhooks on their way: batches, duplicates, late and shuffled ones; never a loss.

`deliver` turns changes (in order of time) into deliveries (in order of the business time of their
arrival). About 3 % come twice, the second time as a later attempt, about 4 % are held back for
minutes to hours, and now and then one edit's events are split over two requests. The last ones come
before `end`.
"""

import heapq
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from simulator.days import Change
from simulator.organisation import HUBSPOT, PARTNERS
from simulator.vendors import Json, Request, Translator, requests_of

DUPLICATES = 0.03
LATE = 0.04
SPLIT = 0.05
USUAL_DELAY_SECONDS = 20.0  # of business time, on average
LATE_MINUTES = (5, 300)
BATCH_SECONDS = 240.0  # HubSpot collects events for up to so long (of business time)
HISTORY_BATCH_SECONDS = 10 * 3600.0  # what is older is loaded in bulk
BATCH_EVENTS = 100


@dataclass(frozen=True, slots=True)
class Part:
    """One of the `of` pieces in which a change's events are sent."""

    change: Change
    of: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request, the business time at which it is sent, and what it carries."""

    at: datetime
    request: Request
    parts: tuple[Part, ...]
    repeated: bool = False
    late: bool = False


@dataclass(slots=True)
class _Batch:
    until: datetime
    size: int
    events: list[Json] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)


class _Network:
    def __init__(self, seed: int, end: datetime, opens: datetime | None) -> None:
        self._rng = random.Random(f"{seed}:delivery")  # noqa: S311  # a play, not a secret
        self._end = end
        self._opens = opens
        self._translator = Translator()
        self._batches: dict[str, list[_Batch]] = {HUBSPOT: [], PARTNERS: []}
        self._waiting: list[tuple[datetime, int, Delivery]] = []
        self._number = 0

    def take(self, change: Change) -> None:
        """A CRM has something to say."""
        events = self._translator.events(change)
        pieces = [events]
        if len(events) > 1 and self._rng.random() < SPLIT:
            self._rng.shuffle(events)
            cut = self._rng.randint(1, len(events) - 1)
            pieces = [events[:cut], events[cut:]]
        for piece in pieces:
            part = Part(change, len(pieces))
            if change.source not in self._batches:
                self._send(change.at, change.source, piece, [part])
            else:
                self._collect(change, piece, part)

    def _collect(self, change: Change, events: list[Json], part: Part) -> None:
        batches = self._batches[change.source]
        # Two collect at a time, as with parallel senders: the order of events is nobody's promise.
        batch = self._rng.choice(batches) if len(batches) > 1 else None
        if batch is None or len(batch.events) + len(events) > batch.size:
            if batch is not None:
                self._flush(change.source, batch, change.at)
            batch = self._new_batch(change.at)
            batches.append(batch)
        batch.events += events
        batch.parts.append(part)

    def _new_batch(self, at: datetime) -> _Batch:
        if self._opens is not None and at < self._opens:
            return _Batch(at + timedelta(seconds=HISTORY_BATCH_SECONDS), BATCH_EVENTS)
        until = at + timedelta(seconds=self._rng.uniform(5, BATCH_SECONDS))
        return _Batch(until, self._rng.randint(15, BATCH_EVENTS))

    def _flush(self, source: str, batch: _Batch, at: datetime) -> None:
        self._batches[source].remove(batch)
        self._send(at, source, batch.events, batch.parts)

    def _send(self, at: datetime, source: str, events: list[Json], parts: list[Part]) -> None:
        late = self._rng.random() < LATE
        delay = timedelta(seconds=self._rng.expovariate(1 / USUAL_DELAY_SECONDS))
        if late:
            delay = timedelta(minutes=self._rng.uniform(*LATE_MINUTES))
        self._push(at + delay, source, events, parts, late=late)
        if self._rng.random() < DUPLICATES:
            again = delay + timedelta(seconds=self._rng.expovariate(1 / 900))
            self._push(at + again, source, events, parts, attempt=1, late=late)

    def _push(
        self,
        at: datetime,
        source: str,
        events: list[Json],
        parts: list[Part],
        *,
        attempt: int = 0,
        late: bool = False,
    ) -> None:
        for request in requests_of(source, events, attempt):
            self._number += 1
            delivery = Delivery(min(at, self._end), request, tuple(parts), attempt > 0, late)
            heapq.heappush(self._waiting, (delivery.at, self._number, delivery))

    def due(self, now: datetime | None) -> Iterator[Delivery]:
        """What is sent until `now`; everything that is left when None."""
        for source, batches in self._batches.items():
            for batch in list(batches):
                if now is None or batch.until <= now:
                    self._flush(source, batch, batch.until)
        while self._waiting and (now is None or self._waiting[0][0] <= now):
            yield heapq.heappop(self._waiting)[2]


def deliver(
    changes: Iterable[Change], seed: int, end: datetime, opens: datetime | None = None
) -> Iterator[Delivery]:
    """The deliveries of these changes, by the business time at which they are sent.

    What is older than `opens` comes in full batches.
    """
    network = _Network(seed, end, opens)
    for change in changes:
        yield from network.due(change.at)
        network.take(change)
    yield from network.due(None)
