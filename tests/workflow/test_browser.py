"""The report's page in a real browser."""

import json
import os
import re

import pytest
from browser import CHROMIUM, Browser

pytestmark = pytest.mark.cluster
#: Figures of every page of transformers that were searched and trained, but their blocks.
FIGURES = {
    *("Test accuracy of winner and controls", "Curve of the layers", "Spearman of every proxy", "PROXY against size"),
    *("Spearman of every method", "Fitness against size", "Accuracy by epoch"),
}
TIP = "document.getElementById('tip')"
UNCOVERED = """.find((point) => {
  point.scrollIntoView({block: 'center', behavior: 'instant'});
  const at = point.getBoundingClientRect();
  return point.contains(document.elementFromPoint(at.left + at.width / 2, at.top + at.height / 2));
})"""
COLUMN = "[...document.querySelector('{} table').tBodies[0].rows].map((row) => row.cells[{}].textContent)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not CHROMIUM:
        why = "no Chromium here; on Debian: apt install chromium"
        if os.environ.get("LIBRANAS_BROWSER") == "required":
            pytest.fail(why)
        pytest.skip(f"NO BROWSER, no page is looked at in this run: {why}")
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture
def page(browser, request):
    """The browser with the page of a finished run, in a window of a desktop."""
    run = request.getfixturevalue(getattr(request, "param", "finished"))
    browser.requests.clear()
    browser.errors.clear()
    browser.look(1100, 900)
    browser.open(run.results / "report.html")
    yield browser
    assert browser.errors == []
    assert [url[:99] for url in browser.requests if not url.startswith(("data:", "file:///"))] == []
    assert sum(url.startswith("file:") for url in browser.requests) == 1


@pytest.mark.parametrize(
    ("page", "section", "further", "says"),
    [
        ("finished", "#search", {"Fitness by evaluations"}, "fitness "),
        ("guided", "#rounds", {"Accuracy by trainings", "Front"}, "benchmark accuracy "),
    ],
    indirect=["page"],
)
def test_every_point_says_its_values_when_the_mouse_is_over_it(page, section, further, says):
    counts = "(f) => [f.ariaLabel, f.querySelectorAll('.point').length]"
    figures = dict(page.run(f"[...document.querySelectorAll('section figure svg')].map({counts})"))
    blocks = {name for name in figures if name.startswith("Blocks of ")}
    assert len(blocks) == page.run("document.querySelectorAll('#architectures h3').length") > 1
    others = {re.sub(r"^[a-z]\w* against", "PROXY against", name) for name in figures.keys() - blocks}
    assert others == FIGURES | further and all(figures.values()), figures
    said = page.run("[...document.querySelectorAll('.point')].map((point) => point.ariaLabel)")
    assert all(text.strip() and "nan" not in text for text in said)
    assert page.run(f"{TIP}.hidden")
    page.run(f"[...document.querySelectorAll('{section} .point')]{UNCOVERED}.id = 'uncovered'")
    page.move("#uncovered")
    text = page.run(f"{TIP}.textContent")
    assert not page.run(f"{TIP}.hidden")
    assert "depth " in text and " parameters, " in text and says in text
    page.move("#architectures .point")
    assert page.run(f"{TIP}.textContent").startswith("block 1 of ")
    page.move("h1")
    assert page.run(f"{TIP}.hidden")


def test_a_click_on_a_point_leads_to_its_network(page):
    page.move("#summary figure .point", click=True)
    row = page.run("document.querySelector(':target').innerText")
    text = page.run("document.querySelector('#summary figure .point').ariaLabel")
    assert page.run("location.hash").startswith("#network-") and row.split()[0] == text.split()[0]
    place = "document.querySelector(':target').getBoundingClientRect()"
    assert page.run(f"{place}.top > 0 && {place}.bottom < innerHeight")


def test_the_keyboard_leads_from_point_to_point_and_on_to_the_network(page):
    page.run("document.querySelector('#search figure .point[tabindex=\"0\"]').focus()")
    first = page.run(f"{TIP}.textContent")
    page.press("ArrowRight")
    second = page.run(f"{TIP}.textContent")
    assert first and second and first != second and not page.run(f"{TIP}.hidden")
    assert page.run("document.querySelectorAll('#search figure:first-of-type .point[tabindex=\"0\"]').length") == 1
    page.press("Enter")
    assert page.run("location.hash") == f"#network-{second.split()[0]}"
    page.press("Escape")
    assert page.run(f"{TIP}.hidden")


