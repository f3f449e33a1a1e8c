"""Displays outside are told each new order at the top, signed, once, or again under the same id."""

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kit.webhooks import WebhookError
from schemas.spm import BoardDocument
from tests.integration.metrics.world import World, small_company, won
from tests.support import TENANT, bearer

SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()
LOBBY = {
    "url": "http://127.0.0.1:9/hook",
    "secret": f"env:METRICS_SECRET_{TENANT}__LOBBY",
    "board": "revenue-month",
    "top": 2,
}
OPS = bearer("ops")


class Screen:
    """Stands where the poster sends to."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.fails = False

    async def post(self, number: str, body: bytes) -> int:
        self.events.append((number, msgspec.json.decode(body)))
        if self.fails:
            raise WebhookError("answered 500")
        return 204

    @property
    def orders(self) -> list[list[str]]:
        return [[row["subject"] for row in body["data"]["rows"]] for _, body in self.events]


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 11, 3, 12, tzinfo=UTC)
    monkeypatch.setattr("services.metrics.app.clock.load", lambda _: lambda: now)
    monkeypatch.setenv(f"METRICS_SECRET_{TENANT}__LOBBY", SECRET)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    screen = Screen()
    monkeypatch.setattr("kit.webhooks.Poster.post", lambda *given: screen.post(*given[3:5]))
    return screen


@pytest.fixture
async def company(world: World) -> World:
    await world.apply(*small_company())
    return world


async def put(world: World, status: int = 200, **changes: Any) -> Any:
    async with world.client(OPS) as client:
        answer = await client.put("/v1/displays/lobby", json=LOBBY | changes)
    assert answer.status_code == status, answer.text
    return answer.json()


async def delivery(world: World) -> Any:
    async with world.client(OPS) as client:
        return (await client.get("/v1/displays/lobby")).json()["delivery"]


async def turn(world: World, *deals: Any) -> None:
    await world.apply(*deals)
    await world.settle()
    await world.job("displays")
    await world.job("display-events")


async def now_due(world: World) -> None:
    """As if the pause were over."""
    await world.fetch("UPDATE display SET due_at = now() WHERE due_at IS NOT NULL RETURNING id")


async def test_a_display_is_told_an_order_when_it_changes(company: World, screen: Screen) -> None:
    assert (await put(company))["delivery"] is None
    await turn(company)
    await turn(company, won("crm:1"), won("crm:2", owner_id=2, amount="50.00"))
    await turn(company, won("crm:3", amount="7.00"))  # the same order
    await turn(company, won("crm:4", owner_id=3, amount="1.00"))  # below the top
    await turn(company, won("crm:5", owner_id=2, amount="500.00"))
    shown = await delivery(company)

    assert screen.orders == [[], ["person:p1", "person:p2"], ["person:p2", "person:p1"]]
    versions = [body["id"] for _, body in screen.events]
    assert len({number for number, _ in screen.events}) == 3
    assert (shown["state"], shown["status"], shown["failures"]) == ("delivered", "answered 204", 0)
    assert shown["delivered"] == shown["event"] == versions[-1]
    assert sorted(body["sequence"] for _, body in screen.events) == [
        body["sequence"] for _, body in screen.events
    ]


async def test_what_was_not_taken_is_sent_again_as_it_was(company: World, screen: Screen) -> None:
    await put(company)
    screen.fails = True
    await turn(company, won("crm:1"))
    await turn(company)  # nothing is due yet
    failing = await delivery(company)
    await now_due(company)
    screen.fails = False
    await turn(company)

    assert (failing["state"], failing["status"]) == ("waiting", "answered 500")
    assert failing["next_attempt_at"] is not None
    assert len(screen.events) == 2
    assert screen.events[0] == screen.events[1]
    assert (await delivery(company))["state"] == "delivered"


async def test_who_dies_before_its_commit_sends_the_same_once_more(
    company: World, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(company)
    with monkeypatch.context() as patch:

        async def dies(*_: object) -> None:
            raise ConnectionError

        patch.setattr("services.metrics.displays.store.taken", dies)
        with pytest.raises(ConnectionError):
            await turn(company, won("crm:1"))
    await turn(company)  # somebody else may still be at it
    assert len(screen.events) == 1
    await now_due(company)
    await turn(company)
    await turn(company)

    assert len(screen.events) == 2
    assert screen.events[0] == screen.events[1]


async def test_a_failing_display_is_told_the_newest_only_and_keeps_its_pause(
    company: World, screen: Screen
) -> None:
    await put(company)
    screen.fails = True
    await turn(company, won("crm:1"))
    await turn(company, won("crm:2", owner_id=2, amount="500.00"))
    await turn(company, won("crm:3", owner_id=3, amount="900.00"))
    assert len(screen.events) == 1
    screen.fails = False
    await now_due(company)
    await turn(company)

    assert screen.orders[1:] == [["person:p3", "person:p2"]]


async def test_after_a_day_it_is_given_up_until_the_order_changes(
    company: World, screen: Screen
) -> None:
    await put(company)
    screen.fails = True
    await turn(company, won("crm:1"))
    await company.fetch(
        "UPDATE display SET due_at = now(), made_at = now() - interval '25 h' RETURNING id"
    )
    await turn(company)
    given_up = await delivery(company)
    await turn(company)
    assert (given_up["state"], given_up["next_attempt_at"], given_up["failures"]) == (
        "given up",
        None,
        2,
    )
    assert len(screen.events) == 2
    screen.fails = False
    await turn(company, won("crm:2", owner_id=2, amount="500.00"))

    assert (await delivery(company))["state"] == "delivered"


async def test_another_receiver_is_told_at_once_and_a_deleted_one_never(
    company: World, screen: Screen
) -> None:
    await put(company)
    screen.fails = True
    await turn(company, won("crm:1"))
    screen.fails = False
    await put(company, top=1)
    await turn(company)
    assert screen.orders[-1] == ["person:p1"]
    async with company.client(OPS) as client:
        assert (await client.delete("/v1/displays/lobby")).status_code == 204
        assert (await client.delete("/v1/displays/lobby")).status_code == 404
        assert (await client.get("/v1/displays/lobby")).status_code == 404
        assert (await client.get("/v1/displays")).json() == {"displays": []}
    await turn(company, won("crm:2", owner_id=2, amount="500.00"))

    assert len(screen.events) == 2
    assert await company.fetch("SELECT * FROM display") == []


async def test_a_display_is_a_state_and_comes_back_from_its_topic(
    company: World, screen: Screen
) -> None:
    await put(company)
    states = [s for s in company.outbox.states if isinstance(s, BoardDocument)]
    assert SECRET not in states[0].encode().decode()
    await company.fetch("DELETE FROM display RETURNING id")
    await company.fetch("DELETE FROM replica WHERE topic = 'spm.boards.v1' RETURNING key")
    await company.fetch("UPDATE replica_epoch SET epoch = 'x' RETURNING epoch")
    await turn(company, *states)

    assert screen.orders == [[]]


async def test_what_the_public_may_not_see_is_not_told(company: World, screen: Screen) -> None:
    async with company.client(OPS) as client:
        board = {"title": "B", "metric": "discount_given", "grain": "month"}
        assert (await client.put("/v1/boards/hidden", json=board)).status_code == 200
    await put(company, board="hidden")
    await turn(company, won("crm:1", discount="5.00"))
    [row] = screen.events[-1][1]["data"]["rows"]

    assert (row["subject"], row["rank"], row["value"]) == ("person:p1", 1, None)
    assert row["hidden"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"board": "nonsense"}, 404),
        ({"url": "http://example.com"}, 422),
        ({"secret": SECRET}, 422),
        ({"secret": "env:METRICS_SECRET_other__LOBBY"}, 422),
        ({"secret": f"env:METRICS_SECRET_{TENANT}__MISSING"}, 422),
        ({"secret": "file:lobby"}, 422),
        ({"top": 0}, 422),
        ({"more": 1}, 422),
    ],
)
async def test_a_display_that_could_not_be_told_is_refused(
    company: World, changes: dict[str, Any], status: int
) -> None:
    assert (await put(company, status, **changes))["detail"]


async def test_a_secret_may_be_in_a_file_of_the_tenant(
    new_world: Any, tmp_path: Path, screen: Screen
) -> None:
    (tmp_path / TENANT).mkdir()
    (tmp_path / TENANT / "lobby").write_text(SECRET + "\n")
    world = await new_world(secrets_folder=tmp_path)
    await world.apply(*small_company())
    await put(world, secret="file:lobby")
    await turn(world)

    assert len(screen.events) == 1


async def test_displays_are_for_ops(company: World) -> None:
    for role in ("rep", "manager", "finance"):
        async with company.client(bearer(role, person="p4")) as client:
            for method, path in (("GET", ""), ("GET", "/x"), ("PUT", "/x"), ("DELETE", "/x")):
                answer = await client.request(method, f"/v1/displays{path}", json=LOBBY)
                assert answer.status_code == 403, (role, method, path)
