"""Pipedrive: objects of the API, v2 where there is one, in `data`.

They are what webhooks carry, so that each is told as a change to it that says nothing of before.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.crm import Received
from services.ingest.domain import answers, values
from services.ingest.domain.facts import BadEventError, Fact, Ignored
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Raw

ENTITIES = {
    "deals": "deal",
    "persons": "person",
    "organizations": "organization",
    "activities": "activity",
    "products": "product",
    "leads": "lead",
    "notes": "note",
    "pipelines": "pipeline",
    "stages": "stage",
    "users": "user",
}
_PATH = re.compile(r"/v[12]/([a-z]+)")


class _Page(msgspec.Struct, frozen=True):
    data: msgspec.Raw = msgspec.Raw(b"null")


_decode_page = msgspec.json.Decoder(_Page).decode
_decode_data = msgspec.json.Decoder(list[msgspec.Raw] | None).decode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def split(received: Received) -> list[msgspec.Raw]:
    """The objects in `data`, or the one that it is."""
    data = _decode_page(received.body).data
    return [data] if bytes(data)[:1] == b"{" else _decode_data(data) or []


def join(raws: Sequence[bytes]) -> bytes:
    """An answer with these objects."""
    return b'{"success":true,"data":[' + b",".join(raws) + b"]}"


def read(raw: Raw, received: Received, source: Source) -> Sequence[Fact | Ignored]:
    """What one object says."""
    asked = _PATH.search(received.url)
    entity = ENTITIES.get(asked[1]) if asked is not None else None
    if entity is None:
        raise BadEventError(f"{received.url!r:.100} is no question for objects of Pipedrive")
    state = _decode(raw)
    names = ("update_time", "modified", "add_time", "created")
    named = next((name for name in names if state.get(name)), names[0])
    occurred = answers.when(state.get(named), named, received)
    gone = state.get("is_deleted") is True or (state.get("active") is False and entity == "note")
    event = {
        "meta": {
            "action": "delete" if gone else "change",
            "entity": entity,
            "entity_id": state.get("id"),
            "company_id": source.account,
            "timestamp": values.written(occurred.at),
            "version": "2.0",
        },
        "data": None if gone else raw,
        "previous": raw if gone else None,
    }
    return answers.snapshots(answers.told(event, received, source), occurred, raw, received)


ANSWERS = answers.Answers(split=split, read=read, join=join)
