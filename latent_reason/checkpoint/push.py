"""Upload an exported folder to the Hub after it has passed its checks. The token comes from the environment
(``HF_TOKEN``) or from ``hf auth login``. It is never printed."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled

from .export import checks

#: HTTP status of the Hub -> cause and remedy
STATUS_MESSAGES: dict[int | None, str] = {
    401: "the Hub rejects the token. Log in again with: hf auth login",
    403: "the token has no write access. Create a token with write access on the Hub, or give another name",
    404: "there is no such user, organization or repository. Check the name",
    409: "the repository was changed meanwhile, or exists with another type. Check it on the Hub, then try again",
    429: "the Hub received too many requests. Wait a few minutes, then try again",
}


def files(folder: str | Path) -> list[tuple[str, int]]:
    """Names and sizes in bytes of all files to upload."""
    folder = Path(folder)
    return [(p.relative_to(folder).as_posix(), p.stat().st_size) for p in sorted(folder.rglob("*")) if p.is_file()]


def push(folder: str | Path, name: str, *, private: bool = False, revision: str | None = None) -> str:
    """Upload a folder to the repository ``name`` (user/name) in one commit on the branch ``revision`` and return the
    URL of the commit. The repository is created if needed. The folder is not checked: see :func:`refuse_failing`.

    Raises:
        ValueError: there is no token, the Hub cannot be reached, or it rejects the upload.
    """
    if not get_token():
        raise ValueError("There is no Hub token. Set HF_TOKEN, or log in with: hf auth login")
    api = HfApi(library_name="latent_reason")
    with hub_errors(name, api.endpoint):
        api.create_repo(name, private=private or None, exist_ok=True)
        if private and not api.repo_info(name).private:
            raise ValueError(
                f"'{name}' already exists and is public, so nothing was uploaded. Make it private in its settings on "
                "the Hub, give another name, or omit --private."
            )
        if revision:
            api.create_branch(name, branch=revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=name, folder_path=folder, revision=revision, commit_message="Upload a checkpoint of latent_reason"
        )
    return str(done.commit_url)


def refuse_failing(folder: str | Path, run_code: bool = False) -> None:
    """Raise ValueError if a check of an exported folder fails; ``run_code`` as in :func:`.checks.check`."""
    failed = [result for result in checks.check(folder, run_code) if result.state == "failed"]
    if failed:
        raise ValueError(
            f"'{folder}' is not uploaded: check {', '.join(str(r.number) for r in failed)} failed. "
            f"{failed[0].findings[0]} For all findings run: python -m latent_reason check '{folder}'"
        )


@contextmanager
def hub_errors(name: str, endpoint: str) -> Iterator[None]:
    """Convert errors of the Hub into ValueErrors with one sentence."""
    try:
        yield
    except Exception as error:
        inner = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error  # raised in a thread
        said = explain(inner, name, endpoint)
        if said is None:
            raise
        raise ValueError(said) from error


def explain(error: BaseException, name: str, endpoint: str) -> str | None:
    """The cause of a Hub error and its remedy. None for other errors."""
    if isinstance(error, HFValidationError):
        return f"{name!r} is not a valid repository name. Use the form user/name."
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code if error.response is not None else None
        said = (error.server_message or str(error)).strip().partition("\n")[0].replace(get_token() or "\n", "***")
        return f"'{name}' was not uploaded ({status}): {STATUS_MESSAGES.get(status, f'{said[:200]}. Try again later')}."
    if isinstance(error, OfflineModeIsEnabled):
        return f"'{name}' was not uploaded: HF_HUB_OFFLINE is set. Unset it to reach the Hub."
    if isinstance(error, HTTPError):  # no response
        return (
            f"'{name}' was not uploaded: {endpoint} does not answer ({type(error).__name__}). Check the connection "
            "and HF_ENDPOINT, then try again."
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"'{name}' was not uploaded: the disk is full, and uploads need temporary space. Free some space, then try "
            "again."
        )
    return None
