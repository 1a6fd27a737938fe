"""Who may ask the server: whoever has the token, from the page itself, at an address that is the server's own."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "x-contrex-token"
"""Where the page's script puts the token. A cookie would be sent to every other server of this machine too."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer; the page has a policy of its own."""


class Hosts:
    """The names that a server at `host` and `port` has: loopback's, the one that it was given, and, of one that listens
    everywhere, the machine's name and all numbers. Any other name someone else has pointed here (DNS rebinding)."""

    def __init__(self, host: str, port: int) -> None:
        self._port, self._is_everywhere = port, _is_number(host) and ipaddress.ip_address(host).is_unspecified
        self._names = {"127.0.0.1", "localhost", "::1", host.lower()}
        if self._is_everywhere:
            self._names.add(socket.gethostname().lower())

    def has(self, host: str) -> bool:
        """Whether a request's `Host`, NAME:PORT, is one of them."""
        try:
            parts = urlsplit(f"//{host}")
            name, port = parts.hostname or "", parts.port or 80
        except ValueError:
            return False
        known = name in self._names or (self._is_everywhere and _is_number(name))
        return known and port == self._port and parts.netloc == host and "@" not in host


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Guard:
    """Lets the requests through that may be answered, refuses the others, and puts `HEADERS` on all answers."""

    def __init__(self, app: ASGIApp, *, token: str, hosts: Hosts) -> None:
        self._app, self._token, self._hosts = app, token.encode(), hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it; web sockets are not let in."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def closed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        request = Request(scope)
        reason = self._refused(request)
        if reason is None:
            await self._app(scope, receive, closed)
        else:
            await said(request, 403, reason)(scope, receive, closed)

    def _refused(self, request: Request) -> str | None:
        """Why a request is not answered, if it is not."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not self._hosts.has(hosts[0]):
            return "This server answers at the address that it printed, and at no other name."
        if request.method not in ("GET", "HEAD") and request.headers.getlist("origin") != [f"http://{hosts[0]}"]:
            return "This server takes photos and changes from its own page only."
        # The page's address has the token; whatever else is asked has it in a header, which other sites cannot set.
        given = request.headers.get(HEADER) or request.query_params.get("token", "")
        if request.method not in ("GET", "HEAD"):
            given = request.headers.get(HEADER, "")
        if not secrets.compare_digest(given.encode(), self._token):
            return "The token is missing or wrong: open the whole address that `contrex explore --serve` printed."
        return None


def said(request: Request, status: int, reason: str) -> Response:
    """A refusal in words: to a script as JSON, to a person as text."""
    if request.method in ("GET", "HEAD"):
        return PlainTextResponse(f"{reason}\n", status)
    return JSONResponse({"error": reason}, status)
