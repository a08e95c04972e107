"""How good k-means is for how much CPU time, beside scikit-learn's KMeans and MiniBatchKMeans, and faiss.

    OMP_NUM_THREADS=1 python bench/kmeans.py            # about 7 minutes; writes the section of bench/README.md
    OMP_NUM_THREADS=1 python bench/kmeans.py --quick    # a smoke run: few rows, two seeds, nothing written

Real vectors are read from ../shared/data (or $K2NB_DATA); without them that table is left out, with the reason.
"""
import argparse, importlib.util, json, os, subprocess, sys, tempfile, time, warnings
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

OURS = "k2nb `KMeansQuantizer`"
MINI = "scikit-learn `MiniBatchKMeans`"
CONTESTANTS = {  # name -> (what the table calls it, k2nb's own parameters or None)
    "k2nb": (OURS, {}),
    "k2nb-3": (f"{OURS}, `n_init=3`", {"n_init": 3}),
    "k2nb-noswap": (f"{OURS}, `swaps=0`", {"swaps": 0}),
    "k2nb-random": (f"{OURS}, `init=\"random\", swaps=0`", {"init": "random", "swaps": 0}),
    "k2nb-mini": (f"{OURS}, `algorithm=\"minibatch\"`", {"algorithm": "minibatch"}),
    "mini": (f"{MINI}, defaults", None),
    "mini-3": (f"{MINI}, `n_init=3`", None),
    "faiss": ("faiss `Kmeans`, defaults", None),
    "kmeans": ("scikit-learn `KMeans`, `n_init=1`", None),
}
CORE = ("k2nb", "mini", "faiss", "kmeans")  # run on every set; the others, which show what a parameter does, on two
VARIED = ("separated", "overlapping")
SETS = {  # name -> what it is
    "separated": "centres N(0, I), noise N(0, I), equal shares",
    "close": "centres N(0, I/4): twice as near",
    "crowded": "centres N(0, .35² I): about as near as 10⁵ rows can tell apart",
    "overlapping": "centres and noise with the spectrum 1/√i, so that clusters overlap in the directions that matter",
    "unequal": "centres N(0, I), shares from 1 to 30 (log-uniform)",
    "very unequal": "centres N(0, I), shares from Dirichlet(1): the least clusters have under ten rows",
}

HOW = """Mean ± half a 95 % interval. CPU seconds are of the process, labels of all rows included. Inertia is computed by one
piece of code for all, and divided by the least that any contestant has for the same rows. \\* fitted for the first
seed only, since it takes long. What a parameter does is shown on two kinds of sets. MiniBatchKMeans' defaults:
`batch_size=1024, max_iter=100, max_no_improvement=10, n_init="auto"` (one k-means++ start on 3072 rows). CPU ratios:
median over seeds, with a 95 % interval."""
AIMS = "To be reached: inertia within 2 % of the best, ARI at least MiniBatchKMeans', less CPU time than it. Reached or not"
UNEQUAL = """Where sizes are very unequal, the least inertia is not the planted partition: cutting a large cluster of noise in two
gains more than telling two of a few rows apart. There a lower inertia goes with a lower ARI."""
OTHERS = """Other distances: 20,000 rows, d=64, k=64. Cosine: directions planted, lengths log-normal. l1: planted centres, noise
of Student's t with 1.5 degrees of freedom. Inertia per row in the set's own distance:"""
OUTSIDE = """Out of core: float32 rows on disk, read shard by shard, none kept. Growth is peak resident memory over that of the
same process after a small fit:"""


def planted(name: str, seed: int, n: int, d: int, k: int):
    "Rows of a planted mixture, and which component each is of."
    g = np.random.default_rng([seed, list(SETS).index(name)])
    share, size = np.full(k, 1 / k), {"close": .5, "crowded": .35}.get(name, 1.)
    if name == "unequal": share = np.exp(g.uniform(0, np.log(30), k))
    if name == "very unequal": share = g.dirichlet(np.ones(k))
    scale = np.arange(1, d + 1, dtype=np.float32) ** -.5 if name == "overlapping" else np.ones(d, np.float32)
    truth = g.choice(k, size=n, p=share / share.sum())
    x = g.standard_normal((n, d), dtype=np.float32) * scale
    x += (g.standard_normal((k, d), dtype=np.float32) * scale * np.float32(size))[truth]
    return x, truth


