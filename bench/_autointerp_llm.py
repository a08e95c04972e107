"""How much of the waiting for a language model is saved, and what comes of one that is busy, broken, slow or talks nonsense.

A section of bench/autointerp.py. The models are servers on this machine: a scripted one, in a process of its own, that waits 100 ms before
it answers, and `transformers serve` with a tiny model of random weights. No key, no network.
"""
import asyncio, contextlib, json, os, re, signal, subprocess, sys, tempfile, time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from _llm_server import FAULTS
from _report import ratio, table

from k2nb import planted
from k2nb.autointerp.cache import ExplanationCache
from k2nb.autointerp.llm import LLMError, as_client, gather_limited
from k2nb.autointerp.llm_clients import AnthropicClient, LocalChatClient, OpenAIClient
from k2nb.autointerp.llm_explainer import LLMExplainer, LLMJudge
from k2nb.autointerp.records import CentroidExplanation, ExplainTask, ValidationExample

TITLE = "Waiting for a language model"  # of the section
PACKAGES = ("openai", "anthropic")  # whose versions are told


@contextlib.contextmanager
def server(faulty: float = 0.) -> Iterator[str]:
    "A scripted server; its address."
    script = Path(__file__).with_name("_llm_server.py")
    p = subprocess.Popen([sys.executable, script, str(faulty)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try: yield f"http://127.0.0.1:{int(p.stdout.readline())}"
    finally:
        p.stdin.close()
        p.wait()


def counted(url: str) -> dict:
    "What the server has counted."
    import urllib.request
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/count") as f: return json.load(f)


def task(i: int, cursed: bool = False) -> ExplainTask:
    "A centroid of one word."
    words = ["the", "cursed" if cursed else f"word{i}", "here"]
    return ExplainTask(i, [ValidationExample(" ".join(words), [], words, 1., 1, row=i)])


def waiting(quick: bool) -> list[list]:
    "64 explanations one after the other and sixteen at a time, in turns."
    import urllib.request
    n, rounds, rows = (16, 1, []) if quick else (64, 5, [])

    def by_hand(url):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def ask(messages):
            body = json.dumps({"model": "m", "messages": messages}).encode()
            request = urllib.request.Request(f"{url}/v1/chat/completions", body, {"Content-Type": "application/json"})
            with opener.open(request) as f: return json.load(f)
        return ask
    makers = {"OpenAIClient": lambda url: OpenAIClient("m", url + "/v1"), "AnthropicClient": lambda url: AnthropicClient("m", url),
              "a function that waits (urllib, in threads)": by_hand}
    for name, make in makers.items():
        with server() as url:
            times = {1: [], 16: []}

            async def measure(explainer, times=times):
                async def explain(i): return await explainer.explain(task(i))
                await gather_limited(range(16), explain, 16, show=False)  # imports, connections
                for _ in range(rounds):
                    for k, found in times.items():
                        begin = time.perf_counter()
                        made = await gather_limited(range(n), explain, k, show=False)
                        found.append(time.perf_counter() - begin)
                        assert [e.explanation for e in made] == [f"the words word{i}" for i in range(n)], "the order is lost"
            asyncio.run(measure(LLMExplainer(as_client(make(url)))))
            most = counted(url)["most"]
            assert most <= 16, most
            r, low, high = ratio(times[1], times[16])
            rows.append([name, f"{np.median(times[1]):.2f}", f"{np.median(times[16]):.2f}", f"{r:.1f} ({low:.1f}–{high:.1f})", most])
    return rows


def trouble(quick: bool) -> list[list]:
    "One answer in ten goes wrong; one centroid is refused for good; what is cached is not asked for again."
    n, rows = (64 if quick else 1024), []
    makers = {"OpenAIClient": lambda url: OpenAIClient("m", url + "/v1"), "AnthropicClient": lambda url: AnthropicClient("m", url)}
    for name, make in makers.items():
        with server(.1) as url:
            client = as_client(make(url), timeout=1., base_delay=.05, malformed_retries=3)
            explainer = LLMExplainer(client)
            made = asyncio.run(gather_limited(range(n), lambda i, e=explainer: e.explain(task(i)), 16, show=False))
            told = counted(url)
            done = sum(isinstance(e, CentroidExplanation) and e.explanation == f"the words word{i}" for i, e in enumerate(made))
            faults = ", ".join(f"{told['told'].get(k, 0)} {k}" for k in FAULTS)
            rows.append([f"{name}, one answer in ten wrong ({faults})", n, f"{done} done, {client.usage.retries} asked for again"])
            assert done == n, [e for e in made if isinstance(e, Exception)]
    with server() as url, tempfile.TemporaryDirectory() as folder:
        client, cache = as_client(OpenAIClient("m", url + "/v1")), ExplanationCache(folder, lambda i: {"data": i})
        explainer, cursed = LLMExplainer(client), {41}

        async def explain_all():
            async def one(i): return await cache.get_or_make(i, lambda: explainer.explain(task(i, i in cursed)))
            return await gather_limited(range(64), one, 16, show=False)
        first, asked = asyncio.run(explain_all()), counted(url)["asked"]
        failed = [e for e in first if isinstance(e, Exception)]
        assert len(failed) == 1 and isinstance(failed[0], LLMError) and failed[0].id == "centroid 41" and len(cache.ids()) == 63
        rows.append(["one of 64 is refused for good", 64, f"{len(cache.ids())} cached, one error that names centroid 41, {asked} requests"])
        cursed.clear()
        second = asyncio.run(explain_all())
        assert all(isinstance(e, CentroidExplanation) for e in second) and counted(url)["asked"] == asked + 1
        rows.append(["the same again, nothing refused now", 64, f"64 done, {counted(url)['asked'] - asked} request"])
    return rows


def tiny_chat(path: Path) -> str:
    "Write a tiny random chat model with the tokenizer of k2-tiny."
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    tokenizer = AutoTokenizer.from_pretrained(Path(planted.__file__).parents[1] / "data" / "k2-tiny")
    tokenizer.chat_template = ("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
                               "{% if add_generation_prompt %}[assistant]{% endif %}")
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=4, max_position_embeddings=4096, bos_token_id=0, eos_token_id=0)
    LlamaForCausalLM(config).eval().save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@contextlib.contextmanager
def transformers_serve(path: str) -> Iterator[str]:
    "transformers' own server; its address."
    options = ["--host", "127.0.0.1", "--port", "0", "--device", "cpu"]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", path, *options]
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
                         env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        said = []
        for line in p.stdout:
            said.append(line)
            if found := re.search(r"running on (http://127\.0\.0\.1:\d+)", line): break
        else: raise RuntimeError("it did not start: " + "".join(said[-20:]))
        import threading
        threading.Thread(target=p.stdout.read, daemon=True).start()  # an unread pipe would fill, and stop it
        yield found[1]
    finally:
        os.killpg(p.pid, signal.SIGKILL)
        p.wait()


def real_servers(quick: bool) -> list[list]:
    "A model that talks rubbish: every question has an answer or an error, and figures that are missing are missing."
    n, rows = (4 if quick else 16), []
    with tempfile.TemporaryDirectory() as folder:
        path = tiny_chat(Path(folder) / "tiny")

        def road(client):
            made = asyncio.run(gather_limited(range(n), lambda i: LLMExplainer(client, max_tokens=40).explain(task(i)), 4, show=False))
            judge, about = LLMJudge(client, max_tokens=20), CentroidExplanation(0, "words")
            examples = task(0).examples * n
            p = asyncio.run(judge.fuzz(about, examples))
            kinds = Counter("read as a sentence" if isinstance(e, CentroidExplanation) else e.kind for e in made)
            assert sum(kinds.values()) == n and kinds.keys() <= {"read as a sentence", "malformed"}, made
            assert client.usage.prompt_tokens > 0 and np.isnan(p).sum() >= sum(judge.failures.values())
            told = ", ".join(f"{v} {k}" for k, v in sorted(kinds.items()))
            return f"explanations: {told}; judged: {int(np.isfinite(p).sum())} of {n}, the rest counted as missing"
        with transformers_serve(path) as url:
            rows.append(["`transformers serve`, OpenAIClient", n, road(as_client(OpenAIClient(path, url + "/v1"), concurrency=4))])
        rows.append(["the same model in this process, LocalChatClient", n, road(as_client(LocalChatClient(path, device="cpu")))])
    return rows


def run(
    quick: bool = False,  # few of everything
) -> str:  # Markdown
    "All of it."
    start, found = time.perf_counter(), []
    for part in (waiting, trouble, real_servers):
        found.append(part(quick))
        print(*found[-1], f"  {time.perf_counter() - start:.0f} s", sep="\n", flush=True)
    n = "16 explanations, 1 round" if quick else "64 explanations, median of 5 rounds in turns"
    return "\n\n".join([
        f"A scripted server in a process of its own answers after 100 ms. {n}; the ratio with its 95 % interval; the order of the "
        "answers is checked. Sixteen at a time cannot be more than 16 times faster.",
        table(["client", "one by one, s", "16 at a time, s", "ratio", "most in hand"], found[0]),
        f"What goes wrong: {'; '.join(f'*{k}*, {v}' for k, v in FAULTS.items())}.",
        table(["what happens", "questions", "what comes of it"], found[1]),
        "Random weights say nothing: what is tried is the road, from prompt to what is made of an answer.",
        table(["server", "questions", "what comes of it"], found[2])])

