"""A real browser: headless Chromium, with the log of its console and of its requests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def started_browser() -> Iterator[Any]:
    """Headless Chromium, started once for all tests of a process; skips where none is installed."""
    binary, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("chromium and chromedriver are missing: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in FLAGS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chromium = webdriver.Chrome(options=options, service=Service(driver))
    yield chromium
    chromium.quit()


@pytest.fixture
def chromium(started_browser: Any) -> Iterator[Any]:
    """The browser with a wide light window of its own and empty logs."""
    before = started_browser.current_window_handle
    started_browser.switch_to.new_window("tab")
    look_like(started_browser, 1280, "light")
    for log in ("browser", "performance"):
        started_browser.get_log(log)
    yield started_browser
    started_browser.close()
    started_browser.switch_to.window(before)


def look_like(chromium: Any, width: int, scheme: str) -> None:
    """Give the window a width, below 500 that of a telephone, and a colour scheme."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
