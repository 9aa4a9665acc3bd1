# Sourced by the scripts of this folder: makes and activates a virtual environment.

say() { printf '\n== %s\n' "$*"; }

find_python() { # one that all dependencies support
  local candidate
  local supported='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'
  for candidate in "${PYTHON:-}" python3.12 python3.11 python3.10 python3.13 python3 python; do
    if [ -n "$candidate" ] && "$candidate" -c "$supported" 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  echo "error: no Python 3.10 to 3.13 found;" \
    "install one, or name it: PYTHON=/path/to/python3.12 $0" >&2
  exit 2
}

# make_environment FOLDER REQUIREMENT [CONSTRAINTS]: an environment with this project, installed so
# that edits take effect, with the versions that the file CONSTRAINTS names. It is made again only
# when that file or setup.py has changed since.
make_environment() {
  local folder=$1 requirement=$2 constraints=${3:-/dev/null} python stamp
  stamp="$requirement $(cat setup.py "$constraints" | cksum)"
  if [ "$(cat "$folder/multihot-stamp" 2>/dev/null)" = "$stamp" ]; then
    say "environment $folder is up to date"
  else
    python=$(find_python)
    say "making the environment $folder with $("$python" --version)" \
      "(a download of about 1 GB the first time)"
    "$python" -m venv --clear "$folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
    "$folder/bin/python" -m pip install -qqq --disable-pip-version-check \
      --constraint "$constraints" --editable "$requirement"
    echo "$stamp" >"$folder/multihot-stamp"
  fi
  # shellcheck disable=SC1091
  . "$folder/bin/activate"
}
