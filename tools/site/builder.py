"""Build the site from the notebooks: python tools/site/builder.py [--out docs]

Tutorials are executed in a copy; nbdev processes every notebook; bridge.py turns them into pages; Sphinx with MyST-NB and Furo makes
HTML of those. No Quarto, no network, and nothing is installed. The same sources give the same bytes.
"""
import argparse, gc, hashlib, importlib, importlib.metadata, json, multiprocessing, os, re, shutil, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SITE = Path(__file__).resolve().parent
ROOT = SITE.parent.parent
WORK = ROOT / "build" / "site"
sys.path[:0] = [str(ROOT / "tools"), str(SITE)]

import checks, kernels, links, outline, search, shrink, zygote  # noqa: E402
from bridge import PageError, address, page  # noqa: E402
from readme import joined  # noqa: E402

BEGAN = time.time()


def collect_seldom(): gc.set_threshold(200_000, 50, 100)  # notebooks and pages are trees that live on: there is little litter among them


def say(text): print(f"{time.time() - BEGAN:5.0f} s  {text}", flush=True)


def digest(paths, base):
    "A hash of files, their names included."
    h = hashlib.sha256()
    for path in sorted(paths): h.update(f"{path.relative_to(base).as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return h.hexdigest()


def sources():
    "All that the site is made from."
    rooms = [p for pattern in ("nbs/images/*", "k2nb/**/*.py", "k2nb/data/**/*", "tools/site/**/*") for p in ROOT.glob(pattern)]
    rooms += [*checks.notebooks(), *(ROOT / name for name in ("settings.ini", "CHANGELOG.md", "CONTRIBUTING.md"))]
    return sorted(p for p in set(rooms) if p.is_file() and p.suffix != ".pyc")


def stale(out):
    "Why the pages in `out` are not what the sources say, or None."
    try: built = json.loads((out / "built.json").read_text())
    except (OSError, json.JSONDecodeError): return f"{out.name}/ holds no site: run make docs and commit what it writes"
    mend = "run make docs and commit what it writes"
    if built["sources"] != digest(sources(), ROOT): return f"{out.name}/ was built from other sources: {mend}"
    if built["pages"] != digest(pages(out), out): return f"{out.name}/ was edited by hand or is incomplete: {mend}"
    return None


def pages(out): return [p for p in out.rglob("*") if p.is_file() and p.name not in ("built.json", ".nojekyll")]


# 1. execute ---------------------------------------------------------------------------------------------------------

def live(path):
    "Whether a page shows what its notebook puts out now, not what it keeps: `- live: true` or `false` in its title; tutorials do else."
    title = joined(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
    said = re.search(r"^- live: (true|false)$", title, re.M)
    return said.group(1) == "true" if said else "tutorials" in path.parts


def execute(path, key, manager):
    "Execute a notebook of the copy in place, or take what it put out the last time that all was the same."
    import nbformat
    from nbclient.exceptions import CellExecutionError, CellTimeoutError
    from run_notebooks import executed
    kept = WORK / "executed" / f"{path.stem}-{key}"
    if (kept / path.name).is_file(): return shutil.copytree(kept, path.parent, dirs_exist_ok=True)
    try: nb = executed(path, {"slow"}, manager(path.parent))
    except (CellExecutionError, CellTimeoutError) as e: raise SystemExit(f"{path.name} does not run:\n{e}") from None
    told = "".join(joined(o.get("text", "")) for c in nb.cells for o in c.get("outputs", []))
    if "skipped, because" in told: return say(f"{path.name}: data is missing here, so the page shows the outputs that the notebook keeps")
    part = kept.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    # widgets' state lies beside the notebook: nbdev does not read what is in it
    (part / f"{path.stem}.widgets.json").write_text(json.dumps(nb.metadata.pop("widgets", {})), encoding="utf-8")
    nbformat.write(nb, part / path.name)
    os.replace(part, kept)
    shutil.copytree(kept, path.parent, dirs_exist_ok=True)


def execute_all(copy):
    installed = sorted(f"{d.name} {d.version}" for d in importlib.metadata.distributions())
    package = digest([p for p in ROOT.glob("k2nb/**/*") if p.is_file() and p.suffix != ".pyc"], ROOT)
    os.environ |= {"K2NB_PROGRESS": "0", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    for name in ("K2NB_DATA", "K2NB_MODEL", "MPLBACKEND"): os.environ.pop(name, None)  # what one shell has set is not for the pages
    # data lies beside the repository; here too, so that notebooks find it by the same relative path and no page names a machine's
    data, seen = ROOT.parent / "shared", copy.parent.parent / "shared"
    seen.unlink(missing_ok=True)
    if data.is_dir(): seen.symlink_to(data)
    jobs = [p for p in sorted(copy.rglob("*.ipynb"), reverse=True) if live(p)]  # tutorials take longest, and begin
    same = f"{sys.version} {installed} {package} {data.is_dir()}"
    keys = [hashlib.sha256(f"{same} {p.read_text(encoding='utf-8')}".encode()).hexdigest()[:16] for p in jobs]
    with kernels.managers() as manager, ThreadPoolExecutor(2) as pool: list(pool.map(execute, jobs, keys, [manager] * len(jobs)))


# 2. nbdev -----------------------------------------------------------------------------------------------------------

def nbdev_files():
    "Keep what Quarto would need: nbs/_quarto.yml, nbdev.yml, sidebar.yml. Quarto itself is not called."
    from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
    refresh_quarto_yml()
    nbdev_sidebar.__wrapped__()


def process(copy):
    "nbdev's own processing, in the copy and in a process of its own, since nbdev reads its settings from where it starts."
    subprocess.run([sys.executable, str(Path(__file__).resolve()), "--process"], cwd=copy.parent, check=True)


def process_all():
    "In that process: two forks share the notebooks, where forks are safe."
    import nbdev.serve
    collect_seldom()
    def forks(f, items, **options):  # of this process, when all that takes long is imported
        os.environ |= zygote.THREADLESS | {"TRANSFORMERS_VERBOSITY": "error"}  # it tells of packages that are not there
        for module in zygote.PRELOAD: importlib.import_module(module)
        gc.freeze()
        with multiprocessing.get_context("fork").Pool(2) as pool: pool.map(f, items, chunksize=1)
    if sys.platform == "linux": nbdev.serve.parallel = forks
    nbdev.serve.proc_nbs(force=True, n_workers=0)
    gc.freeze()  # each notebook's shell collects garbage as it is closed: with nothing to look through, that takes no minute


# 3. pages -----------------------------------------------------------------------------------------------------------

def write_pages(copy, out):
    "The bridge over all notebooks, and the pages that gather what they hold."
    from nbdev.config import get_config
    from symbols import Library
    cfg = get_config()
    library = Library(cfg.doc_host + cfg.doc_baseurl, f"{cfg.git_url}/blob/{cfg.branch}")
    gaps, shown, found = library.gaps(), set(), []
    for path in sorted(copy.rglob("*.ipynb")):
        name = path.relative_to(copy).as_posix()
        source = (copy.parent / "nbs" / name).read_text(encoding="utf-8")
        writes = re.search(r"#\| *default_exp +([\w.]+)", "\n".join(joined(c["source"]) for c in json.loads(source)["cells"]))
        module = f"k2nb.{writes.group(1).removesuffix('.__init__')}" if writes else ""
        nb = json.loads(path.read_text(encoding="utf-8"))
        widgets = path.with_suffix(".widgets.json")
        nb["metadata"]["widgets"] = json.loads(widgets.read_text(encoding="utf-8")) if widgets.is_file() else {}
        try: front, symbols = page(nb, name, library, module, outline.origin(name, module, library))
        except PageError as e: gaps.append(str(e)); continue
        shown |= set(symbols)
        found.append(outline.Page(address(name), name, front.get("title", name), front.get("description", ""), module, nb))
    gaps += [f"{m}.{n} is public and stands on no page" for m, n in library.symbols if (m, n) not in shown]
    if gaps: sys.exit("\n".join(["the site cannot be built:", *gaps]))
    outline.write(found, library, ROOT, out)
    shutil.copytree(copy / "images", out / "images")


# 4. HTML ------------------------------------------------------------------------------------------------------------

def sphinx(src, out):
    options = ["-b", "html", "-W", "--keep-going", "-q", "-E", "-j", "2", "-c", str(SITE), "-d", str(WORK / "doctrees")]
    if subprocess.run([sys.executable, "-m", "sphinx", *options, str(src), str(out)], cwd=ROOT).returncode:
        sys.exit("Sphinx has warnings (above); each is an error here")


def smaller(out):
    "Take out of the pages what all of them repeat, and pack what is large."
    for path in [out / ".buildinfo", *out.rglob("*.map")]: path.unlink(missing_ok=True)
    for path in (out / "_images").glob("*.png"): path.write_bytes(shrink.smaller_png(path.read_bytes()))
    widgets = out / "_static" / "vendor" / "html-manager" / "embed.js"
    widgets.write_text(shrink.packed_widgets(widgets.read_text(encoding="utf-8")), encoding="utf-8")
    index = out / "searchindex.js"
    index.write_text(shrink.packed_index(index.read_text(encoding="utf-8")), encoding="utf-8")
    known = shrink.styled(out)
    home = out / "index.html"  # which keeps its list of all pages
    rooms = shrink.sidebar(home.read_text(encoding="utf-8"), out)
    for path in out.rglob("*.html"):
        text = shrink.one_style(shrink.one_sprite(once(path.read_text(encoding="utf-8")), out), out)
        if path != home: text = shrink.one_sidebar(text, path.relative_to(out).as_posix(), rooms)
        path.write_text(shrink.slim(text, known), encoding="utf-8")


def once(text):
    "A page without a symbol's short anchor where a heading has it already."
    taken = set(re.findall(r'(?<!<span class="short") id="([^"]+)"', text))
    def new(m):
        first = m.group(1) not in taken
        taken.add(m.group(1))
        return m.group() if first else ""
    return re.sub(r'<span class="short" id="([^"]+)"></span>', new, text)


def publish(html, out):
    "Make `out` what `html` is; files that are the same are left alone."
    out.mkdir(parents=True, exist_ok=True)
    if pages(out) and not (out / "built.json").is_file(): sys.exit(f"{out} holds files and no site; nothing is written over them")
    want = {p.relative_to(html): p for p in html.rglob("*") if p.is_file()}
    for path in pages(out):
        if path.relative_to(out) not in want: path.unlink()
    for name, path in want.items():
        to = out / name
        to.parent.mkdir(parents=True, exist_ok=True)
        if not to.is_file() or to.read_bytes() != path.read_bytes(): shutil.copyfile(path, to)
    for folder in sorted((p for p in out.rglob("*") if p.is_dir()), reverse=True):
        if not any(folder.iterdir()): folder.rmdir()
    (out / ".nojekyll").touch()
    built = {"schema_version": 1, "sources": digest(sources(), ROOT), "pages": digest(pages(out), out)}
    (out / "built.json").write_text(json.dumps(built, indent=1) + "\n")


def build(out):
    os.chdir(ROOT)
    collect_seldom()
    nbdev_files()
    copy, src, html = WORK / "copy" / "nbs", WORK / "pages", WORK / "html"
    for folder in (copy.parent, src, html, WORK / "doctrees"): shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "nbs", copy, ignore=shutil.ignore_patterns(".*", "_[!q]*"))
    shutil.copy(ROOT / "settings.ini", copy.parent)
    say("executing tutorials")
    execute_all(copy)
    say("processing notebooks")
    process(copy)
    say("making pages")
    src.mkdir(parents=True)
    write_pages(copy.parent / "_proc", src)
    say("writing HTML")
    sphinx(src, html)
    say("making it small, following links")
    smaller(html)
    soups = links.parsed(html)
    search.write_texts(html, soups)
    if broken := links.broken(html, soups): sys.exit("\n".join(["the site has broken links:", *broken]))
    publish(html, out)
    size = sum(p.stat().st_size for p in pages(out))
    say(f"{out.name}/: {len(list(out.rglob('*.html')))} pages, {size / 1e6:.1f} MB")


def main():
    ap = argparse.ArgumentParser(description="Build the site.")
    ap.add_argument("--out", type=Path, default=ROOT / "docs")
    ap.add_argument("--process", action="store_true", help=argparse.SUPPRESS)
    args = ap.parse_args()
    if args.process: process_all()
    else: build(args.out.resolve())


if __name__ == "__main__": sys.exit(main())
