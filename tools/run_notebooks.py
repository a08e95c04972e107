"""Execute notebooks in place, keep their outputs, and clean them.

    python tools/run_notebooks.py                       all of them
    python tools/run_notebooks.py nbs/00_core.ipynb     these
    python tools/run_notebooks.py --flags slow          slow cells too; otherwise they keep the outputs they have

A notebook that fails is left as it was.
"""
import argparse, os, sys, time
from pathlib import Path

from checks import ROOT, cleaned, name, notebooks

LIMIT = 1800  # seconds for one cell


def skipped(cell, flags):
    "Whether a cell is not to be executed: `#| eval: false`, or one of `flags` in its directives."
    from nbdev.process import extract_directives
    if cell.cell_type != "code": return True
    found = extract_directives(cell, remove=False)
    return found.get("eval:", [""])[0].lower() == "false" or bool(flags & found.keys())


def drop_widgets(nb):
    "Remove widgets from kept outputs: without its state a view is only a random number. The text beside it stays."
    nb.metadata.pop("widgets", None)
    for cell in nb.cells:
        for out in cell.get("outputs", []): out.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)


def executed(path, flags, manager=None):
    "The notebook, executed but for what `flags` leave out; its widgets' state in the metadata. `manager`: of its kernel, if not a new one."
    import nbformat
    from nbclient import NotebookClient
    nb = nbformat.read(path, as_version=4)
    client = NotebookClient(nb, timeout=LIMIT, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}})
    client.km = manager  # the client's own: it ends the kernel
    client.extra_arguments = ["--IPKernelApp.log_level=ERROR"]  # what the kernel has to say about itself is not wanted here
    with client.setup_kernel():
        for i, cell in enumerate(nb.cells):
            if not skipped(cell, flags): client.execute_cell(cell, i)
        client.set_widgets_metadata()
    return nb


def execute(path, flags):
    "The notebook as text, executed and clean."
    import nbformat
    nb = executed(path, flags)
    drop_widgets(nb)
    return cleaned(nbformat.writes(nb))


def main():
    ap = argparse.ArgumentParser(description="Execute notebooks in place and clean them.")
    ap.add_argument("notebooks", nargs="*", type=Path, help="paths; none: all under nbs/")
    ap.add_argument("--flags", nargs="+", default=[], help="run cells that carry these flags too, such as: slow")
    args = ap.parse_args()
    os.chdir(ROOT)
    os.environ |= {"K2NB_PROGRESS": "0", "TOKENIZERS_PARALLELISM": "false", "K2NB_DEMO_DIR": str(ROOT / "demo")}  # no bars in outputs
    from nbclient.exceptions import CellExecutionError, CellTimeoutError
    from nbdev.config import get_config
    flags, failed = set(get_config().tst_flags.split()) - set(args.flags), []
    for path in [p.resolve() for p in args.notebooks] or notebooks():
        if not path.is_file(): sys.exit(f"there is no notebook {path}")
        began = time.time()
        try: text = execute(path, flags)
        except (CellExecutionError, CellTimeoutError) as e:
            failed.append(name(path))
            print(f"FAIL  {name(path)}\n{e}", flush=True)
            continue
        path.write_text(text, encoding="utf-8")
        print(f"ok    {name(path):<28}{time.time() - began:6.1f} s", flush=True)
    return f"failed: {', '.join(failed)}" if failed else None


if __name__ == "__main__": sys.exit(main())
