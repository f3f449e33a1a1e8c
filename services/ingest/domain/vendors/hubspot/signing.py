"""How a push proves itself: over the raw bytes and the configured public URL.

A v3 signature that is there and wrong is final: nothing older is tried, or an attacker would only
have to spoil it.
"""

import base64
import hashlib
import hmac
import re

from services.ingest.domain import signatures
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Arrival, RefusedError

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


def signature_v3(secret: str, method: str, url: str, body: bytes, timestamp: str) -> str:
    """The v3 signature of a request."""
    url = _ESCAPE.sub(lambda found: _DECODED[found.group(1).upper()], url)
    signed = f"{method}{url}".encode() + body + timestamp.encode()
    return base64.b64encode(hmac.digest(secret.encode(), signed, hashlib.sha256)).decode()


def signature_v2(secret: str, method: str, url: str, body: bytes) -> str:
    """The v2 signature of a request."""
    return hashlib.sha256(f"{secret}{method}{url}".encode() + body).hexdigest()


def signature_v1(secret: str, body: bytes) -> str:
    """The v1 signature of a request."""
    return hashlib.sha256(secret.encode() + body).hexdigest()


def verify(arrival: Arrival, source: Source) -> str:
    """By the app's secret over method, URL, body and timestamp; older schemes where configured."""
    method, url, body = arrival.method, arrival.url, arrival.body
    v3 = arrival.headers.get("x-hubspot-signature-v3")
    if v3 is not None:
        stamp = arrival.headers.get("x-hubspot-request-timestamp", "")
        # The time first: nothing of a timestamp that is none is signed.
        if signatures.in_time(stamp, arrival.now_ms) and signatures.matches(
            v3, [signature_v3(secret, method, url, body, stamp) for secret in source.secrets]
        ):
            return "hubspot.v3"
        raise RefusedError(
            "X-HubSpot-Signature-v3 does not match, or its timestamp is over 5 minutes off. Check "
            "the app's secret in the sources file, this machine's clock, and that "
            "INGEST_PUBLIC_URL is the URL that HubSpot calls."
        )
    given = arrival.headers.get("x-hubspot-signature")
    if given is None or not source.legacy_signatures:
        raise RefusedError(
            "X-HubSpot-Signature-v3 is missing. Where HubSpot sends only its older signatures, set "
            "legacy_signatures: true for this source."
        )
    version = arrival.headers.get("x-hubspot-signature-version", "v1").lower()
    if version == "v1":
        expected = [signature_v1(secret, body) for secret in source.secrets]
    elif version == "v2":
        expected = [signature_v2(secret, method, url, body) for secret in source.secrets]
    else:
        raise RefusedError("X-HubSpot-Signature-Version is neither v1 nor v2.")
    if not signatures.matches(given, expected):
        raise RefusedError(
            "X-HubSpot-Signature does not match. Check the app's secret in the sources file, and "
            "that INGEST_PUBLIC_URL is the URL that HubSpot calls."
        )
    return f"hubspot.{version}"
