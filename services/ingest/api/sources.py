"""The CRMs that may send: created, changed, paused, given new secrets and removed.

Secrets go in and never come out, except those that we make, once. Writing a source as it already is
changes nothing and publishes it again, so that repeating a request heals one that failed half-way.
What the sources file has is shown, and is changed there.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.database import Transaction
from kit.http import Problem, json_response
from schemas.crm import SourceState, StoredSecret
from services.ingest.api.parts import (
    NO_NUL,
    Cursor,
    Limit,
    Parts,
    body_schema,
    check_match,
    json_body,
    versioned,
)
from services.ingest.crms import CLIENTS
from services.ingest.crms.transport import foreign
from services.ingest.domain import shared_secrets, values
from services.ingest.domain.sealing import SEALED
from services.ingest.domain.sources import CREDENTIALS, Source
from services.ingest.domain.vendors import all_vendors
from services.ingest.gateway import FaultsError, SecretError, checked, in_force, is_reference
from services.ingest.store import sources as store

MAX_BYTES = 256 * 1024  # of a source with its mapping: it travels in one message
MAX_SECRETS = 5  # in force at once: each costs a signature per request
MAX_OVERLAP_SECONDS = 30 * 24 * 3600
DAY_SECONDS = 24 * 3600
_DEFAULTS = msgspec.to_builtins(Source(id="", tenant="", vendor=""), order="deterministic")
_OURS = ("id", "tenant", "secrets")  # kept apart from what a source's settings say

Number = Annotated[str, Path(pattern=NO_NUL, max_length=300, description="The source's id.")]


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new secret, and how long those before it are still accepted."""

    secret: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)] = ""
    overlap_seconds: Annotated[int, msgspec.Meta(ge=0, le=MAX_OVERLAP_SECONDS)] = DAY_SECONDS


@dataclass(frozen=True, slots=True)
class _Change:
    """What a source becomes, and a secret that we have made for it."""

    state: SourceState
    made: str = ""


Decide = Callable[[SourceState | None], _Change]


def router(parts: Parts) -> APIRouter:
    """The routes under /v1/sources."""
    api = APIRouter(prefix="/v1/sources", tags=["sources"])
    keeper = _Keeper(parts)
    _add_reads(api, parts, keeper)
    _add_writes(api, parts, keeper)
    _add_operations(api, parts, keeper)
    return api


def _add_reads(api: APIRouter, parts: Parts, keeper: "_Keeper") -> None:
    operator = parts.operator()

    @api.get("")
    async def page(
        cursor: Cursor = "", limit: Limit = 100, principal: Principal = operator
    ) -> Response:
        """The tenant's sources by id, without their secrets."""
        place = pages.place(cursor, tuple[str])
        after = "" if place is None else place[0]
        shown = await keeper.all(principal.tenant)
        numbers = sorted(number for number in shown if number > after)[:limit]
        following = pages.cursor([numbers[-1]]) if len(numbers) == limit else None
        return json_response({"items": [shown[n] for n in numbers], "next": following})

    @api.get("/{number}")
    async def get(request: Request, number: Number, principal: Principal = operator) -> Response:
        """One source, without its secrets, and its version as ETag."""
        found = (await keeper.all(principal.tenant)).get(number)
        if found is None:
            raise _not_found()
        return pages.tagged(request, found, str(found["version"] or ""))


