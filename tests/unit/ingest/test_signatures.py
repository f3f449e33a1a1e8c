"""Signatures: the vendor's known answers, and what must not pass."""

import base64

import pytest

from services.ingest.domain import signatures

SECRET = "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy"
URL = "https://www.example.com/webhook_uri"
BODY = b"{'example_field':'example_value'}"  # with these quotes in HubSpot's own tests
NOW_MS = 1_767_607_260_000


def test_known_answers_of_the_vendor() -> None:
    assert (
        signatures.hubspot_v1(SECRET, BODY)
        == "69fc6631a867edd4f9e9e627fc5c1148e3fbdd8b21837b6d2b8901c1fa57f750"
    )
    assert (
        signatures.hubspot_v2(SECRET, "POST", URL, BODY)
        == "4fe4e3a7d3cf09db53be39d0a58130e2aaba074ec123a9e355b876a689a1c383"
    )
    assert (
        signatures.hubspot_v2(SECRET, "GET", URL, b"")
        == "eee2dddcc73c94d699f5e395f4b9d454a069a6855fbfa152e91e88823087200e"
    )
    assert (
        signatures.hubspot_v3(SECRET, "POST", URL, BODY, "15000000")
        == "HPW73RUtKmcYoEDADG0s6MmGFWUzWJKAW07r8RDgcQw="
    )


def check(headers: dict[str, str], *, legacy: bool = False, url: str = URL) -> str | None:
    return signatures.is_hubspot(
        ["new", SECRET],
        headers,
        method="POST",
        url=url,
        body=BODY,
        now_ms=NOW_MS,
        legacy=legacy,
    )


def v3(stamp: int | str = NOW_MS, secret: str = SECRET, url: str = URL) -> dict[str, str]:
    return {
        "x-hubspot-signature-v3": signatures.hubspot_v3(secret, "POST", url, BODY, str(stamp)),
        "x-hubspot-request-timestamp": str(stamp),
    }


@pytest.mark.parametrize("secret", ["new", SECRET])
def test_both_secrets_pass_while_they_overlap(secret: str) -> None:
    assert check(v3(secret=secret)) == "hubspot.v3"


def test_documented_escapes_of_the_url_are_decoded_and_no_others() -> None:
    signed = v3(url="https://www.example.com/a:b/c?d=%20%26")

    assert check(signed, url="https://www.example.com/a%3Ab%2fc%3Fd=%20%26") == "hubspot.v3"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        v3(secret="other"),
        v3(NOW_MS - 300_001),
        v3(NOW_MS + 300_001),
        v3("soon"),
        v3(""),
        v3("١٧٦٧"),  # digits, and yet not a timestamp
        v3("1" * 5000),
        v3() | {"x-hubspot-signature-v3": ""},
        v3() | {"x-hubspot-signature-v3": "é"},
        v3() | {"x-hubspot-request-timestamp": str(NOW_MS - 1)},
        {"x-hubspot-signature": signatures.hubspot_v1(SECRET, BODY)},  # not asked for
    ],
)
def test_what_must_not_pass(headers: dict[str, str]) -> None:
    assert check(headers) is None


@pytest.mark.parametrize("stamp", [NOW_MS - 300_000, NOW_MS + 300_000])
def test_five_minutes_are_still_in_time(stamp: int) -> None:
    assert check(v3(stamp)) == "hubspot.v3"


def test_a_wrong_v3_never_falls_back_to_a_right_v1() -> None:
    v1 = {
        "x-hubspot-signature": signatures.hubspot_v1(SECRET, BODY),
        "x-hubspot-signature-version": "v1",
    }

    assert check(v1, legacy=True) == "hubspot.v1"
    assert check(v1 | v3(secret="wrong"), legacy=True) is None


def test_v2_where_it_is_asked_for() -> None:
    v2 = {
        "x-hubspot-signature": signatures.hubspot_v2(SECRET, "POST", URL, BODY),
        "x-hubspot-signature-version": "v2",
    }

    assert check(v2, legacy=True) == "hubspot.v2"
    assert check(v2 | {"x-hubspot-signature-version": "v9"}, legacy=True) is None


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
