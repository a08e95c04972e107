"""Kernels that are forks of one process which has imported what nearly every notebook needs: each would take seconds to import it.

    python tools/site/kernels.py FD        the process that is forked; zygote.py says how it is asked

Where a fork is no safe thing (Windows and macOS) notebooks get kernels that start afresh; the pages are the same.
"""
import asyncio, os, subprocess, sys, tempfile, threading, time
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

import zygote  # noqa: E402

BACKEND = "module://matplotlib_inline.backend_inline"  # a kernel asks for it, but not before Matplotlib is imported here
# these bind Matplotlib to a shell, which is not there before the fork
LATER = ("execnb", "nbdev", "matplotlib_inline")


def kernel(parent, folder, *args):
    "In a fork: be the kernel of a notebook in `folder`, and end with the process that asked for it."
    from ipykernel.kernelapp import IPKernelApp
    def watch():
        while Path(f"/proc/{parent}").exists(): time.sleep(2)
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()
    os.chdir(folder)
    here = {str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)}
    sys.path[:] = [p for p in sys.path if p not in here]  # a notebook finds what its readers find
    sys.modules.pop("zygote")
    IPKernelApp.launch_instance(argv=list(args))


def manager(zyg, folder):
    "A manager of a kernel that `zyg` forks for a notebook in `folder`."
    from jupyter_client import AsyncKernelManager
    from jupyter_client.provisioning import LocalProvisioner

    class Fork(LocalProvisioner):
        async def launch_kernel(self, cmd, **kwargs):
            with tempfile.TemporaryFile() as said:
                self.process = zyg.start([str(os.getpid()), str(folder), *cmd[cmd.index("-f"):]], {"MPLBACKEND": BACKEND}, said)
            self.pid = self.pgid = self.process.pid  # it leads a session of its own
            return self.connection_info

        async def poll(self):
            if not self.process: return 0
            try: return self.process.wait(.001)
            except subprocess.TimeoutExpired: return None

        async def wait(self):
            while (ended := await self.poll()) is None: await asyncio.sleep(.05)
            self.process = None
            return ended

    found = AsyncKernelManager(kernel_name="python3")
    found.provisioner = Fork(parent=found, kernel_id="", kernel_spec=found.kernel_spec)
    return found


@contextmanager
def managers():
    "A function from a notebook's folder to a kernel's manager, or None where kernels start afresh."
    if sys.platform != "linux": yield lambda folder: None; return
    zyg = zygote.Zygote([sys.executable, str(Path(__file__).resolve())], os.environ | {"MPLBACKEND": BACKEND}, Path.cwd())
    def forked(folder):
        try: zyg.ready()
        except zygote.ZygoteError as e: print(f"kernels start afresh: {e}", flush=True); return None
        return manager(zyg, folder)
    try: yield forked
    finally: zyg.close()


if __name__ == "__main__":
    zygote.PRELOAD = tuple(m for m in zygote.PRELOAD if not m.startswith(LATER))
    zygote.serve(int(sys.argv[1]))
    kernel(*sys.argv)
