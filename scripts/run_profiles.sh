#!/usr/bin/env bash
# Run profiles one after the other where time is short (a borrowed GPU), and pack what they publish.
#
#   scripts/run_profiles.sh OUT PROFILE...      e.g. scripts/run_profiles.sh /tmp/out study paintings
#
# Packages are those at hand: no environment is built. On a machine with a GPU, machine.device `auto` finds it.
# A run that is cut short goes on where it was when started again; OUT/results.tar is written after each profile.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: scripts/run_profiles.sh OUT PROFILE..." >&2; exit 2; }
out=$1; shift
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
export PYTHONPATH="$root/src" DVC_NO_ANALYTICS=1
mkdir -p "$out"
cp params.yaml "$out/params.before.yaml"
# the lock and the parameters of the checkout describe the profile `embedded`: they are put back, whatever happens
cp dvc.lock "$out/dvc.before.lock"
trap 'cp "$out/params.before.yaml" params.yaml; cp "$out/dvc.before.lock" dvc.lock' EXIT
[ -d data ] || dvc pull --quiet data
for profile in "$@"; do
  echo "== $profile"
  cp "profiles/$profile.yaml" params.yaml
  dvc repro
  python -m atelier.pipeline.render results
  tar -cf "$out/results.tar" results
done
