"""Forecasts over HTTP: from records to a distribution, and who may see what of it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest

from schemas.crm import Record, StageEntry
from tests.integration.metrics.world import World, small_company, won
from tests.support import bearer

NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)
NOVEMBER = "month:2026-11-01"


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.metrics.app.clock.load", lambda _: lambda: NOW)


def a_deal(number: int, begun: float, *, closed: float | None = None, **fields: Any) -> Record:
    """An opportunity created `begun` days ago; it entered the stage `offer` a day later."""
    created = NOW - timedelta(days=begun)
    known: dict[str, Any] = {"created_at": created.isoformat(), "status": "open", "closed_at": None}
    if closed is not None:
        known |= {
            "status": "won" if number % 3 else "lost",
            "closed_at": (NOW - timedelta(days=closed)).isoformat(),
        }
    record = won(f"crm:{number:03}", **(known | fields))
    entered = int((created + timedelta(days=1)).timestamp() * 1e6)
    return msgspec.structs.replace(record, stages=[StageEntry(entered, "offer")])


@pytest.fixture
async def company(world: World) -> World:
    """Persons 1 to 3 with a year of deals; two open ones of person 1, one of them in dollars."""
    past = [
        a_deal(n, 370 - n * 3, closed=355 - n * 3, owner_id=1 + n // 3 % 3) for n in range(1, 115)
    ]
    await world.apply(
        *small_company(),
        *past,
        a_deal(500, 8, owner_id=1, amount="250", expected_close="2026-11-20T00:00:00+00:00"),
        a_deal(501, 8, owner_id=1, amount="70", currency="USD"),
    )
    await world.settle()
    return world


@pytest.fixture
async def ops(company: World) -> AsyncIterator[httpx.AsyncClient]:
    async with company.client(bearer("ops")) as client:
        yield client


async def get(client: httpx.AsyncClient, path: str, **params: Any) -> Any:
    answer = await client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def forecast(client: httpx.AsyncClient, subject: str = "person:p1", **params: Any) -> Any:
    asked = {"subject": subject, "period": NOVEMBER} | params
    return await get(client, "/v1/forecasts", **asked)


async def test_a_forecast_has_its_distribution_reasons_and_error(ops: httpx.AsyncClient) -> None:
    found = await forecast(ops)
    said = {name: Decimal(value) for name, value in found["distribution"].items()}
    [ours, dollars] = sorted(found["deals"], key=lambda deal: deal["id"])

    assert said["p10"] <= said["p50"] <= said["p90"]
    assert (found["unit"], found["reason"], found["open_value"]) == ("EUR", None, "250.00")
    assert (ours["id"], ours["amount"], ours["stage"]) == ("crm:500", "250.00", "offer")
    assert Decimal(dollars["expected"]) == 0
    assert found["other_currencies"] == [{"unit": "USD", "won": "0.00", "open": "70.00"}]
    assert [each["share"] for each in found["backtest"]] == ["0.25", "0.50", "0.75"]
    assert (
        found["backtest"]
        == (await get(ops, "/v1/forecasts/backtest", subject="person:p1", period=NOVEMBER))[
            "errors"
        ]
    )
    parts = [found["won"], found["run_rate"]["expected"], *(d["expected"] for d in found["deals"])]
    assert abs(sum(map(Decimal, parts)) - said["mean"]) <= Decimal("0.02")  # each is rounded


@pytest.mark.parametrize("subject", ["person:p1", "team:north", "org:all"])
async def test_what_is_won_already_is_the_number(ops: httpx.AsyncClient, subject: str) -> None:
    asked = {"subject": subject, "period": "quarter:2026-10-01"}
    for metric in ("revenue_won", "deals_won"):
        number = await get(ops, "/v1/values", metric=metric, **asked)
        found = await forecast(ops, **asked, metric=metric)

        assert Decimal(found["won"]) == Decimal(number["value"])


async def test_a_change_of_the_deals_changes_the_forecast(
    company: World, ops: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.metrics.store.forecasts.REST_RATIO", 0.0)
    first = await ops.get("/v1/forecasts", params={"subject": "org:all", "period": NOVEMBER})
    again = await ops.get(
        "/v1/forecasts",
        params={"subject": "org:all", "period": NOVEMBER},
        headers={"If-None-Match": first.headers["etag"]},
    )
    await company.apply(a_deal(500, 8, owner_id=1, amount="999", version=2))
    await company.settle()
    changed = await forecast(ops, "org:all")

    assert (again.status_code, first.json()["open_value"]) == (304, "250.00")
    assert changed["open_value"] == "999.00"


async def test_deals_behind_a_forecast_are_for_who_may_see_the_records(company: World) -> None:
    async with company.client(bearer("rep", person="p1")) as rep:
        own, team, everyone = [
            await forecast(rep, who, backtest=False)
            for who in ("person:p1", "team:north", "org:all")
        ]
        other = await rep.get("/v1/forecasts", params={"subject": "person:p3", "period": NOVEMBER})
        what_if = await rep.post(
            "/v1/forecasts/what-if", json={"subject": "person:p3", "period": NOVEMBER}
        )

    assert [deal["id"] for deal in own["deals"]] == ["crm:500", "crm:501"]
    assert own["backtest"] is None
    assert (team["deals"], everyone["deals"]) == (None, None)
    assert (other.status_code, what_if.status_code) == (403, 403)


async def test_a_what_if_says_what_the_change_makes(ops: httpx.AsyncClient) -> None:
    body = {"subject": "org:all", "period": NOVEMBER, "win_rate": "1.5", "deal_size": "2"}
    answer = await ops.post("/v1/forecasts/what-if", json=body)
    found = answer.json()

    assert answer.status_code == 200, answer.text
    for name in ("p10", "p50", "p90", "mean"):
        changed, before = Decimal(found["changed"][name]), Decimal(found["as_it_is"][name])
        assert abs(changed - before - Decimal(found["difference"][name])) <= Decimal("0.01")
    assert Decimal(found["difference"]["mean"]) > 0


async def test_without_history_the_answer_says_so(world: World) -> None:
    await world.apply(*small_company(), a_deal(500, 8, owner_id=1))
    await world.settle()
    async with world.client(bearer("ops")) as client:
        found = await forecast(client)

    assert found["distribution"] is None
    assert found["reason"].startswith("0 deals of the last 730 days are closed")
    assert (found["open_deals"], found["open_value"], found["backtest"]) == (1, "100.00", [])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"period": "week:2026-11-02"}, "month:, quarter:, half: or year:"),
        ({"period": "range:2026-11-01..2026-11-15"}, "month:, quarter:, half: or year:"),
        ({"period": "year:2032-01-01"}, "forecasts reach"),
        ({"metric": "calls_made"}, "revenue_won"),
        ({"subject": "someone"}, "expected person:<id>"),
    ],
)
async def test_a_wrong_question_is_told_what_is_right(
    ops: httpx.AsyncClient, asked: dict[str, str], says: str
) -> None:
    answer = await ops.get(
        "/v1/forecasts", params={"subject": "org:all", "period": NOVEMBER} | asked
    )

    assert answer.status_code == 422
    assert says in answer.text


async def test_tenants_never_meet(company: World) -> None:
    async with company.client(bearer("ops", tenant="other")) as client:
        found = await forecast(client, "org:all")

    assert (found["open_deals"], found["learnt_from"]) == (0, 0)
