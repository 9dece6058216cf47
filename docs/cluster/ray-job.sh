#!/usr/bin/env bash
# A study through Ray's job server. Without RAY_API_SERVER_ADDRESS, a head node of its own is started on this machine
# and ended with the script; with it, the job goes to the server that runs there. Needs pip install 'ray[default]'.
#
#     docs/cluster/ray-job.sh digits --seeds 3 --out "$PWD/runs/digits"
set -euo pipefail

PORT=${PORT:-6379}
JOBS=${JOBS:-8265}
export RAY_USAGE_STATS_ENABLED=0
if [ -z "${RAY_API_SERVER_ADDRESS:-}" ]; then
  export RAY_API_SERVER_ADDRESS="http://127.0.0.1:$JOBS"
  # Anyone who can submit jobs can run anything here, so this node accepts them only with its token.
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
  RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
  ray start --head --block --port="$PORT" --dashboard-host=127.0.0.1 --dashboard-port="$JOBS" \
    --ray-client-server-port="$((JOBS + 1))" --num-cpus="${CPUS:-2}" > /dev/null &
  node=$!
  trap 'kill "$node"; wait "$node" || true' EXIT # not `ray stop`, which ends every Ray on this machine
  until ray job submit -- true > /dev/null 2>&1; do # the server answers before it can run a job
    kill -0 "$node" # or it has not started
    sleep 1
  done
fi

# The job server starts the driver on the cluster and keeps what it prints; Ctrl-C here does not end it.
ray job submit -- reslab study run "$@" --ray auto
