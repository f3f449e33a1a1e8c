"""Close: objects of the API, alone or in `data`; pipelines with their statuses; users.

They are what the event log carries, so that each is told as an update that says nothing of before.
Statuses have no time of their own: they are as old as the question.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.crm import PIPELINE, USER, Received
from services.ingest.domain import answers, fields, values
from services.ingest.domain.facts import BadEventError, Fact, Ignored, Mark
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Raw

_PATH = re.compile(r"/api/v1/(activity/[a-z]+|task|lead|contact|opportunity|pipeline|user)/")


class _Page(msgspec.Struct, frozen=True):
    data: list[msgspec.Raw] | None = None


_decode_page = msgspec.json.Decoder(_Page).decode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def split(received: Received) -> list[msgspec.Raw]:
    """The objects in `data`; without it, the answer is one."""
    page = _decode_page(received.body)
    return [msgspec.Raw(received.body)] if page.data is None else page.data


def join(raws: Sequence[bytes]) -> bytes:
    """An answer with these objects."""
    return b'{"data":[' + b",".join(raws) + b"]}"


def read(raw: Raw, received: Received, source: Source) -> Sequence[Fact | Ignored]:
    """What one object says."""
    asked = _PATH.search(received.url)
    if asked is None:
        raise BadEventError(f"{received.url!r:.100} is no question for objects of Close")
    state = _decode(raw)
    if asked[1] == USER:
        return _user(state, raw, received, source)
    if asked[1] == PIPELINE:
        return _pipeline(state, raw, received, source)
    named = asked[1].replace("/", ".")
    if named == "task":
        named = f"task.{state.get('_type', 'lead')}"
    return _told(named, state, raw, received, source)


def _told(
    named: str, state: dict[str, Any], raw: Raw, received: Received, source: Source
) -> Sequence[Fact | Ignored]:
    name = next((n for n in ("date_updated", "date_created") if state.get(n)), "date_updated")
    occurred = answers.when(state.get(name), name, received)
    event = {
        "object_type": named,
        "action": "updated",
        "object_id": state.get("id"),
        "organization_id": source.account,
        "date_updated": values.written(occurred.at),
        "data": raw,
    }
    outcomes = answers.told({"event": event}, received, source)
    return answers.snapshots(outcomes, occurred, raw, received)


def _pipeline(
    state: dict[str, Any], raw: Raw, received: Received, source: Source
) -> Sequence[Fact | Ignored]:
    """A pipeline, and the statuses of deals in it, in their order."""
    occurred = answers.when(state.get("date_updated"), "date_updated", received)
    mark = Mark(occurred.at, "")
    registers = {"name": fields.field(state.get("name"), values.text, mark)} | mark.alive()
    own = Fact(PIPELINE, values.record_id(source.id, state.get("id")), "snapshot", registers)
    found = [*answers.snapshots([own], occurred, raw, received)]
    for rank, status in enumerate(state.get("statuses") or ()):
        if not isinstance(status, dict):
            raise BadEventError("a status of the pipeline is not an object")
        stage = {**status, "pipeline_id": state.get("id"), "rank": rank}
        encoded = msgspec.Raw(msgspec.json.encode(stage))
        for one in _told("status.opportunity", stage, encoded, received, source):
            if isinstance(one, Fact):
                placed = {"rank": Mark(one.position[0], "").value(rank)}
                kept = {name: f for name, f in one.fields.items() if name != "x_rank"}
                one = msgspec.structs.replace(one, fields={**kept, **placed})  # noqa: PLW2901
            found.append(one)
    return found


def _user(
    state: dict[str, Any], raw: Raw, received: Received, source: Source
) -> Sequence[Fact | Ignored]:
    occurred = answers.when(state.get("date_updated"), "date_updated", received)
    mark = Mark(occurred.at, "")
    names = (state.get("first_name"), state.get("last_name"))
    name = " ".join(part for part in names if isinstance(part, str) and part)
    registers = {
        "name": fields.field(name, values.text, mark),
        "email": fields.field(state.get("email"), values.text, mark),
    } | mark.alive()
    fact = Fact(USER, values.record_id(source.id, state.get("id")), "snapshot", registers)
    return answers.snapshots([fact], occurred, raw, received)


ANSWERS = answers.Answers(split=split, read=read, join=join)
