"""The page as PDF, printed by a browser on this machine."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from reslab.errors import Failure, UserError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
TIMEOUT = 300  # seconds
FLAGS = ("--headless", "--disable-gpu", "--no-first-run", "--no-pdf-header-footer", "--disable-dev-shm-usage")


def print_page(page: Path) -> Path:
    """Print a page to a PDF next to it, by Chromium, Chrome or Edge, and return its path.

    Raises: UserError if there is no such browser; Failure if it does not print.
    """
    browser = find_browser()
    path = page.with_suffix(".pdf")
    path.unlink(missing_ok=True)
    # Chromium refuses to run as root inside its sandbox.
    as_root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="reslab-", ignore_cleanup_errors=True) as profile:
        command = [browser, *FLAGS, *as_root, f"--user-data-dir={profile}", f"--print-to-pdf={path.resolve()}"]
        try:
            done = subprocess.run(
                [*command, page.resolve().as_uri()], capture_output=True, text=True, errors="replace", timeout=TIMEOUT
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failure(f"{browser} did not print {page}: {error}") from None
    if not path.exists():
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise Failure(f"{browser} did not print {page} (it ended with {done.returncode}): {last}")
    return path


def find_browser() -> str:
    """Find a browser that prints. Raises: UserError if there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise UserError(
            "--pdf needs Chromium, Chrome or Edge on PATH: install one, or print report.html from a browser"
        )
    return found
