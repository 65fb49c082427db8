"""A real server over a registry, for tests: on real sockets, in a thread of this process or as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from modelstore.server import Settings

__all__ = ["ServerProcess", "Servers", "server_process", "server_thread"]


@contextmanager
def server_thread(settings: Settings) -> Iterator[str]:
    """Serve from a thread of this process, and give the address; quick to begin."""
    import uvicorn

    from modelstore.server import running

    with tempfile.TemporaryDirectory(prefix="modelstore-board-") as board, running.listen(settings) as listening:
        port = listening.getsockname()[1]
        server = uvicorn.Server(running.config(replace(settings, board=board, port=port, workers=1), logs=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                if not thread.is_alive():
                    raise RuntimeError("the server did not start")
                time.sleep(0.005)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join()


class Servers:
    """Servers in threads of this process over any number of registries, each begun when it is first asked for."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._urls: dict[Path, str] = {}

    def url(self, folder: Path) -> str:
        """Return the address of the server over the registry in a folder."""
        from modelstore.server import Settings

        if folder not in self._urls:
            self._urls[folder] = self._stack.enter_context(server_thread(Settings(str(folder), port=0)))
        return self._urls[folder]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


@dataclass(slots=True)
class ServerProcess:
    """A server as a process.

    Attributes:
        url: Its address.
        process: The process.
        log: What it has written to standard error.
    """

    url: str
    process: subprocess.Popen[str]
    log: Path

    def kill(self) -> None:
        """Let it end as a power cut would, its workers too."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> int:
        """Let it end in good order; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def server_process(
    registry: Path | str, *arguments: str, env: dict[str, str] | None = None, near: Path | None = None
) -> Iterator[ServerProcess]:
    """Serve from a process of its own, begun as people begin it.

    Args:
        registry: Folder or URI of the registry.
        arguments: Of `modelstore serve`; without a port a free one is taken.
        env: Variables on top of this process's.
        near: Where it logs and keeps temporary files; None for beside the registry's folder.
    """
    near = near or Path(registry).parent
    log = near / f"server-{os.urandom(4).hex()}.log"
    ports = () if "--port" in arguments else ("--port", "0")
    command = [sys.executable, "-m", "modelstore", "serve", "--registry", str(registry), *ports, *arguments]
    with log.open("w") as errors:
        process = subprocess.Popen(  # noqa: S603 - ourselves
            command, stdout=subprocess.PIPE, stderr=errors, text=True,
            env={**os.environ, "TMPDIR": str(near), **(env or {})},
            start_new_session=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if " at http" not in line:
            raise RuntimeError(f"the server did not start: {log.read_text()}")
        yield ServerProcess(line.partition(" at ")[2].split()[0], process, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _closed(process.stdout)


def _closed(stream: IO[Any] | None) -> None:
    if stream is not None:
        stream.close()
