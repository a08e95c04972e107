"Reads everything that setuptools needs from settings.ini, where nbdev keeps it too."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

config = ConfigParser(delimiters=["="])
config.read(Path(__file__).parent / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
EXTRAS = ("sae", "llm", "ray", "viz", "parquet", "dev")

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=cfg["keywords"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: " + cfg["audience"],
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Programming Language :: Python :: 3",
        *[f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)],
    ],
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=["k2nb", "k2nb.*"]),
    package_data={"k2nb": ["data/**/*"]},
    install_requires=cfg["requirements"].split(),
    extras_require={name: cfg[f"{name}_requirements"].split() for name in EXTRAS},
    entry_points={
        "console_scripts": ["k2nb=k2nb.cli:main"],  # python -m k2nb, by its name
        "nbdev": ["k2nb=k2nb._modidx:d"],  # lets nbdev projects, this one too, link to its pages
    },
    zip_safe=False,
)
