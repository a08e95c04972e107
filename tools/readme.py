"""Write README.md from nbs/index.ipynb: prose as it is, code in fences, outputs below, pictures beside. Standard library only.

    python tools/readme.py           write README.md and nbs/images/readme-K.png
    python tools/readme.py --check   fail if they are not what the notebook says

Cell directives: `#| hide` leaves a cell out, `#| echo: false` its code, `#| output: false` its outputs; `#| fig-alt: words`
describes a picture to those who do not see it, and every picture needs one.
"""
import base64, json, posixpath, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "nbs/index.ipynb"
HEADER = "<!-- written by tools/readme.py from nbs/index.ipynb: edit that -->"
MEND = "README.md is not what nbs/index.ipynb says: run make readme and commit what it writes"


class ReadmeError(Exception):
    "The notebook cannot become a README; the message says which cell and why."


def joined(text): return text if isinstance(text, str) else "".join(text)


def fence(text, language=""):
    "A fenced block, its fence longer than any inside."
    ticks = "`" * max(3, 1 + max(map(len, re.findall(r"^`{3,}", text, re.M)), default=0))
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def directives(source):
    "The leading `#| name: value` lines of a cell as a dict, and the code that is left."
    lines, found = source.split("\n"), {}
    while lines and (m := re.match(r"#\s*\|\s*([\w-]+)\s*:?\s*(.*)", lines[0])):
        found[m.group(1)] = m.group(2).strip().strip("\"'")
        lines.pop(0)
    return found, "\n".join(lines).strip("\n")


def relink(text):
    "Links and pictures are relative to nbs/ in the notebook and to the repository in the README."
    def moved(m):
        before, url, after = m.groups()
        if re.match(r"[a-z][a-z0-9+.-]*:|[#/]", url, re.I): return m.group()
        path, mark, anchor = url.partition("#")
        return before + posixpath.normpath(posixpath.join("nbs", path)) + mark + anchor + after
    parts = re.split(r"(^(?:```|~~~).*?^(?:```|~~~)\s*?$|`[^`\n]+`)", text, flags=re.M | re.S)  # code is left alone
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"(\]\(\s*)([^\s)]+)((?:\s+\"[^\"]*\")?\s*\))", moved, parts[i])
        parts[i] = re.sub(r"(\b(?:src|href)=\")([^\"]+)(\")", moved, parts[i])
        parts[i] = re.sub(r"(^\[[^\]]+\]:\s*)(\S+)()", moved, parts[i], flags=re.M)
    return "".join(parts)


def prose(source, first):
    "A markdown cell; the title cell without its front matter (a --- block, or `- key: value` lines)."
    if first:
        source = re.sub(r"\A---\n.*?\n---\n*", "", source, flags=re.S)
        if source.lstrip().startswith("# "): source = re.sub(r"^- [\w-]+:.*\n?", "", source, flags=re.M)
    return relink(source).strip()


def outputs(cell, where, alt, pictures):
    "What a cell's outputs look like in Markdown; PNGs are added to `pictures` as path -> bytes."
    for out in cell["outputs"]:
        if out["output_type"] == "error": raise ReadmeError(f"{where} ends in an error: {out['ename']}: {out['evalue']}")
        if out["output_type"] == "stream":
            text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", joined(out["text"]))
            if out["name"] == "stderr": raise ReadmeError(f"{where} writes to stderr, which no README should show: {text.strip()[:200]}")
            yield fence(text)
            continue
        data = {kind: joined(value) for kind, value in out["data"].items() if kind != "application/json"}
        if "image/png" in data:
            if not alt: raise ReadmeError(f"{where} draws a picture and has no line `#| fig-alt: what it shows`")
            path = f"nbs/images/readme-{len(pictures) + 1}.png"
            pictures[path] = base64.b64decode(data["image/png"])
            yield f"![{alt}]({path})"
        elif "text/markdown" in data: yield relink(data["text/markdown"]).strip()
        elif "text/plain" in data: yield fence(data["text/plain"])
        else: raise ReadmeError(f"{where} has an output with no text to show, only {', '.join(data)}")


def render(nb):
    "README text, and its pictures as path -> bytes."
    blocks, pictures = [HEADER], {}
    first = True
    for i, cell in enumerate(nb["cells"]):
        source = joined(cell["source"])
        if cell["cell_type"] == "markdown":
            blocks.append(prose(source, first))
            first = False
        elif cell["cell_type"] == "code":
            found, code = directives(source)
            if "hide" in found: continue
            if code and found.get("echo") != "false": blocks.append(fence(code, "python"))
            if found.get("output") != "false": blocks += outputs(cell, f"{SOURCE}, cell {i}", found.get("fig-alt"), pictures)
    return "\n\n".join(b for b in blocks if b) + "\n", pictures


def main(check):
    try: text, pictures = render(json.loads((ROOT / SOURCE).read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError) as e: return f"{SOURCE} cannot be read: {e}"
    except ReadmeError as e: return str(e)
    want = {"README.md": text.encode(), **pictures}
    left = [p for p in ROOT.glob("nbs/images/readme-*.png") if p.relative_to(ROOT).as_posix() not in want]
    stale = [path for path, data in want.items() if not (ROOT / path).is_file() or (ROOT / path).read_bytes() != data]
    if check: return f"{MEND} ({', '.join(stale + [p.relative_to(ROOT).as_posix() for p in left])})" if stale or left else None
    for path in stale:
        (ROOT / path).parent.mkdir(exist_ok=True)
        (ROOT / path).write_bytes(want[path])
        print(f"wrote {path}")
    for p in left:
        p.unlink()
        print(f"removed {p.relative_to(ROOT).as_posix()}")
    return None


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--check"]): sys.exit(f"usage: python tools/readme.py [--check], not {' '.join(sys.argv[1:])}")
    sys.exit(main(check="--check" in sys.argv))
