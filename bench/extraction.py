"""How long it takes to collect the activations of a language model, beside the tools that people would otherwise use.

    python bench/extraction.py            # 10 to 15 minutes on two cores; writes the section of bench/README.md
    python bench/extraction.py --quick    # a smoke run: little model, few texts, nothing written
    python bench/extraction.py --device cuda   # a model of the size of GPT-2 small, and the share of the GPU's bf16 peak

The model is a GPT-2 with random weights: what is computed does not change how long it takes. The contestants are in _contestants.py.
"""
import argparse, json, os, subprocess, sys, tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from _report import ratio, table, versions, write_section  # noqa: E402

PEERS = ("tokenizers", "nnsight", "transformer-lens", "interpreto", "sentence-transformers")
# name -> (what the table calls it, what k2nb is compared with: the contestant whose work is the same)
FULL = {"Store": "k2nb: `embed_dataset` to a store on disk", "Memory": "k2nb: the same without the store",
        "StoreBf16": "k2nb: to a store, bf16", "Hooks": "(a) hooks, one text at a time",
        "HiddenStates": "(b) `output_hidden_states`, padded 32, with the head (rs only)", "NNsight": "(c) nnsight, padded 32",
        "NNsightOne": "(c) nnsight, one text at a time", "Bridge": "(d) TransformerLens bridge, padded 32",
        "BridgeOne": "(d) TransformerLens bridge, one text at a time"}
EARLY = {"StoreEarly": "k2nb: to a store", "StoreBf16Early": "k2nb: to a store, bf16",
         "NNsightEarly": "(c) nnsight, its better way, `tracer.stop()`",
         "BridgeEarly": "(d) TransformerLens bridge, its better way, `stop_at_layer`"}
POINT = {"StoreOne": "k2nb: to a store", "Interpreto": "(f) Interpreto, padded 32", "InterpretoOne": "(f) Interpreto, one text at a time"}
STREAM = {"StoreStream": "k2nb: to a store", "InterpretoAll": "(f) Interpreto `AllLayersSplitter`, one text at a time"}
POOLED = {"Pooled": "k2nb: `embed_dataset(pooling=\"mean\")` to a store", "SentenceTransformers": "(e) sentence-transformers `encode`"}
OURS = ("Store", "Memory", "StoreBf16", "StoreEarly", "StoreBf16Early", "StoreOne", "StoreStream", "Pooled")
BETTER = (("NNsight", "NNsightOne"), ("Bridge", "BridgeOne"), ("Interpreto", "InterpretoOne"))  # of each pair the better one goes on
LIKE = {"NNsightEarly": ("NNsight", "NNsightOne"), "BridgeEarly": ("Bridge", "BridgeOne")}  # read in the way that was the better one
PEAKS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "A10": 125}  # dense bf16 TFLOP/s, from the makers' data sheets


class Worker:
    "A contestant in a process of its own, which waits for its turn."

    def __init__(self, name: str, folder: str, threads: int):
        self.name = name
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1",
               "TOKENIZERS_PARALLELISM": "false",
               "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])}
        self.log = open(Path(folder)/f"{name}.log", "w+")
        self.process = subprocess.Popen([sys.executable, str(HERE/"_contestants.py"), folder, name], env=env, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if line: return json.loads(line)
        self.log.seek(0)
        raise RuntimeError(f"{self.name} ended:\n{self.log.read()[-3000:]}")

    def loaded(self) -> str | None:
        "Wait until it is ready; returns the package that is missing."
        return self._answer().get("missing_package")

    def ask(self, command: str) -> dict:
        print(command, file=self.process.stdin, flush=True)
        return self._answer()

    def end(self) -> None:
        if self.process.poll() is None:
            print("end", file=self.process.stdin, flush=True)
            self.process.wait(60)
        self.log.close()


def make_task(folder: Path, args) -> dict:
    "Write the model, its tokenizer, the texts and the facts. A text of n words is n tokens."
    import torch, transformers
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    vocab, d, heads, n_layers = (50257, 768, 12, 12) if args.device != "cpu" else (997, 32, 4, 8) if args.quick else (50257, 256, 8, 12)
    n, g = args.texts, np.random.default_rng(0)
    lengths = g.integers(5, 257, n)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(vocab_size=vocab, n_embd=d, n_layer=n_layers, n_head=heads, n_positions=256,
                                           bos_token_id=vocab - 1, eos_token_id=vocab - 1)).eval()
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder/"model")
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocab)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    last = f"w{vocab - 1}"
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", eos_token=last).save_pretrained(folder/"model")
    texts = [" ".join(f"w{i}" for i in g.integers(1, vocab - 1, m)) for m in lengths]
    (folder/"texts.txt").write_text("\n".join(texts))
    weights, attended = sum(p.numel() for p in model.transformer.h.parameters()), (lengths.astype(float)**2).sum()
    facts = {"n_layers": n_layers, "d": d, "heads": heads, "vocab": vocab, "lengths": lengths.tolist(), "device": args.device,
             "threads": args.threads, "tokens_per_batch": args.tokens_per_batch,
             "flops": float(2 * weights * lengths.sum() + 4 * n_layers * d * attended)}
    facts["largest"] = write_reference(folder, model, facts, args.device)
    (folder/"task.json").write_text(json.dumps(facts))
    return facts


