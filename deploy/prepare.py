"""Make the secrets that `docker compose up` mounts, once: `python3 deploy/prepare.py`.

Needs nothing but Python. What exists is kept, so that it can be run again after an update. The
containers run as different users and Docker mounts files with the owner and mode they have here:
the files are therefore readable for all, inside a folder that only its owner can enter.
"""

import base64
import hashlib
import json
import secrets
from pathlib import Path

FOLDER = Path(__file__).parent / "secrets"
PASSWORDS = (
    "postgres_password",
    "ingest_password",
    "metrics_password",
    "payouts_password",
    "notifications_password",
    "grafana_password",
    "hubspot_secret",
    "pipedrive_password",
)
SECRETS_KEY = "ingest_secrets_key"  # lost, what it has sealed is lost: it belongs into the backup
API_KEY = "admin_api_key"
API_KEYS = "api_keys.json"


def prepare(folder: Path, tenant: str = "acme") -> list[str]:
    """Write what is missing; returns the names of the files made."""
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    made = [name for name in PASSWORDS if _write(folder / name, secrets.token_urlsafe(24))]
    sealing = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    if _write(folder / SECRETS_KEY, sealing):
        made.append(SECRETS_KEY)
    if _write(folder / ".gitignore", "*\n"):
        made.append(".gitignore")
    if not (folder / API_KEYS).exists():
        key = "pk_" + secrets.token_urlsafe(32)
        stored = {
            "id": "first-admin",
            "sha256": hashlib.sha256(key.encode()).hexdigest(),
            "tenant": tenant,
            "roles": ["admin"],
        }
        (folder / API_KEY).unlink(missing_ok=True)
        _write(folder / API_KEY, key, mode=0o600)
        _write(folder / API_KEYS, json.dumps([stored], indent=2) + "\n")
        made += [API_KEY, API_KEYS]
    return made


def _write(path: Path, text: str, *, mode: int = 0o644) -> bool:
    if path.exists():
        return False
    path.touch(mode=0o600)
    path.write_text(text)
    path.chmod(mode)
    return True


if __name__ == "__main__":
    done = prepare(FOLDER)
    print(f"{FOLDER}: made {', '.join(done)}" if done else f"{FOLDER}: everything is there")  # noqa: T201
