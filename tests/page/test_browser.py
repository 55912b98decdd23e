"""The page in a real browser, headless: what is seen, by keys alone, on a narrow screen, and when nobody answers.

Pictures of all views are left in out/page. The browser is Debian's package chromium, or what CHROMIUM names.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tclient as tc
from tests.support.callers import token_of
from tests.support.listeners import listener
from tests.support.node import MODULES, node_with_packages
from tests.support.serving import ROOT, serving

from .conftest import Shown

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
PICTURES = ROOT / "out" / "page"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no browser is here: apt-get install chromium, or set CHROMIUM")

WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 360, "height": 740}
# What axe has to say of these is no matter of taste.
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for all tests of this file."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


class Tab:
    """A tab, and what went wrong in it."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.faults: list[str] = []
        self.foreign: list[str] = []
        self.address = f"http://{address}"
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._told)
        self.page.on("request", self._asked)

    def _told(self, told: Any) -> None:
        if told.type == "error":
            self.faults.append(told.text)

    def _asked(self, asked: Any) -> None:
        if not asked.url.startswith(self.address):
            self.foreign.append(asked.url)

    def open(self, path: str = "") -> Any:
        """Show a view."""
        self.page.goto(f"{self.address}/#/{path}")
        return self.page

    def live(self) -> None:
        """Wait until the server has answered."""
        self.page.wait_for_selector("#state:text-is('Live')")

    def __enter__(self) -> Tab:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


def views(shown: Shown) -> dict[str, str]:
    """The paths of all views."""
    session = shown.told("sessions")["rows"][0]["id"]
    at = f"sessions/{session}"

    def tensor(search: str) -> str:
        return f"{at}/{shown.told(f'{at}/tensors?search={search}')['rows'][0]['name']}"

    return {
        "overview": "",
        "sessions": "sessions",
        "session": at,
        "matrix": tensor("2048x1024"),
        "images": tensor("6x3x20x30"),
        "line": tensor("300%20float32"),
        "models": "models",
        "model": "models/rings/1",
        "requests": "requests",
        "errors": "errors",
    }


def drawn(tab: Tab, name: str) -> None:
    """Wait until a view is whole."""
    marks = {
        "overview": ".engine .meter",
        "matrix": "canvas.picture",
        "images": "canvas.picture",
        "line": ".plot canvas",
        "model": "svg.network circle",
        "session": "tbody tr",
    }
    tab.live()
    tab.page.wait_for_selector(marks.get(name, "tbody tr"))


@pytest.mark.parametrize(
    ("scheme", "size"),
    [("light", WIDE), ("dark", WIDE), ("light", NARROW), ("dark", NARROW)],
    ids=["light", "dark", "narrow", "narrow and dark"],
)
def test_every_view_is_shown_and_axe_finds_nothing_serious(
    browser: Any, page: Shown, scheme: str, size: dict[str, int]
) -> None:
    node_with_packages()
    axe = (MODULES / "axe-core" / "axe.min.js").read_text()
    found = []
    # axe is put in beside what the page allows itself.
    with Tab(browser, page.http, viewport=size, color_scheme=scheme, bypass_csp=True) as tab:
        for name, path in views(page).items():
            tab.open(path)
            drawn(tab, name)
            if name == "overview":
                for _ in range(4):
                    page.served(tc.randn(2, 2))
                    tab.page.wait_for_timeout(1100)
            tab.page.screenshot(path=PICTURES / f"{name}-{scheme}-{size['width']}.png", full_page=True)
            assert tab.page.evaluate("document.documentElement.scrollWidth") <= size["width"], name
            tab.page.evaluate(axe)
            told = tab.page.evaluate("axe.run({resultTypes: ['violations']})")
            found += [
                (name, each["id"], [node["html"][:200] for node in each["nodes"]][:3])
                for each in told["violations"]
                if each["impact"] in SERIOUS
            ]
        assert found == []
        assert tab.faults == []
        assert tab.foreign == []


def test_the_policy_lets_the_whole_page_run(browser: Any, page: Shown) -> None:
    with Tab(browser, page.http, viewport=WIDE) as tab:
        for name, path in views(page).items():
            tab.open(path)
            drawn(tab, name)
        assert tab.faults == []
        assert tab.page.evaluate("document.cookie") == ""