def write_reference(folder: Path, model, facts: dict, device: str) -> list:
    "What every vector must be: each text alone, plain hooks, float32. Returns the largest value of each key."
    import torch
    (folder/"reference").mkdir()
    keys = [(i, p) for i in range(facts["n_layers"]) for p in ("rs", "attn", "mlp")]
    files, largest = {k: open(folder/"reference"/f"{k[0]:02d}.{k[1]}.f32", "wb") for k in keys}, dict.fromkeys(keys, 0.0)
    def keep(key):
        def hook(module, args, out):
            x = (out[0] if isinstance(out, tuple) else out)[0].float().cpu().numpy()
            largest[key] = max(largest[key], float(np.abs(x).max()))
            files[key].write(x.tobytes())
        return hook
    body = model.transformer.to(device)
    for i, block in enumerate(body.h):
        for part, module in (("rs", block), ("attn", block.attn), ("mlp", block.mlp)): module.register_forward_hook(keep((i, part)))
    with torch.inference_mode():
        for text in (folder/"texts.txt").read_text().splitlines():
            body(input_ids=torch.tensor([[int(w[1:]) for w in text.split()]], device=device), use_cache=False)
    for f in files.values(): f.close()
    return [[list(k), v] for k, v in largest.items()]


def real_sentences(folder: Path, quick: bool) -> str | None:
    "Write sentences and abstracts for the encoders; returns why there are none."
    data = Path(os.environ.get("K2NB_DATA", HERE.parent.parent/"shared"/"data"))
    short, long = data/"ud-english-ewt"/"dev.conllu", data/"csabstruct"/"dev.jsonl"
    if not short.is_file() or not long.is_file(): return "there is no ud-english-ewt and csabstruct in K2NB_DATA"
    sentences = [line[9:].strip() for line in short.read_text(encoding="utf-8").splitlines() if line.startswith("# text = ")]
    abstracts = [" ".join(json.loads(line)["sentences"]) for line in long.read_text(encoding="utf-8").splitlines()]
    found = (sentences[::100] + abstracts[:4]) if quick else (sentences[::5] + abstracts[:60])
    order = np.random.default_rng(0).permutation(len(found))
    (folder/"sentences.txt").write_text("\n".join(" ".join(found[i].split()) for i in order), encoding="utf-8")
    return None


def pooled_difference(folder: Path) -> float | None:
    "Largest difference of the encoders' vectors, made unit length."
    files = [folder/f"{name}.npy" for name in POOLED]
    if not all(f.is_file() for f in files): return None
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in map(np.load, files))
    return float(np.abs(a - b).max())


def best(pair: tuple, runs: dict) -> str:
    "The faster one of those whose vectors are right."
    return min((n for n in pair if n in runs), key=lambda n: (runs[n]["check"].get("difference", 1) > 1e-5, runs[n]["check"]["seconds"]))


def race(folder: Path, names: list[str], args) -> tuple[dict, dict]:
    "Check every contestant (its warm-up), drop the slower of each pair, then time the others in alternation. Returns runs and reasons."
    workers, runs, missing = {name: Worker(name, str(folder), args.threads) for name in names}, {}, {}
    def attempt(name, do):  # a peer that fails is told of, and the others go on
        try: return do()
        except RuntimeError as e:
            if name in OURS: raise
            missing[name] = str(e).strip().splitlines()[-1]
    try:
        for name, worker in workers.items():  # all are ready before the first begins to work
            if (lacks := attempt(name, worker.loaded)): missing[name] = lacks
        for name in sorted((n for n in names if n not in missing), key=lambda n: n in LIKE):
            if any(n in runs for n in LIKE.get(name, ())):
                workers[name].ask(f"size {32 if best(LIKE[name], runs) == LIKE[name][0] else 1}")
            if (answer := attempt(name, lambda: workers[name].ask("check"))): runs[name] = {"check": answer, "seconds": [], "cpu": []}  # noqa: B023
            print(f"  {name}: {missing.get(name) or runs[name]['check']}", file=sys.stderr, flush=True)
        for pair in BETTER:
            for name in pair:
                if name in runs and name != best(pair, runs):
                    runs[name]["slower"] = True
                    workers[name].end()  # its memory is wanted
        going = [n for n in runs if not runs[n].get("slower")]
        for i in range(args.repeats):
            for name in going if i % 2 == 0 else going[::-1]:
                answer = workers[name].ask("run")
                runs[name]["seconds"].append(answer["seconds"])
                runs[name]["cpu"].append(answer["cpu"])
                runs[name]["peak"] = answer["peak"]
            print(f"  round {i + 1} of {args.repeats}", file=sys.stderr, flush=True)
    finally:
        for worker in workers.values(): worker.end()
    return runs, missing


