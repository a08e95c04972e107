"""Clusters of SAE features: planted families found again, time and memory at 16 and 65 thousand features, the planted world's classes.

    OMP_NUM_THREADS=2 python bench/sae.py --only clusters
    python bench/_sae_clusters.py [--seeds 3] [--quick] [--part families|classes|speed]

`families`: activations whose families are known, by every method, beside a control in which each feature's activations were dealt to other
prompts. `classes`: for each class of words of k2-tiny's world, the best SAE feature by F1 on one half of the documents, scored on the
other half; beside it the best dimension of the same stream (either sign), the best neuron of the same block, and the same SAE features
with the words' classes shuffled; and whether clusters of features follow the classes. `speed`: each case in a process of its own, whose
peak is its resident memory.
"""
import argparse, json, os, resource, subprocess, sys, time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE)); sys.path.insert(0, str(HERE.parent))

from _report import table  # noqa: E402
from k2nb.core import rng  # noqa: E402
from k2nb.sae.clustering import cluster_features, planted_families  # noqa: E402
from k2nb.sae.density_tree import family_agreement  # noqa: E402

METHODS = (("dbscan", "activations"), ("hdbscan", "activations"), ("kmeans", "activations"), ("louvain", "activations"),
           ("leiden", "activations"),
           ("louvain", "coactivation"), ("leiden", "coactivation"))
SPEED = ((16384, "dbscan", "activations"), (16384, "hdbscan", "activations"), (16384, "kmeans", "activations"),
         (16384, "louvain", "activations"),
         (16384, "louvain", "coactivation"), (65536, "louvain", "coactivation"), (65536, "leiden", "coactivation"))
FAMILIES = {"n_families": 100, "size": 12, "n_prompts": 3000, "alone": 200, "causes": 5.}
QUICK = {"n_families": 20, "n_prompts": 600, "alone": 40}


# ---- planted families
def dealt(acts, seed: int):
    "Each feature's activations on other prompts: strength and density stay, families go."
    out, g = acts.tocsc().copy(), rng(seed, "dealt")
    for a, b in zip(out.indptr, out.indptr[1:]): out.indices[a:b] = np.sort(g.choice(out.shape[0], b - a, replace=False))
    return out.tocsr()


def families_rows(seeds: int = 3, quick: bool = False) -> Iterator[dict]:
    "One row a method: ARI with the planted families, and what the clustering says of itself; means over seeds."
    how = {**FAMILIES, **(QUICK if quick else {})}
    for method, by in METHODS:
        told = []
        for seed in range(seeds):
            acts, truth = planted_families(**how, random_state=seed)
            member, more = truth >= 0, {"n_clusters": how["n_families"]} if method == "kmeans" else {}
            for data in (acts, dealt(acts, seed)):
                c = cluster_features(data, method, by, random_state=seed, **more)
                told.append({"ARI": family_agreement(truth[member], c.labels[member]), "all": family_agreement(truth, c.labels),
                             **c.quality})
        ours, control = pd.DataFrame(told[::2]), pd.DataFrame(told[1::2])
        yield {"method": f"{method}, {by}", "ARI": f"{ours['ARI'].mean():.3f} ({ours['ARI'].min():.3f}–{ours['ARI'].max():.3f})",
               "ARI, lone features too": f"{ours['all'].mean():.2f}", "noise": f"{ours['noise_share'].mean():.2f}",
               "silhouette": f"{ours['silhouette'].mean():.2f}",
               "stability, seeds": f"{ours['stability_seeds'].mean():.2f}",
               "stability, subsamples": f"{ours['stability_subsamples'].mean():.2f}",
               "control: ARI": f"{control['ARI'].mean():.3f}", "control: noise": f"{control['noise_share'].mean():.2f}",
               "control: silhouette": f"{control['silhouette'].mean():.2f}",
               "control: stability, subsamples": f"{control['stability_subsamples'].mean():.2f}"}


# ---- time and memory
def speed_case(n_features: int, method: str, by: str) -> dict:
    "Cluster planted families of this many features, in this process."
    n_families = n_features // 20
    rows = 60_000 if n_features > 20_000 else 20_000
    acts, truth = planted_families(n_families, 16, rows, alone=n_features // 6, causes=6., stray=8 / n_features, random_state=0)
    member, before, cpu = truth >= 0, time.perf_counter(), time.process_time()
    c = cluster_features(acts, method, by, repeats=0, n_clusters=n_families)
    seconds, cpu = time.perf_counter() - before, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"features": f"{len(truth):,}", "rows": f"{rows:,}", "activations": f"{acts.nnz:,}", "method": f"{method}, {by}",
            "seconds": f"{seconds:.0f}", "CPU seconds": f"{cpu:.0f}", "peak GiB": f"{peak:.2f}",
            "ARI": f"{family_agreement(truth[member], c.labels[member]):.3f}", "noise": f"{c.quality['noise_share']:.2f}",
            "clusters": c.n_clusters}


