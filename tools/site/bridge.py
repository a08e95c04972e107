"""From a notebook that nbdev has processed to one that MyST-NB reads: the lines between two formats, and nothing else.

nbdev leaves Quarto's Markdown behind: front matter, `#| name: value` directives, callouts as fenced divs, links to the library's
address. Here they become a title, cell tags, admonitions and references; what `show_doc` put out becomes the library's own layout.
"""
import itertools, json, posixpath, re

import yaml

from checks import MACHINE
from k2nb.showdoc import MIME
from readme import directives, joined

VIEW, STATE = "application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json"
PROJECT = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "README.md": "index.ipynb"}  # files that are pages too
ADMONITIONS = ("note", "tip", "warning", "important", "caution")


class PageError(Exception):
    "A notebook cannot become a page; the message says which, where and why."


def address(path):
    "`tutorials/01_activations.ipynb` -> `tutorials/activations`, as nbdev names it."
    return re.sub(r"(^|/)\d+[a-zA-Z0-9]*_", r"\1", path.removesuffix(".ipynb"))


def relinked(url, folder, sources):
    "Where a link in a file of the repository's `folder` leads from its page: to a page where there is one, else to the repository."
    path, mark, anchor = url.partition("#")
    if not path or re.match(r"[a-z][a-z0-9+.-]*:", url, re.I): return url
    path = posixpath.normpath(posixpath.join(folder, path))
    if path in PROJECT: page = PROJECT[path]
    elif path.startswith("nbs/"): page = address(path[4:]) + ".ipynb" if path.endswith(".ipynb") else path[4:]
    else: return f"{sources}/{path}{mark}{anchor}"
    return posixpath.relpath(page, folder.partition("/")[2] or ".") + mark + anchor


def prose(text, library, module, where, folder):
    "A Markdown cell of a notebook in `folder`: callouts, captions, local links, references. Code in it stays what it is."
    code = []
    def keep(m): code.append(m.group()); return f"\0{len(code) - 1}\0"
    def callout(m):
        colons, kind, said, body = m.groups()
        if kind not in ADMONITIONS: raise PageError(f"{where}: there is no callout-{kind}; there are {', '.join(ADMONITIONS)}")
        title, body = re.search(r"title=([\"'])(.*?)\1", said), callouts(body).strip()
        title = title.group(2) if title else ""
        if not title and (h := re.match(r"#+ (.*)\n", body)): title, body = h.group(1), body[h.end():].strip()
        head = f"{{admonition}} {title}\n:class: {kind}\n" if title else f"{{{kind}}}"
        return f"{colons}{head}\n{body}\n{colons}"
    def callouts(text): return re.sub(r"^(:::+) *\{\.callout-(\w+)([^}\n]*)\}\n(.*?)^\1 *$", callout, text, flags=re.M | re.S)
    def figure(m):
        caption, path, said = m.group(1), m.group(2), dict(re.findall(r"fig-(alt|cap)=\"([^\"]*)\"", m.group(3) or ""))
        alt, caption = said.get("alt") or caption, said.get("cap") or caption
        if not alt: raise PageError(f"{where}: the picture {path} has no words for those who do not see it: ![words]({path})")
        return f"```{{figure}} {path}\n:alt: {alt}\n\n{caption}\n```" if said else f"![{alt}]({path})"
    def link(m): return f"]({relinked(m.group(1), folder, library.sources)}"
    text = re.sub(r"^(`{3,}|~{3,}).*?^\1[`~]* *$|(?<!`)(`+)(?!`).+?(?<!`)\2(?!`)", keep, text, flags=re.M | re.S)
    text = callouts(re.sub(r"<!--.*?-->", "", text, flags=re.S))
    text = re.sub(r"!\[([^\]]*)\]\(([^)\s]+)\)(\{[^}\n]*\})?", figure, text)
    text = re.sub(r"\[(\0\d+\0)\]\(" + re.escape(library.address) + r"[^)]*\)", r"\1", text)  # nbdev's links to our own pages
    text = re.sub(r"\]\(([^)\s]+)", link, text)
    return library.linked(re.sub(r"\0(\d+)\0", lambda m: code[int(m.group(1))], text), module)


