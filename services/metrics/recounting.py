"""Counts the past again after a change of what is counted, in the background.

The topic of records keeps the last state of each, so that reading it once serves every tenant that
waits, without a copy of all records in this store. What is read is applied like a live batch, by
the current catalogue, also where its version has been applied before; a record that changed
meanwhile has been counted by that catalogue already and is left alone. So it may stop at any
instant, run in two replicas or be done twice.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from uuid import uuid4

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from kit.consumer import AroundBatch
from kit.database import Database
from kit.settings import KitSettings
from schemas.crm import Record
from schemas.topics import topic_of
from services.metrics import telemetry
from services.metrics.domain.credits import Change
from services.metrics.handlers import Handler
from services.metrics.store import facts, recounts
from services.metrics.store.context import Context
from services.metrics.store.recounts import Recount

RECOUNT_LOCK = "metrics/recount"
MAX_RECORDS = 1_000  # read at once: a tenth of a second, so that live batches don't wait long
POLL_MS = 500
EVERYTHING = Change(calendar=True, everyone=True, rules=True, owners=frozenset())

log = structlog.get_logger(__name__)


class Recounter:
    """Serves the recounts that are asked for; `share` of its time, the rest is for live batches.

    `room` is around what is applied at once, as it is around live batches.
    """

    def __init__(
        self,
        settings: KitSettings,
        database: Database,
        context: Context,
        handler: Handler,
        *,
        room: AroundBatch,
        share: float,
    ) -> None:
        self._settings = settings
        self._database = database
        self._context = context
        self._handler = handler
        self._room = room
        self._share = share
        self._topic = settings.topic_prefix + topic_of(Record).name

    async def prepare(self) -> None:
        """Ask for what a change of the shipped catalogue or of our own code owes to the past."""
        shipped = self._context.shipped
        async with self._database.transaction() as transaction:
            await transaction.lock(recounts.PREPARE_LOCK)
            layout, types = await recounts.unseen_types(transaction, shipped)
            if not layout and not types:
                return
            for tenant in await facts.tenants(transaction):
                if layout:
                    await self._context.share(transaction, [tenant])
                    await self._handler.credit_again(transaction, tenant, EVERYTHING)
                await recounts.request(
                    transaction, tenant, types, reason="the shipped catalogue has changed"
                )
            await recounts.remember_seen(transaction, shipped)

    async def serve(self) -> None:
        """Read and apply until nothing is owed to the past; a job calls it again and again."""
        if not await self._waiting():
            return
        async with self._reading() as reader:
            while waiting := await self._waiting():
                async with self._room(MAX_RECORDS):
                    began = time.monotonic()
                    if waiting[0].scan:
                        await self._go_on(reader, waiting)
                    else:
                        await self._begin(reader, waiting)
                await asyncio.sleep((time.monotonic() - began) * (1 / self._share - 1))

    async def _waiting(self) -> list[Recount]:
        async with self._database.transaction() as transaction:
            waiting = await recounts.unfinished(transaction)
        telemetry.RECOUNT_LEFT.set(max((r.total - r.done for r in waiting), default=0))
        return waiting

    async def _begin(self, reader: AIOKafkaConsumer, waiting: list[Recount]) -> None:
        partitions = reader.assignment()
        starts = await reader.beginning_offsets(partitions)
        ends = await reader.end_offsets(partitions)
        tenants = [recount.tenant for recount in waiting]
        async with self._database.transaction() as transaction:
            await recounts.begin(
                transaction,
                tenants,
                scan=uuid4().hex,
                starts={tp.partition: offset for tp, offset in starts.items()},
                ends={tp.partition: offset for tp, offset in ends.items()},
            )
        log.info("recount_began", tenants=len(tenants))

    async def _go_on(self, reader: AIOKafkaConsumer, waiting: list[Recount]) -> None:
        scan, ends, former = waiting[0].scan, waiting[0].ends, waiting[0].positions
        for partition, offset in former.items():
            place = _place(self._topic, partition)
            # Another replica or process may have gone on; what lies beyond the end is live.
            if offset < ends[partition] and await reader.position(place) != offset:
                reader.seek(place, offset)
        found = await reader.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS)
        positions = {
            partition: min(ends[partition], await reader.position(_place(self._topic, partition)))
            for partition in former
        }
        wanted = {recount.tenant: recount.types for recount in waiting}
        records = [
            record
            for batch in found.values()
            for message in batch
            if (record := _wanted(message, wanted)) is not None
        ]
        finished = all(positions[partition] >= end for partition, end in ends.items())
        async with self._database.transaction() as transaction:
            if not await transaction.try_lock(RECOUNT_LOCK):
                return  # another replica is at it
            await self._handler.apply_records(transaction, records, again=True)
            await recounts.advance(transaction, scan, former, positions, finished=finished)
        if finished:
            log.info("recount_finished", tenants=len(waiting))

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AIOKafkaConsumer]:
        reader: AIOKafkaConsumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka, enable_auto_commit=False
        )
        try:
            await reader.start()
            reader.assign([_place(self._topic, n) for n in range(topic_of(Record).partitions)])
            yield reader
        finally:
            await reader.stop()


def _place(topic: str, partition: int) -> TopicPartition:
    return TopicPartition(topic, partition)


def _wanted(
    message: "ConsumerRecord[bytes | None, bytes | None]", wanted: Mapping[str, frozenset[str]]
) -> Record | None:
    """The record, if its tenant waits for its type: the key says so without decoding the rest."""
    if message.key is None or message.value is None:
        return None
    tenant, _, rest = message.key.decode(errors="replace").partition("/")
    if rest.partition("/")[0] not in wanted.get(tenant, ()):
        return None
    try:
        return Record.decode(message.value)
    except msgspec.DecodeError:
        return None  # the live consumer has put it aside, and said so
