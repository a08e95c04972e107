"""How well k2nb's heads classify, beside LogisticRegressionCV, an RBF-SVM, HistGradientBoosting and the recipe of the original.

    OMP_NUM_THREADS=1 python bench/heads.py                 # about half an hour on two cores; writes the section of bench/README.md
    OMP_NUM_THREADS=1 python bench/heads.py --quick         # a smoke run: three small tasks, one seed, nothing written
    python bench/heads.py --tasks wine digits --only lr ours --seeds 1   # a part; nothing written

Results are kept in the cache folder, under what they depend on (the task, the contestant's code, the libraries), so that a run that was
interrupted goes on, and one after a change computes only what changed. Tasks whose data is not there are left out, with the reason.
"""
import argparse, multiprocessing, os, sys, tempfile, time, warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"): os.environ.setdefault(_name, "1")

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

from _head_rivals import CONTESTANTS, OURS, fingerprint, macro_auc, splits
from _head_tasks import TASKS, MissingTask, Task, default_cache, load

FOLDS = 5
LONG = ("minilm roles stacked", "minilm speech stacked")  # some twenty minutes each: run where --tasks names them
QUICK = ("wine", "linear 300x2304", "k2-tiny pair stacked")
MAIN = ("lr", "lr-accuracy", "svm", "svm-tuned", "boosting", "recipe", "ours")  # on every task but the stacked
ABLATED = ("linear 300x2304", "xor features", "xor directions", "k2-tiny concept", "minilm roles")
ABLATIONS = ("no anchor", "from logistic", "no interactions", "seed sizes", "one member")  # the first seed only
STACKED = ("lr", "lr-accuracy", "svm", "recipe", "recipe-cnn", "ours", "cnn", "cnn, one, no anchor")  # the first seed only
# rival -> its contestants, of which the stronger counts
WAYS = {"LogReg": ("lr", "lr-accuracy"), "SVC": ("svm", "svm-tuned"), "HistGB": ("boosting",), "recipe": ("recipe",)}

HOW = """Macro ROC-AUC (one class against the rest, averaged over classes) on the held-out fold, {folds} folds, {seeds}: a seed
draws the folds, the same for all, and is the contestants' own. Stratified; where rows have groups (abstracts, documents) a group is never
torn apart, nor in what is held out inside a contestant (the recipe's split alone knows no groups). Means over folds and seeds (HistGB, and
SVC but on the XOR tasks: the first seed only, since they take long); the best of a row is bold. *Shuffled*: k2nb's head on labels in
another order, first seed, which must be .5. CPU seconds are of one fit, tuning included, on one thread.

- **LogReg**: LogisticRegressionCV after a StandardScaler, ten C from 1e-4 to 1e4, five inner folds, `max_iter=100`, l2; C chosen by log
  loss, and by accuracy (scikit-learn 1.9's default).
- **SVC** after a StandardScaler: its defaults, and C from .1, 1, 10, 100 and γ from .1, .3, 1, 3 times its `gamma="scale"` chosen by macro
  AUC over three inner folds. Scores are those of `decision_function`, which counts votes of pairs where there are more than two classes.
- **HistGB**: HistGradientBoostingClassifier with its defaults.
- **recipe**: that of the original, what pingkit's `cross_validate` does in a fold with its defaults; see `bench/_head_rivals.py`.
- **k2nb**: `HeadClassifier` with its defaults."""
INTERVALS = """Differences of k2nb's head to the stronger way of each rival, fold by fold. The 95 % interval is that of the corrected
resampled t-test (Nadeau and Bengio 2003): folds share their training rows, and an interval that forgot it would be about half as wide. To
be reached: at least LogReg − .005 on every task, at least SVC − .01 on the XOR tasks, ahead of the recipe on every one."""
CNN = """Several layers and parts at once (first seed; seconds of a fit in brackets). The CNN sees them as (layers, parts, hidden), the
others as one flat row:"""


class Cell(list):
    "What one contestant got on one task: a dict of auc, accuracy, loss and seconds for each fold of each seed."
    def mean(self, what: str = "auc") -> float:
        found = [f[what] for f in self if f[what] is not None]
        return float(np.mean(found)) if found else float("nan")


