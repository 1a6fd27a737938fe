"""What the server answers: its page, a photo that is sent, and a change of one. There is nothing else."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from contrex.errors import ArgumentError, ContrexError
from contrex.records import to_plain
from contrex.serving.change import Change
from contrex.serving.guard import Guard, Hosts, said
from contrex.serving.studio import MOST_BYTES, Studio

MOST_CHANGE_BYTES = 2**18
"""Of a change, which are a few numbers and the points of strokes."""

PATIENCE = 60.0
"""Seconds in which a body must have come."""

T = TypeVar("T")


class Turns:
    """Lets one computation run at a time. Of those that one page waits for the newest is done, the others are dropped:
    who drags a slider asks more often than a network answers."""

    def __init__(self) -> None:
        self._running = asyncio.Lock()
        self._newest: dict[str, object] = {}

    async def take(self, page: str, work: Callable[[], T]) -> T | None:
        """Do the work when its turn comes; None if the page asked for something newer by then."""
        mine = self._newest[page] = object()
        async with self._running:
            if self._newest.get(page) is not mine:
                return None
            del self._newest[page]
            return await run_in_threadpool(work)


class Answers:
    """The answers to each kind of request."""

    def __init__(self, studio: Studio) -> None:
        self._studio, self._turns = studio, Turns()

    async def page(self, request: Request) -> Response:
        """The page, with the photos that are kept."""
        page = await run_in_threadpool(self._studio.page)
        text = await run_in_threadpool(lambda: page.html)
        return HTMLResponse(text, headers={"Content-Security-Policy": f"{page.policy}; frame-ancestors 'none'"})

    async def photo(self, request: Request) -> Response:
        """A photo that is sent, whose name is in the address: its maps."""
        content, name = await _body(request, MOST_BYTES), request.query_params.get("name", "")
        return _in_json(await self._turns.take(f"photo {id(request)}", lambda: self._studio.add(name, content)))

    async def change(self, request: Request) -> Response:
        """A photo as it was changed: its maps, and how it looks. Of the changes that a page sends while it waits, the
        last is answered."""
        told = _json(await _body(request, MOST_CHANGE_BYTES))
        change, number, page = Change.read(told.get("change")), str(told.get("photo")), str(told.get("page"))
        classes = told.get("classes", [])
        if not isinstance(classes, list) or any(type(one) is not int for one in classes):
            raise ArgumentError(f"`classes` must be a list of whole numbers, got {classes!r:.80}.")
        found = await self._turns.take(f"page {page:.40}", lambda: self._studio.change(number, change, classes))
        return _in_json(found or {"isStale": True})


def app_of(studio: Studio, token: str, hosts: Hosts) -> Starlette:
    """The application: three routes, behind the guard."""
    answers = Answers(studio)
    return Starlette(
        routes=[
            Route("/", _answered(answers.page), methods=["GET"]),
            Route("/photos", _answered(answers.photo), methods=["POST"]),
            Route("/changes", _answered(answers.change), methods=["POST"]),
        ],
        middleware=[Middleware(Guard, token=token, hosts=hosts)],
        exception_handlers={HTTPException: _nothing},
    )


Answer = Callable[[Request], Awaitable[Response]]


def _answered(answer: Answer) -> Answer:
    """The answer, or what went wrong, in words. The words of an error that nobody meant, which may have paths in them,
    are for the terminal."""

    async def answered(request: Request) -> Response:
        try:
            return await answer(request)
        except ContrexError as error:
            return said(request, 400, str(error))
        except HTTPException as error:
            return said(request, error.status_code, error.detail)
        except ClientDisconnect:  # nobody reads this
            return said(request, 400, "The request did not come to its end.")
        except Exception as error:
            traceback.print_exception(error)
            return said(request, 500, f"The server failed with {type(error).__name__}; its terminal says where.")

    return answered


async def _nothing(request: Request, error: Exception) -> Response:
    """The answer at an address that is none, or is not asked in this way."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    return said(request, status, "There is nothing at this address, or it is not asked in this way.")


async def _body(request: Request, most: int) -> bytes:
    """The whole body, which is counted while it comes: what a header says of its length may be wrong."""
    parts: list[bytes] = []
    left = most
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > most:
        raise HTTPException(413, _too_large(most))
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                left -= len(part)
                if left < 0:
                    raise HTTPException(413, _too_large(most))
                parts.append(part)
    except TimeoutError:
        raise HTTPException(408, "The photo came too slowly: send it again.") from None
    return b"".join(parts)


def _too_large(most: int) -> str:
    return f"This is more than {most / 2**20:g} MB, and the server takes no more: send a smaller file."


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise ArgumentError("the request must be an object in JSON.")
    return told


def _in_json(values: object) -> Response:
    return JSONResponse(to_plain(values))
