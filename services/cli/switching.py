"""``coe experts list | switch``."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from rich.table import Table

from coe.config import Config
from coe.environment import admin_token
from coe.errors.files import ConfigError
from coe.services.cli.connection import connection, reached, refusal
from coe.services.cli.console import configuration, print_json, results, tell
from coe.services.cli.serve import own_address
from coe.switches import Switch

_TIMEOUT_S = 10.0


def show_experts(config_path: Path | None, url: str | None, as_json: bool) -> None:
    """Print the experts of a running gateway.

    Raises
    ------
    ConfigError, RequestError, GatewayError
        As `turn`.
    """
    document = _asked(configuration(config_path, quiet=True), url, "GET", "")
    if as_json:
        print_json(document)
        return
    table = Table("expert", "state", "switch", "local", "shared", box=None, pad_edge=False)
    for row in document["data"]:
        marks = ["yes" if row[name] else "" for name in ("local", "shared")]
        table.add_row(row["id"], row["state"], row["switch"], *marks)
    results.print(table)


def turn(config_path: Path | None, url: str | None, expert_id: str, switch: Switch) -> None:
    """Switch an expert of a running gateway.

    Raises
    ------
    ConfigError
        There is no operator's token.
    RequestError
        The gateway refuses: the token is wrong, or it has no such expert.
    GatewayError
        No gateway answers there.
    """
    config = configuration(config_path, quiet=True)
    path = f"/{quote(expert_id)}"
    document = _asked(config, url, "PUT", path, json={"switch": switch})
    tell(f"{document['id']}: {document['switch']}")


def _asked(config: Config, url: str | None, method: str, path: str, **body: Any) -> dict[str, Any]:
    variable = config.gateway.admin_token_env
    options = connection(config, admin_token(variable))
    if "headers" not in options:
        raise ConfigError(f"no operator's token: export {variable} as it was for `coe serve`")
    base = url or own_address(config)
    base = base.rstrip("/").removesuffix("/v1")
    with reached(base):
        with httpx.Client(timeout=_TIMEOUT_S, **options) as client:
            answer = client.request(method, f"{base}/admin/experts{path}", **body)
        document: dict[str, Any] = answer.json()
        if answer.is_error:
            raise refusal(document)
    return document