@cache
def task_of(name: str, folder: str, quick: bool) -> Task:
    "A task, loaded once in a process."
    t = load(name, folder)
    if not quick or len(t.y) <= 200: return t
    keep = np.sort(np.random.default_rng(0).permutation(len(t.y))[:200])
    return t._replace(X=t.X[keep], y=t.y[keep], groups=None if t.groups is None else t.groups[keep])


def cross_entropy(fitted, X, y) -> float | None:
    "Mean of −log of what is given to the true class, or None where there are no probabilities."
    if fitted.proba is None: return None
    p = np.asarray(fitted.proba(X), np.float64)
    return float(-np.log(np.clip(p / p.sum(1, keepdims=True), 1e-12, 1))[np.arange(len(y)), np.searchsorted(fitted.classes, y)].mean())


def run(name: str, key: str, seed: int, shuffled: bool, folder: str, quick: bool) -> list[dict]:
    "Fit a contestant on each training part, judge it on the rest."
    t = task_of(name, folder, quick)
    y = np.random.default_rng([9, seed]).permutation(t.y) if shuffled else t.y
    out = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="lbfgs failed to converge|.*[Tt]otal no. of iterations")
        for train, test in splits(y, t.groups, FOLDS, seed):
            begin = time.process_time()
            fitted = CONTESTANTS[key].fit(t.X[train], y[train], None if t.groups is None else t.groups[train], t.meta, seed)
            seconds = time.process_time() - begin
            auc, right = macro_auc(y[test], fitted.scores(t.X[test]), fitted.classes), float(np.mean(fitted.predict(t.X[test]) == y[test]))
            out.append({"auc": auc, "accuracy": right, "loss": cross_entropy(fitted, t.X[test], y[test]), "seconds": seconds})
    return out


def ready_worker() -> None:
    "Import the heads at once, so that what a worker runs is what stood there when the results' names were made."
    import torch

    import k2nb.heads.estimator  # noqa: F401
    torch.set_num_threads(1)


def same_as_default(key: str) -> bool:
    "Whether a variant of the head is what it is anyway."
    from k2nb.heads.estimator import HeadClassifier
    settings, default = OURS[key].settings, HeadClassifier().get_params()
    return bool(settings) and all(default[k] == v for k, v in settings.items())


def seeds_of(name: str, key: str, seeds: int) -> int:
    "How many seeds a contestant gets on a task: the first alone where it takes long and is no rival that must be reached."
    once = name.endswith("stacked") or key in ("boosting", "recipe") or (key.startswith("svm") and "xor" not in name)
    return 1 if once else seeds


def plan(tasks, seeds: int, only) -> list[tuple]:
    "(task, contestant, seed, shuffled) of everything that is to be run."
    out = []
    for name in tasks:
        stacked = name.endswith("stacked")
        out += [(name, key, s, False) for key in (STACKED if stacked else MAIN) for s in range(seeds_of(name, key, seeds))]
        if not stacked: out.append((name, "ours", 0, True))
        if name in ABLATED: out += [(name, key, 0, False) for key in ABLATIONS]
    out = [u for u in out if only is None or u[1] in only]
    out = [u for u in out if u[1] not in OURS or not same_as_default(u[1])]
    return sorted(out, key=lambda u: (u[0].endswith("stacked"), u[1] != "ours"))  # what is most looked at first