def fitted(name: str, x, k: int, seed: int, metric: str = "l2"):
    "Centroids by one contestant, labels and all, and the CPU seconds it took."
    from sklearn.cluster import KMeans, MiniBatchKMeans

    from k2nb.quantize import KMeansQuantizer
    begin = time.process_time()
    if name.startswith("k2nb"): C = KMeansQuantizer(k, metric, seed, device="cpu", **CONTESTANTS[name][1]).fit(x).cluster_centers_
    elif name == "kmeans": C = KMeans(k, n_init=1, random_state=seed).fit(x).cluster_centers_
    elif name == "mini": C = MiniBatchKMeans(k, random_state=seed).fit(x).cluster_centers_
    elif name == "mini-3": C = MiniBatchKMeans(k, random_state=seed, n_init=3).fit(x).cluster_centers_
    else:
        import faiss
        model = faiss.Kmeans(x.shape[1], k, seed=seed + 1)
        model.train(x)
        model.index.search(x, 1)  # the labels, which the others' fit gives
        C = model.centroids
    return np.asarray(C, np.float32), time.process_time() - begin


def judged(x, C, metric: str = "l2"):
    "Inertia per row and labels, by the same code for all."
    from scipy.spatial.distance import cdist
    if metric == "l1":
        near = [(far.min(1), far.argmin(1)) for far in (cdist(x[a:a + 2000], C, "cityblock") for a in range(0, len(x), 2000))]
        return np.concatenate([v for v, _ in near]).mean(), np.concatenate([v for _, v in near])
    if metric == "cosine": x, C = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, C))
    cost, labels, squares = 0., [], (C * C).sum(1)
    for a in range(0, len(x), 8192):
        b = x[a:a + 8192]
        labels.append((squares - 2 * b @ C.T).argmin(1))
        cost += float(((b - C[labels[-1]]) ** 2).sum(dtype=np.float64))
    return cost / len(x) / (2 if metric == "cosine" else 1), np.concatenate(labels)


def interval(values) -> str:
    "Mean and the half-width of its 95 % interval (Student's t)."
    from scipy.stats import t
    values = np.asarray(values, float)
    if len(values) < 2: return f"{values.mean():.3f}"
    return f"{values.mean():.3f} ± {t.ppf(.975, len(values) - 1) * values.std(ddof=1) / len(values) ** .5:.3f}"


def compare(sets, contestants, seeds: int, once=(), metric: str = "l2"):
    "{set: {contestant: [(inertia, ARI or None, CPU seconds), …]}}; `sets` is name -> call(seed) -> (x, truth, k)."
    from sklearn.metrics import adjusted_rand_score
    found = {}
    for name, make in sets.items():
        for seed in range(seeds):
            x, truth, k = make(seed)
            for who in contestants:
                if (who in once and seed) or (who not in CORE and name not in VARIED and truth is not None): continue
                C, seconds = fitted(who, x, k, seed, metric)
                cost, labels = judged(x, C, metric)
                score = None if truth is None else adjusted_rand_score(truth, labels)
                found.setdefault(name, {}).setdefault(who, []).append((cost, score, seconds))
            print(name, seed, {w: tuple(round(v, 3) for v in f[-1] if v is not None) for w, f in found[name].items()}, flush=True)
    return found


