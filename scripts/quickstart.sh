#!/usr/bin/env bash
# From nothing to a served model: makes a virtual environment, then preprocesses, trains,
# evaluates, exports and predicts.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
make_environment .venv .

multihot quickstart
