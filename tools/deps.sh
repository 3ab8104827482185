#!/bin/sh
# Install what building, testing and measuring need (Debian 12 or Ubuntu 24.04, as root).
# Does nothing, quickly, when everything is there.   usage: deps.sh build|test|bench|lab
set -eu

# libFuzzer and the sanitizers of the distribution's own clang
# shellcheck disable=SC1091
case "$(. /etc/os-release && echo "${ID:-} ${VERSION_ID:-}")" in
'ubuntu 24.04') clang=18 ;;
*) clang=14 ;;
esac

build="gcc make git pkg-config meson ninja-build ca-certificates
 libsystemd-dev libmicrohttpd-dev libwslay-dev libcurl4-openssl-dev libjansson-dev libsqlite3-dev
 libssl-dev libarchive-dev libisal-dev zlib1g-dev libzstd-dev libseccomp-dev
 libmnl-dev libpsl-dev libnftables-dev libinih-dev libyaml-dev libcmocka-dev
 e2fsprogs apparmor util-linux iproute2 haproxy busybox-static python3 debootstrap curl
  dropbear-bin openssh-sftp-server node-xterm"
test_="$build python3-pytest python3-requests python3-websocket python3-h2 clang clang-format libclang-rt-$clang-dev
 skopeo umoci docker-registry nftables strace procps jq openssh-client iputils-ping apache2-utils zstd openssl
 erofs-utils zsh fish bash-completion mandoc cppcheck universal-ctags tmux sslscan
 chromium libnss3-tools fonts-dejavu-core"
bench="$test_ crun runc podman wrk redis-tools nginx-light nghttp2-client"
lab="$build qemu-system-x86 mmdebstrap debian-archive-keyring kmod zstd"

case "${1:-build}" in
build) want=$build ;;
test) want=$test_ ;;
bench) want=$bench ;;
lab) want=$lab ;;
*) echo "usage: $0 build|test|bench|lab" >&2; exit 2 ;;
esac

missing=
for p in $want; do
        case "$(dpkg-query -W -f '${Status}' "$p" 2>/dev/null || true)" in
        *"install ok installed") ;;
        *) missing="$missing $p" ;;
        esac
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ]; then
        echo "deps: these packages are missing; run 'sudo make deps':$missing" >&2
        exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing
