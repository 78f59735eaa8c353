"""An expert that answers at once: the yardstick for what the gateway adds."""

import sys

import uvicorn

from coe.answer import completion, pieces_of

TOKENS = [f" token{n}" for n in range(64)]
WHOLE = completion("chatcmpl-stub", "stub", "".join(TOKENS), 20, len(TOKENS), "stop")
EVENTS = list(pieces_of("chatcmpl-stub", "stub", TOKENS))


async def app(scope, receive, send):
    """Answer any POST: an event stream when the body asks for one, else a document."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    stream = b'"stream": true' in body or b'"stream":true' in body
    kind = b"text/event-stream" if stream else b"application/json"
    headers = [(b"content-type", kind)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for piece in EVENTS if stream else [WHOLE]:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False, lifespan="off")
