"""What came out of a CRM: the request as received, and the record's state made from it.

`Received` is raw: the bytes, headers and instant of one request, kept so that a better reader can
be run over the past. `Record` is the last known state of one deal, call, e-mail, meeting, …, merged
field by field: the last writer by the *vendor's* position wins, never the last to arrive.

Record types: `opportunity`; the activities `call`, `email`, `meeting`, `task`, `message`, `note`;
`lead`, `contact`, `account`, `product`, `line_item`, `quote`; what the CRM says of itself: `user`
(an owner), `stage`, `pipeline`; and `x_<name>` for a vendor's or company's own types.

Canonical field names, by record type (all optional; a vendor's other properties keep their own name
behind `x_`):

* every type: `owner_id` (the CRM's id), `name`, `created_at`
* opportunity: `amount` (decimal text), `currency` (ISO 4217), `amount_period` (one_time, when
  absent | monthly | annual), `stage`, `pipeline`, `status` (open | won | lost), `closed_at`
  (instant won or lost), `expected_close`, `probability` (decimal text from 0 to 1), `deal_type`
  (new | existing | expansion | renewal, or the company's own word), `quantity` (decimal text),
  `discount` and `cost` (decimal text, money in `currency`; `amount` is what is left after the
  discount), `shares` (`owner=60;owner2=40`, percent that total 100)
* activities: `occurred_at`, `done` (bool), `outcome`, `direction`, `duration_seconds`; call and
  meeting: `kind` (the company's own name of it, such as demo, in small letters); task: `due_at`,
  `completed_at`
* lead: `status`, `converted_at`, `first_response_at`, `lead_source` (as the CRM names it); contact,
  account, user: `email`; user: `active` (bool)
* quote: `status` (draft | sent | accepted | declined), `sent_at`, `accepted_at`
* stage: `name`, `pipeline`, `status` (open | won | lost), `rank`, `probability`; pipeline: `name`

`SourceState` is a CRM account as configured by API. `Discard` is the decision that an item which
can't be read is given up.
"""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from schemas.base import State

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
FieldState = Literal["value", "cleared", "unknown", "redacted"]
Scalar = str | int | bool | None

OPPORTUNITY, CALL, EMAIL, MEETING = "opportunity", "call", "email", "meeting"
TASK, MESSAGE, NOTE = "task", "message", "note"
LEAD, CONTACT, ACCOUNT = "lead", "contact", "account"
PRODUCT, LINE_ITEM, QUOTE = "product", "line_item", "quote"
USER, STAGE, PIPELINE = "user", "stage", "pipeline"
RECORD_TYPES = frozenset(
    {
        *(OPPORTUNITY, CALL, EMAIL, MEETING, TASK, MESSAGE, NOTE, LEAD, CONTACT, ACCOUNT),
        *(PRODUCT, LINE_ITEM, QUOTE, USER, STAGE, PIPELINE),
    }
)


class Received(State, frozen=True, kw_only=True, omit_defaults=True):
    """One request as a CRM sent it. `version` is the receive time in µs; nothing replaces it."""

    topic: ClassVar[str] = "crm.received.v1"

    source: str
    vendor: str
    id: str  # ours: unique per request
    received_at: Instant
    method: str
    url: str  # the public URL that signatures cover
    headers: dict[str, str]  # names in lower case; without credentials
    body: bytes  # base64 in JSON
    auth: str  # how it was authenticated, e.g. "hubspot.v3"
    trace: str = ""  # W3C traceparent

    @property
    def key(self) -> str:
        """Spread over partitions: the order of requests means nothing, positions decide."""
        return f"{self.tenant}/{self.source}/{self.id}"


class Backfilled(Received, frozen=True, kw_only=True, omit_defaults=True):
    """A request that nobody waits for: imported, or read from the CRM to fill a gap."""

    topic: ClassVar[str] = "crm.backfill.v1"