def test_the_first_stop_of_the_tab_key_skips_to_the_content(page):
    page.press("Tab")
    assert page.run("document.activeElement.className") == "skip"
    assert page.run("document.activeElement.getBoundingClientRect().left") >= 0
    page.press("Enter")
    assert page.run("location.hash") == "#content"


def test_heads_sort_by_click_and_by_key(page):
    head = "#proxies table:first-of-type th:nth-child({}) button"
    page.move(head.format(2), click=True)
    down = [float(text) for text in page.run(COLUMN.format("#proxies", 1))]
    assert down == sorted(down, reverse=True) and len(set(down)) > 3
    assert page.run("document.querySelector('#proxies [aria-sort]').ariaSort") == "descending"
    page.press("Enter")
    assert [float(text) for text in page.run(COLUMN.format("#proxies", 1))] == down[::-1]
    page.move(head.format(1), click=True)
    names = page.run(COLUMN.format("#proxies", 0))
    assert names == sorted(names) and page.run("document.querySelectorAll('#proxies [aria-sort]').length") == 1
    page.move(head.format(5), click=True)  # one of these numbers is missing
    partial = page.run(COLUMN.format("#proxies", 4))
    assert "n/a" not in partial[:-1] and partial[-1] == "n/a"


@pytest.mark.parametrize("page", ["guided"], indirect=True)
def test_rounds_sort_by_what_they_trained(page):
    page.move("#rounds th:nth-child(2) button", click=True)
    assert page.run(COLUMN.format("#rounds", 1)) == ["22", "10", "3"]


def test_numbers_and_papers_are_copied(page):
    for source, start in (("markdown", "# tiny"), ("bibtex", "@inproceedings{casarin2025lswag")):
        page.run("window.copied = null; navigator.clipboard.writeText = async (text) => { window.copied = text; }")
        page.move(f"button[data-source={source}]", click=True)
        assert page.run("window.copied").startswith(start)
        assert page.run("window.copied") == page.run(f"document.getElementById('{source}').textContent")
        assert page.run("document.getElementById('copied').textContent") == "Copied."


def test_without_the_clipboard_the_text_is_shown_and_marked(page):
    page.run("navigator.clipboard.writeText = async () => { throw new Error('no'); }")
    page.run("document.execCommand = () => false; 0")
    page.move("button[data-source=markdown]", click=True)
    assert page.run("document.querySelector('details').open") and "# tiny" in page.run("String(getSelection())")
    assert "Ctrl+C" in page.run("document.getElementById('copied').textContent")


def contrast(page, selector: str, what: str = "color") -> float:
    """Ratio of the luminances (WCAG 2) of an element's colour and of the section behind it."""
    style = f"getComputedStyle(document.querySelector({json.dumps(selector)}))[{json.dumps(what)}]"
    colours = [page.run(style), page.run("getComputedStyle(document.querySelector('section')).backgroundColor")]
    values = []
    for colour in colours:
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(", ")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        values.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    low, high = sorted(values)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_figures_are_read_on_light_and_dark_pages(page, dark):
    page.look(1100, 900, dark)
    light = page.run("getComputedStyle(document.body).backgroundColor") == "rgb(244, 246, 248)"
    assert light == (not dark)
    for selector, what in (("p", "color"), (".note", "color"), ("td a", "color"), ("figure svg text", "fill")):
        assert contrast(page, selector, what) >= 4.5, selector
    assert contrast(page, "#summary .point use", "fill") >= 3


@pytest.mark.parametrize("page", ["finished", "guided"], indirect=True)
def test_a_phone_scrolls_down_only(page):
    page.look(390, 844)
    assert page.run("document.documentElement.scrollWidth") == 390
    wide = "[...document.querySelectorAll('section *')].filter((e) => !e.closest('.scroll, figure')"
    assert page.run(f"{wide} && e.getBoundingClientRect().right > 390).map((e) => e.outerHTML.slice(0, 99))") == []
    heights = page.run("[...document.querySelectorAll('svg text')].map((e) => e.getBoundingClientRect().height)")
    assert min(heights) >= 9


def test_the_page_can_be_printed(page):
    page.look(1100, 900, dark=True)
    assert page.printed().startswith(b"%PDF")
    page.look(718, 1000)  # A4 between its margins
    page.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert page.run("document.documentElement.scrollWidth") <= 718
    assert page.run("getComputedStyle(document.querySelector('section')).backgroundColor") == "rgb(255, 255, 255)"
    assert page.run("getComputedStyle(document.querySelector('nav')).display") == "none"
