"""Dynamics 365 / Dataverse webhooks: the RemoteExecutionContext of one message on one record.

`Target` has the changed columns only; null is emptied. A registered post-image adds what else is
known, a pre-image the old values. Money has no currency: that is read from the CRM. A context that
was too large comes without its columns and is read again. Dates: `modifiedon` is UTC. The ticks of
a date that is written with an offset, as `OperationCreatedOn`, are *shifted by it* (in the vendor's
own sample by 7 hours), so that it only stands in where there is no `modifiedon`.

The layouts of Delete, Win, Lose and Merge are the SDK's requests, and not confirmed by samples.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from schemas.crm import CALL, EMAIL, MEETING, OPPORTUNITY, Field, Received
from services.ingest.domain import fields, items, shared_secrets, values
from services.ingest.domain.facts import (
    Actor,
    BadEventError,
    Completeness,
    Fact,
    Ignored,
    Mark,
    Moment,
    Relation,
    Reread,
)
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Raw, Vendor, bare_alone, whole
from services.ingest.domain.vendors.dynamics import columns
from services.ingest.domain.vendors.dynamics.context import (
    Context,
    Reference,
    State,
    image,
    plain,
    plains,
)
from services.ingest.domain.vendors.dynamics.messages import (
    MAX_ENTITIES,
    NOBODY,
    READERS,
    Change,
    Message,
)

OVER_SIZE = "x-ms-dynamics-msg-size-exceeded"
_TYPES: Mapping[str, str] = {
    "opportunity": OPPORTUNITY,
    "phonecall": CALL,
    "appointment": MEETING,
    "email": EMAIL,
    "task": "task",
    "annotation": "note",
    "lead": "lead",
    "contact": "contact",
    "account": "account",
    "product": "product",
    "opportunityproduct": "line_item",
    "quote": "quote",
    "systemuser": "user",
}
_decode = msgspec.json.Decoder(Context, float_hook=Decimal).decode  # money stays decimal


class _Targets(msgspec.Struct, frozen=True):
    entities: list[msgspec.Raw] = msgspec.field(name="Entities", default_factory=list)


_decode_parameters = msgspec.json.Decoder(list[dict[str, msgspec.Raw]] | None).decode
_decode_targets = msgspec.json.Decoder(_Targets).decode
_JSON = msgspec.json.Encoder()
_NONE = msgspec.Raw(b"null")
_TARGETS = b'"Targets"'
_IMAGES = ("PreEntityImages", "PostEntityImages")  # whose of several records is not said


def split(received: Received, source: Source) -> Sequence[Raw]:
    """The context once for each of several Targets, so that a bad one is put aside alone.

    What can't be cut is one item, and `read` says why.
    """
    if _TARGETS not in received.body:
        return whole(received, source)
    try:
        context = items.members(received.body)
        parameters = _decode_parameters(context.get("InputParameters", _NONE)) or []
        several = [one for one in parameters if bytes(one.get("key", _NONE)) == _TARGETS]
        entities = _decode_targets(several[0]["value"]).entities if several else []
    except (msgspec.DecodeError, KeyError):
        return whole(received, source)
    if len(entities) > MAX_ENTITIES:
        raise BadEventError(f"{len(entities)} records; at most {MAX_ENTITIES} are taken")
    if len(entities) <= 1:
        return whole(received, source)
    shared = {name: raw for name, raw in context.items() if name not in _IMAGES}
    return [
        msgspec.Raw(
            _JSON.encode(
                shared | {"InputParameters": [{"key": "Targets", "value": {"Entities": [one]}}]}
            )
        )
        for one in entities
    ]


def read(raw: Raw, received: Received, source: Source) -> list[Fact | Ignored]:
    """What the message says."""
    context = _decode(raw)
    if source.account and (context.organization_id or "").lower() != source.account.lower():
        raise BadEventError(
            f"OrganizationId {context.organization_id!r:.60} is not this source's account"
        )
    reader = READERS.get(context.message_name)
    if reader is None:
        return [Ignored("other")]
    message = Message(context, source.id)
    event = _Event(message, received, source)
    try:
        changes = reader(message)
    except BadEventError:
        if not event.over_size:
            raise
        changes = [message.unseen()]  # what it did was left out: only that it did is known
    return [event.fact(change) for change in changes]


class _Event:
    """What is the same for all changes of one message."""

    def __init__(self, message: Message, received: Received, source: Source) -> None:
        self._context = message.context
        self._record_id = message.record_id
        self._received = received
        self._source = source
        self.over_size = received.headers.get(OVER_SIZE, "false").lower() not in ("false", "0")
        self._before = image(message.context.pre_entity_images)
        self._after = image(message.context.post_entity_images)

    def fact(self, change: Change) -> Fact:
        """The canonical event of one change."""
        kind = self._type(change.entity)
        at = self._moment(change)
        version = self._received.version if at is None else at.at
        mark = Mark(version, fields.sequenced(change.row or "0", self._name()))
        shown = plains(self._after if change.op in ("created", "updated") else {})
        shown |= plains(change.columns)
        found, entries = columns.read(kind, change.entity, shown, mark, new=change.columns)
        relations = self._relations(change, shown)
        fact = Fact(
            kind,
            self._record_id(change.id) if change.id else "",
            change.op,
            found | mark.related(relations) | _existence(change, mark),
            entries,
            completeness=self._completeness(change),
            occurred=at,
            position=mark.position,
            transaction=self._context.correlation_id or "",
            actor=self._actor(),
            relations=relations,
            merge=change.merge,
            reread=self._reread(change, found),
            dedupe=(self._name(), change.entity, change.id.lower(), at.raw if at else ""),
            vendor_event=self._name(),
            vendor_type=change.entity,
            said=change.said,
            before=self._old(change),
        )
        return fields.signalled(fact, self._changed(kind, change, found))

    def _type(self, entity: str) -> str:
        return fields.type_of(entity, self._source, _TYPES)

    def _name(self) -> str:
        """Synchronous steps have no operation of their own; then the request tells them apart."""
        ids = (self._context.operation_id, self._context.request_id, self._context.correlation_id)
        found = next((one for one in ids if one and one != NOBODY), "")
        return f"{found}/{self._context.message_name}"

    def _moment(self, change: Change) -> Moment | None:
        modified = change.columns.get("modifiedon", self._after.get("modifiedon"))
        if change.op not in ("deleted", "merged") and not values.empty(modified):
            return self._written(modified, "modifiedon")
        created = self._context.operation_created_on
        return None if created is None else self._written(created, "OperationCreatedOn")

    def _written(self, raw: object, name: str) -> Moment:
        at = values.moment(plain(raw), name, self._received.version)
        return Moment(at.at, values.text(raw), name, at.precision)

    def _completeness(self, change: Change) -> Completeness:
        if not change.columns:
            return "id_only" if change.id else "none"
        if change.op == "created":
            return "snapshot"
        return "snapshot_plus_delta" if len(self._after) > 1 else "delta"

    def _old(self, change: Change) -> State:
        """What the pre-image has of the changed columns; of a deletion, all that it has."""
        if change.op == "deleted":
            return self._before
        return {name: self._before[name] for name in change.columns if name in self._before}

    def _reread(self, change: Change, found: Mapping[str, Field]) -> Reread | None:
        if change.op in ("deleted", "merged"):
            return None
        if self.over_size:
            return Reread("over_size" if change.id else "overflow")
        if not change.columns and not change.linked and change.merge is None:
            return Reread("id_only")
        amount = found.get("amount")
        if amount is not None and amount.state == "value" and not self._source.currency:
            return Reread("missing_fields", ("currency",))
        return None

    def _actor(self) -> Actor | None:
        user = self._context.initiating_user_id
        return None if not user or user == NOBODY else Actor(user)

    def _relations(self, change: Change, shown: State) -> tuple[Relation, ...]:
        found = [
            Relation(
                self._type(one.kind),
                self._record_id(one.id),
                "removed" if change.op == "unlinked" else "added",
            )
            for one in change.linked
        ]
        for name in columns.LOOKUPS:
            value, old = shown.get(name), plain(self._before.get(name))
            if isinstance(value, Reference):
                found.append(Relation(self._type(value.kind), self._record_id(value.id)))
            if name in change.columns and isinstance(old, Reference) and old != value:
                found.append(Relation(self._type(old.kind), self._record_id(old.id), "removed"))
        return tuple(found)

    def _changed(self, kind: str, change: Change, found: Mapping[str, Field]) -> set[str]:
        """Ours of the columns that were set, but for those that a pre-image shows as they were."""
        table = columns.TABLES.get(kind, columns.COMMON)
        new = {
            name
            for name, value in change.columns.items()
            if name not in self._before or plain(self._before[name]) != plain(value)
        }
        changed = {table[name][0] for name in new if name in table}
        if "statecode" in new:
            changed |= {"status", "done", "converted_at"} & set(found)
        return changed


def _existence(change: Change, mark: Mark) -> dict[str, Field]:
    if change.op == "merged" and change.merge is not None:
        return mark.gone(change.merge.survivor)
    if change.op == "deleted":
        return mark.gone()
    return {} if change.linked or change.op in ("gap", "overflow") else mark.alive()


VENDOR = Vendor(
    name="dynamics",
    title="Dynamics 365",
    count=items.count_object,
    split=split,
    alone=bare_alone,
    read=read,
    # By the header, the query parameter (WebhookKey: `code`) or the pair that was registered.
    verify=shared_secrets.verify,
    settings=frozenset({"header", "query", "username", "account", "types"}),
    problems=shared_secrets.problems,
)
