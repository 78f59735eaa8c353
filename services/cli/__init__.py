"""The command line. One module per verb; each is imported only when its verb is used."""

from __future__ import annotations

from coe.services.cli.main import app

__all__ = ["app"]
