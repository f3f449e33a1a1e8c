from collections import Counter
from datetime import date, datetime, time
from decimal import Decimal
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from simulator.days import Change, history_start, play, working_days
from simulator.organisation import HUBSPOT, PARTNERS, PIPEDRIVE, ZONE, make_company

START = date(2026, 11, 9)


@pytest.fixture(scope="module")
def changes() -> list[Change]:
    return list(play(7, START, 3))


def local(change: Change) -> datetime:
    return change.at.astimezone(ZoneInfo(ZONE))


def test_the_same_seed_plays_the_same_days(changes: list[Change]) -> None:
    assert list(play(7, START, 3)) == changes
    assert list(play(8, START, 3)) != changes


def test_a_longer_play_begins_like_a_shorter_one(changes: list[Change]) -> None:
    shorter = list(play(7, START, 2))

    assert changes[: len(shorter)] == shorter


def test_changes_come_in_order_of_time_and_never_two_of_a_record_at_once(
    changes: list[Change],
) -> None:
    assert all(before.at <= after.at for before, after in pairwise(changes))
    assert max(Counter((change.record, change.at) for change in changes).values()) == 1


def test_work_happens_on_working_days_before_the_evening(changes: list[Change]) -> None:
    assert {local(change).weekday() for change in changes} <= set(range(5))
    assert max(local(change).time() for change in changes) <= time(17, 35)
    assert min(local(change).date() for change in changes) >= history_start(START)


def test_an_instant_is_what_both_vendors_can_say(changes: list[Change]) -> None:
    for change in changes:
        assert change.at.microsecond % 1000 == 0


def test_a_record_begins_with_its_creation_and_ends_with_its_deletion(
    changes: list[Change],
) -> None:
    last: dict[tuple[str, str, str], str] = {}
    for change in changes:
        before = last.get(change.record)
        assert (before is None) == (change.op == "create")
        assert before != "delete"
        last[change.record] = change.op


def test_everything_that_must_be_provable_happens(changes: list[Change]) -> None:
    kinds = Counter((change.source, change.type, change.op) for change in changes)
    amounts = [c.fields["amount"] for c in changes if isinstance(c.fields.get("amount"), Decimal)]
    status = {change.fields.get("status") for change in changes}

    assert {source for source, _, _ in kinds} == {HUBSPOT, PIPEDRIVE, PARTNERS}
    assert {kind for _, kind, _ in kinds} == {"opportunity", "call", "email", "meeting"}
    assert {"won", "lost", "open"} <= status
    assert len([a for a in amounts if isinstance(a, Decimal) and a > 50_000]) >= 3
    assert any(change.op == "delete" and change.type == "opportunity" for change in changes)
    assert any(change.fields == {"owner_id": change.fields.get("owner_id")} for change in changes)


def test_deals_are_reopened_cancelled_and_repriced_after_they_were_won() -> None:
    status: dict[tuple[str, str, str], str] = {}
    seen: set[str] = set()
    for change in play(3, START, 10):
        before = status.get(change.record)
        if before == "won":
            seen |= {str(change.fields.get("status", "")), *change.fields, change.op}
        if "status" in change.fields:
            status[change.record] = str(change.fields["status"])

    assert {"lost", "open", "amount", "delete"} <= seen


def test_working_days_skip_weekends() -> None:
    assert working_days(date(2026, 11, 13), 2) == [date(2026, 11, 13), date(2026, 11, 16)]


def test_the_company_has_a_director_six_teams_and_people_who_move() -> None:
    company = make_company(7, START)
    managers = [m for m in company.memberships if m.manages]
    movers = Counter(m.person for m in company.memberships)

    assert len(company.people) == 40
    assert len({person.id for person in company.people}) == 40
    assert len(managers) == 7
    assert sorted(movers.values())[-2:] == [2, 2]
    assert [m for m in company.mappings if m.late]
    assert {team.parent for team in company.teams} == {"", "sales"}
    assert len({person.zone for person in company.people}) >= 3


def test_a_mover_belongs_to_one_team_on_each_day() -> None:
    company = make_company(7, START)
    mover = next(m.person for m in company.memberships if m.id.endswith("-2"))
    days = working_days(date(2026, 10, 12), 30)
    teams = [company.team_of(mover, day) for day in days]

    assert None not in teams
    assert len({team.id for team in teams if team}) == 2
