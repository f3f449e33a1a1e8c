"""HubSpot: objects with their properties and histories, their links, pipelines, stages, owners.

A property with a history says when it got each of its values, the newest first; any other is as
old as the object's last change. Of objects that it can't find HubSpot says so by id in `errors`; by
the id of one that was merged it gives the survivor. Links have no time: they are as old as the
question, and those that aren't there any more are not told. In answers about links `errors` mean
that there are none.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

import msgspec

from schemas.crm import PIPELINE, STAGE, USER, Field, Received
from services.ingest.domain import answers, fields, merge, stages, values
from services.ingest.domain.facts import BadEventError, Fact, Ignored, Mark
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Raw

_PATH = re.compile(r"/crm/v3/(objects|pipelines|owners)(?:/([^/?]+))?")
_LINKS_PATH = re.compile(r"/crm/v4/associations/([^/?]+)/([^/?]+)/batch/read")
NOT_FOUND = "OBJECT_NOT_FOUND"
NO_LINKS = "crm.associations.NO_ASSOCIATIONS_FOUND"
_PRIMARY = "Primary"  # the label of the link that HubSpot itself calls so
# About the object itself, and said elsewhere in the answer.
_APART = frozenset({"hs_object_id", "hs_lastmodifieddate", "lastmodifieddate"})


class _Version(msgspec.Struct, frozen=True):
    value: Any = None
    timestamp: str = ""


class _Object(msgspec.Struct, frozen=True, rename="camel"):
    id: str = ""
    properties: dict[str, Any] = {}
    properties_with_history: dict[str, list[_Version]] | None = None
    updated_at: str | None = None
    archived: bool = False
    archived_at: str | None = None
    # where it is an error
    category: str = ""
    context: dict[str, Any] = {}


class _Stage(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    label: str | None = None
    display_order: int | None = None
    metadata: dict[str, Any] = {}
    updated_at: str | None = None
    archived: bool = False


class _Pipeline(_Stage, frozen=True, rename="camel"):
    stages: list[_Stage] = []


class _Owner(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    user_id: int | str | None = None
    updated_at: str | None = None
    archived: bool = False


class _LinkType(msgspec.Struct, frozen=True, rename="camel"):
    category: str = ""
    type_id: int | None = None
    label: str | None = None


class _Link(msgspec.Struct, frozen=True, rename="camel"):
    to_object_id: int | str
    association_types: list[_LinkType] = []


class _From(msgspec.Struct, frozen=True):
    id: int | str


class _Links(msgspec.Struct, frozen=True, rename={"near": "from", "sub_category": "subCategory"}):
    near: _From | None = None
    to: list[_Link] = []
    # where it is an error
    category: str = ""
    sub_category: Any = None


class _Page(msgspec.Struct, frozen=True):
    results: list[msgspec.Raw] = []
    errors: list[msgspec.Raw] = []


_decode_page = msgspec.json.Decoder(_Page).decode
_decode_object = msgspec.json.Decoder(_Object, float_hook=Decimal).decode
_decode_pipeline = msgspec.json.Decoder(_Pipeline, float_hook=Decimal).decode
_decode_owner = msgspec.json.Decoder(_Owner).decode
_decode_links = msgspec.json.Decoder(_Links).decode


def split(received: Received) -> list[msgspec.Raw]:
    """The results, and the errors that name objects."""
    page = _decode_page(received.body)
    return [*page.results, *page.errors]


def join(raws: Sequence[bytes]) -> bytes:
    """An answer with these results; one that is an error says so itself."""
    return b'{"results":[' + b",".join(raws) + b"]}"


def read(raw: Raw, received: Received, source: Source) -> Sequence[Fact | Ignored]:
    """What one result says."""
    linked = _LINKS_PATH.search(received.url)
    if linked is not None:
        return _links(_decode_links(raw), linked[1], linked[2], received, source)
    asked = _PATH.search(received.url)
    if asked is None:
        raise BadEventError(f"{received.url!r:.100} is no question for objects of HubSpot")
    if asked[1] == "owners":
        return [_owner(_decode_owner(raw), raw, received, source)]
    if asked[1] == "pipelines":
        return _pipeline(_decode_pipeline(raw), raw, received, source)
    found = _decode_object(raw)
    if found.category:
        return _missing(found, asked[2], raw, received, source)
    return _object(found, asked[2], raw, received, source)


def _object(
    found: _Object, named: str, raw: Raw, received: Received, source: Source
) -> Sequence[Fact | Ignored]:
    """An object is told as its properties, one change each, and that it is there or not."""
    changed = found.archived_at if found.archived and found.archived_at else found.updated_at
    occurred = answers.when(changed, "archivedAt" if found.archived else "updatedAt", received)
    history = found.properties_with_history or {}
    said: list[tuple[str, str | None, dict[str, Any]]] = []
    former: list[tuple[str, str | None, dict[str, Any]]] = []
    for name, versions in history.items():
        for place, version in enumerate(versions):
            change = ("propertyChange", version.timestamp or changed, {name: version.value})
            (former if place else said).append(change)
    # Those of one time in one event: there may be hundreds.
    rest = {n: v for n, v in found.properties.items() if n not in _APART and not history.get(n)}
    if rest:
        said.append(("propertyChange", found.updated_at, rest))
    said.append(("deletion" if found.archived else "restore", changed, {}))

    def event(action: str, at: str | None, changes: dict[str, Any]) -> dict[str, Any]:
        when = values.written(occurred.at) if values.empty(at) else at
        return _event(action, named, source, when) | {
            "objectId": found.id,
            "propertyChanges": {
                name: {"value": "" if value is None else value} for name, value in changes.items()
            },
        }

    told = [event(*each) for each in said]
    asked = received.headers.get(answers.ASKED, found.id)
    if asked != found.id:
        merged = {"newObjectId": found.id, "mergedObjectIds": [asked]}
        told.append(_event("merge", named, source, values.written(occurred.at)) | merged)
    outcomes = answers.told(told, received, source)
    for each in former:
        with suppress(BadEventError):  # only the present value puts an object aside
            outcomes += answers.told([event(*each)], received, source)
    return answers.snapshots(outcomes, occurred, raw, received)


def _event(action: str, named: str, source: Source, at: str | None) -> dict[str, Any]:
    """The webhook that says the same, as far as all of them have it."""
    return {
        "subscriptionType": f"object.{action}",
        "objectTypeId": named,
        "portalId": source.account,
        "occurredAt": at,
    }


def _links(
    found: _Links, named: str, far: str, received: Received, source: Source
) -> Sequence[Fact | Ignored]:
    """What an object is linked to, each link as a change that made it."""
    if found.near is None:
        return [] if found.sub_category == NO_LINKS else [Ignored("answer.error")]
    occurred = answers.when(None, "", received)
    told = [
        _event("associationChange", named, source, values.written(occurred.at))
        | {
            "fromObjectId": found.near.id,
            "toObjectId": link.to_object_id,
            "toObjectTypeId": far,
            "isPrimaryAssociation": any(one.label == _PRIMARY for one in link.association_types),
        }
        for link in found.to[: merge.MAX_FIELDS]  # more are not kept of a record
    ]
    facts = [one for one in answers.told(told, received, source) if isinstance(one, Fact)]
    if not facts:
        return []
    return [
        msgspec.structs.replace(
            facts[0],
            fields=merge.of(facts).fields,
            relations=tuple(relation for fact in facts for relation in fact.relations),
            occurred=occurred,
            dedupe=("answer", received.id, facts[0].id),
            said={},
        )
    ]


def _missing(
    error: _Object, named: str, raw: Raw, received: Received, source: Source
) -> Sequence[Fact | Ignored]:
    """Gone, and since when HubSpot doesn't say: by now."""
    ids = error.context.get("ids")
    if error.category != NOT_FOUND or not isinstance(ids, list):
        return [Ignored("answer.error")]
    occurred = answers.when(None, "", received)
    deletions = [
        _event("deletion", named, source, values.written(occurred.at)) | {"objectId": number}
        for number in ids
    ]
    return answers.snapshots(answers.told(deletions, received, source), occurred, raw, received)


