"""What the benches share: the line that says on what machine, and a section of README.md that each run replaces.

`write_section` is the only thing that writes to bench/README.md. It changes what lies between `<!-- NAME -->` and `<!-- /NAME -->`
and leaves the rest as it is, so that a bench can be run alone and people can write prose around the tables.
"""
import importlib.metadata, os, platform, re
from pathlib import Path

import numpy as np

from k2nb.core import InputError, atomic_path

README = Path(__file__).with_name("README.md")
SOFTWARE = ("torch", "transformers", "numpy")  # told of every run; a bench adds its peers


def versions(
    *names: str,  # names of distributions
) -> str:  # "torch 2.13.0+cpu, numpy 2.4.6"; one that is not installed is left out
    "Which versions of these packages are installed."
    found = []
    for name in names:
        try: found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError: continue
    return ", ".join(found)


def _cpu() -> str:
    try: text = Path("/proc/cpuinfo").read_text()
    except OSError: return platform.processor() or platform.machine()
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return " ".join(model[1].split()) if model else platform.machine()


def _memory() -> str:
    try: return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB RAM"
    except (AttributeError, ValueError, OSError): return "RAM unknown"


def machine(
    *packages: str,  # told besides `SOFTWARE`
) -> str:  # one line without host names or paths
    "The machine and the software of this run, in words."
    import torch
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else ""
    return (f"{_cpu()}, {cores} cores, {_memory()}{gpu}; {platform.system()}, Python {platform.python_version()}, "
            f"{versions(*SOFTWARE, *packages)}; {torch.get_num_threads()} CPU thread{'s' * (torch.get_num_threads() > 1)}")


def table(
    head: list[str],  # column names
    rows: list[list],  # each of len(head); numbers are written as they are
) -> str:  # a Markdown table, the first column left-aligned, the others right-aligned
    "Rows as a Markdown table."
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(str(x).replace("|", "\\|") for x in line) + " |" for line in lines)


def ratio(
    slow,  # (n,) seconds of one contestant, repeat by repeat
    fast,  # (n,) seconds of another in the same rounds
) -> tuple[float, float, float]:  # median of slow / fast, and its 95 % interval
    "How many times longer one takes than the other. Each round's pair is divided first; the interval is a bootstrap of the median."
    r = np.asarray(slow, float) / np.asarray(fast, float)
    medians = np.median(r[np.random.default_rng(0).integers(len(r), size=(2000, len(r)))], axis=1)
    return float(np.median(r)), *map(float, np.quantile(medians, [.025, .975]))


def write_section(
    name: str,  # of the bench's file, without .py: names the markers
    title: str,  # the section's heading
    command: str,  # what makes it again, as typed in the repository's root
    text: str,  # Markdown: table and prose
    packages: tuple[str, ...] = (),  # whose versions are told besides torch, transformers and numpy
    path: str | os.PathLike = README,  # the file
) -> None:
    "Replace the section `name` of bench/README.md, or add it at the end, atomically."
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name): raise InputError(f"a section's name is lower case and without blanks, got {name!r}")
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if begin in text or end in text: raise InputError(f"the text of section {name!r} holds its own marker")
    section = f"{begin}\n## {title}\n\n    {command}\n\n{text.strip()}\n\n*{machine(*packages)}*\n{end}"
    old = Path(path).read_text(encoding="utf-8")
    if (old.count(begin), old.count(end)) not in ((0, 0), (1, 1)) or old.find(begin) > old.find(end):
        raise InputError(f"{Path(path).name} must hold {begin} and {end} once each, in this order, or neither")
    if begin in old: new = old[:old.index(begin)] + section + old[old.index(end) + len(end):]
    else: new = f"{old.rstrip()}\n\n{section}\n"
    with atomic_path(path) as temp: temp.write_text(new, encoding="utf-8")
