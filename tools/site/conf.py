"Sphinx's configuration. The pages come from bridge.py; builder.py calls Sphinx."
import functools, gc
from configparser import ConfigParser
from pathlib import Path

from sphinx.domains.python import PythonDomain
from sphinx.search.en import SearchEnglish

HERE = Path(__file__).parent
settings = ConfigParser(delimiters=["="])
settings.read(HERE.parent.parent / "settings.ini", encoding="utf-8")
settings = settings["DEFAULT"]

project, version, author, language = settings["title"], settings["version"], settings["author"], "en"
release, project_copyright = version, settings["copyright"]
extensions = ["myst_nb", "sphinx.ext.mathjax"]

# pages: executed before, with links and anchors checked by builder.py
nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_merge_streams = True
nb_ipywidgets_js = {"vendor/html-manager/embed.js": {}}
myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
myst_update_mathjax = False  # there is none to configure
python_maximum_signature_line_length = 72
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"

smartquotes = False  # "rs" in quotation marks is to be typed as it stands
pygments_dark_style = "monokai"
html_theme = "furo"
html_title, html_short_title = project, project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_favicon = "static/favicon.svg"
html_baseurl = settings["doc_host"] + settings["doc_baseurl"]
html_copy_source = html_show_sourcelink = html_use_index = html_domain_indices = html_show_sphinx = False
mathjax_path = "math.js"  # draws what Sphinx leaves for MathJax; scripts are vendored: a page asks no other host for anything
html_theme_options = {
    "top_of_page_buttons": [],
    "light_css_variables": {"color-brand-primary": "#0b5e8a", "color-brand-content": "#0b5e8a", "color-brand-visited": "#5b4a86"},
    "dark_css_variables": {"color-brand-primary": "#7cc4ec", "color-brand-content": "#7cc4ec", "color-brand-visited": "#b6a3e0"},
}

gc.set_threshold(200_000, 50, 100)  # a page is a tree of many thousand nodes, which live on: little is gained by looking often for litter
SearchEnglish.stem = functools.cache(SearchEnglish.stem)  # the pages' words are few, and each comes often


class OneMeaning(PythonDomain):
    "Python's names as Sphinx finds them, but for types in signatures: one that may mean several things is what its own module says."

    def find_obj(self, env, modname, classname, name, type, searchmode=0):
        found = super().find_obj(env, modname, classname, name, type, searchmode)
        if searchmode == 0: return found
        types = [m for m in found if m[1].objtype in ("class", "exception", "data")]  # torch.device is no property of ours
        here = [m for m in types if m[0] == f"{modname}.{name}"] or [m for m in types if not m[1].aliased]
        return here if len(here) == 1 else []


def setup(app):
    app.add_domain(OneMeaning, override=True)

    def one_list(app, pagename, templatename, context, doctree):
        "The list of all pages for the home page alone, from which shrink.py gives it to all; drawn for each it takes most of the time."
        if pagename != "index": context["toctree"] = lambda **kwargs: ""
    app.connect("html-page-context", one_list, priority=100)  # before the theme asks for it

    def scripts(app, pagename, templatename, context, doctree):
        if context.get("has_maths_elements"):
            app.add_css_file("vendor/temml/Temml-STIX2.css")
            app.add_js_file("vendor/temml/temml.min.js", priority=400, defer="defer")  # before math.js
        if pagename == "search":  # it quotes from texts that come with it, since a page opened from a file may not fetch another
            app.add_js_file("search-texts.js")
            app.add_js_file("search-offline.js")
    app.connect("html-page-context", scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
