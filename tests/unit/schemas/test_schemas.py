"""The published language keeps its promises."""

import json
from pathlib import Path

import pytest

from schemas import __main__ as export
from schemas.base import State
from schemas.compat import Schema, breaking_changes
from schemas.topics import BY_NAME, SERVICES, TOPICS, consumed_by

EXAMPLES = sorted((Path(export.__file__).parent / "examples").glob("*/*.json"))


def test_exported_files_are_current() -> None:
    assert export.problems(against=None) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_example_ever_committed_is_still_read_and_written_alike(path: Path) -> None:
    state: State = BY_NAME[path.parent.name].event.decode(path.read_bytes())

    assert json.loads(state.encode()) == json.loads(path.read_bytes())
    assert state.key.startswith("acme/")


def test_every_topic_has_an_example_a_producer_and_a_reader() -> None:
    shown = {path.parent.name for path in EXAMPLES}

    assert shown == set(BY_NAME)
    for topic in TOPICS:
        assert topic.producer in SERVICES
        assert topic.consumers
        assert set(topic.consumers) <= set(SERVICES)


def test_a_rebuild_reads_what_records_are_applied_to_first() -> None:
    for service in SERVICES:
        flags = [topic.context for topic in consumed_by(service)]

        assert flags == sorted(flags, reverse=True)


def test_readers_ignore_what_they_do_not_know() -> None:
    text = EXAMPLES[-1].read_text().replace("{", '{"added_later": [1, {"a": null}],', 1)

    state = BY_NAME[EXAMPLES[-1].parent.name].event.decode(text.encode())

    assert state.tenant == "acme"


OLD: Schema = {
    "$ref": "#/$defs/A",
    "$defs": {
        "A": {
            "type": "object",
            "properties": {"id": {"type": "string"}, "n": {"type": "integer"}},
            "required": ["id"],
        }
    },
}


def _changed(**a: object) -> Schema:
    return {**OLD, "$defs": {"A": {**OLD["$defs"]["A"], **a}}}


def test_adding_an_optional_property_breaks_nobody() -> None:
    properties = OLD["$defs"]["A"]["properties"] | {"extra": {"type": "string", "default": ""}}

    assert breaking_changes(OLD, _changed(properties=properties)) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"properties": {"id": {"type": "string"}}}, "n: removed"),
        ({"required": ["id", "n"]}, "n: became required"),
        ({"required": []}, "id: no longer required"),
        (
            {"properties": {"id": {"type": "string"}, "n": {"type": "string"}}},
            "n: type changed from 'integer' to 'string'",
        ),
    ],
)
def test_any_other_change_is_named(change: dict[str, object], complaint: str) -> None:
    assert breaking_changes(OLD, _changed(**change)) == [complaint]
