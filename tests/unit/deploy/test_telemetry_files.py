"""Dashboards, alerts, runbooks and the instruments in the code say the same."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from prometheus_client.metrics import MetricWrapperBase
from starlette.requests import Request
from starlette.responses import Response

import kit.http
import kit.telemetry
import services.ingest.telemetry
import services.metrics.telemetry
import services.notifications.telemetry
import services.payouts.telemetry
from deploy.grafana import dashboards
from kit.database import POOL_SIZE
from schemas.topics import BY_NAME, SERVICES
from services.ingest.api.receive import PATH

ROOT = Path(__file__).parents[3]
RUNBOOKS = ROOT / "docs" / "runbooks"
MODULES = (
    kit.telemetry,
    services.ingest.telemetry,
    services.metrics.telemetry,
    services.notifications.telemetry,
    services.payouts.telemetry,
)
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}


def instruments() -> dict[str, set[str]]:
    """Every series name that the code can expose, with its labels."""
    found: dict[str, set[str]] = {}
    for module in MODULES:
        for value in vars(module).values():
            if isinstance(value, MetricWrapperBase):
                for suffix in SUFFIXES[value._type or ""]:
                    own = {"le"} if suffix == "_bucket" else set()
                    found[value._name + suffix] = own | set(value._labelnames)
    return found


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    panels = [panel for row in dashboards.WAY_OF_AN_EVENT for panel in row.panels]
    queries = [query.expr for panel in panels for query in panel.queries]
    return queries + [rule["expr"] for rule in rules()]


def kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def test_dashboards_are_current() -> None:
    for name, text in dashboards.rendered().items():
        committed = (dashboards.FOLDER / name).read_text()
        assert committed == text, "run: python -m deploy.grafana.dashboards"
    assert {path.name for path in dashboards.FOLDER.iterdir()} == set(dashboards.rendered())


def test_panels_neither_overlap_nor_leave_the_grid() -> None:
    for text in dashboards.rendered().values():
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(text)["panels"]:
            at = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(at["x"], at["x"] + at["w"])
                for y in range(at["y"], at["y"] + at["h"])
            }
            assert at["x"] + at["w"] <= dashboards.WIDTH
            assert not cells & taken, panel["title"]
            taken |= cells


def test_every_instrument_named_exists_with_the_labels_asked_for() -> None:
    known = instruments()
    for expr in expressions():
        names = set(re.findall(r"\bpacesetter_\w+", expr))
        assert names <= set(known), expr
        if not names:
            continue
        asked = {
            label.strip()
            for group in re.findall(r"\bby \(([^)]*)\)", expr)
            for label in group.split(",")
        } | set(re.findall(r"(\w+)(?:=|!=|=~|!~)\"", expr))
        given = {"service", "job", "instance", "job_name"}
        assert asked <= set().union(*(known[name] for name in names)) | given, expr


def test_own_label_job_is_asked_for_by_its_name_after_the_scrape() -> None:
    for expr in expressions():
        assert not re.search(r"\bby \([^)]*\bjob\b[^_]", expr.replace("job_name", "")), expr


def test_label_values_that_are_named_exist() -> None:
    text = "\n".join(expressions())
    assert set(re.findall(r'topic="([^"]+)"', text)) <= set(BY_NAME)
    routes = set(re.findall(r'route="([^"]+)"', text))
    assert routes == {PATH}
    named = re.findall(r'service=~?"([^"]+)"', text)
    assert {name for value in named for name in value.split("|")} <= set(SERVICES)


async def test_routes_are_labelled_as_queries_name_them() -> None:
    async def answer(_: Request) -> Response:
        return Response("fine")

    app = FastAPI()
    kit.http.install(app, max_body_bytes=10)
    app.add_route(PATH, answer)
    app.add_route("/readyz", lambda _: Response("fine"))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://here") as client:
        for path in ("/v1/sources/some-id/events", "/readyz", "/nowhere"):
            await client.get(path)
    labelled = set(kit.telemetry.HTTP_SECONDS._metrics)
    assert {(PATH, "2xx"), ("/readyz", "2xx"), ("none", "4xx")} <= labelled
    assert not [labels for labels in labelled if "some-id" in labels[0]]


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    alerts = {rule["alert"] for rule in rules()}
    for rule in rules():
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{kebab(rule['alert'])}.md"
        assert rule["labels"]["severity"] in {"page", "ticket"}
    files = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert files == {kebab(alert) for alert in alerts}
    index = (RUNBOOKS / "README.md").read_text()
    for name in files:
        assert f"({name}.md)" in index


def test_runbooks_named_in_help_texts_exist() -> None:
    for module in MODULES:
        for name in re.findall(
            r"docs/runbooks/([\w-]+\.md)", Path(module.__file__ or "").read_text()
        ):
            assert (RUNBOOKS / name).exists()


def test_commands_in_runbooks_exist() -> None:
    tree = ast.parse((ROOT / "services/__main__.py").read_text())
    known = {
        decorator.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call)
        and decorator.args
        and isinstance(decorator.args[0], ast.Constant)
    }
    composed = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for path in RUNBOOKS.glob("*.md"):
        text = path.read_text()
        for container, command in re.findall(r"docker compose run --rm (\w+) ([a-z-]+)", text):
            assert container in composed, path.name
            assert command in known, path.name
        for action, container in re.findall(
            r"docker compose (logs|stop|start|restart|exec)(?: --\S+(?: \d\w*)?)* (\w+)", text
        ):
            assert container in composed, f"{path.name}: {action}"
        for topic in re.findall(r"--topic (\S+)", text):
            source, _, rest = topic.rpartition(".dead.v1")
            assert topic in BY_NAME or (not rest and source.rpartition(".")[0] in BY_NAME), topic


def test_the_runbook_of_jobs_knows_every_job() -> None:
    page = (RUNBOOKS / "job-failures.md").read_text()
    for path in (ROOT / "services").glob("*/*.py"):
        for name in re.findall(r'\bJob\(\s*"([^"]+)"', path.read_text()):
            assert f"`{name}`" in page, path


def test_every_alert_is_tested_firing_and_quiet() -> None:
    document = yaml.safe_load((ROOT / "deploy/prometheus/alerts_test.yml").read_text())
    cases = [case for test in document["tests"] for case in test["alert_rule_test"]]
    alerts = {rule["alert"] for rule in rules()}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == alerts
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == alerts


def test_the_connection_alert_knows_the_pool() -> None:
    [rule] = [rule for rule in rules() if rule["alert"] == "DatabaseConnections"]
    assert f"of its {2 * POOL_SIZE} database connections" in rule["annotations"]["summary"]
    assert POOL_SIZE < int(rule["expr"].rpartition(">=")[2]) < 2 * POOL_SIZE


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_scraped_where_it_listens(service: str) -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    [job] = config["scrape_configs"]
    targets = {c["labels"]["service"]: c["targets"] for c in job["static_configs"]}
    port = __import__(f"services.{service}.settings", fromlist=["Settings"]).Settings().port
    assert job["job_name"] == "pacesetter"
    assert targets[service] == [f"{service}:{port}"]
