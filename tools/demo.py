"""Run the first tutorial in the terminal and say where its report is. Standard library only; the notebook does the work.

The code cells are executed one after the other in one namespace, with the repository as the working directory. A cell's last
expression is printed as a notebook would show it, where it has a text form. Cells marked `#| eval: false` or `#| slow` are
left out.
"""
import ast, json, linecache, os, re, sys, time, traceback, types
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "nbs" / "tutorials" / "01_activations.ipynb"
REPORT = ROOT / "demo" / "report.html"


def show(*values):
    "Print values as a terminal can show them; objects that have no text form are for the notebook and the report."
    for value in values:
        text = value.to_string() if hasattr(value, "to_string") else repr(value)  # a table whole, whatever the terminal's width
        if value is not None and not text.startswith("<"): print(text, flush=True)


def left_out(source):
    return re.search(r"\A(?:\s*#\s*\|.*\n)*?\s*#\s*\|\s*(?:eval:\s*false|slow)\b", source, re.I) is not None


def run_cell(source, title, namespace):
    "Execute a cell; tracebacks show its lines, because linecache is told about them."
    linecache.cache[title] = (len(source), None, source.splitlines(True), title)
    tree = ast.parse(source, title)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";") else None
    exec(compile(tree, title, "exec"), namespace)
    if last: show(eval(compile(ast.Expression(last.value), title, "eval"), namespace))


def close_figures():
    if "matplotlib.pyplot" in sys.modules: sys.modules["matplotlib.pyplot"].close("all")


def headings(source): return re.findall(r"^#{1,3} +(.+?)\s*$", re.sub(r"^```.*?^```", "", source, flags=re.M | re.S), re.M)


def main():
    began = time.time()
    if not NOTEBOOK.is_file(): return f"the demo runs {NOTEBOOK.relative_to(ROOT)}, and it is not there"
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    os.chdir(ROOT)
    os.environ |= {"MPLBACKEND": "agg", "K2NB_DEMO_DIR": str(REPORT.parent), "TOKENIZERS_PARALLELISM": "false"}
    sys.path[0] = str(ROOT)  # what the notebook imports is the library, not the tools
    module = types.ModuleType("k2nb_demo")
    sys.modules[module.__name__] = module  # dataclasses and pickles look their module up by name
    module.display = show
    for i, cell in enumerate(cells):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            for heading in headings(source): print(f"[{time.time() - began:5.1f} s] {heading}", flush=True)
        elif cell["cell_type"] == "code" and source.strip() and not left_out(source):
            try: run_cell(source, f"{NOTEBOOK.name}, cell {i}", vars(module))
            except Exception as e:
                while e.__traceback__ and e.__traceback__.tb_frame.f_code.co_filename == __file__: e.__traceback__ = e.__traceback__.tb_next
                traceback.print_exception(e)
                return f"\nthe demo stopped in cell {i} of {NOTEBOOK.relative_to(ROOT)}; the lines above say why"
            close_figures()
    if not REPORT.is_file() or REPORT.stat().st_mtime < began - 1: return f"the demo ended without writing {REPORT}"
    print(f"[{time.time() - began:5.1f} s] done. Open the report in a browser:\n{REPORT}", flush=True)
    return None


if __name__ == "__main__":
    try: sys.exit(main())
    except KeyboardInterrupt: sys.exit("\nstopped")
