"""Directory entries from what people write; everything that is wrong is said at once."""

import hashlib
from collections.abc import Container, Iterable, Mapping
from datetime import date
from typing import Any, get_args
from zoneinfo import ZoneInfo

import msgspec

from schemas.base import valid_id
from schemas.business_days import UnknownRegionError, check_region
from schemas.directory import (
    AnyEntry,
    Assignment,
    Dated,
    Entry,
    Holiday,
    Leave,
    Membership,
    Organisation,
    OwnerMapping,
    Person,
    Role,
    Team,
    Territory,
)
from schemas.money import UnknownCurrencyError, exponent
from schemas.periods import Pattern, YearEnd

KINDS: dict[str, type[Entry]] = {
    "organisation": Organisation,
    "person": Person,
    "team": Team,
    "membership": Membership,
    "owner": OwnerMapping,
    "territory": Territory,
    "assignment": Assignment,
    "leave": Leave,
    "role": Role,
    "holiday": Holiday,
}
MAX_TEXT = 300
MAX_CONDITIONS = 20  # fields that a territory looks at
MAX_LISTED = 10_000  # values in all: an account list
_CHOICES = {"fiscal_pattern": get_args(Pattern), "fiscal_year_end": get_args(YearEnd)}
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
    faults += [
        f"{name} is none of {', '.join(among)}"
        for name, among in _CHOICES.items()
        if name in fields and fields[name] not in among
    ]
    parts = {**fields, "tenant": tenant, "id": number, "version": version}
    if text and isinstance(days := parts.get("business_days"), str):
        parts["business_days"] = days.split()
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
        f"{name} is longer than {MAX_TEXT} characters or has a control character such as NUL"
        for name in made.__struct_fields__
        if isinstance(value := getattr(made, name), str)
        and (len(value) > MAX_TEXT or any(c < " " for c in value))
    ]
    match made:
        case Organisation():
            faults += _organisation(made)
        case Person():
            if made.zone and not _is_zone(made.zone):
                faults.append("zone is not an IANA time zone such as Europe/Berlin")
            if made.joined and made.left and made.left <= made.joined:
                faults.append("left must be after joined")
            faults += _region(made.region)
        case Holiday():
            faults += _region(made.region)
        case Team() | Territory():
            faults += _ids(parent=made.parent or made.id)
            if made.parent == made.id:
                faults.append("nothing can be its own parent")
            if isinstance(made, Territory):
                faults += _territory(made)
        case _:
            faults += _dated(made)
    return faults


def _territory(made: Territory) -> list[str]:
    faults = [
        f"where.{name[:60]} lists no value that a field could have"
        for name, among in made.where.items()
        if not among
    ]
    listed = sum(len(among) for among in made.where.values())
    if len(made.where) > MAX_CONDITIONS or listed > MAX_LISTED:
        faults.append(f"where has over {MAX_CONDITIONS} fields or {MAX_LISTED} values")
    if made.valid_from and made.valid_to and made.valid_to <= made.valid_from:
        faults.append("valid_to must be after valid_from")
    return faults


def _dated(made: Dated) -> list[str]:
    faults = _ids(person=made.person)
    match made:
        case Membership():
            faults += _ids(team=made.team)
        case OwnerMapping():
            faults += _ids(source=made.source)
            if not made.owner_id:
                faults.append("owner_id is empty")
        case Assignment():
            faults += _ids(territory=made.territory)
        case Leave():
            if made.valid_from is None:
                faults.append("valid_from is missing: a leave has a first day")
        case Role():
            if not made.role:
                faults.append("role is empty")
    if made.valid_from and made.valid_to and made.valid_to <= made.valid_from:
        faults.append("valid_to must be after valid_from")
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
    days = made.business_days
    if not days or len(set(days)) < len(days) or not set(days) <= set(range(7)):
        faults.append("business_days are different weekdays from 0 (Monday) to 6, at least one")
    return faults + _region(made.region)


def _region(region: str) -> list[str]:
    try:
        if region:
            check_region(region)
    except UnknownRegionError as error:
        return [str(error)]
    return []


def _ids(**ids: str) -> list[str]:
    return [f"{name} is not an id" for name, value in ids.items() if not valid_id(value)]


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        return False
    return True


def people_by_email(entries: Iterable[Entry]) -> dict[str, Person]:
    """The people whom an e-mail address, in small letters, names alone."""
    named: dict[str, list[Person]] = {}
    for person in entries:
        if isinstance(person, Person) and person.email and not person.deleted:
            named.setdefault(person.email.casefold(), []).append(person)
    return {email: found[0] for email, found in named.items() if len(found) == 1}


def mapped(
    known: Iterable[OwnerMapping], wanted: OwnerMapping, taken: Container[str]
) -> list[OwnerMapping]:
    """What to write so that the owner is this person from `valid_from` on.

    `known` are the owner's mappings, `taken` the ids of all mappings. Whoever the owner was before
    that day stays it until then, and whoever is to be it from a later day on still will be; what
    begins on the same day is replaced.
    """
    begin = _begin(wanted)
    others = [entry for entry in known if not entry.deleted]
    replaced = sorted((one for one in others if _begin(one) == begin), key=lambda one: one.id)
    later = [_begin(one) for one in others if _begin(one) > begin]
    ended = [
        msgspec.structs.replace(one, valid_to=begin)
        for one in others
        if _begin(one) < begin and (one.valid_to is None or one.valid_to > begin)
    ]
    gone = [msgspec.structs.replace(one, deleted=True) for one in replaced[1:]]
    number = replaced[0].id if replaced else _new_id(wanted, taken)
    made = msgspec.structs.replace(wanted, id=number, valid_to=min(later, default=None))
    return [*ended, *gone, made]


def _begin(mapping: OwnerMapping) -> date:
    return mapping.valid_from or date.min


def _new_id(wanted: OwnerMapping, taken: Container[str]) -> str:
    since = f"@{wanted.valid_from}" if wanted.valid_from else ""
    number = f"{wanted.source}:{wanted.owner_id}{since}"
    if not valid_id(number):  # an owner's id is the CRM's, and any text
        number = f"{wanted.source}:{hashlib.blake2b(number.encode(), digest_size=10).hexdigest()}"
    if number in taken:
        raise BadEntryError(f"the id {number!r} is another mapping's; change that one")
    return number
