"""HTTP: plans in, statements out, and nobody sees what isn't theirs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from kit.auth import development_token
from kit.consumer import Batch
from kit.service import Service
from kit.settings import KitSettings
from schemas.base import State
from services.payouts.app import Settings, create_app
from tests.integration.payouts.world import (
    QUARTER,
    deal,
    document,
    goal,
    member,
    organisation,
    owner,
    person,
    team,
)
from tests.support import bearer

PLAN: dict[str, Any] = {"content": httpx.Response(200, json=document()).content}
ANN = f"/v1/statements/ann/ae/{QUARTER}"
FINANCE = bearer("finance")
COMPANY = (
    organisation(),
    *(person(name) for name in ("ann", "bob", "cat")),
    person("meg", role="manager"),
    team("west"),
    team("east"),
    member("ann", "west"),
    member("bob", "east"),
    member("meg", "west", manages=True),
    *(owner(number, name) for number, name in (("1", "ann"), ("2", "bob"))),
    goal("ann", "1000"),
    goal("bob", "1000"),
)


class Client(httpx.AsyncClient):
    """A client of an application in this process, and the service behind it."""

    service: Service

    async def apply(self, *states: State) -> None:
        async with self.service.database.transaction() as transaction:
            await self.service.apply(transaction, Batch(states))


@pytest.fixture
async def app(kit_settings: KitSettings, new_database: Callable[[], Any]) -> Any:
    return create_app(Settings(kit=kit_settings, database=await new_database()))


@pytest.fixture
async def client(app: Any) -> AsyncIterator[Client]:
    """Store and publisher, no consumer: what is applied, is applied by the test."""
    async with (
        app.state.service.connected(),
        Client(transport=httpx.ASGITransport(app), base_url="http://test") as made,
    ):
        made.service = app.state.service
        await made.apply(*COMPANY)
        yield made


async def test_a_statement_opens_into_everything_behind_it(client: Client) -> None:
    put = await client.put("/v1/plans/ae", headers=FINANCE, **PLAN)
    assert (put.status_code, put.json()["revision"], put.headers["etag"]) == (200, 1, '"1"')
    await client.apply(deal(1, "900"), deal(2, "800", version=4), deal(3, currency="EUR"))

    response = await client.get(ANN, headers=bearer("rep", person="ann"))

    statement = response.json()
    assert statement["earned"] == "110.00"
    assert (statement["quota"], statement["attainment"], statement["tier"]) == ("1000", "1.7", 2)
    [component] = statement["components"]
    line = component["lines"][1]
    assert line["record"] == {"type": "opportunity", "id": "crm:2", "version": 4}
    assert [(s["tier"], s["amount"], s["pay"]) for s in line["slices"]] == [
        (0, "100", "5"),
        (1, "500", "40"),
        (2, "200", "20"),
    ]
    assert (line["unrounded"], line["earned"]) == ("65", "65.00")
    [finding] = statement["findings"]
    assert (finding["reason"], finding["record"]["id"]) == ("currency_differs", "crm:3")

    cached = await client.get(ANN, headers=FINANCE | {"If-None-Match": response.headers["etag"]})
    assert cached.status_code == 304
    transfers = (await client.get(f"{ANN}/transfers?limit=1", headers=FINANCE)).json()
    assert transfers["items"][0]["amount"] == "45.00"
    rest = await client.get(f"{ANN}/transfers?cursor={transfers['next']}", headers=FINANCE)
    assert [t["amount"] for t in rest.json()["items"]] == ["65.00"]
    assert rest.json()["next"] is None
    verified = (await client.get("/v1/ledger/verify", headers=FINANCE)).json()
    assert verified == {"balanced": True, "transfers": 2, "unbalanced": []}
    balances = (await client.get("/v1/ledger/balances", headers=FINANCE)).json()["items"]
    assert {b["account"]: b["balance"] for b in balances} == {
        "expense:ae": "110.00",
        "payable:ann": "-110.00",
    }


async def test_lists_come_in_pages_and_show_what_one_may_see(client: Client) -> None:
    await client.put("/v1/plans/ae", headers=FINANCE, **PLAN)
    await client.apply(deal(1), deal(2, by="2"), deal(3, currency="EUR"), deal(4, by="9"))

    async def payees(headers: dict[str, str], query: str = "") -> list[str]:
        response = await client.get(f"/v1/statements{query}", headers=headers)
        return [item["payee"] for item in response.json()["items"]]

    assert await payees(FINANCE) == ["ann", "bob"]
    assert await payees(bearer("ops")) == ["ann", "bob"]
    assert await payees(bearer("admin")) == ["ann", "bob"]
    assert await payees(bearer("rep", person="bob")) == ["bob"]
    assert await payees(bearer("manager", person="meg")) == ["ann"]
    assert await payees(bearer("rep", person="meg")) == []
    assert await payees(bearer("finance", tenant="other")) == []
    assert await payees(FINANCE, "?period=quarter:2026-07-01") == []
    assert await payees(FINANCE, "?plan=ae") == ["ann", "bob"]
    first = (await client.get("/v1/earnings/all?limit=1", headers=FINANCE)).json()
    assert first["items"] == [
        {"payee": "ann", "plan": "ae", "period": QUARTER, "currency": "USD", "earned": "50.00"}
    ]
    second = await client.get(f"/v1/earnings/all?cursor={first['next']}", headers=FINANCE)
    assert [item["payee"] for item in second.json()["items"]] == ["bob"]

    async def findings(headers: dict[str, str]) -> list[str]:
        response = await client.get("/v1/findings", headers=headers)
        return [item["reason"] for item in response.json()["items"]]

    assert await findings(FINANCE) == ["currency_differs", "owner_unmapped"]
    assert await findings(bearer("rep", person="ann")) == ["currency_differs"]
    assert await findings(bearer("rep", person="bob")) == []


ROUTES = [
    ("GET", ANN, {"finance", "ops", "rep ann", "manager meg"}),
    ("GET", f"{ANN}/transfers", {"finance", "ops", "rep ann", "manager meg"}),
    ("GET", "/v1/statements", {"finance", "ops", "rep ann", "rep bob", "manager meg"}),
    ("GET", "/v1/findings", {"finance", "ops", "rep ann", "rep bob", "manager meg"}),
    ("GET", "/v1/plans", {"finance", "ops", "rep ann", "rep bob", "manager meg"}),
    ("GET", "/v1/plans/ae", {"finance", "ops", "rep ann", "rep bob", "manager meg"}),
    ("POST", "/v1/plans/lint", {"finance", "ops", "rep ann", "rep bob", "manager meg"}),
    ("GET", "/v1/earnings/all", {"finance", "ops"}),
    ("GET", "/v1/ledger/verify", {"finance"}),
    ("GET", "/v1/ledger/balances", {"finance"}),
    ("PUT", "/v1/plans/ae", {"finance"}),
    ("DELETE", "/v1/plans/ae", {"finance"}),
]


def test_every_route_is_in_the_table_of_permissions(app: Any) -> None:
    declared = {
        (method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }
    template = {ANN: "/v1/statements/{payee}/{plan}/{period}"}
    template[f"{ANN}/transfers"] = template[ANN] + "/transfers"
    template["/v1/plans/ae"] = "/v1/plans/{plan_id}"
    assert declared == {(method, template.get(path, path)) for method, path, _ in ROUTES}


async def test_every_route_asks_who_is_asking(client: Client) -> None:
    await client.put("/v1/plans/ae", headers=FINANCE, **PLAN)
    await client.apply(deal(1))
    wrong = development_token("another-secret-of-32-characters!", tenant="acme", roles=["admin"])
    for method, path, allowed in ROUTES:
        body = PLAN if method in ("PUT", "POST") else {}
        for headers in ({}, {"Authorization": f"Bearer {wrong}"}, {"X-API-Key": "pk_guess"}):
            response = await client.request(method, path, headers=headers, **body)
            assert response.status_code == 401, (method, path)
            assert response.headers["content-type"] == "application/problem+json"
        for caller in ("rep bob", "rep ann", "manager meg", "ops", "finance"):
            role, _, who = caller.partition(" ")
            response = await client.request(method, path, headers=bearer(role, person=who), **body)
            assert response.status_code == (200 if caller in allowed else 403), (path, caller)
        nobody = await client.request(method, path, headers=bearer(), **body)
        assert nobody.status_code in (200, 403)
        assert nobody.status_code == 403 or not nobody.json()["items"]


async def test_another_tenant_sees_and_changes_nothing(client: Client) -> None:
    await client.put("/v1/plans/ae", headers=FINANCE, **PLAN)
    await client.apply(deal(1))
    other = bearer("admin", tenant="other")
    for path in (ANN, "/v1/plans/ae"):
        assert (await client.get(path, headers=other)).status_code == 404
    for path in ("/v1/statements", "/v1/plans", "/v1/findings", "/v1/earnings/all"):
        assert (await client.get(path, headers=other)).json()["items"] == []
    transfers = await client.get(f"{ANN}/transfers", headers=other)
    assert transfers.json()["items"] == []
    assert (await client.get("/v1/ledger/verify", headers=other)).json()["transfers"] == 0
    assert (await client.delete("/v1/plans/ae", headers=other)).status_code == 404
    assert (await client.put("/v1/plans/ae", headers=other, **PLAN)).status_code == 200
    assert (await client.get(ANN, headers=FINANCE)).json()["earned"] == "50.00"


async def test_plans_have_revisions_and_guards(client: Client) -> None:
    text = """
