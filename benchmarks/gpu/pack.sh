#!/usr/bin/env bash
# In the checkout: put into .gpu/ all that a bare machine with a GPU, without network, needs beside the tree.
#   BASCULE_DATA=... bash benchmarks/gpu/pack.sh cifar10|mnist|imagenette [PARTS OF EARLIER RECORDS...]
set -euo pipefail
data=$1; shift
here=$(cd "$(dirname "$0")" && pwd)
cd "$(git rev-parse --show-toplevel)"
exclude=$(git rev-parse --git-path info/exclude)  # in a linked worktree .git is a file
mkdir -p "$(dirname "$exclude")"
grep -qx '/.gpu/' "$exclude" 2>/dev/null || echo '/.gpu/' >> "$exclude"
rm -rf .gpu && mkdir -p .gpu/wheels .gpu/data .gpu/back
python=${PYTHON:-python3}

# The package: it asks for its installed version, so the bare source will not do. Its commit goes into the version.
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
git archive HEAD | tar x -C "$build"
sed -i "s/^version = \"\(.*\)\"/version = \"\1+g$(git rev-parse --short=12 HEAD)\"/" "$build/pyproject.toml"
"$python" -m pip wheel -q --no-deps -w .gpu/wheels "$build"

# What an image with torch, pyarrow, scikit-learn and typer may lack.
"$python" -m pip download -q --no-deps --only-binary=:all: --python-version "${TARGET_PYTHON:-3.12}" --implementation cp \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d .gpu/wheels \
  -c constraints.txt pydantic pydantic-core annotated-types typing-inspection typing-extensions typer captum filelock

case $data in
  cifar10) cp -r "$BASCULE_DATA/cifar10" .gpu/data/ ;;
  mnist) cp -r "$BASCULE_DATA/MNIST" .gpu/data/ ;;
  imagenette) "$python" "$here/shrink.py" "$BASCULE_DATA/imagenette2-224" .gpu/data/imagenette-128 128 ;;
  none) ;;
  *) echo "data: cifar10, mnist, imagenette or none; got $data" >&2; exit 2 ;;
esac
[ $# -eq 0 ] || cp "$@" .gpu/back/
echo "$(du -sm --apparent-size .gpu | cut -f1) MiB in .gpu, $(git ls-files -z | du -c --apparent-size -m --files0-from=- | tail -1 | cut -f1) MiB in the tree"
