"""TensorBoard and the report as a browser shows them: each page loads, with our tags.

`make test-slow` runs these where Debian's `chromium` and `chromium-driver` are installed, or any
Chrome or Chromium with its chromedriver on the PATH. STILLHOUSE_SCREENSHOTS=FOLDER keeps pictures.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from clients.population.label_conditions import permuted_labels
from sim.analysis.probes import (
    Forgetting,
    calibration,
    output_drift,
    output_matrices,
    teacher_audit,
)
from sim.report.command import main
from sim.tracking.tracker import Tracker
from strategies.aggregation.scorers import max_prob
from tests.federations import distillation, inline, named, run_ours, simulated
from tests.watching import drifting

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_S = 60
TEXTS = """
    const found = [];
    const walk = (node) => {
      for (const child of node.childNodes) {
        if (child.nodeType === Node.TEXT_NODE) found.push(child.textContent.trim());
        else if (!['STYLE', 'SCRIPT', 'TEMPLATE'].includes(child.tagName)) {
          if (child.shadowRoot) walk(child.shadowRoot);
          walk(child.contentDocument?.body ?? child);
        }
      }
    };
    walk(document.body);
    return found.filter(Boolean).join(' ');
"""
"""All text of a page: TensorBoard keeps much of it in shadow trees and the projector in a frame."""
PICTURES = """
    const found = [];
    const walk = (node) => {
      if (node.tagName === 'IMG' && node.naturalWidth) found.push([node.naturalWidth, node.width]);
      if (node.shadowRoot) walk(node.shadowRoot);
      node.childNodes.forEach(walk);
    };
    walk(document.body);
    return found;
"""
"""Loaded pictures: their own width, and the width that they are shown in."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    binary = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip(f"no browser: needs one of {', '.join(BROWSERS)} and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for word in (
        "headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1200,900",
        "disable-background-networking", "no-first-run", "hide-scrollbars",
        "enable-unsafe-swiftshader", "use-angle=swiftshader",  # the projector draws with WebGL
    ):  # fmt: skip
        options.add_argument(f"--{word}")
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which client 2 of 6 takes every class for the next one from round 5 on."""
    folder = tmp_path_factory.mktemp("drifting")
    clients = drifting(6, condition=partial(permuted_labels, clients=[2], from_round=5))
    probes = (output_drift, calibration, teacher_audit, Forgetting(), output_matrices)
    tracker = Tracker(
        folder, named(probes), "seed: 0", proxy_labels=clients.splits.proxy.labels, figures_every=4,
        watch=[2], choices={"seed": 0, "clients.condition.clients": "[2]"},
    )  # fmt: skip
    strategy = distillation(clients, scorer=max_prob, report=tracker.view)
    try:
        run_ours(inline(simulated(clients)), clients, strategy, rounds=6, report=tracker.round)
    finally:
        tracker.close()
    return folder


@pytest.fixture(scope="module")
def tensorboard(run_folder: Path) -> Iterator[str]:
    """The address of a TensorBoard that shows the run."""
    words = ["--logdir", str(run_folder), "--host", "127.0.0.1", "--port", "0"]
    command = [sys.executable, "-m", "tensorboard.main", "--load_fast", "false", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = (re.search(r"http://127\.0\.0\.1:\d+/", line) for line in process.stderr)
            yield next(found[0] for found in said if found)
        finally:
            process.terminate()


def wait_for(browser: WebDriver, words: list[str]) -> str:
    """Return the page's text as soon as all words are in it."""
    text = ""

    def all_there(driver: WebDriver) -> bool:
        nonlocal text
        text = " ".join(driver.execute_script(TEXTS).split())
        return all(each in text for each in words)

    try:
        WebDriverWait(browser, PATIENCE_S).until(all_there)
    except TimeoutException as error:
        missing = [each for each in words if each not in text]
        raise AssertionError(f"{missing} not in the page: {text}") from error
    return text


def keep_picture(browser: WebDriver, name: str) -> None:
    if folder := os.environ.get("STILLHOUSE_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        assert browser.save_screenshot(str(Path(folder) / f"{name}.png"))


PAGES = {
    "timeseries": ["1 learning /accuracy", "1 learning /loss", "seed=0/student", "2 clients"],
    "scalars": ["1 learning", "accuracy", "tag: 1 learning/accuracy"],
    "custom_scalars": ["overview", "output drift", "who was right", "half of the clients"],
    "images": ["figures/js_matrix", "figures/teacher_error", "figures/reliability"],
    "histograms": ["2 clients/js_to_ensemble", "2 clients/accuracy"],
    "hparams": ["clients.condition.clients", "student accuracy", "megabytes"],
    "projector": [
        "clients",
        "Points: 12",
        "Dimension: 32",
        "variance described: 9",
    ],  # 6 clients in rounds 1 and 5
    "text": ["config/text_summary", "seed: 0"],
}


@pytest.mark.parametrize("page", PAGES)
def test_each_page_of_tensorboard_loads_with_our_tags(
    browser: WebDriver, tensorboard: str, page: str
) -> None:
    browser.get("about:blank")  # another fragment alone would load nothing
    browser.get(f"{tensorboard}#{page}")
    wait_for(browser, PAGES[page])
    if page == "images":
        widths = WebDriverWait(browser, PATIENCE_S).until(lambda d: d.execute_script(PICTURES))
        assert all(own == shown for own, shown in widths), "pictures are stretched"
    keep_picture(browser, f"tensorboard-{page}")


def test_the_report_shows_who_drifts_and_asks_for_nothing(
    browser: WebDriver, run_folder: Path
) -> None:
    assert main([str(run_folder)]) == 0
    browser.get((run_folder / "report.html").as_uri())
    text = wait_for(browser, ["Who drifts most"])
    assert "Client 2 (linear) is furthest out by " in text
    heights = browser.execute_script(
        "return [...document.querySelectorAll('figure > svg')].map(e => e.clientHeight)"
    )
    assert len(heights) > 10
    assert min(heights) > 100
    wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0, "the page is wider than the window"
    loaded = browser.execute_script("return performance.getEntriesByType('resource').length")
    assert loaded == 0
    keep_picture(browser, "report")
