"""What proofs are made of: times, secrets that overlap, HTTP Basic."""

import base64

import pytest

from services.ingest.domain import signatures

NOW_MS = 1_767_607_260_500


@pytest.mark.parametrize(
    ("stamp", "unit_ms", "passes"),
    [
        (str(NOW_MS), 1, True),
        (str(NOW_MS - 300_000), 1, True),
        (str(NOW_MS + 300_000), 1, True),
        (str(NOW_MS - 300_001), 1, False),
        (str(NOW_MS + 300_001), 1, False),
        ("1767607260", 1000, True),
        ("1767606961", 1000, True),
        ("1767606960", 1000, False),  # half a second more than five minutes
        ("1767607260", 1, False),
        ("soon", 1, False),
        ("", 1, False),
        ("-1", 1, False),
        ("1767607260.5", 1000, False),
        ("١٧٦٧٦٠٧٢٦٠", 1000, False),  # digits, and yet not a timestamp
        ("1" * 5000, 1, False),
    ],
)
def test_in_time_is_five_minutes_before_and_after(stamp: str, unit_ms: int, passes: object) -> None:
    assert signatures.in_time(stamp, NOW_MS, unit_ms=unit_ms) is passes


@pytest.mark.parametrize(
    ("given", "passes"), [("old", True), ("new", True), ("ol", False), ("", False), ("é", False)]
)
def test_any_of_several_secrets_matches(given: str, passes: object) -> None:
    assert signatures.matches(given, ["new", "old"]) is passes


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("header", "passes"),
    [
        (basic("jo:one"), True),
        (basic("jo:two"), True),
        (basic("jo:two").replace("Basic", "basic"), True),
        (basic("jo:three"), False),
        (basic("al:one"), False),
        (basic("jo"), False),
        ("Basic !!!", False),
        ("Basic " + base64.b64encode(b"\xff:one").decode(), False),
        ("Bearer one", False),
        ("", False),
    ],
)
def test_basic(header: str, passes: object) -> None:
    assert signatures.is_basic(["one", "two"], "jo", header) is passes
