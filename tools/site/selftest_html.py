"""What the builder promises of finished pages, on small ones made here; selftest.py runs these tests too."""

import json, tempfile
from pathlib import Path

import builder, links, search, shrink


def test_broken_links_and_search_texts():
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        (site / "_static").mkdir()
        (site / "a.html").write_text(
            '<div role="main"><h1 id="top">A &lt;b&gt;</h1><script>x</script><div class="a cell_input">code</div>'
            '<a href="b.html#there">b</a><a href="https://example.org">out</a></div>'
        )
        (site / "b.html").write_text('<p id="there">B</p>')
        assert links.broken(site, links.parsed(site)) == []
        search.write_texts(site, links.parsed(site))
        script = (site / "_static" / "search-texts.js").read_text()
        assert search.unpacked(script[len('var SearchTexts = "') : -3]) == {"a.html": '<i id="top">A &lt;b></i> b out'}
        assert search.packed({"a": 1}) == search.packed({"a": 1})
        (site / "b.html").write_text(
            '<p id="x"></p><p id="x"></p><a href="c.html">c</a><a href="a.html#no">a</a><img src="p.png"><script src="https://example.org/s.js"></script>'
        )
        (site / "s.css").write_text("@import url(https://example.org/f.css); a { mask: url(\"data:image/svg+xml,<a b='url(%23c)'/>\"); }")
        inside = '<p style="background:url(https://example.org/1.png)"></p><style>@import "https://example.org/2.css";</style>'
        (site / "d.html").write_text(inside + '<img alt=" " src="s.css" srcset="https://example.org/3.png"><a href="../x">out</a>')
        faults = " ".join(links.broken(site, links.parsed(site)))
        for words in (
            "#x is there more than once",
            "c.html leads to no file",
            "a.html#no leads to no anchor",
            "picture without words",
            "loads https://example.org/s.js",
            "b.html#there leads to no anchor",
            "s.css loads https://example.org/f.css",
            "d.html loads https://example.org/1.png",
            "d.html loads https://example.org/2.css",
            "d.html loads https://example.org/3.png",
            "d.html: a picture without words",
            "d.html: ../x leads out of the site",
        ):
            assert words in faults, (words, faults)
        assert "%23c" not in faults


def test_slim():
    slim = shrink.slim
    line = '<span class="n">x</span><span class="w"> </span><span class="o">=</span> <a><span class="n">y</span></a>'
    assert slim(line) == "x = <a>y</a>" and slim('<span class="name">x</span>') == '<span class="name">x</span>'
    text = '<span class="sa">f</span><span class="s2">"</span><span class="s2">a</span><span class="s2">"</span> <span class="mi">1</span>'
    assert slim(text) == '<span class="sa">f</span><span class="s2">"a"</span> <span class="mi">1</span>'
    assert slim('<code class="docutils literal"><span class="pre">x</span></code>') == '<code class="literal">x</code>'
    link = '<a href="a.html#k.b"{}>b</a><a href="#c" title="d">c</a>'
    assert slim(link.format(' title="k.b"')) == link.format("")
    cells = '<tr class="row-odd"><td><p>a</p></td>\n<td><p>b</p>\n<p>c</p></td></tr>'
    plain = '<tr><td>a</td>\n<td><p>b</p>\n<p>c</p></td></tr>'
    for kind, want in (("parameters docutils", plain), ("other docutils", cells)):
        assert slim(f'<table class="{kind}">{cells}</table>') == f'<table class="{kind}">{want}</table>'
    inside = "<article>\n\n  <p> a</p></article>"  # what a page says stays as it is, and so do scripts
    assert slim(f"<i>\n\n  </i><script>\n\n  1</script>\n\n{inside}\n\n  <b>") == f"<i>\n</i><script>\n\n  1</script>\n{inside}\n<b>"
    code = '<pre><span></span><span class="k">if</span> <span class="s2">"x"</span></pre>'  # the shortest tag for a colour
    assert slim(code) == '<pre><i class=k>if</i> <i class=s2>"x"</i></pre>'
    head = '<a class="headerlink" href="#a" title="Link to this {}">¶</a>'
    assert slim(head.format("heading")) == '<a class="headerlink" href="#a">¶</a>' and slim(head.format("image")) == head.format("image")


def test_classes():
    "Classes that no style sheet and no script names go; a page's own, and what is no tag, stay."
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        (out / "_static" / "vendor").mkdir(parents=True)
        (out / "_static" / "a.css").write_text('p.lead, [class*="mark-"] { color: red; }')
        (out / "_static" / "a.js").write_text('document.querySelector(".said")')
        (out / "_static" / "vendor" / "b.js").write_text('"vendor"')
        known = shrink.styled(out)
    assert [known(name) for name in ("lead", "mark-x", "said", "vendor", "lea")] == [True, True, True, False, False]
    page = '<p id="a" class="lead no">x</p><b class="no"><span class="nor">1</span><span>2</span></b><i class="lead said">class="no"</i>'
    want = '<p id="a" class=lead>x</p><b><span>1</span><span>2</span></b><i class="lead said">class="no"</i>'
    assert shrink.slim(page, known) == want
    own = '<style>.mine {}</style><p class="mine gone"></p><script>x = `<b class="it">`</script>'
    assert shrink.slim(own, known) == own.replace('"mine gone"', "mine")