def _add_writes(api: APIRouter, parts: Parts, keeper: "_Keeper") -> None:
    operator = parts.operator()

    @api.post("", status_code=201, openapi_extra=body_schema("application/json", _NEW))
    async def create(request: Request, principal: Principal = operator) -> Response:
        """Create a source; the answer has the secret if it is ours to make, this once.

        Creating it again as it is answers 200; 409 says in which fields it differs.
        """
        fields = await _fields(request)
        number = fields.pop("id", None)
        if not isinstance(number, str) or "\x00" in number:  # which PostgreSQL's text can't hold
            raise _invalid(["id is missing or not text"])

        def decide(current: SourceState | None) -> _Change:
            change = keeper.change(principal.tenant, number, fields, current)
            if current is not None and not current.deleted:
                _check_same(change.state, current)
            return change

        change, before = await keeper.write(principal.tenant, number, decide)
        status = 201 if before is None or before.deleted else 200
        headers = {"Location": f"/v1/sources/{number}"}
        return keeper.answer(change, status, headers)

    @api.put("/{number}", openapi_extra=body_schema("application/json", _SETTINGS))
    async def put(request: Request, number: Number, principal: Principal = operator) -> Response:
        """Create or replace a source; `If-Match` guards against overwriting someone's change.

        What is absent gets its default; but `secrets`, and credentials of an `api` that is there,
        stay as they are. Those given replace the ones before at once: rotate to leave no gap.
        """
        fields = await _fields(request)

        def decide(current: SourceState | None) -> _Change:
            return keeper.change(principal.tenant, number, fields, current)

        change, _ = await keeper.write(principal.tenant, number, decide, request=request)
        return keeper.answer(change)

    @api.delete("/{number}", status_code=204)
    async def delete(request: Request, number: Number, principal: Principal = operator) -> Response:
        """Remove a source with its secrets; its records stay, and its past can be read again."""
        await keeper.write(principal.tenant, number, _removed, request=request)
        return Response(status_code=204)


def _add_operations(api: APIRouter, parts: Parts, keeper: "_Keeper") -> None:
    operator = parts.operator()

    @api.post("/{number}/rotate", openapi_extra=body_schema("application/json", _ROTATION))
    async def rotate(request: Request, number: Number, principal: Principal = operator) -> Response:
        """Give a source a new secret; the ones before are accepted until the overlap ends.

        Without `secret` we make one, where that is ours to do, and show it this once.
        """
        body = await request.body()
        wanted = await json_body(request, Rotation) if body else Rotation()

        def decide(current: SourceState | None) -> _Change:
            return keeper.rotated(_existing(current), wanted)

        change, _ = await keeper.write(principal.tenant, number, decide, request=request)
        return keeper.answer(change)

    @api.post("/{number}/pause")
    async def pause(request: Request, number: Number, principal: Principal = operator) -> Response:
        """Answer this CRM 503, so that it keeps what it would send, for as long as it does."""
        change, _ = await keeper.write(
            principal.tenant, number, lambda current: _paused(current, yes=True), request=request
        )
        return keeper.answer(change)

    @api.post("/{number}/resume")
    async def resume(request: Request, number: Number, principal: Principal = operator) -> Response:
        """Take again what the CRM sends."""
        change, _ = await keeper.write(
            principal.tenant, number, lambda current: _paused(current, yes=False), request=request
        )
        return keeper.answer(change)


def _removed(current: SourceState | None) -> _Change:
    found = _existing(current)
    settings = dict(found.settings)
    if "api" in settings:
        settings["api"] = _without(settings["api"], CREDENTIALS)
    return _Change(msgspec.structs.replace(found, settings=settings, secrets=[], deleted=True))


def _paused(current: SourceState | None, *, yes: bool) -> _Change:
    found = _existing(current)
    settings = _without(found.settings, ("paused",)) | ({"paused": True} if yes else {})
    return _Change(msgspec.structs.replace(found, settings=settings))


