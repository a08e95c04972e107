"""What the site's builder promises, on small notebooks and pages made here: python tools/site/selftest.py"""

import sys
from pathlib import Path
from types import SimpleNamespace

import yaml

sys.path.append(str(Path(__file__).resolve().parent.parent))

import bridge, checks, outline, selftest_html
from bridge import STATE, VIEW, PageError, address, page, relinked
from symbols import Library, fence, steady

from k2nb.showdoc import Param, Symbol, SymbolDoc

HOME, SOURCES = "https://k2nb.github.io/k2nb/", "https://github.com/k2nb/k2nb/blob/main"
library = Library(HOME, SOURCES)
PNG = {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}, "metadata": {}}


def md(source):
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source, *outputs):
    return {"cell_type": "code", "metadata": {}, "execution_count": None, "source": source, "outputs": list(outputs)}


def said(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


def made(*cells, name="10_example.ipynb", module="", state=None):
    "The cells of the page that `cells` become."
    front = {"cell_type": "raw", "metadata": {}, "source": "---\ntitle: An example\ndescription: one line\n---\n"}
    nb = {"cells": [front, *cells], "metadata": {"widgets": {STATE: {"state": state or {}}}}, "nbformat": 4, "nbformat_minor": 5}
    page(nb, name, library, module)
    return nb["cells"]


def refused(*cells, words):
    try:
        made(*cells)
    except PageError as e:
        assert words in str(e) and "10_example" in str(e), e
    else:
        raise AssertionError(f"nobody said {words!r}")


def test_title_and_addresses():
    first = made()[0]["source"]
    assert first.startswith("# An example\n") and "{.lead}\none line" in first
    assert address("tutorials/01b_real_text.ipynb") == "tutorials/real_text" and address("80a_view_colors.ipynb") == "view_colors"


def test_links():
    assert relinked("../10_store.ipynb#reading", "nbs/tutorials", SOURCES) == "../store.ipynb#reading"
    assert relinked("tutorials/01_activations.ipynb", "nbs", SOURCES) == "tutorials/activations.ipynb"
    assert relinked("../CONTRIBUTING.md", "nbs", SOURCES) == "contributing.md"
    assert relinked("../bench/extract.py", "nbs", SOURCES) == SOURCES + "/bench/extract.py"
    for url in ("https://example.org/a.ipynb", "#here", "mailto:a@b.c"):
        assert relinked(url, "nbs", SOURCES) == url


def test_names():
    own = f"[`load_model`]({HOME}loading.html#load_model)"  # a link that nbdev has made
    prose = md(f"`embed_dataset`, {own}, `nobody`, `ActivationStore.vectors()`, `documents`, `` `rng` ``\n\n```py\n`rng`\n```")
    text = made(prose)[1]["source"]
    assert "{py:obj}`embed_dataset <k2nb.embedding.embed_dataset>`" in text and "{py:obj}`load_model <k2nb.loading.load_model>`" in text
    assert "{py:obj}`ActivationStore.vectors() <k2nb.embedding.ActivationStore.vectors>`" in text
    assert "`nobody`, {" in text and text.count("{py:obj}") == 3  # a plain word means a symbol only where it is at home; code is code
    assert library.target("documents", "k2nb.planted.corpus") == library.target("planted.documents") == "k2nb.planted.documents"


def test_callouts_and_captions():
    note = made(
        md('::: {.callout-warning title="Mind"}\nHot.\n:::\n\n::: {.callout-tip}\n## Then\nCold.\n:::\n\n::: {.callout-note}\nPlain.\n:::')
    )[1]["source"]
    assert ":::{admonition} Mind\n:class: warning\n\nHot.\n:::" in note and ":::{admonition} Then\n:class: tip\n\nCold.\n:::" in note
    assert ":::{note}\nPlain.\n:::" in note
    nested = made(md("::::{.callout-note title='A'}\nOut.\n:::{.callout-tip}\nIn.\n:::\n::::"))[1]["source"]
    assert nested == "::::{admonition} A\n:class: note\n\nOut.\n:::{tip}\nIn.\n:::\n::::"
    refused(md("::: {.callout-danger}\nNo.\n:::"), words="callout-danger")
    kept = "`![](a.png)` and\n\n```\n[a](10_b.ipynb) <!-- c -->\n::: {.callout-note}\n```"
    assert made(md(kept))[1]["source"] == kept
    assert made(code("#| output: asis\nprint('**bold**')", said("**bold**\n")))[2]["source"] == "**bold**\n"
    figure = made(md('![What it is](images/a.png){fig-alt="what is seen"}'))[1]["source"]
    assert figure == "```{figure} images/a.png\n:alt: what is seen\n\nWhat it is\n```"
    refused(md("![](images/a.png)"), words="no words")


def test_directives():
    tags = [
        c["metadata"]["tags"]
        for c in made(
            code("#| echo: false\n1"), code("#| output: false\n2"), code("#| include: false\n3"), code("#| code-fold: true\n4"), code("5")
        )[1:]
    ]
    assert tags == [["remove-input"], ["remove-output"], ["remove-cell"], ["hide-input"], []]
    drawn = made(code("#| fig-alt: a line: it rises\n#| fig-cap: Figure\nplot()", PNG))[1]
    assert drawn["source"] == "plot()" and drawn["metadata"]["mystnb"] == {
        "image": {"alt": "a line: it rises"},
        "figure": {"caption": "Figure"},
    }
    refused(code("plot()", PNG), words="fig-alt")
    refused(code("plot()", PNG | {"data": {"image/svg+xml": "<svg/>"}}), words="fig-alt")
    assert made(code("#| include: false\nplot()", PNG))[1]["metadata"]["tags"] == ["remove-cell"]
    refused(code("#| fig-alt: a line\nplot()"), words="no picture")
    refused(code("print(path)", said("/home/me/store")), words="/home/")
    refused(code("warn()", said("careful", "stderr")), words="careful")


def test_symbols():
    def show(name):
        return code(
            f"#| echo: false\nshow_doc({name})",
            {"output_type": "execute_result", "data": SymbolDoc(getattr(library.modules["k2nb.core"], name))._repr_mimebundle_()},
        )

    shown = made(show("save_tensors"), show("rng"), md("between"), show("K2Error"), module="k2nb.core")
    assert [c["source"].partition("\n\n")[0] for c in shown[1:5]] == [
        '<span class="short" id="rng"></span>',
        '<span class="short" id="save_tensors"></span>',
        "between",
        '<span class="short" id="k2error"></span>',
    ]
    text = shown[1]["source"]
    for words in (
        "{py:function} rng(random_state: int | Generator | None = None, *keys: str | int) -> Generator",
        ":module: k2nb.core",
        "{list-table}",
        "`random_state`",
        "`int | Generator | None`",
        "`None`",
        f"[source]({SOURCES}/k2nb/core.py#L",
    ):
        assert words in text, words
    assert "## Constants" in shown[-1]["source"] and "{py:data} RandomState" in shown[-1]["source"]
    store = library.myst(library.find("k2nb.embedding.store", "ActivationStore"))
    assert (
        ":canonical: k2nb.embedding.store.ActivationStore" in store and "{py:method} vectors(" in store and "{py:property} tokens" in store
    )
    assert fence("note", body="```py\n1\n```").startswith("````{note}")


def test_gaps():
    assert not library.gaps()
    silent = Symbol("f", "k2nb.core", "function", "(x)", "", (Param("x", "", "", ""),))
    library.symbols["k2nb.core", "f"] = silent
    try:
        gaps = library.gaps()
    finally:
        del library.symbols["k2nb.core", "f"]
    core = library.modules["k2nb.core"]
    core.__all__.append("left")  # as `left, right = 1, 2` would
    try:
        assert library.gaps() == ["k2nb.core.left is no function, class or constant"]
    finally:
        core.__all__.remove("left")
    assert len(gaps) == 2 and "k2nb.core.f" in gaps[0] and "docstring" in gaps[0] and "parameter x" in gaps[1]


def test_steady():
    "What a page says of a constant is the same in every run."
    def f(x): return x

    module = SimpleNamespace(MADE={"f": f, "made": SimpleNamespace, "one": object()}, PLAIN=(1, "<a>"))
    made, plain = (Symbol(n, "k2nb.core", "constant", repr(getattr(module, n))[:9], "words") for n in ("MADE", "PLAIN"))
    assert steady(made, module).signature == "{'f': test_steady.<locals>.f, 'made': <class 'types.SimpleNamespace'>, 'one': object}"
    assert steady(plain, module) is plain


def test_widgets():
    "Ids are numbered as they appear; what nothing shows is left out; links between shown widgets stay."
    state = {
        "f0": {"model_name": "BoxModel", "state": {"children": ["IPY_MODEL_aa"]}},
        "aa": {"model_name": "SliderModel", "state": {}},
        "bb": {"model_name": "LinkModel", "state": {"source": ["IPY_MODEL_aa", "value"]}},
        "cc": {"model_name": "SliderModel", "state": {}},
    }
    nb = {
        "cells": [code("w", {"output_type": "execute_result", "data": {VIEW: {"model_id": "f0"}}})],
        "metadata": {"widgets": {STATE: {"state": state}}},
    }
    bridge.steady(nb)
    held = nb["metadata"]["widgets"][STATE]["state"]
    assert (
        list(held) == ["w000", "w001", "w002"]
        and held["w000"]["state"]["children"] == ["IPY_MODEL_w001"]
        and held["w002"]["model_name"] == "LinkModel"
    )
    assert nb["cells"][0]["outputs"][0]["data"][VIEW]["model_id"] == "w000"


def test_outline():
    pages = [
        outline.Page(address(n), n, t, "", m, {})
        for n, t, m in (
            ("10_embedding.ipynb", "Embedding", "k2nb.embedding"),
            ("11_extract.ipynb", "Extract", "k2nb.embedding.extract"),
            ("13_quantize.ipynb", "Quantize", "k2nb.quantize"),
        )
    ]
    assert {a: p.address for a, p in outline.parents(pages).items()} == {"extract": "embedding"} and pages[0].room == 1


def test_quarto_files():
    "What nbdev's usual command needs is there: every file that is named, and every notebook in the sidebar."
    nbs = checks.ROOT / "nbs"
    quarto, sidebar = (yaml.safe_load((nbs / name).read_text()) for name in ("_quarto.yml", "sidebar.yml"))
    assert all((nbs / name).is_file() for name in (*quarto["metadata-files"], quarto["format"]["html"]["css"]))
    contents = sidebar["website"]["sidebar"]["contents"]
    named = [name for entry in contents for name in (entry["contents"] if isinstance(entry, dict) else [entry])]
    assert sorted(named) == sorted(p.relative_to(nbs).as_posix() for p in checks.notebooks())


def run():
    tests = {name: test for name, test in (vars(selftest_html) | globals()).items() if name.startswith("test_")}
    for test in tests.values():
        test()
    return len(tests)


if __name__ == "__main__":
    print(f"{run()} passed")
