"""Whatever is asked of the API is answered as its OpenAPI document says."""

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import requests
import schemathesis
import schemathesis.specs.openapi.checks
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from tests.integration.metrics.world import World, call, small_company, won
from tests.support import bearer

CHECKS = [
    schemathesis.checks.not_a_server_error,
    schemathesis.specs.openapi.checks.content_type_conformance,
    schemathesis.specs.openapi.checks.response_schema_conformance,
]
ATTACKS = 6  # per operation and mode
ENDLESS = ("/events", "/feed")  # streams, of which other tests read
# What makes a request reach further than its first check.
LIKELY: dict[str, str] = {
    "subject": "team:all-sales",
    "metric": "revenue_won",
    "period": "month:2026-11-01",
    "board": "revenue-month",
}


@pytest.fixture
async def company(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    now = datetime(2026, 11, 3, 12, tzinfo=UTC)
    monkeypatch.setattr("services.metrics.app.clock.load", lambda _: lambda: now)
    await world.apply(*small_company(), won("crm:1"), won("crm:2", owner_id=2), call("crm:3"))
    await world.settle()
    return world


# schemathesis draws from `random` inside its strategies.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
async def test_whatever_comes_is_answered_as_the_openapi_document_says(company: World) -> None:
    schema = schemathesis.openapi.from_dict(company.app.openapi())
    loop = asyncio.get_running_loop()

    async with company.client(bearer("ops", person="p4")) as client:

        def attack(operation: Any, mode: schemathesis.GenerationMode) -> None:
            @settings(
                max_examples=ATTACKS,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def one(case: Any) -> None:
                for place in (case.query, case.path_parameters):
                    for name in LIKELY.keys() & (place or {}).keys():
                        if len(str(place[name])) % 2:
                            place[name] = LIKELY[name]
                kwargs = case.as_transport_kwargs(base_url="http://127.0.0.1:8002")
                kwargs.pop("cookies", None)
                try:
                    prepared = requests.Request(**kwargs).prepare()
                except (requests.exceptions.RequestException, UnicodeError):
                    return  # nothing that can be sent
                answer = asyncio.run_coroutine_threadsafe(_send(client, prepared), loop).result(60)
                case.validate_response(answer, checks=CHECKS)

            one()

        for found in schema.get_all_operations():
            operation: Any = found.ok()  # type: ignore[union-attr]  # a wrong document fails here
            if not operation.path.startswith("/v1") or operation.path.endswith(ENDLESS):
                continue
            for mode in (
                schemathesis.GenerationMode.POSITIVE,
                schemathesis.GenerationMode.NEGATIVE,
            ):
                with contextlib.suppress(Unsatisfiable):  # nothing about it can be wrong
                    await asyncio.to_thread(attack, operation, mode)


async def _send(client: httpx.AsyncClient, prepared: requests.PreparedRequest) -> httpx.Response:
    assert prepared.method is not None
    assert prepared.url is not None
    body = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body
    assert body is None or isinstance(body, bytes)
    kind = prepared.headers.get("content-type")
    headers = {} if kind is None else {"content-type": str(kind)}
    return await client.request(prepared.method, prepared.url, content=body, headers=headers)
