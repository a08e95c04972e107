"""What gathers the pages: the order in which they stand, the home page's tables of contents, the lists of tutorials and symbols."""
import json, re
from dataclasses import dataclass

from bridge import markdown, prose
from k2nb.showdoc import escape
from symbols import fence

ROOMS = {0: "Foundations", 1: "Activations", 2: "Heads", 3: "Prospectors", 4: "SAE features", 5: "Autointerpretation", 6: "PRLE",
         7: "Effects", 8: "Views", 9: "Tools"}  # by the tens digit of a notebook's number


@dataclass
class Page:
    address: str  # without .html
    notebook: str  # relative to nbs/
    title: str
    description: str
    module: str  # that the notebook writes; empty if it writes none
    nb: dict

    @property
    def room(self): return int(m.group(1)) if (m := re.match(r"(\d)\d", self.notebook)) else None


def origin(notebook, module, library):
    "The line under a page's title that says where it comes from."
    parts = [f"[notebook]({library.sources}/nbs/{notebook})"]
    if module:
        file = module.replace(".", "/") + ("/__init__.py" if hasattr(library.modules[module], "__path__") else ".py")
        parts = [f"`{module}`", *parts, f"[module]({library.sources}/{file})"]
    return "{.origin}\n" + " · ".join(parts)


def toctree(entries, caption="", hidden=True):
    options = {"hidden": ""} if hidden else {"maxdepth": 1}
    return fence("toctree", body="\n".join(entries), **options, **({"caption": caption} if caption else {}))


def parents(pages):
    "address -> the page it stands under: the face of the package that its module belongs to."
    faces = {p.module: p for p in pages if p.module}
    return {p.address: faces[p.module.rpartition(".")[0]] for p in pages if p.module.rpartition(".")[0] in faces}


def tutorials(pages):
    rows = [f"{i}. [{p.title}]({p.address}.ipynb): {p.description}" for i, p in enumerate(pages, 1)]
    text = "Each tells one story, from top to bottom and without a network. What it needs beyond the package, it says at its start."
    return "\n\n".join(["# Tutorials", text, "\n".join(rows), toctree([p.address for p in pages])])


def api(pages, library):
    "One table per module: every public symbol and the first sentence that is said of it."
    intro = f"{len(library.symbols)} public names, by the notebook that defines each. Its page says where to import it."
    out = ["# API index", intro]
    room = None
    for p in pages:
        own = [s for s in library.symbols.values() if s.module == p.module]
        if not own: continue
        if p.room != room: room = p.room; out.append(f"## {ROOMS[room]}")
        out.append(f"### [{p.module}]({p.address}.ipynb)\n\n{library.linked(p.description, p.module)}")
        rows = []
        for s in own:
            first = re.split(r"(?<=[.])\s", " ".join(s.text.split()))[0]
            full = f"{library.place(s)}.{s.name}"
            rows.append(f"* - {{py:obj}}`{s.name} <{full}>`\n  - {library.linked(escape(first), s.module)}")
        out.append(fence("list-table", body="\n".join(rows), widths="35 65", **{"class": "api"}))
    return "\n\n".join(out)


def project_page(path, library):
    "CHANGELOG.md or CONTRIBUTING.md as a page."
    return prose(path.read_text(encoding="utf-8"), library, "", path.name, "")


def add(page, text): page.nb["cells"].append(markdown(text) | {"id": f"p{len(page.nb['cells']):03d}"})


def write(pages, library, root, out):
    "Write the pages, in folders as their addresses say."
    above = parents(pages)
    for p in pages:
        children = [c for c in pages if above.get(c.address) is p]
        if children: add(p, "## In this room\n\n" + toctree([c.address for c in children], hidden=False))
    top = {p.address: p for p in pages if p.address not in above}
    steps = [p for p in pages if p.notebook.startswith("tutorials/")]
    groups = {"Start": [a for a in ("get_started", "tutorials", "moving_from") if a in top or a == "tutorials"]}
    for room, name in ROOMS.items():
        groups[name] = [p.address for p in top.values() if p.room == room]
    groups["Project"] = ["api", "changelog", "contributing"]
    contents = "\n\n".join(toctree(entries, caption) for caption, entries in groups.items() if entries)
    add(top["index"], contents)
    texts = {"tutorials": tutorials(steps), "api": api(pages, library), "changelog": project_page(root / "CHANGELOG.md", library),
             "contributing": project_page(root / "CONTRIBUTING.md", library)}
    for p in pages:
        path = out / f"{p.address}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(p.nb), encoding="utf-8")
    for name, text in texts.items(): (out / f"{name}.md").write_text(text + "\n", encoding="utf-8")
