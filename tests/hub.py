"""A hub on the loopback, for tests: `python tests/hub.py --root DIR --port N`. Needs the standard library alone.

Repositories are folders: `DIR/models/org/name/<revision>/…` and `DIR/datasets/org/name/<revision>/…`, where a revision
is a folder's name (`main` by default) and its commit the SHA-1 of what is in it. A repository may say how it refuses in
a file `hub.json` beside the revisions: `{"token": "…", "gated": true, "status": 429, "times": 2, "retryAfter": 1,
"redirect": "http://…"}`. `GET /requests` lists what was asked, for assertions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".parquet")
RULES_FILE = "hub.json"
_API = re.compile(r"^/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?$")
_RESOLVE = re.compile(r"^/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")


class RefusalError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, text: str = "", **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Hub(ThreadingHTTPServer):
    """Serves the repositories below *root*."""

    daemon_threads = True

    def __init__(self, root: Path, port: int = 0, host: str = "127.0.0.1") -> None:
        super().__init__((host, port), _Handler)
        self.root = root
        self.asked: list[str] = []
        self.tokens: set[str] = set()
        self.refused: dict[str, int] = {}
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Its address, for HF_ENDPOINT."""
        return f"http://{self.server_address[0]}:{self.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


def commit_of(folder: Path) -> str:
    """The commit that stands for the content of *folder*."""
    sha = hashlib.sha1(usedforsecurity=False)
    for path in _files(folder):
        sha.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return sha.hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        target = urlsplit(self.path)
        path = unquote(target.path)
        self._form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode())
        if path == "/requests":
            self._send(json.dumps(self.server.asked).encode(), {}, body=body)
            return
        with self.server.lock:
            self.server.asked.append(f"{self.command} {path}")
            if token := self.headers.get("Authorization", "").removeprefix("Bearer "):
                self.server.tokens.add(token)
        try:
            if found := _API.match(path):
                self._api(*found.groups(), body=body)
            elif found := _RESOLVE.match(path):
                self._resolve(*found.groups(), body=body)
            else:
                self._send(b"", {}, status=404, body=body)
        except RefusalError as refusal:
            text = json.dumps({"error": str(refusal)}).encode()
            self._send(text, refusal.headers, status=refusal.status, body=body)

    def _repository(self, kind: str, name: str) -> Path:
        folder = self.server.root / kind / name
        if ".." in name or not folder.is_dir():
            # As the hub does: whoever may not know whether it exists is told 401.
            if "Authorization" in self.headers:
                raise RefusalError(404, "Repository not found", X_Error_Code="RepoNotFound")
            raise RefusalError(401, "Invalid username or password.", X_Error_Code="RepoNotFound")
        self._apply_rules(kind, name, folder)
        return folder

    def _apply_rules(self, kind: str, name: str, folder: Path) -> None:
        try:
            rules = json.loads((folder / RULES_FILE).read_bytes())
        except FileNotFoundError:
            return
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if "token" in rules and given != rules["token"]:
            if rules.get("gated"):
                raise RefusalError(401 if not given else 403, "Access is restricted", X_Error_Code="GatedRepo")
            if given and not rules.get("forbids"):
                raise RefusalError(401, "Invalid credentials", X_Error_Code="RepoNotFound")
            raise RefusalError(403 if given else 401, "Not for you", X_Error_Code="RepoNotFound" if not given else "")
        with self.server.lock:
            times = self.server.refused.get(f"{kind}/{name}", 0)
            if "status" in rules and times < rules.get("times", 1 << 30):
                self.server.refused[f"{kind}/{name}"] = times + 1
                wait = {"Retry_After": str(rules["retryAfter"])} if "retryAfter" in rules else {}
                raise RefusalError(rules["status"], "as the rules say", **wait)

    def _revision(self, folder: Path, revision: str) -> tuple[Path, str]:
        for candidate in sorted(path for path in folder.iterdir() if path.is_dir()):
            commit = commit_of(candidate)
            if revision in (candidate.name, commit):
                return candidate, commit
        raise RefusalError(404, f"Invalid rev id: {revision}", X_Error_Code="RevisionNotFound")

    def _api(
        self, kind: str, name: str, verb: str | None, revision: str | None, path: str | None, *, body: bool
    ) -> None:
        folder, commit = self._revision(self._repository(kind, name), revision or "main")
        entries = [_entry(file, folder) for file in _files(folder)]
        if verb == "tree":
            answer: Any = [entry for entry in entries if entry["path"].startswith(path or "")]
        elif verb == "paths-info":
            answer = [entry for entry in entries if entry["path"] in self._form.get("paths", [])]
        else:
            answer = {
                "_id": "0" * 24,
                "id": name,
                "sha": commit,
                "private": False,
                "gated": False,
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": entry["path"]} for entry in entries],
            }
        self._send(json.dumps(answer).encode(), {"Content-Type": "application/json"}, body=body)

    def _resolve(self, kind: str | None, name: str, revision: str, path: str, *, body: bool) -> None:
        repository = self._repository(kind or "models", name)
        folder, commit = self._revision(repository, revision)
        file = folder / path
        if not file.resolve().is_relative_to(folder.resolve()) or not file.is_file():
            raise RefusalError(404, "Entry not found", X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        entry = _entry(file, folder)
        digest = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        rules = repository / RULES_FILE
        elsewhere = json.loads(rules.read_bytes()).get("redirect") if rules.is_file() else None
        if elsewhere is not None:
            where = {"Location": f"{elsewhere}{self.path}", "X-Linked-Etag": headers["ETag"]}
            self._send(b"", headers | where | {"X-Linked-Size": str(entry["size"])}, status=302, body=body)
            return
        self._send_file(file, headers, body=body)

    def _send_file(self, file: Path, headers: dict[str, str], *, body: bool) -> None:
        content, status = file.read_bytes(), HTTPStatus.OK
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is not None:
            first = int(wanted[1])
            last = min(int(wanted[2]) if wanted[2] else len(content) - 1, len(content) - 1)
            headers = headers | {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
            content, status = content[first : last + 1], HTTPStatus.PARTIAL_CONTENT
        self._send(content, headers, status=status, body=body)

    def _send(self, content: bytes, headers: dict[str, str], *, status: int = 200, body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


def _entry(file: Path, folder: Path) -> dict[str, Any]:
    content = file.read_bytes()
    git = hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()
    entry: dict[str, Any] = {
        "type": "file",
        "path": str(file.relative_to(folder)),
        "size": len(content),
        "oid": git,
    }
    if file.suffix in LFS_SUFFIXES:
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--host", default="0.0.0.0")
    options = parser.parse_args()
    Hub(options.root, options.port, options.host).serve_forever()


if __name__ == "__main__":
    main()
