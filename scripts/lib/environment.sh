# shellcheck shell=sh
# The project's virtual environment: made when missing, reused when current. Every script here sources this.
#
#   . "$(dirname -- "$0")/lib/environment.sh"
#   environment dev                     # the project, editable, with the extra `dev`
#   environment_also torch==2.13.0      # one requirement more; options of pip may follow
#
# Afterwards `$root` is the repository, `$venv` the environment and `$python` its interpreter. Standard output
# is never written to. What is read from outside:
#
#   PYTHON         the interpreter to build the environment with (default: the first that fits on the PATH)
#   LACONIC_VENV   where the environment lies (default: .venv in the repository)
#
# What was asked of pip is kept beside what it installed, in `*.stamp`. A stamp that says anything else than
# what is wanted now (another pyproject.toml, a repository that moved) means: install again.

oldest_minor=11
newest_minor=14

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
venv=${LACONIC_VENV:-$root/.venv}
case $venv in
/*) ;;
*) venv=$PWD/$venv ;;
esac
python=$venv/bin/python

say() {
    printf 'laconic: %s\n' "$1" >&2
}

# fail PROBLEM [LINE...]: what went wrong, then what to do about it.
fail() {
    say "$1"
    shift
    for line; do
        printf '         %s\n' "$line" >&2
    done
    exit 1
}

environment() {
    # `dev` contains `demo`: who has the tests' environment need not wait for the demo's.
    if [ "$1" = demo ] && is_current dev "-e ${root}[dev]"; then
        return
    fi
    install "$1" "laconic[$1]" -e "${root}[$1]"
}

environment_also() {
    requirement=$1
    shift
    install "${requirement%%[=<>!~]*}" "$requirement" "$@" "$requirement"
}

# install NAME LABEL PIP-ARGUMENT...: NAME is the stamp's, LABEL is what a person reads.
install() {
    name=$1 label=$2
    shift 2
    if is_current "$name" "$*"; then
        return
    fi
    take_lock
    # Whoever held the lock may have done it all in the meantime.
    if ! is_current "$name" "$*"; then
        prepare_venv
        run_pip "$@"
    fi
    release_lock
}

# --- what is there already ---------------------------------------------------------------------------------

# is_current NAME ARGUMENTS: installed, complete, and for this interpreter, this place and this pyproject.toml.
is_current() {
    [ -x "$python" ] && [ ! -e "$venv/installing" ] && [ -f "$venv/$1.stamp" ] &&
        [ "$(cat "$venv/$1.stamp")" = "$(stamp "$2")" ] && is_requested_python
}

stamp() {
    printf 'pip install %s\nin %s\n' "$1" "$root"
    cat "$root/pyproject.toml"
}

# Without PYTHON any environment will do; with it, only one of that version.
is_requested_python() {
    [ -n "${PYTHON:-}" ] || return 0
    find_python
    [ "$(minor_version "$python")" = "${found_version%.*}" ]
}

# --- a Python ----------------------------------------------------------------------------------------------

version() {
    "$1" -I -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null ||
        "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null || true
}

minor_version() {
    of_python=$(version "$1")
    printf '%s\n' "${of_python%.*}"
}

is_supported() {
    case $1 in
    3.*.*) ;;
    *) return 1 ;;
    esac
    minor=${1#3.}
    minor=${minor%%.*}
    [ "$minor" -ge "$oldest_minor" ] && [ "$minor" -le "$newest_minor" ]
}

# Sets `found` and `found_version`, or ends the script with the way out.
find_python() {
    found='' seen='' without_venv=''
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3 python3.14 python3.13 python3.12 python3.11 python
    fi
    for candidate; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        found_version=$(version "$candidate")
        # A launcher that knows of no such version says nothing.
        [ -n "$found_version" ] || continue
        seen="$seen${seen:+, }$candidate is $found_version"
        is_supported "$found_version" || continue
        if "$candidate" -I -c 'import ensurepip, venv' >/dev/null 2>&1; then
            found=$candidate
            return
        fi
        without_venv=${without_venv:-"$candidate $found_version"}
    done

    if [ -n "$without_venv" ]; then
        short=${without_venv##* }
        short=${short%.*}
        fail "${without_venv% *} (Python ${without_venv##* }) cannot make virtual environments: venv or ensurepip is missing." \
            "Debian, Ubuntu:  apt install python3-venv    (or python$short-venv)" \
            "Or name another interpreter:  PYTHON=/path/to/python3 $0"
    fi
    fail "Python 3.$oldest_minor to 3.$newest_minor is needed; ${seen:-none was found${PYTHON:+ at $PYTHON}}." \
        "Debian 12 or newer, Ubuntu 24.04 or newer:  apt install python3 python3-venv" \
        "Elsewhere, install a Python of that range, or name the one you have:  PYTHON=/path/to/python3 $0"
}

# --- the environment ---------------------------------------------------------------------------------------

prepare_venv() {
    if [ -e "$venv/installing" ]; then
        why="the last installation was interrupted: "
    elif [ ! -e "$venv/pyvenv.cfg" ]; then
        why=''
        if [ -n "$(ls -A "$venv")" ]; then
            fail "$venv exists, but is not a virtual environment." \
                "Remove it, or set LACONIC_VENV to another place."
        fi
    elif ! is_supported "$(version "$python")"; then
        why="the environment's Python is gone or too old: "
    elif ! is_requested_python; then
        why="PYTHON asks for another version: "
    elif stamps_are_from_elsewhere; then
        why="the repository has moved: "
    elif "$python" -I -m pip --version >/dev/null 2>&1 || "$python" -I -m ensurepip >/dev/null 2>&1; then
        return
    else
        why="the environment has no pip: "
    fi
    find_python
    say "${why}making a virtual environment in $venv (Python $found_version)"
    if ! output=$("$found" -I -m venv --clear "$venv" 2>&1); then
        fail "$found -m venv failed:" "$output" \
            "Debian, Ubuntu:  apt install python3-venv" \
            "Is there room on the disk?  df -h $venv"
    fi
}

# Programs in an environment name it by its absolute path: it cannot move with the repository.
stamps_are_from_elsewhere() {
    for file in "$venv"/*.stamp; do
        if [ -f "$file" ] && [ "$(sed -n 2p "$file")" != "in $root" ]; then
            return 0
        fi
    done
    return 1
}

# run_pip PIP-ARGUMENT...: installs, and writes the stamp of `$name`.
run_pip() {
    log=$venv/install.log
    say "installing $label (minutes the first time; details in $log)"
    rm -f "$venv/$name.stamp"
    # While this file exists, packages may be half installed: whoever finds it starts from nothing.
    : >"$venv/installing"
    # In the background, so that a signal is seen at once and not when pip has ended.
    PIP_USER=0 "$python" -I -m pip install --no-input --disable-pip-version-check "$@" >"$log" 2>&1 </dev/null &
    child=$!
    trap 'stop_pip 130' INT
    trap 'stop_pip 143' TERM HUP
    status=0
    wait "$child" || status=$?
    trap - INT TERM HUP
    if [ "$status" -ne 0 ]; then
        # pip that ends by itself has put back what it replaced; pip that was killed has not.
        [ "$status" -ge 128 ] || rm -f "$venv/installing"
        say "pip could not install $label. Its last lines:"
        tail -n 12 "$log" | sed 's/^/    | /' >&2
        fail "What to do: $(remedy "$log")" "Everything pip said is in $log; then run $0 again."
    fi
    stamp "$*" >"$venv/$name.stamp.new"
    mv -f "$venv/$name.stamp.new" "$venv/$name.stamp"
    rm -f "$venv/installing"
}

stop_pip() {
    kill "$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
    release_lock
    say "interrupted; the next run starts again"
    exit "$1"
}

remedy() {
    if grep -qi 'No space left on device' "$1"; then
        echo "make room on the disk (about 1 GB)."
    elif grep -qiE 'NewConnectionError|name resolution|Network is unreachable|Connection (refused|reset)|timed out|Max retries|ProxyError' "$1"; then
        echo "there seems to be no network. Check the connection, HTTPS_PROXY and pip's own settings (pip config list)."
    elif grep -qiE 'CERTIFICATE_VERIFY_FAILED|SSLError' "$1"; then
        echo "the server's certificate is not trusted. Check the clock, and pip's setting 'cert'."
    else
        echo "read the lines above; without a network or with a mirror that lacks a package, pip ends like this too."
    fi
}

# --- one at a time -----------------------------------------------------------------------------------------

# The lock is on the folder itself where flock(1) exists: the kernel lets go of it when the last process that
# holds it is gone, pip included. Elsewhere it is a symbolic link to the owner's process id.
take_lock() {
    if ! mkdir -p "$venv" 2>/dev/null || [ ! -w "$venv" ]; then
        fail "$venv cannot be written." \
            "Is the folder read-only, or another user's? Put the environment elsewhere:" \
            "LACONIC_VENV=\$HOME/.cache/laconic-venv $0"
    fi
    if command -v flock >/dev/null 2>&1; then
        exec 9<"$venv"
        if ! flock -n 9; then
            say "waiting for another run that is preparing $venv"
            flock 9 || say "this file system has no locks: going on without"
        fi
    else
        take_link_lock
    fi
}

release_lock() {
    if [ -L "$venv.lock/owner" ] && [ "$(readlink "$venv.lock/owner")" = $$ ]; then
        trap - EXIT
        rm -f "$venv.lock/owner"
        rmdir "$venv.lock" 2>/dev/null || true
    fi
    exec 9<&-
}

take_link_lock() {
    waiting=''
    while :; do
        mkdir -p "$venv.lock"
        if ln -s $$ "$venv.lock/owner" 2>/dev/null; then
            trap release_lock EXIT
            return
        fi
        owner=$(readlink "$venv.lock/owner" 2>/dev/null || true)
        if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then
            # Only one may clear away a dead owner, and only that owner: between the look and the act,
            # another run may have done so and taken the lock.
            if mkdir "$venv.lock/clearing-$owner" 2>/dev/null; then
                if [ "$(readlink "$venv.lock/owner" 2>/dev/null || true)" = "$owner" ]; then
                    rm -f "$venv.lock/owner"
                fi
                rmdir "$venv.lock/clearing-$owner"
            fi
            continue
        fi
        if [ -z "$waiting" ]; then
            waiting=yes
            say "waiting for another run that is preparing $venv (if there is none, remove $venv.lock)"
        fi
        sleep 1
    done
}
