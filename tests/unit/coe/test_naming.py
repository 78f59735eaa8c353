"""Names that are given once."""

import os
import re
from concurrent.futures import ThreadPoolExecutor

from coe.naming import new_name


def test_a_name_says_of_what_kind_it_is():
    assert re.fullmatch(r"dec-[0-9a-f]{24}", new_name("dec"))


def test_no_two_threads_get_the_same():
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(lambda _: new_name("x"), range(20_000))]
    assert len({*found}) == 20_000


def test_a_forked_process_gives_no_name_of_its_parent():
    new_name("x")
    reads, writes = os.pipe()
    if os.fork() == 0:
        os.write(writes, "\n".join(new_name("x") for _ in range(100)).encode())
        os._exit(0)
    os.close(writes)
    with open(reads) as told:
        theirs = told.read().split()
    os.wait()
    assert len({*theirs, *(new_name("x") for _ in range(100))}) == 200
