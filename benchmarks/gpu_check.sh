#!/usr/bin/env bash
# Does it work on a GPU, and how fast? One command for a machine with torch and nothing else of ours:
#   benchmarks/gpu_check.sh pack DIR [--python 3.12]    # here: what is needed beside torch
#   benchmarks/gpu_check.sh run DIR OUT [--device cpu]  # there: under eight minutes, OUT/gpu.md
# PYTHON names the interpreter that has torch. See docs/gpu.md.
set -euo pipefail
usage() { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
python=${PYTHON:-python3}
[ $# -ge 2 ] || usage
verb=$1 carried=$(realpath -m "$2")
shift 2
case $verb in
pack)
    cd "$(dirname "$0")/.."
    exec "$python" -m benchmarks.gpu_pack pack "$carried" "$@"
    ;;
run)
    [ $# -ge 1 ] || usage
    out=$(realpath -m "$1")
    shift
    cd "$(dirname "$0")/.."
    place=$(mktemp -d)
    trap 'rm -rf "$place"' EXIT
    PYTHONPATH=$("$python" benchmarks/gpu_pack.py unpack "$carried" "$place")
    export PYTHONPATH RAY_USAGE_STATS_ENABLED=0 PYTHONDONTWRITEBYTECODE=1
    export GPU_CHECK_COMMIT=${GPU_CHECK_COMMIT:-$(sed -n 's/.*"commit": "\(.*\)".*/\1/p' "$carried/about.json")}
    "$python" -m benchmarks.gpu_check "$out" "$@"
    ;;
*) usage ;;
esac
