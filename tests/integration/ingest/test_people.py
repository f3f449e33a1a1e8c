"""The CRM's owners become people: suggested by e-mail address, mapped, and counted since then."""

from typing import Any

from schemas.directory import Entry
from tests.integration.ingest.conftest import Ingest
from tests.integration.ingest.test_from_webhook_to_record import send_pipe
from tests.support import bearer
from tests.unit.ingest.bodies import pipe

OPS = bearer("ops")
UNMAPPED = "/v1/owners/unmapped"
MAP = "/v1/owners/map"


async def with_owners(ingest: Ingest) -> None:
    """Owner 5 has two deals, 6 and 7 one each; the CRM says who 5 and 6 are."""
    for deal, owner in ((1, 5), (2, 5), (3, 6), (4, 7)):
        await send_pipe(ingest, pipe("create", "deal", {"id": deal, "owner_id": owner}))
    for number, name, email in ((5, "Jo", "JO@acme.example"), (6, "Al", "al@acme.example")):
        user = {"id": number, "name": name, "email": email}
        await send_pipe(ingest, pipe("create", "user", user))
    for path in ("user/pipe:6", "opportunity/pipe:4"):
        await ingest.eventually(
            f"/v1/records/{path}", lambda found: found.status_code == 200, headers=OPS
        )
    people = [
        {"kind": "person", "id": "jo", "name": "Jo", "email": "jo@acme.example"},
        {"kind": "person", "id": "al", "name": "Al", "email": "al@acme.example"},
        {"kind": "person", "id": "al2", "name": "Al", "email": "AL@acme.example"},
    ]
    answer = await ingest.client.put("/v1/directory", json=people, headers=OPS)
    assert answer.status_code == 200, answer.text


async def owners(ingest: Ingest) -> list[str]:
    found = await ingest.client.get(UNMAPPED, headers=OPS)
    return [item["owner_id"] for item in found.json()["items"]]


async def post(ingest: Ingest, body: Any) -> Any:
    return await ingest.client.post(MAP, json=body, headers=OPS)


async def test_unmapped_owners_come_with_who_they_may_be(ingest: Ingest) -> None:
    await with_owners(ingest)

    found = (await ingest.client.get(UNMAPPED, headers=OPS)).json()

    common = {"source": "pipe", "name": None, "email": None, "suggestion": None}
    jo = {"records": 2, "name": "Jo", "email": "JO@acme.example", "suggestion": "jo"}
    al = {"records": 1, "name": "Al", "email": "al@acme.example"}  # two people have this address
    assert found["items"] == [
        common | {"owner_id": "5"} | jo,
        common | {"owner_id": "6"} | al,
        common | {"owner_id": "7", "records": 1},
    ]
    assert found["next"] is None
    pages: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await ingest.client.get(f"{UNMAPPED}?limit=1&cursor={cursor}", headers=OPS)
        pages += [item["owner_id"] for item in page.json()["items"]]
        cursor = page.json()["next"]
    assert pages == ["5", "6", "7"]


async def test_mapping_by_email_after_a_dry_run(ingest: Ingest) -> None:
    await with_owners(ingest)
    expected = [
        {"source": "pipe", "owner_id": "5", "person": "jo", "valid_from": None, "records": 2}
    ]

    dry = await post(ingest, {"by_email": True, "dry_run": True})
    assert dry.json() == {"mapped": expected, "dry_run": True}
    assert await owners(ingest) == ["5", "6", "7"]

    real = await post(ingest, {"by_email": True})
    assert real.json() == {"mapped": expected, "dry_run": False}
    assert await owners(ingest) == ["6", "7"]
    # Whoever counts records hears of it.
    entries = await ingest.published(Entry, lambda found: "acme/owner/pipe:5" in found)
    assert entries["acme/owner/pipe:5"].person == "jo"
    seen = await ingest.client.get(
        "/v1/records/opportunity/pipe:1", headers=bearer("rep", person="jo")
    )
    assert seen.status_code == 200


async def test_mapping_items_is_all_or_nothing_and_repeatable(ingest: Ingest) -> None:
    await with_owners(ingest)
    good = {"source": "pipe", "owner_id": "6", "person": "al"}
    bad = [good, good | {"person": "nobody"}, good | {"owner_id": ""}]

    refused = await post(ingest, {"items": bad})
    assert refused.status_code == 422
    assert [fault["item"] for fault in refused.json()["errors"]] == [1, 2]
    assert (await post(ingest, {"items": bad, "dry_run": True})).status_code == 422
    assert await owners(ingest) == ["5", "6", "7"]

    later = good | {"person": "jo", "valid_from": "2026-03-01"}
    for _ in range(2):
        assert (await post(ingest, {"items": [good, later]})).status_code == 200
    found = (await ingest.client.get("/v1/directory/owner", headers=OPS)).json()["items"]
    assert [(one["id"], one["person"], one.get("valid_to")) for one in found] == [
        ("pipe:6", "al", "2026-03-01"),
        ("pipe:6@2026-03-01", "jo", None),
    ]
    assert await owners(ingest) == ["5", "7"]


async def test_unclear_wishes_are_refused(ingest: Ingest) -> None:
    unclear: list[Any] = [
        {},
        {"items": []},
        {"items": [{}]},
        {"by_email": True, "items": [{}]},
        {"by_email": True, "surprise": 1},
        [],
    ]
    for body in unclear:
        answer = await post(ingest, body)
        assert answer.status_code in (400, 422), body
        assert answer.json()["detail"]
    for cursor in ("!!", "WyJhXHUwMDAwIl0", "WzEsMiwzXQ"):
        answer = await ingest.client.get(f"{UNMAPPED}?cursor={cursor}", headers=OPS)
        assert answer.status_code == 422


async def test_territories_assignments_leaves_and_jobs_come_as_csv_and_json(
    ingest: Ingest,
) -> None:
    files = {
        "territory": "id,name,parent\nde,Germany,\nby,Bavaria,de\n",
        "assignment": "id,person,territory,valid_from\na1,jo,by,2026-01-01\n",
        "leave": "id,person,type,valid_from,valid_to\nl1,jo,parental,2026-02-01,2026-03-01\n",
        "role": "id,person,role,valid_from\nr1,jo,lead,2026-01-01\n",
    }
    for kind, rows in files.items():
        answer = await ingest.client.post(
            f"/v1/directory/import?kind={kind}", content=rows, headers=OPS
        )
        assert answer.status_code == 200, answer.text
    leave = (await ingest.client.get("/v1/directory/leave/l1", headers=OPS)).json()
    assert (leave["type"], leave["valid_to"]) == ("parental", "2026-03-01")
    endless = {"person": "jo"}
    answer = await ingest.client.put("/v1/directory/leave/l2", json=endless, headers=OPS)
    assert answer.status_code == 422
    entries = await ingest.published(Entry, lambda found: len(found) == 5)
    assert entries["acme/territory/by"].parent == "de"