class _Keeper:
    """Decides what a source becomes, publishes and keeps it, alone with the tenant's sources.

    Published before the commit: should the commit fail, we read it back from the topic.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._sources = parts.sources

    async def all(self, tenant: str) -> dict[str, dict[str, Any]]:
        """The tenant's sources as they are shown, by id; the file's hide those of the same id."""
        async with self._parts.database.transaction() as transaction:
            states = await self._sources.replica.load(transaction, tenant)
        shown = {state.id: self._shown(state) for state in states if not state.deleted}
        file = {source.id: self._shown_of_file(source) for source in self._sources.of_file(tenant)}
        return shown | file

    async def write(
        self, tenant: str, number: str, decide: Decide, *, request: Request | None = None
    ) -> tuple[_Change, SourceState | None]:
        """Make a decided change of one source; returns it and what was before."""
        if any(source.id == number for source in self._sources.of_file(tenant)):
            detail = f"This source is in the sources file; change it there: {self._sources.path}."
            raise Problem(409, "managed-by-file", detail)
        if_match = None if request is None else request.headers.get("if-match")
        async with self._parts.database.transaction() as transaction:
            # By id first, since tenants share the ids; then as everyone who stores sources does.
            await transaction.lock(f"{SourceState.topic}/id/{number}")
            await transaction.lock(self._sources.replica.lock_name(tenant))
            current = await store.find(transaction, tenant, number)
            if if_match is not None:
                check_match(if_match, current, "source")
            change = decide(current)
            if not change.state.deleted:
                await self._check_free(transaction, tenant, number)
            state = versioned(change.state, current, self._parts.now_us())
            await self._sources.replica.store(transaction, [state])
            await self._parts.publish([state])
        async with self._parts.database.transaction() as transaction:
            await self._sources.refresh(transaction)
        return _Change(state, change.made), current

    def answer(
        self, change: _Change, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Response:
        """The source as it is now, with the secret that was made for it."""
        shown = self._shown(change.state)
        if change.made:
            shown["secret"] = change.made
        etag = {"ETag": f'"{change.state.version}"', "Cache-Control": "no-store"}
        return json_response(shown, status, headers={**(headers or {}), **etag})

    def change(
        self, tenant: str, number: str, fields: Mapping[str, Any], current: SourceState | None
    ) -> _Change:
        """What these fields make of the source; 422 with everything that is wrong with them."""
        before = None if current is None or current.deleted else current
        wanted = {name: value for name, value in fields.items() if name != "secrets"}
        faults = [f"{name} can't be set" for name in ("id", "tenant") if name in fields]
        if before is not None and wanted.get("vendor", "") != before.settings["vendor"]:
            faults.append("vendor can't change: what has come in was read as the vendor's before")
        vault = self._vault(tenant)
        api = wanted.get("api")
        if isinstance(api, dict):
            old = {} if before is None else before.settings.get("api") or {}
            wanted["api"] = vault.credentials(api, old, faults)
        made = ""
        kept: list[StoredSecret] = [] if before is None else self._in_force(before)
        if "secrets" in fields:
            kept = vault.secrets(fields["secrets"], kept, faults)
        elif not kept and (made := _fresh(wanted)):
            kept = vault.secrets([made], [], faults)
        wanted |= {"id": number, "tenant": tenant, "secrets": [one.value for one in kept]}
        try:
            source = checked(wanted, vault.resolve)
        except FaultsError as error:
            raise _invalid([*faults, *error.faults]) from error
        if source.api is not None and source.vendor in CLIENTS:
            faults += foreign(source.api, CLIENTS[source.vendor].door)
        if faults:
            raise _invalid(faults)
        settings = _settings(source) | ({} if source.api is None else {"api": wanted["api"]})
        state = SourceState(tenant=tenant, version=0, id=number, settings=settings, secrets=kept)
        return _Change(state, made)

    def rotated(self, current: SourceState, wanted: Rotation) -> _Change:
        """The source with a new secret before those that it has."""
        made = "" if wanted.secret else _fresh(current.settings)
        secret = wanted.secret or made
        if not secret:
            vendor = all_vendors()[current.settings["vendor"]].title
            raise _invalid([f"secret is missing: it is made by {vendor}; send it"])
        kept = self._in_force(current)
        vault = self._vault(current.tenant)
        if kept and kept[0].until is None and vault.is_same(kept[0].value, secret):
            return _Change(current)
        faults: list[str] = []
        new = vault.secrets([secret], [], faults)
        fields = {**current.settings, "id": current.id, "tenant": current.tenant}
        fields["secrets"] = [one.value for one in new]
        try:
            checked(fields, vault.resolve)
        except FaultsError as error:
            raise _invalid([*faults, *error.faults]) from error
        ends = self._now() + timedelta(seconds=wanted.overlap_seconds)
        old = [StoredSecret(one.value, min(one.until or ends, ends)) for one in kept]
        if not wanted.overlap_seconds:
            old = []
        if len(old) >= MAX_SECRETS:
            detail = (
                f"{len(old)} secrets are in force; wait until one ends, or send "
                "overlap_seconds 0 to end them now."
            )
            raise Problem(409, "too-many-secrets", detail)
        return _Change(msgspec.structs.replace(current, secrets=[*new, *old]), made)

    def _vault(self, tenant: str) -> "_Vault":
        stored = self._sources.stored
        return _Vault(self._sources.resolver(tenant), lambda secret: stored(secret, tenant))

    async def _check_free(self, transaction: Transaction, tenant: str, number: str) -> None:
        holders = await store.holders(transaction, number)
        taken = any(one.tenant != tenant and not one.deleted for one in holders)
        if taken or self._sources.in_file(number):
            raise Problem(409, "taken", "This id is taken; choose another one.")

    def _in_force(self, state: SourceState) -> list[StoredSecret]:
        return in_force(state, self._now())

    def _now(self) -> datetime:
        return values.aware(self._parts.now_us())

    def _shown(self, state: SourceState) -> dict[str, Any]:
        settings = dict(state.settings)
        credentials: list[str] = []
        if "api" in settings:
            credentials = [name for name in CREDENTIALS if settings["api"].get(name)]
            settings["api"] = _without(settings["api"], CREDENTIALS)
        return {
            **self._heading(state.id, state.version, "api"),
            "settings": settings,
            "credentials": credentials,
            "secrets": [_shown_secret(one) for one in self._in_force(state)],
            "problem": self._sources.kept(state).problem,
        }

    def _shown_of_file(self, source: Source) -> dict[str, Any]:
        settings, credentials = _settings(source), []
        if source.api is not None:
            credentials = [name for name in CREDENTIALS if getattr(source.api, name)]
            settings["api"] = _without(settings["api"], CREDENTIALS)
        return {
            **self._heading(source.id, None, "file"),
            "settings": settings,
            "credentials": credentials,
            "secrets": [{"from": "file", "until": None} for _ in source.secrets],
            "problem": "",
        }

    def _heading(self, number: str, version: int | None, managed: str) -> dict[str, Any]:
        base = self._parts.settings.public_url.rstrip("/")
        url = f"{base}/v1/sources/{number}/events"
        return {"id": number, "version": version, "managed": managed, "url": url}


@dataclass(frozen=True, slots=True)
class _Vault:
    """How secrets given are kept beside those that are kept already."""

    of_stored: Callable[[str], str]
    stored: Callable[[str], str]

    def resolve(self, text: str) -> str:
        """The secret itself, of what is kept as of what was just given."""
        return self.of_stored(text) if text.startswith(SEALED) or is_reference(text) else text

    def is_same(self, kept: str, given: str) -> bool:
        """Whether a kept secret is the one given, so that it needn't be sealed anew."""
        if is_reference(kept) or is_reference(given):
            return kept == given
        try:
            return secrets.compare_digest(self.of_stored(kept).encode(), given.encode())
        except SecretError:
            return False  # its key is gone

    def keep(self, given: object, kept: str, name: str, faults: list[str]) -> str:
        """How one secret is kept; what is wrong with it goes to `faults`."""
        if not isinstance(given, str) or given.startswith(SEALED):
            faults.append(f"{name}: expected text, a secret or a reference to one")
            return kept
        if kept and self.is_same(kept, given):
            return kept
        try:
            return self.stored(given)
        except SecretError as error:
            faults.append(f"{name}: {error}")
            return kept

    def secrets(
        self, given: object, kept: list[StoredSecret], faults: list[str]
    ) -> list[StoredSecret]:
        """How a list of secrets is kept."""
        if not isinstance(given, list) or len(given) > MAX_SECRETS:
            faults.append(f"secrets: expected a list of at most {MAX_SECRETS}")
            return kept
        found: list[StoredSecret] = []
        for number, one in enumerate(given):
            same = next(
                (k for k in kept if isinstance(one, str) and self.is_same(k.value, one)), None
            )
            if same is None:
                value = self.keep(one, "", f"secrets[{number}]", faults)
                same = StoredSecret(value) if value else None
            if same is not None:
                found.append(StoredSecret(same.value))
        return found

    def credentials(
        self, api: Mapping[str, Any], old: Mapping[str, Any], faults: list[str]
    ) -> dict[str, Any]:
        """An `api` with its credentials as they are kept; absent ones stay, empty ones go.

        They were given for an address: whoever changes it must know them, not only be allowed to.
        """
        moved = any(api.get(name, "") != old.get(name, "") for name in ("url", "token_url"))
        found = dict(api)
        for name in CREDENTIALS:
            kept = str(old.get(name, ""))
            if name in api:
                found[name] = self.keep(api[name], kept, f"api.{name}", faults) if api[name] else ""
            elif kept and moved:
                faults.append(f"api.{name} must be sent again when url or token_url changes")
            elif kept:
                found[name] = kept
        return {name: value for name, value in found.items() if value != ""}