plan: yam
name: In YAML
currency: USD
period: month
effective: {from: 2026-01-01, to: 2027-01-01}
payees: {people: [ann]}
rounding: half_up_per_line
components:
  - id: all
    credit: {record: opportunity, when: {status: won}, basis: amount, date: closed_at, share: 50}
    rate: {type: flat, rate: 0.1}
"""
    await client.apply(deal(1))
    path = "/v1/plans/yam"
    assert (await client.put(path, headers=FINANCE, content=text)).json()["revision"] == 1
    again = (await client.put(path, headers=FINANCE, content=text)).json()
    assert (again["revision"], again["changed"]) == (1, False)
    stale = FINANCE | {"If-Match": '"7"'}
    assert (await client.put(path, headers=stale, content=text)).status_code == 412
    current = FINANCE | {"If-Match": '"1"'}
    better = text.replace("0.1", "0.2")
    assert (await client.put(path, headers=current, content=better)).json()["revision"] == 2
    month = "/v1/statements/ann/yam/month:2026-10-01"
    statement = (await client.get(month, headers=FINANCE)).json()
    assert (statement["earned"], statement["plan_revision"]) == ("100.00", 2)
    assert (await client.get(path, headers=FINANCE)).json()["document"]["period"] == "month"
    assert (await client.delete(path, headers=FINANCE)).status_code == 200
    assert (await client.delete(path, headers=FINANCE)).status_code == 404
    assert (await client.get(path, headers=FINANCE)).status_code == 404
    assert (await client.get(month, headers=FINANCE)).json()["earned"] == "0.00"
    revived = (await client.put(path, headers=FINANCE, content=text)).json()
    assert revived["revision"] == 4
    assert (await client.get(month, headers=FINANCE)).json()["earned"] == "50.00"


async def test_bad_requests_get_clear_answers(client: Client) -> None:
    bad = await client.put("/v1/plans/ae", headers=FINANCE, content="plan: ae\nperiod: week")
    assert (bad.status_code, bad.json()["type"]) == (422, "urn:pacesetter:problem:invalid-plan")
    assert {"where": "period", "what": "'week' is not one of month, quarter, year", "line": 2} in (
        bad.json()["errors"]
    )
    lint = await client.post("/v1/plans/lint", headers=FINANCE, content=b"\xff")
    assert lint.json()["valid"] is False
    assert (await client.put("/v1/plans/zz", headers=FINANCE, **PLAN)).status_code == 422
    huge = await client.put("/v1/plans/ae", headers=FINANCE, content="a" * 200_000)
    assert huge.status_code == 413
    await client.put("/v1/plans/ae", headers=FINANCE, **PLAN)
    for path, status in (
        (f"/v1/statements/zoe/ae/{QUARTER}", 404),
        (f"/v1/statements/ann/nope/{QUARTER}", 404),
        ("/v1/statements/ann/ae/month:2026-10-01", 404),
        ("/v1/statements/ann/ae/quarter:2026-10-02", 404),
        ("/v1/statements/ann/ae/quarter", 422),
        ("/v1/statements/ann/ae/quarter:9999-10-01", 422),
        (f"/v1/statements/ann%00/ae/{QUARTER}", 422),
        ("/v1/statements?cursor=zzz", 422),
        ("/v1/statements?cursor=%C3%A9", 422),
        ("/v1/statements?limit=0", 422),
        ("/v1/statements?period=x", 422),
        ("/v1/statements?plan=%00", 422),
        ("/v1/findings?reason=x", 422),
        (f"{ANN}/transfers?cursor=WyJ4Il0=", 422),
    ):
        response = await client.get(path, headers=FINANCE)
        assert response.status_code == status, (path, response.text)
        assert response.headers["content-type"] == "application/problem+json"
    empty = (await client.get(ANN, headers=FINANCE)).json()
    assert (empty["earned"], empty["quota"], empty["version"]) == ("0.00", "1000", 0)


async def test_the_service_pays_from_kafka_and_comes_out_the_same_when_rebuilt(app: Any) -> None:
    from kit.rebuild import rebuild  # noqa: PLC0415  # only here

    service: Service = app.state.service
    async with (
        service.running(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        await client.put("/v1/plans/ae", headers=FINANCE, **PLAN)
        await service.publisher.publish([deal(1, "900"), deal(2, "800"), *COMPANY])
        async with asyncio.timeout(60):
            while True:
                response = await client.get(ANN, headers=FINANCE)
                if response.status_code == 200 and response.json()["earned"] == "110.00":
                    break
                await asyncio.sleep(0.2)
        await service.publisher.publish([deal(2, "800", version=2, deleted=True)])
        async with asyncio.timeout(60):
            while (await client.get(ANN, headers=FINANCE)).json()["earned"] != "45.00":  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        assert (await client.get("/readyz")).status_code == 200
        telemetry = (await client.get("/metrics")).text
        assert "pacesetter_payouts_unbalanced_statements 0.0" in telemetry
        before = await service.checksum()
    async with asyncio.timeout(60):
        assert await rebuild(service) == before
