"""Planted ratings, whose truth is known: linear in each of several regions, or linear everywhere.

    python bench/prle.py --only planted            (or python bench/_prle_planted.py [--seeds 3] [--quick])
"""
import argparse, os, sys
from pathlib import Path

os.environ["K2NB_PROGRESS"] = os.environ.get("K2NB_PROGRESS", "0")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from k2nb.prle.regressor import PRLERegressor

SCALES = {"0 … 1": (0, 1), "1 … 5": (1, 5), "−300 … 900": (-300, 900)}  # where labels lie, about
WIDTH, REGIONS, NOISE = 32, 6, .1  # columns; regions; noise, in deviations of the ratings


def planted(
    kind: str,  # "piecewise": linear in each of REGIONS regions; "linear": linear everywhere
    n: int,  # rows
    seed: int,  # of everything
) -> tuple[np.ndarray, np.ndarray]:  # X (n, WIDTH) float32, ratings (n,) of mean 0 and deviation 1, noise on top
    "Rows about as many centres as there are regions; a rating is a linear function of the row, in each region another one."
    gen = np.random.default_rng(seed)
    centres = 2 * gen.normal(size=(REGIONS, WIDTH))
    region = gen.integers(REGIONS, size=n)
    X = centres[region] + gen.normal(size=(n, WIDTH))
    slopes = gen.normal(size=(REGIONS if kind == "piecewise" else 1, WIDTH))
    local = X - centres[region] if kind == "piecewise" else X
    y = np.einsum("nd,nd->n", local, slopes[region if kind == "piecewise" else np.zeros(n, int)])
    return X.astype(np.float32), (y - y.mean()) / y.std() + NOISE * gen.normal(size=n)


def one(kind: str, scale: str, seed: int, n: int) -> dict:
    "Errors of a fresh fit on rows that it has not seen, in units of the ratings' variance."
    X, y = planted(kind, 2 * n, seed)
    low, high = SCALES[scale]
    labels = (low + high) / 2 + (high - low) / 6 * y  # three deviations on each side
    ridge = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-3, 4, 22))).fit(X[:n], labels[:n])
    model = PRLERegressor(random_state=seed).fit(X[:n], labels[:n])
    error = {name: np.mean((labels[n:] - m.predict(X[n:]))**2) / labels[n:].var() for name, m in (("ridge", ridge), ("PRLE", model))}
    return {"ratings": kind, "scale": scale, "seed": seed, "rows": n, "ridge MSE": error["ridge"], "PRLE MSE": error["PRLE"],
            "PRLE / ridge": error["PRLE"] / error["ridge"], "of ridge's error removed": 1 - error["PRLE"] / error["ridge"],
            "prototypes": len(model.prototype_indices_)}


def planted_table(
    seeds: int = 3,  # how many
    quick: bool = False,  # few rows, one scale
) -> pd.DataFrame:  # a row for each kind and scale: medians over seeds, and the worst seed's quotient
    "How much of ridge's error PRLE removes where ratings are piecewise linear, and what it costs where they are linear."
    scales = list(SCALES)[:1] if quick else list(SCALES)
    n = 300 if quick else 2000
    runs = pd.DataFrame([one(kind, scale, seed, n) for kind in ("piecewise", "linear") for scale in scales for seed in range(seeds)])
    by = runs.groupby(["ratings", "scale", "rows"], sort=False)
    return by[["ridge MSE", "PRLE MSE", "PRLE / ridge", "of ridge's error removed"]].median().assign(worst=by["PRLE / ridge"].max()).rename(
        columns={"worst": "worst seed's PRLE / ridge"}).reset_index()


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--quick", action="store_true", help="few rows, one scale")
    print(planted_table(**vars(p.parse_args())).round(4).to_string(index=False))
