#!/bin/sh
# Prepare this checkout: .venv, and the Debian packages that it needs and lacks.
#   deploy/setup.sh try    .venv for `make try`: no compiler, no sound, no GPIO (an existing full one is as good)
#   deploy/setup.sh dev    the full .venv: what `make setup` and `make check` use
#   deploy/setup.sh test   the same, and the servers, phones and tools that the tests run against
# Quick when there is nothing to do. Says what is missing and why, and asks, before it installs anything as root;
# without a terminal, or with CI set, it does not ask.
# PYTHON in the environment: the interpreter to use, 3.11 or later.
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
stamp=.venv/.doorstation # kind of the .venv, then a hash of what it was made from

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

main() {
  case ${1-} in
    try | dev | test) ;;
    *) sed -n '2,8p' deploy/setup.sh; exit 2 ;;
  esac
  if [ "$1" = test ]; then tests_need_packages; fi
  kind=dev
  if [ "$1" = try ] && ! grep -qs '^dev ' "$stamp"; then kind=try; fi
  made_from="$kind $( (pwd; cat pyproject.toml requirements/$kind.lock deploy/setup.sh) | sha256sum)"
  if [ -x .venv/bin/python ] && [ "$made_from" = "$(cat "$stamp" 2>/dev/null)" ]; then return; fi
  find_python
  if [ $kind = dev ]; then compiler_needs_packages; fi
  make_venv
}

# Debian packages

# needs "why" package...: put what is missing of them on the list
wanted='' reasons=''
needs() {
  why=$1; shift
  have=$(dpkg-query -W -f='${db:Status-Abbrev}${Package}\n' "$@" 2>/dev/null | sed -n 's/^ii *//p' || :)
  lacking=''
  for package; do
    case "
$have
" in *"
$package
"*) ;; *) lacking="$lacking $package" ;; esac
  done
  if [ -z "$lacking" ]; then return; fi
  wanted="$wanted$lacking"
  reasons="$reasons
 $lacking: $why"
}

install_packages() {
  if [ -z "$wanted" ]; then return; fi
  say "Missing on this machine:$reasons"
  command -v apt-get >/dev/null || die 'This is not Debian: please install their like, and run this again.'
  sudo=''
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "Without sudo, please run as root: apt-get install --no-install-recommends$wanted"
    sudo=sudo
  fi
  if [ -t 0 ] && [ -z "${CI-}" ]; then
    printf 'Install them now with %s? [Y/n] ' "${sudo:+sudo }apt-get" >&2
    read -r answer
    case $answer in '' | y* | Y* | j* | J*) ;; *) die 'Not installed.' ;; esac
  fi
  # A server's package starts it at once: not here, where only tests start servers.
  guard=/usr/sbin/policy-rc.d
  if [ ! -e $guard ]; then
    trap '$sudo rm -f $guard' EXIT
    trap 'exit 1' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' | $sudo tee $guard >/dev/null
    $sudo chmod 755 $guard
  fi
  $sudo apt-get update -q >&2
  # --no-remove: this is somebody's machine; better no tests than no desktop sound.
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends --no-remove $wanted >&2
  # Nor at the next boot: this machine has its network, and its servers, from somebody else.
  for service in kamailio:kamailio network-manager:NetworkManager dhcpcd5:dhcpcd kea-dhcp4-server:kea-dhcp4-server nginx-light:nginx \
    avahi-daemon:avahi-daemon; do
    case " $wanted " in
      *" ${service%:*} "*)
        if command -v systemctl >/dev/null; then $sudo systemctl disable -q "${service#*:}.service" || :; fi ;;
    esac
  done
  wanted='' reasons=''
}

tests_need_packages() {
  needs 'registrar and proxy of the tests' kamailio kamailio-tls-modules openssl
  needs 'phones and callers of the tests' baresip-core sip-tester
  needs 'another SRTP than libsrtp, to talk with ours' ffmpeg
  needs 'a sound card in user space' pulseaudio pulseaudio-utils libasound2-plugins alsa-utils
  needs 'networks of their own, names and addresses' iproute2 dnsmasq-base
  needs 'another DHCP server, and clients that hold its port beside us' kea-dhcp4-server isc-dhcp-client dhcpcd5
  needs 'the DHCP client of desktops and of newer Raspberry Pi OS, on a bus of its own' network-manager dbus-daemon
  needs 'a web server for signed files' nginx-light
  needs 'a computer that names its services on the link (multicast DNS)' avahi-daemon
  needs 'the page, tested in a real browser' chromium fonts-dejavu-core
  needs 'small guests for kernel GPIO and sound' busybox-static xz-utils
  needs 'echo and resampling of the loudspeaker' libspeexdsp1
  needs 'voices of the sound benchmarks, a woman and a man' asterisk-core-sounds-en-g722 asterisk-core-sounds-it-g722
  needs 'wide-band calls by Opus' libopus0
  needs 'speech of a woman and a man for the benchmarks' asterisk-core-sounds-en-wav asterisk-core-sounds-it-wav
  needs 'a TPM of software, and what asks it for a door its key' swtpm tpm2-openssl openssl
  needs 'checks the service file' systemd
  needs 'the ALSA bindings and the virtual card are compiled here' gcc libc6-dev libasound2-dev
  own_kernel=''
  if [ -z "${UML_KERNEL-}" ] && [ ! -e ../shared/lab/linux.uml.xz ] && [ "$(uname -m)" = x86_64 ]; then
    own_kernel=yes
    needs 'the kernel of those guests is built here' linux-source build-essential flex bison bc
  fi
  install_packages
  if [ -n "$own_kernel" ]; then build_kernel; fi
}

build_kernel() {
  kernel=$(tests/support/uml/build.sh --where)
  if [ -x "$kernel" ]; then return; fi
  say "Building the kernel that some tests run in, once: 4 to 6 minutes, and 2 GB in ${TMPDIR:-/var/tmp} for that time.
It will be $kernel; UML_KERNEL=FILE names another."
  nice tests/support/uml/build.sh
}

compiler_needs_packages() {
  if ! command -v cc >/dev/null; then needs 'the ALSA bindings are compiled here' gcc libc6-dev; fi
  if [ ! -e /usr/include/alsa/asoundlib.h ]; then needs 'to compile the ALSA bindings' libasound2-dev; fi
  if [ ! -e "$($python -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]; then
    needs "to compile the ALSA bindings for $python" python3-dev
  fi
  install_packages
}

# Python

find_python() {
  for python in ${PYTHON:-python3 /usr/bin/python3 python3.13 python3.12 python3.11}; do
    if ! $python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then continue; fi
    if $python -c 'import ensurepip, venv' 2>/dev/null; then return; fi
    lame=$python
  done
  [ -n "${lame-}" ] || die 'No Python 3.11 or later here (looked for python3; PYTHON=... names another).'
  python=$lame
  needs "$python cannot make a .venv without it" python3-venv
  install_packages
  $python -c 'import ensurepip, venv' || die "$python still cannot make a .venv."
}

make_venv() {
  say "Preparing .venv ($($python -V), requirements/$kind.lock)"
  rm -f "$stamp"
  if ! .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    $python -m venv --clear .venv
  fi
  pip='.venv/bin/python -m pip --disable-pip-version-check install -q --no-deps'
  $pip --require-hashes --use-pep517 -r requirements/$kind.lock
  $pip --no-build-isolation -e .
  printf '%s\n' "$made_from" >"$stamp"
}

main "$@"
