#!/bin/bash
# Build the User Mode Linux kernel that the tests marked "kernel" run in, from Debian's linux-source:
#   build.sh [OUTPUT]   without OUTPUT into the cache, where the tests look: nothing to do if it is there
#   build.sh --where    only say where in the cache that is
# It has gpio-sim, snd-aloop, netem, softdog, uinput and a USB gadget. OUTPUT is one file of 9 MB.
# Needs: apt-get install linux-source build-essential flex bison bc xz-utils
# and for 4 to 6 minutes 2 GB in TMPDIR (/var/tmp).
set -eu
here=$(dirname "$(realpath "$0")")
# A new recipe or new sources: another kernel.
key=$({ cat "$here/uml.config" "$here/build.sh"; dpkg-query -W -f='${Version}' linux-source 2>/dev/null || :; } | sha256sum)
cached=${XDG_CACHE_HOME:-$HOME/.cache}/doorstation/linux-${key:0:16}.uml
case ${1-} in
--where) echo "$cached"; exit ;;
-*) sed -n '2,7p' "$0"; exit 2 ;;
'') if [ -x "$cached" ]; then exit; fi ;;
esac
out=$(realpath -m "${1:-$cached}")
sources=$(find /usr/src -name 'linux-source-*.tar.xz' | sort -V | tail -n 1)
[ -n "$sources" ] || { echo "no sources in /usr/src: apt-get install linux-source" >&2; exit 1; }
# Not in /tmp: that is memory on Debian 13.
build=$(mktemp -d "${TMPDIR:-/var/tmp}/doorstation-uml.XXXXXX")
trap 'rm -rf "$build"' EXIT
mkdir "$build/source" "$build/o"
tar xf "$sources" -C "$build/source" --strip-components=1
cd "$build/source"
unset MAKEFLAGS MAKELEVEL # of a `make test` around this
# 6.1 holds ALSA back on UML for the drivers that touch I/O memory; snd-aloop and snd-dummy don't.
sed -i 's/^if !UML$/if HAS_IOMEM/' sound/Kconfig
# gpio-sim's interrupts come at the next tick: every millisecond in place of every ten.
sed -i '/^config HZ$/,/^$/s/default 100$/default 1000/' arch/um/Kconfig
make -s ARCH=um O="$build/o" tinyconfig >/dev/null
scripts/kconfig/merge_config.sh -m -O "$build/o" "$build/o/.config" "$here/uml.config" >/dev/null 2>&1
make -s ARCH=um O="$build/o" olddefconfig
while read -r line; do
  case $line in CONFIG_*) grep -qxF "$line" "$build/o/.config" || echo "not set: $line" >&2 ;; esac
done < "$here/uml.config"
make -s ARCH=um O="$build/o" -j"$(nproc)" linux
mkdir -p "$(dirname "$out")"
# Two may do this at once: each writes its own, the rename is atomic.
strip -o "$out.$$" "$build/o/linux"
mv "$out.$$" "$out"
