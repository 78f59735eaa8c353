"""The secrets that a configuration names."""

from __future__ import annotations

from coe.access.secrets import Secrets, all_of
from coe.config import Config
from coe.embedders import EndpointSection
from coe.environment import secrets_in
from coe.kinds import HttpSection
from coe.store import RedisStoreSection


def secrets_of(config: Config) -> Secrets:
    """Whatever the environment holds under a name that ``coe.yaml`` gives to a secret."""
    named = ["COE_API_KEY", config.gateway.admin_token_env]
    named += [
        one.api_key_env
        for one in config.experts
        if isinstance(one, HttpSection) and one.api_key_env
    ]
    if isinstance(config.embedder, EndpointSection) and config.embedder.api_key_env:
        named.append(config.embedder.api_key_env)
    if isinstance(config.store, RedisStoreSection):
        named.append(config.store.url_env)
    if config.access is not None:
        named.append(config.access.pepper_env)
    if config.fleet is not None:
        named.append(config.fleet.token_env)
    return all_of(*secrets_in(named))
