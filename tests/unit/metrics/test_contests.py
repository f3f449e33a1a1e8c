"""Contests: when they are, who wins what, what is told, and that a result can be made again."""

import random
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from schemas.directory import Directory, Organisation, Person
from schemas.periods import Calendar
from schemas.spm import ContestState
from services.metrics.domain import contests
from services.metrics.domain.catalogue import parse
from services.metrics.domain.contests import Contest, Credited, Evidence, Material, Table
from services.metrics.domain.numbers import Part
from services.metrics.domain.ranking import Number
from services.metrics.domain.scopes import Roster
from services.metrics.settings import Settings

CATALOGUE = parse(yaml.safe_load(Settings.model_fields["catalogue"].default.read_text()))
DAY = date(2026, 11, 20)
NINE = datetime(2026, 11, 20, 9, tzinfo=UTC)
PEOPLE = "abcdef"
CALLS = [{"metric": "calls_made", "points": 1}]

places_of = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=2), st.integers(0, 3))


def a_contest(**changes: Any) -> Contest:
    fields: dict[str, Any] = {
        "id": "blitz",
        "title": "Blitz",
        "starts": "2026-11-20T09:00",
        "ends": "2026-11-20T17:00",
        "metrics": CALLS,
        "currency": "EUR",
    }
    return msgspec.convert(fields | changes, Contest)


def second(minutes: float) -> int:
    """So many minutes after nine."""
    return int((NINE + timedelta(minutes=minutes)).timestamp())


def a_call(person: str, minutes: float, number: int = 0, **changes: Any) -> Credited:
    fields: dict[str, Any] = {
        "type": "call",
        "id": f"crm:{person}{minutes}-{number}",
        "number": 0,
        "metric": "calls_made",
        "unit": "count",
        "at": second(minutes),
        "value": 1,
        "person": person,
        "subjects": ["team:north", "role:rep"],
    }
    return Credited(**(fields | changes))


def collected(contest: Contest, made: list[Credited]) -> Evidence:
    when = contests.times(contest, "UTC")
    evidence = Evidence(contest, when.round_spans())
    for credit in sorted(made, key=lambda c: (c.type, c.id, c.number)):
        evidence.add(credit)
    return evidence


def a_table(contest: Contest, made: list[Credited], *, ended: int = 0) -> Table:
    evidence = collected(contest, made)
    directory = Directory(
        "acme",
        [
            Organisation(tenant="acme", version=1, id="all", name="Acme", currency="USD"),
            *(Person(tenant="acme", version=1, id=p, name=p.upper()) for p in PEOPLE),
        ],
    )
    table = Table(
        contest,
        Material(
            catalogue=CATALOGUE,
            roster=Roster(directory, DAY),
            currency="EUR",
            sums=evidence.sums,
            rounds=evidence.rounds[: ended + 1],
            ended=ended,
        ),
    )
    wanted = table.wanted()
    table.settle({subject: evidence.moments.get(subject, []) for subject in wanted})
    return table


def placed(table: Table) -> dict[str, int]:
    return {subject.removeprefix("person:"): place for subject, place in table.places.items()}


# --- when ---------------------------------------------------------------------------------


def test_a_contest_goes_through_its_phases() -> None:
    when = contests.times(a_contest(zone="Europe/Berlin", grace="PT2H"), "America/New_York")

    assert when.starts == datetime(2026, 11, 20, 8, tzinfo=UTC)
    phases = [when.phase(NINE + timedelta(hours=h)) for h in (-2, -1, 6.9, 7, 8.9, 9)]
    assert phases == ["scheduled", "running", "running", "grace", "grace", "final"]
    assert contests.times(a_contest(), "America/New_York").starts.hour == 14


def test_the_first_of_two_equal_local_times_counts() -> None:
    contest = a_contest(starts="2026-10-25T02:30", ends="2026-10-25T09:00", zone="Europe/Berlin")

    assert contests.times(contest, "UTC").starts == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        ("2026-11-19T23:00", "2026-11-20T23:00", ("2026-11-20", "2026-11-21")),
        ("2026-10-24T22:00", "2026-10-25T23:00", ("2026-10-25", "2026-10-26")),  # 25 hours
        ("2026-11-20T00:00", "2026-11-21T00:00", None),  # days elsewhere
        ("2026-11-19T23:00", "2026-11-20T12:00", None),
    ],
)
def test_a_contest_may_be_whole_days(start: str, end: str, days: tuple[str, str] | None) -> None:
    instants = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (start, end))
    begin, after = (int(instant.timestamp()) for instant in instants)
    found = contests.whole_days((begin, after), Calendar("Europe/Berlin"))

    assert found == (days and tuple(date.fromisoformat(day) for day in days))


# --- who wins -----------------------------------------------------------------------------


