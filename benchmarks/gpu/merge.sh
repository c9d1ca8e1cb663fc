#!/usr/bin/env bash
# Records that came back, put into run folders that `bascule table` reads. Of the same cell the parts given win: merge in the order of time.
#   bash benchmarks/gpu/merge.sh RUNS PARTS...      for example: merge.sh runs records.tgz.*
set -euo pipefail
runs=${1:?RUNS PARTS...} first=${2:?RUNS PARTS...}; shift
[ -r "$first" ] || { echo "no such part: $first" >&2; exit 2; }
mkdir -p "$runs"
cat "$@" | tar xz -C "$runs"
find "$runs" -name study.json -printf '%h\n' | sort | while read -r run; do
  echo "$run: $(find "$run" -mindepth 3 -name outcomes.parquet | wc -l) cells with answers"
done