def rows(group: dict, runs: dict, missing: dict, base: str) -> list[list]:
    "A table's rows: seconds, how many times as long as k2nb takes, difference, memory."
    out = []
    for name, label in group.items():
        if name in missing: out.append([label, "not run", "", "", ""])
        if name not in runs: continue
        run = runs[name]
        equal = run["check"].get("difference")
        equal = "" if equal is None else f"{equal:.0e}" if not run["check"]["missing"] else "incomplete"
        if run["check"].get("error"): equal = "**not equal**: " + run["check"]["error"]
        elif run["check"].get("difference", 0) > 1e-5 and "Bf16" not in name: equal = f"**{run['check']['difference']:.0e}**"
        if run.get("slower"):
            out.append([label, f"({run['check']['seconds']:.2f})", "not right" if "*" in equal else "slower of the two", equal, ""])
            continue
        times = "1" if name == base else "{:.2f} ({:.2f}–{:.2f})".format(*ratio(run["seconds"], runs[base]["seconds"]))
        out.append([label, f"{np.median(run['seconds']):.2f}", times, equal, f"{run['peak']:.0f}" if run["peak"] else ""])
    return out


def goals(runs: dict) -> list[list]:
    "What was to be reached, and whether it was."
    def line(text, slow, fast, least):
        if not all(n in runs and runs[n]["seconds"] for n in (slow, fast)): return [text, f"≥ {least:g}", "not run", ""]
        r = ratio(runs[slow]["seconds"], runs[fast]["seconds"])
        return [text, f"≥ {least:g}", f"{r[0]:.2f} ({r[1]:.2f}–{r[2]:.2f})", "yes" if r[0] >= least else "**no**"]
    def better(pair): return next((n for n in pair if n in runs and runs[n]["seconds"]), pair[0])
    nnsight, bridge, interpreto = map(better, BETTER)
    out = [line("(b) ÷ k2nb, all layers, fp32", "HiddenStates", "Store", 4),
           line("(b) ÷ k2nb, layers 0–5", "HiddenStates", "StoreEarly", 7),
           line("(b) ÷ k2nb, bf16", "HiddenStates", "StoreBf16", 7),
           line("(b) ÷ k2nb, layers 0–5, bf16", "HiddenStates", "StoreBf16Early", 7),
           line("(a) ÷ k2nb", "Hooks", "Store", 1), line("(c) ÷ k2nb", nnsight, "Store", 1), line("(d) ÷ k2nb", bridge, "Store", 1),
           line("(e) ÷ k2nb", "SentenceTransformers", "Pooled", 1), line("(f) ÷ k2nb, rs of one layer", interpreto, "StoreOne", 1),
           line("(f) ÷ k2nb, rs of all layers", "InterpretoAll", "StoreStream", 1)]
    if "Store" in runs and "Memory" in runs:
        r = ratio(runs["Store"]["seconds"], runs["Memory"]["seconds"])
        spread = f"{r[0] - 1:.1%} ({r[1] - 1:.1%}–{r[2] - 1:.1%})"
        out.append(["the store (shards, checksums, writing), of the time without it", "< 5 %", spread, "yes" if r[0] < 1.05 else "**no**"])
    return out


