"""A committed notebook, exported to HTML, plays its film in a real browser. Needs `[browser,notebooks]`."""

from pathlib import Path

import pytest

from tests.support.browser import chromium, complaints

pytestmark = pytest.mark.browser
NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


@pytest.fixture
def exported(tmp_path):
    """Exports a notebook as `jupyter nbconvert --to html` does, and gives its address."""
    reason = "needs pip install -e '.[notebooks]'"
    nbconvert = pytest.importorskip("nbconvert", reason=reason, exc_type=ImportError)

    def export(name):
        text, _ = nbconvert.HTMLExporter().from_filename(str(NOTEBOOKS / f"{name}.ipynb"))
        path = tmp_path / "notebook.html"
        path.write_text(text, encoding="utf-8")
        return path.as_uri()

    return export


def frames_of(driver):
    return driver.find_elements("css selector", "iframe[srcdoc]")


@pytest.mark.parametrize("width", [1100, 400])
def test_a_whole_gpt_plays_in_an_exported_notebook(driver, exported, width):
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        dict(width=width, height=900, deviceScaleFactor=1, mobile=False),
    )
    driver.get(exported("07_build_and_train_the_gpt"))
    (frame,) = frames_of(driver)
    still = frame.find_element("xpath", "preceding-sibling::img")
    assert not still.is_displayed() and frame.is_displayed()
    complaints(driver)  # what the exported page itself misses without a network: MathJax
    driver.switch_to.frame(frame)
    text = lambda name: driver.find_element("id", name).text
    assert text("direction") == "forward"
    assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    driver.find_element("css selector", "#open input").click()  # follow into modules
    steps = int(text("count").split()[-1])
    directions = set()
    for number in range(1, steps + 1):
        assert text("count").startswith(f"step {number} of")
        assert text("sentence") and len(driver.find_elements("css selector", ".view:not([hidden]) .lit")) == 1
        directions.add(text("direction"))
        driver.execute_script("document.getElementById('next').click()")
    assert directions == {"forward", "backward"} and steps > 60
    assert "wte.weight" in driver.find_element("css selector", ".view:not([hidden]) .target").text
    driver.switch_to.default_content()
    assert complaints(driver) == []


@pytest.mark.parametrize(("name", "players"), [("02_a_scalar_engine", 3), ("06_causal_attention", 2)])
def test_several_players_in_a_notebook_do_not_disturb_each_other(driver, exported, name, players):
    driver.get(exported(name))
    complaints(driver)
    frames = frames_of(driver)
    assert len(frames) == players
    for frame in frames:
        driver.switch_to.frame(frame)
        assert driver.find_element("id", "count").text.startswith("step 1 of")
        driver.execute_script("document.getElementById('last').click()")
        assert driver.find_element("id", "direction").text == "backward"
        driver.switch_to.default_content()
    assert complaints(driver) == []
