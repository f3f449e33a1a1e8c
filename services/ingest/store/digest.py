"""The checksum over what is derived from the topics."""

import hashlib

import msgspec

from kit.database import Transaction
from schemas.crm import Record
from services.ingest.domain import merge


async def checksum(transaction: Transaction) -> str:
    """Digest what is derived: records without versions and provenance, quarantine, directory."""
    digest = hashlib.sha256()
    async for row in transaction.driver.cursor(
        'SELECT body FROM record ORDER BY tenant COLLATE "C", type COLLATE "C", id COLLATE "C"'
    ):
        digest.update(_derived(Record.decode(row[0])))
    async for row in transaction.driver.cursor(
        """
        SELECT tenant, received, index, source, vendor, reason, raw FROM quarantine
        ORDER BY tenant COLLATE "C", received COLLATE "C", index
        """
    ):
        digest.update(msgspec.json.encode(list(row)))
    async for row in transaction.driver.cursor(
        'SELECT tenant, topic, key, body FROM replica ORDER BY tenant, topic, key COLLATE "C"'
    ):
        digest.update(msgspec.json.encode(list(row)))
    return digest.hexdigest()


def _derived(record: Record) -> bytes:
    known = merge.recorded(record)
    known = msgspec.structs.replace(known, fields=dict(sorted(known.fields.items())))
    return msgspec.json.encode([record.tenant, record.type, record.id, record.source, known])
