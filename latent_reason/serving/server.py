"""The server process: a worker, the application, and a shutdown that lets answers end."""

from __future__ import annotations

import asyncio
import socket
from types import FrameType

import uvicorn

from ..model.reasoner import LatentReasoner
from ..visualization.sketch_decoder import SketchDecoder
from .app import LOOPBACK, make_app
from .limits import Limits
from .worker import Worker

LAST_SECONDS = 5.0  # after the grace time, for the last step and for telling the clients


class Server(uvicorn.Server):
    """Ends after SIGINT or SIGTERM: takes no requests any more, lets those that run end within ``grace`` seconds, and
    stops the others. A second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, worker: Worker, grace: float):
        super().__init__(config)
        self.worker, self.grace = worker, grace

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # not recorded as uvicorn does, which would raise the signal again after the shutdown
        self.force_exit, self.should_exit = self.should_exit, True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.worker.close()
        end = asyncio.get_running_loop().call_later(self.grace, self.worker.stop)
        try:
            await super().shutdown(sockets)
        finally:
            end.cancel()


def is_loopback(host: str) -> bool:
    return f"[{host}]" in LOOPBACK or host in LOOPBACK


def serve(
    model: LatentReasoner,
    decoder: SketchDecoder | None,
    name: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    grace: float = 10.0,
) -> None:
    """Serve a model under a name until a signal ends the process. ``port`` 0 is a free one; the address is printed.

    Raises:
        OSError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    address = f"[{host}]" if ":" in host else host
    worker = Worker(model, decoder, limits or Limits())
    app = make_app(worker, name, LOOPBACK if is_loopback(host) else None)
    config = uvicorn.Config(
        app, lifespan="off", log_level="warning", access_log=False, timeout_graceful_shutdown=int(grace + LAST_SECONDS)
    )
    worker.start()
    print(f"{name} is served at http://{address}:{listener.getsockname()[1]}/v1 (stop it with Ctrl-C)", flush=True)
    try:
        Server(config, worker, grace).run(sockets=[listener])
    finally:
        worker.stop()
        worker.join(LAST_SECONDS)
        listener.close()
