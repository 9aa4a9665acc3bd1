"""The programs of scripts/ as modules, which is what a test of their parts needs."""

import importlib.util
from types import ModuleType

from tests.command_lines import ROOT


def load_script(name: str) -> ModuleType:
    """scripts/NAME.py, as a new module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