def report(runs: dict, missing: dict, facts: dict, args, why_no_texts: str | None, folder: Path) -> str:
    head = ["", "seconds", "× k2nb's", "difference", "peak MiB"]
    n, tokens = len(facts["lengths"]), sum(facts["lengths"])
    text = [f"GPT-2 with random weights, {facts['n_layers']} layers, d = {facts['d']}, {facts['heads']} heads, vocabulary "
            f"{facts['vocab']:,}, float32 on {args.device}; {n} texts of 5–256 tokens ({tokens:,} in all), as they come. Medians of "
            f"{args.repeats} rounds. "
            "*Difference*: the largest difference from each text read alone, of all vectors, as a share of the largest value of that layer "
            "and part; more than 1e-5 is bold. *Peak*: of the whole process. k2nb is given texts and leaves a store on disk; the peers are "
            "given token ids (Interpreto: texts) and keep what they find in memory, uncopied where they allow that. Where a peer was tried "
            "in two ways, the better one went on, and the other's only run is in brackets.",
            f"**rs, attn and mlp of all layers**\n\n{table(head, rows(FULL, runs, missing, 'Store'))}",
            f"**rs, attn and mlp of layers 0–5**\n\n{table(head, rows(EARLY, runs, missing, 'StoreEarly'))}",
            f"**rs of layer 5 alone** (Interpreto reads one place a pass)\n\n{table(head, rows(POINT, runs, missing, 'StoreOne'))}",
            f"**rs of all layers**\n\n{table(head, rows(STREAM, runs, missing, 'StoreStream'))}"]
    apart = pooled_difference(folder)
    if why_no_texts: text.append(f"**Pooled vectors of MiniLM** were not run: {why_no_texts}.")
    else:
        n = len((folder/"sentences.txt").read_text(encoding="utf-8").splitlines())
        text.append(f"**Pooled vectors of all-MiniLM-L6-v2**, {n} English sentences and abstracts (largest difference of unit vectors: "
                    f"{'not known' if apart is None else f'{apart:.0e}'})\n\n{table(head, rows(POOLED, runs, missing, 'Pooled'))}")
    bf16 = runs["StoreBf16"]["check"]
    text.append(f"**bf16**, model and vectors: largest difference from float32 {bf16['difference']:.1%} of the largest value of its layer "
                f"and part; smallest cosine of any vector {bf16['cosine']:.5f}.")
    if args.device != "cpu": text.append(share_of_peak(runs, facts, args))
    text.append(f"**To reach**\n\n{table(['', 'goal', 'measured', 'reached'], goals(runs))}")
    if missing: text.append("Not run: " + "; ".join(f"{k} ({v})" for k, v in missing.items()) + ".")
    return "\n\n".join(text)


def share_of_peak(runs: dict, facts: dict, args) -> str:
    "Arithmetic that the real tokens need, over what the GPU could do in that time."
    import torch
    name = torch.cuda.get_device_name(0)
    peak = args.peak or next((v for k, v in PEAKS.items() if k in name), None)
    rate = facts["flops"] / np.median(runs["StoreBf16"]["seconds"]) / 1e12
    share = f", {rate / peak:.1%}" if peak else ""
    return f"**Share of the bf16 peak**: {rate:.1f} TFLOP/s of the {peak or 'unknown'} of {name}{share}."


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--quick", action="store_true", help="little model, few texts, two rounds; bench/README.md stays as it is")
    p.add_argument("--repeats", type=int, help="rounds (default 3)")
    p.add_argument("--texts", type=int, help="how many (default 192; 512 on a GPU, which are 7 GB of vectors)")
    p.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count(), help="CPU threads of each")
    p.add_argument("--device", default="cpu", help="cpu or cuda")
    p.add_argument("--tokens-per-batch", type=int, help="of k2nb (default 2048; 65536 on a GPU)")
    p.add_argument("--peak", type=float, help="the GPU's dense bf16 TFLOP/s, where the script does not know it")
    p.add_argument("--only", help="names from _contestants.py, with commas between; writes no table")
    p.add_argument("--json", help="a file for all the numbers")
    args = p.parse_args()
    gpu = args.device != "cpu"
    args.repeats = args.repeats or (2 if args.quick else 3)
    args.texts = args.texts or (24 if args.quick else 512 if gpu else 192)
    args.tokens_per_batch = args.tokens_per_batch or (65536 if gpu else 2048)
    return args


def main() -> None:
    args = arguments()
    import torch
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(prefix="k2nb-bench-") as place:
        folder = Path(place)
        facts, why = make_task(folder, args), real_sentences(folder, args.quick)
        groups = [FULL, EARLY, POINT, STREAM] + ([] if why else [POOLED])
        names = args.only.split(",") if args.only else [n for g in groups for n in g]
        runs, missing = race(folder, names, args)
        numbers = {"facts": {k: v for k, v in facts.items() if k != "lengths"}, "runs": runs, "missing": missing,
                   "versions": versions("torch", "transformers", *PEERS)}
        if args.json: Path(args.json).write_text(json.dumps(numbers, indent=1))
        if args.only:
            for name in runs: print(json.dumps({name: runs[name]}))
            return
        text = report(runs, missing, facts, args, why, folder)
    print(text if not args.quick else f"{text}\n\nA smoke run: these figures say nothing.")
    command = f"OMP_NUM_THREADS={args.threads} python bench/extraction.py" + (f" --device {args.device}" if args.device != "cpu" else "")
    name = "extraction" if args.device == "cpu" else "extraction-gpu"
    if not args.quick: write_section(name, f"Collecting activations{' on a GPU' * (args.device != 'cpu')}", command, text, PEERS)


if __name__ == "__main__": main()
