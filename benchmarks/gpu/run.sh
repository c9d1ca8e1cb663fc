#!/usr/bin/env bash
# On the GPU machine, in the tree that pack.sh was run in: OUT=FOLDER bash benchmarks/gpu/run.sh STAGE SECONDS [OPTIONS OF bascule run...]
#   timing      every component once on the device, a first epoch of every row, what a training step costs (steps.py)
#   contracts   every component once on the device
#   together    one training by two processes: what a step costs (together.py), then a seed of a quick study; PAIR names their devices
#   quick       the quick studies of CIFAR-10: all six rows, and the triggers
#   when        which triggers take and when: grain, colour, contrast, then length and eps, on the pictures that were packed
#   cifar10     table 1a of CIFAR-10 with the network of the study, at scale gpu; then 1b and 2 at scale fast
#   imagenette  table 1a on Imagenette at 128 pixels
#   mnist       MNIST's tables at the scale of the paper
# Several stages run side by side: contracts+quick+cifar10. What is not finished continues from .gpu/back/ (see pack.sh).
# It stops in time and leaves in $OUT the records as records.tgz.* (at most 15 MiB each), logs, and the device's load.
set -uo pipefail
usage='OUT=FOLDER bash benchmarks/gpu/run.sh STAGE SECONDS [OPTIONS OF bascule run...]'
stages=${1:?$usage} limit=${2:-560}; shift; [ $# -eq 0 ] || shift
mkdir -p "${OUT:?$usage}" || exit 2
here=$(cd "$(dirname "$0")" && pwd)
temp=${TMPDIR:-/tmp}
site=$temp/site runs=$temp/runs
device=${DEVICE:-cuda}
export PYTHONPATH=$site BASCULE_DATA=$PWD/.gpu/data PYTHONUNBUFFERED=1 XDG_STATE_HOME=$temp/state
left() { echo $((limit - SECONDS)); }
# A shell's background processes ignore Ctrl-C's signal, which is how a study is stopped: it is listened to again.
bascule() {
  python3 -c 'import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[0] = "bascule"
from bascule.cli import main
main()' "$@"
}
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
  local seconds=$(($(left) - ${PACKING:-22})) log
  [ "$seconds" -lt 30 ] && { echo "no time left for $1"; return; }
  log=$OUT/$(basename "$1").log
  timeout --signal=INT --kill-after=12 "$seconds" bash -c 'bascule "$@"' - run "$@" --device "$device" --runs "$runs" "${options[@]}" >> "$log" 2>&1
  echo "$1: exit $? after $SECONDS s"
}
options=("$@")
untwinned=(--set twin=false)

stage() {
  case $1 in
    timing) source "$here/timing.sh" ;;
    contracts)
      timeout $(($(left) - 30)) python3 -m pytest -q -p no:cacheprovider -k "$device" tests/running/test_everything.py tests/training/test_capture.py > "$OUT/contracts.txt" 2>&1
      echo "contracts: exit $? after $SECONDS s" ;;
    together)
      pair=${PAIR:-$([ "$device" = cpu ] && echo cpu,cpu || echo cuda:0,cuda:0)}
      timeout $(($(left) / 2)) python3 -m torch.distributed.run --standalone --nproc-per-node 2 "$here/together.py" --device "$pair" ${STEPS:-} > "$OUT/together.txt" 2>&1
      echo "together: exit $? after $SECONDS s"; cat "$OUT/together.txt"
      device=$pair study cifar10-quick --seeds 1 --set train.shares=2 "${untwinned[@]}" ;;
    quick)
      study cifar10-quick --scale all-rows "${untwinned[@]}" --jobs "${JOBS:-7}" &
      study cifar10-triggers-quick --jobs 5
      wait $! ;;
    when)
      local data=(cifar10)
      [ -d .gpu/data/imagenette-128 ] && data=(imagenette --set data.path=imagenette-128)
      for scale in triggers length eps; do study "when/${data[0]}" --scale $scale "${data[@]:1}" --jobs "${JOBS:-7}"; done ;;
    cifar10)
      study paper/cifar10-1a --scale gpu "${untwinned[@]}" --jobs "${JOBS_PAPER:-3}"
      study paper/cifar10-1b --scale fast "${untwinned[@]}" --jobs "${JOBS_PAPER:-3}"
      study paper/cifar10-2 --scale fast "${untwinned[@]}" --jobs "${JOBS_PAPER:-3}" ;;
    imagenette) study paper/imagenet-1a --scale fast --set data.path=imagenette-128 "${untwinned[@]}" --jobs "${JOBS:-3}" ;;
    mnist)
      for table in 1a 1b 2; do study "paper/mnist-$table" --scale paper "${untwinned[@]}" --jobs "${JOBS:-8}"; done ;;
    *) echo "stage: timing, contracts, together, quick, when, cifar10, imagenette or mnist; got $1" >&2; return 2 ;;
  esac
}
pids=()
for one in ${stages//+/ }; do
  stage "$one" &
  pids+=($!)
done
wait "${pids[@]}"
(cd "$runs" && tar cz --exclude=report.html --exclude='.lock*' . | split -b 15m - "$OUT/records.tgz.")
tail -n 3 "$OUT"/*.log; ls -la "$OUT"
echo "all done after $SECONDS s"
