"""How good the room's SAEs are: those in the package, and SAEs of a really trained model, stories260K.

    python bench/sae.py --only quality            (or python bench/_sae_quality.py [--seeds 3] [--quick])

`stories_sae` hands the model, an SAE, and its texts to the inversion benchmark; what it trained is kept in build/stories_sae.
"""
import argparse, os, re, sys, time, warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

import torch

from _report import table
from k2nb import planted
from k2nb.core import MissingFileError, hash_json, read_json, rng, write_json
from k2nb.embedding import embed_dataset
from k2nb.sae.saelens import PACKAGED_SAES, load_sae
from k2nb.sae.saes import SparseAutoencoder, holds_sae, read_sae, save_sae
from k2nb.sae.subject import Subject, as_subject
from k2nb.sae.training import sae_quality, train_sae

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT/"build"/"stories_sae"
STORIES = {"n_written": 1536, "tokens": 220, "random_state": 0}  # what the model writes itself
SETTINGS = {"layer": 3, "n_features": 512, "steps": 2000, "batch_size": 512}


def data() -> Path:
    "The folder of real data, which is no part of the repository."
    folder = Path(os.environ.get("K2NB_DATA", ROOT.parent/"shared"/"data"))
    if (folder/"stories260K").is_dir(): return folder
    raise MissingFileError("the model stories260K is not there; set K2NB_DATA to the folder that holds it")


def told_stories() -> list[str]:
    "The sample's stories: the file runs them together, and a paragraph that opens one begins a new one."
    paragraphs = re.split(r"\n\n+", (data()/"tinystories-sample"/"tinystories.txt").read_text(encoding="utf-8").strip())
    stories = []
    for p in paragraphs:
        if not stories or re.match(r"Once upon|Once there|One day, (a|an|two|there) |There (was|once) ", p): stories.append(p)
        else: stories[-1] += "\n\n" + p
    return [s for s in stories if len(s) > 60]


def written_stories(subject: Subject, n_written: int, tokens: int, random_state: int) -> list[str]:
    "Stories that the model writes by sampling at temperature 1."
    model, out = subject.lm.whole, []
    torch.manual_seed(random_state)
    with torch.no_grad():
        for a in range(0, n_written, 256):
            start = torch.full((min(256, n_written - a), 1), subject.bos_id)
            ids = model.generate(start, attention_mask=torch.ones_like(start), do_sample=True, top_k=0, temperature=1.0,
                                 max_new_tokens=tokens, pad_token_id=subject.bos_id)
            out += [subject.tokenizer.decode(row, skip_special_tokens=True).strip() for row in ids.tolist()]
    return [s for s in out if len(s) > 60]


def stories_texts(cache: Path, subject: Subject) -> tuple[list[str], list[str]]:
    "(training, held out): a seventh of the stories of each kind is held out, story by story."
    path = cache/"stories.json"
    if not path.is_file(): write_json(path, {"written": written_stories(subject, **STORIES)}, 1)
    train, held_out = [], []
    for i, stories in enumerate((told_stories(), read_json(path, 1)["written"])):
        order = rng(0, "stories", i).permutation(len(stories))
        cut = len(stories) // 7
        held_out += [stories[j] for j in order[:cut]]
        train += [stories[j] for j in order[cut:]]
    return train, held_out


def stories_sae(
    folder_cache: str | Path | None = None,  # what is written and trained is kept here; None: build/stories_sae
    l0: float = 16,  # features that fire at a token: 16, or 5 for a peaky SAE
    seed: int = 0,  # of the SAE's training; the texts are always the same
    **settings,  # other than SETTINGS, for train_sae
) -> tuple[Subject, SparseAutoencoder, list[str], list[str]]:  # subject, sae, training texts, held-out texts
    "stories260K and an SAE of its block 3, trained on stories that people wrote and stories that it wrote."
    cache = Path(folder_cache or CACHE)
    subject = as_subject(str(data()/"stories260K"), device="cpu")
    train, held_out = stories_texts(cache, subject)
    how = {**SETTINGS, **settings, "k": l0, "random_state": seed}
    kept = cache/f"sae-{hash_json([how, hash_json(train)])[:12]}"
    if not holds_sae(kept):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a few of the sample's stories are longer than the model's context, and are cut
            store = embed_dataset(train, model_name=subject.lm, output_dir=cache/f"store-{hash_json(train)[:8]}", layers=how["layer"],
                                  pooling="none", progress=False)
        save_sae(replace(train_sae(store, device="cpu", **how), name=f"stories260K L0 {l0:g}"), kept)
    return subject, read_sae(kept, "cpu"), train, held_out


def row(name: str, subject, sae, texts) -> dict:
    "A line of the table; 95 % intervals over texts in brackets."
    q = sae_quality(subject, sae, texts, show=False)
    v, lo, hi = (q.table[c] for c in ("value", "low", "high"))
    def ranged(n): return f"{v[n]:.3f} ({lo[n]:.3f}–{hi[n]:.3f})"
    return {"SAE": name, "features": sae.n_features, "L0": f"{v['L0']:.1f}", "explained variance": ranged("explained variance"),
            "recovered, mean": ranged("loss recovered, against the mean"), "recovered, zeros": f"{v['loss recovered, against zeros']:.3f}",
            "nats": f"{v['nats a token, clean']:.3f} → {v['nats a token, spliced']:.3f}", "dead": f"{q.dead:.1%}",
            "density .005–.5": q.figures["features with density .005 to .5"], "held-out tokens": f"{q.n_tokens:,}"}


def quality_rows(seeds: int = 3, quick: bool = False) -> Iterator[dict]:
    "Line by line, so that a long run shows what it has."
    subject, texts = as_subject("k2-tiny", device="cpu"), planted.documents(100 if quick else 400, random_state=499).texts
    for sae_id in PACKAGED_SAES["k2-tiny"]: yield row(f"k2-tiny, {sae_id} (packaged)", subject, load_sae("k2-tiny", sae_id, "cpu"), texts)
    settings = {"steps": 300} if quick else {}
    for l0 in (16, 5):
        for seed in range(seeds):
            s, sae, _, held_out = stories_sae(l0=l0, seed=seed, **settings)
            yield row(f"stories260K, block 3, k = {l0}, seed {seed}", s, sae, held_out[:60] if quick else held_out)


def quality_text(seeds: int = 3, quick: bool = False) -> str:
    "The table in Markdown."
    rows = list(quality_rows(seeds, quick))
    return table(list(rows[0]), [list(r.values()) for r in rows])


def main(argv=None) -> None:
    "Print the table, line by line as it comes, and then whole."
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seeds", type=int, default=3); p.add_argument("--quick", action="store_true")
    args = p.parse_args(argv)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    rows, began = [], time.perf_counter()
    for r in quality_rows(args.seeds, args.quick):
        rows.append(r)
        print(f"{time.perf_counter() - began:5.0f} s  {r}", flush=True)
    print(table(list(rows[0]), [list(r.values()) for r in rows]))


if __name__ == "__main__": main()
