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
  timeout --signal=INT "$left" bascule run "$@" --runs "$runs" --device cuda --set twin=false
}

study paper/mnist-1a --scale paper --seeds 5
study paper/cifar10-1a --scale fast --seeds 3
study paper/mnist-1b --scale paper --seeds 3
study paper/imagenet-1a --scale fast --set data.path=imagenette2-224
study paper/cifar10-2 --scale fast --seeds 3
study paper/cifar10-1b --scale fast --seeds 3
study paper/mnist-2 --scale paper --seeds 3
for table in "$runs"/paper/*/; do
  bascule table "$table" --format json > "$table/table.json" && echo "$table"
done
