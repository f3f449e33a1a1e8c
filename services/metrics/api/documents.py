"""Boards and contests of a tenant's own, written and removed.

A document is published before it is kept, like a goal: should we die in between, our own consumer
keeps it.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import yaml
from fastapi import Request
from pydantic import BaseModel

from kit.auth import Principal
from kit.clock import real_micros
from kit.database import Transaction
from kit.http import Problem
from kit.publisher import PublishError
from schemas.base import State, valid_id
from schemas.spm import BoardDocument
from services.metrics.api.parts import Parts
from services.metrics.domain.catalogue import Mistake
from services.metrics.domain.mistakes import plain
from services.metrics.store.definitions import store_boards

MAX_BYTES = 64 * 1024
MAX_OWN = 500  # boards, contests and displays of a tenant

Kind = Literal["board", "contest", "display"]

# How OpenAPI describes a body that may be YAML.
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "JSON or YAML, as an entry of boards.yaml.",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "application/yaml": {"schema": {"type": "string"}},
        },
    }
}


class MistakeOut(BaseModel):
    """What is wrong, and where in the document."""

    where: str
    what: str


class _Tree(yaml.SafeLoader):
    """Reads no aliases: a few lines of them stand for more than there is memory for."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            what = "aliases aren't read; write out what they stand for"
            raise yaml.composer.ComposerError(problem=what)
        return super().compose_node(parent, index)


async def read(request: Request, problem: str) -> object:
    """What the request's JSON or YAML says; 413 or 422 with this type of problem."""
    data = await request.body()
    if len(data) > MAX_BYTES:
        raise Problem(413, "too-large", f"A document has up to {MAX_BYTES} bytes.")
    try:
        document = yaml.load(data, _Tree)  # noqa: S506  # a safe one; JSON is YAML
        msgspec.json.encode(document)  # it can be kept: no half characters, say
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise Problem(422, problem, f"Neither JSON nor YAML: {error}"[:500]) from error
    return document


async def body(request: Request) -> dict[str, Any]:
    """The request's document, JSON or YAML."""
    document = plain(await read(request, "invalid-document"))
    if not isinstance(document, dict) or not all(isinstance(name, str) for name in document):
        raise Problem(422, "invalid-document", "Expected an object, as an entry of boards.yaml.")
    return document


def named(document: dict[str, Any], number: str) -> dict[str, Any]:
    """The document with the id that the URL says."""
    if not valid_id(number):
        raise Problem(422, "invalid-document", "Ids have letters, digits and ._:@-")
    if document.setdefault("id", number) != number:
        detail = f"The document's id is {document['id']!r:.80}, the URL says {number}."
        raise Problem(422, "invalid-document", detail)
    return document


def refuse(mistakes: Sequence[Mistake]) -> None:
    """Raise 422 with everything that is wrong, if something is."""
    if mistakes:
        raise Problem(
            422,
            "invalid-document",
            "; ".join(map(str, mistakes))[:1000],
            mistakes=shown(mistakes),
        )


def shown(mistakes: Sequence[Mistake]) -> list[dict[str, str]]:
    """Mistakes as they are answered."""
    return [{"where": mistake.where, "what": mistake.what} for mistake in mistakes]


async def write(
    parts: Parts,
    transaction: Transaction,
    principal: Principal,
    kind: Kind,
    number: str,
    document: dict[str, Any] | None,
) -> BoardDocument | None:
    """Publish and keep a document; None takes it away. Returns what was there before."""
    replica, tenant = parts.context.boards, principal.tenant
    await transaction.lock(replica.lock_name(tenant))
    known = {state.key: state for state in await replica.load(transaction, tenant)}
    state = BoardDocument(
        tenant=tenant,
        version=0,
        kind=kind,
        id=number,
        document=document or {},
        by=principal.person,
        deleted=document is None,
    )
    old = known.get(state.key)
    was = None if old is None or old.deleted else old.document
    if was == document:
        return old
    own = sum(not each.deleted for each in known.values())
    if was is None and own >= MAX_OWN:
        detail = f"Up to {MAX_OWN} boards, contests and displays may be your own; remove one."
        raise Problem(422, "too-many-documents", detail)
    version = max(real_micros(), old.version + 1 if old is not None else 0)
    state = msgspec.structs.replace(state, version=version)
    await publish(parts, [state])
    await store_boards(transaction, parts.context, [state])
    return old


async def publish(parts: Parts, states: Sequence[State]) -> None:
    """Publish, or answer 503."""
    try:
        await parts.publisher.publish(states)
    except PublishError as error:
        detail = "It could not be published; nothing was kept. Try again."
        raise Problem(503, "unavailable", detail, headers={"Retry-After": "5"}) from error
