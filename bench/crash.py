"""What a store of activations survives: kills at random moments, damaged files, two processes at once, a full disk.

    python bench/crash.py             # about 4 minutes on two cores; writes the section of bench/README.md
    python bench/crash.py --quick     # a smoke run with a few kills; nothing written

Each run is `embed_dataset` on k2-tiny in a process of its own, forked from one that has loaded the model, so that the kills fall into the
work and not into the imports. The kills are SIGKILL, which no program can notice. Linux and macOS.
"""
import argparse, os, random, resource, shutil, signal, sys, tempfile, time, traceback, warnings
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a forked process must not inherit threads
sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from _report import table, write_section  # noqa: E402

import k2nb.embedding.writer as writer  # noqa: E402
from k2nb import planted  # noqa: E402
from k2nb.core import StoreError, hash_array, hash_json, save_tensors, write_json  # noqa: E402
from k2nb.embedding import embed_dataset, open_store  # noqa: E402
from k2nb.embedding.columns import document_columns  # noqa: E402
from k2nb.embedding.shards import SCHEMA, _encode, _header, write_shard  # noqa: E402
from k2nb.models import load_model  # noqa: E402


class Run:
    "One process that embeds the texts into a folder, and tells of each shard the moment its vectors are computed."
    model, texts = None, None

    def __init__(self, path: Path, no_room_at: int | None = None, disk_waits: float = 0):
        self.path, (self.ear, mouth) = path, os.pipe()
        self.pid = os.fork()
        if not self.pid: self._work(mouth, no_room_at, disk_waits)
        os.close(mouth)

    def _work(self, mouth: int, no_room_at: int | None, disk_waits: float) -> None:
        "In the forked process, which does not return."
        code = 1
        try:
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *rest: os.write(mouth, f"! {message}\n".encode())
            add = writer.StoreWriter.add
            def told(w, docs, *args):
                os.write(mouth, b"%d\n" % w._next)
                if w._next == no_room_at: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
                add(w, docs, *args)
            writer.StoreWriter.add = told
            if disk_waits: writer.write_shard = lambda *args: (time.sleep(disk_waits), write_shard(*args))[1]
            embed_dataset(self.texts, model_name=self.model, output_dir=self.path, pooling="none", parts=("rs", "mlp"), progress=False,
                          tokens_per_batch=400, tokens_per_shard=1200)
            code = 0
        except StoreError as e:
            os.write(mouth, f"! {e}\n".encode())
            code = 3
        except BaseException: traceback.print_exc()
        finally: os._exit(code)

    def kill(self) -> None: os.kill(self.pid, signal.SIGKILL)

    def end(self) -> tuple[list[int], int, str]:
        "(shards whose vectors it computed, exit code, what it complained of)"
        with os.fdopen(self.ear) as f: said = f.read().splitlines()
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return [int(s) for s in said if s[0] != "!"], code, " ".join(s for s in said if s[0] == "!")


def tree(path: Path) -> dict: return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
def shards(path: Path) -> set: return {int(p.stem) for p in path.glob("shards/0*.safetensors")}


def undisturbed(here: Path) -> tuple[dict, float]:
    "The files of a run that nobody disturbs, and how long it takes."
    times = []
    for _ in range(3):
        shutil.rmtree(here/"undisturbed", ignore_errors=True)
        start = time.perf_counter()
        assert Run(here/"undisturbed").end()[1] == 0
        times.append(time.perf_counter() - start)
    return tree(here/"undisturbed"), min(times)


def kills(here: Path, calm: dict, seconds: float, wanted: int, disk_waits: float = 0) -> list[list]:
    "Runs that are killed at random moments and begun again, up to five times, until they end."
    chance, again, torn, stories = random.Random(0), [], 0, 0
    while len(again) < wanted:
        path, before = here/f"killed{stories}", set()
        for attempt in range(6):
            run = Run(path, disk_waits=disk_waits)
            if attempt < 5 and len(again) < wanted:
                time.sleep(chance.uniform(0, .6 * seconds))
                run.kill()
            computed, code, _ = run.end()
            if code == 0: break
            assert code == -signal.SIGKILL and not before & set(computed), "a shard that was on disk was computed again"
            before = shards(path)
            again.append(len(set(computed) - before))  # computed, and not on disk: to be computed again
            torn += any(path.rglob("*.part"))
            if not (path/"manifest.json").exists(): must_be_unfinished(path)
        assert code == 0 and tree(path) == calm, "the bytes differ"
        open_store(path).verify()
        shutil.rmtree(path)
        stories += 1
    assert max(again) <= 1, again
    lost = f"{again.count(0)} times none, {again.count(1)} times one, never more"
    what = f"SIGKILL at a random moment{', a disk slower than the model' * (disk_waits > 0)}"
    return [[what, len(again), f"{stories} stores, byte for byte those of an undisturbed run"],
            ["· a half-written file was left behind", torn, "never read, removed by the next run"],
            ["· whole shards computed again after a kill", sum(again), lost]]