def _fresh(settings: Mapping[str, Any]) -> str:
    """A secret of our making, where the sender can take one over; else nothing."""
    vendor = all_vendors().get(str(settings.get("vendor")))
    if vendor is None or vendor.verify is None:
        return ""
    if vendor.new_secret is not None:
        return vendor.new_secret()
    shared = any(settings.get(place) for place in ("header", "query", "username"))
    return shared_secrets.new() if shared else ""


def _settings(source: Source) -> dict[str, Any]:
    """What a source says beside its defaults."""
    found: dict[str, Any] = msgspec.to_builtins(source, order="deterministic")
    return {n: v for n, v in found.items() if n not in _OURS and v != _DEFAULTS[n]}


def _shown_secret(secret: StoredSecret) -> dict[str, Any]:
    where = "sealed" if secret.value.startswith(SEALED) else secret.value
    return {"from": where, "until": secret.until}


def _without(found: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in names}


def _check_same(wanted: SourceState, current: SourceState) -> None:
    names = wanted.settings.keys() | current.settings.keys()
    other = sorted(n for n in names if wanted.settings.get(n) != current.settings.get(n))
    if wanted.secrets != current.secrets:
        other.append("secrets")
    if other:
        detail = f"This source exists and differs in {', '.join(other)}; PUT changes it."
        raise Problem(409, "exists", detail, fields=other)


