"""Salesforce's events and messages: order, nulls, proofs, acknowledgements and hostile bodies.

What each sample and trap becomes is in `examples/salesforce`; here is what takes several of them,
and that nothing else is said than what is expected.
"""

import base64
import io
import json
from itertools import permutations
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.base import valid_id
from schemas.crm import Received, StageEntry
from services.ingest.domain import canonical, merge, readers
from services.ingest.domain.facts import Fact, Unreadable
from services.ingest.domain.sources import Source, Stages
from services.ingest.domain.vendors import Arrival, MalformedError, RefusedError, all_vendors
from services.ingest.domain.vendors.salesforce import records
from tests.support import TENANT
from tests.unit.ingest.bodies import received
from tests.unit.ingest.test_examples import FOLDER, read_case
from tests.unit.ingest.test_hostile_input import spoiled

SALES = Source(
    id="sf",
    tenant=TENANT,
    vendor="salesforce",
    secrets=("s3cret", "older"),
    query="key",
    header="X-Secret",
    username="pace",
    account="00D5f00000JUZPD",
)
VENDOR = all_vendors()["salesforce"]
OPPORTUNITY = "0065f00002JUZPDAA5"
TASK = "00T5f00002JUZPDEA5"
AT = 1_767_607_260_000  # 2026-01-05T10:01:00Z
SECOND = 1000

CHILDREN = ("Street", "City", "State", "PostalCode")
PLAIN = ("Phone", "Fax", "Website", "Industry", "OwnerId")


def nullable(kind: object) -> list[object]:
    return ["null", kind]


def schema() -> dict[str, Any]:
    """An Avro schema of the form that Salesforce gives, shorter."""
    text = {"type": "array", "items": "string"}
    lists = ("recordIds", "nulledFields", "diffFields", "changedFields")
    header = {
        "type": "record",
        "name": "ChangeEventHeader",
        "fields": [
            {"name": "entityName", "type": "string"},
            {"name": "changeType", "type": {"type": "enum", "name": "Kind", "symbols": ["UPDATE"]}},
            {"name": "commitTimestamp", "type": "long"},
            *({"name": name, "type": text} for name in lists),
        ],
    }
    address = {
        "type": "record",
        "name": "Address",
        "fields": [{"name": name, "type": nullable("string")} for name in CHILDREN],
    }
    return {
        "type": "record",
        "name": "AccountChangeEvent",
        "namespace": "com.sforce.eventbus",
        "fields": [
            {"name": "ChangeEventHeader", "type": header},
            {"name": "BillingAddress", "type": nullable(address)},
            {"name": "ShippingAddress", "type": nullable("Address")},
            *({"name": name, "type": nullable("string")} for name in PLAIN),
            {"name": "AnnualRevenue", "type": nullable("double")},
            {"name": "LastModifiedDate", "type": nullable("long")},
        ],
    }


FIELDS = [each["name"] for each in schema()["fields"]]


