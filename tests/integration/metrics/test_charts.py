"""Numbers over time, funnels, heat maps, files and the exposition, against plain numbers."""

import csv
import importlib
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from schemas.crm import StageEntry
from tests.integration.metrics.world import World, call, small_company, won
from tests.support import a_record, bearer

NOVEMBER = "month:2026-11-01"
QUARTER = {"grain": "month", "from": "2026-10-01", "to": "2026-12-31"}


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 11, 3, 12, tzinfo=UTC)
    monkeypatch.setattr("services.metrics.app.clock.load", lambda _: lambda: now)


def micros(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1e6)


@pytest.fixture
async def ops(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """Three deals won (10, 20 and 60 days after they were created), one shared, and some calls."""
    await world.apply(
        *small_company(),
        won("crm:1", name='=HYPERLINK("x")', created_at="2026-10-23T10:00:00Z"),
        won("crm:2", created_at="2026-10-13T10:00:00Z", amount="33.33", shares="1=50;3=50"),
        won(
            "crm:3",
            owner_id=3,
            created_at="2026-08-04T10:00:00Z",
            closed_at="2026-10-03T10:00:00Z",
        ),
        msgspec.structs.replace(
            a_record("opportunity", "crm:4", owner_id="1", status="open", stage="offer"),
            stages=[
                StageEntry(micros("2026-11-01T10:00:00Z"), "met"),
                StageEntry(micros("2026-11-02T10:00:00Z"), "offer"),
            ],
        ),
        msgspec.structs.replace(
            a_record("opportunity", "crm:5", owner_id="2", status="open", stage="met"),
            stages=[StageEntry(micros("2026-11-02T10:00:00Z"), "met")],
        ),
        a_record("stage", "crm:offer", name="Offer made"),
        call("crm:c1", occurred_at="2026-11-02T22:30:00Z"),  # 23:30 on Monday in Berlin
        call("crm:c2", occurred_at="2026-11-03T08:10:00Z"),
        call("crm:c3", occurred_at="2026-11-03T08:50:00Z", owner_id=2),
    )
    await world.settle()
    async with world.client(bearer("ops")) as client:
        yield client


async def get(client: httpx.AsyncClient, path: str, **params: Any) -> Any:
    answer = await client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_series_has_every_period_with_its_number_and_goal(ops: httpx.AsyncClient) -> None:
    goal = {"subject": "org:all", "metric": "revenue_won", "period": NOVEMBER, "target": "266.66"}
    assert (await ops.put("/v1/goals", json=[goal])).status_code == 200
    revenue = await get(ops, "/v1/series", subject="org:all", metric="revenue_won", **QUARTER)
    share = await get(ops, "/v1/series", subject="org:all", metric="quota_attainment", **QUARTER)
    as_csv = await ops.get(
        "/v1/series",
        params={"subject": "org:all", "metric": "revenue_won", "format": "csv", **QUARTER},
    )

    assert [(p["period"], p["value"], p["count"], p["target"]) for p in revenue["points"]] == [
        ("month:2026-10-01", "100.00", 1, None),
        (NOVEMBER, "133.33", 2, "266.66"),
        ("month:2026-12-01", None, 0, None),
    ]
    assert [p["value"] for p in share["points"]] == [None, "0.5000", None]
    assert list(csv.reader(io.StringIO(as_csv.text)))[2] == [
        NOVEMBER, "2026-11-01", "133.33", "2", "266.66"
    ]  # fmt: skip


async def test_a_median_is_of_the_records_and_only_of_one_period(ops: httpx.AsyncClient) -> None:
    days = {}
    for subject, period in (("org:all", "quarter:2026-10-01"), ("person:p1", NOVEMBER)):
        asked = {"subject": subject, "metric": "sales_cycle_median", "period": period}
        days[subject] = int((await get(ops, "/v1/values", **asked))["value"]) / 86_400
    refused = await ops.get(
        "/v1/series", params={"subject": "org:all", "metric": "sales_cycle_median", **QUARTER}
    )

    assert days["org:all"] == pytest.approx(20, abs=1)
    assert days["person:p1"] == pytest.approx(15, abs=1)
    assert refused.status_code == 422


async def test_the_funnel_counts_who_entered_which_stage(ops: httpx.AsyncClient) -> None:
    found = await get(ops, "/v1/funnel", subject="team:all-sales", period=NOVEMBER)

    assert found["steps"] == [
        {"stage": "met", "name": "met", "count": 2, "of_previous": None},
        {"stage": "offer", "name": "Offer made", "count": 1, "of_previous": "0.5000"},
    ]


async def test_the_heat_map_is_in_local_hours_and_adds_up(ops: httpx.AsyncClient) -> None:
    asked = {"metric": "calls_made", "period": NOVEMBER}
    own = await get(ops, "/v1/heatmap", subject="person:p1", **asked)
    team = await get(ops, "/v1/heatmap", subject="team:north", **asked)

    assert own["hours"] == [
        {"weekday": 1, "hour": 23, "count": 1},
        {"weekday": 2, "hour": 9, "count": 1},
    ]
    assert sum(hour["count"] for hour in team["hours"]) == 3
    assert own["zone"] == "Europe/Berlin"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
async def test_a_file_of_records_adds_up_to_the_number(ops: httpx.AsyncClient, kind: str) -> None:
    asked = {"subject": "team:all-sales", "metric": "revenue_won", "period": NOVEMBER}
    number = await get(ops, "/v1/values", **asked)
    answer = await ops.get("/v1/records/export", params=asked | {"format": kind})
    assert answer.status_code == 200, answer.text
    if kind == "csv":
        rows = list(csv.DictReader(io.StringIO(answer.text)))
    else:
        parquet: Any = importlib.import_module("pyarrow.parquet")
        rows = parquet.read_table(io.BytesIO(answer.content)).to_pylist()

    assert sum(Decimal(row["value"]) for row in rows) == Decimal(number["value"])
    assert sorted((row["id"], row["person"], str(row["value"])[:6]) for row in rows) == [
        ("crm:1", "p1", "100.00"),
        ("crm:2", "p1", rows[1]["value"] if kind == "csv" else "16.670"),
        ("crm:2", "p3", "16.66" if kind == "csv" else "16.660"),
    ]
    assert not rows[0]["name"].startswith("=") or kind == "parquet"
    assert answer.headers["content-disposition"].endswith(f'.{kind}"')


async def test_a_file_is_whole_however_many_pages_it_takes(
    ops: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"subject": "org:all", "metric": "calls_made", "period": NOVEMBER}
    monkeypatch.setattr("services.metrics.api.records.EXPORT_PAGE", 1)
    answer = await ops.get("/v1/records/export", params=asked)

    assert len(answer.text.splitlines()) == 1 + 3


async def test_the_exposition_can_be_scraped(ops: httpx.AsyncClient, world: World) -> None:
    text = (await ops.get("/v1/exposition")).text
    samples = {
        (s.name, s.labels["metric"], s.labels["subject"], s.labels["period"]): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }
    async with world.client(bearer("rep", person="p1")) as rep:
        refused = await rep.get("/v1/exposition")

    assert samples["pacesetter_business_value", "revenue_won", "org:all", "month"] == 133.33
    assert samples["pacesetter_business_records", "calls_made", "team:north", "day"] == 2
    assert not any(subject.startswith("person:") for _, _, subject, _ in samples)
    assert refused.status_code == 403


async def test_restricted_metrics_are_for_whom_they_are_meant(world: World) -> None:
    await world.apply(
        *small_company(), won("crm:1", discount="5.00"), won("crm:2", owner_id=2, discount="7.00")
    )
    asked = {"metric": "discount_given", "period": NOVEMBER}
    seen = {}
    for role, person in (("rep", "p1"), ("manager", "p4"), ("finance", "")):
        async with world.client(bearer(role, person=person)) as client:
            for subject in ("person:p1", "team:north", "org:all"):
                answer = await client.get("/v1/values", params=asked | {"subject": subject})
                seen[role, subject] = answer.status_code

    assert [subject for (role, subject), status in seen.items() if status == 403] == [
        "team:north",
        "org:all",
    ]
    assert seen["rep", "person:p1"] == seen["manager", "org:all"] == 200
