"""Endpoints files, and which addresses messages may go to."""

import base64
import ipaddress
from pathlib import Path
from typing import Any

import pytest

from services.notifications import settings
from services.notifications.domain.rules import parse
from services.notifications.gateway import InvalidEndpointsError, _is_public, parse_endpoints

RULES = parse(settings.read_yaml(settings.SHIPPED_RULES))
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


def an_endpoint(**change: Any) -> dict[str, Any]:
    known = {"id": "chat", "tenant": "acme", "url": "https://chat.example.com/", "secret": SECRET}
    return {"endpoints": [known | change]}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"url": "http://chat.example.com/"}, "must be https"),
        ({"url": "http://127.0.0.1:9/"}, "must be https"),
        ({"url": "ftp://chat.example.com/"}, "must be https"),
        ({"url": "https://me:secret@chat.example.com/"}, "user name"),
        ({"url": "https:///x"}, "needs a host"),
        ({"id": "a/b"}, "made of"),
        ({"rules": ["none"]}, "no such rule: none"),
        ({"rules": "some"}, "Invalid enum value"),
        ({"secret": "env:NOT_SET"}, "must begin with `whsec_`"),
        ({"secret": "file:/does/not/exist"}, "can't be read"),
        ({"secret": "whsec_" + base64.b64encode(b"short").decode()}, "at least 24 bytes"),
        ({"secret": "whsec_é"}, "at least 24 bytes"),
        ({"more": 1}, "unknown field"),
    ],
)
def test_a_wrong_endpoint_is_refused_with_its_reason(
    change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidEndpointsError, match=complaint) as refusal:
        parse_endpoints(an_endpoint(**change), RULES, development=False)
    assert SECRET not in str(refusal.value)


def test_a_secret_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    monkeypatch.setenv("HOOK", SECRET)
    for secret in (f"file:{tmp_path}/secret", "env:HOOK"):
        (endpoint,) = parse_endpoints(an_endpoint(secret=secret), RULES, development=False)
        assert endpoint.subscription.rules is None
        assert SECRET not in repr(endpoint)


def test_the_example_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_CHAT_SECRET", SECRET)
    example = settings.SHIPPED_RULES.parent / "endpoints.example.yaml"
    assert parse_endpoints(settings.read_yaml(example), RULES, development=False)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("10.0.0.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fd00::1", False),
        ("fe80::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
    ],
)
def test_only_public_addresses_are_sent_to(address: str, *, public: bool) -> None:
    assert _is_public(ipaddress.ip_address(address)) == public
