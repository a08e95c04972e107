"""What the cache of explanations survives: kills at random moments, many processes at once, changed data, full and read-only disks.

A section of bench/autointerp.py. Each process is forked from one that has imported everything, so that kills fall into the work. The
kills are SIGKILL, which no program can notice. Linux and macOS; the tests of a real full disk and of lost privileges need Linux and root.
"""
import asyncio, ctypes, json, os, random, resource, signal, struct, sys, tempfile, time, traceback, warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _report import table

from k2nb.autointerp.cache import ExplanationCache
from k2nb.autointerp.entries import read_entry
from k2nb.autointerp.locked_files import CacheError, add_line, read_lines
from k2nb.autointerp.records import CentroidExplanation
from k2nb.core import hash_array

TITLE = "What an explanation cache survives"  # of the section
PACKAGES = ("filelock",)  # whose versions are told


class Child:
    "A forked process that does something, and says things through a pipe."

    def __init__(self, work: Callable):
        self.ear, mouth = os.pipe()
        self.pid = os.fork()
        if self.pid: os.close(mouth); return
        code = 1
        try:
            work(lambda line: os.write(mouth, f"{line}\n".encode()))
            code = 0
        except BaseException: traceback.print_exc()
        finally: os._exit(code)

    def kill(self) -> None: os.kill(self.pid, signal.SIGKILL)

    def end(self) -> tuple[list[str], int]:
        "(what it said, exit code)"
        with os.fdopen(self.ear) as f: said = f.read().splitlines()
        return said, os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def about(id: int, text: str, size: int = 1) -> CentroidExplanation:
    return CentroidExplanation(id, text, top_k_examples=["a few words around the «token»"] * size, metadata={"explainer": "rules"})


def typical(call: Callable, times: int = 9) -> float:
    "Median seconds of a call, which is given its number."
    found = []
    for i in range(times):
        begin = time.perf_counter()
        call(i)
        found.append(time.perf_counter() - begin)
    return float(np.median(found))


def kills(here: Path, wanted: int) -> list[list]:
    "A process rewrites eight explanations in turn, each with a higher number; it is killed, looked after, and another goes on."
    chance, cache, torn, writes, last = random.Random(0), ExplanationCache(here, lambda id: {"a": 1}), 0, 0, 0
    seconds = typical(lambda i: ExplanationCache(here.parent/"typical").set(about(0, str(i), size=100)))

    def work(say):
        own, i = ExplanationCache(here, lambda id: {"a": 1}), last
        while True:
            i += 1
            own.set(about(i % 8, str(i), size=random.Random(i).choice([1, 10, 1000])))
            say(i)

    for _ in range(wanted):
        child = Child(work)
        time.sleep(chance.uniform(0, 15 * seconds))
        child.kill()
        said, _ = child.end()
        torn, writes = torn + any(here.glob(".*.part")), writes + len(said)
        files = sorted(here.glob("*.json"))
        there = {int(read_entry(p, int(p.name.split(".")[0].split("_")[1]))["explanation"]) for p in files}  # raises if one is damaged
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            shown = {i: int(cache.get(i).explanation) for i in cache.ids()}
        reported = [int(s) for s in said]
        assert there >= set(reported), "what was reported as written is not there, nor set aside"
        assert all(shown[i % 8] >= i for i in reported) and all(v % 8 == i for i, v in shown.items()), "an older one is shown"
        assert set(cache.ids()) >= {i % 8 for i in range(1, last + 1)}, "an explanation is gone"
        last = max([last, *there])
        for p in files:
            if ".stale" in p.name: p.unlink()
    came = f"{writes:,} writes; no unreadable file, none lost, no old one in a new one's place"
    return [["SIGKILL at a random moment of rewriting eight explanations", wanted, came],
            ["· a half-written temporary file was left behind", torn, "never read, removed by the next writer"]]


def killed_lists(here: Path, wanted: int) -> list[list]:
    "A process adds lines to the list of failures and is killed."
    chance, path, reported, torn = random.Random(1), here/"failures.jsonl", set(), 0
    seconds = typical(lambda i: add_line(here/"typical.jsonl", {"i": i, "error": "x" * 50_000}))

    def work(say):
        for i in range(10**6):
            add_line(path, {"by": os.getpid(), "i": i, "error": "x" * random.Random(i).choice([10, 100_000])})
            say(f"{os.getpid()} {i}")

    for _ in range(wanted):
        child = Child(work)
        time.sleep(chance.uniform(0, 15 * seconds))
        child.kill()
        reported |= {tuple(map(int, s.split())) for s in child.end()[0]}
        torn += path.exists() and not path.read_bytes().endswith(b"\n")
    read = {(d["by"], d["i"]): d["error"] for d in read_lines(path)}
    assert reported <= read.keys() and all(set(e) == {"x"} for e in read.values())
    return [["SIGKILL while lines are added to failures.jsonl", wanted, f"{len(reported):,} lines, all there; {torn} cut ones passed over"]]


