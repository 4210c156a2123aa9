#!/bin/bash
# Runs the addon's tests under AddressSanitizer and UndefinedBehaviorSanitizer, in a private network
# namespace if possible. The node executable is not instrumented, so the runtime is preloaded, leak
# detection is off, and races within node itself are not reported.
# --tsan: use ThreadSanitizer instead, for the code that the addon runs on threads.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
  "")
    flags=(--asan --ubsan) lib=libasan.so variant=asan-ubsan
    specs=(host/pager.test.js host/native_folder.test.js host/tap.test.js 'equivalence/*.test.js')
    ;;
  --tsan) flags=(--tsan) lib=libtsan.so variant=tsan specs=(host/pager.test.js host/native_folder.test.js) ;;
  *) echo "usage: scripts/sanitize.sh [--tsan]" >&2; exit 2 ;;
esac

dist=${TAPNIC_DIST:-dist}
cxx=${CXX:-g++}
if ! command -v "$cxx" >/dev/null; then
  echo "sanitize: skipped: no $cxx" >&2
  exit "${TAPNIC_REQUIRE:-0}"
fi
node scripts/build-addon.mjs "${flags[@]}"
export TAPNIC_ADDON=$PWD/build/$variant/tapnic.node
runtime=$("$cxx" -print-file-name=$lib)

# Keep the tests' sockets and TAPs in a namespace that ends with them.
isolate=()
if unshare --net true 2>/dev/null; then isolate=(unshare --net); fi

# Exclude packetdrill's object: its test loads it with RTLD_DEEPBIND, which the runtime refuses.
"${isolate[@]}" env \
  LD_PRELOAD="$runtime" \
  ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:handle_segv=0 \
  UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
  TSAN_OPTIONS=halt_on_error=1:report_signal_unsafe=0:ignore_noninstrumented_modules=1 \
  node --enable-source-maps node_modules/mocha/bin/mocha.js --no-config --ui bdd --timeout 60000 \
  --reporter "$(realpath "$dist")/test/support/reporter.js" --exit --ignore "$dist/test/native/packetdrill.test.js" \
  "$dist/test/native/**/*.test.js" "${specs[@]/#/$dist/test/}"
