#!/bin/sh
# Write requirements/*.lock again from pyproject.toml: every package, version and hash, for Python 3.11 and later.
# With --upgrade to the newest versions, else only what pyproject.toml asks for changes.
set -eu
cd "$(dirname "$0")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools" && "$tools/bin/pip" install -q uv
compile() {
  "$tools/bin/uv" pip compile -q --no-config --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-annotate --custom-compile-command 'deploy/lock.sh' \
    pyproject.toml requirements/build.in "$@" >/dev/null
}
compile --extra dev -o requirements/dev.lock "$@"
compile --extra web -c requirements/dev.lock -o requirements/try.lock "$@"