def together(here: Path, rounds: int, processes: int = 8, coroutines: int = 20) -> list[list]:
    "Processes and coroutines that ask for one explanation at once; and the same when the one that makes it is killed."
    def asking(round: int, hang: bool) -> Callable:
        def work(say):
            cache, go = ExplanationCache(here, lambda id: {"a": 1}), here/f"go{round}"

            async def make():
                add_line(here/"made.jsonl", {"round": round, "by": os.getpid()})
                if hang and len([m for m in read_lines(here/"made.jsonl") if m["round"] == round]) == 1: await asyncio.sleep(60)
                await asyncio.sleep(.02)
                return about(round, f"by {os.getpid()}")

            async def ask(): return await asyncio.gather(*(cache.get_or_make(round, make) for _ in range(coroutines)))
            say("ready")
            while not go.exists(): time.sleep(.0005)
            answers = asyncio.run(ask())
            say(json.dumps(sorted({a.explanation for a in answers})) + f" {len(answers)}")
        return work

    for round in range(2 * rounds):
        hang = round >= rounds
        children = [Child(asking(round, hang)) for _ in range(processes)]
        time.sleep(.05); (here/f"go{round}").touch()
        if hang:
            while not (made := [m for m in read_lines(here/"made.jsonl") if m["round"] == round]): time.sleep(.002)
            next(c for c in children if c.pid == made[0]["by"]).kill()
        ends = [c.end() for c in children]
        made = [m for m in read_lines(here/"made.jsonl") if m["round"] == round]
        assert len(made) == 1 + hang, made
        answers = [said[-1] for said, code in ends if code == 0]
        assert len(answers) == processes - hang and set(answers) == {f'["by {made[-1]["by"]}"] {coroutines}'}, ends
    asked = f"{processes} processes × {coroutines} coroutines ask for one explanation"
    return [[asked, rounds, f"{rounds} generations: one each time, the same answer for all {processes * coroutines}"],
            ["· the process that makes it is killed", rounds, "one of the others takes over; one generation more, all others answered"]]


def stale(here: Path, rounds: int) -> list[list]:
    "Everything that an explanation depends on is changed, one thing at a time."
    g = np.random.default_rng(0)
    centroids = g.normal(size=(64, 32)).astype(np.float32)
    facts = {"metric": "neg_l2", "model": "k2-tiny", "revision": "a1", "layer": 3, "activation_type": "layer_output", "data": "t1",
             "sampler": {"k": 10, "reach": 12}, "explainer": "llm", "provider": "local", "llm_model": "m", "prompt_version": 1}

    def asked(now): return ExplanationCache(here, lambda id: {"centroid": hash_array(centroids[id]), **now})
    def found(now): return [i for i in range(64) if asked(now).get(i) is not None]

    for i in range(64): asked(facts).set(about(i, f"explanation {i}"), "llm")
    assert found(facts) == list(range(64))
    others = {**{k: "another" for k in facts if k != "explainer"}, "sampler": {"k": 11, "reach": 12}, "layer": 4, "prompt_version": 2}
    for key, value in others.items(): assert found({**facts, key: value}) == [], key
    assert found({**facts, "explainer": "rules"}) == list(range(64)), "an LLM's explanation answers who asks for rules"
    for _ in range(rounds):
        i, j, bit = g.integers(64), g.integers(32), g.integers(32)
        whole = centroids.view(np.uint32)
        whole[i, j] ^= np.uint32(1) << np.uint32(bit)
        assert found(facts) == [k for k in range(64) if k != i]
        whole[i, j] ^= np.uint32(1) << np.uint32(bit)
    return [[f"one fact changed: {', '.join(others)}; 64 centroids each", 64 * len(others), "no stale answer"],
            ["one bit of one centroid changed, 64 centroids", rounds, "that one is asked for anew, the other 63 answer"]]


def refused(here: Path, work: Callable) -> str:
    "What `CacheError` says in a process of its own; the old entry and the list of files must be as they were."
    before = {p.name: p.read_bytes() for p in here.iterdir() if p.is_file()}

    def child(say):
        work()
        cache = ExplanationCache(here, lambda id: {"a": 1})
        try: cache.set(about(0, "new", size=2000))
        except CacheError as e: say(str(e)); assert e.explanation.explanation == "new"
        else: raise AssertionError("nothing was raised")
        assert cache.get(0).explanation == "old"
    said, code = Child(child).end()
    assert code == 0 and {p.name: p.read_bytes() for p in here.iterdir() if p.is_file()} == before
    return said[0]


