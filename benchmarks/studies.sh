#!/usr/bin/env bash
# The full-size studies for a machine with a CUDA device, in the order of their worth. Stop it at any time: the same
# command continues where it stopped. Data: MNIST, cifar10 and imagenette2-224 under $BASCULE_DATA.
#
#   BASCULE_DATA=... bash benchmarks/studies.sh [RUNS] [SECONDS]
set -uo pipefail
runs=${1:-runs}
end=$((SECONDS + ${2:-86400}))

study() {
  local left=$((end - SECONDS))
  if [ "$left" -lt 30 ]; then
    echo "no time left for: $*"
    return
  fi
  timeout --signal=INT "$left" bascule run "$@" --runs "$runs" --device cuda
}

# Every component once, with the code that the CPU runs; nothing below is worth its time if this fails.
(cd "$(dirname "$0")/.." && timeout 300 python -m pytest -q tests/run/test_everything.py) || exit 1

# All classes of a scan together against one after another, where passes are small.
for network in digits-cnn mnist-fast; do
  timeout 120 python "$(dirname "$0")/scanners.py" --network "$network" --device cuda --one-by-one --no-plain
done

alone=(--set twin=false)
study paper/mnist-1a --scale paper --seeds 5 "${alone[@]}"
study paper/cifar10-1a --scale fast --seeds 3 "${alone[@]}"
study paper/mnist-1b --scale paper --seeds 3 "${alone[@]}"
study paper/imagenet-1a --scale fast --set data.path=imagenette2-224 "${alone[@]}"
study paper/cifar10-2 --scale fast --seeds 3 "${alone[@]}"
study paper/cifar10-1b --scale fast --seeds 3 "${alone[@]}"
study paper/mnist-2 --scale paper --seeds 3 "${alone[@]}"
study paper/cifar10-3ab --scale fast
study paper/cifar10-3c --scale fast
for table in "$runs"/paper/*/; do
  bascule table "$table" --format json > "$table/table.json" && echo "$table"
done
