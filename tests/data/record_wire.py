"""Record what a client and a server of this version say to each other, for all later ones to understand.

Run once for each new version of the interface, just before it is released: python tests/data/record_wire.py tests/data/wire-N.jsonl
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from modelstore import OutputModel, Task
from modelstore import open as open_registry
from modelstore.registry import Registry
from modelstore.registry.search import ModelSearch
from modelstore.server import Settings, Tokens
from modelstore.sync import http as partner
from modelstore.testing.servers import server_thread


def main(target: Path) -> None:
    """Let Ann, who has one of everything, meet an empty server, and Bob look around there."""
    said: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        fill(home)
        with Registry(home / "team") as team, server_thread(Settings(str(home / "team"), port=0)) as real:
            secret = os.environ["MODELSTORE_TOKEN"] = Tokens(team).create("ann", "write")
            partner._AT_ONCE_BYTES = 100  # so that an upload is among it
            with listening(real, said) as url:
                with Registry(home / "ann", actor="ann@laptop") as ann:
                    ann.sync(url)
                    ann.sync(url, only={"project": "vision/ocr"})
                    model = next(one.id for one in ModelSearch(name="reader").run(ann))
                    digest = str(ann.models.get(model).digest)
                with Registry(home / "bob", actor="ann@desk", cache=home / "bob-cache") as bob:
                    bob.sync(url)
                look(url, secret, model, digest)
    with target.open("w") as file:
        file.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in said)


def look(url: str, secret: str, model: str, digest: str) -> None:
    """Ask what no sync asks."""
    line = http.client.HTTPConnection(urlsplit(url).netloc)
    form = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    for method, path, body, more in (
        ("POST", "/v1/models/search", {"tags": ["prod"], "order_by": "name", "limit": 1}, {}),
        ("POST", "/v1/models/search", {"where": "accuracy > 0.5 and tag('größe')"}, {}),
        ("POST", "/v1/models/search", {"where": "accuracy >>"}, {}),
        ("POST", "/v1/select", {"filters": {"name": "draft"}}, {}),
        ("GET", f"/v1/models/{model}", None, {}),
        ("GET", f"/v1/models/{'0' * 32}", None, {}),
        ("GET", "/v1/conflicts", None, {}),
        ("GET", f"/v1/objects/{digest}/other.pt", None, {"Range": "bytes=3-9"}),
        ("GET", f"/v1/objects/sha256:{'0' * 64}/x", None, {}),
        ("POST", "/v1/uploads", {"digest": "x", "name": "y", "size": 1}, {}),
    ):
        line.request(method, path, None if body is None else json.dumps(body).encode(), {**form, **more})
        line.getresponse().read()
    line.close()


def fill(home: Path) -> None:
    with open_registry(home / "ann", cache=home / "cache", actor="ann@laptop"):
        task = Task.create(project_name="vision/ocr", task_name="train")
        task.connect({"lr": 0.1})
        model = OutputModel(task, name="reader", tags=["prod", "-odd", "größe"], framework="PyTorch", comment="first")
        model.update_labels({"cat": 1})
        model.update_design(config_dict={"depth": 3})
        (home / "best é.pt").write_bytes(b"weights" * 100)
        model.update_weights(home / "best é.pt", iteration=7)
        model.set_metadata("accuracy", 0.93)
        model.set_metadata("nan", float("nan"))
        model.report_scalar("loss", "train", 0.5, 1)
        model.publish()
        (home / "small.bin").write_bytes(b"small")
        draft = OutputModel(task, name="draft", tags=["gone"])
        draft.update_weights(home / "small.bin")
        draft.remove_tags("gone")
        draft.archive()
        task.close()


@contextmanager
def listening(url: str, said: list[dict[str, Any]]) -> Iterator[str]:
    """Stand between a client and a server, and note what they say."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            line = http.client.HTTPConnection(urlsplit(url).netloc)
            line.request(self.command, self.path, body or None, dict(self.headers))
            answer = line.getresponse()
            data = answer.read()
            said.append(
                {
                    "method": self.command, "path": self.path, "headers": shown(self.headers), "body": text(body),
                    "status": answer.status, "answered": shown(answer.headers), "answer": text(data),
                }
            )  # fmt: skip
            self.send_response(answer.status)
            for name, value in shown(answer.headers).items():
                self.send_header(name, value)
            if self.command != "HEAD" and answer.status not in (204, 304):
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            line.close()

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def shown(headers: Any) -> dict[str, str]:
    """Return headers without those of one connection, and without the token."""
    left = ("authorization", "connection", "content-length", "date", "host", "transfer-encoding", "user-agent")
    head = {name.lower(): value for name, value in headers.items() if name.lower() not in left}
    if headers.get("Content-Length") and not headers.get("Host"):
        head["content-length"] = headers["Content-Length"]
    return head


def text(data: bytes | None) -> Any:
    if not data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