def disks(here: Path) -> list[list]:
    "Disks without room, and folders that may not be written."
    def old(where, size=1): ExplanationCache(where, lambda id: {"a": 1}).set(about(0, "old", size))
    old(here/"limit")
    limits = [1, 10, 100, 1000, 10_000, 50_000]
    for n in limits:
        said = refused(here/"limit", lambda n=n: resource.setrlimit(resource.RLIMIT_FSIZE, (n, n)))
        assert "no room" in said, said
    rows = [["no file may grow beyond 1 byte … 50 kB (RLIMIT_FSIZE)", len(limits), "an error that says so; the old entry stands"]]
    for name, test in (("a full disk (tmpfs of 64 kB)", _full), ("a folder without write permission", _forbidden)):
        old(here/name.split()[1])
        rows.append([name, 1, test(here/name.split()[1])])
    return rows


def _full(where: Path) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if not sys.platform.startswith("linux") or libc.mount(b"none", bytes(where), b"tmpfs", 0, b"size=64k") != 0:
        return "not run: needs Linux and root"
    try:
        ExplanationCache(where, lambda id: {"a": 1}).set(about(0, "old", 200))
        said = refused(where, lambda: None)
        assert "No space left" in said and "no room" in said, said
        return "an error that says so; the old entry stands"
    finally: libc.umount(bytes(where))


def _forbidden(where: Path) -> str:
    def work():  # root may write anywhere, until it gives that privilege up
        if os.geteuid() == 0: assert ctypes.CDLL(None).capset(struct.pack("Ii", 0x20080522, 0), bytes(24)) == 0
        assert not os.access(where, os.W_OK)
    if os.geteuid() == 0 and not sys.platform.startswith("linux"): return "not run: root may write anywhere"
    for p in (where, where/".locks"): p.chmod(0o555)
    try: said = refused(where, work)
    finally:
        for p in (where, where/".locks"): p.chmod(0o755)
    assert "Permission denied" in said and "may be written" in said, said
    return "an error that says so, before anything is made; the old entry stands"


def costs(here: Path, n: int) -> list[list]:
    "Milliseconds of single calls in a folder of n explanations."
    cache = ExplanationCache(here, lambda id: {"centroid": f"{id}", "model": "k2-tiny", "layer": 3})
    async def never(): raise AssertionError("it is there")
    def timed(call): begin = time.perf_counter(); call(); return (time.perf_counter() - begin) * 1e3
    order = np.random.default_rng(0).permutation(n).tolist()
    rows = [("set", [timed(lambda i=i: cache.set(about(i, "an explanation", 10))) for i in range(n)][-500:]),
            ("get", [timed(lambda i=i: cache.get(i)) for i in order[:500]])]

    async def hits(): return [timed_at for i in order[:500] for timed_at in [await one(i)]]
    async def one(i):
        begin = time.perf_counter()
        await cache.get_or_make(i, never)
        return (time.perf_counter() - begin) * 1e3
    async def make(i): return about(i, "an explanation", 10)
    async def misses():
        out = []
        for i in range(n, n + 200):
            begin = time.perf_counter()
            await cache.get_or_make(i, lambda i=i: make(i))
            out.append((time.perf_counter() - begin) * 1e3)
        return out
    rows += [("get_or_make, stored", asyncio.run(hits())), ("get_or_make, not stored (making it takes no time)", asyncio.run(misses()))]
    return [[name, f"{np.median(t):.2f}", f"{np.quantile(t, .95):.2f}"] for name, t in rows]


def run(
    quick: bool = False,  # few of everything
) -> str:  # Markdown
    "All of it, in folders that are removed again."
    start, rows = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        few = 10 if quick else 200
        work = {"kills": lambda p: kills(p, few), "lists": lambda p: killed_lists(p, few),
                "together": lambda p: together(p, 2 if quick else 20), "stale": lambda p: stale(p, 10 if quick else 200), "disks": disks}
        for name, call in work.items():
            (here/name).mkdir()
            rows += (new := call(here/name))
            print(*new, f"  {time.perf_counter() - start:.0f} s", sep="\n", flush=True)
        n = 300 if quick else 4096
        prices = costs(here/"costs", n)
    return "\n\n".join([
        f"Every process is forked from one that has imported everything, so that kills fall into the work. "
        f"{time.perf_counter() - start:.0f} s in all.",
        table(["what happens", "times", "what comes of it"], rows),
        f"What calls cost in a folder of {n:,} explanations, flushing to the disk included:",
        table(["call", "median ms", "95 % below"], prices)])
