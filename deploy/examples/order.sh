#!/bin/bash
# order.sh KEY HOST:PORT DOOR USER PASSWORD ORDER: one signed order to a door, and what became of it.
#
#   order.sh office.key 192.0.2.7:5060 8e2b1c34-… office '…' '"op":"get","keys":["audio"]'
#
# Shows the wire format of docs/remote-commands.md with bash and openssl alone: SIP by TCP, the
# door's digest by SHA-256, a compact JWS by Ed25519. The result comes back on the same connection;
# its signature is not checked here (`doorstation command` does).
set -euo pipefail
key=$1 address=$2 door=$3 user=$4 password=$5 order=$6

base64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
unbase64url() {  # openssl 3.5 says nothing at all where there is too much padding
  local text; text=$(tr -- '-_' '+/')
  while [ $((${#text} % 4)) != 0 ]; do text+='='; done
  openssl base64 -d -A <<< "$text"
}
sha256() { printf %s "$1" | openssl dgst -sha256 -r | cut -d ' ' -f 1; }

# The counter beside the key rises before each order; the time is its floor.
counter=$(($(cat "$key.counter" 2>/dev/null || echo 0) + 1)) now=$(date +%s)
[ "$counter" -gt "$now" ] || counter=$now
echo "$counter" > "$key.counter"

x=$(openssl pkey -in "$key" -pubout -outform DER | tail -c 32 | base64url)
kid=$(printf '{"crv":"Ed25519","kty":"OKP","x":"%s"}' "$x" | openssl dgst -sha256 -binary | base64url)
signed=$(printf '{"alg":"EdDSA","kid":"%s"}' "${kid:0:16}" | base64url).$(
  printf '{"sub":"%s","ctr":%s,"iat":%s,%s}' "$door" "$counter" "$now" "$order" | base64url)
scratch=$(mktemp); trap 'rm -f "$scratch"' EXIT
printf %s "$signed" > "$scratch"  # openssl wants to know its size before it signs
token=$signed.$(openssl pkeyutl -sign -inkey "$key" -rawin -in "$scratch" | base64url)

exec 3<>"/dev/tcp/${address%:*}/${address##*:}"
send() {  # CSEQ [HEADER]
  printf '%s\r\n' "MESSAGE sip:door@$address SIP/2.0" "Via: SIP/2.0/TCP order.invalid;branch=z9hG4bK$counter.$1" \
    "Max-Forwards: 70" "From: <sip:$user@order.invalid>;tag=$counter" "To: <sip:door@$address>" \
    "Call-ID: $counter@order.invalid" "CSeq: $1 MESSAGE" "Content-Type: application/vnd.doorstation.config+jose" \
    "Content-Length: ${#token}" "${@:2}" "" >&3
  printf %s "$token" >&3
}
receive() {  # one message: its first line, head and body
  first='' head='' body=''
  while IFS= read -r -t 20 line <&3 && line=${line%$'\r'} && [ -n "$line" ]; do head+=$line$'\n'; done
  first=${head%%$'\n'*}
  IFS= read -r -t 20 -N "$(sed -n 's/^Content-Length: *//Ip' <<< "$head")" body <&3 || true
}
send 1; receive
nonce=$(sed -n 's/.*nonce="\([^"]*\)".*/\1/p' <<< "$head")
uri=sip:door@$address nc=00000001 cnonce=$(openssl rand -hex 8)
proof=$(sha256 "$(sha256 "$user:$door.config:$password"):$nonce:$nc:$cnonce:auth:$(sha256 "MESSAGE:$uri")")
send 2 "Authorization: Digest username=\"$user\", realm=\"$door.config\", nonce=\"$nonce\", uri=\"$uri\", \
algorithm=SHA-256, qop=auth, nc=$nc, cnonce=\"$cnonce\", response=\"$proof\""
receive
echo "$first $body"
[[ $first == *" 202 "* ]] || exit 1
receive
printf '%s\r\n' "SIP/2.0 200 OK" "$(grep -Ei '^(Via|From|Call-ID|CSeq):' <<< "$head" | sed 's/$/\r/')" \
  "$(grep -i '^To:' <<< "$head");tag=$counter" "Content-Length: 0" "" >&3
cut -d . -f 2 <<< "$body" | unbase64url
echo
