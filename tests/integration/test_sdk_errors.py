"""What OpenAI's own client makes of refusals: which exception it raises, after how many tries."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from coe.errors.callers import (
    BudgetExhaustedError,
    InfeasibleError,
    RateLimitError,
    RequestError,
    UnknownExpertError,
)
from coe.errors.experts import ExpertRejectedError, ExpertTimeoutError, ExpertUnavailableError
from coe.errors.gateway import (
    EmbeddingError,
    EndingError,
    LedgerUnavailableError,
    OverdueError,
    OverloadedError,
)
from coe.services.sockets.server import listening
from coe.services.wire.refusals import NO_RETRY, as_json, error_document, refused

# the client of OpenAI tries twice more by itself; here once, to save time
N_RETRIES = 1
BAD, CONFLICT, LIMIT = openai.BadRequestError, openai.ConflictError, openai.RateLimitError
INTERNAL, MISSING, OTHER = openai.InternalServerError, openai.NotFoundError, openai.APIStatusError
SPENT = ExpertUnavailableError("a", "not there")
SPENT.n_tried = 2
TABLE = {
    "wrong": (RequestError("wrong"), BAD, 1),
    "infeasible": (InfeasibleError("no"), BAD, 1),
    "no-token": (RequestError("no", None, "invalid_token"), openai.AuthenticationError, 1),
    "not-allowed": (RequestError("no", None, "admin_disabled"), openai.PermissionDeniedError, 1),
    "no-model": (UnknownExpertError("no"), MISSING, 1),
    "slow-body": (RequestError("slow", None, "request_timeout"), OTHER, 2),
    "conflict": (RequestError("twice", None, "idempotency_conflict"), CONFLICT, 1),
    "too-large": (RequestError("large", None, "request_too_large"), OTHER, 1),
    "no-json": (RequestError("text", None, "unsupported_media_type"), OTHER, 1),
    "rejected": (ExpertRejectedError("a", "said no", 422), openai.UnprocessableEntityError, 1),
    "upstream-limit": (ExpertRejectedError("a", "said later", 429), LIMIT, 2),
    "spent": (BudgetExhaustedError("spent", "limits.day.tokens", retry_after_s=60), LIMIT, 1),
    "too-often": (RateLimitError("often", retry_after_s=1), LIMIT, 2),
    "failed": (ExpertRejectedError("a", "broke", 500), INTERNAL, 1),
    "unavailable": (ExpertUnavailableError("a", "not there"), INTERNAL, 2),
    "unavailable-twice": (SPENT, INTERNAL, 1),
    "silent": (ExpertTimeoutError("a", "silent"), INTERNAL, 1),
    "no-ledger": (LedgerUnavailableError("full"), INTERNAL, 2),
    "no-vectors": (EmbeddingError("none"), INTERNAL, 2),
    "overloaded": (OverloadedError("full", 1), INTERNAL, 2),
    "ending": (EndingError("ending"), INTERNAL, 2),
    "overdue": (OverdueError("late"), INTERNAL, 1),
    "crash": (None, INTERNAL, 1),
}


@pytest.fixture(scope="module")
def asked():
    """What became of one call for each row: the exception, and how often it was tried."""
    tried = Counter()

    async def answer(http):
        name = http.path_params["name"]
        tried[name] += 1
        error = TABLE[name][0]
        if error is None:
            return as_json(error_document("the gateway failed", "server_error"), 500, NO_RETRY)
        return refused(error)

    app = Starlette(routes=[Route("/{name}/v1/chat/completions", answer, methods=["POST"])])
    with listening("127.0.0.1", 0) as listener:
        config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        port = listener.getsockname()[1]

        def call(name):
            url = f"http://127.0.0.1:{port}/{name}/v1"
            with openai.OpenAI(base_url=url, api_key="unused", max_retries=N_RETRIES) as client:
                try:
                    client.chat.completions.create(
                        model="auto", messages=[{"role": "user", "content": "Hello"}]
                    )
                except openai.OpenAIError as error:
                    return error
            raise AssertionError("it was answered")

        with ThreadPoolExecutor(len(TABLE)) as callers:
            errors = dict(zip(TABLE, callers.map(call, TABLE), strict=True))
        server.should_exit = True
        thread.join()
    return {name: (error, tried[name]) for name, error in errors.items()}


@pytest.mark.parametrize("name", TABLE)
def test_the_client_raises_what_fits_and_tries_again_only_where_it_helps(asked, name):
    error, n_tries = asked[name]
    _, kind, expected_tries = TABLE[name]
    assert type(error) is kind
    assert n_tries == expected_tries
    assert isinstance(error.body, dict)
    assert {"message", "type", "param", "code"} <= error.body.keys()
