"""What the services say over HTTP: all values, earnings and alerts, boards, telemetry."""

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

PAGE = 1000
LATENCY = "pacesetter_metrics_event_to_queryable_seconds"
LAG = "pacesetter_consumer_lag_seconds"


class Client:
    """A machine that may read everything of one tenant."""

    def __init__(
        self, http: httpx.AsyncClient, urls: dict[str, str], headers: dict[str, str]
    ) -> None:
        self._http = http
        self._urls = urls
        self._headers = headers

    async def get(self, service: str, path: str, **params: str | int) -> Any:
        """One answer as JSON."""
        answer = await self._http.get(
            self._urls[service] + path, params=params, headers=self._headers
        )
        if not answer.is_success:
            raise RuntimeError(f"GET {path}: {answer.status_code} {answer.text[:300]}")
        return answer.json()

    async def put(self, service: str, path: str, **what: Any) -> Any:
        """Tell a service something."""
        headers = {**self._headers, **what.pop("headers", {})}
        answer = await self._http.put(self._urls[service] + path, headers=headers, **what)
        if not answer.is_success:
            raise RuntimeError(f"PUT {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json() if answer.content else None

    async def pages(
        self, service: str, path: str, *, items: str = "items", **params: str | int
    ) -> AsyncIterator[Any]:
        """All items of a list, page by page."""
        cursor = ""
        while True:
            extra = {"cursor": cursor} if cursor else {}
            page = await self.get(service, path, **params, **extra)
            for item in page[items]:
                yield item
            cursor = page.get("next") or ""
            if not cursor:
                return

    async def values(self) -> dict[tuple[str, str, str, str], tuple[Decimal, int]]:
        """Value and count by subject, metric, period and unit."""
        return {
            (item["subject"], item["metric"], item["period"], item["unit"]): (
                Decimal(item["value"]),
                int(item["count"]),
            )
            async for item in self.pages("metrics", "/v1/values/all", items="rows", limit=PAGE)
        }

    async def earnings(self) -> dict[tuple[str, str, str], Decimal]:
        """Earned by payee, plan and period."""
        return {
            (item["payee"], item["plan"], item["period"]): Decimal(item["earned"])
            async for item in self.pages("payouts", "/v1/earnings/all", limit=PAGE)
        }

    async def statements(self) -> dict[tuple[str, str, str], tuple[Decimal, Decimal]]:
        """Credited and earned by payee, plan and period; without those that became empty."""
        return {
            (item["payee"], item["plan"], item["period"]): (
                Decimal(item["credited"]),
                Decimal(item["earned"]),
            )
            async for item in self.pages("payouts", "/v1/statements", limit=PAGE)
            if item["lines"]
        }

    async def firing(self) -> list[tuple[str, str, str]]:
        """Rule, subject and window of the alerts that are firing."""
        return [
            (item["rule"], item["subject"], item["window"])
            async for item in self.alerts(state="firing")
        ]

    def alerts(self, **filters: str) -> AsyncIterator[Any]:
        """All alerts."""
        return self.pages("notifications", "/v1/alerts", limit=200, **filters)

    async def telemetry(self, service: str) -> "Telemetry":
        """What a service's `/metrics` says."""
        answer = await self._http.get(self._urls[service] + "/metrics")
        answer.raise_for_status()
        return Telemetry.read(answer.text)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Samples by name; histograms as (upper bound, cumulative count)."""

    values: dict[str, float]
    buckets: dict[str, list[tuple[float, float]]]

    @classmethod
    def read(cls, text: str) -> "Telemetry":
        """Parse Prometheus' text format; samples of one name are added up."""
        values: dict[str, float] = {}
        found: dict[str, dict[float, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                values[sample.name] = values.get(sample.name, 0.0) + sample.value
                if sample.name.endswith("_bucket"):
                    bounds = found.setdefault(family.name, {})
                    bound = float(sample.labels["le"])
                    bounds[bound] = bounds.get(bound, 0.0) + sample.value
        return cls(values, {name: sorted(bounds.items()) for name, bounds in found.items()})

    def quantile(self, histogram: str, share: float) -> float:
        """The share's quantile, interpolated within its bucket; NaN without observations."""
        return quantile(self.buckets.get(histogram, []), share)

    def since(self, earlier: "Telemetry | None", histogram: str) -> list[tuple[float, float]]:
        """A histogram's buckets without what they held before."""
        now = self.buckets.get(histogram, [])
        before = dict(earlier.buckets.get(histogram, [])) if earlier else {}
        return [(bound, count - before.get(bound, 0.0)) for bound, count in now]


def quantile(buckets: list[tuple[float, float]], share: float) -> float:
    """The share's quantile of cumulative buckets, interpolated; NaN without observations."""
    total = buckets[-1][1] if buckets else 0.0
    if not total:
        return math.nan
    wanted, lower, below = share * total, 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            if math.isinf(bound):
                return lower
            part = (wanted - below) / (count - below) if count > below else 1.0
            return lower + (bound - lower) * part
        lower, below = bound, count
    return lower
