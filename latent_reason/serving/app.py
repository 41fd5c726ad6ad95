"""The HTTP application: /v1/chat/completions, /v1/models and /health."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import HTTPException
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect

from .errors import APIError
from .parameters import ChatRequest, read_json, read_request
from .replies import Reply
from .worker import EndEvent, Event, Worker

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
POLL_SECONDS = 0.2  # how often a client that waits is asked whether it is still there


class Door:
    """Takes requests in, and passes their events on. It counts the requests that are inside, so that their bodies take
    bounded memory."""

    def __init__(self, worker: Worker, model: str, hosts: Iterable[str] | None):
        self.worker, self.model, self.limits = worker, model, worker.limits
        self.hosts = None if hosts is None else frozenset(hosts)
        self.created, self.num_inside = int(time.time()), 0

    def check_host(self, request: Request) -> None:
        """Refuse requests of web pages that a browser sends here under another name (DNS rebinding)."""
        host = request.headers.get("host", "").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self.hosts is not None and name not in self.hosts:
            raise APIError(403, f"The host {name[:100]!r} is not served here. Use 127.0.0.1 or localhost.")

    async def read_body(self, request: Request) -> bytes:
        """The body, of bounded size, in bounded time."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            # a browser asks for leave before it sends this type to another site, and does not get it
            raise APIError(415, "Send the request with the header Content-Type: application/json.")
        most, body = self.limits.body_bytes, bytearray()
        too_large = APIError(413, f"The body is larger than {most:,} bytes. Send smaller pictures.", code="too_large")
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared[:20]) > most:
            raise too_large
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > most:
                        raise too_large
        except ClientDisconnect:
            raise APIError(400, "The body did not arrive as a whole.") from None
        except TimeoutError:
            raise APIError(408, f"The body did not arrive in {self.limits.body_seconds:g} seconds.") from None
        return bytes(body)

    async def answer(self, request: Request) -> Response:
        """The response to a chat request."""
        self.check_host(request)
        if self.num_inside >= self.limits.slots + self.limits.waiting:
            raise APIError(429, "Too many requests are waiting. Try again later.", code="queue_full")
        self.num_inside += 1
        try:
            body = await self.read_body(request)
            asked = await run_in_threadpool(self._read, body)
            del body
            events = Events(self.worker, asked)
        except BaseException:
            self.num_inside -= 1
            raise
        reply = Reply(asked, self.model)
        if asked.stream:
            return EventStream(self, reply, events)
        try:
            found = await events.gather(request)
        finally:
            self.leave(events)
        if (error := next((event for event in found if isinstance(event, APIError)), None)) is not None:
            raise error
        return JSONResponse(reply.whole(found))

    def _read(self, body: bytes) -> ChatRequest:
        return read_request(read_json(body), self.model, self.worker.model.can_sketch, self.limits)

    def leave(self, events: Events) -> None:
        """A request is answered, or its client has gone."""
        events.cancel()
        self.num_inside -= 1


class Events:
    """The events of a request, from the thread of the worker to the event loop."""

    def __init__(self, worker: Worker, request: ChatRequest):
        self.worker, self.loop = worker, asyncio.get_running_loop()
        self.arrived: asyncio.Queue[Event] = asyncio.Queue()
        self.num_choices = request.choices
        self.numbers = worker.submit(request, self.emit)

    def emit(self, event: Event) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.arrived.put_nowait, event)

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Events up to the end of all choices, or the first error."""
        ended = 0
        while ended < self.num_choices:
            event = await self.arrived.get()
            ended += isinstance(event, EndEvent)
            yield event
            if isinstance(event, APIError):
                return

    async def gather(self, request: Request) -> list[Event]:
        """All events. Returns those so far when the client goes away."""

        async def collect() -> None:
            async for event in self:
                found.append(event)

        found: list[Event] = []
        task = asyncio.create_task(collect())
        try:
            while not task.done() and not await request.is_disconnected():
                await asyncio.wait([task], timeout=POLL_SECONDS)
        finally:
            task.cancel()
        return found

    def cancel(self) -> None:
        self.worker.cancel(self.numbers)


class EventStream(StreamingResponse):
    """Server-sent events. However it ends, its slots become free."""

    def __init__(self, door: Door, reply: Reply, events: Events):
        super().__init__(
            self.lines(reply, events), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )
        self.door, self.events = door, events

    @staticmethod
    async def lines(reply: Reply, events: Events) -> AsyncIterator[str]:
        seen = []
        for line in reply.first_chunks():
            yield line
        async for event in events:
            if isinstance(event, EndEvent):
                seen.append(event)
            yield reply.chunk(event)
        for line in reply.last_chunks(seen):
            yield line

    async def __call__(self, scope, receive, send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.door.leave(self.events)


def make_app(worker: Worker, model: str, hosts: Iterable[str] | None = LOOPBACK) -> FastAPI:
    """The application over a worker that runs. ``model`` is the name that is served. ``hosts`` are the names under which
    clients may reach it (None: any)."""
    door = Door(worker, model, hosts)
    app = FastAPI(title="latent_reason", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(APIError)
    async def tell(request: Request, error: APIError) -> JSONResponse:
        return JSONResponse(error.as_json(), error.status)

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def tell_place(request: Request, error: HTTPException) -> JSONResponse:
        places = "POST /v1/chat/completions, GET /v1/models or GET /health"
        message = f"{request.method} {request.url.path[:100]} is not served. Use {places}."
        return JSONResponse(APIError(error.status_code, message).as_json(), error.status_code)

    @app.exception_handler(Exception)  # its traceback is logged
    async def tell_fault(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse(APIError(500, "The server failed. See its log.").as_json(), 500)

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        return await door.answer(request)

    @app.get("/v1/models")
    async def list_models(request: Request) -> dict:
        door.check_host(request)
        return {"object": "list", "data": [describe(door)]}

    @app.get("/v1/models/{name:path}")
    async def show_model(request: Request, name: str) -> dict:
        door.check_host(request)
        if name != door.model:
            raise APIError(
                404, f"The model {name[:100]!r} is not served, but {door.model!r}.", "model", "model_not_found"
            )
        return describe(door)

    @app.get("/health")
    async def tell_health(request: Request) -> dict:
        door.check_host(request)
        if not worker.is_alive() or worker.is_closed:
            raise APIError(503, "The server is shutting down.", code="shutting_down")
        return {"status": "ok", "running": len(worker.running), "open": worker.num_open}

    return app


def describe(door: Door) -> dict:
    return {"id": door.model, "object": "model", "created": door.created, "owned_by": "latent_reason"}
