"""What ``coe.yaml`` says of the ledger: where it is kept, and how surely."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from coe.yamlfile import Name, Positive, Section


class _StoreSection(Section):
    path: Path | None = None
    fsync: bool = False
    lease_s: Annotated[int, Field(ge=2, le=86_400)] = 60

    def beside(self, base: Path) -> Self:
        """The section with its path resolved against ``base``."""
        return self.model_copy(update={"path": self.path and base / self.path})

    def journal(self, state_home: Path) -> Path:
        """The file of this gateway's own ledger."""
        return self.path or state_home / "ledger.sqlite"


class SqliteStoreSection(_StoreSection):
    """A ledger of this gateway alone."""

    kind: Literal["sqlite"]


class RedisStoreSection(_StoreSection):
    """One ledger of several gateways; the journal of each is kept at its own ``path``."""

    kind: Literal["redis"]
    url_env: Annotated[str, Field(min_length=1)] = "COE_REDIS_URL"
    namespace: Name = "coe"
    share: Annotated[float, Field(ge=0, le=1)] = 0.01
    timeout_s: Positive = 0.05


StoreSection = Annotated[SqliteStoreSection | RedisStoreSection, Field(discriminator="kind")]
