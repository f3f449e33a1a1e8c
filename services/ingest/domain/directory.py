"""Directory entries from what people write; everything that is wrong is said at once."""

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from schemas.base import valid_id
from schemas.directory import (
    AnyEntry,
    Entry,
    Membership,
    Organisation,
    OwnerMapping,
    Person,
    Team,
)
from schemas.money import UnknownCurrencyError, exponent

KINDS: dict[str, type[Entry]] = {
    "organisation": Organisation,
    "person": Person,
    "team": Team,
    "membership": Membership,
    "owner": OwnerMapping,
}
MAX_TEXT = 300
_OWN = frozenset({"tenant", "version", "deleted", "kind", "id"})


class BadEntryError(ValueError):
    """What is wrong with an entry; one sentence per fault."""


def fields_of(kind: str) -> tuple[str, ...]:
    """The fields that one may write of a kind."""
    return tuple(n for n in KINDS[kind].__struct_fields__ if n not in _OWN)


def entry(  # an entry has these parts
    tenant: str,
    kind: str,
    number: str,
    fields: Mapping[str, Any],
    *,
    version: int,
    text: bool = False,
) -> AnyEntry:
    """The entry, checked; `text` means that all values are text, as in CSV."""
    faults = []
    if kind not in KINDS:
        raise BadEntryError(f"kind is none of {', '.join(KINDS)}")
    if not valid_id(number):
        faults.append("id must be 1 to 128 letters, digits, . _ : @ -")
    unknown = sorted(str(name)[:60] for name in fields.keys() - set(fields_of(kind)))
    if unknown:
        faults.append(f"unknown fields: {', '.join(unknown[:10])}")
    parts = {**fields, "tenant": tenant, "id": number, "version": version}
    try:
        made: Any = msgspec.convert(parts, KINDS[kind], strict=not text)
    except msgspec.ValidationError as error:
        raise BadEntryError("; ".join([*faults, str(error)])) from error
    faults += _faults(made)
    if faults:
        raise BadEntryError("; ".join(faults))
    return made  # type: ignore[no-any-return]  # convert gives the kind's class


def _faults(made: AnyEntry) -> list[str]:
    faults = [
        f"{name} is longer than {MAX_TEXT} characters or has a NUL"
        for name in made.__struct_fields__
        if isinstance(value := getattr(made, name), str)
        and (len(value) > MAX_TEXT or "\0" in value)
    ]
    match made:
        case Organisation():
            faults += _organisation(made)
        case Person():
            if made.zone and not _is_zone(made.zone):
                faults.append("zone is not an IANA time zone such as Europe/Berlin")
            if made.joined and made.left and made.left <= made.joined:
                faults.append("left must be after joined")
        case Team():
            faults += _ids(parent=made.parent or made.id)
            if made.parent == made.id:
                faults.append("a team can't be its own parent")
        case Membership():
            faults += [*_ids(person=made.person, team=made.team), *_validity(made)]
        case OwnerMapping():
            faults += [*_ids(source=made.source, person=made.person), *_validity(made)]
            if not made.owner_id:
                faults.append("owner_id is empty")
    return faults


def _organisation(made: Organisation) -> list[str]:
    faults = []
    if made.id != "all":
        faults.append('the organisation\'s id is "all"')
    if not _is_zone(made.zone):
        faults.append("zone is not an IANA time zone such as Europe/Berlin")
    try:
        exponent(made.currency)
    except UnknownCurrencyError as error:
        faults.append(str(error))
    if made.week_start not in range(7):
        faults.append("week_start is a weekday from 0 (Monday) to 6")
    if made.fiscal_year_start not in range(1, 13):
        faults.append("fiscal_year_start is a month from 1 to 12")
    return faults


def _ids(**ids: str) -> list[str]:
    return [f"{name} is not an id" for name, value in ids.items() if not valid_id(value)]


def _validity(made: Membership | OwnerMapping) -> list[str]:
    if made.valid_from and made.valid_to and made.valid_to <= made.valid_from:
        return ["valid_to must be after valid_from"]
    return []


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        return False
    return True