def collect(units, folder: Path, quick: bool, jobs: int):
    "({(task, contestant, shuffled): Cell}, failures): from the cache, or computed and kept there."
    from k2nb.core import hash_array, hash_json, read_json, write_json
    kept, ready, todo = folder/"results", {}, {}
    kept.mkdir(parents=True, exist_ok=True)
    hashes = {n: hash_json([hash_array(t.X), t.y.tolist(), None if t.groups is None else t.groups.tolist(), t.meta])
              for n in dict.fromkeys(u[0] for u in units) for t in [task_of(n, str(folder), quick)]}
    keys = {k: fingerprint(k) for k in dict.fromkeys(u[1] for u in units)}
    for u in units:
        path = kept/f"{hash_json([hashes[u[0]], keys[u[1]], *u, FOLDS])[:24]}.json"
        if path.exists(): ready[u] = read_json(path, 1)["folds"]
        else: todo[u] = path
    print(f"{len(ready)} results from the cache, {len(todo)} to compute", flush=True)
    failed = []
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=ready_worker) as pool:
        futures = {pool.submit(run, *u, str(folder), quick): u for u in todo}
        for f in as_completed(futures):
            u = futures[f]
            try: ready[u] = f.result()
            except Exception as e:
                failed.append(f"{u[0]}, {u[1]}, seed {u[2]}: {type(e).__name__}: {e}")
                print(failed[-1], flush=True)
                continue
            write_json(todo[u], {"unit": list(u), "folds": ready[u]}, 1)
            c = Cell(ready[u])
            print(f"{u[0]}, {u[1]}{' (shuffled)' * u[3]}, seed {u[2]}: AUC {c.mean():.4f}, {c.mean('seconds'):.1f} s a fit", flush=True)
    cells: dict = {}
    for u in units:
        if u in ready: cells.setdefault((u[0], u[1], u[3]), Cell()).extend(ready[u])
    return cells, failed


def difference(a: Cell, b: Cell, what: str = "auc") -> tuple[float, float]:
    "Mean of a − b over the folds that both have, and half of its 95 % interval (corrected resampled t-test)."
    from scipy.stats import t
    d = np.array([x[what] - z[what] for x, z in zip(a, b)])
    if len(d) < 2: return float(d.mean()), float("nan")
    return float(d.mean()), float(t.ppf(.975, len(d) - 1) * d.std(ddof=1) * (1 / len(d) + 1 / (FOLDS - 1)) ** .5)


def stronger(cells, name: str, rival: str):
    "The way in which a rival has the higher mean AUC, or None where it was not run."
    there = [cells[name, k, False] for k in WAYS[rival] if (name, k, False) in cells]
    return max(there, key=Cell.mean) if there else None


def number(x: float, form: str = ".3f") -> str: return "" if x != x else format(x, form)


def rows_of(cells, tasks, keys, what: str = "auc", form: str = ".3f", best=max) -> list[list]:
    "A row a task, a column a contestant; the best one bold where `best` says which that is."
    out = []
    for name in tasks:
        means = [cells[name, k, False].mean(what) if (name, k, False) in cells else float("nan") for k in keys]
        texts = [number(m, form) for m in means]
        if best is not None and any(texts):
            top = number(best(m for m in means if m == m), form)
            texts = [f"**{s}**" if s == top else s for s in texts]
        out.append([name, *texts])
    return out


def sizes(t: Task) -> str:
    counts = np.unique(t.y, return_counts=True)[1]
    return f"{len(t.y):,} × {t.X.shape[1]:,}, {len(counts)} classes"


def difference_rows(cells, tasks) -> list[list]:
    "Ours less each rival, and whether what was to be reached was."
    out = []
    for name in tasks:
        if not (ours := cells.get((name, "ours", False))): continue
        line, missed = [name], []
        for rival in WAYS:
            if (other := stronger(cells, name, rival)) is None: line.append(""); continue
            mean, half = difference(ours, other)
            line.append(f"{mean:+.4f} ± {half:.4f}")
            if (rival == "LogReg" and mean < -.005) or (rival == "SVC" and "xor" in name and mean < -.01) \
                or (rival == "recipe" and mean <= 0): missed.append(rival)
        out.append([*line, "yes" if not missed else "missed: " + ", ".join(missed)])
    return out


