"""How well PRLE predicts ratings, how true its accounts are, and what it costs.

    OMP_NUM_THREADS=2 python bench/prle.py                  # every section
    python bench/prle.py --only accuracy [--on test]        # STS-B and EmoBank by MiniLM, beside other regressors (needs the data folder)
    python bench/prle.py --only variants                    # other shapes of the local part, on the same data
    python bench/prle.py --only planted                     # ratings whose truth is known
    python bench/prle.py --only faithfulness                # leave-one-out against real refits, removal of influential rows
    python bench/prle.py --only cost                        # fitting, inference beside neighbours, experts beside a ModuleList
    python bench/prle.py --seeds 1 --quick                  # a smoke run, nothing written

Each section is a module `_prle_*.py` beside this file; each has a section of its own in bench/README.md.
"""
import argparse, os, sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "2")
os.environ["K2NB_PROGRESS"] = os.environ.get("K2NB_PROGRESS", "0")
sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from _report import table, write_section  # noqa: E402


def _accuracy(a) -> str:
    from _prle_accuracy import accuracy_text
    return accuracy_text(a.seeds, a.on, a.quick, a.only_ours)


def _variants(a) -> str:
    from _prle_variants import variants_text
    return variants_text(a.seeds, a.quick)


def _markdown(frame, digits: int = 3) -> str:
    "A frame as a Markdown table."
    said = lambda v: v if isinstance(v, str) else "" if v != v else f"{v:,}" if isinstance(v, int) else f"{v:,.{digits}f}"  # noqa: E731
    return table(list(frame), [[said(v) for v in row] for row in frame.astype(object).itertuples(index=False)])


def _planted(a) -> str:
    from _prle_planted import planted_table
    return (f"Default settings, {a.seeds} seeds, medians; mean squared errors on new rows. To reach: half of ridge's error removed where ratings are "
            f"piecewise linear, and at most 1.01 of ridge's where they are linear.\n\n{_markdown(planted_table(a.seeds, a.quick))}")


def _faithfulness(a) -> str:
    from _prle_faithfulness import faithfulness_table
    return (f"MiniLM embeddings, {a.seeds} seeds, medians. *r*: correlation of the predicted change of predictions, when a training row is left out, with that of a "
            "real refit: with gates and mean held (to reach: .99), and with everything fitted again (scaler, prototypes, gates). *Times more*: how far "
            "predictions move without the ten training rows of largest influence, beside ten random ones (to reach: 5).\n\n"
            f"{_markdown(faithfulness_table(a.seeds, a.quick))}")


def _cost(a) -> str:
    from _prle_cost import cost_table
    return ("Medians of turns in one run, 64 prototypes. To reach: a fit of 8,000 rows in 30 s, inference 20 times faster than brute-force neighbours, "
            f"experts 10 times faster than a ModuleList.\n\n{_markdown(cost_table(quick=a.quick))}")


SECTIONS = {"accuracy": ("Predicting ratings", _accuracy), "variants": ("Other local parts", _variants), "planted": ("Planted ratings", _planted),
            "faithfulness": ("Are the accounts of a prediction true?", _faithfulness), "cost": ("What PRLE costs", _cost)}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), metavar="SECTION", help=", ".join(SECTIONS))
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--on", default="dev", help="the split that is reported: files TASK_SPLIT_….npy")
    p.add_argument("--only-ours", action="store_true", help="no rivals but ridge; nothing written")
    p.add_argument("--quick", action="store_true", help="small counts, nothing written")
    a = p.parse_args()
    for name in a.only:
        title, run = SECTIONS[name]
        print(f"== {name}", flush=True)
        text = run(a)
        print(f"\n{text}\n", flush=True)
        command = f"python bench/prle.py --only {name}" + (f" --seeds {a.seeds}" if a.seeds != 3 else "")
        if not (a.quick or a.only_ours or a.on != "dev"): write_section(f"prle-{name}", title, command, text, ("scikit-learn", "scipy"))


if __name__ == "__main__":
    main()
