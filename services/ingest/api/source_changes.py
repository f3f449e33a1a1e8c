"""What a source becomes when somebody changes it, and how it is shown."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from kit.database import Transaction
from kit.http import Problem, json_response
from schemas.crm import SourceState, StoredSecret
from services.ingest.api.parts import Parts, check_match, versioned
from services.ingest.api.vault import MAX_SECRETS, Vault
from services.ingest.crms import CLIENTS
from services.ingest.crms.transport import foreign
from services.ingest.domain import shared_secrets, values
from services.ingest.domain.sealing import SEALED
from services.ingest.domain.sources import CREDENTIALS, Source
from services.ingest.domain.vendors import all_vendors
from services.ingest.gateway import FaultsError, checked, in_force
from services.ingest.store import sources as store

MAX_OVERLAP_SECONDS = 30 * 24 * 3600
DAY_SECONDS = 24 * 3600
_DEFAULTS = msgspec.to_builtins(Source(id="", tenant="", vendor=""), order="deterministic")
_OURS = ("id", "tenant", "secrets")  # kept apart from what a source's settings say


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new secret, and how long those before it are still accepted."""

    secret: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)] = ""
    overlap_seconds: Annotated[int, msgspec.Meta(ge=0, le=MAX_OVERLAP_SECONDS)] = DAY_SECONDS


@dataclass(frozen=True, slots=True)
class Change:
    """What a source becomes, and a secret that we have made for it."""

    state: SourceState
    made: str = ""


Decide = Callable[[SourceState | None], Change]


class Keeper:
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
    ) -> tuple[Change, SourceState | None]:
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
        return Change(state, change.made), current

    def answer(
        self, change: Change, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Response:
        """The source as it is now, with the secret that was made for it."""
        shown = self._shown(change.state)
        if change.made:
            shown["secret"] = change.made
        etag = {"ETag": f'"{change.state.version}"', "Cache-Control": "no-store"}
        return json_response(shown, status, headers={**(headers or {}), **etag})

    def change(
        self, tenant: str, number: str, fields: Mapping[str, Any], current: SourceState | None
    ) -> Change:
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
            raise invalid([*faults, *error.faults]) from error
        if source.api is not None and source.vendor in CLIENTS:
            faults += foreign(source.api, CLIENTS[source.vendor].door)
        if faults:
            raise invalid(faults)
        settings = _settings(source) | ({} if source.api is None else {"api": wanted["api"]})
        state = SourceState(tenant=tenant, version=0, id=number, settings=settings, secrets=kept)
        return Change(state, made)

    def created(
        self, tenant: str, number: str, fields: Mapping[str, Any], current: SourceState | None
    ) -> Change:
        """As `change`, where nothing is changed: 409 says in what one that is there differs."""
        change = self.change(tenant, number, fields, current)
        if current is not None and not current.deleted:
            _check_same(change.state, current)
        return change

    def rotated(self, current: SourceState | None, wanted: Rotation) -> Change:
        """The source with a new secret before those that it has."""
        current = _existing(current)
        made = "" if wanted.secret else _fresh(current.settings)
        secret = wanted.secret or made
        if not secret:
            vendor = all_vendors()[current.settings["vendor"]].title
            raise invalid([f"secret is missing: it is made by {vendor}; send it"])
        kept = self._in_force(current)
        vault = self._vault(current.tenant)
        if kept and kept[0].until is None and vault.is_same(kept[0].value, secret):
            return Change(current)
        faults: list[str] = []
        new = vault.secrets([secret], [], faults)
        fields = {**current.settings, "id": current.id, "tenant": current.tenant}
        fields["secrets"] = [one.value for one in new]
        try:
            checked(fields, vault.resolve)
        except FaultsError as error:
            raise invalid([*faults, *error.faults]) from error
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
        return Change(msgspec.structs.replace(current, secrets=[*new, *old]), made)

    def _vault(self, tenant: str) -> Vault:
        stored = self._sources.stored
        return Vault(self._sources.resolver(tenant), lambda secret: stored(secret, tenant))

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


def removed(current: SourceState | None) -> Change:
    """The source without its secrets, deleted."""
    found = _existing(current)
    settings = dict(found.settings)
    if "api" in settings:
        settings["api"] = _without(settings["api"], CREDENTIALS)
    return Change(msgspec.structs.replace(found, settings=settings, secrets=[], deleted=True))


def paused(current: SourceState | None, *, yes: bool) -> Change:
    """The source paused, or no longer."""
    found = _existing(current)
    settings = _without(found.settings, ("paused",)) | ({"paused": True} if yes else {})
    return Change(msgspec.structs.replace(found, settings=settings))


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
        raise not_found()
    return current


def not_found() -> Problem:
    """404 of a source."""
    return Problem(404, "not-found", "There is no such source.")


def invalid(faults: list[str]) -> Problem:
    """422 with everything that is wrong with a source."""
    unique = list(dict.fromkeys(faults))
    return Problem(422, "invalid-source", f"{'; '.join(unique[:20])}.", errors=unique[:100])
