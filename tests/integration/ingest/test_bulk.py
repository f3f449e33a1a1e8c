"""Imports on real Kafka and PostgreSQL: nothing twice, nothing lost, a dry run writes nothing."""

import asyncio
import io
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from rich.console import Console

from kit.consumer import group_of
from kit.database import Database
from schemas.base import State
from schemas.crm import Backfilled, Record
from schemas.topics import BY_NAME
from services.ingest.app import MIGRATIONS
from services.ingest.bulk import checkpoint, rows
from services.ingest.bulk.command import Options, Parts, main
from services.ingest.bulk.messages import Cutter, Import, document, encoded
from services.ingest.gateway import Sources
from services.ingest.settings import Settings
from tests.integration.ingest.conftest import Ingest, NewDatabase, running
from tests.integration.ingest.test_apply import Store, a_store
from tests.support import TENANT, bearer
from tests.unit.ingest.bodies import APP, RECEIVED_US, cloud, received

MAPPING = """
rules:
  - type: opportunity
    id: Id
    fields: {name: Name, amount: Amount, currency: Currency}
"""
STRUCTURED = {"content-type": "application/cloudevents+json"}

MakeSettings = Callable[[], Awaitable[tuple[Settings, str]]]


@pytest.fixture
async def ingest_store(new_database: NewDatabase, tmp_path: Path) -> AsyncIterator[Store]:
    async with a_store(await new_database(), tmp_path) as found:
        yield found


def a_table(folder: Path, count: int, *, bad: Sequence[int] = ()) -> Path:
    """A table of so many deals; the amounts of the bad ones are no numbers."""
    path = folder / "deals.csv"
    lines = [f"{n},Deal {n},{'a lot' if n in bad else n},EUR" for n in range(count)]
    path.write_text("\n".join(["Id,Name,Amount,Currency", *lines, ""]))
    return path


def a_mapping(folder: Path, text: str = MAPPING) -> Path:
    path = folder / "deals.yaml"
    path.write_text(text)
    return path


def options(path: Path | str, folder: Path, **more: Any) -> Options:
    return Options(what=str(path), source="app", mapping=a_mapping(folder), **more)


async def command(settings: Settings, asked: Options) -> tuple[int, str]:
    """The exit code, and what was printed."""
    assert settings.sources is not None
    printed = io.StringIO()
    parts = Parts(
        kit=settings.kit,
        database=Database(settings.database, migrations=MIGRATIONS),
        sources=Sources(settings.sources),
        console=Console(file=printed, width=200),
    )
    code = await asyncio.to_thread(main, asked, parts)
    return code, printed.getvalue()


async def query(settings: Settings, sql: str) -> Any:
    connection = await asyncpg.connect(settings.database)
    try:
        return await connection.fetchrow(sql)
    finally:
        await connection.close()


async def eventually(settings: Settings, sql: str, expected: tuple[Any, ...]) -> None:
    deadline = time.monotonic() + 60
    while tuple(found := await query(settings, sql)) != expected:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.1)


def partitions(settings: Settings) -> list[TopicPartition]:
    """The backfill lane's."""
    name = settings.kit.topic_prefix + Backfilled.topic
    return [TopicPartition(name, number) for number in range(BY_NAME[Backfilled.topic].partitions)]


async def on_topic(settings: Settings) -> int:
    """How many messages the lane has."""
    reader: AIOKafkaConsumer = AIOKafkaConsumer(bootstrap_servers=settings.kit.kafka)
    await reader.start()
    try:
        return sum((await reader.end_offsets(partitions(settings))).values())
    finally:
        await reader.stop()


# Every row's event has the row's name, so that these count rows and not messages.
EVENTS = "SELECT count(*), count(DISTINCT vendor_event), count(DISTINCT id) FROM event"


