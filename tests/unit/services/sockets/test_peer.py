import socket
import sys

import pytest

from coe.services.sockets.peer import cut_stalled, has_left


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def accepted(listener):
    """Both ends of a connection, ours first."""
    caller = socket.create_connection(listener.getsockname())
    return listener.accept()[0], caller


def test_who_says_nothing_yet_and_who_has_said_something_are_there(listener):
    ours, caller = accepted(listener)
    with ours, caller:
        assert not has_left(ours.fileno())
        caller.sendall(b"something")
        assert not has_left(ours.fileno())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only reading tells")
def test_who_says_no_more_has_left_though_not_all_was_read(listener):
    ours, caller = accepted(listener)
    with ours, caller:
        caller.sendall(b"something")
        caller.shutdown(socket.SHUT_WR)
        assert has_left(ours.fileno())
        assert ours.recv(100) == b"something"


def test_a_connection_that_was_closed_is_left(listener):
    ours, caller = accepted(listener)
    with ours:
        ours.sendall(b"unread")
        caller.close()
        assert has_left(ours.fileno())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such bound")
@pytest.mark.parametrize(("after_s", "idle_s", "between_s"), [(1.0, 1, 1), (120.0, 60, 30)])
def test_connections_are_cut_where_nothing_is_taken(listener, after_s, idle_s, between_s):
    cut_stalled(listener, after_s)
    ours, caller = accepted(listener)
    with ours, caller:
        found = [
            ours.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_USER_TIMEOUT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)
        ]
        assert found == [after_s * 1000, idle_s, between_s]
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
