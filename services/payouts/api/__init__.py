"""HTTP of payouts: plans, statements, findings, the ledger.

Every route asks who is asking; the tenant is always the principal's. Whose statements somebody may
see is `services.access`'s rule, by the hierarchy on the last day of the period that has begun.
"""

from fastapi import APIRouter

from kit.auth import Authenticator
from kit.clock import load
from kit.consumer import Apply
from kit.database import Database
from kit.publisher import Publisher
from services.payouts.api import ledger, plans, statements
from services.payouts.api.shared import Api
from services.payouts.settings import Settings
from services.payouts.store import Configuration


def routes(
    *,
    settings: Settings,
    authenticator: Authenticator,
    database: Database,
    publisher: Publisher,
    configuration: Configuration,
    apply: Apply,
) -> APIRouter:
    """All routes of the service."""
    api = Api(
        settings=settings,
        authenticator=authenticator,
        database=database,
        publisher=publisher,
        configuration=configuration,
        apply=apply,
        clock=load(settings.kit.clock),
    )
    router = APIRouter(prefix="/v1")
    for part in (plans, statements, ledger):
        router.include_router(part.routes(api))
    return router
