"""Run every test: the checks of tools/checks.py, then each notebook and the built wheel, two at a time.

    python tools/test.py                        everything
    python tools/test.py nbs/00_core.ipynb      only these notebooks
    python tools/test.py --flags slow           cells marked `#| slow` too
    python tools/test.py --site                 everything, then the site: built anew, and opened in a browser
    python tools/test.py --fresh                no process is forked from one that has imported torch and the like

A notebook is one test. Each runs in a process of its own, so that none can lean on what another left behind; where many run, on
Linux, these are forks of a process that has imported what nearly all of them need, and done nothing else (zygote.py). The last line
is the count; the exit status is 1 if anything failed.
"""
import argparse, contextlib, json, os, signal, subprocess, sys, tempfile, threading, time, traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import checks
from checks import ROOT
from zygote import Zygote, ZygoteError, serve

FORKS = 4  # fewer notebooks than this are sooner done without a zygote
LIMIT, WHEEL_LIMIT = 600, 1200  # seconds for one notebook; for the wheel, whose dependencies pip may have to download
SITE = ("site bridge", "site build", "site browser")  # one after the other, with the machine to themselves
TIMES = Path(sys.prefix) / ".k2nb-test-times.json"  # how long each took last time: the longest start first
OWN = {"K2NB_PROGRESS": "0", "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
       "PYTHONUTF8": "1"}
UNSET = ("K2NB_MODEL", "IN_TEST", "PYTHONWARNINGS", "PYTHONSTARTUP")  # a shell's own settings must not decide whether a test passes


# In the child -------------------------------------------------------------------------------------------------------

def child(notebook, flags, result):
    "Test one notebook as nbdev does, and write what came of it to `result`; a process that dies writes nothing."
    from execnb.nbio import read_nb
    from nbdev.config import get_config
    from nbdev.process import extract_directives
    from nbdev.test import test_nb
    sys.path.remove(str(ROOT / "tools"))  # a notebook finds what its readers find
    skip = set(get_config().tst_flags.split()) - set(flags)
    found = [extract_directives(c, remove=False) for c in read_nb(notebook).cells if c.cell_type == "code"]
    passed, seconds = test_nb(Path(notebook), skip_flags=skip, basepath=ROOT)
    told = {"passed": passed, "skipped": passed and seconds == 0, "left_out": sum(bool(skip & d.keys()) for d in found)}
    Path(result).write_text(json.dumps(told), encoding="utf-8")


# In the parent ------------------------------------------------------------------------------------------------------

class Runner:
    "Starts tests as processes of their own, and ends those that outlive their time or the run."

    def __init__(self, flags, zygote=None):
        self.flags, self.zygote, self.running, self.stopped, self.lock = flags, zygote, set(), False, threading.Lock()

    def start(self, job, result, env, said):
        "The test's process: a fork of the zygote where that will do, or a fresh one."
        command, own = self.command(job, result), own_environment() | env
        while True:
            zygote = self.zygote if forkable(job) else None
            try:
                if zygote: zygote.ready()
                with self.lock:
                    if self.stopped: raise KeyboardInterrupt
                    if zygote: p = zygote.start(command, env, said)
                    else: p = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=own, stdin=subprocess.DEVNULL, stdout=said,
                                               stderr=subprocess.STDOUT, start_new_session=True)
                    self.running.add(p)
                return p
            except ZygoteError as e: self.without(zygote, e)

    def without(self, zygote, why):
        "Go on without the zygote, and say so."
        with self.lock:
            if self.stopped: raise KeyboardInterrupt
            if self.zygote is not zygote: return
            self.zygote = None
        tell("note", "no zygote", note=f"notebooks start afresh from here, each with its own imports:\n{indented(str(why))}")

    def stop(self):
        self.stopped = True
        if self.zygote: self.zygote.kill()  # without the lock: who holds it may be waiting for the zygote
        with self.lock:
            for p in self.running: kill(p)

    def command(self, job, result):
        if job == "wheel": return ["tools/check_wheel.py", result]
        if job in SITE: return ["tools/site/check.py", job.removeprefix("site "), result]
        return ["tools/test.py", "--child", f"nbs/{job}.ipynb", "--result", result, *(["--flags", *self.flags] if self.flags else [])]

    def test(self, job):
        "Run one test; ('ok' or 'FAIL' or 'skip', seconds, note, what it said)."
        limit = WHEEL_LIMIT if job == "wheel" else LIMIT
        with tempfile.TemporaryDirectory(prefix="k2nb-test-") as temp, tempfile.TemporaryFile() as out:
            result, late = Path(temp) / "result.json", ""
            p = self.start(job, str(result), {"K2NB_DEMO_DIR": f"{temp}/demo", "TMPDIR": temp}, out)
            began = time.time()
            try: p.wait(limit)
            except subprocess.TimeoutExpired: late = f"\nstopped: it ran longer than {limit} seconds"
            finally:
                kill(p)  # the test is over, and so is whatever it started
                p.wait()
                with self.lock: self.running.discard(p)
            took = time.time() - began
            out.seek(0)
            said = out.read().decode(errors="replace")
            if late: return "FAIL", took, "", said + late
            if not result.is_file(): return "FAIL", took, "", f"{said}\nthe process ended with status {p.returncode} before its test did"
            told = json.loads(result.read_text())
        note = told.get("note", "") + (f"slow cells left out: {told['left_out']}" if told.get("left_out") else "")
        return ("skip" if told.get("skipped") else "ok" if told["passed"] else "FAIL"), took, note, said


def own_environment(): return {k: v for k, v in os.environ.items() if k not in UNSET} | OWN


