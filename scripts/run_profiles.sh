#!/usr/bin/env bash
# Make the world or run profiles, one after the other, where time is short (a borrowed GPU), and pack what comes of it.
#
#   scripts/run_profiles.sh OUT [world] PROFILE...      e.g. scripts/run_profiles.sh out world study paintings
#
# `world` makes the world anew and puts it into data/; take it home with `cat world.tar.* | tar -x`, and land it with
# `dvc add data && dvc push data`.
#
# `paintings` takes its pictures from paintings/ and the network of its loss from weights/; where these are missing and
# ATELIER_REAL_INPUTS names a folder that has both, links to them are made.
#
# Packages are those at hand: no environment is built. On a machine with a GPU, machine.device `auto` finds it.
# A run that is cut short goes on where it was when started again; the archive in OUT, in parts of 15 MiB, is written after each profile.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: scripts/run_profiles.sh OUT [world] PROFILE..." >&2; exit 2; }
out=$1; shift
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
export PYTHONPATH="$root/src" DVC_NO_ANALYTICS=1
mkdir -p "$out"
cp params.yaml "$out/params.before.yaml"
# the locks and the parameters of the checkout describe the profile `embedded`: they are put back, whatever happens
tar -cf "$out/locks.before.tar" dvc.lock pipelines/*/dvc.lock
trap 'cp "$out/params.before.yaml" params.yaml; tar -xf "$out/locks.before.tar"' EXIT
[ -d data ] || [ "$1" = world ] || dvc pull --quiet data
pack() { rm -f "$out/$1.tar."*; tar -c "${@:2}" | split -b 15M - "$out/$1.tar."; }
for profile in "$@"; do
  echo "== $profile"
  if [ "$profile" = world ]; then
    (cd world && dvc repro)
    rm -rf data && cp -R world/build/data data && cp -R world/build/report data/report
    cp data/report/report.md docs/world_report.md
    pack world data docs/world_report.md world/dvc.lock
    continue
  fi
  if [ "$profile" = paintings ] && [ -n "${ATELIER_REAL_INPUTS:-}" ]; then
    for folder in paintings weights; do [ -e $folder ] || ln -s "$(realpath "$ATELIER_REAL_INPUTS")/$folder" $folder; done
  fi
  cp "profiles/$profile.yaml" params.yaml
  dvc repro
  python -m atelier.pipeline.render results
  pack results results
done
