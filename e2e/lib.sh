# What the end-to-end scripts share. Sourced, not run. Sets $pando and $work, and cleans up at exit.
# shellcheck shell=bash

set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# $PANDO is used as it is; `none` where no node is started.
if [[ -z "${PANDO:-}" ]]; then
  cargo build --release --locked --quiet -p pando-cli --manifest-path "$root/Cargo.toml"
  PANDO="$root/target/release/pando"
fi
pando="$PANDO"
work="$(mktemp -d -t pando-e2e-XXXXXX)"
declare -A pids=()

say() {
  local tenths=$(((${EPOCHREALTIME/./} - began) / 100000))
  printf '%4d.%ds  %s\n' $((tenths / 10)) $((tenths % 10)) "$*"
}
began="${EPOCHREALTIME/./}"

die() {
  say "FAILED: $*"
  tail -n 20 "$work"/*.log 2>/dev/null || true
  exit 1
}

# Runs before the folder goes; scripts may put more into it.
on_exit() { :; }
clean_up() {
  local status=$?
  for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  on_exit
  if [[ -n "${KEEP:-}" ]]; then echo "kept: $work"; else rm -rf "$work"; fi
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Where node $1 runs: a prefix for commands, as an array. Scripts may put others in its place.
where() { prefix=(); }

# Runs pando on node $1.
on() {
  local node=$1 prefix
  shift
  where "$node"
  "${prefix[@]}" "$pando" --data "$work/node$node" "$@"
}

# Starts node $1 with the options given and waits until it says that it is ready.
start() {
  local node=$1 prefix
  shift
  where "$node"
  local ready="$work/node$node.ready"
  : >"$ready"
  "${prefix[@]}" "$pando" --data "$work/node$node" --json up "$@" >"$ready" 2>>"$work/node$node.log" &
  pids[$node]=$!
  for _ in {1..600}; do
    [[ -s "$ready" ]] && return 0
    kill -0 "${pids[$node]}" 2>/dev/null || die "node $node ended: $(tail -n 3 "$work/node$node.log")"
    sleep 0.1
  done
  die "node $node is not ready after a minute"
}

# The full id of node $1.
id_of() { sed -n 's/.*"id":"\([0-9a-f]*\)".*/\1/p' "$work/node$1.ready" | head -n 1; }

# Repeats a command until it succeeds, at most $1 seconds; says what it was for.
eventually() {
  local limit=$1 what=$2 end
  shift 2
  end=$((SECONDS + limit))
  until "$@" >"$work/eventually.out" 2>&1; do
    ((SECONDS < end)) || die "$what: not within ${limit}s: $(tail -n 5 "$work/eventually.out")"
    sleep 0.3
  done
}

# --- nodes that serve S3

declare -A url=() listen=() at=()

# The text of field $1 of a JSON object on stdin.
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" | head -n 1; }

# Starts node $1, serving S3 at ${url[$1]}; again where it was if it ran before.
serve() {
  local node=$1
  start "$node" --listen "${listen[$node]:-127.0.0.1:0}" --s3 "${at[$node]:-127.0.0.1:0}" --zone "z$node" \
    --grace 5m --dead-after never "${@:2}"
  listen[$node]="$(field listen <"$work/node$node.ready")"
  url[$node]="$(field endpoint <"$work/node$node.ready")"
  [[ "${url[$node]}" == http* ]] || die "node $node does not say where it serves S3: $(cat "$work/node$node.ready")"
  at[$node]="${url[$node]#*://}"
}

# Whether $1 nodes are members, no transition runs, and every copy is in place.
in_order() {
  local status
  status="$(on 1 --json status)"
  [[ "$(grep -o '"capacity"' <<<"$status" | wc -l)" == "$1" ]] &&
    grep -q '"in_transition":false' <<<"$status" && on 1 check
}

# Three nodes, and an access key as $key and $secret.
three_that_serve() {
  serve 1 --capacity 100G
  serve 2 --capacity 100G --join "$(on 1 invite)"
  serve 3 --capacity 100G --join "$(on 1 invite)"
  eventually 60 "three nodes" in_order 3
  new_key
  say "three nodes serve S3: ${url[*]}"
}

new_key() {
  local made
  made="$(on 2 --json key create e2e 2>/dev/null)"
  # Read by those who source this.
  # shellcheck disable=SC2034
  key="$(field key <<<"$made")" secret="$(field secret <<<"$made")"
  [[ -n "$key" && -n "$secret" ]] || die "no access key: $made"
}

# Kibibytes of memory of node $1 as /proc says: VmHWM is the peak, VmRSS what it has now.
memory() { sed -n "s/^$2:[[:space:]]*\([0-9]*\) kB/\1/p" "/proc/${pids[$1]}/status"; }