def test_points_are_counted_per_unit_and_weights_by_targets() -> None:
    money: dict[str, Any] = {"metric": "revenue_won", "unit": "EUR", "value": 500_00}
    made = [a_call("a", 1), a_call("a", 2), a_call("b", 3), a_call("b", 4, **money)]
    points = a_contest(metrics=[*CALLS, {"metric": "revenue_won", "points": "0.01"}])
    weights = a_contest(
        metrics=[
            {"metric": "calls_made", "weight": 60, "target": 4},
            {"metric": "revenue_won", "weight": 40, "target": 1000},
        ]
    )

    assert [(row.name, row.score) for row in a_table(points, made).rows()[:2]] == [
        ("B", "6"),
        ("A", "2"),
    ]
    rows = a_table(weights, made).rows()
    assert [(row.name, row.score) for row in rows[:2]] == [("B", "35"), ("A", "30")]
    assert rows[0].values == {"calls_made": "1", "revenue_won": "500.00"}
    assert (rows[2].place, rows[2].score) == (None, None)


def test_equals_share_a_place_or_are_told_apart_by_who_was_first() -> None:
    made = [a_call("a", 5), a_call("a", 60), a_call("b", 1), a_call("b", 61), a_call("c", 1)]

    assert placed(a_table(a_contest(), made)) == {"a": 1, "b": 1, "c": 3}
    assert placed(a_table(a_contest(ties="first"), made)) == {"a": 1, "b": 2, "c": 3}


def test_a_race_is_won_by_who_reaches_the_goal_first() -> None:
    made = [a_call("a", m) for m in (1, 2, 3, 4, 5)]
    made += [a_call("b", m) for m in (0.1, 0.2, 0.3)] + [a_call("c", m) for m in (1, 2)]
    table = a_table(a_contest(mode="race", goal=3), made)

    assert placed(table) == {"b": 1, "a": 2, "c": 3}
    assert table.rows()[0].reached_at == NINE + timedelta(minutes=0.3)
    assert table.rows()[2].reached_at is None


def test_a_correction_puts_a_racer_behind_the_goal_again() -> None:
    made = [a_call("a", m) for m in (1, 2, 3)] + [a_call("b", m) for m in (5, 6, 7)]
    made.append(a_call("a", 8, value=-1))
    made.append(a_call("a", 9))

    assert placed(a_table(a_contest(mode="race", goal=3), made)) == {"b": 1, "a": 2}


ROUNDS = [
    {"ends": "2026-11-20T11:00", "eliminate": 2},
    {"ends": "2026-11-20T13:00", "eliminate": 1},
    {"ends": "2026-11-20T17:00", "eliminate": 1},
]


def test_the_lowest_of_each_round_leave() -> None:
    contest = a_contest(mode="elimination", rounds=ROUNDS)
    made = [a_call(p, n) for p, count in zip("abcde", (5, 4, 3, 2, 1), strict=True)
               for n in range(count)]  # fmt: skip
    made += [a_call("c", 130), a_call("b", 131)]
    first = a_table(contest, made, ended=1)
    second_round = a_table(contest, made, ended=2)

    assert first.left == {"person:f": 1, "person:e": 1}
    assert placed(first) == {"b": 1, "c": 2, "a": 3, "d": 4, "e": 5}  # f has never called
    assert second_round.left == {"person:f": 1, "person:e": 1, "person:d": 2}
    assert [row.left_in for row in second_round.rows()][:5] == [None, None, None, 2, 1]


scores_of = st.dictionaries(st.sampled_from(PEOPLE), st.none() | st.integers(0, 3))


@given(st.lists(st.tuples(scores_of, st.integers(1, 3)), max_size=5), st.booleans())
def test_exactly_as_many_leave_as_a_round_says(
    rounds: list[tuple[dict[str, Number | None], int]],
    running: bool,  # noqa: FBT001  # drawn
) -> None:
    scored = [scores for scores, _ in rounds]
    counts = [count for _, count in rounds][: len(rounds) - (running and bool(rounds))]
    left, places = contests.eliminate(PEOPLE, scored, counts)

    remaining = len(PEOPLE)
    for number, count in enumerate(counts, start=1):
        leaving = min(count, remaining - 1)
        assert list(left.values()).count(number) == leaving
        remaining -= leaving
    assert set(places) == set(PEOPLE)
    stays = [places[p] for p in PEOPLE if p not in left]
    assert all(place < places[p] for p in left for place in stays)
    for one in left:
        for other in left:
            assert left[one] >= left[other] or places[one] > places[other]


# --- prizes -------------------------------------------------------------------------------


def test_shared_places_share_their_prizes() -> None:
    assert contests.share_prizes({"a": 1, "b": 1, "c": 3}, [100_00, 50_01, 10_00]) == {
        "a": 75_01,
        "b": 75_00,
        "c": 10_00,
    }
    assert contests.share_prizes({"a": 1, "b": 2, "c": 2, "d": 2}, [9, 6]) == {
        "a": 9, "b": 2, "c": 2, "d": 2
    }  # fmt: skip
    assert contests.share_prizes({"a": 1}, [5, 3]) == {"a": 5}
    assert contests.share_prizes({}, [5]) == {}


