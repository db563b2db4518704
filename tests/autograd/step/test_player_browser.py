"""The player of a film in a real browser, from disk: what is seen are the film's numbers."""

import json
import time

import numpy as np
import pytest

from autograd import step_through
from autograd.step import page
from autograd.step.views import films_of, fold
from tests.autograd.step import losses
from tests.autograd.step.films import array_film, block_film, film_of, gpt_film, scalar_film
from tests.support.browser import chromium, complaints

pytestmark = pytest.mark.browser
LEFT, RIGHT, UP, DOWN, HOME, END = "\ue012", "\ue014", "\ue013", "\ue015", "\ue011", "\ue010"
ESCAPE, ENTER, TAB = "\ue00c", "\ue007", "\ue004"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


@pytest.fixture
def show(driver, tmp_path):
    """Opens a film, or a text of HTML. After the test the browser's console must be empty."""

    def open_page(film):
        text = (
            film
            if isinstance(film, str)
            else page.document(film if isinstance(film, dict) else film.as_json())
        )
        path = tmp_path / "step.html"
        path.write_text(text, encoding="utf-8")
        driver.get(path.as_uri())

    yield open_page
    assert complaints(driver) == []


def press(driver, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(driver).send_keys("".join(keys)).perform()


def texts(driver, selector):
    """What can be read in the elements that a CSS selector finds."""
    script = "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)"
    return driver.execute_script(script, selector)


def text(driver, selector):
    (found,) = texts(driver, selector)
    return found


def seen(driver, name):
    """The texts of the box in the graph whose first line is this name."""
    boxes = driver.execute_script("""
    return [...document.querySelectorAll(".view:not([hidden]) .box")].map(
      (box) => [...box.querySelectorAll("text")].map((text) => text.textContent));
    """)
    (found,) = (lines for lines in boxes if lines[0] == name)
    return found


def lit(driver):
    return texts(driver, ".view:not([hidden]) .box.lit .name")


def figures(driver):
    """{caption: numbers as text}, of the numbers and small tables that are shown."""
    return dict(
        driver.execute_script("""
    return [...document.querySelectorAll("#figures figure")].map((figure) => [
      figure.querySelector("figcaption").firstChild.textContent,
      [...figure.querySelectorAll(".number, td")].map((cell) => cell.textContent)]);
    """)
    )


def shown(array):
    """An array as the page should show its numbers."""
    return [f"{value:.4g}" for value in np.ravel(array)]


def backward_steps(film):
    return [(i, step) for i, step in enumerate(film.steps) if step.kind == "backward"]


# --- stepping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("film", [scalar_film, array_film])
def test_every_step_forward_and_back_shows_the_films_numbers(driver, show, film):
    film = film()
    show(film)
    press(driver, END)
    for i, step in reversed(list(enumerate(film.steps))):
        assert text(driver, "#count") == f"step {i + 1} of {len(film.steps)}"
        assert text(driver, "#sentence") == step.why and text(driver, "#direction") == step.kind
        node = film.nodes[step.node]
        assert lit(driver)[0].split(" = ")[0] in (node.called, node.label)
        numbers = figures(driver)
        if step.kind == "backward":
            assert numbers["comes in"] == shown(step.incoming)
            target = film.nodes[step.to].called
            name = node.input_names[step.input]
            assert numbers[f"→ {name}" if name == target else f"→ {name}: {target}"] == shown(
                step.contribution
            )
        assert numbers[f"→ {node.label or 'result'}"] == shown(node.value)
        press(driver, LEFT)
    press(driver, LEFT)  # there is nothing before
    assert text(driver, "#count") == f"step 1 of {len(film.steps)}"
    press(driver, RIGHT, RIGHT)
    assert text(driver, "#count") == f"step 3 of {len(film.steps)}"
    press(driver, HOME)
    assert text(driver, "#count") == f"step 1 of {len(film.steps)}"


def test_gradients_appear_as_they_arrive_and_add_up(driver, show):
    film = film_of(losses.scalars)  # c and b are used twice
    show(film)
    gradients, sums = {}, 0
    for step in film.steps:
        if step.kind == "backward":
            gradients.setdefault(step.node, step.incoming)
            before, gradients[step.to] = gradients.get(step.to), step.total
            if step.adds:
                terms = [f"{float(x):.4g}" for x in (before, step.contribution, step.total)]
                terms[1] = f"({terms[1]})" if terms[1].startswith("-") else terms[1]
                assert "{} + {} = {}".format(*terms) in texts(driver, "#figures p.number")
                sums += 1
            else:
                assert texts(driver, "#figures p.number") == []
        for node in film.nodes:
            name = (
                node.called if node.kind != "operation" or not node.label else f"{node.label} = {node.name}"
            )
            wanted = f"grad {float(gradients[node.id]):.4g}" if node.id in gradients else "no gradient yet"
            assert seen(driver, name)[-1] == wanted
        press(driver, RIGHT)
    assert sums == 2


def test_arrays_that_add_up_are_three_pictures_on_one_scale(driver, show):
    film = array_film()
    show(film)
    (i,) = (i for i, step in backward_steps(film) if step.adds)
    press(driver, HOME, RIGHT * i)
    before = next(step for step in film.steps[i - 1 :: -1] if step.to == film.steps[i].to)
    numbers = figures(driver)
    assert numbers["before"] == shown(before.total)
    assert numbers["arrives"] == shown(film.steps[i].contribution)
    assert numbers["now"] == shown(film.steps[i].total)
    colours = driver.execute_script("""
    return [...document.querySelectorAll(".sum figure")].map((figure) => Number(
      figure.querySelector("td").style.backgroundColor.match(/[\\d.]+\\)$/)[0].slice(0, -1)));
    """)
    assert np.allclose(colours[0] + colours[1], colours[2], atol=0.01)  # both parts are equal here


def test_buttons_slider_and_play(driver, show):
    show(scalar_film())
    count = len(scalar_film().steps)
    for name, place in [("next", 2), ("last", count), ("back", count - 1), ("first", 1)]:
        driver.find_element("id", name).click()
        assert text(driver, "#count") == f"step {place} of {count}"
    slider = driver.find_element("id", "slider")
    driver.execute_script("arguments[0].value = 4; arguments[0].dispatchEvent(new Event('input'))", slider)
    assert text(driver, "#count") == f"step 5 of {count}"
    slider.send_keys(RIGHT)
    assert text(driver, "#count") == f"step 6 of {count}"
    driver.find_element("id", "play").click()
    assert driver.find_element("id", "play").get_attribute("aria-label") == "Pause"
    until(lambda: text(driver, "#count") == f"step 7 of {count}")
    press(driver, " ")
    time.sleep(0.05)
    assert driver.find_element("id", "play").get_attribute("aria-label") == "Play"


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# --- the source -----------------------------------------------------------------------------------


@pytest.mark.parametrize("film", [scalar_film, block_film])
def test_the_lines_of_the_pullback_that_runs_are_marked(driver, show, film):
    film = film()
    show(film)
    press(driver, END)
    for i, step in reversed(backward_steps(film)):
        source, place = film.sources[step.place.source], step.place
        lines = source.text.split("\n")
        assert texts(driver, "#lines .code span:last-child") == lines
        wanted = range(place.first, place.last + 1)
        assert texts(driver, "#lines .runs span:first-child") == [f"▶ {number}" for number in wanted]
        if place.columns:
            marked = lines[place.first - source.first_line][slice(*place.columns)]
            assert text(driver, "#lines mark") == marked and "lambda" in marked
        also = [n for first, last in place.also for n in range(first, last + 1) if n not in wanted]
        assert texts(driver, "#lines .also span:first-child") == [str(n) for n in sorted(set(also))]
        assert is_in_sight(driver, ".runs", "#lines"), i
        press(driver, LEFT)


def is_in_sight(driver, selector, pane):
    return driver.execute_script(
        """
    const rectangle = (selector) => document.querySelector(selector).getBoundingClientRect();
    const [inner, outer] = [...arguments].map(rectangle);
    return inner.top >= outer.top - 1 && inner.top < outer.bottom && inner.left < outer.right;
    """,
        selector,
        pane,
    )


# --- opening and closing --------------------------------------------------------------------------


def test_an_operation_opens_and_closes(driver, show):
    """Inside are its primitives, and at their end the gradients that the operation itself hands back."""
    film = block_film()
    show(film)
    number = next(node.id for node in film.nodes if node.name == "layer_norm")
    first = next(i for i, step in backward_steps(film) if step.node == number)
    press(driver, HOME, RIGHT * first)
    press(driver, "o")
    inside = film.nodes[number].inside
    assert text(driver, "#open button") == f"inside {film.nodes[number].called} ✕"
    start = next(i for i, step in enumerate(inside.steps) if step.kind == "backward")
    assert text(driver, "#count") == f"step {start + 1} of {len(inside.steps)}"
    assert text(driver, "#sentence") == inside.steps[start].why
    press(driver, END)
    for _, step in backward_steps(film):
        if step.node == number:
            name = film.nodes[number].input_names[step.input]
            rms = float(np.sqrt(np.mean(step.contribution.astype(float) ** 2)))
            assert seen(driver, name)[-1] == f"grad rms {rms:.2g}"
    press(driver, ESCAPE)
    assert text(driver, "#count") == f"step {first + 1} of {len(film.steps)}"
    assert lit(driver) == [film.nodes[number].called]
    driver.find_element("id", "inside").click()
    assert text(driver, "#count") == f"step {start + 1} of {len(inside.steps)}"
    driver.find_element("css selector", "#open button").click()
    assert text(driver, "#count") == f"step {first + 1} of {len(film.steps)}"


def test_a_module_opens_and_closes(driver, show):
    """Folded, it is one box, and the steps inside it are passed over."""
    film = block_film()
    show(film)
    driver.find_element("xpath", "//button[.='fold all']").click()
    attn = seen(driver, "attn")
    assert attn[1] == "3 operations"
    folded = int(text(driver, "#count").split()[-1])
    assert folded == sum(1 for _ in steps_between_boxes(film))
    press(driver, HOME)
    visited = []
    for _ in range(folded):
        visited += lit(driver)
        press(driver, RIGHT)
    assert {"attn", "mlp"} <= set(visited) and "causal_attention" not in visited
    driver.execute_script(
        "[...document.querySelectorAll('.view:not([hidden]) .box')].find("
        "(box) => box.textContent.startsWith('attn')).focus()"
    )
    press(driver, ENTER)
    assert "causal_attention" in texts(driver, ".view:not([hidden]) .name")
    assert texts(driver, "#open button") == ["attn ✕", "open all"]
    assert folded < int(text(driver, "#count").split()[-1]) < len(film.steps)
    press(driver, ESCAPE)
    assert seen(driver, "attn")[0] == "attn" and int(text(driver, "#count").split()[-1]) == folded
    driver.find_element("xpath", "//button[.='open all']").click()
    assert text(driver, "#count").endswith(f"of {len(film.steps)}")


def steps_between_boxes(film):
    """The steps that are seen while all modules are folded: of each box the last, and from box to box."""
    box_of = {number: box for box in fold(films_of(film.as_json())[0], []) for number in box.nodes}
    for step, following in zip(film.steps, [*film.steps[1:], None], strict=True):
        if step.kind == "backward":
            if box_of[step.node] is not box_of[step.to]:
                yield step
        elif following.kind == "backward" or box_of[step.node] is not box_of[following.node]:
            yield step


def test_every_step_of_a_gpt_is_stepped_through_while_modules_open_on_the_way(driver, show):
    film = gpt_film()
    show(film)
    driver.find_element("css selector", "#open input").click()
    press(driver, HOME)
    visited = set()
    for i, step in enumerate(film.steps):
        assert text(driver, "#count") == f"step {i + 1} of {len(film.steps)}"
        assert text(driver, "#sentence") == step.why
        node = film.nodes[step.node]
        (name,) = lit(driver)
        assert name.split(" = ")[0] in (node.called, node.label), (name, node.called)
        if step.kind == "backward":
            visited.add(node.id)
            assert len(driver.find_elements("css selector", ".view:not([hidden]) .edge.travels")) == 1
        press(driver, RIGHT)
    assert visited == {node.id for node in film.nodes if node.kind == "operation"}
    driver.find_element("xpath", "//button[.='open all']").click()  # then the gradient does not choose
    assert not driver.find_element("css selector", "#open input").is_selected()
    assert len(texts(driver, ".view:not([hidden]) .box .name")) == len(film.nodes)


def test_boxes_by_keyboard(driver, show):
    show(scalar_film())
    press(driver, END)
    box = driver.find_element("css selector", ".box.lit")
    names = texts(driver, ".box .name")
    driver.execute_script("arguments[0].focus()", box)
    press(driver, DOWN)
    name = driver.execute_script("return document.activeElement.querySelector('.name').textContent")
    assert names.index(name) == names.index(lit(driver)[0]) + 1
    press(driver, ENTER)
    assert lit(driver) == [name]


# --- numbers of pictures --------------------------------------------------------------------------


def test_pointer_and_keys_read_numbers_to_four_digits(driver, show):
    from selenium.webdriver.common.action_chains import ActionChains

    film = block_film()
    show(film)
    press(driver, END)
    step = film.steps[-1]
    canvas = driver.find_element("css selector", "#figures canvas")
    rows, columns = step.incoming.shape[1:]
    width, height = canvas.size["width"], canvas.size["height"]
    for row, column in [(0, 0), (3, 7), (rows - 1, columns - 1)]:
        dx, dy = (column + 0.5) / columns * width - width / 2, (row + 0.5) / rows * height - height / 2
        ActionChains(driver).move_to_element_with_offset(canvas, round(dx), round(dy)).perform()
        place, number = text(driver, "#reading").removeprefix("comes in ").split(" = ")
        assert json.loads(place) == [0, row, column]
        assert abs(float(number) - step.incoming[0, row, column]) <= 2e-4 * np.abs(step.incoming).max()
    driver.execute_script("arguments[0].focus()", canvas)
    press(driver, LEFT, UP)
    assert text(driver, "#reading").startswith(f"comes in [0, {rows - 2}, {columns - 2}] = ")
    assert text(driver, "#count") == f"step {len(film.steps)} of {len(film.steps)}"  # no step was made


def test_a_thumbnail_says_of_which_block_a_number_is_the_mean(driver, show):
    x = losses.leaf(100, 3)
    film = step_through(lambda: (x * x).sum(), x=x)
    show(film)
    canvas = driver.find_element("css selector", "#figures canvas")
    driver.execute_script("arguments[0].focus()", canvas)
    press(driver, DOWN, RIGHT)
    value = f"{x.data[4:8, 1].mean():.4g}"
    place, number = text(driver, "#reading").split(" = ")
    assert place.endswith("[4:8, 1]") and abs(float(number.split(",")[0]) - float(value)) < 1e-3
    assert number.endswith(", mean of a block")


def test_infinities_and_nan_have_names(driver, show):
    x = losses.leaf(3)
    x.data[:] = [np.inf, np.nan, -np.inf]
    show(step_through(lambda: (x * 1.0).sum(), x=x))
    assert ["inf", "nan", "-inf"] in figures(driver).values()


def test_an_operation_without_a_file_and_an_empty_array(driver, show):
    namespace = {}
    exec("from autograd import op\n@op\ndef cube(x):\n    return x**3, lambda g: g * 3 * x**2", namespace)
    x = losses.leaf(0, 3)
    show(step_through(lambda: namespace["cube"](x).sum(), x=x))
    press(driver, END)
    assert text(driver, "#file") == "There is no source of cube to show." and text(driver, "#lines") == ""
    assert seen(driver, "x")[-1] == "grad rms 0" and "empty" in text(driver, "#figures")
    press(driver, LEFT)
    assert text(driver, "#file").startswith("autograd/ops/reduce.py · marked: ")


# --- what a page must not do ----------------------------------------------------------------------


def test_a_label_with_a_script_stays_text(driver, show):
    bad = "</script><script>window.stranger = 1</script><img src=x onerror='window.stranger = 2'>"
    film = scalar_film().as_json()
    film["title"] = film["nodes"][0]["module"] = bad
    film["nodes"][0]["label"] = film["nodes"][0]["called"] = "<script>stranger = 3</script>"
    for step in film["steps"]:
        step["why"] = bad
    show(film)
    press(driver, END)
    assert text(driver, "h1") == text(driver, "#sentence") == bad
    assert "<script>stranger = 3</script>" in texts(driver, ".name")
    assert driver.execute_script("return [window.stranger, document.images.length]") == [None, 0]


def test_two_players_in_one_document(driver, show):
    """Each has its own keys and numbers, takes the place of its picture, and is as high as it needs."""
    outputs = [page.output(film.as_json(), b"\x89PNG") for film in (scalar_film(), array_film())]
    show(f"<!doctype html><body data-jp-theme-light='false'>{''.join(outputs)}</body>")
    pictures = driver.find_elements("tag name", "img")
    frames = driver.find_elements("tag name", "iframe")
    assert [picture.is_displayed() for picture in pictures] == [False, False]
    counts = []
    for frame, film in zip(frames, (scalar_film(), array_film()), strict=True):
        driver.switch_to.frame(frame)
        driver.find_element("id", "next").click()
        press(driver, *([RIGHT] if film is array_film() else []))
        counts.append(text(driver, "#count"))
        assert driver.execute_script("return document.documentElement.dataset.theme") == "dark"
        height = driver.execute_script("return document.documentElement.offsetHeight")
        driver.switch_to.default_content()
        until(lambda frame=frame, height=height: frame.size["height"] == height)
    assert counts == [f"step 2 of {len(scalar_film().steps)}", f"step 3 of {len(array_film().steps)}"]
    driver.execute_script("document.body.dataset.jpThemeLight = 'true'")  # JupyterLab changes its theme
    driver.switch_to.frame(frames[0])
    until(lambda: driver.execute_script("return document.documentElement.dataset.theme") == "light")
    driver.switch_to.default_content()


def test_a_block_as_large_as_the_laptops_stays_below_two_million_bytes(driver, show):
    text_of_page = page.document(block_film(128, 64).as_json())
    assert len(text_of_page.encode()) < 2_000_000
    show(text_of_page)
    press(driver, END)
    assert "grad rms" in seen(driver, "x")[-1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1000, 1400])
