"""Every public symbol of the library, where pages link to it, and how it looks on a page: signature, words, parameter table."""
import json, pkgutil, re, textwrap
from dataclasses import replace
from importlib import import_module

import k2nb
from k2nb.showdoc import Symbol, escape, public, undocumented

CODE = re.compile(r"(?<!`)`([A-Za-z_][\w.]*)(\(\))?`(?!`)")  # one name in backticks
# other code, links, roles
LEFT_ALONE = re.compile(r"(^`{3,}[^\n]*\n.*?^`{3,}[ ]*$|``.+?``(?!`)|\[[^\]]*\]\([^)]*\)|\{[\w:]+\}`[^`]*`)", re.M | re.S)

ADDRESS = r"<(?:function |built-in function )?(\S+?)(?: object)? at 0x[0-9a-f]+>"


def fence(directive, argument="", body="", **options):
    "A MyST directive, its fence longer than any inside."
    ticks = "`" * max(3, 1 + max(map(len, re.findall(r"^`{3,}", body, re.M)), default=0))
    plain = re.compile(r"[\w. ]*")
    quoted = {name: value if plain.fullmatch(str(value)) else json.dumps(value, ensure_ascii=False) for name, value in options.items()}
    lines = [f":{name}: {value}".rstrip() for name, value in quoted.items()]
    return "\n".join([f"{ticks}{{{directive}}} {argument}".rstrip(), *lines, "", body.rstrip(), ticks])


def modules():
    "All modules of the library, by name."
    names = [m.name for m in pkgutil.walk_packages(k2nb.__path__, "k2nb.") if not m.name.endswith("._modidx")]
    return {name: import_module(name) for name in names}


def steady(symbol, module):
    "A constant whose value holds functions shows their names: where they lie in memory differs from run to run."
    value = repr(getattr(module, symbol.name)) if symbol.kind == "constant" else ""
    if not re.search(ADDRESS, value): return symbol
    return replace(symbol, signature=textwrap.shorten(re.sub(ADDRESS, r"\1", value), 200, placeholder=" …"))


class Library:
    def __init__(self, address, sources):
        self.address, self.sources = address, sources  # of the site, and of the repository's files
        self.modules = modules()
        self.symbols = {(s.module, s.name): steady(s, module) for module in self.modules.values() for s in public(module)}
        self.faces = {}  # (module, name) -> the package that hands it on, from which people import it
        for face, module in self.modules.items():
            if hasattr(module, "__path__"):
                self.faces |= {(m, n): face for m, n in self.symbols if m.startswith(face + ".") and n in module.__all__}
        self.spellings = {}  # what people write -> {(where it is defined, its full name)}
        for s in self.symbols.values():
            for name in (s.name, *(m.name for m in s.members)):
                place = self.place(s)
                for prefix in ("", place + ".", s.module + ".", place.rpartition(".")[2] + "."):
                    self.spellings.setdefault(prefix + name, set()).add((s.module, f"{place}.{name}"))

    def find(self, module, name):
        "The symbol, or the member of a class, that a module calls so."
        owner = self.symbols[module, name.partition(".")[0]]
        return owner if owner.name == name else next(m for m in owner.members if m.name == name)

    def gaps(self):
        "What nobody has documented, and public names that are nothing which could be."
        names = {name for _, name in self.symbols}
        odd = [f"{module}.{n}" for module, m in self.modules.items() for n in getattr(m, "__all__", []) if n not in names]
        gaps = [gap for s in self.symbols.values() for gap in undocumented(s)]
        gaps += [f"{s.module}.{s.name} is shown with an address in memory" for s in self.symbols.values() if " at 0x" in str(s)]
        return gaps + [f"{name} is no function, class or constant" for name in odd]

    def place(self, symbol): return self.faces.get((symbol.module, symbol.name), symbol.module)

    def target(self, name, module=""):
        "The full name of what `name` means on the page of `module`, or None. A plain word, say *documents*, needs to be at home there."
        found = self.spellings.get(name, set())
        if re.fullmatch("[a-z]+", name): found = {(m, full) for m, full in found if m == module or full == f"{module}.{name}"}
        here = {full for m, full in found if m == module} or {full for _, full in found}
        return here.pop() if len(here) == 1 else None

    def linked(self, text, module="", but=()):
        "Names in backticks as references to what they name."
        def link(m):
            target = None if m.group(1) in but else self.target(m.group(1), module)
            return f"{{py:obj}}`{m.group(1)}{m.group(2) or ''} <{target}>`" if target else m.group()
        return "".join(part if i % 2 else CODE.sub(link, part) for i, part in enumerate(LEFT_ALONE.split(text)))

    def typed(self, text):
        "A type in the look of code, the library's own classes as references."
        parts = [(self.target(part) if i % 2 else None, part) for i, part in enumerate(re.split(r"\b([A-Z]\w+)", text))]
        out, plain = [], ""
        for target, part in [*parts, ("", "")]:
            if target is None: plain += part; continue
            if plain: out.append(f"`{plain}`")
            out.append(f"{{py:obj}}`{part} <{target}>`" if target else "")
            plain = ""
        return "".join(out)

    def table(self, symbol, say):
        rows = [(f"`{p.name}`", self.typed(p.type), f"`{p.default}`" if p.default else "", say(p.text)) for p in symbol.params]
        back = symbol.returns if symbol.kind != "property" else None
        if back: rows.append(("*returns*", self.typed(back.type), "", say(back.text)))
        if not rows: return ""
        cells = [("Parameter", "Type", "Default", "Meaning"), *rows]
        lines = [f"{' ' if i else '*'} - {cell}".rstrip() for row in cells for i, cell in enumerate(row)]
        return fence("list-table", body="\n".join(lines), **{"header-rows": 1, "class": "parameters"})

    def myst(self, symbol: Symbol, within="", elsewhere=()):
        "The directive that shows a symbol; of a class's members, those named in `elsewhere` have a place of their own on the page."
        def say(text): return self.linked(escape(text), symbol.module, {p.name.lstrip("*") for p in symbol.params})
        body = ["Extends " + ", ".join(self.linked(f"`{b}`", symbol.module) for b in symbol.bases) + "."] if symbol.bases else []
        body += [say(symbol.text), self.table(symbol, say)]
        if symbol.line: body.append(f"[source]({self.sources}/{symbol.file}#L{symbol.line})" "{.source}")
        body += [self.myst(m, within=symbol.name) for m in symbol.members if m.name not in elsewhere]
        kind = {"constant": "data", "classmethod": "method", "staticmethod": "method"}.get(symbol.kind, symbol.kind)
        options = {} if within else {"module": self.place(symbol)}
        if not within and self.place(symbol) != symbol.module: options["canonical"] = f"{symbol.module}.{symbol.name}"
        if symbol.kind in ("classmethod", "staticmethod"): options[symbol.kind] = ""
        if kind == "property" and symbol.signature: options["type"] = symbol.signature
        if kind == "data": options["value"] = symbol.signature
        name = symbol.name.removeprefix(within + ".") + (symbol.signature if kind not in ("property", "data") else "")
        # nbdev's own links, from other projects too, lead to the name alone, in small letters
        short = f'<span class="short" id="{symbol.name.lower()}"></span>\n\n'
        return (short if not within else "") + fence("py:" + kind, name, "\n\n".join(filter(None, body)), **options)
