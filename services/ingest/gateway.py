"""The CRMs as configured: the sources file and what was set by API, with their secrets resolved.

The file is re-read when it changes, and its sources are in force whatever the API says. A file that
has become unreadable leaves the last good configuration in force and says so; at the start it ends
the process. What was set by API comes from the store, where every replica looks twice a second.

A secret of the file is written as it is, or better as `env:NAME` or `file:PATH`. A secret given by
API is sealed, or names one that the operators have laid out for this tenant, so that nobody reads
another's: `env:INGEST_SECRET_<tenant>__<NAME>`, or `file:<name>` in the tenant's folder of
INGEST_SECRETS_FOLDER. These are looked up when the source changes and when a process starts.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog
import yaml

from kit.clock import Micros, real_micros
from kit.database import Transaction
from kit.replica import Replica
from schemas.base import valid_id
from schemas.crm import SourceState, StoredSecret
from services.ingest import telemetry
from services.ingest.domain import fields, mapping, values
from services.ingest.domain.facts import BadEventError
from services.ingest.domain.sealing import SEALED, Seal, SealError
from services.ingest.domain.sources import CREDENTIALS, Source
from services.ingest.domain.vendors import Vendor, all_vendors
from services.ingest.store import sources as store

MAX_SOURCE_ID = 40  # characters, so that a record's id has room for the vendor's
MIN_RATE = 0.01  # a request in 100 seconds; less is a paused source
_ENV_NAME = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FIELDS = {field.name: field for field in msgspec.structs.fields(Source)}
_REQUIRED = {name for name, field in _FIELDS.items() if field.required}
_DEFAULT = Source(id="", tenant="", vendor="")
_OF_SOME: frozenset[str] = frozenset().union(
    *(vendor.settings for vendor in all_vendors().values())
)
_CURRENCY = re.compile(r"[A-Z]{3}")

log = structlog.get_logger(__name__)

Resolve = Callable[[str], str]


class SourcesError(ValueError):
    """What is wrong with the sources file, and in which source."""


class FaultsError(ValueError):
    """Everything that is wrong with one source."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = list(faults)


class SecretError(ValueError):
    """Why a secret can't be had."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A source of the API as this process has it: what is stored, and what became of it."""

    state: SourceState
    source: Source
    problem: str  # why its secrets can't be had here, if they can't


