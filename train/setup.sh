# shellcheck shell=bash
# Sets the environment up once. The other scripts source it:  source "$(dirname "$0")/setup.sh"
#
# An active environment (VIRTUAL_ENV, CONDA_PREFIX) is used. Without one, .venv in the project root is, made with
# $PYTHON or the first of python3.12, python3.11, python3 that runs and is new enough. An interpreter that already
# imports all we need is used as it is: nothing is installed, an installed torch is never replaced. A stamp in the
# environment makes every later call take milliseconds.
#
# Leaves behind: PYTHON (the interpreter to call, not exported) and PYTHONPATH (exported, begins with the root).

_setup_say() { printf 'setup: %s\n' "$*" >&2; }

# Is it there, does it run, is it at least 3.11? A pyenv shim may exist and still fail, so it is run.
_setup_runs() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

_setup_prefix() { "$1" -I -c 'import sys; print(sys.prefix)'; }

# Prints the path, from the root on, of a command or a file.
_setup_path() {
    local path
    path=$(command -v -- "$1") || return 1
    case $path in /*) ;; *) path=$PWD/$path ;; esac
    printf '%s\n' "$path"
}

# Prints the first interpreter that will do.
_setup_find() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        if _setup_runs "$PYTHON"; then _setup_path "$PYTHON"; return 0; fi
        _setup_say "PYTHON='$PYTHON' does not run or is older than 3.11. Point it at Python 3.11 or 3.12."
        return 1
    fi
    for candidate in python3.12 python3.11 python3; do
        if _setup_runs "$candidate"; then _setup_path "$candidate"; return 0; fi
    done
    _setup_say "no Python 3.11 or newer found (tried python3.12, python3.11, python3). Install one or set PYTHON."
    return 1
}

# Do the packages that training needs import, in the ranges of pyproject.toml? Prints the first that does not.
_setup_imports() { # python root
    "$1" - "$2/pyproject.toml" <<'PY'
import importlib, importlib.metadata as metadata, re, sys, tomllib

names = {"torch": "torch", "transformers": "transformers", "diffusers": "diffusers", "lightning": "lightning",
         "jsonargparse": "jsonargparse", "einops": "einops", "safetensors": "safetensors", "pillow": "PIL"}
with open(sys.argv[1], "rb") as file:
    wanted = tomllib.load(file)["project"]["dependencies"]
split = (re.match(r"([\w.-]+)(?:\[.*?\])?(.*)", line).groups() for line in wanted)
ranges = {name: spec for name, spec in split if name in names}
for name, spec in ranges.items():  # versions first: they cost nothing
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        sys.exit(f"{name} is not installed")
    from packaging.specifiers import SpecifierSet
    if not SpecifierSet(spec).contains(version, prereleases=True):
        sys.exit(f"{name} is {version}, needed is {spec}")
for name in ranges:
    try:
        importlib.import_module(names[name])
    except Exception as error:
        sys.exit(f"{name} does not import ({type(error).__name__}: {error})")
PY
}

_setup_install() { # python root
    local python=$1 root=$2 torch limits
    "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >/dev/null 2>&1 || {
        _setup_say "there is no pip in the environment of '$python'. Install pip there."; return 1; }
    torch=$("$python" -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null) || torch=
    if [ -z "$torch" ]; then
        _setup_say "installing torch 2.13.0"
        "$python" -m pip install -q torch==2.13.0 || { _setup_say "torch could not be installed, see above."; return 1; }
        torch=2.13.0
    else
        _setup_say "keeping torch $torch"
    fi
    _setup_say "installing latent_reason and what it needs (1-3 minutes)"
    limits=$(mktemp -d) || return 1
    printf 'torch==%s\n' "$torch" >"$limits/torch"
    { grep -v '^torch==' "$root/constraints.txt"; cat "$limits/torch"; } >"$limits/all"
    if ! (cd "$root" && "$python" -m pip install -q -e '.[dev]' -c "$limits/all"); then
        _setup_say "the exact versions cannot be had, see above; adding only what is missing"
        "$python" - "$root/pyproject.toml" >"$limits/needed" <<'PY'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    print(*tomllib.load(file)["project"]["dependencies"], sep="\n")
PY
        if ! "$python" -m pip install -q -r "$limits/needed" -c "$limits/torch"; then
            rm -rf "$limits"
            _setup_say "that failed too, see above. Without a network, use an environment that has the packages."
            return 1
        fi
    fi
    rm -rf "$limits"
    # Only for its sprites: its own dependencies are not needed.
    "$python" -m pip install -q --no-deps gymnasium==0.29.1 ||
        _setup_say "gymnasium could not be installed: frozen-lake boards are drawn without its sprites."
}

_setup_main() {
    local root prefix='' stamp now before found=''
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || return 1
    now="$(cat "$root/pyproject.toml" "$root/constraints.txt" | cksum) $root"

    if [ -n "${VIRTUAL_ENV:-${CONDA_PREFIX:-}}" ]; then
        prefix=${VIRTUAL_ENV:-$CONDA_PREFIX}
    elif [ -z "${PYTHON:-}" ] && [ -d "$root/.venv" ]; then
        prefix=$root/.venv
    else
        found=$(_setup_find) || return 1
        prefix=$(_setup_prefix "$found")
        stamp=$prefix/.latent_reason-setup
        if [ "$(cat "$stamp" 2>/dev/null)" != "$now" ] && ! _setup_imports "$found" "$root" >/dev/null 2>&1; then
            prefix=$root/.venv
            if [ ! -x "$prefix/bin/python" ]; then
                _setup_say "making .venv with $found"
                # A torch built for this machine may already be there: let the new environment see it.
                if "$found" -c 'import torch' >/dev/null 2>&1; then
                    "$found" -m venv --system-site-packages "$prefix"
                else
                    "$found" -m venv "$prefix"
                fi || { _setup_say "no environment could be made in '$prefix' (disk full, or no venv module)."; return 1; }
            fi
            found=''
        fi
    fi
    [ -n "$found" ] || found=$prefix/bin/python
    if ! _setup_runs "$found"; then
        _setup_say "'$found' does not run or is older than 3.11. Remove or leave that environment, then run again."
        return 1
    fi

    stamp=$prefix/.latent_reason-setup
    before=$(cat "$stamp" 2>/dev/null) || before=
    if [ "$before" != "$now" ]; then
        local missing='an earlier installation was cut off'
        if [ "$before" != unfinished ] && missing=$(_setup_imports "$found" "$root" 2>&1); then
            _setup_say "$found has all that is needed; nothing installed"
        else
            _setup_say "${missing##*$'\n'}"
            { echo unfinished >"$stamp"; } 2>/dev/null || {
                _setup_say "'$prefix' cannot be written to. Make an environment of your own or set PYTHON."; return 1; }
            _setup_install "$found" "$root" || return 1
            _setup_say "done, in $prefix"
        fi
        { echo "$now" >"$stamp"; } 2>/dev/null || true # a read-only environment is looked at anew each time
    fi
    PYTHON=$found
    case ":${PYTHONPATH:-}:" in
        *":$root:"*) ;;
        *) export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" ;;
    esac
}

_setup_main || { return 1 2>/dev/null || exit 1; }