def rows_of(found, ratio) -> list:
    "Table rows: inertia over the best of that seed's contestants, ARI, CPU seconds, CPU over MiniBatchKMeans'."
    out = []
    for name, by in found.items():
        best = [min(f[s][0] for f in by.values() if s < len(f)) for s in range(max(map(len, by.values())))]
        for who, f in by.items():
            cpu, peer = [v[2] for v in f], [v[2] for v in by["mini"][:len(f)]]
            against = "" if who == "mini" else "{:.2f} ({:.2f}–{:.2f})".format(*ratio(cpu, peer))
            cost, score = interval([v[0] / b for v, b in zip(f, best)]), "" if f[0][1] is None else interval([v[1] for v in f])
            out.append([name, CONTESTANTS[who][0] + (" \\*" if len(f) < len(best) else ""), cost, score, interval(cpu), against])
    return out


def verdict(found) -> str:
    "What was to be reached, set by set, in words."
    lines = []
    for name, by in found.items():
        mean = {w: np.mean([v[0] for v in f]) for w, f in by.items()}
        best = [min(f[s][0] for f in by.values() if s < len(f)) for s in range(len(by["k2nb"]))]
        over = np.mean([v[0] / b for v, b in zip(by["k2nb"], best)]) - 1
        cpu, peer = (np.mean([v[2] for v in by[w]]) for w in ("k2nb", "mini"))
        parts = [f"inertia {over:.1%} above the best{'' if over <= .02 else ' (missed: over 2 %)'}",
                 f"CPU {cpu / peer:.2f} of MiniBatchKMeans'{'' if cpu < peer else ' (missed)'}"]
        if by["k2nb"][0][1] is not None:
            ours, theirs = (np.mean([v[1] for v in by[w]]) for w in ("k2nb", "mini"))
            parts.insert(1, f"ARI {ours:.3f} beside {theirs:.3f}{'' if ours >= theirs - 5e-4 else ' (missed)'}")
        assert np.isfinite(list(mean.values())).all()
        lines.append(f"- {name}: {'; '.join(parts)}.")
    return "\n".join(lines)


def real_sets(quick: bool):
    "name -> call(seed) -> (vectors, None, k); or the reason why there are none."
    data = Path(os.environ.get("K2NB_DATA", HERE.parent.parent/"shared"/"data"))
    if not (data/"stories260K").is_dir(): return {}, f"no real vectors: {data.name}/stories260K is not there (K2NB_DATA names the folder)"
    from k2nb.embedding import embed_dataset
    texts = _sentences(data/"ud-english-ewt"/"train.conllu")
    with tempfile.TemporaryDirectory() as folder:
        store = embed_dataset(texts[:300 if quick else 2000], model_name=data/"stories260K", output_dir=f"{folder}/store", layers=[2],
                              pooling="none", progress=False)
        x = np.array(store.vectors(2, "rs")[~store.rows["special"].to_numpy(bool)], np.float32)
    return {f"stories260K, block 2, {len(x):,} tokens of UD-EWT, d={x.shape[1]}": lambda seed: (x, None, 64 if quick else 256)}, ""


