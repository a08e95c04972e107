"""Build the package as its users get it, install it in an empty environment, and import all of it there.

    python tools/check_wheel.py [RESULT.json]

The tree is copied first, so that nothing is left in it. Source distribution and wheel are both built, the wheel from the
source distribution; run-time dependencies only are installed, with constraints.txt.
"""
import json, os, shutil, subprocess, sys, tempfile, zipfile
from pathlib import Path

from checks import ROOT, git, in_git

INSIDE = r'''
import importlib, importlib.util, json, pkgutil, subprocess, sys, time, warnings

def seconds(code, times=5):
    def once():
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began
    return min(once() for _ in range(times))

extra = seconds("import k2nb") - seconds("pass")
assert extra < .5, f"import k2nb takes {extra:.2f} s; something heavy is imported at the top"
for name in ("nbdev", "fastcore", "execnb"):
    assert importlib.util.find_spec(name) is None, f"{name} came along with the run-time dependencies"
import k2nb
assert "site-packages" in k2nb.__file__, f"k2nb was imported from {k2nb.__file__}, not from the wheel"
def broken(name): raise ImportError(f"{name} does not import")
modules = [m.name for m in pkgutil.walk_packages(k2nb.__path__, "k2nb.", onerror=broken)]
for name in modules: importlib.import_module(name)
if "k2-tiny" in sys.argv[1:]:
    from k2nb.models import load_model
    load_model("k2-tiny")
print(json.dumps({"extra": extra, "modules": len(modules)}))
'''


class Refused(Exception):
    "The wheel is not as it should be; the message says how."


def run(what, *command, **kw):
    "Run a command; its output, or `Refused` with the end of it."
    p = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                       text=True, **kw)
    if p.returncode: raise Refused(f"{what} failed:\n" + "\n".join(p.stdout.splitlines()[-40:]))
    return p.stdout


def tree():
    "Paths of the files that belong to the project: what git knows or would add; without git, what is not litter."
    if in_git(): return sorted(f for f in git("ls-files", "-co", "--exclude-standard") if (ROOT / f).is_file())
    litter = {".venv", ".git", "__pycache__", "build", "dist", "demo", "_proc", ".ruff_cache", ".ipynb_checkpoints"}
    files = (p.relative_to(ROOT) for p in ROOT.rglob("*") if p.is_file())
    return sorted(f.as_posix() for f in files if not any(part in litter or part.endswith(".egg-info") for part in f.parts))


def build(temp):
    "The wheel's path."
    for f in tree():
        if f.startswith(("nbs/", "bench/", "docs/")): continue  # large, and they play no part
        (temp / "tree" / f).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / f, temp / "tree" / f)
    run("building", sys.executable, "-m", "build", "--outdir", temp / "dist", temp / "tree", cwd=temp)
    wheels = list((temp / "dist").glob("*.whl"))
    if len(wheels) != 1: raise Refused(f"one wheel expected, got {[w.name for w in wheels]}")
    return wheels[0]


def contents(wheel):
    "Names of the package's files in the wheel, after checking that they are all there and alone."
    with zipfile.ZipFile(wheel) as z:
        names = {n for n in z.namelist() if not n.endswith("/")}
        facts = z.read(next(n for n in names if n.endswith(".dist-info/METADATA"))).decode()
    mine = {f for f in tree() if f.startswith("k2nb/")}
    if missing := sorted(mine - names): raise Refused(f"not in the wheel: {', '.join(missing)}")
    strange = sorted(n for n in names - mine if not n.split("/")[0].endswith(".dist-info"))
    if strange: raise Refused(f"in the wheel, and not of the package: {', '.join(strange[:10])}")
    needs = [line for line in facts.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    if dev := [n for n in needs if "nbdev" in n or "fastcore" in n]: raise Refused(f"run-time dependencies name {dev}")
    if "License-Expression: Apache-2.0" not in facts and "License: Apache-2.0" not in facts: raise Refused("the wheel names no license")
    return mine


def main():
    with tempfile.TemporaryDirectory(prefix="k2nb-wheel-") as name:
        temp = Path(name)
        wheel = build(temp)
        files = contents(wheel)
        run("making an empty environment", sys.executable, "-m", "venv", "--without-pip", temp / "venv")
        python = temp / "venv" / "bin" / "python"
        # --no-compile: only what is imported gets compiled, when it is, which saves half of the time
        run("pip install", sys.executable, "-m", "pip", "--python", python, "install", "--no-compile", "--no-input",
            "--progress-bar", "off", "--disable-pip-version-check", "-c", ROOT / "constraints.txt", wheel)
        (temp / "elsewhere").mkdir()
        (temp / "inside.py").write_text(INSIDE)
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(temp / "hub")}
        tiny = ["k2-tiny"] if any(f.startswith("k2nb/data/k2-tiny/") for f in files) else []
        said = run("using the installed wheel", python, "-I", temp / "inside.py", *tiny, cwd=temp / "elsewhere", env=env)
        told = json.loads(said.splitlines()[-1])
        size = wheel.stat().st_size / 1e6
    loads = ", k2-tiny loads" if tiny else ""
    return f"{size:.1f} MB, {told['modules']} modules, import k2nb {max(0, told['extra']) * 1000:.0f} ms{loads}"


if __name__ == "__main__":
    try: told = {"passed": True, "note": main()}
    except Refused as e: told = {"passed": False, "note": ""}; print(e)
    if sys.argv[1:]: Path(sys.argv[1]).write_text(json.dumps(told))
    elif told["note"]: print(told["note"])
    sys.exit(0 if told["passed"] else 1)
