"""Whether a request is the vendor's: over the raw bytes, in constant time.

The URL is the configured public one, never what the Host header says. A v3 signature that is there
and wrong is final: nothing older is tried, or an attacker would only have to spoil it.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping

MAX_SKEW_MS = 300_000
MAX_STAMP = 15  # digits; int() of arbitrary text is slow
# The percent escapes that HubSpot decodes in the URL before it signs; no others.
_DECODED = {
    "3A": ":",
    "2F": "/",
    "3F": "?",
    "40": "@",
    "21": "!",
    "24": "$",
    "27": "'",
    "28": "(",
    "29": ")",
    "2A": "*",
    "2C": ",",
    "3B": ";",
}
_ESCAPE = re.compile("%(" + "|".join(_DECODED) + ")", re.IGNORECASE)


def hubspot_url(url: str) -> str:
    """The URL as HubSpot signs it."""
    return _ESCAPE.sub(lambda found: _DECODED[found.group(1).upper()], url)


def hubspot_v3(secret: str, method: str, url: str, body: bytes, timestamp: str) -> str:
    """The v3 signature of a request."""
    signed = f"{method}{hubspot_url(url)}".encode() + body + timestamp.encode()
    return base64.b64encode(hmac.digest(secret.encode(), signed, hashlib.sha256)).decode()


def hubspot_v2(secret: str, method: str, url: str, body: bytes) -> str:
    """The v2 signature of a request."""
    return hashlib.sha256(f"{secret}{method}{url}".encode() + body).hexdigest()


def hubspot_v1(secret: str, body: bytes) -> str:
    """The v1 signature of a request."""
    return hashlib.sha256(secret.encode() + body).hexdigest()


def is_hubspot(  # a signature covers this much
    secrets: Iterable[str],
    headers: Mapping[str, str],
    *,
    method: str,
    url: str,
    body: bytes,
    now_ms: int,
    legacy: bool = False,
) -> str | None:
    """How HubSpot has signed this request (`hubspot.v3`, …), None when it hasn't."""
    v3 = headers.get("x-hubspot-signature-v3")
    if v3 is not None:
        stamp = headers.get("x-hubspot-request-timestamp", "")
        if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= MAX_STAMP):
            return None
        if abs(now_ms - int(stamp)) > MAX_SKEW_MS:
            return None
        expected = [hubspot_v3(secret, method, url, body, stamp) for secret in secrets]
        return "hubspot.v3" if _any_equal(v3, expected) else None
    given = headers.get("x-hubspot-signature")
    version = headers.get("x-hubspot-signature-version", "v1").lower()
    if not legacy or given is None or version not in ("v1", "v2"):
        return None
    expected = [
        hubspot_v1(secret, body) if version == "v1" else hubspot_v2(secret, method, url, body)
        for secret in secrets
    ]
    return f"hubspot.{version}" if _any_equal(given, expected) else None


def is_basic(secrets: Iterable[str], username: str, authorization: str) -> bool:
    """Whether the header holds HTTP Basic credentials with this name and one of the secrets."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        given = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return False
    return _any_equal(given, [f"{username}:{secret}" for secret in secrets])


def _any_equal(given: str, expected: list[str]) -> bool:
    matches = [hmac.compare_digest(given.encode(), one.encode()) for one in expected]
    return any(matches)