def speed_rows(quick: bool = False) -> Iterator[dict]:
    "Each case in a process of its own."
    for n, method, by in SPEED:
        case = [str(n // 16 if quick else n), method, by]
        done = subprocess.run([sys.executable, __file__, "--case", *case], capture_output=True, text=True)
        if done.returncode: raise RuntimeError(f"{case} failed: {done.stderr[-2000:]}")
        yield json.loads(done.stdout.splitlines()[-1])


# ---- the planted world's classes
def read_words(subject, sae, corpus):
    "SAE features, dimensions of the stream with either sign, and neurons: (words, …) activations, the strongest of each word's pieces."
    import torch
    at, found = subject.check_sae(sae), {"SAE features": [], "dimensions": [], "neurons": []}
    starts = [t.start.to_numpy() for _, t in corpus.tokens.groupby("doc_id")]
    seen = []
    hook = subject.lm.block(sae.layer).mlp.act.register_forward_hook(lambda m, a, out: seen.append(out))
    try:
        for text, first in zip(corpus.texts, starts):
            ids, _ = subject.encode([text])
            offsets = subject.tokenizer(text, add_special_tokens=False,
                                        return_offsets_mapping=True)["offset_mapping"][:ids.shape[1] - subject.first]
            ends = np.array([b for _, b in offsets])  # a piece may begin with the blank before its word
            word = torch.tensor(np.searchsorted(first, ends - 1, side="right") - 1)
            seen.clear()
            with torch.no_grad(): x = subject.run(ids, at=at, logits=False).stream[0, subject.first:]
            with torch.no_grad(): parts = {"SAE features": sae.encode(x), "dimensions": torch.cat([x, -x], 1),
                                           "neurons": seen[0][0, subject.first:]}
            for name, a in parts.items():
                out = torch.full((len(first), a.shape[1]), -torch.inf).scatter_reduce_(0, word[:, None].expand_as(a), a, "amax")
                found[name].append(out.numpy())
    finally: hook.remove()
    return {k: np.concatenate(v) for k, v in found.items()}


def best_f1(a, Y) -> tuple[np.ndarray, np.ndarray]:
    "For one feature: the best F1 for each class over all thresholds, and the threshold. a (n,), Y (n, classes) bool."
    order = np.argsort(-a, kind="stable")
    v = a[order]
    last = np.flatnonzero(np.append(v[:-1] > v[1:], True))  # a threshold lies between different values
    last = last[np.isfinite(v[last])]
    hit = np.cumsum(Y[order], axis=0, dtype=np.int32)[last]
    f1 = 2 * hit / (last[:, None] + 1 + Y.sum(0))
    k = f1.argmax(0)
    return f1[k, np.arange(Y.shape[1])], v[last[k]]


def found_classes(A, Y, learn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    "The best column for each class by F1 on `learn`, with its F1 and AUC on the other rows."
    from sklearn.metrics import roc_auc_score
    best, feature, cut = np.zeros(Y.shape[1]), np.zeros(Y.shape[1], int), np.zeros(Y.shape[1])
    for f in range(A.shape[1]):
        score, at = best_f1(A[learn, f], Y[learn])
        better = score > best
        best[better], feature[better], cut[better] = score[better], f, at[better]
    B, y = A[~learn][:, feature], Y[~learn]
    said = B >= cut
    f1 = 2 * (said & y).sum(0) / np.maximum(said.sum(0) + y.sum(0), 1)
    return feature, f1, np.array([roc_auc_score(y[:, c], np.maximum(B[:, c], -1e9)) for c in range(y.shape[1])])


def classes_tables(quick: bool = False, random_state: int = 4242, least: int = 40) -> tuple[pd.DataFrame, pd.DataFrame]:
    "(one row a class, one row a clustering)."
    from k2nb.planted import documents
    from k2nb.sae.saelens import load_sae
    from k2nb.sae.subject import as_subject
    subject, sae = as_subject("k2-tiny", device="cpu"), load_sae("k2-tiny", device="cpu")
    corpus = documents(80 if quick else 400, random_state=random_state)
    t = corpus.tokens
    learn = (t.doc_id % 2 == 0).to_numpy()
    read = read_words(subject, sae, corpus)
    counts = t[["semantic_class"]].assign(half=learn).value_counts().unstack(fill_value=0)
    names = sorted(counts.index[(counts >= least / (4 if quick else 1)).all(axis=1)], key=lambda c: -counts.loc[c].sum())
    classes = [(k, v) for k in ("semantic_class", "word_class")
               for v in (names if k == "semantic_class" else sorted(t.word_class.unique()))]
    Y = np.column_stack([(t[k] == v).to_numpy() for k, v in classes])
    good = (Y[learn].sum(0) >= least / (4 if quick else 1)) & (Y[~learn].sum(0) >= least / (4 if quick else 1))
    classes, Y = [c for c, g in zip(classes, good) if g], Y[:, good]
    out = pd.DataFrame({"kind": [k for k, _ in classes], "class": [v for _, v in classes], "words": Y[~learn].sum(0)})
    for name, A in read.items():
        f, f1, auc = found_classes(A, Y, learn)
        if name == "SAE features": out["feature"] = f
        out[f"{name}: F1"], out[f"{name}: AUC"] = f1, auc
    shuffled = Y[rng(random_state, "shuffled").permutation(len(Y))]
    out["shuffled: F1"] = found_classes(read["SAE features"], shuffled, learn)[1]
    return out, clusters_of_classes(read["SAE features"], t, sae, random_state)


def clusters_of_classes(A, t, sae, random_state: int) -> pd.DataFrame:
    "Do clusters hold features of one class? A feature's class is that of more than half of its 30 strongest words."
    from scipy import sparse

    from k2nb.quantize import cluster_agreement
    live = np.flatnonzero((A > 0).sum(0) >= 30)
    top = np.argsort(-A[:, live], axis=0, kind="stable")[:30]
    rows = []
    for kind in ("semantic_class", "word_class"):
        codes, names = pd.factorize(t[kind])
        share = np.array([np.bincount(codes[i], minlength=len(names)) for i in top.T]) / 30
        clear = share.max(1) > .5
        mine = share.argmax(1)[clear]
        for method, by, more in (("hdbscan", "activations", {}), ("kmeans", "activations", {"n_clusters": 60}),
                                 ("louvain", "coactivation", {}),
                                 ("kmeans", "decoder", {"n_clusters": 60})):
            source = sae if by == "decoder" else sparse.csr_array(np.maximum(A, 0))
            c = cluster_features(source, method, by, features=live[clear], random_state=0, repeats=0, **more)
            inside = c.labels >= 0
            a = cluster_agreement(c.labels[inside], mine[inside])
            chance = cluster_agreement(c.labels[inside], rng(random_state).permutation(mine[inside]))
            rows.append({"classes": kind, "clusters": f"{method}, {by}", "features": int(clear.sum()), "n clusters": c.n_clusters,
                         "noise": f"{1 - inside.mean():.2f}",
                         "ARI": f"{a.adjusted_rand:.2f}", "AMI": f"{a.adjusted_mutual_info:.2f}", "purity": f"{a.purity:.2f}",
                         "shuffled: ARI": f"{chance.adjusted_rand:.2f}", "shuffled: AMI": f"{chance.adjusted_mutual_info:.2f}",
                         "shuffled: purity": f"{chance.purity:.2f}"})
    return pd.DataFrame(rows)


# ---- text
def markdown(rows: pd.DataFrame) -> str:
    "A table as Markdown; fractions with two digits."
    return table(list(rows.columns), [[f"{v:.2f}" if isinstance(v, float) else v for v in r] for r in rows.itertuples(index=False)])


def cluster_text(seeds: int = 3, quick: bool = False, part: str | None = None) -> str:
    "Markdown of all parts, or of one."
    out = []
    if part in (None, "families"):
        how = {**FAMILIES, **(QUICK if quick else {})}
        out += [f"**Planted families**: {how['n_families']} families of about {how['size']} features, {how['alone']} alone, "
                f"{how['n_prompts']:,} prompts, {seeds} seeds (mean, least and largest). To reach: ARI ≥ .9. Control: each feature's "
                "activations dealt to other prompts.", markdown(pd.DataFrame(families_rows(seeds, quick)))]
    if part in (None, "classes"):
        classes, clusters = classes_tables(quick)
        f1 = classes.filter(like="F1")
        said = "; ".join(f"{k.split(':')[0]} {f1[k].mean():.2f} ({(f1[k] >= .8).sum()} classes ≥ .8)" for k in f1)
        out += ["**Classes of k2-tiny's world among the features of its last block's SAE**: the best feature and its "
                f"threshold, chosen on one half of {80 if quick else 400} new documents, scored on the other half. "
                f"Mean F1 over {len(classes)} classes: {said}.", markdown(classes),
                "**Clusters of features and classes**: features whose 30 strongest words are mostly of one class; noise left out.",
                markdown(clusters)]
    if part in (None, "speed"):
        out += ["**Time and memory**: planted families, one process each, the graph and the search for eps or resolution included. "
                "To reach: minutes, under 4 GiB.", markdown(pd.DataFrame(speed_rows(quick)))]
    return "\n\n".join(out)


def main(argv=None) -> None:
    "Print the tables."
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seeds", type=int, default=3); p.add_argument("--quick", action="store_true")
    p.add_argument("--part", choices=("families", "classes", "speed")); p.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    args = p.parse_args(argv)
    import torch
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    if args.case: print(json.dumps(speed_case(int(args.case[0]), *args.case[1:])))
    else: print(cluster_text(args.seeds, args.quick, args.part))


if __name__ == "__main__": main()
