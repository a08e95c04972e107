"""How well SAE features are inverted, clustered and reconstructed, beside chance, the corpus and the search as it was published.

    python bench/sae.py                      # every section
    python bench/sae.py --only inversion     # prompts for features of the packaged SAE of k2-tiny's last block
    python bench/sae.py --only stories       # the same on stories260K (needs the data folder)
    python bench/sae.py --only clusters      # planted families, planted classes, 16k and 65k features
    python bench/sae.py --only quality       # the SAEs themselves
    python bench/sae.py --seeds 1 --features 8 --quick   # a smoke run, nothing written

Each section is a module `_sae_*.py` beside this file; each has a section of its own in bench/README.md.
"""
import argparse, os, sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "2")
os.environ["K2NB_PROGRESS"] = os.environ.get("K2NB_PROGRESS", "0")
sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from _report import write_section  # noqa: E402


def _inversion(a) -> str:
    from _sae_inversion import tiny_text
    return tiny_text(a.seeds, a.features, a.quick)


def _stories(a) -> str:
    from _sae_inversion import stories_text
    return stories_text(a.seeds, a.features, a.quick)


def _clusters(a) -> str:
    from _sae_clusters import cluster_text
    return cluster_text(a.seeds, a.quick)


def _quality(a) -> str:
    from _sae_quality import quality_text
    return quality_text(a.seeds, a.quick)


SECTIONS = {"inversion": ("Inverting SAE features", _inversion), "stories": ("Inverting SAE features of stories260K", _stories),
            "clusters": ("Families of SAE features", _clusters), "quality": ("The SAEs", _quality)}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), metavar="SECTION", help=", ".join(SECTIONS))
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--features", type=int, default=32, help="features a seed")
    p.add_argument("--quick", action="store_true", help="small counts, nothing written")
    a = p.parse_args()
    for name in a.only:
        title, run = SECTIONS[name]
        print(f"== {name}", flush=True)
        text = run(a)
        print(f"\n{text}\n", flush=True)
        command = f"python bench/sae.py --only {name}" + (f" --seeds {a.seeds}" if a.seeds != 3 else "")
        if not a.quick: write_section(f"sae-{name}", title, command, text, ("sae-lens", "scikit-learn"))


if __name__ == "__main__": main()
