"""API keys: what is kept of them is no key, and what is nearly one is none."""

import math
import operator
import random
import secrets
import statistics
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.access.caller import Caller
from coe.access.keys import Key, Ring, digest_of, minted, same

PEPPER = b"p" * 32
# two processes that share these tests out have to know them by the same names
KEY_ID, SHOWN = minted(random.Random(1).randbytes)
OTHER_ID, OTHER = minted(random.Random(2).randbytes)
CALLER = Caller(KEY_ID, "acme")
# asked for at so many seconds since 1970
NOW_S = 1_000.0


def ring(**more):
    return Ring(PEPPER, {KEY_ID: Key(CALLER, digest_of(PEPPER, SHOWN), **more)})


def test_a_key_is_its_callers():
    assert ring().caller(SHOWN, NOW_S) is CALLER
    assert SHOWN.startswith(f"coe-{KEY_ID}-")
    assert len(SHOWN.split("-", 2)[2]) * 6 >= 128


def test_no_two_keys_are_alike():
    assert len({minted(secrets.token_bytes) for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "shown",
    [
        "",
        SHOWN[:-1],
        SHOWN + "x",
        SHOWN + " ",
        " " + SHOWN,
        SHOWN + "\n",
        SHOWN.upper(),
        SHOWN.removeprefix("coe-"),
        digest_of(PEPPER, SHOWN).hex(),
        f"coe-{KEY_ID}-{digest_of(PEPPER, SHOWN).hex()[:32]}",
        OTHER,
        f"coe-{KEY_ID}-{OTHER.split('-', 2)[2]}",
        f"coe-{OTHER_ID}-{SHOWN.split('-', 2)[2]}",
        SHOWN.replace("coe", "cöe"),
        "\x00" * len(SHOWN),
    ],
)
def test_what_is_nearly_a_key_is_none(shown):
    assert ring().caller(shown, NOW_S) is None


@given(st.integers(0, 8 * len(SHOWN) - 1))
def test_one_bit_makes_it_none(bit):
    text = bytearray(SHOWN.encode())
    text[bit // 8] ^= 1 << (bit % 8)
    assert ring().caller(text.decode("latin-1"), NOW_S) is None


@given(st.text(max_size=80))
def test_any_text_is_answered(shown):
    assert ring().caller(shown, NOW_S) is None


@pytest.mark.parametrize(
    ("expires_s", "holds"), [(None, True), (NOW_S + 1, True), (NOW_S, False), (NOW_S - 1, False)]
)
def test_a_key_that_expires_now_has_expired(expires_s, holds):
    assert (ring(expires_s=expires_s).caller(SHOWN, NOW_S) is CALLER) == holds


def test_a_revoked_key_is_nobodys():
    assert ring(revoked=True).caller(SHOWN, NOW_S) is None


def test_another_pepper_knows_no_key():
    assert Ring(b"q" * 32, ring().keys).caller(SHOWN, NOW_S) is None


def test_secrets_are_not_in_what_is_printed():
    printed = repr(ring())
    assert PEPPER.decode() not in printed
    assert str(digest_of(PEPPER, SHOWN))[2:-1] not in printed


def test_time_does_not_tell_where_a_digest_is_wrong():
    """Welch's t of a wrong first byte against a wrong last; a plain comparison tells."""
    kept = digest_of(PEPPER, SHOWN)
    wrong = [bytes([kept[0] ^ 1, *kept[1:]]), bytes([*kept[:-1], kept[-1] ^ 1])]
    rng = random.Random(0)

    def took_ns(compare, side):
        shown = bytes(bytearray(wrong[side]))
        started = time.perf_counter_ns()
        for _ in range(10):
            compare(kept, shown)
        return time.perf_counter_ns() - started

    def welch(compare):
        times = ([], [])
        for side in rng.sample([0, 1] * 10_000, 20_000):
            times[side].append(took_ns(compare, side))
        # what the machine did meanwhile is in the slowest tenth
        sides = [sorted(side)[: len(side) * 9 // 10] for side in times]
        means = [statistics.fmean(side) for side in sides]
        spread = sum(statistics.variance(side) / len(side) for side in sides)
        return abs(means[0] - means[1]) / math.sqrt(spread or 1e-9)

    assert any(welch(same) < 4.5 for _ in range(5))
    assert any(welch(operator.eq) > 4.5 for _ in range(5))