def test_one_style():
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        (out / "_static").mkdir()
        colors = "\n  body {\n    --color-code-background: #fff;\n}\n"
        page = f'<html lang="en" data-content_root="../"><style>{colors}</style><style>p {{}}</style>'
        sheet = '<link rel="stylesheet" href="../_static/colors.css">'
        assert shrink.one_style(page, out) == f'<html lang="en" data-content_root="../">{sheet}<style>p {{}}</style>'
        assert (out / "_static" / "colors.css").read_text() == colors and shrink.one_style("<p>x</p>", out) == "<p>x</p>"


def test_packed_index():
    script = shrink.packed_index('Search.setIndex({"terms":{"é":[1]}})')
    assert search.unpacked(script.partition('})("')[2].partition('")')[0]) == {"terms": {"é": [1]}}
    try:
        shrink.packed_index("Search.other({})")
    except ValueError as e:
        assert "searchindex.js" in str(e)
    else:
        raise AssertionError("nobody said that the index is another")


def test_smaller_png():
    import io
    import numpy as np
    from PIL import Image

    def png(a):
        out = io.BytesIO()
        Image.fromarray(a).save(out, "png", compress_level=0)
        return out.getvalue()

    def read(data): return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int)

    g = np.random.default_rng(0)
    step = np.arange(256)[:, None, None] * np.ones((1, 99, 3), int) // 2 + g.integers(0, 9, (256, 99, 3))  # more than 256 colours, close
    assert len(shrink.smaller_png(png(step.astype(np.uint8)))) < len(png(step.astype(np.uint8))) / 2
    for a in (step, g.integers(0, 256, (64, 64, 3)), np.arange(64 * 64 * 3).reshape(64, 64, 3) // 64, np.full((9, 9, 3), 7)):
        data = png(a.astype(np.uint8))
        new = shrink.smaller_png(data)
        assert len(new) <= len(data) and np.abs(read(new) - read(data)).max() <= 24
        assert shrink.smaller_png(data) == new


def test_one_sprite():
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        (out / "_static").mkdir()
        icons = '<svg xmlns="http://www.w3.org/2000/svg" style="display: none;">\n<symbol id="a"><svg></svg>\n  </symbol>\n</svg>'
        page = f'<html lang="en" data-content_root="../">{icons}<p>x</p>'
        script = '<script src="../_static/icons.js"></script>'
        assert shrink.one_sprite(page, out) == f'<html lang="en" data-content_root="../">{script}<p>x</p>'
        assert json.dumps(icons) in (out / "_static" / "icons.js").read_text()
        button = '<button class="theme-toggle" aria-label="x">\n<svg></svg>\n</button>\n'
        new = shrink.one_sprite(page + 2 * f"<div>{button}</div>", out)
        assert new.endswith("<p>x</p>" + 2 * "<div><script>themeToggle()</script></div>")
        assert json.dumps(button) in (out / "_static" / "icons.js").read_text()
        assert shrink.one_sprite("<p>x</p>", out) == "<p>x</p>"


def test_one_sidebar():
    "All pages are listed in one script; each page keeps a link to every room."
    tree = '<p><span class="caption-text">{}</span><ul><li><a href="{}">x</a></li><li><a href="z.html">é</a></li></ul>'
    tree = tree.format("Start", "a.html") + tree.format("Heads", "b/c.html")
    page = '<html lang="en" data-content_root="../"><div class="sidebar-tree">{}</div><div>text</div>'
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        (out / "_static").mkdir()
        rooms = shrink.sidebar(page.format(tree), out)
        assert rooms == [("Start", "a.html"), ("Heads", "b/c.html")]
        script = (out / "_static" / "sidebar.js").read_text(encoding="utf-8")
        assert json.dumps(tree, ensure_ascii=False) in script and "é" in script
    short = shrink.one_sidebar(page.format(tree.replace("x", "y")), "b/c.html", rooms)
    assert '<a class="reference internal" href="../b/c.html">Heads</a>' in short and "z.html" not in short
    assert '<script src="../_static/sidebar.js" data-page="b/c.html"></script></div><div>text</div>' in short


def test_packed_widgets():
    "The script that draws widgets comes back as it was, but for what it cannot do late; a version that does otherwise is refused."
    code = "".join(f"é;{old};" for old in shrink.LATE)
    script = shrink.packed_widgets(code)
    packed = script.partition('})("')[2].partition('", document')[0]
    assert search.unpacked(packed) == "".join(f"é;{new};" for new in shrink.LATE.values()) and script == shrink.packed_widgets(code)
    for wrong in ("", code + code):
        try:
            shrink.packed_widgets(wrong)
        except ValueError as e:
            assert "embed.js" in str(e)
        else:
            raise AssertionError("nobody said that the script is another")


def test_once():
    "A short anchor that a heading, or another, has already is left out."
    short = '<span class="short" id="a"></span>'
    assert builder.once(f'{short}<h2 id="b"></h2>{short}') == f'{short}<h2 id="b"></h2>'
    assert builder.once(f'{short}<h2 id="a"></h2>') == '<h2 id="a"></h2>'


def test_strangers_files_stay():
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "thesis.txt").write_text("all my work")
        try:
            builder.publish(Path(folder) / "nothing", Path(folder))
        except SystemExit as e:
            assert "no site" in str(e)
        assert (Path(folder) / "thesis.txt").is_file()
