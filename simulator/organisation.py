"""Who sells: people, teams, memberships, CRM accounts and goals of one organisation, from a seed.

A sales director, six teams with a manager each, and their reps. Four teams work in HubSpot and two
in Pipedrive; somebody changes teams, somebody leaves, some have just joined, and one CRM account is
mapped to its person only while the play runs.
"""

import random
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal

TENANT = "acme"
ZONE = "America/New_York"
CURRENCY = "USD"
HUBSPOT, PIPEDRIVE, PARTNERS = "hubspot", "pipedrive", "partners"

FIRST_NAMES = [
    "Maya",
    "Liam",
    "Priya",
    "Diego",
    "Aisha",
    "Noah",
    "Chloe",
    "Mateo",
    "Hana",
    "Oliver",
    "Zara",
    "Ethan",
    "Ingrid",
    "Kofi",
    "Elena",
    "Lucas",
    "Mei",
    "Omar",
    "Freya",
    "Samuel",
    "Leila",
    "Jonas",
    "Camila",
    "Tobias",
    "Nadia",
    "Marcus",
    "Yuki",
    "Rafael",
    "Amara",
    "Felix",
    "Sofia",
    "Idris",
    "Clara",
    "Andre",
    "Noor",
    "Hugo",
    "Tessa",
    "Viktor",
    "Ines",
    "Daniel",
    "Ruth",
    "Emil",
    "Paula",
    "Simon",
    "Greta",
]
LAST_NAMES = [
    "Chen",
    "Okafor",
    "Novak",
    "Rivera",
    "Haddad",
    "Berg",
    "Laurent",
    "Silva",
    "Tanaka",
    "Walsh",
    "Khan",
    "Brooks",
    "Lind",
    "Mensah",
    "Petrova",
    "Moreau",
    "Zhao",
    "Farouk",
    "Nilsen",
    "Grant",
    "Rahimi",
    "Weber",
    "Torres",
    "Adler",
    "Ivanova",
    "Reid",
    "Sato",
    "Duarte",
    "Obi",
    "Hart",
    "Costa",
    "Bello",
    "Winter",
    "Dupont",
    "Aziz",
    "Marsh",
    "Keane",
    "Orlov",
    "Pinto",
    "Frost",
    "Levy",
    "Holm",
    "Ramos",
    "Price",
    "Stein",
]


@dataclass(frozen=True, slots=True)
class Segment:
    """What kind of business a team does."""

    source: str
    median_amount: int
    spread: float  # of the amounts' logarithm: how heavy the tail is
    deals_per_day: float  # new opportunities of an average rep
    euro_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Team:
    """A team; `segment` is None above the teams that sell."""

    id: str
    name: str
    parent: str = ""
    segment: Segment | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """Someone who sells or manages, with what makes the days of each different."""

    id: str
    name: str
    email: str
    role: str
    zone: str
    joined: date
    left: date | None
    owner_id: str  # in the CRM that the team works in
    source: str
    energy: float  # how much the person does, 1 is usual
    skill: float  # how often it works out, 1 is usual


@dataclass(frozen=True, slots=True)
class Membership:
    """`person` belongs to `team` in `[valid_from, valid_to)`."""

    id: str
    person: str
    team: str
    manages: bool = False
    valid_from: date | None = None
    valid_to: date | None = None


@dataclass(frozen=True, slots=True)
class Mapping:
    """The CRM account `owner_id` of `source` is `person`."""

    id: str
    source: str
    owner_id: str
    person: str
    late: bool = False  # made known only while the play runs


@dataclass(frozen=True, slots=True)
class Goal:
    """What a subject is to reach."""

    subject: str
    metric: str
    period: str
    target: Decimal
    unit: str


@dataclass(frozen=True, slots=True)
class Company:
    """Everything that is known about the organisation, as of the end of the play."""

    start_day: date
    people: tuple[Person, ...]
    teams: tuple[Team, ...]
    memberships: tuple[Membership, ...]
    mappings: tuple[Mapping, ...]
    goals: tuple[Goal, ...]

    def team_of(self, person: str, day: date) -> Team | None:
        """The team whose business the person does on that day."""
        for m in self.memberships:
            after = m.valid_from is None or m.valid_from <= day
            if m.person == person and after and (m.valid_to is None or day < m.valid_to):
                return next(t for t in self.teams if t.id == m.team)
        return None


_ENTERPRISE = Segment(HUBSPOT, 22_000, 0.95, 0.5)
_MID_MARKET = Segment(HUBSPOT, 9_000, 0.85, 1.0)
_SMALL = Segment(PIPEDRIVE, 3_200, 0.75, 1.5)
_EUROPE = Segment(PIPEDRIVE, 8_000, 0.85, 1.0, euro_share=0.6)

TEAMS = (
    Team("sales", "Sales"),
    Team("enterprise-east", "Enterprise East", "sales", _ENTERPRISE),
    Team("enterprise-west", "Enterprise West", "sales", _ENTERPRISE),
    Team("mid-market-north", "Mid-Market North", "sales", _MID_MARKET),
    Team("mid-market-south", "Mid-Market South", "sales", _MID_MARKET),
    Team("small-business", "Small Business", "sales", _SMALL),
    Team("europe", "Europe", "sales", _EUROPE),
)
_REPS = {
    "enterprise-east": 6,
    "enterprise-west": 5,
    "mid-market-north": 6,
    "mid-market-south": 5,
    "small-business": 6,
    "europe": 5,
}
_ZONES = {
    "enterprise-west": "America/Los_Angeles",
    "mid-market-south": "America/Chicago",
    "europe": "Europe/London",
}
ELSEWHERE = 0.6  # of the people of a team with another zone live in it


