"""Run a command, measure its memory from outside and print it as JSON: ``python -I -S tests/measured.py COMMAND ...``.

The launcher is small, because a process starts as a copy of its parent, and the kernel counts that in its peak.
"""

import json
import os
import sys
import time

INTERVAL = 0.05
"""Time between two looks at the processes, s."""


def tree(root):
    """Return the process `root` and all processes below it."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    found = {root}
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def field(path, name):
    """Return a field of a file in /proc, bytes; 0 when the process is gone."""
    try:
        with open(path) as file:
            for line in file:
                if line.startswith(name):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def measure(command):
    """Run `command`; return its exit code, and the peaks in bytes.

    `rss`: resident memory of the process, as the kernel reports it at the end (VmHWM); `tree_rss`, `tree_pss`: largest
    sum over the process and its children that was seen, pages shared with other processes counted in full and in part.
    """
    pid = os.fork()
    if pid == 0:
        os.execv(command[0], command)
    tree_rss = tree_pss = 0
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            break
        processes = tree(pid)
        tree_rss = max(tree_rss, sum(field(f"/proc/{one}/status", "VmRSS:") for one in processes))
        tree_pss = max(tree_pss, sum(field(f"/proc/{one}/smaps_rollup", "Pss:") for one in processes))
        time.sleep(INTERVAL)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "rss": usage.ru_maxrss * 1024,
        "tree_rss": tree_rss,
        "tree_pss": tree_pss,
    }


if __name__ == "__main__":
    sys.stdout.flush()
    result = measure(sys.argv[1:])
    print("\n" + json.dumps(result))
