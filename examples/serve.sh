#!/usr/bin/env bash
# Serves a trained version: index, gates, alias, and a request when it answers.
#
#     examples/serve.sh eclip 1 data/shop
#
# ENDPOINT is where the cluster file lets the endpoints listen (default: http://127.0.0.1:8000).
set -euo pipefail
model=$1 version=$2 dataset=$(realpath "$3")
endpoint=${ENDPOINT:-http://127.0.0.1:8000}

shoplens up
ray job submit --working-dir . -- python -m workloads.build_index --model "$model/$version" dataset="$dataset"
shoplens promote "$model" "$version" --alias champion --dataset "$dataset" --reason "served by an example"

echo "waiting until $model/$version answers"
for _ in $(seq 120); do
  curl -sf "$endpoint/healthz" | grep -q "\"$model/$version\"" && break
  sleep 1
done
curl -sf "$endpoint/v1/similar" -H 'content-type: application/json' \
  -d "{\"model\": \"$model\", \"text\": \"검정 운동화\", \"k\": 3}"
