"""Dead letters as the messages that they were."""

from aiokafka import ConsumerRecord

from kit.consumer import Raw
from kit.rebuild import _as_original


def a_letter(*headers: tuple[str, bytes]) -> Raw:
    return ConsumerRecord("t.metrics.dead.v1", 0, 9, 1, 0, b"k", b"v", None, 1, 1, headers)


def test_a_dead_letter_is_replayed_under_the_place_it_came_from() -> None:
    original = _as_original(a_letter(("dead.source", b"t/3/77"), ("x", b"1")), "prefix.t")

    assert (original.topic, original.partition, original.offset) == ("prefix.t", 3, 77)
    assert (original.key, original.value) == (b"k", b"v")


def test_one_without_its_place_keeps_its_own() -> None:
    original = _as_original(a_letter(), "t")

    assert (original.topic, original.partition, original.offset) == ("t", 0, 9)
