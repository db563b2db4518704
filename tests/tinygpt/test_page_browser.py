"""A page of `python -m tinygpt page` in a real browser: opened from disk, without a network."""

import time

import numpy as np
import pytest

from autograd import no_grad
from tests.support.browser import chromium, complaints
from tests.support.models import sharp_model
from tests.support.pages import TEXT, byte_pairs, characters
from tinygpt.config import ARCHITECTURES
from tinygpt.generate import generate, probabilities
from tinygpt.page import KINDS, page_of
from tinygpt.text.tokenizer import CharTokenizer

pytestmark = pytest.mark.browser
# WebDriver's names of keys; Control is let go at the end of its word.
SELECT_ALL, DELETE, LEFT = "\ue009a\ue000", "\ue017", "\ue012"

LOGITS = """
const [text, done] = arguments;
(async () => {
  const { ids } = await ask("read", { text, off }), rows = [];
  for (const t of ids.keys()) rows.push(Array.from((await ask("look", { position: t })).logits));
  done([ids, rows]);
})();
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


@pytest.fixture
def show(driver, tmp_path):
    """Opens a model's page. After the test the browser's console must be empty."""

    def open_page(model, tokenizer, weights="float32"):
        path = tmp_path / "page.html"
        path.write_text(page_of(model, tokenizer, "small", weights), encoding="utf-8")
        driver.get(path.as_uri())
        wait(driver, "document.body.className === '' && $('layers').children.length > 0")

    yield open_page
    assert complaints(driver) == []


@pytest.fixture
def love(show):
    """The page of a small GPT, and its (model, tokenizer)."""
    tokenizer = characters("<>=()/imgscreoa1'xlntp")
    model = sharp_model("gpt2", vocab_size=tokenizer.vocab_size, block_size=64)
    show(model, tokenizer)
    return model, tokenizer


def wait(driver, condition):
    """Until an expression of JavaScript is true."""
    end = time.monotonic() + 30
    while not driver.execute_script(f"return {condition}"):
        assert time.monotonic() < end, condition
        time.sleep(0.02)


def write(driver, text):
    """Replace the text as somebody who types does, and wait until it was read."""
    driver.execute_script("reading = null")
    driver.find_element("id", "text").send_keys(SELECT_ALL, text)
    wait(driver, f"reading && !is_reading && $('position').max == {len(text)}")


def move(driver, name, value):
    """Move a slider."""
    script = "$(arguments[0]).value = arguments[1]; $(arguments[0]).dispatchEvent(new Event('input'))"
    driver.execute_script(script, name, str(value))


def texts(driver, selector):
    """What can be read in the elements that a CSS selector finds."""
    script = "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)"
    return driver.execute_script(script, selector)


def losses_of(model, ids):
    """-log of the probability of each of ids[1:]: float64 (T - 1)."""
    with no_grad():
        logits = model(ids[None]).data[0].astype(np.float64)
    p = [probabilities(row) for row in logits]
    return -np.log([row[i] for row, i in zip(p, ids[1:], strict=False)])


# --- its numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_python(driver, show, architecture, kind):
    model = sharp_model(architecture, vocab_size=320, block_size=32)
    show(model, byte_pairs(), kind)
    ids, rows = driver.execute_async_script(LOGITS, "I love 山上 you.")
    assert ids == byte_pairs().encode("I love 山上 you.").tolist()
    with no_grad():
        wanted = model(np.array([ids])).data[0]
    largest = np.abs(rows - wanted).max() / np.abs(wanted).max()
    assert largest < {"float32": 2e-6, "float16": 3e-3, "int16": 3e-4, "int8": 1e-1}[kind]


def test_it_writes_what_python_writes(driver, love):
    """At temperature 0, token by token, over the end of the context."""
    model, tokenizer = love
    move(driver, "temperature", 0)
    driver.find_element("id", "one").click()
    wait(driver, "$('written').textContent.length === 1")
    driver.find_element("id", "write").click()
    wait(driver, "$('written').textContent.length > 100")
    driver.find_element("id", "write").click()
    wait(driver, "$('write').textContent === 'Write'")
    time.sleep(0.1)  # the token that was on its way
    (written,) = texts(driver, "#written")
    ids = generate(model, tokenizer.encode(TEXT), len(written), temperature=0, when_full="halve")
    assert written == tokenizer.decode(list(ids))
    assert texts(driver, "#prompt") == [TEXT] and "a second" in texts(driver, "#speed")[0]


def test_the_text_ends_at_an_end_token(driver, show):
    tokenizer = characters(end=True)
    model = sharp_model("reference", vocab_size=tokenizer.vocab_size)
    model.lm_head.bias.data[tokenizer.end_ids[0]] = 1000
    show(model, tokenizer)
    driver.find_element("id", "write").click()
    wait(driver, "$('speed').textContent.includes('ended') && $('write').textContent === 'Write'")
    assert texts(driver, "#written") == [""]


# --- what is seen ---------------------------------------------------------------------------------


def test_the_prefix_table_of_i_love_you(driver, love):
    model, tokenizer = love
    assert texts(driver, "#tokens .token") == list("I␣LOVE␣YOU.")
    ids = tokenizer.encode(TEXT)
    shares = np.exp(-losses_of(model, ids))
    rows = texts(driver, "#prefixes tr")
    assert len(rows) == len(TEXT)
    for t, share in enumerate(shares):
        cells = texts(driver, f"#prefixes tr:nth-child({t + 1}) td")
        assert cells[:2] == [TEXT[: t + 1].replace(" ", "␣"), TEXT[t + 1].replace(" ", "␣")]
        shown = cells[2].replace("\xa0", " ")
        assert shown == "< 0.1 %" if share < 0.001 else abs(float(shown[:-2]) - 100 * share) < 0.51
    assert texts(driver, "#prefixes tr:last-child td")[1:3] == ["?", ""]


def test_the_bars_follow_the_settings(driver, love):
    model, tokenizer = love
    with no_grad():
        logits = model(tokenizer.encode(TEXT)[None]).data[0, -1]
    for settings in ({}, dict(temperature=0.5), dict(top_k=3), dict(top_p=0.5), dict(temperature=2, top_k=0)):
        for name, value in settings.items():
            move(driver, name, value)
        names = ("temperature", "top_k", "top_p")
        now = {name: float(driver.execute_script(f"return $('{name}').value")) for name in names}
        p = probabilities(logits, now["temperature"], int(now["top_k"]), now["top_p"])
        best = [i for i in np.argsort(-p, kind="stable")[:10] if p[i] > 0]
        shown = [tokenizer.chars[i].replace(" ", "␣").replace("\n", "↵") for i in best]
        assert texts(driver, "#next code") == shown
        widths = driver.execute_script(
            "return [...document.querySelectorAll('#next .bar')].map((b) => b.style.width)"
        )
        assert np.allclose([float(width[:-1]) for width in widths], 100 * p[best], atol=0.01)
        assert texts(driver, "#possible") == [f"Tokens that can come: {(p > 0).sum()} of {len(p)}."]


def test_switching_a_head_off_changes_the_loss(driver, love):
    model, tokenizer = love
    ids = tokenizer.encode(TEXT)
    before = losses_of(model, ids).mean()
    assert texts(driver, "#loss") == [f"Loss of this text: {before:.3f} nats a token. All heads are on."]
    driver.find_element("css selector", "#heads button:nth-child(4)").click()  # block 2, head 2
    assert texts(driver, "#head_name") == ["Block 2, head 2"]
    driver.find_element("id", "head_on").click()
    wait(driver, "$('loss').textContent.includes('off')")
    model.transformer.h[1].attn.c_proj.weight.data[16:] = 0
    after = losses_of(model, ids).mean()
    sign = "−" if after < before else "+"
    assert texts(driver, "#loss") == [
        f"Loss of this text: {after:.3f} nats a token. With all heads on: {before:.3f}. Switched off: 1; "
        f"that changes the loss by {sign}{abs(after - before):.3f}."
    ]
    assert texts(driver, "#head_name") == ["Block 2, head 2 (off)"]
    driver.find_element("id", "head_on").click()
    wait(driver, "$('loss').textContent.includes('All heads')")
    assert f"{before:.3f}" in texts(driver, "#loss")[0]


def test_choosing_a_token_with_the_keyboard(driver, love):
    """The parts below follow, and every head's picture says in words where it looks."""
    slider = driver.find_element("id", "position")
    slider.send_keys(LEFT * 10)
    wait(driver, "$('at').textContent === '1 of 11: I'")
    assert texts(driver, "#seen li") == ["1: I100\xa0%"]
    wait(driver, "$('layers').children.length === 4")
    label = driver.execute_script("return $('heads').children[5].ariaLabel")
    assert label == "Block 3, head 2: from 1: I mostly to 1: I, 100\xa0%"


