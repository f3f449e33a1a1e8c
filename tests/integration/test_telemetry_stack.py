"""A real Prometheus scrapes every instrument: each panel's query has data, and the alerts work.

What is scraped is a process of its own, without what other tests have left in this one's registry:
all instruments of the code, moved a little all the time. Four targets, as configured for the
containers, are that one endpoint under four names.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram, start_http_server

import kit.telemetry
import services.ingest.telemetry
import services.metrics.telemetry
import services.notifications.telemetry
import services.payouts.telemetry
from deploy.grafana.dashboards import FOLDER
from schemas.topics import SERVICES
from services.ingest.api.receive import PATH

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRAPE_SECONDS = 0.5
PATIENCE_SECONDS = 25.0
MODULES = (
    kit.telemetry,
    services.ingest.telemetry,
    services.metrics.telemetry,
    services.notifications.telemetry,
    services.payouts.telemetry,
)
# Values that queries ask for; any other label gets one made up.
LABELS = {"route": [PATH, "/v1/boards"], "status": ["2xx", "5xx"], "topic": ["crm.records.v1"]}


def program(name: str) -> str:
    """The path of one of Prometheus's programs, or the reason why this can't be tested."""
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is missing; on Debian: apt-get install --no-install-recommends prometheus"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def children(instrument: Any) -> list[Any]:
    names = instrument._labelnames
    if not names:
        return [instrument]
    choices = max(len(LABELS.get(name, [""])) for name in names)
    return [
        instrument.labels(
            **{
                name: LABELS.get(name, [f"some-{name}"])[min(i, len(LABELS.get(name, [""])) - 1)]
                for name in names
            }
        )
        for i in range(choices)
    ]


def move_all() -> None:
    """Let every instrument of the code move once."""
    for module in MODULES:
        for value in vars(module).values():
            if isinstance(value, Counter | Gauge | Histogram):
                for child in children(value):
                    if isinstance(value, Histogram):
                        child.observe(0.02)
                    elif isinstance(value, Counter):
                        child.inc()


def expose(port: int) -> None:
    """Expose all instruments on the port while they move, for ever."""
    move_all()
    start_http_server(port, addr="127.0.0.1")
    while True:
        time.sleep(SCRAPE_SECONDS / 2)
        move_all()


@pytest.fixture(scope="module")
def exposed() -> Iterator[int]:
    """The port where all instruments are exposed while they move."""
    port = free_port()
    command = [sys.executable, "-m", "tests.integration.test_telemetry_stack", str(port)]
    with subprocess.Popen(command, cwd=DEPLOY.parent) as process:
        try:
            yield port
        finally:
            process.terminate()


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    client: httpx.Client

    def get(self, path: str, **query: str) -> Any:
        answer = self.client.get(f"/api/v1/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def values(self, query: str) -> list[float]:
        found = self.get("query", query=query)["result"]
        return [value for series in found if (value := float(series["value"][1])) == value]


@pytest.fixture(scope="module")
def prometheus(exposed: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus with the committed configuration, but for addresses and intervals."""
    server = program("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    interval = f"{int(SCRAPE_SECONDS * 1000)}ms"
    config["global"] = {"scrape_interval": interval, "evaluation_interval": "1s"}
    config["rule_files"] = [str(DEPLOY / "prometheus/alerts.yml")]
    for target in config["scrape_configs"][0]["static_configs"]:
        target["targets"] = [f"127.0.0.1:{exposed}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [
                server,
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        ) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        try:
            _wait_until_ready(client, process, folder / "log")
            yield Prometheus(client)
        finally:
            process.terminate()
            process.wait(timeout=10)


def _wait_until_ready(client: httpx.Client, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            if client.get("/-/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)


def test_every_query_of_every_panel_has_data(prometheus: Prometheus) -> None:
    waiting = {
        target["expr"].replace("$__rate_interval", "5s"): f"{path.name}: {panel['title']}"
        for path in FOLDER.glob("*.json")
        for panel in json.loads(path.read_text())["panels"]
        for target in panel.get("targets", [])
    }
    assert len(waiting) > 40
    assert not [query for query in waiting if "$" in query]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while waiting and time.monotonic() < deadline:
        time.sleep(SCRAPE_SECONDS)
        waiting = {query: panel for query, panel in waiting.items() if not prometheus.values(query)}
    assert not waiting, "these have no data: " + json.dumps(waiting, indent=1)


def test_all_targets_are_scraped_under_their_service(prometheus: Prometheus) -> None:
    targets = prometheus.get("targets")["activeTargets"]
    assert {target["labels"]["service"] for target in targets} == set(SERVICES)
    assert {target["health"] for target in targets} == {"up"}


def test_all_alerts_load_and_one_fires(prometheus: Prometheus) -> None:
    written = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
    names = [rule["alert"] for group in written["groups"] for rule in group["rules"]]
    deadline = time.monotonic() + PATIENCE_SECONDS
    # Dead letters are counted here all the time, and their alert waits for nothing.
    firing = False
    rules: list[dict[str, Any]] = []
    while not firing and time.monotonic() < deadline:
        time.sleep(0.2)
        groups = prometheus.get("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        firing = ("DeadLetters", "firing") in [(rule["name"], rule["state"]) for rule in rules]
    assert firing
    assert sorted(rule["name"] for rule in rules) == sorted(names)
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus/prometheus.yml"),
        ("check", "rules", "prometheus/alerts.yml"),
        ("test", "rules", "prometheus/alerts_test.yml"),
    ],
    ids=["config", "rules", "rule tests"],
)
def test_promtool(arguments: tuple[str, str, str]) -> None:
    *action, path = arguments
    done = subprocess.run(
        [program("promtool"), *action, str(DEPLOY / path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    expose(int(sys.argv[1]))
