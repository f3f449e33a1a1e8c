"""Each message of Dataverse → which records it is about and what it says of their columns."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from services.ingest.domain import values
from services.ingest.domain.facts import BadEventError, Merge, Op
from services.ingest.domain.vendors.dynamics.context import (
    Context,
    Reference,
    State,
    attributes,
    plain,
    reference,
    row_version,
)

MAX_ENTITIES = 1000
NOBODY = "00000000-0000-0000-0000-000000000000"


class Message:
    """A context with its parameters by name."""

    def __init__(self, context: Context, source: str) -> None:
        self.context = context
        self.parameters = {one.key: one.value for one in context.input_parameters or ()}
        self._source = source

    def primary(self) -> tuple[str, str]:
        """The table and id of the record that the message is about."""
        name, number = self.context.primary_entity_name, self.context.primary_entity_id
        if not name or not number or number == NOBODY:
            raise BadEventError("PrimaryEntityName or PrimaryEntityId is missing")
        return name, number

    def named(self, parameter: str) -> tuple[str, str]:
        """The record that a parameter refers to; the primary one, where it doesn't."""
        found = reference(self.parameters.get(parameter))
        return self.primary() if found is None else (found.kind, found.id)

    def unseen(self) -> "Change":
        """That something happened to the primary record; to all of the table, if there is none."""
        name, number = self.context.primary_entity_name, self.context.primary_entity_id
        if not name:
            raise BadEventError("PrimaryEntityName is missing")
        if not number or number == NOBODY:
            return Change(name, "", "overflow")
        return Change(name, number, "gap")

    def record_id(self, number: str) -> str:
        """Our id of a record; theirs compare without case."""
        return values.record_id(self._source, number.lower())


class Change(msgspec.Struct, frozen=True):
    """What one message says about one record."""

    entity: str
    id: str
    op: Op
    said: State = {}  # columns or parameters, as they came
    means: State | None = None  # what that means in columns, where it is none itself
    merge: Merge | None = None
    linked: tuple[Reference, ...] = ()
    row: str = ""  # the row's version, which only grows

    @property
    def columns(self) -> State:
        """The columns that have changed."""
        return self.said if self.means is None else self.means


def _create(message: Message) -> list[Change]:
    return _targets(message, "created")


def _update(message: Message) -> list[Change]:
    return _targets(message, "updated")


def _targets(message: Message, op: Op) -> list[Change]:
    """One record, or those of CreateMultiple and UpdateMultiple."""
    many = message.parameters.get("Targets")
    entities = many.get("Entities") if isinstance(many, dict) else None
    if isinstance(entities, list):
        if len(entities) > MAX_ENTITIES:
            raise BadEventError(f"{len(entities)} records; at most {MAX_ENTITIES} are taken")
        return [_entity_change(one, op) for one in entities]
    target = message.parameters.get("Target")
    name, number = message.primary()
    state = attributes(target)
    return [Change(name, number, op, state, row=row_version(target))]


def _entity_change(entity: object, op: Op) -> Change:
    found = reference(entity)
    if found is None:
        raise BadEventError("a record of Targets lacks LogicalName or Id")
    return Change(found.kind, found.id, op, attributes(entity), row=row_version(entity))


def _delete(message: Message) -> list[Change]:
    return [Change(*message.named("Target"), "deleted")]


def _restore(message: Message) -> list[Change]:
    name, number = message.primary()
    return [Change(name, number, "restored", attributes(message.parameters.get("Target")))]


def _assign(message: Message) -> list[Change]:
    name, number = message.named("Target")
    owner = message.parameters.get("Assignee")
    if reference(owner) is None:
        raise BadEventError("Assign has no Assignee")
    return [Change(name, number, "updated", {"Assignee": owner}, {"ownerid": owner})]


def _set_state(message: Message) -> list[Change]:
    name, number = message.named("EntityMoniker")
    state = message.parameters.get("State")
    if not isinstance(plain(state), int):
        raise BadEventError("SetState has no State")
    return [Change(name, number, "updated", {"State": state}, {"statecode": state})]


def _close(message: Message, state: int) -> list[Change]:
    """Win and Lose: the closing is an activity that names its opportunity."""
    close = attributes(message.parameters.get("OpportunityClose"))
    deal = reference(close.get("opportunityid"))
    number = deal.id if deal is not None else message.primary()[1]
    means: State = {"statecode": state}
    for name, column in (("actualend", "actualclosedate"), ("actualrevenue", "actualvalue")):
        if not values.empty(close.get(name)):
            means[column] = close[name]
    return [Change("opportunity", number, "updated", close, means)]


def _win(message: Message) -> list[Change]:
    return _close(message, 1)


def _lose(message: Message) -> list[Change]:
    return _close(message, 2)


def _merge(message: Message) -> list[Change]:
    """The subordinate is gone, not lost; the target takes on what UpdateContent has."""
    name, number = message.named("Target")
    subordinate = message.parameters.get("SubordinateId")
    if not isinstance(subordinate, str) or not subordinate:
        raise BadEventError("Merge has no SubordinateId")
    kept, gone = message.record_id(number), message.record_id(subordinate)
    state = attributes(message.parameters.get("UpdateContent"))
    return [
        Change(name, number, "updated", state, merge=Merge("survivor", kept, (gone,))),
        Change(name, subordinate, "merged", merge=Merge("merged", kept, (gone,))),
    ]


def _qualify(message: Message) -> list[Change]:
    name, number = message.named("LeadId")
    return [Change(name, number, "converted", means={"statecode": 1})]


def _associate(message: Message) -> list[Change]:
    return _links(message, "linked")


def _disassociate(message: Message) -> list[Change]:
    return _links(message, "unlinked")


def _links(message: Message, op: Op) -> list[Change]:
    name, number = message.named("Target")
    given = message.parameters.get("RelatedEntities")
    others = [reference(one) for one in given] if isinstance(given, list) else []
    linked = tuple(one for one in others[:MAX_ENTITIES] if one is not None)
    if not linked:
        raise BadEventError("RelatedEntities names no record")
    return [Change(name, number, op, linked=linked)]


READERS: Mapping[str, Callable[[Message], Sequence[Change]]] = {
    "Create": _create,
    "CreateMultiple": _create,
    "Update": _update,
    "UpdateMultiple": _update,
    "Delete": _delete,
    "Restore": _restore,
    "Assign": _assign,
    "SetState": _set_state,
    "SetStateDynamicEntity": _set_state,
    "Win": _win,
    "Lose": _lose,
    "Merge": _merge,
    "QualifyLead": _qualify,
    "Associate": _associate,
    "Disassociate": _disassociate,
}