def must_be_unfinished(path: Path) -> None:
    try: open_store(path)
    except (StoreError, FileNotFoundError): return
    raise AssertionError("an unfinished store was opened")


def damages(here: Path, calm: dict, rounds: int) -> list[list]:
    "Shards that are cut, altered in one bit, or removed; in a finished store and in one without its manifest."
    chance, path, out = random.Random(1), here/"undisturbed", []
    def cut(f): os.truncate(f, chance.randrange(f.stat().st_size))
    def alter(f):
        b = bytearray(f.read_bytes()); b[chance.randrange(len(b))] ^= 1 << chance.randrange(8); f.write_bytes(b)
    for name, damage in (("cut", cut), ("altered in one bit", alter), ("removed", Path.unlink)):
        for i in range(rounds):
            files = chance.sample(sorted((path/"shards").glob("0*")), 1 + i % 3)
            for f in files: damage(f)
            if i % 2: (path/"manifest.json").unlink()
            elif name == "altered in one bit":
                try: open_store(path).verify()
                except StoreError as e: assert all(f.name in str(e) for f in files), e
                else: raise AssertionError("verify saw nothing")
                for f in files: f.unlink()  # as the message says
            computed, code, _ = Run(path).end()
            assert code == 0 and sorted(computed) == sorted(int(f.stem) for f in files) and tree(path) == calm
        out.append([f"1 to 3 shards {name}", rounds, "found, made again, and only they"])
    return out


def together(here: Path, calm: dict, rounds: int) -> list[list]:
    "Two processes that start at once; and one that waits for another which is then killed."
    for _ in range(rounds):
        both = [Run(here/"two") for _ in range(2)]
        (computed, code, _), (idle, other, said) = sorted((r.end() for r in both), key=lambda end: -len(end[0]))
        assert code == other == 0 and not idle and len(computed) > 1 and tree(here/"two") == calm
        assert any(f"process {r.pid} " in said for r in both) and "is writing" in said, said
        shutil.rmtree(here/"two")
    for _ in range(rounds):
        first = Run(here/"two")
        while not shards(here/"two"): time.sleep(.005)
        second = Run(here/"two"); time.sleep(.1); first.kill()
        begun, there = first.end()[0], shards(here/"two")
        computed, code, _ = second.end()
        assert code == 0 and computed and not set(computed) & there and tree(here/"two") == calm, (begun, computed, there)
        shutil.rmtree(here/"two")
    return [["two processes at once", rounds, "one computes, the other says for whom it waits, and opens what it finds"],
            ["a process waits, the one it waits for is killed", rounds, "it goes on behind the last good shard"]]


def full(here: Path, calm: dict) -> list[list]:
    "From each shard in turn on, the operating system lets no file grow beyond 10 kB."
    n = sum(k.startswith("shards/") for k in calm)
    for i in range(n):
        _, code, said = Run(here/"full", no_room_at=i).end()
        assert code == 3 and "cannot be written: File too large" in said and shards(here/"full") == set(range(i)), (code, said)
        assert all(calm[k] == v for k, v in tree(here/"full").items()), "a torn file was left"
        computed, code, _ = Run(here/"full").end()
        assert code == 0 and computed == list(range(i, n)) and tree(here/"full") == calm
        shutil.rmtree(here/"full")
    return [["no room (RLIMIT_FSIZE), from each shard in turn", n, "an error that says so; all shards before stand; the next call goes on"]]


def large(here: Path, n_shards: int) -> list[list]:
    "A store of 64 MiB shards, sparse on this disk, whose size is real to everything that reads it."
    path, docs, per_doc, d = here/"large", 64, 256, 1024
    (path/"shards").mkdir(parents=True)
    store = writer.StoreWriter(path, {"keys": ["L00.rs"], "granularity": "span", "pooling": "mean", "dtype": "float32"}, "sparse")
    x, entries = np.zeros((docs * per_doc, d), np.float32), []
    for i in range(n_shards):
        span = [i * docs, (i + 1) * docs]
        each = np.full(docs, per_doc)
        columns = document_columns(np.arange(*span), ["a text"] * docs, each, each, each < 0)
        facts = {"key": store.key, "made_from": store.made_from, "model_name": "sparse", "docs": span, "rows": len(x)}
        head, _, arrays = _encode({"L00.rs": x, **columns}, facts)
        file, size = path/"shards"/f"{i:05d}.safetensors", len(head) + sum(a.nbytes for a in arrays)
        with open(file, "wb") as f:
            f.write(head); f.truncate(size); f.flush()
            for name, values in columns.items():
                f.seek(_header(file).tensors[name][2]); f.write(values.tobytes())
        entries.append({"file": file.name, "docs": span, "rows": len(x), "hash": "0" * 32, "bytes": size})
    about = {"kind": "activations", "key": store.key, "made_from": store.made_from, "model_name": "sparse", "n_docs": n_shards * docs,
             "n_rows": n_shards * len(x), "d_model": d, "modality": "text", "row_columns": [], "id_kind": "int"}
    write_json(path/"manifest.json", {**about, "n_truncated": 0, "n_empty": 0, "vocab": None, "shards": entries}, SCHEMA)
    out = reading(path, f"{sum(e['bytes'] for e in entries) / 1e9:,.0f} GB in {n_shards:,} shards")
    shutil.rmtree(path)
    return out


