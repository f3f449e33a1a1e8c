"""Goals over time, divided and held against each other."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.directory import (
    Directory,
    Entry,
    Leave,
    Membership,
    Organisation,
    Person,
    Team,
)
from schemas.periods import Calendar, Grain, written
from schemas.spm import Goal
from services.metrics.domain import goals

QUARTER = "quarter:2026-01-01"
YEAR = "year:2026-01-01"
FIRST = date(2026, 1, 1)
DAY = timedelta(days=1)


def goal(subject: str = "person:ada", target: str = "900", **terms: Any) -> Goal:
    terms = {"period": QUARTER, "metric": "deals_won"} | terms
    for name in ("seasonality", "ramp"):
        terms[name] = [Decimal(str(weight)) for weight in terms.get(name, [])]
    return Goal(tenant="acme", version=1, subject=subject, target=Decimal(target), **terms)


def ids(number: str) -> dict[str, Any]:
    return {"tenant": "acme", "version": 1, "id": number}


def person(number: str = "ada", **fields: Any) -> Person:
    return Person(name=number.title(), **ids(number), **fields)


def team(number: str, parent: str = "") -> Team:
    return Team(name=number.title(), parent=parent, **ids(number))


def member(who: str, where: str, **fields: Any) -> Membership:
    since = fields.get("valid_from", "")
    return Membership(person=who, team=where, **ids(f"{who}-{where}-{since}"), **fields)


def away(since: date, until: date | None, number: str = "1") -> Leave:
    return Leave(person="ada", valid_from=since, valid_to=until, **ids(number))


def directory(*entries: Entry, **organisation: Any) -> Directory:
    return Directory("acme", [Organisation(name="Acme", **ids("all"), **organisation), *entries])


def expected(asked: Goal, among: Directory, day: date) -> Fraction:
    return goals.course(asked, among).expected(day)


# Effective targets


@pytest.mark.parametrize(
    ("proration", "kept"),
    [
        ("none", 900),
        ("days", Fraction(900 * 45, 90)),  # 15 February to 31 March, the first day counted
        ("business_days", Fraction(900 * 32, 64)),  # 10 in February, 22 in March, of 22 + 20 + 22
        ("months", 900 * Fraction(28 + 31, 90)),  # half of February is enough to keep it
        ("half_months", 900 * Fraction(14 + 31, 90)),
    ],
)
def test_a_joiner_keeps_what_proration_leaves(proration: str, kept: Fraction) -> None:
    among = directory(person(joined=date(2026, 2, 15)))

    assert goals.effective(goal(proration=proration), among) == kept


def test_a_month_of_which_less_than_half_is_left_is_not_kept() -> None:
    among = directory(person(joined=date(2026, 2, 16)))

    assert goals.effective(goal(proration="months"), among) == 900 * Fraction(31, 90)
    assert goals.effective(goal(proration="half_months"), among) == 900 * Fraction(14 + 31, 90)


def test_seasonal_weights_come_before_proration() -> None:
    among = directory(person(left=date(2026, 2, 1)))

    assert goals.effective(goal(proration="days", seasonality=[1, 1, 7]), among) == 100
    among = directory(person(joined=date(2026, 3, 1)))
    assert goals.effective(goal(proration="days", seasonality=[1, 1, 7]), among) == 700


def test_leave_pauses_and_overlapping_leaves_pause_once() -> None:
    leaves = [
        away(date(2026, 1, 11), date(2026, 1, 21), "1"),
        away(date(2026, 1, 16), date(2026, 1, 31), "2"),
        away(date(2025, 6, 1), date(2025, 7, 1), "3"),
        away(date(2026, 2, 10), date(2026, 2, 10), "4"),
    ]
    among = directory(person(), *leaves)

    assert goals.effective(goal(proration="days"), among) == 900 * Fraction(70, 90)
    assert goals.course(goal(), among).remaining_days(FIRST) == 70


def test_a_ramp_is_by_month_of_service_and_comes_last() -> None:
    among = directory(person(joined=date(2026, 2, 15)))
    ramped = goal(ramp=["0.5", "0.8"])
    days = 28 * Fraction("0.5") + 17 * Fraction("0.8")  # 15 February to 14 March, to 31 March

    assert goals.effective(ramped, among) == 900 * days / 45
    assert goals.effective(goal(ramp=["0.5", "0.8"], proration="days"), among) == 900 * days / 90
    late = directory(person(joined=date(2025, 10, 31)))  # months end on the 30th, 31st, 31st
    assert goals.effective(goal(ramp=[0, 0, 0]), late) == 900 * Fraction(90 - 30, 90)


def test_those_of_whom_nothing_is_known_are_taken_as_there() -> None:
    among = directory(person())

    for subject in ("person:ada", "person:nobody", "team:north", "org:all", "role:rep"):
        assert goals.effective(goal(subject, proration="days", ramp=["0.1"]), among) == 900


def test_who_was_never_there_keeps_nothing_of_a_prorated_goal() -> None:
    among = directory(person(joined=date(2026, 4, 1)))

    way = goals.course(goal(proration="days"), among)
    assert way.effective == way.expected(date(2026, 3, 31)) == 0
    assert way.remaining_days(FIRST) == 0
    assert goals.effective(goal(), among) == 900


# Pace


def test_what_is_expected_follows_the_seasons() -> None:
    among = directory(person())
    asked = goal(seasonality=[1, 2, 6])

    assert expected(asked, among, date(2025, 12, 31)) == 0
    assert expected(asked, among, date(2026, 1, 31)) == 100
    assert expected(asked, among, date(2026, 2, 14)) == 200
    assert expected(asked, among, date(2026, 3, 31)) == 900
    assert expected(asked, among, date(2027, 3, 31)) == 900


def test_business_days_leave_weekends_and_holidays_out() -> None:
    among = directory(person())
    week = goal(target="500", period="week:2026-01-05", days="business")

    assert [expected(week, among, date(2026, 1, 5) + n * DAY) for n in range(7)] == [
        *(100, 200, 300, 400, 500, 500, 500),
    ]
    way = goals.course(week, among)
    assert [way.remaining_days(date(2026, 1, 5) + n * DAY) for n in range(7)] == [
        *(5, 4, 3, 2, 1, 0, 0),
    ]


def test_a_period_without_a_business_day_runs_by_calendar_days() -> None:
    weekend = goal(period="range:2026-01-10..2026-01-11", days="business")

    assert expected(weekend, directory(person()), date(2026, 1, 10)) == 450


def test_someone_who_is_away_is_expected_to_reach_nothing_meanwhile() -> None:
    among = directory(person(), away(date(2026, 2, 1), date(2026, 3, 1)))
    asked = goal(proration="days")

    assert expected(asked, among, date(2026, 1, 31)) == 310
    assert expected(asked, among, date(2026, 2, 28)) == 310
    assert expected(asked, among, date(2026, 3, 31)) == 620


def standing(value: int | None, today: date, **terms: Any) -> goals.Standing:
    exact = None if value is None else Fraction(value)
    asked, among = goal(target="90", **terms), directory(person())
    return goals.standing(asked, among, today, exact, adds_up=True)


def test_pace_is_about_the_days_that_are_over() -> None:
    assert standing(15, date(2026, 1, 31)).expected == 30
    assert standing(15, date(2026, 1, 31)).pace == Fraction(1, 2)
    assert standing(15, date(2026, 1, 31)).attainment == Fraction(1, 6)
    assert standing(15, FIRST).expected == 0
    assert standing(15, FIRST).pace is None
    assert standing(45, date(2026, 8, 1)).pace == standing(45, date(2026, 8, 1)).attainment
    assert standing(None, date(2026, 1, 31)).pace is None


def test_what_each_remaining_day_must_bring() -> None:
    assert standing(45, date(2026, 3, 31)).required_per_day == 45  # today is one of them
    assert standing(45, date(2025, 6, 1)).required_per_day == Fraction(1, 2)
    assert standing(None, FIRST).required_per_day == 1
    assert standing(95, FIRST).required_per_day == 0
    assert standing(45, date(2026, 4, 1)).required_per_day is None
    assert standing(48, date(2026, 3, 28), days="business").required_per_day == 21  # a Saturday


def test_a_rate_is_held_and_not_filled_up() -> None:
    asked = goal(target="0.4", metric="win_rate", unit="ratio")
    for today in (FIRST, date(2026, 3, 31)):
        held = goals.standing(asked, directory(), today, Fraction(1, 5), adds_up=False)
        assert (held.effective, held.expected) == (Fraction(2, 5), Fraction(2, 5))
        assert (held.attainment, held.pace) == (Fraction(1, 2), Fraction(1, 2))
        assert held.required_per_day is None


def test_amounts_are_written_in_their_unit() -> None:
    third = Fraction(10, 3)
    assert [goals.amount_text(third, unit) for unit in ("EUR", "JPY", "count", "ratio")] == [
        *("3.33", "3", "3.3333", "3.3333"),
    ]
    assert [goals.amount_text(Fraction(1200), u) for u in ("EUR", "count", "seconds")] == [
        *("1200.00", "1200", "1200"),
    ]
    assert [goals.places(unit) for unit in ("EUR", "JPY", "BHD", "count", "quantity")] == [
        *(2, 0, 3, 0, 3),
    ]


def test_weights_that_do_not_fit_are_left_aside_and_told() -> None:
    among = directory(person())
    for weights in ([1, 2], [0, 0, 0], [1] * 5):
        way = goals.course(goal(seasonality=weights), among)
        assert way.misfit
        assert way.expected(date(2026, 1, 31)) == 310
    assert not goals.course(goal(seasonality=[1, 2, 3]), among).misfit


def test_how_many_weights_a_period_may_have() -> None:
    year = (FIRST, date(2027, 1, 1))
    assert goals.fitting(Calendar(), *year) == {
        365: "day",
        12: "month",
        4: "quarter",
        2: "half",
    }
    weeks = Calendar(week_start=6, fiscal_year_start=2, pattern="454", year_end="nearest")
    begin = date(2023, 1, 29)
    assert goals.fitting(weeks, begin, weeks.end("year", begin))[53] == "week"


# Dividing


def test_a_year_is_divided_along_its_seasons_and_its_parts_go_the_same_way() -> None:
    among = directory(person())
    year = goal(target="1200", period=YEAR, seasonality=[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 13])

    quarters = goals.over_periods(year, among, "quarter")

    assert [(q.period, int(q.target)) for q in quarters] == [
        ("quarter:2026-01-01", 150),
        ("quarter:2026-04-01", 150),
        ("quarter:2026-07-01", 150),
        ("quarter:2026-10-01", 750),
    ]
    assert [q.seasonality for q in quarters] == [[1, 1, 1]] * 3 + [[1, 1, 13]]
    assert [h.target for h in goals.over_periods(year, among, "half")] == [300, 900]
    months = goals.over_periods(quarters[3], among, "month")
    assert [m.target for m in months] == [50, 50, 650]
    assert [m.seasonality for m in months] == [[], [], []]


@pytest.mark.parametrize(
    ("period", "grain"),
    [
        ("month:2026-01-01", "week"),
        ("month:2026-01-01", "month"),
        ("day:2026-01-01", "day"),
        ("range:2026-01-02..2026-03-31", "month"),
    ],
)
def test_a_period_is_divided_only_into_whole_ones(period: str, grain: Grain) -> None:
    with pytest.raises(ValueError, match="isn't made up of several periods"):
        goals.over_periods(goal(period=period), directory(), grain)


def test_a_total_is_divided_to_the_smallest_unit() -> None:
    assert goals.allocate(Decimal(100), [1, 1, 1], "EUR") == [
        *(Decimal("33.34"), Decimal("33.33"), Decimal("33.33")),
    ]
    assert goals.allocate(Decimal("0.005"), [1, 1], "EUR") == [Decimal("0.003"), Decimal("0.002")]
    with pytest.raises(ValueError, match="weights"):
        goals.allocate(Decimal(1), [0, 0], "EUR")
    with pytest.raises(ValueError, match="weights"):
        goals.allocate(Decimal(1), [2, -1], "EUR")


def company(*more: Entry) -> Directory:
    """Ada moves from north to south on 15 February; bob is in north, cy in none."""
    moved = date(2026, 2, 15)
    return directory(
        *(team("sales"), team("north", "sales"), team("south", "sales")),
        *(person("ada"), person("bob"), person("cy")),
        member("ada", "north", valid_to=moved),
        member("ada", "south", valid_from=moved),
        member("bob", "north"),
        *more,
    )


def test_who_changes_teams_counts_in_each_for_the_own_days() -> None:
    assert goals.by_team(goal(), company()) == {"north": 450, "south": 450}
    assert goals.by_team(goal("person:cy"), company()) == {"": 900}
    below = goals.people_below(company(), "team:north", FIRST, date(2026, 4, 1))
    assert below == {"ada": goals.Service(45, 90), "bob": goals.Service(90, 90)}
    everyone = goals.people_below(company(), "org:all", FIRST, date(2026, 4, 1))
    assert sorted(everyone) == ["ada", "bob", "cy"]


def test_parts_are_held_against_the_whole() -> None:
    asked = {
        g.subject: g
        for g in (goal("person:ada"), goal("person:bob", "300"), goal("team:south", "500"))
    }

    assert goals.members(asked, company(), "team:north") == {"person:ada": 450, "person:bob": 300}
    assert goals.members(asked, company(), "team:sales") == {"team:north": 750, "team:south": 500}
    assert goals.members(asked, company(), "org:all") == {"team:sales": 1250}
    whole = goals.roll_up([Fraction(750), Fraction(500)], Fraction(1000))
    assert [whole.covered, whole.over_assigned, whole.gap] == [Fraction(5, 4), 250, 0]
    unset = goals.roll_up([Fraction(750)], None)
    assert unset.assigned == 750
    assert unset.covered is unset.over_assigned is unset.gap is None
    assert goals.roll_up([], Fraction(0)).covered is None


def test_teams_that_are_each_others_parents_are_on_top() -> None:
    loop = [team("one", "two"), team("two", "one"), team("three", "one"), team("lost", "gone")]
    asked = {g.subject: g for g in (goal("team:two", "5"), goal("team:three", "7"))}

    assert goals.members(asked, company(*loop), "org:all") == {"team:one": 7, "team:two": 5}
    assert goals.above(company(*loop), "lost") == ""


def test_a_team_nobody_knows_still_counts_for_the_organisation() -> None:
    among = directory(person(), member("ada", "gone"))

    assert goals.members({"person:ada": goal()}, among, "org:all") == {"person:ada": 900}


# Versions

NOW = datetime(2026, 2, 1, 9, tzinfo=UTC)


def test_each_change_says_who_when_why_and_what() -> None:
    first = goals.changed(goal(reason="plan"), None, by="dora", at=NOW)
    more = goal(target="950", reason="new region", ramp=["0.5"])
    second = goals.changed(more, first, by="max", at=NOW)

    latest, former = second.history
    assert (latest.by, latest.at, latest.reason) == ("max", NOW, "new region")
    assert latest.changed == {"target": ("900", "950"), "ramp": (None, ["0.5"])}
    assert former.changed["target"] == (None, "900")
    gone = goals.changed(goal(deleted=True, reason="left"), second, by="", at=NOW)
    assert gone.history[0].changed["target"] == ("950", None)
    assert Goal.decode(gone.encode()) == gone


def test_what_stays_the_same_is_no_change() -> None:
    first = goals.changed(goal(reason="plan"), None, by="dora", at=NOW)

    assert goals.changed(goal(reason=""), first, by="max", at=NOW) is first
    assert goals.changed(goal(reason="plan"), first, by="max", at=NOW) is first
    assert len(goals.changed(goal(reason="better"), first, by="max", at=NOW).history) == 2


def test_a_history_is_bounded() -> None:
    kept = None
    for target in range(goals.MAX_CHANGES + 5):
        kept = goals.changed(goal(target=str(target)), kept, by="dora", at=NOW)

    assert kept is not None
    assert len(kept.history) == goals.MAX_CHANGES
    assert kept.history[0].changed["target"] == (str(goals.MAX_CHANGES + 3), "54")


# Laws

CALENDARS = st.builds(
    Calendar,
    week_start=st.integers(0, 6),
    fiscal_year_start=st.integers(1, 12),
    pattern=st.sampled_from(["gregorian", "445", "454", "544"]),
    year_end=st.sampled_from(["last", "nearest"]),
)
GRAINS = st.sampled_from(["day", "week", "month", "quarter", "half", "year"])
DAYS = st.dates(date(2025, 6, 1), date(2027, 6, 1))
SHARES = st.decimals(0, 2, places=2)
WEIGHTS = st.decimals(0, 100, places=1)
PRORATIONS = st.sampled_from(["none", "days", "business_days", "months", "half_months"])


@st.composite
def stretches(draw: st.DrawFn) -> tuple[date | None, date | None]:
    since, until = draw(st.none() | DAYS), draw(st.none() | DAYS)
    if since and until and until <= since:
        since, until = until, since + DAY
    return since, until


@st.composite
def directories(draw: st.DrawFn) -> Directory:
    calendar = draw(CALENDARS)
    joined, left = draw(stretches())
    entries: list[Entry] = [person(joined=joined, left=left), team("north"), team("south", "north")]
    for number, (since, until) in enumerate(draw(st.lists(stretches(), max_size=3))):
        entries.append(Leave(person="ada", valid_from=since, valid_to=until, **ids(str(number))))
    for number, (since, until) in enumerate(draw(st.lists(stretches(), max_size=3))):
        where = draw(st.sampled_from(["north", "south", "gone"]))
        dates: dict[str, Any] = {"valid_from": since, "valid_to": until}
        entries.append(Membership(person="ada", team=where, **ids(str(number)), **dates))
    return directory(
        *entries,
        week_start=calendar.week_start,
        fiscal_year_start=calendar.fiscal_year_start,
        fiscal_pattern=calendar.pattern,
        fiscal_year_end=calendar.year_end,
    )


@st.composite
def asked_goals(draw: st.DrawFn, among: Directory, grains: Any = GRAINS) -> Goal:
    calendar, grain, day = among.calendar, draw(grains), draw(DAYS)
    start = calendar.start(grain, day)
    fitting = goals.fitting(calendar, start, calendar.end(grain, start))
    weights: Sequence[Decimal] = []
    count = draw(st.sampled_from([0, *sorted(count for count in fitting if count < 60)]))
    if count:
        weights = draw(st.lists(WEIGHTS, min_size=count, max_size=count).filter(any))
    return goal(
        target=str(draw(st.integers(0, 10**9))),
        period=written(grain, start),
        seasonality=weights,
        proration=draw(PRORATIONS),
        ramp=draw(st.lists(SHARES, max_size=4)),
        days=draw(st.sampled_from(["calendar", "business"])),
    )


@given(data=st.data())
def test_what_is_expected_never_falls_and_ends_at_the_effective_target(data: st.DataObject) -> None:
    among = data.draw(directories())
    way = goals.course(data.draw(asked_goals(among)), among)
    length = (way.end - way.start).days
    days = sorted(data.draw(st.lists(st.integers(-3, length + 3), max_size=12)))

    reached = [way.expected(way.start + n * DAY) for n in days]

    assert reached == sorted(reached)
    assert way.expected(way.start - DAY) == 0
    assert way.expected(way.end - DAY) == way.effective
    assert way.effective >= 0


@given(data=st.data())
def test_proration_only_takes_away_and_a_share_of_one_changes_nothing(data: st.DataObject) -> None:
    among = data.draw(directories())
    asked = data.draw(asked_goals(among))
    terms = {"period": asked.period, "proration": asked.proration, "days": asked.days}
    prorated = goals.effective(goal(target="100", **terms), among)

    assert 0 <= prorated <= 100
    assert goals.effective(goal(target="100", ramp=[1, 1, 1], **terms), among) == prorated


@given(data=st.data())
def test_who_is_there_all_the_time_is_to_reach_the_target(data: st.DataObject) -> None:
    calendar = data.draw(CALENDARS)
    among = directory(person(joined=date(2020, 1, 1)), week_start=calendar.week_start)
    asked = data.draw(asked_goals(among))

    assert goals.effective(asked, among) == goals.course(asked, among).effective == asked.target


@given(data=st.data())
def test_the_parts_of_a_period_add_up_and_go_the_way_of_the_whole(data: st.DataObject) -> None:
    among = data.draw(directories())
    asked = data.draw(asked_goals(among, st.sampled_from(["quarter", "half", "year"])))
    asked = goal(target=str(asked.target), period=asked.period, seasonality=asked.seasonality)
    grain: Grain = data.draw(st.sampled_from(["month", "quarter", "half"]))
    start, end = goals.span(asked.period, among.calendar)
    limits = goals.tiles(among.calendar, grain, start, end)
    if len(limits) < 3:
        return

    parts = goals.over_periods(asked, among, grain)

    assert sum(part.target for part in parts) == asked.target
    assert [goals.span(p.period, among.calendar) for p in parts] == list(pairwise(limits))
    plain = goal("org:all", str(asked.target), period=asked.period, seasonality=asked.seasonality)
    whole = goals.course(plain, among)
    for part in parts:
        a, b = goals.span(part.period, among.calendar)
        assert abs(whole.due(a, b) - Fraction(part.target)) < 1
        assert not goals.course(part, among).misfit


@given(
    total=st.decimals(0, 10**9, places=2),
    weights=st.lists(st.integers(0, 1000), min_size=1, max_size=30).filter(any),
    unit=st.sampled_from(["count", "JPY", "EUR", "BHD", "quantity"]),
)
def test_an_allocation_adds_up_and_is_fair(total: Decimal, weights: list[int], unit: str) -> None:
    parts = goals.allocate(total, weights, unit)

    assert sum(parts) == total
    smallest = Fraction(1, 10 ** max(goals.places(unit), 2))
    for part, weight in zip(parts, weights, strict=True):
        assert abs(Fraction(part) - Fraction(total) * weight / sum(weights)) < smallest
    ranked = [part for _, part in sorted(zip(weights, parts, strict=True))]
    assert ranked == sorted(ranked)


@given(data=st.data())
def test_a_persons_teams_share_the_whole_effective_target(data: st.DataObject) -> None:
    among = data.draw(directories())
    asked = data.draw(asked_goals(among))

    shares = goals.by_team(asked, among)

    assert sum(shares.values()) == goals.effective(asked, among)
    assert min(shares.values()) >= 0
    everyone = goals.members({asked.subject: asked}, among, "org:all")
    assert sum(everyone.values()) == goals.effective(asked, among)


@given(among=directories(), since=DAYS, length=st.integers(1, 60))
def test_stretches_say_of_each_day_what_the_directory_says(
    among: Directory, since: date, length: int
) -> None:
    days = [since + n * DAY for n in range(length)]
    until = since + length * DAY

    there = {
        a + n * DAY for a, b in among.present("ada", since, until) for n in range((b - a).days)
    }
    assert there == {
        day for day in days if among.active("ada", day) and not among.on_leave("ada", day)
    }
    for a, b, where in among.teams_between("ada", since, until):
        assert {among.team_of("ada", a + n * DAY) for n in range((b - a).days)} == {where}
    assert among.present("nobody", since, until) == []


@given(parts=st.lists(st.fractions(0, 1000), max_size=5), whole=st.fractions(0, 1000))
def test_over_assignment_and_gap_are_the_difference(parts: list[Fraction], whole: Fraction) -> None:
    held = goals.roll_up(parts, whole)

    assert held.over_assigned is not None
    assert held.gap is not None
    assert held.assigned - whole == held.over_assigned - held.gap
    assert not (held.over_assigned and held.gap)