def test_narrow_wide_light_and_dark(driver, show, scheme, width):
    """Nothing is wider than the page, texts stand out, and the node of the moment is in sight."""
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        show(block_film())
        for keys in (END, LEFT * 7, HOME, "o"):
            press(driver, keys)
            assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
            assert is_in_sight(driver, ".view:not([hidden]) .box.lit", "#views")
        for selector in ("body", "#direction", "#figures .soft", "#lines span", ".box.lit .name"):
            assert contrast(driver, selector) > 4.5, selector
        dark = (
            driver.execute_script("return getComputedStyle(document.body).backgroundColor")
            != "rgb(255, 255, 255)"
        )
        assert dark == (scheme == "dark")
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def contrast(driver, selector):
    """WCAG's contrast of a text with what is behind it."""
    colours = driver.execute_script(
        """
    const element = document.querySelector(arguments[0]), style = getComputedStyle(element);
    const rect = element.closest(".box")?.querySelector("rect:last-of-type");
    let behind = element;
    while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
    const ground = rect ? getComputedStyle(rect).fill : getComputedStyle(behind).backgroundColor;
    return [rect ? style.fill : style.color, ground];
    """,
        selector,
    )
    ink, ground = map(luminance, colours)
    return (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05)


def luminance(colour):
    """The relative luminance, as WCAG defines it, of a colour such as "rgb(255, 0, 0)"."""
    c = np.array([int(part) for part in colour[4:-1].split(",")]) / 255
    return float(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def test_who_wants_less_motion_sees_none(driver, show):
    def animation(value):
        media = {"features": [{"name": "prefers-reduced-motion", "value": value}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        script = "return getComputedStyle(document.querySelector('.edge.travels path')).animationName"
        return driver.execute_script(script)

    show(scalar_film())
    press(driver, END)
    assert animation("no-preference") == "travel" and animation("reduce") == "none"
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_what_is_said_to_those_who_do_not_see(driver, show):
    """Steps are announced, every control has a name, and the tab key reaches all of them."""
    show(array_film())
    press(driver, END)
    assert driver.find_element("id", "why").get_attribute("role") == "status"
    names = driver.execute_script("""
    return [...document.querySelectorAll("button, input, [tabindex='0']")].map(
      (element) => element.ariaLabel || element.textContent.trim() || element.labels?.[0]?.textContent);
    """)
    assert all(names)
    label = driver.find_element("css selector", "#figures .map").get_attribute("aria-label")
    incoming = array_film().steps[-1].incoming
    facts = f"{incoming.shape}, from {incoming.min():.4g} to {incoming.max():.4g}"
    assert label == f"comes in, {facts}. The arrow keys read its numbers."
    current = driver.find_element("css selector", ".box[aria-current='step']")
    assert current.get_attribute("tabindex") == "0" and current.get_attribute("role") == "button"
    visited = set()
    driver.execute_script("document.activeElement.blur()")
    for _ in range(30):
        press(driver, TAB)
        visited.add(driver.execute_script("return document.activeElement.closest('[id]')?.id"))
    assert {"first", "back", "play", "slider", "figures", "lines", "views"} <= visited


def test_the_policy_stops_what_is_not_of_the_page(driver, show):
    show(scalar_film())
    driver.execute_script("""
    const script = document.createElement("script"), image = document.createElement("img");
    script.textContent = "window.stranger = 1";
    document.body.append(script, image);
    image.src = "https://localhost:9/pixel.png";
    """)
    fetched = driver.execute_async_script(
        "fetch('https://localhost:9/').then(arguments[0], (error) => arguments[0](String(error)))"
    )
    assert "TypeError" in fetched and driver.execute_script("return window.stranger") is None
    assert len([line for line in complaints(driver) if "Content Security Policy" in line]) >= 3
