"""The built site as people see it: headless Chromium opens it over HTTP and from the files, searches, moves a slider, and looks for faults.

    python tools/site/browser.py [FOLDER]     test the site in FOLDER (docs), leave screenshots in build/site/screenshots
"""
import functools, http.server, os, shutil, sys, threading
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SHOTS = ROOT / "build" / "site" / "screenshots"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--disable-quic"]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"

UNDRAWN = ".temml-error, span.math:not(:has(math)), div.math:not(.math-wrapper, :has(math))"


def missing():
    "Why there can be no test in a browser here, or None."
    try: import playwright  # noqa: F401
    except ImportError: return 'the Python package playwright is not installed: pip install "k2nb[dev]"'
    named = os.environ.get("K2NB_CHROMIUM")
    if named and not shutil.which(named): return f"K2NB_CHROMIUM names {named}, which is no program"
    return None if chromium() else "no Chromium or Chrome on this machine (Debian: apt-get install chromium); K2NB_CHROMIUM names another"


def chromium():
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return os.environ.get("K2NB_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_): pass


@contextmanager
def served(folder):
    "The folder's address on this machine, for as long as the block lasts."
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try: yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally: server.shutdown()


class Visit:
    "One browser tab on one copy of the site; whatever goes wrong in it is kept in `faults`."

    def __init__(self, browser, base, viewport=DESKTOP, scheme="light"):
        self.base, self.faults, self.at = base, [], "nowhere"
        self.tab = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce").new_page()
        self.tab.on("console", lambda m: m.type == "error" and self.fault(f"console {m.type}: {m.text}"))
        self.tab.on("pageerror", lambda e: self.fault(f"script error: {e}"))
        self.tab.on("request", lambda r: r.url.startswith((base, "data:", "blob:")) or self.fault(f"asks another host for {r.url}"))
        # ERR_ABORTED is the browser's own word for a request that it dropped as the test left the page, and tells nothing of the site
        self.tab.on("requestfailed", lambda r: "ERR_ABORTED" in str(r.failure) or self.fault(f"cannot load {r.url}: {r.failure}"))
        self.tab.on("response", lambda r: r.status < 400 or self.fault(f"{r.status} for {r.url}"))

    def fault(self, what): self.faults.append(f"{self.at}: {what}")

    def expect(self, true, what): return true or self.fault(what)

    def open(self, page):
        self.at = page
        self.tab.goto(self.base + page, wait_until="load")
        return self.tab

    def shot(self, name):
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.tab.screenshot(path=SHOTS / f"{name}.png")


def home(v):
    tab = v.open("index.html")
    first_screen = {"name": tab.locator("h1"), "way to install it": tab.locator("article").get_by_text("pip install"),
                    "result": tab.locator(".cell_output")}
    for what, found in first_screen.items():
        where = found.first.bounding_box()
        v.expect(where and where["y"] + min(where["height"], 60) < DESKTOP["height"], f"its {what} is not on the first screen")
    v.shot("home")


def symbol(v):
    tab = v.open("extract.html#k2nb.embedding.embed_dataset")
    about = tab.locator("dl.py", has=tab.locator('[id="k2nb.embedding.embed_dataset"]')).last
    rows = about.locator("table.parameters").first.locator("tbody tr")
    v.expect(rows.count() > 10, f"the parameter table of embed_dataset has {rows.count()} rows")
    first = rows.first.locator("td").all_inner_texts()
    v.expect(first[0] == "data" and first[3], f"its first row is {first}")
    v.expect(about.locator("a.source").count(), "embed_dataset has no link to its source")
    tab.wait_for_timeout(800)  # the page scrolls to what it was asked for
    v.expect(0 <= about.bounding_box()["y"] < 200, "the address of embed_dataset does not lead to it")
    v.shot("symbol")


def search(v):
    tab = v.open("index.html")
    box = tab.locator('input[name="q"]').first
    box.fill("embed_dataset")
    box.press("Enter")
    result = tab.locator("ul.search li").first
    result.wait_for()
    tab.wait_for_function("document.querySelector('.search-summary').innerText.includes('found')")
    v.at = "search.html"
    v.expect("k2nb.embedding.embed_dataset" in result.inner_text(), f"the first result is {result.inner_text()!r}")
    tab.locator("p.context").first.wait_for()
    v.shot("search")
    result.locator("a").click()
    tab.wait_for_url("**/extract.html*")
    v.expect(tab.locator('[id="k2nb.embedding.embed_dataset"]').is_visible(), "the first result does not lead to embed_dataset")


def slider(v, page):
    tab = v.open(page)
    handle = tab.locator(".noUi-handle, [role=slider]").first
    handle.wait_for()
    view = tab.locator(".jupyter-widgets", has=handle).first
    before = view.inner_text()
    handle.focus()
    handle.press("ArrowRight")
    tab.wait_for_timeout(200)
    v.expect(view.inner_text() != before, "an arrow key on the slider changes nothing")
    view.scroll_into_view_if_needed()
    box = tab.locator(".noUi-base").first.bounding_box()
    tab.mouse.click(box["x"] + 2, box["y"] + box["height"] / 2)
    tab.wait_for_timeout(500)
    v.expect(view.inner_text() == before, "a click on the slider's beginning does not bring the first view back")
    view.scroll_into_view_if_needed()
    v.shot("slider_" + page.rpartition("/")[2].removesuffix(".html"))


def math(v):
    "Formulas are MathML of some height, in the font that comes with them, and none is left as TeX."
    for page in ("quantize.html", "calibration.html"):
        tab = v.open(page)
        tab.locator("math").first.wait_for()
        tab.evaluate("document.fonts.ready")
        v.expect(tab.evaluate("document.fonts.check('16px STIX2', 'x')"), "the font of formulas is not there")
        lines = tab.locator("math[display=block]")
        lines.first.scroll_into_view_if_needed()
        v.expect(lines.first.bounding_box()["height"] > 30, "a formula with a sum is drawn as a line of text")
        v.shot("math_" + page.removesuffix(".html"))


def sidebar(v):
    "The list of all pages is the same wherever one is; the open page is marked in it, its room unfolded, and its links lead on."
    tab = v.open("index.html")
    names = tab.locator(".sidebar-tree a").all_text_contents()
    tab = v.open("tutorials/activations.html")
    tree = tab.locator(".sidebar-tree")
    v.expect(tree.locator("a").all_text_contents() == names, "the list of all pages is not that of the home page")
    v.expect(tree.locator("li.current-page > a.current").count() == 1, "the open page is not marked in the list of all pages")
    v.expect(tree.locator("li.current-page").is_visible(), "the open page's part of the list is folded")
    tree.locator("a", has_text="Get started").click()
    tab.wait_for_url("**/get_started.html*")


def themes(v):
    tab = v.open("index.html")
    ink = "getComputedStyle(document.body).color"
    light = tab.evaluate(ink)
    tab.emulate_media(color_scheme="dark")
    v.expect(tab.evaluate(ink) != light, "dark and light have the same ink")
    v.shot("home_dark")
    tab.emulate_media(color_scheme="light")


def every_page(v, folder, name):
    "Open each page: no faults, no page wider than the window."
    for path in sorted(folder.rglob("*.html")):
        tab = v.open(path.relative_to(folder).as_posix())
        tab.wait_for_timeout(50)
        wide = tab.evaluate(TOO_WIDE)
        v.expect(wide <= 0, f"wider than the {name}'s window by {wide} pixels")
        if raw := tab.locator(UNDRAWN).count(): v.fault(f"{raw} formulas are not drawn, or have an error in them")


def faults(folder):
    "Everything that is wrong with the site in `folder`, one line each; screenshots are left beside."
    from playwright.sync_api import sync_playwright
    found = []
    with served(folder) as http_base, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium(), args=FLAGS)
        for base in (http_base, folder.resolve().as_uri() + "/"):
            v = Visit(browser, base)
            looks = {look.__name__: look for look in (home, symbol, search, math, sidebar, themes)}
            looks |= {page: functools.partial(slider, page=page) for page in sliders(folder)}
            for name, look in looks.items():
                try: look(v)
                except Exception as e: v.fault(f"{name}: {str(e).splitlines()[0]}")  # a time-out is a fault like others
            found += [f"{'from files' if base.startswith('file') else 'over HTTP'}, {fault}" for fault in v.faults]
        for name, viewport in (("desktop", DESKTOP), ("phone", PHONE)):
            v = Visit(browser, http_base, viewport)
            every_page(v, folder, name)
            for page in ("index", "extract", "tutorials/activations", "get_started", "moving_from", "view_slider"):
                v.open(f"{page}.html")
                v.tab.wait_for_timeout(500)
                v.shot(f"{name}_{page.rpartition('/')[2]}")
            found += [f"{name}, {fault}" for fault in v.faults]
        browser.close()
    return list(dict.fromkeys(found))


def sliders(folder):
    found = [p for p in sorted(folder.rglob("*.html")) if "SliderModel" in p.read_text(encoding="utf-8")]
    return [p.relative_to(folder).as_posix() for p in found]


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs").resolve()
    if why := missing(): sys.exit(f"skipped: {why}")
    found = faults(folder)
    sys.exit("\n".join(found) if found else None)
