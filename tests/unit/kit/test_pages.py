"""Cursors and ETags."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from starlette.requests import Request

from kit import pages
from kit.http import Problem

ID = UUID("5ab4b2d7-6a0f-5e0c-9b8e-0c9f6e3c7a11")


def a_request(if_none_match: str = "") -> Request:
    return Request({"type": "http", "headers": [(b"if-none-match", if_none_match.encode())]})


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("ann", str),
        (("ann", 5), tuple[str, int]),
        ((datetime(2026, 11, 1, tzinfo=UTC), ID), tuple[datetime, UUID]),
        (["a", "b", "ü?>"], list[str]),
    ],
)
def test_a_cursor_names_its_place(place: object, kind: object) -> None:
    assert pages.place(pages.cursor(place), kind) == place


def test_no_cursor_is_the_first_page() -> None:
    assert pages.place("", str) is None
    assert pages.place(None, str) is None


@pytest.mark.parametrize(
    "made_up", ["x", "!!", "é", "W10=", "bnVsbA", "A" * 500, pages.cursor(["a\0"])]
)
def test_a_made_up_cursor_is_refused(made_up: str) -> None:
    with pytest.raises(Problem) as raised:
        pages.place(made_up, tuple[str])

    assert (raised.value.status, raised.value.kind) == (422, "invalid-cursor")


def test_an_answer_that_the_asker_has_is_not_sent_again() -> None:
    first = pages.tagged(a_request(), {"a": 1})
    tag = first.headers["etag"]

    assert first.body == b'{"a":1}'
    for given in (tag, f"W/{tag}", f'"other", {tag}'):
        again = pages.tagged(a_request(given), {"a": 1})
        assert (again.status_code, again.body, again.headers["etag"]) == (304, b"", tag)
    assert pages.tagged(a_request(tag), {"a": 2}).status_code == 200


def test_a_given_version_is_the_tag() -> None:
    assert pages.tagged(a_request(), {}, "7").headers["etag"] == '"7"'
    assert pages.has(a_request('"7"'), '"7"')
    assert not pages.has(a_request("7"), '"7"')
