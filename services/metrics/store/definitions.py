"""Boards and contests of a tenant: the shipped ones with its own, as they are checked now."""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from kit.clock import real_micros
from kit.database import Transaction
from schemas.spm import BoardDocument
from services.metrics.domain import boards
from services.metrics.domain.boards import Boards
from services.metrics.domain.catalogue import Catalogue
from services.metrics.store import counters
from services.metrics.store.context import Context

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Made:
    """What was made of which documents and which catalogue."""

    states: list[BoardDocument]
    catalogue: Catalogue
    boards: Boards


class Definitions:
    """Reads documents once, and again when one of them or the catalogue has changed."""

    def __init__(self, context: Context, shipped: Boards) -> None:
        self._context = context
        self._shipped = shipped
        self._made: dict[str, _Made] = {}

    async def of(self, transaction: Transaction, tenant: str) -> Boards:
        """The tenant's boards and contests; those that make no sense any more are left out."""
        states = await self._context.boards.load(transaction, tenant)
        catalogue = await self._context.catalogue_of(transaction, tenant)
        made = self._made.get(tenant)
        if made is None or made.states is not states or made.catalogue is not catalogue:
            made = _Made(states, catalogue, self._read(tenant, states, catalogue))
            self._made[tenant] = made
        return made.boards

    def shipped(self, kind: str, number: str) -> object:
        """The installation's own board or contest of this id; None when it has none."""
        shipped = self._shipped
        return (shipped.definitions if kind == "board" else shipped.contests).get(number)

    def _read(self, tenant: str, states: Sequence[BoardDocument], catalogue: Catalogue) -> Boards:
        definitions, contests = dict(self._shipped.definitions), dict(self._shipped.contests)
        for state in states:
            if state.deleted or state.kind == "display":
                continue
            if state.kind == "board":
                board, mistakes = boards.read_board(state.document, catalogue)
                if board is not None:
                    definitions[state.id] = board
            else:
                contest, mistakes = boards.read_contest(state.document, catalogue)
                if contest is not None:
                    contests[state.id] = contest
            if mistakes:  # it was right when it was made; the catalogue has changed under it
                said = "; ".join(map(str, mistakes))
                log.warning("board_not_usable", tenant=tenant, id=state.id, mistakes=said)
        return Boards(definitions, contests, self._shipped.published)


async def store_boards(
    transaction: Transaction, context: Context, documents: Sequence[BoardDocument]
) -> None:
    """Keep newer boards and contests; who watches one of the tenant's sees it change."""
    newer = await context.boards.store(transaction, documents)
    await counters.bump(transaction, {document.tenant for document in newer}, real_micros())
