"""The sources file: what it may say, and what happens when it changes."""

import os
from pathlib import Path

import pytest

from services.ingest.gateway import Sources, SourcesError, parse

HUB = "- {id: hub, tenant: acme, vendor: hubspot, secrets: [one]}\n"


def test_secrets_come_from_files_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("from-file\n")
    monkeypatch.setenv("HUB_SECRET", "from-env")

    found = parse(
        "- {id: hub, tenant: acme, vendor: hubspot, "
        f"secrets: ['env:HUB_SECRET', 'file:{tmp_path / 'secret'}', plain], "
        "stages: {won: ['1']}}"
    )

    assert found["hub"].secrets == ("from-env", "from-file", "plain")
    assert found["hub"].stages.status_of("1") == "won"
    assert found["hub"].stages.status_of("closedlost") == "lost"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not YAML"),
        ("hub: 1", "expected a list"),
        ("- {id: hub, tenant: acme, vendor: sap, secrets: [a]}", "source 1"),
        ("- {id: hub, tenant: acme, vendor: hubspot, secrets: [a], typo: 1}", "typo"),
        ("- {id: 'a:b', tenant: acme, vendor: hubspot, secrets: [a]}", "id must be"),
        ("- {id: hub, tenant: 'a/b', vendor: hubspot, secrets: [a]}", "tenant is not an id"),
        ("- {id: hub, tenant: acme, vendor: hubspot}", "needs secrets"),
        ("- {id: hub, tenant: acme, vendor: hubspot, secrets: ['']}", "secret is empty"),
        ("- {id: hub, tenant: acme, vendor: hubspot, secrets: ['env:NOT_SET_HERE']}", "not set"),
        ("- {id: hub, tenant: acme, vendor: hubspot, secrets: ['file:/nowhere']}", "secret file"),
        ("- {id: hub, tenant: acme, vendor: pipedrive, secrets: [a]}", "needs a username"),
        (HUB + HUB, "is taken"),
    ],
)
def test_what_is_wrong_is_said(text: str, words: str) -> None:
    with pytest.raises(SourcesError, match=words):
        parse(text)


def test_a_change_is_seen_and_a_bad_one_leaves_the_last_good(tmp_path: Path) -> None:
    path = tmp_path / "sources.yaml"
    path.write_text(HUB)
    sources = Sources(path)
    sources.load()
    assert _secrets(sources) == ("one",)

    _write(path, HUB.replace("one", "two"), 1)
    assert _secrets(sources) == ("two",)

    _write(path, "{", 2)
    assert _secrets(sources) == ("two",)

    path.unlink()
    assert _secrets(sources) == ("two",)


def test_without_a_file_there_are_no_sources() -> None:
    sources = Sources(None)
    sources.load()

    assert sources.get("hub") is None


def _secrets(sources: Sources) -> tuple[str, ...]:
    source = sources.get("hub")
    assert source is not None
    return source.secrets


def _write(path: Path, text: str, tick: int) -> None:
    path.write_text(text)
    os.utime(path, ns=(tick * 10**9, tick * 10**9))
