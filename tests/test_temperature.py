"""They learn: examples/temperature.py with fewer steps, and the fractions of mass per mode that it must show."""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import optimized

EXAMPLE = Path(__file__).parents[1] / "examples" / "temperature.py"
pytestmark = pytest.mark.slow
LOST = np.array([2.0, 0.6, 0.2, 0.02, 0.006, 0.0])


class Drawn(NamedTuple):
    """Of a policy's actions: the fraction nearest to each mode, and the share close to one."""

    mass: np.ndarray
    close: float


@pytest.fixture(scope="module", params=["default", "mixed"])
def drawn(tmp_path_factory, request):
    """What the example prints, by the policy's name."""
    picture = tmp_path_factory.mktemp("temperature") / "temperature.png"
    command = [sys.executable, EXAMPLE, picture, "1500", request.param]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=optimized())
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = [re.match(r"(.*?)  +([\d.% ]+)$", line) for line in done.stdout.splitlines()]
    found = {row[1]: [float(f) / 100 for f in row[2].replace("%", "").split()] for row in rows if row}
    return {name: Drawn(np.array(masses), share) for name, (*masses, share) in found.items()}


def test_they_learn(drawn):
    """One test, so that each precision is trained once, whatever process it is tested in."""
    mass = {name: found.mass for name, found in drawn.items()}
    for name in ("data", "BC flow", "FQL flow"):
        np.testing.assert_allclose(mass[name], 1 / 6, atol=0.06, err_msg=name)
    # FQL's actor goes to the best mode that it can reach, and leaves the worst ones, though its flow covers them.
    assert mass["FQL actor"][:2].sum() < 0.05
    assert mass["FQL actor"][-2:].sum() > 0.9
    soft, moderate, sharp = (mass[f"VaBC, eta {eta:g}"] for eta in (1e-1, 1e-3, 1e-5))
    # eta 1e-1 leans away from the worst mode and keeps the others; 1e-3 keeps the three good ones, and all of them.
    assert soft[0] < 0.1
    assert soft[1:].min() > 0.08
    assert moderate[3:].sum() > 0.97
    assert moderate[3:].min() > 0.1
    assert sharp[-1] > moderate[-1] > soft[-1]
    assert soft @ LOST > moderate @ LOST > sharp @ LOST
    for eta in ("0.1", "0.001", "1e-05"):
        assert np.abs(mass[f"actor, eta {eta}"] - mass[f"VaBC, eta {eta}"]).sum() < 0.3, f"actor, eta {eta}"
        assert drawn[f"VaBC, eta {eta}"].close > 0.6, f"VaBC, eta {eta}"
    assert drawn["data"].close == pytest.approx(0.989, abs=0.01)