def shown(cell, options, where):
    "A code cell's tags, and what its pictures say: tags as MyST-NB has them, errors for what no page should show."
    tags = {"echo": "remove-input", "output": "remove-output", "include": "remove-cell"}
    cell["metadata"] = {"tags": [tag for name, tag in tags.items() if options.get(name) == "false"]}
    if options.get("code-fold") == "true": cell["metadata"]["tags"].append("hide-input")
    if options.get("include") == "false": return cell
    outputs = cell["outputs"] if options.get("output") != "false" else []
    pictures = [out for out in outputs if any(kind.startswith("image/") for kind in out.get("data", {}))]
    if "fig-alt" in options and not pictures:
        raise PageError(f"{where} says what its picture shows, and there is no picture")
    if m := re.search(MACHINE, json.dumps([out.get("text", out.get("data", {}).get("text/plain", "")) for out in outputs])):
        raise PageError(f"{where} shows a path of one machine, {m.group()}…")
    for out in outputs:
        if out["output_type"] == "error" or out.get("name") == "stderr":
            raise PageError(f"{where} shows an error or a warning: {joined(out.get('text', out.get('evalue')))[:300]}")
        data = out.get("data", {})
        if out in pictures:
            if not options.get("fig-alt"): raise PageError(f"{where} draws a picture and has no line `#| fig-alt: what it shows`")
            cell["metadata"]["mystnb"] = {"image": {"alt": options["fig-alt"]}}
            if options.get("fig-cap"): cell["metadata"]["mystnb"]["figure"] = {"caption": options["fig-cap"]}
        if "text/html" in data: data["text/html"] = re.sub(r"<style scoped>.*?</style>", "", joined(data["text/html"]), flags=re.S)
    return cell


def steady(nb):
    "Widgets' random ids numbered in the order in which they appear; models that nothing shows left out."
    state = nb["metadata"].pop("widgets", {}).get(STATE, {"state": {}})
    order, waiting = [], [o["data"][VIEW]["model_id"] for c in nb["cells"] for o in c.get("outputs", []) if VIEW in o.get("data", {})]
    links = {model: re.findall(r"IPY_MODEL_(\w+)", json.dumps(held)) for model, held in state["state"].items()}
    linking = {model: targets for model, targets in links.items() if "Link" in state["state"][model]["model_name"]}
    while waiting:
        model = waiting.pop(0)
        if model in order: continue
        order.append(model)
        waiting = links[model] + waiting
        waiting += [link for link, targets in linking.items() if model in targets]
    names = {model: f"w{i:03d}" for i, model in enumerate(order)}
    text = json.dumps({"cells": nb["cells"], "state": {m: state["state"][m] for m in order}})
    for old, new in names.items(): text = text.replace(old, new)
    held = json.loads(text)
    nb["cells"] = held["cells"]
    if order: nb["metadata"]["widgets"] = {STATE: state | {"state": held["state"]}}


def page(nb, name, library, module, extra=""):
    "Turn a processed notebook (changed in place) into a page; the symbols it shows as (module, name)."
    folder = posixpath.dirname(f"nbs/{name}")
    front = yaml.safe_load(joined(nb["cells"][0]["source"]).strip().strip("-")) if nb["cells"][0]["cell_type"] == "raw" else {}
    shows, own, cells = [], [], []
    steady(nb)
    for c in nb["cells"]:
        for out in c.get("outputs", []):
            if MIME in out.get("data", {}): own.append(out["data"][MIME]["name"])
    for i, cell in enumerate(nb["cells"]):
        where, source = f"nbs/{name}, cell {cell.get('id', i)}", joined(cell["source"])
        if cell["cell_type"] == "markdown":
            source = prose(source, library, module, where, folder)
            if source.strip(): cells.append(cell | {"source": source})
        elif cell["cell_type"] == "code":
            options, source = directives(source)
            records = [out["data"][MIME] for out in cell["outputs"] if "show_doc(" in source and MIME in out.get("data", {})]
            for record in records:
                shows.append((record["module"], record["name"]))
                cells.append(markdown(library.myst(library.find(*shows[-1]), elsewhere=own)) | {"line": record["line"]})
            plain = options.get("output") == "asis" and not records  # what the cell prints is Markdown
            asis = [out for out in cell["outputs"] if plain and out["output_type"] == "stream"]
            cell = cell | {"source": source, "outputs": [out for out in cell["outputs"] if out not in asis]}
            if not records: cells.append(shown(cell, options, where))
            if asis: cells.append(markdown(prose("".join(joined(out["text"]) for out in asis), library, module, where, folder)))
    for run in [list(g) for symbol, g in itertools.groupby(range(len(cells)), lambda i: "line" in cells[i]) if symbol]:
        cells[run[0]:run[-1] + 1] = sorted((cells[i] for i in run), key=lambda c: c.pop("line"))  # nbdev puts a cell's last symbol first
    constants = [s for s in library.symbols.values() if s.module == module and s.kind == "constant"]
    if constants: cells.append(markdown("\n\n".join(["## Constants", *map(library.myst, constants)])))
    lead = library.linked(front.get("description", ""), module)
    head = [f"# {front.get('title', name)}", f"{{.lead}}\n{lead}" if lead else "", extra]
    nb["cells"] = [cell | {"id": f"p{i:03d}"} for i, cell in enumerate([markdown("\n\n".join(filter(None, head))), *cells])]
    nb["metadata"]["myst"] = {"html_meta": {"description lang=en": front["description"]}} if front.get("description") else {}
    return front, [*shows, *((s.module, s.name) for s in constants)]


def markdown(source): return {"cell_type": "markdown", "metadata": {}, "source": source}
