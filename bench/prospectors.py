"""How fast prospectors count and map, beside walking from every node with networkx, and how much memory a million nodes take.

    OMP_NUM_THREADS=2 python bench/prospectors.py            # about 2 minutes; writes the section of bench/README.md
    OMP_NUM_THREADS=2 python bench/prospectors.py --quick    # a smoke run: one round, smaller graphs, nothing written
"""
import argparse, json, os, subprocess, sys, time
from functools import partial
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

K, D = 20, 32  # concepts, width of embeddings
HOW = """The peer walks out from every node with `networkx.ego_graph`, once to count and once to map, as the definition says
and as the first published implementation does; it is given concepts for all nodes at once (that implementation asks for
them node by node). That all integers are equal, and the maps to 1e-9, is checked in this run. Medians of {rounds}
alternating rounds; ratios round by round with a 95 % interval."""
LARGE = """Many nodes, k={k}, count and map, each in a process of its own. *Grown*: peak memory above what the process held with
its embeddings (float32, d=1) and concepts in place; *peak*: of the whole process, libraries included."""
PARAMS = {"default": {}, "k=20, predictive": {"k": 20, "variant": "predictive"}, "k=20, inferential": {"k": 20, "variant": "inferential"}}


def walk(G, sprite, k: int, r: int, w, W):  # the peer
    "M and P by the definition."
    import networkx as nx
    M, P = np.zeros((k, k), np.int64), np.zeros(len(G))
    for i in G:
        near, counts = np.unique([sprite[j] for j in nx.ego_graph(G, i, radius=r)], return_counts=True)
        M[sprite[i], near] += counts
    for i in G:
        near, counts = np.unique([sprite[j] for j in nx.ego_graph(G, i, radius=r)], return_counts=True)
        P[i] = w[sprite[i]] + W[sprite[i], near] @ counts
    return M, P


def weights(gen, k: int = K):
    W = gen.normal(size=(k, k))
    return gen.normal(size=k), W + W.T


def timed(call):
    begin = time.perf_counter()
    out = call()
    return out, time.perf_counter() - begin


def beside_walking(name: str, graph, r: int, quantise: bool, rounds: int):
    "[walk seconds], [our seconds], after checking that both say the same."
    from k2nb.prospectors.counts import count_vectors, pair_index, prospect_scores
    from k2nb.quantize import KMeansQuantizer
    gen = np.random.default_rng(0)
    w, W = weights(gen)
    quantizer = KMeansQuantizer(K, n_init=1, max_iter=5).fit(graph.X)
    G, fixed = graph.to_networkx(), quantizer.predict(graph.X)

    def theirs():
        s = quantizer.predict(graph.X) if quantise else fixed
        return walk(G, s.tolist(), K, r, w, W)

    def ours():
        s = quantizer.predict(graph.X) if quantise else fixed
        return count_vectors(graph, s, K, r), prospect_scores(graph, s, w, W, r)[0]

    (M, P), (counts, scores) = theirs(), ours()
    a, b = pair_index(K)
    assert (counts.toarray()[0, K:] == np.where(a == b, M[a, a], M[a, b] + M[b, a])).all() and np.allclose(P, scores, atol=1e-9)
    times = [(timed(theirs)[1], min(timed(ours)[1] for _ in range(3))) for _ in range(rounds)]
    print(name, times, flush=True)
    return [t[0] for t in times], [t[1] for t in times]


def small_rows(rounds: int, quick: bool):
    from _report import ratio

    from k2nb.prospectors.graphs import from_edges, grid_graph, sequence_graph
    gen = np.random.default_rng(1)
    n, side = (500, 20) if quick else (5000, 100)
    cloud = gen.normal(size=(n, D)).astype(np.float32)
    edges = gen.integers(n, size=(2 * n, 2))
    cases = [
        (f"sequence of {n:,} tokens, r=1, concepts included", sequence_graph(cloud), 1, True),
        (f"sequence of {n:,} tokens, r=8, concepts included", sequence_graph(cloud), 8, True),
        (f"{side} × {side} grid, r=2", grid_graph(gen.normal(size=(side, side, D)).astype(np.float32)), 2, False),
        (f"random graph of {n:,} nodes and {2 * n:,} edges, r=2", from_edges(cloud, edges), 2, False),
    ]
    rows = []
    for name, graph, r, quantise in cases:
        slow, fast = beside_walking(name, graph, r, quantise, rounds)
        times = "{:,.0f} ({:,.0f}–{:,.0f})".format(*ratio(slow, fast))
        rows.append([name, f"{np.median(slow):.2f}", f"{1000 * np.median(fast):.2f}", times])
    return rows


