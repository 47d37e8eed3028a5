#!/usr/bin/env bash
# What this repository weighs, as a table: scripts/weight.sh; the last commit, in a shallow and in a full clone.
set -euo pipefail
root=$(git rev-parse --show-toplevel)
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

mb() { awk '{sum += $1} END {printf "%.1f", sum / 1e6}'; }
size() { du -s --apparent-size -B1 "$@" | mb; }

git clone --quiet --depth 1 "file://$root" "$made/shallow"
git clone --quiet "file://$root" "$made/full"
cd "$made"

echo "| at $(git -C full log -1 --format=%cs), in MB of a million bytes | on disk | fetched |"
echo "|---|---|---|"
for clone in shallow full; do
  fetched=$(stat --format=%s $clone/.git/objects/pack/*.pack | mb)
  echo "| a $clone clone | $(size $clone) | $fetched |"
done
for part in results $(cd full && echo results/*) data-store; do
  if [ -d "full/$part" ]; then echo "| \`$part\` | $(size "full/$part") | |"; fi
done

echo
echo "| republication of \`results/\` | files | MB in a full clone's pack | MB of those files as they are |"
echo "|---|---|---|---|"
# what a commit brings: new contents below results, as the pack holds them; most are kept as differences
for commit in $(git -C full log --format=%h --max-count="${1:-4}" -- results); do
  git -C full diff-tree -r --no-commit-id --diff-filter=AM "$commit" -- results | awk '{print $4}' | sort -u |
    git -C full cat-file --batch-check='%(objectsize:disk) %(objectsize)' |
    awk -v of="$(git -C full log -1 --format='%h, %cs' "$commit")" \
      '{disk += $1; size += $2} END {printf "| %s | %d | %.1f | %.1f |\n", of, NR, disk / 1e6, size / 1e6}'
done
