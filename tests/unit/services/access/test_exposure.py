"""Where a gateway may listen: address by keys by what the operator says."""

from itertools import product

import pytest

from coe.access.section import AccessSection, TlsSection
from coe.config import DATA, load_config
from coe.errors.files import ConfigError
from coe.services.access.exposure import check_exposure

LOOPBACK = ("127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1")
EXPOSED = ("0.0.0.0", "::", "192.168.1.5", "10.0.0.1", "203.0.113.7", "fe80::1%eth0", "2001:db8::1")


def config(keys, tls=False):
    found = load_config(DATA / "coe.yaml")
    section = TlsSection(certificate="c.pem", key="k.pem") if tls else None
    gateway = found.gateway.model_copy(update={"tls": section})
    access = AccessSection() if keys else None
    return found.model_copy(update={"access": access, "gateway": gateway})


@pytest.mark.parametrize(
    ("address", "keys", "without_keys"),
    [*product(LOOPBACK + EXPOSED, [False, True], [False, True])],
)
def test_the_start_matrix(address, keys, without_keys):
    def check():
        return check_exposure(config(keys), address, without_keys)

    if keys and without_keys:
        with pytest.raises(ConfigError, match="leave one of them out"):
            check()
    elif address in LOOPBACK:
        assert check() == ""
    elif keys:
        assert "gateway.tls" in check()
    elif without_keys:
        assert "no keys are asked for" in check()
    else:
        with pytest.raises(ConfigError, match="coe keys create") as refused:
            check()
        assert "--without-keys" in str(refused.value)
        assert address in str(refused.value)


@pytest.mark.parametrize("address", EXPOSED)
def test_with_keys_and_tls_there_is_nothing_to_say(address):
    assert check_exposure(config(keys=True, tls=True), address) == ""
