"""Shapes of the local part that PRLE does not have: gates of several widths at once, and differences between experts of low rank.

Both keep the closed form, since they only change its kernel. Penalty and locality of each are chosen by leave-one-out error on 2,000
training rows, as the regressor chooses its own.
"""
import itertools
import time

import numpy as np
import torch
from scipy import linalg

from _prle_accuracy import TASKS, load, pearson
from _report import table
from k2nb.core import rng
from k2nb.prle import PRLERegressor
from k2nb.prle.choose import loo_errors
from k2nb.prle.joint_fit import gate_sharpness

SCALES = {"narrow and wide": ((8, 2.5), (32, 10.), (128, 40.)), "narrow": ((8, 2.5), (32, 3.), (128, 4.))}  # (prototypes, how many speak)
RANKS = (16, 64, 192)  # principal directions in which experts may differ
ROWS = 2000  # training rows that settings are chosen from


def _gates(X, y, new, seed: int, routing: str, P: int, effective: float) -> tuple[np.ndarray, np.ndarray]:
    "Gates of training rows and of new ones, as the regressor makes them; its experts do not matter here."
    fitted = PRLERegressor(P, effective=effective, routing=routing, value_space="identity", alpha=10., locality=2., random_state=seed,
                           method="joint", solver="cg").fit(X, y)
    return fitted.gates(X), fitted.gates(new)


def _kernel(base, local, parts, c: float, columns: int, side: int) -> np.ndarray:
    "K of the training rows (side 0) or of new rows with them (side 1): base + c · mean over parts of s·(w·w′)(1 + local)."
    shared = sum(gate_sharpness(p[0]) * (p[side] @ p[0][:columns].T) for p in parts) / len(parts)
    return base + c * shared * (1 + local)


def _error(X, Z, y, new, Znew, truth, parts, V, given: dict, seed: int) -> tuple[float, float]:
    "Dev Pearson and mean squared error of one shape."
    some = np.sort(rng(seed, "variants").choice(len(Z), min(ROWS, len(Z)), replace=False))
    few = [(w[some], None) for w, _ in parts]
    short = Z @ V, Znew @ V
    alphas = [given["alpha"] * f for f in (1, 3)]
    tried = {}
    for c in (.5, 2., 8.):
        K = _kernel(Z[some] @ Z[some].T, short[0][some] @ short[0][some].T, few, c, len(some), 0)
        tried |= {(a, c): e for a, e in zip(alphas, loo_errors(K, y[some], alphas))}
    alpha, c = min(tried, key=tried.get)
    K = _kernel(Z @ Z.T, short[0] @ short[0].T, parts, c, len(Z), 0).astype(np.float32)
    K[np.diag_indices(len(K))] += alpha
    dual = linalg.cho_solve(linalg.cho_factor(K, lower=True, overwrite_a=True, check_finite=False), (y - y.mean()).astype(np.float32))
    said = y.mean() + _kernel(Znew @ Z.T, short[1] @ short[0].T, parts, c, len(Z), 1) @ dual
    return pearson(said, truth), float(np.mean((said - truth) ** 2))


def variants_text(seeds: int, quick: bool) -> str:
    "A table of shapes."
    rows = []
    for task, seed in itertools.product(TASKS, range(1 if quick else seeds)):
        (X, y), (new, truth) = load(task, "train"), load(task, "dev")
        if quick: X, y = X[:400], y[:400]
        chosen = PRLERegressor(value_space="identity", random_state=seed).fit(X, y)
        with torch.no_grad():
            manager = chosen.model_.manager
            Z, Znew = (manager.project_embeddings(torch.as_tensor(x).double()).numpy().astype(np.float32) for x in (X, new))
        given, whole = chosen.settings_, np.eye(Z.shape[1], dtype=np.float32)
        axes = linalg.svd(Z[:5000], full_matrices=False)[2].T
        said = chosen.predict(new)
        made = {size: _gates(X, y, new, seed, given["routing"], *size) for size in {s for group in SCALES.values() for s in group}}
        own = [(chosen.gates(X), chosen.gates(new))]
        shapes = {"penalties from this grid": (own, whole)} | {f"gates of three widths, {name}": ([made[s] for s in group], whole) for name, group in SCALES.items()}
        shapes |= {f"experts differ in {r} directions": (own, axes[:, :r]) for r in RANKS}
        rows.append((task, "as it is", pearson(said, truth), float(np.mean((said - truth) ** 2))))
        for name, (parts, V) in shapes.items():
            began = time.time()
            rows.append((task, name, *_error(X, Z, y, new, Znew, truth, parts, V, given, seed)))
            print(task, seed, name, *(f"{v:.4f}" for v in rows[-1][2:]), f"{time.time() - began:.0f} s", flush=True)
    names = list(dict.fromkeys(name for _, name, *_ in rows))
    def middle(task, name, at): return float(np.median([r[at] for r in rows if r[:2] == (task, name)]))
    lines = [[name, *(f"{middle(task, name, at):.4f}" for task in TASKS for at in (2, 3))] for name in names]
    told = ("Linear experts with the settings that leave-one-out error chose, and the same with another local part; dev rows, medians over "
            f"{1 if quick else seeds} seeds. Three widths: the mean of three sets of gates (8, 32 and 128 prototypes). Few directions: experts share all but what they "
            "say of the first principal directions.")
    return f"{told}\n\n{table(['local part', 'STS-B', 'MSE', 'EmoBank', 'MSE'], lines)}"
