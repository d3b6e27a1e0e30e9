#!/bin/sh
# own-network.sh COMMAND...: run COMMAND as root of a network of its own, with nothing on it but loopback.
# Tests can then make networks, bind any port and reach nobody, on whatever machine and as whatever user.
set -eu
export PATH="$PATH:/usr/sbin:/sbin"
user=''
if [ "$(id -u)" != 0 ]; then user='--user --map-root-user'; fi
exec unshare $user --net -- sh -c 'ip link set lo up && exec "$@"' sh "$@"