def packed(payload: dict[str, Any]) -> str:
    """A payload as the Pub/Sub API has it."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema()), payload)
    return base64.b64encode(stream.getvalue()).decode()


def envelope(*payloads: str, of: Any = None) -> dict[str, Any]:
    events = [{"event": {"id": f"{n}", "payload": each}} for n, each in enumerate(payloads)]
    return {"schema": schema() if of is None else of, "events": events}


def header(kind: str = "UPDATE", /, **more: Any) -> dict[str, Any]:
    return {
        "entityName": "Opportunity",
        "recordIds": [OPPORTUNITY],
        "changeType": kind,
        "changeOrigin": "com/salesforce/api/rest/60.0",
        "transactionKey": "00065380-d1a9-a64a-9341-14f6f12f674c",
        "sequenceNumber": 1,
        "commitTimestamp": AT,
        "commitNumber": 1_100_823_480_049,
        "commitUser": "0055f000005mc66AAA",
    } | more


def change(fields: dict[str, Any], kind: str = "UPDATE", /, **more: Any) -> dict[str, Any]:
    """One change event of CometD."""
    payload = {"ChangeEventHeader": header(kind, **more)} | fields
    return {"schema": "dffQ2QLzDNHqwB8_sHMxdA", "payload": payload, "event": {"replayId": 7}}


def message(*fields: dict[str, str | None], organization: str = "00D5f00000JUZPDEA5") -> bytes:
    """An outbound message with one notification for each of these records."""
    notes = "".join(
        f"<Notification><Id>04l5f00000Abcd{number}</Id>"
        '<sObject xsi:type="sf:Opportunity" xmlns:sf="urn:sobject.enterprise.soap.sforce.com">'
        + "".join(
            f'<sf:{name} xsi:nil="true"/>' if value is None else f"<sf:{name}>{value}</sf:{name}>"
            for name, value in ({"Id": OPPORTUNITY} | record).items()
        )
        + "</sObject></Notification>\n"
        for number, record in enumerate(fields)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope '
        'xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>'
        '<notifications xmlns="http://soap.sforce.com/2005/09/outbound">'
        f"<OrganizationId>{organization}</OrganizationId><SessionId xsi:nil='true'/>{notes}"
        "</notifications></soapenv:Body></soapenv:Envelope>"
    ).encode()


def read(body: Any, source: Source = SALES) -> list[Any]:
    return [outcome for _, outcome in readers.read(received(source, body), source)]


def stated(fact: Fact) -> dict[str, Any]:
    """Exactly what a fact says, apart from its place in time."""
    return {n: f.value if f.state == "value" else f.state for n, f in fact.fields.items()}


def state(*bodies: Any) -> dict[str, Any]:
    """What is known of the one record that these requests are about."""
    facts = [fact for body in bodies for fact in read(body)]
    assert len({(fact.type, fact.id) for fact in facts}) == 1
    return {
        name: field.value if field.state == "value" else field.state
        for name, field in merge.of(facts).fields.items()
    }


@pytest.mark.parametrize(
    ("short", "long"),
    [  # as Salesforce's own examples have them
        ("0015f00002JUZPD", "0015f00002JUZPDAA5"),
        ("0015f00002JUZPX", "0015f00002JUZPXAA5"),
        ("0015f00002JUZPc", "0015f00002JUZPcAAP"),
        ("0055f000005mc66", "0055f000005mc66AAA"),
        ("000000000000000", "000000000000000AAA"),
    ],
)
def test_both_forms_of_an_id_are_one(short: str, long: str) -> None:
    assert records.eighteen(short) == long
    assert records.eighteen(long) == long


# What is null, and what it means.


def test_an_unchanged_null_of_the_pubsub_api_says_nothing() -> None:
    nulls = dict.fromkeys(FIELDS[1:])
    head = header(entityName="Account", changedFields=["0x40"], nulledFields=[], diffFields=[])
    payload = {"ChangeEventHeader": head, **nulls, "Industry": "Apparel"}

    (fact,) = read({"replayId": 1, "schema": schema(), "payload": payload})

    assert stated(fact) == {"x_Industry": "Apparel", "_deleted": False}


@pytest.mark.parametrize("name", ["pubsub-decoded", "pubsub-decoded-alone"])
def test_the_guides_bitmap_names_two_fields_and_no_more(name: str) -> None:
    _, request, source = read_case(FOLDER / "salesforce" / f"{name}.yaml")

    facts = [fact for _, fact in readers.read(request, source)]

    assert len(facts) == 3
    for fact in facts:
        assert isinstance(fact, Fact)
        assert stated(fact) == {"x_Industry": "Apparel", "_deleted": False}
        assert set(fact.said) == {"Industry", "LastModifiedDate", "ChangeEventHeader.changeOrigin"}


@pytest.mark.parametrize("lists", [{}, {"changedFields": [], "nulledFields": []}])
def test_without_lists_only_cometd_means_emptied_by_null(lists: dict[str, Any]) -> None:
    event = change({"Amount": None}, **lists)

    assert stated(read(event)[0]) == {"amount": "cleared", "_deleted": False}
    assert stated(read({"replayId": 1, "payload": event["payload"]})[0]) == {"_deleted": False}


def test_a_nulled_field_that_is_not_in_the_body_is_emptied_and_a_changed_one_is_unknown() -> None:
    event = change({}, changedFields=["Amount", "NextStep"], nulledFields=["Amount"])

    (fact,) = read(event)

    assert stated(fact) == {"amount": "cleared", "x_NextStep": "unknown", "_deleted": False}
    assert fact.reread.fields == ("x_NextStep",)


def test_a_stage_that_is_not_shown_leaves_neither_its_meaning() -> None:
    (fact,) = read(change({}, changedFields=["StageName"]))

    assert {n: s for n, s in stated(fact).items() if n != "_deleted"} == dict.fromkeys(
        ("stage", "status", "closed_at"), "unknown"
    )


subsets = st.dictionaries(
    st.sampled_from([f"BillingAddress.{name}" for name in CHILDREN] + list(PLAIN)),
    st.none() | st.text("abc", min_size=1, max_size=5),
)


@given(subsets)
@settings(max_examples=200, deadline=None)
def test_avro_and_cometd_say_the_same_of_the_same_change(changes: dict[str, str | None]) -> None:
    cometd: dict[str, Any] = {"AnnualRevenue": 12500.5}
    avro: dict[str, Any] = dict.fromkeys(FIELDS[1:]) | cometd
    changed, nulled = {0: 1 << FIELDS.index("AnnualRevenue")}, dict[int, int]()
    for name, value in changes.items():
        parent, dot, child = name.partition(".")
        place, number = (1, CHILDREN.index(child)) if dot else (0, FIELDS.index(name))
        for bits in [changed, nulled][: 1 + (value is None)]:
            bits[place] = bits.get(place, 0) | 1 << number
        for payload in (cometd, avro):
            if dot:
                payload[parent] = (payload.get(parent) or {}) | {child: value}
            else:
                payload[name] = value
    if avro["BillingAddress"] is not None:
        avro["BillingAddress"] = dict.fromkeys(CHILDREN) | avro["BillingAddress"]
    listed = {
        name: [f"{place}-{bits:#x}" if place else f"{bits:#x}" for place, bits in found.items()]
        for name, found in (("changedFields", changed), ("nulledFields", nulled))
    }
    head = header(entityName="Account", diffFields=[], **listed)

    (binary,) = read(envelope(packed({"ChangeEventHeader": head} | avro)))
    (text,) = read(change(cometd, entityName="Account"))

    assert stated(binary) == stated(text)
    assert len(stated(binary)) == len(changes) + 2


# Order, repetition, lateness.


def test_in_one_second_the_commit_and_then_the_sequence_decide_in_any_order() -> None:
    events = [
        change({"Amount": 1}, sequenceNumber=2),
        change({"Amount": 2}, sequenceNumber=10),
        change({"Amount": 3}, commitNumber=1_100_823_480_050, transactionKey="0000"),
        change({"Amount": 4}, commitNumber=999_999_999_999, transactionKey="zzzz"),
    ]

    assert {state(*order)["amount"] for order in permutations(events)} == {"3"}
    assert state(events[1], events[0], events[3])["amount"] == "2"


def test_deleted_and_undeleted_is_there_in_any_order() -> None:
    gone = change({}, "DELETE")
    back = change({"Name": "Acme"}, "UNDELETE", commitTimestamp=AT + SECOND)

    for order in permutations([gone, back]):
        assert state(*order) == {"name": "Acme", "_deleted": False}
    assert state(change({"Name": "Acme"}, commitTimestamp=AT - SECOND), gone)["_deleted"] is True


def test_a_gap_of_a_deletion_is_a_deletion() -> None:
    assert state(change({}, "GAP_DELETE")) == {"_deleted": True}
    assert state(change({}, "GAP_UPDATE")) == {"_deleted": False}


def test_a_deleted_task_is_gone_whatever_it_was_and_an_update_makes_none() -> None:
    task = {"entityName": "Task", "recordIds": [TASK]}

    gone, lost = read(change({}, "DELETE", **task)), read(change({}, "GAP_DELETE", **task))

    kinds = ["task", "call", "email"]
    assert [(fact.type, fact.fields["_deleted"].value) for fact in gone] == [
        (kind, True) for kind in kinds
    ]
    assert [fact.type for fact in lost] == kinds
    assert [stated(fact) for fact in read(change({"Status": "Completed"}, **task))] == [{}]
    assert [stated(fact) for fact in read(change({}, "GAP_UPDATE", **task))] == [{}]


def test_the_same_event_again_is_the_same_whatever_its_replay_id() -> None:
    event = change({"Amount": 1})
    again = event | {"event": {"replayId": 99}}
    other = change({"Amount": 1}, sequenceNumber=2)

    one, same, another = (uid(received(SALES, body)) for body in (event, again, other))

    assert one == same
    assert one != another


def test_a_notification_sent_again_is_the_same() -> None:
    early, late = message({"Amount": "1"}), message({"Amount": "2"})

    assert uid(received(SALES, early)) == uid(received(SALES, late, number="r2"))


def uid(request: Received) -> list[bytes]:
    found = [outcome for _, outcome in readers.read(request, SALES)]
    return [canonical.uid(request, fact) for fact in found if isinstance(fact, Fact)]


def test_messages_out_of_order_are_ordered_by_when_the_record_was_modified() -> None:
    older = message({"Amount": "1", "LastModifiedDate": "2026-01-05T10:00:00.000Z"})
    newer = message({"Amount": "2", "LastModifiedDate": "2026-01-05T10:00:05.000Z"})

    assert state(older, newer)["amount"] == "2"
    assert state(newer, older)["amount"] == "2"


def test_a_deal_that_is_told_to_be_won_again_was_not_won_later() -> None:
    def snapshot(minute: int) -> bytes:
        modified = f"2026-01-05T10:{minute:02d}:00.000Z"
        return message({"StageName": "Closed Won", "LastModifiedDate": modified})

    won = change({"StageName": "Closed Won"}, commitTimestamp=AT - SECOND)
    edits: list[Any] = [snapshot(30), snapshot(20), snapshot(40)]

    for order in permutations(edits):
        assert state(*order)["closed_at"] == "2026-01-05T10:20:00Z"
    for known in permutations([*edits, won]):
        assert state(*known)["closed_at"] == "2026-01-05T10:00:59Z"
    back = change({"StageName": "Closed Won"}, "UNDELETE", commitTimestamp=AT + SECOND)
    assert state(won, back)["closed_at"] == "2026-01-05T10:00:59Z"


def test_a_reopened_deal_is_open() -> None:
    won = change({"StageName": "Closed Won"})
    reopened = change({"StageName": "Proposal"}, commitTimestamp=AT + SECOND)

    for order in permutations([won, reopened]):
        found = state(*order)
        assert (found["stage"], found["status"], found["closed_at"]) == (
            "Proposal",
            "open",
            "cleared",
        )
    assert merge.of(read([won, reopened])).stages == [
        StageEntry(AT * 1000, "Closed Won"),
        StageEntry((AT + SECOND) * 1000, "Proposal"),
    ]


# Items.


def test_an_item_read_alone_later_says_the_same() -> None:
    head = header(changedFields=["0x40"], nulledFields=[], diffFields=[], entityName="Account")
    fine = packed({"ChangeEventHeader": head, **dict.fromkeys(FIELDS[1:])})
    bodies: tuple[Any, ...] = (
        [change({"Amount": 1}), change({"Amount": "a lot"})],
        change({"Amount": "a lot"}),
        envelope(fine, fine[:20]),
        envelope(fine, fine[:20], of=json.dumps(schema())),
        message({"Amount": "1"}, {"Amount": "a lot"}, {"Amount": "2"}),
    )
    for body in bodies:
        request = received(SALES, body)
        (bad,) = (one for one in read(body) if isinstance(one, Unreadable))

        again = readers.alone(request, bad.raw)

        assert [outcome for _, outcome in readers.read(again, SALES)] == [bad]
        assert VENDOR.count({}, again.body) == 1


@pytest.mark.parametrize(
    ("body", "items"),
    [
        (change({}), 1),
        ([change({})] * 3, 3),
        ([], 0),
        (envelope("", "", ""), 3),
        ({"events": [], "schema": {}}, 0),
        ({"events": "none"}, 1),
        (message({}, {}), 2),
        (b"\xef\xbb\xbf\n" + message({}).partition(b"?>")[2], 1),
    ],
)
def test_the_items_of_a_body_are_counted_as_they_are_cut(body: Any, items: int) -> None:
    request = received(SALES, body)

    assert VENDOR.count({}, request.body) == items
    assert len(VENDOR.split(request, SALES)) == items


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not a JSON object"),
        (b"[1", "not a JSON array"),
        (b"7", "not a JSON object"),
        (b"", "not a JSON object"),
        (b"<a>", "not XML"),
        (b"<a/>", "no Envelope"),
        (b"<Envelope/>", "no Body"),
        (message(), "0 of 1 to 100 Notifications"),
        (message(*[{}] * 101), "101 of 1 to 100 Notifications"),
        (message({}).replace(b"2005/09/outbound", b"other"), "not in the namespace"),
        (b"<!DOCTYPE a><a/>", "without DOCTYPE"),
        (
            b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
            + message({"Name": "&b;"}).partition(b"?>")[2],
            "without DOCTYPE",
        ),
        (message({"Name": "&b;"}), "not XML"),
        (b"<a>" * 1000 + b"</a>" * 1000, "elements, or some 16 deep"),
        (b"<a>" + b"<b/>" * 100_001 + b"</a>", "elements, or some 16 deep"),
        (message({}).replace(b"<SessionId", b" " * 70_000 + b"<SessionId"), "no Notification"),
        (message({"Name": "\xff"}).decode().encode("latin-1"), "not XML"),
    ],
)
def test_what_is_not_salesforces_is_refused_as_a_whole(body: bytes, words: str) -> None:
    with pytest.raises(MalformedError, match=words):
        VENDOR.count({}, body)
    assert [type(one) for one in read(body)] == [Unreadable]


# Proofs and answers.


def arrival(body: bytes = b"{}", **more: Any) -> Arrival:
    wanted: dict[str, Any] = {
        "method": "POST",
        "url": "https://pace.example/v1/sources/sf/events",
        "headers": {},
        "query": {},
        "body": body,
        "now_ms": AT,
    }
    return Arrival(**(wanted | more))


BASIC = {"authorization": "Basic " + base64.b64encode(b"pace:older").decode()}


@pytest.mark.parametrize(
    ("proof", "method"),
    [
        ({"query": {"key": "s3cret"}}, "salesforce.query"),
        ({"headers": {"x-secret": "older"}}, "salesforce.header"),
        ({"headers": BASIC}, "salesforce.basic"),
    ],
)
def test_a_secret_proves_a_message_in_each_place(proof: dict[str, Any], method: str) -> None:
    assert VENDOR.verify is not None
    assert VENDOR.verify(arrival(**proof), SALES) == method
    assert VENDOR.verify(arrival(message({}), **proof), SALES) == method


@pytest.mark.parametrize(
    "proof",
    [{}, {"query": {"key": "wrong"}}, {"query": {"other": "s3cret"}}, {"headers": {"key": ""}}],
)
def test_without_a_secret_it_says_where_to_send_it(proof: dict[str, Any]) -> None:
    assert VENDOR.verify is not None
    with pytest.raises(RefusedError, match=r"X-Secret.*parameter key.*Basic as pace"):
        VENDOR.verify(arrival(message({}), **proof), SALES)


def test_a_message_of_another_organization_is_refused() -> None:
    assert VENDOR.verify is not None
    proof = {"query": {"key": "s3cret"}}
    for own in ("00D5f00000JUZPD", "00D5f00000JUZPDEA5"):
        assert VENDOR.verify(arrival(message({}, organization=own), **proof), SALES)
    for other in ("00D5f00000JUZPd", "00D5f00000JUZPXEA5", ""):
        with pytest.raises(RefusedError, match="OrganizationId"):
            VENDOR.verify(arrival(message({}, organization=other), **proof), SALES)
    assert VENDOR.verify(arrival(b"<broken", **proof), SALES)  # refused for what it is


def test_a_message_is_acknowledged_and_an_event_is_not() -> None:
    answer = VENDOR.answer(received(SALES, message({})))

    assert answer is not None
    assert (answer.status, answer.media) == (200, "text/xml; charset=utf-8")
    assert b'<notificationsResponse xmlns="http://soap.sforce.com/2005/09/outbound">' in answer.body
    assert b"<Ack>true</Ack>" in answer.body
    assert VENDOR.answer(received(SALES, change({}))) is None


def test_a_source_says_where_its_secret_is() -> None:
    bare = Source(id="sf", tenant=TENANT, vendor="salesforce")

    (where,) = VENDOR.problems(bare)

    assert where.startswith("salesforce needs header, query or username")
    assert not VENDOR.problems(SALES)


def test_a_source_with_its_own_stages_is_not_read_by_the_standard_names() -> None:
    event = change({"StageName": "Closed Won"})
    own = Source(id="sf", tenant=TENANT, vendor="salesforce", stages=Stages(won=frozenset({"W"})))

    assert stated(read(event)[0])["status"] == "won"
    assert stated(read(event, own)[0])["status"] == "open"


# Hostile input.


def nested(depth: int) -> Any:
    kind: Any = "string"
    for level in range(depth):
        kind = {"type": "record", "name": f"R{level}", "fields": [{"name": "a", "type": kind}]}
    return kind


def chained(length: int) -> Any:
    """Records that each hold the one before: shallow to write, deep to read."""
    links = [
        {
            "type": "record",
            "name": f"R{n}",
            "fields": [{"name": "a", "type": nullable(f"R{n - 1}" if n else "string")}],
        }
        for n in range(length)
    ]
    return a_record([{"name": f"f{n}", "type": nullable(link)} for n, link in enumerate(links)])


def a_record(fields: list[Any], **more: Any) -> Any:
    return {"type": "record", "name": "A", "fields": fields} | more


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (a_record([{"name": "a", "type": ["null", "A"]}]), "not defined before"),
        (
            a_record(
                [
                    {"name": "x", "type": a_record([{"name": "b", "type": "int"}], namespace="n")},
                    {"name": "a", "type": ["null", "A"]},
                ]
            ),
            "twice",
        ),
        (a_record([{"name": "a", "type": "null"}]), "not defined before"),
        (a_record([]), "without fields"),
        (a_record([{"name": "a", "type": {"type": "array", "items": "null"}}]), "plain values"),
        (
            a_record([{"name": "a", "type": {"type": "array", "items": ["null", "int"]}}]),
            "plain values",
        ),
        (
            a_record([{"name": "a", "type": {"type": "fixed", "name": "F", "size": 0}}]),
            "not defined before",
        ),
        (nested(40), "records deep"),
        (chained(40), "records deep"),
        (["null", "string"], "not that of a record"),
        ("string", "not an Avro schema"),
        (a_record([{"name": "a b", "type": "int"}]), "schema"),
        ({"type": "record"}, "not an Avro schema"),
        (7, "not an Avro schema"),
        ("{", "not an Avro schema"),
    ],
)
def test_a_schema_that_could_not_be_followed_safely_is_refused(bad: Any, words: str) -> None:
    (outcome,) = read(envelope(base64.b64encode(b"\x02" * 1000).decode(), of=bad))

    assert isinstance(outcome, Unreadable)
    assert words in outcome.reason


def test_a_payload_that_claims_more_than_it_has_is_refused() -> None:
    kind = a_record([{"name": "a", "type": {"type": "array", "items": "string"}}])
    for payload in (b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x02\xfe\xff\xff\xff\x0f", b""):
        (outcome,) = read(envelope(base64.b64encode(payload).decode(), of=kind))
        assert isinstance(outcome, Unreadable)
        assert "not Avro by this schema" in outcome.reason


def check(body: bytes) -> None:
    """Facts that can be kept, or reasons that can be read; and an item alone says the same."""
    request = received(SALES, body)
    outcomes = [outcome for _, outcome in readers.read(request, SALES)]
    facts = [outcome for outcome in outcomes if isinstance(outcome, Fact)]
    for outcome in outcomes:
        if isinstance(outcome, Unreadable):
            assert outcome.reason
            readers.read(readers.alone(request, outcome.raw), SALES)
    for number, fact in enumerate(facts):
        assert valid_id(fact.id) or (not fact.id and "resync_entity" in fact.signals)
        canonical.event(request, number, fact)
        for field in fact.fields.values():
            assert 0 <= field.at < 2**63
            assert not (isinstance(field.value, int) and abs(field.value) >= 2**63)
            assert "\x00" not in str(field.value)
    merge.of(facts)


_FIELDS = {
    "Name": {"FirstName": "Ann", "LastName": "Lee"},
    "StageName": "Closed Won",
    "Amount": 1.5,
    "AccountId": "0015f00002JUZPD",
    "WhatId": OPPORTUNITY,
    "TaskSubtype": "Call",
    "ActivityDate": "2026-01-05",
    "DurationInMinutes": 5,
    "IsConverted": True,
    "CreatedDate": "2026-01-05T10:01:00.000Z",
}
_EVENT = change(_FIELDS, changedFields=["Amount"], nulledFields=[], diffFields=["Name"])


@given(spoiled(_EVENT), st.sampled_from(["Opportunity", "Task", "Lead", "Event", "Contact"]))
@settings(max_examples=300, deadline=None)
def test_any_change_event(event: Any, entity: str) -> None:
    if isinstance(event, dict) and isinstance(event.get("payload"), dict):
        head = event["payload"].get("ChangeEventHeader")
        if isinstance(head, dict):
            head["entityName"] = entity
    check(json.dumps([event, event]).encode())


@given(
    spoiled(
        {
            "data": {
                "payload": {"CreatedDate": 1, "CreatedById": "005", "A__c": 1},
                "event": {"EventUuid": "u", "replayId": 1},
            },
            "channel": "/event/A__e",
        }
    )
    | spoiled({"attributes": {"type": "OpportunityStage"}, "Id": "1", "ApiName": "x", **_FIELDS})
)
@settings(max_examples=200, deadline=None)
def test_any_platform_event_or_record(body: Any) -> None:
    check(json.dumps(body).encode())


@given(spoiled(schema()), st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_avro(of: Any, payload: bytes) -> None:
    check(json.dumps(envelope(base64.b64encode(payload).decode(), of=of)).encode())


@given(spoiled(schema()))
@settings(max_examples=200, deadline=None)
def test_any_schema_of_a_real_payload(of: Any) -> None:
    nothing = dict.fromkeys(FIELDS[1:])
    head = header(changedFields=["0x40"], nulledFields=["1-0x3"], diffFields=[])
    check(json.dumps(envelope(packed({"ChangeEventHeader": head} | nothing), of=of)).encode())


_MESSAGE = message(
    {"Amount": "1", "StageName": None, "LastModifiedDate": "2026-01-05T10:00:00.000Z"}, {}
)


@given(st.integers(0, len(_MESSAGE)), st.integers(0, 40), st.binary(max_size=20))
@settings(max_examples=300, deadline=None)
def test_any_message(start: int, length: int, other: bytes) -> None:
    check(_MESSAGE[:start] + other + _MESSAGE[start + length :])


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_any_bytes(body: bytes) -> None:
    check(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"payload":' * 100_000,
        b'{"schema":' + b"[" * 50_000 + b"]" * 50_000 + b',"events":[{"payload":""}]}',
        b'{"events":[' + b'{"payload":' * 50_000 + b"1" + b"}" * 50_000 + b"]}",
        b'[{"payload":"\\ud83d"}]',
        b'{"events":[{"payload":"\\ud83d"},{"payload":{}}]}',
        b"<" * 100_000,
        b'<a b="' + b"x" * 1_000_000,
    ],
)
def test_bombs(body: bytes) -> None:
    check(body)
