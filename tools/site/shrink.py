"""The same site in fewer bytes: what all pages repeat is kept once, pictures and scripts are packed."""
import functools, io, json, re

from search import packed

TREE = re.compile(r'(<div class="sidebar-tree">)(.*?)(</div>)', re.S)  # the theme's list of all pages; there is no div in it
GROUP = re.compile(r'<span class="caption-text">(.*?)</span>.*?<a [^>]*href="([^"]+)"', re.S)  # its headings, and the first page below each
TOGGLE = re.compile(r'<button class="theme-toggle".*?</button>\s*', re.S)  # without scripts it is hidden
ICONS = re.compile(r'<svg xmlns="http://www.w3.org/2000/svg" style="display: none;">.*?\n</svg>', re.S)

# what the tags no longer say: names in code are not to be translated, and what the sign beside a heading is for
SAID = """document.addEventListener("DOMContentLoaded", () => {
  for (const code of document.querySelectorAll("code, pre, dt.sig")) code.translate = false;
  for (const link of document.querySelectorAll("a.headerlink:not([title])"))
    link.title = `Link to this ${link.closest("dt") ? "definition" : "heading"}`;
});
"""

# makes the list of all pages anew, and marks the page that is open, as the theme does
SIDEBAR = """(({page}, box, root) => {
  box.innerHTML = %s;
  for (const link of box.querySelectorAll("a")) {
    const to = link.getAttribute("href");
    link.setAttribute("href", to === page ? "#" : root + to);
    if (to !== page) continue;
    link.classList.add("current");
    link.parentElement.classList.add("current-page");
    for (let part = link.parentElement; part !== box; part = part.parentElement) {
      part.classList.add("current");
      const toggle = part.querySelector(":scope > input");
      if (toggle) toggle.checked = true;
    }
  }
})(document.currentScript.dataset, document.currentScript.parentElement, document.documentElement.dataset.content_root);
"""

UNPACK = """(async (packed, address) => {
  window.widgetsAt = address;
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const code = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  if (document.readyState === "loading") await new Promise((done) => document.addEventListener("DOMContentLoaded", done));
  document.head.append(Object.assign(document.createElement("script"), {text: code}));
})("%s", document.currentScript.src);
"""
# what a script cannot do that is unpacked late: know its own address, and wait for the page to be loaded
LATE = {"e=t.currentScript.src": "e=window.widgetsAt", 'window.addEventListener("load",(()=>{!async': "Promise.resolve().then((()=>{!async"}

# queries wait for the index, as they do where it loads slowly
INDEX = """(async (packed) => {
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  Search.setIndex(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json());
})("%s");
"""

BLANKS = re.compile(r"(<(pre|script|style|textarea)\b.*?</\2>)|\s*\n\s*", re.S)
STYLE = re.compile(r"<style>(\s*body \{\s*--color-code-background.*?)</style>", re.S)


def root(text): return re.search(r'<html[^>]* data-content_root="([^"]*)"', text).group(1)


def one_sprite(text, out):
    "A page whose icons, and buttons for light and dark, come from a script that all pages share: the theme writes them into each."
    icons = ICONS.search(text)
    if not icons: return text
    script = f"document.currentScript.insertAdjacentHTML('beforebegin', {json.dumps(icons.group())});\n{SAID}"
    if button := TOGGLE.search(text):
        put = f"document.currentScript.insertAdjacentHTML('beforebegin', {json.dumps(button.group())})"
        script += f"function themeToggle() {{ {put}; }}\n"
        text = TOGGLE.sub("<script>themeToggle()</script>", text)
    (out / "_static" / "icons.js").write_text(script, encoding="utf-8")
    return text.replace(icons.group(), f'<script src="{root(text)}_static/icons.js"></script>', 1)


def sidebar(home, out):
    "Write the script that lists all pages, from the home page; its rooms as (title, first page), for those who run no scripts."
    tree = TREE.search(home).group(2)
    (out / "_static" / "sidebar.js").write_text(SIDEBAR % json.dumps(tree, ensure_ascii=False), encoding="utf-8")
    return GROUP.findall(tree)


def one_sidebar(text, page, rooms):
    "A page whose list of all pages comes from a script that all share: it is longer than many a page's text."
    up = root(text)
    links = "\n".join(f'<li class="toctree-l1"><a class="reference internal" href="{up}{to}">{title}</a></li>' for title, to in rooms)
    short = f'<noscript><ul>\n{links}\n</ul></noscript><script src="{up}_static/sidebar.js" data-page="{page}"></script>'
    return TREE.sub(lambda m: m.group(1) + short + m.group(3), text, count=1)


def packed_widgets(code):
    "The script that draws widgets as one that unpacks it and runs it: a third of its size."
    for old, new in LATE.items():
        if code.count(old) != 1: raise ValueError(f"embed.js holds {old!r} {code.count(old)} times: see what the new version does instead")
        code = code.replace(old, new)
    return UNPACK % packed(code)


