"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["describe"]

_OURS = ("modelstore-local", "sqlite-utils", "fsspec", "filelock", "xxhash", "platformdirs", "numpy", "s3fs")
# What is measured of an environment that holds more than one peer.
_DISTRIBUTIONS = {
    "transfer": ("s3fs", "fsspec", "aiohttp", "huggingface_hub", "pooch", "diskcache", "obstore"),
    "tensorboardx": ("tensorboardX",),
    "aws": ("awscli", "boto3", "s3transfer"),
}


def _first(path: str, key: str) -> str | None:
    try:
        with Path(path).open() as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == key:
                    return value.strip()
    except OSError:
        return None
    return None


def _filesystem(folder: Path) -> str:
    """Return the type of the filesystem that holds ``folder``, as the kernel's mount table has it."""
    best, kind = "", "unknown"
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return kind
    where = str(folder.resolve())
    for mount in mounts:
        _, point, type_, *_ = mount.split()
        if (where == point or where.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, type_
    return kind


def _versions(python: Path, distributions: tuple[str, ...]) -> dict[str, str]:
    code = (
        "import sys, json, platform\nfrom importlib import metadata\n"
        "out = {'python': platform.python_version()}\n"
        "for name in sys.argv[1:]:\n"
        "    try: out[name] = metadata.version(name)\n"
        "    except metadata.PackageNotFoundError: pass\n"
        "print(json.dumps(out))"
    )
    import json

    answer = subprocess.run([python, "-c", code, *distributions], capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(answer.stdout)
    return versions


def describe(scratch: Path, peers: Mapping[str, Path]) -> dict[str, Any]:
    """Describe processor, memory, system, filesystem and every version that took part."""
    ours = {name: version for name in _OURS if (version := _version(name)) is not None}
    memory = _first("/proc/meminfo", "MemTotal")
    return {
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": None if memory is None else round(int(memory.split()[0]) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "filesystem": _filesystem(scratch),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "ours": ours,
        "peers": {name: _versions(python, _DISTRIBUTIONS.get(name, (name,))) for name, python in peers.items()},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
