"""What routes are given to work with, and what they share."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Depends, Path, Query
from starlette.requests import Request

from kit.auth import Authenticator, Principal, principal_dependency
from kit.clock import Clock
from kit.database import Database, Transaction
from kit.http import Problem
from kit.publisher import Publisher, PublishError
from kit.replica import Replica
from schemas.base import State
from schemas.crm import Received, Record, SourceState
from schemas.directory import Entry
from services.ingest.domain.facts import Outcome
from services.ingest.gateway import Sources
from services.ingest.settings import Settings
from services.ingest.store.quarantine import Quarantined
from services.ingest.tracing import Tracer

Replay = Callable[
    [Transaction, Sequence[Quarantined]],
    Awaitable[tuple[list[Record], list[Quarantined], list[Quarantined]]],
]
Preview = Callable[
    [Transaction, Received],
    Awaitable[tuple[list[tuple[int, Outcome]], list[tuple[Record | None, Record]]]],
]

# PostgreSQL's text takes no NUL; everything else simply isn't found.
NO_NUL = r"^[^\x00]*$"
Name = Annotated[str, Path(pattern=NO_NUL, max_length=300)]
PlaceNumber = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Limit = Annotated[int, Query(ge=1, le=1000, description="Items per page.")]
StateT = TypeVar("StateT", bound=State)
Cursor = Annotated[str, Query(max_length=500, description="`next` of the page before.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The collaborators of the routes."""

    settings: Settings
    database: Database
    publisher: Publisher
    replica: Replica[Entry]
    sources: Sources
    authenticator: Authenticator
    replay: Replay
    publish_records: Callable[[Sequence[Record]], Awaitable[None]]
    preview: Preview
    tracer: Tracer
    now_us: Callable[[], int]
    clock: Clock

    def operator(self) -> Any:
        """A dependency: a principal who may look after ingest."""
        principal = principal_dependency(self.authenticator)

        async def require(found: Annotated[Principal, Depends(principal)]) -> Principal:
            found.require("ops")
            return found

        return Depends(require)

    def anyone(self) -> Any:
        """A dependency: whoever is authenticated."""
        return Depends(principal_dependency(self.authenticator))

    async def publish(self, states: Sequence[State]) -> None:
        """Publish, or answer 503: what is stored is published when the request is repeated."""
        try:
            await self.publisher.publish(states)
        except PublishError as error:
            raise unavailable(self.settings) from error


def unavailable(
    settings: Settings, detail: str = "Kafka does not answer; send it again."
) -> Problem:
    """503 that says when to come back."""
    wait = str(settings.retry_after_seconds)
    return Problem(503, "unavailable", detail, headers={"Retry-After": wait})


async def json_body(request: Request, kind: Any) -> Any:
    """The request's body as this type; 400 says where it is wrong."""
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise Problem(400, "malformed", f"The body is not what is expected: {error}.") from error


def shown_bytes(name: str, data: bytes) -> dict[str, Any]:
    """Bytes as text under this name, or as `<name>_base64` where they are none."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": data}  # msgspec writes bytes as base64


def versioned(state: StateT, current: State | None, now_us: int) -> StateT:
    """With the current version where nothing changes, else with a higher one."""
    if current is None:
        return msgspec.structs.replace(state, version=now_us)
    same = msgspec.structs.replace(state, version=current.version)
    if same == current:
        return same
    return msgspec.structs.replace(state, version=max(current.version + 1, now_us))


def check_match(if_match: str, current: Entry | SourceState | None, what: str) -> None:
    """Raise 412 unless `If-Match` names the version that is there."""
    version = "" if current is None or current.deleted else f'"{current.version}"'
    if if_match != version and not (if_match == "*" and version):
        detail = f"Someone has changed this {what}; read it again and repeat your change."
        raise Problem(412, "changed-meanwhile", detail)


def body_schema(media: str, schema: dict[str, Any]) -> dict[str, Any]:
    """How OpenAPI describes a body that is read by hand."""
    return {"requestBody": {"required": True, "content": {media: {"schema": schema}}}}
