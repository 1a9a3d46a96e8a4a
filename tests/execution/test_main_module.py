"""A script that starts processes without a guard gets an error at once, instead of being run again by each of them."""

import subprocess
import sys

import pytest

SCRIPT = """
import multiprocessing
import tilepipe

try:
    tilepipe.plan("there is no such picture.tif")
except tilepipe.errors.InputError:
    pass
process = multiprocessing.get_context("spawn").Process(target=print)
process.start()
process.join()
"""


@pytest.mark.thorough
def test_a_script_without_guard_gets_one_sentence(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert 'below `if __name__ == "__main__":`' in done.stderr.strip().splitlines()[-1]
