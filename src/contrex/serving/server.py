"""The server of the live page: a socket, the address with its token, and an end at Ctrl-C."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import socket

from contrex.errors import ArgumentError
from contrex.serving.installed import check_installed
from contrex.serving.studio import Studio

LOOPBACK = "127.0.0.1"
"""The address that this machine alone can reach."""

MOST_CONNECTIONS = 32


class Server:
    """The live page of an explorer at an address of its own, which is taken at once; `port` 0 is any free one.

    Raises:
        ArgumentError: a library is missing, or the address cannot be taken.
    """

    def __init__(self, studio: Studio, *, host: str = LOOPBACK, port: int = 0) -> None:
        check_installed()
        import uvicorn

        from contrex.serving.app import app_of
        from contrex.serving.guard import Hosts

        if not 0 <= port <= 65535:
            raise ArgumentError(f"`port` must be from 0, any free one, to 65535, got {port}.")
        self._socket = _socket(host, port)
        self.token = secrets.token_urlsafe(32)
        self.host, self.port = host, int(self._socket.getsockname()[1])
        app = app_of(studio, self.token, Hosts(host, self.port))
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="off", ws="none",
            limit_concurrency=MOST_CONNECTIONS, timeout_graceful_shutdown=2, proxy_headers=False,
        )  # fmt: skip
        self._server = uvicorn.Server(config)

    @property
    def address(self) -> str:
        """The page's address, with its token."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/?token={self.token}"

    @property
    def is_local(self) -> bool:
        """Whether this machine alone can reach it."""
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"

    def run(self) -> None:
        """Answer until Ctrl-C or `stop`."""
        with contextlib.suppress(KeyboardInterrupt):
            self._server.run(sockets=[self._socket])

    def close(self) -> None:
        """Give the address back."""
        self._socket.close()

    def stop(self) -> None:
        """End `run`, which may be in another thread."""
        self._server.should_exit = True


def _socket(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ArgumentError(f"`host` {host} and `port` {port} cannot be listened at: {error.strerror}.") from None
