# Sourced by the scripts beside it: Debian packages of any release, without touching this machine's own. $apt is the folder for
# lists and packages.

debian_release() { . /etc/os-release && echo "${VERSION_CODENAME:-}"; }

# The mirror that this machine's own apt configuration names for Debian itself.
debian_mirror() {
  local mirror
  mirror=$(apt-get update --print-uris |
    sed -nE "s#^'(.*)/dists/($(debian_release)|stable|oldstable|testing|sid|unstable)/InRelease'.*#\1#p" | head -n 1)
  [ -n "$mirror" ] || fail "apt's configuration names no Debian mirror (looked at: apt-get update --print-uris)"
  echo "$mirror"
}

apt_get() { apt_tool apt-get "$@"; }
apt_tool() {
  local tool=$1
  shift
  "$tool" -qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts="$apt/none" \
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts="$apt/none" \
    -o Dir::State="$apt/state" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" \
    -o Acquire::Languages=none -o Acquire::Retries=5 -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false \
    -o APT::Install-Recommends=false -o APT::Architecture=amd64 -o APT::Sandbox::User=root -o Debug::NoLocking=true "$@"
}

# apt_lists MIRROR RELEASE COMPONENT...
apt_lists() {
  mkdir -p "$apt"/state/lists/partial "$apt"/cache/archives/partial "$apt/none"
  : > "$apt/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $*" > "$apt/sources.list"
  apt_get update || fail "cannot read the package lists of $1 $2"
}
