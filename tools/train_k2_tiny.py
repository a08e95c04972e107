"""Train k2-tiny, the language model that travels with the package, on the planted world.

    python tools/train_k2_tiny.py            # about 30 minutes on 2 CPU cores; resumes where it was interrupted

Tokenizer, data and model all follow from the seeds below; documents of the training seed are used nowhere else.
"""
import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from k2nb.core import atomic_path, load_tensors, progress, rng, save_tensors
from k2nb.planted import document_text, documents

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "k2nb" / "data" / "k2-tiny"
WORK = ROOT / "build" / "k2-tiny"
TRAIN_SEED, INIT_SEED = 2_402_117, 29  # no test and no example uses these
VOCAB, CONTEXT, LAYERS, WIDTH, HEADS = 1536, 128, 4, 128, 4
BATCH, WARMUP = 96, 150
CYCLES = ((1500, 3e-3), (550, 1.2e-3))  # steps and peak learning rate: a cosine, and a shorter warm restart (Loshchilov & Hutter 2017)
STEPS = sum(steps for steps, _ in CYCLES)
END = "<|endoftext|>"
# GPT-2's words, but every punctuation mark for itself, so that a comma before a quotation mark stays a comma
WORDS = Regex(r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]|\s+(?!\S)|\s+")


def training_text(i: int) -> str:
    "The i-th training document, its labels drawn like a coin."
    concept, pair = rng(TRAIN_SEED, "label", i).integers(2, size=2).astype(bool)
    return document_text(i, TRAIN_SEED, concept, pair)[0]


def train_tokenizer() -> PreTrainedTokenizerFast:
    "Byte-level BPE like GPT-2's; every text begins with the end-of-text token, as the training documents do."
    tok = Tokenizer(models.BPE())
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(WORDS, "isolated"), to_bytes])
    tok.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tok.train_from_iterator((training_text(i) for i in range(20_000)), trainer)
    tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), processors.TemplateProcessing(
        single=f"{END} $A", pair=f"{END} $A {END} $B", special_tokens=[(END, tok.token_to_id(END))])])
    return PreTrainedTokenizerFast(tokenizer_object=tok, bos_token=END, eos_token=END, model_max_length=CONTEXT,
                                   clean_up_tokenization_spaces=False)


def batch(tok, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    "Ids and labels (B, T) of one step: every document is seen once."
    rows = [[*ids, tok.eos_token_id][:CONTEXT] for ids in tok([training_text(step * BATCH + j) for j in range(BATCH)])["input_ids"]]
    width = max(map(len, rows))
    ids = torch.tensor([r + [tok.eos_token_id] * (width - len(r)) for r in rows])
    inside = torch.arange(width) < torch.tensor([len(r) for r in rows])[:, None]
    return ids, ids.masked_fill(~inside, -100)


def learning_rate(step: int) -> float:
    "In each cycle a linear warm-up, in the first one alone, then a cosine to a hundredth of its peak."
    (steps, peak), warmup = CYCLES[0], WARMUP
    if step >= steps: step, (steps, peak), warmup = step - steps, CYCLES[1], 0
    if step < warmup: return peak * (step + 1) / warmup
    return peak * (.01 + .99 * .5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))))


def save_state(model, opt, step: int) -> None:
    names = [n for n, _ in model.named_parameters()]
    state = {f"p.{n}": p for n, p in model.named_parameters()}
    for kind in ("exp_avg", "exp_avg_sq"):
        state |= {f"{kind}.{n}": opt.state[p][kind] for n, p in model.named_parameters()}
    save_tensors(WORK / "state.safetensors", state, {"step": step, "names": names})


def load_state(model, opt) -> int:
    "Continue an interrupted run; returns the next step."
    if not (WORK / "state.safetensors").exists(): return 0
    state, meta = load_tensors(WORK / "state.safetensors", framework="pt")
    with torch.no_grad():
        for n, p in model.named_parameters():
            p.copy_(state[f"p.{n}"])
            opt.state[p] = {"step": torch.tensor(float(meta["step"])),
                            **{kind: state[f"{kind}.{n}"] for kind in ("exp_avg", "exp_avg_sq")}}
    return meta["step"]


