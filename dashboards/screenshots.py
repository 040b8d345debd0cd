"""Takes screenshots of the running stack for the documentation: python -m dashboards.screenshots."""

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dashboards import cards, pages
from jobs import program, settings

PICTURES = settings.ROOT / "docs" / "screenshots"
DRAWN = "document.documentElement.dataset.state === 'ready'"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """Returns the path of Chromium; on Debian as root, installs it if it is missing; otherwise raises Refused."""
    if not (found := which()) and os.geteuid() == 0 and shutil.which("apt-get"):
        print("Screenshots need Chromium: installing it with apt-get.", flush=True)
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-q"])
        for package in ("chromium", "chromium-browser"):
            subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", package], env=quiet)
            if found := which():
                break
    if not found:
        raise program.Refused(
            f"Screenshots need Chromium, and this machine has none of {', '.join(PROGRAMS)} on its PATH: "
            "install one (Debian: `sudo apt-get install chromium`)."
        )
    return found


def which() -> str | None:
    """Returns the path of the first Chromium or Chrome on PATH, or None."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Any]:
    """Yields a headless Chromium for the duration of the block."""
    from playwright.sync_api import sync_playwright

    # Chromium's sandbox does not work for root.
    words = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=words)
        try:
            yield started
        finally:
            started.close()


def address(port: str, path: str) -> str:
    """Returns the URL of a path on the local service whose port is in a setting."""
    return f"http://127.0.0.1:{settings.get(port)}{path}"


def answer(port: str, path: str) -> Any:
    """Returns the JSON that a service's API answers for a path."""
    with urllib.request.urlopen(address(port, path), timeout=10) as response:
        return json.load(response)


def flow() -> str:
    """Returns the URL of luigid's task graph for the newest date that it remembers; raises Refused if it has none."""
    known = answer(
        "LUIGI_PORT", "/api/task_list?data=%7B%22status%22%3A%20%22%22%2C%20%22upstream_status%22%3A%20%22%22%7D"
    )
    days = sorted(name for name in known["response"] if name.startswith("Day_"))
    if not days:
        raise program.Refused("Luigi knows of no date that ran: `make run` one, with FORCE=1 if need be.")
    return address("LUIGI_PORT", f"/static/visualiser/index.html#tab=graph&taskId={days[-1]}")


def take(to: Path) -> list[Path]:
    """Takes all screenshots into a directory; returns their files. Raises Refused if pages or runs are missing."""
    if pages.built_of() is None:
        raise program.Refused("There are no pages of the marts and the declaration as they are: `make dashboards`.")
    others = [("luigi", flow(), "#graphPlaceholder svg"), ("spark", address("SPARK_MASTER_WEBUI_PORT", "/"), "table")]
    to.mkdir(parents=True, exist_ok=True)
    taken = []
    with browser() as chrome:
        tab = chrome.new_page(viewport={"width": 1400, "height": 900}, color_scheme="light", reduced_motion="reduce")
        for slug in ("index", *(board.slug for board in cards.load())):
            tab.goto(address("DASHBOARDS_PORT", f"/{slug}.html"))
            tab.wait_for_function(DRAWN)
            taken.append(to / f"{slug}.png")
            tab.screenshot(path=taken[-1], full_page=True)
        for name, shown, drawn in others:
            tab.set_viewport_size({"width": 1400, "height": 640})
            tab.goto(shown)
            tab.wait_for_selector(drawn, timeout=90_000)
            tab.wait_for_timeout(1500)  # both pages animate what they draw
            taken.append(to / f"{name}.png")
            tab.screenshot(path=taken[-1], full_page=True)
    return taken


def main() -> None:
    """Takes the screenshots of the documentation and prints their sizes; exits with a sentence on failure."""
    try:
        taken = take(PICTURES)
    except program.Refused as error:
        program.leave(1, str(error))
    except ImportError:
        program.leave(1, "Playwright is not installed: `make install` installs it with the other development tools.")
    except OSError:
        program.leave(1, "The stack does not answer: start it with `make up`.")
    except Exception as error:
        program.leave(1, f"A page could not be drawn ({type(error).__name__}): open it, and see what the browser says.")
    for path in taken:
        print(f"{path.relative_to(settings.ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
