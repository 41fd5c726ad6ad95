"""Errors that the endpoint answers, in the format of OpenAI's API."""

from __future__ import annotations

from typing import Any


class APIError(Exception):
    """A request that is not answered: the HTTP ``status``, a sentence that says what to do, and the name of the
    parameter that is wrong."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def as_json(self) -> dict[str, Any]:
        kinds = {429: "rate_limit_error", 404: "not_found_error"}
        kind = "server_error" if self.status >= 500 else kinds.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def bad(param: str | None, message: str, code: str | None = None) -> APIError:
    """The error of a parameter that the client can correct."""
    return APIError(400, message if param is None else f"{param}: {message}", param, code)
