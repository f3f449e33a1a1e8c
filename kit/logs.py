"""Structured logs, configured once per process: a constant event name and facts as keys.

Bind what a unit of work is about once (`structlog.contextvars.bound_contextvars(tenant=…)`); never
log payloads, tokens or secrets.
"""

import logging
import sys
from typing import Any

import structlog

from kit.settings import KitSettings


def configure(settings: KitSettings, *, service: str) -> None:
    """Send our own and the libraries' records through one renderer on standard output."""
    console = settings.log_format == "console" or (
        settings.log_format == "auto" and sys.stdout.isatty()
    )
    # Never with local variables: they hold addresses with passwords, and people's data.
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    renderer: Any = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    final: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if not console:
        final.append(structlog.processors.ExceptionRenderer(tracebacks))
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*final, renderer])
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for chatty in ("aiokafka", "httpx", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # Why a service could not start is said by `kit.service`; uvicorn would print the traceback.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: not str(record.msg).startswith("Traceback")
    )
    structlog.contextvars.bind_contextvars(service=service)
