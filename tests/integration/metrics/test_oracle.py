"""Random histories against an oracle that shares nothing with the service: plain SQL."""

import random
from datetime import date, timedelta
from typing import Any

import msgspec
import pytest

from schemas.base import State
from schemas.crm import Field, Record
from schemas.directory import Assignment, Organisation, Role, Territory
from tests.integration.metrics.world import World, a_history, member, owner, person
from tests.support import TENANT, a_record, instant

OCTOBER = date(2026, 10, 1)
OCTOBER_US = int(instant("2026-10-01T00:00").timestamp()) * 1_000_000


def a_hard_history(seed: int) -> list[State]:
    """On top of the usual trouble: shares, territories, roles, close dates that slip."""
    dice = random.Random(seed)
    history = a_history(seed)

    def some_day() -> date:
        return OCTOBER + timedelta(days=dice.randrange(60))

    for number in (1, 2):
        for version in (1, 2):
            history += [
                Territory(
                    tenant=TENANT,
                    version=version,
                    id=f"t{number}",
                    name=f"Territory {number}",
                    parent=dice.choice(["", "world", "t1", "t2"]),
                    where={"region": dice.choice([["east"], ["west", "east"], ["north"]])},
                    rank=dice.choice([0, 1]),
                    valid_from=dice.choice([None, some_day()]),
                    deleted=dice.random() < 0.2,
                ),
                Assignment(
                    tenant=TENANT,
                    version=version,
                    id=f"a{number}",
                    person=dice.choice(["p1", "p2"]),
                    territory=dice.choice(["t1", "t2", "world"]),
                    valid_to=dice.choice([None, some_day()]),
                ),
                Role(
                    tenant=TENANT,
                    version=version,
                    id=f"r{number}",
                    person=f"p{number}",
                    role=dice.choice(["closer", "hunter"]),
                    valid_from=some_day(),
                ),
            ]
    history.append(Territory(tenant=TENANT, version=1, id="world", name="World"))
    history += [
        person(1, version=3, role="lead"),
        member(1, "south", version=4),
        owner(4, version=5),
    ]
    harder: list[State] = []
    for state in history:
        if isinstance(state, Record) and state.type == "opportunity":
            fields: dict[str, Any] = {n: field.value for n, field in state.fields.items()}
            fields["region"] = dice.choice(["east", "west", "north", None])
            if dice.random() < 0.4:
                fields["shares"] = dice.choice(
                    ["1=60;2=40", "3=33.3;1=33.3;2=33.4", "1=50;9=50", "1=50;2=60", "2=100", "oh"]
                )
            record = a_record(
                state.type, state.id, version=state.version, deleted=state.deleted, **fields
            )
            harder.append(_expecting(dice, record))
        else:
            harder.append(state)
    return harder


def _expecting(dice: random.Random, record: Record) -> Record:
    """The record with what its expected close date was, now and then none, and what it is."""
    moved = sorted(dice.sample(range(60 * 24 * 60), dice.randrange(5)))
    if not moved:
        return record
    told = [
        Field("cleared", None, at, "e")
        if dice.random() < 0.2
        else Field("value", f"2027-0{dice.randint(1, 2)}-15T{dice.choice((3, 23)):02}:00Z", at, "e")
        for at in (OCTOBER_US + minute * 60_000_000 for minute in moved)
    ]
    fields = record.fields | {"expected_close": told[-1]}
    return msgspec.structs.replace(record, fields=fields, expected_before=told[:-1])


@pytest.mark.parametrize("seed", range(12))
async def test_any_order_of_any_history_gives_what_sql_says(world: World, seed: int) -> None:
    history = a_hard_history(seed)
    sent = [*history, *random.Random(seed).sample(history, len(history) // 3)]  # some twice
    random.Random(seed + 1).shuffle(sent)

    while sent:
        size = random.Random(len(sent)).randint(1, 40)
        await world.patiently(*sent[:size])
        del sent[:size]
        if len(sent) % 3 == 0:
            await world.job("fold")
    await world.recounted(history)

    assert await world.numbers() == await world.expected(history)


def test_the_oracle_knows_the_history_has_everything_in_it() -> None:
    states = [state for seed in range(12) for state in a_hard_history(seed)]

    assert {type(s) for s in states} >= {Record, Organisation, Territory, Assignment, Role}
    assert any(isinstance(s, Record) and s.expected_before for s in states)
    assert any(b"shares" in msgspec.json.encode(s) for s in states if isinstance(s, Record))
