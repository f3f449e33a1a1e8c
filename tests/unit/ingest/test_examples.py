"""Every vendor's samples and traps, as the vendor sends them: `examples/<vendor>/<case>.yaml`.

A case has `about`, the request (`method`, `headers`, and one of `body` (a value sent as JSON),
`text`, `base64`), what differs from a plain `source` of the vendor, and `expect`: one mapping per
outcome, of which every key must be in the canonical event with this value. In mappings, further
keys may be there; lists must be equal. `{}` expects anything.
"""

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from schemas.crm import Received
from services.ingest.domain import canonical, readers
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import all_vendors
from tests.support import TENANT, instant
from tests.unit.ingest.bodies import RECEIVED_US

FOLDER = Path(__file__).parent / "examples"
CASES = sorted(FOLDER.glob("*/*.yaml"))


def read_case(path: Path) -> tuple[dict[str, Any], Received, Source]:
    """A case with its request and its source."""
    case = yaml.safe_load(path.read_text())
    vendor = path.parent.name
    source = msgspec.convert(
        {"id": "crm", "tenant": TENANT, "vendor": vendor} | case.get("source", {}), Source
    )
    return case, request(case, source), source


def request(case: dict[str, Any], source: Source) -> Received:
    """The request as it is after it was received."""
    if "text" in case:
        body = case["text"].encode()
    elif "base64" in case:
        body = base64.b64decode(case["base64"])
    else:
        body = json.dumps(case["body"]).encode()
    return Received(
        tenant=source.tenant,
        version=RECEIVED_US,
        source=source.id,
        vendor=source.vendor,
        id="r1",
        received_at=instant("2026-01-15T18:00"),
        method=case.get("method", "POST"),
        url=case.get("url", f"http://127.0.0.1:8001/v1/sources/{source.id}/events"),
        headers={"content-type": "application/json"} | case.get("headers", {}),
        body=body,
        auth="test",
    )


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Where what was found lacks what is expected."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return [
            problem
            for key, value in expected.items()
            for problem in (
                differences(value, found[key], f"{where}.{key}")
                if key in found
                else [f"{where}.{key} is missing"]
            )
        ]
    return [] if expected == found else [f"{where}: expected {expected!r}, found {found!r}"]


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_example(path: Path) -> None:
    case, received, source = read_case(path)

    assert case["about"]
    found = [canonical.outcome(received, *one) for one in readers.read(received, source)]

    shown = json.dumps(found, indent=1, default=str)
    assert len(found) == len(case["expect"]), shown
    for number, expected in enumerate(case["expect"]):
        plain = json.loads(json.dumps(found[number], default=str))
        assert not differences(expected, plain, f"[{number}]"), shown


def test_every_vendor_has_examples() -> None:
    assert {path.parent.name for path in CASES} == set(all_vendors())
