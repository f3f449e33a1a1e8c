"""Standard Webhooks: the signature, against its public library and the specification's example."""

import base64
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook

from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Arrival, RefusedError, standardwebhooks
from tests.support import TENANT

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD = "whsec_" + base64.b64encode(b"old key of 24 bytes long").decode()
SOURCE = Source(id="std", tenant=TENANT, vendor="standardwebhooks", secrets=(KEY, OLD))
BODY = b'{"test": 2432232314}'
NUMBER, STAMP = "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330"
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def arrival(
    signature: str = SIGNATURE,
    *,
    stamp: str = STAMP,
    number: str = NUMBER,
    body: bytes = BODY,
    now: int = int(STAMP),
) -> Arrival:
    headers = {
        "webhook-id": number,
        "webhook-timestamp": stamp,
        "webhook-signature": signature,
    }
    return Arrival(method="POST", url="", headers=headers, query={}, body=body, now_ms=now * 1000)


def test_a_known_answer() -> None:
    assert standardwebhooks.signature(KEY, NUMBER, STAMP, BODY) == SIGNATURE
    assert standardwebhooks.verify(arrival(), SOURCE) == "standardwebhooks.v1"


def test_the_public_library_signs_the_same() -> None:
    at = datetime.fromtimestamp(int(STAMP), UTC)
    theirs = Webhook(OLD).sign(NUMBER, at, BODY.decode())

    assert standardwebhooks.signature(OLD, NUMBER, STAMP, BODY) == theirs
    assert standardwebhooks.verify(arrival(theirs), SOURCE)


def test_any_of_several_signatures_may_match_while_keys_are_rotated() -> None:
    assert standardwebhooks.verify(arrival(f"v1a,abc v1,AAAA {SIGNATURE}"), SOURCE)


@pytest.mark.parametrize("off", [-300, 0, 300])
def test_five_minutes_either_way_are_in_time(off: int) -> None:
    assert standardwebhooks.verify(arrival(now=int(STAMP) + off), SOURCE)


@pytest.mark.parametrize(
    "wrong",
    [
        arrival(""),
        arrival("v1,"),
        arrival(SIGNATURE.removeprefix("v1,")),
        arrival(SIGNATURE.replace("v1,", "v1a,")),
        arrival(body=BODY + b" "),
        arrival(number="msg_other"),
        arrival(number=""),
        arrival(stamp=""),
        arrival(stamp="1614265330.0"),
        arrival(stamp="9" * 400),
        arrival(now=int(STAMP) + 301),
        arrival(now=int(STAMP) - 301),
        arrival(" ".join(["v1,AAAA"] * 50 + [SIGNATURE])),
    ],
)
def test_anything_else_is_refused(wrong: Arrival) -> None:
    with pytest.raises(RefusedError):
        standardwebhooks.verify(wrong, SOURCE)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_not base64!", "whsec_é"])
def test_a_secret_that_is_no_key_accepts_nothing(secret: str) -> None:
    source = Source(id="std", tenant=TENANT, vendor="standardwebhooks", secrets=(secret,))

    with pytest.raises(RefusedError, match="not whsec_ and base64"):
        standardwebhooks.verify(arrival(), source)


def test_a_secret_that_is_no_key_does_not_make_the_others_useless() -> None:
    secrets = ("whsec_not base64!", *SOURCE.secrets)
    source = Source(id="std", tenant=TENANT, vendor="standardwebhooks", secrets=secrets)

    assert standardwebhooks.verify(arrival(), source) == "standardwebhooks.v1"
    with pytest.raises(RefusedError, match="no v1 signature that matches"):
        standardwebhooks.verify(arrival("v1,AAAA"), source)
