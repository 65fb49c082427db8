"""A picture of a page, taken by Chromium where that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from modelstore.errors import StorageUnavailableError, UsageError

__all__ = ["find_browser", "screenshot"]

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
_TIMEOUT_S: Final = 90


def find_browser() -> str | None:
    """Return the path of a browser that can take pictures: `MODELSTORE_BROWSER`, or one that is installed."""
    named = os.environ.get("MODELSTORE_BROWSER")
    found = (shutil.which(name) for name in ((named,) if named else _NAMES))
    return next((path for path in found if path is not None), None)


def screenshot(page: str, width: int, height: int) -> bytes:
    """Return a picture of a page as a PNG file.

    Args:
        page: HTML.
        width: In pixels.
        height: In pixels.

    Raises:
        UsageError: There is no browser.
        StorageUnavailableError: It took no picture.
    """
    browser = find_browser()
    if browser is None:
        raise UsageError(
            "Plots other than lines are drawn by a browser, and Chromium is not installed",
            "Install Chromium, or name a browser in MODELSTORE_BROWSER; --html needs none.",
        )
    with tempfile.TemporaryDirectory(prefix="modelstore-") as folder:
        source, target = Path(folder, "page.html"), Path(folder, "page.png")
        source.write_text(page, encoding="utf-8", errors="replace")
        command = [
            browser, "--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-extensions",
            "--virtual-time-budget=20000", f"--user-data-dir={folder}/profile", f"--window-size={width},{height}",
            f"--screenshot={target}", source.as_uri(),
        ]  # fmt: skip
        if os.getuid() == 0:
            command.insert(1, "--no-sandbox")  # it refuses to run as root otherwise
        try:
            done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603 - ours
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StorageUnavailableError(f"{browser} took no picture: {error}") from error
        if not target.exists():
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise StorageUnavailableError(f"{browser} took no picture: {''.join(said)}")
        return target.read_bytes()