def slim(text, known=None):
    "HTML without what nobody misses: marks, and classes that are not `known`, with no look of their own; blanks between the theme's tags."
    text = re.sub(r'<span class="(?:pre|default_value|doc|std std-\w+)">([^<]*)</span>', r"\1", text)
    text = re.sub(r'<span class="(?:n|p|w|o|nn)">([^<]*)</span>', r"\1", text)  # text's colour; operators in it too
    text = re.sub(r'<span class="(\w\w?)">[^<]*</span>(?:<span class="\1">[^<]*</span>)+', whole, text)
    text = re.sub(r'(href="[^"#]*#([^"]+)") title="\2"', r"\1", text)  # a link's address says it
    text = re.sub(r'(<a class="headerlink"[^>]*?) title="Link to this (?:heading|definition)"', r"\1", text)  # SAID does
    text = re.sub(r'<table class="(?:parameters|api) .*?</table>', lambda m: plain_rows(m.group()), text, flags=re.S)
    text = re.sub(r'(<(?:code|div|dl) class="[^"]*)\bdocutils ?', r"\1", text)
    text = re.sub(r"<pre>.*?</pre>", coloured, text, flags=re.S)
    if known: text = bare(text, known)
    start, end = text.find("<article"), text.rfind("</article>")
    return BLANKS.sub(squeezed, text[:start]) + text[start:end] + BLANKS.sub(squeezed, text[end:]) if 0 <= start < end else text


def coloured(m):
    "Code whose colours stand in tags as short as there are; site.css keeps them upright."
    return re.sub(r'<span class="(\w{1,3})">([^<]*)</span>', r"<i class=\1>\2</i>", m.group().replace("<span></span>", ""))


def styled(out):
    "Classes that a style sheet or a script names, as a function from a class to whether one does."
    sheets = "".join(p.read_text(encoding="utf-8") for p in out.rglob("*.css"))
    scripts = "".join(p.read_text(encoding="utf-8") for p in (out / "_static").rglob("*.js") if "vendor" not in p.parts)
    names = set(re.findall(r"\.(-?[A-Za-z_][\w-]*)", sheets)) | set(re.findall(r"[\w-]+", scripts))
    parts = set(re.findall(r"\[class[*^$~|]?=[\"']?([\w-]+)", sheets))  # in `[class*=highlight-]`
    return functools.cache(lambda name: name in names or any(part in name for part in parts))


def bare(text, known):
    "A page without the classes that nothing names, its own styles and scripts neither."
    own = "".join(re.findall(r"<(?:style|script)\b[^>]*>(.*?)</(?:style|script)>", text, re.S))
    own = set(re.findall(r"[\w-]+", own)) if own else set()
    def kept(m):  # of one attribute
        left = [name for name in m.group(1).split() if known(name) or name in own]
        if not left: return ""
        return f" class={left[0]}" if len(left) == 1 else f' class="{" ".join(left)}"'
    def tag(m): return m.group(1) or re.sub(r' class="([\w -]*)"', kept, m.group())
    return re.sub(r'(<(script|style|textarea)\b.*?</\2>)|<\w[^<>]* class="[^<>]*>', tag, text, flags=re.S)


def whole(m):
    "Neighbours of one class, such as a string and its quotation marks, as one."
    return f'<span class="{m.group(1)}">' + re.sub(r"<[^>]*>", "", m.group()) + "</span>"


def plain_rows(table): return re.sub(r' class="row-(?:odd|even)"|(?<=<t[dh]>)<p>((?:(?!</?p\b).)*)</p>(?=</td>)', r"\1", table, flags=re.S)


def squeezed(m): return m.group(1) or "\n"


def one_style(text, out):
    "A page whose colours come from a sheet that all pages share: the theme writes them into each."
    style = STYLE.search(text)
    if not style: return text
    (out / "_static" / "colors.css").write_text(style.group(1), encoding="utf-8")
    return text.replace(style.group(), f'<link rel="stylesheet" href="{root(text)}_static/colors.css">', 1)


def packed_index(code):
    "The search page's index as a script that unpacks it: a third of its size."
    call = re.fullmatch(r"Search\.setIndex\((.*)\)\s*", code, re.S)
    if not call: raise ValueError("searchindex.js is no longer one call of Search.setIndex")
    return INDEX % packed(json.loads(call.group(1)))


def smaller_png(data):
    "The same picture in fewer bytes: at most 256 colours where none is off by more than 24 of 255, else without loss."
    import numpy as np
    from PIL import Image
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    ways = [picture]
    if picture.getextrema()[3][0] == 255:
        ways = [picture := picture.convert("RGB")]
        for refine in (2, 0):  # colours far apart, as the means of their pixels or as they are
            few = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=refine, dither=Image.Dither.NONE)
            if np.abs(np.asarray(few.convert("RGB"), int) - np.asarray(picture, int)).max() <= 24: ways = [few]; break
    best = data
    for way in ways:
        out = io.BytesIO()
        way.save(out, "png", optimize=True)
        best = min(best, out.getvalue(), key=len)
    return best