def test_what_is_typed_is_never_html(driver, love):
    text = "<img src=x onerror=alert(1)><script>"
    write(driver, text)
    assert texts(driver, "#prompt") == [text]
    assert driver.execute_script("return document.images.length") == 0
    assert driver.execute_script("return document.scripts.length") == 4  # the weights' own is gone


def test_unknown_characters_and_an_empty_text(driver, love):
    driver.find_element("id", "text").send_keys("€")
    wait(driver, "$('note').textContent.includes('€')")
    assert texts(driver, "#note") == ["Left out, without a token: €"]
    driver.find_element("id", "text").send_keys(SELECT_ALL, DELETE)
    wait(driver, "$('note').textContent.includes('no text')")
    assert texts(driver, "#tokens .token") == ["↵"]
    assert texts(driver, "#loss") == ["The loss needs at least two tokens."]


def test_chinese(driver, show):
    tokenizer = CharTokenizer("山上有一座小屋，")
    model = sharp_model("reference", vocab_size=tokenizer.vocab_size)
    show(model, tokenizer, "int8")
    write(driver, "山上小屋")
    assert texts(driver, "#tokens .token") == list("山上小屋")
    assert texts(driver, "#prefixes tr:nth-child(3) td")[:2] == ["山上小", "屋"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_and_dark(driver, love, scheme):
    """At 400 pixels nothing is wider than the page, and texts stand out from it."""
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        colours = "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
        ink, paper = (luminance(colour) for colour in driver.execute_script(colours))
        assert (ink < paper) == (scheme == "light")
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7  # WCAG's contrast, level AAA
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def luminance(colour):
    """The relative luminance, as WCAG defines it, of a colour such as "rgb(255, 0, 0)"."""
    c = np.array([int(part) for part in colour[4:-1].split(",")]) / 255
    return float(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def test_the_policy_stops_what_is_not_of_the_page(driver, love):
    """Scripts, handlers and the network: a stranger's code would get nowhere."""
    driver.execute_script("""
    const script = document.createElement("script"), image = document.createElement("img");
    script.textContent = "window.stranger = 1";
    image.setAttribute("onclick", "window.stranger = 2");
    document.body.append(script, image);
    image.click();
    image.src = "https://localhost:9/pixel.png";
    """)
    fetched = driver.execute_async_script(
        "fetch('https://localhost:9/').then(arguments[0], (error) => arguments[0](String(error)))"
    )
    assert "TypeError" in fetched
    assert driver.execute_script("return window.stranger") is None
    stopped = complaints(driver)
    assert len([line for line in stopped if "Content Security Policy" in line]) >= 3, stopped
