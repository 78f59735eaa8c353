"""One address for several processes, and for nobody else."""

import socket

import pytest

from coe.services.sockets.server import beside, listening, reserved


def test_connections_go_to_those_that_listen():
    with reserved("127.0.0.1", 0) as address, beside(address) as one, beside(address) as other:
        one.listen()
        with socket.create_connection(address.getsockname()):
            one.accept()[0].close()
        other.listen()
        one.close()
        with socket.create_connection(address.getsockname()):
            other.accept()[0].close()


def test_an_address_that_is_taken_is_not_shared():
    with listening("127.0.0.1", 0) as taken, pytest.raises(OSError, match="in use"):
        reserved(*taken.getsockname()[:2])
    with reserved("127.0.0.1", 0) as address, beside(address) as one:
        one.listen()
        with pytest.raises(OSError, match="in use"):
            reserved(*address.getsockname()[:2])