def reading(path: Path, what: str) -> list[list]:
    "How long it takes to open a store and to read a little of it, and how many shards are opened for it."
    opened, chance = [], np.random.default_rng(0)
    sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" and str(path/"shards") in str(args[0]) else None)
    store = open_store(path)
    n, last = len(store), store.n_docs - 1
    calls = {f"open {what}": lambda: open_store(path), "· its last document": lambda: open_store(path).doc(last).vectors(),
             "· 100 rows from anywhere": lambda: store.vectors(rows=chance.integers(0, n, 100)), "· 10,000 rows in the middle":
             lambda: store.vectors(rows=slice(n // 2, n // 2 + 10_000)).sum()}
    rows = []
    for name, call in calls.items():
        times, opened[:] = [], []
        for _ in range(9):
            start = time.perf_counter(); call()
            times.append(time.perf_counter() - start)
        rows.append([name, f"{np.median(times) * 1e3:.1f} ms", len(set(opened)) if "anywhere" not in name else "at most one a row"])
    assert rows[0][2] == 0 and float(rows[0][1].split()[0]) < 50, rows
    return rows


def steps(here: Path) -> list[list]:
    "What it costs to write a GiB of float32 vectors, step by step; median of nine shards of 64 MiB."
    from xxhash import xxh3_128
    x = np.random.default_rng(0).standard_normal((1 << 14, 1 << 10)).astype(np.float32)
    file, facts = here/"step", {"key": "", "docs": [0, 1], "rows": len(x)}
    def plain(sync):
        with open(file, "wb", buffering=0) as f:
            f.write(x.data)
            if sync: os.fsync(f.fileno())
    def old(): save_tensors(file, {"x": torch.from_numpy(x)}, {**facts, "hash": hash_json({"x": hash_array(x)})}, 1)
    calls = {"copy in memory": x.copy, "XXH3-128": lambda: xxh3_128(x.data).digest(), "BLAKE2b": lambda: hash_array(x),
             "write": lambda: plain(False), "write, fsync": lambda: plain(True),
             "a shard: XXH3-128, write, fsync, rename": lambda: write_shard(file, {"x": x}, facts),
             "the same through core.save_tensors: BLAKE2b, copy, write, fsync, rename": old}
    rows = []
    for name, call in calls.items():
        found = []
        for _ in range(9):
            t, c = time.perf_counter(), time.process_time()
            call()
            found.append((time.perf_counter() - t, time.process_time() - c))
        wall, cpu = np.median(found, axis=0) * (1 << 30) / x.nbytes
        rows.append([name, f"{wall:.2f}", f"{cpu:.2f}"])
    return rows


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--quick", action="store_true", help="few kills, a small store, nothing written")
    quick = p.parse_args().quick
    torch.set_num_threads(1)
    Run.model, Run.texts = load_model("k2-tiny", device="cpu"), planted.documents(200, random_state=0).texts
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        calm, seconds = undisturbed(here)
        n = sum(k.startswith("shards/") for k in calm)
        print(f"undisturbed: {n} shards in {seconds:.1f} s", flush=True)
        rounds = 2 if quick else 8
        work = [lambda: kills(here, calm, seconds, 4 if quick else 50),
                lambda: kills(here, calm, 2 * seconds, 4 if quick else 15, disk_waits=2 * seconds / n),
                lambda: damages(here, calm, rounds), lambda: together(here, calm, rounds // 2), lambda: full(here, calm)]
        rows = []
        for w in work:
            rows += (new := w())
            print(*new, sep="\n", flush=True)
        read, cost = large(here, 16 if quick else 1600), steps(here)
    text = "\n\n".join([
        f"`embed_dataset` on k2-tiny, {len(Run.texts)} texts, {n} shards, {seconds:.1f} s undisturbed; "
        f"{time.perf_counter() - start:.0f} s for all of this.", table(["what happens", "times", "what comes of it"], rows),
        "Reading is lazy: what a store costs before anything is read, and what little questions cost. The files are sparse, but no less "
        "long.",
        table(["call", "median", "shards opened"], read),
        "Writing. It happens in a thread while the model computes the next shard, so that only its CPU time is felt, and that only where "
        "no core is idle.", table(["step", "wall s/GiB", "CPU s/GiB"], cost)])
    print(text)
    if not quick: write_section("crash", "What a store survives", "python bench/crash.py", text, packages=("safetensors", "xxhash"))


if __name__ == "__main__": main()
