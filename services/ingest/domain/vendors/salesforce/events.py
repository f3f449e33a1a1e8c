"""Change events, platform events and records, as JSON or Avro, into facts.

Null means opposite things: in CometD's JSON a field that was emptied, in the Pub/Sub API's Avro one
that didn't change. So the header's lists of changed and nulled fields decide; only where CometD's
header has none is its null taken for emptied, and null by itself never is elsewhere.

A commit has seconds only, and one second many: the commit's number orders transactions in it, and
the sequence number the changes in a transaction.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec

from schemas.crm import Received
from services.ingest.domain import fields, values
from services.ingest.domain.facts import (
    Actor,
    BadEventError,
    Completeness,
    Fact,
    Mark,
    Moment,
    Op,
    Reread,
)
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors.salesforce import avro, records
from services.ingest.domain.vendors.salesforce.records import Told, eighteen

HEADER = "ChangeEventHeader"
_ORIGIN = f"{HEADER}.changeOrigin"
MAX_RECORDS = 10_000  # in one event, which has at most 1 MB
_ADDRESS = ("Street", "City", "State", "PostalCode", "Country", "StateCode", "CountryCode")

_Whole = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Header(msgspec.Struct, frozen=True, rename="camel"):
    entity_name: str
    change_type: str
    commit_timestamp: _Whole
    record_ids: Annotated[list[str], msgspec.Meta(max_length=MAX_RECORDS)] = []
    change_origin: str | None = None
    transaction_key: str | None = None
    sequence_number: _Whole | None = None
    commit_number: _Whole | None = None
    commit_user: str | None = None
    changed_fields: list[str] | None = None
    nulled_fields: list[str] | None = None
    diff_fields: list[str] | None = None


class Message(msgspec.Struct, frozen=True):
    """One event taken out of whatever it came in."""

    payload: dict[str, Any]
    cometd: bool = False
    name: str = ""  # of a platform event
    number: str = ""  # its id, or that of a change event
    replay: str = ""
    schema: avro.Schema | None = None

    def read(self, received: Received, source: Source) -> list[Fact]:
        """What the event says."""
        if HEADER in self.payload:
            return _change(self, received, source)
        return [_platform_event(self, received, source)]


_OPS: dict[str, tuple[Op, Completeness]] = {
    "CREATE": ("created", "snapshot"),
    "UPDATE": ("updated", "delta"),
    "DELETE": ("deleted", "id_only"),
    "UNDELETE": ("restored", "snapshot"),
    "GAP_CREATE": ("gap", "id_only"),
    "GAP_UPDATE": ("gap", "id_only"),
    "GAP_DELETE": ("gap", "id_only"),
    "GAP_UNDELETE": ("gap", "id_only"),
    "GAP_OVERFLOW": ("overflow", "none"),
}


def _change(message: Message, received: Received, source: Source) -> list[Fact]:
    try:
        header = msgspec.convert(message.payload[HEADER], _Header, strict=False)
    except msgspec.ValidationError as error:
        raise BadEventError(f"ChangeEventHeader: {error}") from error
    if header.change_type not in _OPS:
        raise BadEventError(f"changeType {header.change_type!r:.40} is not one of Salesforce's")
    op, completeness = _OPS[header.change_type]
    at = values.position(header.commit_timestamp, received.version, "ms")
    key, sequence = header.transaction_key or "", header.sequence_number or 0
    mark = Mark(at, f"{header.commit_number or 0:019d}.{key}.{sequence:010d}")
    base = Fact(
        "",
        "",
        op,
        completeness=completeness,
        occurred=Moment(at, str(header.commit_timestamp), "commitTimestamp", "s"),
        position=mark.position,
        transaction=key,
        sequence="" if header.sequence_number is None else str(sequence),
        actor=Actor(eighteen(header.commit_user)) if header.commit_user else None,
        dedupe=(key, str(sequence)) if key else (),
        vendor_event=message.number or message.replay,
        vendor_type=header.entity_name,
        said={_ORIGIN: header.change_origin} if header.change_origin else {},
    )
    if op == "overflow":
        return [_all_of(base, source)]
    if not header.record_ids:
        raise BadEventError("ChangeEventHeader.recordIds is empty")
    stated, untold = _stated(message, header)
    found: list[Fact] = []
    for number in dict.fromkeys(map(eighteen, header.record_ids)):
        if number.endswith("*"):  # after a conversion of a field's type: some of the type
            found.append(_all_of(msgspec.structs.replace(base, op="gap"), source))
        elif op == "gap":
            found += _gap(base, header, number, mark, source)
        else:
            told = Told(header.entity_name, number, stated, untold)
            found += records.record(base, told, mark, source)
    return found


def _all_of(base: Fact, source: Source) -> Fact:
    """All records of the type must be read again."""
    kind = records.type_of(base.vendor_type, source)
    reread = Reread("overflow" if base.op == "overflow" else "gap")
    return fields.signalled(
        msgspec.structs.replace(base, type=kind, completeness="none", reread=reread)
    )


def _gap(base: Fact, header: _Header, number: str, mark: Mark, source: Source) -> list[Fact]:
    """It is known that the record changed, and not to what; that it is gone, is known."""
    gone = header.change_type == "GAP_DELETE"
    kinds = records.types_of(header.entity_name, source)
    return [
        fields.signalled(
            msgspec.structs.replace(
                base,
                type=kind,
                id=values.record_id(source.id, number),
                fields=mark.gone() if gone else mark.alive() if len(kinds) == 1 else {},
                reread=Reread("gap"),
            )
        )
        for kind in (kinds if gone else kinds[:1])
    ]


def _stated(message: Message, header: _Header) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that the event states, None those it emptied; and those it leaves untold."""
    flat = flattened({name: v for name, v in message.payload.items() if name != HEADER})
    if header.change_type != "UPDATE":
        return {n: v for n, v in flat.items() if v is not None or message.cometd}, {}
    changed, nulled, diffs = (
        avro.expand(listed or (), message.schema)
        for listed in (header.changed_fields, header.nulled_fields, header.diff_fields)
    )
    listed = changed | nulled
    inside = {name.partition(".")[0] for name in listed if "." in name}  # some of a compound
    stated: dict[str, Any] = {}
    for name, value in flat.items():
        parent, dot, _ = name.partition(".")
        whole = dot and parent in listed and parent not in inside
        emptied = name in listed or whole if listed else message.cometd
        if value is not None or emptied:
            stated[name] = value
    untold: dict[str, Any] = {}
    for name in listed - flat.keys():
        parent, dot, _ = name.partition(".")
        if name in nulled or (dot and parent in flat):
            stated[name] = None
        elif not any(other.startswith(f"{name}.") for other in flat):
            untold[name] = None
    _empty_addresses(stated)
    for name in diffs:  # what comes of long text is how it differs from what it was
        untold[name] = stated.pop(name, None)
    return stated, untold


