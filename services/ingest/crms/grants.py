"""Grants, sealed in the store, for all processes: neither a restart nor a rebuild ends them.

Whoever asks for one is alone with it until it is kept, its question to the CRM included: a refresh
token that is good once is used once. A kill between the CRM's answer and the commit loses it; the
source then says that it needs new credentials, and takes them: a grant only counts for the
credentials that it began with, so that those that are configured anew win.

Without keys to seal with nothing is stored, and each process has grants of its own.
"""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import structlog

from kit.database import Database, Transaction
from services.ingest.crms.transport import ANSWER_SECONDS, Grant, Place, UnavailableError
from services.ingest.domain.sealing import Seal, SealError
from services.ingest.domain.sources import Api, Source
from services.ingest.store import grants

log = structlog.get_logger(__name__)

CUT_OFF_SECONDS = 1.5 * ANSWER_SECONDS  # a machine that is gone keeps nobody waiting for longer

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Grant).decode


class Grants:
    """The places of all sources' grants."""

    def __init__(self, database: Database, seal: Seal) -> None:
        self._database = database
        self._seal = seal
        self._told: set[tuple[str, str]] = set()  # of which it is known that nothing is kept

    @asynccontextmanager
    async def of(self, source: Source) -> AsyncIterator[Place]:
        """The place of one source's grant, alone among all processes."""
        if not self._seal.usable:
            place = Place()
            yield place
            self._tell(source, place.grant)
            return
        # It is open for as long as the CRM takes to answer, once in a token's life, and in as many
        # connections as there are sources that a process asks side by side.
        async with self._database.transaction() as transaction:
            await grants.alone(transaction, source.tenant, source.id, seconds=CUT_OFF_SECONDS)
            sealed = _Sealed(source, self._seal, transaction)
            await sealed.look()
            yield sealed

    def _tell(self, source: Source, grant: Grant | None) -> None:
        """Say once that a refresh token that the CRM has replaced isn't kept."""
        key = (source.tenant, source.id)
        assert source.api is not None
        if grant is None or grant.refresh_token == source.api.refresh_token or key in self._told:
            return
        self._told.add(key)
        log.warning(
            "refresh_token_not_kept",
            source=source.id,
            reason="the CRM has replaced it, and without INGEST_SECRETS_KEY the new one ends with "
            "this process: set the key, and then configure a new refresh_token",
        )


class _Sealed(Place):
    def __init__(self, source: Source, seal: Seal, transaction: Transaction) -> None:
        super().__init__()
        assert source.api is not None
        self._key = (source.tenant, source.id, _digest(source.api))
        self._seal = seal
        self._transaction = transaction

    async def look(self) -> None:
        """See what is there."""
        sealed = await grants.find(self._transaction, *self._key)
        if not sealed:
            return
        try:
            self.grant = _decode(self._seal.open(sealed))
        except SealError as error:
            raise UnavailableError(
                f"the refresh token that the CRM gave last can't be opened: {error}. Put the key "
                "back, or configure a new refresh_token in the source's api"
            ) from error

    async def keep(self, grant: Grant) -> None:
        sealed = self._seal.seal(_encode(grant).decode())
        await grants.keep(self._transaction, *self._key, sealed)
        await super().keep(grant)


def _digest(api: Api) -> str:
    """Tells configured credentials apart. A client's secret may change while its tokens last."""
    parts = (api.url, api.token_url, api.client_id, api.refresh_token)
    return hashlib.sha256(_encode(parts)).hexdigest()