def forkable(job):
    "Whether a test is a notebook that does not look at what is imported; one that does needs a process in which nothing is."
    path = ROOT / "nbs" / f"{job}.ipynb"
    return path.is_file() and "sys.modules" not in path.read_text(encoding="utf-8")


@contextlib.contextmanager
def zygote_for(jobs):
    "A zygote for these tests, or None where a fork is not safe (Windows and macOS) or not worth it."
    if sys.platform != "linux" or sum(map(forkable, jobs)) < FORKS: yield None; return
    zygote = Zygote([sys.executable, "tools/test.py", "--zygote"], own_environment(), ROOT)
    try: yield zygote
    finally: zygote.close()


def kill(p):
    try: os.killpg(p.pid, signal.SIGKILL)
    except ProcessLookupError: pass


def tell(state, job, seconds=None, note=""):
    print(f"{state:4}  {job:<28}" + ("" if seconds is None else f"{seconds:6.1f} s") + (f"   {note}" if note else ""), flush=True)


def indented(text): return "\n".join(f"      {line}".rstrip() for line in text.strip().splitlines())


def remembered():
    try: return json.loads(TIMES.read_text())
    except (OSError, json.JSONDecodeError): return {}


def run_checks():
    "The quick checks, one after the other; names of those that failed."
    failed = []
    for check in checks.CHECKS:
        began = time.time()
        try: reason = check()
        except Exception: reason = traceback.format_exc()  # a check that breaks is a failure like another; the rest still runs
        tell("FAIL" if reason else "ok", check.__name__, time.time() - began)
        if reason: failed.append(check.__name__); print(indented(reason), flush=True)
    return failed


def run_jobs(jobs, flags, workers, zygote=None):
    "Notebooks and wheel, `workers` at a time; names of those that failed, of those skipped."
    times, failed, skipped = remembered(), [], []
    jobs = sorted(jobs, key=lambda job: -times.get(job, LIMIT))
    runner = Runner(flags, zygote)
    with ThreadPoolExecutor(workers) as pool:
        try:
            waiting = {pool.submit(runner.test, job): job for job in jobs}
            for future in as_completed(waiting):
                job, (state, seconds, note, said) = waiting[future], future.result()
                tell(state, job, seconds, note)
                times[job] = round(seconds, 1)
                if state == "FAIL": failed.append(job); print(indented(said), flush=True)
                if state == "skip": skipped.append(job)
        except BaseException:
            runner.stop()
            pool.shutdown(cancel_futures=True)
            raise
    TIMES.write_text(json.dumps(times, indent=1))
    return failed, skipped


def chosen(paths):
    "Names of the notebooks to test; all of them if no path is given."
    known = {p: checks.name(p) for p in checks.notebooks()}
    if not paths: return list(known.values())
    for path in paths:
        if Path(path).resolve() not in known: sys.exit(f"{path} is not a notebook under nbs/. There are: {', '.join(known.values())}")
    return [known[Path(path).resolve()] for path in paths]


def without_site(jobs):
    "Tests that the site's build does not make: to build it is to execute the tutorials, and fails where one does."
    sys.path.insert(0, str(ROOT / "tools" / "site"))
    import builder
    left = [job for job in jobs if builder.live(ROOT / "nbs" / f"{job}.ipynb")]
    if left: tell("note", "site build", note=f"it executes {', '.join(left)}; they are not tested before")
    return [job for job in jobs if job not in left]


def main():
    ap = argparse.ArgumentParser(description="Run k2nb's tests.")
    ap.add_argument("notebooks", nargs="*", help="paths of notebooks; none: every check, every notebook and the wheel")
    ap.add_argument("--flags", nargs="+", default=[], help="run cells that carry these flags too, such as: slow")
    ap.add_argument("--site", action="store_true", help="test the site as well")
    ap.add_argument("--fresh", action="store_true", help="start every notebook from nothing, even where many are tested")
    ap.add_argument("--workers", type=int, default=2)
    ap.add_argument("--child", help=argparse.SUPPRESS)
    ap.add_argument("--result", help=argparse.SUPPRESS)
    ap.add_argument("--zygote", type=int, help=argparse.SUPPRESS)
    args = ap.parse_args()
    os.chdir(ROOT)
    if args.zygote is not None:
        serve(args.zygote)
        args = ap.parse_args()  # from here on this is a fork, and its arguments are a child's
    if args.child: return child(ROOT / args.child, args.flags, args.result)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that the children are ended too
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and tests of Ctrl-C would inherit that
    jobs, began = chosen(args.notebooks), time.time()
    if not jobs: sys.exit("there are no notebooks under nbs/")
    # cells that carry a flag are not executed for the site
    if args.site and not args.notebooks and not args.flags: jobs = without_site(jobs)
    total = len(jobs) if args.notebooks else len(jobs) + len(checks.CHECKS) + 1
    with zygote_for([] if args.fresh else jobs) as zygote:  # it imports while the checks run
        failed = [] if args.notebooks else run_checks()
        if not args.notebooks: jobs.insert(0, "wheel")
        bad, skipped = run_jobs(jobs, args.flags, args.workers, zygote)
    for job in SITE if args.site else ():
        total += 1
        if job == "site browser" and "site build" in bad:
            tell("skip", job, note="there is no site to look at")
            skipped.append(job)
            continue
        more, left = run_jobs([job], args.flags, 1)
        bad += more
        skipped += left
    failed += bad
    print(f"\n{time.time() - began:.0f} s" + (f"; failed: {', '.join(failed)}" if failed else ""))
    count = f"{total - len(failed) - len(skipped)} passed, {len(failed)} failed" + (f", {len(skipped)} skipped" if skipped else "")
    print(count, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    try: sys.exit(main())
    except KeyboardInterrupt: sys.exit("\nstopped")