class Sources:
    """The configured sources, by id."""

    def __init__(
        self,
        path: Path | None,
        *,
        seal: Seal | None = None,
        folder: Path | None = None,
        now_us: Micros = real_micros,
    ) -> None:
        self.path = path
        self.seal = seal or Seal()
        self.replica: Replica[SourceState] = Replica(SourceState)
        self._folder = folder
        self._now_us = now_us
        self._read_ns = 0
        self._sources: dict[str, Source] = {}
        self._kept: dict[tuple[str, str], Kept] = {}
        self._by_id: dict[str, Kept] = {}
        self._epochs: dict[str, str] = {}
        self._next_end = 0  # when the first secret stops being accepted, µs

    def load(self) -> None:
        """Read the file; raises SourcesError or OSError."""
        if self.path is not None:
            changed = self.path.stat().st_mtime_ns
            self._sources = parse(self.path.read_text())
            self._read_ns = changed

    def get(self, source: str) -> Source | None:
        """The source as configured now."""
        self._reread()
        found = self._sources.get(source)
        if found is None and (kept := self._by_id.get(source)) is not None and not kept.problem:
            found = kept.source
        return found

    def problem(self, source: str) -> str:
        """Why a source that is configured can't be used in this process."""
        kept = self._by_id.get(source)
        return "" if kept is None or source in self._sources else kept.problem

    def known(self, tenant: str, source: str) -> Source | None:
        """What a source's past requests are read with: its configuration, even after its end."""
        found = self.get(source)
        if found is None or found.tenant != tenant:
            kept = self._kept.get((tenant, source))
            found = None if kept is None else kept.source
        return found

    def of_file(self, tenant: str) -> list[Source]:
        """The tenant's sources that the file has."""
        self._reread()
        return [source for source in self._sources.values() if source.tenant == tenant]

    def in_file(self, source: str) -> bool:
        """Whether the file has this source, of whichever tenant."""
        self._reread()
        return source in self._sources

    def with_api(self) -> list[Source]:
        """The sources whose CRM can be asked: they have credentials for its API."""
        self._reread()
        kept = {number: one.source for number, one in self._by_id.items() if not one.problem}
        return [
            source
            for source in {**kept, **self._sources}.values()
            if source.api is not None and (source.api.token or source.api.client_id)
        ]

    async def refresh(self, transaction: Transaction) -> None:
        """Take over what was set by API since the last time."""
        epochs = await store.epochs(transaction)
        if epochs == self._epochs and self._now_us() < self._next_end:
            return
        self._adopt(await store.everything(transaction))
        self._epochs = epochs

    def kept(self, state: SourceState) -> Kept:
        """What a stored source is in this process."""
        problem = ""
        try:
            source = opened(state, in_force(state, self._now()), self.resolver(state.tenant))
        except SecretError as error:
            problem = str(error)
            source = opened(state, [], lambda _: "")
        return Kept(state, source, problem)

    def resolver(self, tenant: str) -> Resolve:
        """How a tenant's stored secrets are looked up."""

        def resolve(stored: str) -> str:
            if stored.startswith(SEALED):
                try:
                    return self.seal.open(stored)
                except SealError as error:
                    raise SecretError(str(error)) from error
            return resolved(_reference(stored, tenant, self._folder))

        return resolve

    def stored(self, plain: str, tenant: str) -> str:
        """How a secret given by API is stored; raises SecretError when it can't be."""
        if is_reference(plain):
            resolved(_reference(plain, tenant, self._folder))
            return plain
        if not plain:
            raise SecretError("a secret is empty")
        if not self.seal.usable:
            raise SecretError(
                "INGEST_SECRETS_KEY is not set, so that a secret can only be a reference: "
                + _places(tenant)
            )
        return self.seal.seal(plain)

    def _adopt(self, states: Iterable[SourceState]) -> None:
        kept = [self.kept(state) for state in states]
        for one in kept:
            if one.problem:
                known = self._kept.get((one.state.tenant, one.state.id))
                if known is None or known.problem != one.problem:
                    log.error("source_not_usable", source=one.state.id, reason=one.problem)
        self._kept = {(one.state.tenant, one.state.id): one for one in kept}
        self._by_id = {one.state.id: one for one in kept if not one.state.deleted}
        telemetry.SOURCES_UNUSABLE.set(sum(1 for one in self._by_id.values() if one.problem))
        now = self._now()
        ends = [
            one.until
            for each in kept
            for one in each.state.secrets
            if one.until is not None and one.until > now
        ]
        self._next_end = int(min(ends).timestamp() * 1_000_000) if ends else 2**63

    def _now(self) -> datetime:
        return values.aware(self._now_us())

    def _reread(self) -> None:
        if self.path is None:
            return
        try:
            changed = self.path.stat().st_mtime_ns
            if changed == self._read_ns:
                return
            self._read_ns = changed  # once per change, whether it can be read or not
            self.load()
        except (OSError, SourcesError) as error:
            telemetry.SOURCES_STALE.set(1)
            log.error("sources_not_read", path=str(self.path), reason=str(error))  # noqa: TRY400
        else:
            telemetry.SOURCES_STALE.set(0)
            log.info("sources_read", count=len(self._sources))


def parse(text: str) -> dict[str, Source]:
    """The sources of a file, by id."""
    try:
        entries = yaml.safe_load(text) or []
    except yaml.YAMLError as error:
        raise SourcesError(f"not YAML: {error}") from error
    if not isinstance(entries, list):
        raise SourcesError("expected a list of sources")
    sources: dict[str, Source] = {}
    for number, entry in enumerate(entries, 1):
        try:
            source = checked(entry, resolved)
        except FaultsError as error:
            raise SourcesError(f"source {number}: {error}") from error
        if source.id in sources:
            raise SourcesError(f"source {number}: the id {source.id!r} is taken")
        sources[source.id] = source
    return sources


def checked(entry: Any, resolve: Resolve) -> Source:
    """The source that this configuration describes, with its secrets; raises FaultsError."""
    faults: list[str] = []
    found = _converted(entry, faults)
    faults += _odd(found)
    vendor = all_vendors().get(found.get("vendor", ""))
    try:
        found = with_secrets(found, resolve)
    except SecretError as error:
        raise FaultsError([*faults, str(error)]) from error
    if vendor is None or not found.keys() >= _REQUIRED:
        raise FaultsError(faults)
    source = Source(**found)
    if vendor.verify is not None and vendor.needs_secrets and not source.secrets:
        faults.append(f"{source.vendor} needs secrets")
    faults += _unused(source, vendor)
    faults += vendor.problems(source)
    if source.mapping:
        faults += [f"mapping: {problem}" for problem in mapping.problems(source.mapping)]
    if faults:
        raise FaultsError(list(dict.fromkeys(faults)))
    return source


