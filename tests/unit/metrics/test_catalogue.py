"""Metrics as data: what counts, for how much, and what doesn't."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from schemas.crm import Field, Record, StageEntry
from services.metrics.domain.catalogue import Catalogue, CatalogueError, layered, parse
from services.metrics.domain.catalogue.fields import FIELDS
from services.metrics.settings import Settings
from tests.support import a_record

AT, LATER = "2026-11-02T10:00:00Z", "2026-11-20T10:00:00Z"


@pytest.fixture(scope="module")
def shipped() -> Catalogue:
    return parse(yaml.safe_load(Settings.model_fields["catalogue"].default.read_text()))


def counted(catalogue: Catalogue, record: Record) -> dict[str, tuple[str, int]]:
    found, _ = catalogue.contributions(record)
    return {metric: (unit, value) for metric, unit, _, value in found}


def deal(**fields: Any) -> Record:
    known = {"status": "won", "amount": "10", "currency": "EUR", "closed_at": AT}
    return a_record("opportunity", **(known | fields))


@pytest.mark.parametrize(
    ("record", "metrics"),
    [
        (a_record("call", done=True, occurred_at=AT), {"calls_made": ("count", 1)}),
        (a_record("call", done=1, occurred_at=AT), {}),
        (a_record("call", done=False, occurred_at=AT), {}),
        (a_record("call", occurred_at=AT), {}),
        (a_record("call", done=True, occurred_at=AT, deleted=True), {}),
        (a_record("meeting", done=True, occurred_at=AT), {"meetings_held": ("count", 1)}),
        (a_record("email", done=True, occurred_at=AT), {"emails_sent": ("count", 1)}),
        (a_record("email", done=True, occurred_at=AT, direction="inbound"), {}),
        (a_record("opportunity", created_at=AT), {"opportunities_created": ("count", 1)}),
        (a_record("lead", created_at=AT), {"leads_created": ("count", 1)}),
        (
            a_record("call", done=True, occurred_at=AT, outcome="connected"),
            {"calls_made": ("count", 1), "conversations": ("count", 1)},
        ),
        (a_record("meeting", created_at=AT), {"meetings_booked": ("count", 1)}),
        (
            a_record("meeting", done=True, occurred_at=AT, kind="demo"),
            {"meetings_held": ("count", 1), "demos": ("count", 1)},
        ),
        (
            a_record("meeting", done=True, occurred_at=AT, kind="conference"),
            {"meetings_held": ("count", 1), "events_attended": ("count", 1)},
        ),
        (a_record("note", occurred_at=AT), {"notes_logged": ("count", 1)}),
        (
            a_record("lead", created_at=AT, lead_source="External Referral"),
            {"leads_created": ("count", 1), "referrals_received": ("count", 1)},
        ),
        (
            a_record("x_referral", created_at=AT, direction="outbound"),
            {"referrals_given": ("count", 1)},
        ),
        (
            a_record("lead", created_at=AT, first_response_at="2026-11-02T10:05:30Z"),
            {"leads_created": ("count", 1), "lead_response_total": ("seconds", 330)},
        ),
        (a_record("quote", status="sent", sent_at=AT), {"proposals_submitted": ("count", 1)}),
        (a_record("quote", status="draft", sent_at=AT), {}),
        (
            a_record("quote", status="accepted", sent_at=AT, accepted_at=LATER),
            {"proposals_submitted": ("count", 1), "proposals_accepted": ("count", 1)},
        ),
        (
            a_record("task", done=True, due_at=AT, completed_at=AT),
            {"tasks_done_on_time": ("count", 1)},
        ),
        (a_record("task", done=True, due_at=AT, completed_at=LATER), {}),
        (a_record("task", done=True, completed_at=AT), {}),
        (
            deal(status="open", closed_at=None, created_at=AT, expected_close=LATER),
            {
                "opportunities_created": ("count", 1),
                "open_value": ("EUR", 1000),
                "pipeline_value": ("EUR", 1000),
            },
        ),
        (
            deal(status="open", closed_at=None, expected_close=LATER, probability="0.25"),
            {"pipeline_value": ("EUR", 1000), "weighted_pipeline": ("EUR", 250)},
        ),
        (
            deal(deal_type="renewal", quantity="2.5", cost="4", discount="2"),
            {
                "deals_won": ("count", 1),
                "revenue_won": ("EUR", 1000),
                "revenue_renewal": ("EUR", 1000),
                "revenue_existing": ("EUR", 1000),
                "units_sold": ("quantity", 2500),
                "cost_of_deals": ("EUR", 400),
                "revenue_costed": ("EUR", 1000),
                "discount_given": ("EUR", 200),
                "revenue_discounted": ("EUR", 1000),
            },
        ),
        (
            deal(created_at="2026-11-01T10:00:00Z"),
            {
                "opportunities_created": ("count", 1),
                "deals_won": ("count", 1),
                "revenue_won": ("EUR", 1000),
                "sales_cycle_total": ("seconds", 86_400),
            },
        ),
        (deal(), {"deals_won": ("count", 1), "revenue_won": ("EUR", 1000)}),
        (deal(status="lost"), {"deals_lost": ("count", 1), "revenue_lost": ("EUR", 1000)}),
        (deal(amount="1.005"), {"deals_won": ("count", 1), "revenue_won": ("EUR", 101)}),
        (deal(currency="JPY"), {"deals_won": ("count", 1), "revenue_won": ("JPY", 10)}),
        (deal(currency="XYZ"), {"deals_won": ("count", 1)}),
        (deal(amount=None), {"deals_won": ("count", 1)}),
        (a_record("ticket", created_at=AT), {}),
    ],
)
def test_each_record_counts_for_what_it_is(
    shipped: Catalogue, record: Record, metrics: dict[str, tuple[str, int]]
) -> None:
    assert counted(shipped, record) == metrics


@pytest.mark.parametrize(
    ("record", "finding"),
    [
        (deal(amount=None), "no_amount"),
        (deal(amount="much"), "no_amount"),
        (deal(amount="1e30"), "absurd_amount"),
        (deal(amount="1e999999"), "absurd_amount"),
        (deal(currency="usd"), "unknown_currency"),
        (deal(closed_at=None), "no_date"),
        (deal(closed_at="2026-11-02T10:00:00"), "no_date"),
        (deal(closed_at=5), "no_date"),
        (deal(quantity="many"), "no_quantity"),
        (deal(quantity="1e300"), "absurd_quantity"),
        (deal(created_at="2026-11-03T10:00:00Z"), "negative_duration"),
        (deal(closed_at="2926-11-02T10:00:00Z"), "implausible_date"),
    ],
)
def test_what_is_missing_is_found(shipped: Catalogue, record: Record, finding: str) -> None:
    assert finding in shipped.contributions(record)[1]


def a_metric(**changes: Any) -> dict[str, Any]:
    fields = {"id": "m", "title": "M", "level": "driver", "unit": "count", "record": "call"}
    return fields | {"placed_by": "occurred_at"} | changes


def counts(metric: dict[str, Any], **fields: Any) -> bool:
    catalogue = parse({"metrics": [metric]})
    return bool(counted(catalogue, a_record(metric["record"], **({"occurred_at": AT} | fields))))


@pytest.mark.parametrize(
    ("where", "yes", "no"),
    [
        ({"stage": "a"}, {"stage": "a"}, {"stage": "b"}),
        ({"done": True}, {"done": True}, {"done": 1}),
        ({"x_n": 1}, {"x_n": 1}, {"x_n": True}),
        ({"stage": None}, {}, {"stage": "a"}),
        ({"stage": {"not": "a"}}, {"stage": "b"}, {"stage": "a"}),
        ({"stage": {"not": "a"}}, {}, {"stage": "a"}),
        ({"stage": {"not": ["a", "b"]}}, {"stage": "c"}, {"stage": "b"}),
        ({"stage": {"in": ["a", "b"]}}, {"stage": "b"}, {"stage": "c"}),
        ({"stage": {"in": ["a", "b"]}}, {"stage": "a"}, {}),
        ({"stage": {"in": ["a", None]}}, {}, {"stage": "b"}),
        ({"stage": {"known": True}}, {"stage": ""}, {}),
        ({"stage": {"known": False}}, {}, {"stage": ""}),
        ({"amount": {"gt": 5}}, {"amount": "5.01"}, {"amount": "5"}),
        ({"amount": {"gte": "5"}}, {"amount": "5.00"}, {"amount": "4.99"}),
        ({"amount": {"lt": 0.1}}, {"amount": "0.0999"}, {"amount": "0.1"}),
        ({"amount": {"lte": 0.1}}, {"amount": "0.1"}, {"amount": "0.10001"}),
        ({"amount": {"lte": 5}}, {"amount": "5"}, {}),
        ({"amount": {"lte": 5}}, {"amount": 5}, {"amount": "few"}),
        ({"amount": {"gt": 1, "lt": 3}}, {"amount": "2"}, {"amount": "3"}),
        ({"amount": {"gt": 1, "not": "2"}}, {"amount": "2.5"}, {"amount": "2"}),
        ({"x_a": {"before": "x_b"}}, {"x_a": AT, "x_b": LATER}, {"x_a": AT, "x_b": AT}),
        ({"x_a": {"before": "x_b"}}, {"x_a": AT, "x_b": LATER}, {"x_a": AT}),
        ({"x_a": {"not_after": "x_b"}}, {"x_a": AT, "x_b": AT}, {"x_a": LATER, "x_b": AT}),
        ({"x_a": {"not_after": "x_b"}}, {"x_a": AT, "x_b": AT}, {"x_a": "soon", "x_b": AT}),
        ({"any": [{"x_a": "1"}, {"x_b": "1"}]}, {"x_b": "1"}, {"x_a": "2"}),
        ({"x_c": "1", "any": [{"x_a": "1"}]}, {"x_a": "1", "x_c": "1"}, {"x_a": "1"}),
        ({"x_c": "1", "stage": {"in": ["a"]}}, {"x_c": "1", "stage": "a"}, {"x_c": "1"}),
    ],
)
def test_conditions_say_which_records_count(
    where: dict[str, Any], yes: dict[str, Any], no: dict[str, Any]
) -> None:
    metric = a_metric(where=where)
    assert counts(metric, **yes)
    assert not counts(metric, **no)


WANTED = [
    "won", "lost", True, 1, None, {"not": "won"}, {"in": ["won", "open"]}, {"known": True},
    {"known": False}, {"in": [1, "lost"]}, {"not": ["won", 1]},
]  # fmt: skip
VALUES = st.sampled_from(["won", "lost", "open", "x", True, 1, False, None])


def plainly(wanted: Any, value: Any) -> bool:
    """What a condition means, without any cleverness."""

    def same(one: Any) -> bool:
        return bool(value == one) and type(value) is type(one)

    if not isinstance(wanted, dict):
        return same(wanted)
    if "known" in wanted:
        return (value is not None) is wanted["known"]
    if "in" in wanted:
        return any(map(same, wanted["in"]))
    unwanted = wanted["not"] if isinstance(wanted["not"], list) else [wanted["not"]]
    return not any(map(same, unwanted))


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["status", "stage"]), st.sampled_from(WANTED), max_size=2),
        min_size=1,
        max_size=6,
    ),
    VALUES,
    VALUES,
)
def test_sorting_rules_by_a_field_changes_nothing(
    conditions: list[dict[str, Any]], status: Any, stage: Any
) -> None:
    fields = {"status": status, "stage": stage}
    catalogue = parse(
        {"metrics": [a_metric(id=f"m{n}", where=w) for n, w in enumerate(conditions)]}
    )
    known = {name: value for name, value in fields.items() if value is not None}

    found = counted(catalogue, a_record("call", occurred_at=AT, **known))

    assert set(found) == {
        f"m{number}"
        for number, where in enumerate(conditions)
        if all(plainly(wanted, fields[name]) for name, wanted in where.items())
    }


def test_a_metric_may_be_placed_later() -> None:
    catalogue = parse({"metrics": [a_metric(after="P1DT1H")]})
    found, _ = catalogue.contributions(a_record("call", occurred_at=AT))
    assert [at for _, _, at, _ in found] == [second("2026-11-03T11:00:00Z")]


def second(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def with_stages(record: Record, **stages: str) -> Record:
    entries = [StageEntry(second(at) * 1_000_000, stage) for stage, at in stages.items()]
    return msgspec.structs.replace(record, stages=entries)


def of_stages(catalogue: Catalogue, record: Record) -> dict[str, list[tuple[int, int]]]:
    """By metric of a stage: where and how much."""
    found: dict[str, list[tuple[int, int]]] = {}
    for metric, _, at, value in catalogue.contributions(record)[0]:
        if "@" in metric:
            found.setdefault(metric, []).append((at, value))
    return found


NEW, OFFER, END = "2026-10-01T00:00:00Z", "2026-10-03T00:00:00Z", "2026-10-08T12:00:00Z"


def test_each_stay_in_a_stage_counts(shipped: Catalogue) -> None:
    record = with_stages(a_record("opportunity", status="open"), new=NEW, offer=OFFER)
    assert of_stages(shipped, record) == {
        "stages_entered@new": [(second(NEW), 1)],
        "stages_entered@offer": [(second(OFFER), 1)],
        "stage_time@new": [(second(OFFER), 2 * 86_400)],
    }


def test_coming_back_to_a_stage_is_another_stay(shipped: Catalogue) -> None:
    record = a_record("opportunity", status="open")
    moves = [(NEW, "new"), (OFFER, "offer"), (OFFER, "offer"), (END, "new")]
    entries = [StageEntry(second(at) * 1_000_000, stage) for at, stage in moves]
    found = of_stages(shipped, msgspec.structs.replace(record, stages=entries))
    assert found["stages_entered@new"] == [(second(NEW), 1), (second(END), 1)]
    assert found["stages_entered@offer"] == [(second(OFFER), 1)]


def test_a_deal_is_lost_in_the_stage_that_it_leaves_by_it(shipped: Catalogue) -> None:
    closed = a_record("opportunity", status="lost", closed_at=END)
    by_status = of_stages(shipped, with_stages(closed, new=NEW, offer=OFFER))
    by_stage = of_stages(shipped, with_stages(closed, new=NEW, offer=OFFER, closedlost=END))
    for found in (by_status, by_stage):
        assert found["stages_lost@offer"] == [(second(END), 1)]
        assert found["stage_time@offer"] == [(second(END), int(5.5 * 86_400))]
        assert "stages_lost@new" not in found
        assert "stages_lost@closedlost" not in found
        assert "stage_time@closedlost" not in found


def test_a_deal_is_stalled_after_a_while_in_its_stage(shipped: Catalogue) -> None:
    record = with_stages(a_record("opportunity", status="open"), new=NEW, offer=OFFER)
    found, _ = shipped.contributions(record)
    stalled = [at for metric, _, at, _ in found if metric == "stalled_deals"]
    assert stalled == [second("2026-10-17T00:00:00Z")]
    won = with_stages(a_record("opportunity", status="won", closed_at=END), new=NEW)
    assert "stalled_deals" not in counted(shipped, won)


def expecting(record: Record, *told: tuple[str, str | None]) -> Record:
    """The record with what its expected close date was: when it was told, and what."""
    fields = [
        Field("cleared" if day is None else "value", day, second(at) * 1_000_000, "e")
        for at, day in told
    ]
    known = record.fields | {"expected_close": fields[-1]}
    return msgspec.structs.replace(record, fields=known, expected_before=fields[:-1])


def slips(catalogue: Catalogue, record: Record) -> list[tuple[str, int]]:
    """When the expected close date slipped, and by how many days."""
    found, _ = catalogue.contributions(record)
    moved = [at for metric, _, at, _ in found if metric == "close_dates_slipped"]
    by = [(at, value) for metric, _, at, value in found if metric == "close_date_slip"]
    assert moved == [at for at, _ in by]
    return [
        (datetime.fromtimestamp(at, UTC).strftime("%m-%d"), value // 86_400) for at, value in by
    ]


def on(day: str) -> str:
    """That day of 2026, as readers keep a date without a time."""
    return f"2026-{day}T12:00:00Z"


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ([("03-01", "04-30")], []),
        ([("03-01", "04-30"), ("03-05", "05-15")], [("03-05", 15)]),
        ([("03-01", "04-30"), ("03-05", "04-15")], []),
        ([("03-01", "04-30"), ("03-02", "04-30"), ("03-05", "04-30")], []),
        (
            [("03-01", "04-30"), ("03-05", "05-15"), ("03-06", "05-01"), ("03-09", "05-02")],
            [("03-05", 15), ("03-09", 1)],
        ),
        ([("03-01", "04-30"), ("03-05", None), ("03-06", "05-15")], []),
        ([("03-01", "04-30"), ("03-05", None)], []),
        ([("03-01", None), ("03-05", "05-15"), ("03-06", "05-16")], [("03-06", 1)]),
    ],
)
def test_a_close_date_slips_by_a_move_to_a_later_day(
    shipped: Catalogue, told: list[tuple[str, str | None]], found: list[tuple[str, int]]
) -> None:
    record = a_record("opportunity", status="open")
    days = [(on(at), day and on(day)) for at, day in told]
    assert slips(shipped, expecting(record, *days)) == found


def test_another_time_of_the_same_day_is_no_slip(shipped: Catalogue) -> None:
    record = a_record("opportunity", status="open")
    morning, evening = "2026-04-30T07:00:00Z", "2026-04-30T23:59:00Z"
    assert slips(shipped, expecting(record, (NEW, morning), (OFFER, evening))) == []
    tomorrow = "2026-05-01T01:00:00+02:00"  # which is not yet tomorrow in UTC
    assert slips(shipped, expecting(record, (NEW, morning), (OFFER, tomorrow))) == []


def test_close_dates_of_closed_deals_do_not_slip(shipped: Catalogue) -> None:
    told = [(on("03-01"), on("04-30")), (on("03-05"), on("05-15")), (on("03-20"), on("06-01"))]
    for status in ("won", "lost"):
        record = deal(status=status, closed_at=on("03-20"))
        assert slips(shipped, expecting(record, *told)) == [("03-05", 15)]
    gone = msgspec.structs.replace(a_record("opportunity", status="open"), deleted=True)
    assert slips(shipped, expecting(gone, *told)) == []


def test_a_stage_of_a_metric_is_found_by_its_name(shipped: Catalogue) -> None:
    found = shipped.find('stage_conversion@Won, "really"')
    assert found is not None
    assert found.title == 'Conversion of the stage: Won, "really"'
    assert shipped.parts(found.id) == [
        'stage_time@Won, "really"',
        'stages_lost@Won, "really"',
    ]
    median = {"id": "m", "title": "M", "level": "goal", "unit": "duration", "for_each": "stage"}
    own = layered(shipped, [median | {"statistic": {"median": "stage_time"}}])
    assert own.parts("m@new") == ["stage_time@new"]
    for other in (
        "stage_conversion",
        "stage_conversion@",
        "deals_won@new",
        "nothing",
        "nothing@new",
    ):
        assert shipped.find(other) is None
    assert shipped.find("deals_won") is shipped.metrics["deals_won"]


def test_what_a_metric_is_read_from(shipped: Catalogue) -> None:
    assert shipped.parts("deals_won") == ["deals_won"]
    assert shipped.parts("win_rate") == ["deals_lost", "deals_won"]
    assert shipped.parts("sales_cycle_median") == ["sales_cycle_total"]
    assert shipped.parts("pipeline_coverage") == ["pipeline_value", "revenue_won"]
    assert shipped.targets("pipeline_coverage") == ["revenue_won"]
    assert shipped.targets("win_rate") == shipped.targets("deals_won") == []
    with pytest.raises(KeyError):
        shipped.parts("nothing")


def test_the_document_of_a_catalogue_is_the_same_catalogue(shipped: Catalogue) -> None:
    again = parse(shipped.document())
    assert again.metrics == shipped.metrics
    assert again.digests == shipped.digests


def test_digests_tell_whether_the_past_must_be_counted_again() -> None:
    was = parse({"metrics": [a_metric(), a_metric(id="n", record="email")]})

    def changed(**changes: Any) -> set[str]:
        now = parse({"metrics": [a_metric(id="n", record="email"), a_metric(**changes)]})
        return {record for record in was.digests if was.digests[record] != now.digests[record]}

    assert changed() == set()
    assert changed(title="New", level="goal", visibility="finance") == set()
    assert changed(where={"done": True}) == {"call"}
    assert changed(after="P1D") == changed(placed_by="created_at") == changed(id="o") == {"call"}


def test_own_metrics_are_added_and_take_the_place_of_others(shipped: Catalogue) -> None:
    own = [
        a_metric(id="calls_made", title="All calls"),
        {"id": "calls_a_deal", "title": "Calls for each deal", "level": "indicator",
         "unit": "ratio", "formula": "calls_made / deals_won"},
    ]  # fmt: skip
    found = layered(shipped, own)
    assert set(found.metrics) == {*shipped.metrics, "calls_a_deal"}
    assert counted(found, a_record("call", occurred_at=AT)) == {"calls_made": ("count", 1)}
    assert counted(shipped, a_record("call", occurred_at=AT)) == {}
    assert found.digests["call"] != shipped.digests["call"]
    assert found.digests["opportunity"] == shipped.digests["opportunity"]


def test_own_metrics_may_not_break_those_computed_from_them(shipped: Catalogue) -> None:
    derived = {"id": "deals_won", "title": "D", "level": "goal", "unit": "ratio"}
    with pytest.raises(CatalogueError, match="win_rate"):
        layered(shipped, [derived | {"formula": "calls_made / meetings_held"}])
    with pytest.raises(CatalogueError, match="mapping"):
        layered(shipped, ["calls"])


@given(
    st.dictionaries(
        st.sampled_from(sorted({name for names in FIELDS.values() for name in names})),
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.just(AT), st.just("1e99")),
    ),
    st.lists(st.builds(StageEntry, st.integers(-(2**63), 2**63), st.text()), max_size=4),
    st.lists(
        st.builds(
            Field,
            st.sampled_from(["value", "cleared"]),
            st.one_of(st.none(), st.integers(), st.text(), st.sampled_from([AT, LATER, "1e99"])),
            st.integers(-(2**63), 2**63),
            st.just("e"),
        ),
        max_size=4,
    ),
    st.sampled_from(sorted(FIELDS)),
)
def test_any_record_gives_whole_plausible_numbers(
    shipped: Catalogue,
    fields: dict[str, Any],
    stages: list[StageEntry],
    expected: list[Field],
    kind: str,
) -> None:
    record = a_record(kind, **fields)
    record = msgspec.structs.replace(record, stages=stages, expected_before=expected)
    found, findings = shipped.contributions(record)
    for metric, unit, at, value in found:
        assert metric.partition("@")[0] in shipped.base
        assert isinstance(unit, str)
        assert 0 < at < 2**33
        assert type(value) is int
    assert len(findings) == len(set(findings))
