#!/bin/bash
# Build the User Mode Linux kernel that the tests marked "kernel" run in:  build.sh OUTPUT [FOLDER]
# It has gpio-sim, snd-aloop, netem, softdog, uinput and a USB gadget, from Debian's linux-source-6.1.
# Needs: apt-get install linux-source-6.1 build-essential flex bison bc xz-utils rsync
# 4 to 6 minutes and 2 GB in FOLDER; OUTPUT is one file of 9 MB. Then: export UML_KERNEL=OUTPUT
set -eu
[ $# -ge 1 ] || { sed -n '2,5p' "$0"; exit 2; }
out=$(realpath -m "$1") build=$(realpath -m "${2:-/tmp/uml-build}") here=$(dirname "$(realpath "$0")")
mkdir -p "$build/o"
cd "$build"
[ -d linux-source-6.1 ] || tar xf /usr/src/linux-source-6.1.tar.xz linux-source-6.1
cd linux-source-6.1
# ALSA is held back on UML for the drivers that touch I/O memory; snd-aloop and snd-dummy don't.
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
strip -o "$out" "$build/o/linux"
