"""A report in a real browser, where there is one."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_loaders.storage import locate
from tests.trainer.report.runs import FIGURES, write_run
from trainer.report import read_run, report_page

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# leaves what the browser made of the page where `--dump-dom` shows it
PROBE = """<script>
addEventListener("load", () => {
  const box = (item) => { const found = item.getBoundingClientRect();
    return [found.width, found.height]; };
  document.body.dataset.probe = JSON.stringify({
    height: document.body.scrollHeight,
    overflow: document.documentElement.scrollWidth - innerWidth,
    images: [...document.querySelectorAll("figure svg")].map(box),
    sections: [...document.querySelectorAll("figure svg")].map(
      (item) => item.closest("section").id),
    ink: getComputedStyle(document.querySelector("figure svg text")).fill,
    paper: getComputedStyle(document.body).backgroundColor,
  });
});
</script>"""


def probed(page: Path, *options: str) -> dict[str, Any]:
    """What the probe measured; the console stays silent."""
    assert BROWSER is not None
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--enable-logging=stderr", f"--user-data-dir={page.parent}/profile", *options),
        *("--dump-dom", page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    assert "CONSOLE" not in done.stderr
    found = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert found, done.stderr
    measured: dict[str, Any] = json.loads(html.unescape(found[1]))
    return measured


@pytest.mark.slow
@pytest.mark.skipif(
    BROWSER is None, reason="no browser: install chromium, chromium-browser or google-chrome"
)
def test_a_browser_shows_it_in_light_and_in_dark(tmp_path: Path) -> None:
    """No errors on the console, every image in its section and with a size, nothing wider than the
    window, text that can be read on the page's ground.
    """
    text = report_page(read_run(locate(str(write_run(tmp_path / "run")))))
    page = tmp_path / "report.html"
    page.write_text(text.replace("</body>", f"{PROBE}</body>"))
    light = probed(page, "--window-size=1000,800")
    dark = probed(page, "--window-size=500,800", "--blink-settings=preferredColorScheme=0")
    for found in (light, dark):
        assert found["height"] > 1000
        assert found["overflow"] <= 0
        assert Counter(found["sections"]) == FIGURES
        assert all(width > 100 and height > 50 for width, height in found["images"])
        assert found["ink"] != found["paper"]
    assert light["paper"] == "rgb(255, 255, 255)"
    assert dark["paper"] == "rgb(20, 23, 26)"
    assert dark["ink"] == "rgb(221, 226, 231)"