def _pipeline(
    found: _Pipeline, raw: Raw, received: Received, source: Source
) -> list[Fact | Ignored]:
    """A pipeline and its stages, each a record."""
    number = values.record_id(source.id, found.id)
    outcomes: list[Fact | Ignored] = list(_metadata((PIPELINE, number), found, {}, raw, received))
    for stage in found.stages:
        more: dict[str, Any] = {
            "pipeline": (found.id, values.text),
            "status": (_status(stage.metadata), values.text),
            "probability": (stage.metadata.get("probability"), values.amount),
        }
        key = (STAGE, stages.record_id(source.id, stage.id))
        outcomes += _metadata(key, stage, more, raw, received)
    return outcomes


def _metadata(
    key: tuple[str, str],
    found: _Stage,
    more: Mapping[str, tuple[Any, fields.Convert]],
    raw: Raw,
    received: Received,
) -> Sequence[Fact | Ignored]:
    occurred = answers.when(found.updated_at, "updatedAt", received)
    mark = Mark(occurred.at, "")
    said: dict[str, tuple[Any, fields.Convert]] = {
        "name": (found.label, values.text),
        "rank": (found.display_order, fields.whole),
        **more,
    }
    registers = {name: fields.field(value, to, mark) for name, (value, to) in said.items()}
    fact = _fact(key, registers, mark, gone=found.archived)
    return answers.snapshots([fact], occurred, raw, received)


def _fact(key: tuple[str, str], registers: Mapping[str, Field], mark: Mark, *, gone: bool) -> Fact:
    return Fact(*key, "snapshot", fields={**registers, **(mark.gone() if gone else mark.alive())})


def _status(metadata: Mapping[str, Any]) -> str | None:
    """A closed stage with a probability of 1 is won, with 0 lost; one that isn't closed is open."""
    closed, probability = metadata.get("isClosed"), metadata.get("probability")
    if not values.empty(closed) and not values.flag(closed):
        return "open"
    if values.empty(probability):
        return None
    return {Decimal(1): "won", Decimal(0): "lost"}.get(Decimal(values.amount(probability)), "open")


def _owner(found: _Owner, raw: Raw, received: Received, source: Source) -> Fact | Ignored:
    """Records belong to owners, whose ids are not those of users."""
    occurred = answers.when(found.updated_at, "updatedAt", received)
    mark = Mark(occurred.at, "")
    name = " ".join(part for part in (found.first_name, found.last_name) if part)
    registers = {
        "name": fields.field(name, values.text, mark),
        "email": fields.field(found.email, values.text, mark),
        "active": mark.value(not found.archived),
        "x_user_id": fields.field(found.user_id, values.text, mark),
    }
    fact = _fact((USER, values.record_id(source.id, found.id)), registers, mark, gone=False)
    return answers.snapshots([fact], occurred, raw, received)[0]


ANSWERS = answers.Answers(split=split, read=read, join=join)
