"""What a rules file may say, when windows are due, and what rules find."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from schemas.directory import (
    Assignment,
    Directory,
    Leave,
    Membership,
    Organisation,
    OwnerMapping,
    Person,
    Role,
    Team,
    Territory,
)
from schemas.spm import Alert
from services.notifications.domain import deliveries, findings, watches
from services.notifications.domain.findings import Finding
from services.notifications.domain.rules import InvalidRulesError, parse
from services.notifications.domain.schedule import due_at, zone_of
from services.notifications.settings import SHIPPED_RULES, read_yaml
from tests.support import TENANT, a_record

NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)
BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")


def shipped() -> Any:
    return read_yaml(SHIPPED_RULES)


RULES = parse(shipped())
BIG = RULES.records[0]
LOW = RULES.schedules[0]


def a_directory(**person: Any) -> Directory:
    common: dict[str, Any] = {"tenant": TENANT, "version": 1}
    entries = [
        Organisation(**common, id="all", name="Acme", zone="Europe/Berlin", currency="EUR"),
        Team(**common, id="top", name="Top"),
        Team(**common, id="north", name="North", parent="top"),
        Person(**common, id="ann", **({"name": "Ann"} | person)),
        Membership(**common, id="1", person="ann", team="north"),
        Membership(**common, id="2", person="ann", team="north", manages=True),
        Membership(**common, id="3", person="mia", team="top", manages=True),
        Membership(**common, id="4", person="abe", team="top", manages=True),
        OwnerMapping(**common, id="o", source="crm", owner_id="7", person="ann"),
    ]
    return Directory(TENANT, entries)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"kind": "other"}, "Invalid value 'other'"),
        ({"audience": []}, "'low': `audience` is empty"),
        ({"audience": ["boss"]}, r"boss.*\$.rules\[0\].audience"),
        ({"below": 0}, r">= 1 - at `\$.rules\[0\].below`"),
        ({"below": "many"}, r"Expected `int`"),
        ({"at": "25:00:00"}, r"\$.rules\[0\].at"),
        ({"at": "18:00:00+01:00"}, "without an offset"),
        ({"metrics": []}, "at least one"),
        ({"id": "a/b"}, "an id is made of"),
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"message": {"title": "$", "text": "x"}}, r"write `\$\$`"),
        ({"message": {"title": "$amount", "text": "x"}}, "no such evidence: amount; there is"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_reason(change: dict[str, Any], complaint: str) -> None:
    rule = shipped()["rules"][1] | {"id": "low"} | change
    with pytest.raises(InvalidRulesError, match=complaint):
        parse({"rules": [rule]})


def test_two_rules_of_one_name_are_refused() -> None:
    rule = shipped()["rules"][0]
    with pytest.raises(InvalidRulesError, match="used twice"):
        parse({"rules": [rule, rule]})


@pytest.mark.parametrize("document", [None, [], {"rule": []}, {"rules": {}}])
def test_something_else_is_not_a_rules_file(document: Any) -> None:
    with pytest.raises(InvalidRulesError):
        parse(document)


@pytest.mark.parametrize(
    ("day", "at", "zone", "expected"),
    [
        (date(2026, 3, 27), time(18), BERLIN, "2026-03-27T17:00+00:00"),
        (date(2026, 3, 30), time(18), BERLIN, "2026-03-30T16:00+00:00"),  # summer time
        (date(2026, 10, 23), time(18), BERLIN, "2026-10-23T16:00+00:00"),
        (date(2026, 10, 26), time(18), BERLIN, "2026-10-26T17:00+00:00"),  # winter time
        (date(2026, 3, 29), time(2, 30), BERLIN, "2026-03-29T01:30+00:00"),  # skipped
        (date(2026, 10, 25), time(2, 30), BERLIN, "2026-10-25T00:30+00:00"),  # the first of two
        (date(2026, 11, 2), time(18), NEW_YORK, "2026-11-02T23:00+00:00"),
        (date(2026, 10, 30), time(18), NEW_YORK, "2026-10-30T22:00+00:00"),
    ],
)
def test_due_times_follow_the_clocks(day: date, at: time, zone: ZoneInfo, expected: str) -> None:
    assert due_at(day, at, zone) == datetime.fromisoformat(expected)


def test_a_misspelt_zone_gives_way_to_the_organisations() -> None:
    assert zone_of(a_directory(zone="Europe/Berlyn"), "ann") == BERLIN
    assert zone_of(a_directory(zone="../etc"), "ann") == BERLIN


def test_a_change_of_the_directory_affects_whom_it_is_about_or_everyone() -> None:
    common: dict[str, Any] = {"tenant": TENANT, "version": 2, "id": "new"}
    of_ann: dict[str, Any] = common | {"person": "ann"}

    for harmless in (
        OwnerMapping(**of_ann, source="crm", owner_id="9"),
        Territory(**common, name="North"),
        Assignment(**of_ann, territory="north"),
        Leave(**of_ann, valid_from=date(2026, 11, 1)),
        Role(**of_ann, role="lead"),
    ):
        assert watches.affected([], [harmless]) == set()
    moved = Membership(**of_ann, team="top")
    before = Membership(**of_ann | {"person": "abe"}, team="top")
    assert watches.affected([before], [moved]) == {"ann", "abe"}
    assert watches.affected([], [Team(**common, name="New")]) is watches.Everyone


def test_the_next_window_is_the_next_working_day() -> None:
    friday = date(2026, 10, 30)
    found = watches.next_window(LOW, a_directory(), "ann", friday + timedelta(days=1))
    assert found == (date(2026, 11, 2), datetime(2026, 11, 2, 17, tzinfo=UTC))


def test_there_is_no_next_window_for_who_has_left() -> None:
    directory = a_directory(left=date(2026, 11, 2))
    assert watches.next_window(LOW, directory, "ann", date(2026, 10, 31)) is None


@pytest.mark.parametrize(
    ("counts", "fires"),
    [
        ({}, True),
        ({"calls_made": 7}, True),
        ({"calls_made": 4, "meetings_held": 4}, False),
        ({"calls_made": 7, "emails_sent": 5}, True),
    ],
)
def test_activity_is_the_sum_of_the_counts(counts: dict[str, int], *, fires: bool) -> None:
    done = {metric: Decimal(count) for metric, count in counts.items()}
    finding = findings.of_person(LOW, "ann", date(2026, 11, 2), done, a_directory())
    assert (finding is not None) == fires


def test_the_nearest_managers_other_than_oneself_are_told() -> None:
    finding = findings.of_person(LOW, "ann", date(2026, 11, 2), {}, a_directory())
    assert finding is not None
    assert finding.audience == ["person:ann", "person:abe", "person:mia"]
    assert finding.text == (
        "Ann: 0 of 8 calls and meetings on 2026-11-02 (0 calls, 0 meetings)."
        " Block an hour tomorrow morning for calls."
    )


@pytest.mark.parametrize(
    "person",
    [
        {"role": "manager"},
        {"joined": date(2026, 10, 4)},  # 29 days ago
        {"joined": date.max},  # "never", as other systems write it: no day follows
        {"left": date(2026, 11, 2)},
    ],
)
def test_the_rule_is_not_about_everyone(person: dict[str, Any]) -> None:
    assert findings.of_person(LOW, "ann", date(2026, 11, 2), {}, a_directory(**person)) is None


def test_the_ramp_ends_after_thirty_days() -> None:
    directory = a_directory(joined=date(2026, 10, 3))
    assert findings.of_person(LOW, "ann", date(2026, 11, 2), {}, directory) is not None


def test_dates_at_the_ends_of_time_are_dates() -> None:
    directory = a_directory(joined=date.min, left=date.max)
    assert findings.of_person(LOW, "ann", date(2026, 11, 2), {}, directory) is not None


def test_nobody_is_looked_at_on_a_sunday() -> None:
    assert findings.of_person(LOW, "ann", date(2026, 11, 1), {}, a_directory()) is None


def test_a_name_with_dollars_is_only_a_name() -> None:
    record = a_record(
        status="won", amount="50000", currency="EUR", owner_id="7",
        closed_at="2026-11-02T23:30:00+00:00", name="$person {0.__class__} %s",
    )  # fmt: skip
    finding = findings.of_record(BIG, record, a_directory())
    assert isinstance(finding, Finding)
    assert finding.title == "Big deal won: $person {0.__class__} %s"
    assert finding.evidence["day"] == "2026-11-03"  # in Berlin


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"status": "open"}, None),
        ({"closed_at": "yesterday"}, "undated"),
        ({"amount": "NaN"}, "amount"),
        ({"currency": "USD"}, "currency"),
        ({"currency": None}, "currency"),
        ({"amount": "49999.99"}, "small"),
        ({"owner_id": "8"}, "uncredited"),
    ],
)
def test_why_a_record_is_no_finding(fields: dict[str, Any], reason: str | None) -> None:
    known = {
        "status": "won", "amount": "50000", "currency": "EUR", "owner_id": "7",
        "closed_at": "2026-11-02T12:00:00+00:00",
    }  # fmt: skip
    assert findings.of_record(BIG, a_record(**(known | fields)), a_directory()) == reason


def a_finding() -> Finding:
    return Finding(title="t", text="x", evidence={}, audience=["person:ann"])


def test_an_alert_follows_its_condition() -> None:
    raised = findings.decide(LOW, None, a_finding(), placed_at=NOW, now=NOW)
    assert raised is not None
    same = findings.decide(LOW, raised, a_finding(), placed_at=NOW, now=NOW)
    resolved = findings.decide(LOW, raised, None, placed_at=NOW, now=NOW)
    assert resolved is not None
    later = NOW + timedelta(days=300)
    again = findings.decide(LOW, resolved, a_finding(), placed_at=NOW, now=later)

    assert same is None
    assert (resolved.state, resolved.resolved_at) == ("resolved", NOW)
    assert again == raised


def test_what_is_old_is_not_raised() -> None:
    old = NOW - LOW.max_age - timedelta(seconds=1)
    assert findings.decide(LOW, None, a_finding(), placed_at=old, now=NOW) is None
    assert findings.decide(LOW, None, None, placed_at=NOW, now=NOW) is None


def test_retries_take_from_seconds_to_a_day_and_end() -> None:
    waits = [
        (deliveries.retry_at(attempts, NOW, jitter=0) or NOW) - NOW for attempts in range(1, 9)
    ]
    assert waits[0] == timedelta(seconds=5)
    assert waits[6] == timedelta(days=1)
    assert waits[7] == timedelta(0)  # given up
    early, late = (deliveries.retry_at(1, NOW, jitter=j) for j in (-1, 1))
    assert early is not None
    assert late is not None
    assert (late - early).total_seconds() == pytest.approx(2)


def test_a_delivery_is_named_by_what_it_is() -> None:
    key = (TENANT, "r", "person:ann", "day:2026-11-02")
    one = deliveries.delivery(key, "inbox", "person:ann")
    assert deliveries.from_entry(key, one.entry) == one
    assert deliveries.delivery(key, "webhook", "person:ann").id != one.id
    assert str(one.id) == "08367757-e062-51ea-a26a-e9e82b105c23"
    assert deliveries.from_entry(key, "pigeon/ann") is None


def test_only_young_firing_alerts_call_for_messages() -> None:
    alert = Alert(
        tenant=TENANT, version=1, rule=LOW.id, subject="person:ann", window="day:2026-11-02",
        state="firing", title="", text="", evidence={}, audience=["person:ann"], raised_at=NOW,
    )  # fmt: skip
    key = deliveries.key_of(alert)
    hooks = [
        deliveries.Subscription(TENANT, "all", None),
        deliveries.Subscription(TENANT, "big", frozenset({BIG.id})),
        deliveries.Subscription("other", "all", None),
    ]
    entries = [d.entry for d in deliveries.wanted(key, alert, LOW, hooks, NOW)]
    assert entries == ["inbox/person:ann", "webhook/all"]
    assert deliveries.wanted(key, alert, LOW, hooks, NOW + timedelta(days=15)) == []
