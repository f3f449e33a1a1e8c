import json
from collections import Counter
from datetime import date
from itertools import pairwise

import pytest

from simulator.days import Change, play
from simulator.delivery import Delivery, deliver
from simulator.player import end_of_play, real_time_of, time_map

START = date(2026, 11, 9)
END = end_of_play(START, 2)


@pytest.fixture(scope="module")
def changes() -> list[Change]:
    return list(play(5, START, 2))


@pytest.fixture(scope="module")
def deliveries(changes: list[Change]) -> list[Delivery]:
    return list(deliver(changes, 5, END))


def test_the_same_seed_delivers_the_same(changes: list[Change], deliveries: list[Delivery]) -> None:
    assert list(deliver(changes, 5, END)) == deliveries


def test_deliveries_come_in_order_before_the_end_and_never_before_their_change(
    deliveries: list[Delivery],
) -> None:
    assert all(before.at <= after.at for before, after in pairwise(deliveries))
    assert deliveries[-1].at <= END
    assert all(d.at >= part.change.at for d in deliveries for part in d.parts)


def test_nothing_is_lost_and_every_part_is_sent_first_once(
    changes: list[Change], deliveries: list[Delivery]
) -> None:
    parts = Counter(
        (part.change.record, part.change.at, part.of)
        for delivery in deliveries
        if not delivery.repeated
        for part in delivery.parts
    )

    assert {(record, at) for record, at, _ in parts} == {(c.record, c.at) for c in changes}
    assert all(count == of for (_, _, of), count in parts.items())


def test_some_come_twice_some_late_and_some_out_of_order(deliveries: list[Delivery]) -> None:
    share = len(deliveries) / 100
    order = [part.change.at for d in deliveries if not d.repeated for part in d.parts]

    assert 1 * share < sum(d.repeated for d in deliveries) < 6 * share
    assert 2 * share < sum(d.late for d in deliveries) < 7 * share
    assert order != sorted(order)


def test_a_repeated_request_is_the_same_but_for_its_attempt(deliveries: list[Delivery]) -> None:
    def bare(delivery: Delivery) -> str:
        body = json.loads(delivery.request.body)
        for event in body if isinstance(body, list) else [body]:
            event.pop("attemptNumber", None)
            event.get("meta", {}).pop("attempt", None)
        return json.dumps(body, sort_keys=True)

    first = {bare(delivery) for delivery in deliveries if not delivery.repeated}
    again = [bare(delivery) for delivery in deliveries if delivery.repeated]

    assert again
    assert set(again) <= first


def test_business_time_never_goes_back_skips_nights_and_stops_after_the_last_day() -> None:
    points = time_map(START, 6, real_start=1000.0, day_seconds=20.0)

    assert points == sorted(points)
    assert all(a[1] < b[1] for a, b in pairwise(points))
    assert points[-1][1] - points[-2][1] == 1.0
    assert points[-1][0] - points[-2][0] > 86_400


def test_a_business_moment_has_its_real_time() -> None:
    points = time_map(START, 2, real_start=1000.0, day_seconds=20.0)
    (_, opens), (_, closes), (_, next_morning) = points[:3]

    assert real_time_of(points, opens - 1e6) == 0.0
    assert real_time_of(points, (opens + closes) / 2) == pytest.approx(1010.0)
    assert 1020.0 < real_time_of(points, next_morning - 60) <= 1020.05
