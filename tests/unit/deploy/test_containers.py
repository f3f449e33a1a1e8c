"""docker-compose.yml and what it mounts, checked without an engine."""

import importlib
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import prepare
from kit.auth import Authenticator
from kit.settings import KitSettings
from schemas.topics import SERVICES
from services.ingest import gateway
from services.ingest.domain.sealing import Seal

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.mark.parametrize("name", CONTAINERS)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    for port in CONTAINERS[name].get("ports", []):
        assert port.startswith("127.0.0.1:"), port


@pytest.mark.parametrize("name", CONTAINERS)
def test_everything_restarts_is_checked_and_pinned(name: str) -> None:
    container = CONTAINERS[name]
    assert container["restart"] == "unless-stopped"
    assert container["healthcheck"]["test"][0] == "CMD"
    tag = container["image"].rpartition(":")[2]
    assert tag
    assert tag != "latest"


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_is_mounted_is_declared_and_exists(name: str, tmp_path: Path) -> None:
    container = CONTAINERS[name]
    made = set(prepare.prepare(tmp_path / "secrets"))
    for secret in container.get("secrets", []):
        folder, _, file = COMPOSE["secrets"][secret]["file"].rpartition("/")
        assert folder == "deploy/secrets"
        assert file in made
    for value in container.get("environment", {}).values():
        for secret in re.findall(r"/run/secrets/(\w+)", value):
            assert secret in container["secrets"]
    for volume in container.get("volumes", []):
        source = re.sub(r"^\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")[0]
        assert source in COMPOSE["volumes"] or (ROOT / source).exists(), volume
    for other in container.get("depends_on", []):
        assert other in CONTAINERS


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_is_configured_by_names_that_it_reads(service: str) -> None:
    container = CONTAINERS[service]
    own = importlib.import_module(f"services.{service}.settings").Settings
    known = {f"PACESETTER_{field.upper()}" for field in KitSettings.model_fields}
    known |= {f"{service.upper()}_{field.upper()}" for field in own.model_fields}
    assert set(container["environment"]) - known == {"PGPASSWORD_FILE"}
    assert container["command"] == ["serve", service]
    port = own().port
    assert container["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"127.0.0.1:{port}/readyz" in container["healthcheck"]["test"][-1]


@pytest.mark.parametrize("service", SERVICES)
def test_the_settings_of_the_containers_are_accepted(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CONTAINERS[service]["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value))
    own = importlib.import_module(f"services.{service}.settings").Settings()
    assert own.kit.host == "0.0.0.0"
    assert own.kit.kafka == "kafka:19092"
    assert own.database == f"postgresql://{service}@postgres:5432/{service}"


def test_no_secret_stands_in_the_environment() -> None:
    for name, container in CONTAINERS.items():
        for key, value in container.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN", key):
                path = value.removeprefix("file:")
                assert path.startswith("/run/secrets/"), f"{name}: {key}"


def test_kafka_is_the_release_of_the_local_stack() -> None:
    lock = json.loads((ROOT / "deploy/local/kafka.lock.json").read_text())
    assert CONTAINERS["kafka"]["image"] == f"apache/kafka:{lock['kafka']}"
    assert CONTAINERS["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_the_image_holds_what_the_dockerignore_lets_through() -> None:
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    let_through = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied: set[str] = set()
    for line in dockerfile.splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and not words[1].startswith("--"):
            copied.update(words[1:-1])
    assert copied == let_through
    assert all((ROOT / path).exists() for path in copied)
    assert "--require-hashes -c requirements.lock -r pyproject.toml" in dockerfile


async def test_prepare_makes_secrets_once_and_a_key_that_is_accepted(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    made = prepare.prepare(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(made) == set(before)
    assert prepare.prepare(folder) == []
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / prepare.API_KEY).stat().st_mode) == 0o600
    key = before[prepare.API_KEY].decode()
    assert key not in before[prepare.API_KEYS].decode()
    authenticator = Authenticator(KitSettings(api_keys=folder / prepare.API_KEYS))
    principal = authenticator._by_key(key)
    assert principal.tenant == "acme"
    assert set(principal.roles) == {"admin"}
    seal = Seal([(folder / prepare.SECRETS_KEY).read_text()])
    assert seal.open(seal.seal("of a CRM")) == "of a CRM"


def test_prepare_runs_without_our_dependencies(tmp_path: Path) -> None:
    script = tmp_path / "prepare.py"
    script.write_text((ROOT / "deploy/prepare.py").read_text())
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "secrets" / prepare.API_KEYS).exists()


def test_the_entrypoint_reads_the_password_and_becomes_the_command(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret with spaces\n")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$$|$PGPASSWORD|${PGPASSWORD_FILE-unset}|$*"\n')
    python.chmod(0o755)
    with subprocess.Popen(
        ["sh", str(ROOT / "deploy/entrypoint.sh"), "serve", "metrics"],
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PGPASSWORD_FILE": str(tmp_path / "secret"),
        },
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        said, _ = process.communicate(timeout=10)
    assert said == f"{process.pid}|s3cret with spaces|unset|-m services serve metrics\n"


def test_the_example_sources_are_read(tmp_path: Path) -> None:
    prepare.prepare(tmp_path / "secrets")
    example = (ROOT / "deploy/sources/sources.yaml").read_text()
    mounted = set(CONTAINERS["ingest"]["secrets"])
    assert set(re.findall(r"file:/run/secrets/(\w+)", example)) <= mounted
    sources = gateway.parse(example.replace("/run/secrets", str(tmp_path / "secrets")))
    assert {source.vendor for source in sources.values()} == {"hubspot", "pipedrive", "cloudevents"}
