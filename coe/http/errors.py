"""What goes wrong between a client and a server, by what the server may have got to see."""


class HttpError(Exception):
    """A request has no answer, or not the whole of it."""


class UnreachedError(HttpError):
    """There is no connection; nothing was sent."""


class LateError(UnreachedError):
    """There was none in time."""


class BlockedError(UnreachedError):
    """An address that must not be connected to."""


class UnprovenError(UnreachedError):
    """Who is there does not prove to be who it should be."""


class GoneError(HttpError):
    """The connection ended without an answer; the request may have come to whom it was for."""


class NoHttpError(HttpError):
    """What came is not HTTP/1.1, or more of a head than is read."""


class BrokenOffError(HttpError):
    """The body ended before its end."""
