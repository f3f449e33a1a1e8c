"""Numbers, records, goals and boards over HTTP, and who may see them."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import httpx
import pytest

from schemas.directory import Assignment
from tests.integration.metrics.world import METRICS, World, call, small_company, team, won
from tests.support import TENANT, a_record, bearer

NOVEMBER = "month:2026-11-01"


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 11, 3, 12, tzinfo=UTC)
    monkeypatch.setattr("services.metrics.app.clock.load", lambda _: lambda: now)


@pytest.fixture
async def company(world: World) -> World:
    """Person 1: 300 EUR of two deals, 50 USD, a call; person 2: 300 EUR; person 3: a lost deal."""
    await world.apply(
        *small_company(),
        Assignment(tenant=TENANT, version=1, id="a1", person="p1", territory="home"),
        won("crm:1", owner_id=1, amount="100"),
        won("crm:2", owner_id=1, amount="200", closed_at="2026-11-03T08:00:00Z"),
        won("crm:3", owner_id=1, amount="50", currency="USD"),
        won("crm:4", owner_id=2, amount="300"),
        won("crm:5", owner_id=3, status="lost"),
        won("crm:6", owner_id=9, amount="7"),
        call("crm:7", owner_id=1),
    )
    return world


@pytest.fixture
async def ops(company: World) -> AsyncIterator[httpx.AsyncClient]:
    async with company.client(bearer("ops")) as client:
        yield client


async def get(client: httpx.AsyncClient, path: str, **params: Any) -> Any:
    answer = await client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def asking(metric: str, subject: str = "person:p1", period: str = NOVEMBER) -> dict[str, str]:
    return {"subject": subject, "metric": metric, "period": period}


async def test_a_value_is_exact_before_and_after_folding(
    company: World, ops: httpx.AsyncClient
) -> None:
    asked = asking("revenue_won")
    before = await get(ops, "/v1/values", **asked)
    await company.settle()
    after = await get(ops, "/v1/values", **asked)

    assert before == after
    assert (after["value"], after["unit"], after["count"]) == ("300.00", "EUR", 2)
    assert after["other_units"] == ["USD"]
    assert (await get(ops, "/v1/values", **asked, unit="USD"))["value"] == "50.00"
    assert (await get(ops, "/v1/values", **asking("revenue_won", "team:all-sales")))[
        "value"
    ] == "600.00"
    assert (await get(ops, "/v1/values", **asking("revenue_won", "org:all")))["value"] == "600.00"


async def test_no_data_is_not_zero(ops: httpx.AsyncClient) -> None:
    nothing = await get(ops, "/v1/values", **asking("win_rate", "person:p4"))
    some = await get(ops, "/v1/values", **asking("win_rate", "org:all"))

    assert (nothing["value"], nothing["count"]) == (None, 0)
    assert (some["value"], some["count"], some["unit"]) == ("0.8000", 5, "ratio")


async def test_numbers_asked_for_together_are_those_asked_for_one_by_one(
    ops: httpx.AsyncClient,
) -> None:
    await ops.put("/v1/goals", json=[asking("deals_won") | {"target": 5}])
    together = await get(ops, "/v1/values/of", subject="person:p1", period=NOVEMBER)

    listed = (await get(ops, "/v1/metrics"))["metrics"]
    alone = [m["id"] for m in listed if not m.get("part_only") and not m.get("for_each")]
    assert [number["metric"] for number in together["values"]] == alone
    for number in together["values"]:
        assert number == await get(ops, "/v1/values", **asking(number["metric"]))
    of = {number["metric"]: number for number in together["values"]}
    assert of["deals_won"]["attainment"] == "0.6000"
    assert of["sales_cycle_median"]["value"] is not None
    assert together["withheld"] == []


async def test_subjects_asked_for_together_are_those_asked_for_one_by_one(
    company: World, ops: httpx.AsyncClient
) -> None:
    await ops.put("/v1/goals", json=[asking("deals_won") | {"target": 5}])
    subjects = ["team:north", "person:p4", "person:p1", "org:all", "team:north", "person:p2"]
    asked = {"metric": "deals_won", "period": NOVEMBER, "subject": subjects}
    for _ in range(2):  # before and after folding
        for metric in ("deals_won", "revenue_won", "win_rate", "sales_cycle_median"):
            found = await get(ops, "/v1/values/each", **asked | {"metric": metric})
            assert [each["subject"] for each in found["values"]] == list(dict.fromkeys(subjects))
            for each in found["values"]:
                assert each == await get(ops, "/v1/values", **asking(metric, each["subject"]))
        await company.settle()
    for wrong in ([], ["nonsense"], ["team:north"] * 101):
        answer = await ops.get("/v1/values/each", params=asked | {"subject": wrong})
        assert answer.status_code == 422
    async with company.client(bearer("rep", person="p1")) as client:
        found = await get(client, "/v1/values/each", **asked)
    assert [each["subject"] for each in found["values"]] == ["team:north", "person:p1", "org:all"]
    withheld = {each["subject"]: each["reason"] for each in found["withheld"]}
    assert set(withheld) == {"person:p2", "person:p4"}
    assert set(withheld.values()) == {"You may see yourself and the people you manage."}
    async with company.client(bearer("rep", person="p1")) as client:
        found = await get(client, "/v1/values/each", **asked | {"metric": "margin"})
    assert [each["subject"] for each in found["values"]] == ["person:p1"]
    withheld = {each["subject"]: each["reason"] for each in found["withheld"]}
    assert withheld["team:north"] == withheld["org:all"] == "margin is for finance."


async def test_some_numbers_are_asked_for_by_name(ops: httpx.AsyncClient) -> None:
    asked = {"subject": "person:p1", "period": NOVEMBER, "unit": "USD"}
    names = ["revenue_won", "calls_made", "stages_entered@demo, 2nd", "revenue_won"]
    found = (await get(ops, "/v1/values/of", **asked, metric=names))["values"]

    assert [(n["metric"], n["value"], n["unit"]) for n in found] == [
        ("revenue_won", "50.00", "USD"),
        ("calls_made", "1", "count"),
        ("stages_entered@demo, 2nd", None, "count"),
    ]
    for wrong, status in (["nonsense"], 404), (["calls_made"] * 101, 422):
        answer = await ops.get("/v1/values/of", params=asked | {"metric": wrong})
        assert answer.status_code == status
    # Also where none of them is in money.
    answer = await ops.get("/v1/values/of", params=asked | {"metric": "calls_made", "unit": "X"})
    assert answer.status_code == 422
    assert "'X'" in answer.json()["detail"]


async def test_what_is_not_for_the_reader_is_withheld_with_the_reason(
    company: World, ops: httpx.AsyncClient
) -> None:
    visibility = {m["id"]: m["visibility"] for m in (await get(ops, "/v1/metrics"))["metrics"]}
    assert set(visibility.values()) == {"everyone", "managers", "finance"}

    async def told(role: str, person: str, subject: str) -> tuple[set[str], dict[str, str]]:
        async with company.client(bearer(role, person=person)) as client:
            found = await get(client, "/v1/values/of", subject=subject, period=NOVEMBER)
        withheld = {each["metric"]: each["reason"] for each in found["withheld"]}
        return {visibility[number["metric"]] for number in found["values"]}, withheld

    shown, withheld = await told("rep", "p1", "team:north")
    assert shown == {"everyone"}
    assert {visibility[metric] for metric in withheld} == {"managers", "finance"}
    assert withheld["margin"] == "margin is for finance."
    shown, withheld = await told("manager", "p4", "team:north")
    assert shown == {"everyone", "managers"}
    assert {visibility[metric] for metric in withheld} == {"finance"}
    for role, person, subject in ("rep", "p1", "person:p1"), ("finance", "", "team:north"):
        shown, withheld = await told(role, person, subject)
        assert (shown, withheld) == (set(visibility.values()), {})


async def test_an_unchanged_value_is_not_sent_again(ops: httpx.AsyncClient) -> None:
    first = await ops.get("/v1/values", params=asking("revenue_won"))
    etag = first.headers["etag"]
    again = await ops.get(
        "/v1/values", params=asking("revenue_won"), headers={"If-None-Match": etag}
    )

    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("subject", ["person:p1", "team:north", "team:all-sales", "org:all"])
async def test_the_records_add_up_to_the_number(ops: httpx.AsyncClient, subject: str) -> None:
    asked = asking("revenue_won", subject)
    number = await get(ops, "/v1/values", **asked)
    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await get(ops, "/v1/records", **asked, cursor=cursor, limit=1)
        found += page["records"]
        cursor = page["next"]

    assert sum(Decimal(r["value"]) for r in found) == Decimal(number["value"])
    assert len(found) == number["count"]
    assert found[0] == {
        "type": "opportunity",
        "id": "crm:1",
        "name": "",
        "value": "100.00",
        "day": "2026-11-02",
        "at": "2026-11-02T10:00:00+00:00",
        "person": "p1",
        "person_name": "Person 1",
    }


async def test_all_values_come_page_by_page(company: World, ops: httpx.AsyncClient) -> None:
    assert (await get(ops, "/v1/values/all"))["pending"] > 0
    numbers = await company.numbers()
    rows: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await get(ops, "/v1/values/all", cursor=cursor, limit=7)
        rows, cursor = rows + page["rows"], page["next"]

    found = {
        (r["subject"], r["metric"], r["period"], r["unit"]): r["count"]
        for r in rows
        if r["metric"] in METRICS
    }
    assert found == {key: count for key, (_, count) in numbers.items()}
    one = await get(ops, "/v1/values/all", metric="calls_made", period="day:2026-11-03")
    assert [r["subject"] for r in one["rows"]] == [
        "org:all", "person:p1", "role:rep", "team:all-sales", "team:north", "territory:home"
    ]  # fmt: skip


async def test_a_board_ranks_ties_alike_and_puts_no_data_last(
    company: World, ops: httpx.AsyncClient
) -> None:
    await company.settle()
    goal = asking("revenue_won") | {"target": "1200"}
    assert (await ops.put("/v1/goals", json=[goal])).status_code == 200
    board = await get(ops, "/v1/boards/revenue-month")

    assert [(r["rank"], r["name"], r["value"]) for r in board["rows"]] == [
        (1, "Person 1", "300.00"),
        (1, "Person 2", "300.00"),
        (None, "Person 3", None),
        (None, "Person 4", None),
    ]
    assert board["rows"][0] == {
        "rank": 1,
        "subject": "person:p1",
        "name": "Person 1",
        "team": "North",
        "value": "300.00",
        "count": 2,
        "target": "1200.00",
        "attainment": "0.2500",
        "gap_to_next": None,
        "movement": 1,
        "columns": {"deals_won": "3", "calls_made": "1"},
    }
    assert (board["unit"], board["period"]) == ("EUR", NOVEMBER)


async def test_a_board_has_a_gap_and_a_past(company: World, ops: httpx.AsyncClient) -> None:
    await company.settle()
    teams = await get(ops, "/v1/boards/teams-revenue-month")
    assert [(r["rank"], r["subject"], r["gap_to_next"]) for r in teams["rows"]] == [
        (1, "team:all-sales", None),
        (1, "team:north", None),
        (None, "team:south", None),
    ]
    day = await get(ops, "/v1/boards/deals-won-month", date="2026-11-02")
    assert [(r["rank"], r["gap_to_next"]) for r in day["rows"][:2]] == [(1, None), (2, "2")]
    assert (await get(ops, "/v1/boards/revenue-month", date="2026-10-02"))["period"] == (
        "month:2026-10-01"
    )


async def test_the_version_is_the_etag_of_a_board(company: World, ops: httpx.AsyncClient) -> None:
    await company.settle()
    first = await ops.get("/v1/boards/revenue-month")
    seen = {"If-None-Match": first.headers["etag"]}
    same = await ops.get("/v1/boards/revenue-month", headers=seen)
    await company.apply(team("north", "all-sales", version=2, deleted=False))
    other = await ops.get("/v1/boards/revenue-month", headers=seen)

    assert first.json()["version"] == first.headers["etag"].strip('"')
    assert (same.status_code, other.status_code) == (304, 200)


async def test_goals_keep_their_version_until_they_change(
    company: World, ops: httpx.AsyncClient
) -> None:
    goal = asking("calls_made") | {"target": "10", "reason": "ramp"}
    first = (await ops.put("/v1/goals", json=[goal])).json()["goals"][0]
    same = (await ops.put("/v1/goals", json=[goal])).json()["goals"][0]
    more = (await ops.put("/v1/goals", json=[goal | {"target": 12}])).json()["goals"][0]
    value = await get(ops, "/v1/values", **asking("calls_made"))
    gone = (await ops.put("/v1/goals", json=[goal | {"target": None}])).json()["goals"][0]

    assert first["version"] == same["version"] < more["version"] < gone["version"]
    assert (value["target"], value["attainment_exact"]) == ("12", "1/12")
    assert gone["target"] is None
    assert (await get(ops, "/v1/goals"))["goals"] == []
    assert [g.version for g in company.outbox.states][-1] == gone["version"]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"metric": "nonsense"}, "unknown-metric"),
        ({"subject": "person:"}, "invalid-subject"),
        ({"subject": "p1"}, "invalid-subject"),
        ({"period": "month:2026-11-02"}, "invalid-period"),
        ({"period": "fortnight:2026-11-02"}, "invalid-period"),
        ({"period": "day:9999-12-31"}, "invalid-period"),
        ({"unit": "???"}, "invalid-unit"),
        ({"metric": "calls_made", "unit": "EUR"}, "invalid-unit"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_a_reason(
    ops: httpx.AsyncClient, change: dict[str, str], kind: str
) -> None:
    asked = asking("revenue_won") | change
    for answer in (
        await ops.get("/v1/values", params=asked),
        await ops.put("/v1/goals", json=[asked | {"target": "1"}]),
    ):
        assert answer.status_code in (404, 422)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == f"urn:pacesetter:problem:{kind}"
    for broken in ("x", "eyJ9", "\u00e9"):
        answer = await ops.get("/v1/values/all", params={"cursor": broken})
        assert answer.status_code == 422
    assert (await ops.get("/v1/records", params=asking("win_rate"))).status_code == 422
    assert (await ops.get("/v1/boards/nonsense")).status_code == 404
    assert (await ops.get("/v1/boards/nonsense/events")).status_code == 404


@pytest.mark.parametrize(
    "asked",
    [
        "/v1/values?metric=stages_entered@%00&subject=org:all&period=month:2026-11-01",
        "/v1/records?metric=stages_entered@%00&subject=org:all&period=month:2026-11-01",
        "/v1/series?metric=calls_made&subject=org:all&grain=year&from=9998-01-01&to=9999-12-31",
    ],
)
async def test_what_no_store_or_calendar_has_is_refused(ops: httpx.AsyncClient, asked: str) -> None:
    assert (await ops.get(asked)).status_code in (404, 422)


BOMB = "a: &a [x]\n" + "\n".join(
    f"{after}: &{after} [{', '.join([f'*{name}'] * 10)}]"
    for name, after in pairwise("abcdefghijkl")
)


@pytest.mark.parametrize("path", ["/v1/metrics/lint", "/v1/boards/lint"])
@pytest.mark.parametrize(
    ("document", "status"),
    [
        (BOMB, 422),  # it stands for 10^11 letters
        ("id: x\nwhere: &w {any: [*w]}", 422),
        ("id: x\nplaced_by: 2026-13-45", 422),
        (f"id: x\nafter: {'1' * 5_000}", 422),
        ('id: x\ntitle: "\\ud800"', 422),
        (f"id: {'x' * 70_000}", 413),
    ],
)
async def test_hostile_documents_are_refused_at_once(
    ops: httpx.AsyncClient, path: str, document: str, status: int
) -> None:
    answer = await asyncio.wait_for(ops.post(path, content=document), 5)
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/v1/records?subject=org:all&metric=calls_made&period=month:2026-11-01", "\x00"),
        ("/v1/values/all", ["\x00", "day", "2026-11-03", "count", "org:all"]),
        ("/v1/values/all", ["calls_made", "day", "2026-11-03", "count", "a\x00b"]),
    ],
)
async def test_a_cursor_with_a_zero_byte_is_refused(
    ops: httpx.AsyncClient, path: str, place: object
) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(place).encode()).decode()
    path, _, query = path.partition("?")
    answer = await ops.get(path, params=[*httpx.QueryParams(query).items(), ("cursor", cursor)])
    assert answer.status_code == 422, answer.text


ROUTES = [
    ("GET", "/v1/metrics"),
    ("GET", "/v1/values?subject=org:all&metric=calls_made&period=month:2026-11-01"),
    ("GET", "/v1/values/of?subject=org:all&period=month:2026-11-01"),
    ("GET", "/v1/values/each?subject=org:all&metric=calls_made&period=month:2026-11-01"),
    ("GET", "/v1/values/all"),
    ("GET", "/v1/records?subject=org:all&metric=calls_made&period=month:2026-11-01"),
    ("GET", "/v1/records/export?subject=org:all&metric=calls_made&period=month:2026-11-01"),
    ("GET", "/v1/subjects?subject=org:all"),
    ("GET", "/v1/series?subject=org:all&metric=calls_made&grain=day&from=2026-11-01&to=2026-11-02"),
    ("GET", "/v1/funnel?subject=org:all&period=month:2026-11-01"),
    ("GET", "/v1/heatmap?subject=person:p1&metric=calls_made&period=month:2026-11-01"),
    ("GET", "/v1/exposition"),
    ("GET", "/v1/forecasts?subject=org:all&period=month:2026-11-01"),
    ("GET", "/v1/forecasts/backtest?subject=org:all&period=month:2026-11-01"),
    ("POST", "/v1/forecasts/what-if"),
    ("GET", "/v1/metrics/{metric}"),
    ("PUT", "/v1/metrics/{metric}?reason=why"),
    ("DELETE", "/v1/metrics/{metric}?reason=why"),
    ("POST", "/v1/metrics/lint"),
    ("GET", "/v1/recount"),
    ("GET", "/v1/displays"),
    ("GET", "/v1/displays/{display}"),
    ("PUT", "/v1/displays/{display}"),
    ("DELETE", "/v1/displays/{display}"),
    ("GET", "/v1/feed?boards=revenue-month"),
    ("GET", "/v1/goals/course?subject=org:all&metric=calls_made&period=month:2026-11-01"),
    ("PUT", "/v1/goals"),
    ("GET", "/v1/goals"),
    ("GET", "/v1/goals/history?subject=org:all&metric=calls_made&period=month:2026-11-01"),
    ("POST", "/v1/goals/import"),
    ("POST", "/v1/goals/allocate"),
    ("GET", "/v1/goals/roll-up?subject=org:all&metric=calls_made&period=month:2026-11-01"),
    ("GET", "/v1/boards"),
    ("GET", "/v1/boards/revenue-month"),
    ("GET", "/v1/boards/revenue-month/events"),
    ("PUT", "/v1/boards/revenue-month"),
    ("DELETE", "/v1/boards/revenue-month"),
    ("POST", "/v1/boards/lint"),
    ("GET", "/v1/contests"),
    ("GET", "/v1/contests/{contest}"),
    ("PUT", "/v1/contests/{contest}"),
    ("DELETE", "/v1/contests/{contest}"),
    ("GET", "/v1/contests/{contest}/check"),
]


async def test_every_route_wants_to_know_who_asks(company: World) -> None:
    documented = {
        (method.upper(), path)
        for path, methods in company.app.openapi()["paths"].items()
        if path.startswith("/v1")
        for method in methods
    }
    tried = {(m, p.partition("?")[0].replace("revenue-month", "{board}")) for m, p in ROUTES}
    assert tried == documented
    goal = [asking("calls_made") | {"target": 1}]
    async with company.client({}) as nobody:
        for method, path in ROUTES:
            answer = await nobody.request(method, path, json=goal if method == "PUT" else None)
            assert answer.status_code == 401, path


# Who may ask for what: 200 or 403.
SEEN = [
    ("rep", "p1", "GET", "/v1/values?subject=person:p1", 200),
    ("rep", "p1", "GET", "/v1/values?subject=person:p2", 403),
    ("rep", "p1", "GET", "/v1/values?subject=team:north", 200),
    ("rep", "p1", "GET", "/v1/values?subject=team:south", 403),
    ("rep", "p1", "GET", "/v1/values?subject=org:all", 200),
    ("rep", "p1", "GET", "/v1/records?subject=person:p1", 200),
    ("rep", "p1", "GET", "/v1/records?subject=person:p2", 403),
    ("rep", "p1", "GET", "/v1/records?subject=team:north", 403),
    ("rep", "p1", "GET", "/v1/records?subject=org:all", 403),
    ("rep", "p1", "GET", "/v1/values?subject=territory:home", 200),
    ("rep", "p1", "GET", "/v1/values?subject=territory:away", 403),
    ("rep", "p1", "GET", "/v1/values?subject=role:rep", 403),
    ("manager", "p4", "GET", "/v1/values?subject=role:rep", 403),
    ("finance", "", "GET", "/v1/values?subject=role:rep", 200),
    ("rep", "p1", "GET", "/v1/values/of?subject=person:p1", 200),
    ("rep", "p1", "GET", "/v1/values/of?subject=person:p2", 403),
    ("rep", "p1", "GET", "/v1/values/of?subject=team:south", 403),
    ("rep", "p1", "GET", "/v1/values/of?subject=territory:away", 403),
    ("rep", "p1", "GET", "/v1/values/of?subject=role:rep", 403),
    ("manager", "p4", "GET", "/v1/values/of?subject=person:p2", 200),
    ("rep", "p1", "GET", "/v1/exposition", 403),
    ("rep", "p1", "GET", "/v1/values/all", 403),
    ("rep", "p1", "GET", "/v1/boards/revenue-month", 200),
    ("rep", "p1", "PUT", "person:p1", 403),
    ("manager", "p4", "GET", "/v1/values?subject=person:p2", 200),
    ("manager", "p4", "GET", "/v1/values?subject=team:south", 200),
    ("manager", "p4", "GET", "/v1/records?subject=person:p2", 200),
    ("manager", "p4", "GET", "/v1/records?subject=team:south", 200),
    ("manager", "p4", "GET", "/v1/records?subject=org:all", 403),
    ("manager", "p4", "GET", "/v1/values/all", 403),
    ("manager", "p4", "PUT", "person:p2", 200),
    ("manager", "p4", "PUT", "team:north", 200),
    ("manager", "p4", "PUT", "org:all", 403),
    ("manager", "p1", "GET", "/v1/values?subject=person:p2", 403),
    ("manager", "p1", "GET", "/v1/records?subject=team:north", 403),
    ("manager", "p1", "PUT", "person:p2", 403),
    ("manager", "", "PUT", "person:p2", 403),
    ("finance", "", "GET", "/v1/records?subject=org:all", 200),
    ("finance", "", "PUT", "person:p1", 200),
    ("ops", "", "PUT", "org:all", 200),
    ("admin", "", "GET", "/v1/values/all", 200),
]


@pytest.mark.usefixtures("ops")
async def test_each_role_sees_its_own_part(company: World) -> None:
    for role, who, method, path, status in SEEN:
        async with company.client(bearer(role, person=who)) as client:
            if method == "PUT":
                goal = asking("calls_made", path) | {"target": 5}
                answer = await client.put("/v1/goals", json=[goal])
            else:
                rest = {"metric": "revenue_won", "period": NOVEMBER}
                subject = path.partition("subject=")[2]
                params = rest | {"subject": subject} if subject else {}
                answer = await client.get(path.partition("?")[0], params=params)
            assert answer.status_code == status, (role, who, method, path, answer.text)


async def test_another_tenant_sees_nothing(company: World, ops: httpx.AsyncClient) -> None:
    await ops.put("/v1/goals", json=[asking("calls_made") | {"target": 5}])
    await company.settle()
    async with company.client(bearer("admin", tenant="rival")) as rival:
        for subject in ("person:p1", "team:north", "org:all"):
            asked = asking("deals_won", subject)
            assert (await get(rival, "/v1/values", **asked))["value"] is None
            assert (await get(rival, "/v1/records", **asked))["records"] == []
        assert await get(rival, "/v1/values/all") == {"pending": 0, "rows": [], "next": None}
        assert (await get(rival, "/v1/goals"))["goals"] == []
        assert (await get(rival, "/v1/boards/revenue-month"))["rows"] == []


async def test_a_record_of_an_unknown_kind_counts_for_nothing(world: World) -> None:
    await world.apply(*small_company(), a_record("ticket", "crm:1", owner_id="1"))

    assert await world.numbers() == {}
