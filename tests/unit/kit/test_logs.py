"""Logs are one JSON object per line, and a traceback never shows what variables held."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from kit import logs
from kit.settings import KitSettings


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_never_shows_what_variables_held(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(KitSettings.model_validate({"log_format": log_format}), service="metrics")

    def connect(password: str) -> None:
        raise ConnectionError(len(password))

    try:
        connect("hunter2hunter2")
    except ConnectionError:
        structlog.get_logger("a").exception("connect_failed")
        logging.getLogger("b").exception("connect failed")

    said = capsys.readouterr().out
    assert "ConnectionError" in said
    assert "hunter2hunter2" not in said.replace('connect("hunter2hunter2")', "")


def test_every_line_is_an_object_whoever_wrote_it(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(KitSettings(log_format="json"), service="metrics")
    structlog.get_logger("ours").info("counted", number=5)
    logging.getLogger("theirs").warning("careful with %s", "that")

    ours, theirs = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (ours["event"], ours["number"], ours["service"]) == ("counted", 5, "metrics")
    assert (theirs["event"], theirs["level"]) == ("careful with that", "warning")