def test_keys_alone_lead_from_the_overview_to_a_tensor_and_back(browser: Any, page: Shown) -> None:
    with Tab(browser, page.http, viewport=WIDE) as tab:
        shown = tab.open()
        tab.live()
        keys = shown.keyboard
        keys.press("2")
        shown.wait_for_selector("tbody a")
        shown.focus("tbody a")
        keys.press("Enter")
        shown.wait_for_selector("h1:has-text('Session')")
        keys.press("/")
        keys.type("10x10")
        shown.wait_for_selector("tbody tr:only-child")
        keys.press("Escape")
        shown.focus("tbody a")
        keys.press("Enter")
        shown.wait_for_selector("canvas.picture")
        shown.focus("canvas.picture")
        keys.press("ArrowDown")
        keys.press("ArrowRight")
        assert shown.inner_text("canvas.picture + p") == "[1, 1] = 11"
        keys.press("u")
        shown.wait_for_selector("h1:has-text('Session')")
        keys.press("u")
        shown.wait_for_selector("h1:has-text('Sessions')")
        keys.press("?")
        assert shown.is_visible("#keys")
        keys.press("Escape")
        before = shown.get_attribute("html", "data-theme")
        keys.press("t")
        assert shown.get_attribute("html", "data-theme") != before


def test_matrices_of_a_tensor_are_stepped_through(browser: Any, page: Shown) -> None:
    with Tab(browser, page.http, viewport=WIDE) as tab:
        shown = tab.open(views(page)["images"])
        shown.wait_for_selector("text='[0, 0, :, :]'")
        shown.keyboard.press("n")
        shown.wait_for_selector("text='[0, 1, :, :]'")
        shown.click("button[aria-label='Previous matrix']")
        shown.click("button[aria-label='Previous matrix']")
        shown.wait_for_selector("text='[5, 2, :, :]'")


def test_names_of_callers_are_text_and_nothing_else(browser: Any, page: Shown) -> None:
    name = "<img src=x onerror=alert(1)>"
    with pytest.raises(LookupError):
        tc.models.get(name)
    with Tab(browser, page.http, viewport=WIDE) as tab:
        shown = tab.open("errors")
        shown.wait_for_selector(f"text={name}")
        assert shown.query_selector("main img") is None
        assert tab.faults == []


def test_a_tab_that_nobody_sees_asks_for_nothing(browser: Any, page: Shown) -> None:
    with Tab(browser, page.http, viewport=WIDE) as tab:
        shown = tab.open()
        tab.live()
        hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
        shown.evaluate(hide % "true" + "document.dispatchEvent(new Event('visibilitychange'))")
        shown.wait_for_selector("#state:text-is('Paused')")
        asked: list[str] = []
        shown.on("request", lambda request: asked.append(request.url))
        shown.wait_for_timeout(2500)
        assert asked == []
        shown.evaluate(hide % "false" + "document.dispatchEvent(new Event('visibilitychange'))")
        tab.live()


def test_a_token_is_asked_for_and_stays_out_of_addresses(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    token = token_of(file, "ada")
    with (
        serving("--http-listen", "127.0.0.1:0", "--tokens", str(file)) as server,
        Tab(browser, listener(server, "http"), viewport=WIDE) as tab,
    ):
        shown = tab.open()
        shown.wait_for_selector("#sign-in[open]")
        shown.screenshot(path=PICTURES / "sign-in.png")
        urls: list[str] = []
        shown.on("request", lambda request: urls.append(request.url))
        shown.fill("#token", "tcs_wrong")
        shown.keyboard.press("Enter")
        shown.wait_for_selector("#sign-in-error:has-text('not valid')")
        shown.fill("#token", token)
        shown.keyboard.press("Enter")
        tab.live()
        assert shown.is_hidden("#sign-in")
        assert not any(token in url for url in urls)
        shown.reload()
        tab.live()
        shown.click("#identity")
        shown.wait_for_selector("#sign-in[open]")
        assert shown.evaluate("sessionStorage.length") == 0


def test_a_server_that_is_gone_is_said_to_be(browser: Any) -> None:
    with (
        serving("--http-listen", "127.0.0.1:0") as server,
        Tab(browser, listener(server, "http"), viewport=WIDE) as tab,
    ):
        shown = tab.open()
        tab.live()
        server.terminate()
        shown.wait_for_selector("#state:has-text('Disconnected')")
        assert re.search(r"asked again in \d+ s", shown.inner_text("#trouble"))
        shown.screenshot(path=PICTURES / "disconnected.png")


def test_what_is_not_there_is_said_to_be_so(browser: Any, page: Shown) -> None:
    with Tab(browser, page.http, viewport=WIDE) as tab:
        shown = tab.open("models/nothing/1")
        shown.wait_for_selector("#state:has-text('Refused')")
        assert "nothing" in shown.inner_text("#trouble")


def test_an_empty_server_says_what_to_do(browser: Any) -> None:
    with (
        serving("--http-listen", "127.0.0.1:0") as server,
        Tab(browser, listener(server, "http"), viewport=WIDE) as tab,
    ):
        for view, text in (
            ("sessions", "tclient.connect()"),
            ("models", "tclient.models.create()"),
            ("errors", "No error"),
        ):
            shown = tab.open(view)
            shown.wait_for_selector(f".empty:has-text('{text}')")
        tab.open()
        tab.live()
        shown.screenshot(path=PICTURES / "empty.png", full_page=True)
        assert tab.faults == []