def flattened(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Compound fields as Parent.Child; related records, which say nothing of this one, left out."""
    flat: dict[str, Any] = {}
    for name, value in payload.items():
        if not isinstance(value, dict):
            flat[name] = value
        elif "attributes" not in value:
            flat |= {f"{name}.{part}": inner for part, inner in value.items()}
    return flat


def _empty_addresses(stated: dict[str, Any]) -> None:
    """An address emptied as a whole is empty in all its parts."""
    for name in [n for n, value in stated.items() if value is None and n.endswith("Address")]:
        stated.update({f"{name}.{part}": None for part in _ADDRESS})


def _platform_event(message: Message, received: Received, source: Source) -> Fact:
    """Something that happened, under its own name; it changes no record."""
    if not message.name:
        raise BadEventError(
            "neither a ChangeEventHeader nor the name of a platform event is there: send it with "
            "its channel, event.EventApiName or Avro schema"
        )
    number = message.number or (f"replay-{message.replay}" if message.replay else "")
    if not number:
        raise BadEventError("the platform event has neither EventUuid nor replayId")
    created = message.payload.get("CreatedDate")
    moment = None
    if not values.empty(created):
        unit: values.Unit = "ms" if isinstance(created, int) else "auto"
        moment = values.moment(created, "CreatedDate", received.version, unit)
    mark = Mark(received.version if moment is None else moment.at, number)
    stated = {n: v for n, v in flattened(message.payload).items() if v is not None}
    author = stated.get("CreatedById")
    table: fields.Table = {"CreatedDate": ("created_at", lambda _: values.written(mark.at))}
    return Fact(
        records.type_of(message.name, source),
        values.record_id(source.id, number),
        "tracked",
        fields.read(stated, table, mark),
        completeness="snapshot",
        occurred=moment,
        position=mark.position,
        actor=Actor(eighteen(author)) if isinstance(author, str) else None,
        dedupe=(number,),
        vendor_event=number,
        vendor_type=message.name,
        said=stated,
    )


def snapshot(
    entity: str, stated: Mapping[str, Any], event: str, received: Received, source: Source
) -> list[Fact]:
    """A record as it was when it was sent or read: the fields that were asked for."""
    moment, author = _modified(stated, received), stated.get("LastModifiedById")
    mark = Mark(received.version if moment is None else moment.at, event)
    number = eighteen(stated.get("Id"))
    if not isinstance(number, str):
        raise BadEventError(f"the {entity:.60} has no Id: add it to the fields that are sent")
    base = Fact(
        "",
        "",
        "snapshot",
        completeness="snapshot",
        occurred=moment,
        position=mark.position,
        actor=Actor(eighteen(author)) if isinstance(author, str) and moment is not None else None,
        dedupe=(event,) if event else (),
        vendor_event=event,
    )
    return records.record(base, Told(entity, number, stated), mark, source)


def _modified(stated: Mapping[str, Any], received: Received) -> Moment | None:
    """When the record was last modified, which may not be among the fields."""
    found: Iterable[Moment] = [
        values.moment(stated[name], name, received.version)
        for name in ("SystemModstamp", "LastModifiedDate")
        if not values.empty(stated.get(name))
    ]
    return max(found, key=lambda moment: moment.at, default=None)
