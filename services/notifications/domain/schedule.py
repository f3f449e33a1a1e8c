"""When a window is due: local times that survive daylight saving, and the days in between."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from schemas.directory import Directory

_FALLBACK = ZoneInfo("UTC")
LONGEST_GAP_DAYS = 8  # a rule looks at one weekday at least


def zone(name: str) -> ZoneInfo | None:
    """The IANA zone of this name, None when there is no such zone."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def zone_of(directory: Directory, person: str) -> ZoneInfo:
    """The person's zone; a misspelt one gives way to the organisation's, and that to UTC."""
    return zone(directory.zone_of(person)) or zone(directory.organisation.zone) or _FALLBACK


def organisation_day(directory: Directory, instant: datetime) -> date:
    """The organisation's local day of an instant."""
    return instant.astimezone(zone(directory.organisation.zone) or _FALLBACK).date()


def due_at(day: date, at: time, where: ZoneInfo) -> datetime:
    """The instant of a local time on a day.

    A time that the clocks skip in spring counts as if they had not been moved yet; one that comes
    twice in autumn means the first.
    """
    return datetime.combine(day, at, where).astimezone(UTC)


def days_from(day: date) -> Iterator[date]:
    """`day` and the days after it, as far as a rule's next day can be away."""
    return (day + timedelta(days=number) for number in range(LONGEST_GAP_DAYS))