@given(places_of, st.lists(st.integers(0, 10_000), max_size=6))
def test_prizes_add_up_to_those_of_the_places_taken(
    scores: dict[str, int], amounts: list[int]
) -> None:
    places = contests.race(scores, {})
    won = contests.share_prizes(places, amounts)

    assert sum(won.values()) == sum(amounts[: len(places)])
    for one, other in zip(places, places, strict=True):
        assert abs(won.get(one, 0) - won.get(other, 0)) <= 1 or places[one] != places[other]


def test_prizes_are_paid_in_the_contests_currency() -> None:
    table = a_table(
        a_contest(prizes=["100", "50.5"]), [a_call("a", 1), a_call("b", 2), a_call("c", 3)]
    )

    assert [row.prize for row in table.rows()[:3]] == ["50.17", "50.17", "50.16"]


# --- a result that can be made again ------------------------------------------------------

histories = st.lists(
    st.builds(
        a_call,
        st.sampled_from("abc"),
        st.integers(0, 470),
        st.integers(0, 3),
        value=st.integers(-1, 2),
    ),
    max_size=15,
    unique_by=lambda credit: credit.id,
)


@given(
    histories,
    st.sampled_from(
        [
            {},
            {"ties": "first"},
            {"mode": "race", "goal": 2},
            {"mode": "elimination", "rounds": ROUNDS},
        ]
    ),
    st.randoms(),
)
def test_standings_and_digest_do_not_depend_on_arrival(
    made: list[Credited], mode: Mapping[str, Any], dice: random.Random
) -> None:
    contest = a_contest(**mode)
    ended = 2 if mode.get("rounds") else 0
    shuffled = list(made)
    dice.shuffle(shuffled)

    one, other = a_table(contest, made, ended=ended), a_table(contest, shuffled, ended=ended)
    assert contests.digest_of(one.rows()) == contests.digest_of(other.rows())
    assert collected(contest, made).digest == collected(contest, shuffled).digest


@given(histories)
def test_any_other_credit_is_another_digest(made: list[Credited]) -> None:
    more = [*made, a_call("a", 479, 9)]

    assert collected(a_contest(), made).digest != collected(a_contest(), more).digest


def test_teams_compete_with_what_counts_for_them() -> None:
    evidence = collected(a_contest(subjects="team"), [a_call("a", 1), a_call("b", 2)])

    assert {s: p.value for s, p in evidence.sums["calls_made"].items()} == {"team:north": 2}


# --- announcements ------------------------------------------------------------------------


def told(
    former: ContestState | None, hours: float, **leaders: str
) -> tuple[ContestState, list[str]]:
    contest = a_contest()
    when = contests.times(contest, "UTC")
    now = NINE + timedelta(hours=hours)
    found = contests.announcements(contest, when, now, former, leaders)
    state = ContestState(
        tenant="acme",
        version=1,
        id="blitz",
        title="Blitz",
        phase=when.phase(now),
        starts=when.starts,
        ends=when.ends,
        grace_ends=when.grace_ends,
        leaders=sorted(leaders) or (former.leaders if former else []),
        announcements=found,
    )
    before = len(former.announcements) if former else 0
    return state, [f"{each.id}: {each.text}" for each in found[before:]]


def test_what_is_told_is_told_once() -> None:
    state, said = told(None, -1)
    assert said == []
    state, said = told(state, 0)
    assert said == ["start: Blitz has started."]
    state, said = told(state, 1, a="Ada")
    assert said == []  # somebody must be first
    state, said = told(state, 2, b="Bob")
    assert said == ["lead-1: Blitz: Bob has taken the lead."]
    state, said = told(state, 2.1, b="Bob")
    assert said == []
    state, said = told(state, 4, a="Ada", b="Bob")
    assert said == [
        "halfway: Blitz: half of the time is over; Ada and Bob lead.",
        "lead-2: Blitz: Ada and Bob have taken the lead.",
    ]
    state, said = told(state, 8.5, a="Ada")
    assert said == []  # the lead changes no more once it is over; what was late still counts
    state, said = told(state, 9, a="Ada")
    assert said == ["end: Blitz is over: Ada won."]
    assert [each.id for each in state.announcements] == [
        "start", "lead-1", "halfway", "lead-2", "end"
    ]  # fmt: skip


def test_what_is_a_day_late_is_not_told() -> None:
    _, said = told(None, 24 * 5, a="Ada")

    assert said == []


def test_a_shared_deal_is_one_deal_of_the_team() -> None:
    contest = a_contest(subjects="team", metrics=[{"metric": "revenue_won"}])
    deal: dict[str, Any] = {"type": "opportunity", "id": "crm:1"}
    deal |= {"metric": "revenue_won", "unit": "EUR"}
    made = [
        a_call("p1", 5, **deal, number=0, value=60),
        a_call("p2", 5, **deal, number=1, value=40),
        a_call("p2", 6, **(deal | {"id": "crm:2"}), value=7),
    ]
    assert collected(contest, made).sums["revenue_won"]["team:north"] == Part(107, 2, "EUR")
