# -*- coding: utf-8 -*-
"""Make .venv and install k2nb in it with everything that development needs; do nothing where that is already so.

Runs on the system's own Python with no packages. The syntax is old on purpose: a Python that is too old must reach
the line that says so.
"""
import hashlib
import os
import re
import subprocess
import sys
import threading
import time

OLDEST, NEWEST = (3, 10), (3, 13)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, ".k2nb-installed")  # what is installed: versions and a hash of the files that ask for it
UNDERWAY = os.path.join(VENV, ".k2nb-installing")  # there while pip works; found at the start, it tells of a broken-off install
LOG = os.path.join(VENV, "install.log")
ASKED = ("settings.ini", "setup.py", "pyproject.toml", "constraints.txt")


def stop(message):
    sys.exit("k2nb: " + message)


def dotted(version):
    return "%d.%d" % tuple(version[:2])


def wanted(version):
    "What the stamp must say for this Python version."
    h = hashlib.sha256()
    for name in ASKED:
        with open(os.path.join(ROOT, name), "rb") as f: h.update(f.read() + b"\0")
    return "python %s, %s\n" % (dotted(version), h.hexdigest()[:16])


def read(path):
    try:
        with open(path) as f: return f.read()
    except (IOError, OSError): return ""


def write(path, text):
    with open(path, "w") as f: f.write(text)


def version_there():
    "Python version of .venv as (major, minor), or None if there is no .venv that works."
    try: out = subprocess.check_output([PYTHON, "-c", "import pip, sys; print('%d.%d' % sys.version_info[:2])"], stderr=subprocess.STDOUT)
    except (OSError, subprocess.CalledProcessError): return None
    return tuple(int(part) for part in out.decode().split(".")[:2])


def check_python():
    "Stop unless this Python can make the environment."
    here = sys.version_info[:2]
    if not OLDEST <= here <= NEWEST:
        stop("needs Python %s to %s and this is %s (%s). Install one of those and name it: make PYTHON=python%s test"
             % (dotted(OLDEST), dotted(NEWEST), dotted(here), sys.executable, dotted(NEWEST)))
    try: import ensurepip, venv  # noqa: F401, E401  Debian and Ubuntu package these apart from Python
    except ImportError:
        package = "python3-venv" if os.path.basename(sys.executable) == "python3" else "python%s-venv" % dotted(here)
        stop("this Python (%s, %s) lacks its venv module. Install it: apt-get install %s (Debian, Ubuntu)"
             % (sys.executable, dotted(here), package))


def make_venv(why):
    check_python()
    say("making .venv with Python %s%s" % (dotted(sys.version_info), why))
    if subprocess.call([sys.executable, "-m", "venv", "--clear", VENV]): stop("could not make .venv; the lines above say why")


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Progress:
    "What pip is doing, in one changing line on a terminal; elsewhere big downloads and a sign of life every 30 seconds."

    def __init__(self):
        self.start, self.doing, self.done, self.last = time.time(), "starting pip", False, time.time()
        self.terminal = sys.stdout.isatty()
        self.thread = threading.Thread(target=self.tick)
        self.thread.daemon = True
        self.thread.start()

    def tick(self):
        while not self.done:
            if self.terminal: self.paint("%4d s  %s" % (time.time() - self.start, self.doing))
            elif time.time() - self.last > 30: self.tell(self.doing + " …")
            time.sleep(.5)

    def paint(self, text):
        sys.stdout.write("\r\033[K" + text[:100])
        sys.stdout.flush()

    def tell(self, text):
        self.last = time.time()
        say("%4d s  %s" % (time.time() - self.start, text))

    def hear(self, line):
        "Take one line of pip's."
        line = line.strip()
        big = re.match(r"Downloading (?:.*/)?(\S+) \(([\d.]+) (MB|GB)", line)
        short = re.match(r"((?:Collecting|Downloading|Using cached|Processing) \S+|(?:Building|Preparing|Installing) [^:]*)", line)
        if short: self.doing = re.sub(r"\S*/", "", short.group(1))
        if self.terminal: return
        if big and (big.group(3) == "GB" or float(big.group(2)) > 20): self.tell("downloading %s (%s %s)" % big.groups())
        elif line.startswith("Installing collected packages"): self.tell("installing %d packages" % (line.count(",") + 1))

    def end(self):
        self.done = True
        self.thread.join()
        if self.terminal: self.paint("")


def install():
    "pip install into .venv; the whole of pip's talk goes to install.log."
    say("installing k2nb and its development tools into .venv (the first time takes some minutes)")
    write(UNDERWAY, "")
    command = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off", "--no-input",
               "-c", "constraints.txt", "-e", ".[dev]"]
    progress = Progress()
    try:
        pip = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                               env=dict(os.environ, PYTHONUNBUFFERED="1"))
        with open(LOG, "wb") as log:
            for line in pip.stdout:
                log.write(line)
                progress.hear(line.decode("utf-8", "replace"))
        status = pip.wait()
    finally: progress.end()
    if status >= 0: os.remove(UNDERWAY)  # pip takes its own failures back; a killed pip may leave half a package
    if status:
        say("\n".join(line[:200] for line in read(LOG).splitlines()[-25:] if not line.startswith("WARNING: Location")))
        stop("pip could not install (the end of its log is above, all of it in .venv/install.log). Nothing is lost: run make again")
    say("installed in %d s" % (time.time() - progress.start))


def main():
    switch = "--switch" in sys.argv  # PYTHON was named: a .venv of another version gives way to it
    if not os.path.isfile(os.path.join(ROOT, "settings.ini")): stop("%s is not k2nb's repository" % ROOT)
    with open(os.path.abspath(__file__)) as lock:
        try: import fcntl
        except ImportError: pass  # no such locks on Windows; two makes at once are on their own there
        else: fcntl.flock(lock, fcntl.LOCK_EX)
        there = version_there()
        if not os.path.exists(VENV): make_venv("")
        elif there is None: make_venv(": the one that is there does not run")
        elif os.path.exists(UNDERWAY): make_venv(": an earlier install was broken off")
        elif not OLDEST <= there <= NEWEST: make_venv(": the one that is there has Python %s" % dotted(there))
        elif switch and there != sys.version_info[:2]: make_venv(": the one that is there has Python %s" % dotted(there))
        there = version_there()
        if there is None: stop(".venv was made but does not run; remove it and look at: %s -m venv .venv" % sys.executable)
        if read(STAMP) != wanted(there):
            install()
            write(STAMP, wanted(there))


if __name__ == "__main__":
    try: main()
    except KeyboardInterrupt: sys.exit("\nk2nb: stopped; run make again to go on")
