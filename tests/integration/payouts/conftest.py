"""A payouts store of the test's own."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.integration.payouts.world import World, a_world


@pytest.fixture
async def world(new_database: Callable[[], Any]) -> AsyncIterator[World]:
    async with a_world(await new_database()) as made:
        yield made
