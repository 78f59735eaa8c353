"""A gateway that reserves and settles until it is killed, and says what it was promised."""

import asyncio
import sys
from pathlib import Path

from coe.ledger.amounts import Amounts
from coe.ledger.limits import Limit, Payer
from coe.services.store.books import Books
from coe.services.store.local import LocalStore


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


async def main(path: Path, life: str) -> None:
    books = Books.open(path, [Limit("house", "global", 86400, tokens=10**9)], 60_000)
    store = LocalStore(books)

    async def one(worker: int) -> None:
        n = 0
        while True:
            n += 1
            name = f"{life}-{worker}-{n}"
            await store.reserve(name, Payer("alice"), Amounts(tokens=10, requests=1))
            say("reserved", name)
            if n % 3:
                store.settle(name, Amounts(tokens=n % 10, requests=1))
                await books.flush()
                say("settled", name, str(n % 10))

    await asyncio.gather(*map(one, range(8)))


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
