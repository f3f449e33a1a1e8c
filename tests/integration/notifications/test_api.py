"""Every route: what it shows to whom, and what it refuses."""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from kit.settings import KitSettings
from schemas.directory import Membership, Person, Team
from services.notifications import api
from services.notifications.app import create_app
from services.notifications.settings import Settings
from tests.integration.notifications.conftest import NewWorld, World, a_directory, a_measure
from tests.integration.notifications.test_alerts import BIG, LOW, a_deal
from tests.support import DEV_SECRET, bearer

ROUTES = [
    ("GET", "/v1/inbox"),
    ("POST", f"/v1/inbox/{uuid.uuid4()}/read"),
    ("GET", "/v1/inbox/events"),
    ("GET", "/v1/feeds/north"),
    ("GET", "/v1/alerts"),
    ("GET", "/v1/deliveries"),
    ("GET", "/v1/rules"),
]
Asking = Callable[..., Any]
NOBODY = str(uuid.UUID(int=0))


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """Ann has a big deal and little activity; east is another team, and `other` another tenant."""
    common: dict[str, Any] = {"tenant": "acme", "version": 1}
    east = [
        Team(**common, id="east", name="East"),
        Person(**common, id="eve", name="Eve", role="manager"),
        Membership(**common, id="m9", person="eve", team="east", manages=True),
    ]
    await world.worker().everything(
        *a_directory(), *east, a_deal(), a_measure("calls_made", 1),
        a_measure("calls_made", 8, person="ben"),
    )  # fmt: skip
    settings = Settings(
        kit=KitSettings(dev_secret=DEV_SECRET),
        database=world.database.engine.url.render_as_string(hide_password=False).replace(
            "+asyncpg", ""
        ),
    )
    app = create_app(settings)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
    await app.state.service.database.close()


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_nobody_is_answered_without_a_token(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (bearer("rep", person="ann"), [200, 404, 200, 403, 403, 200]),
        (bearer("rep", person="zoe"), [200, 404, 403, 403, 403, 200]),
        (bearer("manager", person="mia"), [200, 404, 200, 200, 403, 200]),
        (bearer("manager", person="eve"), [200, 404, 403, 200, 403, 200]),
        (bearer("manager"), [403, 403, 403, 200, 403, 200]),
        (bearer("finance"), [403, 403, 200, 200, 403, 200]),
        (bearer("ops"), [403, 403, 200, 200, 200, 200]),
        (bearer("admin", person="root"), [200, 404, 200, 200, 200, 200]),
        (bearer(), [403, 403, 403, 403, 403, 403]),
    ],
)
async def test_who_may_ask_what(
    client: httpx.AsyncClient, headers: dict[str, str], expected: list[int]
) -> None:
    routes = [route for route in ROUTES if route[1] != "/v1/inbox/events"]
    answers = [await client.request(m, path, headers=headers) for m, path in routes]
    assert [answer.status_code for answer in answers] == expected


async def test_another_tenant_sees_nothing(client: httpx.AsyncClient) -> None:
    other = bearer("admin", person="ann", tenant="other")
    mine = (await client.get("/v1/inbox", headers=bearer("rep", person="ann"))).json()

    assert (await client.get("/v1/inbox", headers=other)).json()["items"] == []
    assert (await client.get("/v1/feeds/north", headers=other)).json()["items"] == []
    assert (await client.get("/v1/alerts", headers=other)).json()["items"] == []
    assert (await client.get("/v1/deliveries", headers=other)).json()["items"] == []
    item = mine["items"][0]["id"]
    assert (await client.post(f"/v1/inbox/{item}/read", headers=other)).status_code == 404


async def test_an_inbox_is_read(client: httpx.AsyncClient) -> None:
    ann = bearer("rep", person="ann")
    inbox = (await client.get("/v1/inbox", headers=ann)).json()
    item = inbox["items"][0]
    foreign = await client.post(f"/v1/inbox/{item['id']}/read", headers=bearer("rep", person="ben"))
    first = await client.post(f"/v1/inbox/{item['id']}/read", headers=ann)
    second = await client.post(f"/v1/inbox/{item['id']}/read", headers=ann)

    assert [i["rule"] for i in inbox["items"]] == ["activity-below-expectation", "big-deal-won"]
    assert inbox["unread"] == 2
    assert foreign.status_code == 404
    assert first.json()["read_at"] is not None
    assert second.json() == first.json()
    assert (await client.get("/v1/inbox", headers=ann)).json()["unread"] == 1


async def test_read_marks_are_published_and_restored(
    client: httpx.AsyncClient, world: World, new_world: NewWorld
) -> None:
    ann = bearer("rep", person="ann")
    for item in (await client.get("/v1/inbox", headers=ann)).json()["items"]:
        await client.post(f"/v1/inbox/{item['id']}/read", headers=ann)
    alerts = (await world.alerts()).values()
    rebuilt: World = await new_world()
    await rebuilt.worker().apply(*alerts)

    assert {entry for alert in alerts for entry in alert.read} == {"inbox/person:ann"}
    rows = await rebuilt.all("SELECT recipient FROM delivery WHERE read_at IS NOT NULL")
    assert [row["recipient"] for row in rows] == ["person:ann", "person:ann"]


