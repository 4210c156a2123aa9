# Shell functions shared by scripts/tapnic, scripts/demo, scripts/test and .ci/run; source it
# with the package root as working directory. All messages go to standard error, so that standard
# output contains only the output of the program.

say() { printf 'tapnic: %s\n' "$*" >&2; }

die() {
  say "$*"
  exit 1
}

# need_packages COMMAND:PACKAGE...: installs the packages of missing commands with apt, as root on
# Debian. Otherwise it prints the missing packages and returns 0; the caller reports what it lacks.
need_packages() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing+=("${pair#*:}")
  done
  ((${#missing[@]} == 0)) && return 0
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null 2>&1; then
    say "missing: ${missing[*]} (install them, or run as root on Debian for automatic installation)"
    return 0
  fi
  say "installing Debian packages: ${missing[*]}"
  # Wait for an apt-get that runs at the same time, up to its end: of its locks, apt-get waits only
  # for that of dpkg.
  local apt=(flock -w 600 /var/lib/apt/lists apt-get -qq -o DPkg::Lock::Timeout=180)
  # RUNLEVEL: start no service that a package brings.
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } \
    </dev/null >/dev/null; then
    say "apt-get failed for: ${missing[*]}"
  fi
}

# The addon needs a compiler, unless a shipped prebuilt is present.
readonly BUILD_PACKAGES=(g++:g++)

with_build_lock() {
  # A read-only checkout needs no lock: nothing can be built there, only found to be current.
  if mkdir -p build 2>/dev/null && [[ -w build ]] && command -v flock >/dev/null 2>&1; then
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
  local stamp=node_modules/.tapnic-lock why
  command -v node >/dev/null 2>&1 || die 'node is missing: install Node.js 20.19 or later with npm'
  # The stamp is a copy of package-lock.json. npm rewrites its record whenever it changes a package.
  [[ ! node_modules/.package-lock.json -nt $stamp ]] && cmp -s package-lock.json "$stamp" && return
  if ! why=$(node scripts/deps-current.mjs); then
    say "installing npm packages: npm ci ($why)"
    command -v npm >/dev/null 2>&1 || die 'npm is missing: install Node.js 20.19 or later with npm'
    # npm ci removes node_modules before it installs: fail before that if it cannot write.
    [[ -w . && (! -e node_modules || -w node_modules) ]] \
      || die "cannot install packages: $PWD is not writable"
    npm ci --prefer-offline --no-audit --no-fund --loglevel=error >&2 \
      || die 'npm ci failed: it needs the registry, or a node_modules with the packages of package-lock.json'
  fi
  # Without the stamp the next start compares again, which takes 50 ms longer.
  cp package-lock.json "$stamp" 2>/dev/null || true
}

ensure_addon() { node scripts/build-addon.mjs >&2 || die 'building the addon failed'; }

ensure_dist() {
  # Use a separate stamp: `tsc --noEmit` updates tsc's record, dist/.tsbuildinfo, but emits nothing.
  local stamp=dist/.stamp dirs=(src drivers native-bindings test scripts types)
  # If the output is missing, tsc's record is wrong: delete it to compile everything.
  [[ -e dist/src/cli/main.js && -e dist/test/support/reporter.js ]] \
    || rm -f "$stamp" dist/.tsbuildinfo
  if newer_than "$stamp" "${dirs[@]}" tsconfig.json package.json; then
    say 'compiling: tsc -p .'
    [[ -w . ]] || die "cannot compile: $PWD is not writable"
    node_modules/.bin/tsc -p . >&2 || die 'tsc found errors'
    touch "$stamp"
  fi
}

build_all() {
  ensure_deps
  ensure_addon
  ensure_dist
}

# Brings node_modules, the addon and dist up to date. If they are, it returns within milliseconds.
build_if_stale() { with_build_lock build_all; }
