#!/bin/sh
# release.sh VERSION: write a version, and now as the time it was built, where the program reads them.
set -eu
version=${1:?release.sh VERSION}
cd "$(dirname "$0")/.."
sed -i "s/^__version__ = .*/__version__ = \"$version\"/; s/^BUILT = .*/BUILT = $(date +%s).0/" \
  firmware/doorstation/__init__.py
sed -i "s/^version = .*/version = \"$version\"/" pyproject.toml