async def test_lists_are_paged(client: httpx.AsyncClient) -> None:
    ann = bearer("rep", person="ann")
    for path, headers in (
        ("/v1/inbox", ann), ("/v1/alerts", bearer("ops")), ("/v1/deliveries", bearer("ops")),
    ):  # fmt: skip
        whole = (await client.get(path, headers=headers)).json()["items"]
        found, cursor = [], None
        while True:
            parameters = {"limit": 1} | ({"cursor": cursor} if cursor else {})
            page = (await client.get(path, headers=headers, params=parameters)).json()
            found += page["items"]
            cursor = page["next"]
            if cursor is None:
                break
        assert found == whole
        assert len(found) > 1


@pytest.mark.parametrize("cursor", ["x", "bnVsbA", "W10", "WzEsMl0", "é", "A" * 600])
@pytest.mark.parametrize("path", ["/v1/inbox", "/v1/alerts", "/v1/deliveries", "/v1/feeds/north"])
async def test_a_made_up_cursor_is_refused(
    client: httpx.AsyncClient, path: str, cursor: str
) -> None:
    headers = bearer("admin", person="ann")
    answer = await client.get(path, headers=headers, params={"cursor": cursor})
    assert answer.status_code == 422


HOSTILE: dict[str, list[list[Any]]] = {
    "/v1/inbox": [[2**63, NOBODY], [-1, NOBODY], [2**80, NOBODY]],
    "/v1/feeds/north": [[2**63, NOBODY], [-(2**63) - 1, NOBODY]],
    "/v1/alerts": [
        ["2026-11-03T00:00:00Z", "\x00", "a", "b"],
        ["2026-11-03T00:00:00", "a", "a", "b"],
        ["0001-01-01T00:00:00+14:00", "a", "a", "b"],
        ["9999-12-31T23:59:59-14:00", "a", "a", "b"],
    ],
    "/v1/deliveries": [
        ["0001-01-01T00:00:00+14:00", NOBODY],
        ["9999-12-31T23:59:59-14:00", NOBODY],
        ["2026-11-03T00:00:00", NOBODY],
    ],
}


@pytest.mark.parametrize(("path", "place"), [(p, v) for p, vs in HOSTILE.items() for v in vs])
async def test_a_cursor_that_postgresql_could_not_take_is_refused(
    client: httpx.AsyncClient, path: str, place: list[Any]
) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(place).encode()).decode()
    answer = await client.get(
        path, headers=bearer("admin", person="ann"), params={"cursor": cursor}
    )
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("path", ["/v1/feeds/a%00b", "/v1/alerts?rule=%00", "/v1/inbox/%00/read"])
async def test_a_zero_byte_is_refused(client: httpx.AsyncClient, path: str) -> None:
    method = "POST" if path.endswith("read") else "GET"
    answer = await client.request(method, path, headers=bearer("admin", person="ann"))
    assert answer.status_code == 422, answer.text


async def test_managers_see_alerts_about_their_people(client: httpx.AsyncClient) -> None:
    async def keys(headers: dict[str, str], **filters: str) -> set[str]:
        found = (await client.get("/v1/alerts", headers=headers, params=filters)).json()["items"]
        return {f"{a['tenant']}/{a['rule']}/{a['subject']}/{a['window']}" for a in found}

    assert await keys(bearer("manager", person="mia")) == {BIG, LOW}
    assert await keys(bearer("manager", person="max")) == {BIG, LOW}
    assert await keys(bearer("manager", person="eve")) == set()
    assert await keys(bearer("manager")) == set()
    assert await keys(bearer("ops"), state="resolved") == set()
    assert await keys(bearer("ops"), rule="big-deal-won") == {BIG}


async def test_what_has_not_changed_is_not_sent_again(client: httpx.AsyncClient) -> None:
    headers = bearer("admin", person="ann")
    for path in ("/v1/inbox", "/v1/feeds/north", "/v1/alerts", "/v1/rules"):
        first = await client.get(path, headers=headers)
        again = await client.get(path, headers=headers | {"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_a_stream_resumes_without_a_gap_and_goes_on(
    client: httpx.AsyncClient, world: World
) -> None:
    feed = api.Feed(world.database, limit=10)
    ann = bearer("rep", person="ann")
    newest, older = (await client.get("/v1/inbox", headers=ann)).json()["items"]
    stream = feed.follow("acme", "person:ann", older["sequence"])

    missed = await anext(stream)
    await world.worker().everything(a_measure("calls_made", 2, person="ben", version=2))
    await world.worker().everything(
        a_deal(2, name="Bigger"), a_measure("calls_made", 1, day="2026-10-30")
    )
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await feed.poll()
    live = await asyncio.wait_for(waiting, 5)
    await stream.aclose()

    assert missed.id == newest["id"]
    assert live.window == "day:2026-10-30"
    assert live.sequence > missed.sequence
    assert json.loads(json.dumps(feed._streams)) == {}
