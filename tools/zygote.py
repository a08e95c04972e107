"""Processes for notebooks that need not import everything anew: forks of one process, the zygote, that has done nothing else than that.

What nearly every notebook imports takes it seconds. The zygote imports that once and runs no code of k2nb or of a notebook; each test
is a fork of it, in a session of its own, and ends as any other process does. Two things differ from a fresh process. The modules of
`PRELOAD` are imported already, their warning filters set (a notebook that forgets such an import still passes); and strings hash
alike in all forks of a run.
"""
import contextlib, gc, importlib, os, signal, socket, subprocess, sys, tempfile, threading

PRELOAD = ("IPython", "execnb.nbio", "nbdev.config", "nbdev.process", "nbdev.test", "matplotlib.pyplot", "matplotlib_inline.backend_inline",
           "pandas", "networkx", "scipy.stats", "sklearn.cluster", "sklearn.linear_model", "sklearn.model_selection", "torch",
           "torch._dynamo", "transformers.modeling_utils", "transformers.models.auto.modeling_auto",
           "transformers.models.auto.tokenization_auto")
# pyarrow, which pandas imports, carries an allocator with a thread of its own: it must not start before a fork
THREADLESS = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
WAIT = 120  # seconds for the imports, and for a fork


class ZygoteError(Exception):
    "The zygote gives no processes; the message says why."


# In the zygote ------------------------------------------------------------------------------------------------------

def open_files():
    "What this process holds open, by number."
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError): found[fd] = os.readlink(f"/proc/self/fd/{fd}")  # the listing's own is gone
    return found


def shared_with_forks(files):
    "What forks of this process would lack or share, other than `files`; nothing, if it has only imported."
    tasks, maps = os.listdir("/proc/self/task"), open("/proc/self/maps").read().splitlines()
    found = [f"{len(tasks)} threads"] * (len(tasks) > 1 or threading.active_count() > 1)
    found += [f"open: {name}" for fd, name in open_files().items() if fd not in files]
    found += [f"shared memory: {line}" for line in maps if line.split()[1].startswith("rw") and line.split()[1].endswith("s")]
    return found + [f"imported: {m}" for m in sys.modules if m.split(".")[0] == "k2nb"]


def prepare():
    "Import what notebooks need; exit if more came of it than modules."
    before, files = dict(os.environ), open_files()
    os.environ |= THREADLESS
    for module in PRELOAD: importlib.import_module(module)
    os.environ.clear()
    os.environ |= before
    if found := shared_with_forks(files): sys.exit("\n".join(["what was imported left more than modules:", *found]))
    gc.collect()
    gc.freeze()  # what stays for good is not looked through again by each fork


def serve(fd):
    "Fork for every request until the other side hangs up. It returns in the forks alone, with sys.argv and environment as requested."
    control = socket.socket(fileno=fd)
    prepare()
    control.send(b"ready")
    while True:
        request, fds, *_ = socket.recv_fds(control, 65536, 2)
        if not request: os._exit(0)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]: pass
        if os.fork():
            for f in fds: os.close(f)
            continue
        control.close()
        return become(request.decode().split("\0"), *fds)


def become(request, status, said):
    "In a fork: fork once more, be the test in the child, and wait for it here."
    status = socket.socket(fileno=status)
    try: pid = os.fork()
    except OSError: os._exit(1)
    if pid:
        os.close(said)
        status.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
        os._exit(0)
    os.setsid()
    status.send(str(os.getpid()).encode())
    status.close()
    for to in (1, 2): os.dup2(said, to)
    os.close(said)
    count = int(request[0])
    sys.argv, changed = request[1:count + 1], request[count + 1:]
    os.environ |= dict(pair.split("=", 1) for pair in changed)
    tempfile.tempdir = None  # remembered by an import; TMPDIR has changed
    # Python's generator seeds itself after a fork; these two begin anywhere too in a fresh process
    sys.modules["numpy"].random.seed()
    sys.modules["torch"].default_generator.seed()


# In the parent ------------------------------------------------------------------------------------------------------

def received(sock, timeout):
    "The next message; subprocess.TimeoutExpired if none comes, and empty if the other side is gone."
    sock.settimeout(timeout)
    try: return sock.recv(64)
    except TimeoutError: raise subprocess.TimeoutExpired("zygote", timeout) from None
    except ConnectionError: return b""


class Forked:
    "A process that the zygote has forked, with as much of subprocess.Popen as a test needs."

    def __init__(self, status):
        self.status, self.returncode = status, None
        try: told = received(status, WAIT)
        except subprocess.TimeoutExpired: raise ZygoteError(f"it took more than {WAIT} seconds to fork") from None
        if not told: raise ZygoteError("it could not fork")
        self.pid = int(told)

    def wait(self, timeout=None):
        if self.returncode is None:
            told = received(self.status, timeout)
            self.returncode = int(told) if told else -signal.SIGKILL  # who waited for it was ended with it
            self.status.close()
        return self.returncode


class Zygote:
    "The parent's end: started at once, asked for a process when there is one to start, and ended by `close`."

    def __init__(self, command, env, cwd):
        self.control, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.lock, self.is_ready, self.said = threading.Lock(), False, tempfile.TemporaryFile()
        with there:
            self.process = subprocess.Popen([*command, str(there.fileno())], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=self.said,
                                            stderr=subprocess.STDOUT, pass_fds=[there.fileno()], start_new_session=True)

    def ready(self):
        "Wait for the imports; `ZygoteError`, with what it said, if they fail."
        with self.lock:
            if self.is_ready: return
            try: self.is_ready = received(self.control, WAIT) == b"ready"
            except subprocess.TimeoutExpired: raise ZygoteError(f"its imports took more than {WAIT} seconds") from None
            if not self.is_ready:
                self.said.seek(0)
                raise ZygoteError(self.said.read().decode(errors="replace").strip())

    def start(self, argv, env, said):
        "Fork a process that runs `argv`, its environment changed by `env`, its output in the file `said`."
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = [str(len(argv)), *argv, *(f"{k}={v}" for k, v in env.items())]
        with there:
            try: socket.send_fds(self.control, ["\0".join(request).encode()], [there.fileno(), said.fileno()])
            except OSError as e: raise ZygoteError(f"it is gone: {e}") from None
        return Forked(here)

    def kill(self):
        "End it, and the processes that wait for its forks; the forks themselves are for `Runner` to end."
        with contextlib.suppress(ProcessLookupError): os.killpg(self.process.pid, signal.SIGKILL)

    def close(self):
        self.kill()
        self.process.wait()
        self.control.close()
        self.said.close()
