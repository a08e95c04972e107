"""What the explanation system survives, how much of an LLM's waiting it saves, and how well it explains real clusters.

    python bench/autointerp.py                        # every section
    python bench/autointerp.py --only faults          # a minute and a half: kills, many processes at once, full disks
    python bench/autointerp.py --only concurrency     # a scripted server on this machine
    python bench/autointerp.py --only real            # clusters of real models on real text
    python bench/autointerp.py --quick                # a smoke run, nothing written

Each section is a module `_autointerp_*.py` beside this file, with `TITLE`, `PACKAGES` (whose versions are told) and
`run(quick) -> str`, the section's text; it prints what it does as it goes. Each has a section of its own in bench/README.md.
"""
import argparse, importlib, os, sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")  # a forked process must not inherit threads
sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from _report import write_section  # noqa: E402

SECTIONS = {"faults": "_autointerp_faults", "concurrency": "_autointerp_llm", "real": "_autointerp_real"}  # name -> module


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), metavar="SECTION", help=", ".join(SECTIONS))
    p.add_argument("--quick", action="store_true", help="small counts, nothing written")
    a = p.parse_args()
    for name in a.only:
        section = importlib.import_module(SECTIONS[name])
        print(f"== {name}", flush=True)
        text = section.run(a.quick)
        print(f"\n{text}\n", flush=True)
        command = f"python bench/autointerp.py --only {name}"
        if not a.quick: write_section(f"autointerp-{name}", section.TITLE, command, text, section.PACKAGES)


if __name__ == "__main__": main()