def report(cells, tasks: dict, seeds: int, failed, missing) -> str:
    "The section: every table that there is something for."
    from _report import table
    flat, stacked = [n for n in tasks if not n.endswith("stacked")], [n for n in tasks if n.endswith("stacked")]
    names = {k: c.name for k, c in CONTESTANTS.items()}
    main = [k for k in MAIN if any((n, k, False) in cells for n in flat)]
    parts = [HOW.format(folds=FOLDS, seeds=f"{seeds} seed{'s' * (seeds > 1)}"), "\n".join(f"- *{n}*: {t.what}." for n, t in tasks.items())]
    if flat and main:
        rows = []
        for line in rows_of(cells, flat, main):
            t, control = tasks[line[0]], cells.get((line[0], "ours", True))
            rows.append([line[0], sizes(t), number(t.ceiling or float("nan")), *line[1:], number(control.mean()) if control else ""])
        parts.append(table(["macro ROC-AUC", "rows × features", "of the rule", *(names[k] for k in main), "shuffled"], rows))
        if (rows := difference_rows(cells, flat)): parts += [INTERVALS, table(["k2nb less", *WAYS, "reached"], rows)]
        parts += ["CPU seconds of a fit:", table(["task", *(names[k] for k in main)], rows_of(cells, flat, main, "seconds", ".2f", None))]
        parts += ["Accuracy:", table(["task", *(names[k] for k in main)], rows_of(cells, flat, main, "accuracy"))]
        with_proba = [k for k in main if not k.startswith("svm")]
        parts += ["Cross-entropy:", table(["task", *(names[k] for k in with_proba)], rows_of(cells, flat, with_proba, "loss", ".3f", min))]
    if (variants := [k for k in ABLATIONS if any((n, k, False) in cells for n in flat)]):
        first = {(n, "ours", False): Cell(cells[n, "ours", False][:FOLDS]) for n in flat if (n, "ours", False) in cells}
        shown = {**cells, **first}
        same, varied = [k for k in ABLATIONS if same_as_default(k)], [n for n in flat if any((n, k, False) in cells for k in variants)]
        columns = ["ours", *variants]
        parts += ["What the parts of the head are worth (first seed; seconds of a fit in brackets)"
                  + (f". Its default is: {', '.join(same)}:" if same else ":"),
                  table(["macro ROC-AUC", *("default" if k == "ours" else k for k in columns)],
                        [[line[0], *(f"{s} ({sec})" if s else "" for s, sec in zip(line[1:], seconds[1:]))] for line, seconds
                         in zip(rows_of(shown, varied, columns), rows_of(shown, varied, columns, "seconds", ".1f", None))])]
    if (keys := [k for k in STACKED if any((n, k, False) in cells for n in stacked)]):
        rows = []
        for line, seconds in zip(rows_of(cells, stacked, keys), rows_of(cells, stacked, keys, "seconds", ".1f", None)):
            pair = [cells.get((line[0], k, False)) for k in ("cnn", "ours")]
            gap = "{:+.4f} ± {:.4f}".format(*difference(*pair)) if all(pair) else ""
            rows.append([line[0], sizes(tasks[line[0]]), *(f"{s} ({sec})" if s else "" for s, sec in zip(line[1:], seconds[1:])), gap])
        parts += [CNN, table(["macro ROC-AUC", "rows × features", *(names[k] for k in keys), "CNN less MLP"], rows)]
    parts += [f"Not run: {why}" for why in missing] + [f"Failed: {why}" for why in failed]
    return "\n\n".join(parts)


def main() -> int:
    "Run what is asked for, print it, and write the section if it is whole."
    from _report import write_section
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run; writes nothing")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), metavar="TASK", help=f"a part of: {', '.join(TASKS)}; writes nothing")
    parser.add_argument("--only", nargs="+", choices=list(CONTESTANTS), metavar="CONTESTANT",
                        help=f"a part of: {', '.join(CONTESTANTS)}; writes nothing")
    parser.add_argument("--seeds", type=int, default=3, help="how many times the folds are drawn anew")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder of activations and results")
    a, began = parser.parse_args(), time.perf_counter()
    seeds, folder = 1 if a.quick else a.seeds, a.cache
    with tempfile.TemporaryDirectory() as scratch:
        if a.quick: folder = Path(scratch)
        tasks, missing = {}, []
        for name in a.tasks or (QUICK if a.quick else [t for t in TASKS if t not in LONG]):
            try: tasks[name] = task_of(name, str(folder), a.quick)
            except MissingTask as why: missing.append(f"{name}, because {why}"); print(missing[-1], flush=True)
        cells, failed = collect(plan(tasks, seeds, a.only), folder, a.quick, a.jobs)
    text = report(cells, tasks, seeds, failed, missing)
    print(f"\n{text}\n\n{time.perf_counter() - began:.0f} s in all")
    if not (a.quick or a.tasks or a.only or failed):
        write_section("heads", "Heads: quality of classification", "OMP_NUM_THREADS=1 python bench/heads.py", text, ("scikit-learn",))
    return len(failed)


if __name__ == "__main__": sys.exit(main())
