# Sourced by run.sh: every component once and a first epoch of every row, side by side; then the steps, one by one and captured, alone and six at once.
# STEPS are options of steps.py, ONLY the case that six processes share; SLOW how much longer a slow machine may take.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
limit_of() { echo $(($1 * ${SLOW:-1})); }
shared=(${STEPS:-} --only "${ONLY:-cifar-paper, PGD-5, batch 512}")
(timeout "$(limit_of 90)" python3 -m pytest -q -x -p no:cacheprovider -k "${TESTS:-cuda}" tests/running/test_everything.py tests/training/test_capture.py > "$OUT/contracts.txt" 2>&1; echo "contracts: exit $? after $SECONDS s") &
for rows in "${STUDIES[@]:-paper/cifar10-1a}"; do
  (timeout "$(limit_of 90)" bash -c 'bascule "$@"' - run "$rows" --scale "${SCALE:-gpu}" --seeds 1 --device "$device" --runs "$temp/first" --set twin=false \
    --set train.epochs=1 --set data.max_train="${IMAGES:-10240}" --set data.max_test="${TEST_IMAGES:-2000}" "${options[@]}" > "$OUT/first-$(basename "$rows").txt" 2>&1
   echo "first epochs of $rows: exit $? after $SECONDS s") &
done
(timeout "$(limit_of 90)" python3 "$here/steps.py" --device "$device" --compile "${shared[@]}" > "$OUT/compiled.txt" 2>&1; echo "compiled: exit $? after $SECONDS s") &
wait
tail -n 15 "$OUT/contracts.txt" "$OUT"/first-*.txt "$OUT/compiled.txt"
timeout $(($(left) - 75)) python3 "$here/steps.py" --device "$device" ${STEPS:-} 2>&1 | tee "$OUT/steps.txt"
echo "steps done after $SECONDS s"
for way in as-is captured; do
  for copy in 1 2 3 4 5 6; do
    (timeout "$(limit_of 35)" python3 "$here/steps.py" --device "$device" --way $way "${shared[@]}" > "$OUT/shared-$way-$copy.txt" 2>&1 \
      || echo "$copy of six ended with $?" >> "$OUT/shared-$way-$copy.txt") &
  done
  wait
  echo "six at once, $way:"; cat "$OUT"/shared-$way-?.txt
  cat "$OUT"/shared-$way-?.txt > "$OUT/shared-$way.txt"; rm "$OUT"/shared-$way-?.txt
done
