"""Do all links of the built site lead somewhere? Files, anchors, and nothing loaded from another host."""
import re
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

LOADED = {"script": "src", "img": "src", "source": "src", "iframe": "src", "video": "src", "audio": "src", "object": "data", "link": "href"}
OUTSIDE = re.compile(r"\s*(https?:)?//", re.I)


def loaded(css):
    "What a style sheet, or a part of one, loads."
    return re.findall(r"url\(\s*['\"]?([^'\")]+)", css) + re.findall(r"@import\s+['\"]([^'\"]+)", css)


def broken(html):
    "One line per fault, in the order of the pages."
    soups = {p: BeautifulSoup(p.read_text(encoding="utf-8"), "html.parser") for p in sorted(html.rglob("*.html"))}
    anchors = {p: [tag["id"] for tag in soup.select("[id]")] + [tag["name"] for tag in soup.select("a[name]")] for p, soup in soups.items()}
    faults = []
    for page, soup in soups.items():
        name = page.relative_to(html).as_posix()
        twice = {a for a in anchors[page] if anchors[page].count(a) > 1}
        faults += [f"{name}: the anchor #{a} is there more than once" for a in sorted(twice)]
        mute = [img.get("src", "")[:60] for img in soup.select("img") if not img.get("alt", "").strip()]
        faults += [f"{name}: a picture without words: {src}" for src in mute]
        styles = [tag.get_text() for tag in soup.select("style")] + [tag["style"] for tag in soup.select("[style]")]
        drawn = [tag.get("href") or tag.get("xlink:href", "") for tag in soup.select("svg image, svg use")]
        drawn += [tag["srcset"] for tag in soup.select("[srcset]")]
        faults += [f"{name} loads {url}" for text in styles for url in loaded(text) if OUTSIDE.match(url)]
        faults += [f"{name} loads {url}" for url in drawn if OUTSIDE.match(url)]
        for tag in soup.find_all(True):
            url = tag.get(LOADED.get(tag.name, "")) or (tag.get("href") if tag.name == "a" else None)
            if not url or url.startswith("data:"): continue
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                if tag.name != "a" and tag.get("rel") != ["canonical"]: faults.append(f"{name}: <{tag.name}> loads {url}")
                continue
            to = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if html.resolve() not in to.resolve().parents: faults.append(f"{name}: {url} leads out of the site"); continue
            if to.is_dir(): to = to / "index.html"
            if not to.is_file(): faults.append(f"{name}: {url} leads to no file")
            elif parts.fragment and unquote(parts.fragment) not in anchors.get(to, [unquote(parts.fragment)]):
                faults.append(f"{name}: {url} leads to no anchor")
    for css in sorted(html.rglob("*.css")):
        for url in loaded(css.read_text(encoding="utf-8")):
            if OUTSIDE.match(url): faults.append(f"{css.relative_to(html).as_posix()} loads {url}")
            elif not url.startswith(("data:", "#")) and not (css.parent / url.partition("?")[0].partition("#")[0]).is_file():
                faults.append(f"{css.relative_to(html).as_posix()}: {url} leads to no file")
    return faults
