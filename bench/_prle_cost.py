"""What PRLE costs: fitting, predicting beside brute-force nearest neighbours, and all experts in one product beside one module each.

    python bench/prle.py --only cost            (or python bench/_prle_cost.py [--repeats 15] [--quick])

Every quotient is of two contestants that take turns in one run; medians of the repeats, with the bootstrap's 95 % interval.
"""
import argparse, copy, os, sys, time
from pathlib import Path

os.environ["K2NB_PROGRESS"] = os.environ.get("K2NB_PROGRESS", "0")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import numpy as np
import pandas as pd
import torch
from sklearn.neighbors import KNeighborsRegressor
from torch import nn

from _report import ratio
from k2nb.prle.experts import LinearExperts, MLPExperts
from k2nb.prle.regressor import PRLERegressor

BATCH = 64
# nothing is left to choose
GIVEN = {"num_prototypes": 64, "effective": 8., "alpha": 1., "locality": 1., "value_space": "identity", "routing": "pca"}


def ratings(n: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    "Rows on the unit sphere, as sentence encoders give them, and ratings that bend. What they say does not change the time."
    gen = np.random.default_rng(seed)
    X = gen.normal(size=(n, 24)) @ gen.normal(size=(24, width)) + .5 * gen.normal(size=(n, width))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    y = X[:, :8].sum(1) / X[:, :8].sum(1).std() + np.abs(X[:, 9]) / X[:, 9].std() + .3 * gen.normal(size=n)
    return X.astype(np.float32), y


def seconds(calls: dict, repeats: int, inner: int = 1) -> dict:
    "name -> (repeats,) seconds of one call; contestants take turns, the first turn is not counted."
    out = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(inner): call()
            if turn: out[name].append((time.perf_counter() - start) / inner)
    return {name: np.array(v) for name, v in out.items()}


def _line(what: str, ours: np.ndarray, theirs: np.ndarray | None = None, beside: str = "", equal: float | None = None) -> dict:
    row = {"what": what, "ms": 1e3 * float(np.median(ours)), "beside": beside}
    if theirs is not None:
        row |= dict(zip(("theirs ms", "times faster", "low", "high"), (1e3 * float(np.median(theirs)), *ratio(theirs, ours))))
    return row | ({} if equal is None else {"largest difference": equal})


def fitting(repeats: int, quick: bool) -> list[dict]:
    "Fits on 8,000 rows, with every setting given and with those chosen that are chosen by default."
    rows = []
    for n, width in ((800, 64),) if quick else ((8000, 384), (8000, 768)):
        X, y = ratings(n, width)
        for name, given in (("settings given", GIVEN), ("settings chosen", {})):
            def fit(given=given, X=X, y=y): return PRLERegressor(**given).fit(X, y)
            took = seconds({"fit": fit}, max(1, repeats // 5))
            rows.append(_line(f"fit, {n:,} × {width}, {name}", took["fit"]))
    return rows


def _beside_neighbours(n: int, width: int, repeats: int) -> list[dict]:
    X, y = ratings(n + BATCH, width)
    new, knn = X[n:], KNeighborsRegressor(10, algorithm="brute").fit(X[:n], y[:n])
    linear = PRLERegressor(**GIVEN).fit(X[:n], y[:n])
    kernel = PRLERegressor(**GIVEN | {"value_space": "kernel", "projection_kwargs": {"bandwidth_scale": .7}}).fit(X[:n], y[:n])
    module, batch = copy.deepcopy(linear.model_).float(), torch.as_tensor(new)
    calls = {"torch module, float32": lambda: module(batch), "predict()": lambda: linear.predict(new),
             "predict(), kernel experts": lambda: kernel.predict(new), "kNN": lambda: knn.predict(new)}
    with torch.inference_mode(): took = seconds(calls, repeats, 10)
    theirs = took.pop("kNN")
    return [_line(f"{BATCH} rows of {width}, P=64, {name}", ours, theirs, f"kNN, brute, N={n:,}") for name, ours in took.items()]


def predicting(repeats: int, quick: bool) -> list[dict]:
    "A batch of 64: PRLE with 64 prototypes beside brute-force nearest neighbours over all 5,749 training rows."
    return [line for n, width in (((600, 64),) if quick else ((5749, 384), (5749, 768))) for line in _beside_neighbours(n, width, repeats)]


def _apart(experts: LinearExperts) -> nn.ModuleList:
    "The same experts, one module each."
    out = nn.ModuleList()
    for p in range(len(experts.weight)):
        out.append(nn.Linear(experts.weight.shape[1], 1))
        out[-1].weight.data, out[-1].bias.data = experts.weight.data[p:p + 1].clone(), experts.bias.data[p:p + 1].clone()
    return out


class _MLP(nn.Module):
    "One expert with a hidden layer."
    def __init__(self, experts: MLPExperts, p: int):
        super().__init__()
        self.straight, self.hidden = _apart(experts)[p], nn.Linear(*experts.hidden.shape[:0:-1])
        self.out = nn.Linear(experts.out.shape[1], 1, bias=False)
        self.hidden.weight.data, self.hidden.bias.data = experts.hidden.data[p].clone(), experts.hidden_bias.data[p].clone()
        self.out.weight.data = experts.out.data[p:p + 1].clone()

    def forward(self, x): return self.straight(x) + self.out(self.hidden(x).relu())


def batching(repeats: int, quick: bool) -> list[dict]:
    "All experts in one product beside a ModuleList of as many."
    (P, D), rows = (16, 32) if quick else (256, 384), []
    x = torch.as_tensor(np.random.default_rng(0).normal(size=(BATCH, D)), dtype=torch.float32) / D**.5
    linear, mlp = LinearExperts(P, D), MLPExperts(P, D, 16)
    with torch.no_grad(): mlp.out.normal_(generator=torch.Generator().manual_seed(0))
    apart = nn.ModuleList(_MLP(mlp, p) for p in range(P))
    for name, ours, theirs in (("linear", linear, _apart(linear)), ("MLP (16 hidden units)", mlp, apart)):
        with torch.inference_mode():
            def together(ours=ours): return ours(x)
            def loop(theirs=theirs): return torch.cat([e(x) for e in theirs], 1)
            took, far = seconds({"ours": together, "theirs": loop}, repeats, 10), float((together() - loop()).abs().max())
        rows.append(_line(f"{P} {name} experts, {BATCH} × {D}", took["ours"], took["theirs"], "ModuleList", far))
    return rows


def cost_table(
    repeats: int = 15,  # turns of each contestant
    quick: bool = False,  # small sizes
) -> pd.DataFrame:  # a row for each measurement; milliseconds, and how many times faster than what stands beside
    "Fitting, predicting and batching."
    repeats = 3 if quick else repeats
    return pd.DataFrame(fitting(repeats, quick) + predicting(repeats, quick) + batching(repeats, quick))


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--repeats", type=int, default=15)
    p.add_argument("--quick", action="store_true", help="small sizes")
    print(cost_table(**vars(p.parse_args())).round(4).to_string(index=False))
