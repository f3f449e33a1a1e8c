"""Who is asking: people with OIDC tokens, machines with API keys.

A token comes as `Authorization: Bearer …` or, for browser pages and event streams, which can't set
headers, in the cookie `pacesetter_token`, which may only read. Claims: `tenant`, `person`, `roles`
(list). An API key comes as `Authorization: Bearer pk_…` or `X-API-Key`; only its SHA-256 is stored,
in a JSON list of `{"id", "sha256", "tenant", "roles", "expires"?}` that is re-read when it changes,
so that keys rotate without a restart by listing the new one beside the old.

Development tokens (HS256 with `PACESETTER_DEV_SECRET`) exist only where HTTP listens on loopback.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard, get_args

import jwt
import msgspec
from starlette.requests import HTTPConnection

from kit.http import Problem
from kit.settings import KitSettings
from schemas.base import valid_id

Role = Literal["rep", "manager", "finance", "ops", "admin"]
ROLES: frozenset[str] = frozenset(get_args(Role))
COOKIE = "pacesetter_token"
KEY_PREFIX = "pk_"
DEVELOPMENT_ISSUER = "pacesetter-development"
LEEWAY_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking, for which tenant, as what. `person` is empty for machines."""

    tenant: str
    person: str
    roles: frozenset[str]

    def has(self, *roles: Role) -> bool:
        """Whether any of these roles is held; admin holds all."""
        return "admin" in self.roles or not self.roles.isdisjoint(roles)

    def require(self, *roles: Role) -> None:
        """Raise 403 unless one of these roles is held."""
        if not self.has(*roles):
            raise Problem(403, "forbidden", f"This needs one of the roles: {', '.join(roles)}.")


class ApiKey(msgspec.Struct, frozen=True):
    """One machine's key, as stored."""

    id: str
    sha256: str
    tenant: str
    roles: list[Role]
    expires: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class Authenticator:
    """Turns a request into a `Principal`, or raises 401."""

    def __init__(self, settings: KitSettings) -> None:
        self._settings = settings
        self._keys: list[ApiKey] = []
        self._keys_read_ns = -1
        self._jwks = (
            jwt.PyJWKClient(settings.oidc_jwks_url, cache_keys=True)
            if settings.oidc_jwks_url
            else None
        )

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """The principal of a request; 401 says what is missing or wrong."""
        credential = _credential(connection)
        if not credential:
            raise _unauthorised("Send a bearer token or an API key.")
        if credential.startswith(KEY_PREFIX):
            return self._by_key(credential)
        return await self._by_token(credential)

    def _by_key(self, credential: str) -> Principal:
        digest = hashlib.sha256(credential.encode()).hexdigest()
        for key in self._known_keys():
            if hmac.compare_digest(key.sha256, digest):
                if key.expires is not None and key.expires <= datetime.now(UTC):
                    raise _unauthorised("This API key has expired; use its successor.")
                return Principal(key.tenant, "", frozenset(key.roles))
        raise _unauthorised("This API key is not known.")

    def _known_keys(self) -> list[ApiKey]:
        path = self._settings.api_keys
        if path is None or not path.exists():
            return []
        changed = path.stat().st_mtime_ns
        if changed != self._keys_read_ns:
            self._keys = msgspec.json.decode(path.read_bytes(), type=list[ApiKey])
            self._keys_read_ns = changed
        return self._keys

    async def _by_token(self, token: str) -> Principal:
        try:
            claims = await self._claims(token)
        except (jwt.PyJWTError, ValueError) as error:
            raise _unauthorised(f"The token is not accepted: {error}.") from error
        tenant, person, roles = claims.get("tenant"), claims.get("person", ""), claims.get("roles")
        if not _an_id(tenant) or not (person == "" or _an_id(person)):
            raise _unauthorised("The token has no usable `tenant` and `person` claims.")
        if not isinstance(roles, list) or any(role not in list(ROLES) for role in roles):
            raise _unauthorised(
                f"The token's `roles` must be a list of {', '.join(sorted(ROLES))}."
            )
        return Principal(tenant, person, frozenset(roles))

    async def _claims(self, token: str) -> dict[str, Any]:
        settings = self._settings
        issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
        secret = settings.dev_secret.get_secret_value()
        if secret and issuer == DEVELOPMENT_ISSUER:
            key: Any = secret
            algorithms = ["HS256"]
        elif self._jwks is not None and issuer == settings.oidc_issuer:
            key = (await asyncio.to_thread(self._jwks.get_signing_key_from_jwt, token)).key
            algorithms = ["RS256", "ES256", "EdDSA", "PS256"]
        else:
            raise jwt.InvalidIssuerError(f"issuer {issuer!r} is not configured")
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=algorithms,
            issuer=issuer,
            audience=settings.oidc_audience,
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "iss", "aud"]},
        )
        return claims


def principal_dependency(authenticator: Authenticator) -> Callable[[HTTPConnection], Any]:
    """A FastAPI dependency that gives the request's principal."""

    async def principal(connection: HTTPConnection) -> Principal:
        return await authenticator.authenticate(connection)

    return principal


def development_token(
    secret: str, *, tenant: str, person: str = "", roles: list[str], audience: str = "pacesetter"
) -> str:
    """A token for a day, accepted by services that run on loopback with the same secret."""
    return jwt.encode(
        {
            "iss": DEVELOPMENT_ISSUER,
            "aud": audience,
            "exp": datetime.now(UTC) + timedelta(days=1),
            "tenant": tenant,
            "person": person,
            "roles": roles,
        },
        secret,
        algorithm="HS256",
    )


def new_api_key(key_id: str, *, tenant: str, roles: list[Role]) -> tuple[str, ApiKey]:
    """A fresh key (shown once) and what to store of it."""
    plain = KEY_PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(plain.encode()).hexdigest()
    return plain, ApiKey(id=key_id, sha256=digest, tenant=tenant, roles=roles)


def write_api_keys(path: Path, keys: list[ApiKey]) -> None:
    """Write the key file, readable by its owner only; whoever reads it never sees half of it."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.touch(mode=0o600)
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(keys), indent=2))
    fresh.replace(path)


def _an_id(claim: object) -> TypeGuard[str]:
    return isinstance(claim, str) and valid_id(claim)


def _credential(connection: HTTPConnection) -> str:
    scheme, _, value = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value:
        return value.strip()
    key = connection.headers.get("x-api-key", "")
    # A browser sends the cookie by itself, also for a page of another site on this host: it may
    # only read.
    reads = connection.scope.get("method", "GET") in ("GET", "HEAD")
    return key or (connection.cookies.get(COOKIE, "") if reads else "")


def _unauthorised(detail: str) -> Problem:
    return Problem(401, "unauthorised", detail, headers={"WWW-Authenticate": "Bearer"})
