"""The Hub's HTTP API on this machine, as far as creating and filling repositories goes.

It keeps what arrives byte for byte: small files come inside the commit, large ones through the
LFS endpoints, and a commit that names a large file which never came is refused.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_good"
OWNER = "mill"
LARGE = (".safetensors", ".npz", ".png")
PAID = ("t4-small", "zero-a10g")


@dataclass
class Repository:
    """What arrived of one repository."""

    private: bool = False
    sdk: str | None = None
    hardware: str | None = None
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"* text=auto\n"})
    variables: dict[str, str] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)


class FakeHub:
    """A Hub with one account.

    Attributes:
        endpoint: its address.
        repositories: (kind, OWNER/NAME) -> what is there.
        large: sha256 -> content, of what came through the LFS endpoints.
        requests: "METHOD path" of each request.
        paying: whether the account may have paid hardware.
    """

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.paying = False
        hub = self

        class Handler(_Handler):
            fake = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, method: str, path: str, token: str | None, body: bytes) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if method == "PUT" and parts[0] == "lfs":
            if hashlib.sha256(body).hexdigest() != parts[1]:
                return 400, {"error": "content and name differ"}
            self.large[parts[1]] = body
            return 200, {}
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid user token."}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return _validate(json.loads(body)["content"])
        if path == "/lfs/verify":
            sent = json.loads(body)
            good = len(self.large.get(sent["oid"], b"")) == sent["size"]
            return (200, {}) if good else (400, {"error": "it did not arrive"})
        if path.endswith(".git/info/lfs/objects/batch"):
            return 200, {"objects": [self._wanted(entry) for entry in json.loads(body)["objects"]]}
        kind, owner, name, *rest = parts[1:]
        repository = self.repositories.get((kind[:-1], f"{owner}/{name}"))
        if repository is None:
            return 404, {"error": "Repository not found"}
        return self._inside(repository, f"{owner}/{name}", method, rest, body)

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        kind = asked.get("type", "model")
        name = f"{asked['organization']}/{asked['name']}"
        prefix = "" if kind == "model" else f"{kind}s/"
        url = {"url": f"{self.endpoint}/{prefix}{name}"}
        if (kind, name) in self.repositories:
            return 409, url | {"error": "You already created this repo"}
        if asked["organization"] != OWNER:
            return 403, {"error": f"You don't have the rights to create under {name}"}
        if asked.get("hardware") in PAID and not self.paying:
            return 402, {"error": "Payment required for this hardware"}
        self.repositories[kind, name] = Repository(
            asked.get("visibility") == "private", asked.get("sdk"), asked.get("hardware")
        )
        return 200, url

    def _wanted(self, entry: dict[str, Any]) -> dict[str, Any]:
        if entry["oid"] in self.large:
            return entry
        upload = {"href": f"{self.endpoint}/lfs/{entry['oid']}"}
        return entry | {
            "actions": {"upload": upload, "verify": {"href": f"{self.endpoint}/lfs/verify"}}
        }

    def _inside(
        self, repository: Repository, name: str, method: str, rest: list[str], body: bytes
    ) -> tuple[int, Any]:
        sha = hashlib.sha1(str(repository.commits).encode()).hexdigest()
        match method, rest:
            case "GET", [] | ["revision", "main"]:
                return 200, {"id": name, "sha": sha}
            case "GET", ["tree", "main"]:
                return 200, [
                    {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
                    for path, content in repository.files.items()
                ]
            case "POST", ["preupload", "main"]:
                return 200, {
                    "files": [
                        {
                            "path": entry["path"],
                            "uploadMode": "lfs" if entry["path"].endswith(LARGE) else "regular",
                            "shouldIgnore": False,
                            "oid": _oid(entry["path"], repository.files.get(entry["path"])),
                        }
                        for entry in json.loads(body)["files"]
                    ]
                }
            case "POST", ["commit", "main"]:
                return self._commit(repository, name, body)
            case "POST", ["variables"]:
                sent = json.loads(body)
                repository.variables[sent["key"]] = sent["value"]
                return 200, {
                    key: {"key": key, "value": value} for key, value in repository.variables.items()
                }
            case "GET", ["runtime"]:
                return 200, {"stage": "BUILDING", "hardware": {"requested": repository.hardware}}
            case "POST", ["hardware"]:
                wanted = json.loads(body)["flavor"]
                if wanted in PAID and not self.paying:
                    return 402, {"error": "Payment required for this hardware"}
                repository.hardware = wanted
                return 200, {"stage": "BUILDING", "hardware": {"requested": wanted}}
        return 404, {"error": f"no such endpoint: {method} {rest}"}

    def _commit(self, repository: Repository, name: str, body: bytes) -> tuple[int, Any]:
        files = dict(repository.files)
        for line in body.splitlines():
            step = json.loads(line)
            value = step["value"]
            match step["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    if value["oid"] not in self.large:
                        return 400, {"error": f"{value['path']} was never sent"}
                    files[value["path"]] = self.large[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        repository.files = files
        repository.commits.append(message)
        oid = hashlib.sha1(str(repository.commits).encode()).hexdigest()
        return 200, {"commitUrl": f"{self.endpoint}/{name}/commit/{oid}", "commitOid": oid}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeHub

    def _serve(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(self._chunks())
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        self.fake.requests.append(f"{self.command} {path}")
        status, tree = self.fake.answer(self.command, path, self.headers.get("Authorization"), body)
        answer = json.dumps(tree).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = _serve  # noqa: N815

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running() -> Iterator[FakeHub]:
    """A Hub that answers until the end of the block."""
    hub = FakeHub()
    thread = threading.Thread(target=hub.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()


def _oid(path: str, content: bytes | None) -> str | None:
    """By which the client knows that a file has not changed."""
    if content is None:
        return None
    if path.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _validate(readme: str) -> tuple[int, Any]:
    parts = readme.split("---\n")
    try:
        good = len(parts) > 2 and isinstance(yaml.safe_load(parts[1]), dict)
    except yaml.YAMLError:
        good = False
    return (200, {}) if good else (400, {"errors": [{"message": "no front matter"}]})
