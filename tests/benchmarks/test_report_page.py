"""The page of the report as a browser shows it."""

from __future__ import annotations

import pytest
from browser import find_browser
from report_runs import lay_run

from benchmarks.report.command import main

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no browser installed")

FLAGS = (
    "--no-sandbox",  # which a root user, as in containers, cannot have
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LONG = (
    "split_digits, 28 experiences, natural order; a_network_with_a_very_long_name_" * 2
)
FIGURES = """figures => figures.map(figure => {
  const seen = figure.querySelector('svg, img'), box = seen.getBoundingClientRect();
  return {width: box.width, height: box.height, ink: seen.matches('img') ||
          seen.querySelectorAll('path, text, image').length > 5};
})"""
DECODED = """async () => {
  const inner = [...document.querySelectorAll('svg image')].map(i => i.href.baseVal);
  const sources = [...document.images].map(i => i.src).concat(inner);
  for (const source of sources) {
    const image = new Image(); image.src = source; await image.decode();
    if (!image.naturalWidth) throw new Error('an image is empty');
  }
  return sources.length;
}"""
CONTRAST = """() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(
    c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4
  ).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
  };
  let least = 99;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, style = getComputedStyle(element);
    if (!walker.currentNode.data.trim() || element.closest('style, .matrices svg'))
      continue;
    const ink = light(parse(element.closest('svg') ? style.fill : style.color));
    const page = light(behind(element));
    const [low, high] = [ink, page].sort((a, b) => a - b);
    least = Math.min(least, (high + 0.05) / (low + 0.05));
  }
  return least;
}"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The report of two settings; one is of 28 experiences, one has a picture."""
    out = tmp_path_factory.mktemp("report")
    for seed in (0, 1):
        lay_run(out, recipe="naive", seed=seed)
    lay_run(out, recipe="replay", pictures=["exemplars"])
    matrix = [[0.5 if j <= i else None for j in range(28)] for i in range(28)]
    lay_run(out, recipe="a_recipe" * 9, matrix=matrix, setting=LONG, note="<i>" * 30)
    main([str(out)])
    return out / "report.html"


@pytest.fixture(scope="module")
def browser():
    """An installed browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=find_browser(), args=list(FLAGS)
        )
        yield chromium
        chromium.close()


@pytest.fixture(
    params=[(360, "light"), (360, "dark"), (1280, "light"), (1280, "dark")],
    ids=lambda given: f"{given[0]}-{given[1]}",
)
def page(request, browser, path):
    """The page on a phone and on a desk; whatever it complains of fails the test."""
    width, scheme = request.param
    page = browser.new_page(
        viewport={"width": width, "height": 800}, color_scheme=scheme
    )
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert not complaints
    requests = [url for url in requests if not url.startswith("data:")]
    assert requests == [path.as_uri()]
    page.close()


def test_every_figure_is_there_and_every_image_can_be_decoded(page):
    figures = page.eval_on_selector_all("figure", FIGURES)
    # twice accuracy, forgetting, memory; three matrices, one with a bar; a picture
    assert len(figures) == 10
    assert all(f["width"] > 200 and f["height"] > 60 and f["ink"] for f in figures)
    assert page.evaluate(DECODED) == 5


def test_nothing_is_wider_than_the_window(page):
    for details in page.query_selector_all("details"):
        details.evaluate("details => details.open = true")
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) == 0
    spilt = "tables => tables.filter(t => !t.closest('.scroll')).length"
    assert page.eval_on_selector_all("table", spilt) == 0


def test_text_stands_out_from_its_background(page):
    assert page.evaluate(CONTRAST) >= 4.5


def test_figures_take_on_the_colour_of_the_page(page):
    text, label = page.evaluate(
        "[getComputedStyle(document.body).color,"
        " getComputedStyle(document.querySelector('figure svg text')).fill]"
    )
    assert text == label


def test_contents_can_be_reached_and_used_with_the_keyboard(page):
    page.keyboard.press("Tab")  # the link that skips them
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('nav') !== null")
    target = page.evaluate("document.activeElement.hash")
    page.keyboard.press("Enter")
    top = page.evaluate(f"document.querySelector('{target}').getBoundingClientRect().y")
    assert target.startswith("#setting-") and page.url.endswith(target)
    assert abs(top) < 800
