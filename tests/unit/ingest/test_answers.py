"""What CRMs answer when they are asked, as their APIs document it, read as snapshots."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.crm import Backfilled, Field, StageEntry
from services.ingest.domain import answers, canonical, merge, readers, values
from services.ingest.domain.facts import Fact, Ignored, Unreadable
from services.ingest.domain.sources import Api, Source
from tests.support import TENANT, instant
from tests.unit.ingest.bodies import HUB, RECEIVED_US, changed, received

SALES = Source(
    id="sf", tenant=TENANT, vendor="salesforce", secrets=("s",), api=Api(url="https://x.example")
)
PIPE = Source(id="pipe", tenant=TENANT, vendor="pipedrive", account="7")
CLOSE = Source(id="close", tenant=TENANT, vendor="close", account="orga_1")
QUESTIONS = {
    "hubspot": "https://api.hubapi.com/crm/v3/objects/0-3/batch/read",
    "salesforce": "https://x.example/services/data/v62.0/composite/sobjects/Opportunity",
    "pipedrive": "https://api.pipedrive.com/api/v2/deals?ids=1",
    "close": "https://api.close.com/api/v1/opportunity/oppo_1/",
}
SOURCES = {source.vendor: source for source in (HUB, SALES, PIPE, CLOSE)}


def us(text: str) -> int:
    return values.micros(text)


def answer(source: Source, body: Any, url: str = "", **headers: str) -> Backfilled:
    return Backfilled(
        tenant=source.tenant,
        version=RECEIVED_US,
        source=source.id,
        vendor=source.vendor,
        id=f"{RECEIVED_US:014x}aaaaaaaaaaaa",
        received_at=instant("2026-01-15T18:00"),
        method="GET",
        url=url or QUESTIONS[source.vendor],
        headers={"content-type": "application/json"} | headers,
        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        auth=f"{source.vendor}.api",
    )


def read(source: Source, body: Any, url: str = "", **headers: str) -> list[Fact]:
    outcomes = [one for _, one in readers.read(answer(source, body, url, **headers), source)]
    assert all(isinstance(one, Fact) for one in outcomes), outcomes
    return [one for one in outcomes if isinstance(one, Fact)]


def texts(fact: Fact, *names: str) -> list[Any]:
    return [fact.fields[name].value if name in fact.fields else "-" for name in names]


def hub_deal(**more: Any) -> dict[str, Any]:
    return {
        "id": "512",
        "properties": {
            "amount": "1500.00",
            "deal_currency_code": "EUR",
            "dealname": "Big",
            "dealstage": "closedwon",
            "hs_lastmodifieddate": "2026-01-12T09:00:00.500Z",
            "hs_object_id": "512",
            "pipeline": "default",
            "closedate": None,
            "tier": "gold",
        },
        "propertiesWithHistory": {
            "dealstage": [
                {
                    "value": "closedwon",
                    "timestamp": "2026-01-12T09:00:00.100Z",
                    "sourceType": "CRM_UI",
                    "sourceId": "userId:12",
                    "updatedByUserId": 12,
                },
                {"value": "sent", "timestamp": "2026-01-10T09:00:00Z", "sourceType": "CRM_UI"},
            ],
            "amount": [
                {"value": "1500.00", "timestamp": "2026-01-11T09:00:00Z"},
                {"value": "", "timestamp": "2026-01-10T09:00:00Z"},
            ],
            "closedate": [
                {"value": "", "timestamp": "2026-01-12T08:00:00Z"},
                {"value": "2026-02-15T00:00:00Z", "timestamp": "2026-01-11T09:00:00Z"},
                {"value": "2026-01-31T00:00:00Z", "timestamp": "2026-01-10T09:00:00Z"},
            ],
        },
        "createdAt": "2026-01-10T09:00:00Z",
        "updatedAt": "2026-01-12T09:00:00.500Z",
        "archived": False,
    } | more


def test_a_hubspot_object_with_its_histories() -> None:
    (fact,) = read(HUB, {"status": "COMPLETE", "results": [hub_deal()]})

    assert (fact.type, fact.id, fact.op) == ("opportunity", "hub:512", "snapshot")
    assert fact.completeness == "snapshot"
    assert fact.position[0] == us("2026-01-12T09:00:00.500Z")
    names = ("amount", "currency", "name", "status", "pipeline", "x_tier")
    assert texts(fact, *names) == ["1500.00", "EUR", "Big", "won", "default", "gold"]
    # Where HubSpot keeps a history, the field's own time; else that of the last change.
    assert fact.fields["stage"].at == us("2026-01-12T09:00:00.100Z")
    assert fact.fields["amount"].at == us("2026-01-11T09:00:00Z")
    assert fact.fields["name"].at == us("2026-01-12T09:00:00.500Z")
    assert fact.fields["expected_close"].state == "cleared"
    assert list(fact.stages) == [
        StageEntry(us("2026-01-10T09:00:00Z"), "sent"),
        StageEntry(us("2026-01-12T09:00:00.100Z"), "closedwon"),
    ]
    assert [(field.at, field.value) for field in fact.expected_before] == [
        (us("2026-01-10T09:00:00Z"), "2026-01-31T00:00:00Z"),
        (us("2026-01-11T09:00:00Z"), "2026-02-15T00:00:00Z"),
    ]
    assert fact.reread is None
    assert fact.signals == ()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_only_the_present_value_of_a_history_puts_an_object_aside(place: int) -> None:
    deal = hub_deal()
    dates = deal["propertiesWithHistory"]["closedate"]
    dates[0]["value"] = "2026-02-28T00:00:00Z"
    dates[place]["value"] = "tomorrow"

    ((_, outcome),) = readers.read(answer(HUB, {"results": [deal]}), HUB)

    if place == 0:
        assert isinstance(outcome, Unreadable)
        assert "'tomorrow' is not an instant" in outcome.reason
    else:
        assert isinstance(outcome, Fact)
        assert texts(outcome, "amount", "expected_close") == ["1500.00", "2026-02-28T00:00:00Z"]
        readable = [dates[n]["value"] for n in (2, 1) if n != place]
        assert [field.value for field in outcome.expected_before] == readable


def test_a_late_answer_fills_gaps_and_wins_over_nothing_newer() -> None:
    (snapshot,) = read(HUB, {"results": [hub_deal()]})
    newer = changed("amount", "1700", 12 * 86_400_000, object_id=512)  # the 13th
    outcomes = [one for _, one in readers.read(received(HUB, [newer]), HUB)]
    (event,) = [one for one in outcomes if isinstance(one, Fact)]

    for facts in ([snapshot, event], [event, snapshot]):
        known = merge.of(facts)
        assert known.fields["amount"].value == "1700"
        assert known.fields["name"].value == "Big"


def test_hubspot_says_what_it_cannot_find() -> None:
    missing = {
        "status": "error",
        "category": "OBJECT_NOT_FOUND",
        "message": "Could not get some DEAL objects, they may be deleted or not exist.",
        "context": {"ids": ["600", "601"]},
    }
    other = {"status": "error", "category": "VALIDATION_ERROR", "message": "?", "context": {}}
    body = {"status": "COMPLETE", "results": [], "numErrors": 2, "errors": [missing, other]}

    outcomes = [one for _, one in readers.read(answer(HUB, body), HUB)]

    *gone, ignored = outcomes
    assert [(one.id, one.op) for one in gone if isinstance(one, Fact)] == [
        ("hub:600", "deleted"),
        ("hub:601", "deleted"),
    ]
    assert all(isinstance(one, Fact) and one.position[0] == RECEIVED_US for one in gone)
    assert ignored == Ignored("answer.error")


def test_the_survivor_in_place_of_what_was_asked_for_says_that_it_was_merged() -> None:
    asked = {answers.ASKED: "400"}
    survivor, away = read(HUB, {"results": [hub_deal()]}, **asked)

    assert (survivor.id, survivor.op, away.id, away.op) == (
        *("hub:512", "snapshot"),
        *("hub:400", "merged"),
    )
    assert merge.survivor(away.fields) == "hub:512"
    assert texts(survivor, "name", "status") == ["Big", "won"]
    assert (survivor.reread, away.reread) == (None, None)
    # And under the id that was asked for it is only itself.
    (same,) = read(HUB, {"results": [hub_deal()]}, **{answers.ASKED: "512"})
    assert same.fields == read(HUB, {"results": [hub_deal()]})[0].fields
    # What was merged into a deal that is gone by now is gone as well, and so is the deal.
    gone = hub_deal(archived=True, archivedAt="2026-01-14T00:00:00Z")
    survivor, away = read(HUB, {"results": [gone]}, **asked)
    assert [merge.of([fact]).deleted for fact in (survivor, away)] == [True, True]


HUB_LINKS = "https://api.hubapi.com/crm/v4/associations/0-3/0-2/batch/read"


def test_hubspot_links_are_as_old_as_the_question() -> None:
    usual = {"category": "HUBSPOT_DEFINED", "typeId": 341, "label": None}
    primary = {"category": "HUBSPOT_DEFINED", "typeId": 5, "label": "Primary"}
    none = {
        "status": "error",
        "category": "OBJECT_NOT_FOUND",
        "subCategory": "crm.associations.NO_ASSOCIATIONS_FOUND",
        "message": "No company is associated with deal 513.",
        "context": {
            "fromObjectId": ["513"],
            "fromObjectType": ["deal"],
            "toObjectType": ["company"],
        },
    }
    results = [
        {
            "from": {"id": "512"},
            "to": [
                {"toObjectId": 60, "associationTypes": [primary, usual]},
                {"toObjectId": "61", "associationTypes": [usual]},
            ],
            "paging": {"next": {"after": "x", "link": "y"}},
        },
        {"from": {"id": "514"}, "to": []},
    ]
    body = {"status": "COMPLETE", "results": results, "numErrors": 1, "errors": [none]}

    (fact,) = read(HUB, body, HUB_LINKS)  # that there are none is no reason to take a deal away

    assert (fact.type, fact.id, fact.op, fact.completeness) == (
        *("opportunity", "hub:512"),
        *("linked", "delta"),
    )
    assert [(one.type, one.id, one.primary) for one in fact.relations] == [
        ("account", "hub:60", True),
        ("account", "hub:61", False),
    ]
    assert {field.at for field in fact.fields.values()} == {RECEIVED_US}
    other = {"status": "error", "category": "VALIDATION_ERROR", "message": "?"}
    outcomes = readers.read(answer(HUB, {"errors": [other]}, HUB_LINKS), HUB)
    assert outcomes == [(0, Ignored("answer.error"))]


def test_a_hubspot_object_in_the_archive_is_gone_since_then() -> None:
    (fact,) = read(HUB, {"results": [hub_deal(archived=True, archivedAt="2026-01-14T00:00:00Z")]})

    assert (fact.op, fact.position[0]) == ("deleted", us("2026-01-14T00:00:00Z"))
    assert fact.fields["name"].at == us("2026-01-12T09:00:00.500Z")


def hub_stage(number: str, order: int, **metadata: str) -> dict[str, Any]:
    return {
        "id": number,
        "label": number.title(),
        "displayOrder": order,
        "metadata": metadata,
        "createdAt": "2025-01-01T00:00:00Z",
        "updatedAt": "2025-06-01T00:00:00Z",
        "archived": False,
    }


def test_hubspot_pipelines_say_what_stages_mean() -> None:
    pipeline = hub_stage("default", 0) | {
        "stages": [
            hub_stage("new", 0, isClosed="false", probability="0.2"),
            hub_stage("done", 1, isClosed="true", probability="1.0"),
            hub_stage("gone", 2, isClosed="true", probability="0.0"),
            hub_stage("odd", 3, isClosed="true"),
            hub_stage("old", 4, probability="1.0"),
        ]
    }
    url = "https://api.hubapi.com/crm/v3/pipelines/deals"

    whole, *stages = read(HUB, {"results": [pipeline]}, url)

    assert (whole.type, whole.id) == ("pipeline", "hub:default")
    assert [(one.type, one.id) for one in stages[:2]] == [
        ("stage", "hub:new"),
        ("stage", "hub:done"),
    ]
    statuses = ["open", "won", "lost", None, "won"]
    assert [texts(one, "status")[0] for one in stages] == statuses
    assert texts(stages[0], "name", "pipeline", "rank", "probability") == [
        "New",
        "default",
        0,
        "0.2",
    ]


def test_hubspot_owners_are_users_by_the_id_that_records_have() -> None:
    owner = {
        "id": "41629779",
        "email": "jo@x.example",
        "firstName": "Jo",
        "lastName": "Vu",
        "userId": 9586504,
        "createdAt": "2025-01-01T00:00:00Z",
        "updatedAt": "2025-02-01T00:00:00Z",
        "archived": False,
    }

    (fact,) = read(HUB, {"results": [owner]}, "https://api.hubapi.com/crm/v3/owners?limit=100")

    assert (fact.type, fact.id) == ("user", "hub:41629779")
    assert texts(fact, "name", "email", "active", "x_user_id") == [
        "Jo Vu",
        "jo@x.example",
        True,
        "9586504",
    ]


def sf_deal(**more: Any) -> dict[str, Any]:
    return {
        "attributes": {"type": "Opportunity", "url": "/services/data/v62.0/sobjects/x"},
        "Id": "006xx000003DGb1AAG",
        "Name": "Big",
        "Amount": 1500.10,
        "StageName": "Closed Won",
        "IsWon": True,
        "IsClosed": True,
        "OwnerId": "005xx000001Sv6eAAC",
        "NextStep": None,
        "LastStageChangeDate": "2026-01-11T09:00:00.000+0000",
        "LastModifiedDate": "2026-01-12T09:00:00.000+0000",
        "SystemModstamp": "2026-01-12T09:00:01.000+0000",
    } | more


def test_a_list_of_salesforce_records_where_null_says_nothing() -> None:
    (fact,) = read(SALES, [sf_deal(), None])

    assert (fact.type, fact.id, fact.op) == ("opportunity", "sf:006xx000003DGb1AAG", "snapshot")
    assert texts(fact, "name", "amount", "status", "owner_id") == [
        "Big",
        "1500.1",
        "won",
        "005xx000001Sv6eAAC",
    ]
    assert fact.position[0] == us("2026-01-12T09:00:00Z")
    assert list(fact.stages) == [StageEntry(us("2026-01-11T09:00:00Z"), "Closed Won")]
    assert fact.fields["x_NextStep"].state == "cleared"


def test_salesforce_rows_in_the_recycle_bin_are_gone() -> None:
    url = "https://x.example/services/data/v62.0/queryAll?q=SELECT"
    row = {
        "attributes": {"type": "Opportunity"},
        "Id": "006xx000003DGb2AAG",
        "IsDeleted": True,
        "SystemModstamp": "2026-01-13T09:00:00.000+0000",
    }

    (fact,) = read(SALES, {"totalSize": 1, "done": True, "records": [row]}, url)

    assert (fact.id, fact.op) == ("sf:006xx000003DGb2AAG", "deleted")
    assert fact.position[0] == us("2026-01-13T09:00:00Z")


def test_salesforce_stages_and_users() -> None:
    stage = {
        "attributes": {"type": "OpportunityStage"},
        "Id": "01Jxx0000000001AAA",
        "ApiName": "Signed",
        "MasterLabel": "Signed",
        "IsWon": True,
        "IsClosed": True,
        "SortOrder": 3,
        "DefaultProbability": 100,
        "LastModifiedDate": "2025-01-12T09:00:00.000+0000",
    }
    user = {
        "attributes": {"type": "User"},
        "Id": "005xx000001Sv6eAAC",
        "Name": "Jo Vu",
        "Email": "jo@x.example",
        "IsActive": True,
        "LastModifiedDate": "2025-01-12T09:00:00.000+0000",
    }

    first, second = read(SALES, {"records": [stage, user]})

    assert (first.type, first.id, *texts(first, "status", "rank")) == (
        "stage",
        "sf:Signed",
        "won",
        3,
    )
    assert (second.type, second.id) == ("user", "sf:005xx000001Sv6eAAC")
    assert texts(second, "name", "email", "active") == ["Jo Vu", "jo@x.example", True]


def pipe_deal(**more: Any) -> dict[str, Any]:
    return {
        "id": 77,
        "title": "Big",
        "owner_id": 12,
        "value": 1500.1,
        "currency": "EUR",
        "status": "won",
        "stage_id": 3,
        "pipeline_id": 1,
        "person_id": 4,
        "add_time": "2026-01-10T09:00:00Z",
        "update_time": "2026-01-12T09:00:00Z",
        "stage_change_time": "2026-01-11T09:00:00Z",
        "won_time": "2026-01-12T08:00:00Z",
        "is_deleted": False,
        "custom_fields": {},
    } | more


def test_pipedrive_deals() -> None:
    body = {"success": True, "data": [pipe_deal(), pipe_deal(id=78, is_deleted=True)]}

    deal, gone = read(PIPE, body)

    assert (deal.type, deal.id, deal.op) == ("opportunity", "pipe:77", "snapshot")
    assert texts(deal, "amount", "currency", "status", "closed_at", "owner_id") == [
        "1500.1",
        "EUR",
        "won",
        "2026-01-12T08:00:00Z",
        "12",
    ]
    assert deal.position[0] == us("2026-01-12T09:00:00Z")
    assert list(deal.stages) == [StageEntry(us("2026-01-11T09:00:00Z"), "3")]
    assert (gone.id, gone.op) == ("pipe:78", "deleted")


def test_pipedrive_stages_pipelines_users_and_one_object_alone() -> None:
    base = "https://api.pipedrive.com/api"
    stage = {
        "id": 3,
        "name": "Sent",
        "pipeline_id": 1,
        "order_nr": 2,
        "deal_probability": 50,
        "is_deleted": False,
        "add_time": "2025-01-01T00:00:00Z",
        "update_time": None,
    }
    user = {
        "id": 12,
        "name": "Jo",
        "email": "jo@x.example",
        "active_flag": True,
        "created": "2025-01-01 00:00:00",
        "modified": "2025-01-02 00:00:00",
    }

    (one,) = read(PIPE, {"success": True, "data": [stage]}, f"{base}/v2/stages")
    (who,) = read(PIPE, {"success": True, "data": [user]}, f"{base}/v1/users")
    (note,) = read(
        PIPE,
        {"success": True, "data": {"id": 5, "content": "x", "update_time": "2026-01-02 00:00:00"}},
        f"{base}/v1/notes/5",
    )

    assert (one.type, one.id, *texts(one, "name", "pipeline")) == ("stage", "pipe:3", "Sent", "1")
    assert (who.type, who.id, *texts(who, "name", "email")) == (
        "user",
        "pipe:12",
        "Jo",
        "jo@x.example",
    )
    assert (note.type, note.id) == ("note", "pipe:5")


def close_deal(**more: Any) -> dict[str, Any]:
    return {
        "id": "oppo_1",
        "organization_id": "orga_1",
        "lead_id": "lead_1",
        "user_id": "user_1",
        "status_id": "stat_1",
        "status_type": "won",
        "value": 150010,
        "value_currency": "EUR",
        "value_period": "one_time",
        "date_won": "2026-01-11",
        "date_created": "2026-01-10T09:00:00.000000+00:00",
        "date_updated": "2026-01-12T09:00:00.123456+00:00",
    } | more


def test_a_close_object_alone_and_in_a_page() -> None:
    listed = "https://api.close.com/api/v1/opportunity/?_limit=100&_skip=0"

    (alone,) = read(CLOSE, close_deal())
    (paged,) = read(CLOSE, {"has_more": False, "data": [close_deal()]}, listed)

    assert (alone.type, alone.id, alone.op) == ("opportunity", "close:oppo_1", "snapshot")
    assert texts(alone, "amount", "currency", "status", "owner_id") == [
        "1500.1",
        "EUR",
        "won",
        "user_1",
    ]
    assert alone.position[0] == us("2026-01-12T09:00:00.123456Z")
    assert paged.fields == alone.fields


def test_close_pipelines_and_users() -> None:
    pipeline = {
        "id": "pipe_1",
        "name": "Sales",
        "statuses": [
            {"id": "stat_0", "label": "Active", "type": "active"},
            {"id": "stat_1", "label": "Won", "type": "won"},
        ],
    }
    user = {
        "id": "user_1",
        "first_name": "Jo",
        "last_name": "Vu",
        "email": "jo@x.example",
        "date_updated": "2025-01-12T09:00:00.123456+00:00",
    }
    base = "https://api.close.com/api/v1"

    whole, first, second = read(CLOSE, {"data": [pipeline]}, f"{base}/pipeline/?_limit=100")
    (who,) = read(CLOSE, {"data": [user]}, f"{base}/user/?_limit=100")

    assert (whole.type, whole.id) == ("pipeline", "close:pipe_1")
    assert (first.type, first.id) == ("stage", "close:stat_0")
    assert texts(second, "name", "status", "pipeline", "rank") == ["Won", "won", "pipe_1", 1]
    assert second.position[0] == RECEIVED_US  # Close doesn't say since when
    assert (who.type, who.id, *texts(who, "name")) == ("user", "close:user_1", "Jo Vu")


def test_the_last_answer_of_a_type_says_that_it_is_complete() -> None:
    since = RECEIVED_US - 5_000_000

    deal, whole = read(HUB, {"results": [hub_deal()]}, **{answers.COMPLETE: f"opportunity {since}"})

    assert deal.id == "hub:512"
    assert (whole.type, whole.id, whole.op, whole.position[0]) == (
        "opportunity",
        "",
        "snapshot",
        since,
    )


def test_answers_that_say_the_same_are_events_of_their_own() -> None:
    first = answer(HUB, {"results": [hub_deal()]})
    second = replace(first, id="another")

    uids = [
        canonical.uid(one, fact)
        for one in (first, first, second)
        for _, fact in readers.read(one, HUB)
        if isinstance(fact, Fact)
    ]

    assert uids[0] == uids[1] != uids[2]


def test_an_object_that_cannot_be_read_is_put_aside_alone_and_can_be_read_again() -> None:
    bad = hub_deal(id="513", propertiesWithHistory={}, properties={"amount": "x"})
    request = answer(HUB, {"results": [hub_deal(), bad]})

    (_, good), (index, unreadable) = readers.read(request, HUB)

    assert isinstance(good, Fact)
    assert isinstance(unreadable, Unreadable)
    assert index == 1
    again = readers.alone(request, unreadable.raw.replace(b'"x"', b'"7"'))
    ((_, fact),) = readers.read(again, HUB)
    assert isinstance(fact, Fact)
    assert (fact.id, fact.fields["amount"]) == (
        "hub:513",
        Field("value", "7", us("2026-01-12T09:00:00.500Z"), ""),
    )


@pytest.mark.parametrize("vendor", sorted(QUESTIONS))
def test_what_is_no_answer_is_put_aside(vendor: str) -> None:
    for body in (b"", b"{", b"[]x", b"7", b'"x"', b"[7]", b'{"results":7}', b"[" * 100_000):
        for _, outcome in readers.read(answer(SOURCES[vendor], body), SOURCES[vendor]):
            assert isinstance(outcome, Unreadable), (vendor, body[:20], outcome)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "results",
                        "records",
                        "data",
                        "id",
                        "Id",
                        "properties",
                        "updatedAt",
                        "errors",
                    ),
                    *(
                        "propertiesWithHistory",
                        "dealstage",
                        "amount",
                        "value",
                        "timestamp",
                        "context",
                    ),
                    *("attributes", "type", "update_time", "date_updated", "category", "statuses"),
                    *("from", "to", "toObjectId", "associationTypes", "label", "subCategory"),
                ]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("vendor", sorted(QUESTIONS))
@settings(deadline=None)
@given(
    body=_JSON,
    url=st.sampled_from([*sorted(QUESTIONS.values()), HUB_LINKS]) | st.text(max_size=30),
)
def test_whatever_comes_is_read_or_put_aside(vendor: str, body: Any, url: str) -> None:
    source = SOURCES[vendor]

    for _, outcome in readers.read(answer(source, json.dumps(body).encode(), url), source):
        assert isinstance(outcome, Fact | Ignored | Unreadable)


@pytest.mark.parametrize("vendor", sorted(QUESTIONS))
@settings(deadline=None)
@given(body=st.binary(max_size=60))
def test_whatever_bytes_come_are_read_or_put_aside(vendor: str, body: bytes) -> None:
    for _, outcome in readers.read(answer(SOURCES[vendor], body), SOURCES[vendor]):
        assert isinstance(outcome, Fact | Ignored | Unreadable)
