#!/usr/bin/env bash
# What a GPU is needed for, in fifteen minutes: checks, costs, the target, its texts, the drafters.
#
#   make gpu DATA=FOLDER [SCALE=1] [OUT=runs/gpu] [STEPS="check bench rates train label drafters"]
#
# DATA holds windows.npy (what `write_windows` made), or train, validation and articles as .jsonl.xz.
# Each step runs under its own time limit, logs to OUT/STEP.log, and is passed over when OUT/STEP.done
# is there: give the same command again to go on. A step that fails does not stop the others.
# SCALE=0.001 tries everything on a CPU. The summary is in OUT/summary.txt.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

DATA=${DATA:?give DATA=FOLDER}
OUT=${OUT:-runs/gpu}
SCALE=${SCALE:-1}
STEPS=${STEPS:-check bench rates train label drafters}
PYTHON=${PYTHON:-python3}
RECIPE=${RECIPE:-recipes/target.yaml}
PSEUDO=${PSEUDO:-$OUT/pseudo}
ARTICLES=${ARTICLES:-24000}
DRAFTERS=${DRAFTERS:-cnn lstm shared t5}
SHAPE=${SHAPE:-google/flan-t5-xl}
DRAFTER_SHAPE=${DRAFTER_SHAPE:-google/flan-t5-small lstm cnn shared}
mkdir -p "$OUT"
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}

# The steps. `limit SECONDS COMMAND...` runs one command of a step under a time limit.
limit() { timeout --signal=INT --kill-after=20 "$@"; }

check() {
    $PYTHON -c 'import torch, transformers; print(torch.__version__, transformers.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'
    limit 150 $PYTHON -m pytest -q -m gpu -p no:cacheprovider tests
    code=$?
    [ $code -eq 5 ] && code=0  # there is no GPU, so nothing was selected
    return $code
}

bench() {
    short=$($PYTHON -c "print(max(8, round(96 * min(1, $SCALE * 10))))")
    limit 100 $PYTHON -m fastllm bench --target-shape "$SHAPE" --random-weights \
        --drafter-shape $DRAFTER_SHAPE --alpha 0.7 --dtype bf16 --gamma 3 5 8 --temperature 0 \
        --limit 3 --profile --max-new-tokens "$short" --out "$OUT/bench" &&
    FASTLLM_GRAPHS=0 limit 60 $PYTHON -m fastllm bench --target-shape "$SHAPE" --random-weights \
        --drafter-shape ${DRAFTER_SHAPE%% *} --alpha 0.7 --dtype bf16 --gamma 5 --temperature 0 \
        --limit 1 --max-new-tokens "$short" --no-baselines --out "$OUT/bench-without-graphs"
}

rates() {
    limit 100 $PYTHON -m tools.training_rates --data "$DATA" --recipe "$RECIPE" --peak 800 \
        --steps "$($PYTHON -c "print(max(2, round(30 * $SCALE)))")" \
        --batches ${BATCHES:-128 256 512} ${RATES:-} --out "$OUT/rates.json"
}

train() {
    limit 420 $PYTHON -m fastllm train --target "$RECIPE" --data "$DATA" --scale "$SCALE" \
        --run "$OUT/target" --out "$OUT/target/checkpoint"
}

label() {
    limit 200 $PYTHON -m fastllm pseudo --target "$OUT/target/checkpoint" --data "${ARTICLES_DATA:-$DATA}" \
        --out "$PSEUDO" --limit "$ARTICLES" --scale "$SCALE" --length 112 \
        --batch "${LABEL_BATCH:-512}" --shard_size 4096
}

drafters() { # side by side: each alone would leave most of a GPU idle
    code=0
    for name in $DRAFTERS; do
        for when in before after; do
            OMP_NUM_THREADS=2 limit 300 $PYTHON -m fastllm train --recipe "recipes/$name-$when.yaml" \
                --target "$OUT/target/checkpoint" --pseudo_dataset_path "$PSEUDO" \
                --scale "$SCALE" --run "$OUT/$name-$when" --out "$OUT/made/$name-$when" \
                > "$OUT/$name-$when.log" 2>&1 &
        done
    done
    for job in $(jobs -p); do wait "$job" || code=1; done
    for name in $DRAFTERS; do tail -n 2 "$OUT/$name-before.log" "$OUT/$name-after.log"; done
    return $code
}

failed=""
for step in $STEPS; do
    [ -e "$OUT/$step.done" ] && continue
    since=$SECONDS
    "$step" 2>&1 | tee "$OUT/$step.log"
    code=${PIPESTATUS[0]}
    line="$step: $((SECONDS - since)) s, exit code $code"
    echo "$line" | tee -a "$OUT/summary.txt"
    if [ "$code" -eq 0 ]; then touch "$OUT/$step.done"; else failed="$failed $step"; fi
done
[ -z "$failed" ] || { echo "failed:$failed (see the logs in $OUT)" >&2; exit 1; }
