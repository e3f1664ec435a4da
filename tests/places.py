"""Where the project, its config and its modules are: tests look from here, wherever they are."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"

PACKAGES = ("clients", "strategies", "sim", "conf", "stillhouse")
SOURCES = sorted(
    path
    for name in (*PACKAGES, "run.py")
    for path in [ROOT / name, *(ROOT / name).rglob("*.py")]
    if path.suffix == ".py"
)
"""Every file of the product."""
MODULES = [str(path.relative_to(ROOT).with_suffix("")).replace("/", ".") for path in SOURCES]
"""Their names where they are imported, in the same order."""
