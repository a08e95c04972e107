"""Prompts that fire SAE features: EPO beside chance, the corpus, and the embedding search as published and with its gradient repaired."""
import inspect, os, time
from pathlib import Path

import numpy as np
import torch

from _report import table
from k2nb.core import hash_json, read_json, rng, write_json
from k2nb.planted import documents
from k2nb.sae import as_subject, collect_features, load_sae, optimize_features
from k2nb.sae.inversion_benchmark import _published
from k2nb.sae.pools import corpus_windows

KEPT = Path(__file__).parent.parent / "build" / "sae_searches"  # a line a search, so that a run that was interrupted goes on
CORPUS = 600  # held-out documents whose strongest activation is the measure; no SAE and no model was trained on them
CORPUS_SEED = 9_041
SEEDED = {"seed_windows": 64, "pool": 8, "init": "unigram", "population": 3, "penalties": (0., .02, .2)}  # few members, many steps


def ours(subject, sae, features, evidence, seed: int, limit: float, **how) -> list[dict]:
    "One of k2nb's searches."
    if how.get("method") == "dataset": features = [f for f in features if len(corpus_windows(subject, evidence, f, 10, 1))]
    found = optimize_features(subject, sae, features, evidence=evidence, random_state=seed, show=False, **how)
    rows = [{"feature": r.feature_id, "activation": r.activation, "nats": r.cross_entropy, "whole": r.round_trip, "passes": r.n_passes}
            for r in found]
    for row, r in zip(rows, found): row["fluent"] = 0. if (f := r.fluent(limit)) is None else f.activation
    return rows


def pick(evidence, n: int, seed: int) -> list[int]:
    "n live features with a token density of .005 to .5."
    density = np.asarray(evidence.token_statistics.density)
    live = np.flatnonzero((density > .005) & (density < .5))
    return rng(seed, "features").permutation(live)[:n].tolist()


@torch.no_grad()
def window_maximum(subject, sae, documents, length: int = 10) -> np.ndarray:
    "(F,) strongest activation in any window of so many tokens that is run alone, behind a begin token, as prompts are."
    windows = torch.tensor(sorted({tuple(d[a:a + length]) for d in documents for a in range(len(d) - length + 1)}))
    at, out = subject.check_sae(sae), torch.zeros(sae.n_features)
    for ids in windows.split(512):
        stream = subject.run(subject.begin(ids), at=at, logits=False).stream[:, subject.first:]
        out = torch.maximum(out, sae.encode(stream.float()).amax((0, 1)))
    return out.numpy()


def interval(x, statistic) -> str:
    "A statistic of features and its 95 % bootstrap interval over features."
    x = np.asarray(x, float)
    draws = statistic(x[rng(0, "bootstrap").integers(len(x), size=(2000, len(x)))], axis=1)
    low, high = np.quantile(draws, [.025, .975])
    return f"{statistic(x):.2f} ({low:.2f}–{high:.2f})"


def _code() -> str:
    "Hash of the searches' source: what it changes is measured anew."
    from k2nb.sae import ascent, epo, inversion, objective, pools
    return hash_json([*(inspect.getsource(m) for m in (ascent, epo, inversion, objective, pools)), inspect.getsource(run)])


def run(subject, sae, evidence, plans, seeds: int, n: int, limit: float, steps: tuple) -> str:
    "All plans on the same features; `plans` is name -> (seeds at most, function of (features, seed) -> rows); `steps` are those they were made with."
    top, alone, lines = np.asarray(evidence.maximum), None, []
    for name, (most, search) in plans.items():
        kept = KEPT / f"{hash_json([name, sae.hash, subject.hash, min(seeds, most), n, round(limit, 4), steps, SEEDED, _code()])}.json"
        if kept.exists():
            lines.append(read_json(kept, 1)["line"])
            continue
        if alone is None: alone = window_maximum(subject, sae, evidence.ids)
        rows, cpu, wall = [], time.process_time(), time.monotonic()
        for seed in range(min(seeds, most)):
            features = pick(evidence, n, seed)
            for r in search(features, seed):
                fluent = r.get("fluent", r["activation"] if r["nats"] <= limit else 0.)
                rows.append(r | {"R": r["activation"] / top[r["feature"]], "F": fluent / top[r["feature"]]})
        cpu, wall = (time.process_time() - cpu) / len(rows), (time.monotonic() - wall) / len(rows)
        R, F = np.array([r["R"] for r in rows]), np.array([r["F"] for r in rows])
        whole, passes = np.mean([r["whole"] for r in rows]), np.mean([r["passes"] for r in rows])
        beats = np.array([r["activation"] >= .9999 * alone[r["feature"]] for r in rows])
        lines.append([name, len(rows), f"{(R > 0).mean():.1%}", interval(R >= .9999, np.mean), interval(beats, np.mean), interval(R, np.median),
                      interval(F, np.median), f"{whole:.0%}", f"{passes:,.0f}", f"{cpu:.2f}", f"{wall:.2f}"])
        print(" | ".join(map(str, lines[-1])), flush=True)
        KEPT.mkdir(parents=True, exist_ok=True)
        write_json(kept, {"line": lines[-1]}, 1)
    return table(["search", "features", "fires", "R ≥ 1", "≥ any window", "median R", "median R, fluent", "survives", "passes", "CPU s", "s"], lines)


