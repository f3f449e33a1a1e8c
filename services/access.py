"""Who may see whose numbers: the one rule, asked by every service's API.

A rep sees the own person, own team's boards and own territories; a manager sees everyone in the
subtree, by the hierarchy in force on the day asked about; finance, ops, admin and machines with
those roles see the whole tenant. Tenants never see each other: every query carries the principal's
tenant.
"""

from datetime import date

from kit.auth import Principal
from kit.http import Problem
from schemas.directory import Directory


def sees_all(principal: Principal) -> bool:
    """Whether the principal may see everyone in the tenant."""
    return principal.has("finance", "ops")


def may_see_person(principal: Principal, directory: Directory, person: str, day: date) -> bool:
    """Whether the principal may see this person's own numbers of that day."""
    if sees_all(principal) or (principal.person and principal.person == person):
        return True
    return (
        principal.has("manager")
        and bool(principal.person)
        and directory.manages(principal.person, person, day)
    )


def may_see_team(principal: Principal, directory: Directory, team: str, day: date) -> bool:
    """Whether the principal may see this team's numbers of that day."""
    if sees_all(principal):
        return True
    if not principal.person:
        return False
    own = directory.teams_above(directory.team_of(principal.person, day))
    return team in own[:1] or (
        principal.has("manager") and team in directory.managed_teams(principal.person, day)
    )


def may_see_territory(
    principal: Principal, directory: Directory, territory: str, day: date
) -> bool:
    """Whether the principal may see this territory's numbers of that day."""
    if sees_all(principal):
        return True
    own = directory.territories_of(principal.person, day) if principal.person else []
    return territory in own


def may_see_organisation(principal: Principal) -> bool:
    """Whether the principal may see what all have done together."""
    return principal.has("rep", "manager", "finance", "ops")


def require_person(principal: Principal, directory: Directory, person: str, day: date) -> None:
    """Raise 403 unless the principal may see this person."""
    if not may_see_person(principal, directory, person, day):
        raise Problem(403, "forbidden", "You may see yourself and the people you manage.")


def require_subject(principal: Principal, directory: Directory, subject: str, day: date) -> None:
    """Raise 403 unless the principal may see the subject's numbers.

    What all of one job have done together may be what one person has done: it is not for everyone.
    """
    kind, _, name = subject.partition(":")
    if kind == "person":
        require_person(principal, directory, name, day)
    elif kind == "team":
        if not may_see_team(principal, directory, name, day):
            raise Problem(403, "forbidden", "You may see your own team and those you manage.")
    elif kind == "territory":
        if not may_see_territory(principal, directory, name, day):
            raise Problem(403, "forbidden", "You may see the territories that are assigned to you.")
    elif kind == "role":
        principal.require("finance", "ops")
    elif not may_see_organisation(principal):
        raise Problem(403, "forbidden", "This needs a role in the organisation.")