def _existing(current: SourceState | None) -> SourceState:
    if current is None or current.deleted:
        raise _not_found()
    return current


def _not_found() -> Problem:
    return Problem(404, "not-found", "There is no such source.")


def _invalid(faults: list[str]) -> Problem:
    unique = list(dict.fromkeys(faults))
    return Problem(422, "invalid-source", f"{'; '.join(unique[:20])}.", errors=unique[:100])


async def _fields(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = await json_body(request, dict[str, Any])
    if len(await request.body()) > MAX_BYTES:
        detail = f"A source takes at most {MAX_BYTES} bytes, with its mapping."
        raise Problem(413, "too-large", detail)
    return found


_SECRET = {"type": "string", "minLength": 1, "maxLength": 1000}
_PROPERTIES = {
    "vendor": {"type": "string", "enum": sorted(all_vendors())},
    "secrets": {"type": "array", "maxItems": MAX_SECRETS, "items": _SECRET, "writeOnly": True},
    "rate": {"type": "number", "minimum": 0, "description": "Requests per second; 0: no limit."},
    "paused": {"type": "boolean"},
    "mapping": {"type": "object"},
    "api": {"type": "object", "description": "How the CRM is asked for what its events lack."},
}
_SETTINGS = {"type": "object", "required": ["vendor"], "properties": _PROPERTIES}
_NEW = {
    "type": "object",
    "required": ["id", "vendor"],
    "properties": {"id": {"type": "string"}, **_PROPERTIES},
}
_ROTATION = {
    "type": "object",
    "properties": {
        "secret": _SECRET,
        "overlap_seconds": {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_OVERLAP_SECONDS,
            "default": DAY_SECONDS,
        },
    },
    "additionalProperties": False,
}