class Field(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One field's last known state, and the vendor position (`at` µs, then `by`) that set it."""

    state: FieldState
    value: Scalar
    at: int
    by: str

    @property
    def position(self) -> tuple[int, str]:
        """Order of writes to this field: the vendor's instant, ties broken by event id."""
        return (self.at, self.by)


ERASED = "_redacted"  # a register among the fields: at its position everything was erased


class StageEntry(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """A stage that the record was in from the instant `at` (µs since the epoch)."""

    at: int
    stage: str


class Record(State, frozen=True, kw_only=True, omit_defaults=True):
    """The full known state of one CRM record."""

    topic: ClassVar[str] = "crm.records.v1"

    type: str
    id: str  # "<source>:<the vendor's id>"
    source: str
    vendor: str
    fields: dict[str, Field]
    deleted: bool = False
    changed: list[str] = []  # names of the fields that the last version changed
    stages: list[StageEntry] = []
    # What expected_close was before, oldest first: one for each instant at which the CRM told it,
    # changed or not, so that late facts find their place; as the field, `at` is that instant.
    expected_before: list[Field] = []
    received_at: Instant | None = None  # when the request that made this version came in
    received: str = ""  # its id
    trace: str = ""
    op: str = ""  # what the last event did: created, updated, merged, erased, …
    actor: str = ""  # the CRM's id of who did it; not the owner

    @property
    def key(self) -> str:
        """`tenant/record type/record id`."""
        return f"{self.tenant}/{self.type}/{self.id}"

    @property
    def erased(self) -> bool:
        """Whether what was known of it must be forgotten wherever it went."""
        return self.deleted and ERASED in self.fields

    def get(self, name: str) -> Scalar:
        """The field's value, or None when it is unknown, cleared or redacted."""
        field = self.fields.get(name)
        return field.value if field is not None and field.state == "value" else None

    def text(self, name: str) -> str | None:
        """The field as text, None when there is none."""
        value = self.get(name)
        return None if value is None else str(value)

    def decimal(self, name: str) -> Decimal | None:
        """The field as a finite decimal, None when there is none or it isn't a number."""
        value = self.get(name)
        if value is None or isinstance(value, bool):
            return None
        try:
            number = Decimal(value)
        except InvalidOperation:
            return None
        return number if number.is_finite() else None

    def instant(self, name: str) -> datetime | None:
        """The field as a UTC instant, None when there is none or it isn't one."""
        value = self.get(name)
        if not isinstance(value, str):
            return None
        try:
            instant = datetime.fromisoformat(value)
            return instant.astimezone(UTC) if instant.tzinfo else None
        except (ValueError, OverflowError):  # the first and last year have no room for zones
            return None


class StoredSecret(msgspec.Struct, frozen=True, omit_defaults=True):
    """A secret of a source: encrypted (`sealed:…`), or where each process finds it."""

    value: str
    until: Instant | None = None  # replaced: no longer accepted from then on


class SourceState(State, frozen=True, kw_only=True, omit_defaults=True):
    """A CRM account that sends us events, as configured by API."""

    topic: ClassVar[str] = "crm.sources.v1"

    id: str
    settings: dict[str, Any]  # by ingest's own names; credentials in it are stored like secrets
    secrets: list[StoredSecret] = []  # the current one first
    deleted: bool = False

    @property
    def key(self) -> str:
        """`tenant/source`."""
        return f"{self.tenant}/{self.id}"


class Discard(State, frozen=True, kw_only=True, omit_defaults=True):
    """An item of a request that could not be read and that somebody has given up, for good."""

    topic: ClassVar[str] = "crm.discards.v1"

    received: str  # the request's id
    index: int  # of the item in it
    source: str
    reason: str
    by: str = ""  # the person; empty: a machine

    @property
    def key(self) -> str:
        """`tenant/request id.index`, as the item is called in the quarantine."""
        return f"{self.tenant}/{self.received}.{self.index}"