def make_company(seed: int, start_day: date) -> Company:
    """The organisation that plays from `start_day` on."""
    rng = random.Random(f"{seed}:organisation")  # noqa: S311  # a play, not a secret
    names = _names(rng, 1 + sum(1 + reps for reps in _REPS.values()))
    people = [_person(rng, names.pop(), TEAMS[0], "manager", 1, start_day)]
    memberships = [Membership("m-director", people[0].id, "sales", manages=True)]
    for team in TEAMS[1:]:
        for number in range(1 + _REPS[team.id]):
            role = "rep" if number else "manager"
            person = _person(rng, names.pop(), team, role, len(people) + 1, start_day)
            people.append(person)
            memberships.append(
                Membership(f"m-{person.id}", person.id, team.id, manages=role == "manager")
            )
    _change_of_team(people, memberships, start_day)
    people = _comings_and_goings(people, start_day)
    mappings = _mappings(people)
    return Company(
        start_day=start_day,
        people=tuple(people),
        teams=TEAMS,
        memberships=tuple(memberships),
        mappings=tuple(mappings),
        goals=tuple(_goals(memberships, start_day)),
    )


def _names(rng: random.Random, count: int) -> list[str]:
    first, last = rng.sample(FIRST_NAMES, count), rng.sample(LAST_NAMES, count)
    return [f"{a} {b}" for a, b in zip(first, last, strict=True)]


def _person(
    rng: random.Random, name: str, team: Team, role: str, number: int, start_day: date
) -> Person:
    source = team.segment.source if team.segment else HUBSPOT
    zone = _ZONES.get(team.id, "")
    slug = name.lower().replace(" ", ".")
    return Person(
        id=slug.replace(".", "-"),
        name=name,
        email=f"{slug}@acme.example",
        role=role,
        zone=zone if rng.random() < ELSEWHERE else "",
        joined=start_day - timedelta(days=rng.randint(300, 2500)),
        left=None,
        owner_id=str(70_000_000 + number * 1_317 if source == HUBSPOT else 1_000 + number),
        source=source,
        energy=min(1.5, max(0.45, rng.gauss(1.0, 0.22))),
        skill=min(1.8, max(0.5, rng.gauss(1.0, 0.25))),
    )


def _reps_of(people: list[Person], memberships: list[Membership], team: str) -> list[Person]:
    members = {m.person for m in memberships if m.team == team and not m.manages}
    return [person for person in people if person.id in members]


def _change_of_team(people: list[Person], memberships: list[Membership], start_day: date) -> None:
    """One rep moved before the visible days, another moves on the second of them."""
    moves = (
        ("enterprise-east", "mid-market-north", start_day - timedelta(days=10)),
        ("mid-market-south", "enterprise-west", start_day + timedelta(days=1)),
    )
    for old, new, day in moves:
        mover = _reps_of(people, memberships, old)[-1]
        memberships.remove(Membership(f"m-{mover.id}", mover.id, old))
        memberships += [
            Membership(f"m-{mover.id}", mover.id, old, valid_to=day),
            Membership(f"m-{mover.id}-2", mover.id, new, valid_from=day),
        ]


def _comings_and_goings(people: list[Person], start_day: date) -> list[Person]:
    reps = [person.id for person in people if person.role == "rep"]
    joined = {
        reps[4]: start_day - timedelta(days=45),
        reps[14]: start_day - timedelta(days=20),
        reps[25]: start_day - timedelta(days=4),
    }
    left = {reps[9]: start_day - timedelta(days=3)}
    tired = {reps[2], reps[19]}  # the dutiful coach should hear of them
    return [
        replace(
            person,
            joined=joined.get(person.id, person.joined),
            left=left.get(person.id),
            energy=0.4 if person.id in tired else person.energy,
        )
        for person in people
    ]


def _mappings(people: list[Person]) -> list[Mapping]:
    reps = [person for person in people if person.role == "rep"]
    late = {reps[7].id}
    made = [
        Mapping(f"{p.source}-{p.owner_id}", p.source, p.owner_id, p.id, late=p.id in late)
        for p in people
    ]
    # Partners report deals of a few reps by their e-mail address.
    made += [Mapping(f"partners-{p.id}", PARTNERS, p.email, p.id) for p in reps[:6]]
    return made


def _goals(memberships: list[Membership], start_day: date) -> list[Goal]:
    month = start_day.replace(day=1)
    quarter = month.replace(month=(month.month - 1) // 3 * 3 + 1)
    goals: list[Goal] = []
    total = 0.0
    for team in TEAMS[1:]:
        assert team.segment is not None
        reps = sorted({m.person for m in memberships if m.team == team.id and not m.manages})
        target: float = round(team.segment.median_amount * team.segment.deals_per_day * 7, -3)
        for rep in reps:
            goals += [
                _revenue(f"person:{rep}", f"month:{month}", target),
                _revenue(f"person:{rep}", f"quarter:{quarter}", target * 3),
            ]
        goals.append(_revenue(f"team:{team.id}", f"month:{month}", target * len(reps)))
        total += target * len(reps)
    newest = {(goal.subject, goal.period): goal for goal in goals}  # movers: the last team's
    return [
        *newest.values(),
        _revenue("team:sales", f"month:{month}", total),
        _revenue("org:all", f"month:{month}", total),
        _revenue("org:all", f"quarter:{quarter}", total * 3),
    ]


def _revenue(subject: str, period: str, target: float) -> Goal:
    return Goal(subject, "revenue_won", period, Decimal(int(target)), CURRENCY)
