#!/bin/bash
# Run a command as root inside a User Mode Linux kernel:  run.sh [options] -- COMMAND [ARG...]
# The guest sees this machine's whole file system, writes go to memory and are lost; with -w a
# folder is shared for real. Exit status is COMMAND's; 124 time limit, 125 the guest did not come up.
#   -k FILE     the kernel (default: $UML_KERNEL), see build.sh
#   -t SECONDS  time limit (120)      -m SIZE  memory (256M)      -w DIR  share DIR (repeatable)
#   -p REV      a /proc/cpuinfo of a Raspberry Pi, for lgpio: c03115 is a 4B
#   -s          simulated time: sleeping costs nothing, computing takes no time
# Needs: busybox (without it the guest ends in a kernel panic, after its work is done)
set -eu
kernel=${UML_KERNEL:-} memory=256M limit=120 shares=() pi='' extra=''
while [ $# -gt 0 ]; do
  case $1 in
  -k) kernel=$2; shift 2 ;;
  -t) limit=$2; shift 2 ;;
  -m) memory=$2; shift 2 ;;
  -w) shares+=("$(realpath "$2")"); shift 2 ;;
  -p) pi=$2; shift 2 ;;
  -s) extra=time-travel=inf-cpu; shift ;;
  --) shift; break ;;
  *) sed -n '2,10p' "$0"; exit 2 ;;
  esac
done
[ -x "$kernel" ] || { echo "no kernel: -k FILE or UML_KERNEL; build.sh makes one" >&2; exit 2; }
work=$(mktemp -d /tmp/uml.XXXXXX)
trap 'rm -rf "$work"' EXIT
mkdir "$work/out"
{
  printf 'cd %q\n' "$PWD"
  while IFS= read -r -d '' pair; do
    case $pair in
    BASH_FUNC* | *$'\n'*) ;;
    *=*) printf 'export %s=%q\n' "${pair%%=*}" "${pair#*=}" ;;
    esac
  done < <(env -0)
  printf '%q ' "$@"
  echo
} > "$work/command"
printf '%s\n' "${shares[@]}" > "$work/shares"
# First stage: a writable root, the host's tree below a tmpfs.
cat > "$work/init" <<I
#!/bin/sh
mount -t tmpfs t /mnt && mkdir /mnt/u /mnt/w /mnt/r /mnt/h || exit 1
mount -t overlay o -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt/r || exit 1
# Shared folders are bound from here: how to name one to hostfs itself differs between kernels.
mount -t hostfs h /mnt/h || exit 1
cd /mnt/r
mount -t proc proc proc; mount -t sysfs sysfs sys; mount -t devtmpfs dev dev
mkdir -p dev/pts dev/shm
mount -t devpts devpts dev/pts -o ptmxmode=666; mount -t tmpfs shm dev/shm; mount -t tmpfs run run
mount -t configfs cfg sys/kernel/config
mkdir -p ./$work; mount --bind /mnt/h$work ./$work
while read -r d; do
  [ -n "\$d" ] && mkdir -p "./\$d" && mount --bind "/mnt/h\$d" "./\$d"
done < ./$work/shares
if [ -n "$pi" ]; then
  { cat proc/cpuinfo; printf 'Hardware\t: BCM2835\nRevision\t: %s\n' "$pi"; } > run/cpuinfo
  mount --bind run/cpuinfo proc/cpuinfo
fi
exec chroot . /bin/sh $work/second
I
cat > "$work/second" <<I
/bin/bash $work/command </dev/null; echo \$? > $work/out/status; sync
busybox poweroff -f || exit 1
I
chmod +x "$work/init"
status=0
timeout -k 5 "$limit" "$kernel" mem="$memory" uml_dir="$work" umid=g rootfstype=hostfs rootflags=/ \
  ro init="$work/init" con=null con0=null,fd:1 quiet loglevel=3 panic=-1 noreboot $extra \
  </dev/null 2>"$work/errors" || status=$?
[ -s "$work/out/status" ] && exit "$(cat "$work/out/status")"
[ $status = 124 ] && exit 124
tail -5 "$work/errors" >&2
exit 125
