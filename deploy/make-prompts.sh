#!/bin/sh
# Make firmware/doorstation/prompts/LANGUAGE/MOMENT.wav, what the door says: 16 kHz mono A-law, the same bytes each time.
# Needs: espeak-ng sox (Debian packages). What a speech synthesiser says is free of its licence.
# Another language: a block below, its name in `language` of settings.tree.Prompts.
set -eu
cd "$(dirname "$0")/../firmware/doorstation/prompts"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { # LANGUAGE VOICE, then lines of MOMENT TEXT
  mkdir -p "$1"
  while read -r moment text; do
    # A phone's ear opens a moment after its answer.
    lead=0.05; [ "$moment" != who_rings ] || lead=0.5
    espeak-ng -v "$2" -s 145 -p 45 -a 160 -w "$work/spoken.wav" "$text"
    # Quiet ends away, the loudest place just below full scale: a door is a loud place.
    sox -R "$work/spoken.wav" "$work/shaped.wav" \
      gain -9 rate 16000 highpass 150 silence 1 0.01 0.3% reverse silence 1 0.01 0.3% reverse \
      compand 0.002,0.1 6:-50,-28,-20,-13,0,-10 norm -2 pad $lead 0.1
    sox -R "$work/shaped.wav" -c 1 -b 8 -e a-law "$1/$moment.wav"
  done
}

say en en-gb <<'TEXTS'
calling It is ringing.
busy Sorry, the line is busy.
nobody_answers Sorry, nobody answers.
no_connection Sorry, there is no connection.
opened The door is open.
refused Not accepted.
warning This call will end soon.
who_rings Somebody is at the door.
TEXTS

say de de <<'TEXTS'
calling Es klingelt.
busy Es ist leider besetzt.
nobody_answers Es meldet sich leider niemand.
no_connection Leider keine Verbindung.
opened Die Tür ist offen.
refused Nicht angenommen.
warning Das Gespräch endet in Kürze.
who_rings Jemand ist an der Tür.
TEXTS
