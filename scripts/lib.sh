# Shell functions shared by scripts/tapnic, scripts/demo, scripts/test and .ci/run; to be sourced
# with the working directory at the package root. Everything said here goes to standard error, so
# that standard output belongs to the program that is set up.

say() { printf 'tapnic: %s\n' "$*" >&2; }

die() {
  say "$*"
  exit 1
}

# need_packages COMMAND:PACKAGE...: makes sure of the commands, by apt when we are root on Debian.
# Without that the missing ones are named and the caller goes on: whatever needs them says so.
need_packages() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing+=("${pair#*:}")
  done
  ((${#missing[@]} == 0)) && return 0
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null 2>&1; then
    say "missing: ${missing[*]} (install them, or run as root on Debian to have it done)"
    return 0
  fi
  say "installing Debian packages: ${missing[*]}"
  local apt=(apt-get -qq -o DPkg::Lock::Timeout=180)
  export DEBIAN_FRONTEND=noninteractive
  if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } \
    </dev/null >/dev/null; then
    say "apt-get failed for: ${missing[*]}"
  fi
}

# What needs a compiler: the addon. A shipped prebuilt does without.
readonly BUILD_PACKAGES=(g++:g++)

with_build_lock() {
  mkdir -p build
  if command -v flock >/dev/null 2>&1; then
    (
      flock -w 300 9 || die 'another build holds build/.lock for 5 minutes'
      "$@"
    ) 9>build/.lock
  else
    "$@"
  fi
}

# newer_than STAMP PATH...: true if any file below the PATHs is newer than STAMP, or STAMP is absent.
newer_than() {
  local stamp=$1
  shift
  [[ ! -e $stamp ]] || [[ -n $(find "$@" -type f -newer "$stamp" -print -quit) ]]
}

ensure_deps() {
  command -v npm >/dev/null 2>&1 || die 'npm is missing: install Node.js 20.19 or later with npm'
  if [[ ! -e node_modules/.package-lock.json ]] \
    || [[ package-lock.json -nt node_modules/.package-lock.json ]]; then
    say 'installing npm packages: npm ci'
    npm ci --no-audit --no-fund --loglevel=error >&2 || die 'npm ci failed'
    touch node_modules/.package-lock.json
  fi
}

ensure_addon() { node scripts/build-addon.mjs >&2 || die 'building the addon failed'; }

ensure_dist() {
  # A stamp of our own: `tsc --noEmit` renews tsc's record, dist/.tsbuildinfo, but emits nothing.
  local stamp=dist/.stamp dirs=(src drivers native-bindings test scripts types)
  # Without its output tsc's record of what it emitted is a lie: start over.
  [[ -e dist/src/cli/main.js && -e dist/test/support/reporter.js ]] \
    || rm -f "$stamp" dist/.tsbuildinfo
  if newer_than "$stamp" "${dirs[@]}" tsconfig.json package.json; then
    say 'compiling: tsc -p .'
    node_modules/.bin/tsc -p . >&2 || die 'tsc found errors'
    touch "$stamp"
  fi
}

build_all() {
  ensure_deps
  ensure_addon
  ensure_dist
}

# Brings node_modules, the addon and dist up to date; does nothing, in milliseconds, if they are.
build_if_stale() { with_build_lock build_all; }
