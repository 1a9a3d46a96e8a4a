"""Pytest plugin: tilepipe runs as on a system without fcntl, resource, os.pread, os.uname and os.sched_getaffinity.

    python -m pytest -p tests.blocked_modules [TESTS]

Other packages still find them.
"""

import builtins
import os

MODULES = ("fcntl", "resource", "pwd", "grp")
FUNCTIONS = ("pread", "uname", "sched_getaffinity")

_import = builtins.__import__


def _refuse(name, globals=None, *rest, **options):  # the signature of __import__
    if name in MODULES and (globals or {}).get("__name__", "").startswith("tilepipe"):
        raise ImportError(f"{name} is blocked")
    return _import(name, globals, *rest, **options)


builtins.__import__ = _refuse
for function in FUNCTIONS:
    if hasattr(os, function):
        delattr(os, function)
