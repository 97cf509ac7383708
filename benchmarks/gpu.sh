#!/usr/bin/env bash
# Every check of this project that needs a GPU, correctness first, in under eight minutes.
# Usage: benchmarks/gpu.sh [folder for the results] [--rehearse]     writes gpu.json there
set -uo pipefail
cd "$(dirname "$0")/.."
results=${1:-gpu_results}
mkdir -p "$results"
exec python3 benchmarks/gpu.py --out "$results/gpu.json" "${@:2}"
