"""What a deal's stage means, by the CRM's own metadata."""

from schemas.crm import Field, StageEntry
from services.ingest.domain import stages
from services.ingest.domain.facts import Mark
from services.ingest.domain.merge import Known
from services.ingest.domain.sources import Source

DAY = 86_400_000_000
SOURCE = Source(id="crm", tenant="acme", vendor="hubspot")


def a_deal(*history: tuple[int, str]) -> Known:
    at, stage = max(history)
    fields, _ = stages.registers(stage, Mark(at * DAY, "e"), SOURCE)
    return Known(fields, sorted(StageEntry(day * DAY, name) for day, name in history))


def values(known: Known) -> dict[str, object]:
    return {name: field.value for name, field in known.fields.items()}


def test_metadata_corrects_the_guess() -> None:
    guessed = a_deal((1, "sent"), (3, "8812"))
    assert values(guessed)["status"] == "open"

    assert values(stages.decided(guessed, "won")) == {
        "stage": "8812",
        "status": "won",
        "closed_at": "1970-01-04T00:00:00Z",
    }
    assert values(stages.decided(stages.decided(guessed, "won"), "open"))["closed_at"] is None


def test_a_deal_is_won_since_it_entered_the_stage_for_the_last_time() -> None:
    won = a_deal((1, "closedwon"), (2, "sent"), (3, "closedwon"), (5, "closedwon"))

    assert values(stages.decided(won, "won"))["closed_at"] == "1970-01-04T00:00:00Z"


def test_a_history_that_ends_elsewhere_does_not_date_the_closing() -> None:
    """The newest entry may be of another event at the same instant."""
    fields, _ = stages.registers("closedwon", Mark(5 * DAY, "e"), SOURCE)
    known = Known(fields, [StageEntry(5 * DAY, "sent")])

    assert values(stages.decided(known, "won"))["closed_at"] == "1970-01-06T00:00:00Z"


def test_a_stage_is_known_by_an_id_whatever_its_name() -> None:
    assert stages.record_id("crm", "closedwon") == "crm:closedwon"
    named = stages.record_id("crm", "Closed Won")
    assert named.startswith("crm:")
    assert " " not in named
    assert named != stages.record_id("crm", "Closed Lost")


def test_a_cleared_stage_is_open() -> None:
    fields, entries = stages.registers("", Mark(1, "e"), SOURCE)

    assert fields["status"] == Field("value", "open", 1, "e")
    assert (fields["stage"].state, entries) == ("cleared", ())
