"""The door for requests: values, the records behind them, goals and boards.

The tenant always comes from the principal. Who may see what is `services.access`; the records
behind a team's or the organisation's number show other people's deals and need more than the
number itself.
"""

from fastapi import APIRouter

from services.metrics.api import (
    allocation,
    boards,
    contests,
    definitions,
    displays,
    exposition,
    feeds,
    forecasts,
    goals,
    records,
    series,
    subjects,
    values,
)
from services.metrics.api.parts import Parts


def router(parts: Parts) -> APIRouter:
    """All routes under /v1."""
    routes = APIRouter(prefix="/v1")
    for module in (
        values,
        subjects,
        definitions,
        records,
        series,
        exposition,
        forecasts,
        goals,
        allocation,
        boards,
        feeds,
        displays,
        contests,
    ):
        module.add(routes, parts)
    return routes
