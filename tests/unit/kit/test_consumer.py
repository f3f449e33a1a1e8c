"""How what was fetched is divided into what is applied at once."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from kit.consumer import parts


def message(size: int | None) -> Any:
    value = None if size is None else bytes(size)
    fields: dict[str, Any] = dict.fromkeys(ConsumerRecord.__dataclass_fields__)
    return ConsumerRecord(**(fields | {"value": value}))


def size_of(messages: Iterable[Any]) -> int:
    return sum(len(message.value or b"") for message in messages)


@given(st.lists(st.none() | st.integers(0, 40)), st.integers(1, 50))
def test_parts_keep_every_message_in_order_and_have_few_bytes_or_one_message(
    sizes: list[int | None], most: int
) -> None:
    messages = [message(size) for size in sizes]
    found = list(parts(messages, most))

    assert [m for part in found for m in part] == messages
    for part in found:
        assert len(part) > 0
        heavy = [m for m in part if m.value]
        assert len(heavy) <= 1 or size_of(part) <= most
    for part, following in pairwise(found):
        assert size_of([*part, following[0]]) > most
