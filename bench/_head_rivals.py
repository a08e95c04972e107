"""Contestants of bench/heads.py: scikit-learn's classifiers as people use them, the original's recipe, and k2nb's heads.

A contestant is a call (X, y, groups, meta, seed) -> `Fitted`. All see the same rows; where rows have groups, whatever a contestant of
scikit-learn or k2nb holds out inside them respects the groups.
"""
import hashlib, inspect, json, re, sys, warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))


class Fitted(NamedTuple):
    "What a fit leaves behind."
    classes: np.ndarray  # sorted
    scores: Callable  # X -> (n, classes): what ROC curves are made of
    proba: Callable | None  # X -> (n, classes); None: it has no probabilities
    predict: Callable  # X -> (n,) classes


class Contestant(NamedTuple):
    "How it is called in the tables, and how it is fitted."
    name: str
    fit: Callable
    source: str = ""  # the module of k2nb/heads that it uses, if any
    settings: dict = {}  # what it is called with


def splits(y, groups, n: int, seed: int) -> list:
    "Stratified folds; of whole groups, where there are groups."
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    return list(kind(n, shuffle=True, random_state=seed).split(np.zeros(len(y)), y, groups))


def macro_auc(y, scores, classes) -> float:
    "Area under the ROC curve, one class against the rest, averaged over the classes that the rows have; two classes: of the second."
    from sklearn.metrics import roc_auc_score
    if len(classes) == 2: return float(roc_auc_score(y == classes[1], scores[:, 1]))
    here = [i for i, c in enumerate(classes) if 0 < (y == c).sum() < len(y)]
    return float(np.mean([roc_auc_score(y == classes[i], scores[:, i]) for i in here]))


def _columns(scores) -> np.ndarray:
    return np.column_stack([-scores, scores]) if scores.ndim == 1 else scores


def _sklearn(model) -> Fitted:
    proba = model.predict_proba if hasattr(model, "predict_proba") else None
    return Fitted(model.classes_, proba or (lambda X: _columns(model.decision_function(X))), proba, model.predict)


def logistic(scoring: str) -> Callable:
    "LogisticRegressionCV after a StandardScaler: ten C from 1e-4 to 1e4, five folds."
    def fit(X, y, groups, meta, seed):
        from sklearn.linear_model import LogisticRegressionCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        model = LogisticRegressionCV(Cs=10, l1_ratios=(0.,), cv=splits(y, groups, 5, seed), scoring=scoring, max_iter=100,
                                     use_legacy_attributes=False)
        return _sklearn(make_pipeline(StandardScaler(), model).fit(X, y))
    return fit


def svm(X, y, groups, meta, seed) -> Fitted:
    "SVC with its defaults after a StandardScaler."
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
    return _sklearn(make_pipeline(StandardScaler(), SVC(random_state=seed)).fit(X, y))


def svm_tuned(X, y, groups, meta, seed) -> Fitted:
    """SVC after a StandardScaler with C and gamma of the best macro AUC over three inner folds. All kernels are made of one matrix of
    squared distances, which changes no result and saves most of the time."""
    from sklearn.metrics.pairwise import euclidean_distances
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
    scaler = StandardScaler().fit(X)
    X = scaler.transform(X).astype(np.float64)
    far, inner, classes = euclidean_distances(X, squared=True), splits(y, groups, 3, seed), np.unique(y)
    found = {}
    for gamma in np.array([.1, .3, 1., 3.]) / (X.shape[1] * X.var()):  # around SVC's own gamma="scale"
        K = np.exp(-gamma * far)
        for C in (.1, 1., 10., 100.):
            models = [SVC(C=C, kernel="precomputed").fit(K[np.ix_(a, a)], y[a]) for a, _ in inner]
            found[C, gamma] = np.mean([macro_auc(y[b], _columns(m.decision_function(K[np.ix_(b, a)])), classes)
                                       for m, (a, b) in zip(models, inner)])
    C, gamma = max(found, key=found.get)
    model = SVC(C=C, kernel="precomputed").fit(np.exp(-gamma * far), y)

    def kernel(Z): return np.exp(-gamma * euclidean_distances(scaler.transform(Z).astype(np.float64), X, squared=True))
    return Fitted(model.classes_, lambda Z: _columns(model.decision_function(kernel(Z))), None, lambda Z: model.predict(kernel(Z)))


def boosting(X, y, groups, meta, seed) -> Fitted:
    "HistGradientBoostingClassifier with its defaults."
    from sklearn.ensemble import HistGradientBoostingClassifier
    return _sklearn(HistGradientBoostingClassifier(random_state=seed).fit(X, y))


