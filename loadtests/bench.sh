#!/usr/bin/env bash
# Serve a run on loopback and load it with locust for a while, every answer checked.
#   loadtests/bench.sh RUN [USERS] [SECONDS]
set -euo pipefail
run=$1 users=${2:-4} seconds=${3:-20} port=${PORT:-3999}
bin=$(cd "$(dirname "$0")/../.venv/bin" && pwd)
url=http://127.0.0.1:$port

"$bin/limbeck" serve "$run" --port "$port" &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null || true' EXIT
for _ in $(seq 120); do
    kill -0 $server 2>/dev/null || { echo "error: the server ended before it was ready" >&2; exit 1; }
    "$bin/python" -c "import urllib.request as u; u.urlopen('$url/readyz', timeout=1)" 2>/dev/null && break
    sleep 0.5
done
LIMBECK_RUN=$run "$bin/locust" -f "$(dirname "$0")/locustfile.py" --host "$url" \
    --headless --only-summary -u "$users" -r "$users" -t "${seconds}s"
