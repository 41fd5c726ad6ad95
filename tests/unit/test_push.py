"""Uploading, against a small fake of the Hub that takes what huggingface_hub sends; what is said when it refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import huggingface_hub
import pytest
from PIL import Image
from tiny_runs import tiny_checkpoint

from latent_reason.checkpoint import push
from latent_reason.checkpoint.export import isolated_check
from latent_reason.checkpoint.export.exporter import export
from latent_reason.checkpoint.hf.auto_model import LatentReasonForConditionalGeneration
from latent_reason.cli import main

TOKEN = "hf_" + "x" * 34
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes")  # huggingface_hub's own
GOOD = {"loading": "", "keys": [], "off": {}, "probe": "", "snippet": ""}


class Hub(BaseHTTPRequestHandler):
    """Creates repositories, has large files sent by LFS, keeps commits; ``refuse``: part of a path -> status."""

    def answer(self, given: dict, status: int = 200) -> None:
        data = json.dumps(given).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def do_PUT(self):
        self.server.large[self.path.rpartition("/")[2]] = self.body()
        self.answer({})

    def do_POST(self):
        body, server = self.body(), self.server
        path = self.path.partition("?")[0]
        server.asked.append((path, self.headers.get("Authorization")))
        for part, status in server.refuse.items():
            if part in path:
                return self.answer({"error": f"no, by {TOKEN}"}, status)
        if path == "/api/repos/create":
            server.created = json.loads(body)
            return self.answer({"url": f"{server.address}/me/lake", "name": "me/lake", "id": "1"})
        if "/preupload/" in path:
            return self.answer(
                {
                    "files": [
                        {
                            "path": f["path"],
                            "uploadMode": "lfs" if f["path"].endswith((".safetensors", ".png")) else "regular",
                            "shouldIgnore": False,
                            "oid": None,
                        }
                        for f in json.loads(body)["files"]
                    ]
                }
            )
        if path.endswith("/info/lfs/objects/batch"):
            return self.answer(
                {
                    "transfer": "basic",
                    "objects": [
                        o | {"actions": {"upload": {"href": f"{server.address}/large/{o['oid']}", "header": {}}}}
                        for o in json.loads(body)["objects"]
                    ],
                }
            )
        if "/commit/" in path:
            server.commits.append((path.rpartition("/")[2], [json.loads(line) for line in body.splitlines()]))
            return self.answer(
                {"success": True, "commitUrl": f"{server.address}/me/lake/commit/abc", "commitOid": "abc"}
            )
        return self.answer({"errors": [], "warnings": []})  # of the head of README.md; branches

    def do_GET(self):
        if self.path.startswith("/api/models/me/lake") and self.server.created:
            return self.answer({"id": "me/lake", "private": self.server.private, "siblings": []})
        self.answer({"error": "Repository not found"}, 404)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A running fake, which huggingface_hub takes for the Hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.asked, server.commits, server.large, server.refuse, server.created = [], [], {}, {}, None
    server.private = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    reach(monkeypatch, server.address)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def reach(monkeypatch, address):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # the fake speaks LFS
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(isolated_check, "ask", lambda folders: [GOOD])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return export(tiny_checkpoint(), tmp_path_factory.mktemp("push") / "lake")


def uploaded(server) -> dict[str, bytes]:
    """Files of the last commit, large ones by what was put under their hash."""
    found = {}
    for line in server.commits[-1][1]:
        value = line["value"]
        if line["key"] == "file":
            found[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            data = server.large[value["oid"]]
            assert hashlib.sha256(data).hexdigest() == value["oid"] and len(data) == value["size"]
            found[value["path"]] = data
    return found


def refused(*words) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    said = ended.value.code
    assert isinstance(said, str) and said.startswith("error: ") and "\n" not in said and TOKEN not in said, said
    return said


@pytest.mark.parametrize("branch", [None, "trained"])
def test_every_file_arrives_as_it_is(branch, server, folder, capsys):
    main(["push", str(folder), "me/lake", "--private", *(["--revision", branch] if branch else [])])
    there = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert uploaded(server) == there and len(server.large) >= 3
    assert server.created["name"] == "lake" and server.created.get("organization") == "me"
    assert server.created.get("private") or server.created.get("visibility") == "private"  # in 1.x, in 2.x
    assert server.commits[-1][0] == (branch or "main")
    assert all(auth == f"Bearer {TOKEN}" for path, auth in server.asked if "validate" not in path)
    said = capsys.readouterr()
    assert f"Uploaded: {server.address}/me/lake/commit/abc" in said.out and TOKEN not in said.out + said.err


def test_nothing_private_goes_to_a_repository_that_is_public(server, folder):
    server.private = False
    said = refused("push", folder, "me/lake", "--private")
    assert "already exists and is public, so nothing was uploaded" in said and not server.commits


BY_NAME = """
import sys
sys.modules["latent_reason"] = None
from PIL import Image
from transformers import AutoModelForImageTextToText
model = AutoModelForImageTextToText.from_pretrained("me/lake", trust_remote_code=True)
answer = model.generate_interleaved(Image.open(sys.argv[1]), "Which way?", max_new_tokens=16, latent_mode="first")
print(len(answer.images), answer.text)
"""


def test_what_has_arrived_is_loaded_by_its_name(server, folder, tmp_path):
    """From the cache where huggingface_hub keeps what it downloads, in a fresh process without this library."""
    push.push(folder, "me/lake")
    cache = tmp_path / "home" / "hub" / "models--me--lake"
    for name, data in uploaded(server).items():
        file = cache / "snapshots" / ("a" * 40) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    env = {n: v for n, v in os.environ.items() if n not in ("PYTHONPATH", "HF_TOKEN", "HF_ENDPOINT")}
    done = subprocess.run(
        [sys.executable, "-c", BY_NAME, str(folder / "example.png")],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=env | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    model = LatentReasonForConditionalGeneration.from_pretrained(folder)
    answer = model.generate_interleaved(
        Image.open(folder / "example.png"), "Which way?", max_new_tokens=16, latent_mode="first"
    )
    assert done.stdout.strip() == f"{len(answer.images)} {answer.text}".strip() and answer.images


def test_a_dry_run_lists_files_and_asks_nobody(server, folder, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    main(["push", str(folder), "me/lake", "--dry-run", "--private"])
    said = capsys.readouterr().out
    assert not server.asked and "Nothing was uploaded" in said and "would go to me/lake, private" in said
    sizes = {name: int(size.replace(",", "")) for size, name in re.findall(r"^ *([\d,]+)  ([\w./-]+)$", said, re.M)}
    assert sizes == dict(push.files(folder)) and sizes["model.safetensors"] > 10_000


@pytest.mark.parametrize(
    ("where", "status", "said"),
    [
        ("/repos/create", 401, "rejects the token. Log in again"),
        ("/repos/create", 403, "has no write access"),
        ("/commit/", 403, "has no write access"),
        ("/commit/", 409, "was changed meanwhile"),
        ("/preupload/", 404, "no such user, organization or repository"),
        ("/commit/", 400, "no, by ***"),
    ],
)
def test_a_refusal_is_one_sentence(where, status, said, server, folder):
    server.refuse = {where: status}
    heard = refused("push", folder, "me/lake")
    assert f"'me/lake' was not uploaded ({status})" in heard and said in heard
    assert not server.commits


def test_no_hub_no_login_no_name_no_space(folder, monkeypatch, server):
    assert "is not a valid repository name" in refused("push", folder, "me/la/ke")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        reach(monkeypatch, f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert "does not answer (ConnectError)" in refused("push", folder, "me/lake")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    reach(monkeypatch, server.address)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", full)
    assert "the disk is full" in refused("push", folder, "me/lake")
    monkeypatch.setattr(push, "get_token", lambda: None)
    assert "There is no Hub token. Set HF_TOKEN" in refused("push", folder, "me/lake")


def test_what_fails_a_check_is_not_uploaded(server, folder, tmp_path):
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "notes.txt").write_text("mine")
    heard = refused("push", damaged, "me/lake")
    assert "check 8 failed. notes.txt: found an unexpected file" in heard and not server.asked
