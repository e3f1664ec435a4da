"""Puts the repo's folders below one top-level name, `stillhouse`; the rest is in pyproject.toml.

Nothing called `clients`, `sim` or `conf` lies in site-packages: they are in `stillhouse/house/`, as
they are here, and importing `stillhouse` puts that folder on `sys.path`.
"""

from setuptools import find_packages, setup

HOUSE = "stillhouse.house"
ROOMS = find_packages(include=["clients*", "strategies*", "sim*", "conf*"])

setup(
    script_name="setup.py",  # which pip hides, and which is then no module of the house
    packages=["stillhouse", HOUSE, f"{HOUSE}.examples", *(f"{HOUSE}.{room}" for room in ROOMS)],
    package_dir={
        "stillhouse": "stillhouse",
        HOUSE: ".",  # of which the wheel takes the one module that is there, run.py
        f"{HOUSE}.examples": "examples",
        **{f"{HOUSE}.{room}": room.replace(".", "/") for room in ROOMS},
    },
    package_data={
        f"{HOUSE}.conf": ["**/*.yaml"],
        f"{HOUSE}.examples": ["*/*.py", "**/*.yaml"],
        f"{HOUSE}.sim.report": ["*.j2"],
    },
    include_package_data=False,
)
