"""Lines beyond the checkpoint."""

from pathlib import Path

import pytest

from sim.tracking.run_folder import METRICS, truncate


def test_lines_beyond_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    path.write_bytes(b'{"a": 1}\n{"b": "\\u2028"}\n{"c": 3}\n{"d')
    with pytest.raises(ValueError, match=f"{METRICS}: has fewer lines than the 4 of the"):
        truncate(path, 4)
    truncate(path, 2)
    assert path.read_bytes() == b'{"a": 1}\n{"b": "\\u2028"}\n'
    truncate(path, 0)
    assert path.read_bytes() == b""
    truncate(tmp_path / "absent", 0)
    with pytest.raises(ValueError, match="absent: has fewer lines than the 1"):
        truncate(tmp_path / "absent", 1)
