"""The catalogue by HTTP: what is measured, and a tenant's own metrics.

A changed metric is published before it is kept, like a goal; from then on it holds, and the past is
counted again in the background.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.clock import real_micros
from kit.database import Transaction
from kit.http import Problem, json_response
from kit.publisher import PublishError
from schemas.base import valid_id
from schemas.spm import MetricDocument, MetricRevision
from services.metrics.api import documents
from services.metrics.api.parts import PROBLEMS, Parts, unknown_metric
from services.metrics.domain.catalogue import STAGE, CatalogueError, layered, lint
from services.metrics.store import recounts
from services.metrics.store.recounts import Recount

MAX_REVISIONS = 50  # former ones that are kept
MAX_OWN = 500  # metrics of a tenant's own
MACHINE = "machine"  # who has no person
Reason = Annotated[str, Query(min_length=1, max_length=500, description="Why; it is kept.")]


class EntryOut(BaseModel):
    """A metric of the catalogue; the last two only for derived ones.

    One `for_each` stage is asked for as `<id>@<stage>`; one that is `part_only` is for formulas.
    """

    id: str
    title: str
    description: str
    level: str
    unit: str
    direction: str
    visibility: str
    part_only: bool = False
    for_each: str | None = None
    formula: str | None = None
    statistic: dict[str, str] | None = None


class RevisionOut(BaseModel):
    """What a metric was until it was replaced; `document` is null while there was none."""

    revision: int
    document: dict[str, Any] | None
    reason: str
    by: str
    at: datetime


class MetricOut(BaseModel):
    """A metric as in the catalogue's YAML; `origin` is shipped, changed or own."""

    id: str
    origin: str
    document: dict[str, Any]
    revision: int
    reason: str
    by: str
    at: datetime | None
    former: list[RevisionOut]


class MistakeOut(BaseModel):
    """What is wrong, and where in the document."""

    where: str
    what: str
    severity: str
    metric: str


class RecountOut(BaseModel):
    """How far the last recount of the past is; `share` is 1 when it is finished."""

    reason: str
    types: list[str]
    requested_at: datetime
    finished_at: datetime | None
    done: int
    total: int
    share: float


def add(routes: APIRouter, parts: Parts) -> None:
    """GET /metrics, GET, PUT and DELETE /metrics/{id}, POST /metrics/lint, GET /recount."""

    @routes.get("/metrics", response_model=dict[str, list[EntryOut]], responses=PROBLEMS)
    async def metrics(principal: Annotated[Principal, Depends(parts.principal)]) -> Response:
        """What is measured here."""
        names = list(EntryOut.model_fields)
        async with parts.database.transaction() as transaction:
            catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
        listed = [
            {name: getattr(metric, name) for name in names if hasattr(metric, name)}
            for metric in catalogue.metrics.values()
        ]
        return json_response({"metrics": listed})

    @routes.get("/metrics/{metric}", response_model=MetricOut, responses=PROBLEMS)
    async def get_metric(
        request: Request, principal: Annotated[Principal, Depends(parts.principal)], metric: str
    ) -> Response:
        """One metric with its former revisions."""
        async with parts.database.transaction() as transaction:
            return pages.tagged(request, await _shown(parts, transaction, principal, metric))

    @routes.put(
        "/metrics/{metric}",
        response_model=MetricOut,
        responses=PROBLEMS | {503: {"description": "Kafka is away; nothing was kept."}},
    )
    async def put_metric(
        request: Request,
        principal: Annotated[Principal, Depends(parts.principal)],
        metric: str,
        reason: Reason,
    ) -> Response:
        """Add or change a metric: JSON or YAML, as an entry of the catalogue.

        Periods of the past are counted again in the background; see `GET /v1/recount`.
        """
        principal.require("ops")
        if not valid_id(metric) or "@" in metric:
            raise Problem(422, "invalid-metric", "A metric's id has letters, digits, . _ : and -.")
        document = await _document(request)
        if document.setdefault("id", metric) != metric:
            detail = f"The document's id is {document['id']!r:.80}, the URL says {metric}."
            raise Problem(422, "invalid-metric", detail)
        async with parts.database.transaction() as transaction:
            await _store(parts, transaction, principal, metric, document, reason)
            return json_response(await _shown(parts, transaction, principal, metric))

    @routes.delete("/metrics/{metric}", status_code=204, responses=PROBLEMS)
    async def delete_metric(
        principal: Annotated[Principal, Depends(parts.principal)], metric: str, reason: Reason
    ) -> Response:
        """Take an own metric away, or let the shipped one hold again."""
        principal.require("ops")
        async with parts.database.transaction() as transaction:
            await _store(parts, transaction, principal, metric, None, reason)
        return Response(status_code=204)

    @routes.post("/metrics/lint", response_model=dict[str, list[MistakeOut]], responses=PROBLEMS)
    async def lint_metric(
        request: Request, principal: Annotated[Principal, Depends(parts.principal)]
    ) -> Response:
        """What would be wrong with a catalogue, or with one metric beside those in force."""
        document = await _document(request)
        async with parts.database.transaction() as transaction:
            catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
        whole = "metrics" in document
        mistakes = lint(document, None if whole else catalogue.document())
        return json_response({"mistakes": [msgspec.to_builtins(each) for each in mistakes]})

    @routes.get("/recount", response_model=RecountOut | None, responses=PROBLEMS)
    async def recount(principal: Annotated[Principal, Depends(parts.principal)]) -> Response:
        """How far the past is counted again; null when it never had to be."""
        async with parts.database.transaction() as transaction:
            found = await recounts.of(transaction, principal.tenant)
        return json_response(found and _progress(found))


