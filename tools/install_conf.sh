#!/bin/sh
# Part of `make install`: the sample becomes the configuration where there is none yet; what an
# operator wrote stays.   usage: install_conf.sh SAMPLE DIR
set -eu
to=${DESTDIR:-}$2
[ -e "$to/hypervisor-vmm.conf" ] && exit 0
mkdir -p "$to"
install -m 0600 "$1" "$to/hypervisor-vmm.conf"
