"""The site's tests, as tools/test.py runs them: python tools/site/check.py bridge|build|browser RESULT"""
import json, shutil, sys
from pathlib import Path

import browser, builder
from builder import ROOT, WORK

FRESH = WORK / "checked"  # built here, so that a test never writes to docs/


def bridged():
    "The bridge, on small notebooks."
    import selftest
    return None, f"{selftest.run()} tests"


def built():
    "Build the site anew: no warning, no gap, no broken link. That docs/ was built from these sources is for tools/checks.py to say."
    quarto = {p: p.read_text() for p in (ROOT / "nbs").glob("*.yml")}
    shutil.rmtree(FRESH, ignore_errors=True)
    builder.build(FRESH)
    changed = [p.name for p in (ROOT / "nbs").glob("*.yml") if quarto.get(p) != p.read_text()]
    if changed: return f"nbs/{', nbs/'.join(changed)} did not list what there is; written anew: look and commit", ""
    size = sum(p.stat().st_size for p in builder.pages(FRESH))
    if size > 15e6: return f"the site has {size / 1e6:.1f} MB; 15 is the most", ""
    docs = ROOT / "docs"
    there = {p.relative_to(docs): p.read_bytes() for p in builder.pages(docs)}
    other = [p for p in builder.pages(FRESH) if there.get(p.relative_to(FRESH)) != p.read_bytes()]
    # figures and pictures can differ in their last digit between kinds of machine, so a difference is told and is no failure
    return None, f"{len(other)} files differ from docs/: {', '.join(p.name for p in other[:3])}" if other else ""


def browsed():
    "The fresh site in a browser, where there is one."
    if why := browser.missing(): return None, why
    found = browser.faults(FRESH)
    return "\n".join(found) or None, ""


if __name__ == "__main__":
    what, result = sys.argv[1:]
    reason, note = {"bridge": bridged, "build": built, "browser": browsed}[what]()
    if reason: print(reason)
    told = {"passed": not reason, "note": note, "skipped": what == "browser" and bool(note)}
    Path(result).write_text(json.dumps(told), encoding="utf-8")
