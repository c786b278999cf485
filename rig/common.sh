# Sourced by the scripts beside it: where the rig is, and how its scripts fail.
top=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
rig=${VRS_RIG:-$top/.rig}
root=$rig/sid

fail() {
  echo "rig: $*" >&2
  exit 1
}

# `name_spaces COMMAND...` with mounts and processes of its own: however COMMAND ends, the kernel ends all that it started
# and takes its mounts away. Whoever is not root becomes root of a user name space.
name_spaces() {
  local become_root=()
  [ "$(id -u)" = 0 ] || become_root=(--map-root-user)
  setpriv --pdeathsig KILL unshare "${become_root[@]}" --mount --pid --fork --kill-child --mount-proc "$@"
}

need_root() {
  [ "$(id -u)" = 0 ] || fail "this needs root, for chroot and mounts; run it with sudo, or with rig/run"
}

# Every mount below $1, the deepest first.
mounts_below() {
  awk -v below="$1/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
    while IFS= read -r mount; do printf '%b\n' "$mount"; done
}

umount_below() {
  mounts_below "$1" | while IFS= read -r mount; do umount "$mount"; done
  [ -z "$(mounts_below "$1")" ] || fail "still mounted below $1: $(mounts_below "$1" | tr '\n' ' ')"
}

# Bind mounts of the same file system are not protected by --one-file-system, hence the order.
remove_root() {
  [ -e "$1" ] || return 0
  umount_below "$1"
  rm -rf --one-file-system "$1"
}

# A VirtualBox program inside the rig, with nothing of the caller's environment but what names the registry.
in_rig() (exec_in_rig "$@")

exec_in_rig() {
  exec env -i HOME=/root PATH=/usr/bin:/usr/sbin LOGNAME=root USER=root LANG=C.UTF-8 LC_ALL=C.UTF-8 \
    ${VBOX_USER_HOME:+VBOX_USER_HOME="$VBOX_USER_HOME"} ${VBOX_IPC_SOCKETID:+VBOX_IPC_SOCKETID="$VBOX_IPC_SOCKETID"} \
    chroot "$root" "$@"
}
