"""What a system must be told before (and once while) the play runs, by its APIs and its files."""

import base64
import secrets as random_secrets
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from simulator.client import Client
from simulator.organisation import (
    CURRENCY,
    HUBSPOT,
    PARTNERS,
    PIPEDRIVE,
    TENANT,
    ZONE,
    Company,
    Mapping,
)
from simulator.vendors import Secrets

PLAN_FILE = Path(__file__).with_name("plan.yaml")
Entry = dict[str, Any]


def plan_document() -> dict[str, Any]:
    """The incentive plan of the play."""
    document: dict[str, Any] = yaml.safe_load(PLAN_FILE.read_text())
    return document


def new_webhook_secret() -> str:
    """A Standard Webhooks secret."""
    return "whsec_" + base64.b64encode(random_secrets.token_bytes(24)).decode()


def sources_yaml(secrets: Secrets) -> str:
    """The sources that ingest takes webhooks from."""
    return yaml.safe_dump(
        [
            {
                "id": HUBSPOT,
                "tenant": TENANT,
                "vendor": "hubspot",
                "secrets": [secrets.hubspot_client_secret],
            },
            {
                "id": PIPEDRIVE,
                "tenant": TENANT,
                "vendor": "pipedrive",
                "username": secrets.pipedrive_user,
                "secrets": [secrets.pipedrive_password],
            },
            {"id": PARTNERS, "tenant": TENANT, "vendor": "cloudevents"},
        ],
        sort_keys=False,
    )


def endpoints_yaml(url: str, secret: str) -> str:
    """Where notifications sends webhooks."""
    endpoint = {"id": "demo", "tenant": TENANT, "url": url, "secret": secret, "rules": "all"}
    return yaml.safe_dump({"endpoints": [endpoint]})


def directory(company: Company) -> list[Entry]:
    """All directory entries but the mappings that become known late."""
    entries: list[Entry] = [
        {
            "kind": "organisation",
            "id": "all",
            "name": "Acme",
            "zone": ZONE,
            "currency": CURRENCY,
            "week_start": 0,
            "fiscal_year_start": 1,
        }
    ]
    entries += [_plain("team", asdict(team), ("id", "name", "parent")) for team in company.teams]
    person_fields = ("id", "name", "email", "zone", "role", "joined", "left")
    entries += [_plain("person", asdict(person), person_fields) for person in company.people]
    entries += [_plain("membership", asdict(m)) for m in company.memberships]
    return entries + _owners(m for m in company.mappings if not m.late)


def late_directory(company: Company) -> list[Entry]:
    """The mappings that become known while the play runs."""
    return _owners(m for m in company.mappings if m.late)


def _owners(mappings: Iterable[Mapping]) -> list[Entry]:
    return [_plain("owner", asdict(m), ("id", "source", "owner_id", "person")) for m in mappings]


def _plain(kind: str, fields: dict[str, Any], names: tuple[str, ...] = ()) -> Entry:
    found: Entry = {"kind": kind}
    for name in names or fields:
        value = fields[name]
        if value not in (None, ""):
            found[name] = value if isinstance(value, str | bool) else str(value)
    return found


async def everything(client: Client, company: Company) -> None:
    """Tell the services who is who, what is to be reached and what is paid."""
    await client.put("ingest", "/v1/directory", json=directory(company))
    await client.put("metrics", "/v1/goals", json=goals(company))
    await put_plan(client)


async def put_plan(client: Client) -> None:
    """Publish the plan, as written."""
    await client.put(
        "payouts",
        f"/v1/plans/{plan_document()['plan']}",
        content=PLAN_FILE.read_bytes(),
        headers={"content-type": "application/yaml"},
    )


async def late(client: Client, company: Company) -> None:
    """Map the CRM accounts that were forgotten."""
    await client.put("ingest", "/v1/directory", json=late_directory(company))


def goals(company: Company) -> list[dict[str, str]]:
    """All goals, as metrics takes them."""
    return [
        {
            "subject": goal.subject,
            "metric": goal.metric,
            "period": goal.period,
            "target": str(goal.target),
            "unit": goal.unit,
        }
        for goal in company.goals
    ]
