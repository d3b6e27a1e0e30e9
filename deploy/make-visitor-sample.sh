#!/bin/sh
# Make board/doorboard/sounds/visitor.wav, the visitor of the trial door: 8 kHz mono S16, about 8 s, the same bytes each time.
# Needs: espeak-ng sox (Debian packages). What a speech synthesiser says is free of its licence.
set -eu
cd "$(dirname "$0")/.."
out=board/doorboard/sounds/visitor.wav
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
espeak-ng -v en-gb -s 150 -p 45 -a 160 -w "$work/spoken.wav" \
  "Hello! This is the delivery service. I have a parcel for you. Could you open the door, please?"
mkdir -p "$(dirname "$out")"
# A second of quiet at the end, so that a looped sample sounds like someone who waits for an answer.
sox -R "$work/spoken.wav" -r 8000 -c 1 -b 16 -e signed-integer "$out" \
  gain -6 highpass 150 norm -6 pad 0.1 1
