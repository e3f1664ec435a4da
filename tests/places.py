"""Where the project and its config are: tests look from here, wherever they are themselves."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"
