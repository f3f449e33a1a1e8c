"""What proofs of several vendors are made of; each vendor's own scheme is in its file.

Comparisons take the same time whatever they find, and any of several secrets may match, so that a
secret can be changed without a gap.
"""

import base64
import binascii
import hmac
from collections.abc import Iterable

MAX_SKEW_MS = 300_000  # a request that is older, or that far ahead, may be a replayed one
MAX_STAMP = 15  # digits; int() of arbitrary text is slow


def matches(given: str, expected: Iterable[str]) -> bool:
    """Whether what was given is one of what is expected."""
    found = [hmac.compare_digest(given.encode(), one.encode()) for one in expected]
    return any(found)


def in_time(stamp: str, now_ms: int, *, unit_ms: int = 1) -> bool:
    """Whether a timestamp, a whole number of this unit since 1970, is at most five minutes off."""
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= MAX_STAMP):
        return False
    return abs(now_ms - int(stamp) * unit_ms) <= MAX_SKEW_MS


def is_basic(secrets: Iterable[str], username: str, authorization: str) -> bool:
    """Whether the header holds HTTP Basic credentials with this name and one of the secrets."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        given = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return False
    return matches(given, [f"{username}:{secret}" for secret in secrets])
