"""Current numbers of the organisation and its teams in Prometheus' text format.

Labels are bounded: people are left out, and teams beyond the first hundreds. What people do is
business, not telemetry: it is scraped here, with a tenant's API key, and not under /metrics.
"""

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Depends
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from kit.auth import Principal
from schemas.periods import GRAINS
from schemas.spm import ORGANISATION
from services.metrics.api.parts import PROBLEMS, Parts, unit_of
from services.metrics.domain import numbers
from services.metrics.domain.catalogue import COUNT, QUANTITY, SECONDS
from services.metrics.domain.numbers import Part
from services.metrics.store import counters
from services.metrics.store.counters import Window

MAX_TEAMS = 200
LABELS = ("metric", "subject", "period", "unit")

Sample = tuple[tuple[str, str, str, str], float, int]


def add(routes: APIRouter, parts: Parts) -> None:
    """GET /exposition."""

    @routes.get(
        "/exposition",
        response_class=Response,
        responses=PROBLEMS | {200: {"content": {"text/plain": {}}}},
    )
    async def exposition(principal: Annotated[Principal, Depends(parts.principal)]) -> Response:
        """Numbers of this day, week, month, quarter, half and year, of the organisation and teams.

        `period` is the grain, so that a series goes on into the next one.
        """
        principal.require("finance", "ops")
        samples: list[Sample] = []
        async with parts.database.transaction() as transaction:
            catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
            directory = await parts.context.directory_of(transaction, principal.tenant)
            today = directory.calendar.local_day(parts.clock())
            currency = directory.organisation.currency
            bases = [m.id for m in catalogue.base.values() if not m.for_each]
            teams = [f"team:{name}" for name in sorted(directory.teams)[:MAX_TEAMS]]
            for grain in GRAINS:
                start = directory.calendar.start(grain, today)
                window = Window(start, directory.calendar.end(grain, start), grain)
                sums: dict[str, dict[str, Part]] = {}
                for kind in ("org", "team"):
                    for row in await counters.of_kind(
                        transaction,
                        principal.tenant,
                        metrics=bases,
                        window=window,
                        units=[COUNT, QUANTITY, SECONDS, currency],
                        kind=kind,
                    ):
                        sums.setdefault(row.subject, {})[row.metric] = Part(
                            row.value, row.count, row.unit
                        )
                for subject in (ORGANISATION, *teams):
                    of_subject = sums.get(subject, {})
                    for metric in catalogue.metrics.values():
                        number = numbers.number(metric, of_subject)
                        if number is None:
                            continue
                        unit = unit_of(directory, metric, "")
                        labels = (metric.id, subject, grain, unit)
                        value = float(numbers.text(number, unit))
                        samples.append((labels, value, numbers.count(metric, of_subject)))
        registry = CollectorRegistry()
        registry.register(_Numbers(samples))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Numbers(Collector):
    """Samples as they were read; nothing is kept."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = list(samples)

    def collect(self) -> Iterable[Metric]:
        """Two families: the numbers, and how many records make them up."""
        values = GaugeMetricFamily(
            "pacesetter_business_value",
            "A metric's number in the current period; money in major units.",
            labels=LABELS,
        )
        records = GaugeMetricFamily(
            "pacesetter_business_records", "How many records make it up.", labels=LABELS
        )
        for labels, value, count in self._samples:
            values.add_metric(labels, value)
            records.add_metric(labels, count)
        return [values, records]
