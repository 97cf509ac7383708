#!/usr/bin/env bash
# Every check of this project that needs a GPU, correctness first, in under eight minutes.
# Usage: benchmarks/gpu.sh [folder for the results] [--rehearse] [--only limits,decode,...]   writes gpu.json there
set -uo pipefail
cd "$(dirname "$0")/.."
exec python3 benchmarks/gpu "$@"