def recipe(model_type: str) -> Callable:
    """What pingkit's cross_validate does with its defaults in each fold, written from its facts: the features as they are, widths by the
    seed formula, dropout .3, Adam with step 1e-3, batches of 128, at most 100 epochs, 15 % held out (stratified), the weights of the best
    macro AUC there, stopped when eleven epochs in a row bring no better one. The CNN's loss is cross-entropy and its contrastive loss. A
    last batch of one row, on which it would fail, is left out."""
    def fit(X, y, groups, meta, seed):
        import torch
        from sklearn.model_selection import StratifiedShuffleSplit

        from k2nb.heads.cnn import PlugContrastiveCNN
        from k2nb.heads.mlp import PlugClassifier
        classes, codes = np.unique(y, return_inverse=True)
        train, held = next(StratifiedShuffleSplit(1, test_size=.15, random_state=seed).split(X, codes))
        how = {"num_classes": len(classes), "n_examples": len(train), "p_drop": .3, "sizing": "seed", "random_state": seed}
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that its size misses its aim is known here
            if model_type == "mlp": net = PlugClassifier(X.shape[1], **how)
            else: net = PlugContrastiveCNN(len(meta["parts"]), len(meta["layers"]), meta["hidden_size"], **how)
        x, t = torch.from_numpy(np.ascontiguousarray(X[train])), torch.from_numpy(codes[train])

        def logits(Z): return net(Z) if model_type == "mlp" else net(Z)[0]

        def proba(Z):
            net.eval()
            with torch.no_grad(): return torch.softmax(logits(torch.from_numpy(np.ascontiguousarray(Z, np.float32))), 1).double().numpy()

        def loss(rows):
            if model_type == "mlp": return torch.nn.functional.cross_entropy(net(x[rows]), t[rows])
            found, embedding = net(x[rows])
            return torch.nn.functional.cross_entropy(found, t[rows]) + _pulled(embedding, t[rows])

        adam, best, kept, stale = torch.optim.Adam(net.parameters(), lr=1e-3), -np.inf, None, 0
        for _ in range(100):
            net.train()
            for rows in torch.randperm(len(x)).split(128):
                if len(rows) == 1: continue
                adam.zero_grad()
                loss(rows).backward()
                adam.step()
            score = macro_auc(y[held], proba(X[held]), classes)
            stale = 0 if score > best else stale + 1
            if not stale: best, kept = score, {k: v.clone() for k, v in net.state_dict().items()}
            if stale > 10: break
        net.load_state_dict(kept)
        return Fitted(classes, proba, proba, lambda Z: classes[proba(Z).argmax(1)])
    return fit


def _pulled(embedding, labels):
    "The recipe's contrastive loss at temperature .07: a row is one of its own positives, with similarity 0."
    import torch
    z = torch.nn.functional.normalize(embedding, dim=1)
    alone = torch.eye(len(z), dtype=torch.bool)
    near = z @ z.T / .07
    logs = near.masked_fill(alone, 0.) - near.masked_fill(alone, -torch.inf).logsumexp(1, keepdim=True)
    same = (labels[:, None] == labels).double()
    return -((same * logs).sum(1) / same.sum(1)).mean()


def head(**settings) -> Callable:
    "k2nb's HeadClassifier with these settings and otherwise its defaults."
    def fit(X, y, groups, meta, seed):
        from k2nb.heads.estimator import HeadClassifier
        more = {"meta": meta} if settings.get("model_type") == "cnn" else {}
        model = HeadClassifier(**settings, **more, random_state=seed, device="cpu", progress=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # sizes that miss their aim are part of what is shown
            return _sklearn(model.fit(X, y, groups=groups))
    return fit


RIVALS = {  # key -> contestant
    "lr": Contestant("LogReg, log loss", logistic("neg_log_loss"), settings={"scoring": "log loss"}),
    "lr-accuracy": Contestant("LogReg, accuracy", logistic("accuracy"), settings={"scoring": "accuracy"}),
    "svm": Contestant("SVC", svm), "svm-tuned": Contestant("SVC, tuned", svm_tuned),
    "boosting": Contestant("HistGB", boosting),
    "recipe": Contestant("recipe", recipe("mlp"), "mlp"),
    "recipe-cnn": Contestant("recipe, CNN", recipe("cnn"), "cnn"),
}
VARIANTS = {  # key -> settings of a head
    "ours": {}, "no anchor": {"anchor": None}, "blend": {"anchor": "blend"}, "from logistic": {"anchor": "logistic"},
    "no interactions": {"max_interactions": 0}, "seed sizes": {"sizing": "seed"}, "exact sizes": {"sizing": "exact"},
    "one member": {"n_ensemble": 1},
    "cnn": {"model_type": "cnn"}, "cnn, one, no anchor": {"model_type": "cnn", "anchor": None, "n_ensemble": 1},
}
OURS = {key: Contestant(f"k2nb, {key}" if kw else "k2nb", head(**kw), "estimator", kw) for key, kw in VARIANTS.items()}
CONTESTANTS = {**RIVALS, **OURS}


def _code(module: str, seen: dict) -> dict:
    "Texts of a module of k2nb/heads and of all that it imports from there."
    path = HERE.parent/"k2nb"/"heads"/f"{module}.py"
    if module and module not in seen and path.exists():
        seen[module] = path.read_text(encoding="utf-8")
        for name in re.findall(r"from (?:\.|k2nb\.heads\.)(\w+) import", seen[module]): _code(name, seen)
    return seen


def fingerprint(key: str) -> str:
    "What a contestant's result depends on besides the task: its code, its settings, and the libraries. Results are kept under it."
    import sklearn, torch
    who = CONTESTANTS[key]
    code = [inspect.getsource(f) for f in (splits, macro_auc, _columns, _sklearn, who.fit, *[_pulled] * (who.source == "cnn"))]
    facts = [code, _code(who.source, {}), who.settings, sklearn.__version__, torch.__version__]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
