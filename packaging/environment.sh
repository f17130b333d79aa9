# Sourced by run, test and build: finds a Python, makes .venv, installs what is missing. Knows nothing of edgegc's code.
#
# Only apt and pip are used, each as an ordinary client; nothing is fetched and piped into a shell.

set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$top/.venv
packaging=$(basename "$0")

say() { printf 'packaging/%s: %s\n' "$packaging" "$*" >&2; }
die() { say "$*"; exit 1; }

may_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# apt_install PACKAGE...: installs them, after an update only where the lists are empty or stale.
apt_install() {
    may_apt || return 1
    say "installing with apt: $*"
    local log
    log=$(mktemp)
    if DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >"$log" 2>&1 \
        || { apt-get update >"$log" 2>&1 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >"$log" 2>&1; }; then
        rm -f "$log"
    else
        tail -n 20 "$log" >&2
        rm -f "$log"
        return 1
    fi
}

# A program in PATH may be a shim that starts nothing, so each candidate is asked.
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
can_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# find_python: sets python to one that is new enough and can make a virtual environment.
find_python() {
    local candidate seen=
    for candidate in python3 /usr/bin/python3 python3.13 python3.12 python3.11; do
        command -v "$candidate" >/dev/null && new_enough "$candidate" || continue
        seen=$candidate
        if can_venv "$candidate"; then python=$candidate; return; fi
    done
    # Debian ships venv apart, for its own Python.
    if [ -z "$seen" ] || new_enough /usr/bin/python3 || ! [ -x /usr/bin/python3 ]; then
        if apt_install python3 python3-venv && new_enough /usr/bin/python3 && can_venv /usr/bin/python3; then
            python=/usr/bin/python3
            return
        fi
    fi
    [ -n "$seen" ] || die "needs Python 3.11 or newer; on Debian 12 or newer: sudo apt-get install python3 python3-venv"
    die "$seen lacks the venv module; on Debian: sudo apt-get install python3-venv"
}

# install_project EXTRA: .venv has the project (editable) with its extra ("" or "dev"). Quick when nothing changed.
install_project() {
    local extra=$1 stamp=$venv/edgegc-installed${1:+-$1} wanted
    # What would make the environment wrong: other requirements, another place, another Python.
    wanted=$(cat "$top/pyproject.toml" <(printf '%s\n' "$top") | sha256sum)
    if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && "$venv/bin/python" -c '' 2>/dev/null; then
        return
    fi
    # Two starts at once must not install into the same directory.
    exec 9<"$top/packaging"
    flock 9
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || ! "$venv/bin/python" -c '' 2>/dev/null; then
        find_python
        rm -f "$venv"/edgegc-installed*
        if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1 || [ "$("$venv/bin/python" -c 'import sys; print(sys.prefix)')" != "$venv" ]; then
            say "making .venv with $("$python" --version)"
            "$python" -m venv --clear "$venv"
        fi
        say "installing the project and what it needs into .venv (once; some minutes on a small board)"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$top${extra:+[$extra]}"
        printf '%s\n' "$wanted" >"$stamp"
        # The larger set holds the smaller.
        printf '%s\n' "$wanted" >"$venv/edgegc-installed"
    fi
    exec 9<&-
}

# find_program NAME: also where a plain user's PATH does not look.
find_program() { PATH="$PATH:/usr/sbin:/sbin:/usr/local/sbin:/usr/local/bin" type -P "$1" >/dev/null; }  # no builtin counts

# install_promtool: promtool is in PATH or in .venv/bin. Taken out of its package: installing that starts a server.
install_promtool() {
    find_program promtool && return
    [ -x "$venv/bin/promtool" ] && return
    command -v apt-get >/dev/null || return 1
    say "taking promtool out of the package prometheus"
    local scratch done=1
    scratch=$(mktemp -d)
    if (
        cd "$scratch" || exit 1
        apt-get download -o APT::Sandbox::User=root prometheus || { may_apt && apt-get update && apt-get download -o APT::Sandbox::User=root prometheus; } || exit 1
        dpkg-deb -x prometheus_*.deb unpacked
    ) >"$scratch/log" 2>&1; then
        mv "$scratch/unpacked/usr/bin/promtool" "$venv/bin/promtool" && done=0
    else
        tail -n 20 "$scratch/log" >&2
    fi
    rm -rf "$scratch"
    return "$done"
}
