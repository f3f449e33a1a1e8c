"""Salesforce's REST API: records by id in collections, whole types by query.

Which fields there are, Salesforce says itself (describe): a query that names another is refused.
Formulas are left out, because they change without the record being changed, and so are compound
fields, whose parts are there. A list gives null for a record that is gone and for one that isn't
shared with us; a query over all rows tells the two apart, for as long as the recycle bin has it.
"""

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

import msgspec

from services.ingest.crms.base import Asking, Page, resource
from services.ingest.crms.transport import FORBIDDEN, LIMITED, Answer, Door, RefusedError, Session

VERSION = "v62.0"
BATCH = 200
PAGE = {"Sforce-Query-Options": "batchSize=200"}  # the smallest that there is
KEPT_SECONDS = 3600.0
MAX_QUERY = 12_000  # characters; a URL has 16,384 bytes
_BASE = f"/services/data/{VERSION}"
_OBJECTS = {
    "opportunity": "Opportunity",
    "lead": "Lead",
    "contact": "Contact",
    "account": "Account",
    "task": "Task",
    "call": "Task",
    "email": "Task",
    "meeting": "Event",
    "user": "User",
    "stage": "OpportunityStage",
    "quote": "Quote",
    "product": "Product2",
    "line_item": "OpportunityLineItem",
}
_LEFT_OUT = frozenset({"address", "location", "base64", "complexvalue", "json"})
_ID = re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?")


class _Field(msgspec.Struct, frozen=True):
    name: str
    type: str = ""
    calculated: bool = False


class _Described(msgspec.Struct, frozen=True):
    fields: list[_Field]


class _Rows(msgspec.Struct, frozen=True, rename="camel"):
    records: list[msgspec.Raw]
    next_records_url: str = ""


_decode_described = msgspec.json.Decoder(_Described).decode
_decode_rows = msgspec.json.Decoder(_Rows).decode
_decode_list = msgspec.json.Decoder(list[Mapping[str, Any] | None]).decode


class Salesforce:
    """What Salesforce is asked."""

    door: ClassVar[Door] = Door(
        oauth="https://login.salesforce.com/services/oauth2/token",
        domains=("salesforce.com",),
        address="instance_url",
        # The day's limit comes as a refusal.
        is_limit=lambda status, body: (
            status == LIMITED or (status == FORBIDDEN and b"REQUEST_LIMIT_EXCEEDED" in body)
        ),
    )
    batch: ClassVar[int] = BATCH
    metadata: ClassVar[tuple[str, ...]] = ("stage", "user")
    whole: ClassVar[frozenset[str]] = frozenset({"stage"})

    async def records(self, session: Session, asking: Asking) -> AsyncIterator[Answer]:
        """The records, and for those that aren't there what became of them."""
        ids = [number for number in asking.ids if _ID.fullmatch(number)]
        if not ids:
            raise RefusedError("Salesforce's ids have 15 or 18 letters and digits")
        entity = _entity(asking)
        fields = await _fields(session, entity)
        path = f"{_BASE}/composite/sobjects/{entity}"
        answer = await session.ask("POST", path, json={"ids": ids, "fields": fields})
        found = _read(answer, _decode_list)
        if any(found):
            yield answer
        missing = [number for number, one in zip(ids, found, strict=False) if one is None]
        if missing and "IsDeleted" in fields:
            listed = ",".join(f"'{number}'" for number in missing)
            query = (
                f"SELECT Id, IsDeleted, SystemModstamp FROM {entity}"  # noqa: S608  # only ids
                f" WHERE Id IN ({listed}) AND IsDeleted = true"
            )
            gone = await session.ask("GET", f"{_BASE}/queryAll", params={"q": query})
            if _read(gone, _decode_rows).records:
                yield gone

    async def page(self, session: Session, asking: Asking, cursor: str) -> Page:
        """The next rows, those in the recycle bin too: what was deleted may have been missed."""
        if cursor:
            answer = await session.ask("GET", cursor, headers=PAGE)
        else:
            entity = _entity(asking)
            fields = await _fields(session, entity)
            while len(",".join(fields)) > MAX_QUERY:
                fields.pop()  # the last are the company's own
            params = {"q": f"SELECT {','.join(fields)} FROM {entity}"}  # noqa: S608  # names only
            answer = await session.ask("GET", f"{_BASE}/queryAll", params=params, headers=PAGE)
        following = _read(answer, _decode_rows).next_records_url
        # A path of the same host: an address that an answer names is never called.
        return Page((answer,), urlsplit(following).path if following else "")


def _entity(asking: Asking) -> str:
    return resource(asking, _OBJECTS, own=True)


async def _fields(session: Session, entity: str) -> list[str]:
    """Names of what can be asked of an object, standard ones first."""
    until, known = session.kept.get(entity, (0.0, []))
    now = session.now()
    if now >= until:
        answer = await session.ask("GET", f"{_BASE}/sobjects/{entity}/describe")
        known = sorted(
            (
                field.name
                for field in _read(answer, _decode_described).fields
                if not field.calculated and field.type not in _LEFT_OUT
            ),
            key=lambda name: (name.endswith("__c"), name),
        )
        session.kept[entity] = (now + KEPT_SECONDS, known)
    return list(known)


def _read(answer: Answer, decode: Any) -> Any:
    try:
        return decode(answer.body)
    except msgspec.DecodeError as error:
        raise RefusedError(f"the answer is not Salesforce's: {error}") from error
