#!/usr/bin/env bash
# The suite with the lowest versions that pyproject.toml declares, or with the newest there are.
#
#   bash tools/check_versions.sh lowest                   the quick suite
#   bash tools/check_versions.sh newest tests/models -q   what is named, as for pytest
#
# Needs uv (pip install uv). It makes an environment of its own, a few GB, in $WORK or a temporary
# folder; what it resolved to is printed first. UV_TORCH_BACKEND=cpu takes PyTorch without CUDA.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
    lowest) resolution=lowest-direct ;;
    newest) resolution=highest ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
shift
work=${WORK:-$(mktemp -d)}
[ -n "${WORK:-}" ] || trap 'rm -rf "$work"' EXIT
export HWSEARCH_CACHE="$work/cache" HWSEARCH_HOME="$work/home" OMP_NUM_THREADS=1

uv venv --quiet --allow-existing --python "$(command -v python3)" "$work/venv"
# Only what hwsearch itself needs is taken as old as it may be: the tools of the tests are newest.
uv pip compile --quiet --no-annotate --no-header pyproject.toml --extra cpu --extra trees \
    --resolution "$resolution" --python "$work/venv/bin/python" --output-file "$work/resolved.txt"
cat "$work/resolved.txt"
uv pip install --quiet --python "$work/venv/bin/python" --requirement "$work/resolved.txt"
uv pip install --quiet --python "$work/venv/bin/python" --no-deps --editable .
uv pip install --quiet --python "$work/venv/bin/python" --constraint "$work/resolved.txt" \
    pytest pytest-timeout pytest-xdist hypothesis

# What is newer than the oldest of what it works with may warn of that.
[ "$resolution" = highest ] || set -- -W default "$@"
"$work/venv/bin/python" -m pytest "$@"