async def _document(request: Request) -> dict[str, Any]:
    document = await documents.read(request, "invalid-metric")
    if not isinstance(document, dict) or not all(isinstance(name, str) for name in document):
        raise Problem(422, "invalid-metric", "Expected an object, as an entry of the catalogue.")
    return document


async def _store(
    parts: Parts,
    transaction: Transaction,
    principal: Principal,
    metric: str,
    document: dict[str, Any] | None,
    reason: str,
) -> None:
    """Publish and keep the metric; None takes it away."""
    replica, tenant = parts.context.metrics, principal.tenant
    await transaction.lock(replica.lock_name(tenant))
    known = {state.id: state for state in await replica.load(transaction, tenant)}
    old = known.get(metric)
    was = None if old is None or old.deleted else old.document
    if document is None and was is None:
        raise Problem(404, "not-found", f"There is no own or changed metric {metric!r:.80}.")
    if document == was:
        return
    own = {state.id: state.document for state in known.values() if not state.deleted}
    own.pop(metric, None)
    if document is not None:
        own[metric] = document
    if len(own) > MAX_OWN:
        raise Problem(422, "too-many-metrics", f"Up to {MAX_OWN} metrics may be your own.")
    try:
        layered(parts.context.shipped, list(own.values()))
    except CatalogueError as error:
        raise Problem(422, "invalid-metric", str(error)) from error
    state = MetricDocument(
        tenant=tenant,
        version=max(real_micros(), old.version + 1 if old else 0),
        id=metric,
        revision=old.revision + 1 if old else 1,
        document=document or {},
        reason=reason,
        by=principal.person or MACHINE,
        at=datetime.now(UTC),
        former=_former(old),
        deleted=document is None,
    )
    try:
        await parts.publisher.publish([state])
    except PublishError as error:
        detail = "The metric could not be published; nothing was kept. Try again."
        raise Problem(503, "unavailable", detail, headers={"Retry-After": "5"}) from error
    await recounts.store_metrics(transaction, parts.context, [state])


def _former(old: MetricDocument | None) -> list[MetricRevision]:
    if old is None:
        return []
    document = None if old.deleted else old.document
    latest = MetricRevision(old.revision, document, old.reason, old.by, old.at)
    return [latest, *old.former][:MAX_REVISIONS]


async def _shown(
    parts: Parts, transaction: Transaction, principal: Principal, metric: str
) -> dict[str, object]:
    catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
    metric = metric.partition(STAGE)[0]
    written = catalogue.document()
    document = next(
        (m for m in (*written["metrics"], *written["derived"]) if m["id"] == metric), None
    )
    if document is None:
        raise unknown_metric(catalogue, metric)
    states = await parts.context.metrics.load(transaction, principal.tenant)
    own = next((state for state in states if state.id == metric), None)
    shipped = metric in parts.context.shipped.metrics
    changed = own is not None and not own.deleted
    return {
        "id": metric,
        "origin": "shipped" if not changed else "changed" if shipped else "own",
        "document": document,
        "revision": own.revision if own else 0,
        "reason": own.reason if own else "",
        "by": own.by if own else "",
        "at": own.at if own else None,
        "former": msgspec.to_builtins(own.former if own else [], builtin_types=(datetime,)),
    }


def _progress(found: Recount) -> dict[str, object]:
    finished = found.finished_at is not None
    return {
        "reason": found.reason,
        "types": sorted(found.types),
        "requested_at": found.requested_at,
        "finished_at": found.finished_at,
        "done": found.done,
        "total": found.total,
        "share": 1.0 if finished else found.done / found.total if found.total else 0.0,
    }