_MAIN = ("random, corpus' unigrams", "the corpus' 32 best windows", "EPO from text the model writes", "EPO seeded by windows")


def _plans(subject, sae, evidence, limit: float, steps: int, seeded_steps: int) -> dict:
    def k2(**how): return lambda features, seed: ours(subject, sae, features, evidence, seed, limit, **how)
    as_many = dict(method="random", max_steps=steps + 9)  # at least as many prompts as EPO has passes
    return {
        "published (no gradient)": (3, lambda f, s: _published(subject, sae, f, False, s)),
        "its gradient repaired": (3, lambda f, s: _published(subject, sae, f, True, s)),
        "random, uniform tokens": (3, k2(init="uniform", **as_many)),
        "random, corpus' unigrams": (3, k2(init="unigram", **as_many)),
        "random, text the model writes": (3, k2(init="model", **as_many)),
        "the corpus' 32 best windows": (3, k2(method="dataset", seed_windows=32)),
        "gradient ascent, 4 restarts": (1, k2(method="gradient", max_steps=100)),
        "GCG": (1, k2(method="gcg", max_steps=steps)),
        "EPO from uniform tokens": (1, k2(init="uniform", max_steps=steps)),
        "EPO from text the model writes": (3, k2(max_steps=steps)),
        "EPO seeded by windows": (3, k2(**SEEDED, max_steps=seeded_steps)),
    }


_READ = ("R: activation of the prompt's text, run again behind a begin token, over the strongest activation on held-out text (whole "
         "documents, all positions but the begin token). *≥ any window*: as strong as every window of ten tokens of that text, each run "
         "alone as prompts are. In brackets 95 % bootstrap intervals over features. *Fluent*: the best prompt "
         "whose "
         "cross-entropy is at most that of the corpus' windows of ten tokens plus one nat; {limit:.2f} nats a token here. *Survives*: the "
         "text is tokenised to the prompt's tokens again. *CPU s*: processor seconds a feature, eight features at once; *s*: wall seconds. "
         "Random prompts are run once for all features of a seed, and each is charged for all of them. "
         "Features of which no window of ten tokens survives are missing in the line of windows.")


def tiny_text(seeds: int, n: int, quick: bool) -> str:
    "The packaged SAE of k2-tiny's last block."
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    subject, sae = as_subject("k2-tiny", device="cpu"), load_sae("k2-tiny", device="cpu")
    evidence = collect_features(subject, sae, documents(60 if quick else CORPUS, random_state=CORPUS_SEED).texts, show_progress=False)
    limit = _limit(subject, evidence)
    steps = (3, 3) if quick else (40, 36)
    text = run(subject, sae, evidence, _plans(subject, sae, evidence, limit, *steps), seeds, n, limit, steps)
    return f"{n} features a seed, {seeds} seeds (`GCG` and ascent: one), prompts of ten tokens. {_READ.format(limit=limit)}\n\n{text}"


def _limit(subject, evidence) -> float:
    from k2nb.sae.inversion import window_cross_entropy
    return window_cross_entropy(subject, evidence.ids, 10) + 1


def stories_text(seeds: int, n: int, quick: bool) -> str:
    "stories260K, block 3: a peaky SAE (L0 5) and the usual one (L0 16)."
    from _sae_quality import stories_sae
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    parts = []
    for l0, most in ((5, seeds), (16, 1)):
        subject, sae, _, held_out = stories_sae(l0=l0)
        evidence = collect_features(subject, sae, held_out[:50] if quick else held_out, show_progress=False)
        limit = _limit(subject, evidence)
        steps = (3, 3) if quick else (67, 36)
        plans = _plans(subject, sae, evidence, limit, *steps)
        if l0 == 16: plans = {n: plans[n] for n in _MAIN}
        text = run(subject, sae, evidence, plans, most, n, limit, steps)
        parts.append(f"**L0 {l0}**, {n} features a seed, seeds: {most}; fluent: at most {limit:.2f} nats a token.\n\n{text}")
    told = ("An SAE of 512 features at block 3, trained on the model's text and on text it wrote. Read as the table of k2-tiny; some 8,000 "
            "passes, seeded 2,000. *≥ any window*: as strong as every window of ten tokens of the held-out text, each run alone behind a begin "
            "token, as prompts are: the maximum over whole documents may need more context than a prompt has room for.")
    return "\n\n".join([told, *parts])