ALONE = """
import json, sys, time
import numpy as np
from k2nb.prospectors.counts import count_vectors, prospect_scores
from k2nb.prospectors.graphs import from_edges, grid_graph, sequence_graph
kind, n, r, k = sys.argv[1], *map(int, sys.argv[2:5])
gen = np.random.default_rng(0)
side = int(n ** .5)
if kind == "path": g = sequence_graph(np.ones((n, 1), np.float32))
elif kind == "grid": g = grid_graph(np.ones((side, side, 1), np.float32))
elif kind == "corners": g = grid_graph(np.ones((side, side, 1), np.float32), 8)
elif kind == "masked": g = grid_graph(np.ones((side, side, 1), np.float32), mask=gen.random((side, side)) < .9)
else:  # a power law: ends drawn with weights i^-0.8, so that the largest hubs have thousands of neighbours
    share = np.arange(1, n + 1) ** -.8
    g = from_edges(np.ones((n, 1), np.float32), gen.choice(n, size=(3 * n, 2), p=share / share.sum()))
s, W = gen.integers(k, size=len(g)), gen.normal(size=(k, k))
W, w = W + W.T, gen.normal(size=k)
if kind not in ("path", "grid", "corners"): g.adjacency
def peak(): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
before, begin = peak(), time.perf_counter()
C = count_vectors(g, s, k, r)
middle = time.perf_counter()
P = prospect_scores(g, s, w, W, r)[0]
end = time.perf_counter()
B = np.concatenate([w, W[np.triu_indices(k)]])
assert abs(P.sum() - (C @ B)[0]) < 1e-6 * abs(P).sum()
print(json.dumps({"count": middle - begin, "map": end - middle, "grown": peak() - before, "peak": peak(),
                  "hub": int(g.degrees.max()) if kind == "hubs" else 0}))
"""


def large_rows(quick: bool):
    n, rows = 10**4 if quick else 10**6, []
    cases = [("grid", n, 2, "grid of {:,} nodes"), ("grid", n, 8, "grid of {:,} nodes"),
             ("corners", n, 8, "grid of {:,} nodes, 8 neighbours"), ("masked", n, 2, "grid of {:,} cells, one in ten masked"),
             ("path", n, 64, "path of {:,} nodes"), ("path", n, 512, "path of {:,} nodes"),
             ("hubs", n // 10, 2, "power-law graph of {:,} nodes")]
    for kind, size, r, name in cases:
        command = [sys.executable, "-c", ALONE, kind, str(size), str(r), str(K)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, env={**os.environ, "PYTHONPATH": str(HERE.parent)})
        if done.returncode: raise SystemExit(done.stderr)
        f = json.loads(done.stdout)
        hub = f", largest hub {f['hub']:,}" if f["hub"] else ""
        rows.append([name.format(size) + hub, r, f"{f['count']:.2f}", f"{f['map']:.2f}", f"{f['grown']:.0f}", f"{f['peak']:.0f}"])
        print(rows[-1], flush=True)
    return rows


def fit_rows(rounds: int, quick: bool):
    "Seconds to fit a prospector, quantiser included, on many documents."
    from k2nb import planted
    from k2nb.prospectors import Prospector, sequence_graph
    data = planted.sequences(n=250 if quick else 2500, length=60, k=20, d=D)
    graphs, rows = [sequence_graph(x) for x in data.X], []
    for name, params in PARAMS.items():
        times = [timed(partial(Prospector(**params).fit, graphs, data.labels))[1] for _ in range(rounds)]
        rows.append([f"`Prospector`, {name}", f"{np.median(times):.2f}"])
        print(rows[-1], flush=True)
    return rows, len(graphs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    from _report import table, write_section
    rounds = 1 if quick else 5
    small, large, (fits, n) = small_rows(rounds, quick), large_rows(quick), fit_rows(min(rounds, 3), quick)
    text = "\n\n".join([
        HOW.format(rounds=rounds), table(["", "networkx: s", "k2nb: ms", "times faster"], small),
        LARGE.format(k=K), table(["", "r", "count: s", "map: s", "grown: MiB", "peak: MiB"], large),
        f"Fitting {n:,} documents of 60 nodes, d={D}, quantiser included:", table(["", "seconds"], fits)])
    if quick: print(text)
    else:
        command = "OMP_NUM_THREADS=2 python bench/prospectors.py"
        write_section("prospectors", "Prospectors", command, text, ("scipy", "networkx", "scikit-learn"))


if __name__ == "__main__": main()
