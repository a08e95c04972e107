"""Do all links of the built site lead somewhere? Files, anchors, and nothing loaded from another host."""
import os, re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

LOADED = {"script": "src", "img": "src", "source": "src", "iframe": "src", "video": "src", "audio": "src", "object": "data", "link": "href"}
OUTSIDE = re.compile(r"\s*(https?:)?//", re.I)


def loaded(css):
    "What a style sheet, or a part of one, loads."
    urls = re.findall(r"url\(\s*(\"[^\"]*\"|'[^']*'|[^'\")]+)", css)
    return [url.strip("\"'") for url in urls] + re.findall(r"@import\s+['\"]([^'\"]+)", css)


def parsed(html):
    "path -> its elements, for every page."
    return {p: BeautifulSoup(p.read_text(encoding="utf-8"), "html.parser") for p in sorted(html.rglob("*.html"))}


def named(tag):
    "The anchors that a tag is."
    return {tag[key] for key in ("id", "name") if tag.has_attr(key) and (key == "id" or tag.name == "a")}


def drawn(tag):
    "What a tag loads by other ways than those in LOADED."
    urls = loaded(tag.get_text() if tag.name == "style" else "") + loaded(tag.get("style", ""))
    if tag.name == "image" or tag.name == "use": urls.append(tag.get("href") or tag.get("xlink:href", ""))
    return urls + ([tag["srcset"]] if tag.has_attr("srcset") else [])


def broken(html, soups):
    "One line per fault, in the order of the pages."
    tags = {page: soup.find_all(True) for page, soup in soups.items()}
    anchors = {page: Counter(a for tag in found for a in named(tag)) for page, found in tags.items()}
    faults = []
    for page, found in tags.items():
        name = page.relative_to(html).as_posix()
        faults += [f"{name}: the anchor #{a} is there more than once" for a, n in sorted(anchors[page].items()) if n > 1]
        for tag in found:
            if tag.name == "img" and not tag.get("alt", "").strip():
                faults.append(f"{name}: a picture without words: {tag.get('src', '')[:60]}")
            faults += [f"{name} loads {url}" for url in drawn(tag) if OUTSIDE.match(url)]
            url = tag.get(LOADED.get(tag.name, "")) or (tag.get("href") if tag.name == "a" else None)
            if not url or url.startswith("data:"): continue
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                if tag.name != "a" and tag.get("rel") != ["canonical"]: faults.append(f"{name}: <{tag.name}> loads {url}")
                continue
            to = Path(os.path.normpath(page.parent / unquote(parts.path))) if parts.path else page
            if html not in to.parents: faults.append(f"{name}: {url} leads out of the site"); continue
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
