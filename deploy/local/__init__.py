"""A real Apache Kafka and a real PostgreSQL 18 as local processes, without Docker.

Promises:

- `Stack(folder).up()` ends with both serving on the loopback address, or with one `StackError`
  that says what happened and what to do. A second `up()` re-uses what runs.
- Addresses stay the same for the life of the folder, across restarts and crashes.
- What a client was told is committed survives SIGKILL of either part.
- `with Stack(folder)` leaves nothing running, even when its process is killed (on Linux; on
  other systems the next `up` or `down` of that folder ends what a killed owner left).
- Processes are ended by their remembered identity, never by name, and cleanly first.

`python -m deploy.local --help` is the same on the command line; `deploy.local.resolve` chooses
between given addresses, Docker, this stack and memory.
"""

from __future__ import annotations

from deploy.local.errors import StackError
from deploy.local.stack import Stack

__all__ = ["Stack", "StackError"]
