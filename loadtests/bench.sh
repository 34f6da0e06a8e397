#!/usr/bin/env bash
# Serve a run on loopback and load it with locust for a while, every answer checked.
#   loadtests/bench.sh RUN [USERS] [SECONDS]     on the port that PORT names
set -euo pipefail
if (($# < 1 || $# > 3)); then
    echo "error: expected a run directory" >&2
    echo "hint: loadtests/bench.sh RUN [USERS] [SECONDS], for example loadtests/bench.sh runs/digits 4 20" >&2
    exit 2
fi
run=$1 users=${2:-4} seconds=${3:-20} port=${PORT:-3999}
bin=$(cd "$(dirname "$0")/../.venv/bin" && pwd)
url=http://127.0.0.1:$port

ready() { "$bin/python" -c "import urllib.request as u; u.urlopen('$url/readyz', timeout=1)" 2>/dev/null; }

if ready; then # ours would not start, and the figures would be those of the other
    echo "error: another server answers on $url already" >&2
    echo "hint: end it, or choose another port with PORT=4000" >&2
    exit 2
fi
"$bin/limbeck" serve "$run" --port "$port" &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true' EXIT
for _ in $(seq 120); do
    ready && break
    kill -0 $server 2>/dev/null || { echo "error: the server ended before it was ready" >&2; exit 1; }
    sleep 0.5
done
ready || { echo "error: the server was not ready after a minute" >&2; exit 1; }
echo "$users users for $seconds s, each sending its next request when the last is answered, on the server's own cores" >&2
LIMBECK_RUN=$run "$bin/locust" -f "$(dirname "$0")/locustfile.py" --host "$url" \
    --headless --only-summary -u "$users" -r "$users" -t "${seconds}s"
