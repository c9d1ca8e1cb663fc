#!/usr/bin/env bash
# On the GPU machine, in the tree that pack.sh was run in: OUT=FOLDER bash benchmarks/gpu/run.sh STAGE SECONDS [OPTIONS OF bascule run...]
#   timing      every component once on the device, what a training step costs (steps.py), a first epoch of every row
#   cifar10     tables 1a, then 1b and 2, of CIFAR-10 at scale gpu
#   imagenette  table 1a on Imagenette at 128 pixels; mnist: MNIST's tables at the scale of the paper
# It stops in time and leaves in $OUT the records as records.tgz.* (at most 15 MiB each), logs, and the device's load.
set -uo pipefail
stage=$1 limit=${2:-560}; shift 2
here=$(cd "$(dirname "$0")" && pwd)
temp=${TMPDIR:-/tmp}
site=$temp/site runs=$temp/runs
device=${DEVICE:-cuda} jobs=${JOBS:-9}
export PYTHONPATH=$site BASCULE_DATA=$PWD/.gpu/data PYTHONUNBUFFERED=1 XDG_STATE_HOME=$temp/state
left() { echo $((limit - SECONDS)); }
bascule() { python3 -c 'import sys; sys.argv[0] = "bascule"; from bascule.cli import main; main()' "$@"; }
export -f bascule

if [ ! -d "$site/bascule" ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" .gpu/wheels/*.whl || exit 3
fi
python3 -c 'import torch; print(torch.__version__, torch.cuda.is_available() and torch.cuda.get_device_name())' || exit 4
mkdir -p "$runs"
ls .gpu/back/* >/dev/null 2>&1 && bash "$here/merge.sh" "$runs" .gpu/back/*
echo "ready after $SECONDS s"

# study NAME OPTIONS...: as far as it comes in the time that is left, less what packing takes.
study() {
  local seconds=$(($(left) - ${PACKING:-25})) log
  [ "$seconds" -lt 30 ] && { echo "no time left for $1"; return; }
  log=$OUT/$(basename "$1").log
  timeout --signal=INT --kill-after=15 "$seconds" bash -c 'bascule "$@"' - run "$@" --device "$device" --runs "$runs" >> "$log" 2>&1
  echo "$1: exit $? after $SECONDS s"; tail -n 12 "$log"
}

case $stage in
  timing) source "$here/timing.sh" "$@" ;;
  cifar10)
    study paper/cifar10-1a --scale gpu --set twin=false --jobs "$jobs" "$@"
    study paper/cifar10-1b --scale gpu --set twin=false --jobs "$jobs" "$@"
    study paper/cifar10-2 --scale gpu --set twin=false --jobs "$jobs" "$@" ;;
  imagenette) study paper/imagenet-1a --scale gpu --set data.path=imagenette-128 --set twin=false --jobs "$jobs" "$@" ;;
  mnist)
    study paper/mnist-1a --scale paper --set twin=false --jobs "$jobs" "$@"
    study paper/mnist-1b --scale paper --set twin=false --jobs "$jobs" "$@"
    study paper/mnist-2 --scale paper --set twin=false --jobs "$jobs" "$@" ;;
  *) echo "stage: timing, cifar10, imagenette or mnist; got $stage" >&2; exit 2 ;;
esac
(cd "$runs" && tar cz --exclude='checkpoint.pt*' --exclude=report.html --exclude='.lock*' . | split -b 15m - "$OUT/records.tgz.")
ls -la "$OUT"
echo "all done after $SECONDS s"
