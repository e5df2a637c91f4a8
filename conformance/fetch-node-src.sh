#!/usr/bin/env bash
# Gets a source tree of Node for conformance/run.js: from Debian's source packages where the machine
# has a Debian archive configured, else from Node's repository by git.
# usage: fetch-node-src.sh DIR [VERSION]      VERSION is a beginning, such as 20 (the default) or 22.14
set -euo pipefail

DIR=${1:?usage: fetch-node-src.sh DIR [VERSION]}
VERSION=${2:-20}
SUITES=(trixie forky sid)
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
REPOSITORY=https://github.com/nodejs/node.git

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

tree_version() {
  local header=$DIR/src/node_version.h
  [ -d "$DIR/test/parallel" ] && [ -f "$header" ] || return 1
  awk '/^#define NODE_(MAJOR|MINOR|PATCH)_VERSION/ { printf "%s%s", dot, $3; dot = "." }' "$header"
}

# The archive that this machine's own packages come from.
debian_archive() {
  command -v apt-get >/dev/null && [ -f "$KEYRING" ] || return 1
  apt-get update --print-uris 2>/dev/null | sed -n "s|^'\(.*/debian/\)dists/.*|\1|p" | sed -n 1p | grep .
}

# apt with lists and caches of its own: nothing of the machine's configuration is changed.
write_apt_configuration() {
  local archive=$1 suite=$2 apt=$scratch/apt-$2
  mkdir -p "$apt"/{lists,archives}/partial
  : >"$apt/status"
  echo "deb-src [signed-by=$KEYRING check-valid-until=no] $archive $suite main" >"$apt/sources.list"
  cat >"$apt/apt.conf" <<CONF
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
APT::Sandbox::User "$(id -un)";
CONF
  echo "$apt/apt.conf"
}

from_debian() {
  local archive suite found
  archive=$(debian_archive) || return 1
  for suite in "${SUITES[@]}"; do
    APT_CONFIG=$(write_apt_configuration "$archive" "$suite")
    export APT_CONFIG
    apt-get update -q >/dev/null 2>&1 || continue
    found=$(apt-cache showsrc --only-source nodejs | awk '/^Version: / { print $2 }' |
      { grep -E "^${VERSION//./\\.}[.+-]" || true; } | sort -V | tail -n 1)
    [ -n "$found" ] || continue
    (cd "$scratch" && apt-get source -q --download-only --tar-only "nodejs=$found" >/dev/null 2>&1) ||
      continue
    tar -xf "$scratch"/nodejs_*.orig.tar.* -C "$DIR" --strip-components=1
    return 0
  done
  return 1
}

from_git() {
  local tag
  tag=$(git ls-remote --tags --refs "$REPOSITORY" "v$VERSION*" | sed 's|.*/||' | sort -V | tail -n 1)
  [ -n "$tag" ] || return 1
  git -c advice.detachedHead=false clone -q --depth 1 --branch "$tag" "$REPOSITORY" "$scratch/node"
  cp -a "$scratch/node/." "$DIR"
}

if have=$(tree_version); then
  echo "$DIR: Node $have is there already"
  exit 0
fi
mkdir -p "$DIR"
DIR=$(cd "$DIR" && pwd)
if ! from_debian && ! from_git; then
  echo "no source tree of Node $VERSION could be had from Debian's archive or by git" >&2
  exit 1
fi
echo "$DIR: Node $(tree_version)"
