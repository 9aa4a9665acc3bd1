#!/usr/bin/env bash
# Makes the test environment, checks style and runs all tests. Arguments go to pytest:
#   ./scripts/test.sh -m unit
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
make_environment .venv-test '.[test,docs]'

say "style"
ruff check .
ruff format --check .
say "tests"
# Two processes: most tests wait for single-threaded ones of their own.
python -m pytest -n 2 --dist loadfile "$@"
