"""The texts that the search page quotes, as a script: a page that is opened from a file may not fetch another."""
import json

from bs4 import BeautifulSoup, NavigableString


def anchored(node):
    "A page's text as HTML with nothing but the anchors, so that a result can quote its own section."
    out = []
    for child in node.children:
        if isinstance(child, NavigableString): out.append(" ".join(str(child).replace("&", "&amp;").replace("<", "&lt;").split()))
        elif child.name not in ("script", "style", "svg") and not {"headerlink", "math"} & set(child.get("class", [])):
            inner = anchored(child)
            anchor = child.get("id")
            out.append(f'<i id="{anchor}">{inner}</i>' if anchor else inner)
    return " ".join(filter(None, out))


def write_texts(html):
    texts = {}
    for path in sorted(html.rglob("*.html")):
        if path.name == "search.html": continue
        main = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").select_one('[role="main"]')
        if main: texts[path.relative_to(html).as_posix()] = anchored(main)
    script = f"var SearchTexts = {json.dumps(texts, ensure_ascii=False)};\n"
    (html / "_static" / "search-texts.js").write_text(script, encoding="utf-8")