async def test_any_cut_order_and_repetition_gives_the_same_records(
    ingest_store: Store, tmp_path: Path
) -> None:
    chance = random.Random(5)
    lines = [f"{chance.randint(1, 40)},Deal {n},{n},EUR" for n in range(400)]  # many of a record
    path = tmp_path / "deals.csv"
    path.write_text("\n".join(["Id,Name,Amount,Currency", *lines]))
    found = list(rows.opened(path).rows())
    what = Import(
        name="deals", source=APP, mapping=encoded(document(MAPPING)), at=RECEIVED_US - 5_000_000
    )
    late = received(APP, cloud(number="late", id="7", name="By hand"), headers=STRUCTURED)
    sums = set()
    for size in (500, 1, 7, 64, 399, 500):
        await ingest_store.empty()
        cutter = Cutter(max_rows=size)
        batches = [full for row in found if (full := cutter.add(row))] + [cutter.rest()]
        messages: list[State] = [what.message(one, began=RECEIVED_US) for one in batches]
        messages = [*messages, *chance.choices(messages, k=len(messages) // 3), late]
        chance.shuffle(messages)
        while messages:
            some, messages = messages[:50], messages[50:]
            await ingest_store.apply(*{one.key: one for one in some}.values())
        sums.add(await ingest_store.checksum())

    assert len(sums) == 1


async def test_what_the_crm_has_said_since_then_stays(ingest_store: Store) -> None:
    what = Import(
        name="deals", source=APP, mapping=encoded(document(MAPPING)), at=RECEIVED_US - 5_000_000
    )
    data = {"Id": 1001, "Name": "Imported", "Amount": "5"}
    row = rows.json_row(1, json.dumps(data).encode())
    named = cloud(name="Newer", time="2026-01-15T17:59:59Z") | {"time": "2026-01-15T17:59:59Z"}

    await ingest_store.apply(received(APP, named, headers=STRUCTURED))
    (record,) = await ingest_store.apply(what.message([row], began=RECEIVED_US))

    assert isinstance(record, Record)
    assert (record.get("name"), record.get("amount")) == ("Newer", "5")
    assert record.vendor == "cloudevents"
    assert record.received_at is None


async def test_an_import_that_was_killed_goes_on_and_every_row_is_there_once(
    ingest_settings: MakeSettings, tmp_path: Path
) -> None:
    settings, key = await ingest_settings()
    count = 6000
    path, mapping = a_table(tmp_path, count, bad=[7, 5999]), a_mapping(tmp_path)
    saved = checkpoint.path_of(path, "deals.csv", default=True)
    async with running(settings, key) as ingest:
        process = await _started(settings, path, mapping, "--rate", "4000")
        deadline = time.monotonic() + 60
        while (state := checkpoint.load(saved)) is None or state.rows < 1500:
            assert time.monotonic() < deadline
            assert process.returncode is None
            await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
        state = checkpoint.load(saved)
        assert state is not None
        assert 1500 <= state.rows < count
        assert not state.finished
        # As if it had been killed after Kafka's answer and before that was written down.
        checkpoint.save(saved, msgspec.structs.replace(state, rows=state.rows - 500))

        code, said = await command(settings, options(path, tmp_path))
        assert code == 0, said
        assert f"imported {count - state.rows + 500} rows" in said.replace("\n", " ")
        await eventually(settings, EVENTS, (count - 2, count - 2, count - 2))

        code, said = await command(settings, options(path, tmp_path))
        assert (code, "nothing to do" in said) == (0, True)
        code, said = await command(settings, options(path, tmp_path, again=True))
        assert (code, f"imported {count} rows" in said) == (0, True)
        await idle(settings)

        assert tuple(await query(settings, EVENTS)) == (count - 2, count - 2, count - 2)
        assert tuple(await query(settings, "SELECT count(*) FROM record")) == (count - 2,)
        ops = bearer("ops")
        page = (await ingest.client.get("/v1/quarantine?source=app", headers=ops)).json()
        reasons = [item["reason"] for item in page["items"]]
        assert [reason.partition(":")[0] for reason in reasons] == [
            "deals.csv#9",
            "deals.csv#6001",
        ]

        path.write_text(path.read_text() + "1,One more,1,EUR\n")
        code, said = await command(settings, options(path, tmp_path))
        assert (code, "The file is not what" in said) == (2, True)


async def _started(settings: Settings, path: Path, mapping: Path, *more: str) -> Any:
    """The command in a process of its own."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services", "import", str(path), "--source", "app"),
        *("--mapping", str(mapping), *more),
        env=os.environ
        | {
            "PACESETTER_KAFKA": settings.kit.kafka,
            "PACESETTER_TOPIC_PREFIX": settings.kit.topic_prefix,
            "INGEST_DATABASE": settings.database,
            "INGEST_SOURCES": str(settings.sources),
        },
        stdout=asyncio.subprocess.DEVNULL,
    )


async def idle(settings: Settings) -> None:
    """Return when the lane has been read to its end."""
    group = group_of(settings.kit, "ingest", BY_NAME[Backfilled.topic].lane)
    reader: AIOKafkaConsumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kit.kafka, group_id=group, enable_auto_commit=False
    )
    await reader.start()
    try:
        deadline = time.monotonic() + 60
        for tp, end in (await reader.end_offsets(partitions(settings))).items():
            while end and (await reader.committed(tp) or 0) < end:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
    finally:
        await reader.stop()


async def test_a_dry_run_says_what_would_change_and_writes_nothing(
    ingest_settings: MakeSettings, tmp_path: Path
) -> None:
    settings, key = await ingest_settings()
    path = a_table(tmp_path, 40, bad=[3])
    async with running(settings, key) as ingest:
        for number, name in (("1", "Deal 1"), ("2", "Another")):
            event = cloud(number=f"e{number}", id=number, name=name, amount=number, currency="EUR")
            answer = await ingest.client.post(
                "/v1/sources/app/events",
                content=json.dumps(event),
                headers=STRUCTURED | {"x-api-key": ingest.key},
            )
            assert answer.status_code == 202
        await eventually(settings, "SELECT count(*) FROM record", (2,))
        before = await ingest.service.checksum()
        messages = await on_topic(settings)

        code, said = await command(settings, options(path, tmp_path, dry_run=True))

        assert code == 1
        cells = [cell.strip() for line in said.splitlines() for cell in line.split("│")]
        at = cells.index("opportunity")
        assert cells[at + 1 : at + 4] == ["37", "1", "1"]  # new, changed, unchanged
        assert cells[at + 4] == "name 1"
        at = cells.index("opportunity app:2")
        assert cells[at + 1 : at + 4] == ["name", "Another", "Deal 2"]
        assert "40 rows" in said
        assert "deals.csv#5: " in said
        assert await ingest.service.checksum() == before
        assert await on_topic(settings) == messages
        assert checkpoint.load(checkpoint.path_of(path, "deals.csv", default=True)) is None

        code, _ = await command(
            settings, options(path, tmp_path, dry_run=True, allow_unreadable=True)
        )
        assert code == 0


async def test_a_topic_is_imported_to_its_end_and_then_what_is_added(
    ingest_settings: MakeSettings, tmp_path: Path
) -> None:
    settings, key = await ingest_settings()
    name = f"{settings.kit.topic_prefix}crm-dump"
    await _create(settings, name)
    producer = AIOKafkaProducer(bootstrap_servers=settings.kit.kafka)
    await producer.start()

    async def send(first: int, count: int) -> None:
        for number in range(first, first + count):
            value = json.dumps({"Id": number, "Name": f"Deal {number}"}).encode()
            await producer.send(name, value, key=str(number).encode())
        await producer.flush()

    try:
        async with running(settings, key):
            await send(0, 700)
            await producer.send_and_wait(name, b"nonsense")
            asked = options(f"kafka:{name}", tmp_path)

            code, said = await command(settings, options(asked.what, tmp_path, dry_run=True))
            assert (code, "701 rows" in said) == (1, True)
            assert "not a JSON object" in said, said
            code, said = await command(settings, asked)
            assert (code, "imported 701 rows" in said) == (0, True), said
            code, said = await command(settings, asked)
            assert (code, "nothing to do" in said) == (0, True), said
            await send(700, 50)
            code, said = await command(settings, asked)
            assert (code, "imported 50 rows" in said) == (0, True), said
            await eventually(settings, EVENTS, (750, 750, 750))

            a_mapping(tmp_path, MAPPING.replace("Name", "Title"))
            changed = Options(what=asked.what, source="app", mapping=tmp_path / "deals.yaml")
            code, said = await command(settings, changed)
            assert (code, "is not what this import began with" in said) == (2, True), said

            code, said = await command(settings, options(asked.what, tmp_path, again=True))
            assert (code, "imported 751 rows" in said) == (0, True), said
            await idle(settings)
            assert (await query(settings, "SELECT count(DISTINCT vendor_event) FROM event"))[0] == (
                750
            )
    finally:
        await producer.stop()


async def _create(settings: Settings, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kit.kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, num_partitions=3, replication_factor=1)])
    finally:
        await admin.close()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"source": "nowhere"}, "neither in the sources file"),
        ({"name": "a/b"}, "a name is up to"),
        ({"at": "2199-01-01"}, "in the future"),
        ({"at": "soon"}, "not an instant"),
        ({"what": "kafka:no-such-topic"}, "no topic 'no-such-topic'"),
        ({"what": "/nowhere/deals.csv"}, "No such file"),
    ],
)
async def test_what_makes_no_sense_is_refused_in_words(
    ingest_settings: MakeSettings, tmp_path: Path, asked: dict[str, Any], words: str
) -> None:
    settings, key = await ingest_settings()
    path = a_table(tmp_path, 1)
    async with running(settings, key):
        code, said = await command(settings, replace(options(path, tmp_path), **asked))

    assert code == 2
    assert words in said.replace("\n", " ")


async def test_a_request_can_not_say_how_it_is_to_be_read(ingest: Ingest) -> None:
    answer = await ingest.client.post(
        "/v1/sources/app/events",
        content=json.dumps(cloud(name="One")),
        headers=STRUCTURED
        | {"x-api-key": ingest.key, "pacesetter-mapping": "{}", "pacesetter-at": "1"},
    )
    assert answer.status_code == 202

    records = await ingest.published(Record, lambda found: len(found) == 1)
    assert records[f"{TENANT}/opportunity/app:1001"].get("name") == "One"
