"""Who is asking: tokens and keys, and everything that isn't one."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import ValidationError
from starlette.requests import Request

from kit.auth import (
    DEVELOPMENT_ISSUER,
    Authenticator,
    Principal,
    development_token,
    new_api_key,
    write_api_keys,
)
from kit.http import Problem
from kit.settings import KitSettings
from tests.support import DEV_SECRET


def a_request(method: str = "GET", /, **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": method, "headers": raw})


def authenticator(**settings: Any) -> Authenticator:
    return Authenticator(KitSettings(dev_secret=DEV_SECRET, **settings))


def token(**changes: Any) -> str:
    claims = {
        "iss": DEVELOPMENT_ISSUER,
        "aud": "pacesetter",
        "exp": time.time() + 60,
        "tenant": "acme",
        "person": "ada",
        "roles": ["rep"],
    } | changes
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, DEV_SECRET)


async def refused(auth: Authenticator, request: Request) -> Problem:
    with pytest.raises(Problem) as caught:
        await auth.authenticate(request)
    assert caught.value.status == 401
    return caught.value


async def test_a_person_is_known_by_token_in_the_header_or_the_cookie() -> None:
    plain = development_token(DEV_SECRET, tenant="acme", person="ada", roles=["rep"])
    expected = Principal("acme", "ada", frozenset({"rep"}))

    assert (
        await authenticator().authenticate(a_request(authorization=f"Bearer {plain}")) == expected
    )
    assert (
        await authenticator().authenticate(a_request(cookie=f"pacesetter_token={plain}"))
        == expected
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": time.time() - 60},
        {"exp": None},
        {"aud": "another"},
        {"iss": "another"},
        {"tenant": None},
        {"tenant": 5},
        {"tenant": "a/b"},
        {"tenant": "a\0"},
        {"person": "x" * 500},
        {"person": 5},
        {"roles": "admin"},
        {"roles": ["owner"]},
        {"roles": [["admin"]]},
    ],
)
async def test_a_token_that_says_anything_else_is_refused(changes: dict[str, Any]) -> None:
    await refused(authenticator(), a_request(authorization=f"Bearer {token(**changes)}"))


async def test_a_token_signed_otherwise_is_refused() -> None:
    claims = jwt.decode(token(), options={"verify_signature": False})
    unsigned = jwt.encode(claims, "", algorithm="none")
    foreign = jwt.encode(claims, "x" * 40)

    for forged in (unsigned, foreign, "a.b.c", "garbage"):
        await refused(authenticator(), a_request(authorization=f"Bearer {forged}"))


async def test_development_tokens_need_the_secret_and_a_loopback_address() -> None:
    await refused(Authenticator(KitSettings()), a_request(authorization=f"Bearer {token()}"))
    with pytest.raises(ValidationError, match="loopback"):
        KitSettings(dev_secret=DEV_SECRET, host="0.0.0.0")


async def test_an_oidc_token_is_checked_with_the_issuers_published_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key(), as_dict=True) | {"kid": "one"}
    auth = authenticator(oidc_issuer="https://id.example", oidc_jwks_url="https://id.example/jwks")
    monkeypatch.setattr(jwt.PyJWKClient, "fetch_data", lambda _: {"keys": [jwk]})
    claims = jwt.decode(token(iss="https://id.example"), options={"verify_signature": False})
    good = jwt.encode(claims, private, algorithm="RS256", headers={"kid": "one"})
    confused = jwt.encode(claims, DEV_SECRET, algorithm="HS256", headers={"kid": "one"})

    assert (await auth.authenticate(a_request(authorization=f"Bearer {good}"))).person == "ada"
    await refused(auth, a_request(authorization=f"Bearer {confused}"))


async def test_api_keys_are_stored_hashed_and_rotate_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    plain, stored = new_api_key("crm", tenant="acme", roles=["ops"])
    write_api_keys(path, [stored])
    auth = authenticator(api_keys=path)

    assert plain not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert (await auth.authenticate(a_request(x_api_key=plain))).tenant == "acme"

    second, successor = new_api_key("crm2", tenant="acme", roles=["ops"])
    expired = msgspec.structs.replace(stored, expires=datetime.now(UTC) - timedelta(seconds=1))
    write_api_keys(path, [expired, successor])

    assert (await auth.authenticate(a_request(x_api_key=second))).roles == {"ops"}
    assert "expired" in (await refused(auth, a_request(x_api_key=plain))).detail
    await refused(auth, a_request(x_api_key="pk_unknown"))
    await refused(auth, a_request())


def test_admin_holds_every_role_and_nobody_else_does() -> None:
    Principal("acme", "", frozenset({"admin"})).require("finance")
    with pytest.raises(Problem) as caught:
        Principal("acme", "ada", frozenset({"rep"})).require("finance", "ops")

    assert caught.value.status == 403
    assert "finance, ops" in caught.value.detail


async def test_a_cookie_may_only_read_since_browsers_send_it_by_themselves() -> None:
    plain = development_token(DEV_SECRET, tenant="acme", person="ada", roles=["ops"])

    for method in ("POST", "PUT", "DELETE", "PATCH"):
        await refused(authenticator(), a_request(method, cookie=f"pacesetter_token={plain}"))
    by_header = a_request("PUT", authorization=f"Bearer {plain}")
    assert (await authenticator().authenticate(by_header)).person == "ada"
