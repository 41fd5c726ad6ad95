"""The server of the page. It sends nothing anywhere, and the page loads nothing from elsewhere."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from .models import DemoModel
from .page import LOOK, Page

LAST_SECONDS = 2  # that an answer has after Ctrl-C


def make_app(models: Sequence[DemoModel], hosts: Sequence[str] | None = None) -> FastAPI:
    """The application of a page about these checkpoints. ``hosts`` are the names under which browsers may reach it (None:
    any), so that a page of somebody else cannot."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if hosts is not None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    return gr.mount_gradio_app(
        app, Page(models).build(), "/", footer_links=[], run_history=False, ssr_mode=False, mcp_server=False, **LOOK
    )


def start(
    checkpoints: Sequence[str | Path],
    *,
    names: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int = 7860,
    device: str | None = None,
    hosts: Sequence[str] | None = None,
) -> None:
    """Serve the page of one or two checkpoints until Ctrl-C. ``port`` 0 is a free one; the address is printed.

    Args:
        names: what the page calls the checkpoints; by default the names of their folders.
        hosts: as in :func:`make_app`.

    Raises:
        OSError: the address cannot be used.
    """
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        models = [
            DemoModel.load(path, device, name)
            for path, name in zip(checkpoints, names or [""] * len(checkpoints), strict=True)
        ]
        config = uvicorn.Config(
            make_app(models, hosts), log_level="warning", access_log=False, timeout_graceful_shutdown=LAST_SECONDS
        )
        address = f"[{host}]" if ":" in host else host
        print(f"The demo is at http://{address}:{listener.getsockname()[1]} (stop it with Ctrl-C)", flush=True)
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        listener.close()