def _sentences(path: Path) -> list[str]:
    return [line[9:] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# text = ")]


OUT_OF_CORE = """
import json, sys, time
import numpy as np, torch
from k2nb.quantize import KMeansQuantizer
import k2nb.rows
path, n, d, k = sys.argv[1], *map(int, sys.argv[2:5])
k2nb.rows._KEEP_BYTES = 0
class Store:
    def vectors(self, layer, part, rows=None):  # rows in order; a map of its own for each shard, since mapped pages count as memory
        return np.concatenate([np.array(np.load(path, mmap_mode="r")[rows[rows // 50000 == i]]) for i in range(-(-n // 50000))])
    def iter_vectors(self, layer, part):
        for a in range(0, n, 50000):
            yield np.array(np.load(path, mmap_mode="r")[a:a + 50000])
    def __len__(self): return n
def peak():  # of this program alone: getrusage would tell of the process it was forked from, too
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
KMeansQuantizer(k, device="cpu").fit(np.random.default_rng(0).normal(size=(4 * k, d)).astype(np.float32))
before, begin = peak(), time.process_time()
q = KMeansQuantizer(k, device="cpu").fit(Store())
print(json.dumps({"before": before, "after": peak(), "cpu": time.process_time() - begin,
                  "inertia": q.inertia_, "passes": q.n_iter_}))
"""


def out_of_core(n: int, d: int, k: int, threads: str) -> list:
    "Fit rows on disk in a process of its own, and see how its peak memory grows (Linux tells)."
    if not Path("/proc/self/status").exists(): return [f"{n:,} × {d}, k={k}: not run, this system has no /proc", *[""] * 7]
    with tempfile.TemporaryDirectory() as folder:
        out = np.lib.format.open_memmap(f"{folder}/x.npy", "w+", np.float32, (n, d))
        centres = np.random.default_rng(0).standard_normal((k, d), dtype=np.float32)
        for a in range(0, n, 50000):
            g = np.random.default_rng([1, a])
            m = min(50000, n - a)
            out[a:a + m] = g.standard_normal((m, d), dtype=np.float32) + centres[g.integers(k, size=m)]
        out.flush(); del out
        paths = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": threads}
        args = [sys.executable, "-c", OUT_OF_CORE, f"{folder}/x.npy", str(n), str(d), str(k)]
        made = subprocess.run(args, env=env, check=True, text=True, stdout=subprocess.PIPE)
    f = json.loads(made.stdout)
    return [f"{n:,} × {d}, k={k}", f"{n * d * 4 / 1e6:,.0f} MB", f"{n * k * 4 / 1e6:,.0f} MB",
            f"{(f['after'] - f['before']) / 1024:,.0f} MB",
            f"{f['after'] / 1024:,.0f} MB", f"{f['passes']}", f"{f['cpu']:.1f}", f"{f['inertia'] / n / d:.4f}"]


def two_threads(n: int, d: int, k: int, seeds: int, names, ratio) -> list:
    "CPU and wall time with two threads, in a process of its own."
    code = ("import sys, json, time; sys.path[:0] = [sys.argv[1]]; import kmeans as b; out = {}\n"
            "for w in sys.argv[6].split(): b.fitted(w, b.planted('separated', 99, 3000, 16, 8)[0], 8, 0)\n"
            "for s in range(int(sys.argv[2])):\n"
            "    x, _ = b.planted('separated', s, *map(int, sys.argv[3:6]))\n"
            "    for w in sys.argv[6].split():\n"
            "        t = time.perf_counter(); cpu = b.fitted(w, x, int(sys.argv[5]), s)[1]\n"
            "        out.setdefault(w, []).append((cpu, time.perf_counter() - t))\n"
            "print(json.dumps(out))")
    env = {**os.environ, "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    args = [sys.executable, "-W", "ignore", "-c", code, str(HERE), str(seeds), str(n), str(d), str(k), " ".join(names)]
    found = json.loads(subprocess.run(args, env=env, check=True, text=True, stdout=subprocess.PIPE).stdout)
    mini = [v[0] for v in found["mini"]]
    return [[CONTESTANTS[w][0], interval([v[0] for v in f]), interval([v[1] for v in f]),
             "" if w == "mini" else "{:.2f} ({:.2f}–{:.2f})".format(*ratio([v[0] for v in f], mini))] for w, f in found.items()]


def metric_rows(n: int, seeds: int) -> list:
    "Cosine and l1: each beside what people do for want of it."
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import adjusted_rand_score

    from k2nb.quantize import KMeansQuantizer
    d, k, found = 64, 64, {}
    for seed in range(seeds):
        g = np.random.default_rng([7, seed])
        truth, centres = g.integers(k, size=n), g.standard_normal((k, d))
        sets = {"cosine": (centres[truth] + .7 * g.standard_normal((n, d))) * np.exp(g.normal(0, 1, (n, 1))),  # lengths say nothing
                "l1": 1.5 * centres[truth] + g.standard_t(1.5, (n, d))}  # heavy tails
        for metric, x in sets.items():
            x = x.astype(np.float32)
            unit = x / np.linalg.norm(x, axis=1, keepdims=True)
            ways = {f"{OURS}, `metric=\"{metric}\"`": lambda: KMeansQuantizer(k, metric, seed, device="cpu").fit(x).cluster_centers_,  # noqa: B023
                    f"{OURS}, `metric=\"l2\"`": lambda: KMeansQuantizer(k, "l2", seed, device="cpu").fit(x).cluster_centers_}  # noqa: B023
            if metric == "cosine": ways[f"{MINI} of unit rows"] = lambda: MiniBatchKMeans(k, random_state=seed).fit(unit).cluster_centers_  # noqa: B023
            else: ways[MINI] = lambda: MiniBatchKMeans(k, random_state=seed).fit(x).cluster_centers_  # noqa: B023
            for way, call in ways.items():
                begin = time.process_time()
                C = call()
                cost, labels = judged(x, C, metric)
                found.setdefault((metric, way), []).append((cost, adjusted_rand_score(truth, labels), time.process_time() - begin))
    return [[metric, way, *(interval([v[i] for v in f]) for i in range(3))] for (metric, way), f in found.items()]


def main() -> None:
    "Run everything, print it, and write the section."
    from _report import ratio, table, write_section
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run; writes nothing")
    parser.add_argument("--seeds", type=int, default=5, help="at least this many data sets and seeds of each kind")
    quick, seeds = (a := parser.parse_args()).quick, 2 if a.quick else a.seeds
    warnings.filterwarnings("ignore", category=FutureWarning)
    threads, began = os.environ.get("OMP_NUM_THREADS", "all"), time.perf_counter()
    import torch
    if threads.isdigit(): torch.set_num_threads(int(threads))
    n, d, k = (10_000, 64, 32) if quick else (100_000, 256, 256)
    contestants, missing = list(CONTESTANTS), []
    if importlib.util.find_spec("faiss") is None: contestants.remove("faiss"); missing.append("faiss is not installed")
    for name in contestants: fitted(name, planted("separated", 99, 3000, 16, 8)[0], 8, 0)  # imports and first calls, once
    sets = {name: lambda seed, name=name: (*planted(name, seed, n, d, k), k) for name in SETS}
    found = compare(sets, contestants, seeds, once=("kmeans",))
    real, why = real_sets(quick)
    found_real = compare(real, [w for w in contestants if w in CORE], seeds, once=("kmeans",))
    head = ["rows", "fitted by", "inertia / best", "ARI", "CPU s", "CPU / MiniBatchKMeans"]
    threads_head = ["fitted by", "CPU s", "wall s", "CPU / MiniBatchKMeans"]
    outside_head = ["rows", "size on disk", "rows × concepts would be", "growth", "peak", "passes", "CPU s", "inertia / (n d)"]
    outside = out_of_core(*((50_000, 64, 32) if quick else (1_000_000, 128, 256)), threads if threads.isdigit() else "1")
    two = two_threads(n, d, k, 2 if quick else 3, [w for w in CORE[:3] if w in contestants], ratio)
    text = "\n\n".join([
        f"{n:,} rows, d={d}, k={k}, float32, OMP_NUM_THREADS={threads}; {seeds} planted sets of a kind, each with its own seed. {HOW}",
        "\n".join(f"- **{name}**: {what}." for name, what in SETS.items()), table(head, rows_of(found, ratio)), f"{AIMS}:",
        verdict({**found, **found_real}), UNEQUAL, why or "Real vectors (no known classes):\n\n" + table(head, rows_of(found_real, ratio)),
        *missing, "Two threads, separated sets:", table(threads_head, two), OTHERS,
        table(["metric", "fitted by", "inertia", "ARI", "CPU s"], metric_rows(2000 if quick else 20000, seeds)), OUTSIDE,
        table(outside_head, [outside])])
    print(f"{text}\n\n{time.perf_counter() - began:.0f} s in all")
    title, command = "K-means: quality for CPU time", "OMP_NUM_THREADS=1 python bench/kmeans.py"
    if not quick: write_section("kmeans", title, command, text, ("scikit-learn", "faiss-cpu"))


if __name__ == "__main__": main()
