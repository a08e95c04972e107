"""The texts that the search page quotes, as a script: a page that is opened from a file may not fetch another."""
import base64, gzip, json

from bs4 import NavigableString

LEFT_OUT = {"headerlink", "math", "cell_input"}  # code is found, but not quoted: it would be half of all there is


def anchored(node):
    "A page's text as HTML with nothing but the anchors, so that a result can quote its own section."
    out = []
    for child in node.children:
        if isinstance(child, NavigableString): out.append(" ".join(str(child).replace("&", "&amp;").replace("<", "&lt;").split()))
        elif child.name not in ("script", "style", "svg") and not LEFT_OUT & set(child.get("class", [])):
            inner = anchored(child)
            anchor = child.get("id")
            out.append(f'<i id="{anchor}">{inner}</i>' if anchor else inner)
    return " ".join(filter(None, out))


def write_texts(html, soups):
    mains = {path: soup.select_one('[role="main"]') for path, soup in soups.items() if path.name != "search.html"}
    texts = {path.relative_to(html).as_posix(): anchored(main) for path, main in mains.items() if main}
    (html / "_static" / "search-texts.js").write_text(f'var SearchTexts = "{packed(texts)}";\n', encoding="utf-8")


def packed(data):
    "JSON, gzip and base64: a third of its size as it stands. No time is kept, so that equal texts give equal bytes."
    return base64.b64encode(gzip.compress(json.dumps(data, ensure_ascii=False).encode(), 9, mtime=0)).decode()


def unpacked(text):
    return json.loads(gzip.decompress(base64.b64decode(text)))
