#!/bin/bash
# Fuzzes the native build of the NIC tn: scripts/fuzz.sh [SECONDS | --build], default 30, 0 for the
# corpus only; --build only compiles. First it replays every script of test/fuzz/corpus under ASan and UBSan (g++). Then libFuzzer
# (clang++ with its runtime; Debian: clang libclang-rt-14-dev) searches from the corpus. Findings
# are stored in build/fuzz. The last line is `N passed, N failed, N skipped`.
set -uo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

seconds=${1:-30} run=1
[[ $seconds != --build ]] || { seconds=1 run=0; }
[[ $seconds =~ ^[0-9]+$ ]] || { echo 'usage: scripts/fuzz.sh [SECONDS | --build]' >&2; exit 2; }
out=build/fuzz
src=native-bindings/src
sources=(test/fuzz/tn_fuzz.cpp "$src"/tn_{device,tx,offload,rx,verdict,lro,capture}.cpp
  "$src/cksum_kernel.cpp")
flags=(-std=c++20 -g -O1 -Wall -Wextra -Werror -fno-exceptions -fno-sanitize-recover=all)
export UBSAN_OPTIONS=print_stacktrace=1
mkdir -p "$out/corpus"
passed=0 failed=0 skipped=0

# attempt NAME COMMAND...
attempt() {
  local name=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "fuzz: $name: FAILED" >&2
  fi
}

# skip NAME WHY
skip() {
  echo "fuzz: $1: SKIPPED: $2" >&2
  skipped=$((skipped + 1))
}

# Whether clang++ can link libFuzzer. Its runtime is a separate package, named after the version.
libfuzzer() {
  clang++ -fsanitize=fuzzer -x c++ - -o "$out/probe" 2>/dev/null \
    <<<'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }'
}

# compile NAME COMPILER FLAG...: compiles $out/NAME, unless it is newer than all that it is made of.
compile() {
  local to=$out/$1
  shift
  newer_than "$to" test/fuzz "$src" scripts/fuzz.sh || return 0
  "$1" "${flags[@]}" "${@:2}" "${sources[@]}" -o "$to.new" && mv "$to.new" "$to"
}

replay() {
  compile replay "${CXX:-g++}" -fsanitize=address,undefined -DTAPNIC_FUZZ_MAIN || return
  ((run == 0)) || "$out/replay" test/fuzz/corpus/*
}

# libFuzzer adds new inputs to the first folder and reads seeds from all folders.
search() {
  compile tn_fuzz clang++ -fsanitize=fuzzer,address,undefined || return
  ((run == 0)) || timeout $((seconds + 60)) "$out/tn_fuzz" -max_total_time="$seconds" -max_len=2048 \
    -verbosity=0 -print_final_stats=1 -artifact_prefix="$out/" "$out/corpus" test/fuzz/corpus
}

if command -v "${CXX:-g++}" >/dev/null; then attempt replay replay; else skip replay 'no g++'; fi
if ((seconds > 0)); then
  need_packages clang++:clang
  if command -v clang++ >/dev/null && ! libfuzzer; then
    version=$(clang++ -dumpversion)
    need_packages "libfuzzer-runtime:libclang-rt-${version%%.*}-dev"
  fi
  if ! command -v clang++ >/dev/null; then
    skip search 'no clang++'
  elif ! libfuzzer; then
    skip search 'clang++ without libFuzzer (Debian: libclang-rt-14-dev)'
  else
    attempt search search
  fi
fi
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
