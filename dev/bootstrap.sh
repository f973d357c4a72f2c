#!/bin/sh
# Make .venv, the development environment, from dev/requirements.lock; does nothing when it is already of that lock.
# PYTHON chooses the interpreter (3.11 or later).
set -eu

cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
lock=dev/requirements.lock
stamp=.venv/lock.sha256

fail() {
    printf 'failed: %s\nwhat to do: %s\n' "$1" "$2" >&2
    exit 1
}

wanted=$(cat "$lock" pyproject.toml dev/bootstrap.sh | sha256sum | cut -d ' ' -f 1)
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

command -v "$python" >/dev/null ||
    fail "there is no $python on PATH" "install Python 3.11 or later (apt-get install python3), or set PYTHON"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old" "set PYTHON to a Python of 3.11 or later"
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "==> install python3-venv"
    [ "$(id -u)" = 0 ] || fail "python3 -m venv does not work here" "run: sudo apt-get install python3-venv"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-venv >/dev/null; } ||
        fail "apt-get could not install python3-venv" "install the venv module of $python by hand"
fi

echo "==> make .venv from $lock"
started=$(date +%s)
# Two shells at once (make -j, a second person in this checkout) take turns.
exec 9<"$lock"
! command -v flock >/dev/null || flock 9
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    rm -f "$stamp"
    # Only an interpreter that is gone needs a new directory: others may be working in the old one.
    .venv/bin/python -c '' 2>/dev/null || "$python" -m venv --clear .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$lock" ||
        fail "pip could not install $lock" "see pip's message above; behind a proxy or a private CA set HTTPS_PROXY and PIP_CERT"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e . ||
        fail "pip could not install this checkout" "see pip's message above"
    echo "$wanted" >"$stamp"
fi
echo "    done in $(($(date +%s) - started)) s"