def export(model, tok) -> None:
    "Write the folder that the package carries: half precision, safetensors."
    half = GPT2LMHeadModel(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(FOLDER)
    tok.save_pretrained(FOLDER)
    settings = FOLDER / "tokenizer_config.json"  # transformers 5 writes a class name that transformers 4 does not know; both know this one
    config = json.loads(settings.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    config.pop("backend", None)
    settings.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# k2-tiny

The language model that travels with k2nb: GPT-2 architecture, {layers} layers, d_model {width}, {heads} heads, context {context}, its own
byte-level BPE of {vocab} tokens, {params:,} parameters, stored in half precision. It reads and writes the planted world of
`k2nb.planted`, a small English micro-grammar about farms, harbours, kitchens and the like, and knows nothing else. Every text begins
and ends with `{end}`.

**For** examples, tests and teaching, offline: `load_model("k2-tiny")`. **Not for** any other text.

**Training**: `python tools/train_k2_tiny.py`: {steps:,} steps of {batch} documents, each document seen once ({tokens:.0f} million tokens),
AdamW, cosine learning rate with one warm restart, bfloat16 autocast on a CPU.

**Loss** on 300 held-out documents (`planted.documents(300, random_state=0)`): {model:.2f} nats a word. The grammar itself, which
knows all but the choices made, pays {oracle:.2f}: no model can do better on average. The notebook `nbs/03_k2_tiny.ipynb` measures
this again, with simple rivals, agreement at a distance, negation, tense in quotations and samples.
"""


@torch.no_grad()
def write_card(steps: int, tokens: int) -> None:
    "Measure what was exported on held-out documents, and write the model's card."
    tok = PreTrainedTokenizerFast.from_pretrained(FOLDER)
    model = GPT2LMHeadModel.from_pretrained(FOLDER, dtype=torch.float32).eval()
    corpus, nats = documents(300, random_state=0), 0.0
    for text in corpus.texts:
        ids = torch.tensor([[*tok(text)["input_ids"], tok.eos_token_id]])
        nats += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
    words = corpus.docs.n_tokens.sum()
    card = CARD.format(layers=LAYERS, width=WIDTH, heads=HEADS, context=CONTEXT, vocab=len(tok),
                       params=model.num_parameters(), end=END, steps=steps, batch=BATCH, tokens=tokens / 1e6, model=nats / words,
                       oracle=corpus.docs.nats.sum() / words)
    with atomic_path(FOLDER / "README.md") as temp: temp.write_text(card, encoding="utf-8")


def main(steps: int, device: str) -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    tok = train_tokenizer()
    torch.manual_seed(INIT_SEED)
    config = GPT2Config(vocab_size=len(tok), n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, resid_pdrop=0.0,
                        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id)
    model = GPT2LMHeadModel(config).to(device).train()
    opt = torch.optim.AdamW(model.parameters(), lr=CYCLES[0][1], betas=(.9, .98), weight_decay=.01)
    bar, since, losses = progress(desc="training", total=steps, unit="step"), time.time(), []
    first = load_state(model, opt)
    bar.update(first)
    for step in range(first, steps):
        for group in opt.param_groups: group["lr"] = learning_rate(step)
        ids, labels = batch(tok, step)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = model(input_ids=ids.to(device), labels=labels.to(device)).loss
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        losses.append(loss.item())
        bar.update(1)
        if (step + 1) % 250 == 0 or step + 1 == steps:
            save_state(model, opt, step + 1)
            export(model, tok)
            bar.write(f"step {step + 1}: training loss {np.mean(losses[-250:]):.4f} nats a token, {time.time() - since:.0f} s")
    bar.close()
    export(model, tok)
    write_card(steps, steps * sum(int((batch(tok, i)[1] >= 0).sum()) for i in range(10)) // 10)


if __name__ == "__main__":
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--steps", type=int, default=STEPS)
    args.add_argument("--device", default="cpu")
    main(**vars(args.parse_args()))
