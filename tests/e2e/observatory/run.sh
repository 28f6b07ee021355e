#!/usr/bin/env bash
# Grades the demo as MDN's HTTP Observatory grades a site behind TLS; fails below A+. Nothing leaves this machine.
# Usage: run.sh PROGRAM
set -euo pipefail
program=$(realpath "$1")
cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost -keyout "$scratch/key.pem" -out "$scratch/cert.pem" 2>/dev/null
# Browsers' list of HSTS sites, which the package downloads: localhost is not on it, so an empty one is as good.
list=node_modules/@mdn/mdn-http-observatory/conf/hsts-preload.json
[ -e "$list" ] || echo '{}' >"$list"
# Node takes further roots at its start only.
NODE_EXTRA_CA_CERTS="$scratch/cert.pem" node grade.js "$program" "$scratch"