def _converted(entry: Any, faults: list[str]) -> dict[str, Any]:
    """The entry's fields by type; what is wrong with them goes to `faults`."""
    if not isinstance(entry, Mapping):
        raise FaultsError(["a source is an object"])
    found: dict[str, Any] = {}
    for name, value in entry.items():
        if name not in _FIELDS:
            faults.append(f"unknown field {name!r:.60}")
            continue
        try:
            found[name] = msgspec.convert(value, _FIELDS[name].type)
        except msgspec.ValidationError as error:
            faults.append(f"{name}: {error}")
    faults += [f"{name} is missing" for name in sorted(_REQUIRED - entry.keys())]
    return found


def _odd(found: Mapping[str, Any]) -> list[str]:
    """What is wrong with values that have the right type."""
    faults: list[str] = []
    if "id" in found:
        number = found["id"]
        # Record ids are "<source>:<vendor id>": the source must leave room and have no colon.
        if not valid_id(number) or ":" in number or len(number) > MAX_SOURCE_ID:
            faults.append(f"id must be up to {MAX_SOURCE_ID} letters, digits, . _ @ -")
    if "tenant" in found and not valid_id(found["tenant"]):
        faults.append("tenant is not an id")
    if 0 < found.get("rate", 0) < MIN_RATE:
        faults.append(f"rate is 0 (not limited) or at least {MIN_RATE} requests per second")
    if found.get("currency") and not _CURRENCY.fullmatch(found["currency"]):
        faults.append(f"currency {found['currency']!r:.60} is not a code such as EUR")
    for name, kind in found.get("types", {}).items():
        try:
            fields.record_type(kind)
        except BadEventError as error:
            faults.append(f"types: {name!r:.60}: {error}")
    if "vendor" in found and found["vendor"] not in all_vendors():
        known = ", ".join(sorted(all_vendors()))
        faults.append(f"vendor {found['vendor']!r:.60} is none of {known}")
    return faults


def _unused(source: Source, vendor: Vendor) -> list[str]:
    """Settings that only other vendors have: whoever made them expects something of them."""
    known = ", ".join(sorted(vendor.settings))
    return [
        f"{name} has no effect for {vendor.name}, which has {known}"
        for name in sorted(_OF_SOME - vendor.settings)
        if getattr(source, name) != getattr(_DEFAULT, name)
    ]


def with_secrets(found: Mapping[str, Any], resolve: Resolve) -> dict[str, Any]:
    """The fields of a source with everything secret in them looked up; raises SecretError."""
    api = found.get("api")
    if api is not None:
        given = {name: getattr(api, name) for name in CREDENTIALS}
        api = msgspec.structs.replace(api, **{n: resolve(v) for n, v in given.items() if v})
    return {
        **found,
        **({"secrets": tuple(map(resolve, found["secrets"]))} if "secrets" in found else {}),
        **({"api": api} if api is not None else {}),
    }


def in_force(state: SourceState, now: datetime) -> list[StoredSecret]:
    """The secrets of a source that are accepted now."""
    return [one for one in state.secrets if one.until is None or one.until > now]


def opened(state: SourceState, secrets: Sequence[StoredSecret], resolve: Resolve) -> Source:
    """A stored source with its secrets; raises SecretError."""
    fields = {
        name: msgspec.convert(value, _FIELDS[name].type)
        for name, value in state.settings.items()
        if name in _FIELDS  # of a later version: not ours to understand
    }
    fields |= {"id": state.id, "tenant": state.tenant, "secrets": [one.value for one in secrets]}
    return Source(**with_secrets(fields, resolve))


def is_reference(secret: str) -> bool:
    """Whether it only says where the secret is."""
    return secret.startswith(("env:", "file:"))


def resolved(secret: str) -> str:
    """The secret itself, as it is written or where it says."""
    scheme, _, rest = secret.partition(":")
    found: str | None = secret
    if scheme == "env":
        found = os.environ.get(rest)
    elif scheme == "file":
        try:
            found = Path(rest).read_text().strip()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "not text"
            raise SecretError(f"secret file: {why}") from error
    if not found:  # an empty secret would accept whoever knows that it is empty
        raise SecretError("a secret is empty or its variable is not set")
    return found


def _reference(stored: str, tenant: str, folder: Path | None) -> str:
    """Where a tenant's reference leads; raises SecretError when it isn't the tenant's."""
    scheme, _, name = stored.partition(":")
    if scheme == "env":
        prefix = f"INGEST_SECRET_{tenant}__"
        if name.startswith(prefix) and _ENV_NAME.fullmatch(name.removeprefix(prefix)):
            return stored
    elif scheme == "file" and folder is not None and _FILE_NAME.fullmatch(name):
        return f"file:{folder / tenant / name}"
    raise SecretError(f"a secret's reference is {_places(tenant)}")


def _places(tenant: str) -> str:
    return (
        f"env:INGEST_SECRET_{tenant}__NAME (NAME in capitals), or file:NAME of a file in the "
        f"folder {tenant} of INGEST_SECRETS_FOLDER"
    )
