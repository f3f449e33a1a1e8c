"""The CRMs as configured: the sources file, re-read when it changes, with its secrets resolved.

A secret is written as it is, or better as `env:NAME` or `file:PATH`. A file that has become
unreadable leaves the last good configuration in force and says so; at the start it ends the
process.
"""

import os
from pathlib import Path
from typing import Any

import msgspec
import structlog
import yaml

from schemas.base import valid_id
from services.ingest import telemetry
from services.ingest.domain.sources import Source

MAX_SOURCE_ID = 40  # characters, so that a record's id has room for the vendor's

log = structlog.get_logger(__name__)


class SourcesError(ValueError):
    """What is wrong with the sources file, and in which source."""


class Sources:
    """The configured sources, by id."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._read_ns = 0
        self._sources: dict[str, Source] = {}

    def load(self) -> None:
        """Read the file; raises SourcesError or OSError."""
        if self._path is not None:
            changed = self._path.stat().st_mtime_ns
            self._sources = parse(self._path.read_text())
            self._read_ns = changed

    def get(self, source: str) -> Source | None:
        """The source as configured now."""
        self._refresh()
        return self._sources.get(source)

    def _refresh(self) -> None:
        if self._path is None:
            return
        try:
            changed = self._path.stat().st_mtime_ns
            if changed == self._read_ns:
                return
            self._read_ns = changed  # once per change, whether it can be read or not
            self.load()
        except (OSError, SourcesError) as error:
            telemetry.SOURCES_STALE.set(1)
            log.error("sources_not_read", path=str(self._path), reason=str(error))  # noqa: TRY400
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
        source = _source(entry, number)
        if source.id in sources:
            raise SourcesError(f"source {number}: the id {source.id!r} is taken")
        sources[source.id] = source
    return sources


def _source(entry: Any, number: int) -> Source:
    try:
        source = msgspec.convert(entry, Source)
    except msgspec.ValidationError as error:
        raise SourcesError(f"source {number}: {error}") from error
    # Record ids are "<source>:<vendor id>", so the source must leave room and have no colon.
    if not valid_id(source.id) or ":" in source.id or len(source.id) > MAX_SOURCE_ID:
        raise SourcesError(
            f"source {number}: id must be up to {MAX_SOURCE_ID} letters, digits, . _ @ -"
        )
    if not valid_id(source.tenant):
        raise SourcesError(f"source {number}: tenant is not an id")
    if source.vendor != "cloudevents" and not source.secrets:
        raise SourcesError(f"source {number}: {source.vendor} needs secrets")
    if source.vendor == "pipedrive" and not source.username:
        raise SourcesError(f"source {number}: pipedrive needs a username")
    secrets = tuple(_resolved(secret, number) for secret in source.secrets)
    return msgspec.structs.replace(source, secrets=secrets)


def _resolved(secret: str, number: int) -> str:
    scheme, _, rest = secret.partition(":")
    found: str | None = secret
    if scheme == "env":
        found = os.environ.get(rest)
    elif scheme == "file":
        try:
            found = Path(rest).read_text().strip()
        except OSError as error:
            raise SourcesError(f"source {number}: secret file: {error.strerror}") from error
    if not found:  # an empty secret would accept whoever knows that it is empty
        raise SourcesError(f"source {number}: a secret is empty or its variable is not set")
    return found
