"""A headless Chromium for tests of pages, driven by selenium. Without either the tests are skipped."""

import contextlib
import json
import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NO_NETWORK = (  # else it looks for updates and the like
    "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-default-apps --disable-extensions --disable-quic "
    "--proxy-server=127.0.0.1:9 --force-device-scale-factor=1"
)


@contextlib.contextmanager
def chromium(folder):
    """A selenium driver whose Chromium keeps its data in a new folder and reaches no network."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install .[browser]")
    paths = [path for name in BROWSERS if (path := shutil.which(name))]
    driver_path = shutil.which("chromedriver")
    if not paths or not driver_path:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for word in [*NO_NETWORK.split(), f"--user-data-dir={folder}"]:
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(driver_path))
    try:
        driver.set_script_timeout(120)
        yield driver
    finally:
        driver.quit()


def complaints(driver):
    """What Chromium's console says since the last call: errors, and what a policy has stopped."""
    return [json.dumps(entry) for entry in driver.get_log("browser")]
