"""Whether PRLE's explanations say what would happen: predicted changes against real refits, with training examples left out.

    python bench/prle.py --only faithfulness            (or python bench/_prle_faithfulness.py [--seeds 3] [--quick])
"""
import argparse, os, sys
from pathlib import Path

os.environ["K2NB_PROGRESS"] = os.environ.get("K2NB_PROGRESS", "0")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import numpy as np
import pandas as pd
from scipy import linalg

from k2nb.core import MissingFileError, rng
from k2nb.prle.attribution import _inside, influences, leave_one_out
from k2nb.prle.joint_fit import joint_kernel
from k2nb.prle.pairs import pair_features
from k2nb.prle.regressor import PRLERegressor

ROOT = Path(__file__).resolve().parents[1]
POINTS = 200  # rows whose predictions are looked at
TEN, DRAWS = 10, 50  # examples removed together; random tens


def real_ratings(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    "X and y of the training rows and of the development rows: stsb (sym2) or emobank (valence), by MiniLM."
    folder = Path(os.environ.get("K2NB_DATA", ROOT.parent/"shared"/"data"))/"minilm-embeddings"
    if not folder.is_dir(): raise MissingFileError("MiniLM's embeddings are not there; set K2NB_DATA to the folder of minilm-embeddings")
    def read(part, key): return np.load(folder/f"{name}_{part}_{key}.npy")
    def rows(part):
        return pair_features(read(part, "u"), read(part, "v"), "sym2") if name == "stsb" else read(part, "x")
    return rows("train"), read("train", "y").astype(float), rows("dev"), read("dev", "y").astype(float)


def fixed(model: PRLERegressor) -> dict:
    "The settings that a fit has chosen, as arguments, so that another fit need not choose."
    s = dict(model.settings_)
    scale = s.pop("bandwidth_scale", None)
    return s | ({} if scale is None else {"projection_kwargs": {"bandwidth_scale": scale}}) | {"random_state": model.random_state}


class Held:
    "Refits with gates, values, ȳ and s held, in double precision and without closed forms of leaving out: a linear system for each."
    def __init__(self, model: PRLERegressor, X: np.ndarray):
        fit, train, here = model.joint_, *(_inside(model, rows, "values", "gates") for rows in (model.train_embeddings_, X))
        def kernel(a): return joint_kernel(a["values"] if fit.kernel else a["values"] @ train["values"].T, a["gates"], train["gates"],
                                           fit.locality, fit.sharpness)
        self.K, self.k, self.fit, self.target = kernel(train), kernel(here), fit, model.train_labels_ - fit.mean
        self.predicted = fit.mean + self.k @ fit.dual

    def without(self, rows) -> np.ndarray:
        "(B,) predictions of the fit that lacks these rows."
        keep = np.setdiff1d(np.arange(len(self.target)), rows)
        A = self.K[np.ix_(keep, keep)]
        A[np.diag_indices(len(keep))] += self.fit.alpha
        return self.fit.mean + self.k[:, keep] @ linalg.solve(A, self.target[keep], assume_a="pos", overwrite_a=True, check_finite=False)


def _moves(held: Held, chosen: np.ndarray, inverse: np.ndarray, gk: np.ndarray) -> np.ndarray:
    "(B,) by how much each prediction moves without its own row of `chosen` (B, n), all n removed together: −(G k)_S · (G_SS)⁻¹ α_S."
    return np.array([-gk[b, S] @ np.linalg.solve(inverse[np.ix_(S, S)], held.fit.dual[S]) for b, S in enumerate(chosen)])


def one_run(name: str, n: int, left_out: int, refitted: int, seed: int, settings: dict | None = None) -> dict:
    "A fit on n random training rows, and what becomes of development rows' predictions."
    X, y, X_dev, _ = real_ratings(name)
    gen = rng(seed, "faithfulness", name)
    rows, points = gen.permutation(len(X))[:n], gen.permutation(len(X_dev))[:POINTS]
    X, y, X_dev = X[rows], y[rows], X_dev[points]
    model = PRLERegressor(random_state=seed, **(settings or {})).fit(X, y)
    held, loo = Held(model, X_dev), leave_one_out(model)
    inside = _inside(model, X_dev, "values", "gates")
    change, out = loo.change(inside["values"], inside["gates"]), gen.permutation(n)[:left_out]  # (points, n)
    real = np.stack([held.without([i]) - held.predicted for i in out], 1)
    before, again = model.predict(X_dev), [PRLERegressor(**fixed(model)).fit(np.delete(X, i, 0), np.delete(y, i)) for i in out[:refitted]]
    again = [other.predict(X_dev) - before for other in again]
    # the ten with the largest influence, or the largest predicted change, beside random tens
    inverse = linalg.inv(held.K + model.joint_.alpha * np.eye(n))
    gk, size = held.k @ inverse, {"influence": np.abs(held.k * held.fit.dual), "change": np.abs(change)}
    tens = {k: np.argsort(-v, axis=1)[:, :TEN] for k, v in size.items()}
    assert set(tens["influence"][0]) == set(influences(model, X_dev[0], TEN)["row"]), "these are the influences that a user is shown"
    moved = {k: np.abs(_moves(held, S, inverse, gk)) for k, S in tens.items()}
    check = np.abs(held.without(tens["influence"][0]) - held.predicted)[0]
    assert abs(check - moved["influence"][0]) < 1e-6 * max(1, check), "the closed form of removing ten agrees with a refit"
    random = np.mean([np.abs(_moves(held, np.stack([gen.permutation(n)[:TEN] for _ in points]), inverse, gk)) for _ in range(DRAWS)], 0)
    return {"ratings": name, "rows": n, "seed": seed, "value space": model.settings_["value_space"], "refits, gates held": left_out,
            "r, gates held": np.corrcoef(change[:, out].ravel(), real.ravel())[0, 1],
            "r, all refitted": np.corrcoef(change[:, out[:refitted]].ravel(), np.stack(again, 1).ravel())[0, 1] if refitted else np.nan,
            "top 10 by influence ÷ random": np.median(moved["influence"] / random),
            "top 10 by predicted change ÷ random": np.median(moved["change"] / random)}


def faithfulness_table(
    seeds: int = 3,  # how many
    quick: bool = False,  # few rows, one data set
) -> pd.DataFrame:  # a row for each data set and size: medians over seeds
    "Predicted changes against real ones, and what the most influential examples do when they are gone."
    plans = [("stsb", 300, 10, 3)] if quick else [(name, *plan) for name in ("stsb", "emobank") for plan in ((500, 60, 30), (2000, 30, 0))]
    runs = pd.DataFrame([one_run(name, n, out, again, seed) for name, n, out, again in plans for seed in range(seeds)])
    spaces = runs.groupby(["ratings", "rows"], sort=False)["value space"].agg(lambda v: ", ".join(dict.fromkeys(v)))
    numbers = runs.drop(columns=["seed", "value space"]).groupby(["ratings", "rows"], sort=False).median()
    worst = runs.groupby(["ratings", "rows"], sort=False)["r, gates held"].min().rename("lowest r, gates held")
    return pd.concat([spaces, numbers, worst], axis=1).reset_index()


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--quick", action="store_true", help="few rows, one data set")
    print(faithfulness_table(**vars(p.parse_args())).round(4).to_string(index=False))
